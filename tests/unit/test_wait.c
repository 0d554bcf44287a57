/* SPDX-License-Identifier: MIT */
/*
 * Doorbells and sleeping, by themselves: one word in shared memory, two threads
 * or two processes. Run under both backends by XI_WAIT.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wait/doorbell.h"
#include "wait/sleep.h"
#include "wait/uring.h"
#include "wire/order.h"
#include "xidata.h"

#define MS ((int64_t)1000000)

static struct xi_bell *shared_bells(void) {
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(p, MAP_FAILED);
    return p;
}

START_TEST(the_backend_is_the_one_asked_for) {
    const char *want = getenv("XI_WAIT"), *reason;
    enum xi_backend b = xi_backend(&reason);
    if (want && strcmp(want, "futex") == 0) {
        ck_assert_int_eq(b, XI_BACKEND_FUTEX);
        ck_assert_ptr_nonnull(strstr(reason, "XI_WAIT"));
    }
    ck_assert(b == XI_BACKEND_URING || reason[0] != 0); /* a fall-back always has a reason */
}
END_TEST

/* Whether this kernel waits for words in a ring, found without the library. */
static bool kernel_has_it(void) {
    static _Atomic uint32_t word;
    struct io_uring ring;
    struct io_uring_cqe *cqe;
    bool has = false;
    if (xi_uring_init(&ring, 8) != 0) return false;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    ck_assert_ptr_nonnull(sqe);
    xi_uring_prep_futex_wait(sqe, &word, 1, 1);
    if (io_uring_submit_and_wait(&ring, 1) >= 0 && io_uring_peek_cqe(&ring, &cqe) == 0) has = cqe->res == -EAGAIN;
    xi_uring_exit(&ring);
    return has;
}

/* A fall-back hides what went wrong with rings. */
START_TEST(nothing_falls_back_without_need) {
    const char *want = getenv("XI_WAIT");
    bool asked = want && strcmp(want, "futex") == 0;
    ck_assert_int_eq(xi_backend(NULL), kernel_has_it() && !asked ? XI_BACKEND_URING : XI_BACKEND_FUTEX);
    (void)xi_sleep(&shared_bells()->bell, 0, xi_now() + MS, -1);
    ck_assert_int_eq(xi_backend_used(), xi_backend(NULL));
}
END_TEST

START_TEST(a_changed_word_is_not_slept_on) {
    struct xi_bell *b = shared_bells();
    xi_store_relaxed(&b->bell, 5);
    ck_assert_int_eq(xi_sleep(&b->bell, 4, -1, -1), XI_WAKE_BELL);
}
END_TEST

START_TEST(a_deadline_ends_a_sleep_and_not_before) {
    struct xi_bell *b = shared_bells();
    int64_t deadline = xi_now() + 30 * MS;
    enum xi_wake_reason why;
    do why = xi_sleep(&b->bell, 0, deadline, -1);
    while (why == XI_WAKE_BELL);
    ck_assert_int_eq(why, XI_WAKE_TIME);
    ck_assert_int_ge(xi_now(), deadline);
}
END_TEST

START_TEST(a_sleeper_looks_again_after_a_second) {
    struct xi_bell *b = shared_bells();
    int64_t start = xi_now();
    ck_assert_int_eq(xi_sleep(&b->bell, 0, -1, -1), XI_WAKE_LOOK);
    ck_assert_int_ge(xi_now() - start, 900 * MS);
}
END_TEST

static void ring_when_parked(struct xi_bell *b) {
    while (!xi_bell_ring(b)) xi_pause();
}
static void *rings(void *arg) {
    ring_when_parked(arg);
    return NULL;
}

START_TEST(a_ring_wakes_a_sleeper_in_another_thread) {
    struct xi_bell *b = shared_bells();
    for (int i = 0; i < 200; i++) {
        pthread_t t;
        uint32_t seen = xi_bell_park(b);
        pthread_create(&t, NULL, rings, b);
        ck_assert_int_eq(xi_sleep(&b->bell, seen, xi_now() + 5000 * MS, -1), XI_WAKE_BELL);
        pthread_join(t, NULL);
        ck_assert(xi_bell_unpark(b));
    }
}
END_TEST

