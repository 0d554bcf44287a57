/* SPDX-License-Identifier: MIT */
/* Watches and timers; how to wait is in loop_uring.c and loop_poll.c. */
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "loop_internal.h"
#include "table.h"
#include "wire/soon.h"

#define SPIN_NS 50000

struct loop {
    struct waiter *waiter;
    struct timer *timers;
    struct xi_soon soon; /* the next packet, or whatever else comes */
    bool busy;           /* the last turn had something to do */
};

/* As of a value's receiver: not where there is one processor, or none to spare. */
static int64_t spin_limit(void) {
    const char *us = getenv("XI_SPIN_US");
    cpu_set_t set;
    if (us && us[0]) {
        double v = strtod(us, NULL);
        return v > 0 && v < 1e9 ? (int64_t)(v * 1000) : 0;
    }
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) < 2 ? 0 : SPIN_NS;
}

struct loop *loop_new(enum loop_choice choice, const char **why) {
    struct waiter *waiter = NULL;
    *why = "XI_WAIT=futex";
    if (choice != LOOP_POLL) waiter = waiter_uring_new(why);
    if (!waiter && choice == LOOP_URING) return NULL;
    if (!waiter)
        waiter = waiter_poll_new();
    else
        *why = "";
    struct loop *loop = memory_or_die(NULL, 1, sizeof *loop);
    *loop = (struct loop){.waiter = waiter, .soon.limit = xi_soon_limit(spin_limit())};
    return loop;
}

void loop_free(struct loop *loop) {
    loop->waiter->free(loop->waiter);
    free(loop);
}

const char *loop_name(const struct loop *loop) { return loop->waiter->name; }

int64_t loop_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A time, because nothing tells when the kernel has memory again. */
void loop_rest(void) { (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

static struct watch *watch_new(struct loop *loop, enum watch_kind kind, int fd, size_t size, loop_fn fn,
                               void *context) {
    struct watch *w = memory_or_die(NULL, 1, sizeof *w + size);
    *w = (struct watch){.kind = kind, .fd = fd, .fn = fn, .context = context, .size = size};
    if (kind != WATCH_POLL) loop_again(loop, w);
    return w;
}

struct watch *loop_accept(struct loop *loop, int fd, loop_fn fn, void *context) {
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    return watch_new(loop, WATCH_ACCEPT, fd, 0, fn, context);
}

int accept_waiting(const struct watch *watch) {
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

struct watch *loop_receive(struct loop *loop, int fd, size_t largest, loop_fn fn, void *context) {
    return watch_new(loop, WATCH_RECEIVE, fd, largest, fn, context);
}

struct watch *loop_poll(struct loop *loop, int fd, short events, loop_fn fn, void *context) {
    struct watch *w = watch_new(loop, WATCH_POLL, fd, 0, fn, context);
    w->events = events;
    loop_again(loop, w);
    return w;
}

void loop_again(struct loop *loop, struct watch *watch) {
    if (watch->armed) return;
    watch->armed = true;
    watch->iov = (struct iovec){watch->data, watch->size};
    watch->msg = (struct msghdr){.msg_iov = &watch->iov, .msg_iovlen = 1};
    loop->waiter->arm(loop->waiter, watch);
}

void loop_stop(struct loop *loop, struct watch *watch) {
    if (!watch) return;
    watch->stopped = true;
    if (watch->armed)
        loop->waiter->cancel(loop->waiter, watch);
    else
        free(watch);
}

void watch_done(struct waiter *waiter, struct watch *watch, int result) {
    watch->armed = false;
    waiter->done++;
    if (watch->stopped)
        free(watch);
    else
        watch->fn(watch->context, result, watch->data);
}

void loop_timer(struct loop *loop, struct timer *timer, void (*fn)(void *context), void *context) {
    *timer = (struct timer){.fn = fn, .context = context, .next = loop->timers};
    loop->timers = timer;
}

static int64_t earliest(const struct loop *loop) {
    int64_t at = 0;
    for (const struct timer *t = loop->timers; t; t = t->next)
        if (t->at && (!at || t->at < at)) at = t->at;
    return at;
}

static void look(struct waiter *w, int64_t until) {
    uint64_t done = w->done;
    unsigned pauses = 0;
    for (w->wait(w, AT_ONCE); w->done == done && loop_now() < until; w->wait(w, AT_ONCE)) xi_soon_pause(&pauses);
}

/* Looks for what is soon there, then sleeps. */
static void wait_for(struct loop *loop, int64_t deadline) {
    struct waiter *w = loop->waiter;
    uint64_t done = w->done;
    bool was_busy = loop->busy;
    int64_t from = was_busy ? loop_now() : 0, span = was_busy ? xi_soon(&loop->soon) : 0;
    if (span) look(w, deadline && deadline < from + span ? deadline : from + span);
    bool hit = w->done != done;
    if (!hit) w->wait(w, deadline);
    loop->busy = w->done != done;
    if (was_busy) xi_soon_came(&loop->soon, loop->busy ? w->woke - from : INT64_MAX, span > 0, hit);
}

void loop_turn(struct loop *loop) {
    wait_for(loop, earliest(loop));
    if (!earliest(loop)) return;
    int64_t now = loop_now();
    for (struct timer *t = loop->timers; t; t = t->next) {
        if (!t->at || t->at > now) continue;
        t->at = 0;
        t->fn(t->context);
    }
}
