/* SPDX-License-Identifier: MIT */
/*
 * Sets, as a program sees them: what is reported and until when, order, waking,
 * joining and leaving while somebody waits, the pollable descriptor; and what
 * garbage in a mailbox does to them. Two interpreters in one process. Run under
 * both backends by XI_WAIT.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel/set.h"
#include "fixture.h"

static xi_set *set;

static void setup(void) {
    join_both();
    ok(xi_set_new(me, &set));
}
static void teardown(void) {
    xi_set_free(set);
    leave_both();
}

/* Of this test: values that another left undelivered are in other channels. */
static xi_channel *open_as(xi_interp *who, uint32_t flags, int i) {
    xi_channel *ch = NULL;
    char name[40];
    snprintf(name, sizeof name, "%lld.%d", (long long)xi_id(me), i);
    ok(xi_open(who, name, &(xi_open_opts){.flags = flags, .capacity = XI_CAPACITY_MIN}, &ch));
    return ch;
}
static xi_channel *mine(int i) { return open_as(me, XI_OPEN_RECV, i); }
static xi_channel *yours(int i) { return open_as(you, XI_OPEN_SEND, i); }
static void add(xi_channel *ch, uint64_t key) { ok(xi_set_add(set, ch, XI_READY_RECV, key, 0)); }

static void expect_event(uint64_t key, uint32_t ready, int64_t timeout) {
    xi_event e;
    int64_t n = xi_set_wait(set, &e, 1, timeout);
    ok(n);
    ck_assert_int_eq(n, 1);
    ck_assert_uint_eq(e.key, key);
    ck_assert_uint_eq(e.ready, ready);
}
static void expect_nothing(void) { fails(XI_E_AGAIN, xi_set_wait(set, &(xi_event){0}, 1, XI_TRY)); }
static void drain(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    while (xi_recv(ch, &m, XI_TRY) == 0) continue;
    xi_msg_release(&m);
}

/* Until the thread in xi_set_wait() sleeps: its bell is parked. */
static void await_sleep(void) {
    while (xi_load_full(&set->bell->state) != XI_BELL_PARKED) sched_yield();
}

