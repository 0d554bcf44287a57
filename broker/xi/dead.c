/* SPDX-License-Identifier: MIT */
/*
 * xi dead: the dead letters that lie in a channel, and sending them back to where
 * they came from. Looking at them takes nothing: it is done in a group of its own.
 * One that is to be sent back is taken first; where that fails it is put back.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "xi.h"

static const char usage[] =
    "usage: xi dead [-n NS] [--json] CHANNEL\n"
    "       xi dead [-n NS] --requeue [--to NAME] [-c COUNT] [-t TIME] CHANNEL\n\n"
    "Shows the dead letters in a channel: values that were delivered too often in vain, or expired. Or sends them back.\n\n"
    "  -n, --ns NS         the namespace (default: $XI_NAMESPACE, else \"default\")\n"
    "      --json          each letter as a line of JSON, with its whole value\n"
    "      --requeue       send their values to the channels that they come from, and take them away here\n"
    "      --to NAME       to this channel instead\n"
    "  -c, --count COUNT   so many of them, the oldest first\n"
    "  -t, --timeout TIME  wait at most so long for room: 2, 0.5, 200ms, 1m (default: 0)\n"
    "      --help          this text\n\n"
    "Every group of a channel gets a value that is sent back to it, not only the one that gave it up.\n\n"
    "examples:\n"
    "  xi dead jobs.dead\n"
    "  xi dead --requeue -c 10 jobs.dead\n";

#define SHOWN 60 /* bytes of a value in the table */

struct dead {
    struct member_opts opts;
    struct member member;
    xi_group_opts group;
    bool json, requeue;
    bool acks;          /* the channel's own group acknowledges */
    const char *to;
    uint64_t limit;     /* 0: none */
    int64_t timeout;
    struct member target; /* where the latest went */
    char target_name[XI_NAME_MAX + 1];
};

/* ------------------------------------------------------------------ letters */

struct letter {
    char reason[32], channel[XI_NAME_MAX + 1], group[64];
    int64_t deliveries;
    const void *value; /* encoded */
    size_t size;
};

static void text_of(const xi_value *v, char *out, size_t capacity) {
    int64_t n = v->tag == XI_STR ? xi_to_utf8(v, out, capacity, false) : -1;
    if (n < 0 || (size_t)n >= capacity) snprintf(out, capacity, "?");
}

/* Fills what this key says. */
static void put_field(struct letter *l, const char *key, const void *at, const xi_value *v) {
    if (strcmp(key, "reason") == 0) text_of(v, l->reason, sizeof l->reason);
    if (strcmp(key, "channel") == 0) text_of(v, l->channel, sizeof l->channel);
    if (strcmp(key, "group") == 0) text_of(v, l->group, sizeof l->group);
    if (strcmp(key, "deliveries") == 0 && xi_get_int(v, &l->deliveries) != 0) l->deliveries = -1;
    if (strcmp(key, "value") != 0) return;
    l->value = at;
    l->size = v->size;
}

/* False: it is no dead letter. */
static bool read_letter(const xi_msg *m, struct letter *l) {
    xi_cursor c, children;
    xi_value v;
    char key[32];
    *l = (struct letter){.deliveries = -1};
    xi_cursor_init(&c, m->data, m->size);
    if (xi_next(&c, &v) != 1 || v.tag != XI_DICT || xi_enter(&v, &children) != 0) return false;
    while (xi_next(&children, &v) == 1) {
        text_of(&v, key, sizeof key);
        const void *at = children.at;
        if (xi_next(&children, &v) != 1) return false;
        put_field(l, key, at, &v);
    }
    return l->value && l->reason[0] && l->channel[0];
}

static int find_buffer(void *context, const xi_buffer_ref *ref, const void **data) {
    return xi_msg_buffer(context, ref, data);
}

/* ---------------------------------------------------------------- listing */

static void add_row(struct table *t, const xi_msg *m) {
    struct json_buffers buffers = {find_buffer, (void *)(uintptr_t)m};
    struct json_out out = {0};
    struct letter l;
    char shown[XI_NAME_MAX + 1];
    if (!read_letter(m, &l)) {
        static const char *const none[] = {"(no dead letter)", "-", "-", "-"};
        for (int i = 0; i < 4; i++) table_add(t, "%s", none[i]);
        l.value = m->data;
        l.size = m->size;
    } else {
        table_add(t, "%s", l.reason);
        table_add(t, "%s", printable(l.channel, shown, sizeof shown));
        table_add(t, "%s", l.group[0] ? printable(l.group, shown, sizeof shown) : "-");
        table_add(t, "%lld", (long long)l.deliveries);
    }
    if (json_write(&out, l.value, l.size, &buffers) != 0) json_puts(&out, "(cannot be shown)");
    size_t n = out.length;
    while (n > SHOWN && (n > SHOWN + 3 || ((unsigned char)out.data[n] & 0xc0) == 0x80)) n--; /* not within a character */
    table_add(t, "%.*s%s", (int)n, n ? out.data : "", n < out.length ? "..." : "");
    json_out_clear(&out);
}

