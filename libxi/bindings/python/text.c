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

/* Of a str that is ready, and is put as it is. */
static int put_text(Encoder *e, PyObject *obj, uint32_t flags) {
    size_t count = (size_t)PyUnicode_GET_LENGTH(obj);
    int kind = PyUnicode_KIND(obj);
    const void *data = PyUnicode_DATA(obj);
    size_t n = count * (size_t)kind;
    enum xi_encoding encoding = PyUnicode_IS_ASCII(obj) ? XI_ASCII
                                : kind == PyUnicode_1BYTE_KIND ? XI_LATIN1
                                : kind == PyUnicode_2BYTE_KIND ? XI_UCS2
                                                               : XI_UCS4;
    if (encoder_room(e, XI_SIZE_BYTES(n)) < 0)
        return -1;
    if (XI_LIKELY(n < LARGE_TEXT)) {
        int error = xi_put_str(&e->b, encoding, flags, data, n);
        return XI_UNLIKELY(error) ? encoder_error(e, error) : 0;
    }
    void *where;
    int error = xi_put_str_space(&e->b, encoding, flags, n, &where);
    if (error)
        return encoder_error(e, error);
    copy_bytes(where, data, n);
    return 0;
}

static uint32_t flags_of(PyObject *obj) {
    size_t count = (size_t)PyUnicode_GET_LENGTH(obj);
    int kind = PyUnicode_KIND(obj);
    const void *data = PyUnicode_DATA(obj);
    return (kind == PyUnicode_2BYTE_KIND && has_surrogates2(data, count)) ||
                   (kind == PyUnicode_4BYTE_KIND && has_surrogates4(data, count))
               ? XI_F_SURROGATES
               : 0;
}

bool text_has_surrogates(PyObject *s) { return flags_of(s) != 0; }

int encode_str(Encoder *e, PyObject *obj) {
#if PY_VERSION_HEX < 0x030c0000
    if (XI_UNLIKELY(PyUnicode_READY(obj) < 0))
        return -1;
#endif
    uint32_t flags = flags_of(obj);
    if (XI_LIKELY(!flags || e->ch->errors == ERRORS_PASS))
        return put_text(e, obj, flags);
    PyObject *fit = text_fit(e->ch, obj);
    int rc = fit ? put_text(e, fit, flags_of(fit)) : -1;
    Py_XDECREF(fit);
    return rc;
}

/* ---------------------------------------------------------------- decode */

static PyObject *corrupt_text(State *st, const char *what) {
    PyErr_Format(st->errors[-XI_E_CORRUPT], "a received str is not valid: %s", what);
    return NULL;
}

/* A str object of `n` characters with the text copied in, unchecked. */
static PyObject *copy_in(const void *text, size_t count, Py_UCS4 most, size_t n) {
    if (count > (size_t)PY_SSIZE_T_MAX)
        return PyErr_NoMemory();
    PyObject *s = PyUnicode_New((Py_ssize_t)count, most);
    if (s)
        copy_bytes(PyUnicode_DATA(s), text, n);
    return s;
}

/* The same text in the narrowest kind that holds it. Steals `s`. */
static PyObject *narrow(PyObject *s, int kind) {
    PyObject *made = PyUnicode_FromKindAndData(kind, PyUnicode_DATA(s), PyUnicode_GET_LENGTH(s));
    Py_DECREF(s);
    return made;
}

static PyObject *decode_ascii(State *st, const xi_value *v) {
    PyObject *s = copy_in(v->data, v->length, 0x7f, v->length);
    if (XI_UNLIKELY(s && or_bytes(PyUnicode_DATA(s), v->length))) {
        Py_DECREF(s);
        return corrupt_text(st, "it is said to be ASCII and is not");
    }
    return s;
}

static PyObject *decode_latin1(const xi_value *v) {
    PyObject *s = copy_in(v->data, v->length, 0xff, v->length);
    if (s && !or_bytes(PyUnicode_DATA(s), v->length))
        return narrow(s, PyUnicode_1BYTE_KIND);
    return s;
}

static PyObject *decode_ucs2(State *st, const xi_value *v) {
    size_t n = v->length / 2;
    unsigned all = 0;
    PyObject *s = copy_in(v->data, n, 0xffff, v->length);
    if (!s)
        return NULL;
    const uint16_t *p = PyUnicode_DATA(s);
    for (size_t i = 0; i < n; i++)
        all |= p[i];
    if (!(v->flags & XI_F_SURROGATES) && has_surrogates2(p, n)) {
        Py_DECREF(s);
        return corrupt_text(st, "it holds a lone surrogate that its writer did not declare");
    }
    return all > 0xff ? s : narrow(s, PyUnicode_2BYTE_KIND);
}

static PyObject *decode_ucs4(State *st, const xi_value *v) {
    size_t n = v->length / 4;
    uint32_t most = 0;
    PyObject *s = copy_in(v->data, n, 0x10ffff, v->length);
    if (!s)
        return NULL;
    const uint32_t *p = PyUnicode_DATA(s);
    for (size_t i = 0; i < n; i++)
        most = p[i] > most ? p[i] : most;
    const char *wrong = most > 0x10ffff ? "it holds a number beyond U+10FFFF"
                        : !(v->flags & XI_F_SURROGATES) && has_surrogates4(p, n)
                            ? "it holds a lone surrogate that its writer did not declare"
                            : NULL;
    if (wrong) {
        memset(PyUnicode_DATA(s), 0, v->length); /* nobody is ever to see it, debug builds included */
        Py_DECREF(s);
        return corrupt_text(st, wrong);
    }
    return most > 0xffff ? s : narrow(s, PyUnicode_4BYTE_KIND);
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
        return PyUnicode_New(0, 0);
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
