/* SPDX-License-Identifier: MIT */
/*
 * See fault_ops.h. Values are numbers, each tried call sends or receives those
 * that the case before it left in place, and verify() looks for all of them and
 * no others: a call that failed has done nothing, one that succeeded all.
 */
#include "fault_ops.h"

#include <sched.h>

#include "channel/channel.h"
#include "error.h"
#include "fault.h"

#define LARGE 20000u  /* bytes of a value that lies in a block */
#define HUGE 3000000u /* of one that needs a segment of its own */
#define BRIEF (2 * SECOND)

static uint8_t bytes[HUGE + 4096] __attribute__((aligned(8)));

/* ---- the scene */

void scene_begin(struct scene *s, const char *ns, int64_t number) {
    *s = (struct scene){.ns = ns, .number = number, .fd = -1};
    for (int i = 0; i < SCENE_MSGS; i++) s->msg[i] = (xi_msg)XI_MSG_INIT;
}

static void helped(struct scene *s) {
    if (s->helped) pthread_join(s->helper, NULL);
    s->helped = false;
}

void scene_end(struct scene *s) {
    atomic_store(&s->over, true);
    helped(s);
    xi_call_cancel(&s->pending);
    for (int i = 0; i < SCENE_MSGS; i++) xi_msg_release(&s->msg[i]);
    for (size_t i = 0; i < s->kept_count; i++) xi_msg_release(&s->kept[i]);
    free(s->kept);
    for (int i = 0; i < 2; i++) xi_loan_drop(&s->loan[i]);
    xi_set_free(s->set);
    xi_observer_free(s->observer);
    must(xi_channel_free(s->ch));
    must(xi_channel_free(s->other));
    if (s->me) must(xi_leave(s->me));
    if (s->peer) must(xi_leave(s->peer));
}

static void both_join(struct scene *s) {
    s->me = join_ns(s->ns, "faulty", XI_JOIN_NO_SPIN);
    s->peer = join_ns(s->ns, "peer", XI_JOIN_NO_SPIN);
}

static xi_channel *made(xi_interp *me, const char *name, uint32_t flags) {
    return open_with(me, name, &(xi_open_opts){.flags = flags});
}

/* A channel on which this process's two interpreters meet. */
static void meet(struct scene *s) {
    both_join(s);
    s->ch = made(s->me, "f.c", 0);
    s->other = made(s->peer, "f.c", 0);
}

static size_t number_of(int64_t n, size_t padding) { return encode_padded(bytes, sizeof bytes, n, padding); }

/* The numbers from `first` to `last`, and then nothing. */
static void holds(xi_channel *ch, int64_t first, int64_t last) {
    xi_msg m = XI_MSG_INIT;
    for (int64_t i = first; i <= last; i++) {
        must(xi_recv(ch, &m, BRIEF));
        expect(message_int(&m) == i, "got %lld instead of %lld", (long long)message_int(&m), (long long)i);
    }
    must_fail(XI_E_AGAIN, xi_recv(ch, &m, XI_TRY));
    xi_msg_release(&m);
}

/* ---- helpers: threads of the test's own, which wait until somebody sleeps on the channel */

static void until_asleep(xi_channel *ch) {
    xi_channel_info info;
    int64_t until = now_ns() + 10 * SECOND;
    do {
        sched_yield();
        must(xi_channel_stat(ch, &info));
        expect(now_ns() < until, "nobody sleeps on channel \"%s\"", xi_channel_name(ch));
    } while (info.waiting == 0);
}

static void *sends_then(void *argument) {
    struct scene *s = argument;
    fault_spare(true);
    until_asleep(s->other);
    must(xi_send_int(s->other, s->number, BRIEF));
    return NULL;
}

static void *receives_then(void *argument) {
    struct scene *s = argument;
    fault_spare(true);
    until_asleep(s->other);
    must(xi_recv(s->other, &s->msg[0], BRIEF));
    return NULL;
}

/* Serves, until the scene is over. A fault may be its broker's too: then once more. */
static void *serves(void *argument) {
    struct scene *s = argument;
    uint64_t value[3];
    xi_builder b;
    fault_spare(true);
    while (!atomic_load(&s->over)) {
        int rc = xi_recv(s->other, &s->msg[0], 10 * MS);
        if (rc || !xi_msg_is_call(&s->msg[0])) continue;
        xi_builder_init(&b, value, sizeof value, 0);
        xi_put_int(&b, message_int(&s->msg[0]) + 1);
        size_t size = (size_t)xi_builder_finish(&b);
        do rc = xi_reply(&s->msg[0], value, size, BRIEF);
        while (rc == XI_E_NOMEM || rc == XI_E_BROKER || rc == XI_E_NOSPACE);
        expect(rc == 0 || rc == XI_E_STALE, "reply: %s", xi_error_text(rc));
    }
    return NULL;
}

static void help(struct scene *s, void *(*body)(void *)) {
    if (s->helped) return;
    fault_spare(true);
    expect(pthread_create(&s->helper, NULL, body, s) == 0, "no thread");
    fault_spare(false);
    s->helped = true;
}

/* ---- joining and leaving */

