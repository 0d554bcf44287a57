/* SPDX-License-Identifier: MIT */
/*
 * What a broker decides in a namespace that other users may join, as a pure
 * function: no process of another user is needed. Users 1000 (whose namespace it
 * is), 1001, 1002 (of group 50) and 1003.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"
#include "xidata.h"

static struct state st;
static uint32_t serial;

/* What the broker's own segment would hold: opened[slot][index], by the actions alone. */
enum { INDEXES = 64 };
static uint8_t noted[XI_MAX_INTERPS][INDEXES];

static void follow(void) {
    for (uint32_t i = 0; i < st.action_count; i++) {
        const struct action *a = &st.actions[i];
        if (a->kind == ACTION_MAKE_INTERP) memset(noted[a->slot], 0, sizeof noted[a->slot]);
        if (a->kind == ACTION_NOTE) {
            ck_assert_msg((noted[a->slot][a->index] | a->rights) != noted[a->slot][a->index], "noted twice");
            noted[a->slot][a->index] |= (uint8_t)a->rights;
        }
        for (uint32_t s = 1; a->kind == ACTION_FORGET && s < XI_MAX_INTERPS; s++)
            if (st.interps[s].life != INTERP_FREE) noted[s][a->index] = 0;
    }
}

static void feed(const struct event *event) {
    state_step(&st, event);
    follow();
    const char *why = "";
    ck_assert_msg(state_is_valid(&st, &why), "%s", why);
}

static const struct action *find(enum action_kind kind) {
    for (uint32_t i = 0; i < st.action_count; i++)
        if (st.actions[i].kind == kind) return &st.actions[i];
    return NULL;
}

static int ask(uint64_t conn, struct xi_request q) {
    feed(&(struct event){.kind = EVENT_REQUEST, .conn = conn, .request = &q});
    const struct action *a = find(ACTION_REPLY);
    return a && a->conn == conn ? a->reply.status : 1;
}

static struct xi_request request(enum xi_op op) {
    return (struct xi_request){.magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .op = (uint16_t)op, .serial = ++serial};
}

static int ask_about(uint64_t conn, enum xi_op op, uint64_t a) {
    struct xi_request q = request(op);
    q.a = a;
    return ask(conn, q);
}

static int close_as(uint64_t conn, uint64_t id, uint64_t flags) {
    struct xi_request q = request(XI_OP_CLOSE);
    q.a = id;
    q.c = flags;
    return ask(conn, q);
}

static void connect_as(uint64_t conn, uint32_t uid) {
    static const uint32_t groups[] = {40, 50, 60};
    feed(&(struct event){.kind = EVENT_CONNECT,
                         .conn = conn,
                         .uid = uid,
                         .gid = uid,
                         .groups = groups,
                         .group_count = uid == 1002 ? 3 : 0,
                         .pid = (int)conn,
                         .start = conn});
}

static int64_t join_as(uint64_t conn, uint32_t uid) {
    struct xi_request q = request(XI_OP_JOIN);
    connect_as(conn, uid);
    snprintf(q.name, sizeof q.name, "one");
    snprintf(q.text, sizeof q.text, "c");
    ck_assert_int_eq(ask(conn, q), 0);
    return (int64_t)find(ACTION_REPLY)->reply.a;
}

static int open_as(uint64_t conn, const char *name, const char *access, uint64_t flags) {
    struct xi_request q = request(XI_OP_OPEN);
    snprintf(q.name, sizeof q.name, "%s", name);
    if (access) ck_assert_int_eq(xi_access_parse(access, true, q.access), 0);
    q.c = flags;
    return ask(conn, q);
}

static uint64_t reply_c(void) { return find(ACTION_REPLY)->reply.c; }
static uint64_t reply_a(void) { return find(ACTION_REPLY)->reply.a; }
static uint64_t arena_of(uint64_t conn) {
    ck_assert_int_eq(ask_about(conn, XI_OP_ARENA, 65536), 0);
    return reply_a();
}
static uint32_t mailbox_of(uint64_t conn) {
    const struct conn *c = (const struct conn *)(uintptr_t)*table_find(&st.conns, conn);
    return st.interps[c->slot].held[1].number;
}

