/* SPDX-License-Identifier: MIT */
/*
 * The checker: takes a history apart and applies the rules, of which those that
 * look at one value or one call at a time are here.
 *
 *   received     was sent on that channel; not by a send that failed; not before
 *                the send began; once by each group; not by a group that began at
 *                the tail after it was sent
 *   not lost     a value whose send succeeded is due to every group that was there
 *                before its send began, or that received an older one; to one that
 *                began with what was there, also what another group received after
 *                that, or the channel keeps; and has to be there if the group was
 *                drained, or received a younger one.
 *                What is missing must be explained: by receives during which
 *                their actor was killed, each for as many values as it may have
 *                taken and not for one that was sent after the kill; by what the
 *                channel counted as dropped, expired or dead
 *   closed       no send succeeds after, no receive after its group was drained,
 *                nobody is told so before
 *   timeouts     not before their time
 *
 * A send during which its actor was killed counts as sent if anybody received
 * the value or a later one of the same actor: a sender's values go in order.
 */
#include "history_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xidata.h"

/* ------------------------------------------------------------------ sentences */

static char *piece(void) {
    static char pieces[24][128];
    static unsigned next;
    return pieces[next++ % 24];
}

const char *h_time_text(const struct check *c, int64_t t) {
    char *s = piece();
    if (t == H_OPEN) return "never";
    snprintf(s, 128, "%.6f", (double)(t - c->h->start) / 1e6);
    return s;
}

const char *h_span_text(const struct check *c, int64_t begin, int64_t end) {
    char *s = piece();
    snprintf(s, 128, "%s-%s ms", h_time_text(c, begin), end == H_OPEN ? "(killed)" : h_time_text(c, end));
    return s;
}

const char *h_value_text(const struct check *c, const struct value *v) {
    char *s = piece();
    snprintf(s, 128, "value %u:%llu (sent %s)", H_ACTOR(v->id), (unsigned long long)H_NUMBER(v->id),
             h_span_text(c, v->begin, v->end));
    return s;
}

const char *h_take_text(const struct check *c, const struct take *t) {
    char *s = piece(), delivery[24] = "";
    if (t->count) snprintf(delivery, sizeof delivery, ", delivery %u", t->count);
    snprintf(s, 128, "by actor %u (%s%s)", t->actor, h_span_text(c, t->begin, t->end), delivery);
    return s;
}

const char *h_group_text(const struct check *c, uint32_t group) {
    char *s = piece();
    const struct h_group *g = &c->h->group[group];
    snprintf(s, 128, "%s/%s", c->h->channel[g->channel].name, g->name);
    return s;
}

const char *h_defect_name(enum h_defect defect) {
    static const char *const names[H_DEFECTS] = {
        [H_BAD_ID] = "bad id",
        [H_PHANTOM] = "phantom",
        [H_FAILED] = "failed send",
        [H_TOO_SOON] = "too soon",
        [H_TWICE] = "twice",
        [H_LOST] = "lost",
        [H_ORDER] = "order",
        [H_BEFORE_JOIN] = "before the group",
        [H_AFTER_END] = "after the end",
        [H_CLOSED_EARLY] = "closed early",
        [H_NOT_EMPTY] = "not empty",
        [H_TIMED_OUT_EARLY] = "timed out early",
        [H_SLEPT] = "slept",
        [H_EXPIRED] = "expiry",
        [H_COUNTERS] = "counters",
        [H_BOUND] = "bound",
        [H_DELIVERIES] = "deliveries",
        [H_HELD_BY_TWO] = "held by two",
        [H_ACKED_TWICE] = "acked twice",
        [H_NOT_ACKED] = "not acked",
        [H_STALE] = "stale",
        [H_DEAD_LETTER] = "dead letter",
        [H_CALLS] = "calls",
    };
    return defect > 0 && defect < H_DEFECTS ? names[defect] : "?";
}

void h_say(struct check *c, enum h_defect defect, const char *format, ...) {
    struct h_report *r = c->report;
    r->count++;
    r->of[defect]++;
    if (r->of[defect] > 8 || H_TEXT - r->length < 1024) return; /* one cause has many effects */
    r->length += (size_t)snprintf(r->text + r->length, H_TEXT - r->length, "  [%s] ", h_defect_name(defect));
    va_list args;
    va_start(args, format);
    int n = vsnprintf(r->text + r->length, 900, format, args);
    va_end(args);
    r->length += n < 900 ? (size_t)n : 899;
    r->length += (size_t)snprintf(r->text + r->length, H_TEXT - r->length, "\n");
}

