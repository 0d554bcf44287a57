/* SPDX-License-Identifier: MIT */
/* What the files that read and write JSON share among themselves. */
#ifndef XI_COMMAND_JSON_PRIVATE_H
#define XI_COMMAND_JSON_PRIVATE_H

#include "json.h"

/* Records where and what; returns `error`. `at` is an offset into the text. */
int json_fail(struct json *j, int error, size_t at, const char *format, ...) __attribute__((format(printf, 4, 5), cold));

/* ---- characters of a string node that json_parse() has accepted ---- */

struct json_chars {
    const char *p, *end;
};
static inline struct json_chars json_chars_of(const struct json *j, const struct json_node *n) {
    return (struct json_chars){j->text + n->at, j->text + n->at + n->length};
}
/* The next code point (a lone surrogate as itself), or -1 at the end. */
int32_t json_chars_next(struct json_chars *c);
/* Copies the string if it is ASCII, without NUL, and shorter than `capacity`. */
bool json_ascii(const struct json *j, const struct json_node *n, char *out, size_t capacity);
/* Bytes of the code point as UTF-8 (a surrogate gets three), written if `out` is not NULL. */
size_t json_utf8_put(uint32_t c, char *out);
/* Length of the well-formed UTF-8 sequence at p (1 to 4), 0 if there is none; *c gets the code point. */
size_t json_utf8_get(const char *p, const char *end, uint32_t *c);

/* ---- writing nodes with a builder ---- */

struct json_emit {
    struct json *j;
    xi_builder *b;
    const struct json_place *place;
    bool counting;
};
int json_emit_node(struct json_emit *e, size_t i);
/* Turns a builder's error into one that says where. 0 stays 0. */
int json_emit_check(struct json_emit *e, size_t i, int rc);
/* A string made of `pieces` consecutive string nodes from `i` on. */
int json_emit_string(struct json_emit *e, size_t i, size_t pieces);
/* The object of one pair whose key begins with '$'. */
int json_emit_tagged(struct json_emit *e, size_t i);
/* {"$ndarray":{...}}: `i` is the inner object. */
int json_emit_ndarray(struct json_emit *e, size_t i);
/* Values as children of a container that is open: remembers where each lies and refuses equal ones. */
struct json_unique;
int json_unique_new(struct json_emit *e, size_t count, struct json_unique **out);
void json_unique_begin(struct json_unique *u, size_t node);
void json_unique_end(struct json_unique *u);
/* Frees it; with `check`, an error at the second of two equal ones. `what`: "key" or "element". */
int json_unique_free(struct json_unique *u, bool check, const char *what);

static inline const struct json_node *json_node_at(const struct json_emit *e, size_t i) { return &e->j->nodes[i]; }

/* ---- base64 (RFC 4648, with padding) ---- */

/* Decoded size of a string node; negative: it is no base64, json_fail() was called. */
int64_t json_base64_size(struct json *j, size_t i);
/* Decodes a node whose size was found above. */
void json_base64_decode(const struct json *j, size_t i, uint8_t *out);
void json_put_base64(struct json_out *o, const void *data, size_t n);

/* ---- integers of any size ---- */

/* Two's complement, little-endian, from malloc(): of decimal digits (`text` without its sign) or hexadecimal ones. */
int json_integer_bytes(const char *digits, size_t n, unsigned base, bool negative, uint8_t **out, size_t *size);
/* Appends two's complement bytes in decimal, or as {"$int":"0x..."} beyond JSON_DIGITS_MAX. */
int json_put_bigint(struct json_out *o, const uint8_t *le, size_t n);

/* ---- dates and times ---- */

/* year month day hour minute second microsecond fold offset: what XI_EXT_DATETIME holds. DATE has the first three, TIME
 * the last six. `fold` has no ISO form: such values keep the general form. */
struct json_moment {
    int64_t field[9];
    bool has_offset;
};
/* First field and number of fields of XI_EXT_DATE, _TIME, _DATETIME. */
void json_moment_span(unsigned ext, size_t *first, size_t *count);
bool json_moment_parse(unsigned ext, const char *text, struct json_moment *m);
/* False if it is out of range or has a fold: not to be written so. `out` has 48 bytes. */
bool json_moment_format(unsigned ext, const struct json_moment *m, char *out);

/* True for what Python's decimal.Decimal() prints and reads. */
bool json_decimal_valid(const char *text, size_t n);

/* ---- arrays ---- */

/* Strides of a contiguous array; false if a number would not fit, or nothing can be said (no elements). */
bool json_natural_strides(uint32_t ndim, const int64_t *shape, uint64_t bytes, bool fortran, int64_t *strides);

#endif
