/* SPDX-License-Identifier: MIT */
/*
 * Repair of channels and borrows after a death. libxi/wire/layout.h gives the
 * order of stores; this is what each place to be killed looks like, and what
 * is done about it.
 *
 *   sending     header at the tail 0: nothing was sent. Not 0: follow the chain
 *               of headers to the first 0; that is the tail, and the last
 *               record's bits tell its number.
 *   receiving   head not moved: nothing was received; borrow entries at or past
 *               the head are dropped. head_seq is stored before the head, so the
 *               record at the head tells whether it ran ahead; with none there
 *               it is right. Head moved: only the lock is left over.
 *   join, end   `active` decides. Bit set: the group is there. Bit clear: it is
 *               not; if it was ending, its records are released (again).
 *   keeping     values for groups that join: at most the one at the head is in
 *               doubt; if its bit is set it is given up.
 *   releasing   the bit may be set or not: it is set (again) while the
 *               generation matches, the owner is told (again), the entry goes.
 *
 * tests/model/records.pml and groups.pml explore these steps, by the names of the functions here, beside the living.
 *
 * The producers' lock is kept until all that it guards is done, and is taken
 * before any group's: killed anywhere, the next run finds it still held by the
 * dead and does the same again. A lock that nobody holds is taken for slot 0,
 * and only where the state that it guards is one that no order of stores
 * leaves: then somebody wrote garbage.
 *
 * Garbage is brought to a state that is consistent, and from which no value is
 * read that was not sent whole. A tail that contradicts every head is found
 * again by following the records from a head. A head that contradicts the tail
 * moves to the tail, and group.corrupt counts it; blocks that were named in
 * between stay with their owner until it ends. A `ring` that names none of the
 * channel's rings is such a state too: where the records are cannot be known, so
 * the channel begins anew in its own ring, empty. Every loop is bounded by the
 * ring's size or a constant.
 *
 * Moving the ring needs next to none: `ring` says where it is, before and after
 * the one store that moves it. Where the mover said that it was about to, that is
 * taken back, and its locks are freed as any. tests/model/moves.pml explores it.
 */
#include "repair_internal.h"
#include "xidata.h"

struct repair {
    const struct xi_chan_view *view;
    struct xi_chan *chan;
    const struct xi_dead *dead;
    const struct xi_world *world;
    bool stale; /* the ring has been seen elsewhere than in the view */
};

/*
 * Under any lock that keeps the ring where it is: is it where the view has it? A lock that the dead one held did so since
 * before the view was made. One that was free when it was seized did not: the living may have moved meanwhile.
 */
static bool moved(struct repair *r) {
    bool elsewhere = xi_view_stale(r->view);
    r->stale = r->stale || elsewhere;
    return elsewhere;
}

/* ------------------------------------------------------------------ locks */

/* Words that no living process stores are nobody's, as are those of a killed broker: this one holds no lock on entry.
 */
static bool holder_is_gone(const struct repair *r, uint32_t word) {
    return XI_LOCK_SLOT(word) == r->dead->slot || xi_lock_is_nobodys(r->view, r->world, word);
}

/* True if the lock is the dead one's, and so ours; or if something is `wrong` and the lock was free. */
static bool seize(const struct repair *r, xi_a32 *lock, bool wrong) {
    uint32_t word = xi_load_full(lock);
    if (word != 0) return holder_is_gone(r, word);
    return wrong && xi_do_cas32(lock, 0, XI_LOCK_OF(0));
}

/* Whoever sleeps for the lock beside it: even and larger, so that nobody falls asleep on what it was. */
static void wake_lock(const struct xi_world *world, xi_a32 *lock_sleep) {
    XI_REPAIR_STEP();
    (void)xi_add_full(lock_sleep, 2u - (xi_load_full(lock_sleep) & 1u));
    xi_do_wake(world, lock_sleep, INT_MAX);
}

void xi_free_lock(const struct xi_world *world, xi_a32 *lock, xi_a32 *lock_sleep) {
    XI_REPAIR_STEP();
    (void)xi_exchange_full(lock, 0u);
    wake_lock(world, lock_sleep);
}

/* Somebody killed between freeing a lock and waking its waiters leaves no trace, so they are woken whatever it says. */
static void wake_locks(const struct repair *r) {
    wake_lock(r->world, &r->chan->lock_sleep);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        struct xi_group *group = &r->chan->groups[g];
        if (xi_load_acquire(&group->state) != XI_GROUP_FREE || xi_load_acquire(&group->lock) != 0)
            wake_lock(r->world, &group->lock_sleep);
    }
}

