/* SPDX-License-Identifier: MIT */
/*
 * After a death (or a leave, which is the same): repairs what the dead left in
 * shared memory, and later finds out when nobody names its blocks any more.
 * What each step does is in repair.h; here is when, and in what pieces.
 *
 * Repair of one interpreter: what it was moving between channels, its channels, then its borrows, then what was delivered to it and is not
 * acknowledged and the groups that end with it (which wait for living holders of a lock, with backoff), then
 * the bells of the living; then EVENT_REPAIRED. "Its channels" are those that it
 * has ever opened; after an adoption that is not known, and they are all.
 *
 * A channel that is removed by name is ended here too, as such groups are.
 *
 * A sweep marks from the channels that orphans sent on, then from the borrows of
 * everybody else, and posts EVENT_UNNAMED for orphans of which nothing is named.
 * It runs after each death, and while orphans are left again with backoff.
 *
 * Both work in slices of two milliseconds, so that a broker with ten thousand
 * channels goes on answering.
 */
#ifndef XI_BROKER_RECOVER_H
#define XI_BROKER_RECOVER_H

#include "loop.h"
#include "state.h"
#include "world.h"

struct mend;

struct sweep {
    bool active, again;
    uint64_t *channels; /* ids */
    uint32_t count, at;
    struct xi_mark_cursor cursor; /* in the channel at `at` */
    uint32_t moved;               /* times that its ring had moved when it was looked at */
    int64_t id[XI_MAX_INTERPS]; /* of the orphans judged in this sweep, by slot; 0: none */
    bool named[XI_MAX_INTERPS];
    uint32_t orphans;
    struct table blocks; /* segment << 32 | granule of those named */
    int64_t backoff;
};

/* A channel that was removed by name, and of which a living process holds a lock. */
struct ending {
    struct ending *next;
    uint64_t channel;
    int64_t due, backoff;
};

struct recover {
    struct ending *endings;
    struct timer ending_timer;
    struct state *st;
    struct world *w;
    void (*post)(void *context, const struct event *event);
    void *context;
    struct mend *mends;
    struct sweep sweep;
    struct timer mend_timer, sweep_timer;
};

void recover_init(struct recover *r, struct state *st, struct world *w, struct loop *loop,
                  void (*post)(void *context, const struct event *event), void *context);
void recover_deinit(struct recover *r);
/* `fate`: how it died; NULL: it left. */
void recover_begin(struct recover *r, uint32_t slot, const char *fate);
/* A channel was removed by name: ends its groups, then posts EVENT_ENDED. Returns how many values it held. */
uint64_t recover_end_channel(struct recover *r, uint64_t channel);
/* Begins a sweep, or one more after that under way. */
void recover_sweep(struct recover *r);
/* A whole sweep now: registry->outstanding is exact afterwards. */
void recover_sweep_now(struct recover *r);
/* After an adoption: frees the dead broker's locks, and rings for whatever has something to do. */
void recover_adopted(struct recover *r);

#endif
