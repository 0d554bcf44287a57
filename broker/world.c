/* SPDX-License-Identifier: MIT */
/* Segments and registry; the header has the model. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "keep.h"
#include "log.h"
#include "proc.h"
#include "want.h"
#include "wire/bounds.h"
#include "wire/names.h"
#include "wire/order.h"
#include "xidata.h"

#define MAPPED_MAX 64u /* mappings kept when nothing is being done */

/* ---- mappings ---- */

static void list_remove(struct world *w, struct seg *s) {
    *(s->newer ? &s->newer->older : &w->newest) = s->older;
    *(s->older ? &s->older->newer : &w->oldest) = s->newer;
    s->newer = s->older = NULL;
}

static void list_push(struct world *w, struct seg *s) {
    s->newer = NULL;
    s->older = w->newest;
    *(w->newest ? &w->newest->newer : &w->oldest) = s;
    w->newest = s;
}

static struct seg *seg_of(const struct world *w, uint32_t number) {
    uint64_t *found = table_find(&w->segs, number);
    return found ? (struct seg *)(uintptr_t)*found : NULL;
}

struct seg *world_know(struct world *w, uint32_t number, uint32_t kind, uint32_t slot, uint64_t size, int fd) {
    struct seg *s = memory_or_die(NULL, 1, sizeof *s);
    *s = (struct seg){.number = number, .kind = kind, .slot = slot, .size = size, .fd = fd};
    *table_put(&w->segs, number) = (uintptr_t)s;
    if (kind == XI_SEG_MAILBOX) w->mailbox_of[slot] = number;
    return s;
}

static void unmap(struct world *w, struct seg *s) {
    list_remove(w, s);
    w->mapped--;
    xi_unmap(&s->map);
}

/* Named segments are opened anew when they are needed again; until nothing more is being done, the last one stays open. */
static void close_last(struct world *w) {
    if (!w->last) return;
    close(w->last->fd);
    w->last->fd = -1;
    w->last = NULL;
}

static void forget(struct world *w, struct seg *s) {
    if (s->map.base) unmap(w, s);
    if (w->last == s) close_last(w);
    if (s->fd >= 0) close(s->fd);
    if (s->kind == XI_SEG_MAILBOX && w->mailbox_of[s->slot] == s->number) w->mailbox_of[s->slot] = 0;
    table_drop(&w->segs, s->number);
    free(s);
}

void world_name(const struct world *w, char *out, uint32_t number) {
    if (number)
        xi_shm_segment_name(out, w->uid, w->ns, w->epoch, number);
    else
        xi_shm_registry_name(out, w->uid, w->ns);
}

/* Maps it writable, or marks it as just used. An error says that it is not what it was, or is gone. */
int world_map(struct world *w, struct seg *s) {
    if (s->map.base) {
        list_remove(w, s);
        list_push(w, s);
        return 0;
    }
    /* One that somebody made larger than it was could not be mapped for that reason, which is not ours. */
    struct xi_expect expect = {s->kind, s->number, w->epoch, s->size};
    int fd = s->fd, rc = 0;
    if (fd < 0) {
        char name[XI_SHM_NAME_MAX];
        world_name(w, name, s->number);
        rc = xi_segment_open(name, true, &fd);
    }
    if (rc == 0)
        rc = s->kind == XI_SEG_CHANNEL ? xi_map_channel(fd, true, &expect, &s->map, NULL)
             : s->kind == XI_SEG_RING  ? xi_map_ring(fd, s->channel, &expect, &s->map)
                                       : xi_segment_map(fd, true, false, &expect, &s->map);
    if (rc && fd >= 0 && s->fd < 0) close(fd);
    if (want_or(rc)) return rc;
    if (s->fd < 0) {
        close_last(w);
        s->fd = fd;
        w->last = s;
    }
    list_push(w, s);
    w->mapped++;
    return 0;
}

static struct seg *mapped(struct world *w, uint32_t number, uint32_t kind) {
    struct seg *s = seg_of(w, number);
    return s && s->kind == kind && world_map(w, s) == 0 ? s : NULL;
}

void world_trim(struct world *w) {
    while (w->mapped > MAPPED_MAX) unmap(w, w->oldest);
    close_last(w);
}

/* ---- what repair asks for ---- */

/*
 * Records and borrow entries are written by members, who may name there whatever they like. In an open namespace repair
 * does in their name only what they could do themselves: to those who have opened the same channel.
 */