/* --------------------------------------------------------------- releases */

void xi_release_block(const struct xi_world *world, const struct xi_block_name *block, uint32_t group) {
    struct xi_release *release = world->release(world->context, block->segment, block->granule);
    if (release == NULL || group >= XI_MAX_GROUPS || block->generation == 0 || block->generation > XI_GENERATION_MAX)
        return;
    xi_a64 *word = &release->word[XI_RELEASE_WORD(group)];
    uint64_t value = xi_load_full(word), bit = XI_RELEASE_BIT(group);
    /* Each of the 16 bits is set once while the generation lasts; whoever flips them for longer keeps its own block. */
    for (int tries = 0; tries < 64 && value >> 16 == block->generation && !(value & bit); tries++)
        if (xi_do_cas64(word, &value, value | bit)) return;
}

/* A block with a free function has come back: its owner must look. */
void xi_tell_owner_of(const struct xi_world *world, uint32_t segment) {
    uint32_t slot = world->owner_of(world->context, segment);
    struct xi_mailbox *mailbox = slot != 0 ? world->mailbox(world->context, slot) : NULL;
    if (mailbox == NULL) return;
    XI_REPAIR_STEP();
    xi_store_full(&mailbox->reclaim, 1u);
    uint32_t bell = xi_load_full(&mailbox->reclaim_bell);
    if (bell != 0 && bell <= XI_BELLS_USABLE) (void)xi_ring_bell(mailbox, bell - 1, world);
}

/* ------------------------------------------------------------------ calls */

/*
 * Nobody will reply to a request: turns its caller's word, and rings. After a death it may be that the dead one had replied:
 * then the reply is in the caller's lane, which was repaired before this, and counts. A broker that was killed after turning
 * the word had perhaps not rung yet.
 */
static void refuse_call(const struct xi_world *world, uint32_t slot, uint32_t index, uint64_t generation) {
    struct xi_mailbox *mailbox = slot != 0 && slot < XI_MAX_INTERPS ? world->mailbox(world->context, slot) : NULL;
    uint64_t waiting = generation << 8 | XI_CALL_WAITING, died = generation << 8 | XI_CALL_DIED;
    if (mailbox == NULL || index >= XI_MAX_CALLS) return;
    if (xi_do_cas64(&mailbox->calls[index], &waiting, died) || waiting == died) xi_ring_sleepers(mailbox, world);
}

/* Of a record that ends with who asks. */
static void refuse_request(const struct xi_chan_view *view, const struct xi_record *record, const struct xi_world *world) {
    uint64_t at = record->next - XI_REC_EXTRA(record->header);
    uint64_t who = xi_load_acquire(xi_ring_at(view, at)), generation = xi_load_acquire(xi_ring_at(view, at + 8));
    static_assert(offsetof(struct xi_call_ref, index) == 4 && offsetof(struct xi_call_ref, generation) == 8, "taken apart");
    refuse_call(world, (uint32_t)who, (uint32_t)(who >> 32), generation);
}

/* ------------------------------------------------------------- the records */

struct chain {
    uint64_t end; /* position after the last valid record */
    uint64_t records;
    uint16_t first, last; /* number bits of the records */
    bool clean;           /* a zero header follows, as must be */
};

/* Follows valid records with consecutive numbers from `from`; none, nor the header after it, reaches beyond `limit`. */
static struct chain follow(const struct xi_chan_view *view, uint64_t from, uint64_t limit) {
    struct chain chain = {.end = from};
    struct xi_record record;
    while (xi_record_read(view, chain.end, limit - 8, &record)) {
        if (chain.records > 0 && XI_REC_SEQ(record.header) != (uint16_t)(chain.last + 1)) break;
        if (!xi_position_plausible(record.next)) break; /* from a position that somebody wrote */
        chain.last = XI_REC_SEQ(record.header);
        if (chain.records == 0) chain.first = chain.last;
        chain.end = record.next;
        chain.records++;
    }
    chain.clean = xi_load_acquire(xi_ring_at(view, chain.end)) == 0;
    return chain;
}

