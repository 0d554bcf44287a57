/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's histogram: every value falls into the one bucket whose bounds
 * hold it, buckets leave no gap, percentiles follow their definition, and two
 * histograms merged say what one would have said.
 */
#include <check.h>
#include <stdlib.h>

#include "bench/histogram.h"

static struct histogram one, two, both;

static void fresh(void) {
    histogram_reset(&one);
    histogram_reset(&two);
    histogram_reset(&both);
}

/* Deterministic values spread over all magnitudes (splitmix64, shifted by its own bits). */
static uint64_t spread(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return z >> (z % 64);
}

START_TEST(buckets_cover_without_gap) {
    ck_assert_uint_eq(histogram_lowest(0), 0);
    for (uint32_t i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
        ck_assert(histogram_highest(i) + 1 == histogram_lowest(i + 1));
        ck_assert_uint_eq(histogram_index(histogram_lowest(i)), i);
        ck_assert_uint_eq(histogram_index(histogram_highest(i)), i);
    }
    ck_assert(histogram_highest(HISTOGRAM_BUCKETS - 1) == UINT64_MAX);
    ck_assert_uint_eq(histogram_index(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}
END_TEST

START_TEST(buckets_are_narrow) {
    uint64_t state = 1;
    for (int i = 0; i < 100000; i++) {
        uint64_t v = spread(&state);
        uint32_t index = histogram_index(v);
        uint64_t low = histogram_lowest(index), high = histogram_highest(index);
        ck_assert(low <= v && v <= high);
        ck_assert((high - low) <= v / HISTOGRAM_SUB);
    }
}
END_TEST

START_TEST(empty_answers_zero) {
    fresh();
    ck_assert_uint_eq(histogram_percentile(&one, 50), 0);
    ck_assert(histogram_mean(&one) == 0);
    histogram_merge(&two, &one);
    ck_assert_uint_eq(two.count, 0);
    ck_assert(two.min == UINT64_MAX && two.max == 0);
}
END_TEST

START_TEST(percentiles_of_small_values_are_exact) {
    fresh();
    for (uint64_t v = 100; v >= 1; v--) histogram_record(&one, v);
    ck_assert_uint_eq(histogram_percentile(&one, 0), 1);
    ck_assert_uint_eq(histogram_percentile(&one, 1), 1);
    ck_assert_uint_eq(histogram_percentile(&one, 1.5), 2);
    ck_assert_uint_eq(histogram_percentile(&one, 50), 50);
    ck_assert_uint_eq(histogram_percentile(&one, 90), 90);
    ck_assert_uint_eq(histogram_percentile(&one, 99.9), 100);
    ck_assert_uint_eq(histogram_percentile(&one, 100), 100);
    ck_assert_uint_eq(histogram_percentile(&one, -3), 1);
    ck_assert_uint_eq(histogram_percentile(&one, 200), 100);
    ck_assert(histogram_mean(&one) == 50.5);
}
END_TEST

START_TEST(one_value_is_every_percentile) {
    fresh();
    histogram_record(&one, 1234567);
    for (double p = 0; p <= 100; p += 12.5) ck_assert_uint_eq(histogram_percentile(&one, p), 1234567);
    ck_assert_uint_eq(one.min, 1234567);
    ck_assert_uint_eq(one.max, 1234567);
}
END_TEST

START_TEST(extremes_are_recorded) {
    fresh();
    histogram_record(&one, 0);
    histogram_record(&one, UINT64_MAX);
    ck_assert_uint_eq(histogram_percentile(&one, 50), 0);
    ck_assert(histogram_percentile(&one, 100) == UINT64_MAX);
}
END_TEST

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

START_TEST(percentiles_follow_a_sorted_array) {
    enum { N = 10007 };
    static uint64_t values[N];
    uint64_t state = 7;
    fresh();
    for (int i = 0; i < N; i++) histogram_record(&one, values[i] = spread(&state));
    qsort(values, N, sizeof values[0], ascending);
    for (int rank = 1; rank <= N; rank += 13) {
        uint64_t exact = values[rank - 1];
        uint64_t said = histogram_percentile(&one, (rank - 0.5) / N * 100);
        ck_assert_msg(said >= exact && said - exact <= exact / HISTOGRAM_SUB, "rank %d", rank);
    }
}
END_TEST

START_TEST(merged_says_the_same) {
    uint64_t state = 99;
    fresh();
    for (int i = 0; i < 5000; i++) {
        uint64_t v = spread(&state) >> 20;
        histogram_record(i % 3 ? &one : &two, v);
        histogram_record(&both, v);
    }
    histogram_merge(&one, &two);
    ck_assert_uint_eq(one.count, both.count);
    ck_assert(one.min == both.min && one.max == both.max);
    ck_assert_mem_eq(one.bucket, both.bucket, sizeof both.bucket);
    for (double p = 0; p <= 100; p += 0.7) ck_assert(histogram_percentile(&one, p) == histogram_percentile(&both, p));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("histogram");
    TCase *tc = tcase_create("histogram");
    tcase_add_test(tc, buckets_cover_without_gap);
    tcase_add_test(tc, buckets_are_narrow);
    tcase_add_test(tc, empty_answers_zero);
    tcase_add_test(tc, percentiles_of_small_values_are_exact);
    tcase_add_test(tc, one_value_is_every_percentile);
    tcase_add_test(tc, extremes_are_recorded);
    tcase_add_test(tc, percentiles_follow_a_sorted_array);
    tcase_add_test(tc, merged_says_the_same);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
