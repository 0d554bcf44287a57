/* SPDX-License-Identifier: MIT */
/*
 * The broker: connections, deaths and timers become events for the core
 * (state.h); the core's actions are carried out by the world (world.h), repair
 * (recover.h) and the connections (peer.h). This is where they meet; it decides
 * nothing but when an --auto broker leaves.
 */
#ifndef XI_BROKER_BROKER_H
#define XI_BROKER_BROKER_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "peer.h"
#include "recover.h"
#include "rings.h"
#include "state.h"
#include "world.h"

struct broker_options {
    const char *ns;
    bool automatic;    /* leave when the last interpreter has gone */
    int64_t linger_ns; /* but wait this long for somebody to come for undelivered values; negative: for ever */
    bool memfd;
    bool open; /* to `open_to`; memfd too then */
    struct xi_access open_to[XI_ACCESS_MAX];
    enum loop_choice wait;
    struct state_limits limits, other_limits;
};

struct late {
    uint64_t conn;
    struct xi_reply reply;
};

struct death_watch {
    struct broker *broker;
    uint32_t slot;
    int pidfd;
    struct watch *watch;
};

struct broker {
    struct broker_options options;
    struct state state;
    struct world world;
    struct recover recover;
    struct rings rings;
    struct loop *loop;
    struct table peers; /* conn to struct peer * */
    uint64_t next_conn;
    struct door {
        struct broker *broker;
        int fd; /* -1: there is none */
        struct watch *watch;
    } doors[2]; /* listening: for the own user, for others */
    struct death_watch deaths[XI_MAX_INTERPS];
    int64_t settle_at[XI_MAX_INTERPS]; /* 0: not declaring */
    struct timer settle, leave, listen_again, tell_again, absent;
    struct event *queue; /* events that came up while another was being handled */
    size_t queue_at, queue_count, queue_capacity;
    uint64_t *checks; /* channels without handles: to be looked at whether they are empty */
    size_t check_at, check_count, check_capacity;
    struct timer check;
    struct late *late; /* answers that wait until all their consequences are carried out */
    size_t late_count, late_capacity;
    int made[2]; /* descriptors of what the current request made */
    unsigned made_count;
    uint64_t removed_depth; /* values in the channel that the current request removes */
    bool handling, alone, joined_once, stopping;
    bool found;       /* something of an earlier broker, adopted or removed */
    const char *fate; /* of the interpreter whose death is being handled */
    char last_words[160];
};

/* Adopts or makes the namespace. 0, or an enum xi_error with its sentence in xi_error_text(). The lock is held already.
 */
int broker_init(struct broker *b, const struct broker_options *options);
/* Begins to accept on listening sockets, which stay the caller's. `open_fd`: for other users, or -1. */
void broker_listen(struct broker *b, int fd, int open_fd);
void broker_turn(struct broker *b);
/* From a signal: everybody is told, and broker_turn will not be needed again. */
void broker_stop(struct broker *b, const char *why);
/* Removes the namespace and frees everything. The one line that sums up is logged. */
void broker_deinit(struct broker *b);

#endif
