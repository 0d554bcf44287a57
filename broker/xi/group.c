/* SPDX-License-Identifier: MIT */
/* xi group: the groups of a channel, and the end of one. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "xi.h"

static const char usage[] =
    "usage: xi group [-n NS] [--json] CHANNEL\n"
    "       xi group [-n NS] --remove NAME CHANNEL\n\n"
    "Shows the groups in which a channel's values are received, or removes a named one: what it had yet to receive it\n"
    "never will, and whoever receives in it gets an error.\n\n"
    "  -n, --ns NS         the namespace (default: $XI_NAMESPACE, else \"default\")\n"
    "      --json          one JSON object a group, with everything there is\n"
    "      --remove NAME   end this group\n"
    "      --help          this text\n\n"
    "A queue has one group without a name; so has each subscriber of a broadcast, which ends with it (OWNER).\n"
    "DEPTH: values it has yet to receive. UNACKED: delivered and not acknowledged\n\n"
    "example:\n  xi group log --remove archive\n";

struct lister {
    struct member_opts member;
    const char *remove;
    bool json;
};

static void show(const xi_group_info *groups, size_t n, struct json_out *out) {
    struct table t = {.columns = 8, .align = "lrrrrrrr"};
    static const char *const head[] = {"GROUP", "OWNER", "DEPTH", "RECEIVED", "UNACKED", "DROPPED", "EXPIRED", "DEAD"};
    if (n == 0) {
        json_puts(out, "no groups\n");
        return;
    }
    for (size_t c = 0; c < t.columns; c++) table_add(&t, "%s", head[c]);
    for (const xi_group_info *g = groups; g < groups + n; g++) {
        char name[64];
        table_add(&t, "%s", g->name[0] ? printable(g->name, name, sizeof name) : "-");
        if (g->owner) table_add(&t, "%lld", (long long)g->owner);
        else table_add(&t, "-");
        table_add(&t, "%llu", (unsigned long long)g->depth);
        table_add(&t, "%llu", (unsigned long long)g->received);
        if (g->flags & XI_GROUP_ACK) table_add(&t, "%llu", (unsigned long long)g->unacked);
        else table_add(&t, "-");
        table_add(&t, "%llu", (unsigned long long)g->dropped);
        table_add(&t, "%llu", (unsigned long long)g->expired);
        table_add(&t, "%llu", (unsigned long long)g->dead);
    }
    table_finish(&t, out);
}

static void show_json(const xi_group_info *groups, size_t n, struct json_out *out) {
    for (const xi_group_info *g = groups; g < groups + n; g++) {
        json_puts(out, "{\"name\":");
        json_put_string(out, g->name, strlen(g->name));
        json_printf(out, ",\"index\":%u,\"owner\":%lld,\"acknowledges\":%s", g->index, (long long)g->owner,
                    g->flags & XI_GROUP_ACK ? "true" : "false");
        const struct { const char *name; uint64_t value; } counters[] = {
            {"depth", g->depth},     {"received", g->received}, {"unacknowledged", g->unacked}, {"redelivered", g->redelivered},
            {"acknowledged", g->acked}, {"dropped", g->dropped}, {"expired", g->expired},        {"dead", g->dead}};
        for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++)
            json_printf(out, ",\"%s\":%llu", counters[i].name, (unsigned long long)counters[i].value);
        json_puts(out, "}\n");
    }
}

static int list(struct lister *l, xi_channel *ch) {
    xi_group_info groups[64];
    struct json_out out = {0};
    int64_t n = xi_channel_groups(ch, groups, 64);
    if (n < 0) {
        say("cannot list the groups of \"%s\": %s", l->member.channel, xi_error_text((int)n));
        return XI_EXIT_FAILED;
    }
    (l->json ? show_json : show)(groups, n < 64 ? (size_t)n : 64, &out);
    bool written = !out.error && write_all(STDOUT_FILENO, out.data, out.length);
    if (!written) say("cannot write the list");
    json_out_clear(&out);
    return written ? XI_EXIT_OK : XI_EXIT_FAILED;
}

static int end_group(struct lister *l, xi_channel *ch) {
    int rc;
    do rc = xi_group_remove(ch, l->remove);
    while (rc == XI_E_INTR && !stop_signal());
    if (rc == 0) return XI_EXIT_OK;
    say("cannot remove group \"%s\": %s", l->remove, xi_error_text(rc));
    return XI_EXIT_FAILED;
}

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct lister *l) {
    static const struct option options[] = {{"ns", required_argument, NULL, 'n'},
                                            {"json", no_argument, NULL, OPTION_JSON},
                                            {"remove", required_argument, NULL, OPTION_REMOVE},
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
    for (int got; (got = getopt_long(argc, argv, ":n:h", options, NULL)) != -1;) {
        if (got == 'n') l->member.ns = optarg;
        else if (got == OPTION_JSON) l->json = true;
        else if (got == OPTION_REMOVE) l->remove = optarg;
        else if (got == 'h' || got == OPTION_HELP) return print_help();
        else return say_bad_option(argc, argv, got);
    }
    if (argc - optind != 1) return say_usage("expected the name of one channel, found %d", argc - optind);
    l->member.channel = argv[optind];
    return -1;
}

static int run(int argc, char **argv) {
    struct lister l = {.member = {.as = "xi group", .join_flags = XI_JOIN_NO_START,
                                  .open = {.flags = XI_OPEN_EXISTING | XI_OPEN_SEND}}};
    int status = parse(argc, argv, &l);
    if (status >= 0) return status;
    stop_install();
    struct member s;
    status = member_open(&s, &l.member);
    if (status) return status;
    status = l.remove ? end_group(&l, s.channel) : list(&l, s.channel);
    member_close(&s);
    return status;
}

const struct command command_group = {"group", "show or remove the groups of a channel", usage, run};
