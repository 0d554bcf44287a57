/* SPDX-License-Identifier: MIT */
/*
 * The broker's side of a service manager's store of descriptors; the header has
 * the model. Names there are xi-NS-NUMBER (eight hexadecimal digits) and
 * xi-NS-lock, -socket, -open: no colons, for $LISTEN_FDNAMES has them in between.
 *
 * What a manager hands in may be anything that once was under that name, by an
 * earlier version or another namespace: each descriptor is looked at before it is
 * used, here for what it is, and by adopt.c for whether it fits the rest.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "error.h"
#include "log.h"
#include "pass.h"
#include "table.h"
#include "wire/layout.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define FIRST_HANDED 3         /* of $LISTEN_FDS, as sd_listen_fds(3) says */
#define HANDED_MOST (1l << 20) /* no process has more descriptors, unless it was told to */
#define ANSWER_MS 5000         /* a manager that loads its units answers nobody meanwhile */
#define PATIENCE_US 500000     /* as long as a keeper is waited for */
#define NAME_MOST 64u

/* A segment is its number; beyond those are the other things. */
#define KEY_OF(thing) (((uint64_t)1 << 32) + (thing))
static const char *const thing_name[STORE_THINGS] = {"lock", "socket", "open"};

struct handed {
    char name[NAME_MOST];
    const char *fault; /* NULL: it is sound */
    int fd;
    uint64_t key;
};

static struct {
    int socket; /* -1: there is no manager */
    bool keeps, warned; /* that it takes nothing */
    struct sockaddr_un address;
    socklen_t length;
    const char *ns;
    char *names;           /* $LISTEN_FDNAMES, until it is looked at */
    uint32_t open, said;   /* descriptors that were open, of those that were said to be */
    struct kept *found;
    uint32_t count;
    int thing[STORE_THINGS];
    struct table behind; /* key + 1 to descriptor + 1, or 0 when it is gone: what could not be told yet */
} store = {.socket = -1, .thing = {-1, -1, -1}};

bool store_keeps(void) { return store.keeps; }

/* ---- the environment */

static void find_manager(void) {
    const char *path = getenv("NOTIFY_SOCKET"), *ours = getenv("SYSTEMD_EXEC_PID");
    struct timeval patience = {.tv_usec = PATIENCE_US};
    if (!path || !path[0]) return;
    if (ours && strtol(ours, NULL, 10) != getpid()) return; /* it manages whoever started us */
    size_t n = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || n < 2 || n >= sizeof store.address.sun_path) {
        fprintf(stderr, "xi-broker: NOTIFY_SOCKET is no socket that can be written to: \"%s\"\n", path);
        return;
    }
    store.address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(store.address.sun_path, path, n);
    if (path[0] == '@') store.address.sun_path[0] = 0;
    store.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (path[0] == '/'));
    store.socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (store.socket < 0)
        fprintf(stderr, "xi-broker: cannot make a socket to tell the service manager anything: %s\n", strerror(errno));
    else
        (void)setsockopt(store.socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

/* How many lie there, from the first on: what is opened later is ours, whatever the environment says. */
static void find_handed(void) {
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
    if (!pid || !count || strtol(pid, NULL, 10) != getpid()) return;
    long said = strtol(count, NULL, 10);
    store.said = said > 0 && said < HANDED_MOST ? (uint32_t)said : 0;
    while (store.open < store.said && fcntl((int)store.open + FIRST_HANDED, F_SETFD, FD_CLOEXEC) == 0) store.open++;
    store.names = names ? strdup(names) : NULL;
}

void store_begin(const char *ns, bool managed) {
    static const char *const variables[] = {"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"};
    store.ns = ns;
    if (managed) find_handed(); /* before this process makes a descriptor, which could be one of these */
    if (managed) find_manager();
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) unsetenv(variables[i]);
}

/* ---- telling */

static bool send_note(const char *text, int fd, int flags) {
    size_t size = strlen(text); /* it waits for SNDTIMEO at most */
    return pass(store.socket, &store.address, store.length, text, size, &fd, fd >= 0, flags) == (ssize_t)size;
}

void store_say(const char *state) {
    if (store.socket >= 0 && !send_note(state, -1, 0))
        log_line("cannot tell the service manager \"%s\": %s", state, strerror(errno));
}

