/* SPDX-License-Identifier: MIT */
/*
 * A thousand channels, consumers that wait on all of them by a set (one in
 * xi_set_wait(), one in poll(), one that adds and removes members all the time),
 * producers that are killed at random. Every value whose send returned is
 * received once, whoever waited how; nobody sleeps on.
 *
 * XI_SEED=n repeats a schedule; XI_SECONDS=n makes it longer, XI_TEST_LONG too.
 */

#include "harness.h"

#define CHANNELS 1000
#define PRODUCERS 3
#define CONSUMERS 3
#define LIVES 2048
#define VALUES 65536 /* of one life */

static struct shared {
    event_word event; /* when ready changes */
    _Atomic bool stop;
    _Atomic int ready;
    _Atomic uint64_t received, events, waits;
    _Atomic uint32_t begun[LIVES], sent[LIVES]; /* numbers from 1 */
    _Atomic uint8_t times[LIVES][VALUES];
} * S;

static uint64_t seed;

static void open_all(xi_interp *me, uint32_t flags, xi_channel *ch[CHANNELS]) {
    for (int i = 0; i < CHANNELS; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%d", i);
        ch[i] = open_with(me, name, &(xi_open_opts){.flags = flags, .capacity = XI_CAPACITY_MIN});
    }
}

/* ---------------------------------------------------------------- producers */

static void produce(uint32_t life) {
    static xi_channel *ch[CHANNELS];
    static uint64_t buffer[1024];
    uint64_t random = seed * 31 + life + 1;
    xi_interp *me = join_as("producer", life % 2 ? XI_JOIN_NO_SPIN : 0);
    open_all(me, XI_OPEN_SEND, ch);
    for (uint32_t n = 1; n < VALUES && !atomic_load(&S->stop); n++) {
        uint64_t r = random64(&random);
        size_t size = encode_padded(buffer, sizeof buffer, (int64_t)life << 32 | n, r % 32 == 0 ? 5000 : 16);
        atomic_store(&S->begun[life], n);
        must(xi_send(ch[(r >> 8) % 8 ? (r >> 16) % CHANNELS : life % CHANNELS], buffer, size, STUCK));
        atomic_store(&S->sent[life], n);
        if ((r >> 40) % 64 == 0) rest((int64_t)((r >> 48) % 8) * 100000); /* so that consumers fall asleep */
    }
    for (int i = 0; i < CHANNELS; i++) must(xi_channel_free(ch[i]));
    must(xi_leave(me));
}

/* ---------------------------------------------------------------- consumers */

static xi_set *set;
static xi_channel *mine[CHANNELS];
static bool in_set[CHANNELS];
static int closed;

static void note(const xi_msg *m) {
    int64_t v = message_int(m);
    uint32_t life = (uint32_t)(v >> 32), n = (uint32_t)v;
    expect(life < LIVES && n > 0 && n < VALUES && n <= atomic_load(&S->begun[life]), "nobody sent %llx", (long long)v);
    expect(atomic_fetch_add(&S->times[life][n], 1) == 0, "value %llx came twice", (long long)v);
    atomic_fetch_add(&S->received, 1);
}

/* A few of what is there: the rest is reported again. */
static void drain(xi_channel *ch) {
    static xi_msg m = XI_MSG_INIT;
    for (int i = 0; i < 4; i++) {
        int rc = xi_recv(ch, &m, XI_TRY);
        if (rc == XI_E_AGAIN || rc == XI_E_CLOSED) break; /* another consumer was faster */
        must(rc);
        note(&m);
    }
    xi_msg_release(&m);
}

static void handle(const xi_event *e) {
    expect(e->key < CHANNELS && e->channel == mine[e->key], "an event of a channel that is none of ours");
    if (e->ready & XI_READY_RECV) drain(e->channel);
    if (!(e->ready & XI_READY_CLOSED)) return;
    must(xi_set_remove(set, e->channel));
    in_set[e->key] = false;
    closed++;
}

static int64_t wait_somehow(int how, xi_event *events, size_t n) {
    if (how != 1) return xi_set_wait(set, events, n, STUCK);
    struct pollfd p = {.fd = xi_set_fd(set), .events = POLLIN};
    int64_t got = xi_set_wait(set, events, n, XI_TRY);
    if (got != XI_E_AGAIN) return got;
    int rc = poll(&p, 1, (int)(STUCK / MS));
    expect(rc == 1 || (rc < 0 && errno == EINTR), "poll gave %d", rc);
    return 0;
}

static void add_member(int i) {
    must(xi_set_add(set, mine[i], XI_READY_RECV, (uint64_t)i, i % 3));
    in_set[i] = true;
}

/* Takes one out, and puts it back later: what came meanwhile is reported then. */
static void shuffle(uint64_t *random) {
    static int out = -1;
    if (out >= 0) add_member(out);
    if (closed) { /* for good: nobody would wake this thread for one that is out */
        out = -1;
        return;
    }
    out = (int)(random64(random) % CHANNELS);
    if (!in_set[out]) {
        out = -1;
        return;
    }
    must(xi_set_remove(set, mine[out]));
    in_set[out] = false;
}

