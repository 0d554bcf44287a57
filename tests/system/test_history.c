/* SPDX-License-Identifier: MIT */
/*
 * Randomized runs, judged by the checker of histories: what a run does (modes,
 * groups, processes and threads, sizes, batches, timeouts, capacities, kills,
 * when the channel is closed) is drawn from a seed, every call is recorded, and
 * afterwards the promises of the library have to explain the history.
 *
 *     XI_TEST_SEED=n   repeats one run (what it does; who is faster is not repeated)
 *     XI_TEST_LONG=1   minutes instead of seconds
 *
 * The parent never joins: it forks processes, kills and replaces them where the
 * run wants it, and judges. One of the processes, the keeper, holds the channel
 * from before the first value to the last, and closes it. The others have one to
 * three workers each, a thread for each: producers and consumers. A worker that
 * is killed with its process is replaced by another actor with the same role.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "harness.h"
#include "history.h"

#define PROCESSES 8
#define WORKERS 24
#define SERVED 32 /* groups that one consumer receives for, at most */
#define NAMED 64
#define ACTORS 512u
#define EVENTS (1u << 17)
#define BATCH 16
#define HOLD 3 /* messages that a consumer keeps, in the order in which they came */
#define STUCK (40 * SECOND)
#define PATIENCE (800 * MS) /* sleepers look by themselves after a second */
#define LARGE ((size_t)200000)

/* ------------------------------------------------------------------ what a run is */

struct worker {
    bool producer;
    uint32_t process;
    uint32_t actor;  /* of its present life */
    uint32_t served; /* of a consumer: named groups, from `first` on; 0: the default one, or one of its own */
    uint32_t first;
    uint32_t group; /* in the history, where `served` is 0 */
};

struct plan {
    uint64_t seed;
    uint32_t mode, named, processes, workers;
    uint64_t capacity, values; /* `values`: of all producers together, about */
    int64_t spin_ns;
    uint32_t batch;         /* values that one call sends or receives, at most */
    uint32_t blocks, large; /* of 256 values how many go through the arena, and how many of those are large */
    uint32_t rests;         /* of 256 calls how many are followed by a rest */
    bool one_interp;        /* the threads of a process are one interpreter */
    bool groups_first;      /* all groups are there before the first value */
    bool close_early;       /* while producers send */
    bool kill;
    bool patient;  /* nobody but who serves several groups looks by itself: a wake that is lost is missed */
    bool lockstep; /* nobody sends before all that was sent is received: every wake is needed */
    struct worker worker[WORKERS];
};

static struct plan plan;
static struct history *H;
static uint32_t channel, named_group[NAMED];

static struct shared {
    _Atomic bool go, close, finish;
    _Atomic bool kept, closed, over;           /* the keeper has got so far */
    _Atomic uint64_t sent, accepted, received; /* values: tried, sent, received by anybody */
    _Atomic bool joined[WORKERS];              /* this consumer has joined its groups */
    _Atomic bool finished[WORKERS];            /* what this worker had to do is done */
} * S;

static uint64_t draw(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1du;
}
static uint32_t below(uint64_t *state, uint32_t n) { return (uint32_t)((draw(state) >> 33) % n); }
static bool one_in(uint64_t *state, uint32_t n) { return below(state, n) == 0; }

static void rest(int64_t ns) {
    struct timespec t = {ns / SECOND, ns % SECOND};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) continue;
}

/* Gives every named group to a consumer, and to some groups several. */
static void draw_consumers(uint64_t *r, uint32_t consumers) {
    bool own = plan.mode == XI_BROADCAST && (plan.named == 0 || one_in(r, 3));
    bool spare = plan.mode == XI_QUEUE || own; /* somebody has to receive for the group that has no name */
    uint32_t serving = plan.named ? consumers - spare : 0;
    uint32_t each = serving ? (plan.named + serving - 1) / serving : 0, next = 0;
    if (each > SERVED) each = SERVED;
    for (uint32_t i = 0; i < consumers; i++) {
        struct worker *w = &plan.worker[plan.workers++];
        *w = (struct worker){.process = below(r, plan.processes)};
        if (i >= serving) continue;
        w->first = next % plan.named;
        w->served = w->first + each > plan.named ? plan.named - w->first : each;
        next = w->first + w->served;
    }
}

