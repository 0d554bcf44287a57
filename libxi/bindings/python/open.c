/* SPDX-License-Identifier: MIT */
/*
 * Opening a channel: keywords to xi_open_opts.
 *
 * A handle keeps what it was opened with, so that it can be opened again in a
 * forked child, and so that Channel.group() can open the same channel for a
 * group of it. Options that were not given are left as the library has them:
 * without any of a group's, who joins one that exists takes it as it is.
 */
#include "binding.h"

#include <math.h>

void channel_link(Channel *ch) {
    Interp *in = ch->interp;
    ch->prev = NULL;
    ch->next = in->channels;
    if (ch->next)
        ch->next->prev = ch;
    in->channels = ch;
}

int open_handle(Channel *ch, uint32_t flags) {
    xi_open_opts opts = ch->options.open;
    xi_channel *h = NULL;
    int rc;
    opts.flags = flags;
    opts.group_opts = opts.group_opts ? &ch->options.group : NULL;
    if (interp_enter(ch->interp) < 0)
        return -1;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = xi_open(ch->interp->me, ch->name, &opts, &h);
        Py_END_ALLOW_THREADS
    } while (rc == XI_E_INTR && interrupted(ch->interp) == 0);
    if (rc < 0) {
        if (!PyErr_Occurred())
            raise_error(ch->st, rc);
        interp_exit(ch->interp);
        return -1;
    }
    if (ch->h) { /* another thread was first */
        (void)xi_channel_free(h);
        interp_exit(ch->interp);
        return 0;
    }
    ch->h = h;
    ch->inline_max = xi_inline_max(h);
    ch->refuse_pickle = ch->pickle == PICKLE_REFUSE || (ch->pickle == PICKLE_BY_USERS && xi_channel_shared(h));
    ch->generation = ch->interp->generation;
    guard_reset(&ch->guard);
    return 0;
}

/* --------------------------------------------------------- kept options */

/* A copy of its own of *text, or NULL of NULL. -1 with an exception, and *text is NULL. */
static int own(const char **text) {
    const char *given = *text;
    *text = NULL;
    if (!given)
        return 0;
    size_t n = strlen(given) + 1;
    char *copy = PyMem_Malloc(n);
    if (!copy) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(copy, given, n);
    *text = copy;
    return 0;
}

/* Makes the strings its own; those that cannot be are NULL then. -1 with an exception. */
static int options_own(Options *o) {
    const char **texts[] = {&o->open.group, &o->open.dead, &o->open.access, &o->group.dead};
    int rc = 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (rc == 0)
            rc = own(texts[i]);
        else
            *texts[i] = NULL;
    }
    return rc;
}

void options_free(Options *o) {
    PyMem_Free((void *)(uintptr_t)o->open.group);
    PyMem_Free((void *)(uintptr_t)o->open.dead);
    PyMem_Free((void *)(uintptr_t)o->open.access);
    PyMem_Free((void *)(uintptr_t)o->group.dead);
    memset(o, 0, sizeof *o);
}

/* How a handle treats values. */
typedef struct {
    enum pickle_policy pickle;
    enum errors_policy errors;
    PyObject *errors_name;
    bool zero_copy;
} Treatment;

static PyObject *open_channel(Interp *in, const char *name, const Options *o, const Treatment *t) {
    State *st = in->st;
    Channel *ch = AUDIT(in->st, "xidata.open", "ss", in->ns, name) < 0 ? NULL : PyObject_GC_New(Channel, st->channel_type);
    if (!ch)
        return NULL;
    memset((char *)ch + sizeof(PyObject), 0, sizeof *ch - sizeof(PyObject));
    ch->st = st;
    ch->interp = (Interp *)Py_NewRef((PyObject *)in);
    ch->pickle = t->pickle;
    ch->errors = t->errors;
    ch->errors_name = Py_XNewRef(t->errors_name);
    ch->zero_copy = t->zero_copy;
    ch->options = *o;
    int rc = options_own(&ch->options);
    const char *copy = name;
    if (rc == 0)
        rc = own(&copy);
    ch->name = rc == 0 ? (char *)(uintptr_t)copy : NULL;
    PyObject_GC_Track(ch);
    if (rc < 0 || open_handle(ch, o->open.flags) < 0) {
        Py_DECREF(ch);
        return NULL;
    }
    channel_link(ch);
    return (PyObject *)ch;
}

/* ------------------------------------------------------------- keywords */

static const char *const mode_words[] = {"queue", "broadcast", NULL};
static const char *const full_words[] = {"block", "fail", "drop", NULL};
static const char *const pickle_words[] = {"allow", "refuse", NULL}; /* in the order of enum pickle_policy */

/* The place of `text` among the words, or -1 with an exception. */
static int which(const char *option, const char *text, const char *const *words) {
    char list[64] = "";
    for (int i = 0; words[i]; i++) {
        if (strcmp(text, words[i]) == 0)
            return i;
        size_t used = strlen(list);
        PyOS_snprintf(list + used, sizeof list - used, "%s'%s'", i ? ", " : "", words[i]);
    }
    PyErr_Format(PyExc_ValueError, "%s is one of %s, not '%s'", option, list, text);
    return -1;
}

