/* SPDX-License-Identifier: MIT */
/*
 * Threads that are let fall asleep in a call, which is seen (their state in
 * /proc, their bit in the mask), and must then be woken: long before the look
 * that sleepers take by themselves after a second.
 */
#ifndef XI_TESTS_SLEEPERS_H
#define XI_TESTS_SLEEPERS_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "channel/channel.h"
#include "fixture.h"

#define SOON (600 * MS) /* sleepers look by themselves after a second */
#define SLEEPERS 4

struct sleeper {
    pthread_t thread;
    int (*call)(xi_channel *ch);
    xi_channel *ch;
    int rc;
    _Atomic int tid;
    _Atomic bool done;
};
static struct sleeper S[SLEEPERS];

static inline int sends_one(xi_channel *ch) { return xi_send_int(ch, 7, LONG); }
static inline int receives_one(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    int rc = xi_recv(ch, &m, LONG);
    if (rc == 0 && ch->ack) ok(xi_ack(&m));
    xi_msg_release(&m);
    return rc;
}

static void *sleep_in_call(void *argument) {
    struct sleeper *s = argument;
    atomic_store(&s->tid, (int)gettid());
    s->rc = s->call(s->ch);
    atomic_store(&s->done, true);
    return NULL;
}

static inline void start(int i, xi_channel *ch, int (*call)(xi_channel *ch)) {
    S[i].ch = ch;
    S[i].call = call;
    atomic_store(&S[i].tid, 0);
    atomic_store(&S[i].done, false);
    ck_assert_int_eq(pthread_create(&S[i].thread, NULL, sleep_in_call, &S[i]), 0);
}
static inline void end(int i, int rc) {
    pthread_join(S[i].thread, NULL);
    if (S[i].rc != rc) ck_abort_msg("wanted %s, got %s: %s", xi_error_name(rc), xi_error_name(S[i].rc), xi_error_text(S[i].rc));
}

/* True if the kernel has it asleep. */
static inline bool is_asleep(const struct sleeper *s) {
    char path[64], text[512];
    int tid = atomic_load(&s->tid);
    if (!tid) return false;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false; /* it is done, and over */
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *state = strrchr(text, ')');
    return state && state[1] && state[2] == 'S';
}

static inline unsigned bits_set(const struct xi_mask *m) {
    unsigned n = 0;
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++) n += (unsigned)__builtin_popcountll(xi_load_full(&m->word[i]));
    return n;
}

/* So many bits in the mask, and those threads that are not done asleep: after the bit there is nothing else to sleep on. */
static inline void await_asleep(const struct xi_mask *m, unsigned bits, int threads) {
    bool all = false;
    int64_t until = xi_now() + 2 * LONG;
    while (!all) {
        if (xi_now() > until) ck_abort_msg("of %u threads %u wait", bits, bits_set(m));
        all = bits_set(m) == bits;
        for (int i = 0; i < threads && all; i++) all = atomic_load(&S[i].done) || is_asleep(&S[i]);
        if (!all) sched_yield();
    }
}

static inline int done_of(int threads) {
    int n = 0;
    for (int i = 0; i < threads; i++) n += atomic_load(&S[i].done);
    return n;
}

/* So many are done, soon. */
static inline void expect_done(int n, int threads) {
    int64_t begun = xi_now();
    while (done_of(threads) < n) {
        if (xi_now() - begun > SOON) ck_abort_msg("%d of %d went on: a wake was lost", done_of(threads), n);
        nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

/* Of this test: what another left is in other channels. */
static inline xi_channel *open_here(xi_interp *who, const char *what, uint32_t flags, xi_open_opts opts) {
    xi_channel *ch = NULL;
    char name[60];
    snprintf(name, sizeof name, "%lld.%s", (long long)xi_id(me), what);
    opts.flags = flags;
    opts.capacity = XI_CAPACITY_MIN;
    ok(xi_open(who, name, &opts, &ch));
    return ch;
}
static inline void let_go(xi_channel *a, xi_channel *b) {
    (void)xi_remove(me, xi_channel_name(a));
    ok(xi_channel_free(a));
    if (b) ok(xi_channel_free(b));
}

static inline void join_sleepers(void) {
    ok(xi_join(&(xi_join_opts){.name = "me", .spin_ns = -1}, &me));
    ok(xi_join(&(xi_join_opts){.name = "you", .spin_ns = -1}, &you));
}

#endif
