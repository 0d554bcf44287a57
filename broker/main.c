/* SPDX-License-Identifier: MIT */
/*
 * xi-broker: options, signals, and the order of coming and going.
 *
 * Coming: lock, namespace (adopted or new), socket, "ready". Going: socket (so
 * that nobody comes any more), namespace, lock file last.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker.h"
#include "error.h"
#include "keep.h"
#include "log.h"
#include "start.h"
#include "store.h"
#include "want.h"
#include "wire/names.h"
#include "xidata.h"

struct options {
    struct broker_options broker;
    const char *log_path;
    int ready_fd;
    bool foreground, verbose;
};

static const char usage[] =
    "usage: xi-broker [options]\n"
    "Serves one xidata namespace: names, identities and channels for the interpreters of this user on this host, and\n"
    "repair when one of them dies. Interpreters start one by themselves when none runs.\n"
    "\n"
    "  -n, --namespace NAME    the namespace ($XI_NAMESPACE, else \"default\")\n"
    "  -v, --verbose           say more: joins, leaves, collections\n"
    "      --log FILE          append to FILE instead of stderr\n"
    "      --auto              go to the background; leave when the last interpreter has gone\n"
    "      --foreground        with --auto: stay in the foreground\n"
    "      --ready-fd N        write \"ready\" or \"busy\" (another broker serves it) to descriptor N when that is "
    "known\n"
    "      --memfd             segments without names, sealed: only the broker hands them out. Two processes then: one\n"
    "                          that keeps them, and the broker, which the first starts again when it is killed; one if\n"
    "                          a service manager keeps them (xi-broker(1))\n"
    "      --open-to WHO       let other users join: USER or @GROUP (names or numbers), or * for everybody; several with\n"
    "                          commas. They name this namespace USER/NAME. Channels stay their makers' alone unless made\n"
    "                          open. Implies --memfd\n"
    "      --quota-bytes N     shared memory of one user (K, M, G, T may follow; default 256G). Of each quota another user\n"
    "                          than this one has a quarter, unless it is given here: then it is everybody's\n"
    "      --quota-segments N  default 65536\n"
    "      --quota-channels N  default 16384, which is the most there can be\n"
    "      --quota-interps N   default 511, which is the most there can be\n"
    "  -h, --help              this\n"
    "      --version\n"
    "\n"
    "Environment: XI_RUNTIME_DIR (folder of the sockets; else $XDG_RUNTIME_DIR/xidata, else /tmp/xidata-UID),\n"
    "XI_WAIT=auto|uring|futex, XI_LINGER (seconds). SIGTERM and SIGINT end the namespace and remove it. See "
    "xi-broker(1).\n";

enum {
    OPT_LOG = 256,
    OPT_AUTO,
    OPT_FOREGROUND,
    OPT_READY,
    OPT_MEMFD,
    OPT_OPEN_TO,
    OPT_BYTES,
    OPT_SEGMENTS,
    OPT_CHANNELS,
    OPT_INTERPS,
    OPT_VERSION
};
static const struct option long_options[] = {{"namespace", required_argument, NULL, 'n'},
                                             {"verbose", no_argument, NULL, 'v'},
                                             {"log", required_argument, NULL, OPT_LOG},
                                             {"auto", no_argument, NULL, OPT_AUTO},
                                             {"foreground", no_argument, NULL, OPT_FOREGROUND},
                                             {"ready-fd", required_argument, NULL, OPT_READY},
                                             {"memfd", no_argument, NULL, OPT_MEMFD},
                                             {"open-to", required_argument, NULL, OPT_OPEN_TO},
                                             {"quota-bytes", required_argument, NULL, OPT_BYTES},
                                             {"quota-segments", required_argument, NULL, OPT_SEGMENTS},
                                             {"quota-channels", required_argument, NULL, OPT_CHANNELS},
                                             {"quota-interps", required_argument, NULL, OPT_INTERPS},
                                             {"help", no_argument, NULL, 'h'},
                                             {"version", no_argument, NULL, OPT_VERSION},
                                             {NULL, 0, NULL, 0}};

static _Noreturn void misused(const char *what, const char *value) {
    fprintf(stderr, "xi-broker: %s \"%s\"; see xi-broker --help\n", what, value);
    exit(2);
}

/* A whole number up to `most`, K, M, G or T times 1,024 each. */
static uint64_t number(const char *text, uint64_t most, const char *what) {
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    bool good = errno == 0 && end != text && text[0] != '-' && (!*end || (unit && !end[1]));
    for (long i = unit ? unit - units + 1 : 0; i > 0 && good; i--) {
        good = n <= UINT64_MAX / 1024;
        n *= 1024;
    }
    if (!good || n > most) misused(what, text);
    return n;
}

