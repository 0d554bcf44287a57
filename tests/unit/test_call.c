/* SPDX-License-Identifier: MIT */
/*
 * Requests and replies, as programs see them: outcomes, cancelling, many at a
 * time, and what remains afterwards. Caller and servers are interpreters of one
 * process. Deaths are in tests/system/test_call_kill.c.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "call_fixture.h"
#include "wire/names.h"

/* Serves until the channel is closed: replies with the number and one more. */
static void *serves(void *argument) {
    xi_msg m = XI_MSG_INIT;
    int rc;
    while ((rc = xi_recv(argument, &m, XI_FOREVER)) == 0) {
        ck_assert(xi_msg_is_call(&m));
        int64_t n = number_of(&m);
        rc = reply_with(&m, n + 1, n % 7 == 0 ? 9000 : (size_t)(n % 100));
        ck_assert_msg(rc == 0 || rc == XI_E_STALE, "%s", xi_error_text(rc));
        ck_assert(!xi_msg_is_call(&m));
        ck_assert_int_eq(number_of(&m), n); /* readable until it is released */
    }
    ck_assert_int_eq(rc, XI_E_CLOSED);
    xi_msg_release(&m);
    return NULL;
}

START_TEST(a_call_returns_the_reply_to_it) {
    xi_channel *out = caller(), *in = server();
    xi_msg reply = XI_MSG_INIT;
    pthread_t t;
    pthread_create(&t, NULL, serves, in);
    for (int64_t n = 0; n < 300; n++) {
        ok(call(out, n, n % 5 == 0 ? 12000 : (size_t)(n % 50) * 8, &reply, 10000 * MS));
        ck_assert_int_eq(number_of(&reply), n + 1);
        ck_assert_int_eq(xi_msg_borrowed(&reply), n % 7 == 0);
        ck_assert(!xi_msg_is_call(&reply));
    }
    ok(xi_close(out));
    pthread_join(t, NULL);
    nothing_remains(in, out, NULL, &reply);
}
END_TEST

/* What is taken is noted, as wire/layout.h has it: should its taker die, that is what is known of it. */
static const struct xi_borrow *noted(xi_interp *who, bool of_call) {
    const struct xi_borrow *found = NULL;
    for (size_t i = 0; i < XI_BORROWS_IN(XI_OWN_SIZE, sizeof(struct xi_own)); i++) {
        const struct xi_borrow *b = &who->own->borrows[i];
        if (b->key == 0 || (b->call != 0) != of_call) continue;
        ck_assert_ptr_null(found);
        found = b;
    }
    return found;
}

START_TEST(what_is_taken_is_noted) {
    xi_channel *out = caller(), *in = server();
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    xi_pending p;
    for (int large = 0; large < 2; large++) {
        ok(xi_send_int(out, 1, XI_TRY));
        ok(xi_recv(in, &m, XI_TRY));
        ck_assert(!noted(you, true) && !noted(you, false)); /* a small value is nobody's any more */
        uint64_t at = xi_load_relaxed(&in->group->head);
        ok(begin(out, 1, large ? 9000 : 0, &p));
        ok(xi_recv(in, &m, XI_TRY));
        const struct xi_borrow *call = noted(you, true), *block = noted(you, false);
        ck_assert_ptr_nonnull(call);
        ck_assert_uint_eq(call->call, p.index_ + 1);
        ck_assert_uint_eq(call->block, (uint64_t)me->slot << 32);
        ck_assert_uint_eq(call->position, at);
        ck_assert_uint_eq(call->chan_seg, in->segment);
        ck_assert_uint_eq(XI_BORROW_GROUP(call->key), in->group_index);
        ck_assert_uint_eq(XI_BORROW_GENERATION(call->key), xi_load_relaxed(&me->mailbox->calls[p.index_]) >> 8);
        ck_assert_int_eq(block != NULL, large);
        if (block) {
            ck_assert_uint_eq(block->block, (uint64_t)m.block_.segment << 32 | m.block_.granule);
            ck_assert_uint_eq(block->key, XI_BORROW_KEY(m.block_.generation, in->group_index));
            ck_assert_uint_eq(block->position, at);
            ck_assert_uint_eq(block->chan_seg, in->segment);
        }
        ok(reply_with(&m, 2, 0));
        ck_assert_ptr_null(noted(you, true)); /* replied: the call is over */
        ck_assert_int_eq(noted(you, false) != NULL, large);
        xi_msg_release(&m);
        ck_assert_ptr_null(noted(you, false));
        ok(xi_call_wait(&p, &reply, XI_TRY));
        fails(XI_E_INVAL, xi_call_wait(&p, &reply, XI_TRY)); /* it is over */
    }
    nothing_remains(in, out, &m, &reply);
}
END_TEST

