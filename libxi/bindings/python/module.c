/* SPDX-License-Identifier: MIT */
/*
 * The extension module _xidata, under the package xidata. Multi-phase init, heap
 * types and module state throughout, so that every subinterpreter that imports
 * it is an interpreter of its own.
 */
#include "binding.h"
#include "loans.h"

static State *state_of(PyObject *module) { return PyModule_GetState(module); }

void state_forked(State *st) {
    st->generation++;
    loans_forked(&st->loans);
    for (Interp *in = st->interps; in; in = in->next)
        interp_forget_parent(in);
}

/* ------------------------------------------------------------- functions */

static PyObject *module_join(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"ns", "name", "requires_ref", "spin", NULL};
    State *st = state_of(module);
    const char *ns = NULL, *name = NULL;
    int requires_ref = 0;
    PyObject *spin = Py_None;
    int64_t spin_ns = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|z$zpO:join", names, &ns, &name, &requires_ref, &spin))
        return NULL;
    if (spin != Py_None) {
        double seconds = PyFloat_AsDouble(spin);
        if (seconds == -1.0 && PyErr_Occurred())
            return NULL;
        if (!(seconds >= 0 && seconds <= 1)) {
            PyErr_SetString(PyExc_ValueError, "spin is a number of seconds from 0 (sleep at once) to 1, or None");
            return NULL;
        }
        spin_ns = seconds == 0 ? -1 : seconds < 1e-9 ? 1 : (int64_t)(seconds * 1e9);
    }
    PyObject *in = interp_join(st, ns, name, requires_ref ? XI_JOIN_REQUIRES_REF : 0, spin_ns);
    if (in && !st->current)
        st->current = (Interp *)Py_NewRef(in);
    return in;
}

static PyObject *module_leave(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    State *st = state_of(module);
    if (!st->current)
        Py_RETURN_NONE;
    return interp_leave(st->current);
}

static PyObject *module_current(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    State *st = state_of(module);
    return Py_NewRef(st->current ? (PyObject *)st->current : Py_None);
}

static PyObject *module_channel(PyObject *module, PyObject *args, PyObject *keywords) {
    Interp *in = interp_current(state_of(module));
    if (!in)
        return NULL;
    Py_INCREF(in);
    PyObject *ch = channel_open(in, args, keywords);
    Py_DECREF(in);
    return ch;
}

static PyObject *module_remove(PyObject *module, PyObject *name) {
    Interp *in = interp_current(state_of(module));
    if (!in)
        return NULL;
    Py_INCREF(in);
    PyObject *removed = channel_remove(in, name);
    Py_DECREF(in);
    return removed;
}

static PyObject *module_buffer(PyObject *module, PyObject *arg) {
    Py_ssize_t size = PyNumber_AsSsize_t(arg, PyExc_OverflowError);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    Interp *in = interp_current(state_of(module));
    if (!in)
        return NULL;
    Py_INCREF(in);
    PyObject *loan = loan_new(in, size, false);
    Py_DECREF(in);
    return loan;
}

static PyObject *module_memory(PyObject *module, PyObject *args) {
    PyObject *size, *who;
    if (!PyArg_ParseTuple(args, "OO:_memory", &size, &who))
        return NULL;
    return loan_for_array(state_of(module), who, size);
}

static PyObject *module_run_free(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    Interp *in = state_of(module)->current;
    if (!in)
        return PyLong_FromLong(0);
    if (interp_enter(in) < 0)
        return NULL;
    Py_INCREF(in);
    int64_t n = free_run(in);
    interp_exit(in);
    Py_DECREF(in);
    return n < 0 ? NULL : PyLong_FromLongLong(n);
}

static PyObject *module_interpreters(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"ns", NULL};
    const char *ns = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|z:list_interpreters", names, &ns))
        return NULL;
    return list_interpreters(state_of(module), ns);
}

static PyObject *module_channels(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"ns", NULL};
    const char *ns = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|z:channels", names, &ns))
        return NULL;
    return list_channels(state_of(module), ns);
}

