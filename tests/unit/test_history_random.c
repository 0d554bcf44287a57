/* SPDX-License-Identifier: MIT */
/*
 * Many small random histories, right and spoilt, which are also judged by trying
 * every order in which the calls may have taken effect: no false alarm on any,
 * and with one group nothing overlooked. Then larger ones made by a model of
 * groups that acknowledge, with one event spoilt in a way that has to be seen.
 */
#include "history_made.h"

/* ------------------------------------------------- small ones, judged in another way */

static uint64_t random_state;
static uint32_t random_below(uint32_t n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1du) >> 33) % n;
}

#define SMALL 12 /* calls of a small history, at most, so that trying all orders takes no time */
#define GROUPS 2

/* A channel as it should be, and actors that call it: each call takes effect at a moment of its own. */
static struct model {
    uint64_t log[SMALL];
    uint32_t tail, head[GROUPS];
    bool closed;
    int64_t now, idle[ACTORS]; /* when its last call ended */
    uint64_t number[ACTORS];
    uint32_t groups;
} M;

/* The next call of an actor takes effect now: its event, with some time around that. */
static struct h_event call_now(uint32_t actor, uint8_t kind) {
    int64_t before = M.now - M.idle[actor] - 1;
    struct h_event e = {.kind = kind,
                        .begin = M.now - random_below((uint32_t)(before < 40 ? before : 40) + 1),
                        .end = M.now + 1 + random_below(40),
                        .group = H_NO_GROUP,
                        .may_take = 1};
    M.idle[actor] = e.end;
    return e;
}

static uint32_t model_send(uint32_t actor) {
    uint32_t n = M.closed ? 1 : 1 + (random_below(4) == 0);
    struct h_event e = call_now(actor, H_SEND);
    for (uint32_t i = 0; i < n; i++) {
        e.value = H_ID(actor, ++M.number[actor]);
        e.result = M.closed ? XI_E_CLOSED : 0;
        if (!M.closed) M.log[M.tail++] = e.value;
        h_add(h, actor, e);
    }
    return n;
}

static uint32_t model_receive(uint32_t actor) {
    uint32_t g = actor % M.groups, n = 0, most = 1 + random_below(2);
    struct h_event e = call_now(actor, H_RECEIVE);
    e.group = (uint16_t)g;
    for (; n < most && M.head[g] < M.tail; n++) {
        e.value = M.log[M.head[g]++];
        h_add(h, actor, e);
    }
    if (n == 0) {
        e.result = M.closed ? XI_E_CLOSED : XI_E_AGAIN;
        h_add(h, actor, e);
    }
    return n ? n : 1;
}

/* Returns how many calls there are. */
static void make_small(uint32_t groups) {
    memset(&M, 0, sizeof M);
    M.groups = groups;
    begin_history();
    for (uint32_t g = 1; g < groups; g++) h->group[h_add_group(h, channel, "more")].from_start = true;
    uint32_t most = 5 + random_below(SMALL - 6);
    for (uint32_t calls = 0; calls < most;) {
        uint32_t actor = random_below(6);
        M.now += 1 + random_below(10);
        if (M.idle[actor] >= M.now) continue;
        if (actor < 3 && M.tail + 2 < SMALL) {
            if (!M.closed && calls > 3 && random_below(6) == 0) {
                struct h_event e = call_now(actor, H_CLOSE);
                h_add(h, actor, e);
                M.closed = true;
                calls++;
            } else {
                calls += model_send(actor);
            }
        } else {
            calls += model_receive(actor);
        }
    }
}

/* ---- the other judge: is there an order of all calls in which each could have had its outcome? */

struct call {
    const struct h_event *e;
    uint32_t actor, index;
};
static struct search {
    struct call calls[2 * SMALL];
    uint32_t count, done;
    uint64_t log[2 * SMALL];
    uint32_t tail, head[GROUPS];
    bool closed;
    uint64_t steps;
} T;

static bool has_to_wait(uint32_t i) {
    for (uint32_t j = 0; j < T.count; j++) {
        const struct call *x = &T.calls[j], *y = &T.calls[i];
        if (j == i || T.done >> j & 1) continue;
        if (x->e->end < y->e->begin || (x->actor == y->actor && x->index < y->index)) return true;
    }
    return false;
}

/* Could the call have this outcome now? Then it has. */
static bool apply(const struct h_event *e) {
    uint32_t g = e->group;
    if (e->kind == H_CLOSE) {
        T.closed = true;
        return true;
    }
    if (e->kind == H_SEND) {
        if (e->result == 0 && !T.closed) T.log[T.tail++] = e->value;
        return e->result == 0 ? !T.closed : e->result != XI_E_CLOSED || T.closed;
    }
    if (e->result == 0) return T.head[g] < T.tail && T.log[T.head[g]++] == e->value;
    return T.head[g] == T.tail && (e->result != XI_E_CLOSED || T.closed);
}

