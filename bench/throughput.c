/* SPDX-License-Identifier: MIT */
/*
 * How many values a second go one way, and how many bytes.
 *
 * one_way: side 0 sends, side 1 receives, one call a value, nothing in between.
 * one_way_batch16: the same by sixteens (xi_send_many, xi_recv_many; the ring
 * publishes sixteen records with one store). The time of one value is that from
 * the first send to the last receive, divided by how many there were.
 *
 * copy: side 0 has bytes in memory of its own, side 1 wants them in memory of
 * its own; at most two are on the way. `memcpy` does it with two buffers in
 * shared memory and two counters; a peer with a send of the large value, a copy
 * out of wherever it arrived, and an acknowledgement the other way.
 *
 * measure.c does all of it with peers; here are the rings, and the list.
 */
#include "bench/limits.h"
#include "bench/suites.h"

enum { BATCH = PEER_BATCH };

struct stream {
    uint8_t *record, *copy;
};

static int ring_setup(struct bench_pair *p) {
    size_t size = (size_t)p->c->bytes;
    struct stream *s = bench_private(p, sizeof *s);
    if (!s) return -1;
    p->state = s;
    s->record = bench_private(p, size);
    s->copy = bench_private(p, size);
    return s->record && s->copy ? bench_value_build(p, s->record, size) : -1;
}

static int ring_pass(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct stream *s = p->state;
    size_t size = (size_t)p->c->bytes;
    bool eager = strcmp(p->c->system, "ring_eager") == 0;
    struct ring_pace pace = {.batch = (unsigned)p->c->param, .pauses = eager ? 1 : bench_microsecond};
    bool right = p->side == 0 ? ring_produce(p->area, s->record, size, seq, n, pace)
                              : ring_consume(p->area, s->copy, size, seq, n, pace);
    return right ? 0 : bench_fail(p, "the textbook ring delivered wrong bytes");
}

static int ring_run(struct bench_pair *p) { return bench_measure_stream(p, ring_pass, bench_warm_up(p)); }

/* ---- the cases ---- */

static int add_one_way(struct bench_suite *s, bool xi, uint64_t size, int batch) {
    static const char *const systems[] = {"ring", "ring_eager"};
    const char *metric = batch > 1 ? "one_way_batch16" : "one_way";
    if (bench_add_size(s, xi, metric, size, batch > 1 ? MEASURE_BATCHES : MEASURE_STREAM, "ring", NULL) < 0) return -1;
    if (ring_slots((size_t)size) == 0) return 0; /* larger than its buffer can hold two of */
    for (int system = 0; system < (batch > 1 ? 1 : 2); system++) {
        struct bench_case *c = bench_add(s, metric, systems[system], size);
        if (!c) return -1;
        c->param = batch;
        c->area = sizeof(struct ring);
        c->setup = ring_setup;
        c->run = ring_run;
    }
    return 0;
}

static int add_copy(struct bench_suite *s, bool xi, uint64_t size) {
    if (bench_add_peers(s, xi, "copy", size, MEASURE_COPIES, "memcpy", NULL) < 0) return -1;
    return limits_add_double_buffer(s, size);
}

int throughput_add(struct bench_suite *s, bool xi) {
    static const uint64_t small[] = {8, 24, 64, 1024}, large[] = {1 << 16, 1 << 20, 1 << 24};
    uint64_t only = s->options->only_size;
    bool usual = only == 0;
    for (int batch = 1; batch <= BATCH; batch += BATCH - 1)
        for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
            usual |= small[i] == only;
            if (bench_wants(s, small[i]) && add_one_way(s, xi, small[i], batch) < 0) return -1;
        }
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        usual |= large[i] == only;
        if (bench_wants(s, large[i]) && add_copy(s, xi, large[i]) < 0) return -1;
    }
    if (usual) return 0;
    if (only >= 65536) return add_copy(s, xi, only);
    if (add_one_way(s, xi, only, 1) < 0) return -1;
    return add_one_way(s, xi, only, BATCH);
}
