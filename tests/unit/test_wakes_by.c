/* SPDX-License-Identifier: MIT */
/*
 * What wakes besides a value and room for one: closing, the end of a group, what
 * is acknowledged, given back, overdue or expired in a group that acknowledges,
 * and free functions that are due. Each is done while a thread that waits for it
 * is known to sleep, and must be heard soon.
 */
#include "sleepers.h"

static xi_channel *receiver_that_acks(const char *what, xi_group_opts opts) {
    opts.flags |= XI_GROUP_ACK;
    return open_here(you, what, XI_OPEN_RECV, (xi_open_opts){.group_opts = &opts});
}
static xi_channel *sender_to(const char *what) { return open_here(me, what, XI_OPEN_SEND, (xi_open_opts){0}); }
static void fill(xi_channel *out) {
    while (xi_send_int(out, 7, XI_TRY) == 0) continue;
}
static void put_sender_to_sleep(xi_channel *out) {
    fill(out);
    start(0, out, sends_one);
    await_asleep(&out->chan->parked_senders, 1, 1);
}
static int tries_one(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    int rc = xi_recv(ch, &m, XI_TRY);
    xi_msg_release(&m);
    return rc;
}
static void put_receiver_to_sleep(xi_channel *in) {
    start(0, in, receives_one);
    await_asleep(&in->group->parked, 1, 1);
}
static void heard(int rc) {
    expect_done(1, 1);
    end(0, rc);
}

START_TEST(closing_is_heard) {
    xi_channel *out = sender_to("jobs"), *in = open_here(you, "jobs", XI_OPEN_RECV, (xi_open_opts){0});
    if (_i) put_receiver_to_sleep(in);
    else put_sender_to_sleep(out);
    ok(xi_close(_i ? out : in));
    heard(XI_E_CLOSED);
    let_go(out, in);
}
END_TEST

/* Somebody's group was all that made it full; another listener is there, so that the broker has nobody to tell. */
START_TEST(the_end_of_a_group_makes_room) {
    xi_channel *out = open_here(me, "news", XI_OPEN_SEND, (xi_open_opts){.mode = XI_BROADCAST});
    xi_channel *slow = open_here(you, "news", XI_OPEN_RECV, (xi_open_opts){.group = _i ? "slow" : NULL});
    xi_channel *quick = open_here(you, "news", XI_OPEN_RECV, (xi_open_opts){0});
    xi_msg m = XI_MSG_INIT;
    fill(out);
    while (xi_recv(quick, &m, XI_TRY) == 0) continue;
    xi_msg_release(&m);
    put_sender_to_sleep(out);
    if (_i) ok(xi_group_remove(out, "slow"));
    else ok(xi_channel_free(slow));
    heard(0);
    ok(xi_channel_free(quick));
    let_go(out, _i ? slow : NULL);
}
END_TEST

/* However a value is received: in a batch, or as a block. */
START_TEST(every_receive_makes_room) {
    xi_channel *out = sender_to("jobs"), *in = open_here(you, "jobs", XI_OPEN_RECV, (xi_open_opts){0});
    xi_msg m[2] = {XI_MSG_INIT, XI_MSG_INIT};
    if (_i) send_number(out, 1, 5000);
    put_sender_to_sleep(out);
    if (_i) ok(xi_recv(in, &m[0], XI_TRY));
    else ck_assert_int_eq(xi_recv_many(in, m, 2, XI_TRY), 2);
    heard(0);
    for (int i = 0; i < 2; i++) xi_msg_release(&m[i]);
    let_go(out, in);
}
END_TEST

/* However it is sent: as a block, with a time to live, in a loan, in a batch that is not all small. */
START_TEST(every_send_is_heard) {
    xi_channel *out = sender_to("jobs"), *in = open_here(you, "jobs", XI_OPEN_RECV, (xi_open_opts){0});
    static uint64_t value[1000];
    size_t size = encode_number(value, sizeof value, 7, _i == 0 || _i == 3 ? 5000 : 8);
    xi_loan loan;
    put_receiver_to_sleep(in);
    if (_i == 0) ok(xi_send(out, value, size, XI_TRY));
    if (_i == 1) ok(xi_send_ex(out, value, size, &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = LONG}));
    if (_i == 2) {
        ok(xi_loan_get(me, size, &loan));
        memcpy(loan.data, value, size);
        ok(xi_send_loan(out, &loan, size, NULL));
    }
    if (_i == 3) ck_assert_int_eq(xi_send_many(out, (const void *[]){value}, &size, 1, XI_TRY), 1);
    heard(0);
    let_go(out, in);
}
END_TEST