static const struct state_limits most = STATE_LIMITS_DEFAULT, few = {8 << 20, 24, 4, 3};

static void begin(void) {
    state_init(&st, &most, 1);
    state_open(&st, 1000, &few);
    memset(noted, 0, sizeof noted);
}
static void end(void) { state_deinit(&st); }

/* ---- opening */

START_TEST(test_lists) {
    static const uint64_t flags[] = {XI_OPEN_RECV, XI_OPEN_SEND, 0}; /* in the order of XI_ACCESS_* 1, 2, 3 */
    static const struct {
        const char *access;
        uint32_t may[4]; /* of users 1000 to 1003; 1001 makes the channel */
    } cases[] = {{NULL, {0, 3, 0, 0}},
                 {"1000:r", {1, 3, 0, 0}},
                 {"1001:r", {0, 3, 0, 0}}, /* it is hers: nothing is taken from her */
                 {"@50:w", {0, 3, 2, 0}},
                 {"@50:w,1002:r", {0, 3, 3, 0}},
                 {"@1003:w,1000:rw", {3, 3, 0, 2}},
                 {"*:r", {1, 3, 1, 1}},
                 {"*:w,@60:r", {2, 3, 3, 2}}};
    begin();
    for (uint64_t u = 0; u < 4; u++) join_as(1 + u, 1000 + (uint32_t)u);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(open_as(2, "c", cases[i].access, XI_OPEN_SEND), 0);
        uint64_t id = reply_a();
        bool shared = cases[i].access && strcmp(cases[i].access, "1001:r") != 0;
        ck_assert_int_eq(XI_OPENED_SHARED(reply_c()), shared);
        ck_assert_uint_eq(XI_OPENED_RIGHTS(reply_c()), 3);
        ck_assert_uint_eq(XI_OPENED_MODE(reply_c()), XI_QUEUE);
        for (uint64_t u = 0; u < 4; u++)
            for (uint32_t want = 1; want <= 3; want++) {
                bool allowed = (cases[i].may[u] & want) == want;
                int rc = open_as(1 + u, "c", "1003:rw", flags[want - 1] | XI_OPEN_EXISTING); /* a list too late is no list */
                ck_assert_msg(rc == (allowed ? 0 : XI_E_ACCESS), "case %zu, user %u, %u: %s", i, 1000 + (unsigned)u, want,
                              xi_error_name(rc));
                if (rc) continue;
                ck_assert_uint_eq(XI_OPENED_RIGHTS(reply_c()), cases[i].may[u]);
                ck_assert(XI_OPENED_SHARED(reply_c()) || u == 1);
                ck_assert_int_eq(close_as(1 + u, id, flags[want - 1]), 0);
            }
        ck_assert_int_eq(close_as(2, id, XI_OPEN_SEND), 0);
        feed(&(struct event){.kind = EVENT_EMPTY, .channel = id});
        ck_assert_uint_eq(st.chan_count, 0);
    }
    end();
}
END_TEST

START_TEST(test_private_takes_no_list) {
    state_init(&st, &most, 1);
    join_as(1, 1000);
    ck_assert_int_eq(open_as(1, "c", "1001:r", 0), XI_E_INVAL);
    ck_assert_ptr_nonnull(strstr(st.words, "--open-to"));
    ck_assert_int_eq(open_as(1, "c", NULL, 0), 0);
    ck_assert(!XI_OPENED_SHARED(reply_c()));
    ck_assert_ptr_null(find(ACTION_NOTE));
    end();
}
END_TEST

START_TEST(test_nonsense_for_a_list) {
    begin();
    join_as(1, 1000);
    struct xi_request q = request(XI_OP_OPEN);
    snprintf(q.name, sizeof q.name, "c");
    q.access[3] = (struct xi_access){1001, XI_ACCESS_USER, XI_ACCESS_READ};
    ck_assert_int_eq(ask(1, q), XI_E_INVAL);
    ck_assert_uint_eq(st.chan_count, 0);
    end();
}
END_TEST

/* ---- segments */

