/* SPDX-License-Identifier: MIT */
/*
 * A lock that stays taken: by one that lives and is stopped it is waited for, as
 * long as the caller says; one whose word names nobody alive is an error, after a
 * second in which a death would have been repaired.
 */
#include <linux/membarrier.h>
#include <sys/syscall.h>

#include "sleepers.h"

#define RECEIVES 0
#define SENDS 1

static struct {
    xi_channel *in, *out;
} C;

static xi_a32 *lock_of(int side) { return side == SENDS ? &C.out->chan->lock : &C.in->group->lock; }
static xi_a32 *sleep_word_of(int side) { return side == SENDS ? &C.out->chan->lock_sleep : &C.in->group->lock_sleep; }
static int call(int side, int64_t timeout) {
    xi_msg m = XI_MSG_INIT;
    int rc = side == SENDS ? xi_send_int(C.out, 1, timeout) : xi_recv(C.in, &m, timeout);
    xi_msg_release(&m);
    return rc;
}

static void open_both(void) {
    join_sleepers();
    C.out = open_here(me, "locked", XI_OPEN_SEND, (xi_open_opts){0});
    C.in = open_here(you, "locked", XI_OPEN_RECV, (xi_open_opts){0});
    ok(xi_send_int(C.out, 1, XI_TRY));
}
static void close_both(void) {
    xi_store_full(&C.in->group->lock, 0);
    xi_store_full(&C.out->chan->lock, 0);
    let_go(C.out, C.in);
    leave_nothing();
}

START_TEST(a_try_waits_a_moment_for_one_that_lives) {
    xi_store_full(lock_of(_i), _i == SENDS ? C.in->lock_word : C.out->lock_word);
    int64_t begun = xi_now();
    fails(XI_E_AGAIN, call(_i, XI_TRY));
    int64_t took = xi_now() - begun;
    ck_assert_int_ge(took, XI_LOCK_PATIENCE_NS);
    if (_i == SENDS) ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_AGAIN), "is it stopped?"));
    int64_t longer = _i == SENDS ? 50 * MS : 1300 * MS; /* the receiver: for longer than one that names nobody would be */
    begun = xi_now();
    fails(XI_E_TIMEOUT, call(_i, longer));
    ck_assert_int_ge(xi_now() - begun, longer);
    xi_store_full(lock_of(_i), 0);
    ok(call(_i, XI_TRY));
}
END_TEST

START_TEST(a_word_that_names_nobody_is_an_error) {
    static const uint32_t nobody[] = {XI_LOCK_OF(XI_MAX_INTERPS - 1), XI_LOCK_OF(XI_MAX_INTERPS), UINT32_MAX,
                                      XI_LOCK_OF(0)}; /* the broker, which repairs, is given longer */
    xi_store_full(lock_of(_i % 2), nobody[_i / 2]);
    int64_t begun = xi_now();
    fails(XI_E_CORRUPT, call(_i % 2, 20000 * MS));
    int64_t took = xi_now() - begun;
    ck_assert_int_ge(took, 900 * MS);
    ck_assert_int_lt(took, 10000 * MS);
    xi_store_full(lock_of(_i % 2), 0);
    ok(call(_i % 2, XI_TRY));
}
END_TEST

/* Time counts from when the word was first seen, and anew when others had the lock in between: the broker, say, repairs twice. */
static int calls_for_long(xi_channel *ch) { return call(ch == C.in ? RECEIVES : SENDS, 20000 * MS); }

START_TEST(a_word_that_comes_again_is_judged_anew) {
    xi_store_full(lock_of(_i), XI_LOCK_OF(0));
    start(0, _i == SENDS ? C.out : C.in, calls_for_long);
    while (!(xi_load_full(sleep_word_of(_i)) & 1)) sched_yield();
    pass_time(100 * MS);
    xi_store_full(lock_of(_i), _i == SENDS ? C.in->lock_word : C.out->lock_word);
    pass_time(5200 * MS);
    xi_store_full(lock_of(_i), XI_LOCK_OF(0));
    pass_time(100 * MS);
    xi_unlock_words(lock_of(_i), sleep_word_of(_i));
    end(0, 0);
}
END_TEST

static int receives_briefly(xi_channel *ch) { return ch == C.in ? call(RECEIVES, LONG) : call(SENDS, LONG); }

