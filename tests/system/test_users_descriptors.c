/* SPDX-License-Identifier: MIT */
/*
 * Which descriptors a broker gives to processes of other users, asked in its own
 * protocol as a hostile program would, and that no descriptor gives more than was
 * given: not by mapping it again, opening it again through /proc, changing its
 * mode, its size or its seals.
 */
#include <sys/socket.h>

#include "interp/interp.h"
#include "users.h"
#include "wire/layout.h"

#define LAB "61001/lab"

/* What Alice tells the others, who could guess it just as well: numbers are no secrets. */
static struct told {
    uint32_t own, mailbox, arena, borrows;
    uint64_t slot;
    int64_t id;
} *told;
static struct gate ready, done;

/* ---- Alice */

static void alice_serves(void *unused) {
    (void)unused;
    xi_interp *me = join_ns("lab", "alice", 0);
    xi_channel *in = open_with(me, "from-bob", &(xi_open_opts){.access = "61002:w"});
    xi_channel *out = open_with(me, "to-bob", &(xi_open_opts){.access = "61002:r"});
    xi_channel *mine = open_with(me, "mine", NULL);
    xi_loan loan;
    must(xi_loan_get(me, 100000, &loan));
    const struct xi_slot *s = NULL;
    const struct xi_registry *r = xi_observer_registry(xi_observer_of(me));
    for (uint32_t i = 1; i < XI_MAX_INTERPS; i++)
        if (r->slots[i].id == xi_id(me)) s = &r->slots[i];
    expect(s != NULL && s->uid == alice.uid, "Alice is not in the registry");
    *told = (struct told){.own = s->own_seg, .mailbox = s->mailbox_seg, .arena = loan.handle.segment, .id = xi_id(me)};
    gate_lift(&ready, 1);
    gate_pass(&done);
    xi_loan_drop(&loan);
    must(xi_channel_free(in));
    must(xi_channel_free(out));
    must(xi_channel_free(mine));
    must(xi_leave(me));
}

/* ---- a client that is nothing but the protocol */

struct raw {
    int socket, fds[XI_WIRE_FDS];
    uint32_t serial;
    struct xi_reply reply;
};

static struct raw dial(void) {
    struct raw c = {.fds = {-1, -1, -1}};
    struct xi_place lab;
    must(xi_place_parse(LAB, &lab));
    must(xi_broker_connect(&lab, &c.socket));
    return c;
}

static void drop_fds(struct raw *c) { xi_close_all(c->fds, XI_WIRE_FDS); }

/* Its status. The descriptors that came before are closed. */
static int ask(struct raw *c, struct xi_request q) {
    drop_fds(c);
    q.serial = ++c->serial;
    must_sys(send(c->socket, &q, sizeof q, MSG_NOSIGNAL));
    do expect(xi_packet_receive(c->socket, &c->reply, c->fds, 0) == 1, "the broker hung up");
    while (c->reply.serial != q.serial);
    return c->reply.status;
}

static int ask_about(struct raw *c, enum xi_op op, uint64_t a) {
    struct xi_request q;
    xi_request_init(&q, op);
    q.a = a;
    return ask(c, q);
}

static int ask_open(struct raw *c, const char *name, uint64_t flags) {
    struct xi_request q;
    xi_request_init(&q, XI_OP_OPEN);
    snprintf(q.name, sizeof q.name, "%s", name);
    q.c = flags | XI_OPEN_EXISTING;
    return ask(c, q);
}

static int ask_close(struct raw *c, uint64_t id, uint64_t flags) {
    struct xi_request q;
    xi_request_init(&q, XI_OP_CLOSE);
    q.a = id;
    q.c = flags;
    return ask(c, q);
}

static void join_raw(struct raw *c) {
    struct xi_request q;
    xi_request_init(&q, XI_OP_JOIN);
    snprintf(q.name, sizeof q.name, "raw");
    snprintf(q.text, sizeof q.text, "c");
    must(ask(c, q));
}

