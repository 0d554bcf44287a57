/* SPDX-License-Identifier: MIT */
/*
 * One value to one line of JSON.
 *
 * The value may lie in memory that its sender can still write: everything is
 * read through a cursor, text is copied before it is looked at, and what a
 * first look decided (a dict whose keys are all strings) is an error if the
 * second finds otherwise.
 */
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "json_private.h"

struct writer {
    struct json_out *out;
    const struct json_buffers *buffers;
};

static int write_value(struct writer *w, const xi_value *v);

static int changed(void) {
    return xi_fail(XI_E_CORRUPT, "the value changed while it was being read: its sender overwrites what it has sent");
}

/* The only child, or the next that must be there. */
static int next_child(xi_cursor *c, xi_value *child) {
    int rc = xi_next(c, child);
    return rc == 1 ? 0 : rc < 0 ? rc : changed();
}

/* ---- text ---- */

/* A str as UTF-8 in memory from malloc(), lone surrogates in three bytes each. */
static int copy_text(const xi_value *v, char **out, size_t *n) {
    size_t room = 2 * v->length + 1; /* Latin-1 doubles at most, two-byte units take three at most */
    char *text = malloc(room);
    if (!text) return xi_fail(XI_E_NOMEM, "out of memory for a text of %zu bytes", v->length);
    int64_t used = xi_to_utf8(v, text, room, true);
    if (used >= 0 && (size_t)used >= room) used = changed();
    if (used < 0) {
        free(text);
        return (int)used;
    }
    *out = text;
    *n = (size_t)used;
    return 0;
}

/*
 * A high surrogate and a low one as two characters, which JSON's escapes cannot tell from the one character that they
 * mean together: where the second begins, or NULL.
 */
static const char *split_pair(const char *p, const char *end) {
    for (; end - p >= 6 && (p = memchr(p, 0xed, (size_t)(end - p) - 5)) != NULL; p++)
        if ((p[1] & 0xf0) == 0xa0 && (unsigned char)p[3] == 0xed && (p[4] & 0xf0) == 0xb0) return p + 3;
    return NULL;
}

static void put_text(struct writer *w, const char *text, size_t n) {
    const char *end = text + n, *cut = split_pair(text, end);
    if (!cut) {
        json_put_string(w->out, text, n);
        return;
    }
    json_puts(w->out, "{\"$str\":[");
    for (; cut; text = cut, cut = split_pair(text, end)) {
        json_put_string(w->out, text, (size_t)(cut - text));
        json_puts(w->out, ",");
    }
    json_put_string(w->out, text, (size_t)(end - text));
    json_puts(w->out, "]}");
}

static int write_text(struct writer *w, const xi_value *v) {
    char *text;
    size_t n;
    int rc = copy_text(v, &text, &n);
    if (rc) return rc;
    put_text(w, text, n);
    free(text);
    return 0;
}

/* ---- containers ---- */

static int write_children(struct writer *w, const xi_value *v) {
    xi_cursor c;
    xi_value child;
    int rc = xi_enter(v, &c);
    bool first = true;
    while (rc == 0 && (rc = xi_next(&c, &child)) == 1) {
        if (!first) json_puts(w->out, ",");
        first = false;
        rc = write_value(w, &child);
    }
    return rc;
}

static int write_array(struct writer *w, const xi_value *v, const char *before, const char *after) {
    json_puts(w->out, before);
    json_puts(w->out, "[");
    int rc = write_children(w, v);
    json_puts(w->out, "]");
    json_puts(w->out, after);
    return rc;
}

/* Whether one key may be a key of a plain object. 1: yes, 0: no, negative: error. */
static int plain_key(const xi_value *key, bool only) {
    if (key->tag != XI_STR) return 0;
    char *text;
    size_t n;
    if (!only && !(key->flags & XI_F_SURROGATES)) return 1;
    int rc = copy_text(key, &text, &n);
    if (rc) return rc;
    bool tag = only && n > 0 && text[0] == '$'; /* it would be taken for a tag */
    bool split = split_pair(text, text + n) != NULL;
    free(text);
    return !tag && !split;
}

/* 1 if the dict can be a plain JSON object. */
static int plain_dict(const xi_value *v) {
    xi_cursor c;
    xi_value item;
    int rc = xi_enter(v, &c), plain = 1;
    for (uint64_t k = 0; rc == 0 && plain == 1 && k < v->count; k++) {
        rc = next_child(&c, &item);
        if (rc == 0) plain = plain_key(&item, v->count == 1);
        if (rc == 0 && plain == 1) rc = next_child(&c, &item);
    }
    return rc ? rc : plain;
}