START_TEST(what_is_ready_is_reported_until_it_is_not) {
    xi_channel *in[2] = {mine(0), mine(1)}, *out = yours(1);
    for (int i = 0; i < 2; i++) add(in[i], 10 + (uint64_t)i);
    expect_nothing();
    ok(xi_send_int(out, 1, XI_TRY));
    ok(xi_send_int(out, 2, XI_TRY));
    for (int i = 0; i < 3; i++) expect_event(11, XI_READY_RECV, XI_TRY);
    xi_msg m = XI_MSG_INIT;
    ok(xi_recv(in[1], &m, XI_TRY));
    expect_event(11, XI_READY_RECV, XI_FOREVER);
    ok(xi_recv(in[1], &m, XI_TRY));
    expect_nothing();
    fails(XI_E_TIMEOUT, xi_set_wait(set, &(xi_event){0}, 1, 5 * MS));
    ok(xi_send_int(out, 3, XI_TRY));
    expect_event(11, XI_READY_RECV, XI_FOREVER);
    ok(xi_set_remove(set, in[1]));
    expect_nothing();
    fails(XI_E_NOENT, xi_set_remove(set, in[1]));
    for (int i = 0; i < 2; i++) ok(xi_channel_free(in[i]));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(what_was_there_before_it_was_added_is_reported) {
    xi_channel *in = mine(0), *out = yours(0);
    ok(xi_send_int(out, 1, XI_TRY));
    add(in, 5);
    expect_event(5, XI_READY_RECV, XI_TRY);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
    expect_event(5, XI_READY_LEFT, XI_TRY);
    expect_nothing();
}
END_TEST

START_TEST(room_to_send_is_reported) {
    xi_channel *out = open_as(me, XI_OPEN_SEND, 0), *in = open_as(you, XI_OPEN_RECV, 0);
    int64_t n = 0;
    while (xi_send_int(out, n, XI_TRY) == 0) n++;
    ok(xi_set_add(set, out, XI_READY_SEND, 7, 0));
    expect_nothing();
    xi_msg m = XI_MSG_INIT;
    for (int i = 0; i < 8; i++) ok(xi_recv(in, &m, XI_TRY));
    expect_event(7, XI_READY_SEND, XI_FOREVER);
    while (xi_send_int(out, n, XI_TRY) == 0) n++;
    expect_nothing();
    ok(xi_close(in));
    expect_event(7, XI_READY_CLOSED, XI_FOREVER);
    xi_msg_release(&m);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(both_sides_of_one_handle_are_members) {
    xi_channel *ch = open_as(me, 0, 0);
    xi_event e[2];
    ok(xi_set_add(set, ch, XI_READY_RECV | XI_READY_SEND, 3, 0));
    fails(XI_E_INVAL, xi_set_add(set, ch, XI_READY_SEND, 4, 0));
    ck_assert_int_eq(xi_set_wait(set, e, 2, XI_TRY), 1);
    ck_assert_uint_eq(e[0].ready, XI_READY_SEND);
    ok(xi_send_int(ch, 1, XI_TRY));
    ck_assert_int_eq(xi_set_wait(set, e, 2, XI_TRY), 2);
    ck_assert_uint_eq(e[0].ready | e[1].ready, XI_READY_SEND | XI_READY_RECV);
    ok(xi_set_remove(set, ch));
    fails(XI_E_AGAIN, xi_set_wait(set, e, 2, XI_TRY));
    drain(ch);
    ok(xi_channel_free(ch));
}
END_TEST

START_TEST(a_closed_channel_is_drained_first) {
    xi_channel *in = mine(0), *out = yours(0);
    add(in, 1);
    expect_nothing();
    ok(xi_send_int(out, 1, XI_TRY));
    ok(xi_close(out));
    expect_event(1, XI_READY_RECV, XI_TRY);
    drain(in);
    expect_event(1, XI_READY_CLOSED, XI_TRY);
    expect_event(1, XI_READY_CLOSED, XI_FOREVER);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

START_TEST(higher_priorities_come_first_and_equals_take_turns) {
    xi_channel *in[6], *out[6];
    int turns[6] = {0};
    for (int i = 0; i < 6; i++) {
        in[i] = mine(i);
        out[i] = yours(i);
        ok(xi_set_add(set, in[i], XI_READY_RECV, (uint64_t)i, i < 4 ? 1 : 9));
    }
    expect_nothing();
    for (int i = 0; i < 6; i++) ok(xi_send_int(out[i], i, XI_TRY));
    xi_event e[6];
    ck_assert_int_eq(xi_set_wait(set, e, 6, XI_TRY), 6);
    for (int i = 0; i < 6; i++) ck_assert_int_eq(e[i].priority, i < 2 ? 9 : 1);
    for (int i = 0; i < 10; i++) {
        expect_event((uint64_t)(4 + i % 2), XI_READY_RECV, XI_TRY);
    }
    drain(in[4]);
    drain(in[5]);
    for (int i = 0; i < 40; i++) {
        ck_assert_int_eq(xi_set_wait(set, e, 1, XI_TRY), 1);
        turns[e[0].key]++;
    }
    for (int i = 0; i < 4; i++) ck_assert_int_eq(turns[i], 10);
    ok(xi_send_int(out[4], 1, XI_TRY));
    expect_event(4, XI_READY_RECV, XI_TRY);
    for (int i = 0; i < 6; i++) {
        ok(xi_channel_free(in[i]));
        ok(xi_channel_free(out[i]));
    }
}
END_TEST

START_TEST(errors_say_what_is_wrong) {
    xi_channel *out = open_as(me, XI_OPEN_SEND, 0), *in = mine(0), *other = open_as(you, 0, 0);
    fails(XI_E_INVAL, xi_set_add(set, out, XI_READY_RECV, 0, 0));
    fails(XI_E_INVAL, xi_set_add(set, in, XI_READY_SEND, 0, 0));
    fails(XI_E_INVAL, xi_set_add(set, in, 0, 0, 0));
    fails(XI_E_INVAL, xi_set_add(set, in, XI_READY_CLOSED, 0, 0));
    fails(XI_E_INVAL, xi_set_add(set, other, XI_READY_RECV, 0, 0));
    add(in, 1);
    fails(XI_E_INVAL, xi_set_add(set, in, XI_READY_RECV, 0, 0));
    fails(XI_E_INVAL, xi_set_wait(set, NULL, 1, XI_TRY));
    fails(XI_E_INVAL, xi_set_wait(set, &(xi_event){0}, 0, XI_TRY));
    ok(xi_channel_shut(in));
    fails(XI_E_LEFT, xi_set_add(set, in, XI_READY_RECV, 0, 0));
    ok(xi_set_remove(set, in)); /* before it was reported as left */
    expect_nothing();
    ok(xi_channel_free(other));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_channel_has_512_waiters_and_members) {
    xi_channel *in[600] = {0};
    int n = 0, rc = 0;
    for (; rc == 0; n++) {
        in[n] = mine(0);
        rc = xi_set_add(set, in[n], XI_READY_RECV, (uint64_t)n, 0);
    }
    ck_assert_int_eq(rc, XI_E_LIMIT);
    ck_assert_int_eq(n, XI_MAX_WAITERS + 1);
    ok(xi_set_remove(set, in[17]));
    add(in[n - 1], 1);
    for (int i = 0; i < n; i++) ok(xi_channel_free(in[i]));
}
END_TEST

START_TEST(sets_share_the_members_of_an_interpreter) {
    xi_set *sets[XI_MAX_MEMBERS / 64];
    xi_channel *in = mine(0), *last = mine(1);
    int n = 0, rc = 0;
    for (; n < (int)(XI_MAX_MEMBERS / 64); n++) {
        ok(xi_set_new(me, &sets[n]));
        if (rc == 0) rc = xi_set_add(sets[n], in, XI_READY_RECV, 1, 0);
        ok(rc);
    }
    fails(XI_E_LIMIT, xi_set_add(set, last, XI_READY_RECV, 1, 0));
    xi_channel *out = yours(0);
    ok(xi_send_int(out, 1, XI_TRY)); /* one value, and each set hears of it */
    for (int i = 0; i < n; i++) {
        xi_event e;
        ck_assert_int_eq(xi_set_wait(sets[i], &e, 1, XI_TRY), 1);
        xi_set_free(sets[i]);
    }
    add(last, 1);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
    ok(xi_channel_free(last));
}
END_TEST

/* --------------------------------------------------------------- sleeping */

static xi_channel *outs[1000];

static void *sends_when_asleep(void *argument) {
    await_sleep();
    ok(xi_send_int(outs[(intptr_t)argument], 1, XI_FOREVER));
    return NULL;
}

START_TEST(a_sleeping_set_is_woken) {
    xi_channel *in[8];
    for (int i = 0; i < 8; i++) {
        in[i] = mine(i);
        outs[i] = yours(i);
        add(in[i], (uint64_t)i);
    }
    for (intptr_t k = 0; k < 200; k++) {
        pthread_t t;
        pthread_create(&t, NULL, sends_when_asleep, (void *)(k * 5 % 8));
        expect_event((uint64_t)(k * 5 % 8), XI_READY_RECV, 10000 * MS);
        pthread_join(t, NULL);
        drain(in[k * 5 % 8]);
    }
    xi_stats stats;
    xi_interp_stats(me, &stats);
    ck_assert_uint_ge(stats.parks, 200);
    for (int i = 0; i < 8; i++) {
        ok(xi_channel_free(in[i]));
        ok(xi_channel_free(outs[i]));
    }
}
END_TEST

START_TEST(of_a_thousand_one_is_ready) {
    enum { MANY = 1000 };
    xi_channel *in[MANY];
    for (int i = 0; i < MANY; i++) {
        in[i] = mine(i);
        outs[i] = yours(i);
        add(in[i], (uint64_t)i);
    }
    expect_nothing();
    for (int k = 0; k < 5000; k++) {
        int i = k * 7919 % MANY;
        ok(xi_send_int(outs[i], k, XI_TRY));
        expect_event((uint64_t)i, XI_READY_RECV, XI_FOREVER);
        drain(in[i]);
        if (k % 3 == 0) expect_nothing();
        ck_assert_uint_le(set->due_count, 17); /* what a wait looks at, however many there are */
    }
    for (int i = 0; i < MANY; i++) ok(xi_send_int(outs[i], i, XI_TRY));
    static xi_event events[MANY];
    static bool seen[MANY];
    for (int got = 0; got < MANY; got += 100) {
        ck_assert_int_eq(xi_set_wait(set, events, 100, XI_TRY), 100);
        for (int k = 0; k < 100; k++) {
            ck_assert(!seen[events[k].key]);
            seen[events[k].key] = true;
        }
    }
    for (int i = 0; i < MANY; i++) {
        ok(xi_channel_free(in[i]));
        ok(xi_channel_free(outs[i]));
    }
}
END_TEST

/* A member of a set is told, and whoever sleeps to receive as well: a set need not receive. */
static void *receives_one(void *argument) {
    xi_msg m = XI_MSG_INIT;
    ok(xi_recv(argument, &m, 10000 * MS));
    xi_msg_release(&m);
    return NULL;
}
static void await_waiters(xi_channel *ch, uint32_t n) {
    xi_channel_info info;
    do ok(xi_channel_stat(ch, &info));
    while (info.waiting < n);
}

START_TEST(a_set_does_not_swallow_the_wake_of_a_thread) {
    xi_channel *in = mine(0), *also = mine(0), *out = yours(0);
    for (int k = 0; k < 200; k++) {
        pthread_t t;
        add(in, 1);
        expect_nothing();
        pthread_create(&t, NULL, receives_one, also);
        await_waiters(out, 2);
        ok(xi_send_int(out, k, XI_TRY));
        pthread_join(t, NULL);
        expect_nothing();
        ok(xi_set_remove(set, in));
    }
    ok(xi_channel_free(in));
    ok(xi_channel_free(also));
    ok(xi_channel_free(out));
}
END_TEST

/* ------------------------------------------------ while another thread waits */

static void *waits(void *argument) {
    xi_event *e = argument;
    int64_t n = xi_set_wait(set, e, 1, 20000 * MS);
    if (n != 1) e->ready = (uint32_t)(int32_t)n;
    return NULL;
}
static pthread_t start_waiting(xi_event *e) {
    pthread_t t;
    *e = (xi_event){0};
    pthread_create(&t, NULL, waits, e);
    await_sleep();
    return t;
}

START_TEST(members_come_while_another_waits) {
    xi_channel *quiet = mine(0), *in = mine(1), *out = yours(1);
    xi_event e;
    add(quiet, 0);
    pthread_t t = start_waiting(&e);
    add(in, 1);
    ok(xi_send_int(out, 5, XI_TRY));
    pthread_join(t, NULL);
    ck_assert_uint_eq(e.key, 1);
    ok(xi_set_remove(set, in));
    t = start_waiting(&e);
    add(in, 2); /* it holds a value already */
    pthread_join(t, NULL);
    ck_assert_uint_eq(e.key, 2);
    ck_assert_uint_eq(e.ready, XI_READY_RECV);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
    ok(xi_channel_free(quiet));
}
END_TEST

START_TEST(members_go_while_another_waits) {
    xi_channel *a = mine(0), *b = mine(1), *to_a = yours(0), *to_b = yours(1);
    xi_event e;
    add(a, 1);
    add(b, 2);
    pthread_t t = start_waiting(&e);
    ok(xi_set_remove(set, a));
    ok(xi_send_int(to_a, 1, XI_TRY));
    ok(xi_send_int(to_b, 1, XI_TRY));
    pthread_join(t, NULL);
    ck_assert_uint_eq(e.key, 2);
    drain(b);
    t = start_waiting(&e);
    ok(xi_channel_shut(b));
    pthread_join(t, NULL);
    ck_assert_uint_eq(e.key, 2);
    ck_assert_uint_eq(e.ready, XI_READY_LEFT);
    add(a, 3);
    drain(a);
    t = start_waiting(&e);
    ok(xi_channel_free(a));
    pthread_join(t, NULL);
    ck_assert_uint_eq(e.ready, XI_READY_LEFT);
    ck_assert_ptr_eq(e.channel, a);
    expect_nothing();
    ok(xi_channel_free(b));
    ok(xi_channel_free(to_a));
    ok(xi_channel_free(to_b));
}
END_TEST

START_TEST(a_close_wakes_a_set) {
    xi_channel *in = mine(0), *out = yours(0);
    xi_event e;
    add(in, 4);
    pthread_t t = start_waiting(&e);
    ok(xi_close(out));
    pthread_join(t, NULL);
    ck_assert_uint_eq(e.ready, XI_READY_CLOSED);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(leaving_ends_a_wait) {
    xi_interp *third;
    ok(xi_join(&(xi_join_opts){.name = "third"}, &third));
    xi_set *mine_ = set;
    xi_event e;
    ok(xi_set_new(third, &set));
    xi_channel *in = open_as(third, 0, 0);
    add(in, 1);
    pthread_t t = start_waiting(&e);
    ok(xi_leave(third));
    pthread_join(t, NULL);
    ck_assert_int_eq((int32_t)e.ready, XI_E_LEFT);
    fails(XI_E_LEFT, xi_set_wait(set, &e, 1, XI_TRY));
    fails(XI_E_LEFT, xi_set_add(set, in, XI_READY_RECV, 1, 0));
    ok(xi_set_remove(set, in));
    xi_set_free(set);
    ok(xi_channel_free(in));
    set = mine_;
}
END_TEST

START_TEST(shutting_a_set_ends_a_wait) {
    xi_channel *in = mine(0), *other = mine(1);
    xi_event e;
    add(in, 1);
    for (int polled = 0; polled < 2; polled++) {
        if (polled) ck_assert_int_ge(xi_set_fd(set), 0);
        pthread_t t = start_waiting(&e);
        ok(xi_set_shut(set));
        ok(xi_set_shut(set));
        pthread_join(t, NULL);
        ck_assert_int_eq((int32_t)e.ready, XI_E_LEFT);
        fails(XI_E_LEFT, xi_set_wait(set, &e, 1, XI_TRY));
        fails(XI_E_LEFT, xi_set_add(set, other, XI_READY_RECV, 1, 0));
        xi_set_free(set);
        ok(xi_set_new(me, &set));
        add(in, 2);
    }
    ok(xi_channel_free(other));
    ok(xi_channel_free(in));
}
END_TEST

static void on_signal(int number) { (void)number; }
static _Atomic bool interrupted;
static void *interrupts(void *argument) {
    while (!atomic_load(&interrupted)) {
        await_sleep();
        pthread_kill(*(pthread_t *)argument, SIGUSR1);
        sched_yield();
        if (atomic_load(&interrupted)) break;
    }
    return NULL;
}

START_TEST(a_signal_ends_a_wait) {
    pthread_t self = pthread_self(), t;
    xi_channel *in = mine(0);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART}, NULL);
    add(in, 1);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        if (with_fd) ok(xi_set_fd(set));
        atomic_store(&interrupted, false);
        pthread_create(&t, NULL, interrupts, &self);
        fails(XI_E_INTR, xi_set_wait(set, &(xi_event){0}, 1, 20000 * MS));
        atomic_store(&interrupted, true);
        (void)xi_exchange_full(&set->bell->state, XI_BELL_PARKED); /* it may be waiting for another sleep */
        pthread_join(t, NULL);
        (void)xi_exchange_full(&set->bell->state, XI_BELL_IDLE);
    }
    ok(xi_channel_free(in));
}
END_TEST

/* ---------------------------------------------------- the pollable descriptor */

static bool readable(int fd, int timeout_ms) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n = poll(&p, 1, timeout_ms);
    ck_assert_int_ge(n, 0);
    return n == 1;
}

