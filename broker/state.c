/* SPDX-License-Identifier: MIT */
/*
 * The core's frame: which event goes where, the answer list, the accounts and
 * what a new broker adopts. The header has the model.
 */
#include "state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state_internal.h"

/* ---- the answer ---- */

struct action *emit(struct state *st, enum action_kind kind) {
    if (st->action_count == st->action_capacity) {
        st->action_capacity = st->action_capacity ? st->action_capacity * 2 : 16;
        st->actions = memory_or_die(st->actions, st->action_capacity, sizeof *st->actions);
    }
    struct action *a = &st->actions[st->action_count++];
    *a = (struct action){.kind = kind};
    return a;
}

struct action *emit_slot(struct state *st, enum action_kind kind, uint32_t slot) {
    struct action *a = emit(st, kind);
    a->slot = slot;
    return a;
}

void emit_remove(struct state *st, uint32_t number) { emit(st, ACTION_REMOVE)->number = number; }

static struct action *emit_reply(struct state *st, int status) {
    struct action *a = emit(st, ACTION_REPLY);
    a->conn = st->current.conn;
    a->reply.op = st->current.op;
    a->reply.serial = st->current.serial;
    a->reply.status = status;
    return a;
}

void answer(struct state *st, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    struct action *reply = emit_reply(st, 0);
    reply->reply.a = a;
    reply->reply.b = b;
    reply->reply.c = c;
    reply->reply.d = d;
}

void refuse(struct state *st, int status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(st->words, sizeof st->words, format, args);
    va_end(args);
    emit_reply(st, status);
}

/* ---- accounts ---- */

static struct user *user_of(struct state *st, uint32_t uid) {
    for (uint32_t i = 0; i < st->user_count; i++)
        if (st->users[i].uid == uid) return &st->users[i];
    st->users = memory_or_die(st->users, st->user_count + 1, sizeof *st->users);
    st->users[st->user_count] = (struct user){.uid = uid};
    return &st->users[st->user_count++];
}

bool afford(struct state *st, uint32_t uid, const struct state_limits *more) {
    const struct state_limits *used = &user_of(st, uid)->used;
    const struct state_limits *most = st->open && uid != st->owner ? &st->other_limits : &st->limits;
    if (more->bytes > most->bytes || used->bytes > most->bytes - more->bytes)
        refuse(st, XI_E_QUOTA,
               "%llu more bytes would pass this user's quota of %llu (%llu used); release values, or start "
               "xi-broker with a larger --quota-bytes",
               (unsigned long long)more->bytes, (unsigned long long)most->bytes, (unsigned long long)used->bytes);
    else if (used->segments + more->segments > most->segments)
        refuse(st, XI_E_QUOTA,
               "this user's quota of %u segments is used up; release values, or start xi-broker with a larger "
               "--quota-segments",
               most->segments);
    else if (used->channels + more->channels > most->channels)
        refuse(st, XI_E_QUOTA,
               "this user's quota of %u channels is used up; close some, or start xi-broker with a larger "
               "--quota-channels",
               most->channels);
    else if (used->interps + more->interps > most->interps)
        refuse(st, XI_E_QUOTA,
               "this user's quota of %u interpreters is used up; let some leave, or start xi-broker with a "
               "larger --quota-interps",
               most->interps);
    else
        return true;
    return false;
}

void charge(struct state *st, uint32_t uid, const struct state_limits *more) {
    struct state_limits *used = &user_of(st, uid)->used;
    used->bytes += more->bytes;
    used->segments += more->segments;
    used->channels += more->channels;
    used->interps += more->interps;
    st->bytes += more->bytes;
    if (st->bytes > st->bytes_peak) st->bytes_peak = st->bytes;
}

void discharge(struct state *st, uint32_t uid, const struct state_limits *less) {
    struct state_limits *used = &user_of(st, uid)->used;
    used->bytes -= less->bytes;
    used->segments -= less->segments;
    used->channels -= less->channels;
    used->interps -= less->interps;
    st->bytes -= less->bytes;
}

uint32_t take_number(struct state *st) {
    if (st->next_segment > UINT32_MAX - 4) {
        refuse(st, XI_E_LIMIT, "this namespace has used up its segment numbers; shut it down and start it afresh");
        return 0;
    }
    uint32_t number = st->next_segment;
    st->next_segment += 2;
    return number;
}

/* ---- events ---- */

static void on_connect(struct state *st, const struct event *event) {
    struct conn *conn = memory_or_die(NULL, 1, sizeof *conn);
    uint32_t *groups = event->group_count ? memory_or_die(NULL, event->group_count, sizeof *groups) : NULL;
    if (groups) memcpy(groups, event->groups, event->group_count * sizeof *groups);
    *conn = (struct conn){
        .pid = event->pid, .who = {event->uid, event->gid, groups, event->group_count}, .start = event->start};
    *table_put(&st->conns, event->conn) = (uintptr_t)conn;
}

/*
 * A closed socket says nothing about its process: the interpreter stays until that dies, or comes back. But one that
 * has done nothing but join was given up by a process that goes on (its join failed half-way): it leaves, if it does
 * not die first, nor comes back.
 */
