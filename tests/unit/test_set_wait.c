/* SPDX-License-Identifier: MIT */
/*
 * Waits on sets: who is told, and what a wait costs. Threads that sleep are seen
 * by their bell, which is parked for as long as nobody has rung it. Run under
 * both backends by XI_WAIT.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel/set.h"
#include "fixture.h"

static xi_interp *third;
static xi_set *set;

static void join_third(int64_t spin_ns, uint32_t flags) {
    unsetenv("XI_SPIN_US"); /* which counts for more */
    ok(xi_join(&(xi_join_opts){.name = "third", .spin_ns = spin_ns, .flags = flags}, &third));
    ok(xi_set_new(third, &set));
}
static void leave_third(void) {
    xi_set_free(set);
    ok(xi_leave(third));
}

/* Of this test: values that another left undelivered are in other channels. */
static xi_channel *open_as(xi_interp *who, uint32_t flags, int i, const xi_group_opts *group) {
    xi_channel *ch = NULL;
    char name[40];
    snprintf(name, sizeof name, "%lld.%d", (long long)xi_id(me), i);
    ok(xi_open(who, name, &(xi_open_opts){.flags = flags, .capacity = XI_CAPACITY_MIN, .group_opts = group}, &ch));
    return ch;
}
static xi_channel *theirs(int i) { return open_as(third, XI_OPEN_RECV, i, NULL); }
static xi_channel *yours(int i) { return open_as(you, XI_OPEN_SEND, i, NULL); }
static void add(xi_channel *ch, uint64_t key) { ok(xi_set_add(set, ch, XI_READY_RECV, key, 0)); }

static bool readable(int fd, int64_t ns) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n = poll(&p, 1, (int)(ns / MS));
    ck_assert_int_ge(n, 0);
    return n == 1;
}
/* Until it has said that nothing is ready, and is not readable for nothing. */
static void calm(int fd) {
    do fails(XI_E_AGAIN, xi_set_wait(set, &(xi_event){0}, 1, XI_TRY));
    while (readable(fd, 0));
}

/* ------------------------------------------------------------ who is told */

static void *waits(void *argument) {
    xi_event *e = argument;
    int64_t n = xi_set_wait(set, e, 1, 4 * LONG);
    if (n != 1) e->ready = (uint32_t)(int32_t)n;
    return NULL;
}
static pthread_t start_waiting(xi_event *e) {
    pthread_t t;
    *e = (xi_event){0};
    ck_assert_int_eq(pthread_create(&t, NULL, waits, e), 0);
    while (xi_load_full(&set->bell->state) != XI_BELL_PARKED) sched_yield();
    return t;
}
/* What was done while it slept was told it by who did it. It has reason to go: so it does not sleep again before it has. */
static void was_told(void) { ck_assert_uint_ne(xi_load_full(&set->bell->state), XI_BELL_PARKED); }

START_TEST(changes_are_told_to_who_sleeps) {
    xi_event e;
    join_third(-1, 0);
    xi_channel *in = theirs(0), *full = theirs(1), *out = yours(1);
    add(in, 1);
    ok(xi_send_int(out, 5, XI_TRY));
    pthread_t t = start_waiting(&e);
    add(full, 2);
    was_told();
    pthread_join(t, NULL);
    ck_assert_uint_eq(e.key, 2);
    ok(xi_set_remove(set, full));
    t = start_waiting(&e);
    ok(xi_channel_shut(in));
    was_told();
    pthread_join(t, NULL);
    ck_assert_uint_eq(e.ready, XI_READY_LEFT);
    t = start_waiting(&e);
    ok(xi_set_shut(set));
    was_told();
    pthread_join(t, NULL);
    ck_assert_int_eq((int32_t)e.ready, XI_E_LEFT);
    ok(xi_channel_free(out));
    ok(xi_channel_free(full));
    ok(xi_channel_free(in));
    leave_third();
}
END_TEST

