/* SPDX-License-Identifier: MIT */
/*
 * Objects to values, in one pass over the object.
 *
 * Exact types only: a subclass, or anything without a native form, makes the
 * whole value a pickle (protocol 5), which keeps identity between its parts and
 * survives cycles. Nothing is remembered about objects already met: a list that
 * is contained twice is encoded twice. What could go wrong with that is ruled
 * out by two cheap looks: a container that contains itself is found among those
 * around it, and after some millions of containers that others refer to as well
 * (only those can be met twice) the pickle, which does remember, takes over.
 *
 * Where the bytes go: small trees into the encoder itself, larger ones onto the
 * heap, and with a large str or bytes in them into a loan at once, so that large
 * bytes are copied once. Buffers and arrays lie outside the tree: their places
 * are left open, and encoder_place() puts everything into one block.
 */
#include "binding.h"

#define LARGE_LEAF ((size_t)1 << 18)
#define LARGE_COPY ((size_t)1 << 20)
#define OUTSIDE_LEAST 4096u        /* smaller buffers of a pickle travel inside */
#define SHARED_MOST (4u << 20)     /* containers that others refer to, before the pickle takes over */
#define ENCODE_LONG 2              /* 4 GiB or more: begin again with long containers */
#define ALIGN64(n) (((n) + 63) & ~(uint64_t)63)

__attribute__((noinline)) void copy_bytes(void *to, const void *from, size_t n) {
    if (XI_LIKELY(n < LARGE_COPY)) {
        memcpy(to, from, n);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    memcpy(to, from, n);
    Py_END_ALLOW_THREADS
}

int load_attribute(PyObject **where, const char *module, const char *name) {
    if (XI_LIKELY(*where != NULL))
        return 0;
    PyObject *m = PyImport_ImportModule(module);
    PyObject *o = m ? PyObject_GetAttrString(m, name) : NULL;
    Py_XDECREF(m);
    if (!o)
        return -1;
    if (*where)
        Py_DECREF(o); /* another thread was first */
    else
        *where = o;
    return 0;
}

int load_type(PyTypeObject **where, const char *module, const char *name) {
    PyObject *o = (PyObject *)*where;
    if (load_attribute(&o, module, name) < 0)
        return -1;
    if (!PyType_Check(o)) {
        PyErr_Format(PyExc_TypeError, "%s.%s is not a type", module, name);
        return -1;
    }
    *where = (PyTypeObject *)o;
    return 0;
}

/* ------------------------------------------------------------- the memory */

void encoder_init(Encoder *e, Channel *ch) {
    e->st = ch->st;
    e->ch = ch;
    e->interp = ch->interp;
    e->heap = NULL;
    e->outside = NULL;
    e->outside_count = e->outside_size = 0;
    e->shared = e->depth = 0;
    e->in_loan = false;
    e->refuse_pickle = ch->refuse_pickle;
    e->replacing = false;
    e->why = NULL;
    e->met = NULL;
    xi_builder_init(&e->b, e->first, sizeof e->first, 0);
}

/* Gives a loan back that was to be sent: its block may have been attached to the root. */
static void give_back(Encoder *e, Outside *o) {
    Loan *l = o->loan;
    if (l->state != LOAN_MOVING)
        return; /* sent; or in the value twice and given back already */
    if (!l->loan.data && xi_loan_detach(&e->loan, &l->handle, &l->loan) < 0)
        return; /* in a forked child alone: it is the parent's */
    loan_unclaim(l);
    if (o->thaw) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        if (array_set_writable(e->st, o->keep, true) < 0)
            PyErr_WriteUnraisable(o->keep);
        PyErr_Restore(type, value, traceback);
    }
}

void encoder_sent(Encoder *e) {
    for (uint32_t i = 0; i < e->outside_count; i++)
        if (e->outside[i].loan)
            loan_sent(e->outside[i].loan);
}

static void clear_outside(Encoder *e) {
    for (uint32_t i = 0; i < e->outside_count; i++) {
        Outside *o = &e->outside[i];
        if (o->view.obj)
            PyBuffer_Release(&o->view);
        if (o->loan) {
            give_back(e, o);
            Py_DECREF(o->loan);
        }
        Py_XDECREF(o->keep);
    }
    PyMem_Free(e->outside);
    e->outside = NULL;
    e->outside_count = e->outside_size = 0;
}

