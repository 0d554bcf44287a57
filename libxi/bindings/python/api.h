/* SPDX-License-Identifier: MIT */
/*
 * CPython's API as this module needs it, wherever it is built.
 *
 * The module is built once for each version of CPython, with all of its API; or
 * once for the limited API of 3.11 (Py_LIMITED_API), which knows no inside of any
 * object: that one runs on 3.11 and every later version, and is slower. The
 * other files are written for the whole API. What they use of it and the limited
 * one lacks has its twin here, or, where it is longer, in limited.c; so has what
 * older versions lack.
 */
#ifndef XI_PYTHON_API_H
#define XI_PYTHON_API_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct State State;

/* The characters of a str, in the narrowest kind that holds them, while the str lives. */
typedef struct {
    const void *data;
    size_t count;
    int kind;   /* bytes a character */
    bool ascii; /* all of them are */
#ifdef Py_LIMITED_API
    void *heap; /* memory of its own */
    union {
        Py_UCS4 ucs4[64];
        uint16_t ucs2[64];
        uint8_t ucs1[64];
    } small;
#endif
} Text;

/* Memory for a str to be made: characters are copied in, looked at there, and only then become a str. */
typedef struct {
#ifdef Py_LIMITED_API
    void *data;
    size_t count;
    int kind;
    char small[256];
#else
    PyObject *s;
#endif
} Draft;

/* What a pickle.PickleBuffer is of. */
typedef struct {
    PyObject *owner; /* borrowed */
    const void *data;
    Py_ssize_t length;
    bool writable, contiguous;
} PickledMemory;

#ifdef Py_LIMITED_API /* ------------------------------------------------------------------- the limited API */

#if Py_LIMITED_API + 0 < 0x030b0000
#error "the limited API has buffers since 3.11"
#endif
#ifdef Py_GIL_DISABLED
#error "a free-threaded CPython has no limited API"
#endif

#define RUNNING_VERSION Py_Version

/* Of any object's own struct, as the whole API's are. */
#ifndef Py_INCREF
#define Py_INCREF(o) Py_INCREF((PyObject *)(o))
#endif
#ifndef Py_DECREF
#define Py_DECREF(o) Py_DECREF((PyObject *)(o))
#endif
#ifndef Py_XDECREF
#define Py_XDECREF(o) Py_XDECREF((PyObject *)(o))
#endif
#ifndef Py_TYPE
#define Py_TYPE(o) Py_TYPE((PyObject *)(o))
#endif

#define PyTuple_GET_SIZE PyTuple_Size
#define PyTuple_GET_ITEM PyTuple_GetItem
#define PyTuple_SET_ITEM (void)PyTuple_SetItem
#define PyList_GET_SIZE PyList_Size
#define PyList_GET_ITEM PyList_GetItem
#define PyList_SET_ITEM (void)PyList_SetItem
#define PyDict_GET_SIZE PyDict_Size
#define PySet_GET_SIZE PySet_Size
#define PyBytes_AS_STRING PyBytes_AsString
#define PyBytes_GET_SIZE PyBytes_Size
#define PyByteArray_AS_STRING PyByteArray_AsString
#define PyFloat_AS_DOUBLE PyFloat_AsDouble
#define PyUnicode_AsUTF8(o) PyUnicode_AsUTF8AndSize(o, NULL)
#define PyObject_CallMethodOneArg(o, name, argument) PyObject_CallMethodObjArgs(o, name, argument, NULL)
/* Without the GIL too, as those are. */
#define PyMem_RawMalloc malloc
#define PyMem_RawRealloc realloc
#define PyMem_RawFree free

/* What a type says that it is called: as its tp_name, in the memory given. */
const char *limited_type_name(PyTypeObject *type, char *to, size_t size);
#define TYPE_NAME(type) limited_type_name(type, (char[160]){0}, 160)

/* sys.audit() is a call of Python's; the limited API has PySys_Audit() since 3.13. */
int limited_audit(State *st, const char *event, const char *format, ...);
#define AUDIT limited_audit

/* Whether each version takes a slot is known when it is there: fill_slots() adds what this one is to be told. */
#define SLOTS_OF_VERSION {0, NULL}, {0, NULL},
void fill_slots(PyModuleDef_Slot *slots);

PyObject *dict_of(PyObject *o);

size_t int_bytes(PyObject *obj);
int int_to_bytes(PyObject *obj, uint8_t *to, size_t n);
PyObject *int_from_bytes(const uint8_t *from, size_t n);

int text_open(State *st, Text *t, PyObject *s);
static inline void text_close(Text *t) {
    if (t->heap)
        free(t->heap);
}
void *draft_open(Draft *d, size_t count, int kind, Py_UCS4 most);
void draft_drop(Draft *d);
PyObject *draft_end(Draft *d, bool narrow);

