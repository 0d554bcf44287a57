/* SPDX-License-Identifier: MIT */
/*
 * A group that acknowledges: deliveries that are acknowledged, given back, overdue, delivered again, and after MAX of them
 * moved to the dead letters; whoever takes part, and the repair, is killed at any step. Is every value acknowledged
 * once or a dead letter once, with the deliveries that it truly had, is it never given to two unless it was overdue or its holder
 * is dead, and is nothing outstanding at the end?
 *
 * VALUES values are there from the beginning; CONSUMERS of one group with a table of WINDOW entries. KILLS of them are killed,
 * each between any two steps, the broker BROKER_KILLS times. Time goes on at any moment: then all that is due
 * SOON is due. What a consumer extended is due FAR off, which never comes here: whoever waits for that waits for nobody. TIMED: whether
 * deliveries become overdue; else only a death gives them back. A letter's channel has room or not, at any attempt.
 *
 * What each step is in the C:
 *   receive      take_again(), take_new(), deliver(), begin_move(), commit() in channel/deliver.c; xi_flying_settle() in channel/ack.c
 *   letter       xi_letter_send() in channel/dead.c, append() in channel/log.c; end_move() in channel/deliver.c
 *   acknowledge  begin(), mine(), acknowledge(), refuse(), xi_extend(), give_back() in channel/ack.c
 *   broker       mend_moves(), mend_channels(), mend_groups(), recover_adopted() in broker/recover.c; xi_judge_moves(),
 *                xi_repair_flying(), mend_entries(), free_strays(), settle(), take_back(), end_move(), give_back() in
 *                broker/repair_ack.c, by the names that stand beside the steps
 * Left out: waking; values that expire; blocks, and those who read them beyond their delivery (lingers.pml); ends of groups; the ring (records.pml).
 *
 * Mutants, each of which must be found out (-D...):
 *   SEQ_EARLY     next_seq is stored before the entry's state
 *   FREE_EARLY    a settled entry is freed before head_seq is stored
 *   NO_OWNER      whoever acknowledges does not look whether the delivery is still its own
 *   KEEP_COUNT    a delivery again is not counted in the state
 *   NUMBER_LATE   the mover notes the letter's number after sending it
 *   DUE_FIRST     a move that found no room says when to try again before it says that it is over
 *   NO_JUDGE      repair does not judge moves
 *   JUDGE_LATE    it judges them after freeing the letters' lock
 *   READY_FIRST   repair says that a value is ready before it says since when
 *   MOVING_LAST   of a move it says since when first
 *   NO_MEND       it does not mend the due times of entries on their way
 *   NO_ENDS       it does not bring head and next to where the entries are
 *   SLEEP_ON      it does not say when to look again
 */
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef VALUES
#define VALUES 2
#endif
#ifndef WINDOW
#define WINDOW 2
#endif
#ifndef MAX
#define MAX 2
#endif
#ifndef TIMED
#define TIMED 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef BROKER_KILLS
#define BROKER_KILLS 0
#endif
#define BROKER CONSUMERS /* its slot; a lock word is slot + 1 */
#define E(number) (((number) - 1) % WINDOW)

#define FREE 0
#define OUT 1
#define READY 2
#define DONE 3
#define MOVING 4
/* Times; or of a move the letter's number. */
#define PAST 0
#define SOON 1
#define FAR 2
#define LETTER(number) (10 + (number))
#define NEVER 255

/* The group and its table: wire/layout.h. Positions: how many records lie before. */
byte glock, head, head_seq, next, next_seq, next_due = NEVER;
byte state[WINDOW], slot[WINDOW], count[WINDOW]; /* one word: status, whose, deliveries */
byte position[WINDOW], due[WINDOW];
/* The channel for dead letters. */
byte dlock, dtail, dsent; /* dsent: as its headers say */
bit dead[CONSUMERS + 1], repaired[CONSUMERS];
byte kills = KILLS, broker_kills = BROKER_KILLS;
/* What has truly happened, by number. */
byte delivered[VALUES + 1], holder[VALUES + 1]; /* holder: 1 + whose the last delivery is, 0: nobody's */
bit late[VALUES + 1], acked[VALUES + 1], lettered[VALUES + 1];