static void conn_free(struct conn *conn) {
    free((void *)(uintptr_t)conn->who.groups);
    free(conn);
}

static void on_disconnect(struct state *st, uint64_t number) {
    struct conn *conn = conn_of(st, number);
    if (!conn) return;
    if (conn->slot) {
        struct interp *in = &st->interps[conn->slot];
        if (in->conn == number) in->conn = 0;
        if (in->leave_conn == number) in->leave_conn = 0;
    }
    uint32_t slot = conn->slot;
    table_drop(&st->conns, number);
    conn_free(conn);
    if (slot && !st->interps[slot].conn && interp_unused(&st->interps[slot])) emit_slot(st, ACTION_SETTLE, slot);
}

static void request_stats(struct state *st) {
    /* c, the blocks outstanding, lies in shared memory: whoever sends this reply adds it, and the registry's size to d
     */
    answer(st, st->live, st->chan_count, 0, st->bytes);
}

static void request_joined(struct state *st, struct interp *me, const struct xi_request *q) {
    switch (q->op) {
    case XI_OP_OPEN: request_open(st, me, q); break;
    case XI_OP_CLOSE: request_close(st, me, q); break;
    case XI_OP_ARENA: request_arena(st, me, q); break;
    case XI_OP_DROP: request_drop(st, me, q); break;
    case XI_OP_BORROWS: request_borrows(st, me, q); break;
    case XI_OP_SEGMENT: request_segment(st, me, q); break;
    case XI_OP_ACKS: request_acks(st, me, q); break;
    case XI_OP_RING: request_ring(st, me, q); break;
    case XI_OP_RING_DROP: request_ring_drop(st, me, q); break;
    case XI_OP_REF: request_ref(st, me, q); break;
    case XI_OP_UNREF: request_unref(st, me, q); break;
    default: refuse(st, XI_E_INVAL, "this broker knows no request %u; is it of an older version?", q->op);
    }
}

static void on_request(struct state *st, const struct event *event) {
    const struct xi_request *q = event->request;
    struct conn *conn = conn_of(st, event->conn);
    if (!conn) return;
    st->current.conn = event->conn;
    st->current.serial = q->serial;
    st->current.op = q->op;
    if (st->shutdown) {
        refuse(st, XI_E_BROKER, "the namespace is being shut down; join again to start it afresh");
        return;
    }
    struct interp *me = conn->slot ? &st->interps[conn->slot] : NULL;
    if (q->op == XI_OP_STATS) {
        request_stats(st);
    } else if (q->op == XI_OP_OBSERVE) {
        request_observe(st, conn, q);
    } else if (q->op == XI_OP_SHUTDOWN && !access_to_shutdown(st, conn->who.uid)) {
        refuse(st, XI_E_ACCESS, "this namespace belongs to user %u: nobody else shuts it down", st->owner);
    } else if (q->op == XI_OP_SHUTDOWN) {
        answer(st, 0, 0, 0, 0);
        st->shutdown = true;
        emit(st, ACTION_SHUTDOWN);
    } else if (q->op == XI_OP_REMOVE) {
        request_remove(st, conn, q);
    } else if (q->op == XI_OP_JOIN) {
        request_join(st, conn, q);
    } else if (!me) {
        refuse(st, XI_E_INVAL, "this connection has not joined: send a JOIN first");
    } else if (me->life != INTERP_LIVE) {
        refuse(st, XI_E_LEFT, "interpreter %lld has left", (long long)me->id);
    } else if (q->op == XI_OP_LEAVE) {
        request_leave(st, conn);
    } else {
        request_joined(st, me, q);
    }
}

/* The action that was to make something for the current request failed: take the decision back, and say so. */
static void on_failed(struct state *st, const struct event *event) {
    if (st->current.made) {
        if (st->current.op == XI_OP_JOIN)
            interp_undo_join(st);
        else if (st->current.op == XI_OP_OPEN)
            channel_undo_open(st);
        else if (st->current.op == XI_OP_ACKS || st->current.op == XI_OP_RING)
            part_undo(st);
        else
            segment_undo(st);
    }
    refuse(st, event->status, "%s", event->text);
    st->current.made = false;
}

static bool is_slot(const struct state *st, const struct event *event, enum interp_life life) {
    return event->slot && event->slot < XI_MAX_INTERPS && st->interps[event->slot].life == life &&
           st->interps[event->slot].id == event->id;
}

