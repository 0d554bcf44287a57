/* SPDX-License-Identifier: MIT */
/*
 * Waiting in one io_uring. Entries carry the watch's address; a cancellation
 * carries none. A stopped watch stays until its entry has completed, because
 * the kernel may write into its buffer until then.
 *
 * A connection is not accepted by the ring but looked for by a poll, and taken
 * then: the kernel's wait to accept is an exclusive one, so it wakes one waiter
 * alone, and that may be the ring of a broker which was killed a moment ago. Its
 * process has gone, its requests go a little later; and the socket is the same
 * where a keeper or a service manager has it.
 *
 * DEFER_TASKRUN and SINGLE_ISSUER (Linux 6.1) let completions be made only when
 * this thread asks for them; an older kernel gets a ring without flags.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "loop_internal.h"
#include "table.h"

#define ENTRIES 64u
#define COMPLETIONS 2048u /* more than there are watches at once: none ever overflows */

struct uring {
    struct waiter waiter;
    struct io_uring ring;
    unsigned armed; /* entries that have not completed */
};

static void rest_after(int rc) {
    if (rc < 0 && rc != -EINTR && rc != -ETIME) loop_rest();
}

static struct io_uring_sqe *entry(struct uring *u) {
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&u->ring))) rest_after(io_uring_submit(&u->ring)); /* full: hand over what there is */
    return sqe;
}

static void arm(struct waiter *self, struct watch *w) {
    struct uring *u = (struct uring *)self;
    struct io_uring_sqe *sqe = entry(u);
    u->armed++;
    switch (w->kind) {
    case WATCH_ACCEPT: io_uring_prep_poll_add(sqe, w->fd, POLLIN); break;
    case WATCH_RECEIVE: io_uring_prep_recvmsg(sqe, w->fd, &w->msg, 0); break;
    case WATCH_POLL: io_uring_prep_poll_add(sqe, w->fd, (unsigned)w->events); break;
    }
    io_uring_sqe_set_data(sqe, w);
}

static void cancel(struct waiter *self, struct watch *w) {
    struct uring *u = (struct uring *)self;
    struct io_uring_sqe *sqe = entry(u);
    io_uring_prep_cancel(sqe, w, 0);
    io_uring_sqe_set_data(sqe, NULL);
    io_uring_submit(&u->ring); /* now: its descriptor is about to be closed, and its number may be used again */
}

static void enter(struct uring *u, int64_t deadline) {
    struct io_uring_cqe *cqe = NULL;
    struct __kernel_timespec span, *timeout = NULL;
    if (deadline == AT_ONCE) {
        rest_after(io_uring_submit_and_get_events(&u->ring));
        return;
    }
    if (deadline) {
        int64_t left = deadline - loop_now();
        if (left < 0) left = 0;
        span = (struct __kernel_timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        timeout = &span;
    }
    rest_after(io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, timeout, NULL)); /* ETIME, EINTR: there is just nothing */
}

static void wait_uring(struct waiter *self, int64_t deadline) {
    struct uring *u = (struct uring *)self;
    struct io_uring_cqe *cqe = NULL;
    enter(u, deadline);
    self->woke = loop_now();
    while (io_uring_peek_cqe(&u->ring, &cqe) == 0 && cqe) {
        struct watch *w = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        if (!w) continue;
        u->armed--;
        if (w->kind == WATCH_ACCEPT && result >= 0 && !w->stopped) {
            result = accept_waiting(w);
            if (result == -EAGAIN || result == -EINTR) {
                arm(self, w);
                continue;
            }
        }
        watch_done(self, w, result);
    }
}

/* Everybody has stopped their watches: what the kernel still has of them comes back now. */
static void free_uring(struct waiter *self) {
    struct uring *u = (struct uring *)self;
    int64_t deadline = loop_now() + 100000000;
    while (u->armed && loop_now() < deadline) wait_uring(self, deadline);
    io_uring_queue_exit(&u->ring);
    free(u);
}

static int make_ring(struct io_uring *ring) {
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CLAMP |
                                         IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
                                .cq_entries = COMPLETIONS};
    int rc = io_uring_queue_init_params(ENTRIES, ring, &p);
    if (rc != -EINVAL) return rc;
    p = (struct io_uring_params){.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE, .cq_entries = COMPLETIONS};
    return io_uring_queue_init_params(ENTRIES, ring, &p);
}

static bool knows_all(struct io_uring *ring) {
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool all = probe && io_uring_opcode_supported(probe, IORING_OP_RECVMSG) &&
               io_uring_opcode_supported(probe, IORING_OP_POLL_ADD) &&
               io_uring_opcode_supported(probe, IORING_OP_ASYNC_CANCEL) && (ring->features & IORING_FEAT_NODROP);
    if (probe) io_uring_free_probe(probe);
    return all;
}

struct waiter *waiter_uring_new(const char **why) {
    struct uring *u = memory_or_die(NULL, 1, sizeof *u);
    memset(u, 0, sizeof *u);
    u->waiter = (struct waiter){.name = "io_uring", .arm = arm, .cancel = cancel, .wait = wait_uring, .free = free_uring};
    int rc = make_ring(&u->ring);
    if (rc == 0 && !knows_all(&u->ring)) {
        io_uring_queue_exit(&u->ring);
        rc = -ENOSYS;
    }
    if (rc == 0) return &u->waiter;
    *why = rc == -ENOSYS   ? "this kernel's io_uring is missing or too old"
           : rc == -EPERM  ? "io_uring is forbidden here (seccomp, or kernel.io_uring_disabled)"
           : rc == -ENOMEM ? "no locked memory left for a ring (ulimit -l)"
                           : strerror(-rc);
    free(u);
    return NULL;
}
