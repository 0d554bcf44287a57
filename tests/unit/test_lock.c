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
    leave_both();
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

int main(void) {
    Suite *s = suite_create("locks");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, open_both, close_both);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, a_try_waits_a_moment_for_one_that_lives, 0, 2);
    tcase_add_loop_test(t, a_word_that_names_nobody_is_an_error, 0, getenv("XI_TEST_LONG") ? 8 : 1);
    tcase_add_loop_test(t, freeing_is_heard, 0, 2);
    tcase_add_test(t, freeing_wakes_all);
    tcase_add_test(t, a_barrier_everywhere_is_used_where_there_is_one);
    tcase_add_test(t, closing_the_handle_ends_the_wait);
    suite_add_tcase(s, t);
    return run_suite(s);
}
