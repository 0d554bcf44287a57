/* SPDX-License-Identifier: MIT */
/*
 * Values that nobody should have written: whatever the bytes, a reader gets an
 * error or something to read; it never reads outside them, loops or crashes.
 *
 * The bytes lie between two pages that cannot be touched, and end as close to
 * the second as alignment allows; built with an address sanitizer, the exact
 * end is guarded as well (each case also runs in a block of its own).
 */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "samples.h"

enum { PAGE = 4096, ROOM = 16 * PAGE };

static uint64_t original[ROOM / 8];
static uint8_t *room; /* ROOM bytes between two forbidden pages */
static xi_builder b;

static void make_room(void) {
    uint8_t *all = mmap(NULL, ROOM + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(all, MAP_FAILED);
    room = all + PAGE;
    ck_assert_int_eq(mprotect(room, ROOM, PROT_READ | PROT_WRITE), 0);
}

static void drop_room(void) { munmap(room - PAGE, ROOM + 2 * PAGE); }

static size_t build(const struct sample *sample, uint32_t flags) {
    xi_builder_init(&b, original, sizeof original, flags);
    sample->make(&b);
    int64_t size = xi_builder_finish(&b);
    ck_assert_int_gt(size, 0);
    return (size_t)size;
}

/* -------------------------------------------------- reading all of it */

static volatile uint64_t sink;

static void touch(const void *data, size_t n) {
    const uint8_t *p = data;
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += p[i];
    sink += sum;
}

static void read_one(const xi_value *v) {
    static _Thread_local char text[256];
    int64_t integer;
    double real;
    touch(v->data, v->data ? v->length : 0);
    if (v->tag == XI_NDARRAY)
        touch(v->u.array.dtype, v->u.array.dtype_length);
    (void)xi_get_int(v, &integer);
    (void)xi_get_float(v, &real);
    if (v->tag == XI_STR) {
        int64_t need = xi_to_utf8(v, text, sizeof text, (v->length & 8) != 0);
        if (need >= 0 && need <= (int64_t)sizeof text) /* what is handed out is UTF-8, come what may */
            ck_assert_int_eq(xi_check_text(XI_UTF8, XI_F_SURROGATES, text, (size_t)need), 0);
    }
}

/* As far as it goes; an error ends one level, not the walk. Returns the number of values met. */
static uint64_t read_all(xi_cursor *c) {
    xi_value v;
    xi_cursor children;
    uint64_t met = 0;
    while (xi_next(c, &v) > 0) {
        met++;
        read_one(&v);
        if (xi_enter(&v, &children) == 0)
            met += read_all(&children);
    }
    return met;
}

static int read_hostile(const void *data, size_t size) {
    xi_cursor c;
    int verdict = xi_validate(data, size);
    xi_cursor_init(&c, data, size);
    ck_assert_uint_le(read_all(&c), size / 8);
    return verdict;
}

/* Reads `size` bytes of `from` in guarded memory and in a block of exactly that size. */
static int read_guarded(const void *from, size_t size) {
    uint8_t *end = room + ROOM - (size + 7) / 8 * 8, *block = malloc(size ? size : 1);
    memcpy(end, from, size);
    memcpy(room, from, size);
    memcpy(block, from, size);
    int verdict = read_hostile(end, size);
    ck_assert_int_eq(read_hostile(room, size), verdict);
    ck_assert_int_eq(read_hostile(block, size), verdict);
    free(block);
    return verdict;
}

/* --------------------------------------------------------------- tests */

START_TEST(every_truncation_is_an_error) {
    for (size_t i = 0; i < SAMPLES; i++) {
        for (uint32_t flags = 0; flags <= XI_BUILD_LONG; flags++) {
            size_t size = build(&samples[i], flags);
            for (size_t n = 0; n < size; n++)
                ck_assert_int_lt(read_guarded(original, n), 0);
            ck_assert_int_eq(read_guarded(original, size), 0);
        }
    }
}
END_TEST

START_TEST(bytes_after_the_value_are_an_error) {
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t size = build(&samples[i], 0);
        memset((uint8_t *)original + size, 0, 16);
        ck_assert_int_eq(read_guarded(original, size + 8), XI_E_CORRUPT);
        ck_assert_int_eq(read_guarded(original, size + 1), XI_E_CORRUPT);
    }
}
END_TEST

