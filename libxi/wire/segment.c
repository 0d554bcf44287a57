/* SPDX-License-Identifier: MIT */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../error.h"
#include "../xidata.h"
#include "bounds.h"
#include "names.h"
#include "order.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u /* Linux 6.3 */
#endif

/*
 * Mode 0600: who gets a read-only descriptor and is of another user cannot open it again for writing by way of
 * /proc/self/fd. Never executable, which some kernels demand (vm.memfd_noexec) and others do not know yet.
 */
static int make_memfd(void) {
    int fd = memfd_create("xidata", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) fd = memfd_create("xidata", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || fchmod(fd, 0600) == 0) return fd;
    int err = errno;
    close(fd);
    errno = err;
    return -1;
}

/*
 * Backs the first `reserve` bytes with memory and writes what they begin with: an errno, or 0. Either way no hole is left in
 * them: on a full tmpfs a file that was only made so large would be SIGBUS at a store, later. With `filled` all of them are
 * at `head`, and writing them is what backs them.
 */
static int back(int fd, const struct xi_segment *head, uint64_t reserve, bool filled) {
    int err = 0;
    if (!filled) {
        do err = posix_fallocate(fd, 0, (off_t)reserve); /* which sets the size as well */
        while (err == EINTR);
    }
    if (err == 0 && (filled || reserve < head->size) && ftruncate(fd, (off_t)head->size) != 0) err = errno;
    if (err) return err;
    size_t size = filled ? reserve : sizeof *head;
    ssize_t n = pwrite(fd, head, size, 0);
    return n == (ssize_t)size ? 0 : n < 0 ? errno : ENOSPC;
}

static int make(const char *name, const struct xi_segment *head, uint64_t reserve, bool filled, int *out) {
    int fd = name ? shm_open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600) : make_memfd();
    if (fd < 0) return xi_fail_errno(errno, "cannot make a shared-memory segment");
    int err = back(fd, head, reserve, filled);
    /* Nobody who has it can take pages from under the others. The registry, which the broker alone can write, grows. */
    int seals = F_SEAL_SHRINK | F_SEAL_SEAL | (head->kind == XI_SEG_REGISTRY ? 0 : F_SEAL_GROW);
    if (err == 0 && !name && fcntl(fd, F_ADD_SEALS, seals) != 0) err = errno;
    if (err) {
        close(fd);
        if (name) shm_unlink(name);
        return xi_fail_errno(err, "cannot reserve a shared-memory segment");
    }
    *out = fd;
    return 0;
}

int xi_segment_make(const char *name, const struct xi_segment *head, int *fd) {
    return make(name, head, head->size, false, fd);
}

int xi_segment_make_sparse(const char *name, const struct xi_segment *head, uint64_t reserve, int *fd) {
    return make(name, head, reserve, false, fd);
}

int xi_segment_make_filled(const char *name, const struct xi_segment *first, uint64_t reserve, int *fd) {
    return make(name, first, reserve, true, fd);
}

int xi_segment_reserve(int fd, uint64_t from, uint64_t length) {
    int err;
    do err = posix_fallocate(fd, (off_t)from, (off_t)length);
    while (err == EINTR);
    return err ? xi_fail_errno(err, "cannot reserve a shared-memory segment") : 0;
}

int xi_segment_open(const char *name, bool writable, int *out) {
    int fd = shm_open(name, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);
    if (fd < 0) {
        char what[XI_SHM_NAME_MAX + 32];
        int err = errno;
        snprintf(what, sizeof what, "cannot open shared memory %s", name);
        return xi_fail_errno(err, what);
    }
    *out = fd;
    return 0;
}

static int check_head(const struct xi_segment *h, uint64_t real_size, const struct xi_expect *want) {
    const char *wrong = NULL;
    if (h->magic != XI_LAYOUT_MAGIC) wrong = "is not a xidata segment";
    else if (h->version != XI_LAYOUT_VERSION) wrong = "has another layout version; use one version of xidata on both sides";
    else if (h->size != real_size) wrong = "is not of the size it claims";
    else if (want->kind && h->kind != want->kind) wrong = "is of another kind";
    else if (want->epoch && h->epoch != want->epoch) wrong = "belongs to an earlier namespace";
    else if (want->number && h->number != want->number) wrong = "has another number";
    if (wrong) return xi_fail(XI_E_CORRUPT, "segment %08x %s", want->number, wrong);
    return 0;
}