/* Who sleeps for the lock is woken by who frees it. */
START_TEST(freeing_is_heard) {
    for (int round = 0; round < 3; round++) {
        xi_store_full(lock_of(_i), _i == SENDS ? C.in->lock_word : C.out->lock_word);
        start(0, _i == SENDS ? C.out : C.in, receives_briefly);
        while (!(xi_load_full(sleep_word_of(_i)) & 1) || !is_asleep(&S[0])) sched_yield();
        xi_unlock_words(lock_of(_i), sleep_word_of(_i));
        expect_done(1, 1);
        end(0, 0);
        ck_assert_uint_eq(xi_load_full(sleep_word_of(_i)) & 1, 0);
        ok(xi_send_int(C.out, 1, XI_TRY));
    }
}
END_TEST

static int sleeps_for_it(xi_channel *ch) { return xi_futex_wait(&ch->chan->lock_sleep, 1, xi_now() + LONG); }

/* All of them, by the wake: these do not look by themselves every 10 ms, as those do who wait for a lock. */
START_TEST(freeing_wakes_all) {
    xi_store_full(&C.out->chan->lock, C.in->lock_word);
    xi_store_full(&C.out->chan->lock_sleep, 1);
    for (int i = 0; i < 2; i++) start(i, C.out, sleeps_for_it);
    while (!is_asleep(&S[0]) || !is_asleep(&S[1])) sched_yield();
    xi_unlock_words(&C.out->chan->lock, &C.out->chan->lock_sleep);
    for (int i = 0; i < 2; i++) end(i, 0);
}
END_TEST

/* What the kernel says is what is gone by: else every unlocking pays for a barrier, or none does. */
START_TEST(a_barrier_everywhere_is_used_where_there_is_one) {
    bool works = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
    ck_assert_int_eq(xi_lock_prepare(), works);
    ck_assert_int_eq(xi_load_relaxed(&xi_lock_fenced), !works);
}
END_TEST

static int closes(xi_channel *ch) { return xi_channel_free(ch); }

/* Who sleeps for a lock through a handle that is closed meanwhile goes at its next look. */
START_TEST(closing_the_handle_ends_the_wait) {
    xi_channel *other = open_here(you, "locked", XI_OPEN_RECV, (xi_open_opts){0});
    xi_store_full(&C.in->group->lock, C.out->lock_word);
    start(0, other, receives_one);
    while (!(xi_load_full(&C.in->group->lock_sleep) & 1) || !is_asleep(&S[0])) sched_yield();
    start(1, other, closes);
    end(0, XI_E_LEFT);
    end(1, 0);
}
END_TEST

/* ---- what a handle's end needs of locks */

static bool is_there(const xi_channel *ch, uint32_t group) { return xi_load_full(&ch->chan->active) >> group & 1; }

static xi_channel *join_alone(uint32_t flags) {
    xi_group_opts opts = {.flags = XI_GROUP_TEMPORARY | flags};
    return open_here(you, "locked", XI_OPEN_RECV, (xi_open_opts){.group_opts = &opts});
}

/* Starts the call, which wants the lock, and lets it look in vain twice. */
static void start_in_vain(xi_a32 *lock, xi_a32 *lock_sleep, xi_channel *ch, int (*end_it)(xi_channel *ch)) {
    xi_store_full(lock, C.out->lock_word);
    start(0, ch, end_it);
    while (!(xi_load_full(lock_sleep) & 1) || !is_asleep(&S[0])) sched_yield();
    pass_time(30 * MS);
}

/* The lock is to be had some looks later: the group has ended nevertheless. */
START_TEST(a_group_ends_with_its_handle_though_a_lock_is_held) {
    xi_channel *own = join_alone(_i & 2 ? XI_GROUP_ACK : 0);
    uint32_t group = own->group_index;
    struct xi_group *g = own->group;
    if (_i & 1) start_in_vain(&g->lock, &g->lock_sleep, own, closes);
    else start_in_vain(&own->chan->lock, &own->chan->lock_sleep, own, closes);
    ck_assert_int_eq(done_of(1), 0);
    if (_i & 1) xi_unlock_words(&g->lock, &g->lock_sleep);
    else xi_unlock_words(&C.out->chan->lock, &C.out->chan->lock_sleep);
    end(0, 0);
    ck_assert(!is_there(C.out, group));
    ck_assert_uint_eq(xi_load_full(&g->flags) & XI_GROUP_F_ORPHAN, 0); /* which the place's next group must not find */
    ck_assert_uint_eq(xi_load_full(&g->lock), 0);
    ck_assert_uint_eq(xi_load_full(&C.out->chan->lock), 0);
}
END_TEST

