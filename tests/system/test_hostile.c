/* SPDX-License-Identifier: MIT */
/*
 * Overwrites every field of every struct in shared memory with extremes while
 * two interpreters use the channel: whatever a peer writes, a call returns an
 * error or a value; it never crashes, and never stays.
 *
 * Three processes: a sender and a receiver, which call the library in a loop
 * with short timeouts and count the calls that returned, and this one, which
 * joined nothing, opens the segments' files for writing (same user), writes
 * one value into one field, and looks that both counts go on. A victim that
 * dies of a signal, or whose call has not returned for ten seconds, is a
 * finding; it is named with the field, and the test goes on with new victims,
 * so that one run shows all of them.
 *
 * Each case on a channel has a channel of its own: what one broke must not
 * hide the next. At the end the broker that served through all this must be
 * the one that was there at the start, and a fresh channel must work.
 *
 * The registry is written by the broker alone and read by everybody; here a
 * hostile process of the same user writes it too. Its cases come last, in a
 * namespace each, because a registry that says "shut down" is to be believed.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "harness.h"
#include "wire/layout.h"

#define CALLS 6 /* that must return in each victim, after the write, for a case to have passed */
#define STEP (2 * MS)
#define RING XI_CAPACITY_MIN /* small, so that what a broken channel keeps for ever is little */

static const uint64_t extremes[] = {0, 1, 0x7fffffff, 0xffffffff, 0x80000000ffffffff, INT64_MAX, UINT64_MAX};
#define EXTREMES (sizeof extremes / sizeof extremes[0])

/* ---- what victims and attacker share, private to the three */

struct victim_state {
    _Atomic uint64_t calls;  /* that returned */
    _Atomic uint32_t opened; /* number of the channel that it has open */
    _Atomic uint64_t good;   /* calls that succeeded since then */
};
struct control {
    char why[256];           /* why a channel could not be opened, the last time */
    _Atomic uint32_t wanted; /* number of the channel to use */
    _Atomic uint32_t stop;
    struct victim_state victim[2];
};
enum { SENDER, RECEIVER };
static const char *const roles[] = {"sender", "receiver"};
static struct control *control;
static pid_t victims[2];
static char space[32]; /* the namespace under attack */
static int findings;

/* ---- the victims */

static uint64_t small_value[8], large_value[400];

/* Takes what is left, so that the old channel can go; bounded, for it may pretend to be endless. */
static void drain(xi_channel *ch) {
    xi_msg m = XI_MSG_INIT;
    for (int i = 0; i < 1000 && xi_recv(ch, &m, XI_TRY) == 0; i++)
        ;
    xi_msg_release(&m);
}

/* Leaves the old channel and opens the wanted one; a failure is an outcome like any other. */
static void follow(xi_interp *me, struct victim_state *s, xi_channel **ch) {
    uint32_t wanted = atomic_load(&control->wanted);
    if (wanted == atomic_load(&s->opened)) return;
    if (*ch) {
        drain(*ch);
        xi_channel_free(*ch);
    }
    *ch = NULL;
    char name[32];
    snprintf(name, sizeof name, "ring-%u", wanted);
    int rc = xi_open(me, name, &(xi_open_opts){.capacity = RING}, ch);
    if (rc == 0) {
        atomic_store(&s->good, 0);
        atomic_store(&s->opened, wanted);
    } else {
        snprintf(control->why, sizeof control->why, "%s: %s", xi_error_name(rc), xi_error_text(rc));
    }
    atomic_fetch_add(&s->calls, 1);
}

static void returned(struct victim_state *s, int64_t rc) {
    if (rc >= 0) atomic_fetch_add(&s->good, 1);
    atomic_fetch_add(&s->calls, 1);
}

static void do_nothing(void *context, uint64_t argument) {
    (void)context;
    (void)argument;
}