START_TEST(any_single_byte_may_be_anything) {
    static const uint8_t extremes[] = {0x00, 0xff, 0x80, 0x7f};
    for (size_t i = 0; i < SAMPLES; i++) {
        for (uint32_t flags = 0; flags <= XI_BUILD_LONG; flags++) {
            size_t size = build(&samples[i], flags);
            uint8_t *bytes = (uint8_t *)original;
            for (size_t at = 0; at < size; at++) {
                uint8_t was = bytes[at];
                for (size_t k = 0; k < sizeof extremes; k++) {
                    bytes[at] = extremes[k];
                    (void)read_guarded(original, size);
                }
                for (int bit = 0; bit < 8; bit++) {
                    bytes[at] = (uint8_t)(was ^ 1u << bit);
                    (void)read_guarded(original, size);
                }
                bytes[at] = was;
            }
        }
    }
}
END_TEST

START_TEST(any_word_may_be_any_extreme) {
    static const uint64_t extremes[] = {0, 1, 7, 8, 16, 64, 65, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff,
                                        1ull << 32, INT64_MAX, 1ull << 63, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < SAMPLES; i++) {
        for (uint32_t flags = 0; flags <= XI_BUILD_LONG; flags++) {
            size_t size = build(&samples[i], flags);
            for (size_t at = 0; at < size; at += 4) {
                for (size_t k = 0; k < sizeof extremes / sizeof extremes[0]; k++) {
                    uint8_t was[8], *field = (uint8_t *)original + at;
                    size_t width = at % 8 == 0 ? 8 : 4;
                    memcpy(was, field, 8);
                    memcpy(field, &extremes[k], 4);
                    (void)read_guarded(original, size);
                    memcpy(field, &extremes[k], width);
                    (void)read_guarded(original, size);
                    memcpy(field, was, 8);
                }
            }
        }
    }
}
END_TEST

START_TEST(random_words_are_read_without_harm) {
    const char *given = getenv("XI_SEED");
    uint64_t state = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("XI_SEED=%llu\n", (unsigned long long)state);
    static const uint8_t tags[] = {1, 2, 3, 16, 17, 18, 19, 20, 21, 32, 33, 34, 35, 36, 40, 41, 42, 43, 255};
    for (int round = 0; round < 20000; round++) {
        size_t words = 2 + (size_t)(round % 24);
        for (size_t i = 0; i < words; i++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            uint64_t r = state >> 17;
            uint64_t head = tags[r % sizeof tags] | (r >> 8 & 1 ? (uint64_t)XI_F_LONG << 8 : 0) |
                            (r >> 9 & 7) << 16 | (words - i) * 8 << 32;
            original[i] = r >> 12 & 1 ? head : r >> 13 & 1 ? (words - i) * 8 : r >> 14 & 3;
        }
        (void)read_guarded(original, words * 8);
    }
}
END_TEST

START_TEST(bombs_of_depth_and_of_counts_end_soon) {
    size_t words = 0;
    while (words + 2 <= ROOM / 8) { /* a tuple of one tuple of one ..., far too deep */
        original[words] = XI_TUPLE | (uint64_t)(ROOM - words * 8) << 32;
        original[words + 1] = 1;
        words += 2;
    }
    original[words - 1] = 0;
    ck_assert_int_eq(read_guarded(original, ROOM), XI_E_DEPTH);
    original[0] = XI_LIST | (uint64_t)ROOM << 32;
    original[1] = UINT64_MAX;
    ck_assert_int_eq(read_guarded(original, ROOM), XI_E_CORRUPT);
    original[0] = XI_DICT | (uint64_t)ROOM << 32;
    original[1] = (uint64_t)1 << 63; /* pairs, whose double wraps to 0 */
    ck_assert_int_eq(read_guarded(original, ROOM), XI_E_CORRUPT);
}
END_TEST

