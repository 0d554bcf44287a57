/* SPDX-License-Identifier: MIT */
#include "bench/place.h"

#include <stdlib.h>
#include <string.h>

bool place_in_list(const char *list, int cpu) {
    while (list && *list >= '0' && *list <= '9') {
        char *end;
        long first = strtol(list, &end, 10), last = first;
        if (*end == '-') last = strtol(end + 1, &end, 10);
        if (cpu >= first && cpu <= last) return true;
        list = *end == ',' ? end + 1 : NULL;
    }
    return false;
}

void place_choose(const int *cpus, int n, const char *siblings, int chosen[2]) {
    chosen[0] = cpus[0];
    chosen[1] = cpus[1];
    for (int i = 1; i < n; i++)
        if (!place_in_list(siblings, cpus[i])) {
            chosen[1] = cpus[i];
            return;
        }
}

enum place_pair place_pair_of(const char *siblings, int other, bool virtual_machine) {
    if (virtual_machine || !siblings) return PLACE_UNKNOWN;
    return place_in_list(siblings, other) ? PLACE_SIBLINGS : PLACE_APART;
}

bool place_is_virtual(const char *cpuinfo) {
    const char *flags = strstr(cpuinfo, "\nflags");
    if (!flags) return true;
    const char *end = strchr(flags + 1, '\n'), *found = strstr(flags, " hypervisor");
    return !end || (found && found < end);
}