void *h_array(size_t n, size_t size) {
    void *p = calloc(n + 1, size);
    if (!p) {
        perror("history: memory");
        abort();
    }
    return p;
}

/* ------------------------------------------------------------- taking it apart */

static int by_id(const void *a, const void *b) {
    uint64_t x = ((const struct value *)a)->id, y = ((const struct value *)b)->id;
    return (x > y) - (x < y);
}

uint32_t h_find(const struct check *c, uint64_t id) {
    uint32_t low = 0, high = c->value_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->values[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->value_count && c->values[low].id == id ? low : NONE;
}

static void collect_values(struct check *c) {
    size_t n = 0;
    for_each_event(c->h, a, e) n += e->kind == H_SEND;
    c->values = h_array(n, sizeof *c->values);
    for_each_event(c->h, a, e) {
        if (e->kind != H_SEND) continue;
        uint8_t fate = e->end == H_OPEN ? UNKNOWN : e->result == 0 ? SENT : FAILED;
        struct value v = {e->value, e->begin, e->end, e->argument, (uint16_t)a, e->channel, fate, 0};
        c->values[c->value_count++] = v;
        if (H_ACTOR(e->value) != a) h_say(c, H_BAD_ID, "actor %u sent %s, which is another's", a, h_value_text(c, &v));
    }
    qsort(c->values, c->value_count, sizeof *c->values, by_id);
    for (uint32_t i = 1; i < c->value_count; i++)
        if (c->values[i].id == c->values[i - 1].id)
            h_say(c, H_BAD_ID, "%s and %s have one id", h_value_text(c, &c->values[i - 1]),
                  h_value_text(c, &c->values[i]));
}

static int by_group_and_value(const void *a, const void *b) {
    const struct take *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    if (x->count != y->count) return x->count < y->count ? -1 : 1;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->actor != y->actor) return x->actor < y->actor ? -1 : 1;
    return (x->event > y->event) - (x->event < y->event);
}

static void add_take(struct check *c, uint32_t actor, const struct h_event *e) {
    struct take t = {
        e->begin, e->end,         h_find(c, e->value), e->count, (uint32_t)(e - h_event_of(c->h, actor, 0)),
        e->group, (uint16_t)actor};
    if (e->group >= c->h->groups) {
        h_say(c, H_BAD_ID, "actor %u received for group %u, which there is not", actor, e->group);
    } else if (t.value == NONE || c->values[t.value].channel != c->h->group[e->group].channel) {
        h_say(c, H_PHANTOM, "%s received value %u:%llu, which nobody sent on that channel: %s",
              h_group_text(c, e->group), H_ACTOR(e->value), (unsigned long long)H_NUMBER(e->value), h_take_text(c, &t));
    } else {
        c->takes[c->take_count++] = t;
    }
}

static void collect_takes(struct check *c) {
    size_t n = 0;
    for_each_event(c->h, a, e) n += e->kind == H_RECEIVE && e->end != H_OPEN && e->result == 0;
    c->takes = h_array(n, sizeof *c->takes);
    for_each_event(c->h, a, e) {
        if (e->kind == H_RECEIVE && e->end != H_OPEN && e->result == 0) add_take(c, a, e);
    }
    qsort(c->takes, c->take_count, sizeof *c->takes, by_group_and_value);
    c->first_take = h_array(c->h->groups + 1, sizeof *c->first_take);
    uint32_t t = 0;
    for (uint32_t g = 0; g <= c->h->groups; g++) {
        c->first_take[g] = t;
        while (t < c->take_count && c->takes[t].group == g) t++;
    }
}

static void least(int64_t *a, int64_t b) {
    if (b < *a) *a = b;
}

