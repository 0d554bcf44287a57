/* SPDX-License-Identifier: MIT */
/*
 * xidata: hand values between interpreter processes on one Linux host.
 *
 * A process joins a namespace and is then an interpreter with an id. It opens
 * named channels, and sends and receives XIData: values serialized outside any
 * interpreter's heap, in shared memory. Every value goes to exactly one
 * consumer in every group of its channel, and survives kill -9 of anybody.
 *
 *     xi_interp *me;    xi_join(NULL, &me);
 *     xi_channel *ch;   xi_open(me, "jobs", NULL, &ch);
 *     xi_send_int(ch, 42, XI_FOREVER);
 *     xi_msg m = XI_MSG_INIT;
 *     xi_recv(ch, &m, XI_FOREVER);        ... xi_cursor over m.data, m.size ...
 *     xi_msg_release(&m);
 *     xi_channel_free(ch);  xi_leave(me);
 *
 * Conventions, unless a function says otherwise
 *   Returns     0 (or a count) on success, a negative enum xi_error otherwise;
 *               xi_error_text() then gives the sentence that says what was
 *               wrong and what to do. On error nothing was sent, nothing was
 *               received, nothing is lost, and out-parameters are untouched.
 *   Sizes       bytes. Times: nanoseconds, int64_t; XI_TRY (0) never blocks,
 *               XI_FOREVER (any negative) blocks without limit.
 *   Strings     UTF-8, NUL-terminated, copied.
 *   Threads     every function may be called from any thread; one xi_msg,
 *               xi_loan, xi_builder or xi_cursor belongs to one thread at a
 *               time. Functions that may block say so.
 *   Signals     a blocking call interrupted by a signal handler returns
 *               XI_E_INTR; call again with the remaining time.
 *   Fork        in a forked child every handle is dead: calls return
 *               XI_E_FORKED until the child joins anew.
 */
#ifndef XIDATA_H
#define XIDATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define XI_VERSION_MAJOR 0
#define XI_VERSION_MINOR 1
#define XI_VERSION_PATCH 0
#define XI_VERSION "0.1.0"

#if defined(__GNUC__)
#define XI_API __attribute__((visibility("default")))
#define XI_NODISCARD __attribute__((warn_unused_result))
#else
#define XI_API
#define XI_NODISCARD
#endif

/* ---------------------------------------------------------------- errors */

enum xi_error {
    XI_OK = 0,
    XI_E_AGAIN = -1,     /* would block: empty, or full */
    XI_E_TIMEOUT = -2,   /* the time given ran out */
    XI_E_CLOSED = -3,    /* channel closed (senders at once, receivers when drained) */
    XI_E_INTR = -4,      /* a signal arrived, or free functions are due (XI_JOIN_MANUAL_FREE) */
    XI_E_NOMEM = -5,     /* the process's own memory, mappings or descriptors ran out */
    XI_E_NOSPACE = -6,   /* shared memory (/dev/shm) is full */
    XI_E_QUOTA = -7,     /* the broker's quota for this user is used up */
    XI_E_INVAL = -8,     /* an argument is wrong */
    XI_E_TOOBIG = -9,    /* larger than the format, the buffer or the channel can hold */
    XI_E_CORRUPT = -10,  /* bytes of another process failed validation; the value was skipped */
    XI_E_TYPE = -11,     /* the value is of another kind than asked for */
    XI_E_RANGE = -12,    /* the value does not fit exactly what it was asked as */
    XI_E_DEPTH = -13,    /* nested deeper than XI_DEPTH_MAX */
    XI_E_FORKED = -14,   /* handle from before fork(); join anew */
    XI_E_ENDING = -15,   /* the broker told this interpreter to end (last reference gone) */
    XI_E_BROKER = -16,   /* no broker answers and none could be started */
    XI_E_MISMATCH = -17, /* the channel exists with another mode, or a version differs */
    XI_E_ACCESS = -18,   /* not permitted */
    XI_E_LIMIT = -19,    /* a fixed limit was met (groups, waiters, interpreters, ...) */
    XI_E_NOENT = -20,    /* no such interpreter, channel, group or function */
    XI_E_SYSTEM = -21,   /* a system call failed in a way that is nobody's fault; see the text */
    XI_E_LEFT = -22,     /* the handle was closed, or its interpreter left, meanwhile */
    XI_E_REMOVED = -23,  /* the channel was removed by name; what was in it is gone */
    XI_E_NO_PRODUCER = -24, /* drained, and no handle that may send is left (XI_OPEN_NEED_PEER) */
    XI_E_NO_CONSUMER = -25, /* no handle that receives is there (XI_OPEN_NEED_PEER, xi_call) */
    XI_E_DIED = -26,     /* who had taken the call died before replying */
    XI_E_STALE = -27     /* the delivery is no longer this consumer's: it was overdue, or acknowledged already */
};

/* Short constant name of an error ("XI_E_CLOSED"). Never NULL. */
XI_API const char *xi_error_name(int error);
/*
 * The sentence for the calling thread's latest failure with this error (what
 * failed, with names and numbers, and what to do), or the general sentence for
 * it. Valid until the thread's next xidata call. Never NULL.
 */
XI_API const char *xi_error_text(int error);

#define XI_TRY ((int64_t)0)
#define XI_FOREVER ((int64_t)-1)

/* ---------------------------------------------------------------- values
 *
 * docs/value-format.md has the bytes. A value is little-endian, 8-byte aligned
 * and position-independent. These functions know no shared memory: they work
 * on any memory.
 */

#define XI_DEPTH_MAX 256 /* containers within containers */

