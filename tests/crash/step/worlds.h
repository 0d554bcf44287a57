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
#define PAGES_MAX 320 /* of a segment that need not be backed by memory throughout */

/* Which pages are backed. A channel's ring, and one to grow into, begin without memory, and what has none must not be looked at:
 * that would give it some. */
struct pages {
    bool all;
    uint64_t bits[PAGES_MAX / 64];
};
/* A file of the namespace. What lies behind `kept` bytes of it nobody uses in these scenes. */
struct segment {
    uint32_t number, kind;
    size_t size, kept;
    const uint8_t *live;
    int fd;        /* while it is not all backed; else -1 */
    uint64_t used; /* bytes that the file system says it has */
    struct pages pages;
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
        struct pages pages;
        struct blob *blob;
        const uint8_t *bytes; /* zero where nothing is backed */
    } piece[SEGMENTS_MAX];
    unsigned count;
};

/* Finds out which files there are now. True if that has changed. */
bool image_scan(struct image *m);
void image_close(struct image *m);
/* Looks again which pages are backed. True if that has changed. */
bool image_backed(struct image *m);
/* True if what members (and with `broker` the registry too) have there differs from the picture. Counters do not count. */
bool image_differs(const struct image *m, const struct picture *p, bool broker);
/* `last`: NULL, or one that was taken before. */
void picture_take(struct picture *p, const struct image *m, const struct picture *last);
void picture_copy(struct picture *to, const struct picture *from);
void picture_drop(struct picture *p);
/* How many pages more of one segment are backed now than in `last`; *which is that segment. */
unsigned picture_backed_since(const struct picture *now, const struct picture *last, unsigned *which);
/* As `last`, with the first `n` of those pages backed. */
void picture_half_backed(struct picture *out, const struct picture *last, const struct picture *now, unsigned which, unsigned n);
const struct piece *picture_piece(const struct picture *p, uint32_t number);
/* True if both have the same files, of the same sizes. */
bool picture_alike(const struct picture *a, const struct picture *b);
/* Of `to`: every word that differs between the two others becomes as it is in `after`. All three are alike. */
void picture_apply(struct picture *to, const struct picture *before, const struct picture *after);

/* Lays the picture out as namespace `ns`; the processes of the interpreters in these slots (0: none) have gone. */
void picture_spread(const struct picture *p, const char *ns, const uint32_t dead[2]);
/* Bytes of memory that a segment of a namespace has; 0: there is none of that number. */
uint64_t world_backed(const char *ns, uint64_t epoch, uint32_t number);
/* Gives the first page that has no memory in the segment of that number some. False: there is none. */
bool image_back_one(const struct image *m, uint32_t number);
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
