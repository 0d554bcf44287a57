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
#include "shards.h"

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


static void nothing(enum kind kind, const struct range *r, size_t offset, unsigned value, uint64_t number) {
    (void)kind, (void)r, (void)offset, (void)value, (void)number;
}

static void one_of_mine(enum kind kind, const struct range *r, size_t offset, unsigned value, uint64_t number) {
    if (!is_mine(number)) return;
    if (is_lock(r, offset) && value >= FEW && value % 4) return; /* words that are waited for: a part of the values */
    atomic_store(&mine->next, number);
    run_case(kind, r, offset, value, number);
}

static void shard_body(void *number) {
    mine = &shards[(uintptr_t)number];
    join_both(space);
    (void)each_case(one_of_mine);
    strcpy(mine->operation, "(leaving)");
    leave_both();
    atomic_store(&mine->next, UINT64_MAX);
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
#if defined(__SANITIZE_ADDRESS__)
    choose_stride(11, 389);
#else
    choose_stride(2, 149);
#endif
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
