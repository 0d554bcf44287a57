/* SPDX-License-Identifier: MIT */
/*
 * Workers of the randomized runs: producers and consumers that do what the plan
 * says and write down every call, and the keeper. An outcome that is neither
 * recorded nor expected ends the run.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include "channel/channel.h"
#include "history_run.h"

/* ------------------------------------------------------------------------ values */

static void fill_padding(uint8_t *p, size_t n, uint64_t id) { memset(p, (int)(id * 37 + 11) & 0xff, n); }

static size_t encode(void *buffer, size_t capacity, uint64_t id, size_t padding) {
    xi_builder b;
    void *where = NULL;
    xi_builder_init(&b, buffer, capacity, 0);
    xi_begin(&b, XI_TUPLE, 2);
    xi_put_int(&b, (int64_t)id);
    xi_put_bytes_space(&b, 0, padding, &where);
    if (where) fill_padding(where, padding, id);
    xi_end(&b);
    int64_t size = xi_builder_finish(&b);
    must(size);
    return (size_t)size;
}

/* The id of a value, each byte of which is looked at. */
static uint64_t id_of(const xi_value *tuple) {
    xi_cursor children;
    xi_value v;
    int64_t id = 0;
    expect(tuple->tag == XI_TUPLE, "what came is no tuple");
    must(xi_enter(tuple, &children));
    expect(xi_next(&children, &v) == 1, "an empty tuple");
    must(xi_get_int(&v, &id));
    expect(xi_next(&children, &v) == 1 && v.tag == XI_BYTES, "no padding");
    const uint8_t *p = v.data;
    uint8_t should = (uint8_t)((uint64_t)id * 37 + 11);
    for (size_t i = 0; i < v.length; i++)
        expect(p[i] == should, "byte %zu of %zu of value %u:%llu is %02x, not %02x", i, v.length, H_ACTOR(id),
               (unsigned long long)H_NUMBER(id), p[i], should);
    return (uint64_t)id;
}

static uint64_t decode(const xi_msg *m) {
    xi_cursor c;
    xi_value v;
    xi_cursor_init(&c, m->data, m->size);
    expect(xi_next(&c, &v) == 1, "a message without a value");
    return id_of(&v);
}

static size_t draw_padding(uint64_t *r) {
    if (below(r, 256) < plan.blocks)
        return below(r, 256) < plan.large ? LARGE / 2 + below(r, LARGE / 2) : 4200 + below(r, 9000);
    return below(r, one_in(r, 8) ? 400 : 48);
}

/* ----------------------------------------------------------------------- workers */

/* What a thread has while it works. */
struct work {
    struct worker *w;
    uint32_t number, actor;
    uint64_t random, values;
    xi_interp *me;
    xi_channel *handle[SERVED];
    uint32_t group[SERVED]; /* in the history */
    uint32_t handles;
    xi_msg held[HOLD][BATCH];
    uint64_t held_id[HOLD][BATCH];
    uint32_t held_count[HOLD], held_group[HOLD], turn;
    uint8_t *buffer[BATCH];
};

static xi_interp *join(const char *name) {
    xi_interp *me = NULL;
    xi_join_opts opts = {.name = name, .spin_ns = plan.spin_ns};
    surely(xi_join(&opts, &me));
    return me;
}

/* Interrupted while it waited for the broker's answer, it has left all the same. */
static void leave(xi_interp *me) {
    int rc = xi_leave(me);
    if (!undone(rc)) must(rc);
}

static xi_channel *open_handle(xi_interp *me, uint32_t flags, const char *group) {
    xi_group_opts how = {.from = plan.from,
                         .last = plan.from == XI_FROM_LAST ? plan.last : 0,
                         .flags = plan.acks ? XI_GROUP_ACK : 0,
                         .max_deliveries = plan.max_deliveries,
                         .window = plan.window,
                         .timeout_ns = plan.overdue,
                         .dead = plan.dead_letters ? DEAD : NULL};
    xi_open_opts opts = {.mode = plan.mode,
                         .flags = flags,
                         .capacity = plan.capacity,
                         .group = group,
                         .ttl_ns = plan.ttl_ns,
                         .grow = plan.grow,
                         .values = plan.most,
                         .when_full = plan.when_full,
                         .retain = plan.retain};
    if ((plan.acks || plan.from) && flags & XI_OPEN_RECV) opts.group_opts = &how;
    if (plan.need_peer && flags & XI_OPEN_RECV) opts.flags |= XI_OPEN_NEED_PEER;
    xi_channel *ch = NULL;
    surely(xi_open(me, "history", &opts, &ch));
    return ch;
}