static uint32_t draw_named(uint64_t *r) {
    if (plan.mode == XI_QUEUE) return one_in(r, 5) ? 1 + below(r, 3) : 0;
    if (one_in(r, 4)) return 0;
    return 1 + below(r, one_in(r, 3) ? NAMED - 8 : 6); /* with room for some that are a consumer's own */
}

static void draw_plan(uint64_t seed) {
    uint64_t r = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 8; i++) (void)draw(&r);
    plan = (struct plan){.seed = seed};
    plan.mode = one_in(&r, 2) ? XI_QUEUE : XI_BROADCAST;
    uint32_t producers = 2 + below(&r, 7), consumers = 2 + below(&r, 7);
    plan.named = draw_named(&r);
    plan.processes = 2 + below(&r, PROCESSES - 1);
    plan.capacity = XI_CAPACITY_MIN << below(&r, 9);
    plan.spin_ns = one_in(&r, 2) ? -1 : 0;
    plan.batch = one_in(&r, 2) ? 1 : 2 + below(&r, BATCH - 1);
    plan.blocks = one_in(&r, 3) ? 0 : one_in(&r, 4) ? 256 : below(&r, 64);
    plan.large = below(&r, 20);
    plan.rests = one_in(&r, 2) ? 0 : below(&r, 64);
    plan.one_interp = one_in(&r, 2);
    plan.groups_first = !one_in(&r, 3);
    plan.close_early = one_in(&r, 5);
    plan.kill = one_in(&r, 4);
    plan.patient = one_in(&r, 3);
    plan.values = 12000 / (1 + plan.named / 4) + 500;
    if (plan.mode == XI_QUEUE && plan.named == 0 && !plan.kill && one_in(&r, 2)) {
        plan.lockstep = plan.patient = true;
        plan.values = 800;
        plan.rests = 0;
    }
    draw_consumers(&r, consumers);
    for (uint32_t i = 0; i < producers; i++)
        plan.worker[plan.workers++] = (struct worker){.producer = true, .process = below(&r, plan.processes)};
}

/* ------------------------------------------------------------------------ values */

static void fill_padding(uint8_t *p, size_t n, uint64_t id) { memset(p, (int)(id * 37 + 11) & 0xff, n); }

static size_t encode(void *buffer, size_t capacity, uint64_t id, size_t padding) {
    xi_builder b;
    void *where = NULL;
    xi_builder_init(&b, buffer, capacity, 0);
    xi_begin(&b, XI_TUPLE, 2);
    xi_put_int(&b, (int64_t)id);
    xi_put_bytes_space(&b, 0, padding, &where);
    if (where) fill_padding(where, padding, id);
    xi_end(&b);
    int64_t size = xi_builder_finish(&b);
    must(size);
    return (size_t)size;
}

/* The id of a value, each byte of which has been looked at. */
static uint64_t decode(const void *data, size_t size) {
    xi_cursor c, children;
    xi_value v;
    int64_t id = 0;
    xi_cursor_init(&c, data, size);
    expect(xi_next(&c, &v) == 1 && v.tag == XI_TUPLE, "what came is no tuple");
    must(xi_enter(&v, &children));
    expect(xi_next(&children, &v) == 1, "an empty tuple");
    must(xi_get_int(&v, &id));
    expect(xi_next(&children, &v) == 1 && v.tag == XI_BYTES, "no padding");
    const uint8_t *p = v.data;
    uint8_t should = (uint8_t)((uint64_t)id * 37 + 11);
    for (size_t i = 0; i < v.length; i++)
        expect(p[i] == should, "byte %zu of %zu of value %u:%llu is %02x, not %02x", i, v.length, H_ACTOR(id),
               (unsigned long long)H_NUMBER(id), p[i], should);
    return (uint64_t)id;
}

static size_t draw_padding(uint64_t *r) {
    if (below(r, 256) < plan.blocks)
        return below(r, 256) < plan.large ? LARGE / 2 + below(r, LARGE / 2) : 4200 + below(r, 9000);
    return below(r, one_in(r, 8) ? 400 : 48);
}

