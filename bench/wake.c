/* SPDX-License-Identifier: MIT */
/*
 * What a round trip costs when both sides sleep each time: the library joined
 * with spinning off (spin_ns = -1) and peers with calls that block, beside the
 * same ping-pong with plain futex(2) calls on a word for each direction, with
 * the 64-byte message copied in and out (`futex`) and without any message
 * (`raw`). limits.h says how it is made sure that they sleep; the parks_per_op
 * beside this library's figure shows it: 1 is once a round trip for the side
 * that counts. Most of the time is the interrupt and the processor's way out of
 * idling, which nobody's library can shorten.
 */
#include "bench/limits.h"
#include "bench/suites.h"

int wake_add(struct bench_suite *s, bool xi) {
    if (!bench_wants(s, BENCH_RAW_BYTES)) return 0;
    if (bench_add_peers(s, xi, "round_trip_asleep", BENCH_RAW_BYTES, MEASURE_ASLEEP, "futex", NULL) < 0) return -1;
    return limits_add_asleep(s);
}