static void name_of(char out[NAME_MOST], uint64_t key) {
    if (key < KEY_OF(0))
        snprintf(out, NAME_MOST, "xi-%s-%08x", store.ns, (unsigned)key);
    else
        snprintf(out, NAME_MOST, "xi-%s-%s", store.ns, thing_name[key - KEY_OF(0)]);
}

static bool say_removed(const char *name, int flags) {
    char text[NAME_MOST + 40];
    snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%s", name);
    return send_note(text, -1, flags);
}

/* FDPOLL: the manager is not to drop what it thinks is hung up. */
static bool say_stored(const char *name, int fd, int flags) {
    char text[NAME_MOST + 40];
    snprintf(text, sizeof text, "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
    return send_note(text, fd, flags);
}

static bool say(uint64_t key, int fd, int flags) {
    char name[NAME_MOST];
    name_of(name, key);
    return fd >= 0 ? say_stored(name, fd, flags) : say_removed(name, flags);
}

/* Of what waited nothing is known but how it is to be now; there must not be two of a name. */
static bool settle(int flags) {
    uint64_t key, fd;
    for (uint32_t at = 0; table_next(&store.behind, &at, &key, &fd); at = 0) {
        if (!say(key - 1, -1, flags) || (fd && !say(key - 1, (int)fd - 1, flags))) return false;
        table_drop(&store.behind, key);
    }
    if (store.warned) log_line("the service manager knows everything again that it is to keep");
    store.warned = false;
    return true;
}

bool store_settle(void) { return settle(MSG_DONTWAIT); }

void store_end(void) {
    if (!settle(0))
        log_line("the service manager could not be told to drop all that it keeps of this namespace; the next broker will do that");
    table_clear(&store.behind);
}

/* What is to be kept is worth waiting for, before anybody else has it; what is to go is not. */
static void tell(uint64_t key, int fd) {
    if (!store.keeps) return;
    bool behind = !settle(MSG_DONTWAIT);
    if (!behind && say(key, fd, fd >= 0 ? 0 : MSG_DONTWAIT)) return;
    if (fd >= 0 && !store.warned)
        log_line("the service manager takes nothing just now (%s): what is made before it does ends with this broker when that is "
                 "killed", strerror(errno));
    store.warned |= fd >= 0;
    *table_put(&store.behind, key + 1) = (uint64_t)(fd + 1);
}

void store_hold(uint32_t number, int fd) { tell(number, fd); }
void store_drop(uint32_t number) { tell(number, -1); }
void store_hold_thing(enum store_thing thing, int fd) { tell(KEY_OF(thing), fd); }
void store_drop_thing(enum store_thing thing) { tell(KEY_OF(thing), -1); }

/* ---- whether it keeps anything */

/* The manager closes the barrier when it has taken all that was sent before (sd_notify_barrier(3)). */
static bool is_kept(const int probe[2], const int barrier[2], const char *name) {
    bool sent = say_stored(name, probe[1], 0) && send_note("BARRIER=1", barrier[1], 0);
    close(probe[1]);
    close(barrier[1]);
    struct pollfd passed = {barrier[0], 0, 0}, closed = {probe[0], 0, 0}; /* POLLHUP is always reported */
    int n = 0;
    while (sent && (n = poll(&passed, 1, ANSWER_MS)) < 0 && errno == EINTR) continue;
    if (n != 1) return false;
    while ((n = poll(&closed, 1, 0)) < 0 && errno == EINTR) continue;
    return n == 0;
}

static bool try_manager(void) {
    char name[NAME_MOST];
    int probe[2], barrier[2];
    if (pipe2(probe, O_CLOEXEC) != 0) return false;
    bool kept = false;
    snprintf(name, sizeof name, "xi-%s-probe", store.ns);
    if (pipe2(barrier, O_CLOEXEC) == 0) {
        kept = is_kept(probe, barrier, name);
        close(barrier[0]);
        if (!say_removed(name, 0)) kept = false;
    } else
        close(probe[1]);
    close(probe[0]);
    return kept;
}

/* ---- what it hands in */

static bool head_fits(const struct xi_segment *head, uint32_t number) {
    return head->number == number && (head->kind == XI_SEG_REGISTRY) == (number == 0);
}

/* Why this cannot be the segment of that number, or NULL. */
static const char *segment_fault(int fd, uint32_t number) {
    struct xi_segment head;
    struct stat st;
    const int needed = F_SEAL_SHRINK | F_SEAL_SEAL | (number ? F_SEAL_GROW : 0);
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0) return "it is not a memfd";
    if ((seals & needed) != needed) return "it is not sealed against changes of size";
    if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) || (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR) return "it cannot be written";
    if (fstat(fd, &st) != 0 || st.st_uid != geteuid()) return "it belongs to another user";
    if (st.st_size < XI_PAGE || st.st_size % XI_PAGE != 0) return "it is of a size that no segment has";
    if (pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head || head.magic != XI_LAYOUT_MAGIC) return "it is not a xidata segment";
    if (head.version != XI_LAYOUT_VERSION) return "it is of another version of xidata";
    return head_fits(&head, number) ? NULL : "it is another segment than its name says";
}