enum xi_tag {
    /* immediate: 8 bytes in all, the header's last four hold the value */
    XI_NONE = 1,
    XI_BOOL = 2,
    XI_INT32 = 3,
    /* sized */
    XI_INT64 = 16,
    XI_FLOAT = 17,
    XI_COMPLEX = 18,
    XI_BIGINT = 19, /* two's complement, little-endian, minimal */
    XI_STR = 20,
    XI_BYTES = 21,
    XI_TUPLE = 32,
    XI_LIST = 33,
    XI_SET = 34,
    XI_FROZENSET = 35,
    XI_DICT = 36, /* key, value, key, value, in order */
    XI_EXT = 40,  /* aux = enum xi_ext or a user's id; one child: the payload */
    XI_BUFFER = 41,
    XI_NDARRAY = 42,
    XI_PICKLE = 43 /* children: bytes (the pickle), then its out-of-band buffers */
};

enum xi_flag {
    XI_F_ENCODING = 0x07,  /* of str: enum xi_encoding */
    XI_F_SURROGATES = 0x08, /* of str: may hold lone surrogates */
    XI_F_MUTABLE = 0x10,   /* of bytes, buffer: the writer's object was mutable (bytearray) */
    XI_F_FORTRAN = 0x20,   /* of ndarray: data lies in Fortran order */
    XI_F_LONG = 0x80       /* a u64 size follows the header */
};

/* Lone surrogates, which UTF-8 has no bytes for; the codec error handlers strict, surrogatepass, replace. */
enum xi_text_errors {
    XI_TEXT_STRICT = 0, /* XI_E_RANGE */
    XI_TEXT_PASS = 1,   /* each as the three bytes that it would have: exact, and no UTF-8 */
    XI_TEXT_REPLACE = 2 /* each as U+FFFD, three bytes as well */
};

enum xi_encoding { XI_ASCII = 0, XI_LATIN1 = 1, XI_UCS2 = 2, XI_UCS4 = 3, XI_UTF16 = 4, XI_UTF8 = 5 };

/* Registered extension ids; 256 to 65534 are free for users; 65535 is "named": payload is (name, value). A class is "module:name". */
enum xi_ext {
    XI_EXT_DATE = 1,      /* (year, month, day) */
    XI_EXT_TIME = 2,      /* (hour, minute, second, microsecond, fold, offset-seconds or none) */
    XI_EXT_DATETIME = 3,  /* (y, m, d, h, min, s, us, fold, offset-seconds or none) */
    XI_EXT_TIMEDELTA = 4, /* (days, seconds, microseconds) */
    XI_EXT_UUID = 5,      /* bytes, 16, big-endian as RFC 9562 prints it */
    XI_EXT_DECIMAL = 6,   /* str */
    XI_EXT_FRACTION = 7,  /* (numerator, denominator) */
    XI_EXT_INTERP = 8,    /* int: an interpreter id */
    XI_EXT_CHANNEL = 9,   /* str: a channel name */
    XI_EXT_RANGE = 10,    /* (start, stop, step) */
    XI_EXT_ENUM = 11,       /* (class, name of the member or none, value or none) */
    XI_EXT_NAMEDTUPLE = 12, /* (class, {field: value}) */
    XI_EXT_DATACLASS = 13,  /* (class, {field: value}) */
    XI_EXT_EXCEPTION = 14,  /* (class, arguments, {attribute: value} or none, cause, context, suppress, traceback text or none) */
    XI_EXT_USERS = 256,
    XI_EXT_NAMED = 65535
};

/* Names a block of some interpreter's arena. Never a pointer; checked on use. */
typedef struct xi_handle {
    uint32_t segment;
    uint32_t granule;    /* offset in the segment in units of 1,024 bytes */
    uint64_t generation; /* 48 bits */
} xi_handle;

/* What an XI_BUFFER value says: `length` bytes at `offset` of a block. */
typedef struct xi_buffer_ref {
    xi_handle block;
    uint64_t offset;
    uint64_t length;
} xi_buffer_ref;

/*
 * Builder: writes one value (a tree) into memory of a known size. It never
 * writes beyond `capacity`. With buffer NULL it writes nothing and counts, so
 * that the same calls tell the size beforehand. The first error sticks: later
 * calls return it, so checking xi_builder_finish() alone is enough.
 */
typedef struct xi_builder {
    uint8_t *buffer;
    size_t capacity;
    size_t length; /* bytes written, or counted */
    int error;
    uint32_t depth;
    uint32_t flags;
    struct {
        size_t start;
        uint64_t remaining; /* children still due */
    } level[XI_DEPTH_MAX + 1];
} xi_builder;

#define XI_BUILD_LONG 1u /* containers take a 64-bit size: for trees of 4 GiB and more */

/* `buffer` 8-byte aligned, or NULL to count. */
XI_API void xi_builder_init(xi_builder *b, void *buffer, size_t capacity, uint32_t flags);
/* The size of the finished value, or the sticky error (negative; XI_E_INVAL when children are missing). */
XI_API int64_t xi_builder_finish(xi_builder *b);

XI_API int xi_put_none(xi_builder *b);
XI_API int xi_put_bool(xi_builder *b, bool v);
XI_API int xi_put_int(xi_builder *b, int64_t v); /* INT32 where it fits, else INT64 */
/* Two's complement little-endian of any length; made minimal, and INT32/INT64 where it fits. */
XI_API int xi_put_bigint(xi_builder *b, const void *le_bytes, size_t n);
XI_API int xi_put_float(xi_builder *b, double v); /* NaN payloads and -0.0 are kept */
XI_API int xi_put_complex(xi_builder *b, double re, double im);
/* `n` in bytes; `flags`: XI_F_SURROGATES or 0. The text is taken as it is; readers validate it. */
XI_API int xi_put_str(xi_builder *b, enum xi_encoding enc, uint32_t flags, const void *text, size_t n);
XI_API int xi_put_utf8(xi_builder *b, const char *text); /* NUL-terminated; ASCII is recognised. Not UTF-8: XI_E_INVAL */
XI_API int xi_put_bytes(xi_builder *b, const void *data, size_t n);
/* Room for `n` bytes of an XI_BYTES or XI_STR value, to be filled by the caller. *where is NULL when counting. */
XI_API int xi_put_bytes_space(xi_builder *b, uint32_t flags, size_t n, void **where);
XI_API int xi_put_str_space(xi_builder *b, enum xi_encoding enc, uint32_t flags, size_t n, void **where);
XI_API int xi_put_buffer(xi_builder *b, const xi_buffer_ref *ref, uint32_t flags);
/* Opens tuple, list, set, frozenset (count children), dict (count pairs), pickle (1 + count buffers). */
XI_API int xi_begin(xi_builder *b, enum xi_tag tag, uint64_t count);
/* Opens an extension: exactly one child, the payload, follows. */
XI_API int xi_begin_ext(xi_builder *b, uint16_t ext);
/*
 * Opens an ndarray: `dtype` as numpy's dtype.str or the repr of dtype.descr;
 * shape in items and strides in bytes, `ndim` of each (0 to 64). Exactly one
 * child follows: the data, as XI_BUFFER or XI_BYTES.
 */
