/* SPDX-License-Identifier: MIT */
/*
 * Values: what is built comes back, in every kind and at its edges; the builder
 * never overruns; counting tells the size that is written; and the document
 * shows the bytes that the code makes. test_value_hostile.c has what is not valid.
 */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "samples.h"

static uint64_t memory[8192];
static xi_builder b;

/* ------------------------------------------------------------- helpers */

/* The first value of what has been built, which must be valid. */
static xi_value read_back(void) {
    xi_cursor c;
    xi_value v;
    int64_t size = xi_builder_finish(&b);
    ck_assert_msg(size > 0, "%s", xi_error_text((int)size));
    ck_assert_int_eq(xi_validate(memory, (size_t)size), 0);
    xi_cursor_init(&c, memory, (size_t)size);
    ck_assert_int_eq(xi_next(&c, &v), 1);
    xi_value unused;
    ck_assert_int_eq(xi_next(&c, &unused), 0);
    ck_assert_uint_eq(v.size, (size_t)size);
    return v;
}

static void fresh(void) {
    memset(memory, 0xee, 256);
    xi_builder_init(&b, memory, sizeof memory, 0);
}

/* ------------------------------------------------------------- scalars */

START_TEST(none_and_bools_take_eight_bytes) {
    fresh();
    ck_assert_int_eq(xi_put_none(&b), 0);
    ck_assert_uint_eq(read_back().tag, XI_NONE);
    ck_assert_uint_eq(b.length, 8);
    for (int i = 0; i < 2; i++) {
        fresh();
        ck_assert_int_eq(xi_put_bool(&b, i), 0);
        xi_value v = read_back();
        ck_assert_uint_eq(v.tag, XI_BOOL);
        ck_assert_int_eq(v.u.boolean, i);
        int64_t integer;
        ck_assert_int_eq(xi_get_int(&v, &integer), XI_E_TYPE);
    }
}
END_TEST

START_TEST(ints_take_the_smallest_form_and_come_back) {
    static const int64_t known[] = {0, 1, -1, INT32_MAX, INT32_MIN, (int64_t)INT32_MAX + 1, (int64_t)INT32_MIN - 1,
                                    INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        int64_t out = 12345;
        fresh();
        ck_assert_int_eq(xi_put_int(&b, known[i]), 0);
        xi_value v = read_back();
        ck_assert_uint_eq(v.tag, known[i] == (int32_t)known[i] ? XI_INT32 : XI_INT64);
        ck_assert_int_eq(xi_get_int(&v, &out), 0);
        ck_assert_int_eq(out, known[i]);
    }
}
END_TEST

/* -1, 0 or 1 added to +-2**bits, as two's complement of `n` bytes. */
static void power(uint8_t *bytes, size_t n, uint32_t bits, bool negative, int add) {
    memset(bytes, 0, n);
    bytes[bits / 8] = (uint8_t)(1u << bits % 8);
    int carry = 0;
    if (negative) {
        carry = 1;
        for (size_t i = 0; i < n; i++) {
            carry += (uint8_t)~bytes[i];
            bytes[i] = (uint8_t)carry;
            carry >>= 8;
        }
    }
    carry = add;
    for (size_t i = 0; i < n && carry; i++) {
        int sum = bytes[i] + carry;
        bytes[i] = (uint8_t)sum;
        carry = sum < 0 ? -1 : sum >> 8;
    }
}

static void check_bigint(const uint8_t *bytes, size_t n) {
    fresh();
    ck_assert_int_eq(xi_put_bigint(&b, bytes, n), 0);
    xi_value v = read_back();
    uint8_t sign = bytes[n - 1] >= 0x80 ? 0xff : 0;
    uint8_t got[700];
    if (v.tag == XI_BIGINT) {
        ck_assert_uint_ge(v.length, 9);
        memset(got, sign, n);
        memcpy(got, v.data, v.length);
        int64_t unused;
        ck_assert_int_eq(xi_get_int(&v, &unused), XI_E_RANGE);
    } else {
        int64_t integer;
        ck_assert_int_eq(xi_get_int(&v, &integer), 0);
        ck_assert_uint_eq(v.tag, integer == (int32_t)integer ? XI_INT32 : XI_INT64);
        memset(got, sign, n);
        memcpy(got, &integer, 8);
    }
    ck_assert_mem_eq(got, bytes, n);
}