static int64_t join_me(struct scene *s) { return xi_join(&(xi_join_opts){.ns = s->ns, .name = "faulty"}, &s->me); }
static void can_all(struct scene *s) {
    must(xi_status(s->me));
    if (!s->ch) s->ch = made(s->me, "f.c", 0);
    must(xi_send_int(s->ch, s->number, XI_TRY));
    holds(s->ch, s->number, s->number);
}
static void peer_joins(struct scene *s) { s->peer = join_ns(s->ns, "peer", 0); }
static void opens_much(struct scene *s) {
    meet(s);
    must(xi_send(s->other, bytes, number_of(1, LARGE), XI_TRY));
    must(xi_recv(s->ch, &s->msg[0], XI_TRY));
    must(xi_loan_get(s->me, 100, &s->loan[0]));
}
static int64_t leave_me(struct scene *s) {
    xi_interp *me = s->me;
    s->me = NULL;
    s->ch = NULL;
    s->loan[0] = (xi_loan){0};
    s->msg[0] = (xi_msg)XI_MSG_INIT; /* what it held went with the interpreter, but for its own memory: it had none */
    return xi_leave(me);
}
static int64_t free_channel(struct scene *s) {
    xi_channel *ch = s->ch;
    s->ch = NULL;
    return xi_channel_free(ch);
}
static void open_subscriber(struct scene *s) {
    both_join(s);
    xi_open_opts o = {.mode = XI_BROADCAST};
    s->ch = open_with(s->me, "f.b", &o);
    o.flags = XI_OPEN_SEND;
    s->other = open_with(s->peer, "f.b", &o);
    must(xi_send(s->other, bytes, number_of(1, LARGE), XI_TRY));
}
/* The child of a process that has joined, and has a channel with something in it. */
static void forks(struct scene *s) {
    opens_much(s);
    s->peer = NULL;
    s->me = NULL;
    s->ch = s->other = NULL;
    s->loan[0] = (xi_loan){0};
    s->msg[0] = (xi_msg)XI_MSG_INIT;
}

/* ---- opening */

static int64_t open_as(struct scene *s, const char *name, const xi_open_opts *o) { return xi_open(s->me, name, o, &s->ch); }
static int64_t open_queue_(struct scene *s) { return open_as(s, "f.q", NULL); }
static int64_t open_broadcast(struct scene *s) { return open_as(s, "f.b", &(xi_open_opts){.mode = XI_BROADCAST}); }
static int64_t open_send(struct scene *s) { return open_as(s, "f.s", &(xi_open_opts){.flags = XI_OPEN_SEND}); }
static int64_t open_existing(struct scene *s) {
    return open_as(s, "f.c", &(xi_open_opts){.flags = XI_OPEN_EXISTING | XI_OPEN_RECV});
}
static int64_t open_acks(struct scene *s) {
    xi_group_opts g = {.flags = XI_GROUP_ACK, .max_deliveries = 1, .dead = "f.dead", .timeout_ns = 100 * SECOND};
    return open_as(s, "f.a", &(xi_open_opts){.group = "g", .group_opts = &g});
}
static int64_t open_rich(struct scene *s) {
    xi_open_opts o = {.capacity = 4096, .values = 100, .grow = 1 << 20, .ttl_ns = 100 * SECOND, .dead = "f.dead", .retain = 5};
    return open_as(s, "f.r", &o);
}
static int64_t open_late(struct scene *s) {
    xi_group_opts g = {.from = XI_FROM_OLDEST};
    return open_as(s, "f.l", &(xi_open_opts){.group = "late", .group_opts = &g});
}
static void keeps_some(struct scene *s) {
    both_join(s);
    s->other = open_with(s->peer, "f.l", &(xi_open_opts){.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .retain = 3});
    for (int64_t i = 1; i <= 3; i++) must(xi_send(s->other, bytes, number_of(i, i == 2 ? LARGE : 0), XI_TRY));
}
static void has_kept(struct scene *s) { holds(s->ch, 1, 3); }
static void both_meet_first(struct scene *s) {
    both_join(s);
    s->other = made(s->peer, "f.c", 0);
}
static void sends_and_gets(struct scene *s) {
    must(xi_send_int(s->ch, s->number, XI_TRY));
    holds(s->ch, s->number, s->number);
}
static void only_sends(struct scene *s) { must(xi_send_int(s->ch, s->number, XI_TRY)); }
static void gets_from_other(struct scene *s) {
    must(xi_send_int(s->other, s->number, XI_TRY));
    holds(s->ch, s->number, s->number);
}

/* ---- what another process sent, whose arena is not mapped here */

static bool all_back(xi_interp *me) {
    xi_stats stats;
    xi_trim(me);
    xi_interp_stats(me, &stats);
    return stats.blocks == 0;
}

/* It sends the numbers up to n, of which the first lies in a block, and ends well when that has come back. */
static void stranger_sends(struct scene *s, const char *name, xi_open_opts o, int64_t n) {
    struct gate ready = gate_new();
    fault_spare(true);
    s->stranger = fork();
    must_sys(s->stranger);
    if (s->stranger == 0) {
        xi_interp *me = join_ns(s->ns, "stranger", XI_JOIN_NO_SPIN);
        o.flags |= XI_OPEN_SEND;
        xi_channel *ch = open_with(me, name, &o);
        for (int64_t i = 1; i <= n; i++) must(xi_send(ch, bytes, number_of(i, i == 1 ? LARGE : 0), XI_TRY));
        gate_lift(&ready, 1);
        for (int64_t until = now_ns() + 5 * SECOND; !all_back(me); nanosleep(&(struct timespec){.tv_nsec = MS}, NULL))
            expect(now_ns() < until, "a stranger's block does not come back");
        leave_with(me, ch);
        _exit(0);
    }
    fault_spare(false);
    gate_pass(&ready);
    close(ready.fd[0]);
    close(ready.fd[1]);
}
/* Before anybody leaves, which would bring it back in any case. */
static void stranger_ends(struct scene *s) {
    reap_ok(s->stranger, "a stranger");
    s->stranger = 0;
}

