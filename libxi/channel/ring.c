/* SPDX-License-Identifier: MIT */
/*
 * Where a channel's ring is. A channel begins with the ring in its own segment;
 * one that may grow moves into larger ones and back, see wire/layout.h,
 * "Growing". The word `ring` names the one in use. It changes only while the
 * producers' lock and every active group's are held by who changes it, so each
 * of them keeps the ring where it is for its holder.
 *
 * A handle has a view of the ring for each side. Whoever takes a side's lock and
 * finds the view behind lets go of the lock, maps the new ring, takes the lock
 * again and swaps: mapping is system calls, and nobody waits for those. The ring
 * may move on meanwhile; then it is done again.
 */
#include "channel.h"

#define FOLLOW_TRIES 100 /* moves of the ring while it is being followed: more cannot be, each copies what is in it */

static int no_such_ring(const struct xi_channel *ch, uint64_t word) {
    return xi_fail(XI_E_CORRUPT, "channel \"%s\" says that its ring is segment %08x of 2^%u bytes, which is none of its "
                   "rings: some member overwrote it; close it and use another", ch->name, XI_RING_SEGMENT(word),
                   XI_RING_LOG2(word));
}

static void view_drop(struct xi_view *v) {
    if (v->entry) xi_maps_put(v->entry);
    *v = (struct xi_view){0};
}

void xi_views_drop(struct xi_channel *ch) {
    view_drop(&ch->send_view);
    view_drop(&ch->receive_view);
}

/* Maps the ring that `word` names; `fd` -1: opens it by its number. Errors: NOENT, CORRUPT, NOMEM, BROKER. */
static int view_map(struct xi_channel *ch, uint64_t word, int fd, struct xi_view *out) {
    struct xi_map_entry *e;
    uint64_t capacity = xi_ring_capacity(ch, word);
    if (word != XI_RING(XI_RING_SEGMENT(word), XI_RING_LOG2(word)) || capacity > XI_GROW_MAX) return no_such_ring(ch, word);
    int rc = xi_maps_ring(ch->interp, XI_RING_SEGMENT(word), ch->id, fd, &e);
    if (rc) return rc;
    if (e->map.size != XI_PAGE + capacity) {
        xi_maps_put(e);
        return no_such_ring(ch, word);
    }
    *out = (struct xi_view){.ring = (uint8_t *)e->map.base + XI_PAGE,
                            .mask = capacity - 1,
                            .capacity = capacity,
                            .word = word,
                            .entry = e};
    return 0;
}

struct side {
    xi_a32 *lock, *lock_sleep;
    struct xi_view *view;
    bool receiving;
};

/* A group that has ended keeps no ring in its place by its lock. */
static bool keeps_ring(const struct xi_channel *ch, const struct side *s) {
    return !s->receiving || (xi_group_lives(ch) && xi_load_relaxed(&ch->chan->active) >> ch->group_index & 1);
}

/* Without the lock. The ring that the channel has now, mapped, or nothing where that is home; 0 also when it moved on. */
static int map_present(struct xi_channel *ch, struct xi_view *out) {
    uint64_t word = xi_load_acquire(&ch->chan->ring);
    if (word == 0) return 0;
    int rc = view_map(ch, word, -1, out);
    if (rc != XI_E_NOENT && rc != XI_E_CORRUPT) return rc;
    return xi_load_acquire(&ch->chan->ring) != word ? 0 : no_such_ring(ch, word);
}

/* Under the lock: 1 the view is at the ring, 0 not, and *spare has become what it was at if it could be swapped. */
static int view_swap(struct xi_channel *ch, struct side *s, struct xi_view *spare) {
    uint64_t word = xi_load_relaxed(&ch->chan->ring);
    if (word == s->view->word) return spare->entry ? 0 : 1;
    if (word == 0 ? !spare->entry : word == spare->word) {
        struct xi_view old = *s->view;
        *s->view = word ? *spare : ch->home;
        *spare = old;
        return old.entry ? 0 : 1;
    }
    return 0;
}

int xi_follow_ring(struct xi_channel *ch, bool receiving, int64_t timeout) {
    struct xi_chan *c = ch->chan;
    struct side s = receiving ? (struct side){&ch->group->lock, &ch->group->lock_sleep, &ch->receive_view, true}
                              : (struct side){&c->lock, &c->lock_sleep, &ch->send_view, false};
    struct xi_view spare = {0};
    int64_t deadline = timeout == XI_TRY ? XI_TRY : xi_deadline(timeout);
    for (int i = 0; i < FOLLOW_TRIES; i++) {
        bool kept = keeps_ring(ch, &s);
        if (kept && view_swap(ch, &s, &spare)) return 0;
        uint64_t at = s.view->word;
        xi_unlock_words(s.lock, s.lock_sleep);
        view_drop(&spare);
        if (!kept) return xi_fail_ended(ch);
        int rc = xi_load_relaxed(&c->ring) == at ? 0 : map_present(ch, &spare);
        if (rc == 0) rc = xi_lock_words(ch, s.lock, s.lock_sleep, timeout == XI_TRY ? XI_TRY : xi_left(deadline));
        if (rc) {
            view_drop(&spare);
            return rc;
        }
    }
    xi_unlock_words(s.lock, s.lock_sleep);
    view_drop(&spare);
    return xi_fail(XI_E_CORRUPT, "the ring of channel \"%s\" moves all the time: some member overwrites it", ch->name);
}
