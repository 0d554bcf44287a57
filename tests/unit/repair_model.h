/* SPDX-License-Identifier: MIT */
/*
 * A channel in plain memory, and every operation on it as wire/layout.h states
 * it, store by store: a reference to test repair against. Each store is a step;
 * a process is killed before its k-th step by jumping out of the operation.
 * Repair itself is compiled in here with the same steps, so that it can be
 * killed as well.
 *
 * Slots: 0 the broker, 1 a producer (owner of the one arena segment), 2 a
 * consumer of group 0, 3 the owner of group 1, 4 and 5 living sleepers and
 * receivers. A value is its own number; every other one may be a block.
 */
#ifndef XI_TESTS_REPAIR_MODEL_H
#define XI_TESTS_REPAIR_MODEL_H

#include <check.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static inline void m_step(void);
#define XI_REPAIR_STEP() m_step()
#define xi_repair_channel stepped_repair_channel
#define xi_repair_borrows stepped_repair_borrows
#define xi_repair_groups stepped_repair_groups
#define xi_end_channel stepped_end_channel
#define xi_repair_bells stepped_repair_bells
#define xi_ring_drained stepped_ring_drained
#define xi_ring_home stepped_ring_home
#define xi_ring_channel stepped_ring_channel
#define xi_ring_bell stepped_ring_bell
#define xi_ring_sleepers stepped_ring_sleepers
#define xi_forget_waiters stepped_forget_waiters
#define xi_free_lock stepped_free_lock
#define xi_release_block stepped_release_block
#define xi_tell_owner_of stepped_tell_owner_of
#define xi_tail_number stepped_tail_number
#define xi_repair_flying stepped_repair_flying
#define xi_reset_flying stepped_reset_flying
#define xi_end_flying stepped_end_flying
#define xi_judge_moves stepped_judge_moves
#define xi_repair_acks stepped_repair_acks
#define xi_acks_unused stepped_acks_unused
#define xi_acks_linger stepped_acks_linger
#define xi_mark_lingers stepped_mark_lingers
#include "../../broker/repair.c"
#include "../../broker/repair_ack.c"
#include "../../broker/repair_ring.c"

enum { BROKER = 0, PRODUCER = 1, CONSUMER = 2, MEMBER = 3, SLEEPER = 4, LIVING = 5, SLOTS = 6 };
enum { ENTRIES = 24, GRANULES = 512, ARENA = 2, CHANNEL = 9, RING = 11, SIDES = 65 };
enum { FAR_TIMES = 2 }; /* the ring that the channel may move into is so many times its own */
enum values { INLINE_ONLY, BLOCKS_ONLY, MIXED };

