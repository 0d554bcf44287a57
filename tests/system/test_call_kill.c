/* SPDX-License-Identifier: MIT */
/*
 * Calls whose servers are killed at random under load, and sometimes callers
 * and the broker. Each call ends with the reply to it or with an error that is
 * allowed; never with another's reply, never not at all. A request is served
 * once at most. Afterwards nothing is left: no blocks, no borrows, no lanes.
 *
 * XI_SEED=n repeats a schedule; XI_SECONDS=n makes it longer, XI_TEST_LONG too.
 */
#include <pthread.h>
#include <sched.h>

#include "harness.h"

#define CALLERS 2 /* processes */
#define THREADS 3 /* of each */
#define SERVERS 3
#define LIVES 4096          /* of callers, in one scene */
#define CALLS_MAX (1 << 16) /* of one thread of one life */
#define CHANNEL "service"

struct plan {
    const char *name;
    int64_t spin_ns;
    uint32_t blocks_in_16; /* requests and replies that are too large for the ring */
    bool kill_broker;
};
static const struct plan plans[] = {
    {"busy servers", 0, 4, false},
    {"sleepy servers", -1, 4, false},
    {"the broker killed too", -1, 1, true},
};
#define PLANS (sizeof plans / sizeof *plans)

enum outcome { REPLIED, DIED, NOBODY, TIMED_OUT, OUTCOMES };

static struct shared {
    _Atomic bool stop;
    _Atomic uint64_t ended[OUTCOMES], served, dropped, stale;
    _Atomic int64_t longest_died; /* ns from a call's beginning to its DIED */
    _Atomic uint8_t times[LIVES][THREADS][CALLS_MAX / 64]; /* each 64th request: how often it was served */
} * S;

static const struct plan *plan;
static uint64_t seed;

/* True if it is the broker that is not there, and may not be. */
static bool no_broker(int rc) { return rc == XI_E_BROKER && plan->kill_broker; }

static xi_interp *join(const char *name) {
    xi_interp *me = NULL;
    xi_join_opts opts = {.name = name, .spin_ns = plan->spin_ns};
    int rc;
    await(!no_broker(rc = xi_join(&opts, &me)), "no broker to be had: %s", xi_error_text(rc));
    must(rc);
    return me;
}

static xi_channel *open_service(xi_interp *me, uint32_t flags) {
    xi_open_opts opts = {.flags = flags};
    xi_channel *ch = NULL;
    int rc;
    await(!no_broker(rc = xi_open(me, CHANNEL, &opts, &ch)), "no broker to be had: %s", xi_error_text(rc));
    must(rc);
    return ch;
}

/* ---------------------------------------------------------------- the callers */

static int64_t id_of(uint32_t life, int thread, uint32_t n) { return (int64_t)life << 32 | (int64_t)thread << 24 | n; }
static size_t padding_of(uint64_t r) { return r % 16 < plan->blocks_in_16 ? 4200 + (r >> 8) % 20000 : (r >> 8) % 200; }

/* True if a message is what was sent as `id`, to its last byte. */
static bool is_whole(const xi_msg *m, int64_t id) {
    xi_cursor c, children;
    xi_value v;
    int64_t got = 0;
    xi_cursor_init(&c, m->data, m->size);
    if (xi_next(&c, &v) != 1 || xi_enter(&v, &children) != 0 || xi_next(&children, &v) != 1) return false;
    if (xi_get_int(&v, &got) != 0 || got != id || xi_next(&children, &v) != 1) return false;
    for (size_t i = 0; i < v.length; i++)
        if (((const uint8_t *)v.data)[i] != (uint8_t)id) return false;
    return true;
}

static void note_longest(_Atomic int64_t *longest, int64_t ns) {
    int64_t seen = atomic_load(longest);
    while (ns > seen && !atomic_compare_exchange_weak(longest, &seen, ns)) continue;
}

static void judge(int rc, int64_t id, const xi_msg *reply, int64_t took, bool in_a_hurry) {
    switch (rc) {
    case 0:
        expect(is_whole(reply, ~id), "the reply to %llx is another's, or not whole", (long long)id);
        atomic_fetch_add(&S->ended[REPLIED], 1);
        break;
    case XI_E_DIED:
        note_longest(&S->longest_died, took);
        atomic_fetch_add(&S->ended[DIED], 1);
        break;
    case XI_E_NO_CONSUMER: atomic_fetch_add(&S->ended[NOBODY], 1); break;
    case XI_E_TIMEOUT:
        expect(in_a_hurry, "a call hung for %lld s", (long long)(took / SECOND));
        atomic_fetch_add(&S->ended[TIMED_OUT], 1);
        break;
    default:
        expect(no_broker(rc), "a call ended with %s: %s", xi_error_name(rc), xi_error_text(rc));
        rest(MS);
    }
}

struct caller {
    uint32_t life;
    int thread;
    xi_channel *ch;
};

