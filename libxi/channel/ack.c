/* SPDX-License-Identifier: MIT */
/*
 * Groups that acknowledge: joining one, and how a delivery ends: acknowledged,
 * given back, or taken over by another. The orders of stores are in wire/layout.h; tests/model/acks.pml and lingers.pml explore them.
 *
 * A message of such a group keeps its handle, closed or not, until it is released:
 * what it has to say about the delivery is said in the group's table, under the
 * group's lock. Whose delivery it is by now is told by number, handle and count,
 * which no two deliveries have in common.
 */
#include "ack.h"

#include <stdlib.h>
#include <unistd.h>

/* ------------------------------------------------------------- the table */

bool xi_flying_read(const struct xi_channel *ch, struct xi_flying *f) {
    struct xi_group *g = ch->group;
    *f = (struct xi_flying){xi_load_relaxed(&g->head), xi_load_relaxed(&g->head_seq), xi_load_relaxed(&g->next),
                            xi_load_relaxed(&g->next_seq)};
    return f->next_seq - f->head_seq <= ch->ack->window && f->next - f->head <= XI_GROW_MAX && xi_is_aligned(f->head, 8) &&
           xi_is_aligned(f->next, 8) && (f->next_seq != f->head_seq || f->next == f->head);
}

int xi_flying_reset(struct xi_channel *ch) {
    struct xi_group *g = ch->group;
    const struct xi_ack *a = ch->ack;
    for (uint64_t i = 0; i < a->window; i++) xi_store_relaxed(&a->acks->entries[i].state, 0);
    xi_store_full(&g->next_seq, xi_load_relaxed(&g->head_seq));
    xi_store_full(&g->next, xi_load_relaxed(&g->head) & ~(uint64_t)7);
    xi_store_relaxed(&g->head, xi_load_relaxed(&g->head) & ~(uint64_t)7);
    xi_store_full(&g->next_due, UINT64_MAX);
    xi_store_relaxed(&g->counting, 0);
    xi_bump(&g->corrupt, 1);
    xi_note_skip(ch);
    return xi_fail(XI_E_CORRUPT, "the account of what group %u of channel \"%s\" was given cannot be: some member overwrote it. "
                   "What was not acknowledged is delivered again", ch->group_index, ch->name);
}

/* Position of the record of this number, which is in flight, or where the group goes on behind the last. */
static uint64_t position_of(const struct xi_ack *a, const struct xi_flying *f, uint64_t number) {
    return number == f->next_seq + 1 ? f->next : xi_load_relaxed(&xi_delivery_of(a, number)->position);
}

bool xi_flying_settle(struct xi_channel *ch) {
    const struct xi_ack *a = ch->ack;
    struct xi_group *g = ch->group;
    struct xi_flying f;
    if (!xi_flying_read(ch, &f)) return false; /* whoever receives next finds out, and sets it right */
    uint64_t n = f.head_seq;
    while (n != f.next_seq && XI_DELIVERY_STATUS(xi_load_relaxed(&xi_delivery_of(a, n + 1)->state)) == XI_DELIVERY_DONE) n++;
    if (n == f.head_seq) return false;
    uint64_t head = position_of(a, &f, n + 1);
    if (head - f.head > f.next - f.head || !xi_is_aligned(head, 8)) {
        (void)xi_flying_reset(ch);
        return true;
    }
    xi_store_relaxed(&g->head_seq, n);
    xi_store_release(&g->head, head); /* pairs with the sender's look for space */
    for (uint64_t k = f.head_seq + 1; k != n + 1; k++) xi_store_release(&xi_delivery_of(a, k)->state, 0);
    return true;
}

bool xi_due_by(struct xi_channel *ch, uint64_t when) {
    xi_a64 *due = &ch->group->next_due;
    if (when >= xi_load_relaxed(due)) return false;
    xi_store_full(due, when);
    return true;
}

/* ------------------------------------------------------------ those who linger */

