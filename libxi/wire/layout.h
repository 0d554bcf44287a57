/* SPDX-License-Identifier: MIT */
/*
 * Every byte that two processes share: the layouts of all segments, who writes
 * each field, and the order of stores on which repair rests.
 *
 * A namespace is a set of shared-memory segments. Each is backed by memory in full
 * when made, but for rings, which are before they are used; never
 * resized or moved (the registry alone grows); starts with a struct xi_segment, and is named
 *
 *     /xi.<uid>.<namespace>.registry              the registry
 *     /xi.<uid>.<namespace>.<epoch:8x>.<seg:8x>   everything else
 *
 * `epoch` is drawn when a namespace is made, so leftovers of an earlier one can
 * be told apart. Segment numbers are given out by the broker, by twos, and
 * never used twice within an epoch.
 *
 * Slots and locks. An interpreter occupies a slot of the registry's table while
 * it lives and until its death has been repaired; slot 0 is the broker. A lock
 * word holds slot + 1 of its owner, 0 when free, so that a death names the locks
 * to repair. It is taken by a sequentially consistent compare-and-swap and freed
 * by a plain release store: what must be ordered before the look for sleepers
 * that follows is ordered by those who sleep (libxi/channel/lock.c, park.c).
 *
 * Trust. Whoever reads a number that another process may write copies it once,
 * checks it once, then uses the copy. Static fields (xi_segment, the head of
 * xi_chan) are copied and checked when a segment is mapped and not read again.
 *
 * All fields are little-endian, naturally aligned; padding is explicit and zero.
 * `A` before a field's writer means that it is only accessed atomically.
 */
#ifndef XI_WIRE_LAYOUT_H
#define XI_WIRE_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "access.h"

#define XI_LAYOUT_MAGIC 0x0031617461646978ull /* "xidata1\0" */
#define XI_LAYOUT_VERSION 2u
#define XI_LINE 64
#define XI_PAGE 4096

#define XI_MAX_INTERPS 512u    /* slots; slot 0 is the broker */
#define XI_MAX_CHANNELS 16384u /* entries of the registry */
#define XI_MAX_GROUPS 64u      /* of one channel */
#define XI_MAX_WAITERS 512u    /* threads asleep on one channel, both sides together */
#define XI_BELLS_USABLE 848u    /* threads of one interpreter asleep at a time */
#define XI_MAX_MEMBERS 16384u  /* channels in all the sets of one interpreter */
#define XI_MAX_CALLS 64u       /* calls of one interpreter that wait for their reply */
#define XI_NS_MAX 31u          /* bytes of a namespace's name: [A-Za-z0-9_.-]+ */

typedef _Atomic uint32_t xi_a32;
typedef _Atomic uint64_t xi_a64;

/* ---- the head of every segment: written by the broker before anybody else has the segment; static ---- */

enum xi_segment_kind {
    XI_SEG_REGISTRY = 1,
    XI_SEG_OWN = 2,     /* counters and the first borrow entries of one interpreter */
    XI_SEG_MAILBOX = 3, /* doorbells of one interpreter */
    XI_SEG_BORROWS = 4, /* more borrow entries of one interpreter */
    XI_SEG_ARENA = 5,   /* data of one interpreter; number is even */
    XI_SEG_RELEASE = 6, /* release words of the arena segment one number below */
    XI_SEG_CHANNEL = 7,
    XI_SEG_RING = 8,    /* the ring of a channel that has outgrown its own segment */
    XI_SEG_ACKS = 9,    /* deliveries of one group that are not acknowledged */
    XI_SEG_OPENED = 10  /* of a namespace that is open to other users: what each interpreter has opened; the broker's alone */
};

struct xi_segment {
    uint64_t magic;
    uint32_t version;
    uint32_t kind;      /* enum xi_segment_kind */
    uint64_t epoch;     /* low 32 bits are in the name */
    uint64_t size;      /* bytes of the whole segment; a multiple of XI_PAGE; equals fstat's */
    uint32_t number;    /* 0 for the registry */
    uint32_t owner;     /* slot of the interpreter it belongs to; 0 for registry and channels */
    int64_t owner_id;   /* id of that interpreter; 0 likewise */
    xi_a32 gone;        /* A, broker: 1 once it is removed: whoever has it mapped may unmap it (advice, the one
                           field that changes) */
    uint32_t asked;     /* of an arena or borrow entries: its owner's number for the request; 0: none */
    uint32_t pad_[2];
};
static_assert(sizeof(struct xi_segment) == 64, "one line");

/* ---- registry: the broker writes, everybody reads (read-only mapping) ---- */

enum xi_ns_state { XI_NS_RUNNING = 1, XI_NS_SHUTDOWN = 2 };

enum xi_slot_state {
    XI_SLOT_FREE = 0,
    XI_SLOT_LIVE = 1,
    XI_SLOT_ORPHAN = 2 /* dead or left; repaired; its arena still holds values that are due to somebody */
};

/*
 * One interpreter. Filled while `state` is FREE, then state = LIVE (release).
 * A reader loads state (acquire), copies, and loads state and id again: a
 * change means that the entry was reused meanwhile.
 */
