/* SPDX-License-Identifier: MIT */
/*
 * A program that has closed its standard input: descriptor 0 is one like any
 * other, for segments, for the control socket and for what can be polled.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interp/interp.h"

#include "fixture.h" /* last: it names its interpreters as the library does its arguments */

static int stdin_kept;

static void close_stdin(void) {
    stdin_kept = fcntl(0, F_DUPFD_CLOEXEC, 500);
    ck_assert_int_ge(stdin_kept, 0);
    close(0);
}
static void give_stdin_back(void) {
    ck_assert_int_eq(dup2(stdin_kept, 0), 0);
    close(stdin_kept);
}
static bool zero_is_free(void) { return fcntl(0, F_GETFD) < 0; }

static xi_channel *open_as(xi_interp *who, uint32_t flags, const xi_open_opts *more) {
    xi_open_opts opts = *more;
    xi_channel *ch = NULL;
    char name[40];
    snprintf(name, sizeof name, "%lld.no stdin", (long long)xi_id(me));
    opts.flags = flags;
    ok(xi_open(who, name, &opts, &ch));
    return ch;
}

/* Segments of every kind are mapped, and what they were opened by is closed. */
START_TEST(segments_are_closed) {
    xi_msg m = XI_MSG_INIT;
    xi_group_opts acks = {.flags = XI_GROUP_ACK};
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .grow = (uint64_t)1 << 20, .group_opts = &acks};
    close_stdin();
    xi_channel *out = open_as(me, XI_OPEN_SEND, &opts), *in = open_as(you, XI_OPEN_RECV, &opts);
    xi_channel *also = open_as(me, XI_OPEN_RECV, &opts);
    ck_assert(zero_is_free());
    for (int64_t i = 0; i < 40; i++) send_number(out, i, 400); /* the ring grows */
    send_number(out, 40, 100000);                              /* and an arena is made */
    ck_assert(zero_is_free());
    for (int64_t i = 0; i < 41; i++) {
        ok(xi_recv(i % 2 ? in : also, &m, LONG));
        ck_assert_int_eq(number_of(&m), i);
        ok(xi_ack(&m));
    }
    xi_msg_release(&m);
    ck_assert(zero_is_free());
    ok(xi_channel_free(also));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ck_assert(zero_is_free());
    give_stdin_back();
}
END_TEST

/* And in a process that has none of them yet, which opens them by name. */
static int receive_elsewhere(const char *name, const xi_open_opts *opts) {
    xi_interp *it = NULL;
    xi_channel *ch = NULL;
    xi_msg m = XI_MSG_INIT;
    close(0);
    int rc = xi_join(&(xi_join_opts){.name = "elsewhere"}, &it);
    if (rc == 0 && zero_is_free()) return 2; /* the control socket is 0: only what comes after it may be */
    int socket = fcntl(0, F_DUPFD_CLOEXEC, 500);
    if (rc == 0) atomic_store(&it->control.fd, socket);
    close(0);
    if (rc == 0) rc = xi_open(it, name, opts, &ch);
    for (int64_t i = 0; rc == 0 && i < 41; i++) {
        rc = xi_recv(ch, &m, LONG);
        if (rc == 0) rc = xi_ack(&m);
        if (rc == 0 && !zero_is_free()) return 3;
    }
    xi_msg_release(&m);
    if (rc == 0) rc = xi_channel_free(ch);
    if (rc == 0) rc = xi_leave(it);
    return rc == 0 && zero_is_free() ? 0 : 1;
}

START_TEST(segments_of_others_are_closed) {
    xi_group_opts acks = {.flags = XI_GROUP_ACK};
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .grow = (uint64_t)1 << 20, .group_opts = &acks};
    xi_channel *out = open_as(me, XI_OPEN_SEND, &opts), *in = open_as(you, XI_OPEN_RECV, &opts);
    int status = 0;
    for (int64_t i = 0; i < 40; i++) send_number(out, i, 400);
    send_number(out, 40, 100000);
    opts.flags = XI_OPEN_RECV;
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) _exit(receive_elsewhere(xi_channel_name(out), &opts));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_set_is_polled_by_it) {
    xi_set *set = NULL;
    ok(xi_set_new(me, &set));
    close_stdin();
    ck_assert_int_eq(xi_set_fd(set), 0);
    fails(XI_E_AGAIN, xi_set_wait(set, &(xi_event){0}, 1, XI_TRY));
    fails(XI_E_TIMEOUT, xi_set_wait(set, &(xi_event){0}, 1, MS));
    xi_set_free(set);
    ck_assert(zero_is_free());
    give_stdin_back();
}
END_TEST

/* Its end is seen by who polls. */
START_TEST(the_control_socket_is_it) {
    xi_interp *third = NULL;
    xi_set *set = NULL;
    close_stdin();
    ok(xi_join(&(xi_join_opts){.name = "third", .spin_ns = -1}, &third));
    ck_assert_int_eq(third->control.fd, 0);
    ok(xi_set_new(third, &set));
    struct pollfd p = {.fd = xi_set_fd(set), .events = POLLIN};
    do fails(XI_E_AGAIN, xi_set_wait(set, &(xi_event){0}, 1, XI_TRY));
    while (poll(&p, 1, 0) == 1);
    ck_assert_int_eq(shutdown(0, SHUT_RDWR), 0);
    ck_assert_int_eq(poll(&p, 1, (int)(LONG / MS)), 1);
    xi_set_free(set);
    ok(xi_leave(third));
    ck_assert(zero_is_free());
    give_stdin_back();
}
END_TEST

int main(void) {
    Suite *s = suite_create("without a standard input");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_both, leave_nothing);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, segments_are_closed);
    tcase_add_test(t, segments_of_others_are_closed);
    tcase_add_test(t, a_set_is_polled_by_it);
    tcase_add_test(t, the_control_socket_is_it);
    suite_add_tcase(s, t);
    return run_suite(s);
}
