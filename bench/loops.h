/* SPDX-License-Identifier: MIT */
/*
 * The loops in which messages go back and forth, and one way. `send` and `recv`
 * are constants wherever these are inlined in a peer's own file, so that a peer
 * which is measured in single nanoseconds pays for no call through a pointer;
 * measure.c instantiates them for all others.
 */
#ifndef XI_BENCH_LOOPS_H
#define XI_BENCH_LOOPS_H

#include "bench/harness.h"

#define CREDIT_WINDOW 4096u /* messages on the way, of a peer that has no flow control of its own */

/* One side's messages: `state` of every run with a peer. */
struct work {
    uint8_t *records; /* PEER_BATCH encoded values, one after another; one, where they are large */
    uint8_t *copies;  /* as many */
    const void *messages[PEER_BATCH];
    uint64_t acknowledged; /* side 0 of copies */
    uint64_t credit;       /* side 0's copy of the shared one */
    uint64_t window;       /* messages on the way at most; side 1 tells at every eighth of it */
    uint8_t ack[8], ack_copy[8];
};

int loop_wrong(struct bench_pair *p, uint64_t seq) __attribute__((cold));

static inline __attribute__((always_inline)) int loop_hear(struct bench_pair *p, struct work *w, size_t size, uint64_t seq,
                                                           peer_recv *recv) {
    const void *message = w->copies;
    if (recv(p, w->copies, size, &message) < 0) return -1;
    return bench_stamped(message, size, seq) ? 0 : loop_wrong(p, seq);
}

static inline __attribute__((always_inline)) int loop_say(struct bench_pair *p, struct work *w, size_t size, uint64_t seq,
                                                          peer_send *send) {
    bench_stamp(w->records, size, seq);
    return send(p, w->records, size);
}

static inline __attribute__((always_inline)) int loop_rounds(struct bench_pair *p, uint64_t seq, uint64_t n, peer_send *send,
                                                             peer_recv *recv) {
    struct work *w = p->state;
    size_t size = (size_t)p->c->bytes;
    for (uint64_t end = seq + n; seq < end; seq++) {
        if (p->side == 0 && loop_say(p, w, size, seq, send) < 0) return -1;
        if (loop_hear(p, w, size, seq, recv) < 0) return -1;
        if (p->side == 1 && loop_say(p, w, size, seq, send) < 0) return -1;
    }
    return 0;
}

static inline __attribute__((always_inline)) int loop_stream(struct bench_pair *p, uint64_t seq, uint64_t n, peer_send *send,
                                                             peer_recv *recv) {
    struct work *w = p->state;
    size_t size = (size_t)p->c->bytes;
    for (uint64_t end = seq + n; p->side == 0 && seq < end; seq++)
        if (loop_say(p, w, size, seq, send) < 0) return -1;
    for (uint64_t end = seq + n; p->side == 1 && seq < end; seq++)
        if (loop_hear(p, w, size, seq, recv) < 0) return -1;
    return 0;
}

#endif
