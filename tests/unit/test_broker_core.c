/* SPDX-License-Identifier: MIT */
/*
 * The broker's decisions, replayed: random orders of requests, deaths,
 * disconnections and failures from a seed, carried out on a pretended world.
 * After every event the core's own invariants are recomputed, and a second
 * bookkeeping, kept here from the answers alone, must agree with it.
 *
 * XI_SEED=n replays one run.
 */
#include "broker_sim.h"
#include "wire/names.h"

static void replay(uint64_t seed, struct sim *total) {
    static struct sim s;
    struct state_limits limits = STATE_LIMITS_DEFAULT;
    if (seed % 3 == 0) limits = (struct state_limits){.bytes = 3 << 20, .segments = 40, .channels = 6, .interps = 8};
    sim_init(&s, seed, &limits);
    for (int i = 0; i < STEPS; i++) {
        play(&s);
        if (i % 8 == 0) check_books(&s);
    }
    total->removed_channels += s.removed_channels;
    total->removed_by_name += s.removed_by_name;
    total->failures += s.failures;
    total->collected += s.collected;
    total->rejoined += s.rejoined;
    total->told += s.told;
    total->parts_asked += s.parts_asked;
    total->parts_dropped += s.parts_dropped;
    sim_end(&s);
}

START_TEST(test_random_orders) {
    static struct sim total;
    const char *one = getenv("XI_SEED");
    if (one) {
        replay(strtoull(one, NULL, 10), &total);
        return;
    }
    for (uint64_t seed = 1; seed <= 60; seed++) replay(seed, &total);
    /* The players did play: each rare path was taken. */
    ck_assert_uint_gt(total.removed_channels, 100);
    ck_assert_uint_gt(total.removed_by_name, 100);
    ck_assert_uint_gt(total.failures, 100);
    ck_assert_uint_gt(total.parts_asked, 50);
    ck_assert_uint_gt(total.parts_dropped, 50);
    ck_assert_uint_gt(total.collected, 50);
    ck_assert_uint_gt(total.rejoined, 20);
    ck_assert_uint_gt(total.told, 50);
}
END_TEST

/* ---- single decisions ---- */

static struct sim one;

static const struct action *find_reply(uint64_t conn) {
    for (uint32_t i = 0; i < one.st.action_count; i++)
        if (one.st.actions[i].kind == ACTION_REPLY && one.st.actions[i].conn == conn) return &one.st.actions[i];
    return NULL;
}

static bool has(enum action_kind kind) {
    for (uint32_t i = 0; i < one.st.action_count; i++)
        if (one.st.actions[i].kind == kind) return true;
    return false;
}

static void plain(const struct event *event) { state_step(&one.st, event); }

/* Returns the status of the reply, or 1 when there is none yet. */
static int say(uint64_t conn, struct xi_request q) {
    plain(&(struct event){.kind = EVENT_REQUEST, .conn = conn, .request = &q});
    const struct action *a = find_reply(conn);
    return a ? a->reply.status : 1;
}

static int64_t join(uint64_t conn, uint64_t flags) {
    struct xi_request q = request(&one, XI_OP_JOIN);
    plain(&(struct event){.kind = EVENT_CONNECT, .conn = conn, .uid = 1000, .pid = (int)conn, .start = conn});
    snprintf(q.name, sizeof q.name, "one");
    snprintf(q.text, sizeof q.text, "c");
    q.a = flags;
    ck_assert_int_eq(say(conn, q), 0);
    return (int64_t)find_reply(conn)->reply.a;
}

static int refer(uint64_t conn, enum xi_op op, int64_t id) {
    struct xi_request q = request(&one, op);
    q.a = (uint64_t)id;
    return say(conn, q);
}

static uint64_t open_one(uint64_t conn, const char *name, uint64_t mode, uint64_t flags, int expect) {
    struct xi_request q = request(&one, XI_OP_OPEN);
    snprintf(q.name, sizeof q.name, "%s", name);
    q.a = mode;
    q.c = flags;
    ck_assert_int_eq(say(conn, q), expect);
    return expect ? 0 : find_reply(conn)->reply.a;
}

