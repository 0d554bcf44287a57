/* SPDX-License-Identifier: MIT */
/*
 * Deaths at chosen instructions of sends, receives, groups, rings, sets and calls:
 * see states.h.
 */

#include "channel/call.h"
#include "channel/set.h"
#include "states.h"

/* ---------------------------------------------- what the doomed one sees of the witness */

static bool lock_wanted(xi_a32 *lock_sleep) { return xi_load_full(lock_sleep) & 1; }

/* The number of an entry that sleeps on this side, or -1. */
static int sleeper_on(struct xi_chan *c, uint32_t side) {
    struct xi_mask *m = side == XI_SIDE_PRODUCERS ? &c->parked_senders : &c->groups[side - 1].parked;
    for (int i = 0; i < (int)XI_MAX_WAITERS; i++)
        if (xi_load_full(&m->word[i / 64]) >> (i % 64) & 1) return i;
    return -1;
}

static void start_witness_and_wait_for_lock(xi_a32 *lock_sleep) {
    start_witness();
    await(lock_wanted(lock_sleep), "the witness does not wait for the lock");
    see_witness_sleep();
}
static void start_witness_and_wait_for_sleep(xi_channel *ch, uint32_t side) {
    start_witness();
    await(sleeper_on(ch->chan, side) >= 0, "the witness does not park");
    see_witness_sleep();
}

/* --------------------------------------------------------------------- the deeds */

/* 2 to 4 of a send: the header is stored, the tail is not. */
static void store_header(xi_channel *ch, int64_t number) {
    must(xi_home_back(ch)); /* as any sender does */
    uint64_t w = xi_load_relaxed(&ch->chan->tail), seq = xi_load_relaxed(&ch->chan->tail_seq) + 1;
    xi_store_relaxed(xi_header_at(&ch->home, w + 8), XI_INT32 | (uint64_t)(uint32_t)number << 32);
    xi_store_relaxed(xi_header_at(&ch->home, w + 16), 0);
    xi_store_release(xi_header_at(&ch->home, w), XI_REC(8, XI_REC_INLINE, 0, seq));
}

/* A whole send of a reply, but for the look for sleepers. */
static void store_reply(xi_channel *lane, const struct xi_calling *c, uint64_t value) {
    must(xi_home_back(lane));
    uint64_t w = xi_load_relaxed(&lane->chan->tail), seq = xi_load_relaxed(&lane->chan->tail_seq) + 1;
    xi_store_relaxed(xi_header_at(&lane->home, w + 8), value);
    xi_store_relaxed(xi_header_at(&lane->home, w + 16), (uint64_t)c->ref.slot | (uint64_t)c->ref.index << 32);
    xi_store_relaxed(xi_header_at(&lane->home, w + 24), c->ref.generation);
    xi_store_relaxed(xi_header_at(&lane->home, w + 32), 0);
    xi_store_release(xi_header_at(&lane->home, w), XI_REC(24, XI_REC_INLINE, XI_REC_F_CALL, seq));
    xi_store_release(&lane->chan->tail_seq, seq);
    xi_store_release(&lane->chan->tail, w + 32);
}

static void send_without_ring(xi_channel *ch, int64_t number) {
    lock_producers(ch);
    store_header(ch, number);
    xi_store_release(&ch->chan->tail_seq, xi_load_relaxed(&ch->chan->tail_seq) + 1);
    xi_store_release(&ch->chan->tail, xi_load_relaxed(&ch->chan->tail) + 16);
    xi_unlock(ch->chan);
}

/* 1 of a receive of a block: the borrow entry. */
static void store_borrow(xi_channel *ch) {
    struct xi_descriptor d;
    uint32_t index;
    uint64_t head = xi_load_relaxed(&ch->group->head);
    memcpy(&d, xi_payload_at(&ch->home, head), sizeof d);
    must(xi_borrow_take(ch->interp, &index));
    struct xi_borrow *b = xi_borrow_at(ch->interp, index);
    xi_store_relaxed(&b->block, (uint64_t)d.segment << 32 | d.granule);
    xi_store_relaxed(&b->position, head);
    xi_store_relaxed(&b->chan_seg, ch->segment);
    xi_store_release(&b->key, XI_BORROW_KEY(d.generation, ch->group_index));
}