static bool may_concern(const struct world *w, uint32_t owner, uint32_t rights) {
    if (!w->opened) return true;
    if (w->about_channel) return world_opened(w, owner, w->about_channel - 1) & rights;
    if (!w->about_slot || owner == w->about_slot) return true;
    if (w->registry->slots[owner].uid == w->registry->slots[w->about_slot].uid) return true;
    const uint64_t reads = 0x5555555555555555u * XI_ACCESS_READ;
    for (uint32_t i = 0; i < XI_MAX_CHANNELS / 32; i++) {
        uint64_t mine = xi_load_relaxed(&w->opened->word[w->about_slot][i]);
        uint64_t theirs = xi_load_relaxed(&w->opened->word[owner][i]);
        if (rights == XI_ACCESS_WRITE ? mine & theirs >> 1 & reads : mine && theirs && ((mine | mine >> 1) & (theirs | theirs >> 1) & reads))
            return true;
    }
    return false;
}

static struct xi_release *repair_release(void *context, uint32_t segment, uint32_t granule) {
    struct seg *s = segment & 1 ? NULL : mapped(context, segment + 1, XI_SEG_RELEASE);
    if (!s || !may_concern(context, s->slot, XI_ACCESS_WRITE)) return NULL;
    struct xi_release_table *table = s->map.base;
    uint64_t entries = xi_items_behind(s->map.size, sizeof *table, sizeof table->release[0]);
    return granule < entries ? &table->release[granule] : NULL;
}

static struct xi_mailbox *repair_mailbox(void *context, uint32_t slot) {
    struct world *w = context;
    struct seg *s = slot && slot < XI_MAX_INTERPS ? mapped(w, w->mailbox_of[slot], XI_SEG_MAILBOX) : NULL;
    return s && s->map.size >= XI_MAILBOX_SIZE ? s->map.base : NULL;
}

static struct xi_mailbox *repair_their_mailbox(void *context, uint32_t slot) {
    return slot && slot < XI_MAX_INTERPS && may_concern(context, slot, XI_ACCESS_BOTH) ? repair_mailbox(context, slot) : NULL;
}

static uint32_t repair_owner(void *context, uint32_t segment) {
    struct seg *s = seg_of(context, segment);
    return s && s->kind == XI_SEG_ARENA ? s->slot : 0;
}

