/* SPDX-License-Identifier: MIT */
/*
 * What the runs add up to: a table for people while it goes on, JSON in Google
 * Benchmark's shape at the end.
 *
 * Every case's runs are sorted by regime (two cores, two threads of one core,
 * mixed) and never averaged over more than one. A case's figure is the median
 * of its main regime: the pure one in which it was run most often. What was
 * measured in the other pure regime is reported beside it, under a name of its
 * own. A ratio compares medians of one regime only.
 */
#ifndef XI_BENCH_REPORT_H
#define XI_BENCH_REPORT_H

#include <stdio.h>

#include "bench/harness.h"

#define REPORT_REGIMES 3

/* One run, as far as it outlives its processes. */
struct report_run {
    int repeat;
    uint64_t ops;
    double ns, seconds, raw_before, raw_after;
    enum bench_regime regime;
    uint32_t extras;
    struct bench_extra extra[BENCH_EXTRAS];
};

struct report_figure {
    const struct bench_case *c;
    struct report_run *runs;
    size_t count, capacity;
    struct histogram *histogram[REPORT_REGIMES]; /* of all runs in that regime; NULL: none recorded */
    char failed[BENCH_TEXT]; /* why there is no (further) run; "": nothing failed */
};

/* Median, smallest and largest of one regime. count 0: never run in it. */
struct report_summary {
    size_t count;
    double median, min, max, seconds, raw;
    uint64_t ops;
};

struct report {
    const struct bench_options *options;
    struct report_figure *figures; /* one for each case of the suite, in its order */
    size_t count;
    double first_raw, last_raw;
    double load; /* as this benchmark found it */
    size_t mixed; /* runs thrown away for being of no regime */
    size_t again; /* runs made beyond the repeats, for figures that had none in the regime of most others */
};

/* 0, or -1 when memory ran out. */
int report_init(struct report *r, const struct bench_suite *s);
void report_free(struct report *r);
int report_add(struct report *r, size_t figure, int repeat, const struct bench_result *result);

struct report_summary report_summarize(const struct report_figure *f, enum bench_regime regime);
enum bench_regime report_main_regime(const struct report_figure *f);
/* That in which most runs of all were: the one to compare in. */
enum bench_regime report_regime(const struct report *r);
bool report_has(const struct report_figure *f, enum bench_regime regime);
/* METRIC/SYSTEM/LABEL. */
void report_name(const struct bench_case *c, char out[160]);
/* How many times its limit's time the figure takes, in one regime; NAN when there is nothing to compare with. */
double report_ratio(const struct report *r, const struct report_figure *f, enum bench_regime regime);

void report_head(const struct report *r, FILE *out);
/* All rows of one metric. */
void report_table(const struct report *r, const char *metric, FILE *out);
/* 0, or -1 after saying why on standard error. */
int report_json(const struct report *r, const char *path);

/* What is said of the machine, in table and JSON. */
struct report_machine {
    char host[64], kernel[128], cpu_model[96], date[40], executable[256];
    double mhz;
    char wait[200]; /* what the library waits with, and why */
};
void report_machine(struct report_machine *m);

#endif
