/* SPDX-License-Identifier: MIT */
/*
 * The limited API's twins of what api.h has inline of the whole one. Only what the
 * limited API of 3.11 declares is called, so that every later version has it
 * (tests/system/test_python_abi3.sh looks); what it lacks is had from the
 * objects themselves, as Python code would.
 */
#include "binding.h"

#include <stdarg.h>

int limited_init(State *st) {
    PyObject *audit = PySys_GetObject("audit");
    if (!audit) {
        PyErr_SetString(PyExc_RuntimeError, "lost sys.audit");
        return -1;
    }
    st->audit = Py_NewRef(audit);
    st->s_isascii = PyUnicode_InternFromString("isascii");
    return st->s_isascii ? 0 : -1;
}

/* 3.12 asks whether the module is for interpreters with a GIL of their own, 3.13 whether it needs one; 3.11 knows neither. */
void fill_slots(PyModuleDef_Slot *slots) {
    enum { MULTIPLE_INTERPRETERS = 3, GIL = 4, PER_INTERPRETER = 2, USED = 0 }; /* moduleobject.h's */
    if (Py_Version >= 0x030c0000)
        slots[0] = (PyModuleDef_Slot){MULTIPLE_INTERPRETERS, (void *)(uintptr_t)PER_INTERPRETER};
    if (Py_Version >= 0x030d0000)
        slots[1] = (PyModuleDef_Slot){GIL, (void *)(uintptr_t)USED};
}

int limited_audit(State *st, const char *event, const char *format, ...) {
    va_list values;
    PyObject *audit = st->audit ? st->audit : PySys_GetObject("audit"); /* the module may have been cleared */
    if (!audit)
        return 0; /* the interpreter is coming to its end, and has no hooks any more */
    PyObject *what = PyUnicode_InternFromString(event), *done = NULL, *args[2] = {NULL, NULL};
    va_start(values, format); /* "ss" or "sL" */
    args[0] = PyUnicode_FromString(va_arg(values, const char *));
    args[1] = format[1] == 's' ? PyUnicode_FromString(va_arg(values, const char *))
                               : PyLong_FromLongLong(va_arg(values, long long));
    va_end(values);
    if (what && args[0] && args[1])
        done = PyObject_CallFunctionObjArgs(audit, what, args[0], args[1], NULL);
    Py_XDECREF(what);
    Py_XDECREF(args[0]);
    Py_XDECREF(args[1]);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* --------------------------------------------------------------- objects */

/* Types that C made are called "module.name" (but builtin ones "name"), and classes that Python code made "name". */
const char *limited_type_name(PyTypeObject *type, char *to, size_t size) {
    unsigned long flags = PyType_GetFlags(type);
    bool of_c = !(flags & Py_TPFLAGS_HEAPTYPE) || (flags & Py_TPFLAGS_IMMUTABLETYPE);
    PyObject *name = PyType_GetName(type);
    PyObject *module = name && of_c ? PyObject_GetAttrString((PyObject *)type, "__module__") : NULL;
    const char *text = name ? PyUnicode_AsUTF8(name) : NULL;
    const char *home = module && PyUnicode_Check(module) ? PyUnicode_AsUTF8(module) : NULL;
    bool dotted = home && strcmp(home, "builtins") != 0;
    PyOS_snprintf(to, size, "%s%s%s", dotted ? home : "", dotted ? "." : "", text ? text : "?");
    Py_XDECREF(name);
    Py_XDECREF(module);
    PyErr_Clear(); /* for an error's sentence, or to be compared */
    return to;
}

PyObject *dict_of(PyObject *o) {
    PyObject *own = PyObject_GenericGetDict(o, NULL);
    if (own || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return own;
    PyErr_Clear();
    return PyDict_New();
}

/* ------------------------------------------------------------------ ints */

size_t int_bytes(PyObject *obj) {
    PyObject *number = PyObject_CallMethod(obj, "bit_length", NULL);
    size_t bits = number ? PyLong_AsSize_t(number) : (size_t)-1;
    Py_XDECREF(number);
    return bits == (size_t)-1 ? bits : bits / 8 + 1;
}

static PyObject *call_signed(PyObject *method, PyObject *args) {
    PyObject *keywords = method && args ? Py_BuildValue("{s:O}", "signed", Py_True) : NULL;
    PyObject *o = keywords ? PyObject_Call(method, args, keywords) : NULL;
    Py_XDECREF(keywords);
    Py_XDECREF(args);
    Py_XDECREF(method);
    return o;
}

int int_to_bytes(PyObject *obj, uint8_t *to, size_t n) {
    PyObject *bytes = call_signed(PyObject_GetAttrString(obj, "to_bytes"),
                                  Py_BuildValue("(ns)", (Py_ssize_t)n, "little"));
    if (!bytes)
        return -1;
    memcpy(to, PyBytes_AsString(bytes), n);
    Py_DECREF(bytes);
    return 0;
}

PyObject *int_from_bytes(const uint8_t *from, size_t n) {
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)from, (Py_ssize_t)n);
    return bytes ? call_signed(PyObject_GetAttrString((PyObject *)&PyLong_Type, "from_bytes"),
                               Py_BuildValue("(Ns)", bytes, "little"))
                 : NULL;
}