START_TEST(the_descriptor_is_readable_when_something_is_ready) {
    xi_channel *in = mine(0), *out = yours(0);
    add(in, 1);
    int fd = xi_set_fd(set);
    ok(fd);
    ck_assert_int_eq(xi_set_fd(set), fd);
    ck_assert_int_eq(xi_pollfd_is_ring(set->poll), xi_probe_wait(NULL, 0)); /* no thread where the kernel does it */
    ck_assert(!readable(fd, 0));
    for (int k = 0; k < 300; k++) {
        ok(xi_send_int(out, k, XI_TRY));
        ck_assert(readable(fd, 10000));
        expect_event(1, XI_READY_RECV, XI_TRY);
        ck_assert(readable(fd, 0)); /* as long as something may be ready */
        drain(in);
        expect_nothing();
        while (readable(fd, 0)) expect_nothing(); /* it may be for nothing, but not for ever */
    }
    ck_assert(readable(fd, 3000)); /* once a second it is, so that the loop looks */
    expect_nothing();
    ok(xi_channel_free(in));
    ck_assert(readable(fd, 0));
    expect_event(1, XI_READY_LEFT, XI_TRY);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_member_that_is_ready_makes_the_descriptor_readable) {
    xi_channel *in = mine(0), *out = yours(0);
    int fd = xi_set_fd(set);
    ok(fd);
    ck_assert(!readable(fd, 0));
    ok(xi_send_int(out, 1, XI_TRY));
    add(in, 1);
    ck_assert(readable(fd, 0));
    expect_event(1, XI_READY_RECV, XI_FOREVER);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_set_with_a_descriptor_can_be_waited_on_too) {
    xi_channel *in = mine(0);
    outs[0] = yours(0);
    add(in, 1);
    int fd = xi_set_fd(set);
    ok(fd);
    for (int k = 0; k < 100; k++) {
        pthread_t t;
        pthread_create(&t, NULL, sends_when_asleep, NULL);
        expect_event(1, XI_READY_RECV, 10000 * MS);
        pthread_join(t, NULL);
        drain(in);
        fails(XI_E_TIMEOUT, xi_set_wait(set, &(xi_event){0}, 1, k % 10 ? 1 : 2 * MS));
    }
    ok(xi_channel_free(in));
    ok(xi_channel_free(outs[0]));
}
END_TEST

