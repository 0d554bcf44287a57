/* SPDX-License-Identifier: MIT */
/*
 * Values that are kept for groups that join later, in rings that move and in
 * channels that drop their oldest: what is kept goes along and gives way, what a
 * slow group has yet to receive makes the ring grow or is dropped, who joins at
 * any moment begins where it asked to, and every block comes back.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "channel/channel.h"
#include "fixture.h"

#define GROW ((uint64_t)4 << 20)

/* Small values, large ones, and both in turn. */
static size_t size_of(int kind, int64_t i) { return kind == 0 ? 8 : kind == 1 || i % 2 ? 5000 : 40; }
#define KINDS 3

static xi_channel *open_sender(uint32_t retain, uint64_t grow, uint32_t when_full) {
    xi_channel *ch = NULL;
    xi_open_opts o = {.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .capacity = XI_CAPACITY_MIN, .retain = retain,
                      .grow = grow, .when_full = when_full};
    ok(xi_open(me, "kept", &o, &ch));
    return ch;
}
static xi_channel *join_at(const char *group, uint32_t from, uint32_t last) {
    xi_channel *ch = NULL;
    xi_group_opts g = {.from = from, .last = last};
    ok(xi_open(you, "kept", &(xi_open_opts){.flags = XI_OPEN_RECV | XI_OPEN_EXISTING, .group = group, .group_opts = &g}, &ch));
    return ch;
}
static void send_try(xi_channel *ch, int64_t number, size_t size) {
    ok(try_number(ch, number, size, &(xi_send_opts){.timeout = XI_TRY}));
}
static void expect_range(xi_channel *ch, int64_t first, int64_t last) {
    for (int64_t i = first; i <= last; i++) ck_assert_int_eq(take(ch), i);
    nothing_left(ch);
}
/* One that joins at the last so many finds exactly those. */
static void expect_last(uint32_t asked, int64_t first, int64_t last) {
    xi_channel *ch = join_at(NULL, XI_FROM_LAST, asked);
    expect_range(ch, first, last);
    ok(xi_channel_free(ch));
}

static uint64_t capacity_of(xi_channel *ch) {
    xi_channel_info info;
    ok(xi_channel_stat(ch, &info));
    return info.capacity;
}
/* Waits until the ring is that of the channel again: sleepers look at that. */
static void until_home(xi_channel *in) {
    xi_msg m = XI_MSG_INIT;
    int64_t until = xi_now() + LONG;
    while (capacity_of(in) != XI_CAPACITY_MIN) {
        fails(XI_E_TIMEOUT, xi_recv(in, &m, 20 * MS));
        ck_assert_msg(xi_now() < until, "the ring did not come home");
    }
}

static void give_up(xi_channel *out, xi_channel *in) {
    ok(xi_remove(me, "kept"));
    if (in) ok(xi_channel_free(in));
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(out));
}

START_TEST(what_is_kept_goes_along) {
    xi_channel *out = open_sender(5, GROW, 0), *slow = join_at("slow", XI_FROM_TAIL, 0);
    int64_t n = 0;
    for (int round = 0; round < 2; round++) {
        int64_t first = n;
        for (; capacity_of(out) == XI_CAPACITY_MIN || n % 300; n++) send_try(out, n, size_of(_i, n));
        expect_last(5, n - 5, n - 1);          /* in the far ring */
        expect_last(UINT32_MAX, first, n - 1); /* a slow group keeps more than the channel would */
        expect_range(slow, first, n - 1);
        until_home(slow);
        expect_last(7, n - 5, n - 1); /* at home again: what is kept, and no more */
        xi_channel *oldest = join_at("oldest", XI_FROM_OLDEST, 0);
        send_try(out, n, size_of(_i, n));
        expect_range(oldest, n - 5, n);
        ok(xi_channel_free(oldest));
        ok(xi_group_remove(out, "oldest"));
        ck_assert_int_eq(take(slow), n++);
    }
    ck_assert_uint_eq(out->chan->shrunk, out->chan->grown);
    give_up(out, slow);
}
END_TEST

