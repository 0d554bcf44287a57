/* SPDX-License-Identifier: MIT */
/*
 * Every operation of a group that acknowledges, killed before each of its stores,
 * then repair; and repair killed before each of its own stores and run again by
 * the next broker. Afterwards the living take what is left: each value must be
 * acknowledged once, or lie in the dead letters once, and never both; nothing is
 * held, out or locked; and blocks are back when nobody reads them, not before.
 *
 * repair_model.h has the channel. What is here writes the group's table store by
 * store, as wire/layout.h states it ("Groups that acknowledge").
 */
#include "repair_model.h"

#define CAPACITY 4096u
#define WINDOW 8u
#define MOST 64u /* values of one scenario */
#define NOW 100u /* the time: what is due before it is due */

static const struct {
    uint64_t position, number;
} starts[] = {{0, 0}, {3 * CAPACITY - 24, 65533}, {((uint64_t)1 << 40) + 8, ((uint64_t)1 << 33) - 3}};
#define STARTS (sizeof starts / sizeof *starts)

/* What has happened, by the value's number less the first one's. */
static struct {
    uint64_t first;
    uint32_t acked[MOST], lettered[MOST];
    bool counted[MOST]; /* a move that was counted, or may have been */
} T;

static struct {
    const char *name;
    uint32_t dead;
    long k, repair_k;
} now;

#define must(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            ck_abort_msg("%s: " #condition " (slot %u killed before step %ld, repair before %ld)", now.name, now.dead, \
                         now.k, now.repair_k);                                                                         \
    } while (0)

static struct xi_group *group(void) { return &M.chan->groups[0]; }
static struct xi_delivery *entry(uint64_t number) { return &m_table->entries[number % WINDOW]; }
static struct xi_linger *words(void) { return XI_ACKS_LINGERS(m_table, WINDOW); }
static struct xi_chan *letters(void) { return m_letters.chan; }

static void put(xi_a64 *p, uint64_t v) {
    m_step();
    xi_store_release(p, v);
}

/* -------------------------------------------------------------- operations */

/* Delivers up to n new values; returns the number of the last. */
static uint64_t deliver(uint32_t slot, uint32_t n) {
    struct xi_group *g = group();
    m_lock(&g->lock, slot);
    uint64_t position = g->next, number = g->next_seq, h;
    for (; n > 0 && number - g->head_seq < WINDOW && (h = *xi_ring_at(&M.view, position)) != 0; n--) {
        struct xi_delivery *d = entry(++number);
        put(&d->position, position);
        put(&d->due, UINT64_MAX);
        put(&d->count, 1);
        put(&d->state, XI_DELIVERY(XI_DELIVERY_OUT, 0, 1, slot, slot));
        position += 8 + XI_REC_LENGTH(h);
    }
    if (number != g->next_seq) {
        put(&g->next_seq, number);
        put(&g->next, position);
    }
    m_unlock(&g->lock);
    return number;
}

static uint64_t block_word(uint64_t number) { return (uint64_t)ARENA << 32 | m_granule(number); }

static void linger(uint64_t number, uint64_t state) {
    struct xi_linger *l = words();
    while (l->holder) m_assert(++l < words() + WINDOW);
    put(&l->number, number);
    put(&l->block, block_word(number));
    put(&l->generation, m_generation(number));
    put(&l->holder, state);
}

static bool somebody_lingers(uint64_t number) {
    for (uint32_t i = 0; i < WINDOW; i++)
        if (words()[i].holder && words()[i].number == number) return true;
    return false;
}

/* The lowest number that is due, 0 where none is. */
static uint64_t next_due(void) {
    for (uint64_t n = group()->head_seq + 1; n <= group()->next_seq; n++) {
        uint32_t status = XI_DELIVERY_STATUS(entry(n)->state);
        if ((status == XI_DELIVERY_READY || status == XI_DELIVERY_OUT) && entry(n)->due <= NOW) return n;
    }
    return 0;
}

static void take(uint32_t slot, uint64_t number) {
    struct xi_delivery *d = entry(number);
    uint64_t old = d->state;
    uint32_t count = XI_DELIVERIES(d->count, old) + 1;
    if (XI_DELIVERY_STATUS(old) == XI_DELIVERY_OUT && m_is_block(number)) linger(number, old);
    put(&d->count, count);
    put(&d->state, XI_DELIVERY(XI_DELIVERY_OUT, XI_BACK_OVERDUE, count, slot, slot));
    put(&d->due, UINT64_MAX);
}

