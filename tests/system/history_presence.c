/* SPDX-License-Identifier: MIT */
/*
 * What was surely in a channel at a time, and the rules that follow from it. For
 * a group a value is surely there from the end of its send to the beginning of
 * the receive that took it; a value that nobody received is left out, whatever
 * became of it. (A group that acknowledges may hold a value back: its window, a
 * delay. These rules are not for it.)
 *
 *   not empty  a call that says there is nothing has to have found a moment at
 *              which no value was surely there. (Calls that may have waited for a
 *              lock are not judged: they say the same when its holder is stopped.)
 *   slept      no receive may wait for long while there is something to receive all
 *              the time, and no send while receives for every group wait: a wake was
 *              lost, and the look that sleepers take by themselves found it. (A wait by a
 *              set is judged for this alone: whoever claimed the set's mark may not have
 *              come to set it.)
 *   bound      a channel bounded to n values never surely holds more, counting a
 *              value until the last group has begun to receive it
 *   expired    nothing is received once its time is surely over, and nothing
 *              expires that was passed by before its time was over
 */
#include "history_internal.h"

#include <stdlib.h>

#include "xidata.h"

#define LOCK_PATIENCE 50000000ll /* half of what the library waits for a lock where it was not to wait */

struct stretch {
    int64_t begin, end;
};

static int by_begin(const void *a, const void *b) {
    int64_t x = ((const struct stretch *)a)->begin, y = ((const struct stretch *)b)->begin;
    return (x > y) - (x < y);
}

/* Can a value that the group did not receive have gone another way? */
static bool goes_other_ways(const struct check *c, uint32_t group) {
    const struct h_group *g = &c->h->group[group];
    if (g->dropped || g->expired || g->lossy) return true;
    for_each_event(c->h, a, e) {
        if (e->kind == H_RECEIVE && e->end == H_OPEN && e->group == group) return true;
    }
    return false;
}

static uint32_t collect_remaining(const struct check *c, uint32_t group, struct stretch *out) {
    uint32_t n = 0, t = c->first_take[group], end = c->first_take[group + 1];
    if (goes_other_ways(c, group)) return 0;
    for (uint32_t i = 0; i < c->value_count; i++) {
        const struct value *v = &c->values[i];
        while (t < end && c->takes[t].value < i) t++;
        bool received = t < end && c->takes[t].value == i, due = v->begin > c->span[group].joined_end;
        if (c->answered && !c->answered[i]) continue;
        if (v->channel == c->h->group[group].channel && !received && due && v->fate == SENT && v->end != H_OPEN)
            out[n++] = (struct stretch){v->end, H_OPEN};
    }
    return n;
}

/* When the group surely had something to receive: stretches that neither touch nor overlap, in order. */
static uint32_t collect_stretches(const struct check *c, uint32_t group, struct stretch *out) {
    uint32_t n = collect_remaining(c, group, out), merged = 0;
    for (uint32_t i = c->first_take[group]; i < c->first_take[group + 1]; i++) {
        const struct take *t = &c->takes[i];
        const struct value *v = &c->values[t->value];
        int64_t begin = v->end > c->span[group].joined_end ? v->end : c->span[group].joined_end;
        if (c->answered && !c->answered[t->value]) continue; /* it may have been given up before it was taken */
        if (h_is_first(c, i) && begin < t->begin) out[n++] = (struct stretch){begin, t->begin};
    }
    qsort(out, n, sizeof *out, by_begin);
    for (uint32_t i = 0; i < n; i++) {
        /* Where one ends as the other begins there may have been a moment without. */
        if (merged && out[i].begin < out[merged - 1].end) {
            if (out[i].end > out[merged - 1].end) out[merged - 1].end = out[i].end;
        } else {
            out[merged++] = out[i];
        }
    }
    return merged;
}

/* The last stretch that begins before t, or NULL. */
static const struct stretch *at(const struct stretch *s, uint32_t n, int64_t t) {
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s[middle].begin < t)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &s[low - 1] : NULL;
}

static void check_empty(struct check *c, uint32_t actor, const struct h_event *e, const struct stretch *s, uint32_t n) {
    const struct stretch *x = at(s, n, e->begin);
    if (e->result != XI_E_AGAIN || e->end - e->begin > LOCK_PATIENCE || !x || x->end <= e->end) return;
    h_say(c, H_NOT_EMPTY, "%s told actor %u (%s) that there is nothing, but there was from %s to %s ms",
          h_group_text(c, e->group), actor, h_span_text(c, e->begin, e->end), h_time_text(c, x->begin),
          h_time_text(c, x->end));
}