START_TEST(a_ring_wakes_a_sleeper_in_another_process) {
    struct xi_bell *b = shared_bells();
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        for (int i = 0; i < 1000; i++) ring_when_parked(b);
        _exit(0);
    }
    for (int i = 0; i < 1000; i++) {
        uint32_t seen;
        /* The call that wakes comes after the ring that counts: one that is late ends the next sleep, which had no ring. */
        do {
            seen = xi_bell_park(b);
            ck_assert_int_eq(xi_sleep(&b->bell, seen, xi_now() + 5000 * MS, -1), XI_WAKE_BELL);
        } while (!xi_bell_unpark(b));
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(a_ring_before_the_sleep_is_not_lost) {
    struct xi_bell *b = shared_bells();
    uint32_t seen = xi_bell_park(b);
    ck_assert(xi_bell_ring(b));
    ck_assert_int_eq(xi_sleep(&b->bell, seen, -1, -1), XI_WAKE_BELL);
    ck_assert(xi_bell_unpark(b));
}
END_TEST

START_TEST(only_one_of_many_rings_counts) {
    struct xi_bell *b = shared_bells();
    ck_assert(!xi_bell_ring(b)); /* nobody is there */
    uint32_t seen = xi_bell_park(b);
    ck_assert(xi_bell_ring(b));
    ck_assert(!xi_bell_ring(b));
    ck_assert_uint_eq(xi_load_relaxed(&b->bell), seen + 1);
    ck_assert(xi_bell_unpark(b));
    (void)xi_bell_park(b);
    ck_assert(!xi_bell_unpark(b));
}
END_TEST

static void on_signal(int signo) { (void)signo; }
static void *interrupts(void *arg) {
    pthread_t *t = arg;
    /* Until the sleeper says that it was interrupted: a signal that comes before the sleep is no interruption of it. */
    while (!atomic_load((_Atomic bool *)(void *)(t + 1))) {
        pthread_kill(*t, SIGUSR1);
        sched_yield();
    }
    return NULL;
}

START_TEST(a_signal_ends_a_sleep) {
    struct xi_bell *b = shared_bells();
    struct {
        pthread_t t;
        _Atomic bool done;
    } me = {pthread_self(), false};
    pthread_t t;
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART}, NULL);
    pthread_create(&t, NULL, interrupts, &me);
    enum xi_wake_reason why;
    do why = xi_sleep(&b->bell, 0, -1, -1);
    while (why == XI_WAKE_BELL);
    atomic_store(&me.done, true);
    pthread_join(t, NULL);
    ck_assert_int_eq(why, XI_WAKE_SIGNAL);
}
END_TEST

START_TEST(the_control_socket_ends_a_sleep) {
    struct xi_bell *b = shared_bells();
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    for (int i = 0; i < 3; i++) {
        char c;
        ck_assert_int_eq(send(ends[1], "x", 1, 0), 1);
        ck_assert_int_eq(xi_sleep(&b->bell, 0, -1, ends[0]), XI_WAKE_CONTROL);
        ck_assert_int_eq(recv(ends[0], &c, 1, 0), 1);
    }
    /* Another descriptor than the one that is armed, and then its other end's death. */
    int others[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, others), 0);
    enum xi_wake_reason why;
    do why = xi_sleep(&b->bell, 0, xi_now() + 20 * MS, others[0]);
    while (why == XI_WAKE_BELL);
    ck_assert_int_eq(why, XI_WAKE_TIME);
    close(others[1]);
    do why = xi_sleep(&b->bell, 0, -1, others[0]);
    while (why == XI_WAKE_BELL);
    ck_assert_int_eq(why, XI_WAKE_CONTROL);
}
END_TEST

static enum xi_wake_reason sleep_watching(struct xi_bell *b, int control) {
    enum xi_wake_reason why;
    do why = xi_sleep(&b->bell, 0, xi_now() + 20 * MS, control);
    while (why == XI_WAKE_BELL);
    return why;
}