/* Opens a handle that receives for the group of the history. */
static xi_channel *open_for(xi_interp *me, uint32_t actor, uint32_t group, const char *name) {
    uint32_t e =
        h_begin(H, actor, (struct h_event){.kind = H_JOIN, .channel = (uint8_t)channel, .group = (uint16_t)group});
    xi_channel *ch = open_handle(me, XI_OPEN_RECV, name);
    h_end(H, actor, e, 0);
    return ch;
}

static int64_t draw_timeout(uint64_t *r) {
    if (plan.patient) return XI_FOREVER;
    switch (below(r, 4)) {
    case 0: return XI_TRY;
    case 1: return 1 + below(r, 3000000);
    default: return XI_FOREVER;
    }
}

static void maybe_rest(struct work *k) {
    if (below(&k->random, 256) >= plan.rests) return;
    if (one_in(&k->random, 2))
        sched_yield();
    else
        rest(1000 + below(&k->random, 400000));
}

/* ---- producers */

static uint32_t begin_send(struct work *k, uint64_t id, int64_t timeout, int64_t ttl) {
    if (ttl == 0) ttl = plan.ttl_ns;
    return h_begin(H, k->actor,
                   (struct h_event){.kind = H_SEND,
                                    .channel = (uint8_t)channel,
                                    .value = id,
                                    .argument = ttl > 0 ? ttl : 0,
                                    .timeout = timeout,
                                    .group = H_NO_GROUP});
}

/* A value's own time to live, as xi_send_opts has it. */
static int64_t draw_ttl(uint64_t *r) {
    if (!plan.own_ttl || one_in(r, 2)) return 0;
    return one_in(r, 3) ? -1 : 50000 + (int64_t)below(r, 10000000);
}

/* Anything but these is a failure of the run. */
static bool sending_goes_on(int64_t rc) {
    if (rc < 0 && rc != XI_E_AGAIN && rc != XI_E_TIMEOUT && rc != XI_E_CLOSED && !undone(rc))
        fail("a send returned %s: %s", xi_error_name((int)rc), xi_error_text((int)rc));
    return rc != XI_E_CLOSED;
}

static bool send_one(struct work *k, int64_t timeout) {
    uint64_t id = H_ID(k->actor, ++k->values);
    size_t padding = draw_padding(&k->random);
    xi_send_opts opts = {.timeout = timeout, .ttl_ns = draw_ttl(&k->random)};
    int rc;
    if (one_in(&k->random, 8)) {
        xi_loan loan;
        surely(xi_loan_get(k->me, padding + 128, &loan));
        size_t size = encode(loan.data, loan.size, id, padding);
        uint32_t e = begin_send(k, id, timeout, opts.ttl_ns);
        rc = xi_send_loan(k->handle[0], &loan, size, &opts);
        h_end(H, k->actor, e, rc);
        xi_loan_drop(&loan);
    } else {
        size_t size = encode(k->buffer[0], LARGE + 256, id, padding);
        uint32_t e = begin_send(k, id, timeout, opts.ttl_ns);
        rc = opts.ttl_ns ? xi_send_ex(k->handle[0], k->buffer[0], size, &opts)
                         : xi_send(k->handle[0], k->buffer[0], size, timeout);
        h_end(H, k->actor, e, rc);
    }
    if (rc == 0) atomic_fetch_add(&S->accepted, 1);
    return sending_goes_on(rc);
}

static bool send_batch(struct work *k, uint32_t n, int64_t timeout) {
    const void *values[BATCH] = {NULL};
    size_t sizes[BATCH] = {0};
    uint32_t events[BATCH];
    for (uint32_t i = 0; i < n; i++) {
        sizes[i] = encode(k->buffer[i], LARGE + 256, H_ID(k->actor, k->values + i + 1), draw_padding(&k->random));
        values[i] = k->buffer[i];
    }
    for (uint32_t i = 0; i < n; i++) events[i] = begin_send(k, H_ID(k->actor, ++k->values), timeout, 0);
    int64_t rc = xi_send_many(k->handle[0], values, sizes, n, timeout);
    for (uint32_t i = 0; i < n; i++) h_end(H, k->actor, events[i], i < rc ? 0 : rc < 0 ? (int)rc : XI_E_AGAIN);
    if (rc > 0) atomic_fetch_add(&S->accepted, (uint64_t)rc);
    return sending_goes_on(rc);
}

