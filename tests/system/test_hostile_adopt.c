/* SPDX-License-Identifier: MIT */
/*
 * A broker that comes to a namespace whose broker was killed, into whose segments
 * somebody has written: each word of each, the registry too, set to values of
 * spoil.h. It adopts what makes sense, repairs after the interpreter that died
 * in mid-operation, collects, and removes everything at its end: it must not
 * crash, nor go on for more than a second of processor time, nor leave a segment
 * behind; and a channel into which nobody wrote keeps its values.
 *
 * The broker is the real one, but for its socket, in the process of the test;
 * image.h lays out the same namespace for each case.
 *
 *   test_hostile_adopt [CASE]     that case alone
 */
#include "image.h"
#include "shards.h"

#define WORDS_NEAR 64 /* of each segment that are always tried; beyond, those that are not 0, and every sixteenth that is */

static unsigned values_of(const struct image_file *f, size_t word) {
    if (f->bytes[word] != 0 || word < 8) return SPOILS;
    return word < WORDS_NEAR || word % 16 == 0 ? FEW : 0;
}

typedef void (*case_fn)(unsigned file, size_t word, unsigned value, uint64_t number);

static uint64_t each_case(case_fn fn) {
    uint64_t number = 0;
    for (unsigned f = 0; f < image.count; f++)
        for (size_t w = 0; w < image.file[f].kept / 8; w++)
            for (unsigned v = 0; v < values_of(&image.file[f], w); v++) fn(f, w, v, number++);
    return number;
}

static void nothing(unsigned file, size_t word, unsigned value, uint64_t number) {
    (void)file, (void)word, (void)value, (void)number;
}

/* What is wrong with the registry, or with its own segment, the other channel has to do with. */
static bool harms_near(const struct image_file *f) { return f->kind == XI_SEG_REGISTRY || f->is_near; }

static void run_case(unsigned file, size_t word, unsigned value, uint64_t number) {
    const struct image_file *f = &image.file[file];
    bool whole = false;
    snprintf(mine->what, sizeof mine->what, "test_hostile_adopt %" PRIu64 ": segment of kind %u (%s) + %zu, value %u", number,
             f->kind, f->name, word * 8, value);
    if (shard_log[0] > 0) (void)!ftruncate(STDERR_FILENO, 0); /* the broker's log of one case at a time */
    image_restore();
    image_write(file, word * 8, spoil_value(value, f->bytes[word], f->size, number));
    OP(whole = image_adopt(SECOND / 2));
    expect(whole || harms_near(f), "a channel that nobody wrote into has lost its values");
    expect(segments_of(image.ns, true) == 0, "segments are left behind");
    atomic_fetch_add(&mine->cases, 1);
}

static void one_of_mine(unsigned file, size_t word, unsigned value, uint64_t number) {
    if (!is_mine(number)) return;
    atomic_store(&mine->next, number);
    run_case(file, word, value, number);
}

static void begin_shard(unsigned number) {
    char suffix[16];
    mine = &shards[number];
    strcpy(mine->operation, "(making the image)");
    snprintf(suffix, sizeof suffix, "a%d", (int)getpid()); /* another for whoever goes on behind a finding */
    further_ns(space, suffix);
    image_take(space);
    log_init(space, false, false);
    mine->total = each_case(nothing);
    image_restore();
    expect(image_adopt(SECOND), "the image, as it is, is not adopted as it should be");
}

static void shard_body(void *number) {
    must_sys(dup2(shard_log[(uintptr_t)number], STDERR_FILENO));
    begin_shard((unsigned)(uintptr_t)number);
    (void)each_case(one_of_mine);
    image_drop();
    atomic_store(&mine->next, UINT64_MAX);
}

static uint64_t wanted;

static void that_one(unsigned file, size_t word, unsigned value, uint64_t number) {
    if (number == wanted) run_case(file, word, value, number);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    shards = shared_memory(SHARDS * sizeof *shards);
#if defined(__SANITIZE_ADDRESS__)
    choose_stride(23, 997);
#else
    choose_stride(5, 301);
#endif
    if (argc == 2) {
        wanted = strtoull(argv[1], NULL, 0);
        begin_shard(0);
        (void)each_case(that_one);
        image_drop();
        return 0;
    }
    for (int i = 0; i < SHARDS; i++) must_sys(shard_log[i] = memfd_create("log", MFD_CLOEXEC));
    for (int i = 0; i < SHARDS; i++) must_sys(fcntl(shard_log[i], F_SETFL, O_APPEND));
    watch_all();
    say_figures();
    expect(findings == 0, "%d findings, see above", findings);
    return 0;
}