static void setup(void) {
    struct state_limits limits = STATE_LIMITS_DEFAULT;
    sim_init(&one, 2, &limits);
}
static void teardown(void) { state_deinit(&one.st); }

START_TEST(test_end_after_first_reference) {
    int64_t a = join(1, 0), b = join(2, XI_JOIN_REQUIRES_REF);
    ck_assert(!has(ACTION_TELL_END)); /* nobody has wanted it yet */
    ck_assert_int_eq(refer(1, XI_OP_REF, b), 0);
    ck_assert_int_eq(refer(1, XI_OP_REF, b), 0);
    ck_assert_uint_eq(find_reply(1)->reply.a, 2);
    ck_assert_int_eq(refer(1, XI_OP_UNREF, b), 0);
    ck_assert(!has(ACTION_TELL_END));
    ck_assert_int_eq(refer(1, XI_OP_UNREF, b), 0);
    ck_assert(has(ACTION_TELL_END));
    ck_assert(has(ACTION_NOTIFY));
    ck_assert_int_eq(refer(1, XI_OP_REF, b), XI_E_NOENT);
    ck_assert_int_eq(refer(2, XI_OP_UNREF, a), XI_E_NOENT);
    ck_assert_int_eq(refer(2, XI_OP_REF, 99), XI_E_NOENT);
}
END_TEST

START_TEST(test_death_drops_references) {
    join(1, 0);
    int64_t b = join(2, XI_JOIN_REQUIRES_REF);
    ck_assert_int_eq(refer(1, XI_OP_REF, b), 0);
    plain(&(struct event){.kind = EVENT_DEATH, .slot = 1, .id = 1});
    ck_assert(has(ACTION_TELL_END));
    ck_assert(has(ACTION_REPAIR));
}
END_TEST

static int close_one(uint64_t conn, uint64_t id, uint64_t flags) {
    struct xi_request q = request(&one, XI_OP_CLOSE);
    q.a = id;
    q.c = flags;
    return say(conn, q);
}

static const struct chan *chan_of(uint64_t id) { return &one.st.chans[state_channel_index(&one.st, id)]; }

START_TEST(test_producers_and_consumers_are_counted) {
    join(1, 0);
    join(2, 0);
    uint64_t id = open_one(1, "jobs", 0, XI_OPEN_SEND, 0);
    ck_assert(!has(ACTION_TELL_PEERS)); /* it was made with the right numbers */
    ck_assert_uint_eq(chan_of(id)->told_producers, 1);
    ck_assert_uint_eq(chan_of(id)->told_consumers, 0);
    open_one(2, "jobs", 0, 0, 0);
    ck_assert(has(ACTION_TELL_PEERS));
    ck_assert_uint_eq(chan_of(id)->told_producers, 2);
    ck_assert_uint_eq(chan_of(id)->told_consumers, 1);
    ck_assert_int_eq(close_one(2, id, XI_OPEN_RECV), XI_E_NOENT); /* it has none of that kind */
    ck_assert_int_eq(close_one(2, id, 0), 0);
    ck_assert(has(ACTION_TELL_PEERS));
    ck_assert_uint_eq(chan_of(id)->told_producers, 1);
    ck_assert_uint_eq(chan_of(id)->told_consumers, 0);
    open_one(2, "jobs", 0, XI_OPEN_RECV, 0);
    plain(&(struct event){.kind = EVENT_DEATH, .slot = 1, .id = 1});
    ck_assert_uint_eq(chan_of(id)->told_producers, 1); /* what it sent may not all be seen before it is repaired */
    plain(&(struct event){.kind = EVENT_REPAIRED, .slot = 1, .id = 1});
    ck_assert(has(ACTION_TELL_PEERS));
    ck_assert_uint_eq(chan_of(id)->told_producers, 0);
    ck_assert_uint_eq(chan_of(id)->told_consumers, 1);
}
END_TEST

