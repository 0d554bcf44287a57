/* SPDX-License-Identifier: MIT */
/*
 * Receiving in a group that acknowledges. First what is due again, lowest number
 * first: given back, or overdue. Then what is new, as far as the window allows.
 *
 * A value in a block needs its segment mapped, which may be a system call; and one
 * that goes to the dead letters is sent through another channel. Neither is done
 * under the group's lock: the choice says what it wants, lets go of the lock, and
 * when that is done chooses again. tests/model/acks.pml explores the steps, with deaths in between, and lingers.pml those about blocks.
 */
#include "ack.h"
#include "call.h"

#define BATCH_MAX 32767u

/* One call of xi_ack_receive(). */
struct taking {
    struct xi_channel *ch;
    struct xi_ack *a;
    xi_msg *msgs;
    size_t n, done;
    uint64_t now; /* 0: not asked for yet */
    struct xi_flying f;
    bool told;    /* the clock at which sleepers look moved forward: one of them is to know */
    bool owed;    /* a block came back, and its owner is to be told: of one at a time, since one at most is mapped */
    uint32_t owner;
    /* A block that must be mapped before it can be handed out, or has been. */
    struct mapped {
        bool wanted, tried;
        struct xi_descriptor d;
        struct xi_map_entry *entry; /* NULL though tried: the descriptor cannot be */
    } block;
    /* A value that goes elsewhere; `d` is NULL where there is none. */
    struct moving {
        struct xi_delivery *d;
        uint64_t state, number;
        uint32_t deliveries;
        enum xi_letters where;
        struct xi_held_block block;
        xi_msg value;
    } moving;
};

/* A value that is offered, new or again. */
struct offer {
    struct xi_delivery *d;
    uint64_t number, position, header;
    uint64_t state; /* 0: new */
    uint32_t count; /* deliveries so far */
};

/* GONE: it is nobody's. STAYS: for now. LATER: not in this turn: what was taken already is handed out first, or a block
 * must be mapped. */
enum outcome { TAKEN, GONE, STAYS, LATER, MOVES };

static uint64_t now_of(struct taking *t) {
    if (t->now == 0) t->now = (uint64_t)xi_now();
    return t->now;
}

static void owes(struct taking *t, const struct xi_held_block *b) {
    t->owed = true;
    t->owner = b->entry->map.head.owner;
}

/* ------------------------------------------------------------ one value */

static bool is_block(const struct offer *o) { return XI_REC_KIND(o->header) == XI_REC_BLOCK; }

/* True if the block of this record is mapped, or was found to be none. */
static bool block_ready(struct taking *t, const struct offer *o) {
    struct xi_descriptor d;
    xi_descriptor_read(&t->ch->receive_view, o->position, &d);
    if (t->block.tried && memcmp(&d, &t->block.d, sizeof d) == 0) return true;
    t->block.wanted = true;
    t->block.tried = false; /* what is mapped is another's, whose value went elsewhere */
    t->block.d = d;
    return false;
}

static struct xi_held_block held_block(const struct taking *t, const struct offer *o) {
    return (struct xi_held_block){t->block.entry, t->block.d.granule, XI_REC_FLAGS(o->header), t->block.d.generation};
}

/* `next` and what is before it hold: what follows may rely on the delivery. */
static void commit(struct taking *t) {
    struct xi_group *g = t->ch->group;
    xi_store_release(&g->next_seq, t->f.next_seq); /* THE DELIVERY. Release: the entries are whole. */
    xi_store_release(&g->next, t->f.next);
}

static void step_over(struct taking *t, const struct offer *o) {
    if (o->state) return;
    t->f.next_seq = o->number;
    t->f.next = xi_ring_next(o->position, XI_REC_LENGTH(o->header));
}

/* Who asks, where the value is a request. */
static bool is_request(struct taking *t, const struct offer *o, struct xi_call_ref *ref) {
    return XI_REC_FLAGS(o->header) & XI_REC_F_CALL && xi_call_ref_read(&t->ch->receive_view, o->position, o->header, ref);
}

/* It will go to nobody: its caller knows before it goes. */
static void refuse_request(struct taking *t, const struct offer *o) {
    struct xi_call_ref ref;
    if (t->ch->serves && is_request(t, o, &ref)) xi_call_refuse(t->ch->interp, &ref);
}

