/* SPDX-License-Identifier: MIT */
/*
 * Redis: a list each way as a queue, on a server of its own that keeps nothing on
 * disk and listens on a Unix socket alone. Send is RPUSH; receive is BLPOP, which
 * blocks in the server. A stream is pipelined: sixteen RPUSH of one value in one
 * write for batches, LPOP of sixteen at a time to receive; one by one a stream
 * waits for every reply, as a program that must know that its value is there. A
 * list grows without limit, so the benchmark holds the sender of a stream back.
 */
#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/peer.h"

struct connection {
    redisContext *redis;
    redisReply *reply; /* the one last received */
    const char *out, *in;
};

/* The server is one binary with several names; Debian's redis-tools has it without the service that redis-server starts. */
static const char *server(void) {
    static const char *const paths[] = {"/usr/bin/redis-server", "/usr/local/bin/redis-server", "/usr/bin/redis-check-rdb"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (access(paths[i], X_OK) == 0) return paths[i];
    return NULL;
}

static int probe(char *why, size_t capacity) {
    return server() ? 0 : (snprintf(why, capacity, "no redis-server (Debian: redis-tools)"), -1);
}

static void serve(const char *folder) {
    char path[128];
    snprintf(path, sizeof path, "%s/redis", folder);
    const char *binary = server();
    if (binary)
        execl(binary, "redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--loglevel",
              "warning", "--logfile", "/dev/null", "--daemonize", "no", "--dir", folder, "--client-output-buffer-limit",
              "normal 0 0 0", "--proto-max-bulk-len", "64mb", (char *)NULL);
}

static int failed(struct bench_pair *p, struct connection *c, const char *what) {
    const char *text = c->reply && c->reply->type == REDIS_REPLY_ERROR ? c->reply->str
                       : c->redis && c->redis->err                    ? c->redis->errstr
                                                                       : "an answer of another kind";
    return bench_fail(p, "%s: %s", what, text);
}

static int open_(struct bench_pair *p) {
    char path[128];
    struct connection *c = calloc(1, sizeof *c);
    if (!c) return bench_fail(p, "out of memory");
    peer_keep(p, c);
    c->out = peer_side(p) == 0 ? "there" : "back";
    c->in = peer_side(p) == 0 ? "back" : "there";
    snprintf(path, sizeof path, "%s/redis", peer_folder(p));
    for (int tries = 0;;) {
        c->redis = redisConnectUnix(path);
        if (c->redis && !c->redis->err) return 0;
        if (!peer_patience(&tries)) return failed(p, c, "connecting to redis-server");
        if (c->redis) redisFree(c->redis);
        c->redis = NULL;
    }
}

static void drop_reply(struct connection *c) {
    if (c->reply) freeReplyObject(c->reply);
    c->reply = NULL;
}

static void close_(struct bench_pair *p) {
    struct connection *c = peer_state(p);
    drop_reply(c);
    redisFree(c->redis);
    free(c);
}

static int send_(struct bench_pair *p, const void *message, size_t size) {
    struct connection *c = peer_state(p);
    drop_reply(c);
    c->reply = redisCommand(c->redis, "RPUSH %s %b", c->out, message, size);
    return c->reply && c->reply->type == REDIS_REPLY_INTEGER ? 0 : failed(p, c, "RPUSH");
}

static int recv_(struct bench_pair *p, void *room, size_t size, const void **message) {
    struct connection *c = peer_state(p);
    (void)room;
    drop_reply(c);
    c->reply = redisCommand(c->redis, "BLPOP %s 0", c->in);
    if (!c->reply || c->reply->type != REDIS_REPLY_ARRAY || c->reply->elements != 2) return failed(p, c, "BLPOP");
    const redisReply *value = c->reply->element[1];
    if ((size_t)value->len != size) return bench_fail(p, "a value of another size arrived");
    *message = value->str;
    return 0;
}

/* Sixteen commands in one write; then their answers. */
static int send_many(struct bench_pair *p, const uint8_t *messages, size_t size, size_t n) {
    struct connection *c = peer_state(p);
    for (size_t i = 0; i < n; i++)
        if (redisAppendCommand(c->redis, "RPUSH %s %b", c->out, messages + i * size, size) != REDIS_OK)
            return failed(p, c, "RPUSH");
    for (size_t i = 0; i < n; i++) {
        drop_reply(c);
        if (redisGetReply(c->redis, (void **)&c->reply) != REDIS_OK || c->reply->type != REDIS_REPLY_INTEGER)
            return failed(p, c, "RPUSH");
    }
    return 0;
}

/* What is there, up to n, at once; while there is nothing, BLPOP waits for one. */
static int recv_many(struct bench_pair *p, uint8_t *room, size_t size, size_t n, const void **messages) {
    struct connection *c = peer_state(p);
    drop_reply(c);
    c->reply = redisCommand(c->redis, "LPOP %s %d", c->in, (int)n);
    if (c->reply && c->reply->type == REDIS_REPLY_NIL) return recv_(p, room, size, &messages[0]) < 0 ? -1 : 1;
    if (!c->reply || c->reply->type != REDIS_REPLY_ARRAY) return failed(p, c, "LPOP");
    for (size_t i = 0; i < c->reply->elements; i++) {
        if ((size_t)c->reply->element[i]->len != size) return bench_fail(p, "a value of another size arrived");
        messages[i] = c->reply->element[i]->str;
    }
    return (int)c->reply->elements;
}

static const struct peer redis = {
    .name = "redis",
    .what = "Redis list over a Unix socket, RPUSH to BLPOP",
    .how = "blocks in a server of its own, nothing kept on disk; batches are pipelined and taken by LPOP of 16; copied by "
           "the kernel four times",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_BATCHES | PEER_COPIES,
    .flags = PEER_SERVED | PEER_CREDIT,
    .probe = probe, .serve = serve,
    .open = open_, .close = close_, .send = send_, .recv = recv_, .send_many = send_many, .recv_many = recv_many,
};
const struct peer *const bench_peers[] = {&redis, NULL};
