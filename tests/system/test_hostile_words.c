/* SPDX-License-Identifier: MIT */
/*
 * Every word of every segment that a member may write, set to every value of
 * spoil.h, at rest: then each operation of the library, without waiting.
 *
 * A case is a scene (a channel of one kind in mid-use: values under way, blocks
 * held, deliveries out, a request unserved, members of sets armed), a word and a
 * value. After the write everything that a program can do with the channel is
 * done. Each operation must return, within a second of processor time, a value
 * or an error of the library; another channel of the same interpreters must go
 * on exactly; and at the end the spoilt channel can be removed by name, and made
 * anew under that name.
 *
 * Cases are dealt out to processes that run side by side (a lock that seems held
 * is waited for, which costs time and no processor). One that dies or hangs is a
 * finding, named by its case and operation; another goes on behind it. The broker
 * that was there at the start must be there at the end.
 *
 *   test_hostile_words [SCENE OFFSET VALUE]     that case alone
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "scene.h"

#define SHARDS 8
#define HUNG (30 * SECOND)
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CPU_LIMIT (5 * SECOND)
#else
#define CPU_LIMIT SECOND
#endif

/* What a shard tells the one who watches; shared, and private to them. */
struct shard {
    _Atomic uint64_t next;   /* case that is under way, or will be */
    _Atomic uint64_t steps;  /* goes up with every operation */
    _Atomic uint64_t cases, operations, errors;
    _Atomic int64_t slowest; /* ns of processor time */
    char what[160], operation[96], slowest_is[96];
};
static struct shard *shards;
static struct shard *mine;
static char space[32];
static int findings;

/* -------------------------------------------------------------- operations */

static int64_t processor_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void check_op(int64_t rc, int64_t took, bool wants_zero) {
    atomic_fetch_add(&mine->operations, 1);
    if (rc < 0) atomic_fetch_add(&mine->errors, 1);
    if (took > atomic_load(&mine->slowest)) {
        atomic_store(&mine->slowest, took);
        memcpy(mine->slowest_is, mine->operation, sizeof mine->slowest_is);
    }
    expect(took < CPU_LIMIT, "%s took %.2f s of processor time", mine->operation, (double)took / 1e9);
    expect(rc >= 0 || strcmp(xi_error_name((int)rc), "XI_E_UNKNOWN") != 0, "%s returned %lld", mine->operation, (long long)rc);
    if (wants_zero) expect(rc == 0, "%s: %s: %s", mine->operation, xi_error_name((int)rc), xi_error_text((int)rc));
}

#define RUN(wants_zero, call)                                                                                          \
    do {                                                                                                               \
        strncpy(mine->operation, #call, sizeof mine->operation - 1);                                                   \
        atomic_fetch_add(&mine->steps, 1);                                                                             \
        int64_t begun_ = processor_ns(), rc_ = (call);                                                                 \
        check_op(rc_, processor_ns() - begun_, wants_zero);                                                            \
    } while (0)
#define OP(call) RUN(false, call)        /* may fail: the channel is spoilt */
#define EXACT(call) RUN(true, call)      /* may not: it has nothing to do with it */
#define QUIET(call) RUN(false, ((call), 0))

static int64_t read_through(const xi_msg *m) {
    xi_cursor c, children;
    xi_value v;
    static char text[8192];
    if (!m->data) return 0;
    (void)xi_validate(m->data, m->size);
    xi_cursor_init(&c, m->data, m->size);
    if (xi_next(&c, &v) != 1 || v.tag != XI_TUPLE || xi_enter(&v, &children) != 0) return 0;
    while (xi_next(&children, &v) == 1)
        if (v.tag == XI_BYTES && v.length <= sizeof text) memcpy(text, v.data, v.length);
    return 0;
}

static void receive(xi_channel *ch, int n) {
    xi_msg m[3] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};
    for (int i = 0; i < n; i++) {
        OP(xi_recv(ch, &m[0], XI_TRY));
        OP(read_through(&m[0]));
        if (i % 2) OP(xi_msg_is_call(&m[0]) ? xi_reply(&m[0], small_value, small_size, XI_TRY) : 0);
    }
    int64_t got = 0;
    OP(got = xi_recv_many(ch, m, 3, XI_TRY));
    for (int64_t i = 0; i < got; i++) OP(read_through(&m[i]));
    for (int i = 0; i < 3; i++) QUIET(xi_msg_release(&m[i]));
}

