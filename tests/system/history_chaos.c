/* SPDX-License-Identifier: MIT */
/*
 * Chaos in the randomized runs: not only are workers killed, but all of them and
 * the broker are stopped at random instructions, and go on later, and the broker is
 * killed, too. The checker judges as ever.
 *
 * And it is measured how soon the others go on. A worker that is to be killed is
 * stopped first, at whatever instruction it was, some of them again and again; if
 * one of the channel's locks is its own then, everybody who needs that lock is blocked until the repair. Counted
 * for each such death is each call of another that was under way when SIGKILL was
 * sent: from there to the end of the first call of that actor that did not just run
 * out of time. Deaths for which a broker was killed less than a hundred milliseconds
 * before, or after, are a figure of their own: there a broker has to be started first.
 * Sleepers look for themselves once a second; what takes that long was not repaired,
 * or not rung.
 */
#include "history_chaos.h"

#include <fcntl.h>

#include "interp/interp.h"
#include "wire/names.h"
#include "wire/segment.h"

#define STOPS 4
#define STOP_MOST (40 * MS) /* less than half of what a call that is not to wait waits for a lock */
#define NEAR (100 * MS)
#define TRIES 500 /* to stop one while it holds a lock, which it does for tens of nanoseconds: before every fourth kill */
#define DEATHS 512
#define PAUSES 8192
#define DELAYS (1u << 16)
#define BOUND (400 * MS) /* of the median: machines are busy, but a second means that nobody was rung */

bool chaos;

static struct {
    struct xi_chan *chan; /* a view of the channel, without having joined */
    size_t size;
    xi_observer *observer;
    struct {
        pid_t pid; /* 0: free */
        int64_t until;
        uint32_t pause;
    } stopped[STOPS];
    struct pause {
        int64_t from, to;
    } pauses[PAUSES]; /* when somebody stood still, the doomed apart */
    uint32_t pause_count;
    int64_t deaths[DEATHS], broker_deaths[DEATHS];
    uint32_t death_count, broker_count;
    uint32_t kills;
    bool held; /* the one that is about to be killed has a lock */
} C;

static struct delays {
    const char *name;
    uint32_t deaths, count;
    int64_t ns[DELAYS];
} delays[] = {{.name = "holding a lock"},
              {.name = "holding a lock, and the broker near it"},
              {.name = "holding a lock, nobody stopped from then on to the call's end"},
              {.name = "holding a lock, and the broker near it, nobody stopped"}};
static uint32_t stops, broker_stops, broker_kills;

/* ------------------------------------------------------------------ who holds what */

/* The youngest of that name: one of the run before may be about to go, or just gone. */
static bool open_channel(int *fd) {
    char name[XI_SHM_NAME_MAX];
    const struct xi_registry *r = xi_observer_registry(C.observer);
    uint64_t youngest = 0;
    uint32_t segment = 0;
    for (uint32_t i = 0; i < XI_REGISTRY_CHANNELS_FIRST; i++)
        if (strcmp(r->channels[i].name, "history") == 0 && r->channels[i].id > youngest) {
            youngest = r->channels[i].id;
            segment = r->channels[i].segment;
        }
    xi_shm_segment_name(name, getuid(), test_ns(), r->seg.epoch, segment);
    return segment && xi_segment_open(name, false, fd) == 0;
}

static void map_channel(void) {
    int fd;
    must(xi_observe(NULL, &C.observer));
    await(open_channel(&fd), "the keeper's channel cannot be opened: %s", xi_error_text(XI_E_NOENT));
    C.size = sizeof *C.chan;
    C.chan = mmap(NULL, C.size, PROT_READ, MAP_SHARED, fd, 0);
    expect(C.chan != MAP_FAILED, "mmap: %s", strerror(errno));
    close(fd);
}

static bool is_slot_of(uint32_t lock, pid_t pid) {
    uint32_t slot = lock - 1;
    return lock && slot < XI_MAX_INTERPS && xi_observer_registry(C.observer)->slots[slot].pid == pid;
}

static bool holds_a_lock(pid_t pid) {
    if (is_slot_of(xi_load_full(&C.chan->lock), pid)) return true;
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if (is_slot_of(xi_load_full(&C.chan->groups[g].lock), pid)) return true;
    return false;
}

/* --------------------------------------------------------------------- what is done */

/* It need not be there any more: then there is nothing to do. */
static void go_on(uint32_t i) {
    if (C.stopped[i].pid) {
        (void)kill(C.stopped[i].pid, SIGCONT);
        C.pauses[C.stopped[i].pause].to = now_ns();
    }
    C.stopped[i].pid = 0;
}

/* It dies. */
static void forget(pid_t pid) {
    for (uint32_t i = 0; i < STOPS; i++) {
        if (C.stopped[i].pid != pid) continue;
        C.stopped[i].pid = 0;
        C.pauses[C.stopped[i].pause].to = now_ns();
    }
}