static void collect_spans(struct check *c) {
    for (uint32_t i = 0; i < H_CHANNELS; i++) c->close_begin[i] = c->close_end[i] = H_OPEN;
    for (uint32_t g = 0; g < c->h->groups; g++) {
        int64_t joined = c->h->group[g].from_start ? INT64_MIN : H_OPEN;
        c->span[g] = (struct span){joined, joined, H_OPEN};
    }
    for_each_event(c->h, a, e) {
        if (e->kind == H_CLOSE && e->channel < H_CHANNELS && e->result == 0) {
            least(&c->close_begin[e->channel], e->begin);
            least(&c->close_end[e->channel], e->end);
        }
        /* Who is told that it is closed tells when at the latest it was. */
        bool told = (e->kind == H_SEND || e->kind == H_RECEIVE) && e->end != H_OPEN && e->result == XI_E_CLOSED;
        if (told && e->channel < H_CHANNELS) least(&c->close_end[e->channel], e->end);
        if (e->group >= c->h->groups) continue;
        struct span *s = &c->span[e->group];
        if (e->kind == H_JOIN && e->result == 0) {
            least(&s->joined_begin, e->begin);
            least(&s->joined_end, e->end);
        }
        if (e->kind == H_RECEIVE && e->end != H_OPEN && e->result == XI_E_CLOSED) least(&s->drained, e->end);
    }
}

/* ------------------------------------------------------ what one value tells */

static void check_take(struct check *c, uint32_t i) {
    const struct take *t = &c->takes[i];
    const struct value *v = &c->values[t->value];
    const char *group = h_group_text(c, t->group);
    const struct h_group *g = &c->h->group[t->group];
    if (v->fate == FAILED)
        h_say(c, H_FAILED, "%s received %s, whose send returned an error: %s", group, h_value_text(c, v),
              h_take_text(c, t));
    if (t->end < v->begin)
        h_say(c, H_TOO_SOON, "%s received %s before that began: %s", group, h_value_text(c, v), h_take_text(c, t));
    if (!g->acknowledges && t->count)
        h_say(c, H_DELIVERIES,
              "%s received %s with a delivery count though it does not "
              "acknowledge: %s",
              group, h_value_text(c, v), h_take_text(c, t));
    if (!g->acknowledges && !h_is_first(c, i))
        h_say(c, H_TWICE, "%s received %s twice: %s and %s", group, h_value_text(c, v), h_take_text(c, t - 1),
              h_take_text(c, t));
    if (g->from == XI_FROM_TAIL && v->end < c->span[t->group].joined_begin)
        h_say(c, H_BEFORE_JOIN, "%s received %s, but was not there before %s ms: %s", group, h_value_text(c, v),
              h_time_text(c, c->span[t->group].joined_begin), h_take_text(c, t));
    if (t->begin > c->span[t->group].drained)
        h_say(c, H_AFTER_END, "%s received %s after it was told, at %s ms, that all was received: %s", group,
              h_value_text(c, v), h_time_text(c, c->span[t->group].drained), h_take_text(c, t));
}

/* Requests whose call had no reply: nobody may ever see them, or everybody skip them. */
static void collect_unwanted(struct check *c) {
    for_each_event(c->h, a, e) {
        if (e->kind != H_CALL) continue;
        if (!c->answered) c->answered = h_array(c->value_count, sizeof *c->answered);
        uint32_t i = e->end != H_OPEN && e->result == 0 ? h_find(c, e->value) : NONE;
        if (i != NONE) c->answered[i] = true;
    }
}

/* Sends whose end nobody saw happened if the value was received, or a later one of that actor on that channel was. And
 * those that happened did so before the channel was closed. */
static void settle_fates(struct check *c) {
    uint8_t seen[H_CHANNELS] = {0}; /* a later one of this actor was */
    for (uint32_t i = c->value_count; i-- > 0;) {
        struct value *v = &c->values[i];
        if (i + 1 == c->value_count || c->values[i + 1].actor != v->actor) memset(seen, 0, sizeof seen);
        if (v->taken) seen[v->channel % H_CHANNELS] = 1;
        if (v->fate == UNKNOWN && seen[v->channel % H_CHANNELS]) v->fate = SENT;
        if (v->fate == SENT && v->begin <= c->close_end[v->channel % H_CHANNELS])
            least(&v->end, c->close_end[v->channel % H_CHANNELS]);
    }
}

static void check_sends(struct check *c) {
    for (uint32_t i = 0; i < c->value_count; i++) {
        const struct value *v = &c->values[i];
        if (v->fate == SENT && v->begin > c->close_end[v->channel % H_CHANNELS])
            h_say(c, H_AFTER_END, "%s was sent after the channel had been closed at %s ms", h_value_text(c, v),
                  h_time_text(c, c->close_end[v->channel % H_CHANNELS]));
    }
}

