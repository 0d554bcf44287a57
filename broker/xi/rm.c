/* SPDX-License-Identifier: MIT */
/* xi rm: removes channels by name, with whatever is in them. */
#include <getopt.h>

#include "xi.h"

static const char usage[] =
    "usage: xi rm [-n NS] CHANNEL...\n\n"
    "Removes channels with whatever is in them. Whoever has one open gets an error from then on; the name is free at\n"
    "once.\n\n"
    "  -n, --ns NS    the namespace (default: $XI_NAMESPACE, else \"default\")\n"
    "      --help     this text\n\n"
    "example:\n  xi rm jobs results\n";

static int remove_one(xi_interp *me, const char *name) {
    char shown[192];
    int rc;
    do rc = xi_remove(me, name);
    while (rc == XI_E_INTR && !stop_signal());
    if (rc == XI_E_INTR) return 128 + stop_signal();
    if (rc == 0) return XI_EXIT_OK;
    say("cannot remove channel \"%s\": %s", printable(name, shown, sizeof shown), xi_error_text(rc));
    return XI_EXIT_FAILED;
}

static int run(int argc, char **argv) {
    static const struct option options[] = {
        {"ns", required_argument, NULL, 'n'}, {"help", no_argument, NULL, OPTION_HELP}, {0}};
    const char *ns = NULL;
    for (int got; (got = getopt_long(argc, argv, ":n:h", options, NULL)) != -1;) {
        if (got == 'n') ns = optarg;
        else if (got == 'h' || got == OPTION_HELP) return print_help();
        else return say_bad_option(argc, argv, got);
    }
    if (optind == argc) return say_usage("expected the name of a channel");
    ns = namespace_or_default(ns);
    if (!ns) return XI_EXIT_USAGE;
    stop_install();
    struct member s;
    int status = member_join(&s, &(struct member_opts){.ns = ns, .as = "xi rm", .join_flags = XI_JOIN_NO_START});
    if (status) return status;
    for (int i = optind; i < argc && status < 128; i++) {
        int one = remove_one(s.me, argv[i]);
        if (one > status) status = one;
    }
    member_close(&s);
    return status;
}

const struct command command_rm = {"rm", "remove channels, with what is in them", usage, run};
