/* SPDX-License-Identifier: MIT */
/*
 * History: values that a channel keeps for groups that join later, and groups
 * that begin with values that are there already, kept or not yet received by
 * all. Two interpreters in one process; they share nothing but the segments.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "channel/record.h"
#include "fixture.h"

static void send_try(xi_channel *ch, int64_t number, size_t padding) {
    ok(try_number(ch, number, padding, &(xi_send_opts){.timeout = XI_TRY}));
}

/* Exactly these, in order, and no more. */
static void expect_range(xi_channel *ch, int64_t first, int64_t last) {
    for (int64_t i = first; i <= last; i++) ck_assert_int_eq(take(ch), i);
    nothing_left(ch);
}

/* ---- channels */

static xi_channel *open_kept(xi_interp *who, const char *name, uint32_t mode, uint32_t flags, uint32_t retain) {
    xi_channel *ch = NULL;
    ok(xi_open(who, name, &(xi_open_opts){.mode = mode, .flags = flags, .retain = retain, .capacity = XI_CAPACITY_MIN}, &ch));
    return ch;
}

static int try_join(xi_interp *who, const char *name, const char *group, xi_group_opts opts, xi_channel **out) {
    return xi_open(who, name, &(xi_open_opts){.flags = XI_OPEN_RECV | XI_OPEN_EXISTING, .group = group, .group_opts = &opts}, out);
}

static xi_channel *join_at(xi_interp *who, const char *name, const char *group, uint32_t from, uint32_t last) {
    xi_channel *ch = NULL;
    ok(try_join(who, name, group, (xi_group_opts){.from = from, .last = last}, &ch));
    return ch;
}

static void let_go(xi_channel *a, xi_channel *b, xi_channel *c) {
    ok(xi_channel_free(a));
    ok(xi_channel_free(b));
    ok(xi_channel_free(c));
}

/* ------------------------------------------------------------------ keeping */

START_TEST(who_comes_late_gets_what_is_kept) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 3), *in[6];
    for (int64_t i = 1; i <= 10; i++) send_try(out, i, 8);
    in[0] = join_at(you, "b", NULL, XI_FROM_OLDEST, 0);
    in[1] = join_at(you, "b", "two", XI_FROM_LAST, 2);
    in[2] = join_at(you, "b", "all", XI_FROM_LAST, 100);
    in[3] = join_at(you, "b", "none", XI_FROM_LAST, 0);
    in[4] = join_at(you, "b", "tail", XI_FROM_TAIL, 0);
    send_try(out, 11, 8);
    in[5] = join_at(me, "b", "one", XI_FROM_LAST, 1);
    static const int64_t first[6] = {8, 9, 8, 11, 11, 11};
    for (int i = 0; i < 6; i++) {
        expect_range(in[i], first[i], 11);
        ok(xi_channel_free(in[i]));
    }
    xi_channel_info info;
    ok(xi_channel_stat(out, &info));
    ck_assert_uint_eq(info.retain, 3);
    ck_assert_uint_eq(info.depth, 0); /* what is kept is nobody's to receive */
    ck_assert_uint_eq(info.groups, 5);
    ck_assert_int_eq(xi_channel_groups(out, NULL, 0), 5);
    ok(xi_channel_free(out));
    ok(xi_remove(me, "b"));
}
END_TEST

START_TEST(blocks_are_kept_and_come_back) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 3), *a, *b;
    for (int64_t i = 1; i <= 10; i++) send_try(out, i, 3000);
    ck_assert_uint_eq(blocks_out(me), 3);
    a = join_at(you, "b", "a", XI_FROM_OLDEST, 0);
    b = join_at(you, "b", "b", XI_FROM_LAST, 1);
    xi_msg held = XI_MSG_INIT;
    ok(xi_recv(a, &held, XI_TRY));
    for (int64_t i = 11; i <= 20; i++) send_try(out, i, 8); /* out of what is kept */
    ck_assert_uint_eq(blocks_out(me), 3);                    /* but two groups have yet to receive them */
    ck_assert_int_eq(number_of(&held), 8);
    ck_assert_int_eq(take(a), 9);
    ck_assert_uint_eq(blocks_out(me), 2); /* 9 was for one of them alone */
    expect_range(a, 10, 20);
    expect_range(b, 10, 20);
    ck_assert_uint_eq(blocks_out(me), 1);
    xi_msg_release(&held);
    ck_assert_uint_eq(blocks_out(me), 0);
    for (int64_t i = 21; i <= 23; i++) send_try(out, i, 3000);
    ok(xi_remove(me, "b"));
    ck_assert_uint_eq(blocks_out(me), 0);
    let_go(a, b, out);
}
END_TEST

