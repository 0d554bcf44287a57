/* SPDX-License-Identifier: MIT */
/*
 * Segments that are not what they should be: each word of a head is spoilt in
 * turn, before anything is mapped, and refused with a sentence that names it;
 * put right again, the segment is taken. None of this leaves a mapping.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"
#include "wire/names.h"
#include "wire/segment.h"

#define CAPACITY ((uint64_t)65536)

static int fd = -1;
static struct xi_expect expect;
static struct xi_map map;

static struct xi_segment head_of(uint32_t kind, uint64_t size) {
    return (struct xi_segment){.magic = XI_LAYOUT_MAGIC, .version = XI_LAYOUT_VERSION, .kind = kind, .epoch = 77, .size = size, .number = 9};
}
static void make(uint32_t kind, uint64_t size) {
    struct xi_segment head = head_of(kind, size);
    if (fd >= 0) close(fd);
    ok(xi_segment_make(NULL, &head, &fd));
    expect = (struct xi_expect){.kind = kind, .number = 9, .epoch = 77};
}
static void put(const void *bytes, size_t n, size_t at) { ck_assert_int_eq(pwrite(fd, bytes, n, (off_t)at), n); }
#define says(part) ck_assert_msg(strstr(xi_error_text(XI_E_CORRUPT), part) != NULL, "%s", xi_error_text(XI_E_CORRUPT))

static int map_it(void) { return xi_segment_map(fd, true, false, &expect, &map); }
static int map_chan(void) { return xi_map_channel(fd, false, &expect, &map, NULL); }
static int map_ring(void) { return xi_map_ring(fd, 5, &expect, &map); }

/* With these bytes there it is refused in these words; with those that were there, taken. */
static void spoilt(int (*map_as)(void), size_t at, uint64_t value, size_t n, const char *words) {
    uint64_t before = 0;
    ck_assert_int_eq(pread(fd, &before, n, (off_t)at), n);
    put(&value, n, at);
    fails(XI_E_CORRUPT, map_as());
    says(words);
    put(&before, n, at);
    ok(map_as());
    xi_unmap(&map);
}
#define spoil(map_as, type, field, value, words)                                                                       \
    spoilt(map_as, offsetof(type, field), value, sizeof((type *)NULL)->field, words)

START_TEST(heads) {
    make(XI_SEG_ARENA, 4 * XI_PAGE);
    spoil(map_it, struct xi_segment, magic, 1, "not a xidata segment");
    spoil(map_it, struct xi_segment, version, XI_LAYOUT_VERSION + 1, "one version of xidata on both sides");
    spoil(map_it, struct xi_segment, size, 8 * XI_PAGE, "not of the size it claims");
    spoil(map_it, struct xi_segment, kind, XI_SEG_BORROWS, "of another kind");
    spoil(map_it, struct xi_segment, epoch, 78, "an earlier namespace");
    spoil(map_it, struct xi_segment, number, 10, "another number");
    expect = (struct xi_expect){0}; /* anybody's */
    ok(map_it());
    ck_assert_uint_eq(map.size, 4 * XI_PAGE);
    ck_assert_uint_eq(map.head.number, 9);
    xi_unmap(&map);
    xi_unmap(&map); /* again: nothing */
}
END_TEST

START_TEST(sizes_of_files) {
    static const off_t sizes[] = {0, 8, XI_PAGE - 1, XI_PAGE + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (fd >= 0) close(fd);
        ck_assert_int_ge(fd = memfd_create("test", MFD_CLOEXEC), 0);
        ck_assert_int_eq(ftruncate(fd, sizes[i]), 0);
        fails(XI_E_CORRUPT, map_it());
        says("has a size of");
    }
    make(XI_SEG_REGISTRY, 4 * XI_PAGE); /* which grows, so that it may be larger than it says, but not smaller */
    expect.number = 0;
    spoil(map_it, struct xi_segment, size, 8 * XI_PAGE, "smaller than it claims");
    ck_assert_int_eq(ftruncate(fd, 8 * XI_PAGE), 0);
    ok(map_it());
    ck_assert_uint_eq(map.size, 4 * XI_PAGE);
    xi_unmap(&map);
}
END_TEST

/* What is no memory at all, and what may not be looked at. */
START_TEST(descriptors) {
    int other = -1;
    struct xi_segment head = head_of(XI_SEG_ARENA, 4 * XI_PAGE);
    make(XI_SEG_ARENA, 4 * XI_PAGE);
    ck_assert_int_eq(ftruncate(fd, XI_PAGE), -1); /* sealed against both */
    ck_assert_int_eq(ftruncate(fd, 8 * XI_PAGE), -1);
    close(fd);
    fails(XI_E_SYSTEM, map_it()); /* EBADF */
    fails(XI_E_SYSTEM, xi_segment_reserve(fd, 0, XI_PAGE));
    fd = -1;
    fails(XI_E_NOENT, xi_segment_open("/xi.no.such.segment", false, &other));
    ck_assert_int_eq(other, -1);
    head.size = (uint64_t)1 << 63;
    fails(XI_E_SYSTEM, xi_segment_make(NULL, &head, &other)); /* EINVAL */
    ck_assert_int_eq(other, -1);
    ck_assert_int_ge(fd = open("/dev/null", O_WRONLY | O_CLOEXEC), 0);
    fails(XI_E_CORRUPT, map_it()); /* has no size */
}
END_TEST

