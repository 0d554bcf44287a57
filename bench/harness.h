/* SPDX-License-Identifier: MIT */
/*
 * How a figure is taken.
 *
 * A figure is one case run once: the coordinator (this process, asleep
 * meanwhile) maps what the two sides share, forks side 0 and side 1, each
 * pinned to a processor of its own, and waits for both. Both sides then go
 * through the same steps together, held in line by a spinning barrier:
 *
 *     set up, prefault and warm up -> raw round trip -> THE FIGURE -> raw round trip -> tear down
 *
 * The raw round trip is that of one cache line bounced between exactly these
 * two processes. It names the regime (two cores, or two hardware threads of one
 * core: a virtual machine's host may change which, at any time), and a figure
 * before and after which it differs is of no regime: it is called mixed, and
 * taken again. A fresh pair of processes for every figure costs milliseconds
 * and buys that no figure inherits another's mappings, arenas or accidents.
 *
 * The sides join the namespace after the fork. A keeper process, joined from
 * first to last, keeps broker and namespace alive in between.
 */
#ifndef XI_BENCH_HARNESS_H
#define XI_BENCH_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bench/histogram.h"
#include "bench/peer.h"
#include "bench/place.h"
#include "wire/order.h"
#include "xidata.h"

typedef _Atomic uint64_t bench_a64;
typedef _Atomic uint32_t bench_a32;

#define BENCH_EXTRAS 8
#define BENCH_LABEL 32
#define BENCH_TEXT 320
#define BENCH_RAW_BYTES 64
#define BENCH_REGIME_LIMIT_NS 200.0 /* a raw round trip below it, where nothing else tells: two hardware threads of one core */

struct bench_options {
    bool quick;
    int repeat;
    uint64_t only_size;  /* 0: every size */
    const char *only_system; /* NULL: every system */
    double target_s;     /* how long one figure measures, about */
    const char *json;    /* file, "-" for standard output, or NULL */
    const char *python[8];
    int pythons;
    const char *peers; /* names with commas between, "all", or NULL: none but xidata itself */
};

/* Where the sides run. */
struct bench_place {
    int cpu[2];
    int allowed;  /* processors this process may use */
    bool pinned;  /* false: fewer than two, so both sides share what there is */
    enum place_pair pair;
};

enum bench_regime { BENCH_TWO_CORES = 0, BENCH_ONE_CORE = 1, BENCH_MIXED = 2 };

struct bench_extra {
    char name[24];
    double value;
};

/* What one run of a case found. Lives in memory that both sides and the coordinator share. */
struct bench_result {
    double ns;      /* the figure: nanoseconds for one operation */
    uint64_t ops;   /* operations measured */
    double seconds; /* and how long they took together */
    double round_trip; /* of both sides awake, where that is what was measured; else 0 */
    bool gave_up;      /* there was no end to it */
    double raw_before, raw_after;
    enum bench_regime regime;
    uint32_t extras;
    struct bench_extra extra[BENCH_EXTRAS];
    struct histogram histogram; /* per-operation nanoseconds, count 0 where not recorded */
    char error[2][BENCH_TEXT];
};

/* What the report says of a peer, and where to find it. Plain bytes: a process that loaded it wrote them. */
struct peer_info {
    char name[32], what[112], how[240];
    char module[64]; /* file in the folder of modules; "": part of this program */
    uint32_t can, flags;
    uint64_t largest;
    char skipped[240]; /* why it is not measured; "": it is */
};

/* What is measured with a peer. */
enum bench_measure { MEASURE_ROUNDS, MEASURE_STREAM, MEASURE_BATCHES, MEASURE_COPIES, MEASURE_ASLEEP, MEASURE_LOANS,
                     MEASURE_OPEN_LOOP, MEASURES };

struct bench_case {
    const char *metric, *system;
    char label[BENCH_LABEL]; /* usually the size */
    uint64_t bytes;          /* of user data in one operation; 0: none */
    size_t area;             /* bytes that the sides share, prefaulted by bench_pair_run's callees */
    int64_t param;           /* whatever the case wants: a batch, a rate */
    char limit[96];          /* METRIC/SYSTEM/LABEL whose time this one's is stated in multiples of; "": none */
    bool once;               /* takes long and varies little: in the first two repeats alone */
    const char *unit;        /* of the figure; NULL: nanoseconds for one operation */
    bool needs_namespace;
    const struct peer_info *peer; /* measured with this one, by bench_measure; NULL: by what follows */
    enum bench_measure measure;
    int (*setup)(struct bench_pair *p);
    int (*run)(struct bench_pair *p);
    void (*teardown)(struct bench_pair *p);
    /* Instead of the three: measured by other programs, started from the coordinator. */
    int (*external)(const struct bench_case *c, const struct bench_options *o, struct bench_result *out);
};

struct bench_suite {
    const struct bench_options *options;
    struct bench_case *cases;
    size_t count, capacity;
    struct bench_case unwanted; /* what bench_add answers for systems that --system leaves out */
};