START_TEST(nobody_serves) {
    xi_channel *out = caller();
    xi_msg reply = XI_MSG_INIT;
    fails(XI_E_NO_CONSUMER, call(out, 1, 0, &reply, XI_FOREVER));
    ck_assert_uint_eq(xi_load_relaxed(&out->chan->tail_seq), 0); /* not to be served by whoever comes */
    xi_channel *in = server();
    fails(XI_E_TIMEOUT, call(out, 1, 0, &reply, 20 * MS));
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_TIMEOUT), "no reply to the call"));
    fails(XI_E_AGAIN, call(out, 1, 0, &reply, XI_TRY));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(the_last_server_leaves_before_it_took_the_request) {
    xi_channel *out = caller(), *in = server(), *second = server();
    struct one_call c;
    pthread_t t = start_call(&c, out);
    ok(xi_channel_free(in));
    ok(xi_channel_free(second));
    ended(t, &c, XI_E_NO_CONSUMER);
    in = server();
    fails(XI_E_AGAIN, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY)); /* who comes later never sees it */
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(the_last_server_closes_its_handle_and_replies_later) {
    xi_channel *out = caller(), *in = server();
    struct one_call c;
    xi_msg m = XI_MSG_INIT;
    pthread_t t = start_call(&c, out);
    ok(xi_recv(in, &m, XI_TRY));
    ok(xi_channel_free(in));
    ck_assert(xi_call_wanted(&m));
    ok(reply_with(&m, 6, 0));
    ended(t, &c, 0);
    xi_msg_release(&m);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_request_that_is_released_is_not_replied_to) {
    xi_channel *out = caller(), *in = server();
    struct one_call c;
    xi_msg m = XI_MSG_INIT;
    for (int how = 0; how < 3; how++) {
        pthread_t t = start_call(&c, out);
        uint64_t beyond = (uint64_t)XI_BELL_PARKED << 32; /* what follows the bells is none, and is not rung */
        xi_store_full(&me->mailbox->ready_words[0], beyond);
        ok(xi_recv(in, &m, XI_TRY));
        if (how == 0) xi_msg_release(&m);
        if (how == 1) fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY)); /* receiving into it releases it */
        if (how == 2) {
            ok(xi_reply(&m, NULL, 0, XI_TRY)); /* given up, and readable still */
            ck_assert_int_eq(number_of(&m), 5);
            fails(XI_E_INVAL, reply_with(&m, 1, 0));
        }
        ended(t, &c, XI_E_DIED);
        ck_assert_uint_eq(xi_load_full(&me->mailbox->ready_words[0]), beyond);
    }
    nothing_remains(in, out, &m, NULL);
}
END_TEST

/* The last of them is one as well, and the first comes after it. */
START_TEST(generations_go_round) {
    xi_channel *out = caller(), *in = server();
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    xi_pending p;
    ok(begin(out, 1, 0, &p));
    xi_call_cancel(&p);
    me->calls->call[0].generation = XI_GENERATION_MAX - 1;
    for (uint64_t generation = XI_GENERATION_MAX; generation != 2; generation = generation % XI_GENERATION_MAX + 1) {
        ok(begin(out, 2, 0, &p));
        ck_assert_uint_eq(p.generation_, generation);
        ok(xi_recv(in, &m, XI_TRY));
        ok(reply_with(&m, 3, 0));
        ok(xi_call_wait(&p, &reply, XI_TRY));
        ck_assert_int_eq(number_of(&reply), 3);
    }
    nothing_remains(in, out, &m, &reply);
}
END_TEST

