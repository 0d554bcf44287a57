/* SPDX-License-Identifier: MIT */
/*
 * A peer that never stops: another process writes values of spoil.h into a few
 * words of shared memory, as fast as it can, while threads of this one use the
 * channel; then into the next few, through all the words that matter.
 *
 * Two threads send through one handle and two receive through one, so that what
 * a handle keeps for itself meets two threads that both believe to have the lock;
 * a fifth opens and closes handles, waits on a set and looks. No call waits for
 * longer than a millisecond. The first thread looks that all of them return: a call
 * that has used a second of processor time without returning is a loop, one that
 * has not returned for a minute hangs. A second channel of the same
 * interpreters has to deliver exactly, all the time. When the writing stops the
 * channel can be removed and made anew.
 *
 *   test_hostile_load [KIND PLACE OFFSET WORDS ROUNDS]     there alone
 */
#include <pthread.h>
#include <sys/stat.h>

#include "scene.h"
#include "wire/names.h"

#include <fcntl.h>

#define THREADS 5
#define HUNG (60 * SECOND)
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CPU_LIMIT (5 * SECOND)
#else
#define CPU_LIMIT SECOND
#endif

/* ------------------------------------------------------------ the attacker */

/* Shared with it: what to write into. */
struct target {
    _Atomic uint32_t round; /* even: rest; odd: write */
    _Atomic uint32_t seen;  /* the last round that it has come to */
    _Atomic bool over;
    char segment[XI_SHM_NAME_MAX];
    size_t offset, words, thing; /* where, how many words, and the size that spoil_value() wants */
    _Atomic uint64_t writes;
};
static struct target *target;

static uint64_t draw(uint64_t *seed) { return *seed = spoil_mix(*seed + 0x9e3779b97f4a7c15ull); }

static void write_on(uint64_t *word, uint32_t round, uint64_t *seed) {
    uint64_t was[16], n = 0;
    for (size_t i = 0; i < target->words; i++) was[i] = word[i];
    while (atomic_load(&target->round) == round) {
        size_t i = draw(seed) % target->words;
        uint64_t r = draw(seed), own = __atomic_load_n(&word[i], __ATOMIC_RELAXED);
        /* What was there at the start now and then: so that the channel is found whole, and spoilt in mid-operation. */
        spoil_word(&word[i], r % 4 == 0 ? was[i] : spoil_value((unsigned)(r >> 8), own, target->thing, r >> 16));
        if (r % 64 == 1)
            for (int k = 0; k < 2000; k++) __atomic_signal_fence(__ATOMIC_SEQ_CST);
        n++;
    }
    atomic_fetch_add(&target->writes, n);
    for (size_t i = 0; i < target->words; i++) spoil_word(&word[i], was[i]);
}

static void be_attacker(void *argument) {
    (void)argument;
    uint64_t seed = 4711;
    for (uint32_t round = 0; !atomic_load(&target->over);) {
        struct timespec tick = {0, 100000};
        if (atomic_load(&target->round) == round) {
            nanosleep(&tick, NULL); /* it is driven by a word in memory: nobody rings */
            continue;
        }
        round = atomic_load(&target->round);
        if (round % 2 == 0) {
            atomic_store(&target->seen, round);
            continue;
        }
        struct stat st;
        int fd = shm_open(target->segment, O_RDWR | O_CLOEXEC, 0);
        expect(fd >= 0 && fstat(fd, &st) == 0, "%s: %s", target->segment, strerror(errno));
        uint8_t *base = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        expect(base != MAP_FAILED, "mmap: %s", strerror(errno));
        close(fd);
        atomic_store(&target->seen, round);
        write_on((uint64_t *)(void *)(base + target->offset), round, &seed);
        munmap(base, (size_t)st.st_size);
    }
}

static void wait_until_seen(uint32_t round) {
    int64_t deadline = now_ns() + 60 * SECOND;
    while (atomic_load(&target->seen) != round) {
        expect(now_ns() < deadline, "the writer does not come to round %u", round);
        struct timespec tick = {0, 50000};
        nanosleep(&tick, NULL); /* likewise */
    }
}

/* ------------------------------------------------------------- the victims */

struct worker {
    pthread_t thread;
    void (*body)(struct worker *w);
    uint64_t seed;
    const char *volatile operation;
    _Atomic uint64_t done, errors; /* calls returned */
    _Atomic bool stopped;
    /* for the watch */
    uint64_t seen_done;
    int64_t since, processor;
};
static struct scene scene;
static struct worker workers[THREADS];
static _Atomic bool resting;
static const char *attacked = "";
static char where[120];
static uint64_t calls, errors_all;

