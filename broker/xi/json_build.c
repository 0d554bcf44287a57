/* SPDX-License-Identifier: MIT */
/*
 * Parsed nodes to one value. The same walk runs twice, first with a builder
 * that counts, then with one that writes; what cannot be known before the bytes
 * are there (two equal keys) is checked in the second.
 *
 * Equal keys are an error rather than "the last one wins", which would drop a
 * value silently. Strings get one encoding by their contents (ASCII, else
 * UTF-8, else UCS-4 if there are lone surrogates), so that equal texts are equal
 * bytes and the comparison is of encoded values, whatever their kind.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_private.h"

int json_emit_check(struct json_emit *e, size_t i, int rc) {
    if (rc >= 0) return 0;
    size_t at = json_node_at(e, i)->at;
    if (rc == XI_E_DEPTH) return json_fail(e->j, rc, at, "the value is nested deeper than %d levels", XI_DEPTH_MAX);
    return json_fail(e->j, rc, at, "%s", xi_error_text(rc));
}

/* ---- strings ---- */

struct text_measure {
    size_t characters, utf8;
    bool ascii, surrogates;
};

static struct text_measure measure(const struct json *j, size_t i, size_t pieces) {
    struct text_measure m = {0, 0, true, false};
    for (size_t k = 0; k < pieces; k++, i = j->nodes[i].next) {
        struct json_chars c = json_chars_of(j, &j->nodes[i]);
        for (int32_t code; (code = json_chars_next(&c)) >= 0;) {
            m.characters++;
            m.utf8 += json_utf8_put((uint32_t)code, NULL);
            m.ascii = m.ascii && code < 0x80;
            m.surrogates = m.surrogates || (code >= 0xd800 && code <= 0xdfff);
        }
    }
    return m;
}

static void fill(const struct json *j, size_t i, size_t pieces, bool wide, char *out) {
    for (size_t k = 0; k < pieces; k++, i = j->nodes[i].next) {
        struct json_chars c = json_chars_of(j, &j->nodes[i]);
        for (int32_t code; (code = json_chars_next(&c)) >= 0;) {
            if (wide) {
                memcpy(out, &code, 4);
                out += 4;
            } else {
                out += json_utf8_put((uint32_t)code, out);
            }
        }
    }
}

int json_emit_string(struct json_emit *e, size_t i, size_t pieces) {
    const struct json_node *n = json_node_at(e, i);
    if (pieces == 1 && n->plain)
        return json_emit_check(e, i, xi_put_str(e->b, XI_ASCII, 0, e->j->text + n->at, n->length));
    struct text_measure m = measure(e->j, i, pieces);
    void *where = NULL;
    int rc;
    if (m.surrogates)
        rc = xi_put_str_space(e->b, XI_UCS4, XI_F_SURROGATES, 4 * m.characters, &where);
    else
        rc = xi_put_str_space(e->b, m.ascii ? XI_ASCII : XI_UTF8, 0, m.utf8, &where);
    if (rc == 0 && where) fill(e->j, i, pieces, m.surrogates, where);
    return json_emit_check(e, i, rc);
}

/* ---- numbers ---- */

static int emit_int(struct json_emit *e, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    const char *digits = e->j->text + n->at;
    bool negative = *digits == '-';
    size_t count = n->length - negative;
    if (count <= 18) return json_emit_check(e, i, xi_put_int(e->b, strtoll(digits, NULL, 10)));
    if (count > JSON_DIGITS_MAX)
        return json_fail(e->j, XI_E_TOOBIG, n->at,
                         "an integer of %zu digits; beyond %u write it in hexadecimal: {\"$int\":\"0x...\"}", count,
                         JSON_DIGITS_MAX);
    uint8_t *bytes;
    size_t size;
    int rc = json_integer_bytes(digits + negative, count, 10, negative, &bytes, &size);
    if (rc) return json_fail(e->j, rc, n->at, "out of memory for an integer of %zu digits", count);
    rc = xi_put_bigint(e->b, bytes, size);
    free(bytes);
    return json_emit_check(e, i, rc);
}

/* True if the number says zero, rather than being rounded to it. */
static bool zero_digits(const char *text, size_t n) {
    for (size_t i = 0; i < n && text[i] != 'e' && text[i] != 'E'; i++)
        if (text[i] >= '1' && text[i] <= '9') return false;
    return true;
}

static int emit_real(struct json_emit *e, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    const char *text = e->j->text + n->at;
    double v = strtod(text, NULL); /* the text is NUL-terminated and the number's grammar was checked */
    if (v > 1.7976931348623157e308 || v < -1.7976931348623157e308)
        return json_fail(e->j, XI_E_RANGE, n->at,
                         "the number is larger than any float; write {\"$decimal\":\"...\"} or {\"$float\":\"inf\"}");
    if (v == 0 && !zero_digits(text, n->length))
        return json_fail(e->j, XI_E_RANGE, n->at, "the number is smaller than any float; write {\"$decimal\":\"...\"}");
    return json_emit_check(e, i, xi_put_float(e->b, v));
}

/* ---- containers ---- */

struct span {
    size_t at, length, node;
};
struct json_unique {
    struct json_emit *e;
    size_t count, room;
    struct span span[];
};

int json_unique_new(struct json_emit *e, size_t count, struct json_unique **out) {
    *out = NULL;
    if (e->counting || count < 2) return 0;
    struct json_unique *u = malloc(sizeof *u + count * sizeof u->span[0]);
    if (!u) return json_fail(e->j, XI_E_NOMEM, 0, "out of memory for %zu keys", count);
    *u = (struct json_unique){e, 0, count};
    return *out = u, 0;
}

