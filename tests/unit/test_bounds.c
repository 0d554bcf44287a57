/* SPDX-License-Identifier: MIT */
/* The arithmetic that every bounds check rests on, at its edges. */
#include <check.h>
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
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
