/* SPDX-License-Identifier: MIT */
/*
 * See sleep.h.
 *
 * The ring (uring.h) has 8 entries. One a thread, ended with it; never shared
 * with a forked child.
 *
 * A FUTEX_WAIT that is still armed when a sleep ends for another reason stays so
 * for the thread's next sleep on the same word: it stands in the kernel's queue,
 * so whoever wakes ends it, though it was made with an earlier value of the word.
 * So a look once a second is one system call. It is cancelled in xi_sleep_over(),
 * or before a sleep on another word: the doorbell may go to another thread next, and a
 * wake-one must not be swallowed by a waiter that is not there any more.
 */
#include "sleep.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../wire/order.h"
#include "../xidata.h"
#include "doorbell.h"
#include "uring.h"

enum { TAG_BELL = 1, TAG_CONTROL = 2, TAG_CANCEL = 3 };

struct ring {
    struct io_uring uring;
    pid_t pid;
    int control; /* descriptor whose poll is armed, or -1 */
    bool bell_armed;
    _Atomic uint32_t *word; /* for which it is */
};

#if defined(__SANITIZE_THREAD__)
char xi_uring_unmapped;
#endif

static pthread_key_t ring_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static enum xi_backend backend;
static char backend_reason[160];
static _Thread_local enum xi_backend used;
static _Thread_local bool ringless; /* this thread's ring failed for good: it sleeps in futex(2) */
static _Thread_local bool armed;    /* the wait of an earlier sleep, in this thread's ring */

#define PATIENT_TRIES 16 /* of a call for which the kernel has no memory just now */

/* A page that a forked child finds empty. Without it the kernel is asked each time. */
static _Atomic pid_t *process_page;
static pthread_once_t process_once = PTHREAD_ONCE_INIT;

static void make_process_page(void) {
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return;
    if (madvise(page, size, MADV_WIPEONFORK) == 0) process_page = page;
    else munmap(page, size);
}

pid_t xi_process(void) {
    pthread_once(&process_once, make_process_page);
    if (!process_page) return getpid();
    pid_t pid = atomic_load_explicit(process_page, memory_order_relaxed);
    if (pid == 0) atomic_store_explicit(process_page, pid = getpid(), memory_order_relaxed);
    return pid;
}

static int ring_init(struct ring *r) {
    int rc = xi_uring_init(&r->uring, 8);
    if (rc) return rc;
    r->pid = xi_process();
    r->control = -1;
    r->bell_armed = false;
    return 0;
}

static void ring_free(void *p) {
    struct ring *r = p;
    if (r->pid == xi_process())
        xi_uring_exit(&r->uring);
    else
        close(r->uring.ring_fd); /* a forked child: the ring's memory is not there, its descriptor is */
    free(r);
}

/* At most four entries are ever pending of eight; if the kernel was too busy to take them, it is asked again. */
static struct io_uring_sqe *entry(struct ring *r) {
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&r->uring))) (void)io_uring_submit(&r->uring);
    return sqe;
}

static void arm_bell(struct ring *r, _Atomic uint32_t *word, uint32_t seen) {
    xi_uring_prep_futex_wait(entry(r), word, seen, TAG_BELL);
    r->bell_armed = true;
    r->word = word;
}

/* Takes all completions and returns how many; bell_armed, control and *bell_result tell which. */
static unsigned reap(struct ring *r, bool *control, int *bell_result) {
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    io_uring_for_each_cqe(&r->uring, head, cqe) {
        n++;
        if (cqe->user_data == TAG_BELL) {
            r->bell_armed = false;
            *bell_result = cqe->res;
        } else if (cqe->user_data == TAG_CONTROL) {
            r->control = -1;
            if (cqe->res != -ECANCELED) *control = true;
        }
    }
    io_uring_cq_advance(&r->uring, n);
    return n;
}

static void cancel(struct ring *r, uint64_t tag) {
    struct io_uring_sqe *sqe = entry(r);
    io_uring_prep_cancel64(sqe, tag, 0);
    sqe->user_data = TAG_CANCEL;
}

/*
 * Until the armed wait has ended one way or the other. Signals only delay it: the kernel answers at once. False: the
 * kernel takes nothing from this ring any more. A control socket that is found readable meanwhile is polled anew by the
 * next sleep, which ends then.
 */
