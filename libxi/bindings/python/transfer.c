/* SPDX-License-Identifier: MIT */
/*
 * Sending and receiving.
 *
 * Every transfer is first tried with the GIL held, which for a small value is
 * all there is to it: no GIL traffic, no system call. Only when the channel is
 * full or empty is the GIL given up, and the library waits (spinning first).
 * When it returns for a signal, handlers and due callbacks run, and it goes on
 * with the time that is left.
 *
 * Nothing that has been received is lost to an exception that is none of its
 * doing (Ctrl-C while a value is being unpickled): such values go onto the
 * channel's stash, which is delivered first.
 */
#include "binding.h"
#include "warn.h"

#include <math.h>
#include <time.h>

#define BATCH 64
#define BATCH_BYTES 32768
#define RECV_MOST 256
/* --------------------------------------------------------------- waiting */

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int parse_timeout(PyObject *o, int64_t *ns) {
    *ns = XI_FOREVER;
    if (!o || o == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(o);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds >= 0)) {
        PyErr_SetString(PyExc_ValueError, "timeout is None (for ever), 0 (do not wait) or a positive number of seconds");
        return -1;
    }
    if (seconds == 0)
        *ns = XI_TRY;
    else if (seconds < 9e9)
        *ns = (int64_t)ceil(seconds * 1e9);
    return 0;
}

Deadline deadline_in(int64_t timeout) {
    Deadline d = {timeout, 0};
    if (timeout > 0 && __builtin_add_overflow(now_ns(), timeout, &d.end))
        d.timeout = XI_FOREVER;
    return d;
}

int64_t deadline_left(const Deadline *d) {
    if (d->timeout <= 0)
        return d->timeout;
    int64_t left = d->end - now_ns();
    return left > 0 ? left : XI_TRY;
}

/* After XI_E_FORKED: a child that CPython did not make (os.fork runs the hook). The channel is entered anew. */
static int revive(Channel *ch) {
    state_forked(ch->st);
    return channel_enter(ch);
}

static bool sends(Attempt attempt);

/* Is that the answer of an attempt that did not wait, or is the call to wait, to look for signals, to begin in a new process? */
static inline bool is_final(int64_t r, int64_t timeout) {
    return r != XI_E_INTR && r != XI_E_FORKED && (r != XI_E_AGAIN || timeout == XI_TRY);
}

int64_t transfer(Channel *ch, Attempt attempt, void *job, int64_t timeout, bool quick) {
    int64_t r, left = timeout;
    unsigned slices = 0;
    if (quick) {
        r = attempt(ch->h, job, XI_TRY);
        if (XI_UNLIKELY(r == XI_E_FORKED)) {
            if (revive(ch) < 0)
                return XI_RAISED;
        } else if (XI_LIKELY(is_final(r, timeout))) {
            return r;
        }
    }
    Deadline deadline = deadline_in(timeout);
    for (;;) {
        xi_channel *h = ch->h;
        int64_t slice = left < 0 || left > WAIT_SLICE ? WAIT_SLICE : left;
        Py_BEGIN_ALLOW_THREADS
        r = attempt(h, job, slice);
        Py_END_ALLOW_THREADS
        if (r != XI_E_INTR && !(r == XI_E_TIMEOUT && slice != left)) /* AGAIN in a wait: full, and when_full is "fail" */
            return r == XI_E_AGAIN && slice == XI_TRY && timeout != XI_TRY ? XI_E_TIMEOUT : r;
        if (interrupted(ch->interp) < 0)
            return XI_RAISED;
        if (r == XI_E_TIMEOUT && ++slices == 2 && sends(attempt) && warn_slow_consumer(ch) < 0)
            return XI_RAISED;
        left = deadline_left(&deadline);
    }
}

static inline int begin(Channel *ch, const char *event) {
    if (XI_UNLIKELY(AUDIT(ch->st, event, "ss", ch->interp->ns, ch->name) < 0) || XI_UNLIKELY(channel_enter(ch) < 0))
        return -1;
    if (XI_LIKELY(free_poll(ch->interp) == 0))
        return 0;
    channel_exit(ch);
    return -1;
}

int channel_begin(Channel *ch, const char *event) { return begin(ch, event); }

/* --------------------------------------------------------------- sending */

typedef struct {
    const void *value;
    size_t size;
    xi_loan *loan; /* or NULL */
    int64_t integer;
    xi_send_opts opts;
} SendJob;

