/* SPDX-License-Identifier: MIT */
/*
 * Growing and bounded channels between processes: a large backlog and the memory
 * it takes and gives back; a ring that moves back and forth under producers and
 * consumers; the quota, a stopped process that sits on a lock, a stopped broker,
 * a killed one; idle processes; and a full channel that drops its oldest.
 */
#include <sys/stat.h>

#include "channel/channel.h"
#include "harness.h"

#define MIB ((uint64_t)1 << 20)

/* Bytes of /dev/shm that the namespace takes. */
static uint64_t shm_bytes(const char *ns) {
    char prefix[64];
    uint64_t sum = 0;
    DIR *dir = opendir("/dev/shm");
    expect(dir != NULL, "opendir /dev/shm: %s", strerror(errno));
    int n = snprintf(prefix, sizeof prefix, "xi.%u.%s.", (unsigned)getuid(), ns);
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        if (strncmp(e->d_name, prefix, (size_t)n) == 0 && fstatat(dirfd(dir), e->d_name, &st, 0) == 0)
            sum += (uint64_t)st.st_blocks * 512;
    }
    closedir(dir);
    return sum;
}

/* What the broker has charged for. */
static uint64_t broker_bytes(xi_interp *me) {
    struct xi_request q;
    struct xi_reply r;
    xi_request_init(&q, XI_OP_STATS);
    must(xi_control_call(me, &q, &r, NULL, 0));
    return r.d;
}

static uint64_t capacity_of(xi_channel *ch) {
    xi_channel_info info;
    must(xi_channel_stat(ch, &info));
    return info.capacity;
}

static int64_t receive_int(xi_channel *ch, int64_t timeout) {
    xi_msg m = XI_MSG_INIT;
    must(xi_recv(ch, &m, timeout));
    int64_t got = message_int(&m);
    xi_msg_release(&m);
    return got;
}

/* ----------------------------------------------------------- a large backlog */

#define BACKLOG 10000000
#define BATCH 256

static void drain_backlog(xi_channel *ch) {
    static xi_msg some[BATCH];
    for (int i = 0; i < BATCH; i++) some[i] = (xi_msg)XI_MSG_INIT;
    for (int64_t next = 0; next < BACKLOG;) {
        int64_t got = xi_recv_many(ch, some, BATCH, SECOND);
        must(got);
        for (int64_t i = 0; i < got; i++, next++)
            expect(message_int(&some[i]) == next, "%lld came, not %lld", (long long)message_int(&some[i]), (long long)next);
    }
    for (int i = 0; i < BATCH; i++) xi_msg_release(&some[i]);
}

/* Ten million numbers that nobody receives; then somebody does. Order, and the memory. */
static void backlog(void) {
    xi_open_opts opts = {.grow = (uint64_t)1 << 30};
    xi_interp *me = join_as("backlog", 0);
    xi_channel *ch = open_with(me, "backlog", &opts);
    xi_msg m = XI_MSG_INIT;
    must(xi_send_int(ch, -1, XI_TRY));
    must(xi_recv(ch, &m, XI_TRY));
    uint64_t shm = shm_bytes(test_ns()), charged = broker_bytes(me);
    int64_t begun = now_ns();
    for (int64_t i = 0; i < BACKLOG; i++) must(xi_send_int(ch, i, XI_FOREVER));
    int64_t sent = now_ns();
    uint64_t most = shm_bytes(test_ns());
    expect(most - shm > 150 * MIB && most - shm < 600 * MIB, "%llu bytes for a backlog of 160 MB",
           (unsigned long long)(most - shm));
    int64_t resumed = now_ns();
    drain_backlog(ch);
    int64_t drained = now_ns();
    must_fail(XI_E_TIMEOUT, xi_recv(ch, &m, 50 * MS));
    await_for(5 * SECOND, xi_recv(ch, &m, 50 * MS) == XI_E_TIMEOUT && capacity_of(ch) == XI_CAPACITY_DEFAULT, "waited too long");
    int64_t home = now_ns();
    await_for(SECOND, shm_bytes(test_ns()) < shm + MIB && broker_bytes(me) < charged + MIB, "waited too long");
    printf("%d values: %.0f ns to send, %.0f ns to receive one; /dev/shm %llu KiB, %llu MiB, %llu KiB; broker %llu, %llu KiB; "
           "home %lld ms after the last\n", BACKLOG, (double)(sent - begun) / BACKLOG, (double)(drained - resumed) / BACKLOG,
           (unsigned long long)(shm / 1024), (unsigned long long)(most / MIB),
           (unsigned long long)(shm_bytes(test_ns()) / 1024), (unsigned long long)(charged / 1024),
           (unsigned long long)(broker_bytes(me) / 1024), (long long)((home - drained) / MS));
    leave_with(me, ch);
}

