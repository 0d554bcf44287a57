/* SPDX-License-Identifier: MIT */
/*
 * Channel: a handle to a named channel. This file opens, closes and describes
 * it; transfer.c sends and receives.
 *
 * free() may come while another thread is inside a call: then the handle is shut
 * and whoever leaves last frees it (the Guard). In a forked child the handle
 * opens itself again on first use, under the same name and options.
 */
#include "binding.h"

static void link_in(Channel *ch) {
    Interp *in = ch->interp;
    ch->prev = NULL;
    ch->next = in->channels;
    if (ch->next)
        ch->next->prev = ch;
    in->channels = ch;
}

static void unlink_from(Channel *ch) {
    if (ch->prev)
        ch->prev->next = ch->next;
    else if (ch->interp->channels == ch)
        ch->interp->channels = ch->next;
    if (ch->next)
        ch->next->prev = ch->prev;
    ch->prev = ch->next = NULL;
}

/* --------------------------------------------------------------- opening */

/* Opens the library's handle. The interpreter is entered for as long as it is open. 0, or -1 with an exception. */
static int open_handle(Channel *ch, uint32_t flags) {
    xi_open_opts opts = {.mode = ch->mode, .flags = flags, .capacity = ch->capacity, .group = ch->group};
    xi_channel *h = NULL;
    int rc;
    if (interp_enter(ch->interp) < 0)
        return -1;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = xi_open(ch->interp->me, ch->name, &opts, &h);
        Py_END_ALLOW_THREADS
    } while (rc == XI_E_INTR && interrupted(ch->interp) == 0);
    if (rc < 0) {
        if (!PyErr_Occurred())
            raise_error(ch->st, rc);
        interp_exit(ch->interp);
        return -1;
    }
    if (ch->h) { /* another thread was first */
        (void)xi_channel_free(h);
        interp_exit(ch->interp);
        return 0;
    }
    ch->h = h;
    ch->inline_max = xi_inline_max(h);
    ch->generation = ch->interp->generation;
    guard_reset(&ch->guard);
    return 0;
}

static char *copy_of(const char *text) {
    size_t n = strlen(text) + 1;
    char *copy = PyMem_Malloc(n);
    if (copy)
        memcpy(copy, text, n);
    else
        PyErr_NoMemory();
    return copy;
}

typedef struct {
    const char *name, *group;
    uint32_t mode, flags;
    uint64_t capacity;
    enum pickle_policy pickle;
    bool zero_copy;
} Options;

static PyObject *open_channel(Interp *in, const Options *o) {
    State *st = in->st;
    Channel *ch = PyObject_GC_New(Channel, st->channel_type);
    if (!ch)
        return NULL;
    memset((char *)ch + sizeof(PyObject), 0, sizeof *ch - sizeof(PyObject));
    ch->st = st;
    ch->interp = (Interp *)Py_NewRef((PyObject *)in);
    ch->mode = o->mode;
    ch->flags = o->flags;
    ch->capacity = o->capacity;
    ch->pickle = o->pickle;
    ch->zero_copy = o->zero_copy;
    ch->name = copy_of(o->name);
    ch->group = o->group ? copy_of(o->group) : NULL;
    PyObject_GC_Track(ch);
    if (!ch->name || (o->group && !ch->group) || open_handle(ch, ch->flags) < 0) {
        Py_DECREF(ch);
        return NULL;
    }
    link_in(ch);
    return (PyObject *)ch;
}

static int parse_mode(const char *text, uint32_t *mode) {
    *mode = 0;
    if (text && strcmp(text, "queue") == 0)
        *mode = XI_QUEUE;
    else if (text && strcmp(text, "broadcast") == 0)
        *mode = XI_BROADCAST;
    else if (text) {
        PyErr_Format(PyExc_ValueError, "mode is 'queue', 'broadcast' or None, not '%s'", text);
        return -1;
    }
    return 0;
}

static int parse_pickle(const char *text, enum pickle_policy *policy) {
    *policy = strcmp(text, "refuse") == 0 ? PICKLE_REFUSE : PICKLE_ALLOW;
    if (*policy == PICKLE_REFUSE || strcmp(text, "allow") == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "pickle is 'allow' or 'refuse', not '%s'", text);
    return -1;
}

PyObject *channel_open(Interp *in, PyObject *args, PyObject *keywords) {
    static char *names[] = {"name",      "mode",     "capacity", "group",     "send_only",
                            "recv_only", "existing", "pickle",   "zero_copy", NULL};
    const char *mode = NULL, *pickle = "allow";
    long long capacity = 0;
    int send_only = 0, recv_only = 0, existing = 0, zero_copy = 0;
    Options o = {0};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s|$zLzpppsp:channel", names, &o.name, &mode, &capacity, &o.group,
                                     &send_only, &recv_only, &existing, &pickle, &zero_copy))
        return NULL;
    if (parse_mode(mode, &o.mode) < 0 || parse_pickle(pickle, &o.pickle) < 0)
        return NULL;
    if (capacity < 0) {
        PyErr_SetString(PyExc_ValueError, "capacity is a number of bytes, or 0 for the default");
        return NULL;
    }
    if (send_only && recv_only) {
        PyErr_SetString(PyExc_ValueError, "a handle that is send_only and recv_only could do nothing");
        return NULL;
    }
    o.capacity = (uint64_t)capacity;
    o.zero_copy = zero_copy;
    o.flags = (send_only ? XI_OPEN_SEND : 0) | (recv_only ? XI_OPEN_RECV : 0) | (existing ? XI_OPEN_EXISTING : 0);
    return open_channel(in, &o);
}