static void stranger_is_kept(struct scene *s) {
    both_join(s);
    stranger_sends(s, "f.l", (xi_open_opts){.mode = XI_BROADCAST, .retain = 3}, 3);
}
static void has_strangers(struct scene *s) {
    has_kept(s);
    must(xi_remove(s->me, "f.l"));
    stranger_ends(s);
}
static void stranger_is_due(struct scene *s) {
    both_join(s);
    xi_open_opts o = {.mode = XI_BROADCAST, .flags = XI_OPEN_RECV, .group = "g"};
    s->ch = open_with(s->me, "f.b", &o);
    stranger_sends(s, "f.b", (xi_open_opts){.mode = XI_BROADCAST}, 3);
}
static int64_t ends_group(struct scene *s) { return xi_group_remove(s->ch, "g"); }
static void none_is_due(struct scene *s) {
    must_fail(XI_E_LEFT, xi_recv(s->ch, &s->msg[1], XI_TRY));
    stranger_ends(s);
}
/* A send is one too many to be kept; or, in a small ring that is full of what is kept, one that needs room. */
static void opens_behind(struct scene *s, xi_open_opts o) {
    both_join(s);
    stranger_sends(s, "f.k", o, 1);
    o.flags |= XI_OPEN_SEND;
    s->ch = open_with(s->me, "f.k", &o);
}
static void stranger_is_last(struct scene *s) { opens_behind(s, (xi_open_opts){.mode = XI_BROADCAST, .retain = 1}); }
static void stranger_is_first(struct scene *s) {
    opens_behind(s, (xi_open_opts){.mode = XI_BROADCAST, .retain = 10000, .capacity = XI_CAPACITY_MIN});
    const struct xi_chan *c = s->ch->chan;
    while (xi_load_relaxed(&c->tail) - xi_load_relaxed(&c->groups[XI_GROUP_RETAIN].head) + 32 < s->ch->home.capacity)
        must(xi_send_int(s->ch, 1, XI_TRY));
}
static int64_t send_past(struct scene *s) {
    for (int i = 0; i < 4; i++) {
        int rc = xi_send_int(s->ch, s->number, XI_TRY);
        if (rc) return rc;
    }
    return 0;
}
static void is_kept_no_more(struct scene *s) {
    must(xi_send_int(s->ch, 1, XI_TRY)); /* the first that could not be given back then is now */
    stranger_ends(s);
}

/* ---- sending: `number` goes through the channel, and nothing else */

static int64_t send_small(struct scene *s) { return xi_send_int(s->ch, s->number, XI_TRY); }
static int64_t send_large(struct scene *s) { return xi_send(s->ch, bytes, number_of(s->number, LARGE), XI_TRY); }
static int64_t send_huge(struct scene *s) { return xi_send(s->ch, bytes, number_of(s->number, HUGE), XI_TRY); }
static void came(struct scene *s) { holds(s->other, s->number, s->number); }
static void on_free(void *context, uint64_t argument) {
    struct scene *s = context;
    s->freed += argument == (uint64_t)s->number;
}
static void meet_free(struct scene *s) {
    meet(s);
    must(xi_free_register(s->me, "test", on_free, s, &s->free_index));
}
static int64_t send_free(struct scene *s) {
    xi_send_opts o = {.timeout = XI_TRY, .free_index = s->free_index, .free_argument = (uint64_t)s->number};
    return xi_send_ex(s->ch, bytes, number_of(s->number, 0), &o);
}
static void came_and_freed(struct scene *s) {
    came(s);
    must(xi_free_run(s->me));
    expect(s->freed == 1, "the free function ran %d times", s->freed);
}
static void sent_free(struct scene *s) {
    meet_free(s);
    must(send_free(s));
    holds(s->other, s->number, s->number);
}
static int64_t run_free(struct scene *s) { return xi_free_run(s->me); }
static void has_freed(struct scene *s) {
    must(xi_free_run(s->me));
    expect(s->freed == 1, "the free function ran %d times", s->freed);
}
static int64_t loan_small(struct scene *s) { return xi_loan_get(s->me, 1000, &s->loan[0]); }
static int64_t loan_huge(struct scene *s) { return xi_loan_get(s->me, HUGE, &s->loan[0]); }
static void loan_works(struct scene *s) {
    memset(s->loan[0].data, 1, s->loan[0].size);
    size_t n = encode_padded(s->loan[0].data, s->loan[0].size, s->number, 100);
    must(xi_send_loan(s->ch, &s->loan[0], n, NULL));
    came(s);
}
static void loaned(struct scene *s) {
    meet(s);
    must(xi_loan_get(s->me, LARGE, &s->loan[0]));
    encode_padded(s->loan[0].data, s->loan[0].size, s->number, 10000);
}
static int64_t send_loan(struct scene *s) {
    return xi_send_loan(s->ch, &s->loan[0], 10032, &(xi_send_opts){.timeout = XI_TRY});
}
static int64_t send_many(struct scene *s) {
    static uint64_t values[5][4000];
    static bool sent[5];
    const void *at[5];
    size_t sizes[5];
    unsigned from = 0;
    for (unsigned i = 0; i < 5; i++) {
        sizes[i] = encode_padded(values[i], sizeof values[i], s->number + i, i % 2 ? LARGE : 8);
        at[i] = values[i];
        from += sent[i];
    }
    int64_t n = 0;
    for (; from < 5 && n >= 0; from += n > 0 ? (unsigned)n : 0) { /* it may say that it sent the first ones: then the rest */
        n = xi_send_many(s->ch, at + from, sizes + from, 5 - from, XI_TRY);
        for (int64_t i = 0; i < n; i++) sent[from + i] = true;
    }
    return n < 0 ? n : 0;
}
static void came_many(struct scene *s) { holds(s->other, s->number, s->number + 4); }
static void meet_full(struct scene *s) {
    both_join(s);
    xi_open_opts o = {.values = 1};
    s->ch = open_with(s->me, "f.full", &o);
    s->other = open_with(s->peer, "f.full", NULL);
    must(xi_send_int(s->ch, 0, XI_TRY));
    help(s, receives_then); /* who wakes has found the bell: that is the helper's, and not counted */
    must(xi_send_int(s->ch, 0, BRIEF));
    helped(s);
}
static int64_t send_asleep(struct scene *s) {
    help(s, receives_then);
    return xi_send_int(s->ch, s->number, BRIEF);
}
static void meet_growing(struct scene *s) {
    both_join(s);
    s->ch = open_with(s->me, "f.g", &(xi_open_opts){.capacity = 4096, .grow = 1 << 21});
    s->other = open_with(s->peer, "f.g", NULL);
    for (int64_t i = 0; i < 7; i++) must(xi_send(s->ch, bytes, number_of(i, 400), XI_TRY));
}
static int64_t send_growing(struct scene *s) { return xi_send(s->ch, bytes, number_of(7, 400), SECOND / 4); }
static void grew(struct scene *s) {
    for (int64_t i = 8; i < 64; i++) must(xi_send(s->ch, bytes, number_of(i, 400), SECOND));
    holds(s->other, 0, 63);
}
static int64_t send_with_letter(struct scene *s) { return xi_send_ex(s->ch, bytes, number_of(s->number, 0), &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = 1}); }

