/* SPDX-License-Identifier: MIT */
/*
 * Messages: what a receive hands out, and how a borrowed block is given back.
 */
#include <stdlib.h>
#include <string.h>

#include "../wire/bounds.h"
#include "channel.h"

bool xi_release_bit(struct xi_map_entry *e, uint32_t granule, uint64_t generation, uint32_t group) {
    struct xi_release *table = ((struct xi_release_table *)e->release.base)->release;
    _Atomic uint64_t *word = &table[granule].word[XI_RELEASE_WORD(group)];
    uint64_t bit = XI_RELEASE_BIT(group), seen = xi_load_relaxed(word);
    /* Only ever sets, and only in the life of the block that was received. The success is a release: our reads of the
     * block come before the owner's next use of it, which acquires this word (released_by_all in arena.c). */
    for (int tries = 0; tries < XI_RELEASE_TRIES && seen >> 16 == generation && !(seen & bit); tries++)
        if (xi_cas64_full(word, &seen, seen | bit)) return true;
    return false;
}

static void end_borrow(xi_msg *m) {
    struct xi_interp *me = m->holder_;
    uint32_t group = m->group_ & 0xff;
    if (xi_alive(me)) {
        struct xi_map_entry *e = m->map_;
        if (!atomic_load_explicit(&me->left, memory_order_acquire)) {
            bool set = xi_release_bit(e, m->block_.granule, m->block_.generation, group);
            if (set && m->group_ >> 8 & XI_REC_F_FREE) xi_tell_owner(me, e->map.head.owner);
            xi_borrow_drop(me, m->borrow_ - 1);
        }
        xi_maps_put(e);
    }
    m->borrow_ = 0;
    m->data = NULL;
    m->size = 0;
    m->map_ = NULL;
    m->holder_ = NULL;
    xi_interp_drop(me);
}

void xi_msg_reset(xi_msg *m) {
    if (__builtin_expect(m->call_ != 0, 0)) {
        if (m->delivery_) xi_call_forget(m); /* it goes to the next consumer */
        else xi_call_abandon(m);
    }
    if (m->delivery_) xi_delivery_end(m);
    else if (m->borrow_) end_borrow(m);
    m->data = NULL;
    m->size = 0;
}

void xi_msg_release(xi_msg *m) {
    xi_msg_reset(m);
    free(m->heap_);
    m->heap_ = NULL;
    m->heap_size_ = 0;
}

void xi_msg_move(xi_msg *to, xi_msg *from) {
    *to = *from;
    if (from->data == from->small_) to->data = to->small_;
    *from = (xi_msg)XI_MSG_INIT;
}

int xi_msg_room(xi_msg *m, size_t n, void **where) {
    if (n <= sizeof m->small_) {
        *where = m->small_;
        return 0;
    }
    if (m->heap_size_ < n) {
        void *heap = realloc(m->heap_, n);
        if (!heap) return xi_fail(XI_E_NOMEM, "no memory for a value of %zu bytes", n);
        m->heap_ = heap;
        m->heap_size_ = n;
    }
    *where = m->heap_;
    return 0;
}

int xi_msg_buffer(const xi_msg *m, const xi_buffer_ref *ref, const void **data) {
    if (!m->borrow_) return xi_fail(XI_E_CORRUPT, "a value that lies in the ring cannot refer to blocks");
    if (!xi_alive(m->holder_)) return xi_fail_forked();
    struct xi_map_entry *mine = m->map_, *e = mine;
    if (ref->block.segment & 1 || ref->block.segment == 0 || ref->block.granule < XI_PAGE / XI_GRANULE)
        return xi_fail(XI_E_CORRUPT, "a buffer of the value names block %08x:%u, which cannot be", ref->block.segment,
                       ref->block.granule);
    if (ref->block.segment != mine->number) {
        int rc = xi_maps_arena(m->holder_, ref->block.segment, &e);
        if (rc == XI_E_NOENT) return xi_fail(XI_E_CORRUPT, "a buffer of the value names segment %08x, which is not there", ref->block.segment);
        if (rc) return rc;
        /* It stays mapped without a user: an arena is not marked gone while a block of the same owner is borrowed. */
        xi_maps_put(e);
    }
    uint64_t begin = (uint64_t)ref->block.granule * XI_GRANULE;
    if (e->map.head.owner_id != mine->map.head.owner_id || !xi_block_inside(ref->block.granule, XI_GRANULE, XI_PAGE, 0, e->map.size) ||
        !xi_range_inside(ref->offset, ref->length, e->map.size - begin))
        return xi_fail(XI_E_CORRUPT, "a buffer of the value reaches beyond segment %08x", ref->block.segment);
    *data = (const uint8_t *)e->map.base + begin + ref->offset;
    return 0;
}
