/* SPDX-License-Identifier: MIT */
/*
 * A histogram of 64-bit values in fixed memory, for latencies.
 *
 * Buckets are log-linear, as in HdrHistogram: every power of two is cut into
 * 128 equal parts, so that any value is known to within 1/128 (0.8 %) of
 * itself, from 0 to 2^64 - 1, in 58 KiB. Values below 128 are exact, and so are
 * the smallest and the largest. Recording is an index computation and an
 * increment: no allocation, no branch that depends on how full it is. The
 * struct holds no pointer, so one side of a benchmark can fill it in shared
 * memory and another process read it.
 */
#ifndef XI_BENCH_HISTOGRAM_H
#define XI_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 7u
#define HISTOGRAM_SUB (1u << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_BUCKETS ((64u - HISTOGRAM_SUB_BITS + 1u) * HISTOGRAM_SUB)

struct histogram {
    uint64_t count;
    uint64_t min, max; /* exact; min is UINT64_MAX while empty */
    double sum;
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

/* Empties it. Must be called before first use. */
void histogram_reset(struct histogram *h);

static inline uint32_t histogram_index(uint64_t value) {
    if (value < HISTOGRAM_SUB) return (uint32_t)value;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return (shift + 1) * HISTOGRAM_SUB + (uint32_t)((value >> shift) - HISTOGRAM_SUB);
}

static inline void histogram_record(struct histogram *h, uint64_t value) {
    h->count++;
    h->sum += (double)value;
    if (value < h->min) h->min = value;
    if (value > h->max) h->max = value;
    h->bucket[histogram_index(value)]++;
}

/* Smallest and largest value that fall into bucket `index` (below HISTOGRAM_BUCKETS). */
uint64_t histogram_lowest(uint32_t index);
uint64_t histogram_highest(uint32_t index);

/* Adds all that `from` has recorded to `into`. */
void histogram_merge(struct histogram *into, const struct histogram *from);

/*
 * The value that `percent` (0 to 100) of the recorded values do not exceed: the top of the bucket that holds the value
 * of that rank, but never beyond the largest recorded. 0 while empty.
 */
uint64_t histogram_percentile(const struct histogram *h, double percent);
/* 0 while empty. */
double histogram_mean(const struct histogram *h);

#endif
