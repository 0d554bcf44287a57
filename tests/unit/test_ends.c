/* SPDX-License-Identifier: MIT */
/*
 * How things end: channels that are removed by name, groups that are removed,
 * and waits of those who need a peer when the last one has gone. Two
 * interpreters in one process; they share nothing but the segments.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "channel/channel.h"
#include "interp/interp.h"

#include "fixture.h" /* last: it names its interpreters as the library does its arguments */

static xi_channel *open_as(xi_interp *who, const char *name, uint32_t mode, uint32_t flags, const char *group) {
    xi_channel *ch = NULL;
    ok(xi_open(who, name, &(xi_open_opts){.mode = mode, .flags = flags, .group = group, .capacity = XI_CAPACITY_MIN}, &ch));
    return ch;
}

static int receive(xi_channel *ch, int64_t timeout) {
    xi_msg m = XI_MSG_INIT;
    int rc = xi_recv(ch, &m, timeout);
    xi_msg_release(&m);
    return rc;
}

static void send_large(xi_channel *ch, int64_t timeout) {
    size_t size = XI_SIZE_BYTES(20000);
    void *value = calloc(1, size), *where;
    xi_builder b;
    xi_builder_init(&b, value, size, 0);
    ok(xi_put_bytes_space(&b, 0, 20000, &where));
    ok(xi_send(ch, value, (size_t)xi_builder_finish(&b), timeout));
    free(value);
}

/* ---- a thread that waits in a call, and what it got */

struct sleeper {
    pthread_t thread;
    xi_channel *ch;
    bool sends;
    int rc;
};

static void *sleep_in_call(void *arg) {
    struct sleeper *s = arg;
    if (s->sends) while ((s->rc = xi_send_int(s->ch, 1, XI_FOREVER)) == 0) continue;
    else s->rc = receive(s->ch, XI_FOREVER);
    return NULL;
}

static struct sleeper *put_to_sleep(xi_channel *ch, bool sends) {
    struct sleeper *s = calloc(1, sizeof *s);
    s->ch = ch;
    s->sends = sends;
    ck_assert_int_eq(pthread_create(&s->thread, NULL, sleep_in_call, s), 0);
    return s;
}

static int wake_up(struct sleeper *s) {
    pthread_join(s->thread, NULL);
    int rc = s->rc;
    free(s);
    return rc;
}

/* ------------------------------------------------------ those who need a peer */

START_TEST(an_empty_channel_without_producers_ends_a_receive) {
    xi_channel *in = open_as(me, "q", 0, XI_OPEN_RECV | XI_OPEN_NEED_PEER, NULL);
    xi_channel *patient = open_as(me, "q", 0, XI_OPEN_RECV, NULL);
    fails(XI_E_NO_PRODUCER, receive(in, XI_TRY));
    fails(XI_E_NO_PRODUCER, receive(in, XI_FOREVER));
    fails(XI_E_AGAIN, receive(patient, XI_TRY));
    fails(XI_E_TIMEOUT, receive(patient, MS));
    xi_channel *out = open_as(you, "q", 0, XI_OPEN_SEND, NULL);
    fails(XI_E_AGAIN, receive(in, XI_TRY));
    ok(xi_send_int(out, 7, XI_TRY));
    ok(xi_channel_free(out));
    ck_assert_int_eq(take(in), 7); /* what was sent is received first */
    fails(XI_E_NO_PRODUCER, receive(in, XI_TRY));
    fails(XI_E_NO_PRODUCER, xi_recv_many(in, (xi_msg[2]){XI_MSG_INIT, XI_MSG_INIT}, 2, XI_FOREVER));
    out = open_as(you, "q", 0, XI_OPEN_SEND, NULL); /* and the handle goes on to be of use when one comes again */
    ok(xi_send_int(out, 8, XI_TRY));
    ck_assert_int_eq(take(in), 8);
    ok(xi_channel_free(out));
    ok(xi_channel_free(patient));
    ok(xi_channel_free(in));
}
END_TEST

