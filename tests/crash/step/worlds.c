/* SPDX-License-Identifier: MIT */
/* Files, pictures of them, and their copies; the header has the model. */
#include "worlds.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "../../system/harness.h"
#include "wire/layout.h"
#include "wire/names.h"

/* Blocks of these scenes lie in the first pages of their arena, and the records of a ring that has grown at its beginning. */
#define ARENA_KEPT ((size_t)XI_PAGE + 3 * 65536)
#define RING_KEPT ((size_t)65536)

static size_t kept_of(uint32_t kind, size_t size) {
    size_t kept = size;
    if (kind == XI_SEG_ARENA) kept = ARENA_KEPT;
    if (kind == XI_SEG_RELEASE) kept = XI_PAGE + ARENA_KEPT / XI_GRANULE * sizeof(struct xi_release);
    if (kind == XI_SEG_RING) kept = RING_KEPT;
    return kept < size ? kept : size;
}

/* ------------------------------------------------------------- the live one */

static int segment_index(const struct image *m, uint32_t number) {
    for (unsigned i = 0; i < m->count; i++)
        if (m->seg[i].number == number) return (int)i;
    return -1;
}

/* False: it is gone again. One that is just being made has no kind yet, and may be of any size. */
static bool segment_open(struct segment *s, const char *file, uint32_t number) {
    char path[sizeof "/dev/shm/" + 255];
    struct stat st;
    snprintf(path, sizeof path, "/dev/shm/%s", file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    must_sys(fstat(fd, &st));
    struct xi_segment head = {0};
    size_t size = (size_t)st.st_size;
    bool whole = size >= XI_PAGE && pread(fd, &head, sizeof head, 0) == (ssize_t)sizeof head && head.magic == XI_LAYOUT_MAGIC;
    void *base = size ? mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0) : NULL;
    expect(base != MAP_FAILED, "mmap: %s", strerror(errno));
    if (size) must_sys(madvise(base, size, MADV_DONTFORK));
    *s = (struct segment){number, whole ? head.kind : 0, size, whole ? kept_of(head.kind, size) : 0, base};
    close(fd);
    return true;
}

static void segment_close(struct segment *s) {
    if (s->size) munmap((void *)(uintptr_t)s->live, s->size);
}

/* One that was being made when it was seen: by now it may be more. */
static bool segment_look_again(struct segment *s, const char *file) {
    struct segment now;
    if (s->kind || !segment_open(&now, file, s->number)) return false;
    bool changed = now.kind != s->kind || now.size != s->size;
    segment_close(s);
    *s = now;
    return changed;
}

static bool of_namespace(const char *file, const char *ns, uint32_t *number) {
    char name[32];
    uid_t uid;
    uint64_t epoch;
    return xi_shm_name_parse(file, &uid, name, &epoch, number) && uid == getuid() && strcmp(name, ns) == 0;
}

bool image_scan(struct image *m) {
    bool seen[SEGMENTS_MAX] = {false}, changed = false;
    DIR *dir = opendir("/dev/shm");
    expect(dir != NULL, "opendir /dev/shm: %s", strerror(errno));
    for (struct dirent *e; (e = readdir(dir));) {
        uint32_t number;
        if (!of_namespace(e->d_name, m->ns, &number)) continue;
        int at = segment_index(m, number);
        if (at < 0) {
            expect(m->count < SEGMENTS_MAX, "more than %d segments", SEGMENTS_MAX);
            if (!segment_open(&m->seg[m->count], e->d_name, number)) continue;
            at = (int)m->count++;
            changed = true;
        } else if (segment_look_again(&m->seg[at], e->d_name)) {
            changed = true;
        }
        seen[at] = true;
    }
    closedir(dir);
    for (unsigned i = m->count; i-- > 0;) {
        if (seen[i]) continue;
        segment_close(&m->seg[i]);
        m->seg[i] = m->seg[--m->count]; /* that one was looked at already */
        changed = true;
    }
    return changed;
}

void image_close(struct image *m) {
    for (unsigned i = 0; i < m->count; i++) segment_close(&m->seg[i]);
    m->count = 0;
}

/* True if the ring is some channel's, and not one that is being filled. */
static bool in_use(const struct image *m, uint32_t ring) {
    for (unsigned i = 0; i < m->count; i++) {
        const struct xi_chan *c = (const void *)m->seg[i].live;
        if (m->seg[i].kind == XI_SEG_CHANNEL && XI_RING_SEGMENT(c->ring) == ring) return true;
    }
    return false;
}

