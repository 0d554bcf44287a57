/* SPDX-License-Identifier: MIT */
/*
 * A writer that is called before each atomic load of the library (order.h,
 * XI_LOAD_HOOK), and the operations that it is set upon, each on a scene of its
 * own (scene.h).
 */
#ifndef XI_TEST_BETWEEN_H
#define XI_TEST_BETWEEN_H

#include "shards.h"

#define EVER_MOST 96 /* words that an operation loads, and are noted */
#define LOADS_LOOK 1000000u /* after so many by one operation its time is looked at: it may wait for a second for a lock */

/* -------------------------------------------------------------- the writer */

enum mode { OFF, COUNT, ONCE, EVER };
struct extent {
    uintptr_t from, to;
    uint64_t thing;
};
static struct writer {
    enum mode mode;
    struct extent extents[PLACES];
    unsigned extent_count;
    uint64_t loads, at;      /* how many so far; ONCE: before which */
    uintptr_t word;          /* EVER: of which word */
    unsigned value;
    uint64_t number;         /* of the case, for the random ones */
    uint64_t was, wrong;     /* EVER: what it changes between */
    bool begun;
    int64_t since;           /* processor time at its start */
    uintptr_t words[EVER_MOST]; /* COUNT: those that are loaded */
    unsigned word_count;
} writer;

static const struct extent *extent_of(uintptr_t p) {
    for (unsigned i = 0; i < writer.extent_count; i++)
        if (p >= writer.extents[i].from && p < writer.extents[i].to) return &writer.extents[i];
    return NULL;
}

static void note(uintptr_t word) {
    for (unsigned i = 0; i < writer.word_count; i++)
        if (writer.words[i] == word) return;
    if (writer.word_count < EVER_MOST) writer.words[writer.word_count++] = word;
}

static void write_once(uintptr_t word, uint64_t thing) {
    uint64_t *w = (uint64_t *)word;
    spoil_word(w, spoil_value(writer.value, *w, thing, writer.number));
}

static void write_ever(uintptr_t word, uint64_t thing) {
    uint64_t *w = (uint64_t *)word, now = __atomic_load_n(w, __ATOMIC_RELAXED);
    if (!writer.begun) {
        writer.was = now;
        writer.wrong = spoil_value(writer.value, now, thing, writer.number);
        writer.begun = true;
    }
    spoil_word(w, now == writer.wrong ? writer.was : writer.wrong);
}

/* Waiting for a lock may take a second, and its word may change all the time; nothing else takes a second. */
static void look_at_time(uintptr_t word, const struct extent *e) {
    int64_t took = processor_ns() - writer.since;
    if (took < 3 * CPU_LIMIT) return;
    writer.mode = OFF;
    fail("%s has made %" PRIu64 " loads in %.1f s and goes on, at extent %d + %zu", mine->operation, writer.loads,
         (double)took / 1e9, (int)(e - writer.extents), (size_t)(word - e->from));
}

void xi_before_load(const volatile void *p);
void xi_before_load(const volatile void *p) {
    uintptr_t word = (uintptr_t)p & ~(uintptr_t)7;
    if (writer.mode == OFF) return;
    const struct extent *e = extent_of(word);
    if (!e) return;
    if (++writer.loads % LOADS_LOOK == 0) look_at_time(word, e);
    if (writer.mode == COUNT) note(word);
    else if (writer.mode == ONCE && writer.loads - 1 == writer.at) write_once(word, e->thing);
    else if (writer.mode == EVER && word == writer.word) write_ever(word, e->thing);
}

static void extent_add(const void *base, size_t size, uint64_t thing) {
    writer.extents[writer.extent_count++] = (struct extent){(uintptr_t)base, (uintptr_t)base + size, thing};
}

static void find_extents(const struct scene *s) {
    struct xi_channel *lane = sender->calls->lane;
    const struct xi_view *v = &s->out->send_view;
    writer.extent_count = 0;
    extent_add(s->out->chan, s->out->entry->map.mapped, XI_CAPACITY_MIN);
    extent_add(lane->chan, lane->entry->map.mapped, lane->home.capacity);
    if (v->word) extent_add(v->ring, 2 * v->capacity, v->capacity);
    if (s->in->ack) extent_add(s->in->ack->acks, s->in->ack->entry->map.size, WINDOW);
    extent_add(sender->arena.segments->entry->release.base, sender->arena.segments->entry->release.size, XI_GRANULE);
    extent_add(receiver->mailbox, XI_MAILBOX_SIZE, 64);
    extent_add(sender->mailbox, XI_MAILBOX_SIZE, 64);
}

/* ---------------------------------------------------------- the operations */

static struct scene scene;
static xi_channel *late;
static xi_msg messages[3] = {XI_MSG_INIT, XI_MSG_INIT, XI_MSG_INIT};