/* True if whoever had it, and may be reading it, is remembered where that is needed. */
static bool remember_reader(struct taking *t, const struct offer *o) {
    if (!is_block(o) || XI_DELIVERY_STATUS(o->state) != XI_DELIVERY_OUT) return true;
    const struct xi_descriptor *d = &t->block.d;
    return xi_linger_add(t->a, o->state, o->number, (uint64_t)d->segment << 32 | d->granule, d->generation);
}

/* A value that is nobody's: acknowledged by whoever finds it, who never had it. */
static void drop(struct taking *t, const struct offer *o, enum xi_gone why) {
    refuse_request(t, o);
    struct xi_held_block b = held_block(t, o);
    bool held = is_block(o) && b.entry;
    if (!o->state) {
        xi_store_relaxed(&o->d->position, o->position);
        xi_store_relaxed(&o->d->count, 0);
        xi_store_relaxed(&o->d->due, 0);
        /* Once it has been delivered it may be done: its block is not released before. */
        xi_store_release(&o->d->state, XI_DELIVERY(XI_DELIVERY_READY, 0, 0, 0, 0));
        step_over(t, o);
        commit(t);
    }
    if (xi_delivery_gone(t->ch, o->number, held ? &b : NULL, !o->state, why)) owes(t, &b);
}

/* The message's part in a block: its mapping. */
static void hold_block(struct taking *t, const struct offer *o, xi_msg *m) {
    const struct xi_descriptor *d = &t->block.d;
    m->block_ = (xi_handle){d->segment, d->granule, d->generation};
    m->borrow_ = XI_BORROWED_BY_DELIVERY;
    m->group_ = t->ch->group_index | XI_REC_FLAGS(o->header) << 8;
    m->holder_ = t->ch->interp;
    m->map_ = t->block.entry;
    m->data = (const uint8_t *)t->block.entry->map.base + (size_t)d->granule * XI_GRANULE;
    m->size = d->size;
    t->block = (struct mapped){0};
}

static int take_value(struct taking *t, const struct offer *o, xi_msg *m) {
    if (!is_block(o)) return xi_take_inline(&t->ch->receive_view, m, o->position, o->header);
    hold_block(t, o, m);
    return 0;
}

static uint64_t word(const struct taking *t, uint32_t status, uint32_t reason, uint32_t count) {
    return XI_DELIVERY(status, reason, count, t->ch->interp->slot, t->a->handle);
}

static uint32_t reason_of(const struct offer *o) {
    return XI_DELIVERY_STATUS(o->state) == XI_DELIVERY_OUT ? XI_BACK_OVERDUE : XI_DELIVERY_REASON(o->state);
}

/* 1 and 2 of "Dead letters": the rest is done without the lock. */
static int begin_move(struct taking *t, const struct offer *o, enum xi_letters where, enum outcome *what) {
    struct moving *m = &t->moving;
    refuse_request(t, o);
    m->block = is_block(o) ? held_block(t, o) : (struct xi_held_block){0};
    *what = STAYS;
    if (!remember_reader(t, o)) return 0;
    m->value = (xi_msg)XI_MSG_INIT;
    int rc = take_value(t, o, &m->value);
    if (rc) return rc;
    uint32_t reason = where == XI_LETTERS_EXPIRED ? XI_BACK_EXPIRED : reason_of(o);
    m->d = o->d;
    m->number = o->number;
    m->where = where;
    m->deliveries = o->count;
    m->state = word(t, XI_DELIVERY_MOVING, reason, o->count);
    if (!o->state) xi_store_relaxed(&o->d->position, o->position);
    xi_store_relaxed(&o->d->count, o->count);
    xi_store_relaxed(&o->d->due, UINT64_MAX);
    xi_store_release(&o->d->state, m->state); /* Release: the three above. Pairs with the repair's look. */
    step_over(t, o);
    *what = MOVES;
    return 0;
}

