/* SPDX-License-Identifier: MIT */
/*
 * The borrow table: what this interpreter holds of others' blocks, in shared
 * memory so that the broker can give it back after a death. Which entries are
 * free is known here alone.
 */
#include <stdlib.h>
#include <unistd.h>

#include "interp.h"

#define CHUNK_FIRST ((uint64_t)65536) /* bytes of the second chunk; each further one is twice as large */

/* Adds a chunk's entries to the free stack. Caller holds the mutex, or is alone. */
static int add_chunk(struct xi_borrows *b, struct xi_borrow *entries, uint32_t count, const struct xi_map *map) {
    uint32_t *stack = realloc(b->free, (b->total + count) * sizeof *stack);
    if (!stack) return xi_fail(XI_E_NOMEM, "no memory to keep account of %u borrows", b->total + count);
    b->free = stack;
    uint32_t c = b->chunks++;
    b->chunk[c].entries = entries;
    b->chunk[c].count = count;
    b->chunk[c].base = b->total;
    if (map) b->chunk[c].map = *map;
    for (uint32_t i = count; i-- > 0;) b->free[b->free_count++] = b->total + i;
    b->total += count;
    return 0;
}

int xi_borrows_init(struct xi_interp *me) {
    struct xi_borrows *b = &me->borrows;
    pthread_mutex_init(&b->mutex, NULL);
    return add_chunk(b, me->own->borrows, (uint32_t)XI_BORROWS_IN(me->own_map.size, sizeof(struct xi_own)), NULL);
}

void xi_borrows_deinit(struct xi_interp *me) {
    struct xi_borrows *b = &me->borrows;
    if (xi_alive(me))
        for (uint32_t c = 1; c < b->chunks; c++) xi_unmap(&b->chunk[c].map);
    free(b->free);
    b->free = NULL;
    pthread_mutex_destroy(&b->mutex);
}

static int grow(struct xi_interp *me) {
    struct xi_borrows *b = &me->borrows;
    struct xi_request req;
    struct xi_reply reply;
    struct xi_map map;
    int fd;
    pthread_mutex_lock(&b->mutex);
    uint32_t chunks = b->chunks;
    pthread_mutex_unlock(&b->mutex);
    if (chunks >= XI_BORROW_CHUNKS)
        return xi_fail(XI_E_LIMIT, "%u received values are held at once; release some", b->total);
    xi_request_init(&req, XI_OP_BORROWS);
    req.a = CHUNK_FIRST << (chunks - 1 < 8 ? chunks - 1 : 8);
    req.b = xi_control_number(me);
    int rc = xi_control_call(me, &req, &reply, &fd, 1);
    xi_control_number_end(me, (uint32_t)req.b, rc);
    if (rc) return rc;
    struct xi_expect expect = {.kind = XI_SEG_BORROWS, .number = (uint32_t)reply.a, .epoch = me->epoch};
    rc = fd < 0 ? xi_fail(XI_E_BROKER, "the broker answered without a descriptor; it, or this process, may be out of them")
                : xi_segment_map(fd, true, true, &expect, &map);
    if (fd >= 0) close(fd);
    if (rc) {
        (void)xi_control_give_back(me, (uint32_t)reply.a, true);
        return rc;
    }
    struct xi_borrow_chunk *chunk = map.base;
    pthread_mutex_lock(&b->mutex);
    bool full = b->chunks >= XI_BORROW_CHUNKS;
    rc = full ? 0 : add_chunk(b, chunk->borrows, (uint32_t)XI_BORROWS_IN(map.size, sizeof *chunk), &map);
    pthread_mutex_unlock(&b->mutex);
    if (rc || full) {
        xi_unmap(&map);
        (void)xi_control_give_back(me, (uint32_t)reply.a, true);
    }
    return rc;
}

int xi_borrow_take(struct xi_interp *me, uint32_t *index) {
    struct xi_borrows *b = &me->borrows;
    for (;;) {
        pthread_mutex_lock(&b->mutex);
        bool got = b->free_count > 0;
        if (got) {
            *index = b->free[--b->free_count];
            xi_bump(&me->own->counters.borrows, 1);
        }
        pthread_mutex_unlock(&b->mutex);
        if (got) return 0;
        int rc = grow(me);
        if (rc) return rc;
    }
}

struct xi_borrow *xi_borrow_at(struct xi_interp *me, uint32_t index) {
    struct xi_borrows *b = &me->borrows;
    uint32_t c = 0;
    /* A chunk, once there, stays where it is; an index that somebody holds lies in one that is there. */
    while (index - b->chunk[c].base >= b->chunk[c].count) c++;
    return &b->chunk[c].entries[index - b->chunk[c].base];
}

void xi_borrow_drop(struct xi_interp *me, uint32_t index) {
    struct xi_borrows *b = &me->borrows;
    /* After the release word, so that a death in between only sets the bit again. Pairs with the broker's look at it. */
    struct xi_borrow *entry = xi_borrow_at(me, index);
    xi_store_release(&entry->key, 0);
    xi_store_relaxed(&entry->call, 0); /* a block's, until it is said to be a call's */
    pthread_mutex_lock(&b->mutex);
    b->free[b->free_count++] = index;
    xi_store_relaxed(&me->own->counters.borrows, xi_load_relaxed(&me->own->counters.borrows) - 1);
    pthread_mutex_unlock(&b->mutex);
}
