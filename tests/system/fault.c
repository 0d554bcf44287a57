/* SPDX-License-Identifier: MIT */
/*
 * See fault.h. Each function that may fail has a double here, __wrap_NAME, to
 * which the linker directs the calls. It asks hit() whether this call is to fail,
 * and with what; if so it does nothing and says so as the original would.
 *
 * Memory is counted where it is given out and given back, so that a test knows
 * whether a failed call has kept some. Blocks that libc made and the library
 * frees, or the other way round, shift the count by the same each time.
 */
#include "fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const fault_call_names[CALLS] = {
    [CALL_NONE] = "nothing",       [CALL_MEMORY] = "malloc",       [CALL_MMAP] = "mmap",
    [CALL_MADVISE] = "madvise",    [CALL_FALLOCATE] = "posix_fallocate", [CALL_FTRUNCATE] = "ftruncate",
    [CALL_SHM_OPEN] = "shm_open",  [CALL_MEMFD] = "memfd_create",  [CALL_OPEN] = "open",
    [CALL_OPENDIR] = "opendir",    [CALL_FSTAT] = "fstat",         [CALL_PREAD] = "pread",
    [CALL_PWRITE] = "pwrite",      [CALL_FCNTL] = "fcntl",         [CALL_PIPE] = "pipe2",
    [CALL_SPAWN] = "posix_spawnp", [CALL_FORK] = "fork",           [CALL_THREAD] = "pthread_create",
    [CALL_KEY] = "pthread_key",    [CALL_ATFORK] = "pthread_atfork", [CALL_SOCKET] = "socket",
    [CALL_CONNECT] = "connect",    [CALL_BIND] = "bind",           [CALL_ACCEPT] = "accept4",
    [CALL_SEND] = "send",          [CALL_SENDMSG] = "sendmsg",     [CALL_RECVMSG] = "recvmsg",
    [CALL_SOCKOPT] = "getsockopt", [CALL_POLL] = "poll",           [CALL_EVENTFD] = "eventfd",
    [CALL_SIGNALFD] = "signalfd",  [CALL_PIDFD] = "pidfd_open",    [CALL_FUTEX_WAIT] = "futex",
    [CALL_MEMBARRIER] = "membarrier", [CALL_URING_SETUP] = "io_uring_setup", [CALL_URING_ENTER] = "io_uring_enter",
    [CALL_URING_REGISTER] = "io_uring_register"};

struct fault_page *fault_page;
static enum fault_role here = FAULT_LIBRARY;
static _Thread_local bool spared;

void fault_spare(bool spare) { spared = spare; }

/* A broker, started by the library or by a test, finds the page before main(). */
__attribute__((constructor)) static void find_page(void) {
    const char *path = getenv("XI_FAULT_PAGE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof *fault_page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED) return;
    here = FAULT_BROKER;
    atomic_store(&((struct fault_page *)page)->role[here].blocks, 0);
    atomic_store(&((struct fault_page *)page)->role[here].mapped, 0);
    fault_page = page;
}

void fault_init(void) {
    char path[256];
    const char *dir = getenv("XI_RUNTIME_DIR");
    snprintf(path, sizeof path, "%s/faults.page", dir ? dir : "/tmp");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *fault_page) != 0) abort();
    void *page = mmap(NULL, sizeof *fault_page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED || setenv("XI_FAULT_PAGE", path, 1) != 0) abort();
    close(fd);
    fault_page = page;
}

void fault_arm(enum fault_role role, enum fault_call call, int error, uint32_t from, bool for_good) {
    struct fault_orders *o = &fault_page->role[role];
    atomic_store(&o->seen, 0);
    atomic_store(&o->failed, 0);
    atomic_store(&o->error, (uint32_t)error);
    atomic_store(&o->from, from);
    atomic_store(&o->for_good, for_good);
    atomic_store(&o->call, call);
}

void fault_disarm(enum fault_role role) { atomic_store(&fault_page->role[role].call, CALL_NONE); }

