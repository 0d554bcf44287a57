/* SPDX-License-Identifier: MIT */
/*
 * xi recv: values of a channel as lines of JSON, each flushed when it is
 * complete. Once a value is taken from the channel it is printed, whatever
 * signals arrive; before taking one it looks whether the reader of the output
 * is still there, so that `xi recv jobs | head -1` does not take a second.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    "      --mode MODE     queue or broadcast, for a new channel\n"
    "      --access LIST   what other users may do with a new channel: bob:w,@staff:rw (r: receive, w: send)\n"
    "      --raw           print text as it is, a line each, and bytes as they are with nothing added\n"
    "      --help          this text\n\n"
    "Values JSON lacks have tagged forms such as {\"$bytes\":\"AAEC\"}, which xi send takes back: see xi(1).\n"
    "On a broadcast channel it gets what is sent after it has begun, or with --group since the group was made.\n\n"
    "examples:\n"
    "  xi recv -c 1 -t 5 results\n"
    "  xi recv --raw log >> app.log\n";

struct receiver {
    struct member_opts member_opts;
    struct member member;
    int64_t timeout;
    uint64_t limit; /* 0: none */
    bool raw;
    bool trouble; /* a value could not be read: status 1 in the end */
};

static int find_buffer(void *context, const xi_buffer_ref *ref, const void **data) {
    return xi_msg_buffer(context, ref, data);
}

/* Text and bytes as they are. 1: done; 0: it is another kind; negative: error. */
static int put_raw(const xi_msg *m, struct json_out *out) {
    xi_cursor c;
    xi_value v;
    const void *data;
    xi_cursor_init(&c, m->data, m->size);
    int rc = xi_next(&c, &v);
    if (rc <= 0) return rc;
    if (v.tag == XI_BYTES) return json_put(out, v.data, v.length), 1;
    if (v.tag == XI_BUFFER) {
        rc = xi_msg_buffer(m, &v.u.buffer, &data);
        if (rc) return rc;
        return json_put(out, data, v.u.buffer.length), 1;
    }
    if (v.tag != XI_STR) return 0;
    int64_t n = xi_to_utf8(&v, NULL, 0, false);
    if (n < 0) return n == XI_E_RANGE ? 0 : (int)n; /* lone surrogates have no plain form: print them as JSON */
    char stack[512], *text = (size_t)n < sizeof stack ? stack : malloc((size_t)n + 1);
    if (!text) return XI_E_NOMEM;
    int64_t got = xi_to_utf8(&v, text, (size_t)n + 1, false); /* the sender may have changed it meanwhile */
    if (got >= 0 && got <= n) {
        json_put(out, text, (size_t)got);
        json_put(out, "\n", 1);
    }
    if (text != stack) free(text);
    return got < 0 ? (int)got : got <= n ? 1 : XI_E_CORRUPT;
}

/* Prints one value. XI_EXIT_OK to go on. */
static int print(struct receiver *r, const xi_msg *m, struct json_out *out) {
    struct json_buffers buffers = {find_buffer, (void *)(uintptr_t)m};
    out->length = 0;
    int rc = r->raw ? put_raw(m, out) : 0;
    if (rc == 0) {
        rc = json_write(out, m->data, m->size, &buffers);
        if (rc == 0) json_put(out, "\n", 1);
    }
    if (rc >= 0 && out->error) rc = out->error;
    if (rc < 0) {
        say("a value of %zu bytes could not be printed and is lost: %s", m->size, xi_error_text(rc));
        out->error = 0;
        r->trouble = true;
        return XI_EXIT_OK;
    }
    if (write_all(STDOUT_FILENO, out->data, out->length)) return XI_EXIT_OK;
    say("cannot write to standard output: %s; the value received last is not complete there", strerror(errno));
    return XI_EXIT_FAILED;
}

/* True when whoever read our output is gone. */
static bool reader_gone(void) {
    struct pollfd out = {STDOUT_FILENO, 0, 0};
    return poll(&out, 1, 0) == 1 && (out.revents & POLLERR);
}

static int no_value(struct receiver *r, int rc, uint64_t done) {
    if (rc == XI_E_AGAIN && r->timeout == XI_TRY && r->limit == 0 && done > 0) return XI_EXIT_OK; /* all that was there */
    switch (rc) {
    case XI_E_CLOSED: return XI_EXIT_OK;
    case XI_E_INTR: return 128 + stop_signal();
    case XI_E_AGAIN: case XI_E_TIMEOUT:
        say("nothing came on channel \"%s\" in time; is somebody sending? (xi ls)", r->member.name);
        return XI_EXIT_FAILED;
    default:
        say("cannot receive from \"%s\": %s", r->member.name, xi_error_text(rc));
        return XI_EXIT_FAILED;
    }
}

static int take(struct receiver *r, xi_msg *m) {
    struct deadline d = deadline_in(r->timeout);
    int rc;
    do rc = xi_recv(r->member.channel, m, deadline_left(&d));
    while (rc == XI_E_INTR && !stop_signal());
    return rc;
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
            int rc = take(r, &m);
            if (rc == 0) {
                status = print(r, &m, &out);
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
                                            {"mode", required_argument, NULL, OPTION_MODE},
                                            {"access", required_argument, NULL, OPTION_ACCESS},
                                            {"raw", no_argument, NULL, OPTION_RAW},
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
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
        case OPTION_ACCESS: r->member_opts.open.access = optarg; break;
        case OPTION_MODE:
            if (!parse_mode(optarg, &r->member_opts.open.mode))
                return say_usage("mode \"%s\": write queue or broadcast", optarg);
            break;
        case OPTION_RAW: r->raw = true; break;
        case 'h': case OPTION_HELP: return print_help();
        default: return say_bad_option(argc, argv, got);
        }
    }
    if (argc - optind != 1) return say_usage("expected the name of one channel, found %d", argc - optind);
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
