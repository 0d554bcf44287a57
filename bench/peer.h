/* SPDX-License-Identifier: MIT */
/*
 * What the benchmark wants of a way to hand values to another process: the one
 * interface that xidata and everything it is compared with implement.
 *
 * A peer is a name, what is said of it in the report, what it can do, and
 * functions that two processes call, side 0 and side 1. An adapter is one file
 * in bench/peers/, whose head says how the peer is used; it includes this
 * header and nothing else of the benchmark, in C or C++. It is part of xi-bench
 * when it needs nothing but the C library, else a module of its own, which is
 * there when what it needs was there to build it with, and which nobody loads
 * but the processes that measure it: no peer is measured with another's threads
 * or hooks in its process. peers.c finds and loads them; what is not there is
 * reported as skipped, with the reason.
 *
 * What an adapter need not do: the loops, the clock, the checks, the processors.
 * Every send is of one whole message of `size` bytes; every receive gets one.
 */
#ifndef XI_BENCH_PEER_H
#define XI_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bench_pair; /* one side's view of a run; adapters ask by the functions below */

#define PEER_BATCH 16 /* messages of a batch */

enum peer_can {
    PEER_ROUNDS = 1,   /* round trips, both sides awake */
    PEER_ASLEEP = 2,   /* round trips in which the receiver sleeps in the kernel */
    PEER_ONE_WAY = 4,  /* a stream of messages */
    PEER_BATCHES = 8,  /* a stream by sixteens: send_many, recv_many */
    PEER_COPIES = 16,  /* large messages, from private memory to private memory */
    PEER_LOANS = 32    /* large messages written in place and read in place: lend, borrow */
};

enum peer_flag {
    PEER_THREADS = 1,   /* has threads of its own, which may use both processors; the caller's is pinned after open() */
    PEER_CREDIT = 2,    /* loses, or hoards without limit, what its receiver is too slow for: the benchmark holds the sender
                           of a stream back, at no cost to the peer */
    PEER_NAMESPACE = 4, /* xidata: a namespace is kept for the run */
    PEER_SERVED = 8,    /* a server of its own runs meanwhile: serve() */
    PEER_LAUNCHED = 16  /* its processes are started by a launcher of its own: launch() */
};

typedef int peer_send(struct bench_pair *p, const void *message, size_t size);
/* `room`: `size` bytes of private memory that the message may be put into. *message: where it is instead, until the next
 * receive of this side. */
typedef int peer_recv(struct bench_pair *p, void *room, size_t size, const void **message);

struct peer {
    const char *name; /* SYSTEM in METRIC/SYSTEM/SIZE */
    const char *what; /* product, transport, pattern */
    const char *how;  /* how it waits, and what it copies */
    uint32_t can, flags;
    uint64_t largest; /* message, 0: no limit that matters here */
    uint32_t window;  /* PEER_CREDIT: messages on the way at most; 0: 4,096 */

    /* Whether it works here: 0, or -1 and a sentence. Runs in a process of its own. NULL: it always does. */
    int (*probe)(char *why, size_t capacity);
    /* Becomes the server (execs), its files in `folder`; the sides' open() waits until it answers. Returns if it cannot. */
    void (*serve)(const char *folder);
    /* Becomes the launcher of two processes that each execute `side`. Returns if it cannot. */
    void (*launch)(char *const side[]);

    /* On both sides at once; 0, or -1 after bench_fail(), as everything below. */
    int (*open)(struct bench_pair *p);
    void (*close)(struct bench_pair *p);
    peer_send *send;
    peer_recv *recv;
    /* What recv() gave will not be looked at again: memory may go back. NULL: nothing to do before the next receive. */
    void (*done)(struct bench_pair *p);
    /* Around what is measured, for counters of the peer's own. NULL: none. */
    void (*mark)(struct bench_pair *p);
    void (*note)(struct bench_pair *p, uint64_t operations);
    /* PEER_BATCHES. Sends all `n` messages, which lie one after another. */
    int (*send_many)(struct bench_pair *p, const uint8_t *messages, size_t size, size_t n);
    /* Receives 1 to n: how many, and where; `room` is for all of them. */
    int (*recv_many)(struct bench_pair *p, uint8_t *room, size_t size, size_t n, const void **messages);
    /* PEER_LOANS. Takes `size` bytes of shared memory, writes `words` at their beginning and sends them; receives one
     * such, copies its first words out and gives the memory back. */
    int (*lend)(struct bench_pair *p, size_t size, const uint64_t words[2]);
    int (*borrow)(struct bench_pair *p, size_t size, uint64_t words[2]);

    /* NULL: loops over the functions above, which is right for all but what is measured in single nanoseconds. */
    int (*rounds)(struct bench_pair *p, uint64_t seq, uint64_t n);
    int (*stream)(struct bench_pair *p, uint64_t seq, uint64_t n);
};

/* What a module exports under the name `bench_peers`: its peers, and NULL. */
extern const struct peer *const bench_peers[];

/* ---- what an adapter may ask ---- */

int peer_side(const struct bench_pair *p);
/* The receiver is to sleep in the kernel: neither side may poll. */
bool peer_asleep(const struct bench_pair *p);
/* A round trip with both sides awake: polling is what it takes. */
bool peer_spins(const struct bench_pair *p);
size_t peer_size(const struct bench_pair *p);          /* of this run's messages */
const char *peer_folder(const struct bench_pair *p);   /* of this run alone, for sockets and the like; removed afterwards,
                                                          with all in /tmp and /dev/shm that has its last name in its own */
uint64_t peer_serial(const struct bench_pair *p);      /* tells this run from every other of the process */
void peer_keep(struct bench_pair *p, void *state);     /* state that open() made... */
void *peer_state(const struct bench_pair *p);          /* ...and everything else uses */
void peer_meet(struct bench_pair *p);                  /* both sides get here before either goes on; spins */
void peer_relax(void);                                 /* between two looks at something */
/* Waits a millisecond: for a server that is starting. False after ten seconds of it. */
bool peer_patience(int *tries);
/* Stores the sentence and returns -1. */
int bench_fail(struct bench_pair *p, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

#ifdef __cplusplus
}
#endif
#endif
