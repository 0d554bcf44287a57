/* SPDX-License-Identifier: MIT */
/*
 * Waiting for the other side of a channel, and waking it.
 *
 * A waiter takes a doorbell of its interpreter and an entry of the channel's
 * table; the entry's number is its bit in the mask of its side. Parking:
 *
 *     bell.state = PARKED    mask |= bit    summary |= side    pass the lock    look again
 *
 * and waking:
 *
 *     publish, unlock        summary?       claim a bit        ring its bell
 *
 * so that either the waker sees the summary or the waiter sees the value: every
 * step of the waiter is a full barrier, and passing the other side's lock (see
 * lock.c) makes up for the waker's having none. The summary is cleared only after a mask was found
 * empty, and the mask is looked at once more after that.
 *
 * One ring is one value's. A waiter that goes without a value though its bit was
 * claimed passes the ring on; one that was woken and leaves values behind rings
 * the next.
 */
#include "channel.h"

/* ---------------------------------------------------------------- waking */

static struct xi_mask *mask_of(struct xi_chan *c, uint32_t side) {
    return side == XI_SIDE_PRODUCERS ? &c->parked_senders : &c->groups[side - 1].parked;
}

static bool mask_any(struct xi_mask *m) {
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++)
        if (xi_load_full(&m->word[i])) return true;
    return false;
}

/* Clears one set bit; only one waker gets each. */
static bool claim(struct xi_mask *m, uint32_t *number) {
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++) {
        uint64_t v = xi_load_full(&m->word[i]);
        while (v) {
            uint64_t bit = v & (0 - v), old = xi_and_full(&m->word[i], ~bit);
            if (old & bit) {
                *number = i * 64 + (uint32_t)__builtin_ctzll(bit);
                return true;
            }
            v = old & ~bit;
        }
    }
    return false;
}

/* An entry may have passed to another waiter since its bit was claimed: that one looks, and sleeps again. */
static void ring(struct xi_channel *ch, uint32_t number) {
    uint64_t w = xi_load_acquire(&ch->chan->waiters[number]);
    if (!w || XI_WAITER_BELL(w) >= XI_BELLS_USABLE) return;
    struct xi_map_entry *e;
    struct xi_mailbox *m = xi_mailbox_get(ch->interp, XI_WAITER_SLOT(w), &e);
    if (!m) return; /* it died; the broker takes its entry away */
    if (xi_bell_ring(&m->bells[XI_WAITER_BELL(w)])) {
        xi_add_relaxed(&ch->interp->own->counters.wakes, 1);
        xi_add_relaxed(&ch->chan->wakes, 1);
    }
    xi_mailbox_put(e);
}

/* Up to n; returns how many there were. */
static uint64_t ring_some(struct xi_channel *ch, struct xi_mask *m, uint64_t n) {
    uint64_t done = 0;
    uint32_t number;
    for (; done < n && claim(m, &number); done++) ring(ch, number);
    return done;
}

static void wake_group(struct xi_channel *ch, uint32_t g, uint64_t n) {
    struct xi_mask *m = &ch->chan->groups[g].parked;
    uint64_t bit = (uint64_t)1 << g;
    if (ring_some(ch, m, n) == n) return;
    (void)xi_and_full(&ch->chan->parked_groups, ~bit);
    if (!mask_any(m)) return;
    /* Somebody parked in between: the bit is theirs, and senders that saw it clear rang nobody. */
    (void)xi_or_full(&ch->chan->parked_groups, bit);
    (void)ring_some(ch, m, n);
}

void xi_wake_consumers_slow(struct xi_channel *ch, uint64_t n) {
    uint64_t groups = xi_load_full(&ch->chan->parked_groups);
    for (; groups; groups &= groups - 1) wake_group(ch, (uint32_t)__builtin_ctzll(groups), n);
}

void xi_wake_producers_slow(struct xi_channel *ch) {
    struct xi_mask *m = &ch->chan->parked_senders;
    if (ring_some(ch, m, 1) == 1) return;
    xi_store_full(&ch->chan->parked_producers, 0);
    if (!mask_any(m)) return;
    xi_store_full(&ch->chan->parked_producers, 1);
    (void)ring_some(ch, m, 1);
}

