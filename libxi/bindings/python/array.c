/* SPDX-License-Identifier: MIT */
/*
 * numpy arrays, both ways, without numpy's headers: an array tells all about its
 * memory through __array_struct__ (which, unlike the buffer protocol, also knows
 * datetime64), and numpy.ndarray(shape, dtype, buffer) makes one over memory that
 * somebody else owns.
 *
 * Natively go plain arrays (no subclass) whose dtype has a name that leads back
 * to it: numpy's own format rules decide that, once per dtype. Object arrays and
 * the rest are pickled. What is not contiguous is packed while it is copied.
 * Received arrays are read-only, whatever their size, and lie in the sender's
 * memory unless they are small. Without numpy a plain array of numbers arrives
 * as a memoryview of the same format and shape.
 */
#include "binding.h"

/* What PyArrayInterface in numpy's documentation says. */
struct array_interface {
    int two, nd;
    char typekind;
    int itemsize;
    int flags;
    Py_ssize_t *shape, *strides;
    void *data;
    PyObject *descr;
};
#define ARRAY_C_CONTIGUOUS 0x1
#define ARRAY_F_CONTIGUOUS 0x2
#define ARRAY_WRITABLE 0x400

#define DIMS_MOST 64
#define INSIDE_MOST 4096 /* smaller arrays travel inside the tree */
#define NAMES_MOST 256   /* dtypes remembered */

/* ----------------------------------------------------------------- numpy */

static int load_numpy(State *st) {
    if (load_type(&st->ndarray, "numpy", "ndarray") < 0 || load_type(&st->dtype, "numpy", "dtype") < 0 ||
        load_attribute(&st->literal_eval, "ast", "literal_eval") < 0 ||
        load_attribute(&st->dtype_to_descr, "numpy.lib.format", "dtype_to_descr") < 0 ||
        load_attribute(&st->descr_to_dtype, "numpy.lib.format", "descr_to_dtype") < 0)
        return -1;
    if (!st->dtype_names && !(st->dtype_names = PyDict_New()))
        return -1;
    return st->dtypes || (st->dtypes = PyDict_New()) ? 0 : -1;
}

bool array_is_exact_type(State *st, PyTypeObject *type) {
    if (XI_LIKELY(st->ndarray != NULL))
        return type == st->ndarray;
    if (strcmp(TYPE_NAME(type), "numpy.ndarray") != 0)
        return false;
    if (load_numpy(st) == 0)
        return type == st->ndarray;
    PyErr_Clear(); /* an odd numpy: its arrays are pickled like anything else */
    return false;
}

/* The dtype of a name: "<f8", or the repr of a structured one's description. */
static PyObject *dtype_of_text(State *st, PyObject *text) {
    PyObject *descr = NULL, *dtype = NULL;
    if (PyUnicode_GetLength(text) > 0 && PyUnicode_ReadChar(text, 0) == '[')
        descr = PyObject_CallFunctionObjArgs(st->literal_eval, text, NULL);
    else
        descr = Py_NewRef(text);
    if (descr)
        dtype = PyObject_CallFunctionObjArgs(st->descr_to_dtype, descr, NULL);
    Py_XDECREF(descr);
    return dtype;
}

static int is_true_attribute(PyObject *o, const char *name) {
    PyObject *v = PyObject_GetAttrString(o, name);
    int rc = v ? PyObject_IsTrue(v) : -1;
    Py_XDECREF(v);
    return rc;
}

/* True if nothing of the dtype would be lost: no objects, no metadata, not a kind whose items are pointers. */
static int is_plain(PyObject *dtype) {
    int objects = is_true_attribute(dtype, "hasobject");
    PyObject *kind = objects == 0 ? PyObject_GetAttrString(dtype, "kind") : NULL;
    PyObject *metadata = kind ? PyObject_GetAttrString(dtype, "metadata") : NULL;
    int rc = objects < 0 || !metadata ? -1 : 0;
    if (rc == 0 && metadata == Py_None && PyUnicode_Check(kind) && PyUnicode_GetLength(kind) == 1) {
        Py_UCS4 k = PyUnicode_ReadChar(kind, 0);
        rc = k < 128 && strchr("biufcmMSUV", (int)k) != NULL;
    }
    Py_XDECREF(kind);
    Py_XDECREF(metadata);
    return objects > 0 ? 0 : rc;
}

