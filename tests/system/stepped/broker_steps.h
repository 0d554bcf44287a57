/* SPDX-License-Identifier: MIT */
/*
 * A broker that dies where it is told to. xi-broker-stepped is the broker's own
 * source, compiled so that each store announces itself first (what a compiler does
 * for a thread sanitizer, whose functions broker_steps.c has in its place). A step
 * is whatever somebody else can see: a store to memory that is mapped shared, or a
 * system call that makes, sizes, fills or removes a segment, a socket or a name,
 * sends an answer or a descriptor, or wakes somebody. It dies before the step with
 * the number that it is given; so dying at each step in turn is dying after each
 * one, too.
 *
 * The steps are counted in a file that tests and brokers map, whose name is in
 * XI_STEPS: over all brokers of a namespace, since a broker that takes over is one
 * that may die as well.
 */
#ifndef XI_TEST_BROKER_STEPS_H
#define XI_TEST_BROKER_STEPS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define DEATHS 2 /* of brokers, one after the other */

struct steps {
    uint64_t die_at[DEATHS];  /* the first broker dies at this step, the next so many steps later; 0: not at all */
    _Atomic uint64_t taken;   /* since the last death */
    _Atomic uint32_t deaths, brokers;
    _Atomic bool kept;        /* the process that is started is a keeper: its children alone take steps */
    _Atomic bool off;         /* nobody dies any more */
    char what[DEATHS][32];    /* the steps at which they died */
};

#endif