static int64_t attempt_int(xi_channel *h, void *job, int64_t timeout) {
    return xi_send_int(h, ((SendJob *)job)->integer, timeout);
}

static int64_t attempt_value(xi_channel *h, void *job, int64_t timeout) {
    SendJob *j = job;
    j->opts.timeout = timeout;
    if (j->loan)
        return xi_send_loan(h, j->loan, j->size, &j->opts);
    return j->opts.free_index || j->opts.ttl_ns ? xi_send_ex(h, j->value, j->size, &j->opts)
                                                : xi_send(h, j->value, j->size, timeout);
}

/* What has been encoded. */
static int64_t post(Channel *ch, Encoder *e, int64_t size, SendJob *job, int64_t timeout) {
    if (e->outside_count)
        size = encoder_place(e, size);
    if (size < 0)
        return size;
    job->value = e->b.buffer;
    job->size = (size_t)size;
    job->loan = e->in_loan ? &e->loan : NULL;
    bool quick = job->loan || (job->size <= ch->inline_max && !job->opts.free_index);
    int64_t r = transfer(ch, attempt_value, job, timeout, quick);
    if (r >= 0 && e->outside_count)
        encoder_sent(e);
    return r;
}

/* Out of line: the encoder's frame must not burden an int. */
static __attribute__((noinline)) int64_t send_encoded(Channel *ch, PyObject *obj, SendJob *job, int64_t timeout) {
    Encoder e;
    encoder_init(&e, ch);
    int64_t r = encoder_run(&e, obj);
    if (XI_LIKELY(r >= 0))
        r = post(ch, &e, r, job, timeout);
    encoder_clear(&e);
    return r;
}

/* A loan by itself: the value that refers to its bytes is built in front of them, in the same block. */
static int64_t send_loan(Channel *ch, PyObject *obj, SendJob *job, int64_t timeout) {
    Loan *l = (Loan *)obj;
    if (l->interp != ch->interp || loan_claim(l) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(ch->st->errors[-XI_E_INVAL], "this buffer belongs to another interpreter than the channel: "
                                                         "make it with the channel's own interpreter");
        return XI_RAISED;
    }
    xi_builder b;
    xi_buffer_ref ref = {l->loan.handle, LOAN_HEAD, (uint64_t)l->size};
    xi_builder_init(&b, l->loan.data, LOAN_HEAD, 0);
    (void)xi_put_buffer(&b, &ref, 0);
    int64_t r = xi_builder_finish(&b);
    if (r >= 0) {
        job->size = (size_t)r;
        job->loan = &l->loan;
        r = transfer(ch, attempt_value, job, timeout, true);
    }
    if (r >= 0)
        loan_sent(l);
    else
        loan_unclaim(l);
    return r;
}

/* Anything. The channel is entered. */
static int64_t send_object(Channel *ch, PyObject *obj, int64_t timeout, PyObject *on_free, int64_t ttl) {
    SendJob job;
    uint32_t slot = 0;
    job.opts = (xi_send_opts){0};
    job.opts.ttl_ns = ttl;
    if (XI_LIKELY(PyLong_CheckExact(obj) && !on_free && !ttl)) {
        int overflow;
        job.integer = PyLong_AsLongLongAndOverflow(obj, &overflow);
        if (XI_LIKELY(!overflow)) {
            int64_t r = xi_send_int(ch->h, job.integer, XI_TRY);
            return XI_LIKELY(r == 0) ? 0 : transfer(ch, attempt_int, &job, timeout, true);
        }
    }
    if (on_free) {
        if (free_reserve(ch->interp, on_free, &slot) < 0)
            return XI_RAISED;
        job.opts.free_index = ch->interp->free_index;
        job.opts.free_argument = slot;
    }
    int64_t r = Py_TYPE(obj) == ch->st->loan_type ? send_loan(ch, obj, &job, timeout)
                                                  : send_encoded(ch, obj, &job, timeout);
    if (on_free && r < 0)
        free_cancel(ch->interp, slot);
    return r;
}

/* ------------------------------------------------------------- arguments */

/* True if the keyword is `name`: interned, so mostly by identity. */
static bool is_keyword(PyObject *keyword, PyObject *name) {
    return keyword == name || PyUnicode_Compare(keyword, name) == 0;
}