/* One is looked at once a second, at most, where that takes a call; another at once. */
START_TEST(another_control_socket_is_looked_at) {
    struct xi_bell *b = shared_bells();
    int one[2], other[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, one), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, other), 0);
    ck_assert_int_eq(send(other[1], "x", 1, 0), 1);
    ck_assert_int_eq(sleep_watching(b, one[0]), XI_WAKE_TIME);
    ck_assert_int_eq(sleep_watching(b, other[0]), XI_WAKE_CONTROL);
    for (int i = 0; i < 2; i++) {
        close(one[i]);
        close(other[i]);
    }
}
END_TEST

/* In a program that has closed its standard input, say. */
START_TEST(the_control_socket_may_be_descriptor_0) {
    struct xi_bell *b = shared_bells();
    int zero[2], other[2], stdin_kept = fcntl(0, F_DUPFD_CLOEXEC, 500);
    ck_assert_int_ge(stdin_kept, 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, zero), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, other), 0);
    ck_assert_int_eq(dup2(zero[0], 0), 0);
    ck_assert_int_eq(sleep_watching(b, 0), XI_WAKE_TIME);
    ck_assert_int_eq(sleep_watching(b, other[0]), XI_WAKE_TIME); /* and is not watched any more */
    close(zero[1]);
    ck_assert_int_eq(sleep_watching(b, other[0]), XI_WAKE_TIME);
    ck_assert_int_eq(sleep_watching(b, 0), XI_WAKE_CONTROL);
    ck_assert_int_eq(dup2(stdin_kept, 0), 0);
    close(stdin_kept);
    close(zero[0]);
    close(other[0]);
    close(other[1]);
}
END_TEST

/* A wait that timed out must not leave anything behind that swallows the next waiter's wake. */
START_TEST(an_abandoned_sleep_does_not_swallow_the_next_wake) {
    struct xi_bell *b = shared_bells();
    for (int i = 0; i < 50; i++) {
        pthread_t t;
        enum xi_wake_reason why;
        do why = xi_sleep(&b->bell, xi_load_relaxed(&b->bell), xi_now() + MS / 10, -1);
        while (why == XI_WAKE_BELL);
        uint32_t seen = xi_bell_park(b);
        pthread_create(&t, NULL, rings, b);
        int64_t start = xi_now();
        ck_assert_int_eq(xi_sleep(&b->bell, seen, -1, -1), XI_WAKE_BELL);
        ck_assert_int_lt(xi_now() - start, 900 * MS); /* by the ring, not by the safety look */
        pthread_join(t, NULL);
        (void)xi_bell_unpark(b);
    }
}
END_TEST

struct next_sleeper {
    struct xi_bell *bell;
    enum xi_wake_reason why;
    int64_t took;
};

static void *sleeps_next(void *arg) {
    struct next_sleeper *n = arg;
    uint32_t seen = xi_bell_park(n->bell);
    int64_t start = xi_now();
    n->why = xi_sleep(&n->bell->bell, seen, -1, -1);
    n->took = xi_now() - start;
    xi_sleep_over();
    return NULL;
}

/* Nor once it is over, when another thread is the next. */
START_TEST(a_sleep_that_is_over_does_not_swallow_another_threads_wake) {
    struct xi_bell *b = shared_bells();
    for (int i = 0; i < 50; i++) {
        struct next_sleeper next = {.bell = b};
        pthread_t t;
        enum xi_wake_reason why;
        do why = xi_sleep(&b->bell, xi_load_relaxed(&b->bell), xi_now() + MS / 10, -1);
        while (why == XI_WAKE_BELL);
        xi_sleep_over();
        pthread_create(&t, NULL, sleeps_next, &next);
        usleep(2000); /* so that it sleeps, most times: if not, the word alone tells it */
        ring_when_parked(b);
        pthread_join(t, NULL);
        ck_assert_int_eq(next.why, XI_WAKE_BELL);
        ck_assert_int_lt(next.took, 900 * MS);
        (void)xi_bell_unpark(b);
    }
}
END_TEST

