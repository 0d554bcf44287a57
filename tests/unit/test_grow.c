/* SPDX-License-Identifier: MIT */
/*
 * Channels that grow, that are bounded in values, and that drop their oldest:
 * what each call returns, what each group finds, what comes back; and that a
 * word `ring` with garbage in it is an error and no more.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "channel/channel.h"
#include "fixture.h"
#include "wire/names.h"

static void teardown(void) {
    int rc = xi_remove(me, "grow"); /* with what a test has left in it */
    ck_assert(rc == 0 || rc == XI_E_NOENT);
    leave_nothing();
}

static xi_channel *open_as(xi_interp *who, const char *group, xi_open_opts opts) {
    xi_channel *ch;
    opts.group = group;
    ok(xi_open(who, "grow", &opts, &ch));
    return ch;
}
static xi_channel *open_sender(xi_interp *who, xi_open_opts opts) {
    opts.flags = XI_OPEN_SEND;
    return open_as(who, NULL, opts);
}

static void receive_number(xi_channel *ch, int64_t number) {
    xi_msg m = XI_MSG_INIT;
    ok(xi_recv(ch, &m, XI_TRY));
    int64_t got = number_of(&m);
    if (got != number) ck_abort_msg("%lld came, not %lld", (long long)got, (long long)number);
    xi_msg_release(&m);
}

static uint64_t capacity_of(xi_channel *ch) {
    xi_channel_info info;
    ok(xi_channel_stat(ch, &info));
    return info.capacity;
}
static uint64_t dropped(xi_channel *ch) { return xi_load_relaxed(&ch->group->dropped); }

/* All blocks have come back to the interpreter. */
static void nothing_out(xi_interp *who) {
    xi_stats s;
    xi_loan loan;
    ok(xi_loan_get(who, 8, &loan)); /* makes its arena look at those that are out */
    xi_loan_drop(&loan);
    xi_arena_reclaim(who, SIZE_MAX);
    xi_interp_stats(who, &s);
    ck_assert_uint_eq(s.blocks, 0);
    ck_assert_uint_eq(s.borrows, 0);
}

/* Segments of rings that the channel has, in use or not. */
static void until_home(xi_channel *ch) {
    int64_t end = xi_now() + 5000 * MS;
    xi_msg m = XI_MSG_INIT;
    while (capacity_of(ch) != XI_CAPACITY_MIN) {
        fails(XI_E_TIMEOUT, xi_recv(ch, &m, 20 * MS));
        ck_assert_msg(xi_now() < end, "the ring did not come home");
    }
}

/* ---------------------------------------------------------------- growing */

#define GROWING {.capacity = XI_CAPACITY_MIN, .grow = (uint64_t)16 << 20}

