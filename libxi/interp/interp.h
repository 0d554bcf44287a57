/* SPDX-License-Identifier: MIT */
/*
 * The state of one interpreter, in one struct, in private memory. Its fields are
 * named as in CPython's PyInterpreterState where they mean the same: id, next,
 * id_refcount (in the registry's slot), and in place of its memory the arena.
 *
 * Locks in this process, in the order in which they may be nested:
 *   calls_mutex > control.mutex
 *   sets.mutex > a set's own > channels_mutex > arena.mutex > borrows.mutex > maps (maps.c)
 *   control.mutex > channels_mutex, maps.c's mutex
 * None is held while sleeping for a value. The locks of channels, in shared
 * memory, are only taken with none of these held, but for a set's own, which
 * nobody wants who holds one.
 */
#ifndef XI_INTERP_INTERP_H
#define XI_INTERP_INTERP_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "../arena/arena.h"
#include "../arena/maps.h"
#include "../error.h"
#include "../wait/doorbell.h"
#include "../wire/layout.h"
#include "../wire/order.h"
#include "../wire/names.h"
#include "../wire/protocol.h"
#include "../wire/soon.h"
#include "../xidata.h"
#include "connect.h"

/* The connection to the broker. Calls are one at a time; events may come in between. */
struct xi_control {
    pthread_mutex_t mutex;
    _Atomic int fd; /* -1: lost; the next call connects (and starts a broker) again */
    uint64_t connection; /* its number, under the mutex: another one was told what had been noted by then, and no more */
    uint32_t serial;
    struct xi_soon soon; /* answers */
    _Atomic int64_t again; /* when who sleeps tries once more, after that failed */
    _Atomic uint32_t numbers, unused; /* xi_control_number(): given out so far; one that came to nothing, or 0 */
    struct xi_given { /* segments given back, oldest first, until the broker says so: the next one is told of them too */
        uint32_t *segment;
        size_t count, told, capacity; /* told: of the first, on this connection */
    } given;
};

/* The borrow table: entries are shared memory (layout.h), which are free is known here. */
#define XI_BORROW_CHUNKS 24
struct xi_borrows {
    pthread_mutex_t mutex;
    struct {
        struct xi_borrow *entries;
        uint32_t count, base;
        struct xi_map map; /* not for the first, which lies in the own segment */
    } chunk[XI_BORROW_CHUNKS];
    uint32_t chunks, total;
    uint32_t *free; /* stack of free indexes */
    uint32_t free_count;
};

/* Free functions: registered once, named by index; and the calls that are due. */
#define XI_FREE_FUNCTIONS 256
struct xi_due {
    uint32_t index;
    uint64_t argument;
};
struct xi_frees {
    pthread_mutex_t mutex;
    struct {
        xi_free_fn fn;
        void *context;
        char name[32];
    } fn[XI_FREE_FUNCTIONS];
    _Atomic uint32_t count;
    struct xi_due *due; /* a ring buffer that grows */
    size_t due_head, due_count, due_capacity;
    atomic_size_t pending; /* due_count, to be looked at without the mutex */
};

/* Sets (channel/set.c): the words of the mailbox's ready bits belong to one set each. */
struct xi_sets {
    pthread_mutex_t mutex;
    uint64_t words[XI_MAX_MEMBERS / 64 / 64]; /* taken: a bit each */
    struct xi_set *first;
};

struct xi_interp {
    int64_t id;
    struct xi_interp *next; /* of this process */
    uint32_t slot, flags;
    uint32_t life;                 /* of the process; a forked child has another (see xi_alive) */
    atomic_uint references;        /* the joiner's, one per channel handle, one per borrowed message */
    _Atomic bool leaving, left;
    atomic_int ending;             /* XI_E_ENDING or XI_E_BROKER once told so */
    struct xi_place place;         /* the namespace, and whose it is */
    char name[32], language[32];
    uint64_t epoch;
    int64_t spin_ns;
    struct xi_map own_map, mailbox_map;
    const struct xi_registry *registry; /* the observer's mapping */
    struct xi_own *own;
    struct xi_mailbox *mailbox;
    struct xi_control control;
    struct xi_arena arena;
    struct xi_borrows borrows;
    struct xi_frees frees;
    struct xi_bells bells;
    struct xi_sets sets;
    pthread_mutex_t calls_mutex;
    struct xi_calls *calls;        /* channel/call.c; NULL until the first */
    struct xi_lane *lanes;         /* of callers that were replied to */
    pthread_mutex_t channels_mutex;
    pthread_cond_t idle;           /* a waiting call has returned, while leaving or freeing a handle */
    struct xi_channel *channels;   /* open handles */
    uint32_t ack_handles;          /* the number last given to one whose group acknowledges; under channels_mutex */
    struct xi_ref_held {           /* references that this interpreter holds, to declare to a new broker */
        int64_t id;
        uint32_t count;
    } *refs;
    size_t refs_count, refs_capacity, refs_wanted; /* wanted: asked for at the broker just now */
    xi_observer *observer;
    atomic_uint waiting;           /* calls of this interpreter that are asleep */
};

/* 0, or XI_E_FORKED. One load: a page that the kernel wipes in a forked child. */
extern __attribute__((visibility("hidden"))) const _Atomic uint32_t *xi_life_page;
static inline bool xi_alive(const struct xi_interp *me) {
    return atomic_load_explicit(xi_life_page, memory_order_relaxed) == me->life;
}
int xi_fail_forked(void);

