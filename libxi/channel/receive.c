/* SPDX-License-Identifier: MIT */
/*
 * Receiving: the stores of a receive in the order that wire/layout.h gives
 * ("Receive"), and everything that must be found out before the first of them.
 * tests/model/records.pml explores them with deaths in between.
 *
 * A block's segment is mapped and a borrow entry taken before the group's lock,
 * since both may need a system call; under the lock the record is looked at
 * again. A record that no correct sender writes is skipped and counted: the call
 * that met it returns XI_E_CORRUPT, the channel goes on.
 *
 * A value whose time is over is received as any other, so that a death at any
 * instruction is judged the same, but goes to nobody (dead.c).
 */
#include <string.h>

#include "call.h"
#include "record.h"

#define BATCH_MAX 32767u

/* What the next record is, as far as its header and (checked under the lock) position tell. */
struct next {
    uint64_t head, header;
    struct xi_descriptor d;
};

/* What a block or a call needs, to be taken once its record proves to be still the next. */
struct prepared {
    struct xi_map_entry *entry;
    uint32_t borrow, call_borrow; /* index + 1 */
    struct xi_descriptor d;
    bool refused;    /* the descriptor cannot be: skip the record */
};

/* True if the ring is not the channel's own, where nobody looks without a lock. Acquire: pairs with the store of `ring`. */
static inline bool far(const struct xi_channel *ch) { return xi_load_acquire(&ch->chan->ring) != 0; }

/*
 * Whether there is a record, and at home which. The word `ring` comes first: if the ring moves away after that look, what
 * lies at home says what was there at that moment.
 */
static inline bool look(struct xi_channel *ch, struct next *n) {
    bool at_home = !far(ch);
    n->head = xi_load_acquire(&ch->group->head);
    n->header = 0;
    if (__builtin_expect(!at_home, 0)) return xi_log_tail_beyond(ch, n->head);
    /* Pairs with publish() in log.c: a header that is there has its payload behind it. */
    n->header = xi_load_acquire(xi_look_at(ch, n->head));
    return n->header != 0;
}

/* No record was there: 1 there is one now, 0 there may be one later, or why there never will be. */
static int nothing_there(struct xi_channel *ch, struct next *n) {
    if (xi_home_bare(ch) && xi_log_tail_beyond(ch, n->head)) { /* the first that this handle sees */
        int rc = xi_home_back(ch);
        if (rc) return rc;
        if (look(ch, n)) return 1;
    }
    uint32_t closed = xi_load_acquire(&ch->chan->closed);
    bool producers = xi_has_producers(ch);
    if (__builtin_expect(!xi_group_lives(ch) || closed == XI_CHAN_REMOVED, 0)) return xi_fail_ended(ch);
    if (__builtin_expect(!closed && producers, 1)) return 0;
    /* A send may have come after our look, and before the close or the end of the last who sent. */
    if (look(ch, n)) return 1;
    if (closed) return xi_fail_closed(ch);
    return xi_fail(XI_E_NO_PRODUCER, "channel \"%s\" is empty, and nobody has it open to send", ch->name);
}

/* 1 there is a record (n->header is 0 if it lies where only the lock lets us look), 0 none; none and never again: CLOSED,
 * REMOVED, LEFT, NO_PRODUCER. */
static inline int peek(struct xi_channel *ch, struct next *n) {
    return __builtin_expect(look(ch, n), 1) ? 1 : nothing_there(ch, n);
}

/* 2 and 3 of "Receive". */
static inline void commit(struct xi_channel *ch, uint64_t seq, uint64_t head) {
    xi_store_relaxed(&ch->group->head_seq, seq);
    xi_store_release(&ch->group->head, head); /* THE RECEIVE. Pairs with the sender's look for space. */
}

