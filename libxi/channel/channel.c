/* SPDX-License-Identifier: MIT */
/* Handles: opening, closing, freeing, and declaring them to a new broker. */
#include "channel.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../wire/names.h"

/* What a new channel is to be like. */
static int check_terms(const char *name, const xi_open_opts *o) {
    if (o->grow > XI_GROW_MAX)
        return xi_fail(XI_E_TOOBIG, "a ring that may grow to %llu bytes is more than %llu", (unsigned long long)o->grow,
                       (unsigned long long)XI_GROW_MAX);
    if (o->grow && o->grow < (o->capacity ? o->capacity : XI_CAPACITY_DEFAULT))
        return xi_fail(XI_E_INVAL, "a ring of %llu bytes cannot grow to %llu: give `grow` at least the capacity, or 0",
                       (unsigned long long)(o->capacity ? o->capacity : XI_CAPACITY_DEFAULT), (unsigned long long)o->grow);
    if (o->ttl_ns < 0)
        return xi_fail(XI_E_INVAL, "a time to live of %lld ns is none: 0 is for ever", (long long)o->ttl_ns);
    if (o->when_full > XI_FULL_DROP)
        return xi_fail(XI_E_INVAL, "when_full %u is none of XI_FULL_BLOCK, XI_FULL_FAIL and XI_FULL_DROP", o->when_full);
    if (o->dead && !xi_channel_name_valid(o->dead, XI_NAME_MAX))
        return xi_fail(XI_E_INVAL, "`dead` names a channel: 1 to %d bytes of UTF-8 without control characters", XI_NAME_MAX);
    if (o->dead && strcmp(o->dead, name) == 0)
        return xi_fail(XI_E_INVAL, "channel \"%s\" cannot be its own channel for expired values", name);
    return 0;
}

static int check_open(const xi_interp *me, const char *name, const xi_open_opts *o) {
    if (!me) return xi_fail(XI_E_INVAL, "xi_open needs an interpreter: xi_join() first");
    if (!xi_alive(me)) return xi_fail_forked();
    if (!xi_channel_name_valid(name, XI_NAME_MAX))
        return xi_fail(XI_E_INVAL, "a channel's name is 1 to %d bytes of UTF-8 without control characters", XI_NAME_MAX);
    if (o->mode > XI_BROADCAST) return xi_fail(XI_E_INVAL, "mode %u is neither XI_QUEUE nor XI_BROADCAST", o->mode);
    if (o->flags & ~(XI_OPEN_SEND | XI_OPEN_RECV | XI_OPEN_EXISTING | XI_OPEN_NEED_PEER) ||
        (o->flags & (XI_OPEN_SEND | XI_OPEN_RECV)) == (XI_OPEN_SEND | XI_OPEN_RECV))
        return xi_fail(XI_E_INVAL, "flags 0x%x: XI_OPEN_SEND or XI_OPEN_RECV, not both, XI_OPEN_EXISTING, and "
                       "XI_OPEN_NEED_PEER", o->flags);
    if (o->capacity > XI_CAPACITY_MAX)
        return xi_fail(XI_E_TOOBIG, "a capacity of %llu bytes is more than %llu", (unsigned long long)o->capacity,
                       (unsigned long long)XI_CAPACITY_MAX);
    return check_terms(name, o);
}

/* Looks the names up: numbers alone go to the broker. */
static int ask_access(const xi_open_opts *o, struct xi_request *req) {
    return o->access ? xi_access_parse(o->access, true, req->access) : 0;
}

static void list_add(struct xi_interp *me, struct xi_channel *ch) {
    pthread_mutex_lock(&me->channels_mutex);
    ch->next = me->channels;
    me->channels = ch;
    pthread_mutex_unlock(&me->channels_mutex);
}

static void list_remove(void *handle) {
    struct xi_channel *ch = handle;
    struct xi_interp *me = ch->interp;
    pthread_mutex_lock(&me->channels_mutex);
    struct xi_channel **p = &me->channels;
    while (*p && *p != ch) p = &(*p)->next;
    if (*p) *p = ch->next;
    pthread_mutex_unlock(&me->channels_mutex);
}

