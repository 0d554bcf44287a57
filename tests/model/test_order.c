/* SPDX-License-Identifier: MIT */
/*
 * Memory order: the library's own code for sending, receiving, locking, sleeping
 * and waking, releasing blocks and joining at them, under every behaviour that
 * C11 allows (explore.h), a few threads at a time. Then the same with each order
 * that is stronger than relaxed made weaker, one after another: either something
 * goes wrong in some shape, or it is listed below as one that no shape needs.
 *
 *     test_order                 all shapes
 *     XI_TEST_LONG=1 test_order  and each order made weaker
 *     test_order SHAPE           one of them, and its failure step by step
 *
 * What the kernel does is part of it: futex(2) and membarrier(2). Not looked at
 * are words that do not change in these shapes: closed, ring, active, life.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPINS 1
#define YIELDS 1
#include "arena/arena.c"
#include "channel/history.c"
#include "channel/lock.c"
#include "channel/log.h"
#undef SPINS
#undef YIELDS

#include "explore.h"

bool explore_has_membarrier;

/* ---------------------------------------------------------------- the world */

#define PEOPLE 3
#define GENERATION 7
#define GRANULE 4

struct person {
    struct xi_interp me;
    struct xi_mailbox mailbox;
    _Alignas(XI_LINE) uint8_t own[XI_OWN_SIZE]; /* a struct xi_own */
    struct xi_channel ch;
    uint16_t bells[1];
    uint32_t borrows[2];
    int64_t got[4];
    unsigned gotten;
};

static struct person people[PEOPLE];
static struct xi_chan chan;
static struct xi_registry registry;
static _Alignas(XI_PAGE) uint8_t ring[256];
static _Alignas(XI_PAGE) uint8_t arena[2 * XI_PAGE];
static _Alignas(XI_PAGE) uint8_t words[sizeof(struct xi_release_table) + (GRANULE + 1) * sizeof(struct xi_release)];
static struct xi_map_entry entry;
static struct xi_asegment segment;
static struct xi_block block;

static struct xi_release *release_of(void) { return &((struct xi_release_table *)(void *)words)->release[GRANULE]; }
/* What the block says, in which life. */
static uint64_t *content(void) { return (uint64_t *)(void *)(arena + (size_t)GRANULE * XI_GRANULE); }

struct xi_mailbox *__wrap_xi_mailbox_get(struct xi_interp *me, uint32_t slot, struct xi_map_entry **e);
struct xi_mailbox *__wrap_xi_mailbox_get(struct xi_interp *me, uint32_t slot, struct xi_map_entry **e) {
    (void)me;
    *e = NULL;
    return slot >= 1 && slot <= PEOPLE ? &people[slot - 1].mailbox : NULL;
}
int __wrap_xi_maps_arena(struct xi_interp *me, uint32_t number, struct xi_map_entry **out);
int __wrap_xi_maps_arena(struct xi_interp *me, uint32_t number, struct xi_map_entry **out) {
    (void)me, (void)number;
    *out = &entry;
    return 0;
}
void __wrap_xi_maps_put(struct xi_map_entry *e);
void __wrap_xi_maps_put(struct xi_map_entry *e) { (void)e; }
enum xi_wake_reason __wrap_xi_sleep(_Atomic uint32_t *word, uint32_t value, int64_t deadline, int control);
enum xi_wake_reason __wrap_xi_sleep(_Atomic uint32_t *word, uint32_t value, int64_t deadline, int control) {
    (void)deadline, (void)control;
    (void)explore_sleep(word, value);
    return XI_WAKE_BELL;
}

