/* SPDX-License-Identifier: MIT */
/* Segments of interpreters: arenas with their release words, borrow tables; who owns them and who pays. */
#include <stdlib.h>

#include "state_internal.h"

uint32_t slot_of(const struct state *st, const struct interp *in) { return (uint32_t)(in - st->interps); }

static struct state_limits cost_of(const struct held *h) {
    return (struct state_limits){.bytes = h->bytes, .segments = h->kind == XI_SEG_ARENA ? 2 : 1};
}

void hold(struct state *st, struct interp *in, const struct held *h) {
    if (in->held_count == in->held_capacity) {
        in->held_capacity = in->held_capacity ? in->held_capacity * 2 : 4;
        in->held = memory_or_die(in->held, in->held_capacity, sizeof *in->held);
    }
    in->held[in->held_count++] = *h;
    uint32_t slot = slot_of(st, in);
    *table_put(&st->segments, h->number) = SEGMENT_VALUE(h->kind, slot);
    if (h->kind == XI_SEG_ARENA) *table_put(&st->segments, h->number + 1) = SEGMENT_VALUE(XI_SEG_RELEASE, slot);
    struct state_limits cost = cost_of(h);
    charge(st, in->uid, &cost);
}

void let_go(struct state *st, struct interp *in, uint32_t at) {
    struct held h = in->held[at];
    in->held[at] = in->held[--in->held_count];
    table_drop(&st->segments, h.number);
    emit_remove(st, h.number);
    if (h.kind == XI_SEG_ARENA) {
        table_drop(&st->segments, h.number + 1);
        emit_remove(st, h.number + 1);
    }
    struct state_limits cost = cost_of(&h);
    discharge(st, in->uid, &cost);
}

/* Index into in->held, or -1. */
static int64_t held_at(const struct interp *in, uint64_t number) {
    for (uint32_t i = 0; i < in->held_count; i++)
        if (in->held[i].number == number) return i;
    return -1;
}

static void make(struct state *st, struct interp *me, const struct held *h, enum action_kind kind) {
    hold(st, me, h);
    st->current.made = true;
    st->current.slot = slot_of(st, me);
    st->current.number = h->number;
    struct action *a = emit_slot(st, kind, slot_of(st, me));
    a->number = h->number;
    a->size = h->size;
    if (kind == ACTION_MAKE_ARENA) emit_slot(st, ACTION_PUBLISH, slot_of(st, me));
    answer(st, h->number, h->size, 0, 0);
}

/* What a broker made that died before it could answer: true if that is the answer now. */
static bool made_before(struct state *st, struct interp *me, uint32_t kind, uint64_t size, uint64_t asked) {
    for (uint32_t i = 0; asked && i < me->held_count; i++) {
        if (me->held[i].kind != kind || me->held[i].asked != asked) continue;
        if (me->held[i].size >= size) {
            answer(st, me->held[i].number, me->held[i].size, 0, 0);
            return true;
        }
        let_go(st, me, i);
        return false;
    }
    return false;
}

static uint64_t round_to_page(uint64_t n) { return (n + XI_PAGE - 1) & ~(uint64_t)(XI_PAGE - 1); }

void request_arena(struct state *st, struct interp *me, const struct xi_request *q) {
    if (q->a > XI_ARENA_MAX) {
        refuse(st, XI_E_TOOBIG, "an arena segment of %llu bytes is more than the %llu that one can have",
               (unsigned long long)q->a, (unsigned long long)XI_ARENA_MAX);
        return;
    }
    uint64_t size = round_to_page(q->a < 2 * XI_PAGE ? 2 * XI_PAGE : q->a);
    struct held h = {.kind = XI_SEG_ARENA, .size = size, .bytes = size + XI_RELEASE_SIZE(size), .asked = (uint32_t)q->b};
    if (made_before(st, me, XI_SEG_ARENA, size, q->b)) return;
    struct state_limits cost = cost_of(&h);
    if (!afford(st, me->uid, &cost) || !(h.number = take_number(st))) return;
    make(st, me, &h, ACTION_MAKE_ARENA);
}

#define BORROWS_MAX ((uint64_t)16 << 20) /* half a million entries in one segment */

void request_borrows(struct state *st, struct interp *me, const struct xi_request *q) {
    if (q->a > BORROWS_MAX) {
        refuse(st, XI_E_TOOBIG, "a borrow segment of %llu bytes is more than the %llu that one can have",
               (unsigned long long)q->a, (unsigned long long)BORROWS_MAX);
        return;
    }
    uint64_t size = round_to_page(q->a ? q->a : 1);
    struct held h = {.kind = XI_SEG_BORROWS, .size = size, .bytes = size, .asked = (uint32_t)q->b};
    if (made_before(st, me, XI_SEG_BORROWS, size, q->b)) return;
    struct state_limits cost = cost_of(&h);
    if (!afford(st, me->uid, &cost) || !(h.number = take_number(st))) return;
    make(st, me, &h, ACTION_MAKE_BORROWS);
}

void request_drop(struct state *st, struct interp *me, const struct xi_request *q) {
    int64_t at = held_at(me, q->a);
    if (at < 0 || (me->held[at].kind != XI_SEG_ARENA && me->held[at].kind != XI_SEG_BORROWS)) {
        refuse(st, XI_E_NOENT, "interpreter %lld has no segment %08llx to give back", (long long)me->id,
               (unsigned long long)q->a);
        return;
    }
    let_go(st, me, (uint32_t)at);
    emit_slot(st, ACTION_PUBLISH, slot_of(st, me));
    answer(st, 0, 0, 0, 0);
}

void request_segment(struct state *st, struct interp *me, const struct xi_request *q) {
    uint64_t *found = table_find(&st->segments, q->a);
    if (!found) {
        refuse(st, XI_E_NOENT, "segment %08llx is gone", (unsigned long long)q->a);
        return;
    }
    uint32_t kind = SEGMENT_KIND(*found);
    bool private = kind == XI_SEG_OWN || kind == XI_SEG_BORROWS;
    if (private && SEGMENT_PLACE(*found) != slot_of(st, me)) {
        refuse(st, XI_E_ACCESS, "segment %08llx belongs to another interpreter alone", (unsigned long long)q->a);
        return;
    }
    if (!access_to_segment(st, me, (uint32_t)q->a)) {
        refuse(st, XI_E_ACCESS,
               "segment %08llx is another user's, and interpreter %lld has opened no channel that would bring it here",
               (unsigned long long)q->a, (long long)me->id);
        return;
    }
    answer(st, q->a, 0, 0, 0);
    st->actions[st->action_count - 1].reply.segment_kind = kind;
}

void segment_undo(struct state *st) {
    struct interp *in = &st->interps[st->current.slot];
    int64_t at = held_at(in, st->current.number);
    if (at < 0) return;
    bool arena = in->held[at].kind == XI_SEG_ARENA;
    let_go(st, in, (uint32_t)at);
    if (arena) emit_slot(st, ACTION_PUBLISH, st->current.slot);
}
