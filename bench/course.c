/* SPDX-License-Identifier: MIT */
/*
 * All cases of one metric run in turn, and that again for every repeat, so that
 * what drifts (clock rates, neighbours, the host) drifts for all alike.
 *
 * A run between whose two raw round trips the regime changed is thrown away and
 * made again. Figures of two regimes cannot be compared, so those of a metric
 * that were never run in the regime of most others get some more tries, until
 * the host shows no sign of going back to it.
 *
 * A case that fails is not tried again. A peer of which one run had no end is
 * given up as a whole: it costs the patience of one run, and its own figures.
 */
#include "bench/course.h"

#include <stdlib.h>
#include <unistd.h>

#include "bench/peers.h"

enum { MIXED_TRIES = 4, WANTED_TRIES = 3, IN_VAIN_MOST = 4 };

struct course {
    const struct bench_suite *suite;
    struct report *report;
    struct bench_result *result;
    uint64_t began;
    size_t runs, all; /* begun; meant to be */
};

static int bad(const char *what, const char *value) {
    fprintf(stderr, "xi-bench: %s: %s\n", what, value);
    return -1;
}

/* ---- how far it is ---- */

static bool due(const struct course *k, size_t figure, int repeat) {
    const struct report_figure *f = &k->report->figures[figure];
    return !f->failed[0] && !(f->c->once && repeat > 1);
}

static size_t runs_planned(const struct course *k) {
    size_t n = 0;
    for (size_t i = 0; i < k->suite->count; i++)
        for (int repeat = 0; repeat < k->report->options->repeat; repeat++) n += due(k, i, repeat);
    return n;
}

/* A line that overwrites itself on a terminal; elsewhere one line a metric and repeat. */
static void progress(const struct course *k, const struct bench_case *c, int repeat) {
    static const char *last_metric;
    static int last_repeat = -1;
    unsigned seconds = (unsigned)((bench_now() - k->began) / 1000000000u);
    size_t done = k->runs < k->all ? k->runs : k->all;
    bool terminal = isatty(STDERR_FILENO);
    if (terminal || c->metric != last_metric || repeat != last_repeat) {
        fprintf(stderr, "%s %2u:%02u %3zu %% ", terminal ? "\r\033[K" : "xi-bench:", seconds / 60, seconds % 60,
                k->all ? 100 * done / k->all : 100);
        if (terminal) fprintf(stderr, "%s/%s/%s, repeat %d of %d", c->metric, c->system, c->label, repeat + 1, k->report->options->repeat);
        else fprintf(stderr, "%s, repeat %d of %d\n", c->metric, repeat + 1, k->report->options->repeat);
    }
    last_metric = c->metric;
    last_repeat = repeat;
}

static void progress_clear(void) {
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
}

/* ---- what fails ---- */

static void note_failure(struct report_figure *f, const struct bench_result *result) {
    const char *why = result->error[0][0] ? result->error[0] : result->error[1];
    snprintf(f->failed, sizeof f->failed, "%s", why[0] ? why : "failed without a word");
    progress_clear();
    for (int side = 0; side < 2; side++)
        if (result->error[side][0])
            fprintf(stderr, "xi-bench: %s/%s/%s: %s\n", f->c->metric, f->c->system, f->c->label, result->error[side]);
}

/* All that is left of a peer one run of which had no end; what is this library's own is tried on. */
static void give_up(struct course *k, const struct bench_case *c) {
    size_t left = 0;
    if (c->needs_namespace || !(c->peer || c->external)) return;
    for (size_t i = 0; i < k->suite->count; i++) {
        struct report_figure *f = &k->report->figures[i];
        if (strcmp(f->c->system, c->system) != 0 || f->c->peer != c->peer || f->failed[0]) continue;
        snprintf(f->failed, sizeof f->failed, "not tried: there was no end to %s/%s/%s", c->metric, c->system, c->label);
        left++;
    }
    if (left) fprintf(stderr, "xi-bench: %s is given up: %zu more of its figures are not tried\n", c->system, left);
}

/* ---- runs ---- */

static int run_once(struct course *k, const struct bench_case *c) {
    const struct bench_options *o = k->report->options;
    return c->external ? c->external(c, o, k->result) : bench_pair_run(c, o, k->result);
}

/* One run of one case, made again while it is of no regime. -1: it failed. */
static int run_pure(struct course *k, size_t figure, int repeat) {
    struct report_figure *f = &k->report->figures[figure];
    const struct bench_result *result = k->result;
    for (int i = 1;; i++) {
        if (run_once(k, f->c) < 0) {
            if (bench_interrupted()) return -1;
            note_failure(f, result);
            if (result->gave_up) give_up(k, f->c);
            return -1;
        }
        if (result->regime != BENCH_MIXED || i == MIXED_TRIES) break;
        k->report->mixed++;
        progress_clear();
        fprintf(stderr, "xi-bench: %s/%s/%s is mixed: raw round trip %.0f ns before, %.0f after; once more\n",
                f->c->metric, f->c->system, f->c->label, result->raw_before, result->raw_after);
    }
    return report_add(k->report, figure, repeat, result);
}

/* Of figures of this metric that have no run in the regime of most others. */
static int complete(struct course *k, const char *metric) {
    struct report *r = k->report;
    enum bench_regime wanted = report_regime(r);
    int failures = 0, in_vain = 0;
    for (int try = 0; try < WANTED_TRIES; try++)
        for (size_t i = 0; i < r->count && in_vain < IN_VAIN_MOST; i++) {
            struct report_figure *f = &r->figures[i];
            if (strcmp(f->c->metric, metric) != 0 || f->c->unit || f->failed[0] || report_has(f, wanted)) continue;
            progress(k, f->c, r->options->repeat - 1);
            if (run_pure(k, i, r->options->repeat + try) < 0) failures++;
            if (bench_interrupted()) return -1;
            r->again++;
            in_vain = report_has(f, wanted) ? 0 : in_vain + 1;
        }
    return failures ? -1 : 0;
}

static int run_metric(struct course *k, const char *metric) {
    struct report *r = k->report;
    int failures = 0;
    for (int repeat = 0; repeat < r->options->repeat; repeat++)
        for (size_t i = 0; i < r->count; i++) {
            if (strcmp(r->figures[i].c->metric, metric) != 0 || !due(k, i, repeat)) continue;
            progress(k, r->figures[i].c, repeat);
            k->runs++;
            if (run_pure(k, i, repeat) < 0) failures++;
            if (bench_interrupted()) return -1;
        }
    if (complete(k, metric) < 0) failures++;
    progress_clear();
    return failures ? -1 : 0;
}

static bool first_of_metric(const struct bench_suite *s, size_t i) {
    for (size_t k = 0; k < i; k++)
        if (strcmp(s->cases[k].metric, s->cases[i].metric) == 0) return false;
    return true;
}

int course_run(const struct bench_suite *s, struct report *r, FILE *table) {
    struct course k = {.suite = s, .report = r, .began = bench_now(), .result = malloc(sizeof *k.result)};
    if (!k.result) return bad("out of memory for", "results");
    int rc = 0;
    k.all = runs_planned(&k);
    report_head(r, table);
    for (size_t i = 0; i < s->count && !bench_interrupted(); i++) {
        if (!first_of_metric(s, i)) continue;
        if (run_metric(&k, s->cases[i].metric) < 0) rc = -1;
        if (!bench_interrupted()) report_table(r, s->cases[i].metric, table);
    }
    free(k.result);
    return rc;
}
