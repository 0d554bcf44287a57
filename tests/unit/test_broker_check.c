/* SPDX-License-Identifier: MIT */
/*
 * Who checks the checker: state_is_valid(), which the replayed orders of events
 * ask after each, is shown a sound state in which one thing at a time is wrong.
 * It has to say which; put right again, it has to be content.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"
#include "xidata.h"

#define GONE 77777 /* no channel, interpreter or segment has this number */

static struct state st;
static uint64_t channel; /* its id */

static void step(const struct event *event) { state_step(&st, event); }
static uint64_t ask(uint64_t conn, struct xi_request q) {
    q.magic = XI_WIRE_MAGIC;
    q.version = XI_WIRE_VERSION;
    q.serial = 1;
    step(&(struct event){.kind = EVENT_REQUEST, .conn = conn, .request = &q});
    for (uint32_t i = 0; i < st.action_count; i++) {
        const struct action *a = &st.actions[i];
        if (a->kind != ACTION_REPLY || a->conn != conn) continue;
        ck_assert_msg(a->reply.status == 0, "op %u: %s", q.op, st.words);
        return a->reply.a;
    }
    ck_abort_msg("op %u was not answered", q.op);
}
static void join(uint64_t conn) {
    step(&(struct event){.kind = EVENT_CONNECT, .conn = conn, .uid = 1000, .pid = (int)conn, .start = conn});
    ck_assert_uint_eq(ask(conn, (struct xi_request){.op = XI_OP_JOIN, .name = "one", .text = "c"}), conn);
}

/* Interpreters 1 and 2, an orphan 3, a reference, a channel whose ring is about to move: of everything one. */
static void setup(void) {
    struct state_limits limits = STATE_LIMITS_DEFAULT;
    state_init(&st, &limits, 7);
    state_open(&st, 1000, &limits);
    for (uint64_t conn = 1; conn <= 3; conn++) join(conn);
    (void)ask(1, (struct xi_request){.op = XI_OP_ARENA, .a = 100000});
    (void)ask(3, (struct xi_request){.op = XI_OP_ARENA, .a = 100000});
    (void)ask(2, (struct xi_request){.op = XI_OP_REF, .a = 1});
    step(&(struct event){.kind = EVENT_DEATH, .slot = 3, .id = 3});
    step(&(struct event){.kind = EVENT_REPAIRED, .slot = 3, .id = 3});
    channel = ask(1, (struct xi_request){.op = XI_OP_OPEN, .name = "c", .e = 4 * XI_CAPACITY_DEFAULT});
    (void)ask(1, (struct xi_request){.op = XI_OP_RING, .a = channel, .b = 2 * XI_CAPACITY_DEFAULT});
    ck_assert_int_eq(st.interps[3].life, INTERP_ORPHAN);
    ck_assert_uint_eq(st.chans[0].id, channel);
    ck_assert_uint_eq(st.chans[0].part_count, 1);
}
static void teardown(void) { state_deinit(&st); }

static void sound(void) {
    const char *why = "";
    ck_assert_msg(state_is_valid(&st, &why), "%s", why);
}
static void complains(const char *words) {
    const char *why = "";
    ck_assert_msg(!state_is_valid(&st, &why), "content although: %s", words);
    ck_assert_str_eq(why, words);
}
/* With one field as it should not be; with one table's entry so; with an entry too many; with one too few. */
#define set(field, value, words)                                                                                       \
    do {                                                                                                               \
        __typeof__(field) kept_ = (field);                                                                             \
        (field) = (value);                                                                                             \
        complains(words);                                                                                              \
        (field) = kept_;                                                                                               \
        sound();                                                                                                       \
    } while (0)
#define more(field, words) set(field, (field) + 1, words)
#define entry(table, key, value, words) set(*table_find(table, key), value, words)
static void extra(struct table *t, uint64_t key, uint64_t value, const char *words) {
    *table_put(t, key) = value;
    complains(words);
    ck_assert(table_drop(t, key));
    sound();
}
static void missing(struct table *t, uint64_t key, const char *words) {
    uint64_t kept = *table_find(t, key);
    ck_assert(table_drop(t, key));
    complains(words);
    *table_put(t, key) = kept;
    sound();
}

START_TEST(references) {
    struct interp *one = &st.interps[1], *two = &st.interps[2];
    sound();
    entry(&two->refs, 1, 0, "a reference entry of zero");
    entry(&two->refs, 1, 2, "a reference count is not the sum over its holders");
    set(two->life, INTERP_DYING, "somebody who is gone holds a reference");
    more(one->refcount, "a reference count is not the sum over its holders");
    two->had_ref = true;
    set(two->flags, XI_JOIN_REQUIRES_REF, "an interpreter without references was not told to end");
    set(two->flags, XI_JOIN_REQUIRES_REF | 2, "an interpreter without references was not told to end");
    two->told_end = true;
    two->flags = XI_JOIN_REQUIRES_REF;
    sound();
}
END_TEST

