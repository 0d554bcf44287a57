/* SPDX-License-Identifier: MIT */
/*
 * Finding the broker of a namespace and speaking packets with it. Knows no
 * interpreters: those who only look at a namespace use it too.
 */
#ifndef XI_INTERP_CONNECT_H
#define XI_INTERP_CONNECT_H

#include "../wire/names.h"
#include "../wire/protocol.h"

/* A connected socket. XI_E_AGAIN, without a sentence: nobody listens. Errors: BROKER, ACCESS (another user's, and not as
 * it should be), INVAL, NOMEM. May block while the broker is busy. */
int xi_broker_connect(const struct xi_place *place, int *fd);
/* One packet: 1 got, 0 the broker is gone, -errno. fds (XI_WIRE_FDS of them) are -1 or open. `flags`: of recvmsg(2). */
int xi_packet_receive(int fd, struct xi_reply *reply, int *fds, int flags);
void xi_close_all(int *fds, unsigned n);
void xi_request_init(struct xi_request *r, enum xi_op op);
/* If the packet says that there will be no conversation: the error that it is, with its sentence. Else 0. */
int xi_turned_away(const struct xi_reply *reply);
/* A read-only descriptor of a segment (0: the registry), for who looks on. Waits for a second at most. Errors: as the
 * broker's, and BROKER. */
int xi_broker_observe(int socket, uint32_t segment, int *fd);

#endif