/* The name of a plain dtype, or None if it does not lead back to the dtype. */
static PyObject *make_name(State *st, PyObject *dtype) {
    PyObject *descr = PyObject_CallFunctionObjArgs(st->dtype_to_descr, dtype, NULL);
    PyObject *text = descr ? (PyUnicode_Check(descr) ? Py_NewRef(descr) : PyObject_Repr(descr)) : NULL;
    PyObject *back = text ? dtype_of_text(st, text) : NULL;
    int same = back ? PyObject_RichCompareBool(back, dtype, Py_EQ) : -1;
    Py_XDECREF(descr);
    Py_XDECREF(back);
    if (same > 0)
        return text;
    Py_XDECREF(text);
    if (same < 0) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return NULL;
        PyErr_Clear(); /* overlapping fields and the like have no description */
    }
    return Py_NewRef(Py_None);
}

/* Borrowed: the dtype's name, None if it has none. Remembered. */
static PyObject *name_of(State *st, PyObject *dtype) {
    PyObject *name = PyDict_GetItemWithError(st->dtype_names, dtype);
    if (XI_LIKELY(name != NULL) || PyErr_Occurred())
        return name;
    int plain = is_plain(dtype);
    if (plain < 0)
        return NULL;
    name = plain ? make_name(st, dtype) : Py_NewRef(Py_None);
    if (!name)
        return NULL;
    if (PyDict_GET_SIZE(st->dtype_names) >= NAMES_MOST)
        PyDict_Clear(st->dtype_names);
    int rc = PyDict_SetItem(st->dtype_names, dtype, name);
    Py_DECREF(name); /* the dictionary has it */
    return rc < 0 ? NULL : name;
}

/* ---------------------------------------------------------------- encode */

static uint64_t bytes_of(const struct array_interface *a) {
    uint64_t n = (uint64_t)a->itemsize;
    for (int i = 0; i < a->nd; i++)
        n *= (uint64_t)a->shape[i]; /* numpy has made sure that it fits */
    return n;
}

/* One row of `n` items, `stride` apart. */
static char *copy_row(char *to, const char *from, Py_ssize_t n, Py_ssize_t stride, size_t item) {
    switch (item) {
#define COPY_AS(type)                                                                                                  \
    case sizeof(type):                                                                                                 \
        for (Py_ssize_t i = 0; i < n; i++, to += sizeof(type), from += stride)                                         \
            memcpy(to, from, sizeof(type));                                                                            \
        return to;
        COPY_AS(uint8_t)
        COPY_AS(uint16_t)
        COPY_AS(uint32_t)
        COPY_AS(uint64_t)
#undef COPY_AS
    default:
        for (Py_ssize_t i = 0; i < n; i++, to += item, from += stride)
            memcpy(to, from, item);
        return to;
    }
}

static char *copy_strided(const struct array_interface *a, int dim, const char *from, char *to) {
    if (dim == a->nd - 1)
        return copy_row(to, from, a->shape[dim], a->strides[dim], (size_t)a->itemsize);
    for (Py_ssize_t i = 0; i < a->shape[dim]; i++, from += a->strides[dim])
        to = copy_strided(a, dim + 1, from, to);
    return to;
}