int parse_arguments(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                    Py_ssize_t required, PyObject *const *names, PyObject **values) {
    if (nargs < required || nargs > required + 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd to %zd positional arguments, %zd were given", function, required,
                     required + 1, nargs);
        return -1;
    }
    if (nargs > required)
        values[0] = args[required];
    Py_ssize_t n = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *keyword = PyTuple_GET_ITEM(kwnames, i);
        int k = 0;
        while (names[k] && !is_keyword(keyword, names[k]))
            k++;
        if (!names[k] || values[k]) {
            PyErr_Format(PyExc_TypeError, names[k] ? "%s() got argument '%U' twice" : "%s() has no argument '%U'",
                         function, keyword);
            return -1;
        }
        values[k] = args[nargs + i];
    }
    return 0;
}

/* ---------------------------------------------------------- send methods */

PyObject *channel_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    Channel *ch = (Channel *)self;
    PyObject *value[3] = {NULL, NULL, NULL};
    int64_t timeout = XI_FOREVER, ttl = 0;
    if (XI_UNLIKELY(nargs != 1 || kwnames)) {
        PyObject *const names[] = {ch->st->s_timeout, ch->st->s_on_free, ch->st->s_ttl, NULL};
        if (parse_arguments("send", args, nargs, kwnames, 1, names, value) < 0 ||
            parse_timeout(value[0], &timeout) < 0 || parse_period("ttl", value[2], &ttl) < 0)
            return NULL;
    }
    if (XI_UNLIKELY(begin(ch, "xidata.send") < 0))
        return NULL;
    int64_t r = send_object(ch, args[0], timeout, value[1] == Py_None ? NULL : value[1], ttl);
    if (XI_UNLIKELY(r < 0))
        raise_send_error(ch->st, r);
    channel_exit(ch);
    if (XI_UNLIKELY(r < 0))
        return NULL;
    Py_RETURN_NONE;
}

PyObject *channel_try_send(PyObject *self, PyObject *obj) {
    Channel *ch = (Channel *)self;
    if (begin(ch, "xidata.send") < 0)
        return NULL;
    int64_t r = send_object(ch, obj, XI_TRY, NULL, 0);
    if (r < 0 && r != XI_E_AGAIN)
        raise_send_error(ch->st, r);
    channel_exit(ch);
    return r < 0 && r != XI_E_AGAIN ? NULL : PyBool_FromLong(r >= 0);
}

/* -------------------------------------------------------------- send_many */

typedef struct {
    Channel *ch;
    Deadline deadline;         /* of the whole call */
    int64_t sent;
    size_t count, used;        /* values gathered, bytes of area */
    const void *values[BATCH];
    size_t sizes[BATCH];
    _Alignas(16) uint8_t area[BATCH_BYTES];
} Batch;

typedef struct {
    const void *const *values;
    const size_t *sizes;
    size_t n;
} ManyJob;

static int64_t attempt_many(xi_channel *h, void *job, int64_t timeout) {
    ManyJob *j = job;
    return xi_send_many(h, j->values, j->sizes, j->n, timeout);
}

static bool sends(Attempt attempt) {
    return attempt == attempt_int || attempt == attempt_value || attempt == attempt_many;
}

/* XI_E_AGAIN where the time was used up by earlier values. */
static int64_t as_timeout(const Batch *b, int64_t r) {
    return r == XI_E_AGAIN && b->deadline.timeout > 0 && deadline_left(&b->deadline) == XI_TRY ? XI_E_TIMEOUT : r;
}

/* Sends what has been gathered: 0, an enum xi_error or XI_RAISED. What was not sent is dropped. */
static int64_t flush(Batch *b) {
    size_t done = 0;
    int64_t r = 0;
    while (done < b->count && r >= 0) {
        ManyJob job = {b->values + done, b->sizes + done, b->count - done};
        r = transfer(b->ch, attempt_many, &job, deadline_left(&b->deadline), true);
        if (r > 0)
            done += (size_t)r;
    }
    b->sent += (int64_t)done;
    b->count = b->used = 0;
    return r < 0 ? as_timeout(b, r) : 0;
}

static void gather(Batch *b, const void *value, size_t size) {
    memcpy(b->area + b->used, value, size);
    b->values[b->count] = b->area + b->used;
    b->sizes[b->count++] = size;
    b->used += size;
}

