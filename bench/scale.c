/* SPDX-License-Identifier: MIT */
/*
 * Several producers and several consumers on one channel.
 *
 * N processes send values of 24 bytes, N others receive them, all of them in the
 * one group of one queue; none is pinned, and beyond two they share two
 * processors, as they would in a real program. The time is that of one value:
 * from the moment they are let go until the last consumer has seen the channel
 * closed and drained, divided by how many values there were. Every value is
 * counted and summed: what was received must be what was sent.
 *
 * lock_share says how much of all processes' time went by in waiting for one of
 * the channel's locks: xi_lock_slow() of the library, which is where a lock that
 * is taken leads, is timed by a wrapper that the linker puts around it.
 */
#include <errno.h>
#include <signal.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/limits.h"
#include "bench/suites.h"
#include "channel/channel.h"

enum { SIZE = 24, MOST = 8, WARM = 20000, BATCH_OF_COUNT = 1000 };

struct crowd {
    bench_a64 received, sum, lock_ticks, failed, producers_left;
    char error[BENCH_TEXT];
};

static struct crowd *crowd;
static uint64_t lock_ticks; /* of this process */

int __real_xi_lock_slow(struct xi_channel *ch, xi_a32 *lock, xi_a32 *lock_sleep, int64_t timeout);
int __wrap_xi_lock_slow(struct xi_channel *ch, xi_a32 *lock, xi_a32 *lock_sleep, int64_t timeout);

int __wrap_xi_lock_slow(struct xi_channel *ch, xi_a32 *lock, xi_a32 *lock_sleep, int64_t timeout) {
    uint64_t start = bench_tick();
    int rc = __real_xi_lock_slow(ch, lock, lock_sleep, timeout);
    lock_ticks += bench_tick() - start;
    return rc;
}

/* In one of the crowd: says why and ends. */
static void give_up(const char *what, int rc) {
    if (xi_add_full(&crowd->failed, 1) == 0)
        snprintf(crowd->error, sizeof crowd->error, "%s: %s", what, xi_error_text(rc));
    _exit(1);
}

static void produce(xi_channel *ch, int who, uint64_t n) {
    uint64_t record[SIZE / 8];
    struct bench_pair nobody = {0};
    if (bench_value_build(&nobody, record, SIZE) < 0) _exit(1);
    for (uint64_t i = 0; i < n; i++) {
        bench_stamp(record, SIZE, i * MOST + (uint64_t)who);
        int rc = xi_send(ch, record, SIZE, XI_FOREVER);
        if (rc < 0) give_up("sending", rc);
    }
    if (xi_add_full(&crowd->producers_left, (uint64_t)-1) == 1) xi_close(ch); /* the last one: consumers drain it */
}

static void consume(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    uint64_t received = 0, sum = 0, number;
    int rc;
    while ((rc = xi_recv(ch, &m, XI_FOREVER)) == 0) {
        memcpy(&number, (const uint8_t *)m.data + 8, sizeof number);
        received++;
        sum += number;
    }
    if (rc != XI_E_CLOSED) give_up("receiving", rc);
    xi_msg_release(&m);
    xi_add_full(&crowd->received, received);
    xi_add_full(&crowd->sum, sum);
}

/* One of 2 * many: even ones produce. Waits on `gate` until all are there. */
static void one_of_crowd(const char *name, int who, uint64_t n, int ready, int gate) {
    xi_interp *me = NULL;
    xi_channel *ch = NULL;
    char c = 0;
    xi_join_opts join = {.name = "bench crowd", .flags = XI_JOIN_NO_START};
    xi_open_opts open = {.flags = who % 2 == 0 ? XI_OPEN_SEND : XI_OPEN_RECV};
    int rc = xi_join(&join, &me);
    if (rc == 0) rc = xi_open(me, name, &open, &ch);
    if (rc < 0) give_up("joining", rc);
    if (write(ready, "r", 1) != 1) _exit(1);
    close(ready); /* so that it ends when another dies before it comes to this */
    while (read(gate, &c, 1) < 0 && errno == EINTR) {} /* until it is closed */
    if (who % 2 == 0)
        produce(ch, who / 2, n);
    else
        consume(ch);
    xi_add_full(&crowd->lock_ticks, lock_ticks);
    xi_channel_free(ch);
    xi_leave(me);
    _exit(0);
}

static int start_all(const char *name, int many, uint64_t n, int *pids, int ready, int gate[2]) {
    int parent = (int)getpid();
    for (int i = 0; i < 2 * many; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            bench_follow_parent(parent);
            close(gate[1]);
            one_of_crowd(name, i, n, ready, gate[0]);
        }
        if (pids[i] < 0) return -1;
    }
    return 0;
}

