/* SPDX-License-Identifier: MIT */
/*
 * xi-bench path KIND N: N values through a channel of this one process, sent and
 * received in turn, and nothing else. No clock, no other side: what is here to be
 * counted by callgrind (bench/instructions) is how long the path is, not how
 * fast it is gone. KIND is the size of a value, `loan` or `batch`.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/suites.h"

enum { LOAN = 65536, ROUND = 8 };
#define PATIENCE ((int64_t)60000000000) /* XI_TRY gives up when whoever holds a lock of the channel does not run for a tenth of a second */

struct path {
    xi_interp *me;
    xi_channel *ch;
    xi_msg msgs[PEER_BATCH];
    uint8_t *record;
    size_t size;
};

static int say(const char *what, int64_t rc) {
    fprintf(stderr, "xi-bench path: %s: %s\n", what, xi_error_text((int)rc));
    return -1;
}

/* A few at a time, so that the ring is neither always empty nor ever full. */
static int by_one(struct path *p) {
    for (int i = 0; i < ROUND; i++) {
        int rc = xi_send(p->ch, p->record, p->size, PATIENCE);
        if (rc < 0) return say("sending", rc);
    }
    for (int i = 0; i < ROUND; i++) {
        int rc = xi_recv(p->ch, &p->msgs[0], PATIENCE);
        if (rc < 0) return say("receiving", rc);
    }
    return ROUND;
}

static int by_loan(struct path *p) {
    for (int i = 0; i < ROUND; i++) {
        xi_loan loan;
        int rc = xi_loan_get(p->me, p->size, &loan);
        if (rc < 0) return say("taking a loan", rc);
        memcpy(loan.data, p->record, 16);
        rc = xi_send_loan(p->ch, &loan, p->size, NULL);
        if (rc < 0) return say("sending a loan", rc);
    }
    for (int i = 0; i < ROUND; i++) {
        int rc = xi_recv(p->ch, &p->msgs[0], PATIENCE);
        if (rc < 0) return say("receiving a loan", rc);
    }
    return ROUND;
}

static int by_batch(struct path *p) {
    const void *values[PEER_BATCH];
    size_t sizes[PEER_BATCH];
    for (int i = 0; i < PEER_BATCH; i++) {
        values[i] = p->record;
        sizes[i] = p->size;
    }
    int64_t rc = xi_send_many(p->ch, values, sizes, PEER_BATCH, PATIENCE);
    if (rc != PEER_BATCH) return say("sending a batch", rc);
    rc = xi_recv_many(p->ch, p->msgs, PEER_BATCH, PATIENCE);
    return rc == PEER_BATCH ? PEER_BATCH : say("receiving a batch", rc);
}

static int run(struct path *p, int (*some)(struct path *), uint64_t n) {
    xi_join_opts join = {.name = "bench path"};
    xi_open_opts open = {.capacity = 1 << 20};
    int rc = xi_join(&join, &p->me);
    if (rc == 0) rc = xi_open(p->me, "bench.path", &open, &p->ch);
    if (rc < 0) return say("joining", rc);
    for (uint64_t done = 0; done < n;) {
        int more = some(p);
        if (more < 0) return -1;
        done += (uint64_t)more;
    }
    for (int i = 0; i < PEER_BATCH; i++) xi_msg_release(&p->msgs[i]);
    xi_channel_free(p->ch);
    xi_leave(p->me);
    return 0;
}

int path_main(const char *kind, const char *count) {
    static struct path p;
    static struct bench_shared shared;
    struct bench_pair nobody = {.shared = &shared};
    int (*some)(struct path *) = strcmp(kind, "loan") == 0 ? by_loan : strcmp(kind, "batch") == 0 ? by_batch : by_one;
    p.size = some == by_loan ? LOAN : some == by_batch ? 8 : (size_t)strtoull(kind, NULL, 10);
    uint64_t n = strtoull(count, NULL, 10);
    for (int i = 0; i < PEER_BATCH; i++) p.msgs[i] = (xi_msg)XI_MSG_INIT;
    if (!bench_size_possible(p.size) || n == 0) return fprintf(stderr, "xi-bench path: SIZE|loan|batch N\n"), 2;
    p.record = calloc(1, p.size);
    if (!p.record || bench_value_build(&nobody, p.record, p.size) < 0) return fprintf(stderr, "xi-bench path: %s\n", shared.result.error[0]), 1;
    int rc = run(&p, some, n);
    free(p.record);
    return rc < 0;
}
