/* SPDX-License-Identifier: MIT */
/*
 * The broker is killed at each of its steps: before every store to shared memory
 * and before every call that others can see (stepped/broker_steps.h). Two interpreters and
 * a third that dies make it do everything it knows: join, open, make and remove
 * channels, arenas, rings and tables of deliveries, count references, tell one to
 * end, repair, collect, leave. They notice nothing but, at most, a call that says
 * that there is no broker, which they make again. At the end of each run
 *
 *   every value has come once, in order, whole;
 *   ids of interpreters and of channels are new ones, each time;
 *   references and handles are counted right, and the broker charges for as many
 *     bytes as in a run in which nobody dies;
 *   nothing is left in /dev/shm.
 *
 * Some runs kill the broker that takes over as well, within its adoption. Once with
 * names in /dev/shm and brokers that clients start, once with memfds and a keeper.
 *
 *     XI_TEST_LONG=1   every step; otherwise some, another choice each time
 *     XI_STEP=n[,m]    one run: the broker dies at step n, the next at its step m
 *     XI_MEMFD=1       with XI_STEP: with a keeper
 */
#include <execinfo.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "channel/channel.h"
#include "harness.h"
#include "interp/interp.h"
#include "stepped/broker_steps.h"

#define SIDE_BY_SIDE 24
#define BIG 20000
#define MANY 600 /* numbers: more than a ring of 4 KiB holds */

static struct steps *steps; /* of this run */
static char ns[32];
static bool memfd;

static struct totals {
    _Atomic uint64_t again; /* calls that were made again because no broker was there */
    _Atomic uint64_t charged[2]; /* bytes, in a run in which nobody dies; with names, with memfds */
    _Atomic uint64_t values;
} * T;

/* A call that may find no broker: nothing has happened, and it is made again. */
#define surely(call)                                                                                                   \
    do {                                                                                                               \
        int64_t got_;                                                                                                   \
        await((got_ = (call)) != XI_E_BROKER || (atomic_fetch_add(&T->again, 1), false), "%s: no broker to be had", #call); \
        must(got_);                                                                                                     \
    } while (0)

/* ------------------------------------------------------------------ the interpreters */

static struct {
    xi_interp *a, *b;
    int64_t ids[8];
    uint32_t id_count;
    uint64_t channels[16];
    uint32_t channel_count;
} R;

static void note_id(int64_t id) {
    for (uint32_t i = 0; i < R.id_count; i++) expect(id > R.ids[i], "id %lld after %lld", (long long)id, (long long)R.ids[i]);
    R.ids[R.id_count++] = id;
}

static xi_interp *enter(const char *name, uint32_t flags) {
    xi_interp *me = NULL;
    xi_join_opts opts = {.ns = ns, .name = name, .flags = flags, .spin_ns = -1};
    surely(xi_join(&opts, &me));
    return me;
}

static xi_channel *opened(xi_interp *me, const char *name, const xi_open_opts *opts) {
    xi_channel *ch = NULL;
    surely(xi_open(me, name, opts, &ch));
    return ch;
}
/* One that nobody has made before. */
static xi_channel *made(xi_interp *me, const char *name, const xi_open_opts *opts) {
    xi_channel *ch = opened(me, name, opts);
    for (uint32_t i = 0; i < R.channel_count; i++)
        expect(ch->id > R.channels[i], "channel \"%s\" has id %llu, there was %llu", name, (unsigned long long)ch->id,
               (unsigned long long)R.channels[i]);
    R.channels[R.channel_count++] = ch->id;
    return ch;
}

static void give(xi_channel *ch, int64_t number, size_t padding) {
    static uint64_t buffer[BIG / 8 + 64];
    size_t size = encode_padded(buffer, sizeof buffer, number, padding);
    surely(xi_send(ch, buffer, size, STUCK));
    atomic_fetch_add(&T->values, 1);
}
static void take(xi_channel *ch, int64_t number, xi_msg *m) {
    surely(xi_recv(ch, m, STUCK));
    must(xi_validate(m->data, m->size));
    expect(message_int(m) == number, "%lld came, not %lld", (long long)message_int(m), (long long)number);
}

/* ---- what they make the broker do */

static void join_both(void) {
    R.a = enter("a", 0);
    note_id(xi_id(R.a));
    R.b = enter("b", XI_JOIN_REQUIRES_REF);
    note_id(xi_id(R.b));
    surely(xi_ref(R.a, xi_id(R.b)));
    surely(xi_ref(R.a, xi_id(R.b)));
    surely(xi_ref(R.b, xi_id(R.a)));
    surely(xi_unref(R.a, xi_id(R.b)));
}

static void plain_channel(xi_channel **qa, xi_channel **qb, xi_msg *kept) {
    xi_msg m = XI_MSG_INIT;
    *qa = made(R.a, "q", &(xi_open_opts){.flags = XI_OPEN_SEND});
    *qb = opened(R.b, "q", &(xi_open_opts){.flags = XI_OPEN_RECV});
    expect((*qa)->id == (*qb)->id, "two channels of one name");
    for (int64_t i = 1; i <= 3; i++) give(*qa, i, 10);
    give(*qa, 4, BIG);
    for (int64_t i = 1; i <= 3; i++) take(*qb, i, &m);
    take(*qb, 4, kept); /* until the end */
    xi_msg_release(&m);
}

/* Into a larger ring, and home again. */
static void growing_channel(void) {
    xi_msg m = XI_MSG_INIT;
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .grow = 1 << 20};
    xi_channel *out = made(R.a, "g", &opts), *in = opened(R.b, "g", &opts);
    for (int64_t i = 0; i < MANY; i++) surely(xi_send_int(out, i, STUCK));
    for (int64_t i = 0; i < MANY; i++) take(in, i, &m);
    xi_msg_release(&m);
    await(xi_load_relaxed(&out->chan->ring) == 0 || xi_recv(in, &m, 20 * MS) == 0, "the ring does not come home");
    surely(xi_channel_free(out));
    surely(xi_channel_free(in));
}