static PyObject *module_open_existing(PyObject *module, PyObject *arg) {
    Interp *in = interp_current(state_of(module));
    const char *name = in ? PyUnicode_AsUTF8(arg) : NULL;
    return name ? channel_open_named(in, name) : NULL;
}

static PyObject *module_register_search(PyObject *module, PyObject *function) {
    return codecs_register_search(state_of(module), function);
}

static PyObject *module_unregister_search(PyObject *module, PyObject *function) {
    return codecs_unregister_search(state_of(module), function);
}

static PyObject *module_search(PyObject *module, PyObject *key) { return codecs_search(state_of(module), key); }

static PyObject *module_search_version(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromUnsignedLongLong(state_of(module)->search_version);
}

static PyObject *module_register_error(PyObject *module, PyObject *args) {
    return codecs_register_error(state_of(module), args);
}

static PyObject *module_lookup_error(PyObject *module, PyObject *name) {
    return codecs_lookup_error(state_of(module), name);
}

static PyObject *module_alive(PyObject *module, PyObject *id) {
    Interp *in = interp_current(state_of(module));
    if (!in)
        return NULL;
    Py_INCREF(in);
    PyObject *alive = process_alive(in, id);
    Py_DECREF(in);
    return alive;
}

static PyObject *module_after_fork(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    state_forked(state_of(module));
    Py_RETURN_NONE;
}

static PyObject *module_at_exit(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    State *st = state_of(module);
    while (st->current) {
        PyObject *left = interp_leave(st->current);
        if (!left)
            return NULL; /* it has left: the exception is a callback's */
        Py_DECREF(left);
    }
    Py_RETURN_NONE;
}

