/* SPDX-License-Identifier: MIT */
/*
 * Repair of groups that acknowledge. libxi/wire/layout.h ("Groups that
 * acknowledge") gives the orders of stores; this is what each place to be killed
 * looks like.
 *
 *   delivering   next_seq decides. An entry beyond it is freed. `next` is where
 *                the record of next_seq ends, by that one's entry.
 *   again        the state decides; `count` may be one ahead of it, which whoever
 *                reads it sees. Its taker is dead: it goes back.
 *   counting     of a value that goes to nobody: DONE decides, as below.
 *   acknowledging  DONE decides. Blocks of all that is DONE are released (again),
 *                the head moves past those in a row, by the entry behind them.
 *   giving back  the state decides, and the taker is dead in any case.
 *   moving       judged by `due` and the other channel's lock and number, while
 *                that lock is still the dead one's: so before any is freed.
 *   lingering    a word names the dead one: dropped as by the living, the bit
 *                first. One that names a delivery which is out still was written
 *                too soon: dropped.
 *
 * What the dead one held of living consumers' deliveries (its lock) is put right
 * at once, with its other locks. What it had itself needs the group's lock, which
 * a living consumer may hold: so that comes later, as the end of groups does.
 *
 * tests/model/acks.pml explores these steps, by the names of the functions here, beside the living; lingers.pml those about blocks.
 */
#include "repair_internal.h"

struct table {
    struct xi_acks *acks;
    uint64_t window;
    const struct xi_chan_view *view;
    const struct xi_world *world;
    struct xi_group *group;
    uint32_t g;
};

/* Numbers head_seq + 1 to next_seq are in flight. */
struct flying {
    uint64_t head, head_seq, next, next_seq;
};

static struct xi_delivery *entry_of(const struct table *t, uint64_t number) {
    return &t->acks->entries[number & (t->window - 1)];
}

static struct xi_linger *lingering_of(const struct table *t) { return XI_ACKS_LINGERS(t->acks, t->window); }

/* The table `number` of the group g, if it is one. */
static bool table_open(const struct xi_chan_view *view, uint32_t g, uint32_t number, const struct xi_world *world,
                       struct table *t) {
    *t = (struct table){.view = view, .world = world, .group = &view->chan->groups[g], .g = g};
    t->acks = world->acks(world->context, number, view->segment, &t->window);
    return t->acks != NULL && t->acks->group == g;
}

static bool acknowledges(struct xi_group *group) { return xi_load_acquire(&group->flags) & XI_GROUP_F_ACK; }

static bool table_of(const struct xi_chan_view *view, uint32_t g, const struct xi_world *world, struct table *t) {
    struct xi_group *group = &view->chan->groups[g];
    return acknowledges(group) && table_open(view, g, xi_load_acquire(&group->acks_seg), world, t);
}

static struct flying flying_read(const struct table *t) {
    struct xi_group *g = t->group;
    return (struct flying){xi_load_acquire(&g->head), xi_load_acquire(&g->head_seq), xi_load_acquire(&g->next),
                           xi_load_acquire(&g->next_seq)};
}

static bool flying_plausible(const struct table *t, const struct flying *f) {
    return xi_number_plausible(f->head_seq) && f->next_seq - f->head_seq <= t->window;
}

static uint32_t status_of(const struct table *t, uint64_t number) {
    return XI_DELIVERY_STATUS(xi_load_acquire(&entry_of(t, number)->state));
}

static void set_status(const struct table *t, uint64_t number, uint32_t status) {
    struct xi_delivery *d = entry_of(t, number);
    xi_put64(&d->state, (xi_load_acquire(&d->state) & ~(uint64_t)0xff) | status);
}

/* The record of a value in flight, where its entry says. */
static bool record_of(const struct table *t, const struct flying *f, uint64_t number, struct xi_record *out) {
    uint64_t position = xi_load_acquire(&entry_of(t, number)->position);
    return xi_position_plausible(position) && position >= f->head && position - f->head < t->view->capacity &&
           xi_record_read(t->view, position, f->head + t->view->capacity, out) &&
           XI_REC_SEQ(out->header) == (uint16_t)number;
}

/* ------------------------------------------------------------------ blocks */

