/* SPDX-License-Identifier: MIT */
/*
 * Set: many channels waited on together.
 *
 * The library's set reports keys; here a key is the place of the member in a
 * table, with the number of the member that has it, so that what is reported
 * late for a member that has gone is known for what it is. Members are held:
 * a channel lives as long as it is in a set.
 *
 * close() may come while another thread waits: then the set is shut and whoever
 * leaves last frees it (the Guard). In a forked child the set is made anew on
 * first use, with the same members, whose channels open themselves again.
 */
#include "binding.h"

#define EVENTS_MOST 128 /* that one wait reports */
#define NO_PLACE UINT32_MAX

typedef struct {
    Channel *channel;  /* strong; NULL: free, and then `next` is the next free place */
    PyObject *key;     /* strong; NULL: the channel itself */
    uint32_t number;   /* of the member: never 0 */
    uint32_t want;
    int32_t priority;
    uint32_t next;
} Member;

struct Set {
    PyObject_HEAD
    State *st;
    Interp *interp;
    xi_set *h;
    Guard guard;
    uint32_t generation;
    bool closed;  /* close() was called */
    bool waiting; /* a thread is in wait() */
    Member *members;
    uint32_t size, first_free, count, last_number;
    PyObject *places; /* dict: channel to its place */
    Set *prev, *next; /* Interp.sets */
    PyObject *weakrefs;
};

/* ----------------------------------------------------------------- members */

static int more_places(Set *s) {
    uint32_t size = s->size ? 2 * s->size : 16;
    Member *members = size > s->size ? PyMem_Realloc(s->members, size * sizeof *members) : NULL;
    if (!members) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = size; i-- > s->size;) {
        members[i] = (Member){.next = s->first_free};
        s->first_free = i;
    }
    s->members = members;
    s->size = size;
    return 0;
}

/* The place of a channel, or NO_PLACE, with an exception if that could not be found out. */
static uint32_t place_of(const Set *s, PyObject *channel) {
    PyObject *place = PyDict_GetItemWithError(s->places, channel);
    return place ? (uint32_t)PyLong_AsUnsignedLong(place) : NO_PLACE;
}

/* A place for the channel, or NO_PLACE with an exception. */
static uint32_t take_place(Set *s, Channel *ch, PyObject *key, uint32_t want, int32_t priority) {
    if (s->first_free == NO_PLACE && more_places(s) < 0)
        return NO_PLACE;
    uint32_t place = s->first_free;
    PyObject *number = PyLong_FromUnsignedLong(place);
    int rc = number ? PyDict_SetItem(s->places, (PyObject *)ch, number) : -1;
    Py_XDECREF(number);
    if (rc < 0)
        return NO_PLACE;
    Member *m = &s->members[place];
    s->first_free = m->next;
    s->last_number = s->last_number == UINT32_MAX ? 1 : s->last_number + 1;
    *m = (Member){(Channel *)Py_NewRef((PyObject *)ch), Py_XNewRef(key), s->last_number, want, priority, NO_PLACE};
    s->count++;
    return place;
}

/* Empties a place. What the member held is handed over, to be dropped when the table is whole again. */
static Member give_place(Set *s, uint32_t place) {
    Member gone = s->members[place];
    s->members[place] = (Member){.next = s->first_free};
    s->first_free = place;
    s->count--;
    if (PyDict_DelItem(s->places, (PyObject *)gone.channel) < 0)
        PyErr_Clear(); /* it was not there: as good */
    return gone;
}

static void drop_member(Member *m) {
    Py_XDECREF(m->key);
    Py_XDECREF((PyObject *)m->channel);
}

static uint64_t key_of(const Set *s, uint32_t place) { return (uint64_t)s->members[place].number << 32 | place; }

/* The place that a reported key names, or NO_PLACE: its member has gone. */
static uint32_t place_of_key(const Set *s, uint64_t key) {
    uint32_t place = (uint32_t)key;
    bool current = place < s->size && s->members[place].channel && s->members[place].number == key >> 32;
    return current ? place : NO_PLACE;
}

/* -------------------------------------------------- opening, closing, entering */

static void link_in(Set *s) {
    s->prev = NULL;
    s->next = s->interp->sets;
    if (s->next)
        s->next->prev = s;
    s->interp->sets = s;
}

static void unlink_from(Set *s) {
    if (s->prev)
        s->prev->next = s->next;
    else if (s->interp->sets == s)
        s->interp->sets = s->next;
    if (s->next)
        s->next->prev = s->prev;
    s->prev = s->next = NULL;
}