static uint64_t again(uint32_t slot) {
    m_lock(&group()->lock, slot);
    uint64_t number = next_due();
    if (number) take(slot, number);
    m_unlock(&group()->lock);
    return number;
}

static void pass_done(void) {
    struct xi_group *g = group();
    uint64_t n = g->head_seq;
    while (n != g->next_seq && XI_DELIVERY_STATUS(entry(n + 1)->state) == XI_DELIVERY_DONE) n++;
    if (n == g->head_seq) return;
    uint64_t head = n == g->next_seq ? g->next : entry(n + 1)->position, old = g->head_seq;
    put(&g->head_seq, n);
    put(&g->head, head);
    for (uint64_t k = old + 1; k <= n; k++) put(&entry(k)->state, 0);
}

static void done(uint64_t number, uint32_t *counter) {
    struct xi_delivery *d = entry(number);
    put(&d->state, (d->state & ~(uint64_t)0xff) | XI_DELIVERY_DONE);
    (*counter)++;
    if (m_is_block(number) && !somebody_lingers(number)) m_set_bit(number, 0);
}

static void ack(uint32_t slot, uint64_t number) {
    m_lock(&group()->lock, slot);
    m_assert(XI_DELIVERY_STATUS(entry(number)->state) == XI_DELIVERY_OUT && XI_DELIVERY_SLOT(entry(number)->state) == slot);
    done(number, &T.acked[number - T.first]);
    pass_done();
    m_unlock(&group()->lock);
}

static void back(uint32_t slot, uint64_t number) {
    struct xi_delivery *d = entry(number);
    m_lock(&group()->lock, slot);
    put(&d->due, 0);
    put(&d->state, (d->state & ~(uint64_t)0xffff) | XI_DELIVERY_READY | XI_BACK_NACKED << 8);
    put(&group()->next_due, 0);
    m_unlock(&group()->lock);
}

/* Who lingers on this value lets go of it. */
static void end_linger(uint32_t slot, uint64_t number) {
    m_lock(&group()->lock, slot);
    struct xi_linger *own = NULL;
    uint32_t others = 0;
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct xi_linger *l = &words()[i];
        if (!l->holder || l->number != number) continue;
        if (XI_DELIVERY_SLOT(l->holder) == slot && !own) own = l;
        else others++;
    }
    if (own && !others && T.acked[number - T.first] + T.lettered[number - T.first] > 0) m_set_bit(number, 0);
    if (own) put(&own->holder, 0);
    m_unlock(&group()->lock);
}

/* -------------------------------------------------------------- dead letters */

static void begin_move(uint32_t slot, uint64_t number) {
    struct xi_delivery *d = entry(number);
    m_lock(&group()->lock, slot);
    uint64_t old = d->state, count = XI_DELIVERIES(d->count, old);
    if (XI_DELIVERY_STATUS(old) == XI_DELIVERY_OUT && m_is_block(number)) linger(number, old);
    put(&d->count, count);
    put(&d->due, UINT64_MAX);
    put(&d->state, XI_DELIVERY(XI_DELIVERY_MOVING, XI_BACK_NACKED, count, slot, slot));
    m_unlock(&group()->lock);
}

/* A letter says which value it is. Its lock has nobody who sleeps for it. */
static void send_letter(uint32_t slot, uint64_t number) {
    struct xi_chan *c = letters();
    struct xi_delivery *d = entry(number);
    uint32_t free_ = 0;
    put(&d->count, (d->count & 0xffffffffu) | (uint64_t)LETTERS << 32);
    m_step();
    m_assert(xi_cas32_full(&c->lock, &free_, XI_LOCK_OF(slot)));
    uint64_t w = c->tail, seq = c->tail_seq + 1;
    put(&d->due, seq);
    put(xi_ring_at(&m_letters, w + 8), number);
    put(xi_ring_at(&m_letters, w + 16), 0);
    put(xi_ring_at(&m_letters, w), XI_REC(8, XI_REC_INLINE, 0, seq));
    put(&c->tail_seq, seq);
    put(&c->tail, w + 16);
    m_step();
    xi_store_release(&c->lock, 0u);
}

static void finish_move(uint32_t slot, uint64_t number) {
    m_lock(&group()->lock, slot);
    done(number, &T.lettered[number - T.first]);
    pass_done();
    m_unlock(&group()->lock);
}

