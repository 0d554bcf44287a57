/* SPDX-License-Identifier: MIT */
/*
 * The coordinator's half of the harness: where the sides run, how they are
 * started, watched and ended, and the process that keeps the namespace.
 *
 * The coordinator never polls and never measures; it sleeps until a side ends,
 * a signal arrives or the patience it has with one run is at its end. A side that
 * fails writes its sentence into shared memory and exits; the other one, which
 * may be spinning for it, is then killed. Sides die with the coordinator.
 */
#include "bench/harness.h"
#include "bench/measure.h"
#include "bench/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct bench_place bench_place;

static volatile sig_atomic_t interrupted;
static int keeper_pid = -1, keeper_end = -1;
static char own_folder[PATH_MAX];

enum { PATIENCE_S = 45, PATIENCE_TIMES = 20, MANNERS_S = 3 };
static int patience_s = PATIENCE_S;

/* ---- where ---- */

/* The beginning of a file, as text; false if there is none. */
static bool read_start(const char *path, char *out, size_t capacity) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, capacity - 1);
    if (fd >= 0) close(fd);
    out[n > 0 ? n : 0] = 0;
    return n > 0;
}

static void choose(const int *cpus) {
    char path[80], list[256], info[8192];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpus[0]);
    const char *siblings = read_start(path, list, sizeof list) ? list : NULL;
    place_choose(cpus, bench_place.allowed, siblings, bench_place.cpu);
    bool real = read_start("/proc/cpuinfo", info, sizeof info) && !place_is_virtual(info);
    bench_place.pair = place_pair_of(siblings, bench_place.cpu[1], !real);
}

void bench_place_init(void) {
    cpu_set_t set;
    int cpus[CPU_SETSIZE];
    bench_place = (struct bench_place){.cpu = {-1, -1}};
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &set)) cpus[bench_place.allowed++] = cpu;
    bench_place.pinned = bench_place.allowed >= 2;
    if (bench_place.pinned) choose(cpus);
    bench_must_yield = !bench_place.pinned;
    if (bench_must_yield) bench_microsecond = 1; /* to yield once is enough */
}

static void pin(int side) {
    if (!bench_place.pinned) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(bench_place.cpu[side], &set);
    /* Its processor may have been taken away since the start; the raw figures beside every result show that. */
    if (sched_setaffinity(0, sizeof set, &set) < 0) perror("xi-bench: cannot pin a side to its processor");
}

/* ---- life and death ---- */

static void on_signal(int sig) {
    (void)sig;
    interrupted = 1;
}

bool bench_interrupted(void) { return interrupted != 0; }

static void find_own_folder(void) {
    ssize_t n = readlink("/proc/self/exe", own_folder, sizeof own_folder - 1);
    own_folder[n > 0 ? n : 0] = 0;
    char *slash = strrchr(own_folder, '/');
    if (slash) *slash = 0;
}

const char *bench_own_folder(void) { return own_folder; }

/* Everything of this run, the Python programs too, meets in a namespace of its own. */
static void name_namespace(void) {
    char name[32], broker[PATH_MAX + 16];
    snprintf(name, sizeof name, "bench-%d-%llx", (int)getpid(), (unsigned long long)(bench_now() / 1000 & 0xffffffff));
    setenv("XI_NAMESPACE", name, 1);
    snprintf(broker, sizeof broker, "%s/xi-broker", own_folder);
    if (!getenv("XI_BROKER") && access(broker, X_OK) == 0) setenv("XI_BROKER", broker, 1);
}