START_TEST(test_segments) {
    begin();
    join_as(1, 1000);
    join_as(2, 1001);
    join_as(3, 1000);
    uint64_t arena = arena_of(1), back = arena_of(2);
    ck_assert_int_eq(ask_about(3, XI_OP_SEGMENT, arena), 0); /* her own user's */
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, arena), XI_E_ACCESS);
    ck_assert_int_eq(open_as(1, "c", "1001:r", XI_OPEN_RECV), 0);
    uint64_t id = reply_a(), channel = find(ACTION_REPLY)->reply.b;
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, channel), XI_E_ACCESS);
    ck_assert_int_eq(open_as(2, "c", NULL, XI_OPEN_RECV), 0);
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, channel), 0);
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, mailbox_of(1)), 0);
    ck_assert_int_eq(ask_about(1, XI_OP_SEGMENT, mailbox_of(2)), 0);
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, arena), XI_E_ACCESS); /* nothing can have been sent by 1 */
    ck_assert_int_eq(open_as(1, "c", NULL, XI_OPEN_SEND), 0);
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, arena), 0);
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, arena + 1), 0);
    ck_assert_int_eq(ask_about(1, XI_OP_SEGMENT, back), XI_E_ACCESS); /* 2 may not send there */
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, arena_of(3)), XI_E_ACCESS);
    /* Handles closed, the sender gone: what was received may still be read. */
    ck_assert_int_eq(close_as(2, id, XI_OPEN_RECV), 0);
    uint32_t slot = st.interps[1].id == 1 ? 1 : 2;
    feed(&(struct event){.kind = EVENT_DEATH, .slot = slot, .id = st.interps[slot].id});
    feed(&(struct event){.kind = EVENT_REPAIRED, .slot = slot, .id = st.interps[slot].id});
    ck_assert_int_eq(st.interps[slot].life, INTERP_ORPHAN);
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, arena), 0);
    feed(&(struct event){.kind = EVENT_EMPTY, .channel = id});
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, arena), XI_E_ACCESS); /* and with the channel that ends */
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, channel), XI_E_NOENT);
    end();
}
END_TEST

START_TEST(test_observing) {
    begin();
    join_as(1, 1000);
    join_as(2, 1001);
    connect_as(3, 1000);
    connect_as(4, 1001);
    ck_assert_int_eq(open_as(1, "hers", NULL, 0), 0);
    uint64_t hers = find(ACTION_REPLY)->reply.b;
    ck_assert_int_eq(open_as(2, "his", NULL, 0), 0);
    uint64_t his = find(ACTION_REPLY)->reply.b;
    ck_assert_int_eq(open_as(1, "both", "1001:r", 0), 0);
    uint64_t both = find(ACTION_REPLY)->reply.b;
    ck_assert_int_eq(open_as(1, "in", "1001:w", 0), 0);
    uint64_t in = find(ACTION_REPLY)->reply.b;
    for (uint64_t conn = 3; conn <= 4; conn++) ck_assert_int_eq(ask_about(conn, XI_OP_OBSERVE, 0), 0);
    ck_assert_int_eq(ask_about(4, XI_OP_OBSERVE, hers), XI_E_ACCESS);
    ck_assert_int_eq(ask_about(4, XI_OP_OBSERVE, his), 0);
    ck_assert_int_eq(ask_about(4, XI_OP_OBSERVE, both), 0);
    ck_assert_int_eq(ask_about(4, XI_OP_OBSERVE, in), XI_E_ACCESS);
    ck_assert_int_eq(ask_about(4, XI_OP_OBSERVE, mailbox_of(2)), XI_E_ACCESS); /* nobody looks at those */
    ck_assert_int_eq(ask_about(3, XI_OP_OBSERVE, his), 0);                     /* she sees all of her namespace */
    ck_assert_int_eq(ask_about(3, XI_OP_OBSERVE, arena_of(2)), XI_E_ACCESS);   /* but for values */
    ck_assert_int_eq(ask_about(4, XI_OP_OBSERVE, (uint64_t)1 << 40), XI_E_NOENT);
    end();
}
END_TEST

/* ---- lives and quotas */