/* One that joins with a delivery that comes back by itself: who sleeps, or polls, is to wake for it. */
START_TEST(an_alarm_is_told_to_who_sleeps) {
    xi_group_opts acks = {.flags = XI_GROUP_ACK, .timeout_ns = 300 * MS};
    join_third(-1, 0);
    xi_channel *quiet = theirs(0), *in = open_as(third, XI_OPEN_RECV, 1, &acks), *out = yours(1);
    xi_channel *other = open_as(you, XI_OPEN_RECV, 1, &acks);
    xi_msg m = XI_MSG_INIT;
    xi_event e;
    add(quiet, 1);
    for (int polled = 0; polled < 2; polled++) {
        int fd = polled ? xi_set_fd(set) : -1;
        pthread_t t;
        if (polled) {
            calm(fd);
            pass_time(20 * MS); /* where a thread sleeps behind it, it does so now, and for longer */
        } else {
            t = start_waiting(&e);
        }
        ok(xi_send_int(out, 5, XI_TRY));
        ok(xi_recv(other, &m, XI_TRY));
        uint32_t bell = xi_load_full(&set->bell->bell);
        add(in, 2);
        if (polled) {
            ck_assert(readable(fd, 0));
            int64_t n;
            while ((n = xi_set_wait(set, &e, 1, XI_TRY)) == XI_E_AGAIN) ck_assert(readable(fd, LONG));
            ok(n);
        } else {
            ck_assert_uint_ne(xi_load_full(&set->bell->bell), bell); /* it may sleep again by now */
            pthread_join(t, NULL);
        }
        ck_assert_uint_eq(e.key, 2);
        ck_assert_uint_eq(e.ready, XI_READY_RECV);
        ok(xi_recv(other, &m, LONG)); /* delivered again */
        ok(xi_ack(&m));
        ok(xi_set_remove(set, in));
    }
    xi_msg_release(&m);
    ok(xi_channel_free(other));
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
    ok(xi_channel_free(quiet));
    leave_third();
}
END_TEST

/* Who adds a member need not wait until another, who spins with the set in its hand, gives up. */
START_TEST(who_spins_lets_others_in) {
    xi_event e = {0};
    pthread_t t;
    join_third(20 * LONG, 0);
    xi_channel *in = theirs(0), *full = theirs(1), *out = yours(1);
    add(in, 1);
    ok(xi_send_int(out, 5, XI_TRY));
    ck_assert_int_eq(pthread_create(&t, NULL, waits, &e), 0);
    while (pthread_mutex_trylock(&set->mutex) == 0) {
        pthread_mutex_unlock(&set->mutex);
        sched_yield();
    }
    add(full, 2);
    pthread_join(t, NULL);
    ck_assert_uint_eq(e.key, 2);
    ok(xi_channel_free(out));
    ok(xi_channel_free(full));
    ok(xi_channel_free(in));
    leave_third();
}
END_TEST

/* Who polls is told when its interpreter is to end, and hears it. */
START_TEST(the_end_makes_the_descriptor_readable) {
    join_third(-1, XI_JOIN_REQUIRES_REF);
    ok(xi_ref(me, xi_id(third)));
    int fd = xi_set_fd(set);
    ok(fd);
    calm(fd);
    ok(xi_unref(me, xi_id(third)));
    ck_assert(readable(fd, LONG));
    fails(XI_E_ENDING, xi_set_wait(set, &(xi_event){0}, 1, XI_TRY));
    ck_assert(readable(third->control.fd, LONG)); /* what woke it is read after that, and does not wake for ever */
    ok(xi_sleep_ended(third, XI_WAKE_BELL));
    ck_assert(readable(third->control.fd, 0));
    ok(xi_sleep_ended(third, XI_WAKE_CONTROL));
    ck_assert(!readable(third->control.fd, 0));
    leave_third();
}
END_TEST

/* The other end of the control socket goes: nobody rings for that. The broker that is there is found again. */
START_TEST(a_lost_broker_makes_the_descriptor_readable) {
    join_third(-1, 0);
    int fd = xi_set_fd(set);
    ok(fd);
    calm(fd);
    ck_assert_int_eq(shutdown(third->control.fd, SHUT_RDWR), 0);
    ck_assert(readable(fd, LONG));
    calm(fd);
    ck_assert(!readable(third->control.fd, 0)); /* another, or none: that one was looked at */
    leave_third();
}
END_TEST

/* Blocks that may have come back keep it awake for ever: there is an end to a wait all the same. */
START_TEST(who_is_kept_awake_looks_at_the_time) {
    join_third(-1, 0);
    ok(xi_set_fd(set));
    atomic_store(&third->arena.debt, 1);
    fails(XI_E_AGAIN, xi_set_wait(set, &(xi_event){0}, 1, XI_TRY));
    fails(XI_E_TIMEOUT, xi_set_wait(set, &(xi_event){0}, 1, MS));
    atomic_store(&third->arena.debt, 0);
    leave_third();
}
END_TEST