/* And what the handle had, of a group that goes on, is given back. */
START_TEST(what_a_handle_had_is_given_back_though_a_lock_is_held) {
    xi_group_opts group = {.flags = XI_GROUP_ACK};
    xi_channel *out = open_here(me, "given", XI_OPEN_SEND, (xi_open_opts){0});
    xi_channel *in = open_here(you, "given", XI_OPEN_RECV, (xi_open_opts){.group_opts = &group});
    xi_channel *other = open_here(me, "given", XI_OPEN_RECV, (xi_open_opts){.group_opts = &group});
    struct xi_group *g = in->group;
    xi_msg m = XI_MSG_INIT, again = XI_MSG_INIT;
    ok(xi_send_int(out, 1, XI_TRY));
    ok(xi_recv(in, &m, XI_TRY));
    start_in_vain(&g->lock, &g->lock_sleep, in, closes);
    ck_assert_int_eq(done_of(1), 0);
    xi_unlock_words(&g->lock, &g->lock_sleep);
    end(0, 0);
    ok(xi_recv(other, &again, XI_TRY));
    ok(xi_ack(&again));
    xi_msg_release(&again);
    xi_msg_release(&m);
    let_go(out, other);
}
END_TEST

static xi_msg late;
static int releases(xi_channel *ch) {
    (void)ch;
    xi_msg_release(&late);
    return 0;
}

/* Likewise a delivery that is let go of when its handle has been closed: its block is free then. */
START_TEST(a_delivery_ends_behind_its_handle_though_a_lock_is_held) {
    xi_group_opts group = {.flags = XI_GROUP_ACK};
    xi_channel *out = open_here(me, "given", XI_OPEN_SEND, (xi_open_opts){0});
    xi_channel *in = open_here(you, "given", XI_OPEN_RECV, (xi_open_opts){.group_opts = &group});
    xi_channel *other = open_here(me, "given", XI_OPEN_RECV, (xi_open_opts){.group_opts = &group});
    struct xi_group *g = in->group;
    xi_msg again = XI_MSG_INIT;
    send_number(out, 1, 20000);
    ok(xi_recv(in, &late, XI_TRY));
    ok(xi_channel_free(in)); /* given back; but the block is still read */
    ok(xi_recv(other, &again, XI_TRY));
    ok(xi_ack(&again));
    xi_msg_release(&again);
    ck_assert_uint_eq(blocks_out(me), 1);
    start_in_vain(&g->lock, &g->lock_sleep, NULL, releases);
    ck_assert_int_eq(done_of(1), 0);
    xi_unlock_words(&g->lock, &g->lock_sleep);
    end(0, 0);
    ck_assert_uint_eq(blocks_out(me), 0);
    let_go(out, other);
}
END_TEST

/*
 * Whoever holds the lock is stopped for so long that the handle is closed without: the group is an orphan. Nobody waits for
 * it: who finds the channel full ends it, asleep by then or not; and it counts for no limit.
 */
START_TEST(an_orphan_is_ended_by_who_finds_the_channel_full) {
    xi_channel *own = join_alone(_i == 1 ? XI_GROUP_ACK : 0);
    uint32_t group = own->group_index;
    xi_msg m = XI_MSG_INIT;
    ok(xi_recv(C.in, &m, XI_TRY)); /* the one that was there before the group */
    while (xi_send_int(C.out, 2, XI_TRY) == 0) continue;
    if (_i == 1) ok(xi_recv(own, &m, XI_TRY)); /* and is not acknowledged */
    while (xi_recv(C.in, &m, XI_TRY) == 0) continue;
    if (_i == 2) {
        start(1, C.out, sends_one);
        while (bits_set(&C.out->chan->parked_senders) == 0 || !is_asleep(&S[1])) sched_yield();
    }
    xi_store_full(&C.out->chan->lock, C.out->lock_word);
    ok(xi_channel_free(own));
    ck_assert(is_there(C.out, group));
    xi_unlock_words(&C.out->chan->lock, &C.out->chan->lock_sleep);
    if (_i == 2) end(1, 0);
    else ok(xi_send_int(C.out, 3, XI_TRY));
    ck_assert(!is_there(C.out, group));
    ck_assert_uint_eq(xi_load_full(&C.out->chan->groups[group].lock), 0);
    xi_msg_release(&m);
}
END_TEST

