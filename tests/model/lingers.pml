/* SPDX-License-Identifier: MIT */
/*
 * Blocks in a group that acknowledges, and who reads them: each value lies in a block, which its owner takes back when the group's bit is
 * set. A delivery that is overdue goes to another while the first reads on; a message may be kept beyond its acknowledgement, or its
 * return; a value may expire at any moment, or have been delivered in vain too often, and then vanishes, counted. Whoever takes part, and
 * the repair, is killed at any step. Is no block given back while somebody living reads it or may yet get it, does each come
 * back in the end, is every value acknowledged or counted once, and is nobody remembered as a reader who is none?
 *
 * As acks.pml, which has what this leaves out: dead letters, extensions, the positions. VALUES values are there from the beginning; CONSUMERS
 * of one group with a table of WINDOW entries and as many words for those who linger; each may have HANDS messages at a time. After MAX
 * deliveries a value vanishes. EXPIRES of the values expire. KILLS of the consumers are killed, each between any two stores, the broker
 * BROKER_KILLS times. All of a table is read and written under the group's lock, so what only reads is one step with the next store.
 *
 * What each step is in the C:
 *   receive   take_again(), take_new(), deliver(), remember_reader(), drop() in channel/deliver.c; xi_linger_add(), xi_delivery_gone(),
 *             xi_delivery_done(), xi_flying_settle() in channel/ack.c
 *   finish    acknowledge(), refuse(), keep_block(), xi_delivery_end(), xi_linger_end() in channel/ack.c
 *   broker    xi_repair_flying(), free_strays(), mend_entries(), mend_count(), mend_words(), settle(), take_back(), give_back(), drop_words()
 *             in broker/repair_ack.c
 *
 * Mutants, each of which must be found out (-D...):
 *   NO_WORD       whoever gets what is overdue does not remember who reads it
 *   WORD_LATE     or does so after the delivery
 *   HOLDER_FIRST  of a word, who reads is stored before what
 *   BIT_FIRST     the bit is set before the value is done
 *   NO_LOOK       whoever acknowledges sets it though somebody lingers
 *   ALONE         so does whoever finds it expired, or spent
 *   NO_OTHERS     so does the first of two who linger
 *   IN_FLIGHT     so does who lingers while another has the value
 *   WORD_FREED    who lingers frees its word before it sets the bit
 *   COUNT_FIRST   what vanishes is counted before it is done
 *   NO_COUNTING   it is not said that it is being counted
 *   NO_MEND       repair does not set the bits of what is done
 *   NO_WORDS      it does not drop the words of those who have their delivery still
 *   NO_COUNT      it does not mend the count
 *   DEAD_LINGER   it does not drop the dead one's words
 *   DEAD_FREED    it frees them before it sets the bit
 */
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef VALUES
#define VALUES 1
#endif
#ifndef WINDOW
#define WINDOW 2
#endif
#ifndef HANDS
#define HANDS 1
#endif
#ifndef MAX
#define MAX 2
#endif
#ifndef EXPIRES
#define EXPIRES 0
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
#define PAST 0
#define SOON 1
#define NEVER 255

/* The group and its table: wire/layout.h. */
byte glock, head_seq, next_seq, next_due = NEVER;
byte state[WINDOW], slot[WINDOW], count[WINDOW]; /* one word: status, whose, deliveries */
byte due[WINDOW];
byte reader[WINDOW], reads[WINDOW]; /* of a word, one word: 1 + whose the delivery is, 0: free; and the how-manyeth */
byte what[WINDOW]; /* its number, and block */
byte counting, count_to, counter;
bit released[VALUES + 1], expired[VALUES + 1];
bit dead[CONSUMERS + 1], repaired[CONSUMERS];
byte kills = KILLS, broker_kills = BROKER_KILLS, expires = EXPIRES;
/* What has truly happened, by number. */
byte delivered[VALUES + 1], holder[VALUES + 1]; /* holder: 1 + whose the last delivery is, 0: nobody's */
bit late[VALUES + 1], acked[VALUES + 1], gone[VALUES + 1];
byte messages[CONSUMERS * (VALUES + 1)]; /* how many of this value's a consumer has, and reads */
#define MESSAGES(who, number) messages[(who) * (VALUES + 1) + (number)]

