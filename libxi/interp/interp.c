/* SPDX-License-Identifier: MIT */
/*
 * Joining and leaving, references, and what happens at fork.
 *
 * A forked child has its parent's memory but none of its shared mappings
 * (MADV_DONTFORK). One page that the kernel wipes in the child (MADV_WIPEONFORK)
 * holds the number of this process's life; every handle remembers the life it
 * was made in, so that one load tells a stale one.
 */
#include "interp.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../channel/channel.h"
#include "../wait/pollring.h"
#include "../wait/sleep.h"
#include "../wire/names.h"

static const _Atomic uint32_t no_life;
const _Atomic uint32_t *xi_life_page = &no_life;
static _Atomic uint32_t *life_page;
static uint32_t lives;

static pthread_mutex_t process_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct xi_interp *interps; /* of this process, newest first */
static _Atomic(struct xi_interp *) first;

int xi_fail_forked(void) {
    return xi_fail(XI_E_FORKED, "this handle is from before fork(), and the parent's alone: join again in the child");
}

static void forked(void) {
    pthread_mutex_init(&process_mutex, NULL);
    interps = NULL; /* the parent's; their handles stay readable, so that using one is an error and not a crash */
    atomic_store(&first, NULL);
    xi_maps_forked();
    xi_pollring_forked();
}

/* Makes the page on first need, and gives a forked child a life of its own. */
static int live(uint32_t *life) {
    if (!life_page) {
        void *page = mmap(NULL, XI_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) return xi_fail_errno(errno, "cannot map a page");
        int err = madvise(page, XI_PAGE, MADV_WIPEONFORK) != 0 ? errno : pthread_atfork(NULL, NULL, forked);
        if (err) {
            munmap(page, XI_PAGE);
            if (err != EINVAL) return xi_fail_errno(err, "cannot be told of forks");
            return xi_fail(XI_E_SYSTEM, "this kernel cannot tell a forked child (MADV_WIPEONFORK, Linux 4.14)");
        }
        life_page = page;
        xi_life_page = page;
    }
    if (xi_load_relaxed(life_page) == 0) xi_store_relaxed(life_page, ++lives);
    *life = xi_load_relaxed(life_page);
    return 0;
}

static void set_text(char out[32], const char *text, const char *otherwise) {
    if (!text || !text[0]) text = otherwise;
    size_t n = strnlen(text, 31);
    while (n > 0 && n == 31 && ((unsigned char)text[n] & 0xc0) == 0x80) n--; /* not in the middle of a character */
    memcpy(out, text, n);
    out[n] = 0;
}

static int set_options(struct xi_interp *me, const xi_join_opts *o) {
    static const xi_join_opts none;
    if (!o) o = &none;
    int rc = xi_place_parse(o->ns, &me->place);
    if (rc) return rc;
    if (o->flags & ~(XI_JOIN_REQUIRES_REF | XI_JOIN_MANUAL_FREE | XI_JOIN_NO_START | XI_JOIN_NO_SPIN))
        return xi_fail(XI_E_INVAL, "unknown flags 0x%x in xi_join_opts", o->flags);
    set_text(me->name, o->name, program_invocation_short_name);
    set_text(me->language, o->language, "c");
    me->flags = o->flags;
    me->spin_ns = o->flags & XI_JOIN_NO_SPIN ? -1 : o->spin_ns;
    struct xi_spin spin;
    xi_spin_init(&spin, me->spin_ns);
    me->control.soon.limit = xi_soon_limit(spin.limit);
    return 0;
}

static int map_own(struct xi_interp *me, const struct xi_reply *r, const int *fds) {
    struct xi_expect own = {.kind = XI_SEG_OWN, .number = (uint32_t)r->c, .epoch = me->epoch}, mail = {.kind = XI_SEG_MAILBOX, .number = (uint32_t)r->d, .epoch = me->epoch};
    int rc = xi_segment_map(fds[1], true, true, &own, &me->own_map);
    if (rc == 0) rc = xi_segment_map(fds[2], true, true, &mail, &me->mailbox_map);
    if (rc == 0 && (me->own_map.size < XI_OWN_SIZE || me->mailbox_map.size < XI_MAILBOX_SIZE))
        rc = xi_fail(XI_E_MISMATCH, "the broker of namespace \"%s\" makes smaller segments; use one version of xidata", me->place.text);
    me->own = me->own_map.base;
    me->mailbox = me->mailbox_map.base;
    return rc;
}