/* ----------------------------------------------- back and forth under everybody */

#define PRODUCERS 3
#define CONSUMERS 4 /* three share the queue's group, one has a group of its own */
#define VALUES 120000

static struct traffic {
    _Atomic uint64_t received[2][PRODUCERS], sum[2][PRODUCERS];
    _Atomic int producers_done;
} *T;

static const xi_open_opts traffic_opts = {.capacity = XI_CAPACITY_MIN, .grow = 64 * MIB};

static uint64_t draw(uint64_t *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    return *seed ^= *seed << 17;
}

static void producer(void *argument) {
    int64_t who = *(int *)argument, sent = 0;
    uint64_t seed = 0x9e3779b97f4a7c15u + (uint64_t)who;
    static uint64_t value[1200];
    xi_open_opts opts = traffic_opts;
    opts.flags = XI_OPEN_SEND;
    xi_interp *me = join_as("producer", 0);
    xi_channel *ch = open_with(me, "traffic", &opts);
    while (sent < VALUES) {
        int64_t burst = (int64_t)(draw(&seed) % 12000);
        for (; burst > 0 && sent < VALUES; burst--, sent++) {
            size_t padding = draw(&seed) % 100 == 0 ? 5000 : draw(&seed) % 64;
            must(xi_send(ch, value, encode_padded(value, sizeof value, who << 32 | sent, padding), XI_FOREVER));
        }
        rest((int64_t)(draw(&seed) % 150) * MS);
    }
    if (atomic_fetch_add(&T->producers_done, 1) == PRODUCERS - 1) must(xi_close(ch));
    leave_with(me, ch);
}

static void consumer(void *argument) {
    int who = *(int *)argument, group = who == 0;
    int64_t last[PRODUCERS] = {-1, -1, -1};
    uint64_t seed = 77 + (uint64_t)who;
    xi_open_opts opts = traffic_opts;
    opts.flags = XI_OPEN_RECV;
    opts.group = group ? "slow" : NULL;
    xi_interp *me = join_as("consumer", 0);
    xi_channel *ch = open_with(me, "traffic", &opts);
    xi_msg m = XI_MSG_INIT;
    gate_lift((const struct gate *)(const void *)((int *)argument + 1), 1);
    int rc;
    while ((rc = xi_recv(ch, &m, 20 * SECOND)) == 0) {
        must(xi_validate(m.data, m.size));
        int64_t v = message_int(&m), from = v >> 32, number = v & 0xffffffff;
        expect(from >= 0 && from < PRODUCERS && number > last[from], "value %lld of producer %lld after %lld",
               (long long)number, (long long)from, (long long)last[from]);
        last[from] = number;
        atomic_fetch_add(&T->received[group][from], 1);
        atomic_fetch_add(&T->sum[group][from], (uint64_t)number);
        if (group && draw(&seed) % 20000 == 0) rest(100 * MS);
    }
    expect(rc == XI_E_CLOSED, "%s: %s", xi_error_name(rc), xi_error_text(rc));
    xi_msg_release(&m);
    leave_with(me, ch);
}