static int list(struct dead *d) {
    static const char *const head[] = {"REASON", "CHANNEL", "GROUP", "DELIVERIES", "VALUE"};
    struct table t = {.columns = 5, .align = "lllrl"};
    xi_msg m = XI_MSG_INIT;
    struct json_out out = {0};
    bool trouble = false;
    int rc = 0, status = XI_EXIT_OK;
    uint64_t n = 0;
    for (size_t c = 0; c < t.columns; c++) table_add(&t, "%s", head[c]);
    for (; status == XI_EXIT_OK && (d->limit == 0 || n < d->limit) && (rc = xi_recv(d->member.channel, &m, XI_TRY)) == 0; n++) {
        if (d->json) status = print_message(&m, false, &out, &trouble);
        else add_row(&t, &m);
    }
    xi_msg_release(&m);
    out.length = 0;
    if (rc && rc != XI_E_AGAIN && rc != XI_E_CLOSED) {
        say("cannot read \"%s\": %s", d->member.name, xi_error_text(rc));
        status = XI_EXIT_FAILED;
    }
    if (n == 0 && !d->json && status == XI_EXIT_OK) json_puts(&out, "no dead letters\n");
    struct json_out rows = {0};
    table_finish(&t, &rows);
    if (n && !d->json) json_put(&out, rows.data, rows.length);
    if (!write_all(STDOUT_FILENO, out.data, out.length)) status = XI_EXIT_FAILED;
    json_out_clear(&rows);
    json_out_clear(&out);
    return status == XI_EXIT_OK && trouble ? XI_EXIT_FAILED : status;
}

/* --------------------------------------------------------------- sending back */

/* The handle of the channel that the value goes to. A queue that was drained and left may be gone: it is made anew. */
static int open_target(struct dead *d, const char *name) {
    xi_open_opts opts = {.flags = XI_OPEN_SEND};
    char shown[XI_NAME_MAX + 1];
    if (d->target.channel && strcmp(d->target_name, name) == 0) return XI_EXIT_OK;
    xi_channel_free(d->target.channel);
    d->target = (struct member){d->member.me, NULL, d->target_name};
    snprintf(d->target_name, sizeof d->target_name, "%s", name);
    int rc = xi_open(d->member.me, name, &opts, &d->target.channel);
    if (rc == 0) return XI_EXIT_OK;
    say("cannot send to channel \"%s\": %s", printable(name, shown, sizeof shown), xi_error_text(rc));
    return XI_EXIT_FAILED;
}

/* Sends the value at `at` of the message `m`, with its buffers. */
static int send_value(struct dead *d, const struct member *to, const xi_msg *m, const void *at, size_t size) {
    struct json_buffers buffers = {find_buffer, (void *)(uintptr_t)m};
    struct json_out out = {0};
    int rc = json_write(&out, at, size, &buffers), status = XI_EXIT_FAILED;
    json_put(&out, "", 1); /* ends the text */
    if (rc == 0) rc = out.error;
    if (rc) say("a dead letter could not be read: %s", xi_error_text(rc));
    else status = send_json_text(to, d->timeout, out.data, out.length - 1, "the value of a dead letter");
    json_out_clear(&out);
    return status;
}

/* It could not be sent on: as it was, but behind the others. */
static void put_back(struct dead *d, xi_msg *m) {
    struct json_out out = {0};
    bool trouble = false;
    if (d->acks) {
        if (xi_nack(m, 0) == 0) return;
    } else {
        struct member here = {d->member.me, NULL, d->member.name};
        xi_open_opts opts = {.flags = XI_OPEN_SEND | XI_OPEN_EXISTING};
        int rc = xi_open(here.me, here.name, &opts, &here.channel);
        int status = rc ? XI_EXIT_FAILED : send_value(d, &here, m, m->data, m->size);
        xi_channel_free(here.channel);
        if (status == XI_EXIT_OK) return;
    }
    say("a dead letter could not be put back; here it is:");
    (void)print_message(m, false, &out, &trouble);
    json_out_clear(&out);
}

/* One letter that was taken. */
static int requeue_one(struct dead *d, xi_msg *m, uint64_t *done) {
    struct letter l;
    int status;
    if (!read_letter(m, &l)) {
        say("a value in \"%s\" is no dead letter; it stays there", d->member.name);
        put_back(d, m);
        return XI_EXIT_OK;
    }
    status = open_target(d, d->to ? d->to : l.channel);
    if (status == XI_EXIT_OK) status = send_value(d, &d->target, m, l.value, l.size);
    if (status != XI_EXIT_OK) {
        put_back(d, m);
        return status;
    }
    ++*done;
    if (d->acks && xi_ack(m) == XI_E_STALE) say("somebody else has taken that letter as well; its value was sent twice");
    return XI_EXIT_OK;
}

