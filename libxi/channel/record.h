/* SPDX-License-Identifier: MIT */
/*
 * Reading one record of a ring whose bytes any member may have written: each
 * number is copied once, checked here, and only then used. What receiving in all
 * kinds of groups has in common.
 */
#ifndef XI_CHANNEL_RECORD_H
#define XI_CHANNEL_RECORD_H

#include "../wire/bounds.h"
#include "channel.h"

/* Bytes of the value, or of the descriptor: the payload without what the flags say follows. Of a valid header. */
static inline uint32_t xi_record_value(uint64_t h) { return XI_REC_LENGTH(h) - XI_REC_EXTRA(h); }

static inline bool xi_header_valid(const struct xi_channel *ch, uint64_t h) {
    uint32_t length = XI_REC_LENGTH(h), extra = XI_REC_EXTRA(h);
    if (length < 8 + extra || length % 8 != 0 || XI_REC_FLAGS(h) & ~XI_REC_F_ALL) return false;
    return XI_REC_KIND(h) == XI_REC_INLINE ? length - extra <= ch->inline_max : XI_REC_IS_BLOCK(h);
}

/* True if the time of the record at `position`, which has this valid header, is over. */
static inline bool xi_record_expired(const struct xi_view *v, uint64_t position, uint64_t h) {
    if (__builtin_expect(!(XI_REC_FLAGS(h) & XI_REC_F_EXPIRY), 1)) return false;
    return (uint64_t)xi_now() > xi_load_relaxed(xi_header_at(v, position + XI_REC_LENGTH(h)));
}

static inline void xi_descriptor_read(const struct xi_view *v, uint64_t position, struct xi_descriptor *d) {
    uint64_t w[4];
    for (unsigned i = 0; i < 4; i++) w[i] = xi_load_relaxed(xi_header_at(v, position + 8 + 8 * i)); /* once */
    static_assert(sizeof w == sizeof *d, "a descriptor is four words");
    memcpy(d, w, sizeof *d);
}

static inline bool xi_descriptor_valid(const struct xi_descriptor *d, const struct xi_map *map) {
    return d->size >= 8 && d->size % 8 == 0 && xi_block_inside(d->granule, XI_GRANULE, XI_PAGE, d->size, map->size) &&
           d->generation != 0 && d->generation <= XI_GENERATION_MAX;
}

/*
 * Maps the segment that a record names, for which a system call may be needed:
 * so without a lock. 0 with *entry, or with NULL for a descriptor that cannot be
 * (or names a segment that has gone since the record was received); an error is
 * one of this process.
 */
static inline int xi_descriptor_map(struct xi_channel *ch, const struct xi_descriptor *d, struct xi_map_entry **entry) {
    *entry = NULL;
    if (d->segment == 0 || d->segment & 1) return 0;
    int rc = xi_maps_arena(ch->interp, d->segment, entry);
    if (rc == XI_E_NOENT || rc == XI_E_CORRUPT) {
        *entry = NULL;
        return 0;
    }
    if (rc == 0 && !xi_descriptor_valid(d, &(*entry)->map)) {
        xi_maps_put(*entry);
        *entry = NULL;
    }
    return rc;
}

/* Copies the value of the inline record at `position`, whose header is valid, into the message's memory. */
static inline int xi_take_inline(const struct xi_view *v, xi_msg *m, uint64_t position, uint64_t h) {
    uint32_t length = xi_record_value(h);
    void *where;
    int rc = xi_msg_room(m, length, &where);
    if (rc) return rc;
    copy_words(where, xi_payload_at(v, position), length);
    m->data = where;
    m->size = length;
    return 0;
}

#endif