static void *looks_and_ends(void *argument) {
    *(int *)argument = xi_set_fd(set);
    expect_nothing();
    return NULL;
}

START_TEST(threads_may_take_turns_with_the_descriptor) {
    xi_channel *in = mine(0), *out = yours(0);
    int fd = -1;
    pthread_t t;
    add(in, 1);
    for (int k = 0; k < 50; k++) {
        pthread_create(&t, NULL, looks_and_ends, &fd);
        pthread_join(t, NULL);
        ok(fd);
        if (k % 2) expect_nothing();
        ok(xi_send_int(out, k, XI_TRY));
        ck_assert(readable(fd, 900)); /* before the look that comes once a second */
        while (xi_set_wait(set, &(xi_event){0}, 1, XI_TRY) == XI_E_AGAIN) ck_assert(readable(fd, 900));
        drain(in);
    }
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(an_event_loop_can_have_it) {
    xi_channel *in = mine(0);
    outs[0] = yours(0);
    add(in, 1);
    int fd = xi_set_fd(set), loop = epoll_create1(EPOLL_CLOEXEC);
    ok(fd);
    struct epoll_event ev = {.events = EPOLLIN};
    ck_assert_int_eq(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &ev), 0);
    for (int k = 0; k < 200; k++) {
        pthread_t t;
        expect_nothing();
        pthread_create(&t, NULL, sends_when_asleep, NULL);
        do {
            int n = epoll_wait(loop, &ev, 1, 10000);
            ck_assert_msg(n == 1, "epoll_wait gave %d, %s", n, strerror(errno));
        } while (xi_set_wait(set, &(xi_event){0}, 1, XI_TRY) == XI_E_AGAIN);
        pthread_join(t, NULL);
        drain(in);
    }
    close(loop);
    ok(xi_channel_free(in));
    ok(xi_channel_free(outs[0]));
}
END_TEST

