/* SPDX-License-Identifier: MIT */
/* xi doctor: says what of this host helps or hinders, and what to do about it. */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>

#include "doctor.h"
#include "xi.h"

static const char usage[] =
    "usage: xi doctor [-n NS] [--fix [--force]]\n\n"
    "Looks at the kernel, limits, /dev/shm, the runtime folder, brokers, and shared memory that was left behind.\n"
    "Status 0: nothing needs attention; 1: something does.\n\n"
    "  -n, --ns NS    of namespaces, look at this one only (default: all of this user)\n"
    "      --fix      remove what was left behind in shared memory, except undelivered values\n"
    "      --force    with --fix: those as well\n"
    "      --help     this text\n\n"
    "example:\n  xi doctor --fix\n";

void found(struct doctor *d, enum finding finding, const char *what, const char *format, ...) {
    static const char *const mark[] = {"ok  ", "note", "BAD "};
    if (finding == FINDING_BAD) d->bad++;
    printf("%s  %-18s ", mark[finding], what);
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

void advise(const char *format, ...) {
    fputs("                         ", stdout);
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

static int run(int argc, char **argv) {
    static const struct option options[] = {{"fix", no_argument, NULL, OPTION_FIX},
                                            {"force", no_argument, NULL, OPTION_FORCE},
                                            {"ns", required_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
    struct doctor d = {.fix = false};
    for (int got; (got = getopt_long(argc, argv, ":hn:", options, NULL)) != -1;) {
        if (got == 'n') d.ns = optarg;
        else if (got == OPTION_FIX) d.fix = true;
        else if (got == OPTION_FORCE) d.force = true;
        else if (got == 'h' || got == OPTION_HELP) return print_help();
        else return say_bad_option(argc, argv, got);
    }
    if (optind < argc) return say_usage("unexpected word \"%s\"", argv[optind]);
    if (d.ns && !namespace_or_default(d.ns)) return XI_EXIT_USAGE;
    if (d.force && !d.fix) return say_usage("--force goes with --fix");
    doctor_host(&d);
    doctor_shm(&d);
    doctor_open(&d);
    if (fflush(stdout) != 0) return XI_EXIT_FAILED;
    return d.bad ? XI_EXIT_FAILED : XI_EXIT_OK;
}

const struct command command_doctor = {"doctor", "look for what hinders, and for what is left behind", usage, run};
