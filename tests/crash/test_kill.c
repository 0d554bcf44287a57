/* SPDX-License-Identifier: MIT */
/*
 * kill -9 at random instructions, on real channels: producers and consumers are
 * killed and started again for some seconds, in some scenes the broker too, and
 * then every account must balance.
 *
 * A producer writes into a table that outlives it which value it is about to
 * send, and which it has sent. A consumer writes each value that it received
 * into a log that outlives it. Judged for each group of consumers:
 *
 *   every value whose send returned success is in the logs exactly once, but
 *     for at most as many as one receive hands out for each consumer killed
 *     (killed after the receive and before its note of it);
 *   none is there twice, and none that was not sent;
 *   each consumer saw the values of each producer in order;
 *   a listener with a group of its own saw, from its first value to its last,
 *     all of each producer;
 *   bytes of a value were right when it came and when it was given back.
 *
 * Afterwards the living producers' blocks have all come back, and the segments
 * of the dead are gone. Nobody may be stuck at any time.
 *
 * XI_SEED=n repeats a schedule of kills and sizes; XI_SECONDS=n makes it longer.
 */
#include "../system/harness.h"

#define PRODUCERS 3
#define CONSUMERS 5 /* of all groups */
#define LIVES 8192u /* of producers, in one scene */
#define LOG_MAX (1u << 23)
#define VALUES_MAX (LOG_MAX - LIVES) /* in one scene; then producers rest */
#define RATE 1000000u                /* values a second, so that there are some for the whole scene */
#define HOLD 4 /* messages that a consumer keeps at a time */
#define NEW_LIFE UINT64_MAX

struct group_plan {
    const char *name; /* NULL: the queue's, or one of the consumer's own */
    int consumers;
};

struct plan {
    const char *name;
    uint32_t mode;
    uint32_t blocks_in_16; /* how many of 16 values are too large for the ring */
    uint32_t batch;        /* values that one call sends or receives */
    bool kill_broker;
    int64_t spin_ns;
    struct group_plan groups[3];
};

static const struct plan plans[] = {
    {"a queue, inline values", XI_QUEUE, 0, 1, false, 0, {{NULL, 3}}},
    {"a queue, blocks", XI_QUEUE, 16, 1, false, -1, {{NULL, 3}}},
    {"a queue, batches", XI_QUEUE, 3, 16, false, 0, {{NULL, 3}}},
    {"a broadcast, inline values", XI_BROADCAST, 0, 1, false, -1, {{"a", 2}, {"b", 2}, {NULL, 1}}},
    {"a broadcast, mixed values", XI_BROADCAST, 8, 1, false, 0, {{"a", 2}, {"b", 2}, {NULL, 1}}},
    {"a queue, the broker killed too", XI_QUEUE, 6, 1, true, 0, {{NULL, 3}}},
};
#define PLANS (sizeof plans / sizeof *plans)

struct life { /* of a producer */
    _Atomic uint64_t begun, sent;
};
struct log {
    _Atomic uint64_t count;
    uint64_t value[LOG_MAX];
};
static struct shared {
    event_word event; /* when drained, resting or kept changes */
    _Atomic bool stop, drained;
    _Atomic uint64_t total;
    int64_t begun;
    _Atomic int resting, kept; /* processes that got so far */
    struct life life[LIVES];
    struct log log[CONSUMERS];
} * S;

static const struct plan *plan;
static uint64_t seed;

/* Joins and opens; again where the broker was killed while it was asked. */
static xi_interp *join(const char *name) {
    xi_interp *me = NULL;
    xi_join_opts opts = {.name = name, .spin_ns = plan->spin_ns};
    int rc;
    await((rc = xi_join(&opts, &me)) != XI_E_BROKER || !plan->kill_broker, "no broker to be had: %s",
          xi_error_text(rc));
    must(rc);
    return me;
}

