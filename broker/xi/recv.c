/* SPDX-License-Identifier: MIT */
/*
 * xi recv: values of a channel as lines of JSON, each flushed when it is
 * complete. Once a value is taken from the channel it is printed, whatever
 * signals arrive; before taking one it looks whether the reader of the output
 * is still there, so that `xi recv jobs | head -1` does not take a second.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>

#include "json.h"
#include "xi.h"

static const char usage[] =
    "usage: xi recv [OPTIONS] CHANNEL\n\n"
    "Receives values and prints each as a line of JSON, until the channel is closed and drained.\n\n"
    "  -n, --ns NS         the namespace (default: $XI_NAMESPACE, else \"default\")\n"
    "  -c, --count COUNT   end after so many values\n"
    "  -t, --timeout TIME  wait at most so long for each value: 2, 0.5, 200ms, 1m; 0 takes what is there\n"
    "                      (default: forever). Status 1 if nothing came in time\n"
    "      --group G       receive as a member of group G, whose members share the values\n"
    "      --from WHERE    where a new group begins: tail (the default), oldest, or a number: the last so many\n"
    "      --ack           acknowledge each value when it is printed: one that could not be goes to another\n"
    "      --need-peer     end, too, when the channel is drained and nobody has it open to send\n"
    "      --raw           print text as it is, a line each, and bytes as they are with nothing added\n"
    NEW_ACK_GROUP_USAGE
    NEW_CHANNEL_USAGE
    "      --help          this text\n\n"
    "Values JSON lacks have tagged forms such as {\"$bytes\":\"AAEC\"}, which xi send takes back: see xi(1).\n"
    "On a broadcast channel it gets what is sent after it has begun, or with --group since the group was made.\n\n"
    "examples:\n"
    "  xi recv -c 1 -t 5 results\n"
    "  xi recv --raw log >> app.log\n"
    "  xi recv --ack --max-deliveries 5 --dead-letters jobs.dead jobs\n";

struct receiver {
    struct member_opts member_opts;
    struct member member;
    int64_t timeout;
    uint64_t limit; /* 0: none */
    xi_group_opts group;
    bool grouped; /* `group` was asked for */
    bool raw;
    bool trouble; /* a value could not be read: status 1 in the end */
};

static int no_value(struct receiver *r, int rc, uint64_t done) {
    if (rc == XI_E_AGAIN && r->timeout == XI_TRY && r->limit == 0 && done > 0) return XI_EXIT_OK; /* all that was there */
    switch (rc) {
    case XI_E_CLOSED: case XI_E_NO_PRODUCER: return XI_EXIT_OK;
    case XI_E_INTR: return 128 + stop_signal();
    case XI_E_AGAIN: case XI_E_TIMEOUT:
        say("nothing came on channel \"%s\" in time; is somebody sending? (xi ls)", r->member.name);
        return XI_EXIT_FAILED;
    default:
        say("cannot receive from \"%s\": %s", r->member.name, xi_error_text(rc));
        return XI_EXIT_FAILED;
    }
}

/* It was printed; or it could not be, and somebody else may have more luck with it: at once if our output is at fault. */
static void answer(struct receiver *r, xi_msg *m, bool unprintable, bool unwritten) {
    if (!(r->group.flags & XI_GROUP_ACK)) return;
    int rc = unprintable || unwritten ? xi_nack(m, unprintable ? 1000000000 : 0) : xi_ack(m);
    if (rc == 0) return;
    say(rc == XI_E_STALE ? "a value was printed too late: it was given to another meanwhile" : "%s", xi_error_text(rc));
    r->trouble = true;
}

