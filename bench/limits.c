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

int bench_measure_rounds(struct bench_pair *p, bench_rounds rounds, uint64_t per_chunk, double halves, uint64_t *done) {
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
    *done = seq - 1 + half;
    bench_barrier(p);
    if (p->side == 1) return 0;
    r->round_trip = figure;
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
                                                               const void *record, void *copy, uint64_t seq, uint64_t rounds,
                                                               size_t size) {
    bool right = true;
    for (uint64_t i = 0; i < rounds; i++, seq++) {
        if (p->side == 0) ring_put(out, record, size, seq, 1);
        ring_take(in, copy, size, 1);
        bench_used(copy);
        right &= bench_stamped(copy, size, seq);
        if (p->side == 1) ring_put(out, record, size, seq, 1);
    }
    return right;
}

bool ring_rounds(struct bench_pair *p, struct ring *out, struct ring *in, const void *record, void *copy, uint64_t seq,
                 uint64_t rounds) {
    size_t size = p->c->bytes;
#define ROUNDS(constant) return rounds_sized(p, out, in, record, copy, seq, rounds, constant)
    RING_BY_SIZE(size, ROUNDS)
#undef ROUNDS
}

/* As many as there is room for, at most `most`, published by one store. */
static inline __attribute__((always_inline)) uint64_t put_some(struct ring *r, const void *record, size_t size, uint64_t seq,
                                                               uint64_t most, unsigned pauses) {
    uint64_t slots = ring_slots(size), tail = xi_load_relaxed(&r->tail);
    uint64_t n = ring_room(r, tail, slots, pauses);
    if (n > most) n = most;
    for (uint64_t i = 0; i < n; i++)
        ring_fill(r->slots + ((tail + i) & (slots - 1)) * size, record, size, seq + i);
    xi_store_release(&r->tail, tail + n);
    return n;
}

static inline __attribute__((always_inline)) uint64_t take_some(struct ring *r, void *copy, size_t size, uint64_t seq,
                                                                uint64_t most, unsigned pauses, bool *right) {
    uint64_t slots = ring_slots(size), head = xi_load_relaxed(&r->head);
    uint64_t n = ring_ready(r, head, pauses);
    if (n > most) n = most;
    for (uint64_t i = 0; i < n; i++) {
        memcpy(copy, r->slots + ((head + i) & (slots - 1)) * size, size);
        bench_used(copy);
        *right &= bench_stamped(copy, size, seq + i);
    }
    xi_store_release(&r->head, head + n);
    return n;
}

static inline __attribute__((always_inline)) bool produce_sized(struct ring *r, const void *record, size_t size, uint64_t seq,
                                                                uint64_t n, struct ring_pace pace) {
    for (uint64_t done = 0; done < n;) {
        if (pace.batch > 1) {
            uint64_t most = n - done < pace.batch ? n - done : pace.batch;
            done += put_some(r, record, size, seq + done, most, pace.pauses);
            continue;
        }
        ring_put(r, record, size, seq + done++, pace.pauses);
    }
    return true;
}

static inline __attribute__((always_inline)) bool consume_sized(struct ring *r, void *copy, size_t size, uint64_t seq,
                                                                uint64_t n, struct ring_pace pace) {
    bool right = true;
    for (uint64_t done = 0; done < n;) {
        if (pace.batch > 1) {
            uint64_t most = n - done < pace.batch ? n - done : pace.batch;
            done += take_some(r, copy, size, seq + done, most, pace.pauses, &right);
            continue;
        }
        ring_take(r, copy, size, pace.pauses);
        bench_used(copy);
        right &= bench_stamped(copy, size, seq + done++);
    }
    return right;
}

bool ring_produce(struct ring *r, const void *record, size_t size, uint64_t seq, uint64_t n, struct ring_pace pace) {
#define PRODUCE(constant) return produce_sized(r, record, constant, seq, n, pace)
    RING_BY_SIZE(size, PRODUCE)
#undef PRODUCE
}

