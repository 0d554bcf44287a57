/* SPDX-License-Identifier: MIT */
/*
 * Repair of groups that acknowledge. libxi/wire/layout.h ("Groups that
 * acknowledge") gives the order of stores.
 */
#include "repair_internal.h"

bool xi_acks_unused(const struct xi_chan_view *view, struct xi_acks *acks, uint32_t number, uint64_t window,
                    bool may_join) {
    if (may_join && xi_load_acquire(&acks->joined) == 0) return false;
    uint64_t active = xi_load_full(&view->chan->active);
    for (uint32_t g = 0; g < XI_MAX_GROUPS; g++)
        if ((active >> g & 1) && xi_load_acquire(&view->chan->groups[g].acks_seg) == number) return false;
    struct xi_linger *words = XI_ACKS_LINGERS(acks, window);
    for (uint64_t i = 0; i < window; i++)
        if (xi_load_acquire(&words[i].holder) != 0) return false;
    return true;
}
