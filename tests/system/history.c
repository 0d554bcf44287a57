/* SPDX-License-Identifier: MIT */
/*
 * The recorder. The only order of stores that matters is that of an actor with
 * the kill -9 that may come between any two of them:
 *
 *   begin   the event, its `end` H_OPEN, then the actor's count
 *   end     the outcome, then `end`
 *   took    of several values: events for the second to the last, then the
 *           count, then the first, which was begun before the call: until it has
 *           its end, it says that the call may have taken values that nobody
 *           wrote down
 */
#include "history.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define SPARE 64u

int64_t h_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

struct history *h_new(uint32_t actors, uint32_t capacity) {
    size_t head = sizeof(struct history) + actors * sizeof(struct h_actor);
    size_t size = head + (size_t)actors * capacity * sizeof(struct h_event);
    /* Most of it is never touched. */
    struct history *h = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (h == MAP_FAILED) {
        perror("history: mmap");
        abort();
    }
    h->actors = actors;
    h->capacity = capacity;
    h->size = size;
    h->start = h_now();
    return h;
}

void h_free(struct history *h) { munmap(h, h->size); }

struct h_event *h_events(struct history *h, uint32_t actor) {
    return (struct h_event *)(void *)&h->actor[h->actors] + (size_t)actor * h->capacity;
}

uint32_t h_add_channel(struct history *h, const char *name) {
    if (h->channels == H_CHANNELS) abort();
    snprintf(h->channel[h->channels].name, sizeof h->channel->name, "%s", name);
    return h->channels++;
}

uint32_t h_add_group(struct history *h, uint32_t channel, const char *name) {
    if (h->groups == H_GROUPS) abort();
    struct h_group *g = &h->group[h->groups];
    g->channel = channel;
    snprintf(g->name, sizeof g->name, "%s", name);
    return h->groups++;
}

bool h_has_room(struct history *h, uint32_t actor, uint32_t more) {
    return atomic_load_explicit(&h->actor[actor].count, memory_order_relaxed) + more + SPARE <= h->capacity;
}

/* An event that is not counted yet. */
static struct h_event *next(struct history *h, uint32_t actor, uint32_t ahead) {
    uint32_t n = atomic_load_explicit(&h->actor[actor].count, memory_order_relaxed) + ahead;
    if (n >= h->capacity) {
        fprintf(stderr, "history: actor %u has more than %u events\n", actor, h->capacity);
        abort();
    }
    return &h_events(h, actor)[n];
}

static void publish(struct history *h, uint32_t actor, uint32_t more) {
    struct h_actor *a = &h->actor[actor];
    atomic_store_explicit(&a->count, atomic_load_explicit(&a->count, memory_order_relaxed) + more,
                          memory_order_release);
}

void h_add(struct history *h, uint32_t actor, struct h_event event) {
    *next(h, actor, 0) = event;
    publish(h, actor, 1);
}

/*
 * A full barrier that depends on the time: nothing of the call that follows is done before the clock was read.
 */
static void fence_after(struct h_actor *a, int64_t t) {
    (void)atomic_exchange_explicit(&a->fence, (uint64_t)t, memory_order_seq_cst);
}

uint32_t h_begin(struct history *h, uint32_t actor, struct h_event about) {
    struct h_event *e = next(h, actor, 0);
    about.begin = h_now();
    about.end = H_OPEN;
    *e = about;
    publish(h, actor, 1);
    fence_after(&h->actor[actor], about.begin);
    return (uint32_t)(e - h_events(h, actor));
}

/* The stores of the call have left the store buffer before the clock is read, which waits for all before it. */
int64_t h_ended(struct history *h, uint32_t actor) {
    (void)atomic_fetch_add_explicit(&h->actor[actor].fence, 1, memory_order_seq_cst);
    return h_now();
}

static void finish(struct h_event *e, int64_t end) {
    atomic_store_explicit((_Atomic int64_t *)&e->end, end, memory_order_release);
}

void h_end(struct history *h, uint32_t actor, uint32_t event, int result) {
    struct h_event *e = &h_events(h, actor)[event];
    e->result = result;
    finish(e, h_ended(h, actor));
}

void h_took(struct history *h, uint32_t actor, uint32_t event, int64_t end, const uint64_t *values,
            const uint32_t *counts, size_t n) {
    struct h_event *first = &h_events(h, actor)[event];
    for (size_t i = 1; i < n; i++) {
        struct h_event *e = next(h, actor, (uint32_t)i - 1);
        *e = *first;
        e->value = values[i];
        e->count = counts[i];
        e->end = end;
    }
    publish(h, actor, (uint32_t)n - 1);
    first->value = values[0];
    first->count = counts[0];
    first->result = 0;
    finish(first, end);
}

void h_kill_begin(struct history *h, uint32_t actor) { h->actor[actor].kill_begin = h_now(); }
void h_kill_end(struct history *h, uint32_t actor) { h->actor[actor].kill_end = h_now(); }