/* ------------------------------------------------------------------ text */

/*
 * The characters are brought into four bytes each, and then into what they need. A long text that is ASCII needs no
 * copy: that is its UTF-8 form, which it has already. (Others would be given one, and keep it.)
 */
static bool is_ascii(State *st, PyObject *s) {
    PyObject *answer = PyObject_CallMethodObjArgs(s, st->s_isascii, NULL);
    Py_XDECREF(answer);
    return answer == Py_True;
}

static int kind_of(const Py_UCS4 *p, size_t n, bool *ascii) {
    Py_UCS4 all = 0;
    for (size_t i = 0; i < n; i++)
        all |= p[i];
    *ascii = all < 0x80;
    return all < 0x100 ? 1 : all < 0x10000 ? 2 : 4;
}

/* Into the front of the same memory: what is written has been read. */
static void shrink(void *memory, size_t n, int kind) {
    const char *from = memory;
    char *to = memory;
    for (size_t i = 0; i < n && kind < 4; i++, from += 4, to += kind) {
        uint32_t c;
        memcpy(&c, from, 4);
        uint8_t one = (uint8_t)c;
        uint16_t two = (uint16_t)c;
        memcpy(to, kind == 1 ? (const void *)&one : &two, (size_t)kind);
    }
}

int text_open(State *st, Text *t, PyObject *s) {
    const size_t small = sizeof t->small.ucs4 / sizeof t->small.ucs4[0];
    Py_ssize_t n = PyUnicode_GetLength(s);
    t->heap = NULL;
    t->data = &t->small;
    t->count = (size_t)n;
    if (n < 0)
        return -1;
    if (t->count > small && is_ascii(st, s)) {
        t->kind = 1;
        t->ascii = true;
        t->data = PyUnicode_AsUTF8AndSize(s, &n);
        return t->data ? 0 : -1;
    }
    if (PyErr_Occurred())
        return -1;
    if (t->count > small && !(t->data = t->heap = malloc(4 * t->count))) {
        PyErr_NoMemory();
        return -1;
    }
    Py_UCS4 *p = t->heap ? t->heap : t->small.ucs4;
    if (n && !PyUnicode_AsUCS4(s, p, n, 0)) {
        text_close(t);
        return -1;
    }
    t->kind = kind_of(p, t->count, &t->ascii);
    shrink(p, t->count, t->kind);
    return 0;
}

void *draft_open(Draft *d, size_t count, int kind, Py_UCS4 Py_UNUSED(most)) {
    size_t n = count * (size_t)kind;
    d->count = count;
    d->kind = kind;
    d->data = n <= sizeof d->small ? d->small : malloc(n);
    return d->data ? d->data : (void *)PyErr_NoMemory();
}

void draft_drop(Draft *d) {
    if (d->data != d->small)
        free(d->data);
}

/* Two halves of a pair would become one character in UTF-16: here each is its own. */
static PyObject *from_ucs2(const uint16_t *p, size_t n) {
    int little = -1;
    bool lone = false;
    for (size_t i = 0; i < n && !lone; i++)
        lone = (p[i] & 0xf800) == 0xd800;
    if (!lone)
        return PyUnicode_DecodeUTF16((const char *)p, 2 * (Py_ssize_t)n, NULL, &little);
    uint32_t *wide = malloc(4 * n);
    for (size_t i = 0; wide && i < n; i++)
        wide[i] = p[i];
    PyObject *s = wide ? PyUnicode_DecodeUTF32((const char *)wide, 4 * (Py_ssize_t)n, "surrogatepass", &little)
                       : PyErr_NoMemory();
    free(wide);
    return s;
}