/* There was no room: it is looked at again. */
static void give_up_move(uint32_t slot, uint64_t number) {
    struct xi_delivery *d = entry(number);
    m_lock(&group()->lock, slot);
    put(&d->state, (d->state & ~(uint64_t)0xff) | XI_DELIVERY_READY);
    put(&d->due, NOW);
    put(&group()->next_due, NOW);
    m_unlock(&group()->lock);
}

/* ------------------------------------------------------------- what must hold */

static uint64_t position_of(uint64_t number) {
    uint64_t position = M.truth.head[0];
    for (uint64_t n = T.first; n != number; n++) position += 8 + m_length(n);
    return position;
}

static uint64_t letters_with(uint64_t number) {
    uint64_t n = 0;
    for (uint64_t p = letters()->groups[0].head; p < letters()->tail; p += 16)
        n += *xi_ring_at(&m_letters, p + 8) == number;
    return n;
}

static void check_table(void) {
    struct xi_group *g = group();
    must(g->lock == 0 && M.chan->lock == 0 && letters()->lock == 0);
    must(g->corrupt == 0);
    must(g->next_seq - g->head_seq <= WINDOW);
    must(g->head == position_of(g->head_seq + 1));
    must(g->next == position_of(g->next_seq + 1));
    for (uint64_t n = g->head_seq + 1; n <= g->head_seq + WINDOW; n++) {
        uint64_t state = entry(n)->state;
        uint32_t status = XI_DELIVERY_STATUS(state);
        if (n > g->next_seq) {
            must(state == 0);
            continue;
        }
        must(entry(n)->position == position_of(n));
        must(status == XI_DELIVERY_OUT || status == XI_DELIVERY_READY || status == XI_DELIVERY_DONE);
        must(status != XI_DELIVERY_OUT || XI_DELIVERY_SLOT(state) != now.dead);
        must(status != XI_DELIVERY_READY || entry(n)->due <= NOW); /* nothing waits for ever */
        must(status != XI_DELIVERY_DONE || n != g->head_seq + 1);
    }
    for (uint32_t i = 0; i < WINDOW; i++) must(!words()[i].holder || XI_DELIVERY_SLOT(words()[i].holder) != now.dead);
    bool something = next_due() != 0 || g->next_seq < M.truth.sent;
    must(!something || g->next_due <= NOW || g->next_seq < M.truth.sent);
}

/* A block is back if its value is no more and nobody lingers on it, and only then. */
static void check_blocks(void) {
    for (uint64_t n = T.first; n <= M.truth.sent; n++) {
        if (!m_is_block(n)) continue;
        bool flying = n > group()->head_seq && n <= group()->next_seq;
        bool gone = n <= group()->head_seq || (flying && XI_DELIVERY_STATUS(entry(n)->state) == XI_DELIVERY_DONE);
        uint64_t word = M.release[m_granule(n)].word[0];
        must((word & 1) == (gone && !somebody_lingers(n)));
    }
}

/* The living take and acknowledge what there is. */
static void check_rest(void) {
    uint64_t number;
    for (int turn = 0; turn < 200; turn++) {
        for (uint64_t n = group()->head_seq + 1; n <= group()->next_seq; n++) {
            uint64_t state = entry(n)->state;
            if (XI_DELIVERY_STATUS(state) == XI_DELIVERY_OUT) ack(XI_DELIVERY_SLOT(state), n);
        }
        number = again(LIVING);
        if (number) must(T.acked[number - T.first] == 0 && letters_with(number) == 0);
        if (!number && deliver(LIVING, 1) == group()->head_seq) break;
    }
    must(group()->head_seq == M.truth.sent);
    for (uint32_t i = 0; i < WINDOW; i++)
        while (words()[i].holder) end_linger(XI_DELIVERY_SLOT(words()[i].holder), words()[i].number);
    check_table();
    check_blocks();
    for (uint64_t n = T.first; n <= M.truth.sent; n++) must(T.acked[n - T.first] + letters_with(n) == 1);
}

/* -------------------------------------------------------------- scenarios */

struct scenario {
    const char *name;
    void (*prepare)(void);
    void (*operate)(void);
};

