/* SPDX-License-Identifier: MIT */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local struct xi_said last;

static const struct {
    const char *name, *text;
} errors[] = {
    {"XI_OK", "no error"},
    {"XI_E_AGAIN", "nothing to receive, or no room to send, right now"},
    {"XI_E_TIMEOUT", "the time given ran out"},
    {"XI_E_CLOSED", "the channel is closed"},
    {"XI_E_INTR", "interrupted by a signal; call again"},
    {"XI_E_NOMEM", "the process ran out of memory, mappings or file descriptors; see ulimit -a"},
    {"XI_E_NOSPACE", "shared memory is full: enlarge or clear /dev/shm (df /dev/shm; xi doctor lists what is stale)"},
    {"XI_E_QUOTA", "this user's quota at the broker is used up; release values, or start xi-broker with a larger one"},
    {"XI_E_INVAL", "an argument is wrong"},
    {"XI_E_TOOBIG", "the value is larger than the format, the buffer or the channel can hold"},
    {"XI_E_CORRUPT", "bytes written by another process are not valid; the value was skipped"},
    {"XI_E_TYPE", "the value is of another kind than asked for"},
    {"XI_E_RANGE", "the value does not fit exactly what it was asked as"},
    {"XI_E_DEPTH", "the value is nested too deeply (256 levels)"},
    {"XI_E_FORKED", "this handle is from before fork(); join again in the child"},
    {"XI_E_ENDING", "this interpreter was told to end: its last reference is gone"},
    {"XI_E_BROKER", "no broker answers and none could be started; try: xi broker"},
    {"XI_E_MISMATCH", "it exists with another mode, or versions differ"},
    {"XI_E_ACCESS", "not permitted"},
    {"XI_E_LIMIT", "a fixed limit was met"},
    {"XI_E_NOENT", "there is no such thing"},
    {"XI_E_SYSTEM", "a system call failed"},
    {"XI_E_LEFT", "the handle was closed, or its interpreter left, meanwhile"},
    {"XI_E_REMOVED", "the channel was removed, with what was in it"},
    {"XI_E_NO_PRODUCER", "nothing is left in the channel, and nobody has it open to send"},
    {"XI_E_NO_CONSUMER", "nobody has the channel open to receive"},
    {"XI_E_DIED", "who had taken the call died, or gave it up, before replying"},
    {"XI_E_STALE", "the delivery is no longer this consumer's"},
};

static size_t index_of(int error) {
    size_t i = error < 0 ? (size_t)(-(long)error) : 0;
    return i < sizeof errors / sizeof errors[0] ? i : (size_t)-XI_E_SYSTEM;
}

const char *xi_error_name(int error) { return errors[index_of(error)].name; }

const char *xi_error_text(int error) {
    if (last.error == error && error < 0 && last.text[0]) return last.text;
    return errors[index_of(error)].text;
}

int xi_fail(int error, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(last.text, sizeof last.text, format, args);
    va_end(args);
    last.error = error;
    return error;
}

void xi_error_keep(struct xi_said *said) { *said = last; }
void xi_error_restore(const struct xi_said *said) { last = *said; }

int xi_fail_errno(int errnum, const char *what) {
    int error;
    const char *advice = "";
    switch (errnum) {
    case ENOSPC:
        error = XI_E_NOSPACE;
        advice = ": /dev/shm is full. See df /dev/shm; enlarge it (mount -o remount,size=... /dev/shm), release "
                 "values, or remove stale segments (xi doctor)";
        break;
    case EDQUOT: error = XI_E_QUOTA; break;
    case ENOMEM: case ENOBUFS:
        error = XI_E_NOMEM;
        advice = ": release values, or raise what limits memory (ulimit -v, the container's limit) or mappings (sysctl "
                 "vm.max_map_count)";
        break;
    case EMFILE:
        error = XI_E_NOMEM;
        advice = ": close some, or raise the limit (ulimit -n)";
        break;
    case ENFILE:
        error = XI_E_NOMEM;
        advice = ": the whole system has no more (sysctl fs.file-max)";
        break;
    case EAGAIN:
        error = XI_E_NOMEM;
        advice = ": raise the limit of processes and threads (ulimit -u) or of memory";
        break;
    case EACCES: case EPERM: error = XI_E_ACCESS; break;
    case ENOENT: error = XI_E_NOENT; break;
    case EINTR: error = XI_E_INTR; break;
    default: error = XI_E_SYSTEM; break;
    }
    return xi_fail(error, "%s: %s%s", what, strerror(errnum), advice);
}
