/* SPDX-License-Identifier: MIT */
/*
 * Channel: a handle to a named channel. This file closes and describes it; open.c
 * opens it, transfer.c sends and receives.
 *
 * free() may come while another thread is inside a call: then the handle is shut
 * and whoever leaves last frees it (the Guard). In a forked child the handle
 * opens itself again on first use, under the same name and options.
 */
#include "binding.h"

static void unlink_from(Channel *ch) {
    if (ch->prev)
        ch->prev->next = ch->next;
    else if (ch->interp->channels == ch)
        ch->interp->channels = ch->next;
    if (ch->next)
        ch->next->prev = ch->prev;
    ch->prev = ch->next = NULL;
}

/* ------------------------------------------------- entering and finishing */

static int gone(const Channel *ch) {
    PyErr_Format(ch->st->errors[-XI_E_LEFT], "this handle of channel '%s' was freed: open another with xidata.channel()",
                 ch->name);
    return -1;
}

int channel_enter_slow(Channel *ch) {
    bool must_finish = false;
    if (ch->freed || !ch->name)
        return ch->name ? gone(ch) : (PyErr_BadInternalCall(), -1);
    if (ch->generation != ch->st->generation) {
        if (open_handle(ch, ch->options.open.flags & ~XI_OPEN_EXISTING) < 0)
            return -1;
        if (!ch->prev && ch->interp->channels != ch)
            channel_link(ch);
    }
    if (ch->h && guard_enter(&ch->guard, &must_finish))
        return 0;
    if (must_finish)
        channel_finish(ch);
    return gone(ch);
}

void channel_finish(Channel *ch) {
    xi_channel *h = ch->h;
    xi_set *ready = ch->ready;
    ch->h = NULL;
    ch->ready = NULL;
    if (!h)
        return;
    xi_msg_release(&ch->spare);
    stash_clear(ch);
    Py_BEGIN_ALLOW_THREADS
    xi_set_free(ready);
    (void)xi_channel_free(h);
    Py_END_ALLOW_THREADS
    interp_exit(ch->interp);
}

void channel_free_handle(Channel *ch) {
    bool must_finish;
    unlink_from(ch);
    ch->freed = true;
    if (ch->generation != ch->st->generation)
        return; /* the parent's */
    if (!guard_enter(&ch->guard, &must_finish))
        return; /* somebody else is at it */
    (void)guard_close(&ch->guard);
    if ((guard_word(&ch->guard) & GUARD_USERS) > 1 && ch->h)
        (void)xi_channel_shut(ch->h); /* whoever waits inside comes out, and the last one out frees it */
    if (guard_leave(&ch->guard))
        channel_finish(ch);
}

void channel_forget_parent(Channel *ch) {
    xi_channel *h = ch->h;
    xi_set_free(ch->ready);
    ch->ready = NULL;
    ch->h = NULL;
    ch->spare_used = false;
    stash_clear(ch);
    message_init(&ch->spare);
    if (h)
        (void)xi_channel_free(h); /* in a child: memory alone */
    guard_reset(&ch->guard);
}

/* ------------------------------------------------------------ descriptor
 *
 * A set with this handle alone in it. Its descriptor stays readable until a wait
 * on the set finds nothing; here a receive that found nothing waits so, without
 * waiting. Values on the stash keep it readable: it is not settled before they
 * are delivered. (Put there by another thread behind our back they make it
 * readable within the second in which it is so for nothing.)
 */

void channel_settle(Channel *ch) {
    xi_event event;
    int64_t r = ch->stash_count == 0 ? xi_set_wait(ch->ready, &event, 1, XI_TRY) : 0;
    (void)r; /* something came, or an error: it stays readable */
}

