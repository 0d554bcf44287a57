/* SPDX-License-Identifier: MIT */
/*
 * Requests in groups: those that acknowledge, those that end, and those of
 * listeners, which serve nobody.
 */
#include "call_fixture.h"

START_TEST(a_group_is_removed_with_requests_in_it) {
    xi_channel *out = open_with(me, XI_OPEN_SEND, (xi_open_opts){.mode = XI_BROADCAST});
    xi_channel *in = open_with(you, XI_OPEN_RECV, (xi_open_opts){.group = "servers"}), *other = server();
    struct one_call c;
    pthread_t t = start_call(&c, out);
    ok(xi_group_remove(in, "servers"));
    ended(t, &c, XI_E_DIED);
    /* A listener that goes says nothing of the others. */
    ok(xi_channel_free(in));
    in = open_with(you, XI_OPEN_RECV, (xi_open_opts){.group = "servers"});
    t = start_call(&c, out);
    ok(xi_channel_free(other));
    xi_msg m = XI_MSG_INIT;
    ok(xi_recv(in, &m, XI_TRY));
    ok(reply_with(&m, 7, 0));
    ended(t, &c, 0);
    nothing_remains(in, out, &m, NULL);
}
END_TEST

/* ---------------------------------------------- in a group that acknowledges */

static xi_channel *acking(xi_interp *who, uint32_t max_deliveries) {
    xi_group_opts g = {.flags = XI_GROUP_ACK, .max_deliveries = max_deliveries};
    return open_with(who, XI_OPEN_RECV, (xi_open_opts){.group_opts = &g});
}

START_TEST(a_reply_acknowledges) {
    xi_channel *in = acking(you, 0), *out = caller();
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    xi_pending p;
    for (int large = 0; large < 2; large++) {
        ok(begin(out, 1, large ? 9000 : 0, &p));
        ok(xi_recv(in, &m, XI_TRY));
        ck_assert(xi_msg_is_call(&m));
        ck_assert_uint_eq(xi_msg_deliveries(&m), 1);
        ok(reply_with(&m, 2, 0));
        ck_assert_int_eq(number_of(&m), 1); /* readable still */
        ok(xi_call_wait(&p, &reply, XI_TRY));
        ck_assert_int_eq(number_of(&reply), 2);
        xi_group_info g;
        ck_assert_int_eq(xi_channel_groups(in, &g, 1), 1);
        ck_assert_uint_eq(g.unacked, 0);
        ck_assert_uint_eq(g.acked, (uint64_t)large + 1);
        xi_msg_release(&m);
        fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    }
    nothing_remains(in, out, NULL, &reply);
}
END_TEST

START_TEST(another_server_gets_a_request_that_was_not_replied_to) {
    xi_interp *third;
    ok(xi_join(&(xi_join_opts){.name = "third"}, &third));
    xi_channel *in = acking(you, 0), *of_third = acking(third, 0), *out = caller();
    xi_msg m = XI_MSG_INIT, other = XI_MSG_INIT;
    struct one_call c;
    pthread_t t = start_call(&c, out);
    ok(xi_recv(in, &m, XI_TRY));
    xi_msg_release(&m);
    ok(xi_recv(in, &m, XI_TRY));
    ok(xi_nack(&m, 0));
    ok(xi_recv(of_third, &other, XI_TRY));
    ck_assert_uint_eq(xi_msg_deliveries(&other), 3);
    ck_assert(xi_call_wanted(&other));
    ok(xi_leave(third));
    ok(xi_recv(in, &m, 5000 * MS));
    ck_assert_uint_eq(xi_msg_deliveries(&m), 4);
    ok(reply_with(&m, 6, 0));
    ended(t, &c, 0);
    xi_msg_release(&m);
    xi_msg_release(&other);
    ok(xi_channel_free(of_third));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_request_that_will_not_be_served_is_refused) {
    xi_channel *in = acking(you, 2), *out = caller();
    xi_msg m = XI_MSG_INIT;
    struct one_call c;
    for (int how = 0; how < 3; how++) {
        pthread_t t = start_call(&c, out);
        ok(xi_recv(in, &m, XI_TRY));
        if (how == 0) ok(xi_ack(&m));
        if (how == 1) ok(xi_reply(&m, NULL, 0, XI_TRY));
        if (how == 2) { /* delivered twice in vain */
            xi_msg_release(&m);
            ok(xi_recv(in, &m, XI_TRY));
            xi_msg_release(&m);
            fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
        }
        ended(t, &c, XI_E_DIED);
        xi_msg_release(&m);
        fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    }
    /* And one that nobody waits for goes to nobody, the values around it do. */
    xi_pending p[2];
    xi_msg got[4] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    ok(begin(out, 1, 300, &p[0])); /* for which a message needs memory */
    ok(xi_send_int(out, 2, XI_TRY));
    ok(begin(out, 3, 9000, &p[1]));
    ok(xi_send_int(out, 4, XI_TRY));
    for (int i = 0; i < 2; i++) xi_call_cancel(&p[i]);
    int64_t n = 0;
    while (n < 2) {
        int64_t some = xi_recv_many(in, got + n, 4 - (size_t)n, XI_TRY);
        ok(some);
        n += some;
    }
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    for (int i = 0; i < 2; i++) {
        ck_assert(!xi_msg_is_call(&got[i]));
        ok(xi_ack(&got[i]));
    }
    nothing_remains(in, out, NULL, NULL);
}
END_TEST