/* 0 or -1 with an exception. Entering the channel may take its time (after a fork), and the table change meanwhile. */
static int add_to(Set *s, xi_set *h, uint32_t place) {
    const Member m = s->members[place];
    uint64_t key = key_of(s, place);
    Channel *ch = m.channel;
    if (channel_enter(ch) < 0)
        return -1;
    int rc = xi_set_add(h, ch->h, m.want, key, m.priority);
    if (rc < 0)
        raise_error(s->st, rc);
    channel_exit(ch);
    return rc < 0 ? -1 : 0;
}

/* Opens the library's set, with the members that there are, as far as their handles have not been freed meanwhile. */
static int open_set(Set *s) {
    xi_set *h = NULL;
    if (interp_enter(s->interp) < 0)
        return -1;
    int rc = xi_set_new(s->interp->me, &h);
    if (rc < 0) {
        raise_error(s->st, rc);
    } else {
        for (uint32_t i = 0; i < s->size && rc == 0; i++)
            if (s->members[i].channel && !s->members[i].channel->freed)
                rc = add_to(s, h, i);
    }
    if (rc < 0 || s->h) { /* or another thread was first */
        xi_set_free(h);
        interp_exit(s->interp);
        return rc < 0 ? -1 : 0;
    }
    s->h = h;
    s->generation = s->interp->generation;
    guard_reset(&s->guard);
    return 0;
}

static void finish(Set *s) {
    xi_set *h = s->h;
    s->h = NULL;
    if (!h)
        return;
    Py_BEGIN_ALLOW_THREADS
    xi_set_free(h);
    Py_END_ALLOW_THREADS
    interp_exit(s->interp);
}

static int set_enter(Set *s) {
    bool must_finish = false;
    if (!s->closed && s->generation != s->st->generation && open_set(s) < 0)
        return -1;
    if (!s->closed && guard_enter(&s->guard, &must_finish))
        return 0;
    if (must_finish)
        finish(s);
    PyErr_SetString(s->st->errors[-XI_E_LEFT], "this set was closed");
    return -1;
}

static void set_exit(Set *s) {
    if (guard_leave(&s->guard))
        finish(s);
}

static void drop_members(Set *s) {
    for (uint32_t i = 0; i < s->size; i++)
        if (s->members[i].channel) {
            Member gone = give_place(s, i);
            drop_member(&gone);
        }
}

void set_close_handle(Set *s) {
    bool must_finish;
    unlink_from(s);
    s->closed = true;
    if (s->generation != s->st->generation || !guard_enter(&s->guard, &must_finish))
        return; /* the parent's; or somebody else is at it */
    (void)guard_close(&s->guard);
    if (s->h)
        xi_set_shut(s->h); /* who waits inside comes out, and frees it; a duplicate of the descriptor is readable for good */
    if (guard_leave(&s->guard))
        finish(s);
}

void sets_forget_parent(Interp *in) {
    for (Set *s = in->sets; s; s = s->next) {
        xi_set *h = s->h;
        s->h = NULL;
        s->waiting = false;
        if (h)
            xi_set_free(h); /* in a child: memory alone */
        guard_reset(&s->guard);
    }
}

static PyObject *set_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"interpreter", NULL};
    State *st = PyType_GetModuleState(type);
    PyObject *given = Py_None;
    if (!st || !PyArg_ParseTupleAndKeywords(args, keywords, "|$O:Set", names, &given))
        return NULL;
    if (given != Py_None && Py_TYPE(given) != st->interp_type) {
        PyErr_Format(PyExc_TypeError, "interpreter is an xidata.Interpreter or None, not %s", TYPE_NAME(Py_TYPE(given)));
        return NULL;
    }
    Interp *in = given == Py_None ? interp_current(st) : (Interp *)given;
    Set *s = in ? PyObject_GC_New(Set, type) : NULL;
    if (!s)
        return NULL;
    memset((char *)s + sizeof(PyObject), 0, sizeof *s - sizeof(PyObject));
    s->st = st;
    s->interp = (Interp *)Py_NewRef((PyObject *)in);
    s->first_free = NO_PLACE;
    s->closed = true; /* until it is open */
    s->places = PyDict_New();
    PyObject_GC_Track(s);
    if (!s->places || open_set(s) < 0) {
        Py_DECREF(s);
        return NULL;
    }
    s->closed = false;
    link_in(s);
    return (PyObject *)s;
}