void xi_wake_everybody(struct xi_channel *ch) {
    (void)ring_some(ch, &ch->chan->parked_senders, UINT64_MAX);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) (void)ring_some(ch, &ch->chan->groups[g].parked, UINT64_MAX);
}

void xi_pass_on(struct xi_channel *ch, uint32_t side) {
    if (side == XI_SIDE_PRODUCERS) {
        if (xi_load_full(&ch->chan->parked_producers) && xi_log_has_room(ch, 8)) xi_wake_producers_slow(ch);
    } else if (xi_load_full(&ch->chan->parked_groups) >> (side - 1) & 1 && xi_log_has_value(ch)) {
        wake_group(ch, side - 1, 1);
    }
}

/* --------------------------------------------------------------- waiting */

struct wait {
    struct xi_channel *ch;
    struct xi_mask *mask;
    struct xi_bell *bell;
    uint32_t side, length, bell_index, number;
    int64_t deadline;
};

void xi_wait_enter(struct xi_channel *ch) {
    pthread_mutex_lock(&ch->interp->channels_mutex);
    atomic_fetch_add(&ch->interp->waiting, 1);
    atomic_fetch_add(&ch->waiting, 1);
    pthread_mutex_unlock(&ch->interp->channels_mutex);
}

void xi_wait_exit(struct xi_channel *ch) {
    struct xi_interp *me = ch->interp;
    pthread_mutex_lock(&me->channels_mutex);
    atomic_fetch_sub(&ch->waiting, 1);
    atomic_fetch_sub(&me->waiting, 1);
    /* Under the mutex: whoever waits for this may free the handle as soon as it has it. */
    pthread_cond_broadcast(&me->idle);
    pthread_mutex_unlock(&me->channels_mutex);
}

static bool ready(const struct wait *w) {
    return w->side == XI_SIDE_PRODUCERS ? xi_log_has_room(w->ch, w->length) : xi_log_has_value(w->ch);
}

/*
 * Spinning without treading on the other side's heels. Whoever polls the very
 * line that the other side is writing takes it away from it, once for every
 * value: both are then several times slower than if the one waited a little and
 * found several values, or room for several.
 *
 * A receiver that found a value at once after an empty channel has a stream
 * before it: next time it pauses before it looks. If there is a single value
 * then, it was no stream but an answer: it looks at once for some time to come.
 */
#define SOON 3            /* looks within which a value comes at once */
#define HOLD_BACK_FIRST 8
#define HOLD_BACK_MOST 64 /* pauses, of some 16 to 40 ns */
#define CALM 64           /* waits without holding back, after it was of no use */

static inline uint64_t header_at_head(const struct wait *w, uint64_t *head) {
    *head = xi_load_relaxed(&w->ch->group->head);
    return xi_load_acquire(xi_header_at(w->ch, *head));
}

static bool more_than_one(const struct wait *w) {
    uint64_t head, h = header_at_head(w, &head);
    return h && xi_load_relaxed(xi_header_at(w->ch, head + 8 + (XI_REC_LENGTH(h) & ~7u))) != 0;
}

static void learn(const struct wait *w, struct xi_spin *s, uint32_t held, uint64_t looks) {
    if (held && looks == 0) {
        bool stream = more_than_one(w);
        uint32_t longer = held * 2 < HOLD_BACK_MOST ? held * 2 : HOLD_BACK_MOST;
        xi_store_relaxed(&s->hold_back, stream ? longer : 0);
        if (!stream) xi_store_relaxed(&s->calm, CALM);
    } else if (looks >= SOON) {
        xi_store_relaxed(&s->hold_back, 0);
    } else if (xi_load_relaxed(&s->calm)) {
        xi_store_relaxed(&s->calm, xi_load_relaxed(&s->calm) - 1);
    } else {
        xi_store_relaxed(&s->hold_back, HOLD_BACK_FIRST);
    }
}

static bool over(const struct wait *w, int64_t *start, int64_t budget) {
    int64_t now = xi_now();
    if (*start == 0) *start = now;
    return now - *start >= budget || (w->deadline >= 0 && now >= w->deadline) ||
           atomic_load_explicit(&w->ch->freeing, memory_order_relaxed) ||
           atomic_load_explicit(&w->ch->interp->leaving, memory_order_relaxed);
}

