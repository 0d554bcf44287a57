/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the reading of values (clang -fsanitize=fuzzer,address,undefined).
 *
 * Any bytes: nothing may crash or read outside them. Bytes that xi_validate()
 * accepts: a walk must succeed, every text must become UTF-8, and the value
 * built again, with short and with long sizes, must be valid, as large as
 * counted, and mean the same.
 */
#include <stdio.h>
#include <stdlib.h>

#include "rebuild.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                   \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static void check_str(const xi_value *v, bool valid) {
    int64_t need = xi_to_utf8(v, NULL, 0, true);
    if (need < 0) {
        MUST(!valid && need == XI_E_CORRUPT);
        return;
    }
    char *out = malloc((size_t)need + 1);
    MUST(out != NULL);
    MUST(xi_to_utf8(v, out, (size_t)need, true) == need); /* exactly fits: no NUL, no byte beyond */
    MUST(xi_check_text(XI_UTF8, v->flags & XI_F_SURROGATES, out, (size_t)need) == 0);
    MUST(xi_to_utf8(v, out, (size_t)need + 1, true) == need && out[need] == 0);
    int64_t strict = xi_to_utf8(v, out, (size_t)need / 2, false);
    MUST(strict == need || (strict == XI_E_RANGE && (v->flags & XI_F_SURROGATES)));
    free(out);
}

/* Reads everything that the cursor yields; where the value is not valid, as far as it goes. */
static void walk(xi_cursor *c, bool valid) {
    xi_value v;
    xi_cursor children;
    int64_t integer;
    double real;
    int got;
    while ((got = xi_next(c, &v)) > 0) {
        if (v.tag == XI_STR)
            check_str(&v, valid);
        (void)xi_get_int(&v, &integer);
        (void)xi_get_float(&v, &real);
        if (xi_enter(&v, &children) == 0)
            walk(&children, valid);
    }
    MUST(got == 0 || !valid);
}

static uint64_t meaning(const void *value, size_t size) {
    xi_cursor c;
    uint64_t hash = 0;
    xi_cursor_init(&c, value, size);
    MUST(xt_meaning(&c, &hash) == 0);
    return hash;
}

static void rebuild(const void *value, size_t size, uint32_t flags) {
    static xi_builder b;
    xi_cursor c;
    xi_builder_init(&b, NULL, 0, flags);
    xi_cursor_init(&c, value, size);
    MUST(xt_rebuild(&b, &c) == 0);
    int64_t need = xi_builder_finish(&b);
    MUST(need > 0);
    void *again = malloc((size_t)need);
    MUST(again != NULL);
    xi_builder_init(&b, again, (size_t)need, flags);
    xi_cursor_init(&c, value, size);
    MUST(xt_rebuild(&b, &c) == 0 && xi_builder_finish(&b) == need);
    MUST(xi_validate(again, (size_t)need) == 0);
    MUST(meaning(again, (size_t)need) == meaning(value, size));
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    xi_cursor c;
    void *value = malloc(size ? size : 1); /* aligned, and ends where the value does */
    MUST(value != NULL);
    if (size)
        memcpy(value, data, size);
    bool valid = xi_validate(value, size) == 0;
    xi_cursor_init(&c, value, size);
    walk(&c, valid);
    if (valid) {
        rebuild(value, size, 0);
        rebuild(value, size, XI_BUILD_LONG);
    }
    free(value);
    return 0;
}