/* False: no name of ours. */
static bool key_of(const char *name, uint64_t *key) {
    char again[NAME_MOST];
    size_t n = strlen(store.ns);
    if (strncmp(name, "xi-", 3) != 0 || strncmp(name + 3, store.ns, n) != 0 || name[3 + n] != '-') return false;
    *key = strtoull(name + n + 4, NULL, 16);
    for (uint64_t i = 0; i < STORE_THINGS; i++)
        if (strcmp(name + n + 4, thing_name[i]) == 0) *key = KEY_OF(i);
    if (*key >= KEY_OF(STORE_THINGS)) return false;
    name_of(again, *key);
    return strcmp(again, name) == 0;
}

static const char *handed_fault(struct handed *h) {
    if (!key_of(h->name, &h->key)) return "its name is none that this namespace has";
    if (h->key >= KEY_OF(0)) {
        if (store.thing[h->key - KEY_OF(0)] >= 0) return "there are two of it";
        store.thing[h->key - KEY_OF(0)] = h->fd; /* looked at by who takes it */
        return NULL;
    }
    const char *fault = segment_fault(h->fd, (uint32_t)h->key);
    for (uint32_t i = 0; i < store.count && !fault; i++)
        if (store.found[i].number == h->key) fault = "there are two of it";
    if (!fault) store.found[store.count++] = (struct kept){(uint32_t)h->key, h->fd};
    return fault;
}

/* Takes it out of the store, unless one that is used has the same name, or it is nothing that a broker put there. */
static void return_to_sender(const struct handed *all, const struct handed *h) {
    bool used = false;
    for (uint32_t i = 0; i < store.open && !used; i++) used = !all[i].fault && strcmp(all[i].name, h->name) == 0;
    log_line("descriptor \"%.*s\" that the service manager hands in is refused: %s", (int)sizeof h->name, h->name, h->fault);
    if (!used && store.socket >= 0 && strncmp(h->name, "xi-", 3) == 0 && !say_removed(h->name, 0))
        log_line("cannot tell the service manager to drop \"%s\": %s", h->name, strerror(errno));
    close(h->fd);
}

static void take_handed(void) {
    struct handed *all = memory_or_die(NULL, store.open + 1u, sizeof *all);
    char *rest = store.names;
    store.found = memory_or_die(NULL, store.open + 1u, sizeof *store.found);
    if (store.open < store.said)
        log_line("LISTEN_FDS promises %u descriptors and there are %u", store.said, store.open);
    for (uint32_t i = 0; i < store.open; i++) {
        const char *name = rest ? strsep(&rest, ":") : "";
        all[i] = (struct handed){.fd = (int)i + FIRST_HANDED};
        memcpy(all[i].name, name, strnlen(name, NAME_MOST - 1));
        all[i].fault = handed_fault(&all[i]);
    }
    for (uint32_t i = 0; i < store.open; i++)
        if (all[i].fault) return_to_sender(all, &all[i]);
    free(all);
    free(store.names);
    store.names = NULL;
}

void store_open(bool wanted) {
    take_handed();
    bool had = store.count > 0;
    for (int i = 0; i < STORE_THINGS; i++) had |= store.thing[i] >= 0;
    if (store.socket < 0 || (!wanted && !had)) return;
    store.keeps = had || try_manager();
    if (!store.keeps)
        log_line("the service manager keeps no descriptors (FileDescriptorStoreMax= is to be set, see xi-broker(1)): there will be a "
                 "process that does");
}

const struct kept *store_found(uint32_t *count) {
    *count = store.count;
    return store.found;
}

int store_take(enum store_thing thing) {
    int fd = store.thing[thing];
    store.thing[thing] = -1;
    return fd;
}

void store_refuse(enum store_thing thing, int fd, const char *fault) {
    log_line("the %s that the service manager hands in is refused: %s", thing_name[thing], fault);
    store_drop_thing(thing);
    close(fd);
}
