/* SPDX-License-Identifier: MIT */
/*
 * The scenes: for each operation of the library what is there before it, and how
 * it can come out. Values are numbers: up to 9 of eight bytes, up to 19 long ones
 * that still lie in the ring, from 20 on blocks of an arena.
 * T's blocks have a free function each, which is to run once in the end.
 *
 * Rings are of 4 KiB, and before each scene so many values have gone through
 * that records lie across the ring's end.
 */
#include "scenes.h"

#define LONG 10  /* and up: as long as may be in the ring */
#define BLOCK 20 /* and up */
#define LONG_BYTES 470
#define BLOCK_BYTES 1500

unsigned freed[64];

/* ------------------------------------------------------------------ helpers */

static void count_free(void *context, uint64_t argument) {
    (void)context;
    freed[argument & 63]++;
}

static size_t encode(uint64_t *buffer, size_t capacity, int n) {
    if (n >= LONG) return encode_padded(buffer, capacity, n, n >= BLOCK ? BLOCK_BYTES : LONG_BYTES);
    buffer[0] = XI_INT32 | (uint64_t)(uint32_t)n << 32;
    return 8;
}

static int send_with(struct part_in *p, int c, int n, uint32_t free_index) {
    uint64_t buffer[BLOCK_BYTES / 8 + 32];
    size_t size = encode(buffer, sizeof buffer, n);
    return xi_send_ex(p->ch[c], buffer, size, &(xi_send_opts){.timeout = XI_TRY, .free_index = free_index, .free_argument = (uint64_t)n});
}
/* D sends plainly. */
static int put(struct part_in *d, int c, int n) { return send_with(d, c, n, 0); }

/* T sends; what is a block has a free function. */
static void give(struct part_in *t, int c, int n) {
    if (!t->free_index) must(xi_free_register(t->me, "count", count_free, NULL, &t->free_index));
    bool block = n >= BLOCK;
    must(send_with(t, c, n, block ? t->free_index : 0));
    if (block) t->owed |= (uint64_t)1 << n;
}

/* A value whose time is over at once. */
static void give_expired(struct part_in *t, int c, int n) {
    uint64_t buffer[BLOCK_BYTES / 8 + 32];
    size_t size = encode(buffer, sizeof buffer, n);
    if (!t->free_index) must(xi_free_register(t->me, "count", count_free, NULL, &t->free_index));
    bool block = n >= BLOCK;
    must(xi_send_ex(t->ch[c], buffer, size,
                    &(xi_send_opts){.ttl_ns = 1, .free_index = block ? t->free_index : 0, .free_argument = (uint64_t)n}));
    if (block) t->owed |= (uint64_t)1 << n;
}

static xi_channel *open_as(struct part_in *p, int i, const char *name, const xi_open_opts *o) {
    xi_open_opts opts = *o;
    if (!opts.capacity) opts.capacity = XI_CAPACITY_MIN;
    return p->ch[i] = open_with(p->me, name, &opts);
}
static void reader(struct part_in *t, int i, const char *name, const xi_open_opts *o) {
    open_as(t, i, name, o);
    t->reads[i] = true;
}

static void take(struct part_in *p, int c, int m) {
    p->msg[m] = (xi_msg)XI_MSG_INIT;
    must(xi_recv(p->ch[c], &p->msg[m], XI_TRY));
}

/* So many values through the first channel that the next records lie across the end of its ring. */
static void near_end(struct part_in *t) {
    xi_msg m = XI_MSG_INIT;
    for (int i = 0; i < (4096 - 24) / 16; i++) {
        must(xi_send_int(t->ch[t->writer], i, XI_TRY));
        for (int k = 0; k < HANDLES; k++) {
            if (!t->reads[k]) continue;
            must(xi_recv(t->ch[k], &m, XI_TRY));
            if (xi_msg_deliveries(&m)) must(xi_ack(&m));
        }
    }
    xi_msg_release(&m);
}

/* An arena, so that none has to be asked for in the middle. */
static void have_arena(struct part_in *p) {
    xi_loan loan;
    must(xi_loan_get(p->me, BLOCK_BYTES + 64, &loan));
    xi_loan_drop(&loan);
}

static void ready(struct part_in *t) {
    have_arena(t);
    near_end(t);
}

/* ---------------------------------------------- channels without memory yet */

/* Nothing was ever sent through them: their rings, of four pages, are not backed. */
#define FRESH (4 * XI_CAPACITY_MIN)
static const xi_open_opts fresh = {.mode = XI_QUEUE, .capacity = FRESH};
static const xi_group_opts fresh_acks = {.flags = XI_GROUP_ACK, .window = 16};
static const xi_open_opts fresh_work = {.mode = XI_QUEUE, .capacity = FRESH, .group_opts = &fresh_acks};

static void q_fresh(struct part_in *t) {
    reader(t, 0, "c", &fresh);
    have_arena(t);
}
static void ack_fresh(struct part_in *t) {
    reader(t, 0, "c", &fresh_work);
    have_arena(t);
}
static void cast_fresh(struct part_in *t) {
    reader(t, 0, "c", &(xi_open_opts){.mode = XI_BROADCAST, .capacity = FRESH, .group = "a"});
    reader(t, 1, "c", &(xi_open_opts){.mode = XI_BROADCAST, .capacity = FRESH, .group = "b"});
    open_as(t, 2, "c", &(xi_open_opts){.mode = XI_BROADCAST, .capacity = FRESH, .flags = XI_OPEN_SEND});
    t->writer = 2;
    have_arena(t);
}
static void d_fresh(struct part_in *d) {
    open_as(d, 0, "c", &fresh);
    have_arena(d);
}
static void ignore_free(void *context, uint64_t argument) {
    (void)context;
    (void)argument;
}
/* What has a free function is a block, however small. */
static void d_fresh_free(struct part_in *d) {
    d_fresh(d);
    must(xi_free_register(d->me, "none", ignore_free, NULL, &d->free_index));
}
static void d_fresh_work(struct part_in *d) { open_as(d, 0, "c", &fresh_work); }
static void d_fresh_group_a(struct part_in *d) {
    open_as(d, 0, "c", &(xi_open_opts){.mode = XI_BROADCAST, .capacity = FRESH, .group = "a"});
}
static void send_22(struct part_in *t) { give(t, 0, 22); }
static int64_t send_in_vain(struct part_in *d) {
    must_fail(XI_E_NOSPACE, put(d, 0, 9));
    return put(d, 0, 9);
}

