/* SPDX-License-Identifier: MIT */
/*
 * See pollring.h.
 *
 * Arming comes after the bell was parked and before the look that decides
 * whether there is something to do. So a ring that comes after that look finds a
 * wait armed, or has changed the word before it was: then the wait ends at once.
 *
 * A FUTEX_WAIT that is armed still, from an earlier time, serves as well: it was
 * made with an earlier value of the word, but it stands in the kernel's queue,
 * and nobody else waits on this word. If the wake of an earlier ring is still on
 * its way, it ends this wait, and the descriptor is readable for nothing once.
 *
 * Completions of a DEFER_TASKRUN ring wait for its thread to enter the kernel.
 * The eventfd is signalled when the first is due (the ring's TASKRUN flag is set
 * before that), and again when they are fetched; so it is cleared after fetching,
 * and that is repeated while the flag is up.
 */
#include "pollring.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "doorbell.h"
#include "uring.h"

enum { TAG_BELL = 1, TAG_CONTROL = 2, TAG_LOOK = 3, TAG_CANCEL = 4 };

/* A thread that has made rings. Goes when it has ended and none of them is in use. */
struct owner {
    pid_t process;
    bool ended;
    uint32_t rings;
    struct xi_pollring *idle;
};

struct xi_pollring {
    struct io_uring uring;
    struct owner *owner;
    struct xi_pollring *next; /* idle */
    int event;
    int control;              /* descriptor whose poll is armed, or -1 */
    bool bell_armed, look_armed;
    bool broken;              /* the kernel took its entries no more */
    int64_t look_at;          /* when it ends */
    struct __kernel_timespec look;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* owners, and who has which ring */
static pthread_key_t key;
static bool key_made;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ------------------------------------------------------------------ owners */

/* Caller holds the mutex, or is alone. The ring's end interrupts nobody: its thread has ended, or is about to. */
static void destroy(struct xi_pollring *r) {
    struct owner *o = r->owner;
    if (o->process == xi_process()) xi_uring_exit(&r->uring);
    else close(r->uring.ring_fd); /* a forked child: the ring's memory is not there, its descriptor is */
    free(r);
    if (--o->rings == 0 && o->ended) free(o);
}

static void thread_ends(void *argument) {
    struct owner *o = argument;
    pthread_mutex_lock(&mutex);
    o->ended = true;
    o->rings++; /* so that it does not go under this loop */
    while (o->idle) {
        struct xi_pollring *r = o->idle;
        o->idle = r->next;
        destroy(r);
    }
    if (--o->rings == 0) free(o);
    pthread_mutex_unlock(&mutex);
}

static void make_key(void) { key_made = pthread_key_create(&key, thread_ends) == 0; }

/* Of the calling thread, or NULL. */
static struct owner *owner_here(void) {
    pthread_once(&once, make_key);
    struct owner *o = key_made ? pthread_getspecific(key) : NULL;
    if (o && o->process != xi_process()) { /* the parent's */
        thread_ends(o);
        pthread_setspecific(key, NULL);
        o = NULL;
    }
    return o;
}

static struct owner *owner_make(void) {
    struct owner *o = key_made ? calloc(1, sizeof *o) : NULL;
    if (!o) return NULL;
    o->process = xi_process();
    if (pthread_setspecific(key, o) == 0) return o;
    free(o);
    return NULL;
}

void xi_pollring_forked(void) { pthread_mutex_init(&mutex, NULL); }

/* ------------------------------------------------------------------- rings */

/* Five entries at most of eight are ever pending; if the kernel was too busy to take them, it is asked again. */
static struct io_uring_sqe *entry(struct xi_pollring *r) {
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&r->uring))) (void)io_uring_submit(&r->uring);
    return sqe;
}

static void cancel(struct xi_pollring *r, uint64_t tag) {
    struct io_uring_sqe *sqe = entry(r);
    io_uring_prep_cancel64(sqe, tag, 0);
    sqe->user_data = TAG_CANCEL;
}

static enum xi_wake_reason reap(struct xi_pollring *r) {
    enum xi_wake_reason why = XI_WAKE_BELL;
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    io_uring_for_each_cqe(&r->uring, head, cqe) {
        n++;
        if (cqe->user_data == TAG_BELL) {
            r->bell_armed = false;
        } else if (cqe->user_data == TAG_LOOK) {
            r->look_armed = false;
            if (why == XI_WAKE_BELL) why = XI_WAKE_LOOK;
        } else if (cqe->user_data == TAG_CONTROL && cqe->res != -ECANCELED) {
            r->control = -1;
            why = XI_WAKE_CONTROL;
        }
    }
    io_uring_cq_advance(&r->uring, n);
    return why;
}

#define PATIENT_TRIES 16 /* of a call for which the kernel has no memory just now */

/* Whether to try once more; *failed counts. */
static bool go_on(int rc, int *failed) {
    if (rc >= 0 || rc == -EINTR) return true;
    return (rc == -EAGAIN || rc == -EBUSY) && ++*failed < PATIENT_TRIES;
}