START_TEST(test_nobody_is_missed_while_somebody_declares) {
    state_adopt_counters(&one.st, 10, 100, 10);
    for (uint32_t slot = 1; slot <= 2; slot++)
        state_adopt_interp(&one.st, &(struct adopted_interp){
                                        .slot = slot, .id = slot, .pid = (int)slot, .uid = 1000, .start = slot, .used = true});
    struct chan found = {.id = 3, .segment = 8, .mode = XI_QUEUE, .capacity = XI_CAPACITY_MIN, .uid = 1000, .name = "jobs",
                         .told_producers = 1, .told_consumers = 1};
    state_adopt_channel(&one.st, 0, &found);
    state_adopt_done(&one.st);
    plain(&(struct event){.kind = EVENT_ADOPTED});
    ck_assert(!has(ACTION_TELL_PEERS));
    for (uint64_t conn = 1; conn <= 2; conn++) {
        struct xi_request q = request(&one, XI_OP_JOIN);
        plain(&(struct event){.kind = EVENT_CONNECT, .conn = conn, .uid = 1000, .pid = (int)conn, .start = conn});
        snprintf(q.name, sizeof q.name, "one");
        snprintf(q.text, sizeof q.text, "c");
        q.b = conn;
        ck_assert_int_eq(say(conn, q), 0);
    }
    ck_assert_uint_eq(open_one(2, "jobs", 0, XI_WIRE_ADOPT | XI_OPEN_RECV, 0), 3);
    ck_assert(!has(ACTION_TELL_PEERS)); /* known already, and the other may have the channel open as well */
    ck_assert_uint_eq(chan_of(3)->told_producers, 1);
    plain(&(struct event){.kind = EVENT_SETTLED, .slot = 1, .id = 1});
    ck_assert(!has(ACTION_TELL_PEERS));
    plain(&(struct event){.kind = EVENT_SETTLED, .slot = 2, .id = 2});
    ck_assert(has(ACTION_TELL_PEERS)); /* all have said what they hold: nobody sends */
    ck_assert_uint_eq(chan_of(3)->told_producers, 0);
    ck_assert_uint_eq(chan_of(3)->told_consumers, 1);
}
END_TEST

START_TEST(test_removed_by_name) {
    join(1, 0);
    join(2, 0);
    uint64_t id = open_one(1, "jobs", 0, 0, 0);
    struct xi_request q = request(&one, XI_OP_REMOVE);
    snprintf(q.name, sizeof q.name, "none");
    ck_assert_int_eq(say(2, q), XI_E_NOENT);
    snprintf(q.name, sizeof q.name, "jobs");
    ck_assert_int_eq(say(2, q), 0);
    ck_assert(has(ACTION_END_CHANNEL));
    ck_assert_int_eq(say(2, q), XI_E_NOENT);
    open_one(2, "jobs", 0, XI_OPEN_EXISTING, XI_E_NOENT);
    uint64_t other = open_one(2, "jobs", XI_BROADCAST, 0, 0); /* the name is free */
    ck_assert_uint_ne(other, id);
    ck_assert_int_eq(close_one(1, id, 0), 0);
    ck_assert_msg(!has(ACTION_CHECK), "it goes before its groups have ended");
    plain(&(struct event){.kind = EVENT_ENDED, .channel = id});
    ck_assert(has(ACTION_CHECK));
    plain(&(struct event){.kind = EVENT_EMPTY, .channel = id});
    ck_assert(has(ACTION_CLEAR_CHANNEL));
    ck_assert_uint_eq(one.st.chan_count, 1);
    ck_assert_int_eq(state_channel_index(&one.st, id), -1);
    ck_assert_uint_eq(open_one(1, "jobs", 0, XI_OPEN_EXISTING, 0), other);
    q.a = id;
    ck_assert_int_eq(say(2, q), XI_E_NOENT); /* asked once more: the other is not meant */
    ck_assert_uint_eq(open_one(1, "jobs", 0, XI_OPEN_EXISTING, 0), other);
    q.a = other;
    ck_assert_int_eq(say(2, q), 0);
}
END_TEST