struct xi_slot {
    xi_a32 state;
    uint32_t flags;        /* XI_JOIN_REQUIRES_REF, XI_SLOT_USED */
    _Atomic int64_t id;
    int32_t pid;
    xi_a32 id_refcount;    /* sum over holders */
    uint64_t start_time;   /* field 22 of /proc/PID/stat: tells a reused pid */
    uint32_t own_seg, mailbox_seg;
    xi_a64 arena_bytes;    /* data and release segments */
    uint64_t joined_ns;    /* CLOCK_REALTIME */
    uint32_t uid;          /* of its process */
    xi_a32 told_end;       /* 1: its last reference is gone. The mailbox says so too, but anybody may write there */
    char name[32], language[32];
};
static_assert(sizeof(struct xi_slot) == 128, "two lines");
static_assert(offsetof(struct xi_slot, name) == 64, "");
#define XI_SLOT_USED 0x80000000u /* has opened a channel or taken a reference: has something to declare to a new broker */

/* One channel. Same protocol as xi_slot: `id` is 0 while free, stored last (release). */
struct xi_chan_entry {
    xi_a64 id;        /* never used twice */
    uint32_t segment;
    uint32_t mode;
    uint64_t capacity;
    xi_a32 handles;   /* open handles over all interpreters */
    uint32_t owner;   /* uid of who made it */
    char name[80];
    xi_a32 producers; /* of the handles, that may send and that receive; not lowered while they are being declared anew */
    xi_a32 consumers;
    xi_a32 removed;   /* 1: removed by name, which another entry may bear meanwhile; its segment goes with its last handle */
    uint32_t pad_;
    struct xi_access access[XI_ACCESS_MAX]; /* what others than the owner may do */
};
static_assert(sizeof(struct xi_chan_entry) == 256, "four lines");
static_assert(offsetof(struct xi_chan_entry, access) == 128, "");

struct xi_registry {
    struct xi_segment seg;
    /* line 1 */
    xi_a32 state;           /* enum xi_ns_state */
    xi_a32 broker_life;     /* 1 for the first broker, one more for each that adopted the namespace */
    int32_t broker_pid;
    uint32_t uid;
    uint64_t broker_start;  /* start time, as in xi_slot */
    _Atomic int64_t next_id;
    xi_a32 next_segment;
    xi_a32 channel_limit;   /* entries of channels[] that are backed by memory; grows */
    xi_a64 next_channel_id;
    uint64_t flags;         /* XI_NS_* */
    uint64_t pad_[1];
    /* line 2 */
    char ns[32];
    xi_a64 outstanding;     /* blocks that dead or left interpreters' arenas still hold, at the last collection */
    xi_a64 deaths;          /* interpreters repaired after dying, ever */
    xi_a64 collected;       /* orphan arenas removed, ever */
    uint64_t pad2_[1];
    /* lines 3 and 4 */
    struct xi_access open_to[XI_ACCESS_MAX]; /* who may join besides the broker's own user; static */
    /* line 5 on */
    struct xi_slot slots[XI_MAX_INTERPS];
    struct xi_chan_entry channels[]; /* XI_MAX_CHANNELS at most; channel_limit are backed */
};
#define XI_NS_MEMFD 1u /* segments are sealed memfds: only the broker hands them out */
#define XI_NS_OPEN 2u  /* other users may join: see docs/architecture.md, "Users" */
static_assert(offsetof(struct xi_registry, state) == 64, "");
static_assert(offsetof(struct xi_registry, ns) == 128, "");
static_assert(offsetof(struct xi_registry, open_to) == 192, "");
static_assert(offsetof(struct xi_registry, slots) == 320, "");
#define XI_REGISTRY_SIZE(channels)                                                                                     \
    ((sizeof(struct xi_registry) + (uint64_t)(channels) * sizeof(struct xi_chan_entry) + XI_PAGE - 1) &                \
     ~(uint64_t)(XI_PAGE - 1))
#define XI_REGISTRY_CHANNELS_FIRST 254u /* entries backed at the start; doubled when used up */

/*
 * Which channels each interpreter has ever opened, and for what: two bits a
 * channel of the registry, XI_ACCESS_*. Who has opened a channel to receive gets
 * the arenas of those who have opened it to send. Set before the answer to the
 * OPEN; a slot's are cleared before the slot is LIVE, a channel's before its
 * entry is free. Only the broker has it: a new one must know what the old one
 * allowed.
 */
struct xi_opened {
    struct xi_segment seg;
    uint64_t pad_[504]; /* to XI_PAGE */
    xi_a64 word[XI_MAX_INTERPS][XI_MAX_CHANNELS / 32];
};
static_assert(sizeof(struct xi_opened) == XI_PAGE + XI_MAX_INTERPS * XI_PAGE, "a page a slot");

/* ---- an interpreter's own segment: it alone writes, the broker reads (and clears borrows after its death) ---- */

/* Counters that any tool may read. Relaxed atomics; single writer process. */
struct xi_counters {
    xi_a64 sent, received;
    xi_a64 parks, wakes, spins;
    xi_a64 loans;        /* blocks ever allocated for sending */
    xi_a64 blocks;       /* blocks not yet back: loans, and values not yet released by all */
    xi_a64 arena_bytes;
    xi_a64 borrows;
    xi_a64 frees_run;
    xi_a64 corrupt;
    xi_a64 fallbacks;    /* waits that wanted io_uring and used futex(2) */
    xi_a32 wait_backend; /* 0 none yet, 1 io_uring, 2 futex(2) */
    xi_a32 joined;       /* 1 once its process knows that it has joined. A broker that dies may not have said so */
    xi_a64 reserved_[3];
};
static_assert(sizeof(struct xi_counters) == 128, "two lines");

