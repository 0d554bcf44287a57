/* SPDX-License-Identifier: MIT */
/*
 * Is there one order of a channel's values that agrees with everything that
 * anybody saw? A channel is a log: its values lie in it in one order, which its
 * senders make and every group follows. So of two values the one comes first
 *
 *   if its send had ended before the send of the other began;
 *   if one actor sent both, it first;
 *   if a group received it by a call that had ended before the call began by which
 *   the group received the other;
 *   if one actor received both for one group, it first;
 *
 * and a history is right if and only if these relations, all together, have no
 * circle. That covers order per producer, order among producers, and that all
 * groups agree. (Of a value that is delivered again only the first delivery is
 * in order.)
 *
 * Found by taking out, again and again, a value before which nothing has to
 * come. In one relation by intervals nothing has to come before a value that
 * began before any of those left had ended: two sorted arrays and a count of
 * relations for each value, so O(n log n) altogether. What is left when there
 * is none has a circle.
 */
#include "history_internal.h"

#include <stdlib.h>

#define MANY 12 /* values of a circle that are told */

/* A value's interval in one relation. */
struct entry {
    int64_t begin, end;
    uint32_t value;
    uint32_t event; /* of a take: its place in what its actor did */
    uint16_t actor; /* of the send, or the take */
    uint16_t relation;
    uint32_t next; /* of the same value, in another relation; or NONE */
    uint32_t before,
        after; /* the entry by the same actor in the same relation that comes just before, after; or NONE */
};

struct relation {
    uint32_t group;  /* NONE: the sends */
    uint32_t *begin; /* entries by begin; those before `open` may come now, as far as this relation goes */
    uint32_t *end;   /* entries by end; those before `done` have been taken out */
    uint32_t open, done, count;
};

struct order {
    struct check *c;
    struct entry *entries;
    uint32_t entry_count;
    struct relation *relations;
    uint32_t relation_count;
    /* of each value of the check */
    uint32_t *head;  /* its first entry, or NONE */
    uint32_t *needs; /* relations, and earlier ones of the same actor, for which it has to wait */
    bool *out;
    uint32_t *ready;
    uint32_t ready_count, left;
};

/* ------------------------------------------------------------------- building */

static void add_entry(struct order *o, struct entry e) {
    e.next = o->head[e.value];
    e.before = e.after = NONE;
    o->head[e.value] = o->entry_count;
    o->entries[o->entry_count++] = e;
}

static void add_sends(struct order *o, uint32_t channel) {
    for (uint32_t i = 0; i < o->c->value_count; i++) {
        const struct value *v = &o->c->values[i];
        if (v->channel != channel || !v->taken) continue;
        add_entry(o, (struct entry){.begin = v->begin, .end = v->end, .value = i, .event = i, .actor = v->actor});
        o->left++;
    }
}

static void add_takes(struct order *o, uint32_t group, uint32_t relation) {
    const struct check *c = o->c;
    for (uint32_t i = c->first_take[group]; i < c->first_take[group + 1]; i++) {
        const struct take *t = &c->takes[i];
        if (!h_is_first(c, i) || t->count > 1) continue;
        add_entry(o, (struct entry){.begin = t->begin,
                                    .end = t->end,
                                    .value = t->value,
                                    .event = t->event,
                                    .actor = t->actor,
                                    .relation = (uint16_t)relation});
    }
}

static int by_begin(const void *a, const void *b, void *entries) {
    const struct entry *e = entries;
    int64_t x = e[*(const uint32_t *)a].begin, y = e[*(const uint32_t *)b].begin;
    return (x > y) - (x < y);
}
static int by_end(const void *a, const void *b, void *entries) {
    const struct entry *e = entries;
    int64_t x = e[*(const uint32_t *)a].end, y = e[*(const uint32_t *)b].end;
    return (x > y) - (x < y);
}
static int by_actor(const void *a, const void *b, void *entries) {
    const struct entry *all = entries, *x = &all[*(const uint32_t *)a], *y = &all[*(const uint32_t *)b];
    if (x->actor != y->actor) return x->actor < y->actor ? -1 : 1;
    return (x->event > y->event) - (x->event < y->event);
}