/* ck_assert() writes to the runner each time, also when it holds: too slow for millions. */
#define m_assert(condition)                                                                                            \
    do {                                                                                                               \
        if (!(condition)) ck_abort_msg("%s", #condition);                                                              \
    } while (0)

/* True under valgrind, where everything takes fifty times as long. */
static inline bool m_slow(void) {
    const char *preload = getenv("LD_PRELOAD");
    return preload && strstr(preload, "vgpreload");
}
/* Loops over steps take each n-th of them, beginning elsewhere each time, unless XI_TEST_LONG asks for all. */
static inline long m_stride(long n) { return m_slow() ? n * 8 : getenv("XI_TEST_LONG") ? 1 : n; }

/* What has happened, told by the operations themselves. */
struct m_truth {
    uint64_t sent;                    /* number of the last value sent */
    uint64_t received[XI_MAX_GROUPS]; /* of the last value received */
    uint64_t tail, head[XI_MAX_GROUPS];
    uint64_t taken[SLOTS][64]; /* blocks received and not yet released */
    uint32_t taken_count[SLOTS];
    bool serving; /* a request was taken, and not replied to */
};

static struct {
    struct xi_chan_view view; /* where the ring was when somebody last took a lock, or repaired */
    struct xi_chan_view home, far;
    struct xi_chan *chan;
    struct xi_mailbox mail[SLOTS];
    struct xi_release release[GRANULES];
    struct xi_borrow borrows[SLOTS][2][ENTRIES / 2]; /* two chunks each */
    bool gone[SLOTS];
    uint32_t woken[SLOTS][8]; /* wakes of a bell since it was parked */
    uint32_t lock_wakes;
    enum values values;
    uint64_t keep; /* values kept for groups that join, in a channel whose view retains */
    struct m_truth truth;
} M;

/* ------------------------------------------------------------ being killed */

static jmp_buf m_killed;
static long m_left = -1; /* steps to live; -1: for ever */
static long m_done;      /* steps taken */

static void (*m_between)(void); /* what the living do before the step that m_between_at counts down to */
static long m_between_at = -1;

static inline void m_step(void) {
    m_done++;
    if (m_between_at >= 0 && m_between_at-- == 0) m_between();
    if (m_left >= 0 && m_left-- == 0) longjmp(m_killed, 1);
}

/* Runs `op` and kills it before its k-th step (from 0). True if it came to its end before. */
static inline bool m_run(void (*op)(void), long k) {
    m_left = k;
    m_done = 0;
    if (setjmp(m_killed) != 0) {
        m_left = -1;
        return false;
    }
    op();
    m_left = -1;
    return true;
}

/* ---------------------------------------------------------- what repair asks */

static inline struct xi_release *m_release_word(void *context, uint32_t segment, uint32_t granule) {
    (void)context;
    return segment == ARENA && granule < GRANULES ? &M.release[granule] : NULL;
}
static inline struct xi_mailbox *m_mailbox(void *context, uint32_t slot) {
    (void)context;
    return slot > 0 && slot < SLOTS && !M.gone[slot] ? &M.mail[slot] : NULL;
}
static inline uint32_t m_owner_of(void *context, uint32_t segment) {
    (void)context;
    return segment == ARENA ? PRODUCER : 0;
}
static inline void m_futex_wake(void *context, xi_a32 *word, int count) {
    (void)context;
    m_assert(count > 0);
    for (uint32_t s = 1; s < SLOTS; s++)
        for (uint32_t b = 0; b < 8; b++)
            if (word == &M.mail[s].bells[b].bell) M.woken[s][b]++;
    if (word == &M.chan->lock_sleep) M.lock_wakes++;
}
/* The table of deliveries of one group, and the channel of its dead letters, where a test has them. */
enum { TABLE = 11, LETTERS = 13 };
static struct xi_acks *m_table;
static struct xi_chan_view m_letters;
static inline struct xi_acks *m_acks(void *context, uint32_t number, uint32_t chan_segment, uint64_t *window) {
    (void)context;
    if (number != TABLE || chan_segment != CHANNEL || m_table == NULL) return NULL;
    *window = m_table->window;
    return m_table;
}
static inline bool m_channel(void *context, uint32_t segment, struct xi_chan_view *view) {
    (void)context;
    *view = m_letters;
    return segment == LETTERS && m_letters.chan != NULL;
}
static const struct xi_world m_world = {NULL, m_release_word, m_mailbox, m_owner_of, m_futex_wake, m_acks, m_channel, NULL};

/* ------------------------------------------------------------- the channel */

/* `offset` bytes and then a ring, which lies there twice in a row; a page on either side that nobody may touch. */
static inline uint8_t *m_map_ring(uint64_t offset, uint64_t capacity) {
    size_t size = offset + capacity;
    int fd = memfd_create("channel", MFD_CLOEXEC);
    m_assert(ftruncate(fd, (off_t)size) == 0);
    uint8_t *base = mmap(NULL, size + capacity + 2 * XI_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    m_assert(base != MAP_FAILED);
    base += XI_PAGE;
    int access = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_FIXED;
    m_assert(mmap(base, size, access, flags, fd, 0) == base);
    m_assert(mmap(base + size, capacity, access, flags, fd, (off_t)offset) == base + size);
    close(fd);
    return base;
}

static inline void m_map(uint64_t capacity) {
    uint8_t *base = m_map_ring(XI_RING_OFFSET, capacity), *far = m_map_ring(XI_PAGE, FAR_TIMES * capacity);
    M.chan = (struct xi_chan *)(void *)base;
    M.home = (struct xi_chan_view){.chan = M.chan, .ring = base + XI_RING_OFFSET, .capacity = capacity, .segment = CHANNEL};
    M.far = M.home;
    M.far.ring = far + XI_PAGE;
    M.far.capacity = FAR_TIMES * capacity;
    M.far.word = XI_RING(RING, (uint64_t)__builtin_ctzll(M.far.capacity));
    M.view = M.home;
}

static inline void m_unmap(void) {
    munmap((uint8_t *)M.chan - XI_PAGE, XI_RING_OFFSET + 2 * M.home.capacity + 2 * XI_PAGE);
    munmap(M.far.ring - 2 * XI_PAGE, 2 * M.far.capacity + 3 * XI_PAGE);
}

/* What the ring's word says now. */
static inline void m_look(void) {
    uint64_t word = M.chan->ring;
    M.view = word == M.far.word ? M.far : M.home;
    M.view.lost = word != 0 && word != M.far.word;
    M.view.word = word;
}

static inline void m_group_at(uint32_t g, uint32_t owner) {
    struct xi_group *group = &M.chan->groups[g];
    group->head = group->head_seq = 0;
    group->head = M.chan->tail;
    group->head_seq = M.chan->tail_seq;
    group->owner = owner;
    group->owner_id = owner ? 100 + owner : 0;
    group->state = XI_GROUP_ACTIVE;
    M.chan->active |= (uint64_t)1 << g;
    M.truth.head[g] = M.chan->tail;
    M.truth.received[g] = M.chan->tail_seq;
}

/* An empty channel with group 0 that has already carried `position` bytes and `number` values. */
static inline void m_reset(enum values values, uint64_t position, uint64_t number) {
    struct xi_chan_view view = M.home, far = M.far;
    view.retains = far.retains = false;
    memset(&M, 0, sizeof M);
    M.view = M.home = view;
    M.far = far;
    M.chan = view.chan;
    memset(M.chan, 0, sizeof *M.chan);
    memset(view.ring, 0x5a, view.capacity); /* what earlier laps have left there */
    memset(far.ring, 0xa5, far.capacity);
    *xi_ring_at(&view, position) = 0;
    M.values = values;
    M.chan->mode = XI_BROADCAST;
    M.chan->capacity = view.capacity;
    M.chan->producers = M.chan->consumers = 1;
    M.chan->tail = M.chan->min_head = M.truth.tail = position;
    M.chan->tail_seq = M.truth.sent = number;
    m_group_at(0, 0);
    for (uint32_t i = 0; i < GRANULES; i++)
        for (int w = 0; w < 4; w++) M.release[i].word[w] = (uint64_t)1 << 16; /* a generation that nobody names */
}

static inline void m_lock(xi_a32 *lock, uint32_t slot) {
    uint32_t free_ = 0;
    m_step();
    m_assert(xi_cas32_full(lock, &free_, XI_LOCK_OF(slot)));
    m_look();
}
static inline void m_unlock(xi_a32 *lock) {
    m_step();
    xi_store_release(lock, 0u);
    xi_a32 *lock_sleep = lock == &M.chan->lock ? &M.chan->lock_sleep : lock + 1; /* of a group: the word behind it */
    uint32_t seen = *lock_sleep;
    if (seen & 1) {
        m_step();
        *lock_sleep = seen + 1;
        m_step();
        m_futex_wake(NULL, lock_sleep, INT_MAX);
    }
}

/* -------------------------------------------------------- waking and parking */

static inline void m_wake_one(struct xi_mask *mask) {
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++) {
        uint64_t bit = (uint64_t)1 << (i % 64);
        if (!(mask->word[i / 64] & bit)) continue;
        m_step();
        (void)xi_and_full(&mask->word[i / 64], ~bit);
        uint64_t waiter = M.chan->waiters[i];
        struct xi_mailbox *mailbox = waiter_valid(waiter) ? m_mailbox(NULL, XI_WAITER_SLOT(waiter)) : NULL;
        if (mailbox == NULL) continue;
        struct xi_bell *bell = &mailbox->bells[XI_WAITER_BELL(waiter)];
        uint32_t parked = XI_BELL_PARKED, member = XI_WAITER_MEMBER(waiter);
        if (member) {
            m_step();
            (void)xi_or_full(&mailbox->ready[(member - 1) / 64], (uint64_t)1 << ((member - 1) % 64));
            m_step();
            (void)xi_or_full(&mailbox->ready_words[(member - 1) / 4096], (uint64_t)1 << ((member - 1) / 64 % 64));
        }
        m_step();
        if (!xi_cas32_full(&bell->state, &parked, XI_BELL_NOTIFIED)) continue;
        m_step();
        bell->bell++;
        m_step();
        m_futex_wake(NULL, &bell->bell, 1);
        if (member == 0) return; /* a set need not receive */
    }
}

static inline void m_wake_consumers(uint32_t n) {
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        if (!(M.chan->parked_groups >> g & 1)) continue;
        for (uint32_t i = 0; i < n; i++) m_wake_one(&M.chan->groups[g].parked);
        if (!mask_empty(&M.chan->groups[g].parked)) continue;
        m_step();
        (void)xi_and_full(&M.chan->parked_groups, ~((uint64_t)1 << g));
    }
}

