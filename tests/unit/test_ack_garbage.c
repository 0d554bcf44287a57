/* SPDX-License-Identifier: MIT */
/* Deliveries of records that cannot be, and from tables that somebody has filled with garbage. */
#include "ack_fixture.h"

/* A record whose length cannot be hides what is behind it: no consumer goes over it before all in front is acknowledged. */
START_TEST(what_lies_before_garbage_is_not_lost) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT, none = XI_MSG_INIT;
    for (int64_t i = 1; i <= 3; i++) send_number(out, i, INLINE);
    expect_value(in, &m, 1, 1, XI_TRY);
    xi_a64 *header = xi_header_at(&in->home, in->group->next);
    xi_store_full(header, XI_REC(4, XI_REC_INLINE, 0, 2));
    fails(XI_E_CORRUPT, xi_recv(in, &none, XI_TRY));
    ck_assert_uint_eq(in_flight(in), 1);
    ok(xi_nack(&m, 0));
    expect_value(in, &m, 1, 2, XI_TRY);
    ok(xi_ack(&m));
    ck_assert_uint_eq(xi_load_relaxed(&in->group->corrupt), 0);
    fails(XI_E_CORRUPT, xi_recv(in, &none, XI_TRY));
    ck_assert_uint_eq(xi_load_relaxed(&in->group->corrupt), 1);
    ck_assert_uint_eq(xi_load_relaxed(&you->own->counters.corrupt), 1);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->head_seq), 3);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->head), xi_load_relaxed(&in->chan->tail));
    fails(XI_E_AGAIN, xi_recv(in, &none, XI_TRY));
    send_number(out, 4, INLINE);
    expect_value(in, &m, 4, 1, XI_TRY);
    ok(xi_ack(&m));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* Nothing is skipped before what precedes it is acknowledged, so nothing is said to have been. */
START_TEST(a_batch_before_garbage_says_what_is_so) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m[4] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT}, none = XI_MSG_INIT;
    for (int64_t i = 1; i <= 2; i++) send_number(out, i, INLINE);
    uint64_t third = xi_load_relaxed(&out->chan->tail);
    send_number(out, 3, INLINE);
    xi_store_full(xi_header_at(&in->home, third), XI_REC(4, XI_REC_INLINE, 0, 3));
    ck_assert_int_eq(xi_recv_many(in, m, 4, XI_TRY), 2);
    for (int i = 0; i < 2; i++) {
        fails(XI_E_CORRUPT, xi_recv(in, &none, XI_TRY));
        ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_CORRUPT), "it is skipped when"));
        ck_assert_uint_eq(xi_load_relaxed(&in->group->corrupt), 0);
    }
    for (int i = 0; i < 2; i++) ok(xi_ack(&m[i]));
    fails(XI_E_CORRUPT, xi_recv(in, &none, XI_TRY));
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_CORRUPT), "it was skipped"));
    fails(XI_E_AGAIN, xi_recv(in, &none, XI_TRY));
    for (int i = 2; i < 4; i++) xi_msg_release(&m[i]);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* A wrong account behind a value that is handed out again is the next call's error. */
START_TEST(a_wrong_account_behind_a_value_is_told) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m[4] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    for (int64_t i = 1; i <= 2; i++) send_number(out, i, INLINE);
    ck_assert_int_eq(xi_recv_many(in, m, 2, XI_TRY), 2);
    for (int i = 0; i < 2; i++) ok(xi_nack(&m[i], 0));
    xi_store_relaxed(&in->ack->acks->entries[2 & (in->ack->window - 1)].position, 1);
    ck_assert_int_eq(xi_recv_many(in, m, 4, XI_TRY), 1);
    ck_assert_int_eq(number_of(&m[0]), 1);
    fails(XI_E_CORRUPT, xi_recv(in, &m[1], XI_TRY));
    ck_assert_uint_eq(xi_load_relaxed(&in->group->corrupt), 1);
    for (int i = 0; i < 4; i++) xi_msg_release(&m[i]);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_remove(me, "work"));
}
END_TEST