static void stop(pid_t pid, int64_t ns) {
    for (uint32_t i = 0; i < STOPS; i++) {
        if (C.stopped[i].pid || C.pause_count == PAUSES || kill(pid, SIGSTOP) != 0) continue;
        C.stopped[i].pause = C.pause_count++;
        C.pauses[C.stopped[i].pause] = (struct pause){now_ns(), INT64_MAX};
        C.stopped[i].pid = pid;
        C.stopped[i].until = now_ns() + ns;
        return;
    }
}

static void kill_broker(void) {
    pid_t pid = xi_observer_broker_pid(C.observer);
    if (pid <= 0 || C.broker_count == DEATHS || kill(pid, SIGKILL) != 0) return;
    forget(pid);
    C.broker_deaths[C.broker_count++] = now_ns();
    broker_kills++;
}

void chaos_turn(uint64_t *random, const pid_t *pids, uint32_t count) {
    for (uint32_t i = 0; i < STOPS; i++)
        if (C.stopped[i].pid && now_ns() > C.stopped[i].until) go_on(i);
    pid_t broker = xi_observer_broker_pid(C.observer), pid = pids[below(random, count)];
    if (one_in(random, 16) && pid) {
        stop(pid, below(random, STOP_MOST));
        stops++;
    }
    if (one_in(random, 64) && broker > 0) {
        stop(broker, below(random, STOP_MOST));
        broker_stops++;
    }
    if (plan.broker && one_in(random, 100)) kill_broker();
}

void chaos_before_kill(pid_t pid) {
    C.held = false;
    if (!plan.stop) return;
    forget(pid);
    for (uint32_t tries = ++C.kills % 4 ? 1 : TRIES; tries && !C.held; tries--) {
        siginfo_t info;
        (void)kill(pid, SIGCONT);
        must_sys(kill(pid, SIGSTOP));
        /* It is a child: the kernel says when it has stopped, or that it had ended before. */
        must_sys(waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOWAIT));
        if (info.si_code != CLD_STOPPED) return;
        C.held = holds_a_lock(pid);
    }
    if (C.held && plan.broker && C.death_count % 4 == 0) kill_broker();
}

void chaos_killed(int64_t at) {
    if (C.held && C.death_count < DEATHS) C.deaths[C.death_count++] = at;
}

void chaos_begin(void) {
    memset(&C, 0, sizeof C);
    map_channel();
}

void chaos_end(void) {
    for (uint32_t i = 0; i < STOPS; i++) go_on(i);
    munmap(C.chan, C.size);
    xi_observer_free(C.observer);
}

/* ------------------------------------------------------------------ what is measured */

static bool is_near_broker_death(int64_t at) {
    for (uint32_t i = 0; i < C.broker_count; i++)
        if (llabs(C.broker_deaths[i] - at) < NEAR) return true;
    return false;
}

static bool somebody_stopped(int64_t from, int64_t to) {
    for (uint32_t i = 0; i < C.pause_count; i++)
        if (C.pauses[i].from < to && C.pauses[i].to > from) return true;
    return false;
}

/* Of one actor: how long after `at` a call ended that was under way then, or the next that did more than run out of time;
 * or -1. */
static int64_t delay_of(uint32_t actor, int64_t at) {
    bool blocked = false;
    uint32_t n = atomic_load(&H->actor[actor].count);
    for (uint32_t i = 0; i < n && i < H->capacity; i++) {
        const struct h_event *e = &h_events(H, actor)[i];
        if (e->end == H_OPEN || e->end <= at) continue;
        if (e->begin < at) blocked = true;
        if (!blocked) return -1;
        if (e->result != XI_E_TIMEOUT && e->result != XI_E_INTR && e->kind != H_WAIT) return e->end - at;
    }
    return -1;
}

void chaos_measure(void) {
    for (uint32_t i = 0; i < C.death_count; i++) {
        struct delays *d = &delays[is_near_broker_death(C.deaths[i])], *calm = d + 2;
        d->deaths++;
        calm->deaths++;
        for (uint32_t a = 0; a < H->actors && d->count < DELAYS; a++) {
            int64_t ns = delay_of(a, C.deaths[i]);
            if (ns < 0) continue;
            d->ns[d->count++] = ns;
            if (!somebody_stopped(C.deaths[i], C.deaths[i] + ns)) calm->ns[calm->count++] = ns;
        }
    }
}

static int by_length(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void chaos_judge(void) {
    printf("%u stops of workers, %u of brokers; %u brokers killed\n", stops, broker_stops, broker_kills);
    for (size_t i = 0; i < sizeof delays / sizeof *delays; i++) {
        struct delays *d = &delays[i];
        if (!d->count) continue;
        qsort(d->ns, d->count, sizeof *d->ns, by_length);
        printf("%u deaths %s: %u calls under way, went on after %.3f ms (median), %.3f (99 of 100), %.3f (worst)\n", d->deaths,
               d->name, d->count, (double)d->ns[d->count / 2] / 1e6, (double)d->ns[(size_t)d->count * 99 / 100] / 1e6,
               (double)d->ns[d->count - 1] / 1e6);
        expect(d->count < 20 || d->ns[d->count / 2] < BOUND, "others went on after %lld ms only",
               (long long)(d->ns[d->count / 2] / MS));
    }
}