static bool disarm_bell(struct ring *r) {
    int ignored;
    bool control;
    cancel(r, TAG_BELL);
    for (int failed = 0; r->bell_armed && failed < PATIENT_TRIES;) {
        int rc = io_uring_submit_and_wait(&r->uring, 1);
        (void)reap(r, &control, &ignored);
        if (rc < 0 && rc != -EINTR) failed++;
    }
    return !r->bell_armed;
}

static void *try_ring(void *ignored) {
    static _Atomic uint32_t word;
    struct ring r;
    int rc = ring_init(&r), result = 1;
    (void)ignored;
    if (rc) {
        snprintf(backend_reason, sizeof backend_reason, "io_uring_setup: %s%s", strerror(-rc),
                 rc == -EPERM || rc == -ENOSYS ? " (a container's seccomp profile, or kernel.io_uring_disabled)"
                 : rc == -ENOMEM               ? " (locked-memory limit: ulimit -l)"
                                               : "");
        return NULL;
    }
    bool control = false;
    arm_bell(&r, &word, 1); /* the word is 0: a kernel that knows the operation answers EAGAIN at once */
    rc = io_uring_submit_and_wait(&r.uring, 1);
    if (rc >= 0) (void)reap(&r, &control, &result);
    xi_uring_exit(&r.uring);
    if (rc >= 0 && result == -EAGAIN)
        backend = XI_BACKEND_URING;
    else
        snprintf(backend_reason, sizeof backend_reason, "io_uring has no futex operation here (%s; Linux 6.7 has it)",
                 strerror(rc < 0 ? -rc : result < 0 ? -result : EINVAL));
    return NULL;
}

/* The end of a ring makes a blocking call of the thread that made it return EINTR, some milliseconds later: so it is
 * tried in a thread of its own. */
static void probe(void) {
    const char *want = getenv("XI_WAIT");
    pthread_t thread;
    sigset_t all, before;
    backend = XI_BACKEND_FUTEX;
    if (pthread_key_create(&ring_key, ring_free) != 0) {
        snprintf(backend_reason, sizeof backend_reason, "no thread-specific key is left in this process");
        return;
    }
    if (want && strcmp(want, "futex") == 0) {
        snprintf(backend_reason, sizeof backend_reason, "XI_WAIT=futex asks for it");
        return;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&thread, NULL, try_ring, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0) pthread_join(thread, NULL);
    else snprintf(backend_reason, sizeof backend_reason, "no thread could be started to try io_uring: %s", strerror(err));
}

enum xi_backend xi_backend(const char **reason) {
    pthread_once(&once, probe);
    if (reason) *reason = backend_reason;
    return backend;
}

enum xi_backend xi_backend_used(void) { return used; }

int xi_probe_wait(char *reason, size_t capacity) {
    const char *why;
    enum xi_backend b = xi_backend(&why);
    if (reason && capacity) snprintf(reason, capacity, "%s", why);
    return b == XI_BACKEND_URING;
}

/* What there is of it, in this process. */
static struct ring *ring_there(void) {
    struct ring *r = xi_backend(NULL) == XI_BACKEND_URING ? pthread_getspecific(ring_key) : NULL;
    return r && r->pid == xi_process() ? r : NULL;
}

static struct ring *ring_of_thread(void) {
    if (xi_backend(NULL) != XI_BACKEND_URING || ringless) return NULL;
    struct ring *r = pthread_getspecific(ring_key);
    if (r && r->pid != xi_process()) {
        ring_free(r);
        r = NULL;
        pthread_setspecific(ring_key, NULL);
    }
    if (r) return r;
    r = malloc(sizeof *r);
    if (!r) return NULL;
    if (ring_init(r) != 0) { /* locked-memory limit, most likely: this thread sleeps in futex(2) */
        free(r);
        return NULL;
    }
    if (pthread_setspecific(ring_key, r) != 0) {
        ring_free(r);
        return NULL;
    }
    return r;
}

/* With its end the kernel ends whatever was armed. */
static void give_up_ring(struct ring *r) {
    pthread_setspecific(ring_key, NULL);
    ring_free(r);
    ringless = true;
}

