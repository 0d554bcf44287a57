/* SPDX-License-Identifier: MIT */
/*
 * The limits that figures are stated in multiples of: the best that anybody
 * could do with the same two processes, without anything of what a channel
 * promises.
 *
 * The textbook ring is the strongest opponent: one producer, one consumer,
 * records of one fixed size known to the compiler, a power of two of slots in
 * 64 KiB, each side's index in a line of its own, each side working from a
 * cached copy of the other's index and looking again only when that copy says
 * full or empty. A stream's sides wait about a microsecond before they look
 * again (`ring`): a consumer on its producer's heels takes away the very line
 * that is being written, and one that looks at once (`ring_eager`) has several
 * times less throughput; in a round trip they look at once. It has no locks, no variable lengths, no sleepers, no groups,
 * no second producer, and loses everything when anybody dies.
 */
#ifndef XI_BENCH_LIMITS_H
#define XI_BENCH_LIMITS_H

#include "bench/harness.h"

#define RING_BYTES ((size_t)65536)

struct ring {
    /* written by the producer */
    _Alignas(128) bench_a64 tail;
    uint64_t head_seen; /* the producer's copy of head */
    /* written by the consumer */
    _Alignas(128) bench_a64 head;
    uint64_t tail_seen; /* the consumer's copy of tail */
    _Alignas(4096) uint8_t slots[RING_BYTES];
};

/* How many records of `size` fit: the power of two below. At least 2 for any size up to 32 KiB. */
static inline uint64_t ring_slots(size_t size) {
    uint64_t n = RING_BYTES / size;
    return n < 2 ? 0 : (uint64_t)1 << (63 - __builtin_clzll(n));
}

/* Room for at least one record, looked up if the cached copy says there is none: how many there is room for. */
static inline uint64_t ring_room(struct ring *r, uint64_t tail, uint64_t slots, unsigned pauses) {
    uint64_t room = slots - (tail - r->head_seen);
    while (room == 0) {
        r->head_seen = xi_load_acquire(&r->head); /* pairs with the release in ring_taken */
        room = slots - (tail - r->head_seen);
        for (unsigned i = 0; room == 0 && i < pauses; i++) bench_relax();
    }
    return room;
}

static inline uint64_t ring_ready(struct ring *r, uint64_t head, unsigned pauses) {
    uint64_t ready = r->tail_seen - head;
    while (ready == 0) {
        r->tail_seen = xi_load_acquire(&r->tail); /* pairs with the release in ring_put */
        ready = r->tail_seen - head;
        for (unsigned i = 0; ready == 0 && i < pauses; i++) bench_relax();
    }
    return ready;
}

/*
 * Into a slot goes a copy of the record with its number written over it in place: a copy of what was stored a moment
 * ago by halves would wait for these stores, and the limit must not.
 */
static inline __attribute__((always_inline)) void ring_fill(uint8_t *slot, const void *record, size_t size,
                                                            uint64_t seq) {
    uint64_t word;
    if (size == 8) {
        memcpy(&word, record, sizeof word);
        bench_stamp(&word, sizeof word, seq);
        memcpy(slot, &word, sizeof word);
        return;
    }
    memcpy(slot, record, size);
    bench_stamp(slot, size, seq);
}

/* `size` is a constant wherever this is inlined for one of the usual sizes. */
static inline __attribute__((always_inline)) void ring_put(struct ring *r, const void *record, size_t size,
                                                           uint64_t seq, unsigned pauses) {
    uint64_t slots = ring_slots(size), tail = xi_load_relaxed(&r->tail);
    ring_room(r, tail, slots, pauses);
    ring_fill(r->slots + (tail & (slots - 1)) * size, record, size, seq);
    xi_store_release(&r->tail, tail + 1);
}

static inline __attribute__((always_inline)) void ring_take(struct ring *r, void *record, size_t size,
                                                            unsigned pauses) {
    uint64_t slots = ring_slots(size), head = xi_load_relaxed(&r->head);
    ring_ready(r, head, pauses);
    memcpy(record, r->slots + (head & (slots - 1)) * size, size);
    xi_store_release(&r->head, head + 1);
}

/* Calls BODY(constant) for the usual sizes, BODY(size) for any other. */
#define RING_BY_SIZE(size, BODY)                                                                                       \
    switch (size) {                                                                                                    \
    case 8: BODY(8); break;                                                                                            \
    case 24: BODY(24); break;                                                                                          \
    case 64: BODY(64); break;                                                                                          \
    case 1024: BODY(1024); break;                                                                                      \
    default: BODY(size); break;                                                                                        \
    }

/* One record each way, `rounds` times, from number `seq` on, for the round trip over two rings. False: wrong content. */
bool ring_rounds(struct bench_pair *p, struct ring *out, struct ring *in, const void *record, void *copy, uint64_t seq,
                 uint64_t rounds);
/* How a stream goes: records published, or taken, at once; pauses before a side that had to wait looks again. */
struct ring_pace {
    unsigned batch, pauses;
};
/* A stream of `n` records numbered from `seq`. */
bool ring_produce(struct ring *r, const void *record, size_t size, uint64_t seq, uint64_t n, struct ring_pace pace);
bool ring_consume(struct ring *r, void *copy, size_t size, uint64_t seq, uint64_t n, struct ring_pace pace);

/* Cases: METRIC/SYSTEM/LABEL of limits. Used by the suites, and alone by `xi-bench limits`. */
int limits_add_raw(struct bench_suite *s, const char *metric);            /* METRIC/raw/64: one cache line */
int limits_add_double_buffer(struct bench_suite *s, uint64_t bytes);      /* copy/memcpy/SIZE */
int limits_add_asleep(struct bench_suite *s);                             /* round_trip_asleep/{raw,futex}/64 */

/*
 * A round trip asleep is the sum of its two legs, each from just before the send to the moment the woken side has the
 * message in hand, and each sent only when its receiver is sure to sleep: it has said that it is about to, and then
 * the sender has been busy for 5 us more. (Sent as soon as possible, a ping-pong meant to sleep can settle into a
 * rhythm in which each side finds the message there on its way to sleep, and never does.)
 */
struct bench_asleep {
    int (*speak)(struct bench_pair *p, uint64_t seq);
    int (*listen)(struct bench_pair *p, uint64_t seq);
};
/* *rounds: how many there were, warm-up included. */
int bench_measure_asleep(struct bench_pair *p, const struct bench_asleep *a, uint64_t *rounds);

/*
 * A busy round trip is measured in chunks, the figure being the median chunk, exactly as the raw one is, and then
 * again one by one, for the percentiles. `rounds(p, seq, n)` does n of them; side 0's are timed. What is stated is a
 * round's time times `halves`. *done: all rounds that were made, warm-up included.
 */
typedef int (*bench_rounds)(struct bench_pair *p, uint64_t seq, uint64_t n);
int bench_measure_rounds(struct bench_pair *p, bench_rounds rounds, uint64_t per_chunk, double halves, uint64_t *done);

#endif