void encoder_clear(Encoder *e) {
    if (XI_UNLIKELY(e->outside != NULL))
        clear_outside(e);
    if (XI_UNLIKELY(e->met != NULL))
        Py_CLEAR(e->met);
    if (XI_UNLIKELY(e->heap != NULL))
        PyMem_RawFree(e->heap);
    if (XI_UNLIKELY(e->in_loan))
        xi_loan_drop(&e->loan);
    e->heap = NULL;
    e->in_loan = false;
}

static void restart(Encoder *e, uint32_t flags) {
    encoder_clear(e);
    e->depth = e->shared = 0;
    xi_builder_init(&e->b, e->first, sizeof e->first, flags);
}

static int get_loan(Encoder *e, size_t size, xi_loan *loan) {
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = xi_loan_get(e->interp->me, size, loan);
    Py_END_ALLOW_THREADS
    if (rc < 0)
        raise_error(e->st, rc);
    return rc < 0 ? -1 : 0;
}

/* Moves the tree into a loan of at least `size` bytes. */
static int move_to_loan(Encoder *e, size_t size) {
    xi_loan loan;
    if (get_loan(e, size, &loan) < 0)
        return -1;
    copy_bytes(loan.data, e->b.buffer, e->b.length);
    PyMem_RawFree(e->heap);
    e->heap = NULL;
    if (e->in_loan)
        xi_loan_drop(&e->loan);
    e->loan = loan;
    e->in_loan = true;
    e->b.buffer = loan.data;
    e->b.capacity = loan.size;
    return 0;
}

int encoder_grow(Encoder *e, size_t need) {
    size_t length = e->b.length, want;
    if (__builtin_add_overflow(length, need, &want) || want > (size_t)PY_SSIZE_T_MAX / 2) {
        PyErr_NoMemory();
        return -1;
    }
    if (e->in_loan || need >= LARGE_LEAF)
        return move_to_loan(e, e->depth || e->in_loan ? want + want / 4 + 65536 : want);
    size_t capacity = want < 2 * e->b.capacity ? 2 * e->b.capacity : want;
    uint8_t *grown = PyMem_RawRealloc(e->heap, capacity);
    if (!grown) {
        PyErr_NoMemory();
        return -1;
    }
    if (!e->heap)
        memcpy(grown, e->first, length);
    e->heap = e->b.buffer = grown;
    e->b.capacity = capacity;
    return 0;
}

int encoder_error(Encoder *e, int error) {
    if (error == XI_E_DEPTH) {
        e->why = "it is nested more than 256 levels deep";
        return ENCODE_PICKLE;
    }
    if (error == XI_E_TOOBIG && !(e->b.flags & XI_BUILD_LONG))
        return ENCODE_LONG;
    if (error == XI_E_INVAL)
        PyErr_SetString(PyExc_RuntimeError, "a container changed its size while it was being sent");
    else
        raise_error(e->st, error);
    return -1;
}

/* --------------------------------------------------------------- scalars */

#define PUT(e, call)                                                                                                   \
    do {                                                                                                               \
        int error_ = (call);                                                                                           \
        return XI_UNLIKELY(error_ != 0) ? encoder_error((e), error_) : 0;                                              \
    } while (0)

static int encode_big_int(Encoder *e, PyObject *obj) {
    uint8_t small[256], *bytes = small;
    size_t n = int_bytes(obj);
    if (n == (size_t)-1 && PyErr_Occurred())
        return -1;
    if (encoder_room(e, XI_SIZE_BYTES(n)) < 0)
        return -1;
    if (n > sizeof small && !(bytes = PyMem_Malloc(n))) {
        PyErr_NoMemory();
        return -1;
    }
    int rc = int_to_bytes(obj, bytes, n);
    int error = rc < 0 ? 0 : xi_put_bigint(&e->b, bytes, n);
    if (bytes != small)
        PyMem_Free(bytes);
    return rc < 0 ? -1 : error ? encoder_error(e, error) : 0;
}

static int encode_int(Encoder *e, PyObject *obj) {
    int overflow;
    long long v = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (XI_UNLIKELY(overflow))
        return encode_big_int(e, obj);
    if (encoder_room(e, XI_SIZE_SCALAR) < 0)
        return -1;
    PUT(e, xi_put_int(&e->b, v));
}

static int encode_float(Encoder *e, PyObject *obj) {
    if (encoder_room(e, XI_SIZE_SCALAR) < 0)
        return -1;
    PUT(e, xi_put_float(&e->b, PyFloat_AS_DOUBLE(obj)));
}