/* Hands it to message `m`. Of a new value nothing has happened yet: commit() is the delivery. */
static int deliver(struct taking *t, const struct offer *o, xi_msg *m, enum outcome *what) {
    struct xi_channel *ch = t->ch;
    uint64_t due = t->a->timeout_ns ? now_of(t) + t->a->timeout_ns : UINT64_MAX;
    struct xi_call_ref ref;
    bool request = ch->serves && is_request(t, o, &ref);
    *what = STAYS;
    if (!remember_reader(t, o)) return 0;
    int rc = take_value(t, o, m);
    if (rc) return rc;
    if (!o->state) {
        xi_store_relaxed(&o->d->position, o->position);
        xi_store_relaxed(&o->d->due, due);
    }
    xi_store_relaxed(&o->d->count, o->count + 1);
    xi_store_release(&o->d->state, word(t, XI_DELIVERY_OUT, o->state ? reason_of(o) : 0, o->count + 1));
    if (o->state) { /* THE DELIVERY was that store. `due` after it, or a death in between would leave a wrong one. */
        xi_store_relaxed(&o->d->due, due);
        xi_bump(&ch->group->redelivered, 1);
    }
    step_over(t, o);
    if (due != UINT64_MAX) t->told |= xi_due_by(ch, due);
    m->delivery_ = o->number;
    m->count_ = o->count + 1;
    m->handle_number_ = t->a->handle;
    m->channel_ = ch;
    xi_channel_hold(ch);
    if (request) xi_call_taken(ch, m, 0, &ref);
    xi_bump(&ch->received, 1);
    *what = TAKEN;
    return 0;
}

/* What becomes of a value that is due: 0 and *what, or an error, with nothing changed. */
static int offer_value(struct taking *t, const struct offer *o, enum outcome *what) {
    struct xi_channel *ch = t->ch;
    *what = LATER;
    if (is_block(o) && !block_ready(t, o)) return 0;
    if (is_block(o) && !t->block.entry) {
        if (t->done) return 0;
        drop(t, o, XI_GONE_CORRUPT);
        xi_add_relaxed(&ch->interp->own->counters.corrupt, 1);
        xi_note_skip(ch);
        return xi_fail(XI_E_CORRUPT, "value %llu of channel \"%s\" names a block that is not there; it was skipped",
                       (unsigned long long)o->number, ch->name);
    }
    bool late = xi_record_expired(&ch->receive_view, o->position, o->header);
    bool spent = t->a->max_deliveries && o->count >= t->a->max_deliveries;
    if (!late && !spent) return deliver(t, o, &t->msgs[t->done], what);
    if (late ? ch->dead[0] : t->a->dead[0])
        return t->done ? 0 : begin_move(t, o, late ? XI_LETTERS_EXPIRED : XI_LETTERS_DEAD, what);
    *what = STAYS;
    if (!remember_reader(t, o)) return 0;
    *what = GONE;
    drop(t, o, late ? XI_GONE_EXPIRED : XI_GONE_DEAD);
    return 0;
}

/* --------------------------------------------------------- which values */

/* Reads the record of a value in flight. False: it is not what the table says. */
static bool read_again(struct taking *t, struct offer *o) {
    const struct xi_view *v = &t->ch->receive_view;
    o->position = xi_load_relaxed(&o->d->position);
    if (!xi_is_aligned(o->position, 8) || o->position - t->f.head >= t->f.next - t->f.head) return false;
    o->header = xi_load_acquire(xi_header_at(v, o->position));
    o->count = XI_DELIVERIES(xi_load_relaxed(&o->d->count), o->state);
    return xi_header_valid(t->ch, o->header) && XI_REC_SEQ(o->header) == (uint16_t)o->number;
}

/* True if it is due; otherwise *when says when it will be. */
static bool is_due(const struct offer *o, uint64_t now, uint64_t *when) {
    uint32_t status = XI_DELIVERY_STATUS(o->state);
    if (status == XI_DELIVERY_DONE || status == XI_DELIVERY_MOVING) return false;
    uint64_t due = xi_load_relaxed(&o->d->due);
    if (due <= now) return true;
    if (due < *when) *when = due;
    return false;
}

