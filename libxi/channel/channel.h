/* SPDX-License-Identifier: MIT */
/*
 * A handle to a channel, and the steps that the public calls are made of. The
 * algorithms and the orders of stores are stated in wire/layout.h.
 */
#ifndef XI_CHANNEL_CHANNEL_H
#define XI_CHANNEL_CHANNEL_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "../interp/interp.h"
#include "../wire/bounds.h"
#include "../wait/sleep.h"

#define XI_NO_GROUP UINT32_MAX
#define XI_LETTER_KINDS 2 /* dead.c */

/* A ring as this process has it mapped: the channel's own, or one that it has grown into (layout.h, "Growing"). */
struct xi_view {
    uint8_t *ring;     /* mapped twice in a row */
    uint64_t mask;     /* capacity - 1 */
    uint64_t capacity;
    uint64_t word;     /* what the channel's `ring` says when this is it; 0: its own */
    struct xi_map_entry *entry; /* counted; NULL for the channel's own, which is mapped as long as the handle is */
};

/*
 * Which of the three views to use: `home` is the channel's own ring and never
 * changes; it may be looked at without a lock, and says something only while the
 * channel's `ring` is 0. What lies in the ring that the channel has now is read
 * and written under a lock alone, taken by xi_lock_send() or xi_lock_receive(),
 * through that side's view.
 */
struct xi_channel {
    struct xi_interp *interp;
    struct xi_chan *chan;
    struct xi_view home;
    struct xi_view send_view;    /* under the producers' lock */
    struct xi_view receive_view; /* under the group's lock */
    /* Of a channel that may grow, locks of this process's own beside those: whoever writes into those must not make one of
     * our threads unmap, or half exchange, the view that another uses. */
    _Atomic bool send_view_used, receive_view_used;
    /* Where looks without a lock go: home; or, while this handle has not seen it backed by memory, at a zero. The mask is
     * stored last, and read first. */
    uint8_t *_Atomic look_ring;
    _Atomic uint64_t look_mask;
    uint32_t inline_max;
    uint32_t fast_max;    /* values up to this size may be sent the fast way; 0 where every send must go the general way */
    uint32_t lock_word;   /* what this interpreter writes into locks */
    struct xi_group *group;
    struct xi_ack *ack;   /* of a handle whose group acknowledges (ack.h), else NULL */
    uint32_t group_index; /* XI_NO_GROUP: sends only */
    uint64_t group_life;  /* of the group when it was joined; another now: it has ended */
    uint32_t segment;     /* number of the channel's segment */
    bool group_is_own;    /* ends with this handle */
    bool can_send;
    bool sends_plainly;   /* can_send, and does not look for consumers */
    bool need_peer;       /* XI_OPEN_NEED_PEER */
    bool serves;          /* requests received through it are calls; otherwise they are values like any other */
    bool is_lane;         /* replies to this interpreter's calls come through it */
    bool shared;          /* others than this user may open it */
    uint32_t rights;      /* XI_ACCESS_*: what this user may do; never more is done with the handle */
    uint32_t flags;       /* XI_OPEN_*, as it was opened */
    uint32_t mode;
    uint64_t id;
    /* Checked copies of the channel's static fields. `dead`: its channel for expired values, or "". */
    uint64_t max_values, grow_max;
    int64_t ttl_ns;
    uint32_t retain, when_full;
    char dead[80];
    struct xi_map_entry *entry;
    struct xi_spin send_spin, receive_spin;
    xi_a32 sender_to_ring; /* the number at which the search for a sleeping sender begins */
    /* Values through this handle, under the producers' or the group's lock; told to the counters now and then. */
    _Atomic uint64_t sent, received;
    uint64_t sent_told, received_told;
    uint64_t known_tail;  /* the tail as last seen, and values received since that was of no help: under the group's lock */
    uint32_t run;
    _Atomic uint32_t skips; /* what this handle skipped, or set right, because it could not be; changes under the group's lock */
    _Atomic bool skipped;   /* one of them behind values that were received: a later call says so */
    _Atomic bool freeing; /* whoever waits in it goes home */
    _Atomic bool alone;   /* and has gone: what its end needs of locks is waited for */
    atomic_uint waiting;  /* calls asleep on this handle */
    /* Blocks sent through this handle that not every group has received, oldest first: under the producers' lock. */
    struct xi_flight {
        uint64_t end; /* position behind its record */
        size_t size;
    } *flights;
    size_t flight_head, flight_count, flight_capacity, flight_bytes;
    _Atomic bool flights_busy; /* a lock of this process's own beside that: whoever writes into the other one must not make
                                  two of our threads move the list at once */
    struct xi_member *members; /* of sets: set.c, under interp->sets.mutex */
    /* Of a channel with max_values, under the producers' lock: a group that stands at this position, or further on, has
     * received so many values. */
    uint64_t floor_position, floor_seq;
    /* Moving the ring (ring.c). */
    struct xi_moving {
        _Atomic bool under_way;  /* by some thread of this handle */
        _Atomic bool untold;     /* the broker has yet to be told that a move is over */
        _Atomic int64_t not_before; /* ns: when to try again what was refused, or has just been done */
        _Atomic int refused;     /* why it could not grow: an enum xi_error, or 0 */
        _Atomic uint64_t small_word; /* the ring that has been almost empty */
        _Atomic int64_t small_since; /* and since when */
        _Atomic uint32_t passed; /* values received from a ring that is not the channel's own */
    } moving;
    struct xi_channel *_Atomic letters[XI_LETTER_KINDS]; /* channels for values that nobody receives, once opened */
    struct xi_channel *former;  /* of such a handle: the one whose channel was removed, and whose place it took */
    atomic_uint holders;  /* the handle itself, and messages whose delivery is not over */
    struct xi_channel *next;
    char name[80];
};

