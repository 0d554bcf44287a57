/* SPDX-License-Identifier: MIT */
/*
 * The CPython module: what its files share.
 *
 *   module.c     init, module functions, life after fork and at exit
 *   errors.c     the exception classes, one per enum xi_error
 *   interp.c     Interpreter: joining, leaving, free functions, counters
 *   reference.c  Reference, and the lists of interpreters and channels
 *   open.c       opening a channel: its options    channel.c  Channel: closing, its methods
 *   transfer.c   sending and receiving: the loops around the library's calls
 *   claim.c      what is received and something is owed for:
 *   delivery.c   Delivery: an acknowledgement      call.c   call() and Request: a reply
 *   set.c        Set: many channels waited on together
 *   await.c      the coroutines of Channel, which xidata.aio makes
 *   process.c    what the Python layers need of processes
 *   encode.c     objects to values          decode.c   values to objects
 *   text.c       str, both ways             exact.c    datetime, UUID, ... both ways
 *   types.c      classes by name            array.c    numpy arrays, both ways
 *   codecs.c     search functions, and handlers of what does not fit
 *   buffer.c     Loan, View and the memory under them
 *   loans.c      what is held of that, by generation
 *   dlpack.c     Loan and View as tensors
 *   api.h        what CPython versions and its limited API differ in        limited.c  the latter's part
 *
 * Who keeps what alive. A State is the module's; every object has a pointer to
 * it, good while the object lives because its type holds the module. An Interp
 * owns an xi_interp and counts its users (open channels, loans, views, calls
 * under way) in a Guard: leaving is put off until the last has gone, so memory
 * that Python can reach is never unmapped. A Channel owns an xi_channel, guarded
 * the same way against a free() while another thread is inside a call.
 */
#ifndef XI_PYTHON_BINDING_H
#define XI_PYTHON_BINDING_H

#include "api.h"

#include <stdatomic.h>

#include "xidata.h"

#define XI_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define XI_LIKELY(x) __builtin_expect(!!(x), 1)

/* ----------------------------------------------------------------- guard
 *
 * Counts the users of something that is to be closed. Closing sets a bit; who
 * finds the bit set and nobody inside finishes, and exactly one does. With a GIL
 * plain loads and stores suffice, because every transition happens under it.
 */
typedef struct {
    _Atomic uint32_t word;
} Guard;
#define GUARD_CLOSING 0x40000000u
#define GUARD_DONE 0x80000000u
#define GUARD_USERS 0x3fffffffu

#ifdef Py_GIL_DISABLED
static inline uint32_t guard_add(Guard *g, uint32_t n) { return atomic_fetch_add(&g->word, n) + n; }
static inline uint32_t guard_or(Guard *g, uint32_t bit) { return atomic_fetch_or(&g->word, bit) | bit; }
#else
static inline uint32_t guard_add(Guard *g, uint32_t n) {
    uint32_t v = atomic_load_explicit(&g->word, memory_order_relaxed) + n;
    atomic_store_explicit(&g->word, v, memory_order_relaxed);
    return v;
}
static inline uint32_t guard_or(Guard *g, uint32_t bit) {
    uint32_t v = atomic_load_explicit(&g->word, memory_order_relaxed) | bit;
    atomic_store_explicit(&g->word, v, memory_order_relaxed);
    return v;
}
#endif
static inline uint32_t guard_word(const Guard *g) { return atomic_load_explicit(&g->word, memory_order_acquire); }
/* True for the one who must finish: nobody is inside, closing was asked for, nobody else has been told. */
static inline bool guard_finish(Guard *g) {
    uint32_t expected = GUARD_CLOSING;
    return atomic_compare_exchange_strong(&g->word, &expected, GUARD_CLOSING | GUARD_DONE);
}
/* Both return true if the caller must finish. */
static inline bool guard_leave(Guard *g) {
    return XI_UNLIKELY(guard_add(g, (uint32_t)-1) == GUARD_CLOSING) && guard_finish(g);
}
static inline bool guard_close(Guard *g) { return guard_or(g, GUARD_CLOSING) == GUARD_CLOSING && guard_finish(g); }
static inline bool guard_enter(Guard *g, bool *finish) {
    *finish = false;
    if (XI_LIKELY(guard_add(g, 1) < GUARD_CLOSING))
        return true;
    *finish = guard_leave(g);
    return false;
}
static inline void guard_reset(Guard *g) { atomic_store(&g->word, 0); }

