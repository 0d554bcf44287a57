/* SPDX-License-Identifier: MIT */
/*
 * What a round trip costs when both sides sleep each time: the library joined
 * with spinning off (spin_ns = -1), beside the same ping-pong with plain
 * futex(2) calls on a word for each direction, with the 64-byte message copied
 * in and out (`futex`) and without any message (`raw`). limits.h says how it is
 * made sure that they sleep; the parks_per_op beside every figure shows it: 1
 * is once a round trip for the side that counts. Most of the time is the interrupt and the processor's way out of
 * idling, which nobody's library can shorten.
 */
#include "bench/limits.h"
#include "bench/suites.h"

struct wake {
    struct bench_xi xi;
    uint64_t record[BENCH_RAW_BYTES / 8];
};

static int wake_setup(struct bench_pair *p) {
    struct wake *w = bench_private(p, sizeof *w);
    if (!w) return -1;
    p->state = w;
    if (bench_value_build(p, w->record, sizeof w->record) < 0) return -1;
    return bench_xi_open(p, &w->xi, -1);
}

static void wake_teardown(struct bench_pair *p) { bench_xi_close(&((struct wake *)p->state)->xi); }

static int wake_speak(struct bench_pair *p, uint64_t seq) {
    struct wake *w = p->state;
    bench_stamp(w->record, sizeof w->record, seq);
    int rc = xi_send(w->xi.out, w->record, sizeof w->record, XI_FOREVER);
    return rc < 0 ? bench_fail(p, "sending: %s", xi_error_text(rc)) : 0;
}

static int wake_listen(struct bench_pair *p, uint64_t seq) {
    struct wake *w = p->state;
    int rc = xi_recv(w->xi.in, &w->xi.msg, XI_FOREVER);
    if (rc < 0) return bench_fail(p, "receiving: %s", xi_error_text(rc));
    if (w->xi.msg.size != sizeof w->record || !bench_stamped(w->xi.msg.data, sizeof w->record, seq))
        return bench_fail(p, "woke to a wrong value");
    return 0;
}

static int wake_run(struct bench_pair *p) {
    static const struct bench_asleep by_channel = {wake_speak, wake_listen};
    struct wake *w = p->state;
    uint64_t rounds = 0;
    bench_xi_mark(&w->xi);
    if (bench_measure_asleep(p, &by_channel, &rounds) < 0) return -1;
    if (p->side == 0) bench_xi_note(p, &w->xi, rounds);
    return 0;
}

int wake_add(struct bench_suite *s, bool xi) {
    if (!bench_wants(s, BENCH_RAW_BYTES)) return 0;
    if (xi) {
        struct bench_case *c = bench_add(s, "round_trip_asleep", "xi", BENCH_RAW_BYTES);
        if (!c) return -1;
        bench_limit(c, "round_trip_asleep", "futex", NULL);
        c->needs_namespace = true;
        c->setup = wake_setup;
        c->run = wake_run;
        c->teardown = wake_teardown;
    }
    return limits_add_asleep(s);
}
