/* SPDX-License-Identifier: MIT */
/*
 * The ring's producing side: finding space, and the stores of a send in the
 * order that wire/layout.h gives ("Send"; tests/model/records.pml explores it). Also the looks without a lock that
 * tell a waiter whether to try.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "../wire/bounds.h"
#include "log.h"

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
 * hold 1,600 values of any size: each handle may have 64 times the capacity (or
 * as much as the ring may grow to, if that is more), or 16 values, that not every
 * group has received. Positions tell which those are, so a death of anybody else
 * changes nothing.
 */
#define FLIGHT_VALUES 16u
#define FLIGHT_TIMES 64u

static bool too_much(const struct xi_channel *ch, size_t size) {
    uint64_t most = FLIGHT_TIMES * ch->home.capacity;
    if (ch->grow_max > most) most = ch->grow_max;
    return ch->flight_count >= FLIGHT_VALUES && ch->flight_bytes + size > most;
}

/* Forgets what all groups have received, given how far the slowest has come. */
static void flights_settle(struct xi_channel *ch, uint64_t head) {
    while (ch->flight_count && (int64_t)(head - ch->flights[ch->flight_head].end) >= 0) {
        ch->flight_bytes -= ch->flights[ch->flight_head].size;
        ch->flight_head = (ch->flight_head + 1) % ch->flight_capacity;
        ch->flight_count--;
    }
}

/* What is kept for groups that join later alone is too much: it is given up, oldest first, as far as need be. */
static int flights_yield(struct xi_channel *ch, size_t size) {
    struct xi_chan *c = ch->chan;
    uint64_t tail = xi_load_relaxed(&c->tail), active = xi_real_groups(ch, xi_load_relaxed(&c->active)), end;
    uint64_t head = smallest_head(c, active, tail, ch->send_view.capacity);
    int rc = 0;
    while (rc == 0 && too_much(ch, size) && (int64_t)(head - (end = ch->flights[ch->flight_head].end)) >= 0) {
        rc = xi_retain_yield(ch, end, tail, xi_load_relaxed(&c->tail_seq));
        flights_settle(ch, xi_load_relaxed(&c->groups[XI_GROUP_RETAIN].head));
    }
    return rc;
}

