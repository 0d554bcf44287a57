/* SPDX-License-Identifier: MIT */
/*
 * The segments that this process has mapped: one table, so that two handles to
 * a channel, or a hundred values from one peer, share a mapping.
 *
 * A mapping is counted by its users. Peers' arenas and mailboxes stay mapped
 * without users, for the next value, until the broker has marked them gone.
 */
#ifndef XI_ARENA_MAPS_H
#define XI_ARENA_MAPS_H

#include <stdatomic.h>
#include <stdbool.h>

#include "../wire/segment.h"

struct xi_interp;

struct xi_map_entry {
    struct xi_map map;
    struct xi_map release; /* of an arena: its release words, always writable */
    struct xi_chan_fixed *fixed; /* of a channel: its static fields, as they were checked */
    uint64_t epoch;
    uint32_t number;
    bool writable, kept;   /* kept: stays mapped without users */
    _Atomic bool bare;     /* of a channel: its ring is yet to be backed by memory */
    atomic_uint users;
    struct xi_map_entry *next;
};

/* Peers' arena: data read-only, release words writable. Counts one user. Errors: NOENT (gone), CORRUPT, NOMEM, BROKER. */
int xi_maps_arena(struct xi_interp *me, uint32_t number, struct xi_map_entry **out);
/* Any arena, one's own too, for the sake of its release words. */
int xi_maps_release(struct xi_interp *me, uint32_t number, struct xi_map_entry **out);
int xi_maps_mailbox(struct xi_interp *me, uint32_t number, struct xi_map_entry **out);
/* From descriptors just received; closes neither. `release_fd` -1 for channels. Counts one user. */
int xi_maps_own_arena(struct xi_interp *me, uint32_t number, int fd, int release_fd, struct xi_map_entry **out);
int xi_maps_channel(struct xi_interp *me, uint32_t number, int fd, struct xi_map_entry **out);
/* Backs a channel's ring with memory, if it is not: before it is touched. Errors: NOSPACE, NOMEM, SYSTEM. */
int xi_maps_back(struct xi_map_entry *e);
/* A ring of this channel; `fd` -1: opened by its number. Counts one user. Errors: NOENT (gone), CORRUPT, NOMEM, BROKER. */
int xi_maps_ring(struct xi_interp *me, uint32_t number, uint64_t chan_id, int fd, struct xi_map_entry **out);
/* Likewise the table of a group that acknowledges; what it says of itself is for the caller to check. */
int xi_maps_acks(struct xi_interp *me, uint32_t number, int fd, struct xi_map_entry **out);
void xi_maps_put(struct xi_map_entry *e);
/* Unmaps what has no users and belongs to `epoch`. */
void xi_maps_forget(uint64_t epoch);
/* In a forked child, whose mappings are not there: starts with an empty table. */
void xi_maps_forked(void);

#endif
