/* SPDX-License-Identifier: MIT */
/*
 * A growing channel's ring moves: into larger rings as senders find it full, home as receivers find it almost empty or
 * the broker finds it drained; and whoever moves it, sends, receives or repairs is killed at any step. Does each group
 * receive each value once and in order, is there always one ring that `ring` names and that exists, is a ring
 * given back only when nobody reads it and nobody will move into it, are all given back, and does the channel come home?
 *
 * SENDERS x VALUES values; GROUPS groups of one consumer each, the first SHRINKERS of which move home what is almost empty. Ring 0 is the channel's own, of 2 places; ring number n has
 * 2 + n, so the next is always larger; RINGS of them may be made, and no number is used twice. KILLS of the members are
 * killed, each between any two steps; the broker is killed BROKER_KILLS times. What it knew of who was about to move into
 * which ring goes with it.
 *
 * What each step is in the C:
 *   sender     xi_lock_send(), xi_follow_ring() in channel/ring.c; append() in channel/log.c; grow(), ring_new(), move(), copy_over(),
 *              lock_groups(), name_ring() in channel/ring.c
 *   consumer   look(), receive_inline(), read_far() in channel/receive.c; xi_ring_look(), shrink() and move() in channel/ring.c
 *   broker     xi_repair_channel() in broker/repair.c; world_ring_idle() in broker/world.c, asked by check_parts() and rings.c;
 *              xi_ring_home() in broker/repair.c; rings_give_up() in broker/state_part.c; recover_adopted() in broker/recover.c
 * Left out: waking; what records.pml has (numbers, borrows, batches: here a value's number is its position, plus one); groups that
 * end while the ring moves. Where repair looks without a lock whether there is garbage, the answer is any here (WRONG).
 *
 * Mutants, each of which must be found out (-D...):
 *   NO_GROUPS    the mover does not take the groups' locks
 *   COPY_EARLY   it copies before it has the producers' lock
 *   NO_EMPTY     it does not copy the empty header behind the last record
 *   NO_GONE      it does not look whether the broker has taken the ring away
 *   NAME_FIRST   it looks so after naming the ring, and then names the old one again
 *   NO_NEXT      it does not say where it will move
 *   NO_FOLLOW    who takes a lock uses the ring that it looked at before
 *   LOOK_ONCE    the broker takes a ring away without looking again after it has said so
 *   RING_FIRST   it looks at `ring` first and then where somebody is about to move
 *   NEXT_KEPT    repair leaves what the dead one said of that
 *   HOME_DIRTY   the broker brings home without emptying the place at the tail
 *   HOME_EARLY   it looks whether all is drained before it has the locks
 *   FREE_EARLY   repair frees the producers' lock before it mends the tail
 *   OLD_VIEW     it goes on in the ring that it found, though that has moved
 */
#ifndef SENDERS
#define SENDERS 1
#endif
#ifndef GROUPS
#define GROUPS 1
#endif
#ifndef VALUES
#define VALUES 3
#endif
#ifndef RINGS
#define RINGS 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef BROKER_KILLS
#define BROKER_KILLS 0
#endif
#ifndef SHRINKERS
#define SHRINKERS 1
#endif
#define MEMBERS (SENDERS + GROUPS)
#define BROKER MEMBERS /* its slot; a lock word is slot + 1 */
#define CAPACITY(r) (2 + (r))
#define CELL(r, position) cell[(r) * (2 + RINGS) + (position) % CAPACITY(r)]

/* The channel: wire/layout.h. A position is the number of records before it. */
byte ring;                            /* xi_chan.ring */
byte next;                            /* xi_chan.ring_next: where the holder of the producers' lock is about to move */
byte lock, tail;
byte glock[GROUPS], head[GROUPS];
byte cell[(RINGS + 1) * (2 + RINGS)]; /* of each ring: 0, or the record's number */
bit gone[RINGS + 1];                  /* of each ring's head */
bit exists[RINGS + 1];                /* its segment */
byte made;                            /* rings made so far */
byte filling, maker;                  /* the broker's own: a ring that is being filled, and by whom; 0 none */
bit dead[MEMBERS + 1], repaired[MEMBERS];
byte kills = KILLS, broker_kills = BROKER_KILLS;
/* What has truly happened. */
byte published, taken[GROUPS];
bit finished[SENDERS];

