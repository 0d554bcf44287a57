/* SPDX-License-Identifier: MIT */
/*
 * Collection: which arena segments are still named. Never one too few, whatever
 * runs at the same time and wherever a receiver was killed; on a quiet channel
 * none too many either; and garbage is read to its end and no further.
 */
#include <pthread.h>
#include <time.h>

#include "repair_model.h"

#define CAPACITY 4096u
#define must(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) ck_abort_msg("%s (%ld, %ld)", #condition, now[0], now[1]);                                   \
    } while (0)
static long now[2]; /* where a loop stands, for messages */

static struct {
    uint32_t times[GRANULES]; /* by granule, of segment ARENA */
    uint64_t all, foreign;
} marks;

static void mark(void *context, uint32_t segment, uint32_t granule) {
    (void)context;
    must(segment != 0 && segment % 2 == 0);
    marks.all++;
    if (segment == ARENA && granule < GRANULES)
        marks.times[granule]++;
    else
        marks.foreign++;
}

static void mark_all(void) {
    memset(&marks, 0, sizeof marks);
    xi_mark_channel(&M.view, mark, NULL);
    for (uint32_t slot = 1; slot < SLOTS; slot++) {
        struct xi_dead d = m_dead(slot);
        xi_mark_borrows(d.borrows, d.borrow_chunks, mark, NULL);
    }
}

static bool is_marked(uint64_t number) { return marks.times[m_granule(number)] > 0; }

static const uint64_t starts[] = {0, 3 * CAPACITY - 40, ((uint64_t)1 << 40) + 8};

/* ------------------------------------------------------------------- at rest */

/* On a quiet channel exactly the blocks that some group has yet to receive, or somebody holds. */
START_TEST(test_exact) {
    m_map(CAPACITY);
    for (int values = INLINE_ONLY; values <= MIXED; values++)
        for (uint32_t sent = 0; sent < 120; sent++) {
            m_reset((enum values)values, starts[_i], 0);
            m_group_at(63, 0);
            uint32_t fitted = 0;
            while (fitted < sent && m_send(LIVING, 1) == 1) fitted++;
            uint32_t fast = m_receive(CONSUMER, 0, fitted / 3 < 20 ? fitted / 3 : 20, NULL);
            uint32_t slow = m_receive(MEMBER, 63, fitted / 5 < 20 ? fitted / 5 : 20, NULL);
            memset(M.borrows[MEMBER], 0, sizeof M.borrows[MEMBER]);
            mark_all();
            now[0] = sent;
            must(marks.foreign == 0);
            for (now[1] = 1; now[1] <= fitted; now[1]++) {
                bool due = m_is_block(now[1]) && (now[1] > slow || now[1] <= fast);
                must(is_marked(now[1]) == due);
            }
        }
    m_unmap();
}
END_TEST

static void receive_batch(void) { m_receive(CONSUMER, 0, 7, NULL); }
static void send_batch(void) { m_send(PRODUCER, 5); }

/* A receiver killed anywhere: what it had not received is in the ring, what it had is in its table. */
START_TEST(test_killed_receiver) {
    m_map(CAPACITY);
    bool ended = false;
    for (now[0] = 0; !ended; now[0]++) {
        m_reset(MIXED, starts[_i], 0);
        m_send(LIVING, 12);
        ended = m_run(receive_batch, now[0]);
        mark_all();
        for (now[1] = 1; now[1] <= 12; now[1]++) must(is_marked(now[1]) == m_is_block(now[1]));
    }
    m_unmap();
}
END_TEST

/* A sender killed anywhere and repaired: all that it sent is named. */
START_TEST(test_killed_sender) {
    m_map(CAPACITY);
    bool ended = false;
    for (now[0] = 0; !ended; now[0]++) {
        m_reset(BLOCKS_ONLY, starts[_i], 0);
        m_send(LIVING, 3);
        ended = m_run(send_batch, now[0]);
        m_repair(PRODUCER);
        mark_all();
        for (now[1] = 1; now[1] <= (long)M.truth.sent; now[1]++) must(is_marked(now[1]));
    }
    m_unmap();
}
END_TEST