/* ----------------------------------------------------------------- state */

#define XI_ERRORS (-XI_E_STALE + 1) /* -enum xi_error: 1 up to the last */
#define XI_READY_ALL 31u             /* all of enum xi_ready */

typedef struct Interp Interp;
typedef struct Channel Channel;
typedef struct Borrow Borrow;
typedef struct Set Set;

/* Something held: in a list of Loans, by age. */
typedef struct Held {
    struct Held *prev, *next;
    uint64_t bytes;
    int64_t since; /* CLOCK_MONOTONIC of the first collection that found it */
    uint8_t list;  /* its index + 1; 0: in none */
    bool told;     /* that it has leaked */
} Held;
#define HELD_FROZEN 3
#define HELD_LISTS 4 /* three generations, and what is frozen */
typedef struct {
    Held head;
    uint64_t count, bytes;
} HeldList;
typedef struct {
    HeldList lists[HELD_LISTS];
    uint32_t threshold[3];
    uint32_t passes[3]; /* collections of the next younger generation since the last of this one */
    uint64_t threshold_bytes;
    uint64_t collections[3], collected[3];
    uint64_t released; /* ever */
    uint64_t pending, settled; /* in the oldest generation: since the last full collection; then */
    bool enabled, collecting;
#ifdef Py_GIL_DISABLED
    PyMutex mutex;
#endif
} Loans;

struct State {
    PyTypeObject *interp_type, *channel_type, *loan_type, *view_type, *reference_type;
    PyTypeObject *delivery_type, *request_type, *set_type;
    PyTypeObject *interp_info_type, *channel_info_type, *group_info_type;
    PyObject *error;              /* xidata.Error */
    PyObject *errors[XI_ERRORS];  /* by -code; NULL where none is raised */
    PyObject *full;               /* AGAIN of a send; errors[1] is Empty */
    PyObject *decode_error;
    PyObject *s_timeout, *s_on_free, *s_sent, *s_zero_copy, *s_ttl, *s_delay, *s_seconds; /* interned */
    PyObject *s_base, *s_dtype, *s_array_struct, *s_setflags; /* interned: numpy's */
    PyObject *pickle_dumps, *pickle_loads;                   /* loaded on first need */
    PyObject *interp_id;          /* xidata.InterpreterId, likewise */
    PyObject *ready_type;         /* xidata.Ready, likewise, and what it made of each combination of enum xi_ready */
    PyObject *ready[XI_READY_ALL + 1];
    /* exact.c: types and makers, loaded when the first object of one turns up */
    PyTypeObject *uuid, *decimal, *fraction;
    void *datetime_api; /* PyDateTime_CAPI of this interpreter */
    PyObject *uuid_unknown; /* SafeUUID.unknown */
    /* types.c: of xidata._types, loaded likewise */
    PyObject *plans, *plan_of, *make, *codecs, *dumps;
    /* codecs.c */
    PyObject *search_path;        /* tuple of functions; NULL: none */
    uint64_t search_version;      /* one more with each change of it */
    PyObject *error_handlers;     /* name -> function; NULL: none */
    PyObject *search_changed, *stand_in; /* of xidata._types, loaded on first need */
    /* loans.c */
    Loans loans;
    PyObject *gc_collect, *gc_isenabled; /* loaded on first need */
    /* array.c */
    PyTypeObject *ndarray, *dtype;
    PyObject *descr_to_dtype, *dtype_to_descr, *literal_eval;
    PyObject *dtype_names, *dtypes; /* dtype -> its name or None; name -> dtype */
    Interp *current;              /* strong */
    Interp *interps;              /* all that exist, linked; no references */
    uint32_t generation;          /* one more in every forked child */
    size_t stashed;               /* values on the stashes of all channels */
    LIMITED_STATE
};