static xi_channel *open_plan(xi_interp *me, uint32_t flags, const char *group) {
    xi_open_opts opts = {.mode = plan->mode, .flags = flags, .group = group};
    xi_channel *ch = NULL;
    int rc;
    await((rc = xi_open(me, plan->name, &opts, &ch)) != XI_E_BROKER || !plan->kill_broker, "no broker to be had: %s",
          xi_error_text(rc));
    must(rc);
    return ch;
}

/* ------------------------------------------------------------------ producers */

static size_t padding_of(uint64_t *random) {
    uint64_t r = random64(random);
    if (r % 16 < plan->blocks_in_16) return r >> 8 & 1 ? 4200 + (r >> 16) % 4000 : 4200 + (r >> 16) % 60000;
    return (r >> 16) % ((r >> 8) % 8 ? 64 : 900);
}

static uint64_t value_of(uint32_t life, uint64_t n) { return (uint64_t)life << 32 | n; }

/* A large value needs the broker now and then, for more arena. Where brokers are killed as fast as they come, a call
 * may give up; nothing was sent then. (A namespace that is gone would be something else.) */
static int64_t send_now(xi_channel *ch, const void *const *values, const size_t *sizes, uint32_t n) {
    int64_t rc;
    await((rc = n == 1 ? xi_send(ch, values[0], sizes[0], STUCK) : xi_send_many(ch, values, sizes, n, STUCK)) !=
                  XI_E_BROKER ||
              !plan->kill_broker || xi_status(xi_channel_interp(ch)) != 0,
          "no broker to be had: %s", xi_error_text((int)rc));
    must(rc);
    return n == 1 ? 1 : rc;
}

/* Sends `n` values in one call, as the plan wants. */
static void send_some(xi_channel *ch, uint32_t life, uint64_t first, uint32_t n, uint64_t *random) {
    static uint64_t buffers[16][8192 + 128];
    const void *values[16];
    size_t sizes[16];
    for (uint32_t i = 0; i < n; i++) {
        sizes[i] = encode_padded(buffers[i], sizeof buffers[i], (int64_t)value_of(life, first + i), padding_of(random));
        values[i] = buffers[i];
    }
    atomic_store(&S->life[life].begun, first + n - 1);
    for (uint32_t done = 0; done < n;) {
        done += (uint32_t)send_now(ch, values + done, sizes + done, n - done);
        atomic_store(&S->life[life].sent, first + done - 1);
    }
    atomic_fetch_add(&S->total, n);
}

/* True once every block has come back. A loan makes the arena look at those that are out. */
static bool none_out(xi_interp *me) {
    xi_loan loan;
    xi_stats stats;
    must(xi_loan_get(me, 8, &loan));
    xi_loan_drop(&loan);
    xi_interp_stats(me, &stats);
    return stats.blocks == 0;
}

static bool ahead_of_time(void) {
    uint64_t total = atomic_load(&S->total);
    return total > VALUES_MAX || total > (uint64_t)((now_ns() - S->begun) / (SECOND / RATE));
}

static void produce(uint32_t life) {
    uint64_t random = seed * 2654435761u + life + 1, n = 0;
    xi_interp *me = join("producer");
    xi_channel *ch = open_plan(me, XI_OPEN_SEND, NULL);
    while (!atomic_load(&S->stop)) {
        if (ahead_of_time()) {
            rest(MS / 10); /* its rate */
            continue;
        }
        uint32_t batch = plan->batch > 1 ? 1 + (uint32_t)(random64(&random) % plan->batch) : 1;
        send_some(ch, life, n + 1, batch, &random);
        n += batch;
    }
    atomic_fetch_add(&S->resting, 1);
    announce(&S->event);
    await_event(&S->event, atomic_load(&S->drained), "the channel was not drained");
    await(none_out(me), "blocks of a living producer did not come back");
    must(xi_channel_free(ch));
    must(xi_leave(me));
}

/* ------------------------------------------------------------------ consumers */

