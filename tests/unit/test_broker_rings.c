/* SPDX-License-Identifier: MIT */
/*
 * The broker's decisions about rings that channels grow into: who gets one, one at
 * a time, what it costs whom, and when it may go. The core alone, without a world.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "state.h"
#include "xidata.h"

static struct state st;
static uint32_t serial;

static void plain(const struct event *event) { state_step(&st, event); }

static bool has(enum action_kind kind) {
    for (uint32_t i = 0; i < st.action_count; i++)
        if (st.actions[i].kind == kind) return true;
    return false;
}

static const struct action *reply_to(uint64_t conn) {
    for (uint32_t i = 0; i < st.action_count; i++)
        if (st.actions[i].kind == ACTION_REPLY && st.actions[i].conn == conn) return &st.actions[i];
    ck_abort_msg("no reply");
}

static struct xi_request request(enum xi_op op) {
    return (struct xi_request){.magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .op = (uint16_t)op, .serial = ++serial};
}

static int say(uint64_t conn, struct xi_request q) {
    plain(&(struct event){.kind = EVENT_REQUEST, .conn = conn, .request = &q});
    return reply_to(conn)->reply.status;
}

static void join(uint64_t conn) {
    struct xi_request q = request(XI_OP_JOIN);
    plain(&(struct event){.kind = EVENT_CONNECT, .conn = conn, .uid = 1000, .pid = (int)conn, .start = conn});
    snprintf(q.name, sizeof q.name, "one");
    snprintf(q.text, sizeof q.text, "c");
    ck_assert_int_eq(say(conn, q), 0);
}

#define HOME ((uint64_t)65536)
#define MOST ((uint64_t)1 << 22)

static uint64_t open_jobs(uint64_t conn) {
    struct xi_request q = request(XI_OP_OPEN);
    snprintf(q.name, sizeof q.name, "jobs");
    q.b = HOME;
    q.e = MOST;
    ck_assert_int_eq(say(conn, q), 0);
    return reply_to(conn)->reply.a;
}

static int ask(uint64_t conn, enum xi_op op, uint64_t channel, uint64_t bytes) {
    struct xi_request q = request(op);
    q.a = channel;
    q.b = bytes;
    return say(conn, q);
}

static void valid(void) {
    const char *why = "";
    ck_assert_msg(state_is_valid(&st, &why), "%s", why);
}

static void setup(void) {
    struct state_limits limits = STATE_LIMITS_DEFAULT;
    limits.bytes = (uint64_t)16 << 20;
    state_init(&st, &limits, 4711);
    join(1);
    join(2);
}
static void teardown(void) {
    valid();
    state_deinit(&st);
}

START_TEST(who_may_have_which) {
    uint64_t id = open_jobs(1);
    const uint64_t wrong[] = {0, 1, HOME / 2, HOME, HOME * 2 + 8, MOST * 2, UINT64_MAX, (uint64_t)1 << 63};
    ck_assert_int_eq(ask(2, XI_OP_RING, id, MOST), XI_E_NOENT); /* has not opened it */
    ck_assert_int_eq(ask(2, XI_OP_RING_DROP, id, 0), XI_E_NOENT);
    ck_assert_int_eq(ask(1, XI_OP_RING, id + 1, MOST), XI_E_NOENT);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ck_assert_int_eq(ask(1, XI_OP_RING, id, wrong[i]), XI_E_INVAL);
    ck_assert_int_eq(ask(1, XI_OP_RING, id, MOST), 0);
    ck_assert(has(ACTION_MAKE_PART));
}
END_TEST

START_TEST(one_at_a_time) {
    uint64_t id = open_jobs(1);
    open_jobs(2);
    ck_assert_int_eq(ask(1, XI_OP_RING, id, HOME * 2), 0);
    ck_assert_int_eq(ask(2, XI_OP_RING, id, HOME * 4), XI_E_AGAIN);
    ck_assert_int_eq(ask(1, XI_OP_RING, id, HOME * 4), XI_E_AGAIN);
    ck_assert_int_eq(ask(2, XI_OP_RING_DROP, id, 0), 0);
    ck_assert_int_eq(ask(2, XI_OP_RING, id, HOME * 4), XI_E_AGAIN); /* until its maker has said that it is over */
    ck_assert_int_eq(ask(1, XI_OP_RING_DROP, id, 0), 0);
    ck_assert(has(ACTION_CHECK_PARTS));
    ck_assert_int_eq(ask(2, XI_OP_RING, id, HOME * 4), 0);
}
END_TEST

