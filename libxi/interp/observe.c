/* SPDX-License-Identifier: MIT */
/*
 * Looking at a namespace from outside: the registry and the channels' own
 * counters, read from shared memory. Nothing is asked of the broker, which may
 * be stopped or gone, and nothing read is trusted. Where segments have no names,
 * the broker hands out what this user may look at; what it does not is shown as
 * zero.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../channel/channel.h"
#include "../wire/names.h"
#include "../wire/segment.h"
#include "interp.h"

struct xi_observer {
    struct xi_place place;
    int socket; /* where segments have no names: to the broker; else -1 */
    char open_to[XI_ACCESS_TEXT];
    bool deaf;  /* it did not answer: not asked again in this listing */
    uid_t uid; /* whose namespace it is */
    pid_t pid; /* whose mapping it is: a forked child has none there, or another of its own */
    int fd;
    uint64_t epoch;
    const struct xi_registry *registry;
    size_t mapped;
};

int xi_observe_fd(const struct xi_place *place, int fd, xi_observer **out) {
    const char *ns = place->text;
    struct xi_segment head = {0};
    struct stat st;
    struct xi_observer *o = calloc(1, sizeof *o);
    int rc = 0;
    if (!o) {
        rc = xi_fail(XI_E_NOMEM, "no memory for an observer");
    } else if (pread(fd, &head, sizeof head, 0) < 0 || fstat(fd, &st) != 0) {
        rc = xi_fail_errno(errno, "cannot read the registry");
    } else if (head.magic == 0) { /* reserved, its head not written yet */
        rc = xi_fail(XI_E_NOENT, "namespace \"%s\" is just being made", ns);
    } else if (head.magic != XI_LAYOUT_MAGIC || head.kind != XI_SEG_REGISTRY ||
               st.st_size < (off_t)sizeof(struct xi_registry)) {
        rc = xi_fail(XI_E_CORRUPT, "the registry of namespace \"%s\" is not one; xi doctor removes leftovers", ns);
    } else if (head.version != XI_LAYOUT_VERSION) {
        rc = xi_fail(XI_E_MISMATCH, "namespace \"%s\" has layout version %u, this library %u: use one version of xidata",
                     ns, head.version, XI_LAYOUT_VERSION);
    }
    if (rc == 0) {
        /* Room for all it may grow to; what is behind its end is never touched (see channels_backed). */
        o->mapped = XI_REGISTRY_SIZE(XI_MAX_CHANNELS);
        void *base = mmap(NULL, o->mapped, PROT_READ, MAP_SHARED, fd, 0);
        if (base == MAP_FAILED) rc = xi_fail_errno(errno, "cannot map the registry");
        else o->registry = base;
    }
    if (rc) {
        free(o);
        close(fd);
        return rc;
    }
    madvise((void *)(uintptr_t)o->registry, o->mapped, MADV_DONTFORK);
    o->place = *place;
    o->socket = -1;
    o->uid = o->registry->uid;
    o->pid = getpid();
    o->fd = fd;
    o->epoch = head.epoch;
    struct xi_access list[XI_ACCESS_MAX];
    memcpy(list, o->registry->open_to, sizeof list);
    if (o->registry->flags & XI_NS_OPEN && xi_access_valid(list)) xi_access_format(list, false, o->open_to);
    *out = o;
    return 0;
}

/* From the broker, which keeps the connection. */
static int ask_once(const struct xi_place *place, xi_observer **out) {
    int socket, fd, rc = xi_broker_connect(place, &socket);
    if (rc) return rc;
    rc = xi_broker_observe(socket, 0, &fd);
    if (rc == 0) rc = xi_observe_fd(place, fd, out);
    if (rc) close(socket);
    else (*out)->socket = socket;
    return rc;
}

/* One that died under the question is followed by another, and one with a full queue empties it: there is no event for
 * either. One that does not answer has used up the time. */
#define ASK_ATTEMPTS 3
#define ASK_NS 1000000000ll
static int observe_asking(const struct xi_place *place, xi_observer **out) {
    int64_t until = xi_now() + ASK_NS;
    int rc = ask_once(place, out);
    for (int n = 1; n < ASK_ATTEMPTS && (rc == XI_E_AGAIN || rc == XI_E_BROKER) && xi_now() < until; n++) {
        (void)poll(NULL, 0, n);
        rc = ask_once(place, out);
    }
    if (rc == XI_E_AGAIN && place->foreign)
        return xi_fail(XI_E_NOENT, "user %u serves no open namespace \"%s\"", (unsigned)place->uid, place->ns);
    if (rc == XI_E_AGAIN) return xi_fail(XI_E_NOENT, "there is no namespace \"%s\": nobody has joined it", place->text);
    return rc;
}

