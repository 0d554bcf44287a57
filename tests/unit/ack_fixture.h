/* SPDX-License-Identifier: MIT */
/* What tests of groups that acknowledge share: two interpreters, numbered values, channels, and time that has passed. */
#ifndef XI_TESTS_ACK_FIXTURE_H
#define XI_TESTS_ACK_FIXTURE_H

#include <pthread.h>

#include "channel/ack.h"
#include "fixture.h"

static inline void setup(void) {
    join_both();
    /* Values that a queue's own group has not received would keep a channel from test to test. */
    static const char *const names[] = {"work", "small", "news", "dead", "late"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) (void)xi_remove(me, names[i]);
}

/* ---------------------------------------------------------------- values */

#define INLINE 24
#define BLOCK 20000

static inline void expect_value(xi_channel *ch, xi_msg *m, int64_t number, uint32_t deliveries, int64_t timeout) {
    ok(xi_recv(ch, m, timeout));
    ck_assert_int_eq(number_of(m), number);
    ck_assert_uint_eq(xi_msg_deliveries(m), deliveries);
}

/* -------------------------------------------------------------- channels */

static const xi_group_opts acks = {.flags = XI_GROUP_ACK};

/* Groups with names are on a broadcast, where nobody else keeps the values. To be opened before the sender. */
static inline xi_channel *open_group(xi_interp *who, const char *group, const xi_group_opts *opts) {
    xi_channel *ch = NULL;
    uint32_t mode = group ? XI_BROADCAST : XI_QUEUE;
    ok(xi_open(who, "work", &(xi_open_opts){.mode = mode, .flags = XI_OPEN_RECV, .group = group, .group_opts = opts}, &ch));
    return ch;
}
static inline xi_channel *open_sender(xi_interp *who) {
    xi_channel *ch = NULL;
    ok(xi_open(who, "work", &(xi_open_opts){.flags = XI_OPEN_SEND}, &ch));
    return ch;
}
static inline xi_channel *open_letters(const char *name) {
    xi_channel *ch = NULL;
    ok(xi_open(me, name, &(xi_open_opts){.flags = XI_OPEN_RECV}, &ch));
    return ch;
}

static inline uint64_t in_flight(const xi_channel *ch) {
    return xi_load_relaxed(&ch->group->next_seq) - xi_load_relaxed(&ch->group->head_seq);
}
static inline uint64_t lingering(const xi_channel *ch) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < ch->ack->window; i++)
        n += xi_load_relaxed(&XI_ACKS_LINGERS(ch->ack->acks, ch->ack->window)[i].holder) != 0;
    return n;
}

static const size_t sizes[] = {INLINE, BLOCK};

/* ------------------------------------------------------------- waiting for it */

struct waiter {
    pthread_t thread;
    xi_channel *ch;
    xi_msg m;
    int rc;
    int64_t took;
};
static inline void *wait_for_one(void *argument) {
    struct waiter *w = argument;
    int64_t begun = xi_now();
    w->rc = xi_recv(w->ch, &w->m, LONG);
    w->took = xi_now() - begun;
    return NULL;
}
static inline void start_waiter(struct waiter *w, xi_channel *ch) {
    *w = (struct waiter){.ch = ch, .m = XI_MSG_INIT};
    ck_assert_int_eq(pthread_create(&w->thread, NULL, wait_for_one, w), 0);
    int64_t until = xi_now() + LONG;
    while (atomic_load(&ch->waiting) == 0 && xi_now() < until) nanosleep(&(struct timespec){0, 100000}, NULL);
    ck_assert_uint_ne(atomic_load(&ch->waiting), 0);
}
static inline void end_waiter(struct waiter *w, int64_t number, uint32_t deliveries) {
    pthread_join(w->thread, NULL);
    ok(w->rc);
    ck_assert_int_eq(number_of(&w->m), number);
    ck_assert_uint_eq(xi_msg_deliveries(&w->m), deliveries);
    ck_assert_int_lt(w->took, 800 * MS); /* not by the look that sleepers take once a second */
    ok(xi_ack(&w->m));
}

#endif