START_TEST(test_lives) {
    begin();
    int64_t hers = join_as(1, 1000), his = join_as(2, 1001), other = join_as(3, 1001);
    ck_assert_int_eq(ask_about(2, XI_OP_REF, (uint64_t)hers), XI_E_ACCESS);
    ck_assert_int_eq(ask_about(2, XI_OP_UNREF, (uint64_t)hers), XI_E_ACCESS);
    ck_assert_int_eq(ask_about(2, XI_OP_REF, (uint64_t)other), 0);
    ck_assert_int_eq(ask_about(1, XI_OP_REF, (uint64_t)his), 0);
    struct xi_request remove = request(XI_OP_REMOVE);
    snprintf(remove.name, sizeof remove.name, "hers");
    ck_assert_int_eq(open_as(1, "hers", "*:rw", XI_OPEN_SEND), 0);
    ck_assert_int_eq(ask(2, remove), XI_E_ACCESS);
    ck_assert_int_eq(ask(1, remove), 0);
    ck_assert_int_eq(ask_about(2, XI_OP_SHUTDOWN, 0), XI_E_ACCESS);
    ck_assert_ptr_null(find(ACTION_SHUTDOWN));
    ck_assert_int_eq(ask_about(2, XI_OP_STATS, 0), 0);
    ck_assert_int_eq(ask_about(1, XI_OP_SHUTDOWN, 0), 0);
    end();
}
END_TEST

START_TEST(test_quotas) {
    begin();
    for (uint64_t conn = 1; conn <= 3; conn++) join_as(conn, 1001);
    struct xi_request q = request(XI_OP_JOIN);
    snprintf(q.name, sizeof q.name, "one");
    snprintf(q.text, sizeof q.text, "c");
    connect_as(4, 1001);
    ck_assert_int_eq(ask(4, q), XI_E_QUOTA);
    for (uint64_t conn = 10; conn < 20; conn++) join_as(conn, 1000); /* hers is larger, and not used up by him */
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%d", i);
        ck_assert_int_eq(open_as(1, name, NULL, 0), 0);
    }
    ck_assert_int_eq(open_as(1, "c5", NULL, 0), XI_E_QUOTA);
    ck_assert_int_eq(open_as(10, "c5", NULL, 0), 0);
    end();
}
END_TEST

/* ---- a new broker */

START_TEST(test_adopted) {
    begin();
    struct chan ch = {.id = 3, .segment = 20, .mode = XI_QUEUE, .capacity = 65536, .uid = 1001, .name = "jobs"};
    ck_assert_int_eq(xi_access_parse("1002:r", true, ch.access), 0);
    state_adopt_counters(&st, 20, 30, 9);
    state_adopt_interp(&st, &(struct adopted_interp){.slot = 4, .id = 10, .pid = 10, .uid = 1001, .start = 10, .used = true});
    state_adopt_interp(&st, &(struct adopted_interp){.slot = 6, .id = 12, .pid = 12, .uid = 1002, .start = 12, .used = true});
    state_adopt_segment(&st, 4, &(struct held){2, XI_SEG_OWN, XI_OWN_SIZE, XI_OWN_SIZE, 0});
    state_adopt_segment(&st, 4, &(struct held){4, XI_SEG_MAILBOX, XI_MAILBOX_SIZE, XI_MAILBOX_SIZE, 0});
    state_adopt_segment(&st, 4, &(struct held){6, XI_SEG_ARENA, 65536, 65536 + XI_RELEASE_SIZE(65536), 0});
    state_adopt_segment(&st, 6, &(struct held){8, XI_SEG_OWN, XI_OWN_SIZE, XI_OWN_SIZE, 0});
    state_adopt_segment(&st, 6, &(struct held){10, XI_SEG_MAILBOX, XI_MAILBOX_SIZE, XI_MAILBOX_SIZE, 0});
    state_adopt_channel(&st, 7, &ch);
    state_adopt_opened(&st, 4, 7, XI_ACCESS_BOTH);
    state_adopt_opened(&st, 6, 7, XI_ACCESS_READ);
    state_adopt_done(&st);
    feed(&(struct event){.kind = EVENT_ADOPTED});
    /* 12 comes back and has not declared anything yet, 10 not even come: what they had opened is known. */
    struct xi_request q = request(XI_OP_JOIN);
    feed(&(struct event){.kind = EVENT_CONNECT, .conn = 1, .uid = 1002, .gid = 1002, .pid = 12, .start = 12});
    snprintf(q.name, sizeof q.name, "one");
    snprintf(q.text, sizeof q.text, "c");
    q.b = 12;
    ck_assert_int_eq(ask(1, q), 0);
    ck_assert_int_eq(ask_about(1, XI_OP_SEGMENT, 6), 0);
    ck_assert_int_eq(ask_about(1, XI_OP_SEGMENT, 4), 0);
    ck_assert_int_eq(open_as(1, "jobs", NULL, XI_OPEN_RECV | XI_WIRE_ADOPT), 0);
    ck_assert_ptr_null(find(ACTION_NOTE));
    ck_assert_int_eq(open_as(1, "jobs", NULL, XI_OPEN_SEND | XI_WIRE_ADOPT), XI_E_ACCESS);
    join_as(2, 1003);
    ck_assert_int_eq(open_as(2, "jobs", NULL, XI_OPEN_RECV | XI_WIRE_ADOPT), XI_E_ACCESS);
    ck_assert_int_eq(ask_about(2, XI_OP_SEGMENT, 6), XI_E_ACCESS);
    end();
}
END_TEST

