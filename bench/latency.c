/* SPDX-License-Identifier: MIT */
/*
 * How long a value takes when there is time: busy round trips, and the delay of
 * values that arrive at a constant rate.
 *
 * round_trip: side 0 sends a value, side 1 answers with one of the same size.
 * `ring` does it over two textbook rings; `raw` bounces one cache line.
 *
 * open_loop_RATE: side 0 intends to send value i at start + i / RATE, whatever
 * became of the values before it, and writes that moment into the value. Side 1
 * records how long after that moment the value was in its hands. A hiccup
 * therefore counts against every value that it delayed, not only against the
 * one that happened to be measured (no "coordinated omission").
 *
 * measure.c does both with peers; here are the rings, and the list.
 */
#include "bench/limits.h"
#include "bench/measure.h"
#include "bench/suites.h"

struct latency {
    uint64_t *record; /* the encoded value to send */
    uint8_t *copy;    /* the ring's record, taken out */
};

static int ring_setup(struct bench_pair *p) {
    size_t size = (size_t)p->c->bytes;
    struct latency *l = bench_private(p, sizeof *l);
    if (!l) return -1;
    p->state = l;
    l->record = bench_private(p, size);
    l->copy = bench_private(p, size);
    return l->record && l->copy ? bench_value_build(p, l->record, size) : -1;
}

static int ring_some_rounds(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct latency *l = p->state;
    struct ring *rings = p->area;
    if (!ring_rounds(p, &rings[p->side], &rings[!p->side], l->record, l->copy, seq, n))
        return bench_fail(p, "the textbook ring delivered wrong bytes");
    return 0;
}

static int ring_round_trip(struct bench_pair *p) {
    uint64_t rounds = 0;
    return bench_measure_rounds(p, ring_some_rounds, 1000, 1.0, &rounds);
}

/* ---- at a constant rate ---- */

static void put_at(struct bench_pair *p, uint64_t intended, uint64_t seq) {
    struct latency *l = p->state;
    l->record[OPEN_LOOP_INTENDED] = intended;
    while (bench_now() < intended) bench_relax();
    ring_put(p->area, l->record, BENCH_RAW_BYTES, seq, 1);
}

/* Records when it arrived; the first `skip` are warm-up. */
static int take_late(struct bench_pair *p, uint64_t seq, uint64_t skip) {
    struct latency *l = p->state;
    uint64_t intended;
    ring_take(p->area, l->copy, BENCH_RAW_BYTES, 1);
    bench_used(l->copy);
    if (!bench_stamped(l->copy, BENCH_RAW_BYTES, seq)) return bench_fail(p, "the ring delivered wrong bytes");
    uint64_t now = bench_now();
    memcpy(&intended, (const uint64_t *)(const void *)l->copy + OPEN_LOOP_INTENDED, sizeof intended);
    if (seq >= skip) histogram_record(&p->shared->result.histogram, now > intended ? now - intended : 0);
    return 0;
}

static int ring_open_loop(struct bench_pair *p) {
    struct open_loop o = open_loop_begin(p);
    for (uint64_t i = 0; i < o.n; i++) {
        if (p->side == 0)
            put_at(p, o.start + i * o.interval, i);
        else if (take_late(p, i, o.skip) < 0)
            return -1;
    }
    open_loop_end(p, &o);
    return 0;
}

/* ---- the cases ---- */

static int add_round_trips(struct bench_suite *s, bool xi, uint64_t size) {
    if (bench_add_size(s, xi, "round_trip", size, MEASURE_ROUNDS, "raw", "64") < 0) return -1;
    if (!ring_slots((size_t)size)) return 0; /* larger than its buffer can hold two of */
    struct bench_case *c = bench_add(s, "round_trip", "ring", size);
    if (!c) return -1;
    bench_limit(c, "round_trip", "raw", "64");
    c->area = 2 * sizeof(struct ring);
    c->setup = ring_setup;
    c->run = ring_round_trip;
    return 0;
}

/* Peers at the lowest rate alone: it shows their delays; at a higher one, what they cannot keep up with. */
static int add_open_loop(struct bench_suite *s, bool xi, const char *metric, int64_t rate) {
    size_t first = s->count;
    bool peers = rate <= 10000;
    if ((peers ? bench_add_peers : bench_add_xi)(s, xi, metric, BENCH_RAW_BYTES, MEASURE_OPEN_LOOP, "ring", NULL) < 0)
        return -1;
    struct bench_case *c = bench_add(s, metric, "ring", BENCH_RAW_BYTES);
    if (!c) return -1;
    c->area = sizeof(struct ring);
    c->setup = ring_setup;
    c->run = ring_open_loop;
    c->param = rate;
    for (size_t i = first; i < s->count; i++) s->cases[i].param = rate;
    return 0;
}

int latency_add(struct bench_suite *s, bool xi) {
    static const uint64_t sizes[] = {8, 24, 64, 1024};
    uint64_t only = s->options->only_size;
    bool usual = false;
    if (limits_add_raw(s, "round_trip") < 0) return -1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        usual |= sizes[i] == only;
        if (bench_wants(s, sizes[i]) && add_round_trips(s, xi, sizes[i]) < 0) return -1;
    }
    if (only && !usual && add_round_trips(s, xi, only) < 0) return -1;
    if (!bench_wants(s, BENCH_RAW_BYTES)) return 0;
    if (add_open_loop(s, xi, "open_loop_10k", 10000) < 0) return -1;
    if (add_open_loop(s, xi, "open_loop_100k", 100000) < 0) return -1;
    return add_open_loop(s, xi, "open_loop_1m", 1000000);
}
