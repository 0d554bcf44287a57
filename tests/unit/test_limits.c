/* SPDX-License-Identifier: MIT */
/*
 * Edges: the largest of everything that is allowed, the smallest descriptor, a
 * length beside those of records, a handle that is allowed less than others, and
 * what senders know of the groups.
 */
#include <fcntl.h>
#include <unistd.h>

#include "channel/channel.h"
#include "fixture.h"
#include "wire/names.h"
#include "wire/segment.h"
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

/* Values in front of it are received and no error; the error is the next call's. */
START_TEST(a_record_skipped_behind_values_is_told) {
    xi_channel *in = open_here(you), *out = open_here(me);
    xi_msg m[3] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    xi_set *set;
    xi_event event;
    send_number(out, 1, 8);
    uint64_t second = xi_load_relaxed(&out->chan->tail);
    send_number(out, 2, 8);
    xi_a64 *header = xi_header_at(&in->home, second);
    xi_store_full(header, XI_REC(XI_REC_LENGTH(*header) - 4, XI_REC_INLINE, 0, 1));
    ck_assert_int_eq(xi_recv_many(in, m, 3, XI_TRY), 1);
    ck_assert_uint_eq(in->group->corrupt, 1);
    switch (_i) {
    case 0: fails(XI_E_CORRUPT, xi_recv(in, &m[0], XI_FOREVER)); break;
    case 1: fails(XI_E_CORRUPT, (int)xi_recv_many(in, m, 3, XI_FOREVER)); break;
    case 2: /* a set has something to report of it */
        ok(xi_set_new(you, &set));
        ok(xi_set_add(set, in, XI_READY_RECV, 5, 0));
        ck_assert_int_eq(xi_set_wait(set, &event, 1, XI_FOREVER), 1);
        ck_assert_uint_eq(event.ready, XI_READY_RECV);
        fails(XI_E_CORRUPT, xi_recv(in, &m[0], XI_TRY));
        fails(XI_E_AGAIN, xi_set_wait(set, &event, 1, XI_TRY));
        xi_set_free(set);
        break;
    default: fails(XI_E_CORRUPT, xi_receive_try(in, &m[0])); break;
    }
    ck_assert_uint_eq(in->group->corrupt, 1);
    fails(XI_E_AGAIN, xi_recv(in, &m[0], XI_TRY)); /* once */
    for (int i = 0; i < 3; i++) xi_msg_release(&m[i]);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/*
 * It can be opened by nobody: so it goes with its last handle, whatever it claims to hold, and its name is free. Whether the
 * broker has it mapped, since it told one member of another, or has not.
 */
START_TEST(a_channel_of_no_such_head_goes) {
    xi_channel *ch = open_here(me), *other = _i % 2 ? open_here(you) : NULL, *next;
    char name[80], path[XI_SHM_NAME_MAX];
    int fd;
    snprintf(name, sizeof name, "%s", xi_channel_name(ch));
    struct xi_chan *chan = ch->chan;
    uint64_t id = ch->id;
    send_number(ch, 1, 8); /* it is not empty */
    switch (_i / 2) {
    case 0: chan->seg.magic ^= 1; break;
    case 1: chan->capacity *= 2; break;
    case 2: chan->seg.number++; break;
    default: /* the file is larger than it says; that is seen where it is opened */
        xi_shm_segment_name(path, getuid(), getenv("XI_NAMESPACE"), me->epoch, ch->segment);
        ok(xi_segment_open(path, true, &fd));
        ck_assert_int_eq(ftruncate(fd, (off_t)chan->seg.size + XI_PAGE), 0);
        close(fd);
    }
    ok(xi_channel_free(ch));
    ok(xi_channel_free(other));
    ok(xi_open(me, name, NULL, &next));
    ck_assert_uint_ne(next->id, id);
    nothing_left(next);
    ok(xi_channel_free(next));
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

/* ---- what senders know of the groups */

static xi_channel *open_small(xi_interp *who, const char *group, uint32_t flags) {
    xi_channel *ch = NULL;
    ok(xi_open(who, "small", &(xi_open_opts){.mode = XI_BROADCAST, .capacity = XI_CAPACITY_MIN, .group = group, .flags = flags}, &ch));
    return ch;
}
static void let_go(xi_channel *out, xi_channel *in) {
    ok(xi_remove(me, xi_channel_name(out)));
    if (in) ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
static int fill(xi_channel *out) {
    int n = 0;
    while (xi_send_int(out, n, XI_TRY) == 0) n++;
    return n;
}

/* A group that some member has written past the tail keeps the ring full, and others' values in it. */
START_TEST(a_head_past_the_tail_is_a_ring_behind) {
    xi_channel *out = open_small(me, NULL, XI_OPEN_SEND), *slow = open_small(you, "slow", XI_OPEN_RECV), *wrong = open_small(you, "wrong", XI_OPEN_RECV);
    int n = fill(out);
    xi_store_full(&wrong->group->head, xi_load_full(&out->chan->tail) + 8);
    fails(XI_E_AGAIN, xi_send_int(out, n, XI_TRY));
    for (int i = 0; i < n; i++) ck_assert_int_eq(take(slow), i);
    ok(xi_channel_free(wrong));
    let_go(out, slow);
}
END_TEST

/* A batch ends where the ring has gone round, though some of it has been received by then: repair begins at its first. */
START_TEST(a_batch_is_no_longer_than_the_ring) {
    xi_channel *out = open_small(me, NULL, XI_OPEN_SEND), *in = open_small(you, "g", XI_OPEN_RECV);
    uint64_t value = XI_INT32 | (uint64_t)9 << 32;
    struct xi_record r[300];
    struct xi_want want;
    for (int i = 0; i < 300; i++) r[i] = (struct xi_record){.payload = &value, .length = 8, .kind = XI_REC_INLINE};
    ok(xi_send_int(out, 9, XI_TRY));
    ck_assert_int_eq(take(in), 9);
    ok(xi_lock_send(out, XI_TRY));
    xi_store_full(&in->group->head, xi_load_full(&in->group->head) + 2 * 16); /* as it is when the ring is full */
    xi_store_full(&in->group->head_seq, xi_load_full(&in->group->head_seq) + 2);
    ck_assert_int_eq(xi_log_append(out, r, 300, NULL, &want), 255); /* of 16 bytes, and a header behind them */
    xi_unlock_send(out);
    for (int i = 2; i < 255; i++) ck_assert_int_eq(take(in), 9);
    nothing_left(in);
    let_go(out, in);
}
END_TEST

/* How far the groups have come is looked up when it seems too far back, and then known. */
START_TEST(what_was_looked_up_is_known) {
    xi_channel *out = NULL, *in = NULL;
    xi_open_opts o = {.capacity = XI_CAPACITY_MIN, .values = _i ? 5 : 0};
    ok(xi_open(me, "known", &o, &out));
    ok(xi_open(you, "known", &o, &in));
    int n = fill(out);
    for (int i = 0; i < n; i++) ck_assert_int_eq(take(in), i);
    ok(xi_send_int(out, 1, XI_TRY));
    ck_assert_uint_eq(xi_load_full(&out->chan->min_head), xi_load_full(&in->group->head));
    let_go(out, in);
}
END_TEST

static uint64_t send_loan(xi_channel *out) {
    xi_loan loan;
    ok(xi_loan_get(me, 8, &loan));
    *(uint64_t *)loan.data = XI_INT32 | (uint64_t)7 << 32;
    ok(xi_send_loan(out, &loan, 8, &(xi_send_opts){.timeout = XI_TRY}));
    return out->flight_bytes;
}

/* The account of blocks under way is no longer than the ring, and right when it has become longer. */
START_TEST(blocks_under_way_are_accounted_for) {
    xi_channel *out = open_small(me, NULL, XI_OPEN_SEND), *in = open_small(you, "g", XI_OPEN_RECV);
    uint64_t one = send_loan(out);
    ck_assert_uint_ne(one, 0);
    for (int i = 0; i < 9; i++) (void)send_loan(out);
    for (int i = 0; i < 10; i++) ck_assert_int_eq(take(in), 7);
    for (int i = 0; i < 300; i++) { /* round the ring: that they have been received is known */
        ok(xi_send_int(out, i, XI_TRY));
        ck_assert_int_eq(take(in), i);
    }
    for (uint64_t i = 1; i <= 70; i++) ck_assert_uint_eq(send_loan(out), i * one); /* there was room for 64 */
    ck_assert_uint_ne(out->flight_capacity, 64);
    for (int i = 0; i < 70; i++) ck_assert_int_eq(take(in), 7);
    for (int i = 0; i < 300; i++) {
        ok(xi_send_int(out, i, XI_TRY));
        ck_assert_int_eq(take(in), i);
    }
    ck_assert_uint_eq(send_loan(out), one);
    ck_assert_int_eq(take(in), 7);
    for (int i = 0; i < 3000; i++) {
        (void)send_loan(out);
        ck_assert_int_eq(take(in), 7);
    }
    ck_assert_uint_le(out->flight_capacity, 128);
    let_go(out, in);
}
END_TEST

/* What is sent is counted whichever way it goes, and what nobody hears. */
START_TEST(all_that_is_sent_is_counted) {
    xi_channel *out = open_small(me, NULL, XI_OPEN_SEND);
    uint64_t value = XI_INT32 | (uint64_t)7 << 32;
    xi_send_opts expires = {.timeout = XI_TRY, .ttl_ns = 3600 * 1000 * MS};
    ok(xi_send_ex(out, &value, 8, &expires));
    ck_assert_uint_eq(xi_load_relaxed(&out->chan->vanished), 1);
    xi_channel *in = open_small(you, "g", XI_OPEN_RECV);
    ok(xi_send_ex(out, &value, 8, &expires));
    ok(xi_send_int(out, 7, XI_TRY));
    (void)send_loan(out);
    ck_assert_uint_eq(xi_load_relaxed(&out->chan->vanished), 1);
    ck_assert_uint_eq(xi_load_relaxed(&out->sent), 3);
    for (int i = 0; i < 3; i++) ck_assert_int_eq(take(in), 7);
    let_go(out, in);
}
END_TEST

/* What readers have given back goes on to the system while its owner sleeps: at the look that it takes now and then. */
START_TEST(a_look_takes_back_what_was_released) {
    xi_channel *out = open_small(me, NULL, XI_OPEN_SEND), *in = open_small(you, "g", XI_OPEN_RECV);
    xi_stats stats;
    (void)send_loan(out);
    ck_assert_int_eq(take(in), 7);
    xi_interp_stats(me, &stats);
    ck_assert_uint_eq(stats.blocks, 1);
    ok(xi_sleep_ended(me, XI_WAKE_LOOK));
    xi_interp_stats(me, &stats);
    ck_assert_uint_eq(stats.blocks, 0);
    let_go(out, in);
}
END_TEST

int main(void) {
    Suite *s = suite_create("limits");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_both, leave_nothing);
    tcase_add_test(t, limits_are_allowed);
    tcase_add_test(t, descriptor_0_is_one_too);
    tcase_add_loop_test(t, a_record_of_no_such_length_is_skipped, 0, 2);
    tcase_add_loop_test(t, a_record_skipped_behind_values_is_told, 0, 4);
    tcase_add_loop_test(t, a_channel_of_no_such_head_goes, 0, 7);
    tcase_add_test(t, who_may_not_send_may_not_close_or_end);
    tcase_add_test(t, what_follows_the_bells_is_none);
    tcase_add_test(t, a_ring_is_backed_once);
    tcase_add_test(t, a_head_past_the_tail_is_a_ring_behind);
    tcase_add_test(t, a_batch_is_no_longer_than_the_ring);
    tcase_add_loop_test(t, what_was_looked_up_is_known, 0, 2);
    tcase_add_test(t, blocks_under_way_are_accounted_for);
    tcase_add_test(t, all_that_is_sent_is_counted);
    tcase_add_test(t, a_look_takes_back_what_was_released);
    suite_add_tcase(s, t);
    return run_suite(s);
}
