/* SPDX-License-Identifier: MIT */
/* For fuzzers that need a namespace: one of their own, in a folder that is removed at the end, with the broker built beside. */
#ifndef XI_FUZZ_WORLD_H
#define XI_FUZZ_WORLD_H

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char fuzz_folder[] = "/tmp/xi.fuzz.XXXXXX";

static void fuzz_world_end(void) {
    char command[100];
    snprintf(command, sizeof command, "rm -rf -- %s", fuzz_folder);
    if (system(command) != 0) fprintf(stderr, "%s could not be removed\n", fuzz_folder);
}

static inline void fuzz_world_begin(char *ns, size_t size) {
    char exe[PATH_MAX - 32], broker[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n < 0 || !mkdtemp(fuzz_folder)) abort();
    exe[n] = 0;
    snprintf(broker, sizeof broker, "%s/../bin/xi-broker", dirname(exe));
    setenv("XI_BROKER", broker, 0);
    setenv("XI_RUNTIME_DIR", fuzz_folder, 1);
    setenv("XI_LINGER", "1", 1);
    snprintf(ns, size, "fuzz.%d", (int)getpid());
    atexit(fuzz_world_end);
}

#endif
