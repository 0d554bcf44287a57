/* SPDX-License-Identifier: MIT */
/*
 * Growing text, and JSON strings. Control characters, among them the C1 ones
 * that terminals obey, are written as escapes; every other character as itself.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_private.h"

void json_out_clear(struct json_out *o) {
    free(o->data);
    *o = (struct json_out){0};
}

void json_put(struct json_out *o, const char *text, size_t n) {
    if (o->error || n == 0) return;
    if (n > o->room - o->length) {
        size_t room = o->room ? o->room : 256;
        while (room - o->length < n && room <= SIZE_MAX / 2) room *= 2;
        char *data = room - o->length >= n ? realloc(o->data, room) : NULL;
        if (!data) {
            o->error = XI_E_NOMEM;
            return;
        }
        o->data = data;
        o->room = room;
    }
    memcpy(o->data + o->length, text, n);
    o->length += n;
}

void json_puts(struct json_out *o, const char *text) { json_put(o, text, strlen(text)); }

void json_printf(struct json_out *o, const char *format, ...) {
    char text[256]; /* for numbers and marks; longer texts use json_put() */
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof text)
        o->error = o->error ? o->error : XI_E_TOOBIG;
    else
        json_put(o, text, (size_t)n);
}

/* The escape of a character that must or should not stand for itself; NULL if it may. */
static const char *escape_of(uint32_t c, char buffer[8]) {
    switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\b': return "\\b";
    case '\f': return "\\f";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: break;
    }
    if (c >= 0x20 && (c < 0x7f || c > 0x9f) && (c < 0xd800 || c > 0xdfff)) return NULL;
    snprintf(buffer, 8, "\\u%04x", (unsigned)c);
    return buffer;
}

/* A surrogate in its three bytes, as xi_to_utf8() passes them; 0 if it is none. */
static size_t surrogate_get(const char *p, const char *end, uint32_t *c) {
    const unsigned char *u = (const unsigned char *)p;
    if (end - p < 3 || u[0] != 0xed || u[1] < 0xa0 || u[1] > 0xbf || (u[2] & 0xc0) != 0x80) return 0;
    *c = 0xd000u | (uint32_t)(u[1] & 0x3f) << 6 | (u[2] & 0x3fu);
    return 3;
}

void json_put_string(struct json_out *o, const char *utf8, size_t n) {
    const char *p = utf8, *end = utf8 + n, *from = p;
    json_put(o, "\"", 1);
    while (p < end) {
        uint32_t c;
        char buffer[8];
        size_t length = json_utf8_get(p, end, &c);
        if (length == 0) length = surrogate_get(p, end, &c);
        const char *escape = length ? escape_of(c, buffer) : "\\ufffd";
        if (escape) {
            json_put(o, from, (size_t)(p - from));
            json_puts(o, escape);
            from = p + (length ? length : 1);
        }
        p += length ? length : 1;
    }
    json_put(o, from, (size_t)(end - from));
    json_put(o, "\"", 1);
}