/* ---- any order */

static uint64_t rng;
static uint32_t draw(uint32_t n) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)(rng % n);
}

static void compare(void) {
    for (uint32_t s = 1; s < 128; s++)
        for (uint32_t i = 0; i < INDEXES && st.interps[s].life != INTERP_FREE; i++) {
            const uint64_t *found = i < st.chan_capacity && st.chans[i].id ? table_find(&st.interps[s].opened, st.chans[i].id) : NULL;
            ck_assert_msg(noted[s][i] == (found ? *found : 0), "slot %u, entry %u: %u noted, %llu known", s, i, noted[s][i],
                          (unsigned long long)(found ? *found : 0));
        }
}

static void end_slot(uint32_t slot) {
    static const enum event_kind next[] = {[INTERP_LIVE] = EVENT_DEATH, [INTERP_DYING] = EVENT_REPAIRED, [INTERP_ORPHAN] = EVENT_UNNAMED};
    if (st.interps[slot].life == INTERP_FREE) return;
    feed(&(struct event){.kind = next[st.interps[slot].life], .slot = slot, .id = st.interps[slot].id});
}

START_TEST(test_what_is_noted_is_what_is_known) {
    static const char *const lists[] = {NULL, "1001:r", "*:rw", "@50:w"};
    uint32_t forgotten = 0;
    rng = (uint64_t)_i * 0x9e3779b97f4a7c15ull | 1;
    begin();
    for (uint64_t conn = 1; conn <= 100; conn++) {
        struct xi_request q = request(XI_OP_JOIN);
        snprintf(q.name, sizeof q.name, "one");
        snprintf(q.text, sizeof q.text, "c");
        connect_as(conn, 1000 + draw(4));
        (void)ask(conn, q);
        for (int i = 0; i < 10; i++) {
            uint64_t from = conn > 10 ? conn - draw(10) : conn;
            char name[8];
            snprintf(name, sizeof name, "c%u", draw(12));
            (void)open_as(from, name, lists[draw(4)], draw(4));
            if (draw(4) == 0) (void)ask_about(from, XI_OP_ARENA, 4096);
            if (draw(3) == 0) (void)close_as(from, 1 + draw((uint32_t)st.next_channel), draw(3));
            if (draw(3) == 0) end_slot(1 + draw(20));
            uint32_t index = draw(16);
            if (index < st.chan_capacity) feed(&(struct event){.kind = EVENT_EMPTY, .channel = st.chans[index].id});
            forgotten += find(ACTION_FORGET) != NULL;
            compare();
        }
    }
    ck_assert_uint_gt(forgotten, 5);
    end();
}
END_TEST

int main(void) {
    TCase *c = tcase_create("access");
    tcase_add_test(c, test_lists);
    tcase_add_test(c, test_private_takes_no_list);
    tcase_add_test(c, test_nonsense_for_a_list);
    tcase_add_test(c, test_segments);
    tcase_add_test(c, test_observing);
    tcase_add_test(c, test_lives);
    tcase_add_test(c, test_quotas);
    tcase_add_test(c, test_adopted);
    tcase_add_loop_test(c, test_what_is_noted_is_what_is_known, 0, 4);
    Suite *s = suite_create("broker_access");
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