static bool flights_full(struct xi_channel *ch, const struct xi_sending *s, struct xi_want *want) {
    flights_settle(ch, xi_load_relaxed(&ch->chan->min_head)); /* so that the list is no longer than the ring */
    if (!too_much(ch, s->block->size)) return false;
    flights_settle(ch, xi_log_floor(ch));
    int rc = ch->retain ? flights_yield(ch, s->block->size) : 0;
    if (!too_much(ch, s->block->size)) return false;
    want->error = rc;
    want->lack = XI_LACK_BLOCKS;
    want->head = ch->flights[ch->flight_head].end;
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

/* ------------------------------------------------------------ most values */

/* Of the groups that anybody receives in the fewest values that one has received, at most `seq`. */
static uint64_t fewest_received(struct xi_channel *ch, uint64_t active, uint64_t seq) {
    uint64_t most = 0;
    for (active = xi_real_groups(ch, active); active; active &= active - 1) {
        uint64_t due = seq - xi_load_relaxed(&ch->chan->groups[__builtin_ctzll(active)].head_seq);
        if ((int64_t)due > (int64_t)most) most = due; /* a receiver may be past the number as stored: nothing is due */
    }
    return seq - most;
}

/*
 * Under the producers' lock, in a channel with max_values: how many more there may be now. Looks at the groups only when
 * what is known says that there may be none: a group that stands at floor_position or further on has received floor_seq
 * values, and none stands before min_head. One may begin at what is kept, before floor_position: while there is that, always.
 */
static uint64_t values_left(struct xi_channel *ch, uint64_t active, uint64_t seq) {
    if (seq - ch->floor_seq >= ch->max_values || xi_load_relaxed(&ch->chan->min_head) < ch->floor_position) {
        uint64_t fewest = fewest_received(ch, active, seq); /* before the positions, so at most what they say */
        ch->floor_position = xi_log_smallest_head(ch, xi_real_groups(ch, active));
        ch->floor_seq = fewest;
        (void)xi_log_floor(ch);
    }
    uint64_t due = seq - ch->floor_seq;
    return due < ch->max_values ? ch->max_values - due : 0;
}

/* A look without the lock: whether one more may be sent. The numbers received first, so that none is past the one sent. */
static bool values_fit(struct xi_channel *ch, uint64_t active) {
    uint64_t numbers[XI_MAX_GROUPS];
    unsigned n = 0;
    for (active = xi_real_groups(ch, active); active; active &= active - 1)
        numbers[n++] = xi_load_full(&ch->chan->groups[__builtin_ctzll(active)].head_seq);
    uint64_t sent = xi_load_full(&ch->chan->tail_seq);
    for (unsigned i = 0; i < n; i++)
        if ((int64_t)(sent - numbers[i]) >= (int64_t)ch->max_values) return false;
    return true;
}

/* ----------------------------------------------------------------- sending */

/* True if the channel may have so many more bytes of blocks, and *n of the records by their number, at least one. */
static bool within_bounds(struct xi_channel *ch, const struct xi_sending *s, size_t *n, struct xi_want *want) {
    struct xi_chan *c = ch->chan;
    if (s && flights_full(ch, s, want)) return false;
    if (ch->max_values) {
        uint64_t left = values_left(ch, xi_load_relaxed(&c->active), xi_load_relaxed(&c->tail_seq));
        if (left < *n) *n = left;
        if (left == 0) want->lack = XI_LACK_VALUES;
    }
    return *n != 0;
}

/*
 * How far back the ring must be kept, when that seems too far for `need` more bytes at `w`. What is kept for groups that
 * join later gives way, but not in vain.
 */
static uint64_t look_for_room(struct xi_channel *ch, uint64_t active, uint64_t w, uint64_t seq, uint64_t need, struct xi_want *want) {
    uint64_t capacity = ch->send_view.capacity;
    uint64_t floor_ = smallest_head(ch->chan, active, w, capacity);
    if (ch->retain && w - floor_ + need > capacity &&
        w - smallest_head(ch->chan, xi_real_groups(ch, active), w, capacity) + need <= capacity) {
        want->error = xi_retain_yield(ch, w + need - capacity, w, seq);
        floor_ = smallest_head(ch->chan, active, w, capacity);
    }
    xi_store_relaxed(&ch->chan->min_head, floor_);
    return floor_;
}

static int64_t append(struct xi_channel *ch, const struct xi_record *records, size_t n, struct xi_sending *sending,
                      struct xi_want *want) {
    struct xi_chan *c = ch->chan;
    const struct xi_view *v = &ch->send_view;
    if (__builtin_expect(xi_load_relaxed(&c->closed), 0)) return xi_fail_closed(ch);
    uint64_t stored = xi_load_relaxed(&c->tail), seq = xi_load_relaxed(&c->tail_seq);
    uint64_t floor_ = xi_load_relaxed(&c->min_head), active = xi_load_relaxed(&c->active), w = stored;
    if (__builtin_expect(!xi_is_aligned(stored, 8), 0)) return broken(ch);
    if (__builtin_expect(active == 0, 0)) { /* a broadcast that nobody hears */
        if (sending && sending->block) xi_arena_mark_sent(sending->block, 0, sending->free_index, sending->free_argument);
        xi_bump(&c->vanished, n);
        return (int64_t)n;
    }
    *want = (struct xi_want){.length = xi_record_length(&records[0]), .lack = XI_LACK_BYTES};
    bool block = sending && sending->block;
    size_t block_size = block ? sending->block->size : 0; /* once it is published, who receives it may have it freed */
    if (block && !flights_reserve(ch)) return xi_fail(XI_E_NOMEM, "no memory to keep account of values under way");
    if (__builtin_expect(block || ch->max_values, 0)) {
        if (!within_bounds(ch, block ? sending : NULL, &n, want)) return want->error;
        floor_ = xi_load_relaxed(&c->min_head);
    }
    size_t done = 0;
    for (; done < n; done++) {
        uint64_t need = 8 + (uint64_t)xi_record_length(&records[done]) + 8;
        /* Never over the record at the stored tail: a repair would start its walk there. */
        if (__builtin_expect(w - stored + need > v->capacity, 0)) break;
        if (__builtin_expect(w - floor_ > v->capacity || w - floor_ + need > v->capacity, 0)) {
            floor_ = look_for_room(ch, active, w, seq + done, need, want);
            if (w - floor_ + need > v->capacity) break;
        }
        if (block) xi_arena_mark_sent(sending->block, active, sending->free_index, sending->free_argument);
        if (sending && sending->number) xi_store_release(sending->number, seq + done + 1);
        xi_log_publish(v, w, &records[done], (uint16_t)(seq + done + 1));
        w += 8 + xi_record_length(&records[done]);
    }
    if (done == 0) return want->error;
    if (block) flights_add(ch, block_size, w);
    /* Release: neither may be seen before the headers that it counts (a repair reads them in that order). */
    xi_store_release(&c->tail_seq, seq + done);
    xi_store_release(&c->tail, w);
    xi_bump(&ch->sent, done);
    if (__builtin_expect(ch->retain != 0, 0)) xi_retain_trim(ch, w, seq + done);
    return (int64_t)done;
}

int64_t xi_log_append(struct xi_channel *ch, const struct xi_record *records, size_t n, struct xi_sending *sending,
                      struct xi_want *want) {
    if (!sending || !sending->block) return append(ch, records, n, sending, want);
    while (atomic_exchange_explicit(&ch->flights_busy, true, memory_order_acquire)) sched_yield(); /* never, unless the lock lies */
    int64_t done = append(ch, records, n, sending, want);
    atomic_store_explicit(&ch->flights_busy, false, memory_order_release);
    return done;
}

uint64_t xi_log_floor(struct xi_channel *ch) {
    struct xi_chan *c = ch->chan;
    uint64_t floor_ = smallest_head(c, xi_load_relaxed(&c->active), xi_load_relaxed(&c->tail), ch->send_view.capacity);
    xi_store_relaxed(&c->min_head, floor_);
    return floor_;
}

uint64_t xi_log_smallest_head(struct xi_channel *ch, uint64_t active) {
    struct xi_chan *c = ch->chan;
    return smallest_head(c, active, xi_load_relaxed(&c->tail), xi_ring_capacity(ch, xi_load_relaxed(&c->ring)));
}

/* What is wanted, where so many bytes behind `tail` are used of so many. */
static bool fits(struct xi_channel *ch, const struct xi_want *w, uint64_t active, uint64_t tail, uint64_t used, uint64_t capacity) {
    if (used + 8 + w->length + 8 > capacity) return false;
    if (w->head && (int64_t)(tail - used - w->head) < 0) return false;
    return !ch->max_values || values_fit(ch, active);
}

bool xi_log_has_room_for(struct xi_channel *ch, const struct xi_want *want) {
    struct xi_chan *c = ch->chan;
    if (xi_load_full(&c->closed) || !xi_has_consumers(ch)) return true;
    for (int attempt = 0; attempt < 3; attempt++) {
        uint64_t active = xi_real_groups(ch, xi_load_full(&c->active)), rest = active, heads[XI_MAX_GROUPS], most = 0;
        unsigned n = 0;
        if (active == 0) return true;
        for (; rest; rest &= rest - 1) heads[n++] = xi_load_full(&c->groups[__builtin_ctzll(rest)].head);
        uint64_t tail = xi_load_full(&c->tail); /* after the heads, so that none of them can be past it */
        for (unsigned i = 0; i < n; i++)
            if (tail - heads[i] > most) most = tail - heads[i];
        uint64_t capacity = xi_ring_capacity(ch, xi_load_full(&c->ring));
        if (most <= capacity) return fits(ch, want, active, tail, most, capacity) || xi_group_orphaned(ch);
    }
    return false; /* busy, or broken: the sleep that follows looks again after a second at the latest */
}

bool xi_log_has_room(struct xi_channel *ch, uint32_t length) {
    if (xi_log_has_room_for(ch, &(struct xi_want){.length = length})) return true;
    return ch->when_full == XI_FULL_DROP || xi_ring_could_grow(ch);
}

bool xi_log_value_at(struct xi_channel *ch, uint64_t position) {
    /* Sequentially consistent, so that after parking this look is not done before the bits are set. */
    if (xi_load_full(&ch->chan->ring) != 0) return xi_log_tail_beyond(ch, position);
    if (xi_home_bare(ch)) return xi_log_tail_beyond(ch, position);
    return xi_load_full(xi_look_at(ch, position)) != 0;
}

bool xi_log_has_value(struct xi_channel *ch) {
    if (ch->ack) return xi_ack_has_value(ch);
    if (xi_log_value_at(ch, xi_load_full(&ch->group->head))) return true;
    /* Closed, nobody left who sends, its group at an end: the caller finds out whether there is a last value. */
    return xi_load_full(&ch->chan->closed) || !xi_has_producers(ch) || !xi_group_lives(ch);
}
