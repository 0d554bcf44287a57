/* SPDX-License-Identifier: MIT */
/*
 * Doorbells: one shared 32-bit word on which one thread sleeps, and which
 * anybody may ring. A thread takes one from its interpreter's mailbox for the
 * time of one wait, so two threads never sleep on the same word, and a wake
 * meant for one cannot be swallowed by another.
 */
#ifndef XI_WAIT_DOORBELL_H
#define XI_WAIT_DOORBELL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "../wire/layout.h"

struct xi_bells {
    pthread_mutex_t mutex;
    struct xi_bell *bell; /* in the mailbox */
    uint16_t *free;       /* stack */
    uint32_t free_count;
};

int xi_bells_init(struct xi_bells *b, struct xi_bell *bell);
void xi_bells_deinit(struct xi_bells *b);
/* XI_E_LIMIT when XI_BELLS_USABLE threads sleep already. */
int xi_bell_take(struct xi_bells *b, uint32_t *index);
void xi_bell_give(struct xi_bells *b, uint32_t index);
/* Announces that the owner is about to sleep; returns the value to sleep on. Pairs with xi_bell_ring's CAS. */
uint32_t xi_bell_park(struct xi_bell *bell);
/* Back to idle. True if somebody rang since xi_bell_park. */
bool xi_bell_unpark(struct xi_bell *bell);
/* Wakes its owner if it is parked and nobody has rung yet. True if this call did. */
bool xi_bell_ring(struct xi_bell *bell);
/* futex(2) on a shared word. wake returns how many; wait returns 0 or -errno; deadline CLOCK_MONOTONIC ns, -1 none. */
int xi_futex_wake(_Atomic uint32_t *word, int count);
int xi_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline);

#endif
