/* SPDX-License-Identifier: MIT */
/*
 * Sets: who is ready. set.c has the model.
 *
 * Members that are due stand in a heap: higher priorities first, and of equals
 * the one that was reported longest ago. A wait takes what was marked into the
 * heap, looks at members from its top, and puts those that it reports back.
 *
 * Arming writes to lines that the other side reads, so a wait that may block
 * first spins over a few members that it found with nothing to do, unarmed: with
 * one busy channel in the set a value then costs little more than without it.
 * Before it sleeps, and in a wait that must not block, all are armed:
 *
 *   set:    mask |= bit    summary |= side    pass the lock    look
 *   then:   bell.state = PARKED    look at the marks    sleep while bell is unchanged
 *   waker:  publish    summary? claim the bit    mark    ring, if parked
 *
 * Against a waker that is stopped in between, all members are looked at once a
 * second; and when a delivery of a group that acknowledges may have become
 * overdue, for which nobody rings.
 */
#include <sched.h>

#include "set.h"

#define UNARMED_MOST 16 /* to be spun over; those beyond are armed at once */
#define SMALL 64u       /* "room for a small value", in bytes */

/* ------------------------------------------------------------ what is due */

static bool before(const struct xi_member *a, const struct xi_member *b) {
    if (a->priority != b->priority) return a->priority > b->priority;
    if (a->reported != b->reported) return a->reported < b->reported;
    return a->index < b->index;
}

static void put(struct xi_set *s, uint32_t place, struct xi_member *m) {
    s->due[place - 1] = m;
    m->place = place;
}

static void rise(struct xi_set *s, struct xi_member *m, uint32_t place) {
    for (; place > 1 && before(m, s->due[place / 2 - 1]); place /= 2) put(s, place, s->due[place / 2 - 1]);
    put(s, place, m);
}

static void sink(struct xi_set *s, struct xi_member *m, uint32_t place) {
    for (uint32_t child; (child = place * 2) <= s->due_count; place = child) {
        if (child < s->due_count && before(s->due[child], s->due[child - 1])) child++;
        if (!before(s->due[child - 1], m)) break;
        put(s, place, s->due[child - 1]);
    }
    put(s, place, m);
}

void xi_due_add(struct xi_set *s, struct xi_member *m) {
    if (m->place) return;
    rise(s, m, ++s->due_count);
}

void xi_due_remove(struct xi_set *s, struct xi_member *m) {
    uint32_t place = m->place;
    if (!place) return;
    struct xi_member *last = s->due[--s->due_count];
    m->place = 0;
    if (last == m) return;
    if (place > 1 && before(last, s->due[place / 2 - 1])) rise(s, last, place);
    else sink(s, last, place);
}

/* ------------------------------------------------------------------ looks */

static uint32_t look_to_receive(struct xi_channel *ch) {
    struct xi_chan *c = ch->chan;
    uint32_t closed = xi_load_full(&c->closed);
    bool producers = xi_has_producers(ch);
    if (closed == XI_CHAN_REMOVED || !xi_group_lives(ch)) return XI_READY_CLOSED;
    if (atomic_load_explicit(&ch->skipped, memory_order_relaxed)) return XI_READY_RECV; /* an error */
    if (!xi_log_has_value(ch)) return 0;
    /* Once it is closed, or nobody is left who sends, the tail is where it ends. */
    if ((!closed && producers) || xi_log_tail_beyond(ch, xi_load_full(&ch->group->head))) return XI_READY_RECV;
    return closed ? XI_READY_CLOSED : XI_READY_NO_PRODUCER;
}

static uint32_t look_to_send(struct xi_channel *ch) {
    if (xi_load_full(&ch->chan->closed)) return XI_READY_CLOSED;
    return xi_log_has_room(ch, SMALL) ? XI_READY_SEND : 0;
}

uint32_t xi_member_look(const struct xi_member *m) {
    if (!m->ch) return XI_READY_LEFT;
    return m->side == XI_SIDE_PRODUCERS ? look_to_send(m->ch) : look_to_receive(m->ch);
}

