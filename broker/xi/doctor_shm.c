/* SPDX-License-Identifier: MIT */
/*
 * Namespaces of this user and what is left over of dead ones.
 *
 * A file of a namespace is a leftover if the namespace has no registry, if its
 * epoch is not the registry's, or if neither the broker nor any interpreter in
 * the registry is alive. In the last case the values that it holds are not
 * lost: a new broker adopts them. So they are removed only by --force.
 *
 * Removing excludes brokers as a starting broker does: by the namespace's lock,
 * which is held until the files are gone. What is alive is judged again under
 * the lock, and nothing is removed of a namespace that has any life in it but
 * other epochs' files, which nobody can ever use.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor.h"
#include "wire/names.h"
#include "wire/segment.h"
#include "xi.h"

/* The files of one namespace: files[0..count). */
struct group {
    const struct shm_file *files;
    size_t count;
    const char *ns;
    bool has_registry;
    struct shm_namespace look;
};

enum verdict { VERDICT_IN_USE, VERDICT_OTHER_EPOCH, VERDICT_ABANDONED };

static enum verdict judge(const struct group *g, const struct shm_file *f) {
    if (!g->has_registry) return VERDICT_ABANDONED;
    if (!g->look.readable) return VERDICT_IN_USE; /* not to be judged: it is told apart below */
    if (!f->registry && (uint32_t)f->epoch != (uint32_t)g->look.epoch) return VERDICT_OTHER_EPOCH;
    return g->look.broker_alive || g->look.interps_alive ? VERDICT_IN_USE : VERDICT_ABANDONED;
}

static size_t count_verdict(const struct group *g, enum verdict v, uint64_t *bytes) {
    size_t n = 0;
    *bytes = 0;
    for (size_t i = 0; i < g->count; i++)
        if (judge(g, &g->files[i]) == v) {
            n++;
            *bytes += g->files[i].bytes;
        }
    return n;
}

/* Values in a namespace that nobody serves. */
static uint64_t undelivered(const struct group *g) {
    xi_observer *o;
    xi_channel_info *list = NULL;
    uint64_t values = 0;
    if (!g->has_registry || xi_observe(g->ns, &o) != 0) return 0;
    int64_t n = xi_list_channels(o, NULL, 0);
    if (n > 0) list = calloc((size_t)n, sizeof *list);
    if (list) {
        int64_t got = xi_list_channels(o, list, (size_t)n);
        for (int64_t i = 0; i < got && i < n; i++) values += list[i].depth;
    }
    free(list);
    xi_observer_free(o);
    return values;
}

/* ---- removing ---- */

