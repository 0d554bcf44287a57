/* SPDX-License-Identifier: MIT */
/*
 * Histories: what each of many processes did with channels and when, and a
 * checker that says whether the promises of the library explain it.
 *
 * Recorder. An actor is one thread of one process. It appends events to an area
 * of its own in memory that was mapped before fork(): no locks, no system
 * calls (the clock is read through the vDSO), and what an actor that is killed
 * has written stays. An event is written twice: with its beginning before the
 * call, with its end and outcome after it. One without an end is that of a call
 * during which its actor was killed: it may have happened or not.
 *
 * The two times enclose the call. Before the second is taken the stores of the
 * call have left the store buffer; nothing of the call is done before the first
 * was taken. So of two calls of which the one ended before the other began the
 * first took place earlier, on whatever cores they ran.
 *
 * A value's id is its producer's actor << 40 | its number there, from 1, and
 * travels in the value. history.c is the recorder, history_check.c and what it
 * names the checker.
 */
#ifndef XI_TEST_HISTORY_H
#define XI_TEST_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define H_OPEN INT64_MAX /* `end` of an event that has none */
#define H_ID(actor, number) ((uint64_t)(actor) << 40 | (uint64_t)(number))
#define H_ACTOR(id) ((uint32_t)((id) >> 40))
#define H_NUMBER(id) ((id) & (((uint64_t)1 << 40) - 1))

#define H_CHANNELS 8u
#define H_GROUPS 1024u
#define H_NO_GROUP UINT16_MAX

enum h_kind {
    H_SEND = 1, /* value; argument: its time to live in ns, 0 none */
    H_RECEIVE,  /* group, value; count: its delivery count, 0 where the group does not acknowledge; may_take; timeout */
    H_ACK,      /* group, value, count */
    H_BACK,     /* group, value, count: given back, by xi_nack() or otherwise; argument: the delay */
    H_JOIN,     /* group: opened a handle that receives for it */
    H_LEAVE,    /* group: ended it (which ends it for all) */
    H_CLOSE,    /* channel */
    H_DEAD,     /* group, value, count: found among the dead letters, as coming from that group */
    H_CALL,     /* value: asked with it; argument: the id that the reply bore */
    H_SERVE,    /* group, value: replied to the request that it was */
    H_WAIT      /* group: waited, by a set, for something to receive, without receiving it; timeout */
};

struct h_event {
    int64_t begin, end;
    uint64_t value;
    int64_t argument;
    int64_t timeout; /* that the call was given */
    int32_t result;  /* 0, or enum xi_error */
    uint32_t count;
    uint32_t may_take; /* a receive that has no end may have taken so many values */
    uint16_t group;
    uint8_t channel, kind;
};

/* What the checker is told of a channel and a group beforehand. */
struct h_channel {
    char name[32];
    uint64_t values; /* the most that it may hold; 0: no such bound */
    uint32_t retain; /* kept for groups that join later, with room for them; 0: nothing */
};
struct h_group {
    char name[32];
    uint32_t channel;
    uint32_t from, last; /* enum xi_from; whoever made it */
    bool acknowledges;
    uint32_t max_deliveries; /* 0: no limit */
    int64_t timeout;         /* ns; 0: only the end of its consumer makes a delivery return */
    bool dead_letters;       /* values delivered too often go there; else they vanish, counted */
    bool from_start;         /* it was there before anything happened (a queue's own) */
    bool drained;            /* it was found empty when all was over (a receive that said CLOSED tells as well) */
    bool lossy;              /* values go other ways, and how many did is not known */
    bool counted;            /* the next three are known, and exact */
    uint64_t dropped, expired, vanished;
};

struct h_actor {
    int64_t kill_begin, kill_end; /* 0: it was not killed */
    _Atomic uint32_t count;       /* events */
    uint32_t pad_;
    _Atomic uint64_t fence;
};

