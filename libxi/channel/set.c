/* SPDX-License-Identifier: MIT */
/*
 * Sets: many channels waited on together. This file: who is in a set.
 *
 * A member has an entry in its channel's table of waiters for as long as it is
 * in the set, and a bit in its interpreter's mailbox (`ready`, wire/layout.h).
 * While its bit in the channel's mask is set it is armed: whoever has something
 * for its side claims that bit, marks the member ready and rings the set's bell.
 * Marks are edges. What a set reports are levels: a member that was marked, or
 * reported last time, is due, and a wait looks at each that is due and arms it
 * again only when it finds nothing to do. So a wait costs as much as there are
 * members that may be ready, however many there are.
 *
 * The bits of a word of `ready` belong to one set, so that sets do not meet.
 *
 * Three may touch a set at the same time: who waits on it (one thread), who adds
 * and removes, and who frees a handle that is in it. The set's mutex guards all
 * of it; nobody holds it while asleep. Which members a handle has is guarded by
 * the interpreter's sets.mutex, which comes first.
 */
#include "set.h"

#include <stdlib.h>

/* ------------------------------------------------------------- ready bits */

static struct xi_set_word *word_with_room(struct xi_set *s, uint32_t *number) {
    for (uint32_t i = 0; i < XI_MAX_MEMBERS / 64; i++)
        if (s->words[i] && ~s->words[i]->used) {
            *number = i;
            return s->words[i];
        }
    return NULL;
}

/* Caller holds both mutexes. */
static int take_word(struct xi_set *s, uint32_t *number, struct xi_set_word **out) {
    uint64_t *words = s->interp->sets.words;
    for (uint32_t i = 0; i < XI_MAX_MEMBERS / 64; i++) {
        if (words[i / 64] >> (i % 64) & 1) continue;
        struct xi_set_word *w = calloc(1, sizeof *w);
        if (!w) return xi_fail(XI_E_NOMEM, "no memory for 64 more members of a set");
        words[i / 64] |= (uint64_t)1 << (i % 64);
        s->own[i / 64] |= (uint64_t)1 << (i % 64);
        s->words[i] = w;
        *number = i;
        *out = w;
        return 0;
    }
    return xi_fail(XI_E_LIMIT, "the sets of this interpreter have %u members already, or there are %u sets with any",
                   XI_MAX_MEMBERS, XI_MAX_MEMBERS / 64);
}

static int index_take(struct xi_set *s, struct xi_member *m) {
    uint32_t number = 0;
    struct xi_set_word *w = word_with_room(s, &number);
    int rc = w ? 0 : take_word(s, &number, &w);
    if (rc) return rc;
    uint32_t bit = (uint32_t)__builtin_ctzll(~w->used);
    w->used |= (uint64_t)1 << bit;
    w->member[bit] = m;
    m->index = number * 64 + bit;
    return 0;
}

/* The word stays the set's until the set goes. */
static void index_give(struct xi_set *s, struct xi_member *m) {
    struct xi_set_word *w = s->words[m->index / 64];
    w->used &= ~((uint64_t)1 << (m->index % 64));
    w->member[m->index % 64] = NULL;
}

/* ---------------------------------------------------------------- members */

void xi_member_free(struct xi_member *m) {
    m->set->members--;
    free(m);
}

/* Takes it out of its channel. Caller holds both mutexes, and the channel is still mapped. */
static void unlink_member(struct xi_member *m) {
    struct xi_member **p = &m->ch->members;
    while (*p != m) p = &(*p)->next_of_channel;
    *p = m->next_of_channel;
    (void)xi_waiter_give(m->ch, m->side, m->number);
    index_give(m->set, m);
    m->ch = NULL;
}

static bool reserve_due(struct xi_set *s) {
    if (s->members < s->due_capacity) return true;
    uint32_t capacity = s->due_capacity ? s->due_capacity * 2 : 16;
    struct xi_member **due = realloc(s->due, capacity * sizeof(struct xi_member *));
    if (!due) return false;
    s->due = due;
    s->due_capacity = capacity;
    return true;
}

static struct xi_member *find(const struct xi_set *s, const struct xi_channel *ch, uint32_t side) {
    for (struct xi_member *m = ch->members; m; m = m->next_of_channel)
        if (m->set == s && m->side == side) return m;
    return NULL;
}

