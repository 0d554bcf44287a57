/* SPDX-License-Identifier: MIT */
/*
 * Which arena segments are still named: by records that some group has yet to
 * receive, and by what receivers hold. It asks on behalf of dead owners, whose
 * segments may go when nothing names them.
 *
 * Nobody is stopped for it. A dead owner sends no more, so what may name its
 * blocks lies between the smallest head and the tail of now, and moves one way
 * only: out of the ring, into a borrow table, out of that. (A group that joins
 * begins no further back than the smallest head.) A receiver writes
 * its borrow before it moves the head; so whoever reads all rings first and
 * then all borrow tables meets every name at least once.
 *
 * Reading a ring beside its users: bytes at or after the smallest head are not
 * overwritten while it stays there. So records are read in short runs and the
 * heads after each; if the smallest head has overtaken the run's start, the run
 * was read from bytes that may be somebody else's, and reading goes on from
 * that head. Every run thus begins further on than the one before. A segment
 * that such a run named wrongly is kept a little longer, no more.
 *
 * The ring may move meanwhile (layout.h, "Growing"). What was due when a view of
 * it was made lies where it lay then, in what the ring has left behind as well.
 *
 * A ring that makes no sense (somebody wrote garbage) is read as words: at every
 * eighth byte that looks like the header of a descriptor, the descriptor is
 * taken for one.
 */
#include "repair_internal.h"

#define RUN_RECORDS 64 /* between two looks at the heads */
#define PART_RUNS 256   /* some 16,000 records: fractions of a millisecond */

struct marker {
    xi_mark_fn mark;
    void *context;
};

static void mark_block(const struct marker *m, uint32_t segment, uint32_t granule) {
    if (segment != 0 && segment % 2 == 0) m->mark(m->context, segment, granule);
}

/* The smallest head of these groups, UINT64_MAX without any. False if one cannot be: see xi_lowest_head. */
static bool smallest_of(const struct xi_chan_view *view, uint64_t active, uint64_t tail, uint64_t *out) {
    uint64_t smallest = UINT64_MAX;
    for (; active; active &= active - 1) {
        uint64_t head = xi_load_acquire(&view->chan->groups[__builtin_ctzll(active)].head);
        if (!xi_position_plausible(head) || head < xi_lowest_head(view, tail)) return false;
        if (head < smallest) smallest = head;
    }
    *out = smallest;
    return true;
}

static uint64_t lives_of(const struct xi_chan_view *view, uint64_t active) {
    uint64_t sum = 0;
    for (; active; active &= active - 1) sum += xi_load_acquire(&view->chan->groups[__builtin_ctzll(active)].life);
    return sum;
}

#define LOOKS 100

/*
 * The same of the active groups. One that joins may begin at the smallest head, which then goes on: whoever sees that it
 * has, sees that another group is there, too, and looks again. False also when that goes on all the time.
 */
static bool smallest_head(const struct xi_chan_view *view, uint64_t tail, uint64_t *out) {
    for (int i = 0; i < LOOKS; i++) {
        uint64_t active = xi_load_acquire(&view->chan->active), lives = lives_of(view, active);
        if (!smallest_of(view, active, tail, out)) return false;
        if (xi_load_acquire(&view->chan->active) == active && lives_of(view, active) == lives) return true;
    }
    return false;
}

/* Marks what a run of records from *position on names, and moves it past them. False at a record that is not valid. */
static bool mark_run(const struct xi_chan_view *view, uint64_t *position, uint64_t tail, const struct marker *m) {
    struct xi_record record;
    for (int n = 0; n < RUN_RECORDS && *position < tail; n++) {
        if (!xi_record_read(view, *position, tail, &record)) return false;
        if (XI_REC_KIND(record.header) == XI_REC_BLOCK) {
            struct xi_block_name block = xi_block_read(view, *position);
            mark_block(m, block.segment, block.granule);
        }
        *position = record.next;
    }
    return true;
}

/*
 * Marks what the records from the cursor on name, or from the smallest head, if that is further on by now; up to the tail
 * as it was at the beginning: what comes after it is of the living. False if the ring makes no sense.
 */
