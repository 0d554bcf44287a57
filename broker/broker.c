/* SPDX-License-Identifier: MIT */
/* Where events, decisions and deeds meet; the header has the model. */
#include "broker.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "error.h"
#include "keep.h"
#include "log.h"
#include "proc.h"
#include "request.h"
#include "wire/names.h"
#include "wire/order.h"
#include "xidata.h"

#define MS ((int64_t)1000000)
#define SETTLE_NS (1000 * MS)     /* silence after which an interpreter has declared all it holds */
#define ABSENT_NS (1000 * MS)     /* between looks at those who live and have no connection */
#define FIRST_JOIN_NS (5000 * MS) /* an --auto broker waits for the one that started it */
#define GRACE_NS (200 * MS)       /* for one that comes back right after */
#define SLICE_NS (2 * MS)         /* of work that is many small pieces, before looking at what else there is */
#define CONNECTIONS_MAX 1024u
#define OTHERS_MAX 256u /* connections of one user other than the broker's: nobody takes the others' share */

static void handle(struct broker *b, const struct event *event);

/* ---- connections ---- */

static struct peer *peer_of(const struct broker *b, uint64_t conn) {
    uint64_t *found = table_find(&b->peers, conn);
    return found ? (struct peer *)(uintptr_t)*found : NULL;
}

static bool is_absent(const struct interp *in) { return in->life == INTERP_LIVE && !in->conn; }

static void drop(struct broker *b, uint64_t conn) {
    struct peer *p = peer_of(b, conn);
    if (!p) return;
    table_drop(&b->peers, conn);
    peer_free(p);
    handle(b, &(struct event){.kind = EVENT_DISCONNECT, .conn = conn});
    for (uint32_t i = 1; i < XI_MAX_INTERPS && !b->absent.at; i++)
        if (is_absent(&b->state.interps[i])) b->absent.at = loop_now() + ABSENT_NS;
}

static void send_to(struct broker *b, uint64_t conn, const struct xi_reply *reply, const int *fds, unsigned fd_count) {
    struct peer *p = peer_of(b, conn);
    if (!p || peer_send(p, reply, fds, fd_count)) return;
    log_more("connection %llu (pid %d) does not read or is gone; dropped", (unsigned long long)conn, p->pid);
    drop(b, conn);
}

static struct xi_reply reply_to(const struct xi_request *q, int status, const char *words) {
    struct xi_reply r = {
        .magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .op = q->op, .serial = q->serial, .status = status};
    snprintf(r.text, sizeof r.text, "%s", words);
    return r;
}

static void on_packet(struct peer *p, int n, const void *bytes) {
    struct broker *b = p->owner;
    uint64_t conn = p->conn;
    if (n <= 0) { /* also an empty packet: it looks the same as the end */
        drop(b, conn);
        return;
    }
    struct xi_request q;
    int status;
    const char *why;
    enum check verdict = request_check(bytes, (size_t)n, &q, &status, &why);
    if (verdict != CHECK_DROP && p->refused) {
        verdict = CHECK_DROP;
        status = p->refused;
        why = p->words;
    }
    if (verdict == CHECK_OK) {
        handle(b, &(struct event){.kind = EVENT_REQUEST, .conn = conn, .request = &q});
    } else {
        struct xi_reply r = reply_to(&q, status, why);
        log_more("connection %llu (pid %d): %s", (unsigned long long)conn, p->pid, why);
        send_to(b, conn, &r, NULL, 0);
    }
    if (verdict == CHECK_DROP) drop(b, conn);
    p = peer_of(b, conn);
    if (p) peer_listen(p);
}

static bool has_too_many(const struct broker *b, uint32_t uid) {
    uint64_t conn, peer;
    uint32_t count = 0;
    if (uid == b->world.uid) return false;
    for (uint32_t at = 0; table_next(&b->peers, &at, &conn, &peer);)
        count += ((struct peer *)(uintptr_t)peer)->who.uid == uid;
    return count >= OTHERS_MAX;
}