/*
 * lock.c. `timeout` as in the public calls; a try waits XI_LOCK_PATIENCE_NS at
 * most, since a lock that is held means work under way, not a full channel.
 * Errors of taking: TIMEOUT, AGAIN, INTR, CORRUPT (names nobody alive), LEFT.
 */
#define XI_LOCK_PATIENCE_NS 100000000ll
#define XI_LOCK_ABANDON_NS 1000000000ll /* where nobody gave a timeout: opening, closing */
int xi_lock_slow(struct xi_channel *ch, xi_a32 *lock, xi_a32 *lock_sleep, int64_t timeout);
void xi_unlock_wake(xi_a32 *lock_sleep);
/* At join: lets others' barriers reach this process. False: this kernel has no membarrier(2) for us. */
bool xi_lock_prepare(void);
/* true where others' barriers do not reach this process: it has its own at every unlock */
extern __attribute__((visibility("hidden"))) _Atomic bool xi_lock_fenced;
/*
 * After announcing that one is about to sleep: makes sure that whoever holds
 * `lock` now, or held it before, either sees the announcement when it looks for
 * sleepers, or has made visible what it did under the lock.
 */
void xi_lock_pass(xi_a32 *lock);

/* `side`: a struct xi_chan (the producers' lock) or struct xi_group. */
#define xi_lock(ch, side, timeout) xi_lock_words(ch, &(side)->lock, &(side)->lock_sleep, timeout)
#define xi_try_lock(ch, side) xi_try_lock_word(ch, &(side)->lock)
#define xi_unlock(side) xi_unlock_words(&(side)->lock, &(side)->lock_sleep)

/* Of what values go through: left alone at -O2 the compiler would call it. */
#define XI_INLINE static inline __attribute__((always_inline))

static inline bool xi_try_lock_word(const struct xi_channel *ch, xi_a32 *lock) {
    uint32_t free_ = 0;
    /* Pairs with the release that unlocked; sequentially consistent for xi_lock_pass(). */
    return __builtin_expect(xi_cas32_full(lock, &free_, ch->lock_word), 1);
}

static inline int xi_lock_words(struct xi_channel *ch, xi_a32 *lock, xi_a32 *lock_sleep, int64_t timeout) {
    return xi_try_lock_word(ch, lock) ? 0 : xi_lock_slow(ch, lock, lock_sleep, timeout);
}

static inline void xi_unlock_words(xi_a32 *lock, xi_a32 *lock_sleep) {
    if (__builtin_expect(xi_load_relaxed(&xi_lock_fenced), 0)) (void)xi_exchange_full(lock, 0);
    else xi_store_release(lock, 0);
    atomic_signal_fence(memory_order_seq_cst); /* the looks for sleepers are behind it in the program; see xi_lock_pass() */
    if (__builtin_expect(xi_load_full(lock_sleep) & 1, 0)) xi_unlock_wake(lock_sleep);
}

