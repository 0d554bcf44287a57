/* SPDX-License-Identifier: MIT */
/*
 * Warnings, under the standard filters of the module `warnings`. They tell of
 * what is no error, and costs time or memory: a sender that waits for slow
 * receivers, values that nobody is left to receive, a loan dropped unsent, loans held for long. All
 * are of xidata.Warning, a ResourceWarning, so they are silent unless asked for
 * (python -X dev, -W default::ResourceWarning).
 *
 * None is looked for where values flow: the first after a second of sleep, the
 * others when something ends.
 */
#include "warn.h"

/* -1 with an exception. */
static int warn(const char *category, PyObject *text) {
    PyObject *class_ = NULL;
    int rc = -1;
    if (text && load_attribute(&class_, "xidata", category) == 0)
        rc = PyErr_WarnFormat(class_, 1, "%U", text);
    Py_XDECREF(class_);
    Py_XDECREF(text);
    return rc;
}

int warn_slow_consumer(Channel *ch) {
    xi_channel_info info;
    if (xi_channel_stat(ch->h, &info) < 0)
        return 0; /* the send itself will say why */
    return warn("SlowConsumerWarning",
                PyUnicode_FromFormat("sending on channel '%s' has waited a second for room: %llu values wait to be received, "
                                     "and %llu handles may receive them",
                                     ch->name, (unsigned long long)info.depth, (unsigned long long)info.consumers));
}

/* A text if values wait in the channel and no handle but this is open; None; or NULL with an exception. */
static PyObject *backlog_of(Channel *ch) {
    xi_channel_info info;
    if (channel_enter(ch) < 0)
        return NULL;
    int rc = xi_channel_stat(ch->h, &info);
    channel_exit(ch);
    if (rc < 0 || info.depth == 0 || info.handles != 1)
        return Py_NewRef(Py_None);
    return PyUnicode_FromFormat("leaving while %llu values wait in channel '%s', which nobody else has open",
                                (unsigned long long)info.depth, ch->name);
}

void warn_backlogs(Interp *in) {
    PyObject *texts = PyList_New(0); /* first all of them: a warning may run any code, and free channels */
    for (Channel *ch = in->channels; ch && texts; ch = ch->next) {
        if (ch->generation != in->st->generation || ch->freed)
            continue;
        PyObject *text = backlog_of(ch);
        if (!text)
            PyErr_Clear(); /* it is closed, or gone: nothing to warn of */
        else if (text != Py_None && PyList_Append(texts, text) < 0)
            Py_CLEAR(texts);
        Py_XDECREF(text);
    }
    for (Py_ssize_t i = 0; texts && i < PyList_GET_SIZE(texts); i++)
        if (warn("BacklogWarning", Py_NewRef(PyList_GET_ITEM(texts, i))) < 0)
            PyErr_WriteUnraisable((PyObject *)in); /* nobody is kept from leaving */
    if (!texts)
        PyErr_WriteUnraisable((PyObject *)in);
    Py_XDECREF(texts);
}

void warn_unsent_loan(size_t size) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (warn("UnsentLoanWarning",
             PyUnicode_FromFormat("a buffer of %zu bytes was dropped, neither sent nor released", size)) < 0)
        PyErr_WriteUnraisable(NULL);
    PyErr_Restore(type, value, traceback);
}

int warn_leaked_loans(const Leaked *leaked) {
    char seconds[32];
    PyOS_snprintf(seconds, sizeof seconds, "%.1f", leaked->seconds);
    return warn("LeakedLoanWarning",
                PyUnicode_FromFormat("%llu loans of %llu bytes in all are held still after two full collections, for %s s or "
                                     "more: drop the arrays and memoryviews of received values, release() buffers, or say "
                                     "xidata.loans.freeze() if they are to stay",
                                     (unsigned long long)leaked->count, (unsigned long long)leaked->bytes, seconds));
}
