/* SPDX-License-Identifier: MIT */
/*
 * Interpreter: this process's membership of a namespace.
 *
 * Leaving is put off while anything that reaches its shared memory is alive:
 * open channels with a call under way, loans, views of received values. In a
 * forked child everything of the parent's is forgotten, and the first use joins
 * anew under the same names.
 *
 * Free callbacks. The library may only call a trampoline, and only from
 * xi_free_run(), which is called here with the GIL held. The trampoline queues
 * the callable; it is called after the library has returned, so that it may do
 * anything, sending and leaving included.
 */
#include "binding.h"
#include "warn.h"

static void link_in(Interp *in) {
    in->next = in->st->interps;
    if (in->next)
        in->next->prev = in;
    in->st->interps = in;
}

static void unlink_from(Interp *in) {
    if (in->prev)
        in->prev->next = in->next;
    else if (in->st->interps == in)
        in->st->interps = in->next;
    if (in->next)
        in->next->prev = in->prev;
}

/* --------------------------------------------------------------- joining */

/* xi_join with what `in` was asked for. An enum xi_error, or XI_RAISED. */
static int64_t join(Interp *in, xi_interp **out) {
    char language[32];
    PyOS_snprintf(language, sizeof language, "cpython %d.%d", (int)(RUNNING_VERSION >> 24),
                  (int)(RUNNING_VERSION >> 16 & 0xff));
    xi_join_opts opts = {in->ns[0] ? in->ns : NULL, in->name[0] ? in->name : NULL, language, in->flags, in->spin_ns};
    const char *named = getenv("XI_NAMESPACE"), *usual = named && named[0] ? named : "default";
    if (AUDIT(in->st, "xidata.join", "ss", in->ns[0] ? in->ns : usual, in->name) < 0)
        return XI_RAISED;
    for (;;) {
        int rc;
        Py_BEGIN_ALLOW_THREADS
        rc = xi_join(&opts, out);
        Py_END_ALLOW_THREADS
        if (rc != XI_E_INTR)
            return rc;
        if (PyErr_CheckSignals() < 0)
            return XI_RAISED;
    }
}

static void adopt(Interp *in, xi_interp *me) {
    in->me = me;
    in->id = xi_id(me);
    in->generation = in->st->generation;
    in->free_index = 0;
    guard_reset(&in->guard);
    PyOS_snprintf(in->ns, sizeof in->ns, "%s", xi_namespace(me));
}

static int copy_name(char *to, size_t size, const char *from, const char *what) {
    if (from && strlen(from) >= size) {
        PyErr_Format(PyExc_ValueError, "the %s is longer than %zu bytes", what, size - 1);
        return -1;
    }
    PyOS_snprintf(to, size, "%s", from ? from : "");
    return 0;
}

PyObject *interp_join(State *st, const char *ns, const char *name, uint32_t flags, int64_t spin_ns) {
    Interp *in = PyObject_GC_New(Interp, st->interp_type);
    xi_interp *me;
    if (!in)
        return NULL;
    memset((char *)in + sizeof(PyObject), 0, sizeof *in - sizeof(PyObject));
    in->st = st;
    in->generation = st->generation;
    in->flags = flags | XI_JOIN_MANUAL_FREE;
    in->spin_ns = spin_ns;
    guard_close(&in->guard); /* until it has joined */
    link_in(in);
    PyObject_GC_Track(in);
    int64_t rc = copy_name(in->ns, sizeof in->ns, ns, "namespace") < 0 ||
                         copy_name(in->name, sizeof in->name, name, "name") < 0
                     ? XI_RAISED
                     : join(in, &me);
    if (rc < 0) {
        Py_DECREF(in);
        return raise_error(st, rc);
    }
    adopt(in, me);
    return (PyObject *)in;
}

Interp *interp_current(State *st) {
    if (st->current)
        return st->current;
    PyObject *joined = interp_join(st, NULL, NULL, 0, 0);
    if (!joined)
        return NULL;
    if (st->current)
        Py_DECREF(joined); /* another thread was first */
    else
        st->current = (Interp *)joined;
    return st->current;
}

