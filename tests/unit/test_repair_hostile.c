/* SPDX-License-Identifier: MIT */
/*
 * Repair of channels that somebody wrote into against all rules: one word after
 * another set to extremes, with locks free and held by the dead; then everything
 * random. Repair must end, stay inside the mapping (guard pages stand around
 * it), touch no living holder's lock, and leave a channel on which values are
 * sent and received again. A word that decides nothing costs no value, nor does
 * one that can be found again from others.
 */
#include <stdio.h>

#include "repair_model.h"

#define CAPACITY 4096u
#define STEPS_MAX 20000 /* of one repair: it is bounded, and far below this */

static const uint64_t extremes[] = {
    0,
    1,
    4,
    8,
    12,
    CAPACITY,
    CAPACITY - 8,
    1000000,
    (uint64_t)1 << 32,
    (uint64_t)1 << 40,
    ((uint64_t)1 << 62) - 8,
    (uint64_t)1 << 62,
    (uint64_t)1 << 63,
    ~(uint64_t)0,
    ~(uint64_t)7,
    ~(uint64_t)0 << 32,
    0x8000000080000000u,
};
#define EXTREMES (sizeof extremes / sizeof *extremes)

enum holder { NOBODY, DEAD_PRODUCER, DEAD_CONSUMER, HOLDERS };

static void send_batch(void) { m_send(PRODUCER, 4); }
static void receive_batch(void) { m_receive(CONSUMER, 0, 3, NULL); }

/* A queue with a second group, values and sleepers; then a death that leaves a lock held in mid-operation. */
static uint32_t prepare(enum holder holder) {
    m_reset(MIXED, 5 * CAPACITY + 40, 77);
    M.chan->mode = XI_QUEUE;
    m_group_at(1, 0);
    m_send(LIVING, 12);
    m_receive(CONSUMER, 0, 3, NULL);
    m_receive(MEMBER, 1, 5, NULL);
    m_park(SLEEPER, 0, XI_SIDE_GROUP(0), 3);
    m_park(CONSUMER, 1, XI_SIDE_GROUP(1), 200);
    m_park(SLEEPER, 2, XI_SIDE_PRODUCERS, 201);
    if (holder == DEAD_PRODUCER)
        (void)m_run(send_batch, 21);
    else if (holder == DEAD_CONSUMER)
        (void)m_run(receive_batch, 9);
    return holder == DEAD_CONSUMER ? CONSUMER : PRODUCER;
}

static char where[128];
#define must(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) ck_abort_msg("%s: " #condition, where);                                                      \
    } while (0)

static bool is_active(uint32_t g) { return M.chan->active >> g & 1; }

static void check_consistent(void) {
    struct xi_chan *chan = M.chan;
    must(chan->lock == 0);
    must(xi_position_plausible(chan->tail));
    must(xi_number_plausible(chan->tail_seq));
    must(*xi_ring_at(&M.view, chan->tail) == 0);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        must(chan->groups[g].state == (is_active(g) ? XI_GROUP_ACTIVE : XI_GROUP_FREE));
        if (!is_active(g)) continue;
        must(chan->groups[g].lock == 0);
        must(head_explained(&M.view, chan->groups[g].head, chan->tail, true));
        must(chan->min_head <= chan->groups[g].head);
    }
    must(is_active(0)); /* a queue without its group would send into nothing */
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++) must(chan->waiters[i] == 0 || waiter_valid(chan->waiters[i]));
}

/* Group 0 still holds what it held, though not necessarily under the same positions. Numbers may have been lost. */
static bool group_is_whole(uint32_t g) {
    uint64_t position = M.chan->groups[g].head, number = M.truth.received[g];
    struct xi_record record;
    while (xi_record_read(&M.view, position, M.chan->tail, &record)) {
        number++;
        if (XI_REC_KIND(record.header) == XI_REC_INLINE && *xi_ring_at(&M.view, position + 8) != number) return false;
        position = record.next;
    }
    return number == M.truth.sent && position == M.chan->tail;
}

