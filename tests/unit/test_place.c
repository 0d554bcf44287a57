/* SPDX-License-Identifier: MIT */
/* Where the benchmark's sides run: the processors chosen, and what they are to each other, on several machines. */
#include <check.h>
#include <stdlib.h>

#include "bench/place.h"

START_TEST(lists_as_the_kernel_writes_them) {
    static const struct {
        const char *list;
        int in[4], out[4];
    } lists[] = {
        {"0\n", {0, 0, 0, 0}, {1, 2, 10, -1}},
        {"0,64\n", {0, 64, 0, 64}, {1, 6, 63, 65}},
        {"0-1\n", {0, 1, 0, 1}, {2, 10, 11, -1}},
        {"2-3,10-11,40", {2, 3, 11, 40}, {1, 4, 12, 39}},
    };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (int k = 0; k < 4; k++) {
            ck_assert(place_in_list(lists[i].list, lists[i].in[k]));
            ck_assert(!place_in_list(lists[i].list, lists[i].out[k]));
        }
    static const char *const nothing[] = {NULL, "", "\n", "none", "-", "-1"};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) ck_assert(!place_in_list(nothing[i], 1));
}
END_TEST

START_TEST(two_cores_where_there_are_two) {
    static const struct {
        const char *siblings;
        int cpus[4], n, second;
        enum place_pair pair;
    } machines[] = {
        {"0-1\n", {0, 1, 2, 3}, 4, 2, PLACE_APART},     /* siblings side by side */
        {"0,2\n", {0, 1, 2, 3}, 4, 1, PLACE_APART},     /* and half the machine apart */
        {"4,68\n", {4, 68}, 2, 68, PLACE_SIBLINGS},     /* one core is all we have */
        {"7\n", {7, 9}, 2, 9, PLACE_APART},             /* no hardware threads */
        {NULL, {0, 1}, 2, 1, PLACE_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        int chosen[2] = {-1, -1};
        place_choose(machines[i].cpus, machines[i].n, machines[i].siblings, chosen);
        ck_assert_int_eq(chosen[0], machines[i].cpus[0]);
        ck_assert_int_eq(chosen[1], machines[i].second);
        ck_assert_int_eq(place_pair_of(machines[i].siblings, chosen[1], false), machines[i].pair);
        ck_assert_int_eq(place_pair_of(machines[i].siblings, chosen[1], true), PLACE_UNKNOWN);
    }
}
END_TEST

START_TEST(virtual_machines) {
    ck_assert(!place_is_virtual("processor\t: 0\nflags\t\t: fpu vme sse2 ht\nbugs\t: x\n"));
    ck_assert(!place_is_virtual("processor\t: 0\nflags\t\t: fpu\nbugs\t: no hypervisor\n"));
    ck_assert(place_is_virtual("processor\t: 0\nflags\t\t: fpu hypervisor sse2\nbugs\t: x\n"));
    ck_assert(place_is_virtual("processor\t: 0\nflags\t\t: fpu hypervisor\nbugs\t: x\n"));
    ck_assert(place_is_virtual("processor\t: 0\nflags\t\t: fpu sse")); /* more may follow */
    ck_assert(place_is_virtual("processor\t: 0\nFeatures\t: fp asimd\n")); /* it does not say */
    ck_assert(place_is_virtual(""));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("place");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, lists_as_the_kernel_writes_them);
    tcase_add_test(tc, two_cores_where_there_are_two);
    tcase_add_test(tc, virtual_machines);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