int interp_revive(Interp *in) {
    xi_interp *me;
    int64_t rc = join(in, &me);
    if (rc < 0) {
        raise_error(in->st, rc);
        return -1;
    }
    if (in->generation != in->st->generation)
        adopt(in, me);
    else
        (void)xi_leave(me); /* another thread was first */
    return 0;
}

/* --------------------------------------------------------------- leaving */

static void drop_callbacks(Interp *in) {
    FreeSlot *slots = in->slots;
    uint32_t n = in->slots_size;
    in->slots = NULL;
    in->slots_size = in->slots_free = in->slots_used = 0;
    in->due_first = in->due_last = 0;
    for (uint32_t i = 0; i < n; i++)
        Py_XDECREF(slots[i].callable);
    PyMem_Free(slots);
}

/* The last user has gone. */
static void finish(Interp *in) {
    xi_interp *me = in->me;
    in->me = NULL;
    if (!me)
        return;
    Py_BEGIN_ALLOW_THREADS
    (void)xi_leave(me);
    Py_END_ALLOW_THREADS
    drop_callbacks(in); /* nobody tells us any more */
}

/*
 * It is to leave, and somebody is inside: views of what it received are alive. What its arena keeps for later values is
 * given back now, since there will be none; only what is out stays until then.
 */
static void trim(Interp *in) {
    bool must_finish = false;
    if ((guard_word(&in->guard) & GUARD_USERS) == 0)
        return; /* all of it goes at once */
    if (guard_enter(&in->guard, &must_finish)) {
        Py_BEGIN_ALLOW_THREADS
        (void)xi_trim(in->me);
        Py_END_ALLOW_THREADS
        interp_exit(in);
    } else if (must_finish) {
        finish(in);
    }
}

int interp_enter(Interp *in) {
    bool must_finish = false;
    if (XI_UNLIKELY(in->left)) {
        PyErr_SetString(in->st->errors[-XI_E_LEFT], "this interpreter has left its namespace: join() again");
        return -1;
    }
    if (XI_UNLIKELY(in->generation != in->st->generation) && interp_revive(in) < 0)
        return -1;
    if (XI_LIKELY(guard_enter(&in->guard, &must_finish)))
        return 0;
    if (must_finish)
        finish(in);
    PyErr_SetString(in->st->errors[-XI_E_LEFT], "this interpreter has left its namespace: join() again");
    return -1;
}

void interp_exit(Interp *in) {
    if (guard_leave(&in->guard))
        finish(in);
}

/* Each is held meanwhile: another thread may drop the last reference to it while the library is at work. */
static void close_handles(Interp *in) {
    while (in->sets) {
        PyObject *set = Py_NewRef((PyObject *)in->sets);
        set_close_handle(in->sets);
        Py_DECREF(set);
    }
    while (in->channels) {
        PyObject *channel = Py_NewRef((PyObject *)in->channels);
        channel_free_handle(in->channels);
        Py_DECREF(channel);
    }
}

PyObject *interp_leave(Interp *in) {
    State *st = in->st;
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    Py_INCREF(in);
    if (!in->left && AUDIT(in->st, "xidata.leave", "sL", in->ns, (long long)in->id) < 0)
        PyErr_WriteUnraisable((PyObject *)in); /* nobody is kept from leaving */
    if (!in->left && in->generation == st->generation) {
        if (in->slots_used && free_run(in) < 0) /* what was consumed by now is told of, as xi_leave() has it */
            PyErr_Fetch(&type, &value, &traceback);
        warn_backlogs(in);
    }
    in->left = true;
    if (st->current == in) {
        st->current = NULL;
        Py_DECREF(in);
    }
    if (in->generation == st->generation) {
        close_handles(in);
        trim(in);
        if (guard_close(&in->guard))
            finish(in);
    }
    Py_DECREF(in);
    if (!type)
        Py_RETURN_NONE;
    PyErr_Restore(type, value, traceback);
    return NULL;
}

