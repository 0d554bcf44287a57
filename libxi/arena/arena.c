/* SPDX-License-Identifier: MIT */
/*
 * See arena.h. All of it is private bookkeeping under one mutex; shared memory is
 * touched in two places: a block's release words are set when it is handed out,
 * and read when it may have come back.
 */
#include "arena.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../interp/interp.h"
#include "../wait/sleep.h"
#include "../wire/order.h"
#include "maps.h"

static const uint32_t class_size[XI_CLASSES] = {1024,  2048,  3072,  4096,  6144,
                                                8192, 12288, 16384, 24576, 32768};
#define SMALL_MAX 32768u
#define SEGMENT_FIRST ((size_t)1 << 20)
#define SEGMENT_MOST ((size_t)64 << 20)
#define LARGE_CACHE_BYTES ((size_t)64 << 20)
#define IDLE_NS 1000000000ll
#define LOOK_OTHERS 4

static unsigned class_of(size_t size) {
    unsigned c = 0;
    while (class_size[c] < size) c++;
    return c;
}

int xi_arena_init(struct xi_arena *a) {
    memset(a, 0, sizeof *a);
    pthread_mutex_init(&a->mutex, NULL);
    return 0;
}

/* ------------------------------------------------------------- pages */

static void partial_add(struct xi_arena *a, struct xi_apage *p) {
    p->prev = NULL;
    p->next = a->partial[p->class_];
    if (p->next) p->next->prev = p;
    a->partial[p->class_] = p;
}

static void partial_remove(struct xi_arena *a, struct xi_apage *p) {
    if (p->prev) p->prev->next = p->next;
    else a->partial[p->class_] = p->next;
    if (p->next) p->next->prev = p->prev;
    p->prev = p->next = NULL;
}

static uint32_t granule_of(uint32_t page, size_t offset) {
    return (uint32_t)((XI_PAGE + (size_t)page * XI_APAGE + offset) / XI_GRANULE);
}

static void pages_take(struct xi_asegment *s, uint32_t at, uint32_t n) {
    s->free_pages -= n;
    s->idle_since = 0;
    if (at == s->first_free) s->first_free = at + n;
}

static void pages_give(struct xi_asegment *s, uint32_t at, uint32_t n) {
    for (uint32_t i = at; i < at + n; i++) s->page[i].use = XI_APAGE_FREE;
    s->free_pages += n;
    if (at < s->first_free) s->first_free = at;
    if (s->free_pages == s->pages) s->idle_since = xi_now();
}

/* First fit of `n` pages in a row. */
static bool pages_find(const struct xi_asegment *s, uint32_t n, uint32_t *at) {
    if (s->free_pages < n) return false;
    uint32_t run = 0;
    for (uint32_t i = s->first_free; i < s->pages; i++) {
        if (s->page[i].use != XI_APAGE_FREE) {
            run = 0;
            i += s->page[i].use == XI_APAGE_LARGE ? s->page[i].run - 1 : 0;
        } else if (++run == n) {
            *at = i + 1 - n;
            return true;
        }
    }
    return false;
}

static struct xi_asegment *find_pages(struct xi_arena *a, uint32_t n, uint32_t *at) {
    for (struct xi_asegment *s = a->segments; s; s = s->next)
        if (pages_find(s, n, at)) return s;
    return NULL;
}

static void block_place(struct xi_block *b, struct xi_asegment *s, uint32_t page, size_t offset, size_t size) {
    memset(b, 0, sizeof *b);
    b->segment = s;
    b->page = page;
    b->granule = granule_of(page, offset);
    b->size = size;
}

/* Makes a free page serve class c; false when there is no page (grow) or (*error set) no private memory. */
static bool page_make_small(struct xi_arena *a, unsigned c, int *error) {
    uint32_t at, n = (uint32_t)(XI_APAGE / class_size[c]);
    struct xi_asegment *s = find_pages(a, 1, &at);
    if (!s) return false;
    struct xi_block *blocks = malloc(n * sizeof *blocks);
    if (!blocks) {
        *error = xi_fail(XI_E_NOMEM, "no memory for the records of %u blocks", n);
        return false;
    }
    struct xi_apage *p = &s->page[at];
    *p = (struct xi_apage){.use = XI_APAGE_SMALL, .class_ = (uint8_t)c, .blocks = blocks, .segment = s};
    for (uint32_t i = n; i-- > 0;) {
        block_place(&blocks[i], s, at, (size_t)i * class_size[c], class_size[c]);
        blocks[i].next = p->free;
        p->free = &blocks[i];
    }
    pages_take(s, at, 1);
    partial_add(a, p);
    return true;
}