/* A call that found no broker in the end may have reached one before that. */
static void removed(const char *name) {
    int rc;
    await((rc = xi_remove(R.a, name)) != XI_E_BROKER, "no broker to be had");
    expect(rc == 0 || rc == XI_E_NOENT, "%s", xi_error_text(rc));
}

static void acknowledging_channel(void) {
    xi_msg m = XI_MSG_INIT;
    xi_group_opts group = {.flags = XI_GROUP_ACK, .window = 8, .max_deliveries = 1, .dead = "letters"};
    xi_channel *in = made(R.b, "w", &(xi_open_opts){.flags = XI_OPEN_RECV, .group = "g", .group_opts = &group});
    xi_channel *letters = opened(R.b, "letters", &(xi_open_opts){.flags = XI_OPEN_RECV}), *other = NULL;
    xi_channel *out = opened(R.a, "w", &(xi_open_opts){.flags = XI_OPEN_SEND});
    R.channels[R.channel_count++] = letters->id > in->id ? letters->id : in->id;
    give(out, 1, 10);
    give(out, 2, 10);
    take(in, 1, &m);
    must(xi_ack(&m));
    take(in, 2, &m);
    must(xi_nack(&m, 0));
    other = opened(R.a, "letters", &(xi_open_opts){.flags = XI_OPEN_SEND}); /* whoever moves them does, too */
    await(xi_recv(in, &m, 5 * MS) != 0 && xi_load_full(&in->group->dead) == 1, "there is no dead letter");
    surely(xi_recv(letters, &m, STUCK));
    xi_msg_release(&m);
    xi_channel *all[] = {in, letters, out, other};
    for (int i = 0; i < 4; i++) surely(xi_channel_free(all[i]));
    removed("w"); /* unless it has gone with its last handle */
}

static void removed_channel(void) {
    xi_msg m = XI_MSG_INIT;
    xi_channel *ch = made(R.a, "r", NULL), *again;
    give(ch, 1, BIG);
    removed("r");
    must_fail(XI_E_REMOVED, xi_recv(ch, &m, STUCK));
    again = made(R.a, "r", NULL);
    surely(xi_channel_free(ch));
    must_fail(XI_E_AGAIN, xi_recv(again, &m, XI_TRY));
    surely(xi_channel_free(again));
}

/* ---- the third, who dies with a value sent, a reference held and a handle open */

static struct gate go, sent;

static void third(void *unused) {
    (void)unused;
    must_sys(prctl(PR_SET_PDEATHSIG, SIGKILL));
    char first;
    expect(read(go.fd[0], &first, 1) == 1, "the run is gone");
    xi_interp *me = enter("c", 0);
    xi_channel *ch = opened(me, "q", &(xi_open_opts){.flags = XI_OPEN_SEND});
    surely(xi_ref(me, first));
    give(ch, 50, BIG);
    char id = (char)xi_id(me);
    expect(write(sent.fd[1], &id, 1) == 1, "%s", strerror(errno));
    for (;;) pause();
}

