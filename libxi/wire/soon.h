/* SPDX-License-Identifier: MIT */
/*
 * Whether to look for the next packet on a control socket or to sleep until it comes. A wake of a processor that idles
 * takes 25 to 60 us here, and a request with its answer two of them, which is more than all that lies between. Who asks
 * often asks again at once, so both sides look for as long as a wake of the other and its work take, but only where the
 * last packet came so soon. Both have to: one that looks for less long than the other's wake takes never sees what it
 * looks for, and both go on sleeping.
 *
 * Where it is in vain (one processor for both, a busy machine) the times that it is left out double, up to 63.
 */
#ifndef XI_WIRE_SOON_H
#define XI_WIRE_SOON_H

#include <stdbool.h>
#include <stdint.h>

#include "order.h"

#define XI_SOON_SPINS 3 /* of the longest spin for a value: 150 us */

struct xi_soon {
    int64_t limit;       /* ns; 0: never */
    bool was;            /* the last packet came within it */
    unsigned vain, skip; /* times to leave it out after the last that was in vain; of them yet to come */
};

/* Between two looks, which are system calls: they would take the other's socket, and the core's other thread, from it. */
static inline void xi_soon_pause(void) {
    for (int i = 0; i < 32; i++) xi_pause();
}

/* How long to look, ns; 0: sleep. */
static inline int64_t xi_soon(struct xi_soon *s) {
    if (!s->was) return 0;
    if (s->skip == 0) return s->limit;
    s->skip--;
    return 0;
}

/* A packet came after `waited` ns. `looked`: it was looked for; `hit`: and seen by that, before any sleep. */
static inline void xi_soon_came(struct xi_soon *s, int64_t waited, bool looked, bool hit) {
    s->was = waited <= s->limit;
    if (!looked) return;
    s->vain = hit ? 0 : s->vain < 32 ? s->vain * 2 + 1 : 63;
    s->skip = s->vain;
}

#endif
