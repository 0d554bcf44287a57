/* SPDX-License-Identifier: MIT */
/*
 * Sending: a small value is copied into the ring, a large one into a block of the
 * arena (or built there by the caller, as a loan), whose descriptor is the record.
 */
#include <string.h>

#include "log.h"

#define BATCH 64

static int no_consumer(const struct xi_channel *ch) {
    if (xi_load_acquire(&ch->chan->closed)) return xi_fail_closed(ch);
    return xi_fail(XI_E_NO_CONSUMER, "nobody has channel \"%s\" open to receive", ch->name);
}

/* A handle that may not send, or not to nobody. */
static int check_special_sender(const struct xi_channel *ch) {
    if (!ch->can_send) return xi_fail(XI_E_INVAL, "this handle of channel \"%s\" was opened to receive only", ch->name);
    int rc = xi_channel_check(ch);
    return rc || xi_has_consumers(ch) ? rc : no_consumer(ch);
}

static inline int check_sender(const struct xi_channel *ch) {
    return __builtin_expect(ch->sends_plainly, 1) ? xi_channel_check(ch) : check_special_sender(ch);
}

static inline int check_value(const void *value, size_t size) {
    if (__builtin_expect(value && size >= 8 && size % 8 == 0, 1)) return 0;
    return xi_fail(XI_E_INVAL, "an encoded value has 8 bytes at least and a multiple of 8, not %zu%s", size,
                   value ? "" : ", and is not at NULL");
}

/* Under the lock: where the request will be, if this attempt succeeds. */
static void note_call(const struct xi_channel *ch, const struct xi_record *r) {
    if (__builtin_expect(!r->calling, 1)) return;
    r->calling->position = xi_load_relaxed(&ch->chan->tail);
    r->calling->number = xi_load_relaxed(&ch->chan->tail_seq) + 1;
}

/* One attempt for up to n records: how many, 0 for no room (*want says what it lacks), or an error. */
static int64_t append(struct xi_channel *ch, const struct xi_record *r, size_t n, struct xi_sending *s, struct xi_want *want,
                      int64_t timeout) {
    int rc = xi_lock_send(ch, timeout);
    if (__builtin_expect(rc != 0, 0)) return rc;
    note_call(ch, r);
    int64_t done = xi_log_append(ch, r, n, s, want);
    bool far = ch->send_view.word != 0;
    xi_unlock_send(ch);
    if (done > 0) xi_wake_consumers(ch, (uint64_t)done);
    if (__builtin_expect(far && done > 0, 0)) (void)xi_ring_look(ch);
    return done;
}

#define DROP_ROUNDS 1000 /* of preparing what by then others have dropped: more cannot be by chance */

/* The same, and the oldest values make room. 0: they cannot, and *kept says why. */
static int64_t append_dropping(struct xi_channel *ch, const struct xi_record *r, size_t n, struct xi_sending *s,
                               struct xi_want *want, int64_t timeout, const char **kept) {
    struct xi_drops d = {.count = 0};
    int64_t done = 0;
    int rc = 1;
    for (int round = 0; round < DROP_ROUNDS && done == 0 && rc == 1; round++) {
        rc = xi_lock_send(ch, timeout);
        if (rc) break;
        note_call(ch, r); /* others may have sent since the last attempt */
        done = xi_log_append(ch, r, n, s, want);
        if (done == 0) rc = xi_drop_oldest(ch, want, &d);
        if (done == 0 && rc == 1) done = xi_log_append(ch, r, n, s, want);
        xi_unlock_send(ch);
        if (done == 0 && rc == XI_E_AGAIN && (rc = xi_drops_settle(ch, &d, true)) == 0) rc = 1;
    }
    (void)xi_drops_settle(ch, &d, false);
    if (done > 0) xi_wake_consumers(ch, (uint64_t)done);
    *kept = d.kept;
    return done ? done : rc < 0 ? rc : 0;
}

/* When a value that is sent now expires; 0: never. `ttl`: as in xi_send_opts. */
static uint64_t expiry(const struct xi_channel *ch, int64_t ttl) {
    if (ttl == 0) ttl = ch->ttl_ns;
    return ttl > 0 ? (uint64_t)xi_now() + (uint64_t)ttl : 0;
}

/* `at`, where not 0, is kept by the caller for as long as the record. */
static void record_expires(struct xi_record *r, const uint64_t *at) {
    if (!*at) return;
    r->flags |= XI_REC_F_EXPIRY;
    r->extra = at;
    r->extra_length = sizeof *at;
}