/*
 * What this interpreter holds of others' blocks.
 *   take: block, position, chan_seg (plain), then `key` (release), then the
 *         group's head moves: that is the receive
 *   drop: the release word first, then key = 0
 * Repair of a dead taker: an entry of a group whose lock the dead held, with
 * position >= the group's (repaired) head, never happened: key = 0. Every other
 * entry with key != 0 is released: its bit is set in the release word, then
 * key = 0. In-flight entries must be judged before that group's lock is freed.
 */
struct xi_borrow {
    xi_a64 key;      /* 0: free; else generation << 16 | group << 8 | 1 */
    xi_a64 block;    /* segment << 32 | granule */
    xi_a64 position; /* of the record in its channel */
    xi_a32 chan_seg; /* the channel's segment number */
    xi_a32 call;     /* 0: a block. Else 1 + index of the caller's word in its mailbox: a call that is being served;
                        `block` is then the caller's slot << 32 and the key's generation that of the call */
};
static_assert(sizeof(struct xi_borrow) == 32, "two a line");
#define XI_BORROW_KEY(generation, group) ((uint64_t)(generation) << 16 | (uint64_t)(group) << 8 | 1u)
#define XI_BORROW_GENERATION(key) ((key) >> 16)
#define XI_BORROW_GROUP(key) ((uint32_t)((key) >> 8) & 0xff)

struct xi_own {
    struct xi_segment seg;
    struct xi_counters counters;
    struct xi_borrow borrows[]; /* XI_BORROWS_IN(size, sizeof(struct xi_own)) */
};
struct xi_borrow_chunk {
    struct xi_segment seg;
    struct xi_borrow borrows[];
};
#define XI_BORROWS_IN(size, head) (((size) - (head)) / sizeof(struct xi_borrow))
#define XI_OWN_SIZE ((uint64_t)8192)

/* ---- mailbox: the interpreter's peers and the broker write, it reads and writes ---- */

/*
 * Doorbell of one thread. Protocol (docs/architecture.md, "Sleeping"):
 *   park: state = PARKED, set the bit in the side's mask (both sequentially
 *         consistent), look at the channel again, sleep while bell == the value
 *         read before state = PARKED
 *   wake: publish, then (full barrier) claim a bit of the mask; CAS state
 *         PARKED -> NOTIFIED; only the winner does bell += 1 and FUTEX_WAKE(1)
 */
enum xi_bell_state { XI_BELL_IDLE = 0, XI_BELL_PARKED = 1, XI_BELL_NOTIFIED = 2 };
struct xi_bell {
    xi_a32 bell;
    xi_a32 state;
    uint32_t pad_[2];
};
static_assert(sizeof(struct xi_bell) == 16, "");

struct xi_mailbox {
    struct xi_segment seg;
    /* line 1 */
    xi_a32 flags;        /* A, the broker sets: XI_MAIL_*. A reason to look at the registry, no more */
    xi_a32 reclaim;      /* A, peers set to 1 after completing the release of a block with a free function */
    xi_a32 reclaim_bell; /* A, owner: doorbell index + 1 of a sleeping thread that will run free functions, or 0 */
    uint32_t pad_[13];
    struct xi_bell bells[XI_BELLS_USABLE];
    /* A, wakers set: which members of the interpreter's sets may be ready. First the member's bit, then its word's. */
    xi_a64 ready_words[XI_MAX_MEMBERS / 64 / 64];
    uint64_t pad2_[4];
    xi_a64 ready[XI_MAX_MEMBERS / 64];
    /* A, the owner and the broker: calls that wait for a reply, see "Calls". */
    xi_a64 calls[XI_MAX_CALLS];
};
#define XI_MAIL_END 1u      /* told to end: the last reference is gone */
#define XI_MAIL_SHUTDOWN 2u /* the namespace is shut down */
#define XI_MAIL_ATTENTION 4u /* a message waits on the control socket */
#define XI_MAILBOX_SIZE ((uint64_t)16384)
static_assert(sizeof(struct xi_mailbox) <= XI_MAILBOX_SIZE, "");

/* ---- arena: data (the owner writes, others read) and release words (owner and readers write) ---- */

/*
 * Data begins at XI_PAGE; a block begins at a multiple of XI_GRANULE from the
 * segment's start. Which blocks there are is known to the owner alone (private
 * memory); a reader checks only that what a descriptor names lies inside the
 * segment.
 *
 * Release words of the granule at which a block begins: four words of
 * generation << 16 | bits, 16 groups each. The owner stores them when it
 * sends the block, with the bits of all groups set that are not there; a reader
 * sets its group's bit by compare and swap while the generation matches: so
 * setting twice does nothing, and a late one cannot touch the block's next life.
 * A block is free again when all 64 bits are set. A group that joins at values
 * which others have yet to receive clears its bit, by compare and swap on the
 * generation too. The owner cannot look at four words at once, so it closes the
 * first (XI_RELEASE_CLOSED, by compare and swap from all bits set), looks at the
 * others once more, and takes the block back, or opens the first again. Who has
 * cleared a bit looks at the first word: if it is closed, the bit is set again,
 * and the group begins after that block. Generations are 48 bits, counted per
 * arena segment, never 0.
 */
