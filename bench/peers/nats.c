/* SPDX-License-Identifier: MIT */
/*
 * NATS: a subject each way on a server of its own, over loopback TCP, which is
 * all that it speaks. Core NATS, at most once, nothing stored. Publishing is
 * buffered by the client and flushed at once for round trips (as its own
 * benchmark of latency does), by the client's flusher in streams. Receiving is
 * natsSubscription_NextMsg, which blocks. It drops what a receiver is too slow
 * for, so the benchmark holds the sender of a stream back.
 */
#include <dirent.h>
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/peer.h"

enum { NATS_MOST = 1 << 20, WAIT_MS = 60000 };

struct connection {
    natsConnection *nats;
    natsSubscription *in;
    natsMsg *message; /* the one last received */
    const char *out_subject, *in_subject;
    bool flush;
};

static const char *server(void) {
    static const char *const paths[] = {"/usr/sbin/nats-server", "/usr/bin/nats-server", "/usr/local/bin/nats-server"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (access(paths[i], X_OK) == 0) return paths[i];
    return NULL;
}

static int probe(char *why, size_t capacity) {
    return server() ? 0 : (snprintf(why, capacity, "no nats-server (Debian: nats-server)"), -1);
}

/* On a port that is free; it writes which into a file in the folder. */
static void serve(const char *folder) {
    char log[128];
    snprintf(log, sizeof log, "%s/log", folder);
    const char *binary = server();
    if (binary)
        execl(binary, "nats-server", "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder, "-l", log, (char *)NULL);
}

/* The first address in the file *.ports: nats://127.0.0.1:12345. */
static bool find_address(const char *folder, char *url, size_t capacity) {
    char path[400], text[1024];
    struct dirent *entry = NULL;
    DIR *d = opendir(folder);
    while (d && (entry = readdir(d)) != NULL)
        if (strstr(entry->d_name, ".ports")) break;
    if (entry) snprintf(path, sizeof path, "%.120s/%.255s", folder, entry->d_name);
    bool found = entry != NULL;
    if (d) closedir(d);
    FILE *f = found ? fopen(path, "r") : NULL;
    if (!f) return false;
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    char *begin = strstr(text, "nats://"), *end = begin ? strchr(begin, '"') : NULL;
    if (!end) return false;
    snprintf(url, capacity, "%.*s", (int)(end - begin), begin);
    return true;
}

static int failed(struct bench_pair *p, const char *what, natsStatus status) {
    return bench_fail(p, "%s: %s", what, natsStatus_GetText(status));
}

static int open_(struct bench_pair *p) {
    char url[128];
    natsOptions *options = NULL;
    struct connection *c = calloc(1, sizeof *c);
    if (!c) return bench_fail(p, "out of memory");
    peer_keep(p, c);
    c->out_subject = peer_side(p) == 0 ? "there" : "back";
    c->in_subject = peer_side(p) == 0 ? "back" : "there";
    c->flush = peer_spins(p) || peer_asleep(p) || peer_size(p) >= 16384;
    for (int tries = 0; !find_address(peer_folder(p), url, sizeof url);)
        if (!peer_patience(&tries)) return bench_fail(p, "nats-server does not start");
    natsStatus s = natsOptions_Create(&options);
    if (s == NATS_OK) s = natsOptions_SetURL(options, url);
    if (s == NATS_OK) s = natsOptions_SetSendAsap(options, c->flush);
    if (s == NATS_OK) s = natsConnection_Connect(&c->nats, options);
    if (s == NATS_OK) s = natsConnection_SubscribeSync(&c->in, c->nats, c->in_subject);
    if (s == NATS_OK) s = natsSubscription_SetPendingLimits(c->in, -1, -1);
    if (s == NATS_OK) s = natsConnection_Flush(c->nats); /* subscribed, as far as the server is concerned */
    natsOptions_Destroy(options);
    peer_meet(p);
    return s == NATS_OK ? 0 : failed(p, "connecting to nats-server", s);
}

static void close_(struct bench_pair *p) {
    struct connection *c = peer_state(p);
    natsMsg_Destroy(c->message);
    natsSubscription_Destroy(c->in);
    natsConnection_Destroy(c->nats);
    nats_Close();
    free(c);
}

static int send_(struct bench_pair *p, const void *message, size_t size) {
    struct connection *c = peer_state(p);
    natsStatus s = natsConnection_Publish(c->nats, c->out_subject, message, (int)size);
    return s == NATS_OK ? 0 : failed(p, "publishing", s);
}

static int recv_(struct bench_pair *p, void *room, size_t size, const void **message) {
    struct connection *c = peer_state(p);
    (void)room;
    natsMsg_Destroy(c->message);
    c->message = NULL;
    natsStatus s = natsSubscription_NextMsg(&c->message, c->in, WAIT_MS);
    if (s != NATS_OK) return failed(p, "receiving", s);
    if ((size_t)natsMsg_GetDataLength(c->message) != size) return bench_fail(p, "a message of another size arrived");
    *message = natsMsg_GetData(c->message);
    return 0;
}

static const struct peer nats = {
    .name = "nats",
    .what = "NATS over loopback TCP, core (at most once)",
    .how = "blocks; a server of its own; round trips are sent at once, streams by the client's flusher; copied by the kernel "
           "four times",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_COPIES,
    .flags = PEER_SERVED | PEER_CREDIT | PEER_THREADS,
    .largest = NATS_MOST,
    .probe = probe, .serve = serve,
    .open = open_, .close = close_, .send = send_, .recv = recv_,
};
const struct peer *const bench_peers[] = {&nats, NULL};
