/* SPDX-License-Identifier: MIT */
/*
 * Runs a few threads of the library's own code in every order, and lets every
 * load return every value that the memory model of C11 allows it.
 *
 * The library is compiled with -fsanitize=thread, so that each access to memory
 * is a call; hooks.c answers these calls in place of the thread sanitizer. Words
 * that a shape watches live in explore.c, as a list of the values stored to each;
 * everything else is memory as ever, and must not be shared by the threads of a
 * shape. A shape is begun anew for each execution; executions differ in who
 * goes on at each watched access, and in what it reads; a state that was seen
 * before is not gone into again.
 *
 * The memory is that of RC11 (Lahav and others, "Repairing sequential
 * consistency in C/C++11", 2017), told with views as in "A promising semantics
 * for relaxed-memory concurrency" (Kang and others, 2017), without promises:
 *
 *   Each word has its stores in one order. A thread's view says of each word how
 *   far it has come in that order: it reads that store or a later one, and
 *   writes behind it. A store of a release carries its thread's view, an acquire
 *   that reads it joins that to its own. A read-modify-write comes next after
 *   what it read, and carries its view on.
 *   Sequentially consistent accesses of one word are in the order in which they
 *   are executed: none reads or writes before the last such store.
 *   A full barrier joins the thread's view with that of all barriers before it.
 *   Loads of what is stored later in program order are not: as RC11, it forbids
 *   circles of program order and reads-from.
 *
 * In one point it is stricter than RC11: sequentially consistent accesses of
 * different words are in the order of their execution also where a chain of
 * relaxed accesses alone leads from the one to the other.
 *
 * Accesses that are not atomic must be ordered by happens-before with every store to
 * the word; if not, that is a failure, as is a value that the shape says is wrong, a
 * thread that sleeps for ever where the shape says it must not, and an execution of more
 * than some thousand steps.
 */
#ifndef XI_MODEL_EXPLORE_H
#define XI_MODEL_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPLORE_THREADS 4

struct shape {
    const char *name, *what;
    void (*prepare)(void);             /* memory as it is at the beginning; watches; threads */
    const char *(*judge)(bool stuck);  /* when nobody goes on any more: NULL, or what is wrong. `stuck`: somebody sleeps */
};

/* In prepare(). A word of `size` bytes (4 or 8), by a name under which `count` of them are known, `step` bytes apart. */
void explore_watch(const void *address, size_t size, const char *name, size_t count, size_t step);
/* Of a watched word that only who holds some lock accesses: that is found out, and then nobody else need go on in between. */
void explore_guard(const void *address);
/* Of a lock: who finds it taken waits until that changes, rather than find out in all ways how to wait for it. */
void explore_patient(const void *address);
void explore_thread(void (*run)(void *), void *argument);
/* In threads: what is wrong. Ends the execution. */
void explore_fail(const char *what);
/* In judge(): the last value stored. */
uint64_t explore_value(const void *address);

/* An order made weaker: all accesses of this kind to words of this name that have the order `from`. */
enum access { ACCESS_LOAD, ACCESS_STORE, ACCESS_RMW };
struct weakening {
    const char *name;
    enum access access;
    int from, to; /* memory_order */
};

struct explored {
    uint64_t executions, states, steps;
    bool complete;         /* not stopped by the bound on states */
    const char *failure;   /* NULL, or the first one */
};
/* `weaker`: NULL, or how the code is to be spoilt. Prints the failing execution where `tell`. */
struct explored explore(const struct shape *shape, const struct weakening *weaker, bool tell);
/* Calls back with each order, stronger than relaxed, that the last exploration of a sound shape met. */
void explore_orders(void (*each)(void *context, const char *name, enum access access, int order), void *context);

/* What hooks.c does with accesses to watched words. */
bool explore_watched(const volatile void *address);
uint64_t explore_load(const volatile void *address, int order);
void explore_store(const volatile void *address, uint64_t value, int order);
/* `change` gives the new value, or says that there is none: then it is a load of order `failed`. */
typedef bool (*explore_change)(uint64_t old, uint64_t operand, uint64_t expected, uint64_t *new);
uint64_t explore_rmw(const volatile void *address, explore_change change, uint64_t operand, uint64_t expected, int order,
                     int failed);
void explore_plain_read(const volatile void *address);
void explore_plain_write(const volatile void *address);
/* futex(2) and membarrier(2). Sleeping: false if the word was not `seen` (any more). */
bool explore_sleep(const volatile void *address, uint64_t seen);
void explore_wake(const volatile void *address);
void explore_barrier_everywhere(void);

#endif
