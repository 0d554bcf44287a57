/* SPDX-License-Identifier: MIT */
/*
 * xi send: JSON, text or a file's bytes into a channel.
 *
 * Values given on the command line are all parsed before the first is sent, so
 * that a mistake in the third does not leave two sent. Values that fit the ring
 * are built in memory; larger ones, and those with buffers, are built in place in a
 * loan, so that they are copied once.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>

#include "json.h"
#include "xi.h"

static const char usage[] =
    "usage: xi send [OPTIONS] CHANNEL [VALUE...]\n"
    "       xi send [OPTIONS] --bytes FILE CHANNEL\n\n"
    "Sends each VALUE, which is JSON; without one, each line of standard input. Makes the channel if need be, and\n"
    "waits while it is full.\n\n"
    "  -n, --ns NS         the namespace (default: $XI_NAMESPACE, else \"default\")\n"
    "  -t, --timeout TIME  wait at most so long for each value: 2, 0.5, 200ms, 1m; 0 does not wait (default: forever)\n"
    "      --ttl TIME      nobody receives the values after so long (default: the channel's own time to live, or none)\n"
    "      --text          VALUEs, or lines, are plain text rather than JSON\n"
    "      --bytes FILE    send the contents of FILE (- is standard input) as one bytes value\n"
    NEW_CHANNEL_USAGE
    "      --help          this text\n\n"
    "Values JSON lacks have tagged forms such as {\"$bytes\":\"AAEC\"} and {\"$tuple\":[1,2]}: see xi(1).\n"
    "A VALUE that begins with - goes after --.\n\n"
    "examples:\n"
    "  xi send jobs 42 '{\"path\":\"a.png\",\"size\":[640,480]}'\n"
    "  xi recv -n lab results | xi send -n home results\n";

struct sender {
    struct member member;
    int64_t timeout, ttl; /* as in xi_send_opts */
    uint64_t sent;
    xi_loan *loans; /* blocks of the value that is being built */
    size_t loan_count, loan_room;
};

struct send_args {
    struct member_opts member;
    int64_t timeout, ttl;
    bool text;
    const char *bytes;
};

/* ---- one encoded value ---- */

/* XI_EXIT_OK, or what the program shall exit with, after a message. */
static int sent(struct sender *s, int rc) {
    if (rc == 0) {
        s->sent++;
        return XI_EXIT_OK;
    }
    if (rc == XI_E_INTR) return 128 + stop_signal();
    if (rc == XI_E_TIMEOUT || rc == XI_E_AGAIN)
        say("channel \"%s\" is full and nobody made room in time; start a receiver, or give --timeout more", s->member.name);
    else
        say("cannot send on \"%s\": %s", s->member.name, xi_error_text(rc));
    return XI_EXIT_FAILED;
}

static int send_copy(struct sender *s, const void *value, size_t size) {
    struct deadline d = deadline_in(s->timeout);
    int rc;
    do {
        xi_send_opts opts = {.timeout = deadline_left(&d), .ttl_ns = s->ttl};
        rc = xi_send_ex(s->member.channel, value, size, &opts);
    } while (rc == XI_E_INTR && !stop_signal());
    return sent(s, rc);
}

static int send_loan(struct sender *s, xi_loan *root, size_t size) {
    struct deadline d = deadline_in(s->timeout);
    int rc = 0;
    for (size_t i = 0; i < s->loan_count && rc == 0; i++) rc = xi_loan_attach(root, &s->loans[i]);
    while (rc == 0) {
        xi_send_opts opts = {.timeout = deadline_left(&d), .ttl_ns = s->ttl};
        rc = xi_send_loan(s->member.channel, root, size, &opts);
        if (rc != XI_E_INTR || stop_signal()) break;
        rc = 0;
    }
    int status = sent(s, rc);
    xi_loan_drop(root); /* nothing if it was sent */
    return status;
}

/* ---- JSON ---- */

