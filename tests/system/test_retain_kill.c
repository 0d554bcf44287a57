/* SPDX-License-Identifier: MIT */
/*
 * Values that are kept, with producers that are killed at random: whoever joins
 * late, again and again, finds a run of values without a gap, each whole, and in
 * the end nothing is out. Half of the values lie in the producer's arena, which
 * outlives it.
 */
#include <stdatomic.h>

#include "harness.h"

#define KEEP 20
#define SECONDS (getenv("XI_TEST_LONG") ? 20 : 3)

static struct shared {
    _Atomic bool stop;
    _Atomic int64_t joins, values;
} * S;

static const xi_open_opts kept = {.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .retain = KEEP, .capacity = 16384};

/* Numbers go up over all producers: each goes on where it finds the channel. */
static void produce(void *argument) {
    (void)argument;
    static uint64_t buffer[1024];
    xi_interp *me = join_as("producer", 0);
    xi_channel *ch = open_with(me, "kept", &kept);
    for (;;) {
        xi_channel_info info;
        must(xi_channel_stat(ch, &info));
        int64_t number = (int64_t)info.sent + 1;
        size_t size = encode_padded(buffer, sizeof buffer, number, number % 2 ? 20 : 5000);
        must(xi_send(ch, buffer, size, XI_FOREVER));
    }
}

/* Joins, receives some, leaves: the first is any, and each after it the next. */
static void consume(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    xi_interp *me = join_as("late", 0);
    xi_msg m = XI_MSG_INIT;
    while (!atomic_load(&S->stop)) {
        xi_group_opts from = {.from = seed % 2 ? XI_FROM_OLDEST : XI_FROM_LAST, .last = seed % 2 ? 0 : 1 + seed % KEEP};
        xi_open_opts opts = {.mode = XI_BROADCAST, .flags = XI_OPEN_RECV, .retain = KEEP, .capacity = 16384, .group_opts = &from};
        xi_channel *ch = open_with(me, "kept", &opts);
        int64_t before = 0;
        for (int n = rand_r(&seed) % 60; n > 0 && xi_recv(ch, &m, 20 * MS) == 0; n--) {
            int64_t number = message_int(&m);
            size_t least = number % 2 ? 20 : 5000;
            expect(m.size > least, "value %lld has %zu bytes", (long long)number, m.size);
            must(xi_validate(m.data, m.size));
            expect(!before || number == before + 1, "%lld came after %lld", (long long)number, (long long)before);
            before = number;
            atomic_fetch_add(&S->values, 1);
        }
        xi_msg_release(&m);
        must(xi_channel_free(ch));
        atomic_fetch_add(&S->joins, 1);
        seed = (unsigned)rand_r(&seed);
    }
    must(xi_leave(me));
}

int main(void) {
    S = shared_memory(sizeof *S);
    pid_t consumers[3];
    for (int i = 0; i < 3; i++) consumers[i] = spawn(consume, (void *)(uintptr_t)(i + 7));
    int64_t begun = now_ns();
    unsigned seed = 1, killed = 0;
    while (now_ns() - begun < SECONDS * SECOND) {
        pid_t producer = spawn(produce, NULL);
        struct timespec t = {0, 20000000 + rand_r(&seed) % 60000000};
        nanosleep(&t, NULL);
        must_sys(kill(producer, SIGKILL));
        reap_signalled(producer, SIGKILL, "the producer");
        killed++;
    }
    atomic_store(&S->stop, true);
    for (int i = 0; i < 3; i++) reap_ok(consumers[i], "a consumer");
    xi_interp *me = join_as("last", 0);
    must(xi_remove(me, "kept"));
    must(xi_leave(me));
    printf("%u producers killed, %lld late joins, %lld values\n", killed, (long long)atomic_load(&S->joins),
           (long long)atomic_load(&S->values));
    expect(atomic_load(&S->joins) > 20 && atomic_load(&S->values) > 200, "hardly anything was received");
    return 0;
}
