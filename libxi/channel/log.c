/* SPDX-License-Identifier: MIT */
/*
 * The ring's producing side: finding space, and the stores of a send in the
 * order that wire/layout.h gives ("Send"). Also the looks without a lock that
 * tell a waiter whether to try.
 */
#include <string.h>

#include "../wire/bounds.h"
#include "log.h"

#define BATCH_MAX 32767u

/* The smallest head of the active groups, each read once; the tail where there is no group. */
static uint64_t smallest_head(struct xi_chan *c, uint64_t active, uint64_t tail, uint64_t capacity) {
    uint64_t most = 0;
    for (; active; active &= active - 1) {
        /* Pairs with the receiver's release of head: its reads of the record are over. */
        uint64_t used = tail - xi_load_acquire(&c->groups[__builtin_ctzll(active)].head);
        /* Under the lock no head can be past the tail, nor a whole ring behind: somebody overwrote it. That reads as
         * full, until the group's own receivers have put it right (receive.c). */
        if (used > capacity) used = capacity;
        if (used > most) most = used;
    }
    return tail - most;
}

static int broken(struct xi_channel *ch) {
    return xi_fail(XI_E_CORRUPT, "channel \"%s\" has a tail that cannot be: some member overwrote it; close it and use "
                   "another", ch->name);
}

int64_t xi_log_append(struct xi_channel *ch, const struct xi_record *records, size_t n, const struct xi_sending *sending) {
    struct xi_chan *c = ch->chan;
    if (__builtin_expect(xi_load_relaxed(&c->closed), 0)) return xi_fail(XI_E_CLOSED, "channel \"%s\" is closed", ch->name);
    uint64_t stored = xi_load_relaxed(&c->tail), seq = xi_load_relaxed(&c->tail_seq);
    uint64_t floor_ = xi_load_relaxed(&c->min_head), active = xi_load_relaxed(&c->active), w = stored;
    if (__builtin_expect(!xi_is_aligned(stored, 8), 0)) return broken(ch);
    if (__builtin_expect(active == 0, 0)) { /* a broadcast that nobody hears */
        if (sending) xi_arena_mark_sent(sending->block, 0, sending->free_index, sending->free_argument);
        xi_bump(&c->vanished, n);
        return (int64_t)n;
    }
    if (n > BATCH_MAX) n = BATCH_MAX;
    size_t done = 0;
    for (; done < n; done++) {
        uint64_t need = 8 + (uint64_t)records[done].length + 8;
        if (__builtin_expect(w - floor_ > ch->capacity || w - floor_ + need > ch->capacity, 0)) {
            floor_ = smallest_head(c, active, w, ch->capacity);
            xi_store_relaxed(&c->min_head, floor_);
            if (w - floor_ + need > ch->capacity) break;
        }
        /* Never over the record at the stored tail: a repair would start its walk there. */
        if (__builtin_expect(w - stored + need > ch->capacity, 0)) break;
        if (sending) xi_arena_mark_sent(sending->block, active, sending->free_index, sending->free_argument);
        xi_log_publish(ch, w, &records[done], (uint16_t)(seq + done + 1));
        w += 8 + records[done].length;
    }
    if (done == 0) return 0;
    /* Release: neither may be seen before the headers that it counts (a repair reads them in that order). */
    xi_store_release(&c->tail_seq, seq + done);
    xi_store_release(&c->tail, w);
    xi_bump(&ch->sent, done);
    return (int64_t)done;
}

uint64_t xi_log_smallest_head(struct xi_channel *ch) {
    struct xi_chan *c = ch->chan;
    return smallest_head(c, xi_load_relaxed(&c->active), xi_load_relaxed(&c->tail), ch->capacity);
}

bool xi_log_has_room(struct xi_channel *ch, uint32_t length) {
    struct xi_chan *c = ch->chan;
    if (xi_load_full(&c->closed)) return true;
    for (int attempt = 0; attempt < 3; attempt++) {
        uint64_t active = xi_load_full(&c->active), heads[XI_MAX_GROUPS], most = 0;
        unsigned n = 0;
        if (active == 0) return true;
        for (; active; active &= active - 1) heads[n++] = xi_load_full(&c->groups[__builtin_ctzll(active)].head);
        uint64_t tail = xi_load_full(&c->tail); /* after the heads, so that none of them can be past it */
        for (unsigned i = 0; i < n; i++)
            if (tail - heads[i] > most) most = tail - heads[i];
        if (most <= ch->capacity) return most + 8 + length + 8 <= ch->capacity;
    }
    return false; /* busy, or broken: the sleep that follows looks again after a second at the latest */
}

bool xi_log_has_value(struct xi_channel *ch) {
    /* Sequentially consistent, so that after parking this look is not done before the bits are set. */
    uint64_t head = xi_load_full(&ch->group->head);
    if (xi_load_full(xi_header_at(ch, head)) != 0) return true;
    if (!xi_load_full(&ch->chan->closed)) return false;
    return true; /* closed: the caller finds out whether there is a last value */
}