static int64_t add_encoded(Batch *b, PyObject *obj) {
    Encoder e;
    SendJob job = {0};
    encoder_init(&e, b->ch);
    int64_t size = encoder_run(&e, obj), r = 0;
    bool small = size >= 0 && !e.outside_count && !e.in_loan && (size_t)size <= b->ch->inline_max;
    if (size >= 0 && (!small || b->used + (size_t)size > BATCH_BYTES))
        r = flush(b);
    if (size < 0 || r < 0) {
        r = size < 0 ? size : r;
    } else if (small) {
        gather(b, e.b.buffer, (size_t)size);
    } else {
        r = as_timeout(b, post(b->ch, &e, size, &job, deadline_left(&b->deadline)));
        b->sent += r >= 0;
    }
    encoder_clear(&e);
    return r < 0 ? r : 0;
}

static int64_t add(Batch *b, PyObject *obj) {
    int64_t r = b->count == BATCH || b->used + XI_SIZE_SCALAR > BATCH_BYTES ? flush(b) : 0;
    if (r < 0)
        return r;
    if (PyLong_CheckExact(obj)) {
        int overflow;
        int64_t v = PyLong_AsLongLongAndOverflow(obj, &overflow);
        if (!overflow && v == (int32_t)v) { /* one word: docs/value-format.md */
            uint64_t word = XI_INT32 | (uint64_t)(uint32_t)v << 32;
            gather(b, &word, sizeof word);
            return 0;
        }
    }
    if (Py_TYPE(obj) == b->ch->st->loan_type) {
        SendJob job = {0};
        r = flush(b);
        r = r < 0 ? r : as_timeout(b, send_loan(b->ch, obj, &job, deadline_left(&b->deadline)));
        b->sent += r >= 0;
        return r < 0 ? r : 0;
    }
    return add_encoded(b, obj);
}

/* Gives the exception that is set an attribute `sent`. */
static void tell_sent(State *st, int64_t sent) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *number = PyLong_FromLongLong(sent);
    if (!number || PyObject_SetAttr(value, st->s_sent, number) < 0)
        PyErr_Clear(); /* the exception itself matters more */
    Py_XDECREF(number);
    PyErr_Restore(type, value, traceback);
}

/* Sends what was gathered before the exception that is set, which stays set. */
static void flush_before_raising(Batch *b) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (!PyErr_GivenExceptionMatches(type, PyExc_Exception))
        b->deadline.timeout = XI_TRY; /* KeyboardInterrupt wants out */
    if (flush(b) == XI_RAISED)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

static int64_t send_all(Batch *b, PyObject *iterator) {
    PyObject *item;
    int64_t r = 0;
    while (r >= 0 && (item = PyIter_Next(iterator))) {
        r = add(b, item);
        Py_DECREF(item);
    }
    if (r >= 0 && !PyErr_Occurred())
        return flush(b);
    if (PyErr_Occurred()) {
        flush_before_raising(b);
        return XI_RAISED;
    }
    return r;
}

PyObject *channel_send_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    Channel *ch = (Channel *)self;
    PyObject *const names[] = {ch->st->s_timeout, NULL};
    PyObject *value[1] = {NULL}, *iterator = NULL, *result = NULL;
    int64_t timeout;
    if (parse_arguments("send_many", args, nargs, kwnames, 1, names, value) < 0 || parse_timeout(value[0], &timeout) < 0 ||
        !(iterator = PyObject_GetIter(args[0])))
        return NULL;
    Batch *b = PyMem_Malloc(sizeof *b);
    if (!b || begin(ch, "xidata.send") < 0) {
        if (!b)
            PyErr_NoMemory();
        PyMem_Free(b);
        Py_DECREF(iterator);
        return NULL;
    }
    b->ch = ch;
    b->deadline = deadline_in(timeout);
    b->sent = 0;
    b->count = b->used = 0;
    int64_t r = send_all(b, iterator);
    if (r < 0 && !(r == XI_E_AGAIN && timeout == XI_TRY)) {
        raise_send_error(ch->st, r);
        tell_sent(ch->st, b->sent);
    } else {
        result = PyLong_FromLongLong(b->sent);
    }
    channel_exit(ch);
    PyMem_Free(b);
    Py_DECREF(iterator);
    return result;
}

/* ----------------------------------------------------------------- stash */

static void drop_stashed(Stashed *s) {
    Py_XDECREF(s->object);
    if (s->borrow)
        borrow_unref(s->borrow);
    else if (!s->object)
        xi_msg_release(&s->msg);
}

