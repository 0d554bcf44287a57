/* SPDX-License-Identifier: MIT */
/*
 * Deaths at chosen instructions in a group that acknowledges: see states.h. A
 * consumer takes, acknowledges, gives back or moves a value by hand, as wire/layout.h
 * has it ("Groups that acknowledge"); the witness sleeps for what it had. Judged:
 * what comes, in which order and for the which time, and that every block is back.
 */
#include "channel/ack.h"
#include "states.h"

/* Until the witness sleeps on the channel, or for the group's lock. */
static void let_witness_sleep(xi_channel *ch) {
    start_witness();
    await(xi_load_full(&ch->chan->parked_groups) != 0 || xi_load_full(&ch->group->lock_sleep) & 1,
          "the witness neither parks nor waits for the lock");
    see_witness_sleep();
}

/* --------------------------------------------------------------------- the deeds */

static struct xi_delivery *entry(xi_channel *ch, uint64_t number) { return xi_delivery_of(ch->ack, number); }

/* The entry of the first value, as far as the delivery's decisive store. */
static void store_entry(xi_channel *ch) {
    struct xi_delivery *d = entry(ch, 1);
    xi_store_relaxed(&d->position, xi_load_relaxed(&ch->group->next));
    xi_store_relaxed(&d->due, UINT64_MAX);
    xi_store_relaxed(&d->count, 1);
    xi_store_release(&d->state, XI_DELIVERY(XI_DELIVERY_OUT, 0, 1, ch->interp->slot, ch->ack->handle));
}
static void store_status(xi_channel *ch, uint64_t number, uint32_t status) {
    struct xi_delivery *d = entry(ch, number);
    xi_store_release(&d->state, (xi_load_relaxed(&d->state) & ~(uint64_t)0xff) | status);
}
static xi_msg taken[2] = {XI_MSG_INIT, XI_MSG_INIT};
static void take(xi_channel *ch, int n) {
    for (int i = 0; i < n; i++) must(xi_recv(ch, &taken[i], XI_TRY));
}
static void release_block(xi_channel *ch) {
    const xi_handle *b = &taken[0].block_;
    expect(xi_release_bit(taken[0].map_, b->granule, b->generation, ch->group_index), "the block was released before");
}

static void die_receiving(xi_channel *ch, bool counted) {
    lock_group(ch);
    let_witness_sleep(ch);
    store_entry(ch);
    if (counted) xi_store_release(&ch->group->next_seq, 1);
    die();
}
static void die_with_an_entry(xi_channel *ch) { die_receiving(ch, false); }
static void die_with_next_seq(xi_channel *ch) { die_receiving(ch, true); }
static void die_with(xi_channel *ch, int deliveries) {
    take(ch, deliveries);
    let_witness_sleep(ch);
    die();
}
static void die_with_a_delivery(xi_channel *ch) { die_with(ch, 1); }
static void die_with_all_deliveries(xi_channel *ch) { die_with(ch, 2); }
/* An acknowledgement, as far as `stores` says. */
static void die_acknowledging(xi_channel *ch, int stores) {
    take(ch, 1);
    lock_group(ch);
    let_witness_sleep(ch);
    if (stores >= 1) store_status(ch, 1, XI_DELIVERY_DONE);
    if (stores >= 2) release_block(ch);
    if (stores >= 3) xi_store_relaxed(&ch->group->head_seq, 1);
    if (stores >= 4) xi_store_release(&ch->group->head, xi_load_relaxed(&ch->group->next));
    die();
}
static void die_with_done(xi_channel *ch) { die_acknowledging(ch, 1); }
static void die_with_the_block_released(xi_channel *ch) { die_acknowledging(ch, 2); }
static void die_with_head_seq(xi_channel *ch) { die_acknowledging(ch, 3); }
static void die_with_head(xi_channel *ch) { die_acknowledging(ch, 4); }
static void die_with_ready(xi_channel *ch) {
    take(ch, 1);
    lock_group(ch);
    let_witness_sleep(ch);
    xi_store_relaxed(&entry(ch, 1)->due, 0);
    store_status(ch, 1, XI_DELIVERY_READY);
    die();
}
/* It holds a message whose value is another's by now, and acknowledged. */
static void die_lingering(xi_channel *ch) {
    static xi_msg m = XI_MSG_INIT;
    must(xi_recv(ch, &m, XI_TRY));
    must(xi_extend(&m, 1));
    start_witness();
    await(xi_load_full(&ch->group->acked) == 1, "the witness does not acknowledge");
    die();
}

