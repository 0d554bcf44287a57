/* SPDX-License-Identifier: MIT */
/*
 * Edges: the largest of everything that is allowed, the smallest descriptor, a
 * length beside those of records, and a handle that is allowed less than others.
 */
#include <fcntl.h>
#include <unistd.h>

#include "channel/channel.h"
#include "fixture.h"
#include "wire/access.h"

static xi_channel *open_here(xi_interp *who) {
    xi_channel *ch = NULL;
    ok(xi_open(who, "queue", NULL, &ch));
    return ch;
}

/* The largest of everything that is allowed. */
START_TEST(limits_are_allowed) {
    xi_channel *ch;
    xi_loan loan;
    xi_msg m = XI_MSG_INIT;
    ok(xi_open(me, "far", &(xi_open_opts){.grow = XI_GROW_MAX, .group = "a name of thirty-one bytes is a"}, &ch));
    ok(xi_channel_free(ch));
    ok(xi_open(me, "wide", &(xi_open_opts){.group_opts = &(xi_group_opts){.flags = XI_GROUP_ACK, .window = XI_WINDOW_MAX}}, &ch));
    ok(xi_channel_free(ch));
    ok(xi_open(me, "large", &(xi_open_opts){.capacity = XI_CAPACITY_MAX}, &ch));
    ok(xi_channel_free(ch));
    ok(xi_open(me, "near", &(xi_open_opts){.capacity = 8192, .grow = 8192}, &ch));
    ok(xi_loan_get(me, 3000, &loan));
    size_t all = loan.size;
    fails(XI_E_NOENT, xi_send_loan(ch, &loan, all, &(xi_send_opts){.timeout = XI_TRY, .free_index = 77}));
    ok(xi_send_loan(ch, &loan, all, NULL));
    ok(xi_recv(ch, &m, XI_TRY));
    ck_assert_uint_eq(m.size, all);
    xi_msg_release(&m);
    ok(xi_channel_free(ch));
}
END_TEST

/* Where descriptor 0 is free it is as good as any, and free again afterwards. */
START_TEST(descriptor_0_is_one_too) {
    int kept = fcntl(0, F_DUPFD_CLOEXEC, 3);
    xi_channel *in, *out;
    (void)close(0);
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .grow = 65536, .group_opts = &(xi_group_opts){.flags = XI_GROUP_ACK}};
    ok(xi_open(you, "zero", &opts, &in));
    ck_assert_int_eq(fcntl(0, F_GETFD), -1);
    opts.flags = XI_OPEN_SEND;
    ok(xi_open(me, "zero", &opts, &out));
    for (int i = 0; i < 1000; i++) ok(xi_send_int(out, i, XI_TRY));
    ck_assert_uint_ne(out->chan->ring, 0);
    ck_assert_int_eq(fcntl(0, F_GETFD), -1);
    if (kept >= 0) ck_assert_int_eq(dup2(kept, 0), 0);
    if (kept >= 0) close(kept);
    ok(xi_remove(me, "zero"));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* A length that is no multiple of 8 is none, in the ring or around it. */
START_TEST(a_record_of_no_such_length_is_skipped) {
    xi_channel *in = open_here(you), *out = open_here(me);
    xi_msg m = XI_MSG_INIT;
    send_number(out, 1, 8);
    send_number(out, 3, 8);
    xi_a64 *header = xi_header_at(&in->home, in->group->head);
    xi_store_full(header, XI_REC(XI_REC_LENGTH(*header) - 4, XI_REC_INLINE, 0, 1));
    if (_i == 0) fails(XI_E_CORRUPT, xi_recv(in, &m, XI_TRY));
    else fails(XI_E_CORRUPT, xi_recv_many(in, &m, 1, XI_TRY));
    ck_assert_uint_eq(in->group->head_seq, in->chan->tail_seq); /* and all that cannot be found behind it */
    send_number(out, 2, 8);
    ck_assert_int_eq(take(in), 2);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* Another user's channel, as far as the handle knows. */
START_TEST(who_may_not_send_may_not_close_or_end) {
    xi_channel *ch = open_here(me);
    uint32_t rights = ch->rights;
    ch->rights = XI_ACCESS_READ;
    fails(XI_E_ACCESS, xi_close(ch));
    fails(XI_E_ACCESS, xi_group_remove(ch, "g"));
    ch->rights = rights;
    fails(XI_E_NOENT, xi_group_remove(ch, "g"));
    ok(xi_channel_free(ch));
}
END_TEST

/* Of the mailbox's parts, which lie one behind the other, none is taken for more of that before it. */
START_TEST(what_follows_the_bells_is_none) {
    xi_channel *in = open_here(you), *out = open_here(me);
    uint64_t parked = (uint64_t)XI_BELL_PARKED << 32;
    uint32_t side = XI_SIDE_GROUP(in->group_index);
    struct xi_mailbox *mail = you->mailbox;
    uint64_t call = xi_load_full(&mail->calls[0]);
    for (int i = 0; i < 2; i++) { /* somebody writes itself down as one who waits */
        xi_store_full(&in->chan->waiters[5], i ? XI_WAITER_OF_MEMBER(you->slot, 0, side, XI_MAX_MEMBERS) : XI_WAITER(you->slot, XI_BELLS_USABLE, side));
        xi_store_full(&mail->ready_words[0], parked);
        xi_waiter_arm(in, side, 5);
        ok(xi_send_int(out, 1, XI_TRY));
        ck_assert_uint_eq(xi_load_full(&in->group->parked.word[0]), 0);
        ck_assert_uint_eq(xi_load_full(&mail->ready_words[0]), parked);
        ck_assert_uint_eq(mail->pad2_[0], 0);
        ck_assert_uint_eq(xi_load_full(&mail->calls[0]), call);
    }
    xi_store_full(&in->chan->waiters[5], 0);
    atomic_fetch_add(&in->waiting, 1); /* as one who sleeps */
    ok(xi_channel_shut(in));
    atomic_fetch_sub(&in->waiting, 1);
    ck_assert_uint_eq(xi_load_full(&mail->ready_words[0]), parked);
    xi_store_full(&mail->ready_words[0], 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* A ring that was backed by memory is so from then on: nobody asks again. */
START_TEST(a_ring_is_backed_once) {
    xi_channel *ch = NULL;
    ok(xi_open(me, "backed", NULL, &ch));
    ck_assert(atomic_load(&ch->entry->bare));
    ok(xi_send_int(ch, 1, XI_TRY));
    ck_assert(!atomic_load(&ch->entry->bare));
    ck_assert_int_eq(take(ch), 1);
    ok(xi_channel_free(ch));
}
END_TEST

int main(void) {
    Suite *s = suite_create("limits");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_both, leave_nothing);
    tcase_add_test(t, limits_are_allowed);
    tcase_add_test(t, descriptor_0_is_one_too);
    tcase_add_loop_test(t, a_record_of_no_such_length_is_skipped, 0, 2);
    tcase_add_test(t, who_may_not_send_may_not_close_or_end);
    tcase_add_test(t, what_follows_the_bells_is_none);
    tcase_add_test(t, a_ring_is_backed_once);
    suite_add_tcase(s, t);
    return run_suite(s);
}
