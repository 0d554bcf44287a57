/* SPDX-License-Identifier: MIT */
/*
 * See maps.h. Opening and mapping are done without the mutex; whoever comes
 * second to insert the same segment throws its own mapping away.
 *
 * With XI_ONE_MAPPING every segment is mapped once in a process, writable,
 * whoever asks: what a thread sanitizer needs to see two interpreters in one
 * process share memory.
 */
#include "maps.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../error.h"
#include "../interp/interp.h"
#include "../wire/names.h"
#include "../wire/order.h"

#ifdef XI_ONE_MAPPING
#define ONE_MAPPING true
#else
#define ONE_MAPPING false
#endif

#define BUCKETS 1024u
#define POPULATE_MAX ((uint64_t)64 << 20)

static struct xi_map_entry *table[BUCKETS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static struct xi_map_entry **bucket(uint64_t epoch, uint32_t number) {
    return &table[(number / 2 * 2654435761u ^ (uint32_t)epoch) % BUCKETS];
}

static struct xi_map_entry *find(uint64_t epoch, uint32_t number, bool writable) {
    for (struct xi_map_entry *e = *bucket(epoch, number); e; e = e->next)
        if (e->number == number && e->epoch == epoch && e->writable == writable) return e;
    return NULL;
}

static void destroy(struct xi_map_entry *e) {
    xi_unmap(&e->map);
    xi_unmap(&e->release);
    free(e->fixed);
    free(e);
}

static bool is_gone(const struct xi_map_entry *e) {
    /* Advice of the broker, in a page that is mapped for sure; pairs with nothing: being late is harmless. */
    return xi_load_relaxed(&((struct xi_segment *)e->map.base)->gone) != 0;
}

/* Unlinks what nobody uses and is either gone or, with `all`, of this epoch. Returns them as a list. */
static struct xi_map_entry *unlink_unused(uint64_t epoch, bool all) {
    struct xi_map_entry *list = NULL;
    for (uint32_t i = 0; i < BUCKETS; i++)
        for (struct xi_map_entry **p = &table[i], *e; (e = *p);) {
            bool out = atomic_load(&e->users) == 0 && e->epoch == epoch && (all || is_gone(e));
            if (!out) {
                p = &e->next;
                continue;
            }
            *p = e->next;
            e->next = list;
            list = e;
        }
    return list;
}

static void destroy_all(struct xi_map_entry *list) {
    while (list) {
        struct xi_map_entry *next = list->next;
        destroy(list);
        list = next;
    }
}

/* Puts `e` in, or finds that somebody else was first and returns theirs. Either way one user is counted. */
static struct xi_map_entry *insert(struct xi_map_entry *e) {
    pthread_mutex_lock(&mutex);
    struct xi_map_entry *old = find(e->epoch, e->number, e->writable), *dead = NULL;
    if (old) {
        atomic_fetch_add(&old->users, 1);
    } else {
        dead = unlink_unused(e->epoch, false);
        struct xi_map_entry **b = bucket(e->epoch, e->number);
        e->next = *b;
        *b = e;
    }
    pthread_mutex_unlock(&mutex);
    destroy_all(dead);
    if (!old) return e;
    destroy(e);
    return old;
}

static struct xi_map_entry *lookup(const struct xi_interp *me, uint32_t number, bool writable) {
    pthread_mutex_lock(&mutex);
    struct xi_map_entry *e = find(me->epoch, number, writable || ONE_MAPPING);
    if (e) atomic_fetch_add(&e->users, 1);
    pthread_mutex_unlock(&mutex);
    return e;
}

static struct xi_map_entry *entry_new(const struct xi_interp *me, uint32_t number, bool writable, bool kept) {
    struct xi_map_entry *e = calloc(1, sizeof *e);
    if (!e) {
        (void)xi_fail(XI_E_NOMEM, "no memory for a mapping");
        return NULL;
    }
    e->epoch = me->epoch;
    e->number = number;
    e->writable = writable || ONE_MAPPING;
    e->kept = kept;
    atomic_init(&e->users, 1);
    return e;
}

/* A descriptor of a segment: by name, or from the broker where segments have none. fds[1]: an arena's release words. */
static int open_segment(struct xi_interp *me, uint32_t number, bool writable, bool arena, int fds[2]) {
    char name[XI_SHM_NAME_MAX];
    fds[0] = fds[1] = -1;
    if (me->registry->flags & XI_NS_MEMFD) {
        struct xi_request req;
        struct xi_reply reply;
        for (unsigned i = 0; i < (arena ? 2u : 1u); i++) {
            xi_request_init(&req, XI_OP_SEGMENT);
            req.a = number + i;
            int rc = xi_control_call(me, &req, &reply, &fds[i], 1);
            if (rc) return rc;
        }
        return 0;
    }
    xi_shm_segment_name(name, me->place.uid, me->place.ns, me->epoch, number);
    int rc = xi_segment_open(name, writable || ONE_MAPPING, &fds[0]);
    if (rc || !arena) return rc;
    xi_shm_segment_name(name, me->place.uid, me->place.ns, me->epoch, number + 1);
    return xi_segment_open(name, true, &fds[1]);
}

static int map_arena(struct xi_interp *me, struct xi_map_entry *e, int fd, int release_fd, bool populate_all) {
    struct xi_expect expect = {.kind = XI_SEG_ARENA, .number = e->number, .epoch = me->epoch};
    struct xi_segment head;
    bool small = pread(fd, &head, sizeof head, 0) == (ssize_t)sizeof head && head.size <= POPULATE_MAX;
    int rc = xi_segment_map(fd, e->writable, populate_all || small, &expect, &e->map);
    if (rc) return rc;
    expect = (struct xi_expect){.kind = XI_SEG_RELEASE, .number = e->number + 1, .epoch = me->epoch};
    rc = xi_segment_map(release_fd, true, true, &expect, &e->release);
    if (rc) return rc;
    if (e->release.size < XI_RELEASE_SIZE(e->map.size))
        return xi_fail(XI_E_CORRUPT, "the release words of segment %08x are too few", e->number);
    return 0;
}

int xi_maps_arena(struct xi_interp *me, uint32_t number, struct xi_map_entry **out) {
    struct xi_map_entry *e = lookup(me, number, false);
    if (e) {
        *out = e;
        return 0;
    }
    int fds[2], rc = open_segment(me, number, false, true, fds);
    if (rc == 0) {
        e = entry_new(me, number, false, true);
        rc = e ? map_arena(me, e, fds[0], fds[1], false) : XI_E_NOMEM;
    }
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0) close(fds[i]);
    if (rc) {
        if (e) destroy(e);
        return rc;
    }
    *out = insert(e);
    return 0;
}

