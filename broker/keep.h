/* SPDX-License-Identifier: MIT */
/*
 * Memory that outlives its broker. Segments with names lie in /dev/shm until
 * somebody removes them; memfds end with whoever has them open. So a broker of
 * memfds has a keeper: the process that was started, which holds a second
 * descriptor of each of them, and of the sockets and the lock. The broker is its
 * child, and when that is killed the keeper starts another, which finds all the
 * descriptors and adopts the namespace as a broker of names does.
 *
 * The keeper does nothing else, so that there is little that could end it. If it
 * is killed nevertheless, the broker goes on, without a second life.
 *
 * A service manager that stores descriptors is a keeper too (store.h); what the
 * broker hands over and finds is the same.
 */
#ifndef XI_BROKER_KEEP_H
#define XI_BROKER_KEEP_H

#include <stdbool.h>
#include <stdint.h>

struct kept {
    uint32_t number; /* of the segment; 0: the registry */
    int fd;
};

/*
 * Runs `serve` in a child, and again whenever that is killed. `signal_fd`: signals that the child is to get. `started`
 * is called when a child runs. Returns the exit status of the child that ended as it should, or 1 when children crash as
 * soon as they begin.
 */
int keep_run(int (*serve)(void *context), void (*started)(void *context), void *context, int signal_fd);

/* In the child, or with a manager: what there was when it began. The descriptors are the caller's. */
const struct kept *keep_found(uint32_t *count);
/* Hands a segment to the keeper, before anybody else gets it; and says that it is gone. Nothing without a keeper. */
void keep_hold(uint32_t number, int fd);
void keep_drop(uint32_t number);
/* Says again what could not be said. False: it still cannot. */
bool keep_settle(void);

#endif
