/* SPDX-License-Identifier: MIT */
/*
 * How many values a second go one way, and how many bytes.
 *
 * one_way: side 0 sends, side 1 receives, one call a value, nothing in between.
 * one_way_batch16: the same by sixteens (xi_send_many, xi_recv_many; the ring
 * publishes sixteen records with one store). The time of one value is that from
 * the first send to the last receive, divided by how many there were.
 *
 * copy: side 0 has bytes in memory of its own, side 1 wants them in memory of
 * its own; at most two are on the way. `memcpy` does it with two buffers in
 * shared memory and two counters; xi with xi_send of a large value, a copy out
 * of the borrow, and an acknowledgement on the channel the other way.
 */
#include "bench/limits.h"
#include "bench/suites.h"

#include <stdio.h>

enum { BATCH = 16, COPY_WINDOW = 2 };

struct stream {
    struct bench_xi xi;
    uint8_t *records; /* BATCH encoded values, one after another */
    uint8_t *copy;
    const void *values[BATCH];
    size_t sizes[BATCH];
    xi_msg msgs[BATCH];
    uint64_t acknowledged;
    uint8_t ack[8];
};

static struct stream *stream_new(struct bench_pair *p, int records) {
    size_t size = (size_t)p->c->bytes;
    struct stream *s = bench_private(p, sizeof *s);
    if (!s) return NULL;
    p->state = s;
    s->records = bench_private(p, size * (size_t)records);
    s->copy = bench_private(p, size);
    if (!s->records || !s->copy) return NULL;
    for (int i = 0; i < records; i++) {
        if (bench_value_build(p, s->records + (size_t)i * size, size) < 0) return NULL;
        s->values[i] = s->records + (size_t)i * size;
        s->sizes[i] = size;
        s->msgs[i] = (xi_msg)XI_MSG_INIT;
    }
    return s;
}

/* ---- channels, value by value ---- */

static int xi_setup(struct bench_pair *p) {
    struct stream *s = stream_new(p, BATCH);
    return s ? bench_xi_open(p, &s->xi, 0) : -1;
}

static void xi_teardown(struct bench_pair *p) {
    struct stream *s = p->state;
    for (int i = 0; i < BATCH; i++) xi_msg_release(&s->msgs[i]);
    bench_xi_close(&s->xi);
}

static int send_failed(struct bench_pair *p, uint64_t seq, int rc) {
    return bench_fail(p, "sending value %llu: %s", (unsigned long long)seq, xi_error_text(rc));
}

static int recv_failed(struct bench_pair *p, uint64_t seq, int rc) {
    if (rc < 0) return bench_fail(p, "receiving value %llu: %s", (unsigned long long)seq, xi_error_text(rc));
    return bench_fail(p, "value %llu arrived as another", (unsigned long long)seq);
}

static int xi_pass(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct stream *s = p->state;
    size_t size = (size_t)p->c->bytes;
    xi_channel *out = s->xi.out, *in = s->xi.in;
    for (uint64_t end = seq + n; p->side == 0 && seq < end; seq++) {
        bench_stamp(s->records, size, seq);
        int rc = xi_send(out, s->records, size, XI_FOREVER);
        if (rc < 0) return send_failed(p, seq, rc);
    }
    for (uint64_t end = seq + n; p->side == 1 && seq < end; seq++) {
        int rc = xi_recv(in, &s->xi.msg, XI_FOREVER);
        if (rc < 0 || s->xi.msg.size != size || !bench_stamped(s->xi.msg.data, size, seq))
            return recv_failed(p, seq, rc);
    }
    return 0;
}

/* ---- channels, by sixteens ---- */

