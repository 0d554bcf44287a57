/* SPDX-License-Identifier: MIT */
/*
 * What is measured with a peer, whichever it is: round trips awake and asleep,
 * streams of messages one by one and by sixteens, copies of large messages,
 * hand-overs of large messages in place, delays at a constant rate.
 *
 * The same loops, checks and clocks for xidata as for everything that it is
 * compared with; latency.c, throughput.c, handoff.c and wake.c say what each
 * figure means and which there are.
 */
#include "bench/measure.h"

#include <stdio.h>

#include "bench/limits.h"
#include "bench/loops.h"

enum { COPY_WINDOW = 2, FAST_CHUNK = 1000, SLOW_CHUNK = 200, SLOW_LEAST = 500, SMALL = 16384 };

int loop_wrong(struct bench_pair *p, uint64_t seq) {
    return bench_fail(p, "message %llu arrived as another", (unsigned long long)seq);
}

static bool fast(const struct bench_pair *p) { return p->c->peer->flags & PEER_NAMESPACE; }

/* ---- before and after ---- */

static size_t work_bytes(const struct bench_pair *p) {
    if (p->c->measure == MEASURE_LOANS) return sizeof(uint64_t); /* only the answers */
    return (size_t)p->c->bytes;
}

static int setup(struct bench_pair *p) {
    size_t size = work_bytes(p), n = size <= SMALL ? PEER_BATCH : 1;
    struct work *w = bench_private(p, sizeof *w);
    if (!w) return -1;
    p->state = w;
    w->window = p->peer->window ? p->peer->window : CREDIT_WINDOW;
    w->records = bench_private(p, n * size);
    w->copies = bench_private(p, n * size);
    if (!w->records || !w->copies || bench_value_build(p, w->ack, sizeof w->ack) < 0) return -1;
    for (size_t i = 0; i < n; i++)
        if (bench_value_build(p, w->records + i * size, size) < 0) return -1;
    if (p->c->measure == MEASURE_COPIES && p->side == 0) bench_fill(w->records, size);
    return p->peer->open(p);
}

static void teardown(struct bench_pair *p) { p->peer->close(p); }

static void mark(struct bench_pair *p) {
    if (p->peer->mark) p->peer->mark(p);
}

static void note(struct bench_pair *p, uint64_t operations) {
    if (p->peer->note && p->side == 0) p->peer->note(p, operations);
}

static void done(struct bench_pair *p) {
    if (p->peer->done) p->peer->done(p);
}

/* ---- round trips ---- */

static int rounds_by_pointer(struct bench_pair *p, uint64_t seq, uint64_t n) {
    return loop_rounds(p, seq, n, p->peer->send, p->peer->recv);
}

static int run_rounds(struct bench_pair *p) {
    uint64_t made = 0;
    mark(p);
    bench_rounds rounds = p->peer->rounds ? p->peer->rounds : rounds_by_pointer;
    if (bench_measure_rounds(p, rounds, fast(p) ? FAST_CHUNK : SLOW_CHUNK, 1.0, &made) < 0) return -1;
    note(p, made);
    return 0;
}

static int speak(struct bench_pair *p, uint64_t seq) {
    return loop_say(p, p->state, (size_t)p->c->bytes, seq, p->peer->send);
}

static int listen(struct bench_pair *p, uint64_t seq) {
    return loop_hear(p, p->state, (size_t)p->c->bytes, seq, p->peer->recv);
}

static int run_asleep(struct bench_pair *p) {
    static const struct bench_asleep by_peer = {speak, listen};
    uint64_t made = 0;
    mark(p);
    if (bench_measure_asleep(p, &by_peer, &made) < 0) return -1;
    note(p, made);
    return 0;
}

/* ---- streams ---- */

/* Side 1 tells now and then how many it has had; side 0 waits while more than a window are on the way. */
static void credit_give(struct bench_pair *p, uint64_t had) { xi_store_release(&p->shared->credit.v, had); }

static void credit_await(struct bench_pair *p, struct work *w, uint64_t seq) {
    while (seq - w->credit >= w->window) {
        w->credit = xi_load_acquire(&p->shared->credit.v); /* pairs with credit_give */
        if (seq - w->credit >= w->window) bench_relax();
    }
}

static int credited_pass(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct work *w = p->state;
    for (uint64_t end = seq + n; seq < end; seq++) {
        if (p->side == 0) {
            credit_await(p, w, seq);
            if (speak(p, seq) < 0) return -1;
            continue;
        }
        if (listen(p, seq) < 0) return -1;
        if ((seq + 1) % (w->window / 8) == 0 || seq + 1 == end) credit_give(p, seq + 1);
    }
    return 0;
}