static void be_sender(void *argument) {
    (void)argument;
    struct victim_state *s = &control->victim[SENDER];
    xi_interp *me = join_ns(space, "sender", 0);
    xi_channel *ch = NULL;
    size_t small = encode_padded(small_value, sizeof small_value, 1, 8);
    size_t large = encode_padded(large_value, sizeof large_value, 2, 2500);
    uint32_t index = 0;
    must(xi_free_register(me, "nothing", do_nothing, NULL, &index));
    while (!atomic_load(&control->stop)) {
        follow(me, s, &ch);
        if (!ch) continue;
        returned(s, xi_send(ch, small_value, small, STEP));
        xi_send_opts opts = {.timeout = STEP, .free_index = index};
        returned(s, xi_send_ex(ch, large_value, large, &opts));
        xi_loan loan;
        if (xi_loan_get(me, 5000, &loan) == 0) {
            size_t size = encode_padded(loan.data, loan.size, 3, 4000);
            returned(s, xi_send_loan(ch, &loan, size, &opts));
            xi_loan_drop(&loan);
        }
        xi_channel_info info;
        returned(s, xi_channel_stat(ch, &info));
        returned(s, xi_free_run(me));
    }
    if (ch) xi_channel_free(ch);
    xi_leave(me);
}

/* Reads all of a message, as a program would. */
static void read_through(const xi_msg *m) {
    xi_cursor c;
    xi_value v;
    static char text[8192];
    (void)xi_validate(m->data, m->size);
    xi_cursor_init(&c, m->data, m->size);
    if (xi_next(&c, &v) != 1 || v.tag != XI_TUPLE) return;
    xi_cursor children;
    if (xi_enter(&v, &children) != 0) return;
    while (xi_next(&children, &v) == 1)
        if (v.tag == XI_BYTES && v.length <= sizeof text) memcpy(text, v.data, v.length);
}

static void be_receiver(void *argument) {
    (void)argument;
    struct victim_state *s = &control->victim[RECEIVER];
    xi_interp *me = join_ns(space, "receiver", 0);
    xi_channel *ch = NULL;
    static xi_interp_info interps[16];
    static xi_channel_info channels[16];
    xi_msg m[4] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    while (!atomic_load(&control->stop)) {
        follow(me, s, &ch);
        if (!ch) continue;
        int64_t n = xi_recv(ch, &m[0], STEP);
        if (n == 0) read_through(&m[0]);
        returned(s, n);
        n = xi_recv_many(ch, m, 4, STEP);
        for (int64_t i = 0; i < n; i++) read_through(&m[i]);
        returned(s, n);
        returned(s, xi_list_interps(xi_observer_of(me), interps, 16));
        returned(s, xi_list_channels(xi_observer_of(me), channels, 16));
        for (int i = 0; i < 4; i++) xi_msg_release(&m[i]);
    }
    if (ch) xi_channel_free(ch);
    xi_leave(me);
}

static void start_victim(int which) { victims[which] = spawn(which == SENDER ? be_sender : be_receiver, NULL); }

/* ---- watching them */

