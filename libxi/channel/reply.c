/* SPDX-License-Identifier: MIT */
/*
 * Serving calls; call.c has the model.
 *
 * A message that is a call has an entry in this interpreter's borrow table, which
 * says so to the broker if we die. It ends once: by a reply, by giving it up, by
 * the message's release. The reply is sent before the entry is dropped: killed in
 * between, the caller has its reply, and what repair then says comes too late.
 *
 * Lanes of callers are opened at the first reply to each, and closed when their
 * callers have gone, at the latest when another lane is opened.
 */
#include "call.h"

#include <stdlib.h>

#include "record.h"

/* ------------------------------------------------------------ who asks */

bool xi_call_ref_read(const struct xi_view *v, uint64_t position, uint64_t h, struct xi_call_ref *out) {
    uint64_t at = position + 8 + xi_record_value(h);
    uint64_t who = xi_load_relaxed(xi_header_at(v, at)), generation = xi_load_relaxed(xi_header_at(v, at + 8)); /* once */
    *out = (struct xi_call_ref){(uint32_t)who, (uint32_t)(who >> 32), generation};
    static_assert(offsetof(struct xi_call_ref, index) == 4 && offsetof(struct xi_call_ref, generation) == 8, "taken apart");
    return out->slot != 0 && out->slot < XI_MAX_INTERPS && out->index < XI_MAX_CALLS && generation != 0 &&
           generation <= XI_GENERATION_MAX;
}

static bool waits(struct xi_mailbox *m, uint32_t from, uint64_t generation) {
    return xi_load_acquire(&m->calls[XI_CALL_FROM_INDEX(from)]) == (generation << 8 | XI_CALL_WAITING);
}

/* Turns the caller's word, and rings whoever sleeps there: one of them waits for this. */
static void refuse(struct xi_interp *me, uint32_t from, uint64_t generation) {
    struct xi_map_entry *e;
    struct xi_mailbox *m = xi_mailbox_get(me, XI_CALL_FROM_SLOT(from), &e);
    uint64_t waiting = generation << 8 | XI_CALL_WAITING;
    if (!m) return; /* the caller has gone */
    if (xi_cas64_full(&m->calls[XI_CALL_FROM_INDEX(from)], &waiting, generation << 8 | XI_CALL_DIED))
        for (uint32_t i = 0; i < XI_BELLS_USABLE; i++)
            if (xi_load_full(&m->bells[i].state) == XI_BELL_PARKED) (void)xi_bell_ring(&m->bells[i]);
    xi_mailbox_put(e);
}

void xi_call_refuse(struct xi_interp *me, const struct xi_call_ref *ref) {
    refuse(me, XI_CALL_FROM(ref->slot, ref->index), ref->generation);
}

/* --------------------------------------------------- a call that was taken */

void xi_call_note(struct xi_channel *ch, uint32_t borrow, uint32_t group, const struct xi_call_ref *ref, uint64_t position) {
    struct xi_borrow *b = xi_borrow_at(ch->interp, borrow);
    xi_store_relaxed(&b->block, (uint64_t)ref->slot << 32);
    xi_store_relaxed(&b->position, position);
    xi_store_relaxed(&b->chan_seg, ch->segment);
    xi_store_relaxed(&b->call, ref->index + 1);
    /* Release, so that an entry with a key is whole. Repair reads it after our death. */
    xi_store_release(&b->key, XI_BORROW_KEY(ref->generation, group));
}

void xi_call_taken(struct xi_channel *ch, xi_msg *m, uint32_t borrow, const struct xi_call_ref *ref) {
    m->call_from_ = XI_CALL_FROM(ref->slot, ref->index);
    m->call_ = ref->generation;
    m->call_borrow_ = borrow;
    if (ch->is_lane) return; /* a reply: for call.c to find out whose */
    m->holder_ = ch->interp; /* as a block has it */
    xi_interp_hold(ch->interp);
}

/* It is a call no more; a message that borrows keeps its holder. */
static void end(xi_msg *m) {
    struct xi_interp *me = m->holder_;
    if (m->call_borrow_ && xi_alive(me) && !atomic_load_explicit(&me->left, memory_order_acquire))
        xi_borrow_drop(me, m->call_borrow_ - 1);
    m->call_ = 0;
    m->call_borrow_ = 0;
    if (!m->borrow_) m->holder_ = NULL;
    xi_interp_drop(me);
}

void xi_call_abandon(xi_msg *m) {
    struct xi_interp *me = m->holder_;
    if (xi_alive(me) && !atomic_load_explicit(&me->left, memory_order_acquire)) refuse(me, m->call_from_, m->call_);
    end(m);
}

void xi_call_forget(xi_msg *m) { end(m); }

bool xi_call_wanted(const xi_msg *m) {
    struct xi_map_entry *e;
    if (!m->call_ || !xi_alive(m->holder_) || atomic_load_explicit(&m->holder_->left, memory_order_acquire)) return false;
    struct xi_mailbox *mail = xi_mailbox_get(m->holder_, XI_CALL_FROM_SLOT(m->call_from_), &e);
    bool wanted = mail && waits(mail, m->call_from_, m->call_);
    if (mail) xi_mailbox_put(e);
    return wanted;
}

/* ----------------------------------------------------------------- lanes */

static int64_t id_in_slot(struct xi_interp *me, uint32_t slot) {
    struct xi_slot *s = (struct xi_slot *)(uintptr_t)&me->registry->slots[slot];
    return xi_load_acquire(&s->state) == XI_SLOT_LIVE ? xi_load_acquire(&s->id) : 0;
}

