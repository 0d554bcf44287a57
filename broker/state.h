/* SPDX-License-Identifier: MIT */
/*
 * The broker's decisions: a pure function of (state, event) to a list of
 * actions. Nothing in state*.c makes a system call, reads a clock or touches
 * shared memory, so a test replays any order of events from a seed and checks
 * the invariants after each (state_is_valid).
 *
 * The life of an interpreter, by slot:
 *
 *     FREE -> LIVE           JOIN
 *     LIVE -> DYING          its process died, or LEAVE; the world repairs
 *     DYING -> FREE, ORPHAN  repaired; ORPHAN while it has arena segments
 *     ORPHAN -> FREE         none of them is named any more: all are collected together,
 *                            as a value in one may refer to blocks in another
 *
 * A DYING interpreter's handles stay counted until its repair is done, because
 * only then can a channel be asked whether it is empty. Its references are
 * dropped at once.
 *
 * Making things can fail (shared memory is full, descriptors run out), so a
 * request that makes something is decided in full, with the actions that make
 * it before the action that replies. Should one of those fail, the rest of the
 * list is thrown away and EVENT_FAILED fed in: the state takes the decision
 * back and answers with the error.
 *
 * Declaring. After an adoption, or when an interpreter lost its connection and
 * comes back, what it holds is unknown until it has declared it again. While
 * anybody is declaring, no channel is removed and nobody is told to end: both
 * are judged when the last one has finished.
 *
 * Who pays. Every segment, channel and interpreter is charged to the uid that
 * caused it, until the very byte is given back.
 *
 * Who may. In a namespace that is open to other users a channel is its maker's
 * user's and those' whom its list names; what an interpreter has opened, and for
 * what, says whose segments it gets (state_access.c). Otherwise all are of one
 * user, and nothing of this is asked.
 */
#ifndef XI_BROKER_STATE_H
#define XI_BROKER_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "table.h"
#include "wire/access.h"
#include "wire/layout.h"
#include "wire/protocol.h"

struct state_limits {
    uint64_t bytes;
    uint32_t segments, channels, interps;
};
#define STATE_LIMITS_DEFAULT                                                                                           \
    { (uint64_t)256 << 30, 65536, XI_MAX_CHANNELS, XI_MAX_INTERPS - 1 }

struct user {
    uint32_t uid;
    struct state_limits used;
};

enum interp_life { INTERP_FREE, INTERP_LIVE, INTERP_DYING, INTERP_ORPHAN };

/* Segments that an interpreter owns; an arena and its release words are one entry, under the arena's number. */
struct held {
    uint32_t number;
    uint32_t kind;  /* enum xi_segment_kind */
    uint64_t size;  /* of the segment `number` */
    uint64_t bytes; /* charged: with an arena's release words */
    uint32_t asked; /* the owner's number for its request, or 0: who asks again gets the same */
};

struct interp {
    enum interp_life life;
    int64_t id;
    uint64_t conn; /* 0: disconnected */
    int32_t pid;
    uint32_t uid;
    uint64_t start;
    uint32_t flags;     /* XI_JOIN_REQUIRES_REF */
    uint32_t refcount;  /* sum over holders */
    uint32_t published; /* what the registry shows: not lowered while somebody is declaring */
    bool had_ref;       /* wants to be told to end when refcount falls to zero */
    bool told_end;
    bool declaring;
    bool used;           /* has opened a channel or taken a reference, ever */
    bool opened_unknown; /* adopted: `handles` may miss channels that it opened under an earlier broker */
    uint64_t leave_conn; /* who waits for the reply to LEAVE, or 0 */
    uint32_t leave_serial;
    struct table handles; /* channel id to open handles (see handles_all); 0: opened once, closed since */
    struct table opened;  /* in an open namespace: channel id to what it was ever opened for, XI_ACCESS_* */
    struct table refs;    /* interpreter id to references held on it */
    struct held *held;
    uint32_t held_count, held_capacity;
};

/* A segment of a channel besides its own. */
struct part {
    uint32_t number;
    uint32_t kind; /* enum xi_segment_kind */
    uint64_t size;
    uint32_t uid;
    int64_t maker; /* id of the interpreter that asked for it */
    bool filling;  /* a ring: its maker is about to move the channel into it */
};

