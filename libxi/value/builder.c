/* SPDX-License-Identifier: MIT */
/*
 * The builder: writes one value, a tree, front to back into memory of a known
 * size, or only counts. docs/value-format.md has the bytes.
 *
 *   level[0]       owes one value: the root
 *   level[1..256]  the open containers; each knows where its header lies, whose
 *                  size is filled in when it is closed, and how many children
 *                  it still owes
 *
 * Every byte is claimed before it is written (claim), and `length <= capacity`
 * always holds, so that no call can overrun, whatever its arguments. Counting
 * is the same code with a NULL buffer and a capacity that cannot be reached:
 * the size it tells is the size that is written. The first error sticks.
 *
 * init touches a line of the struct, not its 4 KiB of levels: a scalar is built
 * in a few nanoseconds.
 */
#include "error.h"
#include "internal.h"
#include "wire/bounds.h"

#define UNLIMITED ((size_t)INT64_MAX) /* capacity when counting: what finish can still return */

static inline void store(uint8_t *at, uint64_t word) { memcpy(at, &word, sizeof word); }

/* -------------------------------------------------------------- errors */

static int __attribute__((cold, noinline)) stick(xi_builder *b, int error) {
    b->error = error;
    return error;
}

static int __attribute__((cold, noinline)) surplus(xi_builder *b) {
    if (b->depth == 0)
        return stick(b, xi_fail(XI_E_INVAL, "a second value was put after the first: a builder makes one; put several "
                                            "into a tuple or list"));
    return stick(b, xi_fail(XI_E_INVAL, "more values were put into a container than xi_begin() announced"));
}

static int __attribute__((cold, noinline)) no_room(xi_builder *b, uint64_t size) {
    return stick(b, xi_fail(XI_E_TOOBIG,
                            "no room: %llu bytes more would be needed, %zu of %zu are left; count first, with a NULL "
                            "buffer, and give that much",
                            (unsigned long long)size, b->capacity - b->length, b->capacity));
}

/* ------------------------------------------------------------ claiming */

/* Claims `size` bytes, a multiple of 8, for the next value. *at: where they lie, NULL when counting and on error. */
static inline int claim(xi_builder *b, uint64_t size, uint8_t **at) {
    *at = NULL;
    if (__builtin_expect(b->error != 0, 0))
        return b->error;
    if (__builtin_expect(b->level[b->depth].remaining == 0, 0))
        return surplus(b);
    if (__builtin_expect(size > b->capacity - b->length, 0))
        return no_room(b, size);
    b->level[b->depth].remaining--;
    if (b->buffer)
        *at = b->buffer + b->length;
    b->length += size;
    return 0;
}

static inline int put_word(xi_builder *b, uint64_t word) {
    uint8_t *at;
    int error = claim(b, 8, &at);
    if (!error && at)
        store(at, word);
    return error;
}

static inline int put_two(xi_builder *b, uint64_t head, uint64_t word) {
    uint8_t *at;
    int error = claim(b, 16, &at);
    if (!error && at) {
        store(at, head);
        store(at + 8, word);
    }
    return error;
}

static inline int put_integer(xi_builder *b, int64_t v) {
    if (v == (int32_t)v)
        return put_word(b, XI_HEAD(XI_INT32, 0, 0, (uint32_t)v));
    return put_two(b, XI_HEAD(XI_INT64, 0, 0, 16), (uint64_t)v);
}

/*
 * Claims and heads a str, bytes or bigint of `n` bytes; the padding is zeroed, the n bytes are the caller's to fill.
 * *where is NULL when counting and on error.
 */
static int put_space(xi_builder *b, uint32_t tag, uint32_t flags, size_t n, uint8_t **where) {
    uint64_t padding = xi_padding(n, 8), head = 8, size;
    uint8_t *at;
    *where = NULL;
    if (__builtin_expect(n > UNLIMITED - 32, 0))
        return b->error ? b->error : no_room(b, n);
    size = head + n + padding;
    if (size > UINT32_MAX) {
        head = 16;
        size += 8;
        flags |= XI_F_LONG;
    }
    int error = claim(b, size, &at);
    if (error)
        return error;
    if (!at)
        return 0;
    *where = at + head;
    if (padding)
        store(at + size - 8, 0);
    store(at, XI_HEAD(tag, flags, padding, head == 8 ? size : 0));
    if (head == 16)
        store(at + 8, size);
    return 0;
}