/* Under the group's lock, or to be looked at again under it. */
static inline bool xi_group_lives(const struct xi_channel *ch) {
    return __builtin_expect(xi_load_relaxed(&ch->group->life) == ch->group_life, 1);
}
/* Whether a handle that needs peers has them; they may come and go. The broker rings when the last has gone. */
static inline bool xi_has_producers(const struct xi_channel *ch) {
    return !ch->need_peer || xi_load_full(&ch->chan->producers) != 0;
}
static inline bool xi_has_consumers(const struct xi_channel *ch) {
    return !ch->need_peer || xi_load_full(&ch->chan->consumers) != 0;
}
/* Why nothing goes through it any more: CLOSED or REMOVED. Why the group that was joined is no more: LEFT or REMOVED. */
int xi_fail_closed(const struct xi_channel *ch);
int xi_fail_ended(const struct xi_channel *ch);
/* What a send waits for that finds no room. */
enum xi_lack { XI_LACK_NONE, XI_LACK_BYTES, XI_LACK_BLOCKS, XI_LACK_VALUES };
struct xi_want {
    uint64_t length; /* of the record to be placed, without its header */
    uint64_t head;   /* BLOCKS: every group has to have come so far */
    enum xi_lack lack;
    int error;       /* why what is kept cannot give way now, though it should; or 0 */
};

/* ring.c: where the ring is. */
enum xi_follows { XI_SENDS, XI_LOOKS, XI_RECEIVES }; /* LOOKS: under the producers' lock, and sends nothing */
int xi_follow_ring(struct xi_channel *ch, enum xi_follows who, int64_t timeout);
/*
 * The channel's own ring is backed by memory when it is first used. Until a handle has seen to that its views are at
 * `xi_no_ring`, which has no room and nothing in it. The tail tells of values there; so whoever finds nothing looks at it, too.
 */
#define XI_NO_RING UINT64_MAX /* `word` of that view */
extern __attribute__((visibility("hidden"))) const struct xi_view xi_no_ring;
int xi_home_back(struct xi_channel *ch);
static inline bool xi_home_bare(const struct xi_channel *ch) {
    return __builtin_expect(atomic_load_explicit(&ch->look_mask, memory_order_relaxed) == 0, 0);
}
/* True if the ring may become larger than it is. A look without a lock. */
static inline bool xi_ring_may_grow(struct xi_channel *ch);
/* The same, and that was not refused a moment ago. */
bool xi_ring_could_grow(struct xi_channel *ch);
/* True if another thread is at it, or another process was when this one last asked: it will not be long. */
bool xi_ring_another_grows(struct xi_channel *ch);
/* When to ask again for a ring that another was about to move into; INT64_MAX: that was not the last answer. */
int64_t xi_ring_retry_at(struct xi_channel *ch);
/*
 * For a send that lacks bytes: moves into a larger ring. 1: done, or somebody else did something: look again. 0: not now;
 * xi_ring_refusal() says why. Or an error of the call: INTR, LEFT, CORRUPT. Waits for the broker and for locks up to `timeout`
 * (a try: as for a lock), and for two tenths of a second at most.
 */
int xi_ring_grow(struct xi_channel *ch, const struct xi_want *want, int64_t timeout);
const char *xi_ring_refusal(struct xi_channel *ch);
/*
 * For whoever passes by, without a lock: moves the ring into a smaller one, or home, if it has been almost empty for a
 * while. Waits for a few milliseconds at most. 0, or INTR.
 */
int xi_ring_look(struct xi_channel *ch);
/* After `n` values were received from a ring that is not the channel's own: looks now and then. */
void xi_ring_passed(struct xi_channel *ch, uint32_t n);
/* A sleeping thread's look, once a second: at all the channels that this interpreter has open. */
int xi_rings_look(struct xi_interp *me);
/* Tells the broker that a move is over, should that not have been possible at the time. */
void xi_ring_tell(struct xi_channel *ch);
/* Lets go of what the views have mapped; nobody uses the handle any more. */
void xi_views_drop(struct xi_channel *ch);

/* Before anything else of the view is read; pairs with the only change of a view of a channel that may not grow (ring.c). */
static inline uint64_t xi_view_word(const struct xi_view *v) { return __atomic_load_n(&v->word, __ATOMIC_ACQUIRE); }

/* Under a side's lock: no other thread uses that side's view. Waits for none, unless somebody overwrote the lock. */
static inline void xi_view_take(const struct xi_channel *ch, _Atomic bool *used) {
    if (__builtin_expect(ch->grow_max == 0, 1)) return;
    while (atomic_exchange_explicit(used, true, memory_order_acquire)) sched_yield();
}
static inline void xi_view_give(const struct xi_channel *ch, _Atomic bool *used) {
    if (__builtin_expect(ch->grow_max != 0, 0)) atomic_store_explicit(used, false, memory_order_release); /* pairs with take */
}

