/* SPDX-License-Identifier: MIT */
/*
 * The text's own grammar: RFC 8259, no more and no less, into an array of
 * nodes. A node holds offsets into the text; a string is checked here (UTF-8,
 * escapes) and decoded later, where it is needed. Recursion is bounded by
 * JSON_DEPTH_MAX.
 *
 * Messages name the place and what was expected there, and know the mistakes
 * that come from other languages' habits.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_private.h"

#define NO_NODE ((size_t)-1)

struct parser {
    struct json *j;
    const char *p, *end;
    unsigned depth;
};

static int parse_value(struct parser *s);

int json_fail(struct json *j, int error, size_t at, const char *format, ...) {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at && i < j->length; i++) {
        unsigned char c = (unsigned char)j->text[i];
        if (c == '\n') {
            line++;
            column = 1;
        } else if ((c & 0xc0) != 0x80) {
            column++; /* continuation bytes are part of the character before */
        }
    }
    j->error.line = line;
    j->error.column = column;
    va_list args;
    va_start(args, format);
    vsnprintf(j->error.text, sizeof j->error.text, format, args);
    va_end(args);
    return error;
}

size_t json_utf8_get(const char *text, const char *end, uint32_t *c) {
    const unsigned char *p = (const unsigned char *)text;
    size_t left = (size_t)(end - text);
    if (left == 0) return 0;
    if (p[0] < 0x80) return *c = p[0], 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || left < n) return 0;
    uint32_t v = p[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        v = v << 6 | (p[i] & 0x3f);
    }
    bool overlong = (n == 3 && v < 0x800) || (n == 4 && v < 0x10000);
    if (overlong || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff)) return 0;
    return *c = v, n;
}

size_t json_utf8_put(uint32_t c, char *out) {
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (!out) return n;
    if (n == 1) return out[0] = (char)c, n;
    static const unsigned lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[n] | c);
    return n;
}

/* What stands at p, for a message. */
static const char *found(const struct parser *s, char out[32]) {
    if (s->p >= s->end) return "the end";
    uint32_t c;
    size_t n = json_utf8_get(s->p, s->end, &c);
    if (n == 0 || c < 0x20 || c == 0x7f)
        snprintf(out, 32, "byte 0x%02x", (unsigned char)*s->p);
    else
        snprintf(out, 32, "'%.*s'", (int)n, s->p);
    return out;
}

static int fail(struct parser *s, const char *expected) {
    char what[32];
    return json_fail(s->j, XI_E_INVAL, (size_t)(s->p - s->j->text), "expected %s, found %s", expected, found(s, what));
}

static size_t add_node(struct parser *s, enum json_kind kind) {
    struct json *j = s->j;
    if (j->count == j->room) {
        size_t room = j->room ? j->room * 2 : 64;
        struct json_node *nodes = room < SIZE_MAX / sizeof *nodes ? realloc(j->nodes, room * sizeof *nodes) : NULL;
        if (!nodes) {
            json_fail(j, XI_E_NOMEM, (size_t)(s->p - j->text), "out of memory after %zu values", j->count);
            return NO_NODE;
        }
        j->nodes = nodes;
        j->room = room;
    }
    j->nodes[j->count] = (struct json_node){.kind = kind, .at = (size_t)(s->p - j->text), .next = j->count + 1};
    return j->count++;
}

static void skip_space(struct parser *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r')) s->p++;
}

static bool digit_at(const struct parser *s) { return s->p < s->end && *s->p >= '0' && *s->p <= '9'; }

static bool literal_at(const struct parser *s, const char *word) {
    size_t n = strlen(word);
    return (size_t)(s->end - s->p) >= n && memcmp(s->p, word, n) == 0;
}

static int parse_literal(struct parser *s, const char *word, enum json_kind kind) {
    if (!literal_at(s, word)) {
        char expected[80];
        snprintf(expected, sizeof expected, "a value (did you mean %s? plain text needs double quotes)", word);
        return fail(s, expected);
    }
    if (add_node(s, kind) == NO_NODE) return XI_E_NOMEM;
    s->p += strlen(word);
    return 0;
}

