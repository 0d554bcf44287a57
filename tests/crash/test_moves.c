/* SPDX-License-Identifier: MIT */
/*
 * Rings that move while those who move them are killed, at any instruction that
 * chance finds. Victims send in bursts that a channel's own ring does not hold and
 * receive what is there, so each of them grows the ring and brings it home; one
 * after another is killed and replaced. A producer and a consumer live through it:
 * nothing of that producer's may be lost or out of order, nobody may wait long,
 * and in the end there is no ring left but the channel's own.
 */
#include "../system/harness.h"
#include "channel/channel.h"

#define VICTIMS 3
#define LASTS (8 * SECOND)
#define NOBODY_WAITS (2 * SECOND)
#define SURVIVOR 0xffffff /* who, in its values; victims are numbered from 0 */
#define LAST_OF_ALL ((int64_t)0xffffffff)

static const xi_open_opts moving = {.capacity = XI_CAPACITY_MIN, .grow = (uint64_t)32 << 20};

static struct shared {
    event_word event; /* when joined or sent changes */
    _Atomic bool over;
    _Atomic uint32_t joined;
    _Atomic int64_t sent;
} *S;

static uint64_t draw(uint64_t *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    return *seed ^= *seed << 17;
}

static xi_channel *open_moving(xi_interp *me, uint32_t flags, const char *group) {
    xi_open_opts opts = moving;
    opts.flags = flags;
    opts.group = group;
    return open_with(me, "moving", &opts);
}

static uint64_t value[1200];

static int send_number(xi_channel *ch, int64_t who, int64_t number, size_t padding) {
    return xi_send(ch, value, encode_padded(value, sizeof value, who << 32 | number, padding), 5 * SECOND);
}

/* Sends and receives until it is killed. What it receives it takes from the group that it shares with the other victims. */
static void victim(void *argument) {
    int64_t who = *(int64_t *)argument, sent = 0;
    uint64_t seed = 0x2545f4914f6cdd1du * (uint64_t)(who + 1);
    xi_interp *me = join_as("victim", 0);
    xi_channel *ch = open_moving(me, 0, NULL);
    xi_msg m = XI_MSG_INIT;
    atomic_fetch_add(&S->joined, 1);
    announce(&S->event);
    for (;;) {
        for (uint64_t burst = draw(&seed) % 2000; burst > 0; burst--)
            must(send_number(ch, who, sent++, draw(&seed) % 200 == 0 ? 6000 : draw(&seed) % 48));
        while (xi_recv(ch, &m, XI_TRY) == 0) continue;
        for (int64_t calm = now_ns() + (int64_t)(draw(&seed) % 400) * MS; now_ns() < calm;) {
            int rc = xi_recv(ch, &m, 20 * MS);
            expect(rc == 0 || rc == XI_E_TIMEOUT, "%s", xi_error_text(rc));
        }
    }
}

/* Its values all arrive. */
static void producer(void *argument) {
    (void)argument;
    xi_interp *me = join_as("producer", 0);
    xi_channel *ch = open_moving(me, XI_OPEN_SEND, NULL);
    int64_t sent = 0, longest = 0;
    while (!atomic_load(&S->over)) {
        int64_t begun = now_ns();
        must(send_number(ch, SURVIVOR, sent, sent % 100 == 0 ? 6000 : 16));
        int64_t took = now_ns() - begun;
        if (took > longest) longest = took;
        if (++sent % 50 == 0) rest(MS); /* its rate */
    }
    must(send_number(ch, SURVIVOR, LAST_OF_ALL, 16));
    atomic_store(&S->sent, sent);
    announce(&S->event);
    printf("the longest send took %.1f ms\n", (double)longest / (double)MS);
    fflush(stdout);
    expect(longest < NOBODY_WAITS, "a send took %lld ms", (long long)(longest / MS));
    leave_with(me, ch);
}

