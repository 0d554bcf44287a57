/* SPDX-License-Identifier: MIT */
/*
 * Single steps. Who is stepped is a child that asked to be traced, so it has T's
 * code at T's addresses: what instruction comes next is read in T's own memory.
 */
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include "step.h"

#if !defined(__x86_64__)
#error "single steps, and what a system call looks like, are written for x86-64"
#endif

void tracee_offer(void) {
    must_sys(prctl(PR_SET_PDEATHSIG, SIGKILL));
    must_sys(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}

static int signal_of(int status) {
    expect(WIFSTOPPED(status), "the stepped process ended: %s %d", WIFSIGNALED(status) ? "signal" : "status",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return WSTOPSIG(status);
}

/* The signal at which it stopped. */
static int stopped_at(pid_t pid) {
    int status;
    while (waitpid(pid, &status, __WALL) < 0) expect(errno == EINTR, "waitpid: %s", strerror(errno));
    return signal_of(status);
}

static bool is_asleep(pid_t pid) {
    char path[40], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    expect(fd >= 0, "process %d is gone", (int)pid);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    expect(n > 0, "%s cannot be read", path);
    text[n] = 0;
    const char *state = strrchr(text, ')');
    return state && state[2] == 'S';
}

/* The same for a call in which it may fall asleep: 0 if it has. */
static int stopped_or_asleep(pid_t pid) {
    int status;
    for (;;) {
        pid_t got = waitpid(pid, &status, __WALL | WNOHANG);
        expect(got >= 0 || errno == EINTR, "waitpid: %s", strerror(errno));
        if (got == pid) return signal_of(status);
        if (is_asleep(pid)) return 0;
    }
}

void tracer_attach(struct tracee *t, pid_t pid) {
    *t = (struct tracee){.pid = pid};
    expect(stopped_at(pid) == SIGSTOP, "another signal came first");
    must_sys(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(uintptr_t)PTRACE_O_EXITKILL));
}

/* True if `at` is in code that T has as well: whatever was loaded before the fork. */
static bool is_code(uint64_t at) {
    static struct { uint64_t from, to; } known[64];
    static unsigned count;
    if (!count) {
        char line[512], access[5];
        unsigned long from, to;
        FILE *maps = fopen("/proc/self/maps", "re");
        expect(maps != NULL, "/proc/self/maps: %s", strerror(errno));
        while (fgets(line, sizeof line, maps) && count < 64)
            if (sscanf(line, "%lx-%lx %4s", &from, &to, access) == 3 && access[2] == 'x' && access[0] == 'r')
                known[count].from = from, known[count++].to = to;
        fclose(maps);
    }
    for (unsigned i = 0; i < count; i++)
        if (at >= known[i].from && at + 2 <= known[i].to) return true;
    return false;
}

static bool at_system_call(pid_t pid) {
    errno = 0;
    long at = ptrace(PTRACE_PEEKUSER, pid, (void *)offsetof(struct user_regs_struct, rip), NULL);
    expect(errno == 0, "ptrace: %s", strerror(errno));
    const uint8_t *code = (const uint8_t *)(uintptr_t)at;
    return is_code((uint64_t)at) && code[0] == 0x0f && code[1] == 0x05;
}

/* (Asked for no bytes the kernel says whether it knows the request.) */
bool tracer_refuse_memory(struct tracee *t, int error) {
    struct user_regs_struct r;
    if (t->under_way || !at_system_call(t->pid)) return false;
    must_sys(ptrace(PTRACE_GETREGS, t->pid, NULL, &r));
    if (r.rax != SYS_madvise || r.rdx != MADV_POPULATE_WRITE || r.rsi == 0) return false;
    r.rax = (unsigned long long)-error;
    r.rip += 2;
    must_sys(ptrace(PTRACE_SETREGS, t->pid, NULL, &r));
    t->instructions++;
    return true;
}

enum stepped tracer_step(struct tracee *t) {
    if (!t->under_way) {
        t->at_call = at_system_call(t->pid);
        must_sys(ptrace(PTRACE_SINGLESTEP, t->pid, NULL, NULL));
        t->under_way = true;
    }
    int sig = t->at_call ? stopped_or_asleep(t->pid) : stopped_at(t->pid);
    if (sig == 0) return STEPPED_TO_SLEEP;
    t->under_way = false;
    if (sig == SIGSTOP) return STEPPED_TO_END;
    expect(sig == SIGTRAP, "signal %d stopped the stepped process", sig);
    t->instructions++;
    return t->at_call ? STEPPED_CALL : STEPPED;
}

/* It has one thread, which sleeps only when it waits for events. Twice, lest it was about to be woken. */
void tracer_settle(pid_t pid) {
    for (int asleep = 0, looks = 0; asleep < 2; looks++) {
        expect(looks < 1000000, "process %d has no rest", (int)pid);
        asleep = is_asleep(pid) ? asleep + 1 : 0;
        sched_yield();
    }
}

bool tracer_works(void) {
    fflush(NULL);
    pid_t pid = fork();
    must_sys(pid);
    if (pid == 0) _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0);
    return reap(pid) == 0;
}
