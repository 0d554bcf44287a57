/* SPDX-License-Identifier: MIT */
/*
 * Every operation on a channel, killed before each of its stores, then repair,
 * then repair again; and repair killed before each of its own stores and run
 * again by the next broker. Afterwards nothing may be lost, doubled, locked,
 * held or asleep, and the channel must go on. repair_model.h has the operations.
 *
 * The ring may move into another and back at any of these. Two deaths at once in
 * both orders, living lock holders, 16-bit numbers that
 * wrap, full rings, batches of the largest size; and channels that somebody
 * filled with garbage, where repair must end and leave a usable channel.
 */
#include "repair_model.h"

#define CAPACITY 4096u

/* Where a scenario begins: position and number of values. */
static const struct {
    uint64_t position, number;
} starts[] = {
    {0, 0},
    {3 * CAPACITY - 24, 65533}, /* the ring and the 16 bits wrap within the operation */
    {((uint64_t)1 << 40) + 8, ((uint64_t)1 << 33) - 3},
};
#define STARTS (sizeof starts / sizeof *starts)
enum { VALUE_KINDS = 3 };

/* --------------------------------------------------------------- what must hold */

static struct {
    const char *name;
    uint32_t dead; /* slot, and which of two orders; for messages */
    long k, repair_k;
} now;

#define must(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            ck_abort_msg("%s: " #condition " (slot %u killed before step %ld, repair before %ld)", now.name, now.dead, \
                         now.k, now.repair_k);                                                                         \
    } while (0)

static bool is_active(uint32_t g) { return M.chan->active >> g & 1; }

static void check_quiet(void) {
    must(M.chan->lock == 0);
    must(*xi_ring_at(&M.view, M.chan->tail) == 0);
    must(M.chan->tail == M.truth.tail);
    must(M.chan->tail_seq == M.truth.sent);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        struct xi_group *group = &M.chan->groups[g];
        must(group->lock == 0);
        must(group->corrupt == 0);
        must(group->state == (is_active(g) ? XI_GROUP_ACTIVE : XI_GROUP_FREE));
        if (!is_active(g)) continue;
        must(group->head == M.truth.head[g]);
        must(group->head_seq == M.truth.received[g]);
        must(M.chan->min_head <= group->head);
    }
}

static void check_nothing_held(uint32_t slot) {
    for (uint32_t i = 0; i < ENTRIES; i++) must(m_entry(slot, i)->key == 0);
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++)
        must(M.chan->waiters[i] == 0 || XI_WAITER_SLOT(M.chan->waiters[i]) != slot);
}

/* A bit without an entry would make a waker ring nobody instead of somebody. */
static void check_masks(void) {
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++)
        for (uint32_t side = 0; M.chan->waiters[i] == 0 && side < SIDES; side++)
            must(!mask_has(side_mask(&M.view, side), i));
}

/* No living sleeper may depend on a ring that the dead one owed it. */
static void check_sleepers(void) {
    uint32_t told[SIDES] = {0}, asleep[SIDES] = {0};
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++) {
        uint64_t waiter = M.chan->waiters[i];
        if (waiter == 0) continue;
        uint32_t slot = XI_WAITER_SLOT(waiter), bell = XI_WAITER_BELL(waiter), side = XI_WAITER_SIDE(waiter);
        uint32_t member = XI_WAITER_MEMBER(waiter);
        bool woken = M.woken[slot][bell] > 0 && M.mail[slot].bells[bell].bell > 0;
        must(woken || M.mail[slot].bells[bell].state == XI_BELL_PARKED);
        must(woken || mask_has(side_mask(&M.view, side), i));
        if (member) { /* of a set: it is armed still, or marked and its bell rung */
            bool marked = M.mail[slot].ready[(member - 1) / 64] >> ((member - 1) % 64) & 1 &&
                          M.mail[slot].ready_words[(member - 1) / 4096] >> ((member - 1) / 64 % 64) & 1;
            must(mask_has(side_mask(&M.view, side), i) || (marked && woken));
        }
        told[side] += member ? 0 : woken;
        asleep[side] += member ? 0 : 1;
        if (side == XI_SIDE_PRODUCERS)
            must(woken || M.chan->parked_producers == 1);
        else
            must(woken || (M.chan->parked_groups >> (side - 1) & 1));
    }
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        uint64_t due = M.chan->closed ? asleep[g + 1] : is_active(g) ? M.truth.sent - M.truth.received[g] : 0;
        must(told[g + 1] >= (due < asleep[g + 1] ? due : asleep[g + 1]));
    }
    bool space = M.chan->tail + 24 <= M.view.capacity + m_smallest_head(M.chan->tail);
    /* A living receiver rings one, which rings the next; repair rings all. */
    must(told[0] >= (m_between ? asleep[0] > 0 : asleep[0]) || (!space && !M.chan->closed));
}

