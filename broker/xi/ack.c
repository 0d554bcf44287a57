/* SPDX-License-Identifier: MIT */
/*
 * xi ack: work through a channel with a command. Each value is given to a run of
 * the command, on its standard input, and acknowledged when that ends well; else
 * it goes back to the group. The death of xi gives it back as well, and tells the
 * command to stop: then somebody else is working on it.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json.h"
#include "xi.h"

static const char usage[] =
    "usage: xi ack [OPTIONS] [--] CHANNEL COMMAND [ARGUMENT...]\n\n"
    "For each value of the channel runs COMMAND, with the value as a line of JSON on its standard input, and acknowledges the\n"
    "value when COMMAND ends with status 0. Otherwise the value is given back, to be delivered again. XI_DELIVERIES in the\n"
    "environment says how often it has been delivered, this time included. Ends when the channel is closed and drained.\n\n"
    "  -n, --ns NS         the namespace (default: $XI_NAMESPACE, else \"default\")\n"
    "  -c, --count COUNT   end after so many values\n"
    "  -t, --timeout TIME  wait at most so long for each value: 2, 0.5, 200ms, 1m; 0 takes what is there\n"
    "                      (default: forever). Status 1 if nothing came in time\n"
    "      --retry TIME    what failed is delivered again after so long at the earliest (default: 1)\n"
    "      --group G       work as a member of group G, whose members share the values\n"
    "      --from WHERE    where a new group begins: tail (the default), oldest, or a number: the last so many\n"
    "      --raw           text as it is, and bytes as they are with nothing added, rather than JSON\n"
    NEW_ACK_GROUP_USAGE
    NEW_CHANNEL_USAGE
    "      --help          this text\n\n"
    "A command may take as long as it likes: while it runs, its delivery does not become overdue. Status 1 if any failed; 127\n"
    "if COMMAND cannot be run: then xi ack ends, and the value is given back.\n\n"
    "examples:\n"
    "  xi ack jobs ./work.py\n"
    "  xi ack --max-deliveries 3 --dead-letters mail.dead --retry 30s mail sh -c 'jq -r .text | sendmail -t'\n";

#define NOT_RUN 127 /* as shells have it */

struct worker {
    struct member_opts opts;
    struct member member;
    xi_group_opts group;
    int64_t timeout, retry;
    uint64_t limit; /* 0: none */
    bool raw;
    bool trouble;   /* a command failed, or a value could not be read: status 1 in the end */
    char **command;
};

/* ---------------------------------------------------------- running the command */

/* The value as the command is to read it: a file of memory, at its beginning. -1 after a message. */
static int input_of(struct worker *w, const xi_msg *m, struct json_out *out) {
    int rc = print_to(m, w->raw, out);
    if (rc < 0) {
        say("a value of %zu bytes cannot be given to a command: %s", m->size, xi_error_text(rc));
        return -1;
    }
    int fd = memfd_create("xi-value", MFD_CLOEXEC);
    if (fd >= 0 && write_all(fd, out->data, out->length) && lseek(fd, 0, SEEK_SET) == 0) return fd;
    say("no memory for a value of %zu bytes: %s", out->length, strerror(errno));
    if (fd >= 0) close(fd);
    return -1;
}

/* The signals that end xi, which are passed on: kept back while there are two of us and no command yet. */
static void keep_back(sigset_t *before) {
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGHUP);
    sigprocmask(SIG_BLOCK, &ours, before);
}

