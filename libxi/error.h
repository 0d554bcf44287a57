/* SPDX-License-Identifier: MIT */
/* The text behind an error code: one buffer a thread, set where it is known what failed. */
#ifndef XI_ERROR_H
#define XI_ERROR_H

#include "xidata.h"

/* Stores the sentence for xi_error_text() and returns `error`, so that `return xi_fail(...)` reads well. */
int xi_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3), cold));
/* The enum xi_error for an errno of a call that makes or maps shared memory; `what` names it. Stores a sentence. */
int xi_fail_errno(int errnum, const char *what) __attribute__((cold));

/* The calling thread's latest sentence, kept while what failed is undone, which may fail in other ways. */
struct xi_said {
    int error;
    char text[512];
};
void xi_error_keep(struct xi_said *said);
void xi_error_restore(const struct xi_said *said);

#endif
