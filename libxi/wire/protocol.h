/* SPDX-License-Identifier: MIT */
/*
 * What interpreters and the broker say to each other over the control socket:
 * AF_UNIX, SOCK_SEQPACKET, one fixed-size message a packet, native layout (both
 * ends are on one host; a version that differs is refused in words). A request
 * has one reply with its serial; the broker also sends events (serial 0) when
 * it likes. Descriptors travel as SCM_RIGHTS with the reply, in the order given
 * below. docs/protocol.md says the same for readers.
 *
 * The socket is RUNTIME/NAMESPACE.sock; RUNTIME is $XI_RUNTIME_DIR, else
 * $XDG_RUNTIME_DIR/xidata, else /tmp/xidata-UID; mode 0700, owned by the user.
 * A namespace that is open to other users has a second socket, for them:
 * SHARED/xidata-open-UID/NAMESPACE.sock; SHARED is $XI_OPEN_DIR, else /run/xidata
 * if there is such a folder, else /tmp. UID is the broker's user's.
 * RUNTIME/NAMESPACE.lock is flock()ed by the broker for as long as it lives
 * (descriptor close-on-exec, so that no child holds on to it).
 */
#ifndef XI_WIRE_PROTOCOL_H
#define XI_WIRE_PROTOCOL_H

#include <assert.h>
#include <stdint.h>

#include "access.h"

#define XI_WIRE_MAGIC 0x69786931u /* "1ixi" */
#define XI_WIRE_VERSION 1u
#define XI_WIRE_FDS 3u /* descriptors in one message, at most */

enum xi_op {
    /*
     * Joins. name: the interpreter's name; text: its language; a: XI_JOIN_*
     * flags; b: 0, or the id of an interpreter that lost its broker and
     * declares itself to the new one (then it opens its channels and takes its
     * references again, with XI_WIRE_ADOPT). pid and uid come from SO_PEERCRED.
     * Reply: a: id, b: slot, c: own_seg, d: mailbox_seg;
     * descriptors: registry (read-only), own (rw), mailbox (rw).
     */
    XI_OP_JOIN = 1,
    /* Leaves: as a death, but orderly. The reply is sent when all is repaired. */
    XI_OP_LEAVE = 2,
    /*
     * Opens (makes) a channel. name: its name; a: mode or 0; b: capacity in
     * bytes or 0; c: XI_OPEN_* flags | XI_WIRE_ADOPT. Of a new one also: d: most
     * values; e: bytes to which it may grow; f: time to live in ns; g: values
     * retained; h: enum xi_when_full; other: where expired values go; access: what other users may do.
     * With XI_WIRE_ADOPT b is 0 or the channel's id, under which it is found
     * though it was removed by name. One handle is counted.
     * Reply: a: channel id, b: segment, c: XI_OPENED_*, d: capacity; descriptor: the channel (rw).
     */
    XI_OP_OPEN = 3,
    /* Drops one handle of channel id a; c: XI_OPEN_SEND or XI_OPEN_RECV, as it was opened. */
    XI_OP_CLOSE = 4,
    /* New arena segment of at least a bytes in all. Reply: a: segment, b: size; descriptors: data (rw), release (rw). */
    XI_OP_ARENA = 5,
    /* Gives back segment a, an arena (and its release words) or borrows. No reader may be left; the owner says so. */
    XI_OP_DROP = 6,
    /* New borrow segment of at least a bytes. Reply: a: segment, b: size; descriptor: rw. */
    XI_OP_BORROWS = 7,
    /* Descriptor of segment a, for namespaces whose segments have no names: arenas read-only, the rest rw. */
    XI_OP_SEGMENT = 8,
    /* Takes / drops one reference on interpreter id a (c: XI_WIRE_ADOPT). Reply: a: its count now. */
    XI_OP_REF = 9,
    XI_OP_UNREF = 10,
    /*
     * Counters. Reply: a: live interpreters, b: channels, c: blocks
     * outstanding (live interpreters' own count, and of the gone what
     * collection still finds named), d: bytes of shared memory. Does not need a JOIN before.
     */
    XI_OP_STATS = 11,
    /* Ends the broker and the namespace, as SIGTERM does. Does not need a JOIN before. */
    XI_OP_SHUTDOWN = 12,
    /* New table for a group that is to acknowledge, in channel id a: b: the group; c: window, a power of two; d:
     * max_deliveries; e: timeout in ns; other: the channel of dead letters or empty. Reply: a: segment, b: size;
     * descriptor: rw. It goes when no group names it any more (and whoever asked for it has used it, or is gone). */
    XI_OP_ACKS = 13,
    /*
     * A new ring for channel id a, of b bytes: a power of two, more than the channel's capacity, at most what it may grow to.
     * Its first page is made; whoever asked reserves the rest, then moves into it (layout.h, "Growing"). AGAIN: somebody
     * else is about to move. Reply: a: segment; descriptor: rw.
     */
    XI_OP_RING = 14,
    /* The sender's move of channel id a is over, or given up: rings of it that are not in use are removed. */
    XI_OP_RING_DROP = 15,
    /* Removes the channel `name`, if its id is a or a is 0, with whatever is in it: whoever has it open gets XI_E_REMOVED. Does
     * not need a JOIN before. Reply: a: values that no group, or not every group, had received. */
    XI_OP_REMOVE = 16,
    /* Descriptor of segment a, read-only: of the registry (0), or of what this user may read: channels, and interpreters'
     * own segments. For those who look on without joining, in namespaces whose segments have no names. Does not need a JOIN
     * before. */
    XI_OP_OBSERVE = 17,
    XI_OP_LAST = 17,

    /* Events, from the broker. */
    XI_EV_END = 64,     /* the last reference is gone: end, please */
    XI_EV_SHUTDOWN = 65 /* the namespace is being removed */
};

#define XI_WIRE_ADOPT 0x100u

/* Of the reply to OPEN. Rights: XI_ACCESS_*, what this user may do in the channel; shared: others than this user may too. */
#define XI_OPENED(mode, rights, shared) ((uint64_t)(mode) | (uint64_t)(rights) << 32 | (uint64_t)(shared) << 40)
#define XI_OPENED_MODE(c) ((uint32_t)(c))
#define XI_OPENED_RIGHTS(c) ((uint32_t)((c) >> 32) & XI_ACCESS_BOTH)
#define XI_OPENED_SHARED(c) (((c) >> 40 & 1) != 0)

struct xi_request {
    uint32_t magic;
    uint16_t version;
    uint16_t op;
    uint32_t serial; /* not 0 */
    uint32_t pad_;
    uint64_t a, b, c, d, e, f, g, h;
    char name[80]; /* NUL-terminated, or the request is refused */
    char text[32];
    char other[80];
    struct xi_access access[XI_ACCESS_MAX];
};
static_assert(sizeof(struct xi_request) == 400, "");

struct xi_reply {
    uint32_t magic;
    uint16_t version;
    uint16_t op;     /* of the request, or an XI_EV_* */
    uint32_t serial;
    int32_t status;  /* 0 or enum xi_error */
    uint64_t a, b, c, d;
    char text[208];  /* with status < 0: the sentence for people */
};
static_assert(sizeof(struct xi_reply) == 256, "");

#endif
