/* SPDX-License-Identifier: MIT */
/*
 * Groups: read positions. Joined and ended under the producers' lock, in the
 * order of stores that wire/layout.h gives ("Group join", "Group end"), so that
 * every send either counts a group or does not know it.
 */
#include <string.h>

#include "../wire/bounds.h"
#include "channel.h"

static struct xi_group *find(struct xi_chan *c, const char name[32], uint32_t *index) {
    uint64_t active = xi_load_relaxed(&c->active);
    for (; active; active &= active - 1) {
        *index = (uint32_t)__builtin_ctzll(active);
        struct xi_group *g = &c->groups[*index];
        if (xi_load_relaxed(&g->owner) == 0 && memcmp(g->name, name, 32) == 0) return g;
    }
    return NULL;
}

static struct xi_group *make(struct xi_channel *ch, const char name[32], bool own, uint32_t *index) {
    struct xi_chan *c = ch->chan;
    uint64_t active = xi_load_relaxed(&c->active);
    for (uint32_t i = 0; i < XI_MAX_GROUPS; i++) {
        struct xi_group *g = &c->groups[i];
        if (active >> i & 1 || xi_load_relaxed(&g->state) == XI_GROUP_ENDING) continue;
        memcpy(g->name, name, 32);
        xi_store_relaxed(&g->owner, own ? ch->interp->slot : 0);
        xi_store_relaxed(&g->owner_id, own ? (uint64_t)ch->interp->id : 0);
        uint64_t seq = xi_load_relaxed(&c->tail_seq);
        xi_store_relaxed(&g->head_seq, seq);
        xi_store_relaxed(&g->start_seq, seq);
        xi_store_relaxed(&g->head, xi_load_relaxed(&c->tail));
        xi_store_release(&g->state, XI_GROUP_ACTIVE);
        (void)xi_or_full(&c->active, (uint64_t)1 << i); /* THE JOIN: what is sent from now on is for this group too */
        *index = i;
        return g;
    }
    return NULL;
}

int xi_group_join(struct xi_channel *ch, const char *text) {
    char name[32] = {0};
    bool own = !text && ch->mode == XI_BROADCAST;
    uint32_t index = 0;
    if (text && !text[0]) return xi_fail(XI_E_INVAL, "a group's name is empty; leave it out for the default group");
    if (text && strlen(text) > sizeof name - 1)
        return xi_fail(XI_E_INVAL, "group name \"%.40s\" is longer than %zu bytes", text, sizeof name - 1);
    if (text) memcpy(name, text, strlen(text));
    int rc = xi_lock(ch, ch->chan, XI_LOCK_ABANDON_NS);
    if (rc) return rc;
    struct xi_group *g = own ? NULL : find(ch->chan, name, &index);
    if (!g) g = make(ch, name, own, &index);
    xi_unlock(ch->chan);
    if (!g) return xi_fail(XI_E_LIMIT, "channel \"%s\" has %u groups already", ch->name, XI_MAX_GROUPS);
    ch->group = g;
    ch->group_index = index;
    ch->group_is_own = own;
    return 0;
}

static void release_record(struct xi_channel *ch, uint64_t position, uint64_t header) {
    struct xi_descriptor d;
    struct xi_map_entry *e;
    memcpy(&d, xi_payload_at(&ch->send_view, position), sizeof d);
    if (d.segment & 1 || xi_maps_arena(ch->interp, d.segment, &e) != 0) return; /* its owner is gone, and it with it */
    if (xi_range_inside((uint64_t)d.granule * XI_GRANULE, XI_GRANULE, e->map.size)) {
        bool set = xi_release_bit(e, d.granule, d.generation, ch->group_index);
        if (set && XI_REC_FLAGS(header) & XI_REC_F_FREE) xi_tell_owner(ch->interp, e->map.head.owner);
    }
    xi_maps_put(e);
}

/* Under the producers' lock as well as the group's. */
static void drain(struct xi_channel *ch) {
    const struct xi_view *v = &ch->send_view;
    uint64_t at = xi_load_relaxed(&ch->group->head), tail = xi_load_relaxed(&ch->chan->tail);
    if (!xi_is_aligned(at, 8) || !xi_is_aligned(tail, 8)) return;
    while (at != tail && tail - at <= v->capacity) {
        uint64_t h = xi_load_acquire(xi_header_at(v, at));
        uint32_t length = XI_REC_LENGTH(h);
        if (length < 8 || length % 8 || length + 16 > v->capacity) return; /* overwritten: nothing more can be known */
        if (XI_REC_IS_BLOCK(h)) release_record(ch, at, h);
        at += 8 + length;
    }
}

/* Lock whatever signals come: this is not to be left half done. */
static bool lock_producers(struct xi_channel *ch) {
    int rc;
    do rc = xi_lock_send(ch, XI_LOCK_ABANDON_NS);
    while (rc == XI_E_INTR);
    return rc == 0;
}

static bool lock_group(struct xi_channel *ch) {
    int rc;
    do rc = xi_lock(ch, ch->group, XI_LOCK_ABANDON_NS);
    while (rc == XI_E_INTR);
    return rc == 0;
}

void xi_group_end(struct xi_channel *ch) {
    struct xi_chan *c = ch->chan;
    struct xi_group *g = ch->group;
    if (!lock_producers(ch)) return; /* held by one that is stopped: the broker ends it when this interpreter leaves */
    if (lock_group(ch)) {
        (void)xi_and_full(&c->active, ~((uint64_t)1 << ch->group_index)); /* THE END */
        xi_store_full(&g->state, XI_GROUP_ENDING);
        drain(ch);
        xi_store_relaxed(&g->owner, 0);
        xi_store_release(&g->state, XI_GROUP_FREE);
        xi_unlock(g);
    }
    xi_unlock(c);
    xi_wake_producers(ch);
}