/* The bytes that count as state: not what only tools read, nor data that nobody but its writer knows of yet. */
static bool counts(const struct image *m, const struct segment *s, bool broker, size_t *from) {
    *from = 0;
    if (s->kind == 0 || s->kind == XI_SEG_ARENA) return false;
    if (s->kind == XI_SEG_OWN) *from = offsetof(struct xi_own, borrows);
    if (s->kind == XI_SEG_RELEASE) *from = XI_PAGE;
    if (s->kind == XI_SEG_RING) return in_use(m, s->number);
    return s->kind != XI_SEG_REGISTRY || broker;
}

bool image_differs(const struct image *m, const struct picture *p, bool broker) {
    size_t from;
    for (unsigned i = 0; i < m->count; i++)
        if (counts(m, &m->seg[i], broker, &from) &&
            memcmp(m->seg[i].live + from, p->piece[i].bytes + from, m->seg[i].kept - from) != 0)
            return true;
    return false;
}

/* ---------------------------------------------------------------- pictures */

struct blob {
    unsigned users;
    uint8_t bytes[];
};

static struct blob *blob_new(const uint8_t *bytes, size_t n) {
    struct blob *b = malloc(sizeof *b + n);
    expect(b != NULL, "no memory");
    b->users = 1;
    memcpy(b->bytes, bytes, n);
    return b;
}
static void blob_drop(struct blob *b) {
    if (--b->users == 0) free(b);
}

void picture_take(struct picture *p, const struct image *m, const struct picture *last) {
    for (unsigned i = 0; i < m->count; i++) {
        const struct segment *s = &m->seg[i];
        const struct piece *old = last ? picture_piece(last, s->number) : NULL;
        struct blob *blob = old && old->kept == s->kept && memcmp(old->bytes, s->live, s->kept) == 0 ? old->blob : NULL;
        if (blob) blob->users++;
        else blob = blob_new(s->live, s->kept);
        p->piece[i] = (struct piece){s->number, s->kind, s->size, s->kept, blob, blob->bytes};
    }
    p->count = m->count;
}

void picture_copy(struct picture *to, const struct picture *from) {
    *to = *from;
    for (unsigned i = 0; i < to->count; i++) to->piece[i].blob->users++;
}

void picture_drop(struct picture *p) {
    for (unsigned i = 0; i < p->count; i++) blob_drop(p->piece[i].blob);
    p->count = 0;
}

const struct piece *picture_piece(const struct picture *p, uint32_t number) {
    for (unsigned i = 0; i < p->count; i++)
        if (p->piece[i].number == number) return &p->piece[i];
    return NULL;
}

bool picture_alike(const struct picture *a, const struct picture *b) {
    for (unsigned i = 0; i < a->count && a->count == b->count; i++)
        if (a->piece[i].number != b->piece[i].number || a->piece[i].size != b->piece[i].size) return false;
    return a->count == b->count;
}

void picture_apply(struct picture *to, const struct picture *before, const struct picture *after) {
    for (unsigned i = 0; i < to->count; i++) {
        struct piece *t = &to->piece[i];
        const struct piece *b = &before->piece[i], *a = &after->piece[i];
        if (a->blob == b->blob) continue;
        struct blob *own = blob_new(t->bytes, t->kept);
        for (size_t k = 0; k < t->kept; k += 4) /* words are of 4 bytes at least */
            if (memcmp(b->bytes + k, a->bytes + k, 4) != 0) memcpy(own->bytes + k, a->bytes + k, 4);
        blob_drop(t->blob);
        t->blob = own;
        t->bytes = own->bytes;
    }
}

/* ------------------------------------------------------------------ copies */

static void file_name(char out[XI_SHM_NAME_MAX + 16], const char *ns, uint64_t epoch, uint32_t number) {
    char name[XI_SHM_NAME_MAX];
    if (number) xi_shm_segment_name(name, getuid(), ns, epoch, number);
    else xi_shm_registry_name(name, getuid(), ns);
    snprintf(out, XI_SHM_NAME_MAX + 16, "/dev/shm%s", name);
}

/* Nearly all of an arena, and much of the rest, is zero, which a new file is anyway. */
static void write_pages(int fd, const uint8_t *bytes, size_t n) {
    static const uint8_t zero[XI_PAGE];
    for (size_t at = 0; at < n; at += XI_PAGE) {
        size_t length = n - at < XI_PAGE ? n - at : XI_PAGE;
        if (memcmp(bytes + at, zero, length) == 0) continue;
        expect(pwrite(fd, bytes + at, length, (off_t)at) == (ssize_t)length, "pwrite: %s", strerror(errno));
    }
}

