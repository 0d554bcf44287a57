/* SPDX-License-Identifier: MIT */
/*
 * Becoming the broker of a namespace. Whoever holds flock() on RUNTIME/NS.lock
 * is its broker; the kernel drops the lock however the broker ends. The file is
 * removed by a broker that leaves, so who gets the lock looks whether the file
 * is still the one of that name, and otherwise tries again.
 */
#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "error.h"
#include "wire/names.h"

#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif

/* ---- background ---- */

static void reset_signals(void) {
    sigset_t none;
    for (int s = 1; s < NSIG; s++)
        if (s != SIGKILL && s != SIGSTOP)
            (void)signal(s, SIG_DFL); /* fails for the C library's own: they are default */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What whoever started us had open is not ours to keep open. */
static void close_others(const int *keep, unsigned count) {
    struct rlimit limit;
    int last = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536 ? (int)limit.rlim_cur : 65536;
    int top = 2;
    for (unsigned i = 0; i < count; i++)
        if (keep[i] > top) top = keep[i];
    for (int fd = 3; fd <= top; fd++) {
        bool kept = false;
        for (unsigned i = 0; i < count; i++) kept |= keep[i] == fd;
        if (!kept) close(fd);
    }
    if (close_range((unsigned)top + 1, ~0u, 0) == 0) return;
    for (int fd = top + 1; fd < last; fd++) close(fd); /* before Linux 5.9 */
}

static int redirect(int log_fd) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) return xi_fail_errno(errno, "cannot open /dev/null");
    for (int fd = 0; fd < 3; fd++)
        if (dup2(fd == 2 && log_fd >= 0 ? log_fd : null, fd) < 0) return xi_fail_errno(errno, "cannot redirect stdio");
    if (null > 2) close(null);
    return 0;
}

int start_daemonize(int keep_fd, int log_fd, int *starter) {
    *starter = (int)syscall(__NR_pidfd_open, getpid(), 0);
    pid_t pid = fork();
    if (pid < 0) return xi_fail_errno(errno, "cannot fork");
    if (pid > 0) _exit(0);
    (void)setsid(); /* fails only for a leader of a group, which a fresh child is not */
    pid = fork();   /* not the leader of the session: never gets a terminal */
    if (pid < 0) return xi_fail_errno(errno, "cannot fork");
    if (pid > 0) _exit(0);
    reset_signals();
    int rc = redirect(log_fd);
    if (rc) return rc;
    if (chdir("/") != 0) return xi_fail_errno(errno, "cannot go to /");
    close_others((int[]){keep_fd, *starter}, 2);
    return 0;
}

void start_await_end(int starter) {
    if (starter < 0) return;
    struct pollfd p = {.fd = starter, .events = POLLIN};
    while (poll(&p, 1, 1000) < 0 && errno == EINTR) continue;
    close(starter);
}

void start_raise_limits(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* with fewer it works as well, for fewer interpreters */
}

void start_leave_scheduling(void) {
    struct sched_param plain = {0};
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    /* Neither matters enough to give up over: what is not permitted stays as it is. */
    (void)sched_setscheduler(0, SCHED_OTHER, &plain);
    (void)sched_setaffinity(0, sizeof all, &all);
}

/* ---- folder, lock, socket ---- */

static int fail_with(int err, const char *what, const char *path) {
    char words[200];
    snprintf(words, sizeof words, "%s %s", what, path);
    return xi_fail_errno(err, words);
}