/* A delivery that becomes overdue, or is to be repeated at a later time, makes a member ready though nobody does anything. */
static void set_alarm(struct xi_set *s, const struct xi_member *m) {
    uint64_t due = m->side == XI_SIDE_PRODUCERS ? UINT64_MAX : xi_ack_due(m->ch);
    if (due < INT64_MAX && (s->alarm < 0 || (int64_t)due < s->alarm)) s->alarm = (int64_t)due;
}

uint32_t xi_member_arm(struct xi_member *m) {
    xi_waiter_arm(m->ch, m->side, m->number);
    xi_waiter_pass_locks(m->ch, m->side);
    set_alarm(m->set, m); /* after the lock: who makes it sooner later marks us */
    return xi_member_look(m);
}

/* ------------------------------------------------------------------ marks */

static bool marked(const struct xi_set *s) {
    for (uint32_t i = 0; i < XI_MAX_MEMBERS / 64 / 64; i++)
        if (s->own[i] && xi_load_full(&s->interp->mailbox->ready_words[i]) & s->own[i]) return true;
    return false;
}

/* Takes what was marked into the heap. The word's mark goes before the members': one that comes in between is found now,
 * and the word once more. */
static void collect(struct xi_set *s) {
    struct xi_mailbox *mail = s->interp->mailbox;
    for (uint32_t i = 0; i < XI_MAX_MEMBERS / 64 / 64; i++) {
        uint64_t words = s->own[i] ? xi_load_full(&mail->ready_words[i]) & s->own[i] : 0;
        if (words) (void)xi_and_full(&mail->ready_words[i], ~words);
        for (; words; words &= words - 1) {
            uint32_t number = i * 64 + (uint32_t)__builtin_ctzll(words);
            uint64_t bits = xi_exchange_full(&mail->ready[number], 0) & s->words[number]->used;
            for (; bits; bits &= bits - 1) xi_due_add(s, s->words[number]->member[__builtin_ctzll(bits)]);
        }
    }
}

/* Once a second, or when the alarm says so: marks that were not made, or whose word's was not, or that nobody makes. */
static void collect_all(struct xi_set *s) {
    s->alarm = -1;
    for (uint32_t i = 0; i < XI_MAX_MEMBERS / 64; i++) {
        if (!s->words[i]) continue;
        for (uint64_t bits = s->words[i]->used; bits; bits &= bits - 1) {
            struct xi_member *m = s->words[i]->member[__builtin_ctzll(bits)];
            if (m->place) continue;
            if (!xi_waiter_is_armed(m->ch, m->side, m->number) || xi_member_look(m)) xi_due_add(s, m);
            else set_alarm(s, m);
        }
    }
}

/* --------------------------------------------------------- going through them */

struct list {
    struct xi_member *first;
    uint32_t count;
};

static void list_add(struct list *l, struct xi_member *m) {
    m->next = l->first;
    l->first = m;
    l->count++;
}

static void put_back(struct xi_set *s, struct list *l) {
    for (; l->first; l->first = l->first->next) xi_due_add(s, l->first);
    l->count = 0;
}

static xi_event event_of(const struct xi_member *m, uint32_t ready) {
    return (xi_event){.channel = m->name, .key = m->key, .ready = ready, .priority = m->priority};
}

/* Reports up to n that are ready, and returns how many. Of those looked at in vain up to `most` come into `unarmed`, the
 * others are armed. */
static size_t report(struct xi_set *s, xi_event *events, size_t n, struct list *unarmed, uint32_t most) {
    struct list reported = {0};
    size_t done = 0;
    while (done < n && s->due_count) {
        struct xi_member *m = s->due[0];
        uint32_t ready = xi_member_look(m);
        xi_due_remove(s, m);
        if (!ready && unarmed->count < most) {
            list_add(unarmed, m);
            continue;
        }
        if (!ready) ready = xi_member_arm(m);
        if (!ready) continue;
        events[done++] = event_of(m, ready);
        m->reported = ++s->turn;
        if (m->ch) list_add(&reported, m);
        else xi_member_free(m);
    }
    put_back(s, &reported);
    return done;
}

enum spun { FOUND, IN_VAIN, WANTED };

