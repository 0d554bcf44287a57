/* SPDX-License-Identifier: MIT */
/*
 * Processes as threads: each thread is an interpreter of its own, so that a
 * thread sanitizer (which sees nothing across processes, nor across two
 * mappings) can watch the whole protocol, with the memory mapped once
 * (XI_ONE_MAPPING). Under every other build it is a test like any other: each
 * value reaches each group exactly once, in the order of its producer.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "harness.h"

#define PRODUCERS 2
#define CONSUMERS 2 /* of each group */
#define GROUPS 2
#define VALUES 3000 /* of each producer */
#define LARGE_EVERY 16

struct scene {
    const char *channel;
    uint32_t mode;
    int groups;
    uint64_t capacity;
    uint32_t join_flags;
    bool batches;
    pthread_barrier_t opened;  /* all have the channel open */
    pthread_barrier_t sent;    /* producers and the closer: everything is sent */
    pthread_barrier_t drained; /* the same: everything is received */
    _Atomic int64_t freed;
    /* consumer c of group g is the only writer of seen[g][c] */
    uint8_t seen[GROUPS][CONSUMERS][PRODUCERS][VALUES];
};

struct role {
    struct scene *scene;
    int number, group;
};

static xi_channel *open_group(xi_interp *me, const struct scene *s, int group, uint32_t flags) {
    char name[16];
    snprintf(name, sizeof name, "g%d", group);
    xi_open_opts opts = {.mode = s->mode, .flags = flags, .capacity = s->capacity};
    if (group >= 0 && s->mode == XI_BROADCAST) opts.group = name;
    return open_with(me, s->channel, &opts);
}

static void count_free(void *context, uint64_t argument) {
    (void)argument;
    atomic_fetch_add_explicit(&((struct scene *)context)->freed, 1, memory_order_relaxed);
}

static void *produce(void *argument) {
    struct role *r = argument;
    uint64_t buffer[700];
    uint32_t index = 0;
    xi_interp *me = join_as("producer", r->scene->join_flags);
    must(xi_free_register(me, "count", count_free, r->scene, &index));
    xi_channel *ch = open_group(me, r->scene, -1, XI_OPEN_SEND);
    pthread_barrier_wait(&r->scene->opened);
    int64_t sent_with_free = 0;
    for (int i = 0; i < VALUES; i++) {
        int64_t number = (int64_t)i * PRODUCERS + r->number;
        bool large = i % LARGE_EVERY == 0;
        size_t size = encode_padded(buffer, sizeof buffer, number, large ? 5000 : (size_t)(i % 5) * 8);
        xi_send_opts opts = {.timeout = 60 * SECOND, .free_index = large ? index : 0, .free_argument = (uint64_t)i};
        must(xi_send_ex(ch, buffer, size, &opts));
        sent_with_free += large;
    }
    pthread_barrier_wait(&r->scene->sent);
    pthread_barrier_wait(&r->scene->drained);
    int64_t deadline = now_ns() + 30 * SECOND;
    while (atomic_load(&r->scene->freed) < sent_with_free * PRODUCERS && now_ns() < deadline) {
        must(xi_free_run(me));
        sched_yield();
    }
    leave_with(me, ch);
    return NULL;
}

static void note(struct role *r, int64_t last[PRODUCERS], const xi_msg *m) {
    int64_t number = message_int(m);
    int producer = (int)(number % PRODUCERS), i = (int)(number / PRODUCERS);
    expect(number >= 0 && i < VALUES, "a number that nobody sent: %lld", (long long)number);
    expect(i > last[producer], "producer %d's value %d came after its %lld", producer, i, (long long)last[producer]);
    last[producer] = i;
    r->scene->seen[r->group][r->number][producer][i]++;
}

static void *consume(void *argument) {
    struct role *r = argument;
    xi_msg m[8];
    int64_t last[PRODUCERS], n;
    for (int i = 0; i < 8; i++) m[i] = (xi_msg)XI_MSG_INIT;
    for (int i = 0; i < PRODUCERS; i++) last[i] = -1;
    xi_interp *me = join_as("consumer", r->scene->join_flags);
    xi_channel *ch = open_group(me, r->scene, r->group, XI_OPEN_RECV);
    pthread_barrier_wait(&r->scene->opened);
    for (;;) {
        n = r->scene->batches ? xi_recv_many(ch, m, 8, 60 * SECOND) : xi_recv(ch, m, 60 * SECOND);
        if (n < 0) break;
        for (int64_t i = 0; i < (r->scene->batches ? n : 1); i++) note(r, last, &m[i]);
    }
    expect(n == XI_E_CLOSED, "receiving ended with %s: %s", xi_error_name((int)n), xi_error_text((int)n));
    for (int i = 0; i < 8; i++) xi_msg_release(&m[i]);
    leave_with(me, ch);
    return NULL;
}

