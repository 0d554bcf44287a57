/* SPDX-License-Identifier: MIT */
/*
 * The channel's locks: what is not in channel.h.
 *
 * Freeing a lock is a plain store. A full barrier there, between publishing and
 * looking for sleepers, would make every send wait until its stores have left
 * the store buffer: measured, 30 instead of 48 million values a second. So those
 * who sleep pay instead. They announce themselves and then look at the lock:
 *
 *   free      Whoever freed it last has published before that, and we see it.
 *             Whoever takes it next does so by a sequentially consistent
 *             compare-and-swap after our look, so after our announcement too, and
 *             sees the announcement when it looks for sleepers.
 *   held      Its holder may have looked already, ahead of its own stores: it is
 *             waited for, for the tens of nanoseconds that it takes. If it is
 *             stopped or preempted that was its barrier; one that runs all the
 *             time is made to pass a barrier by membarrier(2).
 *
 * A lock that stays taken means that its holder was preempted, stopped or
 * killed: spin a little, yield to it, then sleep on the word beside it. Several
 * may sleep there, so all are woken: a wake meant for one could be swallowed by
 * one that is stopped or dying. Against a holder that was killed between freeing
 * and waking, sleepers look again once a second, and repair wakes them.
 */
#include <errno.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "channel.h"

#ifndef SPINS /* tests/model explores fewer */
#define SPINS 200
#define YIELDS 20
#endif
#define NO_MEMBARRIER_LOOK_NS 2000000ll
/* How soon who waits looks whether there is a broker, which repairs the locks of the dead: soon, then less and less often. */
#define BROKER_LOOK_NS 1000000ll
#define BROKER_LOOK_MOST_NS 8000000ll

static _Atomic int membarrier_works = -1; /* -1: not tried yet */
_Atomic bool xi_lock_fenced;

bool xi_lock_prepare(void) {
    int known = atomic_load_explicit(&membarrier_works, memory_order_relaxed);
    if (known >= 0) return known;
    bool works = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
    xi_store_relaxed(&xi_lock_fenced, !works);
    atomic_store_explicit(&membarrier_works, works, memory_order_relaxed);
    return works;
}

static bool barrier_everywhere(void) {
    return xi_lock_prepare() && syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}

void xi_lock_pass(xi_a32 *lock) {
    for (int i = 0; i < SPINS; i++) {
        if (xi_load_full(lock) == 0) return;
        xi_pause();
    }
    if (barrier_everywhere()) return;
    /* No membarrier here: what does not run has passed a barrier when it stopped, so give others the processor. */
    for (int i = 0; i < YIELDS && xi_load_full(lock) != 0; i++) sched_yield();
}

void xi_unlock_wake(xi_a32 *lock_sleep) {
    uint32_t seen = xi_load_relaxed(lock_sleep);
    for (int tries = 0; tries < 1000 && seen & 1; tries++) /* each lost to another who wakes or sleeps, or writes what it likes */
        if (xi_cas32_full(lock_sleep, &seen, seen + 1)) {
            (void)xi_futex_wake(lock_sleep, INT_MAX);
            return;
        }
}

static bool try_lock(struct xi_channel *ch, xi_a32 *lock) {
    uint32_t free_ = 0;
    return xi_load_relaxed(lock) == 0 && xi_cas32_full(lock, &free_, ch->lock_word);
}

/* A word that names no living interpreter, for a second, is no lock: somebody wrote there. */
static bool names_nobody(struct xi_channel *ch, uint32_t word) {
    uint32_t slot = XI_LOCK_SLOT(word);
    if (slot >= XI_MAX_INTERPS) return true;
    struct xi_slot *s = (struct xi_slot *)(uintptr_t)&ch->interp->registry->slots[slot];
    return slot != 0 && xi_load_acquire(&s->state) == XI_SLOT_FREE;
}

struct suspicion {
    uint32_t word;
    int64_t since;
    int64_t look; /* until it is looked again */
};

/* After a look that found the lock still taken. */
static int judge(struct xi_channel *ch, uint32_t word, int64_t now, struct suspicion *s) {
    if (atomic_load(&ch->interp->leaving) || (atomic_load(&ch->freeing) && !atomic_load(&ch->alone)))
        return xi_fail(XI_E_LEFT, "this handle of channel \"%s\" was closed", ch->name);
    bool broker = word == XI_LOCK_OF(0); /* holds a lock for microseconds, repairing */
    if (word == 0 || !(broker || names_nobody(ch, word))) {
        s->word = 0;
        return 0;
    }
    if (s->word != word) {
        s->word = word;
        s->since = now;
    }
    if (now - s->since < (broker ? 5 : 1) * XI_LOOK_NS) return 0;
    return xi_fail(XI_E_CORRUPT, "a lock of channel \"%s\" names no living interpreter: some member overwrote it; close "
                   "the channel and use another", ch->name);
}

static int sleep_for(struct xi_channel *ch, xi_a32 *lock, xi_a32 *lock_sleep, int64_t deadline, struct suspicion *s) {
    uint32_t seen = xi_load_full(lock_sleep);
    int64_t now = xi_now(), look = s->look;
    if (deadline >= 0 && now >= deadline) return XI_E_TIMEOUT;
    if (!(seen & 1) && !xi_cas32_full(lock_sleep, &seen, seen + 1)) return 0;
    seen |= 1;
    if (!barrier_everywhere() && look > NO_MEMBARRIER_LOOK_NS) look = NO_MEMBARRIER_LOOK_NS;
    if (xi_load_full(lock) == 0) return 0;
    int rc = xi_futex_wait(lock_sleep, seen, deadline >= 0 && deadline < now + look ? deadline : now + look);
    if (rc == -EINTR) return xi_fail(XI_E_INTR, "interrupted by a signal");
    if (rc != -ETIMEDOUT) return 0;
    if (s->look < BROKER_LOOK_MOST_NS) s->look *= 2;
    xi_control_drain(ch->interp); /* if all wait for locks, nobody else notices that the broker has died too */
    return judge(ch, xi_load_relaxed(lock), xi_now(), s);
}

int xi_lock_slow(struct xi_channel *ch, xi_a32 *lock, xi_a32 *lock_sleep, int64_t timeout) {
    struct suspicion suspicion = {0, 0, BROKER_LOOK_NS};
    for (int i = 0; i < SPINS; i++) {
        if (try_lock(ch, lock)) return 0;
        xi_pause();
    }
    for (int i = 0; i < YIELDS; i++) {
        if (try_lock(ch, lock)) return 0;
        sched_yield();
    }
    xi_wait_enter(ch);
    int64_t deadline = xi_deadline(timeout == XI_TRY ? XI_LOCK_PATIENCE_NS : timeout);
    int rc = 0;
    while (rc == 0 && !try_lock(ch, lock)) rc = sleep_for(ch, lock, lock_sleep, deadline, &suspicion);
    xi_wait_exit(ch);
    if (rc != XI_E_TIMEOUT) return rc;
    return xi_fail(timeout == XI_TRY ? XI_E_AGAIN : rc, "channel \"%s\" was locked by the interpreter in slot %u all the "
                   "time: is it stopped?", ch->name, XI_LOCK_SLOT(xi_load_relaxed(lock)));
}