/* ---- receiving */

static void sent(struct scene *s, size_t padding) {
    meet(s);
    must(xi_send(s->other, bytes, number_of(s->number, padding), XI_TRY));
}
static void sent_small(struct scene *s) { sent(s, 8); }
static void sent_middle(struct scene *s) { sent(s, 1000); }
static void sent_large(struct scene *s) { sent(s, LARGE); }
static int64_t recv_one(struct scene *s) { return xi_recv(s->ch, &s->msg[0], XI_TRY); }
static void got_one(struct scene *s) {
    expect(message_int(&s->msg[0]) == s->number, "got another value");
    must_fail(XI_E_AGAIN, xi_recv(s->ch, &s->msg[1], XI_TRY));
}
static void sent_many(struct scene *s) {
    meet(s);
    for (int64_t i = 0; i < 5; i++)
        must(xi_send(s->other, bytes, number_of(s->number + i, i % 3 == 0 ? 8 : i % 3 == 1 ? 1000 : LARGE), XI_TRY));
}
static int64_t recv_many(struct scene *s) {
    while (s->freed < 5) { /* those that came, in order */
        int64_t n = xi_recv_many(s->ch, &s->msg[s->freed], 5 - (size_t)s->freed, XI_TRY);
        if (n < 0) return n;
        s->freed += (int)n;
    }
    return 0;
}
static void got_many(struct scene *s) {
    for (int i = 0; i < 5; i++) expect(message_int(&s->msg[i]) == s->number + i, "value %d is another", i);
}
/* Has been woken by the helper, as above. */
static void meet_waker(struct scene *s) {
    meet(s);
    help(s, sends_then);
    must(xi_recv(s->ch, &s->msg[0], BRIEF));
    helped(s);
}
static int64_t recv_asleep(struct scene *s) {
    help(s, sends_then);
    return xi_recv(s->ch, &s->msg[0], BRIEF);
}
static int64_t recv_in_vain(struct scene *s) {
    int64_t begun = now_ns();
    int rc = xi_recv(s->ch, &s->msg[0], 3 * MS);
    if (rc == XI_E_TIMEOUT) expect(now_ns() - begun >= 3 * MS, "timed out after %lld ns", (long long)(now_ns() - begun));
    return rc == XI_E_TIMEOUT ? 0 : rc;
}
static void grown_by_other(struct scene *s) {
    both_join(s);
    s->other = open_with(s->peer, "f.g", &(xi_open_opts){.capacity = 4096, .grow = 1 << 21});
    s->ch = open_with(s->me, "f.g", NULL);
    for (int64_t i = 0; i < 40; i++) must(xi_send(s->other, bytes, number_of(s->number + i, 400), SECOND));
}
static void got_forty(struct scene *s) {
    expect(message_int(&s->msg[0]) == s->number, "got another value");
    holds(s->ch, s->number + 1, s->number + 39);
}
/* As many borrows as there are entries for. */
static void borrows_all(struct scene *s) {
    meet(s);
    uint32_t n = s->me->borrows.free_count;
    s->kept = calloc(n, sizeof *s->kept);
    for (uint32_t i = 0; i < n; i++) {
        xi_loan l;
        s->kept[i] = (xi_msg)XI_MSG_INIT;
        must(xi_loan_get(s->peer, 64, &l));
        must(xi_send_loan(s->other, &l, encode_padded(l.data, l.size, i, 8), &(xi_send_opts){.timeout = XI_TRY}));
        must(xi_recv(s->ch, &s->kept[i], XI_TRY));
    }
    s->kept_count = n;
    must(xi_send(s->other, bytes, number_of(s->number, LARGE), XI_TRY));
}
static void holds_free(struct scene *s) {
    meet(s);
    must(xi_free_register(s->peer, "test", on_free, s, &s->free_index));
    xi_send_opts o = {.timeout = XI_TRY, .free_index = s->free_index, .free_argument = (uint64_t)s->number};
    must(xi_send_ex(s->other, bytes, number_of(s->number, LARGE), &o));
    must(xi_recv(s->ch, &s->msg[0], XI_TRY));
}
static int64_t release_it(struct scene *s) {
    xi_msg_release(&s->msg[0]);
    return 0;
}
static void owner_freed(struct scene *s) {
    must(xi_free_run(s->peer));
    expect(s->freed == 1, "the free function ran %d times", s->freed);
}

