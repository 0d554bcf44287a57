/* SPDX-License-Identifier: MIT */
#include "access.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../error.h"

#define ID_NONE UINT32_MAX /* to the kernel: "no change" */
#define NAME_LONGEST 255u

/* ---- names and numbers ---- */

/* 1: it is a number, in *id; 0: it is none; negative: it is one that no user or group can have. */
static int parse_number(const char *text, size_t n, uint32_t *id) {
    size_t from = n > 1 && text[0] == '#';
    uint64_t v = 0;
    for (size_t i = from; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') return from ? XI_E_INVAL : 0;
        v = v * 10 + (uint64_t)(text[i] - '0');
        if (v >= ID_NONE) return XI_E_INVAL;
    }
    *id = (uint32_t)v;
    return 1;
}

/* The C library's own buffer for one entry, grown until that fits. 0 found, 1 there is none, negative an error. */
static int look_up(const char *name, bool group, uint32_t *id) {
    char *buffer = NULL;
    int err = ERANGE;
    for (size_t size = 1024; err == ERANGE && size <= (size_t)1 << 20; size *= 4) {
        char *more = realloc(buffer, size);
        if (!more) {
            err = ENOMEM;
            break;
        }
        buffer = more;
        struct passwd user, *u = NULL;
        struct group many, *g = NULL;
        err = group ? getgrnam_r(name, &many, buffer, size, &g) : getpwnam_r(name, &user, buffer, size, &u);
        if (u) *id = u->pw_uid;
        if (g) *id = g->gr_gid;
        if (err == 0 && !u && !g) err = ENOENT;
    }
    free(buffer);
    /* What a failed look-up is called depends on where the names come from. */
    if (err == ENOENT || err == ESRCH || err == EBADF || err == EPERM) return 1;
    return err ? xi_fail_errno(err, "cannot look up a user or group") : 0;
}

static int parse_id(const char *text, size_t n, bool group, uint32_t *id) {
    const char *what = group ? "group" : "user";
    char name[NAME_LONGEST + 1];
    if (n == 0 || n > NAME_LONGEST) return xi_fail(XI_E_INVAL, "the name of a %s is 1 to %u bytes long", what, NAME_LONGEST);
    memcpy(name, text, n);
    name[n] = 0;
    int rc = parse_number(text, n, id);
    if (rc < 0) return xi_fail(rc, "\"%.60s\" is not the number of a %s", name, what);
    if (rc > 0) return 0;
    rc = look_up(name, group, id);
    if (rc > 0) return xi_fail(XI_E_NOENT, "there is no %s \"%.60s\" on this host", what, name);
    return rc;
}

int xi_user_parse(const char *text, size_t n, uint32_t *uid) { return parse_id(text, n, false, uid); }

/* ---- lists ---- */

static int parse_rights(const char *text, size_t n, uint16_t *rights) {
    if (n == 1 && text[0] == 'r') *rights = XI_ACCESS_READ;
    else if (n == 1 && text[0] == 'w') *rights = XI_ACCESS_WRITE;
    else if (n == 2 && text[0] == 'r' && text[1] == 'w') *rights = XI_ACCESS_BOTH;
    else return XI_E_INVAL;
    return 0;
}

static int parse_entry(const char *text, size_t n, bool with_rights, struct xi_access *e) {
    *e = (struct xi_access){.rights = XI_ACCESS_BOTH};
    size_t length = n;
    const char *colon = with_rights ? memrchr(text, ':', n) : NULL;
    if (with_rights) {
        if (!colon || parse_rights(colon + 1, n - (size_t)(colon + 1 - text), &e->rights) != 0)
            return xi_fail(XI_E_INVAL, "\"%.*s\" in a list of who may do what: write NAME:r (receive), NAME:w (send) or "
                           "NAME:rw", (int)(n < 60 ? n : 60), text);
        length = (size_t)(colon - text);
    }
    if (length == 1 && text[0] == '*') {
        e->kind = XI_ACCESS_ALL;
        return 0;
    }
    bool group = length > 0 && text[0] == '@';
    e->kind = group ? XI_ACCESS_GROUP : XI_ACCESS_USER;
    return parse_id(text + group, length - group, group, &e->id);
}