static void count_free(void *context, uint64_t argument) {
    (void)argument;
    ++*(int *)context;
}

START_TEST(a_free_function_runs_when_a_value_is_kept_no_longer) {
    int freed = 0;
    uint32_t index;
    ok(xi_free_register(me, "count", count_free, &freed, &index));
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 2);
    for (int64_t i = 0; i < 5; i++) ok(try_number(out, i, 8, &(xi_send_opts){.timeout = XI_TRY, .free_index = index}));
    ck_assert_uint_eq(blocks_out(me), 2);
    ck_assert_int_eq(freed, 3);
    ok(xi_remove(me, "b"));
    ck_assert_uint_eq(blocks_out(me), 0);
    ck_assert_int_eq(freed, 5);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(what_is_kept_gives_way) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 1000), *in;
    for (int64_t i = 1; i <= 2000; i++) send_try(out, i, 100 + (size_t)i % 50); /* never full */
    in = join_at(you, "b", "a", XI_FROM_OLDEST, 0);
    int64_t first = take(in);
    ck_assert_int_gt(first, 1950);
    ck_assert_int_lt(first, 1990);
    expect_range(in, first + 1, 2000);
    /* A group that is slow does make it full. */
    xi_msg m = XI_MSG_INIT;
    int64_t sent = 2000;
    uint64_t none[16] = {XI_BYTES | (uint64_t)sizeof none << 32, sizeof none - 16};
    while (xi_send(out, none, sizeof none, XI_TRY) == 0) sent++;
    ck_assert_int_gt(sent, 2020);
    fails(XI_E_TIMEOUT, xi_send(out, none, sizeof none, 5 * MS));
    while (xi_recv(in, &m, XI_TRY) == 0) continue;
    ok(xi_send(out, none, sizeof none, XI_TRY));
    xi_msg_release(&m);
    let_go(in, out, NULL);
    ok(xi_remove(me, "b"));
}
END_TEST

START_TEST(blocks_that_are_kept_give_way_too) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 1000), *in;
    for (int64_t i = 1; i <= 100; i++) send_try(out, i, 60000); /* 16, and then 256 KiB, of a handle's at a time */
    ck_assert_uint_ge(blocks_out(me), 4);
    ck_assert_uint_le(blocks_out(me), 16);
    in = join_at(you, "b", "a", XI_FROM_OLDEST, 0);
    int64_t first = take(in);
    ck_assert_int_gt(first, 80);
    expect_range(in, first + 1, 100);
    let_go(in, out, NULL);
    ok(xi_remove(me, "b"));
    ck_assert_uint_eq(blocks_out(me), 0);
}
END_TEST

/* What everybody has received gives way up to the last of it. */
START_TEST(a_block_that_all_have_received_gives_way) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 1000), *in = join_at(you, "b", "a", XI_FROM_TAIL, 0);
    int64_t n = 1;
    while (try_number(out, n, 60000, &(xi_send_opts){.timeout = XI_TRY}) == 0) n++;
    ck_assert_int_eq(take(in), 1);
    send_try(out, n, 60000);
    expect_range(in, 2, n);
    let_go(in, out, NULL);
    ok(xi_remove(me, "b"));
}
END_TEST

