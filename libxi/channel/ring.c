/* SPDX-License-Identifier: MIT */
/*
 * Where a channel's ring is. A channel begins with the ring in its own segment;
 * one that may grow moves into larger ones and back, see wire/layout.h,
 * "Growing". The word `ring` names the one in use. It changes only while the
 * producers' lock and every active group's are held by who changes it, so each
 * of them keeps the ring where it is for its holder.
 *
 * A handle has a view of the ring for each side. Whoever takes a side's lock and
 * finds the view behind lets go of the lock, maps the new ring, takes the lock
 * again and swaps: mapping is system calls, and nobody waits for those. The ring
 * may move on meanwhile; then it is done again. tests/model/moves.pml explores all of it, with deaths in between.
 */
#include <unistd.h>

#include "log.h"

#define FOLLOW_TRIES 100 /* moves of the ring while it is being followed: more cannot be, each copies what is in it */

static int no_such_ring(const struct xi_channel *ch, uint64_t word) {
    return xi_fail(XI_E_CORRUPT, "channel \"%s\" says that its ring is segment %08x of 2^%u bytes, which is none of its "
                   "rings: some member overwrote it; close it and use another", ch->name, XI_RING_SEGMENT(word),
                   XI_RING_LOG2(word));
}

/* A word that is zero, and nobody writes. */
static _Alignas(XI_LINE) const uint8_t nothing[XI_LINE];
const struct xi_view xi_no_ring = {.ring = (uint8_t *)(uintptr_t)nothing, .word = XI_NO_RING};

int xi_home_back(struct xi_channel *ch) {
    int rc = xi_maps_back(ch->entry);
    if (rc) return rc;
    atomic_store_explicit(&ch->look_ring, ch->home.ring, memory_order_relaxed);
    atomic_store_explicit(&ch->look_mask, ch->home.mask, memory_order_release); /* pairs with xi_look_at() */
    return 0;
}

static void view_drop(struct xi_view *v) {
    if (v->entry) xi_maps_put(v->entry);
    *v = (struct xi_view){0};
}

void xi_views_drop(struct xi_channel *ch) {
    view_drop(&ch->send_view);
    view_drop(&ch->receive_view);
}

/* Maps the ring that `word` names; `fd` -1: opens it by its number. Errors: NOENT, CORRUPT, NOMEM, BROKER. */
static int view_map(struct xi_channel *ch, uint64_t word, int fd, struct xi_view *out) {
    struct xi_map_entry *e;
    uint64_t capacity = xi_ring_capacity(ch, word);
    if (!ch->grow_max || word != XI_RING(XI_RING_SEGMENT(word), XI_RING_LOG2(word)) || capacity > XI_GROW_MAX) return no_such_ring(ch, word);
    int rc = xi_maps_ring(ch->interp, XI_RING_SEGMENT(word), ch->id, fd, &e);
    if (rc) return rc;
    if (e->map.size != XI_PAGE + capacity) {
        xi_maps_put(e);
        return no_such_ring(ch, word);
    }
    *out = (struct xi_view){.ring = (uint8_t *)e->map.base + XI_PAGE,
                            .mask = capacity - 1,
                            .capacity = capacity,
                            .word = word,
                            .entry = e};
    return 0;
}

struct side {
    xi_a32 *lock, *lock_sleep;
    struct xi_view *view;
    _Atomic bool *used;
    enum xi_follows who;
};

/* A group that has ended keeps no ring in its place by its lock. */
static bool keeps_ring(const struct xi_channel *ch, const struct side *s) {
    return s->who != XI_RECEIVES || (xi_group_lives(ch) && xi_load_relaxed(&ch->chan->active) >> ch->group_index & 1);
}

/* Without the lock. The ring that the channel has now, mapped, or nothing where that is home; 0 also when it moved on. */
static int map_present(struct xi_channel *ch, struct xi_view *out) {
    uint64_t word = xi_load_acquire(&ch->chan->ring);
    if (word == 0) return xi_home_back(ch);
    int rc = view_map(ch, word, -1, out);
    if (rc != XI_E_NOENT && rc != XI_E_CORRUPT) return rc;
    return xi_load_acquire(&ch->chan->ring) != word ? 0 : no_such_ring(ch, word);
}

/*
 * From no ring to home. The word last: another of our threads, which a lock that lies has let in, sees either a view without room or
 * all of this (xi_view_word()). Where the channel may not grow that is the one change there is, and no other lock is beside it.
 */
static void view_begin(struct xi_channel *ch, struct xi_view *v) {
    v->ring = ch->home.ring;
    v->mask = ch->home.mask;
    v->capacity = ch->home.capacity;
    __atomic_store_n(&v->word, 0, __ATOMIC_RELEASE);
}