/* True if a group with this head may be, given the tail; `exact`: no living producer is ahead of the tail. */
static bool head_explained(const struct xi_chan_view *view, uint64_t head, uint64_t tail, bool exact) {
    struct xi_record record;
    if (!xi_position_plausible(head) || head < xi_lowest_head(view, tail)) return false;
    if (head >= tail) return head <= (exact ? tail : tail + view->capacity);
    return xi_record_read(view, head, tail, &record);
}

/* The smallest head of the active groups, of those that lie in the ring before `tail`; the tail if there is none. */
static uint64_t smallest_head(const struct xi_chan_view *view, uint64_t tail) {
    uint64_t smallest = tail, lowest = xi_lowest_head(view, tail);
    uint64_t active = xi_load_acquire(&view->chan->active);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        uint64_t head = xi_load_acquire(&view->chan->groups[g].head);
        if ((active >> g & 1) && xi_position_plausible(head) && head >= lowest && head < smallest) smallest = head;
    }
    return smallest;
}

/* --------------------------------------------- the tail, under the producers' lock */

/* True if some active group's head lies where it can with this tail, or no group says anything. */
static bool tail_explained(const struct xi_chan_view *view, uint64_t tail) {
    if (!xi_position_plausible(tail) || !xi_position_plausible(tail + view->capacity)) return false;
    uint64_t active = xi_load_acquire(&view->chan->active);
    uint64_t lowest = xi_lowest_head(view, tail), highest = tail + view->capacity;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        uint64_t head = xi_load_acquire(&view->chan->groups[g].head);
        if ((active >> g & 1) && xi_position_plausible(head) && head >= lowest && head <= highest) return true;
    }
    return active == 0;
}

/* What a group's head says of the tail. */
struct witness {
    struct chain chain;
    bool agrees; /* the numbers stored agree with the records: not by chance */
};

static struct witness ask_group(const struct xi_chan_view *view, uint32_t g) {
    struct xi_group *group = &view->chan->groups[g];
    uint64_t head = xi_load_acquire(&group->head), sent = xi_load_acquire(&view->chan->tail_seq);
    bool active = xi_load_acquire(&view->chan->active) >> g & 1;
    if (!active || !xi_position_plausible(head)) return (struct witness){.agrees = false};
    struct chain chain = follow(view, head, head + view->capacity);
    uint64_t received = xi_load_acquire(&group->head_seq);
    bool agrees =
        chain.records > 0 ? chain.first == (uint16_t)(received + 1) && chain.last == (uint16_t)sent : received == sent;
    return (struct witness){chain, agrees && chain.clean};
}

static bool says_more(const struct witness *a, const struct witness *b) {
    if (a->agrees != b->agrees) return a->agrees;
    if (a->chain.records != b->chain.records) return a->chain.records > b->chain.records;
    return a->chain.end > b->chain.end;
}

/*
 * No head agrees with the stored tail: one of them is garbage. Records that lead from the number after the one last
 * received to the one last sent prove a head right. Without any, positions do not go back without need: borrow entries
 * are judged by them.
 */
static uint64_t find_tail(const struct xi_chan_view *view, uint64_t stored) {
    struct witness best = {.agrees = false};
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        struct witness other = ask_group(view, g);
        if (says_more(&other, &best)) best = other;
    }
    uint64_t end = best.chain.end;
    if (!xi_position_plausible(stored)) return end;
    if (!best.agrees) return stored;
    return best.chain.records == 0 && stored > end ? stored : end;
}

static uint64_t largest_number(const struct xi_chan_view *view) {
    uint64_t active = xi_load_acquire(&view->chan->active), largest = 0;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        uint64_t number = xi_load_acquire(&view->chan->groups[g].head_seq);
        if ((active >> g & 1) && xi_number_plausible(number) && number > largest) largest = number;
    }
    return largest;
}

static void repair_tail(const struct repair *r) {
    const struct xi_chan_view *view = r->view;
    struct xi_chan *chan = r->chan;
    uint64_t stored = xi_load_acquire(&chan->tail), stored_number = xi_load_acquire(&chan->tail_seq);
    uint64_t tail = tail_explained(view, stored) ? stored : find_tail(view, stored);
    uint64_t number = xi_number_plausible(stored_number) ? stored_number : largest_number(view);
    struct chain chain = follow(view, tail, smallest_head(view, tail) + view->capacity);
    if (!chain.clean) /* no order of stores leaves anything but 0 after the last record */
        xi_put64(xi_ring_at(view, chain.end), 0);
    if (chain.records > 0) /* a batch is at most 32,768 records, so 16 bits tell which */
        number += (uint16_t)(chain.last - (uint16_t)number);
    if (number != stored_number) xi_put64(&chan->tail_seq, number);
    if (chain.end != stored) xi_put64(&chan->tail, chain.end);
}

