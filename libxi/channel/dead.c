/* SPDX-License-Identifier: MIT */
/*
 * Where values go that nobody receives: those whose time is over. A value that
 * has expired was received in the usual way, so that a death is judged as ever;
 * its message is released here rather than handed out.
 */
#include "channel.h"

void xi_bury_expired(struct xi_channel *ch, xi_msg *m) {
    (void)ch;
    xi_msg_reset(m);
}