/* Under the group's lock. Steps over what cannot be read: one record if its length can be trusted, else to the tail. */
static int skip_corrupt(struct xi_channel *ch, uint64_t head, uint64_t h) {
    struct xi_group *g = ch->group;
    const struct xi_view *v = &ch->receive_view;
    uint32_t length = XI_REC_LENGTH(h);
    uint64_t tail = xi_load_acquire(&ch->chan->tail), next = xi_ring_next(head, length);
    if (!xi_ring_length_whole(length, v->capacity) || !xi_is_aligned(head, 8) || !xi_ring_behind(next, tail, v->capacity))
        next = tail & ~(uint64_t)7;
    uint64_t seq = next == (tail & ~(uint64_t)7) ? xi_load_relaxed(&ch->chan->tail_seq) : xi_load_relaxed(&g->head_seq) + 1;
    xi_bump(&g->corrupt, 1);
    xi_add_relaxed(&ch->interp->own->counters.corrupt, 1);
    xi_note_skip(ch);
    commit(ch, seq, next);
    return xi_fail(XI_E_CORRUPT, "channel \"%s\" held a record at %llu that cannot be (header %016llx); it was skipped",
                   ch->name, (unsigned long long)head, (unsigned long long)h);
}

/* -------------------------------------------------------- blocks and calls */

/* True if it is taken alone, since something has to be prepared for it: a block, or a call or its reply. */
static inline bool taken_alone(const struct xi_channel *ch, uint64_t h) {
    return XI_REC_KIND(h) == XI_REC_BLOCK || (XI_REC_FLAGS(h) & XI_REC_F_CALL && ch->serves);
}
static inline bool is_call(const struct xi_channel *ch, uint64_t h) { return XI_REC_FLAGS(h) & XI_REC_F_CALL && ch->serves; }

static void unprepare(struct xi_channel *ch, struct prepared *p) {
    if (p->entry) xi_maps_put(p->entry);
    if (p->borrow) xi_borrow_drop(ch->interp, p->borrow - 1);
    if (p->call_borrow) xi_borrow_drop(ch->interp, p->call_borrow - 1);
    *p = (struct prepared){0};
}

static int prepare_borrow(struct xi_channel *ch, uint32_t *borrow) {
    uint32_t index;
    int rc = xi_borrow_take(ch->interp, &index);
    if (rc == 0) *borrow = index + 1;
    return rc;
}

/* Maps the segment and takes borrow entries. An error is one of this process; a bad descriptor is `refused`. */
static int prepare(struct xi_channel *ch, const struct next *n, struct prepared *p) {
    int rc = 0;
    *p = (struct prepared){0};
    if (XI_REC_KIND(n->header) == XI_REC_BLOCK) {
        p->d = n->d;
        rc = xi_descriptor_map(ch, &n->d, &p->entry);
        p->refused = rc == 0 && !p->entry; /* or it was received by another meanwhile: see receive_alone */
        if (rc == 0) rc = prepare_borrow(ch, &p->borrow);
    }
    if (rc == 0 && is_call(ch, n->header) && !ch->is_lane) rc = prepare_borrow(ch, &p->call_borrow);
    if (rc) unprepare(ch, p);
    return rc;
}

/* Under the group's lock, for the record that was prepared. */
static void take_block(struct xi_channel *ch, xi_msg *m, const struct next *n, struct prepared *p) {
    struct xi_borrow *b = xi_borrow_at(ch->interp, p->borrow - 1);
    xi_store_relaxed(&b->block, (uint64_t)n->d.segment << 32 | n->d.granule);
    xi_store_relaxed(&b->position, n->head);
    xi_store_relaxed(&b->chan_seg, ch->segment);
    /* Release, so that an entry with a key is whole. Repair reads it after our death, collection after the head. */
    xi_store_release(&b->key, XI_BORROW_KEY(n->d.generation, ch->group_index));
    m->block_ = (xi_handle){n->d.segment, n->d.granule, n->d.generation};
    m->borrow_ = p->borrow;
    m->group_ = ch->group_index | XI_REC_FLAGS(n->header) << 8;
    m->holder_ = ch->interp;
    m->map_ = p->entry;
    m->data = (const uint8_t *)p->entry->map.base + (size_t)n->d.granule * XI_GRANULE;
    m->size = n->d.size;
    xi_interp_hold(ch->interp);
    p->entry = NULL;
    p->borrow = 0;
}

/* What lies at the head, under the group's lock. */
static void read_next(struct xi_channel *ch, struct next *n) {
    n->head = xi_load_relaxed(&ch->group->head);
    n->header = xi_load_acquire(xi_header_at(&ch->receive_view, n->head));
    xi_descriptor_read(&ch->receive_view, n->head, &n->d);
}