#define XI_GRANULE 1024u
struct xi_release {
    xi_a64 word[4];
};
static_assert(sizeof(struct xi_release) == 32, "two a line");
#define XI_RELEASE_WORD(group) ((group) / 16u)
#define XI_RELEASE_BIT(group) ((uint64_t)1 << ((group) % 16u))
#define XI_RELEASE_ALL(generation) ((uint64_t)(generation) << 16 | 0xffff)
#define XI_RELEASE_CLOSED XI_RELEASE_ALL(0)
/* Compare-and-swaps after which a bit is left as it is: the others of its word are set once each, and cleared by who joins;
 * somebody who writes there all the time keeps its block, not us. */
#define XI_RELEASE_TRIES 1000
#define XI_GENERATION_MAX (((uint64_t)1 << 48) - 1)

struct xi_release_table {
    struct xi_segment seg;
    uint64_t pad_[504]; /* to XI_PAGE */
    struct xi_release release[]; /* indexed by granule: entry g is for segment offset g * XI_GRANULE */
};
static_assert(sizeof(struct xi_release_table) == XI_PAGE, "");
#define XI_ARENA_MAX ((uint64_t)1 << 41) /* granules are 32-bit numbers */
#define XI_RELEASE_SIZE(arena_size)                                                                                    \
    ((XI_PAGE + (arena_size) / XI_GRANULE * sizeof(struct xi_release) + XI_PAGE - 1) & ~(uint64_t)(XI_PAGE - 1))

/* ---- channel: all members write ---- */

/*
 * The ring is `capacity` bytes (a power of two, at least XI_PAGE), mapped twice
 * in a row so that a record never breaks. Positions are 64-bit byte counts that
 * only grow; a position lies at ring + (position & (capacity - 1)).
 *
 * A channel is made with the memory before its ring alone. Who is to send for the
 * first time backs all of the ring, without a lock, before it takes the producers';
 * who finds `tail` beyond the head does so before it looks there. What is backed stays
 * so. Until then the ring is touched by nobody: on a full /dev/shm a look, too, is SIGBUS.
 *
 * A record is a header word and a payload. Header, zero meaning "not yet":
 */
#define XI_REC_LENGTH(h) ((uint32_t)(h))            /* payload bytes, a multiple of 8, 8 to capacity - 16 */
#define XI_REC_KIND(h) ((uint32_t)((h) >> 32) & 0xff)
#define XI_REC_FLAGS(h) ((uint32_t)((h) >> 40) & 0xff)
#define XI_REC_SEQ(h) ((uint16_t)((h) >> 48))        /* low 16 bits of the value's number in the channel, from 1 */
#define XI_REC(length, kind, flags, seq)                                                                               \
    ((uint64_t)(uint32_t)(length) | (uint64_t)(kind) << 32 | (uint64_t)(flags) << 40 | (uint64_t)(uint16_t)(seq) << 48)
enum xi_rec_kind { XI_REC_INLINE = 1, XI_REC_BLOCK = 2 };
#define XI_REC_F_FREE 1u   /* the block has a free function: whoever releases it tells the owner */
#define XI_REC_F_EXPIRY 2u /* the payload's last 8 bytes: CLOCK_MONOTONIC nanoseconds after which nobody receives it */
#define XI_REC_F_CALL 4u   /* the payload's last 16 bytes (before an expiry): struct xi_call_ref */
#define XI_REC_F_ALL 7u
/* Bytes at the payload's end that are no part of the value or descriptor; and kind and flags in one, for one compare. */
#define XI_REC_EXTRA(h) ((XI_REC_FLAGS(h) & XI_REC_F_EXPIRY ? 8u : 0u) + (XI_REC_FLAGS(h) & XI_REC_F_CALL ? 16u : 0u))
#define XI_REC_EXTRA_MAX 24u
#define XI_REC_KIND_AND_FLAGS(h) ((uint32_t)((h) >> 32) & 0xffff)
#define XI_REC_IS_BLOCK(h)                                                                                             \
    (XI_REC_KIND(h) == XI_REC_BLOCK && XI_REC_LENGTH(h) == sizeof(struct xi_descriptor) + XI_REC_EXTRA(h))

/* Payload of an XI_REC_BLOCK. */
struct xi_descriptor {
    uint32_t segment;    /* even: an XI_SEG_ARENA */
    uint32_t granule;
    uint64_t generation;
    uint64_t size;       /* bytes of the value at the block's start */
    uint32_t owner;      /* slot of the arena's owner: whose mailbox to mark (XI_REC_F_FREE) */
    uint32_t pad_;
};
static_assert(sizeof(struct xi_descriptor) == 32, "");

