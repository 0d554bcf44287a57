/* SPDX-License-Identifier: MIT */
/*
 * Channels, as a program sees them: order, blocking, batches, groups, loans and
 * borrows, closing, free functions and errors. Two interpreters in one process
 * where it takes two: they share nothing but the segments.
 */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "channel/channel.h"
#include "fixture.h"

static xi_channel *open_with(xi_interp *who, const char *name, uint32_t mode, uint32_t flags, uint64_t capacity,
                             const char *group) {
    xi_channel *ch = NULL;
    ok(xi_open(who, name, &(xi_open_opts){.mode = mode, .flags = flags, .capacity = capacity, .group = group}, &ch));
    return ch;
}
static xi_channel *queue(xi_interp *who) { return open_with(who, "queue", XI_QUEUE, 0, 0, NULL); }

/* A bytes value of `n` bytes that says which it is, in memory that the caller frees. */
static void *bytes_value(size_t n, uint8_t fill, size_t *size) {
    void *buffer = aligned_alloc(8, XI_SIZE_BYTES(n)), *where;
    xi_builder b;
    xi_builder_init(&b, buffer, XI_SIZE_BYTES(n), 0);
    ok(xi_put_bytes_space(&b, 0, n, &where));
    memset(where, fill, n);
    int64_t total = xi_builder_finish(&b);
    ok(total);
    *size = (size_t)total;
    return buffer;
}
static void check_bytes(const xi_msg *m, size_t n, uint8_t fill) {
    xi_cursor c;
    xi_value v;
    xi_cursor_init(&c, m->data, m->size);
    ck_assert_int_eq(xi_next(&c, &v), 1);
    ck_assert_int_eq(v.tag, XI_BYTES);
    ck_assert_uint_eq(v.length, n);
    for (size_t i = 0; i < n; i++) ck_assert_uint_eq(((const uint8_t *)v.data)[i], fill);
}

