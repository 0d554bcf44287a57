/* SPDX-License-Identifier: MIT */
/*
 * Which two processors the sides run on, and what these are to each other: two
 * cores, or two hardware threads of one, which no two figures may be compared
 * over. Pure functions of what the kernel says of them; pair.c asks it.
 */
#ifndef XI_BENCH_PLACE_H
#define XI_BENCH_PLACE_H

#include <stdbool.h>

/* UNKNOWN: a virtual machine's host may change it at any moment, whatever it says; only a round trip tells. */
enum place_pair { PLACE_UNKNOWN, PLACE_APART, PLACE_SIBLINGS };

/* True if a list of processors as the kernel writes them ("0-1,8\n") names this one. NULL is an empty list. */
bool place_in_list(const char *list, int cpu);
/* The first of n >= 2 processors, and the first other one that is no thread of its core; the second if all are. `siblings`: the
 * kernel's list of those threads, NULL where it says nothing. */
void place_choose(const int *cpus, int n, const char *siblings, int chosen[2]);
enum place_pair place_pair_of(const char *siblings, int other, bool virtual_machine);
/* True unless /proc/cpuinfo, of which this is the beginning, says what the processor can do, and not that there is a hypervisor. */
bool place_is_virtual(const char *cpuinfo);

#endif