/* Small and large values, far more than its own ring holds: all come, in order; then the ring comes home. */
START_TEST(grows_and_comes_home) {
    size_t sizes[] = {8, 400, 6000};
    xi_channel *out = open_sender(me, (xi_open_opts)GROWING), *in = open_as(you, NULL, (xi_open_opts)GROWING);
    int64_t n = _i < 2 ? 20000 : 3000;
    for (int round = 0; round < 2; round++) {
        for (int64_t i = 0; i < n; i++) send_number(out, i, sizes[i % (_i + 1)]);
        ck_assert_uint_gt(capacity_of(out), XI_CAPACITY_MIN);
        ck_assert_uint_le(capacity_of(in), (uint64_t)16 << 20);
        for (int64_t i = 0; i < n; i++) receive_number(in, i);
        nothing_left(in);
        until_home(in);
        send_number(out, n, 5000); /* a block, on the way of which it looks where the ring is */
        receive_number(in, n);
        ck_assert(in->receive_view.word == 0 && !in->receive_view.entry); /* the other was let go of, once */
        ck_assert(out->chan->grown > 0 && out->chan->shrunk > 0);
    }
    nothing_out(me);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* Not in its own ring: positions, counts and ends are as ever. */
START_TEST(a_grown_ring_is_as_any) {
    xi_channel *out = open_sender(me, (xi_open_opts)GROWING), *in = open_as(you, NULL, (xi_open_opts)GROWING);
    xi_channel_info info;
    for (int64_t i = 0; i < 1000; i++) send_number(out, i, 16);
    ok(xi_channel_stat(out, &info));
    ck_assert_uint_eq(info.depth, 1000);
    ck_assert_uint_eq(info.grow, (uint64_t)16 << 20);
    ck_assert_uint_gt(info.used, XI_CAPACITY_MIN);
    xi_channel *late = open_as(you, "late", (xi_open_opts)GROWING); /* joins in the far ring */
    send_number(out, 1000, 5000);
    receive_number(late, 1000);
    nothing_left(late);
    xi_msg some[64];
    for (int i = 0; i < 64; i++) some[i] = (xi_msg)XI_MSG_INIT;
    int64_t next = 0;
    while (next <= 1000) {
        int64_t got = xi_recv_many(in, some, 64, XI_TRY);
        ok(got);
        for (int64_t i = 0; i < got; i++) ck_assert_int_eq(number_of(&some[i]), next++);
    }
    for (int i = 0; i < 64; i++) xi_msg_release(&some[i]);
    ok(xi_close(out));
    fails(XI_E_CLOSED, xi_recv(in, &some[0], XI_FOREVER));
    fails(XI_E_CLOSED, xi_send_int(out, 1, XI_TRY));
    nothing_out(me);
    ok(xi_channel_free(out));
    ok(xi_channel_free(late));
    ok(xi_channel_free(in));
}
END_TEST

/* A group that ends with large values before it in a grown ring gives them back. */
START_TEST(a_group_that_ends_gives_back) {
    xi_open_opts opts = GROWING;
    opts.mode = XI_BROADCAST;
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    for (int64_t i = 0; i < 500; i++) send_number(out, i, 5000);
    ck_assert_uint_gt(capacity_of(out), XI_CAPACITY_MIN);
    receive_number(in, 0);
    ok(xi_channel_free(in));
    nothing_out(me);
    ok(xi_channel_free(out));
}
END_TEST

/* No further than it may: then as any channel that is full, in words that say why. */
START_TEST(at_its_most_it_is_full) {
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .grow = 65536, .when_full = _i == 0 ? XI_FULL_BLOCK : XI_FULL_FAIL};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    int64_t n = 0;
    while (xi_send_int(out, n, XI_TRY) == 0) n++;
    ck_assert_int_eq(n, (65536 - 8) / 16);
    ck_assert_uint_eq(capacity_of(in), 65536);
    fails(XI_E_AGAIN, xi_send_int(out, n, XI_TRY));
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_AGAIN), "as large as it may become"));
    int64_t begun = xi_now();
    fails(_i == 0 ? XI_E_TIMEOUT : XI_E_AGAIN, xi_send_int(out, n, 100 * MS));
    ck_assert((xi_now() - begun >= 100 * MS) == (_i == 0));
    receive_number(in, 0);
    ok(xi_send_int(out, n, XI_TRY));
    for (int64_t i = 1; i <= n; i++) receive_number(in, i);
    nothing_left(in);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* Large values under way: as many bytes as the ring may grow to, where that is more than 64 times its own. */
START_TEST(large_values_count_against_growth) {
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .grow = (uint64_t)1 << 20};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    const size_t size = 10000;
    int64_t n = 0;
    while (try_number(out, n, size, &(xi_send_opts){.timeout = XI_TRY}) == 0) n++;
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_AGAIN), "large values"));
    ck_assert_int_ge(n, (1 << 20) / 20000);
    ck_assert_int_le(n, (1 << 20) / 10000);
    fails(XI_E_TIMEOUT, try_number(out, n, size, &(xi_send_opts){.timeout = 20 * MS}));
    receive_number(in, 0);
    nothing_out(you);
    send_number(out, n, size);
    for (int64_t i = 1; i <= n; i++) receive_number(in, i);
    nothing_out(me);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* Threads of two interpreters, some on one handle, while the ring moves under them: for a thread sanitizer. */
#define THREADS_SEND 2
#define THREADS_RECEIVE 3
#define EACH 6000

static struct {
    xi_channel *out, *in, *alone;
    _Atomic int64_t received[2];
    _Atomic int senders;
} P;

static void *thread_send(void *argument) {
    int64_t who = (int64_t)(intptr_t)argument;
    for (int64_t i = 0; i < EACH; i++) {
        if (i % 50 == 0) send_number(P.out, who << 32 | i, 5000);
        else ok(xi_send_int(P.out, who << 32 | i, XI_FOREVER));
        if (i % 2000 == 1999) nanosleep(&(struct timespec){0, (long)(250 * MS)}, NULL); /* so that it comes home */
    }
    if (atomic_fetch_add(&P.senders, 1) == THREADS_SEND - 1) ok(xi_close(P.out));
    return NULL;
}

static void *thread_receive(void *argument) {
    int group = argument != NULL;
    int64_t last[THREADS_SEND] = {-1, -1};
    xi_msg m = XI_MSG_INIT;
    int rc;
    while ((rc = xi_recv(group ? P.alone : P.in, &m, XI_FOREVER)) == 0) {
        int64_t v = number_of(&m);
        ck_assert_int_gt(v & 0xffffffff, last[v >> 32]);
        last[v >> 32] = v & 0xffffffff;
        atomic_fetch_add(&P.received[group], 1);
    }
    ck_assert_int_eq(rc, XI_E_CLOSED);
    xi_msg_release(&m);
    return NULL;
}

