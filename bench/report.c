/* SPDX-License-Identifier: MIT */
/*
 * Sums and the table. report.h says what is never added together; json.c writes
 * the same for programs.
 */
#include "bench/report.h"
#include "bench/peers.h"

#include <math.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* ---- runs ---- */

int report_init(struct report *r, const struct bench_suite *s) {
    *r = (struct report){.options = s->options, .count = s->count, .first_raw = NAN, .last_raw = NAN};
    r->figures = calloc(s->count ? s->count : 1, sizeof *r->figures);
    if (!r->figures) return -1;
    if (getloadavg(&r->load, 1) != 1) r->load = NAN;
    for (size_t i = 0; i < s->count; i++) r->figures[i].c = &s->cases[i];
    return 0;
}

void report_free(struct report *r) {
    for (size_t i = 0; i < r->count; i++) {
        free(r->figures[i].runs);
        for (int g = 0; g < REPORT_REGIMES; g++) free(r->figures[i].histogram[g]);
    }
    free(r->figures);
}

static int keep_histogram(struct report_figure *f, const struct bench_result *result) {
    struct histogram **h = &f->histogram[result->regime];
    if (result->histogram.count == 0) return 0;
    if (!*h) {
        *h = malloc(sizeof **h);
        if (!*h) return -1;
        histogram_reset(*h);
    }
    histogram_merge(*h, &result->histogram);
    return 0;
}

int report_add(struct report *r, size_t figure, int repeat, const struct bench_result *result) {
    struct report_figure *f = &r->figures[figure];
    if (f->count == f->capacity) {
        size_t capacity = f->capacity ? 2 * f->capacity : 8;
        struct report_run *runs = realloc(f->runs, capacity * sizeof *runs);
        if (!runs) return -1;
        f->runs = runs;
        f->capacity = capacity;
    }
    struct report_run *run = &f->runs[f->count++];
    *run = (struct report_run){.repeat = repeat, .ops = result->ops, .ns = result->ns, .seconds = result->seconds,
                               .raw_before = result->raw_before, .raw_after = result->raw_after,
                               .regime = result->regime, .extras = result->extras};
    memcpy(run->extra, result->extra, sizeof run->extra);
    if (isnan(r->first_raw)) r->first_raw = result->raw_before;
    r->last_raw = result->raw_after;
    return keep_histogram(f, result);
}

struct report_summary report_summarize(const struct report_figure *f, enum bench_regime regime) {
    struct report_summary s = {.min = INFINITY};
    double *ns = malloc((2 * f->count + 1) * sizeof *ns), *raw = ns ? ns + f->count : NULL;
    for (size_t i = 0; ns && i < f->count; i++) {
        const struct report_run *run = &f->runs[i];
        if (run->regime != regime) continue;
        ns[s.count] = run->ns;
        raw[s.count++] = (run->raw_before + run->raw_after) / 2;
        s.min = run->ns < s.min ? run->ns : s.min;
        s.max = run->ns > s.max ? run->ns : s.max;
        s.ops += run->ops;
        s.seconds += run->seconds;
    }
    if (s.count) {
        s.median = bench_median(ns, s.count);
        s.raw = bench_median(raw, s.count);
    }
    free(ns);
    return s;
}

enum bench_regime report_main_regime(const struct report_figure *f) {
    size_t runs[REPORT_REGIMES] = {0};
    for (size_t i = 0; i < f->count; i++) runs[f->runs[i].regime]++;
    if (runs[BENCH_TWO_CORES] == 0 && runs[BENCH_ONE_CORE] == 0) return BENCH_MIXED;
    return runs[BENCH_TWO_CORES] >= runs[BENCH_ONE_CORE] ? BENCH_TWO_CORES : BENCH_ONE_CORE;
}

enum bench_regime report_regime(const struct report *r) {
    size_t runs[REPORT_REGIMES] = {0};
    for (size_t i = 0; i < r->count; i++)
        for (size_t k = 0; k < r->figures[i].count; k++) runs[r->figures[i].runs[k].regime]++;
    return runs[BENCH_TWO_CORES] >= runs[BENCH_ONE_CORE] ? BENCH_TWO_CORES : BENCH_ONE_CORE;
}

bool report_has(const struct report_figure *f, enum bench_regime regime) {
    for (size_t i = 0; i < f->count; i++)
        if (f->runs[i].regime == regime) return true;
    return false;
}

void report_name(const struct bench_case *c, char out[160]) {
    snprintf(out, 160, "%s/%s/%s", c->metric, c->system, c->label);
}

