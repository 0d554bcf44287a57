/* SPDX-License-Identifier: MIT */
/*
 * Wakes that are passed on: who was woken has done what it came for, or goes
 * without doing it, and there is something left for another who sleeps. In some
 * of these a sleeper's bit is taken out of the mask for a moment, as by a waker
 * that was stopped with the claim in its hand.
 */
#include "sleepers.h"

#define SHORT (150 * MS)

static int receives_shortly(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    int rc = xi_recv(ch, &m, SHORT);
    xi_msg_release(&m);
    return rc;
}

static void fill(xi_channel *out) {
    while (xi_send_int(out, 7, XI_TRY) == 0) continue;
}

/* The room of one large value is room for several small ones; its receiver wakes one sender. */
START_TEST(room_for_several_reaches_several_senders) {
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    send_number(out, 1, 400);
    fill(out);
    for (int i = 0; i < SLEEPERS; i++) start(i, out, sends_one);
    await_asleep(&out->chan->parked_senders, SLEEPERS, SLEEPERS);
    ck_assert_int_eq(take(in), 1);
    expect_done(SLEEPERS, SLEEPERS);
    for (int i = 0; i < SLEEPERS; i++) end(i, 0);
    let_go(out, in);
}
END_TEST

/* A member of the group that is quick sleeps at the end of a full channel; what is dropped is dropped for one that is slow. */
START_TEST(a_send_that_drops_is_heard) {
    xi_open_opts opts = {.mode = XI_BROADCAST, .when_full = XI_FULL_DROP, .values = 2};
    xi_channel *out = open_here(me, "news", XI_OPEN_SEND, opts), *quick = open_here(you, "news", XI_OPEN_RECV, opts);
    opts.group = "slow";
    xi_channel *slow = open_here(you, "news", XI_OPEN_RECV, opts);
    for (int i = 1; i <= 2; i++) {
        ok(xi_send_int(out, i, XI_TRY));
        ck_assert_int_eq(take(quick), i);
    }
    start(0, quick, receives_one);
    await_asleep(&quick->group->parked, 1, 1);
    ok(xi_send_int(out, 3, XI_TRY));
    expect_done(1, 1);
    end(0, 0);
    ck_assert_int_eq(take(slow), 2);
    ok(xi_channel_free(quick));
    let_go(out, slow);
}
END_TEST

/* Just as much as is wanted: bytes, large values under way, values. Who waits for it sleeps until then. */
static int sends_large(xi_channel *ch) { return try_number(ch, 7, 60000, &(xi_send_opts){.timeout = LONG}); }

START_TEST(room_for_one_and_no_more) {
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){.values = _i == 2 ? 3 : 0});
    xi_channel *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    if (_i == 0) {
        for (unsigned i = 0; i < (XI_CAPACITY_MIN - 8 - 24) / 16; i++) ok(xi_send_int(out, 7, XI_TRY));
        ok(xi_send_int(out, INT64_MAX, XI_TRY)); /* no byte is left */
    } else {
        while (try_number(out, 7, _i == 1 ? 60000 : 8, &(xi_send_opts){.timeout = XI_TRY}) == 0) continue;
    }
    start(0, out, _i == 1 ? sends_large : sends_one);
    await_asleep(&out->chan->parked_senders, 1, 1);
    ck_assert_int_eq(take(in), 7);
    expect_done(1, 1);
    end(0, 0);
    let_go(out, in);
}
END_TEST

/* What one that is woken cannot use is another's: the first wants more room than there is. */
static int sends_400(xi_channel *ch) { return try_number(ch, 7, 400, &(xi_send_opts){.timeout = LONG}); }