static void check_sleep(struct check *c, uint32_t actor, const struct h_event *e, const struct stretch *s, uint32_t n) {
    for (const struct stretch *x = at(s, n, e->end); x && x >= s && x->end > e->begin; x--) {
        int64_t begin = x->begin > e->begin ? x->begin : e->begin, end = x->end < e->end ? x->end : e->end;
        if (end - begin < c->h->patience) continue;
        h_say(c, H_SLEPT,
              "%s: actor %u's receive (%s) slept for %.1f ms although there was something to receive from %s to "
              "%s ms",
              h_group_text(c, e->group), actor, h_span_text(c, e->begin, e->end), (double)(end - begin) / 1e6,
              h_time_text(c, x->begin), h_time_text(c, x->end));
        return;
    }
}

/* A value that a call returned was there for it to take from the end of the send on. */
static void check_delays(struct check *c, uint32_t group) {
    for (uint32_t i = c->first_take[group]; i < c->first_take[group + 1]; i++) {
        const struct take *t = &c->takes[i];
        const struct value *v = &c->values[t->value];
        int64_t there = v->end > c->span[group].joined_end ? v->end : c->span[group].joined_end;
        if (there < t->begin) there = t->begin;
        if (!h_is_first(c, i) || t->end - there < c->h->patience) continue;
        h_say(c, H_SLEPT, "%s: %s was there for %.1f ms before it was received, although the call waited: %s",
              h_group_text(c, group), h_value_text(c, v), (double)(t->end - there) / 1e6, h_take_text(c, t));
    }
}

void h_check_presence(struct check *c, uint32_t group) {
    if (c->h->group[group].acknowledges) return;
    struct stretch *s = h_array((size_t)c->value_count + c->first_take[group + 1] - c->first_take[group], sizeof *s);
    uint32_t n = collect_stretches(c, group, s);
    if (c->h->patience) check_delays(c, group);
    for_each_event(c->h, a, e) {
        if ((e->kind != H_RECEIVE && e->kind != H_WAIT) || e->group != group || e->end == H_OPEN) continue;
        if (e->kind == H_RECEIVE) check_empty(c, a, e, s, n);
        if (c->h->patience && e->end - e->begin >= c->h->patience) check_sleep(c, a, e, s, n);
    }
    free(s);
}

/* --------------------------------------------------------------- senders' sleep */

/* A receive for the group that waited for long within this stretch: then the stretch is cut to that. */
static bool cut_to_wait(const struct check *c, uint32_t group, struct stretch *s) {
    for_each_event(c->h, a, e) {
        if ((e->kind != H_RECEIVE && e->kind != H_WAIT) || e->group != group || e->end == H_OPEN) continue;
        int64_t begin = e->begin > s->begin ? e->begin : s->begin, end = e->end < s->end ? e->end : s->end;
        if (end - begin < c->h->patience) continue;
        *s = (struct stretch){begin, end};
        return true;
    }
    return false;
}

static void check_blocked(struct check *c, uint32_t actor, const struct h_event *e) {
    struct stretch s = {e->begin, e->end};
    uint32_t groups = 0;
    for (uint32_t g = 0; g < c->h->groups; g++) {
        if (c->h->group[g].channel != e->channel || c->span[g].joined_begin > e->end) continue;
        if (!cut_to_wait(c, g, &s)) return;
        groups++;
    }
    if (groups == 0) return;
    h_say(c, H_SLEPT, "actor %u's send (%s) slept although receives for every group waited from %s to %s ms", actor,
          h_span_text(c, e->begin, e->end), h_time_text(c, s.begin), h_time_text(c, s.end));
}

void h_check_blocked(struct check *c) {
    if (c->h->patience == 0) return;
    for_each_event(c->h, a, e) {
        if (e->kind == H_SEND && e->end != H_OPEN && e->end - e->begin >= c->h->patience) check_blocked(c, a, e);
    }
}

/* ----------------------------------------------------------------------- bound */

/* A moment at which one more value is surely there, or one less. */
struct step {
    int64_t at;
    int32_t by;
};

static int by_time(const void *a, const void *b) {
    const struct step *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->by - y->by; /* less first: that is when fewest are surely there */
}

