/* SPDX-License-Identifier: MIT */
/*
 * A pretended world for the broker's core, in which random players make requests,
 * die, disconnect and fail; and a second bookkeeping, kept here from the answers
 * alone, that must agree with the core's own.
 */
#ifndef XI_TESTS_BROKER_SIM_H
#define XI_TESTS_BROKER_SIM_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"
#include "xidata.h"

enum { CONNS = 24, NAMES = 12, STEPS = 4000 };

/* ---- the pretended world ---- */

struct sim {
    struct state st;
    uint64_t rng;
    uint64_t next_conn, conns[CONNS];
    struct table open;    /* conn to 1: connections the broker has not dropped */
    struct table made;    /* segments that exist */
    struct table refs;    /* holder id << 32 | target id, to count, by the answers */
    struct table handles; /* holder id << 32 | channel id << 2 | kind */
    struct table peers;   /* channel id to producers << 32 | consumers, as its members see it */
    struct table ending;  /* channel id to 1: removed by name, and its groups have yet to end */
    struct table removed; /* channel id to 1: removed by name */
    struct table holds;   /* channel id to 1: has undelivered values */
    struct table asked;   /* channel id to 1: the core asked whether it is empty */
    struct table parts;   /* segment to channel id */
    struct table settle;  /* slot to id: to be told that it has settled */
    struct table ended;   /* ids told to end */
    int64_t largest_id;
    uint64_t largest_channel;
    uint32_t serial;
    bool failing; /* inject failures */
    uint32_t removed_channels, removed_by_name, failures, collected, rejoined, told, parts_asked, parts_dropped;
};

static uint64_t draw(struct sim *s, uint64_t n) {
    s->rng ^= s->rng << 13;
    s->rng ^= s->rng >> 7;
    s->rng ^= s->rng << 17;
    return s->rng % n;
}

static bool can_fail(const struct action *a) {
    switch (a->kind) {
    case ACTION_MAKE_INTERP:
    case ACTION_MAKE_CHANNEL:
    case ACTION_MAKE_ARENA:
    case ACTION_MAKE_BORROWS:
    case ACTION_MAKE_PART:
    case ACTION_WATCH: return true;
    case ACTION_REPLY:
        return a->reply.status == 0 &&
               (a->reply.op == XI_OP_JOIN || a->reply.op == XI_OP_OPEN || a->reply.op == XI_OP_ARENA ||
                a->reply.op == XI_OP_BORROWS || a->reply.op == XI_OP_SEGMENT || a->reply.op == XI_OP_ACKS || a->reply.op == XI_OP_RING);
    default: return false;
    }
}

static uint64_t pair(int64_t holder, uint64_t other) { return (uint64_t)holder << 32 | other; }

/* A handle's kind as the flags of its OPEN and CLOSE say it. */
static uint64_t kind_of(uint64_t flags) { return flags & (XI_OPEN_SEND | XI_OPEN_RECV); }
static uint64_t handle(int64_t holder, uint64_t channel, uint64_t flags) {
    return pair(holder, channel << 2 | kind_of(flags));
}

static void forget_holder(struct table *t, int64_t id) {
    uint64_t key, value;
    for (uint32_t at = 0; table_next(t, &at, &key, &value);)
        if ((int64_t)(key >> 32) == id) {
            table_drop(t, key);
            at = 0;
        }
}

static void forget_target(struct table *t, uint64_t target) {
    uint64_t key, value;
    for (uint32_t at = 0; table_next(t, &at, &key, &value);)
        if ((key & 0xffffffff) == target) {
            table_drop(t, key);
            at = 0;
        }
}

static void exists(struct sim *s, uint32_t number) {
    ck_assert_msg(!table_find(&s->made, number), "segment %u made twice", number);
    *table_put(&s->made, number) = 1;
}

