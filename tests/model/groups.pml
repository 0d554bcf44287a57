/* SPDX-License-Identifier: MIT */
/*
 * A group that joins at values which are there, receives, and ends, while its
 * guard (another group) goes on, more is sent, the owner of the blocks takes back what all have released,
 * and the one who joins is killed at any step: does it read no block that is not
 * its any more, does it get all that is sent after the join, and do all blocks come back?
 *
 * OLD values are in the channel before, NEW are sent meanwhile. KILLS: whether the
 * joiner is killed, between any two steps; BROKER_KILLS likewise of the broker,
 * which repairs. The guard acknowledges (ACKS: in any order, and releases before
 * its head moves) or not (its head moves first). FIRST_WORD: the new group's bit is in the
 * first word of four, which the owner closes, or it is in another.
 *
 * What each step is in the C:
 *   joiner   try_join(), make(), begin(), end(), drain() in channel/group.c; hold_guard(), xi_start_claim(), clear_bit(),
 *            give_back() in channel/history.c; take_block() and commit() in channel/receive.c; xi_release_bit() in borrowed.c
 *   guard    acknowledge in channel/ack.c (layout.h, "acknowledge"); or receive and xi_release_bit()
 *   sender   xi_log_append() in channel/log.c and xi_arena_mark_sent() in arena/arena.c, as far as groups have to do with them
 *   owner    released_by_all() in arena/arena.c
 *   broker   xi_repair_channel(), settle_group(), end_group(), xi_repair_borrows(), xi_repair_groups() in broker/repair.c
 *
 * Mutants, each of which must be found out (-D...):
 *   LOOK_FIRST    the joiner looks whether the block is being taken back before it clears its bit
 *   NO_LOOK       it does not look
 *   LOOK_ONCE     the owner does not look at the bits again after closing the word
 *   NO_JOINING    the state does not say that a join is under way
 *   ACTIVE_EARLY  the group is active before its blocks are claimed
 *   KEPT          what was claimed before a block that is not to be had stays claimed
 *   DRAIN_EARLY   an end releases before the group's bit is cleared
 *   FREE_EARLY    an end says FREE before it has released
 *   GROUPS_EARLY  a sender looks which groups there are before it has the lock
 *   GIVE_UP       repair does not come back when a living process holds the lock
 */
#ifndef OLD
#define OLD 2
#endif
#ifndef NEW
#define NEW 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef BROKER_KILLS
#define BROKER_KILLS 0
#endif
#define ALL (OLD + NEW)
#define GUARD 2 /* lock words */
#define JOINER 3
#define SENDER 4
#define BROKER 1

mtype = { FREE, JOINING, ACTIVE, ENDING };

byte lock, guard_lock, group_lock;
byte tail = OLD, guard_head, head;    /* positions: how many records before it */
bit is_active;                           /* the new group's bit of xi_chan.active */
mtype state = FREE;                   /* and its state */
bit acked[ALL];                        /* deliveries that the guard has acknowledged, behind its head */
bit guard_bit[ALL], group_bit[ALL];   /* release words: that of the guard is in the first word */
bit closed[ALL], back[ALL];           /* the first word is closed; the owner has the block again */
byte borrowed;                        /* 1 + position of the block that the joiner reads */
bit dead, repaired, broker_dead;
byte kills = KILLS, broker_kills = BROKER_KILLS;
/* What has truly happened. */
byte received_to = 255;  /* the next position to be received */
bit left;

#ifdef FIRST_WORD
#define SAME_LIFE(i) (!closed[i])
#else
#define SAME_LIFE(i) (!back[i])
#endif

inline release(i) { /* xi_release_bit(): compare and swap, if it is the same life */
    atomic {
        if
        :: SAME_LIFE(i) -> group_bit[i] = 1
        :: else
        fi
    }
}

/* clear_bit() */
inline claim(i, had) {
    atomic {
        had = SAME_LIFE(i);
#ifdef LOOK_FIRST
        had = had && !closed[i]
#endif
    }
#ifndef LOOK_FIRST
    atomic {
        had = SAME_LIFE(i);
        if
        :: had -> group_bit[i] = 0
        :: else
        fi
    }
#else
    if
    :: had -> group_bit[i] = 0
    :: else
    fi;
#endif
#if !defined(LOOK_FIRST) && !defined(NO_LOOK)
    if
    :: had && closed[i] -> release(i); had = 0
    :: else
    fi
#endif
}

