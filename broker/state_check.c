/* SPDX-License-Identifier: MIT */
/* The core's invariants, recomputed from scratch. Tests call this after every event. */
#include <stdlib.h>
#include <string.h>

#include "state_internal.h"

#define REQUIRE(condition, words)                                                                                      \
    do                                                                                                                 \
        if (!(condition)) {                                                                                            \
            *why = (words);                                                                                            \
            return false;                                                                                              \
        }                                                                                                              \
    while (0)

struct sums {
    uint32_t live, dying, orphans, declaring, segments, channels;
    uint64_t bytes;
};

static bool refs_are_valid(const struct state *st, const char **why) {
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        const struct interp *target = &st->interps[i];
        if (target->life != INTERP_LIVE) continue;
        uint64_t sum = 0;
        for (uint32_t k = 1; k < XI_MAX_INTERPS; k++) {
            uint64_t *count = table_find(&st->interps[k].refs, (uint64_t)target->id);
            if (!count) continue;
            REQUIRE(*count > 0, "a reference entry of zero");
            REQUIRE(st->interps[k].life == INTERP_LIVE, "somebody who is gone holds a reference");
            sum += *count;
        }
        REQUIRE(sum == target->refcount, "a reference count is not the sum over its holders");
        bool unwanted = (target->flags & XI_JOIN_REQUIRES_REF) && target->had_ref && !sum && !st->declaring;
        REQUIRE(!unwanted || target->told_end, "an interpreter without references was not told to end");
    }
    return true;
}

static bool held_is_valid(const struct state *st, uint32_t slot, struct sums *sums, const char **why) {
    const struct interp *in = &st->interps[slot];
    for (uint32_t i = 0; i < in->held_count; i++) {
        const struct held *h = &in->held[i];
        uint64_t *found = table_find(&st->segments, h->number);
        REQUIRE(found && *found == SEGMENT_VALUE(h->kind, slot), "a held segment is not in the table");
        REQUIRE(h->number < st->next_segment, "a segment number from the future");
        REQUIRE(in->life != INTERP_ORPHAN || h->kind == XI_SEG_ARENA, "an orphan holds more than arenas");
        sums->segments += h->kind == XI_SEG_ARENA ? 2 : 1;
        sums->bytes += h->bytes;
    }
    return true;
}

static bool interps_are_valid(const struct state *st, struct sums *sums, const char **why) {
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        const struct interp *in = &st->interps[i];
        uint64_t *slot = in->id ? table_find(&st->ids, (uint64_t)in->id) : NULL;
        REQUIRE((slot != NULL) == (in->life == INTERP_LIVE), "the table of ids holds not exactly the living");
        REQUIRE(!slot || *slot == i, "an id leads to another's slot");
        REQUIRE(in->id < st->next_id, "an id from the future");
        if (in->life == INTERP_FREE) {
            REQUIRE(!in->held_count && !in->handles.count && !in->refs.count && !in->opened.count,
                    "a free slot holds something");
            continue;
        }
        const struct conn *conn = in->conn ? conn_of(st, in->conn) : NULL;
        REQUIRE(!in->conn || (conn && conn->slot == i), "a connection and its interpreter disagree");
        sums->live += in->life == INTERP_LIVE;
        sums->dying += in->life == INTERP_DYING;
        sums->orphans += in->life == INTERP_ORPHAN;
        sums->declaring += in->declaring;
        REQUIRE(in->life != INTERP_ORPHAN || in->held_count, "an orphan without arenas");
        if (!held_is_valid(st, i, sums, why)) return false;
    }
    REQUIRE(sums->live == st->live && sums->dying == st->dying && sums->orphans == st->orphans,
            "counts of interpreters");
    REQUIRE(sums->declaring == st->declaring, "count of those declaring");
    return true;
}

static bool opened_is_valid(const struct state *st, const char **why) {
    uint64_t id, value;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        const struct interp *in = &st->interps[i];
        REQUIRE(st->open || !in->opened.count, "it is remembered who opened what where that does not matter");
        for (uint32_t at = 0; table_next(&in->opened, &at, &id, &value);) {
            REQUIRE(state_channel_index(st, id) >= 0, "a channel that is gone is remembered as opened");
            REQUIRE(value && !(value & ~(uint64_t)XI_ACCESS_BOTH), "a channel was opened for nothing, or for something else");
        }
        for (uint32_t at = 0; st->open && table_next(&in->handles, &at, &id, &value);)
            REQUIRE(table_find(&in->opened, id), "a handle of a channel that was not opened");
    }
    return true;
}

