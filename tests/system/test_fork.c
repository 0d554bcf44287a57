/* SPDX-License-Identifier: MIT */
/*
 * fork(): the child's handles are dead until it joins anew, the parent's are
 * not disturbed, and a child that holds its parent's sockets open does not
 * keep the parent's death a secret.
 */
#include "harness.h"

/* What the parent mapped to look on: the child may ask whose it is, and no more. */
static void watch_with(xi_observer *o) {
    xi_interp_info interp;
    xi_channel_info channel;
    must_fail(XI_E_FORKED, (int)xi_list_interps(o, &interp, 1));
    must_fail(XI_E_FORKED, (int)xi_list_channels(o, &channel, 1));
    expect(xi_observer_uid(o) == getuid(), "the namespace is not uid %u's", xi_observer_uid(o));
    expect(xi_observer_broker_pid(o) == 0, "a parent's broker has the pid %d", xi_observer_broker_pid(o));
}

static void use_dead_handles(xi_interp *me, xi_channel *ch, xi_msg *borrowed, xi_loan *loan) {
    xi_msg m = XI_MSG_INIT;
    xi_loan another;
    xi_channel *opened = NULL;
    uint64_t value[XI_SIZE_SCALAR / 8];
    xi_builder b;
    xi_builder_init(&b, value, sizeof value, 0);
    xi_put_int(&b, 1);
    int64_t size = xi_builder_finish(&b);

    must_fail(XI_E_FORKED, xi_status(me));
    must_fail(XI_E_FORKED, xi_send(ch, value, (size_t)size, XI_FOREVER));
    must_fail(XI_E_FORKED, xi_send_int(ch, 1, XI_TRY));
    must_fail(XI_E_FORKED, xi_recv(ch, &m, XI_FOREVER));
    must_fail(XI_E_FORKED, xi_recv_many(ch, &m, 1, XI_FOREVER));
    must_fail(XI_E_FORKED, xi_open(me, "other", NULL, &opened));
    must_fail(XI_E_FORKED, xi_loan_get(me, 100, &another));
    must_fail(XI_E_FORKED, xi_close(ch));
    must_fail(XI_E_FORKED, xi_ref(me, 1));
    must_fail(XI_E_FORKED, xi_unref(me, 1));
    must_fail(XI_E_FORKED, xi_remove(me, "family"));
    watch_with(xi_observer_of(me));
    xi_msg_release(borrowed); /* must not end the parent's borrow, nor crash */
    xi_loan_drop(loan);
    expect(xi_current() == NULL, "xi_current() gives a handle of the parent");
    xi_channel_free(ch);
    xi_leave(me);
}

struct family {
    xi_interp *me;
    xi_channel *ch;
    xi_msg borrowed;
    xi_loan loan;
    int64_t id;
};

static void child(void *argument) {
    struct family *parent = argument;
    use_dead_handles(parent->me, parent->ch, &parent->borrowed, &parent->loan);
    xi_interp *me = join_as("child", 0);
    expect(xi_current() == me, "xi_current() is not the child's own");
    expect(xi_id(me) != parent->id, "the child has its parent's id");
    xi_channel *ch = open_queue(me, "family");
    must(xi_send_int(ch, 1001, SECOND));
    leave_with(me, ch);
}

/* The other order: joins first, and lets go of what it inherited while its own handles are in use. */
static void child_that_lets_go_late(void *argument) {
    struct family *parent = argument;
    static uint64_t buffer[1024];
    xi_interp *me = join_as("late child", 0);
    xi_channel *ch = open_queue(me, "nursery");
    xi_msg m = XI_MSG_INIT;
    xi_msg_release(&parent->borrowed);
    xi_loan_drop(&parent->loan);
    xi_channel_free(parent->ch);
    xi_leave(parent->me);
    for (int64_t i = 0; i < 10; i++) {
        must(xi_send(ch, buffer, encode_padded(buffer, sizeof buffer, i, 6000), SECOND));
        must(xi_recv(ch, &m, SECOND));
        expect(message_int(&m) == i, "%lld came back as %lld", (long long)i, (long long)message_int(&m));
    }
    xi_msg_release(&m);
    leave_with(me, ch);
}

static void handles(void) {
    static uint64_t buffer[1024];
    struct family f = {.borrowed = XI_MSG_INIT};
    f.me = join_as("parent", 0);
    f.ch = open_queue(f.me, "family");
    f.id = xi_id(f.me);
    size_t size = encode_padded(buffer, sizeof buffer, 55, 6000);
    must(xi_send(f.ch, buffer, size, SECOND));
    must(xi_recv(f.ch, &f.borrowed, SECOND));
    expect(xi_msg_borrowed(&f.borrowed), "a value of 6,000 bytes should be borrowed");
    must(xi_loan_get(f.me, 4000, &f.loan));

    reap_ok(spawn(child, &f), "the child");
    reap_ok(spawn(child_that_lets_go_late, &f), "the child that lets go late");

    must(xi_status(f.me));
    expect(message_int(&f.borrowed) == 55, "the parent's borrow was disturbed");
    xi_msg_release(&f.borrowed);
    size = encode_padded(f.loan.data, f.loan.size, 66, 3000);
    must(xi_send_loan(f.ch, &f.loan, size, NULL));
    xi_msg m = XI_MSG_INIT;
    must(xi_recv(f.ch, &m, SECOND));
    expect(message_int(&m) == 1001, "the child's value should come first, got %lld", (long long)message_int(&m));
    must(xi_recv(f.ch, &m, SECOND));
    expect(message_int(&m) == 66, "then the parent's loan, got %lld", (long long)message_int(&m));
    xi_msg_release(&m);
    leave_with(f.me, f.ch);
}

/* ---- a joined process dies while a child of its holds copies of all its descriptors */

static struct gate ready, stay;

static void die_with_heir(void *argument) {
    (void)argument;
    xi_interp *me = join_as("mortal", 0);
    xi_channel *ch = open_queue(me, "estate");
    must(xi_send_int(ch, 1, SECOND));
    pid_t heir = fork();
    must_sys(heir);
    if (heir == 0) {
        close(stay.fd[1]);
        gate_lift(&ready, 1);
        gate_pass(&stay); /* until the test has seen the parent's death */
        _exit(0);
    }
    for (;;) pause();
}

static bool is_listed(xi_interp *me, int64_t pid) {
    static xi_interp_info info[64];
    int64_t n = xi_list_interps(xi_observer_of(me), info, 64);
    must(n);
    for (int64_t i = 0; i < n && i < 64; i++)
        if (info[i].pid == pid) return true;
    return false;
}

static void death_with_heir(void) {
    ready = gate_new();
    stay = gate_new();
    pid_t mortal = spawn(die_with_heir, NULL);
    xi_interp *me = join_as("witness", 0);
    xi_channel *nothing = open_queue(me, "nothing");
    gate_pass(&ready);
    expect(is_listed(me, mortal), "the joined process is not listed");
    must_sys(kill(mortal, SIGKILL));
    reap_signalled(mortal, SIGKILL, "the joined process");
    int64_t deadline = now_ns() + 5 * SECOND;
    xi_msg m = XI_MSG_INIT;
    while (is_listed(me, mortal)) {
        expect(now_ns() < deadline, "a process that died 5 s ago is still listed, because a child holds its socket");
        must_fail(XI_E_TIMEOUT, xi_recv(nothing, &m, 5 * MS));
    }
    close(stay.fd[1]);
    leave_with(me, nothing);
}

int main(void) {
    handles();
    death_with_heir();
    return 0;
}
