/* SPDX-License-Identifier: MIT */
/*
 * The ring behind a pollable descriptor (pollfd.h), and what happens to rings
 * that are not needed any more.
 *
 * The end of a ring makes a blocking call of the thread that made it return
 * EINTR, some milliseconds later: not what a library should do to its host. So a
 * ring is not ended while its thread lives. It is kept with that thread, for the
 * next descriptor that the thread arms, and ends when the thread does.
 */
#ifndef XI_WAIT_POLLRING_H
#define XI_WAIT_POLLRING_H

#include "sleep.h"

struct xi_pollring;

/* A ring of the calling thread that signals `event`. NULL: there is none to be had here. */
struct xi_pollring *xi_pollring_take(int event);
/* From any thread. `word`: what it waited for; NULL in a forked child, where there is nothing to be kept. */
void xi_pollring_give(struct xi_pollring *r, _Atomic uint32_t *word);
/* As xi_pollfd_arm(). `signalled`: `event` is readable already. False: another thread's ring, or broken. */
bool xi_pollring_arm(struct xi_pollring *r, _Atomic uint32_t *word, uint32_t seen, int control, int64_t until, bool signalled,
                     enum xi_wake_reason *why);
/* In a forked child: begins with nothing. */
void xi_pollring_forked(void);

#endif
