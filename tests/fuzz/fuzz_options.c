/* SPDX-License-Identifier: MIT */
/*
 * Numbers, sizes, durations, beginnings and lists of users, as they are written
 * on the command line: any text is refused, or read as something within its
 * limits; and what was read, written out plainly, reads as the same again.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/access.h"
#include "wire/layout.h"
#include "wire/names.h"
#include "xi/xi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(condition)                                                                                                \
    do                                                                                                                 \
        if (!(condition)) __builtin_trap();                                                                            \
    while (0)

/* What options.c says to people. */
void say(const char *format, ...) { (void)format; }
int say_usage(const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args); /* so that what is quoted is read */
    va_end(args);
    return XI_EXIT_USAGE;
}

static void durations(const char *text) {
    int64_t ns, again;
    char out[40];
    if (!parse_duration(text, &ns)) return;
    must(ns == XI_FOREVER || ns >= 0);
    if (ns < 0 || ns > (int64_t)1 << 50) return;
    snprintf(out, sizeof out, "%" PRId64 ".%03" PRId64 "us", ns / 1000, ns % 1000);
    must(parse_duration(out, &again) && again - ns <= 1 && ns - again <= 1); /* tenths of a ns are rounded */
}

static void numbers(const char *text) {
    uint64_t n, again;
    char out[40];
    if (parse_count(text, 3, 1000000, &n)) must(n >= 3 && n <= 1000000);
    if (parse_count(text, 0, UINT64_MAX, &n)) {
        snprintf(out, sizeof out, "%" PRIu64, n);
        must(parse_count(out, 0, UINT64_MAX, &again) && again == n);
    }
    if (parse_bytes(text, &n)) {
        snprintf(out, sizeof out, "%" PRIu64, n);
        must(parse_bytes(out, &again) && again == n);
    }
}

static void others(const char *text, size_t n) {
    xi_group_opts group = {0};
    struct xi_access list[XI_ACCESS_MAX];
    struct xi_place place;
    char out[200], ns[32];
    uid_t uid;
    uint64_t epoch;
    uint32_t number;
    if (parse_from(text, &group)) must(group.from <= XI_FROM_LAST);
    if (xi_access_parse(text, true, list) == 0) must(xi_access_valid(list));
    if (xi_place_parse(text, &place) == 0) must(strlen(place.ns) <= XI_NS_MAX);
    if (xi_shm_name_parse(text, &uid, ns, &epoch, &number)) must(xi_ns_valid(ns));
    (void)xi_channel_name_valid(text, XI_NAME_MAX);
    (void)printable(text, out, n % sizeof out + 6 < sizeof out ? n % sizeof out + 6 : sizeof out);
    must(strlen(out) < sizeof out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    must(text);
    if (size) memcpy(text, data, size);
    text[size] = 0;
    durations(text);
    numbers(text);
    others(text, size);
    free(text);
    return 0;
}
