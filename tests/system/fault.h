/* SPDX-License-Identifier: MIT */
/*
 * Faults on demand: calls into libc, liburing and the kernel that fail when a
 * test says so. The linker sends every such call of the library, or of the
 * broker, through fault.c (--wrap), which counts it, and fails it when its turn
 * has come. So nothing has to be changed in what is tested, and the error is
 * seen where the kernel's own would be.
 *
 * What is to fail is said in a page that processes share: a test arms it for
 * itself (FAULT_LIBRARY) or for the brokers of its world (FAULT_BROKER), which
 * find it by $XI_FAULT_PAGE. It also holds what is counted: calls of every
 * function, places from which they came, memory that is not given back.
 */
#ifndef XI_TEST_FAULT_H
#define XI_TEST_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Functions that can fail, and the counters of their calls. */
enum fault_call {
    CALL_NONE,
    CALL_MEMORY, /* malloc, calloc, realloc, reallocarray */
    CALL_MMAP,
    CALL_MADVISE,
    CALL_FALLOCATE, /* posix_fallocate */
    CALL_FTRUNCATE,
    CALL_SHM_OPEN,
    CALL_MEMFD,
    CALL_OPEN,
    CALL_OPENDIR,
    CALL_FSTAT,
    CALL_PREAD,
    CALL_PWRITE,
    CALL_FCNTL,
    CALL_PIPE,
    CALL_SPAWN,
    CALL_FORK,
    CALL_THREAD,
    CALL_KEY,
    CALL_ATFORK,
    CALL_SOCKET, /* socket, socketpair */
    CALL_CONNECT,
    CALL_BIND,
    CALL_ACCEPT,
    CALL_SEND,
    CALL_SENDMSG,
    CALL_RECVMSG,
    CALL_SOCKOPT,
    CALL_POLL,
    CALL_EVENTFD,
    CALL_SIGNALFD,
    CALL_PIDFD,
    CALL_FUTEX_WAIT,
    CALL_MEMBARRIER,
    CALL_URING_SETUP,
    CALL_URING_ENTER,
    CALL_URING_REGISTER,
    CALLS
};
extern const char *const fault_call_names[CALLS];

enum fault_role { FAULT_LIBRARY, FAULT_BROKER, FAULT_ROLES };

#define FAULT_SITES 512u
struct fault_page {
    struct fault_orders {
        _Atomic uint32_t call;       /* which function; CALL_NONE: nothing fails */
        _Atomic uint32_t error;      /* errno */
        _Atomic uint32_t from;       /* the how manieth call of it, 1 and up */
        _Atomic uint32_t for_good;   /* and all after it */
        _Atomic uint32_t seen, failed;
        _Atomic uint32_t calls[CALLS]; /* since fault_count() */
        _Atomic int64_t blocks, mapped; /* allocations, and bytes mapped, that were not given back */
    } role[FAULT_ROLES];
    _Atomic uint64_t sites[FAULT_SITES]; /* places where something was made to fail: call and address, a hash table */
};
extern struct fault_page *fault_page;

/* Makes the page, in $XI_RUNTIME_DIR, and names it in the environment for brokers. Of the process and its children. */
void fault_init(void);
void fault_arm(enum fault_role role, enum fault_call call, int error, uint32_t from, bool for_good);
void fault_disarm(enum fault_role role);
/* Counts calls from 0. */
void fault_count(enum fault_role role);
/* The calling thread is the test's own: nothing of it fails, or is counted. */
void fault_spare(bool spare);
uint32_t fault_sites(void);

#endif