static int encode_complex(Encoder *e, PyObject *obj) {
    if (encoder_room(e, XI_SIZE_SCALAR) < 0)
        return -1;
    PUT(e, xi_put_complex(&e->b, PyComplex_RealAsDouble(obj), PyComplex_ImagAsDouble(obj)));
}

/* `from` stays where it is meanwhile: of a bytes object, or of an exported buffer. */
static int encode_bytes(Encoder *e, const void *from, size_t n, uint32_t flags) {
    void *where;
    if (encoder_room(e, XI_SIZE_BYTES(n)) < 0)
        return -1;
    int error = xi_put_bytes_space(&e->b, flags, n, &where);
    if (error)
        return encoder_error(e, error);
    copy_bytes(where, from, n);
    return 0;
}

static int encode_bytearray(Encoder *e, PyObject *obj) {
    Py_buffer view; /* so that it cannot be resized while large ones are copied without the GIL */
    if (PyObject_GetBuffer(obj, &view, PyBUF_SIMPLE) < 0)
        return -1;
    int rc = encode_bytes(e, view.buf, (size_t)view.len, XI_F_MUTABLE);
    PyBuffer_Release(&view);
    return rc;
}

/* ------------------------------------------------------------ containers */

/* Opens a container: 0, ENCODE_PICKLE if it is inside itself, or -1. */
static int open_container(Encoder *e, PyObject *obj, enum xi_tag tag, Py_ssize_t count) {
    if (Py_REFCNT(obj) > 1) { /* others could be met again */
        for (uint32_t i = 0; i < e->depth; i++)
            if (e->path[i] == obj) {
                e->why = "it contains itself";
                return ENCODE_PICKLE;
            }
        if (++e->shared > SHARED_MOST) {
            e->why = "it refers to the same containers too often to be encoded piece by piece";
            return ENCODE_PICKLE;
        }
    }
    size_t children = (size_t)count * (tag == XI_DICT ? 2 : 1);
    if (encoder_room(e, 32 + 8 * children) < 0)
        return -1;
    int error = xi_begin(&e->b, tag, (uint64_t)count);
    if (XI_UNLIKELY(error))
        return encoder_error(e, error);
    e->path[e->depth++] = obj;
    return 0;
}

static int close_container(Encoder *e) {
    e->depth--;
    PUT(e, xi_end(&e->b));
}

/*
 * Numbers inside containers, without a call: their words are written as docs/value-format.md has them, and the builder
 * moved on as xi_put_int() and xi_put_float() would. False: not such a number, or something that those have to tell.
 */
static inline uint8_t *claim(xi_builder *b, size_t size) {
    if (XI_UNLIKELY(b->error || b->capacity - b->length < size || !b->level[b->depth].remaining))
        return NULL;
    uint8_t *at = b->buffer + b->length;
    b->length += size;
    b->level[b->depth].remaining--;
    return at;
}

static inline bool encode_number(Encoder *e, PyObject *obj) {
    uint8_t *at;
    if (PyLong_CheckExact(obj)) {
        int overflow;
        long long v = PyLong_AsLongLongAndOverflow(obj, &overflow);
        if (overflow || v != (int32_t)v || !(at = claim(&e->b, 8)))
            return false;
        uint64_t word = XI_INT32 | (uint64_t)(uint32_t)v << 32;
        memcpy(at, &word, sizeof word);
        return true;
    }
    if (PyFloat_CheckExact(obj)) {
        double v = PyFloat_AS_DOUBLE(obj);
        uint64_t head = XI_FLOAT | (uint64_t)16 << 32;
        if (!(at = claim(&e->b, 16)))
            return false;
        memcpy(at, &head, sizeof head);
        memcpy(at + 8, &v, sizeof v);
        return true;
    }
    return false;
}

static int encode_tuple(Encoder *e, PyObject *obj) {
    Py_ssize_t n = PyTuple_GET_SIZE(obj);
    int rc = open_container(e, obj, XI_TUPLE, n);
    for (Py_ssize_t i = 0; i < n && rc == 0; i++) {
        PyObject *item = PyTuple_GET_ITEM(obj, i);
        if (!encode_number(e, item))
            rc = encode(e, item);
    }
    return rc ? rc : close_container(e);
}