void fault_count(enum fault_role role) {
    for (unsigned i = 0; i < CALLS; i++) atomic_store(&fault_page->role[role].calls[i], 0);
}

static void note_site(enum fault_call call, const void *at) {
    uint64_t site = (uint64_t)call << 48 | (((uint64_t)(uintptr_t)at - (uint64_t)(uintptr_t)&find_page) & 0xffffffffffff);
    for (uint64_t i = site * 0x9e3779b97f4a7c15ull >> 40, tries = 0; tries < FAULT_SITES; i++, tries++) {
        uint64_t old = 0;
        if (atomic_compare_exchange_strong(&fault_page->sites[i % FAULT_SITES], &old, site) || old == site) return;
    }
}

uint32_t fault_sites(void) {
    uint32_t n = 0;
    for (unsigned i = 0; i < FAULT_SITES; i++) n += atomic_load(&fault_page->sites[i]) != 0;
    return n;
}

/* 0, or the errno with which this call fails. */
static int hit(enum fault_call call, const void *at) {
    if (!fault_page || spared) return 0;
    struct fault_orders *o = &fault_page->role[here];
    atomic_fetch_add(&o->calls[call], 1);
    if (atomic_load(&o->call) != (uint32_t)call) return 0;
    uint32_t n = atomic_fetch_add(&o->seen, 1) + 1, from = atomic_load(&o->from);
    if (atomic_load(&o->for_good) ? n < from : n != from) return 0;
    atomic_fetch_add(&o->failed, 1);
    note_site(call, at);
    return (int)atomic_load(&o->error);
}
#define HIT(call) hit(call, __builtin_return_address(0))

static void count_blocks(int n) {
    if (fault_page && !spared) atomic_fetch_add(&fault_page->role[here].blocks, n);
}
static void count_mapped(int64_t n) {
    if (fault_page && !spared) atomic_fetch_add(&fault_page->role[here].mapped, n);
}

/* A double: `fail` is what it does instead, with the errno in `e`. */
#define DOUBLE(type, name, parameters, arguments, call, fail)                                                           \
    type __real_##name parameters;                                                                                     \
    type __wrap_##name parameters;                                                                                     \
    type __wrap_##name parameters {                                                                                    \
        int e = HIT(call);                                                                                             \
        if (e) fail;                                                                                                   \
        return __real_##name arguments;                                                                                \
    }
#define AS_ERRNO(value)                                                                                                \
    do {                                                                                                               \
        errno = e;                                                                                                     \
        return value;                                                                                                  \
    } while (0)

/* ---- memory */

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n) {
    int e = HIT(CALL_MEMORY);
    if (e) AS_ERRNO(NULL);
    void *p = __real_malloc(n);
    if (p) count_blocks(1);
    return p;
}
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size) {
    int e = HIT(CALL_MEMORY);
    if (e) AS_ERRNO(NULL);
    void *p = __real_calloc(n, size);
    if (p) count_blocks(1);
    return p;
}
void *__real_realloc(void *old, size_t n);
void *__wrap_realloc(void *old, size_t n);
void *__wrap_realloc(void *old, size_t n) {
    int e = HIT(CALL_MEMORY);
    if (e) AS_ERRNO(NULL);
    void *p = __real_realloc(old, n);
    if (p && !old) count_blocks(1);
    return p;
}
void *__real_reallocarray(void *old, size_t n, size_t size);
void *__wrap_reallocarray(void *old, size_t n, size_t size);
void *__wrap_reallocarray(void *old, size_t n, size_t size) {
    int e = HIT(CALL_MEMORY);
    if (e) AS_ERRNO(NULL);
    void *p = __real_reallocarray(old, n, size);
    if (p && !old) count_blocks(1);
    return p;
}
void __real_free(void *p);
void __wrap_free(void *p);
void __wrap_free(void *p) {
    if (p) count_blocks(-1);
    __real_free(p);
}