static bool names_block(struct xi_linger *l, uint64_t block, uint64_t generation) {
    return xi_load_relaxed(&l->holder) != 0 && xi_load_relaxed(&l->block) == block &&
           xi_load_relaxed(&l->generation) == generation;
}

static bool somebody_lingers(const struct xi_ack *a, uint64_t block, uint64_t generation) {
    struct xi_linger *words = XI_ACKS_LINGERS(a->acks, a->window);
    for (uint64_t i = 0; i < a->window; i++)
        if (names_block(&words[i], block, generation)) return true;
    return false;
}

bool xi_linger_add(const struct xi_ack *a, uint64_t state, uint64_t number, uint64_t block, uint64_t generation) {
    struct xi_linger *words = XI_ACKS_LINGERS(a->acks, a->window);
    for (uint64_t i = 0; i < a->window; i++) {
        struct xi_linger *l = &words[(number + i) & (a->window - 1)];
        if (xi_load_relaxed(&l->holder) != 0) continue;
        xi_store_relaxed(&l->number, number);
        xi_store_relaxed(&l->block, block);
        xi_store_relaxed(&l->generation, generation);
        xi_store_release(&l->holder, state);
        return true;
    }
    return false;
}

/* ------------------------------------------------------------- done with it */

static bool release(struct xi_channel *ch, const struct xi_held_block *b) {
    return xi_release_bit(b->entry, b->granule, b->generation, ch->group_index) && b->flags & XI_REC_F_FREE;
}

bool xi_delivery_done(struct xi_channel *ch, struct xi_delivery *d, const struct xi_held_block *block, bool alone) {
    uint64_t state = xi_load_relaxed(&d->state);
    xi_store_release(&d->state, (state & ~(uint64_t)0xff) | XI_DELIVERY_DONE); /* THE ACKNOWLEDGEMENT */
    if (!block) return false;
    uint64_t name = (uint64_t)block->entry->number << 32 | block->granule;
    if (!alone && somebody_lingers(ch->ack, name, block->generation)) return false; /* the last of them releases it */
    return release(ch, block);
}

bool xi_delivery_gone(struct xi_channel *ch, uint64_t number, const struct xi_held_block *block, bool alone, enum xi_gone why) {
    struct xi_group *g = ch->group;
    xi_a64 *counter = xi_gone_counter(g, why);
    uint64_t count = xi_load_relaxed(counter) + 1;
    xi_store_relaxed(&g->count_to, count);
    xi_store_release(&g->counting, XI_COUNTING(number, why));
    bool told = xi_delivery_done(ch, xi_delivery_of(ch->ack, number), block, alone);
    xi_store_release(counter, count);
    xi_store_release(&g->counting, 0);
    return told;
}

/* Under the lock. The delivery that the message has, or NULL: it is another's by now, or done. */
static struct xi_delivery *mine(struct xi_channel *ch, const xi_msg *m) {
    struct xi_flying f;
    if (!xi_group_lives(ch) || !xi_flying_read(ch, &f) || m->delivery_ - f.head_seq - 1 >= f.next_seq - f.head_seq) return NULL;
    struct xi_delivery *d = xi_delivery_of(ch->ack, m->delivery_);
    uint64_t state = xi_load_relaxed(&d->state);
    bool same = XI_DELIVERY_STATUS(state) == XI_DELIVERY_OUT && XI_DELIVERY_SLOT(state) == ch->interp->slot &&
                XI_DELIVERY_HANDLE(state) == m->handle_number_ &&
                XI_DELIVERIES(xi_load_relaxed(&d->count), state) == m->count_;
    return same ? d : NULL;
}

/* Under the lock: given back, to be delivered again from `due` on. */
static bool give_back(struct xi_channel *ch, struct xi_delivery *d, uint32_t reason, uint64_t due) {
    uint64_t state = xi_load_relaxed(&d->state);
    xi_store_relaxed(&d->due, due);
    xi_store_release(&d->state, XI_DELIVERY(XI_DELIVERY_READY, reason, XI_DELIVERY_COUNT(state), XI_DELIVERY_SLOT(state),
                                            XI_DELIVERY_HANDLE(state)));
    return xi_due_by(ch, due);
}