static void make_person(unsigned i, uint64_t capacity) {
    struct person *p = &people[i];
    free(p->ch.flights);
    memset(p, 0, sizeof *p);
    struct xi_own *own = (struct xi_own *)(void *)p->own;
    p->me = (struct xi_interp){.slot = i + 1, .life = *xi_life_page, .own = own, .mailbox = &p->mailbox, .registry = &registry};
    p->me.references = 1;
    p->me.control.fd = -1;
    p->me.bells.bell = p->mailbox.bells;
    p->me.bells.free = p->bells;
    p->me.bells.free_count = 1;
    p->me.borrows.chunk[0].entries = own->borrows;
    p->me.borrows.chunk[0].count = 2;
    p->me.borrows.chunks = 1;
    p->me.borrows.free = p->borrows;
    p->me.borrows.free_count = 2;
    p->borrows[0] = 1;
    struct xi_view home = {.ring = ring, .mask = capacity - 1, .capacity = capacity};
    p->ch = (struct xi_channel){.interp = &p->me, .chan = &chan, .home = home, .send_view = home, .receive_view = home,
                                .look_ring = ring, .look_mask = home.mask,
                                .inline_max = 8, .fast_max = 8, .lock_word = XI_LOCK_OF(i + 1), .group = &chan.groups[0],
                                .can_send = true, .sends_plainly = true, .mode = XI_QUEUE, .segment = 2, .name = "c"};
}

static void watch_all(uint64_t capacity) {
    struct xi_group *g = &chan.groups[0];
    explore_watch(&chan.lock, 4, "producers' lock", 1, 0);
    explore_watch(&chan.lock_sleep, 4, "producers' lock_sleep", 1, 0);
    explore_watch(&chan.tail, 8, "tail", 1, 0);
    explore_watch(&chan.tail_seq, 8, "tail_seq", 1, 0);
    explore_watch(&chan.min_head, 8, "min_head", 1, 0);
    explore_watch(&g->lock, 4, "group's lock", 1, 0);
    explore_watch(&g->lock_sleep, 4, "group's lock_sleep", 1, 0);
    explore_watch(&g->head, 8, "head", 1, 0);
    explore_watch(&g->head_seq, 8, "head_seq", 1, 0);
    explore_watch(ring, 8, "header", capacity / 8, 8);
}

/* Where all records are of 16 bytes. What the locks guard, and nobody looks at without. */
static void guard(uint64_t capacity, bool tail) {
    if (tail) {
        explore_guard(&chan.tail);
        explore_guard(&chan.tail_seq);
        explore_guard(&chan.groups[0].head_seq);
    }
    explore_guard(&chan.min_head);
    for (uint64_t i = 8; i < capacity; i += 16) explore_guard(ring + i); /* payload */
}

static void watch_sleepers(void) {
    explore_watch(&chan.parked_groups, 8, "parked_groups", 1, 0);
    explore_watch(&chan.groups[0].parked.word[0], 8, "parked consumers", 1, 0);
}
static void watch_sleeping_senders(void) {
    explore_watch(&chan.parked_producers, 4, "parked_producers", 1, 0);
    explore_watch(&chan.parked_senders.word[0], 8, "parked senders", 1, 0);
}
/* Of those who sleep: where their entry will be follows from xi_waiter_take(). */
static void watch_sleeper(unsigned who) {
    explore_watch(&chan.waiters[(who + 1) * 7], 8, "waiter", 1, 0);
    explore_watch(&people[who].mailbox.bells[0].bell, 4, "bell", 1, 0);
    explore_watch(&people[who].mailbox.bells[0].state, 4, "bell's state", 1, 0);
}

/* A queue in a ring of so many bytes, of which `used` have been gone through. */
static void world(uint64_t capacity, uint64_t at) {
    memset(&chan, 0, sizeof chan);
    memset(ring, 0, sizeof ring);
    memset(&registry, 0, sizeof registry);
    chan.capacity = capacity;
    chan.mode = XI_QUEUE;
    chan.inline_max = 8;
    chan.active = 1;
    chan.tail = chan.min_head = chan.groups[0].head = at;
    chan.groups[0].state = XI_GROUP_ACTIVE;
    for (unsigned i = 0; i < PEOPLE; i++) make_person(i, capacity);
    explore_has_membarrier = true;
    membarrier_works = 1;
    xi_lock_fenced = false;
}

