/* SPDX-License-Identifier: MIT */
/*
 * Offset, bounds and overflow arithmetic: the only place where a number that
 * another process may have written is added, multiplied, rounded or compared
 * with a size.
 *
 * Every function is total: no input overflows, divides by zero or shifts out of
 * range. Functions that compute return true on success and store the result;
 * on false the result is untouched, so a forgotten check is an uninitialised
 * variable that the compiler warns of, not a wrapped number.
 *
 * The caller has already copied the number out of shared memory, once.
 */
#ifndef XI_WIRE_BOUNDS_H
#define XI_WIRE_BOUNDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* *out = a + b, false if it does not fit 64 bits. */
static inline bool xi_add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

/* *out = a * b, false if it does not fit 64 bits. */
static inline bool xi_mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

/* *out = a - b, false if b is larger. */
static inline bool xi_sub_u64(uint64_t a, uint64_t b, uint64_t *out) {
    if (b > a)
        return false;
    *out = a - b;
    return true;
}

/* The signed pair, for strides. */
static inline bool xi_add_i64(int64_t a, int64_t b, int64_t *out) {
    int64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}
static inline bool xi_mul_i64(int64_t a, int64_t b, int64_t *out) {
    int64_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

/* True if [offset, offset + length) lies inside [0, size). An empty range may lie at the end. */
static inline bool xi_range_inside(uint64_t offset, uint64_t length, uint64_t size) {
    return offset <= size && length <= size - offset;
}

/* True if `count` items of `item` bytes each fit in `size` bytes. Items of no size never fit. */
static inline bool xi_count_fits(uint64_t count, uint64_t item, uint64_t size) {
    return item != 0 && count <= size / item;
}

/* True if `n` is a power of two. */
static inline bool xi_is_pow2(uint64_t n) { return n != 0 && (n & (n - 1)) == 0; }

/* True if `n` is a multiple of `unit`, a power of two. */
static inline bool xi_is_aligned(uint64_t n, uint64_t unit) { return (n & (unit - 1)) == 0; }

/* True if the address is a multiple of `unit`, a power of two. */
static inline bool xi_is_aligned_ptr(const void *p, uintptr_t unit) { return ((uintptr_t)p & (unit - 1)) == 0; }

/* *out = n rounded up to a multiple of `unit`, a power of two; false if it does not fit 64 bits. */
static inline bool xi_round_up_u64(uint64_t n, uint64_t unit, uint64_t *out) {
    uint64_t sum;
    if (__builtin_add_overflow(n, unit - 1, &sum))
        return false;
    *out = sum & ~(unit - 1);
    return true;
}

/* *out = the smallest power of two that is at least n (1 for 0); false if it does not fit 64 bits. */
static inline bool xi_round_pow2_u64(uint64_t n, uint64_t *out) {
    if (n > (uint64_t)1 << 63)
        return false;
    *out = n <= 1 ? 1 : (uint64_t)1 << (64 - __builtin_clzll(n - 1));
    return true;
}

/*
 * Rings. Positions are 64 bits and may be anything; `capacity` is a power of two from 4096 on, and its own checked copy. The
 * ring is mapped twice in a row, so that what begins in the first and is no longer than `capacity` ends in the second.
 */

/* Where the 8-byte word of a position lies: a multiple of 8 below the capacity, of which `mask` is one less. */
static inline uint64_t xi_ring_place(uint64_t position, uint64_t mask) { return position & mask & ~(uint64_t)7; }

/* True if a record may have a payload of so many bytes: its header and the next one fit as well. */
static inline bool xi_ring_length_whole(uint32_t length, uint64_t capacity) {
    return length >= 8 && length % 8 == 0 && (uint64_t)length + 16 <= capacity;
}

/* The position behind a record; of garbage it may be any, smaller ones too. */
static inline uint64_t xi_ring_next(uint64_t position, uint32_t length) { return position + 8 + length; }

/* True if `position` is at `tail` or behind it, by no more than a ring. */
static inline bool xi_ring_behind(uint64_t position, uint64_t tail, uint64_t capacity) { return tail - position <= capacity; }

/* True if a block of `size` bytes that begins at this granule lies in the segment's data, which begins at `first`. */
static inline bool xi_block_inside(uint32_t granule, uint64_t unit, uint64_t first, uint64_t size, uint64_t segment) {
    uint64_t begin = (uint64_t)granule * unit; /* 32 bits by less */
    return begin >= first && xi_range_inside(begin, size, segment);
}

/* How many whole items lie behind a head of so many bytes; 0 where not even the head is there. */
static inline uint64_t xi_items_behind(uint64_t size, uint64_t head, uint64_t item) {
    return size < head || item == 0 ? 0 : (size - head) / item;
}

/* Bytes from `n` up to the next multiple of `unit`, a power of two: 0 to unit - 1. Cannot overflow. */
static inline uint64_t xi_padding(uint64_t n, uint64_t unit) { return (0 - n) & (unit - 1); }

#endif
