/* SPDX-License-Identifier: MIT */
/*
 * Where deliveries end: dead letters, values that expire, the ends of handles,
 * groups, channels and interpreters.
 */
#include "ack_fixture.h"
#include "wire/names.h"

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
/* The value of a letter is a tuple (see encode_number), whose items begin behind its head of two words. */
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
    ck_assert_uint_eq(xi_load_relaxed(&in->group->counting), 0); /* that is done with */
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

/* Somebody wrote a reason that is none. */
START_TEST(the_reason_is_not_known) {
    xi_channel *in = open_spent(you, 1, "dead"), *out = open_sender(me), *letters = open_letters("dead");
    xi_msg m = XI_MSG_INIT;
    xi_value v;
    send_number(out, 1, INLINE);
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_nack(&m, 0));
    xi_a64 *state = &xi_delivery_of(in->ack, 1)->state;
    xi_store_full(state, (xi_load_full(state) & ~(uint64_t)0xff00) | (XI_BACK_EXPIRED + 1) << 8);
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    expect_letter(letters, "unknown", "g", 1, &v, &m);
    ck_assert_int_eq(letter_number(&v), 1);
    xi_msg_release(&m);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

START_TEST(no_delay_for_what_is_not_delivered_again) {
    xi_channel *dead = open_letters("dead"), *in = open_spent(you, 1, "dead"), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    send_number(out, 1, sizes[_i]);
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_nack(&m, 3600 * 1000 * MS));
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    ok(xi_recv(dead, &m, XI_TRY));
    xi_msg_release(&m);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(dead));
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
    ck_assert_uint_eq(xi_load_relaxed(&in->group->counting), 0); /* that is done with */
    ck_assert_uint_eq(xi_load_relaxed(&in->group->next_due), UINT64_MAX); /* and there is nothing to look for */
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

/* Who holds the group opens anew what was removed and made anew. */
START_TEST(dead_letters_go_to_the_channel_of_that_name) {
    xi_channel *letters = open_letters("dead"), *in = open_spent(you, 1, "dead"), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT, l = XI_MSG_INIT;
    xi_value v;
    for (int64_t i = 1; i <= 3; i++) {
        send_number(out, i, INLINE);
        expect_value(in, &m, i, 1, XI_TRY);
        ok(xi_nack(&m, 0));
        fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
        expect_letter(letters, "nacked", "g", 1, &v, &l);
        ck_assert_int_eq(letter_number(&v), i);
        xi_msg_release(&l);
        ok(xi_remove(me, "dead"));
        ok(xi_channel_free(letters));
        letters = open_letters("dead");
    }
    ck_assert_uint_eq(xi_load_relaxed(&in->group->dead), 3);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

/* The same of a value that nobody had yet, whose time was over. */
START_TEST(expired_values_wait_for_room) {
    xi_channel *letters = NULL, *in, *out = NULL;
    xi_open_opts opts = {.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .ttl_ns = 1, .dead = "dead"};
    xi_msg m = XI_MSG_INIT, l = XI_MSG_INIT;
    xi_value v;
    int64_t n = 0;
    ok(xi_open(me, "work", &opts, &out));
    in = open_group(you, "g", &acks);
    ok(xi_open(me, "dead", &(xi_open_opts){.capacity = XI_CAPACITY_MIN}, &letters));
    while (xi_send_int(letters, n, XI_TRY) == 0) n++;
    send_number(out, 1, 300); /* for which a message needs memory */
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    ck_assert_uint_eq(in_flight(in), 1);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->expired), 0);
    for (int64_t i = 0; i < n; i++) ok(xi_recv(letters, &l, XI_TRY));
    fails(XI_E_TIMEOUT, xi_recv(in, &m, 300 * MS)); /* it looks again meanwhile */
    expect_letter(letters, "expired", "g", 0, &v, &l);
    ck_assert_int_eq(letter_number(&v), 1);
    ck_assert_uint_eq(in_flight(in), 0);
    xi_msg_release(&l);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

/* ------------------------------------------------ what is written on the way */

static _Atomic int freed;
static void on_free(void *context, uint64_t argument) {
    (void)context;
    atomic_fetch_add(&freed, (int)argument);
}

static const xi_group_opts two_for_long = {.flags = XI_GROUP_ACK, .window = 2, .timeout_ns = 3600 * 1000 * MS};

/* In a window of two a value is out, and behind it lies one whose time is over and whose entry has been another's. Where. */
static uint64_t out_and_expired(xi_channel *in, xi_channel *out, xi_msg *m) {
    for (int64_t i = 1; i <= 3; i++) {
        send_number(out, i, INLINE);
        expect_value(in, m, i, 1, XI_TRY);
        if (i < 3) ok(xi_ack(m));
    }
    uint64_t position = xi_load_relaxed(&in->chan->tail);
    ok(try_number(out, 4, INLINE, &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = 1}));
    return position;
}

