/* SPDX-License-Identifier: MIT */
/* The loop by itself: whoever else waits for the same thing takes nothing from it. */
#include <check.h>
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "loop.h"

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

int main(void) {
    Suite *suite = suite_create("broker loop");
    TCase *tc = tcase_create("loop");
    tcase_add_loop_test(tc, connections_are_accepted, 0, 2);
    tcase_add_loop_test(tc, a_dead_one_at_the_door_keeps_nobody_out, 0, 2);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
