/* SPDX-License-Identifier: MIT */
/*
 * Lines of many processes on one terminal: only whole lines are written, each
 * with its rank before it. What has no newline yet waits until it gets one or its
 * process ends; beyond 64 KiB it is written in pieces.
 *
 * Our own output may be stuck (a pager, Ctrl-S) while the user presses Ctrl-C, so
 * every write waits for room and for signals at once, and writes no more than
 * a pipe surely takes.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "run.h"
#include "xi.h"

#define LINE_MAX_BYTES 65536
#define SURE 4096 /* PIPE_BUF: what a pipe that polls writable takes without blocking */

static void put_out(struct run *r, int fd, const char *p, size_t n) {
    while (n > 0 && !r->output_broken) {
        struct pollfd wait[2] = {{fd, POLLOUT, 0}, {r->signals, POLLIN, 0}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR) return;
        if (wait[1].revents) run_signals(r);
        if (r->killed && !(wait[0].revents & POLLOUT)) return; /* the user does not wait for stuck output */
        if (!wait[0].revents) continue;
        ssize_t k = write(fd, p, n < SURE ? n : SURE);
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else if (errno != EINTR && errno != EAGAIN) {
            r->output_broken = true;
            if (fd != STDERR_FILENO) say("cannot write to standard output: %s; stopping", strerror(errno));
        }
    }
}

static void put_prefix(const struct run *r, size_t rank, size_t which, struct json_out *out) {
    static const int colors[] = {36, 33, 35, 32, 34, 31};
    if (r->color[which])
        json_printf(out, "\033[%dm[%zu]\033[0m ", colors[rank % 6], rank);
    else
        json_printf(out, "[%zu] ", rank);
}

/* Writes the complete lines of `text` after what was waiting; keeps the rest. */
static void put_lines(struct run *r, size_t rank, size_t which, const char *text, size_t n) {
    struct stream *s = &r->children[rank].stream[which];
    struct json_out out = {0};
    while (n > 0) {
        const char *newline = memchr(text, '\n', n);
        size_t take = newline ? (size_t)(newline - text) : n;
        json_put(&s->partial, text, take);
        text += take + (newline != NULL);
        n -= take + (newline != NULL);
        if (!newline && s->partial.length < LINE_MAX_BYTES) break;
        put_prefix(r, rank, which, &out);
        json_put(&out, s->partial.data, s->partial.length);
        json_put(&out, "\n", 1);
        s->partial.length = 0;
    }
    put_out(r, which == 0 ? STDOUT_FILENO : STDERR_FILENO, out.data, out.length);
    json_out_clear(&out);
}

static void end_stream(struct run *r, size_t rank, size_t which) {
    struct stream *s = &r->children[rank].stream[which];
    if (s->partial.length > 0) put_lines(r, rank, which, "\n", 1);
    close(s->fd);
    s->fd = -1;
}

/* One read. False when there is nothing (more) now. */
static bool read_once(struct run *r, size_t rank, size_t which) {
    char buffer[32768];
    struct stream *s = &r->children[rank].stream[which];
    ssize_t n = read(s->fd, buffer, sizeof buffer);
    if (n > 0) {
        put_lines(r, rank, which, buffer, (size_t)n);
        return true;
    }
    if (n < 0 && errno == EINTR) return true;
    if (n < 0 && errno == EAGAIN) return false;
    end_stream(r, rank, which);
    return false;
}

void run_read(struct run *r, size_t rank, size_t which) {
    if (r->children[rank].stream[which].fd >= 0) (void)read_once(r, rank, which);
}

void run_drain(struct run *r) {
    for (size_t i = 0; i < r->count; i++)
        for (size_t which = 0; which < 2; which++) {
            struct stream *s = &r->children[i].stream[which];
            while (s->fd >= 0 && !r->output_broken && read_once(r, i, which)) {}
            if (s->fd >= 0) end_stream(r, i, which); /* a process that was left behind may hold the other end */
        }
}

void run_streams_free(struct run *r) {
    for (size_t i = 0; i < r->count; i++)
        for (size_t which = 0; which < 2; which++) {
            struct stream *s = &r->children[i].stream[which];
            if (s->fd >= 0) close(s->fd);
            json_out_clear(&s->partial);
        }
}
