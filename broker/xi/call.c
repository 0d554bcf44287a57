/* SPDX-License-Identifier: MIT */
/* xi call: a request, and the reply to it as a line of JSON. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "xi.h"

static const char usage[] =
    "usage: xi call [-n NS] [-t TIME] [--raw] CHANNEL VALUE\n\n"
    "Sends VALUE, which is JSON, as a request to whoever serves the channel, and prints the reply.\n\n"
    "  -n, --ns NS         the namespace (default: $XI_NAMESPACE, else \"default\")\n"
    "  -t, --timeout TIME  wait at most so long for the reply: 2, 0.5, 200ms, 1m (default: forever)\n"
    "      --raw           print text as it is, and bytes as they are with nothing added\n"
    "      --help          this text\n\n"
    "Status 1, with a message, when nobody serves the channel, when the server dies over it, and when no reply came in\n"
    "time: then the request is cancelled. A VALUE that begins with - goes after --.\n\n"
    "example:\n"
    "  xi call sums '[1, 2, 3]' --timeout 5\n";

struct caller {
    struct member_opts opts;
    struct member member;
    int64_t timeout;
    bool raw;
};

static int refused(const struct caller *c, int rc) {
    if (rc == XI_E_INTR) return 128 + stop_signal();
    if (rc == XI_E_TIMEOUT || rc == XI_E_AGAIN) say("no reply came from channel \"%s\" in time", c->member.name);
    else say("cannot call \"%s\": %s", c->member.name, xi_error_text(rc));
    return XI_EXIT_FAILED;
}

/* As xi_call(), but a wait that is interrupted by anything else than being told to stop goes on. */
static int call_and_wait(struct caller *c, const void *value, size_t size, xi_msg *reply) {
    xi_pending p = XI_PENDING_INIT;
    struct deadline end = deadline_in(c->timeout);
    int rc;
    do rc = xi_call_begin(c->member.channel, value, size, deadline_left(&end), &p);
    while (rc == XI_E_INTR && !stop_signal());
    if (rc) return rc;
    do rc = xi_call_wait(&p, reply, deadline_left(&end));
    while (rc == XI_E_INTR && !stop_signal());
    xi_call_cancel(&p);
    return rc;
}

static int call(struct caller *c, const void *value, size_t size) {
    xi_msg reply = XI_MSG_INIT;
    struct json_out out = {0};
    bool trouble = false;
    int rc = call_and_wait(c, value, size, &reply);
    int status = rc ? refused(c, rc) : print_message(&reply, c->raw, &out, &trouble);
    json_out_clear(&out);
    xi_msg_release(&reply);
    return status == XI_EXIT_OK && trouble ? XI_EXIT_FAILED : status;
}

/* The text as an encoded value, from malloc(). XI_EXIT_OK, or XI_EXIT_USAGE after a message. */
static int encode(const char *text, void **value, size_t *size) {
    struct json j = {0};
    int rc = json_parse(&j, text, strlen(text));
    if (rc == 0) rc = json_encode(&j, value, size);
    if (rc) say("the value, column %zu: %s", j.error.column, j.error.text);
    json_clear(&j);
    return rc ? XI_EXIT_USAGE : XI_EXIT_OK;
}

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct caller *c) {
    static const struct option options[] = {{"ns", required_argument, NULL, 'n'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"raw", no_argument, NULL, OPTION_RAW},
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
    for (int got; (got = getopt_long(argc, argv, ":n:t:h", options, NULL)) != -1;) {
        switch (got) {
        case 'n': c->opts.ns = optarg; break;
        case 't':
            if (!parse_duration(optarg, &c->timeout)) return say_usage("time \"%s\": write 2, 0.5, 200ms or 1m", optarg);
            break;
        case OPTION_RAW: c->raw = true; break;
        case 'h': case OPTION_HELP: return print_help();
        default: return say_bad_option(argc, argv, got);
        }
    }
    if (argc - optind != 2) return say_usage("expected a channel and one value, found %d words", argc - optind);
    c->opts.channel = argv[optind];
    return -1;
}

static int run(int argc, char **argv) {
    struct caller c = {.opts = {.as = "xi call", .join_flags = XI_JOIN_NO_START,
                                .open = {.flags = XI_OPEN_SEND | XI_OPEN_EXISTING}},
                       .timeout = XI_FOREVER};
    void *value = NULL;
    size_t size;
    int status = parse(argc, argv, &c);
    if (status >= 0) return status;
    status = encode(argv[optind + 1], &value, &size);
    if (status) return status;
    stop_install();
    status = member_open(&c.member, &c.opts);
    if (status == XI_EXIT_OK) {
        status = call(&c, value, size);
        member_close(&c.member);
    }
    free(value);
    return status;
}

const struct command command_call = {"call", "send a request and print the reply", usage, run};
