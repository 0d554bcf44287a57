/* SPDX-License-Identifier: MIT */
/*
 * Channels: names, open handles, who pays. A channel without handles lives on
 * while it holds undelivered values; that is seen in shared memory alone, so
 * the core asks (ACTION_CHECK) and removes on EVENT_EMPTY.
 *
 * One that is removed by name loses the name at once, is ended by repair
 * (ACTION_END_CHANNEL, EVENT_ENDED), and goes when that is done and its last
 * handle is closed.
 *
 * Names are found through a hash table with chains of indexes, grown with the
 * table of channels; free entries are chained too, so that making and finding
 * cost the same at 10,000 channels as at ten.
 */
#include <stdlib.h>
#include <string.h>

#include "state_internal.h"
#include "wire/names.h"

/* FNV-1a from a secret seed, then mixed: names that fall into one bucket cannot be chosen beforehand. */
static uint32_t bucket_of(const struct state *st, const char *name) {
    uint64_t h = 0xcbf29ce484222325ull ^ st->seed;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 0x100000001b3ull;
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 32) & st->bucket_mask;
}

int64_t channel_named(const struct state *st, const char *name) {
    if (!st->buckets) return -1;
    for (uint32_t i = st->buckets[bucket_of(st, name)]; i; i = st->chans[i - 1].next)
        if (strcmp(st->chans[i - 1].name, name) == 0) return i - 1;
    return -1;
}

static void link_name(struct state *st, uint32_t index) {
    uint32_t *bucket = &st->buckets[bucket_of(st, st->chans[index].name)];
    st->chans[index].next = *bucket;
    *bucket = index + 1;
}

static void unlink_name(struct state *st, uint32_t index) {
    uint32_t *at = &st->buckets[bucket_of(st, st->chans[index].name)];
    while (*at != index + 1) at = &st->chans[*at - 1].next;
    *at = st->chans[index].next;
}

/* Sorts every entry anew into the chains of names and of free entries, lowest index first. */
void channels_rebuild(struct state *st) {
    if (!st->buckets) return;
    memset(st->buckets, 0, ((size_t)st->bucket_mask + 1) * sizeof *st->buckets);
    st->chan_free = 0;
    for (uint32_t i = st->chan_capacity; i-- > 0;) {
        if (st->chans[i].id && !st->chans[i].removed) {
            link_name(st, i);
        } else if (!st->chans[i].id) {
            st->chans[i].next = st->chan_free;
            st->chan_free = i + 1;
        }
    }
}

static void grow(struct state *st) {
    uint32_t capacity = st->chan_capacity ? st->chan_capacity * 2 : 64;
    st->chans = memory_or_die(st->chans, capacity, sizeof *st->chans);
    memset(st->chans + st->chan_capacity, 0, (capacity - st->chan_capacity) * sizeof *st->chans);
    st->chan_capacity = capacity;
    st->buckets = memory_or_die(st->buckets, capacity, sizeof *st->buckets);
    st->bucket_mask = capacity - 1;
    channels_rebuild(st);
}

void channels_reserve(struct state *st, uint32_t index) {
    while (index >= st->chan_capacity) grow(st);
}

static uint32_t take_entry(struct state *st) {
    if (!st->chan_free) grow(st);
    uint32_t index = st->chan_free - 1;
    st->chan_free = st->chans[index].next;
    return index;
}

static const char *mode_name(uint64_t mode) { return mode == XI_QUEUE ? "queue" : "broadcast"; }

static uint64_t round_capacity(uint64_t asked) {
    if (asked == 0) return XI_CAPACITY_DEFAULT;
    uint64_t capacity = XI_CAPACITY_MIN;
    while (capacity < asked && capacity <= UINT64_MAX / 2) capacity *= 2;
    return capacity;
}

static uint64_t round_grow(uint64_t asked) { return asked ? round_capacity(asked) : 0; }

