/* SPDX-License-Identifier: MIT */
/*
 * Parts: segments that belong to a channel besides its own. They go with the
 * channel at the latest. One goes earlier when nothing in the channel names it
 * any more; that is seen in shared memory alone, so the core asks
 * (ACTION_CHECK_PARTS) whenever somebody may have been the last to use one, and
 * removes it on EVENT_PART_UNUSED. A part is charged to whoever asked for it.
 */
#include <stdlib.h>

#include "state_internal.h"
#include "wire/bounds.h"
#include "wire/names.h"

static struct state_limits cost_of(const struct part *p) {
    return (struct state_limits){.bytes = p->size, .segments = 1};
}

void part_hold(struct state *st, uint32_t index, const struct part *p) {
    struct chan *ch = &st->chans[index];
    struct state_limits cost = cost_of(p);
    ch->parts = memory_or_die(ch->parts, ch->part_count + 1u, sizeof *ch->parts);
    ch->parts[ch->part_count++] = *p;
    *table_put(&st->segments, p->number) = SEGMENT_VALUE(p->kind, index);
    charge(st, p->uid, &cost);
}

static void let_go_at(struct state *st, struct chan *ch, uint32_t at) {
    struct part p = ch->parts[at];
    struct state_limits cost = cost_of(&p);
    ch->parts[at] = ch->parts[--ch->part_count];
    table_drop(&st->segments, p.number);
    emit_remove(st, p.number);
    discharge(st, p.uid, &cost);
}

void part_let_go(struct state *st, uint32_t index, uint32_t number) {
    struct chan *ch = &st->chans[index];
    for (uint32_t i = 0; i < ch->part_count; i++)
        if (ch->parts[i].number == number) {
            let_go_at(st, ch, i);
            return;
        }
}

void parts_let_go(struct state *st, uint32_t index) {
    struct chan *ch = &st->chans[index];
    while (ch->part_count) let_go_at(st, ch, ch->part_count - 1);
    free(ch->parts);
    ch->parts = NULL;
}

void parts_ask(struct state *st, uint32_t index) {
    if (!st->chans[index].part_count) return;
    struct action *a = emit(st, ACTION_CHECK_PARTS);
    a->index = index;
    a->channel = st->chans[index].id;
}

void parts_ask_all(struct state *st) {
    for (uint32_t i = 0; i < st->chan_capacity; i++)
        if (st->chans[i].id) parts_ask(st, i);
}

void part_unused(struct state *st, uint64_t channel, uint32_t number) {
    int64_t index = state_channel_index(st, channel);
    if (index >= 0) part_let_go(st, (uint32_t)index, number);
}

void part_undo(struct state *st) { part_let_go(st, st->current.index, st->current.number); }

/* Decides that a part is made for the current request, if the quota allows it. */
static void part_make(struct state *st, struct interp *me, const struct xi_request *q, uint32_t index, uint32_t kind,
                      uint64_t size) {
    struct part p = {.kind = kind, .size = size, .uid = me->uid, .maker = me->id, .filling = kind == XI_SEG_RING};
    struct state_limits cost = cost_of(&p);
    if (!afford(st, me->uid, &cost) || !(p.number = take_number(st))) return;
    part_hold(st, index, &p);
    st->current.made = true;
    st->current.index = index;
    st->current.number = p.number;
    struct action *a = emit(st, ACTION_MAKE_PART);
    a->slot = slot_of(st, me);
    a->index = index;
    a->number = p.number;
    a->size = size;
    a->request = q;
    answer(st, p.number, size, 0, 0);
}

/* Index of the channel `id` if `me` has it open; otherwise refuses and returns -1. */
static int64_t open_channel(struct state *st, struct interp *me, uint64_t id) {
    uint64_t *mine = table_find(&me->handles, id);
    if (mine && *mine) return state_channel_index(st, id);
    refuse(st, XI_E_NOENT, "interpreter %lld has no open handle of channel %llu", (long long)me->id,
           (unsigned long long)id);
    return -1;
}

void request_acks(struct state *st, struct interp *me, const struct xi_request *q) {
    int64_t index = open_channel(st, me, q->a);
    if (index < 0) return;
    if (q->b >= XI_MAX_GROUPS)
        refuse(st, XI_E_INVAL, "a channel has %u groups; there is no group %llu", XI_MAX_GROUPS, (unsigned long long)q->b);
    else if (!xi_is_pow2(q->c) || q->c > XI_WINDOW_MAX)
        refuse(st, XI_E_INVAL, "a window of %llu values is not a power of two up to %u", (unsigned long long)q->c,
               XI_WINDOW_MAX);
    else if (q->d > UINT32_MAX || q->e > INT64_MAX)
        refuse(st, XI_E_INVAL, "a group's number of deliveries or its timeout is too large");
    else if (q->other[0] && !xi_channel_name_valid(q->other, XI_NAME_MAX))
        refuse(st, XI_E_INVAL, "the name of the channel for dead letters is none");
    else {
        part_make(st, me, q, (uint32_t)index, XI_SEG_ACKS, XI_ACKS_SIZE(q->c));
        parts_ask(st, (uint32_t)index); /* whatever an earlier group of this channel has left */
    }
}

/*
 * Rings that channels have grown into (wire/layout.h, "Growing"). One is being
 * filled from the request until its maker says that the move is over, or dies, or
 * begins to declare anew; meanwhile nobody else gets one for the same channel, so
 * that a hundred senders who find it full at once do not reserve a hundred rings.
 * One that is not being filled and not in use is removed. Should its maker live
 * after all and be about to use it, the two settle that between them: see
 * world_ring_idle().
 */
static bool ring_wanted(struct state *st, const struct chan *ch, uint64_t capacity) {
    if (!xi_is_pow2(capacity) || capacity <= ch->capacity || capacity > ch->grow_max) {
        refuse(st, XI_E_INVAL, "channel \"%s\" has no use for a ring of %llu bytes: powers of two beyond %llu, up to %llu",
               ch->name, (unsigned long long)capacity, (unsigned long long)ch->capacity, (unsigned long long)ch->grow_max);
        return false;
    }
    for (uint32_t i = 0; i < ch->part_count; i++)
        if (ch->parts[i].filling) {
            refuse(st, XI_E_AGAIN, "another interpreter is about to move channel \"%s\" into another ring", ch->name);
            return false;
        }
    return true;
}

void request_ring(struct state *st, struct interp *me, const struct xi_request *q) {
    int64_t index = open_channel(st, me, q->a);
    if (index >= 0 && ring_wanted(st, &st->chans[index], q->b))
        part_make(st, me, q, (uint32_t)index, XI_SEG_RING, XI_PAGE + q->b);
}

/* True if `maker` was filling one. */
static bool give_up(struct chan *ch, int64_t maker) {
    bool any = false;
    for (uint32_t i = 0; i < ch->part_count; i++) {
        struct part *p = &ch->parts[i];
        if (!p->filling || p->maker != maker) continue;
        p->filling = false;
        any = true;
    }
    return any;
}

void request_ring_drop(struct state *st, struct interp *me, const struct xi_request *q) {
    int64_t index = open_channel(st, me, q->a);
    if (index < 0) return;
    (void)give_up(&st->chans[index], me->id);
    parts_ask(st, (uint32_t)index);
    answer(st, 0, 0, 0, 0);
}

void rings_give_up(struct state *st, int64_t maker) {
    for (uint32_t i = 0; i < st->chan_capacity; i++)
        if (st->chans[i].id && give_up(&st->chans[i], maker)) parts_ask(st, i);
}
