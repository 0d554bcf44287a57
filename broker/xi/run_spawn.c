/* SPDX-License-Identifier: MIT */
/*
 * Starting one process of `xi run`: a process group of its own, so that its own
 * children hear the signals too; pipes for its output; the death of xi is its
 * own. A failed exec comes back through a pipe that exec closes.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run.h"
#include "xi.h"

struct pipes {
    int out[2], err[2], failed[2]; /* read, write */
};

static void close_all(struct pipes *p) {
    int *fds = (int *)p;
    for (size_t i = 0; i < sizeof *p / sizeof *fds; i++)
        if (fds[i] >= 0) close(fds[i]);
}

static bool open_all(struct pipes *p) {
    *p = (struct pipes){{-1, -1}, {-1, -1}, {-1, -1}};
    if (pipe2(p->out, O_CLOEXEC) == 0 && pipe2(p->err, O_CLOEXEC) == 0 && pipe2(p->failed, O_CLOEXEC) == 0 &&
        fcntl(p->out[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(p->err[0], F_SETFL, O_NONBLOCK) == 0)
        return true;
    int err = errno;
    close_all(p);
    errno = err;
    return false;
}

static void set_environment(const struct run *r, size_t rank) {
    char number[24];
    setenv("XI_NAMESPACE", r->ns, 1);
    snprintf(number, sizeof number, "%zu", rank);
    setenv("XI_RANK", number, 1);
    snprintf(number, sizeof number, "%zu", r->count);
    setenv("XI_SIZE", number, 1);
}

/* In the child; does not return. */
static void become(const struct run *r, size_t rank, const struct pipes *p, pid_t parent) {
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    bool good = setpgid(0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && null >= 0 &&
                dup2(null, STDIN_FILENO) >= 0 && dup2(p->out[1], STDOUT_FILENO) >= 0 &&
                dup2(p->err[1], STDERR_FILENO) >= 0;
    if (getppid() != parent) _exit(1); /* it died before PR_SET_PDEATHSIG */
    if (good) {
        set_environment(r, rank);
        signal(SIGPIPE, SIG_DFL);
        sigprocmask(SIG_SETMASK, &r->old_mask, NULL);
        execvp(r->command[0], r->command);
    }
    int err = errno;
    while (write(p->failed[1], &err, sizeof err) < 0 && errno == EINTR) {}
    _exit(126);
}

/* 0 once exec has succeeded, else its errno. */
static int exec_result(int fd) {
    int err = 0;
    ssize_t n;
    do n = read(fd, &err, sizeof err);
    while (n < 0 && errno == EINTR);
    return n == sizeof err ? err : 0;
}

bool run_spawn(struct run *r, size_t rank, int *status) {
    struct child *c = &r->children[rank];
    struct pipes p;
    *status = XI_EXIT_FAILED;
    if (!open_all(&p)) {
        say("cannot make pipes for process %zu: %s; raise ulimit -n, or run fewer", rank, strerror(errno));
        return false;
    }
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) become(r, rank, &p, parent);
    int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1, err = errno;
    if (pidfd < 0) {
        say("cannot start process %zu: %s; see ulimit -u and -n", rank, strerror(err));
        if (pid > 0) kill(pid, SIGKILL), waitpid(pid, NULL, 0);
        close_all(&p);
        return false;
    }
    setpgid(pid, pid); /* whoever of us comes first; it fails if the child has done it and exec'ed */
    close(p.out[1]);
    close(p.err[1]);
    close(p.failed[1]);
    err = exec_result(p.failed[0]);
    close(p.failed[0]);
    if (err) {
        say("cannot run %s: %s", r->command[0], strerror(err));
        *status = err == ENOENT ? 127 : 126;
        waitpid(pid, NULL, 0);
        close(pidfd);
        close(p.out[0]);
        close(p.err[0]);
        return false;
    }
    *c = (struct child){.pid = pid, .pidfd = pidfd, .stream = {{.fd = p.out[0]}, {.fd = p.err[0]}}};
    return true;
}
