/* SPDX-License-Identifier: MIT */
/*
 * str, both ways: each of CPython's kinds is copied as it is.
 *
 * Memory that another process can write must never become the content of a str
 * unchecked: CPython relies on ASCII being ASCII, on code points being at most
 * 0x10FFFF and on the narrowest kind being used. So the text is copied first,
 * into the new object, and what is checked is that copy, which nobody else has.
 */
#include "binding.h"

#define HIGH_BITS UINT64_C(0x8080808080808080)

/* Every byte of the text, or-ed. */
static uint8_t or_bytes(const uint8_t *p, size_t n) {
    uint64_t all = 0, word;
    uint8_t rest = 0;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word, p, 8);
        all |= word;
    }
    while (n--)
        rest |= *p++;
    return (all & HIGH_BITS) ? 0x80 : (uint8_t)(rest & 0x80);
}

static bool has_surrogates2(const uint16_t *p, size_t n) {
    unsigned found = 0;
    for (size_t i = 0; i < n; i++)
        found |= (unsigned)((p[i] & 0xf800) == 0xd800);
    return found;
}

static bool has_surrogates4(const uint32_t *p, size_t n) {
    unsigned found = 0;
    for (size_t i = 0; i < n; i++)
        found |= (unsigned)((p[i] & 0xfffff800) == 0xd800);
    return found;
}

/* ---------------------------------------------------------------- encode */

#define LARGE_TEXT ((size_t)1 << 18)

static int put_text(Encoder *e, const Text *t, uint32_t flags) {
    size_t n = t->count * (size_t)t->kind;
    enum xi_encoding encoding = t->ascii ? XI_ASCII : t->kind == 1 ? XI_LATIN1 : t->kind == 2 ? XI_UCS2 : XI_UCS4;
    if (encoder_room(e, XI_SIZE_BYTES(n)) < 0)
        return -1;
    if (XI_LIKELY(n < LARGE_TEXT)) {
        int error = xi_put_str(&e->b, encoding, flags, t->data, n);
        return XI_UNLIKELY(error) ? encoder_error(e, error) : 0;
    }
    void *where;
    int error = xi_put_str_space(&e->b, encoding, flags, n, &where);
    if (error)
        return encoder_error(e, error);
    copy_bytes(where, t->data, n);
    return 0;
}

static uint32_t flags_of(const Text *t) {
    return (t->kind == 2 && has_surrogates2(t->data, t->count)) || (t->kind == 4 && has_surrogates4(t->data, t->count))
               ? XI_F_SURROGATES
               : 0;
}

int text_has_surrogates(State *st, PyObject *s) {
    Text t;
    if (text_open(st, &t, s) < 0)
        return -1;
    int found = flags_of(&t) != 0;
    text_close(&t);
    return found;
}

static __attribute__((noinline)) int encode_fit(Encoder *e, PyObject *obj) {
    Text t;
    PyObject *fit = text_fit(e->ch, obj);
    if (!fit || text_open(e->st, &t, fit) < 0) {
        Py_XDECREF(fit);
        return -1;
    }
    int rc = put_text(e, &t, flags_of(&t));
    text_close(&t);
    Py_DECREF(fit);
    return rc;
}

int encode_str(Encoder *e, PyObject *obj) {
    Text t;
    if (XI_UNLIKELY(text_open(e->st, &t, obj) < 0))
        return -1;
    uint32_t flags = flags_of(&t);
    int rc = XI_LIKELY(!flags || e->ch->errors == ERRORS_PASS) ? put_text(e, &t, flags) : encode_fit(e, obj);
    text_close(&t);
    return rc;
}

/* ---------------------------------------------------------------- decode */

static PyObject *corrupt_text(State *st, const char *what) {
    PyErr_Format(st->errors[-XI_E_CORRUPT], "a received str is not valid: %s", what);
    return NULL;
}