/* The descriptor; or an enum xi_error, raised if it is not the latest. */
static int make_descriptor(Channel *ch) {
    xi_set *set;
    int rc = xi_set_new(ch->interp->me, &set);
    if (rc < 0)
        return rc;
    rc = xi_set_add(set, ch->h, XI_READY_RECV, 0, 0);
    if (rc == 0)
        rc = xi_set_fd(set);
    if (rc < 0) {
        raise_error(ch->st, rc);
        xi_set_free(set);
        return rc;
    }
    ch->ready = set;
    return rc;
}

static PyObject *channel_fileno(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Channel *ch = (Channel *)self;
    if (channel_enter(ch) < 0)
        return NULL;
    int fd = ch->ready ? xi_set_fd(ch->ready) : make_descriptor(ch);
    if (fd < 0 && !PyErr_Occurred())
        raise_error(ch->st, fd);
    channel_exit(ch);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

/* --------------------------------------------------------------- methods */

static PyObject *channel_close(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Channel *ch = (Channel *)self;
    int rc;
    if (channel_enter(ch) < 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = xi_close(ch->h);
        Py_END_ALLOW_THREADS
    } while (rc == XI_E_INTR && interrupted(ch->interp) == 0);
    PyObject *none = finished(ch->st, rc);
    channel_exit(ch);
    return none;
}

static PyObject *channel_free(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Channel *ch = (Channel *)self;
    if (!ch->freed) {
        Py_INCREF(ch);
        channel_free_handle(ch);
        Py_DECREF(ch);
    }
    Py_RETURN_NONE;
}

static PyObject *channel_self(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

static PyObject *channel_stat(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Channel *ch = (Channel *)self;
    xi_channel_info info;
    if (channel_enter(ch) < 0)
        return NULL;
    int rc = xi_channel_stat(ch->h, &info);
    if (rc < 0)
        raise_error(ch->st, rc);
    channel_exit(ch);
    return rc < 0 ? NULL : channel_info(ch->st, &info);
}

static PyObject *channel_groups(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Channel *ch = (Channel *)self;
    xi_group_info groups[64]; /* as many as a channel has at most */
    if (channel_enter(ch) < 0)
        return NULL;
    int64_t n = xi_channel_groups(ch->h, groups, sizeof groups / sizeof groups[0]);
    if (n < 0)
        raise_error(ch->st, n);
    channel_exit(ch);
    size_t most = sizeof groups / sizeof groups[0];
    return n < 0 ? NULL : group_infos(ch->st, groups, (size_t)n < most ? (size_t)n : most);
}

static PyObject *channel_remove_group(PyObject *self, PyObject *arg) {
    Channel *ch = (Channel *)self;
    Py_ssize_t length;
    const char *name = PyUnicode_AsUTF8AndSize(arg, &length);
    int rc;
    if (name && strlen(name) != (size_t)length) {
        PyErr_SetString(PyExc_ValueError, "a group's name holds no null character");
        return NULL;
    }
    if (!name || channel_enter(ch) < 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = xi_group_remove(ch->h, name);
        Py_END_ALLOW_THREADS
    } while (rc == XI_E_INTR && interrupted(ch->interp) == 0);
    PyObject *none = finished(ch->st, rc);
    channel_exit(ch);
    return none;
}

static PyObject *channel_group(PyObject *self, PyObject *args, PyObject *keywords) {
    return channel_open_group((Channel *)self, args, keywords);
}

static PyObject *channel_reduce(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Channel *ch = (Channel *)self;
    PyObject *open = NULL;
    if (load_attribute(&open, "xidata", "_open_existing") < 0)
        return NULL;
    return Py_BuildValue("(N(s))", open, ch->name);
}

static PyObject *channel_get_name(PyObject *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(((Channel *)self)->name);
}

static PyObject *channel_get_group(PyObject *self, void *Py_UNUSED(closure)) {
    const char *group = ((Channel *)self)->options.open.group;
    return group ? PyUnicode_FromString(group) : Py_NewRef(Py_None);
}

static PyObject *channel_get_shared(PyObject *self, void *Py_UNUSED(closure)) {
    Channel *ch = (Channel *)self;
    if (channel_enter(ch) < 0)
        return NULL;
    bool shared = xi_channel_shared(ch->h);
    channel_exit(ch);
    return PyBool_FromLong(shared);
}

static PyObject *channel_get_freed(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((Channel *)self)->freed);
}

static PyObject *channel_get_interp(PyObject *self, void *Py_UNUSED(closure)) {
    return Py_NewRef((PyObject *)((Channel *)self)->interp);
}

static PyObject *channel_repr(PyObject *self) {
    Channel *ch = (Channel *)self;
    PyObject *name = PyUnicode_FromString(ch->name);
    PyObject *text = name ? PyUnicode_FromFormat("<xidata.Channel %R of namespace '%s'%s>", name, ch->interp->ns,
                                                 ch->freed ? ", freed" : "")
                          : NULL;
    Py_XDECREF(name);
    return text;
}

static int channel_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Channel *)self)->interp);
    return stash_traverse((Channel *)self, visit, arg);
}

