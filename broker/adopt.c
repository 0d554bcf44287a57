/* SPDX-License-Identifier: MIT */
/*
 * Taking over the namespace of a broker that died. The registry says who was
 * there; /dev/shm says which segments there are; each segment's head says whose
 * it is. What fits together is adopted into the core, what does not is removed.
 *
 * The registry is the only segment that the broker alone writes, but any process
 * of this user could have: every number of it is checked before it is used.
 *
 * tests/model/adopt.pml explores it, with brokers killed at any step of what they leave behind.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "keep.h"
#include "log.h"
#include "proc.h"
#include "want.h"
#include "wire/bounds.h"
#include "wire/names.h"
#include "wire/order.h"
#include "world.h"
#include "xidata.h"

struct file {
    const char *name; /* in /dev/shm, without a slash; NULL: a memfd */
    int fd;           /* of a memfd; else -1 */
    uint64_t epoch;
    uint32_t number;
};

/* Calls `fn` for everything but the registry that a keeper has handed on. */
static void each_kept(struct world *w, void (*fn)(struct world *w, const struct file *file)) {
    uint32_t count;
    const struct kept *kept = keep_found(&count);
    for (uint32_t i = 0; i < count; i++)
        if (kept[i].number) fn(w, &(struct file){NULL, kept[i].fd, (uint32_t)w->epoch, kept[i].number});
}

/* Calls `fn` for every segment file of this namespace but the registry. Returns how many there were. */
static uint32_t each_file(struct world *w, void (*fn)(struct world *w, const struct file *file)) {
    uint32_t count = 0;
    DIR *dir = opendir("/dev/shm");
    const struct dirent *e;
    if (!dir) (void)want_or(xi_fail_errno(errno, "cannot list /dev/shm"));
    while (dir && (e = readdir(dir))) {
        uid_t uid;
        char ns[32];
        struct file file = {.name = e->d_name, .fd = -1};
        if (!xi_shm_name_parse(file.name, &uid, ns, &file.epoch, &file.number)) continue;
        if (uid != w->uid || strcmp(ns, w->ns) != 0 || !file.number) continue;
        fn(w, &file);
        count++;
    }
    if (dir) closedir(dir);
    return count;
}

static void remove_file(const char *file) {
    char name[XI_SHM_NAME_MAX + 1] = "/";
    strncat(name, file, XI_SHM_NAME_MAX - 1);
    xi_segment_remove(name, -1, 0);
}

static void remove_any(struct world *w, const struct file *file) {
    (void)w;
    remove_file(file->name);
}

/* False: it is too short. */
static bool read_at(int fd, void *to, size_t n, size_t at) {
    ssize_t got = pread(fd, to, n, (off_t)at);
    if (got < 0) (void)want_or(xi_fail_errno(errno, "cannot read a segment"));
    return got == (ssize_t)n;
}

/* Learns of a segment that its head confirms; removes what is of an earlier namespace, or is nothing. */
static void learn(struct world *w, const struct file *file) {
    char name[XI_SHM_NAME_MAX];
    struct xi_segment head = {0};
    struct stat st = {0};
    int fd = file->fd;
    world_name(w, name, file->number);
    bool ours = file->epoch == (uint32_t)w->epoch && (fd >= 0 || want_or(xi_segment_open(name, true, &fd)) == 0);
    if (ours && fstat(fd, &st) != 0) (void)want_or(xi_fail_errno(errno, "cannot look at a segment's size"));
    ours = ours && read_at(fd, &head, sizeof head, 0);
    ours = ours && head.magic == XI_LAYOUT_MAGIC && head.version == XI_LAYOUT_VERSION && head.epoch == w->epoch &&
           head.number == file->number && head.size == (uint64_t)st.st_size && head.size >= XI_PAGE &&
           head.size <= XI_PAGE + XI_ARENA_MAX && /* none is larger: so that it can be mapped */
           head.kind > XI_SEG_REGISTRY && head.kind <= XI_SEG_OPENED && head.owner < XI_MAX_INTERPS;
    /* Of a ring `gone` may have been said in doubt: see world_ring_idle(). */
    ours = ours && (head.kind == XI_SEG_RING || !xi_load_relaxed(&head.gone));
    uint64_t channel = 0;
    if (ours && head.kind == XI_SEG_RING)
        ours = read_at(fd, &channel, sizeof channel, offsetof(struct xi_ring_head, chan_id));
    if (fd >= 0 && (!ours || file->name)) close(fd);
    if (ours)
        world_know(w, file->number, head.kind, head.owner, head.size, file->fd)->channel = channel;
    else if (file->name)
        remove_file(file->name);
    else
        keep_drop(file->number);
}

