/* SPDX-License-Identifier: MIT */
/*
 * Cases of hostile writing, dealt out to processes that run side by side, and a
 * watch over them: one that dies or hangs is a finding, named by its case and
 * operation, and another process goes on behind it.
 */
#ifndef XI_TEST_SHARDS_H
#define XI_TEST_SHARDS_H

#include <inttypes.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "scene.h"

#define SHARDS 8
#define HUNG (60 * SECOND)
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
    uint64_t total;          /* cases of all shards, where they alone can tell */
    _Atomic int64_t slowest; /* ns of processor time */
    char what[160], operation[96], slowest_is[96];
};
static struct shard *shards;
static struct shard *mine;
static char space[32];
static int findings;
static uint64_t stride, count, first; /* every stride-th case of so many is run, from `first` on */
static void shard_body(void *number); /* the program's: runs its cases */

/* One case in so many is run: in a long run one in `in_long`. XI_TEST_STRIDE has the last word. */
static inline void choose_stride(uint64_t in_long, uint64_t otherwise) {
    const char *chosen = getenv("XI_TEST_STRIDE");
    stride = chosen ? strtoull(chosen, NULL, 0) : getenv("XI_TEST_LONG") ? in_long : otherwise;
}

/* Is this case one of the stride, and of this shard's? */
static inline bool is_mine(uint64_t number) {
    return number >= first && number % stride == 0 && number / stride % SHARDS == (uint64_t)(mine - shards);
}

/* -------------------------------------------------------------- operations */

static inline int64_t processor_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static bool waits_for_locks; /* under a writer that never stops: opening and closing try for a second */

static inline void check_op(int64_t rc, int64_t took, bool wants_zero) {
    atomic_fetch_add(&mine->operations, 1);
    if (rc < 0) atomic_fetch_add(&mine->errors, 1);
    if (took > atomic_load(&mine->slowest)) {
        atomic_store(&mine->slowest, took);
        memcpy(mine->slowest_is, mine->operation, sizeof mine->slowest_is);
    }
    expect(took < CPU_LIMIT + (waits_for_locks ? 2 * SECOND : 0), "%s took %.2f s of processor time", mine->operation,
           (double)took / 1e9);
    expect(rc >= XI_E_STALE, "%s returned %lld", mine->operation, (long long)rc);
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

static inline int64_t read_through(const xi_msg *m) {
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

/* The neighbour: exactly what was sent, once, in order. */
static inline void check_neighbour(void) {
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
static inline void scene_end(struct scene *s) {
    xi_msg m = XI_MSG_INIT;
    OP(xi_close(s->out));
    OP(xi_remove(sender, s->name)); /* NOENT: with its last handle it has gone by itself */
    OP(xi_send(s->out, small_value, small_size, XI_TRY));
    OP(s->in ? xi_recv(s->in, &m, XI_TRY) : 0);
    QUIET(xi_msg_release(&m));
    for (int i = 0; i < 4; i++) QUIET(xi_msg_release(&s->held[i]));
    QUIET(xi_call_cancel(&s->call));
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

/* ---------------------------------------------------------------- watching */

static int shard_log[SHARDS]; /* 0, or a file that is the standard error of that shard: shown if it fails */

static inline void show_log(long i) {
    char text[6000];
    struct stat st;
    if (shard_log[i] <= 0 || fstat(shard_log[i], &st) != 0) return;
    off_t from = st.st_size > (off_t)sizeof text ? st.st_size - (off_t)sizeof text : 0;
    ssize_t n = pread(shard_log[i], text, sizeof text, from);
    if (n > 0) fwrite(text, 1, (size_t)n, stderr);
}

static inline void report(const struct shard *s, const char *how, int status) {
    show_log(s - shards);
    fprintf(stderr, "FINDING: %s (%d) at %s in: %s\n", how, status, s->operation, s->what);
    findings++;
}

struct watched {
    pid_t pid;
    uint64_t steps;
    int64_t since;
};

/* The shard has gone: at its end, or at a finding, behind which another goes on. False: it is done. */
static inline bool replace(int i, struct watched *w, int status) {
    struct shard *s = &shards[i];
    w->pid = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return false;
    report(s, WIFSIGNALED(status) ? "died of a signal" : "gave up with status",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    if (findings > 40) return false;
    first = atomic_load(&s->next) + 1;
    w->pid = spawn(shard_body, (void *)(uintptr_t)i);
    w->since = now_ns();
    return true;
}

static inline void watch_all(void) {
    struct watched w[SHARDS] = {{0}};
    int64_t said = now_ns();
    for (int i = 0; i < SHARDS; i++) w[i] = (struct watched){spawn(shard_body, (void *)(uintptr_t)i), 0, now_ns()};
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

static inline void say_figures(void) {
    uint64_t cases = 0, operations = 0, errors = 0;
    const struct shard *slow = &shards[0];
    if (!count) count = shards[0].total;
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

#endif