/* Caller holds both mutexes. */
static int add_side(struct xi_set *s, struct xi_channel *ch, uint32_t side, uint64_t key, int32_t priority) {
    if (find(s, ch, side)) return xi_fail(XI_E_INVAL, "this handle of channel \"%s\" is in the set already", ch->name);
    struct xi_member *m = reserve_due(s) ? calloc(1, sizeof *m) : NULL;
    if (!m) return xi_fail(XI_E_NOMEM, "no memory for one more member of a set");
    *m = (struct xi_member){.set = s, .ch = ch, .name = ch, .key = key, .priority = priority, .side = side};
    int rc = index_take(s, m);
    if (rc) {
        free(m);
        return rc;
    }
    rc = xi_waiter_take(ch, XI_WAITER_OF_MEMBER(s->interp->slot, s->bell_index, side, m->index), &m->number);
    if (rc) {
        index_give(s, m);
        free(m);
        return rc;
    }
    s->members++;
    m->next_of_channel = ch->members;
    ch->members = m;
    int64_t alarm = s->alarm;
    /* An alarm that is sooner now is for who sleeps without knowing of it, as a member is that may be ready. */
    if (xi_member_look(m) == 0 && xi_member_arm(m) == 0 && s->alarm == alarm) return 0;
    xi_due_add(s, m);
    xi_set_stir(s);
    return 0;
}

static void remove_member(struct xi_member *m) {
    xi_due_remove(m->set, m);
    unlink_member(m);
    xi_member_free(m);
}

static int check_add(const struct xi_set *s, const struct xi_channel *ch, uint32_t want) {
    if (!s || !ch) return xi_fail(XI_E_INVAL, "xi_set_add needs a set and a channel");
    if (!xi_alive(s->interp)) return xi_fail_forked();
    if (ch->interp != s->interp)
        return xi_fail(XI_E_INVAL, "the set is of another interpreter than the handle of channel \"%s\"", ch->name);
    if (want == 0 || want & ~(uint32_t)(XI_READY_RECV | XI_READY_SEND))
        return xi_fail(XI_E_INVAL, "want 0x%x: XI_READY_RECV, XI_READY_SEND or both; the others are always told", want);
    if (want & XI_READY_RECV && ch->group_index == XI_NO_GROUP)
        return xi_fail(XI_E_INVAL, "this handle of channel \"%s\" was opened to send only", ch->name);
    if (want & XI_READY_SEND && !ch->can_send)
        return xi_fail(XI_E_INVAL, "this handle of channel \"%s\" was opened to receive only", ch->name);
    return 0;
}

int xi_set_add(xi_set *s, xi_channel *ch, uint32_t want, uint64_t key, int32_t priority) {
    int rc = check_add(s, ch, want);
    if (rc) return rc;
    pthread_mutex_lock(&s->interp->sets.mutex);
    xi_set_lock(s);
    rc = xi_set_ended(s);
    if (rc == 0) rc = xi_channel_check(ch);
    bool receives = want & XI_READY_RECV;
    if (rc == 0 && receives) rc = add_side(s, ch, XI_SIDE_GROUP(ch->group_index), key, priority);
    if (rc == 0 && want & XI_READY_SEND) {
        rc = add_side(s, ch, XI_SIDE_PRODUCERS, key, priority);
        if (rc && receives) remove_member(find(s, ch, XI_SIDE_GROUP(ch->group_index)));
    }
    xi_set_unlock(s);
    pthread_mutex_unlock(&s->interp->sets.mutex);
    return rc;
}

/* One that has left and was not yet reported. */
static struct xi_member *find_left(const struct xi_set *s, const struct xi_channel *name) {
    for (uint32_t i = 0; i < s->due_count; i++)
        if (!s->due[i]->ch && s->due[i]->name == name) return s->due[i];
    return NULL;
}

int xi_set_remove(xi_set *s, xi_channel *ch) {
    struct xi_member *m;
    bool found = false;
    if (!s || !ch) return xi_fail(XI_E_INVAL, "xi_set_remove needs a set and a channel");
    if (!xi_alive(s->interp)) return xi_fail_forked();
    pthread_mutex_lock(&s->interp->sets.mutex);
    xi_set_lock(s);
    while ((m = find_left(s, ch))) {
        xi_due_remove(s, m);
        xi_member_free(m);
        found = true;
    }
    for (struct xi_member *next, *at = found ? NULL : ch->members; at; at = next) {
        next = at->next_of_channel;
        if (at->set != s) continue;
        remove_member(at);
        found = true;
    }
    bool over = s->over;
    xi_set_unlock(s);
    pthread_mutex_unlock(&s->interp->sets.mutex);
    if (found || over) return 0;
    return xi_fail(XI_E_NOENT, "this handle of channel \"%s\" is not in the set", ch->name);
}

/* ------------------------------------------------- handles and interpreters that go */

/* Caller holds both mutexes. */
static void forget(struct xi_member *m) {
    unlink_member(m);
    xi_due_add(m->set, m);
    xi_set_stir(m->set);
}

void xi_sets_forget(struct xi_channel *ch) {
    pthread_mutex_lock(&ch->interp->sets.mutex);
    while (ch->members) {
        struct xi_set *s = ch->members->set;
        xi_set_lock(s);
        forget(ch->members);
        xi_set_unlock(s);
    }
    pthread_mutex_unlock(&ch->interp->sets.mutex);
}