static struct peer *take_connection(struct broker *b, int fd) {
    struct admission admission = {b->world.uid, b->options.open ? b->options.open_to : NULL};
    if (b->peers.count >= CONNECTIONS_MAX) {
        peer_turn_away(fd, XI_E_LIMIT, "the broker has 1,024 connections, and takes no more");
        close(fd);
        return NULL;
    }
    struct peer *p = peer_new(b->loop, fd, b->next_conn, &admission, b, on_packet);
    if (!p || !has_too_many(b, p->who.uid)) return p;
    peer_turn_away(p->fd, XI_E_LIMIT, "this user has 256 connections to this broker, and gets no more");
    peer_free(p);
    return NULL;
}

static void restart_leave_timer(struct broker *b);

static void on_accept(void *context, int result, const void *data) {
    struct door *door = context;
    struct broker *b = door->broker;
    (void)data;
    if (result == -EMFILE || result == -ENFILE || result == -ENOMEM || result == -ENOBUFS) {
        log_line("cannot accept a connection: %s; trying again in 100 ms (raise ulimit -n)", strerror(-result));
        b->listen_again.at = loop_now() + 100 * MS;
        return;
    }
    loop_again(b->loop, door->watch);
    if (result < 0) return; /* the client went away meanwhile */
    struct peer *p = take_connection(b, result);
    if (!p) return;
    restart_leave_timer(b);
    *table_put(&b->peers, b->next_conn++) = (uintptr_t)p;
    handle(b, &(struct event){.kind = EVENT_CONNECT,
                              .conn = p->conn,
                              .uid = p->who.uid,
                              .gid = p->who.gid,
                              .groups = p->who.groups,
                              .group_count = p->who.group_count,
                              .pid = p->pid,
                              .start = p->start});
}

static void on_listen_again(void *context) {
    struct broker *b = context;
    for (int i = 0; i < 2; i++)
        if (b->doors[i].watch) loop_again(b->loop, b->doors[i].watch);
}

/* The turn that it begins has done it already (broker_turn). */
static void on_tell_again(void *context) { (void)context; }

/* ---- deaths and declarations ---- */

static void on_death(void *context, int result, const void *data) {
    struct death_watch *d = context;
    struct broker *b = d->broker;
    (void)data;
    if (result < 0 || !proc_has_died(d->pidfd)) { /* a spurious wake proves nothing */
        loop_again(b->loop, d->watch);
        return;
    }
    char fate[48];
    const struct interp *in = &b->state.interps[d->slot];
    proc_fate(in->pid, d->pidfd, fate, sizeof fate);
    b->fate = fate;
    handle(b, &(struct event){.kind = EVENT_DEATH, .slot = d->slot, .id = in->id});
    b->fate = NULL;
}

static void unwatch(struct broker *b, uint32_t slot) {
    struct death_watch *d = &b->deaths[slot];
    if (!d->watch) return;
    loop_stop(b->loop, d->watch);
    close(d->pidfd);
    d->watch = NULL;
}

static void watch(struct broker *b, uint32_t slot, int pidfd) {
    struct death_watch *d = &b->deaths[slot];
    unwatch(b, slot);
    *d = (struct death_watch){.broker = b, .slot = slot, .pidfd = pidfd};
    d->watch = loop_poll(b->loop, pidfd, POLLIN, on_death, d);
}

/* The connection's own pidfd stays with it: it may leave and join again. */
static int watch_peer(struct broker *b, uint32_t slot, uint64_t conn) {
    struct peer *p = peer_of(b, conn);
    int pidfd = p ? fcntl(p->pidfd, F_DUPFD_CLOEXEC, 3) : -1;
    if (pidfd < 0) return xi_fail_errno(p ? errno : ENOENT, "cannot watch your process");
    watch(b, slot, pidfd);
    return 0;
}

static void set_settle_timer(struct broker *b) {
    int64_t at = 0;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++)
        if (b->settle_at[i] && (!at || b->settle_at[i] < at)) at = b->settle_at[i];
    b->settle.at = at;
}