/* Of what a segment begins with, as much as says what it is. */
union first {
    struct xi_segment head;
    struct {
        struct xi_segment head;
        uint64_t chan_id;
    } ring;
    uint8_t bytes[offsetof(struct xi_chan, dead) + sizeof((struct xi_chan *)0)->dead];
};
static_assert(offsetof(struct xi_ring_head, chan_id) == sizeof(struct xi_segment), "behind the head, as read");

/* Reads it, and checks the head, through the descriptor, before anything is mapped. `backed`: the bytes that have memory. */
static int read_first(int fd, const struct xi_expect *want, union first *first, uint64_t *backed) {
    struct xi_segment *head = &first->head;
    struct stat st;
    if (fstat(fd, &st) != 0) return xi_fail_errno(errno, "cannot look at a segment's size");
    if (st.st_size < XI_PAGE || st.st_size % XI_PAGE != 0)
        return xi_fail(XI_E_CORRUPT, "segment %08x has a size of %lld bytes", want->number, (long long)st.st_size);
    if (want->size && (uint64_t)st.st_size != want->size)
        return xi_fail(XI_E_CORRUPT, "segment %08x is not of the size that it had", want->number);
    *backed = (uint64_t)st.st_blocks * 512;
    ssize_t n = pread(fd, first, sizeof *first, 0);
    if (n < 0) return xi_fail_errno(errno, "cannot read a segment's head");
    if (n != (ssize_t)sizeof *first) return xi_fail(XI_E_CORRUPT, "segment %08x ends within its head", want->number);
    if (want->kind == XI_SEG_REGISTRY) { /* the one segment that grows */
        if (head->magic == XI_LAYOUT_MAGIC && head->size > (uint64_t)st.st_size)
            return xi_fail(XI_E_CORRUPT, "the registry is smaller than it claims");
        return check_head(head, head->size, want);
    }
    return check_head(head, (uint64_t)st.st_size, want);
}

int xi_segment_map(int fd, bool writable, bool populate, const struct xi_expect *want, struct xi_map *out) {
    union first first;
    uint64_t backed;
    int rc = read_first(fd, want, &first, &backed);
    const struct xi_segment head = first.head;
    if (rc) return rc;
    int flags = MAP_SHARED | (populate ? MAP_POPULATE : 0);
    void *base = mmap(NULL, head.size, PROT_READ | (writable ? PROT_WRITE : 0), flags, fd, 0);
    if (base == MAP_FAILED) return xi_fail_errno(errno, "cannot map a segment");
    /* A forked child has no business here. An arena's data it may read on: its parent handed out views of it. */
    if (head.kind != XI_SEG_ARENA) madvise(base, head.size, MADV_DONTFORK);
    *out = (struct xi_map){base, head.size, head.size, false, head};
    return 0;
}

#define STATIC_LINE (offsetof(struct xi_chan_fixed, dead))
static_assert(STATIC_LINE == offsetof(struct xi_chan, lock) - offsetof(struct xi_chan, id) &&
                  offsetof(struct xi_chan_fixed, when_full) ==
                      offsetof(struct xi_chan, when_full) - offsetof(struct xi_chan, id),
              "but for `dead`, one line as it lies in the channel");

void xi_fill_channel(const struct xi_chan_fixed *f, struct xi_chan *chan) {
    memcpy(&chan->id, f, STATIC_LINE);
    memcpy(chan->dead, f->dead, sizeof chan->dead);
}

static bool fixed_valid(const struct xi_chan_fixed *f, uint64_t segment_size) {
    bool ring = f->capacity >= XI_PAGE && f->capacity <= XI_CAPACITY_MAX && xi_is_pow2(f->capacity) &&
                f->ring_offset == XI_RING_OFFSET && segment_size == XI_RING_OFFSET + f->capacity &&
                f->inline_max == XI_INLINE_MAX(f->capacity);
    bool grow = f->grow_max == 0 ||
                (f->grow_max >= f->capacity && f->grow_max <= XI_GROW_MAX && xi_is_pow2(f->grow_max));
    bool dead = memchr(f->dead, 0, sizeof f->dead) && (!f->dead[0] || xi_channel_name_valid(f->dead, XI_NAME_MAX));
    return ring && grow && dead && (f->mode == XI_QUEUE || f->mode == XI_BROADCAST) && f->ttl_ns >= 0 &&
           f->when_full <= XI_FULL_DROP;
}

