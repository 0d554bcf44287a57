/* SPDX-License-Identifier: MIT */
/*
 * Messages of a known size over a stream of bytes (pipe.c, unix.c): one write a
 * message, or a batch; reads of whatever has come, up to 64 KiB, of which
 * messages are then handed out in place, as any program that reads many small
 * messages from a descriptor does it. Large messages are read straight to where
 * they are wanted. A descriptor that does not block is asked again at once.
 */
#ifndef XI_BENCH_PEERS_BYTES_H
#define XI_BENCH_PEERS_BYTES_H

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bench/peer.h"

enum { BYTES_BUFFER = 65536, BYTES_LARGE = 16384 };

struct bytes {
    int in, out;
    size_t begin, end; /* of what was read and not handed out yet */
    uint8_t buffer[BYTES_BUFFER];
};

static inline int bytes_error(struct bench_pair *p, const char *what, ssize_t rc) {
    return bench_fail(p, "%s: %s", what, rc == 0 ? "the other side has closed it" : strerror(errno));
}

static inline int bytes_write(struct bench_pair *p, struct bytes *b, const void *data, size_t size) {
    const uint8_t *at = data;
    while (size > 0) {
        ssize_t n = write(b->out, at, size);
        if (n < 0 && errno == EAGAIN) {
            peer_relax();
            continue;
        }
        if (n <= 0) return bytes_error(p, "writing", n);
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

/* At least one byte. */
static inline ssize_t bytes_read(struct bench_pair *p, struct bytes *b, void *to, size_t most) {
    for (;;) {
        ssize_t n = read(b->in, to, most);
        if (n > 0) return n;
        if (n == 0 || errno != EAGAIN) return bytes_error(p, "reading", n);
        peer_relax();
    }
}

/* At least `size` bytes at buffer + begin. */
static inline int bytes_fill(struct bench_pair *p, struct bytes *b, size_t size) {
    if (b->end - b->begin >= size) return 0;
    memmove(b->buffer, b->buffer + b->begin, b->end - b->begin);
    b->end -= b->begin;
    b->begin = 0;
    while (b->end < size) {
        ssize_t n = bytes_read(p, b, b->buffer + b->end, BYTES_BUFFER - b->end);
        if (n < 0) return -1;
        b->end += (size_t)n;
    }
    return 0;
}

static inline int bytes_recv(struct bench_pair *p, struct bytes *b, void *room, size_t size, const void **message) {
    if (size < BYTES_LARGE) {
        if (bytes_fill(p, b, size) < 0) return -1;
        *message = b->buffer + b->begin;
        b->begin += size;
        return 0;
    }
    uint8_t *to = room;
    size_t got = b->end - b->begin;
    if (got > size) got = size;
    memcpy(to, b->buffer + b->begin, got);
    b->begin += got;
    while (got < size) {
        ssize_t n = bytes_read(p, b, to + got, size - got);
        if (n < 0) return -1;
        got += (size_t)n;
    }
    return 0;
}

/* What has come, at least one. */
static inline int bytes_recv_many(struct bench_pair *p, struct bytes *b, size_t size, size_t n, const void **messages) {
    int got = 0;
    if (bytes_fill(p, b, size) < 0) return -1;
    for (; n > 0 && b->end - b->begin >= size; n--, b->begin += size) messages[got++] = b->buffer + b->begin;
    return got;
}

#endif