START_TEST(big_ints_of_every_length_and_sign_come_back_minimal) {
    static const uint32_t bits[] = {0, 1, 7, 8, 31, 32, 62, 63, 64, 65, 71, 72, 127, 5000};
    uint8_t bytes[700];
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        for (int negative = 0; negative < 2; negative++) {
            for (int add = -1; add <= 1; add++) {
                power(bytes, sizeof bytes, bits[i], negative, add);
                check_bigint(bytes, sizeof bytes);
            }
        }
    }
    fresh();
    ck_assert_int_eq(xi_put_bigint(&b, NULL, 0), 0);
    ck_assert_int_eq(read_back().u.integer, 0);
}
END_TEST

START_TEST(floats_keep_every_bit) {
    static const uint64_t known[] = {0, 0x8000000000000000, 0x3ff0000000000000, 0x7ff0000000000000, 0xfff0000000000000,
                                     0x7ff8000000000000, 0x7ff0000000000001, 0xfff8dead00beef00, 1};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        double in, out;
        uint64_t bits;
        memcpy(&in, &known[i], 8);
        fresh();
        ck_assert_int_eq(xi_put_float(&b, in), 0);
        xi_value v = read_back();
        ck_assert_uint_eq(v.tag, XI_FLOAT);
        ck_assert_int_eq(xi_get_float(&v, &out), 0);
        memcpy(&bits, &out, 8);
        ck_assert_uint_eq(bits, known[i]);
    }
}
END_TEST

START_TEST(complex_keeps_both_parts) {
    fresh();
    ck_assert_int_eq(xi_put_complex(&b, -0.0, NAN), 0);
    xi_value v = read_back();
    ck_assert_uint_eq(v.tag, XI_COMPLEX);
    ck_assert(v.u.complex_[0] == 0 && signbit(v.u.complex_[0]) && isnan(v.u.complex_[1]));
    double out;
    ck_assert_int_eq(xi_get_float(&v, &out), XI_E_TYPE);
}
END_TEST

START_TEST(ints_become_floats_only_exactly) {
    static const struct {
        int64_t integer;
        int result;
    } known[] = {{0, 0}, {-5, 0}, {1ll << 53, 0}, {(1ll << 53) + 1, XI_E_RANGE}, {INT64_MAX, XI_E_RANGE},
                 {INT64_MIN, 0}, {INT64_MAX - 1023, 0}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        double out = 0;
        fresh();
        ck_assert_int_eq(xi_put_int(&b, known[i].integer), 0);
        xi_value v = read_back();
        ck_assert_int_eq(xi_get_float(&v, &out), known[i].result);
        if (known[i].result == 0)
            ck_assert(out == (double)known[i].integer);
    }
}
END_TEST

START_TEST(big_ints_become_floats_only_exactly) {
    uint8_t bytes[140];
    double out = 0;
    for (uint32_t bits = 64; bits < 1030; bits++) {
        for (int negative = 0; negative < 2; negative++) {
            power(bytes, sizeof bytes, bits, negative, 0);
            fresh();
            ck_assert_int_eq(xi_put_bigint(&b, bytes, sizeof bytes), 0);
            xi_value v = read_back();
            ck_assert_int_eq(xi_get_float(&v, &out), bits < 1024 ? 0 : XI_E_RANGE);
            if (bits < 1024)
                ck_assert(out == ldexp(negative ? -1 : 1, (int)bits));
            power(bytes, sizeof bytes, bits, negative, 1);
            fresh();
            ck_assert_int_eq(xi_put_bigint(&b, bytes, sizeof bytes), 0);
            v = read_back();
            ck_assert_int_eq(xi_get_float(&v, &out), XI_E_RANGE);
        }
    }
    memset(bytes, 0, sizeof bytes); /* 53 bits across three 32-bit words */
    uint64_t low = 0x1fffffffffffffull << 31, high = 0x1fffffffffffffull >> 33;
    memcpy(bytes, &low, 8);
    memcpy(bytes + 8, &high, 8);
    fresh();
    ck_assert_int_eq(xi_put_bigint(&b, bytes, sizeof bytes), 0);
    xi_value v = read_back();
    ck_assert_int_eq(xi_get_float(&v, &out), 0);
    ck_assert(out == ldexp(0x1fffffffffffffp0, 31));
}
END_TEST

/* ------------------------------------------------------ text and bytes */

START_TEST(every_form_of_str_comes_back_with_its_flags) {
    static const uint32_t text[] = {0x41, 0x20ac, 0, 0x1f600, 0xd800};
    for (int encoding = XI_ASCII; encoding <= XI_UTF8; encoding++) {
        for (size_t n = 0; n <= 16; n += 4) {
            fresh();
            ck_assert_int_eq(xi_put_str(&b, (enum xi_encoding)encoding, XI_F_SURROGATES, text, n), 0);
            xi_cursor c;
            xi_value v;
            xi_cursor_init(&c, memory, (size_t)xi_builder_finish(&b));
            ck_assert_int_eq(xi_next(&c, &v), 1);
            ck_assert_uint_eq(v.tag, XI_STR);
            ck_assert_uint_eq(v.flags, (uint32_t)encoding | XI_F_SURROGATES);
            ck_assert_uint_eq(v.length, n);
            ck_assert_mem_eq(v.data, text, n);
        }
    }
}
END_TEST

