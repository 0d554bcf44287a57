/* SPDX-License-Identifier: MIT */
/*
 * Namespaces that are open to other users: this user's own, and those of others
 * that this user may join. Each has a socket in a folder that all can reach.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor.h"
#include "wire/names.h"
#include "xi.h"

#define PREFIX "xidata-open-"

static void one_namespace(struct doctor *d, const char *dir, uint32_t uid, const char *ns) {
    char place[XI_PLACE_TEXT + 16], what[64], who[1024], user[40];
    xi_observer *o;
    bool mine = uid == getuid();
    snprintf(place, sizeof place, "%u/%.31s", uid, ns);
    snprintf(what, sizeof what, "open %s/%.20s", user_name(uid, user), ns);
    int rc = xi_observe(place, &o);
    if (rc == 0) {
        access_names(xi_observer_open_to(o), false, who, sizeof who);
        if (mine && !who[0])
            found(d, FINDING_NOTE, what, "its broker, %d, is not open: the socket is of an earlier one", xi_observer_broker_pid(o));
        else
            found(d, FINDING_OK, what, "broker %d, open to %s", xi_observer_broker_pid(o), who);
        xi_observer_free(o);
        return;
    }
    if (rc == XI_E_ACCESS && !mine)
        found(d, FINDING_OK, what, "not open to this user");
    else if (mine && rc == XI_E_NOENT)
        found(d, FINDING_NOTE, what, "nobody serves it: its broker was killed, and its memory went with it");
    else
        found(d, FINDING_NOTE, what, "%s", xi_error_text(rc));
    if (mine) advise("do: rm %s/%s.sock, or start it again: xi broker -n %s --open-to USER,@GROUP", dir, ns, ns);
}

static void one_folder(struct doctor *d, const char *dir, uint32_t uid) {
    struct stat st;
    char user[40];
    if (lstat(dir, &st) != 0) return; /* gone just now */
    if (!S_ISDIR(st.st_mode) || st.st_uid != uid || (st.st_mode & 022)) {
        found(d, uid == getuid() ? FINDING_BAD : FINDING_NOTE, "open namespaces",
              "%s is not a folder that %s alone can write to: nobody will believe what is in there", dir, user_name(uid, user));
        if (uid == getuid()) advise("remove it (its owner or root can), or name another place for such folders in XI_OPEN_DIR");
        return;
    }
    DIR *folder = opendir(dir); /* of other users: they may be passed, not listed */
    for (struct dirent *e; folder && (e = readdir(folder)) != NULL;) {
        char ns[NAME_MAX + 1];
        size_t n = strlen(e->d_name);
        if (n <= 5 || strcmp(e->d_name + n - 5, ".sock") != 0) continue;
        snprintf(ns, sizeof ns, "%.*s", (int)(n - 5), e->d_name);
        if (xi_ns_valid(ns) && (!d->ns || strcmp(d->ns, ns) == 0)) one_namespace(d, dir, uid, ns);
    }
    if (folder) closedir(folder);
    else if (uid != getuid())
        found(d, FINDING_OK, "open namespaces", "%s may have some: xi ls -n %s/NAME", user_name(uid, user), user);
}

void doctor_open(struct doctor *d) {
    char dir[108], path[108 + NAME_MAX + 2];
    for (unsigned which = 0; which < XI_OPEN_PLACES; which++) {
        if (xi_open_dir(dir, sizeof dir, getuid(), which) != 0) continue;
        char *slash = strrchr(dir, '/');
        *slash = 0;
        DIR *folder = opendir(dir[0] ? dir : "/");
        for (struct dirent *e; folder && (e = readdir(folder)) != NULL;) {
            uint64_t uid;
            if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0 || !parse_count(e->d_name + strlen(PREFIX), 0, UINT32_MAX - 1, &uid))
                continue;
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            one_folder(d, path, (uint32_t)uid);
        }
        if (folder) closedir(folder);
    }
}