static struct seg *known(const struct world *w, uint32_t number, uint32_t kind) {
    uint64_t *found = number ? table_find(&w->segs, number) : NULL;
    struct seg *s = found ? (struct seg *)(uintptr_t)*found : NULL;
    return s && s->kind == kind ? s : NULL;
}

/* ---- the registry ---- */

static const char *registry_fault(const struct world *w, const struct stat *file) {
    const struct xi_registry *r = w->registry;
    uint32_t limit = xi_load_relaxed(&((struct xi_registry *)(uintptr_t)r)->channel_limit);
    if (r->seg.magic != XI_LAYOUT_MAGIC || r->seg.kind != XI_SEG_REGISTRY) return "it is not a registry";
    if (r->seg.version != XI_LAYOUT_VERSION) return "it is of another version of xidata";
    if ((uint32_t)r->seg.epoch == 0) return "it has no epoch";
    if (limit > XI_MAX_CHANNELS || XI_REGISTRY_SIZE(limit) > (uint64_t)file->st_size)
        return "it is shorter than it says";
    if (r->uid != w->uid || strncmp(r->ns, w->ns, sizeof r->ns) != 0) return "it is of another namespace";
    if (xi_load_relaxed(&((struct xi_registry *)(uintptr_t)r)->state) != XI_NS_RUNNING)
        return "its broker died while removing or making it";
    return NULL;
}

#define DYING_MS 2000 /* at most: until the kernel is done with a process that was killed */

/*
 * Named segments are found by whoever has the same user and namespace, but the lock that a broker holds lies in the runtime
 * folder, of which there may be several (XI_RUNTIME_DIR). Two brokers of one namespace would each take the other's interpreters for
 * gone. So the broker that the registry names must have ended; one that is about to is waited for.
 */
static int check_alone(const struct world *w) {
    const struct xi_registry *r = w->registry;
    if (r->seg.magic != XI_LAYOUT_MAGIC || r->seg.version != XI_LAYOUT_VERSION || r->broker_pid <= 0 || r->broker_pid == getpid()) return 0;
    struct pollfd p = {.fd = proc_open(r->broker_pid, r->broker_start), .events = POLLIN};
    if (p.fd < 0) return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? xi_fail_errno(errno, "cannot look after an earlier broker") : 0;
    int n, failed = 0;
    do n = poll(&p, 1, DYING_MS);
    while (n < 0 && (errno == EINTR || (errno == ENOMEM && failed++ < 16))); /* no memory just now: it asks for a page at most */
    int err = errno;
    close(p.fd);
    if (n < 0) return xi_fail_errno(err, "cannot look after an earlier broker");
    if (n > 0) return 0; /* it has died */
    return xi_fail(XI_E_MISMATCH, "process %d serves namespace \"%s\" already, with another runtime folder (XI_RUNTIME_DIR): use the "
                   "same, or another namespace", r->broker_pid, w->ns);
}

