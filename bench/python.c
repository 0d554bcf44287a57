/* SPDX-License-Identifier: MIT */
/*
 * Python objects between two interpreters: this library's module beside what
 * multiprocessing has. Each run is a fresh program, share/xidata/bench/pair.py,
 * which forks into two pinned processes, measures and prints one line: how many
 * operations, and how many seconds. The raw round trip is taken before and
 * after by a pair of this program, on the same two processors.
 */
#include "bench/suites.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const shapes[] = {"int", "bytes100", "tuple5"};
static const uint64_t shape_bytes[] = {8, 100, 0};
static const char *const peers[] = {"xi", "SimpleQueue", "Queue", "Pipe"};
static const char *const metrics[] = {"python_one_way", "python_round_trip"};
enum { SHAPES = 3, PEERS = 4, METRICS = 2 };

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

static int measure(const struct bench_case *c, const struct bench_options *o, struct bench_result *out) {
    char text[256];
    int fds[2], parent = (int)getpid();
    unsigned long long ops = 0;
    if (pipe2(fds, O_CLOEXEC) < 0) return snprintf(out->error[0], BENCH_TEXT, "pipe: %s", strerror(errno)), -1;
    fflush(NULL);
    int pid = fork();
    if (pid == 0) {
        bench_follow_parent(parent);
        run_python(c, o, fds[1]);
    }
    close(fds[1]);
    int status = pid < 0 ? -1 : bench_wait(pid);
    read_all(fds[0], text, sizeof text); /* one short line: it fits the pipe */
    close(fds[0]);
    if (pid < 0) return snprintf(out->error[0], BENCH_TEXT, "fork: %s", strerror(errno)), -1;
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
static void label(char out[BENCH_LABEL], const struct bench_options *o, int python, int shape) {
    const char *slash = strrchr(o->python[python], '/');
    snprintf(out, BENCH_LABEL, "%s", shapes[shape]);
    if (o->pythons > 1)
        snprintf(out, BENCH_LABEL, "%s@%.20s", shapes[shape], slash ? slash + 1 : o->python[python]);
}

static int add_case(struct bench_suite *s, const char *metric, const char *peer, int python, int shape) {
    struct bench_case *c = bench_add(s, metric, peer, shape_bytes[shape]);
    if (!c) return -1;
    label(c->label, s->options, python, shape);
    c->param = PARAM(python, shape);
    c->needs_namespace = strcmp(peer, "xi") == 0;
    c->external = python_external;
    if (c->needs_namespace) bench_limit(c, metric, "SimpleQueue", NULL);
    return 0;
}

int python_add(struct bench_suite *s, bool xi) {
    if (s->options->only_size) return 0; /* objects have no size of that kind */
    for (int metric = 0; metric < METRICS; metric++)
        for (int python = 0; python < s->options->pythons; python++)
            for (int shape = 0; shape < SHAPES; shape++)
                for (int peer = xi ? 0 : 1; peer < PEERS; peer++)
                    if (add_case(s, metrics[metric], peers[peer], python, shape) < 0) return -1;
    return 0;
}
