/* SPDX-License-Identifier: MIT */
/*
 * Text in its six encodings: checked against what it claims, and turned into
 * UTF-8 for whoever has no better use for its own form.
 *
 * A writer sends text as its language holds it, since converting costs 15 to 40
 * times a copy. Nothing of that is believed: ASCII may have high bytes, UTF-8
 * may be cut or not shortest, UCS4 may exceed U+10FFFF, and code points from
 * U+D800 to U+DFFF are allowed only where the surrogates flag says so.
 *
 *   ASCII, LATIN1, UCS2, UCS4   one unit is one code point (a surrogate in
 *                               UCS2 is always a lone one)
 *   UTF16                       pairs are joined; a half without its other is lone
 *   UTF8                        shortest form; a lone surrogate takes three bytes
 *
 * The text may change while it is read. Loops that only gather a verdict over
 * all units use plain loads, so that the compiler vectorizes them. Where a unit
 * decides what is done next it is fetched once (internal.h). What is handed out
 * as UTF-8 has been checked in the caller's buffer, after the copy.
 */
#include "error.h"
#include "internal.h"
#include "wire/bounds.h"

#define HIGH_BITS 0x8080808080808080ull
#define CHUNK 32u /* units that a verdict loop takes at once */
#define CODE_POINT_MAX 0x10ffffu

static bool is_surrogate(uint32_t code) { return (code & 0xfffff800u) == 0xd800u; }

/* ------------------------------------------------------------ verdicts */

bool xi_is_ascii(const uint8_t *p, size_t n) {
    uint64_t word[8], seen = 0;
    for (; n >= sizeof word; p += sizeof word, n -= sizeof word) {
        memcpy(word, p, sizeof word);
        seen = word[0] | word[1] | word[2] | word[3] | word[4] | word[5] | word[6] | word[7];
        if (seen & HIGH_BITS)
            return false;
    }
    for (; n >= sizeof word[0]; p += sizeof word[0], n -= sizeof word[0]) {
        memcpy(word, p, sizeof word[0]);
        seen |= word[0];
    }
    for (; n > 0; p++, n--)
        seen |= *p;
    return (seen & HIGH_BITS) == 0;
}

static bool ucs2_has_surrogates(const uint8_t *p, size_t units) {
    uint16_t unit[CHUNK], found = 0;
    for (; units >= CHUNK; p += sizeof unit, units -= CHUNK) {
        memcpy(unit, p, sizeof unit);
        for (size_t i = 0; i < CHUNK; i++)
            found |= (unit[i] & 0xf800u) == 0xd800u;
    }
    for (; units > 0; p += 2, units--)
        found |= is_surrogate(xi_once16(p));
    return found != 0;
}

/* False if a unit is beyond U+10FFFF, or is a surrogate while those are not allowed. */
static bool ucs4_ok(const uint8_t *p, size_t units, bool surrogates) {
    uint32_t unit[CHUNK], beyond = 0, lone = 0;
    for (; units >= CHUNK; p += sizeof unit, units -= CHUNK) {
        memcpy(unit, p, sizeof unit);
        for (size_t i = 0; i < CHUNK; i++) {
            beyond |= unit[i] > CODE_POINT_MAX;
            lone |= (unit[i] & 0xfffff800u) == 0xd800u;
        }
    }
    for (; units > 0; p += 4, units--) {
        uint32_t code = xi_once32(p);
        beyond |= code > CODE_POINT_MAX;
        lone |= is_surrogate(code);
    }
    return !beyond && (surrogates || !lone);
}

/* ------------------------------------------------- one code point at a time */

static inline bool trail(const uint8_t *p, uint32_t *code) {
    uint32_t bits = xi_once8(p) ^ 0x80u;
    *code = *code << 6 | bits;
    return bits < 0x40u;
}

/* The code point at p, surrogates included. Returns its length, or 0 if it is cut, not shortest or too large. */
static inline size_t take_utf8(const uint8_t *p, size_t left, uint32_t *out) {
    uint32_t lead = xi_once8(p), code;
    if (lead < 0x80) {
        *out = lead;
        return 1;
    }
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    if (lead < 0xe0) {
        code = lead & 0x1fu;
        if (left < 2 || !trail(p + 1, &code))
            return 0;
        *out = code;
        return 2;
    }
    if (lead < 0xf0) {
        code = lead & 0x0fu;
        if (left < 3 || !trail(p + 1, &code) || !trail(p + 2, &code) || code < 0x800u)
            return 0;
        *out = code;
        return 3;
    }
    code = lead & 0x07u;
    if (left < 4 || !trail(p + 1, &code) || !trail(p + 2, &code) || !trail(p + 3, &code) || code < 0x10000u ||
        code > CODE_POINT_MAX)
        return 0;
    *out = code;
    return 4;
}

