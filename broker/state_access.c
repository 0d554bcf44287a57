/* SPDX-License-Identifier: MIT */
/*
 * Who may do what in a namespace that is open to other users than its own.
 *
 * A channel is its maker's user's; others may what its list allows. What an
 * interpreter has opened decides which segments of other users it gets:
 *
 *   arena, release words  who has opened a channel to receive, of those who have
 *                         opened it to send
 *   mailbox               of those with whom it has opened a channel
 *   channel and what      who has opened it
 *   belongs to it
 *   own, borrow table     nobody else, whatever user
 *
 * "Opened" is for ever, or until the channel goes: a value received may be read
 * after the handle was closed. Among one user's own processes nothing is
 * checked, because the kernel does not keep those apart either. Whoever may have
 * a segment is in docs/architecture.md, "Users", with what that lets them do.
 */
#include "state_internal.h"

uint32_t access_to(const struct state *st, const struct xi_who *who, const struct chan *ch) {
    return !st->open || who->uid == ch->uid ? XI_ACCESS_BOTH : xi_access_of(ch->access, who);
}

uint32_t access_asked(uint64_t flags) {
    return flags & XI_OPEN_SEND ? XI_ACCESS_WRITE : flags & XI_OPEN_RECV ? XI_ACCESS_READ : XI_ACCESS_BOTH;
}

bool access_allows(struct state *st, const struct conn *conn, const struct chan *ch, uint64_t flags) {
    uint32_t may = access_to(st, &conn->who, ch), asked = access_asked(flags);
    if ((may & asked) == asked) return true;
    if (may == XI_ACCESS_READ)
        refuse(st, XI_E_ACCESS, "channel \"%s\" is user %u's, and user %u may only receive from it: open it with XI_OPEN_RECV",
               ch->name, ch->uid, conn->who.uid);
    else if (may == XI_ACCESS_WRITE)
        refuse(st, XI_E_ACCESS, "channel \"%s\" is user %u's, and user %u may only send to it: open it with XI_OPEN_SEND",
               ch->name, ch->uid, conn->who.uid);
    else
        refuse(st, XI_E_ACCESS, "channel \"%s\" is user %u's, and not open to user %u", ch->name, ch->uid, conn->who.uid);
    return false;
}

bool access_shared(const struct state *st, const struct chan *ch, uint32_t uid) {
    return st->open && (ch->uid != uid || xi_access_names_others(ch->access, uid));
}

bool access_takes(struct state *st, const struct xi_request *q) {
    if (!xi_access_valid(q->access))
        refuse(st, XI_E_INVAL, "the list of who may do what with channel \"%s\" is none", q->name);
    else if (!st->open && q->access[0].kind != XI_ACCESS_NONE)
        refuse(st, XI_E_INVAL,
               "channel \"%s\" cannot be opened to other users: the namespace is private; start its broker with --open-to",
               q->name);
    else
        return true;
    return false;
}

void access_note(struct state *st, struct interp *me, uint32_t index, uint32_t rights) {
    if (!st->open) return;
    uint64_t *known = table_put(&me->opened, st->chans[index].id);
    if ((*known | rights) == *known) return;
    *known |= rights;
    struct action *a = emit_slot(st, ACTION_NOTE, slot_of(st, me));
    a->index = index;
    a->rights = rights;
}

void access_forget(struct state *st, uint32_t index) {
    if (!st->open) return;
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++)
        if (st->interps[i].life != INTERP_FREE) table_drop(&st->interps[i].opened, st->chans[index].id);
    emit(st, ACTION_FORGET)->index = index;
}

/* True if there is a channel that `me` has opened for `mine` and the other for `others`. */
static bool met(const struct interp *me, uint32_t mine, const struct interp *other, uint32_t others) {
    bool swap = other->opened.count < me->opened.count;
    const struct table *few = swap ? &other->opened : &me->opened, *many = swap ? &me->opened : &other->opened;
    uint32_t in_few = swap ? others : mine, in_many = swap ? mine : others;
    uint64_t channel, rights;
    for (uint32_t at = 0; table_next(few, &at, &channel, &rights);) {
        const uint64_t *found = rights & in_few ? table_find(many, channel) : NULL;
        if (found && *found & in_many) return true;
    }
    return false;
}

bool access_to_segment(const struct state *st, const struct interp *me, uint32_t number) {
    const uint64_t *found = table_find(&st->segments, number);
    if (!st->open || !found) return found != NULL;
    uint32_t kind = SEGMENT_KIND(*found), place = SEGMENT_PLACE(*found);
    if (kind == XI_SEG_CHANNEL || kind == XI_SEG_ACKS || kind == XI_SEG_RING)
        return table_find(&me->opened, st->chans[place].id) != NULL;
    if (place >= XI_MAX_INTERPS) return false;
    const struct interp *owner = &st->interps[place];
    if (owner->uid == me->uid) return true;
    switch (kind) {
    case XI_SEG_ARENA:
    case XI_SEG_RELEASE: return met(me, XI_ACCESS_READ, owner, XI_ACCESS_WRITE);
    case XI_SEG_MAILBOX: return met(me, XI_ACCESS_BOTH, owner, XI_ACCESS_BOTH);
    default: return false;
    }
}

bool access_to_life(const struct state *st, uint32_t uid, uint32_t target) {
    return !st->open || uid == target || uid == st->owner;
}

bool access_to_shutdown(const struct state *st, uint32_t uid) { return !st->open || uid == st->owner; }

/* Who looks on may see the registry, and the counters of what is theirs to read. The namespace's owner sees all. */
static bool may_observe(const struct state *st, const struct conn *conn, uint32_t number) {
    const uint64_t *found = table_find(&st->segments, number);
    if (!found) return false;
    uint32_t kind = SEGMENT_KIND(*found), place = SEGMENT_PLACE(*found);
    if (kind != XI_SEG_CHANNEL && kind != XI_SEG_OWN) return false;
    if (!st->open || conn->who.uid == st->owner) return true;
    if (kind == XI_SEG_OWN) return st->interps[place].uid == conn->who.uid;
    return access_to(st, &conn->who, &st->chans[place]) & XI_ACCESS_READ;
}

void request_observe(struct state *st, const struct conn *conn, const struct xi_request *q) {
    if (q->a && (q->a > UINT32_MAX || !table_find(&st->segments, q->a)))
        refuse(st, XI_E_NOENT, "segment %08llx is gone", (unsigned long long)q->a);
    else if (q->a && !may_observe(st, conn, (uint32_t)q->a))
        refuse(st, XI_E_ACCESS, "segment %08llx is not for user %u to look at", (unsigned long long)q->a, conn->who.uid);
    else
        answer(st, q->a, 0, 0, 0);
}