inline set_free(i) { atomic { state[E(i)] = FREE; slot[E(i)] = 0; count[E(i)] = 0; due[E(i)] = 0 } }
inline set_ready(i) { atomic { state[E(i)] = READY; slot[E(i)] = 0 } }
inline set_done(i) { state[E(i)] = DONE; slot[E(i)] = 0; count[E(i)] = 0; due[E(i)] = 0; holder[i] = 0; late[i] = 0; delivered[i] = 0 }
inline free_word(i) { atomic { reader[i] = 0; reads[i] = 0; what[i] = 0 } }

inline due_by(when) { /* xi_due_by() */
    if
    :: when < next_due -> next_due = when
    :: else
    fi
}

/* The group's bit of that block. Again does nothing. */
inline release(i) {
    atomic {
        assert(acked[i] || gone[i]);
        c = 0;
        do
        :: c < CONSUMERS -> assert(dead[c] || MESSAGES(c, i) == 0); c++
        :: else -> break
        od;
        c = 0;
        released[i] = 1
    }
}

/* others = 1 if a word names the block, but for word `but`. Part of an atomic step. */
inline look_for_words(i, but) {
    c = 0; others = 0;
    do
    :: c < WINDOW -> others = others | (c != (but) && reader[c] != 0 && what[c] == i); c++
    :: else -> break
    od;
    c = 0
}

inline settle() { /* xi_flying_settle(), settle() */
    atomic {
        n = head_seq;
        do
        :: n < next_seq && state[E(n + 1)] == DONE -> n++
        :: else -> break
        od;
        k = head_seq;
        if
        :: n != k -> head_seq = n
        :: else
        fi
    }
    do
    :: k < n -> k++; set_free(k)
    :: else -> break
    od;
    atomic { n = 0; k = 0 }
}

/* ------------------------------------------------------------- consumers */

inline lock_group() { atomic { glock == 0 -> glock = me + 1 } }

/* xi_linger_add(): no_room = 1 if there is no room. */
inline add_word(who, nth, i) {
    atomic {
        w = 0;
        do
        :: w < WINDOW && reader[w] != 0 -> w++
        :: else -> break
        od;
        no_room = (w == WINDOW);
        if
        :: !no_room ->
#ifdef HOLDER_FIRST
            reader[w] = (who) + 1; reads[w] = nth
#else
            what[w] = i
#endif
        :: else
        fi
    }
    if
    :: !no_room ->
#ifdef HOLDER_FIRST
        what[w] = i
#else
        atomic { reader[w] = (who) + 1; reads[w] = nth }
#endif
    :: else
    fi;
    w = 0
}

inline remember_reader() {
    no_room = 0;
#ifndef NO_WORD
    if
    :: state[E(n)] == OUT -> add_word(slot[E(n)], count[E(n)], n)
    :: else
    fi
#endif
}

inline note_delivery() { /* truly: it is this one's by now */
    assert(!acked[n] && !gone[n] && !released[n]);
    assert(holder[n] == 0 || late[n] || dead[holder[n] - 1]);
    delivered[n]++;
    holder[n] = me + 1;
    late[n] = 0;
    MESSAGES(me, n)++;
    if /* into a free hand */
    :: number[0] == 0 -> number[0] = n; nth[0] = delivered[n]
#if HANDS > 1
    :: number[0] != 0 -> number[1] = n; nth[1] = delivered[n]
#endif
    fi;
    took = 1
}

/* xi_delivery_gone(), xi_delivery_done() */
inline vanish(alone) {
    count_to = counter + 1;
#ifdef COUNT_FIRST
    counter = count_to;
#endif
#ifndef NO_COUNTING
    counting = n;
#endif
    atomic { assert(!acked[n] && !gone[n]); gone[n] = 1; set_done(n); look_for_words(n, WINDOW) }
    if
#ifdef ALONE
    :: true -> release(n)
#else
    :: alone || !others -> release(n)
    :: else
#endif
    fi;
    counter = count_to;
    counting = 0;
    others = 0
}

