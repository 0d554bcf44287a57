/* SPDX-License-Identifier: MIT */
#ifndef XI_PYTHON_WARN_H
#define XI_PYTHON_WARN_H

#include "binding.h"

/* A send has waited a second for room. -1 with an exception: the filters make one of the warning. */
int warn_slow_consumer(Channel *ch);
/* This interpreter is about to leave: values that only it knows of. Leaves no exception. */
void warn_backlogs(Interp *in);
/* A loan that was neither sent nor released is about to be freed. Leaves the exception that is set, and no other. */
void warn_unsent_loan(size_t size);

/* A full collection found that loans are held still. -1 with an exception. */
typedef struct {
    uint64_t count, bytes;
    double seconds; /* the youngest of them, at least */
} Leaked;
int warn_leaked_loans(const Leaked *leaked);

#endif