/* The value of a message, after looking at each of its bytes. */
static uint64_t checked_value(const xi_msg *m) {
    xi_cursor c, children;
    xi_value v;
    int64_t number = 0;
    xi_cursor_init(&c, m->data, m->size);
    expect(xi_next(&c, &v) == 1 && v.tag == XI_TUPLE, "what came is no tuple");
    must(xi_enter(&v, &children));
    expect(xi_next(&children, &v) == 1, "an empty tuple");
    must(xi_get_int(&v, &number));
    expect(xi_next(&children, &v) == 1 && v.tag == XI_BYTES, "no padding");
    const uint8_t *p = v.data;
    for (size_t i = 0; i < v.length; i++)
        expect(p[i] == (uint8_t)number, "byte %zu of value %llx is %02x: its block was used again too early", i,
               (unsigned long long)number, p[i]);
    return (uint64_t)number;
}

static void note(struct log *log, uint64_t value) {
    uint64_t count = atomic_load_explicit(&log->count, memory_order_relaxed);
    expect(count < LOG_MAX, "log is full");
    log->value[count] = value;
    atomic_store(&log->count, count + 1);
}

static void give_back(xi_msg *m, uint64_t value) {
    if (xi_msg_borrowed(m)) expect(checked_value(m) == value, "a borrowed value changed");
    xi_msg_release(m);
}

/* Receives until the channel is closed and drained, holding the latest messages for a while. */
static void consume(int number, const char *group) {
    static xi_msg held[HOLD][16];
    uint64_t values[HOLD][16] = {{0}};
    uint32_t counts[HOLD] = {0};
    for (int h = 0; h < HOLD; h++)
        for (int i = 0; i < 16; i++) held[h][i] = (xi_msg)XI_MSG_INIT;
    xi_interp *me = join("consumer");
    xi_channel *ch = open_plan(me, XI_OPEN_RECV, group);
    for (uint32_t turn = 0;; turn++) {
        uint32_t h = turn % HOLD;
        for (uint32_t i = 0; i < counts[h]; i++) give_back(&held[h][i], values[h][i]);
        counts[h] = 0;
        int64_t n =
            plan->batch > 1 ? xi_recv_many(ch, held[h], plan->batch, XI_FOREVER) : xi_recv(ch, held[h], XI_FOREVER);
        if (n == XI_E_CLOSED) break;
        must(n);
        counts[h] = plan->batch > 1 ? (uint32_t)n : 1;
        for (uint32_t i = 0; i < counts[h]; i++) note(&S->log[number], values[h][i] = checked_value(&held[h][i]));
    }
    for (int h = 0; h < HOLD; h++)
        for (uint32_t i = 0; i < counts[h]; i++) give_back(&held[h][i], values[h][i]);
    must(xi_channel_free(ch));
    must(xi_leave(me));
}

/* ------------------------------------------------------------------ the keeper */

/* Holds the channel from before the first to after the last, closes it, and sees that the dead left nothing. */
static void keep(const struct gate *close_it, const struct gate *finish) {
    xi_interp *me = join("keeper");
    xi_channel *ch = open_plan(me, XI_OPEN_SEND, NULL);
    for (int g = 0; g < 3; g++) { /* named groups are there before the first value */
        if (!plan->groups[g].name) continue;
        xi_channel *member = open_plan(me, XI_OPEN_RECV, plan->groups[g].name);
        must(xi_channel_free(member));
    }
    atomic_store(&S->kept, 1);
    announce(&S->event);
    gate_pass(close_it);
    must(xi_close(ch));
    gate_pass(finish);
    /* registry, the channel, its own two */
    await(segments_of(test_ns(), false) <= 4, "%d segments are there, those of the dead too", segments_of(test_ns(), true));
    must(xi_channel_free(ch));
    must(xi_leave(me));
}

/* ------------------------------------------------------------------ the killer */

struct child {
    pid_t pid;
    bool consumer;
    int number; /* of the consumer */
    const char *group;
};

static struct {
    struct child child[PRODUCERS + CONSUMERS];
    int count;
    uint32_t lives; /* of producers so far */
    uint32_t kills, broker_kills;
    uint32_t group_kills[CONSUMERS]; /* of each consumer */
} K;

