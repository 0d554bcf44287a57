/* SPDX-License-Identifier: MIT */
/* The host: what the kernel offers, how much memory and how many descriptors there are, where sockets go. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "doctor.h"
#include "wire/names.h"
#include "xi.h"

#define MIB ((uint64_t)1 << 20)

/* A number in a file of /proc; negative if it is not there. */
static long long read_number(const char *path) {
    char text[64];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return -1;
    text[n] = 0;
    return atoll(text);
}

static void look_at_waiting(struct doctor *d) {
    char reason[256] = "";
    struct utsname kernel;
    if (uname(&kernel) == 0) found(d, FINDING_OK, "kernel", "%s %s", kernel.sysname, kernel.release);
    const char *forced = getenv("XI_WAIT");
    int uring = xi_probe_wait(reason, sizeof reason);
    if (uring)
        found(d, FINDING_OK, "waiting", "io_uring");
    else
        found(d, FINDING_NOTE, "waiting", "futex(2): %s", reason[0] ? reason : "io_uring cannot be used");
    if (forced && forced[0] && strcmp(forced, "auto") != 0) advise("XI_WAIT=%s is set", forced);
    long long disabled = read_number("/proc/sys/kernel/io_uring_disabled");
    if (disabled > 0) {
        found(d, FINDING_NOTE, "io_uring_disabled", "%lld: %s", disabled,
              disabled == 1 ? "for users outside the group kernel.io_uring_group" : "for everybody");
        advise("to use io_uring: sysctl kernel.io_uring_disabled=0; without it waiting costs a little more, and works");
    }
}

static void look_at_shm(struct doctor *d) {
    struct statvfs vfs;
    char size[24], left[24];
    if (statvfs("/dev/shm", &vfs) != 0) {
        found(d, FINDING_BAD, "/dev/shm", "%s", strerror(errno));
        advise("do: mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm (in a container: --shm-size=1g)");
        return;
    }
    uint64_t total = (uint64_t)vfs.f_blocks * vfs.f_frsize, unused = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    enum finding f = unused < MIB ? FINDING_BAD : unused < 64 * MIB ? FINDING_NOTE : FINDING_OK;
    if (access("/dev/shm", W_OK | X_OK) != 0) {
        found(d, FINDING_BAD, "/dev/shm", "not writable for this user: %s", strerror(errno));
        advise("do: chmod 1777 /dev/shm");
        return;
    }
    found(d, f, "/dev/shm", "%s free of %s", human_bytes(unused, left), human_bytes(total, size));
    if (f == FINDING_OK) return;
    advise("all values and channels lie there; enlarge it: mount -o remount,size=SIZE /dev/shm");
    advise("(Docker: --shm-size=1g), or remove what is in it: ls -l /dev/shm");
}

static void look_at_limit(struct doctor *d, const char *what, int resource, uint64_t least, bool bytes, const char *advice) {
    struct rlimit limit;
    char text[24];
    if (getrlimit(resource, &limit) != 0) return;
    if (limit.rlim_cur == RLIM_INFINITY) {
        found(d, FINDING_OK, what, "unlimited");
        return;
    }
    bool low = limit.rlim_cur < least;
    if (bytes)
        found(d, low ? FINDING_NOTE : FINDING_OK, what, "%s", human_bytes(limit.rlim_cur, text));
    else
        found(d, low ? FINDING_NOTE : FINDING_OK, what, "%llu", (unsigned long long)limit.rlim_cur);
    if (low) advise("%s", advice);
}

static void look_at_cpus(struct doctor *d) {
    /* 1,024 CPUs fit a cpu_set_t; a larger host refuses it with EINVAL, and then there are enough. */
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        found(d, FINDING_OK, "CPUs", "more than %d", CPU_SETSIZE);
        return;
    }
    int n = CPU_COUNT(&set);
    if (n >= 2) {
        found(d, FINDING_OK, "CPUs", "%d for this process", n);
        return;
    }
    found(d, FINDING_NOTE, "CPUs", "one for this process: waits sleep at once instead of spinning");
    advise("if the host has more: look at taskset and the cpuset of the container");
}

static void look_at_maps(struct doctor *d) {
    long long maps = read_number("/proc/sys/vm/max_map_count");
    if (maps < 0) return;
    found(d, maps < 65530 ? FINDING_NOTE : FINDING_OK, "max_map_count", "%lld", maps);
    if (maps < 65530) advise("a process needs a few mappings per channel and per peer; raise it: sysctl vm.max_map_count=65530");
}

static void look_at_runtime(struct doctor *d) {
    char dir[PATH_MAX];
    struct stat st;
    if (xi_runtime_dir(dir, sizeof dir) != 0) {
        found(d, FINDING_BAD, "runtime folder", "%s", xi_error_text(XI_E_INVAL));
        return;
    }
    if (lstat(dir, &st) != 0) {
        if (errno == ENOENT)
            found(d, FINDING_OK, "runtime folder", "%s (made when a broker first starts)", dir);
        else
            found(d, FINDING_BAD, "runtime folder", "%s: %s; set XI_RUNTIME_DIR to a folder of this user", dir, strerror(errno));
        return;
    }
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
        found(d, FINDING_BAD, "runtime folder", "%s is %s", dir, S_ISDIR(st.st_mode) ? "another user's" : "not a folder");
        advise("remove it, or set XI_RUNTIME_DIR to a folder of this user");
    } else if ((st.st_mode & 0777) != 0700) {
        found(d, FINDING_BAD, "runtime folder", "%s has mode %04o", dir, (unsigned)st.st_mode & 07777);
        advise("do: chmod 700 %s", dir);
    } else {
        found(d, FINDING_OK, "runtime folder", "%s", dir);
    }
}

static void look_at_broker_program(struct doctor *d) {
    char path[PATH_MAX];
    const char *named = getenv("XI_BROKER");
    if (named && named[0]) {
        if (access(named, X_OK) == 0) {
            found(d, FINDING_OK, "xi-broker", "%s (XI_BROKER)", named);
        } else {
            found(d, FINDING_BAD, "xi-broker", "%s, which XI_BROKER names: %s", named, strerror(errno));
            advise("correct or unset XI_BROKER");
        }
        return;
    }
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof "-broker");
    if (n > 0) {
        path[n] = 0;
        char *slash = strrchr(path, '/');
        if (slash && (size_t)(slash - path) + sizeof "/xi-broker" <= sizeof path) {
            strcpy(slash, "/xi-broker");
            if (access(path, X_OK) == 0) {
                found(d, FINDING_OK, "xi-broker", "%s", path);
                return;
            }
        }
    }
    found(d, FINDING_NOTE, "xi-broker", "not beside xi; it must be in $PATH or named by XI_BROKER");
}

void doctor_host(struct doctor *d) {
    found(d, FINDING_OK, "xi", "%s", XI_VERSION);
    look_at_waiting(d);
    look_at_cpus(d);
    look_at_shm(d);
    look_at_limit(d, "RLIMIT_MEMLOCK", RLIMIT_MEMLOCK, MIB, true,
                  "each waiting thread's io_uring takes 8 KiB of it, over all of a user's processes; raise it: ulimit -l");
    look_at_limit(d, "RLIMIT_NOFILE", RLIMIT_NOFILE, 1024, false,
                  "channels and peers take descriptors while they are mapped; raise it: ulimit -n 4096");
    look_at_maps(d);
    look_at_runtime(d);
    look_at_broker_program(d);
}