uint64_t xi_tail_number(const struct xi_chan_view *view) {
    uint64_t tail = xi_load_acquire(&view->chan->tail), number = xi_load_acquire(&view->chan->tail_seq);
    if (!tail_explained(view, tail) || !xi_number_plausible(number)) return number;
    struct chain chain = follow(view, tail, smallest_head(view, tail) + view->capacity);
    return chain.records > 0 ? number + (uint16_t)(chain.last - (uint16_t)number) : number;
}

static void repair_min_head(const struct repair *r) {
    uint64_t smallest = smallest_head(r->view, xi_load_acquire(&r->chan->tail));
    if (xi_load_acquire(&r->chan->min_head) != smallest) xi_put64(&r->chan->min_head, smallest);
}

/* --------------------------------------------------- a head, under its lock */

/* What the head can be compared with. */
struct tail_view {
    uint64_t tail, number;
    bool exact; /* no living producer was ahead of this tail */
    bool ours;  /* the producers' lock is: both numbers are of one moment */
};

static struct tail_view look_at_tail(const struct repair *r, bool producers_ours) {
    /* The lock first: when it is free, whoever sent what the dead one received has stored its tail before freeing it.
     */
    bool is_free = xi_load_full(&r->chan->lock) == 0;
    struct tail_view t = {.exact = producers_ours || is_free, .ours = producers_ours};
    t.number = xi_load_acquire(&r->chan->tail_seq);
    t.tail = xi_load_acquire(&r->chan->tail);
    XI_REPAIR_STEP(); /* for a test that lets the living go on between this look and what follows */
    return t;
}

/* With the head right, the record there (numbers differ by at most one batch) or the tail tells the number. */
static void repair_head_number(const struct repair *r, struct xi_group *group, const struct tail_view *t) {
    uint64_t head = xi_load_acquire(&group->head), stored = xi_load_acquire(&group->head_seq), number = stored;
    struct xi_record record;
    if (xi_record_read(r->view, head, head + r->view->capacity, &record)) {
        uint64_t base = xi_number_plausible(stored) || !xi_number_plausible(t->number) ? stored : t->number;
        int16_t ahead = (int16_t)(uint16_t)(XI_REC_SEQ(record.header) - (uint16_t)(base + 1));
        number = base + (uint64_t)(int64_t)ahead;
    } else if (t->ours && head == t->tail) {
        number = t->number;
    }
    if (number != stored) xi_put64(&group->head_seq, number);
}

static void repair_head(const struct repair *r, uint32_t g, const struct tail_view *t) {
    struct xi_group *group = &r->chan->groups[g];
    if (!xi_position_plausible(t->tail))
        return; /* a living producer's lock guards garbage: its death will be the time to judge */
    bool explained = head_explained(r->view, xi_load_acquire(&group->head), t->tail, t->exact);
    if (explained && xi_repair_flying(r->view, g, r->world)) return; /* it has more to say of both than the head */
    bool acknowledges = xi_load_acquire(&group->flags) & XI_GROUP_F_ACK;
    if (explained) {
        repair_head_number(r, group, t);
    } else {
        xi_put64(&group->head_seq, t->number);
        xi_put64(&group->head, t->tail);
    }
    if (acknowledges) xi_reset_flying(r->view, g, r->world);
    if (!explained || acknowledges) xi_put64(&group->corrupt, xi_load_relaxed(&group->corrupt) + 1);
}

/* Borrow entries of a receive that the dead one had begun in this group and not finished never happened. */
static void judge_borrows(const struct repair *r, uint32_t g) {
    uint64_t head = xi_load_acquire(&r->chan->groups[g].head);
    for (size_t c = 0; c < r->dead->borrow_chunks; c++) {
        const struct xi_borrow_view *chunk = &r->dead->borrows[c];
        for (size_t i = 0; i < chunk->count; i++) {
            struct xi_borrow *b = &chunk->entries[i];
            uint64_t key = xi_load_acquire(&b->key);
            if (key != 0 && XI_BORROW_GROUP(key) == g && xi_load_acquire(&b->chan_seg) == r->view->segment &&
                xi_load_acquire(&b->position) >= head)
                xi_put64(&b->key, 0);
        }
    }
}

