/* SPDX-License-Identifier: MIT */
/*
 * Wakes that are passed on: who was woken has done what it came for, or goes
 * without doing it, and there is something left for another who sleeps. In some
 * of these a sleeper's bit is taken out of the mask for a moment, as by a waker
 * that was stopped with the claim in its hand.
 */
#include "sleepers.h"

#define SHORT (150 * MS)

static int receives_shortly(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    int rc = xi_recv(ch, &m, SHORT);
    xi_msg_release(&m);
    return rc;
}

static void fill(xi_channel *out) {
    while (xi_send_int(out, 7, XI_TRY) == 0) continue;
}

/* The room of one large value is room for several small ones; its receiver wakes one sender. */
START_TEST(room_for_several_reaches_several_senders) {
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    send_number(out, 1, 400);
    fill(out);
    for (int i = 0; i < SLEEPERS; i++) start(i, out, sends_one);
    await_asleep(&out->chan->parked_senders, SLEEPERS, SLEEPERS);
    ck_assert_int_eq(take(in), 1);
    expect_done(SLEEPERS, SLEEPERS);
    for (int i = 0; i < SLEEPERS; i++) end(i, 0);
    let_go(out, in);
}
END_TEST

/* A member of the group that is quick sleeps at the end of a full channel; what is dropped is dropped for one that is slow. */
START_TEST(a_send_that_drops_is_heard) {
    xi_open_opts opts = {.mode = XI_BROADCAST, .when_full = XI_FULL_DROP, .values = 2};
    xi_channel *out = open_here(me, "news", XI_OPEN_SEND, opts), *quick = open_here(you, "news", XI_OPEN_RECV, opts);
    opts.group = "slow";
    xi_channel *slow = open_here(you, "news", XI_OPEN_RECV, opts);
    for (int i = 1; i <= 2; i++) {
        ok(xi_send_int(out, i, XI_TRY));
        ck_assert_int_eq(take(quick), i);
    }
    start(0, quick, receives_one);
    await_asleep(&quick->group->parked, 1, 1);
    ok(xi_send_int(out, 3, XI_TRY));
    expect_done(1, 1);
    end(0, 0);
    ck_assert_int_eq(take(slow), 2);
    ok(xi_channel_free(quick));
    let_go(out, slow);
}
END_TEST

/* ---- a claim in somebody's hand */

static uint64_t hidden;

static void hide(struct xi_mask *m) {
    hidden = xi_load_full(&m->word[0]);
    xi_store_full(&m->word[0], 0);
}
static void show(xi_channel *ch, struct xi_mask *m, uint64_t bits) {
    (void)xi_or_full(&m->word[0], bits);
    (void)xi_or_full(&ch->chan->parked_groups, (uint64_t)1 << ch->group_index);
}

/*
 * Sleepers of a group that acknowledges wake when something is overdue, if they knew of it when they fell asleep. Who
 * makes it so tells one of those who did not; and who knew and goes tells another.
 */
START_TEST(what_will_be_overdue_is_known_to_one_who_sleeps) {
    xi_group_opts group = {.flags = XI_GROUP_ACK, .timeout_ns = (_i ? 600 : 450) * MS};
    xi_channel *out = open_here(me, "jobs", XI_OPEN_SEND, (xi_open_opts){0});
    xi_channel *in = open_here(you, "jobs", XI_OPEN_RECV, (xi_open_opts){.group_opts = &group});
    struct xi_mask *parked = &in->group->parked;
    xi_msg m = XI_MSG_INIT;
    start(0, in, receives_one);
    await_asleep(parked, 1, 1);
    hide(parked);
    ok(xi_send_int(out, 7, XI_TRY));
    if (_i == 0) { /* the receiver tells */
        show(in, parked, hidden);
        ok(xi_recv(in, &m, XI_TRY));
    } else { /* it cannot: but one comes who knows, and goes */
        ok(xi_recv(in, &m, XI_TRY));
        start(1, in, receives_shortly);
        await_asleep(parked, 1, 1);
        show(in, parked, hidden);
        end(1, XI_E_TIMEOUT);
    }
    ck_assert_int_eq(done_of(1), 0);
    expect_done(1, 1); /* delivered again */
    end(0, 0);
    xi_msg_release(&m);
    let_go(out, in);
}
END_TEST

/* Who sleeps until something is overdue goes on sleeping when that was settled meanwhile: its own time is not over. */
START_TEST(what_is_settled_in_time_ends_no_wait) {
    xi_group_opts group = {.flags = XI_GROUP_ACK, .timeout_ns = 100 * MS};
    xi_channel *out = open_here(me, "jobs", XI_OPEN_SEND, (xi_open_opts){0});
    xi_channel *in = open_here(you, "jobs", XI_OPEN_RECV, (xi_open_opts){.group_opts = &group});
    xi_msg m = XI_MSG_INIT;
    ok(xi_send_int(out, 7, XI_TRY));
    ok(xi_recv(in, &m, XI_TRY));
    start(0, in, receives_one);
    await_asleep(&in->group->parked, 1, 1);
    int rc = xi_ack(&m);
    if (rc == 0) { /* in time: not on a machine that was busy for so long */
        pass_time(120 * MS);
        ck_assert_int_eq(done_of(1), 0);
        ok(xi_send_int(out, 7, XI_TRY));
    }
    end(0, 0);
    xi_msg_release(&m);
    let_go(out, in);
}
END_TEST

int main(void) {
    Suite *s = suite_create("wakes that are passed on");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_sleepers, leave_both);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, room_for_several_reaches_several_senders);
    tcase_add_test(t, a_send_that_drops_is_heard);
    tcase_add_loop_test(t, what_will_be_overdue_is_known_to_one_who_sleeps, 0, 2);
    tcase_add_test(t, what_is_settled_in_time_ends_no_wait);
    suite_add_tcase(s, t);
    return run_suite(s);
}
