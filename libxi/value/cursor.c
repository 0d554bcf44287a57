/* SPDX-License-Identifier: MIT */
/*
 * The cursor: reads values out of memory that nobody vouches for.
 *
 * The memory may be random, truncated, or changing under the reader. What makes
 * that harmless:
 *
 *   - each word is fetched once (xi_once) into a local; the local is checked
 *     and then used, so that what was checked is what is used
 *   - a value is accepted only if it ends inside the cursor's range, and the
 *     last one only if it ends exactly there; so a child's range is always part
 *     of its parent's, and a walk ends after at most size / 8 values
 *   - a count is believed only up to one child per 8 bytes that are left
 *   - depth is counted in the cursor, not in the data
 *
 * What a value refers to (text, bytes, children, an ndarray's dtype) is handed
 * out as a pointer and a length inside the range. Whoever reads it must take it
 * as it then is: only its place has been checked, xi_validate() looks inside.
 *
 * What a tag permits is a table (rules); every bit that is not permitted is an
 * error, so that a later version can give it a meaning.
 */
#include <stdbool.h>

#include "error.h"
#include "internal.h"
#include "wire/bounds.h"

enum form { UNKNOWN, SCALAR, BLOB, COUNTED, EXT, BUFFER, NDARRAY };

static const struct rule {
    uint8_t form;
    uint8_t flags;    /* that may be set */
    uint16_t aux_max;
    uint8_t least;    /* bytes of the smallest, without the LONG word */
} rules[] = {
    [XI_INT64] = {SCALAR, 0, 0, 16},
    [XI_FLOAT] = {SCALAR, 0, 0, 16},
    [XI_COMPLEX] = {SCALAR, 0, 0, 24},
    [XI_BIGINT] = {BLOB, XI_F_LONG, 7, 24}, /* so 9 bytes of number at least */
    [XI_STR] = {BLOB, XI_F_ENCODING | XI_F_SURROGATES | XI_F_LONG, 7, 8},
    [XI_BYTES] = {BLOB, XI_F_MUTABLE | XI_F_LONG, 7, 8},
    [XI_TUPLE] = {COUNTED, XI_F_LONG, 0, 16},
    [XI_LIST] = {COUNTED, XI_F_LONG, 0, 16},
    [XI_SET] = {COUNTED, XI_F_LONG, 0, 16},
    [XI_FROZENSET] = {COUNTED, XI_F_LONG, 0, 16},
    [XI_DICT] = {COUNTED, XI_F_LONG, 0, 16},
    [XI_EXT] = {EXT, XI_F_LONG, UINT16_MAX, 16},
    [XI_BUFFER] = {BUFFER, XI_F_MUTABLE, 0, 40},
    [XI_NDARRAY] = {NDARRAY, XI_F_FORTRAN | XI_F_LONG, XI_NDIM_MAX, 32},
    [XI_PICKLE] = {COUNTED, XI_F_LONG, 0, 24}, /* so its count is not 0 */
};
#define RULES (sizeof rules / sizeof rules[0])

static bool has_children(uint32_t tag) {
    uint32_t form = tag < RULES ? rules[tag].form : (uint32_t)UNKNOWN;
    return form == COUNTED || form == EXT || form == NDARRAY;
}

/* A sized value whose head has been checked: where it is and where its parts begin. */
struct node {
    const uint8_t *at;
    uint64_t size;
    uint64_t word;  /* the header */
    uint32_t head;  /* 8, or 16 with a LONG word */
};

#define corrupt(...) xi_fail(XI_E_CORRUPT, "the value is not valid: " __VA_ARGS__)

/* ------------------------------------------------------------- the shape */

/* Adds the way from the first to the last item of one dimension to the reach below or above. False on overflow. */
static bool add_reach(int64_t stride, int64_t items, int64_t *below, int64_t *above) {
    int64_t reach;
    if (!xi_mul_i64(stride, items - 1, &reach))
        return false;
    int64_t *side = reach < 0 ? below : above;
    return xi_add_i64(*side, reach, side);
}