/* Under the lock: 1 the view is at the ring, 0 not, and *spare has become what it was at if it could be swapped. */
static int view_swap(struct xi_channel *ch, struct side *s, struct xi_view *spare) {
    uint64_t word = xi_load_relaxed(&ch->chan->ring);
    if (word == XI_NO_RING) return 0; /* garbage, which a view may happen to agree with */
    if (word == s->view->word) return spare->entry ? 0 : 1;
    /* Nothing was ever sent, and is not about to be: who looks need not have the ring. */
    if (word == 0 && s->who != XI_SENDS && s->view->word == XI_NO_RING && xi_load_relaxed(&ch->chan->tail) == 0)
        return spare->entry ? 0 : 1;
    if (word == 0 ? !spare->entry && !xi_home_bare(ch) : word == spare->word) {
        struct xi_view old = *s->view;
        if (word == 0 && old.word == XI_NO_RING) view_begin(ch, s->view);
        else *s->view = word ? *spare : ch->home;
        *spare = old;
        return old.entry ? 0 : 1;
    }
    return 0;
}

int xi_follow_ring(struct xi_channel *ch, enum xi_follows who, int64_t timeout) {
    struct xi_chan *c = ch->chan;
    struct side s = who == XI_RECEIVES
                        ? (struct side){&ch->group->lock, &ch->group->lock_sleep, &ch->receive_view, &ch->receive_view_used, who}
                        : (struct side){&c->lock, &c->lock_sleep, &ch->send_view, &ch->send_view_used, who};
    struct xi_view spare = {0};
    int64_t deadline = timeout == XI_TRY ? XI_TRY : xi_deadline(timeout);
    for (int i = 0; i < FOLLOW_TRIES; i++) {
        bool kept = keeps_ring(ch, &s);
        if (kept && view_swap(ch, &s, &spare)) return 0;
        uint64_t at = s.view->word;
        xi_view_give(ch, s.used);
        xi_unlock_words(s.lock, s.lock_sleep);
        view_drop(&spare);
        if (!kept) return xi_fail_ended(ch);
        int rc = xi_load_relaxed(&c->ring) == at && at != XI_NO_RING ? 0 : map_present(ch, &spare);
        if (rc == 0) rc = xi_lock_words(ch, s.lock, s.lock_sleep, timeout == XI_TRY ? XI_TRY : xi_left(deadline));
        if (rc) {
            view_drop(&spare);
            return rc;
        }
        xi_view_take(ch, s.used);
    }
    xi_view_give(ch, s.used);
    xi_unlock_words(s.lock, s.lock_sleep);
    view_drop(&spare);
    return xi_fail(XI_E_CORRUPT, "the ring of channel \"%s\" moves all the time: some member overwrites it", ch->name);
}

/* ---------------------------------------------------------------- moving */

#define RING_FIRST ((uint64_t)1 << 20)    /* the smallest ring to grow into, where it may be so large */
#define PATIENCE_NS 200000000ll           /* at most: for the broker's answer, and for locks that others hold */
#define SHRINK_PATIENCE_NS 5000000ll      /* where it is only to save memory */
#define RESERVE_STEP ((uint64_t)16 << 20) /* bytes, between looks at whether anybody still wants it */
#define REFUSED_NS 50000000ll             /* until what was refused is tried again */
#define STUCK_NS 1000000000ll             /* likewise when somebody sat on a lock */
#define SMALL_FRACTION 8                  /* almost empty: less than one in so many is used */
#define SMALL_NS 100000000ll              /* for so long, before it is moved */
#define MOVES_NS 50000000ll               /* between two moves by one handle */
#define LOOK_EVERY 1024u                  /* values received */

void xi_ring_tell(struct xi_channel *ch) {
    struct xi_request req;
    if (!xi_load_relaxed(&ch->moving.untold)) return;
    xi_request_init(&req, XI_OP_RING_DROP);
    req.a = ch->id;
    xi_store_relaxed(&ch->moving.untold, false);
    if (!xi_control_post(ch->interp, &req)) xi_store_relaxed(&ch->moving.untold, true);
}

/* The broker may remove what is not in use. */
static void move_over(struct xi_channel *ch) {
    xi_store_relaxed(&ch->moving.untold, true);
    xi_ring_tell(ch);
}

static bool not_wanted(struct xi_channel *ch) {
    return atomic_load(&ch->freeing) || atomic_load(&ch->interp->leaving);
}

