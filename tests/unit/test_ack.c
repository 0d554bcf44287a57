/* SPDX-License-Identifier: MIT */
/*
 * Groups that acknowledge, as a program sees them: what comes back, to whom and
 * when; the window; late acknowledgements; blocks that two may be reading; ends
 * of handles, groups, channels and interpreters; and tables that somebody has
 * filled with garbage.
 */
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

static void setup(void) {
    ok(xi_join(&(xi_join_opts){.name = "me"}, &me));
    ok(xi_join(&(xi_join_opts){.name = "you"}, &you));
    /* Values that a queue's own group has not received would keep a channel from test to test. */
    static const char *const names[] = {"work", "small", "news", "dead", "late"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) (void)xi_remove(me, names[i]);
}
static void teardown(void) {
    ok(xi_leave(you));
    ok(xi_leave(me));
}

/* ---------------------------------------------------------------- values */

#define INLINE 24
#define BLOCK 20000

/* (number, `size` bytes that say which number) */
static void send_sized(xi_channel *ch, int64_t number, size_t size, const xi_send_opts *opts) {
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
static void send_number(xi_channel *ch, int64_t number, size_t size) {
    send_sized(ch, number, size, &(xi_send_opts){.timeout = LONG});
}

/* The number of such a value, all of whose bytes are as they were sent. */
static int64_t number_in(const void *data, size_t size) {
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
static int64_t number_of(const xi_msg *m) { return number_in(m->data, m->size); }

static void expect_value(xi_channel *ch, xi_msg *m, int64_t number, uint32_t deliveries, int64_t timeout) {
    ok(xi_recv(ch, m, timeout));
    ck_assert_int_eq(number_of(m), number);
    ck_assert_uint_eq(xi_msg_deliveries(m), deliveries);
}

/* -------------------------------------------------------------- channels */

static const xi_group_opts acks = {.flags = XI_GROUP_ACK};

/* Groups with names are on a broadcast, where nobody else keeps the values. To be opened before the sender. */
static xi_channel *open_group(xi_interp *who, const char *group, const xi_group_opts *opts) {
    xi_channel *ch = NULL;
    uint32_t mode = group ? XI_BROADCAST : XI_QUEUE;
    ok(xi_open(who, "work", &(xi_open_opts){.mode = mode, .flags = XI_OPEN_RECV, .group = group, .group_opts = opts}, &ch));
    return ch;
}
static xi_channel *open_sender(xi_interp *who) {
    xi_channel *ch = NULL;
    ok(xi_open(who, "work", &(xi_open_opts){.flags = XI_OPEN_SEND}, &ch));
    return ch;
}
static xi_channel *open_letters(const char *name) {
    xi_channel *ch = NULL;
    ok(xi_open(me, name, &(xi_open_opts){.flags = XI_OPEN_RECV}, &ch));
    return ch;
}

static uint64_t in_flight(const xi_channel *ch) {
    return xi_load_relaxed(&ch->group->next_seq) - xi_load_relaxed(&ch->group->head_seq);
}
static uint64_t lingering(const xi_channel *ch) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < ch->ack->window; i++)
        n += xi_load_relaxed(&XI_ACKS_LINGERS(ch->ack->acks, ch->ack->window)[i].holder) != 0;
    return n;
}

static uint64_t blocks_out(xi_interp *who) {
    xi_stats stats;
    xi_loan loan;
    for (int i = 0; i < 100; i++) {
        ok(xi_loan_get(who, 8, &loan)); /* makes the arena look at some of those that are out */
        xi_loan_drop(&loan);
    }
    xi_interp_stats(who, &stats);
    return stats.blocks;
}

static void pass_time(int64_t ns) {
    int64_t end = xi_now() + ns;
    while (xi_now() <= end) nanosleep(&(struct timespec){0, (long)(MS / 2)}, NULL);
}

/* ------------------------------------------------------------- the basics */

static const size_t sizes[] = {INLINE, BLOCK};