/* Fills the handle from the mapping: checked copies of the static fields, which are not read again. */
static void use_mapping(struct xi_channel *ch, const struct xi_reply *r) {
    struct xi_chan *c = ch->entry->map.base;
    const struct xi_chan_fixed *f = ch->entry->fixed;
    ch->chan = c;
    ch->home = (struct xi_view){.ring = (uint8_t *)c + XI_RING_OFFSET,
                                .mask = f->capacity - 1,
                                .capacity = f->capacity};
    ch->send_view = ch->receive_view = xi_no_ring;
    atomic_init(&ch->look_ring, xi_no_ring.ring);
    atomic_init(&ch->look_mask, 0);
    if (!atomic_load(&ch->entry->bare)) {
        (void)xi_home_back(ch); /* it is */
        ch->send_view = ch->receive_view = ch->home;
    }
    ch->inline_max = f->inline_max;
    ch->max_values = f->max_values;
    ch->grow_max = f->grow_max;
    ch->ttl_ns = f->ttl_ns;
    ch->fast_max = f->ttl_ns || f->max_values || f->retain ? 0 : ch->inline_max;
    ch->retain = f->retain;
    ch->when_full = f->when_full;
    memcpy(ch->dead, f->dead, sizeof ch->dead);
    ch->segment = (uint32_t)r->b;
    ch->id = r->a;
    ch->mode = XI_OPENED_MODE(r->c);
    ch->rights = XI_OPENED_RIGHTS(r->c);
    ch->shared = XI_OPENED_SHARED(r->c);
    ch->lock_word = XI_LOCK_OF(ch->interp->slot);
    xi_spin_init(&ch->send_spin, ch->interp->spin_ns);
    ch->receive_spin = ch->send_spin;
}

static void close_request(struct xi_request *req, uint64_t id, uint32_t flags) {
    xi_request_init(req, XI_OP_CLOSE);
    req->a = id;
    req->c = flags & (XI_OPEN_SEND | XI_OPEN_RECV);
}

/* Which connection counts a handle that was just opened. */
struct counted {
    struct xi_interp *me;
    uint64_t connection;
};

static void note_connection(void *arg) {
    struct counted *c = arg;
    c->connection = c->me->control.connection;
}

/* From now on the next broker is told of it. False: there is one already that was not. */
static bool list_counted(struct xi_channel *ch, uint64_t connection) {
    pthread_mutex_lock(&ch->interp->control.mutex);
    bool counted = ch->interp->control.connection == connection;
    if (counted) list_add(ch->interp, ch);
    pthread_mutex_unlock(&ch->interp->control.mutex);
    return counted;
}

/* 0: it is open and listed; 1: mapped, but no longer counted; or an error. */
static int open_at_broker(struct xi_channel *ch, const xi_open_opts *o) {
    struct xi_request req;
    struct xi_reply r;
    int fd;
    xi_request_init(&req, XI_OP_OPEN);
    memcpy(req.name, ch->name, sizeof req.name);
    req.a = o->mode;
    req.b = o->capacity;
    req.c = o->flags;
    req.d = o->values;
    req.e = o->grow;
    req.f = (uint64_t)o->ttl_ns;
    req.g = o->retain;
    req.h = o->when_full;
    if (o->dead) memcpy(req.other, o->dead, strlen(o->dead));
    struct counted c = {ch->interp, 0};
    int rc = ask_access(o, &req);
    if (rc == 0) rc = xi_control_call_noted(ch->interp, &req, &r, &fd, 1, note_connection, &c);
    if (rc) return rc;
    rc = fd < 0 ? xi_fail(XI_E_BROKER, "the broker answered without a descriptor")
                : xi_maps_channel(ch->interp, (uint32_t)r.b, fd, &ch->entry);
    if (fd >= 0) close(fd);
    if (rc) {
        struct xi_said why;
        xi_error_keep(&why);
        close_request(&req, r.a, ch->flags);
        xi_control_undo(ch->interp, &req, (struct xi_around){.connection = c.connection});
        xi_error_restore(&why);
        return rc;
    }
    use_mapping(ch, &r);
    return list_counted(ch, c.connection) ? 0 : 1;
}

