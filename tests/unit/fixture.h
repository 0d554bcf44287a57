/* SPDX-License-Identifier: MIT */
/*
 * What tests of channels share: calls that must succeed or fail in one way, two
 * interpreters in one process (they share nothing but the segments), values that
 * say which they are, sleepers to wait for, and blocks that must come back.
 */
#ifndef XI_TESTS_FIXTURE_H
#define XI_TESTS_FIXTURE_H

#include <check.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "wait/sleep.h"
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

static inline void join_both(void) {
    ok(xi_join(&(xi_join_opts){.name = "me"}, &me));
    ok(xi_join(&(xi_join_opts){.name = "you"}, &you));
}
static inline void leave_both(void) {
    ok(xi_leave(you));
    ok(xi_leave(me));
}

/* Nothing stays mapped of a namespace that was left. */
static inline void leave_nothing(void) {
    char line[512];
    leave_both();
    FILE *maps = fopen("/proc/self/maps", "re");
    ck_assert_ptr_nonnull(maps);
    while (fgets(line, sizeof line, maps)) ck_assert_msg(!strstr(line, "/dev/shm/xi."), "%s", line);
    fclose(maps);
}

/* ---------------------------------------------------------------- values */

/* (number, `padding` bytes that say which number): how many bytes of the buffer it takes. */
static inline size_t encode_number(void *buffer, size_t capacity, int64_t number, size_t padding) {
    xi_builder b;
    void *where = NULL;
    xi_builder_init(&b, buffer, capacity, 0);
    (void)xi_begin(&b, XI_TUPLE, 2);
    (void)xi_put_int(&b, number);
    (void)xi_put_bytes_space(&b, 0, padding, &where);
    if (where) memset(where, (int)(number & 0xff), padding);
    (void)xi_end(&b);
    int64_t size = xi_builder_finish(&b);
    ok(size);
    return (size_t)size;
}
static inline int try_number(xi_channel *ch, int64_t number, size_t padding, const xi_send_opts *opts) {
    uint64_t *value = calloc(1, padding + 64);
    int rc = xi_send_ex(ch, value, encode_number(value, padding + 64, number, padding), opts);
    free(value);
    return rc;
}
static inline void send_number(xi_channel *ch, int64_t number, size_t padding) {
    ok(try_number(ch, number, padding, &(xi_send_opts){.timeout = LONG}));
}

/* The number of such a value, all of whose bytes are as they were sent; or of a bare int. */
static inline int64_t number_in(const void *data, size_t size) {
    xi_cursor c, children;
    xi_value v;
    int64_t n = 0;
    ok(xi_validate(data, size));
    xi_cursor_init(&c, data, size);
    ck_assert_int_eq(xi_next(&c, &v), 1);
    if (v.tag != XI_TUPLE) {
        ok(xi_get_int(&v, &n));
        return n;
    }
    ok(xi_enter(&v, &children));
    ck_assert_int_eq(xi_next(&children, &v), 1);
    ok(xi_get_int(&v, &n));
    ck_assert_int_eq(xi_next(&children, &v), 1);
    ck_assert_uint_eq(v.tag, XI_BYTES);
    for (size_t i = 0; i < v.length; i++)
        if (((const uint8_t *)v.data)[i] != (uint8_t)n) ck_abort_msg("value %lld is not as it was sent", (long long)n);
    return n;
}
static inline int64_t number_of(const xi_msg *m) { return number_in(m->data, m->size); }

/* The next value's number, when it comes; that it is this one; and that there is none. */
static inline int64_t take(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    ok(xi_recv(ch, &m, LONG));
    int64_t n = number_of(&m);
    xi_msg_release(&m);
    return n;
}
static inline void nothing_left(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    fails(XI_E_AGAIN, xi_recv(ch, &m, XI_TRY));
}

/* --------------------------------------------------------- time and sleepers */

static inline void pass_time(int64_t ns) {
    int64_t end = xi_now() + ns;
    while (xi_now() <= end) nanosleep(&(struct timespec){0, (long)(MS / 2)}, NULL);
}

/* Until so many threads sleep on the channel, which `watch` is a handle of. */
static inline void await_sleepers(xi_channel *watch, uint32_t n) {
    xi_channel_info info;
    do {
        sched_yield();
        ok(xi_channel_stat(watch, &info));
    } while (info.waiting < n);
}

/* ---------------------------------------------------------------- what is out */

/* Blocks that have not come back to the interpreter, after a look at all of a few hundred. */
static inline uint64_t blocks_out(xi_interp *who) {
    xi_stats stats;
    xi_loan loan;
    for (int i = 0; i < 100; i++) {
        ok(xi_loan_get(who, 8, &loan)); /* makes the arena look at some of those that are out */
        xi_loan_drop(&loan);
    }
    ok(xi_free_run(who));
    xi_interp_stats(who, &stats);
    return stats.blocks;
}

/* Runs the suite as the environment of `check` says: the exit status. */
static inline int run_suite(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