/* In a forked child: everything that came from the parent is forgotten; what is used next joins anew. */
void state_forked(State *st);

/* A Python callable to be called when a value has been consumed. */
typedef struct {
    PyObject *callable; /* NULL: free */
    uint32_t next;      /* of the free list, or of the due ones */
} FreeSlot;

struct Interp {
    PyObject_HEAD
    State *st;
    xi_interp *me;
    Guard guard;
    uint32_t generation;  /* of the process that joined: differs from the state's in a forked child */
    bool left;            /* leave() was called */
    Interp *prev, *next;  /* State.interps */
    Channel *channels;    /* open handles, linked; no references */
    Set *sets;            /* open sets, likewise */
    char ns[80], name[32]; /* ns: NAME, or USER/NAME */
    uint32_t flags;
    int64_t spin_ns;
    int64_t id;
    uint32_t free_index;  /* of the trampoline; 0: not registered yet */
    FreeSlot *slots;
    uint32_t slots_size, slots_free, slots_used;
    uint32_t due_first, due_last; /* index + 1 */
};

/* What a channel delivers before it asks the library: what an interrupted call had already received. */
typedef struct {
    PyObject *object; /* decoded already; or, with is_error, the exception to raise in its place; or NULL: */
    bool is_error;
    Borrow *borrow;   /* holds the message, if views were made of it; else: */
    xi_msg msg;
} Stashed;

/* BY_USERS: refuse where other users may open the channel, since a pickle runs what its maker likes. */
enum pickle_policy { PICKLE_ALLOW, PICKLE_REFUSE, PICKLE_BY_USERS };

/* What is done with what does not fit: codecs.c. CALL: what the handler of that name says. */
enum errors_policy { ERRORS_PASS, ERRORS_STRICT, ERRORS_REPLACE, ERRORS_CALL };

/* How a handle was opened: for opening it again in a forked child, and another for a group. Its strings are its own. */
typedef struct {
    xi_open_opts open;
    xi_group_opts group; /* open.group_opts points here, or is NULL */
} Options;

struct Channel {
    PyObject_HEAD
    State *st;
    Interp *interp;
    xi_channel *h;
    Guard guard;
    uint32_t generation;
    bool freed;          /* free() was called */
    bool zero_copy;
    bool spare_used;     /* with the spare message */
    enum errors_policy errors;
    PyObject *errors_name;     /* of ERRORS_CALL, a str; else NULL */
    enum pickle_policy pickle; /* as asked for */
    bool refuse_pickle;        /* what that means here */
    size_t inline_max;
    xi_msg spare;        /* reused from call to call, with the heap buffer that it grew */
    Channel *prev, *next; /* Interp.channels */
    xi_set *ready;       /* of this one member, for fileno(); NULL: nobody asked */
    Stashed *stash;      /* stash_count of them, the next to be delivered last */
    size_t stash_count, stash_size;
    char *name;
    Options options;
    PyObject *weakrefs;
};

/* The memory behind views: a received message, released with the last of them. From any thread. */
struct Borrow {
    atomic_uint references;
    uint32_t generation;
    xi_msg msg;
    Interp *interp;
    Held held;
};

enum loan_state { LOAN_LIVE, LOAN_MOVING, LOAN_SENT, LOAN_RELEASED };
typedef struct Loan {
    PyObject_HEAD
    State *st;
    Interp *interp;
    xi_loan loan;     /* cleared while it is attached to a value that is being sent */
    xi_handle handle; /* of its block */
    xi_hold hold;     /* of an array's: the memory stays for as long as this object */
    char *data;
    Py_ssize_t size;
    Py_ssize_t exports;
    uint32_t generation;
    enum loan_state state;
    Held held;
} Loan;
#define LOAN_HEAD 64 /* bytes before the data: room for the value that refers to it */

/* A message whose inline part is left as it is: cheaper than XI_MSG_INIT, and as good. */
static inline void message_init(xi_msg *m) { memset(m, 0, offsetof(xi_msg, small_)); }

/* ---------------------------------------------------------------- errors */