/*
 * Send, under `lock` of the producers' side:
 *   1 space: tail + 8 + length + 8 <= capacity + min over active groups' heads
 *     (`min_head` caches it)
 *   2 payload; 3 the header after it = 0
 *   4 header (release): THE SEND
 *   5 tail_seq (release) = this value's number; 6 tail (release) = position of the next header
 *   7 unlock (release), then look for sleepers
 * A batch repeats 2-4 and does 5-6 once at its end, at the latest after 32,767
 * records, and before it would write at stored tail + capacity: receivers follow
 * headers, so heads may pass the stored tail while a producer holds the lock.
 * Repair of a dead holder: while the header at tail is not 0, walk; the last
 * record's 16 number bits give tail_seq (smallest >= the stored one that has
 * them); then tail; then unlock and wake all.
 *
 * Receive, under `lock` of the group: header at head (acquire); 0: empty.
 *   1 inline: copy out; block: borrow entry
 *   2 head_seq (relaxed) = number of this value
 *   3 head (release) = position after the record: THE RECEIVE
 *   4 unlock (release), then look for sleepers
 * A batch does 1 for each (32,767 at most) and 2-3 once.
 * Repair of a dead holder: judge its borrow entries of this group (above); if
 * the header at head is not 0, head_seq = that record's number - 1 by its 16
 * bits (nearest to the stored one); unlock and wake all.
 *
 * Group join, under the producers' lock: pick a slot with state FREE; fill it
 * (head = tail, head_seq = tail_seq); state = ACTIVE; set the bit in `active`:
 * that is the join. Joining at values that are there already is under the lock
 * of a group, too, that has yet to receive them all (none is needed for the one
 * of retained values, which producers move): head, head_seq = where it begins;
 * state = JOINING; clear the group's bit in the release word of every block
 * between head and tail; then as above. Group end, under both locks: clear the
 * bit: that is the end; life + 1; state = ENDING; release the blocks of every
 * record from head to tail for this group; state = FREE. Where a lock is not to
 * be had for a second the handle goes without, and XI_GROUP_F_ORPHAN asks others
 * to end the group. Whoever receives in a group remembers its life, and looks at
 * it under the lock. Repair of the
 * producers' lock brings both to their end: a slot whose bit is clear and that
 * is not FREE is drained (again; an unfinished join gets its bits back), then FREE.
 *
 * Removal, by the broker: closed = 2, then every group's end.
 *
 * Locks are taken in the order producers, group; none is held while blocking.
 */
/* Beside each lock `lock_sleep`, on which those sleep who wait for it: odd when somebody does. Who frees the lock and
 * finds it odd makes it even and larger, and wakes all. */
#define XI_LOCK_SLOT(word) ((word) - 1u)
#define XI_LOCK_OF(slot) ((slot) + 1u)

#define XI_MASK_WORDS (XI_MAX_WAITERS / 64)
struct xi_mask {
    xi_a64 word[XI_MASK_WORDS]; /* a bit per waiter entry */
};
static_assert(sizeof(struct xi_mask) == 64, "one line");

enum xi_group_state { XI_GROUP_FREE = 0, XI_GROUP_ACTIVE = 1, XI_GROUP_ENDING = 2, XI_GROUP_JOINING = 3 };

struct xi_group {
    /* line 0: this group's consumers, under lock */
    xi_a32 lock;
    xi_a32 lock_sleep;
    xi_a64 head;
    xi_a64 head_seq;  /* number of the last value received */
    xi_a64 corrupt;   /* records skipped because they were not valid */
    xi_a64 next;      /* of a group that acknowledges: position and number of the last value delivered, */
    xi_a64 next_seq;
    xi_a64 next_due;  /* and when to look for deliveries that are overdue or to be repeated; UINT64_MAX: nothing is */
    xi_a64 life;      /* one more with each end: tells those who received in an earlier group of this number */
    /* line 1: parked consumers */
    struct xi_mask parked;
    /* line 2: written under the producers' lock */
    xi_a32 state;     /* enum xi_group_state */
    xi_a32 owner;     /* slot of the interpreter that it ends with, or 0: it stays */
    xi_a64 owner_id;  /* that interpreter's id */
    xi_a64 start_seq; /* head_seq when it joined */
    char name[32];
    xi_a32 flags;     /* XI_GROUP_F_* */
    xi_a32 acks_seg;  /* of a group that acknowledges */
    /* line 3: statistics, under lock */
    xi_a64 dropped;   /* values that made room for newer ones */
    xi_a64 expired;
    xi_a64 dead;      /* values that went to the dead letters, or vanished there being none */
    xi_a64 acked;
    xi_a64 redelivered;
    xi_a64 counting;  /* of a group that acknowledges: number << 2 | enum xi_gone of the value that is being counted, or 0 */
    xi_a64 count_to;  /* what its counter is going to be */
    uint64_t reserved_[1];
};
/* Why a value went to nobody, and which counter has it. */
enum xi_gone { XI_GONE_EXPIRED = 1, XI_GONE_DEAD = 2, XI_GONE_CORRUPT = 3 };
#define XI_COUNTING(number, why) ((uint64_t)(number) << 2 | (uint64_t)(why))
static inline xi_a64 *xi_gone_counter(struct xi_group *g, uint32_t why) {
    return why == XI_GONE_EXPIRED ? &g->expired : why == XI_GONE_DEAD ? &g->dead : &g->corrupt;
}
#define XI_GROUP_F_ACK 1u
#define XI_GROUP_F_TAKEN 4u /* of a queue's default group, which is there before its first consumer: somebody has joined */
#define XI_GROUP_F_RETAIN 2u /* nobody's: keeps the last values for groups that join later; moved by producers */
/* Of an interpreter's own group, set without a lock: its handle is gone, but the locks of its end were not to be had, since
 * somebody was stopped who held one. Who finds the channel full ends it; or the broker, with the interpreter. */
