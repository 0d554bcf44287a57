/* SPDX-License-Identifier: MIT */
/* What each command measures: every function adds its cases to the suite; 0, or -1 when memory ran out. */
#ifndef XI_BENCH_SUITES_H
#define XI_BENCH_SUITES_H

#include "bench/harness.h"

/* `xi`: with the library's own cases; without, only what they are compared with. */
int latency_add(struct bench_suite *s, bool xi);    /* round_trip, open_loop_RATE */
int throughput_add(struct bench_suite *s, bool xi); /* one_way, one_way_batch16, copy */
int handoff_add(struct bench_suite *s, bool xi);
int wake_add(struct bench_suite *s, bool xi);       /* round_trip_asleep */
int select_add(struct bench_suite *s, bool xi);     /* select, select_asleep */
int call_add(struct bench_suite *s, bool xi);
int groups_add(struct bench_suite *s, bool xi);     /* groups */
int ack_add(struct bench_suite *s, bool xi);        /* acknowledged */
int scale_add(struct bench_suite *s, bool xi);      /* scale */
int footprint_add(struct bench_suite *s, bool xi);  /* control, held, memory, idle_calls */
int python_add(struct bench_suite *s, bool xi);     /* python_one_way, python_round_trip */

/* Not a suite: path.c. Exit status. */
int path_main(const char *kind, const char *count);

#endif