static void back_and_forth(void) {
    struct {
        int who;
        struct gate ready;
    } consumers[CONSUMERS];
    int producers[PRODUCERS];
    pid_t pid[CONSUMERS + PRODUCERS];
    T = shared_memory(sizeof *T);
    struct gate ready = gate_new();
    for (int i = 0; i < CONSUMERS; i++) {
        consumers[i].who = i;
        consumers[i].ready = ready;
        pid[i] = spawn(consumer, &consumers[i]);
    }
    for (int i = 0; i < CONSUMERS; i++) gate_pass(&ready);
    for (int i = 0; i < PRODUCERS; i++) {
        producers[i] = i;
        pid[CONSUMERS + i] = spawn(producer, &producers[i]);
    }
    xi_open_opts opts = {.flags = XI_OPEN_SEND};
    xi_interp *me = join_as("watcher", 0);
    xi_channel *ch = open_with(me, "traffic", &opts);
    for (int i = 0; i < CONSUMERS + PRODUCERS; i++) reap_ok(pid[i], i < CONSUMERS ? "a consumer" : "a producer");
    for (int g = 0; g < 2; g++)
        for (int p = 0; p < PRODUCERS; p++)
            expect(T->received[g][p] == VALUES && T->sum[g][p] == (uint64_t)VALUES * (VALUES - 1) / 2,
                   "group %d has received %llu values of producer %d", g, (unsigned long long)T->received[g][p], p);
    printf("%d values to 2 groups; the ring grew %llu times and shrank %llu times\n", PRODUCERS * VALUES,
           (unsigned long long)ch->chan->grown, (unsigned long long)ch->chan->shrunk);
    expect(ch->chan->grown > 2 && ch->chan->shrunk > 0, "the ring did not move");
    leave_with(me, ch);
    munmap(T, sizeof *T);
}

/* ------------------------------------------------------------- what keeps it */

static pid_t start_broker(const char *ns, const char *option, const char *value) {
    const char *binary = getenv("XI_BROKER");
    char ready[16] = "", word[16] = "";
    int ends[2];
    expect(binary != NULL, "XI_BROKER is set by run.sh");
    must_sys(pipe(ends));
    pid_t pid = fork();
    must_sys(pid);
    if (pid == 0) {
        snprintf(ready, sizeof ready, "%d", ends[1]);
        execl(binary, "xi-broker", "-n", ns, "--ready-fd", ready, option, value, NULL);
        _exit(127);
    }
    close(ends[1]);
    expect(read(ends[0], word, sizeof word - 1) > 0 && strncmp(word, "ready", 5) == 0, "the broker says \"%s\"", word);
    close(ends[0]);
    return pid;
}

/* The quota is used up: full, in words that say so; room that comes is used; more quota too. */
static void quota(void) {
    char ns[32];
    further_ns(ns, "quota");
    pid_t broker = start_broker(ns, "--quota-bytes", "4M");
    xi_open_opts opts = {.grow = 64 * MIB};
    xi_interp *me = join_ns(ns, "quota", 0);
    xi_channel *ch = open_with(me, "quota", &opts);
    int64_t sent = 0;
    while (xi_send_int(ch, sent, XI_TRY) == 0) sent++;
    uint64_t capacity = capacity_of(ch);
    expect(capacity == 2 * MIB, "with 4 MiB the ring became %llu bytes", (unsigned long long)capacity);
    expect(strstr(xi_error_text(XI_E_AGAIN), "quota") != NULL, "the words are: %s", xi_error_text(XI_E_AGAIN));
    must_fail(XI_E_TIMEOUT, xi_send_int(ch, sent, 100 * MS));
    expect(strstr(xi_error_text(XI_E_TIMEOUT), "quota") != NULL, "the words are: %s", xi_error_text(XI_E_TIMEOUT));
    expect(receive_int(ch, XI_TRY) == 0, "the oldest comes first");
    must(xi_send_int(ch, sent++, XI_TRY));
    for (int64_t i = 1; i < sent; i++) expect(receive_int(ch, XI_TRY) == i, "in order");
    leave_with(me, ch);
    must_sys(kill(broker, SIGTERM));
    reap_ok(broker, "the broker");
}

