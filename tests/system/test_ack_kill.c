/* SPDX-License-Identifier: MIT */
/*
 * Consumers of a group that acknowledges are killed one after another, at random
 * instructions, and started again; in the second scene the broker as well. They
 * acknowledge, give back, let go without a word, or take longer than they may; and
 * some values nobody can use.
 *
 * What happened to each value is written into a table that outlives everybody.
 * Before it acknowledges a consumer notes what it is about to do, afterwards that
 * it has done it; of one that is killed in between, either may be true. Judged:
 *
 *   every value was acknowledged once or is in the dead letters once, and not both;
 *   a dead letter says how often it was delivered, which is as often as it may be;
 *   nothing is out at the end: no delivery, no block, nobody who lingers.
 *
 * XI_SEED=n repeats a schedule; XI_TEST_LONG makes it a minute.
 */
#include "channel/ack.h"
#include "harness.h"

#define PRODUCERS 2
#define CONSUMERS 3
#define VALUES (1u << 19) /* of one producer */
#define RATE 20000        /* values a second of one producer */
#define MOST 6            /* deliveries */
#define TIMEOUT (20 * MS)
#define KILL_EVERY (50 * MS)

struct fate {
    _Atomic uint8_t acked, lettered, unsure;
};
static struct shared {
    event_word event; /* when drained or ready changes */
    _Atomic bool stop, drained;
    _Atomic uint64_t sent[PRODUCERS], got;
    _Atomic int ready, producing;
    _Atomic uint64_t doing[CONSUMERS]; /* 1 + the value that is just being acknowledged */
    _Atomic uint64_t stale, nacked, late, dead;
    struct fate fate[PRODUCERS][VALUES];
} * S;

static uint64_t seed;
static bool kill_brokers;
static const char *name;

/* A call that may give up because no broker is there just then: nothing has happened, and it is made again. */
#define surely(call)                                                                                                   \
    do {                                                                                                               \
        int64_t begun_ = now_ns(), result_;                                                                                \
        while ((result_ = (call)) == XI_E_BROKER && kill_brokers)                                                          \
            expect(now_ns() - begun_ < STUCK, "no broker to be had: %s", xi_error_text((int)result_));                 \
        must(result_);                                                                                                   \
    } while (0)

static xi_interp *join(const char *who) {
    xi_interp *me = NULL;
    xi_join_opts opts = {.name = who};
    surely(xi_join(&opts, &me));
    return me;
}

static xi_channel *open_work(xi_interp *me, uint32_t flags) {
    xi_channel *ch = NULL;
    xi_group_opts group = {
        .flags = XI_GROUP_ACK, .window = 64, .max_deliveries = MOST, .timeout_ns = TIMEOUT, .dead = "dead"};
    xi_open_opts opts = {.mode = XI_BROADCAST, .flags = flags, .group = "workers", .group_opts = &group};
    if (flags == XI_OPEN_SEND) opts.group = NULL, opts.group_opts = NULL;
    surely(xi_open(me, name, &opts, &ch));
    return ch;
}

/* ------------------------------------------------------------------ producers */

static bool none_out(xi_interp *me) {
    xi_loan loan;
    xi_stats stats;
    surely(xi_loan_get(me, 8, &loan));
    xi_loan_drop(&loan);
    xi_interp_stats(me, &stats);
    return stats.blocks == 0;
}

static void produce(void *argument) {
    static uint64_t buffer[4096];
    uint64_t p = (uintptr_t)argument, random = seed + p + 1;
    xi_interp *me = join("producer");
    xi_channel *ch = open_work(me, XI_OPEN_SEND);
    int64_t begun = now_ns();
    for (uint64_t n = 0; !atomic_load(&S->stop) && n < VALUES;) {
        if (n > (uint64_t)((now_ns() - begun) / (SECOND / RATE))) {
            rest(MS / 10); /* its rate */
            continue;
        }
        uint64_t r = random64(&random);
        size_t padding = r % 5 == 0 ? 4200 + (r >> 16) % 20000 : (r >> 16) % 100;
        size_t size = encode_padded(buffer, sizeof buffer, (int64_t)(p << 32 | n), padding);
        surely(xi_send(ch, buffer, size, STUCK));
        atomic_store(&S->sent[p], ++n);
    }
    atomic_fetch_sub(&S->producing, 1);
    await_event(&S->event, atomic_load(&S->drained), "the channel was not drained");
    await(none_out(me), "blocks of a producer did not come back");
    leave_with(me, ch);
}

/* ------------------------------------------------------------------ consumers */

static uint64_t value_in(const void *data, size_t size) {
    xi_cursor c, children;
    xi_value v;
    int64_t number = 0;
    xi_cursor_init(&c, data, size);
    expect(xi_next(&c, &v) == 1 && v.tag == XI_TUPLE, "what came is no tuple");
    must(xi_enter(&v, &children));
    expect(xi_next(&children, &v) == 1, "an empty tuple");
    must(xi_get_int(&v, &number));
    expect(xi_next(&children, &v) == 1 && v.tag == XI_BYTES, "no padding");
    for (size_t i = 0; i < v.length; i++)
        expect(((const uint8_t *)v.data)[i] == (uint8_t)number, "a byte of value %llx is wrong: its block was used again",
               (unsigned long long)number);
    expect((uint64_t)number >> 32 < PRODUCERS && (uint32_t)number < VALUES, "value %llx was never sent",
           (unsigned long long)number);
    return (uint64_t)number;
}

