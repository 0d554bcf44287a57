/* SPDX-License-Identifier: MIT */
/*
 * Groups that acknowledge: what became of each value, from its first delivery to
 * its acknowledgement or the dead letters. Per value
 *
 *   deliveries    are numbered 1, 2, 3, ... in time, to the limit at most; what is
 *                 missing from the row was delivered to one that was killed
 *                 before it wrote it down
 *   one at a time the next begins only after the one before was given back,
 *                 overdue, or its consumer killed
 *   acknowledged  once, by who had it; delivered no more after that; or among the
 *                 dead letters, once, with the number of its deliveries; not both.
 *                 A value of which neither is known is explained by an
 *                 acknowledgement during which its consumer was killed
 *   refused       an acknowledgement is stale only if another had the value after
 *                 it, or it is among the dead letters, was acknowledged already, or
 *                 may have expired
 */
#include "history_internal.h"

#include <stdlib.h>

#include "xidata.h"

/* What else happened to a delivery: an acknowledgement, a return, a dead letter. */
struct mark {
    uint32_t value, count;
    uint16_t actor;
    uint8_t kind;
    int32_t result;
    int64_t begin, end;
};

struct acks {
    struct check *c;
    uint32_t group;
    const struct h_group *g;
    struct mark *marks; /* by value, count, begin */
    uint32_t mark_count;
    uint64_t unexplained; /* deliveries missing from rows, */
    uint64_t room;        /* and how many of those kills explain */
    uint64_t unfinished;  /* values of which no end is known */
};

/* One value: its deliveries and its marks. */
struct story {
    const struct value *v;
    const struct take *takes;
    uint32_t take_count;
    const struct mark *marks;
    uint32_t mark_count;
};