/* ---- acknowledging, dead letters */

static void delivered_to(struct scene *s, uint32_t max, size_t padding) {
    xi_group_opts g = {.flags = XI_GROUP_ACK, .max_deliveries = max, .dead = max ? "f.dead" : NULL};
    both_join(s);
    s->ch = open_with(s->me, "f.a", &(xi_open_opts){.group = "g", .group_opts = &g});
    s->other = open_with(s->peer, "f.a", &(xi_open_opts){.flags = XI_OPEN_SEND});
    must(xi_send(s->other, bytes, number_of(s->number, padding), XI_TRY));
    must(xi_recv(s->ch, &s->msg[0], XI_TRY));
}
static void delivered(struct scene *s) { delivered_to(s, 0, LARGE); }
static void delivered_once(struct scene *s) { delivered_to(s, 1, LARGE); }
static void delivered_small(struct scene *s) { delivered_to(s, 1, 8); }
static int64_t ack_it(struct scene *s) { return xi_ack(&s->msg[0]); }
static int64_t ack_keep_it(struct scene *s) { return xi_ack_keep(&s->msg[0]); }
static int64_t nack_it(struct scene *s) { return xi_nack(&s->msg[0], 0); }
static int64_t extend_it(struct scene *s) { return xi_extend(&s->msg[0], SECOND); }
static void none_left(struct scene *s) { must_fail(XI_E_AGAIN, xi_recv(s->ch, &s->msg[1], XI_TRY)); }
static void comes_again(struct scene *s) {
    must(xi_recv(s->ch, &s->msg[1], BRIEF));
    expect(message_int(&s->msg[1]) == s->number && xi_msg_deliveries(&s->msg[1]) == 2, "not the same value, once more");
}
/* The next receive buries it, and finds nothing. */
static int64_t bury(struct scene *s) {
    int rc = xi_nack(&s->msg[0], 0);
    if (rc && rc != XI_E_STALE && rc != XI_E_INVAL) return rc;
    rc = xi_recv(s->ch, &s->msg[1], XI_TRY);
    if (rc == XI_E_AGAIN && !strstr(xi_error_text(rc), "letter")) rc = 0;
    return rc;
}
static void is_buried(struct scene *s) {
    xi_channel *dead = made(s->me, "f.dead", 0);
    xi_group_info g[2];
    for (int64_t until = now_ns() + 4 * SECOND;;) { /* one that could not be written is tried again */
        int rc = xi_recv(s->ch, &s->msg[1], 20 * MS);
        expect(rc == XI_E_TIMEOUT, "a dead value was delivered: %d", rc);
        expect(xi_channel_groups(s->ch, g, 2) == 2, "the queue's own group and one more");
        if (g[0].dead + g[1].dead) break;
        expect(now_ns() < until, "no dead letter");
    }
    must(xi_recv(dead, &s->msg[2], BRIEF));
    must(xi_channel_free(dead));
}
static void expired(struct scene *s) {
    both_join(s);
    s->other = open_with(s->peer, "f.ttl", &(xi_open_opts){.dead = "f.dead", .ttl_ns = SECOND * 100});
    s->ch = open_with(s->me, "f.ttl", NULL);
    must(xi_send_ex(s->other, bytes, number_of(s->number, 8), &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = 1}));
    must(xi_send_int(s->other, s->number, XI_TRY));
}

/* ---- sets */

static void has_set(struct scene *s) {
    meet(s);
    must(xi_set_new(s->me, &s->set));
}
static int64_t set_new(struct scene *s) { return xi_set_new(s->me, &s->set); }
static void set_works(struct scene *s) {
    xi_event e;
    must(xi_set_add(s->set, s->ch, XI_READY_RECV, 7, 0));
    must(xi_send_int(s->other, s->number, XI_TRY));
    expect(xi_set_wait(s->set, &e, 1, BRIEF) == 1 && e.key == 7, "the set does not tell");
}
static int64_t set_add(struct scene *s) { return xi_set_add(s->set, s->ch, XI_READY_RECV | XI_READY_SEND, 7, 0); }
static void set_tells(struct scene *s) {
    xi_event e[4];
    must(xi_send_int(s->other, s->number, XI_TRY));
    int64_t n = xi_set_wait(s->set, e, 4, BRIEF);
    uint32_t ready = 0;
    for (int64_t i = 0; i < n; i++) ready |= e[i].ready;
    expect(n == 2 && ready == (XI_READY_RECV | XI_READY_SEND), "%d events, 0x%x", (int)n, ready);
}
static void has_member(struct scene *s) {
    has_set(s);
    must(xi_set_add(s->set, s->ch, XI_READY_RECV, 7, 0));
}
static void has_woken_member(struct scene *s) {
    xi_event e;
    has_member(s);
    help(s, sends_then);
    expect(xi_set_wait(s->set, &e, 1, BRIEF) == 1, "the set does not tell");
    helped(s);
    must(xi_recv(s->ch, &s->msg[0], XI_TRY));
    expect(xi_set_wait(s->set, &e, 1, XI_TRY) <= 0, "the set tells of nothing");
}
static int64_t set_asleep(struct scene *s) {
    xi_event e;
    help(s, sends_then);
    return xi_set_wait(s->set, &e, 1, BRIEF);
}
static int64_t set_fd(struct scene *s) {
    int rc = xi_set_fd(s->set);
    if (rc >= 0) s->fd = rc;
    return rc < 0 ? rc : 0;
}
static bool readable(int fd, int ms) { return poll(&(struct pollfd){fd, POLLIN, 0}, 1, ms) == 1; }
static void fd_tells(struct scene *s) {
    xi_event e;
    while (xi_set_wait(s->set, &e, 1, XI_TRY) > 0) {}
    must(xi_send_int(s->other, s->number, XI_TRY));
    expect(readable(s->fd, 2000), "the descriptor does not tell");
    expect(xi_set_wait(s->set, &e, 1, BRIEF) == 1, "the set does not tell");
}
static void has_fd(struct scene *s) {
    has_member(s);
    must(set_fd(s));
    must(xi_send_int(s->other, 0, XI_TRY));
}
/* One event, then none, which arms it; it must not be readable all the time from then on. */
static int64_t set_fd_arm(struct scene *s) {
    xi_event e;
    int64_t rc = xi_set_wait(s->set, &e, 1, XI_TRY);
    if (rc == 1) must(xi_recv(s->ch, &s->msg[0], XI_TRY));
    while (rc > 0) rc = xi_set_wait(s->set, &e, 1, XI_TRY);
    return rc == XI_E_AGAIN ? 0 : rc;
}