static void consumer(void *argument) {
    static int64_t last[1 << 16];
    int64_t next = 0, victims = 0;
    xi_interp *me = join_as("consumer", 0);
    xi_channel *ch = open_moving(me, XI_OPEN_RECV, "witness");
    xi_msg m = XI_MSG_INIT;
    gate_lift(argument, 1);
    for (;;) {
        must(xi_recv(ch, &m, 5 * SECOND));
        must(xi_validate(m.data, m.size));
        int64_t v = message_int(&m), who = v >> 32, number = v & 0xffffffff;
        if (who == SURVIVOR && number == LAST_OF_ALL) break;
        if (who == SURVIVOR) {
            expect(number == next, "value %lld came, not %lld", (long long)number, (long long)next);
            next++;
        } else {
            expect(who < (int64_t)(sizeof last / sizeof *last) && number == last[who], "victim %lld: %lld came, not %lld",
                   (long long)who, (long long)number, (long long)last[who]);
            last[who]++;
            victims++;
        }
    }
    await_event(&S->event, atomic_load(&S->sent) != 0, "the producer does not say how many it sent");
    expect(next == atomic_load(&S->sent), "%lld values of %lld", (long long)next, (long long)atomic_load(&S->sent));
    printf("%lld values of the producer and %lld of its victims came in order\n", (long long)next, (long long)victims);
    fflush(stdout);
    xi_msg_release(&m);
    leave_with(me, ch);
}

static pid_t spawn_victim(void) {
    static int64_t who[1 << 16];
    static size_t count;
    expect(count < sizeof who / sizeof *who, "too many victims");
    who[count] = (int64_t)count;
    return spawn(victim, &who[count++]);
}

/* Whoever is left drains what the victims had to themselves; then the ring comes home, and no other is left. */
static void all_comes_home(int segments) {
    xi_interp *me = join_as("heir", 0);
    xi_channel *ch = open_moving(me, 0, NULL);
    xi_msg m = XI_MSG_INIT;
    int64_t begun = now_ns();
    while (xi_recv(ch, &m, 100 * MS) == 0) continue;
    xi_msg_release(&m);
    printf("the ring grew %llu times and shrank %llu times\n", (unsigned long long)ch->chan->grown,
           (unsigned long long)ch->chan->shrunk);
    fflush(stdout);
    expect(ch->chan->grown > 20 && ch->chan->shrunk > 5, "the ring hardly moved");
    while (xi_load_relaxed(&ch->chan->ring) != 0) {
        must_fail(XI_E_TIMEOUT, xi_recv(ch, &m, 50 * MS));
        expect(now_ns() - begun < 10 * SECOND, "the ring did not come home");
    }
    /* This one's own two, and its predecessors' arenas until they are collected. */
    await(segments_of(test_ns(), false) <= segments, "%d segments, there should be %d", segments_of(test_ns(), true), segments);
    leave_with(me, ch);
}

int main(void) {
    uint64_t seed = 4711;
    pid_t victims[VICTIMS];
    struct gate ready = gate_new();
    int kills = 0;
    S = shared_memory(sizeof *S);
    xi_interp *me = join_as("owner", 0);
    xi_channel *ch = open_moving(me, XI_OPEN_SEND, NULL);
    int segments = segments_of(test_ns(), false) + 2;
    pid_t living[2];
    living[0] = spawn(consumer, &ready);
    gate_pass(&ready);
    living[1] = spawn(producer, NULL);
    for (int i = 0; i < VICTIMS; i++) victims[i] = spawn_victim();
    for (int64_t end = now_ns() + LASTS; now_ns() < end; kills++) {
        uint32_t joined = atomic_load(&S->joined);
        int i = (int)(draw(&seed) % VICTIMS);
        rest((int64_t)(draw(&seed) % 40000) * 1000);
        must_sys(kill(victims[i], SIGKILL));
        reap_signalled(victims[i], SIGKILL, "a victim");
        victims[i] = spawn_victim();
        await_event(&S->event, atomic_load(&S->joined) != joined, "nobody joins any more");
    }
    for (int i = 0; i < VICTIMS; i++) {
        must_sys(kill(victims[i], SIGKILL));
        reap_signalled(victims[i], SIGKILL, "a victim");
    }
    atomic_store(&S->over, true);
    reap_ok(living[1], "the producer");
    reap_ok(living[0], "the consumer");
    printf("%d victims\n", kills + VICTIMS);
    fflush(stdout);
    all_comes_home(segments);
    must(xi_group_remove(ch, "witness"));
    leave_with(me, ch);
    return 0;
}