START_TEST(room_that_is_too_small_for_one) {
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    fill(out);
    for (int i = 0; i < 3; i++) { /* who wants little sleeps between, or behind, others who want much */
        start(i, out, i == 1 + _i % 2 ? sends_one : sends_400);
        await_asleep(&out->chan->parked_senders, (unsigned)i + 1, (unsigned)i + 1);
    }
    for (int i = 0; i < 2; i++) ck_assert_int_eq(take(in), 7); /* some stays, which is too small for them */
    expect_done(1, 3);
    end(1 + _i % 2, 0);
    ck_assert_int_eq(done_of(3), 1);
    uint64_t wakes = xi_load_relaxed(&out->chan->wakes);
    pass_time(20 * MS);
    ck_assert_uint_le(xi_load_relaxed(&out->chan->wakes), wakes + 3); /* nor do the two wake each other all the time */
    xi_msg m = XI_MSG_INIT;
    while (xi_recv(in, &m, XI_TRY) == 0) continue;
    xi_msg_release(&m);
    for (int i = 0; i < 3; i++)
        if (i != 1 + _i % 2) end(i, 0);
    let_go(out, in);
}
END_TEST

/* Nor what one that is woken does not come to, since it fails: here it gets no lock in its time. */
static int sends_shortly(xi_channel *ch) { return xi_send_int(ch, 7, SHORT); }

START_TEST(what_one_fails_to_use) {
    xi_channel *out = open_here(me, "wakes", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(you, "wakes", XI_OPEN_RECV, (xi_open_opts){0});
    xi_channel *ch = _i ? out : in;
    struct xi_mask *parked = _i ? &out->chan->parked_senders : &in->group->parked;
    xi_a32 *lock = _i ? &out->chan->lock : &in->group->lock, *lock_sleep = _i ? &out->chan->lock_sleep : &in->group->lock_sleep;
    if (_i) fill(out);
    start(0, ch, _i ? sends_shortly : receives_shortly);
    await_asleep(parked, 1, 1);
    start(1, ch, _i ? sends_one : receives_one);
    await_asleep(parked, 2, 2);
    ok(xi_lock_words(ch, lock, lock_sleep, XI_TRY));
    if (_i) ck_assert_int_eq(take(in), 7);
    else ok(xi_send_int(out, 7, XI_TRY));
    end(0, XI_E_TIMEOUT);
    ck_assert_int_eq(done_of(2), 1);
    xi_unlock_words(lock, lock_sleep);
    expect_done(2, 2);
    end(1, 0);
    let_go(out, in);
}
END_TEST

/* ---- rings that grow */

#define GROWING (xi_open_opts){.grow = 65536}

/* One was refused a larger ring a moment ago, and sleeps; another gets it. */
START_TEST(who_has_grown_tells_who_waits) {
    xi_channel *out = open_here(me, "growing", XI_OPEN_SEND, GROWING), *refused = open_here(you, "growing", XI_OPEN_SEND, GROWING);
    for (unsigned i = 0; i < (XI_CAPACITY_MIN - 8) / 16; i++) ok(xi_send_int(out, 7, XI_TRY));
    atomic_store(&refused->moving.refused, XI_E_TIMEOUT);
    xi_store_relaxed(&refused->moving.not_before, INT64_MAX);
    start(0, refused, sends_one);
    await_asleep(&out->chan->parked_senders, 1, 1);
    ok(xi_send_int(out, 7, LONG));
    ck_assert_uint_ne(xi_load_full(&out->chan->ring), 0);
    expect_done(1, 1);
    end(0, 0);
    let_go(out, refused);
}
END_TEST

/* Who is refused since another is about to move asks again soon, though that one never moves and nobody rings. */
START_TEST(who_is_refused_for_a_moment_asks_again) {
    xi_channel *out = open_here(me, "growing", XI_OPEN_SEND, GROWING), *refused = open_here(you, "growing", XI_OPEN_SEND, GROWING);
    for (unsigned i = 0; i < (XI_CAPACITY_MIN - 8) / 16; i++) ok(xi_send_int(out, 7, XI_TRY));
    atomic_store(&refused->moving.refused, XI_E_AGAIN);
    xi_store_relaxed(&refused->moving.not_before, xi_now() + 50 * MS);
    start(0, refused, sends_one);
    expect_done(1, 1);
    end(0, 0);
    ck_assert_uint_ne(xi_load_full(&out->chan->ring), 0);
    let_go(out, refused);
}
END_TEST

/* An empty place before the tail of a grown ring, a length that is none, a block that is not there: skipped, which makes room. */
START_TEST(garbage_that_is_skipped_makes_room) {
    enum { ELSEWHERE, AT_HOME, NO_BLOCK } where = (unsigned)_i / 2;
    xi_open_opts opts = where == ELSEWHERE ? GROWING : (xi_open_opts){0};
    xi_channel *out = open_here(me, "growing", XI_OPEN_SEND, opts), *in;
    opts.group_opts = &(xi_group_opts){.flags = _i % 2 ? XI_GROUP_ACK : 0};
    in = open_here(you, "growing", XI_OPEN_RECV, opts);
    if (where == NO_BLOCK) while (try_number(out, 7, 60000, &(xi_send_opts){.timeout = XI_TRY}) == 0) continue;
    else fill(out);
    start(0, out, where == NO_BLOCK ? sends_large : sends_one);
    await_asleep(&out->chan->parked_senders, 1, 1);
    xi_a64 *header = xi_header_at(&out->send_view, in->group->head);
    if (where == NO_BLOCK) xi_store_full(&header[1], UINT64_MAX); /* its segment */
    else xi_store_full(header, where == ELSEWHERE ? 0 : XI_REC(4, XI_REC_INLINE, 0, 1));
    fails(XI_E_CORRUPT, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    expect_done(1, 1);
    end(0, 0);
    let_go(out, in);
}
END_TEST

/* The look that comes once a second is at all of an interpreter's rings. */
START_TEST(all_grown_rings_are_looked_at) {
    xi_channel *out[3];
    char name[2] = "a";
    for (int i = 0; i < 3; i++, name[0]++) {
        out[i] = open_here(me, name, XI_OPEN_SEND, GROWING);
        fill(out[i]);
        xi_channel *in = open_here(you, name, XI_OPEN_RECV, GROWING);
        while (xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY) == 0) continue;
        ok(xi_channel_free(in));
        xi_store_relaxed(&out[i]->moving.small_word, 0);
    }
    ok(xi_sleep_ended(me, XI_WAKE_LOOK));
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(xi_load_relaxed(&out[i]->moving.small_word), xi_load_full(&out[i]->chan->ring));
        ck_assert_uint_ne(xi_load_full(&out[i]->chan->ring), 0);
        let_go(out[i], NULL);
    }
}
END_TEST