static bool spin_for_value(const struct wait *w, struct xi_spin *s, int64_t budget) {
    uint32_t held = xi_load_relaxed(&s->hold_back);
    int64_t start = 0;
    uint64_t head;
    for (uint32_t i = 0; i < held; i++) xi_pause();
    for (uint64_t looks = 0;; looks++) {
        if (header_at_head(w, &head) != 0) {
            /* The value may go on in the next line: asked for now, it comes while the lock is taken (64 bytes there and back
             * between two cores: 1.9, so 1.7 times a bare line's). */
            __builtin_prefetch(w->ch->ring + (head & w->ch->mask) + XI_LINE, 0);
            learn(w, s, held, looks);
            return true;
        }
        xi_pause();
        if (looks % 32 == 31) {
            if (ready(w)) return true; /* closed */
            if (over(w, &start, budget)) return false;
        }
    }
}

/* A sender waits for an eighth of the ring, as long as that grows. */
static bool spin_for_room(const struct wait *w, int64_t budget) {
    uint64_t before = UINT64_MAX, head;
    uint32_t plenty = (uint32_t)(w->ch->capacity / 8);
    int64_t start = 0;
    for (;;) {
        if (xi_log_has_room(w->ch, plenty > w->length ? plenty : w->length)) return true;
        head = xi_log_smallest_head(w->ch);
        if (head == before && xi_log_has_room(w->ch, w->length)) return true;
        before = head;
        for (int i = 0; i < 16; i++) xi_pause();
        if (over(w, &start, budget)) return xi_log_has_room(w->ch, w->length);
    }
}

static bool spin(const struct wait *w, struct xi_spin *s) {
    int64_t budget = xi_spin_budget(s);
    if (budget == 0) return false;
    bool hit = w->side == XI_SIDE_PRODUCERS ? spin_for_room(w, budget) : spin_for_value(w, s, budget);
    xi_spin_result(s, hit);
    return hit;
}

static int take_entry(struct wait *w) {
    struct xi_chan *c = w->ch->chan;
    uint64_t mine = XI_WAITER(w->ch->interp->slot, w->bell_index, w->side);
    uint32_t start = (w->ch->interp->slot * 7 + w->bell_index) % XI_MAX_WAITERS;
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++) {
        uint32_t number = (start + i) % XI_MAX_WAITERS;
        uint64_t none = 0;
        if (xi_load_relaxed(&c->waiters[number]) == 0 && xi_cas64_full(&c->waiters[number], &none, mine)) {
            w->number = number;
            return 0;
        }
    }
    return xi_fail(XI_E_LIMIT, "%u threads wait on channel \"%s\" already; use several channels", XI_MAX_WAITERS, w->ch->name);
}

static uint32_t announce(const struct wait *w) {
    uint32_t seen = xi_bell_park(w->bell);
    (void)xi_or_full(&w->mask->word[w->number / 64], (uint64_t)1 << (w->number % 64));
    if (w->side == XI_SIDE_PRODUCERS)
        (void)xi_exchange_full(&w->ch->chan->parked_producers, 1);
    else
        (void)xi_or_full(&w->ch->chan->parked_groups, (uint64_t)1 << (w->side - 1));
    return seen;
}

/* True if the bit was still there: nobody claimed it. */
static bool withdraw(const struct wait *w) {
    uint64_t bit = (uint64_t)1 << (w->number % 64);
    return xi_and_full(&w->mask->word[w->number / 64], ~bit) & bit;
}

/* Names the bell that readers ring when a free function is due; several sleepers may: the last one is enough. */
static void offer_to_run_frees(const struct wait *w, bool on) {
    xi_a32 *word = &w->ch->interp->mailbox->reclaim_bell;
    uint32_t mine = w->bell_index + 1;
    if (on) {
        if (xi_load_relaxed(&w->ch->interp->frees.count)) (void)xi_exchange_full(word, mine);
    } else {
        (void)xi_cas32_full(word, &mine, 0);
    }
}