/*
 * A block that was mapped for a value which then is nobody's is not taken for that of another value: not though in between a
 * request was received that nobody waits for any more, so that the call goes on.
 */
START_TEST(a_block_is_looked_for_where_it_is) {
    xi_interp *third;
    ok(xi_join(&(xi_join_opts){.name = "third"}, &third));
    xi_channel *in = acking(you, 0), *out = caller(), *of_third = open_with(third, XI_OPEN_SEND, (xi_open_opts){0});
    xi_msg m[3] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    xi_pending p;
    uint64_t position = xi_load_relaxed(&in->chan->tail);
    ok(try_number(of_third, 1, 9000, &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = 3600 * 1000 * MS}));
    ok(begin(out, 2, 0, &p));
    send_number(out, 3, 9000);
    for (int i = 0; i < 3; i++) ok(xi_recv(in, &m[i], XI_TRY));
    for (int i = 0; i < 3; i++) ok(xi_nack(&m[i], 0));
    uint32_t length = XI_REC_LENGTH(xi_load_relaxed(xi_header_at(&in->home, position)));
    xi_store_relaxed(xi_header_at(&in->home, position + length), 1); /* its time is over */
    xi_call_cancel(&p);
    ck_assert_int_eq(xi_recv_many(in, m, 3, XI_TRY), 1);
    ck_assert_int_eq(number_of(&m[0]), 3);
    ok(xi_ack(&m[0]));
    nothing_is_out(third);
    ok(xi_channel_free(of_third));
    ok(xi_leave(third));
    nothing_remains(in, out, NULL, NULL);
}
END_TEST

/* Nor does it go on waiting when its request becomes a dead letter. */
START_TEST(the_caller_hears_of_a_dead_letter) {
    xi_group_opts once = {.flags = XI_GROUP_ACK, .max_deliveries = 1, .dead = "letters of calls"};
    xi_channel *in = open_with(you, XI_OPEN_RECV, (xi_open_opts){.group_opts = &once}), *out = caller();
    xi_msg m = XI_MSG_INIT;
    struct one_call c;
    pthread_t t = start_call(&c, out);
    ok(xi_recv(in, &m, XI_TRY));
    ok(xi_nack(&m, 0));
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    ended(t, &c, XI_E_DIED);
    ok(xi_remove(me, "letters of calls"));
    nothing_remains(in, out, NULL, NULL);
}
END_TEST

/* ------------------------------------------------------------- who listens only */

static xi_channel *listener(uint32_t flags) {
    return open_with(you, XI_OPEN_RECV, (xi_open_opts){.group_opts = &(xi_group_opts){.flags = XI_GROUP_TEMPORARY | flags}});
}

