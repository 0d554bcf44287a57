/* SPDX-License-Identifier: MIT */
/*
 * Eclipse iceoryx 2.0 (the C++ one, by its C binding): a publisher and a
 * subscriber each way, on a RouDi of its own with memory pools for the sizes that
 * are measured. Send loans a chunk, copies into it and publishes; receive takes
 * the chunk and reads it in place; loans go without a copy. Awake, the
 * subscriber is polled; asleep, a WaitSet waits. A publisher that finds the
 * subscriber's queue full (256, the most there is) waits for it by yielding and
 * sleeping; so that it need not, the benchmark holds it back before, at no cost.
 */
#include <errno.h>
#include <fcntl.h>
#include <iceoryx_binding_c/api.h>
#include <iceoryx_binding_c/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "bench/peer.h"

enum { DEEP = 256 };

struct node {
    iox_pub_storage_t pub_storage;
    iox_sub_storage_t sub_storage;
    iox_ws_storage_t ws_storage;
    iox_pub_t out;
    iox_sub_t in;
    iox_ws_t waits; /* asleep alone */
    const void *chunk;
};

/* There can be one RouDi on a machine: it holds a lock for as long as it runs. */
static bool another_runs(void) {
    int fd = open("/tmp/iox-unique-roudi.lock", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool held = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    close(fd);
    return held;
}

static int probe(char *why, size_t capacity) {
    if (access("/usr/bin/iox-roudi", X_OK) < 0) return snprintf(why, capacity, "no iox-roudi (Debian: iceoryx)"), -1;
    return another_runs() ? (snprintf(why, capacity, "another RouDi runs on this machine: there can be but one"), -1) : 0;
}

/* Sizes of chunks with some room for their headers, and how many. */
static const struct {
    unsigned size, count;
} pools[] = {{128, 4096}, {1280, 2048}, {66048, 32}, {1049600, 16}, {16778240, 8}};

static void serve(const char *folder) {
    char path[128], log[128];
    snprintf(path, sizeof path, "%s/roudi.toml", folder);
    snprintf(log, sizeof log, "%s/log", folder);
    FILE *f = fopen(path, "w");
    if (!f) return;
    fprintf(f, "[general]\nversion = 1\n[[segment]]\n");
    for (size_t i = 0; i < sizeof pools / sizeof *pools; i++)
        fprintf(f, "[[segment.mempool]]\nsize = %u\ncount = %u\n", pools[i].size, pools[i].count);
    if (fclose(f) != 0 || !freopen(log, "a", stdout) || !freopen(log, "a", stderr)) return;
    execl("/usr/bin/iox-roudi", "iox-roudi", "-c", path, "-m", "off", "-l", "fatal", (char *)NULL);
}

static int open_(struct bench_pair *p) {
    char name[64];
    struct node *n = calloc(1, sizeof *n);
    if (!n) return bench_fail(p, "out of memory");
    peer_keep(p, n);
    const char *out = peer_side(p) == 0 ? "there" : "back", *in = peer_side(p) == 0 ? "back" : "there";
    iox_set_loglevel(Iceoryx_LogLevel_Off);
    snprintf(name, sizeof name, "%.48s-%d", strrchr(peer_folder(p), '/') + 1, peer_side(p));
    iox_runtime_init(name); /* waits for RouDi */
    iox_pub_options_t pub;
    iox_sub_options_t sub;
    iox_pub_options_init(&pub);
    iox_sub_options_init(&sub);
    pub.subscriberTooSlowPolicy = ConsumerTooSlowPolicy_WAIT_FOR_CONSUMER;
    sub.queueFullPolicy = QueueFullPolicy_BLOCK_PRODUCER;
    sub.queueCapacity = DEEP;
    n->out = iox_pub_init(&n->pub_storage, "xidata", "bench", out, &pub);
    n->in = iox_sub_init(&n->sub_storage, "xidata", "bench", in, &sub);
    if (peer_asleep(p)) {
        n->waits = iox_ws_init(&n->ws_storage);
        if (iox_ws_attach_subscriber_state(n->waits, n->in, SubscriberState_HAS_DATA, 1, NULL) != WaitSetResult_SUCCESS)
            return bench_fail(p, "attaching a subscriber to a WaitSet failed");
    }
    for (int tries = 0; !iox_pub_has_subscribers(n->out) || iox_sub_get_subscription_state(n->in) != SubscribeState_SUBSCRIBED;)
        if (!peer_patience(&tries)) return bench_fail(p, "publisher and subscriber do not find each other");
    peer_meet(p);
    return 0;
}

static void done(struct bench_pair *p) {
    struct node *n = peer_state(p);
    if (n->chunk) iox_sub_release_chunk(n->in, n->chunk);
    n->chunk = NULL;
}

static void close_(struct bench_pair *p) {
    struct node *n = peer_state(p);
    done(p);
    if (n->waits) {
        iox_ws_detach_subscriber_state(n->waits, n->in, SubscriberState_HAS_DATA);
        iox_ws_deinit(n->waits);
    }
    iox_sub_deinit(n->in);
    iox_pub_deinit(n->out);
    iox_runtime_shutdown();
    free(n);
}

static int loan(struct bench_pair *p, size_t size, void **chunk) {
    struct node *n = peer_state(p);
    enum iox_AllocationResult rc = iox_pub_loan_chunk(n->out, chunk, (uint32_t)size);
    return rc == AllocationResult_SUCCESS ? 0 : bench_fail(p, "loaning %zu bytes failed with %d", size, (int)rc);
}

static int send_(struct bench_pair *p, const void *message, size_t size) {
    struct node *n = peer_state(p);
    void *chunk = NULL;
    if (loan(p, size, &chunk) < 0) return -1;
    memcpy(chunk, message, size);
    iox_pub_publish_chunk(n->out, chunk);
    return 0;
}

static void wait_set(struct node *n) {
    iox_notification_info_t info[1];
    uint64_t missed = 0;
    iox_ws_wait(n->waits, info, 1, &missed);
}

static int take(struct bench_pair *p) {
    struct node *n = peer_state(p);
    done(p);
    for (;;) {
        enum iox_ChunkReceiveResult rc = iox_sub_take_chunk(n->in, &n->chunk);
        if (rc == ChunkReceiveResult_SUCCESS) return 0;
        n->chunk = NULL;
        if (rc != ChunkReceiveResult_NO_CHUNK_AVAILABLE) return bench_fail(p, "taking a chunk failed with %d", (int)rc);
        if (n->waits)
            wait_set(n);
        else
            peer_relax();
    }
}

static int recv_(struct bench_pair *p, void *room, size_t size, const void **message) {
    struct node *n = peer_state(p);
    (void)room;
    (void)size;
    if (take(p) < 0) return -1;
    *message = n->chunk;
    return 0;
}

static int lend(struct bench_pair *p, size_t size, const uint64_t words[2]) {
    struct node *n = peer_state(p);
    void *chunk = NULL;
    if (loan(p, size, &chunk) < 0) return -1;
    memcpy(chunk, words, 2 * sizeof words[0]);
    iox_pub_publish_chunk(n->out, chunk);
    return 0;
}

static int borrow(struct bench_pair *p, size_t size, uint64_t words[2]) {
    struct node *n = peer_state(p);
    (void)size;
    if (take(p) < 0) return -1;
    memcpy(words, n->chunk, 2 * sizeof words[0]);
    done(p);
    return 0;
}

static const struct peer iceoryx = {
    .name = "iceoryx",
    .what = "Eclipse iceoryx 2.0, publisher to subscriber, C binding",
    .how = "awake: polls; asleep: a WaitSet. Copied into a loaned chunk and read in place; loans not copied at all",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_COPIES | PEER_LOANS,
    .flags = PEER_SERVED | PEER_THREADS | PEER_CREDIT,
    .window = 192,
    .probe = probe, .serve = serve,
    .open = open_, .close = close_, .send = send_, .recv = recv_, .done = done, .lend = lend, .borrow = borrow,
};
const struct peer *const bench_peers[] = {&iceoryx, NULL};
