/* SPDX-License-Identifier: MIT */
/*
 * Sending, receiving, releasing blocks, and the repair after a death at any step
 * of them: is each value that was sent received exactly once and in order, is no
 * block used again while somebody reads it, and does everything that the dead
 * held come back?
 *
 * PRODUCERS x VALUES values through a ring of SLOTS places, CONSUMERS of one
 * group. KILLS of them are killed, each between any two of its steps; the broker
 * is killed BROKER_KILLS times, between any two of its own, and begins anew as one
 * that adopts. Every interleaving is explored. The dead stop between two stores:
 * what a processor's buffer still held becomes visible (a kill is an interrupt).
 * Memory order among the living is not this model's concern: see memory/.
 *
 * Values lie in blocks, one block to a producer, which is used again; or
 * (INLINE) in the ring, BATCH of them under one lock.
 *
 * What each step is in the C:
 *   producer     xi_arena_alloc() and released_by_all() in arena/arena.c; append() in channel/send.c;
 *                xi_log_append() in channel/log.c; xi_log_publish() in channel/log.h
 *   consumer     receive_alone(), take_block(), receive_inline(), commit() in channel/receive.c;
 *                xi_release_bit() and end_borrow() in channel/borrowed.c; xi_borrow_drop() in interp/borrow.c
 *   broker       recover_adopted() and mend_channels() in broker/recover.c; xi_repair_channel() and what it calls in
 *                broker/repair.c, by the names that stand beside the steps
 * Left out: waking (park.pml); joins and ends of groups (groups.pml); what repair
 * does about garbage. Where repair looks, without a lock, whether there is any
 * ("wrong"), the answer is any here: so it may take a free lock at any time.
 *
 * Mutants, each of which must be found out (-D...), by what is wrong:
 *   HEADER_EARLY   the header is stored before the payload
 *   ZERO_LATE      the header behind is zeroed after the send, not before
 *   TAIL_EARLY     the tail is stored before the header
 *   NUMBER_LATE    head_seq is stored after the head
 *   KEY_LATE       the borrow entry is written after the head
 *   DROP_EARLY     the borrow entry is dropped before the release word is set
 *   NO_GENERATION  a release does not look at the block's generation
 *   NO_WALK        repair does not follow the headers from the tail
 *   NO_JUDGE       repair releases what was borrowed, whether the head moved or not
 *   JUDGE_LATE     it judges so after freeing the lock
 *   FREE_EARLY     it frees the producers' lock before it mends the tail
 *   LOOK_ONCE      it does not look at the tail again after taking a group's lock
 *   LOOK_LATE      it looks whether the producers' lock is free after looking at the tail
 *   NO_SLOT_0      a new broker leaves the locks of the old one alone
 */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef VALUES
#define VALUES 1
#endif
#ifndef SLOTS
#define SLOTS 3
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef BROKER_KILLS
#define BROKER_KILLS 0
#endif
#ifndef BATCH
#define BATCH 1
#endif
#define MEMBERS (PRODUCERS + CONSUMERS)
#define BROKER MEMBERS            /* its slot; a lock word is slot + 1 */
#define AT(position) ((position) % SLOTS)

/* The channel: wire/layout.h. A position is the number of records before it. */
byte lock, tail, tail_seq, min_head; /* struct xi_chan */
byte glock, head, head_seq;          /* struct xi_group */
byte header[SLOTS];                  /* 0, or the record's number */
byte payload[SLOTS];                 /* of a block: its producer and generation; of an inline value: its number */
#define NAME(block, generation) ((block) * 16 + (generation) + 1)
#define NAMED(p) (((p) - 1) / 16)
#define GENERATION(p) (((p) - 1) % 16)
/* Blocks, one a producer. */
byte life[PRODUCERS];                /* the owner's own: which life of its block this is */
byte content[PRODUCERS];             /* what the owner has written there */
byte word_life[PRODUCERS];           /* the release word: its generation */
bit word_bit[PRODUCERS];             /* and the group's bit */
/* Borrow tables, of one entry. */
byte b_block[CONSUMERS], b_position[CONSUMERS], b_key[CONSUMERS]; /* key: the generation, 0 nothing is held */

bit dead[MEMBERS + 1], repaired[MEMBERS];
byte kills = KILLS, broker_kills = BROKER_KILLS;
/* What has truly happened. */
byte published, taken, published_life[PRODUCERS], received_life[PRODUCERS];
bit finished[PRODUCERS];

/* ------------------------------------------------------------- producers */

inline mark_sent() { /* xi_arena_mark_sent() */
    atomic { word_life[me] = life[me]; word_bit[me] = 0 }
}

inline write_payload() {
#ifdef INLINE
    payload[AT(w)] = number
#else
    payload[AT(w)] = NAME(me, life[me])
#endif
}

inline publish() { /* THE SEND */
    atomic {
        header[AT(w)] = number;
        assert(number == published + 1);
        published = number;
#ifndef INLINE
        published_life[me] = life[me]
#endif
    }
}

