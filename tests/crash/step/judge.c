/* SPDX-License-Identifier: MIT */
/*
 * After the kill. A child of T enters the copy; whoever lives does one whole
 * operation, if asked to; then a broker (broker/broker.c, whole, but for its
 * sockets) adopts the copy, finds D dead and repairs what it left. It may be
 * killed itself before any store of its repair: then another adopts. What is
 * there then is looked at twice: word by word, as wire/layout.h has it, and with
 * the library, whose readers say what they get. In the end nothing is to be
 * left: no lock, no waiter, no block, no segment that is nobody's.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <stdarg.h>

#include "../../system/harness.h"
#include "broker.h"
#include "look.h"
#include "scenes.h"
#include "step.h"

static const struct question *Q;
static struct broker first, second;
static struct broker *B;

void wrong(const char *format, ...) {
    va_list args;
    struct verdict *v = Q->verdict;
    va_start(args, format);
    vsnprintf(v->wrong, sizeof v->wrong, format, args);
    va_end(args);
    v->done = true;
    _exit(0);
}
/* Every call of syscall() in this program comes by here (--wrap). */
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...) {
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(args, long);
    va_end(args);
    if (number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAKE) note_wake((const void *)a[0]);
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ------------------------------------------------------------- killing repair */

static jmp_buf killed;
static long steps_left = -1, steps_done;

void step_of_repair(void);
void step_of_repair(void) {
    steps_done++;
    if (steps_left >= 0 && steps_left-- == 0) longjmp(killed, 1);
}

static void broker_up(struct broker *b) {
    struct broker_options o = {.ns = Q->copy, .wait = LOOP_POLL, .limits = STATE_LIMITS_DEFAULT, .other_limits = STATE_LIMITS_DEFAULT};
    B = b;
    int rc = broker_init(b, &o);
    holds(rc == 0, "no broker can adopt it: %s", xi_error_text(rc));
    holds(b->found, "there was nothing to adopt");
    for (int turns = 0; b->recover.mends; turns++) {
        holds(turns < 100, "repair does not come to an end");
        broker_turn(b);
    }
}

/* What is queued by now. */
static void broker_again(void) {
    B->check.at = loop_now(); /* so that it does not sleep */
    broker_turn(B);
}

static void repair(void) {
    steps_left = Q->kill_at;
    if (setjmp(killed) == 0) {
        broker_up(&first);
    } else {
        steps_left = -1;
        broker_up(&second);
    }
    steps_left = -1;
    Q->verdict->steps = steps_done;
}

/* --------------------------------------------------------------- as T sees it */

static xi_msg held[64];
static int held_count;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    va_list args;
    char *line = Q->verdict->line;
    size_t n = strlen(line);
    va_start(args, format);
    vsnprintf(line + n, LINE - n, format, args);
    va_end(args);
}

/* The number of a value, whose every byte is as it was sent. */
static int64_t number_of(const xi_msg *m) {
    xi_cursor c, in;
    xi_value v;
    xi_cursor_init(&c, m->data, m->size);
    holds(xi_validate(m->data, m->size) == 0, "a value is not well-formed");
    if (xi_next(&c, &v) == 1 && v.tag == XI_DICT) { /* a dead letter */
        holds(xi_enter(&v, &in) == 0, "a dead letter that cannot be entered");
        for (int i = 0; i < 10; i++) holds(xi_next(&in, &v) == 1, "a dead letter without its value");
        int64_t number = 0;
        if (v.tag == XI_TUPLE) {
            xi_cursor inner;
            xi_value first_;
            holds(xi_enter(&v, &inner) == 0 && xi_next(&inner, &first_) == 1, "an empty tuple");
            v = first_;
        }
        holds(xi_get_int(&v, &number) == 0, "a dead letter of something else");
        return number;
    }
    int64_t number = message_int(m);
    if (v.tag == XI_TUPLE) {
        holds(xi_enter(&v, &in) == 0 && xi_next(&in, &v) == 1 && xi_next(&in, &v) == 1, "half a value");
        for (size_t i = 0; i < v.length; i++)
            holds(((const uint8_t *)v.data)[i] == (uint8_t)number, "value %ld is torn at byte %zu", (long)number, i);
    }
    return number;
}

static void take_note(int i, xi_msg *m) {
    uint32_t times = xi_msg_deliveries(m);
    int64_t number = number_of(m);
    if (times > 1) say(" %ld*%u", (long)number, times);
    else say(" %ld", (long)number);
    (void)i;
}

static void settle(xi_msg *m) {
    uint64_t reply = XI_INT32 | (uint64_t)101 << 32;
    if (xi_msg_is_call(m)) must(xi_reply(m, &reply, sizeof reply, XI_TRY));
    if (xi_msg_deliveries(m)) must(xi_ack(m));
    xi_msg_release(m);
}

static bool may_be(int rc) { return rc == 0 || rc == XI_E_AGAIN || rc == XI_E_CLOSED || rc == XI_E_REMOVED; }
static bool lock_is_free(xi_a32 *lock) { return xi_load_full(lock) == 0; }

/* Through the first reader: one value, which is kept. Or one that was kept is let go. Or one value is sent. */
static void live(void) {
    struct part_in *t = Q->t;
    struct xi_channel *ch = t->ch[0];
    if (Q->live == LIVE_SEND) {
        int rc = t->writer >= 0 && lock_is_free(&t->ch[t->writer]->chan->lock) ? xi_send_int(t->ch[t->writer], 500, XI_TRY) : XI_E_AGAIN;
        holds(may_be(rc), "sending beside it failed: %s", xi_error_text(rc));
        Q->verdict->sent = rc == 0;
    } else if (Q->live == LIVE_RECEIVE && t->reads[0] && lock_is_free(&ch->group->lock)) {
        int rc = xi_recv(ch, &held[0], XI_TRY);
        holds(may_be(rc), "receiving beside it failed: %s", xi_error_text(rc));
        if (rc == 0) held_count = 1;
    } else if (Q->live == LIVE_RELEASE) {
        for (int i = 0; i < MESSAGES; i++)
            if (!xi_msg_deliveries(&t->msg[i]) || lock_is_free(&ch->group->lock)) xi_msg_release(&t->msg[i]);
    }
}