static inline void m_wake_producers(void) {
    if (M.chan->parked_producers) m_wake_one(&M.chan->parked_senders);
}

static inline void m_park_as(uint64_t waiter, uint32_t entry) {
    uint32_t slot = XI_WAITER_SLOT(waiter), bell = XI_WAITER_BELL(waiter), side = XI_WAITER_SIDE(waiter);
    uint64_t free_ = 0, bit = (uint64_t)1 << (entry % 64);
    m_step();
    m_assert(xi_cas64_full(&M.chan->waiters[entry], &free_, waiter));
    M.woken[slot][bell] = 0;
    m_step();
    xi_store_full(&M.mail[slot].bells[bell].state, (uint32_t)XI_BELL_PARKED);
    m_step();
    (void)xi_or_full(&side_mask(&M.view, side)->word[entry / 64], bit);
    m_step();
    if (side == XI_SIDE_PRODUCERS)
        M.chan->parked_producers = 1;
    else
        (void)xi_or_full(&M.chan->parked_groups, (uint64_t)1 << (side - 1));
}

static inline void m_park(uint32_t slot, uint32_t bell, uint32_t side, uint32_t entry) {
    m_park_as(XI_WAITER(slot, bell, side), entry);
}

static inline void m_unpark(uint32_t slot, uint32_t bell, uint32_t side, uint32_t entry) {
    m_step();
    (void)xi_and_full(&side_mask(&M.view, side)->word[entry / 64], ~((uint64_t)1 << (entry % 64)));
    m_step();
    M.chan->waiters[entry] = 0;
    m_step();
    M.mail[slot].bells[bell].state = XI_BELL_IDLE;
}