START_TEST(who_receives_in_a_group_that_ends_is_told) {
    xi_channel *out = open_here(me, "news", XI_OPEN_SEND, (xi_open_opts){.mode = XI_BROADCAST});
    xi_channel *in = open_here(you, "news", XI_OPEN_RECV, (xi_open_opts){.group = "some"});
    put_receiver_to_sleep(in);
    ok(xi_group_remove(out, "some"));
    heard(XI_E_LEFT);
    let_go(out, in);
}
END_TEST

/* -------------------------------------------------- groups that acknowledge */

START_TEST(acknowledging_makes_room) {
    xi_channel *in = receiver_that_acks("jobs", (xi_group_opts){0}), *out = sender_to("jobs");
    xi_msg m = XI_MSG_INIT;
    fill(out);
    ok(xi_recv(in, &m, XI_TRY));
    put_sender_to_sleep(out);
    ok(xi_ack(&m));
    heard(0);
    xi_msg_release(&m);
    let_go(out, in);
}
END_TEST

/* The window holds one: who acknowledges it lets the next be delivered. */
START_TEST(acknowledging_opens_the_window) {
    xi_channel *in = receiver_that_acks("jobs", (xi_group_opts){.window = 1}), *out = sender_to("jobs");
    xi_msg m = XI_MSG_INIT;
    ok(xi_send_int(out, 1, XI_TRY));
    ok(xi_send_int(out, 2, XI_TRY));
    ok(xi_recv(in, &m, XI_TRY));
    put_receiver_to_sleep(in);
    ok(xi_ack(&m));
    heard(0);
    xi_msg_release(&m);
    let_go(out, in);
}
END_TEST

/* At once, after a delay that ends before any other, or because its time is made shorter. */
static void by_nack(xi_msg *m) { ok(xi_nack(m, 0)); }
static void by_release(xi_msg *m) { xi_msg_release(m); }
static void by_nack_later(xi_msg *m) { ok(xi_nack(m, 20 * MS)); }
static void by_shortening(xi_msg *m) { ok(xi_extend(m, 20 * MS)); }
static void by_receiving(xi_msg *m) {
    xi_channel *ch = m->channel_;
    int rc = xi_recv(ch, m, XI_TRY); /* what it held is given back, and may be its own again, or the sleeper's */
    ck_assert(rc == 0 || rc == XI_E_AGAIN);
    xi_msg_release(m);
}
static void (*const back[])(xi_msg *m) = {by_nack, by_release, by_nack_later, by_shortening, by_receiving};

START_TEST(what_comes_back_is_heard) {
    xi_channel *in = receiver_that_acks("jobs", (xi_group_opts){.timeout_ns = 20000 * MS}), *out = sender_to("jobs");
    xi_msg m = XI_MSG_INIT;
    ok(xi_send_int(out, 1, XI_TRY));
    ok(xi_recv(in, &m, XI_TRY));
    put_receiver_to_sleep(in);
    back[_i](&m);
    heard(0);
    xi_msg_release(&m);
    let_go(out, in);
}
END_TEST

/* What expired, or was delivered too often, makes room when somebody finds that out; or when it is a dead letter. */
START_TEST(what_goes_elsewhere_makes_room) {
    xi_channel *letters = open_here(me, "letters", XI_OPEN_RECV, (xi_open_opts){0});
    xi_group_opts opts = {.max_deliveries = _i ? 1 : 0, .dead = _i == 2 ? xi_channel_name(letters) : NULL};
    xi_channel *in = receiver_that_acks("jobs", opts), *out = sender_to("jobs");
    xi_msg m = XI_MSG_INIT;
    ok(try_number(out, 1, 8, &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = _i ? 0 : 1}));
    if (_i) {
        ok(xi_recv(in, &m, XI_TRY));
        ok(xi_nack(&m, 0));
    }
    put_sender_to_sleep(out);
    ok(xi_recv(in, &m, XI_TRY)); /* the second: the first is no more */
    ck_assert_int_eq(number_of(&m), 7);
    heard(0);
    xi_msg_release(&m);
    let_go(out, in);
    let_go(letters, NULL);
}
END_TEST