/* Under the lock: takes the record that was prepared. 1, or an error. */
static int take_alone(struct xi_channel *ch, xi_msg *m, const struct next *n, struct prepared *p, bool *late) {
    const struct xi_view *v = &ch->receive_view;
    struct xi_call_ref ref = {0};
    bool call = is_call(ch, n->header);
    if (p->refused || (call && !xi_call_ref_read(v, n->head, n->header, &ref))) return skip_corrupt(ch, n->head, n->header);
    int rc = p->borrow ? 0 : xi_take_inline(v, m, n->head, n->header);
    if (rc) return rc;
    *late = xi_record_expired(v, n->head, n->header);
    if (p->call_borrow) xi_call_note(ch, p->call_borrow - 1, ch->group_index, &ref, n->head);
    if (p->borrow) take_block(ch, m, n, p);
    commit(ch, xi_load_relaxed(&ch->group->head_seq) + 1, xi_ring_next(n->head, XI_REC_LENGTH(n->header)));
    xi_bump(*late ? &ch->group->expired : &ch->received, 1);
    if (call) xi_call_taken(ch, m, p->call_borrow, &ref);
    p->call_borrow = 0;
    return 1;
}

/* 1 received, 0 nothing was, or nothing that may still be handed out, or an error. */
static int receive_alone(struct xi_channel *ch, xi_msg *m, struct next *n, int64_t timeout) {
    struct prepared p;
    struct next now;
    bool late = false;
    int rc = prepare(ch, n, &p);
    if (rc) return rc;
    rc = xi_lock_receive(ch, timeout);
    if (rc == 0) {
        read_next(ch, &now);
        /* Otherwise it is not the record that was prepared any more. */
        bool same = now.head == n->head && now.header == n->header && (!p.borrow || memcmp(&now.d, &p.d, sizeof p.d) == 0);
        if (same) rc = take_alone(ch, m, &now, &p, &late);
        xi_unlock_receive(ch);
    }
    unprepare(ch, &p);
    if (rc == 1 || rc == XI_E_CORRUPT) xi_wake_producers(ch);
    if (late) xi_bury_expired(ch, m);
    else if (rc == 1 && m->call_ && !ch->is_lane && !xi_call_wanted(m)) xi_call_forget(m); /* cancelled: goes to nobody */
    else return rc;
    xi_msg_reset(m);
    return 0;
}

/* ---------------------------------------------------------------- inline */

/*
 * Starts loading the lines that come, as far as it is known that they are written: a line that is still being written
 * would be taken away from the sender. The tail tells, but reading it takes the sender's own line away: so once in many.
 */
#define READ_AHEAD 256
#define TAIL_EVERY 64
static inline void look_ahead(struct xi_channel *ch, const struct xi_view *v, uint64_t head) {
    if (ch->known_tail - head - READ_AHEAD < v->capacity)
        __builtin_prefetch(v->ring + (head & v->mask) + READ_AHEAD - 64, 0);
    else if (++ch->run % TAIL_EVERY == 0)
        ch->known_tail = xi_load_relaxed(&ch->chan->tail);
}

/*
 * Under the group's lock: copies the value at `head`, if it is as most are: it lies in the ring, there is memory for it,
 * and its record has no more than `room` bytes. How many it has; 0: it is not as most.
 */
XI_INLINE uint64_t copy_usual(struct xi_channel *ch, const struct xi_view *v, xi_msg *m, uint64_t head, uint64_t room) {
    uint64_t h = xi_load_acquire(xi_header_at(v, head));
    uint64_t length = XI_REC_LENGTH(h);
    void *where = length <= XI_MSG_SMALL ? (void *)m->small_ : m->heap_;
    bool usual = XI_REC_KIND_AND_FLAGS(h) == XI_REC_INLINE && length >= 8 && ((length | head) & 7) == 0 && 8 + length <= room &&
                 (length <= XI_MSG_SMALL || (length <= ch->inline_max && length <= m->heap_size_));
    if (__builtin_expect(!usual, 0)) return 0;
    look_ahead(ch, v, head);
    copy_words(where, v->ring + (head & v->mask) + 8, length);
    m->data = where;
    m->size = length;
    return 8 + length;
}

