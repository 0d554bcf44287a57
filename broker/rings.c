/* SPDX-License-Identifier: MIT */
/* Looking after rings that channels have grown into; the header has the model. */
#include "rings.h"

#include "wire/order.h"

#define LOOK_NS ((int64_t)1000000000)
#define LOOKS_MOST 256 /* channels, at a time */

/* The ring that the channel might be moved out of, or NULL: it has none, or somebody is moving it just now. */
static const struct part *ring_of(const struct chan *ch) {
    const struct part *ring = NULL;
    for (uint32_t i = 0; ch->id && i < ch->part_count; i++) {
        if (ch->parts[i].filling) return NULL;
        if (ch->parts[i].kind == XI_SEG_RING) ring = &ch->parts[i];
    }
    return ring;
}

/* True if it has come home. */
static bool look_at(struct rings *r, const struct chan *ch) {
    struct xi_chan_view view;
    uint64_t tail, *known;
    if (!world_view(r->w, ch, &view) || !xi_ring_drained(&view, &tail)) {
        table_drop(&r->drained, ch->id);
        return false;
    }
    known = table_put(&r->drained, ch->id);
    if (*known != tail + 1) {
        *known = tail + 1;
        return false;
    }
    table_drop(&r->drained, ch->id);
    return xi_ring_home(&view, ch->capacity, &r->w->repair);
}

static void look(void *context) {
    struct rings *r = context;
    const struct state *st = r->st;
    uint32_t looks = 0, n = 0;
    for (; n < st->chan_capacity && looks < LOOKS_MOST; n++) {
        const struct chan *ch = &st->chans[(r->at + n) % st->chan_capacity];
        const struct part *ring = ring_of(ch);
        if (!ring) continue;
        looks++;
        if (look_at(r, ch) && world_ring_idle(r->w, ch, ring->number))
            r->post(r->context, &(struct event){.kind = EVENT_PART_UNUSED, .channel = ch->id, .number = ring->number});
        world_trim(r->w);
    }
    if (st->chan_capacity) r->at = (r->at + n) % st->chan_capacity;
    r->timer.at = looks ? loop_now() + LOOK_NS : 0;
    if (!looks) table_clear(&r->drained);
}

void rings_watch(struct rings *r) {
    if (!r->timer.at) r->timer.at = loop_now() + LOOK_NS;
}

void rings_init(struct rings *r, const struct state *st, struct world *w, struct loop *loop,
                void (*post)(void *context, const struct event *event), void *context) {
    *r = (struct rings){.st = st, .w = w, .post = post, .context = context};
    loop_timer(loop, &r->timer, look, r);
}

void rings_deinit(struct rings *r) { table_clear(&r->drained); }