static void page_drop_small(struct xi_arena *a, struct xi_apage *p) {
    partial_remove(a, p);
    free(p->blocks);
    p->blocks = p->free = NULL;
    pages_give(p->segment, (uint32_t)(p - p->segment->page), 1);
}

static struct xi_block *take_small(struct xi_arena *a, unsigned c, int *error) {
    if (!a->partial[c] && !page_make_small(a, c, error)) return NULL;
    struct xi_apage *p = a->partial[c];
    struct xi_block *b = p->free;
    p->free = b->next;
    p->used++;
    if (!p->free) partial_remove(a, p);
    return b;
}

static void give_small(struct xi_arena *a, struct xi_block *b) {
    struct xi_apage *p = &b->segment->page[b->page];
    bool was_full = !p->free;
    b->next = p->free;
    p->free = b;
    p->used--;
    if (was_full) partial_add(a, p);
    /* The last page of a class stays, so that one block going to and fro does not make and drop a page each time. */
    if (p->used == 0 && (p->next || p->prev)) page_drop_small(a, p);
}

static void drop_large(struct xi_block *b) {
    struct xi_asegment *s = b->segment;
    struct xi_apage *p = &s->page[b->page];
    p->blocks = NULL;
    pages_give(s, b->page, p->run);
    free(b);
}

static struct xi_block *large_cached(struct xi_arena *a, size_t size) {
    for (unsigned i = a->large_count; i-- > 0;) {
        struct xi_block *b = a->large[i];
        if (b->size < size || b->size - size > b->size / 4 + XI_APAGE) continue;
        a->large[i] = a->large[--a->large_count];
        return b;
    }
    return NULL;
}

static void large_cache_flush(struct xi_arena *a) {
    while (a->large_count) drop_large(a->large[--a->large_count]);
}

static struct xi_block *take_large(struct xi_arena *a, size_t size, int *error) {
    struct xi_block *b = large_cached(a, size);
    if (b) return b;
    uint32_t at, n = (uint32_t)((size + XI_APAGE - 1) / XI_APAGE);
    struct xi_asegment *s = find_pages(a, n, &at);
    if (!s && a->large_count) {
        large_cache_flush(a);
        s = find_pages(a, n, &at);
    }
    if (!s) return NULL;
    b = malloc(sizeof *b);
    if (!b) {
        *error = xi_fail(XI_E_NOMEM, "no memory for a block's record");
        return NULL;
    }
    block_place(b, s, at, 0, (size_t)n * XI_APAGE);
    for (uint32_t i = at; i < at + n; i++) s->page[i] = (struct xi_apage){.use = XI_APAGE_LARGE_REST, .segment = s};
    s->page[at].use = XI_APAGE_LARGE;
    s->page[at].run = n;
    s->page[at].blocks = b;
    pages_take(s, at, n);
    return b;
}

static void give_large(struct xi_arena *a, struct xi_block *b) {
    size_t cached = 0;
    for (unsigned i = 0; i < a->large_count; i++) cached += a->large[i]->size;
    if (a->large_count < XI_LARGE_CACHE && cached + b->size <= LARGE_CACHE_BYTES)
        a->large[a->large_count++] = b;
    else
        drop_large(b);
}

/* ------------------------------------------------- blocks that are out */

static void out_add(struct xi_arena *a, struct xi_block *b) {
    b->next = NULL;
    b->prev = a->last;
    if (a->last) a->last->next = b;
    else a->first = b;
    a->last = b;
    a->out++;
}

static void out_remove(struct xi_arena *a, struct xi_block *b) {
    if (a->cursor == b) a->cursor = b->next;
    if (b->prev) b->prev->next = b->next;
    else a->first = b->next;
    if (b->next) b->next->prev = b->prev;
    else a->last = b->prev;
    a->out--;
}

/* New life: nobody with an older generation can touch these words any more. */
static void release_words_reset(struct xi_block *b) {
    struct xi_asegment *s = b->segment;
    b->generation = s->generation = s->generation % XI_GENERATION_MAX + 1;
    struct xi_release *r = &s->release[b->granule];
    for (int i = 0; i < 4; i++) xi_store_relaxed(&r->word[i], b->generation << 16);
}