static bool search(void) {
    if (T.done == ((uint32_t)1 << T.count) - 1) return true;
    for (uint32_t i = 0; i < T.count; i++) {
        struct search before;
        if (T.done >> i & 1 || has_to_wait(i)) continue;
        before = T;
        T.steps++;
        if (apply(T.calls[i].e)) {
            T.done |= (uint32_t)1 << i;
            if (search()) return true;
        }
        before.steps = T.steps;
        T = before;
    }
    return false;
}

static bool can_be(void) {
    memset(&T, 0, sizeof T);
    for (uint32_t a = 0; a < ACTORS; a++)
        for (uint32_t i = 0; i < h->actor[a].count; i++) {
            struct h_event *e = &h_events(h, a)[i];
            if (e->kind) T.calls[T.count++] = (struct call){e, a, i};
        }
    ck_assert_uint_lt(T.count, 2 * SMALL);
    return search();
}

/* ---- spoiling one thing (or none) */

static struct h_event *any_event(uint8_t kind, uint32_t *actor) {
    for (int tries = 0; tries < 200; tries++) {
        *actor = random_below(ACTORS);
        uint32_t n = h->actor[*actor].count;
        struct h_event *e = n ? &h_events(h, *actor)[random_below(n)] : NULL;
        if (e && (kind == 0 || e->kind == kind)) return e;
    }
    return NULL;
}

/* One of several that one call sent or received. */
static bool in_batch(const struct h_event *e, uint32_t actor) {
    const struct h_event *first = h_events(h, actor), *last = first + h->actor[actor].count - 1;
    return (e > first && e[-1].begin == e->begin) || (e < last && e[1].begin == e->begin);
}

/* Longer or shorter, but not into the calls before and after it of the same actor. */
static void move_times(struct h_event *e, uint32_t actor) {
    struct h_event *first = h_events(h, actor), *last = first + h->actor[actor].count - 1;
    int64_t earliest = e > first ? e[-1].end + 1 : 1, latest = e < last ? e[1].begin - 1 : e->end + 50;
    if (in_batch(e, actor)) return;
    if (latest > e->end + 50) latest = e->end + 50;
    if (earliest < e->begin - 50) earliest = e->begin - 50;
    if (latest - earliest < 2) return;
    int64_t a = earliest + random_below((uint32_t)(latest - earliest)),
            b = earliest + random_below((uint32_t)(latest - earliest));
    e->begin = a < b ? a : b;
    e->end = (a < b ? b : a) + 1;
}

static void spoil(void) {
    uint32_t a, b, what = random_below(8);
    struct h_event *x = any_event(what >= 6 ? 0 : H_RECEIVE, &a), *y = any_event(H_RECEIVE, &b);
    if (!x || !y) return;
    if (what < 6 && what != 2 && x->result != y->result && (in_batch(x, a) || in_batch(y, b))) return;
    if ((what == 4 || what == 5) && in_batch(x, a)) return;
    if (what == 0 || what == 1) { /* what came out */
        uint64_t value = x->value;
        int32_t result = x->result;
        x->value = y->value, x->result = y->result;
        y->value = value, y->result = result;
    } else if (what == 2) {
        x->kind = 0;
    } else if (what == 3) {
        x->value = y->value;
        x->result = y->result;
    } else if (what == 4) {
        x->result = XI_E_AGAIN;
    } else if (what == 5) {
        x->result = XI_E_CLOSED;
    } else {
        move_times(x, a);
    }
}

START_TEST(test_small_random) {
    uint32_t good = 0, bad = 0;
    random_state = 0x9e3779b97f4a7c15u + (uint64_t)_i;
    for (int round = 0; round < 6000; round++) {
        make_small(_i % 2 + 1);
        uint32_t times = random_below(3);
        for (uint32_t i = 0; i < times; i++) spoil();
        bool possible = can_be();
        h_check(h, &report);
        if (times == 0) ck_assert_msg(possible, "round %d: the model made what cannot be", round);
        ck_assert_msg(!possible || report.count == 0, "round %d: a false alarm:\n%s", round, report.text);
        /* With several groups the calls that say "empty" may tell something together that each alone does not. */
        ck_assert_msg(possible || report.count > 0 || M.groups > 1, "round %d: overlooked", round);
        good += possible;
        bad += !possible;
        h_free(h);
    }
    ck_assert_uint_gt(good, 1000);
    ck_assert_uint_gt(bad, 1000);
}
END_TEST

