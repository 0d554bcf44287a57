/* SPDX-License-Identifier: MIT */
/*
 * How long a value takes when there is time: busy round trips, and the delay of
 * values that arrive at a constant rate.
 *
 * round_trip: side 0 sends a value on one channel, side 1 answers with one of
 * the same size on another. Both wait as the library's defaults have them wait.
 * `ring` does the same over two textbook rings; `raw` bounces one cache line.
 *
 * open_loop_RATE: side 0 intends to send value i at start + i / RATE, whatever
 * became of the values before it, and writes that moment into the value. Side 1
 * records how long after that moment the value was in its hands. A hiccup
 * therefore counts against every value that it delayed, not only against the
 * one that happened to be measured (no "coordinated omission").
 */
#include "bench/limits.h"
#include "bench/suites.h"

#include <stdio.h>

struct latency {
    struct bench_xi xi;
    uint64_t *record; /* the encoded value to send */
    uint8_t *copy;    /* the ring's record, taken out */
};

static struct latency *latency_new(struct bench_pair *p) {
    size_t size = (size_t)p->c->bytes;
    struct latency *l = bench_private(p, sizeof *l);
    if (!l) return NULL;
    p->state = l;
    l->record = bench_private(p, size);
    l->copy = bench_private(p, size);
    if (!l->record || !l->copy || bench_value_build(p, l->record, size) < 0) return NULL;
    return l;
}

/* ---- over channels ---- */

static int xi_setup(struct bench_pair *p) {
    struct latency *l = latency_new(p);
    return l ? bench_xi_open(p, &l->xi, 0) : -1;
}

static void xi_teardown(struct bench_pair *p) {
    struct latency *l = p->state;
    bench_xi_close(&l->xi);
}

static int xi_say(struct bench_pair *p, struct latency *l, size_t size, uint64_t seq) {
    bench_stamp(l->record, size, seq);
    int rc = xi_send(l->xi.out, l->record, size, XI_FOREVER);
    return rc < 0 ? bench_fail(p, "sending value %llu: %s", (unsigned long long)seq, xi_error_text(rc)) : 0;
}

static int xi_hear(struct bench_pair *p, struct latency *l, size_t size, uint64_t seq) {
    int rc = xi_recv(l->xi.in, &l->xi.msg, XI_FOREVER);
    if (rc < 0) return bench_fail(p, "receiving value %llu: %s", (unsigned long long)seq, xi_error_text(rc));
    if (l->xi.msg.size != size || !bench_stamped(l->xi.msg.data, size, seq))
        return bench_fail(p, "value %llu arrived as another", (unsigned long long)seq);
    return 0;
}

static int xi_rounds(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct latency *l = p->state;
    size_t size = (size_t)p->c->bytes;
    for (uint64_t end = seq + n; seq < end; seq++) {
        if (p->side == 0 && xi_say(p, l, size, seq) < 0) return -1;
        if (xi_hear(p, l, size, seq) < 0) return -1;
        if (p->side == 1 && xi_say(p, l, size, seq) < 0) return -1;
    }
    return 0;
}

static int xi_round_trip(struct bench_pair *p) {
    struct latency *l = p->state;
    uint64_t rounds = 0;
    bench_xi_mark(&l->xi);
    if (bench_measure_rounds(p, xi_rounds, 1000, 1.0, &rounds) < 0) return -1;
    if (p->side == 0) bench_xi_note(p, &l->xi, rounds);
    return 0;
}

/* ---- over textbook rings ---- */

static int ring_setup(struct bench_pair *p) { return latency_new(p) ? 0 : -1; }

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

enum { INTENDED = 2 }; /* the word of the value that holds the moment it was meant to be sent */

static int say_at(struct bench_pair *p, uint64_t intended, uint64_t seq) {
    struct latency *l = p->state;
    l->record[INTENDED] = intended;
    while (bench_now() < intended) bench_relax();
    if (p->c->needs_namespace) return xi_say(p, l, (size_t)p->c->bytes, seq);
    ring_put(p->area, l->record, BENCH_RAW_BYTES, seq, 1);
    return 0;
}

/* Records when it arrived; the first `skip` are warm-up. */
static int hear_one(struct bench_pair *p, uint64_t seq, uint64_t skip) {
    struct latency *l = p->state;
    const void *value = l->copy;
    uint64_t intended;
    if (p->c->needs_namespace) {
        if (xi_hear(p, l, (size_t)p->c->bytes, seq) < 0) return -1;
        value = l->xi.msg.data;
    } else {
        ring_take(p->area, l->copy, BENCH_RAW_BYTES, 1);
        bench_used(l->copy);
        if (!bench_stamped(l->copy, BENCH_RAW_BYTES, seq)) return bench_fail(p, "the ring delivered wrong bytes");
    }
    uint64_t now = bench_now();
    memcpy(&intended, (const uint64_t *)value + INTENDED, sizeof intended);
    if (seq >= skip) histogram_record(&p->shared->result.histogram, now > intended ? now - intended : 0);
    return 0;
}

static int open_loop(struct bench_pair *p) {
    struct bench_result *r = &p->shared->result;
    struct latency *l = p->state;
    uint64_t interval = 1000000000u / (uint64_t)p->c->param, skip = (uint64_t)p->c->param / 20;
    uint64_t n = skip + (uint64_t)((double)p->c->param * p->options->target_s);
    uint64_t start = bench_agree(p, bench_now() + 1000000);
    if (p->c->needs_namespace) bench_xi_mark(&l->xi);
    for (uint64_t i = 0; i < n; i++)
        if ((p->side == 0 ? say_at(p, start + i * interval, i) : hear_one(p, i, skip)) < 0) return -1;
    if (p->side == 1) {
        r->ns = (double)histogram_percentile(&r->histogram, 50);
        r->ops = n - skip;
        r->seconds = (double)(bench_now() - start) / 1e9;
        if (p->c->needs_namespace) bench_xi_note(p, &l->xi, n);
        bench_extra(p, "mean_ns", histogram_mean(&r->histogram));
        bench_extra(p, "intended_per_second", (double)p->c->param);
    }
    bench_barrier(p);
    return 0;
}

/* ---- the cases ---- */

static int add_round_trips(struct bench_suite *s, bool xi, uint64_t size) {
    for (int system = xi ? 0 : 1; system < (ring_slots((size_t)size) ? 2 : 1); system++) {
        struct bench_case *c = bench_add(s, "round_trip", system == 0 ? "xi" : "ring", size);
        if (!c) return -1;
        bench_limit(c, "round_trip", "raw", "64");
        c->needs_namespace = system == 0;
        c->area = system == 0 ? 0 : 2 * sizeof(struct ring);
        c->setup = system == 0 ? xi_setup : ring_setup;
        c->run = system == 0 ? xi_round_trip : ring_round_trip;
        c->teardown = system == 0 ? xi_teardown : NULL;
    }
    return 0;
}

static int add_open_loop(struct bench_suite *s, bool xi, const char *metric, int64_t rate) {
    for (int system = xi ? 0 : 1; system < 2; system++) {
        struct bench_case *c = bench_add(s, metric, system == 0 ? "xi" : "ring", BENCH_RAW_BYTES);
        if (!c) return -1;
        if (system == 0) bench_limit(c, metric, "ring", NULL);
        c->param = rate;
        c->needs_namespace = system == 0;
        c->area = system == 0 ? 0 : sizeof(struct ring);
        c->setup = system == 0 ? xi_setup : ring_setup;
        c->run = open_loop;
        c->teardown = system == 0 ? xi_teardown : NULL;
    }
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