/* Under the lock: true if the value of this number is one that may yet be delivered. */
static bool in_flight(struct xi_channel *ch, uint64_t number) {
    struct xi_flying f;
    return xi_group_lives(ch) && xi_flying_read(ch, &f) && number - f.head_seq - 1 < f.next_seq - f.head_seq &&
           XI_DELIVERY_STATUS(xi_load_relaxed(&xi_delivery_of(ch->ack, number)->state)) != XI_DELIVERY_DONE;
}

bool xi_linger_end(struct xi_channel *ch, uint64_t number, uint32_t count, const struct xi_held_block *b) {
    const struct xi_ack *a = ch->ack;
    struct xi_linger *words = XI_ACKS_LINGERS(a->acks, a->window), *own = NULL;
    uint64_t block = (uint64_t)b->entry->number << 32 | b->granule;
    bool others = false, told = false;
    for (uint64_t i = 0; i < a->window; i++) {
        struct xi_linger *l = &words[i];
        if (!names_block(l, block, b->generation)) continue;
        uint64_t holder = xi_load_relaxed(&l->holder);
        bool same = XI_DELIVERY_SLOT(holder) == ch->interp->slot && XI_DELIVERY_HANDLE(holder) == a->handle &&
                    XI_DELIVERY_COUNT(holder) == (uint16_t)count;
        if (same && !own) own = l;
        else others = true;
    }
    if (own && !others && !in_flight(ch, number)) told = release(ch, b);
    if (own) xi_store_release(&own->holder, 0);
    return told;
}

bool xi_ack_end_one(const struct xi_ack *a, uint64_t number, uint64_t block, uint64_t generation) {
    uint64_t state = xi_load_relaxed(&xi_delivery_of(a, number)->state);
    uint32_t status = XI_DELIVERY_STATUS(state);
    if (status == XI_DELIVERY_OUT || status == XI_DELIVERY_MOVING) {
        (void)xi_linger_add(a, state, number, block, generation); /* no room: the block stays with its owner until that ends */
        return false;
    }
    return !somebody_lingers(a, block, generation);
}

/* ------------------------------------------------------------------ messages */

/* The message has nothing to do with its delivery any more. */
static void forget(xi_msg *m) {
    struct xi_channel *ch = m->channel_;
    if (m->map_ && xi_alive(ch->interp)) xi_maps_put(m->map_);
    m->delivery_ = 0;
    m->count_ = m->handle_number_ = m->borrow_ = 0;
    m->channel_ = m->map_ = NULL;
    m->holder_ = NULL;
    m->data = NULL;
    m->size = 0;
    xi_channel_drop(ch);
}

/* The interpreter's part in shared memory is there. (After it has left, the broker has given everything back.) */
static bool usable(const struct xi_channel *ch) {
    return xi_alive(ch->interp) && !atomic_load_explicit(&ch->interp->left, memory_order_acquire) && ch->chan != NULL;
}

/* Takes the group's lock for a step that is short and not to be left out. */
static int lock_briefly(struct xi_channel *ch) {
    int rc;
    do rc = xi_lock(ch, ch->group, XI_LOCK_ABANDON_NS);
    while (rc == XI_E_INTR);
    return rc;
}

static struct xi_held_block block_of(const xi_msg *m) {
    return (struct xi_held_block){m->map_, m->block_.granule, m->group_ >> 8, m->block_.generation};
}

/* Under the lock: the message lets go of a block whose value is not its own any more. */
static bool linger_no_more(struct xi_channel *ch, const xi_msg *m) {
    struct xi_held_block b = block_of(m);
    return xi_linger_end(ch, m->delivery_, m->count_, &b);
}

