/* SPDX-License-Identifier: MIT */
/*
 * The arena by itself: what its bookkeeping says of every page is recomputed
 * after random allocations, releases and trims; no two blocks share a byte; what
 * is looked at in one call is bounded; and memory comes back.
 *
 * XI_SEED=n replays one run.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/arena.h"
#include "arena/maps.h"
#include "channel/channel.h"
#include "interp/interp.h"
#include "wire/names.h"
#include "wire/order.h"
#include "wire/segment.h"

#include "fixture.h" /* last: it names its interpreters as the library does its arguments */

#define MOST 300 /* blocks out at a time */
#define STEPS 12000

static struct owned {
    struct xi_block *block;
    size_t size;
    uint8_t fill;
    bool sent;
} out[MOST];
static unsigned held;
static uint64_t rng;

static uint64_t draw(uint64_t n) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng % n;
}

/* ------------------------------------------------------------ is it sound? */

static uint32_t blocks_free(const struct xi_apage *p) {
    uint32_t n = 0;
    for (const struct xi_block *b = p->free; b; b = b->next) {
        n++;
        ck_assert_int_eq(b->state, XI_BLOCK_FREE);
    }
    return n;
}

static void check_small(const struct xi_arena *a, const struct xi_apage *p) {
    uint32_t n = (uint32_t)(XI_APAGE / p->blocks[0].size);
    ck_assert_uint_eq(p->used + blocks_free(p), n);
    bool listed = false;
    for (const struct xi_apage *q = a->partial[p->class_]; q; q = q->next) {
        ck_assert(!q->next || q->next->prev == q);
        listed |= q == p;
    }
    ck_assert_int_eq(listed, p->free != NULL);
}

static void check_segment(const struct xi_arena *a, const struct xi_asegment *s) {
    uint32_t free_pages = 0;
    for (uint32_t i = 0; i < s->pages; i++) {
        const struct xi_apage *p = &s->page[i];
        if (p->use == XI_APAGE_FREE) {
            free_pages++;
            ck_assert_uint_ge(i, s->first_free);
        } else if (p->use == XI_APAGE_SMALL) {
            check_small(a, p);
        } else {
            ck_assert_int_eq(p->use, XI_APAGE_LARGE);
            ck_assert_uint_eq(p->blocks->size, (size_t)p->run * XI_APAGE);
            for (uint32_t rest = 1; rest < p->run; rest++) ck_assert_int_eq(s->page[i + rest].use, XI_APAGE_LARGE_REST);
            i += p->run - 1;
        }
    }
    ck_assert_uint_eq(free_pages, s->free_pages);
    ck_assert_int_eq(s->free_pages == s->pages, s->idle_since != 0);
}

static void check_arena(void) {
    const struct xi_arena *a = &me->arena;
    size_t bytes = 0, n = 0, cached = 0;
    for (const struct xi_asegment *s = a->segments; s; s = s->next) {
        check_segment(a, s);
        bytes += s->entry->map.size + s->entry->release.size;
    }
    ck_assert_uint_eq(bytes, a->bytes);
    ck_assert_uint_eq(bytes, xi_load_relaxed(&me->own->counters.arena_bytes));
    for (const struct xi_block *b = a->first; b; b = b->next, n++) ck_assert(b->next ? b->next->prev == b : a->last == b);
    ck_assert_uint_eq(n, a->out);
    ck_assert_uint_le(a->large_count, XI_LARGE_CACHE);
    for (unsigned i = 0; i < a->large_count; i++) cached += a->large[i]->size;
    ck_assert_uint_le(cached, (size_t)64 << 20);
}

/* ------------------------------------------------------------------- play */

static void check_bytes(const struct owned *o) {
    const uint8_t *data = xi_block_data(o->block);
    for (size_t i = 0; i < o->size; i += i + 64 < o->size ? 64 : 1)
        if (data[i] != o->fill) ck_abort_msg("byte %zu of a block of %zu was overwritten", i, o->size);
}