static void drain(int i) {
    struct xi_channel *ch = Q->t->ch[i];
    int rc;
    say("%s", i ? "|" : "");
    if (i == 0 && held_count) take_note(0, &held[0]);
    for (int n = 0;; n++) {
        xi_msg m = XI_MSG_INIT;
        rc = xi_recv(ch, &m, XI_TRY);
        if (rc) break;
        holds(n < 1000, "values without end");
        take_note(i, &m);
        settle(&m);
    }
    if (rc == XI_E_CLOSED) say(".");
    else if (rc == XI_E_REMOVED) say("!");
    else if (rc != XI_E_AGAIN) wrong("reader %d: %s: %s", i, xi_error_name(rc), xi_error_text(rc));
    uint64_t gone = ch->ack ? xi_load_full(&ch->group->dead) + xi_load_full(&ch->group->expired) : 0;
    if (gone) say("~%lu", gone); /* counted, each once */
    if (i == 0 && held_count) settle(&held[0]);
}

/* A new value goes all the way. */
static void go_on(void) {
    struct part_in *t = Q->t;
    struct xi_channel *to = t->writer >= 0 ? t->ch[t->writer] : NULL;
    if (!to || xi_load_full(&to->chan->closed)) return;
    int rc = xi_send_int(to, 900, XI_TRY);
    holds(rc == 0, "nothing can be sent any more: %s", xi_error_text(rc));
    for (int i = 0; i < HANDLES; i++) {
        xi_msg m = XI_MSG_INIT;
        if (!t->reads[i] || t->ch[i]->segment != to->segment) continue;
        rc = xi_recv(t->ch[i], &m, XI_TRY);
        holds(rc == 0, "reader %d gets nothing any more: %s", i, xi_error_text(rc));
        holds(message_int(&m) == 900, "reader %d gets %ld, not what was just sent", i, (long)message_int(&m));
        settle(&m);
    }
}

static void end_call(void) {
    xi_msg m = XI_MSG_INIT;
    if (!Q->t->call.channel_) return;
    int rc = xi_call_wait(&Q->t->call, &m, XI_TRY);
    if (rc == 0) say("=%ld", (long)message_int(&m));
    else say("=%s", xi_error_name(rc) + 5);
    xi_msg_release(&m);
}

static void listen_to_readers(void) {
    for (int i = 0; i < HANDLES; i++)
        if (Q->t->reads[i]) drain(i);
    end_call();
    if (Q->scene->after) Q->scene->after(Q->t);
    go_on();
    for (int i = 0; i < MESSAGES; i++) {
        if (xi_msg_deliveries(&Q->t->msg[i])) (void)xi_ack(&Q->t->msg[i]);
        xi_msg_release(&Q->t->msg[i]);
    }
}

/* Nothing is there that is nobody's. */
static void look_at_files(void) {
    int files = segments_of(Q->copy, false), known = (int)B->world.segs.count + 1;
    holds(files == known, "%d segments, of which %d are somebody's", files, known);
}

static void nothing_is_out(void) {
    struct part_in *t = Q->t;
    xi_stats stats;
    (void)xi_free_run(t->me);
    xi_interp_stats(t->me, &stats);
    holds(Q->lives || t->may || stats.blocks == 0, "%lu blocks are out", stats.blocks);
    for (int n = 0; n < 64; n++) {
        unsigned due = t->owed >> n & 1;
        if (t->may >> n & 1 && freed[n] <= 1) continue;
        holds(freed[n] == due || (Q->lives && freed[n] == 0), "the free function of value %d ran %u times, not %u", n, freed[n], due);
    }
    if (Q->scene->flags & SCENE_KEEPS) return;
    recover_sweep_now(&B->recover);
    holds(B->world.registry->outstanding == 0, "%lu blocks of the dead one are named by nobody knows what", B->world.registry->outstanding);
    broker_again();
    holds(!Q->dead || B->state.interps[Q->dead].life == INTERP_FREE, "the dead one's arena is not collected");
    look_at_files();
}

/* -------------------------------------------------------------------------- */

static void enter(void) {
    struct part_in *t = Q->t;
    int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    mappings_enter(Q->mappings, Q->epoch, Q->copy);
    snprintf(t->me->place.ns, sizeof t->me->place.ns, "%s", Q->copy);
    atomic_store(&t->me->control.fd, -1); /* the broker of the copy has no socket, and ours is not to be asked */
    must_sys(setenv("XI_BROKER", "/nonexistent", 1));
    if (!getenv("XI_STEP_LOG")) must_sys(dup2(nowhere, 2)); /* brokers log their adoptions */
}

void judge(const struct question *q) {
    Q = q;
    alarm(60);
    enter();
    live();
    uint32_t segment = q->t->ch[0]->segment;
    uint64_t had = world_backed(q->copy, q->epoch, segment);
    repair();
    holds(world_backed(q->copy, q->epoch, segment) <= had, "a broker touched memory that was not there");
    look(&(struct looker){B, q->dead, q->dead_id, q->sleeper, segment, q->bells, q->scene->sleeper == sleeper_sends});
    listen_to_readers();
    nothing_is_out();
    q->verdict->done = true;
    _exit(0);
}