static bool same_block(struct xi_linger *l, const struct xi_block_name *b) {
    return xi_load_acquire(&l->holder) != 0 && xi_load_acquire(&l->generation) == b->generation &&
           xi_load_acquire(&l->block) == ((uint64_t)b->segment << 32 | b->granule);
}

/* True if somebody may still be reading it; other than the word `but`, where that is not NULL. */
static bool lingers(const struct table *t, const struct xi_block_name *b, const struct xi_linger *but) {
    struct xi_linger *words = lingering_of(t);
    for (uint64_t i = 0; i < t->window; i++)
        if (&words[i] != but && same_block(&words[i], b)) return true;
    return false;
}

static void release_block(const struct table *t, const struct xi_record *record) {
    if (XI_REC_KIND(record->header) != XI_REC_BLOCK) return;
    struct xi_block_name b = xi_block_read(t->view, record->position);
    if (lingers(t, &b, NULL)) return; /* the last of them releases it */
    xi_release_block(t->world, &b, t->g);
    if (XI_REC_FLAGS(record->header) & XI_REC_F_FREE) xi_tell_owner_of(t->world, b.segment);
}

/* ------------------------------------------- what the lock guards, in order again */

/* As it is done by whoever acknowledges. */
static void settle(const struct table *t) {
    struct flying f = flying_read(t);
    struct xi_record record;
    uint64_t n = f.head_seq;
    while (n != f.next_seq && status_of(t, n + 1) == XI_DELIVERY_DONE) n++;
    if (n == f.head_seq || (n != f.next_seq && !record_of(t, &f, n + 1, &record))) return;
    xi_put64(&t->group->head_seq, n);
    xi_put64(&t->group->head, n == f.next_seq ? f.next : record.position);
    for (uint64_t k = f.head_seq + 1; k != n + 1; k++) xi_put64(&entry_of(t, k)->state, 0);
}

static void free_strays(const struct table *t, const struct flying *f) {
    for (uint64_t i = 0; i < t->window; i++) {
        uint64_t number = f->head_seq + 1 + ((i - f->head_seq - 1) & (t->window - 1)); /* the one from there on with this entry */
        if (number - f->head_seq > f->next_seq - f->head_seq && xi_load_acquire(&entry_of(t, number)->state) != 0)
            xi_put64(&entry_of(t, number)->state, 0);
    }
}

static void mend_entries(const struct table *t, const struct flying *f) {
    bool timed = t->acks->timeout_ns != 0;
    for (uint64_t n = f->head_seq + 1; n != f->next_seq + 1; n++) {
        struct xi_delivery *d = entry_of(t, n);
        struct xi_record record;
        uint32_t status = status_of(t, n);
        bool never = xi_load_acquire(&d->due) == UINT64_MAX;
        /* On the way from OUT or MOVING to another state: no value is left with nobody who will ever look at it. */
        if (never && (status == XI_DELIVERY_READY || (status == XI_DELIVERY_OUT && timed))) xi_put64(&d->due, 0);
        if (status == XI_DELIVERY_DONE && record_of(t, f, n, &record)) release_block(t, &record);
    }
}

/*
 * A word for who has a delivery still, which is told by the delivery's state: whoever was about to give the value to another wrote it, and
 * died before that. It would outlive the delivery, and keep its block.
 */
static void mend_words(const struct table *t, const struct flying *f) {
    struct xi_linger *words = lingering_of(t);
    if (!(xi_load_acquire(&t->view->chan->active) >> t->g & 1)) return; /* at a group's end there are words for all that is out */
    for (uint64_t i = 0; i < t->window; i++) {
        uint64_t holder = xi_load_acquire(&words[i].holder), number = xi_load_acquire(&words[i].number);
        if (holder != 0 && number - f->head_seq - 1 < f->next_seq - f->head_seq && xi_load_acquire(&entry_of(t, number)->state) == holder)
            xi_put64(&words[i].holder, 0);
    }
}

/* A value that went to nobody is counted if it is DONE; were it not, it would be offered again. */
static void mend_count(const struct table *t, const struct flying *f) {
    uint64_t counting = xi_load_acquire(&t->group->counting), number = counting >> 2;
    if (counting == 0) return;
    if (number - f->head_seq - 1 < f->next_seq - f->head_seq && status_of(t, number) == XI_DELIVERY_DONE)
        xi_put64(xi_gone_counter(t->group, counting & 3), xi_load_acquire(&t->group->count_to));
    xi_put64(&t->group->counting, 0);
}