START_TEST(a_sleeping_receiver_is_told_when_the_last_producer_goes) {
    xi_channel *in = open_as(me, "q", 0, XI_OPEN_RECV | XI_OPEN_NEED_PEER, NULL);
    xi_channel *out = open_as(you, "q", 0, XI_OPEN_SEND, NULL), *other = open_as(you, "q", 0, XI_OPEN_SEND, NULL);
    struct sleeper *s = put_to_sleep(in, false);
    await_sleepers(out, 1);
    ok(xi_channel_free(other)); /* one is left */
    await_sleepers(out, 1);
    ok(xi_channel_free(out));
    ck_assert_int_eq(wake_up(s), XI_E_NO_PRODUCER);
    out = open_as(you, "q", 0, 0, NULL); /* and when it leaves without a word */
    s = put_to_sleep(in, false);
    await_sleepers(out, 1);
    ok(xi_leave(you));
    ck_assert_int_eq(wake_up(s), XI_E_NO_PRODUCER);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
    ok(xi_join(&(xi_join_opts){.name = "you"}, &you));
}
END_TEST

START_TEST(a_sender_is_told_that_nobody_receives) {
    xi_channel *out = open_as(me, "q", 0, XI_OPEN_SEND | XI_OPEN_NEED_PEER, NULL);
    fails(XI_E_NO_CONSUMER, xi_send_int(out, 1, XI_FOREVER));
    xi_channel *in = open_as(you, "q", 0, XI_OPEN_RECV, NULL);
    ok(xi_send_int(out, 2, XI_TRY));
    ck_assert_int_eq(take(in), 2);
    struct sleeper *s = put_to_sleep(out, true); /* until it is full, and then asleep */
    await_sleepers(in, 1);
    ok(xi_channel_free(in));
    ck_assert_int_eq(wake_up(s), XI_E_NO_CONSUMER);
    xi_channel *patient = open_as(me, "q", 0, XI_OPEN_SEND, NULL);
    fails(XI_E_TIMEOUT, xi_send_int(patient, 1, MS));
    ok(xi_remove(me, "q"));
    fails(XI_E_REMOVED, xi_send_int(out, 1, XI_TRY)); /* rather than that nobody receives on what is not there */
    ok(xi_channel_free(patient));
    ok(xi_channel_free(out));
}
END_TEST

/* ------------------------------------------------------------------ removal */

