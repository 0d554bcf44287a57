/* SPDX-License-Identifier: MIT */
/*
 * Requests and replies: side 0 calls, side 1 serves. One operation is one call,
 * request and reply of N bytes each, both sides awake; nothing else is under way.
 * `raw` is a cache line there and back; `xi_two` is the same exchange made of two
 * channels and plain sends, without what a call promises when a server dies.
 */
#include "bench/limits.h"
#include "bench/suites.h"

struct caller {
    struct bench_xi xi;
    xi_channel *service; /* side 0 may only send on it, or it would be a server itself */
    uint64_t *record;
};

static int call_setup(struct bench_pair *p) {
    struct caller *c = bench_private(p, sizeof *c);
    if (!c) return -1;
    p->state = c;
    c->record = bench_private(p, (size_t)p->c->bytes);
    if (!c->record || bench_value_build(p, c->record, (size_t)p->c->bytes) < 0) return -1;
    if (bench_xi_open(p, &c->xi, 0) < 0) return -1;
    xi_open_opts opts = {.flags = p->side == 0 ? XI_OPEN_SEND : XI_OPEN_RECV};
    int rc = xi_open(c->xi.me, xi_channel_name(c->xi.channel[0]), &opts, &c->service);
    if (rc < 0) return bench_fail(p, "opening the channel of the calls: %s", xi_error_text(rc));
    bench_barrier(p); /* whoever calls before there is a server is told so */
    return 0;
}

static void call_teardown(struct bench_pair *p) {
    struct caller *c = p->state;
    (void)xi_channel_free(c->service);
    bench_xi_close(&c->xi);
}

static int ask(struct bench_pair *p, struct caller *c, uint64_t seq) {
    size_t size = (size_t)p->c->bytes;
    bench_stamp(c->record, size, seq);
    int rc = xi_call(c->service, c->record, size, &c->xi.msg, XI_FOREVER);
    if (rc < 0) return bench_fail(p, "call %llu: %s", (unsigned long long)seq, xi_error_text(rc));
    if (c->xi.msg.size != size || !bench_stamped(c->xi.msg.data, size, seq + 1))
        return bench_fail(p, "call %llu got another's reply", (unsigned long long)seq);
    return 0;
}

static int serve(struct bench_pair *p, struct caller *c, uint64_t seq) {
    size_t size = (size_t)p->c->bytes;
    int rc = xi_recv(c->service, &c->xi.msg, XI_FOREVER);
    if (rc < 0) return bench_fail(p, "receiving request %llu: %s", (unsigned long long)seq, xi_error_text(rc));
    if (c->xi.msg.size != size || !bench_stamped(c->xi.msg.data, size, seq))
        return bench_fail(p, "request %llu arrived as another", (unsigned long long)seq);
    bench_stamp(c->record, size, seq + 1);
    rc = xi_reply(&c->xi.msg, c->record, size, XI_FOREVER);
    return rc < 0 ? bench_fail(p, "replying to %llu: %s", (unsigned long long)seq, xi_error_text(rc)) : 0;
}

static int call_rounds(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct caller *c = p->state;
    for (uint64_t end = seq + n; seq < end; seq++)
        if ((p->side == 0 ? ask(p, c, seq) : serve(p, c, seq)) < 0) return -1;
    return 0;
}

/* Without calls: a value there, another back. */
static int two_rounds(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct caller *c = p->state;
    size_t size = (size_t)p->c->bytes;
    for (uint64_t end = seq + n; seq < end; seq++)
        for (int leg = 0; leg < 2; leg++) {
            bench_stamp(c->record, size, seq);
            int rc = leg == p->side ? xi_send(c->xi.out, c->record, size, XI_FOREVER)
                                    : xi_recv(c->xi.in, &c->xi.msg, XI_FOREVER);
            if (rc < 0) return bench_fail(p, "exchange %llu: %s", (unsigned long long)seq, xi_error_text(rc));
        }
    return 0;
}

static int call_run(struct bench_pair *p) {
    struct caller *c = p->state;
    uint64_t rounds = 0;
    bench_xi_mark(&c->xi);
    if (bench_measure_rounds(p, p->c->param ? two_rounds : call_rounds, 1000, 1.0, &rounds) < 0) return -1;
    if (p->side == 0) bench_xi_note(p, &c->xi, rounds);
    return 0;
}

static int add_calls(struct bench_suite *s, uint64_t size) {
    static const char *const systems[] = {"xi", "xi_two"};
    for (int i = 0; i < 2; i++) {
        struct bench_case *c = bench_add(s, "call", systems[i], size);
        if (!c) return -1;
        bench_limit(c, "call", "raw", "64");
        c->param = i;
        c->needs_namespace = true;
        c->setup = call_setup;
        c->run = call_run;
        c->teardown = call_teardown;
    }
    return 0;
}

int call_add(struct bench_suite *s, bool xi) {
    static const uint64_t sizes[] = {8, 64, 1024};
    uint64_t only = s->options->only_size;
    bool usual = only == 0;
    if (limits_add_raw(s, "call") < 0) return -1;
    for (size_t i = 0; xi && i < sizeof sizes / sizeof *sizes; i++) {
        usual |= sizes[i] == only;
        if (bench_wants(s, sizes[i]) && add_calls(s, sizes[i]) < 0) return -1;
    }
    return xi && !usual ? add_calls(s, only) : 0;
}
