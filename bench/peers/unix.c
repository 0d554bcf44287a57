/* SPDX-License-Identifier: MIT */
/*
 * unix(7): one connected pair of stream sockets, and one of SOCK_SEQPACKET,
 * each with 1 MiB of buffer asked for (the kernel's limit may give less).
 * Stream: as a pipe. SEQPACKET: one send and one recv a message, which keeps
 * messages apart; sixteen by sendmmsg(2) and recvmmsg(2); no message larger than
 * the buffer. Awake, the reader asks again and again (O_NONBLOCK).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "bench/peers/bytes.h"

enum { SOCKET_ROOM = 1 << 20, PACKET_MOST = 65536 };

/* Side 0 listens, side 1 connects: a pair as by socketpair(2), between processes that are there already. */
static int meet(struct bench_pair *p, int type) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s/socket", peer_folder(p));
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0), connected = -1;
    if (fd < 0) return -1;
    if (peer_side(p) == 0 && (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 1) < 0)) return close(fd), -1;
    peer_meet(p);
    if (peer_side(p) == 1) return connect(fd, (struct sockaddr *)&at, sizeof at) < 0 ? (close(fd), -1) : fd;
    connected = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    close(fd);
    return connected;
}

static int open_type(struct bench_pair *p, int type) {
    int room = SOCKET_ROOM;
    struct bytes *b = calloc(1, sizeof *b);
    if (!b) return bench_fail(p, "out of memory");
    peer_keep(p, b);
    b->in = b->out = meet(p, type);
    if (b->in < 0) return bench_fail(p, "connecting a Unix socket: %s", strerror(errno));
    if (setsockopt(b->in, SOL_SOCKET, SO_SNDBUF, &room, sizeof room) < 0 ||
        (peer_spins(p) && fcntl(b->in, F_SETFL, O_NONBLOCK) < 0))
        return bench_fail(p, "setting up a Unix socket: %s", strerror(errno));
    return 0;
}

static void close_(struct bench_pair *p) {
    struct bytes *b = peer_state(p);
    close(b->in);
    free(b);
}

/* ---- stream ---- */

static int stream_open(struct bench_pair *p) { return open_type(p, SOCK_STREAM); }

static int stream_send(struct bench_pair *p, const void *message, size_t size) {
    return bytes_write(p, peer_state(p), message, size);
}

static int stream_recv(struct bench_pair *p, void *room, size_t size, const void **message) {
    return bytes_recv(p, peer_state(p), room, size, message);
}

static int stream_send_many(struct bench_pair *p, const uint8_t *messages, size_t size, size_t n) {
    return bytes_write(p, peer_state(p), messages, size * n);
}

static int stream_recv_many(struct bench_pair *p, uint8_t *room, size_t size, size_t n, const void **messages) {
    (void)room;
    return bytes_recv_many(p, peer_state(p), size, n, messages);
}

const struct peer peer_unix = {
    .name = "unix",
    .what = "unix(7) stream socket",
    .how = "awake: reads without blocking, again and again; else blocks. One write a message, reads of what has come; "
           "copied in and out by the kernel",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_BATCHES | PEER_COPIES,
    .open = stream_open, .close = close_, .send = stream_send, .recv = stream_recv, .send_many = stream_send_many,
    .recv_many = stream_recv_many,
};

/* ---- packets ---- */

static int packet_open(struct bench_pair *p) { return open_type(p, SOCK_SEQPACKET); }

static int packet_send(struct bench_pair *p, const void *message, size_t size) {
    struct bytes *b = peer_state(p);
    while (send(b->out, message, size, MSG_NOSIGNAL) < 0) {
        if (errno != EAGAIN) return bench_fail(p, "sending a packet: %s", strerror(errno));
        peer_relax();
    }
    return 0;
}

static int packet_recv(struct bench_pair *p, void *room, size_t size, const void **message) {
    struct bytes *b = peer_state(p);
    (void)message;
    for (;;) {
        ssize_t n = recv(b->in, room, size, 0);
        if (n == (ssize_t)size) return 0;
        if (n >= 0) return bench_fail(p, "a packet of %zd bytes instead of %zu arrived", n, size);
        if (errno != EAGAIN) return bench_fail(p, "receiving a packet: %s", strerror(errno));
        peer_relax();
    }
}

/* `n` headers over as many messages that lie one after another. */
static void vectors(struct mmsghdr *headers, struct iovec *at, const uint8_t *messages, size_t size, size_t n) {
    memset(headers, 0, n * sizeof *headers);
    for (size_t i = 0; i < n; i++) {
        at[i] = (struct iovec){.iov_base = (void *)(uintptr_t)(messages + i * size), .iov_len = size};
        headers[i].msg_hdr.msg_iov = &at[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
}

static int packet_send_many(struct bench_pair *p, const uint8_t *messages, size_t size, size_t n) {
    struct bytes *b = peer_state(p);
    struct mmsghdr headers[PEER_BATCH];
    struct iovec at[PEER_BATCH];
    vectors(headers, at, messages, size, n);
    for (size_t sent = 0; sent < n;) {
        int rc = sendmmsg(b->out, headers + sent, (unsigned)(n - sent), MSG_NOSIGNAL);
        if (rc < 0) return bench_fail(p, "sending packets: %s", strerror(errno));
        sent += (size_t)rc;
    }
    return 0;
}

static int packet_recv_many(struct bench_pair *p, uint8_t *room, size_t size, size_t n, const void **messages) {
    struct bytes *b = peer_state(p);
    struct mmsghdr headers[PEER_BATCH];
    struct iovec at[PEER_BATCH];
    vectors(headers, at, room, size, n);
    int got = recvmmsg(b->in, headers, (unsigned)n, MSG_WAITFORONE, NULL);
    if (got < 0) return bench_fail(p, "receiving packets: %s", strerror(errno));
    for (int i = 0; i < got; i++) {
        if (headers[i].msg_len != size) return bench_fail(p, "a packet of %u bytes arrived", headers[i].msg_len);
        messages[i] = room + (size_t)i * size;
    }
    return got;
}

const struct peer peer_seqpacket = {
    .name = "seqpacket",
    .what = "unix(7) SOCK_SEQPACKET socket",
    .how = "awake: receives without blocking, again and again; else blocks. Batches by sendmmsg and recvmmsg; copied in and "
           "out by the kernel",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_BATCHES | PEER_COPIES,
    .largest = PACKET_MOST,
    .open = packet_open, .close = close_, .send = packet_send, .recv = packet_recv, .send_many = packet_send_many,
    .recv_many = packet_recv_many,
};
