/* SPDX-License-Identifier: MIT */
/*
 * What a handle has besides, whose group acknowledges, and the steps that
 * delivering (deliver.c) and ending a delivery (ack.c) have in common. The table
 * and its orders of stores are in wire/layout.h ("Groups that acknowledge").
 *
 * Every number of the table was written by any member of the group: it is copied
 * once, checked against what is in flight, and only then used. A table that
 * cannot be is made anew from the group's head, and counted as corrupt.
 */
#ifndef XI_CHANNEL_ACK_H
#define XI_CHANNEL_ACK_H

#include "record.h"

#define XI_ACK_RETRY_NS 100000000ll /* until a value that could not be moved, or handed on, is looked at again */
#define XI_BORROWED_BY_DELIVERY UINT32_MAX /* in xi_msg.borrow_: in shared memory, with no entry in the borrow table */

struct xi_ack {
    struct xi_acks *acks;
    struct xi_map_entry *entry;
    uint64_t window;         /* checked copies of what is static */
    uint64_t timeout_ns;
    uint32_t max_deliveries;
    uint32_t handle;         /* tells the handles of this interpreter apart */
    char dead[80];
};

/* What is in flight: numbers head_seq + 1 to next_seq, records from head to next. */
struct xi_flying {
    uint64_t head, head_seq, next, next_seq;
};

static inline struct xi_delivery *xi_delivery_of(const struct xi_ack *a, uint64_t number) {
    return &a->acks->entries[number & (a->window - 1)];
}

/* Under the group's lock. False: what is stored cannot be. */
bool xi_flying_read(const struct xi_channel *ch, struct xi_flying *f);
/* Under the lock: nothing is in flight any more, whatever was is delivered anew. Returns XI_E_CORRUPT. */
int xi_flying_reset(struct xi_channel *ch);
/* Under the lock: past all that are DONE in a row. True if the head moved. */
bool xi_flying_settle(struct xi_channel *ch);
/* Under the lock: to be looked at again at this time at the latest. True if that is sooner than it was to be. */
bool xi_due_by(struct xi_channel *ch, uint64_t when);
/*
 * Under the lock: the value is acknowledged, or is nobody's any more. `block` may be
 * NULL where the record names none. `alone`: nobody but the caller can have had it. True if the block's owner waits
 * for it: xi_tell_owner().
 */
struct xi_held_block {
    struct xi_map_entry *entry;
    uint32_t granule, flags;
    uint64_t generation;
};
bool xi_delivery_done(struct xi_channel *ch, struct xi_delivery *d, const struct xi_held_block *block, bool alone);
/* The same of a value that went to nobody, which is counted: once, whoever dies meanwhile. */
bool xi_delivery_gone(struct xi_channel *ch, uint64_t number, const struct xi_held_block *block, bool alone, enum xi_gone why);
/*
 * Under the lock: who had this delivery (the value's `count`-th) of a block, through this handle, and lingered,
 * reads it no more. True if the block's owner is to be told.
 */
bool xi_linger_end(struct xi_channel *ch, uint64_t number, uint32_t count, const struct xi_held_block *block);
/* Under the lock: remembers whoever has this delivery of a block, before another gets the value. False: no room. */
bool xi_linger_add(const struct xi_ack *a, uint64_t state, uint64_t number, uint64_t block, uint64_t generation);

/*
 * dead.c: sends what the message holds, copied deep, to the channel of that name, as
 * why-it-went-there. `due`, `count`: where the number that it gets there, and that
 * channel, are noted before it is sent; or NULL. 0; AGAIN: later; else it never can be sent.
 */
struct xi_letter {
    const char *reason;
    const char *group;
    uint32_t deliveries;
    xi_a64 *due, *count;
};
enum xi_letters { XI_LETTERS_DEAD = 0, XI_LETTERS_EXPIRED = 1 };
int xi_letter_send(struct xi_channel *ch, enum xi_letters which, const xi_msg *m, const struct xi_letter *letter);

#endif