void array_copy_out(const void *array, void *to) {
    const struct array_interface *a = array;
    uint64_t n = bytes_of(a);
    if (n == 0)
        return;
    if (a->nd == 0 || (a->flags & (ARRAY_C_CONTIGUOUS | ARRAY_F_CONTIGUOUS))) {
        copy_bytes(to, a->data, (size_t)n);
        return;
    }
    if (n < (1 << 20)) {
        (void)copy_strided(a, 0, a->data, to);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    (void)copy_strided(a, 0, a->data, to);
    Py_END_ALLOW_THREADS
}

/* Shape as it is, and the strides of the packed array. */
static void packed_layout(const struct array_interface *a, bool fortran, int64_t *shape, int64_t *strides) {
    int64_t step = a->itemsize;
    for (int i = 0; i < a->nd; i++)
        shape[i] = a->shape[i];
    for (int k = 0; k < a->nd; k++) {
        int i = fortran ? k : a->nd - 1 - k;
        strides[i] = step;
        step *= shape[i] ? shape[i] : 1;
    }
}

/* The data, as the ndarray's one child: `l`, or a copy. `capsule` holds the array. */
static int encode_data(Encoder *e, const struct array_interface *a, PyObject *array, PyObject *capsule, Loan *l) {
    uint64_t n = bytes_of(a);
    if (l)
        return encode_array_loan(e, l, array, a->flags & ARRAY_WRITABLE);
    if (n >= INSIDE_MOST) {
        Outside *o = encoder_outside(e, n, 0);
        if (!o)
            return -1;
        o->array = a;
        o->keep = Py_NewRef(capsule);
        return 0;
    }
    void *where;
    if (encoder_room(e, XI_SIZE_BYTES(n)) < 0)
        return -1;
    int error = xi_put_bytes_space(&e->b, 0, (size_t)n, &where);
    if (error)
        return encoder_error(e, error);
    array_copy_out(a, where);
    return 0;
}

static int encode_interface(Encoder *e, const struct array_interface *a, PyObject *array, PyObject *capsule,
                            PyObject *name, Loan *l) {
    int64_t shape[DIMS_MOST], strides[DIMS_MOST];
    bool fortran = (a->flags & ARRAY_F_CONTIGUOUS) && !(a->flags & ARRAY_C_CONTIGUOUS);
    Py_ssize_t length;
    const char *dtype = PyUnicode_AsUTF8AndSize(name, &length);
    if (!dtype || encoder_room(e, 64 + (size_t)length + 16 * (size_t)a->nd) < 0)
        return -1;
    packed_layout(a, fortran, shape, strides);
    int error = xi_begin_ndarray(&e->b, dtype, fortran ? XI_F_FORTRAN : 0, (uint32_t)a->nd, shape, strides);
    if (error)
        return encoder_error(e, error);
    e->depth++;
    int rc = encode_data(e, a, array, capsule, l);
    e->depth--;
    if (rc)
        return rc;
    error = xi_end(&e->b);
    return error ? encoder_error(e, error) : 0;
}

/* ----------------------------------------------------------------- moving
 *
 * xidata.empty() makes a plain array over all of a loan (the root), and hands
 * out a view of it. numpy makes every further array of the view refer to the
 * root, too: slices, reshapes, transposes, a[...]. So whoever could go
 * on writing after a send is counted in the root's references; a view that is
 * the only one may be sent without a copy, and is made read-only by that, for
 * good, since the loan under it gives nobody write access any more.
 *
 * What refers to the view itself is not told from a variable: a memoryview of
 * it, a ctypes pointer, a subclass. Such could still write. They see to it that
 * the loan lives, and that its memory is held: so they change what was sent,
 * never anything else.
 */

/* The loan under the root of `array`. *alone: it is the root's only view. */
static Loan *loan_under(State *st, PyObject *array, bool *alone) {
    PyObject *root = PyObject_GetAttr(array, st->s_base), *loan = NULL;
    if (root && Py_TYPE(root) == st->ndarray) {
        *alone = Py_REFCNT(root) == 2;
        loan = PyObject_GetAttr(root, st->s_base);
    }
    Loan *l = loan && Py_TYPE(loan) == st->loan_type ? (Loan *)loan : NULL;
    Py_XDECREF(loan); /* the root has it, */
    Py_XDECREF(root); /* and the array the root */
    return l;
}

Loan *array_loan(State *st, PyObject *array, const void *data, uint64_t size, bool *alone) {
    Loan *l = loan_under(st, array, alone);
    if (!l || !l->hold.block_ || size == 0 || loan_is_parents(l) || l->state == LOAN_SENT || l->state == LOAN_RELEASED)
        return NULL; /* not ours; nothing to move; or it may be read here, no more */
    return (const char *)data == l->data && size == (uint64_t)l->size ? l : NULL;
}

static int set_writable(State *st, PyObject *array, bool writable) {
    PyObject *done = PyObject_CallMethodOneArg(array, st->s_setflags, writable ? Py_True : Py_False);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

int array_set_writable(State *st, PyObject *array, bool writable) {
    PyObject *root = PyObject_GetAttr(array, st->s_base);
    /* The root too: numpy makes writable again what has a base that is. */
    int rc = !root ? -1 : set_writable(st, writable ? root : array, writable);
    if (rc == 0)
        rc = set_writable(st, writable ? array : root, writable);
    Py_XDECREF(root);
    return rc;
}

/* Whether it goes without a copy: *l is its loan then, or NULL. -1 with an exception. */
static int find_loan(Encoder *e, PyObject *array, const struct array_interface *a, Loan **l) {
    bool alone = false, packed = a->nd == 0 || (a->flags & (ARRAY_C_CONTIGUOUS | ARRAY_F_CONTIGUOUS));
    *l = packed ? array_loan(e->st, array, a->data, bytes_of(a), &alone) : NULL;
    if (!*l)
        return PyErr_Occurred() ? -1 : 0;
    if ((*l)->interp != e->interp) {
        *l = NULL;
        return 0;
    }
    if (alone)
        return 0;
    PyErr_SetString(PyExc_BufferError,
                    "cannot send this array while others refer to its memory, since they could go on writing: delete "
                    "the slices and views made of it first, or send a copy");
    return -1;
}

int encode_array(Encoder *e, PyObject *obj) {
    PyObject *dtype = PyObject_GetAttr(obj, e->st->s_dtype);
    PyObject *name = dtype ? name_of(e->st, dtype) : NULL;
    Py_XDECREF(dtype);
    if (!name)
        return -1;
    if (name == Py_None)
        return ENCODE_PICKLE;
    PyObject *capsule = PyObject_GetAttr(obj, e->st->s_array_struct);
    if (!capsule)
        return -1;
    const struct array_interface *a = PyCapsule_GetPointer(capsule, NULL);
    int rc = -1;
    Loan *l;
    if (a && a->two == 2 && a->nd <= DIMS_MOST) {
        Py_INCREF(name); /* the dictionary may let go of it meanwhile */
        rc = find_loan(e, obj, a, &l);
        if (rc == 0)
            rc = encode_interface(e, a, obj, capsule, name, l);
        Py_DECREF(name);
    } else if (a) {
        rc = ENCODE_PICKLE;
    }
    Py_DECREF(capsule);
    return rc;
}

/* ---------------------------------------------------------------- decode */

static PyObject *corrupt(State *st, const char *what) {
    PyErr_Format(st->errors[-XI_E_CORRUPT], "a received array is not valid: %s", what);
    return NULL;
}

/* Where the data lies, and what has to live as long as it: a View, or bytes where it was small. */
static PyObject *array_memory(Decoder *d, const xi_value *v) {
    xi_value child;
    const void *data;
    if (decode_child(d->st, v, &child) < 0)
        return NULL;
    if (child.tag == XI_BUFFER)
        return decoder_buffer(d, &child, &data) < 0
                   ? NULL
                   : view_object(d->st, d->borrow, data, child.u.buffer.length, NULL);
    if (child.tag != XI_BYTES)
        return corrupt(d->st, "its data is neither a buffer nor bytes");
    if (child.length >= INSIDE_MOST && xi_msg_borrowed(decoder_message(d)) && (uintptr_t)child.data % 16 == 0)
        return decoder_borrow(d) < 0 ? NULL : view_object(d->st, d->borrow, child.data, child.length, NULL);
    PyObject *copy = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)child.length);
    if (copy)
        copy_bytes(PyBytes_AS_STRING(copy), child.data, child.length);
    return copy;
}

