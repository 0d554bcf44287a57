/* SPDX-License-Identifier: MIT */
/*
 * The broker's hands: makes, maps, finds and removes segments, and writes the
 * registry. It carries out what the core (state.h) decided and decides nothing.
 *
 * Order of stores, so that a broker may die at any instruction and the next one
 * can adopt: numbers and ids are taken in the registry before they are used; a
 * segment is whole before an entry names it; an entry is cleared before what it
 * names is removed. Whatever a death leaves over is then a segment that no entry
 * owns, and the adoption removes it.
 *
 * Mappings are made when repair or a look needs them, and kept in the order of
 * use; world_trim() unmaps what is beyond a small number, so that an idle broker
 * is small whatever the namespace holds. Pointers into mappings are valid until
 * the next world_trim().
 *
 * Errors are enum xi_error with a sentence in xi_error_text(), as in libxi/wire.
 */
#ifndef XI_BROKER_WORLD_H
#define XI_BROKER_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "repair.h"
#include "state.h"
#include "table.h"
#include "wire/segment.h"

struct seg {
    uint32_t number, kind, slot;
    uint64_t size;
    uint64_t channel; /* id of the channel that a ring belongs to */
    int fd; /* of a memfd; else -1, or that of the one that was mapped last */
    struct xi_map map;
    struct seg *newer, *older; /* mapped ones, by use */
};

struct world {
    char ns[32];
    uid_t uid;
    bool memfd;
    uint64_t epoch;
    int registry_fd;
    struct xi_registry *registry; /* mapped at its largest size */
    uint64_t registry_size;       /* backed */
    struct table segs;            /* number to struct seg * */
    struct seg *newest, *oldest;
    uint32_t mapped;
    struct seg *last; /* of those with names, the one that is open; NULL: none */
    uint32_t mailbox_of[XI_MAX_INTERPS]; /* by slot; 0: none */
    struct xi_opened *opened; /* in a namespace that is open to other users */
    uint32_t about_channel;   /* what is being repaired there: index + 1 of a channel, or 0; */
    uint32_t about_slot;      /* or what this interpreter had borrowed */
    struct xi_world repair;
    const struct state *st; /* for repair, which finds channels by their segments */
};

/* Makes a namespace from nothing. `open_to`: the others who may join (only with `memfd`), or NULL. */
int world_create(struct world *w, const char *ns, uid_t uid, bool memfd, const struct xi_access *open_to);
/*
 * Takes over the namespace of a dead broker into `st`, removing what nobody owns. 1: adopted; 0: there is nothing;
 * 2: nothing that can be adopted (the reason is logged, the leftovers are removed); after either, create one. Negative:
 * an error that create would meet too. A namespace of memfds is there if a keeper has handed it on (keep.h).
 */
int world_adopt(struct world *w, const char *ns, uid_t uid, struct state *st);
/* Removes everything of the namespace from /dev/shm. Segments of living interpreters are unlinked, not emptied. */
void world_remove_all(struct world *w, const struct state *st);
void world_deinit(struct world *w);

/* Carrying out actions. `made` gets the descriptors, to send and close. */
int world_make_interp(struct world *w, const struct state *st, uint32_t slot, const struct xi_request *q, int made[2]);
int world_make_channel(struct world *w, const struct state *st, uint32_t index, const struct xi_request *q, int *made);
int world_make_arena(struct world *w, const struct state *st, uint32_t slot, uint32_t number, uint64_t size,
                     int made[2]);
int world_make_borrows(struct world *w, const struct state *st, uint32_t slot, uint32_t number, uint64_t size,
                       int *made);
int world_make_part(struct world *w, const struct state *st, uint32_t index, uint32_t number, uint64_t size,
                    const struct xi_request *q, int *made);
/*
 * True if the channel does not use this ring of it, and never will. Whoever filled it may live and be about to use it: we
 * say `gone` in its head and then look at the channel; it names the ring in the channel and then looks at `gone`. So one of
 * the two sees what the other did, and gives way.
 */
bool world_ring_idle(struct world *w, const struct chan *ch, uint32_t number);
void world_remove(struct world *w, uint32_t number, bool empty_it);
void world_publish_slot(struct world *w, const struct state *st, uint32_t slot);
void world_publish_channel(struct world *w, const struct state *st, uint32_t index);
/* How many may send and receive, in the channel itself; rings whoever sleeps on it where that is nobody. */
void world_tell_peers(struct world *w, const struct state *st, uint32_t index);
/* Rings whoever may have sent a request on the channel and sleeps, to learn that nobody will take it. */
void world_ring_callers(struct world *w, const struct state *st, uint32_t index);
void world_clear_channel(struct world *w, uint32_t index);
/* What interpreters have opened, for a broker that comes after this one. */
void world_note_opened(struct world *w, uint32_t slot, uint32_t index, uint32_t rights);
uint32_t world_opened(const struct world *w, uint32_t slot, uint32_t index);
void world_forget_opened(struct world *w, const struct state *st, uint32_t index);
void world_set_slot(struct world *w, uint32_t slot, enum xi_slot_state state);
/* Sets the flag in the mailbox of `slot` and rings whoever of it sleeps. */
void world_flag(struct world *w, uint32_t slot, uint32_t flag);
/* The mailbox of a living interpreter, or NULL; and: it lives no more, nobody is to ring in it. */
struct xi_mailbox *world_mailbox(struct world *w, uint32_t slot);
void world_forget_mailbox(struct world *w, uint32_t slot);

/* A new descriptor of a segment (0: the registry), to send and close. */
int world_open(struct world *w, uint32_t number, bool writable, int *fd);
/* What repair wants. False or NULL when it is gone or not what it should be. */
bool world_view(struct world *w, const struct chan *ch, struct xi_chan_view *view);
/* Whether a channel that nobody has open is empty, by reading it through its descriptor, which costs less than to map it.
 * False: that does not tell (it is mapped already, or its ring is elsewhere). */
bool world_glance(struct world *w, const struct chan *ch, bool *empty);
/* Whether somebody could still open it: its head, which members may have overwritten since it was mapped, can be. */
bool world_sound(struct world *w, const struct chan *ch);
/* A part of a channel that keeps account of deliveries, if it is one and is this channel's. */
struct xi_acks *world_acks(struct world *w, uint32_t number, uint32_t chan_seg, uint64_t *window);
/* Borrow tables of an interpreter; *chunks of them in a static array, valid until the next call. */
const struct xi_borrow_view *world_borrows(struct world *w, const struct interp *in, size_t *chunks);
/* The counter `blocks` of a living interpreter's own segment. */
uint64_t world_blocks(struct world *w, const struct interp *in);
/* Whether its process has written there that it knows of its joining. */
bool world_joined(struct world *w, const struct interp *in);
/* True if its process has surely let go of what it had mapped as this interpreter: it goes on as another program (execve). */
bool world_left_behind(struct world *w, const struct interp *in);
void world_trim(struct world *w);

/* Private to world.c and adopt.c. */
struct seg *world_know(struct world *w, uint32_t number, uint32_t kind, uint32_t slot, uint64_t size, int fd);
int world_map(struct world *w, struct seg *s);
int world_map_registry(struct world *w);
#define OPENED_NUMBER 1u /* of the XI_SEG_OPENED; others begin at 2, and go up by two */
int world_map_opened(struct world *w, int fd);
void world_name(const struct world *w, char *out, uint32_t number);

#endif