/* It alone makes no ring grow; in one that has grown it may be more than home holds, and then keeps that from coming home. */
START_TEST(what_is_kept_asks_for_no_room) {
    xi_channel *out = open_sender(2000, GROW, 0);
    int64_t n = 0;
    for (; n < 5000; n++) send_try(out, n, 8);
    ck_assert_uint_eq(out->chan->grown, 0);
    xi_channel *slow = join_at("slow", XI_FROM_TAIL, 0);
    for (; n < 10000; n++) send_try(out, n, 8);
    ck_assert_uint_gt(out->chan->grown, 0);
    expect_range(slow, 5000, 9999);
    expect_last(UINT32_MAX, 8000, 9999);
    ck_assert_uint_gt(capacity_of(out), 2000 * 24);
    give_up(out, slow);
}
END_TEST

START_TEST(the_oldest_are_dropped_and_the_last_kept) {
    xi_channel *out = open_sender(4, 0, XI_FULL_DROP), *slow = join_at("slow", XI_FROM_TAIL, 0);
    int64_t n = 0;
    for (; n < 3000; n++) {
        send_try(out, n, size_of(_i, n));
        if (n % 500 == 499) expect_last(4, n - 3, n);
    }
    xi_group_info g[4];
    ck_assert_int_eq(xi_channel_groups(out, g, 4), 1);
    int64_t first = take(slow);
    ck_assert_uint_eq(g[0].dropped, (uint64_t)first);
    ck_assert_int_gt(first, 2000);
    expect_range(slow, first + 1, n - 1);
    expect_last(100, n - 4, n - 1);
    if (_i) ck_assert_uint_le(blocks_out(me), 4);
    give_up(out, slow);
}
END_TEST

/* With a bound of values: as many are kept as may be there, and a slow group's make room for new ones. */
START_TEST(bounded_in_values) {
    xi_channel *out = NULL, *slow;
    xi_open_opts o = {.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .retain = 50, .values = 6, .when_full = XI_FULL_DROP,
                      .grow = GROW, .capacity = XI_CAPACITY_MIN};
    ok(xi_open(me, "kept", &o, &out));
    slow = join_at("slow", XI_FROM_TAIL, 0);
    for (int64_t n = 0; n < 100; n++) send_try(out, n, size_of(_i, n));
    expect_last(UINT32_MAX, 94, 99);
    expect_range(slow, 94, 99);
    give_up(out, slow);
}
END_TEST

/* Who begins at what is kept has it to receive: it counts from then on, whatever was known of the groups before. */
START_TEST(bounded_in_values_for_who_comes_late) {
    xi_channel *out = NULL, *quick, *late;
    xi_open_opts o = {.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .retain = 6, .values = 6, .capacity = XI_CAPACITY_MIN};
    ok(xi_open(me, "kept", &o, &out));
    quick = join_at("quick", XI_FROM_TAIL, 0);
    for (int64_t n = 0; n < 10; n++) {
        send_try(out, n, size_of(_i, n));
        ck_assert_int_eq(take(quick), n);
    }
    late = join_at("late", XI_FROM_OLDEST, 0);
    fails(XI_E_AGAIN, try_number(out, 10, size_of(_i, 10), &(xi_send_opts){.timeout = XI_TRY}));
    expect_range(late, 4, 9);
    send_try(out, 10, size_of(_i, 10));
    ck_assert_int_eq(take(late), 10);
    ok(xi_channel_free(late));
    give_up(out, quick);
}
END_TEST

START_TEST(it_grows_then_drops) {
    uint64_t most = 65536;
    xi_channel *out = open_sender(3, most, XI_FULL_DROP), *slow = join_at("slow", XI_FROM_TAIL, 0);
    int64_t n = 0;
    for (; n < 8000; n++) {
        send_try(out, n, size_of(_i, n));
        if (n % 1000 == 999) expect_last(3, n - 2, n);
    }
    if (_i == 0) ck_assert_uint_eq(capacity_of(out), most);
    int64_t first = take(slow);
    ck_assert_int_gt(first, 0);
    ck_assert_int_lt(first, n - 8);
    expect_range(slow, first + 1, n - 1);
    until_home(slow);
    expect_last(9, n - 3, n - 1);
    give_up(out, slow);
}
END_TEST

/* ------------------------------------------------------------ all at once */

