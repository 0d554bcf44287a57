/* SPDX-License-Identifier: MIT */
/*
 * For the build that counts what ran (CMakeLists.txt puts this before each file
 * that may end so): _exit() leaves out what exit() does, writing the counts too.
 * A process of a test that ends in this way would have run nothing.
 */
#ifndef XI_TESTS_COUNTED_EXIT_H
#define XI_TESTS_COUNTED_EXIT_H

#include <unistd.h>

void __gcov_dump(void); /* libgcov's */

__attribute__((noreturn, unused)) static void counted_exit(int status) {
    __gcov_dump();
    _exit(status);
}
#define _exit counted_exit

#endif