PyObject *channel_open_named(Interp *in, const char *name) {
    Options o = {.name = name, .flags = XI_OPEN_EXISTING};
    return open_channel(in, &o);
}

/* ------------------------------------------------- entering and finishing */

static int gone(const Channel *ch) {
    PyErr_Format(ch->st->errors[-XI_E_LEFT], "this handle of channel '%s' was freed: open another with xidata.channel()",
                 ch->name);
    return -1;
}

int channel_enter_slow(Channel *ch) {
    bool must_finish = false;
    if (ch->freed || !ch->name)
        return ch->name ? gone(ch) : (PyErr_BadInternalCall(), -1);
    if (ch->generation != ch->st->generation) {
        if (open_handle(ch, ch->flags & ~XI_OPEN_EXISTING) < 0)
            return -1;
        if (!ch->prev && ch->interp->channels != ch)
            link_in(ch);
    }
    if (ch->h && guard_enter(&ch->guard, &must_finish))
        return 0;
    if (must_finish)
        channel_finish(ch);
    return gone(ch);
}

void channel_finish(Channel *ch) {
    xi_channel *h = ch->h;
    ch->h = NULL;
    if (!h)
        return;
    xi_msg_release(&ch->spare);
    stash_clear(ch);
    Py_BEGIN_ALLOW_THREADS
    (void)xi_channel_free(h);
    Py_END_ALLOW_THREADS
    interp_exit(ch->interp);
}

void channel_free_handle(Channel *ch) {
    bool must_finish;
    unlink_from(ch);
    ch->freed = true;
    if (ch->generation != ch->st->generation)
        return; /* the parent's */
    if (!guard_enter(&ch->guard, &must_finish))
        return; /* somebody else is at it */
    (void)guard_close(&ch->guard);
    if ((guard_word(&ch->guard) & GUARD_USERS) > 1 && ch->h)
        (void)xi_channel_shut(ch->h); /* whoever waits inside comes out, and the last one out frees it */
    if (guard_leave(&ch->guard))
        channel_finish(ch);
}

void channel_forget_parent(Channel *ch) {
    xi_channel *h = ch->h;
    ch->h = NULL;
    ch->spare_used = false;
    stash_clear(ch);
    message_init(&ch->spare);
    if (h)
        (void)xi_channel_free(h); /* in a child: memory alone */
    guard_reset(&ch->guard);
}

/* --------------------------------------------------------------- methods */

static PyObject *channel_close(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Channel *ch = (Channel *)self;
    int rc;
    if (channel_enter(ch) < 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = xi_close(ch->h);
        Py_END_ALLOW_THREADS
    } while (rc == XI_E_INTR && interrupted(ch->interp) == 0);
    if (rc < 0 && !PyErr_Occurred())
        raise_error(ch->st, rc);
    channel_exit(ch);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *channel_free(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Channel *ch = (Channel *)self;
    if (!ch->freed) {
        Py_INCREF(ch);
        channel_free_handle(ch);
        Py_DECREF(ch);
    }
    Py_RETURN_NONE;
}

static PyObject *channel_self(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

static PyObject *channel_stat(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Channel *ch = (Channel *)self;
    xi_channel_info info;
    if (channel_enter(ch) < 0)
        return NULL;
    int rc = xi_channel_stat(ch->h, &info);
    if (rc < 0)
        raise_error(ch->st, rc);
    channel_exit(ch);
    return rc < 0 ? NULL : channel_info(ch->st, &info);
}

static PyObject *channel_reduce(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Channel *ch = (Channel *)self;
    PyObject *open = NULL;
    if (load_attribute(&open, "xidata", "_open_existing") < 0)
        return NULL;
    return Py_BuildValue("(N(s))", open, ch->name);
}

static PyObject *channel_get_name(PyObject *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(((Channel *)self)->name);
}

static PyObject *channel_get_group(PyObject *self, void *Py_UNUSED(closure)) {
    Channel *ch = (Channel *)self;
    return ch->group ? PyUnicode_FromString(ch->group) : Py_NewRef(Py_None);
}

static PyObject *channel_get_freed(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((Channel *)self)->freed);
}

static PyObject *channel_get_interp(PyObject *self, void *Py_UNUSED(closure)) {
    return Py_NewRef((PyObject *)((Channel *)self)->interp);
}

static PyObject *channel_repr(PyObject *self) {
    Channel *ch = (Channel *)self;
    PyObject *name = PyUnicode_FromString(ch->name);
    PyObject *text = name ? PyUnicode_FromFormat("<xidata.Channel %R of namespace '%s'%s>", name, ch->interp->ns,
                                                 ch->freed ? ", freed" : "")
                          : NULL;
    Py_XDECREF(name);
    return text;
}

static int channel_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Channel *)self)->interp);
    return stash_traverse((Channel *)self, visit, arg);
}

