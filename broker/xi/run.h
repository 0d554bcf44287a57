/* SPDX-License-Identifier: MIT */
/* What the files of `xi run` share. */
#ifndef XI_COMMAND_RUN_H
#define XI_COMMAND_RUN_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "json.h"

/* Standard output or error of one process: what came after the last newline waits in `partial`. */
struct stream {
    int fd; /* -1: at its end */
    struct json_out partial;
};

struct child {
    pid_t pid;
    int pidfd;              /* -1: ended, but not reaped: its process group's number stays taken */
    struct stream stream[2];
    int status;             /* as the shell has it: 128 + N for signal N */
};

struct run {
    const char *ns;
    bool own_ns, keep_going;
    int64_t grace; /* ns between SIGTERM and SIGKILL */
    char **command;
    struct child *children;
    size_t count, alive;
    int signals;          /* signalfd */
    sigset_t old_mask;
    int stop_signal;      /* from the user; 0: none */
    bool stopping;        /* everybody was told to end */
    bool killed;
    int64_t kill_at;      /* CLOCK_MONOTONIC ns when stragglers are killed; 0: never */
    int worst;
    bool output_broken;
    bool color[2];
};

/* run_spawn.c: starts rank `rank`; false after a message (*status: 127 not found, 126 not executable, 1). */
bool run_spawn(struct run *r, size_t rank, int *status);

/* run_output.c: takes what is there on one stream and writes its complete lines. */
void run_read(struct run *r, size_t rank, size_t which);
/* After the end of all: what is left on every stream, the last partial lines too. */
void run_drain(struct run *r);
void run_streams_free(struct run *r);

/* run.c: acts on a signal that the signalfd has; called while output is stuck, too. */
void run_signals(struct run *r);
/* Tells everybody to end: `signal` to all process groups. */
void run_stop(struct run *r, int signal);

/* run_namespace.c: counts what was never received and ends the namespace that was made for this run. */
void run_end_namespace(const char *ns);

#endif
