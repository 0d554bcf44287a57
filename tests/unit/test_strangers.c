/* SPDX-License-Identifier: MIT */
/*
 * Blocks of arenas that are not at hand: of a process that nobody here has had
 * anything of, which cannot be mapped for want of descriptors; of one that is
 * gone; and named by what cannot be. Groups that begin or end, and values that
 * are kept no more, tell these apart.
 */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel/record.h"
#include "fixture.h"

static xi_channel *news(xi_interp *who, xi_open_opts o) {
    xi_channel *ch = NULL;
    o.mode = XI_BROADCAST;
    o.capacity = XI_CAPACITY_MIN;
    ok(xi_open(who, "strange", &o, &ch));
    return ch;
}
static xi_channel *late(const xi_group_opts *opts) {
    return news(you, (xi_open_opts){.flags = XI_OPEN_RECV, .group = "late", .group_opts = opts});
}
static void let_go(xi_channel *a, xi_channel *b) {
    ok(xi_remove(me, "strange"));
    ok(xi_channel_free(a));
    if (b) ok(xi_channel_free(b));
}

/* ---- a process that sends the number 1 in a block, and ends well once that has come back */

static pid_t stranger(xi_open_opts o) {
    int ready[2];
    char c;
    ck_assert_int_eq(pipe(ready), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        o.flags = XI_OPEN_SEND;
        xi_interp *third;
        if (xi_join(&(xi_join_opts){.name = "stranger"}, &third)) _exit(2);
        xi_channel *out = news(third, o);
        send_number(out, 1, 20000);
        if (write(ready[1], "r", 1) != 1) _exit(3);
        int64_t until = xi_now() + LONG;
        while (blocks_out(third) && xi_now() < until) nanosleep(&(struct timespec){0, (long)MS}, NULL);
        uint64_t out_still = blocks_out(third);
        if (xi_channel_free(out) || xi_leave(third)) _exit(4);
        _exit(out_still ? 5 : 0);
    }
    close(ready[1]);
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    close(ready[0]);
    return pid;
}
static void has_it_back(pid_t pid) {
    int status = -1;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}

static struct rlimit many;
static void no_descriptors(void) {
    int lowest = dup(STDERR_FILENO);
    ck_assert_int_ge(lowest, 0);
    close(lowest);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &many), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)lowest, many.rlim_max}), 0);
}
static void descriptors_again(void) { ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &many), 0); }