void xi_delivery_end(xi_msg *m) {
    struct xi_channel *ch = m->channel_;
    if (usable(ch) && lock_briefly(ch) == 0) { /* else: held by one that is stopped; the value is given back when we leave */
        struct xi_delivery *d = mine(ch, m);
        bool back = d != NULL, told = false;
        if (back) (void)give_back(ch, d, XI_BACK_LEFT, 0);
        else if (m->map_) told = linger_no_more(ch, m);
        xi_unlock(ch->group);
        if (back) xi_pass_on(ch, XI_SIDE_GROUP(ch->group_index));
        if (told) xi_tell_owner(ch->interp, ((struct xi_map_entry *)m->map_)->map.head.owner);
    }
    forget(m);
}

static int stale(const struct xi_channel *ch, const xi_msg *m) {
    return xi_fail(XI_E_STALE, "value %llu of channel \"%s\" is not this consumer's any more: its delivery was overdue, or it was "
                   "acknowledged already", (unsigned long long)m->delivery_, ch->name);
}

/* 0 with the group's lock held and the message's delivery in *d; else an error. */
static int begin(xi_msg *m, struct xi_delivery **d) {
    if (!m || !m->delivery_)
        return xi_fail(XI_E_INVAL, "this message is no delivery of a group that acknowledges, or its delivery has ended");
    struct xi_channel *ch = m->channel_;
    if (!xi_alive(ch->interp)) return xi_fail_forked();
    if (!usable(ch)) return xi_fail(XI_E_LEFT, "the interpreter that received this message has left");
    int rc = xi_channel_check(ch);
    if (rc == 0) rc = lock_briefly(ch);
    if (rc) return rc;
    *d = mine(ch, m);
    if (*d) return 0;
    bool lives = xi_group_lives(ch);
    xi_unlock(ch->group);
    return lives ? stale(ch, m) : xi_fail_ended(ch);
}

/* Under the lock: the message keeps its block, as one whose value is another's or nobody's. False: no room for that. */
static bool keep_block(struct xi_channel *ch, const xi_msg *m, struct xi_delivery *d) {
    uint64_t block = (uint64_t)m->block_.segment << 32 | m->block_.granule;
    return !m->map_ || xi_linger_add(ch->ack, xi_load_relaxed(&d->state), m->delivery_, block, m->block_.generation);
}

static int cannot_keep(struct xi_channel *ch) {
    xi_unlock(ch->group);
    return xi_fail(XI_E_LIMIT, "%llu messages of group %u of channel \"%s\" are kept beyond their delivery; release some",
                   (unsigned long long)ch->ack->window, ch->group_index, ch->name);
}

/* The delivery is over. A message that keeps its block goes on as one that lingers. */
static void let_go(xi_msg *m, bool keep) {
    const void *data = m->data;
    size_t size = m->size;
    if (keep && m->map_) return;
    forget(m);
    if (!keep) return;
    m->data = data;
    m->size = size;
}

static int acknowledge(xi_msg *m, bool keep) {
    struct xi_delivery *d;
    int rc = begin(m, &d);
    if (rc) return rc;
    struct xi_channel *ch = m->channel_;
    struct xi_map_entry *e = m->map_;
    struct xi_held_block b = block_of(m);
    if (keep && !keep_block(ch, m, d)) return cannot_keep(ch);
    bool told = xi_delivery_done(ch, d, e && !keep ? &b : NULL, m->count_ == 1);
    xi_bump(&ch->group->acked, 1);
    bool moved = xi_flying_settle(ch);
    xi_unlock(ch->group);
    if (moved) {
        xi_wake_producers(ch);
        xi_pass_on(ch, XI_SIDE_GROUP(ch->group_index));
    }
    if (told) xi_tell_owner(ch->interp, e->map.head.owner);
    if (m->call_) xi_call_abandon(m); /* without a reply: nobody else will get the request */
    let_go(m, keep);
    return 0;
}

