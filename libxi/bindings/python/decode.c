/* SPDX-License-Identifier: MIT */
/*
 * Values to objects. What is read may be changing under the reader: a cursor
 * has checked every bound before this code sees it, text is checked after it
 * was copied (text.c), and numbers are taken as they come.
 *
 * Buffers and arrays are not copied. The first of them moves the message into a
 * Borrow, which its views share and which the last of them releases.
 */
#include "binding.h"

/* ----------------------------------------------------------- the message */

const xi_msg *decoder_message(const Decoder *d) { return d->borrow ? &d->borrow->msg : d->msg; }

int decoder_borrow(Decoder *d) {
    if (d->borrow)
        return 0;
    loans_poll(d->st);
    Borrow *b = PyMem_RawMalloc(sizeof *b);
    if (!b) {
        PyErr_NoMemory();
        return -1;
    }
    if (interp_enter(d->ch->interp) < 0) {
        PyMem_RawFree(b);
        return -1;
    }
    atomic_init(&b->references, 1);
    b->generation = d->ch->interp->generation;
    b->interp = (Interp *)Py_NewRef((PyObject *)d->ch->interp);
    message_init(&b->msg);
    xi_msg_move(&b->msg, d->msg); /* borrowed, so its bytes stay where they are */
    held_add(&d->st->loans, &b->held, b->msg.size);
    d->borrow = b;
    return 0;
}

int decoder_buffer(Decoder *d, const xi_value *v, const void **data) {
    if (!xi_msg_borrowed(decoder_message(d))) {
        PyErr_SetString(d->st->errors[-XI_E_CORRUPT], "a received value refers to a buffer but lies in no block itself");
        return -1;
    }
    if (v->u.buffer.length > (uint64_t)PY_SSIZE_T_MAX) {
        PyErr_NoMemory();
        return -1;
    }
    if (decoder_borrow(d) < 0)
        return -1;
    int error = xi_msg_buffer(&d->borrow->msg, &v->u.buffer, data);
    if (error < 0)
        raise_error(d->st, error);
    else
        held_more(&d->st->loans, &d->borrow->held, v->u.buffer.length);
    return error < 0 ? -1 : 0;
}

int decode_child(State *st, const xi_value *v, xi_value *child) {
    xi_cursor c;
    xi_value surplus;
    int rc = xi_enter(v, &c);
    if (rc == 0)
        rc = xi_next(&c, child);
    if (rc == 1)
        rc = xi_next(&c, &surplus);
    if (rc < 0)
        raise_error(st, rc);
    else if (rc > 0)
        PyErr_SetString(st->errors[-XI_E_CORRUPT], "a received value holds more than it may");
    return rc ? -1 : 0;
}

/* --------------------------------------------------------------- scalars */

static PyObject *decode_big_int(const xi_value *v) {
    /* A private copy, since CPython looks at the bytes more than once. */
    uint8_t small[256], *copy = small;
    if (v->length > sizeof small && !(copy = PyMem_Malloc(v->length)))
        return PyErr_NoMemory();
    memcpy(copy, v->data, v->length);
    PyObject *o = int_from_bytes(copy, v->length);
    if (copy != small)
        PyMem_Free(copy);
    return o;
}

static PyObject *copy_of_bytes(const void *data, size_t n) {
    PyObject *o = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    if (o)
        copy_bytes(PyBytes_AS_STRING(o), data, n);
    return o;
}

static PyObject *decode_bytes(Decoder *d, const xi_value *v) {
    if (v->length > (size_t)PY_SSIZE_T_MAX)
        return PyErr_NoMemory();
    if (v->flags & XI_F_MUTABLE) {
        PyObject *o = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)v->length);
        if (o)
            copy_bytes(PyByteArray_AS_STRING(o), v->data, v->length);
        return o;
    }
    if (!d->zero_copy)
        return copy_of_bytes(v->data, v->length);
    if (xi_msg_borrowed(decoder_message(d)))
        return decoder_borrow(d) < 0 ? NULL : view_new(d->st, d->borrow, v->data, v->length, NULL);
    PyObject *copy = copy_of_bytes(v->data, v->length);
    PyObject *view = copy ? PyMemoryView_FromObject(copy) : NULL;
    Py_XDECREF(copy);
    return view;
}