PyObject *pickle_buffer_of(PyObject *o);
int pickle_buffer_look(PyObject *buffer, PickledMemory *m);
int pickle_buffer_release(PyObject *buffer);

/* In place of datetime.h's: what exact.c uses of it. */
typedef struct {
    PyTypeObject *DateType, *DateTimeType, *TimeType, *DeltaType;
    PyObject *TimeZone_UTC;
    PyObject *(*Date_FromDate)(int year, int month, int day, PyTypeObject *type);
    PyObject *(*DateTime_FromDateAndTimeAndFold)(int year, int month, int day, int hour, int minute, int second,
                                                 int microsecond, PyObject *tz, int fold, PyTypeObject *type);
    PyObject *(*Time_FromTimeAndFold)(int hour, int minute, int second, int microsecond, PyObject *tz, int fold,
                                      PyTypeObject *type);
    PyObject *(*Delta_FromDelta)(int days, int seconds, int microseconds, int normalize, PyTypeObject *type);
    PyObject *(*TimeZone_FromTimeZone)(PyObject *offset, PyObject *name);
} PyDateTime_CAPI;
PyDateTime_CAPI *datetime_import(State *st);
/* -1 with an exception; so an exception is what tells of one. */
int limited_number(PyObject *o, const char *name);
#define DATETIME_FAILED() (PyErr_Occurred() != NULL)
#define PyDateTime_GET_YEAR(o) limited_number(o, "year")
#define PyDateTime_GET_MONTH(o) limited_number(o, "month")
#define PyDateTime_GET_DAY(o) limited_number(o, "day")
#define PyDateTime_DATE_GET_HOUR(o) limited_number(o, "hour")
#define PyDateTime_DATE_GET_MINUTE(o) limited_number(o, "minute")
#define PyDateTime_DATE_GET_SECOND(o) limited_number(o, "second")
#define PyDateTime_DATE_GET_MICROSECOND(o) limited_number(o, "microsecond")
#define PyDateTime_DATE_GET_FOLD(o) limited_number(o, "fold")
#define PyDateTime_TIME_GET_HOUR PyDateTime_DATE_GET_HOUR
#define PyDateTime_TIME_GET_MINUTE PyDateTime_DATE_GET_MINUTE
#define PyDateTime_TIME_GET_SECOND PyDateTime_DATE_GET_SECOND
#define PyDateTime_TIME_GET_MICROSECOND PyDateTime_DATE_GET_MICROSECOND
#define PyDateTime_TIME_GET_FOLD PyDateTime_DATE_GET_FOLD
#define PyDateTime_DELTA_GET_DAYS(o) limited_number(o, "days")
#define PyDateTime_DELTA_GET_SECONDS(o) limited_number(o, "seconds")
#define PyDateTime_DELTA_GET_MICROSECONDS(o) limited_number(o, "microseconds")
/* Borrowed; NULL with an exception. */
PyObject *limited_tzinfo(PyObject *o);
#define PyDateTime_TIME_GET_TZINFO limited_tzinfo
#define PyDateTime_DATE_GET_TZINFO limited_tzinfo

/* What these keep in the module's state, and the objects among it. */
#define LIMITED_STATE                                                                                                  \
    PyObject *audit, *s_isascii;                                                                                       \
    PyDateTime_CAPI datetime;
#define LIMITED_OBJECTS(DO)                                                                                            \
    DO(audit) DO(s_isascii) DO(datetime.DateType) DO(datetime.DateTimeType) DO(datetime.TimeType)                      \
    DO(datetime.DeltaType) DO(datetime.TimeZone_UTC)
int limited_init(State *st);

#else /* --------------------------------------------------------------------------------------- the whole API */

#include <datetime.h>

#define RUNNING_VERSION PY_VERSION_HEX

/* What older versions lack. */
#if PY_VERSION_HEX < 0x030a0000
static inline PyObject *Py_NewRef(PyObject *o) {
    Py_INCREF(o);
    return o;
}
static inline PyObject *Py_XNewRef(PyObject *o) {
    Py_XINCREF(o);
    return o;
}
#define Py_TPFLAGS_IMMUTABLETYPE 0
#define Py_TPFLAGS_DISALLOW_INSTANTIATION 0
static inline int PyModule_AddObjectRef(PyObject *m, const char *name, PyObject *o) {
    Py_INCREF(o);
    int rc = PyModule_AddObject(m, name, o);
    if (rc < 0)
        Py_DECREF(o);
    return rc;
}
#define PyDateTime_TIME_GET_TZINFO(o) (((PyDateTime_Time *)(o))->hastzinfo ? ((PyDateTime_Time *)(o))->tzinfo : Py_None)
#define PyDateTime_DATE_GET_TZINFO(o)                                                                                  \
    (((PyDateTime_DateTime *)(o))->hastzinfo ? ((PyDateTime_DateTime *)(o))->tzinfo : Py_None)
