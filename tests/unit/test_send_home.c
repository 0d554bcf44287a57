/* SPDX-License-Identifier: MIT */
/*
 * Who frees a handle, or leaves, sends home whoever waits in it, and goes on only
 * when they have touched it for the last time: not when they woke.
 */
#include "call_fixture.h"

struct part {
    xi_channel *ch, *seen; /* where who waits in `ch` can be seen */
    xi_interp *interp; /* who leaves; NULL: the handle is freed */
    int rc;
    _Atomic bool over;
};

static void *ends(void *argument) {
    struct part *p = argument;
    ok(p->interp ? xi_leave(p->interp) : xi_channel_free(p->ch));
    atomic_store(&p->over, true);
    return NULL;
}
static void *begins_call(void *argument) {
    struct part *p = argument;
    uint64_t none = XI_NONE;
    xi_pending pending;
    p->rc = xi_call_begin(p->ch, &none, sizeof none, XI_FOREVER, &pending);
    return NULL;
}
static void *calls(void *argument) {
    struct part *p = argument;
    xi_msg reply = XI_MSG_INIT;
    p->rc = call(p->ch, 1, 0, &reply, XI_FOREVER);
    xi_msg_release(&reply);
    return NULL;
}
static void *sends_block(void *argument) {
    static uint64_t buffer[2000];
    struct part *p = argument;
    p->rc = xi_send(p->ch, buffer, encode_number(buffer, sizeof buffer, 1, 9000), XI_FOREVER);
    return NULL;
}
static void *receives(void *argument) {
    struct part *p = argument;
    xi_msg m = XI_MSG_INIT;
    p->rc = xi_recv(p->ch, &m, XI_FOREVER);
    xi_msg_release(&m);
    return NULL;
}

static bool somebody_waits(xi_channel *ch) {
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++)
        if (xi_load_full(&ch->chan->waiters[i])) return true;
    return false;
}

/* `at`: a mutex that the one who waits needs once it is awake. As long as it does not get it nobody has freed what it uses: a
 * fifth of a second is enough for that to be seen where it is not so. */
static void is_waited_for(struct part *waits, struct part *freer, pthread_t t[2], pthread_mutex_t *at) {
    pthread_create(&t[1], NULL, ends, freer);
    while (somebody_waits(waits->seen)) sched_yield();
    for (int64_t until = xi_now() + 200 * MS; xi_now() < until; sched_yield()) ck_assert(!atomic_load(&freer->over));
    pthread_mutex_unlock(at);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    ck_assert(atomic_load(&freer->over));
}

/* It sleeps, and is woken by the end of its handle (`leaver` NULL), or its interpreter. */
static void is_sent_home(void *(*what)(void *), xi_channel *ch, xi_interp *leaver, pthread_mutex_t *at, xi_channel *seen) {
    struct part waits = {.ch = ch, .seen = seen}, freer = {.ch = ch, .interp = leaver};
    pthread_t t[2];
    pthread_create(&t[0], NULL, what, &waits);
    while (!somebody_waits(seen)) sched_yield();
    pthread_mutex_lock(at);
    is_waited_for(&waits, &freer, t, at);
    ck_assert_int_eq(waits.rc, XI_E_LEFT);
}

static xi_interp *join_third(int64_t spin) {
    xi_interp *third;
    ok(xi_join(&(xi_join_opts){.name = "third", .spin_ns = spin}, &third));
    return third;
}

/* The channel goes with what was left in it. */
static void let_go(xi_channel *in) {
    ok(xi_remove(me, xi_channel_name(in)));
    ok(xi_channel_free(in));
}

/* A request or a value for which there was no room: its number, or its block, is given back. */
START_TEST(who_finds_no_room) {
    static void *(*const what[])(void *) = {begins_call, calls, sends_block, begins_call, calls};
    bool leaves = _i > 2;
    xi_interp *third = join_third(0);
    xi_channel *in = server(), *out = open_with(third, XI_OPEN_SEND, (xi_open_opts){.capacity = XI_CAPACITY_MIN});
    xi_pending p;
    ok(begin(out, 1, 0, &p)); /* the first makes what calls need */
    xi_call_cancel(&p);
    while (xi_send_int(out, 1, XI_TRY) == 0) continue;
    is_sent_home(what[_i], out, leaves ? third : NULL, _i == 2 ? &third->arena.mutex : &third->calls_mutex, in);
    if (leaves) ok(xi_channel_free(out));
    else ok(xi_leave(third));
    let_go(in);
}
END_TEST

/* And who got what it waited for, just before. */
START_TEST(who_wakes_with_a_value) {
    static uint64_t buffer[2000];
    xi_interp *third = join_third(0);
    xi_channel *in = open_with(third, XI_OPEN_RECV, (xi_open_opts){0}), *out = caller();
    struct part waits = {.ch = in, .seen = out}, freer = {.ch = in, .interp = _i ? third : NULL};
    pthread_t t[2];
    pthread_create(&t[0], NULL, receives, &waits);
    while (!somebody_waits(out)) sched_yield();
    pthread_mutex_lock(&third->borrows.mutex);
    ok(xi_send(out, buffer, encode_number(buffer, sizeof buffer, 1, 9000), XI_TRY));
    while (somebody_waits(out)) sched_yield();
    is_waited_for(&waits, &freer, t, &third->borrows.mutex);
    ck_assert_int_eq(waits.rc, 0);
    if (_i) ok(xi_channel_free(in));
    else ok(xi_leave(third));
    let_go(out);
}
END_TEST

/* A spin of 100 s ends as well, as soon as somebody can have seen it. */
START_TEST(who_spins) {
    unsetenv("XI_SPIN_US"); /* which counts for more */
    xi_interp *third = join_third(100000 * MS);
    xi_channel *in = open_with(third, XI_OPEN_RECV, (xi_open_opts){0}), *out = caller();
    if (xi_spin_budget(&in->receive_spin)) { /* not with one processor */
        struct part spins = {.ch = in}, freer = {.ch = in, .interp = _i ? third : NULL};
        pthread_t t;
        pthread_create(&t, NULL, receives, &spins);
        while (!atomic_load(&in->waiting)) sched_yield();
        ck_assert(!somebody_waits(out));
        (void)ends(&freer);
        pthread_join(t, NULL);
        ck_assert_int_eq(spins.rc, XI_E_LEFT);
        if (_i) ok(xi_channel_free(in));
        else ok(xi_leave(third));
    } else {
        ok(xi_leave(third));
        ok(xi_channel_free(in));
    }
    let_go(out);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sent home");
    TCase *t = tcase_create("sent home");
    tcase_add_checked_fixture(t, join_both, leave_both);
    tcase_set_timeout(t, 30);
    tcase_add_loop_test(t, who_finds_no_room, 0, 5);
    tcase_add_loop_test(t, who_wakes_with_a_value, 0, 2);
    tcase_add_loop_test(t, who_spins, 0, 2);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