/* And who calls; `words` are kept as long as the record. In the order that wire/layout.h gives. */
static void record_calls(struct xi_record *r, struct xi_calling *calling, uint64_t words[3]) {
    if (!calling) return;
    r->calling = calling;
    words[0] = (uint64_t)calling->ref.slot | (uint64_t)calling->ref.index << 32;
    words[1] = calling->ref.generation;
    if (r->extra) words[2] = *(const uint64_t *)r->extra;
    r->flags |= XI_REC_F_CALL;
    r->extra = words;
    r->extra_length += sizeof calling->ref;
}

static const char *why_full(struct xi_channel *ch, const struct xi_want *want, const char *kept) {
    if (kept) return kept;
    if (want->lack == XI_LACK_VALUES) return "it holds as many values as it may";
    if (want->lack == XI_LACK_BLOCKS) return "as many large values of this handle are under way as may be";
    return ch->grow_max ? xi_ring_refusal(ch) : "its slowest group does not keep up";
}

/* A call needs somebody to serve it, whatever the handle was opened as. */
static bool nobody_to_serve(void *ch) { return xi_load_full(&((struct xi_channel *)ch)->chan->consumers) == 0; }

static int still_full(struct xi_channel *ch, const struct xi_want *want, const char *kept) {
    return xi_fail(XI_E_TIMEOUT, "channel \"%s\" was full all the time: %s", ch->name, why_full(ch, want, kept));
}

/* No room: waits for it, until the deadline. */
static int wait_for_room(struct xi_channel *ch, const struct xi_record *r, const struct xi_want *want, const char *kept,
                         int64_t timeout, int64_t deadline, bool *in) {
    struct xi_also also = {.ready = nobody_to_serve, .context = ch};
    if (!xi_has_consumers(ch) || (r->calling && nobody_to_serve(ch))) return no_consumer(ch);
    if (timeout == XI_TRY || ch->when_full == XI_FULL_FAIL)
        return xi_fail(XI_E_AGAIN, "channel \"%s\" is full: %s", ch->name, why_full(ch, want, kept));
    int rc = xi_wait_for_room(ch, want, deadline, r->calling ? &also : NULL, in);
    return rc == XI_E_TIMEOUT ? still_full(ch, want, kept) : rc;
}

/*
 * True if another thread or process is making the ring larger, and there is something to look at again. Nothing is dropped or
 * refused because two found the channel full at once. `until`: 0 at first.
 */
static bool wait_for_growth(struct xi_channel *ch, const struct xi_want *want, int64_t timeout, int64_t *until, bool *in) {
    bool waits = timeout != XI_TRY && ch->when_full == XI_FULL_BLOCK; /* it will, and looks again by itself */
    if (waits || !xi_ring_another_grows(ch)) return false;
    if (*until == 0) *until = xi_deadline(timeout > 0 && timeout < XI_LOCK_PATIENCE_NS ? timeout : XI_LOCK_PATIENCE_NS);
    if (xi_now() >= *until) return false;
    int rc = xi_wait_for_room(ch, want, *until, NULL, in);
    return rc == 0 || rc == XI_E_INTR;
}

#define GROW_ROUNDS 1000 /* in a row, after which a send is as good as any that finds no room: each doubles the ring, or another did */

static int64_t try_to_send(struct xi_channel *ch, const struct xi_record *r, size_t n, struct xi_sending *s, int64_t timeout,
                           bool *waited, bool *in) {
    int64_t deadline = XI_TRY;
    unsigned grown = 0, orphans = 0;
    int64_t growing = 0;
    xi_free_poll(ch->interp);
    for (;;) {
        struct xi_want want = {.lack = XI_LACK_NONE};
        const char *kept = NULL;
        int64_t left = deadline == XI_TRY ? timeout : xi_left(deadline), done = append(ch, r, n, s, &want, left);
        if (done == 0 && timeout != XI_TRY && deadline == XI_TRY) deadline = xi_deadline(timeout);
        if (done == 0 && orphans < XI_MAX_GROUPS && xi_group_end_orphan(ch)) {
            orphans++;
            continue;
        }
        if (done == 0 && want.lack == XI_LACK_BYTES && ch->grow_max) {
            int rc = xi_ring_grow(ch, &want, left);
            if (rc == 1 && grown++ < GROW_ROUNDS) continue;
            if (rc < 0) return rc;
            if (rc == 0 && wait_for_growth(ch, &want, left, &growing, in)) continue;
        }
        if (done == 0 && ch->when_full == XI_FULL_DROP) done = append_dropping(ch, r, n, s, &want, left, &kept);
        if (__builtin_expect(done != 0, 1)) return done;
        if (*waited && deadline > 0 && xi_now() >= deadline) return still_full(ch, &want, kept);
        int rc = wait_for_room(ch, r, &want, kept, timeout, deadline, in);
        if (rc) return rc;
        *waited = true;
    }
}