static void consume(int how) {
    xi_event events[32];
    uint64_t random = seed + (uint64_t)how + 1;
    xi_interp *me = join_as("consumer", how == 2 ? XI_JOIN_NO_SPIN : 0);
    open_all(me, XI_OPEN_RECV, mine);
    must(xi_set_new(me, &set));
    for (int i = 0; i < CHANNELS; i++) add_member(i);
    atomic_fetch_add(&S->ready, 1);
    announce(&S->event);
    while (closed < CHANNELS) {
        int64_t n = wait_somehow(how, events, how == 2 ? 1 : 32);
        must(n);
        atomic_fetch_add(&S->waits, 1);
        atomic_fetch_add(&S->events, (uint64_t)n);
        for (int64_t i = 0; i < n; i++) handle(&events[i]);
        if (how == 2) shuffle(&random);
    }
    xi_set_free(set);
    for (int i = 0; i < CHANNELS; i++) must(xi_channel_free(mine[i]));
    must(xi_leave(me));
}

/* ------------------------------------------------------------------ the killer */

static uint32_t lives;

static pid_t start_producer(void) {
    uint32_t life = lives++;
    expect(lives < LIVES, "more producers than the table holds");
    fflush(NULL);
    pid_t pid = fork();
    must_sys(pid);
    if (pid) return pid;
    produce(life);
    _exit(0);
}

static void consumer_body(void *argument) { consume((int)(intptr_t)argument); }

static void closer(void *argument) {
    static xi_channel *ch[CHANNELS];
    const struct gate *gate = argument;
    close(gate->fd[1]);
    xi_interp *me = join_as("closer", 0);
    open_all(me, XI_OPEN_SEND, ch);
    atomic_fetch_add(&S->ready, 1);
    announce(&S->event);
    gate_pass(gate);
    for (int i = 0; i < CHANNELS; i++) must(xi_close(ch[i]));
    for (int i = 0; i < CHANNELS; i++) must(xi_channel_free(ch[i]));
    must(xi_leave(me));
}

static uint32_t kill_some(pid_t producers[PRODUCERS], int64_t until) {
    uint64_t random = seed * 7 + 3;
    uint32_t kills = 0;
    while (now_ns() < until) {
        rest((int64_t)(100 + random64(&random) % 300) * MS);
        pid_t *victim = &producers[random64(&random) % PRODUCERS];
        int status;
        must_sys(kill(*victim, SIGKILL));
        must_sys(waitpid(*victim, &status, 0));
        expect(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "a producer ended with status %x", (unsigned)status);
        *victim = start_producer();
        kills++;
    }
    return kills;
}

static void check_all(void) {
    for (uint32_t life = 0; life < lives; life++) {
        uint32_t sent = atomic_load(&S->sent[life]), begun = atomic_load(&S->begun[life]);
        for (uint32_t n = 1; n <= sent; n++)
            expect(S->times[life][n] == 1, "value %u of life %u was received %u times", n, life, S->times[life][n]);
        expect(begun - sent <= 1, "a producer that began more than it sent");
    }
}

int main(void) {
    const char *text = getenv("XI_SEED"), *seconds = getenv("XI_SECONDS");
    int64_t for_ns = (seconds ? atoll(seconds) : getenv("XI_TEST_LONG") ? 30 : 2) * SECOND;
    pid_t consumers[CONSUMERS], producers[PRODUCERS];
    struct gate close_all = gate_new();
    seed = text ? strtoull(text, NULL, 0) : (uint64_t)now_ns() % 1000000 + 1;
    printf("XI_SEED=%llu\n", (unsigned long long)seed);
    S = shared_memory(sizeof *S);
    pid_t last = spawn(closer, &close_all);
    for (intptr_t i = 0; i < CONSUMERS; i++) consumers[i] = spawn(consumer_body, (void *)i);
    await_event(&S->event, atomic_load(&S->ready) == CONSUMERS + 1, "they did not get ready");
    for (int i = 0; i < PRODUCERS; i++) producers[i] = start_producer();
    uint32_t kills = kill_some(producers, now_ns() + for_ns);
    atomic_store(&S->stop, true);
    for (int i = 0; i < PRODUCERS; i++) reap_ok(producers[i], "a producer");
    gate_lift(&close_all, 1);
    reap_ok(last, "the closer");
    for (int i = 0; i < CONSUMERS; i++) reap_ok(consumers[i], "a consumer");
    check_all();
    printf("%u producers killed; %llu values through %d channels, %llu events in %llu waits\n", kills,
           (unsigned long long)S->received, CHANNELS, (unsigned long long)S->events, (unsigned long long)S->waits);
    expect(S->received > 1000, "nothing happened");
    return 0;
}