void *__real_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    int e = HIT(CALL_MMAP);
    if (e) AS_ERRNO(MAP_FAILED);
    void *p = __real_mmap(at, n, protection, flags, fd, offset);
    if (p != MAP_FAILED && !(flags & MAP_FIXED)) count_mapped((int64_t)n);
    return p;
}
int __real_munmap(void *at, size_t n);
int __wrap_munmap(void *at, size_t n);
int __wrap_munmap(void *at, size_t n) {
    count_mapped(-(int64_t)n);
    return __real_munmap(at, n);
}
DOUBLE(int, madvise, (void *at, size_t n, int advice), (at, n, advice), CALL_MADVISE, AS_ERRNO(-1))

/* ---- files */

DOUBLE(int, posix_fallocate, (int fd, off_t at, off_t n), (fd, at, n), CALL_FALLOCATE, return e)
DOUBLE(int, ftruncate, (int fd, off_t n), (fd, n), CALL_FTRUNCATE, AS_ERRNO(-1))
DOUBLE(int, shm_open, (const char *name, int flags, mode_t mode), (name, flags, mode), CALL_SHM_OPEN, AS_ERRNO(-1))
DOUBLE(int, memfd_create, (const char *name, unsigned flags), (name, flags), CALL_MEMFD, AS_ERRNO(-1))
DOUBLE(DIR *, opendir, (const char *path), (path), CALL_OPENDIR, AS_ERRNO(NULL))
DOUBLE(int, fstat, (int fd, struct stat *st), (fd, st), CALL_FSTAT, AS_ERRNO(-1))
DOUBLE(ssize_t, pread, (int fd, void *to, size_t n, off_t at), (fd, to, n, at), CALL_PREAD, AS_ERRNO(-1))
DOUBLE(ssize_t, pwrite, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at), CALL_PWRITE, AS_ERRNO(-1))
DOUBLE(int, pipe2, (int ends[2], int flags), (ends, flags), CALL_PIPE, AS_ERRNO(-1))

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    int e = HIT(CALL_OPEN);
    if (e) AS_ERRNO(-1);
    return __real_open(path, flags, mode);
}
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...) {
    va_list args;
    va_start(args, command);
    long argument = va_arg(args, long);
    va_end(args);
    int e = command == F_DUPFD_CLOEXEC || command == F_ADD_SEALS ? HIT(CALL_FCNTL) : 0;
    if (e) AS_ERRNO(-1);
    return __real_fcntl(fd, command, argument);
}

/* ---- processes and threads */

DOUBLE(int, posix_spawnp,
       (pid_t * pid, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attr,
        char *const argv[], char *const env[]),
       (pid, file, actions, attr, argv, env), CALL_SPAWN, return e)
DOUBLE(pid_t, fork, (void), (), CALL_FORK, AS_ERRNO(-1))
DOUBLE(int, pthread_create, (pthread_t * t, const pthread_attr_t *a, void *(*body)(void *), void *argument),
       (t, a, body, argument), CALL_THREAD, return e)
DOUBLE(int, pthread_key_create, (pthread_key_t * key, void (*end)(void *)), (key, end), CALL_KEY, return e)
DOUBLE(int, pthread_setspecific, (pthread_key_t key, const void *value), (key, value), CALL_KEY, return e)
DOUBLE(int, pthread_atfork, (void (*before)(void), void (*parent)(void), void (*child)(void)), (before, parent, child),
       CALL_ATFORK, return e)

/* ---- sockets and descriptors to wait for */

DOUBLE(int, socket, (int domain, int type, int protocol), (domain, type, protocol), CALL_SOCKET, AS_ERRNO(-1))
DOUBLE(int, socketpair, (int domain, int type, int protocol, int ends[2]), (domain, type, protocol, ends), CALL_SOCKET,
       AS_ERRNO(-1))
