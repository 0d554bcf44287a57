/* SPDX-License-Identifier: MIT */
/*
 * JSON for people and pipes: text to XIData and back, so that what `xi recv`
 * prints, `xi send` accepts, without a change to any native value.
 *
 * JSON has seven kinds of value and XIData has more, so what JSON cannot hold
 * is written as an object of one key that begins with a dollar sign:
 *
 *     {"$bytes":"AAEC"}    {"$tuple":[1,2]}    {"$datetime":"2024-05-01T12:00:00+02:00"}
 *
 * xi(1) lists them all. A dict that looks like one of these is written in the
 * longer form {"$dict":[[key,value],...]}, which also serves keys that are not
 * strings. The writer uses a tagged form only where the reader makes the very
 * same value of it, and {"$ext":[id,payload]} otherwise.
 *
 * Reading has two steps, because a container's head names its count: the text
 * becomes an array of nodes (strict RFC 8259, everything checked), then the
 * nodes are written with a builder, once to count and once for real.
 */
#ifndef XI_COMMAND_JSON_H
#define XI_COMMAND_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xidata.h"

/* Nesting of the text: one value within a {"$dict":[[k,v]]} costs three levels. */
#define JSON_DEPTH_MAX (4u * XI_DEPTH_MAX)
/* Digits of an integer in plain decimal, whose conversion is quadratic; beyond: {"$int":"0x..."}. */
#define JSON_DIGITS_MAX 100000u

enum json_kind {
    JSON_NULL,
    JSON_TRUE,
    JSON_FALSE,
    JSON_INT,  /* a number without fraction and exponent */
    JSON_REAL,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

/* One value of the text. Children follow it at once; `next` is the node after them. */
struct json_node {
    enum json_kind kind;
    bool plain;    /* string: ASCII without escapes, so that its bytes are the text */
    size_t at;     /* offset of its first byte; of a string, of the byte after the quote */
    size_t length; /* bytes of a number; of a string without its quotes */
    size_t count;  /* array: elements; object: pairs */
    size_t next;
};

/* Where the text is wrong, counted from 1 (columns in characters), and what was expected there. */
struct json_error {
    size_t line, column;
    char text[240];
};

struct json {
    const char *text;
    size_t length;
    struct json_node *nodes;
    size_t count, room;
    size_t buffers; /* values that lie in blocks of their own, counted by json_build() */
    struct json_error error;
};

/* Parses one JSON text; text[length] must be NUL and the text must outlive the struct. 0, XI_E_INVAL (see error),
 * XI_E_DEPTH or XI_E_NOMEM. The struct may be reused; json_clear() frees it. */
int json_parse(struct json *j, const char *text, size_t length);
void json_clear(struct json *j);

/* Gives `size` bytes in a block of the arena for an XI_BUFFER: *data to fill, *ref to name it. */
struct json_place {
    int (*place)(void *context, size_t size, void **data, xi_buffer_ref *ref);
    void *context;
};
/*
 * Writes the parsed text as one value. With a builder that counts, `place` is
 * not called. Without `place` an ndarray's data goes into the value itself and
 * a {"$buffer":...} is an error. 0, or XI_E_INVAL, XI_E_RANGE, XI_E_DEPTH, XI_E_TOOBIG, ... with j->error set.
 */
int json_build(struct json *j, xi_builder *b, const struct json_place *place);
/* Both passes without `place`, into memory from malloc(): *value is the caller's to free. */
int json_encode(struct json *j, void **value, size_t *size);

/* Growing text. The first error (XI_E_NOMEM) sticks. */
struct json_out {
    char *data; /* not NUL-terminated */
    size_t length, room;
    int error;
};
void json_out_clear(struct json_out *o);
void json_put(struct json_out *o, const char *text, size_t n);
void json_puts(struct json_out *o, const char *text);
void json_printf(struct json_out *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* UTF-8 text as a JSON string with its quotes; bytes that are no UTF-8 become U+FFFD. */
void json_put_string(struct json_out *o, const char *utf8, size_t n);
/* The shortest of 15, 16 or 17 digits that reads back as the same float; {"$float":...} where JSON has no number. */
void json_put_float(struct json_out *o, double v);

/* Where an XI_BUFFER's bytes lie. */
struct json_buffers {
    int (*find)(void *context, const xi_buffer_ref *ref, const void **data);
    void *context;
};
/* Appends the encoded value as JSON, on one line. 0 or an error with its sentence in xi_error_text(); then `o` is as it
 * was. `buffers` may be NULL: an XI_BUFFER is then XI_E_NOENT. */
int json_write(struct json_out *o, const void *value, size_t size, const struct json_buffers *buffers);

#endif