/* `in`: see xi_wait_side(); here and in all that sends. */
static int64_t send_records(struct xi_channel *ch, const struct xi_record *r, size_t n, struct xi_sending *s, int64_t timeout,
                            bool *in) {
    bool waited = false;
    int64_t done = try_to_send(ch, r, n, s, timeout, &waited, in);
    if (waited) xi_pass_on(ch, XI_SIDE_PRODUCERS); /* after an error too: the ring was for room that is still there */
    return done;
}

/* `calling`: NULL, or this is a request or a reply. */
static int send_block(struct xi_channel *ch, struct xi_block *b, size_t size, const xi_send_opts *o,
                      struct xi_calling *calling, bool *in) {
    struct xi_descriptor d = {b->segment->number, b->granule, b->generation, size, ch->interp->slot, 0};
    struct xi_record r = {&d, sizeof d, XI_REC_BLOCK, o->free_index ? XI_REC_F_FREE : 0, 0, NULL, NULL};
    struct xi_sending s = {.block = b, .free_index = o->free_index, .free_argument = o->free_argument};
    uint64_t at = expiry(ch, o->ttl_ns), words[3];
    record_expires(&r, &at);
    record_calls(&r, calling, words);
    int64_t done = send_records(ch, &r, 1, &s, o->timeout, in);
    if (done < 0) return (int)done;
    /* Nobody listens: nobody else will tell us that it is free. */
    if (o->free_index && xi_load_relaxed(&ch->chan->active) == 0) xi_tell_owner(ch->interp, ch->interp->slot);
    return 0;
}

static int send_copy_in_block(struct xi_channel *ch, const void *value, size_t size, const xi_send_opts *o,
                              struct xi_calling *calling, bool *in) {
    struct xi_block *b;
    int rc = xi_arena_alloc(ch->interp, size, &b);
    if (rc) return rc;
    memcpy(xi_block_data(b), value, size);
    rc = send_block(ch, b, size, o, calling, in);
    if (rc) xi_arena_free(ch->interp, b);
    return rc;
}

int xi_send_letter(struct xi_channel *ch, const void *value, size_t size, struct xi_block *root, xi_a64 *number,
                   xi_a64 *place) {
    struct xi_sending s = {.block = root, .number = number};
    struct xi_descriptor d;
    struct xi_record r = {value, (uint32_t)size, XI_REC_INLINE, 0, 0, NULL, NULL};
    uint64_t at = expiry(ch, 0);
    if (root) {
        d = (struct xi_descriptor){root->segment->number, root->granule, root->generation, size, ch->interp->slot, 0};
        r = (struct xi_record){&d, sizeof d, XI_REC_BLOCK, 0, 0, NULL, NULL};
    }
    record_expires(&r, &at);
    if (place) xi_store_release(place, (uint64_t)ch->segment << 32 | (uint32_t)xi_load_relaxed(place));
    bool in = false; /* and so it stays: this does not wait */
    int64_t done = send_records(ch, &r, 1, &s, XI_TRY, &in);
    return done < 0 ? (int)done : 0;
}

/* A value without a free function, not the fast way. */
static int send_plainly(struct xi_channel *ch, const void *value, size_t size, const xi_send_opts *o,
                        struct xi_calling *calling, bool *in) {
    if (size > ch->inline_max) return send_copy_in_block(ch, value, size, o, calling, in);
    struct xi_record r = {value, (uint32_t)size, XI_REC_INLINE, 0, 0, NULL, NULL};
    uint64_t at = expiry(ch, o->ttl_ns), words[3];
    record_expires(&r, &at);
    record_calls(&r, calling, words);
    int64_t done = send_records(ch, &r, 1, NULL, o->timeout, in);
    return done < 0 ? (int)done : 0;
}

#define RUN 64 /* values that one holding of the lock may take */

