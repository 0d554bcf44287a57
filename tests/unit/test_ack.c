/* SPDX-License-Identifier: MIT */
/*
 * Groups that acknowledge, as a program sees them: what comes back, to whom and
 * when; the window; late acknowledgements; blocks that two may be reading; who is
 * woken; threads.
 */
#include "ack_fixture.h"

/* ------------------------------------------------------------- the basics */


START_TEST(what_is_acknowledged_is_done) {
    xi_channel *in = open_group(you, NULL, &acks), *out = open_sender(me);
    xi_msg m[3] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    for (int64_t i = 1; i <= 3; i++) send_number(out, i, sizes[_i]);
    for (int64_t i = 0; i < 3; i++) expect_value(in, &m[i], i + 1, 1, XI_TRY);
    fails(XI_E_AGAIN, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    ck_assert_uint_eq(in_flight(in), 3);
    ok(xi_ack(&m[1])); /* not in order */
    ck_assert_ptr_null(m[1].data);
    ck_assert_uint_eq(m[1].size, 0);
    fails(XI_E_INVAL, xi_ack(&m[1]));
    ck_assert_uint_eq(in_flight(in), 3);
    ok(xi_ack(&m[0]));
    ck_assert_uint_eq(in_flight(in), 1);
    ok(xi_ack(&m[2]));
    ck_assert_uint_eq(in_flight(in), 0);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->acked), 3);
    ck_assert_uint_eq(xi_load_relaxed(&in->received), 3);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->head), xi_load_relaxed(&in->chan->tail));
    for (uint64_t i = 0; i < in->ack->window; i++) ck_assert_uint_eq(xi_load_relaxed(&in->ack->acks->entries[i].state), 0);
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
    ck_assert_ptr_null(b.data);
    fails(XI_E_INVAL, xi_nack(&b, 0));
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

/* What fills the window and is nobody's any more makes way at once: a try finds what comes behind it. */
START_TEST(what_is_over_makes_way) {
    xi_channel *in = open_group(you, "g", &(xi_group_opts){.flags = XI_GROUP_ACK, .window = 2}), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    for (int64_t i = 1; i <= 6; i++)
        ok(try_number(out, i, sizes[_i], &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = i == 6 ? 0 : 1}));
    expect_value(in, &m, 6, 1, XI_TRY);
    ok(xi_ack(&m));
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

/* A message that had a block has none when it receives what lies in the ring. */
START_TEST(a_message_forgets_what_it_had) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    send_number(out, 1, BLOCK);
    send_number(out, 2, INLINE);
    expect_value(in, &m, 1, 1, XI_TRY);
    struct xi_map_entry *e = m.map_;
    uint32_t users = atomic_load(&e->users);
    ok(xi_ack(&m));
    ck_assert(!m.channel_ && !m.holder_ && !m.map_);
    ck_assert_uint_eq(atomic_load(&in->holders), 1); /* the handle itself */
    expect_value(in, &m, 2, 1, XI_TRY);
    ok(xi_ack(&m));
    ck_assert_uint_eq(atomic_load(&e->users), users - 1);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* Deliveries say through which handle they went: no two of an interpreter's handles have one number, and none has 0. */
START_TEST(handles_have_numbers_of_their_own) {
    xi_channel *first = open_group(you, "g", &acks), *second;
    you->ack_handles = first->ack->handle - 1;
    second = open_group(you, "g", &acks);
    ck_assert_uint_ne(second->ack->handle, first->ack->handle);
    ok(xi_channel_free(second));
    you->ack_handles = 0xffff;
    second = open_group(you, "g", &acks);
    ck_assert_uint_ne(second->ack->handle, 0);
    ok(xi_channel_free(second));
    ok(xi_channel_free(first));
}
END_TEST

/* Whoever holds the group's lock is waited for. */
static void *acknowledge(void *m) { return xi_ack(m) == 0 ? m : NULL; }

