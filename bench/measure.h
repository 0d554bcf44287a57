/* SPDX-License-Identifier: MIT */
/* What is measured with a peer: what the peer must be able to do for it, and the run. */
#ifndef XI_BENCH_MEASURE_H
#define XI_BENCH_MEASURE_H

#include "bench/harness.h"

struct measure {
    uint32_t needs; /* enum peer_can */
    int (*run)(struct bench_pair *p);
};
extern const struct measure bench_measures[MEASURES];

/* setup, run and teardown of a case whose peer and measure are set. */
void measure_fill(struct bench_case *c);

/* Values at a constant rate, over a peer (measure.c) or a textbook ring (latency.c). */
enum { OPEN_LOOP_INTENDED = 2 }; /* the word of the value that holds the moment it was meant to be sent */
struct open_loop {
    uint64_t interval, skip, n, start;
};
struct open_loop open_loop_begin(struct bench_pair *p);
/* Side 1 states the figure. Both sides. */
void open_loop_end(struct bench_pair *p, const struct open_loop *o);

#endif