#define XI_GROUP_F_ORPHAN 8u
#define XI_GROUP_F_LISTENS 16u /* nobody's server (XI_GROUP_TEMPORARY): what it does with a request says nothing of its call */
#define XI_GROUP_RETAIN (XI_MAX_GROUPS - 1)
#define XI_RETAIN_BIT ((uint64_t)1 << XI_GROUP_RETAIN) /* of `active` and the like, in channels with retain > 0 */

static_assert(sizeof(struct xi_group) == 256, "four lines");
static_assert(offsetof(struct xi_group, parked) == 64, "");
static_assert(offsetof(struct xi_group, state) == 128, "");
static_assert(offsetof(struct xi_group, dropped) == 192, "");

/*
 * Groups that acknowledge. `head` stays at the oldest value that is not
 * acknowledged, so that the ring keeps it; `next` is where new values are taken.
 * What lies between is in the table of the group's XI_SEG_ACKS segment: value
 * number n in entry n % window. All under the group's lock, but for MOVING.
 *
 *   deliver      of each: position, due, count (plain), state = OUT (release);
 *                then next_seq: THE DELIVERY of all of them; then next. An entry
 *                of a number beyond next_seq never happened; next is where the
 *                record of next_seq ends.
 *   again        of one that is READY, or OUT and overdue, ahead of anything
 *                new: [linger;] count + 1; state = OUT: THE DELIVERY; due
 *   acknowledge  state = DONE: THE ACKNOWLEDGEMENT; then the block's release
 *                bit, unless the block lingers; then next_seq and next where they
 *                moved too; then, past all that are DONE in a row, head_seq; head;
 *                their states = FREE. head is the position of head_seq + 1, or
 *                next if that is not delivered.
 *   give back    due, then state = READY, then next_due
 *   expired, refused, or delivered too often with nowhere to go: [linger;]
 *                count_to, counting; as acknowledge; the counter, counting = 0.
 *                Repair of the lock stores count_to where the value is DONE: so
 *                it is counted once
 *
 * Two processes may read one block: whose delivery was overdue, or who freed the
 * handle, may hold the message still while another has the value. Before such a
 * delivery is given to another, a word for its holder is written to the table of
 * those that linger (struct xi_linger, holder last). While one names a block the
 * acknowledgement does not set the block's bit. Who lets go of such a message
 * sets it if the value is no more and no other word names the block, then frees
 * its word. No word free: the delivery stays its holder's. A group that ends
 * makes words of all that is OUT; and its table stays while it has words.
 *
 * Dead letters. A value that is to be moved to another channel is
 *   1 count (its upper half: that channel's segment), due = UINT64_MAX, then
 *     state = MOVING, under the group's lock
 *   2 copied, without a lock
 *   3 under the other channel's producers' lock, and when there is room: due =
 *     the number that it gets there, then it is sent as any value
 *   4 under the group's lock: counted and acknowledged as above; or given back
 *     when there was no room
 * Repair of a dead mover, before any lock of its is freed: due is not
 * UINT64_MAX, and it does not hold that lock or the number was reached: it was
 * sent, due = 0. Else due = UINT64_MAX. Both are final. Then as 4.
 *
 * Repair of a dead holder of the group's lock: next and head as above, states
 * beyond next_seq and up to head_seq = FREE, blocks of what is DONE released
 * (again), words for what is out still = 0, next_due = 0. Repair of a dead taker, under the group's lock:
 * OUT -> READY, MOVING as above, its lingering words dropped, next_due = 0.
 *
 * The group's table is made before it joins and named in acks_seg before
 * `active`; `joined` tells the broker that it was (or is not wanted), so that it
 * goes when no group names it and nobody lingers.
 */
enum xi_delivery_status { XI_DELIVERY_FREE = 0, XI_DELIVERY_OUT = 1, XI_DELIVERY_READY = 2, XI_DELIVERY_DONE = 3, XI_DELIVERY_MOVING = 4 };
/* Why it came back, or is moved. */
enum xi_back_reason { XI_BACK_NACKED = 1, XI_BACK_OVERDUE = 2, XI_BACK_DIED = 3, XI_BACK_LEFT = 4, XI_BACK_EXPIRED = 5 };
#define XI_DELIVERY(status, reason, count, slot, handle)                                                               \
    ((uint64_t)(status) | (uint64_t)(reason) << 8 | (uint64_t)(uint16_t)(count) << 16 | (uint64_t)(slot) << 32 |       \
     (uint64_t)(handle) << 48)