XI_API int xi_begin_ndarray(xi_builder *b, const char *dtype, uint32_t flags, uint32_t ndim,
                            const int64_t *shape, const int64_t *strides);
XI_API int xi_end(xi_builder *b); /* closes the innermost; XI_E_INVAL if children are missing */
/* Copies one whole, already validated value as the next child. How deep it nests is not looked at: readers do. */
XI_API int xi_put_value(xi_builder *b, const void *value, size_t size);

/* Size of the simple values, for callers that write without counting first. */
#define XI_SIZE_SCALAR 24u                                  /* none, bool, int, float, complex: at most */
#define XI_SIZE_BUFFER 40u
#define XI_SIZE_BYTES(n) ((size_t)16 + (((size_t)(n) + 7) & ~(size_t)7)) /* str, bytes: at most */

/* A decoded value: scalars by value, everything else by reference into the memory read. */
typedef struct xi_value {
    uint8_t tag;
    uint8_t flags;
    uint16_t aux;
    uint32_t depth;
    size_t size;      /* of the whole subtree */
    const void *data; /* str, bytes, bigint: the bytes. Containers: the first child. */
    size_t length;    /* bytes at data */
    uint64_t count;   /* containers: children (dict: pairs; pickle: 1 + buffers). Others: 0 */
    union {
        bool boolean;
        int64_t integer; /* INT32 and INT64 */
        double real;
        double complex_[2];
        xi_buffer_ref buffer;
        struct {
            const char *dtype; /* not terminated */
            uint32_t dtype_length;
            uint32_t ndim;
            int64_t shape[64], strides[64]; /* copied: the source may be shared memory */
        } array;
    } u;
} xi_value;

/*
 * Cursor: reads values one after another. Checks every bound, count and depth
 * before use and reads each word of the memory once, so that it is safe on
 * memory that somebody else is overwriting at the same time.
 */
typedef struct xi_cursor {
    const uint8_t *at, *end;
    uint64_t remaining; /* values still to come */
    uint32_t depth;
} xi_cursor;

/* Over one whole message or file: exactly one value of exactly `size` bytes. 8-byte aligned. */
XI_API void xi_cursor_init(xi_cursor *c, const void *data, size_t size);
/* Decodes the next value and steps over it. 1: got one; 0: no more, and the end was exact; negative: error. */
XI_API XI_NODISCARD int xi_next(xi_cursor *c, xi_value *v);
/* A cursor over the children of a container, ext, ndarray or pickle. XI_E_TYPE for a scalar. */
XI_API XI_NODISCARD int xi_enter(const xi_value *v, xi_cursor *children);
/* Walks the whole tree: 0 if every byte of it is well-formed (text included), else the error. */
XI_API int xi_validate(const void *data, size_t size);
/* XI_E_TYPE / XI_E_RANGE where the value is no integer, or does not fit. */
XI_API int xi_get_int(const xi_value *v, int64_t *out);
XI_API int xi_get_float(const xi_value *v, double *out); /* a float, or an int that is exact as one */
/*
 * Any str as UTF-8. Returns the bytes needed (without the NUL); writes at most `capacity` and a NUL if there is
 * room. `errors` is what becomes of lone surrogates (enum xi_text_errors). XI_E_CORRUPT: text breaks its own encoding.
 */
XI_API int64_t xi_to_utf8(const xi_value *str, char *out, size_t capacity, unsigned errors);
/* 0 if the bytes keep to the encoding and flags that they claim, else XI_E_CORRUPT. */
XI_API int xi_check_text(enum xi_encoding enc, uint32_t flags, const void *text, size_t n);

/* ---------------------------------------------------------- interpreters */

typedef struct xi_interp xi_interp;
typedef struct xi_channel xi_channel;

#define XI_NAME_MAX 79 /* bytes of a namespace's (31), interpreter's (31), group's (31), channel's (79) name */

#define XI_JOIN_REQUIRES_REF 1u /* told to end when the last reference that others hold is dropped */
#define XI_JOIN_MANUAL_FREE 2u  /* free functions run only in xi_free_run(); waits return XI_E_INTR when some are due */
#define XI_JOIN_NO_START 4u     /* do not start a broker if none runs */
#define XI_JOIN_NO_SPIN 8u      /* sleep at once */

typedef struct xi_join_opts {
    const char *ns;       /* namespace; NULL: $XI_NAMESPACE, else "default". "USER/NAME" (or "1000/NAME"): one of that user,
                             who has opened it to this one with: xi broker -n NAME --open-to ... */
    const char *name;     /* of this interpreter, for people; NULL: the program's */
    const char *language; /* "c", "cpython 3.11", ...; NULL: "c" */
    uint32_t flags;       /* XI_JOIN_* */
    int64_t spin_ns;      /* longest spin before sleeping; 0: the default (50 us, adaptive), negative: none. Three times
                             that for an answer of the broker, where the last came so soon */
} xi_join_opts;