void interp_forget_parent(Interp *in) {
    xi_interp *me = in->me;
    in->me = NULL;
    in->free_index = 0;
    sets_forget_parent(in);
    for (Channel *ch = in->channels; ch; ch = ch->next)
        channel_forget_parent(ch);
    if (me)
        (void)xi_leave(me); /* in a child: memory alone */
    guard_reset(&in->guard);
    drop_callbacks(in); /* they are the parent's to call */
}

/* -------------------------------------------------------- free callbacks */

static void trampoline(void *context, uint64_t argument) {
    Interp *in = context;
    if (argument >= in->slots_size || !in->slots[argument].callable)
        return;
    uint32_t number = (uint32_t)argument + 1;
    in->slots[argument].next = 0;
    if (in->due_last)
        in->slots[in->due_last - 1].next = number;
    else
        in->due_first = number;
    in->due_last = number;
}

static int more_slots(Interp *in) {
    uint32_t size = in->slots_size, grown = size ? 2 * size : 16;
    FreeSlot *slots = grown > size ? PyMem_Realloc(in->slots, grown * sizeof *slots) : NULL;
    if (!slots) {
        PyErr_NoMemory();
        return -1;
    }
    in->slots = slots;
    in->slots_size = grown;
    for (uint32_t i = grown; i-- > size;) {
        slots[i] = (FreeSlot){NULL, in->slots_free};
        in->slots_free = i + 1;
    }
    return 0;
}

int free_reserve(Interp *in, PyObject *callable, uint32_t *slot) {
    if (!PyCallable_Check(callable)) {
        PyErr_Format(PyExc_TypeError, "on_free must be callable without arguments, not %s", TYPE_NAME(Py_TYPE(callable)));
        return -1;
    }
    if (!in->free_index) {
        int rc = xi_free_register(in->me, "python", trampoline, in, &in->free_index);
        if (rc < 0) {
            raise_error(in->st, rc);
            return -1;
        }
    }
    if (!in->slots_free && more_slots(in) < 0)
        return -1;
    *slot = in->slots_free - 1;
    in->slots_free = in->slots[*slot].next;
    in->slots[*slot] = (FreeSlot){Py_NewRef(callable), 0};
    in->slots_used++;
    return 0;
}

/* Takes the callable out of a slot, which is free then. */
static PyObject *take_slot(Interp *in, uint32_t slot) {
    PyObject *callable = in->slots[slot].callable;
    in->slots[slot] = (FreeSlot){NULL, in->slots_free};
    in->slots_free = slot + 1;
    in->slots_used--;
    return callable;
}

void free_cancel(Interp *in, uint32_t slot) {
    if (slot < in->slots_size && in->slots[slot].callable)
        Py_DECREF(take_slot(in, slot));
}

int64_t free_run(Interp *in) {
    int64_t n = 0;
    if (in->me && in->generation == in->st->generation)
        (void)xi_free_run(in->me);
    while (in->due_first) {
        uint32_t slot = in->due_first - 1;
        in->due_first = in->slots[slot].next;
        if (!in->due_first)
            in->due_last = 0;
        PyObject *callable = take_slot(in, slot);
        PyObject *result = PyObject_CallObject(callable, NULL);
        bool passed_on = !result && !PyErr_ExceptionMatches(PyExc_Exception); /* KeyboardInterrupt is for the caller */
        if (!result && !passed_on)
            PyErr_WriteUnraisable(callable);
        Py_XDECREF(result);
        Py_DECREF(callable);
        if (passed_on)
            return -1;
        n++;
    }
    return n;
}

int interrupted(Interp *in) {
    if (PyErr_CheckSignals() < 0)
        return -1;
    return free_poll(in);
}

/* --------------------------------------------------------------- methods */

