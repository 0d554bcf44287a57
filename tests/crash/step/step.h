/* SPDX-License-Identifier: MIT */
/*
 * One scene: a process D ("there") joins a namespace, gets ready, and does one
 * operation of the library, instruction by instruction; a process T ("here") is
 * its tracer and also a member of the namespace, whose handles are the living
 * participants. After each instruction that changed shared memory T keeps a
 * picture of it. Later it has children of its own look at copies: D is dead
 * there, a broker adopts the namespace and repairs it, and the child, which is T
 * as the library knows it, receives what is there.
 *
 * Where the operation asks the broker for something, the broker is stepped too,
 * while D waits: each of its states is one in which it dies, alone or with D.
 *
 * What the operation may have done is written as the lines that T's readers then
 * report, one for each way it can come out, from "not at all" to "wholly". Once
 * a later one was seen, an earlier one is not to come again.
 */
#ifndef XI_TESTS_STEP_STEP_H
#define XI_TESTS_STEP_STEP_H

#include "../../system/harness.h"
#include "channel/channel.h"
#include "worlds.h"

#define HANDLES 4
#define MESSAGES 8
#define OUTCOMES 6
#define LINE 160

/* A process's part in a scene. */
struct part_in {
    xi_interp *me;
    xi_channel *ch[HANDLES];
    xi_msg msg[MESSAGES];
    xi_loan loan;
    xi_pending call;
    xi_set *set;
    uint32_t free_index;
    const char *ns;
    /* Of T: */
    bool reads[HANDLES];  /* what comes through the handle is reported */
    uint64_t owed;        /* values (below 64) whose free function is to run once, when all is received and released */
    uint64_t may;         /* values whose free function may have run or not: they are kept for those who join later */
    int writer;           /* the handle through which the living send; -1: none */
};

enum live { LIVE_NONE, LIVE_SEND, LIVE_RECEIVE, LIVE_RELEASE, LIVE_KINDS };

#define SCENE_BROKER 1u   /* the operation talks to the broker */
#define SCENE_NOT_SEND 2u /* the living do not send meanwhile: the channel is full or closed, or D's send may be either side of it */
#define SCENE_UNJOINED 4u /* D has not joined yet */
#define SCENE_SLEEPER 8u  /* a third process sleeps on the first channel; it is stopped */
#define SCENE_KEEPS 16u   /* the channel keeps values for those who join: not all is gone when all is received */
#define SCENE_AGAIN 32u   /* the operation may find nothing to do: XI_E_AGAIN, TIMEOUT are no failure */
#define SCENE_STEPS_BROKER 128u /* by default too */
#define SCENE_NOT_RECEIVE 1024u /* the living do not receive meanwhile: what they took before the channel went is no outcome */
#define SCENE_ALL_KILLS 2048u /* its repair is killed before every store by default too: once a store of it was out of order */
#define SCENE_TWO 512u         /* another dies as well, whose group is to end */
#define SCENE_LONG 256u        /* takes too long for every day */
#define SCENE_NO_MEMORY 4096u  /* the first time that D asks for a ring's memory there is none left but one page */
#define SCENE_DIES 64u     /* there is no operation: D is killed, and the broker repairs that */

struct scene {
    const char *name;
    unsigned flags;
    void (*here)(struct part_in *t);   /* T, before D has joined */
    void (*there)(struct part_in *d);  /* D, joined */
    void (*then)(struct part_in *t);   /* T again */
    int64_t (*op)(struct part_in *d);
    const char *outcome[OUTCOMES];
    void (*sleeper)(struct part_in *w);   /* what the third process does until it sleeps */
    void (*meanwhile)(struct part_in *t); /* what T does when D has fallen asleep in it */
    unsigned orders;                      /* of wrong orders of stores so many are found out at least */
    void (*after)(struct part_in *t);     /* when all is received, in the copy: what is left to be done */
};
extern const struct scene scenes[];
extern const unsigned scene_count;

/* ---- judge.c: in a child of T */

struct verdict {
    bool done;
    char line[LINE];      /* what the readers report */
    char wrong[300];      /* what is broken, or "" */
    long steps;           /* of repair */
    bool sent;            /* LIVE_SEND did send */
};
struct question {
    const struct scene *scene;
    struct part_in *t;
    const struct mappings *mappings;
    const char *copy;
    uint64_t epoch;
    uint32_t dead, bells; /* slot of D (0: it has none yet); what the sleeper's bells said, added up */
    int64_t dead_id;
    uint32_t sleeper;     /* its slot */
    enum live live;
    bool lives;           /* D is not dead, but stopped: the broker has died alone */
    long kill_at;         /* repair is killed before this step of its; -1: it is not */
    struct verdict *verdict;
};
/* Lives in the copy as T, whose D is dead. Does not return. */
__attribute__((noreturn)) void judge(const struct question *q);

/* ---- tracer.c */

struct tracee {
    pid_t pid;
    uint64_t instructions; /* stepped */
    bool under_way;        /* it is in a system call */
    bool at_call;
};
enum stepped { STEPPED, STEPPED_CALL, STEPPED_TO_SLEEP, STEPPED_TO_END };
/* In the child: it may be stepped from its next SIGSTOP on; the one after that is the end. */
void tracee_offer(void);
void tracer_attach(struct tracee *t, pid_t pid);
/* One instruction. TO_SLEEP: that is a system call in which it has fallen asleep; the next call waits on for its end. */
enum stepped tracer_step(struct tracee *t);
/* True if the next instruction asks the kernel to back a mapping with memory; that has then failed so. */
bool tracer_refuse_memory(struct tracee *t, int error);
/* Until the process sleeps: the broker, having nothing more to do. */
void tracer_settle(pid_t pid);
/* False: this system does not let us trace, not even our own children. */
bool tracer_works(void);

#endif