/*
 * Joins a namespace and starts its broker if none runs. May block (start of the broker: tens of milliseconds). A
 * process may join more than once; each is an interpreter of its own. Environment: XI_NAMESPACE, XI_WAIT=auto|uring|
 * futex, XI_SPIN_US, XI_BROKER (path of xi-broker), XI_RUNTIME_DIR (folder of the control sockets), XI_OPEN_DIR (where the
 * sockets of namespaces that are open to other users lie).
 * Errors: BROKER, QUOTA, LIMIT, NOSPACE, NOMEM, MISMATCH (broker of another version), INVAL, INTR, ACCESS (not open to this
 * user), NOENT (no such user).
 */
XI_API XI_NODISCARD int xi_join(const xi_join_opts *opts, xi_interp **out);
/*
 * Leaves: values already sent stay deliverable, borrows are released, loans not sent are dropped, every channel handle
 * is closed. Threads that wait in this interpreter's calls return first, with XI_E_LEFT unless they had what they waited
 * for; none may be about to begin one. `me` is invalid afterwards. NULL is a
 * no-op. In a forked child it frees the child's memory alone. Waits for the broker: up to 5 s for one that does not answer, a
 * quarter of a second where none is to be had; what it was not told then, the next finds out when this process ends.
 */
XI_API int xi_leave(xi_interp *me);
/*
 * Gives back to the system what the arena keeps for later values: blocks that everybody has released, those kept for the next
 * of their size, segments with nothing in them, which otherwise go after a second of idling. Returns how many bytes of shared
 * memory that was. For a process that will send nothing for long. Thread-safe; never blocks. Errors: INVAL, FORKED.
 */
XI_API int64_t xi_trim(xi_interp *me);
/* The process's first joined interpreter, in O(1), or NULL (none, or this is a forked child). */
XI_API xi_interp *xi_current(void);
XI_API int64_t xi_id(const xi_interp *me);             /* never used twice in a namespace */
XI_API const char *xi_namespace(const xi_interp *me); /* as it may be given to whoever may join it: "UID/NAME" of an open one */
/* XI_OK, XI_E_FORKED, XI_E_ENDING (told to end), XI_E_BROKER (the namespace was shut down). Never blocks. */
XI_API int xi_status(const xi_interp *me);

/* References: while others hold one, a XI_JOIN_REQUIRES_REF interpreter lives on. Counted per holder by the broker; a
 * holder's death drops its own. Errors: NOENT, BROKER. May block for the broker's answer. */
XI_API int xi_ref(xi_interp *me, int64_t id);
XI_API int xi_unref(xi_interp *me, int64_t id);

typedef struct xi_interp_info {
    int64_t id;
    int32_t pid;
    uint32_t slot;
    uint32_t flags;      /* XI_JOIN_REQUIRES_REF */
    uint32_t id_refcount;
    uint64_t arena_bytes; /* shared memory of its arena */
    uint64_t blocks;      /* blocks allocated and not yet back */
    uint64_t sent, received, parks, wakes, borrows;
    uint64_t joined_ns;   /* CLOCK_REALTIME */
    char name[32], language[32], wait[16];
    uint32_t uid;         /* the user that it runs as */
    uint32_t pad_;
} xi_interp_info;

typedef struct xi_channel_info {
    uint64_t id;
    char name[80];
    uint32_t mode;       /* XI_QUEUE, XI_BROADCAST */
    uint32_t closed;
    uint64_t capacity;   /* bytes of the ring */
    uint64_t used;       /* bytes of it that hold values not yet received by every group */
    uint64_t sent;       /* values, ever, those of a broadcast that nobody heard too */
    uint64_t depth;      /* values not yet received by the slowest group */
    uint32_t groups;
    uint32_t waiting;    /* threads asleep on it, senders and receivers */
    uint64_t received;   /* values, ever, over all present groups */
    uint32_t handles;    /* open handles in all interpreters, as the broker last counted */
    uint32_t producers, consumers; /* of those, may send and receive */
    uint32_t retain;
    uint64_t dropped, expired, dead; /* values, over all present groups */
    uint64_t grow;       /* bytes to which the ring may grow; 0: bounded */
    uint32_t owner;      /* uid of who made it */
    uint32_t shared_with_others; /* 1: other users than this one may open it */
    char access[256];    /* what others than the owner may do: "1001:r,@50:rw"; empty: nothing */
} xi_channel_info;

typedef struct xi_group_info {
    char name[32];       /* empty: the default group, or a subscriber's own */
    uint32_t index, flags; /* XI_GROUP_ACK */
    int64_t owner;       /* id of the interpreter that it ends with, or 0 */
    uint64_t received;   /* values, since it was made */
    uint64_t depth;      /* values that it has yet to receive */
    uint64_t unacked, redelivered, acked, dropped, expired, dead;
} xi_group_info;

/*
 * An observer reads a namespace's registry without joining it: it takes no id and needs no answer from the broker, except
 * where segments have no names (of open namespaces, and with --memfd): then the broker gives what this user may look at,
 * and what it does not is 0. XI_E_NOENT: no such namespace. XI_E_ACCESS: not open to this user.
 */
typedef struct xi_observer xi_observer;
XI_API XI_NODISCARD int xi_observe(const char *ns, xi_observer **out);
XI_API void xi_observer_free(xi_observer *o);
XI_API int32_t xi_observer_broker_pid(const xi_observer *o);
/* Whose namespace it is, and whom it is open to besides: "1001,@50"; "" if it is that user's alone. */
XI_API uint32_t xi_observer_uid(const xi_observer *o);
XI_API const char *xi_observer_open_to(const xi_observer *o);
/* Fill up to `capacity` entries; return how many there are (which may be more). XI_E_FORKED: the observer is a parent's, for which
 * the broker's pid reads 0. */