void state_step(struct state *st, const struct event *event) {
    st->action_count = 0;
    if (event->kind != EVENT_FAILED) memset(&st->current, 0, sizeof st->current);
    switch (event->kind) {
    case EVENT_CONNECT: on_connect(st, event); break;
    case EVENT_DISCONNECT: on_disconnect(st, event->conn); break;
    case EVENT_REQUEST: on_request(st, event); break;
    case EVENT_FAILED: on_failed(st, event); break;
    case EVENT_DEATH:
        if (is_slot(st, event, INTERP_LIVE)) interp_begin_end(st, event->slot);
        break;
    case EVENT_REPAIRED:
        if (is_slot(st, event, INTERP_DYING)) interp_repaired(st, event->slot);
        break;
    case EVENT_UNNAMED:
        if (is_slot(st, event, INTERP_ORPHAN)) interp_unnamed(st, event->slot);
        break;
    case EVENT_EMPTY: channel_empty(st, event->channel); break;
    case EVENT_PART_UNUSED: part_unused(st, event->channel, event->number); break;
    case EVENT_ENDED: channel_ended(st, event->channel); break;
    case EVENT_SETTLED:
        if (is_slot(st, event, INTERP_LIVE)) interp_settled(st, event->slot, event->number != 0);
        break;
    case EVENT_ADOPTED:
        channels_end(st);
        parts_ask_all(st);
        interps_adopted(st);
        if (!st->declaring) channels_check(st);
        break;
    case EVENT_SHUTDOWN:
        if (!st->shutdown) emit(st, ACTION_SHUTDOWN);
        st->shutdown = true;
        break;
    }
}

/* ---- beginning, adoption, end ---- */

void state_init(struct state *st, const struct state_limits *limits, uint64_t seed) {
    *st = (struct state){.limits = *limits, .seed = seed, .next_id = 1, .next_channel = 1, .next_segment = 2};
    st->interps = memory_or_die(NULL, XI_MAX_INTERPS, sizeof *st->interps);
    memset(st->interps, 0, XI_MAX_INTERPS * sizeof *st->interps);
}

static void interp_free_tables(struct interp *in) {
    table_clear(&in->handles);
    table_clear(&in->opened);
    table_clear(&in->refs);
    free(in->held);
}

void state_deinit(struct state *st) {
    for (uint32_t i = 0; i < XI_MAX_INTERPS; i++) interp_free_tables(&st->interps[i]);
    uint64_t key, value;
    for (uint32_t at = 0; table_next(&st->conns, &at, &key, &value);) conn_free((struct conn *)(uintptr_t)value);
    table_clear(&st->ids);
    table_clear(&st->chan_ids);
    table_clear(&st->segments);
    table_clear(&st->conns);
    for (uint32_t i = 0; i < st->chan_capacity; i++) free(st->chans[i].parts);
    free(st->interps);
    free(st->chans);
    free(st->buckets);
    free(st->users);
    free(st->actions);
    *st = (struct state){0};
}

void state_open(struct state *st, uint32_t owner, const struct state_limits *others) {
    st->open = true;
    st->owner = owner;
    st->other_limits = *others;
}

void state_adopt_counters(struct state *st, int64_t next_id, uint32_t next_segment, uint64_t next_channel) {
    st->next_id = next_id;
    st->next_segment = next_segment;
    st->next_channel = next_channel;
}

void state_adopt_interp(struct state *st, const struct adopted_interp *found) {
    struct interp *in = &st->interps[found->slot];
    *in = (struct interp){.life = found->orphan ? INTERP_ORPHAN : INTERP_LIVE,
                          .id = found->id,
                          .pid = found->pid,
                          .uid = found->uid,
                          .start = found->start,
                          .flags = found->flags,
                          .published = found->refcount,
                          .had_ref = found->refcount > 0,
                          .told_end = found->told_end,
                          .used = found->used,
                          .declaring = !found->orphan && found->used,
                          .opened_unknown = found->used || found->orphan};
    charge(st, found->uid, &(struct state_limits){.interps = 1});
    if (found->orphan) {
        st->orphans++;
    } else {
        st->live++;
        st->declaring += in->declaring;
        *table_put(&st->ids, (uint64_t)found->id) = found->slot;
    }
}

void state_adopt_segment(struct state *st, uint32_t slot, const struct held *held) {
    hold(st, &st->interps[slot], held);
}

void state_adopt_channel(struct state *st, uint32_t index, const struct chan *found) {
    channels_reserve(st, index);
    struct chan *ch = &st->chans[index];
    *ch = *found;
    ch->handles = ch->producers = ch->consumers = 0;
    *table_put(&st->chan_ids, ch->id) = index;
    *table_put(&st->segments, ch->segment) = SEGMENT_VALUE(XI_SEG_CHANNEL, index);
    charge(st, ch->uid, &(struct state_limits){.bytes = XI_RING_OFFSET + ch->capacity, .segments = 1, .channels = 1});
    st->chan_count++;
}

void state_adopt_opened(struct state *st, uint32_t slot, uint32_t index, uint32_t rights) {
    *table_put(&st->interps[slot].opened, st->chans[index].id) |= rights;
}
void state_adopt_part(struct state *st, uint32_t index, const struct part *found) { part_hold(st, index, found); }

void state_adopt_done(struct state *st) { channels_rebuild(st); }

int64_t state_channel_index(const struct state *st, uint64_t id) {
    uint64_t *found = table_find(&st->chan_ids, id);
    return found ? (int64_t)*found : -1;
}

uint64_t state_arena_bytes(const struct interp *in) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < in->held_count; i++)
        if (in->held[i].kind == XI_SEG_ARENA) sum += in->held[i].bytes;
    return sum;
}
