/* SPDX-License-Identifier: MIT */
/*
 * Reference: a counted hold on another interpreter, dropped when it is released
 * or collected; and the lists of interpreters and channels, read from the
 * namespace's registry without asking the broker.
 */
#include "binding.h"

#include <structseq.h>

/* ------------------------------------------------------------- reference */

typedef struct {
    PyObject_HEAD
    Interp *interp;
    int64_t id;
    bool held;
    uint32_t generation;
} Reference;

PyObject *reference_new(Interp *in, int64_t id) {
    Reference *r = PyObject_New(Reference, in->st->reference_type);
    if (!r)
        return NULL;
    r->interp = (Interp *)Py_NewRef((PyObject *)in);
    r->id = id;
    r->held = true;
    r->generation = in->generation;
    return (PyObject *)r;
}

/* Drops it, once. An enum xi_error; patient: signals run their handlers, and it goes on. */
static int drop(Reference *r, bool patient) {
    Interp *in = r->interp;
    int rc = 0;
    bool held = r->held && !in->left && r->generation == in->st->generation;
    r->held = false; /* another thread may be here before we are back */
    if (!held || interp_enter(in) < 0) {
        PyErr_Clear(); /* it left, and its references with it */
        return 0;
    }
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = xi_unref(in->me, r->id);
        Py_END_ALLOW_THREADS
    } while (rc == XI_E_INTR && patient && interrupted(in) == 0);
    r->held = rc < 0 && rc != XI_E_NOENT; /* still, and to be tried again; who has ended needs no reference */
    interp_exit(in);
    return rc;
}

static PyObject *reference_release(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Reference *r = (Reference *)self;
    int rc = drop(r, true);
    if (r->held)
        return finished(r->interp->st, rc);
    Py_RETURN_NONE;
}

