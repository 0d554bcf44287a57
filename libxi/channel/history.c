/* SPDX-License-Identifier: MIT */
/*
 * Values that are kept for groups that join later, and where such a group begins.
 *
 * A channel with `retain` has one group more, the last of the table, which is
 * nobody's: it is there so that the ring and the arenas keep the last values, as
 * they do for any group that has yet to receive them. Producers move its head,
 * under their lock: after each send so far that it keeps no more than `retain`
 * values, and further when it alone makes the channel full. A value at a time:
 * its block's release bit, then head_seq, head; so a death leaves one value in
 * doubt at most, which repair steps over if its bit is set.
 *
 * A group may begin at any value that is there: at the smallest head of all
 * groups, or the last few before the tail. What it begins with must stay in the
 * ring until it is known to the producers: so the group whose head that is (its
 * guard) is held by its lock meanwhile. That of retained values needs no lock,
 * only producers move it. Of each block the joiner clears its own bit in the
 * release words, after which the owner keeps it. One that its owner is just
 * taking back, or has taken, is no longer to be had (a guard that acknowledges
 * may have released it behind its head, out of order): the joiner begins after it.
 * tests/model/groups.pml explores this with the ends of groups and deaths.
 */
#include "record.h"

/* ------------------------------------------------------------------ keeping */

/* Values that the channel keeps; no more than it may hold. */
static uint64_t keeps(const struct xi_channel *ch) {
    return ch->max_values && ch->max_values < ch->retain ? ch->max_values : ch->retain;
}

/*
 * Steps over the oldest value. `limit`: position after the last record, `seq` its number. 1; 0 when nothing is kept; or an error
 * of this process, which cannot give its block back now: so it stays.
 */
static int step(struct xi_channel *ch, uint64_t limit, uint64_t seq) {
    struct xi_group *g = &ch->chan->groups[XI_GROUP_RETAIN];
    const struct xi_view *v = &ch->send_view;
    uint64_t head = xi_load_relaxed(&g->head), number = xi_load_relaxed(&g->head_seq);
    if (head == limit) {
        if (number != seq) xi_store_relaxed(&g->head_seq, seq); /* somebody overwrote it */
        return 0;
    }
    uint64_t h = xi_load_relaxed(xi_header_at(v, head));
    uint64_t next = xi_ring_next(head, XI_REC_LENGTH(h));
    if (!xi_is_aligned(head, 8) || !xi_ring_behind(head, limit, v->capacity) || !xi_header_valid(ch, h) ||
        !xi_ring_behind(next, limit, v->capacity)) {
        xi_store_relaxed(&g->head_seq, seq); /* likewise: nothing more can be known of what it kept */
        xi_store_release(&g->head, limit);
        xi_bump(&g->corrupt, 1);
        return 0;
    }
    int rc = XI_REC_IS_BLOCK(h) ? xi_release_record(ch, XI_GROUP_RETAIN, head, h) : 0;
    if (rc) return rc;
    xi_store_relaxed(&g->head_seq, number + 1);
    xi_store_release(&g->head, next);
    return 1;
}

void xi_retain_trim(struct xi_channel *ch, uint64_t limit, uint64_t seq) {
    struct xi_group *g = &ch->chan->groups[XI_GROUP_RETAIN];
    uint64_t most = keeps(ch), steps = xi_rounds_most(ch);
    while (steps-- && seq - xi_load_relaxed(&g->head_seq) > most && step(ch, limit, seq) == 1) continue;
}

int xi_retain_yield(struct xi_channel *ch, uint64_t position, uint64_t limit, uint64_t seq) {
    struct xi_group *g = &ch->chan->groups[XI_GROUP_RETAIN];
    uint64_t steps = xi_rounds_most(ch);
    int rc = 1;
    while (rc == 1 && steps-- && (int64_t)(position - xi_load_relaxed(&g->head)) > 0) rc = step(ch, limit, seq);
    return rc < 0 ? rc : 0;
}

/* ------------------------------------------------------------------ joining */

/* The group with the smallest head, or XI_NO_GROUP where there is none. That of retained values, if it is one of several. */
static uint32_t slowest(const struct xi_channel *ch, uint64_t tail, uint64_t *head) {
    struct xi_chan *c = ch->chan;
    uint32_t found = XI_NO_GROUP;
    uint64_t most = 0;
    for (uint64_t active = xi_load_relaxed(&c->active); active; active &= active - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(active);
        uint64_t used = tail - xi_load_acquire(&c->groups[i].head);
        if (used > ch->send_view.capacity || (found != XI_NO_GROUP && used < most)) continue; /* the first: it is broken */
        most = used;
        found = i;
    }
    *head = tail - most;
    return found;
}

static bool is_retaining(const struct xi_channel *ch, uint32_t group) { return ch->retain && group == XI_GROUP_RETAIN; }

#define GUARD_TRIES 1000 /* each lost to a group that went on between the look and its lock */

/*
 * The group that has come least far, locked if anybody can receive in it, so that it stays where it is. Others only go on,
 * so it is the last of all then, too.
 */