/* True if every group is done with it; then nobody can join at it any more (wire/layout.h, "Release words"). */
static bool released_by_all(const struct xi_block *b) {
    if (atomic_load_explicit(&b->state, memory_order_acquire) != XI_BLOCK_SENT) return false;
    struct xi_release *r = &b->segment->release[b->granule];
    uint64_t all = XI_RELEASE_ALL(b->generation), seen = all;
    /* Pairs with the compare-and-swap of the reader's release: its reads of the block are over. */
    for (int i = 0; i < 4; i++)
        if (xi_load_acquire(&r->word[i]) != all) return false;
    if (!xi_cas64_full(&r->word[0], &seen, XI_RELEASE_CLOSED)) return false;
    /* Pairs with claim() in history.c, which clears a bit and then looks at the first word: one of us sees the other. */
    for (int i = 1; i < 4; i++)
        if (xi_load_full(&r->word[i]) != all) {
            xi_store_release(&r->word[0], all);
            return false;
        }
    return true;
}

/* Back to its page. Caller holds the mutex; `b` is in no list. */
static void put_back(struct xi_interp *me, struct xi_block *b) {
    struct xi_arena *a = &me->arena;
    for (struct xi_block *c = b->children, *next; c; c = next) {
        next = c->sibling;
        put_back(me, c);
    }
    b->children = b->sibling = NULL;
    atomic_store_explicit(&b->state, b->holds ? XI_BLOCK_HELD : XI_BLOCK_FREE, memory_order_relaxed);
    if (b->holds) return; /* for xi_arena_unhold() */
    xi_store_relaxed(&me->own->counters.blocks, xi_load_relaxed(&me->own->counters.blocks) - 1);
    if (b->size <= SMALL_MAX) give_small(a, b);
    else give_large(a, b);
}

static bool reclaim_one(struct xi_interp *me, struct xi_block *b) {
    if (!released_by_all(b)) return false;
    if (b->free_index && !xi_free_enqueue(me, b->free_index, b->free_argument)) { /* no memory: it stays as it is */
        xi_store_release(&b->segment->release[b->granule].word[0], XI_RELEASE_ALL(b->generation));
        return false;
    }
    out_remove(&me->arena, b);
    put_back(me, b);
    return true;
}

static void reclaim_locked(struct xi_interp *me, size_t budget) {
    struct xi_arena *a = &me->arena;
    size_t n = 0;
    while (n < budget && a->first && reclaim_one(me, a->first)) n++;
    size_t others = budget == SIZE_MAX ? a->out : LOOK_OTHERS;
    if (atomic_load_explicit(&a->debt, memory_order_relaxed) && others < 64) others = 64;
    if (others > a->out) others = a->out;
    for (size_t i = 0; i < others && a->first; i++) {
        if (!a->cursor) a->cursor = a->first;
        struct xi_block *b = a->cursor;
        a->cursor = b->next;
        (void)reclaim_one(me, b);
        if (atomic_load_explicit(&a->debt, memory_order_relaxed)) atomic_fetch_sub_explicit(&a->debt, 1, memory_order_relaxed);
    }
    if (!a->out) atomic_store_explicit(&a->debt, 0, memory_order_relaxed);
}

void xi_arena_reclaim(struct xi_interp *me, size_t budget) {
    struct xi_arena *a = &me->arena;
    pthread_mutex_lock(&a->mutex);
    if (a->out) reclaim_locked(me, budget);
    pthread_mutex_unlock(&a->mutex);
}

void xi_arena_owe(struct xi_interp *me) {
    struct xi_arena *a = &me->arena;
    pthread_mutex_lock(&a->mutex);
    atomic_store_explicit(&a->debt, a->out, memory_order_relaxed);
    reclaim_locked(me, 64);
    pthread_mutex_unlock(&a->mutex);
}

/* ------------------------------------------------------------ segments */

static void segment_add(struct xi_interp *me, struct xi_asegment *s) {
    struct xi_arena *a = &me->arena;
    pthread_mutex_lock(&a->mutex);
    s->next = a->segments;
    a->segments = s;
    a->bytes += s->entry->map.size + s->entry->release.size;
    xi_store_relaxed(&me->own->counters.arena_bytes, a->bytes);
    pthread_mutex_unlock(&a->mutex);
}

