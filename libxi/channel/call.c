/* SPDX-License-Identifier: MIT */
/*
 * Calls: a request that waits for its reply. This file: the caller.
 *
 * An interpreter that calls has a lane, a queue of its own through which replies
 * come, and a word for each call in its mailbox: generation and state. A request
 * is an ordinary value whose record ends with slot, word and generation of its
 * caller; so does its reply. Who takes a request notes that in its borrow table
 * before the head moves, and drops the note when it has replied. Whoever is to
 * say that no reply comes turns the word from WAITING to DIED, which only works
 * while the generation matches, and rings the caller's sleepers: the server that
 * releases a request, or the broker after its death.
 *
 * What a caller looks at, in this order: its word, whether the request can still
 * be taken, its lane. A reply that was sent before its server died is in the lane
 * when the word says DIED, since repair of the lane comes before: the reply
 * counts. Cancelling moves the generation on: replies that come later find no
 * call, and are dropped by whoever reads the lane; servers that take the request
 * later see that it is not wanted.
 *
 * Several threads may call. Whoever reads the lane keeps its own reply, hands
 * others theirs and rings them.
 */
#include "call.h"

#include <stdlib.h>

#define WORD(generation, state) ((uint64_t)(generation) << 8 | (state))
#define GENERATIONS (((uint64_t)1 << 48) - 1)

/* ------------------------------------------------------------- the lane */

static int lane_open(struct xi_interp *me, struct xi_channel **out) {
    char name[80];
    xi_lane_name(me->id, name);
    bool others = me->registry->flags & XI_NS_OPEN; /* whoever may join may be a server */
    xi_open_opts o = {.mode = XI_QUEUE, .flags = XI_OPEN_RECV, .access = others ? "*:w" : NULL};
    int rc = xi_open_inner(me, name, &o, out);
    if (rc == 0) (*out)->is_lane = true;
    return rc;
}

/* Caller holds calls_mutex. Generations begin where those of another interpreter in this slot hardly were. */
static int calls_make(struct xi_interp *me) {
    if (me->calls) return 0;
    struct xi_calls *c = calloc(1, sizeof *c);
    if (!c) return xi_fail(XI_E_NOMEM, "no memory for calls");
    for (uint32_t i = 0; i < XI_MAX_CALLS; i++) {
        c->call[i].generation = ((uint64_t)me->id * 0x9e3779b97f4a7c15ull + i) >> 16;
        c->call[i].reply = (xi_msg)XI_MSG_INIT;
    }
    int rc = lane_open(me, &c->lane);
    if (rc) free(c);
    else me->calls = c;
    return rc;
}

void xi_calls_free(struct xi_interp *me) {
    struct xi_calls *c = me->calls;
    for (uint32_t i = 0; c && i < XI_MAX_CALLS; i++) xi_msg_release(&c->call[i].reply);
    if (c) xi_channel_free_inner(c->lane);
    free(c);
    while (me->lanes) {
        struct xi_lane *l = me->lanes;
        me->lanes = l->next;
        xi_channel_free_inner(l->ch);
        free(l);
    }
}

/* --------------------------------------------------------------- a call */

static int call_take(struct xi_interp *me, struct xi_call_ref *ref) {
    pthread_mutex_lock(&me->calls_mutex);
    int rc = calls_make(me);
    struct xi_calls *c = me->calls;
    if (rc == 0 && ~c->taken == 0)
        rc = xi_fail(XI_E_LIMIT, "%u calls of this interpreter wait for their replies already", XI_MAX_CALLS);
    if (rc == 0) {
        uint32_t i = (uint32_t)__builtin_ctzll(~c->taken);
        struct xi_call *k = &c->call[i];
        c->taken |= (uint64_t)1 << i;
        k->generation = (k->generation & GENERATIONS) % GENERATIONS + 1; /* never 0 */
        xi_store_relaxed(&k->place, XI_CALL_OUT);
        xi_store_full(&me->mailbox->calls[i], WORD(k->generation, XI_CALL_WAITING));
        *ref = (struct xi_call_ref){me->slot, i, k->generation};
    }
    pthread_mutex_unlock(&me->calls_mutex);
    return rc;
}

/* Whatever comes for it from now on is for nobody. */
static void call_give(struct xi_interp *me, uint32_t i) {
    pthread_mutex_lock(&me->calls_mutex);
    struct xi_calls *c = me->calls;
    struct xi_call *k = &c->call[i];
    xi_store_full(&me->mailbox->calls[i], WORD(k->generation, XI_CALL_FREE));
    xi_store_relaxed(&k->place, XI_CALL_NONE);
    xi_msg_release(&k->reply);
    c->taken &= ~((uint64_t)1 << i);
    pthread_mutex_unlock(&me->calls_mutex);
}

