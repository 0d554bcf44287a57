/* SPDX-License-Identifier: MIT */
/*
 * Text and values through the command's JSON, both from hostile bytes.
 *
 * A first byte of 'v' makes the rest an encoded value: whatever it holds,
 * writing ends with text or an error, and text of a valid value reads back.
 * Anything else is JSON text: if it is accepted, then writing the value and
 * reading it again gives the same bytes, which is what lossless means.
 */
#include <stdlib.h>
#include <string.h>

#include "xi/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(condition)                                                                                                \
    do                                                                                                                 \
        if (!(condition)) __builtin_trap();                                                                            \
    while (0)

/* The value of a text, or NULL. `text` is copied to a buffer of exactly its size and a NUL. */
static void *read_text(const char *text, size_t n, size_t *size) {
    struct json j = {0};
    char *copy = malloc(n + 1);
    void *value = NULL;
    must(copy);
    if (n) memcpy(copy, text, n);
    copy[n] = 0;
    int rc = json_parse(&j, copy, n);
    if (rc == 0) rc = json_encode(&j, &value, size);
    if (rc) must(j.error.text[0] && j.error.line >= 1 && j.error.column >= 1);
    json_clear(&j);
    free(copy);
    return rc ? NULL : value;
}

static void from_text(const char *text, size_t n) {
    size_t size, again_size;
    void *value = read_text(text, n, &size);
    if (!value) return;
    must(xi_validate(value, size) == 0);
    struct json_out o = {0};
    must(json_write(&o, value, size, NULL) == 0);
    void *again = read_text(o.data, o.length, &again_size);
    must(again && again_size == size && memcmp(again, value, size) == 0);
    free(again);
    free(value);
    json_out_clear(&o);
}

static void from_value(const uint8_t *data, size_t n) {
    size_t size;
    void *value = aligned_alloc(8, (n + 7) & ~(size_t)7);
    struct json_out o = {0};
    must(value || n == 0);
    if (n) memcpy(value, data, n);
    if (json_write(&o, value, n, NULL) == 0 && xi_validate(value, n) == 0) {
        void *again = read_text(o.data, o.length, &size);
        if (again) { /* not if it has a key twice, which only a hostile writer makes */
            struct json_out p = {0};
            must(json_write(&p, again, size, NULL) == 0);
            must(p.length == o.length && memcmp(p.data, o.data, p.length) == 0);
            json_out_clear(&p);
        }
        free(again);
    }
    json_out_clear(&o);
    free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 0 && data[0] == 'v')
        from_value(data + 1, size - 1);
    else
        from_text((const char *)data, size);
    return 0;
}
