/* SPDX-License-Identifier: MIT */
/*
 * mq_overview(7), POSIX message queues: one queue each way, as deep as any user
 * may make it (/proc/sys/fs/mqueue/msg_max, usually 10), for messages of the
 * size that is measured, up to msgsize_max (usually 8 KiB). Awake, the reader
 * asks again and again (O_NONBLOCK); else it blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peer.h"

enum { MQ_MOST = 8192 };

struct queues {
    mqd_t queue[2]; /* [s] is sent on by side s */
    char name[2][64];
};

static long setting(const char *name, long otherwise) {
    char path[64], text[32] = "";
    snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", name);
    FILE *f = fopen(path, "r");
    long value = f && fgets(text, sizeof text, f) ? strtol(text, NULL, 10) : otherwise;
    if (f) fclose(f);
    return value > 0 ? value : otherwise;
}

static int probe(char *why, size_t capacity) {
    mqd_t q = mq_open("/xi-bench-probe", O_CREAT | O_RDWR, 0600, NULL);
    if (q == (mqd_t)-1) return snprintf(why, capacity, "mq_open: %s", strerror(errno)), -1;
    mq_close(q);
    mq_unlink("/xi-bench-probe");
    return 0;
}

static int open_(struct bench_pair *p) {
    const char *own = strrchr(peer_folder(p), '/') + 1; /* what is different in every run */
    struct mq_attr as = {.mq_maxmsg = setting("msg_max", 10), .mq_msgsize = (long)peer_size(p)};
    struct queues *q = calloc(1, sizeof *q);
    if (!q) return bench_fail(p, "out of memory");
    peer_keep(p, q);
    if (as.mq_maxmsg > 1024) as.mq_maxmsg = 1024;
    for (int s = 0; s < 2; s++) {
        snprintf(q->name[s], sizeof q->name[s], "/%.48s-%d", own, s);
        int way = s == peer_side(p) ? O_WRONLY : O_RDONLY;
        q->queue[s] = mq_open(q->name[s], O_CREAT | O_CLOEXEC | way | (peer_spins(p) ? O_NONBLOCK : 0), 0600, &as);
        if (q->queue[s] == (mqd_t)-1) return bench_fail(p, "mq_open: %s", strerror(errno));
    }
    peer_meet(p);
    if (peer_side(p) == 0)
        for (int s = 0; s < 2; s++) mq_unlink(q->name[s]); /* nobody else needs the names, and nothing stays behind */
    return 0;
}

static void close_(struct bench_pair *p) {
    struct queues *q = peer_state(p);
    for (int s = 0; s < 2; s++) mq_close(q->queue[s]);
    free(q);
}

static int send_(struct bench_pair *p, const void *message, size_t size) {
    struct queues *q = peer_state(p);
    while (mq_send(q->queue[peer_side(p)], message, size, 0) < 0) {
        if (errno != EAGAIN) return bench_fail(p, "mq_send: %s", strerror(errno));
        peer_relax();
    }
    return 0;
}

static int recv_(struct bench_pair *p, void *room, size_t size, const void **message) {
    struct queues *q = peer_state(p);
    (void)message;
    for (;;) {
        ssize_t n = mq_receive(q->queue[!peer_side(p)], room, size, NULL);
        if (n == (ssize_t)size) return 0;
        if (n >= 0) return bench_fail(p, "a message of %zd bytes instead of %zu arrived", n, size);
        if (errno != EAGAIN) return bench_fail(p, "mq_receive: %s", strerror(errno));
        peer_relax();
    }
}

const struct peer peer_mq = {
    .name = "mq",
    .what = "POSIX message queue, mq_send(3)",
    .how = "awake: receives without blocking, again and again; else blocks. As deep as any user may make it; copied in and "
           "out by the kernel",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY,
    .largest = MQ_MOST,
    .probe = probe,
    .open = open_, .close = close_, .send = send_, .recv = recv_,
};