/* The server has the request, and what becomes of it in a listener's group is nothing to its caller. */
static void is_served(pthread_t t, const struct one_call *c, xi_msg *m) {
    ok(reply_with(m, 7, 0));
    ended(t, c, 0);
}

START_TEST(a_listener_that_lags_behind_ends_no_call) {
    xi_open_opts o = {.capacity = XI_CAPACITY_MIN, .when_full = XI_FULL_DROP};
    xi_channel *out = open_with(me, XI_OPEN_SEND, o), *in = server(), *lags = listener(0);
    xi_msg m = XI_MSG_INIT, other = XI_MSG_INIT;
    struct one_call c;
    pthread_t t = start_call(&c, out);
    ok(xi_recv(in, &m, XI_TRY));
    for (int i = 0; i < 1000; i++) {
        ok(xi_send_int(out, i, XI_TRY));
        ok(xi_recv(in, &other, XI_TRY));
    }
    is_served(t, &c, &m);
    xi_group_info g[2];
    ck_assert_int_eq(xi_channel_groups(in, g, 2), 2);
    ck_assert_uint_gt(g[0].dropped + g[1].dropped, 0); /* or nothing was shown */
    xi_msg_release(&other);
    ok(xi_channel_free(lags));
    nothing_remains(in, out, &m, NULL);
}
END_TEST

START_TEST(a_listener_that_comes_too_late_ends_no_call) {
    xi_channel *out = open_with(me, XI_OPEN_SEND, (xi_open_opts){.ttl_ns = 5 * MS}), *in = server();
    xi_channel *late = listener(_i ? XI_GROUP_ACK : 0);
    xi_msg m = XI_MSG_INIT;
    struct one_call c;
    pthread_t t = start_call(&c, out);
    ok(xi_recv(in, &m, XI_TRY));
    int64_t until = xi_now() + 7 * MS;
    while (xi_now() < until) sched_yield();
    fails(XI_E_AGAIN, xi_recv(late, &(xi_msg)XI_MSG_INIT, XI_TRY));
    is_served(t, &c, &m);
    xi_group_info g[2];
    ck_assert_int_eq(xi_channel_groups(in, g, 2), 2);
    ck_assert_uint_eq(g[0].expired + g[1].expired, 1);
    ok(xi_channel_free(late));
    nothing_remains(in, out, &m, NULL);
}
END_TEST

/* A listener of a group that acknowledges gives up a request: its server has it nevertheless. */
START_TEST(a_listener_that_gives_up_ends_no_call) {
    xi_group_opts once = {.flags = XI_GROUP_TEMPORARY | XI_GROUP_ACK, .max_deliveries = 1};
    xi_channel *out = caller(), *in = server(), *hears = open_with(you, XI_OPEN_RECV, (xi_open_opts){.group_opts = &once});
    xi_msg m = XI_MSG_INIT, heard = XI_MSG_INIT;
    struct one_call c;
    pthread_t t = start_call(&c, out);
    ok(xi_recv(in, &m, XI_TRY));
    ok(xi_recv(hears, &heard, XI_TRY));
    ok(_i ? xi_ack(&heard) : xi_nack(&heard, 0));
    fails(XI_E_AGAIN, xi_recv(hears, &heard, XI_TRY));
    is_served(t, &c, &m);
    ok(xi_channel_free(hears));
    nothing_remains(in, out, &m, NULL);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("calls and groups");
    TCase *t = tcase_create("calls and groups");
    tcase_add_checked_fixture(t, join_both, leave_both);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_group_is_removed_with_requests_in_it);
    tcase_add_test(t, a_reply_acknowledges);
    tcase_add_test(t, another_server_gets_a_request_that_was_not_replied_to);
    tcase_add_test(t, a_request_that_will_not_be_served_is_refused);
    tcase_add_test(t, a_block_is_looked_for_where_it_is);
    tcase_add_test(t, the_caller_hears_of_a_dead_letter);
    tcase_add_test(t, a_listener_that_lags_behind_ends_no_call);
    tcase_add_loop_test(t, a_listener_that_comes_too_late_ends_no_call, 0, 2);
    tcase_add_loop_test(t, a_listener_that_gives_up_ends_no_call, 0, 2);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