/* ---- what a descriptor gives */

static int reopen(int fd, int flags) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, flags | O_CLOEXEC);
    if (again >= 0) close(again);
    return again >= 0 ? 0 : errno;
}

/* That being refused below means something: one's own can be opened again in this way. */
static void reopening_works_at_all(void) {
    int fd = memfd_create("control", MFD_CLOEXEC);
    must_sys(fd);
    expect(reopen(fd, O_RDWR) == 0 && reopen(fd, O_RDONLY) == 0, "/proc/self/fd is not to be had: %s", strerror(errno));
    close(fd);
}

#define refused(call, error, what)                                                                                     \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        long rc_ = (long)(call);                                                                                       \
        expect(rc_ == -1 && errno == (error), "%s: %ld, %s", what, rc_, strerror(errno));                              \
    } while (0)

static void same_for_all(int fd, const char *what) {
    struct stat st;
    must_sys(fstat(fd, &st));
    expect((st.st_mode & 07777) == 0600 && st.st_uid == alice.uid, "%s has mode %o of user %u", what, (unsigned)st.st_mode,
           (unsigned)st.st_uid);
    refused(fchmod(fd, 0666), EPERM, what);
    refused(fchown(fd, getuid(), getgid()), EPERM, what);
    expect(reopen(fd, O_RDWR) == EACCES, "%s was opened again for writing", what);
    expect(reopen(fd, O_WRONLY) == EACCES, "%s was opened again for writing", what);
}

static void read_only(int fd, const char *what) {
    expect(fd >= 0, "%s: no descriptor came", what);
    same_for_all(fd, what);
    refused(mmap(NULL, XI_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EACCES, what);
    void *map = mmap(NULL, XI_PAGE, PROT_READ, MAP_SHARED, fd, 0);
    expect(map != MAP_FAILED, "%s cannot be read: %s", what, strerror(errno));
    refused(mprotect(map, XI_PAGE, PROT_READ | PROT_WRITE), EACCES, what);
    refused(madvise(map, XI_PAGE, MADV_REMOVE), EACCES, what);
    munmap(map, XI_PAGE);
    refused(pwrite(fd, "x", 1, XI_PAGE), EBADF, what);
    refused(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, XI_PAGE), EBADF, what);
    refused(ftruncate(fd, 0), EINVAL, what);
    refused(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM, what);
}

