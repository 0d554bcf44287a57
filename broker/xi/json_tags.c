/* SPDX-License-Identifier: MIT */
/*
 * The tagged forms, from text to value: one row of the table each. A tag that
 * is not in the table is an error that says how to write a key like that, so
 * that new tags can come without changing what old text means.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_private.h"
#include "wire/bounds.h"

struct tag {
    const char *name;
    int (*emit)(struct json_emit *e, const struct tag *tag, size_t i); /* i: the payload's node */
    unsigned kind;                                                    /* the value's tag, flag or extension id */
    unsigned count;                                                   /* of an extension: its tuple's elements */
};

static int expected(struct json_emit *e, size_t i, const struct tag *tag, const char *what) {
    return json_fail(e->j, XI_E_INVAL, json_node_at(e, i)->at, "%s: expected %s", tag->name, what);
}

static int emit_bytes(struct json_emit *e, const struct tag *tag, size_t i) {
    int64_t n = json_base64_size(e->j, i);
    if (n < 0) return (int)n;
    void *where = NULL;
    int rc = xi_put_bytes_space(e->b, tag->kind, (size_t)n, &where);
    if (rc == 0 && where) json_base64_decode(e->j, i, where);
    return json_emit_check(e, i, rc);
}

/* Decoded bytes in a block of their own. */
static int emit_block(struct json_emit *e, size_t i, uint32_t flags, int64_t n) {
    xi_buffer_ref ref = {{0, 0, 0}, 0, (uint64_t)n};
    e->j->buffers++;
    if (!e->counting) {
        void *data;
        int rc = e->place->place(e->place->context, (size_t)n, &data, &ref);
        if (rc) return json_emit_check(e, i, rc);
        json_base64_decode(e->j, i, data);
    }
    return json_emit_check(e, i, xi_put_buffer(e->b, &ref, flags));
}

static int emit_buffer(struct json_emit *e, const struct tag *tag, size_t i) {
    int64_t n = json_base64_size(e->j, i);
    if (n < 0) return (int)n;
    if (!e->place) return expected(e, i, tag, "a channel to send it on: a buffer lies in shared memory");
    return emit_block(e, i, tag->kind, n);
}

/* The array's elements as children; sets refuse equal ones. */
static int emit_sequence(struct json_emit *e, const struct tag *tag, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    if (n->kind != JSON_ARRAY) return expected(e, i, tag, "an array of the elements");
    int rc = json_emit_check(e, i, xi_begin(e->b, (enum xi_tag)tag->kind, n->count));
    if (rc) return rc;
    struct json_unique *u;
    rc = json_unique_new(e, tag->kind == XI_TUPLE ? 0 : n->count, &u);
    size_t child = i + 1;
    for (size_t k = 0; k < n->count && rc == 0; k++, child = json_node_at(e, child)->next) {
        json_unique_begin(u, child);
        rc = json_emit_node(e, child);
        if (rc == 0) json_unique_end(u);
    }
    int twice = json_unique_free(u, rc == 0, "element");
    if (rc || twice) return rc ? rc : twice;
    return json_emit_check(e, i, xi_end(e->b));
}

static int emit_dict(struct json_emit *e, const struct tag *tag, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    if (n->kind != JSON_ARRAY) return expected(e, i, tag, "an array of [key, value] pairs");
    int rc = json_emit_check(e, i, xi_begin(e->b, XI_DICT, n->count));
    if (rc) return rc;
    struct json_unique *u;
    rc = json_unique_new(e, n->count, &u);
    size_t pair = i + 1;
    for (size_t k = 0; k < n->count && rc == 0; k++, pair = json_node_at(e, pair)->next) {
        const struct json_node *p = json_node_at(e, pair);
        if (p->kind != JSON_ARRAY || p->count != 2) {
            rc = expected(e, pair, tag, "each element to be [key, value]");
            break;
        }
        json_unique_begin(u, pair + 1);
        rc = json_emit_node(e, pair + 1);
        if (rc == 0) json_unique_end(u);
        if (rc == 0) rc = json_emit_node(e, json_node_at(e, pair + 1)->next);
    }
    int twice = json_unique_free(u, rc == 0, "key");
    if (rc || twice) return rc ? rc : twice;
    return json_emit_check(e, i, xi_end(e->b));
}

