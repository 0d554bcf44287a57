/* SPDX-License-Identifier: MIT */
/*
 * pipe(7): a pipe each way (by a name, so that two processes find it), enlarged
 * to 1 MiB, which is the most that any user may ask for. One write a message;
 * reads take what has come. Awake, the reader asks again and again
 * (O_NONBLOCK), which spares it the wake-up; in streams and asleep it blocks.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "bench/peers/bytes.h"

enum { PIPE_ROOM = 1 << 20 };

/* Opened for both directions, of which one is used: such an open waits for nobody. */
static int open_one(struct bench_pair *p, int from) {
    char path[128];
    snprintf(path, sizeof path, "%s/from-%d", peer_folder(p), from);
    if (mkfifo(path, 0600) < 0 && errno != EEXIST) return -1;
    int fd = open(path, O_RDWR | O_CLOEXEC | (peer_spins(p) ? O_NONBLOCK : 0));
    if (fd >= 0) (void)fcntl(fd, F_SETPIPE_SZ, PIPE_ROOM); /* refused beyond a user's limit: 64 KiB it is then */
    return fd;
}

static int open_(struct bench_pair *p) {
    struct bytes *b = calloc(1, sizeof *b);
    if (!b) return bench_fail(p, "out of memory");
    peer_keep(p, b);
    b->out = open_one(p, peer_side(p));
    b->in = open_one(p, !peer_side(p));
    return b->out < 0 || b->in < 0 ? bench_fail(p, "opening a pipe: %s", strerror(errno)) : 0;
}

static void close_(struct bench_pair *p) {
    struct bytes *b = peer_state(p);
    close(b->in);
    close(b->out);
    free(b);
}

static int send_(struct bench_pair *p, const void *message, size_t size) {
    return bytes_write(p, peer_state(p), message, size);
}

static int recv_(struct bench_pair *p, void *room, size_t size, const void **message) {
    return bytes_recv(p, peer_state(p), room, size, message);
}

static int send_many(struct bench_pair *p, const uint8_t *messages, size_t size, size_t n) {
    return bytes_write(p, peer_state(p), messages, size * n);
}

static int recv_many(struct bench_pair *p, uint8_t *room, size_t size, size_t n, const void **messages) {
    (void)room;
    return bytes_recv_many(p, peer_state(p), size, n, messages);
}

const struct peer peer_pipe = {
    .name = "pipe",
    .what = "pipe(7) of 1 MiB each way",
    .how = "awake: reads without blocking, again and again; else blocks. One write a message, reads of what has come; "
           "copied in and out by the kernel",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_BATCHES | PEER_COPIES,
    .open = open_, .close = close_, .send = send_, .recv = recv_, .send_many = send_many, .recv_many = recv_many,
};