static int check_folder(const char *dir) {
    struct stat st;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return xi_fail(XI_E_ACCESS,
                       "cannot make the folder %s of the control sockets: %s; set XI_RUNTIME_DIR to one that can be "
                       "made",
                       dir, strerror(errno));
    if (lstat(dir, &st) != 0) return xi_fail(XI_E_SYSTEM, "cannot look at %s: %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode)) return xi_fail(XI_E_ACCESS, "%s is not a folder: remove it, or set XI_RUNTIME_DIR", dir);
    if (st.st_uid != geteuid())
        return xi_fail(XI_E_ACCESS,
                       "the folder %s belongs to user %u, not to you: set XI_RUNTIME_DIR to one of your own", dir,
                       (unsigned)st.st_uid);
    if (st.st_mode & 077)
        return xi_fail(XI_E_ACCESS, "the folder %s is open to other users (mode %04o): chmod 700 %s", dir,
                       (unsigned)st.st_mode & 07777, dir);
    return 0;
}

/* 1 if the locked file is still what its name leads to, 0 if not: a broker that left may have removed it meanwhile. */
static int still_named(int fd, const char *path) {
    struct stat mine, named;
    if (fstat(fd, &mine) != 0) return fail_with(errno, "cannot look at the lock file", path);
    if (lstat(path, &named) != 0) return errno == ENOENT ? 0 : fail_with(errno, "cannot look at the lock file", path);
    return mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
}

int start_lock(const char *ns) {
    char dir[108], path[120];
    int rc = xi_runtime_dir(dir, sizeof dir);
    if (rc == 0) rc = check_folder(dir);
    if (rc == 0) rc = xi_lock_path(path, sizeof path, ns);
    if (rc) return rc;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) return fail_with(errno, "cannot open the lock file", path);
        while ((rc = flock(fd, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR) continue;
        int err = errno, named = rc == 0 ? still_named(fd, path) : 0;
        if (named > 0) return fd;
        close(fd);
        if (named < 0) return named;
        if (rc == 0) continue;
        if (err == EWOULDBLOCK) return xi_fail(XI_E_AGAIN, "another broker serves namespace \"%s\" already", ns);
        return xi_fail(XI_E_SYSTEM, "cannot lock %s: %s", path, strerror(err));
    }
}

bool start_is_lock(const char *ns, int fd) {
    char dir[108], path[120];
    if (xi_runtime_dir(dir, sizeof dir) != 0 || check_folder(dir) != 0 || xi_lock_path(path, sizeof path, ns) != 0) return false;
    if (still_named(fd, path) != 1) return false;
    int rc;
    while ((rc = flock(fd, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR) continue;
    return rc == 0;
}

static int listen_on(const struct sockaddr_un *a, mode_t mode, bool *stale) {
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return xi_fail_errno(errno, "cannot make a socket");
    *stale = unlink(a->sun_path) == 0;
    if (bind(fd, (const struct sockaddr *)a, sizeof *a) == 0 && chmod(a->sun_path, mode) == 0 && listen(fd, 1024) == 0)
        return fd;
    int rc = fail_with(errno, "cannot listen on", a->sun_path);
    close(fd);
    return rc;
}

int start_socket(const char *ns, bool *stale) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int rc = xi_socket_path(a.sun_path, sizeof a.sun_path, ns);
    return rc ? rc : listen_on(&a, 0600, stale);
}

/* ---- for other users ---- */

/* Whoever could rename our folder could put one of their own in its place. */
static int check_parent(const char *dir) {
    char parent[108];
    struct stat st;
    const char *slash = strrchr(dir, '/');
    snprintf(parent, sizeof parent, "%.*s", slash > dir ? (int)(slash - dir) : 1, dir);
    if (stat(parent, &st) != 0) return xi_fail(XI_E_ACCESS, "cannot look at %s: %s", parent, strerror(errno));
    bool safe_owner = st.st_uid == 0 || st.st_uid == geteuid(), safe_mode = !(st.st_mode & 022) || st.st_mode & S_ISVTX;
    if (S_ISDIR(st.st_mode) && safe_owner && safe_mode) return 0;
    return xi_fail(XI_E_ACCESS,
                   "%s is no place for a folder that others rely on: it has to belong to root or to you, and be writable by "
                   "others with the sticky bit only (chmod +t); XI_OPEN_DIR names another", parent);
}

static int check_open_folder(const char *dir) {
    struct stat st;
    int rc = check_parent(dir);
    if (rc) return rc;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return xi_fail(XI_E_ACCESS, "cannot make the folder %s, through which other users are to come: %s; XI_OPEN_DIR names "
                       "another place", dir, strerror(errno));
    if (lstat(dir, &st) != 0) return xi_fail(XI_E_SYSTEM, "cannot look at %s: %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return xi_fail(XI_E_ACCESS, "%s is %s: remove it, or name another place in XI_OPEN_DIR", dir,
                       S_ISDIR(st.st_mode) ? "another user's" : "not a folder");
    if (st.st_mode & 022)
        return xi_fail(XI_E_ACCESS, "others may write into the folder %s (mode %04o): chmod 711 %s", dir,
                       (unsigned)st.st_mode & 07777, dir);
    if ((st.st_mode & 0111) != 0111 && chmod(dir, 0711) != 0)
        return xi_fail(XI_E_ACCESS, "cannot let others pass %s: %s", dir, strerror(errno));
    return 0;
}

/* The first place where there is, or can be made, a folder of ours. */
static int open_place(char *dir, size_t capacity, unsigned *which) {
    int rc = XI_E_NOENT;
    for (*which = 0; *which < XI_OPEN_PLACES; ++*which) {
        int found = xi_open_dir(dir, capacity, geteuid(), *which);
        if (found != XI_E_NOENT) rc = found ? found : check_open_folder(dir);
        if (rc == 0 || rc == XI_E_INVAL) return rc;
    }
    return rc == XI_E_NOENT ? xi_fail(rc, "there is no folder for sockets that others may reach: XI_OPEN_DIR names one") : rc;
}

/* The lock is of the runtime folder, and there may be two of those: then another broker may have been first here. */
static bool is_served(const struct sockaddr_un *a) {
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool served = fd >= 0 && (connect(fd, (const struct sockaddr *)a, sizeof *a) == 0 || errno == EAGAIN);
    if (fd >= 0) close(fd);
    return served;
}

int start_open_socket(const char *ns) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char dir[108];
    unsigned which;
    bool stale;
    int rc = open_place(dir, sizeof dir, &which);
    if (rc == 0) rc = xi_open_socket_path(a.sun_path, sizeof a.sun_path, geteuid(), ns, which);
    if (rc == 0 && is_served(&a))
        rc = xi_fail(XI_E_ACCESS, "another broker of yours, with another runtime folder, serves an open namespace \"%s\" at %s", ns,
                     a.sun_path);
    return rc ? rc : listen_on(&a, 0666, &stale);
}

/* The name is taken from the kernel; what bears it now is a socket of ours, for the lock is. */
static bool listens_at(int fd, const char *path) {
    struct sockaddr_un a = {0};
    socklen_t length = sizeof a, size = sizeof(int);
    int listens = 0, type = 0;
    struct stat st;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET &&
           getsockname(fd, (struct sockaddr *)&a, &length) == 0 && a.sun_family == AF_UNIX &&
           strncmp(a.sun_path, path, sizeof a.sun_path) == 0 && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
           st.st_uid == geteuid();
}

bool start_is_socket(const char *ns, bool open, int fd) {
    char path[108], dir[108];
    unsigned which = 0;
    if (!open) return xi_socket_path(path, sizeof path, ns) == 0 && listens_at(fd, path);
    return open_place(dir, sizeof dir, &which) == 0 &&
           xi_open_socket_path(path, sizeof path, geteuid(), ns, which) == 0 && listens_at(fd, path);
}

void start_remove_open_socket(const char *ns) {
    char path[120];
    for (unsigned which = 0; which < XI_OPEN_PLACES; which++)
        if (xi_open_socket_path(path, sizeof path, geteuid(), ns, which) == 0) unlink(path);
}

void start_remove_socket(const char *ns) {
    char path[120];
    if (xi_socket_path(path, sizeof path, ns) == 0) unlink(path);
}

void start_remove_lock(const char *ns) {
    char path[120];
    if (xi_lock_path(path, sizeof path, ns) == 0) unlink(path);
}