/*
 * A new broker may have been told what this process has open between the old one's answer and now, and of this handle it was
 * not: it is opened anew then.
 */
static int open_counted(struct xi_channel *ch, const xi_open_opts *o) {
    int rc;
    while ((rc = open_at_broker(ch, o)) == 1) {
        xi_maps_put(ch->entry);
        ch->entry = NULL;
    }
    return rc;
}

static int open_handle(xi_interp *me, const char *name, const xi_open_opts *o, xi_channel **out) {
    int rc = check_open(me, name, o);
    if (rc) return rc;
    struct xi_channel *ch = calloc(1, sizeof *ch);
    if (!ch) return xi_fail(XI_E_NOMEM, "no memory for a channel handle");
    ch->interp = me;
    ch->flags = o->flags;
    ch->can_send = !(o->flags & XI_OPEN_RECV);
    ch->need_peer = o->flags & XI_OPEN_NEED_PEER;
    ch->sends_plainly = ch->can_send && !ch->need_peer;
    ch->serves = true;
    ch->group_index = XI_NO_GROUP;
    atomic_init(&ch->holders, 1);
    memcpy(ch->name, name, strlen(name));
    rc = open_counted(ch, o);
    if (rc) {
        free(ch);
        return rc;
    }
    xi_interp_hold(me);
    if (!(o->flags & XI_OPEN_SEND)) rc = xi_group_join(ch, o->group, o->group_opts);
    if (rc) {
        struct xi_said why;
        xi_error_keep(&why);
        (void)xi_channel_free(ch);
        xi_error_restore(&why);
        return rc;
    }
    *out = ch;
    return 0;
}

static int fail_reserved(const char *name) {
    return xi_fail(XI_E_INVAL, "channel \"%s\": names that begin with " XI_LANE_PREFIX " are those of replies to calls", name);
}

int xi_open(xi_interp *me, const char *name, const xi_open_opts *opts, xi_channel **out) {
    static const xi_open_opts none;
    if (!out) return xi_fail(XI_E_INVAL, "xi_open needs a place for the handle");
    if (name && xi_lane_named(name)) return fail_reserved(name);
    return open_handle(me, name, opts ? opts : &none, out);
}

int xi_open_inner(struct xi_interp *me, const char *name, const xi_open_opts *o, struct xi_channel **out) {
    int rc = open_handle(me, name, o, out);
    if (rc == 0) xi_interp_drop(me);
    return rc;
}

void xi_channel_close_inner(struct xi_channel *ch) {
    xi_interp_hold(ch->interp);
    (void)xi_channel_free(ch);
}

void xi_channel_free_inner(struct xi_channel *ch) {
    free(ch->flights);
    free(ch);
}

/* Rings for whoever sleeps on this handle; others that are rung look, and sleep again. Caller holds channels_mutex. */
static void shut(struct xi_channel *ch) {
    struct xi_interp *me = ch->interp;
    atomic_store(&ch->freeing, true);
    if (atomic_load(&ch->waiting))
        for (uint32_t i = 0; i < XI_BELLS_USABLE; i++) (void)xi_bell_ring(&me->mailbox->bells[i]);
}

int xi_channel_shut(xi_channel *ch) {
    if (!xi_alive(ch->interp)) return xi_fail_forked();
    pthread_mutex_lock(&ch->interp->channels_mutex);
    bool left = atomic_load(&ch->interp->left);
    if (!left) shut(ch);
    pthread_mutex_unlock(&ch->interp->channels_mutex);
    if (!left) xi_sets_forget(ch);
    return 0;
}

/* And waits until they have gone. */
static void send_home(struct xi_channel *ch) {
    struct xi_interp *me = ch->interp;
    pthread_mutex_lock(&me->channels_mutex);
    shut(ch);
    while (atomic_load(&ch->waiting)) pthread_cond_wait(&me->idle, &me->channels_mutex);
    atomic_store(&ch->alone, true);
    pthread_mutex_unlock(&me->channels_mutex);
}