static void take_one(void) {
    size_t size = draw(8) ? 1 + draw(40000) : 1 + draw(600000);
    struct owned *o = &out[held++];
    *o = (struct owned){.size = size, .fill = (uint8_t)draw(256)};
    ok(xi_arena_alloc(me, size, &o->block));
    ck_assert_uint_ge(o->block->size, size);
    ck_assert_uint_lt(o->block->size, size <= 1024 ? 1025 : size <= 32768 ? 2 * size : size + size / 2 + 2 * XI_APAGE);
    ck_assert_uint_gt(o->block->generation, 0);
    memset(xi_block_data(o->block), o->fill, size);
}

static void set_bits(const struct xi_block *b, uint64_t groups) {
    for (int i = 0; i < 4; i++) atomic_fetch_or(&b->segment->release[b->granule].word[i], groups >> (16 * i) & 0xffff);
}

/* Sent to two groups, or to none; or given up. */
static void end_one(unsigned i) {
    struct owned *o = &out[i];
    uint64_t groups = (uint64_t)1 << draw(64) | (uint64_t)1 << draw(64);
    check_bytes(o);
    if (!o->sent && draw(2)) {
        xi_arena_mark_sent(o->block, groups, 0, 0);
        o->sent = true;
        xi_arena_reclaim(me, SIZE_MAX);
        size_t before = me->arena.out;
        xi_arena_reclaim(me, SIZE_MAX);
        ck_assert_uint_eq(me->arena.out, before); /* two have yet to release it */
        set_bits(o->block, groups);
    } else if (!o->sent) {
        xi_arena_free(me, o->block);
    }
    *o = out[--held];
}

static void play(uint64_t seed) {
    rng = seed * 2654435761u + 88172645463325252ull;
    for (int i = 0; i < STEPS; i++) {
        uint64_t how = draw(100);
        if (held < MOST && (how < 50 || !held)) take_one();
        else if (held) end_one((unsigned)draw(held));
        if (how == 99) xi_arena_trim(me, INT64_MAX);
        if (how == 98)
            while (held > MOST / 8) end_one((unsigned)draw(held));
        if (i % 64 == 0) check_arena();
    }
    while (held) end_one(0);
    xi_arena_reclaim(me, SIZE_MAX);
    check_arena();
    ck_assert_uint_eq(me->arena.out, 0);
    ck_assert_uint_eq(xi_load_relaxed(&me->own->counters.blocks), 0);
}

START_TEST(bookkeeping_is_sound) {
    const char *one = getenv("XI_SEED");
    for (uint64_t seed = one ? strtoull(one, NULL, 10) : 1; seed <= 2; seed++) play(seed);
    xi_arena_trim(me, INT64_MAX);
    ck_assert_uint_eq(me->arena.bytes, 0);
    ck_assert_ptr_null(me->arena.segments);
    int64_t until = xi_now() + LONG;
    const struct xi_slot *slot = &me->registry->slots[me->slot];
    while (xi_load_relaxed((xi_a64 *)(uintptr_t)&slot->arena_bytes)) /* the broker takes them back in its own time */
        ck_assert_msg(xi_now() < until, "%llu bytes are left", (unsigned long long)slot->arena_bytes);
}
END_TEST

/* ------------------------------------------------------- what fits exactly */

