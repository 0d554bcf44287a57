/* SPDX-License-Identifier: MIT */
/*
 * Every operation (fault_ops.c) with every kind of fault, in the library and in
 * the broker: the first call of a kind fails, then the second alone, and so on
 * until an operation ends without having reached the fault; and the same with
 * all calls failing from there on.
 *
 * Each case is a process of its own, which joins, prepares, arms the fault, acts,
 * and then looks that
 *   - what came back is a success, or an error of a code that this fault may
 *     have, with a sentence of its own;
 *   - the same operation succeeds now, and its effect is there once;
 *   - others go on: a witness, which has been there all the time, uses each
 *     channel of the case and asks the broker;
 *   - after it has left, nothing is left: descriptors, memory and mappings of this
 *     process and of the broker, names in /dev/shm are as many as without a fault.
 *
 *   test_faults [-v] [OPERATION-PART [KIND-PART]]     -v prints every distinct sentence
 *   XI_TEST_LONG=1: all kinds, for good as well, and a namespace of memfds
 */
#include <fcntl.h>
#include <sys/wait.h>

#include "error.h"
#include "fault.h"
#include "fault_ops.h"

/* ---- kinds of faults */

enum { ONCE_ONLY = 1, HANDLED = 2, LATER = 4, WAITING = 8, STOPS = 16 };
struct kind {
    enum fault_call call;
    int error;
    uint32_t flags;  /* HANDLED: the operation must succeed; LATER: with XI_TEST_LONG; WAITING: tried where io_uring is not
                        used, too; STOPS: for good it is as if the broker were stopped, for which everybody waits */
    uint32_t library, broker; /* codes that may come of it */
};
#define MEM CODE(XI_E_NOMEM)
#define BROKER CODE(XI_E_BROKER)
static const struct kind kinds[] = {
    {CALL_MEMORY, ENOMEM, 0, MEM, BROKER | MEM},
    {CALL_MMAP, ENOMEM, 0, MEM, MEM | BROKER},
    {CALL_MADVISE, ENOMEM, 0, CODE(XI_E_NOMEM), 0},
    {CALL_FALLOCATE, ENOSPC, 0, CODE(XI_E_NOSPACE), CODE(XI_E_NOSPACE)},
    {CALL_FALLOCATE, EINTR, ONCE_ONLY | HANDLED, 0, 0},
    {CALL_FALLOCATE, ENOMEM, LATER, MEM, MEM},
    {CALL_FTRUNCATE, ENOMEM, 0, MEM, MEM},
    {CALL_SHM_OPEN, EMFILE, 0, MEM, MEM | BROKER},
    {CALL_SHM_OPEN, ENOMEM, LATER, MEM, MEM | BROKER},
    {CALL_MEMFD, EMFILE, 0, MEM, MEM | BROKER},
    {CALL_OPEN, EMFILE, 0, MEM, MEM | BROKER},
    {CALL_OPENDIR, EMFILE, 0, MEM, MEM | BROKER},
    {CALL_FSTAT, ENOMEM, 0, MEM, MEM | BROKER},
    {CALL_PREAD, ENOMEM, 0, MEM, MEM | BROKER},
    {CALL_PWRITE, ENOMEM, 0, MEM, MEM | BROKER},
    {CALL_FCNTL, EMFILE, 0, MEM, MEM | BROKER},
    {CALL_PIPE, EMFILE, 0, MEM, 0},
    {CALL_SPAWN, EAGAIN, 0, BROKER, 0},
    {CALL_FORK, EAGAIN, 0, 0, BROKER | MEM},
    {CALL_THREAD, EAGAIN, WAITING, MEM, 0},
    {CALL_KEY, EAGAIN, HANDLED, 0, 0},
    {CALL_ATFORK, ENOMEM, 0, MEM, 0},
    {CALL_SOCKET, EMFILE, 0, MEM, MEM | BROKER},
    {CALL_CONNECT, EINTR, ONCE_ONLY | HANDLED, 0, 0},
    {CALL_CONNECT, EAGAIN, ONCE_ONLY | HANDLED, 0, 0},
    {CALL_CONNECT, ECONNREFUSED, ONCE_ONLY | HANDLED | LATER, 0, 0},
    {CALL_CONNECT, ENOMEM, 0, MEM, 0},
    {CALL_BIND, ENOMEM, 0, 0, MEM | BROKER},
    {CALL_ACCEPT, EMFILE, ONCE_ONLY | HANDLED, 0, 0},
    {CALL_SEND, EINTR, ONCE_ONLY | HANDLED, 0, 0},
    {CALL_SEND, ENOMEM, 0, BROKER | MEM, 0},
    {CALL_SEND, EPIPE, ONCE_ONLY | LATER, BROKER, 0},
    {CALL_SENDMSG, EINTR, ONCE_ONLY | HANDLED, 0, 0},
    {CALL_SENDMSG, EAGAIN, STOPS, 0, BROKER},
    {CALL_SENDMSG, ENOMEM, LATER, 0, BROKER},
    {CALL_RECVMSG, EINTR, ONCE_ONLY | HANDLED, 0, 0},
    {CALL_RECVMSG, ENOMEM, 0, BROKER | MEM, BROKER},
    {CALL_RECVMSG, ECONNRESET, LATER, BROKER, BROKER},
    {CALL_SOCKOPT, EMFILE, 0, MEM, MEM | BROKER},
    {CALL_POLL, EINTR, ONCE_ONLY | HANDLED, 0, 0},
    {CALL_POLL, ENOMEM, WAITING | STOPS, MEM | BROKER, BROKER},
    {CALL_EVENTFD, EMFILE, WAITING, MEM, 0},
    {CALL_SIGNALFD, EMFILE, 0, 0, MEM | BROKER},
    {CALL_PIDFD, EMFILE, 0, MEM, MEM | BROKER},
    {CALL_FUTEX_WAIT, EINTR, ONCE_ONLY | WAITING, CODE(XI_E_INTR), 0},
    {CALL_FUTEX_WAIT, EAGAIN, ONCE_ONLY | HANDLED | WAITING, 0, 0},
    {CALL_MEMBARRIER, EPERM, HANDLED, 0, 0},
    {CALL_URING_SETUP, ENOMEM, HANDLED, 0, 0},
    {CALL_URING_SETUP, EPERM, HANDLED | LATER, 0, 0},
    {CALL_URING_ENTER, EINTR, ONCE_ONLY, CODE(XI_E_INTR), 0},
    {CALL_URING_ENTER, EAGAIN, STOPS, CODE(XI_E_INTR), 0},
    {CALL_URING_ENTER, EBUSY, LATER | STOPS, CODE(XI_E_INTR), 0},
    {CALL_URING_ENTER, ENOMEM, LATER | STOPS, CODE(XI_E_INTR), 0},
    {CALL_URING_REGISTER, ENOMEM, HANDLED, 0, 0},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

/* ---- a case, and what it found */

struct figures {
    int64_t blocks, mapped;
    int fds;
};
struct found {
    int64_t rc;
    uint32_t failed;      /* calls that were made to fail */
    bool done;            /* the case came to its end */
    char text[512];
    uint32_t calls[FAULT_ROLES][CALLS];
    struct figures left;
};
struct trial {
    const struct operation *op;
    const struct kind *kind; /* NULL: nothing fails */
    enum fault_role role;
    uint32_t from;
    bool for_good;
    char ns[32];
    int64_t number;
};
static struct found *found; /* shared with the process of the case */
static struct trial now;
static pid_t keeper; /* of a namespace of memfds */
static bool verbose, all, narrow, spoiling, waits; /* narrow: some operations only, so all of their cases */
static struct {
    uint32_t cases, injected, calls_failed, errors, spoilt, failures;
} total;

static const char *describe(const struct trial *t) {
    static char text[200];
    snprintf(text, sizeof text, "\"%s\", %s of the %s: %s, call %u%s", t->op->name,
             t->kind ? fault_call_names[t->kind->call] : "nothing", t->role == FAULT_BROKER ? "broker" : "library",
             t->kind ? strerrorname_np(t->kind->error) : "no fault", t->from, t->for_good ? " and all after it" : "");
    return text;
}

static int count_dir(const char *path) {
    int n = 0;
    DIR *d = opendir(path);
    if (!d) return -1;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* ---- the witness: a process that is there all the time, and must never notice anything */

static int ask[2], answer[2];

/* Each channel of the case that is open: takes its producers' lock, and its group's where that has anything for us. */
static bool use_channels(xi_interp *me) {
    static xi_channel_info list[64];
    int64_t n = xi_list_channels(xi_observer_of(me), list, 64);
    for (int64_t i = 0; i < n; i++) {
        xi_channel *ch;
        if (strncmp(list[i].name, FAULT_PREFIX, strlen(FAULT_PREFIX)) != 0) continue;
        int rc = xi_open(me, list[i].name, &(xi_open_opts){.flags = XI_OPEN_SEND | XI_OPEN_EXISTING}, &ch);
        if (rc == XI_E_NOENT) continue;
        must(rc);
        rc = xi_send_int(ch, 99, 300 * MS);
        bool full = rc == XI_E_TIMEOUT && list[i].depth > 0;
        bool good = rc == 0 || rc == XI_E_CLOSED || full;
        if (!good) snprintf(found->text, sizeof found->text, "the witness cannot send on \"%s\": %s", list[i].name, xi_error_text(rc));
        must(xi_channel_free(ch));
        if (!good) return false;
    }
    return true;
}

static void remove_channels(xi_interp *me) {
    static xi_channel_info list[64];
    int64_t n = xi_list_channels(xi_observer_of(me), list, 64);
    for (int64_t i = 0; i < n; i++) {
        if (strncmp(list[i].name, FAULT_PREFIX, strlen(FAULT_PREFIX)) != 0) continue;
        int rc = xi_remove(me, list[i].name);
        expect(rc == 0 || rc == XI_E_NOENT, "remove \"%s\": %s", list[i].name, xi_error_text(rc));
    }
}

static void witness(void *ns) {
    char what;
    xi_msg m = XI_MSG_INIT;
    fault_spare(true);
    xi_interp *me = join_ns(ns, "witness", 0);
    xi_channel *ch = open_queue(me, "witness");
    for (int64_t i = 1; read(ask[0], &what, 1) == 1; i++) {
        if (what == 'q') break;
        must(xi_send_int(ch, i, XI_TRY));
        must(xi_recv(ch, &m, XI_TRY));
        expect(message_int(&m) == i, "the witness got another value");
        bool good = what != 'u' || use_channels(me);
        if (what == 'r') remove_channels(me);
        must(xi_ref(me, xi_id(me)));
        must(xi_unref(me, xi_id(me)));
        int32_t pid = good ? broker_pid(me) : 0;
        expect(write(answer[1], &pid, sizeof pid) == (ssize_t)sizeof pid, "no answer");
    }
    xi_msg_release(&m);
    leave_with(me, ch);
}

/* The pid of the broker; 0: the witness could not do what it was asked, and has said why. */
static int32_t witness_says(char what) {
    int32_t pid;
    expect(write(ask[1], &what, 1) == 1, "the witness is gone");
    expect(read(answer[0], &pid, sizeof pid) == (ssize_t)sizeof pid, "the witness is gone: %s", describe(&now));
    return pid;
}

/* ---- one case, in a process of its own */

static bool may_be(const struct trial *t, int64_t rc) {
    if (rc >= 0) return true;
    uint32_t codes = t->op->may;
    if (!(t->kind->flags & HANDLED)) codes |= t->role == FAULT_BROKER ? t->kind->broker : t->kind->library;
    return codes & CODE(rc);
}

static void judge(const struct trial *t, int64_t rc) {
    if (rc >= 0) return;
    const char *text = found->text;
    expect(may_be(t, rc), "%s: %s: %s", describe(t), xi_error_name((int)rc), text);
    if (rc == XI_E_INTR || t->op->may & CODE(rc)) return; /* there is nothing to add */
    (void)xi_fail(rc == -1 ? -2 : -1, "x"); /* so that the general sentence comes back */
    expect(strcmp(text, xi_error_text((int)rc)) != 0 && strlen(text) > 15, "%s: %s without a sentence of its own: %s",
           describe(t), xi_error_name((int)rc), text);
}

static void act(struct scene *s, const struct trial *t) {
    for (unsigned i = 0; i < FAULT_ROLES; i++) fault_count(i);
    if (t->kind) fault_arm(t->role, t->kind->call, t->kind->error, t->from, t->for_good);
    int64_t rc = t->op->act(s);
    snprintf(found->text, sizeof found->text, "%s", rc < 0 ? xi_error_text((int)rc) : "");
    fault_disarm(t->role);
    found->rc = rc;
    found->failed = t->kind ? atomic_load(&fault_page->role[t->role].failed) : 0;
    for (unsigned r = 0; r < FAULT_ROLES; r++)
        for (unsigned i = 0; i < CALLS; i++) found->calls[r][i] = atomic_load(&fault_page->role[r].calls[i]);
    if (!t->kind) expect(rc >= 0, "%s: %s", describe(t), found->text);
    else judge(t, rc);
    if (rc < 0 && !(t->op->flags & OP_ONCE)) {
        int64_t again = t->op->act(s);
        expect(again >= 0, "%s: %s; and without a fault then %s: %s", describe(t), found->text, xi_error_name((int)again),
               xi_error_text((int)again));
    }
    if (t->op->verify) t->op->verify(s);
}

static void run_case(void *argument) {
    const struct trial *t = argument;
    struct scene s;
    alarm(60);
    if (spoiling && !verbose) must_sys(dup2(open("/dev/null", O_WRONLY), 2)); /* what it complains of is on purpose */
    atomic_store(&fault_page->role[FAULT_LIBRARY].blocks, 0);
    atomic_store(&fault_page->role[FAULT_LIBRARY].mapped, 0);
    scene_begin(&s, t->ns, t->number);
    if (t->op->prepare) t->op->prepare(&s);
    if (t->op->flags & OP_FORKS) {
        pid_t child = fork();
        must_sys(child);
        if (child) _exit(reap(child) == 0 ? 0 : 1);
        alarm(60);
    }
    act(&s, t);
    if (!(t->op->flags & OP_APART)) expect(witness_says('u') != 0, "%s: %s", describe(t), found->text);
    scene_end(&s);
    found->left = (struct figures){atomic_load(&fault_page->role[FAULT_LIBRARY].blocks),
                                   atomic_load(&fault_page->role[FAULT_LIBRARY].mapped), count_dir("/proc/self/fd")};
    found->done = true;
    _exit(0);
}

/* ---- what is left afterwards */

struct ground {
    int32_t pid;
    int names, fds;
    int64_t blocks;
};

static struct ground look(char what) {
    char path[40];
    struct ground g = {.pid = witness_says(what)};
    snprintf(path, sizeof path, "/proc/%d/fd", g.pid);
    g.fds = count_dir(path);
    g.names = segments_of(now.ns, false);
    g.blocks = atomic_load(&fault_page->role[FAULT_BROKER].blocks);
    return g;
}

/* Until the broker holds no more than before: it works off what comes after a leave in slices. */
static bool settled(const struct ground *before, struct ground *after) {
    int64_t until = now_ns() + 3 * SECOND;
    do {
        *after = look('r');
        if (after->pid != before->pid) return true; /* another broker, which waits for a second: see try_all() */
        if (after->names <= before->names && after->fds <= before->fds) return true;
    } while (now_ns() < until);
    return false;
}

static bool kept_more(const struct figures *now_, const struct figures *base) {
    return now_->blocks > base->blocks || now_->mapped > base->mapped || now_->fds > base->fds;
}

__attribute__((format(printf, 1, 2))) static void failed(const char *format, ...) {
    va_list args;
    total.failures++;
    if (spoiling) return; /* as it should */
    fprintf(stderr, "FAILED: %s: ", describe(&now));
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    expect(total.failures < 100, "too many failures");
}

static bool ran_well(void) {
    memset(found, 0, sizeof *found);
    int status = reap(spawn(run_case, &now));
    if (status == 0 && found->done) return true;
    failed("the case ended with wait status %#x (rc %lld: %s)", status, (long long)found->rc, found->text);
    fault_disarm(now.role);
    if (!(now.op->flags & OP_APART)) (void)look('r');
    return false;
}

/* What is kept is told by `base`: what is left without a fault. */
static bool left_nothing(const struct figures *base, const struct ground *before, bool last) {
    struct ground after = *before;
    bool apart = now.op->flags & OP_APART;
    if (!apart && !settled(before, &after)) {
        failed("the broker kept something: %d descriptors instead of %d, %d names instead of %d", after.fds, before->fds,
               after.names, before->names);
        if (verbose) segments_of(now.ns, true);
        return true;
    }
    if (!base) return true;
    if (!kept_more(&found->left, base) && (apart || after.pid != before->pid || after.blocks <= before->blocks)) return true;
    if (last)
        failed("something was kept: %lld blocks (%lld without a fault), %lld bytes mapped (%lld), %d descriptors (%d); in the "
               "broker %lld blocks (%lld before)", (long long)found->left.blocks, (long long)base->blocks,
               (long long)found->left.mapped, (long long)base->mapped, found->left.fds, base->fds, (long long)after.blocks,
               (long long)before->blocks);
    return false;
}

/* Runs it. True if the fault was reached. */
static bool run_trial(const struct figures *base) {
    static int64_t number;
    /* Threads may end sooner or later, tables grow now and then: what is lost is lost each time. */
    for (int tries = 1; tries <= 4; tries++) {
        struct ground before = {0};
        now.number = ++number;
        if (now.op->flags & OP_APART) snprintf(now.ns, sizeof now.ns, "%.18s.s%u", test_ns(), (unsigned)(number % 100000));
        else before = look('p');
        if (!ran_well() || left_nothing(base, &before, tries == 4)) break;
    }
    total.cases++;
    if (!found->failed) return false;
    total.injected++;
    total.calls_failed += found->failed;
    total.errors += found->rc < 0;
    return true;
}

/* Every sentence once. */
static void tell(void) {
    static char told[600][128];
    static unsigned count;
    if (!verbose || found->rc >= 0) return;
    for (unsigned i = 0; i < count; i++)
        if (strncmp(told[i], found->text, sizeof told[i] - 1) == 0) return;
    if (count < 600) snprintf(told[count++], sizeof told[0], "%.127s", found->text);
    printf("    %s\n        %s: %s\n", describe(&now), xi_error_name((int)found->rc), found->text);
    fflush(stdout);
}

/* Without XI_TEST_LONG: one case of so many, each day others, of the calls that there are without a fault. */
#define SHARE 15u
static uint64_t seed;
static bool chosen(void) {
    uint64_t which = (uint64_t)(now.op - operations) * 31 + (uint64_t)(now.kind - kinds) * 17 + now.from * 7 + now.role * 3;
    return all || narrow || which % SHARE == seed % SHARE;
}

static void try_kind(const struct kind *k, bool for_good, uint32_t reached, const struct figures *base) {
    now.kind = k;
    now.for_good = for_good;
    for (now.from = 1;; now.from++) {
        if (now.from > reached && !all && !narrow) break;
        if (!chosen()) continue;
        if (!run_trial(base) && now.from >= reached) break; /* what comes with fewer calls by chance is no end */
        tell();
    }
}

static void try_operation(const struct operation *op, const char *ns, const char *kind_part) {
    now = (struct trial){.op = op};
    snprintf(now.ns, sizeof now.ns, "%s", ns);
    (void)run_trial(NULL); /* what it keeps for good the first time, like a thread's ring, is not to be counted */
    struct figures base = found->left;
    struct found plain = *found;
    uint32_t before = total.injected;
    for (unsigned i = 0; i < KINDS; i++) {
        const struct kind *k = &kinds[i];
        if (waits && !(k->flags & WAITING)) continue;
        if ((k->flags & LATER && !all) || (kind_part && !strstr(fault_call_names[k->call], kind_part))) continue;
        for (now.role = 0; now.role < FAULT_ROLES; now.role++) {
            uint32_t reached = plain.calls[now.role][k->call];
            /* Between a broker and its keeper it would be the end of their line, which nobody breaks while both live. */
            if (reached == 0 || (keeper && now.role == FAULT_BROKER && k->error == ECONNRESET)) continue;
            try_kind(k, false, reached, &base);
            bool stops = (k->flags & STOPS || keeper) && now.role == FAULT_BROKER; /* a keeper tries on and on */
            if (!(k->flags & ONCE_ONLY) && !stops && (all || narrow)) try_kind(k, true, reached, &base);
        }
    }
    if (verbose) printf("%s: %u faults\n", op->name, total.injected - before);
}

/* Operations that are wrong on purpose, when malloc() fails: the test of this test. */
static void try_spoilt(void) {
    static const struct kind memory = {CALL_MEMORY, ENOMEM, 0, MEM, 0};
    for (unsigned i = 0; i < spoilt_count; i++) {
        uint32_t before = total.failures;
        char ns[32];
        snprintf(ns, sizeof ns, "%s", now.ns);
        now = (struct trial){.op = &spoilt[i]};
        snprintf(now.ns, sizeof now.ns, "%s", ns);
        (void)run_trial(NULL);
        struct figures base = found->left;
        expect(total.failures == before, "\"%s\" is wrong without a fault already", spoilt[i].name);
        spoiling = true;
        now.kind = &memory;
        for (now.from = 1; now.from <= 3; now.from++) (void)run_trial(&base); /* one of the first is the test's own */
        spoiling = false;
        expect(total.failures > before, "what was wrong on purpose was not found out: %s", spoilt[i].name);
        total.failures = before;
        total.spoilt++;
    }
}

/* ---- a namespace, and all operations in it */

static pid_t begin_world(const char *ns) {
    must_sys(pipe(ask));
    must_sys(pipe(answer));
    return spawn(witness, (void *)(uintptr_t)ns);
}

static void end_world(pid_t w, const struct ground *begun) {
    struct ground end;
    for (int64_t until = now_ns() + 5 * SECOND; (end = look('p')).names > begun->names && now_ns() < until;) {}
    if (end.names > begun->names) failed("%d names instead of %d are left", end.names, begun->names);
    expect(write(ask[1], "q", 1) == 1, "the witness is gone");
    reap_ok(w, "the witness");
    for (int i = 0; i < 2; i++) {
        close(ask[i]);
        close(answer[i]);
    }
}

static void try_all(const char *ns, const char *part, const char *kind_part, bool memfd) {
    pid_t w = begin_world(ns);
    snprintf(now.ns, sizeof now.ns, "%s", ns);
    (void)look('r'); /* who lists channels of memfds keeps a connection for it from then on */
    struct ground begun = look('p');
    if (!part && !waits && !memfd) try_spoilt();
    for (unsigned i = 0; i < operation_count; i++) {
        const struct operation *op = &operations[i];
        if ((op->flags & OP_SLOW && !all) || (part && !strstr(op->name, part))) continue;
        if (memfd && op->flags & OP_APART) continue; /* a namespace of its own is one of names */
        try_operation(op, ns, kind_part);
    }
    end_world(w, &begun);
}

/* A broker of a namespace of memfds, and its keeper. */
static void broker_of_memfds(void *ns) {
    execlp(getenv("XI_BROKER"), "xi-broker", "--memfd", "--auto", "--foreground", "-n", (char *)ns, (char *)NULL);
    fail_at(__FILE__, __LINE__, "cannot run %s: %s", getenv("XI_BROKER"), strerror(errno));
}

static void try_memfds(const char *part, const char *kind_part) {
    char ns[32];
    further_ns(ns, "memfd");
    keeper = spawn(broker_of_memfds, ns);
    xi_observer *o;
    for (int64_t until = now_ns() + 10 * SECOND; xi_observe(ns, &o) != 0;) expect(now_ns() < until, "no broker");
    xi_observer_free(o);
    try_all(ns, part, kind_part, true);
    reap_ok(keeper, "the keeper");
    keeper = 0;
}

static uint64_t seed_of(const char *text) {
    return text && text[0] ? strtoull(text, NULL, 10) : (uint64_t)time(NULL) / 86400;
}

int main(int argc, char **argv) {
    const char *level = getenv("XI_TEST_LONG"), *part, *kind_part;
    all = level && level[0];
    if (argc > 1 && strcmp(argv[1], "-v") == 0) {
        verbose = true;
        argc--;
        argv++;
    }
    narrow = argc > 1;
    part = narrow ? argv[1] : NULL;
    kind_part = argc > 2 ? argv[2] : NULL;
    seed = seed_of(getenv("XI_TEST_SEED"));
    unsetenv("XI_WAIT"); /* that it falls back where io_uring is not to be had is among what is tried */
    fault_init();
    found = shared_memory(sizeof *found);
    int64_t begun = now_ns();
    try_all(test_ns(), part, kind_part, false);
    if (all) try_memfds(part, kind_part);
    setenv("XI_WAIT", "futex", 1); /* what is reached in this way of waiting alone */
    waits = true;
    try_all(test_ns(), part, kind_part, false);
    if (!all && !narrow)
        printf("one case of %u each: XI_TEST_SEED=%llu; XI_TEST_LONG=1: all\n", SHARE, (unsigned long long)(seed % SHARE));
    printf("%u operations, %u cases, %u faults injected at %u places (%u calls failed), %u came back as errors, %u spoilt "
           "operations found out, %u failures, %.1f s\n", operation_count, total.cases, total.injected, fault_sites(),
           total.calls_failed, total.errors, total.spoilt, total.failures, (double)(now_ns() - begun) / 1e9);
    return total.failures != 0;
}
