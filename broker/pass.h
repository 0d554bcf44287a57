/* SPDX-License-Identifier: MIT */
/* Descriptors that go to another process, with a packet. */
#ifndef XI_BROKER_PASS_H
#define XI_BROKER_PASS_H

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PASS_MOST 8 /* descriptors at once */

/*
 * Sends `size` bytes with `count` descriptors, which stay the caller's: to `to`, or where that is NULL to whom the socket is
 * connected. Whatever signals come; never SIGPIPE. As sendmsg(2): the bytes sent, or -1 and errno.
 */
static inline ssize_t pass(int socket, const void *to, socklen_t length, const void *bytes, size_t size, const int *fds,
                           unsigned count, int flags) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(PASS_MOST * sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)(size_t)bytes, size};
    struct msghdr msg = {.msg_name = (void *)(size_t)to, .msg_namelen = length, .msg_iov = &iov, .msg_iovlen = 1};
    if (count > 0 && count <= PASS_MOST) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    ssize_t n;
    do n = sendmsg(socket, &msg, MSG_NOSIGNAL | flags);
    while (n < 0 && errno == EINTR);
    return n;
}

#endif