/* ------------------------------------------------------------------ sending */

static inline bool m_is_block(uint64_t number) {
    return M.values == BLOCKS_ONLY || (M.values == MIXED && number % 2 == 0);
}
static inline uint32_t m_length(uint64_t number) { return m_is_block(number) ? 32 : 8 + 8 * (uint32_t)(number % 3); }
static inline uint32_t m_granule(uint64_t number) { return 4 + (uint32_t)(number % (GRANULES - 4)); }
static inline uint64_t m_generation(uint64_t number) { return 2 + number % 100000; }

static inline void m_payload(uint64_t w, uint64_t number) {
    uint32_t words = m_length(number) / 8;
    uint64_t payload[4] = {number, number, number, number};
    if (m_is_block(number)) {
        payload[0] = ARENA | (uint64_t)m_granule(number) << 32;
        payload[1] = m_generation(number);
        payload[3] = PRODUCER;
        for (int i = 0; i < 4; i++)
            M.release[m_granule(number)].word[i] = m_generation(number) << 16 | (~M.chan->active >> (16 * i) & 0xffff);
    }
    for (uint32_t i = 0; i < words; i++) {
        m_step();
        *xi_ring_at(&M.view, w + 8 + 8 * i) = payload[i];
    }
}

static inline uint64_t m_smallest_head(uint64_t w) {
    uint64_t smallest = w;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if ((M.chan->active >> g & 1) && M.chan->groups[g].head < smallest) smallest = M.chan->groups[g].head;
    return smallest;
}

static inline void m_ring_owner(void);

/* The group of retained values, which nobody receives in. */
static inline void m_retaining(uint64_t keep) {
    m_group_at(XI_GROUP_RETAIN, 0);
    M.view.retains = M.home.retains = M.far.retains = true;
    M.keep = keep;
}

