/* SPDX-License-Identifier: MIT */
/*
 * The operations of the library, in a form in which any of them can be tried
 * under faults: what comes before, the call itself, and what is true afterwards.
 * A scene is one process's share of it; every operation uses what it needs.
 */
#ifndef XI_TEST_FAULT_OPS_H
#define XI_TEST_FAULT_OPS_H

#include <pthread.h>
#include <stdatomic.h>

#include "harness.h"

#define FAULT_PREFIX "f." /* names of all channels made here begin with it */
#define SCENE_MSGS 8

struct scene {
    const char *ns;
    xi_interp *me, *peer; /* who does it, and another one in the same process */
    xi_channel *ch;       /* the handle that it is done with */
    xi_channel *other;    /* one of the peer, or a second one */
    xi_msg msg[SCENE_MSGS];
    xi_loan loan[2];
    xi_set *set;
    xi_observer *observer;
    xi_pending pending;
    xi_msg *kept;         /* many messages */
    size_t kept_count;
    uint32_t free_index;
    int freed;            /* calls of the free function */
    int fd;
    pid_t victim;         /* a broker that was killed */
    pid_t stranger;       /* a process that waits for its values to be done with */
    pthread_t helper;
    bool helped;
    _Atomic bool over;
    int64_t number;       /* of this case: nobody else's */
};

/* Codes that an operation may return, as a mask. */
#define CODE(error) (1u << -(error))

enum op_flags {
    OP_ONCE = 1,     /* cannot be repeated: what it was to end has ended */
    OP_APART = 2,    /* each time in a namespace of its own, without a broker in the beginning */
    OP_FORKS = 4,    /* is done in a forked child of the process that prepared */
    OP_SLOW = 8      /* for XI_TEST_LONG */
};

struct operation {
    const char *name;
    void (*prepare)(struct scene *s); /* must not fail: nothing does yet */
    int64_t (*act)(struct scene *s);  /* the calls that may: 0 or more, or the error */
    void (*verify)(struct scene *s);  /* after success; may be NULL */
    uint32_t flags;
    uint32_t may; /* codes beside those of the fault's own */
};
extern const struct operation operations[];
extern const unsigned operation_count;
extern const struct operation spoilt[]; /* that must be found out when malloc() fails */
extern const unsigned spoilt_count;

void scene_begin(struct scene *s, const char *ns, int64_t number);
/* Gives back and leaves everything. */
void scene_end(struct scene *s);

#endif
