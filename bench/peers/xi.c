/* SPDX-License-Identifier: MIT */
/*
 * xidata: two queue channels, one each way, as xi_open() makes them by default,
 * and nothing set but how long a side spins before it sleeps: the library's own
 * 50 us in so many words where both are awake (a process that is pinned to one
 * processor, as these are, does not spin by itself), not at all where they are
 * to sleep. Small values travel inside the ring, larger ones through the arena;
 * loans are xi_loan_get and xi_send_loan.
 */
#include <stdio.h>

#include "bench/loops.h"

struct xi {
    struct bench_xi xi;
    const void *values[PEER_BATCH];
    size_t sizes[PEER_BATCH];
    xi_msg msgs[PEER_BATCH];
    uint64_t header; /* of a bytes value that fills a whole loan */
};

static inline struct xi *state(const struct bench_pair *p) { return p->peer_state; }

/* The header of the value that loans hold, taken from one that is built in full. */
static int make_header(struct bench_pair *p, struct xi *x) {
    void *whole = bench_private(p, (size_t)p->c->bytes);
    if (!whole || bench_value_build(p, whole, (size_t)p->c->bytes) < 0) return -1;
    memcpy(&x->header, whole, sizeof x->header);
    return 0;
}

static int open_(struct bench_pair *p) {
    struct xi *x = bench_private(p, sizeof *x);
    if (!x) return -1;
    peer_keep(p, x);
    for (int i = 0; i < PEER_BATCH; i++) x->msgs[i] = (xi_msg)XI_MSG_INIT;
    if (p->c->measure == MEASURE_LOANS && make_header(p, x) < 0) return -1;
    return bench_xi_open(p, &x->xi, peer_asleep(p) ? -1 : 0);
}

static void close_(struct bench_pair *p) {
    struct xi *x = state(p);
    for (int i = 0; i < PEER_BATCH; i++) xi_msg_release(&x->msgs[i]);
    bench_xi_close(&x->xi);
}

static int failed(struct bench_pair *p, const char *what, int rc) {
    return bench_fail(p, "%s: %s", what, rc < 0 ? xi_error_text(rc) : "a value of another size");
}

static inline int send_(struct bench_pair *p, const void *value, size_t size) {
    int rc = xi_send(state(p)->xi.out, value, size, XI_FOREVER);
    return rc < 0 ? failed(p, "sending", rc) : 0;
}

static inline int recv_(struct bench_pair *p, void *room, size_t size, const void **value) {
    struct bench_xi *x = &state(p)->xi;
    (void)room;
    int rc = xi_recv(x->in, &x->msg, XI_FOREVER);
    if (rc < 0 || x->msg.size != size) return failed(p, "receiving", rc);
    *value = x->msg.data;
    return 0;
}

static void done(struct bench_pair *p) { xi_msg_release(&state(p)->xi.msg); }

static void mark(struct bench_pair *p) { bench_xi_mark(&state(p)->xi); }
static void note(struct bench_pair *p, uint64_t operations) { bench_xi_note(p, &state(p)->xi, operations); }

static int send_many(struct bench_pair *p, const uint8_t *values, size_t size, size_t n) {
    struct xi *x = state(p);
    for (size_t i = 0; i < n; i++) {
        x->values[i] = values + i * size;
        x->sizes[i] = size;
    }
    for (size_t sent = 0; sent < n;) {
        int64_t rc = xi_send_many(x->xi.out, x->values + sent, x->sizes + sent, n - sent, XI_FOREVER);
        if (rc <= 0) return failed(p, "sending a batch", (int)rc);
        sent += (size_t)rc;
    }
    return 0;
}

static int recv_many(struct bench_pair *p, uint8_t *room, size_t size, size_t n, const void **values) {
    struct xi *x = state(p);
    (void)room;
    int64_t got = xi_recv_many(x->xi.in, x->msgs, n, XI_FOREVER);
    if (got <= 0) return failed(p, "receiving a batch", (int)got);
    for (int64_t i = 0; i < got; i++) {
        if (x->msgs[i].size != size) return failed(p, "receiving a batch", 0);
        values[i] = x->msgs[i].data;
    }
    return (int)got;
}

static int lend(struct bench_pair *p, size_t size, const uint64_t words[2]) {
    struct xi *x = state(p);
    xi_loan loan;
    int rc = xi_loan_get(x->xi.me, size, &loan);
    if (rc < 0) return failed(p, "taking a loan", rc);
    uint64_t *at = loan.data;
    at[0] = x->header;
    at[1] = words[1];
    rc = xi_send_loan(x->xi.out, &loan, size, NULL);
    return rc < 0 ? failed(p, "sending a loan", rc) : 0;
}

static int borrow(struct bench_pair *p, size_t size, uint64_t words[2]) {
    struct xi *x = state(p);
    int rc = xi_recv(x->xi.in, &x->xi.msg, XI_FOREVER);
    if (rc < 0 || x->xi.msg.size != size) return failed(p, "receiving a loan", rc);
    memcpy(words, x->xi.msg.data, 2 * sizeof words[0]);
    xi_msg_release(&x->xi.msg);
    return words[0] == x->header ? 0 : bench_fail(p, "a loan arrived with another header");
}

static int rounds(struct bench_pair *p, uint64_t seq, uint64_t n) { return loop_rounds(p, seq, n, send_, recv_); }
static int stream(struct bench_pair *p, uint64_t seq, uint64_t n) { return loop_stream(p, seq, n, send_, recv_); }

const struct peer peer_xi = {
    .name = "xi",
    .what = "xidata, two queue channels",
    .how = "spins up to 50 us, then sleeps; values copied into the ring and out of it, large ones into the arena and read "
           "in place; loans not copied at all",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_BATCHES | PEER_COPIES | PEER_LOANS,
    .flags = PEER_NAMESPACE,
    .open = open_, .close = close_, .send = send_, .recv = recv_, .done = done, .mark = mark, .note = note,
    .send_many = send_many, .recv_many = recv_many, .lend = lend, .borrow = borrow, .rounds = rounds, .stream = stream,
};