static void without_membarrier(void) {
    explore_has_membarrier = false;
    membarrier_works = 0;
    xi_lock_fenced = true;
}

/* ----------------------------------------------------------------- threads */

static void send_values(struct person *p, int64_t first, unsigned n, int64_t timeout) {
    for (unsigned i = 0; i < n; i++) {
        int rc = xi_send_int(&p->ch, first + i, timeout);
        if (rc == XI_E_AGAIN) return;
        if (rc) explore_fail("a send fails");
    }
}

static void receive_values(struct person *p, unsigned n, int64_t timeout) {
    xi_msg m = XI_MSG_INIT;
    for (unsigned i = 0; i < n; i++) {
        int rc = xi_recv(&p->ch, &m, timeout);
        if (rc == XI_E_AGAIN) continue;
        if (rc) explore_fail("a receive fails");
        uint64_t w;
        memcpy(&w, m.data, 8);
        p->got[p->gotten++] = (int64_t)(w >> 32);
    }
}

static void sends_one(void *p) { send_values(p, 1 + 10 * (((struct person *)p)->me.slot - 1), 1, XI_FOREVER); }
static void sends_two(void *p) { send_values(p, 1, 2, XI_TRY); }
static void sends_three(void *p) { send_values(p, 1, 3, XI_TRY); }
static void waits_for_one(void *p) { receive_values(p, 1, XI_FOREVER); }
static void tries_one(void *p) { receive_values(p, 1, XI_TRY); }
static void tries_two(void *p) { receive_values(p, 2, XI_TRY); }
static void tries_three(void *p) { receive_values(p, 3, XI_TRY); }

/* Who got what: increasing, each once, and as far as the head says. */
static const char *in_order(bool stuck) {
    uint64_t all = 0, received = 0;
    if (stuck) return "somebody sleeps though there is something for it";
    for (unsigned i = 0; i < PEOPLE; i++)
        for (unsigned k = 0; k < people[i].gotten; k++, received++) {
            int64_t v = people[i].got[k];
            if (v < 1 || v > 60 || all >> v & 1) return "a value is received twice, or was never sent";
            if (k && people[i].got[k - 1] >= v && v / 10 == people[i].got[k - 1] / 10) return "values of one sender are received out of order";
            all |= (uint64_t)1 << v;
        }
    if (explore_value(&chan.groups[0].head_seq) != received) return "head_seq is not how many were received";
    if (explore_value(&chan.tail_seq) < received) return "tail_seq is less than what was received";
    if (explore_value(&chan.lock) || explore_value(&chan.groups[0].lock)) return "a lock is left taken";
    return NULL;
}

/* ------------------------------------------------------------------ shapes */

static void prepare_stream(void) { /* two values, one after the other */
    world(64, 0);
    watch_all(64);
    guard(64, true);
    explore_thread(sends_two, &people[0]);
    explore_thread(tries_three, &people[1]);
}

static void prepare_round(void) { /* room for one: the second takes its place */
    world(32, 16);
    watch_all(32);
    guard(32, true);
    explore_thread(sends_three, &people[0]);
    explore_thread(tries_three, &people[1]);
}

static void prepare_senders(void) {
    world(64, 0);
    watch_all(64);
    guard(64, true);
    explore_patient(&chan.lock);
    explore_patient(&chan.groups[0].lock);
    explore_thread(sends_one, &people[0]);
    explore_thread(sends_one, &people[1]);
    explore_thread(tries_two, &people[2]);
}

static void prepare_receivers(void) {
    world(64, 0);
    watch_all(64);
    guard(64, true);
    explore_patient(&chan.lock);
    explore_patient(&chan.groups[0].lock);
    explore_thread(sends_two, &people[0]);
    explore_thread(tries_two, &people[1]);
    explore_thread(tries_one, &people[2]);
}

static void prepare_sleep(void) {
    world(64, 0);
    watch_all(64);
    guard(64, true);
    watch_sleepers();
    watch_sleeper(1);
    explore_thread(sends_one, &people[0]);
    explore_thread(waits_for_one, &people[1]);
}