/* The usual case: the lock is free, there is room. How many values were sent, from the first on; 0: nothing was done. */
XI_INLINE size_t send_run(struct xi_channel *ch, const void *const *values, const size_t *sizes, size_t n) {
    xi_free_poll(ch->interp);
    if (!xi_try_lock_send(ch)) return 0;
    size_t sent = xi_log_append_run(ch, values, sizes, n < RUN ? n : RUN);
    xi_unlock_send(ch);
    if (sent) xi_wake_consumers(ch, sent);
    return sent;
}

static int check_free_index(struct xi_interp *me, uint32_t index) {
    if (index <= me->frees.count) return 0;
    return xi_fail(XI_E_NOENT, "free function %u is not registered in this interpreter", index);
}

int xi_send(xi_channel *ch, const void *value, size_t size, int64_t timeout) {
    int rc = check_sender(ch);
    if (rc == 0) rc = check_value(value, size);
    if (__builtin_expect(rc != 0, 0)) return rc;
    if (__builtin_expect(size <= ch->fast_max && send_run(ch, &value, &size, 1), 1)) return 0;
    bool in = false;
    rc = send_plainly(ch, value, size, &(xi_send_opts){.timeout = timeout}, NULL, &in);
    if (in) xi_wait_exit(ch);
    return rc;
}

int xi_send_ex(xi_channel *ch, const void *value, size_t size, const xi_send_opts *opts) {
    if (!opts || (!opts->free_index && !opts->ttl_ns)) return xi_send(ch, value, size, opts ? opts->timeout : XI_FOREVER);
    int rc = check_sender(ch);
    if (rc == 0) rc = check_value(value, size);
    if (rc == 0) rc = check_free_index(ch->interp, opts->free_index);
    if (rc) return rc;
    bool in = false;
    /* With a free function in a block, however small: release words are what tells that every group is done with it. */
    rc = (opts->free_index ? send_copy_in_block : send_plainly)(ch, value, size, opts, NULL, &in);
    if (in) xi_wait_exit(ch);
    return rc;
}

int xi_send_int(xi_channel *ch, int64_t v, int64_t timeout) {
    _Alignas(8) uint8_t buffer[16];
    if (v == (int32_t)v) {
        uint64_t w = XI_INT32 | (uint64_t)(uint32_t)(int32_t)v << 32;
        memcpy(buffer, &w, 8);
        return xi_send(ch, buffer, 8, timeout);
    }
    uint64_t head = XI_INT64 | (uint64_t)16 << 32;
    memcpy(buffer, &head, 8);
    memcpy(buffer + 8, &v, 8);
    return xi_send(ch, buffer, 16, timeout);
}

/* The longest run of inline values from the first on, up to BATCH. */
static size_t gather(struct xi_channel *ch, const void *const *values, const size_t *sizes, size_t n, struct xi_record *r,
                     const uint64_t *at) {
    size_t k = 0;
    for (; k < n && k < BATCH && sizes[k] <= ch->inline_max; k++) {
        r[k] = (struct xi_record){values[k], (uint32_t)sizes[k], XI_REC_INLINE, 0, 0, NULL, NULL};
        record_expires(&r[k], at);
    }
    return k;
}

static int64_t send_many(struct xi_channel *ch, const void *const *values, const size_t *sizes, size_t n, int64_t timeout,
                         bool *in) {
    struct xi_record r[BATCH];
    size_t sent = 0;
    int64_t deadline = timeout > 0 ? xi_deadline(timeout) : timeout;
    while (sent < n) {
        size_t run = sizes[sent] <= ch->fast_max ? send_run(ch, values + sent, sizes + sent, n - sent) : 0;
        sent += run;
        if (run) continue;
        uint64_t at = expiry(ch, 0);
        size_t k = gather(ch, values + sent, sizes + sent, n - sent, r, &at);
        int64_t left = deadline > 0 ? xi_left(deadline) : timeout, done;
        if (k) {
            done = send_records(ch, r, k, NULL, left, in);
        } else {
            int rc = send_copy_in_block(ch, values[sent], sizes[sent], &(xi_send_opts){.timeout = left}, NULL, in);
            done = rc ? rc : 1;
        }
        if (done < 0) return sent ? (int64_t)sent : done;
        sent += (size_t)done;
    }
    return (int64_t)sent;
}

int64_t xi_send_many(xi_channel *ch, const void *const *values, const size_t *sizes, size_t n, int64_t timeout) {
    bool in = false;
    int rc = check_sender(ch);
    for (size_t i = 0; rc == 0 && i < n; i++) rc = check_value(values[i], sizes[i]);
    if (rc) return rc;
    int64_t sent = send_many(ch, values, sizes, n, timeout, &in);
    if (in) xi_wait_exit(ch);
    return sent;
}

