/* SPDX-License-Identifier: MIT */
/*
 * The broker as a process, spoken to over its socket by a client that is
 * nothing but broker_client.h: docs/protocol.md, executable. Each test runs with
 * io_uring and with poll(2).
 */
#include <sys/statvfs.h>

#include "broker_client.h"

/* ---- tests ---- */

static void setup(void) {
    const char *given = getenv("XI_NAMESPACE");
    snprintf(ns, sizeof ns, "%s", given ? given : "test.broker");
}

static void choose_wait(int i) { setenv("XI_WAIT", i ? "futex" : "auto", 1); }

START_TEST(test_join_work_leave) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client c = join();
    struct xi_registry *reg = c.registry;
    ck_assert_uint_eq(reg->seg.magic, XI_LAYOUT_MAGIC);
    ck_assert_str_eq(reg->ns, ns);
    ck_assert_int_eq(reg->broker_pid, broker);
    ck_assert_uint_eq(reg->state, XI_NS_RUNNING);
    ck_assert_uint_eq(reg->broker_life, 1);
    ck_assert_uint_eq(slot_state(&c, c.slot), XI_SLOT_LIVE);
    ck_assert_int_eq(reg->slots[c.slot].pid, getpid());
    ck_assert_str_eq(reg->slots[c.slot].name, "tester");
    ck_assert_uint_eq(c.mailbox->seg.kind, XI_SEG_MAILBOX);

    struct xi_reply r = ask_a(&c, XI_OP_ARENA, 100000);
    ck_assert_int_eq(r.status, 0);
    ck_assert_uint_eq(r.a % 2, 0);
    ck_assert_uint_eq(r.b, 102400);
    ck_assert_uint_eq(reg->slots[c.slot].arena_bytes, 102400 + XI_RELEASE_SIZE(102400));
    ck_assert_int_eq(ask_a(&c, XI_OP_DROP, r.a).status, 0);
    ck_assert_int_eq(ask_a(&c, XI_OP_DROP, r.a).status, XI_E_NOENT);
    ck_assert_uint_eq(reg->slots[c.slot].arena_bytes, 0);
    r = ask_a(&c, XI_OP_BORROWS, 1);
    ck_assert_uint_eq(r.b, XI_PAGE);

    struct xi_reply stats = ask_a(&c, XI_OP_STATS, 0);
    ck_assert_uint_eq(stats.a, 1);
    ck_assert_uint_eq(stats.c, 0);
    leave(&c);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

START_TEST(test_channels) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client a = join(), b = join();
    struct xi_reply r = ask_open(&a, "jobs", 0, 0);
    ck_assert_msg(r.status == 0, "%s", r.text);
    ck_assert_uint_eq(r.d, XI_CAPACITY_DEFAULT);
    ck_assert_uint_eq(a.fd_count, 1);
    struct xi_chan *ch = map(a.fds[0], XI_RING_OFFSET + r.d, PROT_READ | PROT_WRITE);
    close_fds(&a);
    ck_assert_uint_eq(ch->id, r.a);
    ck_assert_uint_eq(ch->ring_offset, XI_RING_OFFSET);
    ck_assert_uint_eq(ch->inline_max, XI_INLINE_MAX(r.d));
    ck_assert_uint_eq(ch->active, 1);
    ck_assert_uint_eq(ch->groups[0].state, XI_GROUP_ACTIVE);
    ck_assert_uint_eq(entry_of(&a, r.a)->handles, 1);
    ck_assert_uint_eq(ask_open(&b, "jobs", XI_QUEUE, 0).a, r.a);
    close_fds(&b);
    ck_assert_uint_eq(entry_of(&a, r.a)->handles, 2);
    ck_assert_int_eq(ask_open(&b, "jobs", XI_BROADCAST, 0).status, XI_E_MISMATCH);
    ck_assert_int_eq(ask_open(&b, "nothing", 0, XI_OPEN_EXISTING).status, XI_E_NOENT);
    ck_assert_int_eq(ask_open(&b, "bad\x01name", 0, 0).status, XI_E_INVAL);

    /* One value is left in it: it lives on without handles, until it is drained and closed again. */
    ch->tail = 16;
    ch->tail_seq = 1;
    *(uint64_t *)((char *)ch + XI_RING_OFFSET) = XI_REC(8, XI_REC_INLINE, 0, 1);
    ck_assert_int_eq(ask_a(&b, XI_OP_CLOSE, r.a).status, 0);
    ck_assert_int_eq(ask_a(&a, XI_OP_CLOSE, r.a).status, 0);
    ck_assert_ptr_nonnull(entry_of(&a, r.a));
    ck_assert_uint_eq(ask_open(&a, "jobs", 0, 0).a, r.a);
    close_fds(&a);
    ch->groups[0].head = 16;
    ch->groups[0].head_seq = 1;
    ck_assert_int_eq(ask_a(&a, XI_OP_CLOSE, r.a).status, 0);
    ck_assert_ptr_null(entry_of(&a, r.a));
    munmap(ch, XI_RING_OFFSET + XI_CAPACITY_DEFAULT);
    leave(&a);
    leave(&b);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

