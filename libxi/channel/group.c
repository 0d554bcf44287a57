/* SPDX-License-Identifier: MIT */
/*
 * Groups: read positions. Joined and ended under the producers' lock, in the
 * order of stores that wire/layout.h gives ("Group join", "Group end"), so that
 * every send either counts a group or does not know it.
 */
#include <string.h>

#include "../wire/names.h"
#include "call.h"
#include "record.h"

static struct xi_group *find(const struct xi_channel *ch, const char name[32], uint32_t *index) {
    for (uint64_t active = xi_real_groups(ch, xi_load_relaxed(&ch->chan->active)); active; active &= active - 1) {
        *index = (uint32_t)__builtin_ctzll(active);
        struct xi_group *g = &ch->chan->groups[*index];
        if (xi_load_relaxed(&g->owner) == 0 && memcmp(g->name, name, 32) == 0) return g;
    }
    return NULL;
}

/* What the slot's earlier groups counted is not this one's. */
static void forget_counts(struct xi_group *g) {
    xi_a64 *const counts[] = {&g->corrupt, &g->redelivered, &g->dropped, &g->expired, &g->dead, &g->acked, &g->counting};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) xi_store_relaxed(counts[i], 0);
}

/* A slot that no group has, or XI_NO_GROUP. */
static uint32_t free_slot(const struct xi_channel *ch) {
    struct xi_chan *c = ch->chan;
    uint64_t active = xi_load_relaxed(&c->active) | (ch->retain ? XI_RETAIN_BIT : 0);
    for (uint32_t i = 0; i < XI_MAX_GROUPS; i++)
        if (!(active >> i & 1) && xi_load_relaxed(&c->groups[i].state) != XI_GROUP_ENDING) return i;
    return XI_NO_GROUP;
}

/* What a group that acknowledges begins with, beside its head: nothing in flight. */
static void begin_acks(struct xi_group *g, uint32_t segment) {
    xi_store_relaxed(&g->next, xi_load_relaxed(&g->head));
    xi_store_relaxed(&g->next_seq, xi_load_relaxed(&g->head_seq));
    xi_store_relaxed(&g->next_due, UINT64_MAX);
    xi_store_relaxed(&g->acks_seg, segment);
}

/* Where it begins; JOINING while blocks that are there already become this group's too. */
static int begin(struct xi_channel *ch, uint32_t index, struct xi_start *start, uint32_t acks) {
    struct xi_group *g = &ch->chan->groups[index];
    xi_store_relaxed(&g->head_seq, start->seq);
    xi_store_relaxed(&g->head, start->head);
    begin_acks(g, acks);
    if (start->guard != XI_NO_GROUP) {
        xi_store_full(&g->state, XI_GROUP_JOINING);
        int rc = xi_start_claim(ch, index, start);
        if (rc) return rc;
        xi_store_relaxed(&g->head_seq, start->seq);
        xi_store_release(&g->head, start->head);
        begin_acks(g, acks);
    }
    xi_store_relaxed(&g->start_seq, start->seq);
    return 0;
}

