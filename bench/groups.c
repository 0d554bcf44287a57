/* SPDX-License-Identifier: MIT */
/*
 * What groups cost.
 *
 * groups: side 0 sends values of 24 bytes, side 1 receives each of them in 1 to
 * 64 groups, one call a value and group, the groups in turn. The time is that of
 * one value in one group; the sender's part is shared by all of them.
 *
 * acknowledged: side 1 receives in one group and acknowledges each value before
 * it takes the next; `plain` does the same in a group where receiving is all.
 */
#include "bench/suites.h"

#include <stdio.h>

enum { GROUPS_MOST = 64, SIZE = 24 };

struct many {
    xi_interp *me;
    xi_channel *channel[GROUPS_MOST]; /* side 0: the first alone */
    xi_msg msg;
    uint64_t *record;
    int groups;
};

static int open_group(struct bench_pair *p, struct many *m, const char *name, int g) {
    char group[16];
    bool acknowledges = strcmp(p->c->metric, "acknowledged") == 0 && strcmp(p->c->system, "xi") == 0;
    xi_group_opts group_opts = {.flags = acknowledges ? XI_GROUP_ACK : 0};
    snprintf(group, sizeof group, "g%d", g);
    /* A broadcast, since a queue has a group of its own besides, in which nobody would receive. */
    xi_open_opts opts = {.mode = XI_BROADCAST, .flags = p->side == 0 ? XI_OPEN_SEND : XI_OPEN_RECV,
                         .group = p->side == 0 ? NULL : group, .group_opts = p->side == 0 ? NULL : &group_opts};
    int rc = xi_open(m->me, name, &opts, &m->channel[g]);
    return rc < 0 ? bench_fail(p, "opening group %d: %s", g, xi_error_text(rc)) : 0;
}

/* The receiving side first: what is sent before a group is there does not reach it. bench_measure_stream() begins with a
 * barrier behind both. */
static int many_setup(struct bench_pair *p) {
    char name[32];
    struct many *m = bench_private(p, sizeof *m);
    if (!m) return -1;
    p->state = m;
    m->msg = (xi_msg)XI_MSG_INIT;
    m->groups = (int)p->c->param;
    m->record = bench_private(p, SIZE);
    if (!m->record || bench_value_build(p, m->record, SIZE) < 0) return -1;
    xi_join_opts opts = {.name = p->side == 0 ? "bench sender" : "bench groups", .spin_ns = 50000, .flags = XI_JOIN_NO_START};
    int rc = xi_join(&opts, &m->me);
    if (rc < 0) return bench_fail(p, "joining: %s", xi_error_text(rc));
    snprintf(name, sizeof name, "bench.groups.%llu", (unsigned long long)p->serial);
    for (int g = 0; g < (p->side == 0 ? 1 : m->groups); g++)
        if (open_group(p, m, name, g) < 0) return -1;
    return 0;
}

static void many_teardown(struct bench_pair *p) {
    struct many *m = p->state;
    xi_msg_release(&m->msg);
    for (int g = 0; g < GROUPS_MOST; g++) xi_channel_free(m->channel[g]);
    xi_leave(m->me);
}

static int take(struct bench_pair *p, struct many *m, int g, uint64_t seq, bool acknowledge) {
    int rc = xi_recv(m->channel[g], &m->msg, XI_FOREVER);
    if (rc == 0 && !bench_stamped(m->msg.data, SIZE, seq))
        return bench_fail(p, "value %llu arrived as another in group %d", (unsigned long long)seq, g);
    if (rc == 0 && acknowledge) rc = xi_ack(&m->msg);
    return rc < 0 ? bench_fail(p, "value %llu in group %d: %s", (unsigned long long)seq, g, xi_error_text(rc)) : 0;
}

static int pass(struct bench_pair *p, uint64_t seq, uint64_t n, bool acknowledge) {
    struct many *m = p->state;
    for (uint64_t end = seq + n; seq < end; seq++) {
        if (p->side == 0) {
            bench_stamp(m->record, SIZE, seq);
            int rc = xi_send(m->channel[0], m->record, SIZE, XI_FOREVER);
            if (rc < 0) return bench_fail(p, "sending value %llu: %s", (unsigned long long)seq, xi_error_text(rc));
        }
        for (int g = 0; p->side == 1 && g < m->groups; g++)
            if (take(p, m, g, seq, acknowledge) < 0) return -1;
    }
    return 0;
}

static int plain_pass(struct bench_pair *p, uint64_t seq, uint64_t n) { return pass(p, seq, n, false); }
static int ack_pass(struct bench_pair *p, uint64_t seq, uint64_t n) { return pass(p, seq, n, true); }

static int groups_run(struct bench_pair *p) {
    struct bench_result *r = &p->shared->result;
    if (bench_measure_stream(p, plain_pass, bench_warm_up(p) / 4 / (uint64_t)p->c->param) < 0) return -1;
    if (p->side == 1) return 0;
    r->ns /= (double)p->c->param;
    r->ops *= (uint64_t)p->c->param;
    return 0;
}

static int ack_run(struct bench_pair *p) {
    return bench_measure_stream(p, strcmp(p->c->system, "xi") == 0 ? ack_pass : plain_pass, bench_warm_up(p) / 4);
}

static struct bench_case *add(struct bench_suite *s, const char *metric, const char *system, int groups,
                              int (*run)(struct bench_pair *)) {
    struct bench_case *c = bench_add(s, metric, system, SIZE);
    if (!c) return NULL;
    c->param = groups;
    c->needs_namespace = true;
    c->setup = many_setup;
    c->run = run;
    c->teardown = many_teardown;
    return c;
}

int groups_add(struct bench_suite *s, bool xi) {
    static const int counts[] = {1, 2, 4, 8, 16, 32, 64};
    for (size_t i = 0; xi && bench_wants(s, SIZE) && i < sizeof counts / sizeof *counts; i++) {
        struct bench_case *c = add(s, "groups", "xi", counts[i], groups_run);
        if (!c) return -1;
        snprintf(c->label, sizeof c->label, "%d", counts[i]);
        bench_limit(c, "groups", "xi", "1");
    }
    return 0;
}

int ack_add(struct bench_suite *s, bool xi) {
    if (!xi || !bench_wants(s, SIZE)) return 0;
    struct bench_case *c = add(s, "acknowledged", "xi", 1, ack_run);
    if (!c) return -1;
    bench_limit(c, "acknowledged", "plain", NULL);
    return add(s, "acknowledged", "plain", 1, ack_run) ? 0 : -1;
}