static void start(struct child *c) {
    uint32_t life = K.lives;
    if (c->consumer)
        note(&S->log[c->number], NEW_LIFE);
    else
        expect(++K.lives < LIVES, "more producers than the table holds");
    fflush(NULL);
    c->pid = fork();
    must_sys(c->pid);
    if (c->pid != 0) return;
    if (c->consumer)
        consume(c->number, c->group);
    else
        produce(life);
    _exit(0);
}

static void start_all(void) {
    int number = 0;
    for (int i = 0; i < PRODUCERS; i++) K.child[K.count++] = (struct child){.consumer = false};
    for (int g = 0; g < 3; g++)
        for (int i = 0; i < plan->groups[g].consumers; i++)
            K.child[K.count++] = (struct child){.consumer = true, .number = number++, .group = plan->groups[g].name};
    for (int i = 0; i < K.count; i++) start(&K.child[i]);
}

/* Of a child that ended without being killed: it has said why. */
static void look_after(void) {
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    expect(pid <= 0, "process %d ended by itself with status %#x", (int)pid, status);
}

static void kill_broker(void) {
    pid_t pid = serving_broker();
    if (pid > 0 && kill(pid, SIGKILL) == 0) K.broker_kills++;
}

/* One or two at a time, the second perhaps while the first is being repaired. */
static void kill_some(uint64_t *random) {
    int n = 1 + (random64(random) % 4 == 0);
    for (int i = 0; i < n; i++) {
        struct child *c = &K.child[random64(random) % (uint64_t)K.count];
        if (i == 1) rest((int64_t)(random64(random) % 300000));
        must_sys(kill(c->pid, SIGKILL));
        reap_signalled(c->pid, SIGKILL, c->consumer ? "a consumer" : "a producer");
        K.kills++;
        if (c->consumer) K.group_kills[c->number]++;
        start(c);
    }
    if (plan->kill_broker && random64(random) % 16 == 0) kill_broker();
}

static uint64_t received(void) {
    uint64_t n = 0;
    for (int i = 0; i < CONSUMERS; i++) n += atomic_load(&S->log[i].count);
    return n;
}

/* Returns the longest time in which nobody received anything. */
static int64_t kill_for(int64_t duration, uint64_t *random) {
    int64_t end = now_ns() + duration, since = now_ns(), longest = 0;
    uint64_t before = received();
    while (now_ns() < end) {
        rest(MS + (int64_t)(random64(random) % (uint64_t)(30 * MS)));
        look_after();
        int64_t now = now_ns();
        if (received() != before) since = now;
        if (now - since > longest && atomic_load(&S->total) < VALUES_MAX) longest = now - since;
        expect(now - since < STUCK || atomic_load(&S->total) >= VALUES_MAX, "nothing was received for %lld s",
               (long long)(STUCK / SECOND));
        before = received();
        kill_some(random);
    }
    return longest;
}

/* ------------------------------------------------------------------- the judge */

static uint64_t limit_of(uint32_t life, bool attempted) {
    return atomic_load(attempted ? &S->life[life].begun : &S->life[life].sent);
}

static uint64_t life_in(uint64_t value) {
    uint64_t life = value >> 32;
    expect(life < K.lives && (uint32_t)value >= 1 && (uint32_t)value <= limit_of((uint32_t)life, true),
           "value %llx was received but never sent", (unsigned long long)value);
    return life;
}

/* Order, and for a group of its own that nothing is missing in between. */
static void judge_log(int consumer, bool own) {
    static uint32_t last[LIVES];
    const struct log *log = &S->log[consumer];
    memset(last, 0, sizeof last);
    for (uint64_t i = 0; i < log->count; i++) {
        uint64_t value = log->value[i];
        if (value == NEW_LIFE) {
            if (own) memset(last, 0, sizeof last);
            continue;
        }
        uint64_t life = life_in(value);
        expect((uint32_t)value > last[life], "consumer %d got value %llx after %x of the same producer", consumer,
               (unsigned long long)value, last[life]);
        expect(!own || last[life] == 0 || (uint32_t)value == last[life] + 1, "a listener got value %llx after %x",
               (unsigned long long)value, last[life]);
        last[life] = (uint32_t)value;
    }
}