static PyObject *decode_buffer(Decoder *d, const xi_value *v) {
    const void *data;
    return decoder_buffer(d, v, &data) < 0 ? NULL : view_new(d->st, d->borrow, data, v->u.buffer.length, NULL);
}

/* ------------------------------------------------------------ containers */

/* Enters `v`; -1 with an exception. */
static int enter(Decoder *d, const xi_value *v, xi_cursor *c) {
    int rc = xi_enter(v, c);
    if (XI_UNLIKELY(rc < 0))
        raise_error(d->st, rc);
    return rc;
}

/*
 * Numbers that are not the last in their container, without a call: read as docs/value-format.md has them, each word
 * once, and the cursor moved on as xi_next() would, which sees to everything else.
 */
static inline bool next_number(xi_cursor *c, PyObject **o) {
    uint64_t word, bits;
    if (c->remaining < 2 || c->end - c->at < 16)
        return false;
    word = __atomic_load_n((const uint64_t *)(const void *)c->at, __ATOMIC_RELAXED);
    if ((uint32_t)word == XI_INT32) {
        c->at += 8;
        c->remaining--;
        *o = PyLong_FromLong((int32_t)(word >> 32));
        return true;
    }
    if (word == (XI_FLOAT | (uint64_t)16 << 32)) {
        double v;
        bits = __atomic_load_n((const uint64_t *)(const void *)(c->at + 8), __ATOMIC_RELAXED);
        memcpy(&v, &bits, sizeof v);
        c->at += 16;
        c->remaining--;
        *o = PyFloat_FromDouble(v);
        return true;
    }
    return false;
}

/* The next child as an object: 1, 0 at the end, -1 with an exception. Counts are the cursor's to enforce. */
static inline int next_child(Decoder *d, xi_cursor *c, PyObject **o) {
    if (next_number(c, o))
        return XI_LIKELY(*o != NULL) ? 1 : -1;
    xi_value v;
    int rc = xi_next(c, &v);
    if (XI_UNLIKELY(rc != 1)) {
        if (rc < 0)
            raise_error(d->st, rc);
        return rc;
    }
    *o = decode(d, &v);
    return XI_LIKELY(*o != NULL) ? 1 : -1;
}

static PyObject *decode_tuple(Decoder *d, const xi_value *v) {
    xi_cursor c;
    PyObject *item;
    Py_ssize_t i = 0;
    int rc;
    if (enter(d, v, &c) < 0)
        return NULL;
    PyObject *tuple = PyTuple_New((Py_ssize_t)v->count);
    if (!tuple)
        return NULL;
    while ((rc = next_child(d, &c, &item)) == 1)
        PyTuple_SET_ITEM(tuple, i++, item);
    if (rc < 0)
        Py_CLEAR(tuple);
    return tuple;
}

static PyObject *decode_list(Decoder *d, const xi_value *v) {
    xi_cursor c;
    PyObject *item;
    Py_ssize_t i = 0;
    int rc;
    if (enter(d, v, &c) < 0)
        return NULL;
    PyObject *list = PyList_New((Py_ssize_t)v->count);
    if (!list)
        return NULL;
    while ((rc = next_child(d, &c, &item)) == 1)
        PyList_SET_ITEM(list, i++, item);
    if (rc < 0)
        Py_CLEAR(list);
    return list;
}

static PyObject *decode_set(Decoder *d, const xi_value *v) {
    xi_cursor c;
    PyObject *item;
    int rc;
    if (enter(d, v, &c) < 0)
        return NULL;
    PyObject *set = v->tag == XI_SET ? PySet_New(NULL) : PyFrozenSet_New(NULL);
    if (!set)
        return NULL;
    while ((rc = next_child(d, &c, &item)) == 1) {
        int added = PySet_Add(set, item);
        Py_DECREF(item);
        if (added < 0) {
            rc = -1;
            break;
        }
    }
    if (rc < 0)
        Py_CLEAR(set);
    return set;
}

