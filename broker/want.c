/* SPDX-License-Identifier: MIT */
/* The end for want of memory or descriptors; the header has the model. Allocates nothing. */
#include "want.h"

#include <stdio.h>
#include <unistd.h>

#include "error.h"
#include "log.h"
#include "xidata.h"

static int ready = -1;

void want_tell(int ready_fd) { ready = ready_fd; }

void want_die(int error, const char *what) {
    char words[512];
    log_line("%s; ending, the next broker will go on with the namespace", what);
    if (ready >= 0) {
        int n = snprintf(words, sizeof words, "error %d %.400s\n", error, what);
        ssize_t ignored = write(ready, words, (size_t)n);
        (void)ignored; /* about to end; nobody is left to tell */
    }
    _exit(WANT_EXIT);
}

int want_or(int rc) {
    if (rc != XI_E_NOMEM) return rc;
    want_die(rc, xi_error_text(rc));
}