START_TEST(interpreters) {
    struct interp *one = &st.interps[1], *orphan = &st.interps[3], *free_one = &st.interps[9];
    missing(&st.ids, 2, "the table of ids holds not exactly the living");
    extra(&st.ids, 3, 3, "the table of ids holds not exactly the living");
    entry(&st.ids, 1, 2, "an id leads to another's slot");
    set(st.next_id, 3, "an id from the future");
    set(free_one->held_count, 1, "a free slot holds something");
    extra(&free_one->handles, GONE, 1, "a free slot holds something");
    extra(&free_one->refs, GONE, 1, "a free slot holds something");
    extra(&free_one->opened, GONE, 1, "a free slot holds something");
    set(one->conn, GONE, "a connection and its interpreter disagree");
    set(one->conn, 2, "a connection and its interpreter disagree");
    set(orphan->held_count, 0, "an orphan without arenas");
    more(st.live, "counts of interpreters");
    more(st.dying, "counts of interpreters");
    more(st.orphans, "counts of interpreters");
    more(st.declaring, "count of those declaring");
    set(one->declaring, true, "count of those declaring");
}
END_TEST

START_TEST(segments_of_interpreters) {
    struct interp *one = &st.interps[1], *orphan = &st.interps[3];
    uint32_t number = one->held[0].number;
    set(one->held[0].number, GONE, "a held segment is not in the table");
    entry(&st.segments, number, 0, "a held segment is not in the table");
    set(st.next_segment, number, "a segment number from the future");
    *table_find(&st.segments, orphan->held[0].number) = (uint64_t)XI_SEG_OWN << 32 | 3;
    orphan->held[0].kind = XI_SEG_OWN;
    complains("an orphan holds more than arenas");
}
END_TEST

START_TEST(channels) {
    struct chan *ch = &st.chans[0];
    static const char sum[] = "a channel's handles are not the sum over interpreters";
    more(ch->handles, sum);
    more(ch->producers, sum);
    more(ch->consumers, sum);
    set(ch->told_producers, 0, "members were told of too few");
    set(ch->told_consumers, 0, "members were told of too few");
    more(ch->told_producers, "members were not told who is gone");
    more(ch->told_consumers, "members were not told who is gone");
    set(ch->ended, true, "a channel has ended that was not removed");
    set(ch->name[0], 'x', "a name leads elsewhere");
    entry(&st.chan_ids, channel, 5, "a channel's id leads elsewhere");
    set(ch->segment, GONE, "a channel's segment is not in the table");
    entry(&st.segments, ch->segment, 0, "a channel's segment is not in the table");
    more(st.chan_count, "count of channels");
    extra(&st.chan_ids, GONE, 3, "count of channels");
    extra(&st.interps[2].handles, GONE, HANDLE_ONE(HANDLE_BOTH), "a handle of a channel that is gone");
    ch->removed = true; /* then it may have ended, and another may have its name */
    ch->ended = true;
    ch->name[0] = 'x';
    sound();
}
END_TEST

START_TEST(parts_of_channels) {
    struct part *p = &st.chans[0].parts[0];
    uint32_t number = p->number;
    set(p->number, GONE, "a part of a channel is not in the table");
    entry(&st.segments, number, 0, "a part of a channel is not in the table");
    set(st.next_segment, number, "a segment number from the future");
    set(p->size, XI_PAGE + 8 * XI_CAPACITY_DEFAULT, "a ring larger than its channel may grow");
    set(p->maker, GONE, "a ring is being filled by nobody");
    set(p->maker, 3, "a ring is being filled by nobody");
    p->filling = false;
    p->maker = 3;
    sound();
}
END_TEST

START_TEST(what_was_opened) {
    struct table *opened = &st.interps[1].opened;
    set(st.open, false, "it is remembered who opened what where that does not matter");
    extra(&st.interps[2].opened, GONE, 1, "a channel that is gone is remembered as opened");
    entry(opened, channel, 0, "a channel was opened for nothing, or for something else");
    entry(opened, channel, 0xff, "a channel was opened for nothing, or for something else");
    missing(opened, channel, "a handle of a channel that was not opened");
}
END_TEST

START_TEST(accounts) {
    struct state_limits *used = &st.users[0].used;
    set(used->bytes, UINT64_MAX, "a quota was passed");
    set(used->segments, UINT32_MAX, "a quota was passed");
    set(used->channels, UINT32_MAX, "a quota was passed");
    set(used->interps, UINT32_MAX, "a quota was passed");
    set(st.limits.interps, 2, "a quota was passed");
    more(used->bytes, "bytes charged are not bytes held");
    more(st.bytes, "bytes charged are not bytes held");
    more(used->segments, "segments charged are not segments held");
    extra(&st.segments, GONE, 1, "segments charged are not segments held");
    more(used->channels, "channels charged");
    more(used->interps, "interpreters charged");
    st.other_limits.interps = 2; /* which is for others than the owner */
    sound();
    set(st.owner, 1001, "a quota was passed");
}
END_TEST

int main(void) {
    Suite *s = suite_create("the broker's check of itself");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, references);
    tcase_add_test(t, interpreters);
    tcase_add_test(t, segments_of_interpreters);
    tcase_add_test(t, channels);
    tcase_add_test(t, parts_of_channels);
    tcase_add_test(t, what_was_opened);
    tcase_add_test(t, accounts);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