#define METHOD(name, function, flags, doc) {name, (PyCFunction)(void (*)(void))(function), flags, doc}
static PyMethodDef methods[] = {
    METHOD("join", module_join, METH_VARARGS | METH_KEYWORDS,
           "join($module, ns=None, *, name=None, requires_ref=False, spin=None)\n--\n\n"
           "Join a namespace (None: $XI_NAMESPACE, else 'default'), starting its broker if none runs. Returns an\n"
           "Interpreter, which becomes the current one if there is none. channel() joins by itself.\n\n"
           "name: for people. requires_ref: end when the last reference that others hold is dropped. spin: seconds to\n"
           "spin before sleeping (0: sleep at once; None: 50 us, adaptive).\n\n"
           "    >>> with xidata.join(name='worker') as me:\n"
           "    ...     me.left\n"
           "    False\n"
           "    >>> me.left\n"
           "    True"),
    METHOD("leave", module_leave, METH_NOARGS, "leave($module)\n--\n\nThe current Interpreter leaves. Nothing if there is none.\n\n"
           "    >>> xidata.leave()\n    >>> xidata.current() is None\n    True"),
    METHOD("current", module_current, METH_NOARGS, "current($module)\n--\n\nThe current Interpreter, or None.\n\n"
           "    >>> me = xidata.join()\n    >>> xidata.current() is not None\n    True"),
    METHOD("channel", module_channel, METH_VARARGS | METH_KEYWORDS,
           "channel($module, name, *, mode=None, capacity=0, values=0, grow=0, ttl=None, dead=None, retain=0, when_full='block',\n"
           "        access=None, group=None, from_='tail', ack=False, max_deliveries=0, window=0, ack_timeout=None,\n"
           "        dead_letters=None, temporary=False, send_only=False, recv_only=False, existing=False, need_peer=False,\n"
           "        pickle=None, zero_copy=False, errors=None)\n--\n\n"
           "Open a channel, making it if need be; joins first if nobody has.\n\n"
           "What a new channel is like (of an old one ignored): mode: 'queue' (each value to one receiver; the default) or\n"
           "'broadcast' (to every handle that is open when it is sent). capacity: bytes of the ring (64 KiB). values: the\n"
           "most that may wait in it. grow: bytes to which the ring may grow with its backlog. when_full: 'block', 'fail'\n"
           "(send raises Full) or 'drop' (the oldest make room). ttl: seconds after which values expire; dead: the channel\n"
           "that they go to then. retain: the last so many are kept for groups that join later. access: who else may open\n"
           "it, where other users join ('alice:r,@staff:rw').\n\n"
           "Receiving: group: receivers that name the same group share its values. from_: where a new group begins: 'tail',\n"
           "'oldest', or a number: the last so many. ack: values are to be acknowledged, recv() returns a Delivery; after\n"
           "ack_timeout seconds without that a value goes to another, after max_deliveries to the channel dead_letters;\n"
           "window: how many may be under way. temporary: a group of this handle's own, which ends with it, on a queue as well:\n"
           "what it receives nobody is without.\n\n"
           "This handle: send_only, recv_only: what it is for. existing: NotFound rather than make it. need_peer: NoProducer\n"
           "or NoConsumer rather than wait for somebody to come. pickle: 'refuse' to neither send nor load pickles, 'allow'\n"
           "to do so in any case; None refuses them where other users may open the channel, since loading a pickle runs\n"
           "what its sender likes. zero_copy: received bytes are memoryviews of the sender's memory. errors: what becomes of\n"
           "text with lone surrogates and of what has no codec: 'surrogatepass' (the text goes as it is, the other is an\n"
           "error; the default), 'strict' (both are errors), 'replace' (U+FFFD, and a Replacement), or the name of a handler\n"
           "of register_error() or codecs.register_error().\n\n"
           "    >>> ch = xidata.channel('jobs')\n"
           "    >>> ch.send((1, 'two', 3.0))\n"
           "    >>> ch.recv()\n"
           "    (1, 'two', 3.0)"),
    METHOD("remove", module_remove, METH_O,
           "remove($module, name, /)\n--\n\nRemove a channel by name, with whatever is in it: who has it open gets ChannelRemoved.\n\n"
           "    >>> ch = xidata.channel('jobs')\n    >>> xidata.remove('jobs')\n    >>> ch.recv()\n"
           "    Traceback (most recent call last):\n        ...\n"
           "    xidata.ChannelRemoved: channel \"jobs\" was removed, with what was in it"),
    METHOD("buffer", module_buffer, METH_O,
           "buffer($module, size, /)\n--\n\n"
           "A Loan: `size` bytes of shared memory to be filled in place and then sent, alone or inside a container,\n"
           "without a copy. Its contents are undefined at first. It arrives as a read-only memoryview.\n\n"
           "Arrays over it are made by numpy.frombuffer(), which it knows of (numpy.ndarray(..., buffer) would not say\n"
           "so), or with xidata.empty().\n\n"
           "    >>> frames = xidata.channel('frames')\n"
           "    >>> loan = xidata.buffer(1 << 20)\n"
           "    >>> with memoryview(loan) as m:\n"
           "    ...     m[:5] = b'pixel'\n"
           "    >>> frames.send(('frame', loan))\n"
           "    >>> loan.sent\n"
           "    True\n"
           "    >>> bytes(frames.recv()[1][:5])\n"
           "    b'pixel'"),
    METHOD("run_free", module_run_free, METH_NOARGS,
           "run_free($module)\n--\n\nCall the on_free callbacks that are due; return how many. Sending and receiving do this "
           "by themselves.\n\n"
           "    >>> ch, done = xidata.channel('jobs'), []\n"
           "    >>> ch.send('job', on_free=lambda: done.append('job'))\n"
           "    >>> ch.recv()\n    'job'\n"
           "    >>> count = xidata.run_free()\n    >>> done\n    ['job']"),
    METHOD("list_interpreters", module_interpreters, METH_VARARGS | METH_KEYWORDS,
           "list_interpreters($module, ns=None)\n--\n\nInterpreterInfo of every interpreter of a namespace, without joining it.\n\n"
           "    >>> with xidata.join(name='worker') as me:\n"
           "    ...     [i.pid == os.getpid() for i in xidata.list_interpreters() if i.id == me.id]\n    [True]"),
    METHOD("channels", module_channels, METH_VARARGS | METH_KEYWORDS,
           "channels($module, ns=None)\n--\n\nChannelInfo of every channel of a namespace, without joining it.\n\n"
           "    >>> ch = xidata.channel('jobs')\n    >>> ch.send(1)\n"
           "    >>> [(c.name, c.depth) for c in xidata.channels() if c.name == 'jobs']\n    [('jobs', 1)]"),
    METHOD("register_search", module_register_search, METH_O,
           "register_search($module, function, /)\n--\n\n"
           "Ask function(key) for the codec of what nobody registered: a class that would be pickled, or the name or id of a\n"
           "value that was received. It returns Codec(type, to_xi, from_xi, name), or None: the next one is asked. It is\n"
           "asked once: what it says is kept, until the search functions change or the class is registered.\n\n"
           "    >>> from pathlib import PurePosixPath\n"
           "    >>> def search(key):\n"
           "    ...     if key in (PurePosixPath, 'example.path'):\n"
           "    ...         return xidata.Codec(PurePosixPath, str, PurePosixPath, 'example.path')\n"
           "    >>> xidata.register_search(search)\n"
           "    >>> ch = xidata.channel('paths', pickle='refuse')\n"
           "    >>> ch.send(PurePosixPath('/tmp'))\n"
           "    >>> ch.recv()\n    PurePosixPath('/tmp')\n"
           "    >>> xidata.unregister_search(search)"),
    METHOD("unregister_search", module_unregister_search, METH_O,
           "unregister_search($module, function, /)\n--\n\nTake back a search function, and whatever it found.\n\n"
           "    >>> def search(key):\n    ...     return None\n"
           "    >>> xidata.register_search(search)\n    >>> xidata.unregister_search(search)"),
    METHOD("register_error", module_register_error, METH_VARARGS,
           "register_error($module, name, handler, /)\n--\n\n"
           "A handler of what does not fit, for channel(..., errors=name). handler(error) gets a UnicodeEncodeError (text with\n"
           "lone surrogates) and returns a str; or a CodecError, and returns what is sent, or received, in the place of what\n"
           "has no codec. Or it raises.\n\n"
           "    >>> xidata.register_error('say', lambda error: '<%s>' % type(error).__name__)\n"
           "    >>> ch = xidata.channel('said', errors='say')\n"
           "    >>> ch.send(['caf\\udce9', threading.Lock()])\n"
           "    >>> ch.recv()\n    ['<UnicodeEncodeError>', '<CodecError>']"),
    METHOD("lookup_error", module_lookup_error, METH_O,
           "lookup_error($module, name, /)\n--\n\nThe handler of register_error() of that name; LookupError if there is none.\n\n"
           "    >>> xidata.register_error('mark', print)\n    >>> xidata.lookup_error('mark') is print\n    True"),
    METHOD("_loans_collect", loans_collect, METH_VARARGS | METH_KEYWORDS,
           "collect($module, generation=2)\n--\n\nRun Python's gc for a generation and those before it; how many loans that released."),
    METHOD("_loans_get_threshold", loans_get_threshold, METH_NOARGS,
           "get_threshold($module)\n--\n\nAs set_threshold() takes them."),
    METHOD("_loans_set_threshold", loans_set_threshold, METH_VARARGS,
           "set_threshold($module, threshold0, threshold1=..., threshold2=..., size=..., /)\n--\n\n"
           "Collect the youngest generation when threshold0 loans are held in it, or `size` bytes; the next one after threshold1\n"
           "such collections, and the oldest after threshold2 of those, if it has grown by a quarter. 0: never for this reason."),
    METHOD("_loans_get_count", loans_get_count, METH_NOARGS,
           "get_count($module)\n--\n\nWhat is compared with the thresholds: young loans, and collections since."),
    METHOD("_loans_get_stats", loans_get_stats, METH_NOARGS,
           "get_stats($module)\n--\n\nOf each generation: collections, loans collected by them, loans held now, and bytes in them."),
    METHOD("_loans_freeze", loans_freeze, METH_NOARGS,
           "freeze($module)\n--\n\nWhat is held now is not looked at any more."),
    METHOD("_loans_unfreeze", loans_unfreeze, METH_NOARGS, "unfreeze($module)\n--\n\nWhat is frozen is of the oldest generation."),
    METHOD("_loans_get_freeze_count", loans_get_freeze_count, METH_NOARGS,
           "get_freeze_count($module)\n--\n\nHow many loans are frozen."),
    METHOD("_loans_enable", loans_enable, METH_NOARGS, "enable($module)\n--\n\nCollect by thresholds."),
    METHOD("_loans_disable", loans_disable, METH_NOARGS, "disable($module)\n--\n\nCollect when collect() is called alone."),
    METHOD("_loans_isenabled", loans_isenabled, METH_NOARGS, "isenabled($module)\n--\n\nWhether thresholds count."),
    METHOD("_search", module_search, METH_O, NULL),
    METHOD("_search_version", module_search_version, METH_NOARGS, NULL),
    METHOD("_memory", module_memory, METH_VARARGS, NULL),
    METHOD("_open_existing", module_open_existing, METH_O, NULL),
    METHOD("_alive", module_alive, METH_O, NULL),
    METHOD("_die_with_parent", process_die_with_parent, METH_O, NULL),
    METHOD("_after_fork", module_after_fork, METH_NOARGS, NULL),
    METHOD("_at_exit", module_at_exit, METH_NOARGS, NULL),
    {NULL, NULL, 0, NULL},
};