/* A whole number from 0 to `most`; None and NULL are 0. */
static int parse_size(const char *option, PyObject *o, uint64_t most, uint64_t *out) {
    *out = 0;
    if (!o || o == Py_None)
        return 0;
    PyObject *number = PyNumber_Index(o);
    if (!number) {
        PyErr_Format(PyExc_TypeError, "%s is a whole number, not %s", option, TYPE_NAME(Py_TYPE(o)));
        return -1;
    }
    *out = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    if (PyErr_Occurred()) /* negative, or beyond 64 bits */
        PyErr_Clear();
    else if (*out <= most)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s is a number from 0 to %llu", option, (unsigned long long)most);
    return -1;
}

int parse_period(const char *what, PyObject *o, int64_t *ns) {
    *ns = 0;
    if (!o || o == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(o);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds > 0)) {
        PyErr_Format(PyExc_ValueError, "%s is None or a positive number of seconds", what);
        return -1;
    }
    *ns = seconds < 9e9 ? (int64_t)ceil(seconds * 1e9) : -1;
    return 0;
}

/* "tail", "oldest", or a number: the last so many. */
static int parse_from(PyObject *o, xi_group_opts *g) {
    uint64_t last;
    if (PyUnicode_Check(o)) {
        static const char *const words[] = {"tail", "oldest", NULL};
        const char *text = PyUnicode_AsUTF8(o);
        int place = text ? which("from_", text, words) : -1;
        g->from = place == 1 ? XI_FROM_OLDEST : XI_FROM_TAIL;
        return place < 0 ? -1 : 0;
    }
    if (parse_size("from_", o, UINT32_MAX, &last) < 0)
        return -1;
    g->from = XI_FROM_LAST;
    g->last = (uint32_t)last;
    return 0;
}

/* A group's keywords, as they were given. */
typedef struct {
    PyObject *from, *max_deliveries, *window, *timeout;
    int ack, temporary;
    const char *dead;
} GroupKeywords;

static int parse_group(const GroupKeywords *k, Options *o) {
    xi_group_opts *g = &o->group;
    uint64_t max_deliveries, window;
    if ((k->from && k->from != Py_None && parse_from(k->from, g) < 0) ||
        parse_size("max_deliveries", k->max_deliveries, UINT32_MAX, &max_deliveries) < 0 ||
        parse_size("window", k->window, XI_WINDOW_MAX, &window) < 0 ||
        parse_period("ack_timeout", k->timeout, &g->timeout_ns) < 0)
        return -1;
    if (!k->ack && (max_deliveries || window || g->timeout_ns || k->dead)) {
        PyErr_SetString(PyExc_ValueError, "max_deliveries, window, ack_timeout and dead_letters are for a group that "
                                          "acknowledges: give ack=True");
        return -1;
    }
    if (g->timeout_ns < 0)
        g->timeout_ns = 0; /* infinite: only a death makes a delivery overdue */
    if (k->temporary && o->open.group) {
        PyErr_SetString(PyExc_ValueError, "a temporary group has no name: leave out group");
        return -1;
    }
    g->flags = (k->ack ? XI_GROUP_ACK : 0) | (k->temporary ? XI_GROUP_TEMPORARY : 0);
    g->max_deliveries = (uint32_t)max_deliveries;
    g->window = (uint32_t)window;
    g->dead = k->dead;
    o->open.group_opts = g->flags || g->from ? g : NULL;
    return 0;
}

/* What a new channel is to be like, as it was given. */
typedef struct {
    PyObject *capacity, *values, *grow, *ttl, *retain;
    const char *mode, *when_full;
} NewKeywords;

static int parse_new(const NewKeywords *k, Options *o) {
    uint64_t retain;
    int mode = 0, full = 0;
    if (k->mode && (mode = which("mode", k->mode, mode_words)) < 0)
        return -1;
    if ((full = which("when_full", k->when_full, full_words)) < 0)
        return -1;
    if (parse_size("capacity", k->capacity, UINT64_MAX, &o->open.capacity) < 0 ||
        parse_size("values", k->values, UINT64_MAX, &o->open.values) < 0 ||
        parse_size("grow", k->grow, UINT64_MAX, &o->open.grow) < 0 ||
        parse_size("retain", k->retain, UINT32_MAX, &retain) < 0 || parse_period("ttl", k->ttl, &o->open.ttl_ns) < 0)
        return -1;
    if (o->open.ttl_ns < 0)
        o->open.ttl_ns = 0;
    o->open.mode = k->mode ? (uint32_t)mode + XI_QUEUE : 0;
    o->open.when_full = (uint32_t)full;
    o->open.retain = (uint32_t)retain;
    return 0;
}

