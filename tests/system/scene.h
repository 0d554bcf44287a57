/* SPDX-License-Identifier: MIT */
/*
 * Channels in mid-use, of each kind there is, and which words of them and of
 * their users a hostile member may write. A scene has values under way, blocks
 * held, deliveries out and lingering, a request unserved and one taken, members
 * of a set armed. Two interpreters of one process use it; a second channel of
 * theirs, the neighbour, is the one that must not be harmed.
 */
#ifndef XI_TEST_SCENE_H
#define XI_TEST_SCENE_H

#include <inttypes.h>
#include <stdbool.h>

#include "channel/ack.h"
#include "channel/call.h"
#include "channel/set.h"
#include "harness.h"
#include "spoil.h"


enum kind { QUEUE, KEEPING, ACKING, GROWN, CALLED, KINDS };
static const char *const kind_names[] = {"queue", "keeping", "acking", "grown", "called"};

struct scene {
    enum kind kind;
    char name[40];
    xi_channel *out, *in, *other; /* other: a group of its own, where there may be one */
    xi_msg held[4], reply;
    xi_pending call;
    xi_set *set;
};
static xi_interp *sender, *receiver;
static xi_channel *near_out, *near_in; /* the channel that must not be harmed */
static uint64_t small_value[8], large_value[700];
static size_t small_size, large_size;

#define WINDOW 8

static inline xi_open_opts terms_of(enum kind kind, const char *letters) {
    xi_open_opts o = {.capacity = XI_CAPACITY_MIN};
    if (kind == KEEPING) {
        o.mode = XI_BROADCAST;
        o.retain = 3;
        o.values = 8;
        o.ttl_ns = 3600 * SECOND;
        o.when_full = XI_FULL_DROP;
        o.dead = letters;
    }
    if (kind == GROWN) o.grow = 8 * XI_CAPACITY_MIN;
    return o;
}

/* A ring that has to grow waits for the broker, which may have much to do. */
static inline void scene_fill(struct scene *s) {
    int64_t patience = s->kind == GROWN ? 20 * SECOND : XI_TRY;
    for (int i = 0; i < (s->kind == GROWN ? 100 : 4); i++) must(xi_send(s->out, small_value, small_size, patience));
    must(xi_send(s->out, large_value, large_size, patience));
    must(xi_send(s->out, small_value, small_size, patience));
}

/* A member of the set that has nothing to receive: whoever sends next claims its bit, and rings. */
static inline void scene_arm(struct scene *s) {
    xi_msg m = XI_MSG_INIT;
    xi_event events[4];
    while (xi_recv(s->other, &m, XI_TRY) == 0) continue;
    xi_msg_release(&m);
    must(xi_set_add(s->set, s->other, XI_READY_RECV, 2, 1));
    (void)!xi_set_wait(s->set, events, 4, XI_TRY);
}

static inline void scene_begin(struct scene *s, enum kind kind, uint64_t number) {
    static const xi_group_opts temporary = {.flags = XI_GROUP_TEMPORARY};
    char letters[48];
    *s = (struct scene){.kind = kind, .reply = XI_MSG_INIT, .call = XI_PENDING_INIT};
    for (int i = 0; i < 4; i++) s->held[i] = (xi_msg)XI_MSG_INIT;
    snprintf(s->name, sizeof s->name, "words-%" PRIu64, number);
    snprintf(letters, sizeof letters, "letters-%d", (int)getpid());
    xi_open_opts o = terms_of(kind, letters), r = o;
    o.flags = XI_OPEN_SEND;
    s->out = open_with(sender, s->name, &o);
    xi_group_opts acks = {.flags = XI_GROUP_ACK, .window = WINDOW, .max_deliveries = 2, .dead = letters, .timeout_ns = 60 * SECOND};
    if (kind == ACKING) r.group_opts = &acks;
    if (kind == KEEPING) r.group = "named";
    s->in = open_with(receiver, s->name, &r);
    r.group_opts = &temporary;
    r.group = NULL;
    if (kind != GROWN) s->other = open_with(receiver, s->name, &r);
    must(xi_send(s->out, large_value, large_size, 20 * SECOND)); /* what lies at the head, and is then held, is a block */
    scene_fill(s);
    must(xi_recv(s->in, &s->held[0], XI_TRY));
    must(xi_recv(s->in, &s->held[1], XI_TRY));
    if (kind == ACKING) {
        must(xi_recv(s->in, &s->held[2], XI_TRY));
        must(xi_nack(&s->held[1], 0));
        must(xi_ack_keep(&s->held[0])); /* lingers */
        must(xi_recv(s->in, &s->held[1], XI_TRY));
    }
    must(xi_call_begin(s->out, small_value, small_size, 20 * SECOND, &s->call));
    if (kind == CALLED) {
        xi_msg m = XI_MSG_INIT;
        while (!xi_msg_is_call(&s->held[2])) {
            int64_t rc = xi_recv(s->in, &s->held[2], XI_TRY);
            must(rc);
        }
        xi_msg_release(&m);
    }
    must(xi_set_new(receiver, &s->set));
    must(xi_set_add(s->set, s->in, XI_READY_RECV | XI_READY_SEND, 1, 0));
    if (s->other) scene_arm(s);
}

/* ------------------------------------------------------------- the targets */

