/* SPDX-License-Identifier: MIT */
/*
 * xi broker: becomes xi-broker, the one that came with this xi if possible, so
 * that both speak the same protocol.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "xi.h"

static const char usage[] =
    "usage: xi broker [OPTIONS OF xi-broker]\n\n"
    "Runs the broker of a namespace in the foreground until it gets SIGTERM or Ctrl-C. Seldom needed: the first\n"
    "interpreter that joins a namespace starts its broker, which leaves after the last one.\n\n"
    "All options are xi-broker's; see: xi broker --help, xi-broker(1).\n\n"
    "Looked for: $XI_BROKER, xi-broker beside xi, xi-broker in $PATH.\n\n"
    "example:\n  xi broker -n lab\n";

/* PATH of xi's own folder + "/xi-broker"; false if unknown or too long. */
static bool beside(char *out, size_t capacity) {
    ssize_t n = readlink("/proc/self/exe", out, capacity);
    if (n <= 0 || (size_t)n >= capacity) return false;
    out[n] = 0;
    char *slash = strrchr(out, '/');
    if (!slash || (size_t)(slash - out) + sizeof "/xi-broker" > capacity) return false;
    strcpy(slash, "/xi-broker");
    return true;
}

static int run(int argc, char **argv) {
    (void)argc;
    char path[PATH_MAX];
    const char *named = getenv("XI_BROKER");
    static char name[] = "xi-broker";
    argv[0] = name;
    if (named && named[0]) {
        execvp(named, argv);
        say("cannot run %s, which $XI_BROKER names: %s; correct or unset it", named, strerror(errno));
        return XI_EXIT_FAILED;
    }
    if (beside(path, sizeof path)) {
        execv(path, argv);
        if (errno != ENOENT) {
            say("cannot run %s: %s", path, strerror(errno));
            return XI_EXIT_FAILED;
        }
    }
    execvp(name, argv);
    if (argv[1] && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) return print_help();
    say("cannot run xi-broker: %s; it belongs beside xi, into $PATH, or set XI_BROKER to its path", strerror(errno));
    return XI_EXIT_FAILED;
}

const struct command command_broker = {"broker", "run a broker in the foreground", usage, run};