/* Asks with a value, and waits for the reply to it, which bears its id. */
static bool call_one(struct work *k, int64_t timeout) {
    uint64_t id = H_ID(k->actor, ++k->values);
    xi_pending call = XI_PENDING_INIT;
    xi_msg reply = XI_MSG_INIT;
    size_t size = encode(k->buffer[0], LARGE + 256, id, draw_padding(&k->random));
    uint32_t e = begin_send(k, id, timeout, 0);
    int rc = xi_call_begin(k->handle[0], k->buffer[0], size, timeout, &call);
    h_end(H, k->actor, e, rc);
    if (rc) return rc == XI_E_NO_CONSUMER || sending_goes_on(rc);
    atomic_fetch_add(&S->accepted, 1);
    timeout = one_in(&k->random, 8) ? 1 + below(&k->random, 300000) : XI_FOREVER;
    uint32_t c = h_begin(H, k->actor,
                         (struct h_event){.kind = H_CALL, .channel = (uint8_t)channel, .value = id, .timeout = timeout, .group = H_NO_GROUP});
    do rc = xi_call_wait(&call, &reply, timeout);
    while (rc == XI_E_INTR && plan.stop);
    if (rc == 0) h_events(H, k->actor)[c].argument = (int64_t)decode(&reply);
    h_end(H, k->actor, c, rc);
    xi_call_cancel(&call);
    xi_msg_release(&reply);
    if (rc && rc != XI_E_DIED && rc != XI_E_NO_CONSUMER && rc != XI_E_TIMEOUT && !undone(rc))
        fail("a call ended with %s: %s", xi_error_name(rc), xi_error_text(rc));
    return true;
}

/* Waits until all that was sent is received. Producers who see that at once go on together. */
static void wait_for_received(void) {
    while (atomic_load(&S->received) < atomic_load(&S->accepted) && !atomic_load(&S->close)) sched_yield();
}

static void produce(struct work *k) {
    k->handle[k->handles++] = open_handle(k->me, XI_OPEN_SEND, NULL);
    for (uint32_t i = 0; i < plan.batch; i++) expect((k->buffer[i] = malloc(LARGE + 256)) != NULL, "no memory");
    await_event(&S->event, atomic_load(&S->go), "the parent does not let producers go");
    bool goes_on = true;
    while (goes_on && atomic_load(&S->sent) < plan.values && h_has_room(H, k->actor, BATCH)) {
        uint32_t n = plan.calls ? 1 : 1 + below(&k->random, plan.batch);
        int64_t timeout = draw_timeout(&k->random);
        goes_on = plan.calls ? call_one(k, timeout) : n == 1 ? send_one(k, timeout) : send_batch(k, n, timeout);
        atomic_fetch_add(&S->sent, n);
        maybe_rest(k);
        if (plan.lockstep) wait_for_received();
    }
    for (uint32_t i = 0; i < plan.batch; i++) free(k->buffer[i]);
}

/* ---- consumers */

static struct h_event about_delivery(uint8_t kind, uint32_t group, uint64_t id, const xi_msg *m) {
    return (struct h_event){.kind = kind,
                            .channel = (uint8_t)channel,
                            .group = (uint16_t)group,
                            .value = id,
                            .count = xi_msg_deliveries(m)};
}

/* Gives a delivery back, in one of the two ways. A later consumer has it then, or the dead letters. */
static void give_back(struct work *k, xi_msg *m, uint32_t group, uint64_t id) {
    bool nack = one_in(&k->random, 2);
    uint32_t e = h_begin(H, k->actor, about_delivery(H_BACK, group, id, m));
    int rc = nack ? xi_nack(m, one_in(&k->random, 2) ? 0 : below(&k->random, 3000000)) : 0;
    xi_msg_release(m); /* which gives back what was not given back, and the message's own memory */
    h_end(H, k->actor, e, rc);
    if (rc && rc != XI_E_STALE) fail("xi_nack returned %s: %s", xi_error_name(rc), xi_error_text(rc));
}

