/* SPDX-License-Identifier: MIT */
/*
 * What another user writes into their own borrow table, the broker carries out
 * after their death in their name only: blocks of those with whom they share no
 * channel stay as they are, those that they had received are released.
 */
#include "interp/interp.h"
#include "users.h"

#define LAB "61001/lab"
#define BIG 200000

static struct told {
    xi_handle secret, given; /* a block that Bob has nothing to do with, and one that he may read */
} *told;
static struct gate ready, died;

static void send_big(xi_interp *me, xi_channel *ch, xi_handle *handle) {
    xi_loan loan;
    must(xi_loan_get(me, BIG + 128, &loan));
    *handle = loan.handle;
    size_t size = encode_padded(loan.data, loan.size, 7, BIG);
    must(xi_send_loan(ch, &loan, size, &(xi_send_opts){.timeout = SECOND}));
}

static uint64_t blocks_of(xi_interp *me) {
    xi_stats stats;
    (void)xi_free_run(me);
    xi_interp_stats(me, &stats);
    return stats.blocks;
}

/* Two interpreters of hers: what one sends stays with her, the other sends to Bob. */
static void alice_has_a_secret(void *unused) {
    (void)unused;
    xi_interp *keeps = join_ns("lab", "keeps", 0), *gives = join_ns("lab", "gives", 0);
    xi_channel *mine = open_with(keeps, "mine", NULL);
    xi_channel *out = open_with(gives, "to-bob", &(xi_open_opts){.access = "61002:r"});
    send_big(keeps, mine, &told->secret);
    send_big(gives, out, &told->given);
    gate_lift(&ready, 1);
    gate_pass(&died);
    /* Repair tells both owners at once, so when the one has its block back, the other would have had too. */
    int64_t until = now_ns() + 10 * SECOND;
    while (blocks_of(gives) && now_ns() < until) (void)poll(NULL, 0, 1);
    expect(blocks_of(gives) == 0, "what Bob had received was not released");
    expect(blocks_of(keeps) == 1, "Bob's borrow table released a block that he could never have had");
    xi_msg m = XI_MSG_INIT;
    must(xi_recv(mine, &m, SECOND));
    expect(message_int(&m) == 7, "%lld came", (long long)message_int(&m));
    xi_msg_release(&m);
    leave_with(keeps, mine);
    leave_with(gives, out);
}

static void forge(struct xi_borrow *b, const xi_handle *block, uint32_t channel) {
    expect(xi_load_relaxed(&b->key) == 0, "the entry is taken");
    xi_store_relaxed(&b->block, (uint64_t)block->segment << 32 | block->granule);
    xi_store_relaxed(&b->position, 0);
    xi_store_relaxed(&b->chan_seg, channel);
    xi_store_release(&b->key, XI_BORROW_KEY(block->generation, 0));
}

static void bob_forges_and_dies(void *unused) {
    (void)unused;
    xi_interp *me = join_ns(LAB, "bob", 0);
    xi_channel *in = open_with(me, "to-bob", &(xi_open_opts){.flags = XI_OPEN_RECV});
    xi_msg m = XI_MSG_INIT;
    must(xi_recv(in, &m, 5 * SECOND));
    struct xi_borrow *table = me->own->borrows;
    uint32_t last = (uint32_t)XI_BORROWS_IN(XI_OWN_SIZE, sizeof(struct xi_own)) - 1;
    forge(&table[last], &told->secret, 2);
    forge(&table[last - 1], &told->secret, 6);
    must_sys(kill(getpid(), SIGKILL));
}

static void everything(void *unused) {
    (void)unused;
    pid_t broker = open_lab("61002");
    told = shared_memory(sizeof *told);
    ready = gate_new();
    died = gate_new();
    pid_t a = spawn_as(&alice, alice_has_a_secret);
    gate_pass(&ready);
    reap_signalled(spawn_as(&bob, bob_forges_and_dies), SIGKILL, "bob");
    gate_lift(&died, 1);
    reap_ok(a, "alice");
    stop_broker(broker);
}

int main(void) { return run_in_place(everything); }
