/* SPDX-License-Identifier: MIT */
/* When and in what pieces repair and collection run; the header has the model. */
#include "recover.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "wire/order.h"

#define SLICE_NS 2000000
#define MS ((int64_t)1000000)
#define BACKOFF_MOST (8 * MS) /* until a lock of the living is tried again: others may wait for what is repaired then */
#define MOVES_MOST 100 /* of a ring while one channel is repaired: more are garbage written on purpose */

enum phase { MEND_MOVES, MEND_CHANNELS, MEND_GROUPS };

struct mend {
    struct mend *next;
    uint32_t slot;
    int64_t id;
    enum phase phase;
    uint64_t *channels; /* ids; in the second phase those with groups that are to end */
    uint32_t count, at, kept, total, borrows;
    uint32_t again; /* looks at the same channel, whose ring moved under them */
    int64_t begun, due, backoff;
    bool died;
    char fate[48];
};

/* ---- what to look at ---- */

static void list_all(const struct state *st, uint64_t *list, uint32_t *count) {
    for (uint32_t i = 0; i < st->chan_capacity; i++)
        if (st->chans[i].id) list[(*count)++] = st->chans[i].id;
}

static uint64_t *channels_of(const struct state *st, const struct interp *in, uint32_t *count) {
    uint64_t *list, id, handles;
    *count = 0;
    list = memory_or_die(NULL, (in->opened_unknown ? st->chan_count : in->handles.count) + 1u, sizeof *list);
    if (in->opened_unknown) {
        list_all(st, list, count);
        return list;
    }
    for (uint32_t at = 0; table_next(&in->handles, &at, &id, &handles);) list[(*count)++] = id;
    return list;
}

static bool view_of(struct recover *r, uint64_t channel, struct xi_chan_view *view) {
    int64_t index = state_channel_index(r->st, channel);
    r->w->about_channel = index >= 0 ? (uint32_t)index + 1 : 0;
    r->w->about_slot = 0;
    r->w->st = r->st;
    return index >= 0 && world_view(r->w, &r->st->chans[index], view);
}

/* ---- repair ---- */

static struct xi_dead dead_of(struct recover *r, const struct mend *m) {
    struct xi_dead dead = {.slot = m->slot, .id = m->id, .left = !m->died};
    dead.borrows = world_borrows(r->w, &r->st->interps[m->slot], &dead.borrow_chunks);
    return dead;
}

static uint32_t count_borrows(const struct xi_dead *dead) {
    uint32_t n = 0;
    for (size_t c = 0; c < dead->borrow_chunks; c++)
        for (size_t i = 0; i < dead->borrows[c].count; i++) n += xi_load_relaxed(&dead->borrows[c].entries[i].key) != 0;
    return n;
}

/* Calls `fn` with each table of deliveries of a channel, until it says false. */
static bool each_table(struct recover *r, uint64_t channel,
                       bool (*fn)(struct recover *r, const struct xi_acks_view *table, void *context), void *context) {
    int64_t index = state_channel_index(r->st, channel);
    const struct chan *ch = index >= 0 ? &r->st->chans[index] : NULL;
    bool all = true;
    for (uint32_t i = 0; ch && i < ch->part_count; i++) {
        struct xi_acks_view table = {.number = ch->parts[i].number};
        if (ch->parts[i].kind != XI_SEG_ACKS) continue;
        table.acks = world_acks(r->w, table.number, ch->segment, &table.window);
        if (table.acks && !fn(r, &table, context)) all = false;
    }
    return all;
}

static bool judge_moves(struct recover *r, const struct xi_acks_view *table, void *dead) {
    xi_judge_moves(table, dead, &r->w->repair);
    return true;
}

/* Of all its channels, before a lock of any is freed. */
static void mend_moves(struct recover *r, struct mend *m, int64_t until) {
    struct xi_dead dead = {.slot = m->slot, .id = m->id, .left = !m->died};
    r->w->st = r->st;
    while (m->at < m->count) {
        (void)each_table(r, m->channels[m->at++], judge_moves, &dead);
        world_trim(r->w);
        if (loop_now() > until) return;
    }
    m->phase = MEND_CHANNELS;
    m->at = 0;
}

static bool has_tables(struct recover *r, uint64_t channel) {
    int64_t index = state_channel_index(r->st, channel);
    return index >= 0 && r->st->chans[index].part_count > 0;
}

/* After the producers' lock is repaired every group is either whole or free. */
static bool has_group_of(const struct xi_chan_view *view, const struct xi_dead *dead) {
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++) {
        struct xi_group *group = &view->chan->groups[g];
        if (xi_load_relaxed(&group->state) != XI_GROUP_FREE && xi_load_relaxed(&group->owner) == dead->slot)
            return true;
    }
    return false;
}