/* Why not to sleep: 0 nothing, 1 the side has something to do, negative the error. */
static int reason_to_go(const struct wait *w) {
    if (ready(w)) return 1;
    if (atomic_load(&w->ch->freeing))
        return xi_fail(XI_E_LEFT, "this handle of channel \"%s\" was closed meanwhile", w->ch->name);
    if (w->side != XI_SIDE_PRODUCERS && !(xi_load_full(&w->ch->chan->active) >> (w->side - 1) & 1))
        return xi_fail(XI_E_LEFT, "the group that this handle of channel \"%s\" receives for has ended", w->ch->name);
    int rc = xi_interp_stopped(w->ch->interp);
    if (rc) return rc;
    if (xi_free_due(w->ch->interp) && w->ch->interp->flags & XI_JOIN_MANUAL_FREE)
        return xi_fail(XI_E_INTR, "free functions are due: call xi_free_run() and wait again");
    return 0;
}

/* The locks under which the other side does what we wait for. */
static void pass_locks(const struct wait *w) {
    struct xi_chan *c = w->ch->chan;
    if (w->side != XI_SIDE_PRODUCERS) {
        xi_lock_pass(&c->lock);
        return;
    }
    for (uint64_t active = xi_load_full(&c->active); active; active &= active - 1)
        xi_lock_pass(&c->groups[__builtin_ctzll(active)].lock);
}

static int sleep_once(const struct wait *w) {
    struct xi_interp *me = w->ch->interp;
    uint32_t seen = announce(w);
    pass_locks(w);
    offer_to_run_frees(w, true);
    int rc = reason_to_go(w);
    if (rc == 0 && !atomic_load_explicit(&me->arena.debt, memory_order_relaxed)) {
        enum xi_wake_reason why = xi_sleep(&w->bell->bell, seen, w->deadline, atomic_load(&me->control.fd));
        if (why == XI_WAKE_TIME) rc = XI_E_TIMEOUT;
        if (why == XI_WAKE_SIGNAL) rc = XI_E_INTR;
        if (why == XI_WAKE_CONTROL || why == XI_WAKE_LOOK) xi_control_drain(me);
        if (why == XI_WAKE_LOOK) { /* idle: what readers gave back goes on to the system */
            xi_arena_reclaim(me, SIZE_MAX);
            xi_arena_trim(me, xi_now());
        }
        xi_store_relaxed(&me->own->counters.wait_backend, (uint32_t)xi_backend_used());
    }
    (void)xi_bell_unpark(w->bell);
    offer_to_run_frees(w, false);
    if (rc == XI_E_TIMEOUT || rc == XI_E_INTR) /* and yet: a value that came at the last moment is there to be taken */
        if (ready(w)) rc = 1;
    return rc;
}

static int park(struct wait *w) {
    int rc;
    xi_add_relaxed(&w->ch->interp->own->counters.parks, 1);
    do {
        rc = sleep_once(w);
        xi_free_poll(w->ch->interp);
    } while (rc == 0);
    return rc > 0 ? 0 : rc;
}

int xi_wait_side(struct xi_channel *ch, uint32_t side, uint32_t length, int64_t deadline) {
    struct wait w = {.ch = ch, .side = side, .length = length, .deadline = deadline, .mask = mask_of(ch->chan, side)};
    if (spin(&w, side == XI_SIDE_PRODUCERS ? &ch->send_spin : &ch->receive_spin)) {
        xi_bump(&ch->interp->own->counters.spins, 1); /* threads may lose one among them: it is an estimate */
        return 0;
    }
    if (deadline >= 0 && xi_now() >= deadline) return XI_E_TIMEOUT;
    int rc = xi_bell_take(&ch->interp->bells, &w.bell_index);
    if (rc) return rc;
    w.bell = &ch->interp->mailbox->bells[w.bell_index];
    xi_wait_enter(ch);
    rc = take_entry(&w);
    if (rc == 0) {
        rc = park(&w);
        bool claimed = !withdraw(&w);
        xi_store_full(&ch->chan->waiters[w.number], 0); /* after the bit, so that a bit always has an entry */
        if (rc && claimed) xi_pass_on(ch, side);
    }
    xi_bell_give(&ch->interp->bells, w.bell_index);
    xi_wait_exit(ch);
    return rc;
}