static int put_blob(xi_builder *b, uint32_t tag, uint32_t flags, const void *data, size_t n) {
    uint8_t *where;
    int error = put_space(b, tag, flags, n, &where);
    if (!error && where && n)
        memcpy(where, data, n);
    return error;
}

/* ----------------------------------------------------- begin and finish */

void xi_builder_init(xi_builder *b, void *buffer, size_t capacity, uint32_t flags) {
    b->buffer = buffer;
    b->capacity = buffer && capacity < UNLIMITED ? capacity : UNLIMITED;
    b->length = 0;
    b->error = 0;
    b->depth = 0;
    b->flags = flags;
    b->level[0].start = 0;
    b->level[0].remaining = 1;
    if (!xi_is_aligned_ptr(buffer, 8))
        b->error = xi_fail(XI_E_INVAL, "the buffer to build in is not 8-byte aligned");
    else if (flags & ~XI_BUILD_LONG)
        b->error = xi_fail(XI_E_INVAL, "xi_builder_init: unknown flags 0x%x", flags & ~XI_BUILD_LONG);
}

int64_t xi_builder_finish(xi_builder *b) {
    if (b->error)
        return b->error;
    if (b->depth > 0)
        return stick(b, xi_fail(XI_E_INVAL, "the value is not finished: %u containers are not closed with xi_end()",
                                b->depth));
    if (b->level[0].remaining > 0)
        return stick(b, xi_fail(XI_E_INVAL, "the value is not finished: nothing was put"));
    return (int64_t)b->length;
}

/* ------------------------------------------------------------- scalars */

int xi_put_none(xi_builder *b) { return put_word(b, XI_HEAD(XI_NONE, 0, 0, 0)); }
int xi_put_bool(xi_builder *b, bool v) { return put_word(b, XI_HEAD(XI_BOOL, 0, 0, v)); }
int xi_put_int(xi_builder *b, int64_t v) { return put_integer(b, v); }

int xi_put_float(xi_builder *b, double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return put_two(b, XI_HEAD(XI_FLOAT, 0, 0, 16), bits);
}

int xi_put_complex(xi_builder *b, double re, double im) {
    uint8_t *at;
    int error = claim(b, 24, &at);
    if (!error && at) {
        store(at, XI_HEAD(XI_COMPLEX, 0, 0, 24));
        memcpy(at + 8, &re, sizeof re);
        memcpy(at + 16, &im, sizeof im);
    }
    return error;
}

/* Without the bytes at the top that only repeat the sign; at least 1 of a non-empty number. */
static size_t minimal_length(const uint8_t *p, size_t n) {
    while (n > 1 && ((p[n - 1] == 0x00 && p[n - 2] < 0x80) || (p[n - 1] == 0xff && p[n - 2] >= 0x80)))
        n--;
    return n;
}

int xi_put_bigint(xi_builder *b, const void *le_bytes, size_t n) {
    const uint8_t *p = le_bytes;
    n = minimal_length(p, n);
    if (n > 8)
        return put_blob(b, XI_BIGINT, 0, p, n);
    uint64_t v = n > 0 && p[n - 1] >= 0x80 ? UINT64_MAX : 0;
    for (size_t i = n; i > 0; i--)
        v = v << 8 | p[i - 1];
    return put_integer(b, (int64_t)v);
}

/* ------------------------------------------------------- text and bytes */

static int check_str(xi_builder *b, enum xi_encoding enc, uint32_t flags, size_t n) {
    uint32_t unit = xi_unit_size((uint32_t)enc);
    if (b->error)
        return b->error;
    if (unit == 0 || (flags & ~(uint32_t)XI_F_SURROGATES))
        return stick(b, xi_fail(XI_E_INVAL, "str: unknown encoding %d or flags 0x%x", (int)enc, flags));
    if (!xi_is_aligned(n, unit))
        return stick(b, xi_fail(XI_E_INVAL, "str: %zu bytes are not a whole number of %u-byte units", n, unit));
    return 0;
}

int xi_put_str(xi_builder *b, enum xi_encoding enc, uint32_t flags, const void *text, size_t n) {
    int error = check_str(b, enc, flags, n);
    return error ? error : put_blob(b, XI_STR, (uint32_t)enc | flags, text, n);
}

