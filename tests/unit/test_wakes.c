/* SPDX-License-Identifier: MIT */
/*
 * Each wake counts. Threads that are known to sleep are given one thing to do at
 * a time, and one of them must take it up soon. A wake that is left out now and
 * then, the second of a row, say, is found every time.
 *
 * And whoever sends several values wakes as many itself: that those who are
 * woken wake the next hides a sender that wakes one alone, until that one is in
 * a process that is stopped.
 */
#include <signal.h>
#include <sys/wait.h>

#include "sleepers.h"

#define MOST SLEEPERS
#define ROUNDS 6

START_TEST(room_for_one_wakes_one_sender) {
    int n = _i + 1;
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    while (xi_send_int(out, 7, XI_TRY) == 0) continue;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < n; i++) start(i, out, sends_one);
        for (int k = 0; k < n; k++) {
            await_asleep(&out->chan->parked_senders, (unsigned)(n - k), n);
            ck_assert_int_eq(done_of(n), k);
            (void)take(in);
            expect_done(k + 1, n);
        }
        for (int i = 0; i < n; i++) end(i, 0);
    }
    if (n == 1) { /* as tools show it */
        xi_stats stats;
        xi_interp_stats(you, &stats);
        ck_assert_uint_eq(stats.wakes, ROUNDS);
        ck_assert_uint_eq(xi_load_relaxed(&out->chan->wakes), ROUNDS);
    }
    ck_assert_uint_le(xi_load_relaxed(&out->chan->wakes), (unsigned)n * ROUNDS);
    let_go(out, in);
}
END_TEST

START_TEST(a_value_wakes_one_receiver) {
    int n = _i + 1;
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < n; i++) start(i, in, receives_one);
        for (int k = 0; k < n; k++) {
            await_asleep(&in->group->parked, (unsigned)(n - k), n);
            ck_assert_int_eq(done_of(n), k);
            ok(xi_send_int(out, 7, XI_TRY));
            expect_done(k + 1, n);
        }
        for (int i = 0; i < n; i++) end(i, 0);
    }
    ck_assert_uint_le(xi_load_relaxed(&out->chan->wakes), (unsigned)n * ROUNDS);
    let_go(out, in);
}
END_TEST

/* So many values at once wake so many; with one call or in one go. */
START_TEST(values_wake_as_many_receivers) {
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    uint64_t value = XI_INT32 | (uint64_t)9 << 32;
    const void *values[MOST] = {&value, &value, &value, &value};
    size_t sizes[MOST] = {8, 8, 8, 8};
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < MOST; i++) start(i, in, receives_one);
        await_asleep(&in->group->parked, MOST, MOST);
        ck_assert_int_eq(xi_send_many(out, values, sizes, 3, XI_TRY), 3);
        expect_done(3, MOST);
        await_asleep(&in->group->parked, 1, MOST);
        ck_assert_int_eq(done_of(MOST), 3);
        ok(xi_send_int(out, 7, XI_TRY));
        expect_done(MOST, MOST);
        for (int i = 0; i < MOST; i++) end(i, 0);
    }
    let_go(out, in);
}
END_TEST

/* Of two that come back to sleep as soon as they are done: senders go in turn, of receivers the same goes always. */
START_TEST(senders_take_turns_and_receivers_do_not) {
    bool senders = _i;
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    struct xi_mask *m = senders ? &out->chan->parked_senders : &in->group->parked;
    while (senders && xi_send_int(out, 7, XI_TRY) == 0) continue;
    for (int i = 0; i < 2; i++) start(i, senders ? out : in, senders ? sends_one : receives_one);
    for (int round = 0, last = 0; round < 2 * ROUNDS; round++) {
        await_asleep(m, 2, 2);
        if (senders) (void)take(in);
        else ok(xi_send_int(out, 7, XI_TRY));
        expect_done(1, 2);
        int first = atomic_load(&S[0].done) ? 0 : 1;
        if (round) ck_assert_int_eq(first == last, !senders);
        last = first;
        end(first, 0);
        start(first, senders ? out : in, senders ? sends_one : receives_one);
    }
    for (int i = 0; i < 2; i++) {
        if (senders) (void)take(in);
        else ok(xi_send_int(out, 7, XI_TRY));
    }
    for (int i = 0; i < 2; i++) end(i, 0);
    let_go(out, in);
}
END_TEST

