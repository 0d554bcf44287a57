/* SPDX-License-Identifier: MIT */
/*
 * Something listens where the broker should, and answers nonsense, or nothing:
 * packets that are too short, of another version, with a status that there is
 * none of, without the descriptors that belong to them, or with ones of something
 * else. Joining ends with an error and a sentence, soon, and leaves no descriptor.
 */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fixture.h"
#include "pass.h"
#include "wire/names.h"
#include "wire/protocol.h"

enum nonsense { HANGS_UP, SHORT, OTHER_MAGIC, OTHER_VERSION, POSITIVE, UNKNOWN_STATUS, WORDLESS, NO_FDS, OTHER_FDS, OTHER_SERIAL, TURNS_AWAY };
static const struct {
    enum nonsense how;
    int error;
    const char *words;
} all[] = {{HANGS_UP, XI_E_BROKER, ""},
           {SHORT, XI_E_BROKER, ""},
           {OTHER_MAGIC, XI_E_BROKER, ""},
           {OTHER_VERSION, XI_E_BROKER, ""},
           {POSITIVE, XI_E_BROKER, "the broker answered nonsense"},
           {UNKNOWN_STATUS, XI_E_BROKER, "the broker answered nonsense"},
           {WORDLESS, XI_E_QUOTA, "refused by the broker"},
           {NO_FDS, XI_E_BROKER, "nonsense to a join"},
           {OTHER_FDS, XI_E_NOENT, "just being made"},
           {OTHER_SERIAL, XI_E_BROKER, ""},
           {TURNS_AWAY, XI_E_ACCESS, "not you"}};

static char ns[32];
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int door, stop[2];
static enum nonsense how;

/* With three descriptors of /dev/null, where that is asked for. */
static void answer(int fd, const struct xi_reply *r, size_t n, bool with) {
    int null[3];
    for (int i = 0; with && i < 3; i++) null[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
    (void)pass(fd, NULL, 0, r, n, null, with ? 3 : 0, 0); /* the other side may have had enough */
    for (int i = 0; with && i < 3; i++) close(null[i]);
}

static void serve(int fd) {
    struct xi_request q;
    while (how != HANGS_UP && how != TURNS_AWAY && recv(fd, &q, sizeof q, 0) == (ssize_t)sizeof q) {
        struct xi_reply r = {.magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .op = q.op, .serial = q.serial, .a = 1, .b = 1};
        if (how == OTHER_MAGIC) r.magic++;
        if (how == OTHER_VERSION) r.version++;
        if (how == POSITIVE) r.status = 5;
        if (how == UNKNOWN_STATUS) r.status = -1000;
        if (how == WORDLESS) r.status = XI_E_QUOTA;
        if (how == OTHER_SERIAL) r.serial += 7;
        answer(fd, &r, how == SHORT ? 8 : sizeof r, how == OTHER_FDS);
        if (how == OTHER_SERIAL) break;
    }
    if (how == TURNS_AWAY) {
        struct xi_reply r = {.magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .status = XI_E_ACCESS, .text = "not you"};
        answer(fd, &r, sizeof r, true);
    }
    close(fd);
}

/* One connection after another, until it is told to stop. */
static void *be_false(void *arg) {
    (void)arg;
    for (;;) {
        struct pollfd p[2] = {{door, POLLIN, 0}, {stop[0], POLLIN, 0}};
        if (poll(p, 2, -1) < 0) continue;
        if (p[1].revents) return NULL;
        int fd = accept4(door, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) serve(fd);
    }
}

static int descriptors(void) {
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}

START_TEST(joining_ends_in_an_error) {
    pthread_t thread;
    how = all[_i].how;
    snprintf(ns, sizeof ns, "%.24s.false", getenv("XI_NAMESPACE"));
    ok(xi_socket_path(address.sun_path, sizeof address.sun_path, ns));
    (void)unlink(address.sun_path);
    ck_assert_int_ge(door = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), 0);
    ck_assert_int_eq(bind(door, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(door, 8), 0);
    ck_assert_int_eq(pipe2(stop, O_CLOEXEC), 0);
    (void)xi_probe_wait(NULL, 0); /* what this keeps open is kept */
    int before = descriptors();
    ck_assert_int_eq(pthread_create(&thread, NULL, be_false, NULL), 0);
    for (int round = 0; round < 2; round++) {
        int64_t begun = xi_now();
        fails(all[_i].error, xi_join(&(xi_join_opts){.ns = ns, .name = "me", .flags = XI_JOIN_NO_START}, &me));
        ck_assert_int_lt(xi_now() - begun, 4000 * MS);
        const char *text = xi_error_text(all[_i].error);
        ck_assert_msg(strstr(text, all[_i].words) && strlen(text) > 6, "%s", text);
        ck_assert_ptr_null(me);
    }
    ck_assert_int_eq(write(stop[1], "x", 1), 1);
    pthread_join(thread, NULL);
    ck_assert_int_eq(descriptors(), before);
    close(door);
    close(stop[0]);
    close(stop[1]);
    ck_assert_int_eq(unlink(address.sun_path), 0);
}
END_TEST

/* Without XI_BROKER it is found on $PATH; and what was false before is no hindrance. */
START_TEST(a_true_one_is_found) {
    ck_assert_int_eq(unsetenv("XI_BROKER"), 0);
    ok(xi_join(&(xi_join_opts){.name = "me"}, &me));
    ok(xi_leave(me));
}
END_TEST

int main(void) {
    Suite *s = suite_create("a false broker");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 30);
    tcase_add_loop_test(t, joining_ends_in_an_error, 0, sizeof all / sizeof all[0]);
    tcase_add_test(t, a_true_one_is_found);
    suite_add_tcase(s, t);
    return run_suite(s);
}