/* Looks at the unarmed, and for marks. WANTED: another thread waits for the mutex. */
static enum spun spin(struct xi_set *s, const struct list *unarmed, int64_t deadline) {
    int64_t budget = xi_spin_budget(&s->spin), start = 0;
    if (budget == 0) return IN_VAIN;
    for (uint64_t looks = 1;; looks++) {
        bool hit = marked(s);
        for (const struct xi_member *m = unarmed->first; m && !hit; m = m->next) hit = xi_member_look(m) != 0;
        if (hit) break;
        xi_pause();
        if (looks % 32) continue;
        int64_t now = xi_now();
        if (start == 0) start = now;
        if (atomic_load_explicit(&s->wanted, memory_order_relaxed)) return WANTED;
        bool end = now - start >= budget || (deadline >= 0 && now >= deadline) || xi_load_relaxed(&s->interp->leaving);
        if (!end) continue;
        xi_spin_result(&s->spin, false);
        return IN_VAIN;
    }
    xi_bump(&s->interp->own->counters.spins, 1);
    xi_spin_result(&s->spin, true);
    return FOUND;
}

/* ---------------------------------------------------------------- sleeping */

void xi_set_stir(struct xi_set *s) {
    if (s->poll) xi_pollfd_signal(s->poll);
    else (void)xi_bell_ring(s->bell);
}

/* From now on a mark rings. *why: what the descriptor, where there is one, was readable for. Negative: why not to sleep. */
static int park(struct xi_set *s, uint32_t *seen, enum xi_wake_reason *why) {
    struct xi_interp *me = s->interp;
    *why = XI_WAKE_BELL;
    *seen = xi_bell_park(s->bell);
    xi_sleep_offer_frees(me, s->bell_index, true);
    if (s->poll) *why = xi_pollfd_arm(s->poll, *seen, atomic_load(&me->control.fd), s->alarm);
    return xi_sleep_refused(me);
}

static void unpark(struct xi_set *s) {
    (void)xi_bell_unpark(s->bell);
    xi_sleep_offer_frees(s->interp, s->bell_index, false);
}

static bool may_sleep(const struct xi_set *s) {
    return !marked(s) && !s->due_count && !atomic_load_explicit(&s->interp->arena.debt, memory_order_relaxed);
}

/* Without the mutex: what is to be done after a sleep may take its time. */
static int after_sleep(struct xi_set *s, enum xi_wake_reason why) {
    xi_set_unlock(s);
    int rc = xi_sleep_ended(s->interp, why);
    if (rc == XI_E_TIMEOUT) rc = xi_fail(rc, "no channel of the set became ready in time");
    if (rc == XI_E_INTR) rc = xi_fail(rc, "interrupted by a signal");
    xi_free_poll(s->interp);
    xi_set_lock(s);
    if ((why == XI_WAKE_LOOK || why == XI_WAKE_CONTROL) && !s->over) collect_all(s);
    return rc;
}

/* All is armed. 0: look again; or TIMEOUT, INTR, or why not to sleep. */
static int sleep_once(struct xi_set *s, int64_t deadline) {
    struct xi_interp *me = s->interp;
    enum xi_wake_reason why;
    uint32_t seen;
    bool alarmed = s->alarm >= 0 && (deadline < 0 || s->alarm < deadline);
    if (alarmed) deadline = s->alarm;
    xi_interp_wait_enter(me);
    int control = atomic_load(&me->control.fd), rc = park(s, &seen, &why);
    if (rc == 0 && why == XI_WAKE_BELL && may_sleep(s)) {
        xi_add_relaxed(&me->own->counters.parks, 1);
        xi_set_unlock(s);
        why = s->poll ? xi_pollfd_sleep(s->poll, deadline) : xi_sleep(&s->bell->bell, seen, deadline, control);
        xi_set_lock(s);
    }
    unpark(s);
    bool look = why == XI_WAKE_TIME && alarmed;
    if (rc == 0) rc = after_sleep(s, look ? XI_WAKE_BELL : why);
    if (look && !s->over) collect_all(s);
    xi_interp_wait_exit(me);
    return rc;
}