/* Who looked for sleepers and found fewer than there was work for says that there are none: others need not look. */
START_TEST(who_finds_nobody_says_so) {
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    uint64_t value = XI_INT32 | (uint64_t)9 << 32;
    const void *values[2] = {&value, &value};
    size_t sizes[2] = {8, 8};
    start(0, in, receives_one);
    await_asleep(&in->group->parked, 1, 1);
    ck_assert_int_eq(xi_send_many(out, values, sizes, 2, XI_TRY), 2);
    end(0, 0);
    ck_assert_uint_eq(xi_load_full(&out->chan->parked_groups), 0);
    while (xi_send_int(out, 7, XI_TRY) == 0) continue;
    start(0, out, sends_one);
    await_asleep(&out->chan->parked_senders, 1, 1);
    ck_assert_uint_eq(xi_load_full(&out->chan->parked_producers), 1);
    (void)take(in);
    end(0, 0);
    (void)take(in);
    ck_assert_uint_eq(xi_load_full(&out->chan->parked_producers), 0);
    let_go(out, in);
}
END_TEST

START_TEST(a_value_wakes_one_of_each_group) {
    xi_open_opts opts = {.mode = XI_BROADCAST};
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, opts), *in[MOST];
    for (int i = 0; i < MOST; i++) in[i] = open_here(you, "wakes", XI_OPEN_RECV, opts);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < MOST; i++) start(i, in[i], receives_one);
        for (int i = 0; i < MOST; i++) await_asleep(&in[i]->group->parked, 1, MOST);
        ok(xi_send_int(out, 7, XI_TRY));
        expect_done(MOST, MOST);
        for (int i = 0; i < MOST; i++) end(i, 0);
    }
    for (int i = 0; i < MOST; i++) ok(xi_channel_free(in[i]));
    ok(xi_channel_free(out));
}
END_TEST

/* ---- two at one mask, at once */

#define MEETINGS 20000

static struct meeting {
    xi_channel *ch;
    uint32_t side;
    uint64_t bits;  /* 0: both claim; else one parks as two waiters, and the other wakes one */
    _Atomic uint64_t here;
} M;

/* Until the other is here for the n-th time too. */
static void meet(uint64_t n) {
    (void)atomic_fetch_add(&M.here, 1);
    for (uint64_t looks = 0; atomic_load(&M.here) < 2 * n; looks++)
        if (looks > 1000) sched_yield();
}
static struct xi_mask *mask(void) { return M.side == XI_SIDE_PRODUCERS ? &M.ch->chan->parked_senders : &M.ch->group->parked; }
static void wake(void) {
    if (M.side == XI_SIDE_PRODUCERS) xi_wake_producers_slow(M.ch);
    else xi_wake_one(M.ch);
}
static bool some_wait(void) {
    if (M.side == XI_SIDE_PRODUCERS) return xi_load_full(&M.ch->chan->parked_producers);
    return xi_load_full(&M.ch->chan->parked_groups) >> M.ch->group_index & 1;
}

static void *comes_too(void *ignored) {
    for (uint64_t i = 0; i < MEETINGS; i++) {
        meet(2 * i + 1);
        if (!M.bits) {
            wake();
        } else {
            for (uint64_t rest = M.bits; rest; rest &= rest - 1) xi_waiter_arm(M.ch, M.side, (uint32_t)__builtin_ctzll(rest));
        }
        meet(2 * i + 2);
    }
    return ignored;
}

static void meet_all(int i, xi_channel *in, uint64_t bits, void (*before)(void), void (*after)(void)) {
    pthread_t t;
    M.ch = in;
    M.side = i ? XI_SIDE_PRODUCERS : XI_SIDE_GROUP(in->group_index);
    M.bits = bits;
    atomic_store(&M.here, 0);
    ck_assert_int_eq(pthread_create(&t, NULL, comes_too, NULL), 0);
    for (uint64_t n = 0; n < MEETINGS; n++) {
        before();
        meet(2 * n + 1);
        wake();
        meet(2 * n + 2);
        after();
    }
    pthread_join(t, NULL);
}

static void arm_one(void) { xi_waiter_arm(M.ch, M.side, 7); }
static void expect_none(void) { ck_assert_uint_eq(bits_set(mask()), 0); }

/* Two who wake find one who waits: one of them claims it, and the other goes on. */
START_TEST(one_claim_is_one_wakers) {
    xi_channel *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    meet_all(_i, in, 0, arm_one, expect_none);
    let_go(in, NULL);
}
END_TEST

static void say_some_wait(void) { /* as another has left it */
    if (M.side == XI_SIDE_PRODUCERS) xi_store_full(&M.ch->chan->parked_producers, 1);
    else (void)xi_or_full(&M.ch->chan->parked_groups, (uint64_t)1 << M.ch->group_index);
}
static void expect_known(void) {
    if (bits_set(mask())) ck_assert(some_wait());
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++) xi_store_full(&mask()->word[i], 0);
}

