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
/* $XI_NAMESPACE, or "default". */
const char *xi_ns_default(void);

void xi_shm_registry_name(char out[XI_SHM_NAME_MAX], uid_t uid, const char *ns);
void xi_shm_segment_name(char out[XI_SHM_NAME_MAX], uid_t uid, const char *ns, uint64_t epoch, uint32_t number);
/* Takes a file name of /dev/shm (without the slash) apart. False if it is none of ours. *number 0 and *epoch 0: registry. */
bool xi_shm_name_parse(const char *file, uid_t *uid, char ns[32], uint64_t *epoch, uint32_t *number);

/* The folder of the control sockets; not made. 0, or XI_E_INVAL when too long. */
int xi_runtime_dir(char *out, size_t capacity);
/* RUNTIME/NS.sock and RUNTIME/NS.lock. */
int xi_socket_path(char *out, size_t capacity, const char *ns);
int xi_lock_path(char *out, size_t capacity, const char *ns);

#endif
