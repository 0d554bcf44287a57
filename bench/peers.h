/* SPDX-License-Identifier: MIT */
/* Which peers there are, and how a process gets at one. */
#ifndef XI_BENCH_PEERS_H
#define XI_BENCH_PEERS_H

#include "bench/harness.h"

/* What is said of xidata itself. */
const struct peer_info *peers_xi(void);
/* Finds all that `wanted` names (NULL: none; "all": all), in processes that load one module each and end. Names that nobody
 * knows: -1 after saying so. */
int peers_find(const char *wanted);
/* Those, in the order in which they are reported, skipped ones among them. */
size_t peers_count(void);
const struct peer_info *peers_at(size_t i);

/* For the report: something else that is left out, and why. */
void peers_say_skipped(const char *name, const char *what, const char *why);

/* Loads it into this process: NULL after writing why into `why`. */
const struct peer *peers_load(const struct peer_info *info, char *why, size_t capacity);

/* A fresh folder for one run; "" and -1 if there is none to be had. Removed with whatever is in it. */
int peers_folder_make(char path[64]);
void peers_folder_remove(const char *path);
/* Starts the server of a peer that has one: its pid, or -1. */
int peers_server_start(const struct peer_info *info, const char *folder);
void peers_server_stop(int pid);

#endif