/* ------------------------------------------------------- what one call was told */

static void check_outcome(struct check *c, uint32_t actor, const struct h_event *e) {
    const char *what = e->kind == H_SEND ? "send" : e->kind == H_WAIT ? "wait" : "receive";
    if (e->result == XI_E_CLOSED && e->end < c->close_begin[e->channel % H_CHANNELS])
        h_say(c, H_CLOSED_EARLY, "actor %u's %s (%s) was told that \"%s\" is closed, which nobody had begun to do",
              actor, what, h_span_text(c, e->begin, e->end), c->h->channel[e->channel % H_CHANNELS].name);
    bool early = e->timeout < 0 || e->end - e->begin < e->timeout;
    if (e->result == XI_E_TIMEOUT && early)
        h_say(c, H_TIMED_OUT_EARLY, "actor %u's %s (%s) had %lld ns, and was told that they are over", actor, what,
              h_span_text(c, e->begin, e->end), (long long)e->timeout);
}

static void check_outcomes(struct check *c) {
    for_each_event(c->h, a, e) {
        bool call = e->kind == H_SEND || e->kind == H_RECEIVE || e->kind == H_WAIT;
        if (call && e->end != H_OPEN && e->result) check_outcome(c, a, e);
    }
}

/* ------------------------------------------------------------------ what is lost */

/* A receive whose outcome nobody wrote down. */
struct killed {
    int64_t at;
    uint32_t may_take;
};

struct loss {
    uint32_t group;
    int64_t first_end, last_begin; /* of sends: the first to end, the last to begin, of those that were received */
    uint64_t *least, *most;        /* of each actor: numbers received; 0: none */
    struct kept *kept;             /* of a group that did not begin at the tail; or NULL */
    bool *dead;                    /* values that are among the dead letters instead */
    struct killed *killed;         /* the latest first */
    uint32_t killed_count;
    uint32_t *missing; /* the latest first */
    uint32_t missing_count;
    uint64_t maybe; /* further values that it may have been due, and did not receive */
};

static int latest_kill(const void *a, const void *b) {
    int64_t x = ((const struct killed *)a)->at, y = ((const struct killed *)b)->at;
    return (x < y) - (x > y);
}

/* (In a group that acknowledges a kill explains nothing: the value goes to another.) */
static void collect_killed(struct check *c, struct loss *l) {
    size_t n = 0;
    l->dead = h_array(c->value_count, sizeof *l->dead);
    for_each_event(c->h, a, e) {
        uint32_t i = e->kind == H_DEAD && e->group == l->group ? h_find(c, e->value) : NONE;
        if (i != NONE) l->dead[i] = true;
    }
    if (c->h->group[l->group].acknowledges) return;
    for_each_event(c->h, a, e) n += e->kind == H_RECEIVE && e->end == H_OPEN && e->group == l->group;
    l->killed = h_array(n, sizeof *l->killed);
    for_each_event(c->h, a, e) {
        if (e->kind != H_RECEIVE || e->end != H_OPEN || e->group != l->group) continue;
        int64_t at = c->h->actor[a].kill_end;
        l->killed[l->killed_count++] = (struct killed){at ? at : H_OPEN, e->may_take ? e->may_take : 1};
    }
    qsort(l->killed, l->killed_count, sizeof *l->killed, latest_kill);
}

/* How far what the group received reaches. */
static void collect_reach(const struct check *c, struct loss *l) {
    l->first_end = H_OPEN;
    l->last_begin = INT64_MIN;
    for (uint32_t i = c->first_take[l->group]; i < c->first_take[l->group + 1]; i++) {
        const struct value *v = &c->values[c->takes[i].value];
        uint64_t n = H_NUMBER(v->id);
        if (v->end < l->first_end) l->first_end = v->end;
        if (v->begin > l->last_begin) l->last_begin = v->begin;
        if (!l->least[v->actor] || n < l->least[v->actor]) l->least[v->actor] = n;
        if (n > l->most[v->actor]) l->most[v->actor] = n;
    }
}

/*
 * What was there when a group joined that begins with that. A value is one of the
 * last n if fewer than n can have come after it; and was there if another group
 * received it afterwards, or if it is one of the last that the channel keeps.
 */
