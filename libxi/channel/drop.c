/* SPDX-License-Identifier: MIT */
/*
 * Dropping the oldest values of a channel to make room for newer ones. To the
 * group that had yet to receive such a value it is as if one of its consumers
 * had received and released it at once: the same stores in the same order, under
 * the same lock, with a borrow entry for a block or a request, so that a death at
 * any of them is judged as any receiver's (wire/layout.h, "Receive"). The caller
 * of a request that is dropped gets DIED.
 *
 * The producers' lock is held meanwhile: nobody else can take the room. Of the
 * groups' locks one at a time is.
 */
#include "call.h"
#include "record.h"

#define PATIENCE_NS 20000000ll /* for a group's lock: its holder may be preempted; if it is stopped, the send waits as ever */
#define STEPS_MOST 65536u      /* values, in one round under the lock */

/* True if this group stands in the way of what is wanted. */
static bool in_the_way(struct xi_channel *ch, uint32_t g, const struct xi_want *w) {
    struct xi_chan *c = ch->chan;
    struct xi_group *group = &c->groups[g];
    uint64_t tail = xi_load_relaxed(&c->tail), head = xi_load_acquire(&group->head), used = tail - head;
    if (used == 0 || used > ch->send_view.capacity) return false; /* nothing to drop, or garbage that its receivers put right */
    if (used + 8 + w->length + 8 > ch->send_view.capacity) return true;
    if (w->head && (int64_t)(head - w->head) < 0) return true;
    return ch->max_values &&
           (int64_t)(xi_load_relaxed(&c->tail_seq) - xi_load_relaxed(&group->head_seq)) >= (int64_t)ch->max_values;
}

/* 2 and 3 of "Receive". */
static void commit(struct xi_group *group, uint64_t next) {
    xi_store_relaxed(&group->head_seq, xi_load_relaxed(&group->head_seq) + 1);
    xi_store_release(&group->head, next); /* THE RECEIVE */
    xi_bump(&group->dropped, 1);
}

static struct xi_drop *find(struct xi_drops *all, uint32_t g, uint64_t position, uint64_t header) {
    for (unsigned i = 0; i < all->count; i++) {
        struct xi_drop *drop = &all->drop[i];
        if (drop->state == XI_DROP_READY && drop->group == g && drop->position == position && drop->header == header)
            return drop;
    }
    return NULL;
}

/* A request that goes unserved, in a group that was to serve it. */
static bool is_request(struct xi_channel *ch, uint32_t g, uint64_t h) {
    return XI_REC_FLAGS(h) & XI_REC_F_CALL && !(xi_load_relaxed(&ch->chan->groups[g].flags) & XI_GROUP_F_LISTENS);
}

/* Notes the blocks and requests among the records that are to go, to be prepared: as many as there is place for. */
static void note(struct xi_channel *ch, uint32_t g, uint64_t at, const struct xi_want *w, struct xi_drops *all) {
    struct xi_chan *c = ch->chan;
    const struct xi_view *v = &ch->send_view;
    uint64_t tail = xi_load_relaxed(&c->tail), until = tail + 16 + w->length - v->capacity;
    uint64_t due = xi_load_relaxed(&c->tail_seq) - xi_load_relaxed(&c->groups[g].head_seq);
    uint64_t values = ch->max_values && due >= ch->max_values ? due - ch->max_values + 1 : 0;
    if (w->head && (int64_t)(w->head - until) > 0) until = w->head;
    for (unsigned n = 0; n < 4 * XI_DROPS && all->count < XI_DROPS && at != tail; n++) {
        if ((int64_t)(at - until) >= 0 && n >= values) return;
        uint64_t h = xi_load_acquire(xi_header_at(v, at));
        if (h == 0 || !xi_header_valid(ch, h)) return;
        if (XI_REC_IS_BLOCK(h) || is_request(ch, g, h)) {
            struct xi_drop *drop = &all->drop[all->count++];
            *drop = (struct xi_drop){.group = g, .position = at, .header = h, .state = XI_DROP_WANTED};
            if (XI_REC_IS_BLOCK(h)) xi_descriptor_read(v, at, &drop->d);
            if (is_request(ch, g, h) && !xi_call_ref_read(v, at, h, &drop->ref)) drop->ref.generation = 0;
        }
        at = xi_ring_next(at, XI_REC_LENGTH(h));
    }
}

/* 1 of "Receive". */
static void borrow(struct xi_channel *ch, uint64_t position, struct xi_drop *drop) {
    struct xi_borrow *b = xi_borrow_at(ch->interp, drop->borrow - 1);
    xi_store_relaxed(&b->block, (uint64_t)drop->d.segment << 32 | drop->d.granule);
    xi_store_relaxed(&b->position, position);
    xi_store_relaxed(&b->chan_seg, ch->segment);
    xi_store_release(&b->key, XI_BORROW_KEY(drop->d.generation, drop->group));
}

