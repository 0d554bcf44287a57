/* SPDX-License-Identifier: MIT */
/* The send of small values, in line: what streaming senders spend their time in. log.c has the general case. */
#ifndef XI_CHANNEL_LOG_H
#define XI_CHANNEL_LOG_H

#include "channel.h"

/*
 * A look without the group's lock may be at a head that has moved on, and then
 * read, as a header, a word that a sender is writing: what it says is thrown away
 * or found out under the lock. So payload is written in aligned words; only a
 * thread sanitizer must be told that they are atomic.
 */
static inline void xi_copy_in(void *to, const void *from, size_t n) {
#if defined(__SANITIZE_THREAD__)
    const uint64_t *f = from;
    for (size_t i = 0; i < n / 8; i++) xi_store_relaxed((_Atomic uint64_t *)to + i, f[i]);
#else
    copy_words(to, from, n);
#endif
}

XI_INLINE void xi_log_publish(const struct xi_view *v, uint64_t w, const struct xi_record *r, uint16_t seq) {
    uint32_t length = xi_record_length(r);
    xi_copy_in(v->ring + (w & v->mask) + 8, r->payload, r->length);
    if (r->extra_length) xi_copy_in(v->ring + (w & v->mask) + 8 + r->length, r->extra, r->extra_length);
    xi_store_relaxed(xi_header_at(v, w + 8 + length), 0);
    /* THE SEND. Pairs with the receiver's acquire load of the header: payload and the zero behind it come first. */
    xi_store_release(xi_header_at(v, w), XI_REC(length, r->kind, r->flags, seq));
}

#define XI_WRITE_AHEAD 256

/*
 * Under the producers' lock: appends values, each small enough and a multiple of 8, up to n in a row. Returns how many; 0:
 * closed, full, or not as usual, which xi_log_append() tells. One look at the counters and one store of the tail for all.
 */
XI_INLINE size_t xi_log_append_run(struct xi_channel *ch, const void *const *values, const size_t *sizes, size_t n) {
    struct xi_chan *c = ch->chan;
    bool at_ring = xi_load_relaxed(&c->ring) == xi_view_word(&ch->send_view);
    const struct xi_view v = ch->send_view; /* a copy: for all the compiler knows a store into the ring could change the other */
    uint64_t stored = xi_load_relaxed(&c->tail), seq = xi_load_relaxed(&c->tail_seq), floor_ = xi_load_relaxed(&c->min_head);
    uint64_t w = stored;
    size_t done = 0;
    if (__builtin_expect(xi_load_relaxed(&c->closed) != 0 || !at_ring ||
                             xi_load_relaxed(&c->active) == 0 || (w & 7) != 0, 0))
        return 0;
    for (; done < n; done++) {
        uint64_t used = w - floor_;
        if (__builtin_expect(sizes[done] > ch->fast_max || used > v.capacity ||
                                 used + 8 + sizes[done] + 8 > v.capacity, 0))
            break;
        struct xi_record r = {values[done], (uint32_t)sizes[done], XI_REC_INLINE, 0, 0, NULL, NULL};
        xi_log_publish(&v, w, &r, (uint16_t)(seq + done + 1));
        xi_prefetch_write(v.ring + (w & v.mask) + XI_WRITE_AHEAD);
        w += 8 + sizes[done];
    }
    if (__builtin_expect(done == 0, 0)) return 0;
    /* Release: neither may be seen before the headers that it counts (a repair reads them in that order). */
    xi_store_release(&c->tail_seq, seq + done);
    xi_store_release(&c->tail, w);
    xi_bump(&ch->sent, done);
    return done;
}

#endif