/*
 * Takes inline values from the head on, up to n: how many; 0 if the next is none (any more), or was a value whose time
 * is over, which is taken alone; or an error.
 */
static int64_t receive_inline(struct xi_channel *ch, xi_msg *msgs, size_t n, int64_t timeout) {
    struct xi_group *g = ch->group;
    const struct xi_view *v = &ch->receive_view;
    int rc = xi_lock_receive(ch, timeout);
    if (__builtin_expect(rc != 0, 0)) return rc;
    uint64_t start = xi_load_relaxed(&g->head), head = start, seq = xi_load_relaxed(&g->head_seq);
    size_t done = 0;
    bool late = false;
    if (n > BATCH_MAX) n = BATCH_MAX;
    while (done < n && !late) {
        uint64_t usual = copy_usual(ch, v, &msgs[done], head, v->capacity - (head - start));
        if (__builtin_expect(usual != 0, 1)) {
            head += usual;
            done++;
            continue;
        }
        uint64_t h = xi_load_acquire(xi_header_at(v, head));
        if (h == 0) break;
        if (__builtin_expect(!xi_header_valid(ch, h) || !xi_is_aligned(head, 8), 0)) {
            if (done == 0) rc = skip_corrupt(ch, head, h);
            break;
        }
        if (taken_alone(ch, h)) break;
        if (xi_ring_next(head, XI_REC_LENGTH(h)) - start > v->capacity) break; /* a ring of garbage would go round for ever */
        late = xi_record_expired(v, head, h);
        if (__builtin_expect(late && done, 0)) {
            late = false;
            break;
        }
        rc = xi_take_inline(v, &msgs[done], head, h);
        if (__builtin_expect(rc != 0, 0)) break;
        head = xi_ring_next(head, XI_REC_LENGTH(h));
        done++;
    }
    if (done) {
        commit(ch, seq + done, head);
        xi_bump(late ? &g->expired : &ch->received, done);
    }
    bool elsewhere = v->word != 0;
    xi_unlock_receive(ch);
    if (done || rc == XI_E_CORRUPT) xi_wake_producers(ch);
    if (__builtin_expect(elsewhere && done, 0)) xi_ring_passed(ch, (uint32_t)done);
    if (__builtin_expect(late && done, 0)) {
        xi_bury_expired(ch, &msgs[0]);
        return 0;
    }
    return done ? (int64_t)done : rc;
}

/* Under the group's lock: takes the next value, if it is as most are. */
XI_INLINE bool take_usual(struct xi_channel *ch, const struct xi_view *view, xi_msg *m) {
    const struct xi_view v = *view; /* a copy: for all the compiler knows a store into the message could change the other */
    uint64_t head = xi_load_relaxed(&ch->group->head), length = xi_group_lives(ch) ? copy_usual(ch, &v, m, head, v.capacity) : 0;
    if (__builtin_expect(length == 0, 0)) return false;
    commit(ch, xi_load_relaxed(&ch->group->head_seq) + 1, head + length);
    xi_bump(&ch->received, 1);
    return true;
}

/* The same in a ring that is not the channel's own, if the view is at it and the group is one that keeps it there. */
__attribute__((noinline)) static bool take_far(struct xi_channel *ch, xi_msg *m) {
    struct xi_chan *c = ch->chan;
    const struct xi_view *v = &ch->receive_view;
    xi_view_take(ch, &ch->receive_view_used);
    bool taken = xi_load_relaxed(&c->ring) == v->word && xi_load_relaxed(&c->active) >> ch->group_index & 1 && take_usual(ch, v, m);
    xi_view_give(ch, &ch->receive_view_used);
    return taken;
}