/* ------------------------------------------------------------------- garbage */

/* Heads and tails that make no sense: the names are found all the same. */
START_TEST(test_garbage_positions) {
    static const uint64_t extremes[] = {
        0, 1, 4, 8, CAPACITY, (uint64_t)1 << 40, (uint64_t)1 << 62, (uint64_t)1 << 63, ~(uint64_t)0, ~(uint64_t)7};
    m_map(CAPACITY);
    for (size_t i = 0; i < sizeof extremes / sizeof *extremes; i++)
        for (int what = 0; what < 2; what++) {
            m_reset(BLOCKS_ONLY, starts[2], 0);
            m_send(LIVING, 20);
            now[0] = (long)i, now[1] = what;
            *(what ? &M.chan->tail : &M.chan->groups[0].head) = extremes[i];
            mark_all();
            if (what == 0 && extremes[i] >= M.chan->tail && xi_position_plausible(extremes[i]))
                continue;                                       /* a head past the tail says that nothing is due */
            if (what == 1 && extremes[i] < starts[2]) continue; /* a tail before the head says so too */
            for (uint64_t number = 1; number <= 20; number++) must(is_marked(number));
        }
    m_unmap();
}
END_TEST

START_TEST(test_random) {
    m_map(CAPACITY);
    uint64_t seed = 88172645463325252u + (uint64_t)_i;
    for (now[0] = 0; now[0] < 2000; now[0]++) {
        m_reset(MIXED, starts[_i], 0);
        m_send(LIVING, 30);
        m_receive(CONSUMER, 0, 9, NULL);
        uint64_t *words = (uint64_t *)(void *)&M.chan->lock;
        size_t count = (XI_RING_OFFSET + CAPACITY - offsetof(struct xi_chan, lock)) / 8;
        for (int n = 0; n < 1 << (now[0] % 11); n++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            words[seed % count] = (seed >> 20) % 3 == 0 ? seed : (seed >> 20) % 5000;
        }
        memcpy(M.borrows[MEMBER], words, sizeof M.borrows[MEMBER]);
        mark_all();
        must(marks.all <= CAPACITY / 8 * 70);
        (void)xi_channel_empty(&M.view);
    }
    m_unmap();
}
END_TEST

START_TEST(test_empty) {
    m_map(CAPACITY);
    m_reset(INLINE_ONLY, starts[1], 0);
    ck_assert(xi_channel_empty(&M.view));
    m_send(LIVING, 2);
    ck_assert(!xi_channel_empty(&M.view));
    m_receive(LIVING, 0, 1, NULL);
    ck_assert(!xi_channel_empty(&M.view));
    m_receive(LIVING, 0, 1, NULL);
    ck_assert(xi_channel_empty(&M.view));
    m_group_at(5, 0);
    m_send(LIVING, 1);
    m_receive(LIVING, 0, 1, NULL);
    ck_assert_msg(!xi_channel_empty(&M.view), "group 5 has not had it");
    m_receive(LIVING, 5, 1, NULL);
    ck_assert(xi_channel_empty(&M.view));
    M.chan->active = 0;
    ck_assert(xi_channel_empty(&M.view));
    m_unmap();
}
END_TEST

/* ---------------------------------------------------------- beside the living */

#define WINDOW 65536u /* values are told apart by granule */
enum { HELD = 8 };    /* blocks that the consumer holds at a time */

static struct {
    struct xi_borrow table[HELD];
    xi_a64 released; /* all values up to this one */
    _Atomic bool stop;
    uint64_t seen[WINDOW]; /* the pass that marked a granule last */
    uint64_t pass;
} T;

