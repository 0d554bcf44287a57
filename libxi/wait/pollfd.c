/* SPDX-License-Identifier: MIT */
/*
 * See pollfd.h: the eventfd, and the helper thread where there is no ring
 * (pollring.c).
 *
 * The helper sleeps while it is armed, in xi_sleep(), which ends after a second
 * at the latest. Each end of its sleep makes the descriptor readable, once.
 */
#include "pollfd.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../error.h"
#include "../wire/order.h"
#include "../xidata.h"
#include "doorbell.h"
#include "pollring.h"

/* Of a descriptor that a helper thread signals: under the mutex. */
struct helper {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t change;
    bool armed, stop;
    uint32_t seen;
    int control;
    int64_t until;
    enum xi_wake_reason why; /* of the latest signal */
};

struct xi_pollfd {
    _Atomic uint32_t *word;
    int event;
    bool signalled; /* by xi_pollfd_signal(), since it was armed */
    struct xi_pollring *ring;
    struct helper *helper;
};

int xi_pollfd_fd(const struct xi_pollfd *p) { return p->event; }
bool xi_pollfd_is_ring(const struct xi_pollfd *p) { return p->ring != NULL; }

static void make_readable(int event) {
    uint64_t one = 1;
    ssize_t n;
    do n = write(event, &one, sizeof one); /* EAGAIN: it is as readable as can be */
    while (n < 0 && errno == EINTR);
}

static void make_unreadable(int event) {
    uint64_t ignored;
    ssize_t n;
    do n = read(event, &ignored, sizeof ignored);
    while (n < 0 && errno == EINTR);
}

void xi_pollfd_signal(struct xi_pollfd *p) {
    if (p->signalled) return;
    p->signalled = true;
    make_readable(p->event);
}

/* ----------------------------------------------------------- with a helper */

static void *help(void *argument) {
    struct xi_pollfd *p = argument;
    struct helper *h = p->helper;
    pthread_mutex_lock(&h->mutex);
    while (!h->stop) {
        if (!h->armed) {
            pthread_cond_wait(&h->change, &h->mutex);
            continue;
        }
        uint32_t seen = h->seen;
        int control = h->control;
        int64_t until = h->until;
        pthread_mutex_unlock(&h->mutex);
        enum xi_wake_reason why = xi_sleep(p->word, seen, until, control);
        xi_sleep_over();
        pthread_mutex_lock(&h->mutex);
        /* Armed again meanwhile, with another value: then the word has changed, and it is readable for nothing once. */
        if (why == XI_WAKE_SIGNAL) continue;
        h->armed = false;
        h->why = why == XI_WAKE_TIME ? XI_WAKE_LOOK : why;
        make_readable(p->event);
    }
    pthread_mutex_unlock(&h->mutex);
    return NULL;
}

static int helper_start(struct xi_pollfd *p) {
    struct helper *h = calloc(1, sizeof *h);
    sigset_t all, before;
    pthread_attr_t attr;
    if (!h) return xi_fail(XI_E_NOMEM, "no memory for a pollable descriptor");
    pthread_mutex_init(&h->mutex, NULL);
    pthread_cond_init(&h->change, NULL);
    p->helper = h;
    pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, (size_t)1 << 17);
    sigfillset(&all); /* the host's signals are for the host's threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&h->thread, &attr, help, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (err == 0) return 0;
    pthread_mutex_destroy(&h->mutex);
    pthread_cond_destroy(&h->change);
    free(h);
    p->helper = NULL;
    return xi_fail_errno(err, "cannot start the thread behind a pollable descriptor");
}

static void helper_stop(struct xi_pollfd *p) {
    struct helper *h = p->helper;
    pthread_mutex_lock(&h->mutex);
    h->stop = true;
    pthread_cond_signal(&h->change);
    pthread_mutex_unlock(&h->mutex);
    (void)xi_add_full(p->word, 1); /* the word is ours: a bell that nobody else sleeps on */
    (void)xi_futex_wake(p->word, INT_MAX);
    pthread_join(h->thread, NULL);
    pthread_mutex_destroy(&h->mutex);
    pthread_cond_destroy(&h->change);
    free(h);
    p->helper = NULL;
}

