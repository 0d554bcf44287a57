/* SPDX-License-Identifier: MIT */
/*
 * Processes of other users, for tests that run as root: numbers are enough, no
 * accounts are needed. Each has a runtime folder of its own in a place that all
 * can reach, where the broker's program lies too (the build may be out of reach).
 */
#ifndef XI_TEST_USERS_H
#define XI_TEST_USERS_H

#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "harness.h"

struct person {
    uid_t uid;
    gid_t group; /* beside the one with the number of the user; 0: none */
};
static const struct person alice = {61001, 0}, bob = {61002, 0}, carol = {61003, 0}, dave = {61005, 61050}, mallory = {61004, 0};

static char place[64]; /* what all can reach */

static inline void skip_unless_root(void) {
    if (geteuid() == 0) return;
    fprintf(stderr, "skipped: only root can make processes of other users\n");
    exit(77);
}

static inline void copy_program(const char *from, const char *to) {
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    expect(in >= 0 && out >= 0, "cannot copy %s to %s: %s", from, to, strerror(errno));
    char buffer[65536];
    ssize_t n;
    while ((n = read(in, buffer, sizeof buffer)) > 0) expect(write(out, buffer, (size_t)n) == n, "%s", strerror(errno));
    must_sys(fchmod(out, 0755));
    close(in);
    close(out);
}

static inline void make_place(void) {
    char path[128];
    const char *program = getenv("XI_BROKER");
    expect(program && program[0], "XI_BROKER names no program");
    snprintf(place, sizeof place, "/tmp/xi-users.XXXXXX");
    expect(mkdtemp(place) != NULL, "mkdtemp: %s", strerror(errno));
    must_sys(chmod(place, 01777));
    snprintf(path, sizeof path, "%s/xi-broker", place);
    copy_program(program, path);
    setenv("XI_BROKER", path, 1);
    setenv("XI_OPEN_DIR", place, 1);
}

/* What still runs the program that lies in the place, after a test that failed. */
static inline void kill_strays(void) {
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc && (e = readdir(proc));) {
        char path[300], exe[256];
        pid_t pid = (pid_t)atoi(e->d_name);
        snprintf(path, sizeof path, "/proc/%s/exe", e->d_name);
        ssize_t n = pid > 0 ? readlink(path, exe, sizeof exe - 1) : -1;
        if (n > 0 && strncmp(exe, place, strlen(place)) == 0) (void)kill(pid, SIGKILL);
    }
    if (proc) closedir(proc);
}

/* Makes the place, runs `body` in it, and removes the place however that ends. The status of the whole test. */
static inline int run_in_place(body_fn body) {
    char command[128];
    skip_unless_root();
    make_place();
    int status = reap(spawn(body, NULL));
    kill_strays();
    snprintf(command, sizeof command, "rm -rf -- '%s'", place);
    bool removed = system(command) == 0;
    if (!removed) fprintf(stderr, "%s is left over\n", place);
    return WIFEXITED(status) && removed ? WEXITSTATUS(status) : 1;
}

/* The rest of this process's life as somebody else. */
static inline void become(const struct person *who) {
    char dir[128];
    snprintf(dir, sizeof dir, "%s/run-%u", place, (unsigned)who->uid);
    setenv("XI_RUNTIME_DIR", dir, 1);
    must_sys(setgroups(who->group ? 1 : 0, &who->group));
    must_sys(setresgid(who->uid, who->uid, who->uid));
    must_sys(setresuid(who->uid, who->uid, who->uid));
    must_sys(prctl(PR_SET_DUMPABLE, 1)); /* as after an exec: else its own /proc/self/fd were closed to it */
}

static inline pid_t spawn_as(const struct person *who, body_fn body) {
    fflush(NULL);
    pid_t pid = fork();
    must_sys(pid);
    if (pid == 0) {
        must_sys(prctl(PR_SET_PDEATHSIG, SIGKILL));
        become(who);
        body(NULL);
        exit(0);
    }
    return pid;
}
static inline void run_as(const struct person *who, body_fn body, const char *what) { reap_ok(spawn_as(who, body), what); }

/* A broker of that user; what it says when it is ready, or is not, goes into `said`. */
static inline pid_t start_broker_as(const struct person *who, const char *ns, const char *open_to, char said[512]) {
    int ends[2];
    must_sys(pipe(ends));
    fflush(NULL);
    pid_t pid = fork();
    must_sys(pid);
    if (pid == 0) {
        char fd[12];
        close(ends[0]);
        become(who);
        must_sys(prctl(PR_SET_PDEATHSIG, SIGKILL));
        snprintf(fd, sizeof fd, "%d", ends[1]);
        execl(getenv("XI_BROKER"), "xi-broker", "-n", ns, "--ready-fd", fd, open_to ? "--open-to" : NULL, open_to, NULL);
        fail("cannot run %s: %s", getenv("XI_BROKER"), strerror(errno));
    }
    close(ends[1]);
    size_t n = 0;
    ssize_t got;
    while (n < 511 && (got = read(ends[0], said + n, 511 - n)) > 0) n += (size_t)got;
    said[n] = 0;
    said[strcspn(said, "\n")] = 0;
    close(ends[0]);
    return pid;
}

/* Alice's namespace "lab", which these may join. */
static inline pid_t open_lab(const char *open_to) {
    char said[512];
    pid_t broker = start_broker_as(&alice, "lab", open_to, said);
    expect(strcmp(said, "ready") == 0, "%s", said);
    return broker;
}

static inline void stop_broker(pid_t pid) {
    must_sys(kill(pid, SIGTERM));
    reap_ok(pid, "the broker");
}

#endif
