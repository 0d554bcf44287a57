/* SPDX-License-Identifier: MIT */
/* Values of options, text for terminals, and small things every subcommand needs. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "json_private.h"
#include "wire/names.h"
#include "xi.h"

bool parse_duration(const char *text, int64_t *ns) {
    if (strcmp(text, "forever") == 0) return *ns = XI_FOREVER, true;
    if (*text != '.' && (*text < '0' || *text > '9')) return false; /* strtod takes spaces, signs, "nan" */
    char *end;
    double v = strtod(text, &end);
    static const struct { const char *unit; double ns; } units[] = {
        {"", 1e9}, {"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {"m", 60e9}, {"h", 3600e9}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].unit) != 0) continue;
        v *= units[i].ns;
        if (v > 9e18) return false;
        *ns = (int64_t)(v + 0.5);
        return true;
    }
    return false;
}

bool parse_count(const char *text, uint64_t low, uint64_t high, uint64_t *out) {
    if (*text < '0' || *text > '9') return false;
    char *end;
    errno = 0;
    uint64_t v = strtoull(text, &end, 10);
    if (errno || *end || v < low || v > high) return false;
    *out = v;
    return true;
}

static bool parse_mode(const char *text, uint32_t *mode) {
    if (strcmp(text, "queue") == 0) return *mode = XI_QUEUE, true;
    if (strcmp(text, "broadcast") == 0) return *mode = XI_BROADCAST, true;
    return false;
}

bool parse_bytes(const char *text, uint64_t *out) {
    if (*text < '0' || *text > '9') return false;
    char *end;
    errno = 0;
    uint64_t v = strtoull(text, &end, 10), unit = 1;
    static const char letters[] = "kmgt";
    char small = *end >= 'A' && *end <= 'Z' ? (char)(*end + 'a' - 'A') : *end;
    const char *letter = small ? strchr(letters, small) : NULL;
    if (letter) {
        unit = (uint64_t)1 << (10 * (letter - letters + 1));
        end++;
        if (strcmp(end, "iB") == 0) end += 2;
    }
    return !errno && !*end && !__builtin_mul_overflow(v, unit, out);
}

bool parse_from(const char *text, xi_group_opts *group) {
    uint64_t last = 0;
    bool tail = strcmp(text, "tail") == 0, oldest = strcmp(text, "oldest") == 0;
    if (!tail && !oldest && !parse_count(text, 0, UINT32_MAX, &last)) return false;
    group->from = tail ? XI_FROM_TAIL : oldest ? XI_FROM_OLDEST : XI_FROM_LAST;
    group->last = (uint32_t)last;
    return true;
}

static bool parse_when_full(const char *text, uint32_t *how) {
    static const char *const words[] = {"block", "fail", "drop"};
    for (uint32_t i = 0; i < 3; i++)
        if (strcmp(text, words[i]) == 0) return *how = i, true;
    return false;
}

int new_ack_group_option(int got, const char *text, xi_group_opts *group) {
    uint64_t n = 0;
    switch (got) {
    case OPTION_ACK_TIMEOUT:
        if (!parse_duration(text, &group->timeout_ns) || group->timeout_ns <= 0)
            return say_usage("time to acknowledge \"%s\": write 2, 0.5, 200ms or 1m", text);
        break;
    case OPTION_MAX_DELIVERIES:
        if (!parse_count(text, 1, UINT32_MAX, &n)) return say_usage("deliveries \"%s\": write a number from 1 up", text);
        group->max_deliveries = (uint32_t)n;
        break;
    case OPTION_WINDOW:
        if (!parse_count(text, 1, XI_WINDOW_MAX, &n)) return say_usage("window \"%s\": write a number from 1 to %u", text, XI_WINDOW_MAX);
        group->window = (uint32_t)n;
        break;
    case OPTION_DEAD_LETTERS: group->dead = text; break;
    default: return NOT_AN_OPTION;
    }
    group->flags |= XI_GROUP_ACK;
    return XI_EXIT_OK;
}

int new_channel_option(int got, const char *text, xi_open_opts *open) {
    uint64_t n = 0;
    switch (got) {
    case OPTION_MODE:
        if (!parse_mode(text, &open->mode)) return say_usage("mode \"%s\": write queue or broadcast", text);
        break;
    case OPTION_CAPACITY: case OPTION_GROW:
        if (!parse_bytes(text, &n) || n == 0) return say_usage("size \"%s\": write bytes, or 64k, 1M, 2G", text);
        *(got == OPTION_GROW ? &open->grow : &open->capacity) = n;
        break;
    case OPTION_VALUES: case OPTION_RETAIN:
        if (!parse_count(text, 1, UINT32_MAX, &n)) return say_usage("\"%s\" values: write a number from 1 up", text);
        if (got == OPTION_VALUES) open->values = n;
        else open->retain = (uint32_t)n;
        break;
    case OPTION_WHEN_FULL:
        if (!parse_when_full(text, &open->when_full)) return say_usage("when full \"%s\": write block, fail or drop", text);
        break;
    case OPTION_DEAD: open->dead = text; break;
    case OPTION_ACCESS: open->access = text; break;
    default: return NOT_AN_OPTION;
    }
    return XI_EXIT_OK;
}

const char *optional_number(int argc, char **argv) {
    if (optarg) return optarg;
    int64_t ns;
    if (optind < argc && parse_duration(argv[optind], &ns)) return argv[optind++];
    return NULL;
}

const char *namespace_or_default(const char *ns) {
    if (!ns) ns = xi_ns_default();
    struct xi_place place;
    int rc = xi_place_parse(ns, &place);
    if (rc == 0) return ns;
    say_usage("%s", xi_error_text(rc));
    return NULL;
}

const char *printable(const char *text, char *out, size_t capacity) {
    const char *end = text + strlen(text);
    size_t used = 0;
    while (text < end && used + 5 < capacity) {
        uint32_t c;
        size_t n = json_utf8_get(text, end, &c);
        if (n == 0 || c < 0x20 || (c >= 0x7f && c <= 0x9f)) {
            out[used++] = '?';
            text += n ? n : 1;
        } else {
            memcpy(out + used, text, n);
            used += n;
            text += n;
        }
    }
    out[used] = 0;
    return out;
}

const char *human_bytes(uint64_t bytes, char *out) {
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1023.95 && u < 6) v /= 1024, u++;
    snprintf(out, 24, u == 0 || v == (double)(uint64_t)v ? "%.0f %s" : "%.1f %s", v, unit[u]);
    return out;
}

size_t text_width(const char *utf8) {
    size_t n = 0;
    for (; *utf8; utf8++) n += ((unsigned char)*utf8 & 0xc0) != 0x80;
    return n;
}

bool write_all(int fd, const void *data, size_t n) {
    const char *p = data;
    while (n > 0) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EAGAIN) { /* somebody else made this descriptor non-blocking */
            struct pollfd ready = {fd, POLLOUT, 0};
            (void)poll(&ready, 1, -1);
            continue;
        }
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