/* Keeps no more than it is to: a value at a time, the bit of its block first. For a block that decides, as repair goes on. */
static inline void m_trim(void) {
    struct xi_group *group = &M.chan->groups[XI_GROUP_RETAIN];
    while (M.chan->tail_seq - group->head_seq > M.keep) {
        uint64_t number = group->head_seq + 1, next = group->head + 8 + m_length(number);
        if (m_is_block(number)) {
            m_step();
            (void)xi_or_full(&M.release[m_granule(number)].word[XI_RELEASE_WORD(XI_GROUP_RETAIN)],
                             XI_RELEASE_BIT(XI_GROUP_RETAIN));
            M.truth.received[XI_GROUP_RETAIN] = number;
            M.truth.head[XI_GROUP_RETAIN] = next;
            m_ring_owner();
        }
        m_step();
        group->head_seq = number;
        m_step();
        xi_store_release(&group->head, next);
        M.truth.received[XI_GROUP_RETAIN] = number;
        M.truth.head[XI_GROUP_RETAIN] = next;
    }
}

/* Sends up to n values; returns how many there was room for. */
static inline uint32_t m_send(uint32_t slot, uint32_t n) {
    m_lock(&M.chan->lock, slot);
    uint64_t stored = M.chan->tail, w = stored, number = M.chan->tail_seq;
    uint32_t done = 0;
    for (; done < n; done++) {
        uint64_t need = 8 + (uint64_t)m_length(number + 1) + 8, floor_ = m_smallest_head(w);
        if (w + need > M.view.capacity + (floor_ < stored ? floor_ : stored)) break;
        number++;
        m_payload(w, number);
        uint64_t next = w + 8 + m_length(number);
        m_step();
        *xi_ring_at(&M.view, next) = 0;
        m_step();
        xi_store_release(xi_ring_at(&M.view, w),
                         XI_REC(m_length(number), m_is_block(number) ? XI_REC_BLOCK : XI_REC_INLINE,
                                m_is_block(number) ? XI_REC_F_FREE : 0, number));
        M.truth.sent = number;
        M.truth.tail = w = next;
    }
    if (done > 0) {
        m_step();
        xi_store_release(&M.chan->tail_seq, number);
        m_step();
        xi_store_release(&M.chan->tail, w);
        if (M.view.retains && M.keep) m_trim();
    }
    m_unlock(&M.chan->lock);
    m_wake_consumers(done);
    return done;
}

/* ---------------------------------------------------------------- receiving */

static inline struct xi_borrow *m_entry(uint32_t slot, uint32_t i) { return &M.borrows[slot][i % 2][i / 2]; }

static inline void m_take(uint32_t slot, uint32_t g, uint64_t position) {
    struct xi_block_name block = xi_block_read(&M.view, position);
    uint32_t i = 0;
    while (m_entry(slot, i)->key != 0) m_assert(++i < ENTRIES);
    struct xi_borrow *b = m_entry(slot, i);
    m_step();
    b->block = (uint64_t)block.segment << 32 | block.granule;
    m_step();
    b->position = position;
    m_step();
    b->chan_seg = CHANNEL;
    m_step();
    xi_store_release(&b->key, XI_BORROW_KEY(block.generation, g));
}

/* Receives up to n values; returns how many, and their numbers in `out` if that is not NULL. */
static inline uint32_t m_receive(uint32_t slot, uint32_t g, uint32_t n, uint64_t *out) {
    struct xi_group *group = &M.chan->groups[g];
    m_lock(&group->lock, slot);
    uint64_t head = group->head, number = group->head_seq, header;
    uint32_t done = 0, blocks = 0;
    for (; done < n && (header = xi_load_acquire(xi_ring_at(&M.view, head))) != 0; done++) {
        number++;
        m_assert(XI_REC_SEQ(header) == (uint16_t)number);
        if (XI_REC_KIND(header) == XI_REC_BLOCK) {
            m_assert(*xi_ring_at(&M.view, head + 16) == m_generation(number));
            m_take(slot, g, head);
            M.truth.taken[slot][M.truth.taken_count[slot] + blocks++] = number;
        } else {
            m_assert(*xi_ring_at(&M.view, head + 8) == number);
        }
        if (out) out[done] = number;
        head += 8 + XI_REC_LENGTH(header);
    }
    if (done > 0) {
        m_step();
        group->head_seq = number;
        m_step();
        xi_store_release(&group->head, head);
        M.truth.head[g] = head;
        M.truth.received[g] = number;
        M.truth.taken_count[slot] += blocks;
    }
    m_unlock(&group->lock);
    if (done > 0) m_wake_producers();
    return done;
}

