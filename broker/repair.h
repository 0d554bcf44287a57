/* SPDX-License-Identifier: MIT */
/*
 * Repair: makes shared state read as if the dead had stopped between two
 * operations. libxi/wire/layout.h states, beside each structure, the order of
 * stores that each step here relies on.
 *
 * Everything is a function of mapped memory and struct xi_world, makes no
 * system call of its own, and is idempotent: the broker may be killed at any
 * instruction of it, and the next one runs it again from the start.
 *
 * Who calls: one thread, the broker's. So a lock that names slot 0 on entry is
 * that of a broker that was killed, and is repaired as the dead one's is. After
 * an adoption xi_repair_channel runs on every channel with slot 0 as the dead.
 *
 * Order for one or more deaths: xi_judge_moves for each dead on each table of
 * its channels, then xi_repair_channel for each of its channels; xi_repair_borrows
 * for each; xi_repair_acks and xi_repair_groups until true; xi_repair_bells for
 * each living mailbox. Only then may the slots be reused.
 */
#ifndef XI_BROKER_REPAIR_H
#define XI_BROKER_REPAIR_H

#include <stdbool.h>

#include "wire/layout.h"

struct xi_chan_view;

/* What repair needs of the world; answers NULL for what is gone or out of bounds. */
struct xi_world {
    void *context;
    struct xi_release *(*release)(void *context, uint32_t segment, uint32_t granule);
    struct xi_mailbox *(*mailbox)(void *context, uint32_t slot);
    /* Slot of the interpreter that an arena segment belongs to, also when it is gone; 0: no such segment. */
    uint32_t (*owner_of)(void *context, uint32_t segment);
    void (*futex_wake)(void *context, xi_a32 *word, int count);
    /* A table of deliveries that belongs to the channel in this segment. */
    struct xi_acks *(*acks)(void *context, uint32_t number, uint32_t chan_segment, uint64_t *window);
    /* The channel in this segment; false: none. */
    bool (*channel)(void *context, uint32_t segment, struct xi_chan_view *view);
    /* Whether a living process in this slot can hold a lock of the channel in that segment: it has opened it. NULL: any can. */
    bool (*may_hold)(void *context, uint32_t segment, uint32_t slot);
};

/*
 * A channel as the broker has it mapped; the numbers are its own checked copies. `word` says where the ring was when the
 * view was made: members may move it as long as nobody holds a lock of the channel.
 */
struct xi_chan_view {
    struct xi_chan *chan;
    uint8_t *ring; /* mapped twice in a row */
    uint64_t capacity;
    uint32_t segment;
    bool lost;     /* `word` names no ring of this channel; the view is at the channel's own, which holds nothing */
    bool bare;     /* the channel's own ring is not backed by memory: nothing was sent. Zeros lie in its place, only to be read */
    bool unsent;   /* and the tail was 0 when that was seen: once it is not, somebody has sent, and the view is out of date */
    uint64_t word;
    bool retains; /* its last group is that of retained values: nobody's, moved by producers under their lock */
};

/* The dead one's borrow entries, in any number of chunks. */
struct xi_borrow_view {
    struct xi_borrow *entries;
    size_t count;
};
struct xi_dead {
    uint32_t slot;
    int64_t id;
    const struct xi_borrow_view *borrows;
    size_t borrow_chunks;
    bool left; /* orderly */
};

/* A table of deliveries, as the broker has it mapped. */
struct xi_acks_view {
    struct xi_acks *acks;
    uint64_t window;
    uint32_t number;
};

/*
 * Repairs one channel after the death of `dead`: the producers' lock, every
 * group's lock (judging in-flight borrows before each is freed), waiter
 * entries; then rings for whatever has something to do and wakes lock waiters.
 * Never waits. Works on hostile contents: a state that no order of stores
 * explains is brought to a consistent one, and counted in group.corrupt.
 * False: the living have moved the ring since the view was made; what only the
 * new place can tell is left for a call with a new view.
 */
bool xi_repair_channel(const struct xi_chan_view *view, const struct xi_dead *dead, const struct xi_world *world);

/*
 * After every channel is repaired: releases every borrow of the dead, telling owners where a free function waits, and
 * whoever waits for a reply from the dead.
 */
void xi_repair_borrows(const struct xi_dead *dead, const struct xi_world *world);

/*
 * Ends the groups that end with `dead`. They need the producers' lock, taken for
 * slot 0; false when a living process holds it: call again later.
 */
