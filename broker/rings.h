/* SPDX-License-Identifier: MIT */
/*
 * Rings that nobody brings home. Members do that themselves when they pass by, and
 * sleepers look once a second (libxi/channel/ring.c). But a channel whose members
 * all wait elsewhere, in an event loop say, has nobody who passes by; so the
 * broker looks once a second too, as long as any channel has a ring besides its
 * own. One in which two looks have found nothing, and the same nothing, it moves
 * home itself: there is nothing to copy.
 */
#ifndef XI_BROKER_RINGS_H
#define XI_BROKER_RINGS_H

#include "loop.h"
#include "state.h"
#include "world.h"

struct rings {
    const struct state *st;
    struct world *w;
    void (*post)(void *context, const struct event *event);
    void *context;
    struct timer timer;
    struct table drained; /* channel id to its tail, + 1, when it was last found empty */
    uint32_t at;          /* index of the channel to look at next */
};

void rings_init(struct rings *r, const struct state *st, struct world *w, struct loop *loop,
                void (*post)(void *context, const struct event *event), void *context);
void rings_deinit(struct rings *r);
/* There is a ring, or may be: begins to look. */
void rings_watch(struct rings *r);

#endif