void json_unique_begin(struct json_unique *u, size_t node) {
    if (u && u->count < u->room) u->span[u->count] = (struct span){u->e->b->length, 0, node};
}

void json_unique_end(struct json_unique *u) {
    if (!u || u->count >= u->room) return;
    u->span[u->count].length = u->e->b->length - u->span[u->count].at;
    u->count++;
}

static int compare(const struct span *x, const struct span *y, const uint8_t *base) {
    if (x->length != y->length) return x->length < y->length ? -1 : 1;
    return memcmp(base + x->at, base + y->at, x->length);
}

static int by_bytes(const void *a, const void *b, void *base) {
    const struct span *x = a, *y = b;
    int c = compare(x, y, base);
    return c ? c : x->node < y->node ? -1 : x->node > y->node;
}

int json_unique_free(struct json_unique *u, bool check, const char *what) {
    if (!u) return 0;
    int rc = 0;
    if (check) {
        qsort_r(u->span, u->count, sizeof u->span[0], by_bytes, u->e->b->buffer);
        for (size_t k = 1; k < u->count && rc == 0; k++)
            if (compare(&u->span[k - 1], &u->span[k], u->e->b->buffer) == 0)
                rc = json_fail(u->e->j, XI_E_INVAL, json_node_at(u->e, u->span[k].node)->at,
                               "the same %s twice; keep the one you mean", what);
    }
    free(u);
    return rc;
}

static int emit_array(struct json_emit *e, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    int rc = json_emit_check(e, i, xi_begin(e->b, XI_LIST, n->count));
    size_t child = i + 1;
    for (size_t k = 0; k < n->count && rc == 0; k++, child = json_node_at(e, child)->next) rc = json_emit_node(e, child);
    return rc ? rc : json_emit_check(e, i, xi_end(e->b));
}

static int emit_pairs(struct json_emit *e, size_t i, struct json_unique *u) {
    const struct json_node *n = json_node_at(e, i);
    size_t key = i + 1;
    for (size_t k = 0; k < n->count; k++) {
        json_unique_begin(u, key);
        int rc = json_emit_string(e, key, 1);
        if (rc) return rc;
        json_unique_end(u);
        size_t value = json_node_at(e, key)->next;
        rc = json_emit_node(e, value);
        if (rc) return rc;
        key = json_node_at(e, value)->next;
    }
    return 0;
}

static int emit_object(struct json_emit *e, size_t i) {
    const struct json_node *n = json_node_at(e, i);
    if (n->count == 1) {
        struct json_chars c = json_chars_of(e->j, json_node_at(e, i + 1));
        if (json_chars_next(&c) == '$') return json_emit_tagged(e, i);
    }
    int rc = json_emit_check(e, i, xi_begin(e->b, XI_DICT, n->count));
    if (rc) return rc;
    struct json_unique *u;
    rc = json_unique_new(e, n->count, &u);
    if (rc) return rc;
    rc = emit_pairs(e, i, u);
    int twice = json_unique_free(u, rc == 0, "key");
    if (rc || twice) return rc ? rc : twice;
    return json_emit_check(e, i, xi_end(e->b));
}

int json_emit_node(struct json_emit *e, size_t i) {
    switch (json_node_at(e, i)->kind) {
    case JSON_NULL: return json_emit_check(e, i, xi_put_none(e->b));
    case JSON_TRUE: return json_emit_check(e, i, xi_put_bool(e->b, true));
    case JSON_FALSE: return json_emit_check(e, i, xi_put_bool(e->b, false));
    case JSON_INT: return emit_int(e, i);
    case JSON_REAL: return emit_real(e, i);
    case JSON_STRING: return json_emit_string(e, i, 1);
    case JSON_ARRAY: return emit_array(e, i);
    case JSON_OBJECT: return emit_object(e, i);
    }
    return json_fail(e->j, XI_E_INVAL, 0, "a node of no kind");
}

int json_build(struct json *j, xi_builder *b, const struct json_place *place) {
    struct json_emit e = {j, b, place, b->buffer == NULL};
    j->buffers = 0;
    if (j->count == 0) return json_fail(j, XI_E_INVAL, 0, "there is no value");
    return json_emit_node(&e, 0);
}

int json_encode(struct json *j, void **value, size_t *size) {
    xi_builder b;
    uint32_t flags = j->length >= (size_t)1 << 30 ? XI_BUILD_LONG : 0;
    xi_builder_init(&b, NULL, 0, flags);
    int rc = json_build(j, &b, NULL);
    if (rc) return rc;
    int64_t need = xi_builder_finish(&b);
    if (need < 0) return json_fail(j, (int)need, 0, "%s", xi_error_text((int)need));
    void *buffer = aligned_alloc(8, (size_t)need);
    if (!buffer) return json_fail(j, XI_E_NOMEM, 0, "out of memory for a value of %lld bytes", (long long)need);
    xi_builder_init(&b, buffer, (size_t)need, flags);
    rc = json_build(j, &b, NULL);
    int64_t got = rc ? rc : xi_builder_finish(&b);
    if (got < 0) {
        free(buffer);
        return rc ? rc : json_fail(j, (int)got, 0, "%s", xi_error_text((int)got));
    }
    *value = buffer;
    *size = (size_t)got;
    return 0;
}