/* The producers' lock, with send_view at the ring that the channel has. Errors: as xi_lock(), and NOMEM, CORRUPT. */
static inline int xi_lock_send(struct xi_channel *ch, int64_t timeout) {
    int rc = xi_lock(ch, ch->chan, timeout);
    if (__builtin_expect(rc != 0, 0)) return rc;
    xi_view_take(ch, &ch->send_view_used);
    /* Relaxed: whoever moved the ring held this lock. */
    if (__builtin_expect(xi_load_relaxed(&ch->chan->ring) != xi_view_word(&ch->send_view) || ch->send_view.word == XI_NO_RING, 0))
        rc = xi_follow_ring(ch, XI_SENDS, timeout);
    return rc;
}

/* The same for who does not send. */
static inline int xi_lock_producers(struct xi_channel *ch, int64_t timeout) {
    int rc = xi_lock(ch, ch->chan, timeout);
    if (rc) return rc;
    xi_view_take(ch, &ch->send_view_used);
    if (xi_load_relaxed(&ch->chan->ring) != xi_view_word(&ch->send_view)) rc = xi_follow_ring(ch, XI_LOOKS, timeout);
    return rc;
}
/* If it is free, and wherever the view is. */
static inline bool xi_try_lock_send(struct xi_channel *ch) {
    if (!xi_try_lock(ch, ch->chan)) return false;
    xi_view_take(ch, &ch->send_view_used);
    return true;
}
static inline void xi_unlock_send(struct xi_channel *ch) {
    xi_view_give(ch, &ch->send_view_used);
    xi_unlock(ch->chan);
}

static inline void xi_unlock_receive(struct xi_channel *ch) {
    xi_view_give(ch, &ch->receive_view_used);
    xi_unlock(ch->group);
}
/* The lock of the handle's group, with receive_view likewise. Also LEFT and REMOVED: the group has ended, and its lock
 * guards nothing of ours. */
static inline int xi_lock_receive(struct xi_channel *ch, int64_t timeout) {
    int rc = xi_lock(ch, ch->group, timeout);
    if (__builtin_expect(rc != 0, 0)) return rc;
    xi_view_take(ch, &ch->receive_view_used);
    if (__builtin_expect((xi_load_relaxed(&ch->chan->ring) | xi_view_word(&ch->receive_view)) != 0, 0))
        return xi_follow_ring(ch, XI_RECEIVES, timeout);
    if (xi_group_lives(ch)) return 0;
    xi_unlock_receive(ch);
    return xi_fail_ended(ch);
}

/* Bytes of the ring that a channel's `ring` names. Says nothing of whether there is such a ring. */
static inline uint64_t xi_ring_capacity(const struct xi_channel *ch, uint64_t word) {
    return word == 0 ? ch->home.capacity : (uint64_t)1 << (XI_RING_LOG2(word) & 63);
}

/*
 * Fruitless rounds after which a call that must not wait comes back. A round without a result is one whose value expired or
 * was another's by then: so after as many as a ring can have records none of those is left that were there at the beginning.
 * Without that somebody who writes into the ring all the time could keep us for ever.
 * Where the ring is now is read from the channel: the views are for who holds their locks.
 */
static inline uint64_t xi_rounds_most(const struct xi_channel *ch) {
    uint64_t most = ch->grow_max > ch->home.capacity ? ch->grow_max : ch->home.capacity;
    uint64_t now = xi_ring_capacity(ch, xi_load_relaxed(&ch->chan->ring));
    return (now < most ? now : most) / 16 + 1000;
}

static inline bool xi_ring_may_grow(struct xi_channel *ch) {
    return ch->grow_max && xi_ring_capacity(ch, xi_load_relaxed(&ch->chan->ring)) < ch->grow_max;
}

/* Of active groups, those that anybody can be in: all but the one that keeps values for those that join. */
static inline uint64_t xi_real_groups(const struct xi_channel *ch, uint64_t active) {
    return active & ~(ch->retain ? XI_RETAIN_BIT : 0);
}

/* log.c: the ring itself. */
static inline uint8_t *xi_payload_at(const struct xi_view *v, uint64_t position) {
    return v->ring + xi_ring_place(position, v->mask) + 8;
}
static inline _Atomic uint64_t *xi_header_at(const struct xi_view *v, uint64_t position) {
    return (_Atomic uint64_t *)(void *)(v->ring + xi_ring_place(position, v->mask));
}