START_TEST(utf8_text_is_recognised_as_ascii_and_refused_when_broken) {
    fresh();
    ck_assert_int_eq(xi_put_utf8(&b, "plain"), 0);
    ck_assert_uint_eq(read_back().flags, XI_ASCII);
    fresh();
    ck_assert_int_eq(xi_put_utf8(&b, "gr\xc3\xbc\xc3\x9f"), 0);
    ck_assert_uint_eq(read_back().flags, XI_UTF8);
    fresh();
    ck_assert_int_eq(xi_put_utf8(&b, "\xff"), XI_E_INVAL);
    fresh();
    ck_assert_int_eq(xi_put_utf8(&b, NULL), XI_E_INVAL);
}
END_TEST

START_TEST(bytes_of_every_length_come_back_and_padding_is_zero) {
    uint8_t data[40];
    memset(data, 0xab, sizeof data);
    for (size_t n = 0; n <= sizeof data; n++) {
        fresh();
        ck_assert_int_eq(xi_put_bytes(&b, data, n), 0);
        xi_value v = read_back();
        ck_assert_uint_eq(v.length, n);
        ck_assert_uint_eq(v.size, 8 + (n + 7) / 8 * 8);
        ck_assert_uint_le(v.size, XI_SIZE_BYTES(n));
        ck_assert_mem_eq(v.data, data, n);
        for (size_t i = 8 + n; i < v.size; i++)
            ck_assert_uint_eq(((uint8_t *)memory)[i], 0);
    }
}
END_TEST

START_TEST(space_is_filled_by_the_caller_and_null_when_counting) {
    void *where = memory;
    xi_builder_init(&b, NULL, 0, 0);
    ck_assert_int_eq(xi_put_bytes_space(&b, XI_F_MUTABLE, 5, &where), 0);
    ck_assert_ptr_null(where);
    ck_assert_int_eq(xi_builder_finish(&b), 16);
    fresh();
    ck_assert_int_eq(xi_put_bytes_space(&b, XI_F_MUTABLE, 5, &where), 0);
    memcpy(where, "hello", 5);
    xi_value v = read_back();
    ck_assert_uint_eq(v.flags, XI_F_MUTABLE);
    ck_assert_mem_eq(v.data, "hello", 5);
    fresh();
    ck_assert_int_eq(xi_put_str_space(&b, XI_UCS2, 0, 6, &where), 0);
    memcpy(where, "a\0b\0c", 6);
    ck_assert_uint_eq(read_back().flags, XI_UCS2);
}
END_TEST

/* ---------------------------------------------------------- containers */

START_TEST(each_sample_means_the_same_when_built_again) {
    for (size_t i = 0; i < SAMPLES; i++) {
        static uint64_t again[8192];
        xi_cursor c;
        uint64_t before = 0, after = 0;
        fresh();
        samples[i].make(&b);
        int64_t size = xi_builder_finish(&b);
        ck_assert_msg(size > 0, "%s: %s", samples[i].name, xi_error_text((int)size));
        ck_assert_msg(xi_validate(memory, (size_t)size) == 0, "%s: %s", samples[i].name, xi_error_text(XI_E_CORRUPT));
        xi_cursor_init(&c, memory, (size_t)size);
        ck_assert_int_eq(xt_meaning(&c, &before), 0);
        xi_builder_init(&b, again, sizeof again, 0);
        xi_cursor_init(&c, memory, (size_t)size);
        ck_assert_int_eq(xt_rebuild(&b, &c), 0);
        ck_assert_int_eq(xi_builder_finish(&b), size);
        ck_assert_mem_eq(memory, again, (size_t)size);
        xi_cursor_init(&c, again, (size_t)size);
        ck_assert_int_eq(xt_meaning(&c, &after), 0);
        ck_assert_uint_eq(before, after);
    }
}
END_TEST