#define OP(w, call)                                                                                                    \
    ({                                                                                                                 \
        (w)->operation = #call;                                                                                        \
        int64_t rc_ = (call);                                                                                          \
        (w)->operation = "(between calls)";                                                                            \
        atomic_fetch_add(&(w)->errors, rc_ < 0);                                                                       \
        atomic_fetch_add(&(w)->done, 1);                                                                               \
        rc_;                                                                                                           \
    })

static int64_t read_through(const xi_msg *m) {
    xi_cursor c, children;
    xi_value v;
    char text[64];
    if (!m->data) return 0;
    (void)xi_validate(m->data, m->size);
    xi_cursor_init(&c, m->data, m->size);
    if (xi_next(&c, &v) != 1 || v.tag != XI_TUPLE || xi_enter(&v, &children) != 0) return 0;
    while (xi_next(&children, &v) == 1)
        if (v.tag == XI_BYTES && v.length) memcpy(text, v.data, v.length < sizeof text ? v.length : sizeof text);
    return 0;
}

static void send_something(struct worker *w) {
    const void *const values[3] = {small_value, large_value, small_value};
    const size_t sizes[3] = {small_size, large_size, small_size};
    uint64_t r = draw(&w->seed);
    int64_t timeout = r >> 32 & 1 ? XI_TRY : MS;
    xi_send_opts opts = {.timeout = timeout, .ttl_ns = 1000};
    xi_pending p = XI_PENDING_INIT;
    xi_msg reply = XI_MSG_INIT;
    switch (r % 8) {
    case 0:
    case 1: OP(w, xi_send(scene.out, small_value, small_size, timeout)); break;
    case 2:
    case 3: OP(w, xi_send(scene.out, large_value, large_size, timeout)); break;
    case 4: OP(w, xi_send_many(scene.out, values, sizes, 3, timeout)); break;
    case 5: OP(w, xi_send_ex(scene.out, small_value, small_size, &opts)); break;
    case 6: OP(w, xi_free_run(sender)); break;
    default:
        if (OP(w, xi_call_begin(scene.out, small_value, small_size, timeout, &p)) == 0)
            OP(w, xi_call_wait(&p, &reply, timeout));
        xi_call_cancel(&p);
        xi_msg_release(&reply);
    }
}

static void receive_something(struct worker *w) {
    static _Thread_local xi_msg m[4] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    uint64_t r = draw(&w->seed);
    int64_t timeout = r >> 32 & 1 ? XI_TRY : MS;
    xi_msg *one = &m[r >> 40 & 3];
    if (atomic_load(&resting)) {
        for (int i = 0; i < 4; i++) xi_msg_release(&m[i]);
        return;
    }
    switch (r % 4) {
    case 0:
        if (OP(w, xi_recv_many(scene.in, m, 4, timeout)) > 0) (void)read_through(&m[0]);
        break;
    case 1: OP(w, (xi_msg_release(one), 0)); break;
    case 2: OP(w, xi_msg_is_call(one) ? xi_reply(one, small_value, small_size, timeout) : xi_nack(one, 0)); break;
    default:
        if (OP(w, xi_recv(scene.in, one, timeout)) == 0) (void)read_through(one);
        if (r >> 48 & 1) OP(w, r >> 49 & 1 ? xi_ack(one) : xi_ack_keep(one));
    }
}

static void do_something_else(struct worker *w) {
    static xi_channel_info info[2];
    static xi_group_info groups[4];
    static xi_event events[4];
    static const xi_group_opts oldest = {.flags = XI_GROUP_TEMPORARY, .from = XI_FROM_OLDEST};
    xi_channel *late = NULL;
    xi_msg m = XI_MSG_INIT;
    switch (draw(&w->seed) % 6) {
    case 0: OP(w, xi_channel_stat(scene.in, info)); break;
    case 1: OP(w, xi_channel_groups(scene.in, groups, 4)); break;
    case 2: OP(w, xi_set_wait(scene.set, events, 4, XI_TRY)); break;
    case 3: OP(w, xi_set_wait(scene.set, events, 4, MS)); break;
    case 4: OP(w, scene.other ? xi_recv(scene.other, &m, XI_TRY) : 0); break;
    default:
        OP(w, xi_open(receiver, scene.name, &(xi_open_opts){.group_opts = &oldest}, &late));
        if (late) OP(w, xi_recv(late, &m, XI_TRY));
        OP(w, (xi_msg_release(&m), xi_channel_free(late)));
    }
    xi_msg_release(&m);
}