/* Makes what the broker gave us real memory, and maps it. */
static int fill_in(struct xi_channel *ch, uint64_t word, int fd, struct xi_view *out) {
    uint64_t size = XI_PAGE + xi_ring_capacity(ch, word);
    for (uint64_t at = 0; at < size; at += RESERVE_STEP) {
        if (not_wanted(ch)) return xi_fail(XI_E_LEFT, "this handle of channel \"%s\" was closed meanwhile", ch->name);
        int rc = xi_segment_reserve(fd, at, size - at < RESERVE_STEP ? size - at : RESERVE_STEP);
        if (rc) return rc;
    }
    return view_map(ch, word, fd, out);
}

/* A ring of so many bytes, reserved and mapped. When it was moved into, or was not, move_over() is due. */
static int ring_new(struct xi_channel *ch, uint64_t capacity, int64_t patience, struct xi_view *out) {
    struct xi_request req;
    struct xi_reply r;
    int fd = -1;
    xi_request_init(&req, XI_OP_RING);
    req.a = ch->id;
    req.b = capacity;
    int rc = xi_control_ask(ch->interp, &req, &r, &fd, 1, patience);
    bool made = rc == 0 || rc == XI_E_TIMEOUT; /* or will be, when the broker comes to it */
    if (rc == 0 && fd < 0) rc = xi_fail(XI_E_BROKER, "the broker answered without a descriptor");
    if (rc == 0) rc = fill_in(ch, XI_RING((uint32_t)r.a, (uint32_t)__builtin_ctzll(capacity)), fd, out);
    if (fd >= 0) close(fd);
    if (rc && made) move_over(ch);
    return rc;
}

/* Locks all active groups, in order, under the producers' lock. On error none is. */
static int lock_groups(struct xi_channel *ch, uint64_t active, int64_t deadline) {
    struct xi_chan *c = ch->chan;
    for (uint64_t rest = active; rest; rest &= rest - 1) {
        struct xi_group *g = &c->groups[__builtin_ctzll(rest)];
        int rc = xi_lock(ch, g, xi_left(deadline));
        if (rc == 0) continue;
        for (uint64_t mine = active & ~rest; mine; mine &= mine - 1) xi_unlock(&c->groups[__builtin_ctzll(mine)]);
        return rc;
    }
    return 0;
}

static void unlock_groups(struct xi_channel *ch, uint64_t active) {
    for (; active; active &= active - 1) xi_unlock(&ch->chan->groups[__builtin_ctzll(active)]);
}

/*
 * Under the producers' lock: [floor, tail + 8), which no consumer needs to be kept from meanwhile: what they have received
 * by the time of the move is copied in vain, and what they have not is as it was.
 */
static int copy_over(struct xi_channel *ch, const struct xi_view *to, uint64_t floor_) {
    const struct xi_view *from = &ch->send_view;
    uint64_t n = xi_load_relaxed(&ch->chan->tail) + 8 - floor_;
    if (n > from->capacity || n > to->capacity || n % 8 != 0) return no_such_ring(ch, from->word); /* garbage */
    xi_copy_in(to->ring + (floor_ & to->mask), from->ring + (floor_ & from->mask), n);
    return 0;
}

/* True if the broker has taken it away: it thought that nobody would move into it. See world.c, world_ring_idle(). */
static bool is_gone(const struct xi_view *v) {
    return v->entry && xi_load_full(&((struct xi_segment *)v->entry->map.base)->gone) != 0;
}

/* Under all locks. THE MOVE, unless the ring that we would move into is gone: what of the two came first, both sides know. */
static bool name_ring(struct xi_channel *ch, const struct xi_view *to) {
    struct xi_chan *c = ch->chan;
    (void)xi_exchange_full(&c->ring_next, to->word);
    bool there = !is_gone(to);
    if (there) (void)xi_exchange_full(&c->ring, to->word); /* THE MOVE */
    xi_store_release(&c->ring_next, 0); /* Release: whoever sees it sees the move. Pairs with world_ring_idle(). */
    return there;
}

/* True if the move from this ring is still worth it. */
static bool still(struct xi_channel *ch, uint64_t from, const struct xi_view *to, const struct xi_want *want, uint64_t floor_) {
    uint64_t used = xi_load_relaxed(&ch->chan->tail) - floor_;
    if (ch->send_view.word != from) return false;
    return want ? used + 8 + want->length + 8 > ch->send_view.capacity : used + 8 <= to->capacity / 2;
}

/*
 * Moves from the ring `from` into *to: for `want`, or with NULL into a smaller one. 1 done, 0 it is not that ring any more or
 * not needed, or an error. *to becomes the view to be dropped.
 */