/* In the child: what was kept back does to it what it does to a command. */
static void hear(const sigset_t *before) {
    static const int ours[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        struct sigaction old;
        if (sigaction(ours[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) signal(ours[i], SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, before, NULL);
}

/* In the child; does not return. */
__attribute__((noreturn)) static void become(const struct worker *w, int input, uint32_t deliveries, pid_t parent,
                                             const sigset_t *before) {
    char number[16];
    snprintf(number, sizeof number, "%u", deliveries);
    if (setpgid(0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == parent && dup2(input, STDIN_FILENO) >= 0 &&
        setenv("XI_DELIVERIES", number, 1) == 0) {
        signal(SIGPIPE, SIG_DFL);
        hear(before);
        execvp(w->command[0], w->command);
    }
    say("cannot run %s: %s", w->command[0], strerror(errno));
    _exit(NOT_RUN);
}

#define SECOND ((int64_t)1000000000)

/* How often a delivery is extended while its command runs, in ns: by the timeout of the group as it is, not as it is asked for. */
static int64_t extend_every(const struct worker *w) {
    int64_t ns = xi_ack_timeout(w->member.channel) / 3;
    return ns == 0 || ns > SECOND ? SECOND : ns;
}

/* Waits for the end of the process, whose group hears the signals that we get. As a shell would say its status. */
static int wait_for(struct worker *w, pid_t pid, xi_msg *m) {
    struct pollfd end = {(int)syscall(SYS_pidfd_open, pid, 0), POLLIN, 0};
    int told = 0, status = 0;
    int64_t next = 0, now;
    while (end.fd >= 0) {
        if ((now = now_ns()) >= next) {
            (void)xi_extend(m, 0); /* stale: another has it, which the acknowledgement will say */
            next = now + extend_every(w);
        }
        struct timespec left = {(next - now) / SECOND, (next - now) % SECOND};
        if (ppoll(&end, 1, &left, NULL) > 0) break; /* once told to stop, a signal comes all the time: the clock counts */
        if (stop_signal() != told && (told = stop_signal()) != 0) kill(-pid, told);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    if (end.fd >= 0) close(end.fd);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The command's status for this value. */
static int work(struct worker *w, xi_msg *m, struct json_out *out) {
    int input = input_of(w, m, out);
    if (input < 0) return XI_EXIT_FAILED;
    sigset_t before;
    keep_back(&before);
    pid_t self = getpid(), pid = fork();
    if (pid == 0) become(w, input, xi_msg_deliveries(m), self, &before);
    int err = errno;
    if (pid > 0) (void)setpgid(pid, pid); /* whoever of us two comes first */
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(input);
    if (pid > 0) return wait_for(w, pid, m);
    say("cannot start a process: %s", strerror(err));
    return XI_EXIT_FAILED;
}

/* ------------------------------------------------------------------- the values */

static void answer(struct worker *w, xi_msg *m, int status) {
    int rc = status == 0 ? xi_ack(m) : xi_nack(m, stop_signal() ? 0 : w->retry);
    if (status != 0 && !stop_signal()) {
        if (status > 128) say("%s was ended by signal %d (%s): the value is given back", w->command[0], status - 128, strsignal(status - 128));
        else say("%s ended with status %d: the value is given back", w->command[0], status);
    }
    if (rc) say(rc == XI_E_STALE ? "it came too late: the value was given to another meanwhile" : "%s", xi_error_text(rc));
    w->trouble |= status != 0 || rc != 0;
}

static int no_value(struct worker *w, int rc, uint64_t done) {
    if (rc == XI_E_CLOSED) return XI_EXIT_OK;
    if (rc == XI_E_AGAIN && w->limit == 0 && done > 0) return XI_EXIT_OK; /* all that was there */
    if (rc == XI_E_INTR) return 128 + stop_signal();
    if (rc == XI_E_AGAIN || rc == XI_E_TIMEOUT) say("nothing came on channel \"%s\" in time", w->member.name);
    else say("cannot receive from \"%s\": %s", w->member.name, xi_error_text(rc));
    return XI_EXIT_FAILED;
}

static int work_through(struct worker *w) {
    xi_msg m = XI_MSG_INIT;
    struct json_out out = {0};
    int status = XI_EXIT_OK;
    uint64_t done = 0;
    for (bool over = false; !over && (w->limit == 0 || done < w->limit);) {
        int rc = stop_signal() ? XI_E_INTR : receive_until(w->member.channel, &m, w->timeout);
        if (rc == 0) {
            int ended = work(w, &m, &out);
            answer(w, &m, ended);
            done++;
            over = ended == NOT_RUN;
            if (over) status = NOT_RUN;
        } else if (rc == XI_E_CORRUPT) {
            say("a value was skipped: %s", xi_error_text(rc));
            w->trouble = true;
        } else {
            status = no_value(w, rc, done);
            over = true;
        }
        xi_msg_release(&m);
    }
    json_out_clear(&out);
    return status == XI_EXIT_OK && w->trouble ? XI_EXIT_FAILED : status;
}

/* -------------------------------------------------------------- the command line */

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct worker *w) {
    static const struct option options[] = {{"ns", required_argument, NULL, 'n'},
                                            {"count", required_argument, NULL, 'c'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"retry", required_argument, NULL, OPTION_RETRY},
                                            {"group", required_argument, NULL, OPTION_GROUP},
                                            {"from", required_argument, NULL, OPTION_FROM},
                                            {"raw", no_argument, NULL, OPTION_RAW},
                                            NEW_ACK_GROUP_OPTIONS,
                                            NEW_CHANNEL_OPTIONS,
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
    int status;
    for (int got; (got = getopt_long(argc, argv, "+:n:c:t:h", options, NULL)) != -1;) {
        switch (got) {
        case 'n': w->opts.ns = optarg; break;
        case 'c':
            if (!parse_count(optarg, 1, UINT64_MAX, &w->limit)) return say_usage("count \"%s\": write a number from 1 up", optarg);
            break;
        case 't':
            if (!parse_duration(optarg, &w->timeout)) return say_usage("time \"%s\": write 2, 0.5, 200ms or 1m", optarg);
            break;
        case OPTION_RETRY:
            if (!parse_duration(optarg, &w->retry) || w->retry < 0) return say_usage("retry \"%s\": write 2, 0.5, 200ms or 1m", optarg);
            break;
        case OPTION_GROUP: w->opts.open.group = optarg; break;
        case OPTION_FROM:
            if (!parse_from(optarg, &w->group)) return say_usage("from \"%s\": write tail, oldest, or a number", optarg);
            break;
        case OPTION_RAW: w->raw = true; break;
        case 'h': case OPTION_HELP: return print_help();
        default:
            status = new_ack_group_option(got, optarg, &w->group);
            if (status == NOT_AN_OPTION) status = new_channel_option(got, optarg, &w->opts.open);
            if (status == NOT_AN_OPTION) return say_bad_option(argc, argv, got);
            if (status != XI_EXIT_OK) return status;
        }
    }
    if (argc - optind < 2) return say_usage("which channel, and which command?");
    w->opts.channel = argv[optind];
    w->command = argv + optind + 1;
    return -1;
}

static int run(int argc, char **argv) {
    struct worker w = {.opts = {.as = "xi ack", .open = {.flags = XI_OPEN_RECV}}, .timeout = XI_FOREVER, .retry = 1000000000};
    w.group.flags = XI_GROUP_ACK;
    w.opts.open.group_opts = &w.group;
    int status = parse(argc, argv, &w);
    if (status >= 0) return status;
    stop_install();
    status = member_open(&w.member, &w.opts);
    if (status) return status;
    status = work_through(&w);
    member_close(&w.member);
    return status;
}

const struct command command_ack = {"ack", "work through a channel with a command, acknowledging each value", usage, run};
