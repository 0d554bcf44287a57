/* SPDX-License-Identifier: MIT */
/*
 * What the subcommands of xi share: messages, options, an interpreter with one
 * channel that signals may interrupt, and a look at /dev/shm.
 *
 * A message goes to standard error and begins with the command's name; it says
 * what was wrong and what to do. Exit statuses: 0 done, 1 the operation failed or
 * timed out, 2 the command line is wrong, 128 + N ended by signal N.
 */
#ifndef XI_COMMAND_H
#define XI_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "xidata.h"

enum { XI_EXIT_OK = 0, XI_EXIT_FAILED = 1, XI_EXIT_USAGE = 2 };

struct command {
    const char *name, *summary;
    const char *usage; /* all of --help */
    int (*run)(int argc, char **argv);
};
extern const struct command command_broker, command_ls, command_send, command_recv, command_tail, command_call, command_close, command_rm,
    command_group, command_ack, command_dead, command_run, command_doctor;

/* ---- messages (main.c) ---- */

/* "xi send: ..." on standard error. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, with where the help is; returns XI_EXIT_USAGE. */
int say_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* After getopt_long() returned '?' or ':' (with opterr 0): names the culprit. Returns XI_EXIT_USAGE. */
int say_bad_option(int argc, char **argv, int got);
/* Prints the usage of the running command to standard output; returns XI_EXIT_OK. */
int print_help(void);

/* ---- options (options.c) ---- */

enum { OPTION_NS = 1000, OPTION_HELP, OPTION_JSON, OPTION_WATCH, OPTION_RATE, OPTION_MODE, OPTION_TEXT, OPTION_BYTES,
       OPTION_GROUP, OPTION_RAW, OPTION_KEEP_GOING, OPTION_GRACE, OPTION_FIX, OPTION_FORCE, OPTION_REMOVE, OPTION_ACCESS,
       OPTION_FROM, OPTION_NEED_PEER, OPTION_TTL, OPTION_CAPACITY, OPTION_GROW, OPTION_VALUES, OPTION_RETAIN, OPTION_WHEN_FULL, OPTION_DEAD, OPTION_ACK,
       OPTION_ACK_TIMEOUT, OPTION_MAX_DELIVERIES, OPTION_DEAD_LETTERS, OPTION_WINDOW, OPTION_REQUEUE, OPTION_TO, OPTION_RETRY };

/* "2", "0.5", "200ms", "3s", "1m", "forever" to nanoseconds (XI_FOREVER). */
bool parse_duration(const char *text, int64_t *ns);
/* A whole number within the limits. */
bool parse_count(const char *text, uint64_t low, uint64_t high, uint64_t *out);
/* "4096", "64k", "1M", "2GiB" to bytes. */
bool parse_bytes(const char *text, uint64_t *out);
/* "tail", "oldest", "10". */
bool parse_from(const char *text, xi_group_opts *group);
/* What a new channel is to be like: the same for every subcommand that may make one. */
#define NEW_CHANNEL_OPTIONS                                                                                            \
    {"mode", required_argument, NULL, OPTION_MODE}, {"capacity", required_argument, NULL, OPTION_CAPACITY},            \
        {"grow", required_argument, NULL, OPTION_GROW}, {"values", required_argument, NULL, OPTION_VALUES},            \
        {"retain", required_argument, NULL, OPTION_RETAIN}, {"when-full", required_argument, NULL, OPTION_WHEN_FULL},  \
        {"dead", required_argument, NULL, OPTION_DEAD}, {"access", required_argument, NULL, OPTION_ACCESS}
#define NEW_CHANNEL_USAGE                                                                                              \
    "for a channel that does not exist yet:\n"                                                                         \
    "      --mode MODE     queue (each value to one receiver; the default) or broadcast (to every one)\n"              \
    "      --capacity SIZE bytes of its ring (64k); --grow SIZE: may grow to so much with its backlog\n"               \
    "      --values N      holds so many values at most; --retain N: keeps the last N for groups that join later\n"    \
    "      --when-full HOW block (the default), fail, or drop (the oldest make room)\n"                                \
    "      --dead CHANNEL  where values go that expired (see xi send --ttl)\n"                                          \
    "      --access LIST   what other users may do with it: bob:w,@staff:rw (r: receive, w: send)\n"
/* What a new group that acknowledges is to be like. */
#define NEW_ACK_GROUP_OPTIONS                                                                                          \
    {"ack-timeout", required_argument, NULL, OPTION_ACK_TIMEOUT}, {"window", required_argument, NULL, OPTION_WINDOW},  \
        {"max-deliveries", required_argument, NULL, OPTION_MAX_DELIVERIES},                                            \
        {"dead-letters", required_argument, NULL, OPTION_DEAD_LETTERS}
