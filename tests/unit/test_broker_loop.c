/* SPDX-License-Identifier: MIT */
/* The loop by itself: whoever else waits for the same thing takes nothing from it, and looking for packets loses none. */
#include <check.h>
#include <errno.h>
#include <liburing.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop.h"
#include "wire/soon.h"

#define MS 1000000ll

struct door {
    struct sockaddr_un at;
    socklen_t size;
    int fd;
};

/* In the abstract namespace, which leaves nothing behind; the kernel chooses the name. */
static struct door open_door(void) {
    struct door d = {.at.sun_family = AF_UNIX, .size = sizeof d.at};
    d.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(d.fd, 0);
    ck_assert_int_eq(bind(d.fd, (struct sockaddr *)&d.at, sizeof(sa_family_t)), 0);
    ck_assert_int_eq(listen(d.fd, 8), 0);
    ck_assert_int_eq(getsockname(d.fd, (struct sockaddr *)&d.at, &d.size), 0);
    return d;
}

static int knock(const struct door *d) {
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (const struct sockaddr *)&d->at, d->size), 0);
    return fd;
}

static void set(void *context) { *(bool *)context = true; }

static struct timer late;
static bool is_late;

static struct loop *loop_of(int which) {
    const char *why;
    struct loop *loop = loop_new(which ? LOOP_POLL : LOOP_URING, &why);
    if (loop) loop_timer(loop, &late, set, &is_late);
    else printf("not tried in a ring: %s\n", why);
    return loop;
}

static void note(void *context, int result, const void *data) {
    (void)data;
    *(int *)context = result;
}

static void turn_late(struct loop *loop, int64_t after) {
    is_late = false;
    late.at = loop_now() + after;
    loop_turn(loop);
}

/* Until `result` is something else than what it was, or a second has passed. */
static void turn_until(struct loop *loop, const int *result) {
    int before = *result;
    for (turn_late(loop, 1000 * MS); *result == before && !is_late;) loop_turn(loop);
}

START_TEST(connections_are_accepted) {
    struct loop *loop = loop_of(_i);
    if (!loop) return;
    struct door door = open_door();
    int result = -1;
    struct watch *w = loop_accept(loop, door.fd, note, &result);
    for (int i = 0; i < 3; i++) {
        int fd = knock(&door);
        result = -1;
        turn_until(loop, &result);
        ck_assert_int_ge(result, 0);
        close(result);
        close(fd);
        loop_again(loop, w);
    }
    loop_stop(loop, w);
    loop_free(loop);
    close(door.fd);
}
END_TEST

/*
 * The ring of a broker that has been killed waits to accept for some time after its process has gone, on a socket that
 * its keeper has for the next one. What stands in for it here is a ring that nobody looks at.
 */
START_TEST(a_dead_one_at_the_door_keeps_nobody_out) {
    struct loop *loop = loop_of(_i);
    struct io_uring dead;
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    if (!loop) return;
    struct door door = open_door();
    if (io_uring_queue_init_params(4, &dead, &p) != 0) { /* loop_of() says why, or this kernel has no such rings */
        printf("not tried: no ring to be had\n");
        return;
    }
    struct io_uring_sqe *sqe = io_uring_get_sqe(&dead);
    io_uring_prep_accept(sqe, door.fd, NULL, NULL, 0);
    ck_assert_int_eq(io_uring_submit(&dead), 1);

    int result = -1;
    struct watch *w = loop_accept(loop, door.fd, note, &result);
    turn_late(loop, 0); /* so that it waits, after the other */

    int fd = knock(&door);
    turn_until(loop, &result);
    ck_assert_msg(result >= 0, "who connected was not noticed: %d", result);
    close(result);
    close(fd);
    loop_stop(loop, w);
    io_uring_queue_exit(&dead);
    loop_free(loop);
    close(door.fd);
}
END_TEST

START_TEST(what_comes_soon_is_looked_for) {
    struct xi_soon s = {.limit = 100};
    ck_assert_int_eq(xi_soon(&s), 0); /* nothing is known yet */
    xi_soon_came(&s, 101, false, false);
    ck_assert_int_eq(xi_soon(&s), 0);
    xi_soon_came(&s, 100, false, false);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(xi_soon(&s), 100);
        xi_soon_came(&s, 10, true, true);
    }
    for (unsigned left_out = 1; left_out <= 63; left_out = left_out * 2 + 1) { /* each time in vain, longer not at all */
        ck_assert_int_eq(xi_soon(&s), 100);
        xi_soon_came(&s, 101, true, false);
        ck_assert_int_eq(xi_soon(&s), 0);
        xi_soon_came(&s, 10, false, false);
        for (unsigned i = 0; i < left_out; i++) ck_assert_int_eq(xi_soon(&s), 0);
    }
    xi_soon_came(&s, 101, true, false); /* and no longer than that */
    xi_soon_came(&s, 10, false, false);
    for (unsigned i = 0; i < 63; i++) ck_assert_int_eq(xi_soon(&s), 0);
    ck_assert_int_eq(xi_soon(&s), 100);
    xi_soon_came(&s, 10, true, true);
    ck_assert_int_eq(xi_soon(&s), 100);

    struct xi_soon never = {.limit = 0};
    xi_soon_came(&never, 0, false, false);
    ck_assert_int_eq(xi_soon(&never), 0);
}
END_TEST

struct echo {
    struct loop *loop;
    struct watch *watch;
    int fd, count;
};

static void answer(void *context, int result, const void *data) {
    struct echo *e = context;
    int number = e->count++; /* what io_uring has received was never written, as valgrind sees it: so it is counted */
    (void)data;
    ck_assert_int_eq(result, sizeof number);
    ck_assert_int_eq(send(e->fd, &number, sizeof number, MSG_NOSIGNAL), sizeof number);
    loop_again(e->loop, e->watch);
}

#define QUESTIONS 2000

static int ask(int fd) {
    for (int i = 0, got; i < QUESTIONS; i++)
        if (send(fd, &i, sizeof i, MSG_NOSIGNAL) != sizeof i || recv(fd, &got, sizeof got, 0) != sizeof got || got != i) return 1;
    return 0;
}

/* One after the other as fast as they are answered, so that they are looked for; and a timer is on time after that. */
START_TEST(all_that_is_looked_for_comes) {
    int ends[2], status;
    struct echo e = {.loop = loop_of(_i)};
    if (!e.loop) return;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    e.fd = ends[0];
    e.watch = loop_receive(e.loop, ends[0], sizeof(int), answer, &e);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) { /* killed, for what it has of its parent would be leaks to valgrind */
        if (ask(ends[1]) == 0) raise(SIGKILL);
        _exit(1);
    }
    while (e.count < QUESTIONS) loop_turn(e.loop);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* all were answered */
    int64_t from = loop_now();
    turn_late(e.loop, 2 * MS);
    ck_assert(is_late && loop_now() - from >= 2 * MS);
    loop_stop(e.loop, e.watch);
    loop_free(e.loop);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("broker loop");
    TCase *tc = tcase_create("loop");
    tcase_add_loop_test(tc, connections_are_accepted, 0, 2);
    tcase_add_loop_test(tc, a_dead_one_at_the_door_keeps_nobody_out, 0, 2);
    tcase_add_test(tc, what_comes_soon_is_looked_for);
    tcase_add_loop_test(tc, all_that_is_looked_for_comes, 0, 2);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