/* Under the group's lock: over its oldest value. 1 done, 0 there is none that can be read, XI_E_AGAIN prepare it first. */
static int step(struct xi_channel *ch, uint32_t g, const struct xi_want *want, struct xi_drops *all) {
    struct xi_group *group = &ch->chan->groups[g];
    uint64_t head = xi_load_relaxed(&group->head), h = xi_load_acquire(xi_header_at(&ch->send_view, head));
    if (h == 0 || !xi_header_valid(ch, h) || !xi_is_aligned(head, 8)) return 0;
    if (XI_REC_IS_BLOCK(h) || is_request(ch, g, h)) {
        struct xi_drop *drop = find(all, g, head, h);
        if (!drop) {
            note(ch, g, head, want, all);
            return XI_E_AGAIN;
        }
        if (drop->entry) borrow(ch, head, drop);
        if (drop->call_borrow) xi_call_note(ch, drop->call_borrow - 1, g, &drop->ref, head);
        drop->state = XI_DROP_TAKEN;
    }
    commit(group, xi_ring_next(head, XI_REC_LENGTH(h)));
    return 1;
}

/* As xi_drop_oldest(), for one group. */
static int step_aside(struct xi_channel *ch, uint32_t g, const struct xi_want *want, struct xi_drops *all) {
    struct xi_group *group = &ch->chan->groups[g];
    if (xi_load_relaxed(&group->flags) & XI_GROUP_F_ACK) {
        all->kept = "a group that acknowledges has yet to acknowledge its oldest values, which are not dropped";
        return 0;
    }
    int rc = xi_lock(ch, group, PATIENCE_NS);
    if (rc) {
        all->kept = "who holds the lock of a group does not let go of it; is it stopped?";
        return rc == XI_E_TIMEOUT ? 0 : rc;
    }
    rc = 1;
    for (unsigned n = 0; rc == 1 && n < STEPS_MOST && in_the_way(ch, g, want); n++) rc = step(ch, g, want, all);
    xi_unlock(group);
    if (rc == 0) all->kept = "its oldest values cannot be read; they go when a receiver skips them";
    return rc;
}

int xi_drop_oldest(struct xi_channel *ch, const struct xi_want *want, struct xi_drops *d) {
    uint64_t active = xi_real_groups(ch, xi_load_relaxed(&ch->chan->active)); /* what is kept gives way by itself */
    int rc = 1;
    d->kept = NULL;
    for (; active && rc == 1; active &= active - 1) {
        uint32_t g = (uint32_t)__builtin_ctzll(active);
        if (in_the_way(ch, g, want)) rc = step_aside(ch, g, want, d);
    }
    return rc;
}

static int take_borrow(struct xi_channel *ch, uint32_t *borrow) {
    uint32_t index;
    int rc = xi_borrow_take(ch->interp, &index);
    if (rc == 0) *borrow = index + 1;
    return rc;
}

static void let_go(struct xi_channel *ch, struct xi_drop *drop) {
    bool taken = drop->state == XI_DROP_TAKEN;
    if (drop->entry && taken) {
        bool set = xi_release_bit(drop->entry, drop->d.granule, drop->d.generation, drop->group);
        if (set && XI_REC_FLAGS(drop->header) & XI_REC_F_FREE) xi_tell_owner(ch->interp, drop->entry->map.head.owner);
    }
    if (drop->call_borrow && taken) xi_call_refuse(ch->interp, &drop->ref);
    if (drop->borrow) xi_borrow_drop(ch->interp, drop->borrow - 1);
    if (drop->call_borrow) xi_borrow_drop(ch->interp, drop->call_borrow - 1);
    if (drop->entry) xi_maps_put(drop->entry);
}

static int prepare(struct xi_channel *ch, struct xi_drop *drop) {
    int rc = XI_REC_IS_BLOCK(drop->header) ? xi_descriptor_map(ch, &drop->d, &drop->entry) : 0;
    if (rc == 0 && drop->entry) rc = take_borrow(ch, &drop->borrow);
    if (rc == 0 && drop->ref.generation) rc = take_borrow(ch, &drop->call_borrow);
    if (rc == 0) drop->state = XI_DROP_READY;
    else let_go(ch, drop);
    return rc;
}

int xi_drops_settle(struct xi_channel *ch, struct xi_drops *d, bool again) {
    unsigned kept = 0;
    int rc = 0;
    for (unsigned i = 0; i < d->count; i++) {
        if (again && d->drop[i].state == XI_DROP_WANTED) {
            if (rc == 0 && (rc = prepare(ch, &d->drop[i])) == 0) d->drop[kept++] = d->drop[i];
        } else {
            let_go(ch, &d->drop[i]);
        }
    }
    d->count = kept;
    return rc;
}
