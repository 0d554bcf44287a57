/* SPDX-License-Identifier: MIT */
/*
 * Where values go that nobody receives: those that were delivered too often in
 * vain, and those whose time is over. They are sent on to a channel of their own,
 * as a dict that says why, opened by the library when the first one comes.
 *
 * The value is copied, and the buffers that it refers to with it, into the
 * sender's arena: a dead letter does not depend on whoever sent it first. What
 * lay in another's memory may have changed while it was copied, so it is looked
 * at as a whole afterwards; a value that is none goes as the bytes that it was.
 */
#include <stdlib.h>

#include "ack.h"

/*
 * The channel of that name, opened to send; kept for as long as the handle. One that was removed has another in its place, and is
 * kept nevertheless: another thread may be sending through it.
 */
static int letters_channel(struct xi_channel *ch, enum xi_letters which, struct xi_channel **out) {
    struct xi_channel *known = atomic_load_explicit(&ch->letters[which], memory_order_acquire), *fresh = NULL;
    const char *name = which == XI_LETTERS_EXPIRED ? ch->dead : ch->ack->dead;
    xi_open_opts opts = {.flags = XI_OPEN_SEND};
    *out = known;
    if (known && xi_load_acquire(&known->chan->closed) != XI_CHAN_REMOVED) return 0;
    int rc = xi_open(ch->interp, name, &opts, &fresh);
    if (rc) return rc;
    fresh->former = known;
    *out = fresh;
    if (!atomic_compare_exchange_strong(&ch->letters[which], &known, fresh)) { /* another thread was first */
        (void)xi_channel_free(fresh);
        *out = known;
    }
    return 0;
}

void xi_letters_close(struct xi_channel *ch) {
    for (unsigned i = 0; i < XI_LETTER_KINDS; i++)
        for (struct xi_channel *to = atomic_exchange(&ch->letters[i], NULL), *former; to; to = former) {
            former = to->former;
            (void)xi_channel_free(to);
        }
}

/* ------------------------------------------------------------- the dict */

static int put_letter(xi_builder *b, const struct xi_channel *ch, const struct xi_letter *l, const void *value, size_t size,
                      bool raw) {
    xi_begin(b, XI_DICT, 5);
    xi_put_utf8(b, "reason");
    xi_put_utf8(b, l->reason);
    xi_put_utf8(b, "channel");
    xi_put_utf8(b, ch->name);
    xi_put_utf8(b, "group");
    /* A name may be any bytes that a C program gave. */
    if (xi_check_text(XI_UTF8, 0, l->group, strlen(l->group)) == 0) xi_put_utf8(b, l->group);
    else xi_put_bytes(b, l->group, strlen(l->group));
    xi_put_utf8(b, "deliveries");
    xi_put_int(b, l->deliveries);
    xi_put_utf8(b, "value");
    if (raw) xi_put_bytes(b, value, size);
    else xi_put_value(b, value, size);
    return xi_end(b);
}

/* Size of the letter in *out; `raw` becomes true where the value cannot even be begun to be read. */
static int measure(const struct xi_channel *ch, const struct xi_letter *l, const xi_msg *m, bool *raw, uint32_t *flags,
                   size_t *out) {
    xi_builder *b = malloc(sizeof *b);
    if (!b) return xi_fail(XI_E_NOMEM, "no memory for a dead letter");
    *flags = m->size > UINT32_MAX / 2 ? XI_BUILD_LONG : 0;
    int64_t total = -1;
    for (int tries = 0; tries < 2 && total < 0; tries++, *raw |= total < 0) {
        xi_builder_init(b, NULL, 0, *flags);
        (void)put_letter(b, ch, l, m->data, m->size, *raw);
        total = xi_builder_finish(b);
    }
    free(b);
    if (total < 0) return (int)total;
    *out = (size_t)total;
    return 0;
}

/* Writes the letter into memory of our own. 0, or CORRUPT: the value is not well-formed, and must go as bytes. */
static int write_letter(const struct xi_channel *ch, const struct xi_letter *l, const xi_msg *m, bool raw, uint32_t flags,
                        void *to, size_t size) {
    xi_builder *b = malloc(sizeof *b);
    if (!b) return xi_fail(XI_E_NOMEM, "no memory for a dead letter");
    xi_builder_init(b, to, size, flags);
    (void)put_letter(b, ch, l, m->data, m->size, raw);
    int64_t total = xi_builder_finish(b);
    free(b);
    if (total < 0 || (size_t)total != size || xi_validate(to, size) != 0) return XI_E_CORRUPT;
    return 0;
}

/* ------------------------------------------------------------- its buffers */

/* Copies one buffer that the value refers to into a block of our own, which goes with `root`, and refers to that. */
static int copy_buffer(struct xi_interp *me, const xi_msg *m, struct xi_block *root, uint8_t *at, const xi_buffer_ref *ref) {
    const void *from;
    struct xi_block *b;
    int rc = xi_msg_buffer(m, ref, &from);
    if (rc == 0) rc = xi_arena_alloc(me, ref->length ? ref->length : 1, &b);
    if (rc) return rc;
    memcpy(xi_block_data(b), from, ref->length);
    uint64_t words[4] = {(uint64_t)b->segment->number | (uint64_t)b->granule << 32, b->generation, 0, ref->length};
    memcpy(at + 8, words, sizeof words); /* as xi_put_buffer() writes it; the size stays */
    xi_arena_attach(me, root, b);
    return 0;
}