static void store_head(xi_channel *ch) {
    uint64_t head = xi_load_relaxed(&ch->group->head);
    xi_store_relaxed(&ch->group->head_seq, xi_load_relaxed(&ch->group->head_seq) + 1);
    xi_store_release(&ch->group->head, head + 8 + sizeof(struct xi_descriptor));
}

static void die_with_producers_lock(xi_channel *ch) {
    lock_producers(ch);
    start_witness_and_wait_for_lock(&ch->chan->lock_sleep);
    die();
}
/* Nobody is there to repair: who waits for the lock has to notice, and to start a broker. */
static void die_with_a_lock_and_the_broker(xi_channel *ch) {
    pid_t broker = broker_pid(ch->interp);
    lock_producers(ch);
    start_witness_and_wait_for_lock(&ch->chan->lock_sleep);
    must_sys(kill(broker, SIGKILL));
    expect(wait_end(broker, 10000), "the broker does not die");
    die();
}
static void die_after_header(xi_channel *ch) {
    start_witness_and_wait_for_sleep(ch, XI_SIDE_GROUP(0));
    lock_producers(ch);
    store_header(ch, 77);
    die();
}
static void die_before_ringing(xi_channel *ch) {
    start_witness_and_wait_for_sleep(ch, XI_SIDE_GROUP(0));
    send_without_ring(ch, 77);
    die();
}
static uint64_t claim_sleeper(xi_channel *ch, uint32_t side) {
    int i = sleeper_on(ch->chan, side);
    (void)xi_and_full(&ch->chan->groups[side - 1].parked.word[i / 64], ~((uint64_t)1 << (i % 64)));
    return xi_load_full(&ch->chan->waiters[i]);
}
static void die_after_claiming_the_bit(xi_channel *ch) {
    start_witness_and_wait_for_sleep(ch, XI_SIDE_GROUP(0));
    send_without_ring(ch, 77);
    (void)claim_sleeper(ch, XI_SIDE_GROUP(0));
    die();
}
static void die_after_claiming_the_bell(xi_channel *ch) {
    start_witness_and_wait_for_sleep(ch, XI_SIDE_GROUP(0));
    send_without_ring(ch, 77);
    uint64_t w = claim_sleeper(ch, XI_SIDE_GROUP(0));
    struct xi_map_entry *e;
    struct xi_mailbox *m = xi_mailbox_get(ch->interp, XI_WAITER_SLOT(w), &e);
    uint32_t parked = XI_BELL_PARKED;
    expect(m && xi_cas32_full(&m->bells[XI_WAITER_BELL(w)].state, &parked, XI_BELL_NOTIFIED),
           "the witness does not sleep");
    die();
}
/* Who waits by a set arms its members first, which may take a system call, and then parks its bell. */
static void see_bell_parked(xi_channel *ch) {
    uint64_t w = xi_load_full(&ch->chan->waiters[sleeper_on(ch->chan, XI_SIDE_GROUP(0))]);
    struct xi_map_entry *e;
    struct xi_mailbox *m = xi_mailbox_get(ch->interp, XI_WAITER_SLOT(w), &e);
    await(m && xi_load_full(&m->bells[XI_WAITER_BELL(w)].state) == XI_BELL_PARKED, "the witness does not park its bell");
    xi_mailbox_put(e);
}
/* What a waker does to a member of a set, as far as `steps`. The witness has armed it, and sleeps on the set's bell. */
static void die_marking_a_member(xi_channel *ch, int steps) {
    start_witness_and_wait_for_sleep(ch, XI_SIDE_GROUP(0));
    see_bell_parked(ch);
    send_without_ring(ch, 77);
    uint64_t w = claim_sleeper(ch, XI_SIDE_GROUP(0));
    uint32_t member = XI_WAITER_MEMBER(w) - 1, parked = XI_BELL_PARKED;
    expect(member < XI_MAX_MEMBERS, "the witness is in no set");
    struct xi_map_entry *e;
    struct xi_mailbox *m = xi_mailbox_get(ch->interp, XI_WAITER_SLOT(w), &e);
    if (steps > 0) (void)xi_or_full(&m->ready[member / 64], (uint64_t)1 << (member % 64));
    if (steps > 1) (void)xi_or_full(&m->ready_words[member / 4096], (uint64_t)1 << (member / 64 % 64));
    if (steps > 2) expect(xi_cas32_full(&m->bells[XI_WAITER_BELL(w)].state, &parked, XI_BELL_NOTIFIED), "it does not sleep");
    die();
}
static void die_after_claiming_a_member(xi_channel *ch) { die_marking_a_member(ch, 0); }
static void die_after_marking_a_member(xi_channel *ch) { die_marking_a_member(ch, 1); }
static void die_after_marking_its_word(xi_channel *ch) { die_marking_a_member(ch, 2); }
static void die_after_claiming_a_sets_bell(xi_channel *ch) { die_marking_a_member(ch, 3); }