struct chan {
    uint64_t id; /* 0: free */
    uint32_t segment;
    uint32_t mode;
    uint64_t capacity;
    uint64_t grow_max; /* 0: bounded; else bytes to which its ring may grow, a power of two */
    uint32_t handles, producers, consumers; /* open ones; of those, that may send and that receive */
    uint32_t told_producers, told_consumers; /* what its members see: not lowered while somebody is declaring */
    bool retains;      /* values, for groups that join later */
    bool removed;      /* by name, which another may have now; it goes with its last handle */
    bool ended;        /* and all its groups have ended */
    uint32_t uid;
    uint32_t next; /* index + 1 in the hash chain, or in the free list */
    uint32_t part_count;
    struct part *parts;
    char name[80];
    struct xi_access access[XI_ACCESS_MAX];
};

enum event_kind {
    EVENT_CONNECT,    /* conn, uid, gid, groups, pid, start */
    EVENT_DISCONNECT, /* conn */
    EVENT_REQUEST,    /* conn, request: well-formed (see request.h) */
    EVENT_FAILED,     /* status, text: the action just tried failed */
    EVENT_DEATH,      /* slot, id */
    EVENT_REPAIRED,   /* slot, id */
    EVENT_UNNAMED,    /* slot, id: nothing names any arena segment of this orphan any more */
    EVENT_EMPTY,      /* channel: nothing undelivered in it */
    EVENT_PART_UNUSED, /* channel, number: nobody uses this part of it any more */
    EVENT_ENDED,      /* channel: removed by name, and every group of it has ended */
    EVENT_SETTLED,    /* slot, id: silent for a second since ACTION_SETTLE; number: 1 if its process knows that it has joined */
    EVENT_ADOPTED,    /* all that there was has been adopted */
    EVENT_SHUTDOWN
};
struct event {
    enum event_kind kind;
    uint64_t conn;
    uint32_t uid, gid;
    const uint32_t *groups; /* copied */
    uint32_t group_count;
    int32_t pid;
    uint64_t start;
    const struct xi_request *request;
    uint32_t slot;
    int64_t id;
    uint64_t channel;
    uint32_t number;
    int status;
    const char *text;
};

enum action_kind {
    ACTION_REPLY,         /* conn, reply (and the descriptors that its op demands) */
    ACTION_NOTIFY,        /* conn, reply.op: an event of the protocol */
    ACTION_DROP,          /* conn: close it */
    ACTION_MAKE_INTERP,   /* slot, request: own segment and mailbox; fill the registry's slot */
    ACTION_MAKE_CHANNEL,  /* index, number, request: what it is to be like */
    ACTION_MAKE_ARENA,    /* slot, number, size */
    ACTION_MAKE_BORROWS,  /* slot, number, size */
    ACTION_MAKE_PART,     /* slot, index, number, size, request */
    ACTION_REMOVE,        /* number: remove the segment */
    ACTION_NOTE,          /* slot, index, rights: has opened the channel for this too */
    ACTION_FORGET,        /* index: nobody has opened that channel, which goes */
    ACTION_CLEAR_CHANNEL, /* index: clear the registry's entry */
    ACTION_CLEAR_SLOT,    /* slot: FREE */
    ACTION_ORPHAN_SLOT,   /* slot: ORPHAN */
    ACTION_PUBLISH,       /* slot: reference count and arena bytes */
    ACTION_PUBLISH_CHAN,  /* index: handles */
    ACTION_TELL_PEERS,    /* index: how many may send and receive, in the channel itself; ring everybody where it is none */
    ACTION_END_CHANNEL,   /* index, channel: removed by name; end every group of it, then EVENT_ENDED */
    ACTION_WATCH,         /* slot, conn: watch for the death of the process */
    ACTION_UNWATCH,       /* slot */
    ACTION_TELL_END,      /* slot: flag in its mailbox, ring its sleepers */
    ACTION_REPAIR,        /* slot: repair; then EVENT_REPAIRED */
    ACTION_COLLECT,       /* look whether orphans' segments are still named; EVENT_UNNAMED for those that are not */
    ACTION_CHECK,         /* index, channel: EVENT_EMPTY if it is */
    ACTION_CHECK_PARTS,   /* index, channel: EVENT_PART_UNUSED for each part that nobody uses */
    ACTION_SETTLE,        /* slot: EVENT_SETTLED in a second, counted from the latest of these */
    ACTION_SHUTDOWN
};
struct action {
    enum action_kind kind;
    uint32_t slot, index, number, rights;
    uint64_t conn, channel, size;
    const struct xi_request *request;
    struct {
        uint16_t op;
        uint32_t serial;
        int32_t status;
        uint64_t a, b, c, d;
        uint32_t segment_kind; /* of XI_OP_SEGMENT: what kind is asked for */
    } reply;
};

