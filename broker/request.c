/* SPDX-License-Identifier: MIT */
/* The first look at bytes from a client. */
#include "request.h"

#include <string.h>

#include "xidata.h"

enum check request_check(const void *bytes, size_t n, struct xi_request *out, int *status, const char **why) {
    memset(out, 0, sizeof *out);
    *status = XI_E_MISMATCH;
    if (n < offsetof(struct xi_request, a)) {
        *why = "this is not a request of xidata: it is too short";
        return CHECK_DROP;
    }
    memcpy(out, bytes, n < sizeof *out ? n : sizeof *out);
    if (out->magic != XI_WIRE_MAGIC) {
        out->op = 0;
        out->serial = 0;
        *why = "this is not a request of xidata: its first four bytes are wrong";
        return CHECK_DROP;
    }
    if (out->version != XI_WIRE_VERSION) {
        *why = "the broker speaks another version of the protocol: use one version of xidata on both sides, or another "
               "namespace";
        return CHECK_DROP;
    }
    if (n != sizeof *out) {
        *why = "a request of this version has 400 bytes";
        return CHECK_DROP;
    }
    *status = XI_E_INVAL;
    if (out->serial == 0) {
        *why = "a request's serial number is not 0";
        return CHECK_DROP;
    }
    if (!memchr(out->name, 0, sizeof out->name) || !memchr(out->text, 0, sizeof out->text) ||
        !memchr(out->other, 0, sizeof out->other)) {
        *why = "a text in the request does not end";
        return CHECK_REFUSE;
    }
    if (out->op < XI_OP_JOIN || out->op > XI_OP_LAST) {
        *why = "this broker knows no such request";
        return CHECK_REFUSE;
    }
    /* What lies behind the end of a text has no meaning: it does not go into shared memory. */
    size_t name = strlen(out->name), text = strlen(out->text), other = strlen(out->other);
    memset(out->name + name, 0, sizeof out->name - name);
    memset(out->text + text, 0, sizeof out->text - text);
    memset(out->other + other, 0, sizeof out->other - other);
    return CHECK_OK;
}
