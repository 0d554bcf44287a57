/* SPDX-License-Identifier: MIT */
/*
 * The peers: those that are part of this program, and those that are modules in
 * ../lib/xidata-bench from where it lies. A module brings a library, and that
 * may bring threads, signal handlers and hooks into malloc; so nobody loads one
 * but the process that measures it. Here, what is to be said of a peer is asked
 * of a process that is forked for it, loads the module, lets it look whether
 * what it needs is there, and writes struct peer_info into shared memory. A
 * module that crashes is skipped like one that is missing.
 */
#include "bench/peers.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern const struct peer peer_xi, peer_pipe, peer_unix, peer_seqpacket, peer_mq;
static const struct peer *const own[] = {&peer_xi, &peer_pipe, &peer_unix, &peer_seqpacket, &peer_mq};
enum { OWN = sizeof own / sizeof *own, PEERS_MOST = 80 };

/* In the order of the report. `missing`: what to say when there is no such module. */
static const struct {
    const char *name, *module, *missing;
} modules[] = {
    {"boost", "peer_boost.so", "was not built: needs Boost.Interprocess (Debian: libboost-dev) and a C++ compiler"},
    {"zeromq", "peer_zeromq.so", "was not built: needs ZeroMQ (Debian: libzmq3-dev)"},
    {"nng", "peer_nng.so", "was not built: needs nng (Debian: libnng-dev)"},
    {"mpich", "peer_mpich.so", "was not built: needs MPICH (Debian: mpich libmpich-dev)"},
    {"openmpi", "peer_openmpi.so", "was not built: needs Open MPI (Debian: openmpi-bin libopenmpi-dev)"},
    {"redis", "peer_redis.so", "was not built: needs hiredis (Debian: libhiredis-dev redis-tools)"},
    {"nats", "peer_nats.so", "was not built: needs the NATS client (Debian: libnats-dev nats-server)"},
    {"iceoryx", "peer_iceoryx.so", "was not built: needs iceoryx (Debian: libiceoryx-binding-c-dev iceoryx)"},
    {"iceoryx2", "peer_iceoryx2.so", "was not built: set XI_BENCH_ICEORYX2 to where a build of iceoryx2 with its C binding is, and configure anew"},
    {"aeron", "peer_aeron.so", "was not built: set XI_BENCH_AERON to where a build of Aeron with its C client is, and configure anew"},
};
enum { MODULES = sizeof modules / sizeof *modules };

static struct peer_info *found; /* shared with the processes that fill it in */
static size_t found_count;

/* ---- loading ---- */

/* XI_BENCH_MODULES: another folder of modules, for tests. */
static void module_path(char path[PATH_MAX], const char *module) {
    const char *folder = getenv("XI_BENCH_MODULES");
    if (folder)
        snprintf(path, PATH_MAX, "%.4000s/%.64s", folder, module);
    else
        snprintf(path, PATH_MAX, "%.3900s/../lib/xidata-bench/%.64s", bench_own_folder(), module);
}

static const struct peer *own_by_name(const char *name) {
    for (int i = 0; i < OWN; i++)
        if (strcmp(own[i]->name, name) == 0) return own[i];
    return NULL;
}

/* Global: some libraries load further parts of themselves, which look for the first part there. */
static const struct peer *const *module_peers(const char *module, char *why, size_t capacity) {
    char path[PATH_MAX];
    module_path(path, module);
    void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    const struct peer *const *peers = handle ? dlsym(handle, "bench_peers") : NULL;
    if (!peers) snprintf(why, capacity, "%s", dlerror());
    return peers;
}

const struct peer *peers_load(const struct peer_info *info, char *why, size_t capacity) {
    snprintf(why, capacity, "no peer is called %s", info->name);
    if (!info->module[0]) return own_by_name(info->name);
    const struct peer *const *peers = module_peers(info->module, why, capacity);
    for (; peers && *peers; peers++)
        if (strcmp((*peers)->name, info->name) == 0) return *peers;
    return NULL;
}

/* ---- finding ---- */

static void describe(struct peer_info *info, const struct peer *peer) {
    snprintf(info->name, sizeof info->name, "%s", peer->name);
    snprintf(info->what, sizeof info->what, "%s", peer->what);
    snprintf(info->how, sizeof info->how, "%s", peer->how);
    info->can = peer->can;
    info->flags = peer->flags;
    info->largest = peer->largest;
    info->skipped[0] = 0;
    if (peer->probe && peer->probe(info->skipped, sizeof info->skipped) < 0) {
        if (!info->skipped[0]) snprintf(info->skipped, sizeof info->skipped, "does not work here");
        return;
    }
    info->skipped[0] = 0;
}

static void look(struct peer_info *info) {
    char why[sizeof info->skipped];
    const struct peer *peer = peers_load(info, why, sizeof why);
    if (peer)
        describe(info, peer);
    else
        memcpy(info->skipped, why, sizeof why);
}

