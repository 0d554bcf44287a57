/* SPDX-License-Identifier: MIT */
/*
 * A broker that is killed at any step of letting interpreters in and of clearing away the
 * dead, and the one that adopts what it finds: is no id and no segment number
 * given twice, does nobody who lives lose what is its own, and is every death
 * repaired and everything of the dead removed, whenever it happened?
 *
 * CLIENTS join, one after the other or at once; KILLS of them are killed, between any two
 * steps, and BROKER_KILLS brokers. An interpreter whose broker dies before it has
 * the answer asks the next one as if for the first time, and what was made for it goes. (That it has said within a second of the
 * answer that it knows is taken for granted, so it is one step here.) It takes a lock (of a channel) once it is in. A segment here is all that an interpreter
 * has: its own and its mailbox are made one after the other, under numbers taken together.
 *
 * What each step is in the C:
 *   making     join_new() in broker/state_interp.c; take_numbers(), make_owned(), fill_slot() in broker/world.c, in
 *              world_make_interp(); the reply in broker/broker.c
 *   a death    recover_begin() to EVENT_REPAIRED in broker/recover.c; ACTION_REMOVE and ACTION_CLEAR_SLOT
 *   adoption   adopt_counters(), adopt_slots(), belongs() and head_names() in adopt_owned(), in broker/adopt.c;
 *              recover_adopted() in broker/recover.c
 *
 * Mutants, each of which must be found out (-D...):
 *   NUMBERS_LATE  the registry's counters are stored after what bears the numbers
 *   KEEP_STRAYS   a new broker does not remove segments that are nobody's
 *   KEEP_UNKNOWN  it keeps those that do not know that they are in, because the answer was lost
 *   TRUST_SLOTS   it does not look whether those in the slots still live
 *   CLEAR_EARLY   a slot is free before what its owner held is repaired
 */
#ifndef CLIENTS
#define CLIENTS 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef BROKER_KILLS
#define BROKER_KILLS 1
#endif
#define SLOTS 3
#define ROOM (!known[0] || !known[1] || !known[2])
/* xi_counters.joined: its process has the answer */
#define KNOWS(slot) (joined[process_of[slot]] && my_segment[process_of[slot]] == own[slot])
#define NUMBERS 8 /* segments that can be told apart: no more than joins there can be */
#define NOBODY 255

/* The registry. */
byte next_id = 1, next_segment = 1;
bit live[SLOTS];                    /* xi_slot.state */
byte id[SLOTS], process_of[SLOTS], own[SLOTS]; /* own_seg */
/* /dev/shm: which segments there are, and what their heads say. */
bit there[NUMBERS];
byte head_slot[NUMBERS], head_id[NUMBERS];
/* A lock of a channel: slot + 1 of its owner. */
byte lock;
/* Processes. */
bit dead[CLIENTS], asks[CLIENTS], joined[CLIENTS], broker_dead;
byte my_id[CLIENTS], my_slot[CLIENTS], my_segment[CLIENTS];
bit adopted; /* this broker is not the first */
byte kills = KILLS, broker_kills = BROKER_KILLS;
/* What has truly happened. */
bit id_given[NUMBERS], number_made[NUMBERS];

proctype client(byte me) {
    {
        asks[me] = 1;
        joined[me]; /* the answer */
end_work:
        do
        :: atomic { lock == 0 -> lock = my_slot[me] + 1 }
            assert(live[my_slot[me]] && id[my_slot[me]] == my_id[me] && there[my_segment[me]]); /* it has what is its own */
            atomic { lock == my_slot[me] + 1 -> lock = 0 }
            break
        od;
end_idle:
        false
    } unless { dead[me] }
}

/* What this broker knows; gone with it. */
inline forget() {
    d_step {
        s = 0; c = 0; n = 0; seg = 0; i = 0; st_id = 0; st_segment = 0;
        for (i : 0 .. SLOTS - 1) { known[i] = 0; k_id[i] = 0 }
        i = 0
    }
}

inline store_numbers() { /* take_numbers() */
    next_id = st_id;
    next_segment = st_segment
}