int xi_maps_release(struct xi_interp *me, uint32_t number, struct xi_map_entry **out) {
    struct xi_map_entry *e = lookup(me, number, true); /* as its owner has it mapped */
    if (!e || !e->release.base) {
        if (e) xi_maps_put(e);
        return xi_maps_arena(me, number, out);
    }
    *out = e;
    return 0;
}

int xi_maps_mailbox(struct xi_interp *me, uint32_t number, struct xi_map_entry **out) {
    struct xi_map_entry *e = lookup(me, number, true);
    if (e) {
        *out = e;
        return 0;
    }
    int fds[2], rc = open_segment(me, number, true, false, fds);
    if (rc == 0) {
        struct xi_expect expect = {.kind = XI_SEG_MAILBOX, .number = number, .epoch = me->epoch};
        e = entry_new(me, number, true, true);
        rc = e ? xi_segment_map(fds[0], true, true, &expect, &e->map) : XI_E_NOMEM;
        if (rc == 0 && e->map.size < XI_MAILBOX_SIZE) rc = xi_fail(XI_E_CORRUPT, "mailbox %08x is too small", number);
        close(fds[0]);
    }
    if (rc) {
        if (e) destroy(e);
        return rc;
    }
    *out = insert(e);
    return 0;
}

int xi_maps_own_arena(struct xi_interp *me, uint32_t number, int fd, int release_fd, struct xi_map_entry **out) {
    struct xi_map_entry *e = entry_new(me, number, true, false);
    int rc = e ? map_arena(me, e, fd, release_fd, true) : XI_E_NOMEM;
    if (rc) {
        if (e) destroy(e);
        return rc;
    }
    *out = insert(e);
    return 0;
}