/* What is kept gives way up to the last byte, and no more of it than need be. */
START_TEST(what_fits_exactly_fits) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 1000), *in = join_at(you, "b", "a", XI_FROM_TAIL, 0);
    const struct xi_group *kept = &out->chan->groups[XI_GROUP_RETAIN];
    for (int i = 0; i < 100; i++) ok(xi_send_int(out, i, XI_TRY));
    for (int i = 0; i < 100; i++) ck_assert_int_eq(take(in), i);
    for (int i = 100; i < 254; i++) ok(xi_send_int(out, i, XI_TRY));
    ck_assert_uint_eq(xi_load_relaxed(&kept->head_seq), 0); /* 254 records of 16 bytes leave 32 */
    ok(xi_send_int(out, INT64_MAX, XI_TRY));                /* which this takes */
    ck_assert_uint_eq(xi_load_relaxed(&kept->head_seq), 0);
    ok(xi_send_int(out, 1, XI_TRY));
    ck_assert_uint_eq(xi_load_relaxed(&kept->head_seq), 1); /* the first for one of its size */
    for (int i = 100; i < 254; i++) ck_assert_int_eq(take(in), i);
    ck_assert_int_eq(take(in), INT64_MAX);
    ck_assert_int_eq(take(in), 1);
    for (int i = 0; i < 254; i++) ok(xi_send_int(out, i, XI_TRY));
    ok(xi_send_int(out, INT64_MAX, XI_TRY)); /* all that is kept makes way for what `in` has not received */
    ck_assert_uint_eq(xi_load_relaxed(&kept->head_seq), 256);
    let_go(in, out, NULL);
    ok(xi_remove(me, "b"));
}
END_TEST

/* A number that somebody wrote over is right again when nothing is kept. */
START_TEST(what_is_kept_is_counted_anew) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 2);
    struct xi_group *kept = &out->chan->groups[XI_GROUP_RETAIN];
    xi_store_relaxed(&kept->head_seq, 77);
    send_try(out, 1, 8);
    ck_assert_uint_eq(xi_load_relaxed(&kept->head_seq), 1);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(no_more_is_kept_than_the_channel_may_hold) {
    xi_channel *out = NULL, *in;
    ok(xi_open(me, "b", &(xi_open_opts){.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .retain = 10, .values = 4}, &out));
    for (int64_t i = 1; i <= 10; i++) send_try(out, i, 8);
    in = join_at(you, "b", NULL, XI_FROM_OLDEST, 0);
    expect_range(in, 7, 10);
    let_go(in, out, NULL);
    ok(xi_remove(me, "b"));
}
END_TEST

START_TEST(a_queue_keeps_values_too) {
    xi_channel *out = open_kept(me, "q", XI_QUEUE, 0, 3), *other;
    for (int64_t i = 1; i <= 10; i++) send_try(out, i, i % 2 ? 8 : 3000);
    expect_range(out, 1, 10); /* each to one consumer, as ever */
    other = join_at(you, "q", "other", XI_FROM_OLDEST, 0);
    expect_range(other, 8, 10);
    let_go(other, out, NULL);
    ok(xi_remove(me, "q"));
    ck_assert_uint_eq(blocks_out(me), 0);
}
END_TEST

START_TEST(kept_values_keep_a_channel_until_it_is_closed) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 3), *in;
    for (int64_t i = 1; i <= 5; i++) send_try(out, i, 3000);
    ok(xi_channel_free(out));
    in = join_at(you, "b", NULL, XI_FROM_OLDEST, 0);
    expect_range(in, 3, 5);
    ok(xi_channel_free(in));
    in = join_at(you, "b", NULL, XI_FROM_OLDEST, 0);
    ck_assert_int_eq(take(in), 3);
    ok(xi_close(in));
    ck_assert_int_eq(take(in), 4);
    ck_assert_int_eq(take(in), 5);
    fails(XI_E_CLOSED, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_FOREVER));
    ok(xi_channel_free(in));
    fails(XI_E_NOENT, xi_open(you, "b", &(xi_open_opts){.flags = XI_OPEN_EXISTING}, &in));
}
END_TEST

START_TEST(kept_values_outlive_who_sent_them) {
    xi_channel *out = open_kept(you, "b", XI_BROADCAST, XI_OPEN_SEND, 3), *in, *again;
    for (int64_t i = 1; i <= 5; i++) send_try(out, i, 3000);
    ok(xi_leave(you));
    ok(xi_channel_free(out));
    in = join_at(me, "b", "a", XI_FROM_OLDEST, 0);
    ck_assert_int_eq(take(in), 3);
    again = join_at(me, "b", "b", XI_FROM_OLDEST, 0);
    expect_range(again, 3, 5);
    expect_range(in, 4, 5);
    let_go(in, again, NULL);
    ok(xi_remove(me, "b"));
    ok(xi_join(&(xi_join_opts){.name = "you"}, &you));
}
END_TEST

/* ------------------------------------------------------------------ joining */