/* ------------------------------------------------------------------ init */

static int add_type(PyObject *module, PyTypeObject **where, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (!type)
        return -1;
    *where = (PyTypeObject *)type;
#if PY_VERSION_HEX < 0x030a0000
    if ((*where)->tp_new == PyBaseObject_Type.tp_new)
        (*where)->tp_new = NULL; /* made by this module alone */
#endif
    const char *dot = strrchr(spec->name, '.');
    return PyModule_AddObjectRef(module, dot ? dot + 1 : spec->name, type);
}

static int intern(PyObject **where, const char *text) {
    *where = PyUnicode_InternFromString(text);
    return *where ? 0 : -1;
}

/* os.register_at_fork(after_in_child=module._after_fork); atexit.register(module._at_exit) */
static int add_hooks(PyObject *module) {
    PyObject *fork = NULL, *exit_ = NULL, *hook = NULL, *args = NULL, *keywords = NULL, *done = NULL;
    int rc = -1;
    if (load_attribute(&fork, "os", "register_at_fork") == 0 && (hook = PyObject_GetAttrString(module, "_after_fork")) &&
        (args = PyTuple_New(0)) && (keywords = Py_BuildValue("{s:O}", "after_in_child", hook)))
        done = PyObject_Call(fork, args, keywords);
    Py_XDECREF(hook);
    hook = NULL;
    if (done && load_attribute(&exit_, "atexit", "register") == 0 && (hook = PyObject_GetAttrString(module, "_at_exit"))) {
        PyObject *registered = PyObject_CallFunctionObjArgs(exit_, hook, NULL);
        rc = registered ? 0 : -1;
        Py_XDECREF(registered);
    }
    Py_XDECREF(fork);
    Py_XDECREF(exit_);
    Py_XDECREF(hook);
    Py_XDECREF(args);
    Py_XDECREF(keywords);
    Py_XDECREF(done);
    return rc;
}

