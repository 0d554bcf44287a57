/* SPDX-License-Identifier: MIT */
/* Starting a broker, and a client of it that is nothing but this file and docs/protocol.md. */
#ifndef XI_TESTS_BROKER_CLIENT_H
#define XI_TESTS_BROKER_CLIENT_H

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wire/layout.h"
#include "wire/names.h"
#include "wire/order.h"
#include "wire/protocol.h"
#include "xidata.h"

static char ns[32];
static pid_t broker;

/* ---- processes ---- */

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Looks until `condition`, for conditions that nothing announces. */
#define AWAIT(condition)                                                                                               \
    do {                                                                                                               \
        int64_t until_ = now_ms() + 10000;                                                                             \
        while (!(condition) && now_ms() < until_) poll(NULL, 0, 2);                                                    \
        ck_assert_msg((condition), "never came true: %s", #condition);                                                 \
    } while (0)

static const char *binary(void) {
    static char path[512];
    const char *build = getenv("XI_BUILD"), *named = getenv("XI_BROKER");
    if (named) return named;
    snprintf(path, sizeof path, "%s/bin/xi-broker", build ? build : ".");
    return path;
}

/* Starts a broker with up to two more arguments; returns what it says on its ready descriptor. */
static const char *start(const char *more, const char *more2) {
    static char said[256];
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    broker = fork();
    if (broker == 0) {
        char fd[12];
        close(ends[0]);
        snprintf(fd, sizeof fd, "%d", ends[1]);
        execl(binary(), "xi-broker", "-n", ns, "--ready-fd", fd, more, more ? more2 : NULL, NULL);
        _exit(127);
    }
    close(ends[1]);
    size_t n = 0;
    ssize_t got;
    while (n < sizeof said - 1 && (got = read(ends[0], said + n, sizeof said - 1 - n)) > 0) n += (size_t)got;
    said[n] = 0;
    said[strcspn(said, "\n")] = 0;
    close(ends[0]);
    return said;
}

static int end_of(pid_t pid) {
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static void stop(void) {
    kill(broker, SIGTERM);
    int status = end_of(broker);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the broker ended with status %x", (unsigned)status);
}

static unsigned files(void) {
    unsigned count = 0;
    DIR *dir = opendir("/dev/shm");
    for (struct dirent *e; (e = readdir(dir));) {
        uid_t uid;
        char of[32];
        uint64_t epoch;
        uint32_t number;
        count += xi_shm_name_parse(e->d_name, &uid, of, &epoch, &number) && strcmp(of, ns) == 0;
    }
    closedir(dir);
    return count;
}

/* ---- a client ---- */

struct client {
    int fd;
    int64_t id;
    uint32_t slot, own, mailbox_seg;
    struct xi_registry *registry; /* read-only */
    struct xi_mailbox *mailbox;
    struct xi_own *own_map;
    int fds[XI_WIRE_FDS];
    unsigned fd_count;
};

static uint32_t serial;

static int dial(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    ck_assert_int_eq(xi_socket_path(a.sun_path, sizeof a.sun_path, ns), 0);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    close(fd);
    return -1;
}

static struct xi_request request(enum xi_op op) {
    return (struct xi_request){
        .magic = XI_WIRE_MAGIC, .version = XI_WIRE_VERSION, .op = (uint16_t)op, .serial = ++serial};
}

/* One packet. False: the connection ended. */
static bool receive(struct client *c, struct xi_reply *r) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(XI_WIRE_FDS * sizeof(int))];
    } control;
    struct iovec iov = {r, sizeof *r};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    c->fd_count = 0;
    ck_assert_msg(poll(&p, 1, 10000) == 1, "no packet within 10 s");
    ssize_t n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC);
    if (n <= 0) return false;
    ck_assert_int_eq(n, sizeof *r);
    ck_assert_uint_eq(r->magic, XI_WIRE_MAGIC);
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h; h = CMSG_NXTHDR(&msg, h)) {
        c->fd_count = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(c->fds, CMSG_DATA(h), c->fd_count * sizeof(int));
    }
    return true;
}

static void close_fds(struct client *c) {
    while (c->fd_count) close(c->fds[--c->fd_count]);
}

