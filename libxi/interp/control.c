/* SPDX-License-Identifier: MIT */
/*
 * The connection to the broker: one request at a time, events in between, and
 * what to do when there is no broker: start one, or after its death start
 * another and declare to it what this interpreter has open.
 *
 * Nothing on the data path needs it. A call that is interrupted while the broker
 * does not answer gives the connection up: connecting again declares exactly the
 * handles that this side knows of, so an answer that nobody waited for is undone.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../wait/sleep.h"
#include "connect.h"
#include "interp.h"

extern char **environ;

#define PATIENCE_NS 10000000000ll /* for a broker to come up */
#define READY_FD 3
#define ATTEMPTS 3 /* at what a dying broker spoils */
#define POSTED UINT32_MAX /* serial of what no answer is awaited to */

static void lost(struct xi_interp *me) {
    int fd = atomic_exchange(&me->control.fd, -1);
    if (fd < 0) return;
    /* The rings of sleeping threads, which wait on it too, hold it open: so they look up. In a forked child it is the parent's. */
    if (xi_alive(me)) (void)shutdown(fd, SHUT_RDWR);
    close(fd);
}

static void event(struct xi_interp *me, const struct xi_reply *r) {
    if (r->op == XI_EV_END) atomic_store(&me->ending, XI_E_ENDING);
    if (r->op == XI_EV_SHUTDOWN) atomic_store(&me->ending, XI_E_BROKER);
}

/* An answer that nobody waits for, or an event. */
static void take_in(struct xi_interp *me, const struct xi_reply *r, int fds[XI_WIRE_FDS]) {
    struct xi_given *g = &me->control.given;
    xi_close_all(fds, XI_WIRE_FDS);
    if (r->serial == 0) event(me, r);
    if (r->serial != POSTED || r->op != XI_OP_DROP || !g->told) return;
    g->told--; /* answers come in the order of the requests; whichever this is, the segment is not ours any more */
    memmove(g->segment, g->segment + 1, --g->count * sizeof *g->segment);
}

/* All that has arrived. As xi_packet_receive(), which has nothing more; the end of a connection is found by who reads next too. */
static int take_all_in(struct xi_interp *me, int fd) {
    struct xi_reply r;
    int fds[XI_WIRE_FDS], rc;
    while ((rc = xi_packet_receive(fd, &r, fds, MSG_DONTWAIT)) == 1) take_in(me, &r, fds);
    return rc;
}

static int gave_up(struct xi_interp *me) {
    lost(me);
    return xi_fail(XI_E_INTR, "interrupted while waiting for the broker's answer, and gave up after a second; call again");
}

/* Waits for a packet to read, or whatever `events` are. After a signal, only a second more. */
static int await(struct xi_interp *me, int fd, short events, int64_t *until) {
    struct pollfd p = {.fd = fd, .events = events};
    for (;;) {
        int64_t left = *until < 0 ? 1000000000 : *until - xi_now();
        if (left <= 0) return gave_up(me);
        int n = poll(&p, 1, (int)(left / 1000000) + 1);
        if (n > 0) return 0;
        if (n < 0 && errno == EINTR && *until < 0) *until = xi_now() + 1000000000;
        if (n < 0 && errno != EINTR) { /* asked anew on another connection, to which all is declared anew */
            int err = errno;
            lost(me);
            return xi_fail(XI_E_BROKER, "cannot wait for the broker's answer: %s", strerror(err));
        }
        if (n == 0 && *until < 0) continue;
    }
}

/* Waits for a packet no longer than that, whatever signals come. */
static int await_briefly(int fd, int64_t until) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (;;) {
        int64_t left = until - xi_now();
        if (left <= 0) return XI_E_TIMEOUT;
        int n = poll(&p, 1, (int)(left / 1000000) + 1);
        if (n > 0) return 0;
        if (n < 0 && errno != EINTR) return xi_fail_errno(errno, "waiting for the broker");
    }
}