static int plain_pass(struct bench_pair *p, uint64_t seq, uint64_t n) {
    return loop_stream(p, seq, n, p->peer->send, p->peer->recv);
}

static int send_batches(struct bench_pair *p, struct work *w, uint64_t seq, uint64_t n) {
    size_t size = (size_t)p->c->bytes;
    bool credit = p->c->peer->flags & PEER_CREDIT;
    for (uint64_t end = seq + n; seq < end;) {
        size_t now = end - seq < PEER_BATCH ? (size_t)(end - seq) : PEER_BATCH;
        for (size_t i = 0; i < now; i++) bench_stamp(w->records + i * size, size, seq + i);
        if (credit) credit_await(p, w, seq + now);
        if (p->peer->send_many(p, w->records, size, now) < 0) return -1;
        seq += now;
    }
    return 0;
}

static int recv_batches(struct bench_pair *p, struct work *w, uint64_t seq, uint64_t n) {
    size_t size = (size_t)p->c->bytes;
    bool credit = p->c->peer->flags & PEER_CREDIT;
    for (uint64_t end = seq + n; seq < end;) {
        size_t most = end - seq < PEER_BATCH ? (size_t)(end - seq) : PEER_BATCH;
        int got = p->peer->recv_many(p, w->copies, size, most, w->messages);
        if (got <= 0) return got < 0 ? -1 : bench_fail(p, "a batch of nothing arrived");
        for (int i = 0; i < got; i++, seq++)
            if (!bench_stamped(w->messages[i], size, seq)) return loop_wrong(p, seq);
        if (credit) credit_give(p, seq);
    }
    return 0;
}

static int batch_pass(struct bench_pair *p, uint64_t seq, uint64_t n) {
    return p->side == 0 ? send_batches(p, p->state, seq, n) : recv_batches(p, p->state, seq, n);
}

static bench_pass stream_pass(const struct bench_pair *p) {
    if (p->c->measure == MEASURE_BATCHES) return batch_pass;
    if (p->c->peer->flags & PEER_CREDIT) return credited_pass;
    return p->peer->stream ? p->peer->stream : plain_pass;
}

static int run_stream(struct bench_pair *p) {
    bench_pass pass = stream_pass(p);
    mark(p);
    if ((fast(p) ? bench_measure_stream(p, pass, bench_warm_up(p)) : bench_measure_slow_stream(p, pass, SLOW_LEAST)) < 0)
        return -1;
    note(p, p->shared->result.ops);
    return 0;
}

/* ---- large messages, copied in and out ---- */

static int copies_await_ack(struct bench_pair *p, struct work *w) {
    const void *ack = w->ack_copy;
    if (p->peer->recv(p, w->ack_copy, sizeof w->ack_copy, &ack) < 0) return -1;
    if (!bench_stamped(ack, sizeof w->ack_copy, w->acknowledged)) return loop_wrong(p, w->acknowledged);
    w->acknowledged++;
    return 0;
}

static int copy_out(struct bench_pair *p, struct work *w, uint64_t seq) {
    if (seq - w->acknowledged >= COPY_WINDOW && copies_await_ack(p, w) < 0) return -1;
    return speak(p, seq);
}

static int copy_in(struct bench_pair *p, struct work *w, uint64_t seq) {
    size_t size = (size_t)p->c->bytes;
    const void *message = w->copies;
    if (p->peer->recv(p, w->copies, size, &message) < 0) return -1;
    if (message != w->copies) memcpy(w->copies, message, size);
    done(p);
    bench_stamp(w->ack, sizeof w->ack, seq);
    if (p->peer->send(p, w->ack, sizeof w->ack) < 0) return -1;
    bench_used(w->copies);
    return bench_stamped(w->copies, size, seq) ? 0 : loop_wrong(p, seq);
}

static int copies_pass(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct work *w = p->state;
    for (uint64_t end = seq + n; seq < end; seq++)
        if ((p->side == 0 ? copy_out(p, w, seq) : copy_in(p, w, seq)) < 0) return -1;
    while (p->side == 0 && w->acknowledged < seq)
        if (copies_await_ack(p, w) < 0) return -1;
    return 0;
}

static int run_copies(struct bench_pair *p) {
    struct work *w = p->state;
    mark(p);
    if (bench_measure_stream(p, copies_pass, 8) < 0) return -1;
    if (p->side == 1 && !bench_filled(w->copies, (size_t)p->c->bytes)) return bench_fail(p, "a large message lost bytes");
    note(p, p->shared->result.ops);
    return 0;
}

/* ---- large messages, in place ---- */