START_TEST(acknowledging_takes_its_turn) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    pthread_t t;
    void *done = NULL;
    send_number(out, 1, INLINE);
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_lock(in, in->group, XI_TRY));
    ck_assert_int_eq(pthread_create(&t, NULL, acknowledge, &m), 0);
    while (atomic_load(&in->waiting) == 0) sched_yield(); /* for the lock */
    ck_assert_uint_eq(in_flight(in), 1);
    xi_unlock(in->group);
    pthread_join(t, &done);
    ck_assert_ptr_nonnull(done);
    ck_assert_uint_eq(in_flight(in), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* Some member wrote another segment's number over that of the table: a channel's, or that of another group's table. */
START_TEST(a_table_that_is_none) {
    xi_channel *in = open_group(you, "g", &acks), *other = open_group(you, "h", &acks), *again = NULL;
    uint32_t right = xi_load_relaxed(&in->group->acks_seg);
    xi_store_relaxed(&in->group->acks_seg, _i ? xi_load_relaxed(&other->group->acks_seg) : in->segment);
    xi_open_opts opts = {.mode = XI_BROADCAST, .flags = XI_OPEN_RECV, .group = "g", .group_opts = &acks};
    fails(XI_E_CORRUPT, xi_open(me, "work", &opts, &again));
    xi_store_relaxed(&in->group->acks_seg, right);
    ok(xi_open(me, "work", &opts, &again));
    ok(xi_channel_free(again));
    ok(xi_channel_free(other));
    ok(xi_channel_free(in));
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

/* The broker hears of a table that somebody uses, and of one that was asked for in vain: it may go, and is not kept mapped. */
START_TEST(a_table_that_nobody_needs) {
    xi_channel *in = open_group(you, "g", &acks);
    struct xi_ack *a;
    uint32_t segment;
    ck_assert_uint_eq(xi_load_full(&in->ack->acks->joined), 1);
    ok(xi_ack_make(in, XI_MAX_GROUPS - 2, &acks, &a, &segment));
    struct xi_map_entry *e = a->entry;
    struct xi_acks *table = a->acks;
    atomic_fetch_add(&e->users, 1);
    ck_assert_uint_eq(xi_load_full(&table->joined), 0);
    xi_ack_discard(a, true);
    ck_assert_uint_eq(xi_load_full(&table->joined), 1);
    ck_assert_uint_eq(atomic_load(&e->users), 1);
    xi_maps_put(e);
    ok(xi_channel_free(in));
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
    ok(try_number(out, 9, BLOCK, &(xi_send_opts){.timeout = LONG, .ttl_ns = _i ? 0 : 200 * MS}));
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

/* Of what is kept so there is no more than the window: the next is said to be too much, and remains a delivery. */
START_TEST(as_many_are_kept_as_the_window_has) {
    xi_channel *in = open_group(you, "g", &(xi_group_opts){.flags = XI_GROUP_ACK, .window = 1}), *out = open_sender(me);
    xi_msg a = XI_MSG_INIT, b = XI_MSG_INIT;
    send_number(out, 1, BLOCK);
    expect_value(in, &a, 1, 1, XI_TRY);
    ok(xi_nack_keep(&a, 0));
    expect_value(in, &b, 1, 2, XI_TRY);
    fails(XI_E_LIMIT, xi_ack_keep(&b));
    fails(XI_E_LIMIT, xi_nack_keep(&b, 0));
    ck_assert_int_eq(number_of(&b), 1);
    ok(xi_ack(&b));
    xi_msg_release(&a);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* While there is no word left for who reads an overdue value's block, it goes nowhere; what is behind it does. */
START_TEST(what_cannot_be_taken_from_its_reader) {
    xi_group_opts opts = {.flags = XI_GROUP_ACK, .window = 2, .timeout_ns = 3600 * 1000 * MS, .max_deliveries = _i ? 1 : 0,
                          .dead = _i == 2 ? "dead" : NULL};
    xi_channel *dead = open_letters("dead"), *in = open_group(you, "g", &opts), *out = open_sender(me);
    xi_msg kept[2] = {XI_MSG_INIT, XI_MSG_INIT}, m = XI_MSG_INIT, n = XI_MSG_INIT;
    for (int i = 0; i < 2; i++) {
        send_number(out, i + 1, BLOCK);
        expect_value(in, &kept[i], i + 1, 1, XI_TRY);
        ok(xi_ack_keep(&kept[i]));
    }
    ck_assert_uint_eq(lingering(in), 2);
    send_number(out, 3, BLOCK);
    send_number(out, 4, INLINE);
    expect_value(in, &m, 3, 1, XI_TRY);
    ok(xi_extend(&m, 1));
    pass_time(1000);
    expect_value(in, &n, 4, 1, XI_TRY);
    ck_assert_uint_le(xi_load_relaxed(&in->group->next_due), (uint64_t)(xi_now() + XI_ACK_RETRY_NS)); /* to look again */
    ok(xi_ack(&n));
    for (int i = 0; i < 2; i++) xi_msg_release(&kept[i]);
    pass_time(XI_ACK_RETRY_NS);
    if (_i == 0) expect_value(in, &n, 3, 2, XI_TRY);
    else fails(XI_E_AGAIN, xi_recv(in, &n, XI_TRY));
    fails(XI_E_STALE, xi_ack(&m));
    ck_assert_int_eq(number_of(&m), 3);
    if (_i == 0) ok(xi_ack(&n));
    if (_i == 2) ok(xi_recv(dead, &n, XI_TRY));
    xi_msg_release(&n);
    xi_msg_release(&m);
    ck_assert_uint_eq(in_flight(in), 0);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(dead));
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

int main(void) {
    Suite *s = suite_create("ack");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, leave_nothing);
    tcase_add_loop_test(t, what_is_acknowledged_is_done, 0, 2);
    tcase_add_loop_test(t, what_is_given_back_comes_again_first, 0, 2);
    tcase_add_loop_test(t, the_window_bounds_what_is_out, 0, 2);
    tcase_add_loop_test(t, what_is_over_makes_way, 0, 2);
    tcase_add_test(t, unacknowledged_values_keep_their_room);
    tcase_add_test(t, batches);
    tcase_add_test(t, deliveries_are_counted_beyond_16_bits);
    tcase_add_test(t, groups_agree_on_acknowledging);
    tcase_add_test(t, a_message_forgets_what_it_had);
    tcase_add_test(t, handles_have_numbers_of_their_own);
    tcase_add_test(t, acknowledging_takes_its_turn);
    tcase_add_loop_test(t, a_table_that_is_none, 0, 2);
    tcase_add_test(t, a_queues_own_group_is_what_its_first_consumer_says);
    tcase_add_test(t, options_that_cannot_be);
    tcase_add_test(t, a_table_that_nobody_needs);
    tcase_add_test(t, many_join_at_once);
    tcase_add_loop_test(t, what_is_overdue_goes_to_another, 0, 2);
    tcase_add_loop_test(t, a_block_waits_for_all_who_read_it, 0, 6);
    tcase_add_loop_test(t, a_block_waits_for_a_reader_whose_value_is_no_more, 0, 3);
    tcase_add_loop_test(t, messages_kept_beyond_their_delivery, 0, 2);
    tcase_add_test(t, as_many_are_kept_as_the_window_has);
    tcase_add_loop_test(t, what_cannot_be_taken_from_its_reader, 0, 3);
    tcase_add_test(t, the_timeout_can_be_extended);
    tcase_add_test(t, a_delay_is_kept);
    tcase_add_test(t, sleepers_are_woken_for_what_comes_back);
    tcase_add_test(t, sleepers_wake_when_something_is_overdue);
    tcase_add_test(t, closed_is_when_all_is_acknowledged);
    tcase_add_test(t, without_producers_the_end_waits_as_well);
    tcase_add_test(t, threads_share_a_handle);
    suite_add_tcase(s, t);
    return run_suite(s);
}