inline deliver_again() {
#ifdef WORD_LATE
    atomic { o = state[E(n)]; p = slot[E(n)]; q = count[E(n)]; no_room = 0; state[E(n)] = OUT; slot[E(n)] = me; count[E(n)]++; note_delivery() }
    if
    :: o == OUT -> add_word(p, q, n)
    :: else
    fi;
    due[E(n)] = SOON
#else
    remember_reader();
    if
    :: no_room -> when = SOON
    :: else ->
        atomic { state[E(n)] = OUT; slot[E(n)] = me; count[E(n)]++; assert(count[E(n)] == delivered[n] + 1); note_delivery() } /* THE DELIVERY */
        due[E(n)] = SOON
    fi
#endif
}

inline drop_old() {
    remember_reader();
    if
    :: no_room -> when = SOON
    :: else -> vanish(false)
    fi
}

inline take_again() {
    atomic { when = NEVER; n = head_seq + 1; stop = 0 }
    do
    :: n > next_seq || stop -> break
    :: else ->
        if
        :: state[E(n)] == DONE
        :: state[E(n)] != DONE && due[E(n)] != PAST ->
            if
            :: due[E(n)] < when -> when = due[E(n)]
            :: else
            fi
        :: state[E(n)] != DONE && due[E(n)] == PAST ->
            if
            :: took -> stop = 1
            :: !took && !expired[n] && count[E(n)] < MAX -> deliver_again()
            :: !took && (expired[n] || count[E(n)] >= MAX) -> drop_old()
            fi
        fi;
        n++
    od;
    if
    :: !stop -> next_due = (took && when > SOON -> SOON : when)
    :: else
    fi
}

inline take_new() {
    n = next_seq + 1;
    if
    :: !expired[n] ->
        atomic { due[E(n)] = SOON; state[E(n)] = OUT; slot[E(n)] = me; count[E(n)] = 1 }
        due_by(SOON);
        atomic { next_seq = n; note_delivery() } /* THE DELIVERY */
    :: expired[n] ->
        atomic { due[E(n)] = PAST; state[E(n)] = READY; slot[E(n)] = 0; count[E(n)] = 0 }
        next_seq = n;
        vanish(true)
    fi
}

inline receive() {
    lock_group();
    took = 0; stop = 0;
    if
    :: next_due == PAST -> take_again()
    :: else
    fi;
    if
    :: !stop && !took && next_seq < VALUES && next_seq - head_seq < WINDOW -> take_new()
    :: else
    fi;
    settle();
    glock = 0;
    atomic { n = 0; k = 0; when = 0; stop = 0; took = 0; no_room = 0; o = 0; p = 0; q = 0 }
}

#define MINE (number[h] > head_seq && number[h] <= next_seq && state[E(number[h])] == OUT && slot[E(number[h])] == me && count[E(number[h])] == nth[h])
inline forget() { number[h] = 0; nth[h] = 0; kept[h] = 0 } /* part of an atomic step */

/* acknowledge() */
inline acknowledge(keep) {
    n = number[h];
    no_room = 0;
    if
    :: keep -> add_word(me, nth[h], n)
    :: !keep -> MESSAGES(me, n)-- /* who calls reads no more */
    fi;
    if
    :: no_room
    :: else ->
#ifdef BIT_FIRST
        if
        :: !keep -> atomic { acked[n] = 1; release(n); acked[n] = 0 }
        :: else
        fi;
#endif
        atomic { assert(!acked[n] && !gone[n] && holder[n] == me + 1); acked[n] = 1; set_done(n); look_for_words(n, WINDOW) }
#ifdef NO_LOOK
        others = 0;
#endif
        if
        :: !keep && (nth[h] == 1 || !others) -> release(n)
        :: else
        fi;
        others = 0;
        settle();
        kept[h] = keep
    fi;
    glock = 0;
    atomic {
        if
        :: !keep -> forget()
        :: else
        fi;
        n = 0; k = 0; no_room = 0
    }
}

/* refuse(), or xi_delivery_end() */
inline give_back_one(keep) {
    n = number[h];
    no_room = 0;
    if
    :: keep -> add_word(me, nth[h], n)
    :: !keep -> MESSAGES(me, n)--
    fi;
    if
    :: no_room
    :: else ->
        due[E(n)] = PAST;
        atomic { set_ready(n); holder[n] = 0; late[n] = 0 }
        due_by(PAST);
        kept[h] = keep
    fi;
    glock = 0;
    atomic {
        if
        :: !keep -> forget()
        :: else
        fi;
        n = 0; no_room = 0
    }
}