static void send_bytes(const void *bytes, size_t n, bool survives) {
    struct client c = {.fd = dial()};
    struct xi_reply r;
    ck_assert_int_eq(send(c.fd, bytes, n, MSG_NOSIGNAL), n);
    if (n) {
        ck_assert(receive(&c, &r));
        ck_assert_int_lt(r.status, 0);
        ck_assert_msg(r.text[0], "refused without a word");
    }
    if (!survives) ck_assert_msg(!receive(&c, &r), "still connected after nonsense");
    close(c.fd);
}

static struct xi_request terms(const char *name) {
    struct xi_request q = request(XI_OP_OPEN);
    snprintf(q.name, sizeof q.name, "%s", name);
    q.d = 7;
    q.e = 100000;
    q.f = 5000000000;
    q.g = 3;
    q.h = XI_FULL_DROP;
    snprintf(q.other, sizeof q.other, "expired");
    return q;
}

static int opened_with(struct client *c, struct xi_request q) {
    struct xi_reply r = ask(c, q);
    close_fds(c);
    return r.status;
}

static void check_terms(const struct xi_chan *ch) {
    ck_assert_uint_eq(ch->max_values, 7);
    ck_assert_uint_eq(ch->grow_max, 131072);
    ck_assert_int_eq(ch->ttl_ns, 5000000000);
    ck_assert_uint_eq(ch->retain, 3);
    ck_assert_uint_eq(ch->when_full, XI_FULL_DROP);
    ck_assert_str_eq(ch->dead, "expired");
}

static void check_wrong_terms(struct client *c) {
    struct xi_request q = terms("wrong");
    q.e = XI_GROW_MAX + 1;
    ck_assert_int_eq(opened_with(c, q), XI_E_TOOBIG);
    q = terms("wrong");
    q.e = XI_CAPACITY_DEFAULT / 2;
    ck_assert_int_eq(opened_with(c, q), XI_E_INVAL);
    q = terms("wrong");
    q.f = (uint64_t)-1;
    ck_assert_int_eq(opened_with(c, q), XI_E_INVAL);
    q = terms("wrong");
    q.g = (uint64_t)1 << 32;
    ck_assert_int_eq(opened_with(c, q), XI_E_INVAL);
    q = terms("wrong");
    q.h = XI_FULL_DROP + 1;
    ck_assert_int_eq(opened_with(c, q), XI_E_INVAL);
    q = terms("wrong");
    snprintf(q.other, sizeof q.other, "wrong");
    ck_assert_int_eq(opened_with(c, q), XI_E_INVAL);
    snprintf(q.other, sizeof q.other, "bad\x01name");
    ck_assert_int_eq(opened_with(c, q), XI_E_INVAL);
    memset(q.other, 'x', sizeof q.other);
    ck_assert_int_eq(opened_with(c, q), XI_E_INVAL);
}

/* What a channel is like lies in the channel: a new broker finds it there. */
START_TEST(test_terms_of_a_channel) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client c = join();
    check_wrong_terms(&c);
    struct xi_reply r = ask(&c, terms("like this"));
    ck_assert_int_eq(r.status, 0);
    struct xi_chan *ch = map(c.fds[0], XI_RING_OFFSET + r.d, PROT_READ | PROT_WRITE);
    close_fds(&c);
    check_terms(ch);
    struct xi_request q = request(XI_OP_OPEN); /* of an old one they are ignored */
    snprintf(q.name, sizeof q.name, "like this");
    q.d = 1;
    ck_assert_int_eq(opened_with(&c, q), 0);
    check_terms(ch);
    kill(broker, SIGKILL);
    end_of(broker);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client again = join_with(0, (uint64_t)c.id);
    ck_assert_uint_eq(ask_open(&again, "like this", 0, XI_WIRE_ADOPT).a, r.a);
    close_fds(&again);
    check_terms(ch);
    leave(&again);
    hang_up(&c);
    stop();
    munmap(ch, XI_RING_OFFSET + XI_CAPACITY_DEFAULT);
    ck_assert_uint_eq(files(), 0);
}
END_TEST