/* Takes those out that nobody uses and whose callers have gone, and returns them. Caller holds the mutex. */
static struct xi_lane *take_stale(struct xi_interp *me) {
    struct xi_lane *stale = NULL;
    for (struct xi_lane **p = &me->lanes, *l; (l = *p);) {
        bool gone = xi_load_acquire(&l->ch->chan->closed) == XI_CHAN_REMOVED;
        if (l->users || !gone) {
            p = &l->next;
            continue;
        }
        *p = l->next;
        l->next = stale;
        stale = l;
    }
    return stale;
}

static void close_all(struct xi_lane *l) {
    while (l) {
        struct xi_lane *next = l->next;
        xi_channel_close_inner(l->ch);
        free(l);
        l = next;
    }
}

void xi_lanes_prune(struct xi_interp *me) {
    pthread_mutex_lock(&me->calls_mutex);
    struct xi_lane *gone = atomic_load(&me->left) ? NULL : take_stale(me);
    pthread_mutex_unlock(&me->calls_mutex);
    close_all(gone);
}

static struct xi_lane *find_lane(struct xi_interp *me, int64_t caller) {
    struct xi_lane *l = me->lanes;
    while (l && l->caller != caller) l = l->next;
    if (l) l->users++;
    return l;
}

static int open_lane(struct xi_interp *me, int64_t caller, struct xi_lane **out) {
    char name[80];
    struct xi_lane *l = calloc(1, sizeof *l);
    if (!l) return xi_fail(XI_E_NOMEM, "no memory for the way to a caller");
    xi_lane_name(caller, name);
    int rc = xi_open_inner(me, name, &(xi_open_opts){.flags = XI_OPEN_SEND | XI_OPEN_EXISTING}, &l->ch);
    if (rc) {
        free(l);
        return rc;
    }
    l->caller = caller;
    pthread_mutex_lock(&me->calls_mutex);
    struct xi_lane *stale = take_stale(me), *other = find_lane(me, caller);
    if (!other) {
        l->users = 1;
        l->next = me->lanes;
        me->lanes = l;
    }
    pthread_mutex_unlock(&me->calls_mutex);
    close_all(stale);
    if (other) { /* another thread was faster */
        l->next = NULL;
        close_all(l);
    }
    *out = other ? other : l;
    return 0;
}

static int lane_to(struct xi_interp *me, uint32_t slot, struct xi_lane **out) {
    int64_t caller = id_in_slot(me, slot);
    if (!caller) return XI_E_NOENT;
    pthread_mutex_lock(&me->calls_mutex);
    *out = find_lane(me, caller);
    pthread_mutex_unlock(&me->calls_mutex);
    return *out ? 0 : open_lane(me, caller, out);
}

static void lane_done(struct xi_interp *me, struct xi_lane *l) {
    pthread_mutex_lock(&me->calls_mutex);
    l->users--;
    pthread_mutex_unlock(&me->calls_mutex);
}

/* --------------------------------------------------------------- replying */

/* There is nothing more to do for it. Where no more messages can be kept so it is given back when it is released, and
 * acknowledged by whoever gets it next, since nobody wants a reply any more. */
static void settle(xi_msg *m) {
    end(m);
    if (m->delivery_) (void)xi_ack_keep(m);
}

static int stale(xi_msg *m) {
    settle(m);
    return xi_fail(XI_E_STALE, "the caller has gone, or waits no more: the reply is for nobody");
}

/* True if the way to the caller is no more. */
static bool is_gone(int rc) {
    return rc == XI_E_NOENT || rc == XI_E_REMOVED || rc == XI_E_CLOSED || rc == XI_E_NO_CONSUMER;
}

static int reply(xi_msg *m, const void *value, size_t size, xi_loan *loan, const xi_send_opts *o) {
    struct xi_interp *me = m->holder_;
    struct xi_calling c = {.ref = {XI_CALL_FROM_SLOT(m->call_from_), XI_CALL_FROM_INDEX(m->call_from_), m->call_}};
    struct xi_lane *lane;
    if (!xi_call_wanted(m)) return stale(m);
    int rc = lane_to(me, c.ref.slot, &lane);
    if (rc == 0) {
        bool in = false;
        rc = xi_send_call(lane->ch, value, size, loan, o, &c, &in);
        lane_done(me, lane);
        if (in) xi_wait_exit(lane->ch);
    }
    if (is_gone(rc)) return stale(m);
    if (rc == 0) settle(m);
    return rc;
}

static int check(const xi_msg *m) {
    if (!m || !m->call_) return xi_fail(XI_E_INVAL, "the message is not a request that waits for a reply, or was replied to");
    if (!xi_alive(m->holder_)) return xi_fail_forked();
    return xi_interp_stopped(m->holder_) == XI_E_LEFT ? XI_E_LEFT : 0;
}

int xi_reply(xi_msg *m, const void *value, size_t size, int64_t timeout) {
    int rc = check(m);
    if (rc) return rc;
    if (value) return reply(m, value, size, NULL, &(xi_send_opts){.timeout = timeout});
    refuse(m->holder_, m->call_from_, m->call_);
    settle(m);
    return 0;
}

int xi_reply_loan(xi_msg *m, xi_loan *loan, size_t size, const xi_send_opts *o) {
    int rc = check(m);
    return rc ? rc : reply(m, NULL, size, loan, o ? o : &(xi_send_opts){.timeout = XI_FOREVER});
}