/* What it says may have come while something else took long here: its silence is judged when that is read. */
static bool has_said_more(struct broker *b, uint32_t slot) {
    struct peer *p = b->state.interps[slot].conn ? peer_of(b, b->state.interps[slot].conn) : NULL;
    struct pollfd in = {.fd = p ? p->fd : -1, .events = POLLIN};
    return poll(&in, 1, 0) > 0 && in.revents & POLLIN;
}

/*
 * Pid and start time outlive execve(2), a connection and mappings do not: who lives and is not connected is looked at until it
 * is back. Not at once, since that is the usual case.
 */
static void on_absent(void *context) {
    struct broker *b = context;
    bool left = false;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        const struct interp *in = &b->state.interps[i];
        if (!is_absent(in)) continue;
        left = true;
        if (!world_left_behind(&b->world, in)) continue;
        b->fate = "goes on as another program";
        handle(b, &(struct event){.kind = EVENT_DEATH, .slot = i, .id = in->id});
        b->fate = NULL;
    }
    world_trim(&b->world);
    if (left) b->absent.at = loop_now() + ABSENT_NS;
}

static void on_settle(void *context) {
    struct broker *b = context;
    int64_t now = loop_now();
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        if (!b->settle_at[i] || b->settle_at[i] > now) continue;
        if (has_said_more(b, i)) {
            b->settle_at[i] = now + 10 * MS;
            continue;
        }
        b->settle_at[i] = 0;
        bool knows = world_joined(&b->world, &b->state.interps[i]);
        handle(b, &(struct event){.kind = EVENT_SETTLED, .slot = i, .id = b->state.interps[i].id, .number = knows});
    }
    set_settle_timer(b);
}

/* ---- replies ---- */

static uint64_t outstanding(struct broker *b) {
    recover_sweep_now(&b->recover);
    uint64_t blocks = xi_load_relaxed(&b->world.registry->outstanding);
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        if (b->state.interps[i].life != INTERP_LIVE) continue;
        blocks += world_blocks(&b->world, &b->state.interps[i]);
        world_trim(&b->world);
    }
    return blocks;
}

/* Descriptors that go with an answer: what has just been made, else opened anew. */
static int gather(struct broker *b, const struct action *a, int fds[XI_WIRE_FDS], unsigned *count) {
    int rc = 0;
    *count = 0;
    if (a->reply.op == XI_OP_JOIN && (rc = world_open(&b->world, 0, false, &fds[0])) == 0) *count = 1;
    for (unsigned i = 0; i < b->made_count; i++) fds[(*count)++] = b->made[i];
    if (b->made_count) {
        b->made_count = 0;
        return rc;
    }
    uint32_t numbers[2] = {0, 0};
    bool writable = true;
    if (a->reply.op == XI_OP_JOIN) {
        numbers[0] = (uint32_t)a->reply.c;
        numbers[1] = (uint32_t)a->reply.d;
    } else if (a->reply.op == XI_OP_OPEN) {
        numbers[0] = (uint32_t)a->reply.b;
    } else if (a->reply.op == XI_OP_ARENA || a->reply.op == XI_OP_BORROWS) { /* made before, by another broker */
        numbers[0] = (uint32_t)a->reply.a;
        numbers[1] = a->reply.op == XI_OP_ARENA ? (uint32_t)a->reply.a + 1 : 0;
    } else if (a->reply.op == XI_OP_SEGMENT) {
        numbers[0] = (uint32_t)a->reply.a;
        writable = a->reply.segment_kind != XI_SEG_ARENA;
    } else if (a->reply.op == XI_OP_OBSERVE) {
        rc = world_open(&b->world, (uint32_t)a->reply.a, false, &fds[0]);
        *count = rc == 0;
    }
    for (unsigned i = 0; i < 2 && numbers[i] && rc == 0; i++) {
        rc = world_open(&b->world, numbers[i], writable, &fds[*count]);
        *count += rc == 0;
    }
    return rc;
}

/* Their consequences come later in the same step or after it; whoever reads the answer is to see them. */
static bool is_late(const struct action *a) {
    return a->reply.status == 0 &&
           (a->reply.op == XI_OP_CLOSE || a->reply.op == XI_OP_LEAVE || a->reply.op == XI_OP_UNREF ||
            a->reply.op == XI_OP_RING_DROP);
}

