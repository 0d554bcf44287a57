/* SPDX-License-Identifier: MIT */
/*
 * The sides' half of the harness: clocks, the barrier, the raw round trip, and
 * the values and channels that cases have in common. harness.h tells the whole
 * story; pair.c is the coordinator's half.
 */
#include "bench/harness.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

bool bench_must_yield;
bool bench_tick_counter;
double bench_tick_ns = 1.0;
unsigned bench_microsecond = 64;

/* ---- time ---- */

uint64_t bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A pause instruction takes from 1 to 60 ns, by processor. The shortest of several tries: the others were interrupted. */
static void count_microsecond(void) {
    enum { PAUSES = 1000 };
    uint64_t best = UINT64_MAX;
    for (int try = 0; try < 20; try++) {
        uint64_t start = bench_now();
        for (int i = 0; i < PAUSES; i++) xi_pause();
        uint64_t ns = bench_now() - start;
        if (ns < best) best = ns;
    }
    bench_microsecond = (unsigned)(1000.0 * PAUSES / (double)(best + 1)) + 1;
}

#if defined(__x86_64__)
/* Whether the time stamp counter runs at one rate through all power states. */
static bool counter_is_constant(void) {
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 1u << 8);
}

/* A clock reading and the counter at the same moment: of several, the pair whose two counter readings lie closest. */
static uint64_t paired_reading(uint64_t *ticks) {
    uint64_t best = UINT64_MAX, at = 0;
    for (int i = 0; i < 32; i++) {
        uint64_t before = __builtin_ia32_rdtsc(), now = bench_now(), after = __builtin_ia32_rdtsc();
        if (after - before >= best) continue;
        best = after - before;
        at = now;
        *ticks = before + best / 2;
    }
    return at;
}

void bench_clock_init(void) {
    count_microsecond();
    if (!counter_is_constant()) return;
    uint64_t tick0 = 0, tick1 = 0, t0 = paired_reading(&tick0), t1;
    while ((t1 = bench_now()) - t0 < 20000000u) xi_pause();
    t1 = paired_reading(&tick1);
    if (tick1 <= tick0) return;
    bench_tick_ns = (double)(t1 - t0) / (double)(tick1 - tick0);
    bench_tick_counter = true;
}
#else
void bench_clock_init(void) { count_microsecond(); }
#endif

const char *bench_clock_name(void) { return bench_tick_counter ? "time stamp counter" : "CLOCK_MONOTONIC"; }