/* struct json_place: a loan for each buffer within the value. */
static int place(void *context, size_t size, void **data, xi_buffer_ref *ref) {
    struct sender *s = context;
    if (s->loan_count == s->loan_room) {
        size_t room = s->loan_room ? s->loan_room * 2 : 8;
        xi_loan *loans = realloc(s->loans, room * sizeof *loans);
        if (!loans) return XI_E_NOMEM;
        s->loans = loans;
        s->loan_room = room;
    }
    xi_loan loan = {0};
    int rc = xi_loan_get(s->member.me, size ? size : 1, &loan);
    if (rc) return rc;
    *data = loan.data;
    *ref = (xi_buffer_ref){loan.handle, 0, size};
    s->loans[s->loan_count++] = loan;
    return 0;
}

static void drop_loans(struct sender *s) {
    for (size_t i = 0; i < s->loan_count; i++) xi_loan_drop(&s->loans[i]);
    s->loan_count = 0;
}

/* `where` names the text in messages: "value 3", "line 17 of the input". */
static int bad_json(const struct json *j, const char *where) {
    if (j->error.line > 1)
        say("%s, line %zu, column %zu: %s", where, j->error.line, j->error.column, j->error.text);
    else
        say("%s, column %zu: %s", where, j->error.column, j->error.text);
    return XI_EXIT_FAILED;
}

static int send_json_small(struct sender *s, struct json *j, size_t size, const char *where) {
    uint64_t *buffer = malloc(size);
    if (!buffer) return say("out of memory for a value of %zu bytes", size), XI_EXIT_FAILED;
    xi_builder b;
    xi_builder_init(&b, buffer, size, 0);
    int rc = json_build(j, &b, NULL);
    int status = rc ? bad_json(j, where) : send_copy(s, buffer, size);
    free(buffer);
    return status;
}

static int send_json_loan(struct sender *s, struct json *j, size_t size, uint32_t flags, const char *where) {
    struct json_place at = {place, s};
    xi_loan root = {0};
    int rc = xi_loan_get(s->member.me, size, &root);
    if (rc) return sent(s, rc);
    xi_builder b;
    xi_builder_init(&b, root.data, size, flags);
    rc = json_build(j, &b, &at);
    int status = rc ? bad_json(j, where) : send_loan(s, &root, size);
    drop_loans(s);
    xi_loan_drop(&root);
    return status;
}

static int send_parsed(struct sender *s, struct json *j, const char *where) {
    struct json_place at = {place, s};
    uint32_t flags = j->length >= (size_t)1 << 30 ? XI_BUILD_LONG : 0;
    xi_builder b;
    xi_builder_init(&b, NULL, 0, flags);
    int rc = json_build(j, &b, &at);
    if (rc) return bad_json(j, where);
    int64_t size = xi_builder_finish(&b);
    if (size < 0) return sent(s, (int)size);
    if (j->buffers == 0 && (size_t)size <= xi_inline_max(s->member.channel))
        return send_json_small(s, j, (size_t)size, where);
    return send_json_loan(s, j, (size_t)size, flags, where);
}

int send_json_text(const struct member *to, int64_t timeout, const char *text, size_t n, const char *where) {
    struct sender s = {.member = *to, .timeout = timeout};
    struct json j = {0};
    int status = json_parse(&j, text, n) ? bad_json(&j, where) : send_parsed(&s, &j, where);
    json_clear(&j);
    free(s.loans);
    return status;
}

/* ---- text and bytes ---- */

static int send_blob(struct sender *s, bool text, const void *data, size_t n) {
    size_t room = XI_SIZE_BYTES(n);
    xi_loan loan = {0};
    int rc = xi_loan_get(s->member.me, room, &loan);
    if (rc) return sent(s, rc);
    xi_builder b;
    xi_builder_init(&b, loan.data, room, 0);
    if (text)
        xi_put_str(&b, xi_check_text(XI_ASCII, 0, data, n) == 0 ? XI_ASCII : XI_UTF8, 0, data, n);
    else
        xi_put_bytes(&b, data, n);
    int64_t size = xi_builder_finish(&b);
    if (size < 0) {
        xi_loan_drop(&loan);
        return sent(s, (int)size);
    }
    int status;
    if ((size_t)size <= xi_inline_max(s->member.channel))
        status = send_copy(s, loan.data, (size_t)size);
    else
        status = send_loan(s, &loan, (size_t)size);
    xi_loan_drop(&loan);
    return status;
}