static void send_later(struct broker *b, uint64_t conn, const struct xi_reply *reply) {
    if (b->late_count == b->late_capacity) {
        b->late_capacity = b->late_capacity ? b->late_capacity * 2 : 4;
        b->late = memory_or_die(b->late, b->late_capacity, sizeof *b->late);
    }
    b->late[b->late_count++] = (struct late){conn, *reply};
}

static int reply(struct broker *b, const struct action *a) {
    struct xi_reply r = {.magic = XI_WIRE_MAGIC,
                         .version = XI_WIRE_VERSION,
                         .op = a->reply.op,
                         .serial = a->reply.serial,
                         .status = a->reply.status,
                         .a = a->reply.a,
                         .b = a->reply.b,
                         .c = a->reply.c,
                         .d = a->reply.d};
    int fds[XI_WIRE_FDS] = {-1, -1, -1}, rc = 0;
    unsigned count = 0;
    if (r.status < 0) {
        memcpy(r.text, b->state.words, sizeof r.text);
        if (r.status == XI_E_QUOTA || r.status == XI_E_NOSPACE || r.status == XI_E_LIMIT)
            log_line("refused: %s", r.text);
    } else if (r.op == XI_OP_STATS) {
        r.c = outstanding(b);
        r.d += b->world.registry_size;
    } else if (r.op == XI_OP_REMOVE) {
        r.a = b->removed_depth;
    } else {
        rc = gather(b, a, fds, &count);
    }
    if (rc == 0) {
        if (is_late(a))
            send_later(b, a->conn, &r);
        else
            send_to(b, a->conn, &r, fds, count);
    }
    for (unsigned i = 0; i < count; i++) close(fds[i]);
    return rc;
}

static void notify(struct broker *b, uint64_t conn, uint16_t op) {
    struct xi_reply r = {.magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .op = op};
    send_to(b, conn, &r, NULL, 0);
}

/* ---- actions ---- */

static void begin_stop(struct broker *b, const char *why) {
    if (b->stopping) return;
    b->stopping = true;
    snprintf(b->last_words, sizeof b->last_words, "%s", why);
}

static int make(struct broker *b, const struct action *a) {
    int rc;
    b->made[0] = b->made[1] = -1;
    switch (a->kind) {
    case ACTION_MAKE_INTERP: rc = world_make_interp(&b->world, &b->state, a->slot, a->request, b->made); break;
    case ACTION_MAKE_CHANNEL: rc = world_make_channel(&b->world, &b->state, a->index, a->request, b->made); break;
    case ACTION_MAKE_ARENA: rc = world_make_arena(&b->world, &b->state, a->slot, a->number, a->size, b->made); break;
    case ACTION_MAKE_PART:
        rc = world_make_part(&b->world, &b->state, a->index, a->number, a->size, a->request, b->made);
        rings_watch(&b->rings);
        break;
    default: rc = world_make_borrows(&b->world, &b->state, a->slot, a->number, a->size, b->made); break;
    }
    b->made_count = b->made[1] >= 0 ? 2 : 1;
    if (rc == 0 && a->kind == ACTION_MAKE_INTERP) {
        b->joined_once = true;
        log_more("interpreter %lld \"%.31s\" (pid %d, %.31s) joined", (long long)b->state.interps[a->slot].id,
                 a->request->name, b->state.interps[a->slot].pid, a->request->text);
    }
    return rc;
}

/* A dead interpreter may leave thousands of these at once: they are worked off in slices. */
static void check_later(struct broker *b, uint64_t channel) {
    if (b->check_count == b->check_capacity) {
        b->check_capacity = b->check_capacity ? b->check_capacity * 2 : 64;
        b->checks = memory_or_die(b->checks, b->check_capacity, sizeof *b->checks);
    }
    b->checks[b->check_count++] = channel;
}