XI_API int64_t xi_list_interps(xi_observer *o, xi_interp_info *out, size_t capacity);
XI_API int64_t xi_list_channels(xi_observer *o, xi_channel_info *out, size_t capacity);
/* The observer of a joined interpreter; owned by it. */
XI_API xi_observer *xi_observer_of(xi_interp *me);

/* ----------------------------------------------------- loans and borrows */

/* A block of this interpreter's arena, writable until it is sent or dropped. */
typedef struct xi_loan {
    void *data;   /* 64-byte aligned, not cleared */
    size_t size;  /* usable bytes, at least what was asked for */
    xi_handle handle;
    void *block_; /* private */
    xi_interp *owner_;
} xi_loan;

/* Errors: NOSPACE, QUOTA, NOMEM, TOOBIG, FORKED. May block for the broker when the arena must grow. */
XI_API XI_NODISCARD int xi_loan_get(xi_interp *me, size_t size, xi_loan *out);
/* Gives it back unsent. The struct is cleared; dropping a cleared one is a no-op. */
XI_API void xi_loan_drop(xi_loan *loan);
/*
 * `child` (referred to by an XI_BUFFER in the value in `root`) is freed when `root` is, after the last group's
 * release. Consumes `child` (the struct is cleared; its data stays readable through the value).
 */
XI_API int xi_loan_attach(xi_loan *root, xi_loan *child);
/* Undoes that while `root` has not been sent: `child` is the loan again whose handle it was. INVAL: it is not attached. */
XI_API XI_NODISCARD int xi_loan_detach(xi_loan *root, const xi_handle *handle, xi_loan *child);

/*
 * A hold keeps a loan's memory where it is, in this process: whatever becomes of the loan (sent and released by all, or
 * dropped), the memory stays readable here and is not used for anything else until xi_hold_drop(). Free functions run
 * regardless. For who hands a loan to code that may look at it later.
 */
typedef struct xi_hold {
    void *block_; /* private */
    xi_interp *owner_;
} xi_hold;
XI_API XI_NODISCARD int xi_loan_hold(const xi_loan *loan, xi_hold *out);
/* The struct is cleared; dropping a cleared one is a no-op. */
XI_API void xi_hold_drop(xi_hold *hold);

/* ---------------------------------------------------------- free functions
 *
 * Run once, in the interpreter that sent, when every group has consumed the value: received it (inline values), or
 * released it. Also when the consumer died. Not run when the owner died.
 */
typedef void (*xi_free_fn)(void *context, uint64_t argument);

/* *index (1 and up) names it in xi_send_opts. Up to 255 an interpreter. Errors: LIMIT. */
XI_API int xi_free_register(xi_interp *me, const char *name, xi_free_fn fn, void *context, uint32_t *index);
/*
 * Takes back what readers have released and runs the free functions that are due, in the calling thread. Returns how
 * many ran. Without XI_JOIN_MANUAL_FREE every call that sends, allocates or waits does this by itself. Never blocks.
 * A free function may send (XI_TRY) and loan; it must not leave.
 */
XI_API int64_t xi_free_run(xi_interp *me);
/* True if xi_free_run() may have something to run: a few loads, for bindings that look before every call. */
XI_API bool xi_free_pending(const xi_interp *me);

/* -------------------------------------------------------------- channels */

enum xi_mode { XI_QUEUE = 1, XI_BROADCAST = 2 };

#define XI_OPEN_SEND 1u     /* this handle sends only: it starts no group of its own */
#define XI_OPEN_RECV 2u     /* this handle receives only */
#define XI_OPEN_EXISTING 4u /* XI_E_NOENT rather than make it */
#define XI_OPEN_NEED_PEER 8u /* an empty channel without producers ends a receive (NO_PRODUCER), one without consumers a
                               send (NO_CONSUMER), rather than wait for one to come. A handle that does both counts itself. */

#define XI_CAPACITY_DEFAULT ((uint64_t)65536)
#define XI_CAPACITY_MIN ((uint64_t)4096)
#define XI_CAPACITY_MAX ((uint64_t)1 << 30)
#define XI_GROW_MAX ((uint64_t)1 << 36)

enum xi_when_full {
    XI_FULL_BLOCK = 0, /* a send waits, up to its timeout */
    XI_FULL_FAIL = 1,  /* a send returns XI_E_AGAIN */
    XI_FULL_DROP = 2   /* the oldest values make room, counted: with values = 1 a group finds the latest alone */
};

enum xi_from { XI_FROM_TAIL = 0, XI_FROM_OLDEST = 1, XI_FROM_LAST = 2 };

#define XI_GROUP_ACK 1u       /* values are the group's until acknowledged: see xi_ack() */
#define XI_GROUP_TEMPORARY 2u /* a group of this handle's own, without a name, which ends with it: on a queue, too */
#define XI_WINDOW_DEFAULT 1024u
#define XI_WINDOW_MAX 65536u

/* Of a group that is made; who joins one that is there takes it as it is, if `flags` agree (else MISMATCH). */
typedef struct xi_group_opts {
    uint32_t from;           /* enum xi_from: where it begins. OLDEST: whatever is kept or not received by all; LAST: the
                                last `last` of those */
    uint32_t last;
    uint32_t flags;          /* XI_GROUP_ACK */
    uint32_t max_deliveries; /* then to the dead letters; 0: no limit */
    uint32_t window;         /* values from the oldest unacknowledged to the newest delivered, at most, rounded up to a power
                                of two; 0: the default. Their room in the channel is kept meanwhile. */
    uint32_t pad_;
    int64_t timeout_ns;      /* unacknowledged for so long: goes to another. 0: only when its consumer dies or leaves */
    const char *dead;        /* channel for values delivered too often; NULL: they vanish, counted */
} xi_group_opts;