START_TEST(container_fields_come_back) {
    xi_value v, inner;
    xi_cursor c;
    fresh();
    sample_dict(&b);
    v = read_back();
    ck_assert_uint_eq(v.tag, XI_DICT);
    ck_assert_uint_eq(v.count, 2);
    ck_assert_int_eq(xi_enter(&v, &c), 0);
    ck_assert_uint_eq(c.remaining, 4);
    fresh();
    sample_pickle(&b);
    v = read_back();
    ck_assert_uint_eq(v.count, 3);
    fresh();
    sample_ndarray(&b);
    v = read_back();
    ck_assert_uint_eq(v.u.array.ndim, 2);
    ck_assert_int_eq(v.u.array.shape[0], 3);
    ck_assert_int_eq(v.u.array.strides[1], -8);
    ck_assert_uint_eq(v.u.array.dtype_length, 3);
    ck_assert_mem_eq(v.u.array.dtype, "<f8", 3);
    ck_assert_uint_eq(v.flags, XI_F_FORTRAN);
    ck_assert_int_eq(xi_enter(&v, &c), 0);
    ck_assert_int_eq(xi_next(&c, &inner), 1);
    ck_assert_uint_eq(inner.tag, XI_BUFFER);
    ck_assert_uint_eq(inner.depth, 1);
    ck_assert_uint_eq(inner.u.buffer.block.granule, 7);
    ck_assert_uint_eq(inner.u.buffer.block.segment, 4);
    ck_assert_uint_eq(inner.u.buffer.length, 96);
    ck_assert_int_eq(xi_enter(&inner, &c), XI_E_TYPE);
}
END_TEST

START_TEST(empty_containers_come_back_empty) {
    static const enum xi_tag tags[] = {XI_TUPLE, XI_LIST, XI_SET, XI_FROZENSET, XI_DICT};
    for (size_t i = 0; i < 5; i++) {
        xi_cursor c;
        xi_value unused;
        fresh();
        ck_assert_int_eq(xi_begin(&b, tags[i], 0), 0);
        ck_assert_int_eq(xi_end(&b), 0);
        xi_value v = read_back();
        ck_assert_uint_eq(v.size, 16);
        ck_assert_int_eq(xi_enter(&v, &c), 0);
        ck_assert_int_eq(xi_next(&c, &unused), 0);
    }
}
END_TEST

START_TEST(a_hundred_thousand_elements_come_back) {
    enum { N = 100000 };
    size_t size = 16 + 8 * (size_t)N;
    uint64_t *large = malloc(size);
    xi_cursor c, children;
    xi_value v;
    xi_builder_init(&b, large, size, 0);
    ck_assert_int_eq(xi_begin(&b, XI_LIST, N), 0);
    for (int i = 0; i < N; i++)
        ck_assert_int_eq(xi_put_int(&b, i), 0);
    ck_assert_int_eq(xi_end(&b), 0);
    ck_assert_int_eq(xi_builder_finish(&b), (int64_t)size);
    ck_assert_int_eq(xi_validate(large, size), 0);
    xi_cursor_init(&c, large, size);
    ck_assert_int_eq(xi_next(&c, &v), 1);
    ck_assert_int_eq(xi_enter(&v, &children), 0);
    for (int i = 0; i < N; i++) {
        ck_assert_int_eq(xi_next(&children, &v), 1);
        ck_assert_int_eq(v.u.integer, i);
    }
    ck_assert_int_eq(xi_next(&children, &v), 0);
    free(large);
}
END_TEST

START_TEST(two_hundred_and_fifty_six_levels_are_allowed_and_no_more) {
    for (int levels = XI_DEPTH_MAX; levels <= XI_DEPTH_MAX + 1; levels++) {
        fresh();
        for (int i = 0; i < levels; i++)
            (void)xi_begin(&b, XI_TUPLE, i < levels - 1);
        for (int i = 0; i < levels; i++)
            (void)xi_end(&b);
        if (levels == XI_DEPTH_MAX)
            ck_assert_int_eq(xi_validate(memory, (size_t)xi_builder_finish(&b)), 0);
        else
            ck_assert_int_eq(xi_builder_finish(&b), XI_E_DEPTH);
    }
}
END_TEST

START_TEST(a_whole_value_is_put_as_a_child) {
    static uint64_t inner[64];
    xi_builder_init(&b, inner, sizeof inner, 0);
    sample_dict(&b);
    int64_t size = xi_builder_finish(&b);
    for (int counting = 1; counting >= 0; counting--) {
        xi_builder_init(&b, counting ? NULL : memory, counting ? 0 : sizeof memory, 0);
        ck_assert_int_eq(xi_begin(&b, XI_TUPLE, 2), 0);
        ck_assert_int_eq(xi_put_value(&b, inner, (size_t)size), 0);
        ck_assert_int_eq(xi_put_none(&b), 0);
        ck_assert_int_eq(xi_end(&b), 0);
        ck_assert_int_eq(xi_builder_finish(&b), size + 16 + 8);
    }
    ck_assert_int_eq(xi_validate(memory, (size_t)size + 24), 0);
    ck_assert_mem_eq(memory + 2, inner, (size_t)size);
    fresh();
    ck_assert_int_eq(xi_put_value(&b, inner, (size_t)size - 8), XI_E_CORRUPT);
}
END_TEST