static int receive_all(struct receiver *r) {
    xi_msg m = XI_MSG_INIT;
    struct json_out out = {0};
    int status = XI_EXIT_OK;
    uint64_t done = 0;
    bool over = false;
    while (!over && status == XI_EXIT_OK && (r->limit == 0 || done < r->limit)) {
        if (stop_signal()) {
            status = 128 + stop_signal();
        } else if (reader_gone()) {
            over = true;
        } else {
            int rc = receive_until(r->member.channel, &m, r->timeout);
            if (rc == 0) {
                bool trouble = false;
                status = print_message(&m, r->raw, &out, &trouble);
                answer(r, &m, trouble, status != XI_EXIT_OK);
                r->trouble |= trouble;
                done++;
            } else if (rc == XI_E_CORRUPT) {
                say("a value was skipped: %s", xi_error_text(rc));
                r->trouble = true;
            } else {
                status = no_value(r, rc, done);
                over = true;
            }
        }
        xi_msg_release(&m);
    }
    json_out_clear(&out);
    return status == XI_EXIT_OK && r->trouble ? XI_EXIT_FAILED : status;
}

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct receiver *r) {
    static const struct option options[] = {{"ns", required_argument, NULL, 'n'},
                                            {"count", required_argument, NULL, 'c'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"group", required_argument, NULL, OPTION_GROUP},
                                            {"from", required_argument, NULL, OPTION_FROM},
                                            {"ack", no_argument, NULL, OPTION_ACK},
                                            NEW_ACK_GROUP_OPTIONS,
                                            {"need-peer", no_argument, NULL, OPTION_NEED_PEER},
                                            {"raw", no_argument, NULL, OPTION_RAW},
                                            NEW_CHANNEL_OPTIONS,
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
    int status;
    for (int got; (got = getopt_long(argc, argv, ":n:c:t:h", options, NULL)) != -1;) {
        switch (got) {
        case 'n': r->member_opts.ns = optarg; break;
        case 'c':
            if (!parse_count(optarg, 1, UINT64_MAX, &r->limit)) return say_usage("count \"%s\": write a number from 1 up", optarg);
            break;
        case 't':
            if (!parse_duration(optarg, &r->timeout)) return say_usage("time \"%s\": write 2, 0.5, 200ms or 1m", optarg);
            break;
        case OPTION_GROUP: r->member_opts.open.group = optarg; break;
        case OPTION_FROM:
            if (!parse_from(optarg, &r->group)) return say_usage("from \"%s\": write tail, oldest, or a number", optarg);
            r->grouped = true;
            break;
        case OPTION_ACK:
            r->group.flags |= XI_GROUP_ACK;
            r->grouped = true;
            break;
        case OPTION_NEED_PEER: r->member_opts.open.flags |= XI_OPEN_NEED_PEER; break;
        case OPTION_RAW: r->raw = true; break;
        case 'h': case OPTION_HELP: return print_help();
        default:
            status = new_ack_group_option(got, optarg, &r->group);
            if (status == XI_EXIT_OK) r->grouped = true;
            else if (status == NOT_AN_OPTION) status = new_channel_option(got, optarg, &r->member_opts.open);
            if (status == NOT_AN_OPTION) return say_bad_option(argc, argv, got);
            if (status != XI_EXIT_OK) return status;
        }
    }
    if (argc - optind != 1) return say_usage("expected the name of one channel, found %d", argc - optind);
    if (r->grouped) r->member_opts.open.group_opts = &r->group;
    r->member_opts.channel = argv[optind];
    return -1;
}

static int run(int argc, char **argv) {
    struct receiver r = {.member_opts = {.as = "xi recv", .open = {.flags = XI_OPEN_RECV}}, .timeout = XI_FOREVER};
    int status = parse(argc, argv, &r);
    if (status >= 0) return status;
    stop_install();
    signal(SIGPIPE, SIG_IGN); /* a write error says which value was not printed */
    status = member_open(&r.member, &r.member_opts);
    if (status) return status;
    status = receive_all(&r);
    member_close(&r.member);
    return status;
}

const struct command command_recv = {"recv", "print what a channel gets, as lines of JSON", usage, run};
