/* SPDX-License-Identifier: MIT */
/*
 * Randomized runs, judged by the checker of histories: what a run does (modes,
 * groups, processes and threads, sizes, batches, timeouts, capacities, kills,
 * when the channel is closed) is drawn from a seed, every call is recorded, and
 * afterwards the promises of the library have to explain the history.
 *
 *     XI_TEST_SEED=n   repeats one run (what it does; who is faster is not repeated)
 *     XI_TEST_LONG=1   minutes instead of seconds
 *     test_history chaos   runs in which everybody is killed or stopped: see history_chaos.c
 *
 * The parent never joins: it forks processes, kills and replaces them where the
 * run wants it, and judges. One of the processes, the keeper, holds the channel
 * from before the first value to the last, and closes it. The others have one to
 * three workers each, a thread for each: producers and consumers. A worker that
 * is killed with its process is replaced by another actor with the same role.
 */
#include "history_chaos.h"

struct plan plan;
struct history *H;
uint32_t channel, named_group[NAMED], default_group;
struct shared *S;

/* Gives every named group to a consumer, and to some groups several. */
static void draw_consumers(uint64_t *r, uint32_t consumers) {
    bool own = plan.mode == XI_BROADCAST && (plan.named == 0 || one_in(r, 3));
    bool spare = plan.mode == XI_QUEUE || own; /* somebody has to receive for the group that has no name */
    uint32_t serving = plan.named ? consumers - spare : 0;
    uint32_t each = serving ? (plan.named + serving - 1) / serving : 0, next = 0;
    if (each > SERVED) each = SERVED;
    for (uint32_t i = 0; i < consumers; i++) {
        struct worker *w = &plan.worker[plan.workers++];
        *w = (struct worker){.process = below(r, plan.processes)};
        if (i >= serving) continue;
        w->first = next % plan.named;
        w->served = w->first + each > plan.named ? plan.named - w->first : each;
        next = w->first + w->served;
    }
}

/* Values that were sent may be received by nobody. */
static bool may_lose(void) { return plan.ttl_ns || plan.own_ttl || plan.when_full == XI_FULL_DROP; }

/* Is there room for all that is to be retained, whatever the values are? */
static bool is_ample(void) { return !plan.most && !plan.blocks && plan.retain * (uint64_t)600 <= plan.capacity / 4; }

static bool owns_groups(void) {
    for (uint32_t i = 0; i < plan.workers; i++)
        if (plan.mode == XI_BROADCAST && !plan.worker[i].producer && !plan.worker[i].served) return true;
    return false;
}

/* What the checker has to know of a group. */
static void tell_of(uint32_t group) {
    struct h_group *g = &H->group[group];
    g->lossy = may_lose();
    g->from = plan.from;
    g->last = plan.last;
    g->acknowledges = plan.acks;
    g->max_deliveries = plan.max_deliveries;
    g->timeout = plan.overdue;
    g->dead_letters = plan.dead_letters;
}

/* All groups then; but a consumer's own, whose dead letters could not be told apart, let them vanish. */
static void draw_acks(uint64_t *r) {
    plan.acks = true;
    plan.max_deliveries = one_in(r, 2) ? 0 : 1 + below(r, 5);
    plan.window = 8u << below(r, 8);
    plan.overdue = one_in(r, 2) ? 0 : 200000 + below(r, 20000000);
    plan.dead_letters = plan.max_deliveries && !owns_groups() && one_in(r, 2);
}

/* A queue of requests that are served as they come. */
static void draw_calls(void) {
    plan.calls = true;
    plan.mode = XI_QUEUE;
    plan.named = plan.retain = plan.from = plan.when_full = 0;
    plan.most = 0;
    plan.ttl_ns = 0;
    plan.own_ttl = plan.acks = plan.dead_letters = plan.close_early = plan.need_peer = plan.patient = false;
    plan.batch = 1;
    if (plan.values > 6000) plan.values = 6000;
    for (uint32_t i = 0; i < plan.workers; i++) plan.worker[i].served = 0;
}

/* Who receives for many groups has the values of each to write down, and what it does with them; half its room is for looks. */
static void leave_room(void) {
    uint32_t served = 1, events = plan.acks ? 3 : 1;
    for (uint32_t i = 0; i < plan.workers; i++)
        if (plan.worker[i].served > served) served = plan.worker[i].served;
    uint32_t most = EVENTS / 2 / (served * events);
    if (plan.values > most) plan.values = most;
}

static uint32_t draw_named(uint64_t *r) {
    if (plan.mode == XI_QUEUE) return one_in(r, 5) ? 1 + below(r, 3) : 0;
    if (one_in(r, 4)) return 0;
    return 1 + below(r, one_in(r, 3) ? NAMED - 9 : 6); /* with room for some that are a consumer's own */
}