static struct xi_reply ask_acks(struct client *c, uint64_t channel, uint64_t group, uint64_t window) {
    struct xi_request q = request(XI_OP_ACKS);
    q.a = channel;
    q.b = group;
    q.c = window;
    q.d = 3;
    q.e = 1000000;
    snprintf(q.other, sizeof q.other, "dead");
    return ask(c, q);
}

/* A table that no group uses goes when whoever asked for it is gone, or has said that it is not wanted; not before. */
START_TEST(test_tables_of_deliveries) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client a = join(), b = join();
    uint64_t id = ask_open(&a, "jobs", 0, 0).a;
    struct xi_chan *ch = map(a.fds[0], XI_RING_OFFSET + XI_CAPACITY_DEFAULT, PROT_READ | PROT_WRITE);
    close_fds(&a);
    unsigned before = files();
    ck_assert_int_eq(ask_acks(&b, id, 0, 64).status, XI_E_NOENT); /* it has no handle */
    ck_assert_int_eq(ask_acks(&a, id, XI_MAX_GROUPS, 64).status, XI_E_INVAL);
    ck_assert_int_eq(ask_acks(&a, id, 0, 100).status, XI_E_INVAL);
    ck_assert_int_eq(ask_acks(&a, id, 0, 2 * XI_WINDOW_MAX).status, XI_E_INVAL);
    struct xi_reply first = ask_acks(&a, id, 3, 64);
    ck_assert_msg(first.status == 0, "%s", first.text);
    ck_assert_uint_eq(first.b, XI_ACKS_SIZE(64));
    ck_assert_uint_eq(a.fd_count, 1);
    struct xi_acks *acks = map(a.fds[0], XI_ACKS_SIZE(64), PROT_READ | PROT_WRITE);
    close_fds(&a);
    ck_assert_uint_eq(acks->seg.kind, XI_SEG_ACKS);
    ck_assert_uint_eq(acks->window, 64);
    ck_assert_uint_eq(acks->group, 3);
    ck_assert_uint_eq(acks->chan_seg, ch->seg.number);
    ck_assert_uint_eq(acks->timeout_ns, 1000000);
    ck_assert_uint_eq(acks->max_deliveries, 3);
    ck_assert_str_eq(acks->dead, "dead");
    ck_assert_uint_eq(acks->entries[63].state, 0);

    /* Another joins in vain, and says so: the next request finds it. The first one, which lives, may yet use its own. */
    ck_assert_uint_eq(ask_open(&b, "jobs", 0, 0).a, id);
    close_fds(&b);
    struct xi_reply vain = ask_acks(&b, id, 3, 64);
    struct xi_acks *unwanted = map(b.fds[0], XI_ACKS_SIZE(64), PROT_READ | PROT_WRITE);
    close_fds(&b);
    ck_assert_uint_eq(files(), before + 2);
    unwanted->joined = 1;
    struct xi_reply used = ask_acks(&b, id, 5, 16);
    struct xi_acks *in_use = map(b.fds[0], XI_ACKS_SIZE(16), PROT_READ | PROT_WRITE);
    close_fds(&b);
    AWAIT(ask_a(&b, XI_OP_SEGMENT, vain.a).status == XI_E_NOENT);
    ck_assert_uint_eq(unwanted->seg.gone, 1);
    ck_assert_uint_eq(files(), before + 2);

    /* Its maker dies, then the broker: a group names it, so it stays; so does one that somebody lingers in. */
    in_use->joined = 1;
    ch->groups[5].acks_seg = (uint32_t)used.a;
    ch->groups[5].state = XI_GROUP_ACTIVE;
    ch->active |= (uint64_t)1 << 5;
    acks->joined = 1;
    XI_ACKS_LINGERS(acks, 64)[7].holder = XI_DELIVERY(XI_DELIVERY_OUT, 0, 1, a.slot, 1);
    kill(broker, SIGKILL);
    end_of(broker);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client again = join_with(0, (uint64_t)a.id);
    ck_assert_int_eq(ask_open(&again, "jobs", 0, XI_OPEN_EXISTING | XI_WIRE_ADOPT).status, 0);
    close_fds(&again);
    ck_assert_int_eq(ask_a(&again, XI_OP_SEGMENT, used.a).status, 0);
    ck_assert_int_eq(ask_a(&again, XI_OP_SEGMENT, first.a).status, 0);
    ck_assert_int_eq(ask_a(&again, XI_OP_CLOSE, id).status, 0); /* looks, and finds both in use */
    ck_assert_int_eq(ask_a(&again, XI_OP_SEGMENT, used.a).status, 0);
    ck_assert_int_eq(ask_a(&again, XI_OP_SEGMENT, first.a).status, 0);
    XI_ACKS_LINGERS(acks, 64)[7].holder = 0;
    ch->active &= ~((uint64_t)1 << 5);
    ch->groups[5].state = XI_GROUP_FREE;
    ck_assert_int_eq(ask_open(&again, "jobs", 0, XI_OPEN_EXISTING).status, 0);
    close_fds(&again);
    ck_assert_int_eq(ask_a(&again, XI_OP_CLOSE, id).status, 0);
    AWAIT(ask_a(&again, XI_OP_SEGMENT, used.a).status == XI_E_NOENT);
    AWAIT(ask_a(&again, XI_OP_SEGMENT, first.a).status == XI_E_NOENT);
    leave(&again);
    hang_up(&a);
    hang_up(&b);
    munmap(ch, XI_RING_OFFSET + XI_CAPACITY_DEFAULT);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