/* 1: a sound registry is mapped; 0: none, or none that is sound; negative: cannot go on. */
static int open_registry(struct world *w) {
    char name[XI_SHM_NAME_MAX];
    struct stat st;
    uint32_t count;
    const struct kept *kept = keep_found(&count);
    world_name(w, name, 0);
    for (uint32_t i = 0; i < count; i++)
        if (kept[i].number == 0) w->registry_fd = kept[i].fd;
    w->memfd = w->registry_fd >= 0;
    int rc = w->memfd ? 0 : xi_segment_open(name, true, &w->registry_fd);
    if (rc == XI_E_NOENT) return 0;
    if (rc) return rc;
    if (fstat(w->registry_fd, &st) != 0) return xi_fail_errno(errno, "fstat of the registry");
    if (st.st_uid != w->uid)
        return xi_fail(XI_E_ACCESS,
                       "the registry /dev/shm%s belongs to user %u; ask them to remove it, or use another "
                       "namespace",
                       name, (unsigned)st.st_uid);
    const char *fault = "it is too short";
    if (st.st_size >= (off_t)sizeof(struct xi_registry)) {
        rc = world_map_registry(w);
        if (rc == 0 && !w->memfd) rc = check_alone(w);
        if (rc) return rc;
        fault = registry_fault(w, &st);
    }
    if (!fault) {
        w->epoch = w->registry->seg.epoch;
        w->registry_size = (uint64_t)st.st_size;
        return 1;
    }
    log_line("the registry that an earlier broker left cannot be adopted: %s; removing it", fault);
    world_deinit(w);
    return 0;
}

/* ---- interpreters ---- */

static void adopt_slots(struct world *w, struct state *st) {
    int64_t next = st->next_id;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        struct xi_slot *s = &w->registry->slots[i];
        uint32_t state = xi_load_relaxed(&s->state);
        struct adopted_interp found = {.slot = i,
                                       .id = xi_load_relaxed(&s->id),
                                       .pid = s->pid,
                                       .uid = s->uid,
                                       .start = s->start_time,
                                       .flags = s->flags & XI_JOIN_REQUIRES_REF,
                                       .refcount = xi_load_relaxed(&s->id_refcount),
                                       .orphan = state == XI_SLOT_ORPHAN,
                                       .used = (s->flags & XI_SLOT_USED) != 0};
        if (state != XI_SLOT_LIVE && state != XI_SLOT_ORPHAN) continue;
        if (found.id <= 0 || found.id >= next || found.pid <= 0 || table_find(&st->ids, (uint64_t)found.id)) {
            log_line("slot %u of the registry holds nonsense; cleared", i);
            world_set_slot(w, i, XI_SLOT_FREE);
            continue;
        }
        s->name[sizeof s->name - 1] = s->language[sizeof s->language - 1] = 0;
        found.told_end = xi_load_relaxed(&s->told_end) != 0;
        state_adopt_interp(st, &found);
    }
}

/* Owned by an adopted interpreter, under the number that the registry has, and whole? */
static bool belongs(struct world *w, const struct state *st, const struct seg *s) {
    const struct interp *in = &st->interps[s->slot];
    const struct xi_slot *slot = &w->registry->slots[s->slot];
    if (!s->slot || in->life == INTERP_FREE) return false;
    switch (s->kind) {
    case XI_SEG_OWN: return in->life == INTERP_LIVE && slot->own_seg == s->number && s->size == XI_OWN_SIZE;
    case XI_SEG_MAILBOX: return in->life == INTERP_LIVE && slot->mailbox_seg == s->number && s->size == XI_MAILBOX_SIZE;
    case XI_SEG_BORROWS: return in->life == INTERP_LIVE;
    case XI_SEG_ARENA: {
        struct seg *release = known(w, s->number + 1, XI_SEG_RELEASE);
        return s->number % 2 == 0 && release && release->slot == s->slot && release->size == XI_RELEASE_SIZE(s->size);
    }
    case XI_SEG_RELEASE: return known(w, s->number - 1, XI_SEG_ARENA) != NULL;
    default: return false;
    }
}

static bool read_head(struct world *w, const struct seg *s, struct xi_segment *head) {
    int fd;
    if (want_or(world_open(w, s->number, false, &fd)) != 0) return false;
    bool whole = read_at(fd, head, sizeof *head, 0);
    close(fd);
    return whole;
}

/* Segment heads name a slot and an id: the slot may have another tenant by now. */
static bool head_names(struct world *w, const struct state *st, const struct seg *s) {
    struct xi_segment head;
    return read_head(w, s, &head) && head.owner_id == st->interps[s->slot].id;
}