/* What a granted request means for the second bookkeeping. `me`: the requester's id. */
static void granted(struct sim *s, const struct action *a, const struct xi_request *q, int64_t me) {
    switch (a->reply.op) {
    case XI_OP_JOIN:
        if (q->b) {
            ck_assert_uint_eq(a->reply.a, q->b);
            s->rejoined++;
        } else {
            ck_assert_msg((int64_t)a->reply.a > s->largest_id, "an id was used twice");
            s->largest_id = (int64_t)a->reply.a;
        }
        break;
    case XI_OP_OPEN:
        ck_assert_uint_ge(a->reply.d, XI_CAPACITY_MIN);
        if (a->reply.a > s->largest_channel) s->largest_channel = a->reply.a;
        ++*table_put(&s->handles, handle(me, a->reply.a, q->c));
        break;
    case XI_OP_CLOSE: {
        uint64_t *n = table_find(&s->handles, handle(me, q->a, q->c));
        ck_assert_msg(n && *n, "closed a handle that was not open");
        if (--*n == 0) table_drop(&s->handles, handle(me, q->a, q->c));
        break;
    }
    case XI_OP_REF: ++*table_put(&s->refs, pair(me, q->a)); break;
    case XI_OP_UNREF: {
        uint64_t *n = table_find(&s->refs, pair(me, q->a));
        ck_assert_msg(n && *n, "dropped a reference that was not held");
        if (--*n == 0) table_drop(&s->refs, pair(me, q->a));
        break;
    }
    }
}

static void tell(struct sim *s, uint32_t index) {
    const struct chan *ch = &s->st.chans[index];
    *table_put(&s->peers, ch->id) = (uint64_t)ch->told_producers << 32 | ch->told_consumers;
}

static void perform(struct sim *s, const struct action *a) {
    switch (a->kind) {
    case ACTION_TELL_PEERS: tell(s, a->index); break;
    case ACTION_END_CHANNEL:
        *table_put(&s->ending, a->channel) = 1;
        *table_put(&s->removed, a->channel) = 1;
        s->removed_by_name++;
        break;
    case ACTION_MAKE_INTERP:
        exists(s, s->st.interps[a->slot].held[0].number);
        exists(s, s->st.interps[a->slot].held[1].number);
        break;
    case ACTION_MAKE_ARENA:
        exists(s, a->number);
        exists(s, a->number + 1);
        break;
    case ACTION_MAKE_PART:
        *table_put(&s->parts, a->number) = s->st.chans[a->index].id;
        exists(s, a->number);
        break;
    case ACTION_MAKE_CHANNEL:
        exists(s, a->number);
        tell(s, a->index);
        break;
    case ACTION_MAKE_BORROWS: exists(s, a->number); break;
    case ACTION_REMOVE:
        table_drop(&s->made, a->number);
        table_drop(&s->parts, a->number);
        break;
    case ACTION_CLEAR_CHANNEL:
        ck_assert_msg(!table_find(&s->holds, a->channel) || table_find(&s->removed, a->channel),
                      "a channel with undelivered values was removed");
        ck_assert_msg(!table_find(&s->ending, a->channel), "a channel went before its groups had ended");
        table_drop(&s->asked, a->channel);
        table_drop(&s->peers, a->channel);
        table_drop(&s->removed, a->channel);
        s->removed_channels++;
        break;
    case ACTION_CHECK: *table_put(&s->asked, a->channel) = 1; break;
    case ACTION_CHECK_PARTS: s->parts_asked++; break;
    case ACTION_SETTLE: *table_put(&s->settle, a->slot) = (uint64_t)s->st.interps[a->slot].id; break;
    case ACTION_UNWATCH: table_drop(&s->settle, a->slot); break;
    case ACTION_TELL_END: {
        uint64_t id = (uint64_t)s->st.interps[a->slot].id;
        ck_assert_msg(!table_find(&s->ended, id), "told twice to end");
        *table_put(&s->ended, id) = 1;
        s->told++;
        break;
    }
    case ACTION_REPAIR: {
        int64_t id = s->st.interps[a->slot].id;
        forget_holder(&s->refs, id);
        forget_target(&s->refs, (uint64_t)id);
        break;
    }
    default: break;
    }
}