bool xi_shape_ok(uint32_t ndim, const int64_t *shape, const int64_t *strides) {
    int64_t items = 1, below = 0, above = 0, span;
    bool empty = false;
    for (uint32_t i = 0; i < ndim; i++) {
        if (shape[i] < 0)
            return false;
        if (shape[i] == 0)
            empty = true;
        else if (!xi_mul_i64(items, shape[i], &items))
            return false;
    }
    for (uint32_t i = 0; i < ndim && !empty; i++) {
        if (!add_reach(strides[i], shape[i], &below, &above))
            return false;
    }
    return xi_mul_i64(below, -1, &span) && xi_add_i64(span, above, &span);
}

/* ------------------------------------------------------------ accepting */

/* Fills what every value has, with nothing referred to, and steps over it. */
static inline void accept(xi_cursor *c, xi_value *v, uint64_t word, uint64_t size) {
    v->tag = (uint8_t)XI_HEAD_TAG(word);
    v->flags = (uint8_t)XI_HEAD_FLAGS(word);
    v->aux = (uint16_t)XI_HEAD_AUX(word);
    v->depth = c->depth;
    v->size = size;
    v->data = NULL;
    v->length = 0;
    v->count = 0;
    c->at += size;
    c->remaining--;
}

static inline int accept_node(xi_cursor *c, xi_value *v, const struct node *n, uint64_t offset, uint64_t length,
                              uint64_t count) {
    accept(c, v, n->word, n->size);
    v->data = n->at + offset;
    v->length = length;
    v->count = count;
    return 1;
}

/* ----------------------------------------------------- one of each form */

static inline int next_immediate(xi_cursor *c, xi_value *v, uint64_t word, uint64_t left) {
    uint32_t tag = XI_HEAD_TAG(word), bits = XI_HEAD_SIZE(word);
    if (XI_HEAD_FLAGS(word) | XI_HEAD_AUX(word))
        return corrupt("flags or aux of a none, bool or int are not 0");
    if (c->remaining == 1 && left != 8)
        return corrupt("%llu bytes follow the last value", (unsigned long long)left - 8);
    switch (tag) {
    case XI_INT32: accept(c, v, word, 8); v->u.integer = (int32_t)bits; return 1;
    case XI_BOOL:
        if (bits > 1)
            return corrupt("a bool is neither 0 nor 1");
        accept(c, v, word, 8);
        v->u.boolean = bits != 0;
        return 1;
    case XI_NONE:
        if (bits != 0)
            return corrupt("a none holds something");
        accept(c, v, word, 8);
        return 1;
    default: return corrupt("unknown tag %u", tag);
    }
}

static int next_scalar(xi_cursor *c, xi_value *v, const struct node *n) {
    if (n->size != rules[XI_HEAD_TAG(n->word)].least)
        return corrupt("a number has the wrong size");
    uint64_t first = xi_once(n->at + 8);
    accept(c, v, n->word, n->size);
    memcpy(&v->u, &first, sizeof first); /* integer, real, or the real part */
    if (v->tag == XI_COMPLEX) {
        uint64_t second = xi_once(n->at + 16);
        memcpy(&v->u.complex_[1], &second, sizeof second);
    }
    return 1;
}

static int next_blob(xi_cursor *c, xi_value *v, const struct node *n) {
    uint32_t tag = XI_HEAD_TAG(n->word), padding = XI_HEAD_AUX(n->word);
    uint64_t length = n->size - n->head;
    if (padding > length)
        return corrupt("more padding than content");
    if (padding && xi_once(n->at + n->size - 8) >> (64 - 8 * padding) != 0)
        return corrupt("padding is not zero");
    length -= padding;
    if (tag == XI_STR) {
        uint32_t unit = xi_unit_size(XI_HEAD_FLAGS(n->word) & XI_F_ENCODING);
        if (unit == 0 || !xi_is_aligned(length, unit))
            return corrupt("a str of an unknown encoding, or not of whole units");
    }
    return accept_node(c, v, n, n->head, length, 0);
}

static int next_counted(xi_cursor *c, xi_value *v, const struct node *n) {
    uint32_t tag = XI_HEAD_TAG(n->word);
    uint64_t offset = n->head + 8, length = n->size - offset, count = xi_once(n->at + n->head);
    if (!xi_count_fits(count, tag == XI_DICT ? 16 : 8, length))
        return corrupt("a container of %llu bytes claims %llu entries", (unsigned long long)n->size,
                       (unsigned long long)count);
    if (count == 0 && length != 0)
        return corrupt("an empty container is not empty");
    return accept_node(c, v, n, offset, length, count);
}

