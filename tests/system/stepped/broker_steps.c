/* SPDX-License-Identifier: MIT */
/*
 * The part of xi-broker-stepped that is not the broker's; broker_steps.h has the
 * model. First the steps, then the calls of the system that are steps (the linker
 * puts __wrap_x where the broker calls x), then what instrumented code calls.
 */
#include "broker_steps.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wmissing-prototypes" /* nobody calls these by name */

/* --------------------------------------------------------------------- steps */

static struct steps *steps;
static bool armed;

#define RANGES 4096
static struct {
    uintptr_t from, to;
} shared[RANGES];
static unsigned ranges;

static bool is_shared(const volatile void *p) {
    uintptr_t at = (uintptr_t)p;
    for (unsigned i = 0; i < ranges; i++)
        if (at >= shared[i].from && at < shared[i].to) return true;
    return false;
}

static void step(const char *what) {
    if (!armed || atomic_load(&steps->off)) return;
    uint32_t deaths = atomic_load(&steps->deaths);
    uint64_t taken = atomic_fetch_add(&steps->taken, 1) + 1;
    if (deaths >= DEATHS || taken != steps->die_at[deaths]) return;
    snprintf(steps->what[deaths], sizeof steps->what[deaths], "%s", what);
    atomic_store(&steps->taken, 0);
    atomic_store(&steps->deaths, deaths + 1);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static inline void about_to_store(const volatile void *p) {
    if (is_shared(p)) step("a store");
}

static void arm(void) {
    armed = true;
    atomic_fetch_add(&steps->brokers, 1);
}

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("XI_STEPS");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        fprintf(stderr, "xi-broker-stepped: XI_STEPS names no file\n");
        exit(2);
    }
    steps = mmap(NULL, sizeof *steps, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (steps == MAP_FAILED) exit(2);
    if (!atomic_load(&steps->kept)) arm();
}

/* -------------------------------------------------------------- calls that are steps */

#define STEP_BEFORE(type, name, parameters, arguments)                                                                 \
    type __real_##name parameters;                                                                                     \
    type __wrap_##name parameters;                                                                                     \
    type __wrap_##name parameters {                                                                                    \
        step(#name);                                                                                                   \
        return __real_##name arguments;                                                                                \
    }
STEP_BEFORE(int, shm_open, (const char *name, int flags, mode_t mode), (name, flags, mode))
STEP_BEFORE(int, shm_unlink, (const char *name), (name))
STEP_BEFORE(int, memfd_create, (const char *name, unsigned flags), (name, flags))
STEP_BEFORE(int, unlink, (const char *name), (name))
STEP_BEFORE(int, ftruncate, (int fd, off_t size), (fd, size))
STEP_BEFORE(int, posix_fallocate, (int fd, off_t from, off_t size), (fd, from, size))
STEP_BEFORE(ssize_t, pwrite, (int fd, const void *bytes, size_t n, off_t at), (fd, bytes, n, at))
STEP_BEFORE(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags))
STEP_BEFORE(int, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
STEP_BEFORE(int, listen, (int fd, int n), (fd, n))
STEP_BEFORE(int, close, (int fd), (fd))
STEP_BEFORE(int, poll, (struct pollfd *p, nfds_t n, int timeout), (p, n, timeout))

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...) {
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(args, long); /* more than there are is harmless */
    va_end(args);
    step("a wake");
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

pid_t __real_fork(void);
pid_t __wrap_fork(void);
pid_t __wrap_fork(void) {
    pid_t pid = __real_fork();
    if (pid == 0 && atomic_load(&steps->kept)) arm();
    return pid;
}

void *__real_mmap(void *at, size_t size, int rights, int flags, int fd, off_t from);
void *__wrap_mmap(void *at, size_t size, int rights, int flags, int fd, off_t from);
void *__wrap_mmap(void *at, size_t size, int rights, int flags, int fd, off_t from) {
    void *p = __real_mmap(at, size, rights, flags, fd, from);
    if (p == MAP_FAILED || !(flags & MAP_SHARED)) return p;
    if (ranges == RANGES) abort();
    shared[ranges].from = (uintptr_t)p;
    shared[ranges++].to = (uintptr_t)p + size;
    return p;
}
int __real_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size) {
    uintptr_t from = (uintptr_t)at, to = from + size;
    for (unsigned i = ranges; i-- > 0;)
        if (shared[i].from >= from && shared[i].to <= to) shared[i] = shared[--ranges];
    return __real_munmap(at, size);
}