inline drain_from(from, to) { /* drain(), give_back() */
    i = from;
    do
    :: i < to -> release(i); i++
    :: else -> break
    od
}

inline end_group() { /* end(), end_group(), under both locks */
#ifdef DRAIN_EARLY
    drain_from(head, tail);
#endif
    is_active = 0; /* THE END */
    state = ENDING;
#ifdef FREE_EARLY
    state = FREE;
#endif
#ifndef DRAIN_EARLY
    drain_from(head, tail);
#endif
    state = FREE
}

inline find_start() { /* hold_guard() */
    do
    :: at = guard_head;
       if
       :: at == tail -> break /* nothing is there */
       :: else
       fi;
       atomic { guard_lock == 0 -> guard_lock = JOINER }
       if
       :: guard_head == at -> break
       :: else -> guard_lock = 0
       fi
    od
}

inline begin() { /* begin(), xi_start_claim() */
    start = at;
    head = start;
    if
    :: at < tail ->
#ifndef NO_JOINING
        state = JOINING;
#endif
#ifdef ACTIVE_EARLY
        is_active = 1;
#endif
        do
        :: at < tail ->
            claim(at, had);
            if
            :: had -> at++
            :: else ->
#ifndef KEPT
                drain_from(start, at);
#endif
                at++;
                start = at
            fi
        :: else -> break
        od;
        head = start
    :: else
    fi;
    state = ACTIVE;
    atomic { is_active = 1; received_to = start } /* THE JOIN */
}

proctype joiner() {
    byte at, start, i;
    bit had;
    {
        atomic { lock == 0 -> lock = JOINER }
        find_start();
        begin();
        if
        :: guard_lock == JOINER -> guard_lock = 0
        :: else
        fi;
        lock = 0;
        at = 0; start = 0; i = 0; had = 0;
        do
        :: head < tail ->
            atomic { group_lock == 0 -> group_lock = JOINER }
            borrowed = head + 1;
            atomic { head++; assert(received_to + 1 == head); received_to = head } /* THE RECEIVE */
            group_lock = 0;
            assert(!back[borrowed - 1]); /* reads the block */
            atomic { at = borrowed - 1; release(at); at = 0 }
            borrowed = 0
        :: break /* whatever is left */
        od;
        atomic { lock == 0 -> lock = JOINER }
        atomic { group_lock == 0 -> group_lock = JOINER }
        end_group();
        group_lock = 0;
        lock = 0;
        left = 1
    } unless { dead }
}

proctype guard() {
    byte at;
end_guard:
    do
    :: guard_head < tail ->
        atomic { guard_lock == 0 -> guard_lock = GUARD }
#ifdef ACKS
        if /* any that is not acknowledged */
        :: guard_head < tail && !acked[guard_head] -> at = guard_head
        :: guard_head + 1 < tail && !acked[guard_head + 1] -> at = guard_head + 1
        fi;
        acked[at] = 1; /* THE ACKNOWLEDGEMENT */
        guard_bit[at] = 1;
        do
        :: guard_head < tail && acked[guard_head] -> guard_head++
        :: else -> break
        od;
        guard_lock = 0;
#else
        at = guard_head;
        guard_head = at + 1; /* THE RECEIVE */
        guard_lock = 0;
        guard_bit[at] = 1;
#endif
        at = 0
    od
}

proctype sender() {
    bit there;
    do
    :: tail == ALL -> break
    :: else ->
#ifdef GROUPS_EARLY
        there = is_active;
#endif
        atomic { lock == 0 -> lock = SENDER }
#ifndef GROUPS_EARLY
        there = is_active;
#endif
        group_bit[tail] = !there; /* xi_arena_mark_sent(): of groups that are not there it is set */
        tail++;                   /* THE SEND */
        lock = 0
    od
}