int errors_init(PyObject *module, State *st);
/* Raises the class of a negative enum xi_error with its sentence. Returns NULL. */
PyObject *raise_error(State *st, int64_t error);
/* As the above, where AGAIN means that a channel was full. */
PyObject *raise_send_error(State *st, int64_t error);
/* None if all went well; otherwise NULL, with the error raised unless a signal's handler has raised before. */
static inline PyObject *finished(State *st, int64_t rc) {
    if (rc >= 0)
        Py_RETURN_NONE;
    if (!PyErr_Occurred())
        raise_error(st, rc);
    return NULL;
}
static inline PyObject *none_or_error(int rc) { return rc < 0 ? NULL : Py_NewRef(Py_None); }
#define XI_RAISED ((int64_t)INT32_MIN) /* in place of an enum xi_error: a Python exception is set */

/* ---------------------------------------------------------- interpreters */

extern PyType_Spec interp_spec, reference_spec;
PyObject *interp_join(State *st, const char *ns, const char *name, uint32_t flags, int64_t spin_ns);
/* The current one, joined now if need be. Borrowed; NULL with an exception. */
Interp *interp_current(State *st);
/* Users: while inside, `me` is valid. Enter fails with an exception (left; or could not rejoin after a fork). */
int interp_enter(Interp *in);
void interp_exit(Interp *in);
/* In a forked child: joins anew under the same name. 0, or -1 with an exception. */
int interp_revive(Interp *in);
PyObject *interp_leave(Interp *in);
void interp_forget_parent(Interp *in); /* what a forked child must drop at once */
/* Free callbacks. Reserve keeps the callable and registers what is needed; -1 with an exception. */
int free_reserve(Interp *in, PyObject *callable, uint32_t *slot);
void free_cancel(Interp *in, uint32_t slot);
/* Calls those that are due: how many, or -1 with an exception that is none of theirs (KeyboardInterrupt). */
int64_t free_run(Interp *in);
static inline int free_poll(Interp *in) { return XI_UNLIKELY(in->slots_used) && free_run(in) < 0 ? -1 : 0; }
/* After XI_E_INTR: signal handlers and due callbacks. -1 with an exception. */
int interrupted(Interp *in);

int info_init(PyObject *module, State *st);
PyObject *list_interpreters(State *st, const char *ns);
PyObject *list_channels(State *st, const char *ns);
PyObject *channel_info(State *st, const xi_channel_info *c);
PyObject *group_infos(State *st, const xi_group_info *groups, size_t n); /* a list */
PyObject *reference_new(Interp *in, int64_t id);
/* xidata.InterpreterId(id), and the id in one, a Reference, an Interpreter or an int. */
PyObject *interp_id_new(State *st, int64_t id);
int interp_id_converter(State *st, PyObject *o, int64_t *id);

/* Dies (SIGKILL) when its parent does, whose pid that is. */
PyObject *process_die_with_parent(PyObject *module, PyObject *parent);
/* True if an interpreter of that id is in the namespace and has not been told to end by its last reference. */
PyObject *process_alive(Interp *in, PyObject *id);

/* -------------------------------------------------------------- channels */

extern PyType_Spec channel_spec;
PyObject *channel_open(Interp *in, PyObject *args, PyObject *keywords);
PyObject *channel_open_named(Interp *in, const char *name); /* an existing one, as a decoded channel handle */
PyObject *channel_open_group(Channel *ch, PyObject *args, PyObject *keywords); /* the same channel, for a group */
PyObject *channel_remove(Interp *in, PyObject *name); /* by name; None, or NULL with an exception */
/* Opens the library's handle. The interpreter is entered for as long as it is open. 0, or -1 with an exception. */
int open_handle(Channel *ch, uint32_t flags);
void options_free(Options *o);
void channel_link(Channel *ch);
/* NULL with an exception: freed, left. */
int channel_enter_slow(Channel *ch);
void channel_finish(Channel *ch);
static inline int channel_enter(Channel *ch) {
    bool finish = false;
    if (XI_LIKELY(ch->generation == ch->st->generation) && XI_LIKELY(guard_enter(&ch->guard, &finish))) {
        if (XI_LIKELY(ch->h != NULL))
            return 0;
        if (guard_leave(&ch->guard))
            channel_finish(ch);
    } else if (XI_UNLIKELY(ch->generation == ch->st->generation && finish)) {
        channel_finish(ch);
    }
    return channel_enter_slow(ch);
}
static inline void channel_exit(Channel *ch) {
    if (guard_leave(&ch->guard))
        channel_finish(ch);
}
void channel_free_handle(Channel *ch);
/* A receive found nothing: the descriptor of fileno() is not readable until there is something. */
void channel_settle(Channel *ch);
void channel_forget_parent(Channel *ch);