/* Consumers first to first + n - 1 share one group. */
static void judge_group(int first, int n) {
    uint8_t *seen[LIVES] = {0};
    uint64_t missing = 0, allowed = 0;
    for (uint32_t life = 0; life < K.lives; life++) seen[life] = calloc(1, limit_of(life, true) + 1);
    for (int c = first; c < first + n; c++) {
        judge_log(c, false);
        allowed += (uint64_t)K.group_kills[c] * plan->batch;
        for (uint64_t i = 0; i < S->log[c].count; i++) {
            uint64_t value = S->log[c].value[i];
            if (value == NEW_LIFE) continue;
            expect(seen[life_in(value)][(uint32_t)value]++ == 0, "value %llx was received twice",
                   (unsigned long long)value);
        }
    }
    for (uint32_t life = 0; life < K.lives; life++) {
        for (uint64_t v = 1; v <= limit_of(life, false); v++) missing += !seen[life][v];
        free(seen[life]);
    }
    expect(missing <= allowed, "%llu values were lost; kills of consumers explain %llu at most",
           (unsigned long long)missing, (unsigned long long)allowed);
}

static void judge(void) {
    int first = 0;
    for (int g = 0; g < 3; g++) {
        int n = plan->groups[g].consumers;
        if (plan->mode == XI_BROADCAST && !plan->groups[g].name)
            for (int c = first; c < first + n; c++) judge_log(c, true);
        else if (n > 0)
            judge_group(first, n);
        first += n;
    }
}

/* ---------------------------------------------------------------------- a scene */

static void play(const struct plan *p, int64_t duration) {
    uint64_t random = seed ^ (uint64_t)(p - plans + 1) * 0x9e3779b97f4a7c15u;
    plan = p;
    memset(&K, 0, sizeof K);
    S = shared_memory(sizeof *S);
    struct gate close_it = gate_new(), finish = gate_new();
    fflush(NULL);
    pid_t keeper = fork();
    must_sys(keeper);
    if (keeper == 0) {
        keep(&close_it, &finish);
        _exit(0);
    }
    await_event(&S->event, atomic_load(&S->kept), "the keeper does not come");
    S->begun = now_ns();
    start_all();
    int64_t longest = kill_for(duration, &random);
    atomic_store(&S->stop, true);
    await_event(&S->event, atomic_load(&S->resting) == PRODUCERS, "producers are stuck");
    gate_lift(&close_it, 1);
    for (int i = 0; i < K.count; i++)
        if (K.child[i].consumer) reap_ok(K.child[i].pid, "a consumer");
    atomic_store(&S->drained, true);
    announce(&S->event);
    for (int i = 0; i < K.count; i++)
        if (!K.child[i].consumer) reap_ok(K.child[i].pid, "a producer");
    gate_lift(&finish, 1);
    reap_ok(keeper, "the keeper");
    judge();
    printf("%-32s %8llu sent, %4u killed, broker %2u, longest pause %4lld ms\n", p->name,
           (unsigned long long)atomic_load(&S->total), K.kills, K.broker_kills, (long long)(longest / MS));
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        close(close_it.fd[i]);
        close(finish.fd[i]);
    }
    munmap(S, sizeof *S);
}

int main(int argc, char **argv) {
    const char *text = getenv("XI_SEED"), *seconds = getenv("XI_SECONDS");
    seed = text ? strtoull(text, NULL, 0) : (uint64_t)now_ns() ^ (uint64_t)getpid();
    if (seed == 0) seed = 1;
    printf("XI_SEED=%llu\n", (unsigned long long)seed);
    int64_t duration = (seconds ? atoll(seconds) : 12) * SECOND / (int64_t)PLANS;
    if (argc > 1) {
        play(&plans[strtoul(argv[1], NULL, 0) % PLANS], duration * (int64_t)PLANS);
        return 0;
    }
    for (size_t i = 0; i < PLANS; i++) play(&plans[i], duration);
    return 0;
}
