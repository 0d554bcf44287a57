/* SPDX-License-Identifier: MIT */
/*
 * How long to spin before sleeping. A sleep and a wake cost some 12 us, a value
 * that comes while spinning a fraction of one; but a spinning thread takes a
 * processor from whoever would send that value if there is none to spare.
 *
 * So: the budget is the whole limit after spinning paid, and half of what it was
 * after it did not. Two peers that have both fallen asleep would keep each other
 * so, since an answer then takes a wake to come: every sixteenth miss tries for
 * longer than any wake takes.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "../xidata.h"
#include "sleep.h"

#define SPIN_DEFAULT_NS 50000
#define SPIN_LEAST_NS 1000
#define TRIAL 6 /* 300 us; a wake took 12 us on one machine, 40 on another */

int64_t xi_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t xi_deadline(int64_t timeout) {
    if (timeout < 0) return -1;
    int64_t now = xi_now();
    return timeout > INT64_MAX - now ? INT64_MAX : now + timeout;
}

int64_t xi_left(int64_t deadline) {
    if (deadline < 0) return XI_FOREVER;
    int64_t left = deadline - xi_now();
    return left > 0 ? left : 1;
}

static bool one_cpu(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set) < 2;
    return sysconf(_SC_NPROCESSORS_ONLN) < 2;
}

void xi_spin_init(struct xi_spin *s, int64_t asked) {
    const char *us = getenv("XI_SPIN_US");
    if (us && us[0]) {
        double v = strtod(us, NULL);
        asked = v > 0 && v < 1e9 ? (int64_t)(v * 1000) : -1;
    }
    /* Asked for in so many words: the caller knows where its peers run. By default, not when this process has one CPU. */
    if (asked == 0) asked = one_cpu() ? -1 : SPIN_DEFAULT_NS;
    s->limit = asked < 0 ? 0 : asked;
    atomic_init(&s->budget, s->limit);
    atomic_init(&s->misses, 0);
    atomic_init(&s->hold_back, 0);
    atomic_init(&s->calm, 0);
}

int64_t xi_spin_budget(struct xi_spin *s) {
    if (s->limit == 0) return 0;
    if (atomic_load_explicit(&s->misses, memory_order_relaxed) % 16 == 15) return s->limit * TRIAL;
    return atomic_load_explicit(&s->budget, memory_order_relaxed);
}

void xi_spin_result(struct xi_spin *s, bool hit) {
    int64_t now = atomic_load_explicit(&s->budget, memory_order_relaxed);
    if (hit) {
        now = s->limit;
        atomic_store_explicit(&s->misses, 0, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(&s->misses, 1, memory_order_relaxed);
        now = now / 2 > SPIN_LEAST_NS ? now / 2 : SPIN_LEAST_NS;
        if (now > s->limit) now = s->limit;
    }
    atomic_store_explicit(&s->budget, now, memory_order_relaxed);
}
