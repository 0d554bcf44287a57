/* SPDX-License-Identifier: MIT */
/*
 * nng: a pair0 socket over ipc://, with buffers for 1,000 messages on either
 * side so that its threads may run ahead. It always blocks: its threads need a
 * processor as well. Messages are built once and handed over (nng_sendmsg), and
 * looked at where nng has them.
 */
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peer.h"

enum { DEEP = 1000 };

struct pair {
    nng_socket socket;
    nng_msg *message; /* the one last received */
};

static int failed(struct bench_pair *p, const char *what, int rc) {
    return bench_fail(p, "%s: %s", what, nng_strerror(rc));
}

static int open_(struct bench_pair *p) {
    char at[128];
    struct pair *s = calloc(1, sizeof *s);
    if (!s) return bench_fail(p, "out of memory");
    peer_keep(p, s);
    snprintf(at, sizeof at, "ipc://%s/pair", peer_folder(p));
    int rc = nng_pair0_open(&s->socket);
    if (rc == 0) rc = nng_socket_set_int(s->socket, NNG_OPT_SENDBUF, DEEP);
    if (rc == 0) rc = nng_socket_set_int(s->socket, NNG_OPT_RECVBUF, DEEP);
    if (rc == 0) rc = nng_socket_set_size(s->socket, NNG_OPT_RECVMAXSZ, 0); /* no limit */
    if (rc == 0 && peer_side(p) == 0) rc = nng_listen(s->socket, at, NULL, 0);
    peer_meet(p);
    if (rc == 0 && peer_side(p) == 1) rc = nng_dial(s->socket, at, NULL, 0);
    return rc ? failed(p, "opening a pair of nng", rc) : 0;
}

static void close_(struct bench_pair *p) {
    struct pair *s = peer_state(p);
    if (s->message) nng_msg_free(s->message);
    nng_close(s->socket);
    free(s);
}

static int send_(struct bench_pair *p, const void *message, size_t size) {
    struct pair *s = peer_state(p);
    nng_msg *m = NULL;
    int rc = nng_msg_alloc(&m, size);
    if (rc) return failed(p, "nng_msg_alloc", rc);
    memcpy(nng_msg_body(m), message, size);
    rc = nng_sendmsg(s->socket, m, 0); /* which then owns it */
    if (rc) nng_msg_free(m);
    return rc ? failed(p, "nng_sendmsg", rc) : 0;
}

static int recv_(struct bench_pair *p, void *room, size_t size, const void **message) {
    struct pair *s = peer_state(p);
    (void)room;
    if (s->message) nng_msg_free(s->message);
    s->message = NULL;
    int rc = nng_recvmsg(s->socket, &s->message, 0);
    if (rc) return failed(p, "nng_recvmsg", rc);
    if (nng_msg_len(s->message) != size) return bench_fail(p, "a message of another size arrived");
    *message = nng_msg_body(s->message);
    return 0;
}

static const struct peer nng = {
    .name = "nng",
    .what = "nng, pair0 over ipc://",
    .how = "blocks; threads on either side move messages through a Unix socket; copied into a message, which is handed over "
           "and read in place",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_COPIES,
    .flags = PEER_THREADS,
    .open = open_, .close = close_, .send = send_, .recv = recv_,
};
const struct peer *const bench_peers[] = {&nng, NULL};
