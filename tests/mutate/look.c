/* SPDX-License-Identifier: MIT */
/*
 * In the copy of the library: how soon a sleeper looks by itself, in ns, which
 * is a constant elsewhere (XI_LOOK_NS). XI_MUTANT_LOOK gives it in seconds.
 */
#include <stdlib.h>

extern long long xi_mutant_look;
long long xi_mutant_look = 1000000000ll;

__attribute__((constructor)) static void read_it(void) {
    const char *seconds = getenv("XI_MUTANT_LOOK");
    if (seconds) xi_mutant_look = atoll(seconds) * 1000000000ll;
}