static void send_everything(xi_channel *ch) {
    const void *const values[3] = {small_value, large_value, small_value};
    const size_t sizes[3] = {small_size, large_size, small_size};
    xi_loan loan = {0};
    OP(xi_send(ch, small_value, small_size, XI_TRY));
    OP(xi_send(ch, large_value, large_size, XI_TRY));
    OP(xi_send_many(ch, values, sizes, 3, XI_TRY));
    OP(xi_send_ex(ch, small_value, small_size, &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = 1}));
    OP(xi_loan_get(sender, 2000, &loan));
    if (loan.data) {
        size_t size = encode_padded(loan.data, loan.size, 3, 1000);
        OP(xi_send_loan(ch, &loan, size, &(xi_send_opts){.timeout = XI_TRY}));
        xi_loan_drop(&loan);
    }
}

static void end_deliveries(struct scene *s) {
    if (s->kind == ACKING) {
        OP(xi_extend(&s->held[1], MS));
        OP(xi_ack(&s->held[1]));
        OP(xi_nack_keep(&s->held[2], 0));
    }
    if (s->kind == CALLED) {
        OP(xi_call_wanted(&s->held[2]));
        OP(xi_reply(&s->held[2], small_value, small_size, XI_TRY));
    }
    for (int i = 0; i < 4; i++) {
        OP(read_through(&s->held[i]));
        QUIET(xi_msg_release(&s->held[i]));
    }
}

static void look(struct scene *s) {
    static xi_channel_info info[4];
    static xi_interp_info interps[4];
    static xi_group_info groups[8];
    static xi_event events[8];
    OP(xi_channel_stat(s->in, &info[0]));
    OP(xi_channel_groups(s->in, groups, 8));
    OP(xi_list_channels(xi_observer_of(sender), info, 4));
    OP(xi_list_interps(xi_observer_of(sender), interps, 4));
    OP(xi_set_wait(s->set, events, 8, XI_TRY));
    OP(xi_set_wait(s->set, events, 8, XI_TRY));
}

/* Handles that come while it is spoilt, at old values and new ones. */
static void join_late(struct scene *s) {
    static const xi_group_opts oldest = {.flags = XI_GROUP_TEMPORARY, .from = XI_FROM_OLDEST};
    static const xi_group_opts last = {.from = XI_FROM_LAST, .last = 2};
    xi_channel *late = NULL, *named = NULL;
    OP(xi_open(receiver, s->name, &(xi_open_opts){.group_opts = &oldest}, &late));
    if (late) receive(late, 1);
    OP(xi_open(receiver, s->name, &(xi_open_opts){.group = "late", .group_opts = &last}, &named));
    if (named) receive(named, 1);
    OP(named ? xi_group_remove(named, "late") : 0);
    OP(xi_channel_free(named));
    OP(xi_channel_free(late));
}

static void wait_a_moment(struct scene *s) {
    xi_msg m = XI_MSG_INIT;
    OP(xi_recv(s->in, &m, MS));
    QUIET(xi_msg_release(&m));
    OP(xi_send(s->out, small_value, small_size, MS));
    OP(xi_call_wait(&s->call, &s->reply, XI_TRY));
    OP(xi_call_wait(&s->call, &s->reply, MS));
    QUIET(xi_call_cancel(&s->call));
}

/* The neighbour: exactly what was sent, once, in order. */
static void check_neighbour(void) {
    static int64_t number;
    xi_msg m = XI_MSG_INIT;
    for (int i = 0; i < 2; i++) EXACT(xi_send_int(near_out, ++number, XI_TRY));
    for (int i = 1; i >= 0; i--) {
        EXACT(xi_recv(near_in, &m, XI_TRY));
        expect(message_int(&m) == number - i, "the other channel gave %lld for %lld", (long long)message_int(&m),
               (long long)number - i);
    }
    expect(xi_recv(near_in, &m, XI_TRY) == XI_E_AGAIN, "the other channel gave a value twice");
    xi_msg_release(&m);
}

