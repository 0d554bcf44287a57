/* SPDX-License-Identifier: MIT */
/*
 * Waiting on many channels together, 1 to 1,000 of them.
 *
 * select: side 0 sends 8 bytes on one channel, another each time; side 1 waits
 * for whichever it is, receives the value and answers on a channel of its own.
 * The figure is that round trip. It depends on how many channels there are by
 * what so many channels' memory costs the caches; select_steady is the same with
 * the values always on one of the channels, which shows what the waiting itself
 * costs: that should not depend on how many others there are. `xi` waits by a set; `xi_alone` by xi_recv on the one channel that there is
 * then; `pipes` by epoll_wait(2) on as many pipes, which sleeps each time.
 *
 * select_asleep is the same with spinning off: both sides sleep for each value.
 */
#include "bench/limits.h"
#include "bench/suites.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MOST = 1000, STRIDE = 379 }; /* from one channel to the next: no neighbours, and all in turn */

enum system { BY_SET, ALONE, BY_EPOLL };

struct choice {
    struct bench_xi xi;
    xi_channel *ch[MOST];
    xi_set *set;
    int pipe[MOST][2], loop; /* of BY_EPOLL: [0] is read by side 1, [1] written by side 0 */
    uint64_t record;
};

static int many(const struct bench_pair *p) { return (int)(p->c->param >> 8); }
static enum system system_of(const struct bench_pair *p) { return (enum system)(p->c->param & 0xff); }
static int which(const struct bench_pair *p, uint64_t seq) {
    if (strcmp(p->c->metric, "select_steady") == 0) return many(p) / 2;
    return (int)(seq * STRIDE % (uint64_t)many(p));
}

/* ---- channels and a set ---- */

static int open_channels(struct bench_pair *p, struct choice *c) {
    uint32_t flags = p->side == 0 ? XI_OPEN_SEND : XI_OPEN_RECV;
    for (int i = 0; i < many(p); i++) {
        char name[96];
        snprintf(name, sizeof name, "%.60s.%d", xi_channel_name(c->xi.channel[0]), i);
        xi_open_opts opts = {.flags = flags, .capacity = XI_CAPACITY_MIN};
        int rc = xi_open(c->xi.me, name, &opts, &c->ch[i]);
        if (rc == 0 && c->set) rc = xi_set_add(c->set, c->ch[i], XI_READY_RECV, (uint64_t)i, 0);
        if (rc < 0) return bench_fail(p, "opening channel %d: %s", i, xi_error_text(rc));
    }
    return 0;
}

static int64_t spin_of(const struct bench_pair *p) { return strcmp(p->c->metric, "select_asleep") == 0 ? -1 : 0; }

static int channel_setup(struct bench_pair *p, struct choice *c) {
    if (bench_xi_open(p, &c->xi, spin_of(p)) < 0) return -1;
    int rc = p->side == 1 && system_of(p) == BY_SET ? xi_set_new(c->xi.me, &c->set) : 0;
    return rc < 0 ? bench_fail(p, "making a set: %s", xi_error_text(rc)) : open_channels(p, c);
}

static int hear_by_set(struct bench_pair *p, struct choice *c, uint64_t seq) {
    xi_event e;
    int64_t n = xi_set_wait(c->set, &e, 1, XI_FOREVER);
    if (n < 0) return bench_fail(p, "waiting for value %llu: %s", (unsigned long long)seq, xi_error_text((int)n));
    if (e.key != (uint64_t)which(p, seq)) return bench_fail(p, "value %llu came on another channel", (unsigned long long)seq);
    int rc = xi_recv(e.channel, &c->xi.msg, XI_TRY);
    return rc < 0 ? bench_fail(p, "receiving value %llu: %s", (unsigned long long)seq, xi_error_text(rc)) : 0;
}

static int channel_leg(struct bench_pair *p, struct choice *c, uint64_t seq, int leg) {
    int rc = 0;
    if (leg == 0 && p->side == 1) {
        if (c->set ? hear_by_set(p, c, seq) < 0 : (rc = xi_recv(c->ch[0], &c->xi.msg, XI_FOREVER)) < 0) return rc ? rc : -1;
        return bench_stamped(c->xi.msg.data, 8, seq) ? 0 : bench_fail(p, "value %llu is another", (unsigned long long)seq);
    }
    bench_stamp(&c->record, sizeof c->record, seq);
    if (leg == 0) rc = xi_send(c->ch[which(p, seq)], &c->record, sizeof c->record, XI_FOREVER);
    else rc = p->side == 1 ? xi_send(c->xi.out, &c->record, sizeof c->record, XI_FOREVER)
                           : xi_recv(c->xi.in, &c->xi.msg, XI_FOREVER);
    return rc < 0 ? bench_fail(p, "exchange %llu: %s", (unsigned long long)seq, xi_error_text(rc)) : 0;
}

/* ---- pipes and epoll ---- */