#define STEP_INTO(name, parameters, arguments)                                                                         \
    void *__real_##name parameters;                                                                                    \
    void *__wrap_##name parameters;                                                                                    \
    void *__wrap_##name parameters {                                                                                   \
        about_to_store(to);                                                                                            \
        return __real_##name arguments;                                                                                \
    }
STEP_INTO(memcpy, (void *to, const void *from, size_t n), (to, from, n))
STEP_INTO(memmove, (void *to, const void *from, size_t n), (to, from, n))
STEP_INTO(memset, (void *to, int byte, size_t n), (to, byte, n))

/* --------------------------------------------------------- what instrumented code calls */

void __tsan_init(void) {}
void __tsan_func_entry(void *caller) { (void)caller; }
void __tsan_func_exit(void) {}
void __tsan_read_range(void *p, size_t n) { (void)p, (void)n; }
void __tsan_write_range(void *p, size_t n) {
    (void)n;
    about_to_store(p);
}
void *__tsan_memcpy(void *to, const void *from, size_t n) { return __wrap_memcpy(to, from, n); }
void *__tsan_memmove(void *to, const void *from, size_t n) { return __wrap_memmove(to, from, n); }
void *__tsan_memset(void *to, int byte, size_t n) { return __wrap_memset(to, byte, n); }

#define PLAIN(n)                                                                                                       \
    void __tsan_read##n(void *p) { (void)p; }                                                                          \
    void __tsan_write##n(void *p) { about_to_store(p); }                                                               \
    void __tsan_unaligned_read##n(void *p) { (void)p; }                                                                \
    void __tsan_unaligned_write##n(void *p) { about_to_store(p); }                                                     \
    void __tsan_read_write##n(void *p) { about_to_store(p); }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

#define CHANGE(bits, name, builtin)                                                                                    \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t *p, uint##bits##_t v, int order) {             \
        (void)order;                                                                                                   \
        about_to_store(p);                                                                                             \
        return builtin(p, v, __ATOMIC_SEQ_CST);                                                                        \
    }
#define EXCHANGE_IF(bits, name)                                                                                        \
    int __tsan_atomic##bits##_compare_exchange_##name(volatile uint##bits##_t *p, uint##bits##_t *expected,            \
                                                      uint##bits##_t v, int order, int failed) {                       \
        (void)order, (void)failed;                                                                                     \
        about_to_store(p);                                                                                             \
        return __atomic_compare_exchange_n(p, expected, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                     \
    }
#define ATOMIC(bits)                                                                                                   \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *p, int order) {                           \
        (void)order;                                                                                                   \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                                   \
    }                                                                                                                  \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *p, uint##bits##_t v, int order) {                        \
        (void)order;                                                                                                   \
        about_to_store(p);                                                                                             \
        __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                                      \
    }                                                                                                                  \
    CHANGE(bits, exchange, __atomic_exchange_n)                                                                        \
    CHANGE(bits, fetch_add, __atomic_fetch_add)                                                                        \
    CHANGE(bits, fetch_sub, __atomic_fetch_sub)                                                                        \
    CHANGE(bits, fetch_and, __atomic_fetch_and)                                                                        \
    CHANGE(bits, fetch_or, __atomic_fetch_or)                                                                          \
    EXCHANGE_IF(bits, strong)                                                                                          \
    EXCHANGE_IF(bits, weak)                                                                                            \
    uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(volatile uint##bits##_t *p, uint##bits##_t expected,     \
                                                              uint##bits##_t v, int order, int failed) {               \
        (void)__tsan_atomic##bits##_compare_exchange_strong(p, &expected, v, order, failed);                           \
        return expected;                                                                                               \
    }
ATOMIC(8)
ATOMIC(16)
ATOMIC(32)
ATOMIC(64)