static int encode_list(Encoder *e, PyObject *obj) {
    Py_ssize_t n = PyList_GET_SIZE(obj);
    int rc = open_container(e, obj, XI_LIST, n);
    for (Py_ssize_t i = 0; i < n && rc == 0; i++) {
#ifdef Py_GIL_DISABLED
        PyObject *item = PyList_GetItemRef(obj, i);
        if (!item)
            return -1;
#else
        if (XI_UNLIKELY(i >= PyList_GET_SIZE(obj)))
            return encoder_error(e, XI_E_INVAL);
        PyObject *item = PyList_GET_ITEM(obj, i);
        if (encode_number(e, item))
            continue;
        Py_INCREF(item);
#endif
        rc = encode(e, item);
        Py_DECREF(item);
    }
    if (rc == 0 && XI_UNLIKELY(PyList_GET_SIZE(obj) != n))
        return encoder_error(e, XI_E_INVAL);
    return rc ? rc : close_container(e);
}

static int encode_set(Encoder *e, PyObject *obj, enum xi_tag tag) {
    int rc = open_container(e, obj, tag, PySet_GET_SIZE(obj));
    if (rc)
        return rc;
    PyObject *iterator = PyObject_GetIter(obj), *item;
    if (!iterator)
        return -1;
    while (rc == 0 && (item = PyIter_Next(iterator))) {
        rc = encode(e, item);
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    if (rc == 0 && PyErr_Occurred())
        return -1;
    return rc ? rc : close_container(e);
}

static int encode_items(Encoder *e, PyObject *obj) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    int rc = 0;
    while (rc == 0 && PyDict_Next(obj, &at, &key, &value)) {
        Py_INCREF(key);
        Py_INCREF(value);
        rc = encode(e, key);
        if (rc == 0 && !encode_number(e, value))
            rc = encode(e, value);
        Py_DECREF(key);
        Py_DECREF(value);
    }
    return rc;
}

static int encode_dict(Encoder *e, PyObject *obj) {
    Py_ssize_t n = PyDict_GET_SIZE(obj);
    int rc = open_container(e, obj, XI_DICT, n);
    if (rc)
        return rc;
    Py_BEGIN_CRITICAL_SECTION(obj);
    rc = encode_items(e, obj);
    Py_END_CRITICAL_SECTION();
    if (rc == 0 && PyDict_GET_SIZE(obj) != n)
        return encoder_error(e, XI_E_INVAL);
    return rc ? rc : close_container(e);
}

/* --------------------------------------------------------------- outside */

Outside *encoder_outside(Encoder *e, uint64_t size, uint32_t flags) {
    if (e->outside_count == e->outside_size) {
        uint32_t grown = e->outside_size ? 2 * e->outside_size : 8;
        Outside *more = PyMem_Realloc(e->outside, grown * sizeof *more);
        if (!more) {
            PyErr_NoMemory();
            return NULL;
        }
        e->outside = more;
        e->outside_size = grown;
    }
    if (encoder_room(e, 64) < 0)
        return NULL;
    Outside *o = &e->outside[e->outside_count];
    memset(o, 0, sizeof *o);
    o->at = e->b.length;
    o->size = size;
    o->flags = flags;
    xi_buffer_ref open = {{0, 0, 0}, 0, size}; /* the block is filled in by encoder_place() */
    int error = xi_put_buffer(&e->b, &open, flags);
    if (error) {
        if (encoder_error(e, error) >= 0)
            PyErr_SetString(PyExc_RuntimeError, "a value of this size cannot refer to buffers");
        return NULL;
    }
    e->outside_count++;
    return o;
}

static int encode_loan(Encoder *e, PyObject *obj) {
    Loan *l = (Loan *)obj;
    bool again = false;
    for (uint32_t i = 0; i < e->outside_count; i++)
        again |= e->outside[i].loan == l;
    if (!again && l->interp != e->interp) {
        PyErr_SetString(e->st->errors[-XI_E_INVAL], "this buffer belongs to another interpreter than the channel: "
                                                    "make it with the channel's own interpreter");
        return -1;
    }
    if (!again && loan_claim(l) < 0)
        return -1;
    Outside *o = encoder_outside(e, (uint64_t)l->size, 0);
    if (!o) {
        if (!again)
            loan_unclaim(l);
        return -1;
    }
    o->loan = (Loan *)Py_NewRef(obj);
    return 0;
}

