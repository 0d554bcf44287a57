/* SPDX-License-Identifier: MIT */
/*
 * What it costs to hand over a large value that nobody copies.
 *
 * One round: side 0 takes N bytes of shared memory from the peer, writes the
 * value's header and a number into it and leaves the rest untouched, and sends
 * it; side 1 receives it in place, checks header and number, gives the memory
 * back, and answers with an 8-byte value. The figure is half of that round
 * trip. It should not depend on N. `raw` is half of a cache line's round trip:
 * what handing over an index into memory that both have anyway costs at the
 * least. measure.c has the loop.
 */
#include "bench/limits.h"
#include "bench/suites.h"

static int add_handoff(struct bench_suite *s, uint64_t size) {
    return bench_add_peers(s, true, "handoff", size, MEASURE_LOANS, "raw", "64");
}

int handoff_add(struct bench_suite *s, bool xi) {
    static const uint64_t sizes[] = {64, 4096, 1 << 20, 1 << 24};
    uint64_t only = s->options->only_size;
    bool usual = only == 0;
    if (limits_add_raw(s, "handoff") < 0) return -1;
    for (size_t i = 0; xi && i < sizeof sizes / sizeof *sizes; i++) {
        usual |= sizes[i] == only;
        if (bench_wants(s, sizes[i]) && add_handoff(s, sizes[i]) < 0) return -1;
    }
    return xi && !usual && only >= 24 ? add_handoff(s, only) : 0;
}