PyObject *channel_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *channel_try_send(PyObject *self, PyObject *obj);
PyObject *channel_send_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *channel_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *channel_try_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *channel_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *channel_next(PyObject *self);
void stash_clear(Channel *ch);
int stash_traverse(Channel *ch, visitproc visit, void *arg);
PyObject *channel_call(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
/* xidata.aio's functions of these names, called with the channel before the arguments: coroutines. */
PyObject *channel_arecv(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *channel_asend(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *channel_aiter(PyObject *self);

/* None: for ever; seconds otherwise. -1 with an exception. */
int parse_timeout(PyObject *o, int64_t *ns);
/* None or NULL: 0; infinity: negative; else a positive number of seconds. `what` it is, for the error. */
int parse_period(const char *what, PyObject *o, int64_t *ns);
/*
 * The arguments of a fast call: `required` by position, then one more, `names` (NULL-terminated; the first may be given
 * by position) by keyword. Fills values[]. -1 with an exception.
 */
int parse_arguments(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                    Py_ssize_t required, PyObject *const *names, PyObject **values);

/* One call of the library: >= 0, or an enum xi_error. */
typedef int64_t (*Attempt)(xi_channel *h, void *job, int64_t timeout);
/*
 * Runs the attempt until it has succeeded, failed, or run out of time. With `quick` it is tried with the GIL held
 * first. The channel is entered. Its result, or XI_RAISED.
 */
int64_t transfer(Channel *ch, Attempt attempt, void *job, int64_t timeout, bool quick);
/* Every transfer begins so: tells audit hooks of the event, enters the channel, and calls the free callbacks that are due. */
int channel_begin(Channel *ch, const char *event);
/*
 * The longest that one call of the library waits. A signal that arrives between CPython's last look and the moment
 * when the thread sleeps interrupts nothing: its handler is late by this much, not for ever.
 */
#define WAIT_SLICE ((int64_t)500000000)
/* A wait that is cut into slices: what is left of it. */
typedef struct {
    int64_t timeout, end;
} Deadline;
Deadline deadline_in(int64_t timeout);
int64_t deadline_left(const Deadline *d); /* as a timeout */

/* ---------------------------------------------------------------- claims */

extern PyType_Spec delivery_spec, request_spec;
/* True if something is owed for the message: an acknowledgement, or a reply. */
static inline bool is_claim(const xi_msg *m) { return (m->delivery_ | m->call_) != 0; }

/* ------------------------------------------------------------------ sets */

extern PyType_Spec set_spec;
void set_close_handle(Set *s);
void sets_forget_parent(Interp *in);

/* ---------------------------------------------------------------- encode */

/* Bytes to be placed in the arena behind the tree, and the XI_BUFFER at `at` that shall name them. */
typedef struct {
    size_t at;
    uint32_t flags;
    uint64_t size;
    PyObject *keep;        /* holds the memory, if not `view` or `loan`; with `loan`: the array that it is sent as */
    const void *array;     /* of a strided ndarray: struct array_interface */
    Py_buffer view;        /* its obj is NULL if not used */
    Loan *loan;            /* a block already: attached, not copied. Strong. */
    bool thaw;             /* `keep` was writable, and is again if this is not sent */
} Outside;

/*
 * One value being encoded. The tree grows in `first`, then on the heap, and, once
 * something large is in it, in a loan, so that large bytes are copied once.
 */
typedef struct {
    State *st;
    Channel *ch;
    Interp *interp;
    uint8_t *heap;
    Outside *outside;
    uint32_t outside_count, outside_size;
    uint32_t shared;      /* containers met that others refer to as well */
    uint32_t depth;
    bool in_loan;
    bool refuse_pickle;
    bool replacing;       /* what has no native form is replaced: encode_stand_in() */
    const char *why;      /* why it cannot be encoded natively, for the error */
    xi_loan loan;
    PyObject *met;        /* by id, the objects of which it matters that there is one: types.c. NULL if none was met */
    xi_builder b;
    PyObject *path[XI_DEPTH_MAX + 2]; /* the containers around the present value */
    _Alignas(16) uint8_t first[4096];
} Encoder;

#define ENCODE_PICKLE 1 /* has no native form: the whole value is to be pickled */

void encoder_init(Encoder *e, Channel *ch);
void encoder_clear(Encoder *e);
/* Encodes the whole value. The tree's size, or XI_RAISED. The caller has to place what is outside (encoder_place). */
int64_t encoder_run(Encoder *e, PyObject *obj);
/* Puts tree and outside parts into one loan. The value's size; the loan is e->loan. */
int64_t encoder_place(Encoder *e, int64_t size);
/* The value has been sent: loans in it are gone for good. Without this, encoder_clear() gives them back. */
void encoder_sent(Encoder *e);
/* For the others that encode: 0, ENCODE_PICKLE, or -1 with an exception. */
int encode(Encoder *e, PyObject *obj);
int encoder_grow(Encoder *e, size_t need);
/* Room for `need` bytes more. */
static inline int encoder_room(Encoder *e, size_t need) {
    return XI_LIKELY(e->b.capacity - e->b.length >= need) ? 0 : encoder_grow(e, need);
}
/* Turns a sticky builder error into an exception. */
int encoder_error(Encoder *e, int error);
Outside *encoder_outside(Encoder *e, uint64_t size, uint32_t flags);
int encode_str(Encoder *e, PyObject *obj);
int encode_foreign(Encoder *e, PyObject *obj);
int encode_planned(Encoder *e, PyObject *obj);
int encode_array(Encoder *e, PyObject *obj);
/* The loan in an array of xidata.empty(), all of which the bytes are: they are to be moved. NULL: to be copied. */
Loan *array_loan(State *st, PyObject *array, const void *data, uint64_t size, bool *alone);
/* A claimed loan goes into the value as that array, which is read-only from now on; the place is open. */
int encode_array_loan(Encoder *e, Loan *l, PyObject *array, bool writable);
int array_set_writable(State *st, PyObject *array, bool writable);
bool array_is_exact_type(State *st, PyTypeObject *type);
void array_copy_out(const void *array_interface, void *to);
/* memcpy, without the GIL where that pays. */
void copy_bytes(void *to, const void *from, size_t n);
int load_attribute(PyObject **where, const char *module, const char *name);
int load_type(PyTypeObject **where, const char *module, const char *name);

/* ---------------------------------------------------------------- decode */

typedef struct {
    State *st;
    Channel *ch;
    xi_msg *msg;
    Borrow *borrow; /* made on first need: then it holds the message, and this a reference */
    bool zero_copy;
} Decoder;
/* The object made of a message for which something is owed: a Delivery or a Request. As deliver() in transfer.c. */
PyObject *claim_deliver(Decoder *d);

/* A new object, or NULL with an exception: a DecodeError, or one that is no Exception, as it is. */
PyObject *decode_message(Decoder *d);
PyObject *decode(Decoder *d, const xi_value *v);
/* The one child of an ext or ndarray. */
int decode_child(State *st, const xi_value *v, xi_value *child);
PyObject *decode_str(State *st, const xi_value *v);
int text_has_surrogates(State *st, PyObject *s); /* -1 with an exception */
PyObject *decode_ext(Decoder *d, const xi_value *v);
PyObject *decode_planned(Decoder *d, const xi_value *v);
PyObject *decode_array(Decoder *d, const xi_value *v);
/* Makes `borrow`; -1 with an exception. What was found out about an inline message's data does not hold any more. */
int decoder_borrow(Decoder *d);
const xi_msg *decoder_message(const Decoder *d);
/* Where the bytes of an XI_BUFFER lie. -1 with an exception. Makes the borrow. */
int decoder_buffer(Decoder *d, const xi_value *v, const void **data);

/* ---------------------------------------------------------------- codecs */

PyObject *codecs_register_search(State *st, PyObject *function);
PyObject *codecs_unregister_search(State *st, PyObject *function);
PyObject *codecs_search(State *st, PyObject *key);
PyObject *codecs_register_error(State *st, PyObject *args);
PyObject *codecs_lookup_error(State *st, PyObject *name);
/* What the keyword `errors` says (NULL, None: surrogatepass). *name is a new reference or NULL. -1 with an exception. */
int errors_converter(State *st, PyObject *o, enum errors_policy *policy, PyObject **name);
PyObject *errors_name(const Channel *ch); /* a new reference */
/* The text that goes in place of one with lone surrogates; not of a channel that passes them. NULL with an exception. */
PyObject *text_fit(const Channel *ch, PyObject *s);
/* For what has no codec: None (an error), True (a Replacement), or the function that says: a new reference, or NULL. */
PyObject *codec_errors(const Channel *ch);
/* In place of an object without a native form. As encode(). */
int encode_stand_in(Encoder *e, PyObject *obj);

/* --------------------------------------------------------------- buffers */

extern PyType_Spec loan_spec, view_spec;
void loans_init(Loans *l);
void loans_forked(Loans *l);
void held_add(Loans *l, Held *h, uint64_t bytes);
void held_more(Loans *l, Held *h, uint64_t bytes); /* turned out to be larger */
void held_drop(Loans *l, Held *h);                 /* nothing if it is in no list */
void loans_collect_due(State *st);                 /* leaves no exception */
/* Before something is to be held, where any code may run. */
static inline void loans_poll(State *st) {
    const HeldList *young = &st->loans.lists[0];
    if (XI_UNLIKELY((young->count >= st->loans.threshold[0] && st->loans.threshold[0]) ||
                    (young->bytes >= st->loans.threshold_bytes && st->loans.threshold_bytes)))
        loans_collect_due(st);
}
/* Arrays cannot be told that their memory has gone: for them it is held until the loan's own end. */
PyObject *loan_new(Interp *in, Py_ssize_t size, bool for_array);
/* The interpreter's that is meant: `who` is one or None. */
PyObject *loan_for_array(State *st, PyObject *who, PyObject *size);
/* The loan's own block, to be sent: 0, or -1 with an exception (sent already, exported, ...). */
int loan_claim(Loan *l);
void loan_unclaim(Loan *l);
void loan_sent(Loan *l);
bool loan_is_parents(const Loan *l); /* made before fork() */
/* Bytes of a borrow, read-only. `typed` (may be NULL) gives them format, shape and strides. */
typedef struct {
    const char *format; /* static */
    Py_ssize_t itemsize;
    int ndim;
    const int64_t *shape, *strides;
} ViewLayout;
PyObject *view_new(State *st, Borrow *b, const void *data, size_t size, const ViewLayout *typed); /* a memoryview */
PyObject *view_object(State *st, Borrow *b, const void *data, size_t size, const ViewLayout *typed); /* its object */
/* Methods of both: __dlpack__() and __dlpack_device__(). */
PyObject *dlpack_export(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *dlpack_device(PyObject *self, PyObject *ignored);
#define DLPACK_METHODS                                                                                                 \
    {"__dlpack__", (PyCFunction)(void (*)(void))dlpack_export, METH_VARARGS | METH_KEYWORDS,                           \
     "__dlpack__(*, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"                                \
     "A DLPack capsule over this memory. Read-only memory needs max_version=(1, 0)."},                                 \
        {"__dlpack_device__", dlpack_device, METH_NOARGS, "__dlpack_device__()\n--\n\n(1, 0): the processor's memory."}
PyObject *view_of_copy(State *st, const void *data, size_t size, const ViewLayout *typed); /* over private memory */
void borrow_ref(Borrow *b);
void borrow_unref(Borrow *b);

#endif
