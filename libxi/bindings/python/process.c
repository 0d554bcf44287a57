/* SPDX-License-Identifier: MIT */
/*
 * What the Python layers above need of processes and cannot have from the
 * standard library: to die with one's parent, and to know in a few loads
 * whether an interpreter is still there.
 *
 * An interpreter that ends when nobody refers to it any more is gone from the
 * moment when its last reference is dropped, though its process may take a
 * moment to finish: what it sent counts as a dead one's from then on.
 */
#include "binding.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

PyObject *process_die_with_parent(PyObject *Py_UNUSED(module), PyObject *arg) {
    long parent = PyLong_AsLong(arg);
    if (parent == -1 && PyErr_Occurred())
        return NULL;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (getppid() != (pid_t)parent)
        (void)raise(SIGKILL); /* it was faster */
    Py_RETURN_NONE;
}

/* 1 if it is there, 0 if not, or an enum xi_error. */
static int present(xi_observer *o, int64_t id) {
    xi_interp_info some[32], *all = some;
    int64_t room = sizeof some / sizeof some[0], n;
    while ((n = xi_list_interps(o, all, (size_t)room)) > room) {
        xi_interp_info *more = PyMem_RawRealloc(all == some ? NULL : all, (size_t)(n + 16) * sizeof *more);
        if (!more) {
            n = XI_E_NOMEM;
            break;
        }
        all = more;
        room = n + 16;
    }
    int found = n < 0 ? (int)n : 0;
    for (int64_t i = 0; i < n; i++)
        if (all[i].id == id)
            found = !(all[i].flags & XI_JOIN_REQUIRES_REF) || all[i].id_refcount > 0;
    if (all != some)
        PyMem_RawFree(all);
    return found;
}

PyObject *process_alive(Interp *in, PyObject *arg) {
    int64_t id;
    if (!interp_id_converter(in->st, arg, &id) || interp_enter(in) < 0)
        return NULL;
    int found = id == in->id ? 1 : present(xi_observer_of(in->me), id);
    interp_exit(in);
    return found < 0 ? raise_error(in->st, found) : PyBool_FromLong(found);
}