/* From what a channel begins with. */
static int read_fixed(const uint8_t *first, uint64_t size, uint32_t number, struct xi_chan_fixed *out) {
    memcpy(out, first + offsetof(struct xi_chan, id), STATIC_LINE);
    memcpy(out->dead, first + offsetof(struct xi_chan, dead), sizeof out->dead);
    if (fixed_valid(out, size)) return 0;
    return xi_fail(XI_E_CORRUPT, "channel segment %08x describes itself wrongly", number);
}

int xi_check_channel(const struct xi_chan *chan, uint64_t size, const struct xi_expect *want, struct xi_chan_fixed *fixed) {
    int rc = check_head(&chan->seg, size, want);
    return rc ? rc : read_fixed((const uint8_t *)chan, size, want->number, fixed);
}

enum ring { HERE, BARE, NOT_HERE }; /* backed; to be backed before it is touched; zeros in its place */

/* The segment itself, or where its ring is NOT_HERE what is before that, with as much again as the ring behind. */
static uint8_t *map_once(int fd, size_t offset, size_t mapped, int flags, enum ring ring) {
    if (ring != NOT_HERE) return mmap(NULL, mapped, PROT_READ | PROT_WRITE, flags, fd, 0);
    uint8_t *base = mmap(NULL, mapped, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED || mmap(base, offset, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0) != MAP_FAILED) return base;
    int err = errno;
    munmap(base, mapped);
    errno = err;
    return MAP_FAILED;
}