static void draw_plan(uint64_t seed) {
    uint64_t r = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 8; i++) (void)random64(&r);
    plan = (struct plan){.seed = seed};
    plan.mode = one_in(&r, 2) ? XI_QUEUE : XI_BROADCAST;
    uint32_t producers = 2 + below(&r, 7), consumers = 2 + below(&r, 7);
    plan.named = draw_named(&r);
    plan.processes = 2 + below(&r, PROCESSES - 1);
    plan.capacity = XI_CAPACITY_MIN << below(&r, 9);
    plan.spin_ns = one_in(&r, 2) ? -1 : 0;
    plan.batch = one_in(&r, 2) ? 1 : 2 + below(&r, BATCH - 1);
    plan.blocks = one_in(&r, 3) ? 0 : one_in(&r, 4) ? 256 : below(&r, 64);
    plan.large = below(&r, 20);
    plan.rests = one_in(&r, 2) ? 0 : below(&r, 64);
    plan.one_interp = one_in(&r, 2);
    plan.groups_first = !one_in(&r, 3);
    plan.close_early = one_in(&r, 5);
    plan.kill = one_in(&r, 4);
    plan.patient = one_in(&r, 3);
    if (one_in(&r, 5)) plan.ttl_ns = 100000 + below(&r, one_in(&r, 2) ? 2000000 : 40000000);
    plan.own_ttl = one_in(&r, 6);
    plan.sets = one_in(&r, 3);
    if (one_in(&r, 5)) plan.grow = plan.capacity << (1 + below(&r, 6));
    if (one_in(&r, 5)) plan.most = 1 + below(&r, one_in(&r, 2) ? 4 : 300);
    if (one_in(&r, 4)) plan.retain = 1 + below(&r, one_in(&r, 2) ? 10 : 400);
    if (one_in(&r, 3)) plan.from = one_in(&r, 2) ? XI_FROM_OLDEST : XI_FROM_LAST;
    plan.last = 1 + below(&r, 50);
    if (one_in(&r, 4)) plan.when_full = one_in(&r, 2) ? XI_FULL_FAIL : XI_FULL_DROP;
    plan.need_peer = one_in(&r, 4);
    plan.values = 12000 / (1 + plan.named / 4) + 500;
    draw_consumers(&r, consumers);
    if (one_in(&r, 3)) draw_acks(&r);
    leave_room();
    if (plan.most && plan.most <= 4 && plan.values > 1500) plan.values = 1500;
    if (chaos) {
        plan.kill = plan.stop = true;
        plan.broker = one_in(&r, 2);
        if (!getenv("XI_TEST_LONG")) plan.values /= 4;
    }
    if (one_in(&r, 6)) draw_calls();
    if (plan.mode == XI_QUEUE && plan.named == 0 && !plan.kill && !may_lose() && !plan.acks && !plan.calls && one_in(&r, 2)) {
        plan.lockstep = plan.patient = true;
        plan.values = 800;
        plan.rests = 0;
    }
    for (uint32_t i = 0; i < producers; i++)
        plan.worker[plan.workers++] = (struct worker){.producer = true, .process = below(&r, plan.processes)};
}

/* -------------------------------------------------------------------- the parent */

static struct {
    pid_t pid[PROCESSES], keeper;
    uint32_t actors; /* given out */
    uint32_t kills;
    int64_t begun, last_look, longest_gap;
} R;

static uint32_t new_actor(void) {
    expect(R.actors < ACTORS, "more actors than the history has room for");
    return R.actors++;
}

static bool works_in(uint32_t i, uint32_t process) {
    return plan.worker[i].process == process && !atomic_load(&S->finished[i]);
}

/* Each worker of the process that has something to do becomes a new actor; with a group of its own, a new group. */
static void start(uint32_t process) {
    char name[16];
    for (uint32_t i = 0; i < plan.workers; i++) {
        struct worker *w = &plan.worker[i];
        if (!works_in(i, process)) continue;
        w->actor = new_actor();
        if (w->producer || w->served || plan.mode == XI_QUEUE) continue;
        snprintf(name, sizeof name, "own%u", w->actor);
        w->group = h_add_group(H, channel, name);
        tell_of(w->group);
    }
    fflush(NULL);
    R.pid[process] = fork();
    must_sys(R.pid[process]);
    if (R.pid[process] == 0) run_process(process);
}

static void kill_and_replace(uint32_t process) {
    uint32_t actors[WORKERS], n = 0;
    int status;
    for (uint32_t i = 0; i < plan.workers; i++)
        if (plan.worker[i].process == process) actors[n++] = plan.worker[i].actor;
    chaos_before_kill(R.pid[process]);
    for (uint32_t i = 0; i < n; i++) h_kill_begin(H, actors[i]);
    must_sys(kill(R.pid[process], SIGKILL));
    chaos_killed(now_ns());
    status = reap(R.pid[process]);
    for (uint32_t i = 0; i < n; i++) h_kill_end(H, actors[i]);
    if (WIFEXITED(status) && WEXITSTATUS(status)) fail("a process ended with status %d by itself", WEXITSTATUS(status));
    R.kills++;
    start(process);
}