static void send_to_memfd(void *argument) {
    xi_interp *me = join_ns(argument, "sender", 0);
    xi_channel *ch = open_with(me, "memfd", &(xi_open_opts){.capacity = XI_CAPACITY_MIN, .grow = 64 * MIB});
    for (int64_t i = 0; i < 50000; i++) must(xi_send_int(ch, i, XI_TRY));
    leave_with(me, ch);
}

/* Where segments have no names the broker hands the rings out; and has one to give to who opens the channel later. */
static void memfd(void) {
    char ns[32];
    further_ns(ns, "memfd");
    pid_t broker = start_broker(ns, "--memfd", NULL);
    reap_ok(spawn(send_to_memfd, ns), "the sender");
    xi_interp *me = join_ns(ns, "receiver", 0);
    xi_channel *ch = open_with(me, "memfd", NULL);
    uint64_t charged = broker_bytes(me);
    xi_msg m = XI_MSG_INIT;
    for (int64_t i = 0; i < 50000; i++) expect(receive_int(ch, XI_TRY) == i, "in order");
    await_for(5 * SECOND, xi_recv(ch, &m, 50 * MS) == XI_E_TIMEOUT && capacity_of(ch) == XI_CAPACITY_MIN, "waited too long");
    await_for(SECOND, broker_bytes(me) + MIB <= charged, "waited too long");
    leave_with(me, ch);
    must_sys(kill(broker, SIGTERM));
    reap_ok(broker, "the broker");
}

static const xi_open_opts small_growing = {.capacity = XI_CAPACITY_MIN, .grow = 64 * MIB};

static void sit_on_a_lock(void *argument) {
    (void)argument;
    xi_interp *me = join_as("sitter", 0);
    xi_channel *ch = open_with(me, "sitter", &(xi_open_opts){.flags = XI_OPEN_RECV, .group = "sitters"});
    must(xi_lock(ch, ch->group, SECOND));
    raise(SIGSTOP);
    xi_unlock(ch->group);
    leave_with(me, ch);
}

/* Sends until the channel is full as it is, and returns how many are in it. */
static int64_t fill(xi_channel *ch) {
    int64_t sent = 0;
    while (sent < 100000 && xi_send_int(ch, sent, XI_TRY) == 0) sent++;
    return sent;
}

/* A stopped process holds a group's lock: no move can be. A send is given up in time; what others do goes on; then it grows. */
static void stopped_holder(void) {
    xi_interp *me = join_as("beside", 0);
    xi_channel *ch = open_with(me, "sitter", &small_growing);
    pid_t sitter = spawn(sit_on_a_lock, NULL);
    int status;
    expect(waitpid(sitter, &status, WUNTRACED) == sitter && WIFSTOPPED(status), "it did not stop");
    int64_t begun = now_ns(), sent = fill(ch), took = now_ns() - begun;
    expect(sent == (4096 - 8) / 16 && took < SECOND, "%lld values in %lld ms", (long long)sent, (long long)(took / MS));
    expect(strstr(xi_error_text(XI_E_AGAIN), "stopped") != NULL, "the words are: %s", xi_error_text(XI_E_AGAIN));
    begun = now_ns();
    must_fail(XI_E_TIMEOUT, xi_send_int(ch, sent, 300 * MS));
    expect(now_ns() - begun < SECOND, "a send of 300 ms took %lld", (long long)((now_ns() - begun) / MS));
    for (int64_t i = 0; i < sent; i++) expect(receive_int(ch, XI_TRY) == i, "in order");
    must_sys(kill(sitter, SIGCONT));
    reap_ok(sitter, "the sitter");
    begun = now_ns();
    must(xi_send_int(ch, 1, 5 * SECOND));
    expect(now_ns() - begun < 3 * SECOND && capacity_of(ch) > XI_CAPACITY_MIN, "it did not grow when it could");
    must(xi_group_remove(ch, "sitters"));
    expect(receive_int(ch, XI_TRY) == 1, "what was sent last");
    leave_with(me, ch);
}