static void let_third_die(pid_t pid, xi_channel *qb) {
    xi_msg m = XI_MSG_INIT;
    char id = (char)xi_id(R.a);
    expect(write(go.fd[1], &id, 1) == 1, "%s", strerror(errno));
    expect(read(sent.fd[0], &id, 1) == 1, "the third is gone");
    note_id(id);
    must_sys(kill(pid, SIGKILL));
    reap_signalled(pid, SIGKILL, "the third");
    take(qb, 50, &m);
    xi_msg_release(&m);
}

/* ---- judging */

static uint64_t bytes_charged(xi_interp *me) {
    struct xi_request q;
    struct xi_reply r;
    xi_request_init(&q, XI_OP_STATS);
    surely(xi_control_call(me, &q, &r, NULL, 0));
    return r.d;
}

/* What is charged when all that is given back has been: nothing tells when that is, so the least in a second. */
static uint64_t bytes_at_rest(void) {
    uint64_t least = UINT64_MAX;
    for (int64_t begun = now_ns(); now_ns() - begun < SECOND; rest(10 * MS)) {
        uint64_t now = bytes_charged(R.a);
        if (now < least) least = now;
    }
    return least;
}

/* Counts are right when all who live have declared to a new broker what they have: within a second. */
static bool counts_are_right(void) {
    xi_interp_info in[8];
    xi_channel_info ch[8];
    int64_t n = xi_list_interps(xi_observer_of(R.a), in, 8), c = xi_list_channels(xi_observer_of(R.a), ch, 8);
    if (n != 2 || c != 1 || ch[0].handles != 2 || ch[0].producers != 1 || ch[0].consumers != 1) return false;
    return in[0].id_refcount == 1 && in[1].id_refcount == 1;
}

static void say_counts(void) {
    xi_interp_info in[8];
    xi_channel_info ch[8];
    int64_t n = xi_list_interps(xi_observer_of(R.a), in, 8), c = xi_list_channels(xi_observer_of(R.a), ch, 8);
    for (int64_t i = 0; i < n && i < 8; i++)
        fprintf(stderr, "interpreter %lld \"%s\": %u references\n", (long long)in[i].id, in[i].name, in[i].id_refcount);
    for (int64_t i = 0; i < c && i < 8; i++)
        fprintf(stderr, "channel %llu \"%s\": %u handles, %u send, %u receive, %llu values\n", (unsigned long long)ch[i].id,
                ch[i].name, ch[i].handles, ch[i].producers, ch[i].consumers, (unsigned long long)ch[i].depth);
}

static void check_counts(void) {
    int64_t begun = now_ns();
    bool right;
    while (!(right = counts_are_right()) && now_ns() - begun < STUCK) {
        rest(5 * MS);
        (void)bytes_charged(R.a); /* both notice that way when there is no broker */
        (void)bytes_charged(R.b);
    }
    if (!right) say_counts();
    expect(right, "references or handles are not counted right");
    uint64_t bytes = 0, should = atomic_load(&T->charged[memfd]);
    if (!should) atomic_store(&T->charged[memfd], should = bytes_at_rest());
    await((bytes = bytes_charged(R.a)) == should, "the broker charges for %llu bytes, it should be %llu; %d segments",
          (unsigned long long)bytes, (unsigned long long)should, segments_of(ns, true));
}

static void sleep_until_told(xi_channel *qb) {
    xi_msg m = XI_MSG_INIT;
    surely(xi_unref(R.a, xi_id(R.b)));
    int rc;
    int64_t begun = now_ns();
    do {
        rc = xi_recv(qb, &m, 50 * MS);
        (void)bytes_charged(R.a); /* nobody is told to end before all have declared, so the other may not sleep through it */
    } while ((rc == XI_E_BROKER || rc == XI_E_TIMEOUT) && now_ns() - begun < STUCK);
    expect(rc == XI_E_ENDING, "who is not wanted any more was told %s: %s", xi_error_name(rc), xi_error_text(rc));
}

/* A broker that dies in its last steps leaves what it has not removed to the next. */
static void nothing_is_left(void) {
    int64_t begun = now_ns();
    while (segments_of(ns, false) && now_ns() - begun < 3 * SECOND) rest(5 * MS);
    if (segments_of(ns, false)) {
        atomic_store(&steps->off, true);
        xi_interp *me = enter("last", 0);
        must(xi_leave(me));
    }
    await(segments_of(ns, false) == 0, "%d segments are left", segments_of(ns, true));
}