static void *call_on(void *argument) {
    const struct caller *c = argument;
    static _Thread_local uint64_t buffer[4096];
    uint64_t random = seed * 77777 + c->life * 31 + (uint64_t)c->thread + 1;
    xi_msg reply = XI_MSG_INIT;
    for (uint32_t n = 0; n < CALLS_MAX && !atomic_load(&S->stop); n++) {
        int64_t id = id_of(c->life, c->thread, n), begun = now_ns();
        bool in_a_hurry = random64(&random) % 64 == 0;
        size_t size = encode_padded(buffer, sizeof buffer, id, padding_of(random64(&random)));
        int rc = xi_call(c->ch, buffer, size, &reply, in_a_hurry ? (int64_t)(random64(&random) % 200000) + 1 : STUCK);
        judge(rc, id, &reply, now_ns() - begun, in_a_hurry);
        if (rc == XI_E_NO_CONSUMER) rest(MS);
    }
    xi_msg_release(&reply);
    return NULL;
}

static void nothing_is_out(xi_interp *me) {
    xi_stats stats;
    xi_loan loan;
    int64_t begun = now_ns();
    for (;;) {
        int rc = xi_loan_get(me, 8, &loan); /* makes the arena look at those that are out */
        if (rc == 0) xi_loan_drop(&loan);
        else expect(no_broker(rc), "%s", xi_error_text(rc));
        xi_interp_stats(me, &stats);
        if (stats.blocks == 0 && stats.borrows == 0) return;
        expect(now_ns() - begun < STUCK, "%llu blocks and %llu borrows did not come back",
               (unsigned long long)stats.blocks, (unsigned long long)stats.borrows);
        rest(MS);
    }
}

static void caller(uint32_t life) {
    pthread_t thread[THREADS];
    struct caller c[THREADS];
    xi_interp *me = join("caller");
    xi_channel *ch = open_service(me, XI_OPEN_SEND);
    for (int i = 0; i < THREADS; i++) {
        c[i] = (struct caller){life, i, ch};
        expect(pthread_create(&thread[i], NULL, call_on, &c[i]) == 0, "no thread");
    }
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    /* Requests that nobody took any more, and replies that came too late, are taken by the last server and by the end. */
    xi_channel *rest_ = open_service(me, XI_OPEN_RECV);
    xi_msg m = XI_MSG_INIT;
    while (xi_recv(rest_, &m, XI_TRY) == 0) continue;
    xi_msg_release(&m);
    must(xi_channel_free(rest_));
    must(xi_channel_free(ch));
    must(xi_leave(me));
}

/* ---------------------------------------------------------------- the servers */

#define HOLD 3 /* requests that a server has before it replies to the first */

static void serve_one(xi_msg *m, uint64_t *random) {
    static uint64_t buffer[4096];
    uint64_t r = random64(random);
    int64_t id = message_int(m);
    uint32_t life = (uint32_t)(id >> 32), thread = (uint32_t)(id >> 24) & 0xff, n = (uint32_t)id & 0xffffff;
    expect(xi_msg_is_call(m) && is_whole(m, id) && life < LIVES && thread < THREADS && n < CALLS_MAX,
           "a request that nobody made: %llx", (long long)id);
    if (n % 64 == 0)
        expect(atomic_fetch_add(&S->times[life][thread][n / 64], 1) == 0, "request %llx was served twice", (long long)id);
    if (r % 50 == 0) {
        atomic_fetch_add(&S->dropped, 1);
        xi_msg_release(m); /* never replied to */
        return;
    }
    if (r % 16 == 1) rest((int64_t)(r >> 8) % (2 * MS));
    size_t size = encode_padded(buffer, sizeof buffer, ~id, padding_of(random64(random)));
    int rc;
    await(!no_broker(rc = xi_reply(m, buffer, size, STUCK)), "no broker to be had: %s", xi_error_text(rc));
    if (rc == XI_E_STALE) {
        atomic_fetch_add(&S->stale, 1);
    } else {
        must(rc);
        atomic_fetch_add(&S->served, 1);
    }
    expect(is_whole(m, id), "a request changed after it was replied to");
    xi_msg_release(m);
}

static void server(uint64_t life) {
    uint64_t random = seed * 99991 + life + 1;
    xi_msg held[HOLD];
    for (int i = 0; i < HOLD; i++) held[i] = (xi_msg)XI_MSG_INIT;
    xi_interp *me = join("server");
    xi_channel *ch = open_service(me, XI_OPEN_RECV);
    for (;;) {
        int64_t n = 0;
        int rc = xi_recv(ch, &held[n], XI_FOREVER);
        if (rc == XI_E_CLOSED) break;
        if (no_broker(rc)) continue;
        must(rc);
        uint32_t some = (uint32_t)(random64(&random) % HOLD);
        for (n = 1; n <= some && n < HOLD && xi_recv(ch, &held[n], XI_TRY) == 0; n++) continue;
        while (n-- > 0) serve_one(&held[n], &random); /* the last first */
    }
    nothing_is_out(me);
    leave_with(me, ch);
}

/* ------------------------------------------------------------------ the killer */

struct child {
    pid_t pid;
    bool serves;
};