static void repair_wake(void *context, xi_a32 *word, int count) {
    (void)context;
    syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

static struct xi_acks *repair_acks(void *context, uint32_t number, uint32_t chan_segment, uint64_t *window) {
    return world_acks(context, number, chan_segment, window);
}

static bool repair_channel(void *context, uint32_t segment, struct xi_chan_view *view) {
    struct world *w = context;
    uint64_t *found = table_find(&w->st->segments, segment); /* kind and place, see state_internal.h */
    return found && *found >> 32 == XI_SEG_CHANNEL && world_view(w, &w->st->chans[(uint32_t)*found], view);
}

/* Words in locks are members' writing. Who has never opened the channel holds none of its locks. */
static bool repair_may_hold(void *context, uint32_t segment, uint32_t slot) {
    const struct world *w = context;
    uint64_t *found = w->st ? table_find(&w->st->segments, segment) : NULL;
    if (!found || *found >> 32 != XI_SEG_CHANNEL) return true;
    const struct interp *in = &w->st->interps[slot];
    if (in->life != INTERP_LIVE && in->life != INTERP_DYING) return false;
    return in->opened_unknown || table_find(&in->handles, w->st->chans[(uint32_t)*found].id) != NULL;
}

static void set_repair(struct world *w) {
    w->repair = (struct xi_world){w,           repair_release, repair_their_mailbox, repair_owner,
                                  repair_wake, repair_acks,    repair_channel, repair_may_hold};
}

/* ---- beginning and end ---- */

int world_map_registry(struct world *w) {
    void *base = mmap(NULL, XI_REGISTRY_SIZE(XI_MAX_CHANNELS), PROT_READ | PROT_WRITE, MAP_SHARED, w->registry_fd, 0);
    if (base == MAP_FAILED) return xi_fail_errno(errno, "cannot map the registry");
    w->registry = base;
    set_repair(w);
    return 0;
}

static uint64_t draw_epoch(void) {
    uint64_t epoch = 0;
    while ((uint32_t)epoch == 0)
        if (getrandom(&epoch, sizeof epoch, 0) != (ssize_t)sizeof epoch) continue;
    return epoch;
}

int world_map_opened(struct world *w, int fd) {
    struct xi_expect expect = {.kind = XI_SEG_OPENED, .number = OPENED_NUMBER, .epoch = w->epoch};
    struct xi_map map;
    int rc = xi_segment_map(fd, true, false, &expect, &map);
    if (rc == 0) w->opened = map.base;
    return rc;
}

static int make_opened(struct world *w) {
    struct xi_segment head = {.magic = XI_LAYOUT_MAGIC,
                              .version = XI_LAYOUT_VERSION,
                              .kind = XI_SEG_OPENED,
                              .epoch = w->epoch,
                              .size = sizeof(struct xi_opened),
                              .number = OPENED_NUMBER};
    int fd, rc = xi_segment_make(NULL, &head, &fd);
    if (rc) return rc;
    world_know(w, OPENED_NUMBER, XI_SEG_OPENED, 0, head.size, fd);
    keep_hold(OPENED_NUMBER, fd);
    return world_map_opened(w, fd);
}

int world_create(struct world *w, const char *ns, uid_t uid, bool memfd, const struct xi_access *open_to) {
    *w = (struct world){.uid = uid, .memfd = memfd, .epoch = draw_epoch(), .registry_fd = -1};
    memcpy(w->ns, ns, strnlen(ns, sizeof w->ns - 1));
    uint32_t channels = XI_REGISTRY_CHANNELS_FIRST;
    struct xi_segment head = {.magic = XI_LAYOUT_MAGIC,
                              .version = XI_LAYOUT_VERSION,
                              .kind = XI_SEG_REGISTRY,
                              .epoch = w->epoch,
                              .size = XI_REGISTRY_SIZE(channels)};
    char name[XI_SHM_NAME_MAX];
    world_name(w, name, 0);
    int rc = xi_segment_make(memfd ? NULL : name, &head, &w->registry_fd);
    if (rc == 0) rc = world_map_registry(w);
    if (rc == 0 && memfd) keep_hold(0, w->registry_fd);
    if (rc == 0 && open_to) rc = make_opened(w);
    if (rc) return rc;
    w->registry_size = head.size;
    struct xi_registry *r = w->registry;
    memcpy(r->ns, w->ns, sizeof r->ns);
    r->uid = uid;
    r->flags = (memfd ? XI_NS_MEMFD : 0) | (open_to ? XI_NS_OPEN : 0);
    if (open_to) memcpy(r->open_to, open_to, sizeof r->open_to);
    xi_store_relaxed(&r->next_id, 1);
    xi_store_relaxed(&r->next_segment, 2u);
    xi_store_relaxed(&r->next_channel_id, 1);
    xi_store_relaxed(&r->channel_limit, channels);
    return 0;
}

static bool owner_lives(const struct state *st, uint32_t slot) {
    return slot && slot < XI_MAX_INTERPS && st->interps[slot].life == INTERP_LIVE;
}

void world_remove_all(struct world *w, const struct state *st) {
    uint64_t number, value;
    while (w->segs.count) {
        uint32_t at = 0;
        if (!table_next(&w->segs, &at, &number, &value)) break;
        struct seg *s = (struct seg *)(uintptr_t)value;
        /* What the living have mapped they may still be reading: it loses its name only, and goes with them. */
        bool channels = s->kind == XI_SEG_CHANNEL || s->kind == XI_SEG_ACKS || s->kind == XI_SEG_RING;
        world_remove(w, s->number, !channels && !owner_lives(st, s->slot));
    }
    if (w->memfd && w->registry) keep_drop(0);
    if (w->memfd || !w->registry) return;
    char name[XI_SHM_NAME_MAX];
    world_name(w, name, 0);
    shm_unlink(name);
}

void world_deinit(struct world *w) {
    uint64_t number, value;
    for (uint32_t at = 0; table_next(&w->segs, &at, &number, &value); at = 0) forget(w, (struct seg *)(uintptr_t)value);
    table_clear(&w->segs);
    if (w->registry) munmap(w->registry, XI_REGISTRY_SIZE(XI_MAX_CHANNELS));
    if (w->opened) munmap(w->opened, sizeof *w->opened);
    if (w->registry_fd >= 0) close(w->registry_fd);
    *w = (struct world){.registry_fd = -1};
}

/* ---- making ---- */

/* The numbers the core has given out, before anything bears one. */
static void take_numbers(struct world *w, const struct state *st) {
    xi_store_release(&w->registry->next_id, st->next_id);
    xi_store_release(&w->registry->next_segment, st->next_segment);
    xi_store_release(&w->registry->next_channel_id, st->next_channel);
}

/* What a channel has before its ring. */
union first {
    struct xi_chan chan;
    uint8_t bytes[XI_RING_OFFSET];
};

/* Backed by memory from the start: of a channel and of a ring, what is before the ring. `first`: a channel's. */
static int make_backed(const char *name, const struct xi_segment *head, union first *first, int *fd) {
    if (head->kind == XI_SEG_CHANNEL) {
        first->chan.seg = *head;
        return xi_segment_make_filled(name, &first->chan.seg, sizeof *first, fd);
    }
    return xi_segment_make_sparse(name, head, head->kind == XI_SEG_RING ? XI_PAGE : head->size, fd);
}

static int make_segment_for(struct world *w, uint32_t number, uint32_t kind, uint32_t slot, int64_t id, uint64_t size,
                            uint32_t asked, union first *first, int *fd) {
    struct xi_segment head = {.magic = XI_LAYOUT_MAGIC,
                              .version = XI_LAYOUT_VERSION,
                              .kind = kind,
                              .epoch = w->epoch,
                              .size = size,
                              .number = number,
                              .owner = slot,
                              .owner_id = id,
                              .asked = asked};
    char name[XI_SHM_NAME_MAX];
    world_name(w, name, number);
    int rc = make_backed(w->memfd ? NULL : name, &head, first, fd);
    if (rc) return rc;
    int own = -1;
    if (w->memfd && (own = fcntl(*fd, F_DUPFD_CLOEXEC, 3)) < 0) {
        rc = xi_fail_errno(errno, "cannot keep a segment's descriptor");
        close(*fd);
        *fd = -1;
        return rc;
    }
    world_know(w, number, kind, slot, size, own);
    if (own >= 0) keep_hold(number, own);
    return 0;
}

static int make_segment(struct world *w, uint32_t number, uint32_t kind, uint64_t size, union first *first, int *fd) {
    return make_segment_for(w, number, kind, 0, 0, size, 0, first, fd);
}

/* The owner's number for it is in what the core holds; release words, which go with their arena, have none. */
static int make_owned(struct world *w, const struct state *st, uint32_t number, uint32_t kind, uint32_t slot,
                      uint64_t size, int *fd) {
    const struct interp *in = &st->interps[slot];
    uint32_t asked = 0;
    for (uint32_t i = 0; i < in->held_count; i++)
        if (in->held[i].number == number) asked = in->held[i].asked;
    return make_segment_for(w, number, kind, slot, in->id, size, asked, NULL, fd);
}

static uint64_t realtime_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fill_slot(struct world *w, const struct state *st, uint32_t slot, const struct xi_request *q) {
    const struct interp *in = &st->interps[slot];
    if (w->opened) memset(w->opened->word[slot], 0, sizeof w->opened->word[slot]);
    struct xi_slot *s = &w->registry->slots[slot];
    s->flags = in->flags;
    s->pid = in->pid;
    s->start_time = in->start;
    s->own_seg = in->held[0].number;
    s->mailbox_seg = in->held[1].number;
    s->joined_ns = realtime_ns();
    s->uid = in->uid;
    xi_store_relaxed(&s->told_end, 0);
    memcpy(s->name, q->name, sizeof s->name);
    memcpy(s->language, q->text, sizeof s->language);
    xi_store_relaxed(&s->id_refcount, 0u);
    xi_store_relaxed(&s->arena_bytes, 0u);
    xi_store_relaxed(&s->id, in->id);
    xi_store_release(&s->state, XI_SLOT_LIVE);
}

int world_make_interp(struct world *w, const struct state *st, uint32_t slot, const struct xi_request *q, int made[2]) {
    const struct held *own = &st->interps[slot].held[0], *mailbox = &st->interps[slot].held[1];
    take_numbers(w, st);
    int rc = make_owned(w, st, own->number, XI_SEG_OWN, slot, own->size, &made[0]);
    if (rc == 0) rc = make_owned(w, st, mailbox->number, XI_SEG_MAILBOX, slot, mailbox->size, &made[1]);
    if (rc == 0) fill_slot(w, st, slot, q);
    return rc;
}

int world_make_arena(struct world *w, const struct state *st, uint32_t slot, uint32_t number, uint64_t size,
                     int made[2]) {
    take_numbers(w, st);
    int rc = make_owned(w, st, number + 1, XI_SEG_RELEASE, slot, XI_RELEASE_SIZE(size), &made[1]);
    return rc ? rc : make_owned(w, st, number, XI_SEG_ARENA, slot, size, &made[0]);
}

int world_make_borrows(struct world *w, const struct state *st, uint32_t slot, uint32_t number, uint64_t size,
                       int *made) {
    take_numbers(w, st);
    return make_owned(w, st, number, XI_SEG_BORROWS, slot, size, made);
}

/* Backs registry entries up to `index` with memory. */
static int reserve_entry(struct world *w, uint32_t index) {
    struct xi_registry *r = w->registry;
    uint32_t limit = xi_load_relaxed(&r->channel_limit);
    if (index < limit) return 0;
    uint32_t grown = limit * 2 > index ? limit * 2 : index + 1;
    if (grown > XI_MAX_CHANNELS) grown = XI_MAX_CHANNELS;
    uint64_t size = XI_REGISTRY_SIZE(grown);
    int err;
    do err = posix_fallocate(w->registry_fd, 0, (off_t)size);
    while (err == EINTR);
    if (err) return xi_fail_errno(err, "cannot enlarge the registry for one more channel");
    __atomic_store_n(&r->seg.size, size,
                     __ATOMIC_RELEASE); /* static for whoever mapped it; new readers see all of it */
    w->registry_size = size;
    xi_store_release(&r->channel_limit, grown);
    return 0;
}

static int write_at(int fd, const void *from, size_t n, uint64_t at) {
    if (pwrite(fd, from, n, (off_t)at) == (ssize_t)n) return 0;
    return xi_fail_errno(errno ? errno : EIO, "cannot write a channel's head");
}

/* A group that is there from the start. */
static void fill_group(struct xi_chan *chan, uint32_t g, uint32_t flags) {
    xi_store_relaxed(&chan->groups[g].flags, flags);
    xi_store_relaxed(&chan->groups[g].state, XI_GROUP_ACTIVE);
}

/*
 * Fields of a new channel, written with its segment: nothing needs mapping for it. A queue has its one group already, and a
 * channel that retains values the one that keeps them.
 */
static void fill_channel(struct xi_chan *chan, const struct chan *ch, const struct xi_request *q) {
    struct xi_chan_fixed fixed = {.id = ch->id,
                                  .capacity = ch->capacity,
                                  .ring_offset = XI_RING_OFFSET,
                                  .mode = ch->mode,
                                  .inline_max = XI_INLINE_MAX(ch->capacity),
                                  .max_values = q->d,
                                  .grow_max = ch->grow_max,
                                  .ttl_ns = (int64_t)q->f,
                                  .retain = (uint32_t)q->g,
                                  .when_full = (uint32_t)q->h};
    memcpy(fixed.dead, q->other, sizeof fixed.dead);
    xi_fill_channel(&fixed, chan);
    xi_store_relaxed(&chan->producers, ch->told_producers);
    xi_store_relaxed(&chan->consumers, ch->told_consumers);
    if (ch->mode == XI_QUEUE) fill_group(chan, 0, 0);
    if (ch->retains) fill_group(chan, XI_GROUP_RETAIN, XI_GROUP_F_RETAIN);
    xi_store_relaxed(&chan->active, (ch->mode == XI_QUEUE ? 1 : 0) | (ch->retains ? XI_RETAIN_BIT : 0));
}

int world_make_channel(struct world *w, const struct state *st, uint32_t index, const struct xi_request *q, int *made) {
    const struct chan *ch = &st->chans[index];
    int rc = reserve_entry(w, index);
    if (rc) return rc;
    take_numbers(w, st);
    union first first;
    memset(&first, 0, sizeof first);
    fill_channel(&first.chan, ch, q);
    rc = make_segment(w, ch->segment, XI_SEG_CHANNEL, XI_RING_OFFSET + ch->capacity, &first, made);
    if (rc) return rc;
    struct xi_chan_entry *e = &w->registry->channels[index];
    e->segment = ch->segment;
    e->mode = ch->mode;
    e->capacity = ch->capacity;
    e->owner = ch->uid;
    memcpy(e->name, ch->name, sizeof e->name);
    memcpy(e->access, ch->access, sizeof e->access);
    world_publish_channel(w, st, index);
    xi_store_release(&e->id, ch->id);
    return 0;
}

/* What a table of deliveries says of itself; static from then on. */
static int fill_acks(int fd, const struct chan *ch, const struct xi_request *q, int64_t maker) {
    struct xi_acks a = {.window = q->c,
                        .timeout_ns = q->e,
                        .max_deliveries = (uint32_t)q->d,
                        .group = (uint32_t)q->b,
                        .chan_seg = ch->segment,
                        .maker = maker};
    memcpy(a.dead, q->other, sizeof a.dead);
    const size_t from = sizeof a.seg;
    return write_at(fd, (const uint8_t *)&a + from, sizeof a - from, from);
}

int world_make_part(struct world *w, const struct state *st, uint32_t index, uint32_t number, uint64_t size,
                    const struct xi_request *q, int *made) {
    const struct chan *ch = &st->chans[index];
    struct part p = {.number = 0};
    for (uint32_t i = 0; i < ch->part_count; i++)
        if (ch->parts[i].number == number) p = ch->parts[i];
    take_numbers(w, st);
    int rc = make_segment(w, number, p.kind, size, NULL, made);
    if (rc || p.kind == XI_SEG_ACKS) return rc ? rc : fill_acks(*made, ch, q, p.maker);
    seg_of(w, number)->channel = ch->id;
    return write_at(*made, &ch->id, sizeof ch->id, offsetof(struct xi_ring_head, chan_id));
}

/* The one page of a segment that is there whatever else of it is. */
static struct xi_segment *map_head(struct world *w, const struct seg *s) {
    int fd;
    if (want_or(world_open(w, s->number, true, &fd)) != 0) return NULL;
    void *base = mmap(NULL, XI_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) (void)want_or(xi_fail_errno(errno, "cannot map a segment's head"));
    close(fd);
    return base == MAP_FAILED ? NULL : base;
}

bool world_ring_idle(struct world *w, const struct chan *ch, uint32_t number) {
    struct seg *s = seg_of(w, number), *channel = mapped(w, ch->segment, XI_SEG_CHANNEL);
    if (!s || s->kind != XI_SEG_RING || !channel) return false;
    struct xi_chan *chan = channel->map.base;
    xi_a64 *ring = &chan->ring;
    if (XI_RING_SEGMENT(xi_load_full(ring)) == number) return false;
    struct xi_segment *head = map_head(w, s);
    if (!head) return false; /* it may go when the channel goes */
    (void)xi_exchange_full(&head->gone, 1u);
    /* In this order (tests/model/moves.pml): who has moved names it in `ring` before it is no longer about to. */
    bool idle = XI_RING_SEGMENT(xi_load_full(&chan->ring_next)) != number && XI_RING_SEGMENT(xi_load_full(ring)) != number;
    if (!idle) xi_store_full(&head->gone, 0u);
    munmap(head, XI_PAGE);
    return idle;
}

/* ---- changing and removing ---- */

void world_remove(struct world *w, uint32_t number, bool empty_it) {
    struct seg *s = seg_of(w, number);
    if (!s) return; /* it was never made: what should have made it failed */
    char name[XI_SHM_NAME_MAX];
    world_name(w, name, number);
    if (empty_it)
        xi_segment_remove(w->memfd ? NULL : name, s->fd, s->kind);
    else if (!w->memfd)
        shm_unlink(name);
    if (w->memfd) keep_drop(number);
    forget(w, s);
}

void world_publish_slot(struct world *w, const struct state *st, uint32_t slot) {
    const struct interp *in = &st->interps[slot];
    struct xi_slot *s = &w->registry->slots[slot];
    s->flags = in->flags | (in->used ? XI_SLOT_USED : 0);
    xi_store_relaxed(&s->id_refcount, in->published);
    xi_store_relaxed(&s->arena_bytes, state_arena_bytes(in));
}

void world_publish_channel(struct world *w, const struct state *st, uint32_t index) {
    const struct chan *ch = &st->chans[index];
    struct xi_chan_entry *e = &w->registry->channels[index];
    xi_store_relaxed(&e->handles, ch->handles);
    xi_store_relaxed(&e->producers, ch->told_producers);
    xi_store_relaxed(&e->consumers, ch->told_consumers);
    xi_store_release(&e->removed, (uint32_t)ch->removed);
}

void world_tell_peers(struct world *w, const struct state *st, uint32_t index) {
    const struct chan *ch = &st->chans[index];
    struct xi_chan_view view;
    if (!ch->handles) return; /* nobody is there to be told, and who comes next is */
    if (!world_view(w, ch, &view)) {
        log_line("cannot map channel \"%s\" to say in it who has it open; its sleepers look once a second", ch->name);
        return;
    }
    /* Pairs with the parker, which looks at these after its bit is set (park.c). */
    xi_store_full(&view.chan->producers, ch->told_producers);
    xi_store_full(&view.chan->consumers, ch->told_consumers);
    w->about_channel = index + 1;
    if (!ch->told_producers || !ch->told_consumers) xi_ring_channel(&view, &w->repair);
    if (!ch->told_consumers) world_ring_callers(w, st, index);
}

void world_ring_callers(struct world *w, const struct state *st, uint32_t index) {
    for (uint32_t slot = 1; slot < XI_MAX_INTERPS; slot++) {
        const struct interp *in = &st->interps[slot];
        uint64_t *handles = in->life == INTERP_LIVE ? table_find(&in->handles, st->chans[index].id) : NULL;
        struct xi_mailbox *mailbox = handles && handles_sending(*handles) ? world_mailbox(w, slot) : NULL;
        if (mailbox) xi_ring_sleepers(mailbox, &w->repair);
    }
}

void world_clear_channel(struct world *w, uint32_t index) {
    struct xi_registry *r = w->registry;
    if (index < xi_load_relaxed(&r->channel_limit)) xi_store_release(&r->channels[index].id, 0);
}

#define OPENED_WORD(index) ((index) / 32)
#define OPENED_SHIFT(index) ((index) % 32 * 2)

void world_note_opened(struct world *w, uint32_t slot, uint32_t index, uint32_t rights) {
    if (w->opened) xi_or_full(&w->opened->word[slot][OPENED_WORD(index)], (uint64_t)rights << OPENED_SHIFT(index));
}

uint32_t world_opened(const struct world *w, uint32_t slot, uint32_t index) {
    return (uint32_t)(xi_load_relaxed(&w->opened->word[slot][OPENED_WORD(index)]) >> OPENED_SHIFT(index)) & XI_ACCESS_BOTH;
}

void world_forget_opened(struct world *w, const struct state *st, uint32_t index) {
    for (uint32_t slot = 1; w->opened && slot < XI_MAX_INTERPS; slot++)
        if (st->interps[slot].life != INTERP_FREE)
            xi_and_full(&w->opened->word[slot][OPENED_WORD(index)], ~((uint64_t)XI_ACCESS_BOTH << OPENED_SHIFT(index)));
}

void world_set_slot(struct world *w, uint32_t slot, enum xi_slot_state state) {
    xi_store_release(&w->registry->slots[slot].state, (uint32_t)state);
}

/* As every waker: only who moves PARKED to NOTIFIED rings (pairs with the sleeper's look at `bell`). */
static void ring(struct xi_bell *bell) {
    uint32_t parked = XI_BELL_PARKED;
    if (!xi_cas32_full(&bell->state, &parked, XI_BELL_NOTIFIED)) return;
    xi_add_full(&bell->bell, 1u);
    repair_wake(NULL, &bell->bell, 1);
}

void world_forget_mailbox(struct world *w, uint32_t slot) { w->mailbox_of[slot] = 0; }

struct xi_mailbox *world_mailbox(struct world *w, uint32_t slot) {
    return repair_mailbox(w, slot);
}

void world_flag(struct world *w, uint32_t slot, uint32_t flag) {
    struct xi_mailbox *m = repair_mailbox(w, slot);
    if (!m) return;
    xi_or_full(&m->flags, flag);
    for (uint32_t i = 0; i < XI_BELLS_USABLE; i++) ring(&m->bells[i]);
}

/* ---- looking ---- */

static int reopen(int fd, bool writable, int *out) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    *out = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    return *out < 0 ? xi_fail_errno(errno, "cannot open a segment for an interpreter") : 0;
}