/* The witness calls, and sleeps for the reply. */
static void await_request(xi_channel *ch) {
    start_witness();
    await(xi_load_acquire(xi_header_at(&ch->home, xi_load_relaxed(&ch->group->head))) != 0, "the witness does not call");
    see_witness_sleep();
}
static void die_after_noting_a_request(xi_channel *ch) {
    struct xi_call_ref ref;
    uint32_t index;
    await_request(ch);
    lock_group(ch);
    uint64_t head = xi_load_relaxed(&ch->group->head);
    expect(xi_call_ref_read(&ch->home, head, xi_load_relaxed(xi_header_at(&ch->home, head)), &ref), "no request");
    must(xi_borrow_take(ch->interp, &index));
    xi_call_note(ch, index, ch->group_index, &ref, head);
    die();
}
static void die_with_a_request(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    await_request(ch);
    must(xi_recv(ch, &m, XI_TRY));
    die();
}
/* The reply is sent, the note of the request is still there. */
static void die_after_replying(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    xi_channel *lane;
    char name[80];
    uint64_t five = XI_INT32 | (uint64_t)5 << 32;
    await_request(ch);
    must(xi_recv(ch, &m, XI_TRY));
    struct xi_calling c = {.ref = {XI_CALL_FROM_SLOT(m.call_from_), XI_CALL_FROM_INDEX(m.call_from_), m.call_}};
    xi_lane_name(xi_load_relaxed(&ch->interp->registry->slots[c.ref.slot].id), name);
    must(xi_open_inner(ch->interp, name, &(xi_open_opts){.flags = XI_OPEN_SEND | XI_OPEN_EXISTING}, &lane));
    must(xi_lock(lane, lane->chan, -1)); /* the last step of a send would wake the caller: that is owed */
    store_reply(lane, &c, five);
    xi_unlock(lane->chan);
    die();
}

static void die_before_waking_lock_waiters(xi_channel *ch) {
    lock_producers(ch);
    start_witness_and_wait_for_lock(&ch->chan->lock_sleep);
    xi_store_release(&ch->chan->lock, 0u);
    die();
}
static void die_with_group_lock(xi_channel *ch) {
    lock_group(ch);
    start_witness_and_wait_for_lock(&ch->group->lock_sleep);
    die();
}
static void die_after_borrow(xi_channel *ch) {
    lock_group(ch);
    start_witness_and_wait_for_lock(&ch->group->lock_sleep);
    store_borrow(ch);
    die();
}
static void die_after_head(xi_channel *ch) {
    lock_group(ch);
    start_witness_and_wait_for_lock(&ch->group->lock_sleep);
    store_borrow(ch);
    store_head(ch);
    die();
}
/* The ring is full for this one's own group alone, and the witness waits for room. */
static void die_owning_a_full_group(xi_channel *ch) {
    start_witness_and_wait_for_sleep(ch, XI_SIDE_PRODUCERS);
    die();
}
static void die_after_ending_the_group(xi_channel *ch) {
    start_witness_and_wait_for_sleep(ch, XI_SIDE_PRODUCERS);
    lock_producers(ch);
    lock_group(ch);
    (void)xi_and_full(&ch->chan->active, ~((uint64_t)1 << ch->group_index));
    die();
}

/* ------------------------------------------------------------------- moving the ring */

#define RING_BYTES ((uint64_t)1 << 20)

/* As ring.c does: asks for a ring, makes it memory, maps it. */
static struct xi_map_entry *reserve_ring(xi_channel *ch) {
    struct xi_request q;
    struct xi_reply r;
    struct xi_map_entry *e;
    int fd;
    xi_request_init(&q, XI_OP_RING);
    q.a = ch->id;
    q.b = RING_BYTES;
    must(xi_control_call(ch->interp, &q, &r, &fd, 1));
    must(xi_segment_reserve(fd, 0, XI_PAGE + RING_BYTES));
    must(xi_maps_ring(ch->interp, (uint32_t)r.a, ch->id, fd, &e));
    return e;
}

