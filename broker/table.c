/* SPDX-License-Identifier: MIT */
/* Open-addressing map; the header has the model. */
#include "table.h"

#include <stdlib.h>
#include <string.h>

#include "want.h"
#include "xidata.h"

void *memory_or_die(void *old, size_t count, size_t size) {
    void *p = reallocarray(old, count, size);
    if (p || count == 0 || size == 0) return p;
    want_die(XI_E_NOMEM, "the broker ran out of memory");
}

/* Keys are small consecutive numbers: multiply to spread them (the golden ratio's fraction), take the high half. */
static uint32_t home_of(const struct table *t, uint64_t key) {
    return (uint32_t)((key * 0x9e3779b97f4a7c15ull) >> 32) & t->mask;
}

uint64_t *table_find(const struct table *t, uint64_t key) {
    if (!t->keys || key == 0) return NULL;
    for (uint32_t i = home_of(t, key); t->keys[i]; i = (i + 1) & t->mask)
        if (t->keys[i] == key) return &t->values[i];
    return NULL;
}

static uint64_t *insert_new(struct table *t, uint64_t key) {
    uint32_t i = home_of(t, key);
    while (t->keys[i]) i = (i + 1) & t->mask;
    t->keys[i] = key;
    t->values[i] = 0;
    t->count++;
    return &t->values[i];
}

static void grow(struct table *t) {
    struct table old = *t;
    uint32_t capacity = old.keys ? (old.mask + 1) * 2 : 8;
    t->keys = memory_or_die(NULL, capacity, sizeof *t->keys);
    t->values = memory_or_die(NULL, capacity, sizeof *t->values);
    memset(t->keys, 0, capacity * sizeof *t->keys);
    t->mask = capacity - 1;
    t->count = 0;
    for (uint32_t i = 0; old.keys && i <= old.mask; i++)
        if (old.keys[i]) *insert_new(t, old.keys[i]) = old.values[i];
    free(old.keys);
    free(old.values);
}

uint64_t *table_put(struct table *t, uint64_t key) {
    uint64_t *found = table_find(t, key);
    if (found) return found;
    if (!t->keys || (t->count + 1) * 2 > t->mask + 1) grow(t);
    return insert_new(t, key);
}

bool table_drop(struct table *t, uint64_t key) {
    uint64_t *found = table_find(t, key);
    if (!found) return false;
    uint32_t hole = (uint32_t)(found - t->values);
    /* Pull back every later entry of the run whose home lies at or before the hole. */
    for (uint32_t i = (hole + 1) & t->mask; t->keys[i]; i = (i + 1) & t->mask) {
        uint32_t home = home_of(t, t->keys[i]);
        if (((i - home) & t->mask) < ((i - hole) & t->mask)) continue;
        t->keys[hole] = t->keys[i];
        t->values[hole] = t->values[i];
        hole = i;
    }
    t->keys[hole] = 0;
    if (--t->count == 0 && t->mask > 255) table_clear(t);
    return true;
}

void table_clear(struct table *t) {
    free(t->keys);
    free(t->values);
    *t = (struct table){0};
}

bool table_next(const struct table *t, uint32_t *at, uint64_t *key, uint64_t *value) {
    for (; t->keys && *at <= t->mask; ++*at) {
        if (!t->keys[*at]) continue;
        *key = t->keys[*at];
        *value = t->values[*at];
        ++*at;
        return true;
    }
    return false;
}