START_TEST(a_group_begins_where_the_slowest_is) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 0), *slow = join_at(you, "b", "slow", 0, 0);
    xi_channel *fast = join_at(you, "b", "fast", 0, 0), *late, *last;
    for (int64_t i = 1; i <= 8; i++) send_try(out, i, i % 2 ? 3000 : 8);
    expect_range(fast, 1, 8);
    ck_assert_int_eq(take(slow), 1);
    ck_assert_int_eq(take(slow), 2);
    late = join_at(me, "b", "late", XI_FROM_OLDEST, 0);
    last = join_at(me, "b", "last", XI_FROM_LAST, 2);
    ck_assert_uint_eq(blocks_out(me), 3); /* 3, 5 and 7 */
    expect_range(slow, 3, 8);
    ck_assert_uint_eq(blocks_out(me), 3);
    expect_range(last, 7, 8);
    expect_range(late, 3, 8);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(late));
    late = join_at(me, "b", "later", XI_FROM_OLDEST, 0); /* all have received all */
    send_try(out, 9, 8);
    expect_range(late, 9, 9);
    let_go(slow, fast, late);
    let_go(last, out, NULL);
    ok(xi_remove(me, "b"));
}
END_TEST

START_TEST(who_joins_a_group_that_is_there_takes_it_as_it_is) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 5), *a, *b;
    for (int64_t i = 1; i <= 5; i++) send_try(out, i, 8);
    a = join_at(me, "b", "g", XI_FROM_LAST, 2);
    b = join_at(you, "b", "g", XI_FROM_OLDEST, 0);
    ck_assert_int_eq(take(b), 4);
    ck_assert_int_eq(take(a), 5);
    let_go(a, b, out);
    ok(xi_remove(me, "b"));
}
END_TEST

START_TEST(a_temporary_group_ends_with_its_handle) {
    xi_channel *out = open_kept(me, "q", XI_QUEUE, 0, 0), *watch = NULL;
    ok(try_join(you, "q", NULL, (xi_group_opts){.flags = XI_GROUP_TEMPORARY}, &watch));
    for (int64_t i = 1; i <= 3; i++) send_try(out, i, 3000);
    expect_range(out, 1, 3);
    ck_assert_int_eq(take(watch), 1);
    xi_group_info g[3];
    ck_assert_int_eq(xi_channel_groups(out, g, 3), 2);
    ck_assert_int_eq(g[1].owner, xi_id(you));
    ok(xi_channel_free(watch));
    ck_assert_int_eq(xi_channel_groups(out, g, 3), 1);
    ck_assert_uint_eq(blocks_out(me), 0);
    ok(xi_channel_free(out));
}
END_TEST

START_TEST(wrong_options_are_named) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 1), *ch, *groups[64];
    fails(XI_E_INVAL, try_join(me, "b", "g", (xi_group_opts){.from = XI_FROM_LAST + 1}, &ch));
    fails(XI_E_INVAL, try_join(me, "b", "g", (xi_group_opts){.from = XI_FROM_OLDEST, .last = 3}, &ch));
    fails(XI_E_INVAL, try_join(me, "b", "g", (xi_group_opts){.flags = 1u << 31}, &ch));
    fails(XI_E_INVAL, try_join(me, "b", "g", (xi_group_opts){.flags = XI_GROUP_TEMPORARY}, &ch));
    int n = 0;
    for (; n < 64; n++)
        if (try_join(me, "b", NULL, (xi_group_opts){.from = XI_FROM_OLDEST}, &groups[n]) != 0) break;
    ck_assert_int_eq(n, 63); /* one is that which keeps values */
    fails(XI_E_LIMIT, try_join(me, "b", NULL, (xi_group_opts){.from = 0}, &ch));
    while (n > 0) ok(xi_channel_free(groups[--n]));
    ok(xi_channel_free(out));
}
END_TEST

/* ------------------------------------------------ what a joiner relies on */

struct joiner {
    pthread_t thread;
    const char *group;
    uint32_t from;
    xi_channel *ch;
    _Atomic bool done;
};

static void *join_in_thread(void *arg) {
    struct joiner *j = arg;
    j->ch = join_at(me, "b", j->group, j->from, 0);
    atomic_store(&j->done, true);
    return NULL;
}