/* New reference: the dtype that the value names. Never one with objects: their pointers would be somebody else's. */
static PyObject *dtype_named(State *st, const xi_value *v) {
    PyObject *text = PyUnicode_DecodeUTF8(v->u.array.dtype, (Py_ssize_t)v->u.array.dtype_length, "strict");
    if (!text)
        return NULL;
    PyObject *dtype = Py_XNewRef(PyDict_GetItemWithError(st->dtypes, text));
    if (!dtype && !PyErr_Occurred()) {
        dtype = dtype_of_text(st, text);
        if (dtype && !PyObject_TypeCheck(dtype, st->dtype)) {
            Py_CLEAR(dtype);
            PyErr_SetString(PyExc_TypeError, "numpy made no dtype of its name");
        }
        int plain = dtype ? is_plain(dtype) : 0;
        if (dtype && plain == 0)
            PyErr_Format(st->errors[-XI_E_CORRUPT], "a received array has the dtype %R, which cannot be shared", dtype);
        if (plain <= 0)
            Py_CLEAR(dtype);
        if (dtype && PyDict_GET_SIZE(st->dtypes) >= NAMES_MOST)
            PyDict_Clear(st->dtypes);
        if (dtype && PyDict_SetItem(st->dtypes, text, dtype) < 0)
            Py_CLEAR(dtype);
    }
    Py_DECREF(text);
    return dtype;
}

static PyObject *tuple_of(const int64_t *numbers, uint32_t n) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)n);
    for (uint32_t i = 0; i < n && tuple; i++) {
        PyObject *number = PyLong_FromLongLong(numbers[i]);
        if (number)
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, number);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

static bool is_empty(const xi_value *v) {
    for (uint32_t i = 0; i < v->u.array.ndim; i++)
        if (v->u.array.shape[i] == 0)
            return true;
    return false;
}

static PyObject *new_array(State *st, PyObject *shape, PyObject *dtype, PyObject *memory, PyObject *strides) {
    PyObject *zero = PyLong_FromLong(0);
    PyObject *args = zero ? PyTuple_Pack(5, shape, dtype, memory, zero, strides) : NULL;
    PyObject *array = args ? PyObject_Call((PyObject *)st->ndarray, args, NULL) : NULL;
    Py_XDECREF(args);
    Py_XDECREF(zero);
    return array;
}