static void drop(void *ch) { xi_channel_drop(ch); }

int xi_channel_free(xi_channel *ch) {
    if (!ch) return 0;
    struct xi_interp *me = ch->interp;
    if (!xi_alive(me) || atomic_load(&me->left)) {
        xi_letters_close(ch);
        xi_channel_drop(ch);
        return 0;
    }
    send_home(ch);
    xi_sets_forget(ch);
    if (ch->group_is_own) xi_group_end(ch);
    else if (ch->ack) xi_ack_close(ch);
    xi_letters_close(ch);
    xi_channel_flush(ch);
    xi_ring_tell(ch);
    xi_interp_hold(me);
    struct xi_request req;
    close_request(&req, ch->id, ch->flags);
    xi_control_undo(me, &req, (struct xi_around){.before = list_remove, .meanwhile = drop, .arg = ch});
    xi_interp_drop(me);
    return 0;
}

void xi_channel_drop(struct xi_channel *ch) {
    if (atomic_fetch_sub(&ch->holders, 1) != 1) return;
    struct xi_interp *me = ch->interp;
    if (xi_alive(me) && ch->entry) { /* not where leaving has taken them already */
        xi_views_drop(ch);
        xi_maps_put(ch->entry);
    }
    xi_ack_free(ch);
    free(ch->flights);
    free(ch);
    xi_interp_drop(me);
}

void xi_channels_detach(struct xi_interp *me) {
    pthread_mutex_lock(&me->channels_mutex);
    for (struct xi_channel *ch = me->channels; ch; ch = ch->next) {
        atomic_store(&ch->freeing, true);
        xi_channel_flush(ch);
        xi_views_drop(ch);
        xi_maps_put(ch->entry);
        ch->entry = NULL;
        ch->chan = NULL;
    }
    me->channels = NULL;
    pthread_mutex_unlock(&me->channels_mutex);
}

int xi_declare_channels(struct xi_interp *me) {
    struct xi_request req;
    struct xi_reply r;
    int rc = 0;
    pthread_mutex_lock(&me->channels_mutex);
    for (struct xi_channel *ch = me->channels; ch && rc == 0; ch = ch->next) {
        xi_request_init(&req, XI_OP_OPEN);
        memcpy(req.name, ch->name, sizeof req.name);
        req.a = ch->mode;
        req.b = ch->id;
        req.c = XI_OPEN_EXISTING | XI_WIRE_ADOPT | (ch->flags & (XI_OPEN_SEND | XI_OPEN_RECV));
        rc = xi_control_exchange(me, &req, &r, NULL, 0);
        if (rc == XI_E_NOENT && xi_load_acquire(&ch->chan->closed) == XI_CHAN_REMOVED) rc = 0; /* and gone by now */
        else if (rc == 0 && r.a != ch->id) rc = xi_fail(XI_E_MISMATCH, "channel \"%s\" is another one now", ch->name);
    }
    pthread_mutex_unlock(&me->channels_mutex);
    return rc;
}

int xi_fail_closed(const struct xi_channel *ch) {
    if (xi_load_acquire(&ch->chan->closed) == XI_CHAN_REMOVED)
        return xi_fail(XI_E_REMOVED, "channel \"%s\" was removed, with what was in it", ch->name);
    return xi_fail(XI_E_CLOSED, "channel \"%s\" is closed", ch->name);
}

int xi_fail_ended(const struct xi_channel *ch) {
    if (xi_load_acquire(&ch->chan->closed) == XI_CHAN_REMOVED) return xi_fail_closed(ch);
    return xi_fail(XI_E_LEFT, "the group that this handle of channel \"%s\" receives for has ended", ch->name);
}

