/* SPDX-License-Identifier: MIT */
/*
 * A member's calls on a channel into which somebody writes, at rest and between
 * any two loads (tests/system/between.h), against a real broker.
 *
 * The first byte chooses the kind of channel. Then come steps of four bytes:
 * what, and three arguments.
 *
 *   0-127    an operation of between.h
 *   128-179  writes a value of spoil.h into a word of one of the segments
 *   180-199  writes a record's header, of any bits, where the group reads next
 *   200-229  the next operation: a word changes before its k-th load
 *   230-255  the next operation: the word loaded k-th changes before each load
 *
 * Whatever the order: no crash, no access outside a mapping, no call that does
 * not end, and the neighbour's values arrive.
 */
#include <stdlib.h>

#include "fuzz_world.h"
#include "system/between.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define JOIN_AGAIN 500 /* inputs: blocks whose release words were spoilt do not come back before */

static void shard_body(void *number) { (void)number; }

/* What is the interpreters' own rather than the channel's is as it was, for each input. */
static struct kept {
    void *at;
    size_t size;
    uint8_t *was;
} kept[3];

static void keep(unsigned i, void *at, size_t size) {
    free(kept[i].was);
    kept[i] = (struct kept){at, size, malloc(size)};
    expect(kept[i].was != NULL, "no memory");
    memcpy(kept[i].was, at, size);
}

static void join_all(void) {
    struct xi_channel *lane;
    join_both(space);
    lane = sender->calls->lane;
    keep(0, sender->mailbox, XI_MAILBOX_SIZE);
    keep(1, receiver->mailbox, XI_MAILBOX_SIZE);
    keep(2, lane->chan, XI_RING_OFFSET + lane->home.capacity);
}

/* Until the broker has gone as well: what it leaves for a moment is not to be taken for something left behind. */
static void end_all(void) {
    leave_both();
    for (int i = 0; i < 200 && segments_of(space, false) > 0; i++) {
        struct timespec tick = {0, 50 * MS};
        nanosleep(&tick, NULL); /* names in a folder, of a broker that is not our child */
    }
}

static void begin_input(enum kind kind) {
    static struct shard one;
    static unsigned inputs;
    mine = shards = &one;
    if (inputs == 0) {
        fuzz_world_begin(space, sizeof space);
        join_all();
        atexit(end_all);
    } else if (inputs % JOIN_AGAIN == 0) {
        leave_both();
        join_all();
    }
    inputs++;
    for (int i = 0; i < 3; i++) memcpy(kept[i].at, kept[i].was, kept[i].size);
    scene_begin(&scene, kind, inputs);
    find_extents(&scene);
    writer.mode = OFF;
}

static void write_word(uint8_t place, uint8_t where, uint8_t value) {
    const struct extent *e = &writer.extents[place % writer.extent_count];
    /* The head and group 0 of a channel, or any part of it: the top bit says which. */
    size_t words = (e->to - e->from) / 8, w = where & 0x80 ? (where & 0x7f) * words / 128 : where;
    uint64_t *word = (uint64_t *)e->from + (w < words ? w : 0);
    if (place & 0x80 && words > 700) word = (uint64_t *)(e->from + GROUP(0)) + where % 64;
    spoil_word(word, spoil_value(value, *word, e->thing, where));
}

static void write_header(const uint8_t *arguments) {
    if (!scene.in) return;
    const struct xi_view *v = scene.out->send_view.word ? &scene.out->send_view : &scene.out->home;
    uint64_t head = scene.in->ack ? xi_load_relaxed(&scene.in->group->next) : xi_load_relaxed(&scene.in->group->head);
    uint64_t length = (uint64_t)arguments[0] * 8 + (arguments[1] & 0x80 ? (uint64_t)UINT32_MAX - 7 : 0);
    uint64_t header = XI_REC(length, arguments[1] & 3, arguments[2] & 15, arguments[2] >> 4);
    atomic_store((_Atomic uint64_t *)(void *)(v->ring + (head & v->mask & ~(uint64_t)7)), header);
}

static void operate(uint8_t op) {
    size_t n = op % OPERATIONS;
    writer.loads = 0;
    writer.word_count = 0;
    writer.since = processor_ns();
    if (operations[n] == do_leave_acking || operations[n] == do_leave_group) writer.mode = OFF;
    if (!scene.in && operations[n] != do_send) return;
    operations[n]();
    writer.mode = COUNT;
}

static void aim(enum mode mode, const uint8_t *arguments) {
    writer.mode = mode;
    writer.at = arguments[0];
    writer.value = arguments[1];
    writer.number = arguments[2];
    writer.begun = false;
    writer.word = writer.word_count ? writer.words[arguments[0] % writer.word_count] : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 200) return 0;
    begin_input((enum kind)(data[0] % KINDS));
    for (size_t at = 1; at + 4 <= size; at += 4) {
        const uint8_t *a = data + at + 1;
        if (data[at] < 128) operate(data[at]);
        else if (data[at] < 180) write_word(a[0], a[1], a[2]);
        else if (data[at] < 200) write_header(a);
        else aim(data[at] < 230 ? ONCE : EVER, a);
    }
    writer.mode = OFF;
    for (int i = 0; i < 3; i++) QUIET(xi_msg_release(&messages[i]));
    memcpy(kept[0].at, kept[0].was, kept[0].size);
    memcpy(kept[1].at, kept[1].was, kept[1].size);
    check_neighbour();
    scene_end(&scene);
    check_neighbour();
    return 0;
}