/* Who says that nobody waits any more, and finds that some have come meanwhile, takes that back: it wakes one of them only. */
START_TEST(who_comes_while_nobody_is_found_is_known) {
    xi_channel *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    meet_all(_i, in, 7, say_some_wait, expect_known);
    let_go(in, NULL);
}
END_TEST

/* ---- the first of them in a process that is stopped */

/* Receives one value, in a process of its own. */
static pid_t receive_elsewhere(const char *name, const xi_open_opts *opts) {
    int gate[2];
    char c;
    ck_assert_int_eq(pipe(gate), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        xi_interp *it = NULL;
        xi_channel *ch = NULL;
        close(gate[0]);
        int rc = xi_join(&(xi_join_opts){.name = "stopped", .spin_ns = -1}, &it);
        if (rc == 0) rc = xi_open(it, name, opts, &ch);
        if (rc == 0 && write(gate[1], "x", 1) != 1) rc = XI_E_SYSTEM;
        if (rc == 0)
            while ((rc = receives_one(ch)) == XI_E_INTR) continue; /* being stopped ends a wait, as with poll(2) */
        if (rc == 0) rc = xi_channel_free(ch);
        if (rc == 0) rc = xi_leave(it);
        _exit(-rc);
    }
    close(gate[1]);
    ck_assert_int_eq(read(gate[0], &c, 1), 1); /* it joined first: its number in the mask is the lowest */
    close(gate[0]);
    return pid;
}

static void stop(pid_t pid) {
    int status = 0;
    ck_assert_int_eq(kill(pid, SIGSTOP), 0);
    ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
    ck_assert(WIFSTOPPED(status));
}

static uint32_t lowest_bit(const struct xi_mask *m) {
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++)
        if (xi_load_full(&m->word[i])) return i * 64 + (uint32_t)__builtin_ctzll(xi_load_full(&m->word[i]));
    return UINT32_MAX;
}

/* With room for ever, and with values that expire some day, which go another way. */
START_TEST(who_is_stopped_keeps_nobody_asleep) {
    uint64_t value = XI_INT32 | (uint64_t)9 << 32;
    const void *values[MOST] = {&value, &value, &value, &value};
    size_t sizes[MOST] = {8, 8, 8, 8}, n = (size_t)_i % 3 + 2;
    int others = MOST - 1, awake = n < MOST ? (int)n : others, status = 0;
    xi_open_opts opts = {.flags = XI_OPEN_RECV, .ttl_ns = _i < 3 ? 0 : 600 * 1000 * MS};
    char name[40];
    snprintf(name, sizeof name, "wakes.stopped.%d", _i);
    pid_t pid = receive_elsewhere(name, &opts);
    join_sleepers();
    xi_channel *in = NULL, *out = NULL;
    ok(xi_open(you, name, &opts, &in));
    opts.flags = XI_OPEN_SEND;
    ok(xi_open(me, name, &opts, &out));
    struct xi_mask *parked = &in->group->parked;
    await_asleep(parked, 1, 0);
    uint32_t its_number = lowest_bit(parked);
    stop(pid);
    for (int i = 0; i < others; i++) start(i, in, receives_one);
    await_asleep(parked, MOST, others);
    ck_assert_uint_eq(lowest_bit(parked), its_number); /* it is woken first */

    ck_assert_int_eq(xi_send_many(out, values, sizes, n, XI_TRY), (int64_t)n);
    expect_done(awake, others);

    ck_assert_int_eq(kill(pid, SIGCONT), 0);
    for (size_t i = n; i < MOST; i++) ok(xi_send_int(out, 7, XI_TRY));
    for (int i = 0; i < others; i++) end(i, 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    let_go(in, out);
    leave_both();
}
END_TEST

int main(void) {
    Suite *s = suite_create("wakes");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_sleepers, leave_nothing);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, room_for_one_wakes_one_sender, 0, MOST);
    tcase_add_loop_test(t, a_value_wakes_one_receiver, 0, MOST);
    tcase_add_test(t, values_wake_as_many_receivers);
    tcase_add_loop_test(t, senders_take_turns_and_receivers_do_not, 0, 2);
    tcase_add_test(t, who_finds_nobody_says_so);
    tcase_add_test(t, a_value_wakes_one_of_each_group);
    tcase_add_loop_test(t, one_claim_is_one_wakers, 0, 2);
    tcase_add_loop_test(t, who_comes_while_nobody_is_found_is_known, 0, 2);
    suite_add_tcase(s, t);
    t = tcase_create("stopped");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, who_is_stopped_keeps_nobody_asleep, 0, 6);
    suite_add_tcase(s, t);
    return run_suite(s);
}