struct kept {
    uint32_t n;           /* of the channel's values, sends that may have happened: */
    int64_t *begin, *end; /* sorted */
    int64_t *later; /* of each value: the latest begin of a receive of another group that was there before; or 0 */
};

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* How many of the sorted numbers are less than t. */
static uint32_t less_than(const int64_t *sorted, uint32_t n, int64_t t) {
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (sorted[middle] < t)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void collect_kept(const struct check *c, struct loss *l) {
    struct kept *k = h_array(1, sizeof *k);
    uint32_t channel = c->h->group[l->group].channel;
    k->begin = h_array(c->value_count, sizeof *k->begin);
    k->end = h_array(c->value_count, sizeof *k->end);
    k->later = h_array(c->value_count, sizeof *k->later);
    for (uint32_t i = 0; i < c->value_count; i++) {
        const struct value *v = &c->values[i];
        if (v->channel != channel || v->fate == FAILED) continue;
        k->begin[k->n] = v->begin;
        k->end[k->n++] = v->end;
    }
    qsort(k->begin, k->n, sizeof *k->begin, by_number);
    qsort(k->end, k->n, sizeof *k->end, by_number);
    for (uint32_t i = 0; i < c->take_count; i++) {
        const struct take *t = &c->takes[i];
        if (c->h->group[t->group].channel != channel || t->group == l->group || t->count > 1) continue;
        bool before = c->span[t->group].joined_end < c->span[l->group].joined_begin;
        if (before && t->begin > k->later[t->value]) k->later[t->value] = t->begin;
    }
    l->kept = k;
}

static void free_kept(struct kept *k) {
    if (!k) return;
    free(k->begin);
    free(k->end);
    free(k->later);
    free(k);
}

/* How many values there can have been after this one when the group had joined. */
static uint32_t possibly_after(const struct kept *k, const struct value *v, int64_t joined) {
    return less_than(k->begin, k->n, joined) - less_than(k->end, k->n, v->begin) - 1;
}

static bool was_kept(const struct check *c, const struct loss *l, uint32_t i) {
    const struct value *v = &c->values[i];
    const struct h_group *g = &c->h->group[l->group];
    int64_t joined = c->span[l->group].joined_end;
    if (!l->kept || v->end >= c->span[l->group].joined_begin) return false;
    uint32_t after = possibly_after(l->kept, v, joined);
    if (g->from == XI_FROM_LAST && after >= g->last) return false;
    return l->kept->later[i] > joined || after < c->h->channel[g->channel].retain;
}

/* Of those that begin with the last n: not more than that. */
static void check_last(struct check *c, uint32_t group) {
    const struct h_group *g = &c->h->group[group];
    uint64_t old = 0;
    if (g->from != XI_FROM_LAST) return;
    for (uint32_t i = c->first_take[group]; i < c->first_take[group + 1]; i++)
        old += h_is_first(c, i) && c->values[c->takes[i].value].end < c->span[group].joined_begin;
    if (old > g->last)
        h_say(c, H_BEFORE_JOIN, "%s was to begin with the last %u values, and received %llu that were sent before",
              h_group_text(c, group), g->last, (unsigned long long)old);
}

static bool is_due(const struct check *c, const struct loss *l, uint32_t i) {
    const struct value *v = &c->values[i];
    uint64_t n = H_NUMBER(v->id), least_ = l->least[v->actor];
    if (v->fate != SENT || (c->answered && !c->answered[i])) return false;
    bool begun = v->begin > c->span[l->group].joined_end || v->begin > l->first_end || (least_ && n > least_) ||
                 was_kept(c, l, i);
    bool over = c->span[l->group].drained != H_OPEN || c->h->group[l->group].drained || v->end < l->last_begin ||
                n < l->most[v->actor];
    return begun && over;
}

static int latest_send(const void *a, const void *b, void *values) {
    int64_t x = ((const struct value *)values)[*(const uint32_t *)a].begin;
    int64_t y = ((const struct value *)values)[*(const uint32_t *)b].begin;
    return (x < y) - (x > y);
}

static void collect_missing(struct check *c, struct loss *l) {
    uint32_t channel = c->h->group[l->group].channel, t = c->first_take[l->group], end = c->first_take[l->group + 1];
    l->missing = h_array(c->value_count, sizeof *l->missing);
    for (uint32_t i = 0; i < c->value_count; i++) {
        const struct value *v = &c->values[i];
        while (t < end && c->takes[t].value < i) t++;
        if (v->channel != channel || (t < end && c->takes[t].value == i) || l->dead[i]) continue;
        if (is_due(c, l, i))
            l->missing[l->missing_count++] = i;
        else if (v->fate != FAILED && !(v->end < c->span[l->group].joined_begin))
            l->maybe++;
    }
    qsort_r(l->missing, l->missing_count, sizeof *l->missing, latest_send, c->values);
}

/* How many of the missing ones the killed may have taken with them. */
static uint64_t explained_by_kills(const struct check *c, const struct loss *l) {
    uint64_t explained = 0, room = 0;
    uint32_t k = 0;
    for (uint32_t i = 0; i < l->missing_count; i++) {
        while (k < l->killed_count && l->killed[k].at > c->values[l->missing[i]].begin) room += l->killed[k++].may_take;
        if (explained < room) explained++;
    }
    return explained;
}

static void say_lost(struct check *c, const struct loss *l, uint64_t explained, uint64_t counted) {
    uint64_t lost = l->missing_count - explained - counted;
    for (uint32_t i = 0; i < l->missing_count && i < 3; i++) {
        const struct value *v = &c->values[l->missing[l->missing_count - 1 - i]];
        h_say(c, H_LOST,
              "%s never received %s (%u other groups did); it misses %u in all, of which kills explain %llu "
              "and the channel counted %llu: %llu are lost",
              h_group_text(c, l->group), h_value_text(c, v), v->taken, l->missing_count, (unsigned long long)explained,
              (unsigned long long)counted, (unsigned long long)lost);
    }
}

static void check_lost(struct check *c, uint32_t group) {
    const struct h_group *g = &c->h->group[group];
    struct loss l = {.group = group};
    l.least = h_array(c->h->actors, sizeof *l.least);
    l.most = h_array(c->h->actors, sizeof *l.most);
    collect_killed(c, &l);
    collect_reach(c, &l);
    if (g->from != XI_FROM_TAIL) collect_kept(c, &l);
    collect_missing(c, &l);
    check_last(c, group);
    uint64_t explained = explained_by_kills(c, &l), counted = g->dropped + g->expired;
    if (g->acknowledges) counted += g->vanished;
    if (l.missing_count > explained + counted && !g->lossy) say_lost(c, &l, explained, counted);
    /* Where values are delivered again, one may expire that was received; a group that begins at values that are there
     * may find some expired that the history does not make it due. */
    if (g->counted && !g->acknowledges && g->from == XI_FROM_TAIL && counted > l.missing_count + l.maybe)
        h_say(c, H_COUNTERS, "%s counted %llu values as dropped and %llu as expired, but received all but %llu",
              h_group_text(c, group), (unsigned long long)g->dropped, (unsigned long long)g->expired,
              (unsigned long long)(l.missing_count + l.maybe));
    free(l.least);
    free(l.most);
    free(l.dead);
    free(l.killed);
    free(l.missing);
    free_kept(l.kept);
}

/* ----------------------------------------------------------------------- all of it */

uint64_t h_check(const struct history *h, struct h_report *report) {
    struct check *c = h_array(1, sizeof *c);
    memset(report, 0, sizeof *report);
    c->h = h;
    c->report = report;
    for (uint32_t a = 0; a < h->actors; a++) report->events += h_count_of(h, a);
    collect_values(c);
    collect_takes(c);
    collect_spans(c);
    collect_unwanted(c);
    for (uint32_t i = 0; i < c->take_count; i++) c->values[c->takes[i].value].taken += h_is_first(c, i);
    report->values = c->value_count;
    settle_fates(c);
    check_sends(c);
    check_outcomes(c);
    for (uint32_t i = 0; i < c->take_count; i++) check_take(c, i);
    h_check_blocked(c);
    h_check_calls(c);
    for (uint32_t g = 0; g < h->groups; g++) {
        check_lost(c, g);
        h_check_presence(c, g);
        h_check_expiry(c, g);
        if (h->group[g].acknowledges) h_check_acks(c, g);
    }
    for (uint32_t i = 0; i < h->channels; i++) {
        h_check_order(c, i);
        h_check_bound(c, i);
    }
    free(c->values);
    free(c->takes);
    free(c->first_take);
    free(c->answered);
    free(c);
    return report->count;
}
