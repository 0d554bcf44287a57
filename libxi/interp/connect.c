/* SPDX-License-Identifier: MIT */
/*
 * One's own broker listens in one's own folder, where nobody else can put
 * anything. Another user's listens in a folder that everybody can reach, so what
 * is found there is believed only if the folder is that user's alone to write,
 * and the process at the other end runs as that user: the kernel says so.
 */
#include "connect.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../error.h"
#include "../wait/sleep.h"

/* ------------------------------------------------------------ packets */

void xi_request_init(struct xi_request *r, enum xi_op op) {
    memset(r, 0, sizeof *r);
    r->magic = XI_WIRE_MAGIC;
    r->version = XI_WIRE_VERSION;
    r->op = (uint16_t)op;
}

void xi_close_all(int *fds, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        if (fds[i] >= 0) close(fds[i]);
}

/* A reset also says that the broker closed without reading what was sent; what it said before is there nevertheless. */
static ssize_t receive(int fd, struct msghdr *msg, int flags) {
    ssize_t n = recvmsg(fd, msg, flags);
    return n < 0 && errno == ECONNRESET ? recvmsg(fd, msg, flags) : n;
}

int xi_packet_receive(int fd, struct xi_reply *reply, int *fds, int flags) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(XI_WIRE_FDS * sizeof(int))];
    } control;
    struct iovec iov = {reply, sizeof *reply};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    for (unsigned i = 0; i < XI_WIRE_FDS; i++) fds[i] = -1;
    ssize_t n = receive(fd, &msg, flags | MSG_CMSG_CLOEXEC);
    if (n < 0) return errno == ECONNRESET ? 0 : -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(c), (count < XI_WIRE_FDS ? count : XI_WIRE_FDS) * sizeof(int));
        }
    if (n == 0) return 0;
    if (n != (ssize_t)sizeof *reply || reply->magic != XI_WIRE_MAGIC || reply->version != XI_WIRE_VERSION) {
        xi_close_all(fds, XI_WIRE_FDS);
        return -EPROTO;
    }
    reply->text[sizeof reply->text - 1] = 0;
    return 1;
}

int xi_turned_away(const struct xi_reply *r) {
    if (r->serial != 0 || r->op != 0 || (r->status != XI_E_ACCESS && r->status != XI_E_LIMIT)) return 0;
    return xi_fail(r->status, "%s", r->text);
}

int xi_broker_observe(int socket, uint32_t segment, int *fd) {
    struct xi_request q;
    struct xi_reply r;
    int fds[XI_WIRE_FDS], rc = 0;
    xi_request_init(&q, XI_OP_OBSERVE);
    q.serial = 1;
    q.a = segment;
    ssize_t sent;
    do sent = send(socket, &q, sizeof q, MSG_NOSIGNAL); /* if it fails, the answer says why, or there is none */
    while (sent < 0 && errno == EINTR);
    int64_t until = xi_now() + 1000000000, left;
    struct pollfd p = {.fd = socket, .events = POLLIN};
    while ((left = until - xi_now()) > 0 && rc == 0) {
        int n = poll(&p, 1, (int)(left / 1000000) + 1);
        rc = n > 0 ? xi_packet_receive(socket, &r, fds, MSG_DONTWAIT) : 0;
        if (n < 0 && errno != EINTR) break;
        if (rc == -EAGAIN || rc == -EINTR) rc = 0;
        else if (n > 0 && rc == 0) break; /* it is gone */
    }
    if (rc <= 0) return xi_fail(XI_E_BROKER, "the broker does not answer");
    int away = xi_turned_away(&r);
    if (away) return away;
    *fd = fds[0];
    if (r.status < 0) return xi_fail(r.status, "%s", r.text);
    return *fd >= 0 ? 0 : xi_fail(XI_E_BROKER, "the broker answered without a descriptor");
}

/* --------------------------------------------------------- connecting */

static int connect_to(const char *path, int *out) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, path, strnlen(path, sizeof a.sun_path - 1));
    int rc, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return xi_fail_errno(errno, "cannot make a socket");
    do rc = connect(fd, (struct sockaddr *)&a, sizeof a);
    while (rc != 0 && errno == EINTR);
    if (rc == 0) {
        *out = fd;
        return 0;
    }
    int err = errno;
    close(fd);
    if (err == ENOENT || err == ECONNREFUSED || err == EAGAIN) return XI_E_AGAIN;
    if (err == ENOMEM || err == ENOBUFS) return xi_fail_errno(err, "cannot connect to the broker");
    return xi_fail(err == EACCES ? XI_E_ACCESS : XI_E_BROKER, "cannot connect to the broker at %s: %s", path, strerror(err));
}

/* The folder has to be that user's, and nobody else may write there. XI_E_AGAIN: there is none. */
static int check_folder(const char *dir, uid_t uid) {
    struct stat st;
    if (lstat(dir, &st) != 0 && errno == ENOENT) return XI_E_AGAIN;
    if (lstat(dir, &st) != 0) return xi_fail(XI_E_ACCESS, "cannot look at %s: %s", dir, strerror(errno));
    if (S_ISDIR(st.st_mode) && st.st_uid == uid && !(st.st_mode & 022)) return 0;
    return xi_fail(XI_E_ACCESS, "%s is not a folder of user %u that they alone can write to (owner %u, mode %04o): what is in "
                   "there is not to be trusted", dir, (unsigned)uid, (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
}

static int check_peer(int fd, const struct xi_place *place) {
    struct ucred who;
    socklen_t n = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) != 0) return xi_fail_errno(errno, "SO_PEERCRED");
    if (who.uid == place->uid) return 0;
    return xi_fail(XI_E_ACCESS, "who serves \"%s\" runs as user %u", place->text, (unsigned)who.uid);
}

static int connect_foreign(const struct xi_place *place, unsigned which, int *out) {
    char dir[108], path[120];
    int fd, rc = xi_open_dir(dir, sizeof dir, place->uid, which);
    if (rc == 0) rc = check_folder(dir, place->uid);
    if (rc == 0) rc = xi_open_socket_path(path, sizeof path, place->uid, place->ns, which);
    if (rc == 0 && strlen(path) > 107) rc = xi_fail(XI_E_INVAL, "%s is too long for a socket; set XI_OPEN_DIR to a shorter path", dir);
    if (rc == 0) rc = connect_to(path, &fd);
    if (rc) return rc;
    rc = check_peer(fd, place);
    if (rc) close(fd);
    else *out = fd;
    return rc;
}

int xi_broker_connect(const struct xi_place *place, int *fd) {
    char path[108];
    if (!place->foreign) {
        int rc = xi_socket_path(path, sizeof path, place->ns);
        return rc ? rc : connect_to(path, fd);
    }
    for (unsigned which = 0; which < XI_OPEN_PLACES; which++) {
        int rc = connect_foreign(place, which, fd);
        if (rc != XI_E_AGAIN && rc != XI_E_NOENT) return rc;
    }
    return XI_E_AGAIN;
}
