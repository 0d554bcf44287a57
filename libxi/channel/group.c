/* SPDX-License-Identifier: MIT */
/*
 * Groups: read positions. Joined and ended under the producers' lock, in the
 * order of stores that wire/layout.h gives ("Group join", "Group end"), so that
 * every send either counts a group or does not know it.
 */
#include <string.h>

#include "../wire/bounds.h"
#include "call.h"

/* Groups that anybody can be in: all that are there but the one that keeps values for those that join. */
static uint64_t real_groups(const struct xi_channel *ch) {
    return xi_load_relaxed(&ch->chan->active) & ~(ch->retain ? XI_RETAIN_BIT : 0);
}

static struct xi_group *find(const struct xi_channel *ch, const char name[32], uint32_t *index) {
    for (uint64_t active = real_groups(ch); active; active &= active - 1) {
        *index = (uint32_t)__builtin_ctzll(active);
        struct xi_group *g = &ch->chan->groups[*index];
        if (xi_load_relaxed(&g->owner) == 0 && memcmp(g->name, name, 32) == 0) return g;
    }
    return NULL;
}

/* What the slot's earlier groups counted is not this one's. */
static void forget_counts(struct xi_group *g) {
    xi_a64 *const counts[] = {&g->corrupt, &g->redelivered, &g->dropped, &g->expired, &g->dead, &g->acked};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) xi_store_relaxed(counts[i], 0);
}

