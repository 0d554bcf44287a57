/* SPDX-License-Identifier: MIT */
/* What set.c (who is in a set) and set_wait.c (who is ready) share; set.c has the model. */
#ifndef XI_CHANNEL_SET_H
#define XI_CHANNEL_SET_H

#include "../wait/pollfd.h"
#include "channel.h"

struct xi_member {
    struct xi_set *set;
    struct xi_channel *ch;    /* NULL: the handle was freed or shut; due to be reported, then it is no more */
    struct xi_channel *name;  /* the handle, or what it was: not to be looked into */
    struct xi_member *next_of_channel;
    uint64_t key;
    uint64_t reported;        /* turn of the latest report; 0: never */
    int32_t priority;
    uint32_t side;
    uint32_t index;           /* its bit in the mailbox's `ready` */
    uint32_t number;          /* its waiter entry in the channel */
    uint32_t place;           /* in `due`, from 1; 0: not there, so armed */
    struct xi_member *next;   /* in a list of set_wait.c's */
};

/* A word of the mailbox's `ready` that is this set's. */
struct xi_set_word {
    uint64_t used;
    struct xi_member *member[64];
};

struct xi_set {
    struct xi_interp *interp;
    struct xi_set *next;      /* of this interpreter: under sets.mutex */
    pthread_mutex_t mutex;
    _Atomic uint32_t wanted;  /* threads that want the mutex while another spins with it */
    bool over;                /* the interpreter has left */
    bool shut;                /* xi_set_shut() */
    bool waiting;             /* somebody is in xi_set_wait() */
    uint32_t bell_index;
    struct xi_bell *bell;
    uint64_t own[XI_MAX_MEMBERS / 64 / 64]; /* which words are ours */
    struct xi_set_word *words[XI_MAX_MEMBERS / 64];
    uint32_t members;         /* those that have left, and are due to be reported, too */
    /* Members that may be ready: a heap, the next to be looked at first. Room for all members is always there. */
    struct xi_member **due;
    uint32_t due_count, due_capacity;
    uint64_t turn;
    int64_t alarm;            /* when a member whose group acknowledges is to be looked at by itself; -1: never */
    struct xi_spin spin;
    struct xi_pollfd *poll;   /* NULL until xi_set_fd() */
};

static inline void xi_set_lock(struct xi_set *s) {
    atomic_fetch_add_explicit(&s->wanted, 1, memory_order_relaxed);
    pthread_mutex_lock(&s->mutex);
    atomic_fetch_sub_explicit(&s->wanted, 1, memory_order_relaxed);
}
static inline void xi_set_unlock(struct xi_set *s) { pthread_mutex_unlock(&s->mutex); }

/* set_wait.c, all under the set's mutex: to be looked at at the next wait; not any more. */
void xi_due_add(struct xi_set *s, struct xi_member *m);
void xi_due_remove(struct xi_set *s, struct xi_member *m);
/* XI_READY_*, or 0: nothing to do for it. */
uint32_t xi_member_look(const struct xi_member *m);
/* Arms it: whatever comes from now on marks it. Then as xi_member_look(). */
uint32_t xi_member_arm(struct xi_member *m);
/* Lets whoever waits, or polls, look at what is due. */
void xi_set_stir(struct xi_set *s);
/* Arms all that is due. False: something is ready, or it is not to be slept. */
void xi_set_settle(struct xi_set *s);

/* set.c, under the set's mutex: 0, or LEFT. */
int xi_set_ended(const struct xi_set *s);
/* set.c: a member that has left, once it was reported. */
void xi_member_free(struct xi_member *m);

#endif
