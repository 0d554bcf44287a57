/* SPDX-License-Identifier: MIT */
/*
 * The report as JSON, in the shape of Google Benchmark's --benchmark_out, so
 * that its comparison tools read it: a context, then one entry for each run
 * ("iteration") and one for each figure ("aggregate", the median). Beyond that
 * shape every entry states its smallest and largest run, its raw round trips
 * and its regime. docs/benchmark.md lists the fields.
 */
#include <errno.h>
#include <math.h>

#include "bench/peers.h"
#include "bench/report.h"

static void put_string(FILE *f, const char *s) {
    fputc('"', f);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c < 0x20)
            fprintf(f, "\\u%04x", c);
        else
            fputc(c, f);
    }
    fputc('"', f);
}

static void put_text(FILE *f, const char *key, const char *value) {
    fprintf(f, ",\n      \"%s\": ", key);
    put_string(f, value);
}

/* JSON has no word for what is not a number: such a field is null. */
static void put_number(FILE *f, const char *key, double value) {
    if (isfinite(value))
        fprintf(f, ",\n      \"%s\": %.10g", key, value);
    else
        fprintf(f, ",\n      \"%s\": null", key);
}

static void put_integer(FILE *f, const char *key, uint64_t value) {
    fprintf(f, ",\n      \"%s\": %llu", key, (unsigned long long)value);
}

static void put_flag(FILE *f, const char *key, bool value) {
    fprintf(f, ",\n      \"%s\": %s", key, value ? "true" : "false");
}

static void put_cpus(FILE *f) {
    if (bench_place.pinned)
        fprintf(f, ",\n      \"cpus\": [%d, %d]", bench_place.cpu[0], bench_place.cpu[1]);
    else
        fprintf(f, ",\n      \"cpus\": []");
}

/* Those that were asked for, with what the report says of them, or why they were left out. */
static void put_peers(FILE *f) {
    fprintf(f, ",\n      \"peers\": [");
    for (size_t i = 0; i < peers_count(); i++) {
        const struct peer_info *peer = peers_at(i);
        fprintf(f, "%s\n        {\"name\": ", i ? "," : "");
        put_string(f, peer->name);
        fprintf(f, ", \"what\": ");
        put_string(f, peer->what);
        fprintf(f, ", \"how\": ");
        put_string(f, peer->how);
        fprintf(f, ", \"skipped\": ");
        put_string(f, peer->skipped);
        fprintf(f, "}");
    }
    fprintf(f, "]");
}

/* What was begun and failed, as far as it did. */
static void put_failures(const struct report *r, FILE *f) {
    char name[160];
    bool first = true;
    fprintf(f, ",\n      \"failures\": [");
    for (size_t i = 0; i < r->count; i++) {
        if (!r->figures[i].failed[0]) continue;
        report_name(r->figures[i].c, name);
        fprintf(f, "%s\n        {\"name\": ", first ? "" : ",");
        put_string(f, name);
        fprintf(f, ", \"why\": ");
        put_string(f, r->figures[i].failed);
        fprintf(f, "}");
        first = false;
    }
    fprintf(f, "]");
}

static void put_context(const struct report *r, FILE *f) {
    struct report_machine m;
    report_machine(&m);
    fprintf(f, "  \"context\": {\n      \"date\": ");
    put_string(f, m.date);
    put_text(f, "host_name", m.host);
    put_text(f, "executable", m.executable);
    put_integer(f, "num_cpus", (uint64_t)bench_place.allowed);
    put_number(f, "mhz_per_cpu", m.mhz);
    put_text(f, "cpu_model", m.cpu_model);
    put_text(f, "kernel", m.kernel);
    put_cpus(f);
    put_flag(f, "pinned", bench_place.pinned);
    if (!isnan(r->load)) fprintf(f, ",\n      \"load_avg\": [%.2f]", r->load);
    put_number(f, "raw_round_trip_before", r->first_raw);
    put_number(f, "raw_round_trip_after", r->last_raw);
    put_text(f, "regime", bench_regime_name(bench_regime_of(r->first_raw, r->last_raw)));
    put_integer(f, "mixed_runs_discarded", r->mixed);
    put_integer(f, "runs_beyond_repeats", r->again);
    put_text(f, "xidata_version", XI_VERSION);
    put_text(f, "wait", m.wait);
    put_text(f, "clock", bench_clock_name());
    put_integer(f, "repetitions", (uint64_t)r->options->repeat);
    put_flag(f, "quick", r->options->quick);
#ifdef NDEBUG
    put_text(f, "library_build_type", "release");
#else
    put_text(f, "library_build_type", "release with assertions");
#endif
    put_peers(f);
    put_failures(r, f);
    fprintf(f, "\n  },\n");
}

/* What an entry is called: the figure's name, and for a regime that is not its main one that regime's too. */
static void entry_name(const struct report_figure *fig, enum bench_regime regime, char out[200]) {
    static const char *const suffix[] = {"/two_cores", "/two_threads", "/mixed"};
    char name[160];
    report_name(fig->c, name);
    snprintf(out, 200, "%s%s", name, regime == report_main_regime(fig) ? "" : suffix[regime]);
}

static void put_head(const struct report *r, const struct report_figure *fig, enum bench_regime regime,
                     const char *type, bool *first, FILE *f) {
    char name[200];
    entry_name(fig, regime, name);
    fprintf(f, "%s    {\n      \"name\": ", *first ? "" : ",\n");
    *first = false;
    put_string(f, name);
    put_text(f, "run_name", name);
    put_text(f, "run_type", type);
    put_integer(f, "repetitions", (uint64_t)r->options->repeat);
    put_integer(f, "threads", 1);
}