/* The usual case: one value lies in the ring and there is memory for it. False: nothing was done. */
XI_INLINE bool receive_one(struct xi_channel *ch, xi_msg *m) {
    struct xi_group *g = ch->group;
    /* Before the lock, so that a poll of an empty channel writes nothing. */
    uint64_t h = xi_load_acquire(xi_look_at(ch, xi_load_relaxed(&g->head)));
    if (h == 0 || XI_REC_KIND_AND_FLAGS(h) != XI_REC_INLINE || ch->ack || !xi_try_lock(ch, g)) return false;
    bool home = xi_load_relaxed(&ch->chan->ring) == 0, taken;
    if (__builtin_expect(home, 1)) taken = take_usual(ch, &ch->home, m); /* which never changes: no view is taken */
    else taken = take_far(ch, m);
    xi_unlock(g);
    if (taken) xi_wake_producers(ch);
    if (__builtin_expect(taken && !home, 0)) xi_ring_passed(ch, 1);
    return taken;
}

/* --------------------------------------------------------- the public calls */

static inline int check_receiver(const struct xi_channel *ch) {
    if (__builtin_expect(ch->group_index == XI_NO_GROUP, 0))
        return xi_fail(XI_E_INVAL, "this handle of channel \"%s\" was opened to send only", ch->name);
    return xi_channel_check(ch);
}

/*
 * The next record of a ring that is not the channel's own, which only the lock lets us read: 1, 0 for none after all.
 * There, unlike at home, it is the tail that said there is one: an empty place before it is nothing a sender leaves.
 */
static int read_far(struct xi_channel *ch, struct next *n, int64_t timeout) {
    int rc = xi_lock_receive(ch, timeout);
    if (rc) return rc;
    bool some = xi_log_tail_beyond(ch, xi_load_relaxed(&ch->group->head));
    read_next(ch, n);
    if (n->header) rc = 1;
    else if (some) rc = skip_corrupt(ch, n->head, 0);
    xi_unlock_receive(ch);
    if (rc == XI_E_CORRUPT) xi_wake_producers(ch);
    return rc;
}

/* The next record: 1 and `next` says what it is, 0 none. Where only the lock lets us look, values in the ring are received
 * at once instead: then 2, and *done says how many. */
static int find(struct xi_channel *ch, xi_msg *msgs, size_t n, int64_t timeout, struct next *next, int64_t *done) {
    int rc = peek(ch, next);
    if (rc <= 0) return rc;
    if (__builtin_expect(next->header != 0, 1)) {
        if (XI_REC_KIND(next->header) == XI_REC_BLOCK) xi_descriptor_read(&ch->home, next->head, &next->d);
        return 1;
    }
    *done = receive_inline(ch, msgs, n, timeout);
    if (*done < 0) return (int)*done;
    return *done > 0 ? 2 : read_far(ch, next, timeout);
}

/* What is there now, up to n: how many, or XI_E_AGAIN, XI_E_CLOSED, ... */
static int64_t receive_now(struct xi_channel *ch, xi_msg *msgs, size_t n, int64_t timeout) {
    struct next next;
    if (ch->ack) return xi_ack_receive(ch, msgs, n, timeout);
    for (uint64_t rounds = 0; rounds < xi_rounds_most(ch); rounds++) {
        int64_t done = 0;
        int rc = find(ch, msgs, n, timeout, &next, &done);
        if (rc < 0) return rc;
        if (rc == 0) return XI_E_AGAIN;
        if (rc == 1)
            done = taken_alone(ch, next.header) && xi_header_valid(ch, next.header)
                       ? receive_alone(ch, msgs, &next, timeout)
                       : receive_inline(ch, msgs, n, timeout);
        if (__builtin_expect(done != 0, 1)) return done;
    }
    return XI_E_AGAIN;
}

/*
 * What cannot be is an error of its own. Skipped behind values, which are no error, it is told by the first later call that
 * finds no value ready, or takes several.
 */
static int tell_skipped(struct xi_channel *ch) {
    if (__builtin_expect(!atomic_load_explicit(&ch->skipped, memory_order_relaxed) || !atomic_exchange(&ch->skipped, false), 1))
        return 0;
    return xi_fail(XI_E_CORRUPT, "channel \"%s\" held something that cannot be, behind values received before; it was skipped",
                   ch->name);
}

int xi_receive_try(struct xi_channel *ch, xi_msg *m) {
    xi_msg_reset(m);
    int64_t done = tell_skipped(ch);
    if (__builtin_expect(done == 0, 1)) done = receive_now(ch, m, 1, XI_TRY);
    return done < 0 ? (int)done : 0;
}