#endif

#define TYPE_NAME(type) ((type)->tp_name)
#define AUDIT(st, ...) PySys_Audit(__VA_ARGS__)

#if PY_VERSION_HEX >= 0x030d0000
/*
 * The lists of an interpreter's channels, sets and callbacks, a channel's stash and spare message, the states of loans and
 * claims, what is loaded on first need, and the search path are changed under the GIL and nothing else: a free-threaded
 * CPython switches it on for this module (docs/architecture.md, "Without a GIL").
 */
#define SLOTS_OF_VERSION                                                                                               \
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}, {Py_mod_gil, Py_MOD_GIL_USED},
#elif PY_VERSION_HEX >= 0x030c0000
#define SLOTS_OF_VERSION {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#else
#define SLOTS_OF_VERSION
#endif
static inline void fill_slots(PyModuleDef_Slot *slots) { (void)slots; }

/* What an object keeps its attributes in: a new reference, an empty one if it has none. NULL: with an exception, or not. */
static inline PyObject *dict_of(PyObject *o) {
    return Py_TYPE(o)->tp_dictoffset ? PyObject_GenericGetDict(o, NULL) : PyDict_New();
}

/* An int in two's complement, the lowest byte first: the bytes it takes, or (size_t)-1 with an exception. */
static inline size_t int_bytes(PyObject *obj) {
#if PY_VERSION_HEX >= 0x030d0000
    return (size_t)PyLong_AsNativeBytes(obj, NULL, 0, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    size_t bits = _PyLong_NumBits(obj);
    return bits == (size_t)-1 ? bits : bits / 8 + 1;
#endif
}
static inline int int_to_bytes(PyObject *obj, uint8_t *to, size_t n) {
#if PY_VERSION_HEX >= 0x030d0000
    return PyLong_AsNativeBytes(obj, to, (Py_ssize_t)n, Py_ASNATIVEBYTES_LITTLE_ENDIAN) < 0 ? -1 : 0;
#else
    return _PyLong_AsByteArray((PyLongObject *)obj, to, n, 1, 1);
#endif
}
static inline PyObject *int_from_bytes(const uint8_t *from, size_t n) {
#if PY_VERSION_HEX >= 0x030d0000
    return PyLong_FromNativeBytes(from, n, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    return _PyLong_FromByteArray(from, n, 1, 1);
#endif
}

/* -1 with an exception. */
static inline int text_open(State *st, Text *t, PyObject *s) {
    (void)st;
#if PY_VERSION_HEX < 0x030c0000
    if (PyUnicode_READY(s) < 0)
        return -1;
#endif
    *t = (Text){PyUnicode_DATA(s), (size_t)PyUnicode_GET_LENGTH(s), PyUnicode_KIND(s), PyUnicode_IS_ASCII(s)};
    return 0;
}
static inline void text_close(Text *t) { (void)t; }

/* Memory for `count` characters of that kind, none of them beyond `most`; NULL with an exception. */
static inline void *draft_open(Draft *d, size_t count, int kind, Py_UCS4 most) {
    (void)kind;
    d->s = PyUnicode_New((Py_ssize_t)count, most);
    return d->s ? PyUnicode_DATA(d->s) : NULL;
}
static inline void draft_drop(Draft *d) { Py_DECREF(d->s); }
/* The str; with `narrow`, characters that a narrower kind could hold are brought into that. */
static inline PyObject *draft_end(Draft *d, bool narrow) {
    if (!narrow)
        return d->s;
    PyObject *made = PyUnicode_FromKindAndData(PyUnicode_KIND(d->s), PyUnicode_DATA(d->s), PyUnicode_GET_LENGTH(d->s));
    Py_DECREF(d->s);
    return made;
}

static inline PyObject *pickle_buffer_of(PyObject *o) { return PyPickleBuffer_FromObject(o); }
/* -1 with an exception. */
static inline int pickle_buffer_look(PyObject *buffer, PickledMemory *m) {
    const Py_buffer *b = PyPickleBuffer_GetBuffer(buffer);
    if (!b)
        return -1;
    *m = (PickledMemory){b->obj, b->buf, b->len, !b->readonly, PyBuffer_IsContiguous(b, 'C')};
    return 0;
}
static inline int pickle_buffer_release(PyObject *buffer) { return PyPickleBuffer_Release(buffer); }

/* Its getters fail for nobody. */
static inline PyDateTime_CAPI *datetime_import(State *st) {
    (void)st;
    return PyCapsule_Import("datetime.datetime_CAPI", 0);
}
#define DATETIME_FAILED() false

#define LIMITED_STATE
#define LIMITED_OBJECTS(DO)
static inline int limited_init(State *st) {
    (void)st;
    return 0;
}

#endif

#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(op) {
#define Py_END_CRITICAL_SECTION() }
#endif

#endif
