/* SPDX-License-Identifier: MIT */
/*
 * Values pass while no broker exists: it is killed, nobody who is there may start
 * another, and a sender and a receiver go on with small values and with blocks of
 * the arena that is there. What needs a broker says that there is none. Then a
 * newcomer starts one, and all is as before: ids go on, what was open is declared
 * again, and the death that happened meanwhile is repaired.
 */
#include "harness.h"

#define VALUES 20000
#define BLOCK 6000

static struct shared {
    event_word event;
    _Atomic bool ready, over; /* the receiver has the first value; a broker is there again */
    _Atomic int64_t doomed_id;
} * S;

static uint64_t buffer[BLOCK / 8 + 64];

static xi_interp *join_without_start(const char *name) {
    xi_interp *me = NULL;
    xi_join_opts opts = {.name = name, .flags = XI_JOIN_NO_START, .spin_ns = -1};
    must(xi_join(&opts, &me));
    return me;
}

static void send_one(xi_channel *ch, int64_t number, size_t padding) {
    must(xi_send(ch, buffer, encode_padded(buffer, sizeof buffer, number, padding), STUCK));
}

static void receiver(void *started) {
    gate_pass(started);
    xi_msg m = XI_MSG_INIT;
    xi_interp *me = join_without_start("receiver");
    xi_channel *ch = open_with(me, "on", &(xi_open_opts){.flags = XI_OPEN_RECV});
    for (int64_t i = 0; i <= VALUES; i++) {
        must(xi_recv(ch, &m, STUCK));
        expect(message_int(&m) == i, "%lld came, not %lld", (long long)message_int(&m), (long long)i);
        if (i) continue;
        atomic_store(&S->ready, true); /* it was a block: the sender's arena is mapped here from now on */
        announce(&S->event);
    }
    xi_msg_release(&m);
    await_event(&S->event, atomic_load(&S->over), "no broker came");
    leave_with(me, ch);
}

/* It dies while there is no broker, with a value sent and a handle open. */
static void doomed(void *started) {
    gate_pass(started);
    xi_interp *me = join_without_start("doomed");
    xi_channel *ch = open_queue(me, "left");
    must(xi_send_int(ch, 7, XI_TRY));
    atomic_store(&S->doomed_id, xi_id(me));
    announce(&S->event);
    for (;;) pause();
}

static pid_t kill_broker(xi_interp *me) {
    pid_t broker = broker_pid(me);
    must_sys(kill(broker, SIGKILL));
    expect(wait_end(broker, 10000), "the broker does not die");
    return broker;
}

/* Starts a broker; everything that was there is. */
static void newcomer(xi_interp *me, pid_t old) {
    xi_msg m = XI_MSG_INIT;
    xi_interp *heir = join_as("newcomer", 0);
    expect(xi_id(heir) > atomic_load(&S->doomed_id), "id %lld was used before", (long long)xi_id(heir));
    expect(broker_pid(heir) != old && broker_pid(heir) > 0, "there is no new broker");
    xi_channel *left = open_with(heir, "left", &(xi_open_opts){.flags = XI_OPEN_EXISTING});
    must(xi_recv(left, &m, STUCK));
    expect(message_int(&m) == 7, "%lld was left", (long long)message_int(&m));
    xi_msg_release(&m);
    xi_interp_info in[8];
    await(xi_list_interps(xi_observer_of(me), in, 8) == 3, "who died while there was no broker is still listed");
    leave_with(heir, left);
}

int main(void) {
    struct gate started = gate_new();
    xi_channel *other = NULL;
    S = shared_memory(sizeof *S);
    pid_t first = spawn(receiver, &started), second = spawn(doomed, &started);
    xi_interp *starter = join_as("starter", 0), *me = join_without_start("sender");
    xi_channel *ch = open_with(me, "on", &(xi_open_opts){.flags = XI_OPEN_SEND});
    send_one(ch, 0, BLOCK);
    gate_lift(&started, 2);
    await_event(&S->event, atomic_load(&S->ready) && atomic_load(&S->doomed_id), "the others do not come");
    must(xi_leave(starter)); /* who might start another */
    pid_t broker = kill_broker(me);
    for (int64_t i = 1; i <= VALUES; i++) send_one(ch, i, i % 100 ? 16 : BLOCK);
    must_fail(XI_E_BROKER, xi_open(me, "new", NULL, &other));
    must_sys(kill(second, SIGKILL));
    reap_signalled(second, SIGKILL, "the doomed one");
    expect(serving_broker() == broker, "somebody started a broker");
    newcomer(me, broker);
    atomic_store(&S->over, true);
    announce(&S->event);
    reap_ok(first, "the receiver");
    must(xi_open(me, "new", NULL, &other));
    must(xi_channel_free(other));
    leave_with(me, ch);
    printf("%d values passed while there was no broker\n", VALUES);
    return 0;
}
