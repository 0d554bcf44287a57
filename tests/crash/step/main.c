/* SPDX-License-Identifier: MIT */
/*
 * Every instruction. Plays each scene (scenes.c): steps the real library through
 * one operation, and for each instruction at which shared memory has changed has
 * the death of that process judged on a copy (judge.c): plainly; with the repair
 * killed before each of its own stores; and after a living process did a whole
 * operation beside the one that stands still.
 *
 *     test_step [SCENE...]    by name; without one: all
 *
 * By default each state is judged plainly once, and the other judgements are
 * dealt out over the states; XI_TEST_LONG makes them all. XI_STEP_LOG=1 shows
 * what the brokers of the copies say.
 *
 * That it can fail it shows each time: states that the library would leave if it
 * made some store a little earlier are judged as well, and found out.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

#include "broker.h"
#include "look.h"
#include "scenes.h"
#include "start.h"
#include "step.h"

#define JOBS 2
/* By default, of repair's steps: about one for every other state; and one living deed for every other, its own
 * broker for two of four. */
#define STRIDE 300
#define EVERY_LIVE 2
#define EVERY_OWN 4

/* What came out, over all processes. */
static struct figures {
    _Atomic uint64_t scenes, instructions, states, judged, kills, live, orders, found, failures;
} * total;

/* What a scene's processes share. */
static struct stage {
    struct verdict verdict;
    int64_t result;
    uint32_t sleeper_slot;
    uint32_t here_slot, here_arena; /* T's, for D to map */
    uint32_t other; /* slot of the third member */
    int64_t other_id;
    uint32_t dead;  /* whom the broker's double is to repair; */
    int64_t dead_id;
    bool two;       /* after the third member's death, which nothing but its repair separates from that */
    uint32_t segment, bells; /* of the first channel; and what the sleeper's bells said */
    int repaired;  /* its wait status; status 3: who sleeps was not woken */
} * S;

struct moment {
    uint64_t instruction; /* after so many */
    bool by_broker;       /* of the broker's, while D waits */
    struct picture picture;
};

struct play {
    const struct scene *scene;
    char ns[32], copy[32];
    struct part_in t;
    struct tracee d, broker;
    bool steps_broker;
    pid_t sleeper, other;
    struct image image;
    struct moment *moments;
    size_t count, capacity;
    const struct moment *now; /* that is being judged */
    struct mappings mappings;
    struct gate up, third, come, ready, go, sleep, repair, repaired;
    int reached; /* outcome */
    uint64_t judged, kills, live, orders, found;
    bool refused; /* D was refused memory */
    bool woken;  /* T has done what it does meanwhile */
    uint32_t bells;
    bool whole;  /* everything, not a part */
};

/* ------------------------------------------------------------- the processes */

/* By default D has T's segments mapped already: mapping them is ten thousand instructions that touch nothing shared. */
static void map_peer(xi_interp *me) {
    struct xi_map_entry *e = NULL;
    if (!S->here_slot || !me) return;
    (void)xi_mailbox_get(me, S->here_slot, &e);
    xi_mailbox_put(e);
    must(xi_maps_arena(me, S->here_arena, &e));
    xi_maps_put(e);
}

static void there(void *argument) {
    struct play *p = argument;
    struct part_in d = {.ns = p->ns, .writer = -1};
    gate_pass(&p->come);
    if (!(p->scene->flags & SCENE_UNJOINED)) d.me = join_ns(p->ns, "doomed", XI_JOIN_NO_SPIN);
    p->scene->there(&d);
    map_peer(d.me);
    gate_lift(&p->ready, 1);
    gate_pass(&p->go);
    tracee_offer();
    raise(SIGSTOP);
    S->result = p->scene->op ? p->scene->op(&d) : 0;
    raise(SIGSTOP);
    for (;;) pause();
}

/*
 * The broker that has been there all the time knows what D has open; one that adopts repairs every channel. So a copy of
 * the former, forked from it, enters the copy as well, and has D's death to deal with.
 */
struct double_ {
    struct play *p;
    struct broker *b;
    struct watch *asked;
};