/* ---- calls */

/* With what a thread keeps from its first sleep on: whether a call sleeps is chance. */
static void meet_and_sleep(struct scene *s) {
    xi_msg m = XI_MSG_INIT;
    meet(s);
    must_fail(XI_E_TIMEOUT, xi_recv(s->ch, &m, MS));
}
static int64_t call_it(struct scene *s) {
    help(s, serves);
    return xi_call(s->ch, bytes, number_of(s->number, 0), &s->msg[1], BRIEF);
}
static void is_answered(struct scene *s) { expect(message_int(&s->msg[1]) == s->number + 1, "another answer"); }
static void meet_caller(struct scene *s) {
    both_join(s);
    s->ch = made(s->me, "f.c", XI_OPEN_RECV); /* we serve */
    s->other = made(s->peer, "f.c", XI_OPEN_SEND);
    must(xi_call_begin(s->other, bytes, number_of(s->number, 0), XI_TRY, &s->pending));
    must(xi_recv(s->ch, &s->msg[0], XI_TRY));
}
static int64_t reply_small(struct scene *s) { return xi_reply(&s->msg[0], bytes, number_of(s->number + 1, 0), XI_TRY); }
static int64_t reply_large(struct scene *s) { return xi_reply(&s->msg[0], bytes, number_of(s->number + 1, LARGE), XI_TRY); }
static void reply_came(struct scene *s) {
    must(xi_call_wait(&s->pending, &s->msg[1], BRIEF));
    is_answered(s);
}
static int64_t refuse_it(struct scene *s) { return xi_reply(&s->msg[0], NULL, 0, XI_TRY); }
static void is_refused(struct scene *s) { must_fail(XI_E_DIED, xi_call_wait(&s->pending, &s->msg[1], BRIEF)); }

/* ---- asking the broker, looking */

static int64_t ref(struct scene *s) { return xi_ref(s->me, xi_id(s->peer)); }
static uint32_t references_of(struct scene *s, int64_t id) {
    static xi_interp_info list[64];
    int64_t n = xi_list_interps(xi_observer_of(s->me), list, 64);
    for (int64_t i = 0; i < n && i < 64; i++)
        if (list[i].id == id) return list[i].id_refcount;
    return UINT32_MAX;
}
static void is_referred(struct scene *s) {
    expect(references_of(s, xi_id(s->peer)) == 1, "%u references", references_of(s, xi_id(s->peer)));
    must(xi_unref(s->me, xi_id(s->peer)));
}
static void refers(struct scene *s) {
    both_join(s);
    must(ref(s));
}
static int64_t unref(struct scene *s) { return xi_unref(s->me, xi_id(s->peer)); }
/* A new broker says so when all have declared to it what they hold. */
static void is_free(struct scene *s) {
    int64_t until = now_ns() + 4 * SECOND;
    while (references_of(s, xi_id(s->peer)) != 0) expect(now_ns() < until, "still referred to");
}
static int64_t observe(struct scene *s) { return xi_observe(s->ns, &s->observer); }
static void observes(struct scene *s) { expect(xi_list_interps(s->observer, NULL, 0) >= 2, "sees nobody"); }
static int64_t lists(struct scene *s) {
    static xi_channel_info c[64];
    return xi_list_channels(xi_observer_of(s->me), c, 64);
}
static int64_t close_it(struct scene *s) { return xi_close(s->ch); }
static void is_closed(struct scene *s) { must_fail(XI_E_CLOSED, xi_send_int(s->other, 1, XI_TRY)); }
/* A broker that died, or whose answer was not heard, may have done it all the same. */
static int64_t remove_it(struct scene *s) {
    int rc = xi_remove(s->me, "f.c");
    bool again = s->freed++ > 0;
    return again && rc == XI_E_NOENT ? 0 : rc;
}
static void is_removed(struct scene *s) { must_fail(XI_E_REMOVED, xi_send_int(s->other, 1, XI_TRY)); }
static void has_group(struct scene *s) {
    delivered(s);
    must(xi_send(s->other, bytes, number_of(s->number + 1, LARGE), XI_TRY));
}
static int64_t group_remove(struct scene *s) { return xi_group_remove(s->other, "g"); }
static void group_gone(struct scene *s) { must_fail(XI_E_LEFT, xi_recv(s->ch, &s->msg[1], XI_TRY)); }