static int xi_send_batches(struct bench_pair *p, struct stream *s, uint64_t seq, uint64_t n) {
    size_t size = (size_t)p->c->bytes;
    for (uint64_t end = seq + n; seq < end;) {
        size_t want = end - seq < BATCH ? (size_t)(end - seq) : BATCH;
        for (size_t i = 0; i < want; i++) bench_stamp(s->records + i * size, size, seq + i);
        for (size_t done = 0; done < want;) {
            int64_t sent = xi_send_many(s->xi.out, s->values + done, s->sizes + done, want - done, XI_FOREVER);
            if (sent <= 0) return send_failed(p, seq, (int)sent);
            done += (size_t)sent;
        }
        seq += want;
    }
    return 0;
}

static int xi_recv_batches(struct bench_pair *p, struct stream *s, uint64_t seq, uint64_t n) {
    size_t size = (size_t)p->c->bytes;
    for (uint64_t end = seq + n; seq < end;) {
        size_t want = end - seq < BATCH ? (size_t)(end - seq) : BATCH;
        int64_t got = xi_recv_many(s->xi.in, s->msgs, want, XI_FOREVER);
        if (got <= 0) return recv_failed(p, seq, (int)got);
        for (int64_t i = 0; i < got; i++, seq++)
            if (s->msgs[i].size != size || !bench_stamped(s->msgs[i].data, size, seq)) return recv_failed(p, seq, 0);
    }
    return 0;
}

static int xi_batch_pass(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct stream *s = p->state;
    return p->side == 0 ? xi_send_batches(p, s, seq, n) : xi_recv_batches(p, s, seq, n);
}

static int xi_run(struct bench_pair *p) {
    struct stream *s = p->state;
    bench_xi_mark(&s->xi);
    if (bench_measure_stream(p, p->c->param > 1 ? xi_batch_pass : xi_pass, bench_warm_up(p)) < 0) return -1;
    if (p->side == 0) bench_xi_note(p, &s->xi, p->shared->result.ops);
    return 0;
}

/* ---- the textbook ring ---- */

static int ring_setup(struct bench_pair *p) { return stream_new(p, 1) ? 0 : -1; }

static int ring_pass(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct stream *s = p->state;
    size_t size = (size_t)p->c->bytes;
    bool eager = strcmp(p->c->system, "ring_eager") == 0;
    struct ring_pace pace = {.batch = (unsigned)p->c->param, .pauses = eager ? 1 : bench_microsecond};
    bool right = p->side == 0 ? ring_produce(p->area, s->records, size, seq, n, pace)
                              : ring_consume(p->area, s->copy, size, seq, n, pace);
    return right ? 0 : bench_fail(p, "the textbook ring delivered wrong bytes");
}

static int ring_run(struct bench_pair *p) { return bench_measure_stream(p, ring_pass, bench_warm_up(p)); }

/* ---- large values, copied in and out ---- */

static int copy_setup(struct bench_pair *p) {
    struct stream *s = stream_new(p, 1);
    if (!s || bench_value_build(p, s->ack, sizeof s->ack) < 0) return -1;
    if (p->side == 0) bench_fill(s->records, (size_t)p->c->bytes);
    return bench_xi_open(p, &s->xi, 0);
}

static int copy_await_ack(struct bench_pair *p, struct stream *s) {
    int rc = xi_recv(s->xi.in, &s->xi.msg, XI_FOREVER);
    if (rc < 0 || !bench_stamped(s->xi.msg.data, 8, s->acknowledged)) return recv_failed(p, s->acknowledged, rc);
    s->acknowledged++;
    return 0;
}

static int copy_send(struct bench_pair *p, struct stream *s, uint64_t seq) {
    size_t size = (size_t)p->c->bytes;
    if (seq - s->acknowledged >= COPY_WINDOW && copy_await_ack(p, s) < 0) return -1;
    bench_stamp(s->records, size, seq);
    int rc = xi_send(s->xi.out, s->records, size, XI_FOREVER);
    return rc < 0 ? send_failed(p, seq, rc) : 0;
}