/* The one to be delivered next, which is taken off. */
static Stashed *stash_pop(Channel *ch) {
    ch->st->stashed--;
    return &ch->stash[--ch->stash_count];
}

void stash_clear(Channel *ch) {
    while (ch->stash_count)
        drop_stashed(stash_pop(ch));
    PyMem_Free(ch->stash);
    ch->stash = NULL;
    ch->stash_size = 0;
}

int stash_traverse(Channel *ch, visitproc visit, void *arg) {
    for (size_t i = 0; i < ch->stash_count; i++)
        Py_VISIT(ch->stash[i].object);
    return 0;
}

/* Room for the one to be delivered next. NULL when there is no memory, with no exception of its own. */
static Stashed *stash_push(Channel *ch) {
    if (ch->stash_count == ch->stash_size) {
        size_t grown = ch->stash_size ? 2 * ch->stash_size : 8;
        Stashed *s = PyMem_Malloc(grown * sizeof *s);
        if (!s)
            return NULL;
        for (size_t i = 0; i < ch->stash_count; i++) {
            s[i] = ch->stash[i];
            if (!s[i].object && !s[i].borrow) { /* a message must be moved: it may point into itself */
                message_init(&s[i].msg);
                xi_msg_move(&s[i].msg, &ch->stash[i].msg);
            }
        }
        PyMem_Free(ch->stash);
        ch->stash = s;
        ch->stash_size = grown;
    }
    ch->st->stashed++;
    Stashed *top = &ch->stash[ch->stash_count++];
    top->object = NULL;
    top->is_error = false;
    top->borrow = NULL;
    message_init(&top->msg);
    return top;
}

/* Steals the object. */
static void stash_object(Channel *ch, PyObject *object, bool is_error) {
    Stashed *s = object ? stash_push(ch) : NULL;
    if (!s) {
        Py_XDECREF(object);
        return;
    }
    s->object = object;
    s->is_error = is_error;
}

/* Steals the borrow, or moves the message. */
static void stash_message(Channel *ch, xi_msg *m, Borrow *borrow) {
    Stashed *s = stash_push(ch);
    if (!s && borrow)
        borrow_unref(borrow);
    else if (!s)
        xi_msg_release(m);
    else if (borrow)
        s->borrow = borrow;
    else
        xi_msg_move(&s->msg, m);
}

/* ------------------------------------------------------------- receiving */

static int64_t attempt_recv(xi_channel *h, void *job, int64_t timeout) { return xi_recv(h, job, timeout); }

/* Is the exception that is set one of the value, rather than of whoever pressed Ctrl-C? */
static bool is_of_value(void) { return PyErr_ExceptionMatches(PyExc_Exception); }

/*
 * A received message as an object; ends its borrow, unless views of it now hold that. Without an object there is an
 * exception: the value is gone, or, if that was no Exception, stashed.
 */
static PyObject *deliver(Channel *ch, xi_msg *m, Borrow *borrow, bool zero_copy) {
    Decoder d = {ch->st, ch, m, borrow, zero_copy};
    PyObject *o = XI_UNLIKELY(is_claim(decoder_message(&d))) ? claim_deliver(&d) : decode_message(&d);
    if (XI_UNLIKELY(!o && !is_of_value()))
        stash_message(ch, m, d.borrow);
    else if (XI_UNLIKELY(d.borrow != NULL))
        borrow_unref(d.borrow);
    else if (xi_msg_borrowed(m))
        xi_msg_release(m);
    return o;
}

/* The next one of the stash, which is not empty. */
static PyObject *unstash(Channel *ch, bool zero_copy) {
    Stashed *s = stash_pop(ch);
    PyObject *object = s->object;
    if (object && s->is_error) {
        PyErr_SetObject((PyObject *)Py_TYPE(object), object);
        Py_DECREF(object);
        return NULL;
    }
    if (object)
        return object;
    xi_msg m; /* moved out: decoding may stash something again */
    Borrow *borrow = s->borrow;
    message_init(&m);
    if (!borrow)
        xi_msg_move(&m, &s->msg);
    object = deliver(ch, &m, borrow, zero_copy);
    xi_msg_release(&m);
    return object;
}

static __attribute__((noinline)) PyObject *receive_with(Channel *ch, xi_msg *m, int64_t timeout, bool zero_copy,
                                                        int64_t *code) {
    *code = transfer(ch, attempt_recv, m, timeout, true);
    return *code < 0 ? NULL : deliver(ch, m, NULL, zero_copy);
}