START_TEST(a_joiner_holds_the_group_at_whose_values_it_begins) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, (uint32_t)_i), *slow = join_at(you, "b", "slow", 0, 0);
    struct joiner j = {.group = "late", .from = XI_FROM_OLDEST}, other = {.group = "tail", .from = XI_FROM_TAIL};
    for (int64_t i = 1; i <= 2; i++) send_try(out, i, 3000); /* one more than may be kept */
    ok(xi_lock(slow, slow->group, XI_FOREVER)); /* as if it were just receiving */
    ck_assert_int_eq(pthread_create(&other.thread, NULL, join_in_thread, &other), 0);
    pthread_join(other.thread, NULL); /* no business of one that begins at the tail */
    ck_assert_int_eq(pthread_create(&j.thread, NULL, join_in_thread, &j), 0);
    nanosleep(&(struct timespec){0, 50 * MS}, NULL); /* time in which one that does not wait would be through */
    ck_assert(!atomic_load(&j.done));
    ck_assert_uint_eq(slow->chan->groups[2].state, XI_GROUP_FREE);
    xi_unlock(slow->group);
    pthread_join(j.thread, NULL);
    expect_range(j.ch, 1, 2);
    let_go(j.ch, other.ch, slow);
    ok(xi_channel_free(out));
    ok(xi_remove(me, "b"));
}
END_TEST

/* A group that acknowledges gives blocks back behind its head, in any order. */
/* Of groups that are as far behind, what is kept is the one to begin at: no lock is waited for. */
START_TEST(a_joiner_waits_for_nobody_where_values_are_kept) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 10), *in = join_at(you, "b", "a", XI_FROM_TAIL, 0), *late;
    for (int64_t i = 1; i <= 3; i++) send_try(out, i, 8);
    ok(xi_lock(in, in->group, XI_TRY));
    late = join_at(me, "b", "late", XI_FROM_OLDEST, 0);
    xi_unlock(in->group);
    expect_range(late, 1, 3);
    let_go(in, late, out);
    ok(xi_remove(me, "b"));
}
END_TEST

START_TEST(a_joiner_leaves_out_what_has_been_given_back) {
    xi_channel *out = open_kept(me, "b", XI_BROADCAST, XI_OPEN_SEND, 0), *slow = join_at(you, "b", "slow", 0, 0), *late;
    struct xi_descriptor d;
    struct xi_map_entry *e;
    for (int64_t i = 1; i <= 4; i++) send_try(out, i, 3000);
    uint64_t record = 8 + sizeof d;
    xi_descriptor_read(&slow->home, record, &d); /* of the second */
    ok(xi_maps_release(you, d.segment, &e));
    ck_assert(xi_release_bit(e, d.granule, d.generation, slow->group_index));
    xi_maps_put(e);
    ck_assert_uint_eq(blocks_out(me), 3);
    late = join_at(me, "b", "late", XI_FROM_OLDEST, 0);
    expect_range(late, 3, 4);
    ck_assert_uint_eq(late->group->start_seq, 2);
    ok(xi_group_remove(out, "slow"));
    ck_assert_uint_eq(blocks_out(me), 0); /* the first was not claimed for good */
    let_go(late, slow, out);
}
END_TEST

/* -------------------------------------------------- joining beside everybody */

struct crowd {
    uint32_t retain;
    _Atomic bool stop;
    _Atomic int64_t sent, joins;
};

static void *send_on(void *arg) {
    struct crowd *c = arg;
    xi_channel *out = open_kept(me, "crowd", XI_BROADCAST, XI_OPEN_SEND, c->retain);
    for (int64_t i = 1; !atomic_load(&c->stop); i++) {
        size_t padding = i % 3 == 0 ? 3000 : i % 7 == 0 ? 600 : 16;
        ok(try_number(out, i, padding, &(xi_send_opts){.timeout = XI_FOREVER}));
        atomic_store(&c->sent, i);
    }
    ok(xi_close(out));
    ok(xi_channel_free(out));
    return NULL;
}

static void *receive_on(void *arg) {
    struct crowd *c = arg;
    (void)c;
    xi_channel *in = join_at(you, "crowd", "steady", XI_FROM_OLDEST, 0);
    xi_msg m = XI_MSG_INIT;
    int64_t before = 0;
    int rc;
    while ((rc = xi_recv(in, &m, XI_FOREVER)) == 0) {
        int64_t n = number_of(&m);
        if (before) ck_assert_int_eq(n, before + 1);
        before = n;
    }
    ck_assert_int_eq(rc, XI_E_CLOSED);
    ok(xi_channel_free(in));
    return NULL;
}