/* What those do that still have to come to an end: for when they do not. */
static void tell_who_is_stuck(void) {
    for (uint32_t a = 0; a < R.actors; a++) {
        uint32_t n = atomic_load(&H->actor[a].count);
        if (H->actor[a].kill_end || n == 0) continue;
        const struct h_event *e = &h_events(H, a)[n - 1];
        if (e->end != H_OPEN) continue;
        fprintf(stderr, "actor %u is in call %u, kind %u, group %s, timeout %lld, since %.3f s\n", a, n - 1, e->kind,
                e->group < H->groups ? H->group[e->group].name : "-", (long long)e->timeout,
                (double)(now_ns() - e->begin) / 1e9);
    }
}

/* A child that ended by itself in the middle has said why. */
static void look_after(void) {
    int64_t now = now_ns();
    if (now - R.last_look > R.longest_gap) R.longest_gap = now - R.last_look;
    R.last_look = now;
    expect(waitpid(R.keeper, NULL, WNOHANG) == 0, "the keeper has gone; XI_TEST_SEED=%llu",
           (unsigned long long)plan.seed);
    for (uint32_t i = 0; i < plan.processes; i++) {
        int status;
        if (R.pid[i] == 0 || waitpid(R.pid[i], &status, WNOHANG) != R.pid[i]) continue;
        expect(WIFEXITED(status) && WEXITSTATUS(status) == 0,
               "process %u ended with wait status %#x; XI_TEST_SEED=%llu", i, status, (unsigned long long)plan.seed);
        R.pid[i] = 0;
    }
    if (now - R.begun < RUN_MOST) return;
    tell_who_is_stuck();
    fail("the run did not come to an end; XI_TEST_SEED=%llu", (unsigned long long)plan.seed);
}

static bool all_finished(bool producers) {
    for (uint32_t i = 0; i < plan.workers; i++)
        if ((plan.worker[i].producer || !producers) && !atomic_load(&S->finished[i])) return false;
    return true;
}

/* Producers begin when all consumers are there, or as the first one is. */
static bool enough_joined(void) {
    uint32_t joined = 0, consumers = 0;
    for (uint32_t i = 0; i < plan.workers; i++) {
        consumers += !plan.worker[i].producer;
        joined += atomic_load(&S->joined[i]);
    }
    return joined == consumers || (joined && !plan.groups_first);
}

static bool all_ended(void) {
    for (uint32_t i = 0; i < plan.processes; i++)
        if (R.pid[i]) return false;
    return true;
}

static void play(uint64_t *r) {
    int64_t close_at = plan.close_early ? now_ns() + below(r, 100000000) : INT64_MAX, kill_at = now_ns() + 20 * MS;
    R.last_look = now_ns();
    while (!all_ended()) {
        look_after();
        if (!atomic_load(&S->go) && enough_joined()) say(&S->go);
        if (!atomic_load(&S->close) && (all_finished(true) || now_ns() > close_at)) say(&S->close);
        if (plan.kill && now_ns() > kill_at && R.actors + 2 * WORKERS < ACTORS) {
            uint32_t process = below(r, plan.processes);
            if (R.pid[process] && !all_finished(false)) kill_and_replace(process);
            kill_at = now_ns() + MS + below(r, 40000000);
        }
        if (plan.stop) chaos_turn(r, R.pid, plan.processes);
        rest(MS); /* the rhythm of looking on and killing: whoever ends, joins or is done is seen then */
    }
}

static void prepare(void) {
    char name[16];
    memset(&R, 0, sizeof R);
    S = shared_memory(sizeof *S);
    H = h_new(ACTORS, EVENTS);
    channel = h_add_channel(H, "history");
    H->channel[channel].values = plan.most;
    H->channel[channel].retain = is_ample() ? plan.retain : 0;
    default_group = h_add_group(H, channel, "default");
    H->group[default_group].from_start = plan.mode == XI_QUEUE;
    for (uint32_t i = 0; i < plan.named; i++) named_group[i] = h_add_group(H, channel, group_name(name, i));
    for (uint32_t g = 0; g < H->groups; g++) tell_of(g);
    for (uint32_t i = 0; i < plan.workers; i++) plan.worker[i].group = default_group;
    R.begun = now_ns();
}