/* A call of the library on `me` that may wait for the broker. */
static PyObject *count_reference(Interp *in, PyObject *arg, int (*how)(xi_interp *, int64_t)) {
    int64_t id;
    int rc;
    if (!interp_id_converter(in->st, arg, &id) || interp_enter(in) < 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = how(in->me, id);
        Py_END_ALLOW_THREADS
    } while (rc == XI_E_INTR && interrupted(in) == 0);
    PyObject *none = finished(in->st, rc);
    interp_exit(in);
    return none;
}

static PyObject *interp_ref(PyObject *self, PyObject *id) { return count_reference((Interp *)self, id, xi_ref); }
static PyObject *interp_unref(PyObject *self, PyObject *id) { return count_reference((Interp *)self, id, xi_unref); }

static PyObject *interp_reference(PyObject *self, PyObject *arg) {
    int64_t id;
    PyObject *counted = interp_ref(self, arg);
    if (!counted)
        return NULL;
    Py_DECREF(counted);
    return interp_id_converter(((Interp *)self)->st, arg, &id) ? reference_new((Interp *)self, id) : NULL;
}

static PyObject *interp_stats(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Interp *in = (Interp *)self;
    xi_stats s;
    if (interp_enter(in) < 0)
        return NULL;
    xi_interp_stats(in->me, &s);
    interp_exit(in);
    typedef unsigned long long ull;
    return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsKsKsssssK}", "sent", (ull)s.sent, "received", (ull)s.received, "parks",
                         (ull)s.parks, "wakes", (ull)s.wakes, "spins", (ull)s.spins, "loans", (ull)s.loans, "blocks",
                         (ull)s.blocks, "arena_bytes", (ull)s.arena_bytes, "borrows", (ull)s.borrows, "frees_run",
                         (ull)s.frees_run, "corrupt", (ull)s.corrupt, "wait", s.wait ? s.wait : "", "wait_reason",
                         s.wait_reason ? s.wait_reason : "", "callbacks_due", (ull)in->slots_used);
}

static PyObject *interp_channel(PyObject *self, PyObject *args, PyObject *keywords) {
    return channel_open((Interp *)self, args, keywords);
}

static PyObject *interp_remove(PyObject *self, PyObject *name) { return channel_remove((Interp *)self, name); }

static PyObject *interp_buffer(PyObject *self, PyObject *arg) {
    Py_ssize_t size = PyNumber_AsSsize_t(arg, PyExc_OverflowError);
    return size == -1 && PyErr_Occurred() ? NULL : loan_new((Interp *)self, size, false);
}

static PyObject *interp_run_free(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Interp *in = (Interp *)self;
    if (interp_enter(in) < 0)
        return NULL;
    int64_t n = free_run(in);
    interp_exit(in);
    return n < 0 ? NULL : PyLong_FromLongLong(n);
}

static PyObject *interp_leave_method(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return interp_leave((Interp *)self);
}

static PyObject *interp_self(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

static PyObject *interp_get_id(PyObject *self, void *Py_UNUSED(closure)) {
    Interp *in = (Interp *)self;
    if (!in->left && in->generation != in->st->generation && interp_revive(in) < 0)
        return NULL;
    return PyLong_FromLongLong(in->id);
}

static PyObject *interp_get_namespace(PyObject *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(((Interp *)self)->ns);
}

static PyObject *interp_get_left(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((Interp *)self)->left);
}

static PyObject *interp_get_ending(PyObject *self, void *Py_UNUSED(closure)) {
    Interp *in = (Interp *)self;
    if (interp_enter(in) < 0)
        return NULL;
    int status = xi_status(in->me);
    interp_exit(in);
    return PyBool_FromLong(status == XI_E_ENDING || status == XI_E_BROKER);
}

static PyObject *interp_repr(PyObject *self) {
    Interp *in = (Interp *)self;
    return PyUnicode_FromFormat("<xidata.Interpreter %lld of namespace '%s'%s>", (long long)in->id, in->ns,
                                in->left                                   ? ", left"
                                : in->generation != in->st->generation ? ", from before fork"
                                                                           : "");
}