static int give(struct bench_pair *p, struct work *w, uint64_t seq) {
    const void *ack = w->ack_copy;
    if (p->peer->lend(p, (size_t)p->c->bytes, (const uint64_t[2]){p->c->bytes, seq}) < 0) return -1;
    if (p->peer->recv(p, w->ack_copy, sizeof w->ack_copy, &ack) < 0) return -1;
    return bench_stamped(ack, sizeof w->ack_copy, seq) ? 0 : loop_wrong(p, seq);
}

static int take(struct bench_pair *p, struct work *w, uint64_t seq) {
    uint64_t words[2] = {0};
    if (p->peer->borrow(p, (size_t)p->c->bytes, words) < 0) return -1;
    if (words[1] != seq) return loop_wrong(p, seq);
    bench_stamp(w->ack, sizeof w->ack, seq);
    return p->peer->send(p, w->ack, sizeof w->ack);
}

static int loan_rounds(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct work *w = p->state;
    for (uint64_t end = seq + n; seq < end; seq++)
        if ((p->side == 0 ? give(p, w, seq) : take(p, w, seq)) < 0) return -1;
    return 0;
}

static int run_loans(struct bench_pair *p) {
    uint64_t made = 0;
    mark(p);
    if (bench_measure_rounds(p, loan_rounds, fast(p) ? FAST_CHUNK / 2 : SLOW_CHUNK, 0.5, &made) < 0) return -1;
    note(p, made);
    return 0;
}

/* ---- at a constant rate ---- */

static int say_at(struct bench_pair *p, struct work *w, uint64_t intended, uint64_t seq) {
    memcpy(w->records + OPEN_LOOP_INTENDED * sizeof intended, &intended, sizeof intended);
    while (bench_now() < intended) bench_relax();
    return speak(p, seq);
}

/* Records when it arrived; the first `skip` are warm-up. */
static int hear_late(struct bench_pair *p, struct work *w, uint64_t seq, uint64_t skip) {
    size_t size = (size_t)p->c->bytes;
    const void *message = w->copies;
    uint64_t intended;
    if (p->peer->recv(p, w->copies, size, &message) < 0) return -1;
    uint64_t now = bench_now();
    if (!bench_stamped(message, size, seq)) return loop_wrong(p, seq);
    memcpy(&intended, (const uint8_t *)message + OPEN_LOOP_INTENDED * sizeof intended, sizeof intended);
    if (seq >= skip) histogram_record(&p->shared->result.histogram, now > intended ? now - intended : 0);
    return 0;
}

static int run_open_loop(struct bench_pair *p) {
    struct work *w = p->state;
    struct open_loop o = open_loop_begin(p);
    mark(p);
    for (uint64_t i = 0; i < o.n; i++)
        if ((p->side == 0 ? say_at(p, w, o.start + i * o.interval, i) : hear_late(p, w, i, o.skip)) < 0) return -1;
    open_loop_end(p, &o);
    note(p, o.n);
    bench_barrier(p);
    return 0;
}

struct open_loop open_loop_begin(struct bench_pair *p) {
    uint64_t rate = (uint64_t)p->c->param;
    struct open_loop o = {.interval = 1000000000u / rate, .skip = rate / 20};
    o.n = o.skip + (uint64_t)((double)rate * p->options->target_s);
    o.start = bench_agree(p, bench_now() + 1000000);
    return o;
}

void open_loop_end(struct bench_pair *p, const struct open_loop *o) {
    struct bench_result *r = &p->shared->result;
    if (p->side == 1) {
        r->ns = (double)histogram_percentile(&r->histogram, 50);
        r->ops = o->n - o->skip;
        r->seconds = (double)(bench_now() - o->start) / 1e9;
        bench_extra(p, "mean_ns", histogram_mean(&r->histogram));
        bench_extra(p, "intended_per_second", (double)p->c->param);
    }
    bench_barrier(p); /* both add to the result: one after the other */
}

/* ---- the list ---- */

const struct measure bench_measures[MEASURES] = {
    [MEASURE_ROUNDS] = {PEER_ROUNDS, run_rounds},   [MEASURE_STREAM] = {PEER_ONE_WAY, run_stream},
    [MEASURE_BATCHES] = {PEER_BATCHES, run_stream}, [MEASURE_COPIES] = {PEER_COPIES, run_copies},
    [MEASURE_ASLEEP] = {PEER_ASLEEP, run_asleep},   [MEASURE_LOANS] = {PEER_LOANS, run_loans},
    [MEASURE_OPEN_LOOP] = {PEER_ROUNDS, run_open_loop},
};

void measure_fill(struct bench_case *c) {
    c->setup = setup;
    c->run = bench_measures[c->measure].run;
    c->teardown = teardown;
}