static enum loop_choice wait_choice(void) {
    const char *wait = getenv("XI_WAIT");
    if (!wait || !wait[0] || strcmp(wait, "auto") == 0) return LOOP_AUTO;
    if (strcmp(wait, "uring") == 0) return LOOP_URING;
    if (strcmp(wait, "futex") == 0) return LOOP_POLL;
    misused("XI_WAIT is auto, uring or futex, not", wait);
}

/* How long undelivered values wait for somebody when no interpreter is left: for ever, or XI_LINGER seconds. */
static int64_t linger_ns(void) {
    const char *text = getenv("XI_LINGER");
    if (!text || !text[0]) return -1;
    char *end;
    double seconds = strtod(text, &end);
    if (*end || !(seconds >= 0 && seconds <= 1e9)) misused("XI_LINGER is a number of seconds, not", text);
    return (int64_t)(seconds * 1e9);
}

/* Names are looked up here, once: what others have is numbers. */
static void open_to(struct options *o, const char *who) {
    int rc = xi_access_parse(who, false, o->broker.open_to);
    if (rc) {
        fprintf(stderr, "xi-broker: --open-to: %s\n", xi_error_text(rc));
        exit(2);
    }
    o->broker.open = o->broker.memfd = true;
}

static void take_option(struct options *o, int c, const char *value) {
    struct state_limits *limits = &o->broker.limits, *others = &o->broker.other_limits;
    switch (c) {
    case 'n': o->broker.ns = value; break;
    case 'v': o->verbose = true; break;
    case 'h': fputs(usage, stdout); exit(0);
    case OPT_VERSION: puts("xi-broker " XI_VERSION); exit(0);
    case OPT_LOG: o->log_path = value; break;
    case OPT_AUTO: o->broker.automatic = true; break;
    case OPT_FOREGROUND: o->foreground = true; break;
    case OPT_READY: o->ready_fd = (int)number(value, 1 << 20, "not a descriptor:"); break;
    case OPT_MEMFD: o->broker.memfd = true; break;
    case OPT_OPEN_TO: open_to(o, value); break;
    case OPT_BYTES: limits->bytes = others->bytes = number(value, UINT64_MAX, "not a number of bytes:"); break;
    case OPT_SEGMENTS:
        limits->segments = others->segments = (uint32_t)number(value, UINT32_MAX / 2, "not a number of segments:");
        break;
    case OPT_CHANNELS:
        limits->channels = others->channels = (uint32_t)number(value, XI_MAX_CHANNELS, "not a number of channels:");
        break;
    case OPT_INTERPS:
        limits->interps = others->interps = (uint32_t)number(value, XI_MAX_INTERPS - 1, "not a number of interpreters:");
        break;
    default: exit(2); /* getopt has said why */
    }
}

