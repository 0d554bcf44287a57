/* SPDX-License-Identifier: MIT */
/* What the parts of the broker's pure core (state*.c) share. */
#ifndef XI_BROKER_STATE_INTERNAL_H
#define XI_BROKER_STATE_INTERNAL_H

#include "state.h"
#include "xidata.h"

/* Appends an action to the answer. The pointer is valid until the next emit. */
struct action *emit(struct state *st, enum action_kind kind);
struct action *emit_slot(struct state *st, enum action_kind kind, uint32_t slot);
void emit_remove(struct state *st, uint32_t number);
/* Answers the current request. */
void answer(struct state *st, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
void refuse(struct state *st, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Accounts. afford() refuses the current request and returns false when a limit would be passed. */
bool afford(struct state *st, uint32_t uid, const struct state_limits *more);
void charge(struct state *st, uint32_t uid, const struct state_limits *more);
void discharge(struct state *st, uint32_t uid, const struct state_limits *less);
/* The next segment number (even), or 0 with the current request refused. */
uint32_t take_number(struct state *st);

static inline struct conn *conn_of(const struct state *st, uint64_t conn) {
    uint64_t *found = table_find(&st->conns, conn);
    return found ? (struct conn *)(uintptr_t)*found : NULL;
}

#define SEGMENT_VALUE(kind, place) ((uint64_t)(kind) << 32 | (place))
#define SEGMENT_KIND(value) ((uint32_t)((value) >> 32))
#define SEGMENT_PLACE(value) ((uint32_t)(value))

/* state_interp.c */
void request_join(struct state *st, struct conn *conn, const struct xi_request *q);
void request_leave(struct state *st, struct conn *conn);
void request_ref(struct state *st, struct interp *me, const struct xi_request *q);
void request_unref(struct state *st, struct interp *me, const struct xi_request *q);
void interp_begin_end(struct state *st, uint32_t slot);
/* True if it has done nothing but join: nobody can tell whether it goes. */
bool interp_unused(const struct interp *in);
void interp_repaired(struct state *st, uint32_t slot);
void interp_unnamed(struct state *st, uint32_t slot);
void interp_settled(struct state *st, uint32_t slot, bool knows);
void interps_adopted(struct state *st);
void interp_undo_join(struct state *st);
void interp_publish(struct state *st, uint32_t slot);
/* From now on it has something to declare to a new broker; said in the registry before the request is granted. */
void interp_mark_used(struct state *st, struct interp *in);

/* state_segment.c */
void hold(struct state *st, struct interp *in, const struct held *held);
/* Forgets one segment of `in` (and an arena's release words), discharges it, has it removed. */
void let_go(struct state *st, struct interp *in, uint32_t at);
uint32_t slot_of(const struct state *st, const struct interp *in);
void request_arena(struct state *st, struct interp *me, const struct xi_request *q);
void request_borrows(struct state *st, struct interp *me, const struct xi_request *q);
void request_drop(struct state *st, struct interp *me, const struct xi_request *q);
void request_segment(struct state *st, struct interp *me, const struct xi_request *q);
void segment_undo(struct state *st);

/* state_access.c: who may do what. In a namespace of one user everybody may everything. */
struct xi_who;
/* XI_ACCESS_*: what this user may do in the channel. */
uint32_t access_to(const struct state *st, const struct xi_who *who, const struct chan *ch);
/* What is to be opened for, by the XI_OPEN_* flags. */
uint32_t access_asked(uint64_t flags);
/* True if this user may open it for that; else the current request is refused. */
bool access_allows(struct state *st, const struct conn *conn, const struct chan *ch, uint64_t flags);
/* True if others than this user may open it. */
bool access_shared(const struct state *st, const struct chan *ch, uint32_t uid);
/* True if the list that comes with a new channel can be taken; else the current request is refused. */
bool access_takes(struct state *st, const struct xi_request *q);
/* Remembers what `me` has opened the channel for, before it is told so. */
void access_note(struct state *st, struct interp *me, uint32_t index, uint32_t rights);
/* Forgets who has opened the channel, before it goes. */
void access_forget(struct state *st, uint32_t index);
/* True if `me` may have a descriptor of this segment. */
bool access_to_segment(const struct state *st, const struct interp *me, uint32_t number);
/* True if they may hold references on one another, and end one another by dropping them; or shut the namespace down. */
bool access_to_life(const struct state *st, uint32_t uid, uint32_t target);
bool access_to_shutdown(const struct state *st, uint32_t uid);
void request_observe(struct state *st, const struct conn *conn, const struct xi_request *q);

/* state_part.c */
void part_hold(struct state *st, uint32_t index, const struct part *p);
/* Forgets one part of a channel, or all of them, discharges and has them removed. */
void part_let_go(struct state *st, uint32_t index, uint32_t number);
void parts_let_go(struct state *st, uint32_t index);
/* Asks whether some are unused. */
void parts_ask(struct state *st, uint32_t index);
void part_unused(struct state *st, uint64_t channel, uint32_t number);
void part_undo(struct state *st);
void request_acks(struct state *st, struct interp *me, const struct xi_request *q);
void request_ring(struct state *st, struct interp *me, const struct xi_request *q);
void request_ring_drop(struct state *st, struct interp *me, const struct xi_request *q);
/* Whatever moves this interpreter had begun are nobody's any more. */
void rings_give_up(struct state *st, int64_t maker);
/* Asks about the parts of all channels. */
void parts_ask_all(struct state *st);

/* state_channel.c */
void request_open(struct state *st, struct interp *me, const struct xi_request *q);
void request_close(struct state *st, struct interp *me, const struct xi_request *q);
void channel_undo_open(struct state *st);
void channel_empty(struct state *st, uint64_t id);
void request_remove(struct state *st, const struct conn *conn, const struct xi_request *q);
/* Drops handles (as in struct interp); when none is left (and nobody is declaring) asks whether the channel is empty. */
void channel_drop_handles(struct state *st, uint32_t index, uint64_t handles);
/* Judges every channel: when nobody is declaring any more. */
void channels_check(struct state *st);
void channel_ended(struct state *st, uint64_t id);
void channels_end(struct state *st);
/* The interpreter with this id has ended: replies to its calls are for nobody, whoever has its lane open. */
void channel_remove_lane(struct state *st, int64_t id);
/* Index of the channel with this name, or -1. */
int64_t channel_named(const struct state *st, const char *name);
void channel_ask(struct state *st, uint32_t index);
/* Makes the table large enough for this index. */
void channels_reserve(struct state *st, uint32_t index);
/* Sorts every entry anew into the chains of names and of free entries. */
void channels_rebuild(struct state *st);

#endif
