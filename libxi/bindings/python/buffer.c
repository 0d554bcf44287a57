/* SPDX-License-Identifier: MIT */
/*
 * Memory that Python code sees through the buffer protocol.
 *
 * View: read-only bytes of a received message. It shares a Borrow with the
 * other views of the message; slices and arrays made of it keep it alive, and
 * the Borrow is released when the last has gone, in whatever thread that is.
 *
 * Loan: a writable block of this interpreter's arena, from xidata.buffer().
 * Sending it gives the block away. While somebody has it exported (a
 * memoryview, an array) it cannot be sent, because they could go on writing.
 * The loans under arrays of xidata.empty() are exported for good; who decides
 * whether those may be sent is array.c.
 */
#include "binding.h"
#include "warn.h"

/* ---------------------------------------------------------------- borrow */

void borrow_ref(Borrow *b) { atomic_fetch_add_explicit(&b->references, 1, memory_order_relaxed); }

void borrow_unref(Borrow *b) {
    if (atomic_fetch_sub_explicit(&b->references, 1, memory_order_acq_rel) != 1)
        return;
    Interp *in = b->interp;
    held_drop(&in->st->loans, &b->held);
    xi_msg_release(&b->msg);
    if (b->generation == in->st->generation)
        interp_exit(in); /* in a forked child it was never entered */
    PyMem_RawFree(b);
    Py_DECREF(in);
}

/* ------------------------------------------------------------------ view */

typedef struct {
    PyObject_HEAD
    State *st;
    Borrow *borrow;
    PyObject *copy; /* bytes that hold the memory instead */
    const char *data;
    Py_ssize_t size, itemsize;
    const char *format; /* NULL: plain bytes */
    int ndim;
    uint32_t generation;
    Py_ssize_t dims[]; /* shape, then strides */
} View;

static PyObject *new_view(State *st, Borrow *b, PyObject *copy, const void *data, size_t size, const ViewLayout *typed) {
    int ndim = typed ? typed->ndim : 1;
    View *v = PyObject_NewVar(View, st->view_type, 2 * ndim);
    if (!v)
        return NULL;
    v->st = st;
    v->borrow = b;
    if (b)
        borrow_ref(b);
    v->copy = Py_XNewRef(copy);
    v->data = data;
    v->size = (Py_ssize_t)size;
    v->itemsize = typed ? typed->itemsize : 1;
    v->format = typed ? typed->format : NULL;
    v->ndim = ndim;
    v->generation = st->generation;
    for (int i = 0; i < ndim; i++) {
        v->dims[i] = typed ? (Py_ssize_t)typed->shape[i] : (Py_ssize_t)size;
        v->dims[ndim + i] = typed ? (Py_ssize_t)typed->strides[i] : 1;
    }
    return (PyObject *)v;
}

PyObject *view_object(State *st, Borrow *b, const void *data, size_t size, const ViewLayout *typed) {
    return new_view(st, b, NULL, data, size, typed);
}

/* Steals. */
static PyObject *memoryview_of(PyObject *view) {
    PyObject *m = view ? PyMemoryView_FromObject(view) : NULL;
    Py_XDECREF(view);
    return m;
}

PyObject *view_new(State *st, Borrow *b, const void *data, size_t size, const ViewLayout *typed) {
    return memoryview_of(new_view(st, b, NULL, data, size, typed));
}

PyObject *view_of_copy(State *st, const void *data, size_t size, const ViewLayout *typed) {
    PyObject *copy = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    PyObject *view = copy ? new_view(st, NULL, copy, PyBytes_AS_STRING(copy), size, typed) : NULL;
    Py_XDECREF(copy);
    return memoryview_of(view);
}

static void view_dealloc(PyObject *self) {
    View *v = (View *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (v->borrow)
        borrow_unref(v->borrow);
    Py_XDECREF(v->copy);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* True if rows follow each other without gaps, the last index running fastest. */
static bool is_c_contiguous(const View *v) {
    Py_ssize_t step = v->itemsize;
    for (int i = v->ndim - 1; i >= 0; i--) {
        if (v->dims[i] > 1 && v->dims[v->ndim + i] != step)
            return false;
        step *= v->dims[i];
    }
    return true;
}

static int view_getbuffer(PyObject *self, Py_buffer *buffer, int flags) {
    View *v = (View *)self;
    if (v->borrow && v->generation != v->st->generation) {
        buffer->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "this view was received before fork(): its memory is the parent's");
        return -1;
    }
    if (!v->format)
        return PyBuffer_FillInfo(buffer, self, (void *)(uintptr_t)v->data, v->size, 1, flags);
    if ((flags & PyBUF_WRITABLE) || ((flags & PyBUF_STRIDES) != PyBUF_STRIDES && !is_c_contiguous(v))) {
        buffer->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "this view is read-only, and its items do not lie in C order");
        return -1;
    }
    Py_ssize_t items = 1;
    for (int i = 0; i < v->ndim; i++)
        items *= v->dims[i];
    buffer->buf = (void *)(uintptr_t)v->data;
    buffer->obj = Py_NewRef(self);
    buffer->len = items * v->itemsize;
    buffer->readonly = 1;
    buffer->itemsize = v->itemsize;
    buffer->format = (flags & PyBUF_FORMAT) ? (char *)(uintptr_t)v->format : NULL;
    buffer->ndim = v->ndim;
    buffer->shape = (flags & PyBUF_ND) ? v->dims : NULL;
    buffer->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? v->dims + v->ndim : NULL;
    buffer->suboffsets = NULL;
    buffer->internal = NULL;
    return 0;
}

