/* SPDX-License-Identifier: MIT */
/*
 * What an interpreter knows of codecs beside register(): the functions that are
 * asked for a codec nobody registered, and the handlers of what does not fit.
 * Both are the module state's, so each subinterpreter has its own.
 *
 * A search is asked once for each class that would be pickled and each name or
 * id that was received and that nobody knows. What it found is kept in the
 * tables of _types.py beside what was registered, and so is that nothing was
 * found, so that a value costs the one look into a dict that it costs anyway.
 * Each change of the search path counts `search_version` on; an answer that was
 * begun under another version is used and not kept, since whoever gave it may
 * have been taken back meanwhile.
 *
 * What does not fit is text with lone surrogates, which UTF-8 has no bytes for,
 * and objects or received types without a codec. A channel's handle says with
 * `errors` what is done then:
 *
 *   surrogatepass   text as it is; what has no codec is an error (the default)
 *   strict          both are errors
 *   replace         each lone surrogate is U+FFFD; a Replacement is in the place of what has no codec
 *   another         what the handler of register_error() returns; for text also those of codecs.register_error()
 */
#include "binding.h"

/* ---------------------------------------------------------------- search */

/* The path without `function`, or with it at the end: a new tuple, so that whoever goes through the old one may. */
static int set_path(State *st, PyObject *function, bool with) {
    PyObject *list = st->search_path ? PySequence_List(st->search_path) : PyList_New(0);
    int rc = list ? 0 : -1;
    if (rc == 0 && with)
        rc = PyList_Append(list, function);
    if (rc == 0 && !with) {
        Py_ssize_t at = PySequence_Index(list, function);
        if (at < 0 && PyErr_ExceptionMatches(PyExc_ValueError)) {
            PyErr_Clear();
            PyErr_Format(st->errors[-XI_E_NOENT], "%R is no registered search function", function);
        }
        rc = at < 0 ? -1 : PySequence_DelItem(list, at);
    }
    PyObject *path = rc < 0 ? NULL : PyList_AsTuple(list), *old = st->search_path;
    Py_XDECREF(list);
    if (!path)
        return -1;
    st->search_path = path;
    st->search_version++;
    Py_XDECREF(old);
    return 0;
}

static PyObject *changed(State *st, PyObject *function, bool with) {
    if (load_attribute(&st->search_changed, "xidata._types", "search_changed") < 0 || set_path(st, function, with) < 0)
        return NULL;
    return PyObject_CallFunctionObjArgs(st->search_changed, with ? Py_None : function, NULL);
}

PyObject *codecs_register_search(State *st, PyObject *function) {
    if (!PyCallable_Check(function)) {
        PyErr_Format(st->errors[-XI_E_TYPE], "a search function is to be callable, not %s", TYPE_NAME(Py_TYPE(function)));
        return NULL;
    }
    return changed(st, function, true);
}

PyObject *codecs_unregister_search(State *st, PyObject *function) { return changed(st, function, false); }

/* (what the first function that knows returned or None, that function or None, the version of the path) */
PyObject *codecs_search(State *st, PyObject *key) {
    PyObject *path = Py_XNewRef(st->search_path);
    unsigned long long version = st->search_version;
    PyObject *codec = NULL, *function = Py_None;
    for (Py_ssize_t i = 0; path && i < PyTuple_GET_SIZE(path); i++) {
        function = PyTuple_GET_ITEM(path, i);
        codec = PyObject_CallFunctionObjArgs(function, key, NULL);
        if (!codec) {
            Py_DECREF(path);
            return NULL;
        }
        if (codec != Py_None)
            break;
        Py_CLEAR(codec);
        function = Py_None;
    }
    PyObject *answer = Py_BuildValue("OOK", codec ? codec : Py_None, function, version);
    Py_XDECREF(codec);
    Py_XDECREF(path);
    return answer;
}

/* ---------------------------------------------------------------- errors */

static const char *const error_words[] = {"surrogatepass", "strict", "replace", NULL}; /* in the order of enum errors_policy */

/* The policy of a name, or -1 with an exception if it is nobody's. */
static int policy_of(State *st, PyObject *name) {
    const char *text = PyUnicode_AsUTF8(name);
    if (!text)
        return -1;
    for (int i = 0; error_words[i]; i++)
        if (strcmp(text, error_words[i]) == 0)
            return i;
    if (st->error_handlers && PyDict_GetItemWithError(st->error_handlers, name))
        return ERRORS_CALL;
    PyObject *of_text = PyErr_Occurred() ? NULL : PyCodec_LookupError(text);
    if (of_text) {
        Py_DECREF(of_text);
        return ERRORS_CALL;
    }
    if (PyErr_ExceptionMatches(PyExc_LookupError)) {
        PyErr_Clear();
        PyErr_Format(st->errors[-XI_E_NOENT],
                     "there is no error handler '%U': it is 'strict', 'replace', 'surrogatepass', or one of "
                     "xidata.register_error() or codecs.register_error()",
                     name);
    }
    return -1;
}