/* Of two words in turn neither is lost, and the wait for the other is none. */
START_TEST(a_thread_may_sleep_on_another_word) {
    struct xi_bell *b = shared_bells();
    for (int i = 0; i < 20; i++) {
        struct xi_bell *mine = &b[i % 2];
        pthread_t t;
        enum xi_wake_reason why;
        do why = xi_sleep(&b[1 - i % 2].bell, xi_load_relaxed(&b[1 - i % 2].bell), xi_now() + MS / 10, -1);
        while (why == XI_WAKE_BELL);
        uint32_t seen = xi_bell_park(mine);
        pthread_create(&t, NULL, rings, mine);
        int64_t start = xi_now();
        ck_assert_int_eq(xi_sleep(&mine->bell, seen, -1, -1), XI_WAKE_BELL);
        ck_assert_int_lt(xi_now() - start, 900 * MS);
        pthread_join(t, NULL);
        (void)xi_bell_unpark(mine);
    }
    xi_sleep_over();
}
END_TEST

START_TEST(a_forked_child_sleeps_by_itself) {
    struct xi_bell *b = shared_bells();
    (void)xi_sleep(&b->bell, 0, xi_now() + MS, -1); /* this thread has its ring now */
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        enum xi_wake_reason why;
        do why = xi_sleep(&b->bell, 0, xi_now() + 5 * MS, -1);
        while (why == XI_WAKE_BELL);
        _exit(why == XI_WAKE_TIME ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert_int_eq(status, 0);
    enum xi_wake_reason why;
    do why = xi_sleep(&b->bell, 0, xi_now() + 5 * MS, -1);
    while (why == XI_WAKE_BELL);
    ck_assert_int_eq(why, XI_WAKE_TIME);
}
END_TEST

/*
 * The memory of the first thread's ring is unmapped and mapped again for the second one's, and nothing but the kernel
 * orders the two: for the thread sanitizer, which does not see it.
 */
static _Atomic pid_t first_of_two;

static void *sleeps_first(void *arg) {
    xi_store_relaxed(&first_of_two, gettid());
    (void)xi_sleep(arg, 0, xi_now() + MS, -1);
    return NULL;
}

static void *sleeps_after_it(void *arg) {
    char path[64];
    pid_t first;
    while ((first = xi_load_relaxed(&first_of_two)) == 0) sched_yield();
    snprintf(path, sizeof path, "/proc/self/task/%d", (int)first);
    while (access(path, F_OK) == 0) sched_yield();
    (void)xi_sleep(arg, 0, xi_now() + MS, -1);
    return NULL;
}

START_TEST(a_ring_may_begin_where_another_has_ended) {
    static _Atomic uint32_t words[2];
    pthread_t first, second;
    xi_store_relaxed(&first_of_two, 0);
    ck_assert_int_eq(pthread_create(&second, NULL, sleeps_after_it, &words[1]), 0);
    ck_assert_int_eq(pthread_create(&first, NULL, sleeps_first, &words[0]), 0);
    pthread_detach(first);
    pthread_join(second, NULL);
}
END_TEST

START_TEST(doorbells_are_given_out_once_each) {
    struct xi_bells bells;
    static struct xi_bell memory[XI_BELLS_USABLE];
    static bool seen[XI_BELLS_USABLE];
    uint32_t index;
    ck_assert_int_eq(xi_bells_init(&bells, memory), 0);
    for (uint32_t i = 0; i < XI_BELLS_USABLE; i++) {
        ck_assert_int_eq(xi_bell_take(&bells, &index), 0);
        ck_assert(!seen[index]);
        seen[index] = true;
    }
    ck_assert_int_eq(xi_bell_take(&bells, &index), XI_E_LIMIT);
    xi_bell_give(&bells, 7);
    ck_assert_int_eq(xi_bell_take(&bells, &index), 0);
    ck_assert_uint_eq(index, 7);
    xi_bells_deinit(&bells);
}
END_TEST

START_TEST(times_and_deadlines) {
    int64_t before = xi_now(), now = xi_deadline(0), after = xi_now();
    ck_assert(before <= now && now <= after); /* at once is not for ever */
    ck_assert_int_eq(xi_deadline(-1), -1);
    ck_assert_int_eq(xi_deadline(INT64_MAX), INT64_MAX);
    ck_assert_int_eq(xi_left(-1), XI_FOREVER);
    ck_assert_int_eq(xi_left(0), 1); /* long ago */
    ck_assert_int_gt(xi_left(xi_deadline(1000 * MS)), 0);
}
END_TEST

static int64_t default_budget(int64_t asked) {
    struct xi_spin s;
    xi_spin_init(&s, asked);
    return xi_spin_budget(&s);
}

/* How long to spin, as XI_SPIN_US says; and never by default where there is one processor. */
START_TEST(spinning_is_configured) {
    static const struct {
        const char *us;
        int64_t ns;
    } all[] = {{"0", 0}, {"20", 20000}, {"0.5", 500}, {"-1", 0}, {"1e9", 0}, {"none", 0}, {"", 7000}};
    const char *was = getenv("XI_SPIN_US");
    char *kept = was ? strdup(was) : NULL;
    cpu_set_t before, one;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        setenv("XI_SPIN_US", all[i].us, 1);
        ck_assert_int_eq(default_budget(7000), all[i].ns);
    }
    unsetenv("XI_SPIN_US");
    ck_assert_int_eq(sched_getaffinity(0, sizeof before, &before), 0);
    ck_assert_int_eq(default_budget(0) > 0, CPU_COUNT(&before) > 1);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    ck_assert_int_eq(default_budget(0), 0);
    ck_assert_int_eq(default_budget(7000), 7000);
    ck_assert_int_eq(sched_setaffinity(0, sizeof before, &before), 0);
    if (kept) setenv("XI_SPIN_US", kept, 1);
    free(kept);
}
END_TEST