static void acknowledge(struct work *k, xi_msg *m, uint32_t group, uint64_t id) {
    if (one_in(&k->random, 32)) {
        bool longer = plan.overdue && one_in(&k->random, 2); /* never shorter than the checker knows */
        int rc = xi_extend(m, longer ? plan.overdue + below(&k->random, 20000000) : 0);
        if (rc && rc != XI_E_STALE) fail("xi_extend returned %s: %s", xi_error_name(rc), xi_error_text(rc));
    }
    uint32_t e = h_begin(H, k->actor, about_delivery(H_ACK, group, id, m));
    int rc = xi_ack(m);
    h_end(H, k->actor, e, rc);
    if (rc && rc != XI_E_STALE) fail("xi_ack returned %s: %s", xi_error_name(rc), xi_error_text(rc));
    xi_msg_release(m);
}

/* Replies to a request with its id; or drops some, whose callers are told that. */
static void serve(struct work *k, xi_msg *m, uint32_t group, uint64_t id) {
    static _Thread_local uint64_t buffer[2048];
    if (!one_in(&k->random, 16)) {
        size_t size = encode(buffer, sizeof buffer, id, below(&k->random, one_in(&k->random, 8) ? 12000 : 100));
        struct h_event about = {.kind = H_SERVE, .channel = (uint8_t)channel, .group = (uint16_t)group, .value = id};
        int rc;
        do {
            uint32_t e = h_begin(H, k->actor, about);
            rc = xi_reply(m, buffer, size, XI_FOREVER);
            h_end(H, k->actor, e, rc);
        } while (undone(rc));
        if (rc && rc != XI_E_STALE) fail("a reply returned %s: %s", xi_error_name(rc), xi_error_text(rc));
    }
    xi_msg_release(m);
}

static void let_go(struct work *k, uint32_t turn) {
    for (uint32_t i = 0; i < k->held_count[turn]; i++) {
        xi_msg *m = &k->held[turn][i];
        uint64_t id = k->held_id[turn][i];
        expect(!xi_msg_borrowed(m) || decode(m) == id, "a borrowed value changed");
        if (xi_msg_is_call(m))
            serve(k, m, k->held_group[turn], id);
        else if (!xi_msg_deliveries(m))
            xi_msg_release(m);
        else if (one_in(&k->random, 8))
            give_back(k, m, k->held_group[turn], id);
        else
            acknowledge(k, m, k->held_group[turn], id);
    }
    k->held_count[turn] = 0;
}

static void let_all_go(struct work *k) {
    for (uint32_t i = 0; i < HOLD; i++) let_go(k, (k->turn + i) % HOLD);
}

/* Nobody waits without limit for others while it has deliveries that they may be waiting for. */
static int64_t bounded(struct work *k, int64_t timeout) {
    bool holds = false;
    for (uint32_t i = 0; i < HOLD; i++) holds |= k->held_count[i] != 0;
    if (!(plan.acks || plan.calls) || !holds) return timeout;
    if (one_in(&k->random, 4))
        let_all_go(k);
    else
        timeout = timeout == XI_TRY ? XI_TRY : 100000 + below(&k->random, 1000000);
    return timeout;
}