int encode_array_loan(Encoder *e, Loan *l, PyObject *array, bool writable) {
    if (encode_loan(e, (PyObject *)l) < 0)
        return -1;
    Outside *o = &e->outside[e->outside_count - 1];
    o->keep = Py_NewRef(array);
    if (!writable)
        return 0;
    o->thaw = true; /* if what follows fails, clear_outside() sees to it */
    return array_set_writable(e->st, array, false);
}

static int encode_memoryview(Encoder *e, PyObject *obj) {
    Py_buffer view;
    if (PyObject_GetBuffer(obj, &view, PyBUF_FULL_RO) < 0)
        return -1;
    Outside *o = NULL;
    if (view.ndim != 1 || view.itemsize != 1 || (view.format && strcmp(view.format, "B") != 0))
        PyErr_Format(PyExc_TypeError,
                     "a memoryview of format '%s' with %d dimensions would arrive as something else: send "
                     "view.cast('B'), or numpy.asarray(view), or view.tolist()",
                     view.format ? view.format : "B", view.ndim);
    else
        o = encoder_outside(e, (uint64_t)view.len, 0);
    if (o)
        o->view = view;
    else
        PyBuffer_Release(&view);
    return o ? 0 : -1;
}

/* ---------------------------------------------------------------- pickle */

/* A buffer that is all of a loan, or of an array of xidata.empty(), moves. ENCODE_COPY: it is neither. */
#define ENCODE_COPY 3
static int encode_pickled_loan(Encoder *e, PyObject *buffer, const PickledMemory *whole) {
    PyObject *owner = whole->owner;
    Loan *l = NULL;
    bool alone = false, is_array = false;
    if (owner && Py_TYPE(owner) == e->st->loan_type) {
        l = whole->length == ((Loan *)owner)->size ? (Loan *)owner : NULL;
        alone = true;
    } else if (owner && array_is_exact_type(e->st, Py_TYPE(owner))) {
        l = array_loan(e->st, owner, whole->data, (uint64_t)whole->length, &alone);
        is_array = true;
    }
    if (!l && PyErr_Occurred())
        return -1;
    if (!l || !alone || (is_array && l->interp != e->interp))
        return ENCODE_COPY;
    Py_INCREF(l);
    Py_INCREF(owner);
    int rc = pickle_buffer_release(buffer) < 0 ? -1
             : is_array                        ? encode_array_loan(e, l, owner, whole->writable)
                                               : encode_loan(e, (PyObject *)l);
    Py_DECREF(owner);
    Py_DECREF(l);
    return rc;
}

/* One out-of-band buffer of a pickle. */
static int encode_pickle_buffer(Encoder *e, PyObject *buffer) {
    PickledMemory whole;
    if (pickle_buffer_look(buffer, &whole) < 0)
        return -1;
    if (whole.contiguous) {
        int rc = encode_pickled_loan(e, buffer, &whole);
        if (rc != ENCODE_COPY)
            return rc;
    }
    PyObject *raw = PyObject_CallMethod(buffer, "raw", NULL); /* flat bytes, whichever order the array was in */
    Py_buffer view;
    if (!raw || PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE) < 0) {
        Py_XDECREF(raw);
        return -1;
    }
    Py_DECREF(raw); /* the view holds it */
    if (view.len >= (Py_ssize_t)OUTSIDE_LEAST) {
        Outside *o = encoder_outside(e, (uint64_t)view.len, 0);
        if (o) {
            o->view = view;
            return 0;
        }
        PyBuffer_Release(&view);
        return -1;
    }
    int rc = encode_bytes(e, view.buf, (size_t)view.len, 0);
    PyBuffer_Release(&view);
    return rc;
}

static int load_pickle(State *st) {
    return load_attribute(&st->pickle_dumps, "pickle", "dumps") < 0 ||
                   load_attribute(&st->pickle_loads, "pickle", "loads") < 0
               ? -1
               : 0;
}

/* True if xidata.register() told of types, which are then pickled as they would be sent. */
static bool has_codecs(State *st) {
    if (!st->plans)
        return false;
    return (st->search_path && PyTuple_GET_SIZE(st->search_path) > 0) ||
           load_attribute(&st->codecs, "xidata._types", "CODECS") < 0 || PyDict_GET_SIZE(st->codecs) > 0;
}