static struct xi_acks_view table_at(struct broker *b, const struct chan *ch, uint32_t i) {
    struct xi_acks_view v = {.number = ch->parts[i].number};
    if (ch->parts[i].kind == XI_SEG_ACKS) v.acks = world_acks(&b->world, v.number, ch->segment, &v.window);
    return v;
}

/* True if somebody may be reading what was received from this channel, and its tables say so. */
static bool read_on(struct broker *b, const struct chan *ch) {
    for (uint32_t i = 0; i < ch->part_count; i++) {
        struct xi_acks_view v = table_at(b, ch, i);
        if (v.acks && xi_acks_linger(&v)) return true;
    }
    return false;
}

/* True if a channel that nobody has open has something in it for whoever opens it. */
static bool holds(struct broker *b, const struct chan *ch) {
    struct xi_chan_view view;
    bool empty;
    if (!world_glance(&b->world, ch, &empty)) {
        if (!world_view(&b->world, ch, &view) || !world_sound(&b->world, ch)) return false;
        empty = xi_channel_empty(&view);
    }
    return !empty || read_on(b, ch);
}

static void check_channel(struct broker *b, uint64_t id) {
    int64_t index = state_channel_index(&b->state, id);
    if (index < 0 || b->state.chans[index].handles) return; /* gone, or opened again meanwhile */
    if (!b->state.chans[index].removed && holds(b, &b->state.chans[index])) return;
    handle(b, &(struct event){.kind = EVENT_EMPTY, .channel = id});
}

/* True if an interpreter with this id is here, perhaps about to use what it asked for. */
static bool may_use(const struct broker *b, int64_t maker) {
    return table_find(&b->state.ids, (uint64_t)maker) != NULL;
}

static void check_parts(struct broker *b, uint64_t id) {
    int64_t index = state_channel_index(&b->state, id);
    struct xi_chan_view view;
    if (index < 0 || !world_view(&b->world, &b->state.chans[index], &view)) return;
    const struct chan *ch = &b->state.chans[index];
    for (uint32_t i = 0; i < ch->part_count; i++) {
        struct xi_acks_view v = table_at(b, ch, i);
        const struct part *p = &ch->parts[i];
        bool unused = v.acks && xi_acks_unused(&view, &v, may_use(b, p->maker));
        if (p->kind == XI_SEG_RING) unused = !p->filling && world_ring_idle(&b->world, ch, p->number);
        if (unused)
            handle(b, &(struct event){.kind = EVENT_PART_UNUSED, .channel = id, .number = p->number});
    }
}

/* Carries out one action. Negative: it failed, and the sentence is in xi_error_text(). */
static int perform(struct broker *b, const struct action *a) {
    struct world *w = &b->world;
    switch (a->kind) {
    case ACTION_REPLY: return reply(b, a);
    case ACTION_NOTIFY: notify(b, a->conn, a->reply.op); break;
    case ACTION_DROP: drop(b, a->conn); break;
    case ACTION_MAKE_INTERP:
    case ACTION_MAKE_CHANNEL:
    case ACTION_MAKE_ARENA:
    case ACTION_MAKE_PART:
    case ACTION_MAKE_BORROWS: return make(b, a);
    case ACTION_REMOVE: world_remove(w, a->number, true); break;
    case ACTION_NOTE: world_note_opened(w, a->slot, a->index, a->rights); break;
    case ACTION_FORGET: world_forget_opened(w, &b->state, a->index); break;
    case ACTION_CLEAR_CHANNEL: world_clear_channel(w, a->index); break;
    case ACTION_CLEAR_SLOT: world_set_slot(w, a->slot, XI_SLOT_FREE); break;
    case ACTION_ORPHAN_SLOT: world_set_slot(w, a->slot, XI_SLOT_ORPHAN); break;
    case ACTION_PUBLISH: world_publish_slot(w, &b->state, a->slot); break;
    case ACTION_PUBLISH_CHAN: world_publish_channel(w, &b->state, a->index); break;
    case ACTION_TELL_PEERS: world_tell_peers(w, &b->state, a->index); break;
    case ACTION_END_CHANNEL:
        world_publish_channel(w, &b->state, a->index); /* the next broker goes on with it, should this one die */
        b->removed_depth = recover_end_channel(&b->recover, a->channel);
        world_ring_callers(w, &b->state, a->index);
        break;
    case ACTION_WATCH: return watch_peer(b, a->slot, a->conn);
    case ACTION_UNWATCH:
        b->settle_at[a->slot] = 0;
        unwatch(b, a->slot);
        break;
    case ACTION_TELL_END:
        xi_store_release(&w->registry->slots[a->slot].told_end, 1);
        world_flag(w, a->slot, XI_MAIL_END);
        break;
    case ACTION_REPAIR: recover_begin(&b->recover, a->slot, b->fate); break;
    case ACTION_COLLECT: recover_sweep(&b->recover); break;
    case ACTION_CHECK: check_later(b, a->channel); break;
    case ACTION_CHECK_PARTS: check_parts(b, a->channel); break;
    case ACTION_SETTLE:
        b->settle_at[a->slot] = loop_now() + SETTLE_NS;
        set_settle_timer(b);
        break;
    case ACTION_SHUTDOWN: begin_stop(b, "shut down"); break;
    }
    return 0;
}