/* {"$str":[...]}: the pieces' characters in a row, surrogates of different pieces staying apart. */
static int emit_str(struct json_emit *e, const struct tag *tag, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    if (n->kind != JSON_ARRAY || n->count == 0) return expected(e, i, tag, "an array of strings");
    size_t child = i + 1;
    for (size_t k = 0; k < n->count; k++, child = json_node_at(e, child)->next)
        if (json_node_at(e, child)->kind != JSON_STRING) return expected(e, child, tag, "an array of strings");
    return json_emit_string(e, i + 1, n->count);
}

/* ---- numbers ---- */

static bool float_name(const char *text, double *out) {
    if (strcmp(text, "nan") == 0 || strncmp(text, "nan:", 4) == 0) {
        uint64_t bits = 0x7ff8000000000000u;
        if (text[3]) {
            char *end;
            bits = strtoull(text + 4, &end, 16);
            if (strlen(text) != 20 || strspn(text + 4, "0123456789abcdefABCDEF") != 16 || *end) return false;
        }
        memcpy(out, &bits, sizeof *out);
        return isnan(*out);
    }
    if (strcmp(text, "inf") == 0) return *out = HUGE_VAL, true;
    return strcmp(text, "-inf") == 0 ? (*out = -HUGE_VAL, true) : false;
}

static int emit_float(struct json_emit *e, const struct tag *tag, size_t i) {
    char text[32];
    double v;
    if (!json_ascii(e->j, json_node_at(e, i), text, sizeof text) || !float_name(text, &v))
        return expected(e, i, tag, "\"nan\", \"inf\", \"-inf\" or \"nan:\" with 16 hexadecimal digits");
    return json_emit_check(e, i, xi_put_float(e->b, v));
}

/* A part of a complex number: a number, or a {"$float":...}. */
static bool real_part(struct json_emit *e, size_t i, double *out) {
    const struct json_node *n = json_node_at(e, i);
    char text[32];
    if (n->kind == JSON_INT || n->kind == JSON_REAL) {
        *out = strtod(e->j->text + n->at, NULL);
        bool exact = n->kind == JSON_REAL || fabs(*out) < 9007199254740992.0;
        return exact && isfinite(*out);
    }
    return n->kind == JSON_OBJECT && n->count == 1 && json_ascii(e->j, json_node_at(e, i + 1), text, sizeof text) &&
           strcmp(text, "$float") == 0 && json_ascii(e->j, json_node_at(e, i + 2), text, sizeof text) &&
           float_name(text, out);
}

static int emit_complex(struct json_emit *e, const struct tag *tag, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    double re, im;
    if (n->kind != JSON_ARRAY || n->count != 2 || !real_part(e, i + 1, &re) ||
        !real_part(e, json_node_at(e, i + 1)->next, &im))
        return expected(e, i, tag, "[real, imaginary], each a float");
    return json_emit_check(e, i, xi_put_complex(e->b, re, im));
}

/* {"$int":"-0x1f"} or decimal: for integers of more digits than a plain number may have. */
static int emit_integer(struct json_emit *e, const struct tag *tag, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    if (n->kind != JSON_STRING || !n->plain) return expected(e, i, tag, "a string such as \"-0x1f\"");
    const char *text = e->j->text + n->at;
    size_t left = n->length;
    bool negative = left > 0 && *text == '-';
    text += negative;
    left -= negative;
    unsigned base = left > 2 && text[0] == '0' && (text[1] | 32) == 'x' ? 16 : 10;
    if (base == 16) text += 2, left -= 2;
    for (size_t k = 0; k < left; k++)
        if (!memchr("0123456789abcdefABCDEF", text[k], base == 16 ? 22 : 10)) left = 0;
    if (left == 0) return expected(e, i, tag, "decimal digits, or 0x and hexadecimal ones, as a string");
    if (base == 10 && left > JSON_DIGITS_MAX) return expected(e, i, tag, "hexadecimal (\"0x...\") for an integer this large");
    uint8_t *bytes;
    size_t size;
    int rc = json_integer_bytes(text, left, base, negative, &bytes, &size);
    if (rc) return json_emit_check(e, i, rc);
    rc = xi_put_bigint(e->b, bytes, size);
    free(bytes);
    return json_emit_check(e, i, rc);
}

/* ---- extensions ---- */