static int say_hello(struct xi_interp *me) {
    struct xi_request req;
    struct xi_reply r;
    int fds[3] = {-1, -1, -1};
    xi_request_init(&req, XI_OP_JOIN);
    req.a = me->flags;
    memcpy(req.name, me->name, sizeof me->name);
    memcpy(req.text, me->language, sizeof me->language);
    int rc = XI_E_BROKER;
    for (int attempt = 0; attempt < 3 && rc == XI_E_BROKER; attempt++) { /* a broker may die under us: the next one then */
        rc = xi_control_connect(me, true);
        if (rc) break;
        rc = xi_control_exchange(me, &req, &r, fds, 3);
    }
    if (rc == 0 && (fds[0] < 0 || fds[1] < 0 || fds[2] < 0 || r.b == 0 || r.b >= XI_MAX_INTERPS))
        rc = xi_fail(XI_E_BROKER, "the broker answered nonsense to a join");
    if (rc == 0) {
        rc = xi_observe_fd(&me->place, fds[0], &me->observer);
        fds[0] = -1;
    }
    if (rc == 0) {
        me->registry = xi_observer_registry(me->observer);
        me->epoch = me->registry->seg.epoch;
        if (me->registry->flags & XI_NS_OPEN) xi_place_spell(&me->place);
        me->id = (int64_t)r.a;
        me->slot = (uint32_t)r.b;
        rc = map_own(me, &r, fds);
    }
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0) close(fds[i]);
    return rc;
}

static void destroy(struct xi_interp *me) {
    bool alive = xi_alive(me);
    xi_calls_free(me);
    xi_arena_deinit(me);
    if (me->own) xi_borrows_deinit(me);
    xi_frees_deinit(me);
    xi_bells_deinit(&me->bells);
    if (alive) {
        xi_unmap(&me->own_map);
        xi_unmap(&me->mailbox_map);
        xi_maps_forget(me->epoch);
    }
    xi_control_close(me);
    xi_observer_free(me->observer);
    pthread_mutex_destroy(&me->control.mutex);
    pthread_mutex_destroy(&me->channels_mutex);
    pthread_mutex_destroy(&me->sets.mutex);
    pthread_mutex_destroy(&me->calls_mutex);
    pthread_cond_destroy(&me->idle);
    free(me->control.given.segment);
    free(me->refs);
    free(me);
}

void xi_interp_hold(struct xi_interp *me) { atomic_fetch_add(&me->references, 1); }
void xi_interp_drop(struct xi_interp *me) {
    if (atomic_fetch_sub(&me->references, 1) == 1) destroy(me);
}

static void register_interp(struct xi_interp *me) {
    pthread_mutex_lock(&process_mutex);
    me->next = interps;
    interps = me;
    struct xi_interp *none = NULL;
    atomic_compare_exchange_strong(&first, &none, me);
    pthread_mutex_unlock(&process_mutex);
}

static void unregister_interp(struct xi_interp *me) {
    pthread_mutex_lock(&process_mutex);
    struct xi_interp **p = &interps, *oldest = NULL;
    while (*p && *p != me) p = &(*p)->next;
    if (*p) *p = me->next;
    for (struct xi_interp *i = interps; i; i = i->next) oldest = i;
    if (atomic_load(&first) == me) atomic_store(&first, oldest);
    pthread_mutex_unlock(&process_mutex);
}

int xi_join(const xi_join_opts *opts, xi_interp **out) {
    if (!out) return xi_fail(XI_E_INVAL, "xi_join needs a place for the interpreter");
    struct xi_interp *me = calloc(1, sizeof *me);
    if (!me) return xi_fail(XI_E_NOMEM, "no memory for an interpreter");
    pthread_mutex_init(&me->control.mutex, NULL);
    pthread_mutex_init(&me->channels_mutex, NULL);
    pthread_mutex_init(&me->sets.mutex, NULL);
    pthread_mutex_init(&me->calls_mutex, NULL);
    pthread_cond_init(&me->idle, NULL);
    atomic_init(&me->control.fd, -1);
    atomic_init(&me->references, 1);
    (void)xi_arena_init(&me->arena);
    (void)xi_frees_init(me);
    pthread_mutex_lock(&process_mutex);
    int rc = live(&me->life);
    pthread_mutex_unlock(&process_mutex);
    (void)xi_lock_prepare();
    (void)xi_process(); /* what that maps belongs to the process, not to whoever sleeps first */
    if (rc == 0) rc = set_options(me, opts);
    if (rc == 0) rc = say_hello(me);
    if (rc == 0) rc = xi_borrows_init(me);
    if (rc == 0) rc = xi_bells_init(&me->bells, me->mailbox->bells);
    if (rc) {
        destroy(me); /* the broker sees the connection end; the process it belongs to lives: it forgets an unused join */
        return rc;
    }
    register_interp(me);
    xi_store_release(&me->own->counters.joined, 1);
    *out = me;
    return 0;
}