/* pickle.dumps(obj, protocol=5, buffer_callback=buffers.append) */
static PyObject *dump(State *st, PyObject *obj, PyObject *buffers) {
    if (load_pickle(st) < 0)
        return NULL;
    PyObject *append = PyObject_GetAttrString(buffers, "append");
    if (append && XI_UNLIKELY(has_codecs(st))) {
        PyObject *whole = load_attribute(&st->dumps, "xidata._types", "dumps") < 0
                              ? NULL
                              : PyObject_CallFunctionObjArgs(st->dumps, obj, append, NULL);
        Py_DECREF(append);
        return whole;
    }
    PyObject *keywords = append ? Py_BuildValue("{s:i,s:O}", "protocol", 5, "buffer_callback", append) : NULL;
    PyObject *args = keywords ? PyTuple_Pack(1, obj) : NULL;
    PyObject *pickled = args ? PyObject_Call(st->pickle_dumps, args, keywords) : NULL;
    Py_XDECREF(append);
    Py_XDECREF(keywords);
    Py_XDECREF(args);
    if (pickled && !PyBytes_Check(pickled)) {
        PyErr_SetString(PyExc_TypeError, "pickle.dumps() did not return bytes");
        Py_CLEAR(pickled);
    }
    return pickled;
}

static int encode_pickle(Encoder *e, PyObject *obj) {
    PyObject *buffers = PyList_New(0);
    PyObject *pickled = buffers ? dump(e->st, obj, buffers) : NULL;
    int rc = -1;
    if (pickled) {
        Py_ssize_t n = PyList_GET_SIZE(buffers);
        rc = encoder_room(e, 48 + 8 * (size_t)n);
        int error = rc ? 0 : xi_begin(&e->b, XI_PICKLE, (uint64_t)n);
        if (error)
            rc = encoder_error(e, error);
        e->depth++; /* more follows: large ones get some slack */
        if (rc == 0)
            rc = encode_bytes(e, PyBytes_AS_STRING(pickled), (size_t)PyBytes_GET_SIZE(pickled), 0);
        for (Py_ssize_t i = 0; i < n && rc == 0; i++)
            rc = encode_pickle_buffer(e, PyList_GET_ITEM(buffers, i));
        e->depth--;
        error = rc ? 0 : xi_end(&e->b);
        if (error)
            rc = encoder_error(e, error);
    }
    Py_XDECREF(pickled);
    Py_XDECREF(buffers);
    return rc;
}

/* -------------------------------------------------------------- the whole */

/* What is rarer than the builtin types. */
static int encode_rest(Encoder *e, PyObject *obj) {
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyBytes_Type)
        return encode_bytes(e, PyBytes_AS_STRING(obj), (size_t)PyBytes_GET_SIZE(obj), 0);
    if (type == &PySet_Type)
        return encode_set(e, obj, XI_SET);
    if (type == &PyFrozenSet_Type)
        return encode_set(e, obj, XI_FROZENSET);
    if (type == &PyByteArray_Type)
        return encode_bytearray(e, obj);
    if (type == &PyComplex_Type)
        return encode_complex(e, obj);
    if (type == &PyMemoryView_Type)
        return encode_memoryview(e, obj);
    if (type == e->st->loan_type)
        return encode_loan(e, obj);
    if (array_is_exact_type(e->st, type))
        return encode_array(e, obj);
    size_t before = e->b.length;
    int rc = encode_foreign(e, obj);
    if (XI_UNLIKELY(rc == ENCODE_PICKLE && e->replacing && !e->b.error && e->b.length == before))
        return encode_stand_in(e, obj);
    return rc;
}

int encode(Encoder *e, PyObject *obj) {
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyLong_Type)
        return encode_int(e, obj);
    if (type == &PyUnicode_Type)
        return encode_str(e, obj);
    if (type == &PyFloat_Type)
        return encode_float(e, obj);
    if (obj == Py_None || type == &PyBool_Type) {
        if (encoder_room(e, XI_SIZE_SCALAR) < 0)
            return -1;
        PUT(e, obj == Py_None ? xi_put_none(&e->b) : xi_put_bool(&e->b, obj == Py_True));
    }
    if (type == &PyTuple_Type)
        return encode_tuple(e, obj);
    if (type == &PyList_Type)
        return encode_list(e, obj);
    if (type == &PyDict_Type)
        return encode_dict(e, obj);
    return encode_rest(e, obj);
}

static int encode_as(Encoder *e, PyObject *obj, int (*how)(Encoder *, PyObject *)) {
    int rc = how(e, obj);
    if (XI_UNLIKELY(rc == ENCODE_LONG)) {
        restart(e, XI_BUILD_LONG);
        rc = how(e, obj);
    }
    return rc;
}