static bool is_retaining(const struct xi_chan_view *view, uint32_t g) { return view->retains && g == XI_GROUP_RETAIN; }

/* True if the block has been released for the group, or has another life, or is gone. */
static bool given_up(const struct repair *r, uint64_t position, uint32_t g) {
    struct xi_block_name block = xi_block_read(r->view, position);
    struct xi_release *release = r->world->release(r->world->context, block.segment, block.granule);
    uint64_t word = release ? xi_load_full(&release->word[XI_RELEASE_WORD(g)]) : 0;
    return !release || word >> 16 != block.generation || word & XI_RELEASE_BIT(g);
}

/* The group of retained values, which the producers' lock guards. Whoever joined at a value that was given up would find
 * its block gone. */
static void repair_retained(struct repair *r) {
    struct xi_group *group = &r->chan->groups[XI_GROUP_RETAIN];
    struct tail_view t = look_at_tail(r, true);
    struct xi_record record;
    repair_head(r, XI_GROUP_RETAIN, &t);
    uint64_t steps = r->view->capacity / 16; /* a record each: more there are not, whatever is written to the head meanwhile */
    for (uint64_t head; (head = xi_load_acquire(&group->head)) < t.tail && steps > 0; steps--) {
        if (!xi_record_read(r->view, head, t.tail, &record) || !XI_REC_IS_BLOCK(record.header) ||
            !given_up(r, head, XI_GROUP_RETAIN))
            return;
        xi_put64(&group->head_seq, xi_load_acquire(&group->head_seq) + 1);
        xi_put64(&group->head, record.next);
    }
}

static void repair_group(struct repair *r, uint32_t g, bool producers_ours) {
    struct xi_group *group = &r->chan->groups[g];
    if (is_retaining(r->view, g)) {
        if (producers_ours && !r->view->lost && xi_load_acquire(&r->chan->active) & XI_RETAIN_BIT) repair_retained(r);
        if (seize(r, &group->lock, false)) xi_free_lock(r->world, &group->lock, &group->lock_sleep);
        return;
    }
    struct tail_view t = look_at_tail(r, producers_ours);
    bool active = xi_load_acquire(&r->chan->active) >> g & 1;
    bool wrong = active && !r->view->lost && !head_explained(r->view, xi_load_acquire(&group->head), t.tail, t.exact);
    if (!seize(r, &group->lock, wrong)) return;
    t = look_at_tail(r, producers_ours); /* again: until now the head may have moved, and the tail before it */
    bool known = !moved(r) && !r->view->lost;
    if (known && (active || xi_load_acquire(&group->state) != XI_GROUP_FREE)) repair_head(r, g, &t);
    judge_borrows(r, g);
    xi_free_lock(r->world, &group->lock, &group->lock_sleep);
}

/* --------------------------------------- a `ring` that names none, under the producers' lock */

/* The locks of the active groups; false, and none of them taken, when a living process holds one. */
static bool seize_groups(const struct repair *r, uint64_t *taken) {
    uint64_t active = xi_load_acquire(&r->chan->active);
    bool all = true;
    *taken = 0;
    for (uint32_t g = 0; all && g < XI_MAX_GROUPS; g++) {
        xi_a32 *lock = &r->chan->groups[g].lock;
        if (!(active >> g & 1) || (xi_load_full(lock) != 0 && holder_is_gone(r, xi_load_full(lock)))) continue;
        all = xi_do_cas32(lock, 0, XI_LOCK_OF(0));
        if (all) *taken |= (uint64_t)1 << g;
    }
    return all;
}

static void free_groups(const struct repair *r, uint64_t taken) {
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if (taken >> g & 1) xi_free_lock(r->world, &r->chan->groups[g].lock, &r->chan->groups[g].lock_sleep);
}

/* Where to go on: at the tail, or where somebody has come to. */
static uint64_t plausible_tail(const struct repair *r) {
    uint64_t tail = xi_load_acquire(&r->chan->tail), active = xi_load_acquire(&r->chan->active), most = 0;
    if (xi_position_plausible(tail)) return tail;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        uint64_t head = xi_load_acquire(&r->chan->groups[g].head);
        if ((active >> g & 1) && xi_position_plausible(head) && head > most) most = head;
    }
    return most;
}

