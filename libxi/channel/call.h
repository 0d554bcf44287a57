/* SPDX-License-Identifier: MIT */
/* What calling (call.c) and serving (reply.c) share, and what sending and receiving know of it; call.c has the model. */
#ifndef XI_CHANNEL_CALL_H
#define XI_CHANNEL_CALL_H

#include "channel.h"

/* Where a call is, in its caller. */
enum xi_call_place { XI_CALL_NONE, XI_CALL_OUT, XI_CALL_HERE };

struct xi_call {
    uint64_t generation;
    _Atomic uint32_t place; /* HERE: another thread has read its reply */
    xi_a32 bell;            /* 1 + number of the bell on which a thread sleeps for it, or 0 */
    xi_msg reply;           /* HERE */
};

/* Of a caller that this interpreter has replied to. */
struct xi_lane {
    struct xi_lane *next;
    struct xi_channel *ch;
    int64_t caller;
    uint32_t users; /* replies being sent; not freed meanwhile */
};

/* Calls of one interpreter: made on first need. */
struct xi_calls {
    struct xi_channel *lane;
    uint64_t taken; /* a bit each */
    struct xi_call call[XI_MAX_CALLS];
};

/* Of a message: who asks. The slot was checked to be one. */
#define XI_CALL_FROM(slot, index) ((slot) << 16 | (index))
#define XI_CALL_FROM_SLOT(from) ((from) >> 16)
#define XI_CALL_FROM_INDEX(from) ((from) & 0xffff)

/* Reads and checks the reference of the record at `position`, whose header is valid and has XI_REC_F_CALL. */
bool xi_call_ref_read(const struct xi_view *v, uint64_t position, uint64_t header, struct xi_call_ref *out);
/* Nobody will serve it: its caller gets DIED. */
void xi_call_refuse(struct xi_interp *me, const struct xi_call_ref *ref);

#endif