static void parse(struct options *o, int argc, char **argv) {
    static const struct state_limits limits = STATE_LIMITS_DEFAULT;
    *o = (struct options){
        .broker = {.ns = xi_ns_default(),
                   .limits = limits,
                   .other_limits = {limits.bytes / 4, limits.segments / 4, limits.channels / 4, limits.interps / 4},
                   .wait = wait_choice(), .linger_ns = linger_ns()},
        .ready_fd = -1};
    for (int c; (c = getopt_long(argc, argv, "n:vh", long_options, NULL)) != -1;) take_option(o, c, optarg);
    if (optind < argc) misused("unexpected argument", argv[optind]);
    if (!xi_ns_valid(o->broker.ns))
        misused("a namespace is 1 to 31 of A-Z a-z 0-9 _ . -, not beginning with a dot:", o->broker.ns);
    if (!o->broker.automatic) o->foreground = true;
    if (o->ready_fd >= 0 && fcntl(o->ready_fd, F_SETFD, FD_CLOEXEC) != 0) {
        char text[16];
        snprintf(text, sizeof text, "%d", o->ready_fd);
        misused("--ready-fd is not an open descriptor:", text);
    }
}

/* Tells whoever started us how it went: "ready", "busy", or "error", its code and the sentence that says why not. */
static void say_ready(struct options *o, const char *words) {
    if (o->ready_fd < 0) return;
    dprintf(o->ready_fd, "%s\n", words);
    want_tell(-1);
    close(o->ready_fd);
    o->ready_fd = -1;
}

static int open_log(const char *path) {
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (path && fd < 0) {
        fprintf(stderr, "xi-broker: cannot open the log %s: %s\n", path, strerror(errno));
        exit(1);
    }
    return fd;
}

static int failed(struct options *o, int rc) {
    char words[512];
    log_line("%s", xi_error_text(rc));
    snprintf(words, sizeof words, "error %d %s", rc, xi_error_text(rc));
    say_ready(o, words);
    return 1;
}

/* ---- signals ---- */

struct signals {
    struct broker *broker;
    struct watch *watch;
    int fd;
};

