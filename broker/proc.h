/* SPDX-License-Identifier: MIT */
/* What the kernel says about processes. */
#ifndef XI_BROKER_PROC_H
#define XI_BROKER_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Field 22 of /proc/PID/stat: together with the pid it names one process for ever. False: no such process. */
bool proc_start(int pid, uint64_t *start);
/* A pidfd of the process with this start time; -1 if it is gone, or the pid is another's by now; errno says which. */
int proc_open(int pid, uint64_t start);
/* The peer of a connected socket, exactly (SO_PEERPIDFD), or by its pid on kernels before 6.5. -1: it is gone. */
int proc_open_peer(int socket, int pid, uint64_t *start);
bool proc_has_died(int pidfd);
/* Whether it has this file mapped. True also where that cannot be told: another user's process, or one that hides it. */
bool proc_may_map(int pid, dev_t device, ino_t inode);
/* How it died, for people: "was killed by SIGKILL", "exited with status 1", or just "is gone". */
void proc_fate(int pid, int pidfd, char *out, size_t size);

#endif