/* Who cannot move a value on, since somebody has the lock of the letters' channel, tells a sleeper when to look again. */
START_TEST(what_cannot_go_elsewhere_is_heard) {
    xi_channel *letters = open_here(me, "letters", XI_OPEN_RECV, (xi_open_opts){0});
    xi_channel *to = open_here(me, "letters", XI_OPEN_SEND, (xi_open_opts){0});
    xi_channel *out = open_here(me, "jobs", XI_OPEN_SEND, (xi_open_opts){.dead = xi_channel_name(letters)});
    xi_channel *mover = receiver_that_acks("jobs", (xi_group_opts){0}), *in = NULL;
    xi_group_opts acks = {.flags = XI_GROUP_ACK};
    xi_msg m = XI_MSG_INIT;
    in = open_here(me, "jobs", XI_OPEN_RECV, (xi_open_opts){.group_opts = &acks});
    ok(try_number(out, 1, 8, &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = 1}));
    pthread_mutex_lock(&you->control.mutex); /* the mover is stopped where it opens that channel */
    start(1, mover, tries_one);
    while (xi_load_full(&in->group->next_seq) == 0) sched_yield();
    put_receiver_to_sleep(in);
    ok(xi_lock_send(to, XI_TRY));
    pthread_mutex_unlock(&you->control.mutex);
    end(1, XI_E_AGAIN);
    xi_unlock_send(to);
    ok(xi_recv(letters, &m, SOON)); /* the sleeper's doing */
    ok(xi_send_int(out, 2, XI_TRY));
    end(0, 0);
    xi_msg_release(&m);
    ok(xi_channel_free(mover));
    ok(xi_channel_free(to));
    let_go(out, in);
    let_go(letters, NULL);
}
END_TEST

/* ---------------------------------------------------------- free functions */

static _Atomic int freed;
static void on_free(void *context, uint64_t argument) {
    (void)context;
    atomic_fetch_add(&freed, (int)argument);
}

struct freeing {
    xi_channel *idle, *out, *in; /* the owner's thread sleeps on the first */
    xi_msg m;
};

/* A value with a free function is on its way; its owner's thread sleeps elsewhere. */
static void begin(struct freeing *f, xi_open_opts opts, bool acks, int64_t ttl, uint64_t timeout_ns) {
    uint32_t index;
    *f = (struct freeing){.m = XI_MSG_INIT};
    atomic_store(&freed, 0);
    ok(xi_free_register(me, "on_free", on_free, NULL, &index));
    f->idle = open_here(me, "idle", XI_OPEN_RECV, (xi_open_opts){0});
    xi_group_opts g = {.flags = acks ? XI_GROUP_ACK : 0, .timeout_ns = (int64_t)timeout_ns};
    xi_open_opts receiving = opts;
    receiving.group_opts = acks ? &g : NULL;
    f->in = open_here(you, "jobs", XI_OPEN_RECV, receiving);
    f->out = open_here(me, "jobs", XI_OPEN_SEND, opts);
    ok(try_number(f->out, 1, 8, &(xi_send_opts){.timeout = XI_TRY, .free_index = index, .free_argument = 1, .ttl_ns = ttl}));
    if (ttl) pass_time(2 * MS);
    start(0, f->idle, receives_one);
    await_asleep(&f->idle->group->parked, 1, 1);
}

static void expect_freed(void) {
    int64_t begun = xi_now();
    while (!atomic_load(&freed)) {
        ck_assert_msg(xi_now() - begun < SOON, "the owner was not told");
        nanosleep(&(struct timespec){0, 20000}, NULL);
    }
    ck_assert_int_eq(atomic_load(&freed), 1);
}

static void finish(struct freeing *f) {
    xi_channel *wake = open_here(you, "idle", XI_OPEN_SEND, (xi_open_opts){0});
    expect_freed();
    ok(xi_send_int(wake, 1, XI_TRY));
    end(0, 0);
    ck_assert_uint_eq(xi_load_full(&me->mailbox->reclaim_bell), 0); /* nobody sleeps any more */
    xi_msg_release(&f->m);
    let_go(f->out, f->in);
    let_go(f->idle, wake);
}

START_TEST(freed_by_release) {
    struct freeing f;
    begin(&f, (xi_open_opts){0}, false, 0, 0);
    ok(xi_recv(f.in, &f.m, XI_TRY));
    ck_assert_int_eq(atomic_load(&freed), 0);
    xi_msg_release(&f.m);
    finish(&f);
}
END_TEST