int world_open(struct world *w, uint32_t number, bool writable, int *fd) {
    struct seg *s = number ? seg_of(w, number) : NULL;
    if (number && !s) return xi_fail(XI_E_NOENT, "segment %08x is gone", number);
    if (w->memfd) return reopen(s ? s->fd : w->registry_fd, writable, fd);
    char name[XI_SHM_NAME_MAX];
    world_name(w, name, number);
    return xi_segment_open(name, writable, fd);
}

/* The ring that the channel has grown into, if that is one of its rings; else the view is lost. */
static void view_ring(struct world *w, const struct chan *ch, struct xi_chan_view *view) {
    uint32_t number = XI_RING_SEGMENT(view->word), log2 = XI_RING_LOG2(view->word);
    struct seg *s = seg_of(w, number);
    view->lost = true;
    if (view->word != XI_RING(number, log2) || log2 >= 64 || !s || s->kind != XI_SEG_RING || s->channel != ch->id ||
        s->size != XI_PAGE + ((uint64_t)1 << log2) || world_map(w, s) != 0)
        return;
    view->ring = (uint8_t *)s->map.base + XI_PAGE;
    view->capacity = (uint64_t)1 << log2;
    view->lost = false;
}

/*
 * A ring that was not backed when its channel was mapped may be by now. A sender backs it before it takes the lock, and moves
 * the tail before it lets go; so with the lock free, and then the tail at 0, nothing was sent when the lock was free. It may be
 * a moment later: whoever looks into the view looks at the tail again (xi_view_stale()). A tail beside a ring that is not
 * backed then is somebody's writing.
 */
