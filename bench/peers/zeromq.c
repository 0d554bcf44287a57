/* SPDX-License-Identifier: MIT */
/*
 * ZeroMQ: a PUSH and a PULL socket each way over ipc:// (a Unix socket behind
 * its I/O thread), with its defaults (high-water marks of 1,000). It always
 * blocks: its I/O thread needs a processor as well, and a side that polls would
 * take that away. Received messages are looked at where ZeroMQ has them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

#include "bench/peer.h"

struct sockets {
    void *context, *out, *in;
    zmq_msg_t message;
};

static int failed(struct bench_pair *p, const char *what) { return bench_fail(p, "%s: %s", what, zmq_strerror(errno)); }

/* Both ends wait for the other: connecting may come before binding. */
static int open_(struct bench_pair *p) {
    char at[2][128];
    struct sockets *s = calloc(1, sizeof *s);
    if (!s) return bench_fail(p, "out of memory");
    peer_keep(p, s);
    for (int side = 0; side < 2; side++) snprintf(at[side], sizeof at[side], "ipc://%s/from-%d", peer_folder(p), side);
    s->context = zmq_ctx_new();
    s->out = s->context ? zmq_socket(s->context, ZMQ_PUSH) : NULL;
    s->in = s->out ? zmq_socket(s->context, ZMQ_PULL) : NULL;
    int no_linger = 0;
    if (!s->in || zmq_setsockopt(s->out, ZMQ_LINGER, &no_linger, sizeof no_linger) < 0 ||
        zmq_bind(s->in, at[!peer_side(p)]) < 0 || zmq_connect(s->out, at[peer_side(p)]) < 0)
        return failed(p, "opening ZeroMQ sockets");
    zmq_msg_init(&s->message);
    return 0;
}

static void close_(struct bench_pair *p) {
    struct sockets *s = peer_state(p);
    zmq_msg_close(&s->message);
    zmq_close(s->in);
    zmq_close(s->out);
    zmq_ctx_term(s->context);
    free(s);
}

static int send_(struct bench_pair *p, const void *message, size_t size) {
    struct sockets *s = peer_state(p);
    while (zmq_send(s->out, message, size, 0) < 0)
        if (errno != EINTR) return failed(p, "zmq_send");
    return 0;
}

static int recv_(struct bench_pair *p, void *room, size_t size, const void **message) {
    struct sockets *s = peer_state(p);
    (void)room;
    while (zmq_msg_recv(&s->message, s->in, 0) < 0) /* lets go of the one before */
        if (errno != EINTR) return failed(p, "zmq_msg_recv");
    if (zmq_msg_size(&s->message) != size) return bench_fail(p, "a message of another size arrived");
    *message = zmq_msg_data(&s->message);
    return 0;
}

static const struct peer zeromq = {
    .name = "zeromq",
    .what = "ZeroMQ, PUSH to PULL over ipc://",
    .how = "blocks; an I/O thread on either side moves messages through a Unix socket, in batches when it falls behind; "
           "copied in, read in place",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_COPIES,
    .flags = PEER_THREADS,
    .open = open_, .close = close_, .send = send_, .recv = recv_,
};
const struct peer *const bench_peers[] = {&zeromq, NULL};
