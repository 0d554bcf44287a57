/* SPDX-License-Identifier: MIT */
/*
 * What it costs to be there: memory, system calls while nothing happens, how
 * fast channels and interpreters come and go, and how many there can be at once.
 *
 * Every figure is taken by a process of its own that joins the namespace, does
 * the thing and reports one number. Memory is shared memory: what the files of
 * the namespace take up in /dev/shm, before and after (private memory of broker
 * and opener is stated beside it). System calls are counted by strace(1) on a
 * process that has gone to rest, after it has been let alone for a second:
 * attaching itself wakes whoever sleeps.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/suites.h"

enum { CHANNELS = 100, INTERPRETERS = 16, HELD_CHANNELS = 10000, HELD_INTERPRETERS = 256, WARM = 100, ALONE_MS = 1000 };

enum what { OPEN_CLOSE, JOIN_LEAVE, HELD_MANY_CHANNELS, HELD_MANY_INTERPRETERS, OF_CHANNEL, OF_INTERPRETER, OF_BROKER,
            CALLS_OF_BROKER, CALLS_OF_WAITER };

static struct bench_result *answer; /* shared with the process that measures */
static uint64_t serial;

/* ---- in the process that measures ---- */

static void fail(const char *what, const char *why) {
    snprintf(answer->error[0], BENCH_TEXT, "%s: %s", what, why);
    _exit(1);
}

static void check(const char *what, int rc) {
    if (rc < 0) fail(what, xi_error_text(rc));
}

static void extra(const char *name, double value) {
    struct bench_extra *e = &answer->extra[answer->extras++];
    snprintf(e->name, sizeof e->name, "%s", name);
    e->value = value;
}

static void state(double value, uint64_t ops, uint64_t start) {
    answer->ns = value;
    answer->ops = ops;
    answer->seconds = (double)(bench_now() - start) / 1e9;
}

static xi_interp *join(void) {
    xi_interp *me = NULL;
    xi_join_opts opts = {.name = "bench footprint", .flags = XI_JOIN_NO_START};
    check("joining", xi_join(&opts, &me));
    return me;
}

static xi_channel *open_channel(xi_interp *me, const char *prefix, uint64_t i) {
    char name[64];
    xi_channel *ch = NULL;
    snprintf(name, sizeof name, "%s.%llu.%llu", prefix, (unsigned long long)serial, (unsigned long long)i);
    check("opening a channel", xi_open(me, name, NULL, &ch));
    return ch;
}

/* ---- coming and going ---- */

static void open_close(xi_interp *me, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) check("closing", xi_channel_free(open_channel(me, "come", i)));
}

static void join_leave(xi_interp *me, uint64_t n) {
    (void)me;
    for (uint64_t i = 0; i < n; i++) check("leaving", xi_leave(join()));
}

static void measure_rate(const struct bench_options *o, void (*work)(xi_interp *, uint64_t)) {
    xi_interp *me = join();
    work(me, WARM);
    uint64_t start = bench_now();
    work(me, WARM);
    uint64_t n = bench_scale(WARM, bench_now() - start, o->target_s, WARM, 1000000);
    start = bench_now();
    work(me, n);
    state((double)(bench_now() - start) / (double)n, n, start);
    xi_leave(me);
}

/* ---- many at once ---- */

static void measure_channels(void) {
    xi_interp *me = join();
    xi_channel **held = calloc(HELD_CHANNELS, sizeof *held);
    if (!held) fail("holding channels", strerror(ENOMEM));
    uint64_t start = bench_now();
    for (uint64_t i = 0; i < HELD_CHANNELS; i++) held[i] = open_channel(me, "held", i);
    for (uint64_t i = 0; i < HELD_CHANNELS; i += 97) { /* received as well: what is not keeps its channel, and the broker */
        xi_msg m = XI_MSG_INIT;
        check("sending on one of them", xi_send_int(held[i], 1, XI_TRY));
        check("receiving from it", xi_recv(held[i], &m, XI_TRY));
        xi_msg_release(&m);
    }
    state(HELD_CHANNELS, HELD_CHANNELS, start);
    xi_leave(me);
    free(held);
}