/*
 * Nobody can tell where the channel's records are, nor can they be in its own ring, where what lies there is old. It
 * begins anew there, empty: every group goes on at the tail, and group.corrupt counts it. True if that could be done.
 */
static bool bring_home(const struct repair *r) {
    uint64_t taken, tail = plausible_tail(r);
    bool all = seize_groups(r, &taken);
    for (uint32_t g = 0; all && g < XI_MAX_GROUPS; g++) {
        struct xi_group *group = &r->chan->groups[g];
        if (!(xi_load_acquire(&r->chan->active) >> g & 1)) continue;
        xi_put64(&group->head_seq, xi_load_acquire(&r->chan->tail_seq));
        xi_put64(&group->head, tail);
        xi_reset_flying(r->view, g, r->world);
        xi_put64(&group->corrupt, xi_load_relaxed(&group->corrupt) + 1);
    }
    if (all) {
        if (!r->view->bare) xi_put64(xi_ring_at(r->view, tail), 0);
        xi_put64(&r->chan->tail, tail);
        xi_put64(&r->chan->ring, 0);
    }
    free_groups(r, taken);
    return all;
}

/* ------------------------------------- joins and ends, under the producers' lock */

/* Releases, for this group, every block between its head and the tail. */
static void drain(const struct xi_chan_view *view, uint32_t g, const struct xi_world *world) {
    uint64_t tail = xi_load_acquire(&view->chan->tail);
    uint64_t position = xi_load_acquire(&view->chan->groups[g].head);
    uint64_t number = xi_load_acquire(&view->chan->groups[g].head_seq);
    struct xi_record record;
    /* Whoever received in a group that has a name was to serve; who has a group of its own may only have listened. */
    bool served = xi_load_acquire(&view->chan->groups[g].owner) == 0 && !(view->chan->retain && g == XI_GROUP_RETAIN) &&
                  xi_load_acquire(&view->chan->closed) != XI_CHAN_REMOVED; /* its callers see that for themselves */
    if (view->lost || !xi_position_plausible(tail) || !xi_position_plausible(position) ||
        position < xi_lowest_head(view, tail))
        return;
    for (; position < tail && xi_record_read(view, position, tail, &record); position = record.next) {
        number++;
        if (served && XI_REC_FLAGS(record.header) & XI_REC_F_CALL) refuse_request(view, &record, world);
        if (XI_REC_KIND(record.header) != XI_REC_BLOCK || !xi_end_flying(view, g, world, number, &record)) continue;
        struct xi_block_name block = xi_block_read(view, position);
        xi_release_block(world, &block, g);
        if (XI_REC_FLAGS(record.header) & XI_REC_F_FREE) xi_tell_owner_of(world, block.segment);
    }
}

static void end_group(const struct xi_chan_view *view, uint32_t g, const struct xi_world *world) {
    uint64_t bit = (uint64_t)1 << g;
    struct xi_group *group = &view->chan->groups[g];
    if (xi_load_acquire(&view->chan->active) & bit) (void)xi_do_and(&view->chan->active, ~bit);
    xi_put64(&group->life, xi_load_acquire(&group->life) + 1); /* once more than need be does no harm */
    xi_put32(&group->state, XI_GROUP_ENDING);
    drain(view, g, world);
    xi_put32(&group->state, XI_GROUP_FREE);
}

/* True if join and end have left bit and state as they are between two operations. */
static bool group_settled(struct xi_chan *chan, uint32_t g) {
    bool active = xi_load_acquire(&chan->active) >> g & 1;
    uint32_t state = xi_load_acquire(&chan->groups[g].state);
    return active ? state == XI_GROUP_ACTIVE : state == XI_GROUP_FREE;
}

/*
 * Bit clear: an end that is not finished, or a join, to which nothing has been sent (head == tail, so draining does
 * nothing). Bit set and not ACTIVE: garbage; where nobody can be receiving the group goes.
 */
static void settle_group(const struct repair *r, uint32_t g) {
    struct xi_group *group = &r->chan->groups[g];
    bool active = xi_load_acquire(&r->chan->active) >> g & 1;
    uint32_t state = xi_load_acquire(&group->state);
    if (active && state != XI_GROUP_FREE && state != XI_GROUP_ENDING)
        xi_put32(&group->state, XI_GROUP_ACTIVE); /* garbage; the bit decides */
    else
        end_group(r->view, g, r->world);
}