/* The header at a position of the channel's own ring, for a look without a lock. */
static inline _Atomic uint64_t *xi_look_at(const struct xi_channel *ch, uint64_t position) {
    uint64_t mask = atomic_load_explicit(&ch->look_mask, memory_order_acquire);
    uint8_t *ring = atomic_load_explicit(&ch->look_ring, memory_order_relaxed);
    return (_Atomic uint64_t *)(void *)(ring + xi_ring_place(position, mask));
}

/* Payloads are multiples of 8; most are short, where a call to memcpy costs more than the copy. */
static inline void copy_words(void *to, const void *from, size_t n) {
    uint8_t *t = to;
    const uint8_t *f = from;
    if (n > 128) {
        memcpy(t, f, n);
        return;
    }
    for (; n >= 16; n -= 16, t += 16, f += 16) memcpy(t, f, 16);
    if (n) memcpy(t, f, 8);
}

/* A record about to be written: either bytes, or a block. */
struct xi_record {
    const void *payload;
    uint32_t length;
    uint32_t kind, flags;
    uint32_t extra_length; /* bytes that follow the payload, as the flags say: multiples of 8, in whole words */
    const void *extra;
    struct xi_calling *calling; /* NULL, or who calls, or is replied to */
};
struct xi_calling {
    struct xi_call_ref ref;
    uint64_t position, number; /* out: of the record, and which value of the channel it is */
};
static inline uint32_t xi_record_length(const struct xi_record *r) { return r->length + r->extra_length; }
/*
 * Appends up to n records under the producers' lock, which the caller holds.
 * Returns how many, 0 when there is no room for the first and *want says what it lacks, or CORRUPT, CLOSED.
 * `sending`, where not NULL, is the block that the single record names: marked
 * sent just before the header that publishes it.
 */
struct xi_sending {
    struct xi_block *block; /* NULL: the record is inline */
    uint32_t free_index;
    uint64_t free_argument;
    xi_a64 *number;       /* NULL, or where to store the value's number just before it is published */
};
int64_t xi_log_append(struct xi_channel *ch, const struct xi_record *records, size_t n, struct xi_sending *sending,
                      struct xi_want *want);
/* Under the producers' lock: the smallest head of the active groups, and min_head made that. */
uint64_t xi_log_floor(struct xi_channel *ch);
/* True if what is wanted is there now, or never will be: a look without the lock. */
bool xi_log_has_room_for(struct xi_channel *ch, const struct xi_want *want);
/* True if a record of `length` could be sent now, be it by growing or by dropping the oldest, or never will. */
bool xi_log_has_room(struct xi_channel *ch, uint32_t length);
/* How far the slowest of these groups has come: a look without the lock. */
uint64_t xi_log_smallest_head(struct xi_channel *ch, uint64_t active);
/* True if the group may have something to receive, or never will: a look without the lock. */
bool xi_log_has_value(struct xi_channel *ch);
/* True if a record lies at this position, which is the group's and at most a ring behind: a look without the lock. */
bool xi_log_value_at(struct xi_channel *ch, uint64_t position);
/*
 * In a ring that is not the channel's own nobody looks without a lock: there, what was sent is what lies before the
 * tail. A sender moves it before it unlocks, so who looks after having passed the producers' lock misses nothing.
 */
static inline bool xi_log_tail_beyond(struct xi_channel *ch, uint64_t head) {
    return (int64_t)(xi_load_full(&ch->chan->tail) - head) > 0;
}

/*
 * drop.c: in a channel of XI_FULL_DROP the oldest values make room, each received and released on behalf of the groups that
 * have yet to receive it. What must be mapped and taken for blocks and requests is prepared without a lock: so a round under
 * the lock may end in having something to prepare, and another follows.
 */
#define XI_DROPS 8
struct xi_drops {
    struct xi_drop {
        uint64_t position, header;
        struct xi_descriptor d;     /* of a block */
        struct xi_map_entry *entry; /* NULL: names nothing that there is, or is no block */
        struct xi_call_ref ref;     /* of a request, whose caller is told */
        uint32_t group;
        uint32_t borrow, call_borrow; /* index + 1, or 0 */
        enum { XI_DROP_WANTED, XI_DROP_READY, XI_DROP_TAKEN } state;
    } drop[XI_DROPS];
    unsigned count;
    const char *kept; /* what keeps the oldest where they are */
};
/* Under the producers' lock: 1 there is room for what was wanted, 0 there cannot be (d->kept), XI_E_AGAIN something is to be
 * prepared first. */