static void discard_made(struct broker *b) {
    for (unsigned i = 0; i < b->made_count; i++)
        if (b->made[i] >= 0) close(b->made[i]);
    b->made_count = 0;
}

static void step(struct broker *b, const struct event *event) {
    state_step(&b->state, event);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < b->state.action_count; i++) {
        struct action a = b->state.actions[i];
        rc = perform(b, &a);
    }
    if (rc == 0) return;
    discard_made(b);
    char words[sizeof b->state.words];
    snprintf(words, sizeof words, rc == XI_E_NOMEM ? "the broker: %s" : "%s", xi_error_text(rc));
    state_step(&b->state, &(struct event){.kind = EVENT_FAILED, .status = rc, .text = words});
    for (uint32_t i = 0; i < b->state.action_count; i++) {
        struct action a = b->state.actions[i];
        (void)perform(b, &a); /* what takes a decision back makes nothing, so it cannot fail */
    }
}

/* For recovery, which is in the middle of its lists: only handled when it has returned. */
static void enqueue(void *context, const struct event *event) {
    struct broker *b = context;
    if (b->queue_count == b->queue_capacity) {
        b->queue_capacity = b->queue_capacity ? b->queue_capacity * 2 : 16;
        b->queue = memory_or_die(b->queue, b->queue_capacity, sizeof *b->queue);
    }
    b->queue[b->queue_count++] = *event;
}

static void consider_leaving(struct broker *b);

static void step_queued(struct broker *b) {
    while (b->queue_at < b->queue_count) {
        struct event event = b->queue[b->queue_at++];
        step(b, &event);
    }
    b->queue_at = b->queue_count = 0;
}

static void check_slice(struct broker *b) {
    int64_t until = b->check_at < b->check_count ? loop_now() + SLICE_NS : 0;
    while (b->check_at < b->check_count) {
        check_channel(b, b->checks[b->check_at++]);
        step_queued(b);
        world_trim(&b->world);
        if (b->check_at < b->check_count && loop_now() > until) {
            b->check.at = until; /* due already: after what else waits */
            return;
        }
    }
    if (b->check_count > 1000) malloc_trim(0); /* so much came back at once that the system should have it */
    b->check_at = b->check_count = 0;
}

/* Works off what is queued, then sends the answers that waited for it. */
static void drain(struct broker *b) {
    b->handling = true;
    do {
        step_queued(b);
        check_slice(b);
        for (size_t i = 0; i < b->late_count; i++) send_to(b, b->late[i].conn, &b->late[i].reply, NULL, 0);
        b->late_count = 0;
    } while (b->queue_count);
    b->handling = false;
    world_trim(&b->world);
    consider_leaving(b);
}

static void on_check(void *context) { drain(context); }

/* One event and everything that follows from it. Only events without pointers may come up while another is handled. */
static void handle(struct broker *b, const struct event *event) {
    enqueue(b, event);
    if (!b->handling) drain(b);
}

/* ---- leaving ---- */