struct history {
    uint32_t actors, capacity; /* events of each actor at most */
    size_t size;
    int64_t start;
    int64_t patience; /* ns that a call may sleep although there is something to receive; 0: not judged */
    uint32_t channels, groups;
    struct h_channel channel[H_CHANNELS];
    struct h_group group[H_GROUPS];
    struct h_actor actor[];
};

/* Memory that children share. Aborts when there is none. */
struct history *h_new(uint32_t actors, uint32_t capacity);
void h_free(struct history *h);
struct h_event *h_events(struct history *h, uint32_t actor);
int64_t h_now(void);

/* Before anybody records: */
uint32_t h_add_channel(struct history *h, const char *name);
uint32_t h_add_group(struct history *h, uint32_t channel, const char *name);
/* An event that is whole: for histories made by hand. */
void h_add(struct history *h, uint32_t actor, struct h_event event);

/* Room for `more` further events, with some to spare: an actor that has none left should come to its end. */
bool h_has_room(struct history *h, uint32_t actor, uint32_t more);
/* The event, with its beginning; returns its number. `about`: kind, channel, group, value, count, argument, timeout,
 * may_take. */
uint32_t h_begin(struct history *h, uint32_t actor, struct h_event about);
/* Its outcome. */
void h_end(struct history *h, uint32_t actor, uint32_t event, int result);
/* The time at which a call has ended: for those that look at what it returned before they write that down. */
int64_t h_ended(struct history *h, uint32_t actor);
/* Of a receive that ended then: it took n values, n > 0. */
void h_took(struct history *h, uint32_t actor, uint32_t event, int64_t end, const uint64_t *values,
            const uint32_t *counts, size_t n);
/* By who kills: around the kill. */
void h_kill_begin(struct history *h, uint32_t actor);
void h_kill_end(struct history *h, uint32_t actor);

/* ------------------------------------------------------------------ the checker */

enum h_defect {
    H_BAD_ID = 1,      /* two sends with one id, or one that is not its actor's: the recorder is wrong */
    H_PHANTOM,         /* received, never sent on this channel */
    H_FAILED,          /* received, though its send failed */
    H_TOO_SOON,        /* received before its send began */
    H_TWICE,           /* received twice by one group */
    H_LOST,            /* sent, and not received by a group that was there */
    H_ORDER,           /* no order of the values agrees with what all saw */
    H_BEFORE_JOIN,     /* received by a group that began after it was sent, or too many of those */
    H_AFTER_END,       /* sent after the channel was closed, or received after its group had drained it */
    H_CLOSED_EARLY,    /* told that it is closed before anybody closed it */
    H_NOT_EMPTY,       /* told that there is nothing, though there was all the time */
    H_TIMED_OUT_EARLY, /* told that the time is up before it was */
    H_SLEPT,           /* slept although there was something to receive */
    H_EXPIRED,         /* received after it had expired, or expired before its time */
    H_COUNTERS,        /* the channel's own counters disagree */
    H_BOUND,           /* held more values than its bound */
    H_DELIVERIES,      /* delivery counts that are not 1, 2, 3, ... in time */
    H_HELD_BY_TWO,     /* delivered again while another had it */
    H_ACKED_TWICE,     /* acknowledged twice, or by who did not have it, or delivered after it was acknowledged */
    H_NOT_ACKED,       /* neither acknowledged nor among the dead letters */
    H_STALE,           /* an acknowledgement was refused without reason */
    H_DEAD_LETTER,     /* among the dead letters without reason, twice, or with a wrong count */
    H_CALLS,           /* a reply that is wrong, or a call that failed without reason */
    H_DEFECTS
};

#define H_TEXT 16384
struct h_report {
    uint64_t count; /* violations */
    uint64_t of[H_DEFECTS];
    uint64_t events, values;
    size_t length;
    char text[H_TEXT]; /* a sentence each, for the first ones */
};

/* Judges a history that nobody appends to any more. Returns how many violations there are. O(n log n). */
uint64_t h_check(const struct history *h, struct h_report *report);
const char *h_defect_name(enum h_defect defect);

#endif