/* ---------------------------------------------------------------- long */

START_TEST(long_containers_mean_the_same_as_short_ones) {
    for (size_t i = 0; i < SAMPLES; i++) {
        xi_cursor c;
        uint64_t short_form = 0, long_form = 0;
        fresh();
        samples[i].make(&b);
        xi_cursor_init(&c, memory, (size_t)xi_builder_finish(&b));
        ck_assert_int_eq(xt_meaning(&c, &short_form), 0);
        xi_builder_init(&b, memory, sizeof memory, XI_BUILD_LONG);
        samples[i].make(&b);
        int64_t size = xi_builder_finish(&b);
        ck_assert_int_eq(xi_validate(memory, (size_t)size), 0);
        xi_cursor_init(&c, memory, (size_t)size);
        ck_assert_int_eq(xt_meaning(&c, &long_form), 0);
        ck_assert_uint_eq(short_form, long_form);
    }
}
END_TEST

static int64_t count_five_gibibytes(uint32_t flags) {
    void *where;
    xi_builder_init(&b, NULL, 0, flags);
    (void)xi_begin(&b, XI_LIST, 5);
    for (int i = 0; i < 5; i++)
        (void)xi_put_bytes_space(&b, 0, 1u << 30, &where);
    (void)xi_end(&b);
    return xi_builder_finish(&b);
}

START_TEST(more_than_four_gibibytes_are_counted_and_need_the_long_form) {
    ck_assert_int_eq(count_five_gibibytes(0), XI_E_TOOBIG);
    ck_assert_int_eq(count_five_gibibytes(XI_BUILD_LONG), 24 + 5 * ((1ll << 30) + 8));
}
END_TEST

START_TEST(bytes_beyond_four_gibibytes_take_the_long_form_by_themselves) {
    size_t n = ((size_t)1 << 32) + 3, capacity = n + 64;
    int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *where, *huge = mmap(NULL, capacity, PROT_READ | PROT_WRITE, kind, -1, 0);
    xi_cursor c;
    xi_value v;
    ck_assert_ptr_ne(huge, MAP_FAILED);
    xi_builder_init(&b, huge, capacity, 0);
    ck_assert_int_eq(xi_put_bytes_space(&b, 0, n, &where), 0);
    ck_assert_ptr_eq(where, (uint8_t *)huge + 16);
    int64_t size = xi_builder_finish(&b);
    ck_assert_int_eq(size, (1ll << 32) + 24);
    xi_cursor_init(&c, huge, (size_t)size);
    ck_assert_int_eq(xi_next(&c, &v), 1);
    ck_assert_uint_eq(v.flags, XI_F_LONG);
    ck_assert_uint_eq(v.length, n);
    munmap(huge, capacity);
    for (size_t edge = UINT32_MAX - 24ull; edge < UINT32_MAX + 8ull; edge++) {
        xi_builder_init(&b, NULL, 0, 0);
        ck_assert_int_eq(xi_put_bytes_space(&b, 0, edge, &where), 0);
        size_t head = edge <= UINT32_MAX - 15ull ? 8 : 16;
        ck_assert_int_eq(xi_builder_finish(&b), (int64_t)(head + (edge + 7) / 8 * 8));
    }
}
END_TEST

START_TEST(impossible_lengths_are_refused_without_wrapping) {
    static const size_t lengths[] = {SIZE_MAX, SIZE_MAX - 7, SIZE_MAX - 31, (size_t)INT64_MAX, (size_t)INT64_MAX - 16};
    void *where;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (int counting = 0; counting < 2; counting++) {
            xi_builder_init(&b, counting ? NULL : memory, sizeof memory, 0);
            ck_assert_int_eq(xi_put_bytes_space(&b, 0, lengths[i], &where), XI_E_TOOBIG);
            xi_builder_init(&b, counting ? NULL : memory, sizeof memory, 0);
            ck_assert_int_eq(xi_begin(&b, XI_DICT, lengths[i]), XI_E_TOOBIG);
            xi_builder_init(&b, counting ? NULL : memory, sizeof memory, 0);
            ck_assert_int_eq(xi_begin(&b, XI_PICKLE, lengths[i]), XI_E_TOOBIG);
        }
    }
}
END_TEST