typedef struct xi_open_opts {
    uint32_t mode;     /* enum xi_mode; 0: XI_QUEUE for a new channel, whatever it is for an old one */
    uint32_t flags;    /* XI_OPEN_* */
    uint64_t capacity; /* bytes of the ring, rounded up to a power of two; 0: default. Of an old channel: ignored. Values in
                          the arena: each handle may have 64 times this, or 16 values, that are not received by all. */
    const char *group; /* consumers of one group share its values; NULL: a queue's one default group, or on a
                          broadcast a group of this handle's own, which ends with it. A named group stays. */
    const xi_group_opts *group_opts; /* NULL: begins at the tail, a receive is its acknowledgement */
    /* Of a new channel; of an old one ignored. */
    uint64_t values;    /* most values that not every group has received; 0: as many as fit */
    uint64_t grow;      /* the ring may grow to so many bytes with its backlog and shrinks again; 0: it stays as it is */
    int64_t ttl_ns;     /* values that nobody received for so long expire; 0: never */
    const char *dead;   /* channel for values that expired; NULL: they vanish, counted */
    uint32_t retain;    /* the last so many values are kept, as far as there is room, for groups that join later; a channel
                           that keeps any lives on without handles until it is closed or removed */
    uint32_t when_full; /* enum xi_when_full */
    const char *access; /* in a namespace that is open to other users, what others than its maker may do with the channel:
                           "alice:r,@staff:rw,1001:w,*:r" (r: receive, w: send; @: a group; *: all who may join; names or
                           numbers). NULL: nothing, it is the maker's own user's alone. */
} xi_open_opts;

/*
 * Opens a channel of the namespace, making it if need be. A broadcast handle receives what is sent after this call.
 * Errors: MISMATCH, NOENT, QUOTA, NOSPACE, LIMIT (64 groups), INVAL, BROKER, FORKED, ACCESS (another user's channel, and not
 * open to this one for what `flags` ask; who may only send opens with XI_OPEN_SEND, who may only receive with
 * XI_OPEN_RECV). May block for the broker.
 */
XI_API XI_NODISCARD int xi_open(xi_interp *me, const char *name, const xi_open_opts *opts, xi_channel **out);
/* Closes the handle; the channel lives on while it has handles or undelivered values. NULL is a no-op. Threads that wait
 * in calls on it return first, with XI_E_LEFT unless they had what they waited for; none may be about to begin one: see
 * xi_channel_shut(). */
XI_API int xi_channel_free(xi_channel *ch);
/* From now on calls on this handle return XI_E_LEFT, those that wait as well. Its memory stays until xi_channel_free(),
 * which whoever comes out last may then call. Idempotent; never blocks. */
XI_API int xi_channel_shut(xi_channel *ch);
/* Closes the channel itself: senders get XI_E_CLOSED at once, receivers when they have drained it. Idempotent. */
XI_API int xi_close(xi_channel *ch);
XI_API const char *xi_channel_name(const xi_channel *ch);
XI_API xi_interp *xi_channel_interp(const xi_channel *ch);
XI_API int xi_channel_stat(xi_channel *ch, xi_channel_info *out);
/* True if others than this process's user may open the channel, so that whatever is received from it may be theirs: what
 * can run code when it is decoded (a pickle) is then not to be decoded unless the program's own user asked for that. */
XI_API bool xi_channel_shared(const xi_channel *ch);
/* Its groups: fills up to `capacity`, returns how many there are. */
XI_API int64_t xi_channel_groups(xi_channel *ch, xi_group_info *out, size_t capacity);
/* Ends a named group, whoever receives in it (they get XI_E_LEFT); what it had yet to receive, it never will. NOENT. */
XI_API int xi_group_remove(xi_channel *ch, const char *group);
/* Removes a channel by name, with whatever is in it: every handle's calls return XI_E_REMOVED. NOENT. */
XI_API int xi_remove(xi_interp *me, const char *name);
/* The largest value, in bytes, that travels inside the ring; larger ones go through the arena. */
XI_API size_t xi_inline_max(const xi_channel *ch);

typedef struct xi_send_opts {
    int64_t timeout;         /* ns, XI_TRY, XI_FOREVER */
    uint32_t free_index;     /* 0: none; else from xi_free_register */
    uint32_t pad_;
    uint64_t free_argument;
    int64_t ttl_ns;          /* time to live; 0: the channel's own; negative: none */
} xi_send_opts;

/*
 * Sends one encoded value of `size` bytes (a multiple of 8). The bytes are copied (into the ring up to xi_inline_max,
 * else into the arena); the caller keeps them. While the channel is full it blocks, or does what `when_full` says; where the
 * ring may grow it asks the broker for a larger one first (XI_TRY too, which may take some tenths of a second if that is
 * stopped). When it returns 0 the value will reach every group that exists now, though this process dies at once.
 * Errors: AGAIN, TIMEOUT, CLOSED, INTR, NOSPACE, QUOTA, BROKER (these three when the arena must grow), TOOBIG, FORKED,
 * LEFT, INVAL.
 */
XI_API XI_NODISCARD int xi_send(xi_channel *ch, const void *value, size_t size, int64_t timeout);
XI_API XI_NODISCARD int xi_send_ex(xi_channel *ch, const void *value, size_t size, const xi_send_opts *opts);
XI_API XI_NODISCARD int xi_send_int(xi_channel *ch, int64_t v, int64_t timeout);
/* One value for several calls: `n` values, the i-th of sizes[i] bytes at values[i]. Returns how many were sent (those
 * first in order), or the error if none was. Takes the channel's lock once for as many as fit. */
XI_API XI_NODISCARD int64_t xi_send_many(xi_channel *ch, const void *const *values, const size_t *sizes, size_t n,
                                         int64_t timeout);
/* Sends the value of `size` bytes that was built in loan->data, without a copy. On success the loan is consumed
 * (cleared); on error it is still the caller's. */
XI_API XI_NODISCARD int xi_send_loan(xi_channel *ch, xi_loan *loan, size_t size, const xi_send_opts *opts);