static PyObject *decode_dict(Decoder *d, const xi_value *v) {
    xi_cursor c;
    PyObject *key, *value;
    int rc;
    if (enter(d, v, &c) < 0)
        return NULL;
    PyObject *dict = PyDict_New();
    if (!dict)
        return NULL;
    while ((rc = next_child(d, &c, &key)) == 1) {
        rc = next_child(d, &c, &value);
        if (rc == 1) {
            rc = PyDict_SetItem(dict, key, value);
            Py_DECREF(value);
        } else {
            rc = -1; /* the cursor promises pairs, so there is an exception */
        }
        Py_DECREF(key);
        if (rc < 0)
            break;
    }
    if (rc < 0)
        Py_CLEAR(dict);
    return dict;
}

/* ---------------------------------------------------------------- pickle */

/* The pickle's own bytes: looked at in place where they lie in shared memory, which stays while the view does. */
static PyObject *pickle_stream(Decoder *d, xi_cursor *c) {
    xi_value v;
    int rc = xi_next(c, &v);
    if (rc == 1 && v.tag == XI_BYTES) {
        if (v.length < 65536 || !xi_msg_borrowed(decoder_message(d)))
            return copy_of_bytes(v.data, v.length);
        return decoder_borrow(d) < 0 ? NULL : view_new(d->st, d->borrow, v.data, v.length, NULL);
    }
    if (rc < 0)
        return raise_error(d->st, rc);
    PyErr_SetString(d->st->errors[-XI_E_CORRUPT], "a received pickle does not begin with its bytes");
    return NULL;
}

static PyObject *pickle_buffers(Decoder *d, xi_cursor *c) {
    PyObject *list = PyList_New(0), *item;
    int rc = -1;
    if (!list)
        return NULL;
    while ((rc = next_child(d, c, &item)) == 1) {
        int appended = PyList_Append(list, item);
        Py_DECREF(item);
        if (appended < 0) {
            rc = -1;
            break;
        }
    }
    if (rc < 0)
        Py_CLEAR(list);
    return list;
}

static PyObject *decode_pickle(Decoder *d, const xi_value *v) {
    xi_cursor c;
    if (d->ch->refuse_pickle) {
        PyErr_SetString(d->st->errors[-XI_E_ACCESS],
                        d->ch->pickle == PICKLE_REFUSE
                            ? "it is a pickle, and this channel was opened with pickle='refuse'"
                            : "it is a pickle, and other users may send to this channel: what they put into it would run as "
                              "you. Open the channel with pickle='allow' if you trust them all");
        return NULL;
    }
    if (AUDIT(d->st, "xidata.unpickle", "ss", d->ch->interp->ns, d->ch->name) < 0 || enter(d, v, &c) < 0 ||
        load_attribute(&d->st->pickle_loads, "pickle", "loads") < 0)
        return NULL;
    PyObject *stream = pickle_stream(d, &c), *o = NULL;
    PyObject *buffers = stream ? pickle_buffers(d, &c) : NULL;
    PyObject *args = buffers ? PyTuple_Pack(1, stream) : NULL;
    PyObject *keywords = args ? Py_BuildValue("{s:O}", "buffers", buffers) : NULL;
    if (keywords)
        o = PyObject_Call(d->st->pickle_loads, args, keywords);
    Py_XDECREF(keywords);
    Py_XDECREF(args);
    Py_XDECREF(buffers);
    Py_XDECREF(stream);
    return o;
}

/* -------------------------------------------------------------- the whole */

static PyObject *unknown(Decoder *d, const xi_value *v) {
    PyErr_Format(d->st->errors[-XI_E_TYPE], "a value of kind %u: nothing here knows what that is", (unsigned)v->tag);
    return NULL;
}