inline make(c) {
    atomic { /* the core's decision */
        s = 0;
        do
        :: s < SLOTS && known[s] -> s++
        :: else -> break
        od;
        assert(s < SLOTS);
        n = st_id; st_id++;
        seg = st_segment; st_segment++;
        known[s] = 1; k_id[s] = n
    }
#ifndef NUMBERS_LATE
    store_numbers();
#endif
    atomic { assert(!number_made[seg]); number_made[seg] = 1; there[seg] = 1; head_slot[seg] = s; head_id[seg] = n }
    process_of[s] = c; own[s] = seg; /* fill_slot() */
    id[s] = n;
    live[s] = 1;
    atomic { /* the reply */
        if
        :: !dead[c] ->
            assert(!id_given[n]);
            id_given[n] = 1;
            my_id[c] = n; my_slot[c] = s; my_segment[c] = seg; joined[c] = 1
        :: else
        fi;
        asks[c] = 0
    }
#ifdef NUMBERS_LATE
    store_numbers();
#endif
    atomic { s = 0; n = 0; seg = 0 }
}

inline bury(slot) { /* recover_begin() ... ACTION_CLEAR_SLOT */
#ifdef CLEAR_EARLY
    live[slot] = 0;
#endif
    if
    :: lock == slot + 1 -> lock = 0 /* xi_repair_channel() */
    :: else
    fi;
    there[own[slot]] = 0; /* ACTION_REMOVE */
#ifndef CLEAR_EARLY
    live[slot] = 0;
#endif
    known[slot] = 0
}

inline adopt() {
    st_id = next_id; st_segment = next_segment; /* adopt_counters(): beyond whatever there is, too */
    i = 0;
    do
    :: i < SLOTS -> /* adopt_slots() */
        atomic {
            if
            :: live[i] && id[i] != 0 && id[i] < st_id -> known[i] = 1; k_id[i] = id[i]
            :: live[i] && !(id[i] != 0 && id[i] < st_id) -> live[i] = 0
            :: else
            fi
        }
        i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < NUMBERS -> /* adopt_owned() */
        atomic {
            if
            :: there[i] && !(known[head_slot[i]] && own[head_slot[i]] == i && head_id[i] == k_id[head_slot[i]]) ->
#ifndef KEEP_STRAYS
                there[i] = 0
#else
                skip
#endif
            :: else
            fi
        }
        i++
    :: else -> break
    od;
    i = 0
}

proctype broker() {
    byte s, c, n, seg, i, st_id, st_segment, k_id[SLOTS];
    bit known[SLOTS];
begin:
    {
        adopt();
end_serve:
        do
        :: asks[0] && !dead[0] && ROOM -> make(0)
        :: asks[1] && !dead[1] && ROOM -> make(1)
#ifndef KEEP_UNKNOWN
        /* interps_adopted(), interp_settled(): who has not said within a second that it knows that it is in */
        :: adopted && known[0] && !KNOWS(0) -> bury(0)
        :: adopted && known[1] && !KNOWS(1) -> bury(1)
        :: adopted && known[2] && !KNOWS(2) -> bury(2)
#endif
#ifdef TRUST_SLOTS
#define MOURNS(slot) (known[slot] && dead[process_of[slot]] && !adopted)
#else
#define MOURNS(slot) (known[slot] && dead[process_of[slot]])
#endif
        :: MOURNS(0) -> bury(0)
        :: MOURNS(1) -> bury(1)
        :: MOURNS(2) -> bury(2)
        od
    } unless { atomic { broker_dead -> forget(); broker_dead = 0; adopted = 1; goto begin } }
}

proctype killer() {
end_killer:
    do
    :: atomic { kills > 0 && !dead[0] -> kills--; dead[0] = 1 } /* all are alike: the first to die is number 0 */
    :: atomic { kills > 0 && dead[0] && !dead[1] -> kills--; dead[1] = 1 }
    :: atomic { broker_kills > 0 && !broker_dead -> broker_kills--; broker_dead = 1 }
    :: kills + broker_kills > 0 -> kills = 0; broker_kills = 0
    od
}

/* Runs when nobody else can: then all is at rest. */
proctype watch() {
    byte k, segments, members;
end_watch:
    timeout;
    atomic {
        assert(lock == 0);
        for (k : 0 .. CLIENTS - 1) {
            assert(dead[k] || (joined[k] && live[my_slot[k]] && id[my_slot[k]] == my_id[k] && there[my_segment[k]]));
            members = members + !dead[k]
        }
        for (k : 0 .. SLOTS - 1) { members = members - live[k] }
        for (k : 0 .. NUMBERS - 1) { segments = segments + there[k] }
        assert(members == 0);
        assert(segments == live[0] + live[1] + live[2])
    }
}

init {
    byte k;
    atomic {
        for (k : 0 .. CLIENTS - 1) { run client(k) }
        run broker();
        run killer();
        run watch()
    }
}