/* A draft of `count` characters with the text copied in, unchecked: where it lies. NULL with an exception. */
static void *copy_in(Draft *d, const void *text, size_t count, int kind, Py_UCS4 most) {
    if (count > (size_t)PY_SSIZE_T_MAX)
        return PyErr_NoMemory();
    void *to = draft_open(d, count, kind, most);
    if (to)
        copy_bytes(to, text, count * (size_t)kind);
    return to;
}

static PyObject *decode_ascii(State *st, const xi_value *v) {
    Draft d;
    const uint8_t *p = copy_in(&d, v->data, v->length, 1, 0x7f);
    if (XI_UNLIKELY(p && or_bytes(p, v->length))) {
        draft_drop(&d);
        return corrupt_text(st, "it is said to be ASCII and is not");
    }
    return p ? draft_end(&d, false) : NULL;
}

static PyObject *decode_latin1(const xi_value *v) {
    Draft d;
    const uint8_t *p = copy_in(&d, v->data, v->length, 1, 0xff);
    return p ? draft_end(&d, !or_bytes(p, v->length)) : NULL;
}

static PyObject *decode_ucs2(State *st, const xi_value *v) {
    size_t n = v->length / 2;
    unsigned all = 0;
    Draft d;
    const uint16_t *p = copy_in(&d, v->data, n, 2, 0xffff);
    if (!p)
        return NULL;
    for (size_t i = 0; i < n; i++)
        all |= p[i];
    if (!(v->flags & XI_F_SURROGATES) && has_surrogates2(p, n)) {
        draft_drop(&d);
        return corrupt_text(st, "it holds a lone surrogate that its writer did not declare");
    }
    return draft_end(&d, all <= 0xff);
}

static PyObject *decode_ucs4(State *st, const xi_value *v) {
    size_t n = v->length / 4;
    uint32_t most = 0;
    Draft d;
    uint32_t *p = copy_in(&d, v->data, n, 4, 0x10ffff);
    if (!p)
        return NULL;
    for (size_t i = 0; i < n; i++)
        most = p[i] > most ? p[i] : most;
    const char *wrong = most > 0x10ffff ? "it holds a number beyond U+10FFFF"
                        : !(v->flags & XI_F_SURROGATES) && has_surrogates4(p, n)
                            ? "it holds a lone surrogate that its writer did not declare"
                            : NULL;
    if (wrong) {
        memset(p, 0, 4 * n); /* nobody is ever to see it, debug builds included */
        draft_drop(&d);
        return corrupt_text(st, wrong);
    }
    return draft_end(&d, most <= 0xffff);
}

/* UTF-8 and UTF-16, which CPython does not store: decoded from a private copy. */
static PyObject *decode_utf(const xi_value *v) {
    const char *errors = (v->flags & XI_F_SURROGATES) ? "surrogatepass" : "strict";
    char small[256], *copy = small;
    if (v->length > PY_SSIZE_T_MAX || (v->length > sizeof small && !(copy = PyMem_Malloc(v->length))))
        return PyErr_NoMemory();
    copy_bytes(copy, v->data, v->length);
    int little = -1;
    PyObject *s = (v->flags & XI_F_ENCODING) == XI_UTF8
                      ? PyUnicode_DecodeUTF8(copy, (Py_ssize_t)v->length, errors)
                      : PyUnicode_DecodeUTF16(copy, (Py_ssize_t)v->length, errors, &little);
    if (copy != small)
        PyMem_Free(copy);
    return s;
}

PyObject *decode_str(State *st, const xi_value *v) {
    if (XI_UNLIKELY(v->length == 0))
        return PyUnicode_FromStringAndSize(NULL, 0);
    switch (v->flags & XI_F_ENCODING) {
    case XI_ASCII: return decode_ascii(st, v);
    case XI_LATIN1: return decode_latin1(v);
    case XI_UCS2: return decode_ucs2(st, v);
    case XI_UCS4: return decode_ucs4(st, v);
    case XI_UTF16:
    case XI_UTF8: return decode_utf(v);
    default: return corrupt_text(st, "its encoding is unknown");
    }
}