inline smallest_head(h) { /* xi_log_floor() */
    h = head[0];
#if GROUPS > 1
    if
    :: head[1] < h -> h = head[1]
    :: else
    fi
#endif
}

/* ---------------------------------------------------------------- moving */

inline copy_over(from) {
    do
#ifdef NO_EMPTY
    :: at < tail ->
#else
    :: at <= tail ->
#endif
        CELL(to, at) = CELL(from, at);
        at++
    :: else -> break
    od
}

inline name_ring(from) { /* under all locks */
#ifdef NAME_FIRST
    ring = to;
    if
    :: gone[to] -> ring = from
    :: else
    fi
#else
#ifndef NO_NEXT
    next = to;
#endif
    if
#ifndef NO_GONE
    :: gone[to]
    :: else ->
#else
    ::
#endif
        ring = to /* THE MOVE */
    fi;
#ifndef NO_NEXT
    next = 0
#endif
#endif
}

inline lock_groups() {
    g = 0;
#ifndef NO_GROUPS
    do
    :: g == GROUPS -> break
    :: g < GROUPS ->
        if
        :: atomic { glock[g] == 0 -> glock[g] = me + 1; g++ }
        :: glock[g] != 0 -> break /* for too long */
        fi
    od
#else
    g = GROUPS
#endif
}

inline unlock_groups() {
    do
    :: g > 0 ->
        g--;
#ifndef NO_GROUPS
        glock[g] = 0
#endif
    :: g == 0 -> break
    od
}

/* move(). `grows`: it is full; else it fits into the smaller one. */
inline move(from, grows) {
#ifdef COPY_EARLY
    atomic { smallest_head(at) }
    copy_over(from);
#endif
    atomic { lock == 0 -> lock = me + 1 }
    atomic {
        smallest_head(at);
        still = ring == from && (grows -> tail + 2 > CAPACITY(from) + at : tail + 1 <= CAPACITY(to) + at)
    }
    if
    :: still ->
#ifndef COPY_EARLY
        copy_over(from);
#endif
        lock_groups();
        if
        :: g == GROUPS -> name_ring(from)
        :: else
        fi;
        unlock_groups()
    :: else
    fi;
    lock = 0;
    atomic { at = 0; g = 0; still = 0 }
}

/* ------------------------------------------------------------- producers */

inline grow() { /* ring_new(): the broker's answer; move_over() */
    if
    :: atomic { !dead[BROKER] && filling == 0 && made < RINGS -> made++; to = made; exists[to] = 1; filling = to; maker = me }
        move(view, 1);
        atomic {
            if
            :: filling == to -> filling = 0; maker = 0
            :: else
            fi;
            to = 0
        }
    :: ring != view || tail + 2 <= CAPACITY(view) + head[0] && tail + 2 <= CAPACITY(view) + head[GROUPS - 1] /* sleeps */
    fi
}

proctype sender(byte me) {
    byte n, view, to, at, g;
    bit still;
    {
        do
        :: n == VALUES -> break
        :: else ->
#ifdef NO_FOLLOW
            view = ring;
#endif
            atomic { lock == 0 -> lock = me + 1 }
#ifndef NO_FOLLOW
            view = ring; /* xi_follow_ring() */
#endif
            assert(exists[view]);
            atomic { smallest_head(at) }
            if
            :: tail + 2 <= CAPACITY(view) + at ->
                at = 0;
                CELL(view, tail + 1) = 0;
                atomic { CELL(view, tail) = tail + 1; published++; assert(published == tail + 1) } /* THE SEND */
                atomic { tail++; n++ }
                lock = 0
            :: else ->
                at = 0;
                lock = 0;
                grow()
            fi;
            view = 0
        od;
        finished[me] = 1
    } unless { atomic { dead[me] -> n = 0; view = 0; to = 0; at = 0; g = 0; still = 0 } }
}

/* ------------------------------------------------------------- consumers */