static int write_pairs(struct writer *w, const xi_value *v, bool plain) {
    xi_cursor c;
    xi_value item;
    int rc = xi_enter(v, &c);
    for (uint64_t k = 0; rc == 0 && k < v->count; k++) {
        if (k > 0) json_puts(w->out, ",");
        if (!plain) json_puts(w->out, "[");
        rc = next_child(&c, &item);
        if (rc == 0 && plain && item.tag != XI_STR) rc = changed();
        if (rc == 0) rc = write_value(w, &item);
        json_puts(w->out, plain ? ":" : ",");
        if (rc == 0) rc = next_child(&c, &item);
        if (rc == 0) rc = write_value(w, &item);
        if (!plain) json_puts(w->out, "]");
    }
    return rc;
}

static int write_dict(struct writer *w, const xi_value *v) {
    int plain = plain_dict(v);
    if (plain < 0) return plain;
    json_puts(w->out, plain ? "{" : "{\"$dict\":[");
    int rc = write_pairs(w, v, plain);
    json_puts(w->out, plain ? "}" : "]}");
    return rc;
}

/* ---- bytes and what holds them ---- */

static void put_blob(struct writer *w, const char *name, const void *data, size_t n) {
    json_printf(w->out, "{\"%s\":\"", name);
    json_put_base64(w->out, data, n);
    json_puts(w->out, "\"}");
}

/* Where the bytes of an XI_BYTES or XI_BUFFER are. */
static int find_bytes(struct writer *w, const xi_value *v, const void **data, size_t *n) {
    if (v->tag == XI_BYTES) return *data = v->data, *n = v->length, 0;
    if (v->tag != XI_BUFFER) return xi_fail(XI_E_CORRUPT, "the value is not valid: data that is neither bytes nor a buffer");
    *n = v->u.buffer.length;
    if (!w->buffers) return xi_fail(XI_E_NOENT, "the value's buffer lies in shared memory that is not at hand");
    return w->buffers->find(w->buffers->context, &v->u.buffer, data);
}

static int write_bytes(struct writer *w, const xi_value *v) {
    const void *data;
    size_t n;
    int rc = find_bytes(w, v, &data, &n);
    if (rc) return rc;
    bool mutable = v->flags & XI_F_MUTABLE;
    if (v->tag == XI_BYTES)
        put_blob(w, mutable ? "$bytearray" : "$bytes", data, n);
    else
        put_blob(w, mutable ? "$mutable_buffer" : "$buffer", data, n);
    return 0;
}

static int write_pickle(struct writer *w, const xi_value *v) {
    xi_cursor c;
    xi_value child;
    int rc = xi_enter(v, &c);
    if (rc == 0) rc = next_child(&c, &child);
    if (rc) return rc;
    if (child.tag != XI_BYTES) return xi_fail(XI_E_CORRUPT, "the value is not valid: a pickle without its bytes");
    bool alone = v->count == 1;
    json_puts(w->out, alone ? "{\"$pickle\":\"" : "{\"$pickle\":[\"");
    json_put_base64(w->out, child.data, child.length);
    json_puts(w->out, "\"");
    while ((rc = xi_next(&c, &child)) == 1) {
        if (child.tag != XI_BYTES && child.tag != XI_BUFFER) return changed();
        json_puts(w->out, ",");
        rc = write_bytes(w, &child);
        if (rc) return rc;
    }
    json_puts(w->out, alone ? "}" : "]}");
    return rc;
}

static void put_numbers(struct writer *w, const char *name, const int64_t *numbers, uint32_t n) {
    json_printf(w->out, ",\"%s\":[", name);
    for (uint32_t k = 0; k < n; k++) json_printf(w->out, k ? ",%lld" : "%lld", (long long)numbers[k]);
    json_puts(w->out, "]");
}

static int put_dtype(struct writer *w, const xi_value *v) {
    size_t n = v->u.array.dtype_length;
    char *dtype = malloc(n + 1);
    if (!dtype) return xi_fail(XI_E_NOMEM, "out of memory for a dtype of %zu bytes", n);
    memcpy(dtype, v->u.array.dtype, n);
    int rc = memchr(dtype, 0, n) ? XI_E_CORRUPT : xi_check_text(XI_UTF8, 0, dtype, n);
    if (rc)
        xi_fail(rc, "the value is not valid: an ndarray's dtype is no text");
    else
        json_put_string(w->out, dtype, n);
    free(dtype);
    return rc;
}