/* ------------------------------------------------------- adding and removing */

static int is_channel(const Set *s, PyObject *o) {
    if (Py_TYPE(o) == s->st->channel_type)
        return 0;
    PyErr_Format(PyExc_TypeError, "a set holds xidata.Channel objects, not %s", TYPE_NAME(Py_TYPE(o)));
    return -1;
}

static int add(Set *s, Channel *ch, PyObject *key, uint32_t want, int32_t priority) {
    if (place_of(s, (PyObject *)ch) != NO_PLACE) {
        PyErr_Format(PyExc_ValueError, "channel '%s' is in the set already: remove() this handle first", ch->name);
        return -1;
    }
    uint32_t place = PyErr_Occurred() ? NO_PLACE : take_place(s, ch, key, want, priority);
    if (place == NO_PLACE)
        return -1;
    uint64_t given = key_of(s, place);
    if (add_to(s, s->h, place) == 0)
        return 0;
    if (place_of_key(s, given) == place) {
        Member gone = give_place(s, place);
        drop_member(&gone);
    }
    return -1;
}

static PyObject *set_add(PyObject *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"channel", "recv", "send", "key", "priority", NULL};
    Set *s = (Set *)self;
    PyObject *channel, *recv = Py_None, *key = Py_None;
    int send = 0, priority = 0, rc;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|$OpOi:add", names, &channel, &recv, &send, &key, &priority) ||
        is_channel(s, channel) < 0)
        return NULL;
    int receive = recv == Py_None ? !send : PyObject_IsTrue(recv);
    if (receive < 0)
        return NULL;
    if (!receive && !send) {
        PyErr_SetString(PyExc_ValueError, "recv=False without send=True waits for nothing");
        return NULL;
    }
    if (set_enter(s) < 0)
        return NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    rc = add(s, (Channel *)channel, key == Py_None ? NULL : key,
             (receive ? XI_READY_RECV : 0) | (send ? XI_READY_SEND : 0), priority);
    Py_END_CRITICAL_SECTION();
    set_exit(s);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* -1 with an exception. */
static int take_out(Set *s, Channel *ch, Member *gone) {
    uint32_t place = place_of(s, (PyObject *)ch);
    if (place == NO_PLACE) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_KeyError, "channel '%s' is not in the set", ch->name);
        return -1;
    }
    *gone = give_place(s, place);
    if (ch->freed || channel_enter(ch) < 0) {
        PyErr_Clear(); /* its handle was freed, so it is in the library's set no more */
        return 0;
    }
    int rc = xi_set_remove(s->h, ch->h);
    if (rc < 0 && rc != XI_E_NOENT)
        raise_error(s->st, rc);
    channel_exit(ch);
    return rc < 0 && rc != XI_E_NOENT ? -1 : 0;
}

static PyObject *set_remove(PyObject *self, PyObject *channel) {
    Set *s = (Set *)self;
    Member gone = {0};
    int rc;
    if (is_channel(s, channel) < 0 || set_enter(s) < 0)
        return NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    rc = take_out(s, (Channel *)channel, &gone);
    Py_END_CRITICAL_SECTION();
    set_exit(s);
    drop_member(&gone);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------------ waiting */

/* xidata.Ready(bits): borrowed, or NULL with an exception. */
static PyObject *ready_object(State *st, uint32_t bits) {
    bits &= XI_READY_ALL;
    if (!st->ready[bits] && load_attribute(&st->ready_type, "xidata", "Ready") == 0)
        st->ready[bits] = PyObject_CallFunction(st->ready_type, "I", (unsigned)bits);
    return st->ready[bits];
}

/* Appends (key or channel, Ready). -1 with an exception. */
static int append_event(Set *s, PyObject *list, uint32_t place, uint32_t ready) {
    const Member *m = &s->members[place];
    PyObject *label = Py_NewRef(m->key ? m->key : (PyObject *)m->channel); /* `m` may be gone when Ready was loaded */
    PyObject *bits = ready_object(s->st, ready);
    PyObject *event = bits ? PyTuple_Pack(2, label, bits) : NULL;
    int rc = event ? PyList_Append(list, event) : -1;
    Py_DECREF(label);
    Py_XDECREF(event);
    return rc;
}

/* Members whose channel has values that an interrupted call had received already: the library knows nothing of those. */
static int append_stashed(Set *s, PyObject *list) {
    int rc = 0;
    for (uint32_t i = 0; i < s->size && rc == 0; i++) {
        const Member *m = &s->members[i];
        if (m->channel && (m->want & XI_READY_RECV) && m->channel->stash_count)
            rc = append_event(s, list, i, XI_READY_RECV);
    }
    return rc;
}

/* What the library reported. A handle that was freed leaves the set with its report. */
static int append_events(Set *s, PyObject *list, const xi_event *events, size_t n) {
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        uint32_t place = place_of_key(s, events[i].key);
        if (place == NO_PLACE || (s->members[place].channel->stash_count && events[i].ready == XI_READY_RECV))
            continue;
        rc = append_event(s, list, place, events[i].ready);
        if (rc == 0 && events[i].ready & XI_READY_LEFT) {
            Member gone = give_place(s, place);
            drop_member(&gone);
        }
    }
    return rc;
}