START_TEST(names_are_taken_once) {
    char name[XI_SHM_NAME_MAX];
    struct xi_segment head = head_of(XI_SEG_ARENA, 4 * XI_PAGE);
    int second = -1;
    xi_shm_segment_name(name, getuid(), getenv("XI_NAMESPACE"), 77, 9);
    if (fd >= 0) close(fd);
    ok(xi_segment_make_sparse(name, &head, XI_PAGE, &fd));
    fails(XI_E_SYSTEM, xi_segment_make(name, &head, &second)); /* EEXIST, and the first one's is left alone */
    ok(xi_segment_reserve(fd, XI_PAGE, 3 * XI_PAGE));
    ok(xi_segment_open(name, false, &second));
    expect = (struct xi_expect){.kind = XI_SEG_ARENA, .number = 9, .epoch = 77};
    ok(xi_segment_map(second, false, false, &expect, &map));
    ck_assert_uint_eq(((struct xi_segment *)map.base)->gone, 0);
    xi_segment_remove(name, -1, 0);
    ck_assert_uint_eq(((struct xi_segment *)map.base)->gone, 1);
    xi_segment_remove(name, -1, 0); /* again: nothing */
    fails(XI_E_NOENT, xi_segment_open(name, false, &(int){0}));
    xi_unmap(&map);
    close(second);
}
END_TEST