static PyMethodDef view_methods[] = {DLPACK_METHODS, {NULL, NULL, 0, NULL}};
static PyType_Slot view_slots[] = {
    {Py_tp_doc, "Received bytes, lying in the sender's memory. Use memoryview(view); it is released with the last."},
    {Py_tp_methods, view_methods},
    {Py_tp_dealloc, view_dealloc},
    {Py_bf_getbuffer, view_getbuffer},
    {0, NULL},
};
PyType_Spec view_spec = {"xidata.View", sizeof(View), sizeof(Py_ssize_t),
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, view_slots};

/* ------------------------------------------------------------------ loan */

PyObject *loan_new(Interp *in, Py_ssize_t size, bool for_array) {
    State *st = in->st;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "the size of a buffer is not negative");
        return NULL;
    }
    loans_poll(st);
    if (interp_enter(in) < 0)
        return NULL;
    Loan *l = PyObject_New(Loan, st->loan_type);
    if (!l) {
        interp_exit(in);
        return NULL;
    }
    int rc;
    memset((char *)l + sizeof(PyObject), 0, sizeof *l - sizeof(PyObject));
    l->st = st;
    l->interp = (Interp *)Py_NewRef((PyObject *)in);
    l->generation = in->generation;
    l->state = LOAN_RELEASED;
    Py_BEGIN_ALLOW_THREADS
    rc = xi_loan_get(in->me, (size_t)size + LOAN_HEAD, &l->loan);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        Py_DECREF(l);
        return raise_error(st, rc);
    }
    l->state = LOAN_LIVE;
    l->handle = l->loan.handle;
    l->data = (char *)l->loan.data + LOAN_HEAD;
    l->size = size;
    if (for_array && (rc = xi_loan_hold(&l->loan, &l->hold)) < 0) {
        Py_DECREF(l);
        return raise_error(st, rc);
    }
    held_add(&st->loans, &l->held, (uint64_t)size);
    return (PyObject *)l;
}

PyObject *loan_for_array(State *st, PyObject *who, PyObject *size) {
    Py_ssize_t n = PyNumber_AsSsize_t(size, PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred())
        return NULL;
    if (who != Py_None && Py_TYPE(who) != st->interp_type) {
        PyErr_Format(PyExc_TypeError, "an interpreter is wanted, not %R", who);
        return NULL;
    }
    Interp *in = who == Py_None ? interp_current(st) : (Interp *)who;
    if (!in)
        return NULL;
    Py_INCREF(in);
    PyObject *loan = loan_new(in, n, true);
    Py_DECREF(in);
    return loan;
}

static bool from_parent(const Loan *l) { return l->generation != l->st->generation; }

bool loan_is_parents(const Loan *l) { return from_parent(l); }

/* Lets go of the block. */
static void drop_block(Loan *l) {
    if (!from_parent(l))
        xi_loan_drop(&l->loan);
    l->data = NULL;
}