START_TEST(freed_by_acknowledging) {
    struct freeing f;
    begin(&f, (xi_open_opts){0}, true, 0, 0);
    ok(xi_recv(f.in, &f.m, XI_TRY));
    if (_i == 0) ok(xi_ack(&f.m));
    if (_i == 1) ok(xi_ack_keep(&f.m));
    if (_i == 1) xi_msg_release(&f.m);
    finish(&f);
}
END_TEST

/* Acknowledged by another, while who had it first still reads it: that one's release is the last. */
START_TEST(freed_by_who_reads_last) {
    struct freeing f;
    xi_msg other = XI_MSG_INIT;
    begin(&f, (xi_open_opts){0}, true, 0, 5 * MS);
    ok(xi_recv(f.in, &f.m, XI_TRY));
    ok(xi_recv(f.in, &other, LONG)); /* overdue, and delivered again */
    ok(xi_ack(&other));
    pass_time(10 * MS);
    ck_assert_int_eq(atomic_load(&freed), 0);
    xi_msg_release(&f.m);
    xi_msg_release(&other);
    finish(&f);
}
END_TEST

START_TEST(freed_by_expiry) {
    struct freeing f;
    begin(&f, (xi_open_opts){0}, _i == 1, MS, 0);
    fails(XI_E_AGAIN, xi_recv(f.in, &f.m, XI_TRY));
    finish(&f);
}
END_TEST

START_TEST(freed_by_dropping) {
    struct freeing f;
    xi_open_opts opts = {.values = 1, .when_full = XI_FULL_DROP};
    begin(&f, opts, false, 0, 0);
    xi_channel *second = open_here(you, "jobs", XI_OPEN_SEND, opts);
    ok(xi_send_int(second, 2, XI_TRY));
    finish(&f);
    ok(xi_channel_free(second));
}
END_TEST

/* A broadcast that nobody hears: nobody else could tell. */
START_TEST(freed_by_nobody) {
    uint32_t index;
    atomic_store(&freed, 0);
    ok(xi_free_register(me, "on_free", on_free, NULL, &index));
    xi_channel *idle = open_here(me, "idle", XI_OPEN_RECV, (xi_open_opts){0});
    xi_channel *out = open_here(me, "news", XI_OPEN_SEND, (xi_open_opts){.mode = XI_BROADCAST});
    start(0, idle, receives_one);
    await_asleep(&idle->group->parked, 1, 1);
    ok(try_number(out, 1, 8, &(xi_send_opts){.timeout = XI_TRY, .free_index = index, .free_argument = 1}));
    expect_freed();
    xi_channel *wake = open_here(you, "idle", XI_OPEN_SEND, (xi_open_opts){0});
    ok(xi_send_int(wake, 1, XI_TRY));
    end(0, 0);
    let_go(idle, wake);
    let_go(out, NULL);
}
END_TEST

START_TEST(freed_by_removal) {
    struct freeing f;
    begin(&f, (xi_open_opts){.mode = XI_BROADCAST, .group = "some"}, false, 0, 0);
    if (_i == 0) ok(xi_group_remove(f.in, "some"));
    else ok(xi_remove(you, xi_channel_name(f.in)));
    finish(&f);
}
END_TEST

int main(void) {
    Suite *s = suite_create("wakes by other things");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_sleepers, leave_nothing);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, closing_is_heard, 0, 2);
    tcase_add_loop_test(t, the_end_of_a_group_makes_room, 0, 2);
    tcase_add_test(t, who_receives_in_a_group_that_ends_is_told);
    tcase_add_loop_test(t, every_receive_makes_room, 0, 2);
    tcase_add_loop_test(t, every_send_is_heard, 0, 4);
    tcase_add_test(t, acknowledging_makes_room);
    tcase_add_test(t, acknowledging_opens_the_window);
    tcase_add_loop_test(t, what_comes_back_is_heard, 0, 5);
    tcase_add_loop_test(t, what_goes_elsewhere_makes_room, 0, 3);
    tcase_add_test(t, what_cannot_go_elsewhere_is_heard);
    tcase_add_test(t, freed_by_release);
    tcase_add_loop_test(t, freed_by_acknowledging, 0, 2);
    tcase_add_test(t, freed_by_who_reads_last);
    tcase_add_loop_test(t, freed_by_expiry, 0, 2);
    tcase_add_test(t, freed_by_dropping);
    tcase_add_loop_test(t, freed_by_removal, 0, 2);
    tcase_add_test(t, freed_by_nobody);
    suite_add_tcase(s, t);
    return run_suite(s);
}