proctype owner(byte i) { /* of each block, as if it looked all the time */
end_owner:
    do
    :: i < tail && !back[i] && guard_bit[i] && group_bit[i] -> /* the first look at all words; each may change again */
        if
#ifdef FIRST_WORD
        :: atomic { group_bit[i] -> closed[i] = 1 } /* compare and swap, from all bits set */
        :: !group_bit[i] -> skip
#else
        :: closed[i] = 1 /* the guard's bit stays set */
#endif
        fi;
        if
        :: !closed[i]
#ifdef LOOK_ONCE
        :: closed[i] -> back[i] = 1
#else
        :: closed[i] && !group_bit[i] -> closed[i] = 0
        :: closed[i] && group_bit[i] -> back[i] = 1
#endif
        fi
    od
}

/* ---------------------------------------------------------------- broker */


inline repair_channel() {
    if
    :: lock == BROKER || (dead && !repaired && lock == JOINER) -> mine = 1
    :: else -> mine = 0
    fi;
    if
    :: guard_lock == BROKER || (dead && !repaired && guard_lock == JOINER) -> guard_lock = 0
    :: else
    fi;
    if
    :: group_lock == BROKER || (dead && !repaired && group_lock == JOINER) ->
        if /* judge_borrows() */
        :: dead && borrowed > head -> borrowed = 0
        :: else
        fi;
        group_lock = 0
    :: else
    fi;
    if
    :: mine ->
        if /* settle_group() */
        :: !is_active && state != FREE -> end_group()
        :: is_active && state == JOINING -> state = ACTIVE
        :: is_active && state == ENDING -> end_group()
        :: else
        fi;
        i = head;
        do /* whoever else receives in it: nothing that is there for it may be gone */
        :: is_active && i < tail -> assert(!group_bit[i] && !back[i]); i++
        :: else -> break
        od;
        i = 0;
        lock = 0
    :: else
    fi
}

inline repair_groups() { /* xi_repair_groups(), again until it is done */
    do
    :: !is_active -> break
    :: is_active ->
        if
        :: atomic { lock == 0 -> lock = BROKER }
            if
            :: is_active ->
                if
                :: atomic { group_lock == 0 -> group_lock = BROKER } end_group(); group_lock = 0
                :: group_lock != 0
                fi
            :: else
            fi;
            lock = 0
        :: lock != 0 ->
#ifdef GIVE_UP
            break
#else
            lock == 0 || broker_dead
#endif
        fi
    od
}

proctype broker() {
    byte i;
    bit mine;
begin_broker:
    {
end_broker:
        do
        :: dead && !repaired && !broker_dead ->
            repair_channel();
            if /* xi_repair_borrows() */
            :: borrowed != 0 -> i = borrowed - 1; release(i); borrowed = 0
            :: else
            fi;
            repair_groups();
            repaired = 1; i = 0; mine = 0
        od
    } unless { atomic { broker_dead -> broker_dead = 0; i = 0; mine = 0 } }
adopt:
    { repair_channel(); i = 0; mine = 0; goto begin_broker }
    unless { atomic { broker_dead -> broker_dead = 0; i = 0; mine = 0; goto adopt } }
}

proctype killer() {
end_killer:
    do
    :: atomic { kills > 0 && !left -> kills--; dead = 1 }
    :: atomic { broker_kills > 0 && !broker_dead -> broker_kills--; broker_dead = 1 }
    :: kills + broker_kills > 0 -> kills = 0; broker_kills = 0 /* or nobody (else) is */
    od
}

/* Runs when nobody else can: then all is at rest. */
proctype watch() {
    byte k;
end_watch:
    timeout;
    atomic {
        assert(lock == 0 && guard_lock == 0 && group_lock == 0);
        assert(tail == ALL && guard_head == ALL);
        assert(!is_active && state == FREE && borrowed == 0);
        assert(left || (dead && repaired));
        for (k : 0 .. ALL - 1) { assert(back[k]) } /* all of them have come back */
    }
}

init {
    byte k;
    atomic {
        for (k : 0 .. ALL - 1) { group_bit[k] = 1 }
        run joiner();
        run guard();
        run sender();
        for (k : 0 .. ALL - 1) { run owner(k) }
        run broker();
        run killer();
        run watch()
    }
}