static void prepare_sleep_fenced(void) {
    prepare_sleep();
    without_membarrier();
}

static void prepare_room(void) { /* the ring is full: a sender waits for who receives */
    world(32, 0);
    const uint64_t value = XI_INT32 | (uint64_t)50 << 32;
    if (xi_log_append_run(&people[2].ch, &(const void *){&value}, &(size_t){8}, 1) != 1) abort();
    watch_all(32);
    guard(32, false);
    watch_sleeping_senders();
    watch_sleeper(0);
    explore_thread(sends_one, &people[0]);
    explore_thread(tries_one, &people[1]);
}

static void prepare_room_fenced(void) {
    prepare_room();
    without_membarrier();
}

/* ---- the lock alone */

static uint64_t counter;
static int lock_times = 1;

static void counts(void *p) {
    struct xi_channel *ch = &((struct person *)p)->ch;
    for (int i = 0; i < lock_times; i++) {
        if (xi_lock(ch, &chan, XI_FOREVER)) explore_fail("a lock is not to be had");
        counter++;
        xi_unlock(&chan);
    }
}
static const char *counted(bool stuck) {
    if (stuck) return "somebody sleeps for a lock that is free";
    return explore_value(&counter) == 2 * (uint64_t)lock_times ? NULL : "two had the lock at once";
}

static void prepare_lock(void) {
    world(64, 0);
    counter = 0;
    explore_watch(&chan.lock, 4, "producers' lock", 1, 0);
    explore_watch(&chan.lock_sleep, 4, "producers' lock_sleep", 1, 0);
    explore_watch(&counter, 8, "counter", 1, 0);
    explore_thread(counts, &people[0]);
    explore_thread(counts, &people[1]);
}

static void prepare_lock_fenced(void) {
    prepare_lock();
    without_membarrier();
}

/* ---- blocks */

static void make_block(void) {
    memset(words, 0, sizeof words);
    entry = (struct xi_map_entry){.map = {.base = arena, .size = sizeof arena}, .release = {.base = words, .size = sizeof words}, .number = 4};
    segment = (struct xi_asegment){.entry = &entry, .data = arena, .number = 4,
                                   .release = ((struct xi_release_table *)(void *)words)->release};
    block = (struct xi_block){.segment = &segment, .granule = GRANULE, .generation = GENERATION, .size = 64};
    *content() = 1;
}

static void watch_block(void) {
    explore_watch(&release_of()->word[0], 8, "release word 0", 1, 0);
    explore_watch(&release_of()->word[1], 8, "release words 1 to 3", 3, 8);
    explore_watch(content(), 8, "content", 1, 0);
}

/* Its owner uses it again, if it may. */
static void use_again(void) {
    if (released_by_all(&block)) *content() = 2;
}

static void sends_block(void *p) {
    struct xi_channel *ch = &((struct person *)p)->ch;
    struct xi_descriptor d = {segment.number, GRANULE, GENERATION, 64, 1, 0};
    struct xi_record r = {&d, sizeof d, XI_REC_BLOCK, 0, 0, NULL, NULL};
    struct xi_sending s = {.block = &block};
    struct xi_want want;
    *content() = 1;
    if (xi_lock_send(ch, XI_FOREVER) || xi_log_append(ch, &r, 1, &s, &want) != 1) explore_fail("a send fails");
    xi_unlock(ch->chan);
    use_again();
    use_again();
}

static void receives_block(void *p) {
    xi_msg m = XI_MSG_INIT;
    uint64_t w;
    if (xi_recv(&((struct person *)p)->ch, &m, XI_TRY)) return;
    memcpy(&w, m.data, 8);
    if (w != 1) explore_fail("a block has another life while it is being read");
    xi_msg_release(&m);
}

static const char *no_deadlock(bool stuck) { return stuck ? "somebody sleeps" : NULL; }

static void prepare_block(void) {
    world(128, 0);
    make_block();
    watch_all(128);
    watch_block();
    explore_thread(sends_block, &people[0]);
    explore_thread(receives_block, &people[1]);
}