/* True if it has moved there and back, and there again: a matter of luck, but of much. */
static bool move_under_threads(void) {
    pthread_t t[THREADS_SEND + THREADS_RECEIVE];
    xi_msg m = XI_MSG_INIT;
    memset(&P, 0, sizeof P);
    P.out = open_sender(me, (xi_open_opts)GROWING);
    P.in = open_as(you, NULL, (xi_open_opts)GROWING);
    P.alone = open_as(you, "alone", (xi_open_opts)GROWING);
    for (int64_t i = 0; i < 3000; i++) ok(xi_send_int(P.out, i - EACH, XI_TRY)); /* grown before anybody receives */
    for (int i = 0; i < 6000; i++) ok(xi_recv(i % 2 ? P.in : P.alone, &m, XI_TRY));
    for (int i = 0; i < THREADS_RECEIVE; i++)
        ck_assert_int_eq(pthread_create(&t[i], NULL, thread_receive, i == 0 ? &P : NULL), 0);
    for (int i = 0; i < THREADS_SEND; i++)
        ck_assert_int_eq(pthread_create(&t[THREADS_RECEIVE + i], NULL, thread_send, (void *)(intptr_t)i), 0);
    for (int i = 0; i < THREADS_SEND + THREADS_RECEIVE; i++) pthread_join(t[i], NULL);
    ck_assert_int_eq(P.received[0], THREADS_SEND * EACH);
    ck_assert_int_eq(P.received[1], THREADS_SEND * EACH);
    bool moved = P.out->chan->grown > 1 && P.out->chan->shrunk > 0;
    ck_assert(P.out->chan->grown > 0);
    ok(xi_channel_free(P.out));
    ok(xi_channel_free(P.in));
    ok(xi_channel_free(P.alone));
    return moved;
}

START_TEST(it_moves_under_threads) {
    int tries = 0;
    while (!move_under_threads()) ck_assert_int_lt(++tries, 20);
}
END_TEST

/*
 * A broker that thinks that nobody will move into a ring says so in it, while somebody is about to. Here a thread says it
 * as soon as there is a ring. Who moves must see it, before or after naming the ring, and take another.
 */
static void *say_gone(void *argument) {
    uint32_t number = *(const uint32_t *)argument;
    char name[XI_SHM_NAME_MAX];
    int fd;
    while (xi_load_relaxed(&((struct xi_registry *)(uintptr_t)me->registry)->next_segment) == number) xi_pause();
    xi_shm_segment_name(name, me->place.uid, me->place.ns, me->epoch, number);
    while (xi_segment_open(name, true, &fd) != 0) xi_pause();
    uint64_t magic = 0;
    while (pread(fd, &magic, sizeof magic, 0) != (ssize_t)sizeof magic || magic != XI_LAYOUT_MAGIC) xi_pause();
    struct xi_segment *head = mmap(NULL, XI_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert(head != MAP_FAILED);
    (void)xi_exchange_full(&head->gone, 1u);
    munmap(head, XI_PAGE);
    close(fd);
    return NULL;
}

START_TEST(a_ring_that_is_gone_is_not_used) {
    int in_time = 0;
    for (int i = 0; i < 300 && in_time < 3; i++) {
        xi_channel *out = open_sender(me, (xi_open_opts)GROWING), *in = open_as(you, NULL, (xi_open_opts)GROWING);
        uint32_t number = xi_load_relaxed(&((struct xi_registry *)(uintptr_t)me->registry)->next_segment);
        pthread_t t;
        int64_t n = (4096 - 8) / 16;
        for (int64_t k = 0; k < n; k++) ok(xi_send_int(out, k, XI_TRY));
        ck_assert_int_eq(pthread_create(&t, NULL, say_gone, &number), 0);
        ok(xi_send_int(out, n, 5000 * MS));
        pthread_join(t, NULL);
        in_time += XI_RING_SEGMENT(out->chan->ring) != number;
        for (int64_t k = 0; k <= n; k++) receive_number(in, k);
        ok(xi_channel_free(out));
        ok(xi_channel_free(in));
    }
    ck_assert_int_eq(in_time, 3);
}
END_TEST

/* The ring moves under the locks of all groups: one that is held keeps it where it is, and the send says so. */
START_TEST(a_held_lock_keeps_the_ring) {
    xi_open_opts opts = GROWING;
    opts.mode = XI_BROADCAST;
    xi_channel *out = open_sender(me, opts), *in[2] = {open_as(you, NULL, opts), open_as(you, NULL, opts)};
    int64_t n = (XI_CAPACITY_MIN - 8) / 16, begun = xi_now();
    for (int64_t i = 0; i < n; i++) ok(xi_send_int(out, i, XI_TRY));
    ok(xi_lock(in[_i], in[_i]->group, XI_TRY));
    fails(XI_E_AGAIN, xi_send_int(out, n, XI_TRY));
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_AGAIN), "is it stopped?"));
    ck_assert_int_ge(xi_load_relaxed(&out->moving.not_before) - begun, 1000 * MS); /* not tried again at once */
    ck_assert_uint_eq(xi_load_relaxed(&out->chan->ring), 0);
    ck_assert_uint_eq(xi_load_relaxed(&in[_i]->group->lock), in[_i]->lock_word);
    ck_assert_uint_eq(xi_load_relaxed(&in[!_i]->group->lock), 0);
    xi_unlock(in[_i]->group);
    xi_store_relaxed(&out->moving.not_before, begun);
    ok(xi_send_int(out, n, XI_TRY));
    ck_assert_uint_ne(xi_load_relaxed(&out->chan->ring), 0);
    for (int g = 0; g < 2; g++)
        for (int64_t i = 0; i <= n; i++) receive_number(in[g], i);
    for (int g = 0; g < 2; g++) ok(xi_channel_free(in[g]));
    ok(xi_channel_free(out));
}
END_TEST