/* Receives once through handle h. False: it is closed and drained. */
static bool receive(struct work *k, uint32_t h, uint32_t most, int64_t timeout) {
    uint32_t turn = k->turn++ % HOLD, counts[BATCH];
    let_go(k, turn);
    if (!h_has_room(H, k->actor, EVENTS / 2)) timeout = MS; /* rather than a million attempts */
    timeout = bounded(k, timeout);
    uint32_t e = h_begin(H, k->actor,
                         (struct h_event){.kind = H_RECEIVE,
                                          .channel = (uint8_t)channel,
                                          .may_take = most,
                                          .group = (uint16_t)k->group[h],
                                          .timeout = timeout});
    int64_t n = most == 1 ? xi_recv(k->handle[h], k->held[turn], timeout)
                          : xi_recv_many(k->handle[h], k->held[turn], most, timeout);
    int64_t end = h_ended(H, k->actor);
    if (n < 0) {
        h_end(H, k->actor, e, (int)n);
        if (n != XI_E_AGAIN && n != XI_E_TIMEOUT && n != XI_E_CLOSED && !undone(n))
            fail("a receive returned %s: %s", xi_error_name((int)n), xi_error_text((int)n));
        return n != XI_E_CLOSED;
    }
    k->held_count[turn] = most == 1 ? 1 : (uint32_t)n;
    k->held_group[turn] = k->group[h];
    for (uint32_t i = 0; i < k->held_count[turn]; i++) {
        k->held_id[turn][i] = decode(&k->held[turn][i]);
        counts[i] = xi_msg_deliveries(&k->held[turn][i]);
    }
    h_took(H, k->actor, e, end, k->held_id[turn], counts, k->held_count[turn]);
    atomic_fetch_add(&S->received, k->held_count[turn]);
    /* Who always holds deliveries for longer than until they are overdue never acknowledges one: not for ever. */
    if (!h_has_room(H, k->actor, EVENTS / 2)) let_all_go(k);
    return true;
}

static void open_groups(struct work *k) {
    char name[16];
    for (uint32_t i = 0; i < k->w->served; i++) {
        uint32_t named = k->w->first + i;
        k->group[k->handles] = named_group[named];
        k->handle[k->handles++] = open_for(k->me, k->actor, named_group[named], group_name(name, named));
    }
    if (k->handles) return;
    k->group[0] = k->w->group;
    k->handle[k->handles++] = open_for(k->me, k->actor, k->w->group, NULL);
}

/* Receives for all its groups until each is drained. One that has several never waits long for one of them. */
static void receive_in_turn(struct work *k) {
    bool over[SERVED] = {false};
    uint32_t left = k->handles;
    for (uint32_t h = 0; left; h = (h + 1) % k->handles) {
        if (over[h]) continue;
        int64_t timeout = draw_timeout(&k->random);
        if (left > 1) timeout = one_in(&k->random, 4 * left) ? below(&k->random, 200000) : XI_TRY;
        over[h] = !receive(k, h, 1 + below(&k->random, plan.batch), timeout);
        left -= over[h];
        maybe_rest(k);
    }
}

/* One wait: how many events. Written down as a wait for each of the groups that are not over. */
static int64_t wait_by_set(struct work *k, xi_set *set, const bool *over, xi_event *events, size_t n, int64_t timeout) {
    struct h_event about[SERVED];
    uint32_t waits = 0;
    int64_t begin = h_now();
    for (uint32_t h = 0; h < k->handles; h++)
        if (!over[h])
            about[waits++] = (struct h_event){.kind = H_WAIT,
                                              .channel = (uint8_t)channel,
                                              .begin = begin,
                                              .group = (uint16_t)k->group[h],
                                              .timeout = timeout};
    int64_t got = xi_set_wait(set, events, n, timeout);
    int64_t end = h_ended(H, k->actor);
    /* Short ones tell nothing. */
    for (uint32_t i = 0; i < waits && (got == XI_E_TIMEOUT || end - begin > PATIENCE); i++) {
        about[i].end = end;
        about[i].result = got < 0 ? (int)got : 0;
        h_add(H, k->actor, about[i]);
    }
    if (got < 0 && got != XI_E_TIMEOUT && got != XI_E_AGAIN && !undone(got))
        fail("a set's wait returned %s: %s", xi_error_name((int)got), xi_error_text((int)got));
    return got;
}

/* The same by a set. Each that is reported is tried once; closed and drained, it must say so. */
static void receive_by_set(struct work *k) {
    bool over[SERVED] = {false};
    xi_event events[4];
    xi_set *set = NULL;
    must(xi_set_new(k->me, &set));
    for (uint32_t h = 0; h < k->handles; h++)
        must(xi_set_add(set, k->handle[h], XI_READY_RECV, h, (int32_t)below(&k->random, 2)));
    for (uint32_t left = k->handles; left;) {
        int64_t timeout = h_has_room(H, k->actor, EVENTS / 2) ? draw_timeout(&k->random) : XI_FOREVER;
        int64_t n = wait_by_set(k, set, over, events, 1 + below(&k->random, 4), bounded(k, timeout));
        for (int64_t i = 0; i < n; i++) {
            uint32_t h = (uint32_t)events[i].key;
            expect(h < k->handles && !over[h] && events[i].channel == k->handle[h],
                   "the set reports what is not in it");
            expect(events[i].ready & (XI_READY_RECV | XI_READY_CLOSED), "the set reports %#x", events[i].ready);
            over[h] = !receive(k, h, 1 + below(&k->random, plan.batch), XI_TRY);
            if (!over[h]) continue;
            must(xi_set_remove(set, k->handle[h]));
            left--;
        }
        maybe_rest(k);
    }
    xi_set_free(set);
}

