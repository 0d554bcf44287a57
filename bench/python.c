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
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const shapes[] = {"int", "bytes100", "tuple5", "numpy16MiB"};
static const uint64_t shape_bytes[] = {8, 100, 0, 16 << 20};
enum { INT, BYTES100, TUPLE5, NUMPY, SYSTEMS_MOST = 16, GAVE_UP = INT_MIN };

/* What is measured with which shapes: from `first` to `last`. */
static const struct {
    const char *metric;
    int first, last;
} metrics[] = {
    {"python_one_way", INT, TUPLE5},
    {"python_round_trip", INT, TUPLE5},
    {"python_round_trip_asleep", INT, INT},
    {"python_numpy", NUMPY, NUMPY},
    {"python_call", INT, INT},
};

/* What an interpreter has, and by what it can be measured: as its --list says. */
static struct {
    char name[32], metrics[96];
} systems[SYSTEMS_MOST];

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

/* All that `fd` says until its other end is closed, as text. False: that is not to be waited for. */
static bool read_all(int fd, char *text, size_t capacity) {
    size_t used = 0;
    bool there;
    while ((there = bench_await(fd)) && used + 1 < capacity) {
        ssize_t n = read(fd, text + used, capacity - 1 - used);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        used += (size_t)n;
    }
    text[used] = 0;
    return there;
}

/* Runs `become` in a process whose standard output is the write end of a pipe, and reads what it says. Its wait status;
 * GAVE_UP: it had to be killed. */
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
    bool ended = read_all(fds[0], text, capacity);
    close(fds[0]);
    if (pid < 0) return -1;
    if (!ended) kill(pid, SIGKILL);
    int status = bench_wait(pid);
    return ended ? status : GAVE_UP;
}

static int measure(const struct bench_case *c, const struct bench_options *o, struct bench_result *out) {
    char text[256];
    unsigned long long ops = 0;
    int status = listen_to(run_python, c, o, text, sizeof text);
    if (status == GAVE_UP) return bench_give_up(out), -1;
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

/* Whether this system can be measured by this metric: one of the names, with commas between. */
static bool fits(int system, int metric) {
    const char *name = metrics[metric].metric + strlen("python_"), *at = systems[system].metrics;
    size_t length = strlen(name);
    for (; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == 0)) return true;
    return false;
}

/* What this library's figures are stated in multiples of. */
static const char *limit_of(int metric) {
    return strcmp(metrics[metric].metric, "python_call") == 0 ? "ProcessPoolExecutor" : "SimpleQueue";
}

static int add_case(struct bench_suite *s, int metric, const char *system, int python, int shape, const char *version) {
    struct bench_case *c = bench_add(s, metrics[metric].metric, system, shape_bytes[shape]);
    if (!c) return -1;
    label(c->label, s->options, shape, version);
    c->param = PARAM(python, shape);
    c->needs_namespace = strncmp(system, "xi", 2) == 0;
    c->external = python_external;
    if (c->needs_namespace) bench_limit(c, metrics[metric].metric, limit_of(metric), NULL);
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

/* Lines "NAME ok METRIC,METRIC..." or "NAME reason": those that are there into `systems`; the first line is "python VERSION". */
static int parse_list(char *text, const char *python, char version[24], bool *numpy) {
    int n = 0;
    for (char *line; (line = strsep(&text, "\n")) != NULL && *line;) {
        char *reason = strchr(line, ' ');
        if (!reason) continue;
        *reason++ = 0;
        bool ok = strncmp(reason, "ok", 2) == 0 && (reason[2] == ' ' || reason[2] == 0);
        if (strcmp(line, "python") == 0)
            snprintf(version, 24, "python%.16s", reason);
        else if (strcmp(line, "numpy") == 0)
            *numpy = ok;
        else if (ok && n < SYSTEMS_MOST) {
            snprintf(systems[n].name, sizeof systems[n].name, "%s", line);
            snprintf(systems[n++].metrics, sizeof systems[0].metrics, "%s", reason[2] ? reason + 3 : "");
        }
        if (ok || strcmp(line, "python") == 0) continue;
        char why[240];
        snprintf(why, sizeof why, "%s: %.200s", version, reason);
        peers_say_skipped(line, python, why);
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
                if (!fits(i, m) || (!xi && strncmp(systems[i].name, "xi", 2) == 0)) continue;
                if (add_case(s, m, systems[i].name, python, shape, version) < 0) return -1;
            }
    return 0;
}

int python_add(struct bench_suite *s, bool xi) {
    if (s->options->only_size) return 0; /* objects have no size of that kind */
    for (int python = 0; python < s->options->pythons; python++)
        if (add_python(s, xi, python) < 0) return -1;
    return 0;
}
