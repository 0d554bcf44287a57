/* SPDX-License-Identifier: MIT */
/*
 * The ring's producing side: finding space, and the stores of a send in the
 * order that wire/layout.h gives ("Send"). Also the looks without a lock that
 * tell a waiter whether to try.
 */
#include <stdlib.h>
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

/*
 * Values in the arena count against the channel too, or a queue of 64 KiB would
 * hold 1,600 values of any size: each handle may have 64 times the capacity, or
 * 16 values, that not every group has received. Positions tell which those are,
 * so a death of anybody else changes nothing.
 */
#define FLIGHT_VALUES 16u
#define FLIGHT_TIMES 64u

static bool too_much(const struct xi_channel *ch, size_t size) {
    return ch->flight_count >= FLIGHT_VALUES && ch->flight_bytes + size > FLIGHT_TIMES * ch->home.capacity;
}

/* Forgets what all groups have received, given how far the slowest has come. */
static void flights_settle(struct xi_channel *ch, uint64_t head) {
    while (ch->flight_count && (int64_t)(head - ch->flights[ch->flight_head].end) >= 0) {
        ch->flight_bytes -= ch->flights[ch->flight_head].size;
        ch->flight_head = (ch->flight_head + 1) % ch->flight_capacity;
        ch->flight_count--;
    }
}

static bool flights_full(struct xi_channel *ch, struct xi_sending *s, uint64_t active, uint64_t tail) {
    flights_settle(ch, xi_load_relaxed(&ch->chan->min_head)); /* so that the list is no longer than the ring */
    if (!too_much(ch, s->block->size)) return false;
    flights_settle(ch, smallest_head(ch->chan, active, tail, ch->send_view.capacity));
    if (!too_much(ch, s->block->size)) return false;
    /* Room for this much is there as soon as the oldest has been received by all. */
    s->wait_length = (uint32_t)(ch->send_view.capacity + ch->flights[ch->flight_head].end - tail - 16) & ~7u;
    return true;
}

/* Room for one more to be remembered. */
static bool flights_reserve(struct xi_channel *ch) {
    if (ch->flight_count < ch->flight_capacity) return true;
    size_t capacity = ch->flight_capacity ? ch->flight_capacity * 2 : 64;
    struct xi_flight *f = malloc(capacity * sizeof *f);
    if (!f) return false;
    for (size_t i = 0; i < ch->flight_count; i++) f[i] = ch->flights[(ch->flight_head + i) % ch->flight_capacity];
    free(ch->flights);
    ch->flights = f;
    ch->flight_head = 0;
    ch->flight_capacity = capacity;
    return true;
}

static void flights_add(struct xi_channel *ch, size_t size, uint64_t end) {
    ch->flights[(ch->flight_head + ch->flight_count++) % ch->flight_capacity] = (struct xi_flight){end, size};
    ch->flight_bytes += size;
}

int64_t xi_log_append(struct xi_channel *ch, const struct xi_record *records, size_t n, struct xi_sending *sending) {
    struct xi_chan *c = ch->chan;
    const struct xi_view *v = &ch->send_view;
    if (__builtin_expect(xi_load_relaxed(&c->closed), 0)) return xi_fail_closed(ch);
    uint64_t stored = xi_load_relaxed(&c->tail), seq = xi_load_relaxed(&c->tail_seq);
    uint64_t floor_ = xi_load_relaxed(&c->min_head), active = xi_load_relaxed(&c->active), w = stored;
    if (__builtin_expect(!xi_is_aligned(stored, 8), 0)) return broken(ch);
    if (__builtin_expect(active == 0, 0)) { /* a broadcast that nobody hears */
        if (sending) xi_arena_mark_sent(sending->block, 0, sending->free_index, sending->free_argument);
        xi_bump(&c->vanished, n);
        return (int64_t)n;
    }
    if (n > BATCH_MAX) n = BATCH_MAX;
    if (sending) {
        if (!flights_reserve(ch)) return xi_fail(XI_E_NOMEM, "no memory to keep account of values under way");
        if (flights_full(ch, sending, active, w)) return 0;
    }
    size_t done = 0;
    for (; done < n; done++) {
        uint64_t need = 8 + (uint64_t)xi_record_length(&records[done]) + 8;
        if (__builtin_expect(w - floor_ > v->capacity || w - floor_ + need > v->capacity, 0)) {
            floor_ = smallest_head(c, active, w, v->capacity);
            xi_store_relaxed(&c->min_head, floor_);
            if (w - floor_ + need > v->capacity) break;
        }
        /* Never over the record at the stored tail: a repair would start its walk there. */
        if (__builtin_expect(w - stored + need > v->capacity, 0)) break;
        if (sending) xi_arena_mark_sent(sending->block, active, sending->free_index, sending->free_argument);
        xi_log_publish(v, w, &records[done], (uint16_t)(seq + done + 1));
        w += 8 + xi_record_length(&records[done]);
    }
    if (done == 0) return 0;
    if (sending) flights_add(ch, sending->block->size, w);
    /* Release: neither may be seen before the headers that it counts (a repair reads them in that order). */
    xi_store_release(&c->tail_seq, seq + done);
    xi_store_release(&c->tail, w);
    xi_bump(&ch->sent, done);
    return (int64_t)done;
}

uint64_t xi_log_smallest_head(struct xi_channel *ch) {
    struct xi_chan *c = ch->chan;
    uint64_t capacity = xi_ring_capacity(ch, xi_load_relaxed(&c->ring));
    return smallest_head(c, xi_load_relaxed(&c->active), xi_load_relaxed(&c->tail), capacity);
}

bool xi_log_has_room(struct xi_channel *ch, uint32_t length) {
    struct xi_chan *c = ch->chan;
    if (xi_load_full(&c->closed) || !xi_has_consumers(ch)) return true;
    for (int attempt = 0; attempt < 3; attempt++) {
        uint64_t active = xi_load_full(&c->active), heads[XI_MAX_GROUPS], most = 0;
        unsigned n = 0;
        if (active == 0) return true;
        for (; active; active &= active - 1) heads[n++] = xi_load_full(&c->groups[__builtin_ctzll(active)].head);
        uint64_t tail = xi_load_full(&c->tail); /* after the heads, so that none of them can be past it */
        for (unsigned i = 0; i < n; i++)
            if (tail - heads[i] > most) most = tail - heads[i];
        uint64_t capacity = xi_ring_capacity(ch, xi_load_full(&c->ring));
        if (most <= capacity) return most + 8 + length + 8 <= capacity;
    }
    return false; /* busy, or broken: the sleep that follows looks again after a second at the latest */
}

bool xi_log_has_value(struct xi_channel *ch) {
    /* Sequentially consistent, so that after parking this look is not done before the bits are set. */
    uint64_t head = xi_load_full(&ch->group->head);
    if (xi_load_full(&ch->chan->ring) != 0) {
        if (xi_log_tail_beyond(ch, head)) return true;
    } else if (xi_load_full(xi_header_at(&ch->home, head)) != 0) {
        return true;
    }
    /* Closed, nobody left who sends, its group at an end: the caller finds out whether there is a last value. */
    return xi_load_full(&ch->chan->closed) || !xi_has_producers(ch) || !xi_group_lives(ch);
}
