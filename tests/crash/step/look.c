/* SPDX-License-Identifier: MIT */
/*
 * A repaired namespace word by word: what wire/layout.h says of channels, groups,
 * waiters and tables of deliveries between two operations holds for all of them;
 * nothing is the dead one's; and a second repair of the same death changes nothing.
 */
#include "look.h"

#include <string.h>

#include "broker.h"
#include "repair_internal.h"

static const struct looker *L;

/* ------------------------------------------------------------ word by word */

/* Everything that a group has yet to receive: whole records with the right numbers, whose blocks are still its. */
static void look_at_group(const struct xi_chan_view *view, uint32_t g, uint64_t tail, uint64_t tail_seq) {
    struct xi_group *group = &view->chan->groups[g];
    uint64_t at = group->head, seq = group->head_seq;
    struct xi_record r;
    holds(at <= tail && tail - at <= view->capacity - 8, "group %u has its head at %lu, the tail is at %lu", g, at, tail);
    for (; at < tail; at = r.next) {
        seq++;
        holds(xi_record_read(view, at, tail, &r), "group %u: no record at %lu (tail %lu)", g, at, tail);
        holds(XI_REC_SEQ(r.header) == (uint16_t)seq, "group %u: the record at %lu is number %u, not %lu", g, at, XI_REC_SEQ(r.header), seq);
        if (XI_REC_KIND(r.header) != XI_REC_BLOCK || group->flags & XI_GROUP_F_ACK) continue;
        struct xi_block_name b = xi_block_read(view, at);
        struct xi_release *words = L->b->world.repair.release(&L->b->world, b.segment, b.granule);
        holds(words != NULL, "group %u: the block of number %lu is gone", g, seq);
        uint64_t word = words->word[XI_RELEASE_WORD(g)];
        holds(word >> 16 == b.generation, "group %u: the block of number %lu is in another life", g, seq);
        holds(!(word & XI_RELEASE_BIT(g)), "group %u: the block of number %lu was released, and it is there", g, seq);
    }
    holds(seq == tail_seq, "group %u comes to number %lu at the tail, which is number %lu", g, seq, tail_seq);
}

static void look_at_waiters(struct xi_chan *c) {
    for (uint32_t i = 0; i < XI_MAX_WAITERS; i++) {
        uint64_t w = c->waiters[i], bit = (uint64_t)1 << (i % 64);
        holds(!w || XI_WAITER_SLOT(w) != L->dead || !L->dead, "waiter entry %u is the dead one's", i);
        bool set = c->parked_senders.word[i / 64] & bit;
        for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) set |= (c->groups[g].parked.word[i / 64] & bit) != 0;
        holds(w || !set, "the bit of waiter %u is set, and there is none", i);
    }
}

static void look_at_channel(const struct chan *ch) {
    struct xi_chan_view view;
    holds(world_view(&L->b->world, ch, &view) && !view.lost, "the channel \"%s\" cannot be mapped", ch->name);
    struct xi_chan *c = view.chan;
    uint64_t tail = c->tail, smallest = tail;
    holds(c->lock == 0, "the producers' lock is held: %u", c->lock);
    holds(*xi_ring_at(&view, tail) == 0, "there is a header at the tail");
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        struct xi_group *group = &c->groups[g];
        bool active = c->active >> g & 1;
        holds(group->lock == 0, "the lock of group %u is held: %u", g, group->lock);
        holds(active ? group->state == XI_GROUP_ACTIVE : group->state == XI_GROUP_FREE, "group %u is in state %u, its bit is %d", g,
              group->state, active);
        if (!active) continue;
        holds(!L->dead || group->owner != L->dead, "group %u is the dead one's", g);
        look_at_group(&view, g, tail, c->tail_seq);
        holds(group->counting == 0, "group %u is still counting %lu", g, (unsigned long)group->counting);
        if (group->head < smallest) smallest = group->head;
    }
    holds(c->min_head <= smallest, "min_head is past a group's head");
    look_at_waiters(c);
}

static void look_at_table(const struct chan *ch, const struct part *p) {
    uint64_t window;
    struct xi_acks *a = p->kind == XI_SEG_ACKS ? world_acks(&L->b->world, p->number, ch->segment, &window) : NULL;
    for (uint64_t i = 0; a && i < window; i++) {
        uint64_t state = a->entries[i].state, status = XI_DELIVERY_STATUS(state);
        holds((status != XI_DELIVERY_OUT && status != XI_DELIVERY_MOVING) || !L->dead || XI_DELIVERY_SLOT(state) != L->dead,
              "delivery %lu is still the dead one's", (unsigned long)i);
        uint64_t holder = XI_ACKS_LINGERS(a, window)[i].holder;
        holds(!holder || XI_DELIVERY_SLOT(holder) != L->dead || !L->dead, "the dead one lingers");
    }
}

