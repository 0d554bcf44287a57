/* SPDX-License-Identifier: MIT */
/*
 * The memory and the scheduler; explore.h says what they are.
 *
 * Threads are coroutines of one real thread, which change at watched accesses
 * alone. Whatever is undetermined is asked of choose(), which gives the answers
 * of the execution before up to the last one that can be another, as a counter
 * does. So an execution is the list of its answers.
 *
 * A state is what each thread has read so far (which determines what it will
 * do), each thread's view, and all stores with their views. It is kept as a hash of 64
 * bits: that two of some million states have the same one has a chance of about
 * one in a million.
 */
#include "explore.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define WORDS 40
#define STORES 40 /* to one word */
#define CHOICES 4096
#define STATES_MOST ((size_t)1 << 24)
#define NOBODY EXPLORE_THREADS

struct view {
    uint8_t at[WORDS];                /* of each word: which store */
    uint16_t clock[EXPLORE_THREADS];  /* of each thread: how many of its events happened before */
};

struct store {
    uint64_t value;
    struct view view;
    bool rmw;        /* comes next after the one before it, and nothing in between */
    uint8_t thread;
    uint16_t clock;
};

static struct word {
    uintptr_t address;
    size_t size;
    const char *name;
    bool guarded, patient;
    unsigned count, last_sc; /* stores; the last sequentially consistent one */
    uint16_t read_clock[EXPLORE_THREADS]; /* of each thread's last read that was not atomic */
    struct store stores[STORES];
} words[WORDS];
static unsigned word_count;

enum status { RUNNING, SLEEPING, WAITING, ENDED };
static struct thread {
    ucontext_t context; /* to begin it, */
    jmp_buf at;         /* and to go on: without the system calls that the other makes */
    bool begun;
    void (*run)(void *);
    void *argument;
    enum status status;
    const struct word *sleeps_on;
    struct view now, acquired, released; /* its view; what a barrier would add; what it had at the last barrier */
    uint64_t history;
    struct word *writing; /* a store that is not atomic: memory has the value by the next access */
} threads[EXPLORE_THREADS];
static unsigned thread_count, self;
static jmp_buf scheduler;
static struct view barriers; /* joined by every full barrier */
static struct view woken[WORDS]; /* views of those who have called futex(2) to wake: it orders them before a later sleeper */

static struct { unsigned taken, of; } choices[CHOICES];
static unsigned choice_count, choice_at;
static const char *failure;
static bool telling;
static const struct weakening *spoilt;
static uint64_t steps;

enum { STACK = 128 * 1024, SHADOW = 1024, STEPS_MOST = 3000 };
static _Alignas(64) char stacks[EXPLORE_THREADS][STACK];
static uint8_t shadow[SHADOW]; /* a hash table of words by address: index + 1 */

/* ------------------------------------------------------------ what was seen */

static uint64_t *seen;
static size_t seen_count, seen_size;