static void writable(int fd, const char *what) {
    struct stat st;
    expect(fd >= 0, "%s: no descriptor came", what);
    same_for_all(fd, what);
    must_sys(fstat(fd, &st));
    refused(ftruncate(fd, 0), EPERM, what);
    refused(ftruncate(fd, st.st_size + XI_PAGE), EPERM, what);
    refused(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM, what);
    void *map = mmap(NULL, XI_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    expect(map != MAP_FAILED, "%s cannot be mapped: %s", what, strerror(errno));
    munmap(map, XI_PAGE);
}

#define must_refuse(call) expect((call) == XI_E_ACCESS, "answered with %s", xi_error_name(c.reply.status))

/* ---- Bob, who may receive on one channel and send on another */

static void bob_asks(void *unused) {
    (void)unused;
    reopening_works_at_all();
    struct raw c = dial();
    must_refuse(ask_about(&c, XI_OP_SHUTDOWN, 0));
    join_raw(&c);
    read_only(c.fds[0], "registry");
    writable(c.fds[1], "own segment");
    writable(c.fds[2], "own mailbox");
    /* Sending to her makes her bells his to ring, not her values his to read. */
    must(ask_open(&c, "from-bob", XI_OPEN_SEND));
    writable(c.fds[0], "channel");
    must(ask_about(&c, XI_OP_SEGMENT, told->mailbox));
    writable(c.fds[0], "Alice's mailbox");
    must_refuse(ask_about(&c, XI_OP_SEGMENT, told->arena));
    must_refuse(ask_about(&c, XI_OP_SEGMENT, told->arena + 1));
    must_refuse(ask_open(&c, "to-bob", XI_OPEN_SEND));
    must_refuse(ask_about(&c, XI_OP_SEGMENT, told->arena)); /* having asked opens nothing */
    must(ask_open(&c, "to-bob", XI_OPEN_RECV));
    must(ask_close(&c, c.reply.a, XI_OPEN_RECV)); /* a value may be read after its channel was closed */
    must(ask_about(&c, XI_OP_SEGMENT, told->arena));
    read_only(c.fds[0], "Alice's arena");
    must(ask_about(&c, XI_OP_SEGMENT, told->arena + 1));
    writable(c.fds[0], "Alice's release words");
    must_refuse(ask_about(&c, XI_OP_SEGMENT, told->own));
    must_refuse(ask_about(&c, XI_OP_OBSERVE, told->own));
    expect(ask_about(&c, XI_OP_SEGMENT, 1) == XI_E_NOENT, "the broker's own memory was given away");
    expect(ask_about(&c, XI_OP_OBSERVE, 1) == XI_E_NOENT, "the broker's own memory was given away");
    expect(ask_about(&c, XI_OP_SEGMENT, 0) == XI_E_NOENT, "the registry was given away as a segment");
    must_refuse(ask_about(&c, XI_OP_REF, (uint64_t)told->id));
    drop_fds(&c);
    close(c.socket);
}

/* ---- Carol, who has joined and opened nothing */

static uint32_t channel_segment(int registry, const char *name) {
    const struct xi_registry *r = mmap(NULL, XI_REGISTRY_SIZE(XI_REGISTRY_CHANNELS_FIRST), PROT_READ, MAP_SHARED, registry, 0);
    uint32_t segment = 0;
    expect(r != MAP_FAILED, "%s", strerror(errno));
    for (uint32_t i = 0; i < XI_REGISTRY_CHANNELS_FIRST; i++)
        if (r->channels[i].id && strcmp(r->channels[i].name, name) == 0) segment = r->channels[i].segment;
    expect(segment != 0, "no channel %s", name);
    munmap((void *)(uintptr_t)r, XI_REGISTRY_SIZE(XI_REGISTRY_CHANNELS_FIRST));
    return segment;
}

static void carol_asks(void *unused) {
    (void)unused;
    struct raw c = dial();
    must(ask_about(&c, XI_OP_OBSERVE, 0));
    read_only(c.fds[0], "registry");
    uint32_t to_bob = channel_segment(c.fds[0], "to-bob"), mine = channel_segment(c.fds[0], "mine");
    join_raw(&c);
    const uint32_t others[] = {told->own, told->mailbox, told->arena, told->arena + 1, to_bob, mine};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        must_refuse(ask_about(&c, XI_OP_SEGMENT, others[i]));
        must_refuse(ask_about(&c, XI_OP_OBSERVE, others[i]));
    }
    must_refuse(ask_open(&c, "mine", XI_OPEN_RECV));
    must_refuse(ask_open(&c, "mine", XI_WIRE_ADOPT)); /* saying that one had it does not help */
    must_refuse(ask_open(&c, "to-bob", 0));
    expect(ask_about(&c, XI_OP_CLOSE, 1) == XI_E_NOENT, "closed another's handle");
    expect(ask_about(&c, XI_OP_DROP, told->arena) == XI_E_NOENT, "dropped another's arena");
    drop_fds(&c);
    close(c.socket);
}

static void everything(void *unused) {
    (void)unused;
    pid_t broker = open_lab("61002,61003");
    told = shared_memory(sizeof *told);
    ready = gate_new();
    done = gate_new();
    pid_t serving = spawn_as(&alice, alice_serves);
    gate_pass(&ready);
    run_as(&bob, bob_asks, "bob");
    run_as(&carol, carol_asks, "carol");
    gate_lift(&done, 1);
    reap_ok(serving, "alice");
    stop_broker(broker);
}

int main(void) { return run_in_place(everything); }