/* Hands out what is due again. 1: look no further; 0: go on with what is new; or an error. */
static int take_again(struct taking *t) {
    struct xi_group *g = t->ch->group;
    uint64_t when = UINT64_MAX, now = now_of(t), last = t->f.next_seq;
    for (uint64_t n = t->f.head_seq + 1; n != last + 1; n++) {
        struct offer o = {.d = xi_delivery_of(t->a, n), .number = n};
        o.state = xi_load_relaxed(&o.d->state);
        if (!o.state) o.state = XI_DELIVERY(XI_DELIVERY_READY, 0, 0, 0, 0); /* in flight and free: somebody wrote it */
        if (!is_due(&o, now, &when)) continue;
        if (t->done == t->n) return 1; /* next_due stays as it is: in the past */
        enum outcome what;
        if (!read_again(t, &o)) return t->done ? 1 : xi_flying_reset(t->ch); /* an error is told where nothing is handed out */
        int rc = offer_value(t, &o, &what);
        if (rc) return rc;
        if (what == STAYS && now + XI_ACK_RETRY_NS < when) when = now + XI_ACK_RETRY_NS;
        if (what == LATER || what == MOVES) return 1;
        t->done += what == TAKEN;
    }
    uint64_t due = t->done && t->a->timeout_ns ? now + t->a->timeout_ns : UINT64_MAX;
    xi_store_full(&g->next_due, due < when ? due : when);
    return 0;
}

/* A record at `next` that cannot be. Where nothing is in flight the group goes on behind it, or at the tail. */
static int skip_new(struct taking *t, const struct offer *o) {
    struct xi_channel *ch = t->ch;
    const struct xi_view *v = &ch->receive_view;
    uint32_t length = XI_REC_LENGTH(o->header);
    uint64_t tail = xi_load_acquire(&ch->chan->tail) & ~(uint64_t)7, next = xi_ring_next(t->f.next, length);
    bool whole = xi_ring_length_whole(length, v->capacity) && xi_ring_behind(next, tail, v->capacity);
    if (!whole && t->f.next_seq != t->f.head_seq)
        return xi_fail(XI_E_CORRUPT, "channel \"%s\" holds a record at %llu that cannot be (header %016llx); it is skipped when "
                       "everything before it is acknowledged", ch->name, (unsigned long long)t->f.next,
                       (unsigned long long)o->header);
    xi_add_relaxed(&ch->interp->own->counters.corrupt, 1);
    xi_note_skip(ch);
    if (whole) {
        struct offer skipped = *o;
        skipped.header = XI_REC(length, XI_REC_INLINE, 0, 0);
        drop(t, &skipped, XI_GONE_CORRUPT);
    } else {
        xi_bump(&ch->group->corrupt, 1);
        t->f = (struct xi_flying){tail, xi_load_relaxed(&ch->chan->tail_seq), tail, xi_load_relaxed(&ch->chan->tail_seq)};
        commit(t);
        xi_store_relaxed(&ch->group->head_seq, t->f.head_seq);
        xi_store_release(&ch->group->head, t->f.head);
    }
    return xi_fail(XI_E_CORRUPT, "channel \"%s\" held a record at %llu that cannot be (header %016llx); it was skipped",
                   ch->name, (unsigned long long)o->position, (unsigned long long)o->header);
}

/* The header at `next`, 0 where there is nothing. Under the lock. */
static uint64_t header_at_next(const struct taking *t) {
    return xi_load_acquire(xi_header_at(&t->ch->receive_view, t->f.next)); /* pairs with the send, as in receive.c */
}

/* Hands out what is new. As take_again(). */
static int take_new(struct taking *t) {
    uint64_t most = t->n < BATCH_MAX ? t->n : BATCH_MAX;
    while (t->done < most && t->f.next_seq - t->f.head_seq < t->a->window) {
        struct offer o = {.number = t->f.next_seq + 1, .position = t->f.next, .header = header_at_next(t)};
        /* In a ring that is not the channel's own it is the tail that says what is there (channel.h). */
        bool far = t->ch->receive_view.word != 0;
        if (o.header == 0 && !(far && xi_log_tail_beyond(t->ch, o.position))) break;
        o.d = xi_delivery_of(t->a, o.number);
        bool fits = xi_ring_next(t->f.next, XI_REC_LENGTH(o.header)) - t->f.head <= t->ch->receive_view.capacity;
        if (!xi_header_valid(t->ch, o.header) || !fits) return t->done ? 1 : skip_new(t, &o);
        enum outcome what;
        int rc = offer_value(t, &o, &what);
        if (rc) return rc;
        if (what == LATER || what == MOVES) return 1;
        t->done += what == TAKEN;
    }
    return 0;
}

