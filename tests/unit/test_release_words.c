/* SPDX-License-Identifier: MIT */
/*
 * A block's four release words under three at once: its owner, who looks whether
 * it may take the block back; the last reader, who sets its bit; and a group that
 * joins at old values and clears its own. The code is the library's own, compiled
 * in here with a turn before each of its atomic accesses, and every order in
 * which the three can take their turns is tried.
 *
 * The block goes to one of two: the owner has taken it back, and the joiner was
 * told so; or the joiner has it, and the owner gets it when the joiner is done.
 * That rests on the owner's closing the first word before it looks at the others
 * again: without that (in a copy of the function here) there are orders in which
 * both have it, which is asserted too.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include "wire/order.h"

static void turn(void);
#undef xi_load_relaxed
#undef xi_load_acquire
#undef xi_load_full
#undef xi_store_release
#define xi_load_relaxed(p) (turn(), atomic_load_explicit((p), memory_order_relaxed))
#define xi_load_acquire(p) (turn(), atomic_load_explicit((p), memory_order_acquire))
#define xi_load_full(p) (turn(), atomic_load_explicit((p), memory_order_seq_cst))
#define xi_store_release(p, v) (turn(), atomic_store_explicit((p), (v), memory_order_release))
#define xi_cas64_full(p, expected, desired) (turn(), (xi_cas64_full)(p, expected, desired))

#include "arena/arena.c"
#include "channel/borrowed.c"
#include "channel/history.c"

#define GENERATION 77u
enum { OWNER, READER, JOINER, ALL };

static struct xi_asegment segment;
static struct {
    struct xi_release_table *table;
    struct xi_block block;
    struct xi_map_entry entry;
    uint32_t reader, joiner; /* groups */
    bool (*looks)(const struct xi_block *b);
    bool owner_has, joiner_has;
} S;

/* ------------------------------------------------------------- the three */

static bool without_closing(const struct xi_block *b) {
    struct xi_release *r = &b->segment->release[b->granule];
    for (int i = 0; i < 4; i++)
        if (xi_load_acquire(&r->word[i]) != XI_RELEASE_ALL(b->generation)) return false;
    xi_store_release(&r->word[0], XI_RELEASE_CLOSED);
    return true;
}

static void owner(void) { S.owner_has = S.looks(&S.block); }
static void reader(void) { (void)xi_release_bit(&S.entry, 0, GENERATION, S.reader); }
static void joiner(void) { S.joiner_has = clear_bit(S.table->release, S.joiner, GENERATION); }

static uint64_t bit_of(uint32_t group) {
    return atomic_load(&S.table->release[0].word[XI_RELEASE_WORD(group)]) & XI_RELEASE_BIT(group);
}

/* The reader's group has yet to release it, the joiner's was not there when it was sent. */
static void begin(void) {
    segment.release = S.table->release;
    S.block = (struct xi_block){.segment = &segment, .generation = GENERATION, .state = XI_BLOCK_SENT};
    S.entry.release.base = S.table;
    for (int i = 0; i < 4; i++) atomic_store(&S.table->release[0].word[i], XI_RELEASE_ALL(GENERATION));
    atomic_fetch_and(&S.table->release[0].word[XI_RELEASE_WORD(S.reader)], ~XI_RELEASE_BIT(S.reader));
    S.owner_has = S.joiner_has = false;
}

/* -------------------------------------------------------- taking turns */

static void (*const acts[ALL])(void) = {owner, reader, joiner};
static ucontext_t scheduler, actor[ALL];
static bool over[ALL];
static int playing = -1;
static char *stacks;
#define STACK 65536

static void turn(void) {
    if (playing >= 0) swapcontext(&actor[playing], &scheduler);
}
static void act(void) {
    acts[playing]();
    over[playing] = true;
}
/* Goes on as far as the next access, or to the end. */
static void go_on(int who) {
    playing = who;
    swapcontext(&scheduler, &actor[who]);
    playing = -1;
}

#define TURNS 40
static struct {
    int choice[TURNS], of[TURNS], taken; /* which of those that could go on went on */
} path;

