/* SPDX-License-Identifier: MIT */
/*
 * Any bytes from any number of clients, in any order with deaths and failures:
 * first the check of packets, then the core's decisions, whose invariants must
 * hold at the end.
 *
 * The input is a list of steps. A step's first byte: the connection (low three
 * bits) and what happens (the rest). A packet is followed by a byte: its length
 * (of 400, 0 means all), and by that many bytes. If its first byte is 0xff, the
 * head of a right request is put before it, so that mutation gets to the point. A
 * short request is right but for what its eight bytes say: op, six arguments, and
 * which name. As the first step a namespace may be opened to other users, or one
 * be there already that a dead broker left.
 */
#include <stdlib.h>
#include <string.h>

#include "request.h"
#include "state.h"
#include "xidata.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(condition)                                                                                                \
    do                                                                                                                 \
        if (!(condition)) __builtin_trap();                                                                            \
    while (0)

enum { CONNS = 8 };

struct fuzz {
    struct state st;
    bool connected[CONNS];
};

static void feed(struct fuzz *f, const struct event *event);

/* What the world would answer at once. */
static void follow(struct fuzz *f, const struct action *a) {
    must(a->kind != ACTION_REPLY || a->reply.status <= 0);
    must(a->slot < XI_MAX_INTERPS);
    if (a->kind == ACTION_DROP && a->conn && a->conn <= CONNS && f->connected[a->conn - 1]) {
        f->connected[a->conn - 1] = false;
        feed(f, &(struct event){.kind = EVENT_DISCONNECT, .conn = a->conn});
    }
    if (a->kind == ACTION_CHECK) feed(f, &(struct event){.kind = EVENT_EMPTY, .channel = a->channel});
}

static void feed(struct fuzz *f, const struct event *event) {
    state_step(&f->st, event);
    uint32_t n = f->st.action_count;
    struct action *list = memory_or_die(NULL, n + 1u, sizeof *list);
    if (n) memcpy(list, f->st.actions, n * sizeof *list);
    for (uint32_t i = 0; i < n; i++) follow(f, &list[i]);
    free(list);
}

static size_t packet(struct fuzz *f, unsigned k, const uint8_t *data, size_t size) {
    static const struct xi_request right = {
        .magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .op = XI_OP_JOIN, .serial = 1};
    uint8_t bytes[sizeof right + 1];
    if (size < 2) return size;
    size_t length = data[0] ? data[0] : sizeof right, taken = length < size - 1 ? length : size - 1;
    bool headed = data[1] == 0xff;
    if (taken > sizeof bytes) taken = sizeof bytes;
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, data + 1, taken);
    if (headed) { /* the byte after 0xff is the op */
        uint8_t op = taken > 1 ? data[2] : 0;
        memcpy(bytes, &right, 16);
        bytes[6] = op;
        length = sizeof right;
    }
    struct xi_request q;
    int status;
    const char *why;
    enum check verdict = request_check(bytes, length < sizeof bytes ? length : sizeof bytes, &q, &status, &why);
    if (verdict != CHECK_OK) must(status < 0 && why[0]);
    if (verdict == CHECK_OK) feed(f, &(struct event){.kind = EVENT_REQUEST, .conn = k + 1, .request = &q});
    return taken + 1;
}

/* A request of eight bytes: arguments below 240 are meant so, others are large. */
static size_t short_packet(struct fuzz *f, unsigned k, const uint8_t *d, size_t size) {
    static const char *const names[] = {"a", "b", "jobs", ".reply/1"};
    static const uint64_t large[] = {4096,      65536,         (uint64_t)1 << 20, (uint64_t)1 << 30, UINT32_MAX,  (uint64_t)1 << 36,
                                     INT64_MAX, XI_WIRE_ADOPT, 0x104,             5,                 UINT64_MAX, 8192,
                                     512,       1 << 14,       3600000000000,     (uint64_t)1 << 63};
    struct xi_request checked, q = {.magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .op = 1, .serial = 1};
    uint64_t *const arguments[] = {&q.a, &q.b, &q.c, &q.d, &q.e, &q.g};
    int status;
    const char *why;
    if (size < 8) return size;
    q.op = d[0];
    for (int i = 0; i < 6; i++) *arguments[i] = d[i + 1] < 240 ? d[i + 1] : large[d[i + 1] - 240];
    strcpy(q.name, names[d[7] & 3]);
    if (d[7] & 4) strcpy(q.other, names[d[7] >> 3 & 3]);
    if (d[7] & 32) q.access[0] = (struct xi_access){.kind = d[7] & 64 ? XI_ACCESS_ALL : XI_ACCESS_USER, .rights = 3, .id = 1001};
    if (request_check((const uint8_t *)&q, sizeof q, &checked, &status, &why) == CHECK_OK)
        feed(f, &(struct event){.kind = EVENT_REQUEST, .conn = k + 1, .request = &checked});
    return 8;
}