#define STILL_TO_COME(i) ((i) > head_seq && (i) <= next_seq && state[E(i)] != DONE) /* in_flight() */

inline linger_no_more() { /* xi_linger_end() */
    atomic {
        n = number[h];
        MESSAGES(me, n)--;
        w = 0; others = 0; o = WINDOW;
        do
        :: w < WINDOW ->
            if
            :: reader[w] == me + 1 && reads[w] == nth[h] && what[w] == n && o == WINDOW -> o = w
            :: reader[w] != 0 && what[w] == n && !(reader[w] == me + 1 && reads[w] == nth[h] && o == WINDOW) -> others = 1
            :: else
            fi;
            w++
        :: else -> break
        od;
        w = 0
    }
#ifdef WORD_FREED
    if
    :: o != WINDOW -> free_word(o)
    :: else
    fi;
#endif
    if
#if defined(NO_OTHERS)
    :: o != WINDOW && !STILL_TO_COME(n) -> release(n)
#elif defined(IN_FLIGHT)
    :: o != WINDOW && !others -> atomic { p = acked[n]; acked[n] = 1; release(n); acked[n] = p }
#else
    :: o != WINDOW && !others && !STILL_TO_COME(n) -> release(n)
#endif
    :: else
    fi;
#ifndef WORD_FREED
    if
    :: o != WINDOW -> free_word(o)
    :: else
    fi;
#endif
    glock = 0;
    atomic { forget(); n = 0; o = 0; p = 0; others = 0 }
}

/* What becomes of the message in hand h. */
inline finish() {
    lock_group();
    if
    :: !MINE && !kept[h] -> assert(late[number[h]] || holder[number[h]] != me + 1 || delivered[number[h]] != nth[h]); linger_no_more() /* STALE, and then let go */
    :: kept[h] -> linger_no_more()
    :: MINE && !kept[h] -> acknowledge(0)
    :: MINE && !kept[h] -> acknowledge(1)
    :: MINE && !kept[h] -> give_back_one(0)
    :: MINE && !kept[h] -> give_back_one(1)
    fi
}

proctype consumer(byte me) {
    byte n, k, when, w, c, o, p, q, h, number[HANDS], nth[HANDS];
    bit stop, took, no_room, others, kept[HANDS];
    {
end_look:
        do
#if HANDS > 1
        :: (number[0] == 0 || number[1] == 0) && (next_due == PAST || (next_seq < VALUES && next_seq - head_seq < WINDOW)) -> receive()
        :: number[1] != 0 -> h = 1; finish(); h = 0
#else
        :: number[0] == 0 && (next_due == PAST || (next_seq < VALUES && next_seq - head_seq < WINDOW)) -> receive()
#endif
        :: number[0] != 0 -> finish()
        od
    } unless {
        atomic {
            dead[me] -> n = 0; k = 0; when = 0; w = 0; c = 0; o = 0; p = 0; q = 0; stop = 0; took = 0; no_room = 0; others = 0;
            for (h : 0 .. HANDS - 1) { number[h] = 0; nth[h] = 0; kept[h] = 0 }
            h = 0;
            for (h : 1 .. VALUES) { MESSAGES(me, h) = 0 }
            h = 0
        }
    }
}

/* ---------------------------------------------------------------- broker */

#define GONE(word) ((word) == d + 1 || (word) == BROKER + 1)