/* Looks for an answer that is soon there. As xi_packet_receive(); -EAGAIN: it is to be waited for. */
static int look_for(int fd, int64_t from, int64_t span, struct xi_reply *reply, int *fds) {
    unsigned pauses = 0;
    int rc = -EAGAIN;
    while (rc == -EAGAIN && xi_now() - from < span) {
        xi_soon_pause(&pauses);
        rc = xi_packet_receive(fd, reply, fds, MSG_DONTWAIT);
    }
    return rc;
}

static void do_once(void (**fn)(void *), void *arg) {
    if (*fn) (*fn)(arg);
    *fn = NULL;
}

/* `brief_until`, where not negative: waits no longer than that; the reply is thrown away when it comes. */
static int exchange(struct xi_interp *me, struct xi_request *request, struct xi_reply *reply, int *fds, unsigned want,
                    int64_t brief_until, struct xi_around *around) {
    int fd = atomic_load(&me->control.fd), got[XI_WIRE_FDS];
    int64_t until = -1;
    me->control.serial = me->control.serial % (UINT32_MAX - 1) + 1;
    request->serial = me->control.serial;
    bool patient = brief_until < 0;
    ssize_t n;
    while ((n = send(fd, request, sizeof *request, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0 && (errno == EINTR || errno == EAGAIN)) {
        if (errno == EINTR) continue;
        if (!patient) return XI_E_TIMEOUT;
        /* A broker that cannot get rid of its answers reads nothing more of ours: they are taken in meanwhile. */
        (void)take_all_in(me, fd);
        int rc = await(me, fd, POLLIN | POLLOUT, &until);
        if (rc) return rc;
    }
    /* One that closed already may have said why: that is still to be read. */
    int err = errno;
    if (n < 0 && err != EPIPE && err != ECONNRESET) { /* a packet goes as a whole or not at all */
        lost(me);
        return xi_fail(XI_E_BROKER, "cannot ask the broker of namespace \"%s\": %s", me->place.text, strerror(err));
    }
    if (around) do_once(&around->meanwhile, around->arg);
    struct xi_soon *soon = &me->control.soon;
    int64_t asked = xi_now(), span = xi_soon(soon);
    for (bool slept = false;;) {
        int rc = slept ? -EAGAIN : look_for(fd, asked, span, reply, got);
        if (rc == -EAGAIN) {
            slept = true;
            rc = patient ? await(me, fd, POLLIN, &until) : await_briefly(fd, brief_until);
            if (rc) return rc;
            rc = xi_packet_receive(fd, reply, got, MSG_DONTWAIT);
        }
        if (rc == -EAGAIN || rc == -EINTR) continue;
        if (rc <= 0) {
            lost(me);
            return xi_fail(XI_E_BROKER, "the broker of namespace \"%s\" went away while it was asked; call again, which finds or "
                           "starts another", me->place.text);
        }
        if (reply->serial == request->serial) {
            xi_soon_came(soon, xi_now() - asked, span > 0, !slept);
            break;
        }
        rc = xi_turned_away(reply);
        take_in(me, reply, got);
        if (rc) {
            lost(me);
            return rc;
        }
    }
    for (unsigned i = 0; i < want; i++) fds[i] = reply->status ? -1 : got[i];
    for (unsigned i = reply->status ? 0 : want; i < XI_WIRE_FDS; i++)
        if (got[i] >= 0) close(got[i]);
    if (reply->status == 0) return 0;
    if (reply->status > 0 || reply->status < XI_E_STALE) return xi_fail(XI_E_BROKER, "the broker answered nonsense");
    return xi_fail(reply->status, "%s", reply->text[0] ? reply->text : "refused by the broker");
}

int xi_control_exchange(struct xi_interp *me, struct xi_request *request, struct xi_reply *reply, int *fds,
                        unsigned want) {
    return exchange(me, request, reply, fds, want, -1, NULL);
}

/* ------------------------------------------------- starting a broker */

/* Fills paths at which xi-broker may lie: $XI_BROKER, beside this library or program, in the bin beside its folder. */
static unsigned broker_paths(char paths[4][512]) {
    unsigned n = 0;
    const char *env = getenv("XI_BROKER");
    if (env && env[0]) {
        snprintf(paths[n++], 512, "%s", env);
        return n;
    }
    Dl_info info;
    char self[512];
    if (dladdr((void *)(uintptr_t)&xi_join, &info) && info.dli_fname && realpath(info.dli_fname, self) == NULL) self[0] = 0;
    ssize_t len = self[0] ? (ssize_t)strlen(self) : readlink("/proc/self/exe", self, sizeof self - 1);
    if (len > 0) {
        self[len] = 0;
        char *slash = strrchr(self, '/');
        if (slash) *slash = 0;
        static const char *const near[] = {"%s/xi-broker", "%s/../bin/xi-broker", "%s/../../bin/xi-broker"};
        for (unsigned i = 0; i < 3; i++) {
            int w = i == 0   ? snprintf(paths[n], 512, near[0], self)
                    : i == 1 ? snprintf(paths[n], 512, near[1], self)
                             : snprintf(paths[n], 512, near[2], self);
            if (w > 0 && w < 512 && access(paths[n], X_OK) == 0) n++;
        }
    }
    snprintf(paths[n++], 512, "xi-broker"); /* on $PATH */
    return n;
}

static int spawn_broker(const char *ns, int ready, pid_t *pid, char *tried, size_t tried_size) {
    char paths[4][512], ns_copy[32], fd_text[8];
    snprintf(ns_copy, sizeof ns_copy, "%s", ns);
    snprintf(fd_text, sizeof fd_text, "%d", READY_FD);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ready, READY_FD);
    posix_spawn_file_actions_addclosefrom_np(&actions, READY_FD + 1); /* the host's descriptors are not the broker's */
    posix_spawnattr_init(&attr);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    int err = ENOENT;
    unsigned n = broker_paths(paths);
    tried[0] = 0;
    for (unsigned i = 0; i < n && err; i++) {
        char *argv[] = {paths[i], "--namespace", ns_copy, "--auto", "--ready-fd", fd_text, NULL};
        err = posix_spawnp(pid, paths[i], &actions, &attr, argv, environ);
        if (err) snprintf(tried, tried_size, "%.200s: %s", paths[i], strerror(err));
    }
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    return err ? XI_E_BROKER : 0;
}

/* Reads what the new broker says of itself: "ready", or "busy" when another was faster. Both are good. */
static int await_ready(int fd, char *said, size_t size) {
    size_t n = 0;
    said[0] = 0;
    int64_t until = xi_now() + PATIENCE_NS;
    while (n + 1 < size) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = until - xi_now();
        int rc = left > 0 ? poll(&p, 1, (int)(left / 1000000) + 1) : 0;
        if (rc < 0 && errno == EINTR) continue;
        if (rc < 0) { /* it may come up nevertheless */
            snprintf(said, size, "cannot wait for it: %s", strerror(errno));
            return XI_E_NOMEM;
        }
        if (rc == 0) break;
        ssize_t got = read(fd, said + n, size - 1 - n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        n += (size_t)got;
        if (memchr(said, '\n', n)) break;
    }
    said[n] = 0;
    if (strncmp(said, "ready", 5) == 0 || strncmp(said, "busy", 4) == 0) return 0;
    said[strcspn(said, "\n")] = 0;
    int code = XI_E_BROKER, used = 0; /* "error CODE SENTENCE", or a sentence alone */
    if (sscanf(said, "error %d %n", &code, &used) >= 1 && used > 0) memmove(said, said + used, strlen(said + used) + 1);
    return code < 0 && code >= XI_E_LEFT ? code : XI_E_BROKER;
}

static int start_broker(struct xi_interp *me) {
    int ends[2];
    char said[420], tried[300];
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC) != 0) return xi_fail_errno(errno, "cannot start a broker");
    int rc = spawn_broker(me->place.ns, ends[1], &pid, tried, sizeof tried);
    close(ends[1]);
    if (rc) {
        close(ends[0]);
        return xi_fail(XI_E_BROKER, "no broker runs for namespace \"%s\" and xi-broker cannot be started (%s): install "
                       "it, or name it in XI_BROKER", me->place.text, tried);
    }
    rc = await_ready(ends[0], said, sizeof said);
    close(ends[0]);
    (void)waitpid(pid, NULL, WNOHANG); /* it goes on by itself; what started it has ended */
    if (rc) return xi_fail(rc, "the broker of namespace \"%s\" did not come up: %s", me->place.text,
                           said[0] ? said : "it ended without a word; run xi broker to see why");
    return 0;
}