static int refuse(xi_msg *m, int64_t delay_ns, bool keep) {
    struct xi_delivery *d;
    if (delay_ns < 0) return xi_fail(XI_E_INVAL, "a delay of %lld ns is none", (long long)delay_ns);
    uint64_t due = delay_ns ? (uint64_t)xi_now() + (uint64_t)delay_ns : 0;
    int rc = begin(m, &d);
    if (rc) return rc;
    struct xi_channel *ch = m->channel_;
    if (ch->ack->max_deliveries && m->count_ >= ch->ack->max_deliveries) due = 0; /* nothing to wait for: it goes nowhere again */
    if (keep && !keep_block(ch, m, d)) return cannot_keep(ch);
    bool sooner = give_back(ch, d, XI_BACK_NACKED, due);
    xi_unlock(ch->group);
    if (due == 0) xi_pass_on(ch, XI_SIDE_GROUP(ch->group_index));
    else if (sooner) xi_wake_one(ch); /* to sleep no longer than that */
    if (m->call_) xi_call_forget(m); /* another will serve it */
    let_go(m, keep);
    return 0;
}

int xi_ack(xi_msg *m) { return acknowledge(m, false); }
int xi_ack_keep(xi_msg *m) { return acknowledge(m, true); }
int xi_nack(xi_msg *m, int64_t delay_ns) { return refuse(m, delay_ns, false); }
int xi_nack_keep(xi_msg *m, int64_t delay_ns) { return refuse(m, delay_ns, true); }

int xi_extend(xi_msg *m, int64_t ns) {
    struct xi_delivery *d;
    if (ns < 0) return xi_fail(XI_E_INVAL, "a timeout of %lld ns is none", (long long)ns);
    int rc = begin(m, &d);
    if (rc) return rc;
    struct xi_channel *ch = m->channel_;
    uint64_t length = ns ? (uint64_t)ns : ch->ack->timeout_ns, due = length ? (uint64_t)xi_now() + length : UINT64_MAX;
    xi_store_relaxed(&d->due, due);
    bool sooner = xi_due_by(ch, due);
    xi_unlock(ch->group);
    if (sooner) xi_wake_one(ch);
    return 0;
}

int64_t xi_ack_timeout(const xi_channel *ch) {
    uint64_t ns = ch->ack ? ch->ack->timeout_ns : 0;
    return ns < INT64_MAX ? (int64_t)ns : INT64_MAX; /* anybody may have written it */
}

/* ------------------------------------------------------------------- handles */

/* Gives back what went out through this handle. A message may hold its block for longer than the handle lives. */
static bool give_all_back(struct xi_channel *ch) {
    const struct xi_ack *a = ch->ack;
    struct xi_flying f;
    bool any = false;
    if (!xi_group_lives(ch) || !xi_flying_read(ch, &f)) return false;
    for (uint64_t n = f.head_seq + 1; n != f.next_seq + 1; n++) {
        struct xi_delivery *d = xi_delivery_of(a, n);
        uint64_t state = xi_load_relaxed(&d->state), h;
        if (XI_DELIVERY_STATUS(state) != XI_DELIVERY_OUT || XI_DELIVERY_SLOT(state) != ch->interp->slot ||
            XI_DELIVERY_HANDLE(state) != a->handle)
            continue;
        uint64_t position = xi_load_relaxed(&d->position);
        h = xi_load_acquire(xi_header_at(&ch->receive_view, position));
        if (XI_REC_IS_BLOCK(h)) {
            struct xi_descriptor b;
            xi_descriptor_read(&ch->receive_view, position, &b);
            /* No word free: it stays ours until we leave, or it is overdue and there is one. */
            if (!xi_linger_add(a, state, n, (uint64_t)b.segment << 32 | b.granule, b.generation)) continue;
        }
        (void)give_back(ch, d, XI_BACK_LEFT, 0);
        any = true;
    }
    return any;
}

void xi_ack_close(struct xi_channel *ch) {
    int rc;
    do rc = xi_lock_receive(ch, XI_LOCK_ABANDON_NS);
    while (rc == XI_E_INTR);
    if (rc) return; /* held by one that is stopped: given back when this interpreter leaves */
    bool any = give_all_back(ch);
    xi_unlock_receive(ch);
    if (any) xi_pass_on(ch, XI_SIDE_GROUP(ch->group_index));
}

void xi_ack_joined(struct xi_ack *a) { xi_store_full(&a->acks->joined, 1); }