static int find_ring(struct world *w, struct seg *s, bool *unsent) {
    struct xi_chan *c = s->map.base;
    bool held = xi_load_acquire(&c->lock) != 0;
    *unsent = xi_load_acquire(&c->tail) == 0;
    if (!s->map.bare || (!held && *unsent)) return 0;
    int fd = s->fd, rc = fd < 0 ? world_open(w, s->number, true, &fd) : 0;
    if (rc == 0) rc = xi_map_ring_in(fd, &s->map);
    if (s->fd < 0 && fd >= 0) close(fd);
    return want_or(rc);
}

bool world_view(struct world *w, const struct chan *ch, struct xi_chan_view *view) {
    struct seg *s = mapped(w, ch->segment, XI_SEG_CHANNEL);
    bool unsent = false;
    if (!s || s->map.size != XI_RING_OFFSET + ch->capacity || find_ring(w, s, &unsent) != 0) return false;
    uint8_t *base = s->map.base;
    *view = (struct xi_chan_view){.chan = (struct xi_chan *)base,
                                  .ring = base + XI_RING_OFFSET,
                                  .capacity = ch->capacity,
                                  .segment = ch->segment,
                                  .retains = ch->retains,
                                  .bare = s->map.bare,
                                  .unsent = unsent && s->map.bare,
                                  .word = xi_load_acquire(&((struct xi_chan *)base)->ring)};
    if (view->word) view_ring(w, ch, view);
    return true;
}