int xi_put_str_space(xi_builder *b, enum xi_encoding enc, uint32_t flags, size_t n, void **where) {
    uint8_t *at;
    int error = check_str(b, enc, flags, n);
    if (!error)
        error = put_space(b, XI_STR, (uint32_t)enc | flags, n, &at);
    if (!error)
        *where = at;
    return error;
}

int xi_put_utf8(xi_builder *b, const char *text) {
    if (b->error)
        return b->error;
    if (!text)
        return stick(b, xi_fail(XI_E_INVAL, "xi_put_utf8: the text is NULL; use xi_put_none() for no value"));
    size_t n = strlen(text);
    if (xi_is_ascii((const uint8_t *)text, n))
        return put_blob(b, XI_STR, XI_ASCII, text, n);
    if (xi_check_text(XI_UTF8, 0, text, n) != 0)
        return stick(b, xi_fail(XI_E_INVAL, "xi_put_utf8: the text is not UTF-8; use xi_put_str() with its encoding, "
                                            "or xi_put_bytes()"));
    return put_blob(b, XI_STR, XI_UTF8, text, n);
}

static int check_bytes(xi_builder *b, uint32_t flags) {
    if (b->error)
        return b->error;
    if (flags & ~(uint32_t)XI_F_MUTABLE)
        return stick(b, xi_fail(XI_E_INVAL, "bytes or buffer: unknown flags 0x%x", flags));
    return 0;
}

int xi_put_bytes(xi_builder *b, const void *data, size_t n) { return put_blob(b, XI_BYTES, 0, data, n); }

int xi_put_bytes_space(xi_builder *b, uint32_t flags, size_t n, void **where) {
    uint8_t *at;
    int error = check_bytes(b, flags);
    if (!error)
        error = put_space(b, XI_BYTES, flags, n, &at);
    if (!error)
        *where = at;
    return error;
}

int xi_put_buffer(xi_builder *b, const xi_buffer_ref *ref, uint32_t flags) {
    uint8_t *at;
    uint64_t end;
    int error = check_bytes(b, flags);
    if (error)
        return error;
    if (!xi_add_u64(ref->offset, ref->length, &end) || ref->block.generation >> 48 != 0)
        return stick(b, xi_fail(XI_E_INVAL, "buffer: offset and length, or the block's generation, are impossible"));
    error = claim(b, 40, &at);
    if (error || !at)
        return error;
    store(at, XI_HEAD(XI_BUFFER, flags, 0, 40));
    store(at + 8, (uint64_t)ref->block.segment | (uint64_t)ref->block.granule << 32);
    store(at + 16, ref->block.generation);
    store(at + 24, ref->offset);
    store(at + 32, ref->length);
    return 0;
}

int xi_put_value(xi_builder *b, const void *value, size_t size) {
    uint8_t *at;
    xi_cursor c;
    xi_value v;
    if (b->error)
        return b->error;
    xi_cursor_init(&c, value, size);
    int error = xi_next(&c, &v);
    if (error < 0)
        return stick(b, error);
    error = claim(b, size, &at);
    if (!error && at)
        memcpy(at, value, size);
    return error;
}

/* ---------------------------------------------------------- containers */

/*
 * Opens a container: header, LONG word if asked for, then `extra` bytes for the caller at *at (NULL when counting and
 * on error), then `children` values.
 */
static int open_level(xi_builder *b, uint32_t tag, uint32_t flags, uint32_t aux, uint64_t extra, uint64_t children,
                      uint8_t **at) {
    bool is_long = (b->flags & XI_BUILD_LONG) != 0;
    uint64_t head = is_long ? 16 : 8;
    size_t start = b->length;
    *at = NULL;
    if (b->error)
        return b->error;
    if (b->depth == XI_DEPTH_MAX)
        return stick(b, xi_fail(XI_E_DEPTH, "the value is nested more than %d levels deep: send it flatter, or in "
                                            "parts", XI_DEPTH_MAX));
    if (!xi_count_fits(children, 8, b->capacity - b->length))
        return no_room(b, children); /* cannot fit, however small the children */
    int error = claim(b, head + extra, at);
    if (error)
        return error;
    b->depth++;
    b->level[b->depth].start = start;
    b->level[b->depth].remaining = children;
    if (*at) {
        store(*at, XI_HEAD(tag, flags | (is_long ? (uint32_t)XI_F_LONG : 0), aux, 0));
        if (is_long)
            store(*at + 8, 0);
        *at += head;
    }
    return 0;
}