static int move(struct xi_channel *ch, uint64_t from, struct xi_view *to, const struct xi_want *want, int64_t patience) {
    struct xi_chan *c = ch->chan;
    int64_t deadline = xi_deadline(patience);
    int rc = xi_lock_send(ch, patience);
    if (rc) return rc;
    uint64_t floor_ = xi_log_floor(ch), active = xi_load_relaxed(&c->active);
    bool moved = false;
    if (still(ch, from, to, want, floor_)) {
        rc = copy_over(ch, to, floor_);
        if (rc == 0) rc = lock_groups(ch, active, deadline);
        if (rc == 0) {
            moved = name_ring(ch, to);
            unlock_groups(ch, active);
        }
    }
    if (moved) {
        struct xi_view old = ch->send_view;
        ch->send_view = *to;
        *to = old;
        xi_bump(want ? &c->grown : &c->shrunk, 1);
    }
    xi_unlock_send(ch);
    return moved ? 1 : rc;
}

/* --------------------------------------------------------------- growing */

const char *xi_ring_refusal(struct xi_channel *ch) {
    if (!xi_ring_may_grow(ch)) return "its ring is as large as it may become";
    switch (atomic_load(&ch->moving.refused)) {
    case XI_E_QUOTA: return "its ring cannot grow: the broker's quota is used up (xi-broker --quota-bytes)";
    case XI_E_NOSPACE: return "its ring cannot grow: shared memory is full (df /dev/shm; xi doctor)";
    case XI_E_NOMEM: return "its ring cannot grow: this process has no memory, mappings or descriptors left for it";
    case XI_E_BROKER: return "its ring cannot grow: no broker answers";
    case XI_E_TIMEOUT: return "its ring cannot grow: the broker, or who holds a lock of the channel, does not answer; is it stopped?";
    default: return "its ring is about to grow";
    }
}

static void refused(struct xi_channel *ch, int error, int64_t wait) {
    atomic_store(&ch->moving.refused, error);
    xi_store_relaxed(&ch->moving.not_before, xi_now() + wait);
}

/* How long not to ask again after such an answer. AGAIN: another is about to move, and rings when it has; or dies, and what
 * repair rings for may come too early. So whoever sleeps after that asks again by itself: xi_ring_retry_at(). */
static int64_t rest_after(int error) {
    return error == XI_E_TIMEOUT ? STUCK_NS : error == XI_E_AGAIN ? REFUSED_NS / 10 : REFUSED_NS;
}

static int grow(struct xi_channel *ch, uint64_t word, const struct xi_want *want, int64_t patience) {
    uint64_t capacity = xi_ring_capacity(ch, word) * 2;
    struct xi_view to = {0};
    if (capacity < RING_FIRST) capacity = RING_FIRST;
    if (capacity > ch->grow_max) capacity = ch->grow_max;
    int rc = ring_new(ch, capacity, patience, &to);
    if (rc == 0) {
        rc = move(ch, word, &to, want, patience);
        view_drop(&to);
        move_over(ch);
    }
    if (rc >= 0) {
        refused(ch, 0, 0);
        xi_wake_producers(ch);
        return 1;
    }
    if (rc == XI_E_LEFT || rc == XI_E_INTR || rc == XI_E_CORRUPT) return rc;
    refused(ch, rc, rest_after(rc));
    return 0;
}

bool xi_ring_could_grow(struct xi_channel *ch) {
    if (!xi_ring_may_grow(ch)) return false;
    return !xi_load_relaxed(&ch->moving.refused) || xi_now() >= xi_load_relaxed(&ch->moving.not_before);
}

bool xi_ring_another_grows(struct xi_channel *ch) {
    return ch->grow_max && (atomic_load(&ch->moving.under_way) || atomic_load(&ch->moving.refused) == XI_E_AGAIN);
}

int64_t xi_ring_retry_at(struct xi_channel *ch) {
    if (!ch->grow_max || atomic_load(&ch->moving.refused) != XI_E_AGAIN) return INT64_MAX;
    if (atomic_load(&ch->moving.under_way)) return xi_now() + rest_after(XI_E_AGAIN);
    return xi_load_relaxed(&ch->moving.not_before);
}

int xi_ring_grow(struct xi_channel *ch, const struct xi_want *want, int64_t timeout) {
    int64_t patience = timeout == XI_TRY ? XI_LOCK_PATIENCE_NS : PATIENCE_NS;
    if (timeout > 0 && timeout < patience) patience = timeout;
    uint64_t word = xi_load_acquire(&ch->chan->ring);
    if (!xi_ring_could_grow(ch)) return 0;
    if (atomic_exchange(&ch->moving.under_way, true)) return 0; /* another thread of ours is at it, and rings when it is done */
    xi_wait_enter(ch);
    int rc = grow(ch, word, want, patience);
    atomic_store(&ch->moving.under_way, false);
    xi_wait_exit(ch);
    return rc;
}