/* What exactly is refused: one change to a valid value each. */
START_TEST(each_rule_of_the_format_is_enforced) {
    const struct {
        const char *sample, *rule;
        size_t at;
        uint8_t byte;
    } changes[] = {
        {"none", "value 0", 4, 1},
        {"none", "flags 0", 1, 1},
        {"none", "a known tag", 0, 4},
        {"int32", "aux 0", 2, 1},
        {"true", "0 or 1", 4, 2},
        {"int64", "size 16", 4, 8},
        {"int64", "no LONG", 1, 0x80},
        {"float", "a known tag", 0, 22},
        {"bytes", "padding below 8", 2, 8},
        {"bytes", "padding zero", 15, 1},
        {"bytes", "flags of bytes", 1, 1},
        {"bytes", "size a multiple of 8", 4, 15},
        {"empty", "padding inside", 2, 1},
        {"ascii", "a known encoding", 1, 6},
        {"ascii", "text keeps to it", 8, 0x80},
        {"ucs2", "whole units", 2, 5},
        {"surrogate", "flag for surrogates", 1, XI_UCS2},
        {"bigint", "minimal", 16, 0},
        {"tuple", "count exact", 8, 1},
        {"tuple", "count exact", 8, 3},
        {"tuple", "no MUTABLE", 1, 0x10},
        {"list", "children fill it", 4, 8},
        {"date", "extension not 0", 2, 0},
        {"buffer", "generation of 48 bits", 22, 1},
        {"ndarray", "ndim fits", 2, 64},
        {"ndarray", "ndim up to 64", 2, 65},
        {"ndarray", "a dtype", 8, 0},
        {"ndarray", "dtype inside", 11, 0xff},
        {"ndarray", "reserved 0", 12, 1},
        {"ndarray", "dtype is text", 17, 0xff},
        {"ndarray", "dtype without NUL", 17, 0},
        {"ndarray", "dtype padding 0", 19, 1},
        {"ndarray", "no negative dimension", 31, 0x80},
        {"ndarray", "items fit 63 bits", 31, 0x7f},
        {"ndarray", "strides fit 63 bits", 47, 0x7f},
        {"pickle", "bytes first", 16, XI_STR},
        {"pickle", "at least one", 8, 0},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        size_t s = 0;
        while (s < SAMPLES && strcmp(samples[s].name, changes[i].sample) != 0)
            s++;
        ck_assert_uint_lt(s, SAMPLES);
        size_t size = build(&samples[s], 0);
        ck_assert_uint_lt(changes[i].at, size);
        ((uint8_t *)original)[changes[i].at] = changes[i].byte;
        ck_assert_msg(read_guarded(original, size) == XI_E_CORRUPT, "%s: \"%s\" was not enforced", changes[i].sample,
                      changes[i].rule);
        ck_assert_str_ne(xi_error_text(XI_E_CORRUPT), "");
    }
}
END_TEST

START_TEST(a_buffer_whose_end_wraps_is_refused) {
    size_t size = build(&(const struct sample){"buffer", sample_buffer}, 0);
    original[3] = UINT64_MAX - 95; /* offset, with a length of 96 */
    ck_assert_int_eq(read_guarded(original, size), XI_E_CORRUPT);
    original[3]--;
    ck_assert_int_eq(read_guarded(original, size), 0);
}
END_TEST

START_TEST(ndarray_and_pickle_hold_only_what_they_may) {
    xi_builder_init(&b, original, sizeof original, 0);
    (void)xi_begin_ndarray(&b, "<i8", 0, 0, NULL, NULL);
    (void)xi_put_int(&b, 1);
    (void)xi_end(&b);
    ck_assert_int_eq(read_guarded(original, (size_t)xi_builder_finish(&b)), XI_E_CORRUPT);
    xi_builder_init(&b, original, sizeof original, 0);
    (void)xi_begin(&b, XI_PICKLE, 1);
    (void)xi_put_bytes(&b, "N.", 2);
    (void)xi_put_int(&b, 1);
    (void)xi_end(&b);
    ck_assert_int_eq(read_guarded(original, (size_t)xi_builder_finish(&b)), XI_E_CORRUPT);
    xi_builder_init(&b, original, sizeof original, 0);
    (void)xi_begin(&b, XI_PICKLE, 0);
    (void)xi_put_buffer(&b, &(const xi_buffer_ref){{0, 0, 0}, 0, 0}, 0);
    (void)xi_end(&b);
    ck_assert_int_eq(read_guarded(original, (size_t)xi_builder_finish(&b)), XI_E_CORRUPT);
}
END_TEST

START_TEST(a_pointer_that_is_null_or_not_aligned_is_an_argument_error) {
    xi_value v;
    xi_cursor c;
    size_t size = build(&samples[0], 0);
    ck_assert_int_eq(xi_validate(NULL, size), XI_E_INVAL);
    ck_assert_int_eq(xi_validate((uint8_t *)original + 4, size), XI_E_INVAL);
    xi_cursor_init(&c, (uint8_t *)original + 1, size);
    ck_assert_int_eq(xi_next(&c, &v), XI_E_INVAL);
}
END_TEST