/* A received value. Initialise with XI_MSG_INIT; reuse it freely: receiving into it releases what it held. */
#define XI_MSG_SMALL 128
typedef struct xi_msg {
    const void *data;  /* the encoded value, 8-byte aligned; NULL when it holds none */
    size_t size;
    /* private */
    uint32_t borrow_;  /* 0: data is the message's own memory */
    uint32_t group_;
    uint64_t delivery_; /* in a group that acknowledges: the value's number, else 0 */
    uint32_t count_, handle_number_;
    void *channel_;
    uint32_t call_from_, call_borrow_; /* of a call: whose it is; and what this interpreter holds of it */
    uint64_t call_;     /* its generation, or 0 */
    xi_handle block_;
    xi_interp *holder_;
    void *map_;
    void *heap_;       /* for inline values beyond XI_MSG_SMALL; kept for the next */
    size_t heap_size_;
    uint64_t small_[XI_MSG_SMALL / 8];
} xi_msg;
#define XI_MSG_INIT {NULL, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0, {0, 0, 0}, NULL, NULL, NULL, 0, {0}}

/*
 * Receives the next value of the handle's group. A value in the arena is borrowed: msg->data points into the sender's
 * memory, mapped read-only, until xi_msg_release(). What another process wrote there may change under a reader:
 * decode it with a cursor, which is made for that. Blocks while the group has nothing to receive.
 * Errors: AGAIN, TIMEOUT, CLOSED (and drained), INTR, CORRUPT (a value was unreadable and is skipped; the channel goes
 * on), NOMEM and LIMIT (nothing was taken), QUOTA, FORKED, LEFT, ENDING, INVAL (a send-only handle).
 */
XI_API XI_NODISCARD int xi_recv(xi_channel *ch, xi_msg *msg, int64_t timeout);
/* Waits as xi_recv for the first, then takes what is there, up to `n`. Returns how many, or the error if none. What is
 * unreadable behind values is skipped: CORRUPT then of the next call that finds no value ready, or takes several. All `n` are
 * to be released in the end: those that got no value may have memory, kept for the next. */
XI_API XI_NODISCARD int64_t xi_recv_many(xi_channel *ch, xi_msg *msgs, size_t n, int64_t timeout);
/* Ends a borrow and frees the message's memory. Idempotent. A message may outlive its channel handle, not its
 * interpreter: xi_leave() releases what is left. */
XI_API void xi_msg_release(xi_msg *msg);
/* Moves a message (a plain struct copy would not do: `data` may point into the struct). `to` must hold none. */
XI_API void xi_msg_move(xi_msg *to, xi_msg *from);
/* True when data lies in shared memory (a borrow) rather than in the message's own. */
static inline bool xi_msg_borrowed(const xi_msg *m) { return m->borrow_ != 0; }
/* Where an XI_BUFFER of this message's value lies; mapped, checked. Valid as long as the message. */
XI_API int xi_msg_buffer(const xi_msg *msg, const xi_buffer_ref *ref, const void **data);

/* -------------------------------------------------------- acknowledgements
 *
 * In a group with XI_GROUP_ACK a receive is a delivery: the value stays the group's until xi_ack(). It goes to another
 * consumer, ahead of newer values and with a delivery count one higher, when its consumer dies, leaves, frees the handle or
 * the message, lets the group's timeout pass, or says xi_nack(). Acknowledging is when the free function may run. Delivered
 * max_deliveries times in vain, it goes to the dead letters: a dict {"reason", "channel", "group", "deliveries", "value"}.
 * Errors: STALE (another has it, or had), INVAL (not a delivery of such a group), LEFT, FORKED, TIMEOUT (a process that is
 * stopped has held the group's lock for a second; nothing has changed).
 */
XI_API int xi_ack(xi_msg *msg); /* also ends the message's borrow; the message holds nothing afterwards */
/* Gives it back, to be delivered again after delay_ns at the earliest (to anybody). The message holds nothing afterwards.
 * What was delivered max_deliveries times becomes a dead letter as soon as anybody receives in the group, or waits to. */
XI_API int xi_nack(xi_msg *msg, int64_t delay_ns);
/* The same, but what the message holds stays readable until it is released. LIMIT: as many as the group's window are kept so. */
XI_API int xi_ack_keep(xi_msg *msg);
XI_API int xi_nack_keep(xi_msg *msg, int64_t delay_ns);
/* The group's timeout begins anew, with ns (0: the group's own). */
XI_API int xi_extend(xi_msg *msg, int64_t ns);
/* That timeout of the group's own, in ns; 0: deliveries do not become overdue, or the group does not acknowledge. */
XI_API int64_t xi_ack_timeout(const xi_channel *ch);
/* How often the value has been delivered, this time included; 0 in a group that does not acknowledge. */
static inline uint32_t xi_msg_deliveries(const xi_msg *m) { return m->delivery_ ? m->count_ : 0; }

/* ------------------------------------------------------------------- sets
 *
 * Many channels waited on together, at a cost that depends on how many are ready. A set belongs to one thread at a time
 * (adding and removing while another waits is allowed). Levels, not edges: what is ready is reported until it is not.
 */
typedef struct xi_set xi_set;
enum xi_ready {
    XI_READY_RECV = 1,        /* something to receive */
    XI_READY_SEND = 2,        /* room for a small value */
    XI_READY_CLOSED = 4,      /* closed and drained, or removed, or the group was */
    XI_READY_NO_PRODUCER = 8, /* drained, and no handle that may send is left (XI_OPEN_NEED_PEER) */
    XI_READY_LEFT = 16        /* the handle was freed or shut meanwhile: it is no longer in the set */
};
typedef struct xi_event {
    xi_channel *channel;
    uint64_t key;     /* as given to xi_set_add */
    uint32_t ready;   /* XI_READY_* */
    int32_t priority;
} xi_event;
/* Errors: NOMEM, LIMIT (848 sets and sleeping threads of an interpreter), FORKED. */
XI_API XI_NODISCARD int xi_set_new(xi_interp *me, xi_set **out);
XI_API void xi_set_free(xi_set *set); /* none may wait on it: see xi_set_shut() */
/* From now on calls on this set return XI_E_LEFT, the one that waits as well. Idempotent; its memory stays. */
XI_API int xi_set_shut(xi_set *set);
/*
 * `want`: XI_READY_RECV, XI_READY_SEND or both, which are two members then, each with events of its own; the others are
 * reported as they come. Of several that are ready a higher priority comes first; of equals the one that was reported longest
 * ago. Errors: LIMIT (512 waiters and members of a channel; 16,384 members in all sets of an interpreter, which sets take 64
 * at a time), NOMEM, INVAL, LEFT, FORKED.
 */
