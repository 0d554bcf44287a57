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

/* ------------------------------------------------------------- backed or not */

/* Bytes before what need not be backed. */
static size_t backed_at_first(uint32_t kind) { return kind == XI_SEG_CHANNEL ? XI_RING_OFFSET : XI_PAGE; }

static bool is_backed(const struct pages *p, size_t page) { return p->all || p->bits[page / 64] >> page % 64 & 1; }
static void set_backed(struct pages *p, size_t page) { p->bits[page / 64] |= (uint64_t)1 << page % 64; }

static bool pages_differ(const struct pages *a, const struct pages *b) {
    return a->all != b->all || (!a->all && memcmp(a->bits, b->bits, sizeof a->bits) != 0);
}

/* What posix_fallocate() reserved counts as a hole for lseek(), so what is before the ring is known, and all is told by the sum. */
static void find_pages(struct segment *s) {
    struct stat st;
    s->pages = (struct pages){.all = true};
    if (s->fd < 0) return;
    must_sys(fstat(s->fd, &st));
    s->used = (uint64_t)st.st_blocks * 512;
    if (s->used >= s->size) return;
    size_t from = backed_at_first(s->kind), count = (from < s->used ? from : s->used) / XI_PAGE; /* of a removed one less is left */
    expect(s->size / XI_PAGE <= PAGES_MAX, "segment %u is too large to be looked at page by page", s->number);
    s->pages.all = false;
    for (size_t i = 0; i < count; i++) set_backed(&s->pages, i);
    for (off_t at = (off_t)from, end; (at = lseek(s->fd, at, SEEK_DATA)) >= 0; at = end) {
        end = lseek(s->fd, at, SEEK_HOLE);
        expect(end > at, "lseek: %s", strerror(errno));
        for (size_t i = (size_t)at / XI_PAGE; i < (size_t)end / XI_PAGE; i++, count++) set_backed(&s->pages, i);
    }
    expect(errno == ENXIO, "lseek: %s", strerror(errno));
    expect(count * XI_PAGE == s->used, "segment %u has %lu bytes of memory, of which %zu are found", s->number, s->used, count * XI_PAGE);
}

bool image_backed(struct image *m) {
    bool changed = false;
    for (unsigned i = 0; i < m->count; i++) {
        struct segment *s = &m->seg[i];
        struct pages before = s->pages;
        struct stat st;
        if (s->fd < 0 || s->pages.all) continue;
        must_sys(fstat(s->fd, &st));
        if ((uint64_t)st.st_blocks * 512 == s->used) continue;
        find_pages(s);
        changed |= pages_differ(&before, &s->pages);
    }
    return changed;
}

/* True if `bytes` are what is there, from `from` on; where nothing is backed they are zero, and nobody looks. */
static bool same_bytes(const struct segment *s, const uint8_t *bytes, size_t from) {
    if (s->pages.all) return memcmp(s->live + from, bytes + from, s->kept - from) == 0;
    for (size_t at = from, end; at < s->kept; at = end) {
        end = (at / XI_PAGE + 1) * XI_PAGE < s->kept ? (at / XI_PAGE + 1) * XI_PAGE : s->kept;
        if (is_backed(&s->pages, at / XI_PAGE) && memcmp(s->live + at, bytes + at, end - at) != 0) return false;
    }
    return true;
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
    *s = (struct segment){number, whole ? head.kind : 0, size, whole ? kept_of(head.kind, size) : 0, base, -1, 0, {.all = true}};
    if (s->kind == XI_SEG_CHANNEL || s->kind == XI_SEG_RING) s->fd = fd;
    else close(fd);
    find_pages(s);
    return true;
}

static void segment_close(struct segment *s) {
    if (s->size) munmap((void *)(uintptr_t)s->live, s->size);
    if (s->fd >= 0) close(s->fd);
}

/* One that was being made when it was seen: by now it may be more. */
static bool segment_look_again(struct segment *s, const char *file) {
    struct segment now;
    if (s->kind || !segment_open(&now, file, s->number)) return false;
    bool changed = now.kind != s->kind || now.size != s->size || pages_differ(&now.pages, &s->pages);
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
            (!same_bytes(&m->seg[i], p->piece[i].bytes, from) || pages_differ(&m->seg[i].pages, &p->piece[i].pages)))
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