/* ---- without a broker */

static void kill_broker(struct scene *s) {
    s->victim = broker_pid(s->me);
    must_sys(kill(s->victim, SIGKILL));
    expect(wait_end(s->victim, 5000), "the broker did not die");
}
static void orphaned(struct scene *s) {
    sent(s, LARGE);
    must(ref(s));
    must(xi_recv(s->ch, &s->msg[0], XI_TRY));
    kill_broker(s);
}
static int64_t open_more(struct scene *s) {
    xi_channel *more = NULL;
    int rc = xi_open(s->me, "f.more", NULL, &more);
    if (rc) return rc;
    rc = xi_send_int(more, s->number, XI_TRY); /* which needs memory for the ring */
    must(xi_channel_free(more));
    return rc;
}
static void all_as_before(struct scene *s) {
    expect(message_int(&s->msg[0]) == s->number, "what is borrowed is another value");
    must(xi_unref(s->me, xi_id(s->peer)));
    must(xi_send_int(s->other, s->number, XI_TRY));
    holds(s->ch, s->number, s->number);
}

/* ---- deaths */

/* A process that holds a value of ours, and a handle. */
static void is_held(struct scene *s) {
    meet_free(s);
    struct gate ready = gate_new();
    fault_spare(true);
    s->victim = fork();
    must_sys(s->victim);
    if (s->victim == 0) {
        xi_interp *me = join_ns(s->ns, "victim", 0);
        xi_channel *ch = made(me, "f.c", 0);
        must(xi_recv(ch, &s->msg[0], BRIEF));
        expect(xi_msg_borrowed(&s->msg[0]), "not borrowed");
        must(xi_send_int(ch, 1, XI_TRY));
        gate_lift(&ready, 1);
        pause();
    }
    fault_spare(false);
    must(send_free(s));
    gate_pass(&ready);
    must(xi_recv(s->other, &s->msg[1], BRIEF));
    must_fail(XI_E_TIMEOUT, xi_recv(s->other, &s->msg[1], MS)); /* this thread has what it needs to sleep */
    close(ready.fd[0]);
    close(ready.fd[1]);
    xi_msg m = XI_MSG_INIT;
    expect(xi_recv(s->other, &m, 5 * MS) == XI_E_TIMEOUT, "something is there"); /* what a first sleep maps is not what a death keeps */
}
static int64_t dies(struct scene *s) {
    if (s->victim) {
        must_sys(kill(s->victim, SIGKILL));
        reap_signalled(s->victim, SIGKILL, "the victim");
        s->victim = 0;
    }
    for (int64_t until = now_ns() + BRIEF; !s->freed && now_ns() < until;) {
        xi_msg m = XI_MSG_INIT;
        int rc = xi_recv(s->other, &m, 5 * MS);
        expect(rc == XI_E_TIMEOUT || rc == XI_E_INTR, "receive: %s", xi_error_text(rc));
        xi_msg_release(&m);
        must(xi_free_run(s->me));
    }
    return s->freed ? 0 : XI_E_TIMEOUT;
}

/* ---- wrong on purpose: each must be found out */