#define XI_DELIVERY_STATUS(w) ((uint32_t)(w) & 0xff)
#define XI_DELIVERY_REASON(w) ((uint32_t)((w) >> 8) & 0xff) /* enum xi_back_reason, of the last time */
#define XI_DELIVERY_COUNT(w) ((uint16_t)((w) >> 16))        /* deliveries so far, low 16 bits */
#define XI_DELIVERY_SLOT(w) ((uint32_t)((w) >> 32) & 0xffff)
#define XI_DELIVERY_HANDLE(w) ((uint32_t)((w) >> 48))
struct xi_delivery {
    xi_a64 state;
    xi_a64 position;
    xi_a64 due;   /* OUT: when overdue; READY: not before. CLOCK_MONOTONIC nanoseconds; UINT64_MAX: never */
    xi_a64 count; /* deliveries so far, 32 bits; may be one ahead of the state's, which decides */
};
static_assert(sizeof(struct xi_delivery) == 32, "two a line");
#define XI_DELIVERIES(count, state) ((uint32_t)((uint32_t)(count) - (uint16_t)((uint32_t)(count) - XI_DELIVERY_COUNT(state))))
#define XI_DELIVERY_CHANNEL(count) ((uint32_t)((count) >> 32))

/* Somebody who may still read a block whose value is another's by now. */
struct xi_linger {
    xi_a64 holder; /* state of the delivery that it had; 0: free */
    xi_a64 number; /* of the value */
    xi_a64 block;  /* segment << 32 | granule */
    xi_a64 generation;
};
static_assert(sizeof(struct xi_linger) == 32, "two a line");

struct xi_acks {
    struct xi_segment seg;
    /* static, written by the broker */
    uint64_t window;         /* entries, a power of two */
    uint64_t timeout_ns;     /* 0: only a death makes a delivery overdue */
    uint32_t max_deliveries; /* 0: no limit */
    uint32_t group, chan_seg, pad_;
    char dead[80];           /* channel of the dead letters; empty: they vanish, counted */
    int64_t maker;           /* id of the interpreter that asked for it */
    uint64_t pad2_[7];
    /* A, members */
    xi_a32 joined;
    uint32_t pad3_[3];
    struct xi_delivery entries[]; /* window of them, then as many struct xi_linger */
};
static_assert(sizeof(struct xi_acks) == 256, "four lines");
#define XI_ACKS_LINGERS(acks, window) ((struct xi_linger *)(void *)((acks)->entries + (window)))
#define XI_ACKS_SIZE(window)                                                                                           \
    ((sizeof(struct xi_acks) + (uint64_t)(window) * (sizeof(struct xi_delivery) + sizeof(struct xi_linger)) + XI_PAGE - 1) & \
     ~(uint64_t)(XI_PAGE - 1))

/*
 * Calls. The caller's word in its mailbox: generation << 8 | state. A request's
 * record ends with who asks; the server takes a borrow entry with `call` before
 * the head moves, drops it when it has replied, and repair after its death turns
 * WAITING of that generation into DIED and rings the caller.
 */
enum xi_call_state { XI_CALL_FREE = 0, XI_CALL_WAITING = 1, XI_CALL_DIED = 2 };
struct xi_call_ref {
    uint32_t slot, index; /* of the caller, and of its word */
    uint64_t generation;  /* 48 bits, never 0 */
};
static_assert(sizeof(struct xi_call_ref) == 16, "");

/*
 * Growing. `ring` names where the ring is: segment << 8 | log2 of its capacity; 0
 * means the channel's own. Positions mean the same in every ring.
 *
 * Move, under the producers' lock:
 *   1 [smallest head, tail + 8) is copied into the new ring, to the same
 *     positions. Consumers go on meanwhile: what they take is copied in vain.
 *   2 every active group's lock, in order
 *   3 ring_next = the new one (full barrier); if that one's `gone` is set (see below), not 4
 *   4 ring: THE MOVE
 *   5 ring_next = 0; the locks; then producers are rung
 * Killed before 4: the old ring is untouched. Killed after it: the new one is
 * whole. So repair has nothing to mend but ring_next and the locks.
 *
 * Any of these locks keeps the ring where it is, for a group as long as it is
 * active; whoever takes one looks at `ring` first. A ring that is not the
 * channel's own is touched only under a lock, so that the broker may take it away
 * at once. There, what was sent is told without a lock by tail alone, which its
 * sender stores before it unlocks.
 *
 * The broker makes a ring for who asks, but reserves its first page alone: who
 * asked reserves the rest before it moves. It removes a ring that `ring` does not
 * name and that nobody is about to move into. That it may have got wrong, having
 * been started anew meanwhile: so it sets `gone` (full barrier), looks at ring_next
 * and then at `ring`, and takes `gone` back where either names it; and who moves
 * looks the other way round (3). `ring` itself never names a ring that is gone:
 * whoever named it would have to live to take that back.
 *
 * A `ring` that names no ring of the channel is garbage. Members refuse to go on.
 * Repair cannot know where the records are, and those in the channel's own ring
 * are old: it sets all groups' heads to the tail, and `ring` to 0.
 */
#define XI_RING(segment, log2) ((uint64_t)(segment) << 8 | (log2))
#define XI_RING_SEGMENT(w) ((uint32_t)((w) >> 8))
#define XI_RING_LOG2(w) ((uint32_t)(w) & 0xff)
struct xi_ring_head {
    struct xi_segment seg;
    uint64_t chan_id;
    uint64_t pad_[503]; /* to XI_PAGE; then the ring */
};
static_assert(sizeof(struct xi_ring_head) == XI_PAGE, "");