static int by_value(const void *a, const void *b) {
    const struct mark *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    if (x->count != y->count) return x->count < y->count ? -1 : 1;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static bool is_mark(const struct h_event *e, uint32_t group) {
    return e->group == group && (e->kind == H_ACK || e->kind == H_BACK || e->kind == H_DEAD);
}

static void collect(struct acks *k) {
    const struct history *h = k->c->h;
    size_t n = 0;
    for_each_event(h, a, e) n += is_mark(e, k->group);
    k->marks = h_array(n, sizeof *k->marks);
    for_each_event(h, a, e) {
        if (e->kind == H_RECEIVE && e->end == H_OPEN && e->group == k->group) k->room += e->may_take ? e->may_take : 1;
        if (!is_mark(e, k->group)) continue;
        uint32_t value = h_find(k->c, e->value);
        struct mark m = {value,    e->count, (uint16_t)a, e->kind, e->end == H_OPEN ? XI_E_INTR : e->result,
                         e->begin, e->end};
        if (value == NONE)
            h_say(k->c, e->kind == H_DEAD ? H_DEAD_LETTER : H_BAD_ID,
                  "%s: actor %u names value %u:%llu, "
                  "which nobody sent",
                  h_group_text(k->c, k->group), a, H_ACTOR(e->value), (unsigned long long)H_NUMBER(e->value));
        else
            k->marks[k->mark_count++] = m;
    }
    qsort(k->marks, k->mark_count, sizeof *k->marks, by_value);
}

/* ------------------------------------------------------------------- deliveries */

static const struct mark *mark_of(const struct story *s, const struct take *t) {
    for (uint32_t i = 0; i < s->mark_count; i++) {
        const struct mark *m = &s->marks[i];
        if (m->kind != H_DEAD && m->count == t->count && m->actor == t->actor) return m;
    }
    return NULL;
}

/* May the delivery after this one have begun, as early as it surely had? */
static bool was_over(const struct acks *k, const struct story *s, const struct take *t, int64_t next_end) {
    const struct mark *m = mark_of(s, t);
    const struct h_actor *a = &k->c->h->actor[t->actor];
    if (m && m->begin < next_end) return true;
    if (a->kill_begin && a->kill_begin < next_end) return true;
    return k->g->timeout && t->begin + k->g->timeout <= next_end;
}

static void check_row(struct acks *k, const struct story *s) {
    const char *group = h_group_text(k->c, k->group);
    uint32_t expected = 1;
    for (uint32_t i = 0; i < s->take_count; i++) {
        const struct take *t = &s->takes[i];
        if (t->count == 0 || (k->g->max_deliveries && t->count > k->g->max_deliveries))
            h_say(k->c, H_DELIVERIES, "%s delivered %s with a count that cannot be (the limit is %u): %s", group,
                  h_value_text(k->c, s->v), k->g->max_deliveries, h_take_text(k->c, t));
        if (i && t->count == t[-1].count)
            h_say(k->c, H_DELIVERIES, "%s delivered %s twice with one count: %s and %s", group,
                  h_value_text(k->c, s->v), h_take_text(k->c, t - 1), h_take_text(k->c, t));
        else if (i && t->end < t[-1].begin)
            h_say(k->c, H_DELIVERIES, "%s delivered %s with counts that fall: %s, but %s", group,
                  h_value_text(k->c, s->v), h_take_text(k->c, t), h_take_text(k->c, t - 1));
        else if (i && t->count == t[-1].count + 1 && !was_over(k, s, t - 1, t->end))
            h_say(k->c, H_HELD_BY_TWO, "%s delivered %s again while it was held: %s, then %s", group,
                  h_value_text(k->c, s->v), h_take_text(k->c, t - 1), h_take_text(k->c, t));
        if (t->count > expected) k->unexplained += t->count - expected;
        expected = t->count + 1;
    }
}

/* -------------------------------------------------------------- acknowledgements */

static bool was_delivered_to(const struct story *s, const struct mark *m) {
    for (uint32_t i = 0; i < s->take_count; i++)
        if (s->takes[i].actor == m->actor && s->takes[i].count == m->count) return true;
    return false;
}

static void check_ack(struct acks *k, const struct story *s, const struct mark *m) {
    const char *group = h_group_text(k->c, k->group);
    if (!was_delivered_to(s, m))
        h_say(k->c, H_ACKED_TWICE, "%s: actor %u acknowledged delivery %u of %s, which it never had (%s)", group,
              m->actor, m->count, h_value_text(k->c, s->v), h_span_text(k->c, m->begin, m->end));
    for (uint32_t i = 0; i < s->take_count; i++)
        if (s->takes[i].begin > m->end)
            h_say(k->c, H_ACKED_TWICE, "%s delivered %s after actor %u had acknowledged it (%s): %s", group,
                  h_value_text(k->c, s->v), m->actor, h_span_text(k->c, m->begin, m->end),
                  h_take_text(k->c, &s->takes[i]));
}

/* What is known of the value's end. */
struct end {
    uint32_t acked, dead, perhaps; /* acknowledgements; dead letters; acknowledgements without an end */
    uint32_t highest;              /* delivery count */
};

static struct end end_of(const struct story *s) {
    struct end e = {0};
    for (uint32_t i = 0; i < s->take_count; i++)
        if (s->takes[i].count > e.highest) e.highest = s->takes[i].count;
    for (uint32_t i = 0; i < s->mark_count; i++) {
        const struct mark *m = &s->marks[i];
        e.acked += m->kind == H_ACK && m->result == 0 && m->end != H_OPEN;
        e.perhaps += m->kind == H_ACK && m->end == H_OPEN;
        e.dead += m->kind == H_DEAD;
    }
    return e;
}

static void check_dead(struct acks *k, const struct story *s, const struct mark *m, const struct end *e) {
    const char *group = h_group_text(k->c, k->group);
    if (!k->g->max_deliveries || m->count < k->g->max_deliveries || m->count < e->highest)
        h_say(k->c, H_DEAD_LETTER,
              "%s: %s is among the dead letters after %u deliveries; the limit is %u, and there were "
              "%u",
              group, h_value_text(k->c, s->v), m->count, k->g->max_deliveries, e->highest);
    if (e->dead > 1 || e->acked)
        h_say(k->c, H_DEAD_LETTER, "%s: %s is among the dead letters %u times, and was acknowledged %u times", group,
              h_value_text(k->c, s->v), e->dead, e->acked);
}

/* (A value that was overdue may have expired since.) */
static void check_stale(struct acks *k, const struct story *s, const struct mark *m, const struct end *e) {
    bool drained = k->c->span[k->group].drained != H_OPEN || k->g->drained;
    if (m->count < e->highest || e->acked || e->dead || e->perhaps || !drained || k->g->vanished || k->room ||
        s->v->ttl > 0)
        return;
    h_say(k->c, H_STALE, "%s: actor %u was refused delivery %u of %s as stale (%s), but nobody had it after it",
          h_group_text(k->c, k->group), m->actor, m->count, h_value_text(k->c, s->v),
          h_span_text(k->c, m->begin, m->end));
}

static void check_story(struct acks *k, const struct story *s) {
    struct end e = end_of(s);
    bool drained = k->c->span[k->group].drained != H_OPEN || k->g->drained;
    check_row(k, s);
    if (e.acked > 1)
        h_say(k->c, H_ACKED_TWICE, "%s: %s was acknowledged %u times", h_group_text(k->c, k->group),
              h_value_text(k->c, s->v), e.acked);
    for (uint32_t i = 0; i < s->mark_count; i++) {
        const struct mark *m = &s->marks[i];
        if (m->kind == H_ACK && m->end != H_OPEN && m->result == 0) check_ack(k, s, m);
        if (m->kind == H_ACK && m->end != H_OPEN && m->result == XI_E_STALE) check_stale(k, s, m, &e);
        if (m->kind == H_DEAD) check_dead(k, s, m, &e);
    }
    if (e.acked || e.dead || e.perhaps || !drained || ++k->unfinished <= k->g->vanished + k->g->expired) return;
    h_say(k->c, H_NOT_ACKED,
          "%s: %s was delivered %u times, and neither acknowledged nor found among the dead letters "
          "(%llu vanished)",
          h_group_text(k->c, k->group), h_value_text(k->c, s->v), e.highest, (unsigned long long)k->g->vanished);
}

void h_check_acks(struct check *c, uint32_t group) {
    struct acks k = {.c = c, .group = group, .g = &c->h->group[group]};
    collect(&k);
    uint32_t m = 0, t = c->first_take[group], end = c->first_take[group + 1];
    while (t < end || m < k.mark_count) {
        uint32_t value = t < end ? c->takes[t].value : NONE;
        if (m < k.mark_count && k.marks[m].value < value)
            value = k.marks[m].value; /* never delivered, or not written down */
        struct story s = {.v = &c->values[value], .takes = &c->takes[t], .marks = &k.marks[m]};
        while (t < end && c->takes[t].value == value) t++, s.take_count++;
        while (m < k.mark_count && k.marks[m].value == value) m++, s.mark_count++;
        check_story(&k, &s);
    }
    if (k.unexplained > k.room)
        h_say(c, H_DELIVERIES,
              "%s: %llu deliveries are missing from the rows 1, 2, 3, ... of its values, of which kills "
              "explain %llu",
              h_group_text(c, group), (unsigned long long)k.unexplained, (unsigned long long)k.room);
    free(k.marks);
}