/* `acks`: the segment of its table, 0 for a group that does not acknowledge. `flags`: more of them. An error: there is none. */
static int make(struct xi_channel *ch, const char name[32], bool own, uint32_t i, uint32_t acks, uint32_t flags,
                struct xi_start *start) {
    struct xi_chan *c = ch->chan;
    struct xi_group *g = &c->groups[i];
    memcpy(g->name, name, 32);
    forget_counts(g);
    xi_store_relaxed(&g->owner, own ? ch->interp->slot : 0);
    xi_store_relaxed(&g->owner_id, own ? (uint64_t)ch->interp->id : 0);
    xi_store_relaxed(&g->flags, flags | XI_GROUP_F_TAKEN | (acks ? XI_GROUP_F_ACK : 0));
    int rc = begin(ch, i, start, acks);
    if (rc) {
        xi_store_relaxed(&g->owner, 0);
        xi_store_release(&g->state, XI_GROUP_FREE);
        return rc;
    }
    xi_store_release(&g->state, XI_GROUP_ACTIVE);
    (void)xi_or_full(&c->active, (uint64_t)1 << i); /* THE JOIN: what is sent from now on, or was since then, is its too */
    return 0;
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

static int check_options(const struct xi_channel *ch, const xi_group_opts *o) {
    if (o->flags & ~(XI_GROUP_ACK | XI_GROUP_TEMPORARY))
        return xi_fail(XI_E_INVAL, "flags 0x%x of a group: XI_GROUP_ACK and XI_GROUP_TEMPORARY", o->flags);
    if (o->from > XI_FROM_LAST)
        return xi_fail(XI_E_INVAL, "a group begins at XI_FROM_TAIL, XI_FROM_OLDEST or XI_FROM_LAST, not at %u", o->from);
    if (o->last && o->from != XI_FROM_LAST) return xi_fail(XI_E_INVAL, "`last` is for groups that begin at XI_FROM_LAST");
    if (!(o->flags & XI_GROUP_ACK) && (o->max_deliveries || o->window || o->timeout_ns || o->dead))
        return xi_fail(XI_E_INVAL, "max_deliveries, window, timeout_ns and dead are for groups with XI_GROUP_ACK");
    if (o->window > XI_WINDOW_MAX)
        return xi_fail(XI_E_TOOBIG, "a window of %u values is more than %u", o->window, XI_WINDOW_MAX);
    if (o->timeout_ns < 0) return xi_fail(XI_E_INVAL, "a timeout of %lld ns is none: 0 is for ever", (long long)o->timeout_ns);
    if (o->dead && !xi_channel_name_valid(o->dead, XI_NAME_MAX))
        return xi_fail(XI_E_INVAL, "`dead` names a channel: 1 to %d bytes of UTF-8 without control characters", XI_NAME_MAX);
    if (o->dead && strcmp(o->dead, ch->name) == 0)
        return xi_fail(XI_E_INVAL, "channel \"%s\" cannot be its own channel for dead letters", ch->name);
    return 0;
}

/* A join under way. A table of deliveries is mapped or made without the lock, so it is there before it is known to be right. */
struct joining {
    char name[32];
    bool own, acks;
    const xi_group_opts *opts;
    struct xi_ack *ack;     /* the table at hand, */
    uint32_t slot, segment; /* of this group, in this segment; */
    bool made;              /* asked for by us */
};

static void put_table(struct joining *j) {
    if (j->ack) xi_ack_discard(j->ack, j->made);
    j->ack = NULL;
    j->made = false;
}

/* Under the lock. 1: joined as it is; 0: its table must be mapped first; or MISMATCH. */
static int join_old(struct xi_channel *ch, struct joining *j, struct xi_group *g, uint32_t index) {
    uint32_t flags = xi_load_relaxed(&g->flags), segment = xi_load_relaxed(&g->acks_seg);
    if (!(flags & XI_GROUP_F_TAKEN)) { /* a queue's own, which nobody has received in: its first consumer says what it is */
        if (j->acks && !(j->ack && j->made && j->slot == index)) return 0;
        if (j->acks) begin_acks(g, j->segment);
        xi_store_release(&g->flags, XI_GROUP_F_TAKEN | (j->acks ? XI_GROUP_F_ACK : 0));
        return 1;
    }
    if (!!(flags & XI_GROUP_F_ACK) != j->acks)
        return xi_fail(XI_E_MISMATCH, "group \"%.31s\" of channel \"%s\" %s: open it as one that does", j->name, ch->name,
                       j->acks ? "does not acknowledge" : "acknowledges (XI_GROUP_ACK)");
    return !j->acks || (j->ack && j->slot == index && j->segment == segment);
}

/* Under the lock. 1: joined; 0: a table for `*index` must be at hand first (made, if *segment is 0); or an error. */
static int try_join(struct xi_channel *ch, struct joining *j, uint32_t *index, uint32_t *segment) {
    *segment = 0;
    if (xi_load_acquire(&ch->chan->closed) == XI_CHAN_REMOVED) return xi_fail_closed(ch); /* between opening and joining it */
    struct xi_group *g = j->own ? NULL : find(ch, j->name, index);
    if (g) {
        if (xi_load_relaxed(&g->flags) & XI_GROUP_F_ACK) *segment = xi_load_relaxed(&g->acks_seg);
        int rc = join_old(ch, j, g, *index);
        if (rc <= 0) return rc;
    } else {
        *index = free_slot(ch);
        if (*index == XI_NO_GROUP)
            return xi_fail(XI_E_LIMIT, "channel \"%s\" has %u groups already", ch->name, XI_MAX_GROUPS);
        if (j->acks && !(j->ack && j->made && j->slot == *index)) return 0;
        struct xi_start start;
        int rc = xi_start_find(ch, j->opts->from, j->opts->last, &start);
        if (rc) return rc;
        uint32_t listens = j->own && j->opts->flags & XI_GROUP_TEMPORARY ? XI_GROUP_F_LISTENS : 0;
        rc = make(ch, j->name, j->own, *index, j->acks ? j->segment : 0, listens, &start);
        xi_start_done(&start);
        if (rc) return rc;
        g = &ch->chan->groups[*index];
    }
    ch->group = g;
    ch->group_index = *index;
    ch->group_life = xi_load_relaxed(&g->life);
    ch->group_is_own = j->own;
    ch->serves = !(j->opts->flags & XI_GROUP_TEMPORARY); /* who listens for itself is nobody's server */
    return 1;
}

#define JOIN_TRIES 1000 /* each lost to another who joined or left in between */

static int join(struct xi_channel *ch, struct joining *j) {
    uint32_t index, segment;
    for (int i = 0; i < JOIN_TRIES; i++) {
        int rc = xi_lock_producers(ch, XI_LOCK_ABANDON_NS);
        if (rc) return rc;
        rc = try_join(ch, j, &index, &segment);
        xi_unlock_send(ch);
        if (rc) return rc;
        put_table(j);
        j->slot = index;
        j->segment = segment;
        rc = segment ? xi_ack_open(ch, index, segment, -1, &j->ack) : xi_ack_make(ch, index, j->opts, &j->ack, &j->segment);
        j->made = !segment && rc == 0;
        if (rc && !(segment && rc == XI_E_NOENT)) return rc; /* the group whose table is gone has ended meanwhile */
    }
    return xi_fail(XI_E_AGAIN, "the groups of channel \"%s\" change all the time; try again", ch->name);
}

int xi_group_join(struct xi_channel *ch, const char *text, const xi_group_opts *opts) {
    static const xi_group_opts none;
    struct joining j = {.opts = opts ? opts : &none};
    j.own = (!text && ch->mode == XI_BROADCAST) || j.opts->flags & XI_GROUP_TEMPORARY;
    j.acks = j.opts->flags & XI_GROUP_ACK;
    int rc = group_name(text, j.name);
    if (rc == 0 && text && j.opts->flags & XI_GROUP_TEMPORARY)
        rc = xi_fail(XI_E_INVAL, "a temporary group has no name: it is this handle's own");
    if (rc == 0) rc = check_options(ch, j.opts);
    if (rc == 0) rc = join(ch, &j);
    if (rc == XI_E_LIMIT && xi_group_end_orphan(ch)) rc = join(ch, &j);
    if (rc < 0) {
        put_table(&j);
        return rc;
    }
    if (j.acks) xi_ack_joined(j.ack);
    else put_table(&j);
    ch->ack = j.acks ? j.ack : NULL;
    return 0;
}

/* A group at its end. */
struct ending {
    uint32_t index;
    const struct xi_ack *ack; /* its table where it acknowledges; NULL if that could not be had */
    bool acks;
    uint64_t number, next;    /* of the record looked at; and where those in flight end */
};

/* True if the group is done with this block. */
static bool lets_go(const struct ending *e, uint64_t position, const struct xi_descriptor *d) {
    if (!e->acks || position >= e->next) return true;
    /* In flight: somebody may be reading it. Without the table nobody knows, so it stays with its owner until that ends. */
    return e->ack && xi_ack_end_one(e->ack, e->number, (uint64_t)d->segment << 32 | d->granule, d->generation);
}

int xi_record_words(struct xi_channel *ch, uint64_t position, struct xi_descriptor *d, struct xi_map_entry **e) {
    xi_descriptor_read(&ch->send_view, position, d);
    *e = NULL;
    if (d->segment == 0 || d->segment & 1) return 0;
    int rc = xi_maps_release(ch->interp, d->segment, e);
    if (rc) *e = NULL;
    return rc == XI_E_NOENT || rc == XI_E_CORRUPT || rc == XI_E_ACCESS ? 0 : rc;
}

int xi_release_record(struct xi_channel *ch, uint32_t group, uint64_t position, uint64_t header) {
    struct xi_descriptor d;
    struct xi_map_entry *e;
    int rc = xi_record_words(ch, position, &d, &e);
    if (rc || !e) return rc;
    if (xi_block_inside(d.granule, XI_GRANULE, XI_PAGE, XI_GRANULE, e->map.size)) {
        bool set = xi_release_bit(e, d.granule, d.generation, group);
        if (set && XI_REC_FLAGS(header) & XI_REC_F_FREE) xi_tell_owner(ch->interp, e->map.head.owner);
    }
    xi_maps_put(e);
    return 0;
}

static void release_record(struct xi_channel *ch, const struct ending *e, uint64_t position, uint64_t header) {
    struct xi_descriptor d;
    xi_descriptor_read(&ch->send_view, position, &d);
    if (lets_go(e, position, &d)) (void)xi_release_record(ch, e->index, position, header); /* ready() had it at hand */
}

/* Under both locks. Whether what is yet to be received can be given back: the arenas that it lies in are mapped then. */
static int ready(struct xi_channel *ch, uint32_t index) {
    const struct xi_view *v = &ch->send_view;
    uint64_t at = xi_load_relaxed(&ch->chan->groups[index].head), tail = xi_load_relaxed(&ch->chan->tail);
    int rc = 0;
    while (rc == 0 && at != tail && xi_is_aligned(at, 8) && xi_ring_behind(at, tail, v->capacity)) {
        struct xi_descriptor d;
        struct xi_map_entry *e = NULL;
        uint64_t h = xi_load_acquire(xi_header_at(v, at));
        if (!xi_ring_length_whole(XI_REC_LENGTH(h), v->capacity)) break;
        if (XI_REC_IS_BLOCK(h)) rc = xi_record_words(ch, at, &d, &e);
        if (e) xi_maps_put(e); /* others' arenas stay mapped without users */
        at = xi_ring_next(at, XI_REC_LENGTH(h));
    }
    return rc;
}

/* Under the producers' lock as well as the group's. */
static void drain(struct xi_channel *ch, struct ending *e) {
    const struct xi_view *v = &ch->send_view;
    struct xi_call_ref ref;
    bool named = xi_load_relaxed(&ch->chan->groups[e->index].owner) == 0; /* it was to serve; others may listen only */
    uint64_t at = xi_load_relaxed(&ch->chan->groups[e->index].head), tail = xi_load_relaxed(&ch->chan->tail);
    if (!xi_is_aligned(at, 8) || !xi_is_aligned(tail, 8)) return;
    while (at != tail && xi_ring_behind(at, tail, v->capacity)) {
        uint64_t h = xi_load_acquire(xi_header_at(v, at));
        uint32_t length = XI_REC_LENGTH(h);
        if (!xi_ring_length_whole(length, v->capacity)) return; /* overwritten: nothing more can be known */
        if (XI_REC_IS_BLOCK(h)) release_record(ch, e, at, h);
        if (XI_REC_FLAGS(h) & XI_REC_F_CALL && named && xi_call_ref_read(v, at, h, &ref)) xi_call_refuse(ch->interp, &ref);
        at = xi_ring_next(at, length);
        e->number++;
    }
}

/* Under both locks. An error: nothing was done. */
static int end(struct xi_channel *ch, uint32_t index, const struct xi_ack *ack) {
    struct xi_group *g = &ch->chan->groups[index];
    int rc = ready(ch, index);
    if (rc) return rc;
    struct ending e = {index, ack, xi_load_relaxed(&g->flags) & XI_GROUP_F_ACK, xi_load_relaxed(&g->head_seq) + 1,
                       xi_load_relaxed(&g->next)};
    (void)xi_and_full(&ch->chan->active, ~((uint64_t)1 << index)); /* THE END */
    xi_store_full(&g->life, xi_load_relaxed(&g->life) + 1);
    xi_store_full(&g->state, XI_GROUP_ENDING);
    drain(ch, &e);
    xi_store_relaxed(&g->owner, 0);
    xi_store_release(&g->state, XI_GROUP_FREE);
    return 0;
}

/* Lock whatever signals come: this is not to be left half done. */
static int lock_producers(struct xi_channel *ch, int64_t patience) {
    int rc;
    do rc = xi_lock_producers(ch, patience);
    while (rc == XI_E_INTR);
    return rc;
}

static int lock_group(struct xi_channel *ch, struct xi_group *g, int64_t patience) {
    int rc;
    do rc = xi_lock(ch, g, patience);
    while (rc == XI_E_INTR);
    return rc;
}

void xi_group_end(struct xi_channel *ch) {
    struct xi_group *g = ch->group;
    bool over = false;
    if (lock_producers(ch, XI_LOCK_ABANDON_NS) == 0) {
        if (lock_group(ch, g, XI_LOCK_ABANDON_NS) == 0) {
            /* Else the channel was removed, and it with it. */
            over = !xi_group_lives(ch) || end(ch, ch->group_index, ch->ack) == 0;
            xi_unlock(g);
        }
        xi_unlock_send(ch);
    }
    if (!over) (void)xi_or_full(&g->flags, XI_GROUP_F_ORPHAN); /* before producers are told to look */
    xi_wake_producers(ch);
}

static struct xi_group *find_orphan(const struct xi_channel *ch, uint32_t *index) {
    for (uint64_t active = xi_real_groups(ch, xi_load_full(&ch->chan->active)); active; active &= active - 1) {
        *index = (uint32_t)__builtin_ctzll(active);
        struct xi_group *g = &ch->chan->groups[*index];
        if (xi_load_full(&g->flags) & XI_GROUP_F_ORPHAN && xi_load_relaxed(&g->owner) != 0) return g;
    }
    return NULL;
}

/* Under the producers' lock: the group of this name, or (NULL) an orphan, is ended. 0; 1: its table must be mapped first; or an
 * error: NOENT, that there is none. */
static int end_one(struct xi_channel *ch, const char *name, int64_t patience, struct joining *j) {
    struct xi_group *g = name ? find(ch, name, &j->slot) : find_orphan(ch, &j->slot);
    if (xi_load_acquire(&ch->chan->closed) == XI_CHAN_REMOVED) return xi_fail_closed(ch);
    if (!g) return xi_fail(XI_E_NOENT, "channel \"%s\" has no group \"%s\"", ch->name, name ? name : "");
    uint32_t segment = xi_load_relaxed(&g->flags) & XI_GROUP_F_ACK ? xi_load_relaxed(&g->acks_seg) : 0;
    if (segment != j->segment) {
        j->segment = segment;
        return 1;
    }
    int rc = lock_group(ch, g, patience);
    if (rc) return rc;
    rc = end(ch, j->slot, j->ack);
    xi_unlock(g);
    return rc;
}

/* Takes the locks for it. `patience`: for each of them. */
static int end_found(struct xi_channel *ch, const char *name, int64_t patience) {
    struct joining j = {.own = false};
    int rc = 1;
    for (int i = 0; rc == 1 && i < JOIN_TRIES; i++) {
        put_table(&j);
        if (j.segment) (void)xi_ack_open(ch, j.slot, j.segment, -1, &j.ack); /* it can be done without: see lets_go() */
        rc = lock_producers(ch, patience);
        if (rc) break;
        rc = end_one(ch, name, patience, &j);
        xi_unlock_send(ch);
    }
    put_table(&j);
    if (rc) return rc < 0 ? rc : xi_fail(XI_E_AGAIN, "the groups of channel \"%s\" change all the time; try again", ch->name);
    xi_wake_group(ch, j.slot);
    xi_wake_producers(ch);
    return 0;
}

bool xi_group_orphaned(const struct xi_channel *ch) {
    uint32_t index;
    return __builtin_expect(find_orphan(ch, &index) != NULL, 0);
}

bool xi_group_end_orphan(struct xi_channel *ch) {
    struct xi_said said;
    if (!xi_group_orphaned(ch)) return false;
    xi_error_keep(&said);
    bool ended = end_found(ch, NULL, XI_TRY) == 0; /* else another did, or the lock is not to be had now either */
    if (!ended) xi_error_restore(&said);
    return ended;
}

int xi_group_remove(xi_channel *ch, const char *text) {
    char name[32];
    int rc = xi_channel_check(ch);
    if (rc == 0 && !(ch->rights & XI_ACCESS_WRITE))
        return xi_fail(XI_E_ACCESS, "channel \"%s\" is another user's: who may only receive from it cannot remove a group", ch->name);
    if (rc == 0 && !text) rc = xi_fail(XI_E_INVAL, "only a named group can be removed; the default one is the channel's own");
    if (rc == 0) rc = group_name(text, name);
    return rc ? rc : end_found(ch, name, XI_LOCK_ABANDON_NS);
}