static int copy_receive(struct bench_pair *p, struct stream *s, uint64_t seq) {
    size_t size = (size_t)p->c->bytes;
    int rc = xi_recv(s->xi.in, &s->xi.msg, XI_FOREVER);
    if (rc < 0 || s->xi.msg.size != size) return recv_failed(p, seq, rc);
    memcpy(s->copy, s->xi.msg.data, size);
    xi_msg_release(&s->xi.msg);
    bench_stamp(s->ack, sizeof s->ack, seq);
    rc = xi_send(s->xi.out, s->ack, sizeof s->ack, XI_FOREVER);
    if (rc < 0) return send_failed(p, seq, rc);
    bench_used(s->copy);
    return bench_stamped(s->copy, size, seq) ? 0 : recv_failed(p, seq, 0);
}

static int copy_pass(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct stream *s = p->state;
    for (uint64_t end = seq + n; seq < end; seq++)
        if ((p->side == 0 ? copy_send(p, s, seq) : copy_receive(p, s, seq)) < 0) return -1;
    while (p->side == 0 && s->acknowledged < seq)
        if (copy_await_ack(p, s) < 0) return -1;
    return 0;
}

static int copy_run(struct bench_pair *p) {
    struct stream *s = p->state;
    bench_xi_mark(&s->xi);
    if (bench_measure_stream(p, copy_pass, 8) < 0) return -1;
    if (p->side == 1 && !bench_filled(s->copy, (size_t)p->c->bytes)) return bench_fail(p, "a large value lost bytes");
    if (p->side == 0) bench_xi_note(p, &s->xi, p->shared->result.ops);
    return 0;
}

static void copy_teardown(struct bench_pair *p) { bench_xi_close(&((struct stream *)p->state)->xi); }

/* ---- the cases ---- */

static int add_one_way(struct bench_suite *s, bool xi, uint64_t size, int batch) {
    static const char *const systems[] = {"xi", "ring", "ring_eager"};
    const char *metric = batch > 1 ? "one_way_batch16" : "one_way";
    for (int system = xi ? 0 : 1; system < (batch > 1 ? 2 : 3); system++) {
        if (system > 0 && ring_slots((size_t)size) == 0) continue; /* larger than its buffer can hold two of */
        struct bench_case *c = bench_add(s, metric, systems[system], size);
        if (!c) return -1;
        if (system == 0) bench_limit(c, metric, "ring", NULL);
        c->param = batch;
        c->needs_namespace = system == 0;
        c->area = system == 0 ? 0 : sizeof(struct ring);
        c->setup = system == 0 ? xi_setup : ring_setup;
        c->run = system == 0 ? xi_run : ring_run;
        c->teardown = system == 0 ? xi_teardown : NULL;
    }
    return 0;
}

static int add_copy(struct bench_suite *s, bool xi, uint64_t size) {
    if (xi) {
        struct bench_case *c = bench_add(s, "copy", "xi", size);
        if (!c) return -1;
        bench_limit(c, "copy", "memcpy", NULL);
        c->needs_namespace = true;
        c->setup = copy_setup;
        c->run = copy_run;
        c->teardown = copy_teardown;
    }
    return limits_add_double_buffer(s, size);
}

int throughput_add(struct bench_suite *s, bool xi) {
    static const uint64_t small[] = {8, 24, 64, 1024}, large[] = {1 << 16, 1 << 20, 1 << 24};
    uint64_t only = s->options->only_size;
    bool usual = only == 0;
    for (int batch = 1; batch <= BATCH; batch += BATCH - 1)
        for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
            usual |= small[i] == only;
            if (bench_wants(s, small[i]) && add_one_way(s, xi, small[i], batch) < 0) return -1;
        }
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        usual |= large[i] == only;
        if (bench_wants(s, large[i]) && add_copy(s, xi, large[i]) < 0) return -1;
    }
    if (usual) return 0;
    if (only >= 65536) return add_copy(s, xi, only);
    if (add_one_way(s, xi, only, 1) < 0) return -1;
    return add_one_way(s, xi, only, BATCH);
}
