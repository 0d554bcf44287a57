/* SPDX-License-Identifier: MIT */
/*
 * The broker of a namespace that is open to other users is killed. Its memory
 * has no names, so the process that keeps it starts another broker: values, lists
 * of who may do what, and who has got what are as they were. Then the keeper is
 * killed, and the broker goes on.
 */
#include "users.h"

#define LAB "61001/lab"
#define BIG 200000

static struct gate sent, seen, done;

static pid_t kill_broker(xi_interp *me) {
    pid_t old = broker_pid(me);
    must_sys(kill(old, SIGKILL));
    int64_t until = now_ns() + 10 * SECOND;
    while (broker_pid(me) == old && now_ns() < until) (void)poll(NULL, 0, 2); /* nothing says that it has been replaced */
    expect(broker_pid(me) != old, "nobody replaced the broker");
    return broker_pid(me);
}

static void send_padded(xi_channel *ch, int64_t number, size_t padding) {
    static char buffer[BIG + 128];
    must(xi_send(ch, buffer, encode_padded(buffer, sizeof buffer, number, padding), 5 * SECOND));
}

static void receive(xi_channel *ch, int64_t number) {
    xi_msg m = XI_MSG_INIT;
    must(xi_recv(ch, &m, 10 * SECOND));
    expect(message_int(&m) == number, "%lld came", (long long)message_int(&m));
    xi_msg_release(&m);
}

static void alice_has_her_broker_killed(void *unused) {
    (void)unused;
    xi_interp *me = join_ns("lab", "alice", 0);
    xi_channel *out = open_with(me, "to-bob", &(xi_open_opts){.access = "61002:r"});
    xi_channel *mine = open_with(me, "mine", NULL);
    for (int64_t i = 0; i < 10; i++) send_padded(out, i, i % 2 ? BIG : 10);
    gate_lift(&sent, 1);
    gate_pass(&seen);
    kill_broker(me);
    send_padded(out, 10, BIG); /* whatever else she asks of it, she says first what she has open */
    kill_broker(me);
    gate_lift(&sent, 1);
    gate_pass(&done);
    must(xi_channel_free(mine));
    leave_with(me, out);
}

/* What only a broker can answer: Alice's arena, which is not mapped here before the first large value comes. */
static void bob_goes_on(void *unused) {
    (void)unused;
    xi_interp *me = join_ns(LAB, "bob", 0);
    xi_channel *in = open_with(me, "to-bob", &(xi_open_opts){.flags = XI_OPEN_RECV}), *other = NULL;
    receive(in, 0);
    gate_lift(&seen, 1);
    gate_pass(&sent);
    for (int64_t i = 1; i <= 10; i++) receive(in, i);
    must_fail(XI_E_ACCESS, xi_open(me, "mine", NULL, &other));
    must_fail(XI_E_ACCESS, xi_open(me, "to-bob", NULL, &other));
    leave_with(me, in);
}

static void others_are_as_before(void *unused) {
    (void)unused;
    xi_interp *me = NULL;
    if (getuid() == mallory.uid) {
        must_fail(XI_E_ACCESS, xi_join(&(xi_join_opts){.ns = LAB}, &me));
        return;
    }
    xi_channel *ch = NULL;
    me = join_ns(LAB, "carol", 0);
    must_fail(XI_E_ACCESS, xi_open(me, "to-bob", &(xi_open_opts){.flags = XI_OPEN_RECV}, &ch));
    xi_channel_info c[4];
    expect(xi_list_channels(xi_observer_of(me), c, 4) == 2, "there were two channels");
    for (int i = 0; i < 2; i++)
        expect(strcmp(c[i].access, strcmp(c[i].name, "to-bob") == 0 ? "61002:r" : "") == 0, "%s is open to \"%s\"", c[i].name,
               c[i].access);
    must(xi_leave(me));
}

static void carol_after_the_keeper(void *unused) {
    (void)unused;
    xi_interp *me = join_ns(LAB, "carol", 0);
    xi_channel *ch = open_with(me, "hers", NULL);
    must(xi_send_int(ch, 5, XI_TRY));
    receive(ch, 5);
    pid_t broker = broker_pid(me);
    leave_with(me, ch);
    exit(broker == 0);
}

static pid_t serving_pid(void) {
    xi_observer *o = NULL;
    must(xi_observe(LAB, &o));
    pid_t pid = xi_observer_broker_pid(o);
    xi_observer_free(o);
    return pid;
}

static void end_what_has_no_keeper(void *unused) {
    (void)unused;
    pid_t broker = serving_pid();
    must_sys(kill(broker, SIGTERM));
    expect(wait_end(broker, 10000), "the broker did not end");
}

static void everything(void *unused) {
    (void)unused;
    pid_t keeper = open_lab("61002,61003");
    sent = gate_new();
    seen = gate_new();
    done = gate_new();
    pid_t a = spawn_as(&alice, alice_has_her_broker_killed);
    gate_pass(&sent);
    pid_t b = spawn_as(&bob, bob_goes_on);
    reap_ok(b, "bob");
    run_as(&carol, others_are_as_before, "carol");
    run_as(&mallory, others_are_as_before, "mallory");
    gate_lift(&done, 1);
    reap_ok(a, "alice");
    must_sys(kill(keeper, SIGKILL));
    reap_signalled(keeper, SIGKILL, "the keeper");
    run_as(&carol, carol_after_the_keeper, "carol");
    run_as(&alice, end_what_has_no_keeper, "alice");
}

int main(void) { return run_in_place(everything); }