static uint64_t mix(uint64_t h, uint64_t v) {
    h = ((h + 0x632be59bd9b4e019ull) ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

static void *memory(size_t n, size_t size) {
    void *p = calloc(n, size);
    if (p) return p;
    fprintf(stderr, "no memory for %zu states\n", n);
    exit(2);
}

static bool insert(uint64_t h) {
    for (size_t i = h & (seen_size - 1);; i = (i + 1) & (seen_size - 1)) {
        if (seen[i] == h) return false;
        if (seen[i]) continue;
        seen[i] = h;
        return true;
    }
}

/* True if it is new. */
static bool remember(uint64_t h) {
    if (seen_count * 2 >= seen_size) {
        uint64_t *old = seen;
        size_t n = seen_size;
        seen_size = n ? n * 2 : 1024;
        seen = memory(seen_size, sizeof *seen);
        for (size_t i = 0; i < n; i++)
            if (old[i]) (void)insert(old[i]);
        free(old);
    }
    bool fresh = insert(h ? h : 1);
    seen_count += fresh;
    return fresh;
}

static uint64_t hash_view(uint64_t h, const struct view *v) {
    for (unsigned i = 0; i < word_count; i++) h = mix(h, v->at[i]);
    for (unsigned i = 0; i < thread_count; i++) h = mix(h, v->clock[i]);
    return h;
}

static uint64_t hash_state(void) {
    uint64_t h = hash_view(1, &barriers);
    for (unsigned t = 0; t < thread_count; t++) {
        const struct thread *th = &threads[t];
        h = mix(mix(h, th->status), th->history);
        h = hash_view(hash_view(hash_view(h, &th->now), &th->acquired), &th->released);
    }
    for (unsigned i = 0; i < word_count; i++) {
        const struct word *w = &words[i];
        h = mix(h, w->count << 8 | w->last_sc);
        for (unsigned t = 0; t < thread_count; t++) h = mix(h, w->read_clock[t]);
        for (unsigned k = 0; k < w->count; k++) {
            h = mix(mix(h, w->stores[k].value), (uint64_t)w->stores[k].clock << 16 | w->stores[k].thread << 1 | w->stores[k].rmw);
            h = hash_view(h, &w->stores[k].view);
        }
        if (w->size == 4) h = hash_view(h, &woken[i]);
    }
    return h;
}

/* ---------------------------------------------------------------- choosing */

static unsigned choose(unsigned n) {
    if (n <= 1 || failure) return 0;
    if (choice_at == CHOICES) {
        failure = "more choices than are kept count of";
        return 0;
    }
    if (choice_at == choice_count) {
        choices[choice_count].taken = 0;
        choices[choice_count++].of = n;
    }
    return choices[choice_at++].taken;
}

/* The next execution; false: there is none. */
static bool next_choices(void) {
    while (choice_count && choices[choice_count - 1].taken + 1 == choices[choice_count - 1].of) choice_count--;
    if (choice_count == 0) return false;
    choices[choice_count - 1].taken++;
    return true;
}

/* The others, or nobody, go on. */
static void leave(void) {
    if (_setjmp(threads[self].at) == 0) _longjmp(scheduler, 1);
}

static void go_on(unsigned t) {
    self = t;
    if (_setjmp(scheduler) != 0) return;
    if (threads[t].begun) _longjmp(threads[t].at, 1);
    threads[t].begun = true;
    setcontext(&threads[t].context);
}

void explore_fail(const char *what) {
    if (!failure) failure = what;
    leave(); /* never to come back */
}

static void tell(const struct word *w, const char *what, uint64_t value, const char *more) {
    if (telling)
        printf("    thread %u  %-8s %s[%u] %#llx%s\n", self, what, w->name, (unsigned)(w - words), (unsigned long long)value, more);
}

/* ------------------------------------------------------------------- views */

static void join_views(struct view *to, const struct view *from) {
    for (unsigned i = 0; i < word_count; i++)
        if (from->at[i] > to->at[i]) to->at[i] = from->at[i];
    for (unsigned i = 0; i < thread_count; i++)
        if (from->clock[i] > to->clock[i]) to->clock[i] = from->clock[i];
}

/* A barrier orders, but what is not atomic must be ordered without it. */
static void join_positions(struct view *to, const struct view *from) {
    for (unsigned i = 0; i < word_count; i++)
        if (from->at[i] > to->at[i]) to->at[i] = from->at[i];
}

static void barrier(struct thread *t) {
    join_views(&t->now, &t->acquired);
    join_positions(&t->now, &barriers);
    join_positions(&barriers, &t->now);
    t->released = t->now;
}

static bool acquires(int order) {
    return order == memory_order_acquire || order == memory_order_acq_rel || order == memory_order_seq_cst;
}
static bool releases(int order) {
    return order == memory_order_release || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

/* ------------------------------------------------------------ orders, spoilt */

static struct { const char *name; enum access access; int order; } orders[128];
static unsigned order_count;

static int order_of(const struct word *w, enum access access, int order) {
    if (spoilt && spoilt->access == access && spoilt->from == order && strcmp(spoilt->name, w->name) == 0) return spoilt->to;
    if (spoilt || order == memory_order_relaxed) return order;
    for (unsigned i = 0; i < order_count; i++)
        if (orders[i].access == access && orders[i].order == order && strcmp(orders[i].name, w->name) == 0) return order;
    if (order_count < sizeof orders / sizeof *orders) {
        orders[order_count].name = w->name;
        orders[order_count].access = access;
        orders[order_count++].order = order;
    }
    return order;
}

void explore_orders(void (*each)(void *context, const char *name, enum access access, int order), void *context) {
    for (unsigned i = 0; i < order_count; i++) each(context, orders[i].name, orders[i].access, orders[i].order);
}

/* ------------------------------------------------------------------ words */

static unsigned slot_of(uintptr_t address) { return (unsigned)((address >> 2) * 0x9e3779b1u >> 7) % SHADOW; }

static struct word *find(const volatile void *address) {
    for (unsigned i = slot_of((uintptr_t)address); shadow[i]; i = (i + 1) % SHADOW)
        if (words[shadow[i] - 1].address == (uintptr_t)address) return &words[shadow[i] - 1];
    return NULL;
}

bool explore_watched(const volatile void *address) { return find(address) != NULL; }

static uint64_t memory_value(const struct word *w) {
    uint64_t v = 0;
    memcpy(&v, (const void *)w->address, w->size);
    return v;
}

void explore_watch(const void *address, size_t size, const char *name, size_t count, size_t step) {
    for (size_t i = 0; i < count; i++) {
        if (word_count == WORDS) {
            fprintf(stderr, "more than %d words are watched\n", WORDS);
            exit(2);
        }
        struct word *w = &words[word_count++];
        memset(w, 0, offsetof(struct word, stores) + sizeof w->stores[0]);
        w->address = (uintptr_t)address + i * step;
        w->size = size;
        w->name = name;
        w->count = 1;
        w->stores[0].value = memory_value(w);
        w->stores[0].thread = NOBODY;
        unsigned s = slot_of(w->address);
        while (shadow[s]) s = (s + 1) % SHADOW;
        shadow[s] = (uint8_t)word_count;
    }
}

void explore_guard(const void *address) { find(address)->guarded = true; }
void explore_patient(const void *address) { find(address)->patient = true; }

uint64_t explore_value(const void *address) {
    const struct word *w = find(address);
    return w->stores[w->count - 1].value;
}

/* A new store at place k of the word's order: all that come behind it move. */
static void make_place(struct word *w, unsigned k) {
    unsigned word = (unsigned)(w - words);
    if (w->count == STORES) explore_fail("more stores to one word than are kept");
    memmove(&w->stores[k + 1], &w->stores[k], (w->count - k) * sizeof w->stores[0]);
    w->count++;
    if (k == w->count - 1) return;
    if (w->last_sc >= k) w->last_sc++;
#define MOVE(view) ((view).at[word] = (uint8_t)((view).at[word] + ((view).at[word] >= k)))
    MOVE(barriers);
    for (unsigned t = 0; t < thread_count; t++) {
        MOVE(threads[t].now);
        MOVE(threads[t].acquired);
        MOVE(threads[t].released);
    }
    for (unsigned i = 0; i < word_count; i++) {
        MOVE(woken[i]);
        for (unsigned j = 0; j < words[i].count; j++)
            if (!(i == word && j == k)) MOVE(words[i].stores[j].view);
    }
#undef MOVE
}

/* ----------------------------------------------------------------- accesses */

/* What was written by an access that is not atomic is in memory by now. */
static void settle(void);

/* Lets the others go on first; then it is our turn. */
static struct word *turn(const volatile void *address) {
    settle();
    leave();
    if (++steps > STEPS_MOST) explore_fail("goes on for ever");
    return find(address);
}

static void note(struct thread *t, uint64_t v) { t->history = mix(t->history, v); }

static void take_in(struct thread *t, struct word *w, unsigned k, int order) {
    unsigned word = (unsigned)(w - words);
    if (t->now.at[word] < k) t->now.at[word] = (uint8_t)k;
    join_views(&t->acquired, &w->stores[k].view);
    if (acquires(order)) join_views(&t->now, &w->stores[k].view);
    note(t, w->stores[k].value);
}

static unsigned first_readable(const struct thread *t, const struct word *w, int order) {
    unsigned from = t->now.at[w - words];
    return order == memory_order_seq_cst && w->last_sc > from ? w->last_sc : from;
}

static const char *ordered_with_reads(const struct word *w) {
    for (unsigned t = 0; t < thread_count; t++)
        if (t != self && w->read_clock[t] > threads[self].now.clock[t]) return "stores over what another may still be reading";
    return NULL;
}

/* The store, at place k, by the running thread. `before`: what a read-modify-write carries on. */
static void put(struct word *w, unsigned k, uint64_t value, int order, const struct view *before) {
    struct thread *t = &threads[self];
    const char *wrong = ordered_with_reads(w);
    struct view carried = before ? *before : (struct view){0};
    if (wrong) {
        tell(w, "store", value, "");
        explore_fail(wrong);
    }
    make_place(w, k);
    for (unsigned i = 0; i < thread_count; i++)
        if (threads[i].status == WAITING && threads[i].sleeps_on == w) threads[i].status = RUNNING;
    t->now.clock[self]++;
    t->now.at[w - words] = (uint8_t)k;
    struct store *s = &w->stores[k];
    *s = (struct store){.value = value, .view = carried, .rmw = before != NULL, .thread = (uint8_t)self, .clock = t->now.clock[self]};
    join_views(&s->view, releases(order) ? &t->now : &t->released);
    s->view.at[w - words] = (uint8_t)k;
    if (order == memory_order_seq_cst) w->last_sc = k;
}

/* Of accesses that are not atomic, or guarded: all stores by others happened before. */
static void ordered_behind_stores(const struct word *w, const char *what) {
    for (unsigned k = 0; k < w->count; k++)
        if (w->stores[k].thread != NOBODY && w->stores[k].clock > threads[self].now.clock[w->stores[k].thread]) {
            tell(w, what, w->stores[k].value, "");
            explore_fail("an access that is not atomic, or guarded, is not ordered behind another's store");
        }
}

/* The newest value; who stores over it must be ordered behind this read. */
static uint64_t read_alone(struct word *w) {
    struct thread *t = &threads[self];
    ordered_behind_stores(w, "reads");
    w->read_clock[self] = ++t->now.clock[self];
    t->now.at[w - words] = (uint8_t)(w->count - 1);
    note(t, w->stores[w->count - 1].value);
    tell(w, "reads", w->stores[w->count - 1].value, "");
    return w->stores[w->count - 1].value;
}

uint64_t explore_load(const volatile void *address, int order) {
    struct word *w = find(address);
    struct thread *t = &threads[self];
    settle();
    if (w->guarded) return read_alone(w);
    (void)turn(address);
    order = order_of(w, ACCESS_LOAD, order);
    unsigned from = first_readable(t, w, order), k = w->count - 1 - choose(w->count - from);
    take_in(t, w, k, order);
    tell(w, "load", w->stores[k].value, k + 1 < w->count ? "   (an old value)" : "");
    return w->stores[k].value;
}

void explore_store(const volatile void *address, uint64_t value, int order) {
    struct word *w = find(address);
    settle();
    if (w->guarded) {
        ordered_behind_stores(w, "writes");
        tell(w, "writes", value, "");
        put(w, w->count, value, order, NULL);
        note(&threads[self], 0);
        return;
    }
    (void)turn(address);
    order = order_of(w, ACCESS_STORE, order);
    unsigned from = first_readable(&threads[self], w, order) + 1, places[STORES], n = 0;
    for (unsigned k = w->count; k >= from; k--)
        if (k == w->count || !w->stores[k].rmw) places[n++] = k;
    unsigned k = places[choose(n)];
    tell(w, "store", value, k < w->count ? "   (before another's)" : "");
    put(w, k, value, order, NULL);
    note(&threads[self], 0);
}

uint64_t explore_rmw(const volatile void *address, explore_change change, uint64_t operand, uint64_t expected, int order,
                     int failed) {
    struct word *w = find(address);
    struct thread *t = &threads[self];
    uint64_t new = 0;
    settle();
    if (w->guarded) ordered_behind_stores(w, "rmw");
    else (void)turn(address);
    unsigned candidates[STORES], n = 0;
    order = order_of(w, ACCESS_RMW, order);
    failed = order == memory_order_relaxed ? memory_order_relaxed : failed;
    while (w->patient && !change(w->stores[w->count - 1].value, operand, expected, &new)) {
        t->status = WAITING;
        t->sleeps_on = w;
        leave();
    }
    for (unsigned k = w->count; k-- > first_readable(t, w, order);)
        if ((!w->patient || change(w->stores[k].value, operand, expected, &new)) &&
            (k + 1 == w->count || !w->stores[k + 1].rmw || !change(w->stores[k].value, operand, expected, &new)))
            candidates[n++] = k;
    unsigned k = candidates[choose(n)];
    uint64_t old = w->stores[k].value;
    if (!change(old, operand, expected, &new)) {
        take_in(t, w, k, failed);
        tell(w, "cas", old, "   (not as expected)");
        return old;
    }
    struct view before = w->stores[k].view;
    take_in(t, w, k, order);
    tell(w, "rmw", new, k + 1 < w->count ? "   (behind an old value)" : "");
    put(w, k + 1, new, order, &before);
    return old;
}

void explore_plain_read(const volatile void *address) {
    struct word *w = find(address);
    settle();
    if (!w->guarded) (void)turn(address);
    uint64_t value = read_alone(w);
    memcpy((void *)w->address, &value, w->size); /* from where the code reads it now */
}

void explore_plain_write(const volatile void *address) {
    struct word *w = find(address);
    settle();
    if (!w->guarded) (void)turn(address);
    ordered_behind_stores(w, "writes");
    threads[self].writing = w;
}

static void settle(void) {
    struct word *w = threads[self].writing;
    if (!w) return;
    threads[self].writing = NULL;
    uint64_t value = memory_value(w);
    tell(w, "writes", value, "");
    put(w, w->count, value, memory_order_relaxed, NULL);
    note(&threads[self], 0);
}

/* ---------------------------------------------------------- the kernel's part */

bool explore_sleep(const volatile void *address, uint64_t seen_value) {
    struct word *w = turn(address);
    struct thread *t = &threads[self];
    join_views(&t->now, &woken[w - words]);
    barrier(t);
    unsigned from = first_readable(t, w, memory_order_relaxed), k = w->count - 1 - choose(w->count - from);
    take_in(t, w, k, memory_order_acquire);
    tell(w, "sleeps", w->stores[k].value, w->stores[k].value == seen_value ? "" : "   (not any more)");
    if (w->stores[k].value != seen_value) return false;
    t->status = SLEEPING;
    t->sleeps_on = w;
    leave();
    join_views(&t->now, &woken[w - words]);
    note(t, 1);
    return true;
}

void explore_wake(const volatile void *address) {
    struct word *w = turn(address);
    barrier(&threads[self]);
    join_views(&woken[w - words], &threads[self].now);
    for (unsigned t = 0; t < thread_count; t++)
        if (threads[t].status == SLEEPING && threads[t].sleeps_on == w) threads[t].status = RUNNING;
    tell(w, "wakes", 0, "");
    note(&threads[self], 2);
}

void explore_barrier_everywhere(void) {
    (void)turn(NULL);
    barrier(&threads[self]);
    note(&threads[self], 5);
    for (unsigned t = 0; t < thread_count; t++) {
        if (t == self) continue;
        (void)turn(NULL);
        barrier(&threads[t]);
        note(&threads[self], 3); /* how far it is */
        if (telling) printf("    thread %u  makes thread %u pass a barrier\n", self, t);
    }
    barrier(&threads[self]);
    note(&threads[self], 4);
}

/* --------------------------------------------------------------- executions */

static void run_thread(unsigned t) {
    threads[t].run(threads[t].argument);
    settle();
    threads[t].status = ENDED;
    leave();
}

void explore_thread(void (*run)(void *), void *argument) {
    struct thread *t = &threads[thread_count++];
    *t = (struct thread){.run = run, .argument = argument, .status = RUNNING};
    getcontext(&t->context);
    t->context.uc_stack.ss_sp = stacks[t - threads];
    t->context.uc_stack.ss_size = STACK;
    makecontext(&t->context, (void (*)(void))run_thread, 1, (unsigned)(t - threads));
}

/* False: the rest of it has been seen. */
static bool execute(const struct shape *shape) {
    word_count = thread_count = 0;
    choice_at = 0;
    steps = 0;
    failure = NULL;
    memset(shadow, 0, sizeof shadow);
    memset(&barriers, 0, sizeof barriers);
    memset(woken, 0, sizeof woken);
    shape->prepare();
    for (unsigned t = 0; t < thread_count; t++) go_on(t); /* to its first step */
    while (!failure) {
        unsigned ready[EXPLORE_THREADS], n = 0, asleep = 0;
        for (unsigned t = 0; t < thread_count; t++) {
            if (threads[t].status == RUNNING) ready[n++] = t;
            asleep += threads[t].status == SLEEPING || threads[t].status == WAITING;
        }
        if (choice_at >= choice_count && !telling && !remember(hash_state())) return false;
        if (n == 0) {
            failure = shape->judge(asleep != 0);
            break;
        }
        go_on(ready[choose(n)]);
    }
    return true;
}

static void tell_failure(const struct shape *shape, const char *what) {
    printf("  %s: %s\n", shape->name, what);
    telling = true;
    (void)execute(shape);
    telling = false;
}

struct explored explore(const struct shape *shape, const struct weakening *weaker, bool tell_it) {
    struct explored e = {.complete = true};
    spoilt = weaker;
    if (!weaker) order_count = 0;
    choice_count = 0;
    seen_count = 0;
    if (seen_size) memset(seen, 0, seen_size * sizeof *seen);
    do {
        (void)execute(shape);
        e.executions++;
        e.steps += steps;
        if (seen_count > STATES_MOST) e.complete = false;
    } while (!failure && e.complete && next_choices());
    e.states = seen_count;
    e.failure = failure;
    if (failure && tell_it) tell_failure(shape, failure);
    return e;
}