static void put_times(const struct report_figure *fig, double ns, FILE *f) {
    double each = ns > 0 ? 1e9 / ns : NAN;
    if (fig->c->unit) { /* not a time: a number of something */
        put_number(f, "value", ns);
        put_text(f, "unit", fig->c->unit);
        return;
    }
    put_number(f, "real_time", ns);
    put_number(f, "cpu_time", ns); /* a side waits by spinning: its time is the processor's */
    put_text(f, "time_unit", "ns");
    put_number(f, "items_per_second", each);
    if (fig->c->bytes) put_number(f, "bytes_per_second", each * (double)fig->c->bytes);
}

static void put_iteration(const struct report *r, const struct report_figure *fig, const struct report_run *run,
                          bool *first, FILE *f) {
    put_head(r, fig, run->regime, "iteration", first, f);
    put_integer(f, "repetition_index", (uint64_t)run->repeat);
    put_integer(f, "iterations", run->ops);
    put_times(fig, run->ns, f);
    put_number(f, "seconds", run->seconds);
    put_number(f, "raw_round_trip_before", run->raw_before);
    put_number(f, "raw_round_trip_after", run->raw_after);
    put_text(f, "regime", bench_regime_name(run->regime));
    for (uint32_t i = 0; i < run->extras; i++) put_number(f, run->extra[i].name, run->extra[i].value);
    fprintf(f, "\n    }");
}

static void put_percentiles(const struct histogram *h, FILE *f) {
    static const struct {
        const char *key;
        double percent;
    } wanted[] = {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99_9", 99.9}};
    if (!h) return;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        put_integer(f, wanted[i].key, histogram_percentile(h, wanted[i].percent));
    put_integer(f, "p100", h->max);
    put_integer(f, "samples", h->count);
}

/* Medians of what a run states besides its figure. */
static void put_extras(const struct report_figure *fig, enum bench_regime regime, FILE *f) {
    for (uint32_t e = 0; fig->count && e < fig->runs[0].extras; e++) {
        double value[64];
        size_t n = 0;
        for (size_t i = 0; i < fig->count && n < 64; i++)
            if (fig->runs[i].regime == regime && e < fig->runs[i].extras) value[n++] = fig->runs[i].extra[e].value;
        if (n) put_number(f, fig->runs[0].extra[e].name, bench_median(value, n));
    }
}

/* Percentiles to draw a distribution from: [percent, ns] pairs, closer together towards the end. */
static void put_curve(const struct histogram *h, FILE *f) {
    static const double percents[] = {0.1, 1, 5, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.9, 99.95, 99.99, 99.999};
    if (!h) return;
    fprintf(f, ",\n      \"curve\": [");
    for (size_t i = 0; i < sizeof percents / sizeof *percents; i++)
        fprintf(f, "%s[%g, %llu]", i ? ", " : "", percents[i], (unsigned long long)histogram_percentile(h, percents[i]));
    fprintf(f, "]");
}

static void put_aggregate(const struct report *r, const struct report_figure *fig, enum bench_regime regime,
                          bool *first, FILE *f) {
    struct report_summary s = report_summarize(fig, regime);
    double ratio = report_ratio(r, fig, regime);
    if (s.count == 0) return;
    put_head(r, fig, regime, "aggregate", first, f);
    put_text(f, "aggregate_name", "median");
    put_text(f, "aggregate_unit", "time");
    put_integer(f, "iterations", s.count);
    put_times(fig, s.median, f);
    put_number(f, "min", s.min);
    put_number(f, "max", s.max);
    put_percentiles(fig->histogram[regime], f);
    put_number(f, "raw_round_trip", s.raw);
    put_text(f, "regime", bench_regime_name(regime));
    put_text(f, "metric", fig->c->metric);
    put_text(f, "system", fig->c->system);
    put_text(f, "size", fig->c->label);
    put_integer(f, "bytes", fig->c->bytes);
    put_extras(fig, regime, f);
    put_curve(fig->histogram[regime], f);
    put_flag(f, "mixed", regime == BENCH_MIXED);
    if (!isnan(ratio)) {
        put_text(f, "limit", fig->c->limit);
        put_number(f, "ratio_to_limit", ratio);
    }
    fprintf(f, "\n    }");
}

static void put_figures(const struct report *r, FILE *f) {
    bool first = true;
    fprintf(f, "  \"benchmarks\": [\n");
    for (size_t i = 0; i < r->count; i++) {
        const struct report_figure *fig = &r->figures[i];
        for (size_t k = 0; k < fig->count; k++) put_iteration(r, fig, &fig->runs[k], &first, f);
        for (int g = 0; g < REPORT_REGIMES; g++)
            if (g != BENCH_MIXED || report_main_regime(fig) == BENCH_MIXED)
                put_aggregate(r, fig, (enum bench_regime)g, &first, f);
    }
    fprintf(f, "\n  ]\n");
}

int report_json(const struct report *r, const char *path) {
    bool to_stdout = strcmp(path, "-") == 0;
    FILE *f = to_stdout ? stdout : fopen(path, "w");
    if (!f) {
        fprintf(stderr, "xi-bench: cannot write %s: %s\n", path, strerror(errno));
        return -1;
    }
    fprintf(f, "{\n");
    put_context(r, f);
    put_figures(r, f);
    fprintf(f, "}\n");
    bool bad = ferror(f) != 0;
    if ((to_stdout ? fflush(f) : fclose(f)) != 0) bad = true;
    if (bad) fprintf(stderr, "xi-bench: cannot write %s: %s\n", path, strerror(errno));
    return bad ? -1 : 0;
}