struct glance {
    int fd;
    uint64_t capacity;
};

static uint64_t word_in_file(const void *context, uint64_t position) {
    const struct glance *g = context;
    uint64_t word, at = XI_RING_OFFSET + xi_ring_place(position, g->capacity - 1);
    return pread(g->fd, &word, sizeof word, (off_t)at) == (ssize_t)sizeof word ? word : UINT64_MAX;
}

/* What xi_chan_empty() looks at: what is before the waiters, and where the active groups stand. A head that cannot be is for
 * who maps it to find. */
static bool read_parts(int fd, const struct xi_expect *expect, struct xi_chan *chan) {
    const size_t first = offsetof(struct xi_chan, waiters);
    struct xi_chan_fixed fixed;
    struct stat st;
    if (fstat(fd, &st) != 0 || pread(fd, chan, first, 0) != (ssize_t)first) return false;
    if (xi_check_channel(chan, (uint64_t)st.st_size, expect, &fixed) != 0) return false;
    uint64_t active = xi_load_relaxed(&chan->active);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        const size_t size = sizeof chan->groups[g].head;
        off_t at = (off_t)((uint8_t *)&chan->groups[g].head - (uint8_t *)chan);
        if ((active >> g & 1) && pread(fd, &chan->groups[g].head, size, at) != (ssize_t)size) return false;
    }
    return true;
}