/* ------------------------------------------------------------- shrinking */

/* The smallest that holds what is used with room to spare: home, or else a ring of its own; 0 for none that is worth it. */
static uint64_t smaller(const struct xi_channel *ch, uint64_t capacity, uint64_t used) {
    uint64_t fit = RING_FIRST;
    if ((used + 8) * 2 <= ch->home.capacity) return ch->home.capacity;
    while (fit < used * 4) fit *= 2;
    return fit <= capacity / 2 && fit > ch->home.capacity ? fit : 0;
}

/* 0, or INTR. */
static int shrink(struct xi_channel *ch, uint64_t word, uint64_t used) {
    uint64_t capacity = smaller(ch, xi_ring_capacity(ch, word), used);
    bool home = capacity == ch->home.capacity;
    struct xi_view to = ch->home;
    if (capacity == 0 || atomic_exchange(&ch->moving.under_way, true)) return 0;
    xi_wait_enter(ch);
    int rc = home ? xi_home_back(ch) : ring_new(ch, capacity, SHRINK_PATIENCE_NS, &to);
    if (rc == 0) {
        rc = move(ch, word, &to, NULL, SHRINK_PATIENCE_NS);
        view_drop(&to);
        if (rc == 1 || !home) move_over(ch);
    }
    xi_store_relaxed(&ch->moving.not_before, xi_now() + (rc < 0 ? STUCK_NS : MOVES_NS));
    atomic_store(&ch->moving.under_way, false);
    xi_wait_exit(ch);
    return rc == XI_E_INTR ? rc : 0;
}

int xi_ring_look(struct xi_channel *ch) {
    struct xi_chan *c = ch->chan;
    struct xi_moving *m = &ch->moving;
    xi_ring_tell(ch);
    uint64_t word = xi_load_acquire(&c->ring);
    if (word == 0 || !ch->grow_max) return 0;
    uint64_t used = xi_load_relaxed(&c->tail) - xi_log_smallest_head(ch, xi_load_relaxed(&c->active)), small = xi_load_relaxed(&m->small_word);
    if (used >= xi_ring_capacity(ch, word) / SMALL_FRACTION) {
        if (small) xi_store_relaxed(&m->small_word, 0);
        return 0;
    }
    int64_t now = xi_now();
    if (small != word) {
        xi_store_relaxed(&m->small_since, now);
        xi_store_relaxed(&m->small_word, word);
    } else if (now - xi_load_relaxed(&m->small_since) >= SMALL_NS && now >= xi_load_relaxed(&m->not_before)) {
        return shrink(ch, word, used);
    }
    return 0;
}

void xi_ring_passed(struct xi_channel *ch, uint32_t n) {
    uint32_t before = atomic_fetch_add_explicit(&ch->moving.passed, n, memory_order_relaxed);
    if (before / LOOK_EVERY != (before + n) / LOOK_EVERY) (void)xi_ring_look(ch); /* the call has its result already */
}

static bool to_look_at(struct xi_channel *ch) {
    return (xi_load_relaxed(&ch->chan->ring) != 0 || xi_load_relaxed(&ch->moving.untold)) && !atomic_load(&ch->freeing);
}

/* The next handle of the interpreter behind `after` (NULL: from the first) that is to be looked at; kept from being freed. */
static struct xi_channel *next_grown(struct xi_interp *me, const struct xi_channel *after) {
    struct xi_channel *ch = me->channels;
    for (; after && ch && ch != after; ch = ch->next) continue;
    if (after && ch) ch = ch->next;
    while (ch && !to_look_at(ch)) ch = ch->next;
    if (ch) {
        atomic_fetch_add(&me->waiting, 1);
        atomic_fetch_add(&ch->waiting, 1);
    }
    return ch;
}

int xi_rings_look(struct xi_interp *me) {
    int rc = 0;
    pthread_mutex_lock(&me->channels_mutex);
    for (struct xi_channel *ch = next_grown(me, NULL), *next; ch; ch = next) {
        pthread_mutex_unlock(&me->channels_mutex);
        if (rc == 0) rc = xi_ring_look(ch);
        pthread_mutex_lock(&me->channels_mutex);
        next = next_grown(me, ch);
        atomic_fetch_sub(&ch->waiting, 1);
        atomic_fetch_sub(&me->waiting, 1);
        pthread_cond_broadcast(&me->idle);
    }
    pthread_mutex_unlock(&me->channels_mutex);
    return rc;
}