START_TEST(a_block_is_no_larger_than_it_must_be) {
    static const size_t sizes[] = {1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, XI_APAGE, 5 * XI_APAGE};
    struct xi_block *b;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ok(xi_arena_alloc(me, sizes[i], &b));
        ck_assert_uint_eq(b->size, sizes[i]);
        xi_arena_free(me, b);
    }
    xi_arena_trim(me, xi_now()); /* nothing is kept now */
    ok(xi_arena_alloc(me, 3 * XI_APAGE, &b));
    uint32_t granule = b->granule;
    xi_arena_free(me, b);
    ok(xi_arena_alloc(me, 3 * XI_APAGE, &b)); /* kept for the next of its size */
    ck_assert_uint_eq(b->granule, granule);
    xi_arena_free(me, b);
    xi_arena_trim(me, xi_now());
    size_t bytes = me->arena.bytes, pages = me->arena.segments->pages;
    ok(xi_arena_alloc(me, pages * XI_APAGE, &b)); /* all of a segment */
    ck_assert_uint_eq(me->arena.bytes, bytes);
    xi_arena_free(me, b);
    check_arena();
}
END_TEST

/* ------------------------------------------------------ what others made */

START_TEST(a_mailbox_too_small_is_none) {
    struct xi_segment head = {.magic = XI_LAYOUT_MAGIC, .version = XI_LAYOUT_VERSION, .kind = XI_SEG_MAILBOX, .epoch = me->epoch,
                              .size = XI_MAILBOX_SIZE - XI_PAGE, .number = 0x7fff0002};
    struct xi_map_entry *e = NULL;
    char name[XI_SHM_NAME_MAX];
    int fd;
    xi_shm_segment_name(name, me->place.uid, me->place.ns, me->epoch, head.number);
    for (int i = 0; i < 2; i++, head.size += XI_PAGE) {
        ok(xi_segment_make(name, &head, &fd));
        if (i == 0) {
            fails(XI_E_CORRUPT, xi_maps_mailbox(me, head.number, &e));
        } else {
            ok(xi_maps_mailbox(me, head.number, &e));
            xi_maps_put(e);
        }
        xi_segment_remove(name, fd, 0);
        close(fd);
    }
}
END_TEST

/* ------------------------------------------------- what one look looks at */

static struct xi_block *all[400];

static void send_all(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        ok(xi_arena_alloc(me, 2000, &all[i]));
        xi_arena_mark_sent(all[i], 1, 0, 0);
    }
    for (unsigned i = 1; i < n; i++) set_bits(all[i], 1); /* the oldest is held for long */
}

START_TEST(a_look_is_bounded) {
    struct xi_arena *a = &me->arena;
    send_all(400);
    size_t before = a->out;
    xi_arena_reclaim(me, 2);
    ck_assert_uint_le(before - a->out, 6);
    ck_assert_uint_ge(before - a->out, 3); /* the others are not hidden by the oldest */
    before = a->out;
    xi_arena_owe(me); /* one is due somewhere */
    ck_assert_uint_ge(before - a->out, 60);
    ck_assert_uint_le(before - a->out, 128);
    ck_assert_uint_gt(a->debt, 200);
    before = a->out;
    xi_arena_reclaim(me, 0);
    ck_assert_uint_ge(before - a->out, 60);
    ck_assert_uint_le(before - a->out, 64);
    xi_arena_reclaim(me, SIZE_MAX);
    ck_assert_uint_eq(a->out, 1);
    xi_arena_reclaim(me, SIZE_MAX);
    ck_assert_uint_eq(a->debt, 0);
    set_bits(all[0], 1);
    xi_arena_reclaim(me, 1);
    ck_assert_uint_eq(a->out, 0);
}
END_TEST

/* All that is back is found before more memory is asked for. */
START_TEST(it_grows_when_nothing_is_back) {
    struct xi_block *b;
    ok(xi_arena_alloc(me, 900000, &b)); /* what the first segment has, but for little */
    size_t bytes = me->arena.bytes;
    xi_arena_free(me, b);
    for (unsigned i = 0; i < 12; i++) {
        ok(xi_arena_alloc(me, 60000, &all[i]));
        xi_arena_mark_sent(all[i], 1, 0, 0);
    }
    ck_assert_uint_eq(me->arena.bytes, bytes);
    for (unsigned i = 5; i < 12; i++) set_bits(all[i], 1);
    ok(xi_arena_alloc(me, 400000, &b));
    ck_assert_uint_eq(me->arena.bytes, bytes);
    xi_arena_free(me, b);
    for (unsigned i = 0; i < 5; i++) set_bits(all[i], 1);
    fails(XI_E_TOOBIG, xi_arena_alloc(me, ((size_t)1 << 40) + 1, &b));
    xi_arena_reclaim(me, SIZE_MAX);
    ck_assert_uint_eq(me->arena.out, 0);
}
END_TEST