static int send_text(struct sender *s, const char *text, size_t n, const char *where) {
    if (xi_check_text(XI_UTF8, 0, text, n) != 0) {
        say("%s is not UTF-8 text; send it with --bytes, or convert it (iconv -t UTF-8)", where);
        return XI_EXIT_FAILED;
    }
    return send_blob(s, true, text, n);
}

/* All of a file. NULL after a message. */
static char *read_file(const char *path, size_t *size) {
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    size_t room = 65536, used = 0;
    char *data = fd < 0 ? NULL : malloc(room);
    while (data) {
        if (used == room) {
            char *more = realloc(data, room *= 2);
            if (!more) break;
            data = more;
        }
        ssize_t n = read(fd, data + used, room - used);
        if (n < 0 && errno == EINTR && !stop_signal()) continue;
        if (n < 0) break;
        used += (size_t)n;
        if (n > 0) continue;
        if (fd != STDIN_FILENO) close(fd);
        *size = used;
        return data;
    }
    if (!stop_signal()) say("cannot read %s: %s", path, strerror(errno));
    free(data);
    if (fd > STDIN_FILENO) close(fd);
    return NULL;
}

/* ---- where the values come from ---- */

static int send_line(struct sender *s, bool text, struct json *j, const char *line, size_t n, uint64_t number) {
    char where[48];
    snprintf(where, sizeof where, "line %llu of the input", (unsigned long long)number);
    if (text) return send_text(s, line, n, where);
    if (strspn(line, " \t\r") == n) return XI_EXIT_OK; /* an empty line */
    return json_parse(j, line, n) ? bad_json(j, where) : send_parsed(s, j, where);
}

struct line {
    char *text; /* with a zero behind it */
    size_t length, room;
};

static bool line_add(struct line *l, int c) {
    if (l->length + 2 > l->room) {
        size_t room = l->room ? l->room * 2 : 256;
        char *more = realloc(l->text, room);
        if (!more) return false;
        l->text = more;
        l->room = room;
    }
    l->text[l->length++] = (char)c;
    l->text[l->length] = 0;
    return true;
}

/* The next whole line, without its end; the last one may have none. 1; 0 at the end; -1 on an error (errno), or when told to
 * stop: what has been read of a line by then is no line. Not getline(), which gives that out as one. */
static int read_line(struct line *l) {
    if (!l->text && !line_add(l, 0)) return -1;
    l->text[l->length = 0] = 0;
    for (;;) {
        int c = getc_unlocked(stdin);
        if (c == '\n') return 1;
        if (c != EOF) {
            if (!line_add(l, c)) return -1;
            continue;
        }
        if (!ferror(stdin)) return l->length > 0;
        if (errno != EINTR || stop_signal()) return -1;
        clearerr(stdin);
    }
}

static int send_input(struct sender *s, bool text) {
    struct json j = {0};
    struct line line = {0};
    int status = XI_EXIT_OK, more = 1;
    for (uint64_t number = 1; status == XI_EXIT_OK && !stop_signal() && (more = read_line(&line)) > 0; number++)
        status = send_line(s, text, &j, line.text, line.length, number);
    if (more < 0 && !stop_signal()) {
        say("cannot read the input: %s", strerror(errno));
        status = XI_EXIT_FAILED;
    }
    if (status != XI_EXIT_OK && s->sent > 0) say("%llu values before it were sent", (unsigned long long)s->sent);
    free(line.text);
    json_clear(&j);
    return status;
}