static void set_out(int who) {
    getcontext(&actor[who]);
    actor[who].uc_stack.ss_sp = stacks + who * STACK;
    actor[who].uc_stack.ss_size = STACK;
    actor[who].uc_link = &scheduler;
    makecontext(&actor[who], act, 0);
    over[who] = false;
    go_on(who);
}

static void play_once(void) {
    begin();
    for (int i = 0; i < ALL; i++) set_out(i);
    for (int depth = 0;; depth++) {
        int ready[ALL], n = 0;
        for (int i = 0; i < ALL; i++)
            if (!over[i]) ready[n++] = i;
        if (n == 0) break;
        ck_assert_int_lt(depth, TURNS); /* a loop without end */
        if (depth == path.taken) path.choice[path.taken++] = 0;
        path.of[depth] = n;
        go_on(ready[path.choice[depth]]);
    }
}

/* The next order; false when there is none. */
static bool next_path(void) {
    while (path.taken) {
        if (++path.choice[path.taken - 1] < path.of[path.taken - 1]) return true;
        path.taken--;
    }
    return false;
}

/* ------------------------------------------------------------------ judging */

static void judge(void) {
    ck_assert(bit_of(S.reader));
    if (S.joiner_has) {
        ck_assert(!bit_of(S.joiner));
        ck_assert(!released_by_all(&S.block));
        ck_assert(xi_release_bit(&S.entry, 0, GENERATION, S.joiner));
    }
    if (!S.owner_has) ck_assert(released_by_all(&S.block)); /* nobody has it: it does come back, at the next look */
    ck_assert_uint_eq(atomic_load(&S.table->release[0].word[0]), XI_RELEASE_CLOSED);
    ck_assert(!clear_bit(S.table->release, S.joiner, GENERATION)); /* nobody joins at it any more */
    ck_assert(!released_by_all(&S.block));                         /* nor is it taken back twice */
}

struct outcome {
    uint64_t orders, both, owners, joiners, neithers;
};

static void play_all(struct outcome *o) {
    path.taken = 0;
    do {
        play_once();
        o->orders++;
        o->both += S.owner_has && S.joiner_has;
        o->owners += S.owner_has;
        o->joiners += S.joiner_has;
        o->neithers += !S.owner_has && !S.joiner_has;
        if (!(S.owner_has && S.joiner_has)) judge();
    } while (next_path());
}

/* Groups of the reader and of the joiner, in each order of their words, and in one word. */
static const struct {
    uint32_t reader, joiner;
} groups[] = {{0, 20}, {20, 0}, {1, 2}, {20, 40}, {40, 20}, {50, 16}, {17, 18}, {63, 62}};

static struct outcome with(bool (*looks)(const struct xi_block *b)) {
    struct outcome all = {0};
    S.looks = looks;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        S.reader = groups[i].reader;
        S.joiner = groups[i].joiner;
        play_all(&all);
    }
    return all;
}

START_TEST(a_block_has_one_owner_in_every_order) {
    struct outcome o = with(released_by_all);
    ck_assert_uint_eq(o.both, 0);
    ck_assert(o.owners && o.joiners && o.neithers); /* each way was met */
    printf("%llu orders: %llu taken back, %llu joined, %llu at the next look\n", (unsigned long long)o.orders,
           (unsigned long long)o.owners, (unsigned long long)o.joiners, (unsigned long long)o.neithers);
}
END_TEST

START_TEST(four_words_at_four_moments_prove_nothing) { ck_assert_uint_gt(with(without_closing).both, 0); }
END_TEST

static void setup(void) {
    S.table = calloc(1, sizeof *S.table + sizeof(struct xi_release));
    stacks = malloc((size_t)ALL * STACK);
    ck_assert(S.table && stacks);
}
static void teardown(void) {
    free(S.table);
    free(stacks);
}

int main(void) {
    Suite *s = suite_create("release words");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_block_has_one_owner_in_every_order);
    tcase_add_test(t, four_words_at_four_moments_prove_nothing);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