/* As wire/layout.h has it, for whoever repairs it after a death. */
static void expect_entry(const xi_channel *in, uint64_t number, uint32_t status, uint64_t position, uint64_t due) {
    struct xi_delivery *d = xi_delivery_of(in->ack, number);
    ck_assert_uint_eq(XI_DELIVERY_STATUS(xi_load_full(&d->state)), status);
    ck_assert_uint_eq(xi_load_relaxed(&d->position), position);
    ck_assert_uint_eq(xi_load_relaxed(&d->due), due);
    ck_assert_uint_eq(xi_load_relaxed(&d->count), 0);
}

START_TEST(what_vanishes_is_written_down) {
    xi_channel *in = open_group(you, "g", &two_for_long), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT, none = XI_MSG_INIT;
    uint64_t position = out_and_expired(in, out, &m);
    fails(XI_E_AGAIN, xi_recv(in, &none, XI_TRY));
    expect_entry(in, 4, XI_DELIVERY_DONE, position, 0);
    ck_assert_uint_eq(in_flight(in), 2);
    ok(xi_ack(&m));
    ck_assert_uint_eq(in_flight(in), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* A thread that moves a value to the dead letters, stopped where it opens their channel. */
struct mover {
    pthread_t thread;
    xi_channel *in;
    int rc;
};
static void *move_on(void *argument) {
    struct mover *r = argument;
    xi_msg m = XI_MSG_INIT;
    r->rc = xi_recv(r->in, &m, XI_TRY);
    xi_msg_release(&m);
    return NULL;
}
static void start_mover(struct mover *r, xi_channel *in, uint64_t number) {
    r->in = in;
    pthread_mutex_lock(&in->interp->control.mutex);
    ck_assert_int_eq(pthread_create(&r->thread, NULL, move_on, r), 0);
    while (XI_DELIVERY_STATUS(xi_load_full(&xi_delivery_of(in->ack, number)->state)) != XI_DELIVERY_MOVING) sched_yield();
}
static void end_mover(struct mover *r, int rc) {
    pthread_mutex_unlock(&r->in->interp->control.mutex);
    pthread_join(r->thread, NULL);
    ck_assert_int_eq(r->rc, rc);
}

START_TEST(what_is_moved_is_written_down) {
    xi_channel *in, *out = NULL, *letters = open_letters("late");
    xi_open_opts opts = {.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .dead = "late"};
    xi_msg m = XI_MSG_INIT, l = XI_MSG_INIT;
    struct mover mover;
    xi_value v;
    ok(xi_open(me, "work", &opts, &out));
    in = open_group(you, "g", &two_for_long);
    uint64_t position = out_and_expired(in, out, &m);
    start_mover(&mover, in, 4);
    expect_entry(in, 4, XI_DELIVERY_MOVING, position, UINT64_MAX);
    ok(xi_ack(&m)); /* past which the head goes no further */
    ck_assert_uint_eq(xi_load_relaxed(&in->group->head), position);
    ck_assert_uint_eq(in_flight(in), 1);
    end_mover(&mover, XI_E_AGAIN);
    ck_assert_uint_eq(in_flight(in), 0);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->head), xi_load_relaxed(&in->chan->tail));
    expect_letter(letters, "expired", "g", 0, &v, &l);
    ck_assert_int_eq(letter_number(&v), 4);
    xi_msg_release(&l);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

/* Who moves a block reads it until then: as long it waits, and not longer; and its owner hears of it. */
START_TEST(a_group_is_removed_under_a_mover) {
    xi_channel *letters = open_letters("dead"), *in = open_spent(you, 1, "dead"), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    struct mover mover;
    uint32_t index;
    ok(xi_free_register(me, "count", on_free, NULL, &index));
    ok(try_number(out, 1, INLINE, &(xi_send_opts){.timeout = XI_TRY, .free_index = index}));
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_nack(&m, 0));
    start_mover(&mover, in, 1);
    ok(xi_group_remove(out, "g"));
    ck_assert_uint_eq(lingering(in), 1);
    ck_assert_uint_eq(blocks_out(me), 1);
    ck_assert_uint_eq(xi_load_full(&me->mailbox->reclaim), 0);
    end_mover(&mover, XI_E_LEFT);
    ck_assert_uint_eq(lingering(in), 0);
    ck_assert_uint_eq(xi_load_full(&me->mailbox->reclaim), 1);
    ck_assert_uint_eq(blocks_out(me), 0);
    xi_channel *again = open_group(you, "g", &acks); /* in the same place */
    send_number(out, 2, INLINE);
    expect_value(again, &m, 2, 1, XI_TRY);
    ok(xi_ack(&m));
    ok(xi_recv(letters, &m, XI_TRY));
    xi_msg_release(&m);
    ok(xi_channel_free(in));
    ok(xi_channel_free(again));
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

/* Somebody overwrote the group's name, and its end. */
START_TEST(a_name_without_an_end) {
    xi_channel *letters = open_letters("dead"), *in = open_spent(you, 1, "dead"), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    xi_value v;
    send_number(out, 1, INLINE);
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_nack(&m, 0));
    memset(in->group->name, 'x', sizeof in->group->name);
    fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    expect_letter(letters, "nacked", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 1, &v, &m);
    xi_msg_release(&m);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

/* A list of two buffers, in blocks of their own, of `who`; the first in a tuple within. */
static void send_buffers(xi_interp *who, xi_channel *out) {
    xi_loan root, child[2];
    xi_builder b;
    ok(xi_loan_get(who, 4096, &root));
    xi_builder_init(&b, root.data, root.size, 0);
    ok(xi_begin(&b, XI_LIST, 2));
    for (int i = 0; i < 2; i++) {
        ok(xi_loan_get(who, 3000, &child[i]));
        memset(child[i].data, 'a' + i, 3000);
        if (i == 0) ok(xi_begin(&b, XI_TUPLE, 1));
        ok(xi_put_buffer(&b, &(xi_buffer_ref){child[i].handle, 100, 2000}, i ? XI_F_MUTABLE : 0));
        if (i == 0) ok(xi_end(&b));
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
    xi_cursor children, within;
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
        if (i == 0) {
            ok(xi_enter(&item, &within));
            ck_assert_int_eq(xi_next(&within, &item), 1);
        }
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

/* A channel that cannot be opened, since its name is the library's own: the value vanishes, counted. */
START_TEST(dead_letters_that_can_go_nowhere) {
    xi_channel *in = open_spent(you, 1, XI_LANE_PREFIX "none"), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    for (int64_t i = 1; i <= 2; i++) send_number(out, i, sizes[_i]);
    expect_value(in, &m, 1, 1, XI_TRY);
    ok(xi_nack(&m, 0));
    expect_value(in, &m, 2, 1, XI_TRY);
    ok(xi_ack(&m));
    ck_assert_uint_eq(xi_load_relaxed(&in->group->dead), 1);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* A record that cannot be is skipped, and said. */
START_TEST(a_record_that_cannot_be_is_an_error) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    for (int64_t i = 1; i <= 2; i++) send_number(out, i, INLINE);
    xi_a64 *header = xi_header_at(&in->home, in->group->next);
    xi_store_full(header, xi_load_full(header) | (uint64_t)0xff << 32);
    fails(XI_E_CORRUPT, xi_recv(in, &m, XI_TRY));
    ck_assert_uint_eq(xi_load_relaxed(&in->group->corrupt), 1);
    ck_assert_uint_eq(xi_load_relaxed(&you->own->counters.corrupt), 1);
    expect_value(in, &m, 2, 1, XI_TRY);
    ok(xi_ack(&m));
    ck_assert_uint_eq(in_flight(in), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* Nor does it say who called: what lies where a request has that is not believed. */
START_TEST(a_record_that_cannot_be_is_no_request) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    uint64_t words[4] = {XI_INT32, 0, me->slot, 77}, waiting = 77 << 8 | XI_CALL_WAITING;
    xi_store_full(&me->mailbox->calls[0], waiting);
    ok(xi_send(out, words, sizeof words, XI_TRY));
    xi_a64 *header = xi_header_at(&in->home, in->group->next);
    xi_store_full(header, xi_load_full(header) | (uint64_t)(XI_REC_F_CALL | 8) << 40);
    fails(XI_E_CORRUPT, xi_recv(in, &m, XI_TRY));
    ck_assert_uint_eq(xi_load_full(&me->mailbox->calls[0]), waiting);
    xi_store_full(&me->mailbox->calls[0], 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* So is a value whose block is nowhere. */
START_TEST(a_block_that_is_not_there_is_an_error) {
    xi_channel *in = open_group(you, "g", &acks), *out = open_sender(me);
    xi_msg m[2] = {XI_MSG_INIT, XI_MSG_INIT};
    send_number(out, 1, INLINE);
    uint64_t position = xi_load_relaxed(&in->chan->tail);
    send_number(out, 2, BLOCK);
    send_number(out, 3, INLINE);
    xi_store_full(xi_header_at(&in->home, position + 8), 1); /* an odd segment is none of values */
    expect_value(in, &m[0], 1, 1, XI_TRY);
    fails(XI_E_CORRUPT, xi_recv(in, &m[1], XI_TRY));
    ck_assert_uint_eq(xi_load_relaxed(&in->group->corrupt), 1);
    ck_assert_uint_eq(xi_load_relaxed(&you->own->counters.corrupt), 1);
    expect_value(in, &m[1], 3, 1, XI_TRY);
    ok(xi_ack(&m[0]));
    ok(xi_ack(&m[1]));
    ck_assert_uint_eq(in_flight(in), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
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
    ok(try_number(out, 3, sizes[_i], &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = -1}));
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

START_TEST(the_free_function_runs_when_acknowledged) {
    xi_channel *in = open_group(you, NULL, &acks), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT;
    uint32_t index;
    freed = 0;
    ok(xi_free_register(me, "count", on_free, NULL, &index));
    ok(try_number(out, 1, INLINE, &(xi_send_opts){.timeout = XI_TRY, .free_index = index, .free_argument = 5}));
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

/* Acknowledged, expired, delivered too often, moved elsewhere, or let go of by the last who reads it: its owner hears of it. */
START_TEST(the_owner_hears_of_every_end) {
    bool spent = _i == 2 || _i == 3;
    xi_channel *letters = open_letters("dead"), *in = open_spent(you, spent, _i == 3 ? "dead" : NULL), *out = open_sender(me);
    xi_msg m = XI_MSG_INIT, again = XI_MSG_INIT;
    uint32_t index;
    ok(xi_free_register(me, "count", on_free, NULL, &index));
    ok(try_number(out, 1, INLINE, &(xi_send_opts){.timeout = XI_TRY, .free_index = index, .ttl_ns = _i == 1 ? 1 : 0}));
    if (_i != 1) expect_value(in, &m, 1, 1, XI_TRY);
    if (_i == 4) {
        ok(xi_nack_keep(&m, 0));
        expect_value(in, &again, 1, 2, XI_TRY);
        ok(xi_ack(&again));
    }
    ck_assert_uint_eq(xi_load_full(&me->mailbox->reclaim), 0);
    if (_i == 0) ok(xi_ack(&m));
    if (spent) ok(xi_nack(&m, 0));
    if (_i == 4) xi_msg_release(&m);
    else fails(XI_E_AGAIN, xi_recv(in, &m, XI_TRY));
    ck_assert_uint_eq(xi_load_full(&me->mailbox->reclaim), 1);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    ok(xi_channel_free(letters));
}
END_TEST

int main(void) {
    Suite *s = suite_create("ack_ends");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, leave_nothing);
    tcase_add_loop_test(t, delivered_too_often_it_is_a_dead_letter, 0, 2);
    tcase_add_test(t, the_reason_is_not_known);
    tcase_add_loop_test(t, no_delay_for_what_is_not_delivered_again, 0, 2);
    tcase_add_loop_test(t, without_dead_letters_it_vanishes, 0, 2);
    tcase_add_test(t, dead_letters_wait_for_room);
    tcase_add_test(t, dead_letters_go_to_the_channel_of_that_name);
    tcase_add_test(t, expired_values_wait_for_room);
    tcase_add_test(t, what_vanishes_is_written_down);
    tcase_add_test(t, what_is_moved_is_written_down);
    tcase_add_test(t, a_group_is_removed_under_a_mover);
    tcase_add_test(t, a_name_without_an_end);
    tcase_add_test(t, dead_letters_do_not_depend_on_who_sent_them);
    tcase_add_loop_test(t, dead_letters_that_can_go_nowhere, 0, 2);
    tcase_add_test(t, a_record_that_cannot_be_is_an_error);
    tcase_add_test(t, a_record_that_cannot_be_is_no_request);
    tcase_add_test(t, a_block_that_is_not_there_is_an_error);
    tcase_add_loop_test(t, a_value_that_is_none_goes_as_bytes, 0, 3);
    tcase_add_loop_test(t, expired_values_go_where_the_channel_says, 0, 2);
    tcase_add_test(t, leaving_gives_back);
    tcase_add_test(t, a_group_of_ones_own_ends_with_its_handle);
    tcase_add_test(t, a_group_is_removed_under_its_consumers);
    tcase_add_test(t, the_free_function_runs_when_acknowledged);
    tcase_add_loop_test(t, the_owner_hears_of_every_end, 0, 5);
    suite_add_tcase(s, t);
    return run_suite(s);
}
