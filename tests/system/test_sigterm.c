/* SPDX-License-Identifier: MIT */
/*
 * SIGTERM, to a broker in the middle of work and to interpreters, leaves
 * nothing in /dev/shm, and whoever waited comes back with an error. To the keeper
 * of a broker that has just been killed it is not lost with that broker.
 */
#include "harness.h"

static struct gate ready;

/* Waits for what will never come. */
static void wait_in_receive(void *argument) {
    (void)argument;
    xi_interp *me = join_as("receiver", 0);
    xi_channel *ch = open_queue(me, "silent");
    xi_msg m = XI_MSG_INIT;
    gate_lift(&ready, 1);
    int rc = xi_recv(ch, &m, XI_FOREVER);
    expect(rc < 0, "received something on a silent channel");
    printf("receiver: %s: %s\n", xi_error_name(rc), xi_error_text(rc));
    expect(xi_status(me) == XI_E_BROKER, "its status is %s", xi_error_name(xi_status(me)));
    xi_msg_release(&m);
    leave_with(me, ch);
}

/* Fills a channel with values in its arena, and waits for room that will never come. */
static void wait_in_send(void *argument) {
    (void)argument;
    static uint64_t buffer[1024];
    xi_interp *me = join_as("sender", 0);
    xi_channel *ch = open_with(me, "full", &(xi_open_opts){.capacity = XI_CAPACITY_MIN});
    size_t size = encode_padded(buffer, sizeof buffer, 1, 6000);
    int rc;
    while ((rc = xi_send(ch, buffer, size, XI_TRY)) == 0)
        ;
    expect(rc == XI_E_AGAIN, "filling a channel ended with %s: %s", xi_error_name(rc), xi_error_text(rc));
    gate_lift(&ready, 1);
    rc = xi_send(ch, buffer, size, XI_FOREVER);
    expect(rc < 0, "sent to a full channel");
    printf("sender: %s: %s\n", xi_error_name(rc), xi_error_text(rc));
    leave_with(me, ch);
}

static void broker_ends(void) {
    xi_interp *me = join_as("witness", 0);
    pid_t broker = broker_pid(me);
    pid_t receiver = spawn(wait_in_receive, NULL), sender = spawn(wait_in_send, NULL);
    gate_pass(&ready);
    gate_pass(&ready);
    expect(segments_of(test_ns(), false) > 5, "there should be segments");
    must_sys(kill(broker, SIGTERM));
    expect(wait_end(broker, 10000), "the broker is still there 10 s after SIGTERM");
    expect(segments_of(test_ns(), true) == 0, "SIGTERM to the broker left shared memory");
    reap_ok(receiver, "the receiver");
    reap_ok(sender, "the sender");
    xi_channel *ch = NULL;
    expect(xi_status(me) == XI_E_BROKER, "the status is %s", xi_error_name(xi_status(me)));
    must_fail(XI_E_BROKER, xi_open(me, "new", NULL, &ch));
    must(xi_leave(me));
}

/* An interpreter with everything in its hands: an arena, a borrow, a loan, a full channel. */
static void work_until_killed(void *argument) {
    (void)argument;
    static uint64_t buffer[1024];
    xi_interp *me = join_as("busy", 0);
    xi_channel *ch = open_queue(me, "work");
    xi_loan loan;
    xi_msg m = XI_MSG_INIT;
    size_t size = encode_padded(buffer, sizeof buffer, 1, 6000);
    must(xi_loan_get(me, 100000, &loan));
    for (int i = 0; i < 20; i++) must(xi_send(ch, buffer, size, SECOND));
    must(xi_recv(ch, &m, SECOND));
    gate_lift(&ready, 1);
    for (;;) pause();
}

static void interpreters_end(void) {
    pid_t busy[3];
    for (int i = 0; i < 3; i++) busy[i] = spawn(work_until_killed, NULL);
    for (int i = 0; i < 3; i++) gate_pass(&ready);
    xi_observer *o = NULL;
    must(xi_observe(NULL, &o));
    pid_t broker = xi_observer_broker_pid(o);
    xi_observer_free(o);
    for (int i = 0; i < 3; i++) must_sys(kill(busy[i], SIGTERM));
    for (int i = 0; i < 3; i++) reap_signalled(busy[i], SIGTERM, "an interpreter");
    expect(wait_end(broker, 10000), "the broker did not leave after the last interpreter");
    expect(segments_of(test_ns(), true) == 0, "SIGTERM to all interpreters left shared memory");
}

static pid_t start_keeper(const char *ns) {
    char fd[12], said[64] = "";
    struct gate up = gate_new();
    fflush(NULL);
    pid_t pid = fork();
    must_sys(pid);
    if (pid == 0) {
        close(up.fd[0]);
        snprintf(fd, sizeof fd, "%d", up.fd[1]);
        execl(getenv("XI_BROKER"), "xi-broker", "-n", ns, "--memfd", "--ready-fd", fd, NULL);
        _exit(2);
    }
    close(up.fd[1]);
    expect(read(up.fd[0], said, sizeof said - 1) > 0 && strncmp(said, "ready", 5) == 0, "the broker says \"%s\"", said);
    close(up.fd[0]);
    return pid;
}

/* When the keeper looks, its broker is dead and the signal is there. The next broker ends in order. */
static void keeper_ends(void) {
    char ns[32];
    further_ns(ns, "kept");
    pid_t keeper = start_keeper(ns);
    xi_interp *me = join_ns(ns, "witness", XI_JOIN_NO_START);
    pid_t broker = broker_pid(me);
    expect(broker != keeper, "there is no keeper");
    must_sys(kill(keeper, SIGSTOP));
    await(process_state(keeper) == 'T', "the keeper does not stop");
    must_sys(kill(broker, SIGKILL));
    expect(wait_end(broker, 10000), "the broker is still there 10 s after SIGKILL");
    must_sys(kill(keeper, SIGTERM));
    must_sys(kill(keeper, SIGCONT));
    expect(wait_end(keeper, 10000), "SIGTERM was lost with the broker that was dead already");
    reap_ok(keeper, "the keeper");
    await(xi_status(me) == XI_E_BROKER, "the status is %s", xi_error_name(xi_status(me)));
    must(xi_leave(me));
}

int main(void) {
    ready = gate_new();
    broker_ends();
    keeper_ends();
    interpreters_end();
    return 0;
}