static uint64_t release_bit(uint64_t number, uint32_t g) {
    uint64_t word = M.release[m_granule(number)].word[g / 16];
    must(word >> 16 == m_generation(number));
    return word >> (g % 16) & 1;
}

/* The living receive the rest of a group: each value once, in order. */
static void check_rest(uint32_t g) {
    uint64_t got, due = M.truth.received[g] + 1;
    for (; m_receive(LIVING, g, 1, &got) == 1; due++) {
        must(got == due);
        if (!m_is_block(got)) continue;
        must(release_bit(got, g) == 0);
        m_set_bit(got, g);
        m_entry(LIVING, 0)->key = 0;
        M.truth.taken_count[LIVING] = 0;
    }
    must(due == M.truth.sent + 1);
}

static uint64_t first_number; /* of the scenario's own values */

/* What is kept for groups that join: as many as there are to be, and their blocks are whole. */
static void check_kept(void) {
    struct xi_group *group = &M.chan->groups[XI_GROUP_RETAIN];
    uint64_t kept = M.truth.sent - group->head_seq, all = M.truth.sent - (first_number - 1);
    must(kept >= (all < M.keep ? all : M.keep));
    for (uint64_t number = group->head_seq + 1; number <= M.truth.sent; number++)
        if (m_is_block(number)) must(release_bit(number, XI_GROUP_RETAIN) == 0);
}

static void check_group(uint32_t g) {
    if (M.view.retains && g == XI_GROUP_RETAIN) check_kept();
    else check_rest(g);
}

static void check_usable(void) {
    if (M.chan->closed) return;
    for (int i = 0; i < 3; i++) {
        must(m_send(LIVING, 5) == 5);
        for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
            if (is_active(g)) check_group(g);
    }
    m_join(LIVING, 7);
    must(m_send(LIVING, 2) == 2);
    check_rest(7);
}


/* Everything that the dead received is released; what went to a group that ended as well. */
static void check_released(uint32_t g, uint64_t upto) {
    uint64_t oldest = M.truth.sent > GRANULES - 4 ? M.truth.sent - (GRANULES - 5) : 1;
    for (uint64_t number = first_number > oldest ? first_number : oldest; number <= upto; number++)
        if (m_is_block(number)) must(release_bit(number, g) == 1);
}

static void check_all(uint32_t slot) {
    check_quiet();
    check_nothing_held(slot);
    check_masks();
    check_sleepers();
    must(M.lock_wakes > 0);
    if (slot == CONSUMER) check_released(0, M.truth.received[0]);
    if (M.truth.taken_count[slot] > 0 && M.mail[PRODUCER].reclaim_bell == 8 && !M.gone[PRODUCER])
        must(M.mail[PRODUCER].reclaim == 1 && M.woken[PRODUCER][7] > 0);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if (is_active(g)) check_group(g);
    check_usable();
}

/* ------------------------------------------------------------------ scenarios */

struct scenario {
    const char *name;
    uint32_t dead;
    void (*prepare)(void);
    void (*operate)(void);
    void (*after)(void); /* further checks, or NULL */
};

static void sleepers(void) {
    m_park(SLEEPER, 0, XI_SIDE_GROUP(0), 5);
    m_park(SLEEPER, 1, XI_SIDE_GROUP(0), 70);
    M.mail[PRODUCER].reclaim_bell = 8;
    M.mail[PRODUCER].bells[7].state = XI_BELL_PARKED;
}
/* Two members of one set, on one bell each side of a thread that sleeps. */
static void sleepers_and_sets(void) {
    m_park_as(XI_WAITER_OF_MEMBER(SLEEPER, 3, XI_SIDE_GROUP(0), 4097), 3);
    m_park(SLEEPER, 0, XI_SIDE_GROUP(0), 5);
    m_park_as(XI_WAITER_OF_MEMBER(SLEEPER, 4, XI_SIDE_GROUP(0), XI_MAX_MEMBERS - 1), 70);
    m_park_as(XI_WAITER_OF_MEMBER(LIVING, 2, XI_SIDE_PRODUCERS, 0), 6);
    m_park(LIVING, 3, XI_SIDE_PRODUCERS, 400);
}
static void full_ring_and_sets(void) {
    while (m_send(LIVING, 1) == 1) continue;
    sleepers_and_sets();
}
/* Of the dead itself: its members go with it. */
static void members_of_the_dead(void) {
    sleepers_and_sets();
    m_park_as(XI_WAITER_OF_MEMBER(PRODUCER, 1, XI_SIDE_GROUP(0), 7), 9);
    m_park_as(XI_WAITER_OF_MEMBER(CONSUMER, 1, XI_SIDE_PRODUCERS, 7), 10);
    m_park_as(XI_WAITER_OF_MEMBER(MEMBER, 1, XI_SIDE_GROUP(0), 7), 11);
}
static void full_ring(void) {
    while (m_send(LIVING, 1) == 1) continue;
    m_park(SLEEPER, 2, XI_SIDE_PRODUCERS, 6);
    m_park(SLEEPER, 3, XI_SIDE_PRODUCERS, 400);
    sleepers();
}
static void some_values(void) {
    M.mail[PRODUCER].reclaim_bell = 8;
    M.mail[PRODUCER].bells[7].state = XI_BELL_PARKED;
    m_send(LIVING, 9);
    m_receive(CONSUMER, 0, 3, NULL);
}
static void two_groups(void) {
    m_group_at(1, MEMBER);
    m_send(LIVING, 8);
    M.mail[PRODUCER].reclaim_bell = 8;
    m_receive(CONSUMER, 0, 3, NULL);
    m_receive(MEMBER, 1, 2, NULL);
    m_park(SLEEPER, 1, XI_SIDE_PRODUCERS, 70);
    M.mail[PRODUCER].bells[7].state = XI_BELL_PARKED;
}