/* All of the segment, and behind it its ring, which begins at `offset`, once more. */
static int map_twice(int fd, const struct xi_segment *head, uint64_t offset, bool populate, enum ring ring, struct xi_map *out) {
    size_t capacity = head->size - offset, mapped = head->size + capacity;
    int flags = MAP_SHARED | (populate ? MAP_POPULATE : 0);
    uint8_t *base = map_once(fd, offset, mapped, flags, ring); /* what it has beyond its end is replaced at once */
    if (base == MAP_FAILED) return xi_fail_errno(errno, "cannot map a channel");
    if (ring != NOT_HERE &&
        mmap(base + head->size, capacity, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED) {
        int rc = xi_fail_errno(errno, "cannot map a channel");
        munmap(base, mapped);
        return rc;
    }
    madvise(base, mapped, MADV_DONTFORK);
    *out = (struct xi_map){base, head->size, mapped, ring != HERE, *head};
    return 0;
}

/* Pages that somebody has written to, or reserved, whichever. */
static int backed(int fd, uint64_t size, bool *out) {
    struct stat st;
    if (fstat(fd, &st) != 0) return xi_fail_errno(errno, "cannot look at a segment's size");
    *out = (uint64_t)st.st_blocks * 512 >= size;
    return 0;
}

/* True if xi_map_back() works here; it is asked for no bytes. */
static bool can_back(void) {
    static _Atomic int known;
    int can = atomic_load_explicit(&known, memory_order_relaxed);
    if (can == 0) {
        can = madvise(NULL, 0, MADV_POPULATE_WRITE) == 0 ? 1 : -1;
        atomic_store_explicit(&known, can, memory_order_relaxed);
    }
    return can > 0;
}

int xi_map_channel(int fd, bool looks, const struct xi_expect *want, struct xi_map *out, struct xi_chan_fixed *fixed) {
    union first first;
    struct xi_expect expect = *want;
    struct xi_chan_fixed s;
    uint64_t has;
    expect.kind = XI_SEG_CHANNEL;
    int rc = read_first(fd, &expect, &first, &has);
    if (rc) return rc;
    const struct xi_segment *head = &first.head;
    if ((rc = read_fixed(first.bytes, head->size, want->number, &s))) return rc;
    bool here = has >= head->size;
    if (!here && !looks && !can_back()) {
        rc = xi_segment_reserve(fd, s.ring_offset, s.capacity);
        here = true;
    }
    if (rc == 0) rc = map_twice(fd, head, s.ring_offset, here && !looks, here ? HERE : looks ? NOT_HERE : BARE, out);
    if (rc == 0 && fixed) *fixed = s;
    return rc;
}

/*
 * Not posix_fallocate: cut short by a signal that takes back what it has reserved, and with it what another had reserved
 * at the same time and is about to use.
 */
int xi_map_back(const struct xi_map *map) {
    uint8_t *ring = (uint8_t *)map->base + XI_RING_OFFSET;
    size_t both = map->mapped - XI_RING_OFFSET;
    int rc;
    do rc = madvise(ring, both, MADV_POPULATE_WRITE);
    while (rc != 0 && errno == EINTR);
    if (rc == 0) return 0;
    return xi_fail_errno(errno == EFAULT ? ENOSPC : errno, "cannot reserve a channel's ring");
}

int xi_map_ring_in(int fd, struct xi_map *map) {
    size_t capacity = map->size - XI_RING_OFFSET;
    uint8_t *ring = (uint8_t *)map->base + XI_RING_OFFSET;
    bool here = !map->bare;
    int rc = here ? 0 : backed(fd, map->size, &here);
    if (rc || !here || !map->bare) return rc;
    for (int i = 0; i < 2; i++)
        if (mmap(ring + (size_t)i * capacity, capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, XI_RING_OFFSET) == MAP_FAILED)
            return xi_fail_errno(errno, "cannot map a channel's ring");
    madvise(ring, 2 * capacity, MADV_DONTFORK);
    map->bare = false;
    return 0;
}

int xi_map_ring(int fd, uint64_t chan_id, const struct xi_expect *want, struct xi_map *out) {
    union first first;
    struct xi_expect expect = *want;
    uint64_t has;
    expect.kind = XI_SEG_RING;
    int rc = read_first(fd, &expect, &first, &has);
    if (rc) return rc;
    const struct xi_segment *head = &first.head;
    uint64_t capacity = head->size - XI_PAGE;
    if (first.ring.chan_id != chan_id || !xi_is_pow2(capacity) || capacity < XI_PAGE || capacity > XI_GROW_MAX)
        return xi_fail(XI_E_CORRUPT, "ring segment %08x describes itself wrongly", want->number);
    /* A hole in it would be SIGBUS on a full /dev/shm: it was not reserved, or is being removed just now. */
    if (has < head->size)
        return xi_fail(XI_E_CORRUPT, "ring segment %08x is not backed by memory", want->number);
    return map_twice(fd, head, XI_PAGE, false, HERE, out);
}

void xi_unmap(struct xi_map *map) {
    if (map->base) munmap(map->base, map->mapped);
    *map = (struct xi_map){0};
}

/*
 * What is given back at once begins there. Whoever still has a message of an acknowledging group looks, under the group's lock,
 * whether its delivery is its own, though channel and table may be gone: in a hole that would take memory anew.
 */
static off_t given_back_from(uint32_t kind, const struct stat *st) {
    return kind == XI_SEG_CHANNEL ? (off_t)XI_RING_OFFSET : kind == XI_SEG_ACKS ? st->st_size : XI_PAGE;
}

static void empty(int fd, uint32_t kind) {
    struct xi_segment head = {.kind = kind};
    struct stat st;
    const uint32_t gone = 1;
    if (fstat(fd, &st) != 0 || st.st_size < XI_PAGE) return;
    if (!kind && pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head) return;
    if (pwrite(fd, &gone, sizeof gone, offsetof(struct xi_segment, gone)) != (ssize_t)sizeof gone) return;
    off_t from = given_back_from(head.kind, &st);
    if (from < st.st_size) (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, st.st_size - from);
}

void xi_segment_remove(const char *name, int fd, uint32_t kind) {
    int own = -1;
    if (fd < 0 && name) fd = own = shm_open(name, O_RDWR | O_CLOEXEC, 0);
    if (fd >= 0) empty(fd, kind);
    if (name) shm_unlink(name);
    if (own >= 0) close(own);
}
