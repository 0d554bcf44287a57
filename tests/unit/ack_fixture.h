/* SPDX-License-Identifier: MIT */
/* What tests of groups that acknowledge share: two interpreters, numbered values, channels, and time that has passed. */
#ifndef XI_TESTS_ACK_FIXTURE_H
#define XI_TESTS_ACK_FIXTURE_H

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "channel/ack.h"
#include "xidata.h"

#define MS ((int64_t)1000000)
#define LONG (5000 * MS)
#define ok(call)                                                                                                       \
    do {                                                                                                               \
        int64_t rc_ = (call);                                                                                          \
        if (rc_ < 0) ck_abort_msg("%s: %s: %s", #call, xi_error_name((int)rc_), xi_error_text((int)rc_));              \
    } while (0)
#define fails(error, call)                                                                                             \
    do {                                                                                                               \
        int64_t rc_ = (call);                                                                                          \
        if (rc_ != (error))                                                                                            \
            ck_abort_msg("%s: wanted %s, got %lld %s", #call, xi_error_name(error), (long long)rc_,                    \
                         rc_ < 0 ? xi_error_text((int)rc_) : "");                                                      \
    } while (0)

static xi_interp *me, *you;

static inline void setup(void) {
    ok(xi_join(&(xi_join_opts){.name = "me"}, &me));
    ok(xi_join(&(xi_join_opts){.name = "you"}, &you));
    /* Values that a queue's own group has not received would keep a channel from test to test. */
    static const char *const names[] = {"work", "small", "news", "dead", "late"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) (void)xi_remove(me, names[i]);
}
static inline void teardown(void) {
    ok(xi_leave(you));
    ok(xi_leave(me));
}

/* ---------------------------------------------------------------- values */

#define INLINE 24
#define BLOCK 20000

/* (number, `size` bytes that say which number) */
static inline void send_sized(xi_channel *ch, int64_t number, size_t size, const xi_send_opts *opts) {
    uint64_t *value = calloc(1, size + 64);
    xi_builder b;
    void *where;
    xi_builder_init(&b, value, size + 64, 0);
    ok(xi_begin(&b, XI_TUPLE, 2));
    ok(xi_put_int(&b, number));
    ok(xi_put_bytes_space(&b, 0, size, &where));
    memset(where, (int)number, size);
    ok(xi_end(&b));
    int64_t total = xi_builder_finish(&b);
    ok(total);
    ok(xi_send_ex(ch, value, (size_t)total, opts));
    free(value);
}
static inline void send_number(xi_channel *ch, int64_t number, size_t size) {
    send_sized(ch, number, size, &(xi_send_opts){.timeout = LONG});
}

/* The number of such a value, all of whose bytes are as they were sent. */
static inline int64_t number_in(const void *data, size_t size) {
    xi_cursor c, children;
    xi_value v;
    int64_t n = 0;
    xi_cursor_init(&c, data, size);
    ck_assert_int_eq(xi_next(&c, &v), 1);
    ok(xi_enter(&v, &children));
    ck_assert_int_eq(xi_next(&children, &v), 1);
    ok(xi_get_int(&v, &n));
    ck_assert_int_eq(xi_next(&children, &v), 1);
    ck_assert_uint_eq(v.tag, XI_BYTES);
    for (size_t i = 0; i < v.length; i++) ck_assert_uint_eq(((const uint8_t *)v.data)[i], (uint8_t)n);
    return n;
}
static inline int64_t number_of(const xi_msg *m) { return number_in(m->data, m->size); }

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

static inline uint64_t blocks_out(xi_interp *who) {
    xi_stats stats;
    xi_loan loan;
    for (int i = 0; i < 100; i++) {
        ok(xi_loan_get(who, 8, &loan)); /* makes the arena look at some of those that are out */
        xi_loan_drop(&loan);
    }
    xi_interp_stats(who, &stats);
    return stats.blocks;
}

static inline void pass_time(int64_t ns) {
    int64_t end = xi_now() + ns;
    while (xi_now() <= end) nanosleep(&(struct timespec){0, (long)(MS / 2)}, NULL);
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