/* The second phase is about the channels kept in the list. */
static void to_groups(struct mend *m) {
    m->phase = MEND_GROUPS;
    m->count = m->kept;
    m->at = m->kept = 0;
}

static void mend_channels(struct recover *r, struct mend *m, int64_t until) {
    while (m->at < m->count) {
        struct xi_chan_view view;
        uint64_t id = m->channels[m->at++];
        if (view_of(r, id, &view)) {
            struct xi_dead dead = dead_of(r, m); /* anew each time: a trim may have unmapped it */
            if (!xi_repair_channel(&view, &dead, &r->w->repair) && ++m->again < MOVES_MOST) {
                m->at--; /* its ring has moved meanwhile */
                continue;
            }
            m->again = 0;
            if (has_group_of(&view, &dead) || has_tables(r, id)) m->channels[m->kept++] = id;
            m->total++;
        }
        world_trim(r->w);
        if (loop_now() > until) return;
    }
    struct xi_dead dead = dead_of(r, m);
    m->borrows = count_borrows(&dead);
    r->w->about_channel = 0;
    r->w->about_slot = m->slot;
    xi_repair_borrows(&dead, &r->w->repair);
    r->w->about_slot = 0;
    world_trim(r->w);
    to_groups(m);
}

struct taking_back {
    const struct xi_chan_view *view;
    const struct xi_dead *dead;
};

static bool take_back(struct recover *r, const struct xi_acks_view *table, void *context) {
    const struct taking_back *t = context;
    return xi_repair_acks(t->view, table, t->dead, &r->w->repair);
}

/* What was delivered to it, then groups that end with it. False: a living process holds a lock that this needs. */
static bool mend_channel_groups(struct recover *r, uint64_t id, const struct xi_dead *dead) {
    struct xi_chan_view view;
    if (!view_of(r, id, &view)) return true;
    struct taking_back t = {&view, dead};
    return each_table(r, id, take_back, &t) && xi_repair_groups(&view, dead, &r->w->repair);
}

/* Passes over the channels whose groups are not done with yet; those that could not be (yet) stay in the list. */
static bool mend_groups(struct recover *r, struct mend *m, int64_t until) {
    struct xi_dead dead = {.slot = m->slot, .id = m->id, .left = !m->died};
    while (m->at < m->count) {
        uint64_t id = m->channels[m->at++];
        if (!mend_channel_groups(r, id, &dead)) m->channels[m->kept++] = id;
        world_trim(r->w);
        if (m->at < m->count && loop_now() > until) {
            m->due = until;
            return false;
        }
    }
    to_groups(m);
    if (m->count == 0) return true;
    m->due = loop_now() + m->backoff;
    if (m->backoff < BACKOFF_MOST) m->backoff *= 2;
    return false;
}

static void ring_living(struct recover *r) {
    for (uint32_t slot = 1; slot < XI_MAX_INTERPS; slot++) {
        struct xi_mailbox *mailbox = r->st->interps[slot].life == INTERP_LIVE ? world_mailbox(r->w, slot) : NULL;
        if (mailbox) xi_repair_bells(mailbox, &r->w->repair);
        world_trim(r->w);
    }
}

static void say_mended(struct recover *r, const struct mend *m) {
    const struct xi_slot *s = &r->w->registry->slots[m->slot];
    double ms = (double)(loop_now() - m->begun) / 1e6;
    if (m->died)
        log_line("interpreter %lld \"%.31s\" (pid %d) %s; repaired %u channel%s, released %u borrow%s in %.1f ms",
                 (long long)m->id, s->name, s->pid, m->fate, m->total, m->total == 1 ? "" : "s", m->borrows,
                 m->borrows == 1 ? "" : "s", ms);
    else
        log_more("interpreter %lld \"%.31s\" (pid %d) left", (long long)m->id, s->name, s->pid);
}

/* True when it is done. */
static bool mend_turn(struct recover *r, struct mend *m, int64_t now) {
    if (m->due > now) return false;
    if (m->phase == MEND_MOVES) mend_moves(r, m, now + SLICE_NS);
    if (m->phase == MEND_CHANNELS) mend_channels(r, m, now + SLICE_NS);
    if (m->phase != MEND_GROUPS) {
        m->due = now;
        return false;
    }
    if (!mend_groups(r, m, now + SLICE_NS)) return false;
    ring_living(r);
    say_mended(r, m);
    struct xi_registry *reg = r->w->registry;
    if (m->died) xi_bump(&reg->deaths, 1);
    r->post(r->context, &(struct event){.kind = EVENT_REPAIRED, .slot = m->slot, .id = m->id});
    return true;
}