static void describe(void) {
    printf("XI_TEST_SEED=%llu: %s, %u named groups, %u workers in %u processes, %llu KiB, batch %u",
           (unsigned long long)plan.seed, plan.mode == XI_QUEUE ? "queue" : "broadcast", plan.named, plan.workers,
           plan.processes, (unsigned long long)plan.capacity / 1024, plan.batch);
    const struct {
        bool is;
        const char *what;
    } traits[] = {
        {plan.one_interp, "threads share an interpreter"},
        {plan.spin_ns < 0, "no spinning"},
        {!plan.groups_first, "late groups"},
        {plan.close_early, "closed early"},
        {plan.kill, "killed"},
        {plan.stop, "stopped"},
        {plan.broker, "the broker too"},
        {plan.calls, "calls"},
        {plan.lockstep, "lockstep"},
        {plan.patient, "patient"},
        {plan.ttl_ns || plan.own_ttl, "values expire"},
        {plan.sets, "sets"},
        {plan.retain > 0, "retained"},
        {plan.from == XI_FROM_OLDEST, "from the oldest"},
        {plan.from == XI_FROM_LAST, "from the last"},
        {plan.grow > 0, "growing"},
        {plan.most > 0, "bounded"},
        {plan.when_full == XI_FULL_FAIL, "full fails"},
        {plan.when_full == XI_FULL_DROP, "full drops"},
        {plan.acks, "acknowledged"},
        {plan.overdue > 0, "overdue"},
        {plan.dead_letters, "dead letters"},
    };
    for (size_t i = 0; i < sizeof traits / sizeof *traits; i++)
        if (traits[i].is) printf(", %s", traits[i].what);
    fflush(stdout);
}

static void judge(void) {
    static struct h_report report;
    /* Who looks every millisecond and found itself stopped for so long cannot tell a lost wake from a busy machine. */
    int64_t gap = atomic_load(&S->longest_gap);
    H->patience = R.longest_gap < 100 * MS && gap < 100 * MS ? PATIENCE : 0;
    if (plan.stop) chaos_measure();
    h_check(H, &report);
    uint64_t gone = 0;
    for (uint32_t g = 0; g < H->groups; g++) gone += H->group[g].dropped + H->group[g].expired;
    printf(": %llu values, %llu events, %llu dropped or expired, %u kills, %.2f s\n", (unsigned long long)report.values,
           (unsigned long long)report.events, (unsigned long long)gone, R.kills, (double)(now_ns() - R.begun) / 1e9);
    fflush(stdout);
    if (report.count == 0) return;
    fprintf(stderr, "%llu violations:\n%sXI_TEST_SEED=%llu repeats the run\n", (unsigned long long)report.count,
            report.text, (unsigned long long)plan.seed);
    fail("the history is not one that the library may make");
}

/* With the run's last interpreter the channel goes; the next run's is to be another one, though of that name. */
static bool channel_gone(void) {
    xi_observer *observer;
    xi_channel_info channels[16];
    int rc = xi_observe(NULL, &observer);
    if (rc) return rc == XI_E_NOENT; /* with the whole namespace */
    int64_t n = xi_list_channels(observer, channels, 16);
    bool there = n < 0;
    for (int64_t i = 0; i < n && i < 16; i++) there |= strcmp(channels[i].name, "history") == 0;
    xi_observer_free(observer);
    return !there;
}

static void run(uint64_t seed) {
    uint64_t r = seed ^ 0x5bd1e995;
    draw_plan(seed);
    describe();
    prepare();
    uint32_t keeper = new_actor();
    fflush(NULL);
    R.keeper = fork();
    must_sys(R.keeper);
    if (R.keeper == 0) keep(keeper);
    await_event(&S->event, atomic_load(&S->kept), "the keeper does not come");
    if (plan.stop) chaos_begin();
    for (uint32_t i = 0; i < plan.processes; i++) start(i);
    play(&r);
    if (plan.stop) chaos_end();
    say(&S->finish);
    reap_ok(R.keeper, "the keeper");
    await(channel_gone(), "the channel stays when all have gone");
    judge();
    h_free(H);
    munmap(S, sizeof *S);
}

int main(int argc, char **argv) {
    chaos = argc > 1 && strcmp(argv[1], "chaos") == 0;
    const char *text = getenv("XI_TEST_SEED"), *many = getenv("XI_TEST_LONG");
    if (text) {
        run(strtoull(text, NULL, 0));
        return 0;
    }
    uint64_t first = ((uint64_t)now_ns() ^ (uint64_t)getpid() << 32) % 1000000000u + 1, runs = 0;
    int64_t until = now_ns() + (many ? chaos ? 150 : 240 : chaos ? 3 : 5) * SECOND;
    do run(first + runs++);
    while (now_ns() < until);
    printf("%llu runs, each as it may be\n", (unsigned long long)runs);
    if (chaos) chaos_judge();
    return 0;
}