static int begin(xi_channel *ch, const void *value, size_t size, xi_loan *loan, const xi_send_opts *o, xi_pending *out) {
    struct xi_calling c = {0};
    if (!ch || !out) return xi_fail(XI_E_INVAL, "a call needs a channel and a place for what is pending");
    *out = (xi_pending)XI_PENDING_INIT;
    int rc = xi_channel_check(ch);
    if (rc == 0) rc = call_take(ch->interp, &c.ref);
    if (rc) return rc;
    bool in = false;
    rc = xi_send_call(ch, value, size, loan, o, &c, &in);
    if (rc == 0) *out = (xi_pending){ch, c.ref.index, 0, c.ref.generation, c.position, c.number};
    else call_give(ch->interp, c.ref.index);
    if (in) xi_wait_exit(ch);
    return rc;
}

int xi_call_begin(xi_channel *ch, const void *value, size_t size, int64_t timeout, xi_pending *out) {
    return begin(ch, value, size, NULL, &(xi_send_opts){.timeout = timeout}, out);
}

int xi_call_begin_loan(xi_channel *ch, xi_loan *loan, size_t size, const xi_send_opts *o, xi_pending *out) {
    return begin(ch, NULL, size, loan, o ? o : &(xi_send_opts){.timeout = XI_FOREVER}, out);
}

static void finish(xi_pending *p) {
    call_give(p->channel_->interp, p->index_);
    p->channel_ = NULL;
}

void xi_call_cancel(xi_pending *p) {
    if (!p || !p->channel_) return;
    if (xi_alive(p->channel_->interp)) finish(p);
    p->channel_ = NULL;
}

/* ----------------------------------------------------------- the waiting */

/* True if some group has gone past the request, so that somebody has it, or had it. Not groups that joined behind it. */
static bool was_taken(const xi_pending *p) {
    struct xi_chan *c = p->channel_->chan;
    for (uint64_t active = xi_load_full(&c->active); active; active &= active - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(active);
        struct xi_group *g = &c->groups[i];
        if (xi_load_relaxed(&g->flags) & XI_GROUP_F_RETAIN || xi_load_relaxed(&g->start_seq) >= p->number_) continue;
        if ((int64_t)(xi_load_full(&g->head) - p->position_) > 0) return true;
    }
    return false;
}

/* 0, or why no reply can come. */
static int why_over(const xi_pending *p) {
    struct xi_channel *ch = p->channel_;
    struct xi_chan *c = ch->chan;
    if (xi_load_full(&ch->interp->mailbox->calls[p->index_]) != WORD(p->generation_, XI_CALL_WAITING)) return XI_E_DIED;
    bool removed = xi_load_full(&c->closed) == XI_CHAN_REMOVED;
    if (removed || xi_load_full(&c->consumers) == 0) /* first this: who takes it and then goes has taken it */
        if (!was_taken(p)) return removed ? XI_E_REMOVED : XI_E_NO_CONSUMER;
    return 0;
}

static int fail_over(const xi_pending *p, int why) {
    const char *name = p->channel_->name;
    switch (why) {
    case XI_E_REMOVED: return xi_fail(why, "channel \"%s\" was removed before anybody took the request", name);
    case XI_E_NO_CONSUMER: return xi_fail(why, "nobody receives on channel \"%s\": the request was not taken", name);
    default: return xi_fail(why, "who took the request on channel \"%s\" died, or released it without a reply", name);
    }
}

/* Nobody will wait for this one: its call may be another thread's. */
static void hand_over(struct xi_interp *me, xi_msg *m) {
    uint32_t i = XI_CALL_FROM_INDEX(m->call_from_), bell = 0;
    uint64_t generation = m->call_;
    m->call_ = 0;
    pthread_mutex_lock(&me->calls_mutex);
    struct xi_call *k = i < XI_MAX_CALLS ? &me->calls->call[i] : NULL;
    if (k && k->place == XI_CALL_OUT && k->generation == generation) {
        xi_msg_move(&k->reply, m);
        xi_store_full(&k->place, XI_CALL_HERE); /* pairs with the look of who parks */
        bell = xi_load_full(&k->bell);
    }
    pthread_mutex_unlock(&me->calls_mutex);
    if (bell) (void)xi_bell_ring(&me->mailbox->bells[bell - 1]);
    xi_msg_reset(m);
}

