/* SPDX-License-Identifier: MIT */
/*
 * What a hostile peer writes, enumerated: for each 8-byte word of shared memory
 * the values that have a meaning near it or none at all. They are derived from
 * what the word holds, so that "one more", "one behind" and "another slot" come
 * up for positions, numbers, slots and generations alike, in either half.
 */
#ifndef XI_TEST_SPOIL_H
#define XI_TEST_SPOIL_H

#include <limits.h>
#include <stdint.h>

#include "wire/layout.h"

#define SPOILS 52

static inline uint64_t spoil_mix(uint64_t x) {
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}

/* The i-th value for a word that holds `own`, in a thing of `size` bytes (a ring, a segment); `at` picks the random ones. */
static inline uint64_t spoil_value(unsigned i, uint64_t own, uint64_t size, uint64_t at) {
    const uint64_t low = own & UINT32_MAX, high = own & ~(uint64_t)UINT32_MAX;
    const uint64_t all[SPOILS] = {
        0, UINT64_MAX, own + 1, own - 1, 1, spoil_mix(at), own + size, own ^ (uint64_t)1 << 32,
        own ^ 0xffff, own ^ 0xffff0000, own ^ 0xffff00000000, own ^ 0xffff000000000000, /* the first twelve: see FEW */
        INT_MAX, (uint64_t)1 << 31, UINT32_MAX, (uint64_t)1 << 32, INT64_MAX, (uint64_t)INT64_MAX + 1, (uint64_t)1 << 62,
        size - 8, size - 1, size, size + 1, size + 8,
        own + 8, own - 8, own + 4, own - size, own + size + 8, own + ((uint64_t)1 << 32), own - ((uint64_t)1 << 32), ~own,
        own << 32 | own >> 32, own | 7, own & ~(uint64_t)0xff, own * 2,
        /* one half alone */
        high, high | 1, high | 2, high | 3, high | UINT32_MAX, high | XI_MAX_INTERPS, high | 600, low, low | (uint64_t)1 << 32,
        low | (uint64_t)2 << 32, low | ~(uint64_t)UINT32_MAX, high | (spoil_mix(at + 1) & UINT32_MAX),
        /* what lies elsewhere */
        XI_REC(16, XI_REC_INLINE, 0, 1), XI_REC(32, XI_REC_BLOCK, XI_REC_F_FREE, 1), XI_WAITER(1, 3, 0),
        XI_WAITER_OF_MEMBER(2, XI_BELLS_USABLE, 70, 0x7ffe)};
    return all[i % SPOILS];
}

static inline void spoil_word(uint64_t *word, uint64_t value) {
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

#endif
