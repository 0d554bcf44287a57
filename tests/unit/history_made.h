/* SPDX-License-Identifier: MIT */
/*
 * Histories made by hand, for the tests of their checker: events with small
 * numbers as times, and the judgement that is expected.
 */
#ifndef XI_TEST_HISTORY_MADE_H
#define XI_TEST_HISTORY_MADE_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "system/history.h"
#include "xidata.h"

#define P 0u /* actors by convention: producers 0 to 3, consumers 4 to 7 */
#define Q 1u
#define C 4u
#define D 5u
#define ACTORS 8u

static struct history *h;
static struct h_report report;
static uint32_t channel, group;

static inline void begin_history(void) {
    h = h_new(ACTORS, 4096);
    h->start = 0;
    channel = h_add_channel(h, "jobs");
    group = h_add_group(h, channel, "workers");
    h->group[group].from_start = true;
}

/* Ends the history: it has exactly these defects (`kinds`: a bit each). */
static inline void judge(uint64_t kinds) {
    h_check(h, &report);
    uint64_t found = 0;
    for (uint32_t d = 1; d < H_DEFECTS; d++)
        if (report.of[d]) found |= (uint64_t)1 << d;
    ck_assert_msg(found == kinds, "expected defects %#llx, found %#llx:\n%s", (unsigned long long)kinds,
                  (unsigned long long)found, report.text);
    ck_assert_msg((kinds == 0) == (report.length == 0), "a sentence for each defect, and for nothing else");
    h_free(h);
}
#define BIT(defect) ((uint64_t)1 << (defect))

/* ---- events: times are in the reader's units, small numbers */

static inline void sent_to(uint32_t where, uint32_t actor, uint64_t number, int64_t begin, int64_t end, int result) {
    h_add(h, actor,
          (struct h_event){.kind = H_SEND,
                           .channel = (uint8_t)where,
                           .value = H_ID(actor, number),
                           .begin = begin,
                           .end = end,
                           .result = result,
                           .group = H_NO_GROUP});
}
static inline void sent(uint32_t actor, uint64_t number, int64_t begin, int64_t end) {
    sent_to(channel, actor, number, begin, end, 0);
}
static inline void about(uint8_t kind, uint32_t actor, uint32_t g, uint64_t value, uint32_t count, int64_t begin,
                         int64_t end, int result) {
    h_add(h, actor,
          (struct h_event){.kind = kind,
                           .channel = (uint8_t)h->group[g].channel,
                           .group = (uint16_t)g,
                           .value = value,
                           .count = count,
                           .begin = begin,
                           .end = end,
                           .result = result,
                           .may_take = end == H_OPEN});
}
static inline void got(uint32_t actor, uint64_t value, int64_t begin, int64_t end) {
    about(H_RECEIVE, actor, group, value, 0, begin, end, 0);
}
static inline void got_for(uint32_t g, uint32_t actor, uint64_t value, int64_t begin, int64_t end) {
    about(H_RECEIVE, actor, g, value, 0, begin, end, 0);
}
static inline void told(uint32_t actor, uint32_t g, int result, int64_t begin, int64_t end) {
    about(H_RECEIVE, actor, g, 0, 0, begin, end, result);
}
static inline void closed(uint32_t actor, int64_t begin, int64_t end) {
    h_add(h, actor,
          (struct h_event){
              .kind = H_CLOSE, .channel = (uint8_t)channel, .begin = begin, .end = end, .group = H_NO_GROUP});
}
static inline void killed(uint32_t actor, int64_t at) {
    h->actor[actor].kill_begin = at;
    h->actor[actor].kill_end = at + 1;
}
#define P1 H_ID(P, 1)
#define P2 H_ID(P, 2)
#define P3 H_ID(P, 3)
#define Q1 H_ID(Q, 1)
#define Q2 H_ID(Q, 2)

#endif
