/* SPDX-License-Identifier: MIT */
/*
 * What of xidata lies in /dev/shm, and who of those that a registry names is
 * alive. Reads only; needs no broker.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire/names.h"
#include "wire/order.h"
#include "wire/segment.h"
#include "xi.h"

static int by_name(const void *a, const void *b) {
    const struct shm_file *x = a, *y = b;
    if (x->uid != y->uid) return x->uid < y->uid ? -1 : 1;
    int c = strcmp(x->ns, y->ns);
    return c ? c : strcmp(x->name, y->name);
}

/* Adds one directory entry if it is a segment. False without memory. */
static bool add(int dir, const char *name, struct shm_file **files, size_t *count, size_t *room) {
    struct shm_file f = {.registry = false};
    struct stat st;
    if (strlen(name) >= sizeof f.name || !xi_shm_name_parse(name, &f.uid, f.ns, &f.epoch, &f.number)) return true;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode)) return true; /* gone meanwhile */
    strcpy(f.name, name);
    f.bytes = (uint64_t)st.st_blocks * 512;
    size_t n = strlen(name);
    f.registry = n > 9 && strcmp(name + n - 9, ".registry") == 0;
    if (*count == *room) {
        size_t more = *room ? *room * 2 : 64;
        struct shm_file *grown = realloc(*files, more * sizeof *grown);
        if (!grown) return false;
        *files = grown;
        *room = more;
    }
    (*files)[(*count)++] = f;
    return true;
}

int shm_scan(struct shm_file **out, size_t *count) {
    struct shm_file *files = NULL;
    size_t n = 0, room = 0;
    DIR *dir = opendir("/dev/shm");
    if (!dir) return -errno;
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(dir)) != NULL;)
        if (!add(dirfd(dir), e->d_name, &files, &n, &room)) rc = -ENOMEM;
    closedir(dir);
    if (rc) {
        free(files);
        return rc;
    }
    if (n) qsort(files, n, sizeof *files, by_name);
    *out = files;
    *count = n;
    return 0;
}

bool process_alive(int32_t pid, uint64_t start_time) {
    char path[32], text[1024];
    if (pid <= 0) return false;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return false;
    text[n] = 0;
    const char *rest = strrchr(text, ')'); /* the name before it may hold anything */
    char state;
    unsigned long long start;
    if (!rest || sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                        &state, &start) != 2)
        return false;
    return state != 'Z' && state != 'X' && (start_time == 0 || start == start_time);
}

static void look_at_slots(const struct xi_registry *r, struct shm_namespace *out) {
    for (size_t i = 1; i < XI_MAX_INTERPS; i++) {
        const struct xi_slot *s = &r->slots[i];
        if (xi_load_acquire(&s->state) != XI_SLOT_LIVE) continue; /* pairs with the broker's release */
        int32_t pid = s->pid;
        uint64_t start = s->start_time;
        if (process_alive(pid, start))
            out->interps_alive++;
        else
            out->interps_dead++;
    }
}

bool shm_namespace_look(uid_t uid, const char *ns, struct shm_namespace *out) {
    char name[XI_SHM_NAME_MAX];
    struct xi_expect expect = {.kind = XI_SEG_REGISTRY};
    struct xi_map map;
    int fd;
    *out = (struct shm_namespace){.readable = false};
    xi_shm_registry_name(name, uid, ns);
    int rc = xi_segment_open(name, false, &fd);
    if (rc == XI_E_NOENT) return false;
    if (rc == 0) {
        rc = xi_segment_map(fd, false, false, &expect, &map);
        close(fd);
    }
    if (rc == 0 && map.size < sizeof(struct xi_registry)) {
        xi_unmap(&map);
        snprintf(out->problem, sizeof out->problem, "it is smaller than a registry");
        return true;
    }
    if (rc) {
        snprintf(out->problem, sizeof out->problem, "%s", xi_error_text(rc));
        return true;
    }
    const struct xi_registry *r = map.base;
    out->readable = true;
    out->epoch = map.head.epoch;
    out->broker_pid = r->broker_pid;
    out->broker_alive = process_alive(out->broker_pid, r->broker_start);
    look_at_slots(r, out);
    xi_unmap(&map);
    return true;
}