/* 1 and 2 of a move. */
static void copy_and_lock(xi_channel *ch, struct xi_map_entry *e) {
    lock_producers(ch);
    uint64_t tail = xi_load_relaxed(&ch->chan->tail), head = xi_load_relaxed(&ch->chan->groups[0].head);
    for (uint64_t at = head; at < tail + 8; at += 8)
        memcpy((uint8_t *)e->map.base + XI_PAGE + (at & (RING_BYTES - 1)), xi_header_at(&ch->home, at), 8);
    must(xi_lock(ch, &ch->chan->groups[0], -1));
}

static void die_with_a_ring(xi_channel *ch) {
    (void)reserve_ring(ch);
    start_witness_and_wait_for_sleep(ch, XI_SIDE_PRODUCERS);
    die();
}
static void die_before_the_move(xi_channel *ch) {
    copy_and_lock(ch, reserve_ring(ch));
    start_witness_and_wait_for_lock(&ch->chan->lock_sleep);
    die();
}
static void die_after_the_move(xi_channel *ch) {
    struct xi_map_entry *e = reserve_ring(ch);
    copy_and_lock(ch, e);
    xi_store_full(&ch->chan->ring, XI_RING(e->number, 20));
    start_witness_and_wait_for_lock(&ch->chan->lock_sleep);
    die();
}
static void die_with_the_move_untold(xi_channel *ch) {
    struct xi_map_entry *e = reserve_ring(ch);
    copy_and_lock(ch, e);
    xi_store_full(&ch->chan->ring, XI_RING(e->number, 20));
    xi_unlock(&ch->chan->groups[0]);
    xi_unlock(ch->chan);
    start_witness();
    die();
}

/* A join at the value that is there: its block is claimed for group 1, which is not active yet. */
static void die_while_joining(xi_channel *ch) {
    struct xi_descriptor d;
    struct xi_map_entry *e;
    struct xi_group *g = &ch->chan->groups[1];
    uint64_t head = xi_load_relaxed(&ch->group->head);
    lock_producers(ch);
    lock_group(ch);
    xi_store_relaxed(&g->head, head);
    xi_store_relaxed(&g->head_seq, xi_load_relaxed(&ch->group->head_seq));
    xi_store_full(&g->state, XI_GROUP_JOINING);
    memcpy(&d, xi_payload_at(&ch->home, head), sizeof d);
    must(xi_maps_release(ch->interp, d.segment, &e));
    struct xi_release *r = &((struct xi_release_table *)e->release.base)->release[d.granule];
    (void)xi_and_full(&r->word[0], ~XI_RELEASE_BIT(1));
    start_witness_and_wait_for_lock(&ch->group->lock_sleep);
    die();
}
/* The oldest value kept is given up, but the head of what is kept has not moved: its block may be somebody else's. */
static void die_while_giving_up(xi_channel *ch) {
    struct xi_descriptor d;
    struct xi_map_entry *e;
    lock_producers(ch);
    memcpy(&d, xi_payload_at(&ch->home, xi_load_relaxed(&ch->chan->groups[XI_GROUP_RETAIN].head)), sizeof d);
    must(xi_maps_release(ch->interp, d.segment, &e));
    expect(xi_release_bit(e, d.granule, d.generation, XI_GROUP_RETAIN), "it was given up before");
    start_witness_and_wait_for_lock(&ch->chan->lock_sleep);
    die();
}

/* ------------------------------------------------------------------- the witness */

static void sent_in_vain(xi_channel *ch) { (void)ch; }
static void one_block(xi_channel *ch) { send_block(ch, 1); }
static void two_blocks(xi_channel *ch) {
    send_block(ch, 1);
    send_block(ch, 2);
}
static void witness_send(xi_channel *ch) { must(xi_send_int(ch, 5, XI_FOREVER)); }