/* What is given back while somebody still has it mapped: not what a late message's release looks at. */
START_TEST(what_is_looked_at_late_stays) {
    static const struct {
        uint32_t kind;
        uint64_t from; /* what is given back begins there */
    } kinds[] = {{XI_SEG_CHANNEL, XI_RING_OFFSET}, {XI_SEG_ACKS, 16 * XI_PAGE}, {XI_SEG_ARENA, XI_PAGE}, {XI_SEG_RING, XI_PAGE}};
    struct xi_segment head = head_of(kinds[_i].kind, 16 * XI_PAGE);
    if (fd >= 0) close(fd);
    for (int known = 0; known < 2; known++) {
        ok(xi_segment_make(NULL, &head, &fd));
        uint8_t *base = mmap(NULL, head.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        ck_assert_ptr_ne(base, MAP_FAILED);
        memset(base + sizeof head, 7, head.size - sizeof head);
        xi_segment_remove(NULL, fd, known ? kinds[_i].kind : 0);
        ck_assert_uint_eq(((struct xi_segment *)(void *)base)->gone, 1);
        for (uint64_t at = XI_PAGE; at < head.size; at += 8) ck_assert_uint_eq(base[at], at < kinds[_i].from ? 7 : 0);
        munmap(base, head.size);
        close(fd);
    }
    fd = -1;
}
END_TEST

static const struct xi_chan_fixed sound = {.id = 5, .capacity = CAPACITY, .ring_offset = XI_RING_OFFSET, .mode = XI_QUEUE,
                                           .inline_max = XI_INLINE_MAX(CAPACITY), .grow_max = 4 * CAPACITY, .dead = "letters"};

/* All of it but its head. */
static int write_chan(const struct xi_chan_fixed *f) {
    static struct xi_chan chan;
    const size_t from = sizeof chan.seg, size = sizeof chan - from;
    xi_fill_channel(f, &chan);
    return pwrite(fd, (uint8_t *)&chan + from, size, (off_t)from) == (ssize_t)size ? 0 : XI_E_SYSTEM;
}

#define wrong_channel(field, value)                                                                                    \
    do {                                                                                                               \
        struct xi_chan_fixed f_ = sound;                                                                               \
        f_.field = value;                                                                                              \
        ok(write_chan(&f_));                                                                                 \
        fails(XI_E_CORRUPT, map_chan());                                                                               \
        says("describes itself wrongly");                                                                              \
    } while (0)

START_TEST(channels) {
    struct xi_chan_fixed f = sound, got;
    make(XI_SEG_CHANNEL, XI_RING_OFFSET + CAPACITY);
    wrong_channel(capacity, CAPACITY * 2);
    wrong_channel(capacity, CAPACITY / 2);
    wrong_channel(capacity, CAPACITY - 8);
    wrong_channel(capacity, 0);
    wrong_channel(capacity, (uint64_t)1 << 63);
    wrong_channel(ring_offset, 0);
    wrong_channel(inline_max, 1u << 30);
    wrong_channel(grow_max, CAPACITY / 2);
    wrong_channel(grow_max, CAPACITY + 8);
    wrong_channel(grow_max, 2 * XI_GROW_MAX);
    wrong_channel(mode, 0);
    wrong_channel(mode, XI_BROADCAST + 1);
    wrong_channel(ttl_ns, -1);
    wrong_channel(when_full, XI_FULL_DROP + 1);
    wrong_channel(dead[0], '\n');
    memset(f.dead, 'x', sizeof f.dead);
    ok(write_chan(&f));
    fails(XI_E_CORRUPT, map_chan());
    ok(write_chan(&sound));
    spoil(map_chan, struct xi_segment, kind, XI_SEG_RING, "of another kind");
    ok(xi_map_channel(fd, false, &expect, &map, &got));
    ck_assert_mem_eq(&got, &sound, sizeof sound);
    volatile uint8_t *ring = (uint8_t *)map.base + XI_RING_OFFSET; /* one byte has two places, which compilers do not know */
    ring[CAPACITY - 1] = 7;
    ring[CAPACITY] = 8; /* its first byte once more */
    ck_assert(ring[0] == 8 && ring[2 * CAPACITY - 1] == 7);
    xi_unmap(&map);
    f = (struct xi_chan_fixed){0};
    close(fd);
    fd = -1;
    fails(XI_E_SYSTEM, write_chan(&f));
}
END_TEST

/* What is before the ring is there; the ring when somebody has backed it, which everybody sees. */
START_TEST(a_ring_is_backed_before_it_is_used) {
    struct xi_segment head = head_of(XI_SEG_CHANNEL, XI_RING_OFFSET + CAPACITY);
    struct xi_map looker, user, other;
    close(fd);
    expect = (struct xi_expect){.kind = XI_SEG_CHANNEL, .number = 9, .epoch = 77};
    ok(xi_segment_make_sparse(NULL, &head, XI_RING_OFFSET, &fd));
    ok(write_chan(&sound));
    ok(xi_map_channel(fd, true, &expect, &looker, NULL));
    ok(xi_map_channel(fd, false, &expect, &user, NULL));
    ck_assert(looker.bare && user.bare);
    const uint8_t *seen = (uint8_t *)looker.base + XI_RING_OFFSET;
    for (size_t i = 0; i < 2 * CAPACITY; i += 512) ck_assert_uint_eq(((const volatile uint8_t *)seen)[i], 0);
    ok(xi_map_ring_in(fd, &looker));
    ck_assert(looker.bare); /* looking has not backed it, and it is not there to be put in */
    ok(xi_map_back(&user));
    ok(xi_map_back(&user)); /* again: nothing */
    volatile uint8_t *ring = (uint8_t *)user.base + XI_RING_OFFSET;
    ring[CAPACITY + 1] = 7;
    ck_assert_uint_eq(ring[1], 7);
    ck_assert_uint_eq(((const volatile uint8_t *)seen)[1], 0);
    ok(xi_map_ring_in(fd, &looker));
    ck_assert(!looker.bare);
    ck_assert(((const volatile uint8_t *)seen)[1] == 7 && ((const volatile uint8_t *)seen)[CAPACITY + 1] == 7);
    ok(xi_map_channel(fd, false, &expect, &other, NULL));
    ck_assert(!other.bare);
    xi_unmap(&looker);
    xi_unmap(&user);
    xi_unmap(&other);
}
END_TEST

START_TEST(rings) {
    uint64_t id = 5;
    make(XI_SEG_RING, XI_PAGE + CAPACITY);
    put(&id, sizeof id, offsetof(struct xi_ring_head, chan_id));
    spoil(map_ring, struct xi_ring_head, chan_id, 6, "describes itself wrongly");
    spoil(map_ring, struct xi_segment, magic, 0, "not a xidata segment");
    make(XI_SEG_RING, XI_PAGE + CAPACITY + XI_PAGE); /* no power of two */
    put(&id, sizeof id, offsetof(struct xi_ring_head, chan_id));
    fails(XI_E_CORRUPT, map_ring());
    says("describes itself wrongly");
    make(XI_SEG_RING, XI_PAGE); /* no ring */
    put(&id, sizeof id, offsetof(struct xi_ring_head, chan_id));
    fails(XI_E_CORRUPT, map_ring());
    struct xi_segment head = head_of(XI_SEG_RING, XI_PAGE + CAPACITY);
    close(fd);
    ok(xi_segment_make_sparse(NULL, &head, XI_PAGE, &fd));
    put(&id, sizeof id, offsetof(struct xi_ring_head, chan_id));
    fails(XI_E_CORRUPT, map_ring()); /* a store into it could be SIGBUS */
    says("not backed by memory");
}
END_TEST

int main(void) {
    Suite *s = suite_create("segment");
    TCase *t = tcase_create("all");
    tcase_add_test(t, heads);
    tcase_add_test(t, sizes_of_files);
    tcase_add_test(t, descriptors);
    tcase_add_test(t, names_are_taken_once);
    tcase_add_loop_test(t, what_is_looked_at_late_stays, 0, 4);
    tcase_add_test(t, channels);
    tcase_add_test(t, a_ring_is_backed_before_it_is_used);
    tcase_add_test(t, rings);
    suite_add_tcase(s, t);
    return run_suite(s);
}
