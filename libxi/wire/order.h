/* SPDX-License-Identifier: MIT */
/*
 * Memory order, in one place. Every use says what it pairs with.
 *
 * tests/model/test_order.c runs the users of these under all that C11 allows, and makes each order weaker in turn: what it
 * calls spare is ordered by something else there.
 *
 * There are no stand-alone fences: where a full barrier is needed it is a
 * sequentially consistent read-modify-write that is there anyway (taking a lock,
 * setting a mask bit), which thread sanitizers understand too.
 */
#ifndef XI_WIRE_ORDER_H
#define XI_WIRE_ORDER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* For tests: somebody may write to the word at this very moment (tests/system/test_hostile_between.c). */
#ifdef XI_LOAD_HOOK
void xi_before_load(const volatile void *p);
#else
#define xi_before_load(p) ((void)0)
#endif

/* Statistics, hints, words with one writer read by that writer. */
#define xi_load_relaxed(p) (xi_before_load(p), atomic_load_explicit((p), memory_order_relaxed))
#define xi_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
/* Publish / subscribe. */
#define xi_load_acquire(p) (xi_before_load(p), atomic_load_explicit((p), memory_order_acquire))
#define xi_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
/* Full barriers. */
#define xi_load_full(p) (xi_before_load(p), atomic_load_explicit((p), memory_order_seq_cst))
#define xi_store_full(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define xi_exchange_full(p, v) (xi_before_load(p), atomic_exchange_explicit((p), (v), memory_order_seq_cst))
#define xi_or_full(p, v) (xi_before_load(p), atomic_fetch_or_explicit((p), (v), memory_order_seq_cst))
#define xi_and_full(p, v) (xi_before_load(p), atomic_fetch_and_explicit((p), (v), memory_order_seq_cst))
#define xi_add_full(p, v) (xi_before_load(p), atomic_fetch_add_explicit((p), (v), memory_order_seq_cst))
#define xi_add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)

static inline bool xi_cas32_full(_Atomic uint32_t *p, uint32_t *expected, uint32_t desired) {
    xi_before_load(p);
    return atomic_compare_exchange_strong_explicit(p, expected, desired, memory_order_seq_cst, memory_order_seq_cst);
}
static inline bool xi_cas64_full(_Atomic uint64_t *p, uint64_t *expected, uint64_t desired) {
    xi_before_load(p);
    return atomic_compare_exchange_strong_explicit(p, expected, desired, memory_order_seq_cst, memory_order_seq_cst);
}
/* A counter with one writer at a time: a plain add, visible to readers without tearing. */
static inline void xi_bump(_Atomic uint64_t *p, uint64_t n) { xi_store_relaxed(p, xi_load_relaxed(p) + n); }

/* Asks for a line in order to write it, before it is needed. (The compiler's own makes it a prefetch for reading unless
 * told of the processor; the instruction is a no-op on x86-64 processors that do not know it.) */
static inline void xi_prefetch_write(const void *p) {
#if defined(__x86_64__)
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
#else
    __builtin_prefetch(p, 1);
#endif
}

static inline void xi_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