/* The same in a ring that the channel has grown into. */
static void grown_full(void) {
    full_ring();
    m_move(LIVING);
    while (m_send(LIVING, 1) == 1) continue;
}
static void grown_groups(void) {
    m_move(LIVING);
    two_groups();
}
static void grown_little(void) {
    m_move(LIVING);
    some_values();
}

static void send_one(void) { m_send(PRODUCER, 1); }
static void send_batch(void) { m_send(PRODUCER, 6); }
static void receive_one(void) { m_receive(CONSUMER, 0, 1, NULL); }
static void receive_batch(void) { m_receive(CONSUMER, 0, 6, NULL); }
static void receive_all(void) { m_receive(CONSUMER, 0, ENTRIES, NULL); }
static void release_one(void) {
    if (M.truth.taken_count[CONSUMER] > 0) m_give_back(CONSUMER, 0);
}
static void join(void) { m_join(MEMBER, 1); }
static void end(void) { m_end(MEMBER, 1); }
static void park(void) {
    m_park(CONSUMER, 0, XI_SIDE_GROUP(0), 300);
    m_unpark(CONSUMER, 0, XI_SIDE_GROUP(0), 300);
}
static void park_producer(void) {
    m_park(PRODUCER, 0, XI_SIDE_PRODUCERS, 300);
    m_unpark(PRODUCER, 0, XI_SIDE_PRODUCERS, 300);
}
static void close_(void) { m_close(PRODUCER); }
static void move(void) { m_move(PRODUCER); }
static void move_as_member(void) { m_move(MEMBER); }

static void no_group_left(void) { must(!is_active(1)); }
static void ended_and_released(void) {
    must(!is_active(1));
    check_released(1, first_number + 7);
}

/* A request is the next value; the caller sleeps on two bells, one of which a dying broker has claimed. */
static void a_request(void) {
    M.values = INLINE_ONLY;
    m_send(LIVING, 1);
    M.mail[LIVING].calls[CALL_INDEX] = (uint64_t)CALL_GENERATION << 8 | XI_CALL_WAITING;
    M.mail[LIVING].calls[CALL_INDEX + 1] = (uint64_t)CALL_GENERATION << 8 | XI_CALL_WAITING;
    M.mail[LIVING].bells[1].state = XI_BELL_PARKED;
    M.mail[LIVING].bells[5].state = XI_BELL_NOTIFIED;
}
/* Of a caller that has given up: the same word waits for another call. */
static void an_old_request(void) {
    a_request();
    M.mail[LIVING].calls[CALL_INDEX] = (uint64_t)(CALL_GENERATION + 1) << 8 | XI_CALL_WAITING;
}
static void serve(void) { m_serve(CONSUMER); }
static void told_that_it_died(void) {
    uint64_t died = (uint64_t)CALL_GENERATION << 8 | XI_CALL_DIED;
    must((M.mail[LIVING].calls[CALL_INDEX] == died) == M.truth.serving);
    must(M.mail[LIVING].calls[CALL_INDEX + 1] == ((uint64_t)CALL_GENERATION << 8 | XI_CALL_WAITING));
    if (M.truth.serving) must(M.woken[LIVING][1] > 0 && M.woken[LIVING][5] > 0);
}
static void told_nothing(void) {
    must(M.mail[LIVING].calls[CALL_INDEX] == ((uint64_t)(CALL_GENERATION + 1) << 8 | XI_CALL_WAITING));
}
static void kept_values(void) {
    M.mail[PRODUCER].reclaim_bell = 8;
    M.mail[PRODUCER].bells[7].state = XI_BELL_PARKED;
    m_retaining(4);
    m_send(LIVING, 9);
    m_receive(CONSUMER, 0, 7, NULL);
}
static void join_at_slowest(void) { m_join_at(MEMBER, 1, 0); }
static void join_at_kept(void) { m_join_at(MEMBER, 1, XI_GROUP_RETAIN); }
/* The member is dead, so its group has ended, if it ever was: nothing waits for it, and nothing that it claimed is lost. */
static void claimed_nothing(void) {
    must(!is_active(1));
    check_released(1, M.truth.sent);
}

