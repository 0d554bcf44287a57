/* SPDX-License-Identifier: MIT */
/*
 * xi ls: interpreters and channels of a namespace, read from the registry and
 * the channels' own counters in shared memory. It joins nothing and asks
 * nobody, so it shows a namespace whose broker hangs as well as any other.
 *
 * Rates are the difference of two samples.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "xi.h"

static const char usage[] =
    "usage: xi ls [OPTIONS]\n\n"
    "Shows the interpreters and channels of a namespace, without joining it.\n\n"
    "  -n, --ns NS            the namespace (default: $XI_NAMESPACE, else \"default\")\n"
    "      --json             one JSON object a sample, with everything there is\n"
    "      --rate [SECONDS]   count for so long (default 1) and show values per second\n"
    "      --watch [SECONDS]  show again and again, with rates; end with Ctrl-C\n"
    "      --help             this text\n\n"
    "interpreters: REFS references that others hold, ARENA its shared memory, BLOCKS values in it not yet given back\n"
    "of a namespace that is open to other users also: USER, OWNER, and ACCESS, what others may do (r: receive, w: send)\n"
    "channels: DEPTH values not yet received by the slowest group, USED of CAPACITY bytes of the ring, WAITING threads\n"
    "asleep on it\n\n"
    "example:\n  xi ls -n lab --watch 2\n";

struct sample {
    int64_t at; /* ns */
    int32_t broker;
    uint32_t uid;      /* whose it is */
    char open_to[256]; /* "": nobody else */
    xi_interp_info *interps;
    size_t interp_count;
    xi_channel_info *channels; /* by id */
    size_t channel_count;
};

struct view {
    const char *ns;
    bool json, rates;
    int64_t interval; /* 0: once */
    bool watch;
};

/* ---- taking a sample ---- */

static void sample_clear(struct sample *s) {
    free(s->interps);
    free(s->channels);
    *s = (struct sample){0};
}

static int by_id(const void *a, const void *b) {
    const xi_channel_info *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}