START_TEST(test_any_bytes) {
    static unsigned char noise[4096];
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct xi_request q = request(XI_OP_JOIN);
    send_bytes(&q, sizeof q - 1, false);
    send_bytes(&q, 0, false);
    q.magic++;
    send_bytes(&q, sizeof q, false);
    q = request(XI_OP_JOIN);
    q.version++;
    send_bytes(&q, sizeof q, false);
    q = request(99);
    send_bytes(&q, sizeof q, true);
    q = request(XI_OP_ARENA); /* has not joined */
    send_bytes(&q, sizeof q, true);
    q = request(XI_OP_JOIN);
    memset(q.name, 'x', sizeof q.name);
    send_bytes(&q, sizeof q, true);
    memset(noise, 0xa5, sizeof noise);
    send_bytes(noise, sizeof noise, false);
    srandom(4711);
    for (int i = 0; i < 200; i++) {
        for (size_t k = 0; k < sizeof q; k++) noise[k] = (unsigned char)random();
        if (i % 2) memcpy(noise, &q, 12); /* a valid head: any op, any numbers */
        if (i % 2) noise[6] = (unsigned char)(random() % 14), noise[7] = 0;
        if (noise[6] == XI_OP_SHUTDOWN || noise[6] == XI_OP_STATS) continue;
        send_bytes(noise, sizeof q, i % 2);
    }
    struct client c = join();
    leave(&c);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

START_TEST(test_client_that_never_reads) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client deaf = join(), other = join();
    struct xi_request q = request(XI_OP_STATS);
    unsigned sent = 0;
    while (send(deaf.fd, &q, sizeof q, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof q) sent++;
    ck_assert_int_eq(errno, EAGAIN); /* it is not read any more, and not dropped either */
    ck_assert_uint_gt(sent, 10);
    int64_t before = now_ms();
    ck_assert_int_eq(ask_a(&other, XI_OP_STATS, 0).status, 0);
    ck_assert_int_lt(now_ms() - before, 1000);
    struct xi_reply r;
    for (unsigned i = 0; i < sent; i++) ck_assert(receive(&deaf, &r)); /* every request is answered once it reads */
    leave(&deaf);
    leave(&other);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

static void open_jobs(struct client *c) {
    ck_assert_int_eq(ask_open(c, "jobs", 0, 0).status, 0);
    ck_assert_int_eq(ask_a(c, XI_OP_ARENA, 65536).status, 0);
}

START_TEST(test_kill_is_repaired) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client c = join();
    uint64_t before = ask_a(&c, XI_OP_STATS, 0).d;
    int64_t id;
    pid_t child = spawn(open_jobs, &id);
    uint32_t slot = 0;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++)
        if (c.registry->slots[i].id == id) slot = i;
    ck_assert_uint_ne(slot, 0);
    ck_assert_int_eq(ask_a(&c, XI_OP_REF, (uint64_t)id).a, 1);
    ck_assert_uint_eq(c.registry->slots[slot].id_refcount, 1);
    kill_child(child);
    AWAIT(slot_state(&c, slot) == XI_SLOT_FREE);
    AWAIT(ask_a(&c, XI_OP_STATS, 0).b == 0);
    ck_assert_uint_eq(ask_a(&c, XI_OP_STATS, 0).d, before);
    ck_assert_uint_eq(c.registry->deaths, 1);
    ck_assert_int_eq(ask_a(&c, XI_OP_UNREF, (uint64_t)id).status, XI_E_NOENT);
    struct client d = join();
    ck_assert_int_gt(d.id, id); /* never used twice */
    leave(&d);
    leave(&c);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

START_TEST(test_a_closed_socket_is_no_death) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client c = join(), again;
    struct xi_reply r = ask_open(&c, "jobs", 0, 0);
    close_fds(&c);
    close(c.fd);
    AWAIT(slot_state(&c, c.slot) == XI_SLOT_LIVE && entry_of(&c, r.a)->handles == 1);
    poll(NULL, 0, 50); /* time in which a broker that took it for a death would repair */
    ck_assert_uint_eq(slot_state(&c, c.slot), XI_SLOT_LIVE);
    again = join_with(0, (uint64_t)c.id);
    ck_assert_int_eq(again.id, c.id);
    ck_assert_uint_eq(again.slot, c.slot);
    ck_assert_uint_eq(again.own, c.own);
    ck_assert_uint_eq(ask_open(&again, "jobs", 0, XI_WIRE_ADOPT).a, r.a);
    close_fds(&again);
    ck_assert_uint_eq(entry_of(&c, r.a)->handles, 1);
    ck_assert_int_eq(ask_a(&again, XI_OP_CLOSE, r.a).status, 0);
    AWAIT(!entry_of(&c, r.a)); /* when it has been silent for a second */
    leave(&again);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

/* Its process lives, and has nothing of it any more: that is a death, whether a broker sees it happen or not. */
START_TEST(test_another_program_is_a_death) {
    int ends[2];
    uint32_t slot;
    choose_wait(_i & 1);
    ck_assert_str_eq(start(_i == 1 ? "--memfd" : NULL, NULL), "ready");
    struct client c = join();
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        struct client k = join();
        open_jobs(&k);
        k.own_map->counters.joined = 1;
        if (write(ends[1], &k.slot, sizeof k.slot) != sizeof k.slot) _exit(1);
        execlp("sleep", "sleep", "100", (char *)NULL);
        _exit(1);
    }
    close(ends[1]);
    ck_assert_int_eq(read(ends[0], &slot, sizeof slot), sizeof slot);
    if (_i & 2) {
        kill(broker, SIGKILL);
        end_of(broker);
        ck_assert_int_eq(read(ends[0], &slot, 1), 0); /* it is the other program */
        ck_assert_str_eq(start(NULL, NULL), "ready");
    }
    close(ends[0]);
    c.own_map->counters.joined = 1;
    close(c.fd); /* another that is not connected, and has what it had */
    AWAIT(slot_state(&c, slot) == XI_SLOT_FREE);
    ck_assert_uint_eq(c.registry->deaths, 1);
    ck_assert_uint_eq(slot_state(&c, c.slot), XI_SLOT_LIVE);
    struct client again = join_with(0, (uint64_t)c.id);
    leave(&again);
    hang_up(&c);
    kill_child(child);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

START_TEST(test_last_reference_ends) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client a = join(), b = join_with(XI_JOIN_REQUIRES_REF, 0);
    struct xi_bell *bell = &b.mailbox->bells[3];
    bell->state = XI_BELL_PARKED;
    ck_assert_int_eq(ask_a(&a, XI_OP_REF, (uint64_t)b.id).a, 1);
    ck_assert_uint_eq(b.mailbox->flags, 0);
    ck_assert_int_eq(ask_a(&a, XI_OP_UNREF, (uint64_t)b.id).a, 0);
    ck_assert_uint_eq(b.mailbox->flags, XI_MAIL_END);
    ck_assert_uint_eq(bell->state, XI_BELL_NOTIFIED);
    ck_assert_uint_eq(bell->bell, 1);
    struct xi_reply r;
    ck_assert(receive(&b, &r));
    ck_assert_uint_eq(r.op, XI_EV_END);
    ck_assert_uint_eq(r.serial, 0);
    leave(&b);
    leave(&a);
    stop();
}
END_TEST

