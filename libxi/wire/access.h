/* SPDX-License-Identifier: MIT */
/*
 * Who may do what: lists of users and groups with rights, in one form for the
 * wire, the registry and the broker's memory, and in one for people:
 *
 *     alice:r,@staff:rw,1234:w,*:r        a channel's
 *     alice,@staff,#1234                  a namespace's: who may join
 *
 * A name is looked up where it is written (in the opener's process, on the
 * broker's command line); numbers alone travel. `#` before a number is allowed,
 * `@` says that it is a group's, `*` is everybody who may join. What several
 * entries allow adds up.
 */
#ifndef XI_WIRE_ACCESS_H
#define XI_WIRE_ACCESS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XI_ACCESS_MAX 16u /* entries of a list */

enum xi_access_kind { XI_ACCESS_NONE = 0 /* behind the last */, XI_ACCESS_USER = 1, XI_ACCESS_GROUP = 2, XI_ACCESS_ALL = 3 };

#define XI_ACCESS_READ 1u
#define XI_ACCESS_WRITE 2u
#define XI_ACCESS_BOTH (XI_ACCESS_READ | XI_ACCESS_WRITE)

struct xi_access {
    uint32_t id;     /* of the user or group; 0 for XI_ACCESS_ALL */
    uint16_t kind;   /* enum xi_access_kind */
    uint16_t rights; /* XI_ACCESS_*; at least one */
};
static_assert(sizeof(struct xi_access) == 8, "eight a line");

/* Who somebody is, as the kernel says of the other end of a socket. */
struct xi_who {
    uint32_t uid, gid;
    const uint32_t *groups; /* the further ones */
    uint32_t group_count;
};

/*
 * From the form for people. `with_rights`: each entry ends in :r, :w or :rw; otherwise none does, and all get both.
 * Errors: INVAL (what is wrong, and with which entry), NOENT (no such user or group here), LIMIT (too many entries).
 */
int xi_access_parse(const char *text, bool with_rights, struct xi_access out[XI_ACCESS_MAX]);
/* One user: a name, a number, or # and a number; `n` bytes of text. Errors: INVAL, NOENT, SYSTEM. */
int xi_user_parse(const char *text, size_t n, uint32_t *uid);
/* True if a list from another process is one: known kinds, rights, and nothing behind its end. */
bool xi_access_valid(const struct xi_access list[XI_ACCESS_MAX]);
/* What a list allows somebody: XI_ACCESS_*, 0 nothing. Pure. */
uint32_t xi_access_of(const struct xi_access list[XI_ACCESS_MAX], const struct xi_who *who);
/* True if it names anybody but this user. Pure. */
bool xi_access_names_others(const struct xi_access list[XI_ACCESS_MAX], uint32_t uid);

/* The form for people, with numbers; empty for an empty list. XI_ACCESS_TEXT bytes hold any. */
#define XI_ACCESS_TEXT 256
void xi_access_format(const struct xi_access list[XI_ACCESS_MAX], bool with_rights, char out[XI_ACCESS_TEXT]);
/* "r", "w", "rw" or "". */
const char *xi_access_rights_name(uint32_t rights);

#endif
