/* SPDX-License-Identifier: MIT */
/*
 * What the two files of the randomized runs share: what a run is (test_history.c
 * draws it and judges), and how far its processes (history_work.c) have come.
 */
#ifndef XI_TEST_HISTORY_RUN_H
#define XI_TEST_HISTORY_RUN_H

#include "harness.h"
#include "history.h"

#define PROCESSES 8
#define WORKERS 24
#define NAMED 64
#define SERVED NAMED /* groups that one consumer receives for, at most */
#define ACTORS 512u
#define EVENTS (1u << 17)
#define BATCH 16
#define HOLD 3 /* messages that a consumer keeps, in the order in which they came */
#define DEAD "history.dead"
#define RUN_MOST (40 * SECOND)
#define PATIENCE (800 * MS) /* sleepers look by themselves after a second */
#define LARGE ((size_t)200000)

/* ------------------------------------------------------------------ what a run is */

struct worker {
    bool producer;
    uint32_t process;
    uint32_t actor;  /* of its present life */
    uint32_t served; /* of a consumer: named groups, from `first` on; 0: the default one, or one of its own */
    uint32_t first;
    uint32_t group; /* in the history, where `served` is 0 */
};

struct plan {
    uint64_t seed;
    uint32_t mode, named, processes, workers;
    uint64_t capacity, values; /* `values`: of all producers together, about */
    int64_t spin_ns;
    uint32_t batch;         /* values that one call sends or receives, at most */
    uint32_t blocks, large; /* of 256 values how many go through the arena, and how many of those are large */
    uint32_t rests;         /* of 256 calls how many are followed by a rest */
    bool one_interp;        /* the threads of a process are one interpreter */
    bool groups_first;      /* all groups are there before the first value */
    bool close_early;       /* while producers send */
    bool kill;
    bool stop;           /* workers and the broker are stopped, for as long as others wait without harm, and go on */
    bool broker;         /* the broker is killed, too */
    bool calls;          /* producers call, consumers serve */
    int64_t ttl_ns;      /* of the channel; 0: values live for ever */
    bool own_ttl;        /* some values have a time to live of their own */
    uint64_t grow;       /* bytes to which the ring may grow; 0: it does not */
    uint64_t most;       /* values that the channel may hold; 0: as many as fit */
    uint32_t when_full;  /* enum xi_when_full */
    uint32_t retain;     /* values kept for groups that join later */
    uint32_t from, last; /* where groups begin */
    bool acks;           /* groups acknowledge, as these say: */
    uint32_t max_deliveries, window;
    int64_t overdue; /* their timeout */
    bool dead_letters;
    bool sets;      /* consumers wait by a set */
    bool need_peer; /* consumers ask to be told when no producer is left (there is one: the keeper) */
    bool patient;   /* nobody but who serves several groups looks by itself: a wake that is lost is missed */
    bool lockstep;  /* nobody sends before all that was sent is received: every wake is needed */
    struct worker worker[WORKERS];
};

/* Drawn by the parent before anybody is forked. */
extern struct plan plan;
extern struct history *H;
extern uint32_t channel, named_group[NAMED], default_group; /* in the history */

extern struct shared {
    event_word event; /* when one of these four changes: */
    _Atomic bool go, close, finish;
    _Atomic bool kept;                         /* the keeper has got so far */
    _Atomic uint64_t sent, accepted, received; /* values: tried, sent, received by anybody */
    _Atomic bool joined[WORKERS];              /* this consumer has joined its groups */
    _Atomic bool finished[WORKERS];            /* what this worker had to do is done */
    _Atomic int64_t longest_gap;               /* ns: that a thread of a worker's process did not get on that only maps a page */
} * S;

/* One of the flags above, which others wait for. */
static inline void say(_Atomic bool *flag) {
    atomic_store(flag, true);
    announce(&S->event);
}

static inline const char *group_name(char out[16], uint32_t named) {
    snprintf(out, 16, "g%u", named);
    return out;
}

static inline uint32_t below(uint64_t *state, uint32_t n) { return (uint32_t)((random64(state) >> 33) % n); }
static inline bool one_in(uint64_t *state, uint32_t n) { return below(state, n) == 0; }

/* What a call may say to which nothing has happened, so that it is made again: that there is no broker, where brokers are
 * killed; and that it was interrupted, where the process was stopped and went on in the middle of a wait. */
static inline bool undone(int64_t rc) { return (rc == XI_E_BROKER && plan.broker) || (rc == XI_E_INTR && plan.stop); }
#define surely(call)                                                                                                   \
    do {                                                                                                               \
        int64_t got_;                                                                                                  \
        await(!undone(got_ = (call)), "%s: no broker to be had", #call);                                               \
        must(got_);                                                                                                    \
    } while (0)

/* Bodies of processes; they exit. */
__attribute__((noreturn)) void run_process(uint32_t process);
__attribute__((noreturn)) void keep(uint32_t actor);

#endif