/* ------------------------------------------------------- wrong use of it */

START_TEST(the_first_error_sticks) {
    fresh();
    ck_assert_int_eq(xi_put_str(&b, (enum xi_encoding)6, 0, "", 0), XI_E_INVAL);
    ck_assert_int_eq(xi_put_none(&b), XI_E_INVAL);
    ck_assert_int_eq(xi_begin(&b, XI_LIST, UINT64_MAX), XI_E_INVAL);
    ck_assert_int_eq(xi_end(&b), XI_E_INVAL);
    ck_assert_int_eq(xi_builder_finish(&b), XI_E_INVAL);
    ck_assert_uint_eq(b.length, 0);
}
END_TEST

START_TEST(values_too_many_or_too_few_are_refused) {
    fresh();
    ck_assert_int_eq(xi_builder_finish(&b), XI_E_INVAL);
    fresh();
    ck_assert_int_eq(xi_put_none(&b), 0);
    ck_assert_int_eq(xi_put_none(&b), XI_E_INVAL);
    fresh();
    ck_assert_int_eq(xi_end(&b), XI_E_INVAL);
    fresh();
    ck_assert_int_eq(xi_begin(&b, XI_TUPLE, 1), 0);
    ck_assert_int_eq(xi_end(&b), XI_E_INVAL);
    fresh();
    ck_assert_int_eq(xi_begin(&b, XI_TUPLE, 0), 0);
    ck_assert_int_eq(xi_put_none(&b), XI_E_INVAL);
    fresh();
    ck_assert_int_eq(xi_begin(&b, XI_TUPLE, 0), 0);
    ck_assert_int_eq(xi_builder_finish(&b), XI_E_INVAL);
}
END_TEST

START_TEST(wrong_arguments_are_refused) {
    static const int64_t negative[] = {-1}, huge[] = {INT64_MAX, 2}, far[] = {INT64_MAX, 8}, fine[] = {2, 3};
    xi_buffer_ref ref = {{0, 0, 1}, UINT64_MAX, 1};
    struct {
        int result;
    } got[] = {
        {(fresh(), xi_begin(&b, XI_STR, 0))},
        {(fresh(), xi_begin(&b, XI_EXT, 1))},
        {(fresh(), xi_begin_ext(&b, 0))},
        {(fresh(), xi_put_str(&b, XI_UCS4, 0, "abcdef", 6))},
        {(fresh(), xi_put_str(&b, XI_ASCII, XI_F_MUTABLE, "", 0))},
        {(fresh(), xi_put_buffer(&b, &ref, 0))},
        {(fresh(), ref.offset = 0, ref.block.generation = 1ull << 48, xi_put_buffer(&b, &ref, 0))},
        {(fresh(), xi_begin_ndarray(&b, NULL, 0, 0, NULL, NULL))},
        {(fresh(), xi_begin_ndarray(&b, "", 0, 0, NULL, NULL))},
        {(fresh(), xi_begin_ndarray(&b, "<i8", 0, 65, NULL, NULL))},
        {(fresh(), xi_begin_ndarray(&b, "<i8", 0, 1, negative, fine))},
        {(fresh(), xi_begin_ndarray(&b, "<i8", 0, 2, huge, fine))},
        {(fresh(), xi_begin_ndarray(&b, "<i8", 0, 2, fine, far))},
        {(xi_builder_init(&b, memory, sizeof memory, 2), xi_put_none(&b))},
        {(xi_builder_init(&b, (uint8_t *)memory + 4, 64, 0), xi_put_none(&b))},
    };
    for (size_t i = 0; i < sizeof got / sizeof got[0]; i++)
        ck_assert_msg(got[i].result == XI_E_INVAL, "case %zu gave %d", i, got[i].result);
}
END_TEST

START_TEST(an_ndarray_of_no_items_may_have_any_strides) {
    static const int64_t shape[] = {INT64_MAX, 0, INT64_MAX}, strides[] = {INT64_MAX, INT64_MIN, -1};
    fresh();
    ck_assert_int_eq(xi_begin_ndarray(&b, "<i8", 0, 2, shape, strides), 0);
    ck_assert_int_eq(xi_put_bytes(&b, NULL, 0), 0);
    ck_assert_int_eq(xi_end(&b), 0);
    ck_assert_int_eq(read_back().u.array.shape[0], INT64_MAX);
    fresh();
    /* As numpy: a dimension of zero does not excuse the others. */
    ck_assert_int_eq(xi_begin_ndarray(&b, "<i8", 0, 3, shape, strides), XI_E_INVAL);
}
END_TEST

/* ------------------------------------------------------------- capacity */