static int next_ext(xi_cursor *c, xi_value *v, const struct node *n) {
    if (XI_HEAD_AUX(n->word) == 0)
        return corrupt("extension 0");
    return accept_node(c, v, n, n->head, n->size - n->head, 1);
}

static int next_buffer(xi_cursor *c, xi_value *v, const struct node *n) {
    uint64_t place = xi_once(n->at + 8), generation = xi_once(n->at + 16), end;
    uint64_t offset = xi_once(n->at + 24), length = xi_once(n->at + 32);
    if (n->size != rules[XI_BUFFER].least || generation >> 48 != 0 || !xi_add_u64(offset, length, &end))
        return corrupt("a buffer reference is impossible");
    accept(c, v, n->word, n->size);
    v->u.buffer = (xi_buffer_ref){{(uint32_t)place, (uint32_t)(place >> 32), generation}, offset, length};
    return 1;
}

/* Out of line: its frame must not burden the others. */
static int __attribute__((noinline)) next_ndarray(xi_cursor *c, xi_value *v, const struct node *n) {
    int64_t words[2 * XI_NDIM_MAX];
    uint32_t ndim = XI_HEAD_AUX(n->word);
    uint64_t lengths = xi_once(n->at + n->head), dtype_length = (uint32_t)lengths, room = (uint64_t)ndim * 8;
    uint64_t dtype = n->head + 8, padding = xi_padding(dtype_length, 8), shape = dtype + dtype_length + padding;
    uint64_t child = shape + 2 * room;
    if (lengths >> 32 != 0 || dtype_length == 0)
        return corrupt("an ndarray without a dtype");
    if (child + 8 > n->size)
        return corrupt("dtype, shape and strides exceed the ndarray");
    if (padding && xi_once(n->at + shape - 8) >> (64 - 8 * padding) != 0)
        return corrupt("padding is not zero");
    for (uint32_t i = 0; i < 2 * ndim; i++)
        words[i] = (int64_t)xi_once(n->at + shape + 8 * (uint64_t)i);
    if (!xi_shape_ok(ndim, words, words + ndim))
        return corrupt("an ndarray has a negative dimension, or more items or bytes than 63 bits count");
    accept_node(c, v, n, child, n->size - child, 1);
    v->u.array.dtype = (const char *)n->at + dtype;
    v->u.array.dtype_length = (uint32_t)dtype_length;
    v->u.array.ndim = ndim;
    memcpy(v->u.array.shape, words, room);
    memcpy(v->u.array.strides, words + ndim, room);
    return 1;
}

/* ----------------------------------------------------------- the cursor */

/* Header, flags, aux and size of a sized value against its rule and the `left` bytes. */
static int check_head(const xi_cursor *c, uint64_t left, struct node *n) {
    uint32_t tag = XI_HEAD_TAG(n->word), flags = XI_HEAD_FLAGS(n->word);
    if (tag >= RULES || rules[tag].form == UNKNOWN)
        return corrupt("unknown tag %u", tag);
    const struct rule *r = &rules[tag];
    if ((flags & ~(uint32_t)r->flags) || XI_HEAD_AUX(n->word) > r->aux_max)
        return corrupt("flags 0x%x or aux %u are not for tag %u", flags, XI_HEAD_AUX(n->word), tag);
    n->head = 8;
    n->size = XI_HEAD_SIZE(n->word);
    if (flags & XI_F_LONG) {
        if (n->size != 0 || left < 16)
            return corrupt("a long value with a short size, or cut in its header");
        n->head = 16;
        n->size = xi_once(n->at + 8);
    }
    if (!xi_is_aligned(n->size, 8) || n->size < r->least + n->head - 8u)
        return corrupt("tag %u cannot have the size %llu", tag, (unsigned long long)n->size);
    if (n->size > left)
        return corrupt("it needs %llu bytes, %llu are there", (unsigned long long)n->size, (unsigned long long)left);
    if (c->remaining == 1 && n->size != left)
        return corrupt("%llu bytes follow the last value", (unsigned long long)(left - n->size));
    return 0;
}