static struct xi_group *make(struct xi_channel *ch, const char name[32], bool own, uint32_t *index) {
    struct xi_chan *c = ch->chan;
    uint64_t active = xi_load_relaxed(&c->active);
    for (uint32_t i = 0; i < XI_MAX_GROUPS; i++) {
        struct xi_group *g = &c->groups[i];
        if (active >> i & 1 || xi_load_relaxed(&g->state) == XI_GROUP_ENDING) continue;
        memcpy(g->name, name, 32);
        forget_counts(g);
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

/* The name in full, padded with zeros; NULL is the default group's. */
static int group_name(const char *text, char name[32]) {
    memset(name, 0, 32);
    if (!text) return 0;
    size_t n = strlen(text);
    if (n == 0) return xi_fail(XI_E_INVAL, "a group's name is empty; leave it out for the default group");
    if (n > 31) return xi_fail(XI_E_INVAL, "group name \"%.40s\" is longer than 31 bytes", text);
    memcpy(name, text, n);
    return 0;
}

int xi_group_join(struct xi_channel *ch, const char *text) {
    char name[32];
    bool own = !text && ch->mode == XI_BROADCAST;
    uint32_t index = 0;
    int rc = group_name(text, name);
    if (rc == 0) rc = xi_lock(ch, ch->chan, XI_LOCK_ABANDON_NS);
    if (rc) return rc;
    struct xi_group *g = NULL;
    bool removed = xi_load_acquire(&ch->chan->closed) == XI_CHAN_REMOVED; /* between opening and joining it */
    if (!removed) {
        g = own ? NULL : find(ch, name, &index);
        if (!g) g = make(ch, name, own, &index);
        if (g) ch->group_life = xi_load_relaxed(&g->life);
    }
    xi_unlock(ch->chan);
    if (removed) return xi_fail_closed(ch);
    if (!g) return xi_fail(XI_E_LIMIT, "channel \"%s\" has %u groups already", ch->name, XI_MAX_GROUPS);
    ch->group = g;
    ch->group_index = index;
    ch->group_is_own = own;
    return 0;
}

static void release_record(struct xi_channel *ch, uint32_t group, uint64_t position, uint64_t header) {
    struct xi_descriptor d;
    struct xi_map_entry *e;
    memcpy(&d, xi_payload_at(&ch->send_view, position), sizeof d);
    if (d.segment & 1 || xi_maps_arena(ch->interp, d.segment, &e) != 0) return; /* its owner is gone, and it with it */
    if (xi_range_inside((uint64_t)d.granule * XI_GRANULE, XI_GRANULE, e->map.size)) {
        bool set = xi_release_bit(e, d.granule, d.generation, group);
        if (set && XI_REC_FLAGS(header) & XI_REC_F_FREE) xi_tell_owner(ch->interp, e->map.head.owner);
    }
    xi_maps_put(e);
}

/* Under the producers' lock as well as the group's. */
static void drain(struct xi_channel *ch, uint32_t group) {
    const struct xi_view *v = &ch->send_view;
    struct xi_call_ref ref;
    bool named = xi_load_relaxed(&ch->chan->groups[group].owner) == 0; /* it was to serve; others may listen only */
    uint64_t at = xi_load_relaxed(&ch->chan->groups[group].head), tail = xi_load_relaxed(&ch->chan->tail);
    if (!xi_is_aligned(at, 8) || !xi_is_aligned(tail, 8)) return;
    while (at != tail && tail - at <= v->capacity) {
        uint64_t h = xi_load_acquire(xi_header_at(v, at));
        uint32_t length = XI_REC_LENGTH(h);
        if (length < 8 || length % 8 || length + 16 > v->capacity) return; /* overwritten: nothing more can be known */
        if (XI_REC_IS_BLOCK(h)) release_record(ch, group, at, h);
        if (XI_REC_FLAGS(h) & XI_REC_F_CALL && named && xi_call_ref_read(v, at, h, &ref)) xi_call_refuse(ch->interp, &ref);
        at += 8 + length;
    }
}

/* Under both locks. */
static void end(struct xi_channel *ch, uint32_t index) {
    struct xi_group *g = &ch->chan->groups[index];
    (void)xi_and_full(&ch->chan->active, ~((uint64_t)1 << index)); /* THE END */
    xi_store_full(&g->life, xi_load_relaxed(&g->life) + 1);
    xi_store_full(&g->state, XI_GROUP_ENDING);
    drain(ch, index);
    xi_store_relaxed(&g->owner, 0);
    xi_store_release(&g->state, XI_GROUP_FREE);
}

/* Lock whatever signals come: this is not to be left half done. */
static int lock_producers(struct xi_channel *ch) {
    int rc;
    do rc = xi_lock_send(ch, XI_LOCK_ABANDON_NS);
    while (rc == XI_E_INTR);
    return rc;
}

static int lock_group(struct xi_channel *ch, struct xi_group *g) {
    int rc;
    do rc = xi_lock(ch, g, XI_LOCK_ABANDON_NS);
    while (rc == XI_E_INTR);
    return rc;
}

void xi_group_end(struct xi_channel *ch) {
    struct xi_chan *c = ch->chan;
    struct xi_group *g = ch->group;
    if (lock_producers(ch)) return; /* held by one that is stopped: the broker ends it when this interpreter leaves */
    if (lock_group(ch, g) == 0) {
        if (xi_group_lives(ch)) end(ch, ch->group_index); /* else the channel was removed, and it with it */
        xi_unlock(g);
    }
    xi_unlock(c);
    xi_wake_producers(ch);
}

int xi_group_remove(xi_channel *ch, const char *text) {
    char name[32];
    uint32_t index = 0;
    int rc = xi_channel_check(ch);
    if (rc == 0 && !(ch->rights & XI_ACCESS_WRITE))
        return xi_fail(XI_E_ACCESS, "channel \"%s\" is another user's: who may only receive from it cannot remove a group", ch->name);
    if (rc == 0 && !text) rc = xi_fail(XI_E_INVAL, "only a named group can be removed; the default one is the channel's own");
    if (rc == 0) rc = group_name(text, name);
    if (rc == 0) rc = lock_producers(ch);
    if (rc) return rc;
    struct xi_group *g = find(ch, name, &index);
    if (xi_load_acquire(&ch->chan->closed) == XI_CHAN_REMOVED) rc = xi_fail_closed(ch);
    else if (!g) rc = xi_fail(XI_E_NOENT, "channel \"%s\" has no group \"%s\"", ch->name, text);
    if (rc == 0) rc = lock_group(ch, g);
    if (rc == 0) {
        end(ch, index);
        xi_unlock(g);
    }
    xi_unlock(ch->chan);
    if (rc) return rc;
    xi_wake_group(ch, index);
    xi_wake_producers(ch);
    return 0;
}
