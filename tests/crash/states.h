/* SPDX-License-Identifier: MIT */
/*
 * Deaths at chosen instructions, with the real library and the real broker: what
 * the tests of them share. One process, the doomed one, goes through an operation
 * by hand, store by store as wire/layout.h has it, and kills itself where its deed
 * is written to; another, the witness, needs what it held, or sleeps for want of
 * the ring that it owed. Measured: how long until the witness goes on. Sleepers
 * look for themselves after a second, so anything near that means that nobody was
 * repaired or rung.
 */
#ifndef XI_TEST_STATES_H
#define XI_TEST_STATES_H

#include "../system/harness.h"
#include "channel/channel.h"

#define BOUND (500 * MS)
#define BLOCK_BYTES 5000

static struct states {
    event_word event; /* when one of these changes: */
    _Atomic bool ready, go;
    _Atomic int32_t witness; /* its pid */
    _Atomic int64_t died, done;
} * S;

static inline void send_block(xi_channel *ch, int64_t number) {
    static uint64_t large[BLOCK_BYTES / 8 + 64];
    size_t size = encode_padded(large, sizeof large, number, BLOCK_BYTES);
    must(xi_send(ch, large, size, XI_FOREVER));
}

static inline xi_interp *join_sleepy(const char *name) {
    xi_interp *me = NULL;
    xi_join_opts opts = {.name = name, .spin_ns = -1};
    must(xi_join(&opts, &me));
    return me;
}

/* ---- the doomed one's */

__attribute__((noreturn)) static inline void die(void) {
    atomic_store(&S->died, now_ns());
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static inline void start_witness(void) {
    atomic_store(&S->go, true);
    announce(&S->event);
}
/* When the witness has said, in shared memory, that it is about to sleep: until the kernel says that it does. */
static inline void see_witness_sleep(void) { await(process_state(atomic_load(&S->witness)) == 'S', "the witness does not sleep"); }

static inline void lock_producers(xi_channel *ch) { must(xi_lock(ch, ch->chan, -1)); }
static inline void lock_group(xi_channel *ch) { must(xi_lock(ch, ch->group, -1)); }

/* ---- the witness's */

/* What it has to do before has been done: the doomed one may come, and starts it again. */
static inline void let_the_doomed_come(void) {
    atomic_store(&S->witness, getpid());
    atomic_store(&S->ready, true);
    announce(&S->event);
    await_event(&S->event, atomic_load(&S->go), "the doomed one does not come");
}

static inline void nothing_is_out(xi_interp *me) {
    xi_stats stats;
    xi_loan loan;
    int64_t begun = now_ns();
    do {
        must(xi_loan_get(me, 8, &loan)); /* makes the arena look at those that are out */
        xi_loan_drop(&loan);
        xi_interp_stats(me, &stats);
        expect(now_ns() - begun < STUCK, "%llu blocks did not come back", (unsigned long long)stats.blocks);
        rest(MS);
    } while (stats.blocks != 0);
}

/* ---- */

/* One death: both get `deed`. */
static inline void play_death(const char *name, body_fn doomed, body_fn witness, const void *deed) {
    void *argument = (void *)(uintptr_t)deed;
    S = shared_memory(sizeof *S);
    pid_t second = spawn(witness, argument);
    await_event(&S->event, atomic_load(&S->ready), "the witness does not come");
    pid_t first = spawn(doomed, argument);
    reap_signalled(first, SIGKILL, "the doomed one");
    reap_ok(second, "the witness");
    int64_t took = atomic_load(&S->done) - atomic_load(&S->died);
    printf("%-36s %7.2f ms\n", name, (double)took / (double)MS);
    fflush(stdout);
    expect(took < BOUND, "%s: the witness went on after %lld ms only", name, (long long)(took / MS));
    munmap(S, sizeof *S);
}

#endif