START_TEST(what_is_acknowledged_is_done) {
    xi_channel *in = open_group(you, NULL, &acks), *out = open_sender(me);
    xi_msg m[3] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    for (int64_t i = 1; i <= 3; i++) send_number(out, i, sizes[_i]);
    for (int64_t i = 0; i < 3; i++) expect_value(in, &m[i], i + 1, 1, XI_TRY);
    fails(XI_E_AGAIN, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    ck_assert_uint_eq(in_flight(in), 3);
    ok(xi_ack(&m[1])); /* not in order */
    ck_assert_ptr_null(m[1].data);
    fails(XI_E_INVAL, xi_ack(&m[1]));
    ck_assert_uint_eq(in_flight(in), 3);
    ok(xi_ack(&m[0]));
    ck_assert_uint_eq(in_flight(in), 1);
    ok(xi_ack(&m[2]));
    ck_assert_uint_eq(in_flight(in), 0);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->acked), 3);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->head), xi_load_relaxed(&in->chan->tail));
    ck_assert_uint_eq(blocks_out(me), 0);
    for (int i = 0; i < 3; i++) xi_msg_release(&m[i]);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(what_is_given_back_comes_again_first) {
    xi_channel *in = open_group(you, NULL, &acks), *out = open_sender(me);
    xi_msg a = XI_MSG_INIT, b = XI_MSG_INIT;
    for (int64_t i = 1; i <= 4; i++) send_number(out, i, sizes[_i]);
    expect_value(in, &a, 1, 1, XI_TRY);
    expect_value(in, &b, 2, 1, XI_TRY);
    ok(xi_nack(&b, 0));
    ok(xi_nack(&a, 0));
    expect_value(in, &a, 1, 2, XI_TRY); /* the lowest number first */
    expect_value(in, &b, 2, 2, XI_TRY);
    xi_msg_release(&a); /* released without a word: given back */
    expect_value(in, &a, 1, 3, XI_TRY);
    ok(xi_ack(&a));
    ok(xi_ack(&b));
    expect_value(in, &a, 3, 1, XI_TRY);
    expect_value(in, &a, 3, 2, XI_TRY); /* receiving into it gives back what it held */
    expect_value(in, &b, 4, 1, XI_TRY);
    ok(xi_ack(&a));
    ok(xi_ack(&b));
    ck_assert_uint_eq(xi_load_relaxed(&in->group->redelivered), 4);
    ck_assert_uint_eq(blocks_out(me), 0);
    xi_msg_release(&a);
    xi_msg_release(&b);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(the_window_bounds_what_is_out) {
    xi_group_opts two = {.flags = XI_GROUP_ACK, .window = 2};
    xi_channel *in = open_group(you, NULL, &two), *out = open_sender(me);
    xi_msg a = XI_MSG_INIT, b = XI_MSG_INIT, c = XI_MSG_INIT;
    for (int64_t i = 1; i <= 4; i++) send_number(out, i, sizes[_i]);
    expect_value(in, &a, 1, 1, XI_TRY);
    expect_value(in, &b, 2, 1, XI_TRY);
    fails(XI_E_AGAIN, xi_recv(in, &c, XI_TRY));
    ok(xi_ack(&b));
    fails(XI_E_AGAIN, xi_recv(in, &c, XI_TRY)); /* from the oldest unacknowledged on */
    ok(xi_ack(&a));
    expect_value(in, &c, 3, 1, XI_TRY);
    expect_value(in, &b, 4, 1, XI_TRY);
    ok(xi_ack(&c));
    ok(xi_ack(&b));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(unacknowledged_values_keep_their_room) {
    xi_channel *in = NULL, *out = NULL;
    xi_msg m = XI_MSG_INIT;
    ok(xi_open(you, "small", &(xi_open_opts){.flags = XI_OPEN_RECV, .capacity = XI_CAPACITY_MIN, .group_opts = &acks}, &in));
    ok(xi_open(me, "small", &(xi_open_opts){.flags = XI_OPEN_SEND}, &out));
    int64_t n = 0;
    while (xi_send_int(out, n, XI_TRY) == 0) n++;
    ok(xi_recv(in, &m, XI_TRY));
    fails(XI_E_AGAIN, xi_send_int(out, n, XI_TRY));
    ok(xi_ack(&m));
    ok(xi_send_int(out, n, XI_TRY));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(batches) {
    xi_group_opts opts = {.flags = XI_GROUP_ACK, .window = 8};
    xi_channel *in = open_group(you, NULL, &opts), *out = open_sender(me);
    xi_msg m[16];
    for (int i = 0; i < 16; i++) m[i] = (xi_msg)XI_MSG_INIT;
    for (int64_t i = 0; i < 12; i++) send_number(out, i, i % 3 == 1 ? BLOCK : INLINE);
    ck_assert_int_eq(xi_recv_many(in, m, 16, XI_TRY), 8);
    for (int64_t i = 0; i < 8; i++) ck_assert_int_eq(number_of(&m[i]), i);
    for (int i = 0; i < 8; i += 2) ok(xi_nack(&m[i], 0));
    for (int i = 1; i < 8; i += 2) ok(xi_ack(&m[i]));
    ck_assert_int_eq(xi_recv_many(in, m, 3, XI_TRY), 3);
    for (int64_t i = 0; i < 3; i++) {
        ck_assert_int_eq(number_of(&m[i]), 2 * i);
        ck_assert_uint_eq(xi_msg_deliveries(&m[i]), 2);
        ok(xi_ack(&m[i]));
    }
    ck_assert_int_eq(xi_recv_many(in, m, 16, XI_TRY), 5); /* 6, and the window from there on */
    ck_assert_int_eq(number_of(&m[0]), 6);
    ck_assert_uint_eq(xi_msg_deliveries(&m[0]), 2);
    for (int64_t i = 1; i < 5; i++) ck_assert_int_eq(number_of(&m[i]), 7 + i);
    for (int i = 4; i >= 0; i--) ok(xi_ack(&m[i]));
    ck_assert_uint_eq(in_flight(in), 0);
    ck_assert_uint_eq(blocks_out(me), 0);
    for (int i = 0; i < 16; i++) xi_msg_release(&m[i]);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(deliveries_are_counted_beyond_16_bits) {
    xi_channel *in = open_group(you, NULL, &acks), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    send_number(out, 1, INLINE);
    for (uint32_t i = 1; i <= 66000; i++) {
        ok(xi_recv(in, &m, XI_TRY));
        ck_assert_uint_eq(xi_msg_deliveries(&m), i);
        ok(xi_nack(&m, 0));
    }
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* ---------------------------------------------------------------- joining */

START_TEST(groups_agree_on_acknowledging) {
    xi_channel *a = open_group(me, "g", &(xi_group_opts){.flags = XI_GROUP_ACK, .window = 5, .timeout_ns = 7}), *b, *c = NULL;
    ck_assert_uint_eq(a->ack->window, 8);
    ck_assert_uint_eq(a->ack->timeout_ns, 7);
    b = open_group(you, "g", &acks); /* takes it as it is */
    ck_assert_uint_eq(b->ack->window, 8);
    ck_assert_uint_ne(a->ack->handle, 0);
    xi_open_opts plain = {.flags = XI_OPEN_RECV, .group = "g"}, other = {.flags = XI_OPEN_RECV, .group = "plain"};
    fails(XI_E_MISMATCH, xi_open(you, "work", &plain, &c));
    ok(xi_open(you, "work", &other, &c));
    ok(xi_channel_free(c));
    other.group_opts = &acks;
    fails(XI_E_MISMATCH, xi_open(you, "work", &other, &c));
    ok(xi_channel_free(b));
    ok(xi_channel_free(a));
}
END_TEST

START_TEST(a_queues_own_group_is_what_its_first_consumer_says) {
    xi_channel *out = open_sender(me), *in, *c = NULL;
    xi_msg m = XI_MSG_INIT;
    send_number(out, 1, INLINE); /* before anybody receives */
    send_number(out, 2, BLOCK);
    in = open_group(you, NULL, &acks);
    fails(XI_E_MISMATCH, xi_open(me, "work", NULL, &c));
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_ack(&m));
    expect_value(in, &m, 2, 1, XI_TRY);
    ok(xi_ack(&m));
    ok(xi_channel_free(in));
    in = open_group(you, NULL, &acks); /* and stays so */
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(options_that_cannot_be) {
    char long_name[100];
    memset(long_name, 'x', sizeof long_name);
    long_name[99] = 0;
    const xi_group_opts bad[] = {{.flags = 64},
                                 {.window = 3},
                                 {.timeout_ns = 3},
                                 {.dead = "d"},
                                 {.max_deliveries = 3},
                                 {.flags = XI_GROUP_ACK, .timeout_ns = -1},
                                 {.flags = XI_GROUP_ACK, .dead = ""},
                                 {.flags = XI_GROUP_ACK, .dead = "work"},
                                 {.flags = XI_GROUP_ACK, .dead = long_name}};
    xi_channel *ch = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        fails(XI_E_INVAL, xi_open(me, "work", &(xi_open_opts){.group = "g", .group_opts = &bad[i]}, &ch));
    xi_group_opts large = {.flags = XI_GROUP_ACK, .window = XI_WINDOW_MAX + 1};
    fails(XI_E_TOOBIG, xi_open(me, "work", &(xi_open_opts){.group = "g", .group_opts = &large}, &ch));
    ch = open_group(me, "plain", NULL);
    xi_channel *out = open_sender(me);
    ok(xi_send_int(out, 1, XI_TRY));
    xi_msg m = XI_MSG_INIT;
    fails(XI_E_INVAL, xi_ack(&m));
    ok(xi_recv(ch, &m, XI_TRY));
    ck_assert_uint_eq(xi_msg_deliveries(&m), 0);
    fails(XI_E_INVAL, xi_ack(&m));
    fails(XI_E_INVAL, xi_nack(&m, 0));
    fails(XI_E_INVAL, xi_extend(&m, 0));
    xi_msg_release(&m);
    ok(xi_channel_free(out));
    ok(xi_channel_free(ch));
}
END_TEST

struct joiner {
    pthread_t thread;
    xi_channel *ch;
    const char *group;
};
static void *join_at_once(void *argument) {
    struct joiner *j = argument;
    for (int i = 0; i < 30; i++) {
        j->ch = open_group(me, j->group, &acks);
        if (i < 29) ok(xi_channel_free(j->ch));
    }
    return NULL;
}

START_TEST(many_join_at_once) {
    struct joiner j[4] = {{.group = "a"}, {.group = "a"}, {.group = "b"}, {.group = "c"}};
    xi_channel *keep = open_group(me, "k", NULL);
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_create(&j[i].thread, NULL, join_at_once, &j[i]), 0);
    for (int i = 0; i < 4; i++) pthread_join(j[i].thread, NULL);
    ck_assert_ptr_eq(j[0].ch->group, j[1].ch->group);
    ck_assert_uint_eq(j[0].ch->ack->entry->number, j[1].ch->ack->entry->number);
    ck_assert_ptr_ne(j[2].ch->group, j[3].ch->group);
    for (int i = 0; i < 4; i++) ok(xi_channel_free(j[i].ch));
    ok(xi_channel_free(keep));
}
END_TEST

/* ------------------------------------------------------------------- time */

START_TEST(what_is_overdue_goes_to_another) {
    xi_group_opts opts = {.flags = XI_GROUP_ACK, .timeout_ns = 200 * MS};
    xi_channel *a = open_group(me, "g", &opts), *b = open_group(you, "g", &opts), *out = open_sender(me);
    xi_msg first = XI_MSG_INIT, second = XI_MSG_INIT;
    send_number(out, 1, sizes[_i]);
    expect_value(a, &first, 1, 1, XI_TRY);
    fails(XI_E_AGAIN, xi_recv(b, &second, XI_TRY));
    pass_time(201 * MS);
    expect_value(b, &second, 1, 2, XI_TRY);
    fails(XI_E_STALE, xi_ack(&first));
    fails(XI_E_STALE, xi_nack(&first, 0));
    fails(XI_E_STALE, xi_extend(&first, 0));
    ok(xi_ack(&second));
    ck_assert_int_eq(number_of(&first), 1); /* it may be read on */
    if (sizes[_i] == BLOCK) {
        ck_assert_uint_eq(blocks_out(me), 1);
        ck_assert_uint_eq(lingering(a), 1);
    }
    xi_msg_release(&first);
    ck_assert_uint_eq(lingering(a), 0);
    ck_assert_uint_eq(blocks_out(me), 0);
    ck_assert_uint_eq(in_flight(a), 0);
    ok(xi_channel_free(a));
    ok(xi_channel_free(b));
    ok(xi_channel_free(out));
}
END_TEST

/* Three read one block; it comes back when the last has let go, in whatever order, and not before it is acknowledged. */
START_TEST(a_block_waits_for_all_who_read_it) {
    xi_group_opts opts = {.flags = XI_GROUP_ACK, .timeout_ns = 1};
    xi_channel *in = open_group(you, "g", &opts), *out = open_sender(me);
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    xi_msg m[3] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    send_number(out, 9, BLOCK);
    for (int i = 0; i < 3; i++) {
        pass_time(1000);
        expect_value(in, &m[i], 9, (uint32_t)i + 1, XI_TRY);
    }
    for (int i = 0; i < 3; i++) {
        int k = orders[_i][i];
        ck_assert_uint_eq(blocks_out(me), 1);
        ck_assert_int_eq(number_of(&m[k]), 9);
        if (k == 2) ok(xi_ack(&m[k]));
        else xi_msg_release(&m[k]);
    }
    ck_assert_uint_eq(blocks_out(me), 0);
    ck_assert_uint_eq(lingering(in), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* Also for one whose delivery was overdue when the value expired, vanished, or became a dead letter. */
START_TEST(a_block_waits_for_a_reader_whose_value_is_no_more) {
    xi_group_opts opts = {.flags = XI_GROUP_ACK, .timeout_ns = MS, .max_deliveries = _i ? 1 : 0, .dead = _i == 2 ? "dead" : NULL};
    xi_channel *dead = open_letters("dead"), *in = open_group(you, "g", &opts), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT, none = XI_MSG_INIT;
    send_sized(out, 9, BLOCK, &(xi_send_opts){.timeout = LONG, .ttl_ns = _i ? 0 : 200 * MS});
    expect_value(in, &m, 9, 1, XI_TRY);
    pass_time(_i ? 2 * MS : 201 * MS);
    fails(XI_E_AGAIN, xi_recv(in, &none, XI_TRY));
    ck_assert_uint_eq(in_flight(in), 0);
    ck_assert_uint_eq(lingering(in), 1);
    ck_assert_uint_eq(blocks_out(me), 1);
    ck_assert_int_eq(number_of(&m), 9);
    fails(XI_E_STALE, xi_ack(&m));
    xi_msg_release(&m);
    ck_assert_uint_eq(lingering(in), 0);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(dead));
}
END_TEST

START_TEST(messages_kept_beyond_their_delivery) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg a = XI_MSG_INIT, b = XI_MSG_INIT;
    send_number(out, 1, sizes[_i]);
    expect_value(in, &a, 1, 1, XI_TRY);
    ok(xi_nack_keep(&a, 0));
    ck_assert_int_eq(number_of(&a), 1);
    expect_value(in, &b, 1, 2, XI_TRY);
    ok(xi_ack_keep(&b));
    ck_assert_uint_eq(in_flight(in), 0);
    ck_assert_uint_eq(blocks_out(me), sizes[_i] == BLOCK);
    xi_msg_release(&a);
    ck_assert_uint_eq(blocks_out(me), sizes[_i] == BLOCK);
    ck_assert_int_eq(number_of(&b), 1);
    ck_assert_int_lt(xi_ack(&b), 0);
    xi_msg_release(&b);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(the_timeout_can_be_extended) {
    xi_group_opts opts = {.flags = XI_GROUP_ACK, .timeout_ns = 200 * MS};
    xi_channel *in = open_group(you, "g", &opts), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT, n = XI_MSG_INIT;
    send_number(out, 1, INLINE);
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_extend(&m, 60000 * MS));
    pass_time(202 * MS);
    fails(XI_E_AGAIN, xi_recv(in, &n, XI_TRY));
    fails(XI_E_INVAL, xi_extend(&m, -1));
    ok(xi_extend(&m, 1));
    pass_time(1000);
    expect_value(in, &n, 1, 2, XI_TRY);
    ok(xi_extend(&n, 0)); /* the group's own */
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    pass_time(202 * MS);
    expect_value(in, &m, 1, 3, XI_TRY);
    ok(xi_ack(&m));
    xi_msg_release(&n);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_delay_is_kept) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    send_number(out, 1, INLINE);
    send_number(out, 2, INLINE);
    expect_value(in, &m, 1, 1, XI_TRY);
    fails(XI_E_INVAL, xi_nack(&m, -1));
    int64_t begun = xi_now();
    ok(xi_nack(&m, 200 * MS));
    expect_value(in, &m, 2, 1, XI_TRY);
    ok(xi_ack(&m));
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    expect_value(in, &m, 1, 2, LONG); /* sleeps until then */
    ck_assert_int_ge(xi_now() - begun, 200 * MS);
    ck_assert_int_lt(xi_now() - begun, 900 * MS);
    ok(xi_ack(&m));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* ------------------------------------------------------------- waiting for it */

struct waiter {
    pthread_t thread;
    xi_channel *ch;
    xi_msg m;
    int rc;
    int64_t took;
};
static void *wait_for_one(void *argument) {
    struct waiter *w = argument;
    int64_t begun = xi_now();
    w->rc = xi_recv(w->ch, &w->m, LONG);
    w->took = xi_now() - begun;
    return NULL;
}
static void start_waiter(struct waiter *w, xi_channel *ch) {
    *w = (struct waiter){.ch = ch, .m = XI_MSG_INIT};
    ck_assert_int_eq(pthread_create(&w->thread, NULL, wait_for_one, w), 0);
    int64_t until = xi_now() + LONG;
    while (atomic_load(&ch->waiting) == 0 && xi_now() < until) nanosleep(&(struct timespec){0, 100000}, NULL);
    ck_assert_uint_ne(atomic_load(&ch->waiting), 0);
}
static void end_waiter(struct waiter *w, int64_t number, uint32_t deliveries) {
    pthread_join(w->thread, NULL);
    ok(w->rc);
    ck_assert_int_eq(number_of(&w->m), number);
    ck_assert_uint_eq(xi_msg_deliveries(&w->m), deliveries);
    ck_assert_int_lt(w->took, 800 * MS); /* not by the look that sleepers take once a second */
    ok(xi_ack(&w->m));
}

START_TEST(sleepers_are_woken_for_what_comes_back) {
    xi_group_opts opts = {.flags = XI_GROUP_ACK, .window = 1};
    xi_channel *a = open_group(me, "g", &opts), *b = open_group(you, "g", &opts), *out = open_sender(me);
    struct waiter w;
    xi_msg m = XI_MSG_INIT;
    send_number(out, 1, INLINE);
    expect_value(a, &m, 1, 1, XI_TRY);
    start_waiter(&w, b);
    ok(xi_nack(&m, 0));
    end_waiter(&w, 1, 2);
    send_number(out, 2, INLINE);
    send_number(out, 3, INLINE);
    expect_value(a, &m, 2, 1, XI_TRY);
    start_waiter(&w, b); /* for room in the window */
    ok(xi_ack(&m));
    end_waiter(&w, 3, 1);
    send_number(out, 4, INLINE);
    expect_value(a, &m, 4, 1, XI_TRY);
    start_waiter(&w, b);
    xi_msg_release(&m);
    end_waiter(&w, 4, 2);
    send_number(out, 5, INLINE);
    expect_value(a, &m, 5, 1, XI_TRY);
    start_waiter(&w, b);
    ok(xi_nack(&m, 30 * MS));
    end_waiter(&w, 5, 2);
    send_number(out, 6, BLOCK);
    expect_value(a, &m, 6, 1, XI_TRY);
    start_waiter(&w, b);
    ok(xi_channel_free(a)); /* gives it back, and the message goes on */
    end_waiter(&w, 6, 2);
    ck_assert_int_eq(number_of(&m), 6);
    fails(XI_E_LEFT, xi_ack(&m));
    ck_assert_uint_eq(blocks_out(me), 1);
    xi_msg_release(&m);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(b));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(sleepers_wake_when_something_is_overdue) {
    xi_group_opts opts = {.flags = XI_GROUP_ACK, .timeout_ns = 100 * MS};
    xi_channel *a = open_group(me, "g", &opts), *b = open_group(you, "g", &opts), *out = open_sender(me);
    struct waiter w;
    xi_msg m = XI_MSG_INIT;
    start_waiter(&w, b); /* asleep before anything is out */
    send_number(out, 1, INLINE);
    end_waiter(&w, 1, 1);
    send_number(out, 2, INLINE);
    expect_value(a, &m, 2, 1, XI_TRY);
    start_waiter(&w, b);
    end_waiter(&w, 2, 2);
    ck_assert_int_ge(w.took, 50 * MS);
    fails(XI_E_STALE, xi_ack(&m));
    xi_msg_release(&m);
    ok(xi_channel_free(a));
    ok(xi_channel_free(b));
    ok(xi_channel_free(out));
}
END_TEST

struct drainer {
    pthread_t thread;
    xi_channel *ch;
    int got, rc;
};
static void *drain_all(void *argument) {
    struct drainer *d = argument;
    xi_msg m = XI_MSG_INIT;
    while ((d->rc = xi_recv(d->ch, &m, LONG)) == 0) {
        ok(xi_ack(&m));
        d->got++;
    }
    xi_msg_release(&m);
    return NULL;
}

START_TEST(closed_is_when_all_is_acknowledged) {
    xi_channel *a = open_group(me, "g", &acks), *b = open_group(you, "g", &acks), *out = open_sender(me);
    struct drainer d[2] = {{.ch = b}, {.ch = b}};
    xi_msg m = XI_MSG_INIT, n = XI_MSG_INIT, none = XI_MSG_INIT;
    send_number(out, 1, INLINE);
    send_number(out, 2, INLINE);
    expect_value(a, &m, 1, 1, XI_TRY);
    expect_value(a, &n, 2, 1, XI_TRY);
    ok(xi_close(out));
    fails(XI_E_AGAIN, xi_recv(b, &none, XI_TRY)); /* they may come back */
    for (int i = 0; i < 2; i++) ck_assert_int_eq(pthread_create(&d[i].thread, NULL, drain_all, &d[i]), 0);
    int64_t until = xi_now() + LONG;
    while (atomic_load(&b->waiting) != 2 && xi_now() < until) nanosleep(&(struct timespec){0, 100000}, NULL);
    ok(xi_ack(&n));
    pass_time(MS);
    ck_assert_uint_eq(atomic_load(&b->waiting), 2);
    int64_t begun = xi_now();
    ok(xi_nack(&m, 0)); /* to one of them; then both find the end */
    for (int i = 0; i < 2; i++) {
        pthread_join(d[i].thread, NULL);
        ck_assert_int_eq(d[i].rc, XI_E_CLOSED);
    }
    ck_assert_int_lt(xi_now() - begun, 800 * MS);
    ck_assert_int_eq(d[0].got + d[1].got, 1);
    fails(XI_E_CLOSED, xi_recv(a, &m, XI_TRY));
    ok(xi_channel_free(a));
    ok(xi_channel_free(b));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(without_producers_the_end_waits_as_well) {
    xi_channel *in = NULL, *out = open_sender(me); /* a queue */
    xi_msg m = XI_MSG_INIT, none = XI_MSG_INIT;
    ok(xi_open(you, "work", &(xi_open_opts){.flags = XI_OPEN_RECV | XI_OPEN_NEED_PEER, .group_opts = &acks}, &in));
    send_number(out, 1, INLINE);
    ok(xi_channel_free(out));
    expect_value(in, &m, 1, 1, XI_TRY);
    fails(XI_E_AGAIN, xi_recv(in, &none, XI_TRY));
    ok(xi_nack(&m, 0));
    expect_value(in, &m, 1, 2, XI_TRY);
    ok(xi_ack(&m));
    fails(XI_E_NO_PRODUCER, xi_recv(in, &m, XI_TRY));
    ok(xi_channel_free(in));
}
END_TEST

/* ------------------------------------------------------------ dead letters */

/* The dict that a dead letter is. */
static void expect_letter(xi_channel *letters, const char *reason, const char *group, int64_t deliveries, xi_value *value,
                          xi_msg *m) {
    static const char *const keys[] = {"reason", "channel", "group", "deliveries", "value"};
    xi_cursor c, children;
    xi_value v;
    char text[100];
    int64_t n;
    ok(xi_recv(letters, m, LONG));
    ok(xi_validate(m->data, m->size));
    xi_cursor_init(&c, m->data, m->size);
    ck_assert_int_eq(xi_next(&c, &v), 1);
    ck_assert_uint_eq(v.tag, XI_DICT);
    ck_assert_uint_eq(v.count, 5);
    ok(xi_enter(&v, &children));
    const char *texts[] = {reason, "work", group};
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(xi_next(&children, &v), 1);
        ok(xi_to_utf8(&v, text, sizeof text, false));
        ck_assert_str_eq(text, keys[i]);
        ck_assert_int_eq(xi_next(&children, value), 1);
        if (i < 3) {
            ok(xi_to_utf8(value, text, sizeof text, false));
            ck_assert_str_eq(text, texts[i]);
        } else if (i == 3) {
            ok(xi_get_int(value, &n));
            ck_assert_int_eq(n, deliveries);
        }
    }
}
/* The value of a letter is a tuple (see send_sized), whose items begin behind its head of two words. */
static int64_t letter_number(const xi_value *v) {
    ck_assert_uint_eq(v->tag, XI_TUPLE);
    return number_in((const uint8_t *)v->data - 16, v->size);
}

static xi_channel *open_spent(xi_interp *who, uint32_t most, const char *dead) {
    return open_group(who, "g", &(xi_group_opts){.flags = XI_GROUP_ACK, .max_deliveries = most, .dead = dead});
}

START_TEST(delivered_too_often_it_is_a_dead_letter) {
    xi_channel *in = open_spent(you, 2, "dead"), *out = open_sender(me), *letters = open_letters("dead");
    xi_msg m = XI_MSG_INIT, l = XI_MSG_INIT;
    xi_value v;
    send_number(out, 1, sizes[_i]);
    send_number(out, 2, sizes[_i]);
    for (uint32_t i = 1; i <= 2; i++) {
        expect_value(in, &m, 1, i, XI_TRY);
        ok(xi_nack(&m, 0));
    }
    fails(XI_E_AGAIN, xi_recv(letters, &l, XI_TRY)); /* whoever would deliver it next moves it */
    expect_value(in, &m, 2, 1, XI_TRY);
    expect_letter(letters, "nacked", "g", 2, &v, &l);
    ck_assert_int_eq(letter_number(&v), 1);
    fails(XI_E_AGAIN, xi_recv(letters, &(xi_msg)XI_MSG_INIT, XI_TRY));
    ck_assert_uint_eq(xi_load_relaxed(&in->group->dead), 1);
    ck_assert_uint_eq(in_flight(in), 1);
    ck_assert_uint_eq(blocks_out(me), sizes[_i] == BLOCK); /* the first one's block is back */
    ok(xi_ack(&m));
    ok(xi_channel_free(in));
    ck_assert_int_eq(letter_number(&v), 1);
    xi_msg_release(&l);
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

START_TEST(without_dead_letters_it_vanishes) {
    xi_channel *in = open_spent(you, 1, NULL), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    for (int64_t i = 1; i <= 3; i++) send_number(out, i, sizes[_i]);
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_nack(&m, 0));
    expect_value(in, &m, 2, 1, XI_TRY);
    xi_msg_release(&m);
    expect_value(in, &m, 3, 1, XI_TRY);
    ok(xi_ack(&m));
    ck_assert_uint_eq(xi_load_relaxed(&in->group->dead), 2);
    ck_assert_uint_eq(in_flight(in), 0);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(dead_letters_wait_for_room) {
    xi_channel *letters = NULL, *in = open_spent(you, 1, "dead"), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT, l = XI_MSG_INIT;
    xi_value v;
    int64_t n = 0;
    ok(xi_open(me, "dead", &(xi_open_opts){.capacity = XI_CAPACITY_MIN}, &letters));
    while (xi_send_int(letters, n, XI_TRY) == 0) n++;
    send_number(out, 1, INLINE);
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_nack(&m, 0));
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    ck_assert_uint_eq(in_flight(in), 1);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->dead), 0);
    for (int64_t i = 0; i < n; i++) ok(xi_recv(letters, &l, XI_TRY));
    fails(XI_E_TIMEOUT, xi_recv(in, &m, 300 * MS)); /* it looks again meanwhile */
    expect_letter(letters, "nacked", "g", 1, &v, &l);
    ck_assert_int_eq(letter_number(&v), 1);
    ck_assert_uint_eq(in_flight(in), 0);
    xi_msg_release(&l);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

/* A list of two buffers, in blocks of their own, of `who`. */
static void send_buffers(xi_interp *who, xi_channel *out) {
    xi_loan root, child[2];
    xi_builder b;
    ok(xi_loan_get(who, 4096, &root));
    xi_builder_init(&b, root.data, root.size, 0);
    ok(xi_begin(&b, XI_LIST, 2));
    for (int i = 0; i < 2; i++) {
        ok(xi_loan_get(who, 3000, &child[i]));
        memset(child[i].data, 'a' + i, 3000);
        ok(xi_put_buffer(&b, &(xi_buffer_ref){child[i].handle, 100, 2000}, i ? XI_F_MUTABLE : 0));
    }
    ok(xi_end(&b));
    int64_t size = xi_builder_finish(&b);
    ok(size);
    for (int i = 0; i < 2; i++) ok(xi_loan_attach(&root, &child[i]));
    ok(xi_send_loan(out, &root, (size_t)size, &(xi_send_opts){.timeout = XI_TRY}));
}

START_TEST(dead_letters_do_not_depend_on_who_sent_them) {
    xi_interp *third;
    ok(xi_join(&(xi_join_opts){.name = "third"}, &third));
    xi_channel *in = open_spent(you, 1, "dead"), *out = open_sender(third), *letters = open_letters("dead");
    xi_msg m = XI_MSG_INIT, l = XI_MSG_INIT;
    xi_value v, item;
    xi_cursor children;
    const void *data;
    send_buffers(third, out);
    ok(xi_recv(in, &m, XI_TRY));
    ok(xi_nack(&m, 0));
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    ck_assert_uint_eq(blocks_out(third), 0);
    ok(xi_channel_free(out));
    ok(xi_leave(third));
    expect_letter(letters, "nacked", "g", 1, &v, &l);
    ck_assert_uint_eq(v.tag, XI_LIST);
    ok(xi_enter(&v, &children));
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(xi_next(&children, &item), 1);
        ck_assert_uint_eq(item.tag, XI_BUFFER);
        ck_assert_uint_eq(item.flags, i ? XI_F_MUTABLE : 0);
        ck_assert_uint_eq(item.u.buffer.length, 2000);
        ok(xi_msg_buffer(&l, &item.u.buffer, &data));
        for (int k = 0; k < 2000; k++) ck_assert_uint_eq(((const uint8_t *)data)[k], (unsigned)('a' + i));
    }
    xi_msg_release(&l);
    ck_assert_uint_eq(blocks_out(you), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(letters));
}
END_TEST

START_TEST(a_value_that_is_none_goes_as_bytes) {
    xi_channel *in = open_spent(you, 1, "dead"), *out = open_sender(me), *letters = open_letters("dead");
    xi_msg m = XI_MSG_INIT, l = XI_MSG_INIT;
    xi_value v;
    uint64_t *junk = malloc(BLOCK);
    memset(junk, 0xee, BLOCK);
    size_t size = _i ? BLOCK : 64;
    if (_i == 2) { /* begins as a list, ends as none */
        junk[0] = XI_LIST | (uint64_t)BLOCK << 32;
        junk[1] = 3;
    }
    ok(xi_send(out, junk, size, XI_TRY));
    ok(xi_recv(in, &m, XI_TRY));
    ok(xi_nack(&m, 0));
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    expect_letter(letters, "nacked", "g", 1, &v, &l);
    ck_assert_uint_eq(v.tag, XI_BYTES);
    ck_assert_uint_eq(v.length, size);
    ck_assert_int_eq(memcmp(v.data, junk, size), 0);
    xi_msg_release(&l);
    free(junk);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

START_TEST(expired_values_go_where_the_channel_says) {
    xi_channel *in = NULL, *plain = NULL, *out = NULL, *letters = open_letters("late");
    xi_open_opts opts = {.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .ttl_ns = 200 * MS, .dead = "late"};
    xi_msg m = XI_MSG_INIT, l = XI_MSG_INIT;
    xi_value v;
    ok(xi_open(me, "work", &opts, &out));
    in = open_group(you, "g", &acks);
    plain = open_group(you, "p", NULL);
    send_number(out, 1, sizes[_i]);
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_nack(&m, 0));
    send_number(out, 2, sizes[_i]);
    send_sized(out, 3, sizes[_i], &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = -1});
    pass_time(201 * MS);
    expect_value(in, &m, 3, 1, XI_TRY);
    ok(xi_ack(&m));
    expect_letter(letters, "expired", "g", 1, &v, &l);
    ck_assert_int_eq(letter_number(&v), 1);
    expect_letter(letters, "expired", "g", 0, &v, &l);
    ck_assert_int_eq(letter_number(&v), 2);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->expired), 2);
    ck_assert_uint_eq(in_flight(in), 0);
    ok(xi_recv(plain, &m, XI_TRY));
    ck_assert_int_eq(number_of(&m), 3);
    xi_msg_release(&m);
    for (int64_t i = 1; i <= 2; i++) {
        expect_letter(letters, "expired", "p", 0, &v, &l);
        ck_assert_int_eq(letter_number(&v), i);
    }
    xi_msg_release(&l);
    ck_assert_uint_eq(blocks_out(me), 0);
    ck_assert_uint_eq(blocks_out(you), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(plain));
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

