/* SPDX-License-Identifier: MIT */
/*
 * Eclipse iceoryx2 by its C binding: a publish-subscribe service of slices each
 * way, without safe overflow, so that nothing is lost; no daemon. Send loans a
 * sample, writes into it and sends it; receive takes the sample and reads it in
 * place, and drops it with the next one; loans go without a copy. Awake, the
 * subscriber is polled, as in iceoryx2's own benchmark; asleep, an event service
 * beside it tells: a listener that blocks, a notifier after each send. A
 * publisher that finds the subscriber's buffer full yields and sleeps; so that it
 * need not, the benchmark holds it back before, at no cost.
 *
 * No package of Debian's: XI_BENCH_ICEORYX2 names where a build of it is.
 */
#include <iox2/iceoryx2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peer.h"

/* As many samples as are on the way may be held at once, each as large as the run's: of large ones, few. */
enum { DEEP = 256, DEEP_LARGE = 4, LARGE = 1 << 16, WORD = sizeof(uint64_t) };

/* What is made for one direction. `wakes` and what belongs to it: asleep alone. */
struct way {
    iox2_port_factory_pub_sub_h service;
    iox2_port_factory_event_h wakes;
};

struct node {
    iox2_node_h node;
    struct way way[2]; /* from side 0, from side 1 */
    iox2_publisher_h out;
    iox2_subscriber_h in;
    iox2_notifier_h bell;
    iox2_listener_h ear;
    iox2_sample_h sample; /* what was received last, or NULL; it lies in `room` */
    iox2_sample_t room;
    iox2_sample_mut_t loan_room;
};

static int failed(struct bench_pair *p, const char *what, int rc) { return bench_fail(p, "%s failed with %d", what, rc); }

/* What this run makes, files and shared memory, goes by the name of its folder, and is found in no other's way. */
static int make_node(struct bench_pair *p, struct node *n) {
    const char *folder = peer_folder(p);
    char prefix[64];
    iox2_config_h config = NULL;
    iox2_node_builder_h builder = iox2_node_builder_new(NULL);
    snprintf(prefix, sizeof prefix, "%.60s_", strrchr(folder, '/') + 1);
    int rc = iox2_config_default(NULL, &config);
    if (rc == IOX2_OK) rc = iox2_config_global_set_prefix(&config, prefix);
    if (rc == IOX2_OK) rc = iox2_config_global_set_root_path(&config, folder);
    if (rc != IOX2_OK) return failed(p, "making a configuration", rc);
    iox2_node_builder_set_config(&builder, &config);
    iox2_node_builder_set_signal_handling_mode(&builder, iox2_signal_handling_mode_e_DISABLED);
    rc = iox2_node_builder_create(builder, NULL, iox2_service_type_e_IPC, &n->node);
    iox2_config_drop(config);
    return rc == IOX2_OK ? 0 : failed(p, "making a node", rc);
}

/* A builder of the service of that name, by which publish-subscribe and event services are made alike. */
static iox2_service_builder_h service_builder(struct node *n, int from) {
    const char *text = from == 0 ? "there" : "back";
    iox2_service_name_h name = NULL;
    if (iox2_service_name_new(NULL, text, strlen(text), &name) != IOX2_OK) return NULL;
    iox2_service_builder_h builder = iox2_node_service_builder(&n->node, NULL, iox2_cast_service_name_ptr(name));
    iox2_service_name_drop(name);
    return builder;
}

static size_t deep(const struct bench_pair *p) { return peer_size(p) > LARGE ? DEEP_LARGE : DEEP; }