/* It goes, and a new one of that name is as any. */
static void scene_end(struct scene *s) {
    xi_msg m = XI_MSG_INIT;
    OP(xi_close(s->out));
    OP(xi_remove(sender, s->name)); /* NOENT: with its last handle it has gone by itself */
    OP(xi_send(s->out, small_value, small_size, XI_TRY));
    OP(xi_recv(s->in, &m, XI_TRY));
    QUIET(xi_msg_release(&m));
    QUIET(xi_msg_release(&s->reply));
    QUIET(xi_set_free(s->set));
    OP(xi_channel_free(s->other));
    OP(xi_channel_free(s->in));
    OP(xi_channel_free(s->out));
    xi_channel *again = NULL;
    EXACT(xi_open(sender, s->name, NULL, &again));
    EXACT(xi_send_int(again, 7, XI_TRY));
    EXACT(xi_recv(again, &m, XI_TRY));
    expect(message_int(&m) == 7, "a new channel of the same name gave something else");
    xi_msg_release(&m);
    EXACT(xi_channel_free(again));
}

static void all_operations(struct scene *s) {
    look(s);
    send_everything(s->out);
    receive(s->in, 4);
    end_deliveries(s);
    if (s->other) receive(s->other, 3);
    send_everything(s->in); /* by another handle, that has not sent before */
    join_late(s);
    look(s);
    receive(s->in, 10);
    wait_a_moment(s);
    OP(xi_free_run(sender));
}

/* ------------------------------------------------------------------- cases */

/* True if this word is waited for by real time: with a living holder's name in it each operation takes a tenth of a second. */
static bool is_lock(const struct range *r, size_t offset) {
    if (r->place != CHANNEL && r->place != LANE) return false;
    return offset == CH(lock) || (offset >= GROUP(0) && (offset - GROUP(0)) % sizeof(struct xi_group) == 0);
}

static void run_case(enum kind kind, const struct range *r, size_t offset, unsigned value, uint64_t number) {
    struct scene s;
    uint64_t size;
    snprintf(mine->what, sizeof mine->what, "test_hostile_words %d %zu %u: %s, %s + %zu, value %u", kind,
             offset + ((size_t)r->place << 32), value, kind_names[kind], place_names[r->place], offset, value);
    strcpy(mine->operation, "(making the scene)");
    atomic_fetch_add(&mine->steps, 1);
    scene_begin(&s, kind, number * SHARDS + (uint64_t)(mine - shards));
    uint64_t *word = (uint64_t *)(void *)(scene_place(&s, r->place, &size) + offset), was = *word;
    uint64_t wrong = spoil_value(value, was, size, number);
    spoil_word(word, wrong);
    all_operations(&s);
    check_neighbour();
    /* What is the channel's goes with it; what is the interpreter's is put right, or the next case begins in two wrongs. */
    bool channels = r->place == CHANNEL || r->place == RING || r->place == ACKS;
    if (!channels && __atomic_load_n(word, __ATOMIC_SEQ_CST) == wrong) spoil_word(word, was);
    scene_end(&s);
    check_neighbour();
    atomic_fetch_add(&mine->cases, 1);
}

/* Calls `fn` for each case, in an order that is always the same. */
static uint64_t each_case(void (*fn)(enum kind kind, const struct range *r, size_t offset, unsigned value, uint64_t number)) {
    uint64_t number = 0;
    for (int kind = 0; kind < KINDS; kind++)
        for (int l = 0; l < 3; l++)
            for (size_t i = 0; i < ranges_of[kind][l].count; i++) {
                const struct range *r = &ranges_of[kind][l].list[i];
                for (size_t offset = r->from; offset < r->to; offset += 8)
                    for (unsigned v = 0; v < r->values; v++) fn((enum kind)kind, r, offset, v, number++);
            }
    return number;
}

static uint64_t stride, count, first; /* every stride-th case is run, from `first` on */

static void nothing(enum kind kind, const struct range *r, size_t offset, unsigned value, uint64_t number) {
    (void)kind, (void)r, (void)offset, (void)value, (void)number;
}

static void one_of_mine(enum kind kind, const struct range *r, size_t offset, unsigned value, uint64_t number) {
    if (number < first || number % stride != 0 || number / stride % SHARDS != (uint64_t)(mine - shards)) return;
    if (is_lock(r, offset) && value >= FEW && value % 4) return; /* words that are waited for: a part of the values */
    atomic_store(&mine->next, number);
    run_case(kind, r, offset, value, number);
}

static void be_shard(void *number) {
    mine = &shards[(uintptr_t)number];
    join_both(space);
    (void)each_case(one_of_mine);
    strcpy(mine->operation, "(leaving)");
    leave_both();
    atomic_store(&mine->next, UINT64_MAX);
}