proctype consumer(byte mine; byte me) {
    byte view, to, at, g, number;
    bit still;
    {
end_look:
        do
        :: (ring == 0 -> CELL(0, head[mine]) != 0 : tail > head[mine]) -> /* look(), without the lock */
#ifdef NO_FOLLOW
            view = ring;
#endif
            atomic { glock[mine] == 0 -> glock[mine] = me + 1 }
#ifndef NO_FOLLOW
            view = ring; /* xi_follow_ring() */
#endif
            atomic {
                assert(exists[view]);
                number = CELL(view, head[mine]);
                assert(number != 0 || view == 0 || tail <= head[mine]); /* read_far(): else it is skipped as corrupt */
                assert(number == 0 || number == head[mine] + 1)        /* what comes next, and nothing else */
            }
            if
            :: number != 0 -> atomic { head[mine]++; taken[mine]++ } /* THE RECEIVE */
            :: else
            fi;
            glock[mine] = 0;
            atomic { view = 0; number = 0 }
        :: mine < SHRINKERS && ring != 0 && tail < 2 + head[mine] -> /* xi_ring_look() */
            view = ring;
            if
            :: view != 0 -> move(view, 0)
            :: else
            fi;
            view = 0
        od
    } unless { atomic { dead[me] -> view = 0; to = 0; at = 0; g = 0; number = 0; still = 0 } }
}

/* ---------------------------------------------------------------- broker */

#define GONE(word) ((word) == d + 1 || (word) == BROKER + 1)

inline seize(word, ours) {
    atomic {
        if
        :: word != 0 -> ours = GONE(word)
        :: word == 0 -> ours = 0
#ifdef WRONG
        :: word == 0 -> word = BROKER + 1; ours = 1
#endif
        fi
    }
}

#ifdef OLD_VIEW
#define MOVED 0
#else
#define MOVED (ring != view)
#endif

inline repair_tail() {
    atomic {
        end = tail;
        do /* follow() */
        :: CELL(view, end) == end + 1 -> end++
        :: else -> break
        od;
        assert(CELL(view, end) == 0) /* chain.clean */
    }
    tail = end;
    end = 0
}

inline repair_group() {
    seize(glock[g], mine);
    if
    :: mine ->
        if
        :: MOVED -> stale = 1
        :: else -> assert(head[g] >= tail || CELL(view, head[g]) == head[g] + 1) /* head_explained() */
        fi;
        glock[g] = 0
    :: else
    fi
}

inline repair_once() { /* xi_repair_channel() */
    atomic { stale = 0; view = ring; assert(exists[view]) } /* world_view(); else all that is in it is lost */
    seize(lock, ours);
    if
    :: ours && MOVED -> stale = 1; lock = 0; ours = 0
    :: else
    fi;
#ifdef FREE_EARLY
    if
    :: ours -> lock = 0
    :: else
    fi;
#endif
    if
    :: ours -> repair_tail()
    :: else
    fi;
    g = 0;
    do
    :: g < GROUPS -> repair_group(); g++
    :: else -> break
    od;
    if
    :: ours ->
#ifndef NEXT_KEPT
        next = 0;
#endif
#ifndef FREE_EARLY
        lock = 0
#endif
    :: else
    fi
}

inline repair_channel() { /* mend_channels(): again while the ring moves */
    do
    :: repair_once();
        if
        :: !stale -> break
        :: else
        fi
    od
}

inline take_away(r) { /* world_ring_idle(); ACTION_REMOVE */
#ifndef LOOK_ONCE
    gone[r] = 1;
#endif
    if
#ifdef RING_FIRST
    :: ring == r -> gone[r] = 0
    :: else ->
        if
        :: next == r -> gone[r] = 0
        :: else -> exists[r] = 0
        fi
#else
    :: next == r -> gone[r] = 0
    :: else ->
#ifdef LOOK_ONCE
        gone[r] = 1;
        exists[r] = 0
#else
        if
        :: ring == r -> gone[r] = 0
        :: else -> exists[r] = 0
        fi
#endif
#endif
    fi
}

#define DRAINED (head[0] == tail && head[GROUPS - 1] == tail && CELL(ring, tail) == 0)