START_TEST(what_it_costs) {
    uint64_t id = open_jobs(1), bytes = st.bytes;
    ck_assert_int_eq(ask(1, XI_OP_RING, id, HOME * 2), 0);
    uint32_t first = (uint32_t)reply_to(1)->reply.a;
    ck_assert_uint_eq(st.bytes, bytes + XI_PAGE + HOME * 2);
    ck_assert_int_eq(ask(1, XI_OP_RING_DROP, id, 0), 0);
    ck_assert_int_eq(ask(1, XI_OP_RING, id, HOME * 4), 0);
    plain(&(struct event){.kind = EVENT_FAILED, .status = XI_E_NOSPACE, .text = "full"});
    ck_assert_int_eq(reply_to(1)->reply.status, XI_E_NOSPACE);
    ck_assert_uint_eq(st.bytes, bytes + XI_PAGE + HOME * 2); /* taken back */
    ck_assert_int_eq(ask(1, XI_OP_RING, id, HOME * 4), 0);
    plain(&(struct event){.kind = EVENT_PART_UNUSED, .channel = id, .number = first});
    ck_assert(has(ACTION_REMOVE));
    ck_assert_uint_eq(st.bytes, bytes + XI_PAGE + HOME * 4);
    ck_assert_int_eq(ask(1, XI_OP_RING_DROP, id, 0), 0);
    struct state_limits most = st.limits;
    st.limits.bytes = st.bytes + HOME;
    ck_assert_int_eq(ask(1, XI_OP_RING, id, MOST), XI_E_QUOTA);
    st.limits = most;
    ck_assert_int_eq(ask(1, XI_OP_RING, id, MOST), 0);
}
END_TEST

/* Its maker dies: when that is repaired it is nobody's. All go with the channel. */
START_TEST(deaths_and_ends) {
    uint64_t id = open_jobs(1);
    open_jobs(2);
    ck_assert_int_eq(ask(2, XI_OP_RING, id, HOME * 2), 0);
    plain(&(struct event){.kind = EVENT_DEATH, .slot = 2, .id = 2});
    ck_assert_int_eq(ask(1, XI_OP_RING, id, MOST), XI_E_AGAIN);
    valid();
    plain(&(struct event){.kind = EVENT_REPAIRED, .slot = 2, .id = 2});
    ck_assert(has(ACTION_CHECK_PARTS));
    ck_assert_int_eq(ask(1, XI_OP_RING, id, MOST), 0);
    valid();
    ck_assert_int_eq(ask(1, XI_OP_CLOSE, id, 0), 0);
    plain(&(struct event){.kind = EVENT_EMPTY, .channel = id});
    ck_assert_uint_eq(st.chan_count, 0);
}
END_TEST

/* Who lost its connection and begins to declare anew has moves under way no more: it finds that out when it moves. */
START_TEST(who_comes_back_begins_anew) {
    uint64_t id = open_jobs(1);
    open_jobs(2);
    ck_assert_int_eq(ask(2, XI_OP_RING, id, HOME * 2), 0);
    plain(&(struct event){.kind = EVENT_DISCONNECT, .conn = 2});
    ck_assert_int_eq(ask(1, XI_OP_RING, id, MOST), XI_E_AGAIN);
    plain(&(struct event){.kind = EVENT_CONNECT, .conn = 3, .uid = 1000, .pid = 2, .start = 2});
    struct xi_request q = request(XI_OP_JOIN);
    snprintf(q.name, sizeof q.name, "one");
    snprintf(q.text, sizeof q.text, "c");
    q.b = 2;
    ck_assert_int_eq(say(3, q), 0);
    ck_assert(has(ACTION_CHECK_PARTS));
    ck_assert_int_eq(ask(1, XI_OP_RING, id, MOST), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("broker, rings");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, who_may_have_which);
    tcase_add_test(tc, one_at_a_time);
    tcase_add_test(tc, what_it_costs);
    tcase_add_test(tc, deaths_and_ends);
    tcase_add_test(tc, who_comes_back_begins_anew);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