/* Segments that belong to channels are looked at with those. */
static bool is_channels(const struct seg *s) {
    return s->kind == XI_SEG_CHANNEL || s->kind == XI_SEG_ACKS || s->kind == XI_SEG_RING;
}

static bool is_brokers(const struct seg *s) { return s->kind == XI_SEG_OPENED && s->number == OPENED_NUMBER; }

static void adopt_owned(struct world *w, struct state *st, const uint64_t *numbers, uint32_t count) {
    for (int pass = 0; pass < 2; pass++) /* removing an arena makes its release words nobody's */
        for (uint32_t i = 0; i < count; i++) {
            uint64_t *found = table_find(&w->segs, numbers[i]);
            struct seg *s = found ? (struct seg *)(uintptr_t)*found : NULL;
            if (s && !is_channels(s) && !is_brokers(s) && (!belongs(w, st, s) || !head_names(w, st, s)))
                world_remove(w, s->number, true);
        }
    for (uint32_t i = 0; i < count; i++) {
        uint64_t *found = table_find(&w->segs, numbers[i]);
        struct seg *s = found ? (struct seg *)(uintptr_t)*found : NULL;
        if (!s || is_channels(s) || is_brokers(s) || s->kind == XI_SEG_RELEASE) continue;
        struct xi_segment head = {0};
        uint32_t asked = read_head(w, s, &head) ? head.asked : 0;
        struct held h = {s->number, s->kind, s->size,
                         s->size + (s->kind == XI_SEG_ARENA ? XI_RELEASE_SIZE(s->size) : 0), asked};
        state_adopt_segment(st, s->slot, &h);
    }
}

/* An orphan without arenas is none. */
static void drop_empty_orphans(struct world *w, struct state *st) {
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        struct interp *in = &st->interps[i];
        if (in->life != INTERP_ORPHAN || in->held_count) continue;
        state_step(st, &(struct event){.kind = EVENT_UNNAMED, .slot = i, .id = in->id});
        world_set_slot(w, i, XI_SLOT_FREE);
    }
}

/* ---- channels ---- */

static bool adopt_channel(struct world *w, struct state *st, uint32_t index, struct table *ids) {
    const struct xi_chan_entry *e = &w->registry->channels[index];
    struct chan ch = {.id = xi_load_relaxed(&w->registry->channels[index].id),
                      .segment = e->segment,
                      .mode = e->mode,
                      .capacity = e->capacity,
                      .told_producers = xi_load_relaxed(&w->registry->channels[index].producers),
                      .told_consumers = xi_load_relaxed(&w->registry->channels[index].consumers),
                      .removed = xi_load_relaxed(&w->registry->channels[index].removed) != 0,
                      .uid = e->owner};
    struct xi_chan_view view;
    memcpy(ch.name, e->name, sizeof ch.name);
    memcpy(ch.access, e->access, sizeof ch.access);
    if (!xi_access_valid(ch.access)) return false;
    if (!memchr(ch.name, 0, sizeof ch.name) || !xi_channel_name_valid(ch.name, XI_NAME_MAX)) return false;
    if (ch.id >= st->next_channel || table_find(ids, ch.id)) return false;
    if (ch.capacity < XI_PAGE || ch.capacity > XI_CAPACITY_MAX || !known(w, ch.segment, XI_SEG_CHANNEL)) return false;
    if (!world_view(w, &ch, &view) || view.chan->id != ch.id || view.chan->mode != ch.mode) return false;
    ch.grow_max = view.chan->grow_max; /* once: members may write there */
    ch.retains = view.chan->retain != 0;
    if (ch.grow_max && (ch.grow_max < ch.capacity || ch.grow_max > XI_GROW_MAX || !xi_is_pow2(ch.grow_max))) return false;
    /* The earlier broker may have died between saying it here and there. */
    xi_store_full(&view.chan->producers, ch.told_producers);
    xi_store_full(&view.chan->consumers, ch.told_consumers);
    *table_put(ids, ch.id) = 1;
    state_adopt_channel(st, index, &ch);
    return true;
}