START_TEST(values_arrive_in_order) {
    xi_channel *out = queue(me), *in = queue(you);
    for (int64_t i = 0; i < 100; i++) ok(xi_send_int(out, i * 1000003, XI_TRY));
    for (int64_t i = 0; i < 100; i++) ck_assert_int_eq(take(in), i * 1000003);
    fails(XI_E_AGAIN, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

/* As a process leaves it that is stopped in the middle of a receive. */
START_TEST(a_try_says_who_is_in_the_way) {
    xi_channel *out = queue(me), *in = queue(you), *other = queue(me);
    ok(xi_send_int(out, 7, XI_TRY));
    xi_store_release(&in->group->lock, other->lock_word);
    fails(XI_E_AGAIN, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    ck_assert_msg(strstr(xi_error_text(XI_E_AGAIN), "is it stopped?"), "%s", xi_error_text(XI_E_AGAIN));
    xi_store_release(&in->group->lock, 0);
    ck_assert_int_eq(take(in), 7);
    fails(XI_E_AGAIN, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    ck_assert_msg(strstr(xi_error_text(XI_E_AGAIN), "nothing to receive"), "%s", xi_error_text(XI_E_AGAIN));
    ok(xi_channel_free(other));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(the_ring_goes_round_with_every_size) {
    xi_channel *out = open_with(me, "small", XI_QUEUE, 0, XI_CAPACITY_MIN, NULL);
    xi_channel *in = open_with(you, "small", 0, 0, 0, NULL);
    xi_msg m = XI_MSG_INIT;
    ck_assert_uint_eq(xi_inline_max(out), XI_CAPACITY_MIN / 8);
    for (size_t n = 0; n < 3000; n++) {
        size_t size, length = n * 7 % 500;
        void *v = bytes_value(length, (uint8_t)n, &size);
        ok(xi_send(out, v, size, XI_TRY));
        ok(xi_recv(in, &m, XI_TRY));
        check_bytes(&m, length, (uint8_t)n);
        free(v);
    }
    xi_msg_release(&m);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_full_channel_says_so_and_loses_nothing) {
    xi_channel *out = open_with(me, "full", XI_QUEUE, 0, XI_CAPACITY_MIN, NULL);
    xi_channel *in = open_with(you, "full", 0, 0, 0, NULL);
    int64_t n = 0;
    int rc;
    while ((rc = xi_send_int(out, n, XI_TRY)) == 0) n++;
    ck_assert_int_eq(rc, XI_E_AGAIN);
    ck_assert_int_ge(n, 200);
    fails(XI_E_TIMEOUT, xi_send_int(out, n, 20 * MS));
    for (int64_t i = 0; i < n; i++) ck_assert_int_eq(take(in), i);
    ok(xi_send_int(out, n, XI_TRY));
    ck_assert_int_eq(take(in), n);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_timeout_is_kept) {
    xi_channel *in = queue(me);
    xi_msg m = XI_MSG_INIT;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    fails(XI_E_TIMEOUT, xi_recv(in, &m, 50 * MS));
    clock_gettime(CLOCK_MONOTONIC, &b);
    int64_t took = (b.tv_sec - a.tv_sec) * 1000 * MS + b.tv_nsec - a.tv_nsec;
    ck_assert_int_ge(took, 50 * MS);
    ok(xi_channel_free(in));
}
END_TEST

static void *sends_later(void *arg) {
    xi_channel *out = queue(you);
    /* The receiver is asleep for sure once the channel counts a waiter. */
    xi_channel_info info;
    do ok(xi_channel_stat(out, &info));
    while (info.waiting == 0);
    ok(xi_send_int(out, (int64_t)(intptr_t)arg, XI_FOREVER));
    ok(xi_channel_free(out));
    return NULL;
}

START_TEST(a_sleeping_receiver_is_woken) {
    xi_channel *in = queue(me);
    for (intptr_t i = 1; i <= 20; i++) {
        pthread_t t;
        pthread_create(&t, NULL, sends_later, (void *)i);
        ck_assert_int_eq(take(in), i);
        pthread_join(t, NULL);
    }
    xi_stats s;
    xi_interp_stats(me, &s);
    ck_assert_uint_ge(s.parks, 20);
    ok(xi_channel_free(in));
}
END_TEST

static void *receives_later(void *arg) {
    xi_channel *in = open_with(you, "full", 0, 0, 0, NULL);
    xi_channel_info info;
    do ok(xi_channel_stat(in, &info));
    while (info.waiting == 0);
    *(int64_t *)arg = take(in);
    ok(xi_channel_free(in));
    return NULL;
}

START_TEST(a_sleeping_sender_is_woken) {
    xi_channel *out = open_with(me, "full", XI_QUEUE, 0, XI_CAPACITY_MIN, NULL);
    int64_t got = -1, n = 0;
    pthread_t t;
    while (xi_send_int(out, n, XI_TRY) == 0) n++;
    pthread_create(&t, NULL, receives_later, &got);
    ok(xi_send_int(out, n, XI_FOREVER));
    pthread_join(t, NULL);
    ck_assert_int_eq(got, 0);
    for (int64_t i = 1; i <= n; i++) ck_assert_int_eq(take(out), i);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_batch_keeps_order_and_takes_what_is_there) {
    xi_channel *out = queue(me), *in = queue(you);
    uint64_t values[200];
    const void *p[200];
    size_t sizes[200];
    xi_msg m[200];
    for (uint64_t i = 0; i < 200; i++) {
        values[i] = XI_INT32 | i << 32;
        p[i] = &values[i];
        sizes[i] = 8;
        m[i] = (xi_msg)XI_MSG_INIT;
    }
    ck_assert_int_eq(xi_send_many(out, p, sizes, 200, XI_FOREVER), 200);
    ck_assert_uint_eq(xi_load_relaxed(&out->chan->tail_seq), 200);
    for (uint64_t i = 0; i < 200; i++) ck_assert_uint_eq(XI_REC_SEQ(xi_load_relaxed(xi_header_at(&out->home, 16 * i))), i + 1);
    ck_assert_int_eq(xi_recv_many(in, m, 150, XI_FOREVER), 150);
    ck_assert_uint_eq(xi_load_relaxed(&in->group->head_seq), 150);
    ck_assert_int_eq(xi_recv_many(in, m + 150, 50, XI_TRY), 50);
    for (int i = 0; i < 200; i++) {
        ck_assert_int_eq(number_of(&m[i]), i);
        xi_msg_release(&m[i]);
    }
    fails(XI_E_AGAIN, xi_recv_many(in, m, 10, XI_TRY));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_batch_mixes_small_and_large_values) {
    xi_channel *out = queue(me), *in = queue(you);
    const void *p[9];
    void *v[9];
    size_t sizes[9];
    xi_msg m[9];
    for (int i = 0; i < 9; i++) {
        v[i] = bytes_value(i % 3 == 1 ? 20000 : 40, (uint8_t)i, &sizes[i]);
        p[i] = v[i];
        m[i] = (xi_msg)XI_MSG_INIT;
    }
    ck_assert_int_eq(xi_send_many(out, p, sizes, 9, XI_FOREVER), 9);
    ck_assert_int_eq(xi_recv_many(in, m, 9, XI_FOREVER), 9);
    for (int i = 0; i < 9; i++) {
        check_bytes(&m[i], i % 3 == 1 ? 20000 : 40, (uint8_t)i);
        ck_assert_int_eq(xi_msg_borrowed(&m[i]), i % 3 == 1);
        xi_msg_release(&m[i]);
        free(v[i]);
    }
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_queue_gives_each_value_to_one_consumer) {
    xi_channel *out = queue(me), *a = queue(you), *b = queue(me);
    for (int64_t i = 0; i < 10; i++) ok(xi_send_int(out, i, XI_TRY));
    for (int64_t i = 0; i < 10; i++) ck_assert_int_eq(take(i % 2 ? a : b), i);
    fails(XI_E_AGAIN, xi_recv(a, &(xi_msg)XI_MSG_INIT, XI_TRY));
    fails(XI_E_AGAIN, xi_recv(b, &(xi_msg)XI_MSG_INIT, XI_TRY));
    ok(xi_channel_free(a));
    ok(xi_channel_free(b));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_broadcast_gives_each_value_to_every_subscriber) {
    xi_channel *out = open_with(me, "news", XI_BROADCAST, XI_OPEN_SEND, 0, NULL), *in[5];
    ok(xi_send_int(out, -1, XI_TRY)); /* nobody is there: it vanishes */
    for (int k = 0; k < 5; k++) in[k] = open_with(k % 2 ? me : you, "news", 0, 0, 0, NULL);
    for (int64_t i = 0; i < 100; i++) ok(xi_send_int(out, i, XI_TRY));
    for (int k = 0; k < 5; k++)
        for (int64_t i = 0; i < 100; i++) ck_assert_int_eq(take(in[k]), i);
    for (int k = 0; k < 5; k++) ok(xi_channel_free(in[k]));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_slow_subscriber_holds_up_the_channel_until_it_goes) {
    xi_channel *out = open_with(me, "news", XI_BROADCAST, XI_OPEN_SEND, XI_CAPACITY_MIN, NULL);
    xi_channel *fast = open_with(me, "news", 0, 0, 0, NULL), *slow = open_with(you, "news", 0, 0, 0, NULL);
    int64_t n = 0;
    for (; xi_send_int(out, n, XI_TRY) == 0; n++) ck_assert_int_eq(take(fast), n);
    fails(XI_E_TIMEOUT, xi_send_int(out, n, 10 * MS));
    ok(xi_channel_free(slow));
    ok(xi_send_int(out, n, XI_TRY));
    ck_assert_int_eq(take(fast), n);
    ok(xi_channel_free(fast));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(named_groups_each_get_everything_and_share_it_among_themselves) {
    xi_channel *out = queue(me);
    xi_channel *a1 = open_with(you, "queue", 0, 0, 0, "audit"), *a2 = open_with(me, "queue", 0, 0, 0, "audit");
    for (int64_t i = 0; i < 6; i++) ok(xi_send_int(out, i, XI_TRY));
    for (int64_t i = 0; i < 6; i++) ck_assert_int_eq(take(i % 2 ? a1 : a2), i);
    for (int64_t i = 0; i < 6; i++) ck_assert_int_eq(take(out), i);
    ok(xi_channel_free(a1));
    ok(xi_channel_free(a2));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(sixty_four_groups_and_no_more) {
    xi_channel *out = open_with(me, "many", XI_BROADCAST, XI_OPEN_SEND, 0, NULL), *in[64], *one_more;
    for (int k = 0; k < 64; k++) in[k] = open_with(you, "many", 0, 0, 0, NULL);
    fails(XI_E_LIMIT, xi_open(you, "many", NULL, &one_more));
    size_t size;
    void *v = bytes_value(50000, 7, &size);
    ok(xi_send(out, v, size, XI_TRY));
    xi_msg m = XI_MSG_INIT;
    for (int k = 0; k < 64; k++) {
        ok(xi_recv(in[k], &m, XI_TRY));
        check_bytes(&m, 50000, 7);
        xi_stats s;
        xi_interp_stats(me, &s);
        ck_assert_uint_eq(s.blocks, 1);
    }
    xi_msg_release(&m);
    ok(xi_send(out, v, size, XI_TRY)); /* allocating looks for what came back: the first block did */
    xi_stats s;
    xi_interp_stats(me, &s);
    ck_assert_uint_eq(s.blocks, 1);
    for (int k = 0; k < 64; k++) ok(xi_channel_free(in[k]));
    free(v);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_closed_channel_is_drained_and_then_closed) {
    xi_channel *out = queue(me), *in = queue(you);
    ok(xi_send_int(out, 1, XI_TRY));
    ok(xi_close(in));
    ok(xi_close(out));
    fails(XI_E_CLOSED, xi_send_int(out, 2, XI_TRY));
    ck_assert_int_eq(take(in), 1);
    fails(XI_E_CLOSED, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_FOREVER));
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

static void *closes_later(void *arg) {
    xi_channel *ch = queue(you);
    xi_channel_info info;
    do ok(xi_channel_stat(ch, &info));
    while (info.waiting < *(uint32_t *)arg);
    ok(xi_close(ch));
    ok(xi_channel_free(ch));
    return NULL;
}

START_TEST(closing_wakes_who_sleeps) {
    xi_channel *in = queue(me);
    uint32_t sleepers = 1;
    pthread_t t;
    pthread_create(&t, NULL, closes_later, &sleepers);
    fails(XI_E_CLOSED, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_FOREVER));
    pthread_join(t, NULL);
    ok(xi_channel_free(in));
}
END_TEST

static void *frees_the_handle(void *arg) {
    xi_channel_info info;
    xi_channel *watch = queue(you);
    do ok(xi_channel_stat(watch, &info));
    while (info.waiting == 0);
    ok(xi_channel_free(arg));
    ok(xi_channel_free(watch));
    return NULL;
}

START_TEST(freeing_a_handle_sends_its_sleepers_home) {
    xi_channel *in = queue(me);
    pthread_t t;
    pthread_create(&t, NULL, frees_the_handle, in);
    fails(XI_E_LEFT, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_FOREVER));
    pthread_join(t, NULL);
}
END_TEST

START_TEST(undelivered_values_outlive_their_handles) {
    xi_channel *out = queue(me);
    size_t size;
    void *v = bytes_value(100000, 9, &size);
    ok(xi_send_int(out, 5, XI_TRY));
    ok(xi_send(out, v, size, XI_TRY));
    free(v);
    ok(xi_channel_free(out));
    xi_channel *in = queue(you);
    ck_assert_int_eq(take(in), 5);
    xi_msg m = XI_MSG_INIT;
    ok(xi_recv(in, &m, XI_TRY));
    check_bytes(&m, 100000, 9);
    xi_msg_release(&m);
    ok(xi_channel_free(in));
}
END_TEST

START_TEST(a_value_outlives_the_interpreter_that_sent_it) {
    xi_interp *third;
    xi_channel *out, *in = queue(you);
    size_t size;
    void *v = bytes_value(300000, 3, &size);
    ok(xi_join(&(xi_join_opts){.name = "third"}, &third));
    ok(xi_open(third, "queue", NULL, &out));
    ok(xi_send(out, v, size, XI_TRY));
    free(v);
    ok(xi_channel_free(out));
    ok(xi_leave(third));
    xi_msg m = XI_MSG_INIT;
    ok(xi_recv(in, &m, XI_TRY));
    check_bytes(&m, 300000, 3);
    xi_msg_release(&m);
    ok(xi_channel_free(in));
}
END_TEST

START_TEST(a_loan_is_filled_in_place_and_read_in_place) {
    xi_channel *out = queue(me), *in = queue(you);
    for (size_t n = 1; n <= (size_t)40 << 20; n *= 37) {
        xi_loan loan;
        xi_builder b;
        void *where;
        ok(xi_loan_get(me, XI_SIZE_BYTES(n), &loan));
        ck_assert_uint_eq((uintptr_t)loan.data % 64, 0);
        ck_assert_uint_ge(loan.size, XI_SIZE_BYTES(n));
        xi_builder_init(&b, loan.data, loan.size, 0);
        ok(xi_put_bytes_space(&b, 0, n, &where));
        memset(where, 0x5a, n);
        ok(xi_send_loan(out, &loan, (size_t)xi_builder_finish(&b), NULL));
        ck_assert_ptr_null(loan.data);
        xi_msg m = XI_MSG_INIT;
        ok(xi_recv(in, &m, XI_TRY));
        ck_assert(xi_msg_borrowed(&m));
        if (n < 100000) check_bytes(&m, n, 0x5a);
        xi_msg_release(&m);
        xi_msg_release(&m);
    }
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_dropped_loan_and_a_failed_send_give_the_memory_back) {
    xi_channel *out = open_with(me, "full", XI_QUEUE, 0, XI_CAPACITY_MIN, NULL);
    xi_loan loan;
    xi_stats s;
    xi_msg m = XI_MSG_INIT;
    ok(xi_loan_get(me, 100, &loan));
    xi_loan_drop(&loan);
    xi_loan_drop(&loan);
    while (xi_send_int(out, 1, XI_TRY) == 0) continue;
    ok(xi_loan_get(me, 100, &loan));
    memcpy(loan.data, &(uint64_t){XI_NONE}, 8);
    fails(XI_E_AGAIN, xi_send_loan(out, &loan, 8, &(xi_send_opts){.timeout = XI_TRY}));
    ck_assert_ptr_nonnull(loan.data); /* still the caller's */
    fails(XI_E_TOOBIG, xi_send_loan(out, &loan, loan.size + 8, &(xi_send_opts){.timeout = XI_TRY}));
    xi_loan_drop(&loan);
    xi_interp_stats(me, &s);
    ck_assert_uint_eq(s.blocks, 0);
    while (xi_recv(out, &m, XI_TRY) == 0) continue;
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(an_attached_buffer_goes_with_its_value) {
    xi_channel *out = queue(me), *in = queue(you);
    xi_loan root, child;
    xi_builder b;
    xi_stats s;
    ok(xi_loan_get(me, 64, &root));
    ok(xi_loan_get(me, 5 << 20, &child));
    memset(child.data, 0x77, 5 << 20);
    xi_buffer_ref ref = {child.handle, 0, 5 << 20}, wrong = ref;
    xi_builder_init(&b, root.data, root.size, 0);
    ok(xi_put_buffer(&b, &ref, 0));
    int64_t size = xi_builder_finish(&b);
    ok(size);
    ok(xi_loan_attach(&root, &child));
    ok(xi_send_loan(out, &root, (size_t)size, NULL));
    xi_msg m = XI_MSG_INIT;
    xi_cursor c;
    xi_value v;
    const void *data;
    ok(xi_recv(in, &m, XI_TRY));
    xi_cursor_init(&c, m.data, m.size);
    ck_assert_int_eq(xi_next(&c, &v), 1);
    ok(xi_msg_buffer(&m, &v.u.buffer, &data));
    for (size_t i = 0; i < 5 << 20; i += 4093) ck_assert_uint_eq(((const uint8_t *)data)[i], 0x77);
    wrong.length = (uint64_t)1 << 40;
    fails(XI_E_CORRUPT, xi_msg_buffer(&m, &wrong, &data));
    wrong = ref;
    wrong.block.segment += 1000;
    fails(XI_E_CORRUPT, xi_msg_buffer(&m, &wrong, &data));
    wrong = ref;
    wrong.offset = UINT64_MAX - 8;
    fails(XI_E_CORRUPT, xi_msg_buffer(&m, &wrong, &data));
    xi_interp_stats(me, &s);
    ck_assert_uint_eq(s.blocks, 2);
    xi_msg_release(&m);
    ok(xi_loan_get(me, 64, &root));
    xi_interp_stats(me, &s);
    ck_assert_uint_eq(s.blocks, 1);
    xi_loan_drop(&root);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_buffer_is_detached_from_a_value_that_was_not_sent) {
    xi_loan root, child[2], back;
    xi_handle handle[2];
    xi_stats s;
    ok(xi_loan_get(me, 64, &root));
    for (int i = 0; i < 2; i++) {
        ok(xi_loan_get(me, i ? 100 : 100000, &child[i]));
        handle[i] = child[i].handle;
        memset(child[i].data, 0x70 + i, 100);
        ok(xi_loan_attach(&root, &child[i]));
    }
    for (int i = 0; i < 2; i++) {
        xi_handle wrong = handle[i];
        wrong.generation++;
        fails(XI_E_INVAL, xi_loan_detach(&root, &wrong, &back));
        ok(xi_loan_detach(&root, &handle[i], &child[i]));
        fails(XI_E_INVAL, xi_loan_detach(&root, &handle[i], &back));
        ck_assert_uint_eq(((uint8_t *)child[i].data)[99], 0x70 + (unsigned)i);
    }
    ok(xi_loan_attach(&root, &child[1]));
    xi_loan_drop(&root); /* with what is attached to it, and no more */
    xi_interp_stats(me, &s);
    ck_assert_uint_eq(s.blocks, 1);
    xi_loan_drop(&child[0]);
    xi_interp_stats(me, &s);
    ck_assert_uint_eq(s.blocks, 0);
}
END_TEST

/* Blocks of that size that are handed out now: the memory of none is that of `held`. */
static void expect_elsewhere(size_t size, const void *held) {
    xi_loan other[20];
    for (int i = 0; i < 20; i++) {
        ok(xi_loan_get(me, size, &other[i]));
        ck_assert_ptr_ne(other[i].data, held);
    }
    for (int i = 0; i < 20; i++) xi_loan_drop(&other[i]);
}

START_TEST(memory_that_is_held_is_not_used_again) {
    static const size_t sizes[] = {64, 100000};
    xi_channel *out = queue(me), *in = queue(you);
    xi_msg m = XI_MSG_INIT;
    xi_hold hold[2];
    xi_stats s;
    for (int dropped = 0; dropped < 2; dropped++)
        for (int i = 0; i < 2; i++) {
            xi_loan loan;
            ok(xi_loan_get(me, sizes[i], &loan));
            const uint64_t *held = loan.data;
            for (int k = 0; k < 2; k++) ok(xi_loan_hold(&loan, &hold[k]));
            memcpy(loan.data, &(uint64_t){XI_NONE}, 8);
            if (dropped) {
                xi_loan_drop(&loan);
            } else {
                ok(xi_send_loan(out, &loan, 8, NULL));
                ok(xi_recv(in, &m, XI_TRY));
                xi_msg_release(&m);
            }
            for (int k = 0; k < 2; k++) {
                expect_elsewhere(sizes[i], held);
                ck_assert_uint_eq(*held, XI_NONE);
                xi_interp_stats(me, &s);
                ck_assert_uint_eq(s.blocks, 1);
                xi_hold_drop(&hold[k]);
                xi_hold_drop(&hold[k]);
            }
            xi_interp_stats(me, &s);
            ck_assert_uint_eq(s.blocks, 0);
        }
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_hold_that_ends_first_leaves_the_loan_alone) {
    xi_loan loan;
    xi_hold hold;
    xi_stats s;
    ok(xi_loan_get(me, 5000, &loan));
    ok(xi_loan_hold(&loan, &hold));
    xi_hold_drop(&hold);
    expect_elsewhere(5000, loan.data);
    xi_interp_stats(me, &s);
    ck_assert_uint_eq(s.blocks, 1);
    xi_loan_drop(&loan);
    xi_interp_stats(me, &s);
    ck_assert_uint_eq(s.blocks, 0);
    fails(XI_E_INVAL, xi_loan_hold(&loan, &hold));
}
END_TEST

static void count_up(void *context, uint64_t argument) { ((uint32_t *)context)[argument]++; }

START_TEST(free_functions_run_once_after_the_last_group) {
    static uint32_t ran[1000];
    xi_channel *out = open_with(me, "freed", XI_BROADCAST, XI_OPEN_SEND, 0, NULL), *in[3];
    uint32_t index;
    memset(ran, 0, sizeof ran);
    ok(xi_free_register(me, "count", count_up, ran, &index));
    for (int k = 0; k < 3; k++) in[k] = open_with(you, "freed", 0, 0, 0, NULL);
    uint64_t none = XI_NONE;
    for (uint64_t i = 0; i < 1000; i++) {
        ok(xi_send_ex(out, &none, 8, &(xi_send_opts){.timeout = XI_FOREVER, .free_index = index, .free_argument = i}));
        xi_msg m = XI_MSG_INIT;
        for (int k = 0; k < 3; k++) {
            ck_assert_uint_eq(ran[i], 0);
            ok(xi_recv(in[k], &m, XI_TRY));
        }
        ck_assert_uint_eq(ran[i], 0); /* received, not released */
        xi_msg_release(&m);
    }
    while (ran[999] == 0) ck_assert_int_ge(xi_free_run(me), 1);
    for (int i = 0; i < 1000; i++) ck_assert_uint_eq(ran[i], 1);
    fails(XI_E_NOENT, xi_send_ex(out, &none, 8, &(xi_send_opts){.free_index = 77}));
    for (int k = 0; k < 3; k++) ok(xi_channel_free(in[k]));
    /* Nobody listens: due at once. */
    ran[0] = 0;
    ok(xi_send_ex(out, &none, 8, &(xi_send_opts){.timeout = XI_FOREVER, .free_index = index, .free_argument = 0}));
    (void)xi_free_run(me);
    ck_assert_uint_eq(ran[0], 1);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(a_group_that_ends_gives_its_values_back) {
    static uint32_t ran[10];
    uint32_t index;
    xi_channel *out = open_with(me, "freed", XI_BROADCAST, XI_OPEN_SEND, 0, NULL);
    xi_channel *in = open_with(you, "freed", 0, 0, 0, NULL);
    uint64_t none = XI_NONE;
    ok(xi_free_register(me, "count", count_up, ran, &index));
    for (uint64_t i = 0; i < 10; i++)
        ok(xi_send_ex(out, &none, 8, &(xi_send_opts){.timeout = XI_FOREVER, .free_index = index, .free_argument = i}));
    ok(xi_channel_free(in));
    (void)xi_free_run(me);
    for (int i = 0; i < 10; i++) ck_assert_uint_eq(ran[i], 1);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(many_borrows_can_be_held_at_once) {
    enum { N = 5000 };
    xi_channel *out = open_with(me, "hold", XI_QUEUE, 0, 1 << 20, NULL), *in = open_with(you, "hold", 0, 0, 0, NULL);
    xi_msg *m = calloc(N, sizeof *m);
    size_t size;
    void *v = bytes_value(200000, 1, &size);
    uint64_t none = XI_NONE;
    uint32_t index;
    static uint32_t ran[N];
    ok(xi_free_register(me, "count", count_up, ran, &index));
    for (uint64_t i = 0; i < N; i++) {
        ok(xi_send_ex(out, &none, 8, &(xi_send_opts){.timeout = XI_TRY, .free_index = index, .free_argument = i}));
        ok(xi_recv(in, &m[i], XI_TRY));
    }
    xi_stats s;
    xi_interp_stats(you, &s);
    ck_assert_uint_eq(s.borrows, N);
    for (int i = 0; i < N; i++) xi_msg_release(&m[i]);
    for (int k = 0; k < N && xi_free_run(me) >= 0; k++) continue;
    for (int i = 0; i < N; i++) ck_assert_uint_eq(ran[i], 1);
    xi_interp_stats(you, &s);
    ck_assert_uint_eq(s.borrows, 0);
    free(m);
    free(v);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
}
END_TEST

static void on_signal(int signo) { (void)signo; }

struct interrupted {
    pthread_t thread;
    _Atomic bool done;
};

static void *interrupts(void *arg) {
    struct interrupted *me_ = arg;
    xi_channel *watch = queue(you);
    xi_channel_info info;
    do ok(xi_channel_stat(watch, &info));
    while (info.waiting == 0);
    /* Until it has had an effect: one that comes between the last look and the sleep is no interruption of the sleep. */
    while (!me_->done) {
        pthread_kill(me_->thread, SIGUSR1);
        sched_yield();
    }
    ok(xi_channel_free(watch));
    return NULL;
}

START_TEST(a_signal_ends_a_wait) {
    xi_channel *in = queue(me);
    struct interrupted self = {pthread_self(), false};
    pthread_t t;
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART}, NULL);
    pthread_create(&t, NULL, interrupts, &self);
    fails(XI_E_INTR, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_FOREVER));
    self.done = true;
    pthread_join(t, NULL);
    ok(xi_channel_free(in));
}
END_TEST

START_TEST(wrong_arguments_are_named) {
    xi_channel *ch, *out = queue(me);
    uint64_t none = XI_NONE;
    char longer[100];
    memset(longer, 'x', 99);
    longer[99] = 0;
    fails(XI_E_INVAL, xi_open(me, "", NULL, &ch));
    fails(XI_E_INVAL, xi_open(me, longer, NULL, &ch));
    fails(XI_E_INVAL, xi_open(me, "bad\nname", NULL, &ch));
    fails(XI_E_INVAL, xi_open(me, "q", &(xi_open_opts){.mode = 9}, &ch));
    fails(XI_E_INVAL, xi_open(me, "q", &(xi_open_opts){.flags = XI_OPEN_SEND | XI_OPEN_RECV}, &ch));
    fails(XI_E_TOOBIG, xi_open(me, "q", &(xi_open_opts){.capacity = XI_CAPACITY_MAX + 1}, &ch));
    fails(XI_E_TOOBIG, xi_open(me, "q", &(xi_open_opts){.grow = XI_GROW_MAX + 1}, &ch));
    fails(XI_E_INVAL, xi_open(me, "q", &(xi_open_opts){.capacity = 8192, .grow = 4096}, &ch));
    fails(XI_E_INVAL, xi_open(me, "q", &(xi_open_opts){.ttl_ns = -1}, &ch));
    fails(XI_E_INVAL, xi_open(me, "q", &(xi_open_opts){.when_full = XI_FULL_DROP + 1}, &ch));
    fails(XI_E_INVAL, xi_open(me, "q", &(xi_open_opts){.dead = ""}, &ch));
    fails(XI_E_INVAL, xi_open(me, "q", &(xi_open_opts){.dead = "q"}, &ch));
    fails(XI_E_INVAL, xi_open(me, "q", &(xi_open_opts){.dead = longer}, &ch));
    longer[32] = 0;
    fails(XI_E_INVAL, xi_open(me, "q", &(xi_open_opts){.group = longer}, &ch));
    fails(XI_E_NOENT, xi_open(me, "not there", &(xi_open_opts){.flags = XI_OPEN_EXISTING}, &ch));
    fails(XI_E_MISMATCH, xi_open(me, "queue", &(xi_open_opts){.mode = XI_BROADCAST}, &ch));
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_MISMATCH), "queue"));
    fails(XI_E_INVAL, xi_send(out, &none, 7, XI_TRY));
    fails(XI_E_INVAL, xi_send(out, NULL, 8, XI_TRY));
    fails(XI_E_INVAL, xi_send_ex(out, &none, 7, &(xi_send_opts){.ttl_ns = LONG}));
    fails(XI_E_INVAL, xi_send_many(out, (const void *[]){&none, &none}, (size_t[]){8, 7}, 2, XI_TRY));
    nothing_left(out);
    fails(XI_E_INVAL, xi_channel_groups(out, NULL, 1));
    xi_channel *only_out = open_with(me, "queue", 0, XI_OPEN_SEND, 0, NULL), *only_in = open_with(me, "queue", 0, XI_OPEN_RECV, 0, NULL);
    fails(XI_E_INVAL, xi_recv(only_out, &(xi_msg)XI_MSG_INIT, XI_TRY));
    fails(XI_E_INVAL, xi_send(only_in, &none, 8, XI_TRY));
    ok(xi_channel_free(only_in));
    ok(xi_channel_free(only_out));
    ok(xi_channel_free(out));
}
END_TEST

static void *leaves_later(void *arg) {
    (void)arg;
    xi_channel_info info;
    xi_channel *watch = queue(me);
    do ok(xi_channel_stat(watch, &info));
    while (info.waiting == 0);
    ok(xi_leave(you));
    ok(xi_channel_free(watch));
    return NULL;
}

START_TEST(leaving_sends_every_sleeper_home) {
    xi_channel *in = queue(you);
    pthread_t t;
    pthread_create(&t, NULL, leaves_later, NULL);
    fails(XI_E_LEFT, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_FOREVER));
    pthread_join(t, NULL);
    fails(XI_E_LEFT, xi_send_int(in, 1, XI_TRY));
    ok(xi_channel_free(in));
    ok(xi_join(&(xi_join_opts){.name = "you"}, &you));
}
END_TEST

START_TEST(references_are_counted_and_the_last_one_ends) {
    xi_interp *child;
    ok(xi_join(&(xi_join_opts){.name = "child", .flags = XI_JOIN_REQUIRES_REF}, &child));
    ok(xi_ref(me, xi_id(child)));
    ok(xi_ref(you, xi_id(child)));
    ok(xi_status(child));
    ok(xi_unref(me, xi_id(child)));
    fails(XI_E_NOENT, xi_unref(me, xi_id(child)));
    ok(xi_status(child));
    ok(xi_unref(you, xi_id(child)));
    xi_channel *in = NULL;
    ok(xi_open(child, "queue", NULL, &in));
    fails(XI_E_ENDING, xi_recv(in, &(xi_msg)XI_MSG_INIT, 5000 * MS));
    fails(XI_E_NOENT, xi_ref(me, 999999));
    ok(xi_channel_free(in));
    ok(xi_leave(child));
}
END_TEST

START_TEST(a_program_can_look_without_joining) {
    xi_channel *out = queue(me);
    xi_observer *o;
    xi_interp_info i[4];
    xi_channel_info c[4];
    for (int k = 0; k < 3; k++) ok(xi_send_int(out, k, XI_TRY));
    ok(xi_observe(xi_namespace(me), &o));
    ck_assert_int_eq(xi_list_interps(o, i, 4), 2);
    ck_assert_str_eq(i[0].name, "me");
    ck_assert_int_eq(i[0].pid, getpid());
    ck_assert_int_eq(i[0].id, xi_id(me));
    ck_assert_int_eq(xi_list_channels(o, c, 4), 1);
    ck_assert_str_eq(c[0].name, "queue");
    ck_assert_uint_eq(c[0].sent, 3);
    ck_assert_uint_eq(c[0].depth, 3);
    ck_assert_uint_eq(c[0].used, 48);
    ck_assert_uint_eq(c[0].handles, 1);
    xi_observer_free(o);
    fails(XI_E_NOENT, xi_observe("nobody-joined-this", &o));
    for (int k = 0; k < 3; k++) ck_assert_int_eq(take(out), k);
    ok(xi_channel_free(out));
}
END_TEST

int main(void) {
    Suite *s = suite_create("channel");
    TCase *t = tcase_create("channel");
    tcase_add_checked_fixture(t, join_both, leave_both);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, values_arrive_in_order);
    tcase_add_test(t, a_try_says_who_is_in_the_way);
    tcase_add_test(t, the_ring_goes_round_with_every_size);
    tcase_add_test(t, a_full_channel_says_so_and_loses_nothing);
    tcase_add_test(t, a_timeout_is_kept);
    tcase_add_test(t, a_sleeping_receiver_is_woken);
    tcase_add_test(t, a_sleeping_sender_is_woken);
    tcase_add_test(t, a_batch_keeps_order_and_takes_what_is_there);
    tcase_add_test(t, a_batch_mixes_small_and_large_values);
    tcase_add_test(t, a_queue_gives_each_value_to_one_consumer);
    tcase_add_test(t, a_broadcast_gives_each_value_to_every_subscriber);
    tcase_add_test(t, a_slow_subscriber_holds_up_the_channel_until_it_goes);
    tcase_add_test(t, named_groups_each_get_everything_and_share_it_among_themselves);
    tcase_add_test(t, sixty_four_groups_and_no_more);
    tcase_add_test(t, a_closed_channel_is_drained_and_then_closed);
    tcase_add_test(t, closing_wakes_who_sleeps);
    tcase_add_test(t, freeing_a_handle_sends_its_sleepers_home);
    tcase_add_test(t, undelivered_values_outlive_their_handles);
    tcase_add_test(t, a_value_outlives_the_interpreter_that_sent_it);
    tcase_add_test(t, a_loan_is_filled_in_place_and_read_in_place);
    tcase_add_test(t, a_dropped_loan_and_a_failed_send_give_the_memory_back);
    tcase_add_test(t, an_attached_buffer_goes_with_its_value);
    tcase_add_test(t, a_buffer_is_detached_from_a_value_that_was_not_sent);
    tcase_add_test(t, memory_that_is_held_is_not_used_again);
    tcase_add_test(t, a_hold_that_ends_first_leaves_the_loan_alone);
    tcase_add_test(t, free_functions_run_once_after_the_last_group);
    tcase_add_test(t, a_group_that_ends_gives_its_values_back);
    tcase_add_test(t, many_borrows_can_be_held_at_once);
    tcase_add_test(t, a_signal_ends_a_wait);
    tcase_add_test(t, wrong_arguments_are_named);
    tcase_add_test(t, leaving_sends_every_sleeper_home);
    tcase_add_test(t, references_are_counted_and_the_last_one_ends);
    tcase_add_test(t, a_program_can_look_without_joining);
    suite_add_tcase(s, t);
    return run_suite(s);
}
