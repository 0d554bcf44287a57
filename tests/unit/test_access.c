/* SPDX-License-Identifier: MIT */
/* Lists of who may do what: read from text, judged, written again; and bytes from a client that claim to be one. */
#include <check.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "wire/access.h"
#include "xidata.h"

static struct xi_access list[XI_ACCESS_MAX];

static const char *again(const char *text, bool with_rights) {
    static char out[XI_ACCESS_TEXT];
    int rc = xi_access_parse(text, with_rights, list);
    if (rc) return xi_error_name(rc);
    ck_assert(xi_access_valid(list));
    xi_access_format(list, with_rights, out);
    return out;
}

START_TEST(test_numbers) {
    ck_assert_str_eq(again("1000:r", true), "1000:r");
    ck_assert_str_eq(again("#1000:w,@50:rw,*:r", true), "1000:w,@50:rw,*:r");
    ck_assert_str_eq(again("@#50:rw", true), "@50:rw");
    ck_assert_str_eq(again("0:r", true), "0:r");
    ck_assert_str_eq(again("4294967294:r", true), "4294967294:r");
    ck_assert_str_eq(again("1000,@50,#7", false), "1000,@50,7");
    ck_assert_str_eq(again("*", false), "*");
}
END_TEST

START_TEST(test_names) {
    char text[128], want[128];
    struct passwd *root = getpwuid(0);
    struct group *group = getgrgid(0);
    ck_assert_ptr_nonnull(root);
    ck_assert_ptr_nonnull(group);
    snprintf(text, sizeof text, "%s:rw,@%s:r", root->pw_name, group->gr_name);
    snprintf(want, sizeof want, "0:rw,@0:r");
    ck_assert_str_eq(again(text, true), want);
    ck_assert_str_eq(again("no-such-user-here:r", true), "XI_E_NOENT");
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_NOENT), "no-such-user-here"));
    ck_assert_str_eq(again("@no-such-group-here:r", true), "XI_E_NOENT");
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_NOENT), "group"));
}
END_TEST

START_TEST(test_what_is_said_twice_adds_up) {
    ck_assert_str_eq(again("7:r,8:r,7:w", true), "7:rw,8:r");
    ck_assert_str_eq(again("7:r,@7:w", true), "7:r,@7:w");
}
END_TEST

START_TEST(test_wrong) {
    static const char *const with[] = {"",      ",",     "7",    "7:",     "7:x",   "7:wr", "7:rwx",       ":r",   "7:r,",
                                       ",7:r",  "@:r",   "#:r",  "#x:r",   "7:r,,8:r", "**:r", "4294967295:r", "99999999999999999999:r",
                                       "@*:r",  "7 :r"};
    for (size_t i = 0; i < sizeof with / sizeof with[0]; i++) {
        memset(list, 0x55, sizeof list);
        int rc = xi_access_parse(with[i], true, list);
        ck_assert_msg(rc == XI_E_INVAL || rc == XI_E_NOENT, "\"%s\" gave %s", with[i], rc ? xi_error_name(rc) : "success");
        ck_assert_uint_eq(list[0].id, 0x55555555); /* untouched */
    }
    ck_assert_int_eq(xi_access_parse("7:r", false, list), XI_E_NOENT); /* no user's name */
    char longest[300];
    memset(longest, 'a', sizeof longest);
    memcpy(longest + 290, ":r", 3);
    ck_assert_int_eq(xi_access_parse(longest, true, list), XI_E_INVAL);
}
END_TEST

START_TEST(test_as_many_as_fit) {
    char text[1024] = "", out[XI_ACCESS_TEXT];
    for (uint32_t i = 0; i < XI_ACCESS_MAX; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s@%u:rw", i ? "," : "", 4294967294u - i);
    ck_assert_int_eq(xi_access_parse(text, true, list), 0);
    xi_access_format(list, true, out);
    ck_assert_str_eq(out, text);
    strcat(text, ",1:r");
    ck_assert_int_eq(xi_access_parse(text, true, list), XI_E_LIMIT);
}
END_TEST

START_TEST(test_rights) {
    const uint32_t groups[] = {50, 60};
    struct xi_who alice = {1000, 1000, groups, 2}, bob = {1001, 70, NULL, 0};
    ck_assert_int_eq(xi_access_parse("1000:w,@60:r,@70:w", true, list), 0);
    ck_assert_uint_eq(xi_access_of(list, &alice), XI_ACCESS_BOTH);
    ck_assert_uint_eq(xi_access_of(list, &bob), XI_ACCESS_WRITE); /* his first group counts too */
    bob.gid = 1000;                                               /* a group's number is no user's */
    ck_assert_uint_eq(xi_access_of(list, &bob), 0);
    ck_assert_int_eq(xi_access_parse("*:r,1001:w", true, list), 0);
    ck_assert_uint_eq(xi_access_of(list, &alice), XI_ACCESS_READ);
    ck_assert_uint_eq(xi_access_of(list, &bob), XI_ACCESS_BOTH);
    memset(list, 0, sizeof list);
    ck_assert_uint_eq(xi_access_of(list, &alice), 0);
}
END_TEST

START_TEST(test_others) {
    memset(list, 0, sizeof list);
    ck_assert(!xi_access_names_others(list, 1000));
    ck_assert_int_eq(xi_access_parse("1000:r", true, list), 0);
    ck_assert(!xi_access_names_others(list, 1000));
    ck_assert(xi_access_names_others(list, 1001));
    ck_assert_int_eq(xi_access_parse("@1000:r", true, list), 0);
    ck_assert(xi_access_names_others(list, 1000));
    ck_assert_int_eq(xi_access_parse("*:r", true, list), 0);
    ck_assert(xi_access_names_others(list, 1000));
}
END_TEST

/* What a client may send in place of a list. */
START_TEST(test_lists_that_are_none) {
    static const struct xi_access bad[] = {{1, XI_ACCESS_USER, 0},  {1, XI_ACCESS_USER, 4},  {1, 4, 1},
                                           {1, XI_ACCESS_NONE, 0},  {0, XI_ACCESS_NONE, 1},  {1, XI_ACCESS_ALL, 1},
                                           {UINT32_MAX, XI_ACCESS_USER, 1}, {UINT32_MAX, XI_ACCESS_GROUP, 1}, {1, 0x101, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memset(list, 0, sizeof list);
        list[0] = bad[i];
        ck_assert_msg(!xi_access_valid(list), "%zu", i);
    }
    memset(list, 0, sizeof list);
    ck_assert(xi_access_valid(list));
    list[1] = (struct xi_access){1, XI_ACCESS_USER, 1}; /* behind the end */
    ck_assert(!xi_access_valid(list));
}
END_TEST

int main(void) {
    TCase *c = tcase_create("access");
    tcase_add_test(c, test_numbers);
    tcase_add_test(c, test_names);
    tcase_add_test(c, test_what_is_said_twice_adds_up);
    tcase_add_test(c, test_wrong);
    tcase_add_test(c, test_as_many_as_fit);
    tcase_add_test(c, test_rights);
    tcase_add_test(c, test_others);
    tcase_add_test(c, test_lists_that_are_none);
    Suite *s = suite_create("access");
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
