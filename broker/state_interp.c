/* SPDX-License-Identifier: MIT */
/*
 * Interpreters: joining, coming back, leaving and dying (one path), and their
 * references on one another.
 */
#include <stdlib.h>
#include <string.h>

#include "state_internal.h"
#include "wire/names.h"

/* ---- references ---- */

void interp_publish(struct state *st, uint32_t slot) {
    struct interp *in = &st->interps[slot];
    if (!st->declaring || in->refcount > in->published) in->published = in->refcount;
    emit_slot(st, ACTION_PUBLISH, slot);
}

void interp_mark_used(struct state *st, struct interp *in) {
    if (in->used) return;
    in->used = true;
    emit_slot(st, ACTION_PUBLISH, slot_of(st, in));
}

/*
 * Tells an interpreter to end whose last reference is gone; while anybody is declaring, that cannot be known. Before that is
 * published: a new broker that found no reference and nothing decided would take it for one that never had any.
 */
static void end_if_unwanted(struct state *st, uint32_t slot) {
    struct interp *in = &st->interps[slot];
    bool wants = (in->flags & XI_JOIN_REQUIRES_REF) && in->had_ref && !in->told_end;
    if (in->life != INTERP_LIVE || !wants || in->refcount || st->declaring) return;
    in->told_end = true;
    emit_slot(st, ACTION_TELL_END, slot);
    if (!in->conn) return;
    struct action *a = emit(st, ACTION_NOTIFY);
    a->conn = in->conn;
    a->reply.op = XI_EV_END;
}

static struct interp *target_of(struct state *st, const struct interp *me, const struct xi_request *q) {
    uint64_t *slot = table_find(&st->ids, q->a);
    struct interp *target = slot ? &st->interps[*slot] : NULL;
    if (target && access_to_life(st, me->uid, target->uid)) return target;
    if (target)
        refuse(st, XI_E_ACCESS, "interpreter %lld is user %u's: its life is not in your hands", (long long)q->a, target->uid);
    else
        refuse(st, XI_E_NOENT, "there is no interpreter %lld", (long long)q->a);
    return NULL;
}

void request_ref(struct state *st, struct interp *me, const struct xi_request *q) {
    if ((q->c & XI_WIRE_ADOPT) && me->declaring) emit_slot(st, ACTION_SETTLE, slot_of(st, me));
    struct interp *target = target_of(st, me, q);
    if (!target) return;
    if (target->told_end && !(q->c & XI_WIRE_ADOPT)) { /* one that is declared was there when that was decided: it is given up next */
        refuse(st, XI_E_NOENT, "interpreter %lld was told to end: its last reference is gone", (long long)target->id);
        return;
    }
    if (target->refcount == UINT32_MAX) {
        refuse(st, XI_E_LIMIT, "interpreter %lld has too many references", (long long)target->id);
        return;
    }
    interp_mark_used(st, me);
    ++*table_put(&me->refs, q->a);
    target->refcount++;
    target->had_ref = true;
    interp_publish(st, slot_of(st, target));
    answer(st, target->refcount, 0, 0, 0);
}

void request_unref(struct state *st, struct interp *me, const struct xi_request *q) {
    struct interp *target = target_of(st, me, q);
    if (!target) return;
    uint64_t *mine = table_find(&me->refs, q->a);
    if (!mine) {
        refuse(st, XI_E_NOENT, "interpreter %lld holds no reference on interpreter %lld", (long long)me->id,
               (long long)target->id);
        return;
    }
    if (--*mine == 0) table_drop(&me->refs, q->a);
    target->refcount--;
    end_if_unwanted(st, slot_of(st, target));
    interp_publish(st, slot_of(st, target));
    answer(st, target->refcount, 0, 0, 0);
}