/*
 * A free-threaded CPython has switched the GIL on for this module by now (Py_mod_gil), unless it was told never to. What
 * would happen then is nothing that an exception could tell of later.
 */
static int check_gil(void) {
#ifdef Py_GIL_DISABLED
    PyObject *asked = PyObject_CallNoArgs(PySys_GetObject("_is_gil_enabled")); /* of every CPython from 3.13 on */
    int enabled = asked ? PyObject_IsTrue(asked) : -1;
    Py_XDECREF(asked);
    if (enabled == 0)
        PyErr_SetString(PyExc_ImportError, "xidata relies on the GIL, which PYTHON_GIL=0 or -X gil=0 keeps switched off: "
                                           "leave that out, or say PYTHON_GIL=1");
    return enabled > 0 ? 0 : -1;
#else
    return 0;
#endif
}

static int exec(PyObject *module) {
    State *st = state_of(module);
    if (check_gil() < 0)
        return -1;
    st->generation = 1;
    loans_init(&st->loans);
    if (limited_init(st) < 0 || errors_init(module, st) < 0 || info_init(module, st) < 0)
        return -1;
    if (add_type(module, &st->interp_type, &interp_spec) < 0 || add_type(module, &st->channel_type, &channel_spec) < 0 ||
        add_type(module, &st->loan_type, &loan_spec) < 0 || add_type(module, &st->view_type, &view_spec) < 0 ||
        add_type(module, &st->reference_type, &reference_spec) < 0 ||
        add_type(module, &st->delivery_type, &delivery_spec) < 0 ||
        add_type(module, &st->request_type, &request_spec) < 0 || add_type(module, &st->set_type, &set_spec) < 0)
        return -1;
    if (intern(&st->s_timeout, "timeout") < 0 || intern(&st->s_on_free, "on_free") < 0 ||
        intern(&st->s_sent, "sent") < 0 || intern(&st->s_zero_copy, "zero_copy") < 0 || intern(&st->s_ttl, "ttl") < 0 ||
        intern(&st->s_delay, "delay") < 0 || intern(&st->s_seconds, "seconds") < 0 || intern(&st->s_base, "base") < 0 ||
        intern(&st->s_dtype, "dtype") < 0 || intern(&st->s_array_struct, "__array_struct__") < 0 ||
        intern(&st->s_setflags, "setflags") < 0)
        return -1;
    if (PyModule_AddStringConstant(module, "__version__", XI_VERSION) < 0 ||
        PyModule_AddIntConstant(module, "DEPTH_MAX", XI_DEPTH_MAX) < 0)
        return -1;
    return add_hooks(module);
}