PyObject *draft_end(Draft *d, bool Py_UNUSED(narrow)) {
    int little = -1;
    PyObject *s = d->kind == 1   ? PyUnicode_DecodeLatin1(d->data, (Py_ssize_t)d->count, NULL)
                  : d->kind == 2 ? from_ucs2(d->data, d->count)
                                 : PyUnicode_DecodeUTF32(d->data, 4 * (Py_ssize_t)d->count, "surrogatepass", &little);
    draft_drop(d);
    return s;
}

/* --------------------------------------------------------------- buffers */

PyObject *pickle_buffer_of(PyObject *o) {
    PyObject *type = NULL;
    if (load_attribute(&type, "pickle", "PickleBuffer") < 0)
        return NULL;
    PyObject *buffer = PyObject_CallFunctionObjArgs(type, o, NULL);
    Py_DECREF(type);
    return buffer;
}

int pickle_buffer_look(PyObject *buffer, PickledMemory *m) {
    Py_buffer b;
    if (PyObject_GetBuffer(buffer, &b, PyBUF_FULL_RO) < 0)
        return -1;
    *m = (PickledMemory){b.obj, b.buf, b.len, !b.readonly, PyBuffer_IsContiguous(&b, 'C')};
    PyBuffer_Release(&b); /* the pickle's own stays */
    return 0;
}

int pickle_buffer_release(PyObject *buffer) {
    PyObject *done = PyObject_CallMethod(buffer, "release", NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* -------------------------------------------------------------- datetime */

static PyObject *make_date(int year, int month, int day, PyTypeObject *type) {
    return PyObject_CallFunction((PyObject *)type, "iii", year, month, day);
}

/* Steals the arguments. */
static PyObject *make_folded(PyTypeObject *type, PyObject *args, int fold) {
    PyObject *keywords = args ? Py_BuildValue("{s:i}", "fold", fold) : NULL;
    PyObject *o = keywords ? PyObject_Call((PyObject *)type, args, keywords) : NULL;
    Py_XDECREF(keywords);
    Py_XDECREF(args);
    return o;
}

static PyObject *make_datetime(int year, int month, int day, int hour, int minute, int second, int microsecond,
                               PyObject *tz, int fold, PyTypeObject *type) {
    return make_folded(type, Py_BuildValue("(iiiiiiiO)", year, month, day, hour, minute, second, microsecond, tz), fold);
}

static PyObject *make_time(int hour, int minute, int second, int microsecond, PyObject *tz, int fold, PyTypeObject *type) {
    return make_folded(type, Py_BuildValue("(iiiiO)", hour, minute, second, microsecond, tz), fold);
}

static PyObject *make_delta(int days, int seconds, int microseconds, int Py_UNUSED(normalize), PyTypeObject *type) {
    return PyObject_CallFunction((PyObject *)type, "iii", days, seconds, microseconds);
}

static PyObject *make_timezone(PyObject *offset, PyObject *Py_UNUSED(name)) {
    PyObject *type = NULL;
    if (load_attribute(&type, "datetime", "timezone") < 0)
        return NULL;
    PyObject *tz = PyObject_CallFunctionObjArgs(type, offset, NULL);
    Py_DECREF(type);
    return tz;
}

PyDateTime_CAPI *datetime_import(State *st) {
    PyDateTime_CAPI *api = &st->datetime;
    if (load_type(&api->DateType, "datetime", "date") < 0 || load_type(&api->DateTimeType, "datetime", "datetime") < 0 ||
        load_type(&api->TimeType, "datetime", "time") < 0 || load_type(&api->DeltaType, "datetime", "timedelta") < 0 ||
        load_attribute(&api->TimeZone_UTC, "datetime", "UTC") < 0)
        return NULL;
    api->Date_FromDate = make_date;
    api->DateTime_FromDateAndTimeAndFold = make_datetime;
    api->Time_FromTimeAndFold = make_time;
    api->Delta_FromDelta = make_delta;
    api->TimeZone_FromTimeZone = make_timezone;
    return api;
}

int limited_number(PyObject *o, const char *name) {
    PyObject *number = PyObject_GetAttrString(o, name);
    int n = number ? (int)PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    return n;
}

PyObject *limited_tzinfo(PyObject *o) {
    PyObject *tz = PyObject_GetAttrString(o, "tzinfo");
    Py_XDECREF(tz); /* the object has it */
    return tz;
}