/* One call after the other until something is ready, or the time is over. How many, an enum xi_error, or XI_RAISED. */
static int64_t wait_for(Set *s, xi_event *events, int64_t timeout) {
    int64_t r = xi_set_wait(s->h, events, EVENTS_MOST, XI_TRY), left = timeout;
    if (r == XI_E_FORKED) { /* a child that CPython did not make: os.fork runs the hook */
        state_forked(s->st);
        if (set_enter(s) < 0)
            return XI_RAISED;
    } else if (r != XI_E_INTR && (r != XI_E_AGAIN || timeout == XI_TRY)) {
        return r;
    }
    Deadline deadline = deadline_in(timeout);
    for (;;) {
        xi_set *h = s->h;
        int64_t slice = left < 0 || left > WAIT_SLICE ? WAIT_SLICE : left;
        Py_BEGIN_ALLOW_THREADS
        r = xi_set_wait(h, events, EVENTS_MOST, slice);
        Py_END_ALLOW_THREADS
        if (r != XI_E_INTR && !(r == XI_E_TIMEOUT && slice != left))
            return r;
        if (interrupted(s->interp) < 0)
            return XI_RAISED;
        left = deadline_left(&deadline);
    }
}

/* The set is entered, and this thread the one that waits. A list, or NULL with an exception. */
static PyObject *wait_as_list(Set *s, int64_t timeout) {
    xi_event events[EVENTS_MOST];
    PyObject *list = PyList_New(0);
    if (!list || free_poll(s->interp) < 0 || (s->st->stashed && append_stashed(s, list) < 0)) {
        Py_XDECREF(list);
        return NULL;
    }
    int64_t r = wait_for(s, events, PyList_GET_SIZE(list) ? XI_TRY : timeout);
    int rc = 0;
    if (r > 0) {
        Py_BEGIN_CRITICAL_SECTION(s);
        rc = append_events(s, list, events, (size_t)r);
        Py_END_CRITICAL_SECTION();
    } else if (r != XI_E_AGAIN && r != XI_E_TIMEOUT) {
        raise_error(s->st, r);
        rc = -1;
    }
    if (rc < 0)
        Py_CLEAR(list);
    return list;
}

static PyObject *set_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    Set *s = (Set *)self;
    PyObject *const names[] = {s->st->s_timeout, NULL};
    PyObject *value[1] = {NULL};
    int64_t timeout;
    if (parse_arguments("wait", args, nargs, kwnames, 0, names, value) < 0 || parse_timeout(value[0], &timeout) < 0 ||
        set_enter(s) < 0)
        return NULL;
    PyObject *list = NULL;
    if (s->waiting) {
        PyErr_SetString(PyExc_RuntimeError, "another thread waits on this set: each thread needs a set of its own");
    } else {
        s->waiting = true;
        list = wait_as_list(s, timeout);
        s->waiting = false;
    }
    set_exit(s);
    return list;
}

static PyObject *set_fileno(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Set *s = (Set *)self;
    if (set_enter(s) < 0)
        return NULL;
    int fd = xi_set_fd(s->h);
    if (fd < 0)
        raise_error(s->st, fd);
    set_exit(s);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

/* ------------------------------------------------------------------ the rest */

static PyObject *set_close(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Set *s = (Set *)self;
    if (!s->closed) {
        Py_INCREF(s);
        set_close_handle(s);
        drop_members(s);
        Py_DECREF(s);
    }
    Py_RETURN_NONE;
}

static PyObject *set_self(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }
static PyObject *set_get_closed(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((Set *)self)->closed);
}
static Py_ssize_t set_length(PyObject *self) { return ((Set *)self)->count; }