static int connect_once(struct xi_interp *me) {
    int fd, rc = xi_broker_connect(&me->place, &fd);
    if (rc == 0) {
        lost(me); /* one that answered nonsense is there still */
        me->control.connection++;
        me->control.given.told = 0;
        atomic_store(&me->control.fd, fd);
    }
    return rc;
}

static int connect_or_start(struct xi_interp *me) {
    int64_t until = xi_now() + PATIENCE_NS;
    for (int wait_ms = 1;; wait_ms = wait_ms < 50 ? wait_ms * 2 : 50) {
        int rc = connect_once(me);
        if (rc != XI_E_AGAIN) return rc;
        if (me->place.foreign)
            return xi_fail(XI_E_BROKER, "user %u serves no open namespace \"%s\": they start it with xi broker -n %s --open-to "
                           "..., and XI_OPEN_DIR, if set, has to be the same for both", (unsigned)me->place.uid, me->place.ns,
                           me->place.ns);
        if (me->flags & XI_JOIN_NO_START)
            return xi_fail(XI_E_BROKER, "no broker runs for namespace \"%s\": start one with: xi broker -n %s", me->place.text, me->place.text);
        if (xi_now() > until)
            return xi_fail(XI_E_BROKER, "a broker of namespace \"%s\" holds its lock but does not listen; see xi doctor", me->place.text);
        rc = start_broker(me);
        if (rc) return rc;
        /* "busy": another broker holds the lock and is about to listen, or to leave. There is no event for either; to look costs
         * little, to start another does not. */
        for (int i = 0; i < wait_ms; i++) {
            if (connect_once(me) == 0) return 0;
            (void)poll(NULL, 0, 1);
        }
    }
}

