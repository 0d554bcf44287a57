/* SPDX-License-Identifier: MIT */
/*
 * Each wake counts. Threads are let fall asleep, which is seen (their state in
 * /proc, their bit in the mask), and then given one thing to do at a time: one of
 * them must take it up long before the look that sleepers take by themselves
 * after a second. A wake that is left out now and then, the second of a row, say,
 * is found every time.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "channel/channel.h"
#include "fixture.h"

#define SOON (600 * MS) /* sleepers look by themselves after a second */
#define MOST 4
#define ROUNDS 6

struct sleeper {
    pthread_t thread;
    xi_channel *ch;
    bool sends;
    _Atomic int tid;
    _Atomic bool done;
};
static struct sleeper S[MOST];

static void *act(void *argument) {
    struct sleeper *s = argument;
    xi_msg m = XI_MSG_INIT;
    atomic_store(&s->tid, (int)gettid());
    ok(s->sends ? xi_send_int(s->ch, 7, LONG) : xi_recv(s->ch, &m, LONG));
    xi_msg_release(&m);
    atomic_store(&s->done, true);
    return NULL;
}

static void start(int i, xi_channel *ch, bool sends) {
    S[i].ch = ch;
    S[i].sends = sends;
    atomic_store(&S[i].tid, 0);
    atomic_store(&S[i].done, false);
    ck_assert_int_eq(pthread_create(&S[i].thread, NULL, act, &S[i]), 0);
}

/* True if the kernel has it asleep. */
static bool is_asleep(const struct sleeper *s) {
    char path[64], text[512];
    int tid = atomic_load(&s->tid);
    if (!tid) return false;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    ck_assert_int_gt(n, 0);
    text[n] = 0;
    const char *state = strrchr(text, ')');
    return state && state[1] && state[2] == 'S';
}

static unsigned bits_set(const struct xi_mask *m) {
    unsigned n = 0;
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++) n += (unsigned)__builtin_popcountll(xi_load_full(&m->word[i]));
    return n;
}

/* So many bits in the mask, and those threads that are not done asleep: after the bit there is nothing else to sleep on. */
static void await_asleep(const struct xi_mask *m, unsigned bits, int threads) {
    bool all = false;
    int64_t until = xi_now() + 2 * LONG;
    while (!all) {
        if (xi_now() > until) ck_abort_msg("of %u threads %u wait", bits, bits_set(m));
        all = bits_set(m) == bits;
        for (int i = 0; i < threads && all; i++) all = atomic_load(&S[i].done) || is_asleep(&S[i]);
        if (!all) sched_yield();
    }
}

static int done_of(int threads) {
    int n = 0;
    for (int i = 0; i < threads; i++) n += atomic_load(&S[i].done);
    return n;
}

/* So many are done, soon. */
static void expect_done(int n, int threads) {
    int64_t begun = xi_now();
    while (done_of(threads) < n) {
        if (xi_now() - begun > SOON) ck_abort_msg("%d of %d went on: a wake was lost", done_of(threads), n);
        nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

static xi_channel *open_as(xi_interp *who, uint32_t flags, xi_open_opts opts) {
    xi_channel *ch = NULL;
    char name[40];
    snprintf(name, sizeof name, "%lld", (long long)xi_id(me)); /* of this test: what another left is elsewhere */
    opts.flags = flags;
    opts.capacity = XI_CAPACITY_MIN;
    ok(xi_open(who, name, &opts, &ch));
    return ch;
}

static void join_sleepers(void) {
    ok(xi_join(&(xi_join_opts){.name = "me", .spin_ns = -1}, &me));
    ok(xi_join(&(xi_join_opts){.name = "you", .spin_ns = -1}, &you));
}

START_TEST(room_for_one_wakes_one_sender) {
    int n = _i + 1;
    xi_channel *out = open_as(me, XI_OPEN_SEND, (xi_open_opts){0}), *in = open_as(you, XI_OPEN_RECV, (xi_open_opts){0});
    while (xi_send_int(out, 7, XI_TRY) == 0) continue;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < n; i++) start(i, out, true);
        for (int k = 0; k < n; k++) {
            await_asleep(&out->chan->parked_senders, (unsigned)(n - k), n);
            ck_assert_int_eq(done_of(n), k);
            (void)take(in);
            expect_done(k + 1, n);
        }
        for (int i = 0; i < n; i++) pthread_join(S[i].thread, NULL);
    }
    ok(xi_remove(me, xi_channel_name(out)));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_value_wakes_one_receiver) {
    int n = _i + 1;
    xi_channel *out = open_as(me, XI_OPEN_SEND, (xi_open_opts){0}), *in = open_as(you, XI_OPEN_RECV, (xi_open_opts){0});
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < n; i++) start(i, in, false);
        for (int k = 0; k < n; k++) {
            await_asleep(&in->group->parked, (unsigned)(n - k), n);
            ck_assert_int_eq(done_of(n), k);
            ok(xi_send_int(out, 7, XI_TRY));
            expect_done(k + 1, n);
        }
        for (int i = 0; i < n; i++) pthread_join(S[i].thread, NULL);
    }
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* So many values at once wake so many; with one call or in one go. */
START_TEST(values_wake_as_many_receivers) {
    xi_channel *out = open_as(me, XI_OPEN_SEND, (xi_open_opts){0}), *in = open_as(you, XI_OPEN_RECV, (xi_open_opts){0});
    uint64_t value = XI_INT32 | (uint64_t)9 << 32;
    const void *values[MOST] = {&value, &value, &value, &value};
    size_t sizes[MOST] = {8, 8, 8, 8};
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < MOST; i++) start(i, in, false);
        await_asleep(&in->group->parked, MOST, MOST);
        ck_assert_int_eq(xi_send_many(out, values, sizes, 3, XI_TRY), 3);
        expect_done(3, MOST);
        await_asleep(&in->group->parked, 1, MOST);
        ck_assert_int_eq(done_of(MOST), 3);
        ok(xi_send_int(out, 7, XI_TRY));
        expect_done(MOST, MOST);
        for (int i = 0; i < MOST; i++) pthread_join(S[i].thread, NULL);
    }
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_value_wakes_one_of_each_group) {
    xi_open_opts opts = {.mode = XI_BROADCAST};
    xi_channel *out = open_as(me, XI_OPEN_SEND, opts), *in[MOST];
    for (int i = 0; i < MOST; i++) in[i] = open_as(you, XI_OPEN_RECV, opts);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < MOST; i++) start(i, in[i], false);
        for (int i = 0; i < MOST; i++) await_asleep(&in[i]->group->parked, 1, MOST);
        ok(xi_send_int(out, 7, XI_TRY));
        expect_done(MOST, MOST);
        for (int i = 0; i < MOST; i++) pthread_join(S[i].thread, NULL);
    }
    for (int i = 0; i < MOST; i++) ok(xi_channel_free(in[i]));
    ok(xi_channel_free(out));
}
END_TEST

int main(void) {
    Suite *s = suite_create("wakes");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_sleepers, leave_both);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, room_for_one_wakes_one_sender, 0, MOST);
    tcase_add_loop_test(t, a_value_wakes_one_receiver, 0, MOST);
    tcase_add_test(t, values_wake_as_many_receivers);
    tcase_add_test(t, a_value_wakes_one_of_each_group);
    suite_add_tcase(s, t);
    return run_suite(s);
}
