/* SPDX-License-Identifier: MIT */
/* Users and groups for people: by name where this host knows one, else by number. */
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "wire/access.h"
#include "xi.h"

const char *user_name(uint32_t uid, char out[40]) {
    char buffer[2048];
    struct passwd entry, *found = NULL;
    if (getpwuid_r(uid, &entry, buffer, sizeof buffer, &found) == 0 && found && strlen(found->pw_name) < 40)
        printable(found->pw_name, out, 40);
    else
        snprintf(out, 40, "%u", uid);
    return out;
}

static const char *group_name(uint32_t gid, char out[40]) {
    char buffer[4096];
    struct group entry, *found = NULL;
    if (getgrgid_r(gid, &entry, buffer, sizeof buffer, &found) == 0 && found && strlen(found->gr_name) < 40)
        printable(found->gr_name, out, 40);
    else
        snprintf(out, 40, "%u", gid);
    return out;
}

const char *access_names(const char *numbers, bool with_rights, char *out, size_t capacity) {
    struct xi_access list[XI_ACCESS_MAX] = {0};
    size_t used = 0;
    out[0] = 0;
    if (!numbers[0] || xi_access_parse(numbers, with_rights, list) != 0) return out;
    for (size_t i = 0; i < XI_ACCESS_MAX && list[i].kind != XI_ACCESS_NONE && used < capacity; i++) {
        char name[40];
        const char *who = list[i].kind == XI_ACCESS_ALL     ? "*"
                          : list[i].kind == XI_ACCESS_GROUP ? group_name(list[i].id, name)
                                                            : user_name(list[i].id, name);
        int n = snprintf(out + used, capacity - used, "%s%s%s%s%s", i ? "," : "", list[i].kind == XI_ACCESS_GROUP ? "@" : "", who,
                         with_rights ? ":" : "", with_rights ? xi_access_rights_name(list[i].rights) : "");
        used += n > 0 ? (size_t)n : 0;
    }
    return out;
}