/* Takes one request of the caller in slot LIVING, call 3, and serves it. */
enum { CALL_GENERATION = 77, CALL_INDEX = 3 };
static inline void m_serve(uint32_t slot) {
    struct xi_group *group = &M.chan->groups[0];
    m_lock(&group->lock, slot);
    uint64_t head = group->head, header = xi_load_acquire(xi_ring_at(&M.view, head));
    struct xi_borrow *b = m_entry(slot, 0);
    m_step();
    b->block = (uint64_t)LIVING << 32;
    m_step();
    b->position = head;
    m_step();
    b->chan_seg = CHANNEL;
    m_step();
    b->call = CALL_INDEX + 1;
    m_step();
    xi_store_release(&b->key, XI_BORROW_KEY(CALL_GENERATION, 0));
    m_step();
    group->head_seq = XI_REC_SEQ(header) == (uint16_t)(group->head_seq + 1) ? group->head_seq + 1 : 0;
    m_step();
    xi_store_release(&group->head, head + 8 + XI_REC_LENGTH(header));
    M.truth.head[0] = group->head;
    M.truth.received[0]++;
    M.truth.serving = true;
    m_unlock(&group->lock);
    m_wake_producers();
    m_step();
    b->key = 0; /* the reply was sent before */
    M.truth.serving = false;
    m_step();
    b->call = 0;
}

static inline void m_ring_owner(void) {
    m_step();
    xi_store_full(&M.mail[PRODUCER].reclaim, 1u);
    if (M.mail[PRODUCER].reclaim_bell == 0) return;
    struct xi_bell *bell = &M.mail[PRODUCER].bells[M.mail[PRODUCER].reclaim_bell - 1];
    uint32_t parked = XI_BELL_PARKED;
    m_step();
    if (!xi_cas32_full(&bell->state, &parked, XI_BELL_NOTIFIED)) return;
    m_step();
    bell->bell++;
    m_step();
    m_futex_wake(NULL, &bell->bell, 1);
}

static inline void m_set_bit(uint64_t number, uint32_t g) {
    m_step();
    (void)xi_or_full(&M.release[m_granule(number)].word[g / 16], (uint64_t)1 << (g % 16));
    m_ring_owner();
}

/* Releases the first block that the consumer holds. */
static inline void m_give_back(uint32_t slot, uint32_t g) {
    m_set_bit(M.truth.taken[slot][0], g);
    m_step();
    m_entry(slot, 0)->key = 0;
}

/* ------------------------------------------------------------------- groups */

static inline void m_join(uint32_t slot, uint32_t g) {
    struct xi_group *group = &M.chan->groups[g];
    m_lock(&M.chan->lock, slot);
    m_step();
    group->head = M.chan->tail;
    m_step();
    group->head_seq = M.chan->tail_seq;
    m_step();
    group->owner = slot;
    m_step();
    group->owner_id = 100 + slot;
    m_step();
    group->state = XI_GROUP_ACTIVE;
    m_step();
    (void)xi_or_full(&M.chan->active, (uint64_t)1 << g);
    M.truth.head[g] = M.chan->tail;
    M.truth.received[g] = M.chan->tail_seq;
    m_unlock(&M.chan->lock);
}

/* Joins at what `guard` has yet to receive, or keeps. */
static inline void m_join_at(uint32_t slot, uint32_t g, uint32_t guard) {
    struct xi_group *group = &M.chan->groups[g], *from = &M.chan->groups[guard];
    bool locked = !(M.view.retains && guard == XI_GROUP_RETAIN);
    m_lock(&M.chan->lock, slot);
    if (locked) m_lock(&from->lock, slot);
    m_step();
    group->owner = slot;
    m_step();
    group->owner_id = 100 + slot;
    m_step();
    group->head_seq = from->head_seq;
    m_step();
    group->head = from->head;
    m_step();
    group->state = XI_GROUP_JOINING;
    for (uint64_t p = group->head, number = group->head_seq + 1; p < M.chan->tail; p += 8 + m_length(number++)) {
        if (!m_is_block(number)) continue;
        m_assert(!(M.release[m_granule(number)].word[XI_RELEASE_WORD(guard)] & XI_RELEASE_BIT(guard)));
        m_step();
        (void)xi_and_full(&M.release[m_granule(number)].word[XI_RELEASE_WORD(g)], ~XI_RELEASE_BIT(g));
    }
    m_step();
    group->state = XI_GROUP_ACTIVE;
    m_step();
    (void)xi_or_full(&M.chan->active, (uint64_t)1 << g);
    M.truth.head[g] = group->head;
    M.truth.received[g] = group->head_seq;
    if (locked) m_unlock(&from->lock);
    m_unlock(&M.chan->lock);
}