START_TEST(no_byte_is_written_beyond_any_capacity) {
    const size_t room = 65536;
    uint8_t *page = mmap(NULL, room + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(page, MAP_FAILED);
    ck_assert_int_eq(mprotect(page + room, 4096, PROT_NONE), 0);
    for (size_t i = 0; i < SAMPLES; i++) {
        for (uint32_t flags = 0; flags <= XI_BUILD_LONG; flags++) {
            xi_builder_init(&b, NULL, 0, flags);
            samples[i].make(&b);
            size_t need = (size_t)xi_builder_finish(&b);
            for (size_t capacity = 0; capacity <= need; capacity += need > 2048 ? 8 : 1) {
                xi_builder_init(&b, page + room - (capacity + 7) / 8 * 8, capacity, flags);
                samples[i].make(&b);
                ck_assert_int_eq(xi_builder_finish(&b), capacity < need ? XI_E_TOOBIG : (int64_t)need);
                ck_assert_uint_le(b.length, capacity);
            }
        }
    }
    munmap(page, room + 4096);
}
END_TEST

/* --------------------------------------------------------- random trees */

static uint64_t state;
static uint32_t below(uint32_t n) {
    state += 0x9e3779b97f4a7c15ull;
    uint64_t z = (state ^ state >> 30) * 0xbf58476d1ce4e5b9ull;
    return (uint32_t)((z ^ z >> 31) >> 16) % n;
}

static void put_random(xi_builder *to, int depth) {
    static const enum xi_tag tags[] = {XI_TUPLE, XI_LIST, XI_SET, XI_FROZENSET, XI_DICT};
    static const int64_t shape[] = {2, 3, 4}, strides[] = {96, -32, 8};
    uint8_t bytes[64];
    uint32_t kind = below(depth > 6 ? 7 : 10), n = below(sizeof bytes), count = below(5);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)below(128);
    switch (kind) {
    case 0: (void)xi_put_none(to); return;
    case 1: (void)xi_put_bool(to, n & 1); return;
    case 2: (void)xi_put_int(to, (int64_t)((uint64_t)below(UINT32_MAX) << below(33)) * (n & 1 ? 1 : -1)); return;
    case 3: (void)xi_put_float(to, below(1000) / 8.0); return;
    case 4: (void)xi_put_bigint(to, bytes, n); return;
    case 5: (void)xi_put_str(to, n & 1 ? XI_ASCII : XI_LATIN1, 0, bytes, n); return;
    case 6: (void)xi_put_bytes(to, bytes, n); return;
    case 7: (void)xi_begin_ext(to, (uint16_t)(1 + below(65535))); count = 1; break;
    case 8:
        (void)xi_begin_ndarray(to, "<f8", 0, count % 4, shape, strides);
        (void)xi_put_bytes(to, bytes, n);
        (void)xi_end(to);
        return;
    default:
        kind = below(5);
        (void)xi_begin(to, tags[kind], count);
        count *= tags[kind] == XI_DICT ? 2 : 1;
    }
    while (count-- > 0)
        put_random(to, depth + 1);
    (void)xi_end(to);
}

START_TEST(random_trees_are_as_large_as_counted_and_mean_the_same_again) {
    const char *given = getenv("XI_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("XI_SEED=%llu\n", (unsigned long long)seed);
    for (uint64_t round = 0; round < 3000; round++) {
        uint32_t flags = round & 1 ? XI_BUILD_LONG : 0;
        state = seed + round;
        xi_builder_init(&b, NULL, 0, flags);
        put_random(&b, 0);
        int64_t need = xi_builder_finish(&b);
        ck_assert_msg(need > 0, "seed %llu round %llu: %s", (unsigned long long)seed, (unsigned long long)round,
                      xi_error_text((int)need));
        uint64_t *exact = malloc((size_t)need), *again = malloc((size_t)need);
        state = seed + round;
        xi_builder_init(&b, exact, (size_t)need, flags);
        put_random(&b, 0);
        ck_assert_int_eq(xi_builder_finish(&b), need);
        ck_assert_int_eq(xi_validate(exact, (size_t)need), 0);
        xi_cursor c;
        xi_cursor_init(&c, exact, (size_t)need);
        xi_builder_init(&b, again, (size_t)need, flags);
        ck_assert_int_eq(xt_rebuild(&b, &c), 0);
        ck_assert_int_eq(xi_builder_finish(&b), need);
        ck_assert_msg(memcmp(exact, again, (size_t)need) == 0, "seed %llu round %llu", (unsigned long long)seed,
                      (unsigned long long)round);
        free(exact);
        free(again);
    }
}
END_TEST

/* ------------------------------------------------------------ the document */

static FILE *open_document(void) {
    const char *source = getenv("XI_SOURCE"); /* as ctest sets it; else this is run where the sources are */
    char path[4096];
    snprintf(path, sizeof path, "%s/docs/value-format.md", source ? source : ".");
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    return file;
}

/* One line "0008  02 00 00 00 00 00 00 00  words": its eight bytes, or false. */
static bool hex_line(const char *line, uint8_t out[8]) {
    unsigned offset, byte[8];
    int n = sscanf(line, "%4x %2x %2x %2x %2x %2x %2x %2x %2x", &offset, &byte[0], &byte[1], &byte[2], &byte[3],
                   &byte[4], &byte[5], &byte[6], &byte[7]);
    for (int i = 0; n == 9 && i < 8; i++)
        out[i] = (uint8_t)byte[i];
    return n == 9;
}

static void compare_example(const char *name, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < SAMPLES; i++) {
        if (strcmp(samples[i].name, name) != 0)
            continue;
        fresh();
        samples[i].make(&b);
        ck_assert_msg(xi_builder_finish(&b) == (int64_t)n && memcmp(memory, bytes, n) == 0,
                      "docs/value-format.md shows other bytes for \"%s\" than the code makes", name);
        return;
    }
    ck_abort_msg("docs/value-format.md shows \"%s\", which is no sample", name);
}

