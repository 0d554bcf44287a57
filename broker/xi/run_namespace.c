/* SPDX-License-Identifier: MIT */
/*
 * The end of a namespace that `xi run` made for its processes: nobody else knows
 * its name, so what was never received would keep its broker for ever. Says so,
 * then asks the broker to end.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "run.h"
#include "wire/names.h"
#include "wire/protocol.h"
#include "xi.h"

#define PATIENCE_MS 5000

static void tell_undelivered(const char *ns) {
    xi_observer *o;
    xi_channel_info list[64];
    if (xi_observe(ns, &o) != 0) return; /* it is gone already, as it should */
    int64_t n = xi_list_channels(o, list, 64);
    for (int64_t i = 0; i < n && i < 64; i++) {
        char name[192];
        if (list[i].depth > 0)
            say("%llu values on channel \"%s\" were never received; they end with this run (--ns NAME keeps them)",
                (unsigned long long)list[i].depth, printable(list[i].name, name, sizeof name));
    }
    xi_observer_free(o);
}

static int connect_to(const char *ns) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (xi_socket_path(address.sun_path, sizeof address.sun_path, ns) != 0) return -1;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1; /* no broker: there is nothing to end */
}

void run_end_namespace(const char *ns) {
    tell_undelivered(ns);
    int fd = connect_to(ns);
    if (fd < 0) return;
    struct xi_request request = {.magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .op = XI_OP_SHUTDOWN, .serial = 1};
    if (send(fd, &request, sizeof request, MSG_NOSIGNAL) == (ssize_t)sizeof request) {
        /* The reply, then the end of the connection when the broker has gone and removed everything. */
        char reply[sizeof(struct xi_reply)];
        struct pollfd wait = {fd, POLLIN, 0};
        int64_t end = now_ns() + PATIENCE_MS * (int64_t)1000000;
        for (int left = PATIENCE_MS; left > 0; left = (int)((end - now_ns()) / 1000000)) {
            int got = poll(&wait, 1, left);
            if (got < 0 && errno == EINTR) continue;
            if (got > 0 && recv(fd, reply, sizeof reply, MSG_DONTWAIT) > 0) continue;
            if (got > 0) {
                close(fd);
                return;
            }
        }
        say("the broker of namespace %s did not end; see: xi doctor", ns);
    }
    close(fd);
}
