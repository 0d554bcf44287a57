/* SPDX-License-Identifier: MIT */
/*
 * xi tail: the last values that a channel still has, and those that come, as
 * lines of JSON, without taking them from anybody: it receives in a group of
 * its own, which ends with it.
 */
#include <getopt.h>
#include <signal.h>

#include "json.h"
#include "xi.h"

static const char usage[] =
    "usage: xi tail [-f] [-n N] [--ns NS] [--raw] CHANNEL\n\n"
    "Shows the last values of a channel, each as a line of JSON, without taking them from anybody: those that not\n"
    "every group has received yet, or that the channel retains.\n\n"
    "  -f, --follow   go on with what is sent from now on\n"
    "  -n, --lines N  the last N values (default: 10)\n"
    "      --ns NS    the namespace (default: $XI_NAMESPACE, else \"default\")\n"
    "      --raw      print text as it is, a line each, and bytes as they are with nothing added\n"
    "      --help     this text\n\n"
    "With -f it receives as any other does: if its output is not read, senders wait once the channel is full.\n\n"
    "example:\n"
    "  xi tail -f -n 3 jobs\n";

struct tail {
    struct member_opts opts;
    struct member member;
    xi_group_opts group;
    bool follow, raw, trouble;
};

/* The next value: 0 shown, a positive exit status + 1 where it ends. */
static int show_next(struct tail *t, xi_msg *m, struct json_out *out) {
    int rc;
    if (reader_gone()) return XI_EXIT_OK + 1;
    do rc = xi_recv(t->member.channel, m, t->follow ? XI_FOREVER : XI_TRY);
    while (rc == XI_E_INTR && !stop_signal());
    if (rc == 0) {
        int status = print_message(m, t->raw, out, &t->trouble);
        return status == XI_EXIT_OK ? 0 : status + 1;
    }
    if (rc == XI_E_AGAIN || rc == XI_E_CLOSED) return XI_EXIT_OK + 1;
    if (rc == XI_E_INTR) return 128 + stop_signal() + 1;
    say(rc == XI_E_CORRUPT ? "a value was skipped: %s" : "%s", xi_error_text(rc));
    t->trouble = true;
    return rc == XI_E_CORRUPT ? 0 : XI_EXIT_FAILED + 1;
}

static int show(struct tail *t) {
    xi_msg m = XI_MSG_INIT;
    struct json_out out = {0};
    int ended = 0;
    for (uint64_t shown = 0; !ended && (t->follow || shown < t->group.last); shown++) {
        ended = stop_signal() ? 128 + stop_signal() + 1 : show_next(t, &m, &out);
        xi_msg_release(&m);
    }
    json_out_clear(&out);
    int status = ended ? ended - 1 : XI_EXIT_OK;
    return status == XI_EXIT_OK && t->trouble ? XI_EXIT_FAILED : status;
}

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct tail *t) {
    static const struct option options[] = {{"follow", no_argument, NULL, 'f'},
                                            {"lines", required_argument, NULL, 'n'},
                                            {"ns", required_argument, NULL, OPTION_NS},
                                            {"raw", no_argument, NULL, OPTION_RAW},
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
    uint64_t n;
    for (int got; (got = getopt_long(argc, argv, ":fn:h", options, NULL)) != -1;) {
        switch (got) {
        case 'f': t->follow = true; break;
        case 'n':
            if (!parse_count(optarg, 0, UINT32_MAX, &n))
                return say_usage("lines \"%s\": write a number; the namespace goes after --ns", optarg);
            t->group.last = (uint32_t)n;
            break;
        case OPTION_NS: t->opts.ns = optarg; break;
        case OPTION_RAW: t->raw = true; break;
        case 'h': case OPTION_HELP: return print_help();
        default: return say_bad_option(argc, argv, got);
        }
    }
    if (argc - optind != 1) return say_usage("expected the name of one channel, found %d", argc - optind);
    t->opts.channel = argv[optind];
    return -1;
}

static int run(int argc, char **argv) {
    struct tail t = {.opts = {.as = "xi tail", .join_flags = XI_JOIN_NO_START,
                              .open = {.flags = XI_OPEN_RECV | XI_OPEN_EXISTING}},
                     .group = {.from = XI_FROM_LAST, .last = 10, .flags = XI_GROUP_TEMPORARY}};
    int status = parse(argc, argv, &t);
    if (status >= 0) return status;
    t.opts.open.group_opts = &t.group;
    stop_install();
    signal(SIGPIPE, SIG_IGN); /* a write error says so */
    status = member_open(&t.member, &t.opts);
    if (status) return status;
    status = show(&t);
    member_close(&t.member);
    return status;
}

const struct command command_tail = {"tail", "show a channel's last values, without taking them", usage, run};