static struct client survivor;
static uint64_t survivor_channel;

START_TEST(test_adoption) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    survivor = join();
    struct xi_reply r = ask_open(&survivor, "jobs", 0, 0);
    survivor_channel = r.a;
    struct xi_chan *ch = map(survivor.fds[0], XI_RING_OFFSET + r.d, PROT_READ | PROT_WRITE);
    close_fds(&survivor);
    int64_t dead, living;
    pid_t child = spawn(open_jobs, &dead), other = spawn(NULL, &living);
    ck_assert_int_eq(ask_a(&survivor, XI_OP_REF, (uint64_t)living).a, 1);

    kill(broker, SIGKILL);
    end_of(broker);
    kill_child(child);
    ch->lock = XI_LOCK_OF(0); /* the broker was just ending a group */
    int stray = shm_open("/xi.0.stray", O_RDONLY, 0);
    ck_assert_int_lt(stray, 0);
    ck_assert_str_eq(start(NULL, NULL), "ready");

    struct xi_registry *reg = survivor.registry;
    ck_assert_uint_eq(reg->broker_life, 2);
    ck_assert_int_eq(reg->broker_pid, broker);
    ck_assert_uint_eq(ch->lock, 0);
    AWAIT(reg->deaths == 1);
    ck_assert_uint_eq(slot_state(&survivor, survivor.slot), XI_SLOT_LIVE);
    ck_assert_ptr_nonnull(entry_of(&survivor, survivor_channel)); /* somebody may still say that they have it open */

    struct client again = join_with(0, (uint64_t)survivor.id);
    ck_assert_int_eq(again.id, survivor.id);
    ck_assert_uint_eq(ask_open(&again, "jobs", 0, XI_WIRE_ADOPT).a, survivor_channel);
    close_fds(&again);
    struct xi_request q = request(XI_OP_REF);
    q.a = (uint64_t)living;
    q.c = XI_WIRE_ADOPT;
    ck_assert_uint_eq(ask(&again, q).a, 1);
    ck_assert_uint_eq(entry_of(&again, survivor_channel)->handles, 1);
    struct client fresh = join();
    ck_assert_int_gt(fresh.id, living);
    kill_child(other);
    leave(&fresh);
    leave(&again);
    stop();
    ck_assert_uint_eq(files(), 0);
    munmap(ch, XI_RING_OFFSET + XI_CAPACITY_DEFAULT);
    hang_up(&survivor);
}
END_TEST