/* With a message of its own, because another call is using the channel's. */
static __attribute__((noinline)) PyObject *receive_apart(Channel *ch, int64_t timeout, bool zero_copy, int64_t *code) {
    xi_msg m;
    message_init(&m);
    PyObject *o = receive_with(ch, &m, timeout, zero_copy, code);
    xi_msg_release(&m);
    return o;
}

/* Of a receive: was there nothing, so that the descriptor of fileno() is to be armed? */
static inline bool found_nothing(const Channel *ch, int64_t r) {
    return XI_UNLIKELY(ch->ready != NULL) && (r == XI_E_AGAIN || r == XI_E_TIMEOUT);
}

/* The next value. NULL: *code is why, or 0 with an exception set. The channel is entered. */
static PyObject *receive(Channel *ch, int64_t timeout, bool zero_copy, int64_t *code) {
    PyObject *o;
    *code = 0;
    if (XI_UNLIKELY(ch->stash_count))
        return unstash(ch, zero_copy);
#ifdef Py_GIL_DISABLED
    return receive_apart(ch, timeout, zero_copy, code);
#endif
    if (XI_UNLIKELY(ch->spare_used))
        return receive_apart(ch, timeout, zero_copy, code);
    ch->spare_used = true;
    int64_t r = xi_recv(ch->h, &ch->spare, XI_TRY);
    if (XI_LIKELY(r == 0)) {
        o = deliver(ch, &ch->spare, NULL, zero_copy);
    } else if (is_final(r, timeout)) { /* told once: CORRUPT would not come again */
        o = NULL;
        *code = r;
    } else {
        o = receive_with(ch, &ch->spare, timeout, zero_copy, code);
    }
    ch->spare_used = false;
    return o;
}

/* As receive(), entering the channel; raises, except for `quiet`, which is left in *code without an exception. */
static PyObject *receive_or_raise(Channel *ch, int64_t timeout, bool zero_copy, int64_t quiet, int64_t *code) {
    *code = XI_RAISED;
    if (XI_UNLIKELY(begin(ch, "xidata.receive") < 0))
        return NULL;
    PyObject *o = receive(ch, timeout, zero_copy, code);
    if (XI_UNLIKELY(!o && *code < 0 && *code != quiet))
        raise_error(ch->st, *code);
    if (XI_UNLIKELY(!o) && found_nothing(ch, *code))
        channel_settle(ch);
    channel_exit(ch);
    return o;
}

PyObject *channel_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    Channel *ch = (Channel *)self;
    int64_t timeout = XI_FOREVER, code;
    int zero_copy = ch->zero_copy;
    if (XI_UNLIKELY(nargs || kwnames)) {
        PyObject *value[2] = {NULL, NULL};
        PyObject *const names[] = {ch->st->s_timeout, ch->st->s_zero_copy, NULL};
        if (parse_arguments("recv", args, nargs, kwnames, 0, names, value) < 0 || parse_timeout(value[0], &timeout) < 0)
            return NULL;
        if (value[1] && value[1] != Py_None && (zero_copy = PyObject_IsTrue(value[1])) < 0)
            return NULL;
    }
    return receive_or_raise(ch, timeout, zero_copy, 0, &code);
}

PyObject *channel_try_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Channel *ch = (Channel *)self;
    int64_t code;
    if (nargs > 1) {
        PyErr_Format(PyExc_TypeError, "try_recv() takes at most one argument, %zd were given", nargs);
        return NULL;
    }
    PyObject *o = receive_or_raise(ch, XI_TRY, ch->zero_copy, nargs ? XI_E_AGAIN : 0, &code);
    return !o && nargs && code == XI_E_AGAIN ? Py_NewRef(args[0]) : o;
}

PyObject *channel_next(PyObject *self) {
    int64_t code;
    return receive_or_raise((Channel *)self, XI_FOREVER, ((Channel *)self)->zero_copy, XI_E_CLOSED, &code);
}

/* -------------------------------------------------------------- recv_many */

typedef struct {
    xi_msg *messages;
    size_t n;
} RecvJob;

static int64_t attempt_recv_many(xi_channel *h, void *job, int64_t timeout) {
    RecvJob *j = job;
    return xi_recv_many(h, j->messages, j->n, timeout);
}