/* Out of line, so that an int needs no frame. */
static int __attribute__((noinline)) next_sized(xi_cursor *c, xi_value *v, uint64_t word, uint64_t left) {
    struct node n = {c->at, 0, word, 0};
    int error = check_head(c, left, &n);
    if (error)
        return error;
    if (c->depth >= XI_DEPTH_MAX && has_children(XI_HEAD_TAG(word)))
        return xi_fail(XI_E_DEPTH, "the value is nested more than %d levels deep", XI_DEPTH_MAX);
    switch ((enum form)rules[XI_HEAD_TAG(word)].form) {
    case SCALAR: return next_scalar(c, v, &n);
    case BLOB: return next_blob(c, v, &n);
    case COUNTED: return next_counted(c, v, &n);
    case EXT: return next_ext(c, v, &n);
    case BUFFER: return next_buffer(c, v, &n);
    case NDARRAY: return next_ndarray(c, v, &n);
    case UNKNOWN: break;
    }
    return corrupt("unknown tag");
}

/* int64 and float, the common ones: their headers are constants, so that one comparison checks all of it. */
static inline bool plain_number(uint64_t word) {
    return word == XI_HEAD(XI_INT64, 0, 0, 16) || word == XI_HEAD(XI_FLOAT, 0, 0, 16);
}

void xi_cursor_init(xi_cursor *c, const void *data, size_t size) {
    bool usable = data && xi_is_aligned_ptr(data, 8);
    c->at = usable ? data : NULL;
    c->end = usable ? c->at + size : NULL;
    c->remaining = 1;
    c->depth = 0;
}

int xi_next(xi_cursor *c, xi_value *v) {
    uint64_t left = (uint64_t)(c->end - c->at);
    if (c->remaining == 0)
        return left == 0 ? 0 : corrupt("%llu bytes follow the last value", (unsigned long long)left);
    if (c->at == NULL)
        return xi_fail(XI_E_INVAL, "the value to read is NULL, or not 8-byte aligned");
    if (left < 8)
        return corrupt("it ends before its last value");
    uint64_t word = xi_once(c->at);
    if (plain_number(word) && (left == 16 || (left > 16 && c->remaining > 1))) {
        uint64_t bits = xi_once(c->at + 8);
        accept(c, v, word, 16);
        memcpy(&v->u, &bits, sizeof bits);
        return 1;
    }
    return XI_HEAD_TAG(word) < XI_FIRST_SIZED ? next_immediate(c, v, word, left) : next_sized(c, v, word, left);
}

int xi_enter(const xi_value *v, xi_cursor *children) {
    if (!has_children(v->tag))
        return xi_fail(XI_E_TYPE, "the value (tag %u) has nothing inside to enter", v->tag);
    if (v->depth >= XI_DEPTH_MAX)
        return xi_fail(XI_E_DEPTH, "the value is nested more than %d levels deep", XI_DEPTH_MAX);
    children->at = v->data;
    children->end = children->at + v->length;
    children->remaining = v->tag == XI_DICT ? 2 * v->count : v->count;
    children->depth = v->depth + 1;
    return 0;
}

/* ----------------------------------------------------------- validation */

static bool minimal(const xi_value *v) {
    const uint8_t *top = (const uint8_t *)v->data + v->length - 2;
    uint32_t below = xi_once8(top), sign = xi_once8(top + 1);
    return !(sign == 0x00 && below < 0x80) && !(sign == 0xff && below >= 0x80);
}

/* The content of one value, not of its children. */
static int validate_content(const xi_value *v) {
    switch (v->tag) {
    case XI_STR: return xi_check_text((enum xi_encoding)(v->flags & XI_F_ENCODING), v->flags, v->data, v->length);
    case XI_BIGINT: return minimal(v) ? 0 : corrupt("a big int has needless bytes");
    case XI_NDARRAY:
        if (memchr(v->u.array.dtype, 0, v->u.array.dtype_length))
            return corrupt("a dtype holds a NUL");
        return xi_check_text(XI_UTF8, 0, v->u.array.dtype, v->u.array.dtype_length);
    default: return 0;
    }
}

/* What ndarray and pickle demand of their children; `first` of several. */
static int validate_child(uint32_t parent, bool first, uint32_t tag) {
    bool good = true;
    if (parent == XI_NDARRAY)
        good = tag == XI_BUFFER || tag == XI_BYTES;
    if (parent == XI_PICKLE)
        good = tag == XI_BYTES || (tag == XI_BUFFER && !first);
    return good ? 0 : corrupt("tag %u inside tag %u", tag, parent);
}

