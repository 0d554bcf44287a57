/* SPDX-License-Identifier: MIT */
/*
 * A peer may write into the lock words of a channel, so that two of our threads
 * hold a lock at once. What they then read and send is anybody's guess, but all
 * of it in what is mapped: the ring that a growing channel leaves is unmapped by
 * whoever finds it moved, and another thread may be using it.
 *
 * The library is built with a call before each atomic access. Before each one of
 * a call in turn the lock is cleared, the ring moves, and another thread makes
 * the same call through the same handle, for which it is waited: for a moment,
 * since it may have to wait for us.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "channel/channel.h"
#include "fixture.h"

#define VALUE 400 /* bytes, in line: some 2,500 fill the first ring that is grown into */
#define WHILE (20 * MS)

static struct {
    xi_channel *out, *in, *mover; /* the last is another's: it moves the ring */
    int (*call)(void);
    xi_a32 *lock;
    long at; /* accesses until the lock lies; counted while armed */
    bool armed, lied;
    long moved;
    pthread_t other;
    _Atomic bool done;
} W;

static int sends_one(void) { return xi_send_int(W.out, 7, XI_TRY); }
static int sends_several(void) {
    uint64_t value = XI_INT32 | (uint64_t)9 << 32;
    int64_t rc = xi_send_many(W.out, (const void *[]){&value, &value, &value}, (size_t[]){8, 8, 8}, 3, XI_TRY);
    return rc < 0 ? (int)rc : 0;
}
static int sends_a_block(void) { return try_number(W.out, 7, 5000, &(xi_send_opts){.timeout = XI_TRY}); }
static int receives_one(void) {
    xi_msg m = XI_MSG_INIT;
    int rc = xi_recv(W.in, &m, XI_TRY);
    xi_msg_release(&m);
    return rc;
}
static int receives_several(void) {
    xi_msg m[3] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    int64_t rc = xi_recv_many(W.in, m, 3, XI_TRY);
    for (int i = 0; i < 3; i++) xi_msg_release(&m[i]);
    return rc < 0 ? (int)rc : 0;
}
static const struct scene {
    const char *name;
    int (*call)(void);
    bool sends, blocks;
} scenes[] = {
    {"send", sends_one, true, false},         {"send several", sends_several, true, false},
    {"send a block", sends_a_block, true, false}, {"receive", receives_one, false, false},
    {"receive several", receives_several, false, false}, {"receive a block", receives_one, false, true},
};

static void *call_too(void *argument) {
    (void)argument;
    (void)W.call();
    atomic_store(&W.done, true);
    return NULL;
}

static void move_ring(void) {
    uint64_t from = atomic_load(&W.mover->chan->ring);
    for (int i = 0; i < 4000 && atomic_load(&W.mover->chan->ring) == from; i++)
        (void)try_number(W.mover, i, VALUE, &(xi_send_opts){.timeout = XI_TRY});
    W.moved += atomic_load(&W.mover->chan->ring) != from;
}

static void lie(void) {
    atomic_store(W.lock, 0u);
    move_ring();
    atomic_store(&W.done, false);
    ck_assert_int_eq(pthread_create(&W.other, NULL, call_too, NULL), 0);
    for (int64_t until = xi_now() + WHILE; !atomic_load(&W.done) && xi_now() < until;) sched_yield();
}

static _Thread_local bool watched;

void xi_before_load(const volatile void *p) {
    (void)p;
    if (!watched || !W.armed || W.at-- != 0) return;
    W.armed = false;
    W.lied = true;
    lie();
}

static xi_channel *open_for(xi_interp *who, uint32_t flags) {
    xi_channel *ch = NULL;
    ok(xi_open(who, "lies", &(xi_open_opts){.flags = flags, .capacity = XI_CAPACITY_MIN, .grow = 1 << 22}, &ch));
    return ch;
}

/* False: the call has fewer accesses than that. */
static bool lie_before(const struct scene *s, long k) {
    W.out = open_for(me, XI_OPEN_SEND);
    W.in = open_for(me, XI_OPEN_RECV);
    W.mover = open_for(you, XI_OPEN_SEND);
    W.call = s->call;
    W.lock = s->sends ? &W.out->chan->lock : &W.in->group->lock;
    while (W.out->chan->ring == 0) ok(xi_send_int(W.out, 7, XI_TRY));
    for (int i = 0; i < 8; i++) ok(s->blocks ? sends_a_block() : sends_one());
    /* The view of the side that is looked at is where the ring is. */
    if (!s->sends) ok(receives_one());
    while (s->blocks && W.in->chan->groups[0].head_seq + 8 < W.in->chan->tail_seq) ok(receives_one());
    ck_assert_uint_ne(W.out->chan->ring, 0);
    W.at = k;
    W.lied = false;
    W.armed = watched = true;
    (void)s->call();
    W.armed = watched = false;
    if (W.lied) pthread_join(W.other, NULL);
    (void)xi_remove(me, "lies");
    ok(xi_channel_free(W.out));
    ok(xi_channel_free(W.in));
    ok(xi_channel_free(W.mover));
    return W.lied;
}

START_TEST(before_each_access) {
    long k = 0;
    join_both();
    W.moved = 0;
    while (lie_before(&scenes[_i], k)) k++;
    ck_assert_int_gt(k, 10);
    ck_assert_int_ge(W.moved, k * 9 / 10); /* at a few the mover could not, or was too late */
    printf("%s: %ld accesses\n", scenes[_i].name, k);
    leave_both();
}
END_TEST

int main(void) {
    Suite *s = suite_create("locks that lie");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, before_each_access, 0, sizeof scenes / sizeof *scenes);
    suite_add_tcase(s, t);
    return run_suite(s);
}