START_TEST(test_channel_lives_until_empty_and_repaired) {
    join(1, 0);
    join(2, 0);
    uint64_t id = open_one(1, "jobs", 0, 0, 0);
    ck_assert_uint_eq(open_one(2, "jobs", XI_QUEUE, 0, 0), id);
    open_one(2, "jobs", XI_BROADCAST, 0, XI_E_MISMATCH);
    open_one(2, "none", 0, XI_OPEN_EXISTING, XI_E_NOENT);
    plain(&(struct event){.kind = EVENT_DEATH, .slot = 1, .id = 1});
    struct xi_request q = request(&one, XI_OP_CLOSE);
    q.a = id;
    ck_assert_int_eq(say(2, q), 0);
    ck_assert_msg(!has(ACTION_CHECK), "asked before the dead one's state is repaired");
    ck_assert_int_eq(say(2, q), XI_E_NOENT);
    plain(&(struct event){.kind = EVENT_REPAIRED, .slot = 1, .id = 1});
    ck_assert(has(ACTION_CHECK));
    ck_assert_uint_eq(one.st.chan_count, 1);
    plain(&(struct event){.kind = EVENT_EMPTY, .channel = id});
    ck_assert_uint_eq(one.st.chan_count, 0);
}
END_TEST

START_TEST(test_leave_answers_when_repaired) {
    join(1, 0);
    ck_assert_int_eq(say(1, request(&one, XI_OP_LEAVE)), 1);
    ck_assert_int_eq(say(1, request(&one, XI_OP_ARENA)), XI_E_LEFT);
    plain(&(struct event){.kind = EVENT_REPAIRED, .slot = 1, .id = 1});
    ck_assert_ptr_nonnull(find_reply(1));
    ck_assert_int_eq(find_reply(1)->reply.op, XI_OP_LEAVE);
    ck_assert_int_eq(say(1, request(&one, XI_OP_ARENA)), XI_E_INVAL); /* has not joined */
}
END_TEST

START_TEST(test_disconnected_keeps_what_it_holds) {
    int64_t a = join(1, 0), b = join(2, XI_JOIN_REQUIRES_REF);
    uint64_t id = open_one(1, "jobs", 0, 0, 0);
    ck_assert_int_eq(refer(1, XI_OP_REF, b), 0);
    plain(&(struct event){.kind = EVENT_DISCONNECT, .conn = 1});
    ck_assert_int_eq(one.st.interps[1].life, INTERP_LIVE);
    ck_assert_uint_eq(one.st.chans[0].handles, 1);
    /* It comes back from the same process, and says anew what it holds. */
    struct xi_request q = request(&one, XI_OP_JOIN);
    snprintf(q.name, sizeof q.name, "one");
    snprintf(q.text, sizeof q.text, "c");
    q.b = (uint64_t)a;
    plain(&(struct event){.kind = EVENT_CONNECT, .conn = 3, .uid = 1000, .pid = 7, .start = 7});
    ck_assert_int_eq(say(3, q), XI_E_NOENT); /* another process */
    plain(&(struct event){.kind = EVENT_CONNECT, .conn = 4, .uid = 1000, .pid = 1, .start = 1});
    ck_assert_int_eq(say(4, q), 0);
    ck_assert_int_eq(find_reply(4)->reply.a, a);
    ck_assert_msg(!has(ACTION_TELL_END) && !has(ACTION_CHECK), "judged before it has said anything");
    ck_assert_uint_eq(open_one(4, "jobs", 0, XI_WIRE_ADOPT, 0), id);
    plain(&(struct event){.kind = EVENT_SETTLED, .slot = 1, .id = a});
    ck_assert(has(ACTION_TELL_END)); /* the reference was not declared again */
    ck_assert_uint_eq(one.st.chans[0].handles, 1);
}
END_TEST

START_TEST(test_unused_join_is_forgotten) {
    join(1, 0);
    plain(&(struct event){.kind = EVENT_DISCONNECT, .conn = 1});
    ck_assert(has(ACTION_SETTLE));
    plain(&(struct event){.kind = EVENT_SETTLED, .slot = 1, .id = 1});
    ck_assert(has(ACTION_REPAIR));
}
END_TEST

