/* SPDX-License-Identifier: MIT */
/*
 * What the system tests share: a check that says what was expected and ends
 * the process, children that are forked before anybody joins, gates between
 * them made of pipes and events made of futex words (so that nobody sleeps in
 * the hope that another is ready), and a look at what a namespace has in
 * /dev/shm.
 */
#ifndef XI_TEST_HARNESS_H
#define XI_TEST_HARNESS_H

#include <dirent.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "xidata.h"

#define MS ((int64_t)1000000)
#define SECOND ((int64_t)1000000000)

__attribute__((noreturn, format(printf, 3, 4))) static inline void fail_at(const char *file, int line,
                                                                           const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s:%d: process %d: ", file, line, (int)getpid());
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    fflush(stderr);
    _exit(1);
}
#define fail(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
/* expect(condition, "what was meant, with numbers", ...) */
#define expect(condition, ...)                                                                                         \
    do {                                                                                                               \
        if (!(condition)) fail_at(__FILE__, __LINE__, #condition ": " __VA_ARGS__);                                    \
    } while (0)
/* A call of the library that must succeed. */
#define must(call)                                                                                                     \
    do {                                                                                                               \
        int64_t rc_ = (call);                                                                                          \
        if (rc_ < 0)                                                                                                   \
            fail_at(__FILE__, __LINE__, "%s: %s: %s", #call, xi_error_name((int)rc_), xi_error_text((int)rc_));        \
    } while (0)
/* A call of the library that must fail with this error. */
#define must_fail(error, call)                                                                                         \
    do {                                                                                                               \
        int64_t rc_ = (call);                                                                                          \
        if (rc_ != (error))                                                                                            \
            fail_at(__FILE__, __LINE__, "%s: %s expected, got %s (%s)", #call, xi_error_name(error),                   \
                    rc_ < 0 ? xi_error_name((int)rc_) : "success", rc_ < 0 ? xi_error_text((int)rc_) : "");            \
    } while (0)
/* A system call that must succeed. */
#define must_sys(call)                                                                                                 \
    do {                                                                                                               \
        if ((call) == -1) fail_at(__FILE__, __LINE__, "%s: %s", #call, strerror(errno));                               \
    } while (0)

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* Numbers drawn from a seed, which is not 0. */
static inline uint64_t random64(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1du;
}

/* ---- waiting for one another */

#define STUCK (30 * SECOND) /* who waits longer than this waits for ever */

/* A pause that is the thing itself: the rhythm of a killer, a worker that is slow on purpose. Never a way to wait for
 * somebody: that is what await_event() and await() are for. */
static inline void rest(int64_t ns) {
    struct timespec t = {ns / SECOND, ns % SECOND};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) continue;
}

/* An event: a word in shared memory. Who has changed what others wait for announces it; they sleep on the word. */
typedef _Atomic uint32_t event_word;
static inline void announce(event_word *event) {
    atomic_fetch_add(event, 1);
    syscall(SYS_futex, event, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}
static inline void event_sleep(event_word *event, uint32_t seen, int64_t ns) {
    struct timespec t = {ns / SECOND, ns % SECOND};
    syscall(SYS_futex, event, FUTEX_WAIT, seen, &t, NULL, 0); /* whatever it returns, the condition is looked at again */
}
/* await_event(event, condition, "what did not come, with numbers", ...) */
#define await_event(event, condition, ...)                                                                             \
    do {                                                                                                               \
        int64_t begun_ = now_ns(), spent_ = 0;                                                                         \
        for (uint32_t seen_ = atomic_load(event); !(condition); seen_ = atomic_load(event)) {                          \
            spent_ = now_ns() - begun_;                                                                                \
            expect(spent_ < STUCK, __VA_ARGS__);                                                                       \
            event_sleep(event, seen_, STUCK - spent_);                                                                 \
        }                                                                                                              \
    } while (0)
/* The same for what nobody announces: what the library or the broker stores for themselves, what a file system has, and
 * requests that are made again until a broker is there. It is looked at a thousand times a second. */
#define await_for(limit, condition, ...)                                                                               \
    do {                                                                                                               \
        int64_t begun_ = now_ns();                                                                                     \
        while (!(condition)) {                                                                                         \
            expect(now_ns() - begun_ < (limit), __VA_ARGS__);                                                          \
            rest(MS);                                                                                                  \
        }                                                                                                              \
    } while (0)
#define await(condition, ...) await_for(STUCK, condition, __VA_ARGS__)

/* ---- interpreters and channels */

static inline xi_interp *join_ns(const char *ns, const char *name, uint32_t flags) {
    xi_interp *me = NULL;
    xi_join_opts opts = {.ns = ns, .name = name, .flags = flags};
    must(xi_join(&opts, &me));
    return me;
}
static inline xi_interp *join_as(const char *name, uint32_t flags) { return join_ns(NULL, name, flags); }

static inline xi_channel *open_with(xi_interp *me, const char *name, const xi_open_opts *opts) {
    xi_channel *ch = NULL;
    must(xi_open(me, name, opts, &ch));
    return ch;
}
static inline xi_channel *open_queue(xi_interp *me, const char *name) { return open_with(me, name, NULL); }

/* The usual end: the handle first, then the interpreter. */
static inline void leave_with(xi_interp *me, xi_channel *ch) {
    must(xi_channel_free(ch));
    must(xi_leave(me));
}

/* The integer that a message is, or the first child of the tuple that it is. */
static inline int64_t message_int(const xi_msg *m) {
    xi_cursor c, children;
    xi_value v;
    int64_t out = 0;
    xi_cursor_init(&c, m->data, m->size);
    expect(xi_next(&c, &v) == 1, "a message without a value");
    if (v.tag == XI_TUPLE) {
        must(xi_enter(&v, &children));
        expect(xi_next(&children, &v) == 1, "an empty tuple");
    }
    must(xi_get_int(&v, &out));
    return out;
}

/* (number, `padding` bytes), encoded into `buffer`; returns its size. */
static inline size_t encode_padded(void *buffer, size_t capacity, int64_t number, size_t padding) {
    xi_builder b;
    void *where = NULL;
    xi_builder_init(&b, buffer, capacity, 0);
    xi_begin(&b, XI_TUPLE, 2);
    xi_put_int(&b, number);
    xi_put_bytes_space(&b, 0, padding, &where);
    if (where) memset(where, (int)(number & 0xff), padding);
    xi_end(&b);
    int64_t size = xi_builder_finish(&b);
    must(size);
    return (size_t)size;
}

/* ---- processes */

/* Zeroed memory that children forked later share. */
static inline void *shared_memory(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    expect(p != MAP_FAILED, "mmap: %s", strerror(errno));
    return p;
}

typedef void (*body_fn)(void *argument);
/* A child that runs `body` and exits with 0. */
static inline pid_t spawn(body_fn body, void *argument) {
    fflush(NULL);
    pid_t pid = fork();
    must_sys(pid);
    if (pid == 0) {
        body(argument);
        exit(0);
    }
    return pid;
}
static inline int reap(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) expect(errno == EINTR, "waitpid: %s", strerror(errno));
    return status;
}
static inline void reap_ok(pid_t pid, const char *who) {
    int status = reap(pid);
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s ended with %s %d", who,
           WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}
static inline void reap_signalled(pid_t pid, int sig, const char *who) {
    int status = reap(pid);
    expect(WIFSIGNALED(status) && WTERMSIG(status) == sig, "%s should have died of signal %d, its wait status is %#x",
           who, sig, status);
}

/* The letter that /proc has for the state of a process's first thread; S: it sleeps. */
static inline char process_state(pid_t pid) {
    char path[40], text[256], *end;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    end = strrchr(text, ')'); /* the name before it may hold anything */
    return end && end[1] == ' ' ? end[2] : '?';
}

/* True once any process (not only a child) has ended; false after `timeout_ms`. */
static inline bool wait_end(pid_t pid, int timeout_ms) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) return errno == ESRCH;
    struct pollfd p = {fd, POLLIN, 0};
    int n;
    while ((n = poll(&p, 1, timeout_ms)) < 0 && errno == EINTR)
        ;
    close(fd);
    return n == 1;
}

