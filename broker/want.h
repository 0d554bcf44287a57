/* SPDX-License-Identifier: MIT */
/*
 * What a broker does that lacks memory, mappings or descriptors for itself: it
 * ends. All that matters is in shared memory, and the next broker, started by
 * whoever needs one or by the keeper, goes on from there. Going on without what
 * could not be looked at would be worse: a channel that cannot be mapped just now
 * would pass for an empty one, a dead one's lock would stay locked.
 *
 * What is made for a client is another matter: that fails with an error for it.
 */
#ifndef XI_BROKER_WANT_H
#define XI_BROKER_WANT_H

#define WANT_EXIT 70 /* the status with which it ends; the keeper knows it */

/* Until it is ready, who waits for this broker is told why there will be none. -1: nobody waits any more. */
void want_tell(int ready_fd);
_Noreturn void want_die(int error, const char *what);
/* `rc` of looking at a segment: NOMEM, which says nothing about the segment, is the end; the rest is passed on. */
int want_or(int rc);

#endif
