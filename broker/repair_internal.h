/* SPDX-License-Identifier: MIT */
/*
 * What the files of repair share: reading a channel that may hold anything, and
 * storing into it in steps that a test can stop between.
 *
 * Every store and wake of repair goes through the xi_put_ and xi_do_ functions
 * below. Each begins with XI_REPAIR_STEP(), which is nothing, but for the test
 * that kills repair before its k-th step and runs it again.
 */
#ifndef XI_BROKER_REPAIR_INTERNAL_H
#define XI_BROKER_REPAIR_INTERNAL_H

#include <limits.h>

#include "repair.h"
#include "wire/bounds.h"
#include "wire/order.h"

#ifndef XI_REPAIR_STEP
#define XI_REPAIR_STEP() ((void)0)
#endif

/* Positions and numbers of values beyond this have been written by nobody who counts from 0. */
#define XI_COUNT_MAX ((uint64_t)1 << 62)

/* ---- stores, each a step */

static inline void xi_put32(xi_a32 *p, uint32_t v) {
    XI_REPAIR_STEP();
    xi_store_release(p, v);
}
static inline void xi_put64(xi_a64 *p, uint64_t v) {
    XI_REPAIR_STEP();
    xi_store_release(p, v);
}
static inline bool xi_do_cas32(xi_a32 *p, uint32_t expected, uint32_t desired) {
    XI_REPAIR_STEP();
    return xi_cas32_full(p, &expected, desired);
}
static inline bool xi_do_cas64(xi_a64 *p, uint64_t *expected, uint64_t desired) {
    XI_REPAIR_STEP();
    return xi_cas64_full(p, expected, desired);
}
static inline uint64_t xi_do_and(xi_a64 *p, uint64_t v) {
    XI_REPAIR_STEP();
    return xi_and_full(p, v);
}
static inline void xi_do_or(xi_a64 *p, uint64_t v) {
    XI_REPAIR_STEP();
    (void)xi_or_full(p, v);
}
static inline void xi_do_wake(const struct xi_world *world, xi_a32 *word, int count) {
    XI_REPAIR_STEP();
    world->futex_wake(world->context, word, count);
}

/* ---- reading a channel */

/* A position, or a number of a value, that somebody who follows the rules can have stored. (Of numbers, 16 bits more.)
 */
static inline bool xi_position_plausible(uint64_t position) { return position < XI_COUNT_MAX && position % 8 == 0; }
static inline bool xi_number_plausible(uint64_t number) { return number < XI_COUNT_MAX - 65536; }

/* The word of the ring at a position; inside the first mapping and aligned, whatever the position. */
/* Under any lock that keeps the ring where it is: it has moved since the view was made, or was not there and is by now. */
static inline bool xi_view_stale(const struct xi_chan_view *view) {
    return xi_load_acquire(&view->chan->ring) != view->word || (view->unsent && xi_load_acquire(&view->chan->tail) != 0);
}

static inline xi_a64 *xi_ring_at(const struct xi_chan_view *view, uint64_t position) {
    return (xi_a64 *)(void *)(view->ring + xi_ring_place(position, view->capacity - 1));
}

/* The smallest head that a group can have: with the header at the tail the ring is full. */
static inline uint64_t xi_lowest_head(const struct xi_chan_view *view, uint64_t tail) {
    return tail > view->capacity - 8 ? tail - (view->capacity - 8) : 0;
}

struct xi_record {
    uint64_t header;
    uint64_t position; /* of the header */
    uint64_t next;     /* position after the payload */
};

/* True if a valid record lies at `position` (which is plausible) and ends at `limit` at the latest. */
static inline bool xi_record_read(const struct xi_chan_view *view, uint64_t position, uint64_t limit,
                                  struct xi_record *out) {
    uint64_t header = xi_load_acquire(xi_ring_at(view, position));
    uint32_t length = XI_REC_LENGTH(header);
    if (!xi_ring_length_whole(length, view->capacity) || length < 8 + XI_REC_EXTRA(header)) return false;
    if (XI_REC_KIND(header) != XI_REC_INLINE && !XI_REC_IS_BLOCK(header)) return false;
    if (xi_ring_next(position, length) > limit) return false;
    *out = (struct xi_record){header, position, xi_ring_next(position, length)};
    return true;
}

struct xi_block_name {
    uint32_t segment, granule;
    uint64_t generation;
};

/* The block that a record of kind BLOCK names. Acquire: what is loaded afterwards is loaded later. */
static inline struct xi_block_name xi_block_read(const struct xi_chan_view *view, uint64_t position) {
    uint64_t where = xi_load_acquire(xi_ring_at(view, position + 8));
    uint64_t generation = xi_load_acquire(xi_ring_at(view, position + 16));
    return (struct xi_block_name){(uint32_t)where, (uint32_t)(where >> 32), generation};
}
static_assert(offsetof(struct xi_descriptor, segment) == 0 && offsetof(struct xi_descriptor, granule) == 4 &&
                  offsetof(struct xi_descriptor, generation) == 8,
              "xi_block_read takes the descriptor apart");

/* ---- locks */

/* True if nobody who lives can have stored this word in a lock of the channel: garbage, or a broker's that was killed. */
static inline bool xi_lock_is_nobodys(const struct xi_chan_view *view, const struct xi_world *world, uint32_t word) {
    uint32_t slot = XI_LOCK_SLOT(word);
    return slot == 0 || slot >= XI_MAX_INTERPS ||
           (world->may_hold && !world->may_hold(world->context, view->segment, slot));
}

/* Takes a lock for slot 0, which holds none. False: a living process has it. */
static inline bool xi_take_lock(const struct xi_chan_view *view, const struct xi_world *world, xi_a32 *lock) {
    uint32_t word = xi_load_full(lock);
    if (word != 0 && !xi_lock_is_nobodys(view, world, word)) return false;
    return xi_do_cas32(lock, word, XI_LOCK_OF(0));
}

/* ---- repair.c */

/* Frees a lock that is ours, and wakes who sleeps for it. */
void xi_free_lock(const struct xi_world *world, xi_a32 *lock, xi_a32 *lock_sleep);
/* Sets the group's bit in the block's release word, while the generation matches. And: its owner must look. */
void xi_release_block(const struct xi_world *world, const struct xi_block_name *block, uint32_t group);
void xi_tell_owner_of(const struct xi_world *world, uint32_t segment);
/* The number of the last value sent, though whoever sent it has not stored that yet: its lock is a dead one's. */
uint64_t xi_tail_number(const struct xi_chan_view *view);

/* ---- repair_ack.c: of groups that acknowledge; all but the last under the group's lock, which is ours */

/* Brings head, next and the table into order. False: the group does not acknowledge, or they cannot be. */
bool xi_repair_flying(const struct xi_chan_view *view, uint32_t g, const struct xi_world *world);
/* Nothing is in flight: the group goes on at its head. */
void xi_reset_flying(const struct xi_chan_view *view, uint32_t g, const struct xi_world *world);
/* The group ends: true if the block of this record, number `number`, is nobody's then. */
bool xi_end_flying(const struct xi_chan_view *view, uint32_t g, const struct xi_world *world, uint64_t number,
                   const struct xi_record *record);

/* ---- repair_ring.c */

/* Rings one doorbell. True if a thread that was asleep has been told by this call. */
bool xi_ring_bell(struct xi_mailbox *mailbox, uint32_t bell, const struct xi_world *world);
/* Takes the waiter entries of the dead one, and those that name nobody, out of the masks and frees them. */
void xi_forget_waiters(const struct xi_chan_view *view, const struct xi_dead *dead);

#endif