/*
 * Group 0 of a queue is there from its making to its end. Without it whatever is sent would vanish, so it is put back
 * whoever took it away; to be done before the heads are looked at.
 */
static bool queue_lost_its_group(const struct xi_chan_view *view) {
    if (xi_load_acquire(&view->chan->closed) == XI_CHAN_REMOVED) return false;
    return view->chan->mode == XI_QUEUE && !((xi_load_acquire(&view->chan->active) & 1) &&
                                             xi_load_acquire(&view->chan->groups[0].state) == XI_GROUP_ACTIVE);
}

static void restore_queue(const struct repair *r) {
    if (!queue_lost_its_group(r->view)) return;
    xi_put32(&r->chan->groups[0].state, XI_GROUP_ACTIVE);
    xi_do_or(&r->chan->active, 1);
}

/* ------------------------------------------------------------- the channel */

/* True if something that the producers' lock guards is as no operation leaves it. Racy: looked at again under the lock.
 */
static bool producers_wrong(const struct xi_chan_view *view) {
    struct xi_chan *chan = view->chan;
    uint64_t min_head = xi_load_acquire(&chan->min_head), tail = xi_load_acquire(&chan->tail);
    if (!tail_explained(view, tail) || !xi_number_plausible(xi_load_acquire(&chan->tail_seq)) ||
        xi_load_acquire(xi_ring_at(view, tail)) != 0 || xi_load_acquire(&chan->ring_next) != 0)
        return true;
    if (!xi_position_plausible(min_head) || min_head > smallest_head(view, tail)) return true;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if (!group_settled(chan, g)) return true;
    const uint64_t kept_from = xi_load_acquire(&chan->groups[XI_GROUP_RETAIN].head);
    if (view->retains && xi_load_acquire(&chan->active) & XI_RETAIN_BIT && !head_explained(view, kept_from, tail, true))
        return true;
    return queue_lost_its_group(view);
}

/* The producers' lock is ours: all but the groups' heads. */
static void repair_producers(struct repair *r) {
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if (!group_settled(r->chan, g)) settle_group(r, g);
    repair_min_head(r);
    if (xi_load_acquire(&r->chan->ring_next) != 0) xi_put64(&r->chan->ring_next, 0);
    xi_free_lock(r->world, &r->chan->lock, &r->chan->lock_sleep);
}

bool xi_repair_channel(const struct xi_chan_view *view, const struct xi_dead *dead, const struct xi_world *world) {
    struct xi_chan_view here = *view;
    struct repair r = {&here, view->chan, dead, world, false};
    bool producers = seize(&r, &view->chan->lock, view->lost || producers_wrong(view));
    if (producers && moved(&r)) {
        xi_free_lock(world, &view->chan->lock, &view->chan->lock_sleep);
        producers = false;
    }
    if (producers) restore_queue(&r);
    if (producers && here.lost && bring_home(&r)) {
        here.lost = false;
        here.word = 0;
    }
    if (producers && !here.lost) repair_tail(&r);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) repair_group(&r, g, producers);
    if (producers) repair_producers(&r);
    xi_forget_waiters(&here, dead);
    wake_locks(&r);
    xi_ring_channel(&here, world);
    return !r.stale;
}

/* ------------------------------------------------------- groups that end with it */

static bool ends_with(struct xi_chan *chan, uint32_t g, const struct xi_dead *dead) {
    struct xi_group *group = &chan->groups[g];
    return (xi_load_acquire(&chan->active) >> g & 1) && dead->slot != 0 &&
           xi_load_acquire(&group->owner) == dead->slot && xi_load_acquire(&group->owner_id) == (uint64_t)dead->id;
}

/* Under the producers' lock. False if a living process is receiving in the group. */
static bool end_owned(const struct xi_chan_view *view, uint32_t g, const struct xi_world *world) {
    struct xi_group *group = &view->chan->groups[g];
    if (!xi_take_lock(view, world, &group->lock)) return false;
    end_group(view, g, world);
    xi_free_lock(world, &group->lock, &group->lock_sleep);
    return true;
}