struct bench_line {
    _Alignas(128) bench_a64 v; /* a line and its neighbour, which prefetchers fetch along */
};

/* One 64-byte message: a number that says it is there, and what it carries. */
struct bench_raw_line {
    _Alignas(128) bench_a64 seq;
    uint64_t payload[7];
};

/* What a side that a launcher started has to know of its run. */
struct bench_order {
    char metric[32], system[32], label[BENCH_LABEL], namespace_[40], folder[64];
    uint64_t bytes, serial;
    int64_t param;
    enum bench_measure measure;
    struct peer_info peer;
    bool quick;
    double target_s;
    int coordinator;
    struct bench_place place;
};

/* What the sides of every case share. */
struct bench_shared {
    struct bench_line at[2];       /* barrier: how often each side has arrived */
    struct bench_raw_line raw[2];  /* raw[s] is written by side s */
    struct bench_line agreed;      /* a number side 0 decided for both */
    struct bench_line stamp[2];    /* a time each side tells the other */
    struct bench_line waiting[2];  /* the number of the message that each side is about to sleep for */
    struct bench_line leg;         /* how long side 1's leg of a round trip took */
    struct bench_line credit;      /* messages that side 1 has had, where a peer has no flow control of its own */
    struct bench_line sides;       /* how many sides a launcher has started */
    struct bench_order order;
    struct bench_result result;
};

/* One side's view of a run. */
struct bench_pair {
    int side;
    uint64_t arrivals;
    uint64_t serial; /* tells this run from every other of the process: names channels */
    const struct bench_case *c;
    const struct bench_options *options;
    struct bench_shared *shared;
    void *area; /* c->area bytes, shared, zero at the start */
    void *state;
    const struct peer *peer; /* of c->peer, loaded; NULL without one */
    void *peer_state;
    const char *folder;      /* of c->peer, for this run alone */
};

extern bool bench_must_yield;         /* the sides share a processor: waiting must give it away */
extern struct bench_place bench_place;

/* ---- time ---- */
uint64_t bench_now(void);  /* CLOCK_MONOTONIC, ns: the same on every processor */
void bench_clock_init(void);
const char *bench_clock_name(void);
extern unsigned bench_microsecond; /* how many bench_relax() make about one */
extern double bench_tick_ns; /* nanoseconds of one tick */
/* Ticks of the processor's own constant-rate counter, for timing single operations. */
static inline uint64_t bench_tick(void) {
#if defined(__x86_64__)
    extern bool bench_tick_counter;
    if (bench_tick_counter) return __builtin_ia32_rdtsc();
#endif
    return bench_now();
}

/* ---- waiting: never asleep, unless there is but one processor ---- */
#include <sched.h>
static inline void bench_relax(void) {
    xi_pause();
    if (__builtin_expect(bench_must_yield, 0)) sched_yield();
}

/* ---- the coordinator's part ---- */
void bench_place_init(void);
/* Puts the coordinator itself in charge of Ctrl-C, and names the namespace of this run. */
void bench_init(const struct bench_options *o);
bool bench_interrupted(void);
/* Starts the process that keeps the namespace; 0, or -1 after saying why on standard error. Stopped by bench_finish. */
int bench_keeper_start(void);
void bench_finish(void);
/* Runs one case once. 0, or -1 with *out's error texts set. */
int bench_pair_run(const struct bench_case *c, const struct bench_options *o, struct bench_result *out);
/* One side, started by a peer's launcher; `shared` is the path of what it shares with the coordinator. Exit status. */
int bench_side_main(const char *shared);
/* A case that measures nothing between its two raw round trips. */
int bench_raw_now(const struct bench_options *o, double *ns);
enum bench_regime bench_regime_of(double before, double after);
const char *bench_regime_name(enum bench_regime r);
/* Measures by `measure`, which starts whatever it needs, with raw round trips before and after. */
int bench_external(const struct bench_case *c, const struct bench_options *o, struct bench_result *out,
                   int (*measure)(const struct bench_case *c, const struct bench_options *o, struct bench_result *out));
/* Waits for `pid` to end, as long as the patience with one run lasts; kills it otherwise. Its wait status, or -1. */
int bench_wait(int pid);
/* Waits as long for `fd` to be readable; false: it is not, or this program is to end. */
bool bench_await(int fd);
/* Says in *r that patience was at its end, unless it was a signal. */
void bench_give_up(struct bench_result *r);
/* The folder of this executable ("" if unknown). */
const char *bench_own_folder(void);
/* Dies when the parent does. For the child side of a fork. */
void bench_follow_parent(int parent);

/* Adds a case; the caller fills in what it returns. */
struct bench_case *bench_add(struct bench_suite *s, const char *metric, const char *system, uint64_t bytes);
/* True if --size lets this size through. */
bool bench_wants(const struct bench_suite *s, uint64_t size);
/* A case for every peer that can do `can` and takes this size: for --peers, and always for xidata itself if `xi`. */
int bench_add_peers(struct bench_suite *s, bool xi, const char *metric, uint64_t bytes, enum bench_measure measure,
                    const char *limit_system, const char *limit_label);