static struct xi_reply ask(struct client *c, struct xi_request q) {
    struct xi_reply r;
    ck_assert_int_eq(send(c->fd, &q, sizeof q, MSG_NOSIGNAL), sizeof q);
    do ck_assert_msg(receive(c, &r), "the broker hung up");
    while (r.serial == 0);
    ck_assert_uint_eq(r.serial, q.serial);
    ck_assert_uint_eq(r.op, q.op);
    if (r.status) ck_assert_msg(r.status < 0 && r.text[0], "refused with %d and no word", r.status);
    return r;
}

static struct xi_reply ask_a(struct client *c, enum xi_op op, uint64_t a) {
    struct xi_request q = request(op);
    q.a = a;
    struct xi_reply r = ask(c, q);
    close_fds(c);
    return r;
}

static struct xi_reply ask_open(struct client *c, const char *name, uint64_t mode, uint64_t flags) {
    struct xi_request q = request(XI_OP_OPEN);
    snprintf(q.name, sizeof q.name, "%s", name);
    q.a = mode;
    q.c = flags;
    return ask(c, q);
}

static struct xi_reply ask_join(struct client *c, uint64_t flags, uint64_t again) {
    struct xi_request q = request(XI_OP_JOIN);
    snprintf(q.name, sizeof q.name, "tester");
    snprintf(q.text, sizeof q.text, "c");
    q.a = flags;
    q.b = again;
    return ask(c, q);
}

static void *map(int fd, size_t size, int prot) {
    void *p = mmap(NULL, size, prot, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(p, MAP_FAILED);
    return p;
}

static struct client join_with(uint64_t flags, uint64_t again) {
    struct client c = {.fd = dial()};
    ck_assert_int_ge(c.fd, 0);
    struct xi_reply r = ask_join(&c, flags, again);
    ck_assert_msg(r.status == 0, "join: %s", r.text);
    ck_assert_uint_eq(c.fd_count, 3);
    c.id = (int64_t)r.a;
    c.slot = (uint32_t)r.b;
    c.own = (uint32_t)r.c;
    c.mailbox_seg = (uint32_t)r.d;
    c.registry = map(c.fds[0], XI_REGISTRY_SIZE(XI_MAX_CHANNELS), PROT_READ);
    ck_assert_ptr_eq(mmap(NULL, XI_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, c.fds[0], 0), MAP_FAILED); /* read-only */
    c.own_map = map(c.fds[1], XI_OWN_SIZE, PROT_READ | PROT_WRITE);
    c.mailbox = map(c.fds[2], XI_MAILBOX_SIZE, PROT_READ | PROT_WRITE);
    close_fds(&c);
    return c;
}

static struct client join(void) { return join_with(0, 0); }

static void hang_up(struct client *c) {
    close(c->fd);
    munmap(c->registry, XI_REGISTRY_SIZE(XI_MAX_CHANNELS));
    munmap(c->own_map, XI_OWN_SIZE);
    munmap(c->mailbox, XI_MAILBOX_SIZE);
}

static void leave(struct client *c) {
    struct xi_reply r = ask_a(c, XI_OP_LEAVE, 0);
    ck_assert_msg(r.status == 0, "leave: %s", r.text);
    hang_up(c);
}

static uint32_t slot_state(const struct client *c, uint32_t slot) {
    return xi_load_acquire(&c->registry->slots[slot].state);
}

static const struct xi_chan_entry *entry_of(const struct client *c, uint64_t id) {
    for (uint32_t i = 0; i < c->registry->channel_limit; i++)
        if (c->registry->channels[i].id == id) return &c->registry->channels[i];
    return NULL;
}

/* A child that joins, does something, and waits to be killed. *id is set when it has. */
static pid_t spawn(void (*fn)(struct client *c), int64_t *id) {
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct client c = join();
        if (fn) fn(&c);
        if (write(ends[1], &c.id, sizeof c.id) != sizeof c.id) _exit(1);
        for (;;) pause();
    }
    close(ends[1]);
    ck_assert_int_eq(read(ends[0], id, sizeof *id), sizeof *id);
    close(ends[0]);
    return pid;
}

static void kill_child(pid_t pid) {
    kill(pid, SIGKILL);
    end_of(pid);
}

#endif