static void count_up(void *context, uint64_t argument) { *(uint64_t *)context += argument; }

/* Who runs its free functions itself is told that there are any, when it polls too. */
START_TEST(free_functions_that_are_due_end_a_try) {
    uint64_t value = XI_NONE, ran = 0;
    uint32_t index;
    xi_msg m = XI_MSG_INIT;
    join_third(-1, XI_JOIN_MANUAL_FREE);
    xi_channel *out = open_as(third, XI_OPEN_SEND, 0, NULL), *in = open_as(you, XI_OPEN_RECV, 0, NULL);
    int fd = xi_set_fd(set);
    ok(xi_free_register(third, "count", count_up, &ran, &index));
    ok(xi_send_ex(out, &value, 8, &(xi_send_opts){.timeout = XI_TRY, .free_index = index, .free_argument = 1}));
    calm(fd);
    ok(xi_recv(in, &m, XI_TRY));
    xi_msg_release(&m);
    fails(XI_E_INTR, xi_set_wait(set, &(xi_event){0}, 1, XI_TRY));
    ck_assert_int_eq(xi_free_run(third), 1);
    ck_assert_uint_eq(ran, 1);
    calm(fd);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    leave_third();
}
END_TEST

/* -------------------------------------------------------- what it costs */

/* As long as it is told to, or not at all; a try never; and one side of a handle learns nothing from the other. */
START_TEST(a_wait_spins_and_a_try_does_not) {
    for (uint32_t spins = 0; spins < 2; spins++) {
        xi_stats before, after;
        join_third(spins ? LONG : -1, 0);
        xi_channel *in = open_as(third, 0, 0, NULL);
        add(in, 1);
        fails(XI_E_AGAIN, xi_set_wait(set, &(xi_event){0}, 1, XI_TRY));
        ck_assert_uint_eq(set->spin.misses, 0);
        fails(XI_E_TIMEOUT, xi_set_wait(set, &(xi_event){0}, 1, 2 * MS));
        ck_assert_uint_eq(set->spin.misses, spins);
        xi_interp_stats(third, &before);
        fails(XI_E_TIMEOUT, xi_recv(in, &(xi_msg)XI_MSG_INIT, 2 * MS));
        xi_interp_stats(third, &after);
        ck_assert_int_eq(after.parks == before.parks, spins); /* it spins until its time is over */
        ck_assert_uint_eq(in->receive_spin.misses, spins);
        ck_assert_uint_eq(in->send_spin.misses, 0);
        ok(xi_channel_free(in));
        leave_third();
    }
}
END_TEST

/* With a descriptor or without, who waits sleeps once, or a few times, and says what ended it. */
START_TEST(a_wait_sleeps_until_its_time_is_over) {
    join_third(-1, 0);
    xi_channel *in = theirs(0);
    add(in, 1);
    for (int polled = 0; polled < 2; polled++) {
        xi_stats before, after;
        if (polled) ok(xi_set_fd(set));
        xi_interp_stats(third, &before);
        fails(XI_E_TIMEOUT, xi_set_wait(set, &(xi_event){0}, 1, 10 * MS));
        ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_TIMEOUT), "became ready in time"));
        xi_interp_stats(third, &after);
        ck_assert_uint_ge(after.parks, before.parks + 1);
        ck_assert_uint_le(after.parks, before.parks + 20);
        ck_assert_uint_eq(xi_load_relaxed(&third->own->counters.wait_backend), xi_backend(NULL)); /* as tools show it */
    }
    ok(xi_channel_free(in));
    leave_third();
}
END_TEST

static _Atomic bool enough;
static void *marks(void *argument) {
    (void)argument;
    while (!atomic_load(&enough)) {
        xi_store_full(&third->mailbox->ready[0], UINT64_MAX);
        xi_store_full(&third->mailbox->ready_words[0], UINT64_MAX);
    }
    return NULL;
}

/* Members that are marked all the time and have nothing. */
START_TEST(marks_in_vain_end_a_wait_in_time) {
    pthread_t t;
    join_third(-1, 0);
    xi_channel *in = theirs(0);
    add(in, 1);
    ok(xi_set_fd(set));
    atomic_store(&enough, false);
    ck_assert_int_eq(pthread_create(&t, NULL, marks, NULL), 0);
    for (int i = 0; i < 300; i++) {
        fails(XI_E_AGAIN, xi_set_wait(set, &(xi_event){0}, 1, XI_TRY));
        fails(XI_E_TIMEOUT, xi_set_wait(set, &(xi_event){0}, 1, MS / 10));
    }
    atomic_store(&enough, true);
    pthread_join(t, NULL);
    ok(xi_channel_free(in));
    leave_third();
}
END_TEST