/* What lies in the ring that it grew out of is no value. */
START_TEST(who_waits_at_an_empty_ring_that_grew_sleeps) {
    xi_channel *out = open_here(me, "growing", XI_OPEN_SEND, GROWING), *in = open_here(you, "growing", XI_OPEN_RECV, GROWING);
    ok(xi_send_int(out, 7, XI_TRY));
    ck_assert_int_eq(take(in), 7); /* at home */
    for (int i = 0; i < 1000; i++) ok(xi_send_int(out, i, LONG));
    for (int i = 0; i < 1000; i++) ck_assert_int_eq(take(in), i);
    ck_assert_uint_ne(xi_load_full(&out->chan->ring), 0);
    ck_assert_uint_ne(*xi_header_at(&in->home, in->group->head), 0);
    uint64_t waits = xi_load_relaxed(&you->own->counters.parks);
    start(0, in, receives_one);
    await_asleep(&in->group->parked, 1, 1);
    ck_assert_uint_lt(xi_load_relaxed(&you->own->counters.parks), waits + 20); /* not one wait after the other */
    ok(xi_send_int(out, 7, XI_TRY));
    expect_done(1, 1);
    end(0, 0);
    let_go(out, in);
}
END_TEST

static _Atomic bool is_at_it, followed;
static int takes_the_lock_for_a_while(xi_channel *ch) {
    uint32_t none = 0;
    atomic_store(&is_at_it, true);
    while (!xi_cas32_full(&ch->group->lock, &none, ch->lock_word)) none = 0;
    while (!(xi_load_full(&ch->group->lock_sleep) & 1) && !atomic_load(&followed)) sched_yield();
    xi_unlock_words(&ch->group->lock, &ch->group->lock_sleep);
    return 0;
}