static void feed(struct sim *s, const struct event *event);

/* A connection the core wants closed: its end is an event, as in the broker. */
static void dropped(struct sim *s, uint64_t conn) {
    if (table_drop(&s->open, conn)) feed(s, &(struct event){.kind = EVENT_DISCONNECT, .conn = conn});
}

static void check_books(struct sim *s) {
    const char *why = "";
    ck_assert_msg(state_is_valid(&s->st, &why), "%s", why);
    ck_assert_msg(s->made.count == s->st.segments.count, "%u segments exist, the core knows %u", s->made.count,
                  s->st.segments.count);
    uint64_t key, value;
    for (uint32_t at = 0; table_next(&s->st.segments, &at, &key, &value);)
        ck_assert_msg(table_find(&s->made, key), "the core knows a segment that does not exist");
    uint64_t refs = 0, handles = 0;
    for (uint32_t at = 0; table_next(&s->refs, &at, &key, &value);) refs += value;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++)
        if (s->st.interps[i].life == INTERP_LIVE) refs -= s->st.interps[i].refcount;
    ck_assert_msg(refs == 0, "references granted and counted differ");
    for (uint32_t at = 0; table_next(&s->handles, &at, &key, &value);) handles += value;
    for (uint32_t i = 0; i < s->st.chan_capacity; i++)
        if (s->st.chans[i].id) handles -= s->st.chans[i].handles;
    ck_assert_msg(handles == 0, "handles granted and counted differ");
    for (uint32_t i = 0; i < s->st.chan_capacity; i++) {
        const struct chan *ch = &s->st.chans[i];
        const uint64_t *told = ch->id ? table_find(&s->peers, ch->id) : NULL;
        ck_assert_msg(!ch->id || (told && *told == ((uint64_t)ch->told_producers << 32 | ch->told_consumers)),
                      "members were not told what the core believes them to know");
    }
}

static int64_t id_of(struct sim *s, uint64_t conn) {
    uint64_t *found = table_find(&s->st.conns, conn);
    const struct conn *c = found ? (const struct conn *)(uintptr_t)*found : NULL;
    return c && c->slot ? s->st.interps[c->slot].id : 0;
}

static void feed(struct sim *s, const struct event *event) {
    int64_t me = event->kind == EVENT_REQUEST ? id_of(s, event->conn) : 0;
    uint64_t drops[64];
    unsigned drop_count = 0;
    state_step(&s->st, event);
    uint32_t n = s->st.action_count;
    struct action *list = memory_or_die(NULL, n + 1u, sizeof *list);
    if (n) memcpy(list, s->st.actions, n * sizeof *list);
    bool failed = false;
    for (uint32_t i = 0; i < n && !failed; i++) {
        const struct action *a = &list[i];
        failed = s->failing && can_fail(a) && draw(s, 12) == 0;
        if (failed && a->kind == ACTION_MAKE_INTERP && draw(s, 2)) exists(s, s->st.interps[a->slot].held[0].number);
        if (failed) break;
        perform(s, a);
        if (a->kind == ACTION_DROP) drops[drop_count++] = a->conn;
        if (a->kind != ACTION_REPLY) continue;
        ck_assert_int_le(a->reply.status, 0);
        if (a->reply.status)
            ck_assert_msg(s->st.words[0], "refused without a word");
        else if (event->kind == EVENT_REQUEST)
            granted(s, a, event->request, me);
    }
    free(list);
    if (failed) {
        s->failures++;
        state_step(&s->st, &(struct event){.kind = EVENT_FAILED, .status = XI_E_NOSPACE, .text = "/dev/shm is full"});
        for (uint32_t i = 0; i < s->st.action_count; i++) {
            ck_assert_msg(!can_fail(&s->st.actions[i]), "taking a decision back can fail");
            perform(s, &s->st.actions[i]);
        }
    }
    for (unsigned i = 0; i < drop_count; i++) dropped(s, drops[i]);
}