int xi_drop_oldest(struct xi_channel *ch, const struct xi_want *want, struct xi_drops *d);
/* Without the lock. Releases what was taken; then forgets, or prepares, the rest. */
int xi_drops_settle(struct xi_channel *ch, struct xi_drops *d, bool again);

/* park.c: sleepers of the channel's sides. */
/* Rings up to n of the consumers of every group, after n values were published and the lock was released. */
void xi_wake_consumers_slow(struct xi_channel *ch, uint64_t n);
void xi_wake_producers_slow(struct xi_channel *ch);
void xi_wake_everybody(struct xi_channel *ch);
/* Every consumer of a group, which has ended. */
void xi_wake_group(struct xi_channel *ch, uint32_t g);
/* One consumer of the handle's group, whatever there is. */
void xi_wake_one(struct xi_channel *ch);
/* One more consumer of this group, if there is something left: by one that goes without having received. */
void xi_pass_on(struct xi_channel *ch, uint32_t side);
static inline void xi_wake_consumers(struct xi_channel *ch, uint64_t n) {
    /* Pairs with the parker, which sets its bit here, passes the lock, and then looks at the ring again. */
    if (__builtin_expect(xi_load_full(&ch->chan->parked_groups) != 0, 0)) xi_wake_consumers_slow(ch, n);
}
static inline void xi_wake_producers(struct xi_channel *ch) {
    if (__builtin_expect(xi_load_full(&ch->chan->parked_producers) != 0, 0)) xi_wake_producers_slow(ch);
}
/*
 * Waits until the side may have something to do: spins, then sleeps. `length`:
 * of the record that a producer wants to place. 0, or TIMEOUT, INTR, LEFT,
 * ENDING, BROKER, LIMIT.
 *
 * `in`: false at first, true once the call counts among those who wait in the
 * handle: xi_wait_enter() was called, and the caller calls xi_wait_exit() after
 * it touched the handle, or the interpreter, for the last time. Until then
 * whoever frees the handle or leaves waits, and each further wait is an error.
 */
int xi_wait_side(struct xi_channel *ch, uint32_t side, uint32_t length, int64_t deadline, bool *in);
/* The same, but something else ends the wait as well: whoever makes `ready` true rings the bell that is named. */
struct xi_also {
    bool (*ready)(void *context);
    void *context;
    xi_a32 *bell; /* NULL, or where to say which bell is slept on: 1 + its number; 0: none */
};
int xi_wait_also(struct xi_channel *ch, uint32_t side, int64_t deadline, const struct xi_also *also, bool *in);
/* The same for a producer; `also` may be NULL. In a channel whose ring may grow also 0 whenever somebody rang, or a second
 * has passed: what kept it from growing may be over. */
int xi_wait_for_room(struct xi_channel *ch, const struct xi_want *want, int64_t deadline, const struct xi_also *also, bool *in);

/* Around what waits, so that whoever frees the handle or leaves waits for it. They nest. */
void xi_wait_enter(struct xi_channel *ch);
void xi_wait_exit(struct xi_channel *ch);
void xi_interp_wait_enter(struct xi_interp *me);
void xi_interp_wait_exit(struct xi_interp *me);

/*
 * What a waiter is made of, for those who wait otherwise than xi_wait_side does:
 * an entry of the channel's table (an XI_WAITER word), taken once; its bit, set
 * to be woken; and afterwards the locks of the other side, passed before the
 * look that decides. Errors of taking: LIMIT. Giving back clears the bit too:
 * true if it was there, so that nobody has claimed it.
 */
int xi_waiter_take(struct xi_channel *ch, uint64_t waiter, uint32_t *number);
void xi_waiter_arm(struct xi_channel *ch, uint32_t side, uint32_t number);
void xi_waiter_pass_locks(struct xi_channel *ch, uint32_t side);
bool xi_waiter_is_armed(struct xi_channel *ch, uint32_t side, uint32_t number);
bool xi_waiter_give(struct xi_channel *ch, uint32_t side, uint32_t number);

/* What every sleep of an interpreter's thread has in common. Names the bell that readers ring when a free function is
 * due; several sleepers may: the last one is enough. */
void xi_sleep_offer_frees(struct xi_interp *me, uint32_t bell, bool on);
/* 0, or why not to sleep: LEFT, ENDING, BROKER, or INTR where free functions are due that only the caller runs. */
int xi_sleep_refused(struct xi_interp *me);
/* After a sleep: reads what the broker says, tidies up when nothing happened for a second. 0, TIMEOUT, INTR. */
int xi_sleep_ended(struct xi_interp *me, enum xi_wake_reason why);