/* As xi_channel_check(), for what is not on the way of a value: a channel that was removed is an error at once. */
static int check_there(const struct xi_channel *ch) {
    int rc = xi_channel_check(ch);
    return rc == 0 && xi_load_acquire(&ch->chan->closed) == XI_CHAN_REMOVED ? xi_fail_closed(ch) : rc;
}

int xi_close(xi_channel *ch) {
    uint32_t open = XI_CHAN_OPEN;
    int rc = check_there(ch);
    if (rc == 0 && !(ch->rights & XI_ACCESS_WRITE))
        return xi_fail(XI_E_ACCESS, "channel \"%s\" is another user's: who may only receive from it cannot close it", ch->name);
    if (rc == 0) rc = xi_lock(ch, ch->chan, XI_LOCK_ABANDON_NS);
    if (rc) return rc;
    (void)xi_cas32_full(&ch->chan->closed, &open, XI_CHAN_CLOSED); /* the broker may remove it meanwhile */
    xi_unlock(ch->chan);
    xi_wake_everybody(ch);
    return 0;
}

int xi_remove(xi_interp *me, const char *name) {
    struct xi_request req;
    struct xi_reply reply;
    if (!me) return xi_fail(XI_E_INVAL, "xi_remove needs an interpreter: xi_join() first");
    if (!xi_channel_name_valid(name, XI_NAME_MAX))
        return xi_fail(XI_E_INVAL, "a channel's name is 1 to %d bytes of UTF-8 without control characters", XI_NAME_MAX);
    if (xi_lane_named(name)) return fail_reserved(name);
    if (!xi_alive(me)) return xi_fail_forked(); /* whose child has no registry to look into */
    xi_request_init(&req, XI_OP_REMOVE);
    memcpy(req.name, name, strlen(name));
    /* This one: if its broker dies over it and another is opened by that name, the next broker is not to remove that. */
    req.a = xi_observer_channel_named(me->observer, name);
    return xi_control_call(me, &req, &reply, NULL, 0);
}

void xi_channel_flush(struct xi_channel *ch) {
    struct xi_counters *c = &ch->interp->own->counters;
    uint64_t sent = xi_load_relaxed(&ch->sent), received = xi_load_relaxed(&ch->received);
    xi_add_relaxed(&c->sent, sent - ch->sent_told);
    xi_add_relaxed(&c->received, received - ch->received_told);
    ch->sent_told = sent;
    ch->received_told = received;
}

void xi_channels_flush(struct xi_interp *me) {
    pthread_mutex_lock(&me->channels_mutex);
    for (struct xi_channel *ch = me->channels; ch; ch = ch->next) xi_channel_flush(ch);
    pthread_mutex_unlock(&me->channels_mutex);
}

int xi_channel_stat(xi_channel *ch, xi_channel_info *out) {
    int rc = check_there(ch);
    if (rc) return rc;
    memset(out, 0, sizeof *out);
    out->id = ch->id;
    memcpy(out->name, ch->name, sizeof out->name);
    out->mode = ch->mode;
    out->capacity = ch->home.capacity;
    out->producers = xi_load_relaxed(&ch->chan->producers);
    out->consumers = xi_load_relaxed(&ch->chan->consumers);
    out->handles = xi_observer_handles(ch->interp->observer, ch->id);
    out->grow = ch->grow_max;
    xi_channel_read_stat(ch->chan, out);
    out->shared_with_others = ch->shared;
    xi_observer_read_access(ch->interp->observer, ch->id, out);
    return 0;
}

int64_t xi_channel_groups(xi_channel *ch, xi_group_info *out, size_t capacity) {
    int rc = check_there(ch);
    if (rc == 0 && capacity && !out) rc = xi_fail(XI_E_INVAL, "xi_channel_groups needs a place for the groups");
    return rc ? rc : xi_channel_read_groups(ch->chan, out, capacity);
}

const char *xi_channel_name(const xi_channel *ch) { return ch->name; }
bool xi_channel_shared(const xi_channel *ch) { return ch->shared; }
xi_interp *xi_channel_interp(const xi_channel *ch) { return ch->interp; }
size_t xi_inline_max(const xi_channel *ch) { return ch->inline_max; }