START_TEST(test_unsound_registry_starts_afresh) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    int64_t id;
    pid_t child = spawn(open_jobs, &id);
    kill(broker, SIGKILL);
    end_of(broker);
    kill_child(child);
    ck_assert_uint_gt(files(), 3);
    char name[XI_SHM_NAME_MAX];
    xi_shm_registry_name(name, getuid(), ns);
    int fd = shm_open(name, O_RDWR, 0);
    ck_assert_int_eq(pwrite(fd, "nonsense", 8, 0), 8);
    close(fd);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    ck_assert_uint_eq(files(), 1);
    struct client c = join();
    ck_assert_uint_eq(c.registry->broker_life, 1);
    leave(&c);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

START_TEST(test_second_broker_is_busy) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    pid_t first = broker;
    ck_assert_str_eq(start("--auto", NULL), "busy");
    ck_assert_int_eq(end_of(broker), 0);
    ck_assert_ptr_nonnull(strstr(start(NULL, NULL), "another broker"));
    ck_assert_int_ne(end_of(broker), 0);
    broker = first;
    stop();
}
END_TEST

START_TEST(test_termination_tells_everybody) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client c = join();
    c.mailbox->bells[0].state = XI_BELL_PARKED;
    open_jobs(&c);
    stop();
    struct xi_reply r;
    ck_assert(receive(&c, &r));
    ck_assert_uint_eq(r.op, XI_EV_SHUTDOWN);
    ck_assert(!receive(&c, &r));
    ck_assert_uint_eq(c.mailbox->flags, XI_MAIL_SHUTDOWN);
    ck_assert_uint_eq(c.mailbox->bells[0].bell, 1);
    ck_assert_uint_eq(c.registry->state, XI_NS_SHUTDOWN);
    ck_assert_uint_eq(files(), 0);
    ck_assert_int_lt(dial(), 0);
    hang_up(&c);
}
END_TEST

START_TEST(test_shutdown_by_request) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client c = {.fd = dial()};
    ck_assert_int_eq(ask(&c, request(XI_OP_SHUTDOWN)).status, 0);
    ck_assert_int_eq(end_of(broker), 0);
    ck_assert_uint_eq(files(), 0);
    close(c.fd);
}
END_TEST