START_TEST(leaving_makes_the_descriptor_readable) {
    xi_interp *third;
    xi_set *s;
    ok(xi_join(&(xi_join_opts){.name = "third"}, &third));
    ok(xi_set_new(third, &s));
    int fd = xi_set_fd(s);
    ok(fd);
    ck_assert(!readable(fd, 0));
    ok(xi_leave(third));
    ck_assert(readable(fd, 0));
    fails(XI_E_LEFT, xi_set_wait(s, &(xi_event){0}, 1, XI_TRY));
    xi_set_free(s);
}
END_TEST

START_TEST(a_forked_child_can_free_it_and_no_more) {
    xi_channel *in = mine(0), *out = yours(0);
    add(in, 1);
    ok(xi_set_fd(set));
    pid_t pid = fork();
    if (pid == 0) {
        bool right = xi_set_wait(set, &(xi_event){0}, 1, XI_TRY) == XI_E_FORKED &&
                     xi_set_add(set, in, XI_READY_RECV, 1, 0) == XI_E_FORKED && xi_set_fd(set) == XI_E_FORKED;
        xi_set_free(set);
        _exit(right ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ok(xi_send_int(out, 1, XI_TRY));
    ck_assert(readable(xi_set_fd(set), 900));
    expect_event(1, XI_READY_RECV, XI_TRY);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* --------------------------------------------------- groups that acknowledge */

static xi_channel *acking(int i, int64_t timeout_ns, uint32_t window) {
    xi_channel *ch = NULL;
    char name[40];
    xi_group_opts g = {.flags = XI_GROUP_ACK, .timeout_ns = timeout_ns, .window = window};
    snprintf(name, sizeof name, "%lld.%d", (long long)xi_id(me), i);
    ok(xi_open(me, name, &(xi_open_opts){.flags = XI_OPEN_RECV, .group_opts = &g}, &ch));
    return ch;
}

/* Nobody rings when a delivery becomes overdue, or is to be repeated by now. */
START_TEST(what_is_due_again_is_reported_in_time) {
    xi_channel *in = acking(0, 40 * MS, 0), *other = acking(0, 40 * MS, 0), *out = yours(0);
    xi_msg m = XI_MSG_INIT;
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        if (with_fd) ok(xi_set_fd(set));
        add(in, 1);
        expect_nothing();
        ok(xi_send_int(out, 5, XI_TRY));
        ok(xi_recv(other, &m, XI_TRY));
        for (int how = 0; how < 3; how++) {
            int64_t begun = xi_now();
            if (how == 1) ok(xi_nack(&m, 30 * MS));
            if (how == 2) ok(xi_nack(&m, 0));
            do fails(0, xi_set_wait(set, &(xi_event){0}, 1, 5000 * MS) == 1 ? 0 : -1);
            while (xi_recv(other, &m, XI_TRY) == XI_E_AGAIN); /* a look too many is allowed */
            int64_t took = xi_now() - begun;
            ck_assert_int_lt(took, 700 * MS);
            ck_assert_int_ge(took, how == 2 ? 0 : 25 * MS);
            if (how == 0) expect_nothing();
        }
        ok(xi_ack(&m));
        expect_nothing();
        ok(xi_set_remove(set, in));
    }
    xi_msg_release(&m);
    ok(xi_channel_free(other));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_window_that_opens_is_reported) {
    xi_channel *in = acking(0, 0, 2), *other = acking(0, 0, 2), *out = yours(0);
    xi_msg m[2] = {XI_MSG_INIT, XI_MSG_INIT};
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        if (with_fd) ok(xi_set_fd(set));
        add(in, 1);
        for (int i = 0; i < 3; i++) ok(xi_send_int(out, i, XI_TRY));
        for (int i = 0; i < 2; i++) ok(xi_recv(other, &m[i], XI_TRY));
        expect_nothing();
        ok(xi_ack(&m[0]));
        expect_event(1, XI_READY_RECV, 500 * MS);
        ok(xi_recv(in, &m[0], XI_TRY));
        for (int i = 0; i < 2; i++) ok(xi_ack(&m[i]));
        expect_nothing();
        ok(xi_set_remove(set, in));
    }
    ok(xi_close(out));
    add(in, 1);
    expect_event(1, XI_READY_CLOSED, XI_TRY);
    ok(xi_channel_free(other));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* --------------------------------------------------------- what peers can do */

START_TEST(garbage_in_the_mailbox_costs_a_look) {
    xi_channel *in[70], *out = yours(3);
    for (int i = 0; i < 70; i++) {
        in[i] = mine(i);
        add(in[i], (uint64_t)i);
    }
    expect_nothing();
    for (int k = 0; k < 20; k++) {
        for (uint32_t i = 0; i < XI_MAX_MEMBERS / 64; i++) xi_store_full(&me->mailbox->ready[i], UINT64_MAX);
        for (uint32_t i = 0; i < XI_MAX_MEMBERS / 64 / 64; i++) xi_store_full(&me->mailbox->ready_words[i], UINT64_MAX);
        if (k % 2) expect_nothing();
        else fails(XI_E_TIMEOUT, xi_set_wait(set, &(xi_event){0}, 1, MS));
    }
    ok(xi_send_int(out, 1, XI_TRY));
    expect_event(3, XI_READY_RECV, XI_TRY);
    drain(in[3]);
    expect_nothing();
    /* Entries of the channel: members that are none, bells that are none, other interpreters'. */
    struct xi_chan *c = in[3]->chan;
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++) {
        if (xi_load_relaxed(&c->waiters[i])) continue;
        uint64_t w = (uint64_t)1 << 63 | (uint64_t)(i % 7) | (uint64_t)(i * 131 & 0xffff) << 16 | (uint64_t)(i * 977 & 0x7fff) << 48;
        xi_store_full(&c->waiters[i], w);
        (void)xi_or_full(&c->groups[0].parked.word[i / 64], (uint64_t)1 << (i % 64));
    }
    ok(xi_send_int(out, 2, XI_TRY));
    expect_event(3, XI_READY_RECV, XI_FOREVER);
    /* The first bell that is none lies in what follows the bells, and is not rung. */
    xi_a64 *next = &me->mailbox->ready_words[0];
    xi_store_full(next, (uint64_t)XI_BELL_PARKED << 32);
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++) xi_store_full(&c->groups[0].parked.word[i], 0);
    xi_store_full(&c->waiters[7], XI_WAITER(me->slot, XI_BELLS_USABLE, XI_SIDE_GROUP(0)));
    xi_store_full(&c->groups[0].parked.word[0], 1 << 7);
    ok(xi_send_int(out, 3, XI_TRY));
    ck_assert_uint_eq(xi_load_full(&c->groups[0].parked.word[0]), 0);
    ck_assert_uint_eq(xi_load_full(next), (uint64_t)XI_BELL_PARKED << 32);
    /* The first member that is none: what follows the members' bits are calls. */
    xi_store_full(&c->waiters[7], XI_WAITER_OF_MEMBER(me->slot, 0, XI_SIDE_GROUP(0), XI_MAX_MEMBERS));
    xi_store_full(&c->groups[0].parked.word[0], 1 << 7);
    (void)xi_or_full(&c->parked_groups, 1);
    ok(xi_send_int(out, 4, XI_TRY));
    ck_assert_uint_eq(xi_load_full(&c->groups[0].parked.word[0]), 0);
    ck_assert_uint_eq(xi_load_full(&me->mailbox->calls[0]), 0);
    for (int i = 0; i < 70; i++) ok(xi_channel_free(in[i]));
    ok(xi_channel_free(out));
}
END_TEST