/* ------------------------------------------------------- groups that acknowledge, larger */

#define LARGE 60 /* values */
#define LIMIT 3  /* deliveries */

static struct ack_model {
    uint32_t count[LARGE]; /* deliveries so far */
    bool over[LARGE], returned[LARGE];
    uint32_t next;         /* the first that was never delivered */
    uint32_t held[ACTORS]; /* value + 1 that the consumer has */
    uint32_t open;         /* values of which the end is to come */
} A;

static struct h_event ack_event(uint8_t kind, uint32_t actor, uint32_t v) {
    struct h_event e = call_now(actor, kind);
    e.group = 0;
    e.value = H_ID(P, v + 1);
    e.count = A.count[v];
    return e;
}

static void model_deliver(uint32_t actor) {
    uint32_t v = 0;
    while (v < A.next && !A.returned[v]) v++;
    if (v == LARGE) return;
    A.next += v == A.next;
    A.returned[v] = false;
    A.count[v]++;
    A.held[actor] = v + 1;
    h_add(h, actor, ack_event(H_RECEIVE, actor, v));
}

static void model_settle(uint32_t actor) {
    uint32_t v = A.held[actor] - 1;
    bool ack = random_below(2) == 0;
    h_add(h, actor, ack_event(ack ? H_ACK : H_BACK, actor, v));
    A.held[actor] = 0;
    A.over[v] = ack || A.count[v] == LIMIT;
    A.returned[v] = !A.over[v];
    A.open -= A.over[v];
    if (!ack && A.over[v]) {
        M.now += 200; /* whoever reads the dead letters is idle by then */
        h_add(h, 7, ack_event(H_DEAD, 7, v));
    }
}

static void make_acks(void) {
    memset(&M, 0, sizeof M);
    memset(&A, 0, sizeof A);
    begin_history();
    h->group[group].acknowledges = h->group[group].dead_letters = h->group[group].drained = true;
    h->group[group].max_deliveries = LIMIT;
    for (uint32_t v = 0; v < LARGE; v++) {
        M.now += 100;
        struct h_event e = call_now(P, H_SEND);
        e.value = H_ID(P, v + 1);
        h_add(h, P, e);
    }
    A.open = LARGE;
    while (A.open) {
        uint32_t actor = 4 + random_below(3);
        M.now += 1 + random_below(10);
        if (M.idle[actor] >= M.now) continue;
        if (A.held[actor])
            model_settle(actor);
        else
            model_deliver(actor);
    }
}

/* Each spoils a right history so that no rule of the library allows what is left. */
static bool spoil_acks(int how) {
    uint32_t a, b;
    static const uint8_t kinds[] = {H_ACK,  H_ACK,  H_RECEIVE, H_RECEIVE, H_BACK,
                                    H_SEND, H_DEAD, H_DEAD,    H_RECEIVE, H_ACK};
    struct h_event *e = any_event(kinds[how], &a), copy;
    if (!e) return false;
    copy = *e;
    switch (how) {
    case 0:
    case 5:
    case 6: /* an acknowledgement, a send, a dead letter that is not there */ e->kind = 0; return true;
    case 1:
    case 7: /* once more, later */
        copy.begin = copy.end = M.now + 1000;
        h_add(h, a, copy);
        return true;
    case 2:
    case 9: e->count++; return true;
    case 3: e->count--; return true;
    case 4: /* returned by nobody, though delivered again */
        if (e->count == LIMIT) return false;
        e->kind = 0;
        return true;
    default: /* delivered to another as well */
        b = a == 4 ? 5 : 4;
        h_add(h, b, copy);
        return true;
    }
}

START_TEST(test_random_acks) {
    random_state = 0x2545f4914f6cdd1du + (uint64_t)_i;
    for (int round = 0; round < 200; round++) {
        make_acks();
        h_check(h, &report);
        ck_assert_msg(report.count == 0, "round %d: a false alarm:\n%s", round, report.text);
        for (uint32_t i = 0; i < 1 + random_below(2); i++) {
            bool done = spoil_acks(_i);
            h_check(h, &report);
            ck_assert_msg(!done || report.count > 0, "round %d, way %d: overlooked", round, _i);
        }
        h_free(h);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("history_random");
    TCase *all = tcase_create("history_random");
    tcase_set_timeout(all, 100);
    tcase_add_loop_test(all, test_small_random, 0, 4);
    tcase_add_loop_test(all, test_random_acks, 0, 10);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
