/* SPDX-License-Identifier: MIT */
/* Making, opening, mapping and checking segments: the only file that does so, for the library and the broker. */
#ifndef XI_WIRE_SEGMENT_H
#define XI_WIRE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

/* A mapped segment. For channels and rings it is followed by the ring's second mapping (see xi_map_channel). */
struct xi_map {
    void *base;
    size_t size;     /* of the segment */
    size_t mapped;   /* address space taken; more than size for channels and rings */
    bool bare;       /* of a channel: when it was mapped its ring was not backed by memory */
    struct xi_segment head; /* the copy that was checked */
};

/* What a segment must be to be accepted; 0: any. */
struct xi_expect {
    uint32_t kind;
    uint32_t number;
    uint64_t epoch;
    uint64_t size;
};

/*
 * Makes a segment: named (shm_open, exclusive) or, if `name` is NULL, a memfd. Reserves all of `size`
 * (posix_fallocate), writes `head`, and returns the descriptor in *fd. Leaves nothing behind on error.
 * Errors: NOSPACE, NOMEM, ACCESS, SYSTEM.
 */
int xi_segment_make(const char *name, const struct xi_segment *head, int *fd);
/* As xi_segment_make, but only the first `reserve` bytes are; whoever is to use the rest reserves it before. */
int xi_segment_make_sparse(const char *name, const struct xi_segment *head, uint64_t reserve, int *fd);
/* As that, and `first` is the head with all that is to lie behind it: `reserve` bytes, which one write backs and fills. */
int xi_segment_make_filled(const char *name, const struct xi_segment *first, uint64_t reserve, int *fd);
/* Reserves bytes that lie within it. A signal makes it begin anew: so not too many at a time. Errors: NOSPACE, NOMEM,
 * SYSTEM. */
int xi_segment_reserve(int fd, uint64_t from, uint64_t length);
/* Opens a named one. XI_E_NOENT if it is gone. */
int xi_segment_open(const char *name, bool writable, int *fd);
/* Maps all of `fd`, after checking its real size and head against each other and `expect`. Does not close fd.
 * Errors: CORRUPT (it is not what it should be), NOMEM. */
int xi_segment_map(int fd, bool writable, bool populate, const struct xi_expect *expect, struct xi_map *out);
/* The static fields of struct xi_chan: written by who makes the channel, copied and checked once by who maps it. */
struct xi_chan_fixed {
    uint64_t id, capacity, ring_offset;
    uint32_t mode, inline_max;
    uint64_t max_values, grow_max;
    int64_t ttl_ns;
    uint32_t retain, when_full;
    char dead[80];
};
/* Puts them where they lie in a channel that nobody has yet. */
void xi_fill_channel(const struct xi_chan_fixed *fixed, struct xi_chan *chan);
/* Checks a copy of what a channel of `size` bytes begins with, as far as `dead`. Errors: CORRUPT. */
int xi_check_channel(const struct xi_chan *chan, uint64_t size, const struct xi_expect *expect, struct xi_chan_fixed *fixed);
/*
 * As xi_segment_map for XI_SEG_CHANNEL, with the ring mapped twice in a row; checks the static fields of xi_chan and
 * copies them to *fixed, if that is not NULL. A ring that is not backed by memory (out->bare) must not be touched before
 * xi_map_back(). With `looks` it may be: zeros lie there then, which are nobody's, until xi_map_ring_in().
 */
int xi_map_channel(int fd, bool looks, const struct xi_expect *expect, struct xi_map *out, struct xi_chan_fixed *fixed);
/*
 * Backs the ring of a channel that was mapped bare. It may be done by several at once, and cut short by a death: what is
 * there stays. Errors: NOSPACE, NOMEM, SYSTEM.
 */
int xi_map_back(const struct xi_map *map);
/* For who looks: puts the ring in its place, if it is backed by now; else it stays as it is. Errors: NOMEM, SYSTEM. */
int xi_map_ring_in(int fd, struct xi_map *map);
/* As xi_segment_map for XI_SEG_RING of channel `chan_id`: the ring lies twice in a row behind the first page. It must be
 * backed by memory in full. Errors: CORRUPT, NOMEM. */
int xi_map_ring(int fd, uint64_t chan_id, const struct xi_expect *expect, struct xi_map *out);
void xi_unmap(struct xi_map *map);
/* Marks it gone, gives its pages back at once (readers keep a readable mapping; of a channel its ring's, of a table of deliveries
 * none), unlinks it. `kind`: 0 is what its head says. Idempotent. */
void xi_segment_remove(const char *name, int fd_or_minus_1, uint32_t kind);

#endif