static int declare(struct xi_interp *me) {
    struct xi_request req;
    struct xi_reply reply;
    for (size_t i = 0; i < me->refs_count; i++)
        for (uint32_t k = 0; k < me->refs[i].count; k++) {
            xi_request_init(&req, XI_OP_REF);
            req.a = (uint64_t)me->refs[i].id;
            req.c = XI_WIRE_ADOPT;
            int rc = xi_control_exchange(me, &req, &reply, NULL, 0);
            if (rc == XI_E_BROKER || rc == XI_E_INTR) return rc; /* NOENT: it died meanwhile */
        }
    return xi_declare_channels(me);
}

/* Without waiting: true if it was sent. */
static bool post(struct xi_interp *me, struct xi_request *request) {
    int fd = atomic_load(&me->control.fd);
    if (fd < 0) return false;
    request->serial = POSTED;
    (void)take_all_in(me, fd);
    return send(fd, request, sizeof *request, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof *request;
}

/* Says what was given back and this broker was not told; what cannot be said now is the next time. */
static void tell_given(struct xi_interp *me) {
    struct xi_given *g = &me->control.given;
    struct xi_request req;
    xi_request_init(&req, XI_OP_DROP);
    while (g->told < g->count) {
        req.a = g->segment[g->told];
        if (!post(me, &req)) return;
        g->told++; /* answers that were taken in before have moved this and what it counts alike */
    }
}

int xi_control_connect(struct xi_interp *me, bool first) {
    int rc = connect_or_start(me);
    if (rc || first) return rc;
    struct xi_request req;
    struct xi_reply reply;
    xi_request_init(&req, XI_OP_JOIN);
    req.a = me->flags;
    req.b = (uint64_t)me->id;
    memcpy(req.name, me->name, sizeof me->name);
    memcpy(req.text, me->language, sizeof me->language);
    rc = xi_control_exchange(me, &req, &reply, NULL, 0);
    if (rc == 0 && (reply.a != (uint64_t)me->id || reply.b != me->slot))
        rc = xi_fail(XI_E_BROKER, "the new broker of namespace \"%s\" does not know this interpreter", me->place.text);
    if (rc == 0) rc = declare(me);
    if (rc && rc != XI_E_INTR) {
        lost(me);
        if (rc == XI_E_NOENT || rc == XI_E_MISMATCH) { /* a namespace made anew: ours is no more */
            atomic_store(&me->ending, XI_E_BROKER);
            return xi_fail(XI_E_BROKER, "the namespace \"%s\" was removed; leave and join again", me->place.text);
        }
    }
    if (rc == 0) tell_given(me);
    return rc;
}

static int usable(struct xi_interp *me) {
    if (atomic_load(&me->ending) == XI_E_BROKER || atomic_load(&me->left))
        return xi_fail(XI_E_BROKER, "the namespace \"%s\" was shut down; leave and join again", me->place.text);
    if (atomic_load(&me->control.fd) < 0) return xi_control_connect(me, false);
    tell_given(me);
    return 0;
}

int xi_control_call(struct xi_interp *me, struct xi_request *request, struct xi_reply *reply, int *fds, unsigned want) {
    return xi_control_call_noted(me, request, reply, fds, want, NULL, NULL);
}

int xi_control_call_noted(struct xi_interp *me, struct xi_request *request, struct xi_reply *reply, int *fds, unsigned want,
                          void (*note)(void *arg), void *arg) {
    if (!xi_alive(me)) return xi_fail_forked();
    for (unsigned i = 0; i < want; i++) fds[i] = -1;
    pthread_mutex_lock(&me->control.mutex);
    int rc = XI_E_BROKER;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) { /* a broker may die under a request: the next one gets it */
        rc = usable(me);
        if (rc == 0) rc = xi_control_exchange(me, request, reply, fds, want);
        /* The one that died may have done it before it could say so. */
        if (rc == XI_E_NOENT && attempt > 0 && request->op == XI_OP_REMOVE) rc = 0;
        if (rc != XI_E_BROKER || atomic_load(&me->ending) == XI_E_BROKER) break;
    }
    if (rc == 0 && note) note(arg);
    pthread_mutex_unlock(&me->control.mutex);
    return rc;
}