/* What the library itself counted, before the group goes. */
static void read_counters(xi_channel *ch, uint32_t group) {
    struct h_group *g = &H->group[group];
    g->dropped = xi_load_relaxed(&ch->group->dropped);
    g->expired = xi_load_relaxed(&ch->group->expired);
    g->vanished = plan.dead_letters ? 0 : xi_load_relaxed(&ch->group->dead);
    g->counted = true;
    g->lossy = false;
}

static void consume(struct work *k) {
    for (int i = 0; i < HOLD; i++)
        for (int j = 0; j < BATCH; j++) k->held[i][j] = (xi_msg)XI_MSG_INIT;
    if (!plan.groups_first) rest(below(&k->random, 5000000));
    open_groups(k);
    atomic_store(&S->joined[k->number], true);
    if (plan.sets)
        receive_by_set(k);
    else
        receive_in_turn(k);
    let_all_go(k);
    for (int i = 0; i < HOLD; i++) /* their memory: also of those that held a value which expired */
        for (int j = 0; j < BATCH; j++) xi_msg_release(&k->held[i][j]);
    if (!k->w->served && plan.mode == XI_BROADCAST) read_counters(k->handle[0], k->group[0]);
}

static xi_interp *shared_interp;

static void *work(void *argument) {
    struct work *k = calloc(1, sizeof *k);
    expect(k != NULL, "no memory");
    k->number = *(uint32_t *)argument;
    k->w = &plan.worker[k->number];
    k->actor = k->w->actor;
    k->random = plan.seed ^ (k->actor + 1) * 0x9e3779b97f4a7c15u;
    k->me = plan.one_interp ? shared_interp : join(k->w->producer ? "producer" : "consumer");
    if (k->w->producer)
        produce(k);
    else
        consume(k);
    atomic_store(&S->finished[k->number], true);
    for (uint32_t i = 0; i < k->handles; i++) surely(xi_channel_free(k->handle[i]));
    if (!plan.one_interp) leave(k->me);
    free(k);
    return NULL;
}

#define LOOK_NS (10 * MS)
static _Atomic bool over;

/* On a busy machine whoever maps something may stand for long behind another of its process who was put aside with the
 * kernel's lock of all their mappings in its hand: that is no lost wake. */
static void *look_on(void *none) {
    for (int64_t last = now_ns(); !atomic_load(&over);) {
        void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page != MAP_FAILED) munmap(page, 4096);
        rest(LOOK_NS); /* a rhythm */
        int64_t now = now_ns(), gap = now - last - LOOK_NS, most = atomic_load(&S->longest_gap);
        while (gap > most && !atomic_compare_exchange_weak(&S->longest_gap, &most, gap)) continue;
        last = now;
    }
    return none;
}

/* One process: those of its workers that have not finished in an earlier life. */
void run_process(uint32_t process) {
    pthread_t threads[WORKERS], looker;
    uint32_t numbers[WORKERS], n = 0;
    int err = pthread_create(&looker, NULL, look_on, NULL);
    expect(err == 0, "pthread_create: %s", strerror(err));
    if (plan.one_interp) shared_interp = join("workers");
    for (uint32_t i = 0; i < plan.workers; i++) {
        if (plan.worker[i].process != process || atomic_load(&S->finished[i])) continue;
        numbers[n] = i;
        err = pthread_create(&threads[n], NULL, work, &numbers[n]);
        expect(err == 0, "pthread_create: %s", strerror(err));
        n++;
    }
    for (uint32_t i = 0; i < n; i++) pthread_join(threads[i], NULL);
    atomic_store(&over, true);
    pthread_join(looker, NULL);
    if (plan.one_interp) leave(shared_interp);
    exit(0);
}