static void some_new(void) { m_send(LIVING, 12); }
static void some_out(void) {
    some_new();
    deliver(CONSUMER, 3);
    deliver(LIVING, 2);
}
static void some_back(void) {
    some_out();
    back(LIVING, T.first + 4);
    back(CONSUMER, T.first + 1);
    back(CONSUMER, T.first + 0);
}
static void some_overdue(void) {
    some_out();
    for (uint64_t n = T.first + 3; n < T.first + 5; n++) entry(n)->due = NOW - 1;
}
/* The dead one's own are overdue too, were taken by another, and some of those are done. */
static void some_lingering(void) {
    some_out();
    for (uint64_t n = T.first; n < T.first + 3; n++) entry(n)->due = NOW - 1;
    for (int i = 0; i < 3; i++) m_assert(again(LIVING));
    ack(LIVING, T.first + 1);
    ack(LIVING, T.first + 2);
}
/* With a living one beside it, on values that are done and on one that is not. */
static void lingering_together(void) {
    some_new();
    deliver(CONSUMER, 3);
    for (int round = 0; round < 2; round++) {
        for (uint64_t n = T.first; n < T.first + 3; n++) entry(n)->due = NOW - 1;
        for (int i = 0; i < 3; i++) m_assert(again(round ? SLEEPER : LIVING));
    }
    ack(SLEEPER, T.first);
    ack(SLEEPER, T.first + 1);
}
static void head_waits(void) {
    some_out();
    ack(CONSUMER, T.first + 1);
    ack(CONSUMER, T.first + 2);
    ack(LIVING, T.first + 3);
}
static void a_move(void) {
    some_overdue();
    begin_move(CONSUMER, T.first + 3);
}
static void a_letter(void) {
    a_move();
    send_letter(LIVING, T.first + 3); /* so that numbers differ */
    letters()->groups[0].head = letters()->tail;
    entry(T.first + 3)->due = UINT64_MAX;
}
static void a_move_of_own(void) {
    some_back();
    begin_move(CONSUMER, T.first + 1);
}

static void deliver_one(void) { deliver(CONSUMER, 1); }
static void deliver_batch(void) { deliver(CONSUMER, 6); }
static void deliver_again(void) { again(CONSUMER); }
static void ack_first(void) { ack(CONSUMER, T.first); }
static void ack_second(void) { ack(CONSUMER, T.first + 1); }
static void ack_all(void) {
    for (uint64_t n = T.first; n < T.first + 3; n++) ack(CONSUMER, n);
}
static void give_one_back(void) { back(CONSUMER, T.first + 1); }
static void let_go(void) {
    for (uint64_t n = T.first; n < T.first + 3; n++)
        if (m_is_block(n)) end_linger(CONSUMER, n);
}
static void move_one(void) {
    begin_move(CONSUMER, T.first + 3);
    send_letter(CONSUMER, T.first + 3);
    finish_move(CONSUMER, T.first + 3);
}
static void move_on(void) {
    send_letter(CONSUMER, T.first + 3);
    finish_move(CONSUMER, T.first + 3);
}
static void move_back_on(void) {
    send_letter(CONSUMER, T.first + 1);
    finish_move(CONSUMER, T.first + 1);
}
static void move_in_vain(void) {
    begin_move(CONSUMER, T.first + 3);
    give_up_move(CONSUMER, T.first + 3);
}
static void nothing(void) {}

static const struct scenario scenarios[] = {
    {"deliver one", some_out, deliver_one},
    {"deliver a batch", some_out, deliver_batch},
    {"deliver the first", some_new, deliver_batch},
    {"deliver again", some_back, deliver_again},
    {"deliver what is overdue", some_overdue, deliver_again},
    {"acknowledge the first", some_out, ack_first},
    {"acknowledge another", some_out, ack_second},
    {"acknowledge what the head waits for", head_waits, ack_first},
    {"acknowledge all", some_out, ack_all},
    {"give back", some_out, give_one_back},
    {"let go of what was overdue", some_lingering, let_go},
    {"die while others have it", some_lingering, nothing},
    {"let go beside others", lingering_together, let_go},
    {"die beside others", lingering_together, nothing},
    {"move", some_overdue, move_one},
    {"move on", a_move, move_on},
    {"move with others there", a_letter, move_on},
    {"move one of its own", a_move_of_own, move_back_on},
    {"move in vain", some_overdue, move_in_vain},
};
#define SCENARIOS (int)(sizeof scenarios / sizeof *scenarios)

