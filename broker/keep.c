/* SPDX-License-Identifier: MIT */
/* Both ends of the line between a broker and its keeper; the header has the model. */
#include "keep.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "log.h"
#include "loop.h"
#include "pass.h"
#include "store.h"
#include "table.h"
#include "want.h"

#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif

#define SHORT_LIFE_NS ((int64_t)1000000000) /* ended by itself sooner than this, three times in a row: it is not to be helped */
#define SHORT_LIVES 3
#define PATIENCE_NS ((int64_t)500000000) /* with a keeper that takes nothing */

struct note {
    uint32_t number;
    uint32_t drop;
};

/* ---- the broker's end */

static struct {
    int socket; /* -1: nobody keeps anything */
    struct kept *found;
    uint32_t count;
} keep = {.socket = -1};

const struct kept *keep_found(uint32_t *count) {
    if (store_keeps()) return store_found(count);
    *count = keep.count;
    return keep.found;
}

static void lose_keeper(void) {
    log_line("the process that keeps this namespace over its broker's death is gone or stopped (%s): when this broker is killed "
             "now, the namespace ends", strerror(errno));
    close(keep.socket);
    keep.socket = -1;
}

static void tell(const struct note *note, int fd) {
    if (keep.socket < 0) return;
    /* It waits for SNDTIMEO at most; without memory it does not wait, so it is asked again for as long as that. */
    int64_t until = loop_now() + PATIENCE_NS;
    while (pass(keep.socket, NULL, 0, note, sizeof *note, &fd, fd >= 0, 0) != (ssize_t)sizeof *note) {
        if ((errno != EAGAIN && errno != ENOMEM && errno != ENOBUFS) || loop_now() >= until) {
            lose_keeper();
            return;
        }
        loop_rest();
    }
}

void keep_hold(uint32_t number, int fd) {
    if (store_keeps())
        store_hold(number, fd);
    else
        tell(&(struct note){number, 0}, fd);
}

void keep_drop(uint32_t number) {
    if (store_keeps())
        store_drop(number);
    else
        tell(&(struct note){number, 1}, -1);
}

bool keep_settle(void) { return store_settle(); }

/* ---- the keeper's end: segments as number + 1 to descriptor */

static void drop(struct table *held, uint32_t number) {
    uint64_t *fd = table_find(held, (uint64_t)number + 1);
    if (!fd) return;
    close((int)*fd);
    table_drop(held, (uint64_t)number + 1);
}

/* Takes one note. False: there is none now, or no more. */
static bool take_note(int socket, struct table *held, bool *ended) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct note note;
    struct iovec iov = {&note, sizeof note};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    int64_t until = loop_now() + PATIENCE_NS;
    ssize_t n;
    while ((n = recvmsg(socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0 && errno != EAGAIN && loop_now() < until)
        if (errno != EINTR) loop_rest(); /* no memory for it just now. Were the line broken, it would end with the next look */
    *ended = n == 0;
    if (n != (ssize_t)sizeof note) return false;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    int fd = -1;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(c), sizeof fd);
    drop(held, note.number);
    if (!note.drop && fd >= 0) *table_put(held, (uint64_t)note.number + 1) = (uint64_t)fd;
    return true;
}

/* All that come mean the end. A child that is dead already cannot do what they say: the next one is told again. */
static void forward(int signal_fd, pid_t child, int *told) {
    struct signalfd_siginfo info;
    if (read(signal_fd, &info, sizeof info) != (ssize_t)sizeof info) return; /* none: it does not block */
    *told = (int)info.ssi_signo;
    (void)kill(child, *told);
}

/* Until the child has ended: its wait status. */
static int watch(pid_t child, int socket, int signal_fd, struct table *held, int *told) {
    int pidfd = (int)syscall(__NR_pidfd_open, child, 0), status = 0;
    bool ended = false;
    for (;;) {
        struct pollfd p[3] = {{ended ? -1 : socket, POLLIN, 0}, {signal_fd, POLLIN, 0}, {pidfd, POLLIN, 0}};
        if (poll(p, 3, pidfd < 0 ? 100 : -1) < 0 && errno != EINTR) loop_rest();
        forward(signal_fd, child, told);
        while (!ended && take_note(socket, held, &ended)) continue;
        if (waitpid(child, &status, WNOHANG) == child) break;
    }
    while (!ended && take_note(socket, held, &ended)) continue; /* what it said last */
    if (pidfd >= 0) close(pidfd);
    return status;
}

static void list_found(const struct table *held) {
    uint64_t key, fd;
    keep.found = memory_or_die(NULL, held->count + 1u, sizeof *keep.found);
    for (uint32_t at = 0; table_next(held, &at, &key, &fd);)
        keep.found[keep.count++] = (struct kept){(uint32_t)(key - 1), (int)fd};
}

static pid_t start_child(int (*serve)(void *context), void *context, const struct table *held, int *socket) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -1;
    pid_t child = fork();
    if (child == 0) {
        struct timeval patience = {.tv_usec = PATIENCE_NS / 1000};
        close(ends[0]);
        keep.socket = ends[1];
        (void)setsockopt(keep.socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        list_found(held);
        exit(serve(context));
    }
    close(ends[1]);
    *socket = ends[0];
    if (child < 0) close(ends[0]);
    return child;
}

static int keep_on(int (*serve)(void *context), void (*started)(void *context), void *context, int signal_fd,
                   struct table *held) {
    for (int lives = 0, rest = 0, told = 0;;) {
        int socket, status;
        int64_t begun = loop_now();
        pid_t child = start_child(serve, context, held, &socket);
        if (child < 0) {
            log_line("cannot start a broker: %s", strerror(errno));
            return 1;
        }
        started(context);
        if (told) (void)kill(child, told); /* waits until it looks: these signals are blocked from its first instruction on */
        status = watch(child, socket, signal_fd, held, &told);
        close(socket);
        if (WIFEXITED(status) && WEXITSTATUS(status) != WANT_EXIT) return WEXITSTATUS(status);
        bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, wants = WIFEXITED(status);
        /* Until there is more; what is kept is not given up for that. Longer from time to time where lives are short. */
        rest = !wants || loop_now() - begun > 10000000ll * rest ? 0 : rest < 500 ? rest * 2 : 1000;
        if (wants && rest < 10) rest = 10;
        struct pollfd p = {signal_fd, POLLIN, 0};
        if (rest) (void)poll(&p, 1, rest);
        lives = !killed && !wants && loop_now() - begun < SHORT_LIFE_NS ? lives + 1 : 0;
        log_line("the broker (pid %d) %s%s; %s", (int)child, WIFSIGNALED(status) ? "was killed by SIG" : "ran out of memory or descriptors",
                 WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : "",
                 lives < SHORT_LIVES ? "starting another with its memory" : "and so did those before, at once: giving up");
        if (lives >= SHORT_LIVES) return 1;
    }
}

int keep_run(int (*serve)(void *context), void (*started)(void *context), void *context, int signal_fd) {
    struct table held = {0};
    uint32_t count;
    const struct kept *found = store_found(&count); /* by a manager that takes nothing */
    for (uint32_t i = 0; i < count; i++) *table_put(&held, (uint64_t)found[i].number + 1) = (uint64_t)found[i].fd;
    int status = keep_on(serve, started, context, signal_fd, &held);
    table_clear(&held);
    return status;
}