START_TEST(an_error_leaves_value_and_cursor_as_they_were) {
    xi_cursor c, before;
    xi_value v, expected;
    memset(&v, 0x5a, sizeof v);
    memset(&expected, 0x5a, sizeof expected);
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t size = build(&samples[i], 0);
        xi_cursor_init(&c, original, size + 8);
        before = c;
        ck_assert_int_eq(xi_next(&c, &v), XI_E_CORRUPT);
        ck_assert_mem_eq(&v, &expected, sizeof v);
        ck_assert_mem_eq(&c, &before, sizeof c);
    }
}
END_TEST

START_TEST(a_walk_that_stops_early_is_told_from_an_exact_end) {
    xi_cursor c;
    xi_value v;
    original[0] = XI_NONE;
    xi_cursor_init(&c, original, 8);
    ck_assert_int_eq(xi_next(&c, &v), 1);
    c.end += 8; /* as if bytes were left */
    ck_assert_int_eq(xi_next(&c, &v), XI_E_CORRUPT);
}
END_TEST

/* -------------------------------------------------- while it changes */

struct scribbler {
    _Atomic bool stop;
    uint8_t *bytes;
    const uint8_t *valid;
    size_t size;
};

/* Puts single bytes and whole words wrong, and right again, so that readers get past the first check. */
static void *scribble(void *argument) {
    struct scribbler *s = argument;
    uint64_t state = 1;
    while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        for (int i = 0; i < 64; i++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            size_t at = (state >> 33) % s->size, word = at & ~(size_t)7;
            ((volatile uint8_t *)s->bytes)[at] = (uint8_t)(state >> 24);
            *(volatile uint64_t *)(void *)(s->bytes + word) = state & 1 ? 0 : UINT64_MAX;
            uint64_t good;
            memcpy(&good, s->valid + word, 8);
            *(volatile uint64_t *)(void *)(s->bytes + word) = good;
        }
    }
    return NULL;
}

START_TEST(values_may_change_while_they_are_read) {
    uint64_t accepted = 0, refused = 0;
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t size = build(&samples[i], (uint32_t)i & XI_BUILD_LONG);
        struct scribbler s = {false, room + ROOM - size, (const uint8_t *)original, size};
        pthread_t thread;
        struct timespec now, begin;
        memcpy(s.bytes, original, size);
        ck_assert_int_eq(pthread_create(&thread, NULL, scribble, &s), 0);
        clock_gettime(CLOCK_MONOTONIC, &begin);
        do {
            for (int round = 0; round < 200; round++)
                *(read_hostile(s.bytes, size) == 0 ? &accepted : &refused) += 1;
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while ((now.tv_sec - begin.tv_sec) * 1000000000ll + now.tv_nsec - begin.tv_nsec < 40000000);
        atomic_store(&s.stop, true);
        pthread_join(thread, NULL);
    }
    ck_assert_uint_gt(accepted, 0);
    ck_assert_uint_gt(refused, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("value_hostile");
    TCase *tests = tcase_create("value_hostile");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, make_room, drop_room);
    tcase_add_test(tests, every_truncation_is_an_error);
    tcase_add_test(tests, bytes_after_the_value_are_an_error);
    tcase_add_test(tests, any_single_byte_may_be_anything);
    tcase_add_test(tests, any_word_may_be_any_extreme);
    tcase_add_test(tests, random_words_are_read_without_harm);
    tcase_add_test(tests, bombs_of_depth_and_of_counts_end_soon);
    tcase_add_test(tests, each_rule_of_the_format_is_enforced);
    tcase_add_test(tests, a_buffer_whose_end_wraps_is_refused);
    tcase_add_test(tests, ndarray_and_pickle_hold_only_what_they_may);
    tcase_add_test(tests, a_pointer_that_is_null_or_not_aligned_is_an_argument_error);
    tcase_add_test(tests, an_error_leaves_value_and_cursor_as_they_were);
    tcase_add_test(tests, a_walk_that_stops_early_is_told_from_an_exact_end);
    tcase_add_test(tests, values_may_change_while_they_are_read);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
