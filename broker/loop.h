/* SPDX-License-Identifier: MIT */
/*
 * Waiting for the world: one thread, one io_uring; or poll(2) where io_uring is
 * not to be had (containers, old kernels) or XI_WAIT=futex says so. Both sit
 * behind these few functions, and a caller cannot tell them apart.
 *
 * A watch is one thing waited for, and is one-shot: its function is called once,
 * then loop_again() asks for the next time. Timers are embedded structs. With no
 * timer set and nothing happening, the loop makes no system call at all; but while one thing soon follows the other, it
 * looks for the next one before it sleeps (wire/soon.h).
 */
#ifndef XI_BROKER_LOOP_H
#define XI_BROKER_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum loop_choice { LOOP_AUTO, LOOP_URING, LOOP_POLL };

struct loop;
struct watch;

/* `result`: a new descriptor, bytes received, or poll's revents; negative errno on error. `data`: the bytes received.
 */
typedef void (*loop_fn)(void *context, int result, const void *data);

struct timer {
    int64_t at; /* loop_now() at which it is due; 0: not set */
    void (*fn)(void *context);
    void *context;
    struct timer *next;
};

/* NULL only if io_uring was demanded and is not to be had (reason in *why). Otherwise *why says why it is poll, or "".
 */
struct loop *loop_new(enum loop_choice choice, const char **why);
void loop_free(struct loop *loop);
const char *loop_name(const struct loop *loop);

/* Each begins waiting at once. The descriptor stays the caller's; one that accepts does not block from then on. */
struct watch *loop_accept(struct loop *loop, int fd, loop_fn fn, void *context);
struct watch *loop_receive(struct loop *loop, int fd, size_t largest, loop_fn fn, void *context);
struct watch *loop_poll(struct loop *loop, int fd, short events, loop_fn fn, void *context);
void loop_again(struct loop *loop, struct watch *watch);
/* Its function will not be called any more; the watch is freed when that is safe. Before its descriptor is closed. */
void loop_stop(struct loop *loop, struct watch *watch);

int64_t loop_now(void); /* CLOCK_MONOTONIC, ns */
/* The kernel has no memory for what it was asked: there is no event for that, so it is asked again a little later. */
void loop_rest(void);
void loop_timer(struct loop *loop, struct timer *timer, void (*fn)(void *context), void *context);

/* Waits for something, and calls everybody concerned. */
void loop_turn(struct loop *loop);

#endif