static int by_name(const void *a, const void *b) {
    return strcmp(((const xi_channel_info *)a)->name, ((const xi_channel_info *)b)->name);
}
static int by_interp(const void *a, const void *b) {
    const xi_interp_info *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Lists of unknown length: asks again with more room while there are more than fit. */
static int list_interps(xi_observer *o, struct sample *s) {
    for (size_t room = 64;;) {
        xi_interp_info *list = realloc(s->interps, room * sizeof *list);
        if (!list) return XI_E_NOMEM;
        s->interps = list;
        int64_t n = xi_list_interps(o, list, room);
        if (n < 0) return (int)n;
        s->interp_count = (size_t)n;
        if ((size_t)n <= room) return 0;
        room = (size_t)n + 16;
    }
}

static int list_channels(xi_observer *o, struct sample *s) {
    for (size_t room = 64;;) {
        xi_channel_info *list = realloc(s->channels, room * sizeof *list);
        if (!list) return XI_E_NOMEM;
        s->channels = list;
        int64_t n = xi_list_channels(o, list, room);
        if (n < 0) return (int)n;
        s->channel_count = (size_t)n;
        if ((size_t)n <= room) return 0;
        room = (size_t)n + 16;
    }
}

static int take_sample(const char *ns, struct sample *s) {
    xi_observer *o;
    *s = (struct sample){0};
    int rc = xi_observe(ns, &o);
    if (rc) return rc;
    s->broker = xi_observer_broker_pid(o);
    s->uid = xi_observer_uid(o);
    snprintf(s->open_to, sizeof s->open_to, "%s", xi_observer_open_to(o));
    rc = list_interps(o, s);
    if (rc == 0) rc = list_channels(o, s);
    s->at = now_ns();
    xi_observer_free(o);
    if (rc) {
        sample_clear(s);
        return rc;
    }
    qsort(s->interps, s->interp_count, sizeof *s->interps, by_interp);
    qsort(s->channels, s->channel_count, sizeof *s->channels, by_id);
    return 0;
}

/* ---- rates ---- */

struct rate {
    bool known;
    double in, out; /* values a second */
};

static struct rate rate_of(const xi_channel_info *c, const struct sample *now, const struct sample *before) {
    struct rate r = {false, 0, 0};
    const xi_channel_info *old = before->at ? bsearch(c, before->channels, before->channel_count, sizeof *c, by_id) : NULL;
    /* A counter that went back belongs to another channel, or lost a group. */
    if (!old || strcmp(old->name, c->name) != 0 || now->at <= before->at || c->sent < old->sent) return r;
    double seconds = (double)(now->at - before->at) / 1e9;
    r.known = true;
    r.in = (double)(c->sent - old->sent) / seconds;
    r.out = c->received < old->received ? 0 : (double)(c->received - old->received) / seconds;
    return r;
}

static const char *mode_name(uint32_t mode) {
    return mode == XI_QUEUE ? "queue" : mode == XI_BROADCAST ? "broadcast" : "?";
}

/* ---- for people ---- */

static void show_interps(const struct sample *s, struct json_out *out) {
    bool open = s->open_to[0];
    struct table t = {.columns = open ? 9 : 8, .align = "rrllrrrll"};
    static const char *const head[] = {"ID", "PID", "NAME", "LANGUAGE", "REFS", "ARENA", "BLOCKS", "WAIT", "USER"};
    if (s->interp_count == 0) {
        json_puts(out, "no interpreters\n");
        return;
    }
    for (size_t c = 0; c < t.columns; c++) table_add(&t, "%s", head[c]);
    for (size_t i = 0; i < s->interp_count; i++) {
        const xi_interp_info *p = &s->interps[i];
        char name[64], language[64], wait[32], bytes[24], user[40];
        table_add(&t, "%lld", (long long)p->id);
        table_add(&t, "%d", p->pid);
        table_add(&t, "%s", printable(p->name, name, sizeof name));
        table_add(&t, "%s", printable(p->language, language, sizeof language));
        table_add(&t, "%u", p->id_refcount);
        table_add(&t, "%s", human_bytes(p->arena_bytes, bytes));
        table_add(&t, "%llu", (unsigned long long)p->blocks);
        table_add(&t, "%s", printable(p->wait, wait, sizeof wait));
        if (open) table_add(&t, "%s", user_name(p->uid, user));
    }
    table_finish(&t, out);
}

static void add_rate(struct table *t, bool known, double rate) {
    if (known)
        table_add(t, rate > 0 && rate < 10 ? "%.1f" : "%.0f", rate);
    else
        table_add(t, "-");
}

static void show_access(struct table *t, const xi_channel_info *c) {
    char user[40], access[1024];
    table_add(t, "%s", user_name(c->owner, user));
    table_add(t, "%s", c->access[0] ? access_names(c->access, true, access, sizeof access) : "-");
}

static void show_channel(struct table *t, const xi_channel_info *c, const struct view *view, bool open, struct rate rate) {
    char name[192], used[24], capacity[24];
    table_add(t, "%s", printable(c->name, name, sizeof name));
    table_add(t, "%s%s", mode_name(c->mode), c->closed ? " closed" : "");
    table_add(t, "%llu", (unsigned long long)c->depth);
    table_add(t, "%s", human_bytes(c->used, used));
    table_add(t, "%s", human_bytes(c->capacity, capacity));
    table_add(t, "%u", c->groups);
    table_add(t, "%u", c->waiting);
    table_add(t, "%llu", (unsigned long long)c->sent);
    if (open) show_access(t, c);
    if (!view->rates) return;
    add_rate(t, rate.known, rate.in);
    add_rate(t, rate.known, rate.out);
}

static void show_channels(const struct view *view, const struct sample *s, const struct sample *before,
                          struct json_out *out) {
    static const char *const heads[] = {"CHANNEL", "MODE",  "DEPTH", "USED",   "CAPACITY", "GROUPS",
                                        "WAITING", "SENT", "OWNER", "ACCESS", "IN/s",     "OUT/s"};
    bool open = s->open_to[0];
    struct table t = {.columns = 8 + (open ? 2 : 0) + (view->rates ? 2 : 0), .align = open ? "llrrrrrrllrr" : "llrrrrrrrr"};
    if (s->channel_count == 0) {
        json_puts(out, "no channels\n");
        return;
    }
    xi_channel_info *list = malloc(s->channel_count * sizeof *list);
    if (!list) {
        out->error = XI_E_NOMEM;
        return;
    }
    memcpy(list, s->channels, s->channel_count * sizeof *list);
    qsort(list, s->channel_count, sizeof *list, by_name);
    for (size_t c = 0; c < t.columns; c++) table_add(&t, "%s", heads[c < 8 || open ? c : c + 2]);
    for (size_t i = 0; i < s->channel_count; i++) show_channel(&t, &list[i], view, open, rate_of(&list[i], s, before));
    free(list);
    table_finish(&t, out);
}

static void show_people(const struct view *view, const struct sample *s, const struct sample *before,
                        struct json_out *out) {
    const char *state = process_alive(s->broker, 0) ? "" : ", which is not running: the next to join starts another";
    char user[40], who[1024];
    json_printf(out, "namespace %s", view->ns);
    if (s->open_to[0])
        json_printf(out, " of %s, open to %s", user_name(s->uid, user), access_names(s->open_to, false, who, sizeof who));
    json_printf(out, ", broker %d%s\n\n", s->broker, state);
    show_interps(s, out);
    json_puts(out, "\n");
    show_channels(view, s, before, out);
}

/* ---- for programs ---- */

static void put_member(struct json_out *out, const char *name, unsigned long long v) {
    json_printf(out, ",\"%s\":%llu", name, v);
}

static void put_text_member(struct json_out *out, const char *name, const char *text) {
    json_printf(out, ",\"%s\":", name);
    json_put_string(out, text, strlen(text));
}

static void put_interp(struct json_out *out, const xi_interp_info *p) {
    json_printf(out, "{\"id\":%lld,\"pid\":%d,\"uid\":%u", (long long)p->id, p->pid, p->uid);
    put_text_member(out, "name", p->name);
    put_text_member(out, "language", p->language);
    put_text_member(out, "wait", p->wait);
    put_member(out, "references", p->id_refcount);
    json_printf(out, ",\"requires_reference\":%s", p->flags & XI_JOIN_REQUIRES_REF ? "true" : "false");
    put_member(out, "arena_bytes", p->arena_bytes);
    put_member(out, "blocks", p->blocks);
    put_member(out, "borrows", p->borrows);
    put_member(out, "sent", p->sent);
    put_member(out, "received", p->received);
    put_member(out, "parks", p->parks);
    put_member(out, "wakes", p->wakes);
    json_puts(out, ",\"joined\":");
    json_put_float(out, (double)p->joined_ns / 1e9);
    json_puts(out, "}");
}

static void put_channel(struct json_out *out, const xi_channel_info *c, struct rate rate) {
    json_printf(out, "{\"id\":%llu", (unsigned long long)c->id);
    put_text_member(out, "name", c->name);
    put_text_member(out, "mode", mode_name(c->mode));
    json_printf(out, ",\"closed\":%s", c->closed ? "true" : "false");
    put_member(out, "depth", c->depth);
    put_member(out, "capacity", c->capacity);
    put_member(out, "used", c->used);
    put_member(out, "groups", c->groups);
    put_member(out, "waiting", c->waiting);
    put_member(out, "handles", c->handles);
    put_member(out, "owner", c->owner);
    put_text_member(out, "access", c->access);
    put_member(out, "sent", c->sent);
    put_member(out, "received", c->received);
    if (rate.known) {
        json_puts(out, ",\"in_per_second\":");
        json_put_float(out, rate.in);
        json_puts(out, ",\"out_per_second\":");
        json_put_float(out, rate.out);
    }
    json_puts(out, "}");
}

static void show_json(const struct view *view, const struct sample *s, const struct sample *before,
                      struct json_out *out) {
    json_puts(out, "{\"namespace\":");
    json_put_string(out, view->ns, strlen(view->ns));
    json_printf(out, ",\"uid\":%u", s->uid);
    put_text_member(out, "open_to", s->open_to);
    json_printf(out, ",\"broker_pid\":%d,\"broker_alive\":%s,\"interpreters\":[", s->broker,
                process_alive(s->broker, 0) ? "true" : "false");
    for (size_t i = 0; i < s->interp_count; i++) {
        if (i) json_puts(out, ",");
        put_interp(out, &s->interps[i]);
    }
    json_puts(out, "],\"channels\":[");
    for (size_t i = 0; i < s->channel_count; i++) {
        if (i) json_puts(out, ",");
        put_channel(out, &s->channels[i], rate_of(&s->channels[i], s, before));
    }
    json_puts(out, "]}\n");
}

/* ---- once, or again and again ---- */

static int show(const struct view *view, const struct sample *s, const struct sample *before, struct json_out *out) {
    bool screen = view->watch && !view->json && isatty(STDOUT_FILENO);
    out->length = 0;
    if (screen) json_puts(out, "\033[H\033[2J");
    if (view->json)
        show_json(view, s, before, out);
    else
        show_people(view, s, before, out);
    if (view->watch && !view->json && !screen) json_puts(out, "\n");
    if (out->error) {
        say("out of memory");
        return XI_EXIT_FAILED;
    }
    if (write_all(STDOUT_FILENO, out->data, out->length)) return XI_EXIT_OK;
    say("cannot write to standard output: %s", strerror(errno));
    return XI_EXIT_FAILED;
}

static int no_namespace(const char *ns, int rc) {
    struct shm_file *files;
    size_t count, shown = 0;
    char list[400] = "";
    if (rc != XI_E_NOENT || strchr(ns, '/')) {
        say("cannot look at namespace \"%s\": %s", ns, xi_error_text(rc));
        return XI_EXIT_FAILED;
    }
    if (shm_scan(&files, &count) == 0) {
        for (size_t i = 0; i < count && shown < 10; i++)
            if (files[i].registry && files[i].uid == getuid())
                snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", shown++ ? ", " : "", files[i].ns);
        free(files);
    }
    if (shown)
        say("there is no namespace \"%s\"; there are: %s (choose with -n)", ns, list);
    else
        say("there is no namespace \"%s\": nobody of this user has joined one (try: xi send jobs 1)", ns);
    return XI_EXIT_FAILED;
}

/* Sleeps for the interval or until a signal asks to stop: its number, or 0. */
static int pause_for(int64_t ns) {
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGHUP);
    int64_t end = now_ns() + ns;
    for (int64_t left = ns;; left = end - now_ns()) {
        if (left < 0) left = 0;
        struct timespec t = {left / 1000000000, left % 1000000000};
        int got = sigtimedwait(&stop, NULL, &t);
        if (got > 0) return got;
        if (errno == EAGAIN || left == 0) return 0;
    }
}

