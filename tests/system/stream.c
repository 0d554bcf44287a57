/* SPDX-License-Identifier: MIT */
/*
 * One end of a stream of integers, for the scripts that look at it from
 * outside (how many system calls does a value cost?).
 *
 *     stream send|recv CHANNEL COUNT
 *
 * Prints "ready PID BROKER" when the channel is open, then waits for a line;
 * streams; prints "done NANOSECONDS", waits for a line again, and leaves.
 */
#include <inttypes.h>

#include "harness.h"

static void wait_for_line(void) {
    char c = 0;
    while (c != '\n') {
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n < 0 && errno == EINTR) continue;
        expect(n == 1, "the script that runs this has gone");
    }
}

static void send_all(xi_channel *ch, int64_t count) {
    for (int64_t i = 0; i < count; i++) must(xi_send_int(ch, i, XI_FOREVER));
}

static void receive_all(xi_channel *ch, int64_t count) {
    xi_msg m = XI_MSG_INIT;
    for (int64_t i = 0; i < count; i++) {
        must(xi_recv(ch, &m, XI_FOREVER));
        expect(message_int(&m) == i, "value %" PRId64 " arrived as number %" PRId64, message_int(&m), i);
    }
    xi_msg_release(&m);
}

int main(int argc, char **argv) {
    bool sends = argc == 4 && strcmp(argv[1], "send") == 0;
    if (!sends && !(argc == 4 && strcmp(argv[1], "recv") == 0)) {
        fprintf(stderr, "usage: stream send|recv CHANNEL COUNT\n");
        return 2;
    }
    int64_t count = atoll(argv[3]);
    xi_interp *me = join_as(argv[1], 0);
    xi_channel *ch = open_queue(me, argv[2]);
    printf("ready %d %d\n", (int)getpid(), (int)broker_pid(me));
    fflush(stdout);
    wait_for_line();
    int64_t start = now_ns();
    if (sends)
        send_all(ch, count);
    else
        receive_all(ch, count);
    printf("done %" PRId64 "\n", now_ns() - start);
    fflush(stdout);
    wait_for_line();
    leave_with(me, ch);
    return 0;
}