/* ----------------------------------------------------------------------- workers */

/* What a thread has while it works. */
struct work {
    struct worker *w;
    uint32_t number, actor;
    uint64_t random, values;
    xi_interp *me;
    xi_channel *handle[SERVED];
    uint32_t group[SERVED]; /* in the history */
    uint32_t handles;
    xi_msg held[HOLD][BATCH];
    uint64_t held_id[HOLD][BATCH];
    uint32_t held_count[HOLD], turn;
    uint8_t *buffer[BATCH];
};

static xi_interp *join(const char *name) {
    xi_interp *me = NULL;
    xi_join_opts opts = {.name = name, .spin_ns = plan.spin_ns};
    must(xi_join(&opts, &me));
    return me;
}

static const char *group_name(char out[16], uint32_t named) {
    snprintf(out, 16, "g%u", named);
    return out;
}

static xi_channel *open_handle(xi_interp *me, uint32_t flags, const char *group) {
    xi_open_opts opts = {.mode = plan.mode, .flags = flags, .capacity = plan.capacity, .group = group};
    return open_with(me, "history", &opts);
}

/* Opens a handle that receives for the group of the history. */
static xi_channel *open_for(xi_interp *me, uint32_t actor, uint32_t group, const char *name) {
    uint32_t e =
        h_begin(H, actor, (struct h_event){.kind = H_JOIN, .channel = (uint8_t)channel, .group = (uint16_t)group});
    xi_channel *ch = open_handle(me, XI_OPEN_RECV, name);
    h_end(H, actor, e, 0);
    return ch;
}

static int64_t draw_timeout(uint64_t *r) {
    if (plan.patient) return XI_FOREVER;
    switch (below(r, 4)) {
    case 0: return XI_TRY;
    case 1: return 1 + below(r, 3000000);
    default: return XI_FOREVER;
    }
}

static void maybe_rest(struct work *k) {
    if (below(&k->random, 256) >= plan.rests) return;
    if (one_in(&k->random, 2))
        sched_yield();
    else
        rest(1000 + below(&k->random, 400000));
}

/* ---- producers */

static uint32_t begin_send(struct work *k, uint64_t id, int64_t timeout) {
    return h_begin(
        H, k->actor,
        (struct h_event){
            .kind = H_SEND, .channel = (uint8_t)channel, .value = id, .timeout = timeout, .group = H_NO_GROUP});
}

/* Anything but these is a failure of the run. */
static bool sending_goes_on(int64_t rc) {
    if (rc < 0 && rc != XI_E_AGAIN && rc != XI_E_TIMEOUT && rc != XI_E_CLOSED)
        fail("a send returned %s: %s", xi_error_name((int)rc), xi_error_text((int)rc));
    return rc != XI_E_CLOSED;
}

static bool send_one(struct work *k, int64_t timeout) {
    uint64_t id = H_ID(k->actor, ++k->values);
    size_t padding = draw_padding(&k->random);
    int rc;
    if (one_in(&k->random, 8)) {
        xi_loan loan;
        must(xi_loan_get(k->me, padding + 128, &loan));
        size_t size = encode(loan.data, loan.size, id, padding);
        xi_send_opts opts = {.timeout = timeout};
        uint32_t e = begin_send(k, id, timeout);
        rc = xi_send_loan(k->handle[0], &loan, size, &opts);
        h_end(H, k->actor, e, rc);
        xi_loan_drop(&loan);
    } else {
        size_t size = encode(k->buffer[0], LARGE + 256, id, padding);
        uint32_t e = begin_send(k, id, timeout);
        rc = xi_send(k->handle[0], k->buffer[0], size, timeout);
        h_end(H, k->actor, e, rc);
    }
    if (rc == 0) atomic_fetch_add(&S->accepted, 1);
    return sending_goes_on(rc);
}