/* ------------------------------------------------------------------- letters */

static xi_channel *letters_of(xi_channel *ch) {
    xi_channel *to;
    must(xi_open(ch->interp, ch->ack->dead, &(xi_open_opts){.flags = XI_OPEN_SEND}, &to));
    return to;
}

/* 1 of a move, of a value that was given back once. */
static void begin_move(xi_channel *ch) {
    struct xi_delivery *d = entry(ch, 1);
    xi_msg m = XI_MSG_INIT;
    must(xi_recv(ch, &m, XI_TRY));
    must(xi_nack(&m, 0));
    lock_group(ch);
    xi_store_relaxed(&d->count, 1);
    xi_store_relaxed(&d->due, UINT64_MAX);
    xi_store_release(&d->state, XI_DELIVERY(XI_DELIVERY_MOVING, XI_BACK_NACKED, 1, ch->interp->slot, ch->ack->handle));
    xi_unlock(ch->group);
}

/* 3, as far as `steps` says; the letter is a plain number here. */
static void send_letter(xi_channel *ch, xi_channel *to, int steps) {
    struct xi_delivery *d = entry(ch, 1);
    xi_store_release(&d->count, (uint64_t)to->segment << 32 | 1);
    must(xi_home_back(to)); /* as any sender does */
    must(xi_lock(to, to->chan, -1));
    uint64_t w = xi_load_relaxed(&to->chan->tail), seq = xi_load_relaxed(&to->chan->tail_seq) + 1;
    xi_store_release(&d->due, seq);
    xi_store_relaxed(xi_header_at(&to->home, w + 8), XI_INT32 | (uint64_t)99 << 32);
    xi_store_relaxed(xi_header_at(&to->home, w + 16), 0);
    if (steps >= 1) xi_store_release(xi_header_at(&to->home, w), XI_REC(8, XI_REC_INLINE, 0, seq));
    if (steps < 2) return;
    xi_store_release(&to->chan->tail_seq, seq);
    xi_store_release(&to->chan->tail, w + 16);
    xi_unlock(to->chan);
}

static void die_moving(xi_channel *ch) {
    begin_move(ch);
    let_witness_sleep(ch);
    die();
}
static void die_at_the_letter(xi_channel *ch, int steps) {
    xi_channel *to = letters_of(ch);
    begin_move(ch);
    let_witness_sleep(ch);
    send_letter(ch, to, steps);
    die();
}
static void die_before_the_letter(xi_channel *ch) { die_at_the_letter(ch, 0); }
static void die_after_the_letter(xi_channel *ch) { die_at_the_letter(ch, 1); }
static void die_with_the_letter_sent(xi_channel *ch) { die_at_the_letter(ch, 2); }

/* ------------------------------------------------------------------- the witness */

static void receive(xi_channel *ch, int64_t number, uint32_t deliveries) {
    xi_msg m = XI_MSG_INIT;
    must(xi_recv(ch, &m, XI_FOREVER));
    expect(message_int(&m) == number && xi_msg_deliveries(&m) == deliveries, "value %lld came for the %uth time, not %lld",
           (long long)message_int(&m), xi_msg_deliveries(&m), (long long)number);
    must(xi_ack(&m));
}
static void first_1(xi_channel *ch) { receive(ch, 1, 1); }
static void again_1(xi_channel *ch) { receive(ch, 1, 2); }
static void first_2(xi_channel *ch) { receive(ch, 2, 1); }
static void again_all(xi_channel *ch) {
    receive(ch, 1, 2);
    receive(ch, 2, 2);
}
/* It comes as a letter: `made_by_hand` if the dead one sent it, which the witness is not to do again. */
static void expect_letter(xi_channel *ch, bool made_by_hand) {
    xi_channel *letters;
    xi_msg m = XI_MSG_INIT;
    must(xi_open(ch->interp, ch->ack->dead, &(xi_open_opts){.flags = XI_OPEN_RECV}, &letters));
    receive(ch, 2, 1);
    must(xi_recv(letters, &m, XI_TRY));
    xi_cursor c;
    xi_value v;
    xi_cursor_init(&c, m.data, m.size);
    expect(xi_next(&c, &v) == 1 && (v.tag == XI_INT32) == made_by_hand, "a letter of tag %u", v.tag);
    must_fail(XI_E_AGAIN, xi_recv(letters, &m, XI_TRY));
    expect(xi_load_full(&ch->group->dead) == 1, "%llu dead letters were counted",
           (unsigned long long)xi_load_full(&ch->group->dead));
    xi_msg_release(&m);
    must(xi_channel_free(letters));
}
static void own_letter(xi_channel *ch) { expect_letter(ch, false); }
static void its_letter(xi_channel *ch) { expect_letter(ch, true); }