/* What is not said of an entry any more is not kept here: fewer states to go through. */
inline set_free(i) { atomic { state[E(i)] = FREE; slot[E(i)] = 0; count[E(i)] = 0; position[E(i)] = 0; due[E(i)] = 0 } }
inline set_ready(i) { atomic { state[E(i)] = READY; slot[E(i)] = 0 } }
inline set_done(i) { atomic { state[E(i)] = DONE; slot[E(i)] = 0; count[E(i)] = 0; due[E(i)] = 0; holder[i] = 0; late[i] = 0; delivered[i] = 0 } }

inline due_by(when) { /* xi_due_by() */
    if
    :: when < next_due -> next_due = when
    :: else
    fi
}

inline settle() { /* xi_flying_settle(), settle() */
    atomic {
        n = head_seq;
        do
        :: n < next_seq && state[E(n + 1)] == DONE -> n++
        :: else -> break
        od;
        k = head_seq
    }
    if
    :: n != k ->
#ifdef FREE_EARLY
        set_free(k + 1);
#endif
        head_seq = n;
        head = (n == next_seq -> next : position[E(n + 1)]);
        do
        :: k < n -> k++; set_free(k)
        :: else -> break
        od
    :: else
    fi
}

/* ------------------------------------------------------------- consumers */

inline note_delivery() { /* truly: it is this one's by now */
    assert(!acked[n] && !lettered[n]);
    assert(holder[n] == 0 || late[n] || dead[holder[n] - 1]);
    delivered[n]++;
    holder[n] = me + 1;
    late[n] = 0
}

inline deliver_again() {
#ifdef KEEP_COUNT
    atomic { state[E(n)] = OUT; slot[E(n)] = me; got = count[E(n)]; number = n; note_delivery() }
#else
    atomic { state[E(n)] = OUT; slot[E(n)] = me; count[E(n)]++; got = count[E(n)]; number = n; note_delivery() } /* THE DELIVERY */
#endif
    assert(got == delivered[n]);
    due[E(n)] = (TIMED -> SOON : NEVER)
}

inline begin_move() {
    due[E(n)] = NEVER;
    atomic { state[E(n)] = MOVING; slot[E(n)] = me; moving = n; got = count[E(n)] }
}

/* 1: look no further. */
inline take_again() {
    when = NEVER;
    n = head_seq + 1;
    stop = 0;
    do
    :: n > next_seq || stop -> break
    :: else ->
        if
        :: state[E(n)] == DONE || state[E(n)] == MOVING
        :: state[E(n)] != DONE && state[E(n)] != MOVING && due[E(n)] != PAST ->
            if
            :: due[E(n)] < when -> when = due[E(n)]
            :: else
            fi
        :: state[E(n)] != DONE && state[E(n)] != MOVING && due[E(n)] == PAST ->
            if
            :: number != 0 -> stop = 1
            :: number == 0 && (MAX == 0 || count[E(n)] < MAX) -> deliver_again()
            :: number == 0 && MAX != 0 && count[E(n)] >= MAX -> begin_move(); stop = 1
            fi
        fi;
        n++
    od;
    if
    :: !stop -> next_due = (number != 0 && TIMED && when > SOON -> SOON : when)
    :: else
    fi
}

inline take_new() {
    n = next_seq + 1;
    atomic { position[E(n)] = next; due[E(n)] = (TIMED -> SOON : NEVER) } /* and count: nobody looks at them yet */
#ifdef SEQ_EARLY
    atomic { next_seq = n; note_delivery() }
#endif
    atomic { state[E(n)] = OUT; slot[E(n)] = me; count[E(n)] = 1; number = n; got = 1 }
    if
    :: TIMED -> due_by(SOON)
    :: else
    fi;
#ifndef SEQ_EARLY
    atomic { next_seq = n; note_delivery() } /* THE DELIVERY */
#endif
    next = position[E(n)] + 1
}

inline lock_group() { atomic { glock == 0 -> glock = me + 1 } }

/* move_elsewhere(): xi_letter_send(), end_move() */
inline move_elsewhere() {
    when = 0;
    if
    :: skip -> /* no room */
#ifdef DUE_FIRST
        lock_group();
        due[E(moving)] = SOON;
        set_ready(moving)
#else
        lock_group();
        set_ready(moving);
        due[E(moving)] = SOON;
#endif
        due_by(SOON)
    :: atomic { dlock == 0 -> dlock = me + 1 }
#ifndef NUMBER_LATE
        due[E(moving)] = LETTER(dtail + 1);
#endif
        atomic { /* THE SEND */
            dsent = dtail + 1;
            assert(!acked[moving] && !lettered[moving] && got == delivered[moving] && got == MAX);
            lettered[moving] = 1
        }
#ifdef NUMBER_LATE
        due[E(moving)] = LETTER(dtail + 1);
#endif
        dtail = dsent;
        dlock = 0;
        lock_group();
        assert(state[E(moving)] == MOVING && slot[E(moving)] == me);
        set_done(moving);
        settle()
    fi;
    glock = 0;
    atomic { moving = 0; got = 0; when = 0; n = 0; k = 0 }
}