/* 1 the reply is in *reply, 0 it has not come; or an error. */
static int fetch(const xi_pending *p, xi_msg *reply) {
    struct xi_interp *me = p->channel_->interp;
    struct xi_call *k = &me->calls->call[p->index_];
    for (uint64_t rounds = 0; rounds < xi_rounds_most(me->calls->lane); rounds++) {
        if (xi_load_full(&k->place) == XI_CALL_HERE) {
            xi_msg_release(reply);
            pthread_mutex_lock(&me->calls_mutex);
            xi_msg_move(reply, &k->reply);
            pthread_mutex_unlock(&me->calls_mutex);
            return 1;
        }
        int rc = xi_receive_try(me->calls->lane, reply);
        if (rc == XI_E_CORRUPT) continue; /* skipped: it may have been anybody's */
        if (rc) return rc == XI_E_AGAIN ? 0 : rc;
        if (reply->call_ == p->generation_ && XI_CALL_FROM_INDEX(reply->call_from_) == p->index_) {
            reply->call_ = 0;
            return 1;
        }
        hand_over(me, reply);
    }
    return 0;
}

static bool something_to_see(void *context) {
    const xi_pending *p = context;
    struct xi_channel *ch = p->channel_;
    return xi_load_full(&ch->interp->calls->call[p->index_].place) == XI_CALL_HERE || why_over(p) ||
           atomic_load(&ch->freeing);
}

/* 0: look again; or an error. */
static int wait_once(xi_pending *p, int64_t timeout, int64_t deadline) {
    struct xi_channel *ch = p->channel_, *lane = ch->interp->calls->lane;
    struct xi_also also = {something_to_see, p, &ch->interp->calls->call[p->index_].bell};
    if (timeout == XI_TRY) return xi_fail(XI_E_AGAIN, "the reply to the call on channel \"%s\" is not there yet", ch->name);
    bool in = false;
    int rc = xi_wait_also(lane, XI_SIDE_GROUP(lane->group_index), deadline, &also, &in);
    if (in) xi_wait_exit(lane); /* which stays as long as we count in the channel */
    if (rc == 0 && deadline >= 0 && xi_now() >= deadline) rc = XI_E_TIMEOUT; /* what comes through the lane is not for us */
    return rc == XI_E_TIMEOUT ? xi_fail(rc, "no reply to the call on channel \"%s\" came in time", ch->name) : rc;
}

static int got_it(xi_pending *p) {
    struct xi_channel *lane = p->channel_->interp->calls->lane;
    finish(p);
    xi_pass_on(lane, XI_SIDE_GROUP(lane->group_index)); /* what else is there is another thread's */
    return 0;
}

/* Whether the call goes on after this error of waiting. */
static bool still_pending(int rc) {
    return rc != XI_E_LEFT && rc != XI_E_ENDING && rc != XI_E_BROKER && rc != XI_E_CLOSED && rc != XI_E_REMOVED;
}

static int wait_for_reply(xi_pending *p, xi_msg *reply, int64_t timeout) {
    int64_t deadline = timeout == XI_TRY ? XI_TRY : xi_deadline(timeout);
    int rc = 0;
    bool told = false; /* that no reply comes */
    for (int waited = 0; rc == 0;) {
        int over;
        over = why_over(p);
        rc = fetch(p, reply);
        if (rc == 1) return got_it(p);
        if ((told = rc == 0 && over)) rc = fail_over(p, over);
        if (rc == 0) rc = waited ? waited : xi_channel_check(p->channel_);
        if (rc) break;
        waited = wait_once(p, timeout, deadline);
        /* After these, what came at the last moment is looked at; after others the lane may be no more. */
        if (waited && waited != XI_E_TIMEOUT && waited != XI_E_INTR) rc = waited;
    }
    if (told || !still_pending(rc)) finish(p);
    return rc;
}

int xi_call_wait(xi_pending *p, xi_msg *reply, int64_t timeout) {
    if (!p || !reply || !p->channel_) return xi_fail(XI_E_INVAL, "no call is pending here: it has ended, or was cancelled");
    struct xi_channel *ch = p->channel_;
    if (!xi_alive(ch->interp)) return xi_fail_forked();
    xi_msg_reset(reply);
    xi_free_poll(ch->interp);
    xi_wait_enter(ch); /* all the time, not only asleep: who frees the handle, or leaves, takes the lane away as well */
    int rc = wait_for_reply(p, reply, timeout);
    xi_wait_exit(ch);
    return rc;
}

int xi_call(xi_channel *ch, const void *value, size_t size, xi_msg *reply, int64_t timeout) {
    xi_pending p;
    if (!reply) return xi_fail(XI_E_INVAL, "xi_call needs a place for the reply");
    int64_t deadline = timeout > 0 ? xi_deadline(timeout) : timeout;
    int rc = xi_call_begin(ch, value, size, timeout, &p);
    if (rc) return rc;
    xi_wait_enter(ch); /* until it is cancelled */
    rc = xi_call_wait(&p, reply, timeout > 0 ? xi_left(deadline) : timeout);
    xi_call_cancel(&p);
    xi_wait_exit(ch);
    return rc;
}