/* A namespace of 1 (alive, had things open), 2 (alive, wanted, never did anything), 3 (an orphan), and a channel. */
static void adopt_some(void) {
    const struct adopted_interp found[] = {
        {.slot = 4, .id = 10, .pid = 10, .uid = 1000, .start = 10, .refcount = 0, .used = true},
        {.slot = 5, .id = 11, .pid = 11, .uid = 1000, .start = 11, .flags = XI_JOIN_REQUIRES_REF, .refcount = 1},
        {.slot = 6, .id = 12, .pid = 12, .uid = 1000, .start = 12, .orphan = true, .used = true},
    };
    struct chan ch = {
        .id = 3, .segment = 20, .mode = XI_QUEUE, .capacity = XI_CAPACITY_MIN, .uid = 1000, .name = "jobs"};
    state_adopt_counters(&one.st, 20, 40, 9);
    for (unsigned i = 0; i < 3; i++) state_adopt_interp(&one.st, &found[i]);
    for (uint32_t i = 0; i < 2; i++) {
        state_adopt_segment(&one.st, 4 + i, &(struct held){4 + i * 4, XI_SEG_OWN, XI_OWN_SIZE, XI_OWN_SIZE, 0});
        state_adopt_segment(&one.st, 4 + i,
                            &(struct held){6 + i * 4, XI_SEG_MAILBOX, XI_MAILBOX_SIZE, XI_MAILBOX_SIZE, 0});
    }
    state_adopt_segment(&one.st, 6, &(struct held){14, XI_SEG_ARENA, 65536, 65536 + XI_RELEASE_SIZE(65536), 0});
    state_adopt_channel(&one.st, 70, &ch);
    state_adopt_done(&one.st);
    const char *why = "";
    ck_assert_msg(state_is_valid(&one.st, &why), "%s", why);
}

static int come_back(uint64_t conn, int64_t id) {
    struct xi_request q = request(&one, XI_OP_JOIN);
    plain(&(struct event){.kind = EVENT_CONNECT, .conn = conn, .uid = 1000, .pid = (int)id, .start = (uint64_t)id});
    snprintf(q.name, sizeof q.name, "one");
    snprintf(q.text, sizeof q.text, "c");
    q.b = (uint64_t)id;
    return say(conn, q);
}

START_TEST(test_adopted_declare) {
    adopt_some();
    plain(&(struct event){.kind = EVENT_ADOPTED});
    ck_assert_msg(!has(ACTION_CHECK), "judged a channel that somebody may still have open");
    ck_assert_uint_eq(one.st.declaring, 1); /* who never did anything has nothing to declare */
    int64_t fresh = join(1, 0);
    ck_assert_int_eq(fresh, 20);
    ck_assert_int_eq(come_back(2, 10), 0);
    ck_assert_int_eq(refer(2, XI_OP_REF, 11), 0);
    plain(&(struct event){.kind = EVENT_SETTLED, .slot = 4, .id = 10});
    ck_assert(has(ACTION_CHECK)); /* it has declared, but not this channel */
    ck_assert(!has(ACTION_TELL_END));
    plain(&(struct event){.kind = EVENT_EMPTY, .channel = 3});
    ck_assert_uint_eq(one.st.chan_count, 0);
    ck_assert_int_eq(refer(2, XI_OP_UNREF, 11), 0);
    ck_assert(has(ACTION_TELL_END)); /* it was wanted once, under the earlier broker */
}
END_TEST

START_TEST(test_adopted_dies_before_it_declares) {
    adopt_some();
    plain(&(struct event){.kind = EVENT_DEATH, .slot = 4, .id = 10});
    ck_assert(!has(ACTION_CHECK));
    plain(&(struct event){.kind = EVENT_REPAIRED, .slot = 4, .id = 10});
    ck_assert(has(ACTION_CHECK));
    ck_assert(has(ACTION_TELL_END)); /* the reference that 11 had was the dead one's, or somebody's who is gone */
    plain(&(struct event){.kind = EVENT_UNNAMED, .slot = 6, .id = 12});
    ck_assert_uint_eq(one.st.orphans, 0);
    const char *why = "";
    ck_assert_msg(state_is_valid(&one.st, &why), "%s", why);
}
END_TEST

START_TEST(test_quotas_are_exact) {
    one.st.limits = (struct state_limits){.bytes = XI_OWN_SIZE + XI_MAILBOX_SIZE + XI_RING_OFFSET + XI_CAPACITY_DEFAULT,
                                          .segments = 3,
                                          .channels = 9,
                                          .interps = 9};
    join(1, 0);
    open_one(1, "fits", 0, 0, 0);
    open_one(1, "does not", 0, 0, XI_E_QUOTA);
    struct xi_request q = request(&one, XI_OP_BORROWS);
    ck_assert_int_eq(say(1, q), XI_E_QUOTA);
    ck_assert_ptr_nonnull(strstr(one.st.words, "--quota"));
    one.st.limits.bytes += XI_PAGE;
    ck_assert_int_eq(say(1, q), XI_E_QUOTA);
    one.st.limits.segments++;
    ck_assert_int_eq(say(1, q), 0);
}
END_TEST