inline repair_flying() { /* the group's lock is ours */
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
    n = head_seq + 1;
    do /* mend_entries() */
    :: n > next_seq -> break
    :: else ->
        if
        :: due[E(n)] == NEVER && (state[E(n)] == READY || state[E(n)] == OUT) -> due[E(n)] = PAST
        :: else
        fi;
#ifndef NO_MEND
        if
        :: state[E(n)] == DONE ->
            atomic { look_for_words(n, WINDOW) }
            if
            :: !others -> release(n)
            :: else
            fi
        :: else
        fi;
#endif
        n++
    od;
    others = 0;
#ifndef NO_COUNT
    if /* mend_count() */
    :: counting > head_seq && counting <= next_seq && state[E(counting)] == DONE -> counter = count_to
    :: else
    fi;
#endif
    counting = 0;
#ifndef NO_WORDS
    k = 0;
    do /* mend_words() */
    :: k == WINDOW -> break
    :: else ->
        if
        :: reader[k] != 0 && what[k] > head_seq && what[k] <= next_seq && state[E(what[k])] == OUT && slot[E(what[k])] + 1 == reader[k] &&
           count[E(what[k])] == reads[k] -> free_word(k)
        :: else
        fi;
        k++
    od;
#endif
    settle();
    next_due = PAST;
    atomic { n = 0; k = 0 }
}

inline repair_channel() {
    if
    :: GONE(glock) -> repair_flying(); glock = 0
    :: else
    fi
}

inline drop_words() {
    k = 0;
    do
    :: k == WINDOW -> break
    :: else ->
        if
        :: reader[k] == d + 1 ->
            atomic { n = what[k]; look_for_words(n, k) }
#ifdef DEAD_FREED
            free_word(k);
#endif
            if
            :: !others && n != 0 && !STILL_TO_COME(n) -> release(n)
            :: else
            fi;
            free_word(k)
        :: else
        fi;
        k++
    od;
    atomic { others = 0; k = 0; n = 0 }
}

inline take_back() { /* xi_repair_acks(), under the group's lock, which the living may have now */
    atomic { glock == 0 || GONE(glock) -> glock = BROKER + 1 }
    n = head_seq + 1;
    do
    :: n > next_seq -> break
    :: else ->
        if
        :: slot[E(n)] == d && state[E(n)] == OUT -> due[E(n)] = PAST; set_ready(n)
        :: else
        fi;
        n++
    od;
    settle();
    next_due = PAST;
#ifndef DEAD_LINGER
    drop_words();
#endif
    glock = 0
}

inline forget_all() { d = 0; n = 0; k = 0; c = 0; others = 0 } /* what a process has in its own memory goes with it */

proctype broker() {
    byte d, n, k, c;
    bit others;
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
#if CONSUMERS > 2
                :: dead[BROKER] == 0 && repaired[2] == 0 && dead[2] -> d = 2
#endif
                fi
            }
            repair_channel();
            take_back();
            repaired[d] = 1;
            atomic { forget_all() }
        od
    } unless {
        atomic { dead[BROKER] -> forget_all(); dead[BROKER] = 0; d = BROKER; goto adopt }
    }
adopt:
    { repair_channel(); atomic { forget_all(); goto begin } }
    unless { atomic { dead[BROKER] -> forget_all(); dead[BROKER] = 0; d = BROKER; goto adopt } }
}

/* ------------------------------------------------------------------------ */

/* Time goes on: for deliveries, when somebody would look; and for values. */
proctype clock() {
    byte i;
end_clock:
    do
    :: atomic {
            next_due == SOON ->
            next_due = PAST;
            for (i : head_seq + 1 .. next_seq) {
                if
                :: due[E(i)] == SOON ->
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
    :: atomic {
            expires > 0 -> select(i : 1 .. VALUES);
            if
            :: !expired[i] -> expired[i] = 1; expires--
            :: else
            fi;
            i = 0
        }
    :: expires > 0 -> expires = 0
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

/* Runs when nobody else can: then all is at rest, and nobody has a message. */
proctype watch() {
    byte i, vanished;
    bit receiving;
end_watch:
    timeout;
    atomic {
        assert(glock == 0 && counting == 0);
        for (i : 0 .. CONSUMERS - 1) {
            assert(!dead[i] || repaired[i]);
            receiving = receiving | !dead[i]
        }
        for (i : 0 .. WINDOW - 1) { assert(reader[i] == 0 && (state[i] != OUT || !dead[slot[i]])) }
        for (i : 1 .. VALUES) {
            assert(!acked[i] || !gone[i]);
            vanished = vanished + gone[i];
            assert(released[i] == (acked[i] || gone[i]));
            assert(!receiving || acked[i] || gone[i])
        }
        assert(counter == vanished);
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