void xi_interp_hold(struct xi_interp *me);
void xi_interp_drop(struct xi_interp *me); /* frees it with the last */
/* 0 or why a wait must end: XI_E_LEFT, XI_E_ENDING, XI_E_BROKER. */
int xi_interp_stopped(struct xi_interp *me);

/* control.c: calls lock control.mutex; xi_control_connect and xi_control_exchange want it held. */
int xi_control_connect(struct xi_interp *me, bool first);
/* One request and its reply. Descriptors received beyond `want` are closed; fds[] is -1 where none came. May block. */
int xi_control_call(struct xi_interp *me, struct xi_request *request, struct xi_reply *reply, int *fds, unsigned want);
/* The same. Where it succeeds note(arg) writes down what the next broker is to be told, before there can be a next one: it is
 * called with control.mutex held. */
int xi_control_call_noted(struct xi_interp *me, struct xi_request *request, struct xi_reply *reply, int *fds, unsigned want,
                          void (*note)(void *arg), void *arg);
/*
 * A request that takes back what the broker counts for us: of that connection, where one is given. before(arg) forgets what the
 * next broker would be told, meanwhile(arg) is called while the broker works on it; both once, whatever comes of it, with
 * control.mutex held. Nothing can fail: no broker counts what nobody declares.
 */
struct xi_around {
    void (*before)(void *arg);
    void (*meanwhile)(void *arg);
    void *arg;
    uint64_t connection; /* 0: whichever */
};
void xi_control_undo(struct xi_interp *me, struct xi_request *request, struct xi_around around);
/* A number for a request that makes a segment for this interpreter alone: a broker that is asked twice, because an earlier
 * one died over it, gives the same segment. Ended when it is known what came of it: with 0, or an error. */
uint32_t xi_control_number(struct xi_interp *me);
void xi_control_number_end(struct xi_interp *me, uint32_t number, int rc);
/*
 * The same on behalf of what can do without: waits for the answer for so long only (then TIMEOUT, without a sentence; it may
 * be carried out yet, and its reply is thrown away), and is tried once. Starts a broker where there is none.
 */
int xi_control_ask(struct xi_interp *me, struct xi_request *request, struct xi_reply *reply, int *fds, unsigned want,
                   int64_t patience);
/* Takes what has arrived without blocking: events, or the broker's death (then it connects anew). */
void xi_control_drain(struct xi_interp *me);
/* True if there is no connection and none was tried for a second: somebody has to, though all who sleep sleep for less. */
bool xi_control_overdue(struct xi_interp *me);
/* Sends without waiting, for the answer or for anything else. False: it could not be sent now. */
bool xi_control_post(struct xi_interp *me, struct xi_request *request);
/* Gives back a segment of ours that nobody uses (any more), whatever becomes of the broker. False: no memory to remember it
 * by, or, unless it may wait, somebody else is talking to the broker. Keeps the error's sentence. */
bool xi_control_give_back(struct xi_interp *me, uint32_t segment, bool wait);
void xi_control_close(struct xi_interp *me);
/* Declares open handles to a new broker (channel.c) with control.mutex held. */
int xi_declare_channels(struct xi_interp *me);
int xi_control_exchange(struct xi_interp *me, struct xi_request *request, struct xi_reply *reply, int *fds, unsigned want);

/* borrow.c: take reserves a free entry (nothing in shared memory changes), commit fills it, drop frees it. */
int xi_borrows_init(struct xi_interp *me);
void xi_borrows_deinit(struct xi_interp *me);
int xi_borrow_take(struct xi_interp *me, uint32_t *index);
struct xi_borrow *xi_borrow_at(struct xi_interp *me, uint32_t index);
void xi_borrow_drop(struct xi_interp *me, uint32_t index);

/* free.c */
int xi_frees_init(struct xi_interp *me);
void xi_frees_deinit(struct xi_interp *me);
/* False when there is no memory for it: the block stays where it is, to be looked at again. */
bool xi_free_enqueue(struct xi_interp *me, uint32_t index, uint64_t argument);
/* Runs what is due, unless XI_JOIN_MANUAL_FREE. Three loads when nothing is. */
void xi_free_poll_slow(struct xi_interp *me);
static inline void xi_free_poll(struct xi_interp *me) {
    if (__builtin_expect(xi_load_relaxed(&me->mailbox->reclaim) != 0 ||
                             atomic_load_explicit(&me->arena.debt, memory_order_relaxed) != 0 ||
                             atomic_load_explicit(&me->frees.pending, memory_order_relaxed) != 0, 0))
        xi_free_poll_slow(me);
}
bool xi_free_due(struct xi_interp *me);

/* observe.c: maps the registry behind `fd`, which it takes over, also on error. */
int xi_observe_fd(const struct xi_place *place, int fd, xi_observer **out);
const struct xi_registry *xi_observer_registry(const xi_observer *o);
/* Whose channel it is, and what others may do with it. */
void xi_observer_read_access(const xi_observer *o, uint64_t channel, xi_channel_info *info);
/* Open handles of a channel, as the broker last counted. */
uint32_t xi_observer_handles(const xi_observer *o, uint64_t channel);
uint64_t xi_observer_channel_named(const xi_observer *o, const char *name); /* its id, or 0 */

/* The mailbox of a peer, mapped on first need; NULL if there is none such. *e goes to xi_mailbox_put() after use. */
struct xi_mailbox *xi_mailbox_get(struct xi_interp *me, uint32_t slot, struct xi_map_entry **e);
void xi_mailbox_put(struct xi_map_entry *e);
/* After completing a release: tells the owner of the block that a free function may be due. */
void xi_tell_owner(struct xi_interp *me, uint32_t owner_slot);

#endif