bool world_glance(struct world *w, const struct chan *ch, bool *empty) {
    struct seg *s = seg_of(w, ch->segment);
    struct xi_chan chan;
    int fd;
    if (!s || s->map.base) return false;
    if (s->fd < 0) {
        if (want_or(world_open(w, s->number, true, &fd)) != 0) return false;
        close_last(w);
        s->fd = fd;
        w->last = s;
    }
    const struct xi_expect expect = {s->kind, s->number, w->epoch, s->size};
    if (!read_parts(s->fd, &expect, &chan) || xi_load_relaxed(&chan.ring) != 0) return false;
    *empty = xi_chan_empty(&chan, ch->retains, word_in_file, &(struct glance){s->fd, ch->capacity});
    return true;
}

bool world_sound(struct world *w, const struct chan *ch) {
    struct seg *s = mapped(w, ch->segment, XI_SEG_CHANNEL);
    struct xi_chan chan;
    struct xi_chan_fixed fixed;
    if (!s) return false;
    memcpy(&chan, s->map.base, offsetof(struct xi_chan, waiters));
    return xi_check_channel(&chan, s->size, &(struct xi_expect){s->kind, s->number, w->epoch, s->size}, &fixed) == 0;
}

struct xi_acks *world_acks(struct world *w, uint32_t number, uint32_t chan_seg, uint64_t *window) {
    struct seg *s = mapped(w, number, XI_SEG_ACKS);
    if (!s || s->map.size < sizeof(struct xi_acks)) return NULL;
    struct xi_acks *a = s->map.base;
    *window = a->window; /* once: members may write there */
    if (a->chan_seg != chan_seg || !xi_is_pow2(*window) || *window > XI_WINDOW_MAX || s->map.size != XI_ACKS_SIZE(*window))
        return NULL;
    return a;
}