/* ---- the players ---- */

static void connect_one(struct sim *s, unsigned k) {
    uint64_t conn = s->conns[k] = ++s->next_conn;
    *table_put(&s->open, conn) = 1;
    unsigned pid = 100 + k / 2; /* two connections a process */
    feed(s,
         &(struct event){
             .kind = EVENT_CONNECT, .conn = conn, .uid = k % 5 == 0 ? 2000 : 1000, .pid = (int)pid, .start = pid * 7});
}

static struct xi_request request(struct sim *s, enum xi_op op) {
    struct xi_request q = {
        .magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .op = (uint16_t)op, .serial = ++s->serial};
    return q;
}

static void ask(struct sim *s, uint64_t conn, const struct xi_request *q) {
    feed(s, &(struct event){.kind = EVENT_REQUEST, .conn = conn, .request = q});
}

static uint64_t any_key(struct sim *s, const struct table *t) {
    uint64_t key = 0, value;
    if (!t->count) return 0;
    uint32_t at = (uint32_t)draw(s, t->mask + 1u);
    if (!table_next(t, &at, &key, &value)) {
        at = 0;
        table_next(t, &at, &key, &value);
    }
    return key;
}

/* A channel that `me` has open, as a rule. */
static uint64_t any_open_channel(struct sim *s, int64_t me) {
    uint64_t some = any_key(s, &s->handles);
    for (int i = 0; i < 8 && (int64_t)(some >> 32) != me; i++) some = any_key(s, &s->handles);
    return draw(s, 8) ? (some & 0xffffffff) >> 2 : any_key(s, &s->st.chan_ids);
}

static void random_request(struct sim *s, uint64_t conn) {
    static const enum xi_op often[] = {XI_OP_JOIN,  XI_OP_JOIN,  XI_OP_LEAVE, XI_OP_OPEN,  XI_OP_OPEN,    XI_OP_OPEN,
                                       XI_OP_CLOSE, XI_OP_CLOSE, XI_OP_ARENA, XI_OP_DROP,  XI_OP_BORROWS, XI_OP_SEGMENT,
                                       XI_OP_REF,   XI_OP_REF,   XI_OP_UNREF, XI_OP_UNREF, XI_OP_STATS, XI_OP_ACKS,
                                       XI_OP_ACKS,  XI_OP_ACKS,  XI_OP_ACKS,
                                       XI_OP_ACKS,  XI_OP_RING,  XI_OP_RING,  XI_OP_RING_DROP,
                                       XI_OP_RING_DROP, XI_OP_JOIN, XI_OP_OPEN, XI_OP_OPEN, XI_OP_OPEN, XI_OP_REMOVE};
    struct xi_request q = request(s, often[draw(s, sizeof often / sizeof often[0])]);
    int64_t me = id_of(s, conn);
    switch (q.op) {
    case XI_OP_JOIN:
        snprintf(q.name, sizeof q.name, "player");
        snprintf(q.text, sizeof q.text, draw(s, 20) ? "c" : "\x01");
        q.a = draw(s, 2) ? XI_JOIN_REQUIRES_REF : 0;
        q.b = draw(s, 4) ? 0 : any_key(s, &s->st.ids);
        if (q.b && table_find(&s->st.ids, q.b)) { /* it says anew what it holds */
            uint64_t *found = table_find(&s->st.conns, conn);
            const struct conn *c = (const struct conn *)(uintptr_t)*found;
            const struct interp *in = &s->st.interps[*table_find(&s->st.ids, q.b)];
            if (!c->slot && in->pid == c->pid && in->uid == c->who.uid && q.text[0] == 'c') {
                forget_holder(&s->handles, in->id);
                forget_holder(&s->refs, in->id);
            }
        }
        break;
    case XI_OP_OPEN:
        snprintf(q.name, sizeof q.name, "channel %u", (unsigned)draw(s, NAMES));
        q.a = draw(s, 3);
        q.b = draw(s, 3) * 5000;
        q.e = draw(s, 3) ? (uint64_t)32768 << draw(s, 8) : 0;
        q.c = draw(s, 6) == 0 ? XI_OPEN_EXISTING : draw(s, 6) == 0 ? XI_WIRE_ADOPT : 0;
        q.c |= draw(s, 3); /* to do both, to send, to receive */
        if (q.c & XI_WIRE_ADOPT) q.b = draw(s, 2) ? any_key(s, &s->st.chan_ids) : draw(s, 2) ? UINT64_MAX : 0;
        break;
    case XI_OP_REMOVE: snprintf(q.name, sizeof q.name, "channel %u", (unsigned)draw(s, NAMES)); break;
    case XI_OP_CLOSE:
        q.a = any_key(s, &s->handles) & 0xffffffff;
        q.c = q.a & 3;
        q.a >>= 2;
        break;
    case XI_OP_ARENA: q.a = draw(s, 3) ? draw(s, 1 << 20) : draw(s, UINT64_MAX); break;
    case XI_OP_DROP: q.a = any_key(s, &s->made); break;
    case XI_OP_BORROWS: q.a = draw(s, 40000); break;
    case XI_OP_SEGMENT: q.a = any_key(s, &s->made); break;
    case XI_OP_ACKS:
        q.a = any_open_channel(s, me);
        q.b = draw(s, XI_MAX_GROUPS + 2);
        q.c = draw(s, 8) ? (uint64_t)1 << draw(s, 18) : draw(s, 100);
        break;
    case XI_OP_RING:
        q.a = any_open_channel(s, me);
        q.b = draw(s, 8) ? (uint64_t)1 << (12 + draw(s, 14)) : draw(s, UINT64_MAX);
        break;
    case XI_OP_RING_DROP: q.a = any_open_channel(s, me); break;
    case XI_OP_REF:
    case XI_OP_UNREF:
        q.a = draw(s, 10) ? any_key(s, &s->st.ids) : draw(s, 100);
        q.c = draw(s, 5) ? 0 : XI_WIRE_ADOPT;
        break;
    default: break;
    }
    ask(s, conn, &q);
}