/* A process that has joined and waits until `stay` is closed. */
static int start_joined(int ready, int stay[2]) {
    int parent = (int)getpid(), pid = fork();
    if (pid != 0) return pid;
    char c;
    bench_follow_parent(parent);
    close(stay[1]);
    xi_interp *me = join();
    if (write(ready, "r", 1) != 1) _exit(1);
    close(ready); /* so that it ends when another dies before it comes to this */
    while (read(stay[0], &c, 1) < 0 && errno == EINTR) {}
    xi_leave(me);
    _exit(0);
}

struct joined {
    int pids[HELD_INTERPRETERS], stay[2], count;
};

static void start_all(struct joined *j, int count) {
    int ready[2];
    char c;
    j->count = count;
    if (pipe2(ready, O_CLOEXEC) < 0 || pipe2(j->stay, O_CLOEXEC) < 0) fail("pipe", strerror(errno));
    for (int i = 0; i < count; i++)
        if ((j->pids[i] = start_joined(ready[1], j->stay)) < 0) fail("fork", strerror(errno));
    close(ready[1]);
    for (int i = 0; i < count; i++)
        if (read(ready[0], &c, 1) != 1) fail("joining", answer->error[0][0] ? answer->error[0] : "one of them died");
    close(ready[0]);
}

static void end_all(struct joined *j) {
    close(j->stay[0]);
    close(j->stay[1]);
    for (int i = 0; i < j->count; i++)
        if (waitpid(j->pids[i], NULL, 0) < 0) fail("waiting", strerror(errno));
}

static void measure_interpreters(void) {
    static struct joined joined;
    uint64_t start = bench_now();
    start_all(&joined, HELD_INTERPRETERS);
    state(HELD_INTERPRETERS, HELD_INTERPRETERS, start);
    end_all(&joined);
}

/* ---- memory ---- */

/* Of the files of this namespace in /dev/shm. */
static double shared_bytes(void) {
    char prefix[96];
    const char *ns = getenv("XI_NAMESPACE");
    int length = snprintf(prefix, sizeof prefix, "xi.%u.%s.", (unsigned)getuid(), ns ? ns : "default");
    DIR *d = opendir("/dev/shm");
    double sum = 0;
    struct stat s;
    if (!d) fail("/dev/shm", strerror(errno));
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strncmp(e->d_name, prefix, (size_t)length) == 0 && fstatat(dirfd(d), e->d_name, &s, 0) == 0)
            sum += (double)s.st_blocks * 512;
    closedir(d);
    return sum;
}

/* A line of /proc/PID/status, in bytes. */
static double status_bytes(int pid, const char *key) {
    char path[64], line[256];
    double kib = NAN;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0) kib = strtod(line + strlen(key) + 1, NULL);
    if (f) fclose(f);
    if (isnan(kib)) fail(path, "no such line");
    return kib * 1024;
}

static int broker_pid(xi_interp *me) { return xi_observer_broker_pid(xi_observer_of(me)); }

static void measure_channel_memory(void) {
    xi_interp *me = join();
    xi_channel *first = open_channel(me, "first", 0), *held[CHANNELS]; /* what is there but once is there now */
    uint64_t start = bench_now();
    double shared = shared_bytes(), broker = status_bytes(broker_pid(me), "RssAnon:"), own = status_bytes((int)getpid(), "RssAnon:");
    for (uint64_t i = 0; i < CHANNELS; i++) held[i] = open_channel(me, "idle", i);
    state((shared_bytes() - shared) / CHANNELS, CHANNELS, start);
    extra("broker_private", (status_bytes(broker_pid(me), "RssAnon:") - broker) / CHANNELS);
    extra("own_private", (status_bytes((int)getpid(), "RssAnon:") - own) / CHANNELS);
    for (uint64_t i = 0; i < CHANNELS; i++) xi_channel_free(held[i]);
    xi_channel_free(first);
    xi_leave(me);
}

static double arenas(xi_interp *me) {
    static xi_interp_info infos[1024];
    int64_t n = xi_list_interps(xi_observer_of(me), infos, 1024);
    double sum = 0;
    check("listing interpreters", (int)n);
    for (int64_t i = 0; i < n && i < 1024; i++) sum += (double)infos[i].arena_bytes;
    return sum;
}