static bool mark_records(const struct xi_chan_view *view, struct xi_mark_cursor *c, const struct marker *m) {
    uint64_t now;
    if (!c->begun) {
        *c = (struct xi_mark_cursor){true, 0, xi_load_acquire(&view->chan->tail)};
        if (!xi_position_plausible(c->limit)) return false;
    }
    for (int runs = 0; runs < PART_RUNS && c->position < c->limit; runs++) {
        if (!smallest_head(view, c->limit, &now)) return false;
        uint64_t position = now > c->position ? now : c->position, next = position;
        bool valid = mark_run(view, &next, c->limit, m);
        if (!smallest_head(view, c->limit, &now)) return false;
        if (now <= position && !valid) return false;
        c->position = now > position ? now : next;
    }
    return true;
}

/* A record that is due lies where it lies, so reading every place that can be one misses none. */
static void mark_words(const struct xi_chan_view *view, const struct marker *m) {
    for (uint64_t offset = 0; offset < view->capacity; offset += 8) {
        uint64_t header = xi_load_acquire(xi_ring_at(view, offset));
        if (!XI_REC_IS_BLOCK(header)) continue;
        struct xi_block_name block = xi_block_read(view, offset);
        mark_block(m, block.segment, block.granule);
    }
}

enum xi_marked xi_mark_part(const struct xi_chan_view *view, struct xi_mark_cursor *cursor, xi_mark_fn mark, void *context) {
    const struct marker m = {mark, context};
    if (view->unsent && xi_load_acquire(&view->chan->tail) != 0) return XI_MARK_MOVED; /* into being */
    if (!view->lost && mark_records(view, cursor, &m)) return cursor->position < cursor->limit ? XI_MARK_MORE : XI_MARK_DONE;
    if (xi_load_acquire(&view->chan->ring) != view->word) return XI_MARK_MOVED;
    mark_words(view, &m);
    return XI_MARK_DONE;
}

void xi_mark_channel(const struct xi_chan_view *view, xi_mark_fn mark, void *context) {
    struct xi_mark_cursor cursor = {.begun = false};
    while (xi_mark_part(view, &cursor, mark, context) == XI_MARK_MORE) continue;
}

/*
 * An entry that is freed and taken again while it is read may be missed, or read half: then its record was still in
 * a ring when the rings were read.
 */
void xi_mark_borrows(const struct xi_borrow_view *borrows, size_t chunks, xi_mark_fn mark, void *context) {
    const struct marker m = {mark, context};
    for (size_t c = 0; c < chunks; c++) {
        for (size_t i = 0; i < borrows[c].count; i++) {
            struct xi_borrow *b = &borrows[c].entries[i];
            if (xi_load_acquire(&b->key) == 0 || xi_load_acquire(&b->call) != 0) continue;
            uint64_t where = xi_load_acquire(&b->block);
            mark_block(&m, (uint32_t)(where >> 32), (uint32_t)where);
        }
    }
}

uint64_t xi_channel_depth(const struct xi_chan_view *view) {
    struct xi_chan *chan = view->chan;
    uint64_t active = xi_load_full(&chan->active), sent = xi_load_full(&chan->tail_seq), depth = 0;
    if (view->retains && active & ~XI_RETAIN_BIT) active &= ~XI_RETAIN_BIT;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        uint64_t received = xi_load_full(&chan->groups[g].head_seq);
        if ((active >> g & 1) && received < sent && sent - received > depth) depth = sent - received;
    }
    return depth;
}

bool xi_chan_empty(struct xi_chan *chan, bool retains, uint64_t (*word)(const void *context, uint64_t position), const void *context) {
    uint64_t active = xi_load_full(&chan->active), tail = xi_load_full(&chan->tail);
    /* What is kept for those that join keeps the channel, until it is closed. */
    if (retains && xi_load_full(&chan->closed)) active &= ~XI_RETAIN_BIT;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        if (!(active >> g & 1)) continue;
        uint64_t head = xi_load_full(&chan->groups[g].head);
        if (head < tail || word(context, head) != 0) return false;
    }
    return true;
}

static uint64_t word_in_view(const void *view, uint64_t position) { return xi_load_full(xi_ring_at(view, position)); }

bool xi_channel_empty(const struct xi_chan_view *view) {
    if (view->lost) return true; /* nobody can find what was in it */
    return xi_chan_empty(view->chan, view->retains, word_in_view, view);
}
