/* SPDX-License-Identifier: MIT */
/* What tests of requests and replies share: a channel of the test's own, requests with numbers, and a call in a thread. */
#ifndef XI_TESTS_CALL_FIXTURE_H
#define XI_TESTS_CALL_FIXTURE_H

#include <pthread.h>
#include <stdio.h>

#include "channel/call.h"
#include "fixture.h"

/* Channels of this test: values that another left undelivered are in others. */
static inline xi_channel *open_with(xi_interp *who, uint32_t flags, xi_open_opts o) {
    xi_channel *ch = NULL;
    char name[40];
    snprintf(name, sizeof name, "%lld.service", (long long)xi_id(me));
    o.flags |= flags;
    ok(xi_open(who, name, &o, &ch));
    return ch;
}
static inline xi_channel *caller(void) { return open_with(me, XI_OPEN_SEND, (xi_open_opts){0}); }
static inline xi_channel *server(void) { return open_with(you, XI_OPEN_RECV, (xi_open_opts){0}); }

static inline int call(xi_channel *ch, int64_t number, size_t padding, xi_msg *reply, int64_t timeout) {
    static _Thread_local uint64_t buffer[20000];
    size_t size = encode_number(buffer, sizeof buffer, number, padding);
    return xi_call(ch, buffer, size, reply, timeout);
}
static inline int begin(xi_channel *ch, int64_t number, size_t padding, xi_pending *p) {
    uint64_t buffer[2000];
    size_t size = encode_number(buffer, sizeof buffer, number, padding);
    return xi_call_begin(ch, buffer, size, XI_TRY, p);
}
static inline int reply_with(xi_msg *request, int64_t number, size_t padding) {
    static _Thread_local uint64_t buffer[20000];
    size_t size = encode_number(buffer, sizeof buffer, number, padding);
    return xi_reply(request, buffer, size, 10000 * MS);
}

static inline void nothing_is_out(xi_interp *who) {
    xi_stats s;
    for (int i = 0; i < 5000; i++) {
        (void)xi_free_run(who);
        xi_loan loan;
        ok(xi_loan_get(who, 8, &loan));
        xi_loan_drop(&loan);
        xi_interp_stats(who, &s);
        if (s.blocks == 0 && s.borrows == 0) return;
        sched_yield();
    }
    ck_abort_msg("%llu blocks and %llu borrows are left", (unsigned long long)s.blocks, (unsigned long long)s.borrows);
}

/* The end of a test: all is released and closed, and nothing of it is anywhere. */
static inline void nothing_remains(xi_channel *in, xi_channel *out, xi_msg *m, xi_msg *reply) {
    if (m) xi_msg_release(m);
    if (reply) xi_msg_release(reply);
    nothing_is_out(me);
    nothing_is_out(you);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}

struct one_call {
    xi_channel *ch;
    int rc;
    int64_t took;
};
static inline void *calls_once(void *argument) {
    struct one_call *c = argument;
    xi_msg reply = XI_MSG_INIT;
    int64_t start = xi_now();
    c->rc = call(c->ch, 5, 0, &reply, 20000 * MS);
    c->took = xi_now() - start;
    xi_msg_release(&reply);
    return NULL;
}
/* Until the call's thread sleeps on its lane. */
static inline void await_caller(void) {
    for (;;) {
        pthread_mutex_lock(&me->calls_mutex);
        bool asleep = me->calls && xi_load_full(&me->calls->call[0].bell);
        pthread_mutex_unlock(&me->calls_mutex);
        if (asleep) return;
        sched_yield();
    }
}
static inline pthread_t start_call(struct one_call *c, xi_channel *ch) {
    pthread_t t;
    c->ch = ch;
    pthread_create(&t, NULL, calls_once, c);
    await_caller();
    return t;
}
static inline void ended(pthread_t t, const struct one_call *c, int rc) {
    pthread_join(t, NULL);
    if (c->rc != rc) ck_abort_msg("the call ended with %s: %s", xi_error_name(c->rc), xi_error_text(c->rc));
    ck_assert_int_lt(c->took, 900 * MS); /* not because it looked by itself after a second */
}

#endif
