/* SPDX-License-Identifier: MIT */
/*
 * The exception classes. Each enum xi_error has one; all derive from
 * xidata.Error, and where Python has a class that says the same (queue.Empty,
 * TimeoutError, OSError, ...) from that too, so that existing handlers work.
 * (Full is in xidata/_full.py: what queue loads is not to be waited for at the
 * start of every interpreter. queue.Empty is _queue's, which loads nothing.)
 * Messages are the library's sentences.
 */
#include "binding.h"

#include <errno.h>

static const struct {
    int code;
    const char *name, *also_module, *also, *doc;
} classes[] = {
    {XI_E_AGAIN, "Empty", "_queue", "Empty", "Nothing to receive right now (timeout=0). Also a queue.Empty."},
    {XI_E_TIMEOUT, "Timeout", "builtins", "TimeoutError", "The timeout ran out. Also a TimeoutError."},
    {XI_E_CLOSED, "ChannelClosed", NULL, NULL,
     "The channel is closed: senders learn it at once, receivers when they have drained it."},
    {XI_E_NOMEM, "NoMemory", "builtins", "MemoryError",
     "The process ran out of memory, mappings or file descriptors. Also a MemoryError."},
    {XI_E_NOSPACE, "ShmFull", "builtins", "OSError", "Shared memory (/dev/shm) is full. Also an OSError (ENOSPC)."},
    {XI_E_QUOTA, "Quota", NULL, NULL, "This user's quota at the broker is used up."},
    {XI_E_INVAL, "InvalidArgument", "builtins", "ValueError", "An argument is wrong. Also a ValueError."},
    {XI_E_TOOBIG, "TooBig", "builtins", "ValueError",
     "Larger than the format or the channel can hold. Also a ValueError."},
    {XI_E_CORRUPT, "Corrupt", NULL, NULL, "Bytes written by another process are not valid; the value was skipped."},
    {XI_E_TYPE, "WrongType", "builtins", "TypeError", "A value is of another kind than asked for. Also a TypeError."},
    {XI_E_RANGE, "OutOfRange", "builtins", "OverflowError",
     "A value does not fit exactly what it was asked as. Also an OverflowError."},
    {XI_E_DEPTH, "TooDeep", "builtins", "ValueError", "Nested deeper than 256 levels. Also a ValueError."},
    {XI_E_FORKED, "Forked", NULL, NULL, "A handle from before fork() was used in the child."},
    {XI_E_ENDING, "Ending", NULL, NULL, "This interpreter was told to end: its last reference is gone."},
    {XI_E_BROKER, "Broker", "builtins", "ConnectionError",
     "No broker answers and none could be started. Also a ConnectionError."},
    {XI_E_MISMATCH, "Mismatch", NULL, NULL, "The channel exists with another mode, or a version differs."},
    {XI_E_ACCESS, "AccessDenied", "builtins", "PermissionError", "Not permitted. Also a PermissionError."},
    {XI_E_LIMIT, "Limit", NULL, NULL, "A fixed limit was met (groups, waiters, interpreters, ...)."},
    {XI_E_NOENT, "NotFound", "builtins", "LookupError",
     "No such interpreter, channel or group. Also a LookupError."},
    {XI_E_SYSTEM, "SystemFailure", "builtins", "OSError", "A system call failed unexpectedly. Also an OSError."},
    {XI_E_LEFT, "Left", NULL, NULL, "The handle was closed, or its interpreter left."},
    {XI_E_REMOVED, "ChannelRemoved", NULL, NULL, "The channel was removed, with what was in it."},
    {XI_E_NO_PRODUCER, "NoProducer", NULL, NULL, "Nothing is left in the channel, and nobody has it open to send."},
    {XI_E_NO_CONSUMER, "NoConsumer", NULL, NULL, "Nobody has the channel open to receive."},
    {XI_E_DIED, "ServerDied", NULL, NULL, "Who had taken the call died, or gave it up, before replying."},
    {XI_E_STALE, "Stale", NULL, NULL, "The delivery is no longer this consumer's."},
};