static int open_service(struct bench_pair *p, struct node *n, int from) {
    iox2_service_builder_h builder = service_builder(n, from);
    if (!builder) return bench_fail(p, "naming a service failed");
    iox2_service_builder_pub_sub_h pub_sub = iox2_service_builder_pub_sub(builder);
    int rc = iox2_service_builder_pub_sub_set_payload_type_details(&pub_sub, iox2_type_variant_e_DYNAMIC, "u64", 3, WORD, WORD);
    if (rc != IOX2_OK) return failed(p, "setting a type", rc);
    iox2_service_builder_pub_sub_set_max_publishers(&pub_sub, 1);
    iox2_service_builder_pub_sub_set_max_subscribers(&pub_sub, 1);
    iox2_service_builder_pub_sub_set_history_size(&pub_sub, 0);
    iox2_service_builder_pub_sub_set_subscriber_max_buffer_size(&pub_sub, deep(p));
    iox2_service_builder_pub_sub_set_enable_safe_overflow(&pub_sub, false);
    rc = iox2_service_builder_pub_sub_open_or_create(pub_sub, NULL, &n->way[from].service);
    return rc == IOX2_OK ? 0 : failed(p, "opening a service", rc);
}

static int open_event(struct bench_pair *p, struct node *n, int from) {
    iox2_service_builder_h builder = service_builder(n, from);
    if (!builder) return bench_fail(p, "naming a service failed");
    int rc = iox2_service_builder_event_open_or_create(iox2_service_builder_event(builder), NULL, &n->way[from].wakes);
    return rc == IOX2_OK ? 0 : failed(p, "opening an event service", rc);
}

static int open_ports(struct bench_pair *p, struct node *n) {
    struct way *out = &n->way[peer_side(p)], *in = &n->way[!peer_side(p)];
    iox2_port_factory_publisher_builder_h publisher = iox2_port_factory_pub_sub_publisher_builder(&out->service, NULL);
    iox2_port_factory_publisher_builder_set_initial_max_slice_len(&publisher, peer_size(p) / WORD);
    int rc = iox2_port_factory_publisher_builder_create(publisher, NULL, &n->out);
    if (rc != IOX2_OK) return failed(p, "making a publisher", rc);
    rc = iox2_port_factory_subscriber_builder_create(iox2_port_factory_pub_sub_subscriber_builder(&in->service, NULL), NULL, &n->in);
    if (rc != IOX2_OK || !peer_asleep(p)) return rc == IOX2_OK ? 0 : failed(p, "making a subscriber", rc);
    rc = iox2_port_factory_notifier_builder_create(iox2_port_factory_event_notifier_builder(&out->wakes, NULL), NULL, &n->bell);
    if (rc == IOX2_OK)
        rc = iox2_port_factory_listener_builder_create(iox2_port_factory_event_listener_builder(&in->wakes, NULL), NULL, &n->ear);
    return rc == IOX2_OK ? 0 : failed(p, "making a notifier and a listener", rc);
}

static bool found_each_other(struct bench_pair *p, struct node *n) {
    struct way *out = &n->way[peer_side(p)];
    return iox2_port_factory_pub_sub_dynamic_config_number_of_subscribers(&out->service) == 1 &&
           (!n->bell || iox2_port_factory_event_dynamic_config_number_of_listeners(&out->wakes) == 1);
}

/* One side makes the services, the other opens them: who opens while they are made is told so by an error. */
static int open_services(struct bench_pair *p, struct node *n) {
    for (int turn = 0; turn < 2; turn++) {
        for (int from = 0; turn == peer_side(p) && from < 2; from++)
            if (open_service(p, n, from) < 0 || (peer_asleep(p) && open_event(p, n, from) < 0)) return -1;
        peer_meet(p);
    }
    return 0;
}

static int open_(struct bench_pair *p) {
    struct node *n = calloc(1, sizeof *n);
    if (!n) return bench_fail(p, "out of memory");
    peer_keep(p, n);
    iox2_set_log_level(iox2_log_level_e_FATAL);
    if (make_node(p, n) < 0 || open_services(p, n) < 0 || open_ports(p, n) < 0) return -1;
    for (int tries = 0; !found_each_other(p, n);)
        if (!peer_patience(&tries)) return bench_fail(p, "publisher and subscriber do not find each other");
    int rc = iox2_publisher_update_connections(&n->out);
    if (rc != IOX2_OK) return failed(p, "connecting", rc);
    peer_meet(p);
    return 0;
}