static int parse_flags(int send_only, int recv_only, int existing, int need_peer, bool group, uint32_t *flags) {
    if (send_only && recv_only) {
        PyErr_SetString(PyExc_ValueError, "a handle that is send_only and recv_only could do nothing");
        return -1;
    }
    if (send_only && group) {
        PyErr_SetString(PyExc_ValueError, "a handle that is send_only has no group: leave out group, from_ and ack");
        return -1;
    }
    *flags = (send_only ? XI_OPEN_SEND : 0) | (recv_only ? XI_OPEN_RECV : 0) | (existing ? XI_OPEN_EXISTING : 0) |
             (need_peer ? XI_OPEN_NEED_PEER : 0);
    return 0;
}

PyObject *channel_open(Interp *in, PyObject *args, PyObject *keywords) {
    static char *names[] = {"name",      "mode",   "capacity", "group",          "send_only", "recv_only",   "existing",
                            "pickle",    "values", "grow",     "ttl",            "dead",      "retain",      "when_full",
                            "need_peer", "access", "from_",    "ack",            "window",    "ack_timeout", "zero_copy",
                            "max_deliveries",      "dead_letters",               "temporary", "errors",    NULL};
    const char *name, *pickle = NULL;
    int send_only = 0, recv_only = 0, existing = 0, zero_copy = 0, need_peer = 0, policy = PICKLE_BY_USERS;
    PyObject *errors = NULL;
    Options o = {0};
    NewKeywords n = {.when_full = "block"};
    GroupKeywords g = {0};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s|$zOzpppzOOOzOspzOpOOpOzpO:channel", names, &name, &n.mode,
                                     &n.capacity, &o.open.group, &send_only, &recv_only, &existing, &pickle, &n.values,
                                     &n.grow, &n.ttl, &o.open.dead, &n.retain, &n.when_full, &need_peer, &o.open.access,
                                     &g.from, &g.ack, &g.window, &g.timeout, &zero_copy, &g.max_deliveries, &g.dead,
                                     &g.temporary, &errors))
        return NULL;
    if (parse_new(&n, &o) < 0 || parse_group(&g, &o) < 0 ||
        (pickle && (policy = which("pickle", pickle, pickle_words)) < 0))
        return NULL;
    bool group = o.open.group || o.open.group_opts;
    if (parse_flags(send_only, recv_only, existing, need_peer, group, &o.open.flags) < 0)
        return NULL;
    Treatment t = {(enum pickle_policy)policy, ERRORS_PASS, NULL, zero_copy};
    if (errors_converter(in->st, errors, &t.errors, &t.errors_name) < 0)
        return NULL;
    PyObject *ch = open_channel(in, name, &o, &t);
    Py_XDECREF(t.errors_name);
    return ch;
}

PyObject *channel_open_named(Interp *in, const char *name) {
    Options o = {.open = {.flags = XI_OPEN_EXISTING}};
    static const Treatment plain = {PICKLE_BY_USERS, ERRORS_PASS, NULL, false};
    return open_channel(in, name, &o, &plain);
}

PyObject *channel_open_group(Channel *ch, PyObject *args, PyObject *keywords) {
    static char *names[] = {"name",         "from_",     "ack", "max_deliveries", "window", "ack_timeout",
                            "dead_letters", "zero_copy", NULL};
    Options o = {0};
    GroupKeywords g = {0};
    PyObject *zero_copy = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s|$OpOOOzO:group", names, &o.open.group, &g.from, &g.ack,
                                     &g.max_deliveries, &g.window, &g.timeout, &g.dead, &zero_copy))
        return NULL;
    int views = zero_copy == Py_None ? ch->zero_copy : PyObject_IsTrue(zero_copy);
    if (views < 0 || parse_group(&g, &o) < 0)
        return NULL;
    if (channel_enter(ch) < 0) /* a handle that was freed opens nothing */
        return NULL;
    o.open.flags = (ch->options.open.flags & (XI_OPEN_RECV | XI_OPEN_NEED_PEER)) | XI_OPEN_EXISTING;
    if (ch->options.open.flags & XI_OPEN_SEND)
        o.open.flags |= XI_OPEN_RECV; /* this one is for sending, so that one for the rest */
    Treatment t = {ch->pickle, ch->errors, ch->errors_name, views};
    PyObject *other = open_channel(ch->interp, ch->name, &o, &t);
    channel_exit(ch);
    return other;
}

PyObject *channel_remove(Interp *in, PyObject *arg) {
    Py_ssize_t length;
    const char *name = PyUnicode_AsUTF8AndSize(arg, &length);
    int rc;
    if (name && strlen(name) != (size_t)length) {
        PyErr_SetString(PyExc_ValueError, "a channel's name holds no null character");
        return NULL;
    }
    if (!name || AUDIT(in->st, "xidata.remove", "ss", in->ns, name) < 0 || interp_enter(in) < 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = xi_remove(in->me, name);
        Py_END_ALLOW_THREADS
    } while (rc == XI_E_INTR && interrupted(in) == 0);
    PyObject *none = finished(in->st, rc);
    interp_exit(in);
    return none;
}