START_TEST(a_removed_channel_is_gone_for_everybody_and_its_name_is_free) {
    xi_channel *out = open_as(me, "q", 0, 0, NULL), *in = open_as(you, "q", 0, 0, NULL), *fresh = NULL;
    for (int i = 0; i < 5; i++) send_large(out, XI_TRY);
    ok(xi_send_int(out, 1, XI_TRY));
    ck_assert_uint_eq(blocks_out(me), 5);
    xi_msg held = XI_MSG_INIT;
    ok(xi_recv(in, &held, XI_TRY));
    fails(XI_E_NOENT, xi_remove(you, "none"));
    fails(XI_E_INVAL, xi_remove(you, ""));
    ok(xi_remove(you, "q"));
    fails(XI_E_REMOVED, xi_send_int(out, 2, XI_TRY));
    fails(XI_E_REMOVED, receive(in, XI_FOREVER));
    fails(XI_E_REMOVED, receive(in, XI_TRY));
    fails(XI_E_REMOVED, xi_close(out));
    fails(XI_E_REMOVED, xi_channel_stat(in, &(xi_channel_info){0}));
    fails(XI_E_REMOVED, xi_channel_groups(in, NULL, 0));
    fails(XI_E_REMOVED, xi_group_remove(in, "g"));
    fails(XI_E_NOENT, xi_remove(you, "q"));
    ck_assert_uint_eq(blocks_out(me), 1); /* what was borrowed is still readable; the rest came back */
    ok(xi_validate(held.data, held.size));
    xi_msg_release(&held);
    ck_assert_uint_eq(blocks_out(me), 0);
    fails(XI_E_NOENT, xi_open(me, "q", &(xi_open_opts){.flags = XI_OPEN_EXISTING}, &fresh));
    fresh = open_as(me, "q", XI_BROADCAST, 0, NULL);
    ok(xi_send_int(fresh, 3, XI_TRY));
    ck_assert_int_eq(take(fresh), 3);
    xi_channel_info listed[4];
    ck_assert_int_eq(xi_list_channels(xi_observer_of(me), listed, 4), 1);
    ck_assert_uint_eq(listed[0].mode, XI_BROADCAST);
    ck_assert_uint_eq(listed[0].producers, 1);
    ok(xi_channel_free(fresh));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(sleepers_on_a_removed_channel_are_told) {
    xi_channel *full = open_as(me, "full", 0, XI_OPEN_SEND, NULL), *empty = open_as(me, "empty", XI_BROADCAST, 0, NULL);
    xi_channel *watch_full = open_as(you, "full", 0, 0, NULL), *watch_empty = open_as(you, "empty", 0, XI_OPEN_SEND, NULL);
    struct sleeper *s = put_to_sleep(full, true), *r = put_to_sleep(empty, false);
    await_sleepers(watch_full, 1);
    await_sleepers(watch_empty, 1);
    ok(xi_remove(you, "full"));
    ok(xi_remove(you, "empty"));
    ck_assert_int_eq(wake_up(s), XI_E_REMOVED);
    ck_assert_int_eq(wake_up(r), XI_E_REMOVED);
    ok(xi_channel_free(full));
    ok(xi_channel_free(empty));
    ok(xi_channel_free(watch_full));
    ok(xi_channel_free(watch_empty));
}
END_TEST

struct churn {
    pthread_t thread;
    xi_interp *who;
    unsigned seed;
    _Atomic bool *stop;
    uint64_t removed_seen;
};

/* Opens the one name again and again, sends and receives until somebody has removed it. */
static void *use_what_comes_and_goes(void *arg) {
    struct churn *c = arg;
    for (uint64_t i = 0; !atomic_load(c->stop); i++) {
        xi_channel *ch = NULL;
        int rc = xi_open(c->who, "comes and goes", &(xi_open_opts){.capacity = XI_CAPACITY_MIN}, &ch);
        if (rc == XI_E_REMOVED) continue; /* between opening and joining its group */
        ok(rc);
        for (rc = 0; (rc == 0 || rc == XI_E_AGAIN || rc == XI_E_TIMEOUT) && !atomic_load(c->stop);) {
            unsigned what = (unsigned)rand_r(&c->seed) % 4;
            if (what == 0) rc = receive(ch, MS);
            else if (what == 1) rc = receive(ch, XI_TRY);
            else if (what == 2) rc = xi_send_int(ch, (int64_t)i, XI_TRY);
            else {
                uint64_t big[512] = {XI_BYTES | (uint64_t)sizeof big << 32, sizeof big - 16};
                rc = xi_send(ch, big, sizeof big, XI_TRY);
            }
        }
        if (rc == XI_E_REMOVED) c->removed_seen++;
        else if (rc != 0 && rc != XI_E_AGAIN && rc != XI_E_TIMEOUT) ck_abort_msg("%s: %s", xi_error_name(rc), xi_error_text(rc));
        ok(xi_channel_free(ch));
    }
    return NULL;
}

START_TEST(a_channel_may_be_removed_at_any_moment) {
    _Atomic bool stop = false;
    struct churn c[3] = {{.who = me, .seed = 1, .stop = &stop}, {.who = you, .seed = 2, .stop = &stop},
                         {.who = you, .seed = 3, .stop = &stop}};
    for (int i = 0; i < 3; i++) ck_assert_int_eq(pthread_create(&c[i].thread, NULL, use_what_comes_and_goes, &c[i]), 0);
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        int rc = xi_remove(me, "comes and goes");
        if (rc != XI_E_NOENT) ok(rc);
        nanosleep(&(struct timespec){0, 500000}, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - start.tv_sec < 2);
    atomic_store(&stop, true);
    uint64_t seen = 0;
    for (int i = 0; i < 3; i++) {
        pthread_join(c[i].thread, NULL);
        seen += c[i].removed_seen;
    }
    ck_assert_uint_gt(seen, 50);
    (void)xi_remove(me, "comes and goes");
    ck_assert_uint_eq(blocks_out(me), 0);
    ck_assert_uint_eq(blocks_out(you), 0);
}
END_TEST

/* ------------------------------------------------------------------- groups */

START_TEST(groups_are_listed) {
    xi_channel *out = open_as(me, "b", XI_BROADCAST, XI_OPEN_SEND, NULL);
    xi_channel *mine = open_as(me, "b", 0, 0, NULL), *named = open_as(you, "b", 0, 0, "named");
    for (int i = 0; i < 3; i++) ok(xi_send_int(out, i, XI_TRY));
    ck_assert_int_eq(take(named), 0);
    xi_group_info g[4];
    ck_assert_int_eq(xi_channel_groups(out, g, 1), 2); /* as many as fit, and how many there are */
    ck_assert_int_eq(xi_channel_groups(out, g, 4), 2);
    const xi_group_info *own = g[0].name[0] ? &g[1] : &g[0], *other = own == g ? &g[1] : &g[0];
    ck_assert_str_eq(own->name, "");
    ck_assert_int_eq(own->owner, xi_id(me));
    ck_assert_uint_eq(own->received, 0);
    ck_assert_uint_eq(own->depth, 3);
    ck_assert_str_eq(other->name, "named");
    ck_assert_int_eq(other->owner, 0);
    ck_assert_uint_eq(other->received, 1);
    ck_assert_uint_eq(other->depth, 2);
    ck_assert_uint_eq(other->flags, 0);
    xi_channel_info info;
    ok(xi_channel_stat(out, &info));
    ck_assert_uint_eq(info.groups, 2);
    ck_assert_uint_eq(info.handles, 3);
    ck_assert_uint_eq(info.producers, 3);
    ck_assert_uint_eq(info.consumers, 2);
    ok(xi_channel_free(named));
    ok(xi_channel_free(mine));
    ok(xi_channel_free(out));
    ok(xi_remove(me, "b"));
}
END_TEST

START_TEST(a_removed_group_gives_back_what_it_had_yet_to_receive) {
    xi_channel *out = open_as(me, "b", XI_BROADCAST, XI_OPEN_SEND, NULL), *a = open_as(you, "b", 0, XI_OPEN_RECV, "a");
    fails(XI_E_NOENT, xi_group_remove(out, "none"));
    fails(XI_E_INVAL, xi_group_remove(out, NULL));
    fails(XI_E_INVAL, xi_group_remove(out, ""));
    for (int i = 0; i < 5; i++) send_large(out, XI_TRY);
    ck_assert_uint_eq(blocks_out(me), 5);
    ok(xi_group_remove(out, "a"));
    ck_assert_uint_eq(blocks_out(me), 0);
    fails(XI_E_LEFT, receive(a, XI_TRY));
    ck_assert_int_eq(xi_channel_groups(out, NULL, 0), 0);
    xi_channel *b = open_as(you, "b", 0, XI_OPEN_RECV, "b"); /* in its place in the table */
    ok(xi_send_int(out, 1, XI_TRY));
    fails(XI_E_LEFT, receive(a, XI_TRY)); /* which does not make it the old one's */
    fails(XI_E_LEFT, receive(a, XI_FOREVER));
    struct sleeper *s;
    ck_assert_int_eq(take(b), 1);
    s = put_to_sleep(b, false);
    await_sleepers(out, 1);
    ok(xi_group_remove(out, "b"));
    ck_assert_int_eq(wake_up(s), XI_E_LEFT);
    ok(xi_channel_free(b));
    ok(xi_channel_free(a));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(removing_a_group_makes_room) {
    xi_channel *out = open_as(me, "b", XI_BROADCAST, XI_OPEN_SEND, NULL), *slow = open_as(you, "b", 0, XI_OPEN_RECV, "slow");
    struct sleeper *s = put_to_sleep(out, true);
    await_sleepers(slow, 1);
    ok(xi_group_remove(slow, "slow"));
    xi_channel_info info;
    do ok(xi_channel_stat(slow, &info));
    while (info.waiting);
    ok(xi_close(slow));
    ck_assert_int_eq(wake_up(s), XI_E_CLOSED);
    ok(xi_channel_free(slow));
    ok(xi_channel_free(out));
}
END_TEST

/* ------------------------------------------------------------ a new broker */

START_TEST(a_new_broker_knows_what_was_removed_and_who_sends) {
    xi_channel *gone = open_as(me, "gone", 0, 0, NULL), *in = open_as(me, "q", 0, XI_OPEN_RECV | XI_OPEN_NEED_PEER, NULL);
    xi_channel *out = open_as(you, "q", 0, XI_OPEN_SEND, NULL);
    send_large(gone, XI_TRY);
    ok(xi_remove(you, "gone"));
    kill(xi_observer_broker_pid(xi_observer_of(me)), SIGKILL);
    xi_channel *fresh = open_as(you, "gone", XI_BROADCAST, 0, NULL), *more = open_as(me, "more", 0, 0, NULL);
    fails(XI_E_REMOVED, receive(gone, XI_TRY));
    ok(xi_status(me));
    struct sleeper *s = put_to_sleep(in, false);
    await_sleepers(out, 1);
    ok(xi_channel_free(out));
    ck_assert_int_eq(wake_up(s), XI_E_NO_PRODUCER);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(gone));
    ok(xi_channel_free(fresh));
    ok(xi_channel_free(more));
    ok(xi_channel_free(in));
}
END_TEST

static int declare(void) {
    pthread_mutex_lock(&me->control.mutex);
    int rc = xi_declare_channels(me);
    pthread_mutex_unlock(&me->control.mutex);
    return rc;
}
static uint32_t handles_of(xi_channel *ch) {
    xi_channel_info info;
    ok(xi_channel_stat(ch, &info));
    return info.handles;
}

/* A broker that knows them already counts them once more. */
START_TEST(all_handles_are_declared) {
    xi_channel *a = open_as(me, "a", 0, 0, NULL), *gone = open_as(me, "gone", 0, 0, NULL), *b = open_as(me, "b", 0, 0, NULL);
    uint64_t id = gone->id;
    ok(xi_remove(you, "gone"));
    gone->id = ~id; /* of which the next broker knows nothing */
    ok(declare());
    ck_assert_uint_eq(handles_of(a), 2);
    ck_assert_uint_eq(handles_of(b), 2);
    gone->id = id;
    id = a->id;
    a->id = ~id; /* but this one is there still */
    fails(XI_E_NOENT, declare());
    a->id = id;
    ok(xi_channel_free(a));
    ok(xi_channel_free(b));
    ok(xi_channel_free(gone));
}
END_TEST

int main(void) {
    Suite *s = suite_create("ends");
    TCase *t = tcase_create("ends");
    tcase_add_checked_fixture(t, join_both, leave_both);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, an_empty_channel_without_producers_ends_a_receive);
    tcase_add_test(t, a_sleeping_receiver_is_told_when_the_last_producer_goes);
    tcase_add_test(t, a_sender_is_told_that_nobody_receives);
    tcase_add_test(t, a_removed_channel_is_gone_for_everybody_and_its_name_is_free);
    tcase_add_test(t, sleepers_on_a_removed_channel_are_told);
    tcase_add_test(t, a_channel_may_be_removed_at_any_moment);
    tcase_add_test(t, groups_are_listed);
    tcase_add_test(t, a_removed_group_gives_back_what_it_had_yet_to_receive);
    tcase_add_test(t, removing_a_group_makes_room);
    tcase_add_test(t, all_handles_are_declared);
    tcase_add_test(t, a_new_broker_knows_what_was_removed_and_who_sends);
    suite_add_tcase(s, t);
    return run_suite(s);
}
