/* SPDX-License-Identifier: MIT */
/*
 * The limits themselves: one cache line, the textbook ring, memcpy through a
 * double buffer, futex(2). limits.h says what they leave out to be that fast.
 */
#include "bench/limits.h"

#include <errno.h>
#include <linux/futex.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- measuring round trips ---- */

enum { CHUNKS_MAX = 4096 };

/* The figure: the median chunk. Updates *seq. */
static int rounds_in_chunks(struct bench_pair *p, bench_rounds rounds, uint64_t *seq, uint64_t chunks, uint64_t each,
                            double *figure) {
    double *ns = malloc(sizeof *ns * chunks);
    if (!ns) return bench_fail(p, "out of memory");
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < chunks; i++, *seq += each) {
        uint64_t start = bench_now();
        rc = rounds(p, *seq, each);
        ns[i] = (double)(bench_now() - start) / (double)each;
    }
    *figure = bench_median(ns, chunks);
    free(ns);
    return rc;
}

/* One at a time, each timed: side 0 records, side 1 answers. */
static int rounds_one_by_one(struct bench_pair *p, bench_rounds rounds, uint64_t seq, uint64_t n, double halves) {
    struct histogram *h = &p->shared->result.histogram;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t start = bench_tick();
        int rc = rounds(p, seq + i, 1);
        if (rc < 0) return rc;
        if (p->side == 0) histogram_record(h, (uint64_t)((double)(bench_tick() - start) * bench_tick_ns * halves));
    }
    return 0;
}

int bench_measure_rounds(struct bench_pair *p, bench_rounds rounds, uint64_t per_chunk, double halves) {
    struct bench_result *r = &p->shared->result;
    double figure = 0;
    uint64_t seq = 1, warm = per_chunk * 4;
    uint64_t start = bench_now();
    for (int i = 0; i < 2; i++, seq += warm) { /* the first finds cold memory; the second tells how many to do */
        start = bench_now();
        if (rounds(p, seq, warm) < 0) return -1;
    }
    uint64_t half = bench_scale(warm, bench_now() - start, p->options->target_s / 2, per_chunk, CHUNKS_MAX * per_chunk);
    half = bench_agree(p, half);
    uint64_t chunks = half / per_chunk, began = bench_now();
    if (rounds_in_chunks(p, rounds, &seq, chunks, per_chunk, &figure) < 0) return -1;
    bench_barrier(p);
    if (rounds_one_by_one(p, rounds, seq, half, halves) < 0) return -1;
    bench_barrier(p);
    if (p->side == 1) return 0;
    r->ns = figure * halves;
    r->ops = chunks * per_chunk;
    r->seconds = (double)(bench_now() - began) / 1e9;
    return 0;
}

/* ---- one cache line ---- */

static int raw_run(struct bench_pair *p) {
    struct bench_result *r = &p->shared->result;
    int rounds = bench_must_yield ? 20 : 1000;
    int chunks = (int)bench_scale(1, (uint64_t)(rounds * 400), p->options->target_s / 2, 9, 1000);
    uint64_t start = bench_now();
    double ns = bench_raw_round_trip(p, chunks, rounds);
    if (isnan(ns)) return -1;
    if (p->side == 1) return 0;
    r->ns = p->c->param ? ns / 2 : ns;
    r->ops = (uint64_t)chunks * (uint64_t)rounds;
    r->seconds = (double)(bench_now() - start) / 1e9;
    return 0;
}

/* As a hand-over an index in a line costs half of a round trip. */
int limits_add_raw(struct bench_suite *s, const char *metric) {
    struct bench_case *c = bench_add(s, metric, "raw", BENCH_RAW_BYTES);
    if (!c) return -1;
    c->param = strcmp(metric, "handoff") == 0;
    c->run = raw_run;
    return 0;
}

/* ---- the textbook ring ---- */

static inline __attribute__((always_inline)) bool rounds_sized(struct bench_pair *p, struct ring *out, struct ring *in,
                                                               void *record, void *copy, uint64_t seq, uint64_t rounds,
                                                               size_t size) {
    bool right = true;
    for (uint64_t i = 0; i < rounds; i++, seq++) {
        if (p->side == 0) {
            bench_stamp(record, size, seq);
            ring_put(out, record, size);
        }
        ring_take(in, copy, size);
        bench_used(copy);
        right &= bench_stamped(copy, size, seq);
        if (p->side == 1) {
            bench_stamp(record, size, seq);
            ring_put(out, record, size);
        }
    }
    return right;
}

