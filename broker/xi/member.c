/* SPDX-License-Identifier: MIT */
/* Joining a namespace and opening one channel of it, for those subcommands that need it. */
#include <stdio.h>

#include "xi.h"

struct deadline deadline_in(int64_t timeout) {
    struct deadline d = {timeout, 0};
    if (timeout > 0 && __builtin_add_overflow(now_ns(), timeout, &d.end)) d.timeout = XI_FOREVER;
    return d;
}

int64_t deadline_left(const struct deadline *d) {
    if (d->timeout <= 0) return d->timeout;
    int64_t left = d->end - now_ns();
    return left > 0 ? left : XI_TRY;
}

static int refuse(int rc, const char *what, const char *name) {
    if (rc == XI_E_INTR && stop_signal()) return 128 + stop_signal();
    char shown[128];
    say("cannot %s \"%s\": %s", what, printable(name, shown, sizeof shown), xi_error_text(rc));
    return XI_EXIT_FAILED;
}

int member_join(struct member *s, const struct member_opts *opts) {
    *s = (struct member){NULL, NULL, opts->channel};
    const char *ns = namespace_or_default(opts->ns);
    if (!ns) return XI_EXIT_USAGE;
    xi_join_opts join = {.ns = ns, .name = opts->as, .language = "xi " XI_VERSION, .flags = opts->join_flags};
    int rc;
    do rc = xi_join(&join, &s->me);
    while (rc == XI_E_INTR && !stop_signal());
    return rc ? refuse(rc, "join namespace", ns) : XI_EXIT_OK;
}

int member_open(struct member *s, const struct member_opts *opts) {
    int rc, status = member_join(s, opts);
    if (status) return status;
    do rc = xi_open(s->me, opts->channel, &opts->open, &s->channel);
    while (rc == XI_E_INTR && !stop_signal());
    if (rc == 0) return XI_EXIT_OK;
    status = refuse(rc, "open channel", opts->channel);
    member_close(s);
    return status;
}

void member_close(struct member *s) {
    xi_channel_free(s->channel);
    if (s->me) xi_leave(s->me);
    s->channel = NULL;
    s->me = NULL;
}

int receive_until(xi_channel *channel, xi_msg *m, int64_t timeout) {
    struct deadline d = deadline_in(timeout);
    int rc;
    do rc = xi_recv(channel, m, deadline_left(&d));
    while (rc == XI_E_INTR && !stop_signal());
    return rc;
}