/* ----------------------------------------------------------------- loans */

int xi_loan_get(xi_interp *me, size_t size, xi_loan *out) {
    if (!me || !out) return xi_fail(XI_E_INVAL, "xi_loan_get needs an interpreter and a place for the loan");
    if (!xi_alive(me)) return xi_fail_forked();
    struct xi_block *b;
    int rc = xi_arena_alloc(me, size ? size : 1, &b);
    if (rc) return rc;
    *out = (xi_loan){xi_block_data(b), b->size, {b->segment->number, b->granule, b->generation}, b, me};
    return 0;
}

void xi_loan_drop(xi_loan *loan) {
    if (loan->block_ && xi_alive(loan->owner_)) xi_arena_free(loan->owner_, loan->block_);
    *loan = (xi_loan){0};
}

int xi_loan_attach(xi_loan *root, xi_loan *child) {
    if (!root->block_ || !child->block_ || root->owner_ != child->owner_ || root->block_ == child->block_)
        return xi_fail(XI_E_INVAL, "xi_loan_attach needs two different loans of one interpreter");
    if (!xi_alive(root->owner_)) return xi_fail_forked();
    xi_arena_attach(root->owner_, root->block_, child->block_);
    *child = (xi_loan){0};
    return 0;
}

int xi_loan_detach(xi_loan *root, const xi_handle *handle, xi_loan *child) {
    if (!root->block_ || !handle || !child) return xi_fail(XI_E_INVAL, "xi_loan_detach needs a loan, a handle and a place");
    if (!xi_alive(root->owner_)) return xi_fail_forked();
    struct xi_block *b = xi_arena_detach(root->owner_, root->block_, handle->segment, handle->granule, handle->generation);
    if (!b) return xi_fail(XI_E_INVAL, "no such block is attached to that loan");
    *child = (xi_loan){xi_block_data(b), b->size, *handle, b, root->owner_};
    return 0;
}

int xi_loan_hold(const xi_loan *loan, xi_hold *out) {
    if (!loan->block_ || !out) return xi_fail(XI_E_INVAL, "xi_loan_hold needs a loan and a place for the hold");
    if (!xi_alive(loan->owner_)) return xi_fail_forked();
    xi_arena_hold(loan->owner_, loan->block_);
    *out = (xi_hold){loan->block_, loan->owner_};
    return 0;
}

void xi_hold_drop(xi_hold *hold) {
    if (hold->block_ && xi_alive(hold->owner_)) xi_arena_unhold(hold->owner_, hold->block_);
    *hold = (xi_hold){0};
}

static int send_loan(xi_channel *ch, xi_loan *loan, size_t size, const xi_send_opts *o, struct xi_calling *calling, bool *in) {
    int rc = check_value(loan->data, size);
    if (rc == 0) rc = check_free_index(ch->interp, o->free_index);
    if (rc) return rc;
    if (loan->owner_ != ch->interp)
        return xi_fail(XI_E_INVAL, "the loan is of another interpreter than the handle of channel \"%s\"", ch->name);
    if (size > loan->size) return xi_fail(XI_E_TOOBIG, "a value of %zu bytes is not in a loan of %zu", size, loan->size);
    rc = send_block(ch, loan->block_, size, o, calling, in);
    if (rc == 0) *loan = (xi_loan){0};
    return rc;
}

int xi_send_loan(xi_channel *ch, xi_loan *loan, size_t size, const xi_send_opts *opts) {
    int rc = check_sender(ch);
    if (rc) return rc;
    bool in = false;
    rc = send_loan(ch, loan, size, opts ? opts : &(xi_send_opts){.timeout = XI_FOREVER}, NULL, &in);
    if (in) xi_wait_exit(ch);
    return rc;
}

/* ---------------------------------------------------- requests and replies */

int xi_send_call(struct xi_channel *ch, const void *value, size_t size, xi_loan *loan, const xi_send_opts *o,
                 struct xi_calling *calling, bool *in) {
    int rc = check_sender(ch);
    if (rc == 0 && nobody_to_serve(ch)) rc = no_consumer(ch);
    if (rc) return rc;
    if (loan) return send_loan(ch, loan, size, o, calling, in);
    rc = check_value(value, size);
    return rc ? rc : send_plainly(ch, value, size, o, calling, in);
}