int xi_maps_channel(struct xi_interp *me, uint32_t number, int fd, struct xi_map_entry **out) {
    struct xi_map_entry *e = lookup(me, number, true);
    if (e) {
        *out = e;
        return 0;
    }
    struct xi_expect expect = {.kind = XI_SEG_CHANNEL, .number = number, .epoch = me->epoch};
    e = entry_new(me, number, true, false);
    int rc = e ? 0 : XI_E_NOMEM;
    if (e && !(e->fixed = calloc(1, sizeof *e->fixed))) rc = xi_fail(XI_E_NOMEM, "no memory for a mapping");
    if (rc == 0) rc = xi_map_channel(fd, false, &expect, &e->map, e->fixed);
    if (rc) {
        if (e) destroy(e);
        return rc;
    }
    atomic_init(&e->bare, e->map.bare);
    *out = insert(e);
    return 0;
}

int xi_maps_back(struct xi_map_entry *e) {
    if (!atomic_load_explicit(&e->bare, memory_order_acquire)) return 0;
    int rc = xi_map_back(&e->map); /* two threads at once do no harm */
    if (rc == 0) atomic_store_explicit(&e->bare, false, memory_order_release);
    return rc;
}

int xi_maps_ring(struct xi_interp *me, uint32_t number, uint64_t chan_id, int fd, struct xi_map_entry **out) {
    struct xi_map_entry *e = lookup(me, number, true);
    if (e) {
        if (e->map.head.kind == XI_SEG_RING && ((struct xi_ring_head *)e->map.base)->chan_id == chan_id) {
            *out = e;
            return 0;
        }
        xi_maps_put(e);
        return xi_fail(XI_E_CORRUPT, "segment %08x is no ring of this channel", number);
    }
    int fds[2] = {-1, -1}, rc = fd < 0 ? open_segment(me, number, true, false, fds) : 0;
    if (rc == 0) {
        struct xi_expect expect = {.kind = XI_SEG_RING, .number = number, .epoch = me->epoch};
        e = entry_new(me, number, true, false);
        rc = e ? xi_map_ring(fd < 0 ? fds[0] : fd, chan_id, &expect, &e->map) : XI_E_NOMEM;
    }
    if (fds[0] >= 0) close(fds[0]);
    if (rc) {
        if (e) destroy(e);
        return rc;
    }
    *out = insert(e);
    return 0;
}

int xi_maps_acks(struct xi_interp *me, uint32_t number, int fd, struct xi_map_entry **out) {
    struct xi_map_entry *e = lookup(me, number, true);
    if (e) {
        if (e->map.head.kind == XI_SEG_ACKS) {
            *out = e;
            return 0;
        }
        xi_maps_put(e);
        return xi_fail(XI_E_CORRUPT, "segment %08x is no table of deliveries", number);
    }
    int fds[2] = {-1, -1}, rc = fd < 0 ? open_segment(me, number, true, false, fds) : 0;
    if (rc == 0) {
        struct xi_expect expect = {.kind = XI_SEG_ACKS, .number = number, .epoch = me->epoch};
        e = entry_new(me, number, true, false);
        rc = e ? xi_segment_map(fd < 0 ? fds[0] : fd, true, false, &expect, &e->map) : XI_E_NOMEM;
    }
    if (fds[0] >= 0) close(fds[0]);
    if (rc) {
        if (e) destroy(e);
        return rc;
    }
    *out = insert(e);
    return 0;
}

void xi_maps_put(struct xi_map_entry *e) {
    if (e->kept) { /* the table may unmap it any time from now */
        atomic_fetch_sub(&e->users, 1);
        return;
    }
    pthread_mutex_lock(&mutex);
    bool last = atomic_fetch_sub(&e->users, 1) == 1;
    if (last) {
        struct xi_map_entry **p = bucket(e->epoch, e->number);
        while (*p != e) p = &(*p)->next;
        *p = e->next;
    }
    pthread_mutex_unlock(&mutex);
    if (last) destroy(e);
}

void xi_maps_forget(uint64_t epoch) {
    pthread_mutex_lock(&mutex);
    struct xi_map_entry *list = unlink_unused(epoch, true);
    pthread_mutex_unlock(&mutex);
    destroy_all(list);
}

void xi_maps_forked(void) {
    pthread_mutex_init(&mutex, NULL);
    for (uint32_t i = 0; i < BUCKETS; i++)
        while (table[i]) { /* handles of the parent's life do not touch their entries any more */
            struct xi_map_entry *next = table[i]->next;
            free(table[i]->fixed);
            free(table[i]);
            table[i] = next;
        }
    /* The mappings themselves were not inherited (MADV_DONTFORK), but for arenas' data, which views may need. */
}
