/* SPDX-License-Identifier: MIT */
/* The list of cases: names, sizes, limits. What each measures is in the file of its command. */
#include "bench/suites.h"

#include "bench/measure.h"
#include "bench/peers.h"

#include <stdio.h>
#include <stdlib.h>

bool bench_wants(const struct bench_suite *s, uint64_t size) {
    return s->options->only_size == 0 || s->options->only_size == size;
}

void bench_size_label(char out[BENCH_LABEL], uint64_t bytes) {
    if (bytes >= 1u << 20 && bytes % (1u << 20) == 0)
        snprintf(out, BENCH_LABEL, "%lluMiB", (unsigned long long)(bytes >> 20));
    else if (bytes >= 4096 && bytes % 1024 == 0)
        snprintf(out, BENCH_LABEL, "%lluKiB", (unsigned long long)(bytes >> 10));
    else
        snprintf(out, BENCH_LABEL, "%llu", (unsigned long long)bytes);
}

/* The same text for as long as the process lives: names may come from what somebody else said. */
static const char *intern(const char *text) {
    static char *known[64];
    int i = 0;
    for (; i < 64 && known[i]; i++)
        if (strcmp(known[i], text) == 0) return known[i];
    return i < 64 ? known[i] = strdup(text) : NULL;
}

struct bench_case *bench_add(struct bench_suite *s, const char *metric, const char *system, uint64_t bytes) {
    system = intern(system);
    if (!system) return NULL;
    if (s->options->only_system && strcmp(s->options->only_system, system) != 0) return &s->unwanted;
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 64;
        struct bench_case *cases = realloc(s->cases, capacity * sizeof *cases);
        if (!cases) return NULL;
        s->cases = cases;
        s->capacity = capacity;
    }
    struct bench_case *c = &s->cases[s->count++];
    *c = (struct bench_case){.metric = metric, .system = system, .bytes = bytes};
    bench_size_label(c->label, bytes);
    return c;
}

void bench_limit(struct bench_case *c, const char *metric, const char *system, const char *label) {
    snprintf(c->limit, sizeof c->limit, "%s/%s/%s", metric, system, label ? label : c->label);
}

static int add_peer(struct bench_suite *s, const struct peer_info *peer, const char *metric, uint64_t bytes,
                    enum bench_measure measure, const char *limit_system, const char *limit_label) {
    if (peer->skipped[0] || (peer->can & bench_measures[measure].needs) == 0) return 0;
    if (peer->largest && bytes > peer->largest) return 0;
    struct bench_case *c = bench_add(s, metric, peer->name, bytes);
    if (!c) return -1;
    bench_limit(c, metric, limit_system, limit_label);
    c->needs_namespace = peer->flags & PEER_NAMESPACE;
    c->peer = peer;
    c->measure = measure;
    measure_fill(c);
    return 0;
}

int bench_add_xi(struct bench_suite *s, bool xi, const char *metric, uint64_t bytes, enum bench_measure measure,
                 const char *limit_system, const char *limit_label) {
    return xi ? add_peer(s, peers_xi(), metric, bytes, measure, limit_system, limit_label) : 0;
}

int bench_add_peers(struct bench_suite *s, bool xi, const char *metric, uint64_t bytes, enum bench_measure measure,
                    const char *limit_system, const char *limit_label) {
    for (size_t i = xi ? 0 : 1; i < peers_count(); i++)
        if (add_peer(s, peers_at(i), metric, bytes, measure, limit_system, limit_label) < 0) return -1;
    return 0;
}

int bench_add_size(struct bench_suite *s, bool xi, const char *metric, uint64_t bytes, enum bench_measure measure,
                   const char *limit_system, const char *limit_label) {
    bool peers = bytes != 24 || s->options->only_size == 24;
    return (peers ? bench_add_peers : bench_add_xi)(s, xi, metric, bytes, measure, limit_system, limit_label);
}
