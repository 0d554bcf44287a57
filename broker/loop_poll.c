/* SPDX-License-Identifier: MIT */
/*
 * Waiting in poll(2), for where io_uring is not to be had: asks which watches
 * are ready, then does for each what the ring would have done.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "loop_internal.h"
#include "table.h"

struct poller {
    struct waiter waiter;
    struct watch *all; /* armed ones, and stopped ones until they are freed */
    struct pollfd *fds;
    struct watch **watches;
    size_t count, capacity;
};

static void arm(struct waiter *self, struct watch *w) {
    struct poller *p = (struct poller *)self;
    w->next = p->all;
    p->all = w;
}

static void cancel(struct waiter *self, struct watch *w) {
    (void)self; /* the next wait finds it stopped */
    (void)w;
}

/* The list of what to ask for; takes stopped watches out and frees them. */
static void collect(struct poller *p) {
    p->count = 0;
    for (struct watch **at = &p->all, *w; (w = *at);) {
        if (w->stopped) {
            *at = w->next;
            free(w);
            continue;
        }
        if (p->count == p->capacity) {
            p->capacity = p->capacity ? p->capacity * 2 : 32;
            p->fds = memory_or_die(p->fds, p->capacity, sizeof *p->fds);
            p->watches = memory_or_die(p->watches, p->capacity, sizeof(struct watch *));
        }
        p->fds[p->count] = (struct pollfd){.fd = w->fd, .events = w->kind == WATCH_POLL ? w->events : POLLIN};
        p->watches[p->count++] = w;
        at = &w->next;
    }
}

static int perform(struct watch *w, short revents) {
    if (w->kind == WATCH_POLL) return revents;
    if (w->kind == WATCH_ACCEPT) return accept_waiting(w);
    ssize_t n = recvmsg(w->fd, &w->msg, MSG_DONTWAIT);
    return n < 0 ? -errno : (int)n;
}

static void dispatch(struct poller *p, struct watch *w, short revents) {
    if (w->stopped) return; /* by one called before it in this round */
    int result = perform(w, revents);
    if (result == -EAGAIN || result == -EINTR) return;
    struct watch **at = &p->all;
    while (*at != w) at = &(*at)->next;
    *at = w->next;
    watch_done(&p->waiter, w, result);
}

static void wait_poll(struct waiter *self, int64_t deadline) {
    struct poller *p = (struct poller *)self;
    int timeout = -1;
    if (deadline == AT_ONCE) {
        timeout = 0;
    } else if (deadline) {
        int64_t left = deadline - loop_now();
        timeout = left <= 0 ? 0 : (int)((left + 999999) / 1000000);
    }
    collect(p);
    int ready = poll(p->fds, p->count, timeout);
    self->woke = loop_now();
    if (ready < 0 && errno != EINTR) loop_rest(); /* the kernel has no memory for it */
    for (size_t i = 0; ready > 0 && i < p->count; i++) {
        if (!p->fds[i].revents) continue;
        ready--;
        dispatch(p, p->watches[i], p->fds[i].revents);
    }
}

static void free_poll(struct waiter *self) {
    struct poller *p = (struct poller *)self;
    for (struct watch *w = p->all, *next; w; w = next) {
        next = w->next;
        free(w);
    }
    free(p->fds);
    free(p->watches);
    free(p);
}

struct waiter *waiter_poll_new(void) {
    struct poller *p = memory_or_die(NULL, 1, sizeof *p);
    *p = (struct poller){.waiter = {.name = "poll", .arm = arm, .cancel = cancel, .wait = wait_poll, .free = free_poll}};
    return &p->waiter;
}