static uint32_t collect_steps(const struct check *c, uint32_t channel, struct step *steps) {
    int64_t *held = h_array(c->value_count, sizeof *held);
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->take_count; i++) {
        const struct take *t = &c->takes[i];
        if (h_is_first(c, i) && t->begin > held[t->value]) held[t->value] = t->begin;
    }
    for (uint32_t i = 0; i < c->value_count; i++) {
        const struct value *v = &c->values[i];
        if (v->channel != channel || held[i] <= v->end) continue;
        steps[n++] = (struct step){v->end, 1};
        steps[n++] = (struct step){held[i], -1};
    }
    free(held);
    return n;
}

void h_check_bound(struct check *c, uint32_t channel) {
    uint64_t bound = c->h->channel[channel].values;
    int64_t there = 0;
    if (bound == 0) return;
    struct step *steps = h_array((size_t)c->value_count * 2, sizeof *steps);
    uint32_t n = collect_steps(c, channel, steps);
    qsort(steps, n, sizeof *steps, by_time);
    for (uint32_t i = 0; i < n; i++) {
        there += steps[i].by;
        if (there <= (int64_t)bound) continue;
        h_say(c, H_BOUND, "\"%s\" held %lld values at %s ms, and is bounded to %llu", c->h->channel[channel].name,
              (long long)there, h_time_text(c, steps[i].at), (unsigned long long)bound);
        break;
    }
    free(steps);
}

/* ---------------------------------------------------------------------- expiry */

/* A value that was received: when its send began, and when the receive had ended. */
struct passed {
    int64_t sent, received;
};

static int by_sent(const void *a, const void *b) {
    int64_t x = ((const struct passed *)a)->sent, y = ((const struct passed *)b)->sent;
    return (x > y) - (x < y);
}

/* In order of their sends, each with the first receive of those from it on. */
static uint32_t collect_passed(const struct check *c, uint32_t group, struct passed *out) {
    uint32_t n = 0;
    for (uint32_t i = c->first_take[group]; i < c->first_take[group + 1]; i++)
        out[n++] = (struct passed){c->values[c->takes[i].value].begin, c->takes[i].end};
    qsort(out, n, sizeof *out, by_sent);
    for (uint32_t i = n; i-- > 1;)
        if (out[i].received < out[i - 1].received) out[i - 1].received = out[i].received;
    return n;
}

/* When the group had surely passed a value that it did not receive: it had received one that was sent after it. */
static int64_t passed_by(const struct passed *p, uint32_t n, int64_t sent) {
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (p[middle].sent <= sent)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n ? p[low].received : H_OPEN;
}

static void check_late(struct check *c, uint32_t group) {
    for (uint32_t i = c->first_take[group]; i < c->first_take[group + 1]; i++) {
        const struct take *t = &c->takes[i];
        const struct value *v = &c->values[t->value];
        if (v->ttl <= 0 || v->end == H_OPEN || t->begin <= v->end + v->ttl) continue;
        h_say(c, H_EXPIRED, "%s received %s, which was to live for %.3f ms: %s", h_group_text(c, group),
              h_value_text(c, v), (double)v->ttl / 1e6, h_take_text(c, t));
    }
}

static bool has_kills(const struct check *c) {
    for (uint32_t a = 0; a < c->h->actors; a++)
        if (c->h->actor[a].kill_end) return true;
    return false;
}

/* Only where expiry alone can be why a value is missing. */
void h_check_expiry(struct check *c, uint32_t group) {
    const struct h_group *g = &c->h->group[group];
    uint32_t t = c->first_take[group], end = c->first_take[group + 1];
    check_late(c, group);
    if (t == end || g->dropped || !g->expired || has_kills(c)) return;
    struct passed *p = h_array(end - t, sizeof *p);
    uint32_t n = collect_passed(c, group, p);
    for (uint32_t i = 0; i < c->value_count; i++) {
        const struct value *v = &c->values[i];
        while (t < end && c->takes[t].value < i) t++;
        bool received = t < end && c->takes[t].value == i;
        if (received || v->channel != g->channel || v->fate != SENT || v->ttl <= 0) continue;
        int64_t when = v->begin > c->span[group].joined_end ? passed_by(p, n, v->end) : H_OPEN;
        if (when < v->begin + v->ttl)
            h_say(c, H_EXPIRED, "%s passed by %s before %s ms, when it had %.3f ms to live", h_group_text(c, group),
                  h_value_text(c, v), h_time_text(c, when), (double)v->ttl / 1e6);
    }
    free(p);
}