/* Is here, or is being repaired. */
static bool lives(const struct state *st, int64_t id) {
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++)
        if (st->interps[i].id == id) return st->interps[i].life == INTERP_LIVE || st->interps[i].life == INTERP_DYING;
    return false;
}

static bool parts_are_valid(const struct state *st, uint32_t index, struct sums *sums, const char **why) {
    const struct chan *ch = &st->chans[index];
    for (uint32_t i = 0; i < ch->part_count; i++) {
        const struct part *p = &ch->parts[i];
        uint64_t *found = table_find(&st->segments, p->number);
        REQUIRE(found && *found == SEGMENT_VALUE(p->kind, index), "a part of a channel is not in the table");
        REQUIRE(p->number < st->next_segment, "a segment number from the future");
        REQUIRE(p->kind != XI_SEG_RING || p->size <= XI_PAGE + ch->grow_max, "a ring larger than its channel may grow");
        REQUIRE(!p->filling || lives(st, p->maker), "a ring is being filled by nobody");
        sums->segments++;
        sums->bytes += p->size;
    }
    return true;
}

static bool channels_are_valid(const struct state *st, struct sums *sums, const char **why) {
    for (uint32_t c = 0; c < st->chan_capacity; c++) {
        const struct chan *ch = &st->chans[c];
        if (!ch->id) continue;
        uint64_t handles = 0, producers = 0, consumers = 0;
        for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
            uint64_t *mine = table_find(&st->interps[i].handles, ch->id);
            if (!mine) continue;
            handles += handles_all(*mine);
            producers += handles_sending(*mine);
            consumers += handles_receiving(*mine);
        }
        REQUIRE(handles == ch->handles && producers == ch->producers && consumers == ch->consumers,
                "a channel's handles are not the sum over interpreters");
        REQUIRE(ch->told_producers >= producers && ch->told_consumers >= consumers, "members were told of too few");
        REQUIRE(st->declaring || (ch->told_producers == producers && ch->told_consumers == consumers),
                "members were not told who is gone");
        REQUIRE(ch->removed || !ch->ended, "a channel has ended that was not removed");
        REQUIRE(ch->removed || channel_named(st, ch->name) == (int64_t)c, "a name leads elsewhere");
        REQUIRE(state_channel_index(st, ch->id) == c, "a channel's id leads elsewhere");
        uint64_t *found = table_find(&st->segments, ch->segment);
        REQUIRE(found && *found == SEGMENT_VALUE(XI_SEG_CHANNEL, c), "a channel's segment is not in the table");
        sums->channels++;
        sums->segments++;
        sums->bytes += XI_RING_OFFSET + ch->capacity;
        if (!parts_are_valid(st, c, sums, why)) return false;
    }
    REQUIRE(sums->channels == st->chan_count && sums->channels == st->chan_ids.count, "count of channels");
    uint64_t id, count;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++)
        for (uint32_t at = 0; table_next(&st->interps[i].handles, &at, &id, &count);)
            REQUIRE(state_channel_index(st, id) >= 0, "a handle of a channel that is gone");
    return opened_is_valid(st, why);
}

bool state_is_valid(const struct state *st, const char **why) {
    struct sums sums = {0};
    if (!refs_are_valid(st, why) || !interps_are_valid(st, &sums, why) || !channels_are_valid(st, &sums, why))
        return false;
    struct state_limits used = {0};
    for (uint32_t i = 0; i < st->user_count; i++) {
        const struct state_limits *u = &st->users[i].used;
        const struct state_limits *most = st->open && st->users[i].uid != st->owner ? &st->other_limits : &st->limits;
        REQUIRE(u->bytes <= most->bytes && u->segments <= most->segments && u->channels <= most->channels &&
                    u->interps <= most->interps,
                "a quota was passed");
        used.bytes += u->bytes;
        used.segments += u->segments;
        used.channels += u->channels;
        used.interps += u->interps;
    }
    REQUIRE(used.bytes == sums.bytes && st->bytes == sums.bytes, "bytes charged are not bytes held");
    REQUIRE(used.segments == sums.segments && st->segments.count == sums.segments,
            "segments charged are not segments held");
    REQUIRE(used.channels == sums.channels, "channels charged");
    REQUIRE(used.interps == sums.live + sums.dying + sums.orphans, "interpreters charged");
    return true;
}