/* As much as there is already, within bounds. */
static size_t next_segment_size(struct xi_arena *a) {
    pthread_mutex_lock(&a->mutex);
    size_t bytes = a->bytes;
    pthread_mutex_unlock(&a->mutex);
    return bytes < SEGMENT_FIRST ? SEGMENT_FIRST : bytes > SEGMENT_MOST ? SEGMENT_MOST : bytes;
}

static int grow(struct xi_interp *me, size_t need) {
    size_t size = next_segment_size(&me->arena);
    size_t pages = ((need > size ? need : size) + XI_APAGE - 1) / XI_APAGE;
    struct xi_request req;
    struct xi_reply reply;
    int fds[2];
    xi_request_init(&req, XI_OP_ARENA);
    req.a = XI_PAGE + pages * XI_APAGE;
    req.b = xi_control_number(me);
    int rc = xi_control_call(me, &req, &reply, fds, 2);
    xi_control_number_end(me, (uint32_t)req.b, rc);
    if (rc) return rc;
    struct xi_map_entry *e = NULL;
    struct xi_asegment *s = NULL;
    rc = fds[0] < 0 || fds[1] < 0 ? xi_fail(XI_E_BROKER, "the broker answered without descriptors; it may be out of them")
                                  : xi_maps_own_arena(me, (uint32_t)reply.a, fds[0], fds[1], &e);
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0) close(fds[i]);
    if (rc == 0) {
        pages = (e->map.size - XI_PAGE) / XI_APAGE;
        s = calloc(1, sizeof *s + pages * sizeof s->page[0]);
        if (!s) rc = xi_fail(XI_E_NOMEM, "no memory for the records of an arena segment");
    }
    if (rc) {
        if (e) xi_maps_put(e);
        (void)xi_control_give_back(me, (uint32_t)reply.a, true);
        return rc;
    }
    s->entry = e;
    s->data = e->map.base;
    s->release = ((struct xi_release_table *)e->release.base)->release;
    s->number = (uint32_t)reply.a;
    s->pages = s->free_pages = (uint32_t)pages;
    for (size_t i = 0; i < pages; i++) s->page[i].segment = s;
    s->idle_since = xi_now();
    segment_add(me, s);
    return 0;
}

static struct xi_block *take(struct xi_interp *me, size_t size, int *error) {
    struct xi_arena *a = &me->arena;
    struct xi_block *b = size <= SMALL_MAX ? take_small(a, class_of(size), error) : take_large(a, size, error);
    if (!b) return NULL;
    b->children = b->sibling = NULL;
    b->free_index = 0;
    release_words_reset(b);
    atomic_store_explicit(&b->state, XI_BLOCK_LOANED, memory_order_relaxed);
    out_add(a, b);
    xi_bump(&me->own->counters.blocks, 1);
    xi_bump(&me->own->counters.loans, 1);
    return b;
}

int xi_arena_alloc(struct xi_interp *me, size_t size, struct xi_block **out) {
    struct xi_arena *a = &me->arena;
    if (size > XI_ARENA_MAX / 2) return xi_fail(XI_E_TOOBIG, "a block of %zu bytes is more than an arena can hold", size);
    for (int attempt = 0;; attempt++) {
        int error = 0;
        pthread_mutex_lock(&a->mutex);
        reclaim_locked(me, attempt ? SIZE_MAX : 2); /* everything, before more memory is asked for */
        struct xi_block *b = take(me, size, &error);
        bool tick = (++a->ticks & 1023) == 0;
        pthread_mutex_unlock(&a->mutex);
        if (tick) xi_arena_trim(me, xi_now());
        if (b) {
            *out = b;
            return 0;
        }
        if (error) return error;
        if (attempt == 0) continue;
        int rc = grow(me, size);
        if ((rc == XI_E_NOSPACE || rc == XI_E_QUOTA) && attempt == 1) { /* our own empty segments may be in the way */
            xi_arena_trim(me, INT64_MAX);
            rc = grow(me, size);
        }
        if (rc) return rc;
        if (attempt > 8) return xi_fail(XI_E_NOMEM, "other threads take the arena's memory faster than it grows");
    }
}

void xi_arena_free(struct xi_interp *me, struct xi_block *b) {
    struct xi_arena *a = &me->arena;
    pthread_mutex_lock(&a->mutex);
    if (atomic_load(&b->state) != XI_BLOCK_CHILD) out_remove(a, b);
    put_back(me, b);
    pthread_mutex_unlock(&a->mutex);
}