/* What one actor did is in the order in which it did it, also within one call. */
static void link_actors(struct order *o, struct relation *r) {
    qsort_r(r->begin, r->count, sizeof *r->begin, by_actor, o->entries);
    for (uint32_t i = 1; i < r->count; i++) {
        struct entry *x = &o->entries[r->begin[i - 1]], *y = &o->entries[r->begin[i]];
        if (x->actor != y->actor) continue;
        x->after = r->begin[i];
        y->before = r->begin[i - 1];
        o->needs[y->value]++;
    }
}

static void finish_relation(struct order *o, uint32_t group, uint32_t first) {
    struct relation *r = &o->relations[o->relation_count++];
    *r = (struct relation){.group = group, .count = o->entry_count - first};
    r->begin = h_array(r->count, sizeof *r->begin);
    r->end = h_array(r->count, sizeof *r->end);
    for (uint32_t i = 0; i < r->count; i++) {
        r->begin[i] = r->end[i] = first + i;
        o->needs[o->entries[first + i].value]++;
    }
    link_actors(o, r);
    qsort_r(r->begin, r->count, sizeof *r->begin, by_begin, o->entries);
    qsort_r(r->end, r->count, sizeof *r->end, by_end, o->entries);
}

static void build(struct order *o, struct check *c, uint32_t channel) {
    *o = (struct order){.c = c};
    o->entries = h_array((size_t)c->value_count + c->take_count, sizeof *o->entries);
    o->relations = h_array(c->h->groups + 1, sizeof *o->relations);
    o->head = h_array(c->value_count, sizeof *o->head);
    o->needs = h_array(c->value_count, sizeof *o->needs);
    o->out = h_array(c->value_count, sizeof *o->out);
    o->ready = h_array(c->value_count, sizeof *o->ready);
    for (uint32_t i = 0; i < c->value_count; i++) o->head[i] = NONE;
    add_sends(o, channel);
    finish_relation(o, NONE, 0);
    for (uint32_t g = 0; g < c->h->groups; g++) {
        uint32_t first = o->entry_count;
        if (c->h->group[g].channel != channel) continue;
        add_takes(o, g, o->relation_count);
        finish_relation(o, g, first);
    }
}

static void destroy(struct order *o) {
    for (uint32_t i = 0; i < o->relation_count; i++) {
        free(o->relations[i].begin);
        free(o->relations[i].end);
    }
    free(o->relations);
    free(o->entries);
    free(o->head);
    free(o->needs);
    free(o->out);
    free(o->ready);
}

/* ------------------------------------------------------------------ taking out */

static void needs_one_less(struct order *o, uint32_t value) {
    if (--o->needs[value] == 0) o->ready[o->ready_count++] = value;
}

/* Those that began before any that is left had ended need not wait for this relation any more. */
static void advance(struct order *o, struct relation *r) {
    while (r->done < r->count && o->out[o->entries[r->end[r->done]].value]) r->done++;
    int64_t first_end = r->done < r->count ? o->entries[r->end[r->done]].end : H_OPEN;
    while (r->open < r->count && o->entries[r->begin[r->open]].begin <= first_end)
        needs_one_less(o, o->entries[r->begin[r->open++]].value);
}

static void take_out(struct order *o, uint32_t value) {
    o->out[value] = true;
    o->left--;
    for (uint32_t i = o->head[value]; i != NONE; i = o->entries[i].next) {
        const struct entry *e = &o->entries[i];
        if (e->after != NONE) needs_one_less(o, o->entries[e->after].value);
        advance(o, &o->relations[e->relation]);
    }
}

/* --------------------------------------------------------------- telling a circle */

/* An entry of another value that is left and has to come before this one, by its relation; or NONE. */
static uint32_t blocker(const struct order *o, uint32_t i) {
    const struct entry *e = &o->entries[i];
    const struct relation *r = &o->relations[e->relation];
    if (e->before != NONE && !o->out[o->entries[e->before].value]) return e->before;
    uint32_t first = r->done < r->count ? r->end[r->done] : NONE;
    return first != NONE && o->entries[first].end < e->begin ? first : NONE;
}