bool xi_repair_groups(const struct xi_chan_view *view, const struct xi_dead *dead, const struct xi_world *world);

/*
 * Before any lock of the dead one is freed: whether the values that it was moving to
 * another channel were sent there. Any channel of its may be that other channel.
 */
void xi_judge_moves(const struct xi_acks_view *acks, const struct xi_dead *dead, const struct xi_world *world);
/*
 * What was delivered to the dead one goes to others, and blocks that it may have been
 * reading are let go, in this table. Needs the group's lock, as xi_repair_groups.
 */
bool xi_repair_acks(const struct xi_chan_view *view, const struct xi_acks_view *acks, const struct xi_dead *dead,
                    const struct xi_world *world);
/* True if a table is no group's any more and nobody lingers in it. `may_join`: who asked for it lives. */
bool xi_acks_unused(const struct xi_chan_view *view, const struct xi_acks_view *acks, bool may_join);
/* True if somebody may be reading a block whose value is gone. */
bool xi_acks_linger(const struct xi_acks_view *acks);

/*
 * After a channel was removed by name: says so in it, and ends every group, which
 * releases what they had yet to receive. False when a living process holds a lock
 * that this needs: call again later.
 */
bool xi_end_channel(const struct xi_chan_view *view, const struct xi_world *world);
/* Values that some group has yet to receive; where there is none, that are kept for those that join. */
uint64_t xi_channel_depth(const struct xi_chan_view *view);

/* Rings everybody who sleeps on the channel and has something to do: after an adoption, or a suspected lost wake. */
void xi_ring_channel(const struct xi_chan_view *view, const struct xi_world *world);

/* True if the channel has grown into a ring in which nothing is left. A look without locks; *tail: where it stands. */
bool xi_ring_drained(const struct xi_chan_view *view, uint64_t *tail);
/* Moves such a channel into its own ring, of `capacity` bytes. False if a living process holds a lock of it, or it is not
 * drained (any more). */
bool xi_ring_home(const struct xi_chan_view *view, uint64_t capacity, const struct xi_world *world);

/*
 * Rings every bell of a living interpreter that was claimed (NOTIFIED): whoever claimed it may have died before it
 * rang, and later wakers leave a claimed bell alone. For every living interpreter's mailbox, after each death and
 * adoption.
 */
void xi_repair_bells(struct xi_mailbox *mailbox, const struct xi_world *world);
/* Rings every sleeper of an interpreter: one of them has to learn something that no channel tells. */
void xi_ring_sleepers(struct xi_mailbox *mailbox, const struct xi_world *world);

/* True when every active group has received everything: nothing would be lost by removing the channel. */
bool xi_channel_empty(const struct xi_chan_view *view);
/* The same of a channel, or a copy of one, whose ring is its own: `word` gives what lies there at a position. */
bool xi_chan_empty(struct xi_chan *chan, bool retains, uint64_t (*word)(const void *context, uint64_t position), const void *context);

/*
 * Collection: calls `mark` with each arena segment that records of the channel
 * still name for some group, or that borrow entries name; a segment may be
 * named more than once. Runs beside living senders and receivers without
 * locks: it may name a segment too many, never one too few, provided that all
 * channels are marked before any borrows (a receiver writes its borrow before
 * it moves the head). `mark` also gets the granule, so that blocks can be counted.
 */
typedef void (*xi_mark_fn)(void *context, uint32_t segment, uint32_t granule);
void xi_mark_channel(const struct xi_chan_view *view, xi_mark_fn mark, void *context);
/*
 * The same in parts, since a ring that has grown may hold millions of records:
 * call it with a cursor that is all zero at first, and a new view each time,
 * until it is done. MOVED: the ring is elsewhere by now; likewise call again.
 */
struct xi_mark_cursor {
    bool begun;
    uint64_t position, limit;
};
enum xi_marked { XI_MARK_DONE, XI_MARK_MORE, XI_MARK_MOVED };
enum xi_marked xi_mark_part(const struct xi_chan_view *view, struct xi_mark_cursor *cursor, xi_mark_fn mark, void *context);
/* After its channel: what those name who linger. */
void xi_mark_lingers(const struct xi_acks_view *acks, xi_mark_fn mark, void *context);
void xi_mark_borrows(const struct xi_borrow_view *borrows, size_t chunks, xi_mark_fn mark, void *context);

#endif