/* Drops everything that `in` holds on others. */
static void drop_refs(struct state *st, struct interp *in) {
    uint64_t id, count;
    for (uint32_t at = 0; table_next(&in->refs, &at, &id, &count);) {
        uint64_t *slot = table_find(&st->ids, id);
        if (!slot) continue;
        st->interps[*slot].refcount -= (uint32_t)count;
        end_if_unwanted(st, (uint32_t)*slot);
        interp_publish(st, (uint32_t)*slot);
    }
    table_clear(&in->refs);
}

/* ---- joining ---- */

static uint32_t free_slot(const struct state *st) {
    for (uint32_t n = 0; n < XI_MAX_INTERPS - 1; n++) {
        uint32_t slot = 1 + (st->last_slot + n) % (XI_MAX_INTERPS - 1);
        if (st->interps[slot].life == INTERP_FREE) return slot;
    }
    return 0;
}

static bool well_asked(struct state *st, const struct conn *conn, const struct xi_request *q) {
    const uint64_t known = XI_JOIN_REQUIRES_REF | XI_JOIN_MANUAL_FREE | XI_JOIN_NO_START | XI_JOIN_NO_SPIN;
    const struct interp *now = conn->slot ? &st->interps[conn->slot] : NULL;
    if (now && now->life == INTERP_LIVE)
        refuse(st, XI_E_INVAL, "this connection has joined as interpreter %lld; connect once more to join once more",
               (long long)now->id);
    else if (now && now->life == INTERP_DYING && now->leave_conn)
        refuse(st, XI_E_INVAL, "this connection is still leaving");
    else if (q->a & ~known)
        refuse(st, XI_E_INVAL, "unknown flags %llx to join", (unsigned long long)(q->a & ~known));
    else if (!xi_channel_name_valid(q->name, XI_NS_MAX) || !xi_channel_name_valid(q->text, XI_NS_MAX))
        refuse(st, XI_E_INVAL,
               "an interpreter's name and language are 1 to 31 bytes of UTF-8 without control characters");
    else
        return true;
    return false;
}

/* It starts anew to say what it holds. Nothing is judged meanwhile, as it is declaring. */
static void forget_declared(struct state *st, struct interp *in) {
    uint64_t id, count;
    for (uint32_t at = 0; table_next(&in->handles, &at, &id, &count);) {
        if (!count) continue;
        *table_find(&in->handles, id) = 0;
        channel_drop_handles(st, (uint32_t)state_channel_index(st, id), count);
    }
    drop_refs(st, in);
}

static void rejoin(struct state *st, struct conn *conn, const struct xi_request *q) {
    uint64_t *slot = table_find(&st->ids, q->b);
    struct interp *in = slot ? &st->interps[*slot] : NULL;
    if (!in || in->pid != conn->pid || in->start != conn->start || in->uid != conn->who.uid) {
        refuse(st, XI_E_NOENT, "interpreter %llu does not live in this process; join anew", (unsigned long long)q->b);
        return;
    }
    if (in->conn) {
        conn_of(st, in->conn)->slot = 0;
        emit(st, ACTION_DROP)->conn = in->conn;
    }
    if (!in->declaring) {
        in->declaring = true;
        st->declaring++;
    }
    forget_declared(st, in);
    rings_give_up(st, in->id);
    in->conn = st->current.conn;
    conn->slot = (uint32_t)*slot;
    st->current.made = st->current.rejoined = true;
    st->current.slot = conn->slot;
    uint32_t own = 0, mailbox = 0;
    for (uint32_t i = 0; i < in->held_count; i++) {
        if (in->held[i].kind == XI_SEG_OWN) own = in->held[i].number;
        if (in->held[i].kind == XI_SEG_MAILBOX) mailbox = in->held[i].number;
    }
    answer(st, (uint64_t)in->id, conn->slot, own, mailbox);
    emit_slot(st, ACTION_SETTLE, conn->slot);
}