static int await_all(int ready, int count) {
    char c;
    for (int i = 0; i < count; i++)
        if (!bench_await(ready) || read(ready, &c, 1) != 1) return -1;
    return 0;
}

/* How long `many` producers of n values each and as many consumers take, in ns; 0: they failed. */
static uint64_t pass(const char *name, int many, uint64_t n) {
    int pids[2 * MOST], ready[2], gate[2], bad = 0;
    memset(crowd, 0, sizeof *crowd);
    xi_store_relaxed(&crowd->producers_left, (uint64_t)many);
    if (pipe2(ready, O_CLOEXEC) < 0 || pipe2(gate, O_CLOEXEC) < 0) return 0;
    for (int i = 0; i < 2 * MOST; i++) pids[i] = -1;
    bool started = start_all(name, many, n, pids, ready[1], gate) == 0;
    close(ready[1]);
    started = started && await_all(ready[0], 2 * many) == 0;
    uint64_t start = bench_now();
    close(gate[0]);
    close(gate[1]);
    for (int i = 0; i < 2 * many && pids[i] > 0 && !started; i++) kill(pids[i], SIGKILL); /* they would wait for the missing one */
    for (int i = 0; i < 2 * many && pids[i] > 0; i++) bad |= bench_wait(pids[i]) != 0;
    uint64_t ns = bench_now() - start, values = (uint64_t)many * n;
    close(ready[0]);
    if (!started || bad) return 0;
    uint64_t sum = (uint64_t)MOST * (uint64_t)many * (n * (n - 1) / 2) + n * ((uint64_t)many * (uint64_t)(many - 1) / 2);
    if (xi_load_relaxed(&crowd->received) == values && xi_load_relaxed(&crowd->sum) == sum) return ns;
    snprintf(crowd->error, sizeof crowd->error, "%llu of %llu values arrived, or others",
             (unsigned long long)xi_load_relaxed(&crowd->received), (unsigned long long)values);
    return 0;
}

static void note_share(struct bench_result *out, uint64_t ns, int many) {
    double ticks = (double)xi_load_relaxed(&crowd->lock_ticks);
    snprintf(out->extra[0].name, sizeof out->extra[0].name, "lock_share");
    out->extra[0].value = ticks * bench_tick_ns / ((double)ns * 2 * many);
    out->extras = 1;
}

static int measure(const struct bench_case *c, const struct bench_options *o, struct bench_result *out) {
    static unsigned serial;
    char name[48];
    int many = (int)c->param;
    crowd = mmap(NULL, sizeof *crowd, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (crowd == MAP_FAILED) return snprintf(out->error[0], BENCH_TEXT, "mmap: %s", strerror(errno)), -1;
    snprintf(name, sizeof name, "bench.crowd.%u", ++serial);
    uint64_t n = WARM / (uint64_t)many, ns = pass(name, many, n);
    for (int look = 0; ns && look < 2; look++) { /* the first finds everything cold */
        n = bench_scale(n, ns, o->target_s * (look ? 1 : 0.2), BATCH_OF_COUNT, 100000000);
        snprintf(name, sizeof name, "bench.crowd.%u", ++serial);
        ns = pass(name, many, n);
    }
    if (ns) {
        out->ops = n * (uint64_t)many;
        out->ns = (double)ns / (double)out->ops;
        out->seconds = (double)ns / 1e9;
        note_share(out, ns, many);
    } else {
        snprintf(out->error[0], BENCH_TEXT, "%s", crowd->error[0] ? crowd->error : "one of the crowd died");
    }
    munmap(crowd, sizeof *crowd);
    return ns ? 0 : -1;
}

static int external(const struct bench_case *c, const struct bench_options *o, struct bench_result *out) {
    return bench_external(c, o, out, measure);
}

int scale_add(struct bench_suite *s, bool xi) {
    static const int counts[] = {1, 2, 4, 8};
    for (size_t i = 0; xi && bench_wants(s, SIZE) && i < sizeof counts / sizeof *counts; i++) {
        struct bench_case *c = bench_add(s, "scale", "xi", SIZE);
        if (!c) return -1;
        snprintf(c->label, sizeof c->label, "%d+%d", counts[i], counts[i]);
        bench_limit(c, "scale", "xi", "1+1");
        c->param = counts[i];
        c->needs_namespace = true;
        c->external = external;
    }
    return 0;
}
