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

/* Clears one of the word's `wanted` bits that is set; only one waker gets each. */
static bool claim_in(struct xi_mask *m, uint32_t i, uint64_t wanted, uint32_t *number) {
    uint64_t v = xi_load_full(&m->word[i]) & wanted;
    while (v) {
        uint64_t bit = v & (0 - v), old = xi_and_full(&m->word[i], ~bit);
        if (old & bit) {
            *number = i * 64 + (uint32_t)__builtin_ctzll(bit);
            return true;
        }
        v &= old & ~bit; /* never more than at first: those that come now look for themselves */
    }
    return false;
}

/* The first from `from` on, all the way round. */
static bool claim(struct xi_mask *m, uint32_t from, uint32_t *number) {
    uint32_t first = from / 64 % XI_MASK_WORDS;
    uint64_t later = ~(uint64_t)0 << (from % 64);
    if (claim_in(m, first, later, number)) return true;
    for (uint32_t i = 1; i < XI_MASK_WORDS; i++)
        if (claim_in(m, (first + i) % XI_MASK_WORDS, ~(uint64_t)0, number)) return true;
    return claim_in(m, first, ~later, number);
}

/* Marks a member of a set in its mailbox, in the order that wire/layout.h gives: the bell comes after. */
static void mark_ready(struct xi_mailbox *m, uint32_t member) {
    if (member >= XI_MAX_MEMBERS) return;
    (void)xi_or_full(&m->ready[member / 64], (uint64_t)1 << (member % 64));
    (void)xi_or_full(&m->ready_words[member / 64 / 64], (uint64_t)1 << (member / 64 % 64));
}

/*
 * An entry may have passed to another waiter since its bit was claimed: that one looks, and sleeps again. False if it
 * was a member of a set, which need not receive: somebody else is to be told as well.
 */
static bool ring(struct xi_channel *ch, uint32_t number) {
    uint64_t w = xi_load_acquire(&ch->chan->waiters[number]);
    uint32_t member = XI_WAITER_MEMBER(w);
    if (!w || XI_WAITER_BELL(w) >= XI_BELLS_USABLE) return true;
    struct xi_map_entry *e;
    struct xi_mailbox *m = xi_mailbox_get(ch->interp, XI_WAITER_SLOT(w), &e);
    if (!m) return member == 0; /* it died; the broker takes its entry away */
    if (member) mark_ready(m, member - 1);
    if (xi_bell_ring(&m->bells[XI_WAITER_BELL(w)])) {
        xi_add_relaxed(&ch->interp->own->counters.wakes, 1);
        xi_add_relaxed(&ch->chan->wakes, 1);
    }
    xi_mailbox_put(e);
    return member == 0;
}

/*
 * Up to n threads, and the members of sets that come before them; returns how many threads there were. Bits may come
 * back meanwhile: not more are claimed than a mask has. Consumers are rung from the lowest number on: who received last
 * has warm caches, and who is rung takes its value. Senders in turn: on a channel that is always full those with low
 * numbers would be back before the others are ever rung.
 */
