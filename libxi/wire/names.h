/* SPDX-License-Identifier: MIT */
/* Names of namespaces, segments and sockets. Pure but for reading the environment. */
#ifndef XI_WIRE_NAMES_H
#define XI_WIRE_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define XI_SHM_NAME_MAX 80

/* 1 to 31 of [A-Za-z0-9_.-], not beginning with a dot. */
bool xi_ns_valid(const char *ns);
/* 1 to 79 bytes of UTF-8 without control characters. */
bool xi_channel_name_valid(const char *name, size_t max);
/* The queue through which replies come to an interpreter: made by it alone, removed when it ends. */
#define XI_LANE_PREFIX "xi.reply."
void xi_lane_name(int64_t id, char name[80]);
/* True if it begins as a lane's does. */
bool xi_lane_named(const char *name);
/* $XI_NAMESPACE, or "default". */
const char *xi_ns_default(void);

/* A namespace as people name it: NAME, of this process's user; or USER/NAME, USER a name or number. */
#define XI_PLACE_TEXT 64
struct xi_place {
    uid_t uid;                /* whose it is */
    bool foreign;             /* another user's than this process's */
    char ns[32];
    char text[XI_PLACE_TEXT]; /* as it can be given again: "lab", "1000/lab" */
};
/* Spells it out, whose it is: for one that others may join too, so that what is passed on means the same to them. */
void xi_place_spell(struct xi_place *place);
/* NULL: the default. Errors: INVAL, NOENT (no such user), SYSTEM. */
int xi_place_parse(const char *text, struct xi_place *out);

void xi_shm_registry_name(char out[XI_SHM_NAME_MAX], uid_t uid, const char *ns);
void xi_shm_segment_name(char out[XI_SHM_NAME_MAX], uid_t uid, const char *ns, uint64_t epoch, uint32_t number);
/* Takes a file name of /dev/shm (without the slash) apart. False if it is none of ours. *number 0 and *epoch 0: registry. */
bool xi_shm_name_parse(const char *file, uid_t *uid, char ns[32], uint64_t *epoch, uint32_t *number);

/* The folder of the control sockets; not made. 0, or XI_E_INVAL when too long. */
int xi_runtime_dir(char *out, size_t capacity);
/*
 * The folder of the sockets through which others reach the open namespaces of user `uid`: xidata-open-UID in
 * $XI_OPEN_DIR; else in /run/xidata, if there is that folder, else in /tmp. `which` counts those places: 0, then 1.
 * XI_E_NOENT, without a sentence: there is no such place.
 */
#define XI_OPEN_PLACES 2u
int xi_open_dir(char *out, size_t capacity, uid_t uid, unsigned which);
/* The socket there. */
int xi_open_socket_path(char *out, size_t capacity, uid_t uid, const char *ns, unsigned which);
/* RUNTIME/NS.sock and RUNTIME/NS.lock. */
int xi_socket_path(char *out, size_t capacity, const char *ns);
int xi_lock_path(char *out, size_t capacity, const char *ns);

#endif