/* A look that waits for nobody came to nothing: is there nothing, or does somebody, perhaps stopped, hold what there is? */
static int nothing_now(struct xi_channel *ch) {
    uint32_t holder = xi_load_relaxed(&ch->group->lock);
    struct next next;
    if (ch->ack ? !xi_ack_has_value(ch) : !look(ch, &next)) return xi_fail(XI_E_AGAIN, "channel \"%s\" has nothing to receive", ch->name);
    if (holder)
        return xi_fail(XI_E_AGAIN, "the interpreter in slot %u is receiving from channel \"%s\", and nobody else can meanwhile: is it "
                       "stopped?", XI_LOCK_SLOT(holder), ch->name);
    return xi_fail(XI_E_AGAIN, "channel \"%s\" has something to receive by now: it came, or others were receiving, just when this looked; "
                   "try again", ch->name);
}

/* `in`: see xi_wait_side(). */
static int64_t receive(struct xi_channel *ch, xi_msg *msgs, size_t n, int64_t timeout, bool *in) {
    int64_t done = tell_skipped(ch);
    if (__builtin_expect(done != 0, 0)) return done;
    done = receive_now(ch, msgs, n, timeout);
    if (__builtin_expect(done != XI_E_AGAIN, 1)) return done;
    if (__builtin_expect(far(ch), 0) && xi_ring_look(ch) == XI_E_INTR) return XI_E_INTR;
    if (timeout == XI_TRY) return nothing_now(ch);
    int64_t deadline = xi_deadline(timeout);
    for (;;) {
        int rc = xi_wait_side(ch, XI_SIDE_GROUP(ch->group_index), 0, deadline, in);
        if (rc == XI_E_TIMEOUT) return xi_fail(rc, "nothing came through channel \"%s\" in time", ch->name);
        if (rc) return rc;
        done = n == 1 && receive_one(ch, msgs) ? 1 : receive_now(ch, msgs, n, xi_left(deadline));
        if (done == XI_E_AGAIN && (deadline < 0 || xi_now() < deadline)) continue; /* another consumer was faster */
        /* What is left is another's: after an error too, the ring was for the value that is still there. */
        xi_pass_on(ch, XI_SIDE_GROUP(ch->group_index));
        if (done == XI_E_AGAIN) return xi_fail(XI_E_TIMEOUT, "others were faster than this consumer of channel \"%s\" all the time",
                                               ch->name);
        return done;
    }
}

int xi_recv(xi_channel *ch, xi_msg *msg, int64_t timeout) {
    int rc = check_receiver(ch);
    if (__builtin_expect(rc != 0, 0)) return rc;
    xi_msg_begin(msg);
    xi_free_poll(ch->interp);
    if (__builtin_expect(receive_one(ch, msg), 1)) return 0;
    bool in = false;
    int64_t done = receive(ch, msg, 1, timeout, &in);
    if (in) xi_wait_exit(ch);
    return done < 0 ? (int)done : 0;
}

static int64_t receive_many(struct xi_channel *ch, xi_msg *msgs, size_t n, int64_t timeout, bool *in) {
    int64_t done = receive(ch, msgs, n, timeout, in);
    if (done <= 0) return done;
    for (size_t got = (size_t)done; got < n; got += (size_t)done) {
        uint32_t skips = atomic_load_explicit(&ch->skips, memory_order_relaxed);
        done = receive_now(ch, msgs + got, n - got, XI_TRY);
        if (done > 0) continue;
        /* Any other error comes again with the next call. */
        if (done == XI_E_CORRUPT && atomic_load_explicit(&ch->skips, memory_order_relaxed) != skips) atomic_store(&ch->skipped, true);
        return (int64_t)got;
    }
    return (int64_t)n;
}

int64_t xi_recv_many(xi_channel *ch, xi_msg *msgs, size_t n, int64_t timeout) {
    bool in = false;
    int rc = check_receiver(ch);
    if (rc) return rc;
    for (size_t i = 0; i < n; i++) xi_msg_begin(&msgs[i]);
    xi_free_poll(ch->interp);
    if (n == 0) return 0;
    int64_t done = receive_many(ch, msgs, n, timeout, &in);
    if (in) xi_wait_exit(ch);
    return done;
}