#define NEW_ACK_GROUP_USAGE                                                                                            \
    "for a group that acknowledges and does not exist yet:\n"                                                          \
    "      --ack-timeout TIME   what is not acknowledged in time goes to another consumer (default: never)\n"          \
    "      --max-deliveries N, --dead-letters CHANNEL   delivered so often in vain, it goes to CHANNEL\n"              \
    "      --window N           most values given out and not acknowledged\n"
#define NOT_AN_OPTION (-1)
/* Takes one of them: XI_EXIT_OK, NOT_AN_OPTION, or XI_EXIT_USAGE after a message. */
int new_channel_option(int got, const char *text, xi_open_opts *open);
int new_ack_group_option(int got, const char *text, xi_group_opts *group);
/* The optional argument of a long option, also when it is the next word and looks like a number. NULL: none. */
const char *optional_number(int argc, char **argv);
/* $XI_NAMESPACE or "default" for NULL; NULL after a message if it is not a valid name. */
const char *namespace_or_default(const char *ns);
/* Text from another process, for a terminal: what is no printable UTF-8 becomes '?'. `out` has `capacity` bytes. */
const char *printable(const char *text, char *out, size_t capacity);
/* "64 KiB"; `out` has 24 bytes. */
const char *human_bytes(uint64_t bytes, char *out);
/* Characters of valid UTF-8. */
size_t text_width(const char *utf8);
/* All of it to a descriptor. False with errno set. */
bool write_all(int fd, const void *data, size_t n);
int64_t now_ns(void); /* CLOCK_MONOTONIC */

/* ---- users (users.c) ---- */

/* Their names, or numbers where there are none. A list as xi_channel_info has it, with names. */
const char *user_name(uint32_t uid, char out[40]);
const char *access_names(const char *numbers, bool with_rights, char *out, size_t capacity);

/* ---- printing what was received (print.c) ---- */

struct json_out;
struct member;
/* One value on standard output; what cannot be printed is told, and *trouble. XI_EXIT_OK to go on. */
int print_message(const xi_msg *m, bool raw, struct json_out *out, bool *trouble);
/* The same into `out`, which is emptied. Negative: an error, with its sentence. */
int print_to(const xi_msg *m, bool raw, struct json_out *out);
/* send.c: sends one JSON text, which a NUL follows, as a value. XI_EXIT_OK, or an exit status after a message, in which
 * `where` names the text. */
int send_json_text(const struct member *to, int64_t timeout, const char *text, size_t n, const char *where);
/* True when whoever read our output is gone. */
bool reader_gone(void);

/* ---- stopping (stop.c) ---- */

/* From now on SIGINT, SIGTERM and SIGHUP make blocking calls return and stop_signal() tell; a second one kills. */
void stop_install(void);
/* 0, or the signal. */
int stop_signal(void);

/* ---- a joined interpreter with one channel (member.c) ---- */

struct member {
    xi_interp *me;
    xi_channel *channel;
    const char *name; /* of the channel */
};
struct member_opts {
    const char *ns;
    const char *channel;
    const char *as;       /* the interpreter's name */
    uint32_t join_flags;
    xi_open_opts open;
};
/* Both: XI_EXIT_OK, or an exit status after a message. */
int member_join(struct member *s, const struct member_opts *opts); /* opens no channel */
int member_open(struct member *s, const struct member_opts *opts);
void member_close(struct member *s);
/* xi_recv() that goes on after signals other than those that stop us. */
int receive_until(xi_channel *channel, xi_msg *m, int64_t timeout);

/* A wait that signals may interrupt and that then goes on for what is left. */
struct deadline {
    int64_t timeout, end;
};
struct deadline deadline_in(int64_t timeout);
int64_t deadline_left(const struct deadline *d); /* as a timeout for the next call */

/* ---- shared memory of this host (shm.c) ---- */

struct shm_file {
    char name[96];
    uid_t uid;
    char ns[32];
    uint64_t epoch;
    uint32_t number;
    bool registry;
    uint64_t bytes; /* of memory that it takes */
};
/* Every segment in /dev/shm, by user, namespace and name. Negative errno on failure. *out is from malloc(). */
int shm_scan(struct shm_file **out, size_t *count);

struct shm_namespace {
    bool readable;        /* its registry could be read */
    char problem[160];    /* if not: why */
    uint64_t epoch;
    int32_t broker_pid;
    bool broker_alive;
    uint32_t interps_alive, interps_dead; /* in the registry, and whether their processes are there */
};
/* Reads a namespace's registry, and /proc for who is alive. False: it has none. */
bool shm_namespace_look(uid_t uid, const char *ns, struct shm_namespace *out);
/* True if the process runs and is the one that started at that time (field 22 of /proc/PID/stat; 0: any). */
bool process_alive(int32_t pid, uint64_t start_time);

/* ---- table (table.c) ---- */

struct table {
    size_t columns;
    const char *align; /* a character a column: 'l' or 'r' */
    char **cells;      /* row by row, the head first */
    size_t count, room;
    bool failed;
};
void table_add(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct json_out;
/* Appends the table to `out`, and frees it. */
void table_finish(struct table *t, struct json_out *out);

#endif
