/* SPDX-License-Identifier: MIT */
/*
 * Python objects between two interpreters: this library's module beside what
 * multiprocessing has, pyzmq, and the queues between interpreters of one process
 * where a Python has them. The script says of each interpreter what it has; what
 * it has not is reported as skipped. Each run is a fresh program, share/xidata/bench/pair.py,
 * which forks into two pinned processes, measures and prints one line: how many
 * operations, and how many seconds. The raw round trip is taken before and
 * after by a pair of this program, on the same two processors.
 */
#include "bench/peers.h"
#include "bench/suites.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const shapes[] = {"int", "bytes100", "tuple5", "numpy16MiB"};
static const uint64_t shape_bytes[] = {8, 100, 0, 16 << 20};
enum { INT, BYTES100, TUPLE5, NUMPY, SYSTEMS_MOST = 16 };

/* What is measured with which shapes: from `first` to `last`. */
static const struct {
    const char *metric;
    int first, last;
} metrics[] = {
    {"python_one_way", INT, TUPLE5},
    {"python_round_trip", INT, TUPLE5},
    {"python_round_trip_asleep", INT, INT},
    {"python_numpy", NUMPY, NUMPY},
};

/* What an interpreter has: as its --list says. */
static char systems[SYSTEMS_MOST][32];

/* A case's param: which interpreter and which shape. */
#define PARAM(python, shape) ((int64_t)(python) << 8 | (shape))
#define PARAM_PYTHON(c) ((int)((c)->param >> 8))
#define PARAM_SHAPE(c) ((int)((c)->param & 0xff))

/* The module lies beside the programs in a build folder; where it is installed, Python finds it by itself. */
static void point_at_module(void) {
    char path[3 * PATH_MAX];
    const char *old = getenv("PYTHONPATH");
    snprintf(path, sizeof path, "%s/../python", bench_own_folder());
    if (access(path, R_OK) != 0) return;
    if (old && *old) snprintf(path + strlen(path), sizeof path - strlen(path), ":%s", old);
    setenv("PYTHONPATH", path, 1);
}

static void run_python(const struct bench_case *c, const struct bench_options *o, int out) {
    char script[PATH_MAX + 64], cpus[32] = "", seconds[32];
    snprintf(script, sizeof script, "%s/../share/xidata/bench/pair.py", bench_own_folder());
    snprintf(seconds, sizeof seconds, "%g", o->target_s);
    if (bench_place.pinned) snprintf(cpus, sizeof cpus, "%d,%d", bench_place.cpu[0], bench_place.cpu[1]);
    point_at_module();
    dup2(out, STDOUT_FILENO);
    const char *python = o->python[PARAM_PYTHON(c)];
    char *const argv[] = {(char *)python, "-B",    script,
                          "--metric",     (char *)c->metric + strlen("python_"),
                          "--system",     (char *)c->system,
                          "--shape",      (char *)shapes[PARAM_SHAPE(c)],
                          "--seconds",    seconds,
                          "--cpus",       cpus,    NULL};
    execvp(python, argv);
    fprintf(stderr, "xi-bench: cannot run %s: %s\n", python, strerror(errno));
    _exit(127);
}

/* All that `fd` says until its other end is closed, as text. */
static void read_all(int fd, char *text, size_t capacity) {
    size_t used = 0;
    for (ssize_t n; used + 1 < capacity;) {
        n = read(fd, text + used, capacity - 1 - used);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        used += (size_t)n;
    }
    text[used] = 0;
}

/* Runs `become` in a process whose standard output is the write end of a pipe, and reads what it says. Its wait status. */
static int listen_to(void (*become)(const struct bench_case *c, const struct bench_options *o, int out),
                     const struct bench_case *c, const struct bench_options *o, char *text, size_t capacity) {
    int fds[2], parent = (int)getpid();
    if (pipe2(fds, O_CLOEXEC) < 0) return -1;
    fflush(NULL);
    int pid = fork();
    if (pid == 0) {
        bench_follow_parent(parent);
        become(c, o, fds[1]);
    }
    close(fds[1]);
    read_all(fds[0], text, capacity); /* some short lines: they fit the pipe */
    close(fds[0]);
    return pid < 0 ? -1 : bench_wait(pid);
}