/* The open cursors of a walk, without recursion: a hostile value must not use up the stack. */
struct walk {
    xi_cursor cursor[XI_DEPTH_MAX + 1];
    uint8_t parent[XI_DEPTH_MAX + 1];
    bool first[XI_DEPTH_MAX + 1];
    uint32_t depth;
};

static void walk_into(struct walk *w, uint32_t parent) {
    w->parent[w->depth] = (uint8_t)parent;
    w->first[w->depth] = true;
}

/* One step: 1 to go on, 0 at the end, else the error. */
static int walk_step(struct walk *w, xi_value *v) {
    uint32_t depth = w->depth;
    int got = xi_next(&w->cursor[depth], v), error;
    if (got < 0 || (got == 0 && depth == 0))
        return got;
    if (got == 0) {
        w->depth--;
        return 1;
    }
    error = validate_child(w->parent[depth], w->first[depth], v->tag);
    w->first[depth] = false;
    if (!error)
        error = validate_content(v);
    if (error || !has_children(v->tag))
        return error ? error : 1;
    error = xi_enter(v, &w->cursor[depth + 1]);
    if (error)
        return error;
    w->depth++;
    walk_into(w, v->tag);
    return 1;
}

int xi_validate(const void *data, size_t size) {
    struct walk w;
    xi_value v;
    int going;
    xi_cursor_init(&w.cursor[0], data, size);
    w.depth = 0;
    walk_into(&w, XI_NONE);
    do
        going = walk_step(&w, &v);
    while (going > 0);
    return going;
}

/* -------------------------------------------------------------- numbers */

int xi_get_int(const xi_value *v, int64_t *out) {
    if (v->tag == XI_INT32 || v->tag == XI_INT64) {
        *out = v->u.integer;
        return 0;
    }
    if (v->tag == XI_BIGINT)
        return xi_fail(XI_E_RANGE, "the int needs more than 64 bits");
    return xi_fail(XI_E_TYPE, "the value is not an int (its tag is %u)", v->tag);
}

static int inexact(void) { return xi_fail(XI_E_RANGE, "the int cannot be held exactly by a float"); }

static int float_of_int(int64_t integer, double *out) {
    double real = (double)integer;
    if (real >= 0x1p63 || (int64_t)real != integer)
        return inexact();
    *out = real;
    return 0;
}

/* sign * magnitude, little-endian 32-bit limbs, as a double; exact or an error. */
static int float_of_limbs(const uint32_t *limb, size_t limbs, bool negative, double *out) {
    size_t low = 0;
    while (limbs > 0 && limb[limbs - 1] == 0)
        limbs--;
    while (low < limbs && limb[low] == 0)
        low++;
    if (limbs > 32 || limbs - low > 3)
        return inexact();
    double sum = 0, scale = 1;
    for (size_t i = 0; i < low; i++)
        scale *= 0x1p32;
    for (size_t i = low; i < limbs; i++, scale *= 0x1p32) {
        double rest = sum;
        sum += limb[i] * scale;
        if (sum - limb[i] * scale != rest)
            return inexact();
    }
    *out = negative ? -sum : sum;
    return 0;
}

/* A double reaches to 2**1024: 129 bytes of two's complement. */
static int float_of_bigint(const xi_value *v, double *out) {
    uint32_t limb[33] = {0};
    if (v->length > 129)
        return inexact();
    memcpy(limb, v->data, v->length);
    uint8_t *byte = (uint8_t *)limb;
    bool negative = byte[v->length - 1] >= 0x80;
    if (negative) {
        uint64_t carry = 1;
        memset(byte + v->length, 0xff, sizeof limb - v->length);
        for (size_t i = 0; i < 33; i++) {
            carry += (uint32_t)~limb[i];
            limb[i] = (uint32_t)carry;
            carry >>= 32;
        }
    }
    return float_of_limbs(limb, 33, negative, out);
}

int xi_get_float(const xi_value *v, double *out) {
    switch (v->tag) {
    case XI_FLOAT: *out = v->u.real; return 0;
    case XI_INT32:
    case XI_INT64: return float_of_int(v->u.integer, out);
    case XI_BIGINT: return float_of_bigint(v, out);
    default: return xi_fail(XI_E_TYPE, "the value is neither a float nor an int (its tag is %u)", v->tag);
    }
}