static uint32_t server_lives, caller_lives;

static void start(struct child *c) {
    uint32_t life = c->serves ? server_lives++ : caller_lives++;
    expect(caller_lives < LIVES, "more callers than the table holds");
    fflush(NULL);
    c->pid = fork();
    must_sys(c->pid);
    if (c->pid != 0) return;
    if (c->serves) server(life);
    else caller(life);
    _exit(0);
}

/* Takes note of what ended by itself: a caller that has made all its calls is followed by another. */
static void look_after(struct child *c, int status) {
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a %s ended with status %x", c->serves ? "server" : "caller",
           (unsigned)status);
    start(c);
}

static void kill_one(struct child *c) {
    int status;
    must_sys(kill(c->pid, SIGKILL));
    must_sys(waitpid(c->pid, &status, 0));
    expect(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0), "a %s ended with status %x",
           c->serves ? "server" : "caller", (unsigned)status);
    start(c);
}

static void keep(const struct gate *close_it, const struct gate *finish) {
    xi_interp *me = join("keeper");
    xi_channel *ch = open_service(me, XI_OPEN_SEND);
    gate_pass(close_it);
    must(xi_close(ch));
    gate_pass(finish);
    /* registry, the channel, its own two: no lane, no arena of the dead */
    int64_t begun = now_ns();
    xi_set *set;
    must(xi_set_new(me, &set));
    while (segments_of(test_ns(), false) > 4) {
        if (now_ns() - begun > STUCK) {
            (void)segments_of(test_ns(), true);
            fail("segments of the dead are still there");
        }
        /* Asleep in the library, so that it hears when a broker has died, and tells the next one what it has open. */
        int64_t rc = xi_set_wait(set, &(xi_event){0}, 1, MS);
        expect(rc == XI_E_TIMEOUT || no_broker((int)rc), "%s", xi_error_text((int)rc));
    }
    xi_set_free(set);
    leave_with(me, ch);
}

static void kill_at_random(struct child *children, int count, int64_t until) {
    uint64_t random = seed * 13 + 5;
    uint32_t kills = 0, broker_kills = 0;
    while (now_ns() < until) {
        rest((int64_t)(random64(&random) % 30) * MS);
        int which = (int)(random64(&random) % (uint64_t)count), status;
        for (int i = 0; i < count; i++)
            if (waitpid(children[i].pid, &status, WNOHANG) == children[i].pid) look_after(&children[i], status);
        if (!children[which].serves && random64(&random) % 8) continue; /* callers live longer */
        kill_one(&children[which]);
        kills++;
        if (plan->kill_broker && random64(&random) % 16 == 0) {
            pid_t pid = serving_broker();
            if (pid > 0 && kill(pid, SIGKILL) == 0) broker_kills++;
        }
    }
    printf("%s: %u killed, %u brokers; ", plan->name, kills, broker_kills);
}

static void play(void) {
    struct child children[SERVERS + CALLERS];
    struct gate close_it = gate_new(), finish = gate_new();
    const char *seconds = getenv("XI_SECONDS");
    int64_t for_ns = (seconds ? atoll(seconds) : getenv("XI_TEST_LONG") ? 30 : 2) * SECOND;
    S = shared_memory(sizeof *S);
    server_lives = caller_lives = 0;
    fflush(NULL);
    pid_t keeper = fork();
    must_sys(keeper);
    if (keeper == 0) {
        close(close_it.fd[1]);
        close(finish.fd[1]);
        keep(&close_it, &finish);
        _exit(0);
    }
    for (int i = 0; i < SERVERS + CALLERS; i++) {
        children[i].serves = i < SERVERS;
        start(&children[i]);
    }
    kill_at_random(children, SERVERS + CALLERS, now_ns() + for_ns);
    atomic_store(&S->stop, true);
    for (int i = SERVERS; i < SERVERS + CALLERS; i++) reap_ok(children[i].pid, "a caller");
    gate_lift(&close_it, 1);
    for (int i = 0; i < SERVERS; i++) reap_ok(children[i].pid, "a server");
    gate_lift(&finish, 1);
    reap_ok(keeper, "the keeper");
    printf("%llu replied, %llu died (%.1f ms at most), %llu nobody, %llu timed out; %llu dropped, %llu stale\n",
           (unsigned long long)S->ended[REPLIED], (unsigned long long)S->ended[DIED],
           (double)S->longest_died / (double)MS, (unsigned long long)S->ended[NOBODY],
           (unsigned long long)S->ended[TIMED_OUT], (unsigned long long)S->dropped, (unsigned long long)S->stale);
    fflush(stdout);
    expect(S->ended[REPLIED] > 100 && S->ended[DIED] > 0, "nothing happened");
    munmap(S, sizeof *S);
}

int main(void) {
    const char *text = getenv("XI_SEED");
    seed = text ? strtoull(text, NULL, 0) : (uint64_t)now_ns() % 1000000 + 1;
    printf("XI_SEED=%llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < PLANS; i++) {
        plan = &plans[i];
        play();
    }
    return 0;
}
