/* SPDX-License-Identifier: MIT */
/*
 * Namespaces do not see each other: channels of the same name, listings,
 * brokers and their deaths stay apart, also within one process.
 */
#include "harness.h"

#define SPACES 3

static char names[SPACES][32];
static xi_interp *me[SPACES];
static xi_channel *ch[SPACES];

static void same_channel_name(void) {
    xi_msg m = XI_MSG_INIT;
    for (int i = 0; i < SPACES; i++)
        for (int64_t v = 0; v < 100; v++) must(xi_send_int(ch[i], v * 10 + i, SECOND));
    for (int i = SPACES - 1; i >= 0; i--) {
        for (int64_t v = 0; v < 100; v++) {
            must(xi_recv(ch[i], &m, SECOND));
            expect(message_int(&m) == v * 10 + i, "%lld arrived in %s", (long long)message_int(&m), names[i]);
        }
        must_fail(XI_E_AGAIN, xi_recv(ch[i], &m, XI_TRY));
    }
    xi_msg_release(&m);
}

static void listings(void) {
    xi_interp_info info[8];
    xi_channel_info channels[8];
    for (int i = 0; i < SPACES; i++) {
        xi_observer *o = NULL;
        must(xi_observe(names[i], &o));
        int64_t n = xi_list_interps(o, info, 8);
        expect(n == 1 && info[0].id == xi_id(me[i]), "%s lists %lld interpreters", names[i], (long long)n);
        n = xi_list_channels(o, channels, 8);
        expect(n == 1 && strcmp(channels[0].name, "same") == 0, "%s lists %lld channels", names[i], (long long)n);
        for (int j = 0; j < i; j++)
            expect(xi_observer_broker_pid(o) != broker_pid(me[j]), "%s and %s have one broker", names[i], names[j]);
        xi_observer_free(o);
    }
    xi_observer *o = NULL;
    char missing[32];
    must_fail(XI_E_NOENT, xi_observe(further_ns(missing, "none"), &o));
}

static void one_broker_ends(void) {
    pid_t broker = broker_pid(me[1]);
    must_sys(kill(broker, SIGTERM));
    expect(wait_end(broker, 10000), "the broker of %s is still there 10 s after SIGTERM", names[1]);
    expect(segments_of(names[1], true) == 0, "%s left shared memory", names[1]);
    expect(segments_of(names[0], false) > 0 && segments_of(names[2], false) > 0, "the others' memory is gone too");
    expect(xi_status(me[1]) == XI_E_BROKER, "status of %s: %s", names[1], xi_error_name(xi_status(me[1])));
    must(xi_status(me[0]));
    must(xi_status(me[2]));
    leave_with(me[1], ch[1]);
    me[1] = join_ns(names[1], "again", 0);
    ch[1] = open_queue(me[1], "same");
    same_channel_name();
}

int main(void) {
    for (int i = 0; i < SPACES; i++) {
        char suffix[12];
        snprintf(suffix, sizeof suffix, "%d", i);
        further_ns(names[i], suffix);
        me[i] = join_ns(names[i], "only", 0);
        ch[i] = open_queue(me[i], "same");
        expect(strcmp(xi_namespace(me[i]), names[i]) == 0, "joined %s instead of %s", xi_namespace(me[i]), names[i]);
    }
    same_channel_name();
    listings();
    one_broker_ends();
    xi_join_opts bad = {.ns = "not/a/name"};
    xi_interp *none = NULL;
    must_fail(XI_E_INVAL, xi_join(&bad, &none));
    for (int i = 0; i < SPACES; i++) leave_with(me[i], ch[i]);
    return 0;
}