/* ------------------------------------------------------------------- ends */

START_TEST(leaving_gives_back) {
    xi_channel *keep = open_group(me, "g", &acks), *out = open_sender(me), *in;
    xi_interp *third;
    xi_msg m[3] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT}, n = XI_MSG_INIT;
    struct waiter w;
    ok(xi_join(&(xi_join_opts){.name = "third"}, &third));
    in = open_group(third, "g", &acks);
    send_number(out, 1, INLINE);
    send_number(out, 2, BLOCK);
    send_number(out, 3, BLOCK);
    expect_value(in, &m[0], 1, 1, XI_TRY);
    expect_value(in, &m[1], 2, 1, XI_TRY);
    expect_value(in, &m[2], 3, 1, XI_TRY);
    ok(xi_nack_keep(&m[2], 0));
    expect_value(keep, &n, 3, 2, XI_TRY);
    ok(xi_ack(&n));
    start_waiter(&w, keep);
    ok(xi_leave(third));
    end_waiter(&w, 1, 2);
    expect_value(keep, &n, 2, 2, XI_TRY);
    ok(xi_ack(&n));
    ck_assert_uint_eq(lingering(keep), 0);
    ck_assert_uint_eq(blocks_out(me), 0);
    fails(XI_E_LEFT, xi_ack(&m[0]));
    for (int i = 0; i < 3; i++) xi_msg_release(&m[i]);
    ok(xi_channel_free(in));
    ok(xi_channel_free(keep));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_group_of_ones_own_ends_with_its_handle) {
    xi_channel *in = NULL, *out = NULL;
    xi_msg m = XI_MSG_INIT, k = XI_MSG_INIT;
    ok(xi_open(me, "news", &(xi_open_opts){.mode = XI_BROADCAST, .flags = XI_OPEN_SEND}, &out));
    ok(xi_open(you, "news", &(xi_open_opts){.flags = XI_OPEN_RECV, .group_opts = &acks}, &in));
    for (int64_t i = 1; i <= 4; i++) send_number(out, i, BLOCK);
    expect_value(in, &m, 1, 1, XI_TRY);
    expect_value(in, &k, 2, 1, XI_TRY);
    ok(xi_nack(&k, 0));
    ok(xi_channel_free(in));
    ck_assert_int_eq(number_of(&m), 1); /* the message outlives handle and group */
    ck_assert_uint_eq(blocks_out(me), 1);
    fails(XI_E_LEFT, xi_ack(&m));
    xi_msg_release(&m);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_group_is_removed_under_its_consumers) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me), *plain = open_group(you, "p", NULL);
    xi_msg m = XI_MSG_INIT, k = XI_MSG_INIT;
    for (int64_t i = 1; i <= 4; i++) send_number(out, i, BLOCK);
    for (int64_t i = 1; i <= 4; i++) ok(xi_recv(plain, &k, XI_TRY));
    xi_msg_release(&k);
    expect_value(in, &m, 1, 1, XI_TRY);
    expect_value(in, &k, 2, 1, XI_TRY);
    ok(xi_nack_keep(&k, 0));
    ok(xi_group_remove(out, "g"));
    fails(XI_E_LEFT, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    ck_assert_int_eq(number_of(&m), 1);
    ck_assert_int_eq(number_of(&k), 2);
    ck_assert_uint_eq(blocks_out(me), 2);
    xi_channel *again = open_group(me, "g", &acks); /* in the same place, with another table */
    send_number(out, 5, BLOCK);
    xi_msg n = XI_MSG_INIT;
    expect_value(again, &n, 5, 1, XI_TRY);
    fails(XI_E_LEFT, xi_ack(&m));
    xi_msg_release(&m);
    xi_msg_release(&k);
    ck_assert_uint_eq(blocks_out(me), 1);
    ck_assert_int_eq(number_of(&n), 5);
    ok(xi_ack(&n));
    ok(xi_recv(plain, &k, XI_TRY));
    xi_msg_release(&k);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(again));
    ok(xi_channel_free(plain));
    ok(xi_channel_free(out));
}
END_TEST

