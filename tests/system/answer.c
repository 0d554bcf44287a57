/* SPDX-License-Identifier: MIT */
/*
 * A server for the scripts: answers each request on a channel with itself, in a
 * list of one, until the channel is closed; ends without a reply at a value of
 * four bytes of text, "stop".
 *
 *     answer CHANNEL
 */
#include "harness.h"

static bool is_stop(const xi_msg *m) {
    xi_cursor c;
    xi_value v;
    xi_cursor_init(&c, m->data, m->size);
    return xi_next(&c, &v) == 1 && v.tag == XI_STR && v.length == 4 && memcmp(v.data, "stop", 4) == 0;
}

static void answer(xi_msg *m) {
    uint64_t buffer[1024];
    xi_builder b;
    xi_builder_init(&b, buffer, sizeof buffer, 0);
    (void)xi_begin(&b, XI_LIST, 1);
    (void)xi_put_value(&b, m->data, m->size);
    (void)xi_end(&b);
    int64_t size = xi_builder_finish(&b);
    expect(size > 0, "the request is small enough");
    must(xi_reply(m, buffer, (size_t)size, XI_FOREVER));
}

int main(int argc, char **argv) {
    expect(argc == 2, "usage: answer CHANNEL");
    xi_interp *me;
    xi_channel *ch;
    xi_msg m = XI_MSG_INIT;
    int rc;
    must(xi_join(NULL, &me));
    must(xi_open(me, argv[1], &(xi_open_opts){.flags = XI_OPEN_RECV}, &ch));
    while ((rc = xi_recv(ch, &m, XI_FOREVER)) == 0 && !is_stop(&m)) answer(&m);
    expect(rc == 0 || rc == XI_E_CLOSED, "nothing else ends it");
    xi_msg_release(&m);
    must(xi_channel_free(ch));
    must(xi_leave(me));
    return 0;
}