START_TEST(the_document_shows_the_bytes_that_the_code_makes) {
    FILE *file = open_document();
    char line[512], name[64] = "", word[64];
    uint8_t bytes[1024];
    size_t n = 0, examples = 0;
    while (fgets(line, sizeof line, file)) {
        int end = 0; /* set if the colon is there too: otherwise it is a sentence */
        if (sscanf(line, "example %63[^: ]:%n", word, &end) == 1 && end > 0) {
            memcpy(name, word, sizeof name);
            n = 0;
        } else if (name[0] && n + 8 <= sizeof bytes && hex_line(line, bytes + n)) {
            n += 8;
        } else if (name[0]) {
            compare_example(name, bytes, n);
            name[0] = 0;
            examples++;
        }
    }
    fclose(file);
    ck_assert_uint_eq(examples, SAMPLES - 1); /* all but the deep one */
}
END_TEST

int main(void) {
    Suite *suite = suite_create("value");
    TCase *tests = tcase_create("value");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, none_and_bools_take_eight_bytes);
    tcase_add_test(tests, ints_take_the_smallest_form_and_come_back);
    tcase_add_test(tests, big_ints_of_every_length_and_sign_come_back_minimal);
    tcase_add_test(tests, floats_keep_every_bit);
    tcase_add_test(tests, complex_keeps_both_parts);
    tcase_add_test(tests, ints_become_floats_only_exactly);
    tcase_add_test(tests, big_ints_become_floats_only_exactly);
    tcase_add_test(tests, every_form_of_str_comes_back_with_its_flags);
    tcase_add_test(tests, utf8_text_is_recognised_as_ascii_and_refused_when_broken);
    tcase_add_test(tests, bytes_of_every_length_come_back_and_padding_is_zero);
    tcase_add_test(tests, space_is_filled_by_the_caller_and_null_when_counting);
    tcase_add_test(tests, each_sample_means_the_same_when_built_again);
    tcase_add_test(tests, container_fields_come_back);
    tcase_add_test(tests, empty_containers_come_back_empty);
    tcase_add_test(tests, a_hundred_thousand_elements_come_back);
    tcase_add_test(tests, two_hundred_and_fifty_six_levels_are_allowed_and_no_more);
    tcase_add_test(tests, a_whole_value_is_put_as_a_child);
    tcase_add_test(tests, long_containers_mean_the_same_as_short_ones);
    tcase_add_test(tests, more_than_four_gibibytes_are_counted_and_need_the_long_form);
    tcase_add_test(tests, bytes_beyond_four_gibibytes_take_the_long_form_by_themselves);
    tcase_add_test(tests, impossible_lengths_are_refused_without_wrapping);
    tcase_add_test(tests, the_first_error_sticks);
    tcase_add_test(tests, values_too_many_or_too_few_are_refused);
    tcase_add_test(tests, wrong_arguments_are_refused);
    tcase_add_test(tests, an_ndarray_of_no_items_may_have_any_strides);
    tcase_add_test(tests, no_byte_is_written_beyond_any_capacity);
    tcase_add_test(tests, random_trees_are_as_large_as_counted_and_mean_the_same_again);
    tcase_add_test(tests, the_document_shows_the_bytes_that_the_code_makes);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
