/* SPDX-License-Identifier: MIT */
/*
 * Waking after a death. Wherever the dead one was killed while it woke somebody
 * or slept itself, nobody may sleep on:
 *
 *   it had sent, or made space, and had not yet looked for sleepers:
 *       every side that has something to do is rung, once a value
 *   it had claimed a waiter's bit and had not yet claimed the bell:
 *       a waiter entry whose bit is clear is rung always, and marked ready if
 *       it is a member of a set; it parks again if it has nothing to do
 *   it had claimed the bell (NOTIFIED) and had not yet rung it:
 *       a claimed bell is rung again; later wakers would leave it alone
 *   it slept: its bit goes, then its entry; a ring that it swallowed is given
 *       again, since the side still has something to do
 *   it was clearing a summary bit: the summaries are set again where a mask is
 *       not empty, before looking whether there is something to do
 *
 * All of it may ring a waiter too many, which costs that one a look.
 */
#include "repair_internal.h"

static bool waiter_valid(uint64_t waiter) {
    uint32_t slot = XI_WAITER_SLOT(waiter), bell = XI_WAITER_BELL(waiter), side = XI_WAITER_SIDE(waiter);
    return waiter >> 63 && XI_WAITER_MEMBER(waiter) <= XI_MAX_MEMBERS && slot != 0 && slot < XI_MAX_INTERPS &&
           bell < XI_BELLS_USABLE && side <= XI_MAX_GROUPS;
}

static struct xi_mask *side_mask(const struct xi_chan_view *view, uint32_t side) {
    return side == XI_SIDE_PRODUCERS ? &view->chan->parked_senders : &view->chan->groups[side - 1].parked;
}

static bool mask_has(struct xi_mask *mask, uint32_t index) {
    return xi_load_full(&mask->word[index / 64]) >> (index % 64) & 1;
}

static bool mask_empty(struct xi_mask *mask) {
    for (size_t i = 0; i < XI_MASK_WORDS; i++)
        if (xi_load_full(&mask->word[i]) != 0) return false;
    return true;
}

/* ------------------------------------------------------------------ bells */

static void strike(struct xi_bell *bell, const struct xi_world *world) {
    XI_REPAIR_STEP();
    (void)xi_add_full(&bell->bell, 1u);
    xi_do_wake(world, &bell->bell, 1);
}

bool xi_ring_bell(struct xi_mailbox *mailbox, uint32_t index, const struct xi_world *world) {
    struct xi_bell *bell = &mailbox->bells[index];
    bool won = xi_do_cas32(&bell->state, XI_BELL_PARKED, XI_BELL_NOTIFIED);
    if (won || xi_load_full(&bell->state) == XI_BELL_NOTIFIED) strike(bell, world);
    return won;
}

void xi_repair_bells(struct xi_mailbox *mailbox, const struct xi_world *world) {
    for (uint32_t i = 0; i < XI_BELLS_USABLE; i++)
        if (xi_load_full(&mailbox->bells[i].state) == XI_BELL_NOTIFIED) strike(&mailbox->bells[i], world);
}

void xi_ring_sleepers(struct xi_mailbox *mailbox, const struct xi_world *world) {
    for (uint32_t i = 0; i < XI_BELLS_USABLE; i++)
        if (xi_load_full(&mailbox->bells[i].state) != XI_BELL_IDLE) (void)xi_ring_bell(mailbox, i, world);
}

/* A member of a set: its bit, then its word's, then the set's bell. */
static void mark_ready(struct xi_mailbox *mailbox, uint32_t member) {
    xi_do_or(&mailbox->ready[member / 64], (uint64_t)1 << (member % 64));
    xi_do_or(&mailbox->ready_words[member / 64 / 64], (uint64_t)1 << (member / 64 % 64));
}

/* True if a thread that was asleep has been told; a set that was may not receive, so it does not count. */
static bool ring_waiter(uint64_t waiter, const struct xi_world *world) {
    if (!waiter_valid(waiter)) return false;
    struct xi_mailbox *mailbox = world->mailbox(world->context, XI_WAITER_SLOT(waiter));
    if (mailbox == NULL) return false;
    uint32_t member = XI_WAITER_MEMBER(waiter);
    if (member) mark_ready(mailbox, member - 1);
    return xi_ring_bell(mailbox, XI_WAITER_BELL(waiter), world) && member == 0;
}

/* ------------------------------------------------------------- the masks */

/* Claims bits and rings until `count` sleepers were told, or none is left. Everybody's bits may come back meanwhile, so
 * it claims as many bits as a mask has at most. */
static void ring_mask(const struct xi_chan_view *view, struct xi_mask *mask, uint32_t count,
                      const struct xi_world *world) {
    uint32_t claims = XI_MAX_WAITERS;
    for (uint32_t i = 0; i < XI_MASK_WORDS; i++) {
        uint64_t word;
        while (count > 0 && claims > 0 && (word = xi_load_full(&mask->word[i])) != 0) {
            uint32_t index = i * 64 + (uint32_t)__builtin_ctzll(word);
            uint64_t bit = (uint64_t)1 << (index % 64);
            claims--;
            if (!(xi_do_and(&mask->word[i], ~bit) & bit)) continue; /* somebody else's claim */
            if (ring_waiter(xi_load_full(&view->chan->waiters[index]), world)) count--;
        }
    }
}