static bool send_batch(struct work *k, uint32_t n, int64_t timeout) {
    const void *values[BATCH];
    size_t sizes[BATCH];
    uint32_t events[BATCH];
    for (uint32_t i = 0; i < n; i++) {
        sizes[i] = encode(k->buffer[i], LARGE + 256, H_ID(k->actor, k->values + i + 1), draw_padding(&k->random));
        values[i] = k->buffer[i];
    }
    for (uint32_t i = 0; i < n; i++) events[i] = begin_send(k, H_ID(k->actor, ++k->values), timeout);
    int64_t rc = xi_send_many(k->handle[0], values, sizes, n, timeout);
    for (uint32_t i = 0; i < n; i++) h_end(H, k->actor, events[i], i < rc ? 0 : rc < 0 ? (int)rc : XI_E_AGAIN);
    if (rc > 0) atomic_fetch_add(&S->accepted, (uint64_t)rc);
    return sending_goes_on(rc);
}

/* Waits until all that was sent is received. Producers who see that at once go on together. */
static void wait_for_received(void) {
    while (atomic_load(&S->received) < atomic_load(&S->accepted) && !atomic_load(&S->close)) sched_yield();
}

static void produce(struct work *k) {
    k->handle[k->handles++] = open_handle(k->me, XI_OPEN_SEND, NULL);
    for (uint32_t i = 0; i < plan.batch; i++) expect((k->buffer[i] = malloc(LARGE + 256)) != NULL, "no memory");
    while (!atomic_load(&S->go)) rest(MS / 10);
    bool goes_on = true;
    while (goes_on && atomic_load(&S->sent) < plan.values && h_has_room(H, k->actor, BATCH)) {
        uint32_t n = 1 + below(&k->random, plan.batch);
        int64_t timeout = draw_timeout(&k->random);
        goes_on = n == 1 ? send_one(k, timeout) : send_batch(k, n, timeout);
        atomic_fetch_add(&S->sent, n);
        maybe_rest(k);
        if (plan.lockstep) wait_for_received();
    }
    for (uint32_t i = 0; i < plan.batch; i++) free(k->buffer[i]);
}

/* ---- consumers */

static void let_go(struct work *k, uint32_t turn) {
    for (uint32_t i = 0; i < k->held_count[turn]; i++) {
        xi_msg *m = &k->held[turn][i];
        expect(!xi_msg_borrowed(m) || decode(m->data, m->size) == k->held_id[turn][i], "a borrowed value changed");
        xi_msg_release(m);
    }
    k->held_count[turn] = 0;
}

/* Receives once through handle h. False: it is closed and drained. */
static bool receive(struct work *k, uint32_t h, uint32_t most, int64_t timeout) {
    uint32_t turn = k->turn++ % HOLD, counts[BATCH] = {0};
    let_go(k, turn);
    uint32_t e = h_begin(H, k->actor,
                         (struct h_event){.kind = H_RECEIVE,
                                          .channel = (uint8_t)channel,
                                          .may_take = most,
                                          .group = (uint16_t)k->group[h],
                                          .timeout = timeout});
    int64_t n = most == 1 ? xi_recv(k->handle[h], k->held[turn], timeout)
                          : xi_recv_many(k->handle[h], k->held[turn], most, timeout);
    int64_t end = h_ended(H, k->actor);
    if (n < 0) {
        h_end(H, k->actor, e, (int)n);
        if (n != XI_E_AGAIN && n != XI_E_TIMEOUT && n != XI_E_CLOSED)
            fail("a receive returned %s: %s", xi_error_name((int)n), xi_error_text((int)n));
        return n != XI_E_CLOSED;
    }
    k->held_count[turn] = most == 1 ? 1 : (uint32_t)n;
    for (uint32_t i = 0; i < k->held_count[turn]; i++)
        k->held_id[turn][i] = decode(k->held[turn][i].data, k->held[turn][i].size);
    h_took(H, k->actor, e, end, k->held_id[turn], counts, k->held_count[turn]);
    atomic_fetch_add(&S->received, k->held_count[turn]);
    return true;
}

static void open_groups(struct work *k) {
    char name[16];
    for (uint32_t i = 0; i < k->w->served; i++) {
        uint32_t named = k->w->first + i;
        k->group[k->handles] = named_group[named];
        k->handle[k->handles++] = open_for(k->me, k->actor, named_group[named], group_name(name, named));
    }
    if (k->handles) return;
    k->group[0] = k->w->group;
    k->handle[k->handles++] = open_for(k->me, k->actor, k->w->group, NULL);
}