static void leave_set(void) { m_unpark(MEMBER, 1, XI_SIDE_GROUP(0), 11); }

static const struct scenario scenarios[] = {
    {"send", PRODUCER, sleepers, send_one, NULL},
    {"send a batch", PRODUCER, sleepers, send_batch, NULL},
    {"send into a full ring", PRODUCER, full_ring, send_batch, NULL},
    {"receive", CONSUMER, some_values, receive_one, NULL},
    {"receive a batch", CONSUMER, some_values, receive_batch, NULL},
    {"receive all", CONSUMER, some_values, receive_all, NULL},
    {"receive from a full ring", CONSUMER, full_ring, receive_batch, NULL},
    {"release", CONSUMER, some_values, release_one, NULL},
    {"join", MEMBER, some_values, join, no_group_left},
    {"join at values that are there", MEMBER, some_values, join_at_slowest, claimed_nothing},
    {"join at values that are kept", MEMBER, kept_values, join_at_kept, claimed_nothing},
    {"keep values", PRODUCER, kept_values, send_batch, NULL},
    {"receive beside kept values", CONSUMER, kept_values, receive_batch, NULL},
    {"end", MEMBER, two_groups, end, ended_and_released},
    {"do nothing in a group", MEMBER, two_groups, release_one, ended_and_released},
    {"park a consumer", CONSUMER, sleepers, park, NULL},
    {"park a producer", PRODUCER, full_ring, park_producer, NULL},
    {"close", PRODUCER, full_ring, close_, NULL},
    {"send to sets", PRODUCER, sleepers_and_sets, send_one, NULL},
    {"send a batch to sets", PRODUCER, members_of_the_dead, send_batch, NULL},
    {"receive beside sets that send", CONSUMER, full_ring_and_sets, receive_one, NULL},
    {"receive, being in a set", CONSUMER, members_of_the_dead, receive_one, NULL},
    {"close beside sets", PRODUCER, members_of_the_dead, close_, NULL},
    {"leave a set", MEMBER, members_of_the_dead, leave_set, NULL},
    {"serve a call", CONSUMER, a_request, serve, told_that_it_died},
    {"serve a call that was given up", CONSUMER, an_old_request, serve, told_nothing},
    {"grow", PRODUCER, full_ring, move, NULL},
    {"grow with two groups", MEMBER, two_groups, move_as_member, ended_and_released},
    {"shrink", PRODUCER, grown_little, move, NULL},
    {"send in a grown ring", PRODUCER, grown_little, send_batch, NULL},
    {"send into a full grown ring", PRODUCER, grown_full, send_batch, NULL},
    {"receive from a grown ring", CONSUMER, grown_full, receive_batch, NULL},
    {"end in a grown ring", MEMBER, grown_groups, end, ended_and_released},
};
#define SCENARIOS (int)(sizeof scenarios / sizeof *scenarios)

/* Brings the scenario to the moment of death. True if the operation ended before step k. */
static bool die(const struct scenario *s, enum values values, size_t start, long k) {
    m_reset(values, starts[start].position, starts[start].number);
    first_number = starts[start].number + 1;
    s->prepare();
    now.name = s->name;
    now.dead = s->dead;
    now.k = k;
    bool ended = m_run(s->operate, k);
    M.gone[s->dead] = true;
    return ended;
}

static uint32_t to_repair;
static void repair_it(void) { m_repair(to_repair); }

static void judge(const struct scenario *s) {
    check_all(s->dead);
    if (s->after) s->after();
}

START_TEST(test_killed_anywhere) {
    const struct scenario *s = &scenarios[_i];
    m_map(CAPACITY);
    for (int values = 0; values < VALUE_KINDS; values++)
        for (size_t start = m_slow() ? (size_t)values % STARTS : 0; start < STARTS; start += m_slow() ? STARTS : 1)
            for (int times = 1; times <= 2; times++) {
                bool ended = false;
                for (long k = 0; !ended; k++) {
                    ended = die(s, values, start, k);
                    now.repair_k = -times;
                    for (int i = 0; i < times; i++) m_repair(s->dead);
                    judge(s);
                }
            }
    m_unmap();
}
END_TEST

/* The next broker: first what its predecessor had locked, then the dead that it had begun with. */
START_TEST(test_repair_killed_anywhere) {
    const struct scenario *s = &scenarios[_i];
    m_map(CAPACITY);
    to_repair = s->dead;
    size_t start = (size_t)_i % STARTS;
    for (int values = BLOCKS_ONLY; values < VALUE_KINDS; values++) {
        bool ended = false;
        for (long k = 0; !ended; k++) {
            bool repaired = false;
            for (long r = k % m_stride(9); !repaired; r += m_stride(9)) {
                ended = die(s, values, start, k);
                now.repair_k = r;
                repaired = m_run(repair_it, r);
                m_repair_channel(BROKER);
                m_repair(s->dead);
                judge(s);
            }
        }
    }
    m_unmap();
}
END_TEST