static int interp_traverse(PyObject *self, visitproc visit, void *arg) {
    Interp *in = (Interp *)self;
    Py_VISIT(Py_TYPE(self));
    for (uint32_t i = 0; i < in->slots_size; i++)
        Py_VISIT(in->slots[i].callable);
    return 0;
}

static int interp_clear(PyObject *self) {
    Interp *in = (Interp *)self;
    for (uint32_t i = 0; i < in->slots_size; i++)
        Py_CLEAR(in->slots[i].callable); /* the slot stays taken: the library still knows its number */
    return 0;
}

static void interp_dealloc(PyObject *self) {
    Interp *in = (Interp *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    unlink_from(in);
    if (in->generation == in->st->generation && guard_close(&in->guard))
        finish(in);
    drop_callbacks(in);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

#define METHOD(name, function, flags, doc) {name, (PyCFunction)(void (*)(void))(function), flags, doc}
static PyMethodDef interp_methods[] = {
    METHOD("leave", interp_leave_method, METH_NOARGS,
           "leave($self)\n--\n\nLeave the namespace: close its channel handles and give its shared memory back. What was "
           "sent stays\ndeliverable. Views of received values stay valid; the memory goes with the last of them, and what was\n"
           "kept for values to come at once. on_free callbacks that are due are called; later ones are not."),
    METHOD("channel", interp_channel, METH_VARARGS | METH_KEYWORDS,
           "channel($self, name, **options)\n--\n\nAs xidata.channel(), of this interpreter."),
    METHOD("remove", interp_remove, METH_O, "remove($self, name, /)\n--\n\nAs xidata.remove(), of this interpreter."),
    METHOD("buffer", interp_buffer, METH_O, "buffer($self, size, /)\n--\n\nAs xidata.buffer(), of this interpreter."),
    METHOD("ref", interp_ref, METH_O,
           "ref($self, id, /)\n--\n\nHold a reference to an interpreter: one that joined with requires_ref lives while others "
           "hold one."),
    METHOD("unref", interp_unref, METH_O, "unref($self, id, /)\n--\n\nDrop a reference that ref() took."),
    METHOD("reference", interp_reference, METH_O,
           "reference($self, id, /)\n--\n\nA Reference: a reference held until its release(), its with block or its end.\n\n"
           "    >>> worker = xidata.join(name='worker', requires_ref=True)\n"
           "    >>> with xidata.join() as me, me.reference(worker.id) as held:\n"
           "    ...     worker.ending\n"
           "    False\n"
           "    >>> worker.leave()"),
    METHOD("stats", interp_stats, METH_NOARGS, "stats($self)\n--\n\nThis interpreter's counters, as a dict."),
    METHOD("run_free", interp_run_free, METH_NOARGS,
           "run_free($self)\n--\n\nCall the on_free callbacks that are due; return how many. Every send and receive does "
           "this by itself."),
    METHOD("__enter__", interp_self, METH_NOARGS, NULL),
    METHOD("__exit__", interp_leave_method, METH_VARARGS, NULL),
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef interp_getset[] = {
    {"id", interp_get_id, NULL, "The number of this interpreter, never used twice in its namespace.", NULL},
    {"namespace", interp_get_namespace, NULL, "The name of its namespace.", NULL},
    {"left", interp_get_left, NULL, "True after leave().", NULL},
    {"ending", interp_get_ending, NULL,
     "True when it was told to end: its last reference is gone (requires_ref), or the namespace was shut down.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot interp_slots[] = {
    {Py_tp_doc, "This process as a member of a namespace; made by xidata.join(). A context manager: leaves at the end."},
    {Py_tp_dealloc, interp_dealloc},
    {Py_tp_traverse, interp_traverse},
    {Py_tp_clear, interp_clear},
    {Py_tp_repr, interp_repr},
    {Py_tp_methods, interp_methods},
    {Py_tp_getset, interp_getset},
    {0, NULL},
};
PyType_Spec interp_spec = {
    "xidata.Interpreter", sizeof(Interp), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    interp_slots};
