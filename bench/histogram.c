/* SPDX-License-Identifier: MIT */
/*
 * The parts of the histogram that are not on a measured path. histogram.h says
 * how buckets are cut: bucket i holds value i while i < 128; above that, group
 * g = i / 128 holds values of which g - 1 low bits are not told apart.
 */
#include "histogram.h"

#include <string.h>

void histogram_reset(struct histogram *h) {
    memset(h, 0, sizeof *h);
    h->min = UINT64_MAX;
}

uint64_t histogram_lowest(uint32_t index) {
    uint32_t group = index / HISTOGRAM_SUB;
    uint64_t part = index % HISTOGRAM_SUB;
    return group == 0 ? part : (HISTOGRAM_SUB + part) << (group - 1);
}

uint64_t histogram_highest(uint32_t index) {
    uint32_t group = index / HISTOGRAM_SUB;
    uint64_t width = group == 0 ? 1 : (uint64_t)1 << (group - 1);
    return histogram_lowest(index) + (width - 1);
}

void histogram_merge(struct histogram *into, const struct histogram *from) {
    into->count += from->count;
    into->sum += from->sum;
    if (from->min < into->min) into->min = from->min;
    if (from->max > into->max) into->max = from->max;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) into->bucket[i] += from->bucket[i];
}

/* The rank, from 1, of the value asked for. */
static uint64_t rank_of(const struct histogram *h, double percent) {
    if (!(percent > 0)) return 1;
    if (percent >= 100) return h->count;
    double exact = percent / 100 * (double)h->count;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact) rank++;
    if (rank < 1) return 1;
    return rank > h->count ? h->count : rank;
}

uint64_t histogram_percentile(const struct histogram *h, double percent) {
    if (h->count == 0) return 0;
    uint64_t rank = rank_of(h, percent), seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen < rank) continue;
        uint64_t top = histogram_highest(i);
        return top < h->max ? top : h->max;
    }
    return h->max;
}

double histogram_mean(const struct histogram *h) { return h->count == 0 ? 0 : h->sum / (double)h->count; }