/* ------------------------------------------------------------------ openings */

static const xi_open_opts queue = {.mode = XI_QUEUE}, cast = {.mode = XI_BROADCAST}, sends = {.flags = XI_OPEN_SEND};

static void q_open(struct part_in *t) {
    reader(t, 0, "c", &queue);
    ready(t);
}
static void q_small(struct part_in *t) {
    q_open(t);
    give(t, 0, 1);
    give(t, 0, 2);
    give(t, 0, 3);
}
static void q_large(struct part_in *t) {
    q_open(t);
    give(t, 0, 21);
    give(t, 0, 22);
}
static void q_mixed(struct part_in *t) {
    q_open(t);
    give(t, 0, 1);
    give(t, 0, 22);
    give(t, 0, 3);
}
/* Two groups of T's and a third handle to send. */
static void cast_open(struct part_in *t) {
    reader(t, 0, "c", &(xi_open_opts){.mode = XI_BROADCAST, .group = "a"});
    reader(t, 1, "c", &(xi_open_opts){.mode = XI_BROADCAST, .group = "b"});
    open_as(t, 2, "c", &sends);
    t->writer = 2;
    ready(t);
}
static void cast_mixed(struct part_in *t) {
    give(t, 2, 1);
    give(t, 2, 22);
    give(t, 2, 3);
}
static void cast_full(struct part_in *t) {
    cast_open(t);
    cast_mixed(t);
}
static void d_queue(struct part_in *d) {
    open_as(d, 0, "c", &queue);
    have_arena(d);
}
static void d_sends(struct part_in *d) {
    open_as(d, 0, "c", &sends);
    have_arena(d);
}
static void d_group_a(struct part_in *d) { open_as(d, 0, "c", &(xi_open_opts){.mode = XI_BROADCAST, .group = "a"}); }
static void d_listens(struct part_in *d) { open_as(d, 0, "c", &cast); }

/* ------------------------------------------------------------------- sending */

static int64_t send_9(struct part_in *d) { return put(d, 0, 9); }
static int64_t send_29(struct part_in *d) { return put(d, 0, 29); }
static int64_t send_ttl(struct part_in *d) {
    uint64_t nine = XI_INT32 | (uint64_t)9 << 32;
    return xi_send_ex(d->ch[0], &nine, 8, &(xi_send_opts){.timeout = XI_TRY, .ttl_ns = 3600 * SECOND});
}
static int64_t send_batch(struct part_in *d) {
    uint64_t v[3] = {XI_INT32 | (uint64_t)7 << 32, XI_INT32 | (uint64_t)8 << 32, XI_INT32 | (uint64_t)9 << 32};
    const void *values[3] = {&v[0], &v[1], &v[2]};
    const size_t sizes[3] = {8, 8, 8};
    int64_t n = xi_send_many(d->ch[0], values, sizes, 3, XI_TRY);
    return n == 3 ? 0 : XI_E_INVAL;
}
static void d_loan(struct part_in *d) {
    d_sends(d);
    must(xi_loan_get(d->me, 2048, &d->loan));
    d->loan.size = d->loan.size; /* usable bytes: at least what was asked for */
    (void)encode_padded(d->loan.data, d->loan.size, 29, BLOCK_BYTES);
}
static int64_t send_loan(struct part_in *d) {
    uint64_t buffer[BLOCK_BYTES / 8 + 32];
    return xi_send_loan(d->ch[0], &d->loan, encode_padded(buffer, sizeof buffer, 29, BLOCK_BYTES), NULL);
}
static void d_sends_free(struct part_in *d) {
    d_sends(d);
    must(xi_free_register(d->me, "none", ignore_free, NULL, &d->free_index));
}
static int64_t send_free(struct part_in *d) { return send_with(d, 0, 29, d->free_index); }
static void d_only_opens(struct part_in *d) { open_as(d, 0, "c", &sends); }
static void nobody_hears(struct part_in *t) {
    open_as(t, 0, "c", &(xi_open_opts){.mode = XI_BROADCAST, .flags = XI_OPEN_SEND});
    t->writer = 0;
    have_arena(t);
}
static void drops(struct part_in *t) {
    reader(t, 0, "c", &(xi_open_opts){.mode = XI_QUEUE, .when_full = XI_FULL_DROP, .values = 2});
    ready(t);
    give(t, 0, 21);
    give(t, 0, 2);
}
static void drops_small(struct part_in *t) {
    reader(t, 0, "c", &(xi_open_opts){.mode = XI_QUEUE, .when_full = XI_FULL_DROP, .values = 2});
    ready(t);
    give(t, 0, 1);
    give(t, 0, 2);
}
static void retains(struct part_in *t) {
    reader(t, 0, "c", &(xi_open_opts){.mode = XI_BROADCAST, .retain = 2, .group = "a"});
    open_as(t, 1, "c", &sends);
    t->writer = 1;
    have_arena(t);
    near_end(t);
    give(t, 1, 1);
    give(t, 1, 2);
}