START_TEST(spinning_adapts) {
    struct xi_spin s;
    xi_spin_init(&s, 64000);
    ck_assert_int_eq(xi_spin_budget(&s), 64000);
    for (int i = 0; i < 10; i++) xi_spin_result(&s, false);
    ck_assert_int_le(xi_spin_budget(&s), 2000);
    for (int i = 10; i < 15; i++) xi_spin_result(&s, false);
    ck_assert_int_ge(xi_spin_budget(&s), 64000); /* now and then the whole limit is tried, and more */
    xi_spin_result(&s, true);
    ck_assert_int_eq(xi_spin_budget(&s), 64000);
    xi_spin_init(&s, -1);
    ck_assert_int_eq(xi_spin_budget(&s), 0);
}
END_TEST

int main(void) {
    Suite *s = suite_create("wait");
    TCase *t = tcase_create("wait");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, the_backend_is_the_one_asked_for);
    tcase_add_test(t, nothing_falls_back_without_need);
    tcase_add_test(t, a_changed_word_is_not_slept_on);
    tcase_add_test(t, a_deadline_ends_a_sleep_and_not_before);
    tcase_add_test(t, a_sleeper_looks_again_after_a_second);
    tcase_add_test(t, a_ring_wakes_a_sleeper_in_another_thread);
    tcase_add_test(t, a_ring_wakes_a_sleeper_in_another_process);
    tcase_add_test(t, a_ring_before_the_sleep_is_not_lost);
    tcase_add_test(t, only_one_of_many_rings_counts);
    tcase_add_test(t, a_signal_ends_a_sleep);
    tcase_add_test(t, the_control_socket_ends_a_sleep);
    tcase_add_test(t, another_control_socket_is_looked_at);
    tcase_add_test(t, the_control_socket_may_be_descriptor_0);
    tcase_add_test(t, an_abandoned_sleep_does_not_swallow_the_next_wake);
    tcase_add_test(t, a_sleep_that_is_over_does_not_swallow_another_threads_wake);
    tcase_add_test(t, a_thread_may_sleep_on_another_word);
    tcase_add_test(t, a_forked_child_sleeps_by_itself);
    tcase_add_test(t, a_ring_may_begin_where_another_has_ended);
    tcase_add_test(t, doorbells_are_given_out_once_each);
    tcase_add_test(t, times_and_deadlines);
    tcase_add_test(t, spinning_is_configured);
    tcase_add_test(t, spinning_adapts);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