static void channel_dealloc(PyObject *self) {
    Channel *ch = (Channel *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    unlink_from(ch); /* who leaves in another thread finds none that is going */
    if (ch->weakrefs)
        PyObject_ClearWeakRefs(self);
    if (!ch->freed && (ch->generation == ch->st->generation || ch->h))
        channel_free_handle(ch);
    xi_msg_release(&ch->spare);
    stash_clear(ch);
    PyMem_Free(ch->name);
    options_free(&ch->options);
    Py_XDECREF(ch->errors_name);
    Py_DECREF(ch->interp);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

#define METHOD(name, function, flags, doc) {name, (PyCFunction)(void (*)(void))(function), flags, doc}
static PyMethodDef channel_methods[] = {
    METHOD("send", channel_send, METH_FASTCALL | METH_KEYWORDS,
           "send($self, obj, /, timeout=None, *, on_free=None, ttl=None)\n--\n\n"
           "Send one value. Waits while the channel is full: for ever, or `timeout` seconds (0: not at all).\n"
           "When it returns, the value will reach every group, even if this process is killed at once.\n\n"
           "on_free: called without arguments, once, in this process, after the last group has consumed the value;\n"
           "during a later call of this library, or in run_free(). ttl: seconds after which nobody receives it any more\n"
           "(None: the channel's own; math.inf: none).\n\n"
           "    >>> ch = xidata.channel('jobs', values=1)\n"
           "    >>> ch.send({'id': 7, 'payload': b'...'})\n"
           "    >>> ch.send('more', timeout=0)\n"
           "    Traceback (most recent call last):\n"
           "        ...\n"
           "    xidata.Full: channel \"jobs\" is full: it holds as many values as it may\n\n"
           "Raises Full (timeout=0, or when_full='fail'), Timeout, ChannelClosed, ChannelRemoved, NoConsumer (need_peer),\n"
           "ShmFull, Quota, and what pickling the object raises."),
    METHOD("try_send", channel_try_send, METH_O,
           "try_send($self, obj, /)\n--\n\nSend without waiting. True, or False if the channel is full.\n\n"
           "    >>> ch = xidata.channel('jobs', values=1)\n"
           "    >>> ch.try_send(1), ch.try_send(2)\n"
           "    (True, False)"),
    METHOD("send_many", channel_send_many, METH_FASTCALL | METH_KEYWORDS,
           "send_many($self, iterable, /, timeout=None)\n--\n\n"
           "Send every value of an iterable, many at a time; return how many were sent. With timeout=0 that is as many\n"
           "as there is room for. Any exception carries the number sent so far as `sent`.\n\n"
           "    >>> ch = xidata.channel('numbers')\n"
           "    >>> ch.send_many(range(1000))\n"
           "    1000"),
    METHOD("recv", channel_recv, METH_FASTCALL | METH_KEYWORDS,
           "recv($self, timeout=None, *, zero_copy=None)\n--\n\n"
           "Receive the next value of this handle's group. Waits for ever, or `timeout` seconds (0: not at all).\n\n"
           "Loans and numpy arrays arrive as read-only views of the sender's memory. With zero_copy so do bytes, as\n"
           "memoryviews; None means as the channel was opened.\n\n"
           "In a group that acknowledges (ack=True) it returns a Delivery, for a call() a Request; `value` is the value.\n\n"
           "    >>> ch = xidata.channel('jobs')\n    >>> ch.send('first')\n    >>> ch.recv(timeout=5)\n    'first'\n\n"
           "Raises Empty (timeout=0), Timeout, ChannelClosed (closed and drained), ChannelRemoved, NoProducer (need_peer),\n"
           "DecodeError, Corrupt."),
    METHOD("call", channel_call, METH_FASTCALL | METH_KEYWORDS,
           "call($self, obj, /, timeout=None)\n--\n\n"
           "Send a request and wait for its reply: the receiver gets a Request. Other threads may call at the same time.\n\n"
           "    >>> sums = xidata.channel('sums')\n"
           "    >>> def serve():\n"
           "    ...     request = sums.recv()\n"
           "    ...     request.reply(sum(request.value))\n"
           "    >>> server = threading.Thread(target=serve)\n"
           "    >>> server.start()\n"
           "    >>> sums.call((1, 2), timeout=5)\n"
           "    3\n"
           "    >>> server.join()\n\n"
           "Raises ServerDied when who took it ended without a reply, NoConsumer when nobody receives, and Timeout; after a\n"
           "timeout a reply that comes late is dropped, and a server that has not taken the request never sees it."),
    METHOD("arecv", channel_arecv, METH_VARARGS | METH_KEYWORDS,
           "arecv($self, timeout=None)\n--\n\n"
           "A coroutine: as recv(), for asyncio and trio, without a thread. Cancelled, it has taken nothing. `async for` over a\n"
           "channel receives until it is closed and drained.\n\n"
           "    >>> async def receive(ch):\n"
           "    ...     first = await ch.arecv()\n"
           "    ...     return [first] + [job async for job in ch]\n"
           "    >>> ch = xidata.channel('jobs')\n"
           "    >>> ch.send_many(range(3))\n"
           "    3\n"
           "    >>> ch.close()\n"
           "    >>> asyncio.run(receive(ch))\n"
           "    [0, 1, 2]"),
    METHOD("asend", channel_asend, METH_VARARGS | METH_KEYWORDS,
           "asend($self, obj, timeout=None, *, on_free=None, ttl=None)\n--\n\n"
           "A coroutine: as send(). Cancelled, it has not sent.\n\n"
           "    >>> ch = xidata.channel('jobs')\n"
           "    >>> asyncio.run(ch.asend({'id': 7}))\n"
           "    >>> ch.recv()\n"
           "    {'id': 7}"),
    METHOD("group", channel_group, METH_VARARGS | METH_KEYWORDS,
           "group($self, name, *, from_='tail', ack=False, max_deliveries=0, window=0, ack_timeout=None, dead_letters=None,\n"
           "      zero_copy=None)\n--\n\n"
           "Another handle of this channel, that receives in the named group; the options are those of channel().\n\n"
           "    >>> ch = xidata.channel('orders')\n"
           "    >>> audit = ch.group('audit')\n"
           "    >>> ch.send('tea')\n"
           "    >>> ch.recv(), audit.recv()\n"
           "    ('tea', 'tea')"),
    METHOD("groups", channel_groups, METH_NOARGS, "groups($self)\n--\n\nGroupInfo of each of the channel's groups."),
    METHOD("remove_group", channel_remove_group, METH_O,
           "remove_group($self, name, /)\n--\n\nEnd a named group. What it had yet to receive it never will; whoever receives in it "
           "gets Left."),
    METHOD("try_recv", channel_try_recv, METH_FASTCALL,
           "try_recv($self, default=<unrepresentable>, /)\n--\n\nReceive without waiting. With nothing there: `default`, or Empty.\n\n"
           "    >>> xidata.channel('jobs').try_recv('nothing')\n"
           "    'nothing'"),
    METHOD("recv_many", channel_recv_many, METH_FASTCALL | METH_KEYWORDS,
           "recv_many($self, n, /, timeout=None)\n--\n\n"
           "Wait as recv() for the first value, then take what is there: a list of 1 to n values.\n\n"
           "    >>> ch = xidata.channel('numbers')\n"
           "    >>> ch.send_many(range(3))\n"
           "    3\n"
           "    >>> ch.recv_many(100)\n"
           "    [0, 1, 2]"),
    METHOD("fileno", channel_fileno, METH_NOARGS,
           "fileno($self)\n--\n\n"
           "A descriptor that is readable when recv() may have something, or would raise because the channel has ended: for\n"
           "selectors, poll, loop.add_reader(). It stays readable until a receive with timeout=0, or try_recv(), has found\n"
           "nothing. It may be readable for nothing, and is once a second. It is this handle's, the same at each call, and\n"
           "closed by free(); a forked child asks anew. For many channels, or for room to send, there is Set.\n\n"
           "    >>> import selectors\n"
           "    >>> ch = xidata.channel('jobs')\n"
           "    >>> with selectors.DefaultSelector() as selector:\n"
           "    ...     key = selector.register(ch, selectors.EVENT_READ)\n"
           "    ...     ch.send('job')\n"
           "    ...     for key, events in selector.select():\n"
           "    ...         print(key.fileobj.try_recv(None))\n"
           "    job"),
    METHOD("close", channel_close, METH_NOARGS,
           "close($self)\n--\n\nClose the channel itself, for everybody: senders get ChannelClosed at once, receivers when "
           "they have\ndrained it. Idempotent.\n\n"
           "    >>> ch = xidata.channel('jobs')\n"
           "    >>> ch.send('last')\n"
           "    >>> ch.close()\n"
           "    >>> list(ch)\n"
           "    ['last']"),
    METHOD("free", channel_free, METH_NOARGS,
           "free($self)\n--\n\nGive this handle back; the channel lives on while it has handles or undelivered values. "
           "Idempotent."),
    METHOD("stat", channel_stat, METH_NOARGS, "stat($self)\n--\n\nThe channel's ChannelInfo."),
    METHOD("__enter__", channel_self, METH_NOARGS, NULL),
    METHOD("__exit__", channel_free, METH_VARARGS, NULL),
    METHOD("__reduce__", channel_reduce, METH_NOARGS, NULL),
    {NULL, NULL, 0, NULL},
};
static PyObject *channel_get_errors(PyObject *self, void *Py_UNUSED(closure)) { return errors_name((Channel *)self); }

static PyGetSetDef channel_getset[] = {
    {"name", channel_get_name, NULL, "The channel's name.", NULL},
    {"group_name", channel_get_group, NULL, "The group given when it was opened, or None.", NULL},
    {"errors", channel_get_errors, NULL, "What is done with what does not fit: as given when it was opened.", NULL},
    {"shared", channel_get_shared, NULL, "True if other users may open the channel. Pickles are refused then.", NULL},
    {"freed", channel_get_freed, NULL, "True after free().", NULL},
    {"interpreter", channel_get_interp, NULL, "The Interpreter that it belongs to.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMemberDef channel_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Channel, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot channel_slots[] = {
    {Py_tp_doc, "A handle to a channel, from xidata.channel(). Iterating receives until the channel is closed and "
                "drained.\nA context manager: frees the handle (it does not close the channel)."},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_traverse, channel_traverse},
    {Py_tp_repr, channel_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, channel_next},
    {Py_am_aiter, channel_aiter},
    {Py_tp_methods, channel_methods},
    {Py_tp_getset, channel_getset},
    {Py_tp_members, channel_members},
    {0, NULL},
};
PyType_Spec channel_spec = {
    "xidata.Channel", sizeof(Channel), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    channel_slots};