bool ring_rounds(struct bench_pair *p, struct ring *out, struct ring *in, void *record, void *copy, uint64_t seq,
                 uint64_t rounds) {
    size_t size = p->c->bytes;
#define ROUNDS(constant) return rounds_sized(p, out, in, record, copy, seq, rounds, constant)
    RING_BY_SIZE(size, ROUNDS)
#undef ROUNDS
}

/* As many as there is room for, at most `most`, published by one store. */
static inline __attribute__((always_inline)) uint64_t put_some(struct ring *r, void *record, size_t size, uint64_t seq,
                                                               uint64_t most) {
    uint64_t slots = ring_slots(size), tail = xi_load_relaxed(&r->tail);
    uint64_t n = ring_room(r, tail, slots);
    if (n > most) n = most;
    for (uint64_t i = 0; i < n; i++) {
        bench_stamp(record, size, seq + i);
        memcpy(r->slots + ((tail + i) & (slots - 1)) * size, record, size);
    }
    xi_store_release(&r->tail, tail + n);
    return n;
}

static inline __attribute__((always_inline)) uint64_t take_some(struct ring *r, void *copy, size_t size, uint64_t seq,
                                                                uint64_t most, bool *right) {
    uint64_t slots = ring_slots(size), head = xi_load_relaxed(&r->head);
    uint64_t n = ring_ready(r, head);
    if (n > most) n = most;
    for (uint64_t i = 0; i < n; i++) {
        memcpy(copy, r->slots + ((head + i) & (slots - 1)) * size, size);
        bench_used(copy);
        *right &= bench_stamped(copy, size, seq + i);
    }
    xi_store_release(&r->head, head + n);
    return n;
}

static inline __attribute__((always_inline)) bool produce_sized(struct ring *r, void *record, size_t size, uint64_t seq,
                                                                uint64_t n, unsigned batch) {
    for (uint64_t done = 0; done < n;) {
        if (batch > 1) {
            done += put_some(r, record, size, seq + done, n - done < batch ? n - done : batch);
            continue;
        }
        bench_stamp(record, size, seq + done++);
        ring_put(r, record, size);
    }
    return true;
}

static inline __attribute__((always_inline)) bool consume_sized(struct ring *r, void *copy, size_t size, uint64_t seq,
                                                                uint64_t n, unsigned batch) {
    bool right = true;
    for (uint64_t done = 0; done < n;) {
        if (batch > 1) {
            done += take_some(r, copy, size, seq + done, n - done < batch ? n - done : batch, &right);
            continue;
        }
        ring_take(r, copy, size);
        bench_used(copy);
        right &= bench_stamped(copy, size, seq + done++);
    }
    return right;
}

bool ring_produce(struct ring *r, void *record, size_t size, uint64_t seq, uint64_t n, unsigned batch) {
#define PRODUCE(constant) return produce_sized(r, record, constant, seq, n, batch)
    RING_BY_SIZE(size, PRODUCE)
#undef PRODUCE
}

bool ring_consume(struct ring *r, void *copy, size_t size, uint64_t seq, uint64_t n, unsigned batch) {
#define CONSUME(constant) return consume_sized(r, copy, constant, seq, n, batch)
    RING_BY_SIZE(size, CONSUME)
#undef CONSUME
}

/* ---- memcpy through a double buffer ---- */

/* Two buffers: one is filled while the other is emptied. Counts only grow. */
struct double_buffer {
    struct bench_line filled, emptied;
    _Alignas(4096) uint8_t bytes[];
};

static int double_buffer_pass(struct bench_pair *p, uint8_t *mine, uint64_t seq, uint64_t n) {
    struct double_buffer *b = p->area;
    size_t size = p->c->bytes;
    for (uint64_t i = seq; i < seq + n; i++) {
        uint8_t *buffer = b->bytes + (i & 1) * size;
        struct bench_line *wait = p->side == 0 ? &b->emptied : &b->filled;
        uint64_t needed = p->side == 0 ? (i < 2 ? 0 : i - 1) : i + 1;
        while (xi_load_acquire(&wait->v) < needed) bench_relax();
        if (p->side == 0) {
            bench_stamp(mine, size, i);
            memcpy(buffer, mine, size);
            xi_store_release(&b->filled.v, i + 1);
            continue;
        }
        memcpy(mine, buffer, size);
        xi_store_release(&b->emptied.v, i + 1);
        bench_used(mine);
        if (!bench_stamped(mine, size, i)) return bench_fail(p, "the double buffer delivered wrong bytes");
    }
    return 0;
}