static _Atomic int freed;
static void on_free(void *context, uint64_t argument) {
    (void)context;
    atomic_fetch_add(&freed, (int)argument);
}

START_TEST(the_free_function_runs_when_acknowledged) {
    xi_channel *in = open_group(you, NULL, &acks), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    uint32_t index;
    freed = 0;
    ok(xi_free_register(me, "count", on_free, NULL, &index));
    send_sized(out, 1, INLINE, &(xi_send_opts){.timeout = XI_TRY, .free_index = index, .free_argument = 5});
    expect_value(in, &m, 1, 1, XI_TRY);
    xi_msg_release(&m);
    expect_value(in, &m, 1, 2, XI_TRY);
    ok(xi_free_run(me));
    ck_assert_int_eq(freed, 0);
    ok(xi_ack(&m));
    ok(xi_free_run(me));
    ck_assert_int_eq(freed, 5);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* ----------------------------------------------------------------- threads */

enum { THREADS = 4, VALUES = 4000 };
static struct {
    _Atomic uint32_t acked[VALUES];
    _Atomic uint32_t deliveries;
    xi_channel *in;
} shared;

static void *consume(void *argument) {
    uint64_t random = (uintptr_t)argument * 2654435761u + 1;
    xi_msg m[4] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    for (;;) {
        int64_t n = xi_recv_many(shared.in, m, 1 + random % 4, LONG);
        if (n == XI_E_CLOSED) break;
        ok(n);
        for (int64_t i = 0; i < n; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            int64_t number = number_of(&m[i]);
            atomic_fetch_add(&shared.deliveries, 1);
            switch (random >> 60) {
            case 0: ok(xi_nack(&m[i], 0)); break;
            case 1: ok(xi_nack(&m[i], 1000)); break;
            case 2: xi_msg_release(&m[i]); break;
            default:
                ok(xi_ack(&m[i]));
                atomic_fetch_add(&shared.acked[number], 1);
            }
        }
    }
    for (int i = 0; i < 4; i++) xi_msg_release(&m[i]);
    return NULL;
}

START_TEST(threads_share_a_handle) {
    xi_group_opts opts = {.flags = XI_GROUP_ACK, .window = 64};
    pthread_t thread[THREADS];
    memset(&shared, 0, sizeof shared);
    shared.in = open_group(you, "g", &opts);
    xi_channel *out = open_sender(me);
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&thread[i], NULL, consume, (void *)i);
    for (int64_t i = 0; i < VALUES; i++) send_number(out, i, i % 7 == 3 ? BLOCK : INLINE);
    ok(xi_close(out));
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < VALUES; i++) ck_assert_uint_eq(shared.acked[i], 1);
    ck_assert_uint_gt(shared.deliveries, VALUES);
    ck_assert_uint_eq(in_flight(shared.in), 0);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(shared.in));
    ok(xi_channel_free(out));
}
END_TEST