static void channel_dealloc(PyObject *self) {
    Channel *ch = (Channel *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (ch->weakrefs)
        PyObject_ClearWeakRefs(self);
    if (!ch->freed) {
        if (ch->generation == ch->st->generation || ch->h)
            channel_free_handle(ch);
        else
            unlink_from(ch);
    }
    xi_msg_release(&ch->spare);
    stash_clear(ch);
    PyMem_Free(ch->name);
    PyMem_Free(ch->group);
    Py_DECREF(ch->interp);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

#define METHOD(name, function, flags, doc) {name, (PyCFunction)(void (*)(void))(function), flags, doc}
static PyMethodDef channel_methods[] = {
    METHOD("send", channel_send, METH_FASTCALL | METH_KEYWORDS,
           "send(obj, timeout=None, *, on_free=None)\n--\n\n"
           "Send one value. Waits while the channel is full: for ever, or `timeout` seconds (0: not at all).\n"
           "When it returns, the value will reach every group, even if this process is killed at once.\n\n"
           "on_free: called without arguments, once, in this process, after the last group has consumed the value;\n"
           "during a later call of this library, or in run_free().\n\n"
           "    ch.send({'id': 7, 'payload': b'...'})\n    ch.send(array, timeout=0.5)\n\n"
           "Raises Full (timeout=0), Timeout, ChannelClosed, ShmFull, Quota, and what pickling the object raises."),
    METHOD("try_send", channel_try_send, METH_O,
           "try_send(obj)\n--\n\nSend without waiting. True, or False if the channel is full."),
    METHOD("send_many", channel_send_many, METH_FASTCALL | METH_KEYWORDS,
           "send_many(iterable, timeout=None)\n--\n\n"
           "Send every value of an iterable, many at a time; return how many were sent. With timeout=0 that is as many\n"
           "as there is room for. Any exception carries the number sent so far as `sent`.\n\n"
           "    ch.send_many(range(1000))"),
    METHOD("recv", channel_recv, METH_FASTCALL | METH_KEYWORDS,
           "recv(timeout=None, *, zero_copy=None)\n--\n\n"
           "Receive the next value of this handle's group. Waits for ever, or `timeout` seconds (0: not at all).\n\n"
           "Loans and numpy arrays arrive as read-only views of the sender's memory. With zero_copy so do bytes, as\n"
           "memoryviews; None means as the channel was opened.\n\n"
           "Raises Empty (timeout=0), Timeout, ChannelClosed (closed and drained), DecodeError, Corrupt."),
    METHOD("try_recv", channel_try_recv, METH_FASTCALL,
           "try_recv(default=<unset>, /)\n--\n\nReceive without waiting. With nothing there: `default`, or Empty."),
    METHOD("recv_many", channel_recv_many, METH_FASTCALL | METH_KEYWORDS,
           "recv_many(n, timeout=None)\n--\n\n"
           "Wait as recv() for the first value, then take what is there: a list of 1 to n values."),
    METHOD("close", channel_close, METH_NOARGS,
           "close()\n--\n\nClose the channel itself, for everybody: senders get ChannelClosed at once, receivers when "
           "they have\ndrained it. Idempotent."),
    METHOD("free", channel_free, METH_NOARGS,
           "free()\n--\n\nGive this handle back; the channel lives on while it has handles or undelivered values. "
           "Idempotent."),
    METHOD("stat", channel_stat, METH_NOARGS, "stat()\n--\n\nThe channel's ChannelInfo."),
    METHOD("__enter__", channel_self, METH_NOARGS, NULL),
    METHOD("__exit__", channel_free, METH_VARARGS, NULL),
    METHOD("__reduce__", channel_reduce, METH_NOARGS, NULL),
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef channel_getset[] = {
    {"name", channel_get_name, NULL, "The channel's name.", NULL},
    {"group", channel_get_group, NULL, "The group given when it was opened, or None.", NULL},
    {"freed", channel_get_freed, NULL, "True after free().", NULL},
    {"interpreter", channel_get_interp, NULL, "The Interpreter that it belongs to.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMemberDef channel_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Channel, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot channel_slots[] = {
    {Py_tp_doc, "A handle to a channel, from xidata.channel(). Iterating receives until the channel is closed and "
                "drained.\nA context manager: frees the handle (it does not close the channel)."},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_traverse, channel_traverse},
    {Py_tp_repr, channel_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, channel_next},
    {Py_tp_methods, channel_methods},
    {Py_tp_getset, channel_getset},
    {Py_tp_members, channel_members},
    {0, NULL},
};
PyType_Spec channel_spec = {
    "xidata.Channel", sizeof(Channel), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    channel_slots};