/* The code point at p; a half of a pair without the other is returned as it is. Returns bytes taken, 2 or 4. */
static inline size_t take_utf16(const uint8_t *p, size_t left, uint32_t *out) {
    uint32_t high = xi_once16(p);
    if ((high & 0xfc00u) == 0xd800u && left >= 4) {
        uint32_t low = xi_once16(p + 2);
        if ((low & 0xfc00u) == 0xdc00u) {
            *out = 0x10000u + ((high & 0x3ffu) << 10 | (low & 0x3ffu));
            return 4;
        }
    }
    *out = high;
    return 2;
}

/* The code point at p in `encoding`, a constant where this is inlined. Returns bytes taken, 0 if there is none. */
static inline __attribute__((always_inline)) size_t take(enum xi_encoding encoding, const uint8_t *p, size_t left,
                                                         uint32_t *out) {
    switch (encoding) {
    case XI_ASCII:
    case XI_LATIN1: *out = xi_once8(p); return 1;
    case XI_UCS2: *out = xi_once16(p); return 2;
    case XI_UCS4: *out = xi_once32(p); return *out <= CODE_POINT_MAX ? 4 : 0;
    case XI_UTF16: return take_utf16(p, left, out);
    case XI_UTF8: return take_utf8(p, left, out);
    }
    return 0;
}

/* False if the UTF-8 is broken; else *lone says whether it holds surrogates. */
static bool scan_utf8(const uint8_t *p, size_t n, bool *lone) {
    *lone = false;
    while (n > 0) {
        if (n >= 8 && (xi_once64(p) & HIGH_BITS) == 0) {
            p += 8, n -= 8;
            continue;
        }
        uint32_t code;
        size_t length = take_utf8(p, n, &code);
        if (length == 0)
            return false;
        *lone |= is_surrogate(code);
        p += length, n -= length;
    }
    return true;
}

static bool utf16_has_lone(const uint8_t *p, size_t n) {
    while (n > 0) {
        uint32_t code;
        size_t length = take_utf16(p, n, &code);
        if (is_surrogate(code))
            return true;
        p += length, n -= length;
    }
    return false;
}

/* ------------------------------------------------------------- checking */

static const char *encoding_name(uint32_t encoding) {
    static const char *const name[] = {"ASCII", "Latin-1", "UCS-2", "UCS-4", "UTF-16", "UTF-8"};
    return encoding < sizeof name / sizeof name[0] ? name[encoding] : "an unknown encoding";
}

static int broken(uint32_t encoding) {
    return xi_fail(XI_E_CORRUPT, "the text is not the %s that its writer said it is", encoding_name(encoding));
}

int xi_check_text(enum xi_encoding enc, uint32_t flags, const void *text, size_t n) {
    const uint8_t *p = text;
    bool surrogates = (flags & XI_F_SURROGATES) != 0, lone = false, good = false;
    uint32_t unit = xi_unit_size((uint32_t)enc);
    if (unit == 0 || !xi_is_aligned(n, unit))
        return broken((uint32_t)enc);
    switch (enc) {
    case XI_ASCII: good = xi_is_ascii(p, n); break;
    case XI_LATIN1: good = true; break;
    case XI_UCS2: good = surrogates || !ucs2_has_surrogates(p, n / 2); break;
    case XI_UCS4: good = ucs4_ok(p, n / 4, surrogates); break;
    case XI_UTF16: good = surrogates || !utf16_has_lone(p, n); break;
    case XI_UTF8: good = scan_utf8(p, n, &lone) && (surrogates || !lone); break;
    }
    return good ? 0 : broken((uint32_t)enc);
}

/* ------------------------------------------------------------ to UTF-8 */

/* Where UTF-8 goes: a prefix of whole characters as far as there is room; `need` counts on. */
struct sink {
    uint8_t *out;
    size_t capacity;
    uint64_t need;
};

static inline void emit(struct sink *s, uint32_t code) {
    uint32_t bytes, length; /* first byte lowest */
    if (code < 0x80u) {
        bytes = code;
        length = 1;
    } else if (code < 0x800u) {
        bytes = 0x80c0u | code >> 6 | (code & 0x3fu) << 8;
        length = 2;
    } else if (code < 0x10000u) {
        bytes = 0x8080e0u | code >> 12 | (code >> 6 & 0x3fu) << 8 | (code & 0x3fu) << 16;
        length = 3;
    } else {
        bytes = 0x808080f0u | code >> 18 | (code >> 12 & 0x3fu) << 8 | (code >> 6 & 0x3fu) << 16 | (code & 0x3fu) << 24;
        length = 4;
    }
    if (xi_range_inside(s->need, sizeof bytes, s->capacity))
        memcpy(s->out + s->need, &bytes, sizeof bytes); /* the next character overwrites what is too much */
    else if (xi_range_inside(s->need, length, s->capacity))
        memcpy(s->out + s->need, &bytes, length);
    s->need += length;
}