/* As on_death() would say it. */
static void hear_of_death(struct broker *b, uint32_t slot, int64_t id) {
    expect(b->queue_count == 0, "somebody else talks to the broker");
    if (!b->queue_capacity) b->queue = calloc(b->queue_capacity = 64, sizeof *b->queue);
    expect(b->queue != NULL, "no memory");
    b->queue[b->queue_count++] = (struct event){.kind = EVENT_DEATH, .slot = slot, .id = id};
    b->fate = "was killed";
    b->check.at = loop_now(); /* so that it does not sleep */
    broker_turn(b);
}

/* Zeros in the place of rings that are not backed, of which no file has anything: they are not inherited, either. */
static void put_zeros(const struct world *w) {
    for (const struct seg *s = w->newest; s; s = s->older) {
        if (s->kind != XI_SEG_CHANNEL || !s->map.bare) continue;
        uint8_t *ring = (uint8_t *)s->map.base + XI_RING_OFFSET;
        void *at = mmap(ring, s->map.mapped - XI_RING_OFFSET, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        expect(at == ring, "mmap: %s", strerror(errno));
    }
}

__attribute__((noreturn)) static void live_as_double(struct double_ *d, const struct mappings *m) {
    struct broker *b = d->b;
    alarm(60);
    mappings_enter(m, b->world.epoch, d->p->copy);
    put_zeros(&b->world);
    snprintf(b->world.ns, sizeof b->world.ns, "%s", d->p->copy);
    if (S->two) hear_of_death(b, S->other, S->other_id);
    hear_of_death(b, S->dead, S->dead_id);
    while (b->recover.mends) broker_turn(b);
    struct looker l = {b, S->dead, S->dead_id, d->p->sleeper ? S->sleeper_slot : 0, S->segment, S->bells, d->p->scene->sleeper == sleeper_sends};
    _exit(look_overslept(&l) ? 3 : 0);
}

static void repair_as_double(void *context, int result, const void *data) {
    static struct mappings m;
    struct double_ *d = context;
    (void)result, (void)data;
    gate_pass(&d->p->repair);
    mappings_find(&m, d->p->ns, NULL); /* here, as many are not inherited */
    pid_t pid = _Fork();
    must_sys(pid);
    if (pid == 0) live_as_double(d, &m);
    S->repaired = reap(pid);
    gate_lift(&d->p->repaired, 1);
    loop_again(d->b->loop, d->asked);
}

/* A broker of ours: a child, so that it can be stepped, and what broker/main.c makes of broker/ but for the background. */
static void serve(void *argument) {
    static struct broker b;
    struct play *p = argument;
    struct broker_options o = {.ns = p->ns, .wait = LOOP_POLL, .limits = STATE_LIMITS_DEFAULT, .other_limits = STATE_LIMITS_DEFAULT};
    bool stale;
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (p->steps_broker) tracee_offer();
    must_sys(prctl(PR_SET_PDEATHSIG, SIGKILL));
    if (!getenv("XI_STEP_LOG")) must_sys(dup2(nowhere, STDERR_FILENO));
    int socket = -1, rc = start_lock(p->ns) < 0;
    if (rc == 0) rc = broker_init(&b, &o);
    if (rc == 0) socket = start_socket(p->ns, &stale);
    expect(rc == 0 && socket >= 0, "the broker: %s", xi_error_text(rc ? rc : socket));
    broker_listen(&b, socket, -1);
    struct double_ d = {p, &b, NULL};
    d.asked = loop_poll(b.loop, p->repair.fd[0], POLLIN, repair_as_double, &d);
    gate_lift(&p->up, 1);
    for (;;) {
        broker_turn(&b);
        b.rings.timer.at = 0; /* it moves no ring by itself: its double is to know what was there when the picture was taken */
    }
}

/* A third member, which has the channel open and does nothing: for two deaths at a time. Where both always die it has a group
 * of its own, whose end needs a lock that D may hold. */
static void other(void *argument) {
    struct play *p = argument;
    must_sys(prctl(PR_SET_PDEATHSIG, SIGKILL));
    gate_pass(&p->third);
    xi_interp *me = join_ns(p->ns, "other", XI_JOIN_NO_SPIN);
    (void)open_with(me, "c", &(xi_open_opts){.flags = p->scene->flags & SCENE_TWO ? XI_OPEN_RECV : XI_OPEN_SEND});
    S->other = me->slot;
    S->other_id = me->id;
    gate_lift(&p->ready, 1);
    for (;;) pause();
}

static void sleeper(void *argument) {
    struct play *p = argument;
    struct part_in w = {.ns = p->ns, .writer = -1};
    must_sys(prctl(PR_SET_PDEATHSIG, SIGKILL));
    gate_pass(&p->sleep);
    w.me = join_ns(p->ns, "sleeper", XI_JOIN_NO_SPIN);
    S->sleeper_slot = w.me->slot;
    p->scene->sleeper(&w);
}

/* Until it sleeps on the first channel; then it is stopped. */
static void put_to_sleep(struct play *p) {
    struct xi_chan *c = p->t.ch[0]->chan;
    gate_lift(&p->sleep, 1);
    while (!xi_load_full(&c->parked_groups) && !xi_load_full(&c->parked_producers)) sched_yield();
    tracer_settle(p->sleeper);
    must_sys(kill(p->sleeper, SIGSTOP));
    int status;
    must_sys(waitpid(p->sleeper, &status, WUNTRACED));
    expect(WIFSTOPPED(status), "the sleeper ended");
}

static uint32_t bells_of(const struct picture *now, uint32_t slot) {
    const struct xi_registry *r = (const void *)picture_piece(now, 0)->bytes;
    const struct xi_mailbox *m = (const void *)picture_piece(now, r->slots[slot].mailbox_seg)->bytes;
    uint32_t sum = 0;
    for (int i = 0; i < 8; i++) sum += m->bells[i].bell;
    return sum;
}

static const struct picture *last_picture(const struct play *p) {
    return p->count ? &p->moments[p->count - 1].picture : NULL;
}

/* For another picture; `last` stays where it is to be found by last_picture() until that is counted. */
static struct picture *new_moment(struct play *p, bool by_broker) {
    if (p->count == p->capacity) {
        p->capacity = p->capacity ? p->capacity * 2 : 64;
        p->moments = realloc(p->moments, p->capacity * sizeof *p->moments);
        expect(p->moments != NULL, "no memory");
    }
    struct moment *m = &p->moments[p->count];
    m->instruction = p->d.instructions + p->broker.instructions;
    m->by_broker = by_broker;
    return &m->picture;
}

/* The call that backs a ring may be killed between any two of its pages. */
static void keep_half_backed(struct play *p, const struct picture *now, bool by_broker) {
    unsigned which, more = picture_backed_since(now, last_picture(p), &which);
    for (unsigned n = 1; n < more; n++) {
        struct picture *half = new_moment(p, by_broker);
        picture_half_backed(half, last_picture(p), now, which, 1);
        p->count++;
    }
}

static void keep_picture(struct play *p, bool by_broker) {
    struct picture now;
    picture_take(&now, &p->image, last_picture(p));
    if (p->count) keep_half_backed(p, &now, by_broker);
    *new_moment(p, by_broker) = now;
    p->count++;
}

static void show_arena(struct play *p) {
    xi_loan loan;
    must(xi_loan_get(p->t.me, 64, &loan));
    S->here_slot = p->t.me->slot;
    S->here_arena = loan.handle.segment;
    xi_loan_drop(&loan);
}

static void begin(struct play *p) {
    p->up = gate_new();
    p->third = gate_new();
    p->come = gate_new();
    p->ready = gate_new();
    p->go = gate_new();
    p->sleep = gate_new();
    p->repair = gate_new();
    p->repaired = gate_new();
    p->broker.pid = spawn(serve, p);
    pid_t doomed = spawn(there, p);
    p->other = spawn(other, p);
    if (p->scene->sleeper) p->sleeper = spawn(sleeper, p);
    gate_pass(&p->up);
    p->t = (struct part_in){.ns = p->ns, .me = join_ns(p->ns, "here", XI_JOIN_NO_SPIN | XI_JOIN_NO_START)};
    p->scene->here(&p->t);
    if (!p->whole) show_arena(p);
    gate_lift(&p->third, 1);
    gate_pass(&p->ready);
    gate_lift(&p->come, 1);
    gate_pass(&p->ready);
    if (p->scene->then) p->scene->then(&p->t);
    if (p->sleeper) put_to_sleep(p);
    gate_lift(&p->go, 1);
    tracer_attach(&p->d, doomed);
    tracer_settle(p->broker.pid);
    if (p->steps_broker) {
        must_sys(kill(p->broker.pid, SIGSTOP));
        tracer_attach(&p->broker, p->broker.pid);
    }
    (void)xi_free_run(p->t.me);
    snprintf(p->image.ns, sizeof p->image.ns, "%s", p->ns);
    (void)image_scan(&p->image);
    keep_picture(p, false);
    if (p->sleeper) p->bells = S->bells = bells_of(last_picture(p), S->sleeper_slot);
    S->segment = p->t.ch[0]->segment;
}

static void end_process(pid_t pid) {
    must_sys(kill(pid, SIGKILL));
    int status = reap(pid);
    while (!WIFSIGNALED(status)) status = reap(pid); /* of one that is traced its stops come first */
}

static void finish(struct play *p) {
    if (!(p->scene->flags & SCENE_DIES)) end_process(p->d.pid);
    end_process(p->other);
    if (p->sleeper) end_process(p->sleeper);
    end_process(p->broker.pid);
    image_close(&p->image);
    for (size_t i = 0; i < p->count; i++) picture_drop(&p->moments[i].picture);
    free(p->moments);
    world_sweep_away(p->copy);
    world_sweep_away(p->ns);
}

/* ------------------------------------------------------------------- judging */

__attribute__((noreturn, format(printf, 2, 3))) static void failed(struct play *p, const char *format, ...) {
    va_list args;
    char text[600];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("%s: after instruction %lu of %lu%s, state %zd of %zu: %s\n", p->scene->name, p->now ? p->now->instruction : 0,
           p->d.instructions + p->broker.instructions, p->now && p->now->by_broker ? " (the broker's)" : "",
           p->now ? p->now - p->moments : -1, p->count, text);
    fflush(stdout);
    atomic_fetch_add(&total->failures, 1);
    world_sweep_away(p->copy);
    world_sweep_away(p->ns);
    _exit(1); /* which ends the others too */
}

/* D's slot, if the registry has one. */
static uint32_t slot_of_doomed(const struct play *p, const struct picture *now, int64_t *id) {
    const struct xi_registry *r = (const void *)picture_piece(now, 0)->bytes;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++)
        if (r->slots[i].state == XI_SLOT_LIVE && r->slots[i].pid == p->d.pid) {
            *id = r->slots[i].id;
            return i;
        }
    return 0;
}