static void witness_receive(xi_channel *ch, int64_t number) {
    xi_msg m = XI_MSG_INIT;
    must(xi_recv(ch, &m, XI_FOREVER));
    expect(message_int(&m) == number, "value %lld came, not %lld", (long long)message_int(&m), (long long)number);
    xi_msg_release(&m);
}
static void witness_receive_1(xi_channel *ch) { witness_receive(ch, 1); }
static void witness_receive_2(xi_channel *ch) { witness_receive(ch, 2); }
static void witness_receive_77(xi_channel *ch) { witness_receive(ch, 77); }
static void witness_receive_again(xi_channel *ch) {
    witness_send(ch);
    witness_receive(ch, 5);
}
static void witness_set(xi_channel *ch) {
    xi_set *set;
    xi_event e;
    must(xi_set_new(ch->interp, &set));
    must(xi_set_add(set, ch, XI_READY_RECV, 9, 0));
    expect(xi_set_wait(set, &e, 1, XI_FOREVER) == 1 && e.key == 9 && e.ready == XI_READY_RECV, "no event");
    witness_receive(ch, 77);
    xi_set_free(set);
}
static void witness_poll(xi_channel *ch) {
    xi_set *set;
    xi_event e;
    must(xi_set_new(ch->interp, &set));
    must(xi_set_add(set, ch, XI_READY_RECV, 9, 0));
    struct pollfd p = {.fd = xi_set_fd(set), .events = POLLIN};
    must(p.fd);
    do must_sys(poll(&p, 1, -1));
    while (xi_set_wait(set, &e, 1, XI_TRY) == XI_E_AGAIN);
    witness_receive(ch, 77);
    xi_set_free(set);
}
static void witness_call(xi_channel *ch, int outcome) {
    uint64_t one = XI_INT32 | (uint64_t)1 << 32;
    xi_msg m = XI_MSG_INIT;
    int rc = xi_call(ch, &one, sizeof one, &m, XI_FOREVER);
    expect(rc == outcome, "%s, not %s: %s", xi_error_name(rc), xi_error_name(outcome), xi_error_text(rc));
    if (rc == 0) expect(message_int(&m) == 5, "another's reply");
    xi_msg_release(&m);
}
static void witness_call_died(xi_channel *ch) { witness_call(ch, XI_E_DIED); }
static void witness_call_nobody(xi_channel *ch) { witness_call(ch, XI_E_NO_CONSUMER); }
static void witness_call_replied(xi_channel *ch) { witness_call(ch, 0); }
/* Until it must sleep for room, and over that. Room for about 1,600 descriptors. */
static void witness_fill(xi_channel *ch) {
    for (int i = 0; i < 1700; i++) send_block(ch, i);
}

static int filled, segments;

static void fill_up(xi_channel *ch) {
    segments = segments_of(test_ns(), false);
    for (filled = 0; filled < (4096 - 8) / 16; filled++) must(xi_send_int(ch, filled, XI_TRY));
}

/* Sends what does not fit the channel's own ring, and receives all; then nothing is left of any other ring. */
static void witness_grow(xi_channel *ch) {
    must(xi_send_int(ch, filled, XI_FOREVER));
    atomic_store(&S->done, now_ns());
    for (int i = 0; i <= filled; i++) witness_receive(ch, i);
    xi_msg m = XI_MSG_INIT;
    int64_t begun = now_ns();
    while (xi_load_relaxed(&ch->chan->ring) != 0 || segments_of(test_ns(), false) > segments) {
        must_fail(XI_E_TIMEOUT, xi_recv(ch, &m, 20 * MS));
        expect(now_ns() - begun < 10 * SECOND, "a ring is left: %d segments, there were %d", segments_of(test_ns(), true), segments);
    }
}

/* A group that joins late finds the second value first; and then nothing is kept any more. */
static void witness_join_late(xi_channel *ch) {
    xi_group_opts late = {.from = XI_FROM_OLDEST};
    xi_open_opts opts = {.flags = XI_OPEN_RECV, .group_opts = &late};
    xi_channel *in = open_with(xi_channel_interp(ch), xi_channel_name(ch), &opts);
    witness_receive(in, 2);
    must(xi_channel_free(in));
    must(xi_remove(xi_channel_interp(ch), xi_channel_name(ch)));
}

