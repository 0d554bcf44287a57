/* SPDX-License-Identifier: MIT */
/*
 * xi-bench: what it costs to hand a value to another process, beside the least
 * that it could cost on the same two processors in the same minute.
 *
 * A command names suites; a suite adds cases; all cases of one metric are run
 * in turn, and that again for every repeat (course.c). No figure passes or
 * fails here: that is for whoever reads them.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/course.h"
#include "bench/peers.h"
#include "bench/report.h"
#include "bench/suites.h"

enum { REPEAT_DEFAULT = 5, REPEAT_QUICK = 2, REPEAT_MAX = 1000 };

static const struct {
    const char *name;
    int (*add)(struct bench_suite *s, bool xi);
} suites[] = {
    {"latency", latency_add}, {"throughput", throughput_add}, {"handoff", handoff_add},
    {"wake", wake_add},       {"groups", groups_add},         {"ack", ack_add},
    {"select", select_add},   {"call", call_add},             {"scale", scale_add},
    {"python", python_add},   {"footprint", footprint_add},
};
enum { SUITES = sizeof suites / sizeof *suites };

static int usage(FILE *out, int status) {
    fprintf(out,
            "Usage: xi-bench COMMAND [OPTION]...\n"
            "Measures what handing a value to another process costs, beside the least it could cost here.\n\n"
            "Commands\n"
            "  latency      busy round trips, and delays at constant rates, with percentiles\n"
            "  throughput   values a second one way, one by one and by sixteens; large copies\n"
            "  handoff      large values handed over without a copy\n"
            "  wake         round trips when both sides sleep each time\n"
            "  select       waiting on 1 to 1,000 channels together, awake and asleep\n"
            "  call         requests and replies\n"
            "  scale        1 to 8 producers and as many consumers\n"
            "  footprint    memory, idle system calls, opening and joining, how many at once\n"
            "  python       Python objects, beside multiprocessing\n"
            "  groups       1 to 64 groups that each get every value, for one value and group\n"
            "  ack          values that are acknowledged, beside values that are not\n"
            "  limits       only what all of that is compared with; needs no broker\n"
            "  all          everything but limits alone\n\n"
            "Options\n"
            "  --size N       only values of N encoded bytes: 8, or a multiple of 8 from 24 on\n"
            "  --system NAME  only this system (xi, ring, raw, ...): for a profiler\n"
            "  --repeat N     run everything N times, in turn (default %d)\n"
            "  --seconds S    measure each for about S seconds a run (default 0.25)\n"
            "  --json FILE    also write the figures as JSON, \"-\" for standard output\n"
            "  --python PATH  the interpreter to measure; may be given up to 8 times (default /usr/bin/python3)\n"
            "  --peers LIST   also these peers (names with commas between, or all), as far as they are to be had here\n"
            "  --quick        a fifth of the time, %d repeats: to see that it works\n"
            "  --help, --version\n",
            REPEAT_DEFAULT, REPEAT_QUICK);
    return status;
}

/* ---- options ---- */

static int bad(const char *what, const char *value) {
    fprintf(stderr, "xi-bench: %s: %s\n", what, value);
    return -1;
}

static int set_number(const char *text, double low, double high, double *out) {
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    return errno || end == text || *end || !(*out >= low && *out <= high) ? -1 : 0;
}

static int set_size(struct bench_options *o, const char *text) {
    double value;
    if (set_number(text, 8, 4294967288.0, &value) < 0 || !bench_size_possible((uint64_t)value) ||
        (double)(uint64_t)value != value)
        return bad("--size takes 8, or a multiple of 8 from 24 on, not", text);
    o->only_size = (uint64_t)value;
    return 0;
}

static int set_option(struct bench_options *o, int option, const char *text) {
    double value;
    switch (option) {
    case 's': return set_size(o, text);
    case 'r':
        if (set_number(text, 1, REPEAT_MAX, &value) < 0) return bad("--repeat takes 1 to 1000, not", text);
        o->repeat = (int)value;
        return 0;
    case 't':
        if (set_number(text, 0.001, 60, &value) < 0) return bad("--seconds takes 0.001 to 60, not", text);
        o->target_s = value;
        return 0;
    case 'p':
        if (o->pythons == 8) return bad("--python may be given eight times at most; one too many", text);
        o->python[o->pythons++] = text;
        return 0;
    case 'y': o->only_system = text; return 0;
    case 'j': o->json = text; return 0;
    case 'e': o->peers = text; return 0;
    case 'q': o->quick = true; return 0;
    default: return -1;
    }
}