void xi_ack_discard(struct xi_ack *a, bool made) {
    if (made) xi_ack_joined(a); /* nobody is going to use it: the broker takes it back when it looks */
    if (a->entry) xi_maps_put(a->entry);
    free(a);
}

void xi_ack_free(struct xi_channel *ch) {
    if (!ch->ack) return;
    if (ch->ack->entry && xi_alive(ch->interp)) xi_maps_put(ch->ack->entry);
    free(ch->ack);
    ch->ack = NULL;
}

/* ------------------------------------------------------------------- joining */

static int check_table(const struct xi_channel *ch, uint32_t group, const struct xi_map *map, struct xi_ack *a) {
    struct xi_acks head;
    memcpy(&head, map->base, sizeof head); /* once */
    bool whole = xi_is_pow2(head.window) && head.window <= XI_WINDOW_MAX && map->size == XI_ACKS_SIZE(head.window) &&
                 head.group == group && head.chan_seg == ch->segment && memchr(head.dead, 0, sizeof head.dead) != NULL;
    if (!whole)
        return xi_fail(XI_E_CORRUPT, "segment %08x is no table of deliveries for group %u of channel \"%s\"", map->head.number,
                       group, ch->name);
    a->window = head.window;
    a->timeout_ns = head.timeout_ns;
    a->max_deliveries = head.max_deliveries;
    memcpy(a->dead, head.dead, sizeof a->dead);
    return 0;
}

/* A number that no other handle of this interpreter has. */
static uint32_t take_handle(struct xi_interp *me) {
    pthread_mutex_lock(&me->channels_mutex);
    uint32_t number;
    bool used;
    do {
        number = ++me->ack_handles & 0xffff;
        used = number == 0;
        for (struct xi_channel *c = me->channels; c && !used; c = c->next) used = c->ack && c->ack->handle == number;
    } while (used);
    pthread_mutex_unlock(&me->channels_mutex);
    return number;
}

int xi_ack_open(struct xi_channel *ch, uint32_t group, uint32_t segment, int fd, struct xi_ack **out) {
    struct xi_ack *a = calloc(1, sizeof *a);
    if (!a) return xi_fail(XI_E_NOMEM, "no memory to keep account of deliveries");
    int rc = xi_maps_acks(ch->interp, segment, fd, &a->entry);
    if (rc == 0) rc = check_table(ch, group, &a->entry->map, a);
    if (rc) {
        if (a->entry) xi_maps_put(a->entry);
        free(a);
        return rc;
    }
    a->acks = a->entry->map.base;
    a->handle = take_handle(ch->interp);
    *out = a;
    return 0;
}

int xi_ack_make(struct xi_channel *ch, uint32_t group, const xi_group_opts *o, struct xi_ack **out, uint32_t *segment) {
    struct xi_request req;
    struct xi_reply reply;
    uint64_t window = XI_WINDOW_DEFAULT;
    int fd;
    if (o->window) (void)xi_round_pow2_u64(o->window, &window);
    xi_request_init(&req, XI_OP_ACKS);
    req.a = ch->id;
    req.b = group;
    req.c = window;
    req.d = o->max_deliveries;
    req.e = (uint64_t)o->timeout_ns;
    if (o->dead) memcpy(req.other, o->dead, strlen(o->dead));
    int rc = xi_control_call(ch->interp, &req, &reply, &fd, 1);
    if (rc) return rc;
    rc = fd < 0 ? xi_fail(XI_E_BROKER, "the broker answered without a descriptor")
                : xi_ack_open(ch, group, (uint32_t)reply.a, fd, out);
    if (rc && fd >= 0) { /* as xi_ack_discard() would say it, had it been mapped; else it goes when we leave */
        const uint32_t joined = 1;
        ssize_t said = pwrite(fd, &joined, sizeof joined, offsetof(struct xi_acks, joined));
        (void)said;
    }
    if (fd >= 0) close(fd);
    *segment = (uint32_t)reply.a;
    return rc;
}