/* What a segment holds now. */
static struct blob *blob_of(const struct segment *s) {
    if (s->pages.all) return blob_new(s->live, s->kept);
    struct blob *b = calloc(1, sizeof *b + s->kept);
    expect(b != NULL, "no memory");
    b->users = 1;
    for (size_t at = 0; at < s->kept; at += XI_PAGE)
        if (is_backed(&s->pages, at / XI_PAGE)) memcpy(b->bytes + at, s->live + at, s->kept - at < XI_PAGE ? s->kept - at : XI_PAGE);
    return b;
}

void picture_take(struct picture *p, const struct image *m, const struct picture *last) {
    for (unsigned i = 0; i < m->count; i++) {
        const struct segment *s = &m->seg[i];
        const struct piece *old = last ? picture_piece(last, s->number) : NULL;
        struct blob *blob = old && old->kept == s->kept && same_bytes(s, old->bytes, 0) ? old->blob : NULL;
        if (blob) blob->users++;
        else blob = blob_of(s);
        p->piece[i] = (struct piece){s->number, s->kind, s->size, s->kept, s->pages, blob, blob->bytes};
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

unsigned picture_backed_since(const struct picture *now, const struct picture *last, unsigned *which) {
    for (unsigned i = 0; i < now->count; i++) {
        const struct piece *to = &now->piece[i], *from = picture_piece(last, to->number);
        unsigned more = 0;
        if (!from || from->pages.all || from->kind != to->kind) continue;
        for (size_t k = 0; k < to->size / XI_PAGE; k++) more += is_backed(&to->pages, k) && !is_backed(&from->pages, k);
        *which = i;
        if (more) return more;
    }
    return 0;
}

void picture_half_backed(struct picture *out, const struct picture *last, const struct picture *now, unsigned which, unsigned n) {
    const struct piece *to = &now->piece[which];
    picture_copy(out, last);
    struct piece *p = (struct piece *)(uintptr_t)picture_piece(out, to->number);
    for (size_t k = 0; n && k < to->size / XI_PAGE; k++) {
        if (!is_backed(&to->pages, k) || is_backed(&p->pages, k)) continue;
        set_backed(&p->pages, k);
        n--;
    }
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
        if (a->pages.all && !b->pages.all) t->pages = a->pages;
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

/* Memory for what has some: all of it, or the pages that say so. */
static int back_pages(int fd, const struct piece *p) {
    if (p->pages.all) return posix_fallocate(fd, 0, (off_t)p->size);
    int rc = 0;
    for (size_t k = 0, end; rc == 0 && k < p->size / XI_PAGE; k = end + 1) {
        for (end = k; end < p->size / XI_PAGE && is_backed(&p->pages, end); end++) continue;
        if (end > k) rc = posix_fallocate(fd, (off_t)(k * XI_PAGE), (off_t)((end - k) * XI_PAGE));
    }
    return rc;
}

uint64_t world_backed(const char *ns, uint64_t epoch, uint32_t number) {
    char path[XI_SHM_NAME_MAX + 16];
    struct stat st;
    file_name(path, ns, epoch, number);
    return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

bool image_back_one(const struct image *m, uint32_t number) {
    const struct segment *s = &m->seg[segment_index(m, number)];
    char path[40];
    size_t page = 0;
    if (s->pages.all) return false;
    while (is_backed(&s->pages, page)) page++;
    snprintf(path, sizeof path, "/proc/self/fd/%d", s->fd);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    expect(fd >= 0 && pwrite(fd, "", 1, (off_t)(page * XI_PAGE)) == 1, "segment %u: %s", number, strerror(errno));
    close(fd);
    return true;
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
        must_sys(ftruncate(fd, (off_t)piece->size));
        if (piece->kind == XI_SEG_RING || piece->kind == XI_SEG_CHANNEL)
            expect(back_pages(fd, piece) == 0, "/dev/shm is full");
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