/* The relation by which value x comes before y, or NONE. */
static uint32_t comes_before(const struct order *o, uint32_t x, uint32_t y) {
    for (uint32_t i = o->head[x]; i != NONE; i = o->entries[i].next)
        for (uint32_t j = o->head[y]; j != NONE; j = o->entries[j].next) {
            const struct entry *a = &o->entries[i], *b = &o->entries[j];
            if (a->relation != b->relation) continue;
            if (a->end < b->begin || (a->actor == b->actor && a->event < b->event)) return a->relation;
        }
    return NONE;
}

static const struct entry *entry_in(const struct order *o, uint32_t value, uint32_t relation) {
    uint32_t i = o->head[value];
    while (o->entries[i].relation != relation) i = o->entries[i].next;
    return &o->entries[i];
}

static const char *side_text(const struct order *o, uint32_t relation) {
    uint32_t group = o->relations[relation].group;
    return group == NONE ? "senders" : h_group_text(o->c, group);
}

/* "x before y by g: actor a (t), then actor b (t)" */
static void say_edge(const struct order *o, uint32_t x, uint32_t y) {
    uint32_t relation = comes_before(o, x, y);
    const struct entry *a = entry_in(o, x, relation), *b = entry_in(o, y, relation);
    const struct value *v = &o->c->values[x], *w = &o->c->values[y];
    h_say(o->c, H_ORDER, "by %s value %u:%llu comes before %u:%llu: actor %u (%s), then actor %u (%s)",
          side_text(o, relation), H_ACTOR(v->id), (unsigned long long)H_NUMBER(v->id), H_ACTOR(w->id),
          (unsigned long long)H_NUMBER(w->id), a->actor, h_span_text(o->c, a->begin, a->end), b->actor,
          h_span_text(o->c, b->begin, b->end));
}

/* Two values that have to come before each other: the clearest thing to say. */
static bool say_pair(const struct order *o) {
    for (uint32_t v = 0; v < o->c->value_count; v++) {
        if (o->out[v]) continue;
        for (uint32_t i = o->head[v]; i != NONE; i = o->entries[i].next) {
            uint32_t b = blocker(o, i);
            if (b == NONE || comes_before(o, v, o->entries[b].value) == NONE) continue;
            say_edge(o, v, o->entries[b].value);
            say_edge(o, o->entries[b].value, v);
            return true;
        }
    }
    return false;
}

/* Follows what blocks until a value comes again. */
static void say_circle(struct order *o) {
    uint32_t *seen_at = h_array(o->c->value_count, sizeof *seen_at), *path = h_array(o->left, sizeof *path);
    uint32_t v = 0, n = 0;
    while (o->out[v] || o->head[v] == NONE) v++;
    while (!seen_at[v]) {
        uint32_t b = NONE;
        path[n] = v;
        seen_at[v] = ++n;
        /* It is left because it waits for something, which is left too. */
        for (uint32_t i = o->head[v]; i != NONE && b == NONE; i = o->entries[i].next) b = blocker(o, i);
        v = o->entries[b].value;
    }
    uint32_t from = seen_at[v] - 1;
    h_say(o->c, H_ORDER, "no order agrees with all that was seen: a circle of %u values", n - from);
    for (uint32_t i = n; i-- > from + 1 && n - i <= MANY;) say_edge(o, path[i], path[i - 1]);
    say_edge(o, path[from], path[n - 1]);
    free(seen_at);
    free(path);
}

void h_check_order(struct check *c, uint32_t channel) {
    struct order *o = h_array(1, sizeof *o);
    build(o, c, channel);
    for (uint32_t i = 0; i < c->value_count; i++)
        if (o->head[i] == NONE) o->out[i] = true;
    for (uint32_t i = 0; i < o->relation_count; i++) advance(o, &o->relations[i]);
    while (o->ready_count) take_out(o, o->ready[--o->ready_count]);
    if (o->left && !say_pair(o)) say_circle(o);
    destroy(o);
    free(o);
}