/* What a dead broker left: two interpreters, one of them an orphan, and a channel with a table of deliveries. */
static void adopt(struct fuzz *f) {
    struct chan ch = {.id = 1, .segment = 10, .mode = XI_QUEUE, .capacity = 4096, .grow_max = 8192, .uid = 1000, .name = "jobs"};
    state_adopt_counters(&f->st, 5, 20, 3);
    state_adopt_interp(&f->st, &(struct adopted_interp){.slot = 1, .id = 1, .pid = 1, .uid = 1000, .start = 5, .used = true});
    state_adopt_interp(&f->st, &(struct adopted_interp){.slot = 2, .id = 2, .pid = 2, .uid = 1000, .start = 5, .orphan = true});
    state_adopt_segment(&f->st, 1, &(struct held){2, XI_SEG_OWN, XI_OWN_SIZE, XI_OWN_SIZE, 0});
    state_adopt_segment(&f->st, 1, &(struct held){4, XI_SEG_MAILBOX, XI_MAILBOX_SIZE, XI_MAILBOX_SIZE, 0});
    state_adopt_segment(&f->st, 2, &(struct held){6, XI_SEG_ARENA, 8192, 8192 + XI_RELEASE_SIZE(8192), 0});
    state_adopt_channel(&f->st, 0, &ch);
    state_adopt_part(&f->st, 0, &(struct part){.number = 12, .kind = XI_SEG_ACKS, .size = XI_ACKS_SIZE(8), .uid = 1000, .maker = 1});
    state_adopt_done(&f->st);
    feed(f, &(struct event){.kind = EVENT_ADOPTED});
}

static void connection(struct fuzz *f, unsigned k, bool connect) {
    if (f->connected[k] == connect) return;
    f->connected[k] = connect;
    feed(f, &(struct event){.kind = connect ? EVENT_CONNECT : EVENT_DISCONNECT,
                            .conn = k + 1,
                            .uid = 1000 + k / 6,
                            .pid = (int)(1 + k / 2),
                            .start = 5});
}

static void about(struct fuzz *f, enum event_kind kind, unsigned slot) {
    slot %= 16;
    feed(f, &(struct event){.kind = kind, .slot = slot, .id = f->st.interps[slot].id});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz f = {0};
    struct state_limits limits = {.bytes = 8 << 20, .segments = 64, .channels = 16, .interps = 12};
    state_init(&f.st, &limits, 42);
    for (size_t at = 0; at < size;) {
        unsigned k = data[at] & 7, what = data[at] >> 3;
        bool first = at++ == 0;
        switch (what) {
        case 0: connection(&f, k, false); break;
        case 1: about(&f, EVENT_DEATH, k + 1); break;
        case 2: about(&f, EVENT_REPAIRED, k + 1); break;
        case 3: about(&f, EVENT_UNNAMED, k + 1); break;
        case 4: about(&f, EVENT_SETTLED, k + 1); break;
        case 5: feed(&f, &(struct event){.kind = EVENT_FAILED, .status = XI_E_NOSPACE, .text = "full"}); break;
        case 6: feed(&f, &(struct event){.kind = EVENT_EMPTY, .channel = k}); break;
        case 24: if (first) state_open(&f.st, 1000, &limits); break;
        case 25: feed(&f, &(struct event){.kind = EVENT_ENDED, .channel = k}); break;
        case 26: feed(&f, &(struct event){.kind = EVENT_PART_UNUSED, .channel = k & 1, .number = 12 + (k & 6)}); break;
        case 27: if (k == 7) feed(&f, &(struct event){.kind = EVENT_SHUTDOWN}); break;
        case 28:
        case 29: connection(&f, k, true); at += short_packet(&f, k, data + at, size - at); break;
        case 30: if (first) adopt(&f); break;
        default: connection(&f, k, true); at += packet(&f, k, data + at, size - at);
        }
    }
    const char *why;
    must(state_is_valid(&f.st, &why));
    state_deinit(&f.st);
    return 0;
}