/* Receives for all its groups until each is drained. One that has several never waits long for one of them. */
static void consume(struct work *k) {
    bool over[SERVED] = {false};
    uint32_t left;
    for (int i = 0; i < HOLD; i++)
        for (int j = 0; j < BATCH; j++) k->held[i][j] = (xi_msg)XI_MSG_INIT;
    if (!plan.groups_first) rest(below(&k->random, 5000000));
    open_groups(k);
    atomic_store(&S->joined[k->number], true);
    for (left = k->handles; left;) {
        uint32_t h = below(&k->random, k->handles);
        if (over[h]) continue;
        int64_t timeout = left > 1 ? below(&k->random, 200000) : draw_timeout(&k->random);
        if (timeout == XI_TRY && !h_has_room(H, k->actor, EVENTS / 2)) timeout = 10 * MS;
        over[h] = !receive(k, h, 1 + below(&k->random, plan.batch), timeout);
        left -= over[h];
        maybe_rest(k);
    }
    for (uint32_t i = 0; i < HOLD; i++) let_go(k, i);
}

static xi_interp *shared_interp;

static void *work(void *argument) {
    struct work *k = calloc(1, sizeof *k);
    expect(k != NULL, "no memory");
    k->number = *(uint32_t *)argument;
    k->w = &plan.worker[k->number];
    k->actor = k->w->actor;
    k->random = plan.seed ^ (k->actor + 1) * 0x9e3779b97f4a7c15u;
    k->me = plan.one_interp ? shared_interp : join(k->w->producer ? "producer" : "consumer");
    if (k->w->producer)
        produce(k);
    else
        consume(k);
    atomic_store(&S->finished[k->number], true);
    for (uint32_t i = 0; i < k->handles; i++) must(xi_channel_free(k->handle[i]));
    if (!plan.one_interp) must(xi_leave(k->me));
    free(k);
    return NULL;
}

/* One process: those of its workers that have not finished in an earlier life. */
static void run_process(uint32_t process) {
    pthread_t threads[WORKERS];
    uint32_t numbers[WORKERS], n = 0;
    if (plan.one_interp) shared_interp = join("workers");
    for (uint32_t i = 0; i < plan.workers; i++) {
        if (plan.worker[i].process != process || atomic_load(&S->finished[i])) continue;
        numbers[n] = i;
        int err = pthread_create(&threads[n], NULL, work, &numbers[n]);
        expect(err == 0, "pthread_create: %s", strerror(err));
        n++;
    }
    for (uint32_t i = 0; i < n; i++) pthread_join(threads[i], NULL);
    if (plan.one_interp) must(xi_leave(shared_interp));
    exit(0);
}

/* -------------------------------------------------------------------- the keeper */

#define await(condition, ...)                                                                                          \
    do {                                                                                                               \
        int64_t begun_ = now_ns();                                                                                     \
        while (!(condition)) {                                                                                         \
            expect(now_ns() - begun_ < STUCK, __VA_ARGS__);                                                            \
            rest(MS);                                                                                                  \
        }                                                                                                              \
    } while (0)

static void keep(uint32_t actor) {
    char name[16];
    xi_interp *me = join("keeper");
    xi_channel *ch = open_handle(me, XI_OPEN_SEND, NULL);
    for (uint32_t i = 0; plan.groups_first && i < plan.named; i++)
        must(xi_channel_free(open_for(me, actor, named_group[i], group_name(name, i))));
    atomic_store(&S->kept, true);
    await(atomic_load(&S->close), "the parent has gone");
    uint32_t e = h_begin(H, actor, (struct h_event){.kind = H_CLOSE, .channel = (uint8_t)channel, .group = H_NO_GROUP});
    must(xi_close(ch));
    h_end(H, actor, e, 0);
    atomic_store(&S->closed, true);
    await(atomic_load(&S->finish), "the parent has gone");
    must(xi_channel_free(ch));
    must(xi_leave(me));
    exit(0);
}

/* -------------------------------------------------------------------- the parent */