/* A waker that is stopped between claiming the bit and marking: the set looks by itself once a second. */
START_TEST(a_mark_that_never_comes_is_made_up_for) {
    xi_channel *in = mine(0), *out = yours(0);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        if (with_fd) ok(xi_set_fd(set));
        add(in, 1);
        expect_nothing();
        for (uint32_t i = 0; i < XI_MASK_WORDS; i++) xi_store_full(&in->group->parked.word[i], 0); /* claimed */
        ok(xi_send_int(out, 1, XI_TRY));
        expect_event(1, XI_READY_RECV, 5000 * MS);
        drain(in);
        ok(xi_set_remove(set, in));
    }
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* Deliveries that come back by themselves at different times: the set wakes for the sooner, whichever joined first. */
START_TEST(the_soonest_alarm_counts) {
    xi_channel *in[2], *out[2];
    xi_msg m = XI_MSG_INIT;
    xi_group_opts acks = {.flags = XI_GROUP_ACK};
    int64_t begun = xi_now();
    for (int i = 0; i < 2; i++) {
        char name[40];
        snprintf(name, sizeof name, "%lld.due.%d", (long long)xi_id(me), i);
        ok(xi_open(me, name, &(xi_open_opts){.flags = XI_OPEN_RECV, .group_opts = &acks}, &in[i]));
        ok(xi_open(you, name, &(xi_open_opts){.flags = XI_OPEN_SEND}, &out[i]));
        add(in[i], (uint64_t)i);
        ok(xi_send_int(out[i], i, XI_TRY));
        ok(xi_recv(in[i], &m, LONG));
        ok(xi_nack(&m, i == _i ? 60 * MS : 1900 * MS));
    }
    for (int which = _i, n = 0; n < 2; which = !which, n++) {
        expect_event((uint64_t)which, XI_READY_RECV, LONG);
        int64_t took = xi_now() - begun;
        ck_assert_int_ge(took, n == 0 ? 60 * MS : 1900 * MS);
        if (n == 0) ck_assert_int_lt(took, 650 * MS);
        ok(xi_recv(in[which], &m, XI_TRY));
        ok(xi_ack(&m));
    }
    expect_nothing();
    xi_msg_release(&m);
    for (int i = 0; i < 2; i++) {
        ok(xi_channel_free(in[i]));
        ok(xi_channel_free(out[i]));
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sets");
    TCase *t = tcase_create("sets");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, what_is_ready_is_reported_until_it_is_not);
    tcase_add_test(t, what_was_there_before_it_was_added_is_reported);
    tcase_add_test(t, room_to_send_is_reported);
    tcase_add_test(t, both_sides_of_one_handle_are_members);
    tcase_add_test(t, a_closed_channel_is_drained_first);
    tcase_add_test(t, higher_priorities_come_first_and_equals_take_turns);
    tcase_add_test(t, errors_say_what_is_wrong);
    tcase_add_test(t, a_channel_has_512_waiters_and_members);
    tcase_add_test(t, sets_share_the_members_of_an_interpreter);
    tcase_add_test(t, a_sleeping_set_is_woken);
    tcase_add_test(t, of_a_thousand_one_is_ready);
    tcase_add_test(t, a_set_does_not_swallow_the_wake_of_a_thread);
    tcase_add_test(t, members_come_while_another_waits);
    tcase_add_test(t, members_go_while_another_waits);
    tcase_add_test(t, a_close_wakes_a_set);
    tcase_add_test(t, leaving_ends_a_wait);
    tcase_add_test(t, shutting_a_set_ends_a_wait);
    tcase_add_test(t, a_signal_ends_a_wait);
    tcase_add_loop_test(t, the_soonest_alarm_counts, 0, 2);
    tcase_add_test(t, the_descriptor_is_readable_when_something_is_ready);
    tcase_add_test(t, a_member_that_is_ready_makes_the_descriptor_readable);
    tcase_add_test(t, a_set_with_a_descriptor_can_be_waited_on_too);
    tcase_add_test(t, threads_may_take_turns_with_the_descriptor);
    tcase_add_test(t, an_event_loop_can_have_it);
    tcase_add_test(t, leaving_makes_the_descriptor_readable);
    tcase_add_test(t, a_forked_child_can_free_it_and_no_more);
    tcase_add_test(t, what_is_due_again_is_reported_in_time);
    tcase_add_test(t, a_window_that_opens_is_reported);
    tcase_add_test(t, garbage_in_the_mailbox_costs_a_look);
    tcase_add_test(t, a_mark_that_never_comes_is_made_up_for);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
