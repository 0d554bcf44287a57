/* SPDX-License-Identifier: MIT */
/* xi close: closes a channel for everybody. */
#include <getopt.h>

#include "xi.h"

static const char usage[] =
    "usage: xi close [-n NS] CHANNEL\n\n"
    "Closes a channel: whoever sends on it gets an error at once; receivers get what it still holds, then its end.\n\n"
    "  -n, --ns NS    the namespace (default: $XI_NAMESPACE, else \"default\")\n"
    "      --help     this text\n\n"
    "example:\n  xi close jobs\n";

static int run(int argc, char **argv) {
    static const struct option options[] = {
        {"ns", required_argument, NULL, 'n'}, {"help", no_argument, NULL, OPTION_HELP}, {0}};
    struct member_opts opts = {.as = "xi close", .join_flags = XI_JOIN_NO_START,
                                .open = {.flags = XI_OPEN_EXISTING | XI_OPEN_SEND}};
    for (int got; (got = getopt_long(argc, argv, ":n:h", options, NULL)) != -1;) {
        if (got == 'n') opts.ns = optarg;
        else if (got == 'h' || got == OPTION_HELP) return print_help();
        else return say_bad_option(argc, argv, got);
    }
    if (argc - optind != 1) return say_usage("expected the name of one channel, found %d", argc - optind);
    opts.channel = argv[optind];
    stop_install();
    struct member s;
    int status = member_open(&s, &opts);
    if (status) return status;
    int rc;
    do rc = xi_close(s.channel);
    while (rc == XI_E_INTR && !stop_signal());
    if (rc) say("cannot close channel \"%s\": %s", s.name, xi_error_text(rc));
    member_close(&s);
    return rc ? XI_EXIT_FAILED : XI_EXIT_OK;
}

const struct command command_close = {"close", "close a channel for everybody", usage, run};
