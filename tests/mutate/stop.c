/* SPDX-License-Identifier: MIT */
/*
 * Linked into unit tests with -Wl,--wrap=_ck_assert_failed: the first assertion
 * that fails ends the program, so that a mutant costs no more than it must.
 * _exit(): what the mutant has done to this process is not to be torn down.
 */
#include <stdio.h>
#include <unistd.h>

void __wrap__ck_assert_failed(const char *file, int line, const char *expression, const char *message, ...);

void __wrap__ck_assert_failed(const char *file, int line, const char *expression, const char *message, ...) {
    (void)message;
    fprintf(stderr, "%s:%d: %s\n", file, line, expression);
    _exit(1);
}