static const struct deed {
    const char *name;
    uint32_t mode;
    void (*before)(xi_channel *ch);
    void (*deed)(xi_channel *ch);
    void (*witness)(xi_channel *ch);
} deeds[] = {
    {"holding the producers' lock", XI_QUEUE, sent_in_vain, die_with_producers_lock, witness_send},
    {"holding it, the broker dead", XI_QUEUE, sent_in_vain, die_with_a_lock_and_the_broker, witness_send},
    {"header stored, tail not", XI_QUEUE, sent_in_vain, die_after_header, witness_receive_77},
    {"sent, nobody rung", XI_QUEUE, sent_in_vain, die_before_ringing, witness_receive_77},
    {"a waiter's bit claimed", XI_QUEUE, sent_in_vain, die_after_claiming_the_bit, witness_receive_77},
    {"a bell claimed", XI_QUEUE, sent_in_vain, die_after_claiming_the_bell, witness_receive_77},
    {"unlocked, lock waiters not woken", XI_QUEUE, sent_in_vain, die_before_waking_lock_waiters, witness_receive_again},
    {"holding a group's lock", XI_QUEUE, one_block, die_with_group_lock, witness_receive_1},
    {"borrow stored, head not", XI_QUEUE, one_block, die_after_borrow, witness_receive_1},
    {"head stored, lock held", XI_QUEUE, two_blocks, die_after_head, witness_receive_2},
    {"owning a full group", XI_BROADCAST, sent_in_vain, die_owning_a_full_group, witness_fill},
    {"in the middle of ending a group", XI_BROADCAST, sent_in_vain, die_after_ending_the_group, witness_fill},
    {"joining at a value that is there", XI_QUEUE, one_block, die_while_joining, witness_receive_1},
    {"giving up a value that is kept", XI_BROADCAST, two_blocks, die_while_giving_up, witness_join_late},
    {"a ring reserved", XI_QUEUE, fill_up, die_with_a_ring, witness_grow},
    {"ring copied, not moved", XI_QUEUE, fill_up, die_before_the_move, witness_grow},
    {"ring moved, locks held", XI_QUEUE, fill_up, die_after_the_move, witness_grow},
    {"ring moved, broker not told", XI_QUEUE, fill_up, die_with_the_move_untold, witness_grow},
    {"a set's member claimed", XI_QUEUE, sent_in_vain, die_after_claiming_a_member, witness_set},
    {"a set's member marked", XI_QUEUE, sent_in_vain, die_after_marking_a_member, witness_set},
    {"and its word", XI_QUEUE, sent_in_vain, die_after_marking_its_word, witness_set},
    {"a set's bell claimed", XI_QUEUE, sent_in_vain, die_after_claiming_a_sets_bell, witness_set},
    {"a polled set's member claimed", XI_QUEUE, sent_in_vain, die_after_claiming_a_member, witness_poll},
    {"a polled set's bell claimed", XI_QUEUE, sent_in_vain, die_after_claiming_a_sets_bell, witness_poll},
    {"a request noted, head not stored", XI_QUEUE, sent_in_vain, die_after_noting_a_request, witness_call_nobody},
    {"a request taken", XI_QUEUE, sent_in_vain, die_with_a_request, witness_call_died},
    {"replied, the note still there", XI_QUEUE, sent_in_vain, die_after_replying, witness_call_replied},
};
#define DEEDS (int)(sizeof deeds / sizeof *deeds)

static void doomed(void *argument) {
    const struct deed *d = argument;
    xi_open_opts opts = {.mode = d->mode};
    xi_interp *me = join_sleepy("doomed");
    xi_channel *ch = open_with(me, d->name, &opts);
    d->deed(ch);
}

/* A handle that may receive would make the witness a server, or a subscriber, itself. */
static bool only_sends(const struct deed *d) {
    return d->mode == XI_BROADCAST || d->witness == witness_call_died || d->witness == witness_call_nobody ||
           d->witness == witness_call_replied;
}

static void witness(void *argument) {
    const struct deed *d = argument;
    bool grows = d->witness == witness_grow;
    xi_open_opts opts = {.mode = d->mode,
                         .flags = only_sends(d) ? XI_OPEN_SEND : 0,
                         .capacity = grows ? XI_CAPACITY_MIN : 0,
                         .grow = grows ? 4 * RING_BYTES : 0,
                         .retain = d->witness == witness_join_late ? 2 : 0};
    xi_interp *me = join_sleepy("witness");
    xi_channel *ch = open_with(me, d->name, &opts);
    d->before(ch);
    let_the_doomed_come();
    d->witness(ch);
    if (!atomic_load(&S->done)) atomic_store(&S->done, now_ns());
    nothing_is_out(me);
    must(xi_channel_free(ch));
    must(xi_leave(me));
}

int main(void) {
    for (int i = 0; i < DEEDS; i++) play_death(deeds[i].name, doomed, witness, &deeds[i]);
    return 0;
}