int xi_observe(const char *ns, xi_observer **out) {
    char name[XI_SHM_NAME_MAX];
    struct xi_place place;
    int fd, rc = xi_place_parse(ns, &place);
    if (rc) return rc;
    if (place.foreign) return observe_asking(&place, out);
    xi_shm_registry_name(name, place.uid, place.ns);
    rc = xi_segment_open(name, false, &fd);
    if (rc == XI_E_NOENT) return observe_asking(&place, out);
    return rc ? rc : xi_observe_fd(&place, fd, out);
}

/* True in a forked child, which has not what its parent mapped. */
static bool inherited(const xi_observer *o) { return o->pid != getpid(); }

void xi_observer_free(xi_observer *o) {
    if (!o) return;
    if (!inherited(o)) munmap((void *)(uintptr_t)o->registry, o->mapped);
    close(o->fd);
    if (o->socket >= 0) close(o->socket);
    free(o);
}

const struct xi_registry *xi_observer_registry(const xi_observer *o) { return o->registry; }
uint32_t xi_observer_uid(const xi_observer *o) { return o->uid; }
const char *xi_observer_open_to(const xi_observer *o) { return o->open_to; }
int32_t xi_observer_broker_pid(const xi_observer *o) { return inherited(o) ? 0 : o->registry->broker_pid; }

/* Entries of channels[] that may be touched: what the broker says, and what the file really has. */
static uint32_t channels_backed(const xi_observer *o) {
    struct stat st;
    uint32_t said = xi_load_acquire(&((struct xi_registry *)(uintptr_t)o->registry)->channel_limit);
    if (said > XI_MAX_CHANNELS) said = XI_MAX_CHANNELS;
    if (fstat(o->fd, &st) != 0 || st.st_size < 0) return 0;
    uint64_t real = xi_items_behind((uint64_t)st.st_size, sizeof(struct xi_registry), sizeof(struct xi_chan_entry));
    return said < real ? said : (uint32_t)real;
}

static int open_segment(xi_observer *o, uint32_t number, int *fd) {
    char name[XI_SHM_NAME_MAX];
    if (!(o->registry->flags & XI_NS_MEMFD)) {
        xi_shm_segment_name(name, o->place.uid, o->place.ns, o->epoch, number);
        return xi_segment_open(name, false, fd);
    }
    int rc = o->deaf ? XI_E_BROKER : 0;
    if (rc == 0 && o->socket < 0) rc = xi_broker_connect(&o->place, &o->socket);
    if (rc == 0) rc = xi_broker_observe(o->socket, number, fd);
    if (rc == XI_E_BROKER && o->socket >= 0) { /* it went, or hangs: its answer may come when nobody waits for it any more */
        close(o->socket);
        o->socket = -1;
    }
    o->deaf |= o->socket < 0;
    return rc;
}

static int map_segment(xi_observer *o, uint32_t number, uint32_t kind, struct xi_map *map) {
    struct xi_expect expect = {.kind = kind, .number = number, .epoch = o->epoch};
    int fd, rc = open_segment(o, number, &fd);
    if (rc) return rc;
    rc = xi_segment_map(fd, false, false, &expect, map);
    close(fd);
    return rc;
}

static void copy_text(char *to, const char *from, size_t n) {
    memcpy(to, from, n);
    to[n - 1] = 0;
}

static void add_counters(xi_observer *o, uint32_t own_seg, xi_interp_info *info) {
    struct xi_map map;
    if (map_segment(o, own_seg, XI_SEG_OWN, &map) != 0) return; /* it left just now, or is another user's */
    if (map.size >= sizeof(struct xi_own)) {
        struct xi_counters *c = &((struct xi_own *)map.base)->counters;
        info->blocks = xi_load_relaxed(&c->blocks);
        info->sent = xi_load_relaxed(&c->sent);
        info->received = xi_load_relaxed(&c->received);
        info->parks = xi_load_relaxed(&c->parks);
        info->wakes = xi_load_relaxed(&c->wakes);
        info->borrows = xi_load_relaxed(&c->borrows);
        uint32_t b = xi_load_relaxed(&c->wait_backend);
        copy_text(info->wait, b == 1 ? "uring\0        " : b == 2 ? "futex\0        " : "none yet\0     ", 13);
    }
    xi_unmap(&map);
}