/* ------------------------------------------------------------ the living go on */

static void send_and_receive(void) {
    if (M.chan->lock == 0) m_send(LIVING, 1);
    uint64_t got;
    if (M.chan->groups[0].lock != 0 || m_receive(LIVING, 0, 1, &got) == 0) return;
    must(got == M.truth.received[0]);
    if (m_is_block(got)) m_set_bit(got, 0);
    memset(M.borrows[LIVING], 0, sizeof M.borrows[LIVING]);
    M.truth.taken_count[LIVING] = 0;
}
static void only_send(void) {
    if (M.chan->lock == 0) m_send(LIVING, 2);
}
static void join_another(void) {
    if (M.chan->lock == 0) m_join(LIVING, 9);
}
static void park_another(void) {
    m_park(SLEEPER, 5, XI_SIDE_GROUP(0), 13);
    if (M.truth.sent > M.truth.received[0] || M.chan->closed) /* it looks, and does not sleep */
        m_unpark(SLEEPER, 5, XI_SIDE_GROUP(0), 13);
}

static void move_the_ring(void) {
    bool is_free = M.chan->lock == 0 && M.chan->tail - m_smallest_head(M.chan->tail) + 8 <= CAPACITY;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) is_free = is_free && (!is_active(g) || M.chan->groups[g].lock == 0);
    if (is_free) m_move(LIVING);
}

/* Before each step of repair the living do something, as far as locks let them. */
START_TEST(test_living_in_between) {
    static void (*const deeds[])(void) = {send_and_receive, only_send, join_another, park_another, move_the_ring};
    const struct scenario *s = &scenarios[_i];
    m_map(CAPACITY);
    to_repair = s->dead;
    for (int deed = 0; deed < (int)(sizeof deeds / sizeof *deeds); deed++) {
        bool ended = false;
        for (long k = 0; !ended; k++) {
            bool over = false;
            for (long at = k % m_stride(32); !over; at += m_stride(32)) {
                ended = die(s, MIXED, (size_t)_i % STARTS, k);
                now.repair_k = 10000 * deed + at;
                m_between = deeds[deed];
                m_between_at = at;
                m_repair(s->dead);
                over = m_between_at >= 0;
                m_between_at = -1;
                judge(s);
            }
        }
    }
    m_between = NULL;
    m_unmap();
}
END_TEST

/*
 * The living move the ring between the broker's look at it and its judgement: with the old view nothing is to be judged,
 * and whoever moved goes on with what is in the new one.
 */
START_TEST(test_stale_view) {
    m_map(CAPACITY);
    for (int values = 0; values < VALUE_KINDS; values++)
        for (int back = 0; back < 2; back++) {
            m_reset(values, starts[_i].position, starts[_i].number);
            first_number = starts[_i].number + 1;
            now.name = "stale view";
            now.k = back;
            two_groups();
            if (back) m_move(LIVING);
            struct xi_chan_view stale = M.view;
            struct xi_dead dead = m_dead(MEMBER);
            m_move(LIVING);
            for (int i = 0; i < 40; i++) {
                m_send(LIVING, 3);
                m_receive(LIVING, 0, 3, NULL);
                m_receive(LIVING, 1, 3, NULL);
                memset(M.borrows[LIVING], 0, sizeof M.borrows[LIVING]);
                M.truth.taken_count[LIVING] = 0;
            }
            uint64_t head = M.chan->groups[0].head;
            must(!xi_repair_channel(&stale, &dead, &m_world));
            must(!xi_repair_groups(&stale, &dead, &m_world));
            must(M.chan->lock == 0 && M.chan->groups[0].lock == 0 && M.chan->groups[1].lock == 0);
            must(M.chan->groups[0].head == head && M.chan->groups[0].corrupt == 0 && is_active(1));
            m_repair(MEMBER);
            check_quiet();
            must(!is_active(1));
        }
    m_unmap();
}
END_TEST

/*
 * A channel's ring is made memory at the first send: until then the broker has zeros in its place, to read alone. The first
 * send may come between the broker's look and any step of its judgement, of a member that died with a lock, a group of its
 * own, or nothing in its hands; no value of it is lost.
 */
static const uint8_t zeros[2 * CAPACITY]; /* to write there is SIGSEGV */

static void first_send(void) {
    if (M.chan->lock == 0) m_send(LIVING, 2);
}

static struct xi_chan_view bare_view(void) {
    struct xi_chan_view view = M.view;
    view.ring = (uint8_t *)(uintptr_t)zeros;
    view.bare = view.unsent = true;
    return view;
}

