/* SPDX-License-Identifier: MIT */
/*
 * Names: which namespaces and channels may be called what, names of files in
 * /dev/shm taken apart, and where the sockets lie as the environment says; each
 * refusal has a sentence that says what to do.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "fixture.h"
#include "wire/layout.h"
#include "wire/names.h"

#define THIRTY_ONE "abcdefghijklmnopqrstuvwxyz01234"
#define LONG_PATH "/tmp/a-folder-with-a-name-that-is-so-long-that-no-socket-can-be-bound-to-a-file-within-it-by-anybody-at-all"

static void forget_environment(void) {
    static const char *const all[] = {"XI_NAMESPACE", "XI_RUNTIME_DIR", "XDG_RUNTIME_DIR", "XI_OPEN_DIR"};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) ck_assert_int_eq(unsetenv(all[i]), 0);
}
#define says(part, error) ck_assert_msg(strstr(xi_error_text(error), part) != NULL, "%s", xi_error_text(error))

START_TEST(namespaces) {
    static const char *const good[] = {"a", "default", "A.b_c-9", "-", "_", "a.", THIRTY_ONE};
    static const char *const bad[] = {"", ".", ".a", "a b", "a/b", "a:b", "a\n", "\xc3\xa4", "a@", "a[", "a`", "a{", "a,", THIRTY_ONE "5"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) ck_assert_msg(xi_ns_valid(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) ck_assert_msg(!xi_ns_valid(bad[i]), "%s", bad[i]);
    ck_assert(!xi_ns_valid(NULL));
}
END_TEST

START_TEST(channels) {
    ck_assert(xi_channel_name_valid("jobs", 79) && xi_channel_name_valid("a b/\xc3\xa4", 79) && xi_channel_name_valid("abc", 3));
    ck_assert(!xi_channel_name_valid(NULL, 79) && !xi_channel_name_valid("", 79) && !xi_channel_name_valid("abcd", 3));
    ck_assert(!xi_channel_name_valid("a\tb", 79) && !xi_channel_name_valid("a\x7f", 79) && !xi_channel_name_valid("\xff", 79));
    char name[80];
    xi_lane_name(42, name);
    ck_assert(xi_lane_named(name) && !xi_lane_named("xi.repl"));
}
END_TEST

START_TEST(places) {
    struct xi_place p;
    char own[64];
    ok(xi_place_parse(NULL, &p));
    ck_assert_str_eq(p.ns, "default");
    ck_assert(!p.foreign);
    setenv("XI_NAMESPACE", "", 1);
    ck_assert_str_eq(xi_ns_default(), "default");
    setenv("XI_NAMESPACE", "lab", 1);
    ok(xi_place_parse(NULL, &p));
    ck_assert_str_eq(p.text, "lab");
    snprintf(own, sizeof own, "%u/lab", (unsigned)getuid());
    ok(xi_place_parse(own, &p)); /* one's own is not another's, however it is spelt */
    ck_assert(!p.foreign);
    ck_assert_str_eq(p.text, "lab");
    xi_place_spell(&p);
    ck_assert_str_eq(p.text, own);
    ok(xi_place_parse("61002/lab", &p));
    ck_assert(p.foreign && p.uid == 61002);
    ck_assert_str_eq(p.text, "61002/lab");
    fails(XI_E_NOENT, xi_place_parse("no-such-user-here/lab", &p));
    says("no-such-user-here", XI_E_NOENT);
    static const char *const bad[] = {"", "a b", "61002/", "61002/.lab", "a/b/c"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fails(XI_E_INVAL, xi_place_parse(bad[i], &p));
        says("1 to 31", XI_E_INVAL);
    }
}
END_TEST