DOUBLE(int, connect, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), CALL_CONNECT, AS_ERRNO(-1))
DOUBLE(int, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), CALL_BIND, AS_ERRNO(-1))
DOUBLE(int, listen, (int fd, int n), (fd, n), CALL_BIND, AS_ERRNO(-1))
DOUBLE(int, accept4, (int fd, struct sockaddr *a, socklen_t *n, int flags), (fd, a, n, flags), CALL_ACCEPT, AS_ERRNO(-1))
/* EPIPE and ECONNRESET come of a peer that is gone: then it is. */
static void gone(int fd, int error) {
    if (error == EPIPE || error == ECONNRESET) (void)shutdown(fd, SHUT_RDWR);
}
DOUBLE(ssize_t, send, (int fd, const void *from, size_t n, int flags), (fd, from, n, flags), CALL_SEND, {
    gone(fd, e);
    AS_ERRNO(-1);
})
DOUBLE(ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags), CALL_SENDMSG, AS_ERRNO(-1))
DOUBLE(ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags), CALL_RECVMSG, {
    gone(fd, e);
    AS_ERRNO(-1);
})
DOUBLE(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *n), (fd, level, name, value, n),
       CALL_SOCKOPT, AS_ERRNO(-1))
DOUBLE(int, poll, (struct pollfd * p, nfds_t n, int timeout), (p, n, timeout), CALL_POLL, AS_ERRNO(-1))
DOUBLE(int, ppoll, (struct pollfd * p, nfds_t n, const struct timespec *t, const sigset_t *mask), (p, n, t, mask),
       CALL_POLL, AS_ERRNO(-1))
DOUBLE(int, eventfd, (unsigned value, int flags), (value, flags), CALL_EVENTFD, AS_ERRNO(-1))
DOUBLE(int, signalfd, (int fd, const sigset_t *mask, int flags), (fd, mask, flags), CALL_SIGNALFD, AS_ERRNO(-1))

/* What has no function of its own in libc. */
static enum fault_call call_of(long number, long operation) {
    if (number == SYS_pidfd_open) return CALL_PIDFD;
    if (number == SYS_membarrier) return CALL_MEMBARRIER;
    if (number != SYS_futex) return CALL_NONE;
    long what = operation & FUTEX_CMD_MASK; /* a wake of a word that is there does not fail */
    return what == FUTEX_WAIT || what == FUTEX_WAIT_BITSET ? CALL_FUTEX_WAIT : CALL_NONE;
}
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...) {
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(args, long);
    va_end(args);
    enum fault_call call = call_of(number, a[1]);
    int e = call ? HIT(call) : 0;
    if (e) AS_ERRNO(-1);
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- io_uring */

DOUBLE(int, io_uring_queue_init_params, (unsigned n, struct io_uring *r, struct io_uring_params *p), (n, r, p),
       CALL_URING_SETUP, return -e)
DOUBLE(int, io_uring_submit, (struct io_uring * r), (r), CALL_URING_ENTER, return -e)
DOUBLE(int, io_uring_submit_and_wait, (struct io_uring * r, unsigned n), (r, n), CALL_URING_ENTER, return -e)
DOUBLE(int, io_uring_get_events, (struct io_uring * r), (r), CALL_URING_ENTER, return -e)
DOUBLE(int, io_uring_register_eventfd, (struct io_uring * r, int fd), (r, fd), CALL_URING_REGISTER, return -e)
DOUBLE(int, io_uring_unregister_eventfd, (struct io_uring * r), (r), CALL_URING_REGISTER, return -e)
DOUBLE(struct io_uring_probe *, io_uring_get_probe_ring, (struct io_uring * r), (r), CALL_URING_REGISTER, AS_ERRNO(NULL))

DOUBLE(int, io_uring_submit_and_wait_timeout,
       (struct io_uring * r, struct io_uring_cqe **cqe, unsigned n, struct __kernel_timespec *t, sigset_t *mask),
       (r, cqe, n, t, mask), CALL_URING_ENTER, return -e)
