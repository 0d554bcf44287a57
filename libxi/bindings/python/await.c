/* SPDX-License-Identifier: MIT */
/*
 * Channel's coroutines. They are made by xidata.aio, in Python, where event
 * loops are known; it is imported when the first of them is asked for.
 */
#include "binding.h"

/* xidata.aio.`name`(self, *args, **keywords) */
static PyObject *call_aio(PyObject *self, const char *name, PyObject *args, PyObject *keywords) {
    PyObject *function = NULL, *made = NULL, *mine = PyTuple_Pack(1, self);
    PyObject *all = mine ? PySequence_Concat(mine, args) : NULL;
    if (all && load_attribute(&function, "xidata.aio", name) == 0)
        made = PyObject_Call(function, all, keywords);
    Py_XDECREF(function);
    Py_XDECREF(all);
    Py_XDECREF(mine);
    return made;
}

PyObject *channel_arecv(PyObject *self, PyObject *args, PyObject *keywords) {
    return call_aio(self, "arecv", args, keywords);
}

PyObject *channel_asend(PyObject *self, PyObject *args, PyObject *keywords) {
    return call_aio(self, "asend", args, keywords);
}

PyObject *channel_aiter(PyObject *self) {
    PyObject *none = PyTuple_New(0);
    PyObject *made = none ? call_aio(self, "iterate", none, NULL) : NULL;
    Py_XDECREF(none);
    return made;
}