static bool read_slot(const xi_observer *o, uint32_t i, xi_interp_info *info, uint32_t *own_seg) {
    struct xi_slot *s = (struct xi_slot *)(uintptr_t)&o->registry->slots[i];
    /* As layout.h says of readers: state, copy, then state and id again. */
    if (xi_load_acquire(&s->state) != XI_SLOT_LIVE) return false;
    memset(info, 0, sizeof *info);
    info->id = atomic_load_explicit(&s->id, memory_order_acquire);
    info->slot = i;
    info->pid = s->pid;
    info->flags = s->flags & ~XI_SLOT_USED;
    info->uid = s->uid;
    info->id_refcount = xi_load_relaxed(&s->id_refcount);
    info->arena_bytes = xi_load_relaxed(&s->arena_bytes);
    info->joined_ns = s->joined_ns;
    *own_seg = s->own_seg;
    copy_text(info->name, s->name, sizeof info->name);
    copy_text(info->language, s->language, sizeof info->language);
    return xi_load_acquire(&s->state) == XI_SLOT_LIVE && atomic_load_explicit(&s->id, memory_order_acquire) == info->id;
}

int64_t xi_list_interps(xi_observer *o, xi_interp_info *out, size_t capacity) {
    size_t n = 0;
    if (inherited(o)) return xi_fail_forked();
    o->deaf = false;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        xi_interp_info info;
        uint32_t own_seg;
        if (!read_slot(o, i, &info, &own_seg)) continue;
        if (n < capacity) {
            add_counters(o, own_seg, &info);
            out[n] = info;
        }
        n++;
    }
    return (int64_t)n;
}

static uint32_t count_bits(struct xi_mask *m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++) n += (uint32_t)__builtin_popcountll(xi_load_relaxed(&m->word[i]));
    return n;
}

/* The groups that anybody receives in; not the one that keeps values for those that join. */
static uint64_t real_groups(struct xi_chan *c) {
    return xi_load_relaxed(&c->active) & ~(c->retain ? XI_RETAIN_BIT : 0);
}

static void add_group(struct xi_group *g, uint64_t tail, uint64_t seq, xi_channel_info *info) {
    uint64_t used = tail - xi_load_relaxed(&g->head), head_seq = xi_load_relaxed(&g->head_seq);
    /* A head may pass the tail as stored while a batch is under way: then nothing is used, not 2^64. */
    if (used <= info->capacity && used > info->used) info->used = used;
    if (head_seq <= seq && seq - head_seq > info->depth) info->depth = seq - head_seq;
    info->received += head_seq - xi_load_relaxed(&g->start_seq);
    info->dropped += xi_load_relaxed(&g->dropped);
    info->expired += xi_load_relaxed(&g->expired);
    info->dead += xi_load_relaxed(&g->dead);
    info->waiting += count_bits(&g->parked);
    info->groups++;
}

void xi_channel_read_stat(struct xi_chan *c, xi_channel_info *info) {
    uint64_t ring = xi_load_relaxed(&c->ring);
    if (ring && XI_RING_LOG2(ring) < 64) info->capacity = (uint64_t)1 << XI_RING_LOG2(ring);
    uint64_t tail = xi_load_acquire(&c->tail), seq = xi_load_relaxed(&c->tail_seq);
    info->closed = xi_load_relaxed(&c->closed) != 0;
    info->sent = seq + xi_load_relaxed(&c->vanished);
    info->retain = c->retain;
    info->grow = c->grow_max;
    info->waiting = count_bits(&c->parked_senders);
    for (uint64_t active = real_groups(c); active; active &= active - 1)
        add_group(&c->groups[__builtin_ctzll(active)], tail, seq, info);
}

/* False if it ended, and perhaps another took its place, while it was read: acquire loads, so that the second look at
 * `life` is behind them all. */