/* Until the broker has taken the segment away. */
static void until_gone(uint32_t number) {
    char name[XI_SHM_NAME_MAX];
    int64_t end = xi_now() + LONG;
    int fd;
    xi_shm_segment_name(name, me->place.uid, me->place.ns, me->epoch, number);
    while (xi_segment_open(name, true, &fd) == 0) {
        close(fd);
        ck_assert_msg(xi_now() < end, "the ring is there still");
        sched_yield();
    }
}

static uint32_t next_segment(void) { return xi_load_relaxed(&((struct xi_registry *)(uintptr_t)me->registry)->next_segment); }

/* The broker has made a ring, and here no descriptor is free to take it: it is told so, and takes it back. */
START_TEST(a_ring_that_does_not_arrive_goes_back) {
    xi_channel *out = open_sender(me, (xi_open_opts)GROWING), *in = open_as(you, NULL, (xi_open_opts)GROWING);
    uint32_t number = next_segment();
    struct rlimit was, none;
    int64_t n = (XI_CAPACITY_MIN - 8) / 16;
    int lowest = dup(STDERR_FILENO);
    for (int64_t i = 0; i < n; i++) ok(xi_send_int(out, i, XI_TRY));
    ck_assert_int_ge(lowest, 0);
    close(lowest);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = (struct rlimit){(rlim_t)lowest, was.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    int rc = xi_send_int(out, n, XI_TRY);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &was), 0);
    fails(XI_E_AGAIN, rc);
    ck_assert_int_eq(atomic_load(&out->moving.refused), XI_E_BROKER);
    ck_assert_uint_ne(next_segment(), number);
    until_gone(number);
    for (int64_t i = 0; i < n; i++) receive_number(in, i);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* Likewise one that the broker makes when nobody waits for its answer any more. */