/*
 * One sleeping thread, or one member of a set. An entry is taken by CAS from 0,
 * so that a death leaves none that names nobody; its number is its bit in the
 * side's mask. Given back: the bit cleared first, then the entry = 0.
 *
 * A thread's bit is set while it is parked. A member keeps its entry for as long
 * as it is in its set; its bit is set (armed) when it was last found to have
 * nothing to do, and the bell is the set's. Who claims a member's bit
 *
 *   1 sets the member's bit in its mailbox's `ready`
 *   2 sets the bit of that word in `ready_words`
 *   3 rings the bell, as it would a thread's
 *
 * and goes on to wake another, since a set need not receive. The set looks at
 * what is marked, and arms it again when it finds nothing to do. Marks are
 * hints: one too many costs a look.
 *
 * Repair clears the bits and entries of the dead. For the living it does what
 * the dead may have left undone: every entry whose bit is clear is marked (a
 * member) and rung. Then it rings every side that has something to do.
 */
#define XI_WAITER(slot, bell, side) ((uint64_t)(slot) | (uint64_t)(bell) << 16 | (uint64_t)(side) << 32 | (uint64_t)1 << 63)
#define XI_WAITER_OF_MEMBER(slot, bell, side, member) (XI_WAITER(slot, bell, side) | ((uint64_t)(member) + 1) << 48)
#define XI_WAITER_SLOT(w) ((uint32_t)(w) & 0xffff)
#define XI_WAITER_BELL(w) ((uint32_t)((w) >> 16) & 0xffff)
#define XI_WAITER_SIDE(w) ((uint32_t)((w) >> 32) & 0xffff)
#define XI_WAITER_MEMBER(w) ((uint32_t)((w) >> 48) & 0x7fff) /* 0: a thread; else 1 + index of the set's member */
#define XI_SIDE_PRODUCERS 0u
#define XI_SIDE_GROUP(g) ((g) + 1u)

enum xi_closed {
    XI_CHAN_OPEN = 0,
    XI_CHAN_CLOSED = 1, /* nothing more is sent */
    XI_CHAN_REMOVED = 2 /* by name: nothing is received any more either */
};

struct xi_chan {
    struct xi_segment seg;
    /* line 1: static */
    uint64_t id;
    uint64_t capacity;
    uint64_t ring_offset; /* a multiple of XI_PAGE */
    uint32_t mode;        /* enum xi_mode */
    uint32_t inline_max;
    uint64_t max_values;  /* 0, or the most values that not every group has received */
    uint64_t grow_max;    /* 0: bounded; else bytes to which the ring may grow */
    int64_t ttl_ns;       /* of values sent without one of their own; 0: none */
    uint32_t retain;      /* values kept for groups that join later */
    uint32_t when_full;   /* enum xi_when_full */
    /* line 2: producers, under lock */
    xi_a32 lock;
    xi_a32 lock_sleep;
    xi_a64 tail;
    xi_a64 tail_seq;   /* number of the last value sent */
    xi_a64 min_head;   /* at most the smallest head of the active groups */
    xi_a64 active;     /* groups: a bit each */
    xi_a64 vanished;   /* values sent while there was no group */
    uint64_t pad1_[2];
    /* line 3: an empty neighbour, so that adjacent-line prefetch does not steal line 2 */
    uint64_t pad2_[8];
    /* line 4: read by everybody all the time, written only when somebody parks or closes */
    xi_a64 parked_groups;    /* a bit per group that may have parked consumers */
    xi_a32 parked_producers; /* 1: producers may be parked */
    xi_a32 closed;           /* enum xi_closed, 1 under the producers' lock. Not beside it: receivers look here whenever they
                                find nothing, which would take the senders' line away from them (a round trip: 850 ns, so
                                430 ns) */
    xi_a64 ring;             /* where the ring is, see "Growing" */
    xi_a32 producers;        /* handles that may send and that receive, A, the broker counts */
    xi_a32 consumers;
    xi_a64 ring_next;        /* under the producers' lock: where its holder is about to move, see "Growing"; else 0 */
    uint64_t pad4_[3];
    /* line 5, 6 */
    struct xi_mask parked_senders;
    uint64_t pad5_[8];
    /* line 7: statistics */
    xi_a64 wakes;
    xi_a64 grown, shrunk; /* moves of the ring */
    uint64_t pad6_[5];
    /* lines 8 and 9: static */
    char dead[80];        /* channel for values that expire; empty: they vanish, counted */
    uint64_t pad7_[6];
    xi_a64 waiters[XI_MAX_WAITERS];
    struct xi_group groups[XI_MAX_GROUPS];
};
static_assert(offsetof(struct xi_chan, id) == 64, "");
static_assert(offsetof(struct xi_chan, lock) == 128, "");
static_assert(offsetof(struct xi_chan, parked_groups) == 256, "");
static_assert(offsetof(struct xi_chan, parked_senders) == 320, "");
static_assert(offsetof(struct xi_chan, waiters) == 640, "");
static_assert(offsetof(struct xi_chan, groups) == 640 + 4096, "");
#define XI_RING_OFFSET ((sizeof(struct xi_chan) + XI_PAGE - 1) & ~(uint64_t)(XI_PAGE - 1))

/* The largest value that goes inline: small enough that eight fit, and that copying it twice is cheap. */
#define XI_INLINE_MAX(capacity) ((uint32_t)((capacity) / 8 < 4096 ? (capacity) / 8 : 4096))

#endif