static int double_buffer_run(struct bench_pair *p) {
    uint8_t *mine = bench_private(p, p->c->bytes);
    uint64_t warm = 8, start = 0;
    if (!mine) return -1;
    if (p->side == 0) bench_fill(mine, p->c->bytes);
    for (uint64_t i = 0; i < 2; i++) {
        bench_barrier(p);
        start = bench_now();
        if (double_buffer_pass(p, mine, i * warm, warm) < 0) return -1;
    }
    uint64_t n = bench_agree(p, bench_scale(warm, bench_now() - start, p->options->target_s, 8, 1000000));
    start = bench_now();
    if (double_buffer_pass(p, mine, 2 * warm, n) < 0) return -1;
    bench_barrier(p);
    if (p->side == 1) return bench_filled(mine, p->c->bytes) ? 0 : bench_fail(p, "the double buffer lost bytes");
    struct bench_result *r = &p->shared->result;
    r->seconds = (double)(bench_now() - start) / 1e9;
    r->ops = n;
    r->ns = r->seconds * 1e9 / (double)n;
    return 0;
}

int limits_add_double_buffer(struct bench_suite *s, uint64_t bytes) {
    struct bench_case *c = bench_add(s, "copy", "memcpy", bytes);
    if (!c) return -1;
    c->area = sizeof(struct double_buffer) + 2 * (size_t)bytes;
    c->run = double_buffer_run;
    return 0;
}

/* ---- asleep ---- */

/* One word and one message each way. */
struct sleeper {
    _Alignas(128) bench_a32 word;
    _Alignas(64) uint8_t message[BENCH_RAW_BYTES];
};

static long futex(bench_a32 *word, int op, uint32_t value) { return syscall(SYS_futex, word, op, value, NULL, NULL, 0); }

/* Sleeps until the word is `seq`; returns how often it slept. */
static uint64_t sleep_until(bench_a32 *word, uint32_t seq) {
    uint64_t slept = 0;
    for (uint32_t now; (now = xi_load_acquire(word)) != seq;)
        if (futex(word, FUTEX_WAIT, now) == 0) slept++;
    return slept;
}

static void ring_bell(bench_a32 *word, uint32_t seq) {
    xi_store_release(word, seq);
    futex(word, FUTEX_WAKE, 1);
}

struct asleep {
    uint64_t slept;
    uint8_t record[BENCH_RAW_BYTES], copy[BENCH_RAW_BYTES];
};

/* param 1: the message is copied in and out; 0: the bare words. */
static int asleep_rounds(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct sleeper *line = p->area, *mine = &line[p->side], *theirs = &line[!p->side];
    struct asleep *s = p->state;
    for (uint64_t i = seq; i < seq + n; i++) {
        for (int turn = 0; turn < 2; turn++) {
            if (turn == p->side) { /* side 0 speaks first, side 1 second */
                if (p->c->param) {
                    bench_stamp(s->record, sizeof s->record, i);
                    memcpy(mine->message, s->record, sizeof s->record);
                }
                ring_bell(&mine->word, (uint32_t)i);
                continue;
            }
            s->slept += sleep_until(&theirs->word, (uint32_t)i);
            if (!p->c->param) continue;
            memcpy(s->copy, theirs->message, sizeof s->copy);
            bench_used(s->copy);
            if (!bench_stamped(s->copy, sizeof s->copy, i)) return bench_fail(p, "futex(2) woke to wrong bytes");
        }
    }
    return 0;
}

static int asleep_run(struct bench_pair *p) {
    p->state = bench_private(p, sizeof(struct asleep));
    if (!p->state || bench_measure_rounds(p, asleep_rounds, 100, 1.0) < 0) return -1;
    if (p->side == 1) return 0;
    /* warm-up and both passes: what all of it slept, for each round trip of all */
    struct bench_result *r = &p->shared->result;
    double rounds = 800.0 + 2.0 * (double)r->ops;
    bench_extra(p, "parks_per_op", (double)((struct asleep *)p->state)->slept / rounds);
    return 0;
}

int limits_add_asleep(struct bench_suite *s) {
    for (int64_t message = 0; message < 2; message++) {
        struct bench_case *c = bench_add(s, "round_trip_asleep", message ? "futex" : "raw", BENCH_RAW_BYTES);
        if (!c) return -1;
        c->area = 2 * sizeof(struct sleeper);
        c->param = message;
        c->run = asleep_run;
    }
    return 0;
}
