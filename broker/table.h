/* SPDX-License-Identifier: MIT */
/*
 * A map from nonzero 64-bit numbers to 64-bit numbers: open addressing, linear
 * probing, at most half full, deletion by shifting back (so there are no
 * tombstones and a table never degrades). An all-zero struct is an empty table
 * that owns no memory.
 *
 * Out of memory ends the process (see memory_or_die): a broker is restartable
 * by design, and one that goes on with half of its bookkeeping is not.
 */
#ifndef XI_BROKER_TABLE_H
#define XI_BROKER_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table {
    uint64_t *keys; /* 0: free */
    uint64_t *values;
    uint32_t count;
    uint32_t mask; /* capacity - 1; 0 with keys NULL */
};

/* Where the value of `key` lies, or NULL. Valid until the next put or drop. */
uint64_t *table_find(const struct table *t, uint64_t key);
/* As table_find, but adds the key with value 0 when it is missing. */
uint64_t *table_put(struct table *t, uint64_t key);
/* False if the key was not there. A large table that gets empty gives its memory back. */
bool table_drop(struct table *t, uint64_t key);
/* Empties the table and gives its memory back. */
void table_clear(struct table *t);
/* Steps through all entries, *at beginning at 0; do not put or drop meanwhile. False at the end. */
bool table_next(const struct table *t, uint32_t *at, uint64_t *key, uint64_t *value);

/* realloc that never returns NULL for a nonzero size: says so on stderr and ends the process with status 70. */
void *memory_or_die(void *old, size_t count, size_t size);

#endif