static int hold_guard(struct xi_channel *ch, uint64_t tail, struct xi_start *s) {
    uint64_t head;
    for (int i = 0; i < GUARD_TRIES; i++) {
        s->guard = slowest(ch, tail, &head);
        if (s->guard == XI_NO_GROUP || is_retaining(ch, s->guard) || head == tail) break;
        struct xi_group *g = &ch->chan->groups[s->guard];
        int rc = xi_lock(ch, g, XI_LOCK_ABANDON_NS);
        if (rc) return rc;
        s->held = g;
        if (xi_load_relaxed(&g->head) == head) break;
        xi_unlock(g);
        s->held = NULL;
        if (i == GUARD_TRIES - 1)
            return xi_fail(XI_E_AGAIN, "the groups of channel \"%s\" go on all the time; try again", ch->name);
    }
    s->head = head;
    s->seq = xi_load_relaxed(s->guard == XI_NO_GROUP || head == tail ? &ch->chan->tail_seq
                                                                     : &ch->chan->groups[s->guard].head_seq);
    return 0;
}

/* The record at `at`; false at one that cannot be. */
static bool next_record(const struct xi_channel *ch, uint64_t at, uint64_t tail, uint64_t *header, uint64_t *next) {
    *header = xi_load_acquire(xi_header_at(&ch->send_view, at));
    *next = xi_ring_next(at, XI_REC_LENGTH(*header));
    return xi_is_aligned(at, 8) && xi_header_valid(ch, *header) && xi_ring_behind(*next, tail, ch->send_view.capacity);
}

/* Moves the start so that no more than `last` values lie behind it. */
static int leave_last(struct xi_channel *ch, uint64_t last, struct xi_start *s) {
    uint64_t tail = xi_load_relaxed(&ch->chan->tail), sent = xi_load_relaxed(&ch->chan->tail_seq), h, next;
    for (; s->head != tail && sent - s->seq > last; s->head = next, s->seq++)
        if (!next_record(ch, s->head, tail, &h, &next))
            return xi_fail(XI_E_CORRUPT, "channel \"%s\" holds a record at %llu that cannot be: begin at the tail", ch->name,
                           (unsigned long long)s->head);
    return 0;
}

int xi_start_find(struct xi_channel *ch, uint32_t from, uint32_t last, struct xi_start *s) {
    uint64_t tail = xi_load_relaxed(&ch->chan->tail);
    *s = (struct xi_start){.head = tail, .seq = xi_load_relaxed(&ch->chan->tail_seq), .guard = XI_NO_GROUP};
    if (from == XI_FROM_TAIL || (from == XI_FROM_LAST && last == 0)) return 0;
    int rc = hold_guard(ch, tail, s);
    if (rc == 0 && from == XI_FROM_LAST) rc = leave_last(ch, last, s);
    if (rc) xi_start_done(s);
    return rc;
}

void xi_start_done(struct xi_start *s) {
    if (s->held) xi_unlock(s->held);
    s->held = NULL;
}

/*
 * Clears the group's bit; false, and it is set, if the block is not to be had any more. The bit first, then the look at the
 * first word: the owner closes that and then looks at the bits (released_by_all() in arena.c), so one sees the other.
 */
static bool clear_bit(struct xi_release *r, uint32_t group, uint64_t generation) {
    _Atomic uint64_t *word = &r->word[XI_RELEASE_WORD(group)];
    uint64_t bit = XI_RELEASE_BIT(group), seen = xi_load_full(word);
    int tries = XI_RELEASE_TRIES;
    do {
        if (seen >> 16 != generation || tries-- == 0) return false;
    } while (seen & bit && !xi_cas64_full(word, &seen, seen & ~bit));
    if (xi_load_full(&r->word[0]) >> 16 == generation) return true;
    for (seen = xi_load_full(word); tries-- > 0 && seen >> 16 == generation && !xi_cas64_full(word, &seen, seen | bit);) continue;
    return false;
}

/* 1; 0: the block is not to be had any more; or an error of this process. */
static int claim(struct xi_channel *ch, uint32_t group, uint64_t at) {
    struct xi_descriptor d;
    struct xi_map_entry *e;
    int rc = xi_record_words(ch, at, &d, &e);
    if (rc || !e) return rc;
    bool claimed = xi_descriptor_valid(&d, &e->map) &&
                   clear_bit(&((struct xi_release_table *)e->release.base)->release[d.granule], group, d.generation);
    xi_maps_put(e);
    return claimed;
}

static void give_back(struct xi_channel *ch, uint32_t group, uint64_t at, uint64_t end) {
    uint64_t h, next;
    for (; at != end && next_record(ch, at, end, &h, &next); at = next)
        if (XI_REC_IS_BLOCK(h)) (void)xi_release_record(ch, group, at, h); /* claimed a moment ago: it is mapped */
}

int xi_start_claim(struct xi_channel *ch, uint32_t group, struct xi_start *s) {
    uint64_t tail = xi_load_relaxed(&ch->chan->tail), at = s->head, seq = s->seq, h, next;
    for (; at != tail; at = next, seq++) {
        if (!next_record(ch, at, tail, &h, &next)) break; /* who receives there skips it, and says so */
        int rc = XI_REC_IS_BLOCK(h) ? claim(ch, group, at) : 1;
        if (rc == 1) continue;
        give_back(ch, group, s->head, at);
        if (rc < 0) return rc;
        s->head = next;
        s->seq = seq + 1;
    }
    return 0;
}