static void done(struct bench_pair *p) {
    struct node *n = peer_state(p);
    if (n->sample) iox2_sample_drop(n->sample);
    n->sample = NULL;
}

static void close_(struct bench_pair *p) {
    struct node *n = peer_state(p);
    done(p);
    iox2_publisher_drop(n->out);
    iox2_subscriber_drop(n->in);
    if (n->bell) iox2_notifier_drop(n->bell);
    if (n->ear) iox2_listener_drop(n->ear);
    for (int from = 0; from < 2; from++) {
        iox2_port_factory_pub_sub_drop(n->way[from].service);
        if (n->way[from].wakes) iox2_port_factory_event_drop(n->way[from].wakes);
    }
    iox2_node_drop(n->node);
    free(n);
}

/* Loans room for `size` bytes, of which it fills the first `used`, and sends it. */
static int send_loan(struct bench_pair *p, size_t size, const void *bytes, size_t used) {
    struct node *n = peer_state(p);
    iox2_sample_mut_h loan = NULL;
    void *payload = NULL;
    int rc = iox2_publisher_loan_slice_uninit(&n->out, &n->loan_room, &loan, size / WORD);
    if (rc != IOX2_OK) return failed(p, "taking a loan", rc);
    iox2_sample_mut_payload_mut(&loan, &payload, NULL);
    memcpy(payload, bytes, used);
    rc = iox2_sample_mut_send(loan, NULL);
    if (rc == IOX2_OK && n->bell) rc = iox2_notifier_notify(&n->bell, NULL);
    return rc == IOX2_OK ? 0 : failed(p, "sending", rc);
}

static int send_(struct bench_pair *p, const void *message, size_t size) { return send_loan(p, size, message, size); }

static int wait_for_bell(struct bench_pair *p, struct node *n) {
    iox2_event_id_t id;
    bool rung = false;
    int rc = iox2_listener_blocking_wait_one(&n->ear, &id, &rung);
    return rc == IOX2_OK ? 0 : failed(p, "waiting for an event", rc);
}

static int take(struct bench_pair *p, const void **payload) {
    struct node *n = peer_state(p);
    done(p);
    for (;;) {
        int rc = iox2_subscriber_receive(&n->in, &n->room, &n->sample);
        if (rc != IOX2_OK) return failed(p, "receiving", rc);
        if (n->sample) break;
        if (!n->ear)
            peer_relax();
        else if (wait_for_bell(p, n) < 0)
            return -1;
    }
    iox2_sample_payload(&n->sample, payload, NULL);
    return 0;
}

static int recv_(struct bench_pair *p, void *room, size_t size, const void **message) {
    (void)room;
    (void)size;
    return take(p, message);
}

static int lend(struct bench_pair *p, size_t size, const uint64_t words[2]) {
    return send_loan(p, size, words, 2 * sizeof words[0]);
}

static int borrow(struct bench_pair *p, size_t size, uint64_t words[2]) {
    const void *payload = NULL;
    (void)size;
    if (take(p, &payload) < 0) return -1;
    memcpy(words, payload, 2 * sizeof words[0]);
    done(p);
    return 0;
}

static const struct peer iceoryx2 = {
    .name = "iceoryx2",
    .what = "Eclipse iceoryx2, publish-subscribe of slices, C binding",
    .how = "awake: polls; asleep: a listener, told by a notifier after each send. Copied into a loaned sample and read in place; "
           "loans not copied at all",
    .can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_COPIES | PEER_LOANS,
    .flags = PEER_CREDIT,
    .window = 192,
    .open = open_, .close = close_, .send = send_, .recv = recv_, .done = done, .lend = lend, .borrow = borrow,
};
const struct peer *const bench_peers[] = {&iceoryx2, NULL};
