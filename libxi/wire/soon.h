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

#define XI_SOON_SPINS 3 /* of the longest spin for a value, */
#define XI_SOON_MOST_NS 150000 /* and no longer however long that is: what does not come by then comes by a sleep as well */

struct xi_soon {
    int64_t limit;       /* ns; 0: never */
    bool was;            /* the last packet came within it */
    unsigned vain, skip; /* times to leave it out after the last that was in vain; of them yet to come */
};

/*
 * Between two looks, which are system calls: they would take the other's socket, and the core's other thread, from it. So
 * there are some fifty of them: the first soon, the later ones some 2.5 us apart. *pauses: 0 before the first.
 */
static inline void xi_soon_pause(unsigned *pauses) {
    *pauses = *pauses == 0 ? 16 : *pauses < 64 ? *pauses * 2 : 64;
    for (unsigned i = 0; i < *pauses; i++) xi_pause();
}

/* `spin`: the longest for a value, ns. */
static inline int64_t xi_soon_limit(int64_t spin) {
    return spin < XI_SOON_MOST_NS / XI_SOON_SPINS ? spin * XI_SOON_SPINS : XI_SOON_MOST_NS;
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