START_TEST(a_ring_that_comes_too_late_goes_back) {
    xi_channel *out = open_sender(me, (xi_open_opts)GROWING), *in = open_as(you, NULL, (xi_open_opts)GROWING);
    uint32_t number = next_segment();
    int64_t n = (XI_CAPACITY_MIN - 8) / 16;
    pid_t broker = me->registry->broker_pid;
    for (int64_t i = 0; i < n; i++) ok(xi_send_int(out, i, XI_TRY));
    ck_assert_int_eq(kill(broker, SIGSTOP), 0);
    int rc = xi_send_int(out, n, XI_TRY);
    ck_assert_int_eq(kill(broker, SIGCONT), 0);
    fails(XI_E_AGAIN, rc);
    ck_assert_int_eq(atomic_load(&out->moving.refused), XI_E_TIMEOUT);
    for (int64_t until = xi_now() + LONG; next_segment() == number;) {
        ck_assert_msg(xi_now() < until, "the ring was not made");
        sched_yield();
    }
    until_gone(number);
    for (int64_t i = 0; i < n; i++) receive_number(in, i);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* Whoever passes an almost empty ring twice brings it home, with a while in between: who sends, receives, or looks while asleep. */
enum who { SENDS, RECEIVES, RECEIVES_MANY, LOOKS };

static void pass(enum who who, xi_channel *out, xi_channel *in) {
    xi_msg m = XI_MSG_INIT;
    uint64_t value = XI_INT32 | (uint64_t)7 << 32;
    ok(xi_send_ex(out, &value, 8, &(xi_send_opts){.ttl_ns = 3600 * 1000 * MS})); /* not the fast way, which looks at nothing */
    atomic_store(&in->moving.passed, who == SENDS || who == LOOKS ? 0 : 1023); /* every 1024th looks */
    if (who == RECEIVES_MANY) ck_assert_int_eq(xi_recv_many(in, &m, 1, XI_TRY), 1);
    else ok(xi_recv(in, &m, XI_TRY));
    if (who == LOOKS) ck_assert_int_eq(xi_rings_look(you), 0);
}

START_TEST(whoever_passes_brings_it_home) {
    xi_channel *out = open_sender(me, (xi_open_opts)GROWING), *in = open_as(you, NULL, (xi_open_opts)GROWING);
    xi_channel *looks = _i == SENDS ? out : in, *other = _i == SENDS ? in : out;
    for (int64_t i = 0; i < 500; i++) ok(xi_send_int(out, i, XI_TRY));
    for (int64_t i = 0; i < 500; i++) receive_number(in, i);
    uint64_t ring = xi_load_relaxed(&out->chan->ring);
    ck_assert_uint_ne(ring, 0);
    xi_store_relaxed(&other->moving.not_before, INT64_MAX); /* it leaves that to the one */
    xi_store_relaxed(&looks->moving.small_word, 0);         /* who has not looked yet */
    xi_store_relaxed(&looks->moving.small_since, 0);
    pass((enum who)_i, out, in);
    ck_assert_uint_eq(xi_load_relaxed(&out->chan->ring), ring);
    pass_time(110 * MS);
    pass((enum who)_i, out, in);
    ck_assert_uint_eq(xi_load_relaxed(&out->chan->ring), 0);
    until_gone(XI_RING_SEGMENT(ring));
    nothing_left(in);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* ------------------------------------------------------------- most values */

START_TEST(no_more_values_than_it_may) {
    xi_open_opts opts = {.values = 5, .mode = XI_BROADCAST};
    xi_channel *out = open_sender(me, opts), *a = open_as(you, NULL, opts), *b = open_as(you, NULL, opts);
    size_t size = _i == 0 ? 16 : 9000;
    for (int64_t i = 0; i < 5; i++) send_number(out, i, size);
    fails(XI_E_AGAIN, try_number(out, 5, size, &(xi_send_opts){.timeout = XI_TRY}));
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_AGAIN), "as many values as it may"));
    fails(XI_E_TIMEOUT, try_number(out, 5, size, &(xi_send_opts){.timeout = 20 * MS}));
    for (int64_t i = 0; i < 5; i++) receive_number(a, i);
    fails(XI_E_AGAIN, try_number(out, 5, size, &(xi_send_opts){.timeout = XI_TRY})); /* b has received none */
    for (int64_t i = 5; i < 100; i++) {
        receive_number(b, i - 5);
        send_number(out, i, size);
        fails(XI_E_AGAIN, try_number(out, i, size, &(xi_send_opts){.timeout = XI_TRY}));
        receive_number(a, i);
    }
    ok(xi_channel_free(b)); /* and with it what it had yet to receive */
    for (int64_t i = 0; i < 5; i++) send_number(out, i, size);
    fails(XI_E_AGAIN, try_number(out, 5, size, &(xi_send_opts){.timeout = XI_TRY}));
    ok(xi_channel_free(a));
    nothing_out(me);
    ok(xi_channel_free(out));
}
END_TEST