static void join_new(struct state *st, struct conn *conn, const struct xi_request *q, uint32_t slot, uint32_t own,
                     uint32_t mailbox) {
    struct interp *in = &st->interps[slot];
    *in = (struct interp){.life = INTERP_LIVE,
                          .id = st->next_id++,
                          .conn = st->current.conn,
                          .pid = conn->pid,
                          .uid = conn->who.uid,
                          .start = conn->start,
                          .flags = (uint32_t)q->a & XI_JOIN_REQUIRES_REF};
    charge(st, in->uid, &(struct state_limits){.interps = 1});
    hold(st, in, &(struct held){own, XI_SEG_OWN, XI_OWN_SIZE, XI_OWN_SIZE, 0});
    hold(st, in, &(struct held){mailbox, XI_SEG_MAILBOX, XI_MAILBOX_SIZE, XI_MAILBOX_SIZE, 0});
    *table_put(&st->ids, (uint64_t)in->id) = slot;
    conn->slot = slot;
    st->last_slot = slot;
    st->live++;
    st->current.made = true;
    st->current.slot = slot;
    emit_slot(st, ACTION_MAKE_INTERP, slot)->request = q;
    emit_slot(st, ACTION_WATCH, slot)->conn = in->conn;
    answer(st, (uint64_t)in->id, slot, own, mailbox);
}

void request_join(struct state *st, struct conn *conn, const struct xi_request *q) {
    if (!well_asked(st, conn, q)) return;
    if (q->b) {
        rejoin(st, conn, q);
        return;
    }
    if (conn->pid <= 0) {
        refuse(st, XI_E_ACCESS,
               "the broker cannot see this process: it lives in another pid namespace; start a broker there");
        return;
    }
    struct state_limits cost = {XI_OWN_SIZE + XI_MAILBOX_SIZE, 2, 0, 1};
    if (!afford(st, conn->who.uid, &cost)) return;
    uint32_t slot = free_slot(st), own, mailbox;
    if (!slot) {
        refuse(st, XI_E_LIMIT, "a namespace has %u interpreters at most (those whose values still wait count too)",
               XI_MAX_INTERPS - 1);
        return;
    }
    if (!(own = take_number(st)) || !(mailbox = take_number(st))) return;
    st->served++;
    join_new(st, conn, q, slot, own, mailbox);
}

/* ---- ending ---- */

static void release_slot(struct state *st, uint32_t slot) {
    struct interp *in = &st->interps[slot];
    discharge(st, in->uid, &(struct state_limits){.interps = 1});
    table_clear(&in->handles);
    table_clear(&in->opened);
    table_clear(&in->refs);
    free(in->held);
    *in = (struct interp){0};
    emit_slot(st, ACTION_CLEAR_SLOT, slot);
}

void interp_undo_join(struct state *st) {
    struct interp *in = &st->interps[st->current.slot];
    struct conn *conn = conn_of(st, st->current.conn);
    if (conn) conn->slot = 0;
    in->conn = 0;
    if (st->current.rejoined) return; /* it lives, disconnected as before */
    table_drop(&st->ids, (uint64_t)in->id);
    emit_slot(st, ACTION_UNWATCH, st->current.slot);
    while (in->held_count) let_go(st, in, in->held_count - 1);
    st->live--;
    st->served--;
    release_slot(st, st->current.slot);
}

void interp_begin_end(struct state *st, uint32_t slot) {
    struct interp *in = &st->interps[slot];
    in->life = INTERP_DYING;
    st->live--;
    st->dying++;
    table_drop(&st->ids, (uint64_t)in->id);
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) table_drop(&st->interps[i].refs, (uint64_t)in->id);
    drop_refs(st, in);
    if (in->conn && !in->leave_conn) emit(st, ACTION_DROP)->conn = in->conn; /* a forked child may hold it open */
    emit_slot(st, ACTION_UNWATCH, slot);
    emit_slot(st, ACTION_REPAIR, slot);
}