/* Joins again and again at values that others are just receiving, or that are just given up. */
static void *come_and_go(void *arg) {
    struct crowd *c = arg;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    xi_msg m = XI_MSG_INIT;
    while (!atomic_load(&c->stop)) {
        bool oldest = rand_r(&seed) % 2;
        xi_channel *in = NULL;
        int rc = try_join(you, "crowd", NULL, (xi_group_opts){.from = oldest ? XI_FROM_OLDEST : XI_FROM_LAST,
                                                             .last = oldest ? 0 : (uint32_t)rand_r(&seed) % 20}, &in);
        ok(rc);
        int64_t before = 0;
        for (int k = rand_r(&seed) % 30; k > 0 && (rc = xi_recv(in, &m, 100 * MS)) == 0; k--) {
            int64_t n = number_of(&m);
            if (before) ck_assert_int_eq(n, before + 1);
            before = n;
        }
        if (rc && rc != XI_E_TIMEOUT && rc != XI_E_CLOSED) ck_abort_msg("%s: %s", xi_error_name(rc), xi_error_text(rc));
        xi_msg_release(&m);
        ok(xi_channel_free(in));
        atomic_fetch_add(&c->joins, 1);
    }
    return NULL;
}

static void play(uint32_t retain) {
    struct crowd c = {.retain = retain};
    pthread_t t[5];
    xi_channel *keep = open_kept(me, "crowd", XI_BROADCAST, XI_OPEN_SEND, retain);
    ck_assert_int_eq(pthread_create(&t[0], NULL, receive_on, &c), 0);
    ck_assert_int_eq(pthread_create(&t[1], NULL, send_on, &c), 0);
    for (int i = 2; i < 5; i++) ck_assert_int_eq(pthread_create(&t[i], NULL, come_and_go, &c), 0);
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        nanosleep(&(struct timespec){0, 20000000}, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - start.tv_sec < 2 || atomic_load(&c.joins) < 100);
    atomic_store(&c.stop, true);
    for (int i = 0; i < 5; i++) pthread_join(t[i], NULL);
    ok(xi_remove(me, "crowd"));
    ok(xi_channel_free(keep));
    ck_assert_uint_eq(blocks_out(me), 0);
    ck_assert_int_gt(c.sent, 1000);
}

START_TEST(groups_join_at_values_that_others_are_receiving) { play(0); }
END_TEST
START_TEST(groups_join_at_values_that_are_being_given_up) { play(10); }
END_TEST

int main(void) {
    Suite *s = suite_create("retain");
    TCase *t = tcase_create("retain");
    tcase_add_checked_fixture(t, join_both, leave_nothing);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, who_comes_late_gets_what_is_kept);
    tcase_add_test(t, blocks_are_kept_and_come_back);
    tcase_add_test(t, a_free_function_runs_when_a_value_is_kept_no_longer);
    tcase_add_test(t, what_is_kept_gives_way);
    tcase_add_test(t, blocks_that_are_kept_give_way_too);
    tcase_add_test(t, a_block_that_all_have_received_gives_way);
    tcase_add_test(t, what_fits_exactly_fits);
    tcase_add_test(t, what_is_kept_is_counted_anew);
    tcase_add_test(t, no_more_is_kept_than_the_channel_may_hold);
    tcase_add_test(t, a_queue_keeps_values_too);
    tcase_add_test(t, kept_values_keep_a_channel_until_it_is_closed);
    tcase_add_test(t, kept_values_outlive_who_sent_them);
    tcase_add_test(t, a_group_begins_where_the_slowest_is);
    tcase_add_test(t, who_joins_a_group_that_is_there_takes_it_as_it_is);
    tcase_add_test(t, a_temporary_group_ends_with_its_handle);
    tcase_add_test(t, wrong_options_are_named);
    tcase_add_loop_test(t, a_joiner_holds_the_group_at_whose_values_it_begins, 0, 2);
    tcase_add_test(t, a_joiner_waits_for_nobody_where_values_are_kept);
    tcase_add_test(t, a_joiner_leaves_out_what_has_been_given_back);
    tcase_add_test(t, groups_join_at_values_that_others_are_receiving);
    tcase_add_test(t, groups_join_at_values_that_are_being_given_up);
    suite_add_tcase(s, t);
    return run_suite(s);
}