enum place { CHANNEL, LANE, RING, ACKS, RELEASE, MAIL_OF_RECEIVER, MAIL_OF_SENDER, PLACES };
static const char *const place_names[] = {"channel", "lane", "ring", "acks", "release words", "receiver's mailbox",
                                          "sender's mailbox"};

/* Words [from, to) of a place; of each every value, or the first twelve alone where hundreds of words are alike. */
struct range {
    enum place place;
    size_t from, to;
    unsigned values;
};
#define FEW 12
#define CH(field) offsetof(struct xi_chan, field)
#define GROUP(g) (CH(groups) + (g) * sizeof(struct xi_group))
#define MB(field) offsetof(struct xi_mailbox, field)

static const struct range common[] = {
    {CHANNEL, 0, CH(waiters), SPOILS},
    {CHANNEL, CH(waiters), GROUP(0), FEW},
    {CHANNEL, GROUP(0), GROUP(2), SPOILS},
    {CHANNEL, GROUP(2), GROUP(XI_MAX_GROUPS - 1), 2},
    {CHANNEL, GROUP(XI_MAX_GROUPS - 1), GROUP(XI_MAX_GROUPS), SPOILS},
};
static const struct range rings[] = {
    {RING, 0, 64 * 8, SPOILS}, /* where the first records lie */
    {RING, 64 * 8, XI_CAPACITY_MIN, FEW},
};
static const struct range of_queue[] = {
    {RELEASE, 0, 64, SPOILS},
    {RELEASE, XI_PAGE, XI_PAGE + 16 * sizeof(struct xi_release), SPOILS},
};
static const struct range of_acks[] = {{ACKS, 0, XI_ACKS_SIZE(WINDOW) < 1024 ? XI_ACKS_SIZE(WINDOW) : 1024, SPOILS}};
static const struct range of_calls[] = {
    {LANE, 0, CH(waiters) + 64, SPOILS},
    {LANE, GROUP(0), GROUP(1), SPOILS},
    {LANE, XI_RING_OFFSET, XI_RING_OFFSET + 256, SPOILS},
    {MAIL_OF_RECEIVER, 0, MB(bells) + 4 * sizeof(struct xi_bell), SPOILS},
    {MAIL_OF_RECEIVER, MB(bells) + 4 * sizeof(struct xi_bell), MB(ready_words), 2},
    {MAIL_OF_RECEIVER, MB(ready_words), MB(ready) + 64, SPOILS},
    {MAIL_OF_RECEIVER, MB(ready) + 64, MB(calls), 2},
    {MAIL_OF_SENDER, MB(calls), MB(calls) + 8 * XI_MAX_CALLS, FEW},
    {MAIL_OF_SENDER, MB(calls), MB(calls) + 16, SPOILS},
};
#define LIST(list) {list, sizeof list / sizeof *list}
struct ranges {
    const struct range *list;
    size_t count;
};
static const struct ranges ranges_of[KINDS][3] = {
    [QUEUE] = {LIST(common), LIST(rings), LIST(of_queue)}, [KEEPING] = {LIST(common), LIST(rings)},
    [ACKING] = {LIST(common), LIST(rings), LIST(of_acks)}, [GROWN] = {LIST(common), LIST(rings)},
    [CALLED] = {LIST(common), LIST(rings), LIST(of_calls)},
};

static inline uint8_t *scene_place(const struct scene *s, enum place place, uint64_t *size) {
    *size = XI_CAPACITY_MIN;
    switch (place) {
    case CHANNEL: return (uint8_t *)s->out->chan;
    case LANE: *size = sender->calls->lane->home.capacity; return (uint8_t *)sender->calls->lane->chan;
    case RING: *size = s->out->send_view.capacity; return s->out->send_view.ring;
    case ACKS: *size = WINDOW; return (uint8_t *)s->in->ack->acks;
    case RELEASE: return (uint8_t *)sender->arena.segments->entry->release.base;
    case MAIL_OF_RECEIVER: return (uint8_t *)receiver->mailbox;
    default: return (uint8_t *)sender->mailbox;
    }
}

/* ------------------------------------------------------ those who use them */

static inline void scene_values(void) {
    small_size = encode_padded(small_value, sizeof small_value, 1, 8);
    large_size = encode_padded(large_value, sizeof large_value, 2, 4500);
}

static inline void join_both(const char *space) {
    char name[32];
    sender = join_ns(space, "sender", XI_JOIN_NO_SPIN);
    receiver = join_ns(space, "receiver", XI_JOIN_NO_SPIN);
    snprintf(name, sizeof name, "near-%d", (int)getpid());
    near_out = open_queue(sender, name);
    near_in = open_queue(receiver, name);
    scene_values();
    xi_pending p = XI_PENDING_INIT; /* the sender's lane is there from now on */
    must(xi_call_begin(near_out, small_value, small_size, XI_TRY, &p));
    xi_call_cancel(&p);
    xi_msg m = XI_MSG_INIT;
    (void)!xi_recv(near_in, &m, XI_TRY);
    xi_msg_release(&m);
}

static inline void leave_both(void) {
    must(xi_channel_free(near_in));
    must(xi_channel_free(near_out));
    must(xi_leave(receiver));
    must(xi_leave(sender));
}

#endif
