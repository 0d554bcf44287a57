/* SPDX-License-Identifier: MIT */
/* What Delivery (delivery.c) and Request (call.c) share: a received message for which something is owed. */
#ifndef XI_PYTHON_CLAIM_H
#define XI_PYTHON_CLAIM_H

#include "binding.h"

enum claim_state {
    CLAIM_HELD,
    CLAIM_BUSY,   /* a thread is settling it */
    CLAIM_SETTLED /* `borrow` is NULL */
};

typedef struct {
    PyObject_HEAD
    State *st;
    Channel *ch;
    Borrow *borrow;   /* holds the message */
    PyObject *value;  /* or NULL: */
    PyObject *error;  /* why it could not be decoded */
    uint32_t count;   /* deliveries of the value, this one included */
    uint32_t generation;
    enum claim_state state;
} Claim;

/* True if memoryviews or arrays of it are alive: then the message's memory has to stay when its claim is settled. */
static inline bool has_views(const Claim *c) { return atomic_load(&c->borrow->references) > 1; }
/* 0: it is held, and busy from now on; the channel is entered. -1 with an exception. */
int claim_begin(Claim *c, const char *event);
/* Ends what claim_begin() began, with the library's answer. -1 with an exception. */
int claim_end(Claim *c, int64_t r);
/* Gives it up: another consumer gets a delivery, a request's caller is told. */
void claim_drop(Claim *c);

/* Of both types. */
PyObject *claim_get_value(PyObject *self, void *closure);
PyObject *claim_get_settled(PyObject *self, void *closure);
PyObject *claim_get_channel(PyObject *self, void *closure);
PyObject *claim_self(PyObject *self, PyObject *ignored);
int claim_traverse(PyObject *self, visitproc visit, void *arg);
int claim_clear(PyObject *self);
void claim_dealloc(PyObject *self);

#endif