static void block_signals(void) {
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGHUP);
    sigprocmask(SIG_BLOCK, &stop, NULL);
}

static int look(const struct view *view) {
    struct sample now = {0}, before = {0};
    struct json_out out = {0};
    int status = XI_EXIT_OK, stop = 0;
    if (view->interval) block_signals();
    int rc = take_sample(view->ns, &now);
    if (rc) return no_namespace(view->ns, rc);
    if (view->watch) status = show(view, &now, &before, &out);
    while (status == XI_EXIT_OK && view->interval && (stop = pause_for(view->interval)) == 0) {
        sample_clear(&before);
        before = now;
        rc = take_sample(view->ns, &now);
        if (rc) {
            status = no_namespace(view->ns, rc);
            break;
        }
        if (!view->watch) break;
        status = show(view, &now, &before, &out);
    }
    if (!view->watch && status == XI_EXIT_OK && stop == 0) status = show(view, &now, &before, &out);
    sample_clear(&now);
    sample_clear(&before);
    json_out_clear(&out);
    return stop ? 128 + stop : status;
}

/* ---- the command line ---- */

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct view *view) {
    static const struct option options[] = {{"ns", required_argument, NULL, 'n'},
                                            {"json", no_argument, NULL, OPTION_JSON},
                                            {"rate", optional_argument, NULL, OPTION_RATE},
                                            {"watch", optional_argument, NULL, OPTION_WATCH},
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
    for (int got; (got = getopt_long(argc, argv, ":n:h", options, NULL)) != -1;) {
        const char *number;
        switch (got) {
        case 'n': view->ns = optarg; break;
        case OPTION_JSON: view->json = true; break;
        case OPTION_RATE: case OPTION_WATCH:
            if (got == OPTION_WATCH) view->watch = true;
            view->rates = true;
            number = optional_number(argc, argv);
            view->interval = 1000000000;
            if (number && (!parse_duration(number, &view->interval) || view->interval < 10000000))
                return say_usage("interval \"%s\": write seconds, at least 0.01", number);
            break;
        case 'h': case OPTION_HELP: return print_help();
        default: return say_bad_option(argc, argv, got);
        }
    }
    if (optind < argc) return say_usage("unexpected word \"%s\"; the namespace goes after -n", argv[optind]);
    view->ns = namespace_or_default(view->ns);
    return view->ns ? -1 : XI_EXIT_USAGE;
}

static int run(int argc, char **argv) {
    struct view view = {0};
    int status = parse(argc, argv, &view);
    return status >= 0 ? status : look(&view);
}

const struct command command_ls = {"ls", "list interpreters and channels, with rates", usage, run};