static struct fate *fate_of(uint64_t value) { return &S->fate[value >> 32][(uint32_t)value]; }

static void acknowledge(int number, xi_msg *m, uint64_t value) {
    atomic_store(&S->doing[number], value + 1);
    int rc = xi_ack(m);
    if (rc == XI_E_STALE) atomic_fetch_add(&S->stale, 1);
    else must(rc);
    if (rc == 0) atomic_fetch_add(&fate_of(value)->acked, 1);
    atomic_store(&S->doing[number], 0);
    xi_msg_release(m);
}

static void use(int number, xi_msg *m, uint64_t *random) {
    uint64_t value = value_in(m->data, m->size);
    expect(xi_msg_deliveries(m) >= 1 && xi_msg_deliveries(m) <= MOST, "value %llx was delivered %u times",
           (unsigned long long)value, xi_msg_deliveries(m));
    int rc = 0;
    /* Some nobody can use; of the others some are not used the first time. */
    switch ((uint32_t)value % 97 == 13 ? 0 : random64(random) % 100) {
    case 0: rc = xi_nack(m, 0); break;
    case 1: rc = xi_nack(m, 3 * MS); break;
    case 2: xi_msg_release(m); return;
    case 3:
        atomic_fetch_add(&S->late, 1);
        rest(TIMEOUT + 5 * MS); /* and then acknowledges what may be another's by now, and reads it on */
        expect(value_in(m->data, m->size) == value, "a value changed while it was read");
        acknowledge(number, m, value);
        return;
    case 4: rc = xi_extend(m, 0); /* fall through */
    default: acknowledge(number, m, value); return;
    }
    if (rc == 0) atomic_fetch_add(&S->nacked, 1);
    else if (rc != XI_E_STALE) must(rc);
    xi_msg_release(m);
}

static void consume(void *argument) {
    int number = (int)(intptr_t)argument;
    uint64_t random = (uint64_t)now_ns() ^ (uint64_t)getpid() << 32;
    xi_msg m[4] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    xi_interp *me = join("consumer");
    xi_channel *ch = open_work(me, XI_OPEN_RECV);
    for (;;) {
        int64_t n = xi_recv_many(ch, m, 1 + random64(&random) % 4, STUCK);
        if (n == XI_E_CLOSED) break;
        must(n);
        atomic_fetch_add(&S->got, (uint64_t)n);
        for (int64_t i = 0; i < n; i++) use(number, &m[i], &random);
    }
    leave_with(me, ch);
}

/* -------------------------------------------------------------------- letters */

static const char *text_of(const xi_value *v, char text[64]) {
    must(xi_to_utf8(v, text, 64, false));
    return text;
}

static void read_letter(const xi_msg *m) {
    xi_cursor c, children;
    xi_value v, value = {.tag = 0};
    char text[64];
    int64_t deliveries = 0;
    must(xi_validate(m->data, m->size));
    xi_cursor_init(&c, m->data, m->size);
    expect(xi_next(&c, &v) == 1 && v.tag == XI_DICT && v.count == 5, "a dead letter is no dict of five");
    must(xi_enter(&v, &children));
    for (int i = 0; i < 5; i++) {
        expect(xi_next(&children, &v) == 1 && xi_next(&children, &value) == 1, "a dead letter ends early");
        if (strcmp(text_of(&v, text), "deliveries") == 0) must(xi_get_int(&value, &deliveries));
    }
    expect(strcmp(text, "value") == 0, "the last key is %s", text);
    expect(deliveries == MOST, "a dead letter was delivered %lld times", (long long)deliveries);
    atomic_fetch_add(&fate_of(value_in((const uint8_t *)value.data - 16, value.size))->lettered, 1);
    atomic_fetch_add(&S->dead, 1);
}

/* Keeps both channels, takes the dead letters, closes the work, and sees that nothing is left of it. */
static void keep(void *argument) {
    const struct gate *gates = argument;
    xi_msg m = XI_MSG_INIT;
    xi_interp *me = join("keeper");
    xi_channel *work = open_work(me, XI_OPEN_RECV), *close_it = open_work(me, XI_OPEN_SEND), *letters = NULL;
    xi_open_opts opts = {.flags = XI_OPEN_RECV};
    surely(xi_open(me, "dead", &opts, &letters));
    atomic_store(&S->ready, 1);
    announce(&S->event);
    while (atomic_load(&S->producing) > 0)
        if (xi_recv(letters, &m, 10 * MS) == 0) read_letter(&m);
    must(xi_close(close_it));
    gate_pass(&gates[0]);
    while (xi_recv(letters, &m, XI_TRY) == 0) read_letter(&m);
    xi_msg_release(&m);
    struct xi_group *g = work->group;
    expect(xi_load_full(&g->head_seq) == xi_load_full(&g->next_seq), "deliveries are out");
    expect(xi_load_full(&g->head) == xi_load_full(&work->chan->tail), "values are left");
    expect(xi_load_full(&g->corrupt) == 0, "%llu records were corrupt", (unsigned long long)xi_load_full(&g->corrupt));
    for (uint64_t i = 0; i < work->ack->window; i++)
        expect(xi_load_full(&XI_ACKS_LINGERS(work->ack->acks, work->ack->window)[i].holder) == 0, "somebody lingers");
    expect(xi_load_full(&g->dead) >= atomic_load(&S->dead), "the group counted %llu dead letters, there are %llu",
           (unsigned long long)xi_load_full(&g->dead), (unsigned long long)atomic_load(&S->dead));
    atomic_store(&S->drained, true);
    announce(&S->event);
    must(xi_channel_free(letters));
    must(xi_channel_free(work));
    leave_with(me, close_it);
}