/* Lets victims go on for up to `limit` until `done` says so. Ends early when one has died: its role, else -1. */
static int watch(bool (*done)(const void *), const void *context, int64_t limit, bool *timed_out) {
    int64_t deadline = now_ns() + limit;
    *timed_out = false;
    while (!done(context)) {
        for (int i = 0; i < 2; i++) {
            siginfo_t info = {0};
            if (waitid(P_PID, (id_t)victims[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid) return i;
        }
        if (now_ns() > deadline) {
            *timed_out = true;
            return -1;
        }
        struct timespec tick = {0, MS / 4};
        nanosleep(&tick, NULL); /* the victims tell nobody when a call has returned: that is what is looked at */
    }
    return -1;
}

static bool calls_went_on(const void *context) {
    const uint64_t *before = context;
    for (int i = 0; i < 2; i++)
        if (atomic_load(&control->victim[i].calls) < before[i] + CALLS) return false;
    return true;
}
static bool channel_works(const void *context) {
    (void)context;
    for (int i = 0; i < 2; i++)
        if (atomic_load(&control->victim[i].opened) != atomic_load(&control->wanted) ||
            atomic_load(&control->victim[i].good) < 2 * CALLS)
            return false;
    return true;
}

static void new_victim(int which, const char *what, const char *how) {
    fprintf(stderr, "FINDING: %s: the %s %s\n", what, roles[which], how);
    findings++;
    kill(victims[which], SIGKILL);
    reap(victims[which]);
    start_victim(which);
}

/* Both victims returned from enough calls; otherwise says who did not, and replaces it. */
static void expect_alive(const char *what) {
    uint64_t before[2];
    bool timed_out;
    for (int i = 0; i < 2; i++) before[i] = atomic_load(&control->victim[i].calls);
    int dead = watch(calls_went_on, before, STUCK, &timed_out);
    if (dead >= 0) {
        siginfo_t info = {0};
        char how[64];
        waitid(P_PID, (id_t)victims[dead], &info, WEXITED | WNOHANG | WNOWAIT);
        snprintf(how, sizeof how, info.si_code == CLD_EXITED ? "gave up with status %d" : "died of signal %d",
                 info.si_status);
        new_victim(dead, what, how);
    }
    for (int i = 0; timed_out && i < 2; i++)
        if (atomic_load(&control->victim[i].calls) < before[i] + CALLS) new_victim(i, what, "did not return for 10 s");
}

/* A channel that nobody has touched yet, in use by both. */
static void fresh_channel(const char *after) {
    bool timed_out;
    for (int attempt = 0; attempt < 3; attempt++) {
        atomic_fetch_add(&control->wanted, 1);
        int dead = watch(channel_works, NULL, STUCK, &timed_out);
        if (dead < 0 && !timed_out) return;
        if (dead >= 0) {
            new_victim(dead, after, "died when it went on to a fresh channel");
            continue;
        }
        for (int i = 0; i < 2; i++)
            if (atomic_load(&control->victim[i].good) < 2 * CALLS)
                new_victim(i, after, "could not use a fresh channel");
    }
    fail("after %s no channel could be used any more: %s", after, control->why);
}

static bool victim_joined(const void *which) {
    return atomic_load(&control->victim[*(const int *)which].opened) == atomic_load(&control->wanted);
}

/* New victims, one by one, so that the broker always has somebody to serve. */
static void replace_victims(const char *after) {
    for (int i = 0; i < 2; i++) {
        bool timed_out;
        kill(victims[i], SIGKILL);
        reap(victims[i]);
        atomic_store(&control->victim[i].opened, 0);
        start_victim(i);
        int dead = watch(victim_joined, &i, STUCK, &timed_out);
        expect(dead < 0 && !timed_out, "after %s no new %s could join: %s", after, roles[i], control->why);
    }
}

/* ---- the segments, opened as a hostile process of the same user would */

struct target {
    uint8_t *base;
    size_t size;
    struct xi_segment head;
};

static bool map_target(const char *file, struct target *t) {
    char path[300];
    struct stat st;
    snprintf(path, sizeof path, "/dev/shm/%s", file);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return false; /* removed meanwhile */
    bool ok = fstat(fd, &st) == 0 && (size_t)st.st_size >= sizeof t->head &&
              pread(fd, &t->head, sizeof t->head, 0) == (ssize_t)sizeof t->head;
    if (ok) {
        t->size = (size_t)st.st_size;
        t->base = mmap(NULL, t->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        ok = t->base != MAP_FAILED;
    }
    close(fd);
    return ok;
}

/* Maps the newest segment of `kind` (the highest number), of the interpreter called `owner` unless NULL. */
static bool find_target(uint32_t kind, struct target *out) {
    char prefix[64];
    bool found = false;
    DIR *dir = opendir("/dev/shm");
    expect(dir != NULL, "opendir: %s", strerror(errno));
    int n = snprintf(prefix, sizeof prefix, "xi.%u.%s.", (unsigned)getuid(), space);
    for (struct dirent *e; (e = readdir(dir));) {
        struct target t;
        if (strncmp(e->d_name, prefix, (size_t)n) != 0 || !map_target(e->d_name, &t)) continue;
        if (t.head.kind == kind && (!found || t.head.number > out->head.number)) {
            if (found) munmap(out->base, out->size);
            *out = t;
            found = true;
        } else {
            munmap(t.base, t.size);
        }
    }
    closedir(dir);
    return found;
}

/* ---- cases */

/* Writes one extreme over 4 or 8 bytes, looks at the victims, puts back what was there. */
static void attack(const struct target *t, const char *name, size_t offset, int width, uint64_t value) {
    char what[96];
    uint64_t was = 0;
    if (offset + 8 > t->size) return;
    snprintf(what, sizeof what, "%s + %zu = %#" PRIx64 " (%d bytes)", name, offset, value, width);
    memcpy(&was, t->base + offset, (size_t)width);
    if (width == 8)
        atomic_store((_Atomic uint64_t *)(void *)(t->base + offset), value);
    else
        atomic_store((_Atomic uint32_t *)(void *)(t->base + offset), (uint32_t)value);
    expect_alive(what);
    if (width == 8)
        atomic_store((_Atomic uint64_t *)(void *)(t->base + offset), was);
    else
        atomic_store((_Atomic uint32_t *)(void *)(t->base + offset), (uint32_t)was);
}

static void attack_channel_field(size_t offset) {
    for (size_t v = 0; v < EXTREMES; v++) {
        struct target t;
        char what[64];
        snprintf(what, sizeof what, "channel + %zu = %#" PRIx64, offset, extremes[v]);
        fresh_channel(what);
        expect(find_target(XI_SEG_CHANNEL, &t), "the channel's segment is not to be found");
        attack(&t, "channel", offset, 8, extremes[v]);
        if ((uint32_t)(extremes[v] >> 32) == 0) attack(&t, "channel", offset + 4, 4, extremes[v]);
        munmap(t.base, t.size);
    }
}

/* The head, the lines, one waiter, group 0, the end of the last group, and the ring where the next records come. */
static void attack_channel(void) {
    size_t group0 = offsetof(struct xi_chan, groups);
    for (size_t o = 0; o < offsetof(struct xi_chan, waiters) + 16; o += 8) attack_channel_field(o);
    for (size_t o = group0; o < group0 + sizeof(struct xi_group); o += 8) attack_channel_field(o);
    attack_channel_field(sizeof(struct xi_chan) - sizeof(struct xi_group));
    for (size_t o = 0; o < 64; o += 8) attack_channel_field(XI_RING_OFFSET + o);
    printf("channel: every field\n");
}

/* Records that are wrong in one way each, at the head itself, where the receiver looks next. */
static void attack_records(void) {
    static const uint64_t headers[] = {XI_REC(0, XI_REC_INLINE, 0, 1),
                                       XI_REC(4, XI_REC_INLINE, 0, 1),
                                       XI_REC(0xfffffff8, XI_REC_INLINE, 0, 1),
                                       XI_REC(RING - 8, XI_REC_INLINE, 0, 1),
                                       XI_REC(1 << 20, XI_REC_BLOCK, 0, 1),
                                       XI_REC(8, XI_REC_BLOCK, 0xff, 1),
                                       XI_REC(24, 0, 0, 1),
                                       XI_REC(24, 0xff, 0xff, 0xffff),
                                       XI_REC(32, XI_REC_BLOCK, XI_REC_F_FREE, 1)};
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        struct target t;
        fresh_channel("records");
        expect(find_target(XI_SEG_CHANNEL, &t), "the channel's segment is not to be found");
        struct xi_chan *chan = (void *)t.base;
        for (int again = 0; again < 50; again++) {
            uint64_t head = atomic_load(&chan->groups[0].head) & (RING - 1) & ~(uint64_t)7;
            uint8_t *at = t.base + XI_RING_OFFSET + head;
            if (head + 64 > RING) continue;
            memset(at + 8, again % 2 ? 0xff : 0, 40);
            atomic_store((_Atomic uint64_t *)(void *)at, headers[i]);
        }
        expect_alive("a record with a false header");
        munmap(t.base, t.size);
    }
    printf("records: false lengths, kinds and descriptors\n");
}

/* One interpreter's own segments: overwritten and put back, on the channel that is open. */
static void attack_kind(uint32_t kind, const char *name, size_t from, size_t to) {
    struct target t;
    fresh_channel(name);
    if (!find_target(kind, &t)) fail("no %s segment is to be found", name);
    for (size_t o = from; o < to && o + 8 <= t.size; o += 8)
        for (size_t v = 0; v < EXTREMES; v++) attack(&t, name, o, 8, extremes[v]);
    munmap(t.base, t.size);
    /* What was read is read again by a repair. */
    replace_victims(name);
    printf("%s: every field\n", name);
}

/* The whole data of an arena, changing while it is read. */
static void attack_arena_data(void) {
    struct target t;
    fresh_channel("arena data");
    expect(find_target(XI_SEG_ARENA, &t), "no arena is to be found");
    size_t length = t.size < 65536 ? t.size : 65536;
    for (int i = 0; i < 200; i++)
        for (size_t o = XI_PAGE; o + 8 <= length; o += 8)
            *(volatile uint64_t *)(void *)(t.base + o) = extremes[((size_t)i + o / 8) % EXTREMES];
    expect_alive("arena data");
    munmap(t.base, t.size);
    printf("arena data: overwritten while it is read\n");
}

/* ---- the registry: a namespace for each case */

static void stop_victims(const char *what) {
    atomic_store(&control->stop, 1);
    for (int i = 0; i < 2; i++) {
        if (!wait_end(victims[i], (int)(STUCK / MS))) {
            fprintf(stderr, "FINDING: %s: the %s does not come back from leaving\n", what, roles[i]);
            findings++;
            kill(victims[i], SIGKILL);
        }
        int status = reap(victims[i]);
        if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) {
            fprintf(stderr, "FINDING: %s: the %s died of signal %d while leaving\n", what, roles[i], WTERMSIG(status));
            findings++;
        }
    }
    atomic_store(&control->stop, 0);
}

static void start_victims(const char *suffix) {
    further_ns(space, suffix);
    memset(control, 0, sizeof *control);
    start_victim(SENDER);
    start_victim(RECEIVER);
    fresh_channel("a new namespace");
}

static void remove_namespace(pid_t broker) {
    if (broker > 0 && !wait_end(broker, 2000)) {
        kill(broker, SIGTERM); /* its registry was lied to; it may believe that somebody is still there */
        if (!wait_end(broker, 5000)) {
            fprintf(stderr, "FINDING: the broker does not end on SIGTERM after its registry was overwritten\n");
            findings++;
            kill(broker, SIGKILL);
            wait_end(broker, 5000);
        }
    }
}

static pid_t broker_now(void) {
    xi_observer *o = NULL;
    must(xi_observe(space, &o));
    pid_t pid = xi_observer_broker_pid(o);
    xi_observer_free(o);
    return pid;
}

static void attack_registry(void) {
    static const size_t slot1 = offsetof(struct xi_registry, slots) + sizeof(struct xi_slot);
    static const size_t chan0 = sizeof(struct xi_registry);
    static const struct { size_t from, to; } ranges[] = {{0, 192}, {slot1, slot1 + 128}, {chan0, chan0 + 128}};
    int number = 0;
    size_t step = getenv("XI_TEST_LONG") ? 1 : 4;
    for (size_t v = 0; v < EXTREMES; v += step) {
        for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++) {
            char suffix[16];
            struct target t;
            snprintf(suffix, sizeof suffix, "r%d", number++);
            start_victims(suffix);
            pid_t broker = broker_now();
            expect(find_target(XI_SEG_REGISTRY, &t), "the registry is not to be found");
            for (size_t o = ranges[r].from; o < ranges[r].to; o += 8) attack(&t, "registry", o, 8, extremes[v]);
            munmap(t.base, t.size);
            stop_victims("registry");
            remove_namespace(broker);
        }
    }
    printf("registry: every field\n");
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    control = shared_memory(sizeof *control);
    start_victims("h");
    pid_t broker = broker_now();
    if (argc == 2) { /* for whoever looks into a finding: that offset of a channel alone */
        attack_channel_field((size_t)atol(argv[1]));
        stop_victims("the end");
        return findings != 0;
    }
    attack_channel();
    attack_records();
    attack_kind(XI_SEG_MAILBOX, "mailbox", 0, offsetof(struct xi_mailbox, bells) + 2 * sizeof(struct xi_bell));
    attack_kind(XI_SEG_OWN, "own", 0, sizeof(struct xi_own) + 2 * sizeof(struct xi_borrow));
    attack_kind(XI_SEG_RELEASE, "release words", 0, 64);
    attack_kind(XI_SEG_RELEASE, "release words", XI_PAGE + 4 * sizeof(struct xi_release),
                XI_PAGE + 8 * sizeof(struct xi_release));
    attack_kind(XI_SEG_ARENA, "arena", 0, 64);
    attack_arena_data();
    fresh_channel("everything");
    expect(kill(broker, 0) == 0 && broker_now() == broker, "the broker did not live through it");
    stop_victims("the end");
    expect(wait_end(broker, 20000), "the broker did not leave when all had gone");
    attack_registry();
    expect(findings == 0, "%d findings, see above", findings);
    return 0;
}