/* One that refers to others goes with them, and they with it. */
START_TEST(children_go_with_their_root) {
    struct xi_block *root, *child[3];
    ok(xi_arena_alloc(me, 100, &root));
    for (int i = 0; i < 3; i++) {
        ok(xi_arena_alloc(me, i == 2 ? 200000 : 3000, &child[i]));
        xi_arena_attach(me, i == 1 ? child[0] : root, child[i]);
    }
    check_arena();
    ck_assert_uint_eq(me->arena.out, 2 - 1); /* the children are in the root's care */
    ck_assert_uint_eq(xi_load_relaxed(&me->own->counters.blocks), 4);
    xi_arena_mark_sent(root, 3, 0, 0);
    set_bits(root, 1);
    xi_arena_reclaim(me, SIZE_MAX);
    ck_assert_uint_eq(xi_load_relaxed(&me->own->counters.blocks), 4);
    set_bits(root, 2);
    xi_arena_reclaim(me, SIZE_MAX);
    ck_assert_uint_eq(xi_load_relaxed(&me->own->counters.blocks), 0);
    check_arena();
}
END_TEST

/* Given back a second after it was needed last, and not before. */
START_TEST(idle_memory_goes_back) {
    struct xi_block *b;
    ok(xi_arena_alloc(me, 100000, &b));
    xi_arena_trim(me, xi_now() + 5000 * MS);
    ck_assert_uint_gt(me->arena.bytes, 0); /* it is in use */
    xi_arena_free(me, b);
    xi_arena_trim(me, xi_now() + 900 * MS);
    ck_assert_uint_gt(me->arena.bytes, 0);
    xi_arena_trim(me, xi_now() + 1100 * MS);
    ck_assert_uint_eq(me->arena.bytes, 0);
    check_arena();
}
END_TEST

/* What is kept for blocks of its size stays while there are others, but not where memory is short. */
START_TEST(all_that_is_idle_goes_when_memory_is_short) {
    struct xi_block *b, *other;
    ok(xi_arena_alloc(me, 100, &other));
    ok(xi_arena_alloc(me, 100000, &b));
    xi_arena_free(me, b);
    xi_arena_trim(me, xi_now());
    ck_assert_uint_eq(me->arena.large_count, 1);
    xi_arena_trim(me, INT64_MAX);
    ck_assert_uint_eq(me->arena.large_count, 0);
    xi_arena_free(me, other);
    check_arena();
}
END_TEST

/* Who sleeps long gives it back itself: at the look that comes once a second, and not whenever it is woken. */
START_TEST(a_sleeper_gives_idle_memory_back) {
    struct xi_block *b;
    ok(xi_arena_alloc(me, 100000, &b));
    xi_arena_free(me, b);
    xi_arena_trim(me, xi_now()); /* the segment is idle from now on */
    pass_time(1010 * MS);
    ok(xi_sleep_ended(me, XI_WAKE_BELL));
    ck_assert_uint_gt(me->arena.bytes, 0);
    ok(xi_sleep_ended(me, XI_WAKE_LOOK));
    ck_assert_uint_eq(me->arena.bytes, 0);
}
END_TEST