/* The broker does not answer: full, as long as that lasts; values go through meanwhile. */
static void stopped_broker(void) {
    xi_interp *me = join_as("alone", 0);
    xi_channel *ch = open_with(me, "alone", &small_growing);
    pid_t broker = broker_pid(me);
    must_sys(kill(broker, SIGSTOP));
    int64_t begun = now_ns(), sent = fill(ch), took = now_ns() - begun, next = 0;
    expect(sent == (4096 - 8) / 16 && took < SECOND, "%lld values in %lld ms", (long long)sent, (long long)(took / MS));
    for (int i = 0; i < 1000; i++) {
        expect(receive_int(ch, XI_TRY) == next++, "in order");
        must(xi_send_int(ch, sent++, XI_TRY));
    }
    must_fail(XI_E_TIMEOUT, xi_send_int(ch, sent, 100 * MS));
    must_sys(kill(broker, SIGCONT));
    must(xi_send_int(ch, sent++, 5 * SECOND));
    expect(capacity_of(ch) > XI_CAPACITY_MIN, "it did not grow when it could");
    while (next < sent) expect(receive_int(ch, XI_TRY) == next++, "in order");
    leave_with(me, ch);
}

/* ---------------------------------------------------------------- what is left */

static void ask_for_a_ring(void *argument) {
    struct xi_request q;
    struct xi_reply r;
    int fd;
    xi_interp *me = join_as("filler", 0);
    xi_channel *ch = open_with(me, "left", &small_growing);
    xi_request_init(&q, XI_OP_RING);
    q.a = ch->id;
    q.b = MIB;
    must(xi_control_call(me, &q, &r, &fd, 1));
    must(xi_segment_reserve(fd, 0, XI_PAGE + MIB));
    gate_lift(argument, 1);
    for (;;) pause();
}

static void until_segments(const char *ns, int wanted) {
    await_for(5 * SECOND, segments_of(ns, false) == wanted, "waited too long");
}

/* Who asked for a ring is killed before it moves, with a broker that knows it and with one that has to find out. */
static void killed_filler(void) {
    for (int with_new_broker = 0; with_new_broker < 2; with_new_broker++) {
        struct gate asked = gate_new();
        xi_interp *me = join_as("beside", 0);
        xi_channel *ch = open_with(me, "left", &small_growing);
        int before = segments_of(test_ns(), false);
        pid_t filler = spawn(ask_for_a_ring, &asked);
        gate_pass(&asked);
        expect(segments_of(test_ns(), false) > before, "no ring was made");
        must_fail(XI_E_AGAIN, (fill(ch), xi_send_int(ch, 0, XI_TRY))); /* one at a time */
        expect(capacity_of(ch) == XI_CAPACITY_MIN, "two moved at once");
        if (with_new_broker) {
            pid_t broker = broker_pid(me);
            must_sys(kill(broker, SIGKILL));
            expect(wait_end(broker, 5000), "the broker did not die");
        }
        must_sys(kill(filler, SIGKILL));
        reap_signalled(filler, SIGKILL, "the filler");
        (void)broker_bytes(me); /* starts a broker, if there is none */
        until_segments(test_ns(), before);
        must(xi_send_int(ch, 1, 5 * SECOND));
        expect(capacity_of(ch) == MIB, "it did not grow when it could");
        xi_channel_free(ch);
        must(xi_remove(me, "left"));
        must(xi_leave(me));
    }
}