/* T's group has received all; the two blocks are kept. */
static void retains_blocks(struct part_in *t) {
    reader(t, 0, "c", &(xi_open_opts){.mode = XI_BROADCAST, .retain = 2, .group = "a"});
    open_as(t, 1, "c", &sends);
    t->writer = 1;
    ready(t);
    give(t, 1, 21);
    give(t, 1, 22);
    for (int i = 0; i < 2; i++) {
        take(t, 0, 0);
        xi_msg_release(&t->msg[0]);
    }
    t->may = t->owed;
    t->owed = 0;
}
static int64_t open_late(struct part_in *d) {
    xi_group_opts late = {.from = XI_FROM_OLDEST};
    return xi_open(d->me, "c", &(xi_open_opts){.flags = XI_OPEN_RECV, .group_opts = &late}, &d->ch[0]);
}

/* ----------------------------------------------------------------- receiving */

static int64_t receive(struct part_in *d) {
    d->msg[0] = (xi_msg)XI_MSG_INIT;
    return xi_recv(d->ch[0], &d->msg[0], XI_TRY);
}
static int64_t receive_in_vain(struct part_in *d) {
    d->msg[0] = (xi_msg)XI_MSG_INIT;
    must_fail(XI_E_NOMEM, xi_recv(d->ch[0], &d->msg[0], XI_TRY));
    return receive(d);
}
static int64_t receive_two(struct part_in *d) {
    for (int i = 0; i < MESSAGES; i++) d->msg[i] = (xi_msg)XI_MSG_INIT;
    int64_t n = xi_recv_many(d->ch[0], d->msg, 2, XI_TRY);
    return n == 2 ? 0 : n < 0 ? n : XI_E_INVAL;
}
static void q_expired(struct part_in *t) {
    q_open(t);
    give_expired(t, 0, 21);
    give(t, 0, 22);
    give(t, 0, 3);
}
/* What expires goes to the letters; one has gone there before, so that T has that channel open. */
static void q_buries(struct part_in *t) {
    xi_msg m = XI_MSG_INIT;
    reader(t, 1, "letters", &queue);
    reader(t, 0, "c", &(xi_open_opts){.mode = XI_QUEUE, .dead = "letters"});
    have_arena(t);
    give_expired(t, 0, 5);
    must_fail(XI_E_AGAIN, xi_recv(t->ch[0], &m, XI_TRY));
    give_expired(t, 0, 1);
    give(t, 0, 2);
    give(t, 0, 3);
}
static void d_has_one(struct part_in *d) {
    d_queue(d);
    take(d, 0, 0);
}
static int64_t release(struct part_in *d) {
    xi_msg_release(&d->msg[0]);
    return 0;
}

/* ----------------------------------------------------------------- deliveries */

static const xi_group_opts acks = {.flags = XI_GROUP_ACK, .window = 16};
static const xi_open_opts work = {.mode = XI_QUEUE, .group_opts = &acks};

static void ack_open(struct part_in *t) {
    reader(t, 0, "c", &work);
    ready(t);
}
static void ack_small(struct part_in *t) {
    ack_open(t);
    give(t, 0, 1);
    give(t, 0, 2);
    give(t, 0, 3);
}
static void ack_large(struct part_in *t) {
    ack_open(t);
    give(t, 0, 21);
    give(t, 0, 22);
}
/* The first was given back: it comes again. */
static void ack_again(struct part_in *t) {
    ack_large(t);
    take(t, 0, 0);
    must(xi_nack(&t->msg[0], 0));
}
static void d_works(struct part_in *d) { open_as(d, 0, "c", &work); }
static void d_has_delivery(struct part_in *d) {
    d_works(d);
    take(d, 0, 0);
}
static void d_has_two(struct part_in *d) {
    d_has_delivery(d);
    take(d, 0, 1);
}
static int64_t ack_first(struct part_in *d) { return xi_ack(&d->msg[0]); }
static int64_t ack_second(struct part_in *d) { return xi_ack(&d->msg[1]); }
static int64_t ack_keep(struct part_in *d) { return xi_ack_keep(&d->msg[0]); }
static int64_t nack_first(struct part_in *d) { return xi_nack(&d->msg[0], 0); }
static int64_t nack_keep(struct part_in *d) { return xi_nack_keep(&d->msg[0], 0); }
static int64_t nack_for_long(struct part_in *d) { return xi_nack(&d->msg[0], 3600 * SECOND); }
/* T was given the first, and let its time pass. */
static const xi_group_opts hasty = {.flags = XI_GROUP_ACK, .window = 16, .timeout_ns = 1500 * MS};
static const xi_open_opts hasty_work = {.mode = XI_QUEUE, .group_opts = &hasty};
static void ack_overdue(struct part_in *t) {
    struct timespec so_long = {1, 510000000};
    reader(t, 0, "c", &hasty_work);
    have_arena(t);
    give(t, 0, 21);
    give(t, 0, 22);
    take(t, 0, 0);
    nanosleep(&so_long, NULL); /* the time is the thing: the delivery becomes overdue */
}
static void d_works_hastily(struct part_in *d) { open_as(d, 0, "c", &hasty_work); }
/* A group that acknowledges, and that ends with its handle. */
static void d_listens_to_acknowledge(struct part_in *d) {
    xi_group_opts own = {.flags = XI_GROUP_ACK | XI_GROUP_TEMPORARY, .window = 16};
    open_as(d, 0, "c", &(xi_open_opts){.mode = XI_BROADCAST, .group_opts = &own});
}
static int64_t take_two_and_close(struct part_in *d) {
    int64_t rc = receive_two(d);
    return rc ? rc : xi_channel_free(d->ch[0]);
}
static int64_t extend(struct part_in *d) { return xi_extend(&d->msg[0], 3600 * SECOND); }
static void d_keeps(struct part_in *d) {
    d_has_delivery(d);
    must(xi_ack_keep(&d->msg[0]));
}
/* Delivered once in vain it goes to the letters. One has gone there before, so that all have that channel open. */
static const xi_group_opts once_only = {.flags = XI_GROUP_ACK, .window = 16, .max_deliveries = 1, .dead = "letters"};
static const xi_open_opts work_once = {.mode = XI_QUEUE, .group_opts = &once_only};
static void send_to_letters(struct part_in *p, int n) {
    xi_msg m = XI_MSG_INIT;
    give(p, 0, n);
    must(xi_recv(p->ch[0], &m, XI_TRY));
    must(xi_nack(&m, 0));
    must_fail(XI_E_AGAIN, xi_recv(p->ch[0], &m, XI_TRY));
    xi_msg_release(&m);
}
static void letters(struct part_in *t, int n) {
    reader(t, 1, "letters", &queue);
    reader(t, 0, "c", &work_once);
    have_arena(t);
    send_to_letters(t, 5);
    give(t, 0, n);
    take(t, 0, 0);
    must(xi_nack(&t->msg[0], 0));
}
static void letters_small(struct part_in *t) { letters(t, 1); }
static void letters_large(struct part_in *t) { letters(t, 21); }
/* The same with nowhere to go. */
static const xi_group_opts once_in_vain = {.flags = XI_GROUP_ACK, .window = 16, .max_deliveries = 1};
static const xi_open_opts work_in_vain = {.mode = XI_QUEUE, .group_opts = &once_in_vain};
static void spent(struct part_in *t) {
    reader(t, 0, "c", &work_in_vain);
    have_arena(t);
    give(t, 0, 21);
    give(t, 0, 22);
    take(t, 0, 0);
    must(xi_nack(&t->msg[0], 0));
}
/* Its time is over before anybody had it. */
static void works_too_late(struct part_in *t) {
    reader(t, 0, "c", &work);
    have_arena(t);
    give_expired(t, 0, 21);
    give(t, 0, 22);
}
static void d_works_in_vain(struct part_in *d) {
    open_as(d, 0, "c", &work_in_vain);
    have_arena(d);
}
static void d_works_once(struct part_in *d) {
    open_as(d, 0, "c", &work_once);
    have_arena(d);
}