static void restart_leave_timer(struct broker *b) {
    b->alone = false;
    b->leave.at = 0;
    consider_leaving(b);
}

/* An --auto broker that is alone leaves after a while: short, or long while values wait undelivered. */
static void consider_leaving(struct broker *b) {
    if (!b->options.automatic || b->stopping) return;
    bool alone = b->state.live + b->state.dying == 0;
    if (!alone) b->leave.at = 0;
    if (alone && (!b->alone || !b->state.chan_count)) {
        int64_t linger = b->options.linger_ns > GRACE_NS || b->options.linger_ns < 0 ? b->options.linger_ns : GRACE_NS;
        int64_t wait = !b->joined_once ? FIRST_JOIN_NS : !b->state.chan_count ? GRACE_NS : linger;
        int64_t at = wait < 0 ? 0 : loop_now() + wait;
        if (!b->leave.at || !at || at < b->leave.at) b->leave.at = at;
    }
    b->alone = alone;
}

static void on_leave(void *context) {
    struct broker *b = context;
    struct pollfd p[2] = {{.fd = b->doors[0].fd, .events = POLLIN}, {.fd = b->doors[1].fd, .events = POLLIN}};
    if (poll(p, 2, 0) > 0) { /* somebody is just coming */
        restart_leave_timer(b);
        return;
    }
    char why[sizeof b->last_words];
    uint32_t n = b->state.chan_count;
    if (n)
        snprintf(why, sizeof why, "nobody came for %.3g s: dropped %u channel%s with undelivered values",
                 (double)b->options.linger_ns / 1e9, n, n == 1 ? "" : "s");
    else
        snprintf(why, sizeof why, "the last interpreter has gone");
    begin_stop(b, why);
}

/* ---- beginning and end ---- */

static int watch_adopted(struct broker *b) {
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        const struct interp *in = &b->state.interps[i];
        if (in->life != INTERP_LIVE) continue;
        int pidfd = proc_open(in->pid, in->start);
        if (pidfd >= 0) {
            watch(b, i, pidfd);
            b->absent.at = loop_now() + ABSENT_NS;
            continue;
        }
        if (errno != ESRCH && errno != ENOENT) return xi_fail_errno(errno, "cannot watch the interpreters that live");
        b->fate = "died while there was no broker";
        handle(b, &(struct event){.kind = EVENT_DEATH, .slot = i, .id = in->id});
        b->fate = NULL;
    }
    return 0;
}

static void sign_registry(struct broker *b, bool adopted) {
    struct xi_registry *r = b->world.registry;
    r->broker_pid = getpid();
    (void)proc_start(getpid(), &r->broker_start);
    xi_store_release(&r->broker_life, adopted ? xi_load_relaxed(&r->broker_life) + 1 : 1u);
    xi_store_release(&r->state, (uint32_t)XI_NS_RUNNING);
}

static int make_namespace(struct broker *b) {
    const struct broker_options *o = &b->options;
    return world_create(&b->world, o->ns, geteuid(), o->memfd, o->open ? o->open_to : NULL);
}

