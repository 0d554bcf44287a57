/* SPDX-License-Identifier: MIT */
/*
 * Meets a full /dev/shm in every call that can, and expects the error with its
 * advice, never a SIGBUS, and that the same call succeeds once there is room.
 * test_shm_full.sh runs it over a small tmpfs of its own.
 *
 *     full cold     join where no broker runs yet
 *     full warm     join, open, loan, send and receive beside a running broker
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define FILLER "/dev/shm/filler"
#define LARGE ((size_t)4 << 20)
#define MANY 400 /* borrows: more than an interpreter's first table holds */
#define MIDDLE 5000

static void fill(void) {
    int fd = open(FILLER, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    off_t size = 0;
    must_sys(fd);
    for (off_t step = 1 << 20; step >= 4096; step /= 2)
        while (posix_fallocate(fd, size, step) == 0) size += step;
    close(fd);
    printf("/dev/shm is full: %lld KiB of filler\n", (long long)size / 1024);
}
static void empty(void) { must_sys(unlink(FILLER)); }

/* The call failed for want of shared memory, and its sentence says where to look. */
static void expect_full(const char *what, int64_t rc) {
    const char *text = rc < 0 ? xi_error_text((int)rc) : "";
    expect(rc == XI_E_NOSPACE, "%s on a full /dev/shm gave %s (%s)", what, rc < 0 ? xi_error_name((int)rc) : "success",
           text);
    expect(strstr(text, "/dev/shm"), "%s: the advice does not name /dev/shm: %s", what, text);
    printf("%s: %s\n", what, text);
}

static void meet_join(void) {
    xi_interp *other = NULL;
    fill();
    expect_full("join", xi_join(&(xi_join_opts){.name = "late"}, &other));
    empty();
    must(xi_join(&(xi_join_opts){.name = "late"}, &other));
    must(xi_leave(other));
}

static void meet_open(xi_interp *me) {
    xi_channel *ch = NULL;
    fill();
    expect_full("open", xi_open(me, "new", NULL, &ch));
    empty();
    must(xi_open(me, "new", NULL, &ch));
    must(xi_channel_free(ch));
}

/* A channel that was opened has its ring yet to be backed: by the first to send, whom it is told, and who receives sleeps on. */
static void meet_first_send(xi_interp *me) {
    xi_channel *ch = open_queue(me, "first");
    xi_msg m = XI_MSG_INIT;
    fill();
    expect_full("the first send", xi_send_int(ch, 1, XI_TRY));
    expect(xi_recv(ch, &m, XI_TRY) == XI_E_AGAIN, "nothing was sent, and a receive says %s", xi_error_text(0));
    expect(xi_recv(ch, &m, SECOND / 10) == XI_E_TIMEOUT, "nothing was sent, and a wait says %s", xi_error_text(0));
    empty();
    must(xi_send_int(ch, 2, XI_TRY));
    must(xi_recv(ch, &m, SECOND));
    expect(message_int(&m) == 2, "2 was sent, and %lld received", (long long)message_int(&m));
    xi_msg_release(&m);
    fill(); /* all of it is there now: the ring goes round once */
    for (int64_t i = 0; i < 10000; i++) {
        must(xi_send_int(ch, i, XI_TRY));
        must(xi_recv(ch, &m, SECOND));
        xi_msg_release(&m);
    }
    empty();
    must(xi_channel_free(ch));
}

/* Somebody dies who has an idle channel open, and the broker looks at that: it must not meet the memory that is not there. */
static void meet_death(xi_interp *me) {
    xi_channel *ch = open_queue(me, "idle");
    int ready[2];
    char c;
    must_sys(pipe(ready));
    pid_t pid = fork();
    must_sys(pid);
    if (pid == 0) {
        xi_interp *other = join_as("dies", 0);
        (void)open_queue(other, "idle");
        must_sys(write(ready[1], "r", 1));
        pause();
    }
    must_sys(read(ready[0], &c, 1));
    fill();
    must_sys(kill(pid, SIGKILL));
    must_sys(waitpid(pid, NULL, 0));
    xi_channel_info info;
    do must(xi_channel_stat(ch, &info)); /* until the repair has counted its handle out */
    while (info.handles != 1);
    empty();
    must(xi_channel_free(ch));
}

static void meet_loan(xi_interp *me) {
    xi_loan loan;
    fill();
    expect_full("loan", xi_loan_get(me, LARGE, &loan));
    empty();
    must(xi_loan_get(me, LARGE, &loan));
    memset(loan.data, 0xa5, loan.size);
    xi_loan_drop(&loan);
}

static void meet_send(xi_interp *me) {
    static uint64_t buffer[(2 * LARGE) / 8 + 16];
    xi_channel *ch = open_queue(me, "large");
    size_t size = encode_padded(buffer, sizeof buffer, 7, 2 * LARGE);
    fill();
    expect_full("send", xi_send(ch, buffer, size, XI_TRY));
    empty();
    must(xi_send(ch, buffer, size, XI_TRY));
    xi_msg m = XI_MSG_INIT;
    must(xi_recv(ch, &m, SECOND));
    expect(m.size == size && message_int(&m) == 7, "the large value arrived with %zu of %zu bytes", m.size, size);
    xi_msg_release(&m);
    must(xi_channel_free(ch));
}

/* Holds every value received, so that the table of borrows must grow. */
static void meet_receive(xi_interp *me) {
    static uint64_t buffer[MIDDLE / 8 + 16];
    static xi_msg held[MANY];
    xi_interp *reader = join_as("reader", 0);
    xi_channel *out = open_queue(me, "held"), *in = open_queue(reader, "held");
    for (int64_t i = 0; i < MANY; i++) {
        size_t size = encode_padded(buffer, sizeof buffer, i, MIDDLE);
        must(xi_send(out, buffer, size, SECOND));
        held[i] = (xi_msg)XI_MSG_INIT;
    }
    fill();
    int got = 0;
    int64_t rc = 0;
    while (got < MANY && (rc = xi_recv(in, &held[got], XI_TRY)) == 0) got++;
    expect(got < MANY, "%d values were borrowed without the table growing: take more", got);
    expect_full("receive", rc);
    empty();
    for (; got < MANY; got++) must(xi_recv(in, &held[got], XI_TRY));
    for (int i = 0; i < MANY; i++) {
        expect(message_int(&held[i]) == i, "value %d arrived as %lld", i, (long long)message_int(&held[i]));
        xi_msg_release(&held[i]);
    }
    leave_with(reader, in);
    must(xi_channel_free(out));
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "cold") == 0) {
        xi_interp *me = NULL;
        fill();
        expect_full("join without a broker", xi_join(NULL, &me));
        empty();
        must(xi_join(NULL, &me));
        must(xi_leave(me));
        return 0;
    }
    if (argc != 2 || strcmp(argv[1], "warm") != 0) {
        fprintf(stderr, "usage: full cold|warm (over a /dev/shm that may be filled)\n");
        return 2;
    }
    xi_interp *me = join_as("full", 0);
    meet_join();
    meet_open(me);
    meet_first_send(me);
    meet_death(me);
    meet_loan(me);
    meet_send(me);
    meet_receive(me);
    must(xi_leave(me));
    return 0;
}
