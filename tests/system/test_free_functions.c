/* SPDX-License-Identifier: MIT */
/*
 * The free function of each of 100,000 values runs exactly once, in the
 * process that sent it: on a queue, where one group consumes, and on a
 * broadcast with five; while half-way a consumer is killed with a value in its
 * hands, and another of its group goes on.
 */
#include "harness.h"

#define VALUES 100000
#define LARGE_EVERY 64
#define LARGE_BYTES 5000
#define GROUPS_MAX 5

static pid_t owner;
static uint8_t runs[VALUES];
static int64_t total, foreign;

static void count_run(void *context, uint64_t argument) {
    expect(context == runs, "the context of the free function is another");
    expect(argument < VALUES, "a free function with an argument that nobody gave: %llu", (unsigned long long)argument);
    if (getpid() != owner) foreign++;
    expect(runs[argument] == 0, "the free function of value %llu runs a second time", (unsigned long long)argument);
    runs[argument] = 1;
    total++;
}

struct consumer {
    uint32_t mode;
    int group;
    int64_t kill_after;       /* kills itself with this many received, the last still borrowed; 0: never */
    const struct gate *ready; /* lifted when the channel is open */
    const struct gate *after; /* starts when whoever holds the other end has died; NULL: at once */
};

static xi_channel *open_as(xi_interp *me, uint32_t mode, int group, uint32_t flags) {
    char name[16];
    snprintf(name, sizeof name, "g%d", group);
    return open_with(me, "freed", &(xi_open_opts){.mode = mode, .flags = flags, .group = group < 0 ? NULL : name});
}

static void consume(void *argument) {
    const struct consumer *c = argument;
    xi_interp *me = join_as("consumer", 0);
    xi_channel *ch = open_as(me, c->mode, c->mode == XI_QUEUE ? -1 : c->group, XI_OPEN_RECV);
    if (c->after) close(c->after->fd[1]); /* it must be the killed one alone who holds it */
    gate_lift(c->ready, 1);
    if (c->after) gate_pass(c->after);
    xi_msg m = XI_MSG_INIT;
    int64_t got = 0;
    int rc;
    while ((rc = xi_recv(ch, &m, XI_FOREVER)) == 0)
        if (++got == c->kill_after) kill(getpid(), SIGKILL);
    expect(rc == XI_E_CLOSED, "receiving ended with %s: %s", xi_error_name(rc), xi_error_text(rc));
    xi_msg_release(&m);
    leave_with(me, ch);
}

static void send_all(xi_channel *ch, uint32_t index) {
    static uint64_t buffer[LARGE_BYTES / 8 + 16];
    for (int64_t i = 0; i < VALUES; i++) {
        size_t size = encode_padded(buffer, sizeof buffer, i, i % LARGE_EVERY == 0 ? LARGE_BYTES : 8);
        xi_send_opts opts = {.timeout = 30 * SECOND, .free_index = index, .free_argument = (uint64_t)i};
        must(xi_send_ex(ch, buffer, size, &opts));
    }
}

/* Waits in a call of the library, which runs free functions that fall due, until all have run. */
static void wait_for_all(xi_interp *me) {
    xi_channel *nothing = open_queue(me, "nothing");
    xi_msg m = XI_MSG_INIT;
    int64_t deadline = now_ns() + 30 * SECOND;
    while (total < VALUES && now_ns() < deadline) must_fail(XI_E_TIMEOUT, xi_recv(nothing, &m, 100 * MS));
    expect(total == VALUES, "only %lld of %d free functions have run, 30 s after the last value was sent",
           (long long)total, VALUES);
    must(xi_free_run(me));
    expect(total == VALUES && foreign == 0, "%lld runs, %lld in another process", (long long)total, (long long)foreign);
    must(xi_channel_free(nothing));
}

static void run(uint32_t mode, int groups) {
    struct gate ready = gate_new(), death = gate_new();
    pid_t children[GROUPS_MAX + 1];
    int n = 0;
    memset(runs, 0, sizeof runs);
    total = foreign = 0;
    owner = getpid();
    for (int g = 0; g < groups; g++) {
        struct consumer c = {mode, g, g == 0 ? VALUES / 2 : 0, &ready, NULL};
        if (g == 0) { /* the one that dies, and the one that takes over */
            children[n++] = spawn(consume, &c);
            struct consumer next = {mode, g, 0, &ready, &death};
            children[n++] = spawn(consume, &next);
            close(death.fd[1]);
        } else {
            children[n++] = spawn(consume, &c);
        }
    }
    for (int i = 0; i < n; i++) gate_pass(&ready);
    xi_interp *me = join_as("owner", 0);
    uint32_t index = 0;
    must(xi_free_register(me, "count_run", count_run, runs, &index));
    xi_channel *ch = open_as(me, mode, -1, XI_OPEN_SEND);
    send_all(ch, index);
    must(xi_close(ch));
    reap_signalled(children[0], SIGKILL, "the consumer that kills itself");
    for (int i = 1; i < n; i++) reap_ok(children[i], "a consumer");
    wait_for_all(me);
    leave_with(me, ch);
    close(ready.fd[0]), close(ready.fd[1]), close(death.fd[0]);
    printf("%d group(s): %d free functions, each once, in the owner\n", groups, VALUES);
}

int main(void) {
    run(XI_QUEUE, 1);
    run(XI_BROADCAST, GROUPS_MAX);
    return 0;
}
