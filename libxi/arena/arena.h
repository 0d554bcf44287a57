/* SPDX-License-Identifier: MIT */
/*
 * The arena: where an interpreter places its XIData. Others map it read-only and
 * answer with release words (wire/layout.h); which blocks exist, and which are
 * free, is kept here, in private memory, where nobody else can break it.
 *
 * Segments are cut into pages of 64 KiB. A page serves one size class (1 to
 * 32 KiB), or a run of pages one large block; what is larger than any segment
 * gets one of its own. Free pages return to their segment, free segments to the
 * system once they have been idle for a second.
 */
#ifndef XI_ARENA_ARENA_H
#define XI_ARENA_ARENA_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../wire/layout.h"

struct xi_interp;
struct xi_map_entry;

#define XI_APAGE ((size_t)65536)
#define XI_CLASSES 10
#define XI_LARGE_CACHE 8

enum xi_block_state {
    XI_BLOCK_FREE = 0,
    XI_BLOCK_LOANED = 1, /* the caller's, writable */
    XI_BLOCK_SENT = 2,   /* in a channel or borrowed: free again when every bit of its release words is set */
    XI_BLOCK_CHILD = 3,  /* freed together with the block that refers to it */
    XI_BLOCK_HELD = 4    /* would be free, but for its holds */
};

struct xi_asegment;
struct xi_block {
    struct xi_block *prev, *next; /* in the arena's list of blocks that are out; of a free one: next free of its page */
    struct xi_block *children, *sibling;
    struct xi_asegment *segment;
    uint32_t granule;
    uint32_t page;                /* index in the segment */
    uint64_t generation;
    _Atomic uint32_t state;
    uint32_t free_index;          /* free function and its argument */
    uint64_t free_argument;
    size_t size;
    uint32_t holds;
    uint32_t pad_;
};

enum xi_apage_use { XI_APAGE_FREE = 0, XI_APAGE_SMALL, XI_APAGE_LARGE, XI_APAGE_LARGE_REST };
struct xi_apage {
    uint8_t use, class_;
    uint16_t used;            /* small: blocks out */
    uint32_t run;             /* large: pages */
    struct xi_block *blocks;  /* small: as many as fit, kept while the page has this class; large: one */
    struct xi_block *free;
    struct xi_apage *prev, *next; /* pages of the class that have a free block */
    struct xi_asegment *segment;
};

struct xi_asegment {
    struct xi_asegment *next;
    struct xi_map_entry *entry;
    uint8_t *data;            /* the segment's start */
    struct xi_release *release;
    uint32_t number, pages, free_pages;
    uint32_t first_free;      /* no free page lies below */
    uint64_t generation;
    int64_t idle_since;       /* ns; 0 while in use */
    struct xi_apage page[];
};

struct xi_arena {
    pthread_mutex_t mutex;
    struct xi_asegment *segments;
    struct xi_apage *partial[XI_CLASSES];
    struct xi_block *large[XI_LARGE_CACHE]; /* free large blocks, for the next of their size */
    unsigned large_count;
    struct xi_block *first, *last, *cursor; /* blocks that are out, oldest first; where the rotating look stands */
    size_t out;
    atomic_size_t debt;      /* blocks still to be looked at because somebody said that one is due */
    size_t bytes;
    uint32_t ticks;
};

int xi_arena_init(struct xi_arena *a);
void xi_arena_deinit(struct xi_interp *me);
/* A block of at least `size` bytes, LOANED. May block for the broker. Errors: NOSPACE, QUOTA, NOMEM, TOOBIG, BROKER. */
int xi_arena_alloc(struct xi_interp *me, size_t size, struct xi_block **out);
void xi_arena_free(struct xi_interp *me, struct xi_block *b);
void xi_arena_attach(struct xi_interp *me, struct xi_block *root, struct xi_block *child);
/* The child at that place, attached no more and LOANED; NULL: `root` has no such. */
struct xi_block *xi_arena_detach(struct xi_interp *me, struct xi_block *root, uint32_t segment, uint32_t granule,
                                 uint64_t generation);
/* A block that is held does not go back to its page. */
void xi_arena_hold(struct xi_interp *me, struct xi_block *b);
void xi_arena_unhold(struct xi_interp *me, struct xi_block *b);
/*
 * The last step before the record is published: from then on release words decide, in which only the bits of `groups`,
 * those that are there, are not set. Any lock may be held.
 */
void xi_arena_mark_sent(struct xi_block *b, uint64_t groups, uint32_t free_index, uint64_t argument);
static inline void *xi_block_data(const struct xi_block *b) { return b->segment->data + (size_t)b->granule * XI_GRANULE; }
/*
 * Takes back up to about `budget` blocks that all groups have released; queues
 * their free functions. Looks at the oldest first, then at a few others in turn,
 * so that a block held for long does not hide those behind it and the cost of a
 * call is bounded. SIZE_MAX: looks at all.
 */
void xi_arena_reclaim(struct xi_interp *me, size_t budget);
/* A reader said that a block with a free function may be due: the next calls will look at all, a few each. */
void xi_arena_owe(struct xi_interp *me);
/* Gives segments that have been empty for a second back to the system. Never blocks. */
void xi_arena_trim(struct xi_interp *me, int64_t now);

#endif
