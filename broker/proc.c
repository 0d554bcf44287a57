/* SPDX-License-Identifier: MIT */
/*
 * Processes. A pid alone proves nothing: it may be used again. A pidfd, or a
 * pid with its start time, names one process.
 */
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434 /* Linux 5.3 */
#endif

/*
 * Field `wanted` (3 and up) of /proc/PID/stat. The second, the name, may hold anything, even parentheses. Where it is not
 * to be had errno says why: ENOENT or ESRCH where there is no such process.
 */
static bool stat_field(int pid, int wanted, char *out, size_t size) {
    char path[40], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    int err = n < 0 ? errno : ESRCH;
    close(fd);
    errno = err;
    if (n <= 0) return false;
    text[n] = 0;
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < wanted; field++)
        if ((at = strchr(at, ' '))) at++;
    if (!at) return false;
    size_t length = strcspn(at, " \n");
    if (length == 0 || length >= size) return false;
    memcpy(out, at, length);
    out[length] = 0;
    return true;
}

bool proc_start(int pid, uint64_t *start) {
    char text[32];
    if (pid <= 0 || !stat_field(pid, 22, text, sizeof text)) return false;
    *start = strtoull(text, NULL, 10);
    return true;
}

int proc_open(int pid, uint64_t start) {
    uint64_t now;
    int fd = (int)syscall(__NR_pidfd_open, pid, 0);
    if (fd < 0) return -1;
    bool known = proc_start(pid, &now);
    if (known && now == start) return fd;
    int err = known ? ESRCH : errno; /* not to be able to look is no death */
    close(fd);
    errno = err;
    return -1;
}

int proc_open_peer(int socket, int pid, uint64_t *start) {
    int fd = -1;
    socklen_t n = sizeof fd;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &n) != 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) return -1;
        /* The start time is read on both sides of the opening: if it is the same, so was the process. */
        if (!proc_start(pid, start)) return -1;
        return proc_open(pid, *start);
    }
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    bool known = proc_start(pid, start);
    if (known && !proc_has_died(fd)) return fd; /* alive after the reading: what was read is its own */
    int err = known ? ESRCH : errno;
    close(fd);
    errno = err;
    return -1;
}

bool proc_has_died(int pidfd) {
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

bool proc_may_map(int pid, dev_t device, ino_t inode) {
    char path[40], *line = NULL;
    size_t size = 0;
    bool any = false, found = false;
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "re");
    if (!maps) return true;
    while (!found && getline(&line, &size, maps) > 0) {
        unsigned high, low;
        unsigned long long of;
        if (sscanf(line, "%*s %*s %*s %x:%x %llu", &high, &low, &of) != 3) continue;
        any = true;
        found = makedev(high, low) == device && of == inode;
    }
    bool whole = any && !ferror(maps);
    free(line);
    fclose(maps);
    return found || !whole;
}

/* Linux 6.15 tells the status of processes that were reaped already. Layout of struct pidfd_info, first version with
 * it. */
struct fate_info {
    uint64_t mask, cgroupid;
    uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
#define FATE_MASK_EXIT (1u << 3)
#define FATE_GET _IOWR(0xFF, 11, struct fate_info)

static bool status_of(int pid, int pidfd, int *status) {
    char text[32];
    if (stat_field(pid, 3, text, sizeof text) && text[0] == 'Z' && stat_field(pid, 52, text, sizeof text)) {
        *status = atoi(text);
        return true;
    }
    struct fate_info info = {.mask = FATE_MASK_EXIT};
    if (pidfd < 0 || ioctl(pidfd, FATE_GET, &info) != 0 || !(info.mask & FATE_MASK_EXIT)) return false;
    *status = info.exit_code;
    return true;
}

void proc_fate(int pid, int pidfd, char *out, size_t size) {
    int status;
    if (!status_of(pid, pidfd, &status)) {
        snprintf(out, size, "is gone");
    } else if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        snprintf(out, size, "was killed by %s%s", name ? "SIG" : "signal ", name ? name : "?");
    } else {
        snprintf(out, size, "exited with status %d", WEXITSTATUS(status));
    }
}
