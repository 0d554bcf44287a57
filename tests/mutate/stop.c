/* SPDX-License-Identifier: MIT */
/*
 * Linked into the tests of mutants. With -Wl,--wrap=_ck_assert_failed the first
 * assertion that fails ends the program, so that a mutant costs no more than it
 * must. And a mutex that is unlocked though nobody has locked it ends it too: a
 * lock that is left out is else seen only by chance.
 *
 * XI_MUTANT_TESTS names the functions that are run, with blanks between; "?"
 * prints the names of all, and nothing is run.
 *
 * _exit(): what the mutant has done to this process is not to be torn down.
 */
#include <check.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void __wrap__ck_assert_failed(const char *file, int line, const char *expression, const char *message, ...);

void __wrap__ck_assert_failed(const char *file, int line, const char *expression, const char *message, ...) {
    (void)message;
    fprintf(stderr, "%s:%d: %s\n", file, line, expression);
    _exit(1);
}

int pthread_mutex_unlock(pthread_mutex_t *m) {
    static int (*_Atomic next)(pthread_mutex_t *m);
    int (*unlock)(pthread_mutex_t *m) = next;
    if (!unlock) *(void **)&unlock = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    next = unlock;
    if (m->__data.__owner == 0) { /* of a forked child's it may be the parent's thread */
        fprintf(stderr, "a mutex that nobody has locked is unlocked\n");
        _exit(1);
    }
    return unlock(m);
}

void __real__tcase_add_test(TCase *tcase, const TTest *test, int signal, int status, int begin, int end);
void __wrap__tcase_add_test(TCase *tcase, const TTest *test, int signal, int status, int begin, int end);

void __wrap__tcase_add_test(TCase *tcase, const TTest *test, int signal, int status, int begin, int end) {
    const char *wanted = getenv("XI_MUTANT_TESTS");
    if (wanted && strcmp(wanted, "?") == 0) {
        puts(test->name);
        return;
    }
    size_t n = strlen(test->name);
    for (const char *at = wanted; at; at = strchr(at, ' '), at = at ? at + 1 : NULL)
        if (strncmp(at, test->name, n) == 0 && (at[n] == ' ' || at[n] == '\0')) wanted = NULL;
    if (!wanted) __real__tcase_add_test(tcase, test, signal, status, begin, end);
}