START_TEST(test_ten_thousand_channels) {
    char name[32];
    join(1, 0);
    for (unsigned i = 0; i < 10000; i++) {
        snprintf(name, sizeof name, "channel %u", i);
        open_one(1, name, 0, 0, 0);
    }
    ck_assert_uint_eq(one.st.chan_count, 10000);
    for (unsigned round = 0; round < 10; round++)
        for (unsigned i = 0; i < 10000; i++) {
            snprintf(name, sizeof name, "channel %u", i);
            open_one(1, name, 0, XI_OPEN_EXISTING, 0);
        }
    plain(&(struct event){.kind = EVENT_DEATH, .slot = 1, .id = 1});
    plain(&(struct event){.kind = EVENT_REPAIRED, .slot = 1, .id = 1});
    for (uint64_t id = 1; id <= 10000; id++) plain(&(struct event){.kind = EVENT_EMPTY, .channel = id});
    ck_assert_uint_eq(one.st.chan_count, 0);
    const char *why = "";
    ck_assert_msg(state_is_valid(&one.st, &why), "%s", why);
}
END_TEST

START_TEST(test_slots_run_out) {
    for (unsigned i = 1; i < XI_MAX_INTERPS; i++) join(i, 0);
    struct xi_request q = request(&one, XI_OP_JOIN);
    snprintf(q.name, sizeof q.name, "one");
    snprintf(q.text, sizeof q.text, "c");
    one.st.limits.interps = 9999;
    plain(&(struct event){.kind = EVENT_CONNECT, .conn = 9999, .uid = 1000, .pid = 5, .start = 5});
    ck_assert_int_eq(say(9999, q), XI_E_LIMIT);
}
END_TEST

/* Each thing that can be wrong with a request by itself: refused in a sentence, and nothing is made of it. */
static int ask_with(enum xi_op op, void (*spoil)(struct xi_request *q)) {
    struct xi_request q = request(&one, op);
    snprintf(q.name, sizeof q.name, "spoilt");
    snprintf(q.text, sizeof q.text, "c");
    if (op == XI_OP_ACKS) q.a = 1, q.c = 8;
    spoil(&q);
    one.st.words[0] = 0;
    int status = say(1, q);
    ck_assert_msg(status == 1 || status == 0 || one.st.words[0], "refused without a word");
    return status;
}
static void grows_too_far(struct xi_request *q) { q->e = XI_GROW_MAX + 1; }
static void grows_to_less(struct xi_request *q) { q->b = 1 << 20, q->e = XI_CAPACITY_MIN; }
static void adopts_the_largest(struct xi_request *q) { q->c = XI_WIRE_ADOPT, q->b = UINT64_MAX, q->e = XI_CAPACITY_MIN; }
static void lives_negatively(struct xi_request *q) { q->f = UINT64_MAX; }
static void retains_too_much(struct xi_request *q) { q->g = (uint64_t)UINT32_MAX + 1; }
static void full_somehow(struct xi_request *q) { q->h = XI_FULL_DROP + 1; }
static void dead_to_nowhere(struct xi_request *q) { snprintf(q->other, sizeof q->other, "\n"); }
static void dead_to_itself(struct xi_request *q) { snprintf(q->other, sizeof q->other, "spoilt"); }
static void of_no_mode(struct xi_request *q) { q->a = XI_BROADCAST + 1; }
static void too_large(struct xi_request *q) { q->b = XI_CAPACITY_MAX + 1; }
static void with_flags(struct xi_request *q) { q->c = q->a = (uint64_t)1 << 40; }
static void unnamed(struct xi_request *q) { q->name[0] = 0; }
static void another_lane(struct xi_request *q) { xi_lane_name(99, q->name), q->c = XI_OPEN_RECV; }
static void enormous(struct xi_request *q) { q->a = UINT64_MAX; }
static void of_no_group(struct xi_request *q) { q->b = XI_MAX_GROUPS; }
static void of_no_window(struct xi_request *q) { q->c = 12; }
static void of_a_window_too_large(struct xi_request *q) { q->c = 2 * XI_WINDOW_MAX; }
static void delivered_too_often(struct xi_request *q) { q->d = (uint64_t)UINT32_MAX + 1; }
static void overdue_never(struct xi_request *q) { q->e = UINT64_MAX; }
static void of_a_channel_not_open(struct xi_request *q) { q->a = 77; }
static void as_it_is(struct xi_request *q) { (void)q; }