/* A broker that is killed while a channel has a ring of its own: the next one knows it, grows it, takes it away. */
static void killed_broker(void) {
    xi_interp *me = join_as("adopted", 0);
    xi_channel *ch = open_with(me, "adopted", &small_growing);
    int before = segments_of(test_ns(), false);
    uint64_t charged = broker_bytes(me);
    int64_t next = 0;
    for (int64_t i = 0; i < 100000; i++) must(xi_send_int(ch, i, SECOND));
    uint64_t grown = capacity_of(ch);
    pid_t broker = broker_pid(me);
    must_sys(kill(broker, SIGKILL));
    expect(wait_end(broker, 5000), "the broker did not die");
    for (int64_t i = 100000; i < 300000; i++) must(xi_send_int(ch, i, 10 * SECOND));
    expect(capacity_of(ch) > grown && broker_pid(me) != broker, "it did not grow under a new broker");
    while (next < 300000) expect(receive_int(ch, XI_TRY) == next++, "in order");
    xi_msg m = XI_MSG_INIT;
    await_for(5 * SECOND, xi_recv(ch, &m, 50 * MS) == XI_E_TIMEOUT && capacity_of(ch) == XI_CAPACITY_MIN, "waited too long");
    until_segments(test_ns(), before);
    expect(broker_bytes(me) == charged, "charged %llu, then %llu", (unsigned long long)charged,
           (unsigned long long)broker_bytes(me));
    leave_with(me, ch);
}

/* A drained channel comes home while its receiver sleeps on another. */
static void idle(void) {
    xi_interp *me = join_as("idle", 0);
    xi_channel *ch = open_with(me, "idle", &small_growing), *other = open_queue(me, "idle, other");
    xi_msg m = XI_MSG_INIT;
    for (int64_t i = 0; i < 10000; i++) must(xi_send_int(ch, i, XI_TRY));
    for (int64_t i = 0; i < 10000; i++) expect(receive_int(ch, XI_TRY) == i, "in order");
    expect(capacity_of(ch) > XI_CAPACITY_MIN, "it did not grow");
    must_fail(XI_E_TIMEOUT, xi_recv(other, &m, 3 * SECOND));
    expect(capacity_of(ch) == XI_CAPACITY_MIN, "it did not come home while everybody slept");
    must(xi_channel_free(other));
    leave_with(me, ch);
}

/* And while nobody sleeps on anything: the broker does it. */
static void untended(void) {
    xi_interp *me = join_as("untended", 0);
    xi_channel *ch = open_with(me, "untended", &small_growing);
    uint64_t charged = broker_bytes(me);
    for (int64_t i = 0; i < 100000; i++) must(xi_send_int(ch, i, SECOND));
    for (int64_t i = 0; i < 100000; i++) expect(receive_int(ch, XI_TRY) == i, "in order");
    expect(capacity_of(ch) > XI_CAPACITY_MIN, "it did not grow");
    await_for(5 * SECOND, capacity_of(ch) == XI_CAPACITY_MIN, "waited too long");
    await_for(SECOND, broker_bytes(me) == charged, "waited too long");
    for (int64_t i = 0; i < 200; i++) must(xi_send_int(ch, i, XI_TRY));
    for (int64_t i = 0; i < 200; i++) expect(receive_int(ch, XI_TRY) == i, "in order");
    leave_with(me, ch);
}

/* ------------------------------------------------------------ dropping the oldest */

#define LATEST 40000

static struct drops {
    _Atomic uint64_t received[3], dropped[3];
    _Atomic int64_t last_sent[2];
    _Atomic int producers_done;
} *D;