/* What the dead one has in its hands; before the at-th step of the repair (-1: before it begins) somebody sends. True if it came to that. */
static bool send_beside_a_repair(int values, int held, long at) {
    m_reset(values, 0, 0);
    first_number = 1;
    now.name = "first send";
    now.k = held;
    now.repair_k = at;
    m_group_at(1, MEMBER);
    if (held == 1) M.chan->lock = XI_LOCK_OF(MEMBER);
    if (held == 2) M.chan->groups[0].lock = XI_LOCK_OF(MEMBER);
    struct xi_dead dead = m_dead(MEMBER);
    struct xi_chan_view view = bare_view();
    if (at < 0) first_send();
    m_between = first_send;
    m_between_at = at;
    while (!xi_repair_channel(&view, &dead, &m_world)) view = M.home;
    must(M.chan->lock == 0 && M.chan->groups[0].lock == 0);
    if (M.chan->tail == 0) view = bare_view();
    else view = M.home;
    while (!xi_repair_groups(&view, &dead, &m_world)) view = M.home;
    bool sent = M.chan->tail != 0, reached = m_between_at < 0;
    m_between_at = -1;
    m_look();
    check_quiet();
    must(!is_active(1));
    must(m_receive(LIVING, 0, 3, NULL) == (sent ? 2 : 0));
    return at >= 0 && reached;
}

START_TEST(test_first_send) {
    m_map(CAPACITY);
    for (int values = 0; values < VALUE_KINDS; values++)
        for (int held = 0; held < 3; held++) {
            long at = -1;
            if (held != 1) (void)send_beside_a_repair(values, held, at);
            while (send_beside_a_repair(values, held, ++at)) continue;
            ck_assert_int_gt(at, 3);
        }
    m_between = NULL;
    m_unmap();
}
END_TEST

/*
 * The broker brings a drained ring home, and is killed before each of its stores, while somebody sends. What is not
 * drained, or locked by the living, it leaves alone.
 */
static bool came_home;
static void broker_home(void) {
    m_look();
    struct xi_chan_view view = M.view;
    came_home = xi_ring_home(&view, M.home.capacity, &m_world);
}

/* Killed before its k-th store (-1: not), or with somebody who sends before that. */
static bool bring_home_once(int start, long k, bool sending) {
    uint64_t tail;
    m_reset(MIXED, starts[start].position, starts[start].number);
    first_number = starts[start].number + 1;
    now.name = sending ? "a ring comes home beside a sender" : "the broker, bringing a ring home";
    now.k = k;
    m_group_at(1, 0);
    m_move(LIVING);
    m_send(LIVING, 4);
    for (uint32_t g = 0; g < 2; g++) m_receive(LIVING, g, 4, NULL);
    memset(M.borrows[LIVING], 0, sizeof M.borrows[LIVING]);
    M.truth.taken_count[LIVING] = 0;
    must(xi_ring_drained(&M.view, &tail) && tail == M.chan->tail);
    m_between = only_send;
    m_between_at = sending ? k : -1;
    came_home = false;
    bool ended = m_run(broker_home, sending ? -1 : k);
    if (sending) ended = m_between_at >= 0;
    m_between_at = -1;
    m_look();
    must(!came_home || M.chan->ring == 0);
    must(came_home || sending || !ended);
    m_repair_channel(BROKER);
    check_all(BROKER);
    return ended;
}

START_TEST(test_broker_brings_home) {
    m_map(CAPACITY);
    for (int sending = 0; sending < 2; sending++)
        for (long k = 0; !bring_home_once(_i, k, sending); k++) continue;
    m_between = NULL;
    m_reset(INLINE_ONLY, 0, 0);
    m_move(LIVING);
    m_send(LIVING, 1);
    broker_home();
    must(!came_home && M.chan->ring == M.far.word && M.chan->lock == 0);
    m_receive(LIVING, 0, 1, NULL);
    M.chan->groups[0].lock = XI_LOCK_OF(LIVING);
    broker_home();
    must(!came_home && M.chan->lock == 0);
    M.chan->groups[0].lock = 0;
    M.chan->lock = XI_LOCK_OF(LIVING);
    broker_home();
    must(!came_home && M.chan->groups[0].lock == 0);
    M.chan->lock = 0;
    broker_home();
    must(came_home && M.chan->ring == 0);
    m_unmap();
}
END_TEST

/* Summaries that the dead one had cleared: wakers would not look at the masks. */
START_TEST(test_summaries) {
    m_map(CAPACITY);
    m_reset(INLINE_ONLY, 0, 0);
    m_park(SLEEPER, 0, XI_SIDE_GROUP(0), 5);
    m_park(SLEEPER, 1, XI_SIDE_PRODUCERS, 6);
    m_park(SLEEPER, 2, XI_SIDE_GROUP(63), 511);
    m_group_at(63, 0);
    for (int i = 0; i < 400; i++) m_send(LIVING, 1); /* full: nobody is rung but consumers */
    m_park(SLEEPER, 3, XI_SIDE_PRODUCERS, 7);
    m_park(SLEEPER, 4, XI_SIDE_GROUP(2), 8);
    m_group_at(2, 0);
    M.chan->parked_groups = 0;
    M.chan->parked_producers = 0;
    xi_ring_channel(&M.view, &m_world);
    ck_assert_uint_eq(M.chan->parked_producers, 1);
    ck_assert(M.chan->parked_groups >> 2 & 1);
    m_unmap();
}
END_TEST

