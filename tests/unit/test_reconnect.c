/* SPDX-License-Identifier: MIT */
/*
 * What a broker that comes after one that was killed is told of: each handle that
 * is open, once, and none that is being closed, wherever the death falls; what was
 * given back; and what it is not to be asked again.
 */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sleepers.h"

static void (*at_mapping)(void); /* what happens at the next shared mapping of this process; once */
static bool fail_mapping;        /* which then fails */

void *mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset) {
    void (*now)(void) = flags & MAP_SHARED ? at_mapping : NULL;
    if (now) {
        at_mapping = NULL;
        now();
        if (fail_mapping) {
            fail_mapping = false;
            errno = ENOMEM;
            return MAP_FAILED;
        }
    }
    return (void *)syscall(SYS_mmap, at, size, prot, flags, fd, offset);
}

static void kill_broker(void) {
    int pid = xi_observer_broker_pid(xi_observer_of(me));
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
}

/* And another takes its place, which is told what this process has open. */
static void change_broker(void) {
    kill_broker();
    int64_t until = xi_now() + LONG;
    uint64_t connection = me->control.connection;
    while (me->control.connection == connection || atomic_load(&me->control.fd) < 0) {
        ck_assert_int_lt(xi_now(), until);
        xi_control_drain(me);
    }
}

static uint32_t handles(xi_channel *ch) {
    xi_channel_info info;
    ok(xi_channel_stat(ch, &info));
    return info.handles;
}

static void sends_to_itself(xi_channel *ch) {
    send_number(ch, 7, 100);
    ck_assert_int_eq(take(ch), 7);
    nothing_left(ch);
}

static xi_channel *open_one(const char *name, uint32_t flags) {
    xi_channel *ch;
    ok(xi_open(me, name, &(xi_open_opts){.flags = flags}, &ch));
    return ch;
}

/* A handle that is closed when its broker has just died takes no other of the same kind along. */
START_TEST(closing_one_of_two_leaves_the_other) {
    static const uint32_t kinds[] = {0, XI_OPEN_SEND, XI_OPEN_RECV};
    xi_channel *one = open_one("two", kinds[_i]), *other = open_one("two", kinds[_i]);
    ck_assert_uint_eq(handles(other), 2);
    kill_broker();
    ok(xi_channel_free(one));
    ck_assert_uint_eq(handles(other), 1);
    if (kinds[_i] == 0) sends_to_itself(other);
    ok(xi_channel_free(other));
}
END_TEST

/* Nor does one whose broker died before, over which another thread connected anew. */
START_TEST(closing_after_a_change_is_counted_once) {
    xi_channel *one = open_one("two", 0), *other = open_one("two", 0);
    change_broker();
    ck_assert_uint_eq(handles(other), 2);
    ok(xi_channel_free(one));
    ck_assert_uint_eq(handles(other), 1);
    sends_to_itself(other);
    ok(xi_channel_free(other));
}
END_TEST

/* Answered by the old broker, not yet known to whoever tells the new one: it is open there nevertheless, once. */
START_TEST(a_handle_that_is_being_opened_is_counted) {
    xi_channel *before = _i ? open_one("opened", 0) : NULL;
    at_mapping = change_broker;
    xi_channel *ch = open_one(_i ? "other" : "opened", 0);
    ck_assert_ptr_null(at_mapping);
    ck_assert_uint_eq(handles(ch), 1);
    if (before) ck_assert_uint_eq(handles(before), 1);
    sends_to_itself(ch);
    ok(xi_channel_free(ch));
    ok(xi_channel_free(before));
}
END_TEST

/* The mapping fails, and meanwhile there is another broker, which does not count it: nothing is taken back from that one. */
START_TEST(an_open_that_fails_takes_nothing_back) {
    xi_channel *ch = open_one("kept", 0), *none = NULL;
    at_mapping = change_broker;
    fail_mapping = true;
    ck_assert_int_lt(xi_open(me, "failed", NULL, &none), 0);
    ck_assert_ptr_null(none);
    ck_assert_uint_eq(handles(ch), 1);
    sends_to_itself(ch);
    ok(xi_channel_free(ch));
}
END_TEST