static int64_t slice(int64_t deadline, int64_t now, bool *is_deadline) {
    int64_t left = deadline < 0 ? INT64_MAX : deadline - now;
    *is_deadline = left <= XI_LOOK_NS;
    return *is_deadline ? (left > 0 ? left : 0) : XI_LOOK_NS;
}

static void arm_control(struct ring *r, int control) {
    if (r->control == control) return;
    if (r->control >= 0) cancel(r, TAG_CONTROL);
    if (control >= 0) {
        struct io_uring_sqe *sqe = entry(r);
        io_uring_prep_poll_add(sqe, control, POLLIN);
        sqe->user_data = TAG_CONTROL;
    }
    r->control = control;
}

static enum xi_wake_reason sleep_uring(struct ring *r, _Atomic uint32_t *word, uint32_t seen, int64_t deadline,
                                       int control) {
    bool is_deadline, control_ready = false;
    int64_t start = xi_now(), left = slice(deadline, start, &is_deadline);
    struct __kernel_timespec ts = {left / 1000000000, left % 1000000000};
    struct io_uring_cqe *cqe = NULL;
    int result = 0;
    used = XI_BACKEND_URING;
    arm_control(r, control);
    if (!r->bell_armed) arm_bell(r, word, seen);
    /* One call submits and waits. It returns the number submitted, so an expired wait or a signal does not show in it:
     * nothing has completed, and time tells which of the two it was. */
    int rc = io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1, &ts, NULL);
    unsigned completed = reap(r, &control_ready, &result);
    bool bell = !r->bell_armed, failed = rc < 0 && rc != -EINTR && rc != -ETIME;
    if (failed && r->bell_armed && !disarm_bell(r)) give_up_ring(r);
    if (bell) return XI_WAKE_BELL;
    if (control_ready) return XI_WAKE_CONTROL;
    if (completed || failed) return XI_WAKE_BELL; /* of something cancelled, or it did not sleep: look, then sleep again */
    if (xi_now() - start < left) return XI_WAKE_SIGNAL;
    return is_deadline ? XI_WAKE_TIME : XI_WAKE_LOOK;
}

/*
 * Nothing wakes a futex wait for the control socket: it is looked at when a second has passed without that. What comes
 * there that matters at once is in the mailbox too, with a ring.
 */
static bool control_readable(int control, int64_t now) {
    static _Thread_local int64_t looked_at;
    static _Thread_local int looked;
    struct pollfd p = {.fd = control, .events = POLLIN};
    if (control < 0 || (control == looked && now - looked_at < XI_LOOK_NS)) return false;
    bool readable = poll(&p, 1, 0) > 0;
    looked = control;
    looked_at = readable ? 0 : now; /* whoever reads it may not get to it: looked at again then */
    return readable;
}

static enum xi_wake_reason sleep_futex(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, int control) {
    bool is_deadline;
    int64_t now = xi_now(), left = slice(deadline, now, &is_deadline);
    used = XI_BACKEND_FUTEX;
    if (control_readable(control, now)) return XI_WAKE_CONTROL;
    int rc = xi_futex_wait(word, seen, now + left);
    if (rc == -EINTR) return XI_WAKE_SIGNAL;
    if (rc != -ETIMEDOUT) return XI_WAKE_BELL;
    if (is_deadline) return XI_WAKE_TIME;
    return control_readable(control, xi_now()) ? XI_WAKE_CONTROL : XI_WAKE_LOOK;
}

enum xi_wake_reason xi_sleep(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, int control) {
    if (xi_load_acquire(word) != seen) return XI_WAKE_BELL;
    struct ring *r = ring_of_thread();
    if (r && r->bell_armed && r->word != word) {
        xi_sleep_over();
        r = ring_of_thread();
    }
    if (!r) return sleep_futex(word, seen, deadline, control);
    armed = true; /* as far as need be known before it is over */
    return sleep_uring(r, word, seen, deadline, control);
}

void xi_sleep_over(void) {
    struct ring *r = armed ? ring_there() : NULL;
    armed = false;
    if (r && r->bell_armed && !disarm_bell(r)) give_up_ring(r);
}
