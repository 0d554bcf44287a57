/* SPDX-License-Identifier: MIT */
/* What the files of `xi doctor` share: findings and their count. */
#ifndef XI_COMMAND_DOCTOR_H
#define XI_COMMAND_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

enum finding {
    FINDING_OK,
    FINDING_NOTE, /* works, but one may want to know */
    FINDING_BAD   /* something fails, or is left over, until somebody acts */
};

struct doctor {
    bool fix, force;
    const char *ns; /* look at this namespace only; NULL: at all */
    size_t bad;
};

/* One line: mark, what was looked at, what was found. */
void found(struct doctor *d, enum finding finding, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Indented below it: what to do. */
void advise(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* doctor_host.c: kernel, limits, CPUs, folders. */
void doctor_host(struct doctor *d);
/* doctor_open.c: namespaces that are open to other users. */
void doctor_open(struct doctor *d);
/* doctor_shm.c: namespaces, their brokers, and what is left over in /dev/shm. */
void doctor_shm(struct doctor *d);

#endif