#define JOINER 16u /* a group whose bit is not in the first word */

/* A group begins at a block that all others have released: it has it, and reads it, or it has not. */
static void joins(void *nothing) {
    (void)nothing;
    if (!clear_bit(release_of(), JOINER, GENERATION)) return;
    if (*content() != 1) explore_fail("a group begins at a block that its owner has taken back");
    (void)xi_release_bit(&entry, GRANULE, GENERATION, JOINER);
}
static void takes_back(void *nothing) {
    (void)nothing;
    use_again();
}
static void prepare_join(void) {
    world(64, 0);
    make_block();
    for (int i = 0; i < 4; i++) release_of()->word[i] = XI_RELEASE_ALL(GENERATION);
    block.state = XI_BLOCK_SENT;
    watch_block();
    explore_thread(takes_back, NULL);
    explore_thread(joins, NULL);
}

/* ------------------------------------------------------------------- all */

static const struct shape shapes[] = {
    {"lock", "two threads, and how they sleep for it", prepare_lock, counted},
    {"lock-fenced", "the same where there is no membarrier(2)", prepare_lock_fenced, counted},
    {"stream", "two values in a ring of 64 bytes", prepare_stream, in_order},
    {"round", "three values in a ring of one", prepare_round, in_order},
    {"block", "a block is sent, read, released and used again", prepare_block, no_deadlock},
    {"join", "a group joins at a block that its owner is taking back", prepare_join, no_deadlock},
    {"senders", "two senders, one receiver", prepare_senders, in_order},
    {"sleep", "a receiver goes to sleep while a value is sent", prepare_sleep, in_order},
    {"sleep-fenced", "the same where there is no membarrier(2)", prepare_sleep_fenced, in_order},
    {"room", "a sender goes to sleep while room is made", prepare_room, in_order},
    {"room-fenced", "the same where there is no membarrier(2)", prepare_room_fenced, in_order},
    {"receivers", "one sender, two receivers", prepare_receivers, in_order},
};
#define SHAPES (sizeof shapes / sizeof *shapes)

/* ------------------------------------------------- every order, made weaker */

static const char *const accesses[] = {"load", "store", "rmw"};

/* An order that the code asks for in some shape, and what came of doing with relaxed instead. */
static struct weaker {
    struct weakening w;
    const char *shape, *failure;
} weaker[128];
static unsigned weaker_count;

static void collect(void *context, const char *name, enum access access, int order) {
    (void)context;
    for (unsigned i = 0; i < weaker_count; i++)
        if (weaker[i].w.access == access && weaker[i].w.from == order && strcmp(weaker[i].w.name, name) == 0) return;
    if (weaker_count == sizeof weaker / sizeof *weaker) abort();
    weaker[weaker_count++].w = (struct weakening){name, access, order, memory_order_relaxed};
}