proctype producer(byte me) {
    byte n, w, number, done;
    {
        do
        :: n == VALUES -> break
        :: else ->
#ifndef INLINE
            /* released_by_all(): no other block is to be had here, so it waits for this one */
            life[me] == 0 || (word_life[me] == life[me] && word_bit[me]);
            atomic { life[me]++; content[me] = life[me] }
#endif
again:
            atomic { lock == 0 -> lock = me + 1 }
            atomic { w = tail; number = tail_seq + 1; done = 0 }
            if
            :: w + 2 > SLOTS + min_head -> min_head = head /* look_for_room(); the record, and the header behind it */
            :: else
            fi;
            if
            :: w + 2 > SLOTS + min_head -> lock = 0; w + 2 <= SLOTS + head; goto again
            :: else
            fi;
#ifdef TAIL_EARLY
            tail_seq = number; tail = w + 1;
#endif
            do
            :: n == VALUES || done == BATCH || w + 2 > SLOTS + min_head -> break
            :: else ->
#ifndef INLINE
                mark_sent();
#endif
#ifdef HEADER_EARLY
                header[AT(w + 1)] = 0;
                publish();
                write_payload();
#else
#ifdef ZERO_LATE
                write_payload();
                publish();
                header[AT(w + 1)] = 0;
#else
                atomic { write_payload(); header[AT(w + 1)] = 0 } /* nobody looks at either before the header is there */
                publish();
#endif
#endif
                atomic { w++; number++; done++; n++ }
            od;
#ifndef TAIL_EARLY
            tail_seq = number - 1;
            tail = w;
#endif
            lock = 0
        od;
        finished[me] = 1
    } unless { dead[me] }
}

/* ------------------------------------------------------------- consumers */

inline release(block, generation) { /* xi_release_bit(), xi_release_block(): compare and swap */
    atomic {
        if
#ifdef NO_GENERATION
        :: word_bit[block] = 1
#else
        :: word_life[block] == generation -> word_bit[block] = 1
        :: else
#endif
        fi
    }
}

inline borrow() { /* take_block() */
    atomic { b_block[me] = NAMED(p); b_position[me] = h; b_key[me] = GENERATION(p) } /* without a key the rest says nothing */
}

proctype consumer(byte me) {
    byte h, p, number, done, first;
    {
end_look:
        do
        :: header[AT(head)] != 0 -> /* peek(), without the lock */
            atomic { glock == 0 -> glock = PRODUCERS + me + 1 }
            atomic { h = head; number = head_seq; done = 0; first = taken }
            do
            :: done == BATCH || header[AT(h)] == 0 || h - head == SLOTS -> break
            :: else ->
                p = payload[AT(h)];
#ifdef INLINE
                assert(p == header[AT(h)]);
#endif
                assert(header[AT(h)] == first + done + 1); /* what comes next, and nothing else */
#if !defined(INLINE) && !defined(KEY_LATE)
                borrow();
#endif
                atomic { h++; done++ }
            od;
            if
            :: done == 0 -> glock = 0
            :: else ->
#ifndef NUMBER_LATE
                head_seq = number + done;
#endif
                atomic { /* THE RECEIVE */
                    head = h;
                    taken = taken + done;
#ifndef INLINE
                    assert(received_life[NAMED(p)] < GENERATION(p));
                    received_life[NAMED(p)] = GENERATION(p)
#endif
                }
#ifdef NUMBER_LATE
                head_seq = number + done;
#endif
#ifdef KEY_LATE
                h--;
                borrow();
#endif
                glock = 0;
#ifndef INLINE
                assert(content[NAMED(p)] == GENERATION(p)); /* reading the block */
#ifdef DROP_EARLY
                b_key[me] = 0;
                release(NAMED(p), GENERATION(p))
#else
                release(NAMED(p), GENERATION(p));
                b_key[me] = 0
#endif
#endif
            fi;
            atomic { h = 0; p = 0; number = 0; done = 0; first = 0 }
        od
    } unless { dead[PRODUCERS + me] }
}

/* ---------------------------------------------------------------- broker */

/* holder_is_gone(): the dead one, or a broker before this one. */
#ifdef NO_SLOT_0
#define GONE(word) ((word) == d + 1 && d != BROKER)
#else
#define GONE(word) ((word) == d + 1 || (word) == BROKER + 1)
#endif

inline seize(word, ours) { /* seize() */
    atomic {
        if
        :: word != 0 -> ours = GONE(word)
        :: word == 0 -> ours = 0
        :: word == 0 -> word = BROKER + 1; ours = 1 /* "wrong" */
        fi
    }
}

inline repair_tail() { /* repair_tail(): nobody else writes headers and the tail now */
    atomic {
        end = tail; number = tail_seq; h = head; /* smallest_head() */
        assert(h + SLOTS >= end && h <= end + SLOTS); /* tail_explained() */
#ifndef NO_WALK
        do /* follow() */
        :: header[AT(end)] != 0 && end + 1 < h + SLOTS && (end == tail || header[AT(end)] == number + 1) ->
            number = header[AT(end)];
            end++
        :: else -> break
        od;
#endif
        assert(header[AT(end)] == 0) /* chain.clean */
    }
    tail_seq = number;
    tail = end
}