inline bring_home() { /* rings.c; xi_ring_home() */
    if
    :: atomic { lock == 0 -> lock = BROKER + 1 }
        g = 0;
        do
        :: g == GROUPS -> break
        :: g < GROUPS ->
            if
            :: atomic { glock[g] == 0 -> glock[g] = BROKER + 1; g++ }
            :: glock[g] != 0 -> break
            fi
        od;
        if
#ifdef HOME_EARLY
        :: g == GROUPS && ring == view ->
#else
        :: g == GROUPS && ring == view && DRAINED ->
#endif
#ifndef HOME_DIRTY
            CELL(0, tail) = 0;
#endif
            ring = 0
        :: else
        fi;
        do
        :: g > 0 -> g--; glock[g] = 0
        :: g == 0 -> break
        od;
        lock = 0
    :: lock != 0
    fi
}

inline forget() { /* what a process has in its own memory goes with it */
    d = 0; view = 0; end = 0; g = 0; ours = 0; mine = 0; stale = 0
}

#define DIED(i) (dead[BROKER] == 0 && repaired[i] == 0 && dead[i])
#define IDLE(r) (dead[BROKER] == 0 && exists[r] && filling != (r) && ring != (r) && (next != (r) || lock != 0))

proctype broker() {
    byte d, view, end, g;
    bit ours, mine, stale;
begin:
    {
end_wait:
        do
        :: atomic {
                if
                :: DIED(0) -> d = 0
                :: DIED(1) -> d = 1
#if MEMBERS > 2
                :: DIED(2) -> d = 2
#endif
                fi;
                if /* rings_give_up() */
                :: filling != 0 && maker == d -> filling = 0; maker = 0
                :: else
                fi
            }
            repair_channel();
            repaired[d] = 1;
            atomic { forget() }
        :: IDLE(1) -> take_away(1)
#if RINGS > 1
        :: IDLE(2) -> take_away(2)
#endif
        :: atomic { dead[BROKER] == 0 && ring != 0 && filling == 0 && DRAINED -> view = ring; d = BROKER }
            bring_home();
            atomic { forget() }
        od
    } unless {
        atomic { dead[BROKER] -> forget(); dead[BROKER] = 0; d = BROKER; goto adopt }
    }
adopt:
    { repair_channel(); atomic { forget(); goto begin } }
    unless { atomic { dead[BROKER] -> forget(); dead[BROKER] = 0; d = BROKER; goto adopt } }
}

/* ------------------------------------------------------------------------ */

proctype killer() {
    byte who;
end_killer:
    do
    :: atomic { kills > 0 -> select(who : 0 .. MEMBERS - 1);
           if /* all senders are alike: the first of them that dies is number 0 */
           :: !dead[who] && (who == 0 || who >= SENDERS || dead[0]) -> dead[who] = 1; kills--
           :: else
           fi;
           who = 0 }
    :: atomic { broker_kills > 0 && !dead[BROKER] -> dead[BROKER] = 1; filling = 0; maker = 0; broker_kills-- }
    :: kills + broker_kills > 0 -> kills = 0; broker_kills = 0 /* or nobody (else) is */
    od
}

/* Runs when nobody else can: then all is at rest. */
proctype watch() {
    byte i;
    bit all;
end_watch:
    timeout;
    atomic {
        assert(lock == 0 && exists[ring]);
        assert(tail == published && CELL(ring, tail) == 0);
        all = 1;
        for (i : 0 .. GROUPS - 1) {
            assert(glock[i] == 0 && head[i] == taken[i]);
            assert(dead[SENDERS + i] || head[i] == tail);
            all = all && !dead[SENDERS + i]
        }
        for (i : 0 .. MEMBERS - 1) { assert(!dead[i] || repaired[i]) }
        for (i : 1 .. RINGS) { assert(!exists[i] || ring == i) } /* the others have been given back */
        if
        :: all -> /* all has been received, and it is at home */
            assert(ring == 0);
            for (i : 0 .. SENDERS - 1) { assert(finished[i] || dead[i]) }
        :: else
        fi
    }
}

init {
    byte i;
    atomic {
        exists[0] = 1;
        for (i : 0 .. SENDERS - 1) { run sender(i) }
        for (i : 0 .. GROUPS - 1) { run consumer(i, SENDERS + i) }
        run broker();
        run killer();
        run watch()
    }
}
