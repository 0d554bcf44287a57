/* SPDX-License-Identifier: MIT */
/*
 * What code compiled with -fsanitize=thread calls, answered by the explorer
 * instead of the thread sanitizer; and the system calls by which the library
 * orders, sleeps and wakes (the linker leads them here: --wrap).
 *
 * Accesses to words that are not watched are done as they are.
 */
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "explore.h"

/* ------------------------------------------------------------- not atomic */

static void each_word(const char *p, size_t n, void (*fn)(const volatile void *)) {
    uintptr_t at = (uintptr_t)p & ~(uintptr_t)3;
    for (; at < (uintptr_t)p + n; at += 4)
        if (explore_watched((const void *)at)) fn((const void *)at);
}

#define PLAIN(n)                                                                                                       \
    void __tsan_read##n(void *p);                                                                                      \
    void __tsan_write##n(void *p);                                                                                     \
    void __tsan_unaligned_read##n(void *p);                                                                            \
    void __tsan_unaligned_write##n(void *p);                                                                           \
    void __tsan_read##n(void *p) { each_word(p, n, explore_plain_read); }                                              \
    void __tsan_write##n(void *p) { each_word(p, n, explore_plain_write); }                                            \
    void __tsan_unaligned_read##n(void *p) { each_word(p, n, explore_plain_read); }                                    \
    void __tsan_unaligned_write##n(void *p) { each_word(p, n, explore_plain_write); }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

void __tsan_read_range(void *p, unsigned long n);
void __tsan_write_range(void *p, unsigned long n);
void __tsan_read_range(void *p, unsigned long n) { each_word(p, n, explore_plain_read); }
void __tsan_write_range(void *p, unsigned long n) { each_word(p, n, explore_plain_write); }

void __tsan_init(void);
void __tsan_func_entry(void *caller);
void __tsan_func_exit(void);
void __tsan_init(void) {}
void __tsan_func_entry(void *caller) { (void)caller; }
void __tsan_func_exit(void) {}

/* What the library says of rings' memory, which is not watched. */
void __tsan_acquire(void *p);
void __tsan_release(void *p);
void __tsan_acquire(void *p) { (void)p; }
void __tsan_release(void *p) { (void)p; }

/* ----------------------------------------------------------------- atomic */

static bool exchange(uint64_t old, uint64_t v, uint64_t e, uint64_t *new) { return (void)old, (void)e, *new = v, true; }
static bool add(uint64_t old, uint64_t v, uint64_t e, uint64_t *new) { return (void)e, *new = old + v, true; }
static bool sub(uint64_t old, uint64_t v, uint64_t e, uint64_t *new) { return (void)e, *new = old - v, true; }
static bool and(uint64_t old, uint64_t v, uint64_t e, uint64_t *new) { return (void)e, *new = old & v, true; }
static bool or(uint64_t old, uint64_t v, uint64_t e, uint64_t *new) { return (void)e, *new = old | v, true; }
static bool xor(uint64_t old, uint64_t v, uint64_t e, uint64_t *new) { return (void)e, *new = old ^ v, true; }
static bool swap(uint64_t old, uint64_t v, uint64_t e, uint64_t *new) { return *new = v, old == e; }

#define RMW(bits, type, name, fn)                                                                                      \
    type __tsan_atomic##bits##_##name(volatile type *p, type v, int order);                                            \
    type __tsan_atomic##bits##_##name(volatile type *p, type v, int order) {                                           \
        uint64_t new;                                                                                                  \
        if (explore_watched(p)) return (type)explore_rmw(p, fn, v, 0, order, order);                                   \
        type old = *p;                                                                                                 \
        (void)fn(old, v, 0, &new);                                                                                     \
        *p = (type)new;                                                                                                \
        return old;                                                                                                    \
    }

#define ATOMIC(bits, type)                                                                                             \
    type __tsan_atomic##bits##_load(const volatile type *p, int order);                                                \
    void __tsan_atomic##bits##_store(volatile type *p, type v, int order);                                             \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile type *p, type *e, type v, int order, int failed);       \
    int __tsan_atomic##bits##_compare_exchange_weak(volatile type *p, type *e, type v, int order, int failed);         \
    type __tsan_atomic##bits##_compare_exchange_val(volatile type *p, type e, type v, int order, int failed);          \
    type __tsan_atomic##bits##_load(const volatile type *p, int order) {                                               \
        return explore_watched(p) ? (type)explore_load(p, order) : *p;                                                 \
    }                                                                                                                  \
    void __tsan_atomic##bits##_store(volatile type *p, type v, int order) {                                            \
        if (explore_watched(p)) explore_store(p, v, order);                                                            \
        else *p = v;                                                                                                   \
    }                                                                                                                  \
    type __tsan_atomic##bits##_compare_exchange_val(volatile type *p, type e, type v, int order, int failed) {         \
        if (explore_watched(p)) return (type)explore_rmw(p, swap, v, e, order, failed);                                \
        type old = *p;                                                                                                 \
        if (old == e) *p = v;                                                                                          \
        return old;                                                                                                    \
    }                                                                                                                  \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile type *p, type *e, type v, int order, int failed) {      \
        type wanted = *e;                                                                                              \
        *e = __tsan_atomic##bits##_compare_exchange_val(p, wanted, v, order, failed);                                  \
        return *e == wanted;                                                                                           \
    }                                                                                                                  \
    int __tsan_atomic##bits##_compare_exchange_weak(volatile type *p, type *e, type v, int order, int failed) {        \
        return __tsan_atomic##bits##_compare_exchange_strong(p, e, v, order, failed);                                  \
    }                                                                                                                  \
    RMW(bits, type, exchange, exchange)                                                                                \
    RMW(bits, type, fetch_add, add)                                                                                    \
    RMW(bits, type, fetch_sub, sub)                                                                                    \
    RMW(bits, type, fetch_and, and)                                                                                    \
    RMW(bits, type, fetch_or, or)                                                                                      \
    RMW(bits, type, fetch_xor, xor)
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_signal_fence(int order) { (void)order; } /* for the compiler, which has done with it by now */
/* The library has none (wire/order.h): if it gets some, the linker says that this is missing. */

/* ----------------------------------------------------------- system calls */

extern bool explore_has_membarrier; /* of the shape */
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

static long futex(va_list list) {
    const volatile void *word = va_arg(list, const volatile void *);
    int op = va_arg(list, int);
    uint32_t value = va_arg(list, uint32_t);
    if (op == FUTEX_WAKE) {
        if (explore_watched(word)) explore_wake(word);
        return 0;
    }
    if (op != FUTEX_WAIT_BITSET) explore_fail("an operation of futex(2) that is not known here");
    if (explore_sleep(word, value)) return 0;
    errno = EAGAIN;
    return -1;
}

long __wrap_syscall(long number, ...) {
    va_list list;
    long result = -1;
    va_start(list, number);
    if (number == SYS_futex) {
        result = futex(list);
    } else if (number == SYS_membarrier && explore_has_membarrier) {
        if (va_arg(list, int) == MEMBARRIER_CMD_GLOBAL_EXPEDITED) explore_barrier_everywhere();
        result = 0;
    } else {
        errno = ENOSYS;
    }
    va_end(list);
    return result;
}