static struct {
    pid_t pid[PROCESSES], keeper;
    uint32_t actors; /* given out */
    uint32_t kills;
    int64_t begun, last_look, longest_gap;
} R;

static uint32_t new_actor(void) {
    expect(R.actors < ACTORS, "more actors than the history has room for");
    return R.actors++;
}

static bool works_in(uint32_t i, uint32_t process) {
    return plan.worker[i].process == process && !atomic_load(&S->finished[i]);
}

/* Each worker of the process that has something to do becomes a new actor; with a group of its own, a new group. */
static void start(uint32_t process) {
    char name[16];
    for (uint32_t i = 0; i < plan.workers; i++) {
        struct worker *w = &plan.worker[i];
        if (!works_in(i, process)) continue;
        w->actor = new_actor();
        if (w->producer || w->served || plan.mode == XI_QUEUE) continue;
        snprintf(name, sizeof name, "own%u", w->actor);
        w->group = h_add_group(H, channel, name);
    }
    fflush(NULL);
    R.pid[process] = fork();
    must_sys(R.pid[process]);
    if (R.pid[process] == 0) run_process(process);
}

static void kill_and_replace(uint32_t process) {
    uint32_t actors[WORKERS], n = 0;
    int status;
    for (uint32_t i = 0; i < plan.workers; i++)
        if (plan.worker[i].process == process) actors[n++] = plan.worker[i].actor;
    for (uint32_t i = 0; i < n; i++) h_kill_begin(H, actors[i]);
    must_sys(kill(R.pid[process], SIGKILL));
    status = reap(R.pid[process]);
    for (uint32_t i = 0; i < n; i++) h_kill_end(H, actors[i]);
    if (WIFEXITED(status) && WEXITSTATUS(status)) fail("a process ended with status %d by itself", WEXITSTATUS(status));
    R.kills++;
    start(process);
}

/* What those do that still have to come to an end: for when they do not. */
static void tell_who_is_stuck(void) {
    for (uint32_t a = 0; a < R.actors; a++) {
        uint32_t n = atomic_load(&H->actor[a].count);
        if (H->actor[a].kill_end || n == 0) continue;
        const struct h_event *e = &h_events(H, a)[n - 1];
        if (e->end != H_OPEN) continue;
        fprintf(stderr, "actor %u is in call %u, kind %u, group %s, timeout %lld, since %.3f s\n", a, n - 1, e->kind,
                e->group < H->groups ? H->group[e->group].name : "-", (long long)e->timeout,
                (double)(now_ns() - e->begin) / 1e9);
    }
}

/* A child that ended by itself in the middle has said why. */
static void look_after(void) {
    int64_t now = now_ns();
    if (now - R.last_look > R.longest_gap) R.longest_gap = now - R.last_look;
    R.last_look = now;
    for (uint32_t i = 0; i < plan.processes; i++) {
        int status;
        if (R.pid[i] == 0 || waitpid(R.pid[i], &status, WNOHANG) != R.pid[i]) continue;
        expect(WIFEXITED(status) && WEXITSTATUS(status) == 0,
               "process %u ended with wait status %#x; XI_TEST_SEED=%llu", i, status, (unsigned long long)plan.seed);
        R.pid[i] = 0;
    }
    if (now - R.begun < STUCK) return;
    tell_who_is_stuck();
    fail("the run did not come to an end; XI_TEST_SEED=%llu", (unsigned long long)plan.seed);
}

static bool all_finished(bool producers) {
    for (uint32_t i = 0; i < plan.workers; i++)
        if ((plan.worker[i].producer || !producers) && !atomic_load(&S->finished[i])) return false;
    return true;
}

/* Producers begin when all consumers are there, or as the first one is. */
static bool enough_joined(void) {
    uint32_t joined = 0, consumers = 0;
    for (uint32_t i = 0; i < plan.workers; i++) {
        consumers += !plan.worker[i].producer;
        joined += atomic_load(&S->joined[i]);
    }
    return joined == consumers || (joined && !plan.groups_first);
}

static bool all_ended(void) {
    for (uint32_t i = 0; i < plan.processes; i++)
        if (R.pid[i]) return false;
    return true;
}

