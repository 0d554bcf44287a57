/* SPDX-License-Identifier: MIT */
/* Loans by generation: loans.c. */
#ifndef XI_PYTHON_LOANS_H
#define XI_PYTHON_LOANS_H

#include "binding.h"

PyObject *loans_collect(PyObject *module, PyObject *args, PyObject *keywords);
PyObject *loans_get_threshold(PyObject *module, PyObject *ignored);
PyObject *loans_set_threshold(PyObject *module, PyObject *args);
PyObject *loans_get_count(PyObject *module, PyObject *ignored);
PyObject *loans_get_stats(PyObject *module, PyObject *ignored);
PyObject *loans_freeze(PyObject *module, PyObject *ignored);
PyObject *loans_unfreeze(PyObject *module, PyObject *ignored);
PyObject *loans_get_freeze_count(PyObject *module, PyObject *ignored);
PyObject *loans_enable(PyObject *module, PyObject *ignored);
PyObject *loans_disable(PyObject *module, PyObject *ignored);
PyObject *loans_isenabled(PyObject *module, PyObject *ignored);

#endif
