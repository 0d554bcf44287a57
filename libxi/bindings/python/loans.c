/* SPDX-License-Identifier: MIT */
/*
 * What this interpreter holds of shared memory, by generation, as CPython's gc
 * has its objects: received values that views or arrays look at (Borrow), and
 * buffers that were not sent (Loan). The functions are xidata.loans.
 *
 * Why there is a collector. Python's gc runs by the number of its objects and
 * knows nothing of arenas: a few arrays in reference cycles may hold gigabytes of
 * a sender's memory until it happens to run. So when more young loans are held
 * than a threshold allows, or more bytes, gc is run for the generation, and what
 * is held still moves into the next, older one, which is looked at ten times
 * less. A loan that was in the oldest generation already when a full collection
 * found it still held is said to be leaked, once: LeakedLoanWarning.
 *
 * What it costs: a loan is linked into a list and out of it, and a value with
 * no view in it touches nothing here. The list is in the order of age and is
 * never walked but by collections and in a forked child, to which none of it belongs.
 */
#include "loans.h"

#include <time.h>

#include "warn.h"

/* ------------------------------------------------------------- the lists */

/* Without a GIL loans come and go in many threads at once. */
#ifdef Py_GIL_DISABLED
#define LOCK(l) PyMutex_Lock(&(l)->mutex)
#define UNLOCK(l) PyMutex_Unlock(&(l)->mutex)
#else
#define LOCK(l) ((void)(l))
#define UNLOCK(l) ((void)(l))
#endif

static void list_init(HeldList *list) {
    list->head.prev = list->head.next = &list->head;
    list->count = list->bytes = 0;
}

void loans_init(Loans *l) {
    memset(l, 0, sizeof *l);
    for (int i = 0; i < HELD_LISTS; i++)
        list_init(&l->lists[i]);
    l->threshold[0] = 256;
    l->threshold[1] = l->threshold[2] = 10;
    l->threshold_bytes = UINT64_C(256) << 20;
    l->enabled = true;
}

void held_add(Loans *l, Held *h, uint64_t bytes) {
    HeldList *young = &l->lists[0];
    h->bytes = bytes;
    h->since = 0;
    h->list = 1;
    h->told = false;
    LOCK(l);
    h->prev = young->head.prev;
    h->next = &young->head;
    h->prev->next = h->next->prev = h;
    young->count++;
    young->bytes += bytes;
    UNLOCK(l);
}

void held_more(Loans *l, Held *h, uint64_t bytes) {
    LOCK(l);
    if (h->list) {
        h->bytes += bytes;
        l->lists[h->list - 1].bytes += bytes;
    }
    UNLOCK(l);
}

void held_drop(Loans *l, Held *h) {
    LOCK(l);
    if (h->list) {
        HeldList *list = &l->lists[h->list - 1];
        h->prev->next = h->next;
        h->next->prev = h->prev;
        list->count--;
        list->bytes -= h->bytes;
        l->released++;
        h->list = 0;
    }
    UNLOCK(l);
}

void loans_forked(Loans *l) {
#ifdef Py_GIL_DISABLED
    l->mutex = (PyMutex){0}; /* who held it is not in this process */
#endif
    for (int i = 0; i < HELD_LISTS; i++) {
        for (Held *h = l->lists[i].head.next; h != &l->lists[i].head; h = h->next)
            h->list = 0;
        list_init(&l->lists[i]);
    }
    memset(l->passes, 0, sizeof l->passes);
    memset(l->collections, 0, sizeof l->collections);
    memset(l->collected, 0, sizeof l->collected);
    l->pending = l->settled = 0;
    l->collecting = false;
}

/* All of `from` behind what is in `to`, which is another. */
static void move_all(Loans *l, int from, int to) {
    HeldList *a = &l->lists[from], *b = &l->lists[to];
    if (a->head.next == &a->head)
        return;
    for (Held *h = a->head.next; h != &a->head; h = h->next)
        h->list = (uint8_t)(to + 1);
    a->head.next->prev = b->head.prev;
    b->head.prev->next = a->head.next;
    a->head.prev->next = &b->head;
    b->head.prev = a->head.prev;
    b->count += a->count;
    b->bytes += a->bytes;
    list_init(a);
}

/* ------------------------------------------------------------ collecting */

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* gc.collect(generation), unless it is switched off and nobody asked for this collection. -1 with an exception. */
static int run_gc(State *st, int generation, bool asked) {
    PyObject *enabled = NULL, *done = NULL;
    if (load_attribute(&st->gc_collect, "gc", "collect") < 0 || load_attribute(&st->gc_isenabled, "gc", "isenabled") < 0)
        return -1;
    int run = asked ? 1 : (enabled = PyObject_CallObject(st->gc_isenabled, NULL)) ? PyObject_IsTrue(enabled) : -1;
    Py_XDECREF(enabled);
    if (run > 0 && !(done = PyObject_CallFunction(st->gc_collect, "i", generation)))
        run = -1;
    Py_XDECREF(done);
    return run < 0 ? -1 : 0;
}

/* Those of the oldest generation that were found there once before and have not been told of. */
static void find_leaked(Loans *l, Leaked *leaked) {
    int64_t t = now();
    for (Held *h = l->lists[2].head.next; h != &l->lists[2].head; h = h->next) {
        if (h->told)
            continue;
        h->told = true;
        leaked->count++;
        leaked->bytes += h->bytes;
        if (!leaked->seconds || (t - h->since) / 1e9 < leaked->seconds)
            leaked->seconds = (double)(t - h->since) / 1e9;
    }
}