/* What consumers do with what is left: take it, or skip it. Then the channel must carry new values. */
static void check_usable(void) {
    if (M.chan->closed) return;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        M.chan->groups[g].head = M.chan->tail;
        M.chan->groups[g].head_seq = M.chan->tail_seq;
    }
    uint64_t got[5];
    for (int lap = 0; lap < 3; lap++) {
        uint64_t first = M.chan->tail_seq + 1;
        must(m_send(LIVING, 5) == 5);
        for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
            if (!is_active(g)) continue;
            M.truth.taken_count[LIVING] = 0;
            must(m_receive(LIVING, g, 5, got) == 5);
            for (uint64_t i = 0; i < 5; i++) must(got[i] == first + i);
            memset(M.borrows[LIVING], 0, sizeof M.borrows[LIVING]);
        }
    }
}

static uint32_t dead_slot;
static void repair_dead(void) { m_repair(dead_slot); }

static void repair_bounded(uint32_t slot) {
    dead_slot = slot;
    M.gone[slot] = true;
    must(m_run(repair_dead, STEPS_MAX));
}

/* True for words that decide nothing, or that repair can find again: no value may be lost for them. */
static bool costs_nothing(size_t offset) {
    const size_t free_words[] = {offsetof(struct xi_chan, tail),
                                 offsetof(struct xi_chan, min_head),
                                 offsetof(struct xi_chan, vanished),
                                 offsetof(struct xi_chan, parked_groups),
                                 offsetof(struct xi_chan, parked_producers),
                                 offsetof(struct xi_chan, wakes),
                                 offsetof(struct xi_chan, groups[0].head_seq),
                                 offsetof(struct xi_chan, groups[0].corrupt),
                                 offsetof(struct xi_chan, groups[0].state),
                                 offsetof(struct xi_chan, groups[0].owner_id),
                                 offsetof(struct xi_chan, groups[0].start_seq)};
    for (size_t i = 0; i < sizeof free_words / sizeof *free_words; i++)
        if (offset == free_words[i]) return true;
    size_t senders = offsetof(struct xi_chan, parked_senders), waiters = offsetof(struct xi_chan, waiters);
    return (offset >= senders && offset < senders + sizeof(struct xi_mask)) ||
           (offset >= waiters && offset < offsetof(struct xi_chan, groups));
}

static bool names_the_living(uint32_t lock) {
    uint32_t slot = XI_LOCK_SLOT(lock);
    return lock != 0 && slot != 0 && slot < XI_MAX_INTERPS;
}

static void one_word(size_t offset, enum holder holder, uint64_t value) {
    uint32_t slot = prepare(holder);
    xi_a64 *word = (xi_a64 *)(void *)((uint8_t *)M.chan + offset);
    snprintf(where, sizeof where, "word at offset %zu of the channel set to %#llx, holder %d", offset,
             (unsigned long long)value, holder);
    *word = value;
    bool tail_is_a_choice = offset == offsetof(struct xi_chan, tail) && xi_position_plausible(value);
    for (uint32_t g = 0; g <= XI_MAX_GROUPS; g++) {
        uint32_t lock = g < XI_MAX_GROUPS ? M.chan->groups[g].lock : M.chan->lock;
        if (names_the_living(lock) && XI_LOCK_SLOT(lock) != slot)
            return; /* nobody can tell it from a lock that is held */
    }
    repair_bounded(slot);
    check_consistent();
    if (costs_nothing(offset) && !tail_is_a_choice) must(group_is_whole(0));
    check_usable();
}

static void words_of(size_t from, size_t to) {
    for (size_t offset = from; offset < to; offset += 8)
        for (int holder = 0; holder < HOLDERS; holder++)
            for (size_t i = offset / 8 % (size_t)m_stride(2); i < EXTREMES; i += (size_t)m_stride(2))
                one_word(offset, (enum holder)holder, extremes[i]);
}

START_TEST(test_head_words) {
    m_map(CAPACITY);
    words_of(offsetof(struct xi_chan, lock), offsetof(struct xi_chan, waiters));
    m_unmap();
}
END_TEST

START_TEST(test_waiter_words) {
    static const uint32_t entries[] = {0, 3, 63, 64, 200, 201, 511};
    m_map(CAPACITY);
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        size_t offset = offsetof(struct xi_chan, waiters) + 8 * entries[i];
        words_of(offset, offset + 8);
    }
    m_unmap();
}
END_TEST

START_TEST(test_group_words) {
    static const uint32_t groups[] = {0, 1, 2, 63};
    m_map(CAPACITY);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        size_t offset = offsetof(struct xi_chan, groups) + groups[i] * sizeof(struct xi_group);
        words_of(offset, offset + sizeof(struct xi_group));
    }
    m_unmap();
}
END_TEST