static int set_contains(PyObject *self, PyObject *o) {
    Set *s = (Set *)self;
    if (Py_TYPE(o) != s->st->channel_type)
        return 0;
    uint32_t place = place_of(s, o);
    return place != NO_PLACE ? 1 : PyErr_Occurred() ? -1 : 0;
}

static PyObject *set_repr(PyObject *self) {
    Set *s = (Set *)self;
    return PyUnicode_FromFormat("<xidata.Set of %u channels%s>", s->count, s->closed ? ", closed" : "");
}

static int set_traverse(PyObject *self, visitproc visit, void *arg) {
    Set *s = (Set *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(s->interp);
    Py_VISIT(s->places);
    for (uint32_t i = 0; i < s->size; i++) {
        Py_VISIT(s->members[i].channel);
        Py_VISIT(s->members[i].key);
    }
    return 0;
}

/* In a cycle through a key: the set is nobody's any more. */
static int set_clear(PyObject *self) {
    Set *s = (Set *)self;
    if (!s->closed)
        set_close_handle(s);
    if (s->places)
        drop_members(s);
    return 0;
}

static void set_dealloc(PyObject *self) {
    Set *s = (Set *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    unlink_from(s); /* who leaves in another thread finds none that is going */
    if (s->weakrefs)
        PyObject_ClearWeakRefs(self);
    (void)set_clear(self);
    Py_XDECREF(s->places);
    PyMem_Free(s->members);
    Py_DECREF(s->interp);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

#define METHOD(name, function, flags, doc) {name, (PyCFunction)(void (*)(void))(function), flags, doc}
static PyMethodDef set_methods[] = {
    METHOD("add", set_add, METH_VARARGS | METH_KEYWORDS,
           "add($self, channel, *, recv=None, send=False, key=None, priority=0)\n--\n\n"
           "From now on wait() reports this handle when there is something to receive (recv; the default without send), or\n"
           "room for a small value (send), and how the channel ends. key: what wait() reports in place of the channel.\n"
           "priority: of several that are ready, higher ones come first."),
    METHOD("remove", set_remove, METH_O, "remove($self, channel, /)\n--\n\nTake a handle out. KeyError if it is not in the set."),
    METHOD("wait", set_wait, METH_FASTCALL | METH_KEYWORDS,
           "wait($self, timeout=None)\n--\n\n"
           "Wait until something is ready: a list of (key or channel, Ready); empty when the time ran out. What is ready is\n"
           "reported until it is not. Receive with timeout=0, since another may have been faster.\n\n"
           "    >>> ch = xidata.channel('jobs')\n"
           "    >>> with xidata.Set() as s:\n"
           "    ...     s.add(ch)\n"
           "    ...     ch.send('job')\n"
           "    ...     for channel, ready in s.wait():\n"
           "    ...         if ready & xidata.Ready.RECV:\n"
           "    ...             print(channel.recv(0))\n"
           "    job"),
    METHOD("fileno", set_fileno, METH_NOARGS,
           "fileno($self)\n--\n\nA descriptor that is readable when wait() may have something to report: for select, poll, "
           "asyncio.\nAfter that call wait(0) until it returns an empty list."),
    METHOD("close", set_close, METH_NOARGS,
           "close($self)\n--\n\nGive the set back; the channels stay as they are. Idempotent. Who waits on it gets Left."),
    METHOD("__enter__", set_self, METH_NOARGS, NULL),
    METHOD("__exit__", set_close, METH_VARARGS, NULL),
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef set_getset[] = {
    {"closed", set_get_closed, NULL, "True after close().", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMemberDef set_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Set, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot set_slots[] = {
    {Py_tp_doc, "Set(*, interpreter=None)\n--\n\nChannels that one thread waits on together. A context manager."},
    {Py_tp_new, set_new},
    {Py_tp_dealloc, set_dealloc},
    {Py_tp_traverse, set_traverse},
    {Py_tp_clear, set_clear},
    {Py_tp_repr, set_repr},
    {Py_tp_methods, set_methods},
    {Py_tp_getset, set_getset},
    {Py_tp_members, set_members},
    {Py_sq_length, set_length},
    {Py_sq_contains, set_contains},
    {0, NULL},
};
PyType_Spec set_spec = {"xidata.Set", sizeof(Set), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, set_slots};