/* What is held still grows older. */
static void grow_older(Loans *l, int generation, Leaked *leaked) {
    if (generation == 2) {
        find_leaked(l, leaked);
        l->pending = 0;
    }
    int64_t t = now();
    for (Held *h = l->lists[0].head.next; h != &l->lists[0].head; h = h->next)
        h->since = t;
    if (generation >= 1) {
        l->pending += generation == 1 ? l->lists[0].count + l->lists[1].count : 0;
        move_all(l, 1, 2);
    }
    move_all(l, 0, generation >= 1 ? 2 : 1);
    if (generation == 2)
        l->settled = l->lists[2].count;
    for (int i = 0; i <= generation; i++)
        l->passes[i] = 0;
    if (generation < 2)
        l->passes[generation + 1]++;
}

/* How many loans were released, or -1 with an exception: gc's, or the warning's. */
static int64_t collect(State *st, int generation, bool asked) {
    Loans *l = &st->loans;
    Leaked leaked = {0, 0, 0};
    LOCK(l);
    bool other = l->collecting;
    l->collecting = true;
    UNLOCK(l);
    if (other)
        return 0; /* another thread is at it, or a finalizer receives */
    uint64_t before = l->released;
    int rc = run_gc(st, generation, asked);
    LOCK(l);
    uint64_t n = l->released - before;
    l->collections[generation]++;
    l->collected[generation] += n;
    grow_older(l, generation, &leaked);
    UNLOCK(l);
    l->collecting = false;
    if (rc == 0 && leaked.count)
        rc = warn_leaked_loans(&leaked);
    return rc < 0 ? -1 : (int64_t)n;
}

void loans_collect_due(State *st) {
    Loans *l = &st->loans;
    int generation = 0;
    if (l->collecting || !l->enabled)
        return;
    if (l->threshold[1] && l->passes[1] >= l->threshold[1])
        generation = 1;
    if (generation && l->threshold[2] && l->passes[2] >= l->threshold[2] && l->pending > l->settled / 4)
        generation = 2; /* a quarter more than last time: so all full ones together look at each a few times */
    if (collect(st, generation, false) < 0)
        PyErr_WriteUnraisable(st->gc_collect); /* nobody who receives asked for this */
}

/* --------------------------------------------------------------- methods */

static Loans *loans_of(PyObject *module) { return &((State *)PyModule_GetState(module))->loans; }

PyObject *loans_collect(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"generation", NULL};
    int generation = 2;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|i:collect", names, &generation))
        return NULL;
    if (generation < 0 || generation > 2) {
        PyErr_SetString(PyExc_ValueError, "the generations are 0, 1 and 2");
        return NULL;
    }
    int64_t n = collect(PyModule_GetState(module), generation, true);
    return n < 0 ? NULL : PyLong_FromLongLong(n);
}

PyObject *loans_get_threshold(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    const Loans *l = loans_of(module);
    return Py_BuildValue("(IIIK)", l->threshold[0], l->threshold[1], l->threshold[2], (unsigned long long)l->threshold_bytes);
}

PyObject *loans_set_threshold(PyObject *module, PyObject *args) {
    Loans *l = loans_of(module);
    long long t[4] = {0, l->threshold[1], l->threshold[2], (long long)l->threshold_bytes};
    if (!PyArg_ParseTuple(args, "L|LLL:set_threshold", &t[0], &t[1], &t[2], &t[3]))
        return NULL;
    for (int i = 0; i < 4; i++)
        if (t[i] < 0 || (i < 3 && t[i] > INT32_MAX)) {
            PyErr_SetString(PyExc_ValueError, "a threshold is a number from 0, which switches it off, to 2147483647; that of "
                                              "bytes may be larger");
            return NULL;
        }
    for (int i = 0; i < 3; i++)
        l->threshold[i] = (uint32_t)t[i];
    l->threshold_bytes = (uint64_t)t[3];
    Py_RETURN_NONE;
}

PyObject *loans_get_count(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    const Loans *l = loans_of(module);
    return Py_BuildValue("(KII)", (unsigned long long)l->lists[0].count, l->passes[1], l->passes[2]);
}

PyObject *loans_get_stats(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    const Loans *l = loans_of(module);
    typedef unsigned long long ull;
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < 3; i++) {
        PyObject *one = Py_BuildValue("{sKsKsKsK}", "collections", (ull)l->collections[i], "collected", (ull)l->collected[i],
                                      "held", (ull)l->lists[i].count, "bytes", (ull)l->lists[i].bytes);
        if (!one || PyList_Append(list, one) < 0)
            Py_CLEAR(list);
        Py_XDECREF(one);
    }
    return list;
}

PyObject *loans_freeze(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    Loans *l = loans_of(module);
    LOCK(l);
    for (int i = 0; i < HELD_FROZEN; i++)
        move_all(l, i, HELD_FROZEN);
    UNLOCK(l);
    Py_RETURN_NONE;
}

PyObject *loans_unfreeze(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    Loans *l = loans_of(module);
    LOCK(l);
    move_all(l, HELD_FROZEN, 2);
    UNLOCK(l);
    Py_RETURN_NONE;
}

PyObject *loans_get_freeze_count(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromUnsignedLongLong(loans_of(module)->lists[HELD_FROZEN].count);
}

PyObject *loans_enable(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    loans_of(module)->enabled = true;
    Py_RETURN_NONE;
}

PyObject *loans_disable(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    loans_of(module)->enabled = false;
    Py_RETURN_NONE;
}

PyObject *loans_isenabled(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(loans_of(module)->enabled);
}