static bool integer_node(const struct json_emit *e, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    char key[8];
    return n->kind == JSON_INT || (n->kind == JSON_OBJECT && n->count == 1 &&
                                   json_ascii(e->j, json_node_at(e, i + 1), key, sizeof key) && strcmp(key, "$int") == 0);
}

/* An extension whose payload is a tuple of so many integers. */
static int emit_integers(struct json_emit *e, const struct tag *tag, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    bool good = n->kind == JSON_ARRAY && n->count == tag->count;
    size_t child = i + 1;
    for (size_t k = 0; good && k < n->count; k++, child = json_node_at(e, child)->next) good = integer_node(e, child);
    if (!good) return expected(e, i, tag, tag->count == 2 ? "an array of two integers" : "an array of three integers");
    int rc = json_emit_check(e, i, xi_begin_ext(e->b, (uint16_t)tag->kind));
    if (rc == 0) rc = json_emit_check(e, i, xi_begin(e->b, XI_TUPLE, n->count));
    child = i + 1;
    for (size_t k = 0; k < n->count && rc == 0; k++, child = json_node_at(e, child)->next) rc = json_emit_node(e, child);
    if (rc == 0) rc = json_emit_check(e, i, xi_end(e->b));
    return rc ? rc : json_emit_check(e, i, xi_end(e->b));
}

/* An extension of one child that is checked already. */
static int emit_wrapped(struct json_emit *e, const struct tag *tag, size_t i) {
    int rc = json_emit_check(e, i, xi_begin_ext(e->b, (uint16_t)tag->kind));
    if (rc == 0) rc = json_emit_node(e, i);
    return rc ? rc : json_emit_check(e, i, xi_end(e->b));
}

static int emit_interpreter(struct json_emit *e, const struct tag *tag, size_t i) {
    if (!integer_node(e, i)) return expected(e, i, tag, "an interpreter's id, an integer");
    return emit_wrapped(e, tag, i);
}

static int emit_channel(struct json_emit *e, const struct tag *tag, size_t i) {
    if (json_node_at(e, i)->kind != JSON_STRING) return expected(e, i, tag, "a channel's name, a string");
    return emit_wrapped(e, tag, i);
}

static int emit_decimal(struct json_emit *e, const struct tag *tag, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    if (n->kind != JSON_STRING || !n->plain || !json_decimal_valid(e->j->text + n->at, n->length))
        return expected(e, i, tag, "a decimal number as a string, such as \"1.10\"");
    return emit_wrapped(e, tag, i);
}