/* Everybody asleep in this interpreter's calls looks up and goes. */
static void send_home(struct xi_interp *me) {
    atomic_store(&me->leaving, true);
    for (uint32_t i = 0; i < XI_BELLS_USABLE; i++) (void)xi_bell_ring(&me->mailbox->bells[i]);
    pthread_mutex_lock(&me->channels_mutex);
    while (atomic_load(&me->waiting)) pthread_cond_wait(&me->idle, &me->channels_mutex);
    pthread_mutex_unlock(&me->channels_mutex);
}

/* The broker answers when all is as if we had never been, for which it may need locks: one may be a stopped process's, or its
 * word anybody's writing. */
#define LEAVE_PATIENCE_NS 5000000000ll

#define LEAVE_ATTEMPTS 8

/*
 * A broker that dies over it is followed by one that takes us for somebody who has yet to say what it has open, for as long as
 * this process lives: nobody else will say it, so this does not give up soon. One death costs two attempts at most: a broker
 * that is being killed still lets us connect.
 */
static int tell_leaving(struct xi_interp *me) {
    xi_a32 *state = &((struct xi_registry *)(uintptr_t)me->registry)->state;
    int rc = XI_E_BROKER;
    for (int attempt = 0; attempt < LEAVE_ATTEMPTS && rc == XI_E_BROKER; attempt++) {
        struct xi_request req;
        struct xi_reply reply;
        if (attempt > 1) (void)poll(NULL, 0, 1 << attempt); /* for a keeper to start the next; there is no event for that */
        xi_request_init(&req, XI_OP_LEAVE);
        rc = xi_control_ask(me, &req, &reply, NULL, 0, LEAVE_PATIENCE_NS);
        if (atomic_load(&me->ending) == XI_E_BROKER || xi_load_acquire(state) != XI_NS_RUNNING) break; /* it is gone, with all */
    }
    return rc;
}

int xi_leave(xi_interp *me) {
    if (!me) return 0;
    if (!xi_alive(me)) { /* a forked child: nothing shared is ours; the parent's own handles are not touched */
        xi_interp_drop(me);
        return 0;
    }
    send_home(me);
    xi_arena_reclaim(me, SIZE_MAX);
    (void)xi_free_run(me);
    unregister_interp(me);
    xi_sets_detach(me);
    xi_channels_detach(me);
    int rc = tell_leaving(me);
    atomic_store(&me->left, true);
    xi_control_close(me);
    xi_interp_drop(me);
    /* A broker that is gone, or a namespace shut down, has nothing left that we could leave. One that does not come to an
     * end goes on without us. */
    return rc == XI_E_BROKER || rc == XI_E_TIMEOUT ? 0 : rc;
}

int64_t xi_trim(xi_interp *me) {
    if (!me) return xi_fail(XI_E_INVAL, "xi_trim needs an interpreter");
    if (!xi_alive(me)) return xi_fail_forked();
    uint64_t before = xi_load_relaxed(&me->own->counters.arena_bytes);
    xi_arena_reclaim(me, SIZE_MAX);
    xi_arena_trim(me, INT64_MAX);
    uint64_t after = xi_load_relaxed(&me->own->counters.arena_bytes);
    return after < before ? (int64_t)(before - after) : 0; /* other threads may have made it grow meanwhile */
}

xi_interp *xi_current(void) {
    struct xi_interp *me = atomic_load_explicit(&first, memory_order_acquire);
    return me && xi_alive(me) ? me : NULL;
}

int64_t xi_id(const xi_interp *me) { return me->id; }
const char *xi_namespace(const xi_interp *me) { return me->place.text; }
xi_observer *xi_observer_of(xi_interp *me) { return me->observer; }

int xi_interp_stopped(struct xi_interp *me) {
    if (atomic_load_explicit(&me->leaving, memory_order_acquire))
        return xi_fail(XI_E_LEFT, "interpreter %lld has left the namespace meanwhile", (long long)me->id);
    /* Any peer may write into the mailbox; only the broker into the registry. */
    if (xi_load_acquire(&me->mailbox->flags) & (XI_MAIL_END | XI_MAIL_SHUTDOWN)) {
        if (xi_load_acquire(&me->registry->slots[me->slot].told_end)) atomic_store(&me->ending, XI_E_ENDING);
        if (xi_load_acquire(&me->registry->state) == XI_NS_SHUTDOWN) atomic_store(&me->ending, XI_E_BROKER);
    }
    int ending = atomic_load(&me->ending);
    if (ending == XI_E_BROKER) return xi_fail(XI_E_BROKER, "the namespace \"%s\" was shut down", me->place.text);
    if (ending) return xi_fail(ending, "interpreter %lld was told to end: nobody holds a reference to it", (long long)me->id);
    return 0;
}

int xi_status(const xi_interp *me) {
    return xi_alive(me) ? xi_interp_stopped((struct xi_interp *)(uintptr_t)me) : xi_fail_forked();
}