static void live(void) {
    xi_channel *qa, *qb;
    xi_msg kept = XI_MSG_INIT;
    go = gate_new();
    sent = gate_new();
    pid_t pid = spawn(third, NULL);
    join_both();
    plain_channel(&qa, &qb, &kept);
    growing_channel();
    acknowledging_channel();
    removed_channel();
    let_third_die(pid, qb);
    check_counts();
    must(xi_validate(kept.data, kept.size));
    expect(message_int(&kept) == 4, "what was kept changed");
    sleep_until_told(qb);
    xi_msg_release(&kept);
    surely(xi_channel_free(qb));
    must(xi_leave(R.b));
    surely(xi_channel_free(qa));
    must(xi_leave(R.a));
}

/* --------------------------------------------------------------------------- a run */

static struct steps *steps_file(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    expect(fd >= 0 && ftruncate(fd, sizeof(struct steps)) == 0, "%s: %s", path, strerror(errno));
    void *p = mmap(NULL, sizeof(struct steps), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    expect(p != MAP_FAILED, "mmap: %s", strerror(errno));
    close(fd);
    return p;
}

/* --------------------------------------------------------------------------- one that hangs */

static pid_t keeper;
static char keeper_log[160];

/* Says where this run stands, and its keeper and broker, before it dies of the alarm: it may never happen again. */
static void say_where(int sig) {
    void *frames[64];
    char command[768];
    fprintf(stderr, "stuck: %llu steps since the last of %u deaths (before %.32s, %.32s); here:\n",
            (unsigned long long)atomic_load(&steps->taken), atomic_load(&steps->deaths), steps->what[0], steps->what[1]);
    backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
    snprintf(command, sizeof command,
             "for p in $(ps -o pid= --ppid %d,%d); do ps -o pid=,ppid=,stat=,wchan:24=,args= -p $p; cat /proc/$p/syscall; "
             "! command -v gdb || timeout 20 gdb -p $p -batch -ex bt 2>&1 | grep ^#; done >&2; ! [ -s '%s' ] || cat '%s' >&2",
             (int)getpid(), (int)keeper, keeper_log, keeper_log);
    if (system(command) != 0) fprintf(stderr, "not all of it could be looked at\n");
    must_sys(signal(sig, SIG_DFL) == SIG_ERR ? -1 : 0);
    raise(sig);
}

/* With memfds nobody can start a broker but its keeper, which we start. */
static void start_keeper(void) {
    char said[64] = "", fd[12];
    struct gate ready = gate_new();
    fflush(NULL);
    keeper = fork();
    must_sys(keeper);
    if (keeper == 0) {
        close(ready.fd[0]);
        if (!getenv("XI_STEP") && !freopen(keeper_log, "w", stderr)) _exit(2); /* of each run it would be too much */
        snprintf(fd, sizeof fd, "%d", ready.fd[1]);
        execl(getenv("XI_BROKER"), "xi-broker", "-n", ns, "--memfd", "--ready-fd", fd, NULL);
        _exit(2);
    }
    close(ready.fd[1]);
    /* Killed before it could say so, it is followed by another, which is not asked. */
    expect(read(ready.fd[0], said, sizeof said - 1) >= 0, "%s", strerror(errno));
    close(ready.fd[0]);
}

struct run {
    uint32_t number;
    bool memfd;
    uint64_t die_at[DEATHS];
    uint64_t steps; /* taken in all, if nobody died */
};

static void one_run(void *argument) {
    struct run *r = argument;
    must_sys(prctl(PR_SET_PDEATHSIG, SIGKILL));
    char path[160], suffix[12];
    snprintf(suffix, sizeof suffix, "%u", r->number);
    further_ns(ns, suffix);
    memfd = r->memfd;
    snprintf(path, sizeof path, "%s/steps.%u", getenv("XI_RUNTIME_DIR"), r->number);
    steps = steps_file(path);
    memcpy(steps->die_at, r->die_at, sizeof steps->die_at);
    steps->kept = r->memfd;
    setenv("XI_STEPS", path, 1);
    must_sys(signal(SIGALRM, say_where) == SIG_ERR ? -1 : 0);
    alarm(50); /* longer than anybody waits who gives up in the end */
    if (memfd) {
        snprintf(keeper_log, sizeof keeper_log, "%s/keeper.%u", getenv("XI_RUNTIME_DIR"), r->number);
        start_keeper();
    }
    live();
    r->steps = atomic_load(&steps->taken);
    if (keeper) {
        atomic_store(&steps->off, true);
        must_sys(kill(keeper, SIGTERM));
        reap_ok(keeper, "the keeper");
    }
    nothing_is_left();
    if (r->die_at[0])
        expect(atomic_load(&steps->deaths) > 0 || r->die_at[0] > 1, "nobody died");
    must_sys(unlink(path));
    if (keeper) (void)unlink(keeper_log); /* with XI_STEP there is none */
}

/* ----------------------------------------------------------------------- all of them */

struct job {
    struct run *run; /* memory that is shared with it */
    pid_t pid;
};
static struct job jobs[SIDE_BY_SIDE];
static uint32_t runs;

static void end_one(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, 0)) < 0) expect(errno == EINTR, "waitpid: %s", strerror(errno));
    for (int i = 0; i < SIDE_BY_SIDE; i++) {
        if (jobs[i].pid != pid) continue;
        const struct run *r = jobs[i].run;
        expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status %#x; %sXI_STEP=%llu,%llu repeats it", status,
               r->memfd ? "XI_MEMFD=1 " : "", (unsigned long long)r->die_at[0], (unsigned long long)r->die_at[1]);
        jobs[i].pid = 0;
    }
}

