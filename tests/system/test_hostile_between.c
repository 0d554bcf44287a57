/* SPDX-License-Identifier: MIT */
/*
 * A peer that writes between any two instructions. The library is built here
 * with a call before each atomic load of it (order.h, XI_LOAD_HOOK), so that a
 * word can be made to change at exactly that moment: after it was checked and
 * before it is used again, under a lock and outside. That is done for each
 * operation on each kind of channel, for each load that it makes of memory that
 * others may write, with values of spoil.h:
 *
 *   once   the word changes before the k-th load of the operation
 *   ever   the word changes to and fro before each load of it, for as long as
 *          the operation goes on: what happens under a peer that never stops, at
 *          its very worst
 *
 * The operation must come back, having made no more than some million loads, and
 * the other channel must go on exactly. Then the channel is removed and made anew.
 *
 *   test_hostile_between [CASE]     that case alone
 */
#include "between.h"

#define ONCE_MOST 256  /* loads of an operation that are tried one by one */
#define ONCE_VALUES 12 /* of spoil.h */
#define EVER_VALUES 8

/* Those that do nothing but on one kind. */
static bool makes_sense(enum kind kind, size_t op) {
    void (*const f)(void) = operations[op];
    if (f == do_ack || f == do_ack_keep || f == do_nack || f == do_extend) return kind == ACKING;
    if (f == do_reply || f == do_drop_request) return kind == CALLED;
    return true;
}

/* ------------------------------------------------------------------- cases */

/* How many loads each operation makes, and of which words (as distances in the list of extents): found by doing it once. */
struct plan {
    bool known;
    uint64_t loads;
    unsigned words;
    struct { unsigned extent; size_t offset; } word[EVER_MOST];
};
static struct plan plans[KINDS][OPERATIONS];

static void begin_case(enum kind kind, uint64_t number) {
    strcpy(mine->operation, "(making the scene)");
    atomic_fetch_add(&mine->steps, 1);
    scene_begin(&scene, kind, number * SHARDS + (uint64_t)(mine - shards));
    find_extents(&scene);
    writer.loads = 0;
    writer.since = processor_ns();
    writer.word_count = 0;
    writer.begun = false;
    writer.number = number;
}

static void end_case(void) {
    writer.mode = OFF;
    for (int i = 0; i < 3; i++) QUIET(xi_msg_release(&messages[i]));
    check_neighbour();
    scene_end(&scene);
    check_neighbour();
}

static const struct plan *plan_of(enum kind kind, size_t op) {
    struct plan *p = &plans[kind][op];
    if (p->known) return p;
    snprintf(mine->what, sizeof mine->what, "%s, operation %zu, unspoilt", kind_names[kind], op);
    begin_case(kind, 0);
    writer.mode = COUNT;
    operations[op]();
    writer.mode = OFF;
    p->loads = writer.loads;
    p->words = writer.word_count;
    for (unsigned i = 0; i < p->words; i++) {
        const struct extent *e = extent_of(writer.words[i]);
        p->word[i].extent = (unsigned)(e - writer.extents);
        p->word[i].offset = writer.words[i] - e->from;
    }
    p->known = true;
    end_case();
    return p;
}

/* What the writer is to do; false: there is no such load, or word. */
static bool aim(const struct plan *p, enum mode mode, uint64_t k, unsigned value) {
    if (mode == ONCE ? k >= p->loads : k >= p->words) return false;
    writer.value = value;
    writer.at = k;
    return true;
}

static void run_case(enum kind kind, size_t op, enum mode mode, uint64_t k, unsigned value, uint64_t number) {
    const struct plan *p = plan_of(kind, op);
    if (!aim(p, mode, k, value)) return;
    snprintf(mine->what, sizeof mine->what,
             "test_hostile_between %" PRIu64 ": %s, operation %zu, %s %" PRIu64 " (extent %u + %zu), value %u", number,
             kind_names[kind], op, mode == ONCE ? "before load" : "ever, word", k, mode == EVER ? p->word[k].extent : 0,
             mode == EVER ? p->word[k].offset : 0, value);
    begin_case(kind, number);
    if (mode == EVER) writer.word = writer.extents[p->word[k].extent].from + p->word[k].offset;
    uint64_t *shared_word = mode == EVER ? (uint64_t *)writer.word : NULL, was = shared_word ? *shared_word : 0;
    waits_for_locks = mode == EVER;
    writer.mode = mode;
    operations[op]();
    writer.mode = OFF;
    waits_for_locks = false;
    /* An interpreter's own words are put right, or the next case would begin in two wrongs. */
    if (writer.begun && *shared_word == writer.wrong) spoil_word(shared_word, was);
    end_case();
    atomic_fetch_add(&mine->cases, 1);
}

typedef void (*case_fn)(enum kind kind, size_t op, enum mode mode, uint64_t k, unsigned value, uint64_t number);

static uint64_t each_case(case_fn fn) {
    uint64_t number = 0;
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t op = 0; op < OPERATIONS; op++) {
            if (!makes_sense((enum kind)kind, op)) continue;
            for (uint64_t k = 0; k < ONCE_MOST; k++)
                for (unsigned v = 0; v < ONCE_VALUES; v++) fn((enum kind)kind, op, ONCE, k, v, number++);
            for (uint64_t k = 0; k < EVER_MOST; k++)
                for (unsigned v = 0; v < EVER_VALUES; v++) fn((enum kind)kind, op, EVER, k, v, number++);
        }
    return number;
}

static void nothing(enum kind kind, size_t op, enum mode mode, uint64_t k, unsigned value, uint64_t number) {
    (void)kind, (void)op, (void)mode, (void)k, (void)value, (void)number;
}

static void one_of_mine(enum kind kind, size_t op, enum mode mode, uint64_t k, unsigned value, uint64_t number) {
    if (!is_mine(number)) return;
    atomic_store(&mine->next, number);
    run_case(kind, op, mode, k, value, number);
}

static void shard_body(void *number) {
    mine = &shards[(uintptr_t)number];
    join_both(space);
    (void)each_case(one_of_mine);
    strcpy(mine->operation, "(leaving)");
    leave_both();
    atomic_store(&mine->next, UINT64_MAX);
}

static uint64_t wanted;

static void that_one(enum kind kind, size_t op, enum mode mode, uint64_t k, unsigned value, uint64_t number) {
    if (number == wanted) run_case(kind, op, mode, k, value, number);
}

static void only(const char *number) {
    wanted = strtoull(number, NULL, 0);
    mine = &shards[0];
    join_both(space);
    (void)each_case(that_one);
    leave_both();
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    further_ns(space, "b");
    shards = shared_memory(SHARDS * sizeof *shards);
    count = each_case(nothing);
#if defined(__SANITIZE_ADDRESS__)
    choose_stride(11, 1997);
#else
    choose_stride(5, 799);
#endif
    xi_interp *host = join_ns(space, "host", 0);
    pid_t broker = broker_pid(host);
    if (argc == 2) only(argv[1]);
    else watch_all();
    if (argc != 2) say_figures();
    expect(kill(broker, 0) == 0 && broker_pid(host) == broker, "the broker did not live through it");
    must(xi_leave(host));
    expect(findings == 0, "%d findings, see above", findings);
    return 0;
}