/* Where head and next are, by the entries. False: the table cannot be. */
static bool find_ends(const struct table *t, const struct flying *f, uint64_t *head, uint64_t *next) {
    struct xi_record first, last;
    if (f->next_seq == f->head_seq) {
        /* The head may be on its way to next, never the other way round. */
        bool ahead = xi_position_plausible(f->next) && f->next >= f->head && f->next - f->head <= t->view->capacity;
        *head = *next = ahead ? f->next : f->head;
        return ahead;
    }
    if (!record_of(t, f, f->head_seq + 1, &first) || !record_of(t, f, f->next_seq, &last)) return false;
    *head = first.position;
    *next = last.next;
    return *head < *next;
}

bool xi_repair_flying(const struct xi_chan_view *view, uint32_t g, const struct xi_world *world) {
    struct table t;
    uint64_t head, next;
    if (!acknowledges(&view->chan->groups[g])) return false;
    if (!table_of(view, g, world, &t)) return true; /* without its table nobody receives in it, nor can it be put right */
    struct flying f = flying_read(&t);
    if (!flying_plausible(&t, &f) || !find_ends(&t, &f, &head, &next)) return false;
    if (f.next != next) xi_put64(&t.group->next, next);
    if (f.head != head) xi_put64(&t.group->head, head);
    free_strays(&t, &f);
    mend_entries(&t, &f);
    mend_count(&t, &f);
    mend_words(&t, &f);
    settle(&t);
    xi_put64(&t.group->next_due, 0);
    return true;
}

void xi_reset_flying(const struct xi_chan_view *view, uint32_t g, const struct xi_world *world) {
    struct xi_group *group = &view->chan->groups[g];
    struct table t;
    if (!acknowledges(group)) return;
    xi_put64(&group->next_seq, xi_load_acquire(&group->head_seq));
    xi_put64(&group->next, xi_load_acquire(&group->head));
    xi_put64(&group->next_due, UINT64_MAX);
    xi_put64(&group->counting, 0);
    if (!table_of(view, g, world, &t)) return;
    for (uint64_t i = 0; i < t.window; i++)
        if (xi_load_acquire(&t.acks->entries[i].state) != 0) xi_put64(&t.acks->entries[i].state, 0);
}

/* ----------------------------------------------------------------- moves */

/*
 * It holds the other channel's producers' lock, or did so last: then its header there decides. Where it holds it no
 * more, it got past that.
 */
static bool was_sent(const struct xi_dead *dead, const struct xi_world *world, uint32_t segment, uint64_t number) {
    struct xi_chan_view to;
    if (!world->channel(world->context, segment, &to)) return false; /* and if so, it is gone with that channel */
    uint32_t word = xi_load_full(&to.chan->lock);
    return word == 0 || XI_LOCK_SLOT(word) != dead->slot || xi_tail_number(&to) >= number;
}

void xi_judge_moves(const struct xi_acks_view *v, const struct xi_dead *dead, const struct xi_world *world) {
    for (uint64_t i = 0; i < v->window; i++) {
        struct xi_delivery *d = &v->acks->entries[i];
        uint64_t state = xi_load_acquire(&d->state), due = xi_load_acquire(&d->due);
        if (XI_DELIVERY_STATUS(state) != XI_DELIVERY_MOVING || XI_DELIVERY_SLOT(state) != dead->slot) continue;
        if (due == 0 || due == UINT64_MAX) continue;
        bool sent = was_sent(dead, world, XI_DELIVERY_CHANNEL(xi_load_acquire(&d->count)), due);
        xi_put64(&d->due, sent ? 0 : UINT64_MAX);
    }
}

/* ------------------------------------------------------- what the dead one had */

