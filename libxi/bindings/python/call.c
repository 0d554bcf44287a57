/* SPDX-License-Identifier: MIT */
/*
 * Request and reply: call(), which sends a value and waits for the answer to it,
 * and the Request that who receives it gets.
 *
 * A call waits in slices, as every wait here does (transfer.c): the library
 * leaves it pending when a slice is over or a signal arrives, so that handlers
 * and callbacks run in between and the request is asked once.
 */
#include "claim.h"

#define METHOD(name, function, flags, doc) {name, (PyCFunction)(void (*)(void))(function), flags, doc}

/* ----------------------------------------------------------------- Request */

typedef struct {
    xi_msg *request;
    const void *value;
    size_t size;
    xi_loan *loan; /* or NULL */
} ReplyJob;

static int64_t attempt_reply(xi_channel *Py_UNUSED(h), void *job, int64_t timeout) {
    ReplyJob *j = job;
    xi_send_opts opts = {.timeout = timeout};
    return j->loan ? xi_reply_loan(j->request, j->loan, j->size, &opts)
                   : xi_reply(j->request, j->value, j->size, timeout);
}

/* The request is busy. Out of line: the encoder is large. */
static __attribute__((noinline)) int64_t reply_with(Claim *c, PyObject *obj, int64_t timeout) {
    Encoder e;
    encoder_init(&e, c->ch);
    int64_t r = encoder_run(&e, obj);
    if (r >= 0 && e.outside_count)
        r = encoder_place(&e, r);
    if (r >= 0) {
        ReplyJob job = {&c->borrow->msg, e.b.buffer, (size_t)r, e.in_loan ? &e.loan : NULL};
        r = transfer(c->ch, attempt_reply, &job, timeout, true);
        if (r >= 0 && e.outside_count)
            encoder_sent(&e);
    }
    encoder_clear(&e);
    return r;
}

static PyObject *request_reply(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    Claim *c = (Claim *)self;
    PyObject *const names[] = {c->st->s_timeout, NULL};
    PyObject *value[1] = {NULL};
    int64_t timeout;
    if (parse_arguments("reply", args, nargs, kwnames, 1, names, value) < 0 || parse_timeout(value[0], &timeout) < 0 ||
        claim_begin(c, "xidata.reply") < 0)
        return NULL;
    return none_or_error(claim_end(c, reply_with(c, args[0], timeout)));
}

static PyObject *request_get_wanted(PyObject *self, void *Py_UNUSED(closure)) {
    Claim *c = (Claim *)self;
    return PyBool_FromLong(c->state == CLAIM_HELD && c->generation == c->st->generation &&
                           xi_call_wanted(&c->borrow->msg));
}

static PyObject *request_exit(PyObject *self, PyObject *Py_UNUSED(args)) {
    claim_drop((Claim *)self);
    Py_RETURN_NONE;
}

static PyObject *request_repr(PyObject *self) {
    Claim *c = (Claim *)self;
    PyObject *name = PyUnicode_FromString(c->ch->name);
    PyObject *text = name ? PyUnicode_FromFormat("<xidata.Request from channel %R%s>", name,
                                                 c->state == CLAIM_SETTLED ? ", settled" : "")
                          : NULL;
    Py_XDECREF(name);
    return text;
}

static PyMethodDef request_methods[] = {
    METHOD("reply", request_reply, METH_FASTCALL | METH_KEYWORDS,
           "reply($self, obj, /, timeout=None)\n--\n\nAnswer, once. Raises Stale if the caller waits no more: it timed out, or "
           "ended."),
    METHOD("__enter__", claim_self, METH_NOARGS, NULL),
    METHOD("__exit__", request_exit, METH_VARARGS, NULL),
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef request_getset[] = {
    {"value", claim_get_value, NULL, "What was asked. Raises DecodeError if it could not be decoded.", NULL},
    {"settled", claim_get_settled, NULL, "True once it was answered or dropped.", NULL},
    {"channel", claim_get_channel, NULL, "The Channel that it was received from.", NULL},
    {"wanted", request_get_wanted, NULL, "True as long as the caller waits for the reply.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot request_slots[] = {
    {Py_tp_doc, "A value received that somebody sent with call() and waits for the reply of. Dropped without one, or left\n"
                "as a context manager, it makes the caller get ServerDied."},
    {Py_tp_dealloc, claim_dealloc},
    {Py_tp_traverse, claim_traverse},
    {Py_tp_clear, claim_clear},
    {Py_tp_repr, request_repr},
    {Py_tp_methods, request_methods},
    {Py_tp_getset, request_getset},
    {0, NULL},
};
PyType_Spec request_spec = {
    "xidata.Request", sizeof(Claim), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    request_slots};

/* ------------------------------------------------------------------ call() */

typedef struct {
    xi_pending *pending;
    const void *value;
    size_t size;
    xi_loan *loan; /* or NULL */
    xi_msg *reply;
} CallJob;

static int64_t attempt_call(xi_channel *h, void *job, int64_t timeout) {
    CallJob *j = job;
    xi_send_opts opts = {.timeout = timeout};
    return j->loan ? xi_call_begin_loan(h, j->loan, j->size, &opts, j->pending)
                   : xi_call_begin(h, j->value, j->size, timeout, j->pending);
}

static int64_t attempt_answer(xi_channel *Py_UNUSED(h), void *job, int64_t timeout) {
    CallJob *j = job;
    return xi_call_wait(j->pending, j->reply, timeout);
}

/* Sends the request: it is pending then. The channel is entered. */
static __attribute__((noinline)) int64_t ask(Channel *ch, PyObject *obj, CallJob *job, int64_t timeout) {
    Encoder e;
    encoder_init(&e, ch);
    int64_t r = encoder_run(&e, obj);
    if (r >= 0 && e.outside_count)
        r = encoder_place(&e, r);
    if (r >= 0) {
        job->value = e.b.buffer;
        job->size = (size_t)r;
        job->loan = e.in_loan ? &e.loan : NULL;
        r = transfer(ch, attempt_call, job, timeout, true);
        if (r >= 0 && e.outside_count)
            encoder_sent(&e);
    }
    encoder_clear(&e);
    return r;
}

/* The reply as an object; the message is released, unless views of it hold it. */
static PyObject *read_reply(Channel *ch, xi_msg *m) {
    Decoder d = {ch->st, ch, m, NULL, ch->zero_copy};
    PyObject *o = decode_message(&d);
    if (d.borrow)
        borrow_unref(d.borrow);
    xi_msg_release(m);
    return o;
}

PyObject *channel_call(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    Channel *ch = (Channel *)self;
    PyObject *const names[] = {ch->st->s_timeout, NULL};
    PyObject *value[1] = {NULL}, *answer = NULL;
    int64_t timeout;
    if (parse_arguments("call", args, nargs, kwnames, 1, names, value) < 0 || parse_timeout(value[0], &timeout) < 0 ||
        channel_begin(ch, "xidata.call") < 0)
        return NULL;
    xi_pending pending = XI_PENDING_INIT;
    xi_msg m;
    message_init(&m);
    CallJob job = {.pending = &pending, .reply = &m};
    Deadline d = deadline_in(timeout);
    int64_t r = ask(ch, args[0], &job, timeout);
    if (r < 0) {
        raise_send_error(ch->st, r);
    } else {
        r = transfer(ch, attempt_answer, &job, deadline_left(&d), false);
        if (r < 0)
            raise_error(ch->st, r == XI_E_AGAIN ? XI_E_TIMEOUT : r);
        else
            answer = read_reply(ch, &m);
        xi_call_cancel(&pending);
    }
    channel_exit(ch);
    return answer;
}