static void reference_dealloc(PyObject *self) {
    Reference *r = (Reference *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject *error_type, *error, *traceback;
    PyErr_Fetch(&error_type, &error, &traceback);
    (void)drop(r, false); /* nobody is left to be told; the broker drops it with this process at the latest */
    PyErr_Restore(error_type, error, traceback);
    Py_DECREF(r->interp);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *reference_self(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

static PyObject *reference_repr(PyObject *self) {
    Reference *r = (Reference *)self;
    return PyUnicode_FromFormat("<xidata.Reference to interpreter %lld%s>", (long long)r->id,
                                r->held ? "" : ", released");
}

static PyMethodDef reference_methods[] = {
    {"release", reference_release, METH_NOARGS, "release($self)\n--\n\nDrop the reference. Idempotent."},
    {"__enter__", reference_self, METH_NOARGS, NULL},
    {"__exit__", reference_release, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyMemberDef reference_members[] = {
    {"id", T_LONGLONG, offsetof(Reference, id), READONLY, "The id of the interpreter that is held."},
    {"held", T_BOOL, offsetof(Reference, held), READONLY, "False once released."},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot reference_slots[] = {
    {Py_tp_doc, "A reference to an interpreter, from Interpreter.reference(). A context manager."},
    {Py_tp_dealloc, reference_dealloc},
    {Py_tp_repr, reference_repr},
    {Py_tp_methods, reference_methods},
    {Py_tp_members, reference_members},
    {0, NULL},
};
PyType_Spec reference_spec = {
    "xidata.Reference", sizeof(Reference), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, reference_slots};

/* ------------------------------------------------------------------- ids */

PyObject *interp_id_new(State *st, int64_t id) {
    if (load_attribute(&st->interp_id, "xidata", "InterpreterId") < 0)
        return NULL;
    return PyObject_CallFunction(st->interp_id, "L", (long long)id);
}

int interp_id_converter(State *st, PyObject *o, int64_t *id) {
    if (Py_TYPE(o) == st->reference_type) {
        *id = ((Reference *)o)->id;
        return 1;
    }
    if (Py_TYPE(o) == st->interp_type) {
        Interp *in = (Interp *)o;
        if (!in->left && in->generation != st->generation && interp_revive(in) < 0)
            return 0;
        *id = in->id;
        return 1;
    }
    if (!PyLong_Check(o)) {
        PyErr_Format(PyExc_TypeError, "an interpreter's id is an int, an InterpreterId, a Reference or an Interpreter, "
                                      "not %s",
                     TYPE_NAME(Py_TYPE(o)));
        return 0;
    }
    *id = PyLong_AsLongLong(o);
    return *id == -1 && PyErr_Occurred() ? 0 : 1;
}

/* ----------------------------------------------------------------- lists */

static PyStructSequence_Field interp_fields[] = {
    {"id", "its number, never used twice in the namespace"},
    {"pid", "its process"},
    {"name", "as it calls itself"},
    {"language", "what it is: 'cpython 3.11', 'c', ..."},
    {"references", "how many references others hold"},
    {"requires_ref", "True if it ends when the last reference is dropped"},
    {"joined", "when it joined, seconds since the epoch"},
    {"sent", "values sent"},
    {"received", "values received"},
    {"arena_bytes", "shared memory it holds"},
    {"blocks", "blocks of it that are in use"},
    {"borrows", "others' blocks that it holds"},
    {"parks", "times that it went to sleep"},
    {"wakes", "times that it woke somebody"},
    {"wait", "how it sleeps: 'uring' or 'futex'"},
    {"uid", "the user that it runs as"},
    {NULL, NULL},
};
static PyStructSequence_Desc interp_desc = {"xidata.InterpreterInfo", "One interpreter of a namespace.", interp_fields,
                                            16};
static PyStructSequence_Field channel_fields[] = {
    {"id", "its number, never used twice in the namespace"},
    {"name", "its name"},
    {"mode", "'queue' or 'broadcast'"},
    {"closed", "True once somebody closed it"},
    {"capacity", "bytes of its ring"},
    {"used", "bytes that hold values not yet received by every group"},
    {"depth", "values not yet received by the slowest group"},
    {"sent", "values sent, ever"},
    {"received", "values received, over all groups"},
    {"groups", "groups now"},
    {"waiting", "threads asleep on it"},
    {"handles", "handles open in all interpreters"},
    {"producers", "handles that may send"},
    {"consumers", "handles that receive"},
    {"retain", "values that are kept for groups that join later"},
    {"grow", "bytes to which its ring may grow; 0: it does not"},
    {"dropped", "values that made room for newer ones, over all groups"},
    {"expired", "values whose time to live was over, over all groups"},
    {"dead", "values that went to the dead letters, over all groups"},
    {"owner", "the user (uid) who made it"},
    {"access", "what other users may do: '1001:r,@50:rw'; '' for nothing"},
    {"shared", "True if other users than this one may open it"},
    {NULL, NULL},
};
#define CHANNEL_FIELDS ((int)(sizeof channel_fields / sizeof channel_fields[0]) - 1)
static PyStructSequence_Desc channel_desc = {"xidata.ChannelInfo", "One channel of a namespace.", channel_fields,
                                             CHANNEL_FIELDS};
static PyStructSequence_Field group_fields[] = {
    {"name", "its name; '' is a queue's default group, or one that ends with its handle"},
    {"ack", "True if its values are to be acknowledged"},
    {"owner", "id of the interpreter that it ends with, or 0"},
    {"received", "values received"},
    {"depth", "values that it has yet to receive"},
    {"unacked", "deliveries that are not acknowledged"},
    {"redelivered", "deliveries that were not a value's first"},
    {"acked", "values acknowledged"},
    {"dropped", "values that made room for newer ones"},
    {"expired", "values whose time to live was over"},
    {"dead", "values that went to the dead letters, or vanished there being none"},
    {NULL, NULL},
};
#define GROUP_FIELDS ((int)(sizeof group_fields / sizeof group_fields[0]) - 1)
static PyStructSequence_Desc group_desc = {"xidata.GroupInfo", "One group of a channel.", group_fields, GROUP_FIELDS};

int info_init(PyObject *module, State *st) {
    st->interp_info_type = PyStructSequence_NewType(&interp_desc);
    st->channel_info_type = PyStructSequence_NewType(&channel_desc);
    st->group_info_type = PyStructSequence_NewType(&group_desc);
    if (!st->interp_info_type || !st->channel_info_type || !st->group_info_type)
        return -1;
    return PyModule_AddObjectRef(module, "InterpreterInfo", (PyObject *)st->interp_info_type) < 0 ||
                   PyModule_AddObjectRef(module, "ChannelInfo", (PyObject *)st->channel_info_type) < 0 ||
                   PyModule_AddObjectRef(module, "GroupInfo", (PyObject *)st->group_info_type) < 0
               ? -1
               : 0;
}

/* Text of a fixed field that another process wrote: cut at its end, whatever it holds. */
static PyObject *text_of(const char *field, size_t size) {
    return PyUnicode_DecodeUTF8(field, (Py_ssize_t)strnlen(field, size), "replace");
}

/* A struct sequence of the `n` new references in `items`; NULL if one of them is. */
static PyObject *sequence_of(PyTypeObject *type, PyObject *const *items, int n) {
    PyObject *made = PyStructSequence_New(type);
    bool good = made != NULL;
    for (int i = 0; i < n; i++) {
        good = good && items[i];
        if (made)
            PyStructSequence_SetItem(made, i, items[i] ? items[i] : Py_NewRef(Py_None));
        else
            Py_XDECREF(items[i]);
    }
    if (!good)
        Py_CLEAR(made);
    return made;
}

#define ULL(x) PyLong_FromUnsignedLongLong(x)

static PyObject *interp_info(State *st, const xi_interp_info *i) {
    PyObject *items[] = {PyLong_FromLongLong(i->id),
                         PyLong_FromLong(i->pid),
                         text_of(i->name, sizeof i->name),
                         text_of(i->language, sizeof i->language),
                         ULL(i->id_refcount),
                         PyBool_FromLong(i->flags & XI_JOIN_REQUIRES_REF),
                         PyFloat_FromDouble((double)i->joined_ns / 1e9),
                         ULL(i->sent),
                         ULL(i->received),
                         ULL(i->arena_bytes),
                         ULL(i->blocks),
                         ULL(i->borrows),
                         ULL(i->parks),
                         ULL(i->wakes),
                         text_of(i->wait, sizeof i->wait),
                         ULL(i->uid)};
    return sequence_of(st->interp_info_type, items, 16);
}

PyObject *channel_info(State *st, const xi_channel_info *c) {
    PyObject *items[] = {ULL(c->id),
                         text_of(c->name, sizeof c->name),
                         PyUnicode_FromString(c->mode == XI_BROADCAST ? "broadcast" : "queue"),
                         PyBool_FromLong(c->closed != 0),
                         ULL(c->capacity),
                         ULL(c->used),
                         ULL(c->depth),
                         ULL(c->sent),
                         ULL(c->received),
                         ULL(c->groups),
                         ULL(c->waiting),
                         ULL(c->handles),
                         ULL(c->producers),
                         ULL(c->consumers),
                         ULL(c->retain),
                         ULL(c->grow),
                         ULL(c->dropped),
                         ULL(c->expired),
                         ULL(c->dead),
                         ULL(c->owner),
                         text_of(c->access, sizeof c->access),
                         PyBool_FromLong(c->shared_with_others != 0)};
    static_assert(sizeof items / sizeof items[0] == CHANNEL_FIELDS, "");
    return sequence_of(st->channel_info_type, items, CHANNEL_FIELDS);
}

static PyObject *group_info(State *st, const xi_group_info *g) {
    PyObject *items[] = {text_of(g->name, sizeof g->name),
                         PyBool_FromLong(g->flags & XI_GROUP_ACK),
                         PyLong_FromLongLong(g->owner),
                         ULL(g->received),
                         ULL(g->depth),
                         ULL(g->unacked),
                         ULL(g->redelivered),
                         ULL(g->acked),
                         ULL(g->dropped),
                         ULL(g->expired),
                         ULL(g->dead)};
    static_assert(sizeof items / sizeof items[0] == GROUP_FIELDS, "");
    return sequence_of(st->group_info_type, items, GROUP_FIELDS);
}

PyObject *group_infos(State *st, const xi_group_info *groups, size_t n) {
    PyObject *list = PyList_New(0);
    for (size_t i = 0; i < n && list; i++) {
        PyObject *entry = group_info(st, &groups[i]);
        if (!entry || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    return list;
}

static int64_t fill_interps(xi_observer *o, void *to, size_t n) { return xi_list_interps(o, to, n); }
static int64_t fill_channels(xi_observer *o, void *to, size_t n) { return xi_list_channels(o, to, n); }
static PyObject *make_interp(State *st, const void *entry) { return interp_info(st, entry); }
static PyObject *make_channel(State *st, const void *entry) { return channel_info(st, entry); }

/* One of the two lists: how it is read, how large an entry is, what becomes of it. */
typedef struct {
    int64_t (*fill)(xi_observer *, void *, size_t);
    PyObject *(*make)(State *, const void *);
    size_t size;
} Listing;

/* All entries, in memory to be freed by PyMem_RawFree. How many, or an enum xi_error. */
static int64_t read_all(const Listing *l, xi_observer *o, char **entries) {
    size_t room = 64;
    for (;;) {
        char *grown = PyMem_RawRealloc(*entries, room * l->size);
        if (!grown)
            return XI_E_NOMEM;
        *entries = grown;
        int64_t n = l->fill(o, grown, room);
        if (n <= (int64_t)room)
            return n;
        room = (size_t)n + 16;
    }
}

static PyObject *list_from(State *st, const Listing *l, xi_observer *o) {
    char *entries = NULL;
    int64_t n = read_all(l, o, &entries);
    PyObject *list = n < 0 ? raise_error(st, n) : PyList_New(0);
    for (int64_t i = 0; i < n && list; i++) {
        PyObject *entry = l->make(st, entries + (size_t)i * l->size);
        if (!entry || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    PyMem_RawFree(entries);
    return list;
}

static PyObject *list_of(State *st, const Listing *l, const char *ns) {
    Interp *in = ns ? NULL : st->current;
    xi_observer *o;
    if (in) {
        if (interp_enter(in) < 0)
            return NULL;
        PyObject *list = list_from(st, l, xi_observer_of(in->me));
        interp_exit(in);
        return list;
    }
    int rc = xi_observe(ns, &o);
    if (rc == XI_E_NOENT)
        return PyList_New(0); /* no namespace: nobody is in it */
    if (rc < 0)
        return raise_error(st, rc);
    PyObject *list = list_from(st, l, o);
    xi_observer_free(o);
    return list;
}

PyObject *list_interpreters(State *st, const char *ns) {
    static const Listing l = {fill_interps, make_interp, sizeof(xi_interp_info)};
    return list_of(st, &l, ns);
}

PyObject *list_channels(State *st, const char *ns) {
    static const Listing l = {fill_channels, make_channel, sizeof(xi_channel_info)};
    return list_of(st, &l, ns);
}