static void for_each_member(struct xi_set *s, void (*act)(struct xi_member *m)) {
    for (uint32_t i = 0; i < XI_MAX_MEMBERS / 64; i++)
        for (uint64_t bits = s->words[i] ? s->words[i]->used : 0; bits; bits &= bits - 1)
            act(s->words[i]->member[__builtin_ctzll(bits)]);
}

void xi_sets_detach(struct xi_interp *me) {
    pthread_mutex_lock(&me->sets.mutex);
    for (struct xi_set *s = me->sets.first; s; s = s->next) {
        xi_set_lock(s);
        s->over = true;
        for_each_member(s, forget);
        xi_set_stir(s);
        xi_set_unlock(s);
    }
    pthread_mutex_unlock(&me->sets.mutex);
}

/* ------------------------------------------------------------------- sets */

int xi_set_new(xi_interp *me, xi_set **out) {
    if (!me || !out) return xi_fail(XI_E_INVAL, "xi_set_new needs an interpreter and a place for the set");
    if (!xi_alive(me)) return xi_fail_forked();
    int rc = xi_interp_stopped(me);
    if (rc) return rc;
    struct xi_set *s = calloc(1, sizeof *s);
    if (!s) return xi_fail(XI_E_NOMEM, "no memory for a set");
    s->interp = me;
    s->alarm = -1;
    pthread_mutex_init(&s->mutex, NULL);
    xi_spin_init(&s->spin, me->spin_ns);
    rc = xi_bell_take(&me->bells, &s->bell_index);
    if (rc) {
        pthread_mutex_destroy(&s->mutex);
        free(s);
        return rc;
    }
    s->bell = &me->mailbox->bells[s->bell_index];
    xi_interp_hold(me);
    pthread_mutex_lock(&me->sets.mutex);
    s->next = me->sets.first;
    me->sets.first = s;
    pthread_mutex_unlock(&me->sets.mutex);
    *out = s;
    return 0;
}

/* Everything that others can see of it. */
static void withdraw(struct xi_set *s) {
    struct xi_interp *me = s->interp;
    pthread_mutex_lock(&me->sets.mutex);
    xi_set_lock(s);
    for_each_member(s, remove_member);
    for (uint32_t i = 0; i < XI_MAX_MEMBERS / 64 / 64; i++) me->sets.words[i] &= ~s->own[i];
    struct xi_set **p = &me->sets.first;
    while (*p != s) p = &(*p)->next;
    *p = s->next;
    xi_set_unlock(s);
    pthread_mutex_unlock(&me->sets.mutex);
    xi_sleep_offer_frees(me, s->bell_index, false);
    if (s->poll) xi_pollfd_free(s->poll, false);
    (void)xi_bell_unpark(s->bell);
    xi_bell_give(&me->bells, s->bell_index);
}

void xi_set_free(xi_set *s) {
    if (!s) return;
    struct xi_interp *me = s->interp;
    if (xi_alive(me)) withdraw(s);
    else if (s->poll) xi_pollfd_free(s->poll, true);
    for (uint32_t i = 0; i < s->due_count; i++)
        if (!s->due[i]->ch) free(s->due[i]);
    for_each_member(s, xi_member_free); /* in a forked child */
    for (uint32_t i = 0; i < XI_MAX_MEMBERS / 64; i++) free(s->words[i]);
    free(s->due);
    pthread_mutex_destroy(&s->mutex);
    free(s);
    xi_interp_drop(me);
}

int xi_set_shut(xi_set *s) {
    if (!s) return xi_fail(XI_E_INVAL, "xi_set_shut needs a set");
    if (!xi_alive(s->interp)) return xi_fail_forked();
    xi_set_lock(s);
    s->shut = true;
    xi_set_stir(s);
    xi_set_unlock(s);
    return 0;
}

int xi_set_ended(const struct xi_set *s) {
    if (s->over) return xi_fail(XI_E_LEFT, "the set's interpreter has left the namespace");
    return s->shut ? xi_fail(XI_E_LEFT, "this set was shut") : 0;
}

int xi_set_fd(xi_set *s) {
    if (!s) return xi_fail(XI_E_INVAL, "xi_set_fd needs a set");
    if (!xi_alive(s->interp)) return xi_fail_forked();
    int rc = 0;
    xi_set_lock(s);
    if (s->waiting) rc = xi_fail(XI_E_INVAL, "a thread waits on this set; ask for its descriptor before that");
    if (rc == 0 && !s->poll) {
        rc = xi_pollfd_new(&s->bell->bell, &s->poll);
        if (rc == 0) xi_set_settle(s);
    }
    if (rc == 0) rc = xi_pollfd_fd(s->poll);
    xi_set_unlock(s);
    return rc;
}