static int parse_number(struct parser *s) {
    size_t i = add_node(s, JSON_INT);
    if (i == NO_NODE) return XI_E_NOMEM;
    const char *start = s->p;
    if (*s->p == '-') s->p++;
    if (literal_at(s, "Infinity")) return fail(s, "a digit (JSON has no infinity: write {\"$float\":\"-inf\"})");
    if (!digit_at(s)) return fail(s, "a digit after the minus sign");
    if (*s->p == '0') {
        s->p++;
        if (digit_at(s)) return fail(s, "the number to end (a number has no leading zeros)");
    }
    while (digit_at(s)) s->p++;
    enum json_kind kind = JSON_INT;
    if (s->p < s->end && *s->p == '.') {
        s->p++;
        kind = JSON_REAL;
        if (!digit_at(s)) return fail(s, "a digit after the decimal point");
        while (digit_at(s)) s->p++;
    }
    if (s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
        s->p++;
        kind = JSON_REAL;
        if (s->p < s->end && (*s->p == '+' || *s->p == '-')) s->p++;
        if (!digit_at(s)) return fail(s, "a digit of the exponent");
        while (digit_at(s)) s->p++;
    }
    s->j->nodes[i].kind = kind;
    s->j->nodes[i].length = (size_t)(s->p - start);
    return 0;
}

static int parse_escape(struct parser *s) {
    s->p++; /* the backslash */
    if (s->p >= s->end || !memchr("\"\\/bfnrtu", *s->p, 9)) return fail(s, "one of \" \\ / b f n r t u after a backslash");
    if (*s->p++ != 'u') return 0;
    for (int i = 0; i < 4; i++, s->p++) {
        bool hex = s->p < s->end && ((*s->p >= '0' && *s->p <= '9') || ((*s->p | 32) >= 'a' && (*s->p | 32) <= 'f'));
        if (!hex) return fail(s, "four hexadecimal digits after \\u");
    }
    return 0;
}

static int parse_string(struct parser *s) {
    size_t i = add_node(s, JSON_STRING);
    if (i == NO_NODE) return XI_E_NOMEM;
    const char *start = ++s->p;
    bool plain = true;
    for (;;) {
        if (s->p >= s->end) return fail(s, "a double quote that ends the string");
        unsigned char c = (unsigned char)*s->p;
        if (c == '"') break;
        if (c == '\\') {
            plain = false;
            int rc = parse_escape(s);
            if (rc) return rc;
        } else if (c < 0x20) {
            return fail(s, "no control character within a string (write \\n, \\t or \\u00XX)");
        } else {
            uint32_t code;
            size_t n = json_utf8_get(s->p, s->end, &code);
            if (n == 0) return fail(s, "UTF-8 (for other bytes use {\"$bytes\":base64}, or: xi send --bytes FILE)");
            plain = plain && n == 1;
            s->p += n;
        }
    }
    struct json_node *n = &s->j->nodes[i];
    n->at = (size_t)(start - s->j->text);
    n->length = (size_t)(s->p++ - start);
    n->plain = plain;
    return 0;
}

static int enter(struct parser *s) {
    if (++s->depth > JSON_DEPTH_MAX)
        return json_fail(s->j, XI_E_DEPTH, (size_t)(s->p - s->j->text), "the text is nested deeper than %u levels",
                         JSON_DEPTH_MAX);
    s->p++;
    skip_space(s);
    return 0;
}

/* After a member: true when another follows, false at the closing mark, negative on error. */
static int another(struct parser *s, char close, const char *expected) {
    skip_space(s);
    if (s->p < s->end && *s->p == close) return s->p++, 0;
    if (s->p >= s->end || *s->p != ',') return fail(s, expected);
    s->p++;
    skip_space(s);
    return 1;
}

static int parse_array(struct parser *s) {
    size_t i = add_node(s, JSON_ARRAY);
    if (i == NO_NODE) return XI_E_NOMEM;
    int rc = enter(s), more = 1;
    if (rc) return rc;
    if (s->p < s->end && *s->p == ']') s->p++, more = 0;
    size_t count = 0;
    while (more > 0) {
        rc = parse_value(s);
        if (rc) return rc;
        count++;
        more = another(s, ']', "',' or ']' after an element");
    }
    if (more < 0) return more;
    s->depth--;
    s->j->nodes[i].count = count;
    s->j->nodes[i].next = s->j->count;
    return 0;
}

