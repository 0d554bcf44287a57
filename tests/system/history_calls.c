/* SPDX-License-Identifier: MIT */
/*
 * The checker's rules for calls. A request is a value like any other; its call
 * has one outcome:
 *
 *   replied       the reply to this very request, from a server that had begun
 *                 to reply before the call ended
 *   died          somebody may have taken the request: it was received, or a
 *                 receive was under way when its actor was killed, between the
 *                 send of the request (which is before the call, as recorded,
 *                 begins) and the end of the call. And nobody replied: a reply that
 *                 succeeded is the outcome
 *   no consumer   nobody replied; nor was there a consumer all the time that
 *                 lived on
 *   otherwise     the caller gave up
 *
 * and a server is told that nobody waits (stale) only if the caller got no reply.
 */
#include "history_internal.h"

#include <stdlib.h>

#include "xidata.h"

struct served {
    uint64_t value;
    const struct h_event *event;
    uint32_t actor;
};
struct serving {
    struct served *of; /* by value */
    uint32_t count;
    const struct h_actor **killed; /* while they received */
    uint32_t killed_count;
};

static int by_value(const void *a, const void *b) {
    uint64_t x = ((const struct served *)a)->value, y = ((const struct served *)b)->value;
    return (x > y) - (x < y);
}

static void collect_served(const struct check *c, struct serving *s) {
    size_t n = 0;
    for_each_event(c->h, a, e) n += e->kind == H_SERVE;
    s->of = h_array(n, sizeof *s->of);
    s->killed = h_array(c->h->actors, sizeof *s->killed);
    for_each_event(c->h, a, e) {
        if (e->kind == H_SERVE) s->of[s->count++] = (struct served){e->value, e, a};
        if (e->kind == H_RECEIVE && e->end == H_OPEN && c->h->actor[a].kill_end) s->killed[s->killed_count++] = &c->h->actor[a];
    }
    qsort(s->of, s->count, sizeof *s->of, by_value);
}

static uint32_t first_of(const struct serving *s, uint64_t value) {
    uint32_t low = 0, high = s->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->of[middle].value < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* A kill begins before the death, which is somewhere before its end. */
static bool may_have_been_taken(const struct check *c, const struct serving *s, const struct h_event *call) {
    uint32_t i = h_find(c, call->value);
    bool taken = i != NONE && c->values[i].taken;
    for (uint32_t k = 0; i != NONE && k < s->killed_count && !taken; k++)
        taken = s->killed[k]->kill_end > c->values[i].begin && s->killed[k]->kill_begin < call->end;
    return taken;
}

/* An actor that had joined before, and received after. */
static bool consumer_all_the_time(const struct check *c, const struct h_event *call) {
    for (uint32_t a = 0; a < c->h->actors; a++) {
        bool before = false;
        for (uint32_t n = 0; n < h_count_of(c->h, a); n++) {
            const struct h_event *e = h_event_of(c->h, a, n);
            if (e->kind == H_JOIN && e->result == 0 && e->end < call->begin) before = true;
            if (before && e->kind == H_RECEIVE && e->begin > call->end) return true;
        }
    }
    return false;
}

static void check_call(struct check *c, const struct serving *s, uint32_t actor, const struct h_event *e) {
    bool begun = false, replied = false;
    const char *span = h_span_text(c, e->begin, e->end);
    for (uint32_t i = first_of(s, e->value); i < s->count && s->of[i].value == e->value; i++) {
        const struct h_event *reply = s->of[i].event;
        begun |= reply->begin < e->end && (reply->end == H_OPEN || reply->result == 0);
        replied |= reply->end != H_OPEN && reply->result == 0;
    }
    if (e->result == 0 && (uint64_t)e->argument != e->value)
        h_say(c, H_CALLS, "actor %u's call (%s) with value %u:%llu got the reply to %u:%llu", actor, span, H_ACTOR(e->value),
              (unsigned long long)H_NUMBER(e->value), H_ACTOR(e->argument), (unsigned long long)H_NUMBER(e->argument));
    if (e->result == 0 && !begun)
        h_say(c, H_CALLS, "actor %u's call (%s) got a reply that nobody had made", actor, span);
    if ((e->result == XI_E_DIED || e->result == XI_E_NO_CONSUMER) && replied)
        h_say(c, H_CALLS, "actor %u's call (%s) was told that nobody replies, but somebody did", actor, span);
    if (e->result == XI_E_DIED && !may_have_been_taken(c, s, e))
        h_say(c, H_CALLS, "actor %u's call (%s) was told that who had taken it died, but nobody had", actor, span);
    if (e->result == XI_E_NO_CONSUMER && consumer_all_the_time(c, e))
        h_say(c, H_CALLS, "actor %u's call (%s) was told that there is no consumer, but there was one all the time", actor,
              span);
}

static bool had_reply(const struct check *c, uint64_t value) {
    uint32_t i = h_find(c, value);
    return i != NONE && c->answered && c->answered[i];
}

void h_check_calls(struct check *c) {
    struct serving s = {0};
    collect_served(c, &s);
    for_each_event(c->h, a, e) {
        if (e->kind == H_CALL && e->end != H_OPEN) check_call(c, &s, a, e);
        if (e->kind == H_SERVE && e->end != H_OPEN && e->result == XI_E_STALE && had_reply(c, e->value))
            h_say(c, H_CALLS, "actor %u (%s) was told that nobody waits for its reply, but the caller got one", a,
                  h_span_text(c, e->begin, e->end));
    }
    free(s.killed);
    free(s.of);
}