static void dropping_producer(void *argument) {
    int64_t who = *(int *)argument;
    static uint64_t value[1200];
    xi_interp *me = join_as("producer", 0);
    xi_channel *ch = open_with(me, "latest", &(xi_open_opts){.flags = XI_OPEN_SEND});
    for (int64_t i = 0; i < LATEST; i++) { /* every 16th in the arena */
        size_t size = encode_padded(value, sizeof value, who << 32 | i, i % 16 == 0 ? 6000 : 100);
        must(xi_send(ch, value, size, SECOND));
        if (i % 1000 == 0) rest(MS);
    }
    if (atomic_fetch_add(&D->producers_done, 1) == 1) must(xi_close(ch));
    leave_with(me, ch);
}

static void dropping_consumer(void *argument) {
    int who = *(int *)argument;
    char name[8];
    int64_t last[2] = {-1, -1}, end = -1;
    snprintf(name, sizeof name, "g%d", who);
    xi_interp *me = join_as("consumer", 0);
    xi_channel *ch = open_with(me, "latest", &(xi_open_opts){.flags = XI_OPEN_RECV, .group = name});
    xi_msg m = XI_MSG_INIT;
    gate_lift((const struct gate *)(const void *)((int *)argument + 1), 1);
    int rc;
    while ((rc = xi_recv(ch, &m, 20 * SECOND)) == 0) {
        must(xi_validate(m.data, m.size));
        int64_t v = message_int(&m), from = v >> 32, number = v & 0xffffffff;
        expect(from < 2 && number > last[from], "value %lld after %lld", (long long)number, (long long)last[from]);
        last[from] = number;
        D->received[who]++;
        end = v & 0xffffffff;
        if (who == 1 && D->received[who] % 64 == 0) rest(MS); /* one keeps up less well */
        if (who == 2 && D->received[who] % 8 == 0) rest(MS);
    }
    expect(rc == XI_E_CLOSED, "%s", xi_error_text(rc));
    expect(end == LATEST - 1, "the last value of all is %lld", (long long)end);
    D->dropped[who] = xi_load_relaxed(&ch->group->dropped);
    xi_msg_release(&m);
    leave_with(me, ch);
}

/* Two producers, three groups at their own pace: increasing, the last value comes, and none is unaccounted for. */
static void drop_oldest(void) {
    struct {
        int who;
        struct gate ready;
    } consumers[3];
    int producers[2] = {0, 1};
    pid_t pid[5];
    D = shared_memory(sizeof *D);
    xi_open_opts opts = {.mode = XI_BROADCAST, .flags = XI_OPEN_SEND, .capacity = XI_CAPACITY_MIN, .when_full = XI_FULL_DROP};
    xi_interp *me = join_as("owner", 0);
    xi_channel *ch = open_with(me, "latest", &opts);
    struct gate ready = gate_new();
    for (int i = 0; i < 3; i++) {
        consumers[i].who = i;
        consumers[i].ready = ready;
        pid[i] = spawn(dropping_consumer, &consumers[i]);
    }
    for (int i = 0; i < 3; i++) gate_pass(&ready);
    for (int i = 0; i < 2; i++) pid[3 + i] = spawn(dropping_producer, &producers[i]);
    for (int i = 0; i < 5; i++) reap_ok(pid[i], i < 3 ? "a consumer" : "a producer");
    for (int g = 0; g < 3; g++)
        expect(D->received[g] + D->dropped[g] == 2 * LATEST, "group %d: %llu received, %llu dropped", g,
               (unsigned long long)D->received[g], (unsigned long long)D->dropped[g]);
    printf("%d values: received %llu, %llu, %llu, the rest dropped\n", 2 * LATEST, (unsigned long long)D->received[0],
           (unsigned long long)D->received[1], (unsigned long long)D->received[2]);
    expect(D->dropped[2] > 0, "nothing was dropped");
    leave_with(me, ch);
    munmap(D, sizeof *D);
}

int main(void) {
    setbuf(stdout, NULL);
    backlog();
    back_and_forth();
    quota();
    memfd();
    stopped_holder();
    stopped_broker();
    killed_filler();
    killed_broker();
    idle();
    untended();
    drop_oldest();
    return 0;
}
