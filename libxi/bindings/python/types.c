/* SPDX-License-Identifier: MIT */
/*
 * Objects that travel by the name of their class: enums, namedtuples,
 * dataclasses, exceptions, and user types of xidata.register().
 *
 * What is to be known of a class is found out once, in Python (_types.py): its
 * plan, (extension id, name, what its kind needs), or None for a pickle. Here
 * is what happens for each object: its plan is looked up by its class, and
 * what is in it is encoded without an object in between where there need be
 * none. Received ones are made there.
 *
 * A pickle keeps it when two places refer to the same object. Dataclasses and
 * exceptions are objects for which that may matter, so a value in which one is
 * met twice is pickled as a whole; unless there is to be no pickle, where it
 * arrives as two, as a list does.
 */
#include "binding.h"

/* The plan of the object's class: a new reference. NULL with an exception. */
static PyObject *plan_of(State *st, PyObject *o) {
    PyObject *type = (PyObject *)Py_TYPE(o);
    if (load_attribute(&st->plans, "xidata._types", "PLANS") < 0 ||
        load_attribute(&st->plan_of, "xidata._types", "plan_of") < 0)
        return NULL;
    PyObject *plan = PyDict_GetItemWithError(st->plans, type);
    if (XI_LIKELY(plan != NULL))
        return Py_NewRef(plan);
    return PyErr_Occurred() ? NULL : PyObject_CallFunctionObjArgs(st->plan_of, type, NULL);
}

/* ext(tuple of `n`), whose members follow. */
static int begin(Encoder *e, uint32_t ext, uint64_t n) {
    if (encoder_room(e, 64) < 0)
        return -1;
    int error = xi_begin_ext(&e->b, (uint16_t)ext);
    if (error == 0 && n)
        error = xi_begin(&e->b, XI_TUPLE, n);
    return XI_UNLIKELY(error) ? encoder_error(e, error) : 0;
}

static int end(Encoder *e, int levels) {
    int error = 0;
    while (levels-- && !error)
        error = xi_end(&e->b);
    return XI_UNLIKELY(error) ? encoder_error(e, error) : 0;
}

/* 0, or ENCODE_PICKLE if the object is around this place. */
static int is_around(Encoder *e, PyObject *o) {
    for (uint32_t i = 0; i < e->depth; i++)
        if (e->path[i] == o) {
            e->why = "it contains itself";
            return ENCODE_PICKLE;
        }
    return 0;
}

/* As that; ENCODE_PICKLE also if the object was elsewhere in the value and pickles may be made; -1. */
static int meet(Encoder *e, PyObject *o) {
    if (is_around(e, o))
        return ENCODE_PICKLE;
    if (e->refuse_pickle || e->replacing || e->depth == 0)
        return 0;
    if (!e->met && !(e->met = PyDict_New()))
        return -1;
    Py_ssize_t before = PyDict_GET_SIZE(e->met);
    PyObject *number = PyLong_FromVoidPtr(o);
    int rc = number ? PyDict_SetItem(e->met, number, o) : -1; /* kept, so that no other gets its id */
    Py_XDECREF(number);
    return rc < 0 ? -1 : PyDict_GET_SIZE(e->met) == before ? ENCODE_PICKLE : 0;
}

static int encode_namedtuple(Encoder *e, PyObject *o, PyObject *name, PyObject *fields) {
    Py_ssize_t n = PyTuple_GET_SIZE(o);
    if (n != PyTuple_GET_SIZE(fields))
        return ENCODE_PICKLE;
    int rc = begin(e, XI_EXT_NAMEDTUPLE, 2);
    if (rc == 0)
        rc = encode_str(e, name);
    if (rc == 0 && (rc = encoder_room(e, 32)) == 0 && xi_begin(&e->b, XI_DICT, (uint64_t)n))
        rc = encoder_error(e, e->b.error);
    for (Py_ssize_t i = 0; i < n && rc == 0; i++) {
        rc = encode_str(e, PyTuple_GET_ITEM(fields, i));
        if (rc == 0)
            rc = encode(e, PyTuple_GET_ITEM(o, i));
    }
    return rc ? rc : end(e, 3);
}