/* ----------------------------------------------------------------- garbage */

static uint64_t seed = 1;
static uint64_t random64(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1du;
}

/* Somebody writes into the table and the group; every call comes back, and the channel can be used again. */
START_TEST(garbage_is_an_error_at_most) {
    xi_group_opts opts = {.flags = XI_GROUP_ACK, .window = 16, .timeout_ns = MS, .max_deliveries = 3, .dead = "dead"};
    for (int turn = 0; turn < 300; turn++) {
        xi_channel *in = open_group(you, "g", &opts), *out = open_sender(me), *letters = open_letters("dead");
        xi_msg m[6];
        for (int i = 0; i < 6; i++) m[i] = (xi_msg)XI_MSG_INIT;
        for (int64_t i = 0; i < 12; i++) send_number(out, i, i % 3 ? INLINE : 5000);
        for (int i = 0; i < 4; i++) ok(xi_recv(in, &m[i], XI_TRY));
        ok(xi_nack(&m[1], 0));
        for (int hits = 1 + turn % 4; hits > 0; hits--) {
            struct xi_delivery *d = &in->ack->acks->entries[random64() % 16];
            xi_a64 *words[] = {&d->state, &d->position, &d->due, &d->count, &in->group->next, &in->group->next_seq,
                               &in->group->next_due, &XI_ACKS_LINGERS(in->ack->acks, 16)[random64() % 16].holder};
            xi_a64 *word = words[random64() % 8];
            uint64_t values[] = {0, UINT64_MAX, random64(), random64() % 64, *word + 8, *word - 1, *word ^ 1};
            xi_store_relaxed(word, values[random64() % 7]);
        }
        xi_store_relaxed(&in->group->next_due, 0);
        (void)xi_ack(&m[0]);
        (void)xi_nack(&m[2], 0);
        (void)xi_extend(&m[3], 0);
        int64_t until = xi_now() + 20 * MS;
        for (int i = 0; i < 60 && xi_now() < until; i++) {
            int rc = xi_recv(in, &m[4], XI_TRY);
            if (rc == 0 && i % 2) (void)xi_ack(&m[4]);
        }
        for (int i = 0; i < 6; i++) xi_msg_release(&m[i]);
        ok(xi_group_remove(out, "g"));
        while (xi_recv(letters, &m[5], XI_TRY) == 0) continue;
        xi_msg_release(&m[5]);
        ok(xi_channel_free(in));
        ok(xi_channel_free(letters));
        in = open_group(you, "g", &opts);
        send_number(out, 77, INLINE);
        expect_value(in, &m[0], 77, 1, XI_TRY);
        ok(xi_ack(&m[0]));
        ok(xi_group_remove(out, "g"));
        ok(xi_channel_free(in));
        ok(xi_remove(me, "work"));
        ok(xi_channel_free(out));
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("acknowledgements");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, what_is_acknowledged_is_done, 0, 2);
    tcase_add_loop_test(t, what_is_given_back_comes_again_first, 0, 2);
    tcase_add_loop_test(t, the_window_bounds_what_is_out, 0, 2);
    tcase_add_test(t, unacknowledged_values_keep_their_room);
    tcase_add_test(t, batches);
    tcase_add_test(t, deliveries_are_counted_beyond_16_bits);
    tcase_add_test(t, groups_agree_on_acknowledging);
    tcase_add_test(t, a_queues_own_group_is_what_its_first_consumer_says);
    tcase_add_test(t, options_that_cannot_be);
    tcase_add_test(t, many_join_at_once);
    tcase_add_loop_test(t, what_is_overdue_goes_to_another, 0, 2);
    tcase_add_loop_test(t, a_block_waits_for_all_who_read_it, 0, 6);
    tcase_add_loop_test(t, a_block_waits_for_a_reader_whose_value_is_no_more, 0, 3);
    tcase_add_loop_test(t, messages_kept_beyond_their_delivery, 0, 2);
    tcase_add_test(t, the_timeout_can_be_extended);
    tcase_add_test(t, a_delay_is_kept);
    tcase_add_test(t, sleepers_are_woken_for_what_comes_back);
    tcase_add_test(t, sleepers_wake_when_something_is_overdue);
    tcase_add_test(t, closed_is_when_all_is_acknowledged);
    tcase_add_test(t, without_producers_the_end_waits_as_well);
    tcase_add_loop_test(t, delivered_too_often_it_is_a_dead_letter, 0, 2);
    tcase_add_loop_test(t, without_dead_letters_it_vanishes, 0, 2);
    tcase_add_test(t, dead_letters_wait_for_room);
    tcase_add_test(t, dead_letters_do_not_depend_on_who_sent_them);
    tcase_add_loop_test(t, a_value_that_is_none_goes_as_bytes, 0, 3);
    tcase_add_loop_test(t, expired_values_go_where_the_channel_says, 0, 2);
    tcase_add_test(t, leaving_gives_back);
    tcase_add_test(t, a_group_of_ones_own_ends_with_its_handle);
    tcase_add_test(t, a_group_is_removed_under_its_consumers);
    tcase_add_test(t, the_free_function_runs_when_acknowledged);
    tcase_add_test(t, threads_share_a_handle);
    tcase_add_test(t, garbage_is_an_error_at_most);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
