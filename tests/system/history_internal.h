/* SPDX-License-Identifier: MIT */
/*
 * What the files of the checker share: the history taken apart into values (each
 * send) and takes (each value that a receive returned), sorted so that every rule
 * walks over them once.
 */
#ifndef XI_TEST_HISTORY_INTERNAL_H
#define XI_TEST_HISTORY_INTERNAL_H

#include "history.h"

#define NONE UINT32_MAX

enum fate {
    SENT,   /* its send succeeded, or did for all that others saw of it */
    FAILED, /* its send returned an error: nothing was sent */
    UNKNOWN /* its sender was killed, and nobody saw it or a later one of that sender */
};

struct value {
    uint64_t id;
    int64_t begin, end; /* of the send; `end` H_OPEN where it has none */
    int64_t ttl;
    uint16_t actor;
    uint8_t channel;
    uint8_t fate;
    uint32_t taken; /* groups that received it */
};

struct take {
    int64_t begin, end;
    uint32_t value; /* index */
    uint32_t count; /* of the delivery, or 0 */
    uint32_t event; /* number of the event: its place in what its actor did */
    uint16_t group, actor;
};

struct check {
    const struct history *h;
    struct h_report *report;
    struct value *values; /* by id */
    uint32_t value_count;
    struct take *takes; /* by group, value, count, begin */
    uint32_t take_count;
    uint32_t *first_take; /* of each group, and one more */
    bool *answered; /* of each value: it was a request, and its caller got a reply; NULL: there are no calls */
    /* Of each group. INT64_MIN: from the start; H_OPEN: never. */
    struct span {
        int64_t joined_begin, joined_end; /* it was not there before, was there after */
        int64_t drained;                  /* a receive had ended that said: closed and drained */
    } span[H_GROUPS];
    /* Of each channel: H_OPEN: never. */
    int64_t close_begin[H_CHANNELS], close_end[H_CHANNELS];
};

void *h_array(size_t n, size_t size); /* zeroed, never NULL; free() it */

/* Counts a violation, and says it while there is room. */
__attribute__((format(printf, 3, 4))) void h_say(struct check *c, enum h_defect defect, const char *format, ...);
/* Pieces of sentences; each valid until a score of others were made. */
const char *h_value_text(const struct check *c, const struct value *v);
const char *h_take_text(const struct check *c, const struct take *t);
const char *h_span_text(const struct check *c, int64_t begin, int64_t end);
const char *h_time_text(const struct check *c, int64_t t);
const char *h_group_text(const struct check *c, uint32_t group);

static inline const struct h_event *h_event_of(const struct history *h, uint32_t actor, uint32_t n) {
    return (const struct h_event *)(const void *)&h->actor[h->actors] + (size_t)actor * h->capacity + n;
}
static inline uint32_t h_count_of(const struct history *h, uint32_t actor) {
    uint32_t n = h->actor[actor].count;
    return n < h->capacity ? n : h->capacity;
}
/* Every event e of every actor a. */
#define for_each_event(h, a, e)                                                                                        \
    for (uint32_t a = 0; a < (h)->actors; a++)                                                                         \
        for (const struct h_event *e = h_event_of(h, a, 0), *end_##e = e + h_count_of(h, a); e < end_##e; e++)

/* The index of a value, or NONE. */
uint32_t h_find(const struct check *c, uint64_t id);
/* The first of those by which the group got the value. */
static inline bool h_is_first(const struct check *c, uint32_t take) {
    const struct take *t = &c->takes[take];
    return take == c->first_take[t->group] || t[-1].value != t->value;
}

/* history_order.c */
void h_check_order(struct check *c, uint32_t channel);
/* history_presence.c */
void h_check_presence(struct check *c, uint32_t group);
void h_check_blocked(struct check *c);
void h_check_bound(struct check *c, uint32_t channel);
void h_check_expiry(struct check *c, uint32_t group);
/* history_calls.c */
void h_check_calls(struct check *c);
/* history_acks.c */
void h_check_acks(struct check *c, uint32_t group);

#endif