/* A str on a channel that does not pass lone surrogates. */
static PyObject *decode_fit_str(Decoder *d, const xi_value *v) {
    PyObject *s = decode_str(d->st, v);
    int found = s && (v->flags & XI_F_SURROGATES) ? text_has_surrogates(d->st, s) : 0;
    if (found == 0)
        return s;
    PyObject *fit = found < 0 ? NULL : text_fit(d->ch, s);
    Py_DECREF(s);
    return fit;
}

PyObject *decode(Decoder *d, const xi_value *v) {
    switch (v->tag) {
    case XI_NONE: return Py_NewRef(Py_None);
    case XI_BOOL: return Py_NewRef(v->u.boolean ? Py_True : Py_False);
    case XI_INT32:
    case XI_INT64: return PyLong_FromLongLong(v->u.integer);
    case XI_FLOAT: return PyFloat_FromDouble(v->u.real);
    case XI_COMPLEX: return PyComplex_FromDoubles(v->u.complex_[0], v->u.complex_[1]);
    case XI_BIGINT: return decode_big_int(v);
    case XI_STR: return XI_LIKELY(d->ch->errors == ERRORS_PASS) ? decode_str(d->st, v) : decode_fit_str(d, v);
    case XI_BYTES: return decode_bytes(d, v);
    case XI_TUPLE: return decode_tuple(d, v);
    case XI_LIST: return decode_list(d, v);
    case XI_SET:
    case XI_FROZENSET: return decode_set(d, v);
    case XI_DICT: return decode_dict(d, v);
    case XI_EXT: return decode_ext(d, v);
    case XI_BUFFER: return decode_buffer(d, v);
    case XI_NDARRAY: return decode_array(d, v);
    case XI_PICKLE: return decode_pickle(d, v);
    default: return unknown(d, v);
    }
}

/*
 * The value is gone from the channel, so the error says so, with what happened as its cause. What is not an Exception
 * (KeyboardInterrupt) stays as it is: the caller keeps the message for the next call.
 */
static void lost(Decoder *d) {
    PyObject *type, *cause, *traceback, *made;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return;
    PyErr_Fetch(&type, &cause, &traceback);
    PyErr_NormalizeException(&type, &cause, &traceback);
    if (traceback)
        PyException_SetTraceback(cause, traceback);
    const char *lost = is_claim(decoder_message(d)) ? "" : " and is lost"; /* a claim is still to be settled */
    PyObject *text = PyUnicode_FromFormat("a value received from channel '%s' could not be decoded%s: %s: %S",
                                          d->ch->name, lost, TYPE_NAME((PyTypeObject *)type), cause);
    made = text ? PyObject_CallFunctionObjArgs(d->st->decode_error, text, NULL) : NULL;
    if (made) {
        PyException_SetContext(made, Py_NewRef(cause));
        PyException_SetCause(made, Py_NewRef(cause));
        PyErr_SetObject(d->st->decode_error, made);
    }
    Py_XDECREF(text);
    Py_XDECREF(made);
    Py_XDECREF(type);
    Py_XDECREF(cause);
    Py_XDECREF(traceback);
}

PyObject *decode_message(Decoder *d) {
    const xi_msg *m = decoder_message(d);
    /* The commonest by hand: an int of 32 bits is one word (docs/value-format.md). */
    if (XI_LIKELY(m->size == 8)) {
        uint64_t word;
        memcpy(&word, m->data, sizeof word);
        if ((uint32_t)word == XI_INT32)
            return PyLong_FromLong((int32_t)(word >> 32));
    }
    xi_cursor c;
    xi_value v, surplus;
    PyObject *o = NULL;
    xi_cursor_init(&c, m->data, m->size);
    int rc = xi_next(&c, &v);
    if (rc == 1)
        o = decode(d, &v);
    else
        raise_error(d->st, rc < 0 ? rc : XI_E_CORRUPT);
    if (o && xi_next(&c, &surplus) != 0) {
        Py_CLEAR(o);
        raise_error(d->st, XI_E_CORRUPT);
    }
    if (!o)
        lost(d);
    return o;
}