/* group.c */
int xi_group_join(struct xi_channel *ch, const char *name, const xi_group_opts *opts);
void xi_group_end(struct xi_channel *ch);
/*
 * Where somebody who was stopped held a lock, a group may be left whose handle is gone (XI_GROUP_F_ORPHAN). Who finds the channel
 * full ends it: true if one was ended. Waits for locks as a try does. And a look without a lock, for who waits for room.
 */
bool xi_group_end_orphan(struct xi_channel *ch);
bool xi_group_orphaned(const struct xi_channel *ch);
/*
 * Under the producers' lock: releases for this group the block that the record at a position of the ring names. And what that
 * needs: its descriptor, and the arena whose release words they are, or NULL where its owner is gone, and it with it, or it is
 * another user's, who gets it back when it leaves. Errors are of this process: NOMEM, BROKER; nothing was done.
 */
int xi_record_words(struct xi_channel *ch, uint64_t position, struct xi_descriptor *d, struct xi_map_entry **e);
int xi_release_record(struct xi_channel *ch, uint32_t group, uint64_t position, uint64_t header);

/*
 * history.c: values kept for groups that join later. Under the producers' lock,
 * in channels with `retain`: keeps no more than it is to, given where the records
 * end and the last one's number, if it can give them back now; and gives up what
 * lies before `position`: 0, or why that cannot be now.
 */
void xi_retain_trim(struct xi_channel *ch, uint64_t limit, uint64_t seq);
int xi_retain_yield(struct xi_channel *ch, uint64_t position, uint64_t limit, uint64_t seq);
/*
 * Where a group begins, under the producers' lock (taken by xi_lock_send()):
 * finds it, and holds the lock of the group that keeps it there; claims its
 * blocks for the new group, whose state is JOINING by then, which may move the
 * start; lets go of the lock. Errors of finding: as xi_lock(), AGAIN, CORRUPT; of
 * claiming, after which nothing is claimed: NOMEM, BROKER.
 */
struct xi_start {
    uint64_t head, seq;    /* as of struct xi_group */
    uint32_t guard;        /* the group that has yet to receive all of it; XI_NO_GROUP: none, it is at the tail */
    struct xi_group *held; /* the guard, where its lock is held */
};
int xi_start_find(struct xi_channel *ch, uint32_t from, uint32_t last, struct xi_start *start);
int xi_start_claim(struct xi_channel *ch, uint32_t group, struct xi_start *start);
void xi_start_done(struct xi_start *start);

/* send.c: sends a request or a reply; `loan` NULL: `value` is copied. Errors: as xi_send and xi_send_loan, NO_CONSUMER. */
int xi_send_call(struct xi_channel *ch, const void *value, size_t size, xi_loan *loan, const xi_send_opts *o,
                 struct xi_calling *calling, bool *in);
/* receive.c: what is there. 0 or AGAIN, without a sentence; or an error. */
int xi_receive_try(struct xi_channel *ch, xi_msg *m);
/* Where something was skipped, or set right, because it could not be; under the group's lock. */
static inline void xi_note_skip(struct xi_channel *ch) { atomic_fetch_add_explicit(&ch->skips, 1, memory_order_relaxed); }

/*
 * reply.c. A request is taken: the entry says so, with the stores in the order
 * that wire/layout.h gives, before the head moves; then the message is one.
 * It ends by a reply, or without: then its caller is told, or `forget`, when it
 * knows, or waits no more.
 */
void xi_call_note(struct xi_channel *ch, uint32_t borrow, uint32_t group, const struct xi_call_ref *ref, uint64_t position);
/* `borrow`: 1 + the entry's number, or 0. */
void xi_call_taken(struct xi_channel *ch, xi_msg *m, uint32_t borrow, const struct xi_call_ref *ref);
void xi_call_abandon(xi_msg *m);
void xi_call_forget(xi_msg *m);
/* Lets go of the lanes of callers that have gone. */
void xi_lanes_prune(struct xi_interp *me);
/* call.c: when the interpreter is destroyed. */
void xi_calls_free(struct xi_interp *me);

/* channel.c: handles of the library's own. They do not keep the interpreter, and their names are not for users. */
int xi_open_inner(struct xi_interp *me, const char *name, const xi_open_opts *o, struct xi_channel **out);
void xi_channel_close_inner(struct xi_channel *ch);
/* Memory alone: its interpreter has left, or this is a forked child. */
void xi_channel_free_inner(struct xi_channel *ch);