/* What a new channel is to be like; refuses and returns false. */
static bool terms_valid(struct state *st, const struct xi_request *q) {
    if (q->e > XI_GROW_MAX)
        refuse(st, XI_E_TOOBIG, "a ring that may grow to %llu bytes is more than the %llu that one can have",
               (unsigned long long)q->e, (unsigned long long)XI_GROW_MAX);
    else if (q->e && !(q->c & XI_WIRE_ADOPT) && round_grow(q->e) < round_capacity(q->b)) /* else `b` is a channel */
        refuse(st, XI_E_INVAL, "a ring of %llu bytes cannot grow to %llu: use at least its capacity, or 0",
               (unsigned long long)round_capacity(q->b), (unsigned long long)q->e);
    else if ((int64_t)q->f < 0)
        refuse(st, XI_E_INVAL, "a time to live of %lld ns is none: 0 is for ever", (long long)q->f);
    else if (q->g > UINT32_MAX)
        refuse(st, XI_E_INVAL, "%llu values to retain are more than %u", (unsigned long long)q->g, UINT32_MAX);
    else if (q->h > XI_FULL_DROP)
        refuse(st, XI_E_INVAL, "when full %llu: use 0 (block), 1 (fail) or 2 (drop the oldest)", (unsigned long long)q->h);
    else if (q->other[0] && !xi_channel_name_valid(q->other, XI_NAME_MAX))
        refuse(st, XI_E_INVAL, "the name of a channel for expired values is 1 to %d bytes of UTF-8 without control "
               "characters", XI_NAME_MAX);
    else if (q->other[0] && strcmp(q->other, q->name) == 0)
        refuse(st, XI_E_INVAL, "channel \"%s\" cannot be its own channel for expired values", q->name);
    else
        return true;
    return false;
}

/* What is wrong with the request itself; refuses and returns false. */
static bool well_asked(struct state *st, const struct xi_request *q) {
    const uint64_t known = XI_OPEN_SEND | XI_OPEN_RECV | XI_OPEN_EXISTING | XI_OPEN_NEED_PEER | XI_WIRE_ADOPT;
    if (!xi_channel_name_valid(q->name, XI_NAME_MAX))
        refuse(st, XI_E_INVAL, "a channel's name is 1 to %d bytes of UTF-8 without control characters", XI_NAME_MAX);
    else if (q->a != 0 && q->a != XI_QUEUE && q->a != XI_BROADCAST)
        refuse(st, XI_E_INVAL, "channel mode %llu: use 1 (queue), 2 (broadcast) or 0", (unsigned long long)q->a);
    else if (!(q->c & XI_WIRE_ADOPT) && q->b > XI_CAPACITY_MAX)
        refuse(st, XI_E_TOOBIG, "a capacity of %llu bytes is more than the %llu that a channel can have",
               (unsigned long long)q->b, (unsigned long long)XI_CAPACITY_MAX);
    else if (q->c & ~known)
        refuse(st, XI_E_INVAL, "unknown flags %llx to open a channel", (unsigned long long)(q->c & ~known));
    else
        return terms_valid(st, q);
    return false;
}

/* Through a lane replies come to one interpreter: it alone makes and reads it, others send. Refuses and returns false. */
static bool lane_well_asked(struct state *st, const struct interp *me, const struct xi_request *q) {
    char own[80];
    if (!xi_lane_named(q->name)) return true;
    xi_lane_name(me->id, own);
    uint64_t sends = XI_OPEN_SEND | XI_OPEN_EXISTING;
    if (strcmp(q->name, own) == 0 || (q->c & sends) == sends) return true;
    refuse(st, XI_E_ACCESS, "channel \"%s\" is the lane of another interpreter, which alone receives from it", q->name);
    return false;
}

static enum handle_kind kind_of(uint64_t flags) {
    return flags & XI_OPEN_SEND ? HANDLE_SENDS : flags & XI_OPEN_RECV ? HANDLE_RECEIVES : HANDLE_BOTH;
}

/* Sums over interpreters; `sign` 1 or -1. */
static void add_handles(struct chan *ch, uint64_t handles, int sign) {
    ch->handles += (uint32_t)sign * handles_all(handles);
    ch->producers += (uint32_t)sign * handles_sending(handles);
    ch->consumers += (uint32_t)sign * handles_receiving(handles);
}

/* True if its members are to be told. While somebody is declaring, a smaller number means nothing. */
static bool tell(struct state *st, uint32_t index) {
    struct chan *ch = &st->chans[index];
    uint32_t p = ch->producers, c = ch->consumers;
    if (st->declaring && p < ch->told_producers) p = ch->told_producers;
    if (st->declaring && c < ch->told_consumers) c = ch->told_consumers;
    if (p == ch->told_producers && c == ch->told_consumers) return false;
    ch->told_producers = p;
    ch->told_consumers = c;
    return true;
}

static void publish(struct state *st, uint32_t index) {
    bool changed = tell(st, index);
    emit(st, ACTION_PUBLISH_CHAN)->index = index;
    if (changed) emit(st, ACTION_TELL_PEERS)->index = index;
}

static void count_handle(struct state *st, struct interp *me, uint32_t index, enum handle_kind kind) {
    struct chan *ch = &st->chans[index];
    interp_mark_used(st, me);
    *table_put(&me->handles, ch->id) += HANDLE_ONE(kind);
    add_handles(ch, HANDLE_ONE(kind), 1);
    st->current.made = true;
    st->current.slot = slot_of(st, me);
    st->current.index = index;
    st->current.handle = HANDLE_ONE(kind);
}