/*
 * Not asked again where the connection ends over it: the next one is not told of what `before` has forgotten, and a request
 * to undo that once more would undo another's.
 */
void xi_control_undo(struct xi_interp *me, struct xi_request *request, struct xi_around around) {
    struct xi_reply reply;
    int rc = XI_E_BROKER;
    pthread_mutex_lock(&me->control.mutex);
    bool counted = atomic_load(&me->control.fd) >= 0 && (!around.connection || around.connection == me->control.connection);
    do_once(&around.before, around.arg);
    if (counted) rc = exchange(me, request, &reply, NULL, 0, -1, &around);
    do_once(&around.meanwhile, around.arg);
    /* What is left is declared now, so that nobody waits for that: tried as often as a call is. */
    for (int attempt = 0; rc == XI_E_BROKER && attempt < ATTEMPTS; attempt++) rc = usable(me);
    pthread_mutex_unlock(&me->control.mutex);
}

uint32_t xi_control_number(struct xi_interp *me) {
    uint32_t number = atomic_exchange(&me->control.unused, 0);
    while (!number) number = atomic_fetch_add(&me->control.numbers, 1) + 1;
    return number;
}

void xi_control_number_end(struct xi_interp *me, uint32_t number, int rc) {
    uint32_t none = 0; /* who asks next goes on with it; of two that are left over one is enough */
    if (rc) (void)atomic_compare_exchange_strong(&me->control.unused, &none, number);
}