START_TEST(a_group_does_not_end_while_it_cannot_give_back) {
    xi_channel *in = late(NULL);
    pid_t pid = stranger((xi_open_opts){0});
    no_descriptors();
    int rc = xi_group_remove(in, "late");
    descriptors_again();
    fails(XI_E_NOMEM, rc);
    ck_assert(xi_group_lives(in));
    ok(xi_group_remove(in, "late"));
    fails(XI_E_LEFT, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    has_it_back(pid);
    let_go(in, NULL);
}
END_TEST

/* Its handle is gone then: an orphan, which who finds the channel full ends. */
START_TEST(a_group_of_its_own_is_ended_later) {
    xi_channel *in = news(you, (xi_open_opts){.flags = XI_OPEN_RECV}), *out = news(me, (xi_open_opts){.flags = XI_OPEN_SEND});
    pid_t pid = stranger((xi_open_opts){0});
    no_descriptors();
    int rc = xi_channel_free(in);
    descriptors_again();
    ok(rc);
    ck_assert(xi_group_orphaned(out));
    for (int i = 0; i < 1000; i++) ok(xi_send_int(out, i, XI_TRY));
    ck_assert(!xi_group_orphaned(out));
    has_it_back(pid);
    let_go(out, NULL);
}
END_TEST

/* What is kept stays while it cannot be given back, and goes with the next send that can. */
START_TEST(what_is_kept_stays) {
    pid_t pid = stranger((xi_open_opts){.retain = 1});
    xi_channel *out = news(me, (xi_open_opts){.flags = XI_OPEN_SEND, .retain = 1});
    struct xi_group *kept = &out->chan->groups[XI_GROUP_RETAIN];
    ok(xi_send_int(out, 0, XI_TRY)); /* whose first send needs memory of its own */
    has_it_back(pid);
    pid = stranger((xi_open_opts){.retain = 1});
    no_descriptors();
    int rc = xi_send_int(out, 2, XI_TRY);
    uint64_t two = xi_load_relaxed(&out->chan->tail_seq) - xi_load_relaxed(&kept->head_seq);
    descriptors_again();
    ok(rc);
    ck_assert_uint_eq(two, 2);
    ok(xi_send_int(out, 3, XI_TRY));
    ck_assert_uint_eq(xi_load_relaxed(&out->chan->tail_seq) - xi_load_relaxed(&kept->head_seq), 1);
    has_it_back(pid);
    let_go(out, NULL);
}
END_TEST

/* ---- segments that are none: not there, another kind of segment, an odd number */

static uint32_t no_arena(const xi_channel *ch, int which) {
    return which == 0 ? 0x00fffffeu : which == 1 ? ch->segment & ~1u : 0x00ffffffu;
}
/* The record of the first value that was sent, a block. */
static void spoil(xi_channel *ch, int which) {
    uint64_t first = xi_load_relaxed(&ch->chan->groups[ch->retain ? XI_GROUP_RETAIN : ch->group_index].head);
    xi_a64 *descriptor = xi_header_at(&ch->home, first + 8);
    xi_store_full(descriptor, (xi_load_full(descriptor) & ~(uint64_t)UINT32_MAX) | no_arena(ch, which));
}

/* Who is gone has its blocks with it: the group ends, and what follows is given back. */
START_TEST(a_group_ends_past_what_is_no_more) {
    xi_channel *in = late(NULL), *out = news(me, (xi_open_opts){.flags = XI_OPEN_SEND});
    send_number(out, 1, 20000);
    send_number(out, 2, 20000);
    spoil(in, _i);
    ok(xi_group_remove(in, "late"));
    ck_assert_uint_eq(blocks_out(me), 1); /* the one that nobody names any more */
    let_go(in, out);
}
END_TEST

/* And a group begins after it, in all its numbers. */
START_TEST(a_group_begins_after_what_is_no_more) {
    xi_group_opts opts = {.from = XI_FROM_OLDEST, .flags = _i > 2 ? XI_GROUP_ACK : 0};
    xi_channel *out = news(me, (xi_open_opts){.flags = XI_OPEN_SEND, .retain = 4});
    send_number(out, 1, 20000);
    for (int i = 2; i <= 3; i++) send_number(out, i, i == 2 ? 20000 : 8);
    spoil(out, _i % 3);
    xi_channel *in = late(&opts);
    xi_group_info g;
    ck_assert_int_eq(xi_channel_groups(in, &g, 1), 1);
    ck_assert_uint_eq(g.depth, 2);
    ck_assert_int_eq(take(in), 2);
    if (!in->ack) {
        ck_assert_int_eq(take(in), 3);
        nothing_left(in);
    }
    let_go(in, out);
}
END_TEST

/* A kept record that cannot be: nothing is known of what was kept, which is counted; and who begins there is told. */
START_TEST(a_kept_record_that_cannot_be) {
    xi_channel *out = news(me, (xi_open_opts){.flags = XI_OPEN_SEND, .retain = 2}), *in = NULL;
    struct xi_group *kept = &out->chan->groups[XI_GROUP_RETAIN];
    for (int i = 1; i <= 2; i++) ok(xi_send_int(out, i, XI_TRY));
    xi_store_full(xi_header_at(&out->home, xi_load_relaxed(&kept->head)), XI_REC(XI_CAPACITY_MIN * 2, XI_REC_INLINE, 0, 1));
    if (_i) {
        in = late(&(xi_group_opts){.from = XI_FROM_OLDEST});
        fails(XI_E_CORRUPT, xi_recv(in, &(xi_msg)XI_MSG_INIT, XI_TRY));
    }
    ok(xi_send_int(out, 3, XI_TRY));
    ck_assert_uint_eq(xi_load_relaxed(&kept->head), xi_load_relaxed(&out->chan->tail));
    ck_assert_uint_eq(xi_load_relaxed(&kept->head_seq), 3);
    ck_assert_uint_eq(xi_load_relaxed(&kept->corrupt), 1);
    if (in) ck_assert_int_eq(take(in), 3);
    let_go(out, in);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("strangers");
    TCase *t = tcase_create("strangers");
    tcase_add_checked_fixture(t, join_both, leave_both);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_group_does_not_end_while_it_cannot_give_back);
    tcase_add_test(t, a_group_of_its_own_is_ended_later);
    tcase_add_test(t, what_is_kept_stays);
    tcase_add_loop_test(t, a_group_ends_past_what_is_no_more, 0, 3);
    tcase_add_loop_test(t, a_group_begins_after_what_is_no_more, 0, 6);
    tcase_add_loop_test(t, a_kept_record_that_cannot_be, 0, 2);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