static uint32_t any_slot(struct sim *s, enum interp_life life) {
    uint32_t from = (uint32_t)draw(s, XI_MAX_INTERPS);
    for (uint32_t n = 0; n < XI_MAX_INTERPS; n++) {
        uint32_t slot = (from + n) % XI_MAX_INTERPS;
        if (slot && s->st.interps[slot].life == life) return slot;
    }
    return 0;
}

static void about_slot(struct sim *s, enum event_kind kind, enum interp_life life) {
    uint32_t slot = any_slot(s, life);
    if (!slot) return;
    int64_t id = s->st.interps[slot].id;
    if (kind == EVENT_REPAIRED) forget_holder(&s->handles, id);
    s->collected += kind == EVENT_UNNAMED;
    feed(s, &(struct event){.kind = kind, .slot = slot, .id = id});
}

static void answer_check(struct sim *s) {
    uint64_t id = any_key(s, &s->asked);
    if (!id) return;
    table_drop(&s->asked, id);
    if (!table_find(&s->holds, id)) feed(s, &(struct event){.kind = EVENT_EMPTY, .channel = id});
}

/* True for a ring that its maker is about to use: the world leaves that alone. */
static bool is_being_filled(struct sim *s, uint64_t channel, uint64_t number) {
    const struct chan *ch = &s->st.chans[state_channel_index(&s->st, channel)];
    for (uint32_t i = 0; i < ch->part_count; i++)
        if (ch->parts[i].number == number) return ch->parts[i].filling;
    return false;
}

/* A part that the world found unused, whoever asked. */
static void drop_part(struct sim *s) {
    uint64_t number = any_key(s, &s->parts);
    if (!number) return;
    uint64_t channel = *table_find(&s->parts, number);
    if (is_being_filled(s, channel, number)) return;
    feed(s, &(struct event){.kind = EVENT_PART_UNUSED, .channel = channel, .number = (uint32_t)number});
    ck_assert_msg(!table_find(&s->made, number), "an unused part was not removed");
    s->parts_dropped++;
}

