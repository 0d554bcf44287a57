/* SPDX-License-Identifier: MIT */
/* The course of a benchmark: which run comes when, and what becomes of those that fail. */
#ifndef XI_BENCH_COURSE_H
#define XI_BENCH_COURSE_H

#include "bench/report.h"

/* Runs all cases, says on standard error how far it is, and writes each metric's table when it is whole. -1: a case failed,
 * or it was interrupted. */
int course_run(const struct bench_suite *s, struct report *r, FILE *table);

#endif
