/* SPDX-License-Identifier: MIT */
#include "names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../error.h"
#include "access.h"
#include "layout.h"

bool xi_ns_valid(const char *ns) {
    size_t n = 0;
    if (!ns || ns[0] == '.') return false;
    for (; ns[n]; n++) {
        char c = ns[n];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
                  c == '-';
        if (!ok || n >= XI_NS_MAX) return false;
    }
    return n > 0;
}

void xi_lane_name(int64_t id, char name[80]) { snprintf(name, 80, XI_LANE_PREFIX "%lld", (long long)id); }
bool xi_lane_named(const char *name) { return strncmp(name, XI_LANE_PREFIX, strlen(XI_LANE_PREFIX)) == 0; }

bool xi_channel_name_valid(const char *name, size_t max) {
    if (!name || !name[0]) return false;
    size_t n = strnlen(name, max + 1);
    if (n > max) return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f) return false;
    return xi_check_text(XI_UTF8, 0, name, n) == 0;
}

const char *xi_ns_default(void) {
    const char *ns = getenv("XI_NAMESPACE");
    return ns && ns[0] ? ns : "default";
}

static int invalid_ns(const char *ns) {
    return xi_fail(XI_E_INVAL, "namespace \"%.40s\": use 1 to 31 of A-Z a-z 0-9 _ . -, not beginning with a dot; USER/NAME "
                   "for one of another user", ns ? ns : "");
}

void xi_place_spell(struct xi_place *p) { snprintf(p->text, sizeof p->text, "%u/%s", (unsigned)p->uid, p->ns); }

int xi_place_parse(const char *text, struct xi_place *out) {
    struct xi_place p = {.uid = getuid()};
    if (!text) text = xi_ns_default();
    const char *slash = strchr(text, '/'), *ns = slash ? slash + 1 : text;
    if (!xi_ns_valid(ns)) return invalid_ns(text);
    if (slash) {
        uint32_t uid;
        int rc = xi_user_parse(text, (size_t)(slash - text), &uid);
        if (rc) return rc;
        p.foreign = uid != p.uid;
        p.uid = uid;
    }
    snprintf(p.ns, sizeof p.ns, "%s", ns);
    memcpy(p.text, p.ns, sizeof p.ns);
    if (p.foreign) xi_place_spell(&p);
    *out = p;
    return 0;
}

void xi_shm_registry_name(char out[XI_SHM_NAME_MAX], uid_t uid, const char *ns) {
    snprintf(out, XI_SHM_NAME_MAX, "/xi.%u.%.31s.registry", (unsigned)uid, ns);
}

void xi_shm_segment_name(char out[XI_SHM_NAME_MAX], uid_t uid, const char *ns, uint64_t epoch, uint32_t number) {
    snprintf(out, XI_SHM_NAME_MAX, "/xi.%u.%.31s.%08x.%08x", (unsigned)uid, ns, (unsigned)(uint32_t)epoch,
             (unsigned)number);
}

bool xi_shm_name_parse(const char *file, uid_t *uid, char ns[32], uint64_t *epoch, uint32_t *number) {
    unsigned u;
    int at = 0;
    if (sscanf(file, "xi.%u.%n", &u, &at) != 1 || at == 0) return false;
    const char *rest = file + at;
    size_t n = strlen(rest);
    unsigned e = 0, s = 0;
    size_t tail;
    int used = 0;
    if (n > 9 && strcmp(rest + n - 9, ".registry") == 0) {
        tail = 9;
    } else if (n > 18 && sscanf(rest + n - 18, ".%8x.%8x%n", &e, &s, &used) == 2 && used == 18) {
        tail = 18;
    } else {
        return false;
    }
    if (n - tail > XI_NS_MAX) return false;
    memcpy(ns, rest, n - tail);
    ns[n - tail] = 0;
    if (!xi_ns_valid(ns)) return false;
    *uid = u;
    *epoch = e;
    *number = s;
    return true;
}

int xi_runtime_dir(char *out, size_t capacity) {
    const char *dir = getenv("XI_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
    int n;
    if (dir && dir[0])
        n = snprintf(out, capacity, "%s", dir);
    else if (xdg && xdg[0] && access(xdg, W_OK | X_OK) == 0)
        n = snprintf(out, capacity, "%s/xidata", xdg);
    else
        n = snprintf(out, capacity, "/tmp/xidata-%u", (unsigned)getuid());
    if (n < 0 || (size_t)n >= capacity)
        return xi_fail(XI_E_INVAL, "the runtime folder's path is too long (%d bytes); set XI_RUNTIME_DIR to a shorter one", n);
    return 0;
}

static int path_in_runtime(char *out, size_t capacity, const char *ns, const char *suffix) {
    char dir[108];
    int rc = xi_runtime_dir(dir, sizeof dir);
    if (rc) return rc;
    if (!xi_ns_valid(ns)) return invalid_ns(ns);
    int n = snprintf(out, capacity, "%s/%s%s", dir, ns, suffix);
    if (n < 0 || (size_t)n >= capacity)
        return xi_fail(XI_E_INVAL, "path %s/%s%s is too long for a socket (107 bytes); set XI_RUNTIME_DIR to a shorter one", dir, ns, suffix);
    return 0;
}

int xi_open_dir(char *out, size_t capacity, uid_t uid, unsigned which) {
    static const char *const usual[] = {"/run/xidata", "/tmp"};
    const char *given = getenv("XI_OPEN_DIR");
    bool set = given && given[0];
    if (which >= (set ? 1u : XI_OPEN_PLACES) || (!set && access(usual[which], F_OK) != 0)) return XI_E_NOENT;
    int n = snprintf(out, capacity, "%s/xidata-open-%u", set ? given : usual[which], (unsigned)uid);
    if (n < 0 || (size_t)n >= capacity)
        return xi_fail(XI_E_INVAL, "the path of the folder for open namespaces is too long (%d bytes); set XI_OPEN_DIR to a "
                       "shorter one", n);
    return 0;
}

int xi_open_socket_path(char *out, size_t capacity, uid_t uid, const char *ns, unsigned which) {
    char dir[108];
    int rc = xi_open_dir(dir, sizeof dir, uid, which);
    if (rc) return rc;
    if (!xi_ns_valid(ns)) return invalid_ns(ns);
    int n = snprintf(out, capacity, "%s/%s.sock", dir, ns);
    if (n < 0 || (size_t)n >= capacity)
        return xi_fail(XI_E_INVAL, "path %s/%s.sock is too long for a socket (107 bytes); set XI_OPEN_DIR to a shorter one", dir, ns);
    return 0;
}

int xi_socket_path(char *out, size_t capacity, const char *ns) { return path_in_runtime(out, capacity, ns, ".sock"); }
int xi_lock_path(char *out, size_t capacity, const char *ns) { return path_in_runtime(out, capacity, ns, ".lock"); }
