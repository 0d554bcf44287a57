/* SPDX-License-Identifier: MIT */
/*
 * Namespaces as bytes: looking at one while a process is stopped in it, keeping
 * what it holds, and laying that out again as a namespace of another name, in
 * which a broker and the library itself can go on.
 *
 * A process that has joined the first can be taken over into the second: it is
 * forked without the C library knowing (_Fork), so that all of its private state
 * stays as it was, and its shared mappings are replaced by the copy's.
 */
#ifndef XI_TESTS_STEP_WORLDS_H
#define XI_TESTS_STEP_WORLDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEGMENTS_MAX 64

/* A file of the namespace. What lies behind `kept` bytes of it nobody uses in these scenes. */
struct segment {
    uint32_t number, kind;
    size_t size, kept;
    const uint8_t *live;
};
struct image {
    char ns[32];
    struct segment seg[SEGMENTS_MAX];
    unsigned count;
};
/* What the files held at one moment. Pictures share what is the same in both. */
struct blob;
struct picture {
    struct piece {
        uint32_t number, kind;
        size_t size, kept;
        struct blob *blob;
        const uint8_t *bytes;
    } piece[SEGMENTS_MAX];
    unsigned count;
};

/* Finds out which files there are now. True if that has changed. */
bool image_scan(struct image *m);
void image_close(struct image *m);
/* True if what members (and with `broker` the registry too) have there differs from the picture. Counters do not count. */
bool image_differs(const struct image *m, const struct picture *p, bool broker);
/* `last`: NULL, or one that was taken before. */
void picture_take(struct picture *p, const struct image *m, const struct picture *last);
void picture_copy(struct picture *to, const struct picture *from);
void picture_drop(struct picture *p);
const struct piece *picture_piece(const struct picture *p, uint32_t number);
/* True if both have the same files, of the same sizes. */
bool picture_alike(const struct picture *a, const struct picture *b);
/* Of `to`: every word that differs between the two others becomes as it is in `after`. All three are alike. */
void picture_apply(struct picture *to, const struct picture *before, const struct picture *after);

/* Lays the picture out as namespace `ns`; the processes of the interpreters in these slots (0: none) have gone. */
void picture_spread(const struct picture *p, const char *ns, const uint32_t dead[2]);
/* Removes every file of that name. */
void world_sweep_away(const char *ns);

/* Where this process has files of the namespace mapped. */
struct mapped {
    uint8_t *from;
    size_t length, offset;
    int access;
    uint32_t number;
};
struct mappings {
    struct mapped at[2 * SEGMENTS_MAX];
    unsigned count;
};
/* `image`: NULL, or one of this process, whose own mappings are no part of it. */
void mappings_find(struct mappings *m, const char *ns, const struct image *image);
/* In a process that was forked by _Fork(): the same memory, but of namespace `ns`. */
void mappings_enter(const struct mappings *m, uint64_t epoch, const char *ns);

#endif
