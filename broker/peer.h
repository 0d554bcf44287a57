/* SPDX-License-Identifier: MIT */
/*
 * One connection: packets in, packets with descriptors out. Never blocks on a
 * client: what the socket does not take is queued, meanwhile nothing more is
 * read from that client, and one whose queue overflows is dropped.
 */
#ifndef XI_BROKER_PEER_H
#define XI_BROKER_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "wire/access.h"
#include "wire/protocol.h"

#define PEER_QUEUE 16u

struct outgoing {
    struct xi_reply reply;
    int fds[XI_WIRE_FDS];
    unsigned fd_count;
};

/* Who may connect: the broker's own user, and whom the list names. */
struct admission {
    uint32_t owner;
    const struct xi_access *open_to; /* NULL: nobody else */
};

struct peer {
    uint64_t conn;
    int fd, pidfd, pid;
    struct xi_who who; /* as it was when it connected */
    uint64_t start;
    int refused;     /* 0, or the error with which the first request is answered */
    char words[208]; /* then */
    void *owner;
    struct loop *loop;
    struct watch *in, *out;
    struct outgoing *queue;
    unsigned queued;
    void (*packet)(struct peer *peer, int n, const void *bytes); /* n <= 0: the connection is gone */
};

/* Takes over `fd`. NULL if the client is gone already, or was sent away. */
struct peer *peer_new(struct loop *loop, int fd, uint64_t conn, const struct admission *admission, void *owner,
                      void (*packet)(struct peer *peer, int n, const void *bytes));
void peer_free(struct peer *peer);
/* Says why there will be no conversation, and closes. A client reads this in place of its first answer. */
void peer_turn_away(int fd, int status, const char *words);
/* Sends or queues; the descriptors stay the caller's. False: it cannot be reached any more, drop it. */
bool peer_send(struct peer *peer, const struct xi_reply *reply, const int *fds, unsigned fd_count);
/* Reads the next packet, unless answers are still queued: then when they are gone. */
void peer_listen(struct peer *peer);

#endif