static int emit_uuid(struct json_emit *e, const struct tag *tag, size_t i) {
    char text[40];
    uint8_t uuid[16];
    bool good = json_ascii(e->j, json_node_at(e, i), text, sizeof text) && strlen(text) == 36;
    size_t digits = 0;
    for (size_t k = 0; good && k < 36; k++) {
        char c = text[k];
        if (k == 8 || k == 13 || k == 18 || k == 23) {
            good = c == '-';
            continue;
        }
        good = memchr("0123456789abcdefABCDEF", c, 22) != NULL;
        uint8_t v = (uint8_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
        uuid[digits / 2] = (uint8_t)(digits % 2 ? uuid[digits / 2] | v : v << 4);
        digits++;
    }
    if (!good) return expected(e, i, tag, "a UUID such as \"123e4567-e89b-12d3-a456-426614174000\"");
    int rc = json_emit_check(e, i, xi_begin_ext(e->b, XI_EXT_UUID));
    if (rc == 0) rc = json_emit_check(e, i, xi_put_bytes(e->b, uuid, sizeof uuid));
    return rc ? rc : json_emit_check(e, i, xi_end(e->b));
}

static int emit_moment(struct json_emit *e, const struct tag *tag, size_t i) {
    char text[48];
    struct json_moment m;
    if (!json_ascii(e->j, json_node_at(e, i), text, sizeof text) || !json_moment_parse(tag->kind, text, &m)) {
        static const char *const form[] = {"", "a date such as \"2024-05-01\"", "a time such as \"12:30:00.5+02:00\"",
                                           "such as \"2024-05-01T12:30:00+02:00\""};
        return expected(e, i, tag, form[tag->kind]);
    }
    size_t first, count;
    json_moment_span(tag->kind, &first, &count);
    int rc = json_emit_check(e, i, xi_begin_ext(e->b, (uint16_t)tag->kind));
    if (rc == 0) rc = json_emit_check(e, i, xi_begin(e->b, XI_TUPLE, count));
    for (size_t k = first; k < first + count && rc == 0; k++)
        rc = json_emit_check(e, i, k == 8 && !m.has_offset ? xi_put_none(e->b) : xi_put_int(e->b, m.field[k]));
    if (rc == 0) rc = json_emit_check(e, i, xi_end(e->b));
    return rc ? rc : json_emit_check(e, i, xi_end(e->b));
}

/* {"$ext":[id, payload]} */
static int emit_ext(struct json_emit *e, const struct tag *tag, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    const struct json_node *id = json_node_at(e, i + 1);
    bool good = n->kind == JSON_ARRAY && n->count == 2 && id->kind == JSON_INT && id->length <= 5;
    long number = good ? strtol(e->j->text + id->at, NULL, 10) : -1;
    if (number < 0 || number > 65535) return expected(e, i, tag, "[id, payload], the id from 0 to 65535");
    int rc = json_emit_check(e, i, xi_begin_ext(e->b, (uint16_t)number));
    if (rc == 0) rc = json_emit_node(e, id->next);
    return rc ? rc : json_emit_check(e, i, xi_end(e->b));
}

/* {"$named":[name, value]} */
static int emit_named(struct json_emit *e, const struct tag *tag, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    if (n->kind != JSON_ARRAY || n->count != 2 || json_node_at(e, i + 1)->kind != JSON_STRING)
        return expected(e, i, tag, "[name, value], the name a string");
    int rc = json_emit_check(e, i, xi_begin_ext(e->b, XI_EXT_NAMED));
    if (rc == 0) rc = json_emit_check(e, i, xi_begin(e->b, XI_TUPLE, 2));
    if (rc == 0) rc = json_emit_node(e, i + 1);
    if (rc == 0) rc = json_emit_node(e, json_node_at(e, i + 1)->next);
    if (rc == 0) rc = json_emit_check(e, i, xi_end(e->b));
    return rc ? rc : json_emit_check(e, i, xi_end(e->b));
}

/* ---- pickles ---- */

/* What may follow a pickle's own bytes. */
static bool buffer_node(const struct json_emit *e, size_t i) {
    static const char *const kinds[] = {"$bytes", "$bytearray", "$buffer", "$mutable_buffer"};
    const struct json_node *n = json_node_at(e, i);
    char key[24];
    if (n->kind != JSON_OBJECT || n->count != 1 || !json_ascii(e->j, json_node_at(e, i + 1), key, sizeof key)) return false;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        if (strcmp(key, kinds[k]) == 0) return true;
    return false;
}

/* {"$pickle":base64} or {"$pickle":[base64, buffer, ...]} */
static int emit_pickle(struct json_emit *e, const struct tag *tag, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    size_t first = n->kind == JSON_ARRAY ? i + 1 : i, buffers = 0;
    if (n->kind == JSON_ARRAY) {
        if (n->count == 0) return expected(e, i, tag, "base64, or an array of base64 and buffers");
        buffers = n->count - 1;
    }
    int rc = json_emit_check(e, i, xi_begin(e->b, XI_PICKLE, buffers));
    static const struct tag plain = {"$pickle", NULL, 0, 0};
    if (rc == 0) rc = emit_bytes(e, &plain, first);
    size_t child = json_node_at(e, first)->next;
    for (size_t k = 0; k < buffers && rc == 0; k++, child = json_node_at(e, child)->next) {
        if (!buffer_node(e, child)) return expected(e, child, tag, "buffers ({\"$buffer\":base64}) after the pickle's base64");
        rc = json_emit_node(e, child);
    }
    return rc ? rc : json_emit_check(e, i, xi_end(e->b));
}

/* ---- arrays ---- */

struct array {
    char *dtype; /* from malloc() */
    uint32_t flags;
    bool mutable, has_shape, has_strides;
    uint32_t ndim, strides_ndim;
    size_t data; /* node, 0 if missing */
    int64_t shape[64], strides[64];
};

static int array_numbers(struct json_emit *e, size_t i, int64_t *out, uint32_t *ndim) {
    const struct json_node *n = json_node_at(e, i);
    if (n->kind != JSON_ARRAY || n->count > 64)
        return json_fail(e->j, XI_E_INVAL, n->at, "expected an array of at most 64 integers");
    size_t child = i + 1;
    for (size_t k = 0; k < n->count; k++, child = json_node_at(e, child)->next) {
        const struct json_node *c = json_node_at(e, child);
        errno = 0;
        out[k] = c->kind == JSON_INT ? strtoll(e->j->text + c->at, NULL, 10) : 0;
        if (c->kind != JSON_INT || errno) return json_fail(e->j, XI_E_INVAL, c->at, "expected an integer of 64 bits");
    }
    *ndim = (uint32_t)n->count;
    return 0;
}

static int array_dtype(struct json_emit *e, size_t i, struct array *a) {
    const struct json_node *n = json_node_at(e, i);
    if (n->kind != JSON_STRING) return json_fail(e->j, XI_E_INVAL, n->at, "expected a dtype such as \"<f8\"");
    char *out = a->dtype = malloc(n->length + 1);
    if (!out) return json_fail(e->j, XI_E_NOMEM, n->at, "out of memory for a dtype");
    struct json_chars c = json_chars_of(e->j, n);
    for (int32_t code; (code = json_chars_next(&c)) >= 0;) {
        if (code == 0 || (code >= 0xd800 && code <= 0xdfff))
            return json_fail(e->j, XI_E_INVAL, n->at, "a dtype holds no NUL and no lone surrogate");
        out += json_utf8_put((uint32_t)code, out); /* never longer than its escaped form */
    }
    *out = 0;
    return 0;
}

static int array_member(struct json_emit *e, size_t key, struct array *a) {
    char name[16];
    size_t i = json_node_at(e, key)->next;
    const struct json_node *n = json_node_at(e, i);
    if (!json_ascii(e->j, json_node_at(e, key), name, sizeof name)) name[0] = 0;
    if (strcmp(name, "dtype") == 0 && !a->dtype) return array_dtype(e, i, a);
    if (strcmp(name, "shape") == 0 && !a->has_shape) return a->has_shape = true, array_numbers(e, i, a->shape, &a->ndim);
    if (strcmp(name, "strides") == 0 && !a->has_strides)
        return a->has_strides = true, array_numbers(e, i, a->strides, &a->strides_ndim);
    if (strcmp(name, "data") == 0 && !a->data) return a->data = i, 0;
    if (strcmp(name, "mutable") == 0 && (n->kind == JSON_TRUE || n->kind == JSON_FALSE))
        return a->mutable = n->kind == JSON_TRUE, 0;
    char order[4] = "";
    if (strcmp(name, "order") == 0 && json_ascii(e->j, n, order, sizeof order) && strpbrk(order, "CF") && !order[1])
        return a->flags = order[0] == 'F' ? XI_F_FORTRAN : 0, 0;
    return json_fail(e->j, XI_E_INVAL, json_node_at(e, key)->at,
                     "$ndarray: expected dtype, shape, strides, order (\"C\" or \"F\"), mutable (true or false) and data, each once");
}

static int array_data(struct json_emit *e, const struct array *a, int64_t bytes) {
    uint32_t flags = a->mutable ? XI_F_MUTABLE : 0;
    if (e->place) return emit_block(e, a->data, flags, bytes);
    void *where = NULL;
    int rc = xi_put_bytes_space(e->b, flags, (size_t)bytes, &where);
    if (rc == 0 && where) json_base64_decode(e->j, a->data, where);
    return json_emit_check(e, a->data, rc);
}

static int array_emit(struct json_emit *e, size_t i, struct array *a) {
    size_t at = json_node_at(e, i)->at;
    if (!a->dtype || !a->has_shape || !a->data)
        return json_fail(e->j, XI_E_INVAL, at, "$ndarray: expected at least dtype, shape and data");
    for (uint32_t k = 0; k < a->ndim; k++)
        if (a->shape[k] < 0) return json_fail(e->j, XI_E_INVAL, at, "$ndarray: a shape is not negative");
    int64_t bytes = json_base64_size(e->j, a->data);
    if (bytes < 0) return (int)bytes;
    if (!a->has_strides) {
        if (!json_natural_strides(a->ndim, a->shape, (uint64_t)bytes, a->flags & XI_F_FORTRAN, a->strides))
            return json_fail(e->j, XI_E_INVAL, at, "$ndarray: %lld bytes of data do not fill this shape; expected data of "
                             "another length, or \"strides\"", (long long)bytes);
    } else if (a->strides_ndim != a->ndim) {
        return json_fail(e->j, XI_E_INVAL, at, "$ndarray: %u strides for a shape of %u", a->strides_ndim, a->ndim);
    }
    int rc = json_emit_check(e, i, xi_begin_ndarray(e->b, a->dtype, a->flags, a->ndim, a->shape, a->strides));
    if (rc == 0) rc = array_data(e, a, bytes);
    return rc ? rc : json_emit_check(e, i, xi_end(e->b));
}

bool json_natural_strides(uint32_t ndim, const int64_t *shape, uint64_t bytes, bool fortran, int64_t *strides) {
    int64_t items = 1;
    for (uint32_t k = 0; k < ndim; k++)
        if (!xi_mul_i64(items, shape[k], &items)) return false;
    if (items <= 0 || bytes > INT64_MAX || (int64_t)bytes % items != 0) return ndim == 0;
    int64_t step = (int64_t)bytes / items;
    for (uint32_t k = 0; k < ndim; k++) {
        uint32_t dim = fortran ? k : ndim - 1 - k;
        strides[dim] = step;
        step *= shape[dim]; /* at most `bytes` */
    }
    return true;
}

int json_emit_ndarray(struct json_emit *e, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    if (n->kind != JSON_OBJECT)
        return json_fail(e->j, XI_E_INVAL, n->at, "$ndarray: expected {\"dtype\":...,\"shape\":[...],\"data\":base64}");
    struct array *a = calloc(1, sizeof *a);
    if (!a) return json_fail(e->j, XI_E_NOMEM, n->at, "out of memory for an array");
    int rc = 0;
    size_t key = i + 1;
    for (size_t k = 0; k < n->count && rc == 0; k++) {
        rc = array_member(e, key, a);
        key = json_node_at(e, json_node_at(e, key)->next)->next;
    }
    if (rc == 0) rc = array_emit(e, i, a);
    free(a->dtype);
    free(a);
    return rc;
}

static int emit_ndarray(struct json_emit *e, const struct tag *tag, size_t i) {
    (void)tag;
    return json_emit_ndarray(e, i);
}

static const struct tag tags[] = {
    {"$bytes", emit_bytes, 0, 0},
    {"$bytearray", emit_bytes, XI_F_MUTABLE, 0},
    {"$buffer", emit_buffer, 0, 0},
    {"$mutable_buffer", emit_buffer, XI_F_MUTABLE, 0},
    {"$tuple", emit_sequence, XI_TUPLE, 0},
    {"$set", emit_sequence, XI_SET, 0},
    {"$frozenset", emit_sequence, XI_FROZENSET, 0},
    {"$dict", emit_dict, 0, 0},
    {"$str", emit_str, 0, 0},
    {"$float", emit_float, 0, 0},
    {"$complex", emit_complex, 0, 0},
    {"$int", emit_integer, 0, 0},
    {"$date", emit_moment, XI_EXT_DATE, 0},
    {"$time", emit_moment, XI_EXT_TIME, 0},
    {"$datetime", emit_moment, XI_EXT_DATETIME, 0},
    {"$timedelta", emit_integers, XI_EXT_TIMEDELTA, 3},
    {"$uuid", emit_uuid, XI_EXT_UUID, 0},
    {"$decimal", emit_decimal, XI_EXT_DECIMAL, 0},
    {"$fraction", emit_integers, XI_EXT_FRACTION, 2},
    {"$interpreter", emit_interpreter, XI_EXT_INTERP, 0},
    {"$channel", emit_channel, XI_EXT_CHANNEL, 0},
    {"$range", emit_integers, XI_EXT_RANGE, 3},
    {"$named", emit_named, XI_EXT_NAMED, 0},
    {"$ext", emit_ext, 0, 0},
    {"$ndarray", emit_ndarray, 0, 0},
    {"$pickle", emit_pickle, 0, 0},
};

int json_emit_tagged(struct json_emit *e, size_t i) {
    const struct json_node *key = json_node_at(e, i + 1);
    char name[24] = "";
    if (json_ascii(e->j, key, name, sizeof name))
        for (size_t k = 0; k < sizeof tags / sizeof tags[0]; k++)
            if (strcmp(tags[k].name, name) == 0) return tags[k].emit(e, &tags[k], key->next);
    return json_fail(e->j, XI_E_INVAL, key->at,
                     "there is no tag \"%.24s\" (see xi(1)); a real key that begins with $ is written "
                     "{\"$dict\":[[\"$key\",value]]}", name);
}