static const struct {
    enum xi_op op;
    void (*spoil)(struct xi_request *q);
    int status;
} wrong[] = {
    {XI_OP_OPEN, grows_too_far, XI_E_TOOBIG},      {XI_OP_OPEN, grows_to_less, XI_E_INVAL},
    {XI_OP_OPEN, adopts_the_largest, XI_E_NOENT},
    {XI_OP_OPEN, lives_negatively, XI_E_INVAL},    {XI_OP_OPEN, retains_too_much, XI_E_INVAL},
    {XI_OP_OPEN, full_somehow, XI_E_INVAL},        {XI_OP_OPEN, dead_to_nowhere, XI_E_INVAL},
    {XI_OP_OPEN, dead_to_itself, XI_E_INVAL},      {XI_OP_OPEN, of_no_mode, XI_E_INVAL},
    {XI_OP_OPEN, too_large, XI_E_TOOBIG},          {XI_OP_OPEN, with_flags, XI_E_INVAL},
    {XI_OP_OPEN, unnamed, XI_E_INVAL},             {XI_OP_OPEN, another_lane, XI_E_ACCESS},
    {XI_OP_ARENA, enormous, XI_E_TOOBIG},          {XI_OP_BORROWS, enormous, XI_E_TOOBIG},
    {XI_OP_ACKS, of_no_group, XI_E_INVAL},         {XI_OP_ACKS, of_no_window, XI_E_INVAL},
    {XI_OP_ACKS, of_a_window_too_large, XI_E_INVAL}, {XI_OP_ACKS, delivered_too_often, XI_E_INVAL},
    {XI_OP_ACKS, overdue_never, XI_E_INVAL},       {XI_OP_ACKS, dead_to_nowhere, XI_E_INVAL},
    {XI_OP_ACKS, of_a_channel_not_open, XI_E_NOENT}, {XI_OP_RING, of_a_channel_not_open, XI_E_NOENT},
    {XI_OP_RING_DROP, of_a_channel_not_open, XI_E_NOENT}, {XI_OP_CLOSE, of_a_channel_not_open, XI_E_NOENT},
    {XI_OP_DROP, enormous, XI_E_NOENT},            {XI_OP_JOIN, as_it_is, XI_E_INVAL}, /* it has joined */
    {(enum xi_op)(XI_OP_LAST + 1), as_it_is, XI_E_INVAL},
};

START_TEST(test_what_cannot_be_asked) {
    join(1, 0);
    ck_assert_uint_eq(open_one(1, "jobs", 0, 0, 0), 1);
    uint64_t segments = one.st.next_segment;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int status = ask_with(wrong[i].op, wrong[i].spoil);
        ck_assert_msg(status == wrong[i].status, "request %zu: %d, not %d", i, status, wrong[i].status);
    }
    ck_assert_uint_eq(one.st.next_segment, segments);
    ck_assert_uint_eq(one.st.chan_count, 1);
    plain(&(struct event){.kind = EVENT_CONNECT, .conn = 2, .uid = 1000, .pid = 2, .start = 2});
    struct xi_request q = request(&one, XI_OP_JOIN);
    snprintf(q.name, sizeof q.name, "one");
    ck_assert_int_eq(say(2, q), XI_E_INVAL); /* of no language */
    snprintf(q.text, sizeof q.text, "c");
    q.a = (uint64_t)1 << 40;
    ck_assert_int_eq(say(2, q), XI_E_INVAL);
    const char *why = "";
    ck_assert_msg(state_is_valid(&one.st, &why), "%s", why);
}
END_TEST

