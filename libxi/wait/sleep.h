/* SPDX-License-Identifier: MIT */
/*
 * Spinning and sleeping. Knows words and descriptors, not channels.
 *
 * A thread sleeps in an io_uring of its own, made on first need, that holds a
 * FUTEX_WAIT on its doorbell and a poll of the control socket; the deadline goes
 * with io_uring_enter. Where io_uring or its futex operation is not to be had,
 * it sleeps in futex(2). Which is found once per process by trying.
 */
#ifndef XI_WAIT_SLEEP_H
#define XI_WAIT_SLEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../wire/layout.h"

enum xi_wake_reason {
    XI_WAKE_BELL = 0,    /* the word changed (or may have) */
    XI_WAKE_TIME = 1,    /* the deadline passed */
    XI_WAKE_SIGNAL = 2,  /* a signal handler ran */
    XI_WAKE_CONTROL = 3, /* the control socket is readable or gone */
    XI_WAKE_LOOK = 4     /* a second has passed: look again (against a waker that was stopped with the ring in its hand) */
};

#define XI_LOOK_NS 1000000000ll

int64_t xi_now(void); /* CLOCK_MONOTONIC, ns */
pid_t xi_process(void); /* getpid(), most times without a system call */
/* Absolute deadline of a timeout in ns: XI_FOREVER (-1) stays -1. */
int64_t xi_deadline(int64_t timeout);
/* And back: what is left of it, 1 ns at least; -1 for none. */
int64_t xi_left(int64_t deadline);

/*
 * Sleeps while *word == seen. control: a descriptor to watch, or -1; in futex(2) it is looked at once a second. The kernel
 * may hold this thread's wait on the word until xi_sleep_over(), which comes before anybody else may sleep on it and before
 * it is unmapped.
 */
enum xi_wake_reason xi_sleep(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, int control);
void xi_sleep_over(void);

enum xi_backend { XI_BACKEND_NONE = 0, XI_BACKEND_URING = 1, XI_BACKEND_FUTEX = 2 };
/* What this process uses; `reason` (may be NULL) why it is not io_uring. */
enum xi_backend xi_backend(const char **reason);
/* What the calling thread's latest sleep used: a thread whose ring cannot be made falls back by itself. */
enum xi_backend xi_backend_used(void);

/* Adaptive spinning for one side of one handle. */
struct xi_spin {
    int64_t limit;   /* ns: longest */
    _Atomic int64_t budget;  /* ns: now */
    _Atomic uint32_t misses;
    /* Against following a peer too closely (see park.c): pauses before the first look, and waits until that is tried. */
    _Atomic uint32_t hold_back, calm;
};
/* `asked`: 0 default, negative none. */
void xi_spin_init(struct xi_spin *s, int64_t asked);
/* How long to spin now; 0: do not. */
int64_t xi_spin_budget(struct xi_spin *s);
void xi_spin_result(struct xi_spin *s, bool hit);

#endif