static int write_ndarray(struct writer *w, const xi_value *v) {
    xi_cursor c;
    xi_value child;
    const void *data;
    size_t n;
    int rc = xi_enter(v, &c);
    if (rc == 0) rc = next_child(&c, &child);
    if (rc == 0) rc = find_bytes(w, &child, &data, &n);
    json_puts(w->out, "{\"$ndarray\":{\"dtype\":");
    if (rc == 0) rc = put_dtype(w, v);
    if (rc) return rc;
    bool fortran = v->flags & XI_F_FORTRAN;
    uint32_t ndim = v->u.array.ndim;
    int64_t natural[64];
    put_numbers(w, "shape", v->u.array.shape, ndim);
    if (!json_natural_strides(ndim, v->u.array.shape, n, fortran, natural) ||
        memcmp(natural, v->u.array.strides, ndim * sizeof natural[0]) != 0)
        put_numbers(w, "strides", v->u.array.strides, ndim);
    if (fortran) json_puts(w->out, ",\"order\":\"F\"");
    if (child.flags & XI_F_MUTABLE) json_puts(w->out, ",\"mutable\":true");
    json_puts(w->out, ",\"data\":\"");
    json_put_base64(w->out, data, n);
    json_puts(w->out, "\"}}");
    return 0;
}

/* ---- extensions: the readable form if the payload is exactly what it stands for ---- */

/* Reads a tuple of `n` small integers; the last may be none (*none). 1: it is that. */
static int read_integers(const xi_value *tuple, int64_t *out, size_t n, bool *none) {
    xi_cursor c;
    xi_value item;
    *none = false;
    if (tuple->tag != XI_TUPLE || tuple->count != n) return 0;
    int rc = xi_enter(tuple, &c);
    for (size_t k = 0; rc == 0 && k < n; k++) {
        rc = next_child(&c, &item);
        if (rc) return rc;
        if (k == n - 1 && item.tag == XI_NONE)
            *none = true;
        else if (item.tag == XI_INT32 || item.tag == XI_INT64)
            out[k] = item.u.integer;
        else
            return 0;
    }
    return rc ? rc : 1;
}

static int write_moment(struct writer *w, unsigned ext, const xi_value *payload) {
    static const char *const name[] = {"", "$date", "$time", "$datetime"};
    struct json_moment m = {{0}, false};
    size_t first, count;
    bool none;
    char text[48];
    json_moment_span(ext, &first, &count);
    int rc = read_integers(payload, m.field + first, count, &none);
    if (rc <= 0) return rc;
    if (ext == XI_EXT_DATE && none) return 0;
    m.has_offset = !none;
    if (!json_moment_format(ext, &m, text)) return 0;
    json_printf(w->out, "{\"%s\":\"%s\"}", name[ext], text);
    return 1;
}

/* A tuple of `n` integers of any size. */
static int write_integers(struct writer *w, const char *before, size_t n, const xi_value *payload) {
    xi_cursor c;
    xi_value item;
    if (payload->tag != XI_TUPLE || payload->count != n) return 0;
    int rc = xi_enter(payload, &c);
    while (rc == 0 && (rc = xi_next(&c, &item)) == 1) {
        if (item.tag != XI_INT32 && item.tag != XI_INT64 && item.tag != XI_BIGINT) return 0;
        rc = 0;
    }
    if (rc == 0) rc = write_array(w, payload, before, "}");
    return rc ? rc : 1;
}

static int write_uuid(struct writer *w, const xi_value *payload) {
    uint8_t u[16];
    if (payload->tag != XI_BYTES || payload->length != sizeof u || payload->flags) return 0;
    memcpy(u, payload->data, sizeof u);
    json_puts(w->out, "{\"$uuid\":\"");
    for (size_t k = 0; k < sizeof u; k++) json_printf(w->out, k == 4 || k == 6 || k == 8 || k == 10 ? "-%02x" : "%02x", u[k]);
    json_puts(w->out, "\"}");
    return 1;
}

static int write_decimal(struct writer *w, const xi_value *payload) {
    char *text;
    size_t n;
    if (payload->tag != XI_STR) return 0;
    int rc = copy_text(payload, &text, &n);
    if (rc) return rc;
    bool valid = json_decimal_valid(text, n);
    if (valid) {
        json_puts(w->out, "{\"$decimal\":");
        json_put_string(w->out, text, n);
        json_puts(w->out, "}");
    }
    free(text);
    return valid;
}

static int write_channel(struct writer *w, const xi_value *payload) {
    if (payload->tag != XI_STR || (payload->flags & XI_F_SURROGATES)) return 0;
    json_puts(w->out, "{\"$channel\":");
    int rc = write_text(w, payload);
    json_puts(w->out, "}");
    return rc ? rc : 1;
}