START_TEST(test_memfd_namespace) {
    choose_wait(_i);
    ck_assert_str_eq(start("--memfd", NULL), "ready");
    struct client a = join(), b = join();
    ck_assert_uint_eq(files(), 0);
    ck_assert_uint_eq(a.registry->flags, XI_NS_MEMFD);
    struct xi_request q = request(XI_OP_ARENA);
    q.a = 65536;
    struct xi_reply r = ask(&a, q);
    ck_assert_uint_eq(a.fd_count, 2);
    ck_assert_int_eq(ftruncate(a.fds[0], XI_PAGE), -1); /* sealed */
    close_fds(&a);
    q = request(XI_OP_SEGMENT);
    q.a = r.a;
    ck_assert_int_eq(ask(&b, q).status, 0);
    ck_assert_uint_eq(b.fd_count, 1);
    ck_assert_ptr_eq(mmap(NULL, XI_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, b.fds[0], 0), MAP_FAILED);
    struct xi_segment *head = map(b.fds[0], XI_PAGE, PROT_READ);
    ck_assert_uint_eq(head->number, r.a);
    ck_assert_int_eq(head->owner_id, a.id);
    munmap(head, XI_PAGE);
    close_fds(&b);
    ck_assert_int_eq(ask_a(&b, XI_OP_SEGMENT, r.a + 1).status, 0);
    ck_assert_int_eq(ask_a(&b, XI_OP_SEGMENT, a.mailbox_seg).status, 0);
    ck_assert_int_eq(ask_a(&b, XI_OP_SEGMENT, a.own).status, XI_E_ACCESS);
    ck_assert_int_eq(ask_a(&b, XI_OP_SEGMENT, 77777).status, XI_E_NOENT);
    leave(&a);
    leave(&b);
    stop();
}
END_TEST

static bool lock_is_free(void) {
    char path[120];
    return xi_lock_path(path, sizeof path, ns) == 0 && access(path, F_OK) != 0;
}

START_TEST(test_automatic_leaves_with_the_last) {
    choose_wait(_i);
    ck_assert_str_eq(start("--auto", NULL), "ready");
    ck_assert_int_eq(end_of(broker), 0); /* it went to the background */
    struct client c = join(), d = join();
    pid_t real = c.registry->broker_pid;
    ck_assert_int_ne(real, broker);
    leave(&c);
    leave(&d);
    c = join(); /* right after: it is still there */
    ck_assert_int_eq(c.registry->broker_pid, real);
    struct xi_reply r = ask_open(&c, "jobs", 0, 0);
    struct xi_chan *ch = map(c.fds[0], XI_RING_OFFSET + r.d, PROT_READ | PROT_WRITE);
    ck_assert_int_eq(posix_fallocate(c.fds[0], XI_RING_OFFSET, (off_t)r.d), 0); /* before it is touched */
    close_fds(&c);
    *(uint64_t *)((char *)ch + XI_RING_OFFSET) = XI_REC(8, XI_REC_INLINE, 0, 1);
    ch->tail_seq = 1;
    ch->tail = 16;
    leave(&c);
    poll(NULL, 0, 500);
    c = join(); /* it waits with the value */
    ck_assert_int_eq(c.registry->broker_pid, real);
    ck_assert_uint_eq(ask_open(&c, "jobs", 0, 0).a, r.a);
    close_fds(&c);
    ch->groups[0].head_seq = 1;
    ch->groups[0].head = 16;
    munmap(ch, XI_RING_OFFSET + XI_CAPACITY_DEFAULT);
    leave(&c);
    AWAIT(files() == 0 && lock_is_free());
    ck_assert_int_lt(dial(), 0);
}
END_TEST