static inline void m_end(uint32_t slot, uint32_t g) {
    struct xi_group *group = &M.chan->groups[g];
    m_lock(&M.chan->lock, slot);
    m_lock(&group->lock, slot);
    m_step();
    (void)xi_and_full(&M.chan->active, ~((uint64_t)1 << g));
    m_step();
    group->life++;
    m_step();
    group->state = XI_GROUP_ENDING;
    for (uint64_t p = group->head, number = group->head_seq + 1; p < M.chan->tail; number++) {
        if (m_is_block(number)) m_set_bit(number, g);
        p += 8 + m_length(number);
    }
    m_step();
    group->state = XI_GROUP_FREE;
    m_unlock(&group->lock);
    m_unlock(&M.chan->lock);
    m_wake_producers();
}

static inline void m_close(uint32_t slot) {
    m_lock(&M.chan->lock, slot);
    m_step();
    M.chan->closed = 1;
    m_unlock(&M.chan->lock);
    for (int i = 0; i < 2; i++) {
        m_wake_consumers(1);
        m_wake_producers();
    }
}

/* ------------------------------------------------------------------ moving */

/* Into the ring that is not in use. */
static inline void m_move(uint32_t slot) {
    m_lock(&M.chan->lock, slot);
    struct xi_chan_view from = M.view, to = from.word ? M.home : M.far;
    uint64_t floor_ = m_smallest_head(M.chan->tail), tail = M.chan->tail;
    m_assert(tail + 8 - floor_ <= to.capacity);
    for (uint64_t at = floor_; at < tail + 8; at += 8) {
        m_step();
        xi_store_relaxed(xi_ring_at(&to, at), xi_load_relaxed(xi_ring_at(&from, at)));
    }
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if (M.chan->active >> g & 1) m_lock(&M.chan->groups[g].lock, slot);
    m_step();
    xi_store_full(&M.chan->ring, to.word);
    m_look();
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if (M.chan->active >> g & 1) m_unlock(&M.chan->groups[g].lock);
    m_unlock(&M.chan->lock);
    m_wake_producers();
}

/* ------------------------------------------------------------------- repair */

static struct xi_borrow_view m_chunks[2];

static inline struct xi_dead m_dead(uint32_t slot) {
    m_chunks[0] = (struct xi_borrow_view){M.borrows[slot][0], ENTRIES / 2};
    m_chunks[1] = (struct xi_borrow_view){M.borrows[slot][1], ENTRIES / 2};
    return (struct xi_dead){slot, 100 + slot, m_chunks, slot == BROKER ? 0 : 2, false};
}

/* Again with a new view, as long as the living move the ring meanwhile. */
static inline void m_repair_chan(const struct xi_dead *dead) {
    struct xi_chan_view view;
    do {
        m_look();
        view = M.view;
    } while (!xi_repair_channel(&view, dead, &m_world));
}

static inline void m_repair_channel(uint32_t slot) {
    struct xi_dead dead = m_dead(slot);
    m_repair_chan(&dead);
    m_look();
}

/* What the broker does after the death of `slot`. */
static inline void m_repair(uint32_t slot) {
    struct xi_dead dead = m_dead(slot);
    struct xi_chan_view view;
    int tries = 0;
    m_repair_chan(&dead);
    xi_repair_borrows(&dead, &m_world);
    do {
        m_assert(tries++ < 2); /* once the living may have moved the ring */
        m_look();
        view = M.view;
    } while (!xi_repair_groups(&view, &dead, &m_world));
    for (uint32_t s = 1; s < SLOTS; s++)
        if (!M.gone[s]) xi_repair_bells(&M.mail[s], &m_world);
    m_look();
}

#endif
