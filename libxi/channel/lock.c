/* SPDX-License-Identifier: MIT */
/*
 * The slow path of the channel's locks. They are held for some tens of
 * nanoseconds, so a lock that stays taken means that its holder was preempted,
 * stopped or killed: spin a little, yield to it, then sleep on the word itself.
 *
 * Several may sleep on one word, so unlocking wakes them all: a wake meant for
 * one could be swallowed by one that is stopped or dying. Against a holder that
 * was killed between unlocking and waking, sleepers look again once a second,
 * and repair wakes all lock words.
 */
#include <errno.h>
#include <limits.h>
#include <sched.h>

#include "channel.h"

#define SPINS 200
#define YIELDS 20

void xi_unlock_wake(xi_a32 *lock) { (void)xi_futex_wake(lock, INT_MAX); }

static bool try_lock(struct xi_channel *ch, xi_a32 *lock) {
    uint32_t free_ = 0;
    return xi_load_relaxed(lock) == 0 && xi_cas32_full(lock, &free_, ch->lock_word);
}

/* A word that names no living interpreter, twice a second apart, is no lock: somebody wrote there. */
static bool names_nobody(struct xi_channel *ch, uint32_t word) {
    uint32_t slot = XI_LOCK_SLOT(word & ~XI_LOCK_WAITERS);
    if (slot == 0) return false; /* the broker, repairing */
    if (slot >= XI_MAX_INTERPS) return true;
    struct xi_slot *s = (struct xi_slot *)(uintptr_t)&ch->interp->registry->slots[slot];
    return xi_load_acquire(&s->state) == XI_SLOT_FREE;
}

static int sleep_on(struct xi_channel *ch, xi_a32 *lock, uint32_t seen, int64_t deadline, uint32_t *suspect) {
    int64_t now = xi_now();
    if (deadline >= 0 && now >= deadline)
        return xi_fail(XI_E_TIMEOUT, "channel \"%s\" was locked by interpreter slot %u all the time", ch->name,
                       XI_LOCK_SLOT(seen));
    int64_t until = deadline >= 0 && deadline < now + XI_LOOK_NS ? deadline : now + XI_LOOK_NS;
    int rc = xi_futex_wait(lock, seen, until);
    if (rc == -EINTR) return xi_fail(XI_E_INTR, "interrupted by a signal");
    if (rc != -ETIMEDOUT) return 0;
    if (atomic_load(&ch->interp->leaving) || atomic_load(&ch->freeing))
        return xi_fail(XI_E_LEFT, "this handle of channel \"%s\" was closed", ch->name);
    if (!names_nobody(ch, seen)) {
        *suspect = 0;
        return 0;
    }
    if (*suspect == seen)
        return xi_fail(XI_E_CORRUPT, "a lock of channel \"%s\" names no living interpreter: some member overwrote it; close "
                       "the channel and use another", ch->name);
    *suspect = seen;
    return 0;
}

int xi_lock_slow(struct xi_channel *ch, xi_a32 *lock, int64_t deadline) {
    uint32_t suspect = 0;
    for (int i = 0; i < SPINS; i++) {
        if (try_lock(ch, lock)) return 0;
        xi_pause();
    }
    for (int i = 0; i < YIELDS; i++) {
        if (try_lock(ch, lock)) return 0;
        sched_yield();
    }
    xi_wait_enter(ch);
    int rc = 0;
    while (rc == 0) {
        uint32_t seen = xi_load_relaxed(lock);
        if (seen == 0) {
            if (try_lock(ch, lock)) break;
            continue;
        }
        /* The unlocker sees the flag and wakes; CAS, so that it is never set on a free lock. */
        if (!(seen & XI_LOCK_WAITERS) && !xi_cas32_full(lock, &seen, seen | XI_LOCK_WAITERS)) continue;
        rc = sleep_on(ch, lock, seen | XI_LOCK_WAITERS, deadline, &suspect);
    }
    xi_wait_exit(ch);
    return rc;
}