/* The namespace's lock, as its broker takes it. -1 after a message: somebody has it. */
static int take_lock(const char *ns) {
    char dir[PATH_MAX], path[PATH_MAX];
    if (xi_runtime_dir(dir, sizeof dir) != 0 || xi_lock_path(path, sizeof path, ns) != 0) {
        advise("not removed: %s", xi_error_text(XI_E_INVAL));
        return -1;
    }
    int fd = mkdir(dir, 0700) == 0 || errno == EEXIST ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
    if (errno == EWOULDBLOCK)
        advise("not removed: a broker of this namespace is starting or running");
    else
        advise("not removed: cannot take %s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return -1;
}

static size_t remove_verdict(const struct group *g, enum verdict v) {
    size_t n = 0;
    char name[sizeof g->files[0].name + 1];
    for (int registry = 0; registry < 2; registry++) /* the registry last: without it the others cannot be judged */
        for (size_t i = 0; i < g->count; i++) {
            const struct shm_file *f = &g->files[i];
            if (judge(g, f) != v || f->registry != registry) continue;
            snprintf(name, sizeof name, "/%s", f->name);
            xi_segment_remove(name, -1, 0);
            snprintf(name, sizeof name, "%s", f->name);
            char path[128];
            snprintf(path, sizeof path, "/dev/shm/%s", name);
            if (access(path, F_OK) == 0)
                advise("not removed: %s", path);
            else
                n++;
        }
    return n;
}

static void fix(struct doctor *d, const struct group *g, enum verdict v, uint64_t values) {
    struct group again = *g;
    if (values > 0 && !d->force) {
        d->bad++;
        advise("not removed, because of those values: receive them, or: xi doctor --fix --force");
        return;
    }
    int lock = v == VERDICT_ABANDONED ? take_lock(g->ns) : -2;
    if (lock == -1) {
        d->bad++;
        return;
    }
    again.has_registry = shm_namespace_look(getuid(), g->ns, &again.look);
    uint64_t bytes;
    char text[24];
    size_t want = count_verdict(&again, v, &bytes), removed = remove_verdict(&again, v);
    if (removed < want) d->bad++;
    advise("removed: %zu file%s, %s", removed, removed == 1 ? "" : "s", human_bytes(bytes, text));
    if (lock >= 0) close(lock);
}

static void show_commands(const struct group *g, enum verdict v) {
    uint32_t last = 0;
    bool any = false;
    for (size_t i = 0; i < g->count; i++) {
        const struct shm_file *f = &g->files[i];
        if (judge(g, f) != v) continue;
        if (f->registry)
            advise("do: rm /dev/shm/%s", f->name);
        else if (!any || (uint32_t)f->epoch != last) /* sorted by name, so by epoch */
            advise("do: rm /dev/shm/xi.%u.%s.%08x.[0-9a-f]*", (unsigned)f->uid, f->ns, (unsigned)(uint32_t)f->epoch);
        if (!f->registry) {
            any = true;
            last = (uint32_t)f->epoch;
        }
    }
}

/* ---- one namespace ---- */

static void leftovers(struct doctor *d, const struct group *g, enum verdict v, const char *why) {
    uint64_t bytes, values = v == VERDICT_ABANDONED ? undelivered(g) : 0;
    char text[24], what[64];
    size_t n = count_verdict(g, v, &bytes);
    if (n == 0) return;
    snprintf(what, sizeof what, "ns %s", g->ns);
    found(d, d->fix ? FINDING_NOTE : FINDING_BAD, what, "%zu stale file%s, %s: %s", n, n == 1 ? "" : "s", human_bytes(bytes, text), why);
    if (values > 0)
        advise("they hold %" PRIu64 " undelivered values, which a new broker would serve: xi recv -n %s CHANNEL (xi ls -n %s)",
               values, g->ns, g->ns);
    if (d->fix) {
        fix(d, g, v, values);
        return;
    }
    show_commands(g, v);
    advise("or: xi doctor --fix%s", values > 0 ? " --force" : "");
}

static void one_namespace(struct doctor *d, struct group *g) {
    char what[64];
    snprintf(what, sizeof what, "ns %s", g->ns);
    const struct shm_namespace *l = &g->look;
    if (!g->has_registry) {
        leftovers(d, g, VERDICT_ABANDONED, "the namespace has no registry");
        return;
    }
    if (!l->readable) {
        found(d, FINDING_BAD, what, "its registry cannot be read: %s", l->problem);
        advise("if nothing of it runs any more: rm /dev/shm/xi.%u.%s.registry, then xi doctor again", (unsigned)getuid(), g->ns);
        return;
    }
    if (l->broker_alive)
        found(d, FINDING_OK, what, "broker %d, %u interpreters", l->broker_pid, l->interps_alive);
    else if (l->interps_alive)
        found(d, FINDING_NOTE, what, "broker %d has died; %u interpreters live and go on, and start another when they need one",
              l->broker_pid, l->interps_alive);
    else
        leftovers(d, g, VERDICT_ABANDONED, "its broker and all its interpreters have died");
    leftovers(d, g, VERDICT_OTHER_EPOCH, "of an earlier namespace of this name");
}

void doctor_shm(struct doctor *d) {
    struct shm_file *files;
    size_t count, others = 0, mine = 0;
    fflush(stdout);
    int rc = shm_scan(&files, &count);
    if (rc < 0) {
        found(d, FINDING_BAD, "namespaces", "cannot read /dev/shm: %s", strerror(-rc));
        return;
    }
    for (size_t i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && files[i + n].uid == files[i].uid && strcmp(files[i + n].ns, files[i].ns) == 0; n++) {}
        if (d->ns && strcmp(d->ns, files[i].ns) != 0) continue;
        if (files[i].uid != getuid()) {
            others++;
            continue;
        }
        struct group g = {.files = files + i, .count = n, .ns = files[i].ns};
        g.has_registry = shm_namespace_look(getuid(), g.ns, &g.look);
        one_namespace(d, &g);
        mine++;
    }
    if (mine == 0) found(d, FINDING_OK, "namespaces", "none%s%s, and nothing left behind", d->ns ? " named " : "", d->ns ? d->ns : "");
    if (others) found(d, FINDING_OK, "namespaces", "%zu of other users, not looked at", others);
    free(files);
}