/*
 * Something went wrong with a value while `list` holds the ones before it. Nothing is lost: if the exception is of the
 * value, it is stashed in the value's place and the list delivered; else the list is stashed too. True: deliver the list.
 */
static bool save_list(Channel *ch, PyObject *list) {
    PyObject *type, *value, *traceback;
    bool of_value = is_of_value();
    PyErr_Fetch(&type, &value, &traceback);
    if (of_value && PyList_GET_SIZE(list) > 0) {
        PyErr_NormalizeException(&type, &value, &traceback);
        stash_object(ch, value, true);
        Py_XDECREF(type);
        Py_XDECREF(traceback);
        return true;
    }
    if (!of_value)
        for (Py_ssize_t i = PyList_GET_SIZE(list); i-- > 0;)
            stash_object(ch, Py_NewRef(PyList_GET_ITEM(list, i)), false);
    PyErr_Restore(type, value, traceback);
    return false;
}

/* Appends n messages, decoded, to the list. False with an exception. */
static bool deliver_many(Channel *ch, xi_msg *messages, size_t n, PyObject *list) {
    for (size_t i = 0; i < n; i++) {
        size_t before = ch->stash_count;
        PyObject *o = deliver(ch, &messages[i], NULL, ch->zero_copy);
        if (XI_LIKELY(o && PyList_Append(list, o) == 0)) {
            Py_DECREF(o);
            continue;
        }
        Py_XDECREF(o);
        /* Those after it go onto the stash first, below it. */
        Stashed again = {NULL, false, NULL, XI_MSG_INIT};
        bool stashed = ch->stash_count > before;
        if (stashed) {
            Stashed *top = stash_pop(ch);
            again.borrow = top->borrow;
            if (!top->borrow)
                xi_msg_move(&again.msg, &top->msg);
        }
        for (size_t k = n; --k > i;)
            stash_message(ch, &messages[k], NULL);
        if (stashed)
            stash_message(ch, &again.msg, again.borrow);
        return save_list(ch, list);
    }
    return true;
}

/* What the stash holds, as far as it goes. False with an exception. */
static bool unstash_many(Channel *ch, size_t n, PyObject *list) {
    for (size_t i = 0; i < n && ch->stash_count; i++) {
        if (i > 0 && ch->stash[ch->stash_count - 1].is_error)
            return true; /* for the next call */
        PyObject *o = unstash(ch, ch->zero_copy);
        int rc = o ? PyList_Append(list, o) : -1;
        Py_XDECREF(o);
        if (rc < 0)
            return save_list(ch, list);
    }
    return true;
}

static PyObject *receive_many(Channel *ch, size_t n, int64_t timeout) {
    PyObject *list = PyList_New(0);
    bool good = list != NULL;
    if (good && ch->stash_count) {
        good = unstash_many(ch, n, list);
    } else if (good) {
        xi_msg *messages = PyMem_Malloc(n * sizeof *messages);
        if (!messages) {
            Py_DECREF(list);
            return PyErr_NoMemory();
        }
        for (size_t i = 0; i < n; i++)
            message_init(&messages[i]);
        RecvJob job = {messages, n};
        int64_t r = transfer(ch, attempt_recv_many, &job, timeout, true);
        if (r < 0)
            raise_error(ch->st, r);
        if (found_nothing(ch, r))
            channel_settle(ch);
        good = r >= 0 && deliver_many(ch, messages, (size_t)r, list);
        for (size_t i = 0; i < n; i++)
            xi_msg_release(&messages[i]);
        PyMem_Free(messages);
    }
    if (!good)
        Py_CLEAR(list);
    return list;
}

PyObject *channel_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    Channel *ch = (Channel *)self;
    PyObject *const names[] = {ch->st->s_timeout, NULL};
    PyObject *value[1] = {NULL};
    int64_t timeout;
    if (parse_arguments("recv_many", args, nargs, kwnames, 1, names, value) < 0 || parse_timeout(value[0], &timeout) < 0)
        return NULL;
    Py_ssize_t n = PyNumber_AsSsize_t(args[0], NULL);
    if (n < 1) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "recv_many(n): n is at least 1");
        return NULL;
    }
    if (begin(ch, "xidata.receive") < 0)
        return NULL;
    PyObject *list = receive_many(ch, n < RECV_MOST ? (size_t)n : RECV_MOST, timeout);
    channel_exit(ch);
    return list;
}