/* ------------------------------------------------------------------ two deaths */

/* A consumer on a producer's heels, past the stored tail; both killed; repaired in either order. */
static void both_die(enum values values, size_t start, long producer_k, long consumer_k, bool producer_first,
                     bool *ended) {
    m_reset(values, starts[start].position, starts[start].number);
    first_number = starts[start].number + 1;
    sleepers();
    now.name = producer_first ? "two deaths, producer first" : "two deaths, consumer first";
    now.k = producer_k;
    now.repair_k = consumer_k;
    ended[0] = m_run(send_batch, producer_k);
    ended[1] = m_run(receive_batch, consumer_k);
    M.gone[PRODUCER] = M.gone[CONSUMER] = true;
    uint32_t first = producer_first ? PRODUCER : CONSUMER, second = producer_first ? CONSUMER : PRODUCER;
    m_repair_channel(first);
    m_repair_channel(second);
    m_repair(first);
    m_repair(second);
    check_nothing_held(first);
    check_all(second);
}

START_TEST(test_two_deaths) {
    m_map(CAPACITY);
    for (int values = 0; values < VALUE_KINDS; values++)
        for (int order = 0; order < 2; order++) {
            bool ended[2] = {false, false};
            for (long p = 0; !ended[0]; p += m_slow() ? 4 : 1) {
                ended[1] = false;
                for (long c = p % m_stride(9); !ended[1]; c += m_stride(9))
                    both_die(values, (size_t)_i, p, c, order == 0, ended);
            }
        }
    m_unmap();
}
END_TEST

/* A living producer in the middle of a batch, and a living consumer: the death of others must not touch what they hold.
 */
START_TEST(test_living_holders) {
    m_map(CAPACITY);
    bool ended = false;
    for (long k = 1; !ended; k++) {
        m_reset(MIXED, 0, 0);
        first_number = 1;
        now.name = "living holders";
        now.k = k;
        ended = m_run(send_batch, k); /* the producer stops there, and lives */
        m_receive(CONSUMER, 0, 1, NULL);
        M.chan->groups[0].lock = XI_LOCK_OF(LIVING);
        uint64_t tail = M.chan->tail, number = M.chan->tail_seq, head = M.chan->groups[0].head;
        uint32_t lock = M.chan->lock;
        M.gone[CONSUMER] = true;
        m_repair(CONSUMER);
        must(M.chan->lock == lock && (ended || lock == XI_LOCK_OF(PRODUCER)));
        must(M.chan->tail == tail && M.chan->tail_seq == number);
        must(M.chan->groups[0].lock == XI_LOCK_OF(LIVING) && M.chan->groups[0].head == head);
        M.chan->groups[0].lock = 0;
        M.gone[PRODUCER] = true;
        m_repair(PRODUCER);
        check_all(PRODUCER);
    }
    m_unmap();
}
END_TEST

START_TEST(test_groups_wait_for_the_living) {
    m_map(CAPACITY);
    struct xi_dead dead = m_dead(MEMBER);
    m_reset(BLOCKS_ONLY, 0, 0);
    two_groups();
    M.chan->lock = XI_LOCK_OF(LIVING);
    ck_assert(!xi_repair_groups(&M.view, &dead, &m_world));
    M.chan->lock = 0;
    M.chan->groups[1].lock = XI_LOCK_OF(LIVING);
    ck_assert(!xi_repair_groups(&M.view, &dead, &m_world));
    ck_assert_uint_eq(M.chan->lock, 0);
    ck_assert(is_active(1));
    M.chan->groups[1].lock = 0;
    M.chan->groups[1].owner_id = 1; /* an earlier holder of the slot */
    ck_assert(xi_repair_groups(&M.view, &dead, &m_world));
    ck_assert(is_active(1));
    m_unmap();
}
END_TEST

/* --------------------------------------------------------------- the largest batch */

static void send_largest(void) { m_send(PRODUCER, 32767); }
static void receive_largest(void) { m_receive(CONSUMER, 0, 32767, NULL); }