/* set.c. Takes the handle out of all sets, which will report it; at leave: every handle, and the sets are over. */
void xi_sets_forget(struct xi_channel *ch);
void xi_sets_detach(struct xi_interp *me);

/* borrowed.c. Ends what the message holds but keeps its memory; memory for n bytes of its own. */
void xi_msg_reset(xi_msg *m);
/* Before a message is received into: what it held is given back, its memory kept. Most hold nothing. */
static inline void xi_msg_begin(xi_msg *m) {
    if (__builtin_expect((m->call_ | m->delivery_ | m->borrow_) != 0, 0)) xi_msg_reset(m);
    m->data = NULL;
    m->size = 0;
}
int xi_msg_room(xi_msg *m, size_t n, void **where);
/* Sets the group's bit; true if this call did, false if it was set or the block has another life. */
bool xi_release_bit(struct xi_map_entry *e, uint32_t granule, uint64_t generation, uint32_t group);

/* dead.c. Takes the message of a value that expired and is nobody's any more; the message holds nothing afterwards. */
void xi_bury_expired(struct xi_channel *ch, xi_msg *m);
/* Closes the channels that dead letters went to. */
void xi_letters_close(struct xi_channel *ch);
/*
 * send.c: one value, inline or (value NULL) in `root`, whose block is then the channel's; tries once. `number`, where not
 * NULL: the number that it gets is stored there before it is sent, and the channel's segment in the upper half of `place`.
 */
int xi_send_letter(struct xi_channel *ch, const void *value, size_t size, struct xi_block *root, xi_a64 *number,
                   xi_a64 *place);

/* ack.c: for handles whose group acknowledges (ack.h has the rest). */
struct xi_ack;
/* Maps the group's table, from `fd` or (-1) by its number; or asks for a new one for a group that is to be made. */
int xi_ack_open(struct xi_channel *ch, uint32_t group, uint32_t segment, int fd, struct xi_ack **out);
int xi_ack_make(struct xi_channel *ch, uint32_t group, const xi_group_opts *opts, struct xi_ack **out, uint32_t *segment);
/* Its group was joined; or another's was, and `made` says that the broker may take this one back. */
void xi_ack_joined(struct xi_ack *a);
void xi_ack_discard(struct xi_ack *a, bool made);
/* Under both locks, the group at its end: true if the block of value `number`, which is in flight, is nobody's now. */
bool xi_ack_end_one(const struct xi_ack *a, uint64_t number, uint64_t block, uint64_t generation);
/* The handle is closed, its group lives on: what it has is given back. And: nobody uses it any more. */
void xi_ack_close(struct xi_channel *ch);
void xi_ack_free(struct xi_channel *ch);
/* deliver.c */
int64_t xi_ack_receive(struct xi_channel *ch, xi_msg *msgs, size_t n, int64_t timeout);
bool xi_ack_has_value(struct xi_channel *ch);
/* When the group will have something to look at by itself; UINT64_MAX: never. */
static inline uint64_t xi_ack_due(const struct xi_channel *ch) {
    return ch->ack ? xi_load_full(&ch->group->next_due) : UINT64_MAX;
}
/* The message is released, but its delivery is not over. */
void xi_delivery_end(xi_msg *m);

/* channel.c. A message of a group that acknowledges keeps the handle's memory and mappings. */
static inline void xi_channel_hold(struct xi_channel *ch) { atomic_fetch_add_explicit(&ch->holders, 1, memory_order_relaxed); }
void xi_channel_drop(struct xi_channel *ch);
void xi_channel_flush(struct xi_channel *ch);
void xi_channels_flush(struct xi_interp *me);
/* At leave: forgets every handle's mapping; the handles stay to be freed by their owners. */
void xi_channels_detach(struct xi_interp *me);
/* 0, or FORKED, LEFT: may this handle be used? */
static inline int xi_channel_check(const struct xi_channel *ch) {
    if (__builtin_expect(!xi_alive(ch->interp), 0)) return xi_fail_forked();
    if (__builtin_expect(atomic_load_explicit(&ch->freeing, memory_order_relaxed), 0))
        return xi_fail(XI_E_LEFT, "this handle of channel \"%s\" was closed", ch->name);
    return 0;
}
/* observe.c */
/* Fills in what the channel's own counters say; info->capacity is that of its own ring on entry. */
void xi_channel_read_stat(struct xi_chan *c, xi_channel_info *info);
int64_t xi_channel_read_groups(struct xi_chan *c, xi_group_info *out, size_t capacity);

#endif