/* SIGINT and SIGTERM are noticed in bench_wait alone, where they are let in. */
void bench_init(const struct bench_options *o) {
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t block;
    const char *patience = getenv("XI_BENCH_PATIENCE"); /* for tests of what has no end */
    patience_s = patience ? atoi(patience) : PATIENCE_S + (int)(PATIENCE_TIMES * o->target_s);
    if (patience_s < 1) patience_s = 1;
    find_own_folder();
    bench_clock_init();
    bench_place_init();
    name_namespace();
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigaddset(&block, SIGTERM);
    sigprocmask(SIG_BLOCK, &block, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void bench_follow_parent(int parent) {
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1); /* it died before the call above */
    signal(SIGINT, SIG_IGN); /* Ctrl-C reaches all of a terminal's processes: what follows is the coordinator's */
    signal(SIGTERM, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int pidfd_of(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

/* Waits until one of the descriptors (negative ones are skipped) is readable: its index; -1: a signal, or time is out. */
static int wait_for(const int *fds, int n, int seconds) {
    struct pollfd polls[2];
    struct timespec patience = {seconds, 0};
    sigset_t none;
    sigemptyset(&none);
    for (int i = 0; i < n; i++) polls[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    int rc = ppoll(polls, (nfds_t)n, &patience, &none);
    for (int i = 0; rc > 0 && i < n; i++)
        if (polls[i].revents) return i;
    return -1;
}

static int wait_any(const int *fds, int n) { return wait_for(fds, n, patience_s); }

bool bench_await(int fd) { return wait_any(&fd, 1) >= 0; }

void bench_give_up(struct bench_result *r) {
    r->gave_up = !interrupted;
    if (!interrupted) snprintf(r->error[0], BENCH_TEXT, "no end after %d s: given up", patience_s);
}

static int reap(int pid) {
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return status;
}

int bench_wait(int pid) {
    int fd = pidfd_of(pid);
    int ended = wait_any(&fd, 1);
    if (fd >= 0) close(fd);
    if (ended < 0) kill(pid, SIGKILL);
    int status = reap(pid);
    return ended < 0 ? -1 : status;
}

/* ---- a pair ---- */

/* Involuntary switches during the figure: somebody else wanted this processor. */
static long switches(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nivcsw : 0;
}

static int measured(struct bench_pair *p, int chunks, int rounds) {
    struct bench_result *r = &p->shared->result;
    double before = bench_raw_round_trip(p, chunks, rounds);
    if (p->side == 0) r->raw_before = before;
    long at_start = switches();
    if (p->c->run && p->c->run(p) < 0) return -1;
    xi_store_relaxed(&p->shared->stamp[p->side].v, (uint64_t)(switches() - at_start));
    double after = bench_raw_round_trip(p, chunks, rounds);
    if (r->error[p->side][0]) return -1;
    if (p->side == 1) return 0;
    r->raw_after = after;
    bench_extra(p, "involuntary_switches",
                (double)(xi_load_relaxed(&p->shared->stamp[0].v) + xi_load_relaxed(&p->shared->stamp[1].v)));
    return 0;
}

/* A peer with threads of its own makes them before this side is pinned: they may then use both processors. */
static int prepare(struct bench_pair *p) {
    char why[BENCH_TEXT];
    bool threads = p->c->peer && p->c->peer->flags & PEER_THREADS;
    if (p->c->peer && !(p->peer = peers_load(p->c->peer, why, sizeof why))) return bench_fail(p, "%s", why);
    if (!threads) pin(p->side);
    bench_prefault(p->shared, sizeof *p->shared);
    if (p->area) bench_prefault(p->area, p->c->area);
    if (p->c->setup && p->c->setup(p) < 0) return -1;
    if (threads) pin(p->side);
    return 0;
}

static int side_main(struct bench_pair *p) {
    int rounds = bench_must_yield ? 20 : 1000, chunks = p->options->quick ? 9 : 21;
    if (prepare(p) < 0) return 1;
    bench_barrier(p);
    if (measured(p, chunks, rounds) < 0) return 1;
    bench_barrier(p); /* nobody leaves while the other may still need him */
    if (p->c->teardown) p->c->teardown(p);
    return 0;
}

static int start_side(struct bench_pair *p, int side) {
    int parent = (int)getpid(), pid = fork();
    if (pid != 0) return pid;
    bench_follow_parent(parent);
    p->side = side;
    int status = side_main(p);
    if (p->c->peer && p->c->peer->module[0]) exit(status); /* libraries of peers may have to say goodbye to a server */
    _exit(status);
}

/* How one of the processes of a run ended: -1 if badly, with a sentence in *r unless there is one. */
static int judge(int status, int i, struct bench_result *r) {
    if (status == 0) return 0;
    if (r->error[0][0] || r->error[1][0]) return -1;
    if (WIFSIGNALED(status))
        snprintf(r->error[i], BENCH_TEXT, "side %d was killed by signal %d", i, WTERMSIG(status));
    else
        snprintf(r->error[i], BENCH_TEXT, "side %d ended with status %d", i, WEXITSTATUS(status));
    return -1;
}

/* A launcher has files and segments to clear away, for which it gets a moment. */
static void ask_to_end(int pid, int fd) {
    struct pollfd end = {.fd = fd, .events = POLLIN};
    kill(pid, SIGTERM);
    (void)poll(&end, 1, MANNERS_S * 1000); /* whether or not: what is left of it is killed */
}

/* Waits for 2 processes, or for 1 that launched them; when one fails the others are ended. 0, or -1 with a sentence in *r. */
static int watch(int *pids, int n, struct bench_result *r) {
    bool launched = n == 1;
    int fds[2] = {-1, -1}, failed = 0;
    for (int i = 0; i < n; i++) fds[i] = pidfd_of(pids[i]);
    for (int left = n; left > 0 && failed == 0; left--) {
        int i = wait_any(fds, n);
        if (i < 0) bench_give_up(r);
        if (i < 0) break;
        failed = judge(reap(pids[i]), i, r);
        close(fds[i]);
        pids[i] = fds[i] = -1;
    }
    for (int i = 0; i < n; i++) {
        if (pids[i] < 0) continue;
        failed = -1;
        if (launched) ask_to_end(pids[i], fds[i]);
        kill(pids[i], SIGKILL);
        reap(pids[i]);
        close(fds[i]);
    }
    return failed;
}

/* Two forks of this process. */
static int run_forked(struct bench_pair *p, struct bench_result *r) {
    int pids[2];
    for (int side = 0; side < 2; side++) {
        pids[side] = start_side(p, side);
        if (pids[side] >= 0) continue;
        snprintf(r->error[0], BENCH_TEXT, "cannot start a process: %s", strerror(errno));
        if (side == 1) {
            kill(pids[0], SIGKILL);
            reap(pids[0]);
        }
        return -1;
    }
    return watch(pids, 2, r);
}

/* ---- a pair that a launcher starts ---- */

static void write_order(struct bench_pair *p) {
    struct bench_order *o = &p->shared->order;
    const char *ns = getenv("XI_NAMESPACE");
    snprintf(o->metric, sizeof o->metric, "%s", p->c->metric);
    snprintf(o->system, sizeof o->system, "%s", p->c->system);
    snprintf(o->label, sizeof o->label, "%s", p->c->label);
    snprintf(o->namespace_, sizeof o->namespace_, "%s", ns ? ns : "");
    snprintf(o->folder, sizeof o->folder, "%s", p->folder);
    o->bytes = p->c->bytes;
    o->serial = p->serial;
    o->param = p->c->param;
    o->measure = p->c->measure;
    o->peer = *p->c->peer;
    o->quick = p->options->quick;
    o->target_s = p->options->target_s;
    o->coordinator = (int)getpid();
    o->place = bench_place;
}

/* In the launcher's process: becomes it. */
static void launch(struct bench_pair *p, int parent, int shared_fd) {
    char self[PATH_MAX + 16], path[64], why[240];
    char *const side[] = {self, "--side", path, NULL};
    snprintf(self, sizeof self, "%s/xi-bench", own_folder);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", parent, shared_fd);
    bench_follow_parent(parent);
    setenv("TMPDIR", p->folder, 1); /* what the launcher keeps of its own */
    const struct peer *peer = peers_load(p->c->peer, why, sizeof why);
    if (peer && peer->launch) peer->launch(side);
    snprintf(p->shared->result.error[0], BENCH_TEXT, "cannot be launched: %s", peer ? strerror(errno) : why);
    _exit(127);
}

static int run_launched(struct bench_pair *p, int shared_fd, struct bench_result *r) {
    int parent = (int)getpid(), pid = fork();
    if (pid == 0) launch(p, parent, shared_fd);
    if (pid < 0) return snprintf(r->error[0], BENCH_TEXT, "cannot start a process: %s", strerror(errno)), -1;
    return watch(&pid, 1, r);
}

/* Ends with whoever started it; that one ends with the coordinator, by way of the launcher. */
int bench_side_main(const char *path) {
    static struct bench_options options;
    static struct bench_case c;
    struct bench_pair p = {.c = &c, .options = &options};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    p.shared = fd < 0 ? MAP_FAILED
                      : mmap(NULL, sizeof *p.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p.shared == MAP_FAILED) return perror("xi-bench: cannot map what the sides share"), 1;
    const struct bench_order *o = &p.shared->order;
    find_own_folder();
    bench_clock_init();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_place = o->place;
    bench_must_yield = !bench_place.pinned;
    if (bench_must_yield) bench_microsecond = 1;
    options = (struct bench_options){.quick = o->quick, .target_s = o->target_s};
    c = (struct bench_case){.metric = o->metric, .system = o->system, .bytes = o->bytes, .param = o->param,
                            .measure = o->measure, .peer = &o->peer};
    snprintf(c.label, sizeof c.label, "%s", o->label);
    measure_fill(&c);
    p.serial = o->serial;
    p.folder = o->folder;
    p.side = (int)xi_add_full(&p.shared->sides.v, 1);
    return p.side > 1 ? 1 : side_main(&p);
}

/* ---- one run ---- */

static void *map_shared(int fd, size_t size) {
    int flags = MAP_SHARED | MAP_POPULATE | (fd < 0 ? MAP_ANONYMOUS : 0);
    void *m = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    return m == MAP_FAILED ? NULL : m;
}

/* No round trip beats that of a cache line: the regime was another in between, though it was the same before and after. */
static bool faster_than_raw(const struct bench_result *r) {
    double raw = r->raw_before < r->raw_after ? r->raw_before : r->raw_after;
    return bench_place.pinned && r->round_trip > 0 && r->round_trip < 0.85 * raw;
}

/* With whatever its peer needs besides: a folder, a server. */
static int run_mapped(struct bench_pair *p, int shared_fd, struct bench_result *out) {
    uint32_t flags = p->c->peer ? p->c->peer->flags : 0;
    char folder[64] = "";
    int server = -1, rc = 0;
    struct bench_result *r = &p->shared->result;
    histogram_reset(&r->histogram);
    fflush(NULL);
    if (p->c->peer && peers_folder_make(folder) < 0) return snprintf(out->error[0], BENCH_TEXT, "no folder in /tmp"), -1;
    p->folder = folder;
    if (flags & PEER_SERVED && (server = peers_server_start(p->c->peer, folder)) < 0) rc = -1;
    if (flags & PEER_LAUNCHED) write_order(p);
    if (rc == 0) rc = flags & PEER_LAUNCHED ? run_launched(p, shared_fd, r) : run_forked(p, r);
    if (server > 0) peers_server_stop(server);
    peers_folder_remove(folder);
    *out = *r;
    out->regime = bench_regime_of(out->raw_before, out->raw_after);
    if (faster_than_raw(out)) out->regime = BENCH_MIXED;
    return rc;
}

static int run_in(struct bench_pair *p, int shared_fd, struct bench_result *out) {
    const struct bench_case *c = p->c;
    int rc = -1;
    if (shared_fd >= 0 && ftruncate(shared_fd, sizeof *p->shared) == 0) p->shared = map_shared(shared_fd, sizeof *p->shared);
    p->area = c->area ? map_shared(-1, c->area) : NULL;
    if (p->shared && (p->area || !c->area))
        rc = run_mapped(p, shared_fd, out);
    else
        snprintf(out->error[0], BENCH_TEXT, "cannot map %zu bytes of shared memory: %s", c->area, strerror(errno));
    if (p->shared) munmap(p->shared, sizeof *p->shared);
    if (p->area) munmap(p->area, c->area);
    return rc;
}

int bench_pair_run(const struct bench_case *c, const struct bench_options *o, struct bench_result *out) {
    static uint64_t serial;
    struct bench_pair p = {.c = c, .options = o, .serial = ++serial};
    memset(out, 0, sizeof *out);
    int fd = memfd_create("xi-bench", MFD_CLOEXEC); /* by a name: a side that a launcher started can open it */
    int rc = run_in(&p, fd, out);
    if (fd >= 0) close(fd);
    return rc;
}

int bench_raw_now(const struct bench_options *o, double *ns) {
    static struct bench_result result;
    static const struct bench_case nothing = {.metric = "nothing", .system = "raw"};
    if (bench_pair_run(&nothing, o, &result) < 0) return -1;
    *ns = (result.raw_before + result.raw_after) / 2;
    if (result.regime == BENCH_MIXED) *ns = result.raw_after;
    return 0;
}

int bench_external(const struct bench_case *c, const struct bench_options *o, struct bench_result *out,
                   int (*measure)(const struct bench_case *c, const struct bench_options *o, struct bench_result *out)) {
    double before = 0, after = 0;
    memset(out, 0, sizeof *out);
    if (bench_raw_now(o, &before) < 0 || measure(c, o, out) < 0 || bench_raw_now(o, &after) < 0) {
        if (!out->error[0][0]) snprintf(out->error[0], BENCH_TEXT, "the raw round trip could not be measured");
        return -1;
    }
    out->raw_before = before;
    out->raw_after = after;
    out->regime = bench_regime_of(before, after);
    if (c->unit && out->regime == BENCH_MIXED) out->regime = bench_regime_of(after, after); /* a number, not a time */
    return 0;
}

enum bench_regime bench_regime_of(double before, double after) {
    if (!bench_place.pinned) return BENCH_TWO_CORES; /* by any name: there is one kind of run */
    if (bench_place.pair != PLACE_UNKNOWN) return bench_place.pair == PLACE_SIBLINGS ? BENCH_ONE_CORE : BENCH_TWO_CORES;
    bool one_before = before < BENCH_REGIME_LIMIT_NS, one_after = after < BENCH_REGIME_LIMIT_NS;
    if (one_before != one_after) return BENCH_MIXED;
    return one_after ? BENCH_ONE_CORE : BENCH_TWO_CORES;
}

const char *bench_regime_name(enum bench_regime r) {
    static const char *const names[] = {"two cores", "two threads of one core", "mixed"};
    return bench_place.pinned ? names[r] : "not pinned";
}

/* ---- the keeper ---- */

/* Joins, says so (or why not) through `report`, and stays until the coordinator closes its end of `stay`. */
static void keep(int stay, int report) {
    xi_join_opts opts = {.name = "bench keeper"};
    xi_interp *me = NULL;
    char c = 0;
    int rc = xi_join(&opts, &me);
    const char *text = rc < 0 ? xi_error_text(rc) : "";
    if (write(report, text, strlen(text) + 1) < 0 || rc < 0) _exit(1);
    close(report);
    while (read(stay, &c, 1) < 0 && errno == EINTR) {}
    xi_leave(me);
    _exit(0);
}

int bench_keeper_start(void) {
    int stay[2], report[2];
    char text[BENCH_TEXT] = "";
    if (keeper_pid > 0) return 0;
    if (pipe2(stay, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0) return perror("xi-bench: pipe"), -1;
    int parent = (int)getpid();
    keeper_pid = fork();
    if (keeper_pid == 0) {
        close(stay[1]);
        close(report[0]);
        bench_follow_parent(parent);
        keep(stay[0], report[1]);
    }
    close(stay[0]);
    close(report[1]);
    keeper_end = stay[1];
    ssize_t n = keeper_pid < 0 || wait_any(&report[0], 1) < 0 ? -1 : read(report[0], text, sizeof text - 1);
    close(report[0]);
    if (n == 1 && !text[0]) return 0;
    fprintf(stderr, "xi-bench: cannot join a namespace to measure in: %s\n", n > 0 ? text : "no answer from the joining process");
    return -1;
}

void bench_finish(void) {
    if (keeper_end >= 0) close(keeper_end);
    if (keeper_pid > 0) bench_wait(keeper_pid);
    keeper_pid = keeper_end = -1;
}