static int write_interpreter(struct writer *w, const xi_value *payload) {
    if (payload->tag != XI_INT32 && payload->tag != XI_INT64) return 0;
    json_printf(w->out, "{\"$interpreter\":%lld}", (long long)payload->u.integer);
    return 1;
}

static int write_named(struct writer *w, const xi_value *payload) {
    xi_cursor c;
    xi_value name;
    if (payload->tag != XI_TUPLE || payload->count != 2) return 0;
    int rc = xi_enter(payload, &c);
    if (rc == 0) rc = next_child(&c, &name);
    if (rc == 0 && (name.tag != XI_STR || (name.flags & XI_F_SURROGATES))) return 0;
    if (rc == 0) rc = write_array(w, payload, "{\"$named\":", "}");
    return rc ? rc : 1;
}

/* 1: written in its readable form; 0: it has none, nothing was written; negative: error. */
static int write_known(struct writer *w, unsigned ext, const xi_value *payload) {
    switch (ext) {
    case XI_EXT_DATE: case XI_EXT_TIME: case XI_EXT_DATETIME: return write_moment(w, ext, payload);
    case XI_EXT_TIMEDELTA: return write_integers(w, "{\"$timedelta\":", 3, payload);
    case XI_EXT_FRACTION: return write_integers(w, "{\"$fraction\":", 2, payload);
    case XI_EXT_RANGE: return write_integers(w, "{\"$range\":", 3, payload);
    case XI_EXT_UUID: return write_uuid(w, payload);
    case XI_EXT_DECIMAL: return write_decimal(w, payload);
    case XI_EXT_INTERP: return write_interpreter(w, payload);
    case XI_EXT_CHANNEL: return write_channel(w, payload);
    case XI_EXT_NAMED: return write_named(w, payload);
    default: return 0;
    }
}

static int write_ext(struct writer *w, const xi_value *v) {
    xi_cursor c;
    xi_value payload;
    int rc = xi_enter(v, &c);
    if (rc == 0) rc = next_child(&c, &payload);
    if (rc == 0) rc = write_known(w, v->aux, &payload);
    if (rc != 0) return rc < 0 ? rc : 0;
    json_printf(w->out, "{\"$ext\":[%u,", v->aux);
    rc = write_value(w, &payload);
    json_puts(w->out, "]}");
    return rc;
}

static int write_bigint(struct writer *w, const xi_value *v) {
    int rc = json_put_bigint(w->out, v->data, v->length);
    return rc ? xi_fail(rc, "out of memory for an integer of %zu bytes", v->length) : 0;
}

static int write_value(struct writer *w, const xi_value *v) {
    switch (v->tag) {
    case XI_NONE: json_puts(w->out, "null"); break;
    case XI_BOOL: json_puts(w->out, v->u.boolean ? "true" : "false"); break;
    case XI_INT32: case XI_INT64: json_printf(w->out, "%lld", (long long)v->u.integer); break;
    case XI_FLOAT: json_put_float(w->out, v->u.real); break;
    case XI_COMPLEX:
        json_puts(w->out, "{\"$complex\":[");
        json_put_float(w->out, v->u.complex_[0]);
        json_puts(w->out, ",");
        json_put_float(w->out, v->u.complex_[1]);
        json_puts(w->out, "]}");
        break;
    case XI_BIGINT: return write_bigint(w, v);
    case XI_STR: return write_text(w, v);
    case XI_BYTES: case XI_BUFFER: return write_bytes(w, v);
    case XI_TUPLE: return write_array(w, v, "{\"$tuple\":", "}");
    case XI_LIST: return write_array(w, v, "", "");
    case XI_SET: return write_array(w, v, "{\"$set\":", "}");
    case XI_FROZENSET: return write_array(w, v, "{\"$frozenset\":", "}");
    case XI_DICT: return write_dict(w, v);
    case XI_EXT: return write_ext(w, v);
    case XI_NDARRAY: return write_ndarray(w, v);
    case XI_PICKLE: return write_pickle(w, v);
    default: return xi_fail(XI_E_CORRUPT, "the value is not valid: unknown tag %u", v->tag);
    }
    return 0;
}

int json_write(struct json_out *o, const void *value, size_t size, const struct json_buffers *buffers) {
    struct writer w = {o, buffers};
    xi_cursor c;
    xi_value v;
    size_t start = o->length;
    xi_cursor_init(&c, value, size);
    int rc = next_child(&c, &v);
    if (rc == 0) rc = write_value(&w, &v);
    if (rc == 0 && o->error) rc = xi_fail(o->error, "out of memory for the text of a value of %zu bytes", size);
    if (rc) o->length = start;
    return rc;
}
