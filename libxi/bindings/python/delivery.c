/* SPDX-License-Identifier: MIT */
/* Delivery: a value of a group that acknowledges, and how it is settled. */
#include "claim.h"

#define METHOD(name, function, flags, doc) {name, (PyCFunction)(void (*)(void))(function), flags, doc}

typedef int (*Step)(const Claim *c, int64_t argument);
static int step_ack(const Claim *c, int64_t unused) {
    (void)unused;
    return has_views(c) ? xi_ack_keep(&c->borrow->msg) : xi_ack(&c->borrow->msg);
}
static int step_nack(const Claim *c, int64_t delay) {
    return has_views(c) ? xi_nack_keep(&c->borrow->msg, delay) : xi_nack(&c->borrow->msg, delay);
}
static int step_extend(const Claim *c, int64_t ns) { return xi_extend(&c->borrow->msg, ns); }

/* With the GIL: it is a lock that is held for some tens of nanoseconds, and a few stores. -1 with an exception. */
static int settle(Claim *c, Step step, int64_t argument) {
    int64_t r;
    if (claim_begin(c, "xidata.settle") < 0)
        return -1;
    do
        r = step(c, argument);
    while (r == XI_E_INTR && interrupted(c->ch->interp) == 0);
    if (r == XI_E_INTR)
        r = XI_RAISED;
    if (r >= 0 && step == step_extend) {
        c->state = CLAIM_HELD;
        channel_exit(c->ch);
        return 0;
    }
    return claim_end(c, r);
}

static PyObject *delivery_ack(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return none_or_error(settle((Claim *)self, step_ack, 0));
}

static PyObject *delivery_nack(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    Claim *c = (Claim *)self;
    PyObject *const names[] = {c->st->s_delay, NULL};
    PyObject *value[1] = {NULL};
    double seconds = 0;
    if (parse_arguments("nack", args, nargs, kwnames, 0, names, value) < 0)
        return NULL;
    if (value[0] && value[0] != Py_None && (seconds = PyFloat_AsDouble(value[0])) == -1.0 && PyErr_Occurred())
        return NULL;
    if (!(seconds >= 0 && seconds < 9e9)) {
        PyErr_SetString(PyExc_ValueError, "delay is a number of seconds, 0 or more");
        return NULL;
    }
    return none_or_error(settle(c, step_nack, (int64_t)(seconds * 1e9)));
}

static PyObject *delivery_extend(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    Claim *c = (Claim *)self;
    PyObject *const names[] = {c->st->s_seconds, NULL};
    PyObject *value[1] = {NULL};
    int64_t ns;
    if (parse_arguments("extend", args, nargs, kwnames, 0, names, value) < 0 ||
        parse_period("seconds", value[0], &ns) < 0)
        return NULL;
    return none_or_error(settle(c, step_extend, ns < 0 ? INT64_MAX / 4 : ns));
}

/* Acknowledges, or, when an exception is under way, gives back. */
static PyObject *delivery_exit(PyObject *self, PyObject *args) {
    Claim *c = (Claim *)self;
    PyObject *type, *value, *traceback;
    if (!PyArg_ParseTuple(args, "OOO:__exit__", &type, &value, &traceback))
        return NULL;
    if (c->state == CLAIM_SETTLED)
        Py_RETURN_NONE;
    if (type == Py_None)
        return none_or_error(settle(c, step_ack, 0));
    int rc = settle(c, step_nack, 0);
    State *st = c->st;
    if (rc < 0 && (PyErr_ExceptionMatches(st->errors[-XI_E_STALE]) || PyErr_ExceptionMatches(st->errors[-XI_E_LEFT]))) {
        PyErr_Clear(); /* another has it already, or will */
        rc = 0;
    }
    return none_or_error(rc);
}

static PyObject *delivery_repr(PyObject *self) {
    Claim *c = (Claim *)self;
    PyObject *name = PyUnicode_FromString(c->ch->name);
    PyObject *text = name ? PyUnicode_FromFormat("<xidata.Delivery %u from channel %R%s>", c->count, name,
                                                 c->state == CLAIM_SETTLED ? ", settled" : "")
                          : NULL;
    Py_XDECREF(name);
    return text;
}

static PyGetSetDef delivery_getset[] = {
    {"value", claim_get_value, NULL, "The value. Raises DecodeError if it could not be decoded.", NULL},
    {"settled", claim_get_settled, NULL, "True once it was answered or given back.", NULL},
    {"channel", claim_get_channel, NULL, "The Channel that it was received from.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMethodDef delivery_methods[] = {
    METHOD("ack", delivery_ack, METH_NOARGS,
           "ack($self)\n--\n\nAcknowledge: the value is done with, in this group. Views of it stay valid.\n\n"
           "Raises Stale if it is no longer this consumer's: it was overdue and went to another, or was settled before."),
    METHOD("nack", delivery_nack, METH_FASTCALL | METH_KEYWORDS,
           "nack($self, delay=0.0)\n--\n\nGive it back: it is delivered again, to any consumer of the group, after `delay` "
           "seconds at the earliest."),
    METHOD("extend", delivery_extend, METH_FASTCALL | METH_KEYWORDS,
           "extend($self, seconds=None)\n--\n\nMore time before it counts as overdue: so much from now on (None: the group's "
           "ack_timeout again)."),
    METHOD("__enter__", claim_self, METH_NOARGS, NULL),
    METHOD("__exit__", delivery_exit, METH_VARARGS, NULL),
    {NULL, NULL, 0, NULL},
};
static PyMemberDef delivery_members[] = {
    {"count", T_UINT, offsetof(Claim, count), READONLY, "How often the value was delivered, this time included."},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot delivery_slots[] = {
    {Py_tp_doc, "A value received in a group that acknowledges. A context manager: acknowledges at the end, or gives it\n"
                "back when an exception leaves the block. Dropped without an ack(), it goes to another consumer.\n\n"
                "    >>> ch = xidata.channel('jobs', ack=True)\n    >>> ch.send('job')\n"
                "    >>> with ch.recv() as delivery:\n    ...     delivery.value, delivery.count\n    ('job', 1)\n"
                "    >>> delivery.settled\n    True"},
    {Py_tp_dealloc, claim_dealloc},
    {Py_tp_traverse, claim_traverse},
    {Py_tp_clear, claim_clear},
    {Py_tp_repr, delivery_repr},
    {Py_tp_methods, delivery_methods},
    {Py_tp_getset, delivery_getset},
    {Py_tp_members, delivery_members},
    {0, NULL},
};
PyType_Spec delivery_spec = {
    "xidata.Delivery", sizeof(Claim), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    delivery_slots};