/* --------------------------------------------------------------------- calls */

static uint64_t question = XI_INT32 | (uint64_t)1 << 32;

/* A call of T's, served by T: so that both ends of its lane are open. */
static void answer_itself(struct part_in *t) {
    xi_msg m = XI_MSG_INIT;
    must(xi_call_begin(t->ch[1], &question, 8, XI_TRY, &t->call));
    must(xi_recv(t->ch[0], &m, XI_TRY));
    must(xi_reply(&m, &question, 8, XI_TRY));
    must(xi_call_wait(&t->call, &m, XI_TRY));
    xi_msg_release(&m);
}
static void t_calls(struct part_in *t) {
    reader(t, 0, "c", &queue);
    open_as(t, 1, "c", &sends);
    ready(t);
    t->writer = 1;
    answer_itself(t);
    must(xi_call_begin(t->ch[1], &question, 8, XI_TRY, &t->call));
}
/* The same in a group that acknowledges. */
static void t_calls_acks(struct part_in *t) {
    reader(t, 0, "c", &work);
    open_as(t, 1, "c", &sends);
    ready(t);
    t->writer = 1;
    answer_itself(t);
    must(xi_call_begin(t->ch[1], &question, 8, XI_TRY, &t->call));
}
/* Two values at most: the request, and another. */
static void t_calls_in_vain(struct part_in *t) {
    reader(t, 0, "c", &(xi_open_opts){.mode = XI_QUEUE, .when_full = XI_FULL_DROP, .values = 2});
    open_as(t, 1, "c", &sends);
    have_arena(t);
    t->writer = 1;
    answer_itself(t);
    must(xi_call_begin(t->ch[1], &question, 8, XI_TRY, &t->call));
    give(t, 1, 2);
}
static void d_serves_acks(struct part_in *d) {
    d_has_delivery(d);
    expect(xi_msg_is_call(&d->msg[0]), "no request");
}
static void d_serves(struct part_in *d) {
    d_queue(d);
    take(d, 0, 0);
    expect(xi_msg_is_call(&d->msg[0]), "no request");
}
static int64_t reply(struct part_in *d) {
    uint64_t answer = XI_INT32 | (uint64_t)55 << 32;
    return xi_reply(&d->msg[0], &answer, 8, XI_TRY);
}
static int64_t call_begin(struct part_in *d) { return xi_call_begin(d->ch[0], &question, 8, XI_TRY, &d->call); }
static int64_t call_cancel(struct part_in *d) {
    xi_call_cancel(&d->call);
    return 0;
}
static void d_calls(struct part_in *d) {
    d_sends(d);
    d->call = (xi_pending)XI_PENDING_INIT;
}
static void d_has_called(struct part_in *d) {
    d_calls(d);
    must(xi_call_begin(d->ch[0], &question, 8, XI_TRY, &d->call));
}

/* -------------------------------------------------------- coming and going */

