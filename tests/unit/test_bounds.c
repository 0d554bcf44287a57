/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic that every bounds check rests on: examples, and then all of it
 * against the same sums in 128 bits, for every pair and triple of numbers at the
 * edges of 64 bits, and for rings for every place and length there is.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "wire/bounds.h"

START_TEST(sums_that_fit_are_exact_and_others_refused) {
    uint64_t out = 7;
    ck_assert(xi_add_u64(2, 3, &out) && out == 5);
    ck_assert(xi_add_u64(UINT64_MAX, 0, &out) && out == UINT64_MAX);
    out = 7;
    ck_assert(!xi_add_u64(UINT64_MAX, 1, &out));
    ck_assert(!xi_add_u64(UINT64_MAX, UINT64_MAX, &out));
    ck_assert_uint_eq(out, 7);
}
END_TEST

START_TEST(products_that_fit_are_exact_and_others_refused) {
    uint64_t out = 7;
    ck_assert(xi_mul_u64(1ull << 32, (1ull << 32) - 1, &out) && out == 0xffffffff00000000ull);
    ck_assert(xi_mul_u64(0, UINT64_MAX, &out) && out == 0);
    out = 7;
    ck_assert(!xi_mul_u64(1ull << 32, 1ull << 32, &out));
    ck_assert_uint_eq(out, 7);
}
END_TEST

START_TEST(differences_below_zero_are_refused) {
    uint64_t out = 7;
    ck_assert(xi_sub_u64(5, 5, &out) && out == 0);
    out = 7;
    ck_assert(!xi_sub_u64(5, 6, &out));
    ck_assert_uint_eq(out, 7);
}
END_TEST

START_TEST(signed_sums_and_products_are_refused_beyond_64_bits) {
    int64_t out = 7;
    ck_assert(xi_add_i64(INT64_MAX, INT64_MIN, &out) && out == -1);
    ck_assert(xi_mul_i64(INT64_MIN, 1, &out) && out == INT64_MIN);
    out = 7;
    ck_assert(!xi_add_i64(INT64_MAX, 1, &out));
    ck_assert(!xi_add_i64(INT64_MIN, -1, &out));
    ck_assert(!xi_mul_i64(INT64_MIN, -1, &out));
    ck_assert_int_eq(out, 7);
}
END_TEST

START_TEST(a_range_is_inside_only_without_wrapping) {
    ck_assert(xi_range_inside(0, 0, 0));
    ck_assert(xi_range_inside(0, 8, 8));
    ck_assert(xi_range_inside(8, 0, 8));
    ck_assert(!xi_range_inside(9, 0, 8));
    ck_assert(!xi_range_inside(1, 8, 8));
    ck_assert(!xi_range_inside(UINT64_MAX, 2, 8));
    ck_assert(!xi_range_inside(2, UINT64_MAX, 8));
    ck_assert(xi_range_inside(0, UINT64_MAX, UINT64_MAX));
}
END_TEST

START_TEST(a_count_fits_only_without_wrapping) {
    ck_assert(xi_count_fits(0, 8, 0));
    ck_assert(xi_count_fits(2, 8, 16));
    ck_assert(!xi_count_fits(2, 8, 15));
    ck_assert(!xi_count_fits(1ull << 61, 8, UINT32_MAX));
    ck_assert(!xi_count_fits(0, 0, 16));
}
END_TEST

START_TEST(alignment_is_of_numbers_and_addresses) {
    static _Alignas(64) char memory[128];
    ck_assert(xi_is_aligned(0, 8) && xi_is_aligned(64, 8) && !xi_is_aligned(4, 8));
    ck_assert(xi_is_aligned_ptr(memory, 64) && !xi_is_aligned_ptr(memory + 1, 2));
    ck_assert(xi_is_aligned(UINT64_MAX, 1));
}
END_TEST

START_TEST(rounding_up_stops_at_the_last_multiple) {
    uint64_t out = 7;
    ck_assert(xi_round_up_u64(0, 8, &out) && out == 0);
    ck_assert(xi_round_up_u64(1, 4096, &out) && out == 4096);
    ck_assert(xi_round_up_u64(UINT64_MAX - 7, 8, &out) && out == UINT64_MAX - 7);
    out = 7;
    ck_assert(!xi_round_up_u64(UINT64_MAX - 6, 8, &out));
    ck_assert_uint_eq(out, 7);
}
END_TEST