/* In a process of its own: it may load anything, and may crash. */
static void look_apart(struct peer_info *info) {
    int parent = (int)getpid();
    snprintf(info->skipped, sizeof info->skipped, "looking whether it works ended badly");
    fflush(NULL);
    int pid = fork();
    if (pid == 0) {
        bench_follow_parent(parent);
        look(info);
        _exit(0);
    }
    if (pid > 0) bench_wait(pid);
}

static bool named(const char *wanted, const char *name) {
    size_t length = strlen(name);
    if (strcmp(wanted, "all") == 0) return true;
    for (const char *at = wanted; (at = strstr(at, name)) != NULL; at += length)
        if ((at == wanted || at[-1] == ',') && (at[length] == ',' || at[length] == 0)) return true;
    return false;
}

static struct peer_info *add(const char *name) {
    struct peer_info *info = &found[found_count++];
    snprintf(info->name, sizeof info->name, "%.*s", (int)sizeof info->name - 1, name);
    return info;
}

static int find_modules(const char *wanted) {
    for (int i = 0; i < MODULES; i++) {
        char path[PATH_MAX];
        if (!named(wanted, modules[i].name)) continue;
        struct peer_info *info = add(modules[i].name);
        snprintf(info->module, sizeof info->module, "%s", modules[i].module);
        snprintf(info->what, sizeof info->what, "%s", modules[i].name);
        module_path(path, modules[i].module);
        if (access(path, R_OK) == 0)
            look_apart(info);
        else
            snprintf(info->skipped, sizeof info->skipped, "%s", modules[i].missing);
    }
    return 0;
}

/* A name in the list that nobody answers to is a mistake, not a skipped peer. */
static int check_names(const char *wanted) {
    char list[512], *rest = list, *name;
    snprintf(list, sizeof list, "%s", wanted);
    while ((name = strsep(&rest, ",")) != NULL) {
        bool known = strcmp(name, "all") == 0 || own_by_name(name);
        for (int i = 0; i < MODULES; i++) known |= strcmp(name, modules[i].name) == 0;
        if (!known) return fprintf(stderr, "xi-bench: --peers: no peer is called %s\n", name), -1;
    }
    return 0;
}

int peers_find(const char *wanted) {
    found = mmap(NULL, PEERS_MOST * sizeof *found, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) return perror("xi-bench: mmap"), -1;
    look(add(peer_xi.name));
    if (!wanted) return 0;
    if (check_names(wanted) < 0) return -1;
    for (int i = 1; i < OWN; i++)
        if (named(wanted, own[i]->name)) look_apart(add(own[i]->name));
    return find_modules(wanted);
}

void peers_say_skipped(const char *name, const char *what, const char *why) {
    if (found_count == PEERS_MOST) return;
    struct peer_info *info = add(name);
    snprintf(info->what, sizeof info->what, "%s", what);
    snprintf(info->skipped, sizeof info->skipped, "%s", why);
}

size_t peers_count(void) { return found_count; }
const struct peer_info *peers_at(size_t i) { return &found[i]; }
const struct peer_info *peers_xi(void) { return &found[0]; }

/* ---- a folder, a server ---- */

int peers_folder_make(char path[64]) {
    snprintf(path, 64, "/tmp/xi-bench.XXXXXX");
    if (mkdtemp(path)) return 0;
    path[0] = 0;
    return -1;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s;
    (void)type;
    (void)at;
    return remove(path);
}

static void remove_tree(const char *path) {
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
        fprintf(stderr, "xi-bench: cannot remove %s: %s\n", path, strerror(errno));
}

/* What a side that was killed left behind in `folder` by a name of this run: segments, sockets, locks. */
static void sweep(const char *folder, const char *tag) {
    char path[PATH_MAX];
    DIR *d = opendir(folder);
    if (!d) return; /* no such place here: nothing lies there */
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (!strstr(e->d_name, tag)) continue;
        snprintf(path, sizeof path, "%.64s/%s", folder, e->d_name);
        remove_tree(path);
    }
    closedir(d);
}

void peers_folder_remove(const char *path) {
    if (!path[0]) return;
    const char *tag = strrchr(path, '/') + 1; /* unlike any other's: adapters name by it what lies elsewhere */
    remove_tree(path);
    sweep("/dev/shm", tag);
    sweep("/tmp", tag);
}

int peers_server_start(const struct peer_info *info, const char *folder) {
    int parent = (int)getpid();
    fflush(NULL);
    int pid = fork();
    if (pid != 0) return pid;
    char why[240];
    bench_follow_parent(parent);
    const struct peer *peer = peers_load(info, why, sizeof why);
    if (peer && peer->serve) peer->serve(folder);
    fprintf(stderr, "xi-bench: the server of %s does not start: %s\n", info->name, peer ? strerror(errno) : why);
    _exit(127);
}

void peers_server_stop(int pid) {
    kill(pid, SIGTERM);
    bench_wait(pid);
}