static int parse_pair(struct parser *s) {
    if (s->p >= s->end || *s->p != '"')
        return fail(s, "a key in double quotes (for keys that are no strings: {\"$dict\":[[key,value],...]})");
    int rc = parse_string(s);
    if (rc) return rc;
    skip_space(s);
    if (s->p >= s->end || *s->p != ':') return fail(s, "':' after a key");
    s->p++;
    return parse_value(s);
}

static int parse_object(struct parser *s) {
    size_t i = add_node(s, JSON_OBJECT);
    if (i == NO_NODE) return XI_E_NOMEM;
    int rc = enter(s), more = 1;
    if (rc) return rc;
    if (s->p < s->end && *s->p == '}') s->p++, more = 0;
    size_t count = 0;
    while (more > 0) {
        rc = parse_pair(s);
        if (rc) return rc;
        count++;
        more = another(s, '}', "',' or '}' after a value");
    }
    if (more < 0) return more;
    s->depth--;
    s->j->nodes[i].count = count;
    s->j->nodes[i].next = s->j->count;
    return 0;
}

static int parse_value(struct parser *s) {
    skip_space(s);
    if (s->p >= s->end) return fail(s, "a value");
    switch (*s->p) {
    case '{': return parse_object(s);
    case '[': return parse_array(s);
    case '"': return parse_string(s);
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        return parse_number(s);
    case 't': case 'T': return parse_literal(s, "true", JSON_TRUE);
    case 'f': case 'F': return parse_literal(s, "false", JSON_FALSE);
    case 'n': return parse_literal(s, "null", JSON_NULL);
    case 'N': case 'I':
        if (literal_at(s, "None")) return fail(s, "a value (JSON's none is null)");
        return fail(s, "a value (numbers JSON lacks are {\"$float\":\"nan\"}, \"inf\" and \"-inf\")");
    case '\'': return fail(s, "a value (strings have double quotes)");
    case '+': return fail(s, "a value (a number has no plus sign)");
    case '.': return fail(s, "a value (a number has a digit before its decimal point)");
    default: return fail(s, "a value (plain text needs double quotes, or: xi send --text)");
    }
}

int json_parse(struct json *j, const char *text, size_t length) {
    j->text = text;
    j->length = length;
    j->count = 0;
    j->buffers = 0;
    j->error = (struct json_error){0, 0, ""};
    struct parser s = {j, text, text + length, 0};
    int rc = parse_value(&s);
    if (rc) return rc;
    skip_space(&s);
    return s.p == s.end ? 0 : fail(&s, "the end of the text after one value");
}

void json_clear(struct json *j) {
    free(j->nodes);
    *j = (struct json){0};
}

static int32_t hex4(const char *p) {
    int32_t v = 0;
    for (int i = 0; i < 4; i++) v = v << 4 | (p[i] <= '9' ? p[i] - '0' : (p[i] | 32) - 'a' + 10);
    return v;
}

int32_t json_chars_next(struct json_chars *c) {
    if (c->p >= c->end) return -1;
    uint32_t code;
    if (*c->p != '\\') {
        size_t n = json_utf8_get(c->p, c->end, &code);
        c->p += n ? n : 1; /* never 0: the text was checked */
        return n ? (int32_t)code : 0xfffd;
    }
    char e = c->p[1];
    c->p += 2;
    switch (e) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'u': break;
    default: return e;
    }
    int32_t high = hex4(c->p);
    c->p += 4;
    if (high < 0xd800 || high > 0xdbff || c->end - c->p < 6 || c->p[0] != '\\' || c->p[1] != 'u') return high;
    int32_t low = hex4(c->p + 2);
    if (low < 0xdc00 || low > 0xdfff) return high;
    c->p += 6;
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

bool json_ascii(const struct json *j, const struct json_node *n, char *out, size_t capacity) {
    if (n->kind != JSON_STRING) return false;
    struct json_chars c = json_chars_of(j, n);
    size_t used = 0;
    for (int32_t code; (code = json_chars_next(&c)) >= 0;) {
        if (code == 0 || code > 0x7f || used + 1 >= capacity) return false;
        out[used++] = (char)code;
    }
    out[used] = 0;
    return true;
}