void request_leave(struct state *st, struct conn *conn) {
    struct interp *in = &st->interps[conn->slot];
    in->leave_conn = st->current.conn;
    in->leave_serial = st->current.serial;
    interp_begin_end(st, conn->slot);
}

static void answer_leave(struct state *st, uint64_t number, uint32_t serial) {
    struct conn *conn = number ? conn_of(st, number) : NULL;
    if (!conn) return;
    struct action *a = emit(st, ACTION_REPLY);
    a->conn = number;
    a->reply.op = XI_OP_LEAVE;
    a->reply.serial = serial;
}

/* Its shared state reads as if it had stopped between two operations: now its handles can be dropped. */
static void drop_handles(struct state *st, struct interp *in) {
    uint64_t id, count;
    for (uint32_t at = 0; table_next(&in->handles, &at, &id, &count);) {
        int64_t index = state_channel_index(st, id);
        if (count)
            channel_drop_handles(st, (uint32_t)index, count);
        else
            channel_ask(st, (uint32_t)index); /* its group may have been what kept the channel */
        *table_find(&in->handles, id) = 0;
    }
}

/* The last one who was declaring has finished: judge what had to wait. */
static void all_declared(struct state *st) {
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        if (st->interps[i].life != INTERP_LIVE) continue;
        end_if_unwanted(st, i);
        interp_publish(st, i);
    }
    channels_check(st);
}

static bool stop_declaring(struct state *st, struct interp *in) {
    if (!in->declaring) return false;
    in->declaring = false;
    return --st->declaring == 0;
}

void interp_repaired(struct state *st, uint32_t slot) {
    struct interp *in = &st->interps[slot];
    st->dying--;
    bool last = stop_declaring(st, in);
    rings_give_up(st, in->id);
    channel_remove_lane(st, in->id);
    drop_handles(st, in);
    if (in->opened_unknown) parts_ask_all(st); /* of whatever else it had open */
    struct conn *conn = in->conn ? conn_of(st, in->conn) : NULL;
    if (conn) conn->slot = 0;
    uint64_t waiting = in->leave_conn;
    uint32_t serial = in->leave_serial;
    in->conn = in->leave_conn = 0;
    for (uint32_t i = in->held_count; i-- > 0;)
        if (in->held[i].kind != XI_SEG_ARENA) let_go(st, in, i);
    if (in->held_count) {
        in->life = INTERP_ORPHAN;
        st->orphans++;
        emit_slot(st, ACTION_ORPHAN_SLOT, slot);
        emit(st, ACTION_COLLECT);
    } else {
        release_slot(st, slot);
    }
    if (last) all_declared(st);
    answer_leave(st, waiting, serial);
}

void interp_unnamed(struct state *st, uint32_t slot) {
    struct interp *in = &st->interps[slot];
    while (in->held_count) let_go(st, in, in->held_count - 1);
    st->orphans--;
    release_slot(st, slot);
}

bool interp_unused(const struct interp *in) {
    return in->life == INTERP_LIVE && !in->declaring && !in->opened_unknown && !in->had_ref && in->held_count == 2 &&
           !in->handles.count && !in->refs.count;
}

/* An earlier broker may have died before it could tell them what it had decided: that they are in, that they are to end. */
void interps_adopted(struct state *st) {
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        const struct interp *in = &st->interps[i];
        if (in->life != INTERP_LIVE) continue;
        if (in->told_end) emit_slot(st, ACTION_TELL_END, i);
        if (!in->conn && interp_unused(in)) emit_slot(st, ACTION_SETTLE, i);
    }
}

void interp_settled(struct state *st, uint32_t slot, bool knows) {
    if (!st->interps[slot].conn) { /* cut off before it had said everything: it will come back, or die */
        if (!knows && interp_unused(&st->interps[slot])) interp_begin_end(st, slot);
        return;
    }
    if (stop_declaring(st, &st->interps[slot])) all_declared(st);
}