/* numpy.ndarray(shape, dtype, memory, 0, strides): numpy checks that all of it lies in the memory. */
static PyObject *make_array(State *st, const xi_value *v, PyObject *dtype, PyObject *memory) {
    PyObject *shape = tuple_of(v->u.array.shape, v->u.array.ndim), *strides = NULL, *array = NULL;
    if (shape && !is_empty(v)) {
        strides = tuple_of(v->u.array.strides, v->u.array.ndim);
        if (strides)
            array = new_array(st, shape, dtype, memory, strides);
    } else if (shape) {
        /* Nothing is in it, so there is nothing to share; the order is kept for the flags that numpy derives. */
        array = PyObject_CallFunction((PyObject *)st->ndarray, "OOOiOs", shape, dtype, Py_None, 0, Py_None,
                                      (v->flags & XI_F_FORTRAN) ? "F" : "C");
        PyObject *flags = array ? PyObject_CallMethod(array, "setflags", "O", Py_False) : NULL;
        if (array && !flags)
            Py_CLEAR(array);
        Py_XDECREF(flags);
    }
    Py_XDECREF(shape);
    Py_XDECREF(strides);
    return array;
}

/* The struct format of a simple native dtype; NULL for others. */
static const char *format_of(const char *dtype, uint32_t length, Py_ssize_t *itemsize) {
    static const struct {
        const char *dtype, *format;
        Py_ssize_t size;
    } known[] = {{"|b1", "?", 1}, {"|i1", "b", 1}, {"|u1", "B", 1}, {"<i2", "h", 2}, {"<u2", "H", 2}, {"<i4", "i", 4},
                 {"<u4", "I", 4}, {"<i8", "q", 8}, {"<u8", "Q", 8}, {"<f2", "e", 2}, {"<f4", "f", 4}, {"<f8", "d", 8}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (length == 3 && memcmp(dtype, known[i].dtype, 3) == 0) {
            *itemsize = known[i].size;
            return known[i].format;
        }
    return NULL;
}

/* True if every item lies in `size` bytes. */
static bool fits(const xi_value *v, Py_ssize_t itemsize, size_t size) {
    int64_t reach = itemsize, step;
    for (uint32_t i = 0; i < v->u.array.ndim; i++) {
        int64_t stride = v->u.array.strides[i], items = v->u.array.shape[i];
        if (stride < 0 || items < 1 || __builtin_mul_overflow(stride, items - 1, &step) ||
            __builtin_add_overflow(reach, step, &reach))
            return false;
    }
    return (uint64_t)reach <= size;
}

/* Without numpy. */
static PyObject *as_memoryview(Decoder *d, const xi_value *v) {
    xi_value child;
    const void *data;
    ViewLayout layout = {NULL, 0, (int)v->u.array.ndim, v->u.array.shape, v->u.array.strides};
    char text[32];
    size_t length = v->u.array.dtype_length < sizeof text - 1 ? v->u.array.dtype_length : sizeof text - 1;
    memcpy(text, v->u.array.dtype, length);
    text[length] = 0;
    layout.format = format_of(text, v->u.array.dtype_length, &layout.itemsize);
    if (!layout.format || is_empty(v)) {
        PyErr_Format(d->st->errors[-XI_E_TYPE], "an array of dtype %s: install numpy to receive it", text);
        return NULL;
    }
    if (decode_child(d->st, v, &child) < 0)
        return NULL;
    if (child.tag == XI_BUFFER ? decoder_buffer(d, &child, &data) < 0 : child.tag != XI_BYTES)
        return PyErr_Occurred() ? NULL : corrupt(d->st, "its data is neither a buffer nor bytes");
    size_t size = child.tag == XI_BUFFER ? child.u.buffer.length : child.length;
    if (!fits(v, layout.itemsize, size))
        return corrupt(d->st, "shape and strides reach beyond its data");
    if (child.tag == XI_BUFFER)
        return view_new(d->st, d->borrow, data, size, &layout);
    return view_of_copy(d->st, child.data, size, &layout);
}

PyObject *decode_array(Decoder *d, const xi_value *v) {
    State *st = d->st;
    if (!st->ndarray && load_numpy(st) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_ImportError))
            return NULL;
        PyErr_Clear();
        return as_memoryview(d, v);
    }
    PyObject *dtype = dtype_named(st, v);
    PyObject *memory = dtype ? array_memory(d, v) : NULL;
    PyObject *array = memory ? make_array(st, v, dtype, memory) : NULL;
    Py_XDECREF(dtype);
    Py_XDECREF(memory);
    return array;
}