static void adopt_channels(struct world *w, struct state *st) {
    struct table ids = {0};
    uint32_t limit = xi_load_relaxed(&w->registry->channel_limit);
    for (uint32_t i = 0; i < limit; i++) {
        uint64_t id = xi_load_relaxed(&w->registry->channels[i].id);
        if (!id || adopt_channel(w, st, i, &ids)) {
            if (id) world_publish_channel(w, st, i);
            world_trim(w);
            continue;
        }
        log_line("channel %llu of the registry has no sound segment; removed", (unsigned long long)id);
        world_clear_channel(w, i);
    }
    table_clear(&ids);
    state_adopt_done(st);
}

/* Index of the channel that lies in this segment, or -1. */
static int64_t channel_in(const struct state *st, uint32_t segment) {
    for (uint32_t i = 0; segment && i < st->chan_capacity; i++)
        if (st->chans[i].id && st->chans[i].segment == segment) return i;
    return -1;
}

/* Whether it is in use is found out when all is adopted. */
static void adopt_ring(struct world *w, struct state *st, const struct seg *s) {
    struct part p = {.number = s->number, .kind = s->kind, .size = s->size, .uid = w->uid};
    int64_t index = state_channel_index(st, s->channel);
    uint64_t capacity = s->size - XI_PAGE;
    if (index >= 0 && xi_is_pow2(capacity) && capacity <= st->chans[index].grow_max)
        state_adopt_part(st, (uint32_t)index, &p);
}

static void adopt_acks(struct world *w, struct state *st, const struct seg *s) {
    struct part p = {.number = s->number, .kind = s->kind, .size = s->size, .uid = w->uid};
    struct xi_acks head;
    uint64_t window;
    int fd;
    if (want_or(world_open(w, s->number, false, &fd)) != 0) return;
    bool read = read_at(fd, &head, sizeof head, 0);
    close(fd);
    int64_t index = read ? channel_in(st, head.chan_seg) : -1;
    if (index < 0 || !world_acks(w, s->number, st->chans[index].segment, &window)) return;
    p.maker = head.maker;
    state_adopt_part(st, (uint32_t)index, &p);
}

static void adopt_parts(struct world *w, struct state *st, const uint64_t *numbers, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const struct seg *acks = known(w, (uint32_t)numbers[i], XI_SEG_ACKS);
        const struct seg *ring = known(w, (uint32_t)numbers[i], XI_SEG_RING);
        if (acks) adopt_acks(w, st, acks);
        if (ring) adopt_ring(w, st, ring);
        world_trim(w);
    }
}

/* Of what belongs to channels, that which is no channel's. */
static void remove_strays(struct world *w, const struct state *st, const uint64_t *numbers, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint64_t *found = table_find(&w->segs, numbers[i]);
        struct seg *s = found ? (struct seg *)(uintptr_t)*found : NULL;
        if (s && is_channels(s) && !table_find(&st->segments, numbers[i])) world_remove(w, s->number, true);
    }
}

/* ---- who has opened what, in a namespace that is open to other users ---- */

static int map_opened(struct world *w) {
    if (!(w->registry->flags & XI_NS_OPEN)) return 0;
    struct seg *s = known(w, OPENED_NUMBER, XI_SEG_OPENED);
    if (!s || s->size != sizeof(struct xi_opened))
        return xi_fail(XI_E_CORRUPT, "it is not known what the interpreters of this open namespace have opened");
    return world_map_opened(w, s->fd);
}

static void adopt_opened(struct world *w, struct state *st) {
    for (uint32_t slot = 1; w->opened && slot < XI_MAX_INTERPS; slot++)
        for (uint32_t i = 0; st->interps[slot].life != INTERP_FREE && i < XI_MAX_CHANNELS; i++) {
            uint32_t rights = world_opened(w, slot, i);
            if (rights && i < st->chan_capacity && st->chans[i].id)
                state_adopt_opened(st, slot, i, rights);
            else if (rights)
                world_forget_opened(w, st, i);
        }
}

/* ---- */