double report_ratio(const struct report *r, const struct report_figure *f, enum bench_regime regime) {
    char name[160];
    if (!f->c->limit[0] || regime == BENCH_MIXED) return NAN;
    for (size_t i = 0; i < r->count; i++) {
        report_name(r->figures[i].c, name);
        if (strcmp(name, f->c->limit) != 0) continue;
        struct report_summary mine = report_summarize(f, regime), limit = report_summarize(&r->figures[i], regime);
        return mine.count && limit.count && limit.median > 0 ? mine.median / limit.median : NAN;
    }
    return NAN;
}

/* ---- the machine ---- */

/* The value after "key : " in /proc/cpuinfo's first entry that has it. */
static void cpuinfo(const char *key, char *out, size_t capacity) {
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, capacity, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)) != 0) continue;
        snprintf(out, capacity, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f) fclose(f);
}

void report_machine(struct report_machine *m) {
    struct utsname u;
    char mhz[32], reason[128] = "";
    time_t now = time(NULL);
    struct tm local;
    memset(m, 0, sizeof *m);
    if (uname(&u) == 0) {
        snprintf(m->host, sizeof m->host, "%.63s", u.nodename);
        snprintf(m->kernel, sizeof m->kernel, "%.31s %.40s %.20s", u.sysname, u.release, u.machine);
    }
    cpuinfo("model name", m->cpu_model, sizeof m->cpu_model);
    cpuinfo("cpu MHz", mhz, sizeof mhz);
    m->mhz = strtod(mhz, NULL);
    if (localtime_r(&now, &local)) strftime(m->date, sizeof m->date, "%Y-%m-%dT%H:%M:%S%z", &local);
    ssize_t n = readlink("/proc/self/exe", m->executable, sizeof m->executable - 1);
    if (n < 0) snprintf(m->executable, sizeof m->executable, "xi-bench");
    bool uring = xi_probe_wait(reason, sizeof reason) == 1;
    snprintf(m->wait, sizeof m->wait, "%s%s%s%s", uring ? "io_uring" : "futex(2)", reason[0] ? " (" : "", reason,
             reason[0] ? ")" : "");
}

/* ---- the table ---- */

static const struct {
    const char *metric, *what;
} titles[] = {
    {"round_trip", "a value there and another back, both sides awake; x of raw = one 64-byte cache line there and back"},
    {"open_loop_10k", "delay of values sent at 10,000 a second, from the moment intended; x of the textbook ring"},
    {"open_loop_100k", "delay of values sent at 100,000 a second, from the moment intended; x of the textbook ring"},
    {"open_loop_1m", "delay of values sent at 1,000,000 a second, from the moment intended; x of the textbook ring"},
    {"one_way", "values one way, one call each; x of the textbook ring"},
    {"one_way_batch16", "values one way, sixteen a call; x of the textbook ring by sixteens"},
    {"copy", "private memory to private memory; x of memcpy through a double buffer"},
    {"handoff", "a loan handed over untouched, half of the round trip; x of raw = half of a cache line's round trip"},
    {"round_trip_asleep", "64 bytes there and back, both sides sleep each time; x of futex(2)"},
    {"groups", "a value of 24 bytes in one of so many groups that each get it; x of a single group"},
    {"acknowledged", "values of 24 bytes one way, each acknowledged before the next; x of values that need not be"},
    {"scale", "values of 24 bytes, so many producers and as many consumers on one channel; x of 1 + 1"},
    {"control", "a channel opened and closed; an interpreter joined and left"},
    {"held", "how many were there at once"},
    {"memory", "shared memory of an idle channel, of an idle interpreter besides its arena; all of the broker's"},
    {"idle_calls", "system calls a second of who has nothing to do"},
    {"select_steady", "8 bytes on always the same of so many waited for, and an answer; x of raw = one 64-byte cache line there and back"},
    {"select", "8 bytes on another of so many each time, and an answer; x of raw = one 64-byte cache line there and back"},
    {"select_asleep", "the same, both sides asleep each time; pipes: epoll_wait(2) on so many pipes"},
    {"call", "a request and its reply; xi_two: the same over two channels; x of raw = one 64-byte cache line there and back"},
    {"python_call", "a call of a function that gives back what it got, its future waited for; x of ProcessPoolExecutor"},
    {"python_one_way", "Python objects one way; x of SimpleQueue"},
    {"python_round_trip_asleep", "Python objects there and back, both sides asleep each time; x of SimpleQueue"},
    {"python_numpy", "a 16 MiB array there and an int back, half of the round trip; x of SimpleQueue"},
    {"python_round_trip", "Python objects there and back; x of SimpleQueue"},
};