bool xi_repair_groups(const struct xi_chan_view *view, const struct xi_dead *dead, const struct xi_world *world) {
    struct xi_chan *chan = view->chan;
    uint64_t due = 0;
    bool done;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if (ends_with(chan, g, dead)) due |= (uint64_t)1 << g;
    if (due == 0) return true;
    if (!xi_take_lock(view, world, &chan->lock)) return false;
    if (xi_view_stale(view)) due = 0;
    done = due != 0;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if ((due >> g & 1) && ends_with(chan, g, dead) && !end_owned(view, g, world)) done = false;
    xi_free_lock(world, &chan->lock, &chan->lock_sleep);
    xi_ring_channel(view, world); /* producers that waited for the groups that are gone */
    return done;
}

bool xi_end_channel(const struct xi_chan_view *view, const struct xi_world *world) {
    struct xi_chan *chan = view->chan;
    bool done = true;
    xi_put32(&chan->closed, XI_CHAN_REMOVED);
    if (!xi_take_lock(view, world, &chan->lock)) {
        done = false;
    } else {
        bool stale = xi_view_stale(view);
        done = !stale;
        for (uint32_t g = 0; !stale && g < XI_MAX_GROUPS; g++) {
            bool there = xi_load_acquire(&chan->groups[g].state) != XI_GROUP_FREE || (xi_load_acquire(&chan->active) >> g & 1);
            if (there && !end_owned(view, g, world)) done = false;
        }
        xi_free_lock(world, &chan->lock, &chan->lock_sleep);
    }
    xi_ring_channel(view, world);
    return done;
}

/* ------------------------------------------------------------ a drained ring */

/* True if every active group has received everything, and nobody is sending; exact under all their locks. */
static bool drained(const struct xi_chan_view *view, uint64_t tail) {
    struct xi_chan *chan = view->chan;
    uint64_t active = xi_load_acquire(&chan->active);
    if (view->word == 0 || view->lost || view->bare || xi_load_acquire(&chan->ring) != view->word || !xi_position_plausible(tail) ||
        xi_load_acquire(xi_ring_at(view, tail)) != 0)
        return false;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if ((active >> g & 1) && xi_load_acquire(&chan->groups[g].head) != tail) return false;
    return true;
}

bool xi_ring_drained(const struct xi_chan_view *view, uint64_t *tail) {
    *tail = xi_load_acquire(&view->chan->tail);
    return drained(view, *tail);
}

/* As any mover does, with nothing to copy but the empty place at the tail. */
bool xi_ring_home(const struct xi_chan_view *view, uint64_t capacity, const struct xi_world *world) {
    const struct xi_dead nobody = {.slot = 0};
    const struct repair r = {view, view->chan, &nobody, world, false};
    struct xi_chan_view home = *view;
    uint64_t taken, tail;
    home.ring = (uint8_t *)view->chan + XI_RING_OFFSET;
    home.capacity = capacity;
    if (!xi_take_lock(view, world, &view->chan->lock)) return false;
    bool can = seize_groups(&r, &taken) && xi_ring_drained(view, &tail);
    if (can) {
        xi_put64(xi_ring_at(&home, tail), 0);
        XI_REPAIR_STEP();
        xi_store_full(&view->chan->ring, 0);
        xi_bump(&view->chan->shrunk, 1);
    }
    free_groups(&r, taken);
    xi_free_lock(world, &view->chan->lock, &view->chan->lock_sleep);
    return can;
}

/* ----------------------------------------------------------------- borrows */

void xi_repair_borrows(const struct xi_dead *dead, const struct xi_world *world) {
    for (size_t c = 0; c < dead->borrow_chunks; c++) {
        for (size_t i = 0; i < dead->borrows[c].count; i++) {
            struct xi_borrow *b = &dead->borrows[c].entries[i];
            uint64_t key = xi_load_acquire(&b->key);
            if (key == 0) continue;
            uint64_t where = xi_load_acquire(&b->block);
            uint32_t call = xi_load_acquire(&b->call);
            if (call != 0) {
                refuse_call(world, (uint32_t)(where >> 32), call - 1, XI_BORROW_GENERATION(key));
                xi_put64(&b->key, 0);
                continue;
            }
            struct xi_block_name block = {(uint32_t)(where >> 32), (uint32_t)where, XI_BORROW_GENERATION(key)};
            xi_release_block(world, &block, XI_BORROW_GROUP(key));
            xi_tell_owner_of(world, block.segment); /* whether it has a free function is not written here */
            xi_put64(&b->key, 0);
        }
    }
}