static void *produce(void *unused) {
    struct xi_chan *chan = M.chan;
    uint64_t tail = chan->tail, number = 0;
    while (!xi_load_relaxed(&T.stop)) {
        uint64_t filler = 16 * (number % 5); /* an inline value in between, so that records begin anywhere */
        if (tail + filler + 8 + 32 + 8 > CAPACITY + xi_load_acquire(&chan->groups[0].head)) continue;
        number++;
        for (uint64_t i = 8; i < filler; i += 8) xi_store_relaxed(xi_ring_at(&M.view, tail + i), number << 32 | 24);
        if (filler > 0) {
            xi_store_relaxed(xi_ring_at(&M.view, tail + filler), 0);
            xi_store_release(xi_ring_at(&M.view, tail), XI_REC(filler - 8, XI_REC_INLINE, 0, number));
            tail += filler;
        }
        xi_store_relaxed(xi_ring_at(&M.view, tail + 8), ARENA | (uint64_t)(uint32_t)(number % WINDOW) << 32);
        xi_store_relaxed(xi_ring_at(&M.view, tail + 16), number);
        xi_store_relaxed(xi_ring_at(&M.view, tail + 40), 0);
        xi_store_release(xi_ring_at(&M.view, tail), XI_REC(32, XI_REC_BLOCK, 0, number));
        tail += 40;
        xi_store_release(&chan->tail, tail);
        xi_store_release(&chan->tail_seq, number); /* last: here it says what is before the tail for sure */
    }
    return unused;
}

static void *consume(void *unused) {
    struct xi_group *group = &M.chan->groups[0];
    uint64_t head = group->head, number = 0;
    while (!xi_load_relaxed(&T.stop)) {
        uint64_t header = xi_load_acquire(xi_ring_at(&M.view, head));
        if (header == 0) continue;
        if (XI_REC_KIND(header) == XI_REC_INLINE) {
            head += 8 + XI_REC_LENGTH(header);
            xi_store_release(&group->head, head);
            continue;
        }
        struct xi_borrow *b = &T.table[++number % HELD];
        if (number > HELD) xi_store_release(&T.released, number - HELD);
        xi_store_release(&b->key, 0); /* what it held goes */
        struct xi_block_name block = xi_block_read(&M.view, head);
        xi_store_relaxed(&b->block, (uint64_t)block.segment << 32 | block.granule);
        xi_store_relaxed(&b->position, head);
        xi_store_release(&b->key, XI_BORROW_KEY(number, 0));
        head += 40;
        xi_store_relaxed(&group->head_seq, number);
        xi_store_release(&group->head, head);
    }
    return unused;
}

static void mark_live(void *context, uint32_t segment, uint32_t granule) {
    (void)context;
    if (segment == ARENA && granule < WINDOW) T.seen[granule] = T.pass;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

START_TEST(test_beside_the_living) {
    pthread_t threads[2];
    struct xi_borrow_view table = {T.table, HELD};
    m_map(CAPACITY);
    m_reset(BLOCKS_ONLY, 0, 0);
    pthread_create(&threads[0], NULL, produce, NULL);
    pthread_create(&threads[1], NULL, consume, NULL);
    for (double end = seconds() + 1; seconds() < end || xi_load_relaxed(&M.chan->tail_seq) < 1000;) {
        T.pass++;
        uint64_t sent = xi_load_acquire(&M.chan->tail_seq); /* by the dead, say */
        xi_mark_channel(&M.view, mark_live, NULL);
        xi_mark_borrows(&table, 1, mark_live, NULL);
        now[0] = (long)T.pass;
        for (uint64_t n = xi_load_acquire(&T.released) + 1; n <= sent; n++) {
            now[1] = (long)n;
            must(T.seen[n % WINDOW] == T.pass || n <= xi_load_acquire(&T.released));
        }
    }
    xi_store_relaxed(&T.stop, true);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    m_unmap();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("collect");
    TCase *all = tcase_create("collect");
    tcase_set_timeout(all, 60);
    tcase_add_loop_test(all, test_exact, 0, 3);
    tcase_add_loop_test(all, test_killed_receiver, 0, 3);
    tcase_add_loop_test(all, test_killed_sender, 0, 3);
    tcase_add_test(all, test_garbage_positions);
    tcase_add_loop_test(all, test_random, 0, 3);
    tcase_add_test(all, test_empty);
    tcase_add_test(all, test_beside_the_living);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