/* ------------------------------------------------- order, and what is given back */

START_TEST(priorities_order_any_number) {
    enum { MOST = 24 };
    xi_channel *in[MOST], *out[MOST];
    xi_event e[MOST];
    join_third(-1, 0);
    for (int n = 1; n <= MOST; n++) {
        int i = n - 1;
        in[i] = theirs(i);
        out[i] = yours(i);
        ok(xi_send_int(out[i], 1, XI_TRY));
        ok(xi_set_add(set, in[i], XI_READY_RECV, (uint64_t)i, i * 7 % MOST));
        ck_assert_int_eq(xi_set_wait(set, e, MOST, XI_TRY), n);
        for (int k = 1; k < n; k++) ck_assert_int_gt(e[k - 1].priority, e[k].priority);
    }
    for (int i = 0; i < MOST; i++) {
        ok(xi_channel_free(out[i]));
        ok(xi_channel_free(in[i]));
    }
    leave_third();
}
END_TEST

START_TEST(sets_give_their_bells_back) {
    xi_set *s = NULL;
    for (unsigned i = 0; i <= XI_BELLS_USABLE; i++) {
        ok(xi_set_new(me, &s));
        xi_set_free(s);
    }
}
END_TEST

static unsigned rings_mapped(void) {
    char line[512];
    unsigned n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    ck_assert_ptr_nonnull(maps);
    while (fgets(line, sizeof line, maps)) n += strstr(line, "io_uring") != NULL;
    fclose(maps);
    return n;
}
static void *waits_both_ways(void *argument) {
    xi_set *s = NULL;
    (void)argument;
    ok(xi_set_new(me, &s));
    fails(XI_E_TIMEOUT, xi_set_wait(s, &(xi_event){0}, 1, MS));
    ok(xi_set_fd(s));
    fails(XI_E_TIMEOUT, xi_set_wait(s, &(xi_event){0}, 1, MS));
    xi_set_free(s);
    return NULL;
}

START_TEST(rings_go_with_their_threads) {
    unsigned before = rings_mapped();
    for (int i = 0; i < 8; i++) {
        pthread_t t;
        ck_assert_int_eq(pthread_create(&t, NULL, waits_both_ways, NULL), 0);
        pthread_join(t, NULL);
    }
    ck_assert_uint_eq(rings_mapped(), before);
}
END_TEST

START_TEST(no_descriptor_is_left) {
    struct rlimit limit, none;
    join_third(-1, 0);
    ok(getrlimit(RLIMIT_NOFILE, &limit));
    int next = dup(0);
    ck_assert_int_ge(next, 0);
    close(next);
    none = (struct rlimit){(rlim_t)next, limit.rlim_max};
    ok(setrlimit(RLIMIT_NOFILE, &none));
    int rc = xi_set_fd(set);
    const char *why = xi_error_text(rc);
    ok(setrlimit(RLIMIT_NOFILE, &limit));
    ck_assert_int_lt(rc, 0);
    ck_assert_msg(strstr(why, "pollable descriptor"), "%s", why);
    int fd = xi_set_fd(set);
    ok(fd);
    calm(fd);
    leave_third();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("waits on sets");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_both, leave_both);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, changes_are_told_to_who_sleeps);
    tcase_add_test(t, an_alarm_is_told_to_who_sleeps);
    tcase_add_test(t, who_spins_lets_others_in);
    tcase_add_test(t, the_end_makes_the_descriptor_readable);
    tcase_add_test(t, a_lost_broker_makes_the_descriptor_readable);
    tcase_add_test(t, who_is_kept_awake_looks_at_the_time);
    tcase_add_test(t, free_functions_that_are_due_end_a_try);
    tcase_add_test(t, a_wait_spins_and_a_try_does_not);
    tcase_add_test(t, a_wait_sleeps_until_its_time_is_over);
    tcase_add_test(t, marks_in_vain_end_a_wait_in_time);
    tcase_add_test(t, priorities_order_any_number);
    tcase_add_test(t, sets_give_their_bells_back);
    tcase_add_test(t, rings_go_with_their_threads);
    tcase_add_test(t, no_descriptor_is_left);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