/* Several ASCII units at once, where they are and there is room. Returns the bytes taken of p, or 0. */
static inline __attribute__((always_inline)) size_t take_ascii(enum xi_encoding encoding, const uint8_t *p, size_t left,
                                                               struct sink *s) {
    if (left < 8 || !xi_range_inside(s->need, 8, s->capacity))
        return 0;
    uint64_t word = xi_once64(p);
    if (encoding == XI_LATIN1 && (word & HIGH_BITS) == 0) {
        memcpy(s->out + s->need, &word, 8);
        s->need += 8;
        return 8;
    }
    if ((encoding == XI_UCS2 || encoding == XI_UTF16) && (word & 0xff80ff80ff80ff80ull) == 0) {
        word = (word | word >> 8) & 0x0000ffff0000ffffull;
        uint32_t four = (uint32_t)(word | word >> 16);
        memcpy(s->out + s->need, &four, 4);
        s->need += 4;
        return 8;
    }
    return 0;
}

/* What a surrogate in text is: breach of the text's own claim, not wanted by the caller, or welcome (0). */
static int judge_surrogate(uint32_t flags, unsigned errors) {
    if (!(flags & XI_F_SURROGATES))
        return broken(flags & XI_F_ENCODING);
    if (errors == XI_TEXT_STRICT)
        return xi_fail(XI_E_RANGE, "the text holds a lone surrogate, which UTF-8 has no bytes for: ask for "
                                   "XI_TEXT_PASS or XI_TEXT_REPLACE, or have its sender remove it");
    return 0;
}

static inline __attribute__((always_inline)) int transcode(enum xi_encoding encoding, const xi_value *str,
                                                           struct sink *sink, unsigned errors) {
    const uint8_t *p = str->data;
    struct sink local = *sink; /* its address goes nowhere, so it stays in registers */
    for (size_t left = str->length; left > 0;) {
        uint32_t code;
        size_t length = take_ascii(encoding, p, left, &local);
        if (length > 0) {
            p += length, left -= length;
            continue;
        }
        length = take(encoding, p, left, &code);
        if (length == 0)
            return broken((uint32_t)encoding);
        if (is_surrogate(code)) {
            int error = judge_surrogate(str->flags, errors);
            if (error)
                return error;
            if (errors == XI_TEXT_REPLACE)
                code = 0xfffd;
        }
        emit(&local, code);
        p += length, left -= length;
    }
    sink->need = local.need;
    return 0;
}

/* U+FFFD for each surrogate in UTF-8 that is sound but for these: three bytes for three. */
static void replace_surrogates(uint8_t *p, size_t n) {
    for (size_t i = 0; i + 2 < n; i++)
        if (p[i] == 0xed && p[i + 1] >= 0xa0)
            memcpy(p + i, "\xef\xbf\xbd", 3);
}

/* ASCII and UTF-8 are UTF-8 already: copied first and checked in the copy, which nobody else can change. */
static int copy_utf8(const xi_value *str, struct sink *sink, unsigned errors) {
    const uint8_t *p = str->data;
    if (str->length <= sink->capacity && str->length > 0)
        p = memcpy(sink->out, str->data, str->length);
    sink->need = str->length;
    if ((str->flags & XI_F_ENCODING) == XI_ASCII)
        return xi_is_ascii(p, str->length) ? 0 : broken(XI_ASCII);
    bool lone;
    if (!scan_utf8(p, str->length, &lone))
        return broken(XI_UTF8);
    int error = lone ? judge_surrogate(str->flags, errors) : 0;
    if (lone && errors == XI_TEXT_REPLACE && p == sink->out)
        replace_surrogates(sink->out, str->length);
    return error;
}

int64_t xi_to_utf8(const xi_value *str, char *out, size_t capacity, unsigned errors) {
    struct sink sink = {(uint8_t *)out, out ? capacity : 0, 0};
    uint32_t encoding = str->flags & XI_F_ENCODING, unit = xi_unit_size(encoding);
    int error = 0;
    if (errors > XI_TEXT_REPLACE)
        return xi_fail(XI_E_INVAL, "what to do with lone surrogates is one of enum xi_text_errors, not %u", errors);
    if (str->tag != XI_STR)
        return xi_fail(XI_E_TYPE, "the value is not a str (its tag is %u)", str->tag);
    if (unit == 0 || !xi_is_aligned(str->length, unit))
        return broken(encoding);
    switch ((enum xi_encoding)encoding) {
    case XI_ASCII:
    case XI_UTF8: error = copy_utf8(str, &sink, errors); break;
    case XI_LATIN1: error = transcode(XI_LATIN1, str, &sink, errors); break;
    case XI_UCS2: error = transcode(XI_UCS2, str, &sink, errors); break;
    case XI_UCS4: error = transcode(XI_UCS4, str, &sink, errors); break;
    case XI_UTF16: error = transcode(XI_UTF16, str, &sink, errors); break;
    }
    if (error)
        return error;
    if (sink.need < sink.capacity)
        sink.out[sink.need] = 0;
    return (int64_t)sink.need;
}