START_TEST(a_server_leaves_with_the_request) {
    xi_interp *third;
    ok(xi_join(&(xi_join_opts){.name = "third"}, &third));
    xi_channel *out = caller(), *in = open_with(third, XI_OPEN_RECV, (xi_open_opts){0}), *stays = server();
    struct one_call c;
    xi_msg m = XI_MSG_INIT;
    pthread_t t = start_call(&c, out);
    ok(xi_recv(in, &m, XI_TRY));
    ok(xi_leave(third));
    ended(t, &c, XI_E_DIED);
    fails(XI_E_LEFT, reply_with(&m, 1, 0));
    xi_msg_release(&m);
    ok(xi_channel_free(in));
    ok(xi_channel_free(stays));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_removed_channel_ends_calls_that_nobody_took) {
    xi_channel *out = caller(), *in = server();
    struct one_call c;
    pthread_t t = start_call(&c, out);
    ok(xi_remove(you, xi_channel_name(out)));
    ended(t, &c, XI_E_REMOVED);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* A group that joined behind the request stands beyond it, and has not taken it. */
START_TEST(who_joins_later_has_not_taken_the_request) {
    xi_channel *out = caller(), *in = server();
    xi_msg reply = XI_MSG_INIT;
    xi_pending p;
    ok(begin(out, 1, 0, &p));
    xi_channel *late = open_with(you, XI_OPEN_RECV, (xi_open_opts){.group = "late"});
    ok(xi_channel_free(in));
    ok(xi_channel_free(late));
    fails(XI_E_NO_CONSUMER, xi_call_wait(&p, &reply, LONG));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(freeing_the_handle_and_leaving_end_calls) {
    xi_channel *out = caller(), *in = server();
    struct one_call c;
    pthread_t t = start_call(&c, out);
    ok(xi_channel_free(out));
    ended(t, &c, XI_E_LEFT);
    fails(XI_E_AGAIN, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    out = caller();
    t = start_call(&c, out);
    ok(xi_leave(me));
    ended(t, &c, XI_E_LEFT);
    ok(xi_channel_free(out));
    ok(xi_channel_free(in));
    ok(xi_join(&(xi_join_opts){.name = "caller"}, &me));
}
END_TEST

START_TEST(a_cancelled_request_goes_to_nobody) {
    xi_channel *out = caller(), *in = server();
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    xi_pending p;
    for (int large = 0; large < 2; large++) {
        ok(begin(out, 1, large ? 9000 : 0, &p));
        fails(XI_E_AGAIN, xi_call_wait(&p, &reply, XI_TRY));
        fails(XI_E_TIMEOUT, xi_call_wait(&p, &reply, 5 * MS)); /* it is still pending */
        xi_call_cancel(&p);
        xi_call_cancel(&p);
        fails(XI_E_INVAL, xi_call_wait(&p, &reply, XI_TRY));
        fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
        /* Taken before it is cancelled: the reply is for nobody. */
        ok(begin(out, 2, large ? 9000 : 0, &p));
        ok(xi_recv(in, &m, XI_TRY));
        ck_assert(xi_call_wanted(&m));
        xi_call_cancel(&p);
        ck_assert(!xi_call_wanted(&m));
        fails(XI_E_STALE, reply_with(&m, 3, 0));
        fails(XI_E_INVAL, reply_with(&m, 3, 0));
    }
    /* Replied to just before it is cancelled: the next call does not get that reply. */
    ok(begin(out, 4, 0, &p));
    ok(xi_recv(in, &m, XI_TRY));
    ok(reply_with(&m, 40, 9000));
    xi_call_cancel(&p);
    ok(begin(out, 5, 0, &p));
    ok(xi_recv(in, &m, XI_TRY));
    ok(reply_with(&m, 50, 0));
    ok(xi_call_wait(&p, &reply, XI_TRY));
    ck_assert_int_eq(number_of(&reply), 50);
    nothing_remains(in, out, &m, &reply);
}
END_TEST

START_TEST(sixty_four_calls_at_a_time) {
    xi_channel *out = caller(), *in = server();
    xi_pending p[XI_MAX_CALLS + 1];
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    for (int i = 0; i < (int)XI_MAX_CALLS; i++) ok(begin(out, i, 0, &p[i]));
    fails(XI_E_LIMIT, begin(out, 1, 0, &p[XI_MAX_CALLS]));
    for (int i = 0; i < (int)XI_MAX_CALLS; i++) {
        ok(xi_recv(in, &m, XI_TRY));
        ok(reply_with(&m, number_of(&m) + 1000, 0));
    }
    for (int i = XI_MAX_CALLS; i-- > 0;) { /* whoever reads the lane puts the others' aside */
        ok(xi_call_wait(&p[i], &reply, XI_TRY));
        ck_assert_int_eq(number_of(&reply), i + 1000);
    }
    nothing_remains(in, out, &m, &reply);
}
END_TEST

static void *calls_many(void *argument) {
    xi_msg reply = XI_MSG_INIT;
    xi_channel *out = caller();
    for (int64_t i = 0; i < 300; i++) {
        int64_t n = (int64_t)(intptr_t)argument * 1000 + i;
        int rc = call(out, n, i % 3 == 0 ? 9000 : 0, &reply, i % 50 == 7 ? 20000 : 20000 * MS);
        if (rc == XI_E_TIMEOUT && i % 50 == 7) continue;
        ok(rc);
        ck_assert_int_eq(number_of(&reply), n + 1);
    }
    xi_msg_release(&reply);
    ok(xi_channel_free(out));
    return NULL;
}

START_TEST(many_threads_call_and_serve) {
    enum { CALLERS = 6, SERVERS = 3 };
    xi_channel *out = caller(), *in[SERVERS];
    pthread_t callers[CALLERS], servers[SERVERS];
    for (intptr_t i = 0; i < SERVERS; i++) {
        in[i] = server();
        pthread_create(&servers[i], NULL, serves, in[i]);
    }
    for (intptr_t i = 0; i < CALLERS; i++) pthread_create(&callers[i], NULL, calls_many, (void *)i);
    for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
    ok(xi_close(out));
    for (int i = 0; i < SERVERS; i++) {
        pthread_join(servers[i], NULL);
        ok(xi_channel_free(in[i]));
    }
    ck_assert_uint_eq(me->calls->taken, 0);
    nothing_is_out(me);
    nothing_is_out(you);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_loan_is_sent_and_replied_with_in_place) {
    xi_channel *out = caller(), *in = server();
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    xi_pending p;
    xi_loan loan;
    ok(xi_loan_get(me, 20000, &loan));
    const void *there = loan.data;
    ok(xi_call_begin_loan(out, &loan, encode_number(loan.data, loan.size, 8, 15000), NULL, &p));
    ck_assert_ptr_null(loan.data);
    ok(xi_recv(in, &m, XI_TRY));
    ck_assert_int_eq(number_of(&m), 8);
    ok(xi_loan_get(you, 20000, &loan));
    ok(xi_reply_loan(&m, &loan, encode_number(loan.data, loan.size, 9, 15000), NULL));
    ok(xi_call_wait(&p, &reply, XI_TRY));
    ck_assert_int_eq(number_of(&reply), 9);
    ck_assert(xi_msg_borrowed(&reply) && there);
    nothing_remains(in, out, &m, &reply);
}
END_TEST

START_TEST(values_and_requests_share_a_channel) {
    xi_channel *out = caller(), *in = server();
    xi_msg m[4];
    xi_pending p[2];
    for (int i = 0; i < 4; i++) m[i] = (xi_msg)XI_MSG_INIT;
    ok(xi_send_int(out, 1, XI_TRY));
    ok(begin(out, 2, 0, &p[0]));
    ok(begin(out, 3, 9000, &p[1]));
    ok(xi_send_int(out, 4, XI_TRY));
    ck_assert_int_eq(xi_recv_many(in, m, 4, XI_TRY), 4);
    for (int i = 0; i < 4; i++) ck_assert_int_eq(xi_msg_is_call(&m[i]), i == 1 || i == 2);
    fails(XI_E_INVAL, reply_with(&m[0], 1, 0));
    ok(reply_with(&m[2], 30, 0));
    ok(reply_with(&m[1], 20, 0));
    xi_msg reply = XI_MSG_INIT;
    for (int i = 0; i < 2; i++) {
        ok(xi_call_wait(&p[i], &reply, XI_TRY));
        ck_assert_int_eq(number_of(&reply), 20 + 10 * i);
    }
    for (int i = 0; i < 4; i++) xi_msg_release(&m[i]);
    nothing_remains(in, out, NULL, &reply);
}
END_TEST

START_TEST(a_request_whose_time_is_over_is_refused) {
    xi_channel *out = open_with(me, XI_OPEN_SEND, (xi_open_opts){.ttl_ns = 5 * MS}), *in = server();
    struct one_call c;
    pthread_t t = start_call(&c, out);
    int64_t until = xi_now() + 7 * MS;
    while (xi_now() < until) sched_yield();
    fails(XI_E_AGAIN, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    ended(t, &c, XI_E_DIED);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_request_that_makes_room_for_newer_values_is_refused) {
    xi_open_opts o = {.capacity = XI_CAPACITY_MIN, .when_full = XI_FULL_DROP};
    xi_channel *out = open_with(me, XI_OPEN_SEND, o), *in = server();
    xi_pending p[2];
    xi_msg m = XI_MSG_INIT;
    ok(begin(out, 1, 0, &p[0]));
    ok(begin(out, 2, 9000, &p[1]));
    for (int i = 0; i < 1000; i++) ok(xi_send_int(out, i, XI_TRY));
    for (int i = 0; i < 2; i++) fails(XI_E_DIED, xi_call_wait(&p[i], &m, XI_FOREVER));
    struct one_call c;
    while (xi_recv(in, &m, XI_TRY) == 0) continue;
    pthread_t t = start_call(&c, out);
    for (int i = 0; i < 1000; i++) ok(xi_send_int(out, i, XI_TRY));
    ended(t, &c, XI_E_DIED);
    while (xi_recv(in, &m, XI_TRY) == 0) continue;
    nothing_remains(in, out, &m, NULL);
}
END_TEST

START_TEST(a_full_channel_and_nobody_left_to_empty_it) {
    xi_channel *out = open_with(me, XI_OPEN_SEND, (xi_open_opts){.capacity = XI_CAPACITY_MIN}), *in = server();
    while (xi_send_int(out, 1, XI_TRY) == 0) continue;
    xi_msg reply = XI_MSG_INIT;
    fails(XI_E_TIMEOUT, call(out, 1, 0, &reply, 5 * MS));
    struct one_call c = {.ch = out};
    pthread_t t;
    pthread_create(&t, NULL, calls_once, &c);
    xi_channel_info info;
    do ok(xi_channel_stat(in, &info));
    while (info.waiting == 0);
    ok(xi_channel_free(in));
    ended(t, &c, XI_E_NO_CONSUMER);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(lanes_are_nobodys_business) {
    xi_channel *out = caller(), *in = server(), *ch;
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    xi_pending p;
    char lane[80];
    xi_lane_name(xi_id(me), lane);
    fails(XI_E_INVAL, xi_open(me, lane, NULL, &ch));
    fails(XI_E_INVAL, xi_open(me, "xi.reply.", NULL, &ch));
    fails(XI_E_INVAL, xi_remove(me, lane));
    fails(XI_E_ACCESS, xi_open_inner(you, lane, &(xi_open_opts){.flags = XI_OPEN_RECV}, &ch)); /* nor make it beforehand */
    ok(begin(out, 1, 0, &p));
    ok(xi_recv(in, &m, XI_TRY));
    ok(reply_with(&m, 1, 0));
    ok(xi_call_wait(&p, &reply, XI_TRY));
    fails(XI_E_ACCESS, xi_open_inner(you, lane, &(xi_open_opts){.flags = XI_OPEN_RECV | XI_OPEN_EXISTING}, &ch));
    xi_channel_info info[64];
    int64_t n = xi_list_channels(xi_observer_of(me), info, 64);
    for (int64_t i = 0; i < n; i++) ck_assert(!xi_lane_named(info[i].name));
    nothing_remains(in, out, &m, &reply);
}
END_TEST

START_TEST(lanes_go_with_their_interpreters) {
    xi_channel *in = server();
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    for (int i = 0; i < 20; i++) {
        xi_interp *third;
        xi_pending p;
        ok(xi_join(&(xi_join_opts){.name = "third"}, &third));
        xi_channel *out = open_with(third, XI_OPEN_SEND, (xi_open_opts){0});
        ok(begin(out, 1, 0, &p));
        ok(xi_recv(in, &m, XI_TRY));
        if (i % 2) {
            ok(reply_with(&m, 1, 0));
            ok(xi_call_wait(&p, &reply, XI_TRY));
            xi_msg_release(&reply);
        }
        ok(xi_leave(third));
        if (i % 2 == 0) fails(XI_E_STALE, reply_with(&m, 1, 0));
        ok(xi_channel_free(out));
    }
    ok(xi_sleep_ended(you, XI_WAKE_LOOK)); /* what a thread that sleeps does now and then */
    ck_assert_ptr_null(you->lanes);
    xi_msg_release(&m);
    ok(xi_channel_free(in));
}
END_TEST

START_TEST(a_forked_child_has_no_part_in_it) {
    xi_channel *out = caller(), *in = server();
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    xi_pending p;
    ok(begin(out, 1, 0, &p));
    ok(xi_recv(in, &m, XI_TRY));
    pid_t pid = fork();
    if (pid == 0) {
        bool right = xi_call_wait(&p, &reply, XI_TRY) == XI_E_FORKED && reply_with(&m, 1, 0) == XI_E_FORKED &&
                     !xi_call_wanted(&m) && call(out, 1, 0, &reply, XI_TRY) == XI_E_FORKED;
        xi_call_cancel(&p);
        xi_msg_release(&m);
        (void)xi_channel_free(out);
        (void)xi_leave(me);
        _exit(right ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert(xi_call_wanted(&m));
    ok(reply_with(&m, 2, 0));
    ok(xi_call_wait(&p, &reply, XI_TRY));
    nothing_remains(in, out, &m, &reply);
}
END_TEST

/* What another member can write: records that refer to nobody, replies to nobody's calls, words. */
START_TEST(garbage_is_an_error_or_nothing) {
    xi_channel *out = caller(), *in = server(), *to_me;
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    xi_pending p;
    uint64_t none = XI_NONE;
    bool waited = false;
    struct xi_calling bad[] = {{.ref = {0, 0, 1}},
                               {.ref = {XI_MAX_INTERPS, 0, 1}},
                               {.ref = {1, XI_MAX_CALLS, 1}},
                               {.ref = {1, 0, 0}},
                               {.ref = {1, 0, XI_GENERATION_MAX + 1}}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ok(xi_send_call(out, &none, 8, NULL, &(xi_send_opts){0}, &bad[i], &waited));
        fails(XI_E_CORRUPT, xi_recv(in, &m, XI_TRY));
    }
    struct xi_calling nobodys = {.ref = {511, 3, 99}}, mine = {.ref = {me->slot, 5, 99}};
    ok(xi_send_call(out, &none, 8, NULL, &(xi_send_opts){0}, &nobodys, &waited)); /* a caller that has gone */
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    ok(begin(out, 1, 0, &p));
    char lane[80];
    xi_lane_name(xi_id(me), lane);
    ok(xi_open_inner(you, lane, &(xi_open_opts){.flags = XI_OPEN_SEND | XI_OPEN_EXISTING}, &to_me));
    ok(xi_send_call(to_me, &none, 8, NULL, &(xi_send_opts){0}, &mine, &waited));
    ok(xi_send_call(to_me, &none, 8, NULL, &(xi_send_opts){0}, &bad[0], &waited));
    ok(xi_send_int(to_me, 3, XI_TRY));
    fails(XI_E_AGAIN, xi_call_wait(&p, &reply, XI_TRY));
    ok(xi_recv(in, &m, XI_TRY));
    ok(reply_with(&m, 2, 0));
    ok(xi_call_wait(&p, &reply, XI_TRY));
    ck_assert_int_eq(number_of(&reply), 2);
    ok(begin(out, 1, 0, &p));
    xi_store_full(&me->mailbox->calls[p.index_], UINT64_MAX);
    fails(XI_E_DIED, xi_call_wait(&p, &reply, XI_FOREVER));
    xi_channel_close_inner(to_me);
    nothing_remains(in, out, &m, NULL);
}
END_TEST

/* A reply that another thread reads first is handed over, and its caller rung: nobody else would. */
START_TEST(a_reply_is_handed_over) {
    xi_channel *out = caller(), *in = server();
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    struct one_call c;
    xi_pending p;
    for (int round = 0; round < 3; round++) {
        pthread_t t = start_call(&c, out);
        ok(xi_recv(in, &m, LONG));
        struct xi_group *lane = me->calls->lane->group;
        uint64_t bits = 0;
        while (!bits) /* whoever claims the bit would ring: so we do, and do not */
            for (uint32_t i = 0; i < XI_MASK_WORDS; i++) bits |= xi_exchange_full(&lane->parked.word[i], 0);
        pass_time(5 * MS);
        ok(reply_with(&m, 6, 0));
        ok(begin(out, 1, 0, &p));
        fails(XI_E_AGAIN, xi_call_wait(&p, &reply, XI_TRY)); /* reads the lane: what lies there is the other's */
        ended(t, &c, 0);
        xi_call_cancel(&p);
    }
    nothing_remains(in, out, &m, &reply);
}
END_TEST

static void on_signal(int number) { (void)number; }
static _Atomic bool interrupted;
static void *interrupts(void *argument) {
    await_caller();
    while (!atomic_load(&interrupted)) {
        pthread_kill(*(pthread_t *)argument, SIGUSR1);
        sched_yield();
    }
    return NULL;
}

START_TEST(a_signal_interrupts_the_wait_and_not_the_call) {
    xi_channel *out = caller(), *in = server();
    xi_msg m = XI_MSG_INIT, reply = XI_MSG_INIT;
    xi_pending p;
    pthread_t self = pthread_self(), t;
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART}, NULL);
    ok(begin(out, 1, 0, &p));
    pthread_create(&t, NULL, interrupts, &self);
    fails(XI_E_INTR, xi_call_wait(&p, &reply, 20000 * MS));
    atomic_store(&interrupted, true);
    pthread_join(t, NULL);
    ok(xi_recv(in, &m, XI_TRY));
    ok(reply_with(&m, 2, 0));
    ok(xi_call_wait(&p, &reply, 1000 * MS));
    nothing_remains(in, out, &m, &reply);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("calls");
    TCase *t = tcase_create("calls");
    tcase_add_checked_fixture(t, join_both, leave_both);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_call_returns_the_reply_to_it);
    tcase_add_test(t, what_is_taken_is_noted);
    tcase_add_test(t, nobody_serves);
    tcase_add_test(t, the_last_server_leaves_before_it_took_the_request);
    tcase_add_test(t, the_last_server_closes_its_handle_and_replies_later);
    tcase_add_test(t, a_request_that_is_released_is_not_replied_to);
    tcase_add_test(t, generations_go_round);
    tcase_add_test(t, a_server_leaves_with_the_request);
    tcase_add_test(t, a_removed_channel_ends_calls_that_nobody_took);
    tcase_add_test(t, who_joins_later_has_not_taken_the_request);
    tcase_add_test(t, freeing_the_handle_and_leaving_end_calls);
    tcase_add_test(t, a_cancelled_request_goes_to_nobody);
    tcase_add_test(t, sixty_four_calls_at_a_time);
    tcase_add_test(t, many_threads_call_and_serve);
    tcase_add_test(t, a_reply_is_handed_over);
    tcase_add_test(t, a_loan_is_sent_and_replied_with_in_place);
    tcase_add_test(t, values_and_requests_share_a_channel);
    tcase_add_test(t, a_request_whose_time_is_over_is_refused);
    tcase_add_test(t, a_request_that_makes_room_for_newer_values_is_refused);
    tcase_add_test(t, a_full_channel_and_nobody_left_to_empty_it);
    tcase_add_test(t, lanes_are_nobodys_business);
    tcase_add_test(t, lanes_go_with_their_interpreters);
    tcase_add_test(t, a_forked_child_has_no_part_in_it);
    tcase_add_test(t, garbage_is_an_error_or_nothing);
    tcase_add_test(t, a_signal_interrupts_the_wait_and_not_the_call);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
