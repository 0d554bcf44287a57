/* SPDX-License-Identifier: MIT */
/*
 * Parking, waking, and passing the lock (libxi/channel/park.c, lock.c): does a
 * receiver ever sleep on while there is a value for it?
 *
 * Each sender has a store buffer (total store order, as x86-64 has it): what it
 * publishes, and the store that frees the lock, become visible later, in order.
 * Read-modify-writes drain it first. There is no barrier between freeing the lock
 * and looking for sleepers: that is what this model is about. On processors with
 * weaker orders the release stores leave no more than this: they, too, become
 * visible in order.
 *
 * Bounds: SENDERS x VALUES values, RECEIVERS of one group, of whom LEAVERS may
 * give up (time out) whenever they sleep. Every interleaving is explored. When
 * nothing more can happen, `watch` looks: whoever sleeps must have nothing left to
 * receive.
 *
 * Mutants, each of which must be found out (-D...):
 *   NO_PASS         a parker does not pass the senders' lock before its look
 *   NO_LOOK         a parker does not look again after announcing itself
 *   NO_RELOOK       a waker does not look at the mask again after clearing the summary
 *   NO_PASS_ON      who gives up keeps a ring that was meant for the group
 *   LOOK_FIRST      a sender looks for sleepers before it publishes
 */
#ifndef SENDERS
#define SENDERS 2
#endif
#ifndef RECEIVERS
#define RECEIVERS 2
#endif
#ifndef VALUES
#define VALUES 1
#endif
#ifndef LEAVERS
#define LEAVERS 1
#endif
#define TOTAL (SENDERS * VALUES)

mtype = { IDLE, PARKED, NOTIFIED };

/* The channel. */
bit lock;         /* xi_chan.lock */
byte tail, head;  /* values published, and received; receiving is one step here: it is under the group's lock */
bit summary;      /* this group's bit of xi_chan.parked_groups */
bit mask[RECEIVERS];
/* The doorbells. */
mtype state[RECEIVERS] = IDLE;
byte bell[RECEIVERS];
bit asleep[RECEIVERS];

byte waiting;     /* receivers inside a wait */
byte leavers = LEAVERS;

/* A sender's stores under way: true publishes, false frees the lock. */
chan buffer[SENDERS] = [4] of { bool };

proctype drain(byte s) {
    bool publishes;
end:
    do
    :: d_step { buffer[s]?publishes ->
           if
           :: publishes -> tail++
           :: else -> lock = 0
           fi;
           publishes = false }
    od
}

/* libxi/channel/park.c: claim(), of the one mask word. `got` is RECEIVERS where no bit was set. */
inline claim(got) {
    got = 0;
    do
    :: got < RECEIVERS ->
        atomic {
            if
            :: mask[got] -> mask[got] = 0; break
            :: else -> got++
            fi
        }
    :: else -> break
    od
}

/* ring(): only who moves PARKED to NOTIFIED rings, and only then calls the kernel. */
inline ring(r) {
    atomic {
        if
        :: state[r] == PARKED -> state[r] = NOTIFIED; won = 1
        :: else -> won = 0
        fi
    }
    if
    :: won -> bell[r]++; asleep[r] = 0
    :: else
    fi
}

inline mask_any(any) {
    got = 0; any = 0;
    do
    :: got < RECEIVERS -> any = any | mask[got]; got++
    :: else -> break
    od
}

/* wake_group() for one value. */
inline wake_group() {
    claim(got);
    if
    :: got < RECEIVERS -> ring(got)
    :: else ->
        summary = 0;
#ifndef NO_RELOOK
        mask_any(any);
        if
        :: any ->
            summary = 1;
            claim(got);
            if
            :: got < RECEIVERS -> ring(got)
            :: else
            fi
        :: else
        fi
#endif
    fi;
    got = 0; won = 0; any = 0
}

proctype sender(byte s) {
    byte n, got;
    bit won, any, seen;
    do
    :: n < VALUES ->
        atomic { len(buffer[s]) == 0 && lock == 0 -> lock = 1 } /* the compare-and-swap: drained */
#ifdef LOOK_FIRST
        seen = summary;
#endif
        buffer[s]!true;  /* THE SEND: a release store */
        buffer[s]!false; /* unlock: a release store */
#ifndef LOOK_FIRST
        seen = summary;  /* xi_wake_consumers(): a plain load, which may be done before either store is visible */
#endif
        if
        :: seen ->
            len(buffer[s]) == 0; /* waking begins with a read-modify-write */
            wake_group()
        :: else
        fi;
        seen = 0; n++
    :: else -> break
    od
}

/* xi_lock_pass(): the lock seen free, or membarrier(2), which drains the senders one after another. */
inline pass_lock() {
    if
    :: lock == 0
    :: lock != 0 ->
        i = 0;
        do
        :: i < SENDERS -> len(buffer[i]) == 0; i++
        :: else -> break
        od;
        i = 0
    fi
}

/* xi_pass_on(): one more of this group, if there is something left. */
inline pass_on() { /* by who gave up; and by who received after a wait, on which nothing depends here: it
 * makes up for a ring too few after a death */
    if
    :: summary && head < tail -> wake_group()
    :: else
    fi
}

inline take() {
    atomic {
        if
        :: head < tail -> head++; took = 1
        :: else -> took = 0
        fi
    }
}

proctype receiver(byte r) {
    byte seen, got, i;
    bit won, any, took, gone, claimed, has;
    do
    :: gone -> break
    :: else ->
        take();
        if
        :: took -> took = 0; goto again
        :: else
        fi;
        /* xi_wait_side() */
        waiting++;
        do
        ::
            seen = bell[r];
            state[r] = PARKED;
            mask[r] = 1;
            summary = 1;
#ifndef NO_PASS
            pass_lock();
#endif
#ifdef NO_LOOK
            has = 0;
#else
            has = head < tail;
#endif
            if
            :: has -> state[r] = IDLE; break
            :: else -> atomic {
                   if
                   :: bell[r] == seen -> asleep[r] = 1
                   :: else
                   fi }
            fi;
            if
            :: asleep[r] == 0
            :: atomic { asleep[r] && leavers > 0 -> leavers--; asleep[r] = 0; gone = 1 }
            fi;
            state[r] = IDLE;
            if
            :: gone -> gone = !(head < tail); break /* a value that came at the last moment is there to be taken */
            :: else -> has = head < tail
            fi;
            if
            :: has -> break
            :: else
            fi
        od;
        atomic { claimed = !mask[r]; mask[r] = 0 } /* withdraw() */
        waiting--;
        if
        :: gone ->
#ifndef NO_PASS_ON
            if
            :: claimed -> pass_on()
            :: else
            fi
#endif
            skip
        :: else ->
            take();
            if
            :: took ->
                pass_on()
            :: else /* another was faster: wait again */
            fi
        fi;
again:
        took = 0; claimed = 0; has = 0; seen = 0
    od
}

/* Runs when nobody else can. */
proctype watch() {
end:
    timeout;
    assert(head <= tail && tail == TOTAL);
    assert(waiting == 0 || head == tail) /* somebody sleeps although there is something for him */
}

init {
    byte i;
    atomic {
        for (i : 0 .. SENDERS - 1) { run sender(i); run drain(i) }
        for (i : 0 .. RECEIVERS - 1) { run receiver(i) }
        run watch()
    }
}