static enum xi_wake_reason helper_arm(struct xi_pollfd *p, uint32_t seen, int control, int64_t until) {
    struct helper *h = p->helper;
    pthread_mutex_lock(&h->mutex);
    enum xi_wake_reason why = h->why;
    h->why = XI_WAKE_BELL;
    if (!h->armed || p->signalled) make_unreadable(p->event);
    bool sooner = until >= 0 && (h->until < 0 || until < h->until);
    if (h->armed && sooner) (void)xi_futex_wake(p->word, INT_MAX); /* it sleeps for longer: readable for nothing once */
    h->armed = true;
    h->seen = seen;
    h->control = control;
    h->until = until;
    pthread_cond_signal(&h->change);
    pthread_mutex_unlock(&h->mutex);
    return why;
}

/* -------------------------------------------------------------- either way */

int xi_pollfd_new(_Atomic uint32_t *word, struct xi_pollfd **out) {
    struct xi_pollfd *p = calloc(1, sizeof *p);
    if (!p) return xi_fail(XI_E_NOMEM, "no memory for a pollable descriptor");
    p->word = word;
    p->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int rc = p->event < 0 ? xi_fail_errno(errno, "cannot make a pollable descriptor") : 0;
    if (rc == 0 && xi_backend(NULL) == XI_BACKEND_URING) p->ring = xi_pollring_take(p->event);
    if (rc == 0 && !p->ring) rc = helper_start(p);
    if (rc == 0) {
        *out = p;
        return 0;
    }
    if (p->event >= 0) close(p->event);
    free(p);
    return rc;
}

void xi_pollfd_free(struct xi_pollfd *p, bool inherited) {
    if (p->ring) xi_pollring_give(p->ring, inherited ? NULL : p->word);
    if (p->helper && !inherited) helper_stop(p);
    close(p->event);
    free(p);
}

/* With the ring that there is, or with another: that one was of another thread, or is broken. */
static bool arm_ring(struct xi_pollfd *p, uint32_t seen, int control, int64_t until, enum xi_wake_reason *why) {
    if (xi_pollring_arm(p->ring, p->word, seen, control, until, p->signalled, why)) return true;
    xi_pollring_give(p->ring, p->word);
    make_unreadable(p->event);
    p->ring = xi_pollring_take(p->event);
    if (p->ring && xi_pollring_arm(p->ring, p->word, seen, control, until, true, why)) {
        *why = XI_WAKE_LOOK; /* what the old one had to say is not known */
        return true;
    }
    if (p->ring) xi_pollring_give(p->ring, p->word);
    p->ring = NULL;
    return false;
}

enum xi_wake_reason xi_pollfd_arm(struct xi_pollfd *p, uint32_t seen, int control, int64_t until) {
    enum xi_wake_reason why = XI_WAKE_BELL;
    bool had_ring = p->ring != NULL;
    if (!had_ring || !arm_ring(p, seen, control, until, &why)) {
        if (!p->helper && helper_start(p) != 0) {
            xi_pollfd_signal(p); /* there is no way to be told: whoever polls looks all the time */
            return XI_WAKE_LOOK;
        }
        why = helper_arm(p, seen, control, until);
        if (had_ring) why = XI_WAKE_LOOK;
    }
    p->signalled = false;
    return why;
}

enum xi_wake_reason xi_pollfd_sleep(struct xi_pollfd *p, int64_t deadline) {
    struct pollfd f = {.fd = p->event, .events = POLLIN};
    int64_t left = deadline < 0 ? 0 : deadline - xi_now();
    struct timespec ts = {left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0};
    int n = ppoll(&f, 1, deadline < 0 ? NULL : &ts, NULL);
    if (n > 0) return XI_WAKE_BELL;
    return n == 0 ? XI_WAKE_TIME : XI_WAKE_SIGNAL;
}
