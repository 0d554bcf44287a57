/* SPDX-License-Identifier: MIT */
/*
 * Each wake counts. Threads that are known to sleep are given one thing to do at
 * a time, and one of them must take it up soon. A wake that is left out now and
 * then, the second of a row, say, is found every time.
 */
#include "sleepers.h"

#define MOST SLEEPERS
#define ROUNDS 6

START_TEST(room_for_one_wakes_one_sender) {
    int n = _i + 1;
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    while (xi_send_int(out, 7, XI_TRY) == 0) continue;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < n; i++) start(i, out, sends_one);
        for (int k = 0; k < n; k++) {
            await_asleep(&out->chan->parked_senders, (unsigned)(n - k), n);
            ck_assert_int_eq(done_of(n), k);
            (void)take(in);
            expect_done(k + 1, n);
        }
        for (int i = 0; i < n; i++) end(i, 0);
    }
    if (n == 1) ck_assert_uint_eq(xi_load_relaxed(&out->chan->wakes), ROUNDS); /* as tools show it */
    let_go(out, in);
}
END_TEST

START_TEST(a_value_wakes_one_receiver) {
    int n = _i + 1;
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < n; i++) start(i, in, receives_one);
        for (int k = 0; k < n; k++) {
            await_asleep(&in->group->parked, (unsigned)(n - k), n);
            ck_assert_int_eq(done_of(n), k);
            ok(xi_send_int(out, 7, XI_TRY));
            expect_done(k + 1, n);
        }
        for (int i = 0; i < n; i++) end(i, 0);
    }
    let_go(out, in);
}
END_TEST

/* So many values at once wake so many; with one call or in one go. */
START_TEST(values_wake_as_many_receivers) {
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    uint64_t value = XI_INT32 | (uint64_t)9 << 32;
    const void *values[MOST] = {&value, &value, &value, &value};
    size_t sizes[MOST] = {8, 8, 8, 8};
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < MOST; i++) start(i, in, receives_one);
        await_asleep(&in->group->parked, MOST, MOST);
        ck_assert_int_eq(xi_send_many(out, values, sizes, 3, XI_TRY), 3);
        expect_done(3, MOST);
        await_asleep(&in->group->parked, 1, MOST);
        ck_assert_int_eq(done_of(MOST), 3);
        ok(xi_send_int(out, 7, XI_TRY));
        expect_done(MOST, MOST);
        for (int i = 0; i < MOST; i++) end(i, 0);
    }
    let_go(out, in);
}
END_TEST

START_TEST(a_value_wakes_one_of_each_group) {
    xi_open_opts opts = {.mode = XI_BROADCAST};
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, opts), *in[MOST];
    for (int i = 0; i < MOST; i++) in[i] = open_here(you, "wakes", XI_OPEN_RECV, opts);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < MOST; i++) start(i, in[i], receives_one);
        for (int i = 0; i < MOST; i++) await_asleep(&in[i]->group->parked, 1, MOST);
        ok(xi_send_int(out, 7, XI_TRY));
        expect_done(MOST, MOST);
        for (int i = 0; i < MOST; i++) end(i, 0);
    }
    for (int i = 0; i < MOST; i++) ok(xi_channel_free(in[i]));
    ok(xi_channel_free(out));
}
END_TEST

int main(void) {
    Suite *s = suite_create("wakes");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_sleepers, leave_both);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, room_for_one_wakes_one_sender, 0, MOST);
    tcase_add_loop_test(t, a_value_wakes_one_receiver, 0, MOST);
    tcase_add_test(t, values_wake_as_many_receivers);
    tcase_add_test(t, a_value_wakes_one_of_each_group);
    suite_add_tcase(s, t);
    return run_suite(s);
}