void report_head(const struct report *r, FILE *out) {
    struct report_machine m;
    report_machine(&m);
    fprintf(out, "# xidata %s benchmark, %s\n# %s, %s, %d processors", XI_VERSION, m.date, m.cpu_model, m.kernel,
            bench_place.allowed);
    if (bench_place.pinned)
        fprintf(out, "; side 0 on processor %d, side 1 on %d\n", bench_place.cpu[0], bench_place.cpu[1]);
    else
        fprintf(out, "\n# FEWER THAN TWO PROCESSORS: not pinned, and whoever waits gives the processor away\n");
    fprintf(out, "# waits with %s; medians with smallest and largest of %d; raw: 64-byte cache line there and back\n",
            m.wait, r->options->repeat);
    if (r->load > 0.5)
        fprintf(out, "# OTHERS ARE AT WORK (load average %.1f at the start): figures are worse than this machine's\n", r->load);
    for (size_t i = 0; i < peers_count(); i++)
        if (peers_at(i)->skipped[0]) fprintf(out, "# SKIPPED: %s: %s\n", peers_at(i)->name, peers_at(i)->skipped);
    if (r->options->quick) fprintf(out, "# --quick: runs too short to quote\n");
}

static void head_row(const char *metric, bool percentiles, FILE *out) {
    const char *what = "";
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        if (strcmp(titles[i].metric, metric) == 0) what = titles[i].what;
    fprintf(out, "\n# %s: %s\n# %-10s %-12s %12s %12s %12s %11s %7s", metric, what, "Size", "System", "Median(ns)",
            "Min(ns)", "Max(ns)", "Rate", "x");
    if (percentiles) fprintf(out, " %9s %9s %9s %9s %11s", "p50", "p90", "p99", "p99.9", "max");
    fprintf(out, " %8s  %s\n", "Raw(ns)", "Regime");
}

static void print_rate(const struct report_figure *f, const struct report_summary *s, FILE *out) {
    double each = s->median > 0 ? 1e9 / s->median : 0, bytes = each * (double)f->c->bytes;
    if (f->c->unit)
        fprintf(out, " %10s", f->c->unit);
    else if (strcmp(f->c->metric, "copy") == 0)
        fprintf(out, " %6.2f GB/s", bytes / 1e9);
    else if (each >= 1e6)
        fprintf(out, " %8.2f M/s", each / 1e6);
    else
        fprintf(out, " %8.2f k/s", each / 1e3);
}

static void print_percentiles(const struct histogram *h, FILE *out) {
    static const double percents[] = {50, 90, 99, 99.9};
    for (size_t i = 0; i < 4; i++) {
        if (h)
            fprintf(out, " %9llu", (unsigned long long)histogram_percentile(h, percents[i]));
        else
            fprintf(out, " %9s", "-");
    }
    if (h)
        fprintf(out, " %11llu", (unsigned long long)h->max);
    else
        fprintf(out, " %11s", "-");
}

static void print_row(const struct report *r, const struct report_figure *f, enum bench_regime regime,
                      bool percentiles, FILE *out) {
    struct report_summary s = report_summarize(f, regime);
    double ratio = report_ratio(r, f, regime);
    if (s.count == 0) return;
    fprintf(out, "  %-10s %-12s %12.1f %12.1f %12.1f", f->c->label, f->c->system, s.median, s.min, s.max);
    print_rate(f, &s, out);
    if (isnan(ratio))
        fprintf(out, " %7s", "-");
    else
        fprintf(out, " %7.2f", ratio);
    if (percentiles) print_percentiles(f->histogram[regime], out);
    fprintf(out, " %8.0f  %s\n", s.raw, bench_regime_name(regime));
}

void report_table(const struct report *r, const char *metric, FILE *out) {
    bool percentiles = false;
    for (size_t i = 0; i < r->count; i++)
        for (int g = 0; g < REPORT_REGIMES; g++)
            if (strcmp(r->figures[i].c->metric, metric) == 0 && r->figures[i].histogram[g]) percentiles = true;
    head_row(metric, percentiles, out);
    for (size_t i = 0; i < r->count; i++) {
        const struct report_figure *f = &r->figures[i];
        if (strcmp(f->c->metric, metric) != 0) continue;
        if (f->count == 0) {
            fprintf(out, "  %-10s %-12s %12s\n", f->c->label, f->c->system, f->failed[0] ? "failed" : "not run");
            continue;
        }
        enum bench_regime first = report_main_regime(f);
        print_row(r, f, first, percentiles, out);
        for (int g = 0; g < REPORT_REGIMES; g++)
            if (g != (int)first && g != BENCH_MIXED) print_row(r, f, (enum bench_regime)g, percentiles, out);
    }
    fflush(out);
}