static int64_t join(struct part_in *d) {
    xi_join_opts o = {.ns = d->ns, .name = "doomed"};
    return xi_join(&o, &d->me);
}
static int64_t leave(struct part_in *d) { return xi_leave(d->me); }
/* It has sent, and received, and has a loan. */
static void d_busy(struct part_in *d) {
    d_queue(d);
    take(d, 0, 0);
    must(put(d, 0, 29));
    must(xi_loan_get(d->me, 100, &d->loan));
}
static int64_t open_old(struct part_in *d) { return xi_open(d->me, "c", &queue, &d->ch[0]); }
static int64_t open_new(struct part_in *d) {
    return xi_open(d->me, "new", &(xi_open_opts){.mode = XI_QUEUE, .capacity = XI_CAPACITY_MIN}, &d->ch[1]);
}
static int64_t open_listener(struct part_in *d) { return xi_open(d->me, "c", &cast, &d->ch[0]); }
static int64_t open_fresh_listener(struct part_in *d) {
    return xi_open(d->me, "c", &(xi_open_opts){.mode = XI_BROADCAST, .capacity = FRESH}, &d->ch[0]);
}
static int64_t open_group_at_oldest(struct part_in *d) {
    xi_group_opts from = {.from = XI_FROM_OLDEST, .flags = XI_GROUP_TEMPORARY};
    return xi_open(d->me, "c", &(xi_open_opts){.mode = XI_BROADCAST, .group_opts = &from}, &d->ch[0]);
}
static int64_t open_acks(struct part_in *d) {
    xi_group_opts own = {.flags = XI_GROUP_ACK | XI_GROUP_TEMPORARY, .window = 16};
    return xi_open(d->me, "c", &(xi_open_opts){.mode = XI_BROADCAST, .group_opts = &own}, &d->ch[0]);
}
static int64_t close_handle(struct part_in *d) { return xi_channel_free(d->ch[0]); }
static int64_t close_channel(struct part_in *d) { return xi_close(d->ch[0]); }
static int64_t remove_group(struct part_in *d) { return xi_group_remove(d->ch[0], "b"); }
static void group_b_of_nobody(struct part_in *t) {
    cast_open(t);
    must(xi_channel_free(t->ch[1]));
    t->ch[1] = NULL;
    t->reads[1] = false;
    cast_mixed(t);
}
/* What nobody receives in that group is held back by it until it ends. */
static void end_group_b(struct part_in *t) { (void)xi_group_remove(t->ch[0], "b"); }
static int64_t remove_channel(struct part_in *d) { return xi_remove(d->me, "c"); }
static int64_t set_remove(struct part_in *d) { return xi_set_remove(d->set, d->ch[0]); }
static void nothing(struct part_in *p) { (void)p; }
static int64_t ref_t(struct part_in *d) { return xi_ref(d->me, 1); }

/* -------------------------------------------------------------------- growing */

/* Seven long values, beside which there is no room for another. */
static void fill(struct part_in *p) {
    for (int n = LONG; n < LONG + 7; n++) must(put(p, 0, n));
}
static void q_full(struct part_in *t) {
    reader(t, 0, "c", &(xi_open_opts){.mode = XI_QUEUE, .grow = (uint64_t)1 << 20});
    ready(t);
    fill(t);
}
static int64_t send_grow(struct part_in *d) {
    uint64_t buffer[LONG_BYTES / 8 + 32];
    size_t size = encode(buffer, sizeof buffer, 18);
    return xi_send(d->ch[0], buffer, size, 20 * SECOND);
}
/* In a ring that is not the channel's own. */
static void d_has_grown(struct part_in *d) {
    d_queue(d);
    must(send_grow(d));
    for (int n = 0; n < 7; n++) take(d, 0, 0);
}
/* With a block in it. */
static void d_has_far_block(struct part_in *d) {
    d_has_grown(d);
    must(put(d, 0, 29));
    take(d, 0, 1);
}
/* And is drained, and was so a while ago: the next who looks moves home. */
static void d_has_drained(struct part_in *d) {
    struct timespec a_while = {0, 110000000};
    d_has_grown(d);
    take(d, 0, 1);
    must_fail(XI_E_AGAIN, xi_recv(d->ch[0], &d->msg[2], XI_TRY));
    nanosleep(&a_while, NULL); /* the time is the thing: the ring has been empty for so long */
}
#define LONGS " 10 11 12 13 14 15 16"

/* ------------------------------------------------------------ freeing, sets */

/* D's blocks are all released; it takes them back. */
static void d_sent_three(struct part_in *d) {
    d_sends_free(d);
    for (int n = 21; n < 24; n++) must(send_with(d, 0, n, d->free_index));
}
static void t_releases_all(struct part_in *t) {
    for (int i = 0; i < 3; i++) {
        take(t, 0, i);
        xi_msg_release(&t->msg[i]);
    }
}
static int64_t free_run(struct part_in *d) { return xi_free_run(d->me) == 3 ? 0 : XI_E_INVAL; }

static void d_set(struct part_in *d) {
    d_queue(d);
    must(xi_set_new(d->me, &d->set));
}
static int64_t set_add(struct part_in *d) { return xi_set_add(d->set, d->ch[0], XI_READY_RECV | XI_READY_SEND, 1, 0); }
static void d_set_added(struct part_in *d) {
    d_set(d);
    must(set_add(d));
}
static int64_t set_wait(struct part_in *d) {
    xi_event e[2];
    int64_t n = xi_set_wait(d->set, e, 2, XI_TRY);
    return n < 0 ? n : 0;
}
static int64_t set_free(struct part_in *d) {
    xi_set_free(d->set);
    return 0;
}

/* ------------------------------------------------------------------- sleeping */

static void sleeper_receives_first(struct part_in *w) {
    xi_msg m = XI_MSG_INIT;
    open_as(w, 0, "c", &fresh);
    must(xi_recv(w->ch[0], &m, XI_FOREVER));
}
void sleeper_receives(struct part_in *w) {
    xi_msg m = XI_MSG_INIT;
    open_as(w, 0, "c", &queue);
    must(xi_recv(w->ch[0], &m, XI_FOREVER));
}
static void sleeper_on_set(struct part_in *w) {
    xi_event e;
    open_as(w, 0, "c", &queue);
    must(xi_set_new(w->me, &w->set));
    must(xi_set_add(w->set, w->ch[0], XI_READY_RECV, 1, 0));
    must(xi_set_wait(w->set, &e, 1, XI_FOREVER));
}
void sleeper_sends(struct part_in *w) {
    open_as(w, 0, "c", &queue);
    uint64_t buffer[LONG_BYTES / 8 + 32];
    size_t size = encode(buffer, sizeof buffer, LONG);
    for (;;) must(xi_send(w->ch[0], buffer, size, XI_FOREVER));
}
static int64_t receive_or_sleep(struct part_in *d) {
    d->msg[0] = (xi_msg)XI_MSG_INIT;
    return xi_recv(d->ch[0], &d->msg[0], XI_FOREVER);
}
static void send_2(struct part_in *t) { give(t, 0, 2); }
/* The first of the two wakes who is stopped. */
static void send_2_and_3(struct part_in *t) {
    give(t, 0, 2);
    give(t, 0, 3);
}
static int64_t set_sleep(struct part_in *d) {
    xi_event e[2];
    int64_t n = xi_set_wait(d->set, e, 2, XI_FOREVER);
    return n < 0 ? n : 0;
}
static void d_set_receives(struct part_in *d) {
    d_set(d);
    must(xi_set_add(d->set, d->ch[0], XI_READY_RECV, 1, 0));
}
/* It sleeps for room; then there is some. */
static int64_t send_or_sleep(struct part_in *d) {
    uint64_t buffer[LONG_BYTES / 8 + 32];
    size_t size = encode(buffer, sizeof buffer, 18);
    return xi_send(d->ch[0], buffer, size, XI_FOREVER);
}
static void q_filled(struct part_in *t) {
    q_open(t);
    fill(t);
}
static void take_five(struct part_in *t) {
    for (int i = 0; i < 5; i++) take(t, 0, i);
}
static int64_t receive_five(struct part_in *d) {
    for (int i = 0; i < MESSAGES; i++) d->msg[i] = (xi_msg)XI_MSG_INIT;
    return xi_recv_many(d->ch[0], d->msg, 5, XI_TRY) == 5 ? 0 : XI_E_INVAL;
}