void xi_arena_attach(struct xi_interp *me, struct xi_block *root, struct xi_block *child) {
    struct xi_arena *a = &me->arena;
    pthread_mutex_lock(&a->mutex);
    out_remove(a, child);
    atomic_store_explicit(&child->state, XI_BLOCK_CHILD, memory_order_relaxed);
    child->sibling = root->children;
    root->children = child;
    pthread_mutex_unlock(&a->mutex);
}

struct xi_block *xi_arena_detach(struct xi_interp *me, struct xi_block *root, uint32_t segment, uint32_t granule,
                                 uint64_t generation) {
    struct xi_arena *a = &me->arena;
    struct xi_block *found = NULL;
    pthread_mutex_lock(&a->mutex);
    for (struct xi_block **p = &root->children; *p; p = &(*p)->sibling)
        if ((*p)->segment->number == segment && (*p)->granule == granule && (*p)->generation == generation) {
            found = *p;
            *p = found->sibling;
            found->sibling = NULL;
            atomic_store_explicit(&found->state, XI_BLOCK_LOANED, memory_order_relaxed);
            out_add(a, found);
            break;
        }
    pthread_mutex_unlock(&a->mutex);
    return found;
}

void xi_arena_hold(struct xi_interp *me, struct xi_block *b) {
    pthread_mutex_lock(&me->arena.mutex);
    b->holds++;
    pthread_mutex_unlock(&me->arena.mutex);
}

void xi_arena_unhold(struct xi_interp *me, struct xi_block *b) {
    pthread_mutex_lock(&me->arena.mutex);
    if (--b->holds == 0 && atomic_load_explicit(&b->state, memory_order_relaxed) == XI_BLOCK_HELD) put_back(me, b);
    pthread_mutex_unlock(&me->arena.mutex);
}

void xi_arena_mark_sent(struct xi_block *b, uint64_t groups, uint32_t free_index, uint64_t argument) {
    struct xi_release *r = &b->segment->release[b->granule];
    b->free_index = free_index;
    b->free_argument = argument;
    /* Relaxed: readers learn of the block through the record, whose header is the release; we through `state`. */
    for (int i = 0; i < 4; i++) xi_store_relaxed(&r->word[i], b->generation << 16 | (~groups >> (16 * i) & 0xffff));
    /* Pairs with the acquire in released_by_all(). */
    atomic_store_explicit(&b->state, XI_BLOCK_SENT, memory_order_release);
}

static struct xi_asegment *take_idle(struct xi_arena *a, int64_t before) {
    for (struct xi_asegment **p = &a->segments, *s; (s = *p); p = &s->next)
        if (s->free_pages == s->pages && s->idle_since < before) {
            *p = s->next;
            a->bytes -= s->entry->map.size + s->entry->release.size;
            return s;
        }
    return NULL;
}

static void drop_idle_pages(struct xi_arena *a) {
    for (unsigned c = 0; c < XI_CLASSES; c++)
        for (struct xi_apage *p = a->partial[c], *next; p; p = next) {
            next = p->next;
            if (p->used == 0) page_drop_small(a, p);
        }
}

void xi_arena_trim(struct xi_interp *me, int64_t now) {
    struct xi_arena *a = &me->arena;
    for (;;) {
        pthread_mutex_lock(&a->mutex);
        if (now == INT64_MAX || a->out == 0) {
            large_cache_flush(a);
            drop_idle_pages(a);
        }
        struct xi_asegment *s = take_idle(a, now == INT64_MAX ? now : now - IDLE_NS);
        xi_store_relaxed(&me->own->counters.arena_bytes, a->bytes);
        pthread_mutex_unlock(&a->mutex);
        if (!s) return;
        if (!xi_control_give_back(me, s->number, false)) { /* not now: keep it, for use or for later */
            segment_add(me, s);
            return;
        }
        xi_maps_put(s->entry);
        free(s);
    }
}

void xi_arena_deinit(struct xi_interp *me) {
    struct xi_arena *a = &me->arena;
    large_cache_flush(a);
    for (struct xi_asegment *s = a->segments, *next; s; s = next) {
        next = s->next;
        for (uint32_t i = 0; i < s->pages; i++) {
            if (s->page[i].use == XI_APAGE_SMALL || s->page[i].use == XI_APAGE_LARGE) free(s->page[i].blocks);
        }
        if (xi_alive(me)) xi_maps_put(s->entry);
        free(s);
    }
    a->segments = NULL;
    pthread_mutex_destroy(&a->mutex);
}