static void block_back(xi_channel *ch) {
    receive(ch, 1, 2);
    nothing_is_out(ch->interp);
}

static const struct deed {
    const char *name;
    int64_t values;  /* sent before */
    uint32_t window; /* 1: the second value comes when the first is gone */
    uint32_t most;   /* deliveries; 0: any number */
    void (*deed)(xi_channel *ch);
    void (*witness)(xi_channel *ch);
} deeds[] = {
    {"an entry stored, next_seq not", 1, 4, 0, die_with_an_entry, first_1},
    {"next_seq stored, next not", 1, 4, 0, die_with_next_seq, again_1},
    {"with a delivery", 1, 4, 0, die_with_a_delivery, again_1},
    {"with all there is", 2, 4, 0, die_with_all_deliveries, again_all},
    {"DONE stored, block not released", 2, 4, 0, die_with_done, first_2},
    {"block released, head_seq not", 2, 4, 0, die_with_the_block_released, first_2},
    {"head_seq stored, head not", 2, 4, 0, die_with_head_seq, first_2},
    {"head stored, entry not free", 2, 4, 0, die_with_head, first_2},
    {"READY stored, nobody told", 1, 4, 0, die_with_ready, again_1},
    {"lingering", 1, 4, 0, die_lingering, block_back},
    {"moving", 2, 1, 1, die_moving, own_letter},
    {"a letter's number stored", 2, 1, 1, die_before_the_letter, own_letter},
    {"a letter's header stored", 2, 1, 1, die_after_the_letter, its_letter},
    {"a letter sent", 2, 1, 1, die_with_the_letter_sent, its_letter},
};
#define DEEDS (int)(sizeof deeds / sizeof *deeds)

static const char *dead_of(const struct deed *d, char name[80]) {
    snprintf(name, 80, "dead of %s", d->name);
    return name;
}

static xi_channel *open_work(xi_interp *me, const struct deed *d) {
    char name[80];
    xi_group_opts group = {.flags = XI_GROUP_ACK,
                           .window = d->window,
                           .max_deliveries = d->most,
                           .dead = d->most ? dead_of(d, name) : NULL};
    xi_open_opts opts = {.group_opts = &group};
    return open_with(me, d->name, &opts);
}

static void doomed(void *argument) {
    const struct deed *d = argument;
    xi_interp *me = join_sleepy("doomed");
    d->deed(open_work(me, d));
}

/* What the test has left is not more than it says; then nothing is. */
static void finish(xi_interp *me, xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    must(xi_close(ch));
    must_fail(XI_E_CLOSED, xi_recv(ch, &m, XI_FOREVER));
    expect(xi_load_full(&ch->group->head) == xi_load_full(&ch->chan->tail), "something is left");
    expect(xi_load_full(&ch->group->corrupt) == 0, "something was corrupt");
    nothing_is_out(me);
    leave_with(me, ch);
}

static void witness(void *argument) {
    const struct deed *d = argument;
    char name[80];
    xi_interp *me = join_sleepy("witness");
    xi_channel *ch = open_work(me, d), *letters = NULL;
    if (d->most) letters = open_queue(me, dead_of(d, name));
    for (int64_t i = 1; i <= d->values; i++) send_block(ch, i);
    let_the_doomed_come();
    d->witness(ch);
    atomic_store(&S->done, now_ns());
    if (letters) must(xi_channel_free(letters));
    finish(me, ch);
}

int main(void) {
    for (int i = 0; i < DEEDS; i++) play_death(deeds[i].name, doomed, witness, &deeds[i]);
    return 0;
}