/* A new class `name` below xidata.Error and, if given, `also` of `also_module`; added to the module. */
static PyObject *make_class(PyObject *module, State *st, const char *name, const char *also_module, const char *also,
                            const char *doc) {
    char qualified[64];
    PyObject *bases = NULL, *made = NULL;
    PyOS_snprintf(qualified, sizeof qualified, "xidata.%s", name);
    if (also) {
        PyObject *m = PyImport_ImportModule(also_module);
        if (!m && also_module[0] == '_' && PyErr_ExceptionMatches(PyExc_ImportError)) { /* built without: queue's own */
            PyErr_Clear();
            m = PyImport_ImportModule(also_module + 1);
        }
        PyObject *second = m ? PyObject_GetAttrString(m, also) : NULL;
        bases = second ? PyTuple_Pack(2, st->error, second) : NULL;
        Py_XDECREF(m);
        Py_XDECREF(second);
        if (!bases)
            return NULL;
    }
    made = PyErr_NewExceptionWithDoc(qualified, doc, bases ? bases : st->error, NULL);
    Py_XDECREF(bases);
    if (made && PyModule_AddObjectRef(module, name, made) < 0)
        Py_CLEAR(made);
    return made;
}

static int set_code(PyObject *class_, int code) {
    PyObject *number = PyLong_FromLong(code);
    int rc = number ? PyObject_SetAttrString(class_, "code", number) : -1;
    Py_XDECREF(number);
    return rc;
}

int errors_init(PyObject *module, State *st) {
    st->error = PyErr_NewExceptionWithDoc("xidata.Error",
                                          "The base of everything that xidata raises. `code` is the number of the C "
                                          "library's error, 0 where there is none.",
                                          NULL, NULL);
    if (!st->error || PyModule_AddObjectRef(module, "Error", st->error) < 0 || set_code(st->error, 0) < 0)
        return -1;
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        PyObject *made = make_class(module, st, classes[i].name, classes[i].also_module, classes[i].also,
                                    classes[i].doc);
        st->errors[-classes[i].code] = made;
        if (!made || set_code(made, classes[i].code) < 0)
            return -1;
    }
    st->decode_error = make_class(module, st, "DecodeError", NULL, NULL,
                                  "A value was received but could not be turned into an object; it is lost. "
                                  "__cause__ says why.");
    return st->decode_error ? 0 : -1;
}

static PyObject *raise_text(PyObject *class_, int code, const char *sentence) {
    PyObject *text = PyUnicode_DecodeUTF8(sentence, (Py_ssize_t)strlen(sentence), "replace");
    if (!text)
        return NULL;
    if (code == XI_E_NOSPACE) {
        PyObject *exception = PyObject_CallFunction(class_, "iO", ENOSPC, text);
        if (exception)
            PyErr_SetObject(class_, exception);
        Py_XDECREF(exception);
    } else {
        PyErr_SetObject(class_, text);
    }
    Py_DECREF(text);
    return NULL;
}

PyObject *raise_error(State *st, int64_t error) {
    int code = (int)error;
    if (error == XI_RAISED)
        return NULL;
    if (code >= 0 || code <= -XI_ERRORS || !st->errors[-code]) {
        PyErr_Format(st->error, "unexpected result %d (%s) of the library", code, xi_error_name(code));
        return NULL;
    }
    return raise_text(st->errors[-code], code, xi_error_text(code));
}

PyObject *raise_send_error(State *st, int64_t error) {
    if (error != XI_E_AGAIN)
        return raise_error(st, error);
    char sentence[512];
    PyOS_snprintf(sentence, sizeof sentence, "%s", xi_error_text(XI_E_AGAIN)); /* loading runs code that may fail otherwise */
    return load_attribute(&st->full, "xidata", "Full") < 0 ? NULL : raise_text(st->full, XI_E_AGAIN, sentence);
}