START_TEST(files) {
    char name[XI_SHM_NAME_MAX], ns[32];
    uid_t uid = 0;
    uint64_t epoch = 0;
    uint32_t number = 1;
    xi_shm_segment_name(name, 4294967294u, THIRTY_ONE, 0xdeadbeef, 0x1234);
    ck_assert(xi_shm_name_parse(name + 1, &uid, ns, &epoch, &number));
    ck_assert(uid == 4294967294u && epoch == 0xdeadbeef && number == 0x1234);
    ck_assert_str_eq(ns, THIRTY_ONE);
    xi_shm_registry_name(name, 0, "a.b");
    ck_assert(xi_shm_name_parse(name + 1, &uid, ns, &epoch, &number));
    ck_assert(uid == 0 && epoch == 0 && number == 0);
    ck_assert_str_eq(ns, "a.b");
    static const char *const others[] = {
        "", "xi", "xi.", "xi.x.a.registry", "xi.1", "xi.1.", "xi.1.registry", "xi.1..registry", "xi.1.a b.registry",
        "xi.1." THIRTY_ONE "5.registry", "xi.1.a.00000001", "xi.1.a.00000001.0000000g", "xi.1.a.0000001.00000001",
        "xi.1.a.00000001.000001 2", "xi.1..00000001.00000001", "xi.1.00000001.00000001", "xi.1." THIRTY_ONE "5.00000001.00000001",
        "yi.1.a.registry", "sem.xi.1.a.registry"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        ck_assert_msg(!xi_shm_name_parse(others[i], &uid, ns, &epoch, &number), "%s", others[i]);
}
END_TEST

START_TEST(the_runtime_folder) {
    char out[108], own[64];
    snprintf(own, sizeof own, "/tmp/xidata-%u", (unsigned)getuid());
    ok(xi_runtime_dir(out, sizeof out));
    ck_assert_str_eq(out, own);
    setenv("XDG_RUNTIME_DIR", "/no/such/folder", 1); /* as su(1) leaves it behind */
    ok(xi_runtime_dir(out, sizeof out));
    ck_assert_str_eq(out, own);
    setenv("XDG_RUNTIME_DIR", "", 1);
    ok(xi_runtime_dir(out, sizeof out));
    ck_assert_str_eq(out, own);
    setenv("XDG_RUNTIME_DIR", "/tmp", 1);
    ok(xi_runtime_dir(out, sizeof out));
    ck_assert_str_eq(out, "/tmp/xidata");
    setenv("XI_RUNTIME_DIR", "", 1);
    ok(xi_runtime_dir(out, sizeof out));
    ck_assert_str_eq(out, "/tmp/xidata");
    setenv("XI_RUNTIME_DIR", "/x", 1);
    ok(xi_socket_path(out, sizeof out, "a"));
    ck_assert_str_eq(out, "/x/a.sock");
    ok(xi_lock_path(out, sizeof out, "a"));
    ck_assert_str_eq(out, "/x/a.lock");
    fails(XI_E_INVAL, xi_lock_path(out, sizeof out, "a/b"));
    fails(XI_E_INVAL, xi_lock_path(out, sizeof out, NULL));
    setenv("XI_RUNTIME_DIR", LONG_PATH, 1);
    fails(XI_E_INVAL, xi_runtime_dir(out, 100));
    says("XI_RUNTIME_DIR", XI_E_INVAL);
    fails(XI_E_INVAL, xi_socket_path(out, sizeof out, "namespace"));
    says("too long for a socket", XI_E_INVAL);
    setenv("XI_RUNTIME_DIR", LONG_PATH LONG_PATH, 1);
    fails(XI_E_INVAL, xi_socket_path(out, sizeof out, "a"));
    says("XI_RUNTIME_DIR", XI_E_INVAL);
}
END_TEST

START_TEST(the_open_folder) {
    char out[108];
    ok(xi_open_dir(out, sizeof out, 7, 1));
    ck_assert_str_eq(out, "/tmp/xidata-open-7");
    fails(XI_E_NOENT, xi_open_dir(out, sizeof out, 7, XI_OPEN_PLACES));
    setenv("XI_OPEN_DIR", "", 1);
    ok(xi_open_dir(out, sizeof out, 7, 1));
    setenv("XI_OPEN_DIR", "/x", 1);
    ok(xi_open_dir(out, sizeof out, 7, 0));
    ck_assert_str_eq(out, "/x/xidata-open-7");
    fails(XI_E_NOENT, xi_open_dir(out, sizeof out, 7, 1)); /* there, or nowhere */
    ok(xi_open_socket_path(out, sizeof out, 7, "a", 0));
    ck_assert_str_eq(out, "/x/xidata-open-7/a.sock");
    fails(XI_E_NOENT, xi_open_socket_path(out, sizeof out, 7, "a", 1));
    fails(XI_E_INVAL, xi_open_socket_path(out, sizeof out, 7, "a b", 0));
    fails(XI_E_INVAL, xi_open_dir(out, 10, 7, 0));
    says("XI_OPEN_DIR", XI_E_INVAL);
    fails(XI_E_INVAL, xi_open_socket_path(out, 20, 7, "a", 0));
    says("too long for a socket", XI_E_INVAL);
}
END_TEST

/* What each error of the system is to a user, and the advice that goes with it. */
START_TEST(errors_of_the_system) {
    static const struct {
        int number, error;
        const char *advice;
    } all[] = {{ENOSPC, XI_E_NOSPACE, "df /dev/shm"}, {EDQUOT, XI_E_QUOTA, ""},       {ENOMEM, XI_E_NOMEM, "ulimit -v"},
               {ENOBUFS, XI_E_NOMEM, "ulimit -v"},    {EMFILE, XI_E_NOMEM, "ulimit -n"}, {ENFILE, XI_E_NOMEM, "fs.file-max"},
               {EAGAIN, XI_E_NOMEM, "ulimit -u"},     {EACCES, XI_E_ACCESS, ""},      {EPERM, XI_E_ACCESS, ""},
               {ENOENT, XI_E_NOENT, ""},              {EINTR, XI_E_INTR, ""},         {EIO, XI_E_SYSTEM, ""}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        ck_assert_int_eq(xi_fail_errno(all[i].number, "cannot do it"), all[i].error);
        says("cannot do it: ", all[i].error);
        says(strerror(all[i].number), all[i].error);
        says(all[i].advice, all[i].error);
    }
    ck_assert_str_eq(xi_error_name(0), "XI_OK");
    ck_assert_str_eq(xi_error_name(XI_E_STALE), "XI_E_STALE");
    ck_assert_str_eq(xi_error_name(XI_E_STALE - 1), "XI_E_SYSTEM");
    ck_assert_str_eq(xi_error_name(1), "XI_OK");
    ck_assert_ptr_null(strstr(xi_error_text(XI_E_CLOSED), "cannot do it")); /* of another error than the latest */
}
END_TEST

int main(void) {
    Suite *s = suite_create("names");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, forget_environment, NULL);
    tcase_add_test(t, namespaces);
    tcase_add_test(t, channels);
    tcase_add_test(t, places);
    tcase_add_test(t, files);
    tcase_add_test(t, the_runtime_folder);
    tcase_add_test(t, the_open_folder);
    tcase_add_test(t, errors_of_the_system);
    suite_add_tcase(s, t);
    return run_suite(s);
}