static void mends_turn(void *context) {
    struct recover *r = context;
    int64_t now = loop_now(), due = 0;
    for (struct mend **at = &r->mends, *m; (m = *at);) {
        if (mend_turn(r, m, now)) {
            *at = m->next;
            free(m->channels);
            free(m);
            continue;
        }
        if (!due || m->due < due) due = m->due;
        at = &m->next;
    }
    r->mend_timer.at = due;
}

void recover_begin(struct recover *r, uint32_t slot, const char *fate) {
    struct interp *in = &r->st->interps[slot];
    struct mend *m = memory_or_die(NULL, 1, sizeof *m);
    *m = (struct mend){.next = r->mends, .slot = slot, .id = in->id, .begun = loop_now(), .backoff = MS, .died = fate};
    if (fate) snprintf(m->fate, sizeof m->fate, "%s", fate);
    m->channels = channels_of(r->st, in, &m->count);
    world_forget_mailbox(r->w, slot);
    r->mends = m;
    mends_turn(r);
}

/* ---- channels removed by name ---- */

/* True when there is nothing more to do for it. */
static bool end_channel(struct recover *r, uint64_t channel) {
    struct xi_chan_view view;
    bool done = !view_of(r, channel, &view) || xi_end_channel(&view, &r->w->repair);
    if (done) r->post(r->context, &(struct event){.kind = EVENT_ENDED, .channel = channel});
    world_trim(r->w);
    return done;
}

static void endings_turn(void *context) {
    struct recover *r = context;
    int64_t now = loop_now(), due = 0;
    for (struct ending **at = &r->endings, *e; (e = *at);) {
        if (e->due <= now && end_channel(r, e->channel)) {
            *at = e->next;
            free(e);
            continue;
        }
        if (e->due <= now) {
            e->due = now + e->backoff;
            if (e->backoff < BACKOFF_MOST) e->backoff *= 2;
        }
        if (!due || e->due < due) due = e->due;
        at = &e->next;
    }
    r->ending_timer.at = due;
}

uint64_t recover_end_channel(struct recover *r, uint64_t channel) {
    struct xi_chan_view view;
    uint64_t depth = view_of(r, channel, &view) ? xi_channel_depth(&view) : 0;
    if (end_channel(r, channel)) return depth;
    struct ending *e = memory_or_die(NULL, 1, sizeof *e);
    *e = (struct ending){r->endings, channel, loop_now() + MS, MS};
    r->endings = e;
    if (!r->ending_timer.at || e->due < r->ending_timer.at) r->ending_timer.at = e->due;
    return depth;
}

/* ---- collection ---- */

static void mark(void *context, uint32_t segment, uint32_t granule) {
    struct recover *r = context;
    uint32_t slot = r->w->repair.owner_of(r->w, segment);
    if (!slot || !r->sweep.id[slot]) return;
    r->sweep.named[slot] = true;
    (void)table_put(&r->sweep.blocks, (uint64_t)segment << 32 | granule);
}

static bool mark_lingers(struct recover *r, const struct xi_acks_view *table, void *context) {
    (void)context;
    xi_mark_lingers(table, mark, r);
    return true;
}

/* Lists the orphans, and the channels on which they may have sent, each once. */
static void sweep_begin(struct recover *r) {
    struct sweep *s = &r->sweep;
    const struct state *st = r->st;
    struct table seen = {0};
    bool all = false;
    free(s->channels);
    table_clear(&s->blocks);
    *s = (struct sweep){.active = true, .backoff = s->backoff};
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        const struct interp *in = &st->interps[i];
        if (in->life != INTERP_ORPHAN) continue;
        s->id[i] = in->id;
        s->orphans++;
        all |= in->opened_unknown;
    }
    s->channels = memory_or_die(NULL, st->chan_count + 1u, sizeof *s->channels);
    if (all) list_all(st, s->channels, &s->count);
    for (uint32_t i = 1; i < XI_MAX_INTERPS && !all; i++) {
        uint64_t id, handles;
        for (uint32_t at = 0; s->id[i] && table_next(&st->interps[i].handles, &at, &id, &handles);) {
            uint64_t *known = table_put(&seen, id);
            if (!*known) s->channels[s->count++] = id;
            *known = 1;
        }
    }
    table_clear(&seen);
}

/* All channels are marked: whatever left one since is in a borrow table, which was written first. */
static void mark_all_borrows(struct recover *r) {
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) {
        const struct interp *in = &r->st->interps[i];
        if (in->life != INTERP_LIVE && in->life != INTERP_DYING) continue;
        size_t chunks;
        const struct xi_borrow_view *views = world_borrows(r->w, in, &chunks);
        xi_mark_borrows(views, chunks, mark, r);
        world_trim(r->w);
    }
}