/* Channels, and what belongs to them. */
static void look_at_all(void) {
    for (uint32_t i = 0; i < L->b->state.chan_capacity; i++) {
        const struct chan *ch = &L->b->state.chans[i];
        if (!ch->id) continue;
        look_at_channel(ch);
        for (uint32_t k = 0; k < ch->part_count; k++) look_at_table(ch, &ch->parts[k]);
    }
    const char *why = "";
    holds(state_is_valid(&L->b->state, &why), "the broker's account is wrong: %s", why);
    if (!L->dead) return;
    enum interp_life life = L->b->state.interps[L->dead].life;
    holds(life == INTERP_FREE || life == INTERP_ORPHAN, "the dead one's slot is in life %d", life);
}

/* True if the group that the sleeper sleeps for has something to receive, or (a sender) the first channel has room. */
static bool sleeper_is_due(void) {
    for (uint32_t i = 0; i < L->b->state.chan_capacity; i++) {
        const struct chan *ch = &L->b->state.chans[i];
        struct xi_chan_view view;
        if (!ch->id || ch->segment != L->segment || !world_view(&L->b->world, ch, &view)) continue;
        uint64_t used = view.chan->tail - view.chan->groups[0].head;
        return L->sends ? used < view.capacity / 2 : used != 0;
    }
    return false;
}

/* Where FUTEX_WAKE was called for in this process, the latest. */
static const void *woken[256];
static unsigned wakes;

void note_wake(const void *word) { woken[wakes++ % (sizeof woken / sizeof *woken)] = word; }

static bool was_woken(const struct xi_mailbox *m) {
    for (unsigned i = 0; i < sizeof woken / sizeof *woken; i++)
        if (woken[i] >= (const void *)&m->bells[0] && woken[i] < (const void *)&m->bells[8]) return true;
    return false;
}

/*
 * The bell has to be rung, and the wake to have been called for: whoever died may have rung, but was perhaps killed before
 * that call.
 */
bool look_overslept(const struct looker *l) {
    L = l;
    if (!L->sleeper || !sleeper_is_due()) return false;
    struct xi_mailbox *m = world_mailbox(&L->b->world, L->sleeper);
    uint32_t sum = 0;
    for (uint32_t i = 0; m && i < 8; i++) sum += m->bells[i].bell;
    return !m || sum == L->bells || !was_woken(m);
}

/* -------------------------------------------------------------- once more */

/* What repair makes new each time: words that say "look again". */
static void hush(struct xi_chan *c, uint32_t kept[1 + XI_MAX_GROUPS], bool put) {
    for (uint32_t g = 0; g <= XI_MAX_GROUPS; g++) {
        xi_a32 *word = g ? &c->groups[g - 1].lock_sleep : &c->lock_sleep;
        if (put) *word = kept[g];
        else kept[g] = *word;
    }
}

/* A second repair of the same death changes nothing. */
static void repair_again(void) {
    static uint8_t before[1 << 17];
    const struct xi_dead dead = {.slot = L->dead, .id = L->dead_id};
    uint32_t kept[1 + XI_MAX_GROUPS];
    for (uint32_t i = 0; L->dead && i < L->b->state.chan_capacity; i++) {
        const struct chan *ch = &L->b->state.chans[i];
        struct xi_chan_view view;
        if (!ch->id || !world_view(&L->b->world, ch, &view)) continue;
        size_t size = sizeof *view.chan, ring = ch->capacity;
        if (size + ring > sizeof before) continue;
        memcpy(before, view.chan, size);
        memcpy(before + size, (uint8_t *)view.chan + XI_RING_OFFSET, ring);
        hush(view.chan, kept, false);
        L->b->world.about_channel = i + 1;
        holds(xi_repair_channel(&view, &dead, &L->b->world.repair), "a second repair finds the ring moved");
        hush(view.chan, kept, true);
        struct xi_chan *old = (struct xi_chan *)(void *)before;
        old->parked_groups = view.chan->parked_groups; /* who is rung once more is taken out there */
        old->parked_producers = view.chan->parked_producers;
        if (L->sleeper) continue;
        holds(memcmp(before, view.chan, size) == 0, "a second repair changes the channel \"%s\"", ch->name);
        holds(memcmp(before + size, (uint8_t *)view.chan + XI_RING_OFFSET, ring) == 0, "a second repair changes the ring of \"%s\"", ch->name);
    }
}

void look(const struct looker *l) {
    L = l;
    look_at_all();
    holds(!look_overslept(l), "there is something for the one that sleeps, and it was not woken");
    repair_again();
}