static void measure_interpreter_memory(void) {
    static struct joined joined;
    xi_interp *me = join();
    uint64_t start = bench_now();
    double shared = shared_bytes(), arena = arenas(me), broker = status_bytes(broker_pid(me), "RssAnon:");
    start_all(&joined, INTERPRETERS);
    arena = arenas(me) - arena;
    shared = shared_bytes() - shared;
    state((shared - arena) / INTERPRETERS, INTERPRETERS, start);
    extra("arena", arena / INTERPRETERS);
    extra("broker_private", (status_bytes(broker_pid(me), "RssAnon:") - broker) / INTERPRETERS);
    end_all(&joined);
    xi_leave(me);
}

static void measure_broker_memory(void) {
    xi_interp *me = join();
    uint64_t start = bench_now();
    int pid = broker_pid(me);
    state(status_bytes(pid, "VmRSS:"), 1, start);
    extra("private", status_bytes(pid, "RssAnon:"));
    extra("files", status_bytes(pid, "RssFile:"));
    xi_leave(me);
}

/* ---- system calls of who has nothing to do ---- */

static void rest(int ms) {
    uint64_t end = bench_now() + (uint64_t)ms * 1000000u;
    for (uint64_t now; (now = bench_now()) < end;) (void)poll(NULL, 0, (int)((end - now) / 1000000u) + 1);
}

static int start_strace(int pid, const char *file) {
    char number[16];
    int parent = (int)getpid(), tracer = fork();
    if (tracer != 0) return tracer;
    bench_follow_parent(parent);
    signal(SIGINT, SIG_DFL);
    snprintf(number, sizeof number, "%d", pid);
    int null = open("/dev/null", O_WRONLY);
    if (null >= 0) dup2(null, STDERR_FILENO);
    execlp("strace", "strace", "-f", "-qq", "-ttt", "-o", file, "-p", number, (char *)NULL);
    _exit(127);
}

/* Lines "PID SECONDS CALL(...": calls begun after `from` and before `to`. */
static uint64_t count_calls(const char *file, double from, double to) {
    char line[1024];
    uint64_t n = 0;
    FILE *f = fopen(file, "r");
    if (!f) fail(file, strerror(errno));
    while (fgets(line, sizeof line, f)) {
        char *at = line + strspn(line, "0123456789"), *call;
        double when = strtod(at, &call);
        if (when > from && when < to && !strstr(call, "resumed>") && strchr(call, '(')) n++;
    }
    fclose(f);
    return n;
}

static double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void measure_calls(int pid, const struct bench_options *o) {
    char file[] = "/tmp/xi-bench-calls.XXXXXX";
    int fd = mkstemp(file), status = 0, ms = o->quick ? 2000 : 5000;
    if (fd < 0) fail(file, strerror(errno));
    close(fd);
    rest(ALONE_MS);
    int tracer = start_strace(pid, file);
    rest(ALONE_MS);
    uint64_t start = bench_now();
    double from = clock_seconds();
    rest(ms);
    double to = clock_seconds();
    bool traced = waitpid(tracer, &status, WNOHANG) == 0; /* it is there still: it could attach */
    kill(tracer, SIGINT);
    if (traced) waitpid(tracer, &status, 0);
    uint64_t n = count_calls(file, from, to);
    unlink(file);
    if (!traced) fail("strace", "is missing, or may not trace here (Debian: strace)");
    state((double)n / (to - from), n, start);
}

/* A process that sleeps in a receive on an empty channel. */
static int start_waiter(void) {
    int ready[2], parent = (int)getpid();
    char c;
    if (pipe2(ready, O_CLOEXEC) < 0) fail("pipe", strerror(errno));
    int pid = fork();
    if (pid == 0) {
        xi_msg m = XI_MSG_INIT;
        bench_follow_parent(parent);
        xi_channel *ch = open_channel(join(), "never", 0);
        if (write(ready[1], "r", 1) != 1) _exit(1);
        while (xi_recv(ch, &m, XI_FOREVER) == XI_E_INTR) {} /* a tracer that attaches interrupts */
        _exit(0);
    }
    close(ready[1]);
    if (pid < 0 || read(ready[0], &c, 1) != 1) fail("starting a process that waits", strerror(errno));
    close(ready[0]);
    return pid;
}