static int64_t without_memory(struct scene *s, void (*spoil)(struct scene *s)) {
    void *p = malloc(100);
    if (!p) spoil(s);
    free(p);
    return p ? 0 : xi_fail(XI_E_NOMEM, "no memory for a test that is wrong on purpose");
}
static void keeps_descriptor(struct scene *s) { s->fd = dup(0); }
static void keeps_memory(struct scene *s) { s->kept = calloc(1, 64 + s->kept_count); }
static void keeps_mapping(struct scene *s) {
    (void)s;
    (void)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void keeps_lock(struct scene *s) { must(xi_lock_send(s->ch, XI_TRY)); }
static void nothing(struct scene *s) { (void)s; }
static void waits(struct scene *s) {
    (void)s;
    alarm(1); /* rather than the minute that a case has */
    pause();
}
static void closes(struct scene *s) { must(xi_close(s->ch)); }
static int64_t leak_descriptor(struct scene *s) { return without_memory(s, keeps_descriptor); }
static int64_t leak_memory(struct scene *s) {
    int64_t rc = without_memory(s, keeps_memory);
    s->kept = NULL;
    return rc;
}
static int64_t leak_mapping(struct scene *s) { return without_memory(s, keeps_mapping); }
static int64_t leave_lock(struct scene *s) { return without_memory(s, keeps_lock); }
static int64_t send_half(struct scene *s) {
    int rc = xi_send_int(s->ch, s->number, XI_TRY);
    return rc ? rc : without_memory(s, nothing);
}
static int64_t break_it(struct scene *s) {
    int64_t rc = without_memory(s, closes);
    return rc ? rc : xi_send_int(s->ch, s->number, XI_TRY);
}
static int64_t wrong_code(struct scene *s) { return without_memory(s, nothing) ? xi_fail(XI_E_CORRUPT, "the wrong code") : 0; }
static int64_t no_sentence(struct scene *s) {
    return without_memory(s, nothing) ? xi_fail(XI_E_NOMEM, "%s", "") : 0;
}
static int64_t hangs(struct scene *s) { return without_memory(s, waits); }

const struct operation spoilt[] = {
    {"a descriptor is kept", meet, leak_descriptor, NULL, 0, 0},
    {"memory is kept", meet, leak_memory, NULL, 0, 0},
    {"a mapping is kept", meet, leak_mapping, NULL, 0, 0},
    {"a lock is kept", meet, leave_lock, NULL, OP_ONCE, 0},
    {"sent, and said that not", meet, send_half, came, 0, 0},
    {"unusable afterwards", meet, break_it, NULL, 0, 0},
    {"the wrong code", meet, wrong_code, NULL, 0, 0},
    {"no sentence", meet, no_sentence, NULL, 0, 0},
    {"hangs", meet, hangs, NULL, 0, 0},
};
const unsigned spoilt_count = sizeof spoilt / sizeof spoilt[0];

const struct operation operations[] = {
    {"join", NULL, join_me, can_all, 0, 0},
    {"join again", peer_joins, join_me, can_all, 0, 0},
    {"join, no broker", NULL, join_me, can_all, OP_APART, 0},
    {"join in a child", forks, join_me, can_all, OP_FORKS, 0},
    {"leave", opens_much, leave_me, NULL, OP_ONCE, 0},
    {"free a handle", sent_large, free_channel, NULL, OP_ONCE, 0},
    {"free a subscriber", open_subscriber, free_channel, NULL, OP_ONCE, 0},
    {"open a queue", both_join, open_queue_, sends_and_gets, 0, 0},
    {"open a broadcast", both_join, open_broadcast, sends_and_gets, 0, 0},
    {"open to send", both_join, open_send, only_sends, 0, 0},
    {"open an existing", both_meet_first, open_existing, gets_from_other, 0, 0},
    {"open a group that acknowledges", both_join, open_acks, sends_and_gets, 0, 0},
    {"open with all options", both_join, open_rich, sends_and_gets, 0, 0},
    {"open with history", keeps_some, open_late, has_kept, 0, 0},
    {"open with a stranger's history", stranger_is_kept, open_late, has_strangers, 0, 0},
    {"remove a group, a stranger's due", stranger_is_due, ends_group, none_is_due, 0, 0},
    {"send, a stranger's kept", stranger_is_last, send_small, is_kept_no_more, 0, 0},
    {"send, a stranger's in the way", stranger_is_first, send_past, is_kept_no_more, 0, 0},
    {"send inline", meet, send_small, came, 0, 0},
    {"send a block", meet, send_large, came, 0, 0},
    {"send 3 MB", meet, send_huge, came, OP_SLOW, 0},
    {"send with a free function", meet_free, send_free, came_and_freed, 0, 0},
    {"run free functions", sent_free, run_free, has_freed, 0, 0},
    {"take a loan", meet, loan_small, loan_works, 0, 0},
    {"take a loan of 3 MB", meet, loan_huge, loan_works, OP_SLOW, 0},
    {"send a loan", loaned, send_loan, came, 0, 0},
    {"send many", meet, send_many, came_many, 0, 0},
    {"send, asleep", meet_full, send_asleep, came, 0, 0},
    {"send, growing", meet_growing, send_growing, grew, 0, CODE(XI_E_TIMEOUT)},
    {"send, expiring", meet, send_with_letter, NULL, 0, 0},
    {"receive inline", sent_small, recv_one, got_one, 0, 0},
    {"receive 1 KB", sent_middle, recv_one, got_one, 0, 0},
    {"receive a block", sent_large, recv_one, got_one, 0, 0},
    {"receive many", sent_many, recv_many, got_many, 0, 0},
    {"receive, asleep", meet_waker, recv_asleep, got_one, 0, 0},
    {"receive in vain", meet, recv_in_vain, NULL, 0, 0},
    {"receive, grown", grown_by_other, recv_one, got_forty, 0, 0},
    {"receive, borrows used up", borrows_all, recv_one, got_one, OP_SLOW, 0},
    {"release", holds_free, release_it, owner_freed, OP_ONCE, 0},
    {"acknowledge", delivered, ack_it, none_left, 0, 0},
    {"acknowledge and keep", delivered, ack_keep_it, none_left, 0, 0},
    {"give back", delivered, nack_it, comes_again, 0, 0},
    {"extend", delivered, extend_it, none_left, 0, 0},
    {"bury a block", delivered_once, bury, is_buried, OP_ONCE, CODE(XI_E_AGAIN)},
    {"bury inline", delivered_small, bury, is_buried, OP_ONCE, CODE(XI_E_AGAIN)},
    {"receive, the first expired", expired, recv_one, got_one, 0, 0},
    {"make a set", meet, set_new, set_works, 0, 0},
    {"add to a set", has_set, set_add, set_tells, 0, 0},
    {"wait on a set", has_woken_member, set_asleep, NULL, 0, 0},
    {"a set's descriptor", has_member, set_fd, fd_tells, 0, 0},
    {"arm a set's descriptor", has_fd, set_fd_arm, fd_tells, 0, 0},
    {"call", meet_and_sleep, call_it, is_answered, 0, CODE(XI_E_INTR) | CODE(XI_E_TIMEOUT)}, /* its server waits for brokers, too */
    {"reply", meet_caller, reply_small, reply_came, 0, 0},
    {"reply with a block", meet_caller, reply_large, reply_came, 0, 0},
    {"refuse a call", meet_caller, refuse_it, is_refused, 0, 0},
    {"refer", both_join, ref, is_referred, 0, 0},
    {"unrefer", refers, unref, is_free, 0, 0},
    {"observe", both_join, observe, observes, 0, 0},
    {"list", meet, lists, NULL, 0, 0},
    {"close", meet, close_it, is_closed, 0, 0},
    {"remove", meet, remove_it, is_removed, 0, 0},
    {"remove a group", has_group, group_remove, group_gone, 0, 0},
    {"a holder's death", is_held, dies, NULL, 0, CODE(XI_E_TIMEOUT)},
    {"open, the broker killed", orphaned, open_more, all_as_before, OP_APART, 0},
};
const unsigned operation_count = sizeof operations / sizeof operations[0];