/* Under the lock. Chooses, and stores what was chosen. 0, or an error with which nothing was taken. */
static int choose(struct taking *t) {
    struct xi_group *g = t->ch->group;
    t->now = 0;
    t->block.wanted = false;
    if (!xi_flying_read(t->ch, &t->f)) return xi_flying_reset(t->ch);
    uint64_t before = t->f.next_seq, due = xi_load_relaxed(&g->next_due);
    int rc = due != UINT64_MAX && now_of(t) >= due ? take_again(t) : 0;
    if (rc == 0) rc = take_new(t);
    if (t->f.next_seq != before) commit(t);
    return rc < 0 && t->done == 0 ? rc : 0;
}

/* ------------------------------------------------------------- elsewhere */

/* Without the lock: whoever waits for what was done under it. */
static void tell(struct taking *t, bool moved) {
    struct xi_channel *ch = t->ch;
    if (moved) {
        xi_wake_producers(ch);
        xi_pass_on(ch, XI_SIDE_GROUP(ch->group_index)); /* the window moved too, or all is done */
    }
    if (t->told) xi_wake_one(ch);
    if (t->owed) xi_tell_owner(ch->interp, t->owner);
    t->owed = t->told = false;
}

/*
 * Takes the lock whatever signals come, though the handle is being closed, and though a stopped process has it for long. Not
 * for ever: its word may be anybody's writing. What is not done then is done when we leave, or die: so the lock is waited
 * for for longer than whoever only tells that it names nobody needs (lock.c).
 */
#define LOCK_SURELY_NS (20 * XI_LOCK_ABANDON_NS)
static int lock_surely(struct xi_channel *ch) {
    int64_t deadline = xi_now() + LOCK_SURELY_NS;
    int rc;
    do rc = xi_lock(ch, ch->group, xi_left(deadline));
    while (rc == XI_E_INTR || (rc == XI_E_LEFT && !atomic_load(&ch->interp->leaving)));
    return rc;
}

static const char *reason_text(uint32_t reason) {
    static const char *const texts[] = {"unknown", "nacked", "overdue", "died", "left", "expired"};
    return texts[reason < sizeof texts / sizeof *texts ? reason : 0];
}

/* 4 of "Dead letters". */
static int end_move(struct taking *t, int sent) {
    struct xi_channel *ch = t->ch;
    struct xi_group *g = ch->group;
    struct moving *m = &t->moving;
    bool moved = false, soon = false;
    int rc = lock_surely(ch);
    if (rc) return rc;
    if (!xi_group_lives(ch) || xi_load_relaxed(&m->d->state) != m->state) { /* the group has ended, or somebody wrote there */
        if (m->block.entry && xi_linger_end(ch, m->number, m->deliveries, &m->block)) owes(t, &m->block);
        xi_unlock(g);
        tell(t, false);
        return 0;
    }
    if (sent == XI_E_AGAIN) {
        uint64_t when = (uint64_t)xi_now() + XI_ACK_RETRY_NS;
        /* First the state: while it is MOVING, `due` says whether it was sent. */
        xi_store_release(&m->d->state, (m->state & ~(uint64_t)0xff) | XI_DELIVERY_READY);
        xi_store_relaxed(&m->d->due, when);
        soon = xi_due_by(ch, when);
    } else {
        enum xi_gone why = m->where == XI_LETTERS_EXPIRED ? XI_GONE_EXPIRED : XI_GONE_DEAD;
        if (xi_delivery_gone(ch, m->number, m->block.entry ? &m->block : NULL, m->deliveries == 0, why)) owes(t, &m->block);
        moved = xi_flying_settle(ch);
    }
    xi_unlock(g);
    t->told |= soon;
    tell(t, moved);
    return 0;
}

static int move_elsewhere(struct taking *t) {
    struct moving *m = &t->moving;
    char group[32];
    memcpy(group, t->ch->group->name, sizeof group);
    group[sizeof group - 1] = 0;
    struct xi_letter letter = {reason_text(XI_DELIVERY_REASON(m->state)), group, m->deliveries, &m->d->due, &m->d->count};
    int rc = end_move(t, xi_letter_send(t->ch, m->where, &m->value, &letter));
    if (m->value.map_) xi_maps_put(m->value.map_);
    m->value.borrow_ = 0;
    xi_msg_release(&m->value);
    m->d = NULL;
    return rc;
}

static int map_wanted(struct taking *t) {
    if (t->block.entry) xi_maps_put(t->block.entry);
    int rc = xi_descriptor_map(t->ch, &t->block.d, &t->block.entry);
    t->block.tried = rc == 0;
    return rc;
}

/* ------------------------------------------------------------------ the call */