/* Who lets go of the lock to map the ring that the channel has moved to waits for the lock as it did before. */
START_TEST(who_follows_a_ring_waits_for_its_lock) {
    xi_channel *out = open_here(me, "growing", XI_OPEN_SEND, GROWING), *in = open_here(you, "growing", XI_OPEN_RECV, GROWING);
    xi_channel *other = open_here(me, "growing", XI_OPEN_RECV, GROWING);
    ok(xi_send_int(out, 7, XI_TRY));
    ck_assert_int_eq(take(in), 7);
    fill(out);
    ck_assert_uint_ne(xi_load_full(&out->chan->ring), 0);
    ok(xi_lock(in, in->group, XI_TRY));
    xi_view_take(in, &in->receive_view_used);
    atomic_store(&is_at_it, false);
    atomic_store(&followed, false);
    start(0, other, takes_the_lock_for_a_while);
    while (!atomic_load(&is_at_it)) sched_yield();
    ok(xi_follow_ring(in, XI_RECEIVES, LONG));
    atomic_store(&followed, true);
    ck_assert_uint_eq(in->receive_view.word, xi_load_full(&in->chan->ring));
    xi_unlock_receive(in);
    end(0, 0);
    ok(xi_channel_free(other));
    let_go(out, in);
}
END_TEST

static int frees(xi_channel *ch) { return xi_channel_free(ch); }

/* A sleeper looks at its interpreter's grown rings now and then. Whoever frees a handle waits for that to end. */
START_TEST(who_has_looked_at_a_ring_tells_who_frees_it) {
    xi_channel *out = open_here(me, "growing", XI_OPEN_SEND, GROWING), *other = open_here(me, "growing", XI_OPEN_SEND, GROWING);
    fill(out);
    atomic_fetch_add(&other->waiting, 1); /* as one that is looking */
    start(0, other, frees);
    while (!atomic_load(&other->freeing) || !is_asleep(&S[0])) sched_yield();
    atomic_fetch_sub(&other->waiting, 1); /* it has looked, and is about to say so: as this one, at the other handle */
    ok(xi_rings_look(me));
    expect_done(1, 1);
    end(0, 0);
    let_go(out, NULL);
}
END_TEST

/* Who looks for a while before it sleeps sleeps in the end, and knows how. */
START_TEST(who_spins_in_vain_sleeps) {
    xi_interp *third;
    unsetenv("XI_SPIN_US"); /* which counts for more */
    ok(xi_join(&(xi_join_opts){.name = "third", .spin_ns = MS}, &third));
    xi_channel *out = open_here(_i ? third : me, "spins", XI_OPEN_SEND, (xi_open_opts){0});
    xi_channel *in = open_here(_i ? me : third, "spins", XI_OPEN_RECV, (xi_open_opts){0});
    if (_i) fill(out);
    start(0, _i ? out : in, _i ? sends_one : receives_one);
    await_asleep(_i ? &out->chan->parked_senders : &in->group->parked, 1, 1);
    ck_assert_uint_le(xi_load_relaxed(&third->own->counters.spins), 1);
    if (_i) (void)take(in);
    else ok(xi_send_int(out, 7, XI_TRY));
    expect_done(1, 1);
    end(0, 0);
    ck_assert_uint_ne(xi_load_relaxed(&third->own->counters.wait_backend), XI_BACKEND_NONE);
    let_go(out, in);
    ok(xi_leave(third));
}
END_TEST