/* When the channel is there: what was opened is noted in its entry. */
static void answer_open(struct state *st, struct interp *me, uint32_t index, uint64_t flags) {
    const struct chan *ch = &st->chans[index];
    const struct conn *conn = conn_of(st, st->current.conn);
    uint32_t rights = access_to(st, &conn->who, ch);
    access_note(st, me, index, rights & access_asked(flags));
    answer(st, ch->id, ch->segment, XI_OPENED(ch->mode, rights, access_shared(st, ch, me->uid)), ch->capacity);
}

static void open_old(struct state *st, struct interp *me, const struct xi_request *q, uint32_t index) {
    const struct chan *ch = &st->chans[index];
    const uint64_t *mine = table_find(&me->handles, ch->id);
    enum handle_kind kind = kind_of(q->c);
    if (q->a && q->a != ch->mode) {
        refuse(st, XI_E_MISMATCH, "channel \"%s\" exists as a %s; open it as one, or with mode 0", ch->name,
               mode_name(ch->mode));
    } else if (!access_allows(st, conn_of(st, st->current.conn), ch, q->c)) {
        return; /* refused */
    } else if (ch->handles == UINT32_MAX || (mine && handles_of(*mine, kind) == HANDLE_MOST)) {
        refuse(st, XI_E_LIMIT, "channel \"%s\" has too many handles", ch->name);
    } else {
        count_handle(st, me, index, kind);
        publish(st, index);
        answer_open(st, me, index, q->c);
    }
}

static void open_new(struct state *st, struct interp *me, const struct xi_request *q) {
    if (q->c & (XI_OPEN_EXISTING | XI_WIRE_ADOPT)) {
        refuse(st, XI_E_NOENT, "there is no channel \"%s\"", q->name);
        return;
    }
    if (!access_takes(st, q)) return;
    uint64_t capacity = round_capacity(q->b);
    struct state_limits cost = {.bytes = XI_RING_OFFSET + capacity, .segments = 1, .channels = 1};
    if (!afford(st, me->uid, &cost)) return;
    if (st->chan_count >= XI_MAX_CHANNELS) {
        refuse(st, XI_E_LIMIT, "a namespace has %u channels at most; close some, or use a second namespace",
               XI_MAX_CHANNELS);
        return;
    }
    uint32_t number = take_number(st);
    if (!number) return;
    uint32_t index = take_entry(st);
    struct chan *ch = &st->chans[index];
    *ch = (struct chan){.id = st->next_channel++,
                        .segment = number,
                        .mode = q->a ? (uint32_t)q->a : XI_QUEUE,
                        .capacity = capacity,
                        .grow_max = round_grow(q->e),
                        .retains = q->g != 0,
                        .uid = me->uid};
    memcpy(ch->name, q->name, sizeof ch->name);
    memcpy(ch->access, q->access, sizeof ch->access);
    link_name(st, index);
    *table_put(&st->chan_ids, ch->id) = index;
    *table_put(&st->segments, number) = SEGMENT_VALUE(XI_SEG_CHANNEL, index);
    st->chan_count++;
    charge(st, ch->uid, &cost);
    count_handle(st, me, index, kind_of(q->c));
    st->current.number = number;
    (void)tell(st, index); /* it is made with these numbers */
    struct action *a = emit(st, ACTION_MAKE_CHANNEL);
    a->index = index;
    a->number = number;
    a->request = q;
    emit(st, ACTION_PUBLISH_CHAN)->index = index;
    answer_open(st, me, index, q->c);
}

void request_open(struct state *st, struct interp *me, const struct xi_request *q) {
    if ((q->c & XI_WIRE_ADOPT) && me->declaring) emit_slot(st, ACTION_SETTLE, slot_of(st, me));
    if (!well_asked(st, q) || !lane_well_asked(st, me, q)) return;
    bool by_id = (q->c & XI_WIRE_ADOPT) && q->b; /* it may have lost its name since it was opened */
    int64_t index = by_id ? state_channel_index(st, q->b) : channel_named(st, q->name);
    if (index >= 0)
        open_old(st, me, q, (uint32_t)index);
    else
        open_new(st, me, q);
}

static void remove_channel(struct state *st, uint32_t index) {
    struct chan *ch = &st->chans[index];
    access_forget(st, index);
    if (!ch->removed) unlink_name(st, index);
    table_drop(&st->chan_ids, ch->id);
    table_drop(&st->segments, ch->segment);
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++)
        if (st->interps[i].life != INTERP_FREE) table_drop(&st->interps[i].handles, ch->id);
    parts_let_go(st, index);
    discharge(st, ch->uid,
              &(struct state_limits){.bytes = XI_RING_OFFSET + ch->capacity, .segments = 1, .channels = 1});
    st->chan_count--;
    struct action *a = emit(st, ACTION_CLEAR_CHANNEL);
    a->index = index;
    a->channel = ch->id;
    emit_remove(st, ch->segment);
    *ch = (struct chan){.next = st->chan_free};
    st->chan_free = index + 1;
}

