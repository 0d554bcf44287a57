/* SPDX-License-Identifier: MIT */
/* The broker's log: one line a happening, on stderr or in a file, for people. */
#ifndef XI_BROKER_LOG_H
#define XI_BROKER_LOG_H

#include <stdbool.h>

/* `verbose` lets log_more() through. `stamped`: each line begins with the time (a file has no other). */
void log_init(const char *ns, bool verbose, bool stamped);
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_more(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