/* It was sent on: as whoever sent it would have gone on. */
static void end_move(const struct table *t, const struct flying *f, uint64_t number) {
    struct xi_delivery *d = entry_of(t, number);
    struct xi_record record;
    bool expired = XI_DELIVERY_REASON(xi_load_acquire(&d->state)) == XI_BACK_EXPIRED;
    enum xi_gone why = expired ? XI_GONE_EXPIRED : XI_GONE_DEAD;
    xi_a64 *counter = xi_gone_counter(t->group, why);
    uint64_t count = xi_load_acquire(counter) + 1;
    xi_put64(&t->group->count_to, count);
    xi_put64(&t->group->counting, XI_COUNTING(number, why));
    set_status(t, number, XI_DELIVERY_DONE);
    if (record_of(t, f, number, &record)) release_block(t, &record);
    xi_put64(counter, count);
    xi_put64(&t->group->counting, 0);
}

static void give_back(const struct table *t, const struct xi_dead *dead, uint64_t number) {
    struct xi_delivery *d = entry_of(t, number);
    uint64_t state = xi_load_acquire(&d->state);
    uint32_t reason = XI_DELIVERY_STATUS(state) == XI_DELIVERY_MOVING ? XI_DELIVERY_REASON(state)
                      : dead->left                                    ? XI_BACK_LEFT
                                                                      : XI_BACK_DIED;
    /* Of a move `due` tells, so its state comes first; in between, mend_entries() knows it by its `due`. Of any other `due` may be
     * hours away: were it to stay with a value that is READY, that would wait so long for nobody. */
    bool moving = XI_DELIVERY_STATUS(state) == XI_DELIVERY_MOVING;
    if (!moving) xi_put64(&d->due, 0);
    xi_put64(&d->state, XI_DELIVERY(XI_DELIVERY_READY, reason, XI_DELIVERY_COUNT(state), dead->slot, XI_DELIVERY_HANDLE(state)));
    if (moving) xi_put64(&d->due, 0);
}

static void take_back(const struct table *t, const struct xi_dead *dead) {
    struct flying f = flying_read(t);
    if (!flying_plausible(t, &f)) return; /* whoever receives next finds out */
    for (uint64_t n = f.head_seq + 1; n != f.next_seq + 1; n++) {
        uint64_t state = xi_load_acquire(&entry_of(t, n)->state);
        uint32_t status = XI_DELIVERY_STATUS(state);
        if (XI_DELIVERY_SLOT(state) != dead->slot) continue;
        if (status == XI_DELIVERY_MOVING && xi_load_acquire(&entry_of(t, n)->due) == 0) end_move(t, &f, n);
        else if (status == XI_DELIVERY_OUT || status == XI_DELIVERY_MOVING) give_back(t, dead, n);
    }
    settle(t);
    xi_put64(&t->group->next_due, 0);
}

/* True if the value may yet be delivered. */
static bool in_flight(const struct table *t, bool current, uint64_t number) {
    struct flying f = flying_read(t);
    return current && number - f.head_seq - 1 < f.next_seq - f.head_seq && status_of(t, number) != XI_DELIVERY_DONE;
}

static void drop_words(const struct table *t, const struct xi_dead *dead, bool current) {
    struct xi_linger *words = lingering_of(t);
    for (uint64_t i = 0; i < t->window; i++) {
        struct xi_linger *l = &words[i];
        uint64_t holder = xi_load_acquire(&l->holder), block = xi_load_acquire(&l->block);
        if (holder == 0 || XI_DELIVERY_SLOT(holder) != dead->slot) continue;
        struct xi_block_name b = {(uint32_t)(block >> 32), (uint32_t)block, xi_load_acquire(&l->generation)};
        if (!in_flight(t, current, xi_load_acquire(&l->number)) && !lingers(t, &b, l)) {
            xi_release_block(t->world, &b, t->g);
            xi_tell_owner_of(t->world, b.segment); /* whether it has a free function is not written here */
        }
        xi_put64(&l->holder, 0);
    }
}

/* True if there is anything in the table that names the dead one. Nobody but it would have written that. */
static bool names(const struct table *t, uint32_t slot) {
    struct xi_linger *words = lingering_of(t);
    for (uint64_t i = 0; i < t->window; i++) {
        uint64_t state = xi_load_acquire(&t->acks->entries[i].state), holder = xi_load_acquire(&words[i].holder);
        uint32_t status = XI_DELIVERY_STATUS(state);
        if ((status == XI_DELIVERY_OUT || status == XI_DELIVERY_MOVING) && XI_DELIVERY_SLOT(state) == slot) return true;
        if (holder != 0 && XI_DELIVERY_SLOT(holder) == slot) return true;
    }
    return false;
}

