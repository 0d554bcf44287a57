/* SPDX-License-Identifier: MIT */
/* The first look at bytes from a client: is this a request? Pure. */
#ifndef XI_BROKER_REQUEST_H
#define XI_BROKER_REQUEST_H

#include <stddef.h>

#include "wire/protocol.h"

enum check {
    CHECK_OK,
    CHECK_REFUSE, /* a request, but not one that can be asked: answer with *status and *why */
    CHECK_DROP    /* not our protocol, or another version of it: answer, then close */
};

/* Copies the packet into *out (as much as there is of it; op and serial are 0 if unknown) and judges the copy. */
enum check request_check(const void *bytes, size_t n, struct xi_request *out, int *status, const char **why);

#endif
