/* SPDX-License-Identifier: MIT */
/*
 * Claims: what is received and something is owed for. A Delivery is a value of a
 * group that acknowledges; it is owed an ack(). A Request is a value that
 * somebody sent with call(); it is owed a reply(), see call.c. Both
 * hold the message until that is settled, and the value, decoded once, when it
 * was received. A value that could not be decoded makes no difference to what
 * is owed: the error is raised when `value` is read.
 *
 * Dropping a claim settles it too: a delivery goes to another consumer, a
 * request's caller is told. Views of the value (memoryviews, arrays) may outlive
 * all of this; they keep the message's memory, not the claim.
 */
#include "claim.h"

/* --------------------------------------------------------------- receiving */

/* Takes the exception that is set, as an object. */
static PyObject *take_exception(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

PyObject *claim_deliver(Decoder *d) {
    State *st = d->st;
    if (decoder_borrow(d) < 0) {
        xi_msg_release(d->msg); /* for another: who cannot hold it cannot settle it */
        return NULL;
    }
    const xi_msg *m = decoder_message(d);
    Claim *c = PyObject_GC_New(Claim, xi_msg_is_call(m) ? st->request_type : st->delivery_type);
    if (!c)
        return NULL;
    c->st = st;
    c->ch = (Channel *)Py_NewRef((PyObject *)d->ch);
    c->borrow = NULL;
    c->value = c->error = NULL;
    c->count = xi_msg_deliveries(m);
    c->generation = st->generation;
    c->state = CLAIM_SETTLED;
    c->value = decode_message(d);
    if (!c->value && PyErr_ExceptionMatches(PyExc_Exception))
        c->error = take_exception();
    PyObject_GC_Track(c);
    if (!c->value && !c->error) { /* Ctrl-C: the message is received again */
        Py_DECREF(c);
        return NULL;
    }
    borrow_ref(d->borrow);
    c->borrow = d->borrow;
    c->state = CLAIM_HELD;
    return (PyObject *)c;
}

/* ---------------------------------------------------------------- settling */

static void let_go(Claim *c) {
    Borrow *b = c->borrow;
    c->state = CLAIM_SETTLED;
    c->borrow = NULL;
    if (b)
        borrow_unref(b);
}

static int refuse(const Claim *c, int code, const char *why) {
    PyErr_Format(c->st->errors[-code], "this %s %s", Py_TYPE(c) == c->st->request_type ? "request" : "delivery", why);
    return -1;
}

int claim_begin(Claim *c, const char *event) {
    if (c->generation != c->st->generation)
        return refuse(c, XI_E_FORKED, "was received before fork(): it is the parent's");
    if (channel_begin(c->ch, event) < 0) /* may run callbacks, which may settle it */
        return -1;
    if (c->state == CLAIM_HELD) {
        c->state = CLAIM_BUSY;
        return 0;
    }
    channel_exit(c->ch);
    return refuse(c, XI_E_STALE, c->state == CLAIM_BUSY ? "is just being settled by another thread"
                                                        : "was settled before");
}

int claim_end(Claim *c, int64_t r) {
    if (r < 0)
        raise_error(c->st, r); /* before anything else that may fail: the sentence is the thread's latest */
    c->state = CLAIM_HELD;
    if (r >= 0 || r == XI_E_STALE)
        let_go(c);
    channel_exit(c->ch);
    return r < 0 ? -1 : 0;
}

/* Views keep the message, so releasing it would not tell anybody: says so to the library. Errors: it is settled, then. */
static void abandon(Claim *c) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    bool mine = c->generation == c->st->generation && has_views(c);
    if (mine && channel_enter(c->ch) == 0) {
        if (c->count)
            (void)xi_nack_keep(&c->borrow->msg, 0);
        else
            (void)xi_reply(&c->borrow->msg, NULL, 0, XI_TRY);
        channel_exit(c->ch);
    }
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

void claim_drop(Claim *c) {
    if (c->state != CLAIM_HELD)
        return;
    abandon(c);
    let_go(c);
}

/* -------------------------------------------------------- methods of both */

PyObject *claim_get_value(PyObject *self, void *Py_UNUSED(closure)) {
    Claim *c = (Claim *)self;
    if (c->value)
        return Py_NewRef(c->value);
    if (c->error)
        PyErr_SetObject((PyObject *)Py_TYPE(c->error), c->error);
    else
        PyErr_SetString(PyExc_AttributeError, "value");
    return NULL;
}

PyObject *claim_get_settled(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((Claim *)self)->state == CLAIM_SETTLED);
}

PyObject *claim_get_channel(PyObject *self, void *Py_UNUSED(closure)) {
    return Py_NewRef((PyObject *)((Claim *)self)->ch);
}

PyObject *claim_self(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

int claim_traverse(PyObject *self, visitproc visit, void *arg) {
    Claim *c = (Claim *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(c->ch);
    Py_VISIT(c->value);
    Py_VISIT(c->error);
    return 0;
}

int claim_clear(PyObject *self) {
    Claim *c = (Claim *)self;
    Py_CLEAR(c->value);
    Py_CLEAR(c->error);
    return 0;
}

void claim_dealloc(PyObject *self) {
    Claim *c = (Claim *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    claim_drop(c);
    claim_clear(self);
    Py_DECREF(c->ch);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}