static void sweep_end(struct recover *r) {
    struct sweep *s = &r->sweep;
    struct xi_registry *reg = r->w->registry;
    s->active = false;
    if (s->orphans) mark_all_borrows(r);
    uint32_t left = s->orphans;
    for (uint32_t i = 1; i < XI_MAX_INTERPS && s->orphans; i++) {
        if (!s->id[i] || s->named[i]) continue;
        left--;
        xi_bump(&reg->collected, 1);
        log_more("interpreter %lld's last values are consumed; its arena is removed", (long long)s->id[i]);
        r->post(r->context, &(struct event){.kind = EVENT_UNNAMED, .slot = i, .id = s->id[i]});
    }
    xi_store_relaxed(&reg->outstanding, s->blocks.count);
    r->sweep_timer.at = s->again ? loop_now() : left ? loop_now() + s->backoff : 0;
    if (s->backoff < 1000 * MS) s->backoff *= 2;
    free(s->channels);
    s->channels = NULL;
    table_clear(&s->blocks);
}

/* A part of the channel at `at`: true when it is done. One whose ring moves all the time may name whatever there is. */
static bool sweep_part(struct recover *r, uint64_t id) {
    struct sweep *s = &r->sweep;
    struct xi_chan_view view;
    if (!view_of(r, id, &view)) return true;
    enum xi_marked marked = xi_mark_part(&view, &s->cursor, mark, r);
    if (marked != XI_MARK_MOVED) return marked == XI_MARK_DONE;
    if (++s->moved < MOVES_MOST) return false;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++) s->named[i] = true;
    return true;
}

static void sweep_slice(struct recover *r, int64_t until) {
    struct sweep *s = &r->sweep;
    while (s->at < s->count) {
        uint64_t id = s->channels[s->at];
        if (sweep_part(r, id)) {
            (void)each_table(r, id, mark_lingers, NULL);
            s->at++;
            s->moved = 0;
            s->cursor = (struct xi_mark_cursor){.begun = false};
        }
        world_trim(r->w);
        if (s->at < s->count && loop_now() > until) {
            r->sweep_timer.at = until; /* due already: after what else waits */
            return;
        }
    }
    sweep_end(r);
}

static void sweep_turn(void *context) {
    struct recover *r = context;
    if (!r->sweep.active) sweep_begin(r);
    sweep_slice(r, loop_now() + SLICE_NS);
}

void recover_sweep(struct recover *r) {
    if (r->sweep.active) {
        r->sweep.again = true;
        return;
    }
    r->sweep.backoff = 20 * MS;
    sweep_turn(r);
}

void recover_sweep_now(struct recover *r) {
    if (!r->st->orphans) {
        xi_store_relaxed(&r->w->registry->outstanding, 0);
        return;
    }
    if (!r->sweep.backoff) r->sweep.backoff = 20 * MS;
    sweep_begin(r);
    sweep_slice(r, INT64_MAX);
}

/* ---- adoption ---- */

/* For the dead broker. Members go on meanwhile: what their moving the ring on, all the time, leaves undone is judged at the next death. */
static void repair_current(struct recover *r, const struct chan *ch, struct xi_chan_view *view) {
    struct xi_dead broker = {0};
    for (int again = 0; again < MOVES_MOST; again++)
        if (xi_repair_channel(view, &broker, &r->w->repair) || !world_view(r->w, ch, view)) return;
}

void recover_adopted(struct recover *r) {
    struct xi_chan_view view;
    r->w->st = r->st;
    for (int pass = 0; pass < 2; pass++) /* every lock of the dead broker is free before anybody is woken to take it */
        for (uint32_t i = 0; i < r->st->chan_capacity; i++) {
            const struct chan *ch = &r->st->chans[i];
            if (!ch->id || !world_view(r->w, ch, &view)) continue;
            r->w->about_channel = i + 1;
            if (pass == 0) repair_current(r, ch, &view);
            else xi_ring_channel(&view, &r->w->repair);
            world_trim(r->w);
        }
    ring_living(r);
}

void recover_init(struct recover *r, struct state *st, struct world *w, struct loop *loop,
                  void (*post)(void *context, const struct event *event), void *context) {
    *r = (struct recover){.st = st, .w = w, .post = post, .context = context};
    loop_timer(loop, &r->mend_timer, mends_turn, r);
    loop_timer(loop, &r->sweep_timer, sweep_turn, r);
    loop_timer(loop, &r->ending_timer, endings_turn, r);
}

void recover_deinit(struct recover *r) {
    while (r->mends) {
        struct mend *m = r->mends;
        r->mends = m->next;
        free(m->channels);
        free(m);
    }
    while (r->endings) {
        struct ending *e = r->endings;
        r->endings = e->next;
        free(e);
    }
    free(r->sweep.channels);
    table_clear(&r->sweep.blocks);
}