START_TEST(test_numbers_run_out) {
    join(1, 0);
    int64_t b = join(2, 0);
    uint64_t id = open_one(1, "jobs", 0, 0, 0);
    ck_assert_int_eq(refer(1, XI_OP_REF, b), 0);
    one.st.interps[2].refcount = UINT32_MAX;
    ck_assert_int_eq(refer(1, XI_OP_REF, b), XI_E_LIMIT);
    one.st.interps[2].refcount = 1;
    uint32_t handles = one.st.chans[0].handles;
    one.st.chans[0].handles = UINT32_MAX;
    open_one(2, "jobs", 0, 0, XI_E_LIMIT);
    one.st.chans[0].handles = handles;
    one.st.chan_count = XI_MAX_CHANNELS;
    one.st.limits.channels = UINT32_MAX;
    open_one(2, "one more", 0, 0, XI_E_LIMIT);
    one.st.chan_count = 1;
    one.st.next_segment = UINT32_MAX - 2;
    open_one(2, "one more", 0, 0, XI_E_LIMIT);
    ck_assert_int_eq(say(1, request(&one, XI_OP_ARENA)), XI_E_LIMIT);
    ck_assert_int_eq(close_one(1, id, 0), 0);
    const char *why = "";
    ck_assert_msg(state_is_valid(&one.st, &why), "%s", why);
}
END_TEST

START_TEST(test_nothing_is_asked_of_a_namespace_that_ends) {
    join(1, 0);
    plain(&(struct event){.kind = EVENT_SHUTDOWN});
    struct xi_request q = request(&one, XI_OP_OPEN);
    snprintf(q.name, sizeof q.name, "jobs");
    ck_assert_int_eq(say(1, q), XI_E_BROKER);
    ck_assert_int_eq(say(1, request(&one, XI_OP_ARENA)), XI_E_BROKER);
}
END_TEST

START_TEST(test_table_matches_an_array) {
    struct table t = {0};
    static uint64_t model[512];
    uint64_t rng = 88172645463325252ull;
    memset(model, 0, sizeof model);
    for (int i = 0; i < 200000; i++) {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        uint64_t key = 1 + rng % 511;
        uint64_t *found = table_find(&t, key);
        ck_assert_uint_eq(found ? *found : 0, model[key]);
        if (rng >> 40 & 1) {
            *table_put(&t, key) = model[key] = 1 + (rng >> 20 & 0xffff);
        } else {
            ck_assert_int_eq(table_drop(&t, key), model[key] != 0);
            model[key] = 0;
        }
    }
    uint32_t count = 0;
    uint64_t key, value;
    for (uint32_t at = 0; table_next(&t, &at, &key, &value); count++) ck_assert_uint_eq(model[key], value);
    ck_assert_uint_eq(count, t.count);
    table_clear(&t);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("broker core");
    TCase *tc = tcase_create("decisions");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_end_after_first_reference);
    tcase_add_test(tc, test_death_drops_references);
    tcase_add_test(tc, test_channel_lives_until_empty_and_repaired);
    tcase_add_test(tc, test_producers_and_consumers_are_counted);
    tcase_add_test(tc, test_nobody_is_missed_while_somebody_declares);
    tcase_add_test(tc, test_removed_by_name);
    tcase_add_test(tc, test_leave_answers_when_repaired);
    tcase_add_test(tc, test_disconnected_keeps_what_it_holds);
    tcase_add_test(tc, test_unused_join_is_forgotten);
    tcase_add_test(tc, test_adopted_declare);
    tcase_add_test(tc, test_adopted_dies_before_it_declares);
    tcase_add_test(tc, test_quotas_are_exact);
    tcase_add_test(tc, test_ten_thousand_channels);
    tcase_add_test(tc, test_slots_run_out);
    tcase_add_test(tc, test_what_cannot_be_asked);
    tcase_add_test(tc, test_numbers_run_out);
    tcase_add_test(tc, test_nothing_is_asked_of_a_namespace_that_ends);
    suite_add_tcase(suite, tc);
    TCase *replays = tcase_create("replays");
    tcase_set_timeout(replays, 100);
    tcase_add_test(replays, test_random_orders);
    tcase_add_test(replays, test_table_matches_an_array);
    suite_add_tcase(suite, replays);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