/* Adds to what the list says of the same user or group already. False: no room. */
static bool add(struct xi_access *list, const struct xi_access *e) {
    for (uint32_t i = 0; i < XI_ACCESS_MAX; i++) {
        if (list[i].kind == XI_ACCESS_NONE) list[i] = (struct xi_access){e->id, e->kind, 0};
        if (list[i].kind != e->kind || list[i].id != e->id) continue;
        list[i].rights |= e->rights;
        return true;
    }
    return false;
}

int xi_access_parse(const char *text, bool with_rights, struct xi_access out[XI_ACCESS_MAX]) {
    struct xi_access list[XI_ACCESS_MAX] = {0};
    for (const char *at = text;; at++) {
        struct xi_access e;
        size_t n = strcspn(at, ",");
        if (n == 0) return xi_fail(XI_E_INVAL, "a list of users and groups has an empty entry: \"%.60s\"", text);
        int rc = parse_entry(at, n, with_rights, &e);
        if (rc) return rc;
        if (!add(list, &e)) return xi_fail(XI_E_LIMIT, "a list of users and groups has %u entries at most; make a group",
                                           XI_ACCESS_MAX);
        at += n;
        if (!*at) break;
    }
    memcpy(out, list, sizeof list);
    return 0;
}

bool xi_access_valid(const struct xi_access list[XI_ACCESS_MAX]) {
    bool ended = false;
    for (uint32_t i = 0; i < XI_ACCESS_MAX; i++) {
        const struct xi_access *e = &list[i];
        if (e->kind == XI_ACCESS_NONE) {
            if (e->id || e->rights) return false;
            ended = true;
            continue;
        }
        bool all = e->kind == XI_ACCESS_ALL;
        if (ended || e->kind > XI_ACCESS_ALL || e->rights == 0 || e->rights & ~XI_ACCESS_BOTH) return false;
        if (all ? e->id != 0 : e->id == ID_NONE) return false;
    }
    return true;
}

static bool in_group(const struct xi_who *who, uint32_t gid) {
    if (who->gid == gid) return true;
    for (uint32_t i = 0; i < who->group_count; i++)
        if (who->groups[i] == gid) return true;
    return false;
}

uint32_t xi_access_of(const struct xi_access list[XI_ACCESS_MAX], const struct xi_who *who) {
    uint32_t rights = 0;
    for (uint32_t i = 0; i < XI_ACCESS_MAX && list[i].kind != XI_ACCESS_NONE; i++) {
        const struct xi_access *e = &list[i];
        bool meant = e->kind == XI_ACCESS_ALL || (e->kind == XI_ACCESS_USER && e->id == who->uid) ||
                     (e->kind == XI_ACCESS_GROUP && in_group(who, e->id));
        if (meant) rights |= e->rights;
    }
    return rights & XI_ACCESS_BOTH;
}

bool xi_access_names_others(const struct xi_access list[XI_ACCESS_MAX], uint32_t uid) {
    for (uint32_t i = 0; i < XI_ACCESS_MAX && list[i].kind != XI_ACCESS_NONE; i++)
        if (list[i].kind != XI_ACCESS_USER || list[i].id != uid) return true;
    return false;
}

const char *xi_access_rights_name(uint32_t rights) {
    static const char *const names[] = {"", "r", "w", "rw"};
    return names[rights & XI_ACCESS_BOTH];
}

void xi_access_format(const struct xi_access list[XI_ACCESS_MAX], bool with_rights, char out[XI_ACCESS_TEXT]) {
    size_t used = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < XI_ACCESS_MAX && list[i].kind != XI_ACCESS_NONE; i++) {
        char id[12] = "*";
        if (list[i].kind != XI_ACCESS_ALL) snprintf(id, sizeof id, "%u", list[i].id);
        int n = snprintf(out + used, XI_ACCESS_TEXT - used, "%s%s%s%s%s", used ? "," : "",
                         list[i].kind == XI_ACCESS_GROUP ? "@" : "", id, with_rights ? ":" : "",
                         with_rights ? xi_access_rights_name(list[i].rights) : "");
        used += (size_t)n; /* 1 + 1 + 10 + 3 bytes an entry at most, so that 16 fit */
    }
}