/*
 * Goes through all values of a letter that is well-formed and our own. Calls
 * copy_buffer() for each buffer, or where `root` is NULL returns 1 at the first.
 */
static int each_buffer(struct xi_interp *me, const xi_msg *m, struct xi_block *root, void *letter, size_t size) {
    xi_cursor level[XI_DEPTH_MAX + 2];
    xi_value v;
    unsigned depth = 0;
    xi_cursor_init(&level[0], letter, size);
    for (;;) {
        uint8_t *at = (uint8_t *)(uintptr_t)level[depth].at;
        int rc = xi_next(&level[depth], &v);
        if (rc < 0) return rc;
        if (rc == 0) {
            if (depth == 0) return 0;
            depth--;
            continue;
        }
        if (v.tag == XI_BUFFER) {
            rc = root ? copy_buffer(me, m, root, at, &v.u.buffer) : 1;
            if (rc) return rc;
        } else if (v.tag >= XI_TUPLE && depth <= XI_DEPTH_MAX && xi_enter(&v, &level[depth + 1]) == 0) {
            depth++;
        }
    }
}

/* ---------------------------------------------------------------- sending */

/* In a block, with its buffers. */
static int send_in_block(struct xi_channel *to, struct xi_channel *ch, const xi_msg *m, const struct xi_letter *l, bool raw,
                         uint32_t flags, size_t size) {
    struct xi_interp *me = ch->interp;
    struct xi_block *root;
    int rc = xi_arena_alloc(me, size, &root);
    if (rc) return rc;
    rc = write_letter(ch, l, m, raw, flags, xi_block_data(root), size);
    if (rc == 0 && !raw) rc = each_buffer(me, m, root, xi_block_data(root), size);
    if (rc == 0) rc = xi_send_letter(to, NULL, size, root, l->due, l->count);
    if (rc) xi_arena_free(me, root);
    return rc;
}

/* 1: it has buffers, so it must go in a block. */
static int send_inline(struct xi_channel *to, struct xi_channel *ch, const xi_msg *m, const struct xi_letter *l, bool raw,
                       size_t size) {
    uint64_t *letter = malloc(size);
    if (!letter) return xi_fail(XI_E_NOMEM, "no memory for a dead letter");
    int rc = write_letter(ch, l, m, raw, 0, letter, size);
    if (rc == 0 && !raw) rc = each_buffer(ch->interp, m, NULL, letter, size);
    if (rc == 0) rc = xi_send_letter(to, letter, size, NULL, l->due, l->count);
    free(letter);
    return rc;
}

static int send_as(struct xi_channel *to, struct xi_channel *ch, const xi_msg *m, const struct xi_letter *l, bool raw) {
    uint32_t flags = 0;
    size_t size = 0;
    int rc = measure(ch, l, m, &raw, &flags, &size);
    if (rc) return rc;
    rc = size <= to->inline_max ? send_inline(to, ch, m, l, raw, size) : 1;
    if (rc == 1) rc = send_in_block(to, ch, m, l, raw, flags, size);
    return rc;
}

/* What may be otherwise another time. */
static bool passes(int rc) {
    return rc == XI_E_AGAIN || rc == XI_E_TIMEOUT || rc == XI_E_INTR || rc == XI_E_NOMEM || rc == XI_E_NOSPACE ||
           rc == XI_E_REMOVED || rc == XI_E_QUOTA || rc == XI_E_BROKER || rc == XI_E_LIMIT || rc == XI_E_LEFT || rc == XI_E_ENDING;
}

int xi_letter_send(struct xi_channel *ch, enum xi_letters which, const xi_msg *m, const struct xi_letter *l) {
    struct xi_channel *to = NULL;
    int rc = letters_channel(ch, which, &to);
    if (rc == 0 && !xi_log_has_room(to, sizeof(struct xi_descriptor) + XI_REC_EXTRA_MAX)) rc = XI_E_AGAIN;
    if (rc == 0) rc = send_as(to, ch, m, l, false);
    if (rc == XI_E_CORRUPT) rc = send_as(to, ch, m, l, true);
    return passes(rc) ? XI_E_AGAIN : rc;
}

void xi_bury_expired(struct xi_channel *ch, xi_msg *m) {
    if (ch->dead[0]) {
        char group[32];
        memcpy(group, ch->group->name, sizeof group);
        group[sizeof group - 1] = 0;
        const struct xi_letter l = {"expired", group, 0, NULL, NULL};
        /* Where it cannot be sent on it vanishes: it was counted, and its time was over. */
        (void)xi_letter_send(ch, XI_LETTERS_EXPIRED, m, &l);
    }
    xi_msg_reset(m);
}