struct conn {
    int32_t pid;
    struct xi_who who;
    uint64_t start;
    uint32_t slot; /* 0: has not joined */
};

struct state {
    struct state_limits limits;       /* of one user */
    struct state_limits other_limits; /* of one user other than `owner` */
    bool open;                        /* users other than `owner` may join */
    uint32_t owner;                   /* uid of the broker */
    struct interp *interps; /* XI_MAX_INTERPS; slot 0 is the broker itself, never used */
    struct chan *chans;
    uint32_t chan_capacity, chan_count, chan_free; /* chan_free: index + 1 */
    uint32_t *buckets;                             /* of names: index + 1 */
    uint32_t bucket_mask;
    uint64_t seed;
    struct table ids;      /* interpreter id to slot, LIVE ones */
    struct table chan_ids; /* channel id to index */
    struct table segments; /* number to kind << 32 | slot, or index of a channel */
    struct table conns;    /* number to struct conn * */
    struct user *users;
    uint32_t user_count;
    int64_t next_id;
    uint64_t next_channel;
    uint32_t next_segment, last_slot;
    uint32_t live, dying, orphans, declaring; /* interpreters */
    uint64_t bytes, bytes_peak, served;
    bool shutdown;

    /* the request being decided, and what to take back should an action fail */
    struct {
        uint64_t conn;
        uint32_t serial;
        uint16_t op;
        bool made; /* undo is needed */
        bool rejoined;
        uint32_t slot, index, number;
        uint64_t handle; /* as in struct interp: the one that was opened */
    } current;
    /* the answer of the last step */
    struct action *actions;
    uint32_t action_count, action_capacity;
    char words[sizeof((struct xi_reply *)0)->text]; /* of the one reply with status < 0 that a step can have */
};

void state_init(struct state *st, const struct state_limits *limits, uint64_t seed);
void state_deinit(struct state *st);
/* The namespace is open to other users than its owner: from now on it matters who somebody is. `others`: each one's. */
void state_open(struct state *st, uint32_t owner, const struct state_limits *others);
/* Decides; the answer is st->actions[0 .. action_count), valid until the next step. */
void state_step(struct state *st, const struct event *event);

/* What a new broker finds. Counters first, then interpreters, their segments, channels; state_adopt_done at the end. */
struct adopted_interp {
    uint32_t slot;
    int64_t id;
    int32_t pid;
    uint32_t uid;
    uint64_t start;
    uint32_t flags, refcount;
    bool told_end, orphan, used;
};
void state_adopt_counters(struct state *st, int64_t next_id, uint32_t next_segment, uint64_t next_channel);
void state_adopt_interp(struct state *st, const struct adopted_interp *found);
void state_adopt_segment(struct state *st, uint32_t slot, const struct held *held);
void state_adopt_channel(struct state *st, uint32_t index, const struct chan *found);
/* After slots and channels: what an interpreter had opened. */
void state_adopt_opened(struct state *st, uint32_t slot, uint32_t index, uint32_t rights);
void state_adopt_part(struct state *st, uint32_t index, const struct part *found);
void state_adopt_done(struct state *st);

/*
 * Handles that one interpreter has of one channel, by what they may do: 21 bits each in one number.
 */
enum handle_kind { HANDLE_BOTH, HANDLE_SENDS, HANDLE_RECEIVES };
#define HANDLE_BITS 21
#define HANDLE_MOST (((uint64_t)1 << HANDLE_BITS) - 1)
#define HANDLE_ONE(kind) ((uint64_t)1 << HANDLE_BITS * (kind))
static inline uint32_t handles_of(uint64_t handles, enum handle_kind kind) {
    return (uint32_t)(handles >> HANDLE_BITS * kind & HANDLE_MOST);
}
static inline uint32_t handles_sending(uint64_t handles) {
    return handles_of(handles, HANDLE_BOTH) + handles_of(handles, HANDLE_SENDS);
}
static inline uint32_t handles_receiving(uint64_t handles) {
    return handles_of(handles, HANDLE_BOTH) + handles_of(handles, HANDLE_RECEIVES);
}
static inline uint32_t handles_all(uint64_t handles) {
    return handles_sending(handles) + handles_of(handles, HANDLE_RECEIVES);
}

/* Index of the channel with this id, or -1. */
int64_t state_channel_index(const struct state *st, uint64_t id);
/* Arena bytes of an interpreter, release words included. */
uint64_t state_arena_bytes(const struct interp *in);
/* Every invariant, recomputed from scratch; false with the reason in *why. For tests; slow. */
bool state_is_valid(const struct state *st, const char **why);

#endif