int broker_init(struct broker *b, const struct broker_options *options) {
    uint64_t seed = 0;
    const char *why;
    *b = (struct broker){.options = *options, .next_conn = 1, .doors = {{b, -1, NULL}, {b, -1, NULL}}};
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) return xi_fail_errno(errno, "getrandom");
    b->loop = loop_new(options->wait, &why);
    if (!b->loop) return xi_fail(XI_E_SYSTEM, "XI_WAIT=uring was asked for, but %s", why);
    if (why[0]) log_more("waiting in poll(2): %s", why);
    loop_timer(b->loop, &b->settle, on_settle, b);
    loop_timer(b->loop, &b->absent, on_absent, b);
    loop_timer(b->loop, &b->leave, on_leave, b);
    loop_timer(b->loop, &b->check, on_check, b);
    loop_timer(b->loop, &b->listen_again, on_listen_again, b);
    loop_timer(b->loop, &b->tell_again, on_tell_again, b);
    state_init(&b->state, &options->limits, seed);
    if (options->open) state_open(&b->state, geteuid(), &options->other_limits);
    recover_init(&b->recover, &b->state, &b->world, b->loop, enqueue, b);
    rings_init(&b->rings, &b->state, &b->world, b->loop, enqueue, b);
    int adopted = world_adopt(&b->world, options->ns, geteuid(), &b->state);
    b->found = adopted > 0;
    int rc = adopted < 0 ? adopted : adopted == 1 ? 0 : make_namespace(b);
    if (rc) return rc;
    sign_registry(b, adopted == 1);
    if (adopted != 1) return 0;
    b->joined_once = true;
    if (options->open && !b->world.memfd)
        return xi_fail(XI_E_ACCESS, "the namespace exists and is private: let its interpreters leave, or remove it with "
                       "xi doctor --fix, and then open a new one");
    if (options->memfd && !b->world.memfd) log_line("the namespace exists with named segments, and keeps them: --memfd is for new ones");
    log_line("adopted namespace \"%s\" (life %u): %u interpreters, %u gone whose values wait, %u channels, %llu bytes",
             options->ns, xi_load_relaxed(&b->world.registry->broker_life), b->state.live, b->state.orphans,
             b->state.chan_count, (unsigned long long)b->state.bytes);
    recover_adopted(&b->recover);
    rings_watch(&b->rings);
    if ((rc = watch_adopted(b))) return rc;
    if (b->state.orphans) recover_sweep(&b->recover);
    handle(b, &(struct event){.kind = EVENT_ADOPTED});
    return 0;
}

void broker_listen(struct broker *b, int fd, int open_fd) {
    b->doors[0].fd = fd;
    b->doors[1].fd = open_fd;
    for (int i = 0; i < 2; i++)
        if (b->doors[i].fd >= 0) b->doors[i].watch = loop_accept(b->loop, b->doors[i].fd, on_accept, &b->doors[i]);
    restart_leave_timer(b);
}

void broker_turn(struct broker *b) {
    if (b->queue_count) drain(b);
    if (b->stopping) return;
    if (!keep_settle()) b->tell_again.at = loop_now() + 20 * MS;
    loop_turn(b->loop);
    if (b->queue_count) drain(b);
}

void broker_stop(struct broker *b, const char *why) {
    begin_stop(b, why);
    handle(b, &(struct event){.kind = EVENT_SHUTDOWN});
}

static void tell_everybody(struct broker *b) {
    xi_store_release(&b->world.registry->state, (uint32_t)XI_NS_SHUTDOWN);
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        const struct interp *in = &b->state.interps[i];
        if (in->life != INTERP_LIVE) continue;
        world_flag(&b->world, i, XI_MAIL_SHUTDOWN);
        if (in->conn) notify(b, in->conn, XI_EV_SHUTDOWN);
        world_trim(&b->world);
    }
}

static void close_everything(struct broker *b) {
    uint64_t conn, peer;
    for (int i = 0; i < 2; i++) loop_stop(b->loop, b->doors[i].watch);
    for (uint32_t at = 0; table_next(&b->peers, &at, &conn, &peer);) peer_free((struct peer *)(uintptr_t)peer);
    table_clear(&b->peers);
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) unwatch(b, i);
}

void broker_deinit(struct broker *b) {
    if (b->loop) {
        b->stopping = true;
        uint64_t blocks = outstanding(b);
        tell_everybody(b);
        close_everything(b);
        log_line("%s; served %llu interpreter%s, %llu blocks outstanding, %llu bytes peak",
                 b->last_words[0] ? b->last_words : "ended", (unsigned long long)b->state.served,
                 b->state.served == 1 ? "" : "s", (unsigned long long)blocks,
                 (unsigned long long)(b->state.bytes_peak + b->world.registry_size));
    }
    world_remove_all(&b->world, &b->state);
    recover_deinit(&b->recover);
    rings_deinit(&b->rings);
    if (b->loop) loop_free(b->loop);
    world_deinit(&b->world);
    state_deinit(&b->state);
    free(b->queue);
    free(b->late);
    free(b->checks);
}