static bool read_group(struct xi_chan *c, uint32_t i, xi_group_info *info) {
    struct xi_group *g = &c->groups[i];
    uint64_t life = xi_load_acquire(&g->life), sent = xi_load_relaxed(&c->tail_seq);
    uint64_t head_seq = xi_load_acquire(&g->head_seq), next_seq = xi_load_acquire(&g->next_seq);
    memset(info, 0, sizeof *info);
    copy_text(info->name, g->name, sizeof info->name);
    info->index = i;
    info->flags = xi_load_acquire(&g->flags) & XI_GROUP_F_ACK ? XI_GROUP_ACK : 0;
    info->owner = (int64_t)xi_load_acquire(&g->owner_id);
    info->received = head_seq - xi_load_acquire(&g->start_seq);
    info->depth = head_seq <= sent ? sent - head_seq : 0;
    info->unacked = info->flags && next_seq >= head_seq ? next_seq - head_seq : 0;
    info->redelivered = xi_load_acquire(&g->redelivered);
    info->acked = xi_load_acquire(&g->acked);
    info->dropped = xi_load_acquire(&g->dropped);
    info->expired = xi_load_acquire(&g->expired);
    info->dead = xi_load_acquire(&g->dead);
    return xi_load_relaxed(&g->life) == life && (xi_load_relaxed(&c->active) >> i & 1);
}

int64_t xi_channel_read_groups(struct xi_chan *c, xi_group_info *out, size_t capacity) {
    size_t n = 0;
    for (uint64_t active = real_groups(c); active; active &= active - 1) {
        xi_group_info info;
        if (!read_group(c, (uint32_t)__builtin_ctzll(active), &info)) continue;
        if (n < capacity) out[n] = info;
        n++;
    }
    return (int64_t)n;
}

static void read_access(const xi_observer *o, const struct xi_chan_entry *e, xi_channel_info *info) {
    struct xi_access list[XI_ACCESS_MAX];
    info->owner = e->owner;
    memcpy(list, e->access, sizeof list);
    if (!xi_access_valid(list)) return; /* the entry is being filled anew */
    xi_access_format(list, true, info->access);
    info->shared_with_others = (o->registry->flags & XI_NS_OPEN) != 0 &&
                               (info->owner != getuid() || xi_access_names_others(list, getuid()));
}

void xi_observer_read_access(const xi_observer *o, uint64_t channel, xi_channel_info *info) {
    uint32_t limit = channels_backed(o);
    for (uint32_t i = 0; i < limit; i++) {
        struct xi_chan_entry *e = (struct xi_chan_entry *)(uintptr_t)&o->registry->channels[i];
        if (xi_load_acquire(&e->id) != channel) continue;
        read_access(o, e, info);
        return;
    }
}

static bool read_channel(const xi_observer *o, uint32_t i, xi_channel_info *info, uint32_t *segment) {
    struct xi_chan_entry *e = (struct xi_chan_entry *)(uintptr_t)&o->registry->channels[i];
    memset(info, 0, sizeof *info);
    info->id = xi_load_acquire(&e->id);
    if (!info->id) return false;
    copy_text(info->name, e->name, sizeof info->name);
    info->mode = e->mode;
    info->capacity = e->capacity;
    info->handles = xi_load_relaxed(&e->handles);
    info->producers = xi_load_relaxed(&e->producers);
    info->consumers = xi_load_relaxed(&e->consumers);
    read_access(o, e, info);
    *segment = e->segment;
    return !xi_load_acquire(&e->removed) && xi_load_acquire(&e->id) == info->id;
}

uint64_t xi_observer_channel_named(const xi_observer *o, const char *name) {
    uint32_t limit = channels_backed(o), segment;
    for (uint32_t i = 0; i < limit; i++) {
        xi_channel_info info;
        if (read_channel(o, i, &info, &segment) && strcmp(info.name, name) == 0) return info.id;
    }
    return 0;
}

int64_t xi_list_channels(xi_observer *o, xi_channel_info *out, size_t capacity) {
    size_t n = 0;
    if (inherited(o)) return xi_fail_forked();
    uint32_t limit = channels_backed(o);
    o->deaf = false;
    for (uint32_t i = 0; i < limit; i++) {
        xi_channel_info info;
        uint32_t segment;
        struct xi_map map;
        if (!read_channel(o, i, &info, &segment) || xi_lane_named(info.name)) continue;
        if (n < capacity) {
            if (map_segment(o, segment, XI_SEG_CHANNEL, &map) == 0) {
                if (map.size >= sizeof(struct xi_chan)) xi_channel_read_stat(map.base, &info);
                xi_unmap(&map);
            }
            out[n] = info;
        }
        n++;
    }
    return (int64_t)n;
}

uint32_t xi_observer_handles(const xi_observer *o, uint64_t channel) {
    uint32_t limit = channels_backed(o);
    for (uint32_t i = 0; i < limit; i++) {
        struct xi_chan_entry *e = (struct xi_chan_entry *)(uintptr_t)&o->registry->channels[i];
        if (xi_load_acquire(&e->id) == channel) return xi_load_relaxed(&e->handles);
    }
    return 0;
}