static void reset(enum values values, size_t start) {
    struct xi_chan_view other = m_letters;
    m_reset(values, starts[start].position, starts[start].number);
    memset(m_table, 0, XI_ACKS_SIZE(WINDOW));
    m_table->window = WINDOW;
    m_table->chan_seg = CHANNEL;
    group()->flags = XI_GROUP_F_ACK;
    group()->acks_seg = TABLE;
    group()->next = group()->head;
    group()->next_seq = group()->head_seq;
    group()->next_due = UINT64_MAX;
    memset(other.chan, 0, sizeof *other.chan);
    memset(other.ring, 0, other.capacity);
    other.chan->groups[0].state = XI_GROUP_ACTIVE;
    other.chan->active = 1;
    memset(&T, 0, sizeof T);
    T.first = starts[start].number + 1;
}

/* What the broker does, in its order. */
static void repair(uint32_t slot) {
    struct xi_dead dead = m_dead(slot);
    struct xi_acks_view table = {m_table, WINDOW, TABLE};
    xi_judge_moves(&table, &dead, &m_world);
    must(xi_repair_channel(&m_letters, &dead, &m_world));
    m_look();
    must(xi_repair_channel(&M.view, &dead, &m_world));
    xi_repair_borrows(&dead, &m_world);
    must(xi_repair_acks(&M.view, &table, &dead, &m_world));
    must(xi_repair_groups(&M.view, &dead, &m_world));
}

static bool die(const struct scenario *s, enum values values, size_t start, long k) {
    reset(values, start);
    s->prepare();
    now.name = s->name;
    now.dead = CONSUMER;
    now.k = k;
    bool ended = m_run(s->operate, k);
    M.gone[CONSUMER] = true;
    return ended;
}

/* Letters that were sent, whoever got to say so. */
static void judge(void) {
    check_table();
    check_blocks();
    for (uint64_t n = T.first; n <= M.truth.sent; n++) T.lettered[n - T.first] = (uint32_t)letters_with(n);
    check_rest();
}

static void open_all(void) {
    m_map(CAPACITY);
    m_letters = M.home;
    m_letters.segment = LETTERS;
    m_map(CAPACITY);
    free(m_table); /* of the test before, where check does not fork for each */
    m_table = calloc(1, XI_ACKS_SIZE(WINDOW));
}

START_TEST(killed_anywhere) {
    const struct scenario *s = &scenarios[_i];
    open_all();
    for (int values = 0; values < 3; values++)
        for (size_t start = 0; start < STARTS; start++)
            for (int times = 1; times <= 2; times++) {
                bool ended = false;
                for (long k = 0; !ended; k++) {
                    ended = die(s, values, start, k);
                    now.repair_k = -times;
                    for (int i = 0; i < times; i++) repair(CONSUMER);
                    judge();
                }
            }
}
END_TEST

static void repair_it(void) { repair(CONSUMER); }

/* The next broker: first what its predecessor had locked, then the dead that it had begun with. */
START_TEST(repair_killed_anywhere) {
    const struct scenario *s = &scenarios[_i];
    open_all();
    for (int values = 0; values < 3; values++) {
        bool ended = false;
        for (long k = 0; !ended; k++) {
            bool repaired = false;
            for (long r = k % m_stride(3); !repaired; r += m_stride(3)) {
                ended = die(s, values, (size_t)_i % STARTS, k);
                now.repair_k = r;
                repaired = m_run(repair_it, r);
                struct xi_dead broker = m_dead(BROKER);
                must(xi_repair_channel(&m_letters, &broker, &m_world));
                m_look();
                must(xi_repair_channel(&M.view, &broker, &m_world));
                repair(CONSUMER);
                judge();
            }
        }
    }
}
END_TEST

/* A living consumer has the lock: nothing is touched, and the broker is told to come again. */
START_TEST(repair_waits_for_the_living) {
    open_all();
    reset(MIXED, 0);
    some_out();
    M.gone[CONSUMER] = true;
    struct xi_dead dead = m_dead(CONSUMER);
    struct xi_acks_view table = {m_table, WINDOW, TABLE};
    m_lock(&group()->lock, LIVING);
    ck_assert(!xi_repair_acks(&M.view, &table, &dead, &m_world));
    ck_assert_uint_eq(XI_DELIVERY_STATUS(entry(T.first)->state), XI_DELIVERY_OUT);
    m_unlock(&group()->lock);
    ck_assert(xi_repair_acks(&M.view, &table, &dead, &m_world));
    ck_assert_uint_eq(XI_DELIVERY_STATUS(entry(T.first)->state), XI_DELIVERY_READY);
    ck_assert_uint_eq(XI_DELIVERY_REASON(entry(T.first)->state), XI_BACK_DIED);
    ck_assert_uint_eq(XI_DELIVERY_SLOT(entry(T.first + 3)->state), LIVING);
    ck_assert_uint_eq(group()->next_due, 0);
}
END_TEST

