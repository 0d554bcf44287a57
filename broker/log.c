/* SPDX-License-Identifier: MIT */
/* One write(2) a line, so that lines of two brokers in one file do not mix. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    char ns[32];
    bool verbose, stamped;
} log_;

void log_init(const char *ns, bool verbose, bool stamped) {
    snprintf(log_.ns, sizeof log_.ns, "%s", ns);
    log_.verbose = verbose;
    log_.stamped = stamped;
}

static size_t prefix(char *line, size_t size) {
    size_t n = 0;
    if (log_.stamped) {
        struct timespec now;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &now);
        localtime_r(&now.tv_sec, &tm);
        n = strftime(line, size, "%Y-%m-%d %H:%M:%S ", &tm);
    }
    n += (size_t)snprintf(line + n, size - n, "xi-broker[%s]: ", log_.ns);
    return n;
}

static void write_line(const char *format, va_list args) {
    char line[640];
    size_t n = prefix(line, sizeof line);
    int more = vsnprintf(line + n, sizeof line - n - 1, format, args);
    if (more > 0) n += (size_t)more < sizeof line - n - 1 ? (size_t)more : sizeof line - n - 2;
    for (size_t i = 0; i < n; i++) /* names come from clients: no second line, no terminal codes */
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) line[i] = '?';
    line[n++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, n);
    (void)ignored; /* a log that cannot be written is no reason to stop brokering */
}

void log_line(const char *format, ...) {
    va_list args;
    va_start(args, format);
    write_line(format, args);
    va_end(args);
}

void log_more(const char *format, ...) {
    if (!log_.verbose) return;
    va_list args;
    va_start(args, format);
    write_line(format, args);
    va_end(args);
}