void channel_undo_open(struct state *st) {
    uint32_t index = st->current.index;
    struct chan *ch = &st->chans[index];
    uint64_t *mine = table_find(&st->interps[st->current.slot].handles, ch->id);
    if (mine) *mine -= st->current.handle;
    if (st->current.number) { /* it was new: nobody else can have it */
        remove_channel(st, index);
        return;
    }
    channel_drop_handles(st, index, st->current.handle);
}

/* Nothing holds it but what is in it; one that was removed has nothing when it has ended. */
static bool may_go(const struct state *st, const struct chan *ch) {
    return !ch->handles && !st->declaring && (!ch->removed || ch->ended);
}

/* Asks whether it is empty, if it has no handle and nobody is declaring. */
void channel_ask(struct state *st, uint32_t index) {
    if (!may_go(st, &st->chans[index])) return;
    struct action *a = emit(st, ACTION_CHECK);
    a->index = index;
    a->channel = st->chans[index].id;
}

void channel_drop_handles(struct state *st, uint32_t index, uint64_t handles) {
    add_handles(&st->chans[index], handles, -1);
    publish(st, index);
    parts_ask(st, index);
    channel_ask(st, index);
}

void request_close(struct state *st, struct interp *me, const struct xi_request *q) {
    uint64_t *mine = table_find(&me->handles, q->a);
    enum handle_kind kind = kind_of(q->c);
    if (!mine || handles_of(*mine, kind) == 0) {
        refuse(st, XI_E_NOENT, "interpreter %lld has no such open handle of channel %llu", (long long)me->id,
               (unsigned long long)q->a);
        return;
    }
    *mine -= HANDLE_ONE(kind);
    answer(st, 0, 0, 0, 0);
    channel_drop_handles(st, (uint32_t)state_channel_index(st, q->a), HANDLE_ONE(kind));
}

static void end_channel(struct state *st, uint32_t index) {
    struct action *a = emit(st, ACTION_END_CHANNEL);
    a->index = index;
    a->channel = st->chans[index].id;
}

/* Those that an earlier broker was removing. */
void channels_end(struct state *st) {
    for (uint32_t i = 0; i < st->chan_capacity; i++)
        if (st->chans[i].id && st->chans[i].removed) end_channel(st, i);
}

static void remove_by_name(struct state *st, uint32_t index) {
    unlink_name(st, index);
    st->chans[index].removed = true;
    end_channel(st, index);
}

void channel_remove_lane(struct state *st, int64_t id) {
    char name[80];
    xi_lane_name(id, name);
    int64_t index = channel_named(st, name);
    if (index >= 0) remove_by_name(st, (uint32_t)index);
}

void request_remove(struct state *st, const struct conn *conn, const struct xi_request *q) {
    int64_t index = channel_named(st, q->name);
    struct chan *ch = index < 0 ? NULL : &st->chans[index];
    if (!ch || (q->a && q->a != ch->id)) {
        refuse(st, XI_E_NOENT, "there is no channel \"%s\"%s", q->name, ch ? " of that id any more" : "");
        return;
    }
    if (!access_to_life(st, conn->who.uid, ch->uid)) {
        refuse(st, XI_E_ACCESS, "channel \"%s\" is user %u's, who alone may remove it", ch->name, ch->uid);
        return;
    }
    remove_by_name(st, (uint32_t)index);
    answer(st, 0, 0, 0, 0); /* how many values it held is known when it is ended: whoever sends this reply adds it */
}

void channel_ended(struct state *st, uint64_t id) {
    int64_t index = state_channel_index(st, id);
    if (index < 0 || !st->chans[index].removed) return;
    st->chans[index].ended = true;
    channel_ask(st, (uint32_t)index);
}

/* Nobody can have sent anything since it was found empty: that takes a handle. */
void channel_empty(struct state *st, uint64_t id) {
    int64_t index = state_channel_index(st, id);
    if (index >= 0 && may_go(st, &st->chans[index])) remove_channel(st, (uint32_t)index);
}

void channels_check(struct state *st) {
    for (uint32_t i = 0; i < st->chan_capacity; i++) {
        struct chan *ch = &st->chans[i];
        if (!ch->id) continue;
        if (ch->told_producers != ch->producers || ch->told_consumers != ch->consumers) publish(st, i);
        channel_ask(st, i);
    }
}