static void play(uint64_t *r) {
    int64_t close_at = plan.close_early ? now_ns() + below(r, 100000000) : INT64_MAX, kill_at = now_ns() + 20 * MS;
    R.last_look = now_ns();
    while (!all_ended()) {
        look_after();
        if (enough_joined()) atomic_store(&S->go, true);
        if (!atomic_load(&S->close) && (all_finished(true) || now_ns() > close_at)) atomic_store(&S->close, true);
        if (plan.kill && now_ns() > kill_at && R.actors + 2 * WORKERS < ACTORS) {
            uint32_t process = below(r, plan.processes);
            if (R.pid[process] && !all_finished(false)) kill_and_replace(process);
            kill_at = now_ns() + MS + below(r, 40000000);
        }
        rest(MS);
    }
}

static void prepare(void) {
    char name[16];
    memset(&R, 0, sizeof R);
    S = shared_memory(sizeof *S);
    H = h_new(ACTORS, EVENTS);
    channel = h_add_channel(H, "history");
    uint32_t default_group = h_add_group(H, channel, "default");
    H->group[default_group].from_start = plan.mode == XI_QUEUE;
    for (uint32_t i = 0; i < plan.named; i++) named_group[i] = h_add_group(H, channel, group_name(name, i));
    for (uint32_t i = 0; i < plan.workers; i++) plan.worker[i].group = default_group;
    R.begun = now_ns();
}

static void describe(const struct h_report *report) {
    printf("XI_TEST_SEED=%llu: %s, %u named groups, %u workers in %u processes, %llu KiB, batch %u%s%s%s%s%s%s: %llu "
           "values, "
           "%llu events, %u kills, %.2f s\n",
           (unsigned long long)plan.seed, plan.mode == XI_QUEUE ? "queue" : "broadcast", plan.named, plan.workers,
           plan.processes, (unsigned long long)plan.capacity / 1024, plan.batch,
           plan.one_interp ? ", threads share an interpreter" : "", plan.spin_ns < 0 ? ", no spinning" : "",
           plan.groups_first ? "" : ", late groups", plan.close_early ? ", closed early" : "",
           plan.lockstep  ? ", lockstep"
           : plan.patient ? ", patient"
                          : "",
           plan.kill ? ", killed" : "", (unsigned long long)report->values, (unsigned long long)report->events, R.kills,
           (double)(now_ns() - R.begun) / 1e9);
}

static void judge(void) {
    static struct h_report report;
    /* Who looks every millisecond and found itself stopped for so long cannot tell a lost wake from a busy machine. */
    H->patience = R.longest_gap < 100 * MS ? PATIENCE : 0;
    h_check(H, &report);
    describe(&report);
    fflush(stdout);
    if (report.count == 0) return;
    fprintf(stderr, "%llu violations:\n%sXI_TEST_SEED=%llu repeats the run\n", (unsigned long long)report.count,
            report.text, (unsigned long long)plan.seed);
    fail("the history is not one that the library may make");
}

static void run(uint64_t seed) {
    uint64_t r = seed ^ 0x5bd1e995;
    draw_plan(seed);
    prepare();
    uint32_t keeper = new_actor();
    fflush(NULL);
    R.keeper = fork();
    must_sys(R.keeper);
    if (R.keeper == 0) keep(keeper);
    await(atomic_load(&S->kept), "the keeper does not come");
    for (uint32_t i = 0; i < plan.processes; i++) start(i);
    play(&r);
    atomic_store(&S->finish, true);
    reap_ok(R.keeper, "the keeper");
    judge();
    h_free(H);
    munmap(S, sizeof *S);
}

int main(void) {
    const char *text = getenv("XI_TEST_SEED"), *many = getenv("XI_TEST_LONG");
    if (text) {
        run(strtoull(text, NULL, 0));
        return 0;
    }
    uint64_t first = ((uint64_t)now_ns() ^ (uint64_t)getpid() << 32) % 1000000000u + 1, runs = 0;
    int64_t until = now_ns() + (many ? 240 : 20) * SECOND;
    do run(first + runs++);
    while (now_ns() < until);
    printf("%llu runs, each as it may be\n", (unsigned long long)runs);
    return 0;
}