static void set_defaults(struct bench_options *o) {
    if (!o->repeat) o->repeat = o->quick ? REPEAT_QUICK : REPEAT_DEFAULT;
    if (o->target_s == 0) o->target_s = o->quick ? 0.05 : 0.25;
    if (!o->pythons) o->python[o->pythons++] = access("/usr/bin/python3", X_OK) == 0 ? "/usr/bin/python3" : "python3";
}

/* 0: go on; 1: done; -1: wrong. */
static int parse(int argc, char **argv, struct bench_options *o) {
    static const struct option options[] = {
        {"size", required_argument, NULL, 's'},    {"repeat", required_argument, NULL, 'r'},
        {"seconds", required_argument, NULL, 't'}, {"json", required_argument, NULL, 'j'},
        {"python", required_argument, NULL, 'p'},  {"system", required_argument, NULL, 'y'},
        {"quick", no_argument, NULL, 'q'},         {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},       {"peers", required_argument, NULL, 'e'},
        {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (option == 'h') return usage(stdout, 1);
        if (option == 'v') return printf("xi-bench %s\n", XI_VERSION), 1;
        if (set_option(o, option, optarg) < 0) return fprintf(stderr, "Try: xi-bench --help\n"), -1;
    }
    set_defaults(o);
    return 0;
}

/* ---- running ---- */

static int add_suites(struct bench_suite *s, const char *command) {
    bool limits = strcmp(command, "limits") == 0, all = strcmp(command, "all") == 0, known = limits || all;
    for (int i = 0; i < SUITES; i++) {
        bool named = strcmp(command, suites[i].name) == 0;
        known |= named;
        if (limits && suites[i].add == python_add) continue; /* its peers are no limits */
        if ((named || all || limits) && suites[i].add(s, !limits) < 0) return bad("out of memory for", command);
    }
    if (known && s->count == 0) return bad("nothing is left of it with these --size and --system", command);
    if (known) return 0;
    bad("no such command", command);
    return fprintf(stderr, "Try: xi-bench --help\n"), -1;
}

static bool any_needs_namespace(const struct bench_suite *s) {
    for (size_t i = 0; i < s->count; i++)
        if (s->cases[i].needs_namespace) return true;
    return false;
}

static int bench(const struct bench_options *o, const char *command) {
    struct bench_suite suite = {.options = o};
    struct report report;
    FILE *table = o->json && strcmp(o->json, "-") == 0 ? stderr : stdout;
    bench_init(o);
    if (peers_find(o->peers) < 0 || add_suites(&suite, command) < 0) return 2;
    if (report_init(&report, &suite) < 0) return bad("out of memory for", command), 1;
    int rc = any_needs_namespace(&suite) ? bench_keeper_start() : 0;
    if (rc == 0) {
        rc = course_run(&suite, &report, table);
        if (!bench_interrupted() && o->json && report_json(&report, o->json) < 0) rc = -1;
    }
    bench_finish();
    report_free(&report);
    free(suite.cases);
    if (bench_interrupted()) return fprintf(stderr, "\nxi-bench: interrupted\n"), 130;
    return rc < 0 ? 1 : 0;
}

int main(int argc, char **argv) {
    struct bench_options options = {0};
    if (argc == 3 && strcmp(argv[1], "--side") == 0) return bench_side_main(argv[2]); /* by a peer's launcher */
    if (argc == 4 && strcmp(argv[1], "path") == 0) return path_main(argv[2], argv[3]); /* by bench/instructions */
    int rc = parse(argc, argv, &options);
    if (rc != 0) return rc < 0 ? 2 : 0;
    if (optind + 1 != argc) return usage(stderr, 2);
    return bench(&options, argv[optind]);
}
