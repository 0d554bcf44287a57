/* SPDX-License-Identifier: MIT */
/*
 * xi run: so many processes in one namespace, started and stopped together.
 *
 * One loop waits for everything at once: signals (a signalfd), deaths (a pidfd
 * each), output (two pipes each) and the end of the grace time. A process that has
 * ended is reaped only when all have: until then its number names its process
 * group and nobody else's, so that signals cannot go astray.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run.h"
#include "xi.h"

static const char usage[] =
    "usage: xi run -n N [OPTIONS] [--] COMMAND [ARGUMENT...]\n\n"
    "Runs N processes of COMMAND in one namespace. Each gets XI_NAMESPACE, XI_RANK (0 to N-1) and XI_SIZE (N) in its\n"
    "environment, and /dev/null as its input; each line of its output gets [rank] before it. When one fails, the\n"
    "others are told to stop. Ctrl-C goes to all; a second one kills them.\n\n"
    "  -n, --count N        how many\n"
    "      --ns NAME        the namespace (default: a new one, removed in the end)\n"
    "      --keep-going     do not stop the others when one fails\n"
    "      --grace SECONDS  from SIGTERM to SIGKILL (default: 5)\n"
    "      --help           this text\n\n"
    "status: the worst of those that ended by themselves (128+N for signal N; 127 if COMMAND is not found); 128+N when\n"
    "xi itself was stopped by signal N\n\n"
    "example:\n  xi run -n 4 -- python3 worker.py\n";

#define CHILDREN_MAX 4096

/* ---- stopping ---- */

static void signal_groups(const struct run *r, int signal) {
    for (size_t i = 0; i < r->count; i++)
        if (r->children[i].pid > 0) kill(-r->children[i].pid, signal);
}

void run_stop(struct run *r, int signal) {
    r->stopping = true;
    if (signal == SIGKILL) r->killed = true;
    signal_groups(r, signal);
    if (signal != SIGKILL) signal_groups(r, SIGCONT); /* the stopped hear it too */
}

static void stop_with_grace(struct run *r) {
    if (r->stopping) return;
    run_stop(r, SIGTERM);
    r->kill_at = now_ns() + r->grace;
}