static int measure(const struct bench_case *c, const struct bench_options *o, struct bench_result *out) {
    char text[256];
    unsigned long long ops = 0;
    int status = listen_to(run_python, c, o, text, sizeof text);
    if (status != 0 || sscanf(text, "%llu %lf", &ops, &out->seconds) != 2 || ops == 0) {
        snprintf(out->error[0], BENCH_TEXT, "%s gave no figure (%s %d; its own words are above)",
                 o->python[PARAM_PYTHON(c)], WIFEXITED(status) ? "exit status" : "signal",
                 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        return -1;
    }
    out->ops = ops;
    out->ns = out->seconds * 1e9 / (double)ops;
    return 0;
}

static int python_external(const struct bench_case *c, const struct bench_options *o, struct bench_result *out) {
    return bench_external(c, o, out, measure);
}

/* "int", or with several interpreters "int@python3.14". */
static void label(char out[BENCH_LABEL], const struct bench_options *o, int shape, const char *version) {
    snprintf(out, BENCH_LABEL, "%s", shapes[shape]);
    if (o->pythons > 1) snprintf(out, BENCH_LABEL, "%s@%.20s", shapes[shape], version);
}

/* Whether this system can be measured by this metric at all. */
static bool fits(const char *system, int metric) {
    bool numpy = strcmp(metrics[metric].metric, "python_numpy") == 0;
    if (strcmp(system, "xi_numpy") == 0) return numpy;
    if (strcmp(system, "concurrent.interpreters.Queue") == 0) return !numpy;
    return strcmp(system, "_interpqueues") != 0 || (!numpy && strcmp(metrics[metric].metric, "python_round_trip_asleep") != 0);
}

static int add_case(struct bench_suite *s, int metric, const char *system, int python, int shape, const char *version) {
    struct bench_case *c = bench_add(s, metrics[metric].metric, system, shape_bytes[shape]);
    if (!c) return -1;
    label(c->label, s->options, shape, version);
    c->param = PARAM(python, shape);
    c->needs_namespace = strncmp(system, "xi", 2) == 0;
    c->external = python_external;
    if (c->needs_namespace) bench_limit(c, metrics[metric].metric, "SimpleQueue", NULL);
    return 0;
}

/* ---- what an interpreter has ---- */

static void run_list(const struct bench_case *c, const struct bench_options *o, int out) {
    char script[PATH_MAX + 64];
    snprintf(script, sizeof script, "%s/../share/xidata/bench/pair.py", bench_own_folder());
    point_at_module();
    dup2(out, STDOUT_FILENO);
    const char *python = o->python[c->param];
    execlp(python, python, "-B", script, "--list", (char *)NULL);
    fprintf(stderr, "xi-bench: cannot run %s: %s\n", python, strerror(errno));
    _exit(127);
}

/* Lines "NAME ok" or "NAME reason": those that are there into `systems`; the first line is "python VERSION". */
static int parse_list(char *text, const char *python, char version[24], bool *numpy) {
    int n = 0;
    for (char *line; (line = strsep(&text, "\n")) != NULL && *line;) {
        char *reason = strchr(line, ' ');
        if (!reason) continue;
        *reason++ = 0;
        bool ok = strcmp(reason, "ok") == 0;
        if (strcmp(line, "python") == 0)
            snprintf(version, 24, "python%.16s", reason);
        else if (strcmp(line, "numpy") == 0)
            *numpy = ok;
        else if (ok && n < SYSTEMS_MOST)
            snprintf(systems[n++], sizeof systems[0], "%s", line);
        if (!ok && strcmp(line, "python") != 0) peers_say_skipped(line, python, reason);
    }
    return n;
}

static int add_python(struct bench_suite *s, bool xi, int python) {
    char text[4096], version[24] = "python";
    bool numpy = false;
    const struct bench_case which = {.param = python};
    if (listen_to(run_list, &which, s->options, text, sizeof text) != 0) {
        peers_say_skipped("python", s->options->python[python], "cannot be run");
        return 0;
    }
    int n = parse_list(text, s->options->python[python], version, &numpy);
    for (int m = 0; m < (int)(sizeof metrics / sizeof *metrics); m++)
        for (int shape = metrics[m].first; shape <= metrics[m].last && (shape != NUMPY || numpy); shape++)
            for (int i = 0; i < n; i++) {
                if (!fits(systems[i], m) || (!xi && strncmp(systems[i], "xi", 2) == 0)) continue;
                if (add_case(s, m, systems[i], python, shape, version) < 0) return -1;
            }
    return 0;
}

int python_add(struct bench_suite *s, bool xi) {
    if (s->options->only_size) return 0; /* objects have no size of that kind */
    for (int python = 0; python < s->options->pythons; python++)
        if (add_python(s, xi, python) < 0) return -1;
    return 0;
}