/* The same for xidata alone. */
int bench_add_xi(struct bench_suite *s, bool xi, const char *metric, uint64_t bytes, enum bench_measure measure,
                 const char *limit_system, const char *limit_label);
/* With peers at all sizes but 24 bytes, which tells of this library's ring alone, unless it is asked for. */
int bench_add_size(struct bench_suite *s, bool xi, const char *metric, uint64_t bytes, enum bench_measure measure,
                   const char *limit_system, const char *limit_label);
/* The limit by name: METRIC/SYSTEM of the case's own label, or a fixed one with `label` given. */
void bench_limit(struct bench_case *c, const char *metric, const char *system, const char *label);
/* "64", "4KiB", "16MiB". */
void bench_size_label(char out[BENCH_LABEL], uint64_t bytes);

/* ---- the sides' part ---- */
/* Stores the sentence and returns -1. */
int bench_fail(struct bench_pair *p, const char *format, ...) __attribute__((format(printf, 2, 3), cold));
void bench_barrier(struct bench_pair *p);
/* Side 0's number, on both sides. */
uint64_t bench_agree(struct bench_pair *p, uint64_t number);
void bench_extra(struct bench_pair *p, const char *name, double value);
/* Touches every page for writing. */
void bench_prefault(void *memory, size_t size);
/* A content that a copy of it can be told by: every word but the first two and the last, which are for the value. */
void bench_fill(void *value, size_t size);
bool bench_filled(const void *value, size_t size);
/* Private, prefaulted, zero; never returned. NULL after bench_fail. */
void *bench_private(struct bench_pair *p, size_t size);
/* Raw round trips: `chunks` times `rounds`, the median chunk, in ns for one. Side 0 gets the figure, side 1 gets 0. */
double bench_raw_round_trip(struct bench_pair *p, int chunks, int rounds);
/* How many operations take `seconds`, given that `n` took `ns`; kept within low..high. */
uint64_t bench_scale(uint64_t n, uint64_t ns, double seconds, uint64_t low, uint64_t high);
double bench_median(double *values, size_t n); /* sorts them */
/* Sends (side 0) or receives (side 1) `n` values numbered from `seq`. 0, or -1 after bench_fail. */
typedef int (*bench_pass)(struct bench_pair *p, uint64_t seq, uint64_t n);
/* One way, from side 0's first send to side 1's last receive: a cold pass and a warm one of `warm` values, and the one that
 * counts, as long as the options want. */
int bench_measure_stream(struct bench_pair *p, bench_pass pass, uint64_t warm);
/* The same for what may be a thousand times slower: two looks, the second a tenth of the time, instead of `warm`. */
int bench_measure_slow_stream(struct bench_pair *p, bench_pass pass, uint64_t least);
uint64_t bench_warm_up(const struct bench_pair *p); /* for small values */

/* ---- values: an encoded xi value of exactly `size` bytes whose content is a number that goes up ---- */
int bench_value_build(struct bench_pair *p, void *buffer, size_t size);
bool bench_size_possible(uint64_t size);
static inline void bench_stamp(void *value, size_t size, uint64_t seq) {
    uint8_t *bytes = value;
    if (size == 8) { /* all eight bytes, so that a copy that follows at once finds one whole store to take them from */
        uint64_t word;
        memcpy(&word, bytes, sizeof word);
        word = (word & 0xffffffff) | seq << 32;
        memcpy(bytes, &word, sizeof word);
        return;
    }
    memcpy(bytes + 8, &seq, sizeof seq);
    memcpy(bytes + size - 8, &seq, sizeof seq);
}
static inline bool bench_stamped(const void *value, size_t size, uint64_t seq) {
    const uint8_t *bytes = value;
    if (size == 8) {
        uint32_t low;
        memcpy(&low, bytes + 4, sizeof low);
        return low == (uint32_t)seq;
    }
    uint64_t first, last;
    memcpy(&first, bytes + 8, sizeof first);
    memcpy(&last, bytes + size - 8, sizeof last);
    return first == seq && last == seq;
}
/* Keeps the compiler from leaving out a copy that nobody reads in full. */
static inline void bench_used(const void *memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

/* ---- two queue channels, one each way: channel[s] is sent on by side s ---- */
struct bench_xi {
    xi_interp *me;
    xi_channel *channel[2];
    xi_channel *out, *in; /* this side's */
    xi_msg msg;
    xi_stats before;
};
/* spin_ns as in xi_join_opts. */
int bench_xi_open(struct bench_pair *p, struct bench_xi *x, int64_t spin_ns);
void bench_xi_close(struct bench_xi *x);
/* Adds what the library counted since bench_xi_mark, for each operation: sleeps and wake calls of this side. */
void bench_xi_mark(struct bench_xi *x);
void bench_xi_note(struct bench_pair *p, struct bench_xi *x, uint64_t ops);

#endif