/* All is armed, and the caller asked not to wait. 0: so be it; 1: look again; or why there is no waiting. */
static int go_idle(struct xi_set *s) {
    enum xi_wake_reason why;
    uint32_t seen;
    if (!s->poll) return xi_sleep_refused(s->interp);
    int rc = park(s, &seen, &why);
    if (rc == 0 && why == XI_WAKE_BELL && may_sleep(s)) return 0;
    unpark(s);
    xi_pollfd_signal(s->poll);
    if (rc == 0) rc = after_sleep(s, why);
    return rc ? rc : 1;
}

/* True if nothing is ready; all is armed then. */
static bool nothing_due(struct xi_set *s) {
    collect(s);
    while (s->due_count) {
        struct xi_member *m = s->due[0];
        if (xi_member_look(m) || xi_member_arm(m)) return false;
        xi_due_remove(s, m);
    }
    return true;
}

void xi_set_settle(struct xi_set *s) {
    if (!nothing_due(s) || go_idle(s) != 0) xi_pollfd_signal(s->poll);
}

/* ---------------------------------------------------------------- the wait */

/* Nothing was ready. 0: look again. */
static int pause_or_sleep(struct xi_set *s, struct list *unarmed, bool *arm, int64_t timeout, int64_t deadline) {
    if (!*arm) {
        enum spun spun = spin(s, unarmed, deadline);
        put_back(s, unarmed);
        *arm = spun == IN_VAIN;
        if (spun == WANTED) {
            xi_set_unlock(s);
            sched_yield();
            xi_set_lock(s);
        }
        return 0;
    }
    if (timeout != XI_TRY) return sleep_once(s, deadline);
    int rc = go_idle(s);
    if (rc == 0) return xi_fail(XI_E_AGAIN, "no channel of the set is ready");
    return rc > 0 ? 0 : rc;
}

#define ROUNDS 100 /* of being marked, or finding somebody ready, who then is not: by then the time is looked at */

/* Marks come all the time, from somebody who has nothing for us. */
static int marked_in_vain(struct xi_set *s, struct list *unarmed, int64_t timeout) {
    put_back(s, unarmed);
    if (s->poll) xi_pollfd_signal(s->poll);
    return timeout == XI_TRY ? xi_fail(XI_E_AGAIN, "no channel of the set is ready")
                             : xi_fail(XI_E_TIMEOUT, "no channel of the set became ready in time");
}

static int64_t wait(struct xi_set *s, xi_event *events, size_t n, int64_t timeout) {
    int64_t deadline = xi_deadline(timeout);
    bool arm = timeout == XI_TRY;
    int rc = 0;
    if (s->poll) unpark(s);
    for (unsigned rounds = 0;; rounds++) {
        struct list unarmed = {0};
        int ended = xi_set_ended(s);
        if (ended) return ended;
        collect(s);
        size_t done = report(s, events, n, &unarmed, arm ? 0 : UNARMED_MOST);
        if (done) {
            put_back(s, &unarmed);
            if (s->poll) xi_pollfd_signal(s->poll); /* as long as something may be ready it is readable */
            return (int64_t)done;
        }
        if (rc) return rc; /* and nothing came at the last moment */
        if (rounds > ROUNDS && deadline >= 0 && xi_now() >= deadline) return marked_in_vain(s, &unarmed, timeout);
        rc = pause_or_sleep(s, &unarmed, &arm, timeout, deadline);
        if (rc == XI_E_AGAIN) return rc;
    }
}

int64_t xi_set_wait(xi_set *s, xi_event *events, size_t n, int64_t timeout) {
    if (!s || !events || n == 0) return xi_fail(XI_E_INVAL, "xi_set_wait needs a set and room for an event");
    if (!xi_alive(s->interp)) return xi_fail_forked();
    xi_free_poll(s->interp);
    xi_set_lock(s);
    int64_t done;
    if (s->waiting) {
        done = xi_fail(XI_E_INVAL, "another thread waits on this set: a set belongs to one at a time");
    } else {
        s->waiting = true;
        done = wait(s, events, n, timeout);
        xi_sleep_over(); /* the next to wait may be another thread */
        s->waiting = false;
    }
    xi_set_unlock(s);
    return done;
}