/* Every object that the state holds; for traverse and clear. `current` apart. */
#define STATE_OBJECTS(DO)                                                                                              \
    DO(interp_type) DO(channel_type) DO(loan_type) DO(view_type) DO(reference_type) DO(delivery_type)                  \
    DO(request_type) DO(set_type) DO(interp_info_type) DO(channel_info_type) DO(group_info_type) DO(error) DO(full)    \
    DO(decode_error) DO(s_timeout) DO(s_on_free) DO(s_sent) DO(s_zero_copy) DO(s_ttl) DO(s_delay) DO(s_seconds)        \
    DO(s_base) DO(s_dtype) DO(s_array_struct) DO(s_setflags)                                                           \
    DO(pickle_dumps) DO(pickle_loads) DO(interp_id) DO(ready_type) DO(uuid) DO(decimal) DO(fraction)                   \
    DO(uuid_unknown) DO(ndarray) DO(dtype) DO(descr_to_dtype) DO(dtype_to_descr) DO(literal_eval) DO(dtype_names)      \
    DO(dtypes) DO(plans) DO(plan_of) DO(make) DO(codecs) DO(dumps) DO(search_path) DO(error_handlers)                  \
    DO(search_changed) DO(stand_in) DO(gc_collect) DO(gc_isenabled) DO(current)                        \
    LIMITED_OBJECTS(DO)

static int traverse(PyObject *module, visitproc visit, void *arg) {
    State *st = state_of(module);
#define VISIT(field) Py_VISIT(st->field);
    STATE_OBJECTS(VISIT)
    for (int i = 0; i < XI_ERRORS; i++)
        Py_VISIT(st->errors[i]);
    for (uint32_t i = 0; i <= XI_READY_ALL; i++)
        Py_VISIT(st->ready[i]);
    return 0;
}

static int clear(PyObject *module) {
    State *st = state_of(module);
#define CLEAR(field) Py_CLEAR(st->field);
    STATE_OBJECTS(CLEAR)
    for (int i = 0; i < XI_ERRORS; i++)
        Py_CLEAR(st->errors[i]);
    for (uint32_t i = 0; i <= XI_READY_ALL; i++)
        Py_CLEAR(st->ready[i]);
    return 0;
}

static void free_module(void *module) { (void)clear(module); }

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec},
    SLOTS_OF_VERSION
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_xidata",
    .m_doc = "Values between interpreter processes through shared memory; import xidata.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = free_module,
};

PyMODINIT_FUNC PyInit__xidata(void); /* the one symbol that this file exports */
PyMODINIT_FUNC PyInit__xidata(void) {
    fill_slots(slots + 1);
    return PyModuleDef_Init(&definition);
}
