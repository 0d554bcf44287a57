/* SPDX-License-Identifier: MIT */
/* What the loop and its two ways of waiting share. */
#ifndef XI_BROKER_LOOP_INTERNAL_H
#define XI_BROKER_LOOP_INTERNAL_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "loop.h"

#define AT_ONCE ((int64_t)-1)

enum watch_kind { WATCH_ACCEPT, WATCH_RECEIVE, WATCH_POLL };

struct watch {
    enum watch_kind kind;
    int fd;
    short events;
    bool armed;   /* waited for now */
    bool stopped; /* freed when no longer armed */
    loop_fn fn;
    void *context;
    struct watch *next; /* loop_poll.c: all of them */
    struct msghdr msg;
    struct iovec iov;
    size_t size;
    unsigned char data[]; /* of WATCH_RECEIVE */
};

struct waiter {
    const char *name;
    uint64_t done; /* watches that have been called so far */
    int64_t woke;  /* loop_now() after the last wait, before them */
    void (*arm)(struct waiter *self, struct watch *watch);
    /* The watch is armed and its function must not be called any more. */
    void (*cancel)(struct waiter *self, struct watch *watch);
    /* Waits until something happened or `deadline` (0: none; AT_ONCE: it does not wait) and calls watch_done for what did. */
    void (*wait)(struct waiter *self, int64_t deadline);
    void (*free)(struct waiter *self);
};

/* NULL with the reason in *why. */
struct waiter *waiter_uring_new(const char **why);
struct waiter *waiter_poll_new(void);
/* A descriptor or negative errno. Watched on after EAGAIN (who had connected has gone, or another took it) and EINTR. */
int accept_waiting(const struct watch *watch);
/* Disarms and calls, or frees it if it was stopped meanwhile. */
void watch_done(struct waiter *waiter, struct watch *watch, int result);

#endif