/* Parses every argument before anything is sent. */
static int check_arguments(char **values, int count, bool text) {
    struct json j = {0};
    int status = XI_EXIT_OK;
    struct json_place nowhere = {place, NULL}; /* not called while counting */
    for (int i = 0; i < count && status == XI_EXIT_OK && !text; i++) {
        char where[32];
        xi_builder b;
        xi_builder_init(&b, NULL, 0, 0);
        snprintf(where, sizeof where, "value %d", i + 1);
        if (json_parse(&j, values[i], strlen(values[i])) || json_build(&j, &b, &nowhere)) {
            bad_json(&j, where);
            status = XI_EXIT_USAGE;
        }
    }
    json_clear(&j);
    return status;
}

static int send_arguments(struct sender *s, char **values, int count, bool text) {
    struct json j = {0};
    int status = XI_EXIT_OK;
    for (int i = 0; i < count && status == XI_EXIT_OK && !stop_signal(); i++) {
        char where[32];
        size_t n = strlen(values[i]);
        snprintf(where, sizeof where, "value %d", i + 1);
        if (text)
            status = send_text(s, values[i], n, where);
        else
            status = json_parse(&j, values[i], n) ? bad_json(&j, where) : send_parsed(s, &j, where);
    }
    if (status != XI_EXIT_OK && count > 1) say("%llu of %d values were sent", (unsigned long long)s->sent, count);
    json_clear(&j);
    return status;
}

static int send_file(struct sender *s, const char *path) {
    size_t n;
    char *data = read_file(path, &n);
    if (!data) return XI_EXIT_FAILED;
    int status = send_blob(s, false, data, n);
    free(data);
    return status;
}

/* ---- the command line ---- */

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct send_args *a) {
    static const struct option options[] = {{"ns", required_argument, NULL, 'n'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"ttl", required_argument, NULL, OPTION_TTL},
                                            NEW_CHANNEL_OPTIONS,
                                            {"text", no_argument, NULL, OPTION_TEXT},
                                            {"bytes", required_argument, NULL, OPTION_BYTES},
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
    int status;
    for (int got; (got = getopt_long(argc, argv, ":n:t:h", options, NULL)) != -1;) {
        switch (got) {
        case 'n': a->member.ns = optarg; break;
        case 't':
            if (!parse_duration(optarg, &a->timeout)) return say_usage("time \"%s\": write 2, 0.5, 200ms or 1m", optarg);
            break;
        case OPTION_TTL:
            if (!parse_duration(optarg, &a->ttl) || a->ttl == 0)
                return say_usage("time to live \"%s\": write 2, 0.5, 200ms, 1m or forever", optarg);
            break;
        case OPTION_TEXT: a->text = true; break;
        case OPTION_BYTES: a->bytes = optarg; break;
        case 'h': case OPTION_HELP: return print_help();
        default:
            status = new_channel_option(got, optarg, &a->member.open);
            if (status == NOT_AN_OPTION) return say_bad_option(argc, argv, got);
            if (status != XI_EXIT_OK) return status;
        }
    }
    if (optind >= argc) return say_usage("which channel?");
    a->member.channel = argv[optind++];
    if (a->bytes && (a->text || optind < argc)) return say_usage("--bytes sends one file: give no VALUE and no --text");
    return -1;
}

static int run(int argc, char **argv) {
    struct send_args a = {.member = {.as = "xi send", .open = {.flags = XI_OPEN_SEND}}, .timeout = XI_FOREVER};
    int status = parse(argc, argv, &a);
    if (status >= 0) return status;
    char **values = argv + optind;
    int count = argc - optind;
    status = check_arguments(values, count, a.text);
    if (status) return status;
    stop_install();
    struct sender s = {.timeout = a.timeout, .ttl = a.ttl};
    status = member_open(&s.member, &a.member);
    if (status) return status;
    if (a.bytes) status = send_file(&s, a.bytes);
    else if (count > 0) status = send_arguments(&s, values, count, a.text);
    else status = send_input(&s, a.text);
    if (stop_signal()) status = 128 + stop_signal();
    free(s.loans);
    member_close(&s.member);
    return status;
}

const struct command command_send = {"send", "send JSON, text or bytes on a channel", usage, run};