static int free_job(void) {
    for (;;) {
        for (int i = 0; i < SIDE_BY_SIDE; i++)
            if (!jobs[i].pid) return i;
        end_one();
    }
}

static void begin_run(bool with_memfd, uint64_t first, uint64_t second) {
    int i = free_job();
    if (!jobs[i].run) jobs[i].run = shared_memory(sizeof *jobs[i].run);
    *jobs[i].run = (struct run){.number = runs++, .memfd = with_memfd, .die_at = {first, second}};
    jobs[i].pid = spawn(one_run, jobs[i].run);
}

static void end_all(void) {
    bool any;
    do {
        any = false;
        for (int i = 0; i < SIDE_BY_SIDE; i++) any |= jobs[i].pid != 0;
        if (any) end_one();
    } while (any);
}

/* How many steps there are when nobody dies. */
static uint64_t count_steps(bool with_memfd) {
    begin_run(with_memfd, 0, 0);
    end_all();
    uint64_t n = 0;
    for (int i = 0; i < SIDE_BY_SIDE; i++)
        if (jobs[i].run && jobs[i].run->steps > n) n = jobs[i].run->steps;
    return n;
}

static void enumerate(bool with_memfd, uint64_t every, uint64_t offset, uint64_t *random) {
    uint64_t n = count_steps(with_memfd), singles = 0, doubles = 0;
    int64_t begun = now_ns();
    for (uint64_t at = 1 + offset % every; at <= n; at += every, singles++) {
        begin_run(with_memfd, at, 0);
        if (singles % 6) continue;
        begin_run(with_memfd, at, 1 + random64(random) % 200); /* adoption is so many steps, about */
        doubles++;
    }
    end_all();
    printf("%s: %llu steps; a broker killed at %llu of them, and in %llu runs the next one too; %.1f s\n",
           with_memfd ? "memfds, a keeper" : "names", (unsigned long long)n, (unsigned long long)singles,
           (unsigned long long)doubles, (double)(now_ns() - begun) / 1e9);
    fflush(stdout);
}

int main(void) {
    const char *one = getenv("XI_STEP"), *build = getenv("XI_BUILD"), *dir = getenv("XI_RUNTIME_DIR");
    char path[512];
    uint64_t random = (uint64_t)now_ns() | 1;
    expect(build && dir, "run it by ctest");
    snprintf(path, sizeof path, "%s/tests/xi-broker-stepped", build);
    setenv("XI_BROKER", path, 1);
    must_sys(chmod(dir, 0700));
    T = shared_memory(sizeof *T);
    if (one) {
        char *end;
        uint64_t first = strtoull(one, &end, 0);
        bool with_memfd = getenv("XI_MEMFD") != NULL;
        printf("%llu steps\n", (unsigned long long)count_steps(with_memfd));
        begin_run(with_memfd, first, *end ? strtoull(end + 1, NULL, 0) : 0);
        end_all();
        return 0;
    }
    bool all = getenv("XI_TEST_LONG") != NULL;
    enumerate(false, all ? 1 : 24, random64(&random), &random);
    enumerate(true, all ? 3 : 40, random64(&random), &random);
    printf("%u runs, %llu values, %llu calls made again for want of a broker, 0 failures\n", runs,
           (unsigned long long)atomic_load(&T->values), (unsigned long long)atomic_load(&T->again));
    return 0;
}