static void change_contents(struct sim *s) {
    uint64_t id = any_key(s, &s->st.chan_ids);
    if (!id) return;
    if (s->st.chans[state_channel_index(&s->st, id)].handles == 0) return; /* nobody could */
    if (!table_drop(&s->holds, id)) *table_put(&s->holds, id) = 1;
}

static void end_one(struct sim *s) {
    uint64_t id = any_key(s, &s->ending);
    if (!id) return;
    table_drop(&s->ending, id);
    feed(s, &(struct event){.kind = EVENT_ENDED, .channel = id});
}

static void settle_one(struct sim *s) {
    uint32_t slot = (uint32_t)any_key(s, &s->settle);
    if (!slot) return;
    int64_t id = (int64_t)*table_find(&s->settle, slot);
    table_drop(&s->settle, slot);
    feed(s, &(struct event){.kind = EVENT_SETTLED, .slot = slot, .id = id});
}

static void play(struct sim *s) {
    unsigned k = (unsigned)draw(s, CONNS);
    uint64_t conn = s->conns[k];
    switch (draw(s, 26)) {
    case 0:
        if (table_find(&s->open, conn)) dropped(s, conn);
        break;
    case 1: about_slot(s, EVENT_DEATH, INTERP_LIVE); break;
    case 2:
    case 3: about_slot(s, EVENT_REPAIRED, INTERP_DYING); break;
    case 4: about_slot(s, EVENT_UNNAMED, INTERP_ORPHAN); break;
    case 5:
    case 6: answer_check(s); break;
    case 7: change_contents(s); break;
    case 8:
    case 9: settle_one(s); break;
    case 10:
        for (int i = 0; i < 3; i++) drop_part(s);
        break;
    case 11: end_one(s); break;
    default:
        if (!table_find(&s->open, conn))
            connect_one(s, k);
        else
            random_request(s, conn);
    }
}

static void sim_init(struct sim *s, uint64_t seed, const struct state_limits *limits) {
    *s = (struct sim){.rng = seed * 0x9e3779b97f4a7c15ull | 1, .failing = seed % 2};
    state_init(&s->st, limits, seed);
}

/* Everybody dies, everything is repaired, nothing is named: nothing may be left. */
static void sim_end(struct sim *s) {
    for (unsigned k = 0; k < CONNS; k++)
        if (table_find(&s->open, s->conns[k])) dropped(s, s->conns[k]);
    while (any_slot(s, INTERP_LIVE)) about_slot(s, EVENT_DEATH, INTERP_LIVE);
    while (any_slot(s, INTERP_DYING)) about_slot(s, EVENT_REPAIRED, INTERP_DYING);
    while (any_slot(s, INTERP_ORPHAN)) about_slot(s, EVENT_UNNAMED, INTERP_ORPHAN);
    table_clear(&s->holds);
    feed(s, &(struct event){.kind = EVENT_ADOPTED});
    while (s->ending.count) end_one(s);
    while (s->asked.count) answer_check(s);
    check_books(s);
    ck_assert_uint_eq(s->made.count, 0);
    ck_assert_uint_eq(s->st.bytes, 0);
    ck_assert_uint_eq(s->st.chan_count, 0);
    ck_assert_uint_eq(s->st.conns.count, 0);
    for (uint32_t i = 0; i < s->st.user_count; i++)
        ck_assert_uint_eq(s->st.users[i].used.interps + s->st.users[i].used.segments + s->st.users[i].used.channels, 0);
    struct table *all[] = {&s->open,  &s->made,   &s->refs,  &s->handles, &s->holds,  &s->asked,
                           &s->parts, &s->settle, &s->ended, &s->peers,   &s->ending, &s->removed};
    for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++) table_clear(all[i]);
    state_deinit(&s->st);
}

#endif