#ifdef NO_OWNER
#define MINE (number > head_seq && number <= next_seq && state[E(number)] == OUT)
#else
#define MINE (number > head_seq && number <= next_seq && state[E(number)] == OUT && slot[E(number)] == me && count[E(number)] == got)
#endif

inline finish() { /* whoever received it says what became of it */
    lock_group();
    if
    :: !MINE -> assert(late[number] || holder[number] != me + 1) /* STALE: only what was overdue is another's */
    :: MINE -> /* acknowledge() */
        atomic { assert(!acked[number] && !lettered[number] && holder[number] == me + 1); acked[number] = 1; set_done(number) }
        settle()
    :: MINE && (MAX != 0 || got < 2) -> /* refuse(), xi_delivery_end(): again now or soon */
        if
        :: when = PAST
        :: MAX == 0 || got < MAX -> when = SOON
        fi;
        due[E(number)] = when;
        atomic { set_ready(number); holder[number] = 0; late[number] = 0 }
        due_by(when)
    fi;
    glock = 0;
    atomic { number = 0; got = 0; when = 0; n = 0; k = 0 }
}

inline extend() { /* xi_extend() */
    lock_group();
    if
    :: MINE -> due[E(number)] = FAR
    :: else
    fi;
    glock = 0
}

proctype consumer(byte me) {
    byte n, k, when, number, got, moving; /* number, got: of the message that it has */
    bit stop;
    {
end_look:
        do
        :: next_due == PAST || (next_seq < VALUES && next_seq - head_seq < WINDOW) -> /* xi_ack_has_value() */
            lock_group();
            stop = 0;
            if /* choose() */
            :: next_due == PAST -> take_again()
            :: else
            fi;
            if
            :: !stop && number == 0 && next_seq < VALUES && next_seq - head_seq < WINDOW -> take_new()
            :: else
            fi;
            settle();
            glock = 0;
            atomic { n = 0; k = 0; when = 0; stop = 0 }
            if
            :: moving != 0 -> move_elsewhere()
            :: number != 0 ->
                if
#ifdef EXTEND
                :: extend()
#endif
                :: skip
                fi;
                finish()
            :: else
            fi
        od
    } unless { atomic { dead[me] -> n = 0; k = 0; when = 0; number = 0; got = 0; moving = 0; stop = 0 } }
}

/* ---------------------------------------------------------------- broker */

#define GONE(word) ((word) == d + 1 || (word) == BROKER + 1)

inline judge_moves() { /* xi_judge_moves() */
#ifdef NO_JUDGE
    skip
#else
    n = 0;
    do
    :: n == WINDOW -> break
    :: else ->
        if
        :: state[n] == MOVING && slot[n] == d && due[n] != PAST && due[n] != NEVER ->
            due[n] = (dlock != d + 1 || LETTER(dsent) >= due[n] -> PAST : NEVER) /* was_sent() */
        :: else
        fi;
        n++
    od;
    n = 0
#endif
}

inline mend_entries() {
    n = head_seq + 1;
    do
    :: n > next_seq -> break
    :: else ->
        if
        :: due[E(n)] == NEVER && (state[E(n)] == READY || (state[E(n)] == OUT && TIMED)) -> due[E(n)] = PAST
        :: else
        fi;
        n++
    od
}

inline repair_flying() { /* the group's lock is ours */
#ifndef NO_ENDS
    if /* find_ends() */
    :: next_seq == head_seq -> assert(next >= head); head = next
    :: else -> next = position[E(next_seq)] + 1; head = position[E(head_seq + 1)]
    fi;
#endif
    assert(head == head_seq && next == next_seq);
    n = next_seq + 1;
    do /* free_strays() */
    :: n > head_seq + WINDOW -> break
    :: else ->
        if
        :: state[E(n)] != FREE -> set_free(n)
        :: else
        fi;
        n++
    od;
#ifndef NO_MEND
    mend_entries();
#endif
    settle();
#ifndef SLEEP_ON
    next_due = PAST;
#endif
    n = 0; k = 0
}