/* -------------------------------------------------------------------- the keeper */

static void read_group(xi_interp *me, uint32_t group, const char *name) {
    xi_channel *ch = open_handle(me, XI_OPEN_RECV, name);
    read_counters(ch, group);
    surely(xi_channel_free(ch));
}

/* The next child of a dict, as a str or an int. */
static int64_t child_int(xi_cursor *c) {
    xi_value v;
    int64_t out = 0;
    expect(xi_next(c, &v) == 1, "a dead letter is cut short");
    must(xi_get_int(&v, &out));
    return out;
}
static void child_text(xi_cursor *c, char *out, size_t size) {
    xi_value v;
    expect(xi_next(c, &v) == 1 && v.tag == XI_STR, "a dead letter lacks a str");
    must(xi_to_utf8(&v, out, size, false));
}

/* {"reason", "channel", "group", "deliveries", "value"} */
static void note_dead_letter(uint32_t actor, const xi_msg *m) {
    struct h_event e = {.kind = H_DEAD, .channel = (uint8_t)channel, .group = (uint16_t)default_group};
    char key[16], text[96];
    xi_cursor c, children;
    xi_value v;
    xi_cursor_init(&c, m->data, m->size);
    expect(xi_next(&c, &v) == 1 && v.tag == XI_DICT && v.count == 5, "a dead letter is no dict of five");
    must(xi_enter(&v, &children));
    for (int i = 0; i < 5; i++) {
        child_text(&children, key, sizeof key);
        if (strcmp(key, "deliveries") == 0)
            e.count = (uint32_t)child_int(&children);
        else if (strcmp(key, "value") != 0)
            child_text(&children, text, sizeof text);
        if (strcmp(key, "group") == 0 && text[0]) e.group = (uint16_t)named_group[atoi(text + 1)];
        if (strcmp(key, "value") != 0) continue;
        expect(xi_next(&children, &v) == 1, "a dead letter without its value");
        e.value = id_of(&v);
    }
    e.begin = e.end = h_now();
    h_add(H, actor, e);
}

static void read_dead_letters(xi_channel *dead, uint32_t actor) {
    xi_msg m = XI_MSG_INIT;
    int rc;
    while (dead && (rc = xi_recv(dead, &m, XI_TRY)) != XI_E_AGAIN) {
        if (undone(rc)) continue;
        must(rc);
        note_dead_letter(actor, &m);
    }
    xi_msg_release(&m);
}

/* Reads dead letters until the parent has got there. */
static void wait_for(const _Atomic bool *flag, xi_channel *dead, uint32_t actor) {
    int64_t begun = now_ns();
    for (uint32_t seen = atomic_load(&S->event); !atomic_load(flag); seen = atomic_load(&S->event)) {
        read_dead_letters(dead, actor);
        expect(now_ns() - begun < RUN_MOST, "the parent has gone");
        event_sleep(&S->event, seen, MS); /* dead letters come meanwhile, which are read as they come */
    }
}

void keep(uint32_t actor) {
    char name[16];
    xi_interp *me = join("keeper");
    xi_channel *dead = NULL;
    if (plan.dead_letters) surely(xi_open(me, DEAD, &(xi_open_opts){.flags = XI_OPEN_RECV}, &dead));
    xi_channel *ch = open_handle(me, XI_OPEN_SEND, NULL);
    for (uint32_t i = 0; plan.groups_first && i < plan.named; i++)
        surely(xi_channel_free(open_for(me, actor, named_group[i], group_name(name, i))));
    say(&S->kept);
    wait_for(&S->close, dead, actor);
    uint32_t e = h_begin(H, actor, (struct h_event){.kind = H_CLOSE, .channel = (uint8_t)channel, .group = H_NO_GROUP});
    surely(xi_close(ch));
    h_end(H, actor, e, 0);
    wait_for(&S->finish, dead, actor);
    read_dead_letters(dead, actor);
    if (plan.mode == XI_QUEUE && !plan.calls) read_group(me, default_group, NULL); /* requests are skipped that nobody waits for */
    for (uint32_t i = 0; i < plan.named; i++) read_group(me, named_group[i], group_name(name, i));
    surely(xi_channel_free(dead));
    surely(xi_channel_free(ch));
    leave(me);
    exit(0);
}