static struct {
    _Atomic bool stop;
    _Atomic int joins;
    _Atomic int64_t sent;
    bool drops;
} C;

static void *send_on(void *argument) {
    xi_channel *out = argument;
    for (int64_t n = 0; !atomic_load(&C.stop); n++) {
        send_number(out, n, size_of(2, n));
        atomic_store(&C.sent, n + 1);
    }
    return NULL;
}

/* In bursts, so that the ring fills and empties. */
static void *receive_in_bursts(void *argument) {
    xi_channel *in = argument;
    xi_msg m = XI_MSG_INIT;
    int64_t last = -1;
    int rc = 0;
    while (rc == 0 || rc == XI_E_TIMEOUT) {
        for (int i = 0; i < 3000 && (rc = xi_recv(in, &m, 200 * MS)) == 0; i++) {
            int64_t n = number_of(&m);
            if (C.drops) ck_assert_int_gt(n, last);
            else ck_assert_int_eq(n, last + 1);
            last = n;
        }
        if (!atomic_load(&C.stop)) pass_time(5 * MS);
    }
    ck_assert_int_eq(rc, XI_E_CLOSED);
    ck_assert_int_eq(last, atomic_load(&C.sent) - 1);
    xi_msg_release(&m);
    return NULL;
}

static void *come_and_go(void *argument) {
    uint32_t last = (uint32_t)(uintptr_t)argument;
    xi_msg m = XI_MSG_INIT;
    while (!atomic_load(&C.stop)) {
        int64_t sent = atomic_load(&C.sent), next = -1;
        xi_channel *in = join_at(NULL, XI_FROM_LAST, last);
        for (int i = 0; i < 60 && xi_recv(in, &m, 100 * MS) == 0; i++) {
            int64_t n = number_of(&m);
            if (next < 0) ck_assert_int_ge(n, sent - (int64_t)last); /* what was sent before it asked is not more than it asked for */
            else if (C.drops) ck_assert_int_ge(n, next);
            else ck_assert_int_eq(n, next);
            next = n + 1;
        }
        xi_msg_reset(&m);
        ok(xi_channel_free(in));
        atomic_fetch_add(&C.joins, 1);
    }
    xi_msg_release(&m);
    return NULL;
}

START_TEST(all_at_once) {
    memset(&C, 0, sizeof C);
    C.drops = _i == 1;
    xi_channel *out = open_sender(8, (uint64_t)1 << 20, C.drops ? XI_FULL_DROP : 0), *in = join_at("bursts", XI_FROM_TAIL, 0);
    pthread_t t[4];
    ck_assert_int_eq(pthread_create(&t[0], NULL, receive_in_bursts, in), 0);
    ck_assert_int_eq(pthread_create(&t[1], NULL, send_on, out), 0);
    for (uintptr_t i = 2; i < 4; i++) ck_assert_int_eq(pthread_create(&t[i], NULL, come_and_go, (void *)(i * 4)), 0);
    int64_t until = xi_now() + 10 * LONG;
    while (atomic_load(&C.joins) < 150 || !out->chan->grown) {
        ck_assert_msg(xi_now() < until, "%d joined, %llu moves", atomic_load(&C.joins), (unsigned long long)out->chan->grown);
        pass_time(MS);
    }
    atomic_store(&C.stop, true);
    for (int i = 1; i < 4; i++) pthread_join(t[i], NULL);
    ok(xi_close(out));
    pthread_join(t[0], NULL);
    give_up(out, in);
}
END_TEST

int main(void) {
    Suite *s = suite_create("kept, grown, dropped");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_both, leave_nothing);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, what_is_kept_goes_along, 0, KINDS);
    tcase_add_test(t, what_is_kept_asks_for_no_room);
    tcase_add_loop_test(t, the_oldest_are_dropped_and_the_last_kept, 0, KINDS);
    tcase_add_loop_test(t, bounded_in_values, 0, KINDS);
    tcase_add_loop_test(t, bounded_in_values_for_who_comes_late, 0, KINDS);
    tcase_add_loop_test(t, it_grows_then_drops, 0, KINDS);
    tcase_add_loop_test(t, all_at_once, 0, 2);
    suite_add_tcase(s, t);
    return run_suite(s);
}