START_TEST(test_largest_batch) {
    static const uint64_t numbers[] = {0, 32768, 65535, ((uint64_t)1 << 32) - 5};
    m_map(1 << 20);
    for (size_t n = 0; n < 4; n += m_slow() ? 4 : 1)
        for (int moment = 0; moment < 8; moment += m_slow() ? 5 : 1) {
            m_reset(INLINE_ONLY, 8 * 999, numbers[n]);
            now.name = "largest batch";
            now.k = moment;
            ck_assert(m_run(send_largest, -1));
            long steps = m_done;
            ck_assert(m_run(receive_largest, -1));
            long receive_steps = m_done;
            ck_assert_uint_eq(M.truth.received[0], numbers[n] + 32767);
            m_reset(INLINE_ONLY, 8 * 999, numbers[n]);
            ck_assert(!m_run(moment < 4 ? send_largest : receive_largest, moment < 4 ? steps - 1 - moment : 1) ||
                      moment >= 4);
            if (moment >= 4) {
                M.chan->groups[0].lock = 0;
                ck_assert(m_run(send_largest, -1));
                ck_assert(!m_run(receive_largest, receive_steps - 1 - (moment - 4)));
            }
            m_repair(moment < 4 ? PRODUCER : CONSUMER);
            check_quiet();
            check_rest(0);
        }
    m_unmap();
}
END_TEST

/* ---------------------------------------------------------------------- bells */

START_TEST(test_bells) {
    m_map(CAPACITY);
    m_reset(INLINE_ONLY, 0, 0);
    struct xi_bell *bells = M.mail[SLEEPER].bells;
    bells[1].state = XI_BELL_PARKED;
    bells[2].state = XI_BELL_NOTIFIED;
    bells[3].state = 77;
    xi_repair_bells(&M.mail[SLEEPER], &m_world);
    ck_assert_uint_eq(bells[0].bell + bells[1].bell + bells[3].bell, 0);
    ck_assert_uint_eq(bells[2].bell, 1);
    ck_assert_uint_eq(M.woken[SLEEPER][2], 1);
    ck_assert(!xi_ring_bell(&M.mail[SLEEPER], 2, &m_world)); /* claimed before: rung, but nobody new is told */
    ck_assert_uint_eq(bells[2].bell, 2);
    ck_assert(xi_ring_bell(&M.mail[SLEEPER], 1, &m_world));
    ck_assert(!xi_ring_bell(&M.mail[SLEEPER], 0, &m_world));
    m_unmap();
}
END_TEST

/* As many consumers are rung as there are values: not all, not fewer. */
START_TEST(test_one_ring_a_value) {
    m_map(CAPACITY);
    for (uint32_t values = 0; values < 8; values++) {
        m_reset(INLINE_ONLY, 0, 0);
        m_send(LIVING, values);
        for (uint32_t i = 0; i < 6; i++) m_park(SLEEPER, i, XI_SIDE_GROUP(0), i * 80);
        xi_ring_channel(&M.view, &m_world);
        uint32_t told = 0;
        for (uint32_t i = 0; i < 6; i++) told += M.woken[SLEEPER][i];
        ck_assert_uint_eq(told, values < 6 ? values : 6);
    }
    m_unmap();
}
END_TEST

/* Borrow entries with hostile contents are dropped and reach no memory outside the tables. */
START_TEST(test_hostile_borrows) {
    static const uint64_t words[] = {0, 1, 2, ~(uint64_t)0, (uint64_t)1 << 63, (uint64_t)ARENA << 32 | 0xffffffff};
    m_map(CAPACITY);
    m_reset(BLOCKS_ONLY, 0, 0);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        struct xi_borrow *b = m_entry(CONSUMER, i);
        b->key = words[i % 6] | 1;
        b->block = words[(i / 2) % 6];
        b->position = words[(i / 3) % 6];
        b->chan_seg = (uint32_t)words[(i / 4) % 6];
    }
    m_repair(CONSUMER);
    check_nothing_held(CONSUMER);
    m_unmap();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("repair");
    TCase *killed = tcase_create("killed"), *other = tcase_create("other");
    tcase_set_timeout(killed, 100);
    tcase_add_loop_test(killed, test_killed_anywhere, 0, SCENARIOS);
    tcase_add_loop_test(killed, test_repair_killed_anywhere, 0, SCENARIOS);
    tcase_add_loop_test(killed, test_living_in_between, 0, SCENARIOS);
    tcase_add_loop_test(killed, test_two_deaths, 0, (int)STARTS);
    suite_add_tcase(suite, killed);
    tcase_set_timeout(other, 60);
    tcase_add_loop_test(other, test_stale_view, 0, (int)STARTS);
    tcase_add_test(other, test_first_send);
    tcase_add_loop_test(other, test_broker_brings_home, 0, (int)STARTS);
    tcase_add_test(other, test_summaries);
    tcase_add_test(other, test_living_holders);
    tcase_add_test(other, test_groups_wait_for_the_living);
    tcase_add_test(other, test_largest_batch);
    tcase_add_test(other, test_bells);
    tcase_add_test(other, test_one_ring_a_value);
    tcase_add_test(other, test_hostile_borrows);
    suite_add_tcase(suite, other);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