/* A namespace with little memory: what lies idle in one segment is given back for another. */
static pid_t start_small_broker(const char *name) {
    int gate[2];
    char said[8], number[16];
    ck_assert_int_eq(pipe(gate), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        snprintf(number, sizeof number, "%d", gate[1]);
        execlp("xi-broker", "xi-broker", "-n", name, "--quota-bytes", "5M", "--ready-fd", number, (char *)NULL);
        _exit(127);
    }
    close(gate[1]);
    ck_assert_int_gt(read(gate[0], said, sizeof said), 0);
    close(gate[0]);
    return pid;
}

START_TEST(idle_memory_makes_way) {
    char name[XI_NS_MAX + 1];
    xi_interp *poor;
    struct xi_block *b, *kept;
    int status;
    snprintf(name, sizeof name, "%s.poor", getenv("XI_NAMESPACE"));
    pid_t broker = start_small_broker(name);
    ok(xi_join(&(xi_join_opts){.name = "poor", .ns = name}, &poor));
    ok(xi_arena_alloc(poor, 100, &kept));
    ok(xi_arena_alloc(poor, 2200000, &b));
    xi_arena_free(poor, b);
    ok(xi_arena_alloc(poor, 3300000, &b));
    size_t bytes = poor->arena.bytes;
    xi_arena_free(poor, b);
    fails(XI_E_QUOTA, xi_arena_alloc(poor, 6000000, &b));
    ok(xi_arena_alloc(poor, 100000, &b)); /* it goes on with less */
    ck_assert_uint_le(poor->arena.bytes, bytes);
    xi_arena_free(poor, b);
    xi_arena_free(poor, kept);
    ok(xi_leave(poor));
    ck_assert_int_eq(kill(broker, SIGTERM), 0);
    ck_assert_int_eq(waitpid(broker, &status, 0), broker);
    ck_assert_int_eq(status, 0);
}
END_TEST

/* What was released and is kept for later values, and nothing that is out. */
START_TEST(it_is_trimmed_on_demand) {
    struct xi_block *b, *held_one;
    ok(xi_arena_alloc(me, 100000, &held_one));
    memset(xi_block_data(held_one), 0x5a, 100000);
    ok(xi_arena_alloc(me, 12 << 20, &b));
    xi_arena_mark_sent(b, 1, 0, 0);
    ck_assert_int_eq(xi_trim(me), 0); /* a group has yet to release it */
    set_bits(b, 1);
    size_t bytes = me->arena.bytes;
    int64_t given = xi_trim(me);
    ck_assert_int_ge(given, 12 << 20);
    ck_assert_uint_eq(me->arena.bytes, bytes - (size_t)given);
    ck_assert_int_eq(xi_trim(me), 0);
    for (size_t i = 0; i < 100000; i++) ck_assert_uint_eq(((uint8_t *)xi_block_data(held_one))[i], 0x5a);
    xi_arena_free(me, held_one);
    ck_assert_int_gt(xi_trim(me), 0);
    ck_assert_ptr_null(me->arena.segments);
    ok(xi_arena_alloc(me, 100000, &b)); /* and it grows again */
    xi_arena_free(me, b);
    fails(XI_E_INVAL, (int)xi_trim(NULL));
}
END_TEST

int main(void) {
    Suite *s = suite_create("arena");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, join_both, leave_both);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, bookkeeping_is_sound);
    tcase_add_test(t, a_block_is_no_larger_than_it_must_be);
    tcase_add_test(t, a_mailbox_too_small_is_none);
    tcase_add_test(t, a_look_is_bounded);
    tcase_add_test(t, it_grows_when_nothing_is_back);
    tcase_add_test(t, children_go_with_their_root);
    tcase_add_test(t, idle_memory_goes_back);
    tcase_add_test(t, all_that_is_idle_goes_when_memory_is_short);
    tcase_add_test(t, a_sleeper_gives_idle_memory_back);
    tcase_add_test(t, idle_memory_makes_way);
    tcase_add_test(t, it_is_trimmed_on_demand);
    suite_add_tcase(s, t);
    return run_suite(s);
}