/* A new dict of what the object holds: its own, where that is all. NULL without an exception: it has an odd one. */
static PyObject *state_of_object(PyObject *o, PyObject *slots) {
    PyObject *own = dict_of(o);
    if (!own || !PyDict_CheckExact(own)) {
        Py_CLEAR(own);
        return NULL;
    }
    Py_ssize_t n = PyTuple_GET_SIZE(slots);
    if (!n)
        return own;
    PyObject *all = PyDict_Copy(own);
    Py_DECREF(own);
    for (Py_ssize_t i = 0; i < n && all; i++) {
        PyObject *name = PyTuple_GET_ITEM(slots, i), *value = PyObject_GenericGetAttr(o, name);
        if (!value && PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Clear(); /* never set */
        else if (!value || PyDict_SetItem(all, name, value) < 0)
            Py_CLEAR(all);
        Py_XDECREF(value);
    }
    return all;
}

static int encode_dataclass(Encoder *e, PyObject *o, PyObject *name, PyObject *slots) {
    int rc = meet(e, o);
    if (rc)
        return rc;
    PyObject *state = state_of_object(o, slots);
    if (!state)
        return PyErr_Occurred() ? -1 : ENCODE_PICKLE;
    e->path[e->depth++] = o;
    rc = begin(e, XI_EXT_DATACLASS, 2);
    if (rc == 0)
        rc = encode_str(e, name);
    if (rc == 0)
        rc = encode(e, state);
    Py_DECREF(state);
    e->depth--;
    return rc ? rc : end(e, 2);
}

/* ext(function(o, plan)), which may answer with None for a pickle. */
static int encode_made(Encoder *e, PyObject *o, uint32_t ext, PyObject *function, PyObject *plan) {
    PyObject *payload = PyObject_CallFunctionObjArgs(function, o, plan, NULL);
    int rc = !payload ? -1 : payload == Py_None ? ENCODE_PICKLE : begin(e, ext, 0);
    if (rc == 0) {
        e->path[e->depth++] = o;
        rc = encode(e, payload);
        e->depth--;
    }
    Py_XDECREF(payload);
    return rc ? rc : end(e, 1);
}

/* ext(name, to_xi(o)), or of an id of its own ext(to_xi(o)). */
static int encode_codec(Encoder *e, PyObject *o, uint32_t ext, PyObject *name, PyObject *to_xi) {
    bool named = ext == XI_EXT_NAMED;
    if (is_around(e, o))
        return ENCODE_PICKLE;
    PyObject *value = PyObject_CallFunctionObjArgs(to_xi, o, NULL);
    int rc = value ? begin(e, ext, named ? 2 : 0) : -1;
    if (rc == 0) {
        e->path[e->depth++] = o;
        rc = named ? encode_str(e, name) : 0;
        if (rc == 0)
            rc = encode(e, value);
        e->depth--;
    }
    Py_XDECREF(value);
    return rc ? rc : end(e, named ? 2 : 1);
}

/* ext(payload) of a Replacement: what it stands for goes on as it came. */
static int encode_replacement(Encoder *e, PyObject *o) {
    if (is_around(e, o))
        return ENCODE_PICKLE;
    PyObject *number = PyObject_GetAttrString(o, "extension"), *payload = PyObject_GetAttrString(o, "payload");
    long ext = number ? PyLong_AsLong(number) : -1;
    if (payload && (ext < XI_EXT_ENUM || ext > XI_EXT_NAMED) && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "this Replacement's extension is none that one stands for");
    int rc = PyErr_Occurred() ? -1 : begin(e, (uint32_t)ext, 0);
    if (rc == 0) {
        e->path[e->depth++] = o;
        rc = encode(e, payload);
        e->depth--;
    }
    Py_XDECREF(number);
    Py_XDECREF(payload);
    return rc ? rc : end(e, 1);
}

static int encode_as_planned(Encoder *e, PyObject *o, PyObject *plan) {
    PyObject *name = PyTuple_GET_ITEM(plan, 1), *how = PyTuple_GET_ITEM(plan, 2);
    long ext = PyLong_AsLong(PyTuple_GET_ITEM(plan, 0));
    int rc;
    switch (ext) {
    case 0: return encode_replacement(e, o);
    case XI_EXT_NAMEDTUPLE: return encode_namedtuple(e, o, name, how);
    case XI_EXT_DATACLASS: return encode_dataclass(e, o, name, how);
    case XI_EXT_ENUM: return encode_made(e, o, XI_EXT_ENUM, how, plan);
    case XI_EXT_EXCEPTION:
        rc = meet(e, o);
        return rc ? rc : encode_made(e, o, XI_EXT_EXCEPTION, how, plan);
    default: return encode_codec(e, o, (uint32_t)ext, name, how);
    }
}

int encode_planned(Encoder *e, PyObject *o) {
    PyObject *plan = plan_of(e->st, o);
    if (!plan)
        return -1;
    int rc = plan == Py_None ? ENCODE_PICKLE : encode_as_planned(e, o, plan);
    Py_DECREF(plan);
    return rc;
}

/* xidata._types.make(id, payload, whether pickles would be loaded, what is done with what nobody knows) */
PyObject *decode_planned(Decoder *d, const xi_value *v) {
    xi_value child;
    if (load_attribute(&d->st->make, "xidata._types", "make") < 0 || decode_child(d->st, v, &child) < 0)
        return NULL;
    PyObject *payload = decode(d, &child);
    PyObject *ext = payload ? PyLong_FromLong(v->aux) : NULL;
    PyObject *errors = ext ? codec_errors(d->ch) : NULL;
    PyObject *made = errors ? PyObject_CallFunctionObjArgs(d->st->make, ext, payload,
                                                           d->ch->refuse_pickle ? Py_False : Py_True, errors, NULL)
                            : NULL;
    Py_XDECREF(errors);
    Py_XDECREF(payload);
    Py_XDECREF(ext);
    return made;
}