START_TEST(powers_of_two_are_known_and_rounded_to) {
    uint64_t out = 7;
    ck_assert(!xi_is_pow2(0) && xi_is_pow2(1) && xi_is_pow2(1ull << 63) && !xi_is_pow2(6));
    ck_assert(xi_round_pow2_u64(0, &out) && out == 1);
    ck_assert(xi_round_pow2_u64(1, &out) && out == 1);
    ck_assert(xi_round_pow2_u64(5, &out) && out == 8);
    ck_assert(xi_round_pow2_u64(4096, &out) && out == 4096);
    ck_assert(xi_round_pow2_u64((1ull << 62) + 1, &out) && out == 1ull << 63);
    out = 7;
    ck_assert(!xi_round_pow2_u64((1ull << 63) + 1, &out));
    ck_assert_uint_eq(out, 7);
}
END_TEST

START_TEST(padding_reaches_the_next_multiple) {
    for (uint64_t n = 0; n < 64; n++)
        ck_assert(xi_padding(n, 8) < 8 && (n + xi_padding(n, 8)) % 8 == 0);
    ck_assert_uint_eq(xi_padding(UINT64_MAX, 8), 1);
}
END_TEST

/* ------------------------------------------------- every combination of edges */

typedef unsigned __int128 wide;
typedef __int128 swide;

static uint64_t edges[400], tried;
static unsigned edge_count;

static void edge(uint64_t n) {
    for (unsigned i = 0; i < edge_count; i++)
        if (edges[i] == n) return;
    edges[edge_count++] = n;
}

/* Each power of two, and what lies around it; small numbers; thirds. */
static void make_edges(void) {
    edge_count = 0;
    for (unsigned k = 0; k < 64; k++)
        for (int d = -1; d <= 1; d++) edge(((uint64_t)1 << k) + (uint64_t)(int64_t)d);
    for (uint64_t n = 0; n < 10; n++) edge(n), edge(0 - n);
    edge(UINT64_MAX / 3), edge(UINT64_MAX / 5), edge(0xfffffff8u), edge(~(uint64_t)7);
}

#define EACH(a) for (unsigned i_##a = 0; i_##a < edge_count; i_##a++) for (uint64_t a = edges[i_##a], o_##a = 1; o_##a; o_##a = 0)

START_TEST(every_pair_of_edges_is_as_in_128_bits) {
    make_edges();
    EACH(a) EACH(b) {
        uint64_t out = 7;
        int64_t sout = 7;
        wide sum = (wide)a + b, product = (wide)a * b;
        ck_assert(xi_add_u64(a, b, &out) == (sum <= UINT64_MAX) && out == (sum <= UINT64_MAX ? (uint64_t)sum : 7));
        out = 7;
        ck_assert(xi_mul_u64(a, b, &out) == (product <= UINT64_MAX) && out == (product <= UINT64_MAX ? (uint64_t)product : 7));
        out = 7;
        ck_assert(xi_sub_u64(a, b, &out) == (b <= a) && out == (b <= a ? a - b : 7));
        swide ssum = (swide)(int64_t)a + (int64_t)b, sproduct = (swide)(int64_t)a * (int64_t)b;
        bool sfits = ssum >= INT64_MIN && ssum <= INT64_MAX, pfits = sproduct >= INT64_MIN && sproduct <= INT64_MAX;
        ck_assert(xi_add_i64((int64_t)a, (int64_t)b, &sout) == sfits && sout == (sfits ? (int64_t)ssum : 7));
        sout = 7;
        ck_assert(xi_mul_i64((int64_t)a, (int64_t)b, &sout) == pfits && sout == (pfits ? (int64_t)sproduct : 7));
        if (xi_is_pow2(b)) {
            wide up = ((wide)a + b - 1) / b * b;
            out = 7;
            ck_assert(xi_round_up_u64(a, b, &out) == ((wide)a + b - 1 <= UINT64_MAX));
            ck_assert(out == ((wide)a + b - 1 <= UINT64_MAX ? (uint64_t)up : 7));
            ck_assert(xi_padding(a, b) < b && (wide)((wide)a + xi_padding(a, b)) % b == 0);
            ck_assert(xi_is_aligned(a, b) == (a % b == 0));
        }
        tried++;
    }
    EACH(a) {
        uint64_t out = 7, bits = 0;
        for (unsigned k = 0; k < 64; k++) bits += a >> k & 1;
        ck_assert(xi_is_pow2(a) == (bits == 1));
        bool fits = a <= (uint64_t)1 << 63;
        ck_assert(xi_round_pow2_u64(a, &out) == fits);
        if (fits) ck_assert(xi_is_pow2(out) && out >= a && (out == 1 || out / 2 < a));
        else ck_assert_uint_eq(out, 7);
    }
}
END_TEST