/* Several in one call: as many as may be. */
START_TEST(batches_end_at_the_most) {
    xi_open_opts opts = {.values = 7};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    uint64_t value = XI_INT32 | (uint64_t)9 << 32;
    const void *values[10];
    size_t sizes[10];
    for (int i = 0; i < 10; i++) values[i] = &value, sizes[i] = 8;
    ck_assert_int_eq(xi_send_many(out, values, sizes, 10, XI_TRY), 7);
    fails(XI_E_AGAIN, xi_send_many(out, values, sizes, 10, XI_TRY));
    receive_number(in, 9);
    ck_assert_int_eq(xi_send_many(out, values, sizes, 10, 5 * MS), 1);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* ---------------------------------------------------------- dropping the oldest */

/* Values 1: whoever comes finds the latest, of whatever size. */
START_TEST(the_latest_alone) {
    xi_open_opts opts = {.values = 1, .when_full = XI_FULL_DROP, .mode = XI_BROADCAST};
    xi_channel *out = open_sender(me, opts), *a = open_as(you, NULL, opts), *b = open_as(you, NULL, opts);
    size_t size = _i == 0 ? 16 : 9000;
    for (int64_t i = 0; i < 1000; i++) {
        ok(try_number(out, i, size, &(xi_send_opts){.timeout = XI_TRY}));
        if (i % 10 == 9) receive_number(a, i);
        if (i % 100 == 99) {
            receive_number(b, i);
            nothing_left(b);
        }
    }
    nothing_left(a);
    ck_assert_uint_eq(dropped(a), 900);
    ck_assert_uint_eq(dropped(b), 990);
    nothing_out(me);
    nothing_out(you);
    ok(xi_channel_free(a));
    ok(xi_channel_free(b));
    ok(xi_channel_free(out));
}
END_TEST

/* Bytes: the newest that fit are there, in order, inline and blocks mixed. */
START_TEST(the_newest_that_fit) {
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .when_full = XI_FULL_DROP};
    static const size_t sizes[] = {8, 100, 480, 6000};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    const int64_t n = 5000;
    for (int64_t i = 0; i < n; i++) ok(try_number(out, i, sizes[i % (1 + _i)], &(xi_send_opts){.timeout = XI_TRY}));
    int64_t first = (int64_t)dropped(in);
    ck_assert_int_gt(first, 0);
    ck_assert_int_lt(first, n - 5);
    for (int64_t i = first; i < n; i++) receive_number(in, i);
    nothing_left(in);
    nothing_out(me);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* No more than need be: the oldest one makes room for one, of large values and where no byte is left. */
START_TEST(one_is_dropped_for_one) {
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .when_full = XI_FULL_DROP};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    int64_t n = 0;
    if (_i == 0) {
        for (; dropped(in) == 0; n++) send_number(out, n, n == 1 ? 8 : 60000);
    } else {
        for (; n < (int64_t)(XI_CAPACITY_MIN - 8 - 24) / 16; n++) ok(xi_send_int(out, n, XI_TRY));
        ok(xi_send_int(out, INT64_MAX, XI_TRY)); /* of 24 bytes */
        ok(xi_send_int(out, 7, XI_TRY));
    }
    ck_assert_uint_eq(dropped(in), 1);
    for (int64_t i = 1; i < n; i++) receive_number(in, i);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* What is dropped is consumed: its free function runs, once. */
static void count_free(void *context, uint64_t argument) { ((uint64_t *)context)[0] += argument; }
START_TEST(free_functions_of_what_is_dropped) {
    xi_open_opts opts = {.values = 3, .when_full = XI_FULL_DROP};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    uint64_t sum = 0;
    uint32_t index;
    ok(xi_free_register(me, "count", count_free, &sum, &index));
    for (int64_t i = 1; i <= 100; i++)
        ok(try_number(out, i, 16, &(xi_send_opts){.timeout = XI_TRY, .free_index = index, .free_argument = (uint64_t)i}));
    ok(xi_free_run(me));
    ck_assert_uint_eq(sum, 97 * 98 / 2);
    for (int64_t i = 98; i <= 100; i++) receive_number(in, i);
    ok(xi_free_run(me));
    ck_assert_uint_eq(sum, 100 * 101 / 2);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* As many as it takes, though they are prepared a few at a time. */
START_TEST(many_are_dropped_for_one) {
    xi_open_opts opts = {.capacity = 65536, .when_full = XI_FULL_DROP};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    uint64_t sum = 0;
    int64_t n = 0;
    uint32_t index;
    ok(xi_free_register(me, "count", count_free, &sum, &index)); /* in blocks, however small */
    while (dropped(in) == 0) ok(try_number(out, n++, 8, &(xi_send_opts){.timeout = XI_TRY, .free_index = index, .free_argument = 1}));
    uint64_t before = dropped(in);
    send_number(out, n, xi_inline_max(out) - 64);
    ck_assert_uint_gt(dropped(in), before + XI_DROPS);
    for (int64_t i = (int64_t)dropped(in); i <= n; i++) receive_number(in, i);
    nothing_left(in);
    nothing_out(me);
    ok(xi_free_run(me));
    ck_assert_uint_eq(sum, (uint64_t)n);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* Grows as far as it may before it drops anything. */
START_TEST(grows_before_it_drops) {
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .grow = 65536, .when_full = XI_FULL_DROP};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    const int64_t fit = (65536 - 8) / 16;
    for (int64_t i = 0; i < fit; i++) ok(xi_send_int(out, i, XI_TRY));
    ck_assert_uint_eq(dropped(in), 0);
    for (int64_t i = fit; i < 3 * fit; i++) ok(xi_send_int(out, i, XI_TRY));
    ck_assert_uint_eq(dropped(in), (uint64_t)(2 * fit));
    for (int64_t i = 2 * fit; i < 3 * fit; i++) receive_number(in, i);
    nothing_left(in);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* Though another thread of this handle, or another process, is at it just now. */
static _Atomic bool sent;
static void *lets_grow(void *argument) {
    xi_channel *out = argument;
    while (!xi_load_full(&out->chan->parked_producers) && !atomic_load(&sent)) sched_yield();
    atomic_store(&out->moving.under_way, false);
    xi_wake_producers(out);
    return NULL;
}
START_TEST(what_another_makes_room_for_is_not_dropped) {
    int how = _i < 2 ? XI_FULL_DROP : _i < 4 ? XI_FULL_FAIL : XI_FULL_BLOCK;
    bool thread = _i & 1;
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .grow = 65536, .when_full = how};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    const int64_t fit = (XI_CAPACITY_MIN - 8) / 16;
    pthread_t t;
    for (int64_t i = 0; i < fit; i++) ok(xi_send_int(out, i, XI_TRY));
    if (thread) {
        atomic_store(&out->moving.under_way, true);
        atomic_store(&sent, false);
        pthread_create(&t, NULL, lets_grow, out);
    } else {
        atomic_store(&out->moving.refused, XI_E_AGAIN);
        xi_store_relaxed(&out->moving.not_before, xi_now() + 5 * MS);
    }
    ok(xi_send_int(out, fit, XI_TRY));
    atomic_store(&sent, true);
    if (thread) pthread_join(t, NULL);
    ck_assert_uint_eq(dropped(in), 0);
    for (int64_t i = 0; i <= fit; i++) receive_number(in, i);
    /* Not for ever, if it does not come to an end: then it is full. */
    until_home(in);
    atomic_store(&out->moving.under_way, true);
    for (int64_t i = 0; i < fit; i++) ok(xi_send_int(out, i, XI_TRY));
    int64_t start = xi_now();
    int rc = xi_send_int(out, fit, _i & 1 ? XI_TRY : 20 * MS);
    ck_assert_int_eq(rc, how == XI_FULL_DROP ? 0 : how == XI_FULL_FAIL || _i & 1 ? XI_E_AGAIN : XI_E_TIMEOUT);
    ck_assert_int_ge(xi_now() - start, (_i & 1 ? 100 : 20) * MS);
    ck_assert_uint_eq(dropped(in), how == XI_FULL_DROP);
    atomic_store(&out->moving.under_way, false);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

struct feeder {
    xi_channel *out;
    int64_t n;
};
static void *feeds(void *argument) {
    struct feeder *f = argument;
    for (int64_t i = 0; i < f->n; i++) ok(xi_send_int(f->out, i, XI_TRY));
    return NULL;
}
START_TEST(two_that_send_drop_nothing_early) {
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .grow = 1 << 20, .when_full = _i ? XI_FULL_FAIL : XI_FULL_DROP};
    for (int round = 0; round < 10; round++) {
        xi_channel *in = open_as(you, NULL, opts), *out[2] = {open_sender(me, opts), open_sender(you, opts)};
        pthread_t t[3];
        struct feeder f[3];
        for (int i = 0; i < 3; i++) { /* two threads with a handle, and another interpreter */
            f[i] = (struct feeder){out[i / 2], 20000};
            pthread_create(&t[i], NULL, feeds, &f[i]);
        }
        for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
        ck_assert_uint_eq(dropped(in), 0);
        ok(xi_remove(me, "grow"));
        ok(xi_channel_free(in));
        for (int i = 0; i < 2; i++) ok(xi_channel_free(out[i]));
    }
}
END_TEST

/* Who holds a group's lock keeps its oldest where they are: the send is as in any full channel, and says so. */
START_TEST(a_held_lock_keeps_the_oldest) {
    xi_open_opts opts = {.values = 1, .when_full = XI_FULL_DROP};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    send_number(out, 1, 16);
    ok(xi_lock(in, in->group, XI_TRY));
    fails(XI_E_AGAIN, try_number(out, 2, 16, &(xi_send_opts){.timeout = XI_TRY}));
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_AGAIN), "holds the lock"));
    fails(XI_E_TIMEOUT, try_number(out, 2, 16, &(xi_send_opts){.timeout = 50 * MS}));
    xi_unlock(in->group);
    send_number(out, 3, 16);
    receive_number(in, 3);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* What cannot be read is not dropped: its receivers skip it. The send says so, and only then. */