/* ---------------------------------------------------------------- watching */

static void report(const struct shard *s, const char *how, int status) {
    fprintf(stderr, "FINDING: %s (%d) at %s in: %s\n", how, status, s->operation, s->what);
    findings++;
}

struct watched {
    pid_t pid;
    uint64_t steps;
    int64_t since;
};

/* The shard has gone: at its end, or at a finding, behind which another goes on. False: it is done. */
static bool replace(int i, struct watched *w, int status) {
    struct shard *s = &shards[i];
    w->pid = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return false;
    report(s, WIFSIGNALED(status) ? "died of a signal" : "gave up with status",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    if (findings > 40) return false;
    first = atomic_load(&s->next) + 1;
    w->pid = spawn(be_shard, (void *)(uintptr_t)i);
    w->since = now_ns();
    return true;
}

static void watch_all(void) {
    struct watched w[SHARDS] = {{0}};
    int64_t said = now_ns();
    for (int i = 0; i < SHARDS; i++) w[i] = (struct watched){spawn(be_shard, (void *)(uintptr_t)i), 0, now_ns()};
    for (int alive = SHARDS; alive > 0;) {
        int status;
        struct timespec tick = {0, 20 * MS};
        nanosleep(&tick, NULL); /* a look at clocks and counters, which nobody announces */
        for (int i = 0; i < SHARDS; i++) {
            if (!w[i].pid) continue;
            uint64_t steps = atomic_load(&shards[i].steps);
            if (steps != w[i].steps) w[i] = (struct watched){w[i].pid, steps, now_ns()};
            if (now_ns() - w[i].since > HUNG) {
                report(&shards[i], "hangs, seconds", (int)(HUNG / SECOND));
                kill(w[i].pid, SIGABRT);
                w[i].since = INT64_MAX / 2;
            }
            if (waitpid(w[i].pid, &status, WNOHANG) == w[i].pid && !replace(i, &w[i], status)) alive--;
        }
        if (now_ns() - said > 10 * SECOND) {
            uint64_t cases = 0;
            for (int i = 0; i < SHARDS; i++) cases += atomic_load(&shards[i].cases);
            printf("%" PRIu64 " of some %" PRIu64 " cases\n", cases, count / stride);
            said = now_ns();
        }
    }
}

static void say_figures(void) {
    uint64_t cases = 0, operations = 0, errors = 0;
    const struct shard *slow = &shards[0];
    for (int i = 0; i < SHARDS; i++) {
        cases += shards[i].cases;
        operations += shards[i].operations;
        errors += shards[i].errors;
        if (shards[i].slowest > slow->slowest) slow = &shards[i];
    }
    printf("%" PRIu64 " cases of %" PRIu64 ", %" PRIu64 " operations, of which %" PRIu64 " returned an error; the longest took "
           "%.1f ms of processor time (%s); %d findings\n", cases, count, operations, errors, (double)slow->slowest / 1e6,
           slow->slowest_is, findings);
}

static void only(char **argv) {
    enum kind kind = (enum kind)atoi(argv[1]);
    size_t place_and_offset = strtoull(argv[2], NULL, 0);
    struct range r = {.place = (enum place)(place_and_offset >> 32)};
    mine = &shards[0];
    join_both(space);
    run_case(kind, &r, place_and_offset & UINT32_MAX, (unsigned)atoi(argv[3]), 1);
    leave_both();
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    further_ns(space, "w");
    shards = shared_memory(SHARDS * sizeof *shards);
    count = each_case(nothing);
    stride = getenv("XI_TEST_LONG") ? 1 : 97;
#if defined(__SANITIZE_ADDRESS__)
    stride = getenv("XI_TEST_LONG") ? 11 : 389;
#endif
    if (getenv("XI_TEST_STRIDE")) stride = strtoull(getenv("XI_TEST_STRIDE"), NULL, 0);
    xi_interp *host = join_ns(space, "host", 0);
    if (argc == 4) {
        only(argv);
        must(xi_leave(host));
        return 0;
    }
    pid_t broker = broker_pid(host);
    watch_all();
    say_figures();
    expect(kill(broker, 0) == 0 && broker_pid(host) == broker, "the broker did not live through it");
    must(xi_leave(host));
    expect(findings == 0, "%d findings, see above", findings);
    return 0;
}