bool ring_consume(struct ring *r, void *copy, size_t size, uint64_t seq, uint64_t n, struct ring_pace pace) {
#define CONSUME(constant) return consume_sized(r, copy, constant, seq, n, pace)
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

enum { SETTLE_NS = 5000 };

/* Tells when it was sent, through shared memory, so that messages need no room for it. */
static int asleep_speak(struct bench_pair *p, const struct bench_asleep *a, uint64_t seq) {
    while (xi_load_acquire(&p->shared->waiting[!p->side].v) != seq) bench_relax();
    uint64_t settled = bench_now() + SETTLE_NS;
    while (bench_now() < settled) bench_relax();
    xi_store_release(&p->shared->stamp[p->side].v, bench_now());
    return a->speak(p, seq);
}

static int asleep_listen(struct bench_pair *p, const struct bench_asleep *a, uint64_t seq, uint64_t *ns) {
    xi_store_release(&p->shared->waiting[p->side].v, seq);
    if (a->listen(p, seq) < 0) return -1;
    uint64_t now = bench_now();
    *ns = now - xi_load_acquire(&p->shared->stamp[!p->side].v);
    return 0;
}

/* One round; side 0 learns how long both legs took together. */
static int asleep_round(struct bench_pair *p, const struct bench_asleep *a, uint64_t seq, uint64_t *ns) {
    uint64_t leg = 0;
    if (p->side == 1) {
        if (asleep_listen(p, a, seq, &leg) < 0) return -1;
        xi_store_relaxed(&p->shared->leg.v, leg); /* before the stamp of the next leg, which side 0 acquires */
        return asleep_speak(p, a, seq);
    }
    if (asleep_speak(p, a, seq) < 0 || asleep_listen(p, a, seq, &leg) < 0) return -1;
    *ns = leg + xi_load_relaxed(&p->shared->leg.v);
    return 0;
}

int bench_measure_asleep(struct bench_pair *p, const struct bench_asleep *a, uint64_t *rounds) {
    struct bench_result *r = &p->shared->result;
    const uint64_t warm = 100;
    uint64_t seq = 1, ns = 0, start = bench_now();
    for (; seq <= warm; seq++)
        if (asleep_round(p, a, seq, &ns) < 0) return -1;
    uint64_t n = bench_agree(p, bench_scale(warm, bench_now() - start, p->options->target_s, warm, 1000000));
    double *each = bench_private(p, (size_t)n * sizeof *each);
    if (!each) return -1;
    start = bench_now();
    for (uint64_t i = 0; i < n; i++, seq++) {
        if (asleep_round(p, a, seq, &ns) < 0) return -1;
        each[i] = (double)ns;
        if (p->side == 0) histogram_record(&r->histogram, ns);
    }
    *rounds = warm + n;
    bench_barrier(p);
    if (p->side == 1) return 0;
    r->ns = bench_median(each, (size_t)n);
    r->ops = n;
    r->seconds = (double)(bench_now() - start) / 1e9;
    return 0;
}

/* One word and one message each way. */
struct sleeper {
    _Alignas(128) bench_a32 word;
    _Alignas(64) uint8_t message[BENCH_RAW_BYTES];
};

struct asleep {
    uint64_t slept;
    uint8_t record[BENCH_RAW_BYTES], copy[BENCH_RAW_BYTES];
};

static long futex(bench_a32 *word, int op, uint32_t value) { return syscall(SYS_futex, word, op, value, NULL, NULL, 0); }

/* param 1: the message is copied in and out; 0: the bare words. */
static int futex_speak(struct bench_pair *p, uint64_t seq) {
    struct sleeper *mine = (struct sleeper *)p->area + p->side;
    struct asleep *s = p->state;
    if (p->c->param) {
        bench_stamp(s->record, sizeof s->record, seq);
        memcpy(mine->message, s->record, sizeof s->record);
    }
    xi_store_release(&mine->word, (uint32_t)seq); /* pairs with the acquire in futex_listen */
    futex(&mine->word, FUTEX_WAKE, 1);
    return 0;
}

static int futex_listen(struct bench_pair *p, uint64_t seq) {
    struct sleeper *theirs = (struct sleeper *)p->area + !p->side;
    struct asleep *s = p->state;
    for (uint32_t now; (now = xi_load_acquire(&theirs->word)) != (uint32_t)seq;)
        if (futex(&theirs->word, FUTEX_WAIT, now) == 0) s->slept++;
    if (!p->c->param) return 0;
    memcpy(s->copy, theirs->message, sizeof s->copy);
    bench_used(s->copy);
    return bench_stamped(s->copy, sizeof s->copy, seq) ? 0 : bench_fail(p, "futex(2) woke to wrong bytes");
}

static int futex_run(struct bench_pair *p) {
    static const struct bench_asleep by_futex = {futex_speak, futex_listen};
    uint64_t rounds = 0;
    struct asleep *s = p->state = bench_private(p, sizeof *s);
    if (!s || bench_measure_asleep(p, &by_futex, &rounds) < 0) return -1;
    if (p->side == 0) bench_extra(p, "parks_per_op", (double)s->slept / (double)rounds);
    return 0;
}

int limits_add_asleep(struct bench_suite *s) {
    for (int64_t message = 0; message < 2; message++) {
        struct bench_case *c = bench_add(s, "round_trip_asleep", message ? "futex" : "raw", BENCH_RAW_BYTES);
        if (!c) return -1;
        c->area = 2 * sizeof(struct sleeper);
        c->param = message;
        c->run = futex_run;
    }
    return 0;
}