static int broker_pid(void) { return xi_observer_broker_pid(xi_observer_of(me)); }

/* What the broker counts as this interpreter's memory. */
static uint64_t arena_at_broker(void) {
    xi_interp_info info[4];
    int64_t n = xi_list_interps(xi_observer_of(me), info, 4);
    ok(n);
    for (int64_t i = 0; i < n; i++)
        if (info[i].id == xi_id(me)) return info[i].arena_bytes;
    ck_abort_msg("this interpreter is not listed");
}

#define LOANS 8

/* Segments that were given back when the broker could not hear it any more are given back to the next. */
START_TEST(what_was_given_back_is_not_kept) {
    xi_loan loans[LOANS];
    for (int i = 0; i < LOANS; i++) ok(xi_loan_get(me, 70 << 20, &loans[i])); /* a segment for each */
    uint64_t before = arena_at_broker();
    for (int i = 0; i < LOANS; i++) xi_loan_drop(&loans[i]);
    ck_assert_int_eq(kill(broker_pid(), SIGSTOP), 0);
    ck_assert_int_gt(xi_trim(me), (int64_t)LOANS * (70 << 20));
    change_broker();
    int64_t until = xi_now() + LONG;
    while (arena_at_broker() + (uint64_t)LOANS * (70 << 20) > before) {
        ck_assert_int_lt(xi_now(), until);
        pass_time(MS);
    }
    xi_channel *ch = open_one("given", 0); /* and it goes on */
    send_number(ch, 3, 100000);
    ck_assert_int_eq(take(ch), 3);
    ok(xi_channel_free(ch));
}
END_TEST

/*
 * A broker whose answers nobody reads reads nothing more itself: whoever asks it something then takes them in, or each would
 * wait for the other.
 */
START_TEST(answers_not_awaited_do_not_pile_up) {
    struct xi_request req;
    uint32_t posted = 0;
    xi_request_init(&req, XI_OP_DROP);
    req.a = 0xfffffff0;
    ck_assert_int_eq(kill(broker_pid(), SIGSTOP), 0);
    while (xi_control_post(me, &req)) ck_assert_uint_lt(++posted, 1 << 20);
    ck_assert_uint_gt(posted, 10);
    ck_assert_int_eq(kill(broker_pid(), SIGCONT), 0);
    for (int i = 0; i < 100; i++) ok(xi_channel_free(open_one("asked", 0)));
    for (uint32_t i = 0; i < 20 * posted; i++) (void)xi_control_post(me, &req);
    ok(xi_channel_free(open_one("asked", 0)));
}
END_TEST

/* Nor is a channel removed that somebody made by that name after the removal that a dead broker could not answer. */
static int removes_it(xi_channel *ch) { return xi_remove(me, xi_channel_name(ch)); }
START_TEST(a_removal_asked_again_spares_the_next) {
    xi_channel *old = open_one("renewed", 0), *ch;
    pthread_mutex_lock(&me->control.mutex); /* as if the first request was carried out, and not answered: */
    start(0, old, removes_it);
    while (!is_asleep(&S[0])) sched_yield();
    ok(xi_remove(you, "renewed"));
    ok(xi_open(you, "renewed", NULL, &ch));
    ck_assert_uint_ne(ch->id, old->id);
    pthread_mutex_unlock(&me->control.mutex);
    end(0, XI_E_NOENT);
    sends_to_itself(ch);
    ok(xi_channel_free(ch));
    ok(xi_channel_free(old));
}
END_TEST

int main(void) {
    Suite *s = suite_create("reconnect");
    TCase *t = tcase_create("reconnect");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, join_both, leave_both);
    tcase_add_loop_test(t, closing_one_of_two_leaves_the_other, 0, 3);
    tcase_add_test(t, closing_after_a_change_is_counted_once);
    tcase_add_loop_test(t, a_handle_that_is_being_opened_is_counted, 0, 2);
    tcase_add_test(t, an_open_that_fails_takes_nothing_back);
    tcase_add_test(t, what_was_given_back_is_not_kept);
    tcase_add_test(t, answers_not_awaited_do_not_pile_up);
    tcase_add_test(t, a_removal_asked_again_spares_the_next);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