static int signals_open(bool foreground) {
    sigset_t set;
    signal(SIGPIPE, SIG_IGN);
    if (!foreground) signal(SIGHUP, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (foreground) sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd >= 0 ? fd : xi_fail_errno(errno, "cannot make a signalfd");
}

static void on_signal(void *context, int result, const void *data) {
    struct signals *s = context;
    struct signalfd_siginfo info;
    char why[64];
    (void)result;
    (void)data;
    if (read(s->fd, &info, sizeof info) != (ssize_t)sizeof info) {
        loop_again(s->broker->loop, s->watch);
        return;
    }
    snprintf(why, sizeof why, "ended by SIG%s", sigabbrev_np((int)info.ssi_signo));
    broker_stop(s->broker, why);
}

/* ---- coming and going ---- */

static void run(struct options *o, struct broker *b, const int listen_fd[2], int signal_fd) {
    struct signals s = {.broker = b, .fd = signal_fd};
    s.watch = loop_poll(b->loop, signal_fd, POLLIN, on_signal, &s);
    broker_listen(b, listen_fd[0], listen_fd[1]);
    log_more("serving namespace \"%s\" (pid %d, waiting in %s)", o->broker.ns, (int)getpid(), loop_name(b->loop));
    say_ready(o, "ready");
    store_say("READY=1");
    while (!b->stopping) broker_turn(b);
    loop_stop(b->loop, s.watch);
    store_say("STOPPING=1");
}

static void remove_sockets(const struct options *o) {
    start_remove_socket(o->broker.ns);
    store_drop_thing(STORE_SOCKET);
    if (!o->broker.open) return;
    start_remove_open_socket(o->broker.ns);
    store_drop_thing(STORE_OPEN_SOCKET);
}

/* The socket that a service manager kept, on which some may wait already; else a new one. */
static int start_door(const struct options *o, enum store_thing door, bool *stale) {
    const char *ns = o->broker.ns;
    bool open = door == STORE_OPEN_SOCKET;
    int fd = store_take(door);
    if (fd >= 0 && start_is_socket(ns, open, fd)) return fd;
    if (fd >= 0) store_refuse(door, fd, "it does not listen where this namespace is looked for");
    fd = open ? start_open_socket(ns) : start_socket(ns, stale);
    if (fd >= 0) store_hold_thing(door, fd);
    return fd;
}

static int start_or_keep_lock(const struct options *o) {
    int fd = store_take(STORE_LOCK);
    if (fd >= 0 && start_is_lock(o->broker.ns, fd)) return fd;
    if (fd >= 0) store_refuse(STORE_LOCK, fd, "it is not the lock of this namespace");
    fd = start_lock(o->broker.ns);
    if (fd >= 0) store_hold_thing(STORE_LOCK, fd);
    return fd;
}

static int start_sockets(const struct options *o, int fds[2], bool *stale) {
    int closed = o->broker.open ? -1 : store_take(STORE_OPEN_SOCKET);
    if (closed >= 0) store_refuse(STORE_OPEN_SOCKET, closed, "this broker is not open to other users");
    fds[0] = start_door(o, STORE_SOCKET, stale);
    if (fds[0] < 0) return fds[0];
    if (!o->broker.open) return 0;
    fds[1] = start_door(o, STORE_OPEN_SOCKET, stale);
    if (fds[1] >= 0) return 0;
    start_remove_socket(o->broker.ns);
    store_drop_thing(STORE_SOCKET);
    return fds[1];
}

/* What a broker has open before it begins. With memfds its keeper, or the service manager, has it too, for the next. */
struct ground {
    struct options *options;
    int lock_fd, listen_fd[2];
    bool stale; /* there was a socket already */
};

static int serve(void *context) {
    static struct broker broker;
    struct ground *g = context;
    struct options *o = g->options;
    int signal_fd = signals_open(o->foreground);
    int rc = signal_fd < 0 ? signal_fd : broker_init(&broker, &o->broker);
    if (rc) { /* what could not be taken over is left to a broker that can */
        remove_sockets(o);
        return failed(o, rc);
    }
    if (g->stale && !broker.found)
        log_line("an earlier broker of this namespace ended without a word and left nothing to adopt; starting afresh");
    run(o, &broker, g->listen_fd, signal_fd);
    remove_sockets(o);
    broker_deinit(&broker);
    for (int i = 0; i < 2; i++)
        if (g->listen_fd[i] >= 0) close(g->listen_fd[i]);
    start_remove_lock(o->broker.ns);
    store_drop_thing(STORE_LOCK);
    store_end();
    close(g->lock_fd);
    close(signal_fd);
    return 0;
}

/* The broker tells whoever waits that it is ready; nobody else does. */
static void leave_it_to_the_broker(void *context) {
    struct ground *g = context;
    want_tell(-1);
    if (g->options->ready_fd >= 0) close(g->options->ready_fd);
    g->options->ready_fd = -1;
    g->stale = false;
}

static int begin(struct options *o, int lock_fd) {
    struct ground g = {.options = o, .lock_fd = lock_fd, .listen_fd = {-1, -1}};
    int rc = start_sockets(o, g.listen_fd, &g.stale);
    if (rc) return failed(o, rc);
    if (!o->broker.memfd || store_keeps()) return serve(&g);
    int signal_fd = signals_open(o->foreground);
    return signal_fd < 0 ? failed(o, signal_fd) : keep_run(serve, leave_it_to_the_broker, &g, signal_fd);
}

int main(int argc, char **argv) {
    struct options o;
    int starter = -1, rc;
    parse(&o, argc, argv);
    store_begin(o.broker.ns, !o.broker.automatic); /* the manager of who joins is not this one's */
    int log_fd = open_log(o.log_path);
    log_init(o.broker.ns, o.verbose, log_fd >= 0);
    if (o.foreground && log_fd >= 0) dup2(log_fd, STDERR_FILENO);
    umask(077);
    want_tell(o.ready_fd);
    if (!o.foreground && (rc = start_daemonize(o.ready_fd, log_fd, &starter)) != 0) return failed(&o, rc);
    start_await_end(starter);
    start_raise_limits();
    if (o.broker.automatic) start_leave_scheduling();
    store_open(o.broker.memfd);
    int lock_fd = start_or_keep_lock(&o);
    if (lock_fd == XI_E_AGAIN && o.broker.automatic) {
        say_ready(&o, "busy");
        return 0;
    }
    if (lock_fd < 0) return failed(&o, lock_fd);
    return begin(&o, lock_fd);
}
