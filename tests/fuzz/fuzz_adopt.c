/* SPDX-License-Identifier: MIT */
/*
 * Bytes written anywhere into the segments of a namespace whose broker was
 * killed, and then a broker that comes to it: adoption, repair, collection and
 * removal, in this process (tests/system/image.h).
 *
 * The input is a list of writes of eight bytes: the segment; whether near its
 * beginning or anywhere; the word (two bytes); a value of spoil.h or, if the next
 * byte is 0xff, the three that follow, spread.
 */
#include <sanitizer/common_interface_defs.h>
#include <stdlib.h>

#include "fuzz_world.h"
#include "system/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int quiet, loud;

static void begin(void) {
    char ns[32];
    fuzz_world_begin(ns, sizeof ns);
    image_take(ns);
    atexit(image_drop);
    log_init(ns, false, false);
    loud = dup(STDERR_FILENO); /* the broker's log is not worth keeping, a sanitizer's words are */
    quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
    expect(loud >= 0 && quiet >= 0, "no descriptors");
    __sanitizer_set_report_fd((void *)(intptr_t)loud);
}

/* True if the channel that nobody is to harm has to do with it. */
static bool write_one(const uint8_t *d) {
    unsigned file = d[0] % image.count;
    const struct image_file *f = &image.file[file];
    size_t words = f->kept / 8, word = (size_t)d[2] | (size_t)d[3] << 8;
    if (d[1] & 1) word = word * words / 65536;
    word %= d[1] & 2 && words > 128 ? 128 : words;
    uint64_t value = d[4] == 0xff ? (uint64_t)d[5] | (uint64_t)d[6] << 24 | (uint64_t)d[7] << 56
                                  : spoil_value(d[4], f->bytes[word], f->size, d[5]);
    image_write(file, word * 8, value);
    return f->kind == XI_SEG_REGISTRY || f->is_near;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool begun;
    bool harmed = false;
    if (size > 400) return 0;
    if (!begun) begin();
    begun = true;
    image_restore();
    for (size_t at = 0; at + 8 <= size; at += 8) harmed |= write_one(data + at);
    dup2(quiet, STDERR_FILENO);
    bool whole = image_adopt(SECOND / 5);
    dup2(loud, STDERR_FILENO);
    if (!whole && !harmed) __builtin_trap();
    return 0;
}