/* A gate: one side waits in pass(), the other lets `n` through with lift(), or all at once by dying. */
struct gate {
    int fd[2];
};
static inline struct gate gate_new(void) {
    struct gate g;
    must_sys(pipe(g.fd));
    return g;
}
static inline void gate_lift(const struct gate *g, int n) {
    for (int i = 0; i < n; i++) expect(write(g->fd[1], "x", 1) == 1, "gate: %s", strerror(errno));
}
static inline void gate_pass(const struct gate *g) {
    char c;
    ssize_t n;
    while ((n = read(g->fd[0], &c, 1)) < 0 && errno == EINTR)
        ;
    expect(n >= 0, "gate: %s", strerror(errno));
}

/* ---- what a namespace has in /dev/shm */

static inline int segments_of(const char *ns, bool print) {
    char prefix[64];
    int found = 0;
    DIR *dir = opendir("/dev/shm");
    expect(dir != NULL, "opendir /dev/shm: %s", strerror(errno));
    int n = snprintf(prefix, sizeof prefix, "xi.%u.%s.", (unsigned)getuid(), ns);
    for (struct dirent *e; (e = readdir(dir));) {
        /* "a" must not find those of "a.b": what follows is "registry" or two numbers */
        const char *rest = e->d_name + n;
        if (strncmp(e->d_name, prefix, (size_t)n) != 0) continue;
        if (strcmp(rest, "registry") != 0 && !(strlen(rest) == 17 && rest[8] == '.')) continue;
        found++;
        if (print) fprintf(stderr, "still there: /dev/shm/%s\n", e->d_name);
    }
    closedir(dir);
    return found;
}
static inline const char *test_ns(void) {
    const char *ns = getenv("XI_NAMESPACE");
    return ns && ns[0] ? ns : "default";
}
/* A further namespace of this test: run.sh looks after those that begin with its own. */
static inline const char *further_ns(char out[32], const char *suffix) {
    snprintf(out, 32, "%.20s.%.10s", test_ns(), suffix);
    return out;
}
static inline pid_t broker_pid(xi_interp *me) { return xi_observer_broker_pid(xi_observer_of(me)); }
/* For who has not joined: the broker of the test's namespace, or 0. */
static inline pid_t serving_broker(void) {
    xi_observer *o = NULL;
    if (xi_observe(NULL, &o) != 0) return 0;
    pid_t pid = xi_observer_broker_pid(o);
    xi_observer_free(o);
    return pid;
}

#endif