bool xi_repair_acks(const struct xi_chan_view *view, const struct xi_acks_view *v, const struct xi_dead *dead,
                    const struct xi_world *world) {
    uint32_t g = v->acks->group;
    struct table t;
    if (g >= XI_MAX_GROUPS) return true;
    t = (struct table){v->acks, v->window, view, world, &view->chan->groups[g], g};
    if (!names(&t, dead->slot)) return true;
    if (!xi_take_lock(view, world, &t.group->lock)) return false;
    if (xi_view_stale(view) && !view->lost) {
        xi_free_lock(world, &t.group->lock, &t.group->lock_sleep);
        return false;
    }
    bool current = xi_load_acquire(&view->chan->active) >> g & 1 && acknowledges(t.group) &&
                   xi_load_acquire(&t.group->acks_seg) == v->number;
    if (current) take_back(&t, dead);
    drop_words(&t, dead, current);
    xi_free_lock(world, &t.group->lock, &t.group->lock_sleep);
    xi_ring_channel(view, world);
    return true;
}

/* ---------------------------------------------------------- ends of groups */

/* Whoever has the value may be reading its block: a word for them, unless they have one. */
static void add_word(const struct table *t, uint64_t state, uint64_t number, const struct xi_block_name *b) {
    struct xi_linger *words = lingering_of(t), *free_ = NULL;
    for (uint64_t i = 0; i < t->window; i++) {
        uint64_t holder = xi_load_acquire(&words[i].holder);
        if (holder == state && xi_load_acquire(&words[i].number) == number) return;
        if (holder == 0 && !free_) free_ = &words[i];
    }
    if (!free_) return; /* the block stays with its owner until that ends */
    xi_put64(&free_->number, number);
    xi_put64(&free_->block, (uint64_t)b->segment << 32 | b->granule);
    xi_put64(&free_->generation, b->generation);
    xi_put64(&free_->holder, state);
}

bool xi_end_flying(const struct xi_chan_view *view, uint32_t g, const struct xi_world *world, uint64_t number,
                   const struct xi_record *record) {
    struct xi_group *group = &view->chan->groups[g];
    struct table t;
    if (!acknowledges(group) || record->position >= xi_load_acquire(&group->next)) return true;
    if (!table_of(view, g, world, &t)) return false; /* who reads what cannot be told */
    struct xi_block_name b = xi_block_read(view, record->position);
    uint64_t state = xi_load_acquire(&entry_of(&t, number)->state);
    uint32_t status = XI_DELIVERY_STATUS(state);
    if (status != XI_DELIVERY_OUT && status != XI_DELIVERY_MOVING) return !lingers(&t, &b, NULL);
    add_word(&t, state, number, &b);
    return false;
}

/* ------------------------------------------------------------- the tables */

bool xi_acks_linger(const struct xi_acks_view *v) {
    struct xi_linger *words = XI_ACKS_LINGERS(v->acks, v->window);
    for (uint64_t i = 0; i < v->window; i++)
        if (xi_load_acquire(&words[i].holder) != 0) return true;
    return false;
}

bool xi_acks_unused(const struct xi_chan_view *view, const struct xi_acks_view *v, bool may_join) {
    if (may_join && xi_load_acquire(&v->acks->joined) == 0) return false;
    uint64_t active = xi_load_full(&view->chan->active);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if ((active >> g & 1) && xi_load_acquire(&view->chan->groups[g].acks_seg) == v->number) return false;
    return !xi_acks_linger(v);
}

void xi_mark_lingers(const struct xi_acks_view *v, xi_mark_fn mark, void *context) {
    struct xi_linger *words = XI_ACKS_LINGERS(v->acks, v->window);
    for (uint64_t i = 0; i < v->window; i++) {
        if (xi_load_acquire(&words[i].holder) == 0) continue;
        uint64_t block = xi_load_acquire(&words[i].block);
        if (block >> 32 != 0 && (block >> 32) % 2 == 0) mark(context, (uint32_t)(block >> 32), (uint32_t)block);
    }
}
