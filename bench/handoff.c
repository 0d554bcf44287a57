/* SPDX-License-Identifier: MIT */
/*
 * What it costs to hand over a large value that nobody copies.
 *
 * One round: side 0 takes a loan of N bytes, writes the value's header and a
 * number into it and leaves the rest untouched, and sends it; side 1 receives
 * it as a borrow, checks header and number, releases it, and answers with an
 * 8-byte value. The figure is half of that round trip. It should not depend on
 * N. `raw` is half of a cache line's round trip: what handing over an index
 * into memory that both have anyway costs at the least.
 */
#include "bench/limits.h"
#include "bench/suites.h"

#include <stdio.h>

struct handoff {
    struct bench_xi xi;
    uint64_t header; /* of a bytes value that fills the whole block */
    uint8_t ack[8];
};

static int handoff_setup(struct bench_pair *p) {
    struct handoff *h = bench_private(p, sizeof *h);
    void *whole = bench_private(p, (size_t)p->c->bytes);
    if (!h || !whole) return -1;
    p->state = h;
    if (bench_value_build(p, whole, (size_t)p->c->bytes) < 0 || bench_value_build(p, h->ack, sizeof h->ack) < 0)
        return -1;
    memcpy(&h->header, whole, sizeof h->header);
    return bench_xi_open(p, &h->xi, 0);
}

static void handoff_teardown(struct bench_pair *p) { bench_xi_close(&((struct handoff *)p->state)->xi); }

static int failed(struct bench_pair *p, const char *what, uint64_t seq, int rc) {
    return bench_fail(p, "%s, round %llu: %s", what, (unsigned long long)seq,
                      rc < 0 ? xi_error_text(rc) : "another value arrived");
}

/* Side 0: loan, touch, send, await the answer. */
static int give(struct bench_pair *p, struct handoff *h, uint64_t seq) {
    size_t size = (size_t)p->c->bytes;
    xi_loan loan;
    int rc = xi_loan_get(h->xi.me, size, &loan);
    if (rc < 0) return failed(p, "taking a loan", seq, rc);
    uint64_t *words = loan.data;
    words[0] = h->header;
    words[1] = seq;
    rc = xi_send_loan(h->xi.out, &loan, size, NULL);
    if (rc < 0) return failed(p, "sending a loan", seq, rc);
    rc = xi_recv(h->xi.in, &h->xi.msg, XI_FOREVER);
    if (rc < 0 || !bench_stamped(h->xi.msg.data, 8, seq)) return failed(p, "receiving the answer", seq, rc);
    return 0;
}

/* Side 1: borrow, check, release, answer. */
static int take(struct bench_pair *p, struct handoff *h, uint64_t seq) {
    int rc = xi_recv(h->xi.in, &h->xi.msg, XI_FOREVER);
    if (rc < 0) return failed(p, "receiving a loan", seq, rc);
    uint64_t words[2];
    memcpy(words, h->xi.msg.data, sizeof words);
    if (h->xi.msg.size != p->c->bytes || words[0] != h->header || words[1] != seq)
        return failed(p, "receiving a loan", seq, 0);
    xi_msg_release(&h->xi.msg);
    bench_stamp(h->ack, sizeof h->ack, seq);
    rc = xi_send(h->xi.out, h->ack, sizeof h->ack, XI_FOREVER);
    return rc < 0 ? failed(p, "answering", seq, rc) : 0;
}

static int handoff_rounds(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct handoff *h = p->state;
    for (uint64_t end = seq + n; seq < end; seq++)
        if ((p->side == 0 ? give(p, h, seq) : take(p, h, seq)) < 0) return -1;
    return 0;
}

static int handoff_run(struct bench_pair *p) {
    struct handoff *h = p->state;
    uint64_t rounds = 0;
    bench_xi_mark(&h->xi);
    if (bench_measure_rounds(p, handoff_rounds, 500, 0.5, &rounds) < 0) return -1;
    if (p->side == 0) bench_xi_note(p, &h->xi, rounds);
    return 0;
}

static int add_handoff(struct bench_suite *s, uint64_t size) {
    struct bench_case *c = bench_add(s, "handoff", "xi", size);
    if (!c) return -1;
    bench_limit(c, "handoff", "raw", "64");
    c->needs_namespace = true;
    c->setup = handoff_setup;
    c->run = handoff_run;
    c->teardown = handoff_teardown;
    return 0;
}

int handoff_add(struct bench_suite *s, bool xi) {
    static const uint64_t sizes[] = {64, 4096, 1 << 20, 1 << 24};
    uint64_t only = s->options->only_size;
    bool usual = only == 0;
    if (limits_add_raw(s, "handoff") < 0) return -1;
    for (size_t i = 0; xi && i < sizeof sizes / sizeof *sizes; i++) {
        usual |= sizes[i] == only;
        if (bench_wants(s, sizes[i]) && add_handoff(s, sizes[i]) < 0) return -1;
    }
    return xi && !usual && only >= 24 ? add_handoff(s, only) : 0;
}
