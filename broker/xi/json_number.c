/* SPDX-License-Identifier: MIT */
/*
 * Integers of any size between digits and two's complement bytes, base64, and
 * the shortest text of a float.
 *
 * Decimal conversion is the schoolbook's, nine digits at a time: quadratic, some
 * 60 ms for the 100,000 digits that are allowed. Hexadecimal is linear and has
 * no limit.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_private.h"

/* ---- text to bytes ---- */

/* magnitude = magnitude * factor + add; returns the new number of words. */
static size_t multiply_add(uint32_t *words, size_t n, uint32_t factor, uint32_t add) {
    uint64_t carry = add;
    for (size_t i = 0; i < n; i++) {
        carry += (uint64_t)words[i] * factor;
        words[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry) words[n++] = (uint32_t)carry;
    return n;
}

static size_t from_decimal(const char *digits, size_t n, uint32_t *words) {
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        uint32_t chunk = 0, factor = 1;
        do {
            chunk = chunk * 10 + (uint32_t)(digits[i++] - '0');
            factor *= 10;
        } while (i < n && factor < 1000000000u);
        used = multiply_add(words, used, factor, chunk);
    }
    return used;
}

static size_t from_hexadecimal(const char *digits, size_t n, uint32_t *words) {
    size_t used = (n + 7) / 8;
    memset(words, 0, used * sizeof *words);
    for (size_t i = 0; i < n; i++) {
        char c = digits[n - 1 - i];
        uint32_t v = (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
        words[i / 8] |= v << (i % 8 * 4);
    }
    return used;
}

int json_integer_bytes(const char *digits, size_t n, unsigned base, bool negative, uint8_t **out, size_t *size) {
    size_t room = (base == 16 ? n / 8 : n / 9) + 2; /* words; nine decimal digits fit one; one more for the sign */
    uint32_t *words = calloc(room, sizeof *words);
    if (!words) return XI_E_NOMEM;
    size_t used = base == 16 ? from_hexadecimal(digits, n, words) : from_decimal(digits, n, words);
    words[used++] = 0; /* room for the sign bit */
    if (negative) {
        uint64_t carry = 1;
        for (size_t i = 0; i < used; i++) {
            carry += (uint32_t)~words[i];
            words[i] = (uint32_t)carry;
            carry >>= 32;
        }
    }
    uint8_t *bytes = (uint8_t *)words; /* XIData is little-endian; so is every host it runs on */
    for (size_t i = 0; i < used; i++) {
        uint32_t w = words[i];
        for (size_t k = 0; k < 4; k++) bytes[i * 4 + k] = (uint8_t)(w >> (8 * k));
    }
    *out = bytes;
    *size = used * 4;
    return 0;
}

/* ---- bytes to text ---- */

/* Words of the magnitude of two's complement bytes; one allocation, NULL without memory. */
static uint32_t *magnitude(const uint8_t *le, size_t n, bool *negative, size_t *count) {
    size_t words = n / 4 + 1;
    uint32_t *w = calloc(words, sizeof *w);
    if (!w) return NULL;
    for (size_t i = 0; i < n; i++) w[i / 4] |= (uint32_t)le[i] << (i % 4 * 8);
    /* The sign is read from the copy: the source may be shared memory that changes. */
    *negative = n > 0 && (w[(n - 1) / 4] >> ((n - 1) % 4 * 8) & 0x80);
    if (*negative) {
        for (size_t i = n; i < words * 4; i++) w[i / 4] |= (uint32_t)0xff << (i % 4 * 8);
        uint64_t carry = 1;
        for (size_t i = 0; i < words; i++) {
            carry += (uint32_t)~w[i];
            w[i] = (uint32_t)carry;
            carry >>= 32;
        }
    }
    while (words > 0 && w[words - 1] == 0) words--;
    *count = words;
    return w;
}

static void put_hexadecimal(struct json_out *o, const uint32_t *w, size_t n, bool negative) {
    json_printf(o, "{\"$int\":\"%s0x%x", negative ? "-" : "", w[n - 1]);
    for (size_t i = n - 1; i-- > 0;) json_printf(o, "%08x", w[i]);
    json_puts(o, "\"}");
}

/* Divides the magnitude down, nine digits a round, from the last digits to the first. */
static int put_decimal(struct json_out *o, uint32_t *w, size_t n, bool negative) {
    size_t room = n * 10 + 2; /* a word has 9.64 digits */
    char *text = malloc(room), *at = text + room;
    if (!text) return XI_E_NOMEM;
    while (n > 0) {
        uint64_t rest = 0;
        for (size_t i = n; i-- > 0;) {
            rest = rest << 32 | w[i];
            w[i] = (uint32_t)(rest / 1000000000u);
            rest %= 1000000000u;
        }
        while (n > 0 && w[n - 1] == 0) n--;
        for (int i = 0; i < 9 && (n > 0 || rest > 0); i++, rest /= 10) *--at = (char)('0' + rest % 10);
    }
    if (negative) *--at = '-';
    json_put(o, at, (size_t)(text + room - at));
    free(text);
    return 0;
}

int json_put_bigint(struct json_out *o, const uint8_t *le, size_t n) {
    bool negative;
    size_t words;
    uint32_t *w = magnitude(le, n, &negative, &words);
    if (!w) return XI_E_NOMEM;
    int rc = 0;
    if (words == 0)
        json_puts(o, "0");
    else if (words > JSON_DIGITS_MAX / 10) /* a word is less than ten digits: these have a decimal form we read */
        put_hexadecimal(o, w, words, negative);
    else
        rc = put_decimal(o, w, words, negative);
    free(w);
    return rc;
}

void json_put_float(struct json_out *o, double v) {
    if (isnan(v)) {
        uint64_t bits;
        memcpy(&bits, &v, sizeof bits);
        if (bits == 0x7ff8000000000000u)
            json_puts(o, "{\"$float\":\"nan\"}");
        else /* a sign or a payload that somebody may have put there */
            json_printf(o, "{\"$float\":\"nan:%016llx\"}", (unsigned long long)bits);
        return;
    }
    if (isinf(v)) {
        json_puts(o, v < 0 ? "{\"$float\":\"-inf\"}" : "{\"$float\":\"inf\"}");
        return;
    }
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    json_puts(o, text);
    if (!strpbrk(text, ".e")) json_puts(o, ".0"); /* or it would be read as an int */
}

/* ---- base64 ---- */

static int sextet(int32_t c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int64_t json_base64_size(struct json *j, size_t i) {
    const struct json_node *n = &j->nodes[i];
    if (n->kind != JSON_STRING) return json_fail(j, XI_E_INVAL, n->at, "expected bytes as a string of base64");
    struct json_chars c = json_chars_of(j, n);
    size_t digits = 0, pads = 0;
    int last = 0;
    for (int32_t code; (code = json_chars_next(&c)) >= 0;) {
        int v = sextet(code);
        if (code == '=' && pads < 2 && (digits + pads) % 4 >= 2) {
            pads++;
        } else if (v >= 0 && pads == 0) {
            digits++;
            last = v;
        } else {
            return json_fail(j, XI_E_INVAL, (size_t)(c.p - j->text) - 1, "expected base64: A-Z a-z 0-9 + / and = at the end");
        }
    }
    if ((digits + pads) % 4 != 0)
        return json_fail(j, XI_E_INVAL, n->at, "base64 of %zu characters; expected a multiple of 4, filled up with =",
                         digits + pads);
    if ((pads == 2 && (last & 15)) || (pads == 1 && (last & 3)))
        return json_fail(j, XI_E_INVAL, n->at, "base64 whose last character has bits beyond the last byte: it was cut or altered");
    return (int64_t)(digits * 6 / 8);
}

void json_base64_decode(const struct json *j, size_t i, uint8_t *out) {
    struct json_chars c = json_chars_of(j, &j->nodes[i]);
    uint32_t bits = 0;
    unsigned have = 0;
    for (int32_t code; (code = json_chars_next(&c)) >= 0 && code != '=';) {
        bits = bits << 6 | (uint32_t)sextet(code);
        have += 6;
        if (have >= 8) {
            have -= 8;
            *out++ = (uint8_t)(bits >> have);
        }
    }
}

void json_put_base64(struct json_out *o, const void *data, size_t n) {
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = data;
    char chunk[4 * 256];
    while (n > 0) {
        size_t used = 0;
        while (n > 0 && used < sizeof chunk) {
            size_t k = n < 3 ? n : 3;
            uint32_t b0 = p[0], b1 = k > 1 ? p[1] : 0, b2 = k > 2 ? p[2] : 0;
            uint32_t v = b0 << 16 | b1 << 8 | b2;
            chunk[used++] = set[v >> 18];
            chunk[used++] = set[v >> 12 & 63];
            chunk[used++] = k > 1 ? set[v >> 6 & 63] : '=';
            chunk[used++] = k > 2 ? set[v & 63] : '=';
            p += k;
            n -= k;
        }
        json_put(o, chunk, used);
    }
}
