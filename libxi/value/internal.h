/* SPDX-License-Identifier: MIT */
/*
 * What builder, cursor and text share: the header word of a value, loads that
 * happen exactly once, and the rules of an ndarray.
 *
 * A value may lie in memory that another process is writing. Whatever is
 * compared and then used must therefore be fetched once: a plain C load may be
 * done twice by the compiler, which between a check and its use is a hole. The
 * xi_once functions forbid that.
 */
#ifndef XI_VALUE_INTERNAL_H
#define XI_VALUE_INTERNAL_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "xidata.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "values are little-endian and are read as they lie: this needs a little-endian machine"
#endif

#define XI_NDIM_MAX 64u
#define XI_FIRST_SIZED 16u /* tags below are immediate */

/* The header as one little-endian word: tag, flags, aux, size. */
#define XI_HEAD(tag, flags, aux, size)                                                                                 \
    ((uint64_t)(uint8_t)(tag) | (uint64_t)(uint8_t)(flags) << 8 | (uint64_t)(uint16_t)(aux) << 16 |                    \
     (uint64_t)(uint32_t)(size) << 32)
#define XI_HEAD_TAG(word) ((uint32_t)(word) & 0xffu)
#define XI_HEAD_FLAGS(word) ((uint32_t)((word) >> 8) & 0xffu)
#define XI_HEAD_AUX(word) ((uint32_t)((word) >> 16) & 0xffffu)
#define XI_HEAD_SIZE(word) ((uint32_t)((word) >> 32))

/* An aligned word, fetched once and whole. */
static inline uint64_t xi_once(const void *p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED); }

/* Unaligned ones, fetched once; whole where the machine can. */
typedef struct __attribute__((packed, may_alias)) { uint16_t v; } xi_unaligned16;
typedef struct __attribute__((packed, may_alias)) { uint32_t v; } xi_unaligned32;
typedef struct __attribute__((packed, may_alias)) { uint64_t v; } xi_unaligned64;
static inline uint32_t xi_once8(const uint8_t *p) { return *(const volatile uint8_t *)p; }
static inline uint32_t xi_once16(const uint8_t *p) { return ((const volatile xi_unaligned16 *)(const void *)p)->v; }
static inline uint32_t xi_once32(const uint8_t *p) { return ((const volatile xi_unaligned32 *)(const void *)p)->v; }
static inline uint64_t xi_once64(const uint8_t *p) { return ((const volatile xi_unaligned64 *)(const void *)p)->v; }

/* Bytes of one code unit, 0 for an unknown encoding. */
static inline uint32_t xi_unit_size(uint32_t encoding) {
    static const uint8_t size[8] = {1, 1, 2, 4, 2, 1, 0, 0};
    return encoding < 8 ? size[encoding] : 0;
}

/* True if no byte has its high bit set. */
bool xi_is_ascii(const uint8_t *p, size_t n);

/*
 * True if a shape is one: no dimension negative, and neither the number of
 * items nor the distance in bytes between the lowest and the highest of them
 * overflows an int64_t. The arrays are the caller's own.
 */
bool xi_shape_ok(uint32_t ndim, const int64_t *shape, const int64_t *strides);

#endif