static void measure_waiter_calls(const struct bench_options *o) {
    int pid = start_waiter();
    measure_calls(pid, o);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void measure_broker_calls(const struct bench_options *o) {
    xi_interp *me = join();
    int waiter = start_waiter();
    measure_calls(broker_pid(me), o); /* with somebody there who waits */
    kill(waiter, SIGKILL);
    waitpid(waiter, NULL, 0);
    xi_leave(me);
}

/* ---- the coordinator's part ---- */

static void measure_here(const struct bench_case *c, const struct bench_options *o) {
    switch ((enum what)c->param) {
    case OPEN_CLOSE: measure_rate(o, open_close); break;
    case JOIN_LEAVE: measure_rate(o, join_leave); break;
    case HELD_MANY_CHANNELS: measure_channels(); break;
    case HELD_MANY_INTERPRETERS: measure_interpreters(); break;
    case OF_CHANNEL: measure_channel_memory(); break;
    case OF_INTERPRETER: measure_interpreter_memory(); break;
    case OF_BROKER: measure_broker_memory(); break;
    case CALLS_OF_BROKER: measure_broker_calls(o); break;
    case CALLS_OF_WAITER: measure_waiter_calls(o); break;
    }
}

/* As many descriptors as this user may have: each channel and each interpreter takes some. */
static void lift_limits(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* refused: opening says so */
}

static int measure(const struct bench_case *c, const struct bench_options *o, struct bench_result *out) {
    answer = mmap(NULL, sizeof *answer, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (answer == MAP_FAILED) return snprintf(out->error[0], BENCH_TEXT, "mmap: %s", strerror(errno)), -1;
    int parent = (int)getpid();
    serial++;
    fflush(NULL);
    int pid = fork();
    if (pid == 0) {
        bench_follow_parent(parent);
        lift_limits();
        measure_here(c, o);
        _exit(0);
    }
    int status = pid < 0 ? -1 : bench_wait(pid);
    *out = *answer;
    munmap(answer, sizeof *answer);
    if (status == 0) return 0;
    if (!out->error[0][0]) snprintf(out->error[0], BENCH_TEXT, "the process that measures it died or took too long");
    return -1;
}

static int external(const struct bench_case *c, const struct bench_options *o, struct bench_result *out) {
    return bench_external(c, o, out, measure);
}

int footprint_add(struct bench_suite *s, bool xi) {
    static const struct {
        const char *metric, *system, *label, *unit;
        enum what what;
    } cases[] = {
        {"memory", "channel", "idle", "B", OF_CHANNEL},
        {"memory", "interpreter", "idle", "B", OF_INTERPRETER},
        {"memory", "broker", "idle", "B", OF_BROKER},
        {"idle_calls", "broker", "idle", "calls/s", CALLS_OF_BROKER},
        {"idle_calls", "waiter", "idle", "calls/s", CALLS_OF_WAITER},
        {"control", "open_close", "each", NULL, OPEN_CLOSE},
        {"control", "join_leave", "each", NULL, JOIN_LEAVE},
        {"held", "channels", "at once", "held", HELD_MANY_CHANNELS},
        {"held", "interpreters", "at once", "held", HELD_MANY_INTERPRETERS},
    };
    for (size_t i = 0; xi && s->options->only_size == 0 && i < sizeof cases / sizeof *cases; i++) {
        struct bench_case *c = bench_add(s, cases[i].metric, cases[i].system, 0);
        if (!c) return -1;
        snprintf(c->label, sizeof c->label, "%s", cases[i].label);
        c->unit = cases[i].unit;
        c->param = cases[i].what;
        c->needs_namespace = true;
        c->once = strcmp(cases[i].metric, "held") == 0 || strcmp(cases[i].metric, "idle_calls") == 0;
        c->external = external;
    }
    return 0;
}