/* And while a lock is held still it stays: nobody else's lock is opened, and what was said before is what is said after. */
START_TEST(an_orphan_stays_while_a_lock_is_held) {
    xi_channel *own = join_alone(0);
    uint32_t group = own->group_index;
    xi_a32 *lock = _i ? &own->group->lock : &C.out->chan->lock;
    char said[200];
    xi_store_full(lock, C.out->lock_word);
    ok(xi_channel_free(own));
    if (_i) lock = &C.out->chan->groups[group].lock;
    ck_assert(xi_group_orphaned(C.out));
    fails(XI_E_INVAL, xi_group_remove(C.out, ""));
    snprintf(said, sizeof said, "%s", xi_error_text(XI_E_INVAL));
    ck_assert(!xi_group_end_orphan(C.out));
    ck_assert_str_eq(xi_error_text(XI_E_INVAL), said);
    ck_assert(is_there(C.out, group));
    ck_assert_uint_eq(xi_load_full(lock), C.out->lock_word);
    xi_store_full(lock, 0);
    ck_assert_uint_eq(xi_load_full(&C.out->chan->lock), 0);
    ck_assert(xi_group_end_orphan(C.out));
    ck_assert(!is_there(C.out, group));
    ck_assert(!xi_group_orphaned(C.out));
}
END_TEST

/* It stays where there is room for further groups, and makes room for one more than there is. */
START_TEST(an_orphan_makes_room_for_a_group) {
    xi_channel *own = join_alone(0), *others[XI_MAX_GROUPS], *more = NULL;
    uint32_t group = own->group_index, n = 0;
    xi_store_full(&C.out->chan->lock, C.out->lock_word);
    ok(xi_channel_free(own));
    xi_store_full(&C.out->chan->lock, 0);
    while (n < XI_MAX_GROUPS - 2) others[n++] = join_alone(0); /* beside it and the channel's own */
    ck_assert(xi_group_orphaned(C.out));
    others[n++] = join_alone(0);
    ck_assert(!xi_group_orphaned(C.out));
    ck_assert_uint_eq(others[n - 1]->group_index, group);
    xi_group_opts opts = {.flags = XI_GROUP_TEMPORARY};
    fails(XI_E_LIMIT, xi_open(you, xi_channel_name(C.out), &(xi_open_opts){.flags = XI_OPEN_RECV, .group_opts = &opts}, &more));
    while (n) ok(xi_channel_free(others[--n]));
}
END_TEST

int main(void) {
    Suite *s = suite_create("locks");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, open_both, close_both);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, a_try_waits_a_moment_for_one_that_lives, 0, 2);
    tcase_add_loop_test(t, a_word_that_names_nobody_is_an_error, 0, getenv("XI_TEST_LONG") ? 8 : 1);
    tcase_add_loop_test(t, a_word_that_comes_again_is_judged_anew, 0, getenv("XI_TEST_LONG") ? 2 : 0);
    tcase_add_loop_test(t, freeing_is_heard, 0, 2);
    tcase_add_test(t, freeing_wakes_all);
    tcase_add_test(t, a_barrier_everywhere_is_used_where_there_is_one);
    tcase_add_test(t, closing_the_handle_ends_the_wait);
    tcase_add_loop_test(t, a_group_ends_with_its_handle_though_a_lock_is_held, 0, 4);
    tcase_add_test(t, what_a_handle_had_is_given_back_though_a_lock_is_held);
    tcase_add_test(t, a_delivery_ends_behind_its_handle_though_a_lock_is_held);
    tcase_add_loop_test(t, an_orphan_is_ended_by_who_finds_the_channel_full, 0, 3);
    tcase_add_loop_test(t, an_orphan_stays_while_a_lock_is_held, 0, 2);
    tcase_add_test(t, an_orphan_makes_room_for_a_group);
    suite_add_tcase(s, t);
    return run_suite(s);
}
