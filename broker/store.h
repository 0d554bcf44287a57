/* SPDX-License-Identifier: MIT */
/*
 * A service manager (systemd) in the keeper's place. It has what a keeper has,
 * a second descriptor of each segment, of the sockets and of the lock, in its
 * store; it is told of them by datagrams to $NOTIFY_SOCKET, and hands all of them
 * to the broker that it starts after one that was killed ($LISTEN_FDS). So that
 * broker is the process of the service itself, and there is no keeper.
 *
 * Datagrams are taken in the order in which they were sent, before the manager
 * looks at the death of who sent them: what was told is kept.
 *
 * Whether a manager keeps anything at all (FileDescriptorStoreMax= is 0 unless
 * it is set) it does not say, so it is tried: it gets one end of a pipe, and
 * whether that is closed again can be seen at the other. If it is, there is a
 * keeper as without a manager.
 */
#ifndef XI_BROKER_STORE_H
#define XI_BROKER_STORE_H

#include "keep.h"

/* What is kept beside segments. */
enum store_thing { STORE_LOCK, STORE_SOCKET, STORE_OPEN_SOCKET, STORE_THINGS };

/* Looks at the environment, once, before this process has opened anything. `managed` false: it is meant for others. */
void store_begin(const char *ns, bool managed);
/* Takes over what was handed in and is sound; logs what is not, and why. `wanted`: try whether the manager keeps more. */
void store_open(bool wanted);
/* True: the manager keeps descriptors. */
bool store_keeps(void);
/* The segments that were handed in; the descriptors are the caller's. */
const struct kept *store_found(uint32_t *count);
/* A descriptor that was handed in, once, or -1; and what to do with it when it is not sound. */
int store_take(enum store_thing thing);
void store_refuse(enum store_thing thing, int fd, const char *fault);

/* As of a keeper. What cannot be told now is told by store_settle(). Nothing without a manager. */
void store_hold(uint32_t number, int fd);
void store_drop(uint32_t number);
void store_hold_thing(enum store_thing thing, int fd);
void store_drop_thing(enum store_thing thing);
/* False: there is something that still cannot be told. */
bool store_settle(void);
/* All that is dropped has been. Waits for the manager, for a while. */
void store_end(void);
/* "READY=1" and the like. */
void store_say(const char *state);

#endif