/* ------------------------------------------------------------------ the killer */

static void kill_broker(void) {
    pid_t pid = serving_broker();
    if (pid > 0) (void)kill(pid, SIGKILL);
}

static pid_t consumers[CONSUMERS];

static void start(int number) { consumers[number] = spawn(consume, (void *)(intptr_t)number); }

/* What it was about to do when it was killed may be done or not. */
static void kill_consumer(int number) {
    must_sys(kill(consumers[number], SIGKILL));
    reap_signalled(consumers[number], SIGKILL, "a consumer");
    uint64_t doing = atomic_exchange(&S->doing[number], 0);
    if (doing) atomic_store(&fate_of(doing - 1)->unsure, 1);
    start(number);
}

static uint32_t kill_for(int64_t duration, uint64_t *random) {
    int64_t end = now_ns() + duration, since = now_ns();
    uint64_t before = 0;
    uint32_t kills = 0;
    while (now_ns() < end) {
        rest(KILL_EVERY);
        uint64_t got = atomic_load(&S->got);
        if (got != before) since = now_ns();
        before = got;
        expect(now_ns() - since < STUCK, "nothing was received for %lld s", (long long)(STUCK / SECOND));
        kill_consumer((int)(random64(random) % CONSUMERS));
        kills++;
        if (kill_brokers && kills % 16 == 0) kill_broker();
    }
    return kills;
}

static void judge(void) {
    uint64_t unsure = 0;
    for (uint64_t p = 0; p < PRODUCERS; p++)
        for (uint64_t n = 0; n < atomic_load(&S->sent[p]); n++) {
            struct fate *f = &S->fate[p][n];
            unsigned done = f->acked + f->lettered;
            expect(done <= 1, "value %llu of producer %llu was acknowledged %u times, and %u times a dead letter",
                   (unsigned long long)n, (unsigned long long)p, f->acked, f->lettered);
            expect(done == 1 || f->unsure, "value %llu of producer %llu is lost", (unsigned long long)n,
                   (unsigned long long)p);
            unsure += done == 0;
        }
    printf("%-20s %llu unsure\n", name, (unsigned long long)unsure);
}

static void play(const char *scene, bool brokers, int64_t duration) {
    struct gate gates[1] = {gate_new()};
    uint64_t random = seed;
    pid_t producers[PRODUCERS], keeper;
    name = scene;
    kill_brokers = brokers;
    S = shared_memory(sizeof *S);
    S->producing = PRODUCERS;
    keeper = spawn(keep, gates);
    await_event(&S->event, atomic_load(&S->ready), "the keeper does not come");
    for (uintptr_t p = 0; p < PRODUCERS; p++) producers[p] = spawn(produce, (void *)p);
    for (int c = 0; c < CONSUMERS; c++) start(c);
    uint32_t kills = kill_for(duration, &random);
    atomic_store(&S->stop, true);
    for (int c = 0; c < CONSUMERS; c++) reap_ok(consumers[c], "a consumer");
    gate_lift(&gates[0], 1);
    reap_ok(keeper, "the keeper");
    for (int p = 0; p < PRODUCERS; p++) reap_ok(producers[p], "a producer");
    judge();
    printf("%-20s %llu sent, %llu deliveries, %u killed, %llu stale, %llu late, %llu dead letters\n", name,
           (unsigned long long)(S->sent[0] + S->sent[1]), (unsigned long long)S->got, kills, (unsigned long long)S->stale,
           (unsigned long long)S->late, (unsigned long long)S->dead);
    fflush(stdout);
    expect(S->dead > 0 && S->stale > 0 && S->nacked > 0, "this run tested too little");
    munmap(S, sizeof *S);
    close(gates[0].fd[0]);
    close(gates[0].fd[1]);
}

int main(void) {
    const char *text = getenv("XI_SEED");
    seed = text ? strtoull(text, NULL, 0) : (uint64_t)now_ns() ^ (uint64_t)getpid();
    if (seed == 0) seed = 1;
    printf("XI_SEED=%llu\n", (unsigned long long)seed);
    int64_t duration = getenv("XI_TEST_LONG") ? 60 * SECOND : 3 * SECOND;
    play("work", false, duration);
    play("work, no broker", true, duration / 2);
    return 0;
}