inline look_at_tail() {
#ifdef LOOK_LATE
    t_number = tail_seq;
    t_tail = tail;
    exact = ours || lock == 0
#else
    if
    :: ours -> atomic { exact = 1; t_number = tail_seq; t_tail = tail }
    :: else -> exact = lock == 0; t_number = tail_seq; t_tail = tail
    fi
#endif
}

inline repair_head() { /* repair_head(), repair_head_number(): the head is ours */
    atomic {
        h = head;
        /* head_explained(): else the head would be moved to the tail */
        assert((h >= t_tail && h <= (exact -> t_tail : t_tail + SLOTS)) || (h < t_tail && h + SLOTS >= t_tail && header[AT(h)] != 0));
        number = head_seq;
        if
        :: header[AT(h)] != 0 -> number = header[AT(h)] - 1
        :: header[AT(h)] == 0 && ours && h == t_tail -> number = t_number
        :: else
        fi
    }
    head_seq = number
}

inline judge_borrows() {
    if
    :: d >= PRODUCERS && d < MEMBERS && b_key[d - PRODUCERS] != 0 && b_position[d - PRODUCERS] >= head -> b_key[d - PRODUCERS] = 0
    :: else
    fi
}

inline repair_group() {
    look_at_tail();
    seize(glock, mine);
    if
    :: mine ->
#ifndef LOOK_ONCE
        look_at_tail();
#endif
        repair_head();
#ifdef JUDGE_LATE
        glock = 0;
#endif
#ifndef NO_JUDGE
        judge_borrows();
#endif
        glock = 0
    :: else
    fi
}

inline repair_channel() { /* xi_repair_channel() */
    seize(lock, ours);
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
    repair_group();
    if
    :: ours -> /* repair_producers() */
        atomic { h = (head < tail -> head : tail) } /* repair_min_head() */
        min_head = h;
        lock = 0
    :: else
    fi
}

inline repair_borrows() { /* xi_repair_borrows() */
#ifdef INLINE
    skip
#else
    if
    :: d >= PRODUCERS && d < MEMBERS && b_key[d - PRODUCERS] != 0 ->
        release(b_block[d - PRODUCERS], b_key[d - PRODUCERS]);
        b_key[d - PRODUCERS] = 0
    :: else
    fi
#endif
}

inline forget() { /* what a process has in its own memory goes with it */
    d = 0; ours = 0; mine = 0; end = 0; number = 0; h = 0; t_tail = 0; t_number = 0; exact = 0
}

proctype broker() {
    byte d, end, number, h, t_tail, t_number;
    bit ours, mine, exact;
begin:
    {
end_wait:
        do
        :: atomic { /* a death, or this is a new broker: recover_adopted() */
                if
                :: dead[BROKER] == 0 && repaired[0] == 0 && dead[0] -> d = 0
                :: dead[BROKER] == 0 && repaired[1] == 0 && dead[1] -> d = 1
#if MEMBERS > 2
                :: dead[BROKER] == 0 && repaired[2] == 0 && dead[2] -> d = 2
#endif
#if MEMBERS > 3
                :: dead[BROKER] == 0 && repaired[3] == 0 && dead[3] -> d = 3
#endif
                fi
            }
repair:
            repair_channel();
            if
            :: d == BROKER
            :: else -> repair_borrows(); repaired[d] = 1
            fi;
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
           if /* all producers are alike, and all consumers: the first of them that dies is number 0 */
           :: !dead[who] && (who == 0 || who == PRODUCERS || dead[(who < PRODUCERS -> 0 : PRODUCERS)]) -> dead[who] = 1; kills--
           :: else
           fi;
           who = 0 }
    :: atomic { broker_kills > 0 && !dead[BROKER] -> dead[BROKER] = 1; broker_kills-- }
    :: kills + broker_kills > 0 -> kills = 0; broker_kills = 0 /* or nobody (else) is */
    od
}

/* Runs when nobody else can: then all is at rest. */
proctype watch() {
    byte i;
    bit receiving, whole;
end_watch:
    timeout;
    atomic {
        assert(lock == 0 && glock == 0);
        assert(tail == published && tail_seq == published && header[AT(tail)] == 0);
        assert(head == taken && head_seq == taken && head <= tail);
        for (i : 0 .. MEMBERS - 1) { assert(!dead[i] || repaired[i]) }
        for (i : 0 .. CONSUMERS - 1) { receiving = receiving | !dead[PRODUCERS + i]; assert(b_key[i] == 0) }
        if
        :: receiving ->
            assert(taken == published);
            for (i : 0 .. PRODUCERS - 1) {
                assert(finished[i] || dead[i]);
                assert(published_life[i] == 0 || word_life[i] != published_life[i] || word_bit[i]);
                assert(received_life[i] == published_life[i])
            }
        :: else
        fi
    }
}

init {
    byte i;
    atomic {
        for (i : 0 .. PRODUCERS - 1) { run producer(i) }
        for (i : 0 .. CONSUMERS - 1) { run consumer(i) }
        run broker();
        run killer();
        run watch()
    }
}