static int requeue(struct dead *d) {
    xi_channel_info info;
    xi_msg m = XI_MSG_INIT;
    int status = XI_EXIT_OK, rc = xi_channel_stat(d->member.channel, &info);
    uint64_t done = 0, most = rc == 0 ? info.depth : 0; /* those that are there now */
    for (uint64_t i = 0; i < most && status == XI_EXIT_OK && rc == 0 && (d->limit == 0 || done < d->limit); i++) {
        if (stop_signal()) status = 128 + stop_signal();
        else if ((rc = xi_recv(d->member.channel, &m, XI_TRY)) == 0) status = requeue_one(d, &m, &done);
        xi_msg_release(&m);
    }
    xi_channel_free(d->target.channel);
    if (rc && rc != XI_E_AGAIN && rc != XI_E_CLOSED) {
        say("cannot receive from \"%s\": %s", d->member.name, xi_error_text(rc));
        status = XI_EXIT_FAILED;
    }
    printf("%llu dead letter%s sent back\n", (unsigned long long)done, done == 1 ? "" : "s");
    return fflush(stdout) == 0 ? status : XI_EXIT_FAILED;
}

/* --------------------------------------------------------------- the command */

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct dead *d) {
    static const struct option options[] = {{"ns", required_argument, NULL, 'n'},
                                            {"json", no_argument, NULL, OPTION_JSON},
                                            {"requeue", no_argument, NULL, OPTION_REQUEUE},
                                            {"to", required_argument, NULL, OPTION_TO},
                                            {"count", required_argument, NULL, 'c'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
    for (int got; (got = getopt_long(argc, argv, ":n:c:t:h", options, NULL)) != -1;) {
        switch (got) {
        case 'n': d->opts.ns = optarg; break;
        case OPTION_JSON: d->json = true; break;
        case OPTION_REQUEUE: d->requeue = true; break;
        case OPTION_TO: d->to = optarg; break;
        case 'c':
            if (!parse_count(optarg, 1, UINT64_MAX, &d->limit)) return say_usage("count \"%s\": write a number from 1 up", optarg);
            break;
        case 't':
            if (!parse_duration(optarg, &d->timeout)) return say_usage("time \"%s\": write 2, 0.5, 200ms or 1m", optarg);
            break;
        case 'h': case OPTION_HELP: return print_help();
        default: return say_bad_option(argc, argv, got);
        }
    }
    if (argc - optind != 1) return say_usage("expected the name of one channel, found %d", argc - optind);
    if (!d->requeue && d->to) return say_usage("--to says where to send them: give --requeue");
    if (d->requeue && d->json) return say_usage("--json shows letters, --requeue sends them back: give one of them");
    d->opts.channel = argv[optind];
    if (d->to && strcmp(d->to, d->opts.channel) == 0) return say_usage("they are in \"%s\" already", d->to);
    return -1;
}

/* To look: in a group of its own. To take: in the channel's own, whichever way that is received in. */
static int open_dead(struct dead *d) {
    if (!d->requeue) {
        d->group = (xi_group_opts){.from = XI_FROM_OLDEST, .flags = XI_GROUP_TEMPORARY};
        d->opts.open.group_opts = &d->group;
        return member_open(&d->member, &d->opts);
    }
    int status = member_join(&d->member, &d->opts);
    if (status) return status;
    int rc = xi_open(d->member.me, d->opts.channel, &d->opts.open, &d->member.channel);
    if (rc == XI_E_MISMATCH) {
        d->acks = true;
        d->group = (xi_group_opts){.flags = XI_GROUP_ACK};
        d->opts.open.group_opts = &d->group;
        rc = xi_open(d->member.me, d->opts.channel, &d->opts.open, &d->member.channel);
    }
    if (rc == 0) return XI_EXIT_OK;
    say("cannot open channel \"%s\": %s", d->opts.channel, xi_error_text(rc));
    member_close(&d->member);
    return XI_EXIT_FAILED;
}

static int run(int argc, char **argv) {
    struct dead d = {.opts = {.as = "xi dead", .join_flags = XI_JOIN_NO_START,
                              .open = {.flags = XI_OPEN_RECV | XI_OPEN_EXISTING}},
                     .timeout = XI_TRY};
    int status = parse(argc, argv, &d);
    if (status >= 0) return status;
    stop_install();
    signal(SIGPIPE, SIG_IGN);
    status = open_dead(&d);
    if (status) return status;
    status = d.requeue ? requeue(&d) : list(&d);
    member_close(&d.member);
    return status;
}

const struct command command_dead = {"dead", "show dead letters, or send them back", usage, run};