/* Piece by piece, with what `errors` puts in place of what has no native form. As encode(). */
static int encode_replacing(Encoder *e, PyObject *obj) {
    restart(e, 0);
    e->replacing = true;
    int rc = encode_as(e, obj, encode);
    e->replacing = false;
    return rc;
}

/* Of what has no native form: the pickle, or if there is to be none, or none can be made, with replacements. As encode(). */
static int encode_otherwise(Encoder *e, PyObject *obj) {
    bool replaces = e->ch->errors >= ERRORS_REPLACE;
    restart(e, 0);
    if (e->refuse_pickle)
        return replaces ? encode_replacing(e, obj) : ENCODE_PICKLE;
    int rc = encode_as(e, obj, encode_pickle);
    if (rc == 0 || !replaces || !PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
        return rc;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    rc = encode_replacing(e, obj);
    if (rc != ENCODE_PICKLE) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return rc;
    }
    PyErr_Restore(type, value, traceback); /* it contains itself: why it is no pickle is what there is to say */
    return -1;
}

int64_t encoder_run(Encoder *e, PyObject *obj) {
    int rc = encode_as(e, obj, encode);
    if (XI_UNLIKELY(rc == ENCODE_PICKLE)) {
        rc = encode_otherwise(e, obj);
        const char *why = e->why;
        if (rc == ENCODE_PICKLE) {
            restart(e, 0);
            PyErr_Format(PyExc_ValueError,
                         "this value has no native form (%s), and %s: send native types, or open the channel with "
                         "pickle='allow'",
                         why ? why : "an object in it is of a type that only Python knows",
                         e->ch->pickle == PICKLE_REFUSE ? "the channel refuses pickles"
                                                        : "other users may open the channel, who do not load pickles");
            return XI_RAISED;
        }
    }
    if (XI_UNLIKELY(rc != 0))
        return XI_RAISED;
    int64_t size = xi_builder_finish(&e->b);
    if (XI_UNLIKELY(size < 0)) {
        raise_error(e->st, size);
        return XI_RAISED;
    }
    return size;
}

/* Fills one open place in and copies its bytes to `offset` of the root. */
static int place(Encoder *e, Outside *o, uint64_t offset) {
    xi_buffer_ref ref = {o->loan ? o->loan->handle : e->loan.handle, o->loan ? LOAN_HEAD : offset, o->size};
    char *to = (char *)e->loan.data + offset;
    xi_builder patch;
    xi_builder_init(&patch, (uint8_t *)e->loan.data + o->at, 64, 0);
    int error = xi_put_buffer(&patch, &ref, o->flags);
    if (error) {
        raise_error(e->st, error);
        return -1;
    }
    if (o->loan)
        return 0;
    if (o->array)
        array_copy_out(o->array, to);
    else if (PyBuffer_IsContiguous(&o->view, 'C'))
        copy_bytes(to, o->view.buf, (size_t)o->size);
    else
        return PyBuffer_ToContiguous(to, &o->view, o->view.len, 'C');
    return 0;
}

/* Hands the loans in the value over to the root; encoder_clear() takes them back. */
static int attach_loans(Encoder *e) {
    for (uint32_t i = 0; i < e->outside_count; i++) {
        Loan *l = e->outside[i].loan;
        if (!l || !l->loan.data)
            continue; /* none, or attached already: it is in the value twice */
        int error = xi_loan_attach(&e->loan, &l->loan);
        if (error) {
            raise_error(e->st, error);
            return -1;
        }
    }
    return 0;
}

int64_t encoder_place(Encoder *e, int64_t size) {
    uint64_t total = ALIGN64((uint64_t)size), offset = total;
    for (uint32_t i = 0; i < e->outside_count; i++)
        if (!e->outside[i].loan && __builtin_add_overflow(total, ALIGN64(e->outside[i].size), &total)) {
            PyErr_NoMemory();
            return XI_RAISED;
        }
    if ((!e->in_loan || e->loan.size < total) && move_to_loan(e, (size_t)total) < 0)
        return XI_RAISED;
    for (uint32_t i = 0; i < e->outside_count; i++) {
        if (place(e, &e->outside[i], offset) < 0)
            return XI_RAISED;
        if (!e->outside[i].loan)
            offset += ALIGN64(e->outside[i].size);
    }
    return attach_loans(e) < 0 ? XI_RAISED : size;
}