static uint64_t ring_some(struct xi_channel *ch, struct xi_mask *m, uint64_t n) {
    bool senders = m == &ch->chan->parked_senders;
    uint64_t done = 0;
    uint32_t number = 0, from = senders ? xi_load_relaxed(&ch->sender_to_ring) : 0;
    for (uint32_t claims = 0; claims < XI_MAX_WAITERS && done < n && claim(m, from, &number); claims++) {
        if (senders) xi_store_relaxed(&ch->sender_to_ring, from = (number + 1) % XI_MAX_WAITERS);
        done += ring(ch, number);
    }
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

void xi_wake_group(struct xi_channel *ch, uint32_t g) { (void)ring_some(ch, &ch->chan->groups[g].parked, UINT64_MAX); }

void xi_wake_one(struct xi_channel *ch) {
    if (xi_load_full(&ch->chan->parked_groups) >> ch->group_index & 1) wake_group(ch, ch->group_index, 1);
}

void xi_pass_on(struct xi_channel *ch, uint32_t side) {
    if (side == XI_SIDE_PRODUCERS) {
        if (xi_load_full(&ch->chan->parked_producers) && xi_log_has_room_for(ch, &(struct xi_want){.length = 8}))
            xi_wake_producers_slow(ch);
    } else if (xi_load_full(&ch->chan->parked_groups) >> (side - 1) & 1 && xi_log_has_value(ch)) {
        wake_group(ch, side - 1, 1);
    }
}

/* --------------------------------------------------------------- waiting */

struct wait {
    struct xi_channel *ch;
    struct xi_bell *bell;
    uint32_t side, bell_index, number;
    const struct xi_want *want; /* of a producer */
    int64_t deadline;
    const struct xi_also *also;
    bool *in; /* see xi_wait_side() */
};

void xi_interp_wait_enter(struct xi_interp *me) {
    pthread_mutex_lock(&me->channels_mutex);
    atomic_fetch_add(&me->waiting, 1);
    pthread_mutex_unlock(&me->channels_mutex);
}

void xi_interp_wait_exit(struct xi_interp *me) {
    pthread_mutex_lock(&me->channels_mutex);
    atomic_fetch_sub(&me->waiting, 1);
    /* Under the mutex: whoever waits for this may free everything as soon as it has it. */
    pthread_cond_broadcast(&me->idle);
    pthread_mutex_unlock(&me->channels_mutex);
}

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
    pthread_cond_broadcast(&me->idle);
    pthread_mutex_unlock(&me->channels_mutex);
}

/* From now on who frees the handle, or leaves, waits for this call. */
static void stay(const struct wait *w) {
    if (*w->in) return;
    *w->in = true;
    xi_wait_enter(w->ch);
}