static void loan_dealloc(PyObject *self) {
    Loan *l = (Loan *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (l->state == LOAN_LIVE && !l->hold.block_ && !from_parent(l)) /* arrays come and go */
        warn_unsent_loan((size_t)l->size);
    held_drop(&l->st->loans, &l->held);
    drop_block(l);
    if (!from_parent(l)) {
        xi_hold_drop(&l->hold);
        interp_exit(l->interp);
    }
    Py_DECREF(l->interp);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* 0 if its memory may be used. */
static int check_live(const Loan *l, PyObject *exception) {
    const char *why = from_parent(l)                ? "this buffer was made before fork(): it is the parent's"
                      : l->state == LOAN_SENT       ? "this buffer was sent: its memory belongs to the receivers now"
                      : l->state == LOAN_MOVING     ? "this buffer is just being sent"
                      : l->state == LOAN_RELEASED   ? "this buffer was released"
                                                    : NULL;
    if (!why)
        return 0;
    PyErr_SetString(exception, why);
    return -1;
}

static int check_exports(const Loan *l, const char *what) {
    if (l->exports == 0)
        return 0;
    PyErr_Format(PyExc_BufferError, "cannot %s this buffer while %zd views of it exist: release memoryviews (with "
                                    "memoryview(buffer) as m: ...) and delete arrays made of it first",
                 what, l->exports);
    return -1;
}

int loan_claim(Loan *l) {
    if (check_live(l, PyExc_ValueError) < 0 || check_exports(l, "send") < 0)
        return -1;
    l->state = LOAN_MOVING;
    return 0;
}

void loan_unclaim(Loan *l) {
    if (l->state == LOAN_MOVING)
        l->state = LOAN_LIVE;
}

void loan_sent(Loan *l) {
    l->state = LOAN_SENT;
    l->data = NULL;
    if (!l->hold.block_)
        held_drop(&l->st->loans, &l->held); /* it is the receivers' now; an array looks at it still */
}

static int loan_getbuffer(PyObject *self, Py_buffer *buffer, int flags) {
    Loan *l = (Loan *)self;
    buffer->obj = NULL;
    if (check_live(l, PyExc_BufferError) < 0 || PyBuffer_FillInfo(buffer, self, l->data, l->size, 0, flags) < 0)
        return -1;
    l->exports++;
    return 0;
}

static void loan_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(buffer)) { ((Loan *)self)->exports--; }

static Py_ssize_t loan_length(PyObject *self) { return ((Loan *)self)->size; }

static PyObject *loan_release(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Loan *l = (Loan *)self;
    if (l->state == LOAN_LIVE) {
        if (check_exports(l, "release") < 0)
            return NULL;
        l->state = LOAN_RELEASED;
        held_drop(&l->st->loans, &l->held);
        drop_block(l);
    }
    Py_RETURN_NONE;
}

static PyObject *loan_self(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

static PyObject *loan_repr(PyObject *self) {
    static const char *const states[] = {"writable", "being sent", "sent", "released"};
    Loan *l = (Loan *)self;
    return PyUnicode_FromFormat("<xidata.Loan of %zd bytes, %s>", l->size,
                                from_parent(l) ? "from before fork" : states[l->state]);
}

/* For a value that is pickled because of something else in it: the bytes go out of band, and arrive as a view. */
static PyObject *loan_reduce(PyObject *self, PyObject *protocol) {
    long number = PyLong_AsLong(protocol);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    if (number < 5) {
        PyErr_SetString(PyExc_TypeError, "an xidata.Loan is pickled with protocol 5 only");
        return NULL;
    }
    PyObject *buffer = pickle_buffer_of(self);
    PyObject *made = buffer ? Py_BuildValue("(O(N))", (PyObject *)&PyMemoryView_Type, buffer) : NULL;
    return made;
}

static PyObject *loan_state(PyObject *self, void *Py_UNUSED(closure)) {
    Loan *l = (Loan *)self;
    return PyBool_FromLong(l->state == LOAN_SENT && !from_parent(l));
}

static PyMethodDef loan_methods[] = {
    {"release", loan_release, METH_NOARGS,
     "release($self)\n--\n\nGive the memory back unsent. Raises BufferError while views of it exist. Idempotent."},
    {"__enter__", loan_self, METH_NOARGS, NULL},
    {"__exit__", loan_release, METH_VARARGS, NULL},
    {"__reduce_ex__", loan_reduce, METH_O, NULL},
    DLPACK_METHODS,
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef loan_getset[] = {
    {"sent", loan_state, NULL, "True once it has been sent.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMemberDef loan_members[] = {
    {"nbytes", T_PYSSIZET, offsetof(Loan, size), READONLY, "Its size in bytes."},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot loan_slots[] = {
    {Py_tp_doc, "Writable shared memory, from xidata.buffer(). Fill it through memoryview() or numpy.frombuffer(), "
                "release those, and send it: it moves to the receiver without a copy and cannot be used here any more."},
    {Py_tp_dealloc, loan_dealloc},
    {Py_tp_repr, loan_repr},
    {Py_tp_methods, loan_methods},
    {Py_tp_getset, loan_getset},
    {Py_tp_members, loan_members},
    {Py_sq_length, loan_length},
    {Py_bf_getbuffer, loan_getbuffer},
    {Py_bf_releasebuffer, loan_releasebuffer},
    {0, NULL},
};
PyType_Spec loan_spec = {"xidata.Loan", sizeof(Loan), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, loan_slots};