/* Wakers look at a mask only where its summary says so. */
static void raise_summaries(const struct xi_chan_view *view) {
    struct xi_chan *chan = view->chan;
    uint64_t groups = 0;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if (!mask_empty(&chan->groups[g].parked)) groups |= (uint64_t)1 << g;
    if (groups & ~xi_load_full(&chan->parked_groups)) xi_do_or(&chan->parked_groups, groups);
    if (!mask_empty(&chan->parked_senders) && xi_load_full(&chan->parked_producers) != 1) {
        XI_REPAIR_STEP();
        xi_store_full(&chan->parked_producers, 1u);
    }
}

/* Waiters whose bit somebody has claimed; whether it lived to ring them cannot be seen. */
static void ring_claimed(const struct xi_chan_view *view, const struct xi_world *world) {
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++) {
        uint64_t waiter = xi_load_full(&view->chan->waiters[i]);
        if (waiter_valid(waiter) && !mask_has(side_mask(view, XI_WAITER_SIDE(waiter)), i))
            (void)ring_waiter(waiter, world);
    }
}

/* How many consumers of a group should look: as many as there are values, all when the group or the channel ended. */
static uint32_t consumers_due(const struct xi_chan_view *view, uint32_t g) {
    struct xi_chan *chan = view->chan;
    struct xi_group *group = &chan->groups[g];
    bool active = xi_load_full(&chan->active) >> g & 1;
    uint64_t head = xi_load_full(&group->head);
    /* What comes back, and when, is in the group's table: they look for themselves. */
    if (xi_load_full(&group->flags) & XI_GROUP_F_ACK) return XI_MAX_WAITERS;
    if (!active || xi_load_full(&chan->closed) != 0 || !xi_position_plausible(head) || view->lost || xi_view_stale(view))
        return XI_MAX_WAITERS;
    if (xi_load_full(&chan->producers) == 0) return XI_MAX_WAITERS; /* those who need one are told that there is none */
    if (xi_load_full(xi_ring_at(view, head)) == 0) return 0;
    uint64_t values = xi_load_full(&chan->tail_seq) - xi_load_full(&group->head_seq);
    if (values == 0) return 1; /* sent a moment ago: its sender has not counted it yet */
    return values < XI_MAX_WAITERS ? (uint32_t)values : XI_MAX_WAITERS;
}

/* True if a producer might find space or make some by growing, or must find out that the channel is closed. */
static bool producers_due(const struct xi_chan_view *view) {
    struct xi_chan *chan = view->chan;
    uint64_t tail = xi_load_full(&chan->tail);
    if (xi_load_full(&chan->closed) != 0 || !xi_position_plausible(tail) || view->lost) return true;
    if (xi_load_full(&chan->consumers) == 0) return true;
    if (view->capacity < chan->grow_max) return true; /* the dead one may have been at it */
    uint64_t active = xi_load_full(&chan->active), smallest_record = 8 + 8 + 8;
    if (view->retains) active &= ~XI_RETAIN_BIT; /* it gives way */
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        uint64_t head = xi_load_full(&chan->groups[g].head);
        if ((active >> g & 1) && xi_position_plausible(head) && tail + smallest_record > view->capacity + head)
            return false;
    }
    return true;
}

void xi_ring_channel(const struct xi_chan_view *view, const struct xi_world *world) {
    raise_summaries(view);
    ring_claimed(view, world);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        struct xi_mask *mask = &view->chan->groups[g].parked;
        if (!mask_empty(mask)) ring_mask(view, mask, consumers_due(view, g), world);
    }
    if (!mask_empty(&view->chan->parked_senders) && producers_due(view))
        ring_mask(view, &view->chan->parked_senders, XI_MAX_WAITERS, world);
}

/* ------------------------------------------------------- the dead's entries */

static void clear_bit(struct xi_mask *mask, uint32_t index) {
    uint64_t bit = (uint64_t)1 << (index % 64);
    if (xi_load_full(&mask->word[index / 64]) & bit) (void)xi_do_and(&mask->word[index / 64], ~bit);
}

void xi_forget_waiters(const struct xi_chan_view *view, const struct xi_dead *dead) {
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++) {
        uint64_t waiter = xi_load_full(&view->chan->waiters[i]);
        bool valid = waiter_valid(waiter);
        if (waiter == 0 || (valid && XI_WAITER_SLOT(waiter) != dead->slot)) continue;
        /* Nobody else takes entry i while it is not 0, so its bit is nobody else's either. */
        if (valid)
            clear_bit(side_mask(view, XI_WAITER_SIDE(waiter)), i);
        else
            for (uint32_t side = 0; side <= XI_MAX_GROUPS; side++) clear_bit(side_mask(view, side), i);
        (void)xi_do_cas64(&view->chan->waiters[i], &waiter, 0);
    }
}