#define COUNTER_MOST ((uint64_t)1 << 62) /* further nobody has counted who began at 1 */

/* The next id of interpreters, if it can be one; else the one after the largest that is borne. */
static uint64_t next_interp(const struct world *w) {
    uint64_t next = (uint64_t)xi_load_relaxed(&w->registry->next_id), largest = 0;
    if (next != 0 && next < COUNTER_MOST) return next;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        uint64_t id = (uint64_t)xi_load_relaxed(&w->registry->slots[i].id);
        if (id < COUNTER_MOST && id > largest) largest = id;
    }
    return largest + 1;
}

/* Likewise of channels. */
static uint64_t next_channel(const struct world *w) {
    uint64_t next = xi_load_relaxed(&w->registry->next_channel_id), largest = 0;
    uint32_t limit = xi_load_relaxed(&w->registry->channel_limit);
    if (next != 0 && next < COUNTER_MOST) return next;
    for (uint32_t i = 0; i < limit; i++) {
        uint64_t id = xi_load_relaxed(&w->registry->channels[i].id);
        if (id < COUNTER_MOST && id > largest) largest = id;
    }
    return largest + 1;
}

/* Counters that are at least beyond everything that bears a number; those of segments end where no more are given out. */
static void adopt_counters(struct world *w, struct state *st, const uint64_t *numbers, uint32_t count) {
    uint64_t next = xi_load_relaxed(&w->registry->next_segment);
    if (next < 2) next = 2;
    for (uint32_t i = 0; i < count; i++)
        if (numbers[i] >= next) next = numbers[i] + 2;
    (void)xi_round_up_u64(next, 2, &next);
    if (next > UINT32_MAX - 1) next = UINT32_MAX - 1;
    state_adopt_counters(st, (int64_t)next_interp(w), (uint32_t)next, next_channel(w));
}

static void world_blank(struct world *w, const char *ns, uid_t uid) {
    *w = (struct world){.uid = uid, .registry_fd = -1};
    memcpy(w->ns, ns, strnlen(ns, sizeof w->ns - 1));
}

static bool remove_leftovers(struct world *w) {
    char name[XI_SHM_NAME_MAX];
    world_name(w, name, 0);
    xi_segment_remove(name, -1, 0);
    uint32_t count = each_file(w, remove_any);
    if (count)
        log_line("removed %u segment%s that an earlier broker left behind; starting afresh", count,
                 count == 1 ? "" : "s");
    return count > 0;
}

/* Without their registry the kept are nothing. (It is closed by who found it unsound.) */
static void drop_kept(void) {
    uint32_t count;
    const struct kept *kept = keep_found(&count);
    for (uint32_t i = 0; i < count; i++) {
        keep_drop(kept[i].number);
        if (kept[i].number) close(kept[i].fd);
    }
    if (count) log_line("dropped %u segment%s that were kept for a namespace that is not there", count, count == 1 ? "" : "s");
}

int world_adopt(struct world *w, const char *ns, uid_t uid, struct state *st) {
    world_blank(w, ns, uid);
    int rc = open_registry(w);
    if (rc < 0) return rc;
    if (rc == 0) {
        world_blank(w, ns, uid);
        drop_kept();
        return remove_leftovers(w) ? 2 : 0;
    }
    if (w->memfd)
        each_kept(w, learn);
    else
        drop_kept();
    if (!w->memfd) (void)each_file(w, learn);
    if ((rc = map_opened(w)) != 0) return rc;
    uint32_t count = 0;
    uint64_t *numbers = memory_or_die(NULL, w->segs.count + 1u, sizeof *numbers), key, value;
    for (uint32_t at = 0; table_next(&w->segs, &at, &key, &value);) numbers[count++] = key;
    adopt_counters(w, st, numbers, count);
    adopt_slots(w, st);
    adopt_owned(w, st, numbers, count);
    drop_empty_orphans(w, st);
    adopt_channels(w, st);
    adopt_parts(w, st, numbers, count);
    remove_strays(w, st, numbers, count);
    adopt_opened(w, st);
    free(numbers);
    return 1;
}