void run_signals(struct run *r) {
    struct signalfd_siginfo info;
    while (read(r->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        int signal = (int)info.ssi_signo;
        if (r->stop_signal != 0) {
            run_stop(r, SIGKILL);
            continue;
        }
        r->stop_signal = signal;
        run_stop(r, signal);
    }
}

/* ---- deaths ---- */

static void tell_end(const struct run *r, size_t rank, int status) {
    const char *then = r->keep_going || r->stopping || r->alive == 0 ? "" : "; stopping the others";
    if (status > 128)
        say("[%zu] was ended by signal %d (%s)%s", rank, status - 128, strsignal(status - 128), then);
    else
        say("[%zu] ended with status %d%s", rank, status, then);
}

static void note_end(struct run *r, size_t rank) {
    struct child *c = &r->children[rank];
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return;
    close(c->pidfd);
    c->pidfd = -1;
    r->alive--;
    c->status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    if (c->status == 0 || r->stopping) return; /* those whom we told to end do not count */
    if (c->status > r->worst) r->worst = c->status;
    run_read(r, rank, 1); /* what it said last comes before what we say of it */
    run_read(r, rank, 0);
    tell_end(r, rank, c->status);
    if (!r->keep_going) stop_with_grace(r);
}

static void reap(struct run *r) {
    if (r->stopping) signal_groups(r, SIGKILL); /* what those who have ended left in their groups */
    for (size_t i = 0; i < r->count; i++) {
        if (r->children[i].pid <= 0) continue;
        while (waitpid(r->children[i].pid, NULL, 0) < 0 && errno == EINTR) {}
        if (r->children[i].pidfd >= 0) close(r->children[i].pidfd);
    }
}

/* ---- the loop ---- */

static int wait_ms(const struct run *r) {
    if (r->kill_at == 0 || r->killed) return -1;
    int64_t left = (r->kill_at - now_ns() + 999999) / 1000000;
    return left < 0 ? 0 : left > 1000000 ? 1000000 : (int)left;
}

static void loop(struct run *r, struct pollfd *wait) {
    while (r->alive > 0) {
        size_t n = 1 + 3 * r->count;
        wait[0] = (struct pollfd){r->signals, POLLIN, 0};
        for (size_t i = 0; i < r->count; i++) {
            const struct child *c = &r->children[i];
            wait[1 + 3 * i] = (struct pollfd){c->pidfd, POLLIN, 0}; /* a negative descriptor is passed over */
            wait[2 + 3 * i] = (struct pollfd){c->stream[0].fd, POLLIN, 0};
            wait[3 + 3 * i] = (struct pollfd){c->stream[1].fd, POLLIN, 0};
        }
        if (poll(wait, n, wait_ms(r)) < 0 && errno != EINTR) {
            say("cannot wait for the processes: %s", strerror(errno));
            run_stop(r, SIGKILL);
            r->worst = XI_EXIT_FAILED;
            return;
        }
        if (wait[0].revents) run_signals(r);
        for (size_t i = 0; i < r->count; i++) {
            if (wait[2 + 3 * i].revents) run_read(r, i, 0);
            if (wait[3 + 3 * i].revents) run_read(r, i, 1);
            if (wait[1 + 3 * i].revents) note_end(r, i);
        }
        if (r->output_broken) stop_with_grace(r);
        if (r->kill_at && !r->killed && now_ns() >= r->kill_at) run_stop(r, SIGKILL);
    }
}

/* False after a message; those already started are told to stop. */
static bool start_all(struct run *r) {
    for (size_t i = 0; i < r->count; i++) {
        int status;
        if (!run_spawn(r, i, &status)) {
            r->worst = status;
            return false;
        }
        r->alive++;
    }
    return true;
}

static bool watch_signals(struct run *r) {
    static const int stops[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    sigset_t mask;
    sigemptyset(&mask);
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        struct sigaction action;
        /* Whoever started us with a signal ignored (nohup, a shell's background) wants that for all. */
        if (sigaction(stops[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&mask, stops[i]);
    }
    if (sigprocmask(SIG_BLOCK, &mask, &r->old_mask) != 0) return false;
    signal(SIGPIPE, SIG_IGN);
    r->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    return r->signals >= 0;
}

static int run_all(struct run *r) {
    struct pollfd *wait = calloc(1 + 3 * r->count, sizeof *wait);
    r->children = calloc(r->count, sizeof *r->children);
    if (!wait || !r->children || !watch_signals(r)) {
        say("cannot start: %s", strerror(errno));
        free(wait);
        free(r->children);
        return XI_EXIT_FAILED;
    }
    for (size_t i = 0; i < r->count; i++)
        r->children[i] = (struct child){.pidfd = -1, .stream = {{.fd = -1}, {.fd = -1}}};
    if (!start_all(r)) stop_with_grace(r);
    loop(r, wait);
    run_drain(r);
    reap(r);
    run_streams_free(r);
    close(r->signals);
    free(r->children);
    free(wait);
    if (r->own_ns) run_end_namespace(r->ns);
    if (r->stop_signal) return 128 + r->stop_signal;
    return r->output_broken && r->worst == 0 ? XI_EXIT_FAILED : r->worst;
}

/* ---- the command line ---- */

static bool fresh_namespace(char out[32]) {
    uint32_t random[2];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) return false;
    snprintf(out, 32, "run-%08x%08x", random[0], random[1]);
    return true;
}

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct run *r) {
    static const struct option options[] = {{"count", required_argument, NULL, 'n'},
                                            {"ns", required_argument, NULL, OPTION_NS},
                                            {"keep-going", no_argument, NULL, OPTION_KEEP_GOING},
                                            {"grace", required_argument, NULL, OPTION_GRACE},
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {0}};
    for (int got; (got = getopt_long(argc, argv, "+:n:h", options, NULL)) != -1;) {
        uint64_t count;
        switch (got) {
        case 'n':
            if (!parse_count(optarg, 1, CHILDREN_MAX, &count))
                return say_usage("count \"%s\": write how many processes, 1 to %d (the namespace is --ns)", optarg, CHILDREN_MAX);
            r->count = (size_t)count;
            break;
        case OPTION_NS: r->ns = optarg; break;
        case OPTION_KEEP_GOING: r->keep_going = true; break;
        case OPTION_GRACE:
            if (!parse_duration(optarg, &r->grace) || r->grace < 0)
                return say_usage("grace \"%s\": write seconds, or 500ms", optarg);
            break;
        case 'h': case OPTION_HELP: return print_help();
        default: return say_bad_option(argc, argv, got);
        }
    }
    if (r->count == 0) return say_usage("how many? give -n N");
    if (optind >= argc) return say_usage("which command?");
    r->command = argv + optind;
    if (r->ns && !namespace_or_default(r->ns)) return XI_EXIT_USAGE;
    return -1;
}

static int run(int argc, char **argv) {
    struct run r = {.grace = (int64_t)5000000000, .color = {isatty(STDOUT_FILENO), isatty(STDERR_FILENO)}};
    char fresh[32];
    int status = parse(argc, argv, &r);
    if (status >= 0) return status;
    if (getenv("NO_COLOR")) r.color[0] = r.color[1] = false;
    if (!r.ns) {
        if (!fresh_namespace(fresh)) {
            say("cannot make a name for a namespace: %s; give one with --ns", strerror(errno));
            return XI_EXIT_FAILED;
        }
        r.ns = fresh;
        r.own_ns = true;
    }
    return run_all(&r);
}

const struct command command_run = {"run", "run N processes in one namespace", usage, run};