/* Side 1 makes the pipes; side 0 opens them for writing by way of /proc. */
static int pipe_setup(struct bench_pair *p, struct choice *c) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* 1,000 pipes are more descriptors than usual */
    }
    bench_a64 *area = p->area; /* the process, then the descriptors of its pipes' writing ends */
    c->loop = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; p->side == 1 && i < many(p); i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (pipe2(c->pipe[i], O_CLOEXEC) != 0 || epoll_ctl(c->loop, EPOLL_CTL_ADD, c->pipe[i][0], &e) != 0)
            return bench_fail(p, "pipe %d: %s", i, strerror(errno));
        xi_store_relaxed(&area[1 + i], (uint64_t)c->pipe[i][1]);
    }
    if (p->side == 1) xi_store_relaxed(&area[0], (uint64_t)getpid());
    bench_barrier(p);
    for (int i = 0; p->side == 0 && i < many(p); i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)xi_load_relaxed(&area[0]), (int)xi_load_relaxed(&area[1 + i]));
        c->pipe[i][1] = open(path, O_WRONLY | O_CLOEXEC);
        if (c->pipe[i][1] < 0) return bench_fail(p, "%s: %s", path, strerror(errno));
    }
    return bench_xi_open(p, &c->xi, spin_of(p)); /* answers go by a channel in every system */
}

static int pipe_leg(struct bench_pair *p, struct choice *c, uint64_t seq, int leg) {
    if (leg == 1) return channel_leg(p, c, seq, leg);
    if (p->side == 0) {
        if (write(c->pipe[which(p, seq)][1], &seq, sizeof seq) == (ssize_t)sizeof seq) return 0;
        return bench_fail(p, "writing value %llu: %s", (unsigned long long)seq, strerror(errno));
    }
    struct epoll_event e;
    uint64_t got = 0;
    if (epoll_wait(c->loop, &e, 1, -1) != 1) return bench_fail(p, "epoll_wait: %s", strerror(errno));
    if (read(c->pipe[e.data.u32][0], &got, sizeof got) != (ssize_t)sizeof got || got != seq)
        return bench_fail(p, "value %llu is another", (unsigned long long)seq);
    return 0;
}

/* ---- either ---- */

static int select_setup(struct bench_pair *p) {
    struct choice *c = bench_private(p, sizeof *c);
    if (!c) return -1;
    p->state = c;
    if (bench_value_build(p, &c->record, sizeof c->record) < 0) return -1;
    return system_of(p) == BY_EPOLL ? pipe_setup(p, c) : channel_setup(p, c);
}

static void select_teardown(struct bench_pair *p) {
    struct choice *c = p->state;
    xi_set_free(c->set);
    for (int i = 0; i < many(p); i++) (void)xi_channel_free(c->ch[i]);
    bench_xi_close(&c->xi);
}

static int select_rounds(struct bench_pair *p, uint64_t seq, uint64_t n) {
    struct choice *c = p->state;
    bool pipes = system_of(p) == BY_EPOLL;
    for (uint64_t end = seq + n; seq < end; seq++)
        for (int leg = 0; leg < 2; leg++)
            if ((pipes ? pipe_leg(p, c, seq, leg) : channel_leg(p, c, seq, leg)) < 0) return -1;
    return 0;
}

static int select_run(struct bench_pair *p) {
    struct choice *c = p->state;
    uint64_t rounds = 0;
    bench_xi_mark(&c->xi);
    if (bench_measure_rounds(p, select_rounds, 200, 1.0, &rounds) < 0) return -1;
    if (p->side == 0) bench_xi_note(p, &c->xi, rounds);
    return 0;
}

static int add_one(struct bench_suite *s, const char *metric, enum system system, int channels) {
    static const char *const names[] = {"xi", "xi_alone", "pipes"};
    struct bench_case *c = bench_add(s, metric, names[system], 8);
    if (!c) return -1;
    snprintf(c->label, sizeof c->label, "%d_channels", channels);
    bench_limit(c, metric, "raw", "64");
    c->param = (int64_t)channels << 8 | system;
    c->area = (1 + MOST) * sizeof(bench_a64);
    c->needs_namespace = true;
    c->setup = select_setup;
    c->run = select_run;
    c->teardown = select_teardown;
    return 0;
}

int select_add(struct bench_suite *s, bool xi) {
    static const int channels[] = {1, 10, 100, 1000};
    static const char *const metrics[] = {"select_steady", "select", "select_asleep"};
    for (int m = 0; bench_wants(s, 8) && m < 3; m++) {
        if (limits_add_raw(s, metrics[m]) < 0) return -1;
        if (xi && add_one(s, metrics[m], ALONE, 1) < 0) return -1;
        for (size_t i = 0; xi && i < sizeof channels / sizeof *channels; i++) {
            if (add_one(s, metrics[m], BY_SET, channels[i]) < 0) return -1;
            if (m == 2 && add_one(s, metrics[m], BY_EPOLL, channels[i]) < 0) return -1;
        }
    }
    return 0;
}