static void do_send(void) { OP(xi_send(scene.out, small_value, small_size, XI_TRY)); }
static void do_send_block(void) { OP(xi_send(scene.out, large_value, large_size, XI_TRY)); }
static void do_send_many(void) {
    const void *const values[3] = {small_value, large_value, small_value};
    const size_t sizes[3] = {small_size, large_size, small_size};
    OP(xi_send_many(scene.out, values, sizes, 3, XI_TRY));
}
static void do_send_until_full(void) {
    for (int i = 0; i < 40; i++) OP(xi_send(scene.out, large_value, 800, XI_TRY));
}
static void do_receive(void) { OP(xi_recv(scene.in, &messages[0], XI_TRY)); }
static void do_receive_many(void) { OP(xi_recv_many(scene.in, messages, 3, XI_TRY)); }
static void do_receive_all(void) {
    for (int i = 0; i < 12; i++) OP(xi_recv(scene.in, &messages[0], XI_TRY));
}
static void do_receive_other(void) { OP(scene.other ? xi_recv(scene.other, &messages[1], XI_TRY) : 0); }
static void do_release(void) { QUIET(xi_msg_release(&scene.held[0])); }
static void do_ack(void) { OP(xi_ack(&scene.held[1])); }
static void do_ack_keep(void) { OP(xi_ack_keep(&scene.held[1])); }
static void do_nack(void) { OP(xi_nack(&scene.held[2], 0)); }
static void do_extend(void) { OP(xi_extend(&scene.held[1], MS)); }
static void do_reply(void) { OP(xi_reply(&scene.held[2], small_value, small_size, XI_TRY)); }
static void do_drop_request(void) { QUIET(xi_msg_release(&scene.held[2])); }
static void do_call(void) {
    xi_pending p = XI_PENDING_INIT;
    OP(xi_call_begin(scene.out, small_value, small_size, XI_TRY, &p));
    QUIET(xi_call_cancel(&p));
}
static void do_await_reply(void) { OP(xi_call_wait(&scene.call, &scene.reply, XI_TRY)); }
static void do_await_reply_awhile(void) { OP(xi_call_wait(&scene.call, &scene.reply, MS)); }
static void do_stat(void) {
    static xi_channel_info info[3];
    OP(xi_channel_stat(scene.in, info));
    OP(xi_list_channels(xi_observer_of(sender), info, 3));
}
static void do_groups(void) {
    static xi_group_info groups[3];
    OP(xi_channel_groups(scene.in, groups, 3));
}
static void do_set_wait(void) {
    static xi_event events[4];
    OP(xi_set_wait(scene.set, events, 4, XI_TRY));
}
static void do_set_wait_awhile(void) {
    static xi_event events[1];
    for (int i = 0; i < 3; i++) OP(xi_set_wait(scene.set, events, 1, MS));
}
static void do_join_oldest(void) {
    static const xi_group_opts oldest = {.flags = XI_GROUP_TEMPORARY, .from = XI_FROM_OLDEST};
    OP(xi_open(receiver, scene.name, &(xi_open_opts){.group_opts = &oldest}, &late));
    OP(xi_channel_free(late));
    late = NULL;
}
static void do_join_acking(void) {
    static const xi_group_opts acks = {.flags = XI_GROUP_ACK, .window = 16};
    OP(xi_open(receiver, scene.name, &(xi_open_opts){.group = "acks", .group_opts = &acks}, &late));
    OP(late ? xi_group_remove(late, "acks") : 0);
    OP(xi_channel_free(late));
    late = NULL;
}
static void do_wait_for_value(void) {
    do_receive_all();
    OP(xi_recv(scene.in, &messages[0], MS));
}
static void do_wait_for_room(void) {
    do_send_until_full();
    OP(xi_send(scene.out, small_value, small_size, MS));
}
static void do_leave_group(void) {
    OP(xi_channel_free(scene.other));
    scene.other = NULL;
}
static void do_leave_acking(void) {
    OP(xi_channel_free(scene.in));
    scene.in = NULL;
}
static void do_free_run(void) { OP(xi_free_run(sender)); }
static void do_close(void) { OP(xi_close(scene.out)); }

static void (*const operations[])(void) = {
    do_send, do_send_block, do_send_many, do_send_until_full, do_receive, do_receive_many, do_receive_all, do_receive_other,
    do_release, do_ack, do_ack_keep, do_nack, do_extend, do_reply, do_drop_request, do_call, do_await_reply,
    do_await_reply_awhile, do_stat, do_groups, do_set_wait, do_set_wait_awhile, do_join_oldest, do_join_acking,
    do_wait_for_value, do_wait_for_room, do_leave_group, do_leave_acking, do_free_run, do_close};
#define OPERATIONS (sizeof operations / sizeof *operations)

#endif
