/* SPDX-License-Identifier: MIT */
/*
 * Free functions: registered by index, queued when their value has come back
 * from every group, run in a thread of the owner that calls the library.
 */
#include <stdio.h>
#include <stdlib.h>

#include "interp.h"

int xi_frees_init(struct xi_interp *me) {
    pthread_mutex_init(&me->frees.mutex, NULL);
    atomic_init(&me->frees.pending, 0);
    return 0;
}

void xi_frees_deinit(struct xi_interp *me) {
    free(me->frees.due);
    pthread_mutex_destroy(&me->frees.mutex);
}

int xi_free_register(xi_interp *me, const char *name, xi_free_fn fn, void *context, uint32_t *index) {
    if (!me || !fn || !index) return xi_fail(XI_E_INVAL, "xi_free_register needs an interpreter, a function and a place for its index");
    if (!xi_alive(me)) return xi_fail_forked();
    struct xi_frees *f = &me->frees;
    pthread_mutex_lock(&f->mutex);
    uint32_t i = f->count + 1; /* changed under the mutex, looked at without */
    bool room = i < XI_FREE_FUNCTIONS;
    if (room) {
        f->fn[i].fn = fn;
        f->fn[i].context = context;
        snprintf(f->fn[i].name, sizeof f->fn[i].name, "%s", name ? name : "");
        f->count = i;
        *index = i;
    }
    pthread_mutex_unlock(&f->mutex);
    return room ? 0 : xi_fail(XI_E_LIMIT, "%d free functions are registered already; tell values apart by the argument",
                              XI_FREE_FUNCTIONS - 1);
}

/* Room for one more. The queue never shrinks: it is as long as it once had to be. */
static bool reserve(struct xi_frees *f) {
    if (f->due_count < f->due_capacity) return true;
    size_t capacity = f->due_capacity ? f->due_capacity * 2 : 64;
    struct xi_due *due = malloc(capacity * sizeof *due);
    if (!due) return false;
    for (size_t i = 0; i < f->due_count; i++) due[i] = f->due[(f->due_head + i) % f->due_capacity];
    free(f->due);
    f->due = due;
    f->due_head = 0;
    f->due_capacity = capacity;
    return true;
}

bool xi_free_enqueue(struct xi_interp *me, uint32_t index, uint64_t argument) {
    struct xi_frees *f = &me->frees;
    pthread_mutex_lock(&f->mutex);
    bool ok = reserve(f);
    if (ok) {
        f->due[(f->due_head + f->due_count++) % f->due_capacity] = (struct xi_due){index, argument};
        atomic_store_explicit(&f->pending, f->due_count, memory_order_relaxed);
    }
    pthread_mutex_unlock(&f->mutex);
    return ok;
}

static bool dequeue(struct xi_frees *f, struct xi_due *due) {
    pthread_mutex_lock(&f->mutex);
    bool got = f->due_count > 0;
    if (got) {
        *due = f->due[f->due_head];
        f->due_head = (f->due_head + 1) % f->due_capacity;
        f->due_count--;
        atomic_store_explicit(&f->pending, f->due_count, memory_order_relaxed);
    }
    pthread_mutex_unlock(&f->mutex);
    return got;
}

/* A free function may send, which looks for due ones again: they wait for the one that is running. */
static _Thread_local bool running;

static bool in_debt(const struct xi_interp *me) { return atomic_load_explicit(&me->arena.debt, memory_order_relaxed) > 0; }
static bool told(const struct xi_interp *me) { return xi_load_relaxed(&me->mailbox->reclaim) != 0; }

/* Acts on what readers said: clears the word first, so that whoever speaks later is heard. */
static void listen(struct xi_interp *me) {
    if (told(me)) {
        /* Pairs with the exchange in xi_tell_owner(): the bits set before it are visible to the look that follows. */
        (void)xi_exchange_full(&me->mailbox->reclaim, 0);
        xi_arena_owe(me);
    } else if (in_debt(me)) {
        xi_arena_reclaim(me, 64);
    }
}

bool xi_free_due(struct xi_interp *me) {
    listen(me);
    return atomic_load_explicit(&me->frees.pending, memory_order_relaxed) > 0;
}

static int64_t run_due(xi_interp *me) {
    int64_t n = 0;
    struct xi_due due;
    if (running || !xi_free_due(me)) return 0;
    running = true;
    while (dequeue(&me->frees, &due)) {
        me->frees.fn[due.index].fn(me->frees.fn[due.index].context, due.argument);
        xi_add_relaxed(&me->own->counters.frees_run, 1);
        n++;
    }
    running = false;
    return n;
}

bool xi_free_pending(const xi_interp *me) {
    return xi_alive(me) && (told(me) || in_debt(me) || atomic_load_explicit(&me->frees.pending, memory_order_relaxed));
}

int64_t xi_free_run(xi_interp *me) {
    if (!xi_alive(me)) return xi_fail_forked();
    if (running) return 0;
    xi_arena_reclaim(me, SIZE_MAX);
    return run_due(me);
}

void xi_free_poll_slow(struct xi_interp *me) {
    if (me->flags & XI_JOIN_MANUAL_FREE) listen(me);
    else (void)run_due(me);
}

void xi_tell_owner(struct xi_interp *me, uint32_t owner_slot) {
    struct xi_map_entry *e;
    struct xi_mailbox *m = xi_mailbox_get(me, owner_slot, &e);
    if (!m) return; /* it is gone: nobody is left to run the function */
    /* Full barrier, then look for a sleeper; pairs with the owner, which names its bell and then looks at the word. */
    (void)xi_exchange_full(&m->reclaim, 1);
    uint32_t bell = xi_load_full(&m->reclaim_bell);
    if (bell && bell <= XI_BELLS_USABLE) (void)xi_bell_ring(&m->bells[bell - 1]);
    xi_mailbox_put(e);
}
