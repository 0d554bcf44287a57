/* SPDX-License-Identifier: MIT */
/*
 * Time to live: values that nobody received in time are skipped and counted,
 * those in time are not, in the ring and in blocks, singly and in batches; and
 * an expired block comes back to its owner.
 */

#include "channel/channel.h"
#include "fixture.h"

static void send_dated(xi_channel *ch, int64_t number, size_t size, int64_t ttl) {
    ok(try_number(ch, number, size, &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = ttl}));
}

static xi_channel *open_queue(xi_interp *who, const xi_open_opts *opts) {
    xi_channel *ch;
    ok(xi_open(who, "ttl", opts, &ch));
    return ch;
}

static uint64_t expired(xi_channel *ch) { return xi_load_relaxed(&ch->group->expired); }

static void settle(xi_channel *out, xi_channel *in) {
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}

static const size_t sizes[] = {8, 200, 2000, 60000};

START_TEST(what_is_late_is_skipped_what_is_not_comes) {
    xi_channel *out = open_queue(me, NULL), *in = open_queue(you, NULL);
    size_t size = sizes[_i];
    for (int64_t i = 0; i < 6; i++) send_dated(out, i, size, i % 2 ? 10000000 * MS : MS);
    pass_time(2 * MS);
    xi_msg m = XI_MSG_INIT;
    for (int64_t i = 1; i < 6; i += 2) {
        ok(xi_recv(in, &m, XI_TRY));
        ck_assert_int_eq(number_of(&m), i);
    }
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    ck_assert_uint_eq(expired(in), 3);
    xi_msg_release(&m);
    settle(out, in);
}
END_TEST

START_TEST(batches_skip_what_is_late) {
    xi_channel *out = open_queue(me, NULL), *in = open_queue(you, NULL);
    for (int64_t i = 0; i < 12; i++) send_dated(out, i, i % 4 == 1 ? 60000 : 16, i % 3 == 2 ? MS : i % 3 ? -1 : 0);
    pass_time(2 * MS);
    xi_msg m[16];
    for (int i = 0; i < 16; i++) m[i] = (xi_msg)XI_MSG_INIT;
    ck_assert_int_eq(xi_recv_many(in, m, 16, XI_TRY), 8);
    for (int64_t i = 0, k = 0; i < 12; i++)
        if (i % 3 != 2) ck_assert_int_eq(number_of(&m[k++]), i);
    for (int i = 0; i < 16; i++) xi_msg_release(&m[i]);
    ck_assert_uint_eq(expired(in), 4);
    settle(out, in);
}
END_TEST

START_TEST(a_channel_has_a_time_of_its_own) {
    xi_open_opts opts = {.ttl_ns = MS};
    xi_channel *out = open_queue(me, &opts), *in = open_queue(you, NULL);
    const uint64_t none = XI_NONE;
    const void *values[3] = {&none, &none, &none};
    const size_t lengths[3] = {8, 8, 8};
    ok(xi_send_int(out, 1, XI_TRY));
    ck_assert_int_eq(xi_send_many(out, values, lengths, 3, XI_TRY), 3);
    send_dated(out, 2, 60000, 0);
    send_dated(out, 3, 60000, -1); /* for ever */
    send_dated(out, 4, 16, 10000000 * MS);
    pass_time(2 * MS);
    xi_msg m = XI_MSG_INIT;
    ok(xi_recv(in, &m, XI_TRY));
    ck_assert_int_eq(number_of(&m), 3);
    ok(xi_recv(in, &m, XI_TRY));
    ck_assert_int_eq(number_of(&m), 4);
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    ck_assert_uint_eq(expired(in), 5);
    xi_msg_release(&m);
    settle(out, in);
}
END_TEST

/* Also where its slot was another group's before. */
START_TEST(a_new_group_has_counted_nothing) {
    xi_open_opts opts = {.mode = XI_BROADCAST, .ttl_ns = MS};
    xi_channel *out, *in;
    ok(xi_open(me, "ttl", &(xi_open_opts){.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .ttl_ns = MS}, &out));
    xi_msg m = XI_MSG_INIT;
    for (int i = 0; i < 2; i++) {
        ok(xi_open(you, "ttl", &opts, &in));
        ck_assert_uint_eq(in->group_index, 0);
        ck_assert_uint_eq(expired(in), 0);
        ok(xi_send_int(out, 1, XI_TRY));
        pass_time(2 * MS);
        fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
        ck_assert_uint_eq(expired(in), 1);
        ok(xi_channel_free(in));
    }
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(values_that_expire_give_room_and_blocks_back) {
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN};
    xi_channel *out = open_queue(me, &opts), *in = open_queue(you, NULL);
    xi_msg m = XI_MSG_INIT;
    xi_stats stats;
    for (int turn = 0; turn < 300; turn++) {
        send_dated(out, turn, turn % 2 ? 5000 : 400, 1);
        send_dated(out, turn, turn % 2 ? 400 : 5000, -1);
        while (xi_recv(in, &m, 0) == 0) ck_assert_int_eq(number_of(&m), turn);
    }
    xi_msg_release(&m);
    ck_assert_uint_eq(expired(in), 300);
    xi_loan loan;
    ok(xi_loan_get(me, 8, &loan)); /* makes the arena look */
    xi_loan_drop(&loan);
    ok(xi_free_run(me));
    xi_interp_stats(me, &stats);
    ck_assert_uint_le(stats.blocks, 4); /* it looks at a few at a time */
    settle(out, in);
}
END_TEST

START_TEST(a_receiver_waits_on_when_all_is_late) {
    xi_channel *out = open_queue(me, NULL), *in = open_queue(you, NULL);
    xi_msg m = XI_MSG_INIT;
    send_dated(out, 1, 16, 1);
    pass_time(MS);
    fails(XI_E_TIMEOUT, xi_recv(in, &m, 5 * MS));
    ck_assert_uint_eq(expired(in), 1);
    send_dated(out, 2, 16, 1);
    pass_time(MS);
    ok(xi_close(out));
    fails(XI_E_CLOSED, xi_recv(in, &m, 5000 * MS));
    ck_assert_uint_eq(expired(in), 2);
    settle(out, in);
}
END_TEST

int main(void) {
    Suite *s = suite_create("time to live");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, join_both, leave_nothing);
    tcase_add_loop_test(t, what_is_late_is_skipped_what_is_not_comes, 0, 4);
    tcase_add_test(t, batches_skip_what_is_late);
    tcase_add_test(t, a_channel_has_a_time_of_its_own);
    tcase_add_test(t, a_new_group_has_counted_nothing);
    tcase_add_test(t, values_that_expire_give_room_and_blocks_back);
    tcase_add_test(t, a_receiver_waits_on_when_all_is_late);
    suite_add_tcase(s, t);
    return run_suite(s);
}
