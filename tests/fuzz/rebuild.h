/* SPDX-License-Identifier: MIT */
/*
 * For tests: a value decoded with a cursor and built again, and a number that
 * stands for its meaning. Two values mean the same if their numbers are equal,
 * whatever widths and LONG flags their writers chose.
 *
 * Recursion is fine here: the cursor refuses what is nested too deeply.
 */
#ifndef XI_TESTS_REBUILD_H
#define XI_TESTS_REBUILD_H

#include <stdlib.h>

#include "xidata.h"

static inline uint64_t xt_mix(uint64_t hash, const void *data, size_t n) {
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * 0x100000001b3ull;
    return hash;
}

static inline uint64_t xt_mix_word(uint64_t hash, uint64_t word) { return xt_mix(hash, &word, sizeof word); }

static inline uint64_t xt_meaning_of_one(uint64_t hash, const xi_value *v) {
    hash = xt_mix_word(hash, v->tag == XI_INT32 ? XI_INT64 : v->tag);
    hash = xt_mix_word(hash, v->flags & ~(uint32_t)XI_F_LONG);
    hash = xt_mix_word(hash, v->tag == XI_EXT ? v->aux : 0);
    switch (v->tag) {
    case XI_BOOL: return xt_mix_word(hash, v->u.boolean);
    case XI_INT32:
    case XI_INT64: return xt_mix_word(hash, (uint64_t)v->u.integer);
    case XI_FLOAT: return xt_mix(hash, &v->u.real, 8);
    case XI_COMPLEX: return xt_mix(hash, v->u.complex_, 16);
    case XI_BIGINT:
    case XI_STR:
    case XI_BYTES: return xt_mix(xt_mix_word(hash, v->length), v->data, v->length);
    case XI_BUFFER: return xt_mix(hash, &v->u.buffer, sizeof v->u.buffer);
    case XI_NDARRAY:
        hash = xt_mix(xt_mix_word(hash, v->u.array.ndim), v->u.array.dtype, v->u.array.dtype_length);
        hash = xt_mix(hash, v->u.array.shape, v->u.array.ndim * sizeof(int64_t));
        return xt_mix(hash, v->u.array.strides, v->u.array.ndim * sizeof(int64_t));
    default: return xt_mix_word(hash, v->count);
    }
}

/* Extends *hash by all values that the cursor yields. 0, or the error that ended it. */
static inline int xt_meaning(xi_cursor *c, uint64_t *hash) {
    xi_value v;
    xi_cursor children;
    int got;
    while ((got = xi_next(c, &v)) > 0) {
        *hash = xt_meaning_of_one(*hash, &v);
        if (v.tag >= XI_TUPLE && v.tag != XI_BUFFER) {
            int error = xi_enter(&v, &children);
            if (!error)
                error = xt_meaning(&children, hash);
            if (error)
                return error;
        }
    }
    return got;
}

static inline int xt_open(xi_builder *b, const xi_value *v) {
    if (v->tag == XI_EXT)
        return xi_begin_ext(b, v->aux);
    if (v->tag != XI_NDARRAY)
        return xi_begin(b, (enum xi_tag)v->tag, v->tag == XI_PICKLE ? v->count - 1 : v->count);
    char *dtype = strndup(v->u.array.dtype, v->u.array.dtype_length);
    if (!dtype)
        return XI_E_NOMEM;
    int error = xi_begin_ndarray(b, dtype, v->flags & XI_F_FORTRAN, v->u.array.ndim, v->u.array.shape,
                                 v->u.array.strides);
    free(dtype);
    return error;
}

static inline int xt_put_leaf(xi_builder *b, const xi_value *v) {
    void *where;
    int error;
    switch (v->tag) {
    case XI_NONE: return xi_put_none(b);
    case XI_BOOL: return xi_put_bool(b, v->u.boolean);
    case XI_INT32:
    case XI_INT64: return xi_put_int(b, v->u.integer);
    case XI_FLOAT: return xi_put_float(b, v->u.real);
    case XI_COMPLEX: return xi_put_complex(b, v->u.complex_[0], v->u.complex_[1]);
    case XI_BIGINT: return xi_put_bigint(b, v->data, v->length);
    case XI_STR:
        return xi_put_str(b, (enum xi_encoding)(v->flags & XI_F_ENCODING), v->flags & XI_F_SURROGATES, v->data,
                          v->length);
    case XI_BYTES:
        error = xi_put_bytes_space(b, v->flags & XI_F_MUTABLE, v->length, &where);
        if (!error && where)
            memcpy(where, v->data, v->length);
        return error;
    case XI_BUFFER: return xi_put_buffer(b, &v->u.buffer, v->flags & XI_F_MUTABLE);
    default: return XI_E_TYPE;
    }
}

/* Puts all values that the cursor yields. 0, or the error that ended it. */
static inline int xt_rebuild(xi_builder *b, xi_cursor *c) {
    xi_value v;
    xi_cursor children;
    int got;
    while ((got = xi_next(c, &v)) > 0) {
        int error;
        if (v.tag < XI_TUPLE || v.tag == XI_BUFFER) {
            error = xt_put_leaf(b, &v);
        } else {
            error = xi_enter(&v, &children);
            if (!error)
                error = xt_open(b, &v);
            if (!error)
                error = xt_rebuild(b, &children);
            if (!error)
                error = xi_end(b);
        }
        if (error)
            return error;
    }
    return got;
}

#endif