static void *work(void *argument) {
    struct worker *w = argument;
    while (!atomic_load(&resting)) w->body(w);
    w->body == receive_something ? receive_something(w) : (void)0; /* lets go of its messages */
    atomic_store(&w->stopped, true);
    return NULL;
}

/* ---------------------------------------------------------------- watching */

static int64_t processor_of(pthread_t thread) {
    clockid_t clock;
    struct timespec t = {0};
    if (pthread_getcpuclockid(thread, &clock) == 0) clock_gettime(clock, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void watch_worker(struct worker *w) {
    uint64_t done = atomic_load(&w->done);
    int64_t now = now_ns(), used = atomic_load(&w->stopped) ? 0 : processor_of(w->thread);
    if (done != w->seen_done || w->since == 0 || atomic_load(&w->stopped)) {
        w->seen_done = done;
        w->since = now;
        w->processor = used;
        return;
    }
    expect(used - w->processor < CPU_LIMIT, "%s: %s has used %.1f s of processor time", where, w->operation,
           (double)(used - w->processor) / 1e9);
    expect(now - w->since < HUNG, "%s: %s has not returned for %lld s", where, w->operation, (long long)(HUNG / SECOND));
}

static void check_neighbour(void) {
    static int64_t number;
    xi_msg m = XI_MSG_INIT;
    must(xi_send_int(near_out, ++number, XI_TRY));
    must(xi_recv(near_in, &m, XI_TRY));
    expect(message_int(&m) == number, "%s: the other channel gave %lld for %lld", where, (long long)message_int(&m),
           (long long)number);
    xi_msg_release(&m);
}

static void watch_for(int64_t ns) {
    for (int64_t until = now_ns() + ns; now_ns() < until;) {
        struct timespec tick = {0, MS};
        nanosleep(&tick, NULL); /* the looks at clocks and counters: nobody announces them */
        for (int i = 0; i < THREADS; i++) watch_worker(&workers[i]);
        check_neighbour();
    }
}

static bool all_stopped(void) {
    for (int i = 0; i < THREADS; i++)
        if (!atomic_load(&workers[i].stopped)) return false;
    return true;
}

/* ------------------------------------------------------------------ rounds */

static void start_workers(uint64_t seed) {
    static void (*const bodies[THREADS])(struct worker *) = {send_something, send_something, receive_something,
                                                             receive_something, do_something_else};
    atomic_store(&resting, false);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.body = bodies[i], .seed = seed + (uint64_t)i, .operation = ""};
        expect(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0, "no thread");
    }
}

static void stop_workers(void) {
    atomic_store(&resting, true);
    while (!all_stopped()) watch_for(MS);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        calls += workers[i].done;
        errors_all += workers[i].errors;
    }
}

static void end_scene(void) {
    xi_msg m = XI_MSG_INIT;
    xi_channel *again = NULL;
    int rc = xi_remove(sender, scene.name);
    expect(rc == 0 || rc == XI_E_NOENT, "%s: it cannot be removed: %s", where, xi_error_text(rc));
    xi_set_free(scene.set);
    for (int i = 0; i < 4; i++) xi_msg_release(&scene.held[i]);
    xi_call_cancel(&scene.call);
    xi_msg_release(&scene.reply);
    must(xi_channel_free(scene.other));
    must(xi_channel_free(scene.in));
    must(xi_channel_free(scene.out));
    again = open_queue(sender, scene.name);
    must(xi_send_int(again, 7, XI_TRY));
    must(xi_recv(again, &m, XI_TRY));
    xi_msg_release(&m);
    must(xi_channel_free(again));
}

static uint32_t segment_of(enum place place) {
    switch (place) {
    case LANE: return sender->calls->lane->segment;
    case ACKS: return scene.in->ack->entry->number;
    case RELEASE: return sender->arena.segments->number + 1;
    case MAIL_OF_RECEIVER: return receiver->mailbox_map.head.number;
    case MAIL_OF_SENDER: return sender->mailbox_map.head.number;
    default: return scene.out->segment;
    }
}

static void aim(enum place place, size_t offset, size_t words) {
    uint64_t thing;
    (void)scene_place(&scene, place, &thing);
    target->offset = offset;
    uint32_t number = segment_of(place);
    if (place == RING && scene.out->send_view.word) number = XI_RING_SEGMENT(scene.out->send_view.word);
    if (place == RING) target->offset += scene.out->send_view.word ? XI_PAGE : XI_RING_OFFSET;
    target->words = words;
    target->thing = thing;
    xi_shm_segment_name(target->segment, getuid(), sender->place.ns, sender->epoch, number);
}