inline repair_channels() { /* mend_channels(): the letters' channel, and this */
    if
    :: GONE(dlock) -> dtail = dsent; dlock = 0
    :: else
    fi;
#ifdef JUDGE_LATE
    judge_moves();
#endif
    if
    :: GONE(glock) -> repair_flying(); glock = 0
    :: else
    fi
}

inline give_back() {
    if
#ifdef READY_FIRST
    :: state[E(n)] == OUT -> set_ready(n); due[E(n)] = PAST
#else
    :: state[E(n)] == OUT -> due[E(n)] = PAST; set_ready(n)
#endif
#ifdef MOVING_LAST
    :: state[E(n)] == MOVING -> due[E(n)] = PAST; set_ready(n)
#else
    :: state[E(n)] == MOVING -> set_ready(n); due[E(n)] = PAST
#endif
    fi
}

inline take_back() { /* xi_repair_acks(), under the group's lock, which the living may have now */
    atomic { glock == 0 || GONE(glock) -> glock = BROKER + 1 }
    n = head_seq + 1;
    do
    :: n > next_seq -> break
    :: else ->
        if
        :: slot[E(n)] == d && state[E(n)] == MOVING && due[E(n)] == PAST -> set_done(n) /* end_move() */
        :: slot[E(n)] == d && (state[E(n)] == OUT || (state[E(n)] == MOVING && due[E(n)] != PAST)) -> give_back()
        :: else
        fi;
        n++
    od;
    settle();
#ifndef SLEEP_ON
    next_due = PAST;
#endif
    glock = 0
}

inline forget() { /* what a process has in its own memory goes with it */
    d = 0; n = 0; k = 0
}

proctype broker() {
    byte d, n, k;
begin:
    {
end_wait:
        do
        :: atomic {
                if
                :: dead[BROKER] == 0 && repaired[0] == 0 && dead[0] -> d = 0
#if CONSUMERS > 1
                :: dead[BROKER] == 0 && repaired[1] == 0 && dead[1] -> d = 1
#endif
                fi
            }
#ifndef JUDGE_LATE
            judge_moves();
#endif
            repair_channels();
            take_back();
            repaired[d] = 1;
            atomic { forget() }
        od
    } unless {
        atomic { dead[BROKER] -> forget(); dead[BROKER] = 0; d = BROKER; goto adopt }
    }
adopt:
    { repair_channels(); atomic { forget(); goto begin } }
    unless { atomic { dead[BROKER] -> forget(); dead[BROKER] = 0; d = BROKER; goto adopt } }
}

/* ------------------------------------------------------------------------ */

/* Time goes on. */
proctype clock() {
    byte i;
end_clock:
    do
    :: atomic {
            next_due == SOON ->
            next_due = PAST;
            for (i : head_seq + 1 .. next_seq) {
                if
                :: due[E(i)] == SOON && state[E(i)] != MOVING ->
                    due[E(i)] = PAST;
                    if
                    :: state[E(i)] == OUT -> late[i] = 1
                    :: else
                    fi
                :: else
                fi
            }
            i = 0
        }
    od
}

proctype killer() {
    byte who;
end_killer:
    do
    :: atomic { kills > 0 -> select(who : 0 .. CONSUMERS - 1);
           if /* all are alike: the first of them that dies is number 0 */
           :: !dead[who] && (who == 0 || dead[0]) -> dead[who] = 1; kills--
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
    bit receiving;
end_watch:
    timeout;
    atomic {
        assert(glock == 0 && dlock == 0 && dtail == dsent && head == head_seq && next == next_seq);
        for (i : 0 .. CONSUMERS - 1) {
            assert(!dead[i] || repaired[i]);
            receiving = receiving | !dead[i]
        }
        for (i : 0 .. WINDOW - 1) { assert((state[i] != OUT && state[i] != MOVING) || !dead[slot[i]]) }
        for (i : 1 .. VALUES) {
            assert(!acked[i] || !lettered[i]);
            assert(!receiving || acked[i] || lettered[i])
        }
        assert(!receiving || (head_seq == VALUES && next_seq == VALUES))
    }
}

init {
    byte i;
    atomic {
        for (i : 0 .. CONSUMERS - 1) { run consumer(i) }
        run broker();
        run clock();
        run killer();
        run watch()
    }
}
