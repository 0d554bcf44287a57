/* SPDX-License-Identifier: MIT */
/*
 * A descriptor for event loops, which becomes readable when somebody rings a
 * doorbell. Knows a word and a control socket, not what they are about.
 *
 * The descriptor is an eventfd. With io_uring it is registered with a ring that
 * holds a FUTEX_WAIT on the word, a poll of the control socket and a timeout of
 * a second at most: the kernel itself signals it, and no thread is needed. A ring belongs
 * to the thread that armed it; armed by another, it is made anew (some 20 us).
 * When the thread that armed it ends, the kernel ends its wait, which signals:
 * whoever polls looks, and arms it for itself.
 *
 * Where there is no such ring, a helper thread sleeps in futex(2) instead: one
 * for each descriptor, with all signals blocked. A ring then costs a switch to it.
 *
 * One thread at a time may use it, whichever; freeing included.
 */
#ifndef XI_WAIT_POLLFD_H
#define XI_WAIT_POLLFD_H

#include "sleep.h"

struct xi_pollfd;

/* `word` stays what it watches. Errors: NOMEM (descriptors, memory, threads), SYSTEM. */
int xi_pollfd_new(_Atomic uint32_t *word, struct xi_pollfd **out);
/* `inherited`: in a forked child, whose copy has neither ring nor thread. */
void xi_pollfd_free(struct xi_pollfd *p, bool inherited);
int xi_pollfd_fd(const struct xi_pollfd *p);
/*
 * Not readable from now on, until *word != seen, or `control` (a descriptor, or
 * -1) is readable, or a second has passed, or it is `until` (-1: none), or
 * xi_pollfd_signal(): once. Returns why it was readable: XI_WAKE_CONTROL,
 * XI_WAKE_LOOK, else XI_WAKE_BELL. What happened before may make it readable once
 * more.
 */
enum xi_wake_reason xi_pollfd_arm(struct xi_pollfd *p, uint32_t seen, int control, int64_t until);
/* Makes it readable, and keeps it so until it is armed. */
void xi_pollfd_signal(struct xi_pollfd *p);
/* Sleeps until it is readable. XI_WAKE_BELL, XI_WAKE_TIME, XI_WAKE_SIGNAL. */
enum xi_wake_reason xi_pollfd_sleep(struct xi_pollfd *p, int64_t deadline);
/* True: the kernel signals it; false: a helper thread does. */
bool xi_pollfd_is_ring(const struct xi_pollfd *p);

#endif