static void one_round(enum kind kind, enum place place, size_t offset, size_t words, int64_t ns, uint64_t number) {
    attacked = place_names[place];
    snprintf(where, sizeof where, "round %" PRIu64 " (%s), %zu words at %s + %zu", number, kind_names[kind], words, attacked,
             offset);
    scene_begin(&scene, kind, number);
    aim(place, offset, words);
    start_workers(number * 100);
    uint32_t round = atomic_fetch_add(&target->round, 1) + 1;
    wait_until_seen(round);
    watch_for(ns);
    if (number % 2) stop_workers(); /* also: while it is still being written, for whoever has to come to an end */
    round = atomic_fetch_add(&target->round, 1) + 1;
    wait_until_seen(round);
    if (number % 2 == 0) stop_workers();
    check_neighbour();
    end_scene();
}

/* Where words decide something: a few at a time. */
static const struct aim {
    enum place place;
    size_t from, to;
    unsigned kinds; /* a bit each */
} aims[] = {
    {CHANNEL, CH(lock), CH(waiters) + 128, 31},
    {CHANNEL, GROUP(0), GROUP(2), 31},
    {CHANNEL, GROUP(XI_MAX_GROUPS - 1), GROUP(XI_MAX_GROUPS - 1) + 64, 1 << KEEPING},
    {RING, 0, 1024, 31},
    {ACKS, 128, 256 + 16 * 32, 1 << ACKING},
    {LANE, CH(lock), CH(parked_senders), 1 << CALLED},
    {LANE, GROUP(0), GROUP(0) + 128, 1 << CALLED},
    {RELEASE, XI_PAGE, XI_PAGE + 256, 3},
    {MAIL_OF_RECEIVER, MB(flags), MB(bells) + 128, 17},
    {MAIL_OF_RECEIVER, MB(ready_words), MB(ready) + 64, 3},
    {MAIL_OF_SENDER, MB(calls), MB(calls) + 64, 1 << CALLED},
};

static void all_rounds(size_t words, int64_t ns, uint64_t stride) {
    uint64_t number = 0, done = 0;
    int64_t said = now_ns();
    for (size_t a = 0; a < sizeof aims / sizeof *aims; a++)
        for (size_t offset = aims[a].from; offset < aims[a].to; offset += words * 8)
            for (int kind = 0; kind < KINDS; kind++) {
                if (!(aims[a].kinds >> kind & 1) || number++ % stride) continue;
                size_t n = (aims[a].to - offset) / 8 < words ? (aims[a].to - offset) / 8 : words;
                one_round((enum kind)kind, aims[a].place, offset, n, ns, number);
                done++;
                if (now_ns() - said > 10 * SECOND) {
                    printf("%s\n", where);
                    said = now_ns();
                }
            }
    printf("%" PRIu64 " rounds of %lld ms, %" PRIu64 " calls, of which %" PRIu64 " returned an error, %" PRIu64
           " words written, 0 findings\n", done, (long long)(ns / MS), calls, errors_all, atomic_load(&target->writes));
}

/* For whoever looks into a finding: that place, again and again. */
static void rounds_at(char **argv) {
    enum kind kind = (enum kind)atoi(argv[1]);
    for (int i = 0; i < atoi(argv[5]); i++)
        one_round(kind, (enum place)atoi(argv[2]), (size_t)atol(argv[3]), (size_t)atol(argv[4]), 60 * MS, (uint64_t)i);
}

int main(int argc, char **argv) {
    bool long_ = getenv("XI_TEST_LONG") != NULL;
    char space[32];
    setvbuf(stdout, NULL, _IOLBF, 0);
    further_ns(space, "l");
    target = shared_memory(sizeof *target);
    pid_t attacker = spawn(be_attacker, NULL);
    join_both(space);
    pid_t broker = broker_pid(sender);
    uint64_t stride = long_ ? 2 : 29;
    if (getenv("XI_TEST_STRIDE")) stride = strtoull(getenv("XI_TEST_STRIDE"), NULL, 0);
    if (argc == 6) rounds_at(argv);
    else all_rounds(long_ ? 2 : 4, (long_ ? 120 : 60) * MS, stride);
    expect(kill(broker, 0) == 0 && broker_pid(sender) == broker, "the broker did not live through it");
    leave_both();
    atomic_store(&target->over, true);
    reap_ok(attacker, "the writer");
    return 0;
}