/* The group ends while the living read: their blocks stay until they let go. */
START_TEST(the_end_leaves_what_is_read) {
    open_all();
    now.name = "end";
    for (int values = 1; values < 3; values++) {
        bool ended = false;
        for (long k = 0; !ended; k++) {
            reset(values, 0);
            some_lingering();
            deliver(LIVING, 1);
            M.chan->lock = XI_LOCK_OF(MEMBER); /* was just ending it */
            M.chan->active = 0;
            M.gone[MEMBER] = true;
            struct xi_dead dead = m_dead(MEMBER);
            m_left = k;
            m_done = 0;
            if (setjmp(m_killed) == 0) {
                (void)xi_repair_channel(&M.view, &dead, &m_world);
                ended = true;
            }
            m_left = -1;
            struct xi_dead broker = m_dead(BROKER);
            (void)xi_repair_channel(&M.view, &broker, &m_world);
            (void)xi_repair_channel(&M.view, &dead, &m_world);
            now.k = k;
            must(group()->state == XI_GROUP_FREE);
            for (uint64_t n = T.first; n <= M.truth.sent; n++) {
                if (!m_is_block(n)) continue;
                bool read = n <= T.first + 5; /* delivered, or taken over from one who lingers */
                must((M.release[m_granule(n)].word[0] & 1) == !read);
                must(somebody_lingers(n) == read);
            }
            struct xi_acks_view table = {m_table, WINDOW, TABLE};
            struct xi_dead consumer = m_dead(CONSUMER), living = m_dead(LIVING);
            must(!xi_acks_unused(&M.view, &table, false));
            must(xi_repair_acks(&M.view, &table, &consumer, &m_world));
            must(xi_repair_acks(&M.view, &table, &living, &m_world));
            for (uint64_t n = T.first; n <= M.truth.sent; n++)
                if (m_is_block(n)) must(M.release[m_granule(n)].word[0] & 1);
            must(xi_acks_unused(&M.view, &table, false));
        }
    }
}
END_TEST

static uint64_t seed = 1;
static uint64_t random64(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1du;
}

/* Garbage in the table or the group: repair ends, and leaves what receivers can go on with. */
START_TEST(garbage) {
    open_all();
    for (int turn = 0; turn < 20000; turn++) {
        reset((enum values)(turn % 3), (size_t)turn % STARTS);
        some_lingering();
        begin_move(CONSUMER, T.first + 3);
        for (int hits = 1 + turn % 5; hits > 0; hits--) {
            struct xi_delivery *d = &m_table->entries[random64() % WINDOW];
            struct xi_linger *l = &words()[random64() % WINDOW];
            xi_a64 *all[] = {&d->state,        &d->position,        &d->due,             &d->count,           &l->holder,
                             &l->block,        &l->generation,      &group()->next,      &group()->next_seq,  &group()->head,
                             &group()->head_seq, &group()->next_due, xi_ring_at(&M.view, random64() % CAPACITY)};
            xi_a64 *word = all[random64() % (sizeof all / sizeof *all)];
            uint64_t values[] = {0, UINT64_MAX, random64(), random64() % 100, *word + 8, *word - 1, *word ^ 1};
            *word = values[random64() % 7];
        }
        if (turn % 2) group()->lock = XI_LOCK_OF(CONSUMER);
        M.gone[CONSUMER] = true;
        struct xi_dead dead = m_dead(CONSUMER);
        struct xi_acks_view table = {m_table, WINDOW, TABLE};
        xi_judge_moves(&table, &dead, &m_world);
        (void)xi_repair_channel(&M.view, &dead, &m_world);
        ck_assert(xi_repair_acks(&M.view, &table, &dead, &m_world));
        ck_assert_uint_eq(group()->lock, 0);
        if (turn % 2) ck_assert_uint_le(group()->next_seq - group()->head_seq, WINDOW);
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("repair of deliveries");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 110);
    tcase_add_loop_test(t, killed_anywhere, 0, SCENARIOS);
    tcase_add_loop_test(t, repair_killed_anywhere, 0, SCENARIOS);
    tcase_add_test(t, repair_waits_for_the_living);
    tcase_add_test(t, the_end_leaves_what_is_read);
    tcase_add_test(t, garbage);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