static bool lock_until(pthread_mutex_t *mutex, int64_t until) {
#if defined(__SANITIZE_THREAD__) /* which does not know pthread_mutex_clocklock */
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    int64_t at = t.tv_sec * 1000000000ll + t.tv_nsec + (until - xi_now());
    t = (struct timespec){at / 1000000000, at % 1000000000};
    return pthread_mutex_timedlock(mutex, &t) == 0;
#else
    struct timespec t = {until / 1000000000, until % 1000000000};
    return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &t) == 0;
#endif
}

int xi_control_ask(struct xi_interp *me, struct xi_request *request, struct xi_reply *reply, int *fds, unsigned want,
                   int64_t patience) {
    if (!xi_alive(me)) return xi_fail_forked();
    for (unsigned i = 0; i < want; i++) fds[i] = -1;
    int64_t until = xi_now() + patience;
    if (!lock_until(&me->control.mutex, until)) return XI_E_TIMEOUT;
    int rc = usable(me);
    if (rc == 0) rc = exchange(me, request, reply, fds, want, until, NULL);
    pthread_mutex_unlock(&me->control.mutex);
    return rc;
}

bool xi_control_post(struct xi_interp *me, struct xi_request *request) {
    if (pthread_mutex_trylock(&me->control.mutex) != 0) return false;
    bool sent = post(me, request);
    pthread_mutex_unlock(&me->control.mutex);
    return sent;
}

/* Room for one more. */
static bool given_reserve(struct xi_given *g) {
    if (g->count < g->capacity) return true;
    size_t capacity = g->capacity ? g->capacity * 2 : 8;
    uint32_t *segment = realloc(g->segment, capacity * sizeof *segment);
    if (!segment) return false;
    g->segment = segment;
    g->capacity = capacity;
    return true;
}

bool xi_control_give_back(struct xi_interp *me, uint32_t segment, bool wait) {
    struct xi_given *g = &me->control.given;
    if (wait) pthread_mutex_lock(&me->control.mutex);
    else if (pthread_mutex_trylock(&me->control.mutex) != 0) return false;
    bool room = given_reserve(g);
    if (room) {
        g->segment[g->count++] = segment;
        tell_given(me);
    }
    pthread_mutex_unlock(&me->control.mutex);
    return room;
}

void xi_control_drain(struct xi_interp *me) {
    if (pthread_mutex_trylock(&me->control.mutex) != 0) return; /* whoever has it reads events too */
    int fd = atomic_load(&me->control.fd);
    int rc = fd >= 0 ? take_all_in(me, fd) : 0;
    if (fd >= 0 && rc != -EAGAIN && rc != -EINTR) lost(me);
    if (atomic_load(&me->control.fd) < 0) { /* what it could not do, the next look tries again */
        (void)usable(me);
        atomic_store(&me->control.again, xi_now() + XI_LOOK_NS);
    }
    pthread_mutex_unlock(&me->control.mutex);
}

bool xi_control_overdue(struct xi_interp *me) {
    return atomic_load(&me->control.fd) < 0 && atomic_load(&me->ending) != XI_E_BROKER && !atomic_load(&me->left) &&
           xi_now() >= atomic_load(&me->control.again);
}

void xi_control_close(struct xi_interp *me) { lost(me); }