static void check_seen(const struct scene *s) {
    for (int g = 0; g < s->groups; g++)
        for (int p = 0; p < PRODUCERS; p++)
            for (int i = 0; i < VALUES; i++) {
                int times = 0;
                for (int c = 0; c < CONSUMERS; c++) times += s->seen[g][c][p][i];
                expect(times == 1, "%s: value %d of producer %d reached group %d %d times", s->channel, i, p, g, times);
            }
    int64_t due = (int64_t)PRODUCERS * ((VALUES + LARGE_EVERY - 1) / LARGE_EVERY);
    expect(s->freed == due, "%s: %lld of %lld free functions ran", s->channel, (long long)s->freed, (long long)due);
}

static pthread_t start(void *(*body)(void *), struct role *role) {
    pthread_t thread;
    int err = pthread_create(&thread, NULL, body, role);
    expect(err == 0, "pthread_create: %s", strerror(err));
    return thread;
}

static void play(struct scene *s) {
    struct role roles[PRODUCERS + GROUPS * CONSUMERS];
    pthread_t producers[PRODUCERS], consumers[GROUPS * CONSUMERS];
    int n = s->groups * CONSUMERS;
    pthread_barrier_init(&s->opened, NULL, (unsigned)(PRODUCERS + n + 1));
    pthread_barrier_init(&s->sent, NULL, PRODUCERS + 1);
    pthread_barrier_init(&s->drained, NULL, PRODUCERS + 1);
    for (int i = 0; i < PRODUCERS; i++) {
        roles[i] = (struct role){s, i, -1};
        producers[i] = start(produce, &roles[i]);
    }
    for (int i = 0; i < n; i++) {
        roles[PRODUCERS + i] = (struct role){s, i % CONSUMERS, i / CONSUMERS};
        consumers[i] = start(consume, &roles[PRODUCERS + i]);
    }
    xi_interp *me = join_as("closer", 0);
    xi_channel *ch = open_group(me, s, -1, XI_OPEN_SEND);
    pthread_barrier_wait(&s->opened);
    pthread_barrier_wait(&s->sent);
    must(xi_close(ch));
    for (int i = 0; i < n; i++) pthread_join(consumers[i], NULL);
    pthread_barrier_wait(&s->drained);
    for (int i = 0; i < PRODUCERS; i++) pthread_join(producers[i], NULL);
    leave_with(me, ch);
    check_seen(s);
    printf("%s: each value once in each group, in order\n", s->channel);
}

/* Interpreters that come, say one thing and go, beside others that do the same. */
static void *come_and_go(void *argument) {
    struct role *r = argument;
    for (int i = 0; i < 20; i++) {
        xi_interp *me = join_as("visitor", 0);
        xi_channel *ch = open_queue(me, "visitors");
        must(xi_send_int(ch, i * 10 + r->number, 10 * SECOND));
        leave_with(me, ch);
    }
    return NULL;
}

static void visitors(void) {
    struct role roles[3];
    pthread_t threads[3];
    xi_msg m = XI_MSG_INIT;
    xi_interp *me = join_as("host", 0);
    xi_channel *ch = open_queue(me, "visitors");
    for (int i = 0; i < 3; i++) {
        roles[i] = (struct role){NULL, i, 0};
        threads[i] = start(come_and_go, &roles[i]);
    }
    for (int i = 0; i < 60; i++) must(xi_recv(ch, &m, 30 * SECOND));
    must_fail(XI_E_AGAIN, xi_recv(ch, &m, XI_TRY));
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    xi_msg_release(&m);
    leave_with(me, ch);
    printf("visitors: 60 came and went\n");
}

int main(void) {
    static struct scene scenes[] = {
        {.channel = "queue", .mode = XI_QUEUE, .groups = 1},
        {.channel = "tight queue, asleep",
         .mode = XI_QUEUE,
         .groups = 1,
         .capacity = XI_CAPACITY_MIN,
         .join_flags = XI_JOIN_NO_SPIN},
        {.channel = "broadcast", .mode = XI_BROADCAST, .groups = GROUPS},
        {.channel = "tight broadcast, asleep, batches",
         .mode = XI_BROADCAST,
         .groups = GROUPS,
         .capacity = XI_CAPACITY_MIN,
         .join_flags = XI_JOIN_NO_SPIN,
         .batches = true},
    };
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) play(&scenes[i]);
    visitors();
    return 0;
}