START_TEST(every_triple_of_edges_is_as_in_128_bits) {
    make_edges();
    EACH(a) EACH(b) EACH(c) {
        bool inside = (wide)a + b <= c, fits = b != 0 && (wide)a * b <= c;
        /* ck_assert() is too slow for millions */
        if (xi_range_inside(a, b, c) != inside || xi_count_fits(a, b, c) != fits)
            ck_abort_msg("%llu, %llu, %llu", (unsigned long long)a, (unsigned long long)b, (unsigned long long)c);
        uint64_t items = c == 0 || a < b ? 0 : (a - b) / c;
        if (xi_items_behind(a, b, c) != items || (items && (wide)b + (wide)items * c > a))
            ck_abort_msg("items: %llu, %llu, %llu", (unsigned long long)a, (unsigned long long)b, (unsigned long long)c);
        if (xi_ring_behind(a, b, c) != ((uint64_t)(b - a) <= c)) ck_abort_msg("behind");
        bool block = (wide)(uint32_t)a * 1024 >= 4096 && (wide)(uint32_t)a * 1024 + b <= c;
        if (xi_block_inside((uint32_t)a, 1024, 4096, b, c) != block)
            ck_abort_msg("block: %llu, %llu, %llu", (unsigned long long)a, (unsigned long long)b, (unsigned long long)c);
        tried++;
    }
    printf("%llu combinations of %u numbers at the edges of 64 bits\n", (unsigned long long)tried, edge_count);
}
END_TEST

/* A record that may be lies, wherever it begins, within the ring as it is mapped, twice in a row: all places and lengths. */
START_TEST(every_record_lies_within_the_ring_mapped_twice) {
    const uint64_t capacity = 4096;
    for (uint64_t position = 0; position < 2 * capacity; position++) {
        uint64_t place = xi_ring_place(position, capacity - 1);
        ck_assert(place % 8 == 0 && place <= capacity - 8 && (position % 8 || place == position % capacity));
        for (uint64_t far = 0; far < 64; far++) /* whatever the higher bits */
            ck_assert_uint_eq(xi_ring_place(position | (far >= 13 ? (uint64_t)1 << far : 0), capacity - 1), place);
        if (position % 8) continue;
        for (uint64_t n = 0; n <= 2 * capacity; n++) {
            uint32_t length = (uint32_t)n;
            if (!xi_ring_length_whole(length, capacity)) continue;
            if (place + 8 + length + 8 > 2 * capacity || length % 8 || length < 8) ck_abort_msg("%u at %llu", length, (unsigned long long)place);
        }
    }
    for (uint64_t n = 0; n <= UINT32_MAX; n++) { /* every length that a header can have */
        bool whole = n >= 8 && n % 8 == 0 && n <= capacity - 16;
        if (xi_ring_length_whole((uint32_t)n, capacity) != whole) ck_abort_msg("length %llu", (unsigned long long)n);
        if (n > 4 * capacity && n < UINT32_MAX - 4 * capacity) n += 1021; /* in between every so many */
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bounds");
    TCase *tests = tcase_create("bounds");
    tcase_add_test(tests, sums_that_fit_are_exact_and_others_refused);
    tcase_add_test(tests, products_that_fit_are_exact_and_others_refused);
    tcase_add_test(tests, differences_below_zero_are_refused);
    tcase_add_test(tests, signed_sums_and_products_are_refused_beyond_64_bits);
    tcase_add_test(tests, a_range_is_inside_only_without_wrapping);
    tcase_add_test(tests, a_count_fits_only_without_wrapping);
    tcase_add_test(tests, alignment_is_of_numbers_and_addresses);
    tcase_add_test(tests, rounding_up_stops_at_the_last_multiple);
    tcase_add_test(tests, powers_of_two_are_known_and_rounded_to);
    tcase_add_test(tests, padding_reaches_the_next_multiple);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, every_pair_of_edges_is_as_in_128_bits);
    tcase_add_test(tests, every_triple_of_edges_is_as_in_128_bits);
    tcase_add_test(tests, every_record_lies_within_the_ring_mapped_twice);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
