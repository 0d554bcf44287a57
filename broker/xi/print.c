/* SPDX-License-Identifier: MIT */
/* Received values on standard output, for those who receive: a line of JSON each, or text and bytes as they are. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "xi.h"

static int find_buffer(void *context, const xi_buffer_ref *ref, const void **data) {
    return xi_msg_buffer(context, ref, data);
}

/* Text and bytes as they are. 1: done; 0: it is another kind; negative: error. */
static int put_raw(const xi_msg *m, struct json_out *out) {
    xi_cursor c;
    xi_value v;
    const void *data;
    xi_cursor_init(&c, m->data, m->size);
    int rc = xi_next(&c, &v);
    if (rc <= 0) return rc;
    if (v.tag == XI_BYTES) return json_put(out, v.data, v.length), 1;
    if (v.tag == XI_BUFFER) {
        rc = xi_msg_buffer(m, &v.u.buffer, &data);
        if (rc) return rc;
        return json_put(out, data, v.u.buffer.length), 1;
    }
    if (v.tag != XI_STR) return 0;
    int64_t n = xi_to_utf8(&v, NULL, 0, false);
    if (n < 0) return n == XI_E_RANGE ? 0 : (int)n; /* lone surrogates have no plain form: print them as JSON */
    char stack[512], *text = (size_t)n < sizeof stack ? stack : malloc((size_t)n + 1);
    if (!text) return XI_E_NOMEM;
    int64_t got = xi_to_utf8(&v, text, (size_t)n + 1, false); /* the sender may have changed it meanwhile */
    if (got >= 0 && got <= n) {
        json_put(out, text, (size_t)got);
        json_put(out, "\n", 1);
    }
    if (text != stack) free(text);
    return got < 0 ? (int)got : got <= n ? 1 : XI_E_CORRUPT;
}

int print_to(const xi_msg *m, bool raw, struct json_out *out) {
    struct json_buffers buffers = {find_buffer, (void *)(uintptr_t)m};
    out->length = 0;
    out->error = 0;
    int rc = raw ? put_raw(m, out) : 0;
    if (rc == 0) {
        rc = json_write(out, m->data, m->size, &buffers);
        if (rc == 0) json_put(out, "\n", 1);
    }
    return rc >= 0 && out->error ? out->error : rc;
}

int print_message(const xi_msg *m, bool raw, struct json_out *out, bool *trouble) {
    int rc = print_to(m, raw, out);
    if (rc < 0) {
        say("a value of %zu bytes could not be printed and is lost: %s", m->size, xi_error_text(rc));
        *trouble = true;
        return XI_EXIT_OK;
    }
    if (write_all(STDOUT_FILENO, out->data, out->length)) return XI_EXIT_OK;
    say("cannot write to standard output: %s; the value received last is not complete there", strerror(errno));
    return XI_EXIT_FAILED;
}

bool reader_gone(void) {
    struct pollfd out = {STDOUT_FILENO, 0, 0};
    return poll(&out, 1, 0) == 1 && (out.revents & POLLERR);
}