/* And who finds what it looks for does not sleep. */
START_TEST(who_spins_with_success_does_not_sleep) {
    xi_interp *third;
    unsetenv("XI_SPIN_US");
    ok(xi_join(&(xi_join_opts){.name = "third", .spin_ns = MS}, &third));
    xi_channel *out = open_here(third, "spins", XI_OPEN_SEND, (xi_open_opts){0}), *in = open_here(third, "spins", XI_OPEN_RECV, (xi_open_opts){0});
    bool spins = xi_spin_budget(&out->send_spin) > 0; /* not with one processor */
    ok(xi_send_int(out, 7, XI_TRY));
    bool stays = false; /* what is there at once is no wait */
    ok(_i ? xi_wait_side(out, XI_SIDE_PRODUCERS, 8, -1, &stays) : xi_wait_side(in, XI_SIDE_GROUP(in->group_index), 0, -1, &stays));
    ck_assert_int_eq(stays, !spins);
    if (stays) xi_wait_exit(_i ? out : in);
    ck_assert_uint_eq(xi_load_relaxed(&third->own->counters.spins), spins);
    ck_assert_uint_eq(xi_load_relaxed(&third->own->counters.parks), !spins);
    let_go(out, in);
    ok(xi_leave(third));
}
END_TEST

/* ---- a claim in somebody's hand */

static uint64_t hidden[XI_MASK_WORDS];

static void hide(struct xi_mask *m) {
    uint64_t any = 0;
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++) any |= hidden[i] = xi_exchange_full(&m->word[i], 0);
    ck_assert_uint_ne(any, 0);
}
static void show(xi_channel *ch, struct xi_mask *m) {
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++) (void)xi_or_full(&m->word[i], hidden[i]);
    (void)xi_or_full(&ch->chan->parked_groups, (uint64_t)1 << ch->group_index);
}

/*
 * Sleepers of a group that acknowledges wake when something is overdue, if they knew of it when they fell asleep. Who
 * makes it so tells one of those who did not; and who knew and goes tells another.
 */
START_TEST(what_will_be_overdue_is_known_to_one_who_sleeps) {
    xi_group_opts group = {.flags = XI_GROUP_ACK, .timeout_ns = (_i ? 600 : 450) * MS};
    xi_channel *out = open_here(me, "jobs", XI_OPEN_SEND, (xi_open_opts){0});
    xi_channel *in = open_here(you, "jobs", XI_OPEN_RECV, (xi_open_opts){.group_opts = &group});
    struct xi_mask *parked = &in->group->parked;
    xi_msg m = XI_MSG_INIT;
    for (int tries = 0;; tries++) {
        start(0, in, receives_one);
        await_asleep(parked, 1, 1);
        hide(parked);
        ok(xi_send_int(out, 7, XI_TRY));
        if (_i == 0) show(in, parked); /* the receiver tells; else it cannot */
        if (xi_recv(in, &m, XI_TRY) == 0) break;
        end(0, 0); /* it looked, since the broker had told it something */
        ck_assert_int_lt(tries, 20);
    }
    if (_i == 1) { /* but one comes who knows, and goes */
        start(1, in, receives_shortly);
        await_asleep(parked, 1, 1);
        show(in, parked);
        end(1, XI_E_TIMEOUT);
    }
    ck_assert_int_eq(done_of(1), 0);
    expect_done(1, 1); /* delivered again */
    end(0, 0);
    xi_msg_release(&m);
    let_go(out, in);
}
END_TEST