START_TEST(test_many_channels) {
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client c = join();

    int64_t before = now_ms();
    for (unsigned i = 0; i < 1200; i++) { /* beyond the entries that a registry begins with, twice */
        struct xi_request q = request(XI_OP_OPEN);
        snprintf(q.name, sizeof q.name, "channel %u", i);
        q.b = XI_CAPACITY_MIN;
        ck_assert_int_eq(ask(&c, q).status, 0);
        close_fds(&c);
    }

    ck_assert_int_lt(now_ms() - before, 20000);
    ck_assert_uint_ge(c.registry->channel_limit, 1200);
    ck_assert_uint_eq(ask_a(&c, XI_OP_STATS, 0).b, 1200);
    leave(&c);
    struct client d = join();
    AWAIT(ask_a(&d, XI_OP_STATS, 0).b == 0); /* so many are removed in slices */
    leave(&d);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

START_TEST(test_open_folder_is_refused) {
    char dir[108], open_dir[140];
    choose_wait(_i);
    ck_assert_int_eq(xi_runtime_dir(dir, sizeof dir), 0);
    (void)mkdir(dir, 0700);
    snprintf(open_dir, sizeof open_dir, "%s/open", dir);
    ck_assert_int_eq(mkdir(open_dir, 0700), 0);
    ck_assert_int_eq(chmod(open_dir, 0755), 0);
    setenv("XI_RUNTIME_DIR", open_dir, 1);
    ck_assert_ptr_nonnull(strstr(start(NULL, NULL), "chmod 700"));
    ck_assert_int_ne(end_of(broker), 0);
    rmdir(open_dir);
}
END_TEST

#define MUCH ((uint64_t)1 << 30)

static bool there_is_much(void) {
    struct statvfs shm;
    return statvfs("/dev/shm", &shm) == 0 && (uint64_t)shm.f_bavail * shm.f_frsize > 2 * MUCH;
}

/*
 * Who has come back to a new broker is taken to have said all it has open after a second of silence. What it says while the
 * broker is busy for longer with another's request is no silence.
 */
START_TEST(test_what_lies_unread_is_no_silence) {
    if (!there_is_much()) {
        printf("skipped: /dev/shm has no room for %llu MiB\n", (unsigned long long)(2 * MUCH >> 20));
        return;
    }
    choose_wait(_i);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client a = join(), b = join();
    uint64_t kept = ask_open(&b, "kept", 0, 0).a;
    close_fds(&b);
    kill(broker, SIGKILL);
    end_of(broker);
    ck_assert_str_eq(start(NULL, NULL), "ready");
    struct client busy = join_with(0, (uint64_t)a.id), back = join_with(0, (uint64_t)b.id);
    unsigned before = files();
    struct xi_request much = request(XI_OP_ARENA), says = request(XI_OP_OPEN);
    much.a = MUCH;
    snprintf(says.name, sizeof says.name, "kept");
    says.b = kept;
    says.c = XI_OPEN_EXISTING | XI_WIRE_ADOPT;
    ck_assert_int_eq(send(busy.fd, &much, sizeof much, MSG_NOSIGNAL), sizeof much);
    AWAIT(files() > before); /* it reserves the memory by now, and is stopped in the middle of that */
    kill(broker, SIGSTOP);
    ck_assert_int_eq(send(back.fd, &says, sizeof says, MSG_NOSIGNAL), sizeof says);
    int64_t over = now_ms() + 1300; /* the second is the broker's own */
    while (now_ms() < over) poll(NULL, 0, 50);
    kill(broker, SIGCONT);
    struct xi_reply r;
    ck_assert(receive(&back, &r));
    close_fds(&back);
    ck_assert_msg(r.status == 0, "%s", r.text);
    ck_assert_uint_eq(r.a, kept);
    ck_assert(receive(&busy, &r));
    close_fds(&busy);
    ck_assert_int_eq(r.status, 0);
    leave(&busy);
    leave(&back);
    hang_up(&a);
    hang_up(&b);
    stop();
    ck_assert_uint_eq(files(), 0);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {test_join_work_leave,
                                  test_channels,
                                  test_any_bytes,
                                  test_client_that_never_reads,
                                  test_kill_is_repaired,
                                  test_a_closed_socket_is_no_death,
                                  test_last_reference_ends,
                                  test_terms_of_a_channel,
                                  test_tables_of_deliveries,
                                  test_adoption,
                                  test_what_lies_unread_is_no_silence,
                                  test_unsound_registry_starts_afresh,
                                  test_second_broker_is_busy,
                                  test_termination_tells_everybody,
                                  test_shutdown_by_request,
                                  test_memfd_namespace,
                                  test_automatic_leaves_with_the_last,
                                  test_many_channels,
                                  test_open_folder_is_refused};
    if (access(binary(), X_OK) != 0) {
        printf("skipped: no broker at %s\n", binary());
        return 77;
    }
    Suite *suite = suite_create("broker socket");
    TCase *tc = tcase_create("process");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_set_timeout(tc, 40);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) tcase_add_loop_test(tc, tests[i], 0, 2);
    tcase_add_loop_test(tc, test_another_program_is_a_death, 0, 4);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