static bool ready(const struct wait *w) {
    if (w->also && w->also->ready(w->also->context)) return true;
    return w->side == XI_SIDE_PRODUCERS ? xi_log_has_room_for(w->ch, w->want) : xi_log_has_value(w->ch);
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

/* True if there is something at the head, as far as can be seen without the lock. */
static inline bool value_at_head(const struct wait *w) {
    struct xi_channel *ch = w->ch;
    bool home = xi_load_acquire(&ch->chan->ring) == 0;
    uint64_t head = xi_load_relaxed(&ch->group->head);
    if (__builtin_expect(home, 1)) return xi_load_acquire(xi_look_at(ch, head)) != 0;
    return xi_log_tail_beyond(ch, head);
}

static bool more_than_one(const struct wait *w) {
    struct xi_channel *ch = w->ch;
    uint64_t head = xi_load_relaxed(&ch->group->head), h = xi_load_acquire(xi_look_at(ch, head));
    return h && xi_load_relaxed(xi_look_at(ch, head + 8 + (XI_REC_LENGTH(h) & ~7u))) != 0;
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

#define SHORT_NS 5000 /* a wait that nobody can have seen: not worth two locks of a mutex */

static bool over(const struct wait *w, int64_t *start, int64_t budget) {
    int64_t now = xi_now();
    if (*start == 0) *start = now;
    if (now - *start >= SHORT_NS) stay(w);
    return now - *start >= budget || (w->deadline >= 0 && now >= w->deadline) ||
           atomic_load_explicit(&w->ch->freeing, memory_order_relaxed) ||
           atomic_load_explicit(&w->ch->interp->leaving, memory_order_relaxed);
}

/* The value may go on in the next line: asked for now, it comes while the lock is taken (64 bytes there and back between two
 * cores: 1.9, so 1.7 times a bare line's). */
static inline void ask_for_second_line(const struct wait *w) {
    const struct xi_view *home = &w->ch->home;
    __builtin_prefetch(home->ring + (xi_load_relaxed(&w->ch->group->head) & home->mask) + XI_LINE, 0);
}

static bool spin_for_value(const struct wait *w, struct xi_spin *s, int64_t budget) {
    uint32_t held = xi_load_relaxed(&s->hold_back);
    int64_t start = 0;
    for (uint32_t i = 0; i < held; i++) xi_pause();
    for (uint64_t looks = 0;; looks++) {
        if (value_at_head(w)) {
            ask_for_second_line(w);
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
    struct xi_want plenty = *w->want;
    int64_t start = 0;
    if (plenty.length < w->ch->home.capacity / 8) plenty.length = w->ch->home.capacity / 8;
    for (;;) {
        if (xi_log_has_room_for(w->ch, &plenty)) return true;
        head = xi_log_smallest_head(w->ch, xi_real_groups(w->ch, xi_load_relaxed(&w->ch->chan->active)));
        if (head == before && xi_log_has_room_for(w->ch, w->want)) return true;
        before = head;
        for (int i = 0; i < 16; i++) xi_pause();
        if (over(w, &start, budget)) return ready(w);
    }
}

/* In a group that acknowledges: for something new, or something that comes back. */
static bool spin_for_delivery(const struct wait *w, int64_t budget) {
    int64_t start = 0;
    while (!ready(w)) {
        if (over(w, &start, budget)) return false;
        for (int i = 0; i < 16; i++) xi_pause();
    }
    return true;
}

static bool spin(const struct wait *w, struct xi_spin *s) {
    int64_t budget = xi_spin_budget(s);
    bool hit;
    if (budget == 0) return false;
    if (w->side == XI_SIDE_PRODUCERS) hit = spin_for_room(w, budget);
    else hit = w->ch->ack ? spin_for_delivery(w, budget) : spin_for_value(w, s, budget);
    xi_spin_result(s, hit);
    return hit;
}

int xi_waiter_take(struct xi_channel *ch, uint64_t waiter, uint32_t *number) {
    struct xi_chan *c = ch->chan;
    uint32_t start = (XI_WAITER_SLOT(waiter) * 7 + XI_WAITER_BELL(waiter)) % XI_MAX_WAITERS;
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++) {
        uint32_t at = (start + i) % XI_MAX_WAITERS;
        uint64_t none = 0;
        if (xi_load_relaxed(&c->waiters[at]) == 0 && xi_cas64_full(&c->waiters[at], &none, waiter)) {
            *number = at;
            return 0;
        }
    }
    return xi_fail(XI_E_LIMIT, "%u threads and members of sets wait on channel \"%s\" already; use several channels",
                   XI_MAX_WAITERS, ch->name);
}

void xi_waiter_arm(struct xi_channel *ch, uint32_t side, uint32_t number) {
    (void)xi_or_full(&mask_of(ch->chan, side)->word[number / 64], (uint64_t)1 << (number % 64));
    if (side == XI_SIDE_PRODUCERS)
        (void)xi_exchange_full(&ch->chan->parked_producers, 1);
    else
        (void)xi_or_full(&ch->chan->parked_groups, (uint64_t)1 << (side - 1));
}

bool xi_waiter_is_armed(struct xi_channel *ch, uint32_t side, uint32_t number) {
    return xi_load_full(&mask_of(ch->chan, side)->word[number / 64]) >> (number % 64) & 1;
}

bool xi_waiter_give(struct xi_channel *ch, uint32_t side, uint32_t number) {
    uint64_t bit = (uint64_t)1 << (number % 64);
    bool there = xi_and_full(&mask_of(ch->chan, side)->word[number / 64], ~bit) & bit;
    xi_store_full(&ch->chan->waiters[number], 0); /* after the bit, so that a bit always has an entry */
    return there;
}

/* The locks under which the other side does what this one waits for. */
void xi_waiter_pass_locks(struct xi_channel *ch, uint32_t side) {
    struct xi_chan *c = ch->chan;
    if (side != XI_SIDE_PRODUCERS) {
        xi_lock_pass(&c->lock);
        if (ch->ack) xi_lock_pass(&ch->group->lock); /* what others acknowledge or give back is waited for too */
        return;
    }
    for (uint64_t active = xi_load_full(&c->active); active; active &= active - 1)
        xi_lock_pass(&c->groups[__builtin_ctzll(active)].lock);
}

/* ------------------------------------------- what every sleep of an interpreter's thread has in common */

void xi_sleep_offer_frees(struct xi_interp *me, uint32_t bell, bool on) {
    xi_a32 *word = &me->mailbox->reclaim_bell;
    uint32_t mine = bell + 1;
    if (on) {
        if (xi_load_relaxed(&me->frees.count)) (void)xi_exchange_full(word, mine);
    } else {
        (void)xi_cas32_full(word, &mine, 0);
    }
}

int xi_sleep_refused(struct xi_interp *me) {
    int rc = xi_interp_stopped(me);
    if (rc == 0 && me->flags & XI_JOIN_MANUAL_FREE && xi_free_due(me))
        rc = xi_fail(XI_E_INTR, "free functions are due: call xi_free_run() and wait again");
    return rc;
}

int xi_sleep_ended(struct xi_interp *me, enum xi_wake_reason why) {
    if (why == XI_WAKE_CONTROL || xi_control_overdue(me)) xi_control_drain(me);
    int rc = 0;
    if (why == XI_WAKE_LOOK) { /* idle: what readers gave back goes on to the system, as do rings that are too large by now */
        xi_arena_reclaim(me, SIZE_MAX);
        xi_arena_trim(me, xi_now());
        xi_lanes_prune(me);
        rc = xi_rings_look(me);
    }
    enum xi_backend used = xi_backend_used();
    if (used != XI_BACKEND_NONE) xi_store_relaxed(&me->own->counters.wait_backend, (uint32_t)used);
    if (why == XI_WAKE_TIME) return XI_E_TIMEOUT;
    return why == XI_WAKE_SIGNAL ? XI_E_INTR : rc;
}

/* --------------------------------------------------------- one thread's wait */

/* Why not to sleep: 0 nothing, 1 the side has something to do, negative the error. */
static int reason_to_go(const struct wait *w) {
    if (atomic_load(&w->ch->freeing))
        return xi_fail(XI_E_LEFT, "this handle of channel \"%s\" was closed meanwhile", w->ch->name);
    if (ready(w)) return 1;
    if (w->side != XI_SIDE_PRODUCERS && !(xi_load_full(&w->ch->chan->active) >> (w->side - 1) & 1))
        return xi_fail_ended(w->ch);
    return xi_sleep_refused(w->ch->interp);
}

/* When to wake at the latest: the caller's deadline, or before it when the group, or a ring that may grow, is to be looked at
 * by itself. */
static int64_t wake_at(const struct wait *w, bool *sooner) {
    bool room = w->side == XI_SIDE_PRODUCERS;
    uint64_t due = !room ? xi_ack_due(w->ch) : w->want->lack == XI_LACK_BYTES ? (uint64_t)xi_ring_retry_at(w->ch) : UINT64_MAX;
    *sooner = due < (uint64_t)INT64_MAX && (w->deadline < 0 || (int64_t)due < w->deadline);
    return *sooner ? (int64_t)due : w->deadline;
}

static int sleep_once(const struct wait *w) {
    struct xi_interp *me = w->ch->interp;
    bool sooner = false;
    uint32_t seen = xi_bell_park(w->bell);
    xi_waiter_arm(w->ch, w->side, w->number);
    xi_waiter_pass_locks(w->ch, w->side);
    xi_sleep_offer_frees(me, w->bell_index, true);
    int rc = reason_to_go(w);
    /* Here too: a bell that is rung all the time lets nobody sleep until then. */
    if (rc == 0 && w->deadline >= 0 && xi_now() >= w->deadline) rc = XI_E_TIMEOUT;
    if (rc == 0 && !atomic_load_explicit(&me->arena.debt, memory_order_relaxed)) {
        int64_t until = wake_at(w, &sooner);
        rc = xi_sleep_ended(me, xi_sleep(&w->bell->bell, seen, until, atomic_load(&me->control.fd)));
    }
    if (rc == XI_E_TIMEOUT && sooner) rc = 0;
    (void)xi_bell_unpark(w->bell);
    xi_sleep_offer_frees(me, w->bell_index, false);
    if (rc == XI_E_TIMEOUT || rc == XI_E_INTR) /* and yet: a value that came at the last moment is there to be taken */
        if (ready(w)) rc = 1;
    return rc;
}

/*
 * Woken, and what there is is not enough for this one: it may be for another sender, who wants less. Once for each place to
 * which the receivers come, or two that want much would wake each other for ever. *at: the last such place.
 */
static void pass_room_on(const struct wait *w, uint64_t *at) {
    if (w->side != XI_SIDE_PRODUCERS || xi_waiter_is_armed(w->ch, w->side, w->number) || ready(w)) return;
    uint64_t head = xi_log_smallest_head(w->ch, xi_real_groups(w->ch, xi_load_full(&w->ch->chan->active)));
    if (head == *at) return;
    *at = head;
    xi_pass_on(w->ch, w->side);
}

static int park(struct wait *w) {
    uint64_t passed = UINT64_MAX; /* no place: they are multiples of 8 */

    /* What keeps the ring from growing may be over, whatever a ring or a second's look were meant for. */
    bool once = w->side == XI_SIDE_PRODUCERS && w->want->lack == XI_LACK_BYTES && xi_ring_may_grow(w->ch);
    int rc;
    if (w->also && w->also->bell) xi_store_full(w->also->bell, w->bell_index + 1); /* before the look that follows */
    xi_add_relaxed(&w->ch->interp->own->counters.parks, 1);
    do {
        rc = sleep_once(w);
        xi_free_poll(w->ch->interp);
        if (rc == 0) pass_room_on(w, &passed);
    } while (rc == 0 && !once);
    xi_sleep_over(); /* the bell goes to another */
    if (w->also && w->also->bell) xi_store_full(w->also->bell, 0);
    return rc > 0 ? 0 : rc;
}

static int wait_side(struct xi_channel *ch, uint32_t side, const struct xi_want *want, int64_t deadline,
                     const struct xi_also *also, bool *in) {
    struct wait w = {.ch = ch, .side = side, .want = want, .deadline = deadline, .also = also, .in = in};
    if (spin(&w, side == XI_SIDE_PRODUCERS ? &ch->send_spin : &ch->receive_spin)) {
        xi_bump(&ch->interp->own->counters.spins, 1); /* threads may lose one among them: it is an estimate */
        return 0;
    }
    if (deadline >= 0 && xi_now() >= deadline) return XI_E_TIMEOUT;
    int rc = xi_bell_take(&ch->interp->bells, &w.bell_index);
    if (rc) return rc;
    w.bell = &ch->interp->mailbox->bells[w.bell_index];
    stay(&w);
    rc = xi_waiter_take(ch, XI_WAITER(ch->interp->slot, w.bell_index, side), &w.number);
    if (rc == 0) {
        rc = park(&w);
        bool claimed = !xi_waiter_give(ch, side, w.number);
        if (rc && claimed) xi_pass_on(ch, side);
        if (side != XI_SIDE_PRODUCERS && xi_ack_due(ch) != UINT64_MAX) xi_wake_one(ch); /* to look in our place */
    }
    xi_bell_give(&ch->interp->bells, w.bell_index);
    return rc;
}

int xi_wait_side(struct xi_channel *ch, uint32_t side, uint32_t length, int64_t deadline, bool *in) {
    return wait_side(ch, side, &(struct xi_want){.length = length}, deadline, NULL, in);
}

int xi_wait_also(struct xi_channel *ch, uint32_t side, int64_t deadline, const struct xi_also *also, bool *in) {
    return wait_side(ch, side, &(struct xi_want){0}, deadline, also, in);
}

int xi_wait_for_room(struct xi_channel *ch, const struct xi_want *want, int64_t deadline, const struct xi_also *also, bool *in) {
    return wait_side(ch, XI_SIDE_PRODUCERS, want, deadline, also, in);
}