const struct scene scenes[] = {
    {"send", 0, q_small, d_queue, NULL, send_9, .outcome = {" 1 2 3", " 1 2 3 9"}, .orders = 4},
    {"send, groups", 0, cast_full, d_sends, NULL, send_9, .outcome = {" 1 22 3| 1 22 3", " 1 22 3 9| 1 22 3 9"}},
    {"send, expires", 0, q_small, d_queue, NULL, send_ttl, .outcome = {" 1 2 3", " 1 2 3 9"}},
    {"send a block", 0, q_mixed, d_queue, NULL, send_29, .outcome = {" 1 22 3", " 1 22 3 29"}, .orders = 4},
    {"send a block, groups", 0, cast_full, d_sends, NULL, send_29, .outcome = {" 1 22 3| 1 22 3", " 1 22 3 29| 1 22 3 29"}},
    {"send a block, free function", 0, q_small, d_sends_free, NULL, send_free, .outcome = {" 1 2 3", " 1 2 3 29"}},
    {"send a block, first arena", SCENE_BROKER, q_small, d_only_opens, NULL, send_29, .outcome = {" 1 2 3", " 1 2 3 29"}},
    {"send a loan", 0, q_small, d_loan, NULL, send_loan, .outcome = {" 1 2 3", " 1 2 3 29"}},
    {"send a batch", 0, q_small, d_queue, NULL, send_batch, .outcome = {" 1 2 3", " 1 2 3 7", " 1 2 3 7 8", " 1 2 3 7 8 9"}, .orders = 5},
    {"send to nobody", SCENE_NOT_SEND, nobody_hears, d_sends, NULL, send_29, .outcome = {""}},
    {"send, drop the oldest", SCENE_NOT_SEND, drops_small, d_queue, NULL, send_9, .outcome = {" 1 2", " 2", " 2 9"}},
    {"send, drop the oldest block", SCENE_NOT_SEND, drops, d_queue, NULL, send_29, .outcome = {" 21 2", " 2", " 2 29"}},
    {"send, keep the last", SCENE_KEEPS, retains, d_sends, NULL, send_29, .outcome = {" 1 2", " 1 2 29"}},
    {"send, keep the last, blocks", SCENE_KEEPS, retains_blocks, d_sends, NULL, send_29, .outcome = {"", " 29"}},

    {"send the first", 0, q_fresh, d_fresh, NULL, send_9, .outcome = {"", " 9"}},
    {"send the first, a block", 0, q_fresh, d_fresh_free, NULL, send_free, .outcome = {"", " 29"}},
    {"send the first, a batch", 0, q_fresh, d_fresh, NULL, send_batch, .outcome = {"", " 7", " 7 8", " 7 8 9"}},
    {"send the first, groups", 0, cast_fresh, d_sends, NULL, send_9, .outcome = {"|", " 9| 9"}},
    {"send the first, two die", SCENE_TWO, cast_fresh, d_sends_free, NULL, send_free, .outcome = {"|", " 29| 29"}},
    {"send the first, no memory", SCENE_NO_MEMORY, q_fresh, d_fresh, NULL, send_in_vain, .outcome = {"", " 9"}},
    {"receive the first", 0, q_fresh, d_fresh, send_2, receive, .outcome = {" 2", ""}},
    {"receive the first, a block", 0, q_fresh, d_fresh, send_22, receive, .outcome = {" 22", ""}},
    {"receive the first, no memory", SCENE_NO_MEMORY, q_fresh, d_fresh, send_2, receive_in_vain, .outcome = {" 2", ""}},
    {"receive the first to acknowledge", 0, ack_fresh, d_fresh_work, send_22, receive, .outcome = {" 22", " 22*2"}},
    {"receive where nothing was sent", SCENE_AGAIN, cast_fresh, d_fresh_group_a, NULL, receive, .outcome = {"|"}},
    {"join a group where nothing was sent", SCENE_BROKER, cast_fresh, nothing, NULL, open_fresh_listener, .outcome = {"|"}},
    {"sleep for the first", SCENE_NOT_SEND, q_fresh, d_fresh, NULL, receive_or_sleep, .outcome = {"", " 2", ""}, .meanwhile = send_2},
    {"wake a receiver by the first", SCENE_SLEEPER, q_fresh, d_fresh, NULL, send_9, .outcome = {"", " 9"}, .sleeper = sleeper_receives_first},

    {"receive", 0, q_small, d_queue, NULL, receive, .outcome = {" 1 2 3", " 2 3"}, .orders = 3},
    {"receive a block", 0, q_large, d_queue, NULL, receive, .outcome = {" 21 22", " 22"}, .orders = 4},
    {"receive a batch", 0, q_small, d_queue, NULL, receive_two, .outcome = {" 1 2 3", " 3"}},
    {"receive a batch with a block", 0, q_mixed, d_queue, NULL, receive_two, .outcome = {" 1 22 3", " 22 3", " 3"}},
    {"receive in one of two groups", 0, cast_full, d_group_a, NULL, receive_two,
     .outcome = {" 1 22 3| 1 22 3", " 22 3| 1 22 3", " 3| 1 22 3"}},
    {"receive in a group of its own", 0, cast_open, d_listens, cast_mixed, receive_two, .outcome = {" 1 22 3| 1 22 3"}},
    {"receive past an expired block", SCENE_LONG, q_expired, d_queue, NULL, receive, .outcome = {" 22 3", " 3"}},
    {"receive, bury what expired", SCENE_BROKER | SCENE_NOT_SEND, q_buries, d_queue, NULL, receive,
     .outcome = {" 2 3| 5 1", " 2 3| 5", " 2 3| 5 1", " 3| 5 1"}},
    {"release", 0, q_large, d_has_one, NULL, release, .outcome = {" 22"}, .orders = 1},

    {"receive to acknowledge", 0, ack_small, d_works, NULL, receive, .outcome = {" 1 2 3", " 1*2 2 3"}},
    {"receive a block to acknowledge", 0, ack_large, d_works, NULL, receive, .outcome = {" 21 22", " 21*2 22"}, .orders = 4},
    {"receive a batch to acknowledge", 0, ack_small, d_works, NULL, receive_two, .outcome = {" 1 2 3", " 1*2 2*2 3"}},
    {"receive again", 0, ack_again, d_works, NULL, receive, .outcome = {" 21*2 22", " 21*3 22"}},
    {"acknowledge", 0, ack_small, d_has_delivery, NULL, ack_first, .outcome = {" 1*2 2 3", " 2 3"}},
    {"acknowledge a block", 0, ack_large, d_has_delivery, NULL, ack_first, .outcome = {" 21*2 22", " 22"}, .orders = 2},
    {"acknowledge the second", 0, ack_large, d_has_two, NULL, ack_second, .outcome = {" 21*2 22*2", " 21*2"}},
    {"acknowledge the first of two", 0, ack_small, d_has_two, NULL, ack_first, .outcome = {" 1*2 2*2 3", " 2*2 3"}},
    {"acknowledge and read on", 0, ack_large, d_has_delivery, NULL, ack_keep, .outcome = {" 21*2 22", " 22"}},
    {"release what was read on", 0, ack_large, d_keeps, NULL, release, .outcome = {" 22"}},
    {"release unacknowledged", 0, ack_large, d_has_delivery, NULL, release, .outcome = {" 21*2 22"}},
    {"give back", 0, ack_small, d_has_delivery, NULL, nack_first, .outcome = {" 1*2 2 3"}},
    {"give back and read on", 0, ack_large, d_has_delivery, NULL, nack_keep, .outcome = {" 21*2 22"}},
    {"give back for later", 0, ack_small, d_has_delivery, NULL, nack_for_long, .outcome = {" 1*2 2 3", " 2 3"}},
    {"receive what is overdue", SCENE_LONG, ack_overdue, d_works_hastily, NULL, receive, .outcome = {" 21*2 22", " 21*3 22"}},
    {"receive and end a group", SCENE_BROKER, cast_open, d_listens_to_acknowledge, cast_mixed, take_two_and_close,
     .outcome = {" 1 22 3| 1 22 3"}},
    {"extend", SCENE_ALL_KILLS, ack_small, d_has_delivery, NULL, extend, .outcome = {" 1*2 2 3"}},
    {"move a dead letter", SCENE_LONG | SCENE_BROKER | SCENE_NOT_SEND | SCENE_AGAIN, letters_small, d_works_once, NULL, receive, .outcome = {"~2| 5 1"}},
    {"move a dead block", SCENE_BROKER | SCENE_NOT_SEND | SCENE_AGAIN, letters_large, d_works_once, NULL, receive, .outcome = {"~2| 5 21"}},
    {"receive past an expired block to acknowledge", 0, works_too_late, d_works, NULL, receive, .outcome = {" 22~1", " 22*2~1"}},
    {"receive past a spent block", SCENE_BROKER, spent, d_works_in_vain, NULL, receive, .outcome = {" 22~1", "~2"}},

    {"take a request", 0, t_calls, d_queue, NULL, receive, .outcome = {" 1=101", "=DIED"}, .orders = 3},
    {"reply", SCENE_BROKER, t_calls, d_serves, NULL, reply, .outcome = {"=DIED", "=55"}},
    {"reply, acknowledge", SCENE_LONG | SCENE_BROKER, t_calls_acks, d_serves_acks, NULL, reply, .outcome = {" 1*2=101", " 1*2=55", "=55"}},
    {"send, drop a request", SCENE_BROKER | SCENE_NOT_SEND, t_calls_in_vain, d_queue, NULL, send_9,
     .outcome = {" 1 2=101", " 2=DIED", " 2 9=DIED"}},
    {"release a request", 0, t_calls, d_serves, NULL, release, .outcome = {"=DIED"}},
    {"call", SCENE_BROKER, q_small, d_calls, NULL, call_begin, .outcome = {" 1 2 3"}},
    {"cancel a call", SCENE_BROKER, q_small, d_has_called, NULL, call_cancel, .outcome = {" 1 2 3"}},

    {"join", SCENE_BROKER | SCENE_STEPS_BROKER | SCENE_UNJOINED, q_small, nothing, NULL, join, .outcome = {" 1 2 3"}},
    {"leave", SCENE_BROKER, q_mixed, nothing, NULL, leave, .outcome = {" 1 22 3"}},
    {"leave with much", SCENE_BROKER, q_large, d_busy, NULL, leave, .outcome = {" 22 29"}},
    {"refer", SCENE_BROKER, q_small, nothing, NULL, ref_t, .outcome = {" 1 2 3"}},
    {"open", SCENE_BROKER, q_small, nothing, NULL, open_old, .outcome = {" 1 2 3"}},
    {"open anew", SCENE_BROKER, q_small, nothing, NULL, open_new, .outcome = {" 1 2 3"}},
    {"join a group", SCENE_BROKER, cast_full, nothing, NULL, open_listener, .outcome = {" 1 22 3| 1 22 3"}},
    {"join a group in the middle", SCENE_BROKER, cast_full, nothing, NULL, open_group_at_oldest, .outcome = {" 1 22 3| 1 22 3"}, .orders = 2},
    {"join a group to acknowledge", SCENE_BROKER, cast_full, nothing, NULL, open_acks, .outcome = {" 1 22 3| 1 22 3"}},
    {"join late", SCENE_LONG | SCENE_BROKER | SCENE_KEEPS, retains_blocks, nothing, NULL, open_late, .outcome = {""}},
    {"leave a group", SCENE_BROKER, cast_open, d_listens, cast_mixed, close_handle, .outcome = {" 1 22 3| 1 22 3"}},
    {"close a handle", SCENE_BROKER, q_mixed, d_has_one, NULL, close_handle, .outcome = {" 22 3"}},
    {"close a handle with deliveries", SCENE_BROKER, ack_large, d_has_two, NULL, close_handle, .outcome = {" 21*2 22*2"}},
    {"close the channel", SCENE_NOT_SEND, q_small, d_queue, NULL, close_channel, .outcome = {" 1 2 3", " 1 2 3."}},
    {"remove a group", 0, group_b_of_nobody, d_sends, NULL, remove_group, .outcome = {" 1 22 3"}, .after = end_group_b},
    {"remove the channel", SCENE_BROKER | SCENE_NOT_SEND | SCENE_NOT_RECEIVE, q_mixed, d_queue, NULL, remove_channel, .outcome = {" 1 22 3", "!"}},

    {"send, grow", SCENE_BROKER | SCENE_NOT_SEND, q_full, d_queue, NULL, send_grow, .outcome = {LONGS, LONGS " 18"}, .orders = 5},
    {"send in a ring that has grown", SCENE_BROKER, q_full, d_has_grown, NULL, send_29, .outcome = {" 18", " 18 29"}},
    {"receive in a ring that has grown", SCENE_BROKER, q_full, d_has_grown, NULL, receive, .outcome = {" 18", ""}},
    {"receive a block in a ring that has grown", SCENE_BROKER, q_full, d_has_far_block, NULL, receive, .outcome = {" 29", ""}},
    {"move home", SCENE_BROKER | SCENE_AGAIN, q_full, d_has_drained, NULL, receive, .outcome = {""}},

    {"die with much", SCENE_BROKER | SCENE_DIES, q_large, d_busy, NULL, NULL, .outcome = {" 22 29"}},
    {"die with deliveries", SCENE_BROKER | SCENE_DIES, ack_large, d_has_two, NULL, NULL, .outcome = {" 21*2 22*2"}},
    {"die with a group", SCENE_BROKER | SCENE_DIES, cast_open, d_listens, cast_mixed, NULL, .outcome = {" 1 22 3| 1 22 3"}},

    {"send, two die", SCENE_TWO, cast_open, d_sends, cast_mixed, send_29, .outcome = {" 1 22 3| 1 22 3", " 1 22 3 29| 1 22 3 29"}},
    {"receive, two die", SCENE_TWO, cast_open, d_group_a, cast_mixed, receive_two,
     .outcome = {" 1 22 3| 1 22 3", " 22 3| 1 22 3", " 3| 1 22 3"}},
    {"receive and end a group, two die", SCENE_TWO | SCENE_BROKER, cast_open, d_listens_to_acknowledge, cast_mixed, take_two_and_close,
     .outcome = {" 1 22 3| 1 22 3"}},

    {"run free functions", 0, q_open, d_sent_three, t_releases_all, free_run, .outcome = {""}},
    {"add to a set", 0, q_small, d_set, NULL, set_add, .outcome = {" 1 2 3"}},
    {"wait on a set", 0, q_small, d_set_added, NULL, set_wait, .outcome = {" 1 2 3"}},
    {"free a set", 0, q_small, d_set_added, NULL, set_free, .outcome = {" 1 2 3"}},
    {"remove from a set", 0, q_small, d_set_added, NULL, set_remove, .outcome = {" 1 2 3"}},
    {"sleep", 0, q_open, d_queue, NULL, receive_or_sleep, .outcome = {"", " 2", ""}, .meanwhile = send_2},
    {"sleep for room", SCENE_NOT_SEND, q_filled, d_queue, NULL, send_or_sleep, .outcome = {LONGS, " 15 16", " 15 16 18"}, .meanwhile = take_five},
    {"sleep on a set", 0, q_open, d_set_receives, NULL, set_sleep, .outcome = {"", " 2"}, .meanwhile = send_2},
    {"wake a receiver", SCENE_SLEEPER, q_open, d_queue, NULL, send_9, .outcome = {"", " 9"}, .sleeper = sleeper_receives},
    {"mark and wake a set", SCENE_SLEEPER, q_open, d_queue, NULL, send_9, .outcome = {"", " 9"}, .sleeper = sleeper_on_set},
    {"wake a sender", SCENE_SLEEPER | SCENE_NOT_SEND, q_open, d_queue, NULL, receive_five, .outcome = {" 10 10 10 10 10 10 10", " 10 10"}, .sleeper = sleeper_sends},
    {"sleep beside a sleeper", SCENE_SLEEPER, q_open, d_queue, NULL, receive_or_sleep, .outcome = {"", " 2 3", " 3"},
     .sleeper = sleeper_receives, .meanwhile = send_2_and_3},
};
const unsigned scene_count = sizeof scenes / sizeof *scenes;