/* Those that no shape here needs, and why they are there all the same. */
static const struct spare {
    const char *name;
    enum access access;
    int order;
    const char *why;
} spares[] = {
    {"group's lock_sleep", ACCESS_LOAD, memory_order_seq_cst, "nobody sleeps for it here: that is as for the producers'"},
    {"tail", ACCESS_STORE, memory_order_release, "repair reads it, after its writer's death"},
    {"tail_seq", ACCESS_STORE, memory_order_release, "repair reads it, after its writer's death"},
    {"tail", ACCESS_LOAD, memory_order_seq_cst, "passing the lock has brought it"},
    {"head", ACCESS_LOAD, memory_order_seq_cst, "passing the lock has brought it"},
    {"header", ACCESS_LOAD, memory_order_seq_cst, "passing the lock has brought it"},
    {"release word 0", ACCESS_LOAD, memory_order_acquire, "the compare-and-swap behind it acquires"},
    {"release words 1 to 3", ACCESS_LOAD, memory_order_acquire, "the second look behind it acquires"},
    {"release word 0", ACCESS_STORE, memory_order_release, "opens it again: nothing was done meanwhile"},
    {"waiter", ACCESS_RMW, memory_order_seq_cst, "its bit is set behind it"},
    {"waiter", ACCESS_STORE, memory_order_seq_cst, "its bit is cleared before it, and set again behind it"},
    {"waiter", ACCESS_LOAD, memory_order_acquire, "its bit was claimed before"},
    {"bell's state", ACCESS_RMW, memory_order_seq_cst, "the waiter's bit is set behind it, and claimed before"},
    {"bell", ACCESS_LOAD, memory_order_acquire, "the kernel compares it once more"},
    {"bell", ACCESS_RMW, memory_order_seq_cst, "the kernel's lock orders it before the sleeper's look"},
    {"parked consumers", ACCESS_RMW, memory_order_seq_cst, "the summary is set behind it, and looked at before"},
    {"parked consumers", ACCESS_LOAD, memory_order_seq_cst, "the summary, a read-modify-write, was cleared before"},
    {"parked senders", ACCESS_LOAD, memory_order_seq_cst, "it takes two wakers: NO_RELOOK of park.pml"},
    {"parked_producers", ACCESS_STORE, memory_order_seq_cst, "it takes two wakers: NO_RELOOK of park.pml"},
    {"parked senders", ACCESS_RMW, memory_order_seq_cst, "the summary is set behind it, and looked at before"},
};

static const struct spare *spare_of(const struct weakening *w) {
    for (size_t i = 0; i < sizeof spares / sizeof *spares; i++)
        if (spares[i].access == w->access && spares[i].order == w->from && strcmp(spares[i].name, w->name) == 0) return &spares[i];
    return NULL;
}

static const char *order_name(int order) {
    return order == memory_order_acquire ? "acquire" : order == memory_order_release ? "release" : "seq_cst";
}

/* How many orders are neither needed nor known to be spare, or known to be spare and needed. */
static int weaken_all(const char *only) {
    int bad = 0;
    for (unsigned i = 0; i < weaker_count; i++) {
        struct weaker *m = &weaker[i];
        for (unsigned k = 0; k < SHAPES && !m->failure; k++) {
            if (only && strcmp(only, shapes[k].name) != 0) continue;
            m->failure = explore(&shapes[k], &m->w, false).failure;
            m->shape = shapes[k].name;
        }
        const struct spare *spare = spare_of(&m->w);
        bool expected = !m->failure == !!spare;
        printf("%-9s %-7s %-5s of %-22s %s%s%s\n", expected ? m->failure ? "needed" : "spare" : "UNEXPECTED", order_name(m->w.from),
               accesses[m->w.access], m->w.name, m->failure ? m->shape : spare ? spare->why : "nothing goes wrong without it",
               m->failure ? ": " : "", m->failure ? m->failure : "");
        fflush(stdout);
        bad += !expected;
    }
    return bad;
}

int main(int argc, char **argv) {
    uint64_t states = 0, steps = 0;
    int bad = 0;
    for (unsigned i = 0; i < SHAPES; i++) {
        if (argc > 1 && strcmp(argv[1], shapes[i].name) != 0) continue;
        struct explored e = explore(&shapes[i], NULL, true);
        printf("%-13s %-55s %9llu states %9llu executions %11llu steps  %s\n", shapes[i].name, shapes[i].what,
               (unsigned long long)e.states, (unsigned long long)e.executions, (unsigned long long)e.steps,
               e.failure ? e.failure : e.complete ? "" : "NOT ALL");
        fflush(stdout);
        bad += e.failure || !e.complete;
        states += e.states;
        steps += e.steps;
        explore_orders(collect, NULL);
    }
    bool weaken = getenv("XI_TEST_LONG");
    if (weaken) bad += weaken_all(argc > 1 ? argv[1] : NULL);
    printf("%llu states, %llu steps, %u orders made weaker, %d failures\n", (unsigned long long)states,
           (unsigned long long)steps, weaken ? weaker_count : 0, bad);
    return bad ? 1 : 0;
}