/* The account of deliveries is made anew; who reads a block that is nobody's any more is remembered beside it. */
START_TEST(readers_are_remembered_beside_a_wrong_account) {
    xi_channel *in = open_group(you, "g", &(xi_group_opts){.flags = XI_GROUP_ACK, .window = 2}), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT, n = XI_MSG_INIT;
    send_number(out, 1, INLINE);
    send_number(out, 2, BLOCK);
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_ack(&m));
    expect_value(in, &m, 2, 1, XI_TRY);
    ok(xi_nack_keep(&m, 0));
    ck_assert_uint_ne(XI_ACKS_LINGERS(in->ack->acks, in->ack->window)[0].holder, 0); /* right behind the entries */
    ck_assert_uint_eq(XI_ACKS_LINGERS(in->ack->acks, in->ack->window)[0].number, 2);
    struct xi_group *g = in->group;
    uint64_t head = xi_load_relaxed(&g->head);
    xi_store_relaxed(&g->head, head + 4);
    xi_store_relaxed(&g->counting, 77);
    fails(XI_E_CORRUPT, xi_recv(in, &n, XI_TRY));
    ck_assert_uint_eq(lingering(in), 1);
    ck_assert_uint_eq(in_flight(in), 0);
    ck_assert_uint_eq(xi_load_relaxed(&g->head), head);
    ck_assert_uint_eq(xi_load_relaxed(&g->next), head);
    ck_assert_uint_eq(xi_load_relaxed(&g->next_due), UINT64_MAX);
    ck_assert_uint_eq(xi_load_relaxed(&g->counting), 0);
    ck_assert_uint_eq(xi_load_relaxed(&g->corrupt), 1);
    for (int i = 0; i < 2; i++) ck_assert_uint_eq(xi_load_relaxed(&in->ack->acks->entries[i].state), 0);
    expect_value(in, &n, 2, 1, XI_TRY);
    ok(xi_ack(&n));
    xi_msg_release(&m);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

static uint64_t seed = 1;
static uint64_t random64(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1du;
}

/* So it is where the next of those in flight lies nowhere: found when the one before it is acknowledged. */
START_TEST(a_wrong_account_is_found_when_acknowledging) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m[2] = {XI_MSG_INIT, XI_MSG_INIT};
    for (int64_t i = 1; i <= 2; i++) {
        send_number(out, i, INLINE);
        expect_value(in, &m[i - 1], i, 1, XI_TRY);
    }
    xi_a64 *position = &xi_delivery_of(in->ack, 2)->position;
    xi_store_relaxed(position, _i ? *position + 4 : *position + ((uint64_t)1 << 20));
    ok(xi_ack(&m[0]));
    ck_assert_uint_eq(xi_load_relaxed(&in->group->corrupt), 1);
    ck_assert_uint_eq(in_flight(in), 0);
    for (int64_t i = 1; i <= 2; i++) {
        expect_value(in, &m[0], i, 1, XI_TRY); /* again */
        ok(xi_ack(&m[0]));
    }
    xi_msg_release(&m[1]);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* Somebody wrote that what is out never was: it is handed out again, and what is behind it stays out. */
START_TEST(what_is_out_is_said_not_to_be) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m[4] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    for (int64_t i = 1; i <= 3; i++) {
        send_number(out, i, INLINE);
        expect_value(in, &m[i], i, 1, XI_TRY);
    }
    xi_store_relaxed(&xi_delivery_of(in->ack, 1)->state, 0);
    xi_store_relaxed(&xi_delivery_of(in->ack, 1)->due, 0);
    xi_store_relaxed(&in->group->next_due, 0);
    expect_value(in, &m[0], 1, 1, XI_TRY);
    ck_assert_uint_eq(in_flight(in), 3);
    for (int i = 3; i > 1; i--) ok(xi_ack(&m[i]));
    ok(xi_ack(&m[0]));
    ck_assert_uint_eq(in_flight(in), 0);
    fails(XI_E_STALE, xi_ack(&m[1]));
    xi_msg_release(&m[1]);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

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
    Suite *s = suite_create("ack_garbage");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, leave_nothing);
    tcase_add_test(t, what_lies_before_garbage_is_not_lost);
    tcase_add_test(t, a_batch_before_garbage_says_what_is_so);
    tcase_add_test(t, a_wrong_account_behind_a_value_is_told);
    tcase_add_test(t, readers_are_remembered_beside_a_wrong_account);
    tcase_add_loop_test(t, a_wrong_account_is_found_when_acknowledging, 0, 2);
    tcase_add_test(t, what_is_out_is_said_not_to_be);
    tcase_add_test(t, garbage_is_an_error_at_most);
    suite_add_tcase(s, t);
    return run_suite(s);
}
