/* SPDX-License-Identifier: MIT */
/* Connections; the header has the model. */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "error.h"
#include "pass.h"
#include "proc.h"
#include "table.h"
#include "xidata.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59 /* Linux 4.13 */
#endif

/* ---- in ---- */

static void on_packet(void *context, int result, const void *data) {
    struct peer *p = context;
    if (result == -EINTR || result == -EAGAIN)
        loop_again(p->loop, p->in);
    else
        p->packet(p, result, data);
}

void peer_listen(struct peer *p) {
    if (!p->queued) loop_again(p->loop, p->in);
}

/* The further groups of the process at the other end, as they were when it connected. False: they cannot be known. */
static bool read_groups(struct peer *p) {
    uint32_t few[64], *groups = few;
    socklen_t n = sizeof few;
    static_assert(sizeof(gid_t) == sizeof *groups, "");
    int rc = getsockopt(p->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n);
    if (rc != 0 && errno == ERANGE) { /* n says how much it takes */
        groups = memory_or_die(NULL, 1, n);
        rc = getsockopt(p->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n);
    }
    if (rc == 0) {
        p->who.group_count = n / (socklen_t)sizeof *groups;
        uint32_t *kept = memory_or_die(NULL, 1, n ? n : 1);
        memcpy(kept, groups, n);
        p->who.groups = kept;
    }
    if (groups != few) free(groups);
    return rc == 0;
}

/* Is it one of those who may come? Otherwise says so. */
static bool admitted(struct peer *p, const struct admission *admission) {
    char words[208];
    if (p->who.uid == admission->owner) return true;
    if (!admission->open_to) {
        snprintf(words, sizeof words, "this broker serves user %u alone, and this is user %u: start one of your own",
                 admission->owner, p->who.uid);
        peer_turn_away(p->fd, XI_E_ACCESS, words);
        return false;
    }
    bool known = read_groups(p);
    if (known && xi_access_of(admission->open_to, &p->who)) return true;
    snprintf(words, sizeof words, "this namespace of user %u is not open to user %u%s", admission->owner, p->who.uid,
             known ? "" : ", whose groups cannot be known (SO_PEERGROUPS; Linux 4.13 can)");
    peer_turn_away(p->fd, XI_E_ACCESS, words);
    return false;
}

/* Who is it? Writes down in words why it will be refused, if it will. False: it is gone, or sent away. */
static bool identify(struct peer *p, const struct admission *admission) {
    struct ucred who;
    socklen_t n = sizeof who;
    if (getsockopt(p->fd, SOL_SOCKET, SO_PEERCRED, &who, &n) != 0) return false;
    p->pid = who.pid;
    p->who = (struct xi_who){.uid = who.uid, .gid = who.gid};
    if (!admitted(p, admission)) return false;
    if (who.pid <= 0) return true; /* of another pid namespace: it may look, joining is refused by the core */
    p->pidfd = proc_open_peer(p->fd, who.pid, &p->start);
    if (p->pidfd < 0 && (errno == ESRCH || errno == ENOENT)) return false;
    if (p->pidfd < 0) {
        bool old = errno == ENOSYS || errno == EINVAL;
        p->refused = old ? XI_E_SYSTEM : xi_fail_errno(errno, "cannot watch your process");
        snprintf(p->words, sizeof p->words, "the broker: %s",
                 old ? "cannot watch your process (pidfd_open); Linux 5.3 can" : xi_error_text(p->refused));
    }
    return true;
}

struct peer *peer_new(struct loop *loop, int fd, uint64_t conn, const struct admission *admission, void *owner,
                      void (*packet)(struct peer *peer, int n, const void *bytes)) {
    struct peer *p = memory_or_die(NULL, 1, sizeof *p);
    *p = (struct peer){.conn = conn, .fd = fd, .pidfd = -1, .loop = loop, .owner = owner, .packet = packet};
    if (!identify(p, admission)) {
        close(fd);
        free((void *)(uintptr_t)p->who.groups);
        free(p);
        return NULL;
    }
    /* One byte more than a request, so that a longer packet is seen to be longer. */
    p->in = loop_receive(loop, fd, sizeof(struct xi_request) + 1, on_packet, p);
    return p;
}

static void drop_outgoing(struct outgoing *o) {
    for (unsigned i = 0; i < o->fd_count; i++) close(o->fds[i]);
}

void peer_free(struct peer *p) {
    loop_stop(p->loop, p->in);
    loop_stop(p->loop, p->out);
    for (unsigned i = 0; i < p->queued; i++) drop_outgoing(&p->queue[i]);
    free(p->queue);
    if (p->pidfd >= 0) close(p->pidfd);
    free((void *)(uintptr_t)p->who.groups);
    shutdown(p->fd, SHUT_RDWR); /* also ends it for a descriptor that a cancelled receive still holds */
    close(p->fd);
    free(p);
}

/* ---- out ---- */

/* 1: sent; 0: not now; negative: never. */
static int try_send(int fd, const struct xi_reply *reply, const int *fds, unsigned fd_count) {
    ssize_t n = pass(fd, NULL, 0, reply, sizeof *reply, fds, fd_count, MSG_DONTWAIT);
    if (n == (ssize_t)sizeof *reply) return 1;
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) ? 0 : -1;
}

void peer_turn_away(int fd, int status, const char *words) {
    struct xi_reply r = {.magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .status = status};
    snprintf(r.text, sizeof r.text, "%s", words);
    (void)try_send(fd, &r, NULL, 0); /* if it does not read this, it sees the end */
}

static void on_writable(void *context, int result, const void *data) {
    struct peer *p = context;
    unsigned sent = 0;
    int rc = 1;
    (void)result;
    (void)data;
    while (sent < p->queued &&
           (rc = try_send(p->fd, &p->queue[sent].reply, p->queue[sent].fds, p->queue[sent].fd_count)) > 0)
        drop_outgoing(&p->queue[sent++]);
    p->queued -= sent;
    memmove(p->queue, p->queue + sent, p->queued * sizeof *p->queue);
    if (rc < 0) {
        p->packet(p, -EPIPE, NULL);
        return;
    }
    if (p->queued) loop_again(p->loop, p->out);
    peer_listen(p);
}

static bool enqueue(struct peer *p, const struct xi_reply *reply, const int *fds, unsigned fd_count) {
    if (p->queued == PEER_QUEUE) return false;
    if (!p->queue) p->queue = memory_or_die(NULL, PEER_QUEUE, sizeof *p->queue);
    struct outgoing *o = &p->queue[p->queued];
    *o = (struct outgoing){.reply = *reply};
    for (; o->fd_count < fd_count; o->fd_count++) {
        o->fds[o->fd_count] = fcntl(fds[o->fd_count], F_DUPFD_CLOEXEC, 3);
        if (o->fds[o->fd_count] >= 0) continue;
        drop_outgoing(o);
        return false;
    }
    p->queued++;
    if (p->out)
        loop_again(p->loop, p->out);
    else
        p->out = loop_poll(p->loop, p->fd, POLLOUT, on_writable, p);
    return true;
}

bool peer_send(struct peer *p, const struct xi_reply *reply, const int *fds, unsigned fd_count) {
    int rc = p->queued ? 0 : try_send(p->fd, reply, fds, fd_count);
    return rc > 0 || (rc == 0 && enqueue(p, reply, fds, fd_count));
}