/* Who sleeps until something is overdue goes on sleeping when that was settled meanwhile: its own time is not over. */
START_TEST(what_is_settled_in_time_ends_no_wait) {
    xi_group_opts group = {.flags = XI_GROUP_ACK, .timeout_ns = 300 * MS};
    xi_channel *out = open_here(me, "jobs", XI_OPEN_SEND, (xi_open_opts){0});
    xi_channel *in = open_here(you, "jobs", XI_OPEN_RECV, (xi_open_opts){.group_opts = &group});
    xi_msg m = XI_MSG_INIT;
    ok(xi_send_int(out, 7, XI_TRY));
    ok(xi_recv(in, &m, XI_TRY));
    start(0, in, receives_one);
    while (!atomic_load(&S[0].done) && !(bits_set(&in->group->parked) == 1 && is_asleep(&S[0]))) sched_yield();
    int rc = xi_ack(&m);
    if (rc == 0) { /* in time: not on a machine that was busy for so long */
        pass_time(320 * MS);
        ck_assert_int_eq(done_of(1), 0);
        ok(xi_send_int(out, 7, XI_TRY));
    }
    end(0, 0);
    xi_msg_release(&m);
    let_go(out, in);
}
END_TEST

/* One receiver finds that all of a full window is nobody's any more, and takes what comes next: there is more for another. */
START_TEST(a_window_that_opens_is_open_to_several) {
    xi_group_opts group = {.flags = XI_GROUP_ACK, .window = 2, .max_deliveries = 1};
    xi_channel *out = open_here(me, "jobs", XI_OPEN_SEND, (xi_open_opts){0});
    xi_channel *in = open_here(you, "jobs", XI_OPEN_RECV, (xi_open_opts){.group_opts = &group});
    struct xi_mask *parked = &in->group->parked;
    xi_msg m[2] = {XI_MSG_INIT, XI_MSG_INIT};
    for (int i = 1; i <= 4; i++) ok(xi_send_int(out, i, XI_TRY));
    for (int i = 0; i < 2; i++) ok(xi_recv(in, &m[i], XI_TRY));
    start(0, in, receives_one);
    await_asleep(parked, 1, 1);
    hide(parked);
    for (int i = 0; i < 2; i++) ok(xi_nack(&m[i], 0));
    show(in, parked);
    ok(xi_recv(in, &m[0], XI_TRY));
    expect_done(1, 1);
    end(0, 0);
    ok(xi_ack(&m[0]));
    let_go(out, in);
}
END_TEST

int main(void) {
    Suite *s = suite_create("wakes that are passed on");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_sleepers, leave_nothing);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, room_for_several_reaches_several_senders);
    tcase_add_test(t, a_send_that_drops_is_heard);
    tcase_add_loop_test(t, room_for_one_and_no_more, 0, 3);
    tcase_add_loop_test(t, room_that_is_too_small_for_one, 0, 20); /* they come out of step, and stop, in five of six */
    tcase_add_loop_test(t, what_one_fails_to_use, 0, 2);
    tcase_add_test(t, who_has_grown_tells_who_waits);
    tcase_add_test(t, who_is_refused_for_a_moment_asks_again);
    tcase_add_loop_test(t, garbage_that_is_skipped_makes_room, 0, 6);
    tcase_add_test(t, all_grown_rings_are_looked_at);
    tcase_add_test(t, who_waits_at_an_empty_ring_that_grew_sleeps);
    tcase_add_test(t, who_follows_a_ring_waits_for_its_lock);
    tcase_add_test(t, who_has_looked_at_a_ring_tells_who_frees_it);
    tcase_add_loop_test(t, who_spins_in_vain_sleeps, 0, 2);
    tcase_add_loop_test(t, who_spins_with_success_does_not_sleep, 0, 2);
    tcase_add_test(t, a_window_that_opens_is_open_to_several);
    tcase_add_loop_test(t, what_will_be_overdue_is_known_to_one_who_sleeps, 0, 2);
    tcase_add_test(t, what_is_settled_in_time_ends_no_wait);
    suite_add_tcase(s, t);
    return run_suite(s);
}