/* Ends whatever an earlier user left armed. The wait for its word was woken when it was given back. */
static bool quiet(struct xi_pollring *r) {
    int failed = 0, rc = io_uring_unregister_eventfd(&r->uring);
    if (r->look_armed) cancel(r, TAG_LOOK);
    if (r->control >= 0) cancel(r, TAG_CONTROL);
    r->control = -1;
    while (r->bell_armed || r->look_armed) {
        rc = io_uring_submit_and_wait(&r->uring, 1);
        if (!go_on(rc, &failed)) return false;
        (void)reap(r);
    }
    return rc >= 0 && io_uring_submit(&r->uring) >= 0;
}

static struct xi_pollring *take_idle(void) {
    struct owner *o = owner_here();
    if (!o) return NULL;
    pthread_mutex_lock(&mutex);
    struct xi_pollring *r = o->idle;
    if (r) o->idle = r->next;
    pthread_mutex_unlock(&mutex);
    return r;
}

static void throw_away(struct xi_pollring *r) {
    pthread_mutex_lock(&mutex);
    destroy(r);
    pthread_mutex_unlock(&mutex);
}

static struct xi_pollring *make(void) {
    struct owner *o = owner_here();
    if (!o) o = owner_make();
    struct xi_pollring *r = o ? calloc(1, sizeof *r) : NULL;
    if (!r) return NULL;
    if (xi_uring_init(&r->uring, 8) != 0) {
        free(r);
        return NULL;
    }
    r->owner = o;
    r->control = -1;
    pthread_mutex_lock(&mutex);
    o->rings++;
    pthread_mutex_unlock(&mutex);
    return r;
}

struct xi_pollring *xi_pollring_take(int event) {
    struct xi_pollring *r;
    while ((r = take_idle()) && !quiet(r)) throw_away(r);
    if (!r) r = make();
    if (!r) return NULL;
    r->event = event;
    if (io_uring_register_eventfd(&r->uring, event) == 0) return r;
    throw_away(r);
    return NULL;
}

void xi_pollring_give(struct xi_pollring *r, _Atomic uint32_t *word) {
    /* What is armed could swallow a wake that is meant for the next to wait on this word. */
    if (word) (void)xi_futex_wake(word, INT_MAX);
    pthread_mutex_lock(&mutex);
    struct owner *o = r->owner;
    if (o->ended || r->broken || !word) {
        destroy(r);
    } else {
        r->next = o->idle;
        o->idle = r;
    }
    pthread_mutex_unlock(&mutex);
}

/* ------------------------------------------------------------------ arming */

static void make_unreadable(int event) {
    uint64_t ignored;
    ssize_t n;
    do n = read(event, &ignored, sizeof ignored);
    while (n < 0 && errno == EINTR);
}

static bool work_is_due(const struct xi_pollring *r) {
    return atomic_load_explicit((_Atomic unsigned *)r->uring.sq.kflags, memory_order_seq_cst) & IORING_SQ_TASKRUN;
}

/* Not readable for what has happened. */
static bool settle(struct xi_pollring *r, bool signalled) {
    int failed = 0;
    bool on = true;
    if (signalled || work_is_due(r) || io_uring_cq_ready(&r->uring)) make_unreadable(r->event);
    while (on && work_is_due(r)) {
        on = go_on(io_uring_get_events(&r->uring), &failed);
        make_unreadable(r->event);
    }
    r->broken = !on;
    return on;
}

/* A look that is to come sooner than the one that is armed changes that one. If it has ended already, it is due anyway. */
static void fill_look(struct xi_pollring *r, int64_t until) {
    int64_t now = xi_now(), at = now + XI_LOOK_NS;
    if (until >= 0 && until < at) at = until;
    if (r->look_armed && at >= r->look_at) return;
    int64_t left = at > now ? at - now : 1;
    r->look = (struct __kernel_timespec){left / 1000000000, left % 1000000000};
    r->look_at = at;
    struct io_uring_sqe *sqe = entry(r);
    if (r->look_armed) io_uring_prep_timeout_update(sqe, &r->look, TAG_LOOK, 0);
    else io_uring_prep_timeout(sqe, &r->look, 0, 0);
    sqe->user_data = r->look_armed ? TAG_CANCEL : TAG_LOOK;
    r->look_armed = true;
}

static void fill(struct xi_pollring *r, _Atomic uint32_t *word, uint32_t seen, int control, int64_t until) {
    if (!r->bell_armed) xi_uring_prep_futex_wait(entry(r), word, seen, TAG_BELL);
    r->bell_armed = true;
    if (r->control != control) {
        if (r->control >= 0) cancel(r, TAG_CONTROL);
        if (control >= 0) {
            struct io_uring_sqe *sqe = entry(r);
            io_uring_prep_poll_add(sqe, control, POLLIN);
            sqe->user_data = TAG_CONTROL;
        }
        r->control = control;
    }
    fill_look(r, until);
}

bool xi_pollring_arm(struct xi_pollring *r, _Atomic uint32_t *word, uint32_t seen, int control, int64_t until, bool signalled,
                     enum xi_wake_reason *why) {
    if (r->owner != owner_here() || !settle(r, signalled)) return false;
    *why = reap(r);
    fill(r, word, seen, control, until);
    int rc = 0, failed = 0;
    while (io_uring_sq_ready(&r->uring) > 0 && go_on(rc, &failed)) rc = io_uring_submit(&r->uring);
    r->broken = io_uring_sq_ready(&r->uring) > 0;
    return !r->broken;
}