/* The children that `count` of xi_begin() means, and the count that the format stores. False for other tags. */
static bool count_children(enum xi_tag tag, uint64_t count, uint64_t *children, uint64_t *stored) {
    *stored = *children = count;
    switch (tag) {
    case XI_TUPLE:
    case XI_LIST:
    case XI_SET:
    case XI_FROZENSET: return true;
    case XI_DICT:
        if (!xi_mul_u64(count, 2, children))
            *children = UINT64_MAX; /* refused for want of room */
        return true;
    case XI_PICKLE:
        if (!xi_add_u64(count, 1, children))
            *children = UINT64_MAX;
        *stored = *children;
        return true;
    default: return false;
    }
}

int xi_begin(xi_builder *b, enum xi_tag tag, uint64_t count) {
    uint64_t children, stored;
    uint8_t *at;
    if (b->error)
        return b->error;
    if (!count_children(tag, count, &children, &stored))
        return stick(b, xi_fail(XI_E_INVAL, "xi_begin: tag %d opens no container", (int)tag));
    int error = open_level(b, tag, 0, 0, 8, children, &at);
    if (!error && at)
        store(at, stored);
    return error;
}

int xi_begin_ext(xi_builder *b, uint16_t ext) {
    uint8_t *at;
    if (b->error)
        return b->error;
    if (ext == 0)
        return stick(b, xi_fail(XI_E_INVAL, "xi_begin_ext: there is no extension 0; 256 to 65534 are free for users"));
    return open_level(b, XI_EXT, 0, ext, 0, 1, &at);
}

static int check_array(xi_builder *b, const char *dtype, uint32_t flags, uint32_t ndim, const int64_t *shape,
                       const int64_t *strides) {
    if (b->error)
        return b->error;
    if (!dtype || !dtype[0] || (flags & ~(uint32_t)XI_F_FORTRAN))
        return stick(b, xi_fail(XI_E_INVAL, "ndarray: no dtype, or unknown flags 0x%x", flags));
    if (ndim > XI_NDIM_MAX)
        return stick(b, xi_fail(XI_E_INVAL, "ndarray: %u dimensions; at most %u can be sent", ndim, XI_NDIM_MAX));
    if (!xi_shape_ok(ndim, shape, strides))
        return stick(b, xi_fail(XI_E_INVAL, "ndarray: a dimension is negative, or items or bytes exceed 63 bits"));
    return 0;
}

int xi_begin_ndarray(xi_builder *b, const char *dtype, uint32_t flags, uint32_t ndim, const int64_t *shape,
                     const int64_t *strides) {
    uint8_t *at;
    int error = check_array(b, dtype, flags, ndim, shape, strides);
    if (error)
        return error;
    size_t n = strlen(dtype), padding = xi_padding(n, 8), room = (size_t)ndim * 8;
    if (n > UINT32_MAX)
        return no_room(b, n);
    error = open_level(b, XI_NDARRAY, flags, ndim, 8 + n + padding + 2 * room, 1, &at);
    if (error || !at)
        return error;
    store(at, n);
    at += 8;
    if (padding)
        store(at + n + padding - 8, 0);
    memcpy(at, dtype, n);
    at += n + padding;
    if (room) {
        memcpy(at, shape, room);
        memcpy(at + room, strides, room);
    }
    return 0;
}

int xi_end(xi_builder *b) {
    if (b->error)
        return b->error;
    if (b->depth == 0)
        return stick(b, xi_fail(XI_E_INVAL, "xi_end: nothing is open"));
    if (b->level[b->depth].remaining > 0)
        return stick(b, xi_fail(XI_E_INVAL, "xi_end: %llu values are missing that xi_begin() announced",
                                (unsigned long long)b->level[b->depth].remaining));
    size_t start = b->level[b->depth].start, size = b->length - start;
    bool is_long = (b->flags & XI_BUILD_LONG) != 0;
    if (!is_long && size > UINT32_MAX)
        return stick(b, xi_fail(XI_E_TOOBIG, "a container of 4 GiB or more needs XI_BUILD_LONG"));
    b->depth--;
    if (!b->buffer)
        return 0;
    uint32_t size32 = (uint32_t)size;
    if (is_long)
        store(b->buffer + start + 8, size);
    else
        memcpy(b->buffer + start + 4, &size32, sizeof size32);
    return 0;
}