/* How the broker learns of D's death: by adopting; having been there all the time; or not at all, D lives. */
enum by { BY_ADOPTION, BY_ITS_OWN, BY_ITS_OWN_AFTER_ANOTHER, BY_NOBODY };

/* Lets a child of ours live on in a copy of this. */
static const struct verdict *ask(struct play *p, const struct picture *picture, enum live live, long kill_at, enum by by) {
    const struct xi_registry *r = (const void *)picture_piece(picture, 0)->bytes;
    struct question q = {.scene = p->scene, .t = &p->t, .mappings = &p->mappings, .copy = p->copy, .epoch = r->seg.epoch,
                         .bells = p->bells, .sleeper = p->sleeper ? S->sleeper_slot : 0, .live = live, .kill_at = kill_at,
                         .lives = by == BY_NOBODY, .verdict = &S->verdict};
    q.dead = by == BY_NOBODY ? 0 : slot_of_doomed(p, picture, &q.dead_id);
    S->verdict = (struct verdict){.done = false};
    picture_spread(picture, p->copy, (uint32_t[]){q.dead, p->scene->flags & SCENE_TWO ? S->other : 0});
    if (by == BY_ITS_OWN || by == BY_ITS_OWN_AFTER_ANOTHER) {
        S->two = by == BY_ITS_OWN_AFTER_ANOTHER;
        S->dead = q.dead;
        S->dead_id = q.dead_id;
        uint64_t had = world_backed(p->copy, q.epoch, S->segment);
        gate_lift(&p->repair, 1);
        gate_pass(&p->repaired);
        if (WIFEXITED(S->repaired) && WEXITSTATUS(S->repaired) == 3)
            failed(p, "repaired by its own broker: there is something for the one that sleeps, and it was not woken");
        if (S->repaired) failed(p, "its own broker ended over it: wait status %#x", S->repaired);
        if (world_backed(p->copy, q.epoch, S->segment) > had) failed(p, "its own broker touched memory that was not there");
    }
    pid_t child = _Fork();
    must_sys(child);
    if (child == 0) judge(&q);
    int status = reap(child);
    if (!S->verdict.done)
        snprintf(S->verdict.wrong, sizeof S->verdict.wrong, "the judge ended with %s %d", WIFSIGNALED(status) ? "signal" : "status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    p->judged++;
    return &S->verdict;
}

/* The outcome with what the living sent at the end of every reader's part. */
static void expected(const char *outcome, bool sent, char out[LINE]) {
    size_t n = 0;
    bool told = false; /* what a call came to is no reader's; nor is a count */
    for (const char *c = outcome;; c++) {
        if (sent && !told && strchr("|=.~", *c)) n += (size_t)snprintf(out + n, LINE - n, " 500");
        told = (told && *c != '|') || *c == '=' || *c == '~';
        out[n++] = *c;
        if (!*c) return;
    }
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The words of each reader's part in alphabetical order. */
static void sort_words(char line[LINE]) {
    char text[LINE], *words[64], out[LINE] = "";
    snprintf(text, sizeof text, "%s", line);
    char *end = text + strcspn(text, "|=.~");
    char rest[LINE];
    snprintf(rest, sizeof rest, "%s", end);
    *end = 0;
    size_t n = 0, used = 0;
    for (char *w = strtok(text, " "); w && n < 64; w = strtok(NULL, " ")) words[n++] = w;
    qsort(words, n, sizeof *words, by_text);
    for (size_t i = 0; i < n; i++) used += (size_t)snprintf(out + used, sizeof out - used, " %s", words[i]);
    snprintf(line, LINE, "%s%s", out, rest);
}

static bool same(const struct verdict *v, const char *outcome, bool any_order) {
    char want[LINE], got[LINE];
    expected(outcome, v->sent, want);
    memcpy(got, v->line, LINE);
    if (any_order) {
        sort_words(want);
        sort_words(got);
    }
    return strcmp(want, got) == 0;
}

/* Which outcome it is, from `from` on; -1: none. */
static int outcome_of(const struct play *p, const struct verdict *v, int from, bool any_order) {
    for (int i = from; i < OUTCOMES && p->scene->outcome[i]; i++)
        if (same(v, p->scene->outcome[i], any_order)) return i;
    return -1;
}

/* The death as such. Returns the steps of its repair. */
static long judge_plainly(struct play *p) {
    const struct verdict *v = ask(p, &p->now->picture, LIVE_NONE, -1, BY_ADOPTION);
    if (v->wrong[0]) failed(p, "%s", v->wrong);
    int what = outcome_of(p, v, p->reached, false);
    if (what < 0) failed(p, "the readers get \"%s\" after \"%s\"", v->line, p->scene->outcome[p->reached]);
    p->reached = what;
    return v->steps;
}

static void judge_repair_killed(struct play *p, long k) {
    const struct verdict *v = ask(p, &p->now->picture, LIVE_NONE, k, BY_ADOPTION);
    if (v->wrong[0]) failed(p, "repair killed at its step %ld: %s", k, v->wrong);
    if (!same(v, p->scene->outcome[p->reached], false))
        failed(p, "repair killed at its step %ld: the readers get \"%s\", not \"%s\"", k, v->line, p->scene->outcome[p->reached]);
    p->kills++;
}

static void judge_live(struct play *p, enum live live) {
    static const char *const names[] = {"", "a send", "a receive", "a release"};
    if (live == LIVE_SEND && p->scene->flags & SCENE_NOT_SEND) return;
    if (live == LIVE_RECEIVE && p->scene->flags & SCENE_NOT_RECEIVE) return;
    const struct verdict *v = ask(p, &p->now->picture, live, -1, BY_ADOPTION);
    if (v->wrong[0]) failed(p, "after %s beside it: %s", names[live], v->wrong);
    if (outcome_of(p, v, 0, live == LIVE_RECEIVE) < 0) failed(p, "after %s beside it the readers get \"%s\"", names[live], v->line);
    p->live++;
}

/* The broker died, and D waits for its answer. What D holds does not come back, so what the readers get is not looked at. */
static void judge_broker_alone(struct play *p) {
    const struct verdict *v = ask(p, &p->now->picture, LIVE_NONE, -1, BY_NOBODY);
    if (v->wrong[0]) failed(p, "after the broker's death alone: %s", v->wrong);
}

static void judge_own_broker(struct play *p, enum by by) {
    const char *after = by == BY_ITS_OWN_AFTER_ANOTHER ? ", after another death" : "";
    const struct verdict *v = ask(p, &p->now->picture, LIVE_NONE, -1, by);
    if (v->wrong[0]) failed(p, "repaired by its own broker%s: %s", after, v->wrong);
    if (!same(v, p->scene->outcome[p->reached], false))
        failed(p, "repaired by its own broker%s: the readers get \"%s\", not \"%s\"", after, v->line, p->scene->outcome[p->reached]);
}

static void judge_state(struct play *p, size_t number) {
    p->now = &p->moments[number];
    long steps = judge_plainly(p), stride = p->whole || p->scene->flags & SCENE_ALL_KILLS ? 1 : STRIDE;
    for (long k = (long)(number * 59) % stride; k < steps; k += stride) judge_repair_killed(p, k);
    for (int live = LIVE_NONE + 1; live < LIVE_KINDS; live++)
        if (p->whole || number % (EVERY_LIVE * (LIVE_KINDS - 1)) == EVERY_LIVE * (size_t)(live - 1)) judge_live(p, (enum live)live);
    for (int by = p->scene->flags & SCENE_TWO ? BY_ITS_OWN_AFTER_ANOTHER : BY_ITS_OWN; by <= BY_ITS_OWN_AFTER_ANOTHER; by++)
        if (!(p->scene->flags & SCENE_BROKER) && (p->whole || number % EVERY_OWN == (size_t)by)) judge_own_broker(p, (enum by)by);
    if (p->now->by_broker && !(p->scene->flags & SCENE_DIES)) judge_broker_alone(p);
}

/*
 * What the order of stores is for: a change alone, without the one or the two that the library makes before it. A scene says
 * how many of these have to be found out at least; others do no harm, or what the next instruction does makes up for it.
 */
static void judge_early(struct play *p, size_t number, size_t skip) {
    const struct picture *before = &p->moments[number].picture, *last = &p->moments[number + skip].picture,
                         *early = &p->moments[number + skip + 1].picture;
    struct picture turned;
    if (!picture_alike(before, last) || !picture_alike(last, early)) return;
    picture_copy(&turned, before);
    picture_apply(&turned, last, early);
    const struct verdict *v = ask(p, &turned, LIVE_NONE, -1, BY_ADOPTION);
    bool found = v->wrong[0] || outcome_of(p, v, 0, false) < 0;
    p->orders++;
    p->found += found;
    if (found && getenv("XI_STEP_ORDERS"))
        printf("  %s: %zu before %zu:%s; %s\n", p->scene->name, number + skip + 1, number + 1, v->line, v->wrong);
    picture_drop(&turned);
}

static void judge_orders(struct play *p) {
    if (!p->whole && !p->scene->orders) return;
    for (size_t skip = 1; skip <= 2; skip++)
        for (size_t i = 0; i + skip + 1 < p->count; i++) judge_early(p, i, skip);
    if (p->found < p->scene->orders)
        failed(p, "of %lu orders of stores that are wrong %lu were found out, not %u", p->orders, p->found, p->scene->orders);
}

/* -------------------------------------------------------------------- scenes */

/* After an instruction: keeps a picture if memory has changed. What is not backed gets memory by a call that can fail, never by
 * being touched, which is a signal where there is none left. */
static void look_again(struct play *p, bool call, bool by_broker) {
    bool talks = p->scene->flags & SCENE_BROKER && (call || by_broker), files = false;
    if (image_backed(&p->image) && !call)
        failed(p, "instruction %lu touched memory that is not there yet", p->d.instructions + p->broker.instructions);
    if (talks && !p->steps_broker) tracer_settle(p->broker.pid);
    if (talks && call) files = image_scan(&p->image);
    if (files || image_differs(&p->image, last_picture(p), talks)) keep_picture(p, by_broker);
}

/* Until it waits for something. */
static void run_broker(struct play *p) {
    for (enum stepped what; (what = tracer_step(&p->broker)) != STEPPED_TO_SLEEP;) {
        expect(what != STEPPED_TO_END, "the broker was stopped");
        look_again(p, what == STEPPED_CALL, true);
    }
}

/* D waits: for the broker, or for T. */
static void let_others_run(struct play *p) {
    struct timespec moment = {0, 20000};
    if (p->steps_broker) {
        run_broker(p);
    } else if (p->scene->meanwhile && !p->woken) {
        p->woken = true;
        p->scene->meanwhile(&p->t);
    }
    nanosleep(&moment, NULL); /* the stepped one is in a call of the kernel, which tells no tracer when it could go on */
}

/*
 * Once, as the kernel says that a page of shared memory is not to be had, when it has found one. Where another has backed the ring before
 * it is the process that has no memory for its page table.
 */
static void refuse_memory(struct play *p) {
    if (p->refused || !(p->scene->flags & SCENE_NO_MEMORY)) return;
    bool backed = world_backed(p->ns, p->t.me->epoch, S->segment) >= p->t.ch[0]->entry->map.size;
    if (!tracer_refuse_memory(&p->d, backed ? ENOMEM : EFAULT)) return;
    p->refused = true;
    (void)image_back_one(&p->image, S->segment);
    look_again(p, true, false);
}

static void run_operation(struct play *p) {
    for (enum stepped what; refuse_memory(p), (what = tracer_step(&p->d)) != STEPPED_TO_END;) {
        if (what == STEPPED_TO_SLEEP) let_others_run(p);
        else look_again(p, what == STEPPED_CALL, false);
    }
}

/* D dies for good, and the broker repairs that. */
static void run_death(struct play *p) {
    int64_t id;
    end_process(p->d.pid);
    while (slot_of_doomed(p, last_picture(p), &id)) let_others_run(p);
}

static void check_result(struct play *p) {
    int64_t rc = S->result;
    if (rc >= 0 || (p->scene->flags & SCENE_AGAIN && (rc == XI_E_AGAIN || rc == XI_E_TIMEOUT))) return;
    failed(p, "the operation failed: %s", xi_error_name((int)rc));
}

static void check_end(struct play *p) {
    int last = 0;
    if (p->scene->flags & SCENE_NO_MEMORY && !p->refused) failed(p, "nobody asked for memory");
    while (last + 1 < OUTCOMES && p->scene->outcome[last + 1]) last++;
    if (p->reached != last) failed(p, "the operation is over, and what came of it is \"%s\"", p->scene->outcome[p->reached]);
}

/* Who steps and who is stepped take turns: on one processor that costs half. */
static void stay_on(unsigned job) {
    cpu_set_t all, one;
    unsigned n = 0;
    if (sched_getaffinity(0, sizeof all, &all) != 0) return; /* it is for speed alone */
    job %= (unsigned)CPU_COUNT(&all);
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &all) || n++ != job) continue;
        CPU_ZERO(&one);
        CPU_SET(i, &one);
        (void)sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

static void play(const struct scene *scene, unsigned number) {
    char suffix[12];
    struct play *p = calloc(1, sizeof *p);
    expect(p != NULL, "no memory");
    *p = (struct play){.scene = scene, .whole = getenv("XI_TEST_LONG") != NULL};
    S = shared_memory(sizeof *S);
    snprintf(suffix, sizeof suffix, "%u", number);
    (void)further_ns(p->ns, suffix);
    snprintf(suffix, sizeof suffix, "%uc", number);
    (void)further_ns(p->copy, suffix);
    p->steps_broker = scene->flags & SCENE_BROKER && (p->whole || scene->flags & SCENE_STEPS_BROKER);
    begin(p);
    int64_t begun = now_ns();
    if (scene->flags & SCENE_DIES) run_death(p);
    else run_operation(p);
    check_result(p);
    int64_t stepped = now_ns();
    mappings_find(&p->mappings, p->ns, &p->image);
    must_sys(madvise((void *)(uintptr_t)xi_life_page, XI_PAGE, MADV_KEEPONFORK));
    for (size_t i = 0; i < p->count; i++) judge_state(p, i);
    check_end(p);
    judge_orders(p);
    printf("%-32s %7lu instructions %4zu states %5lu judged %2lu of %2lu orders  %5.2f + %5.2f s\n", scene->name, p->d.instructions + p->broker.instructions,
           p->count, p->judged, p->found, p->orders, (double)(stepped - begun) / 1e9, (double)(now_ns() - stepped) / 1e9);
    fflush(stdout);
    finish(p);
    atomic_fetch_add(&total->scenes, 1);
    atomic_fetch_add(&total->instructions, p->d.instructions + p->broker.instructions);
    atomic_fetch_add(&total->states, p->count);
    atomic_fetch_add(&total->judged, p->judged);
    atomic_fetch_add(&total->kills, p->kills);
    atomic_fetch_add(&total->live, p->live);
    atomic_fetch_add(&total->orders, p->orders);
    atomic_fetch_add(&total->found, p->found);
    free(p);
}

/* ---------------------------------------------------------------------- main */

static unsigned running, started;

static void one_ended(void) {
    int status;
    must_sys(wait(&status));
    running--;
    if (!(WIFEXITED(status) && WEXITSTATUS(status) <= 1)) {
        printf("a scene ended with %s %d\n", WIFSIGNALED(status) ? "signal" : "status",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        atomic_fetch_add(&total->failures, 1);
    } else if (WEXITSTATUS(status) == 1 && atomic_load(&total->failures) == 0) {
        atomic_fetch_add(&total->failures, 1);
    }
}

static void start(unsigned i) {
    if (running == JOBS) one_ended();
    fflush(NULL);
    pid_t pid = fork();
    must_sys(pid);
    if (pid == 0) {
        stay_on(started);
        play(&scenes[i], i);
        _exit(0);
    }
    running++;
    started++;
}

static bool wanted(int argc, char **argv, const char *name) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0) return true;
    return argc == 1;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    must_sys(setenv("XI_WAIT", "futex", 1)); /* the helpers of io_uring are threads, which nobody steps */
    if (!tracer_works()) {
        printf("skipped: no process may be traced here\n");
        return 77;
    }
    total = shared_memory(sizeof *total);
    bool whole = getenv("XI_TEST_LONG") != NULL;
    for (unsigned i = 0; i < scene_count; i++)
        if (wanted(argc, argv, scenes[i].name) && (whole || !(scenes[i].flags & (SCENE_DIES | SCENE_LONG)))) start(i);
    while (running) one_ended();
    printf("%lu operations, %lu instructions, %lu states, %lu deaths judged, of which %lu had the repair killed and %lu the living "
           "beside them; of %lu wrong orders of stores %lu found out; %lu failures\n", atomic_load(&total->scenes), atomic_load(&total->instructions), atomic_load(&total->states),
           atomic_load(&total->judged), atomic_load(&total->kills), atomic_load(&total->live), atomic_load(&total->orders),
           atomic_load(&total->found), atomic_load(&total->failures));
    return atomic_load(&total->failures) || !atomic_load(&total->scenes) ? 1 : 0;
}
