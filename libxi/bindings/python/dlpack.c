/* SPDX-License-Identifier: MIT */
/*
 * DLPack for Loan and View, with or without numpy: __dlpack__() gives a capsule
 * over their memory, which the tensor libraries take without a copy. It is made
 * of the buffer that the object exports, and holds it: a loan is not sent, and
 * a view's message not released, before the consumer's tensor has gone.
 *
 * Read-only memory can be told of since DLPack 1.0 alone, in a capsule that the
 * consumer asks for with max_version. Who does not is refused it, as numpy does.
 */
#include "binding.h"

/* What dlpack.h says. */
typedef struct {
    int32_t device_type, device_id;
} Device;
typedef struct {
    void *data;
    Device device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides; /* strides: in items */
    uint64_t byte_offset;
} Tensor;
typedef struct Managed {
    Tensor tensor;
    void *context;
    void (*deleter)(struct Managed *self);
} Managed;
typedef struct Versioned {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct Versioned *self);
    uint64_t flags;
    Tensor tensor;
} Versioned;
#define CPU 1
#define READ_ONLY 1u
#define PLAIN_NAME "dltensor"
#define VERSIONED_NAME "dltensor_versioned"

/* What a capsule points to, first in it, and what that needs. */
typedef struct {
    union {
        Managed plain;
        Versioned versioned;
    } u;
    Py_buffer view;
    int64_t dims[]; /* shape, then strides */
} Export;

static void export_free(Export *e) {
    PyGILState_STATE gil = PyGILState_Ensure(); /* a consumer may let go of it anywhere */
    PyBuffer_Release(&e->view);
    PyMem_Free(e);
    PyGILState_Release(gil);
}

static void plain_deleter(Managed *m) { export_free(m->context); }
static void versioned_deleter(Versioned *m) { export_free(m->context); }

/* A consumer that has taken the tensor over has renamed the capsule. */
static void capsule_gone(PyObject *capsule) {
    if (PyCapsule_IsValid(capsule, PLAIN_NAME) || PyCapsule_IsValid(capsule, VERSIONED_NAME))
        export_free(PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
}

/* The kind of item; false: DLPack has none such. */
static bool fill_dtype(Tensor *t, const Py_buffer *view) {
    static const char ints[] = "bhiq", uints[] = "BHIQ", reals[] = "efd";
    const char *format = view->format ? view->format : "B";
    if (!format[0] || format[1])
        return false;
    t->dtype.lanes = 1;
    t->dtype.bits = (uint8_t)(8 * view->itemsize);
    if (format[0] == '?')
        t->dtype.code = 6;
    else if (strchr(ints, format[0]))
        t->dtype.code = 0;
    else if (strchr(uints, format[0]))
        t->dtype.code = 1;
    else if (strchr(reals, format[0]))
        t->dtype.code = 2;
    else
        return false;
    return true;
}

/* False: a stride is not a number of items. */
static bool fill_tensor(Tensor *t, Export *e) {
    const Py_buffer *view = &e->view;
    t->data = view->buf;
    t->device = (Device){CPU, 0};
    t->ndim = view->ndim;
    t->shape = e->dims;
    t->strides = e->dims + view->ndim;
    t->byte_offset = 0;
    for (int i = 0; i < view->ndim; i++) {
        t->shape[i] = view->shape[i];
        t->strides[i] = view->strides[i] / view->itemsize;
        if (view->strides[i] % view->itemsize)
            return false;
    }
    return fill_dtype(t, view);
}

static PyObject *make_capsule(Export *e, bool versioned) {
    Tensor *t = versioned ? &e->u.versioned.tensor : &e->u.plain.tensor;
    if (!fill_tensor(t, e)) {
        PyErr_SetString(PyExc_BufferError, "DLPack has no items of this kind");
        return NULL;
    }
    if (versioned) {
        e->u.versioned.major = 1;
        e->u.versioned.minor = 0;
        e->u.versioned.context = e;
        e->u.versioned.deleter = versioned_deleter;
        e->u.versioned.flags = e->view.readonly ? READ_ONLY : 0;
    } else {
        e->u.plain.context = e;
        e->u.plain.deleter = plain_deleter;
    }
    return PyCapsule_New(e, versioned ? VERSIONED_NAME : PLAIN_NAME, capsule_gone);
}

static PyObject *export_buffer(PyObject *self, bool versioned) {
    Py_buffer view;
    if (PyObject_GetBuffer(self, &view, PyBUF_FULL_RO) < 0)
        return NULL;
    Export *e = NULL;
    PyObject *capsule = NULL;
    if (view.readonly && !versioned)
        PyErr_SetString(PyExc_BufferError, "this memory is read-only, which DLPack can say since version 1.0: ask for it "
                                           "with max_version=(1, 0)");
    else if (!(e = PyMem_Calloc(1, sizeof *e + 2 * sizeof e->dims[0] * (size_t)view.ndim)))
        PyErr_NoMemory();
    if (e) {
        e->view = view;
        if (view.shape == &view.len)
            e->view.shape = &e->view.len; /* as PyBuffer_FillInfo() has it */
        if (view.strides == &view.itemsize)
            e->view.strides = &e->view.itemsize;
        capsule = make_capsule(e, versioned);
    }
    if (!capsule) {
        PyBuffer_Release(e ? &e->view : &view);
        PyMem_Free(e);
    }
    return capsule;
}

PyObject *dlpack_export(PyObject *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"stream", "max_version", "dl_device", "copy", NULL};
    PyObject *stream = Py_None, *version = Py_None, *device = Py_None, *copy = Py_None;
    long major = 0, minor = 0, kind = CPU, number = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|$OOOO:__dlpack__", names, &stream, &version, &device, &copy))
        return NULL;
    if (version != Py_None && !PyArg_Parse(version, "(ll)", &major, &minor))
        return NULL;
    if (device != Py_None && !PyArg_Parse(device, "(ll)", &kind, &number))
        return NULL;
    const char *why = stream != Py_None              ? "memory of the processor has no streams"
                      : kind != CPU || number != 0 ? "this memory is the processor's: DLPack device (1, 0)"
                      : copy == Py_True            ? "this memory is not copied: copy what is made of it"
                                                   : NULL;
    if (why) {
        PyErr_SetString(PyExc_BufferError, why);
        return NULL;
    }
    return export_buffer(self, major >= 1);
}

PyObject *dlpack_device(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored)) {
    return Py_BuildValue("(ii)", CPU, 0);
}