START_TEST(garbage_keeps_its_place) {
    xi_open_opts opts = {.values = 2, .when_full = XI_FULL_DROP};
    xi_channel *out = open_sender(me, opts), *in = open_as(you, NULL, opts);
    for (int64_t i = 1; i <= 2; i++) send_number(out, i, 16);
    xi_a64 *header = xi_header_at(&in->home, in->group->head);
    uint64_t right = xi_load_full(header);
    xi_store_full(header, 0);
    fails(XI_E_AGAIN, try_number(out, 3, 16, &(xi_send_opts){.timeout = XI_TRY}));
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_AGAIN), "cannot be read"));
    xi_store_full(header, right);
    send_number(out, 3, 16);
    receive_number(in, 2);
    receive_number(in, 3);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

/* ------------------------------------------------------------------ hostile */

/* A `ring` that names nothing, something else, or another channel's ring: errors, and the channel can be closed and freed. */
START_TEST(garbage_for_a_ring) {
    xi_channel *out = open_sender(me, (xi_open_opts)GROWING), *in = open_as(you, NULL, (xi_open_opts)GROWING), *other;
    ok(xi_open(me, "other", &(xi_open_opts)GROWING, &other));
    for (int64_t i = 0; i < 1000; i++) send_number(out, i, 16);
    for (int64_t i = 0; i < 1000; i++) ok(xi_send_int(other, i, XI_TRY));
    uint64_t right = out->chan->ring;
    uint64_t wrong[] = {1, 77, XI_RING(XI_RING_SEGMENT(right), 12), XI_RING(XI_RING_SEGMENT(right), 63),
                        XI_RING(XI_RING_SEGMENT(right) + 2, XI_RING_LOG2(right)), XI_RING(out->segment, XI_RING_LOG2(right)),
                        other->chan->ring, ~(uint64_t)0, (uint64_t)1 << 63, right | (uint64_t)1 << 50};
    ck_assert_uint_ne(right, 0);
    ck_assert_uint_ne(other->chan->ring, 0);
    xi_msg m = XI_MSG_INIT;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        xi_store_full(&out->chan->ring, wrong[i]);
        fails(XI_E_CORRUPT, xi_send_int(out, 1, 10 * MS));
        ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_CORRUPT), "none of its rings"));
        fails(XI_E_CORRUPT, xi_recv(in, &m, 10 * MS));
        fails(XI_E_CORRUPT, xi_recv_many(in, &m, 1, XI_TRY));
    }
    xi_store_full(&out->chan->ring, right);
    for (int64_t i = 0; i < 1000; i++) receive_number(in, i); /* nothing was lost by it */
    for (int64_t i = 0; i < 200; i++) send_number(out, i, 16);
    xi_store_full(&out->chan->ring, 0); /* says that it is at home, where nothing is as it should be */
    for (int i = 0; i < 300; i++) {
        int rc = xi_recv(in, &m, XI_TRY);
        if (rc == XI_E_AGAIN) break;
        ck_assert_msg(rc == 0 || rc == XI_E_CORRUPT, "%s", xi_error_name(rc));
    }
    xi_msg_release(&m);
    ok(xi_channel_free(other));
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
}
END_TEST