/* The registry under its new name; and that its broker died, and whose processes are those that did. */
static void sign(int fd, const char *ns, const uint32_t dead[2]) {
    char name[32] = "";
    uint64_t never = 1;
    snprintf(name, sizeof name, "%s", ns);
    expect(pwrite(fd, name, sizeof name, offsetof(struct xi_registry, ns)) == (ssize_t)sizeof name, "pwrite");
    expect(pwrite(fd, &never, sizeof never, offsetof(struct xi_registry, broker_start)) == (ssize_t)sizeof never, "pwrite");
    for (int i = 0; i < 2; i++) {
        off_t at = (off_t)(offsetof(struct xi_registry, slots) + dead[i] * sizeof(struct xi_slot) + offsetof(struct xi_slot, start_time));
        if (dead[i]) expect(pwrite(fd, &never, sizeof never, at) == (ssize_t)sizeof never, "pwrite");
    }
}

/* What was laid out last. (Nobody makes a file there that was not: the brokers of copies have no clients.) */
static char laid_out[SEGMENTS_MAX][XI_SHM_NAME_MAX + 16];

static void fold_up(void) {
    for (unsigned i = 0; i < SEGMENTS_MAX && laid_out[i][0]; i++) {
        (void)unlink(laid_out[i]); /* the broker may have done so */
        laid_out[i][0] = 0;
    }
}

void picture_spread(const struct picture *p, const char *ns, const uint32_t dead[2]) {
    const struct piece *registry = picture_piece(p, 0);
    uint64_t epoch = ((const struct xi_segment *)(const void *)registry->bytes)->epoch;
    fold_up();
    for (unsigned i = 0; i < p->count; i++) {
        char *path = laid_out[i];
        const struct piece *piece = &p->piece[i];
        file_name(path, ns, epoch, piece->number);
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        expect(fd >= 0, "%s: %s", path, strerror(errno));
        if (piece->kind == XI_SEG_RING || piece->kind == XI_SEG_CHANNEL) /* as those are that are used */
            expect(posix_fallocate(fd, 0, (off_t)piece->size) == 0, "/dev/shm is full");
        must_sys(ftruncate(fd, (off_t)piece->size));
        write_pages(fd, piece->bytes, piece->kept);
        if (piece->number == 0) sign(fd, ns, dead);
        close(fd);
    }
}

void world_sweep_away(const char *ns) {
    DIR *dir = opendir("/dev/shm");
    expect(dir != NULL, "opendir /dev/shm: %s", strerror(errno));
    for (struct dirent *e; (e = readdir(dir));) {
        uint32_t number;
        if (of_namespace(e->d_name, ns, &number)) (void)unlinkat(dirfd(dir), e->d_name, 0);
    }
    closedir(dir);
}

/* ---------------------------------------------------------------- mappings */

static bool is_picture(const struct image *image, const uint8_t *at) {
    for (unsigned i = 0; i < image->count; i++)
        if (image->seg[i].live == at) return true;
    return false;
}

void mappings_find(struct mappings *m, const char *ns, const struct image *image) {
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    expect(maps != NULL, "/proc/self/maps: %s", strerror(errno));
    m->count = 0;
    while (fgets(line, sizeof line, maps)) {
        unsigned long from, to, offset;
        char access[5], *path = strchr(line, '/');
        uint32_t number;
        if (!path || strncmp(path, "/dev/shm/", 9) != 0 || sscanf(line, "%lx-%lx %4s %lx", &from, &to, access, &offset) != 4) continue;
        path[strcspn(path, " \n")] = 0;
        if (!of_namespace(path + 9, ns, &number) || (image && is_picture(image, (const uint8_t *)from))) continue;
        expect(m->count < 2 * SEGMENTS_MAX, "too many mappings");
        m->at[m->count++] = (struct mapped){(uint8_t *)from, to - from, offset,
                                            PROT_READ | (access[1] == 'w' ? PROT_WRITE : 0), number};
    }
    fclose(maps);
}

void mappings_enter(const struct mappings *m, uint64_t epoch, const char *ns) {
    for (unsigned i = 0; i < m->count; i++) {
        const struct mapped *a = &m->at[i];
        char path[XI_SHM_NAME_MAX + 16];
        file_name(path, ns, epoch, a->number);
        int fd = open(path, (a->access & PROT_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
        void *base = mmap(a->from, a->length, fd < 0 ? PROT_READ | PROT_WRITE : a->access, flags | MAP_FIXED, fd, (off_t)a->offset);
        expect(base == a->from, "mmap: %s", strerror(errno));
        if (fd < 0 && a->offset == 0) ((struct xi_segment *)base)->gone = 1; /* its file has gone before */
        if (fd >= 0) close(fd);
    }
}