int errors_converter(State *st, PyObject *o, enum errors_policy *policy, PyObject **name) {
    *policy = ERRORS_PASS;
    *name = NULL;
    if (!o || o == Py_None)
        return 0;
    if (!PyUnicode_Check(o)) {
        PyErr_Format(PyExc_TypeError, "errors is the name of an error handler, not %s", TYPE_NAME(Py_TYPE(o)));
        return -1;
    }
    int found = policy_of(st, o);
    if (found < 0)
        return -1;
    *policy = (enum errors_policy)found;
    *name = found == ERRORS_CALL ? Py_NewRef(o) : NULL;
    return 0;
}

PyObject *errors_name(const Channel *ch) {
    return ch->errors == ERRORS_CALL ? Py_NewRef(ch->errors_name) : PyUnicode_FromString(error_words[ch->errors]);
}

PyObject *codecs_register_error(State *st, PyObject *args) {
    PyObject *name, *handler;
    if (!PyArg_ParseTuple(args, "UO:register_error", &name, &handler))
        return NULL;
    if (!PyCallable_Check(handler)) {
        PyErr_Format(st->errors[-XI_E_TYPE], "an error handler is to be callable, not %s", TYPE_NAME(Py_TYPE(handler)));
        return NULL;
    }
    for (int i = 0; error_words[i]; i++)
        if (PyUnicode_CompareWithASCIIString(name, error_words[i]) == 0) {
            PyErr_Format(st->errors[-XI_E_INVAL], "'%U' stays what it is", name);
            return NULL;
        }
    if (!st->error_handlers && !(st->error_handlers = PyDict_New()))
        return NULL;
    return none_or_error(PyDict_SetItem(st->error_handlers, name, handler));
}

/* The interpreter's handler of that name: a new reference. NULL without an exception: it has none. */
static PyObject *handler_of(const Channel *ch) {
    PyObject *found = ch->st->error_handlers ? PyDict_GetItemWithError(ch->st->error_handlers, ch->errors_name) : NULL;
    return Py_XNewRef(found);
}

PyObject *codecs_lookup_error(State *st, PyObject *name) {
    PyObject *found = st->error_handlers ? PyDict_GetItemWithError(st->error_handlers, name) : NULL;
    if (!found && !PyErr_Occurred())
        PyErr_Format(st->errors[-XI_E_NOENT], "there is no handler %R of register_error()", name);
    return Py_XNewRef(found);
}

/* ------------------------------------------------------------------ text */

static bool is_lone(Py_UCS4 c) { return (c & 0xfffff800u) == 0xd800u; }

static PyObject *replaced(PyObject *s) {
    int little = -1;
    Py_ssize_t n = PyUnicode_GetLength(s);
    Py_UCS4 *all = PyUnicode_AsUCS4Copy(s);
    for (Py_ssize_t i = 0; all && i < n; i++)
        all[i] = is_lone(all[i]) ? 0xfffd : all[i];
    PyObject *made = all ? PyUnicode_DecodeUTF32((const char *)all, 4 * n, "strict", &little) : NULL;
    PyMem_Free(all);
    return made;
}

/* What the interpreter's own handler makes of the UnicodeEncodeError that is set. */
static PyObject *handled(PyObject *handler) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *made = PyObject_CallFunctionObjArgs(handler, error, NULL);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    if (made && !PyUnicode_CheckExact(made)) {
        PyErr_Format(PyExc_TypeError, "an error handler returns a str in place of a text, not %s", TYPE_NAME(Py_TYPE(made)));
        Py_CLEAR(made);
    }
    return made;
}

PyObject *text_fit(const Channel *ch, PyObject *s) {
    if (ch->errors == ERRORS_REPLACE)
        return replaced(s);
    PyObject *handler = ch->errors == ERRORS_CALL ? handler_of(ch) : NULL;
    if (PyErr_Occurred())
        return NULL;
    const char *how = ch->errors == ERRORS_CALL && !handler ? PyUnicode_AsUTF8(ch->errors_name) : "strict";
    PyObject *bytes = how ? PyUnicode_AsEncodedString(s, "utf-8", how) : NULL, *made = NULL;
    if (bytes)
        made = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), "strict");
    else if (handler && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        made = handled(handler);
    Py_XDECREF(bytes);
    Py_XDECREF(handler);
    return made;
}

/* --------------------------------------------------------------- objects */

PyObject *codec_errors(const Channel *ch) {
    if (ch->errors == ERRORS_REPLACE)
        return Py_NewRef(Py_True);
    PyObject *handler = ch->errors == ERRORS_CALL ? handler_of(ch) : NULL;
    return handler || PyErr_Occurred() ? handler : Py_NewRef(Py_None);
}

/* What stands for an object without a native form: a new reference, or NULL with an exception. */
static PyObject *stand_in(Encoder *e, PyObject *obj) {
    PyObject *errors = codec_errors(e->ch), *made = NULL;
    if (errors && load_attribute(&e->st->stand_in, "xidata._types", "stand_in") == 0)
        made = PyObject_CallFunctionObjArgs(e->st->stand_in, obj, errors, NULL);
    Py_XDECREF(errors);
    return made;
}

int encode_stand_in(Encoder *e, PyObject *obj) {
    PyObject *made = stand_in(e, obj);
    if (!made)
        return -1;
    e->replacing = false; /* what stands for another needs no other */
    int rc = encode(e, made);
    e->replacing = true;
    Py_DECREF(made);
    if (rc == ENCODE_PICKLE) {
        PyErr_SetString(PyExc_ValueError, "what an error handler returned has no native form either");
        return -1;
    }
    return rc;
}