int main(void) {
    Suite *s = suite_create("growing and bounded channels");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, join_both, teardown);
    tcase_add_loop_test(t, grows_and_comes_home, 0, 3);
    tcase_add_test(t, a_grown_ring_is_as_any);
    tcase_add_test(t, a_group_that_ends_gives_back);
    tcase_add_loop_test(t, at_its_most_it_is_full, 0, 2);
    tcase_add_test(t, large_values_count_against_growth);
    tcase_add_test(t, it_moves_under_threads);
    tcase_add_test(t, a_ring_that_is_gone_is_not_used);
    tcase_add_loop_test(t, a_held_lock_keeps_the_ring, 0, 2);
    tcase_add_test(t, a_ring_that_does_not_arrive_goes_back);
    tcase_add_test(t, a_ring_that_comes_too_late_goes_back);
    tcase_add_loop_test(t, whoever_passes_brings_it_home, SENDS, LOOKS + 1);
    tcase_add_loop_test(t, no_more_values_than_it_may, 0, 2);
    tcase_add_test(t, batches_end_at_the_most);
    tcase_add_loop_test(t, the_latest_alone, 0, 2);
    tcase_add_loop_test(t, the_newest_that_fit, 0, 4);
    tcase_add_loop_test(t, one_is_dropped_for_one, 0, 2);
    tcase_add_test(t, many_are_dropped_for_one);
    tcase_add_test(t, free_functions_of_what_is_dropped);
    tcase_add_test(t, grows_before_it_drops);
    tcase_add_loop_test(t, what_another_makes_room_for_is_not_dropped, 0, 6);
    tcase_add_loop_test(t, two_that_send_drop_nothing_early, 0, 2);
    tcase_add_test(t, a_held_lock_keeps_the_oldest);
    tcase_add_test(t, garbage_keeps_its_place);
    tcase_add_test(t, garbage_for_a_ring);
    suite_add_tcase(s, t);
    return run_suite(s);
}