/* Room for one more to be remembered, before the broker counts it. */
static int reserve_reference(struct xi_interp *me) {
    pthread_mutex_lock(&me->channels_mutex);
    bool room = me->refs_count + me->refs_wanted < me->refs_capacity;
    if (!room) {
        size_t capacity = me->refs_capacity ? me->refs_capacity * 2 : 8;
        struct xi_ref_held *refs = realloc(me->refs, capacity * sizeof *refs);
        if (refs) {
            me->refs = refs;
            me->refs_capacity = capacity;
            room = true;
        }
    }
    me->refs_wanted += room;
    pthread_mutex_unlock(&me->channels_mutex);
    return room ? 0 : xi_fail(XI_E_NOMEM, "no memory for a reference");
}

/* Remembered so that a new broker can be told. Caller holds channels_mutex; there is room. */
static void remember(struct xi_interp *me, int64_t id, int change) {
    for (size_t i = 0; i < me->refs_count; i++)
        if (me->refs[i].id == id) {
            me->refs[i].count += (uint32_t)change;
            if (me->refs[i].count == 0) me->refs[i] = me->refs[--me->refs_count];
            return;
        }
    if (change > 0) me->refs[me->refs_count++] = (struct xi_ref_held){id, 1};
}

struct change {
    xi_interp *me;
    int64_t id;
    int by;
};

static void note_change(void *arg) {
    const struct change *c = arg;
    pthread_mutex_lock(&c->me->channels_mutex);
    remember(c->me, c->id, c->by);
    pthread_mutex_unlock(&c->me->channels_mutex);
}

static int reference(xi_interp *me, int64_t id, enum xi_op op) {
    struct xi_request req;
    struct xi_reply reply;
    bool more = op == XI_OP_REF;
    if (!xi_alive(me)) return xi_fail_forked();
    int rc = more ? reserve_reference(me) : 0;
    if (rc) return rc;
    xi_request_init(&req, op);
    req.a = (uint64_t)id;
    rc = xi_control_call_noted(me, &req, &reply, NULL, 0, note_change, &(struct change){me, id, more ? 1 : -1});
    pthread_mutex_lock(&me->channels_mutex);
    me->refs_wanted -= more;
    pthread_mutex_unlock(&me->channels_mutex);
    return rc;
}

int xi_ref(xi_interp *me, int64_t id) { return reference(me, id, XI_OP_REF); }

int xi_unref(xi_interp *me, int64_t id) {
    if (!xi_alive(me)) return xi_fail_forked();
    pthread_mutex_lock(&me->channels_mutex);
    bool held = false;
    for (size_t i = 0; i < me->refs_count; i++) held |= me->refs[i].id == id;
    pthread_mutex_unlock(&me->channels_mutex);
    if (!held) return xi_fail(XI_E_NOENT, "this interpreter holds no reference to interpreter %lld", (long long)id);
    return reference(me, id, XI_OP_UNREF);
}

struct xi_mailbox *xi_mailbox_get(struct xi_interp *me, uint32_t slot, struct xi_map_entry **e) {
    *e = NULL;
    if (slot == 0 || slot >= XI_MAX_INTERPS) return NULL;
    if (slot == me->slot) return me->mailbox;
    struct xi_slot *s = (struct xi_slot *)(uintptr_t)&me->registry->slots[slot];
    if (xi_load_acquire(&s->state) != XI_SLOT_LIVE) return NULL;
    return xi_maps_mailbox(me, s->mailbox_seg, e) == 0 ? (*e)->map.base : NULL;
}

void xi_mailbox_put(struct xi_map_entry *e) {
    if (e) xi_maps_put(e);
}

void xi_interp_stats(const xi_interp *me, xi_stats *out) {
    const char *reason;
    enum xi_backend b = xi_backend(&reason);
    memset(out, 0, sizeof *out);
    out->wait = b == XI_BACKEND_URING ? "uring" : "futex";
    out->wait_reason = reason;
    if (!xi_alive(me)) return;
    struct xi_counters *c = &me->own->counters;
    xi_channels_flush((struct xi_interp *)(uintptr_t)me);
    out->sent = xi_load_relaxed(&c->sent);
    out->received = xi_load_relaxed(&c->received);
    out->parks = xi_load_relaxed(&c->parks);
    out->wakes = xi_load_relaxed(&c->wakes);
    out->spins = xi_load_relaxed(&c->spins);
    out->loans = xi_load_relaxed(&c->loans);
    out->blocks = xi_load_relaxed(&c->blocks);
    out->arena_bytes = xi_load_relaxed(&c->arena_bytes);
    out->borrows = xi_load_relaxed(&c->borrows);
    out->frees_run = xi_load_relaxed(&c->frees_run);
    out->corrupt = xi_load_relaxed(&c->corrupt);
}