/* A stored tail that could be one, but is not: where no head can be with it, the chain of records proves it wrong. */
START_TEST(test_wrong_tail) {
    m_map(CAPACITY);
    for (int holder = 0; holder < HOLDERS; holder++)
        for (uint64_t tail = 0; tail < 16 * CAPACITY; tail += 8 * (uint64_t)m_stride(3)) {
            uint32_t slot = prepare((enum holder)holder);
            M.chan->tail = tail;
            snprintf(where, sizeof where, "tail set to %llu, holder %d", (unsigned long long)tail, holder);
            repair_bounded(slot);
            check_consistent();
            if (tail + CAPACITY < M.truth.head[0] && tail + CAPACITY < M.truth.head[1] && holder != DEAD_PRODUCER)
                must(group_is_whole(0) && group_is_whole(1));
            check_usable();
        }
    m_unmap();
}
END_TEST

/* A queue whose group was taken away with all traces: it comes back. */
START_TEST(test_queue_without_group) {
    m_map(CAPACITY);
    for (int holder = 0; holder < HOLDERS; holder++) {
        uint32_t slot = prepare((enum holder)holder);
        snprintf(where, sizeof where, "queue without its group, holder %d", holder);
        M.chan->active &= ~(uint64_t)1;
        M.chan->groups[0].state = XI_GROUP_FREE;
        repair_bounded(slot);
        check_consistent();
        must(group_is_whole(0));
        check_usable();
    }
    m_unmap();
}
END_TEST

/* --------------------------------------------------------------- all at random */

static uint64_t seed;
static uint64_t random64(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

/* Words as an attacker would choose them: small, large, near what was there, like headers. */
static uint64_t garbage(uint64_t old) {
    switch (random64() % 7) {
    case 0: return random64();
    case 1: return random64() % (4 * CAPACITY);
    case 2: return old + 8 * (random64() % 64) - 256;
    case 3: return extremes[random64() % EXTREMES];
    case 4: return XI_REC(8 * (random64() % 12), random64() % 4, random64() % 3, random64() % 100);
    case 5: return XI_WAITER(random64() % 8, random64() % 1030, random64() % 70) | (random64() % 3 ? 0 : random64() % 0x8000) << 48;
    default: return old;
    }
}

static void fill(size_t from, size_t to, uint64_t one_in) {
    for (size_t offset = from; offset < to; offset += 8) {
        xi_a64 *word = (xi_a64 *)(void *)((uint8_t *)M.chan + offset);
        if (random64() % one_in == 0) *word = garbage(*word);
    }
}

START_TEST(test_random) {
    m_map(CAPACITY);
    seed = 0x9e3779b97f4a7c15u + (uint64_t)_i;
    for (int round = 0; round < 3000 / m_stride(4); round++) {
        uint64_t here = seed;
        uint32_t slot = prepare((enum holder)(random64() % HOLDERS));
        snprintf(where, sizeof where, "seed %#llx", (unsigned long long)here);
        M.view.retains = M.home.retains = M.far.retains = random64() % 4 == 0; /* then group 63 is nobody's, whatever is written there */
        uint64_t one_in = (uint64_t)1 << (random64() % 8);
        fill(offsetof(struct xi_chan, lock), sizeof *M.chan, one_in);
        fill(XI_RING_OFFSET, XI_RING_OFFSET + CAPACITY, (uint64_t)1 << (random64() % 10));
        for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
            if (names_the_living(M.chan->groups[g].lock)) M.chan->groups[g].lock = XI_LOCK_OF(slot);
        if (names_the_living(M.chan->lock)) M.chan->lock = XI_LOCK_OF(slot);
        repair_bounded(slot);
        check_consistent();
        check_usable();
    }
    m_unmap();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("repair of hostile contents");
    TCase *words = tcase_create("words"), *all = tcase_create("all");
    tcase_set_timeout(words, 100);
    tcase_set_timeout(all, 100);
    tcase_add_test(words, test_head_words);
    tcase_add_test(words, test_waiter_words);
    tcase_add_test(words, test_group_words);
    tcase_add_test(words, test_wrong_tail);
    tcase_add_test(words, test_queue_without_group);
    suite_add_tcase(suite, words);
    tcase_add_loop_test(all, test_random, 0, 4);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
