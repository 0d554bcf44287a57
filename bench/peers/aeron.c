/* SPDX-License-Identifier: MIT */
/*
 * Aeron IPC by its C client: an exclusive publication and a subscription each
 * way, on a media driver (aeronmd) of its own, one thread that backs off when
 * idle, in /dev/shm; the driver only introduces the two, messages go through the
 * log buffers that they share. Terms of 16 MiB, so messages of up to 2 MiB; those
 * beyond its MTU are cut into fragments of the largest that there is, and put
 * together again by a fragment assembler. Offered again while back-pressured;
 * polled again and again, up to sixteen fragments at a time. Aeron's clients do
 * not sleep for a message in the kernel, so it is not measured asleep.
 *
 * AERON_DRIVER is the path of aeronmd, set by the build from XI_BENCH_AERON.
 */
#include <aeronc.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/peer.h"

enum { DEEP = 16, SMALL = 1024, AERON_MOST = 1 << 20 };

struct log {
    aeron_context_t *context;
    aeron_t *client;
    aeron_exclusive_publication_t *out;
    aeron_subscription_t *in;
    aeron_fragment_assembler_t *assembler;
    uint8_t *room; /* where the next large message goes */
    size_t wanted;
    bool wrong;
    int begin, end; /* of those that were polled and not handed out yet */
    uint64_t queue[DEEP][SMALL / 8];
};

static int probe(char *why, size_t capacity) {
    if (access(AERON_DRIVER, X_OK) == 0) return 0;
    return snprintf(why, capacity, "no %s", AERON_DRIVER), -1;
}

/* In memory, as everybody has it; named after the run's own folder. */
static void directory(const char *folder, char path[128]) {
    snprintf(path, 128, "/dev/shm/aeron-%.64s", strrchr(folder, '/') + 1);
}

static void serve(const char *folder) {
    char path[128], log[128];
    directory(folder, path);
    snprintf(log, sizeof log, "%s/log", folder);
    setenv("AERON_DIR", path, 1);
    setenv("AERON_THREADING_MODE", "SHARED", 1);
    setenv("AERON_SHARED_IDLE_STRATEGY", "backoff", 1);
    setenv("AERON_DIR_DELETE_ON_START", "1", 1);
    setenv("AERON_DIR_DELETE_ON_SHUTDOWN", "1", 1);
    setenv("AERON_TERM_BUFFER_SPARSE_FILE", "0", 1);
    if (freopen(log, "a", stdout) && freopen(log, "a", stderr)) execl(AERON_DRIVER, "aeronmd", (char *)NULL);
}

static int failed(struct bench_pair *p, const char *what) { return bench_fail(p, "%s: %s", what, aeron_errmsg()); }

/* The driver may be starting still. */
static int start_client(struct bench_pair *p, struct log *l) {
    char path[128];
    directory(peer_folder(p), path);
    for (int tries = 0;;) {
        if (aeron_context_init(&l->context) < 0 || aeron_context_set_dir(l->context, path) < 0) return failed(p, "aeron_context_init");
        if (aeron_init(&l->client, l->context) == 0) break;
        if (!peer_patience(&tries)) return failed(p, "connecting to aeronmd");
        aeron_context_close(l->context);
    }
    return aeron_start(l->client) < 0 ? failed(p, "aeron_start") : 0;
}

static int add_ends(struct bench_pair *p, struct log *l) {
    aeron_async_add_exclusive_publication_t *adding_out = NULL;
    aeron_async_add_subscription_t *adding_in = NULL;
    const char *uri = peer_size(p) > SMALL ? "aeron:ipc?term-length=16m|mtu=65504" : "aeron:ipc?term-length=16m";
    int tries = 0;
    if (aeron_async_add_exclusive_publication(&adding_out, l->client, uri, 1001 + peer_side(p)) < 0 ||
        aeron_async_add_subscription(&adding_in, l->client, uri, 1001 + !peer_side(p), NULL, NULL, NULL, NULL) < 0)
        return failed(p, "adding a publication and a subscription");
    while (!l->out || !l->in) {
        if (!l->out && aeron_async_add_exclusive_publication_poll(&l->out, adding_out) < 0) return failed(p, "adding a publication");
        if (!l->in && aeron_async_add_subscription_poll(&l->in, adding_in) < 0) return failed(p, "adding a subscription");
        if (!peer_patience(&tries)) return bench_fail(p, "aeronmd does not answer");
    }
    while (!aeron_exclusive_publication_is_connected(l->out) || !aeron_subscription_is_connected(l->in))
        if (!peer_patience(&tries)) return bench_fail(p, "publication and subscription do not find each other");
    return 0;
}

/* What is polled is Aeron's until this returns: it is copied out, small messages into the queue, large ones to their place. */
static void on_message(void *context, const uint8_t *buffer, size_t length, aeron_header_t *header) {
    struct log *l = context;
    (void)header;
    if (length != l->wanted || l->end == DEEP) {
        l->wrong = true;
        return;
    }
    memcpy(length > SMALL ? (void *)l->room : l->queue[l->end], buffer, length);
    l->end++;
}

static int open_(struct bench_pair *p) {
    struct log *l = calloc(1, sizeof *l);
    if (!l) return bench_fail(p, "out of memory");
    peer_keep(p, l);
    if (start_client(p, l) < 0 || add_ends(p, l) < 0) return -1;
    return aeron_fragment_assembler_create(&l->assembler, on_message, l) < 0 ? failed(p, "making an assembler") : 0;
}

static void close_(struct bench_pair *p) {
    struct log *l = peer_state(p);
    aeron_fragment_assembler_delete(l->assembler);
    aeron_close(l->client); /* and what it has */
    aeron_context_close(l->context);
    free(l);
}

static int send_(struct bench_pair *p, const void *message, size_t size) {
    struct log *l = peer_state(p);
    int64_t rc;
    while ((rc = aeron_exclusive_publication_offer(l->out, message, size, NULL, NULL)) < 0) {
        if (rc != AERON_PUBLICATION_BACK_PRESSURED && rc != AERON_PUBLICATION_ADMIN_ACTION)
            return bench_fail(p, "offering failed with %lld: %s", (long long)rc, aeron_errmsg());
        peer_relax();
    }
    return 0;
}

static int recv_(struct bench_pair *p, void *room, size_t size, const void **message) {
    struct log *l = peer_state(p);
    if (l->begin == l->end) {
        l->begin = l->end = 0;
        l->room = room;
        l->wanted = size;
    }
    while (l->begin == l->end) { /* of large messages one at a time: the assembler calls back at most once a fragment */
        int n = aeron_subscription_poll(l->in, aeron_fragment_assembler_handler, l->assembler, size > SMALL ? 1 : DEEP);
        if (n < 0 || l->wrong) return n < 0 ? failed(p, "polling") : bench_fail(p, "a message of another size arrived");
        if (n == 0) peer_relax();
    }
    if (size <= SMALL) *message = l->queue[l->begin];
    l->begin++;
    return 0;
}

static const struct peer aeron = {
    .name = "aeron",
    .what = "Aeron IPC, exclusive publication to subscription, C client",
    .how = "polls, always; a media driver of its own introduces the two; copied into the log and out of it, large messages in "
           "fragments",
    .can = PEER_ROUNDS | PEER_ONE_WAY | PEER_COPIES,
    .flags = PEER_SERVED | PEER_THREADS,
    .largest = AERON_MOST,
    .probe = probe, .serve = serve,
    .open = open_, .close = close_, .send = send_, .recv = recv_,
};
const struct peer *const bench_peers[] = {&aeron, NULL};