uint64_t bench_scale(uint64_t n, uint64_t ns, double seconds, uint64_t low, uint64_t high) {
    double per_op = (double)(ns ? ns : 1) / (double)n;
    double wanted = seconds * 1e9 / per_op;
    if (wanted < (double)low) return low;
    return wanted > (double)high ? high : (uint64_t)wanted;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, size_t n) {
    if (n == 0) return 0;
    qsort(values, n, sizeof values[0], ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ---- together ---- */

int bench_fail(struct bench_pair *p, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(p->shared->result.error[p->side], BENCH_TEXT, format, args);
    va_end(args);
    return -1;
}

/* Release and acquire on the arrivals: what either side did before is seen by the other after. */
void bench_barrier(struct bench_pair *p) {
    uint64_t mine = ++p->arrivals;
    xi_store_release(&p->shared->at[p->side].v, mine);
    while (xi_load_acquire(&p->shared->at[!p->side].v) < mine) bench_relax();
}

uint64_t bench_agree(struct bench_pair *p, uint64_t number) {
    if (p->side == 0) xi_store_relaxed(&p->shared->agreed.v, number);
    bench_barrier(p);
    uint64_t agreed = xi_load_relaxed(&p->shared->agreed.v);
    bench_barrier(p); /* before anybody agrees on something else */
    return agreed;
}

/* Side 0 and side 1 may both add: they take turns at barriers, or only one does. */
void bench_extra(struct bench_pair *p, const char *name, double value) {
    struct bench_result *r = &p->shared->result;
    if (r->extras == BENCH_EXTRAS) return;
    struct bench_extra *extra = &r->extra[r->extras++];
    snprintf(extra->name, sizeof extra->name, "%s", name);
    extra->value = value;
}

/* ---- memory ---- */

void bench_prefault(void *memory, size_t size) {
    volatile uint8_t *bytes = memory;
    for (size_t i = 0; i < size; i += 4096) bytes[i] = bytes[i];
}

void bench_fill(void *value, size_t size) {
    uint64_t *word = value;
    for (size_t i = 2; i + 1 < size / 8; i++) word[i] = (i + 1) * 0x9e3779b97f4a7c15ull;
}

bool bench_filled(const void *value, size_t size) {
    const uint64_t *word = value;
    for (size_t i = 2; i + 1 < size / 8; i++)
        if (word[i] != (i + 1) * 0x9e3779b97f4a7c15ull) return false;
    return true;
}

void *bench_private(struct bench_pair *p, size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) {
        bench_fail(p, "cannot get %zu bytes of memory; close other programs or use --size", size);
        return NULL;
    }
    return memory;
}

/* ---- the raw round trip ---- */

/*
 * One 64-byte message each way: seven words and the number that publishes them, all in one line, polled by the other
 * side. Nothing that moves 64 bytes to another process and back can take less.
 */
static inline void raw_send(struct bench_raw_line *line, uint64_t seq) {
    for (int i = 0; i < 7; i++) line->payload[i] = seq + (uint64_t)i;
    xi_store_release(&line->seq, seq);
}

/* The sum of the payload, so that all of it is read. */
static inline uint64_t raw_receive(struct bench_raw_line *line, uint64_t seq) {
    while (xi_load_acquire(&line->seq) != seq) bench_relax();
    uint64_t sum = 0;
    for (int i = 0; i < 7; i++) sum += line->payload[i];
    return sum;
}

static bool raw_rounds(struct bench_pair *p, uint64_t first, int rounds) {
    struct bench_raw_line *mine = &p->shared->raw[p->side], *theirs = &p->shared->raw[!p->side];
    bool right = true;
    for (uint64_t seq = first; seq < first + (uint64_t)rounds; seq++) {
        if (p->side == 0) raw_send(mine, seq);
        right &= raw_receive(theirs, seq) == 7 * seq + 21;
        if (p->side == 1) raw_send(mine, seq);
    }
    return right;
}

double bench_raw_round_trip(struct bench_pair *p, int chunks, int rounds) {
    enum { CHUNKS_MAX = 1024 };
    double ns[CHUNKS_MAX];
    if (chunks > CHUNKS_MAX) chunks = CHUNKS_MAX;
    bench_barrier(p);
    uint64_t seq = xi_load_relaxed(&p->shared->raw[0].seq) + 1;
    bench_barrier(p); /* both have read it */
    bool right = raw_rounds(p, seq, rounds); /* warm */
    for (int i = 0; i < chunks; i++) {
        seq += (uint64_t)rounds;
        uint64_t start = bench_now();
        right &= raw_rounds(p, seq, rounds);
        ns[i] = (double)(bench_now() - start) / rounds;
    }
    bench_barrier(p);
    if (!right) {
        bench_fail(p, "the raw cache-line round trip delivered wrong bytes: this machine's memory is not coherent");
        return NAN;
    }
    return p->side == 0 ? bench_median(ns, (size_t)chunks) : 0;
}

/* ---- values ---- */

bool bench_size_possible(uint64_t size) { return size == 8 || (size >= 24 && size % 8 == 0 && size < (1ull << 32)); }

/* An int of 8 bytes; for more, bytes with a header of 8. Content: zero, to be stamped. */
int bench_value_build(struct bench_pair *p, void *buffer, size_t size) {
    xi_builder *b = malloc(sizeof *b);
    if (!b) return bench_fail(p, "out of memory");
    void *payload = NULL;
    xi_builder_init(b, buffer, size, 0);
    if (size == 8) {
        xi_put_int(b, 0);
    } else {
        xi_put_bytes_space(b, 0, size - 8, &payload);
    }
    int64_t length = xi_builder_finish(b);
    free(b);
    if (payload) memset(payload, 0, size - 8);
    if (length < 0) return bench_fail(p, "cannot build a value of %zu bytes: %s", size, xi_error_text((int)length));
    if ((size_t)length != size)
        return bench_fail(p, "a value meant to take %zu bytes takes %lld", size, (long long)length);
    return 0;
}

/* ---- streams ---- */

/* From side 0's start to side 1's end, on both sides. */
static int timed_pass(struct bench_pair *p, bench_pass pass, uint64_t seq, uint64_t n, uint64_t *ns) {
    bench_barrier(p);
    uint64_t start = bench_now();
    if (pass(p, seq, n) < 0) return -1;
    uint64_t end = bench_now();
    xi_store_relaxed(&p->shared->stamp[p->side].v, p->side == 0 ? start : end);
    bench_barrier(p);
    *ns = xi_load_relaxed(&p->shared->stamp[1].v) - xi_load_relaxed(&p->shared->stamp[0].v);
    bench_barrier(p);
    return 0;
}

int bench_measure_stream(struct bench_pair *p, bench_pass pass, uint64_t warm) {
    struct bench_result *r = &p->shared->result;
    uint64_t ns = 0, seq = 0;
    if (timed_pass(p, pass, seq, warm, &ns) < 0) return -1;
    seq += warm;
    if (timed_pass(p, pass, seq, warm, &ns) < 0) return -1;
    seq += warm;
    uint64_t n = bench_agree(p, bench_scale(warm, ns, p->options->target_s, warm, 1000000000u));
    if (timed_pass(p, pass, seq, n, &ns) < 0) return -1;
    if (p->side == 1) return 0;
    r->ops = n;
    r->seconds = (double)ns / 1e9;
    r->ns = (double)ns / (double)n;
    return 0;
}

int bench_measure_slow_stream(struct bench_pair *p, bench_pass pass, uint64_t least) {
    struct bench_result *r = &p->shared->result;
    uint64_t ns = 0, seq = 0, n = least;
    for (int look = 0; look < 3; look++) { /* cold; warm, a fiftieth of the time; a tenth */
        if (timed_pass(p, pass, seq, n, &ns) < 0) return -1;
        seq += n;
        n = bench_agree(p, bench_scale(n, ns, p->options->target_s * (look == 0 ? 0.02 : look == 1 ? 0.1 : 1), least,
                                       1000000000u));
    }
    if (timed_pass(p, pass, seq, n, &ns) < 0) return -1;
    if (p->side == 1) return 0;
    r->ops = n;
    r->seconds = (double)ns / 1e9;
    r->ns = (double)ns / (double)n;
    return 0;
}

uint64_t bench_warm_up(const struct bench_pair *p) { return p->options->quick || bench_must_yield ? 20000 : 200000; }

/* ---- what adapters ask (peer.h) ---- */

int peer_side(const struct bench_pair *p) { return p->side; }
bool peer_asleep(const struct bench_pair *p) { return p->c->measure == MEASURE_ASLEEP; }
bool peer_spins(const struct bench_pair *p) { return p->c->measure == MEASURE_ROUNDS || p->c->measure == MEASURE_LOANS; }
size_t peer_size(const struct bench_pair *p) { return (size_t)p->c->bytes; }
const char *peer_folder(const struct bench_pair *p) { return p->folder; }
uint64_t peer_serial(const struct bench_pair *p) { return p->serial; }
void peer_keep(struct bench_pair *p, void *state) { p->peer_state = state; }
void *peer_state(const struct bench_pair *p) { return p->peer_state; }
void peer_meet(struct bench_pair *p) { bench_barrier(p); }
void peer_relax(void) { bench_relax(); }

bool peer_patience(int *tries) {
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return ++*tries < 10000;
}

/* ---- channels ---- */

static int open_one(struct bench_pair *p, struct bench_xi *x, int sender) {
    char name[64];
    snprintf(name, sizeof name, "run-%llu-from-%d", (unsigned long long)p->serial, sender);
    xi_open_opts opts = {.mode = XI_QUEUE, .flags = p->side == sender ? XI_OPEN_SEND : XI_OPEN_RECV};
    int rc = xi_open(x->me, name, &opts, &x->channel[sender]);
    return rc < 0 ? bench_fail(p, "opening channel %s: %s", name, xi_error_text(rc)) : 0;
}

int bench_xi_open(struct bench_pair *p, struct bench_xi *x, int64_t spin_ns) {
    *x = (struct bench_xi){.msg = XI_MSG_INIT};
    /* The library's default, in so many words: it does not spin by default in a process that has one CPU, as a pinned one has,
     * since it cannot know that its peer has another. */
    if (spin_ns == 0) spin_ns = 50000;
    xi_join_opts opts = {.name = p->side == 0 ? "bench side 0" : "bench side 1", .spin_ns = spin_ns,
                         .flags = XI_JOIN_NO_START};
    int rc = xi_join(&opts, &x->me);
    if (rc < 0) return bench_fail(p, "joining: %s", xi_error_text(rc));
    if (open_one(p, x, 0) < 0 || open_one(p, x, 1) < 0) return -1;
    x->out = x->channel[p->side];
    x->in = x->channel[!p->side];
    return 0;
}

void bench_xi_close(struct bench_xi *x) {
    xi_msg_release(&x->msg);
    xi_channel_free(x->channel[0]);
    xi_channel_free(x->channel[1]);
    xi_leave(x->me);
    x->me = NULL;
}

void bench_xi_mark(struct bench_xi *x) { xi_interp_stats(x->me, &x->before); }

void bench_xi_note(struct bench_pair *p, struct bench_xi *x, uint64_t ops) {
    xi_stats now;
    xi_interp_stats(x->me, &now);
    bench_extra(p, "parks_per_op", (double)(now.parks - x->before.parks) / (double)ops);
    bench_extra(p, "wakes_per_op", (double)(now.wakes - x->before.wakes) / (double)ops);
}