const struct xi_borrow_view *world_borrows(struct world *w, const struct interp *in, size_t *chunks) {
    static struct xi_borrow_view *views;
    static size_t capacity;
    *chunks = 0;
    if (in->held_count > capacity) {
        capacity = in->held_count;
        views = memory_or_die(views, capacity, sizeof *views);
    }
    for (uint32_t i = 0; i < in->held_count; i++) {
        uint32_t kind = in->held[i].kind;
        if (kind != XI_SEG_OWN && kind != XI_SEG_BORROWS) continue;
        struct seg *s = mapped(w, in->held[i].number, kind);
        size_t head = kind == XI_SEG_OWN ? sizeof(struct xi_own) : sizeof(struct xi_borrow_chunk);
        if (!s || s->map.size < head) continue;
        views[*chunks].entries = (struct xi_borrow *)((uint8_t *)s->map.base + head);
        views[(*chunks)++].count = xi_items_behind(s->map.size, head, sizeof(struct xi_borrow));
    }
    return views;
}

static struct xi_counters *counters_of(struct world *w, const struct interp *in) {
    for (uint32_t i = 0; i < in->held_count; i++) {
        if (in->held[i].kind != XI_SEG_OWN) continue;
        struct seg *s = mapped(w, in->held[i].number, XI_SEG_OWN);
        return s ? &((struct xi_own *)s->map.base)->counters : NULL;
    }
    return NULL;
}

uint64_t world_blocks(struct world *w, const struct interp *in) {
    struct xi_counters *c = counters_of(w, in);
    return c ? xi_load_relaxed(&c->blocks) : 0;
}

bool world_joined(struct world *w, const struct interp *in) {
    struct xi_counters *c = counters_of(w, in);
    return c && xi_load_acquire(&c->joined) != 0;
}

bool world_left_behind(struct world *w, const struct interp *in) {
    struct stat st = {0};
    int fd = -1;
    if (!world_joined(w, in)) return false;
    for (uint32_t i = 0; i < in->held_count; i++)
        if (in->held[i].kind == XI_SEG_OWN && want_or(world_open(w, in->held[i].number, false, &fd)) != 0) return false;
    bool known = fd >= 0 && fstat(fd, &st) == 0;
    if (fd >= 0) close(fd);
    return known && !proc_may_map(in->pid, st.st_dev, st.st_ino);
}