XI_API XI_NODISCARD int xi_set_add(xi_set *set, xi_channel *ch, uint32_t want, uint64_t key, int32_t priority);
XI_API int xi_set_remove(xi_set *set, xi_channel *ch);
/* Waits until one is ready, then fills up to n events. Returns how many, or TIMEOUT, AGAIN, INTR, LEFT, ENDING, BROKER. */
XI_API XI_NODISCARD int64_t xi_set_wait(xi_set *set, xi_event *events, size_t n, int64_t timeout);
/*
 * A descriptor that is readable when xi_set_wait() may have something to report; for poll, epoll, asyncio, libuv. Owned by
 * the set. After it was readable call xi_set_wait(..., XI_TRY) until it returns XI_E_AGAIN: that arms it again. It may be
 * readable for nothing, and is once a second. Without io_uring a helper thread is behind it. Errors: NOMEM, INVAL (another
 * thread waits on the set), LEFT, FORKED.
 */
XI_API int xi_set_fd(xi_set *set);

/* ------------------------------------------------------- request and reply
 *
 * A call sends a request and gets the reply to it, which comes through a lane of the caller's own. The channel is one like
 * any other; whoever receives the request on it serves it. Several threads may call at a time, and a server may have many
 * requests before it replies to the first.
 *
 * Each call has one outcome. When the server that took the request dies, or releases it without a reply: DIED, at once; when
 * no handle receives on the channel and the request was not taken: NO_CONSUMER, at once (open to send only: a handle that may
 * receive is a consumer). In a group that acknowledges, a server's death gives the request to the next one instead, and the
 * reply is the acknowledgement. Meant for channels with one group that serves.
 */

/*
 * Sends a request and waits for its reply: xi_call_begin, xi_call_wait, and on TIMEOUT, INTR and other errors of waiting
 * xi_call_cancel. Errors: as xi_send and xi_recv, and DIED, NO_CONSUMER, REMOVED, LIMIT (64 calls of one interpreter at a
 * time).
 */
XI_API XI_NODISCARD int xi_call(xi_channel *ch, const void *value, size_t size, xi_msg *reply, int64_t timeout);

/* A call that is under way. Its channel's handle has to stay until it has ended or was cancelled. */
typedef struct xi_pending {
    xi_channel *channel_; /* NULL: none is */
    uint32_t index_, pad_;
    uint64_t generation_, position_, number_;
} xi_pending;
#define XI_PENDING_INIT {NULL, 0, 0, 0, 0, 0}
/* Sends the request; `timeout` is for room in the channel. On error nothing is pending. */
XI_API XI_NODISCARD int xi_call_begin(xi_channel *ch, const void *value, size_t size, int64_t timeout, xi_pending *out);
/* The same with the value that was built in loan->data: see xi_send_loan. */
XI_API XI_NODISCARD int xi_call_begin_loan(xi_channel *ch, xi_loan *loan, size_t size, const xi_send_opts *opts,
                                           xi_pending *out);
/* Waits for the reply. TIMEOUT, AGAIN (XI_TRY), INTR, NOMEM and the like leave the call pending: wait again, or cancel. 0,
 * DIED, NO_CONSUMER, REMOVED, LEFT, ENDING and BROKER end it. INVAL: none is pending. One thread at a time. */
XI_API XI_NODISCARD int xi_call_wait(xi_pending *p, xi_msg *reply, int64_t timeout);
/* Ends a call: a reply that comes later is dropped, a server that has not taken the request yet never sees it. Idempotent. */
XI_API void xi_call_cancel(xi_pending *p);

/* Whether a received message is a request that waits for a reply, and whether its caller still does. */
static inline bool xi_msg_is_call(const xi_msg *m) { return m->call_ != 0; }
XI_API bool xi_call_wanted(const xi_msg *request);
/*
 * Replies, once. The request's data stays readable until it is released. With value NULL it is given up: its caller gets
 * DIED at once. STALE: the caller has gone, or waits no more; there is nothing left to reply to. TIMEOUT, INTR and the like:
 * the caller waits still. Released without a reply, a request makes its caller's call DIED. In a group that acknowledges a
 * reply acknowledges.
 */
XI_API int xi_reply(xi_msg *request, const void *value, size_t size, int64_t timeout);
XI_API int xi_reply_loan(xi_msg *request, xi_loan *loan, size_t size, const xi_send_opts *opts);

/* ------------------------------------------------------- looking at oneself */

typedef struct xi_stats {
    uint64_t sent, received;
    uint64_t parks, wakes, spins;          /* sleeps begun, wake calls made, waits that spinning ended */
    uint64_t loans, blocks, arena_bytes;   /* loans ever, blocks not yet back, shared memory held */
    uint64_t borrows;                      /* held now */
    uint64_t frees_run, corrupt;
    const char *wait;                      /* "uring" or "futex" */
    const char *wait_reason;               /* why it is "futex", or "" */
} xi_stats;
XI_API void xi_interp_stats(const xi_interp *me, xi_stats *out);

/* What waiting would use on this machine, found by trying. 1: io_uring; 0: futex(2), with the reason. Never fails. */
XI_API int xi_probe_wait(char *reason, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