/* Nothing could be taken: why. Without the lock. */
static int why_nothing(struct xi_channel *ch) {
    struct xi_group *g = ch->group;
    uint32_t closed = xi_load_acquire(&ch->chan->closed);
    bool producers = xi_has_producers(ch);
    if (!xi_group_lives(ch) || closed == XI_CHAN_REMOVED) return xi_fail_ended(ch);
    if (!closed && producers) return XI_E_AGAIN;
    /* A send may have come after our look, and before the end; and what is not acknowledged may come back. */
    uint64_t head_seq = xi_load_full(&g->head_seq), next_seq = xi_load_full(&g->next_seq), next = xi_load_full(&g->next);
    if (head_seq != next_seq || xi_log_value_at(ch, next)) return XI_E_AGAIN;
    if (closed) return xi_fail_closed(ch);
    return xi_fail(XI_E_NO_PRODUCER, "channel \"%s\" is empty, all of it acknowledged, and nobody has it open to send",
                   ch->name);
}

/* One turn. 0: nothing was taken, but there may be something now; else an error, or that there is nothing. */
static int turn(struct taking *t, int64_t timeout) {
    struct xi_channel *ch = t->ch;
    if (!xi_ack_has_value(ch)) return why_nothing(ch);
    int rc = xi_lock_receive(ch, timeout);
    if (rc) return rc;
    rc = choose(t);
    bool moved = xi_flying_settle(ch);
    xi_unlock_receive(ch);
    tell(t, moved || rc == XI_E_CORRUPT); /* what cannot be was skipped, which makes room */
    if (rc || t->done) return rc;
    if (t->moving.d) return move_elsewhere(t);
    if (t->block.wanted) return map_wanted(t);
    return moved ? 0 : why_nothing(ch); /* what is over by now has made room in the window for what is new */
}

/* Requests whose callers wait no more are acknowledged, and go to nobody. Returns how many messages are left. */
static size_t drop_unwanted(xi_msg *msgs, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (msgs[i].call_ && !xi_call_wanted(&msgs[i])) {
            if (xi_ack(&msgs[i]) != 0) xi_msg_reset(&msgs[i]); /* then the next finds it so */
            continue;
        }
        if (kept != i) {
            xi_msg_release(&msgs[kept]);
            xi_msg_move(&msgs[kept], &msgs[i]);
        }
        kept++;
    }
    return kept;
}

int64_t xi_ack_receive(struct xi_channel *ch, xi_msg *msgs, size_t n, int64_t timeout) {
    struct taking t; /* not cleared: the message in it is large */
    t.ch = ch;
    t.a = ch->ack;
    t.msgs = msgs;
    t.n = n;
    t.done = 0;
    t.owed = t.told = false;
    t.block = (struct mapped){0};
    t.moving.d = NULL;
    int rc = 0;
    uint64_t most = xi_rounds_most(ch) + t.a->window;
    for (uint64_t rounds = 0; rc == 0 && t.done == 0; rounds++) {
        rc = rounds < most ? turn(&t, timeout) : XI_E_AGAIN;
        t.done = drop_unwanted(msgs, t.done);
    }
    if (t.block.entry) xi_maps_put(t.block.entry);
    return t.done ? (int64_t)t.done : rc;
}

bool xi_ack_has_value(struct xi_channel *ch) {
    const struct xi_ack *a = ch->ack;
    struct xi_group *g = ch->group;
    /* Sequentially consistent, so that after parking this look is not done before the bits are set. */
    uint64_t due = xi_load_full(&g->next_due);
    if (due != UINT64_MAX && (uint64_t)xi_now() >= due) return true;
    uint64_t head_seq = xi_load_full(&g->head_seq), next_seq = xi_load_full(&g->next_seq), next = xi_load_full(&g->next);
    bool some = xi_log_value_at(ch, next);
    if (some && next_seq - head_seq < a->window) return true;
    if (next_seq - head_seq > a->window) return true; /* it cannot be: to be found out under the lock */
    if (!xi_group_lives(ch) || xi_load_full(&ch->chan->closed) == XI_CHAN_REMOVED) return true;
    /* The end is there when nothing is left, and nothing may come back: the caller finds out which end it is. */
    return !some && head_seq == next_seq && (xi_load_full(&ch->chan->closed) != 0 || !xi_has_producers(ch));
}
