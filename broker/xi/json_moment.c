/* SPDX-License-Identifier: MIT */
/*
 * Dates, times and decimals as text. Parsing and formatting accept the same
 * range, so that a value gets the readable form only if that form reads back
 * as the same value.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "json_private.h"

enum { YEAR, MONTH, DAY, HOUR, MINUTE, SECOND, MICRO, FOLD, OFFSET };

void json_moment_span(unsigned ext, size_t *first, size_t *count) {
    *first = ext == XI_EXT_TIME ? HOUR : YEAR;
    *count = ext == XI_EXT_DATE ? 3 : ext == XI_EXT_TIME ? 6 : 9;
}

static int64_t days_in(int64_t year, int64_t month) {
    static const int8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

static bool within(int64_t v, int64_t low, int64_t high) { return v >= low && v <= high; }

static bool date_valid(const int64_t *f) {
    return within(f[YEAR], 1, 9999) && within(f[MONTH], 1, 12) && within(f[DAY], 1, days_in(f[YEAR], f[MONTH]));
}

static bool time_valid(const struct json_moment *m) {
    const int64_t *f = m->field;
    return within(f[HOUR], 0, 23) && within(f[MINUTE], 0, 59) && within(f[SECOND], 0, 59) &&
           within(f[MICRO], 0, 999999) && f[FOLD] == 0 && (!m->has_offset || within(f[OFFSET], -86399, 86399));
}

static bool moment_valid(unsigned ext, const struct json_moment *m) {
    return (ext == XI_EXT_TIME || date_valid(m->field)) && (ext == XI_EXT_DATE || time_valid(m));
}

static bool digits(const char **p, int n, int64_t *out) {
    int64_t v = 0;
    for (int i = 0; i < n; i++) {
        char c = (*p)[i];
        if (c < '0' || c > '9') return false;
        v = v * 10 + (c - '0');
    }
    *p += n;
    *out = v;
    return true;
}

static bool mark(const char **p, char c) { return **p == c ? ((*p)++, true) : false; }

static bool parse_date(const char **p, int64_t *f) {
    return digits(p, 4, &f[YEAR]) && mark(p, '-') && digits(p, 2, &f[MONTH]) && mark(p, '-') && digits(p, 2, &f[DAY]);
}

static bool parse_offset(const char **p, struct json_moment *m) {
    if (mark(p, 'Z')) return m->has_offset = true;
    if (**p != '+' && **p != '-') return true;
    bool negative = *(*p)++ == '-';
    int64_t h, min, s = 0;
    if (!digits(p, 2, &h) || !mark(p, ':') || !digits(p, 2, &min) || min > 59) return false;
    if (mark(p, ':') && (!digits(p, 2, &s) || s > 59)) return false;
    int64_t offset = h * 3600 + min * 60 + s;
    m->field[OFFSET] = negative ? -offset : offset;
    return m->has_offset = true;
}

static bool parse_time(const char **p, struct json_moment *m) {
    int64_t *f = m->field;
    if (!digits(p, 2, &f[HOUR]) || !mark(p, ':') || !digits(p, 2, &f[MINUTE]) || !mark(p, ':') ||
        !digits(p, 2, &f[SECOND]))
        return false;
    if (mark(p, '.')) { /* one to six digits */
        int n = 0;
        for (; n < 6 && **p >= '0' && **p <= '9'; n++) f[MICRO] = f[MICRO] * 10 + (*(*p)++ - '0');
        if (n == 0) return false;
        for (; n < 6; n++) f[MICRO] *= 10;
    }
    return parse_offset(p, m);
}

bool json_moment_parse(unsigned ext, const char *text, struct json_moment *m) {
    *m = (struct json_moment){{0}, false};
    const char *p = text;
    if (ext != XI_EXT_TIME && !parse_date(&p, m->field)) return false;
    if (ext == XI_EXT_DATETIME && !mark(&p, 'T') && !mark(&p, ' ')) return false;
    if (ext != XI_EXT_DATE && !parse_time(&p, m)) return false;
    return *p == 0 && moment_valid(ext, m);
}

bool json_moment_format(unsigned ext, const struct json_moment *m, char *out) {
    if (!moment_valid(ext, m)) return false;
    const int64_t *f = m->field;
    char *p = out;
    if (ext != XI_EXT_TIME) p += sprintf(p, "%04d-%02d-%02d", (int)f[YEAR], (int)f[MONTH], (int)f[DAY]);
    if (ext == XI_EXT_DATE) return true;
    if (ext == XI_EXT_DATETIME) *p++ = 'T';
    p += sprintf(p, "%02d:%02d:%02d", (int)f[HOUR], (int)f[MINUTE], (int)f[SECOND]);
    if (f[MICRO]) p += sprintf(p, ".%06d", (int)f[MICRO]);
    if (m->has_offset) {
        int o = (int)(f[OFFSET] < 0 ? -f[OFFSET] : f[OFFSET]);
        p += sprintf(p, "%c%02d:%02d", f[OFFSET] < 0 ? '-' : '+', o / 3600, o / 60 % 60);
        if (o % 60) p += sprintf(p, ":%02d", o % 60);
    }
    *p = 0;
    return true;
}

static size_t run_of_digits(const char *p, size_t n) {
    size_t k = 0;
    while (k < n && p[k] >= '0' && p[k] <= '9') k++;
    return k;
}

/* "Infinity", "Inf", "NaN" and "sNaN" with their digits. */
static bool decimal_special(const char *p, size_t n) {
    if ((n == 3 && strncasecmp(p, "inf", 3) == 0) || (n == 8 && strncasecmp(p, "infinity", 8) == 0)) return true;
    size_t head = n >= 4 && strncasecmp(p, "snan", 4) == 0 ? 4 : n >= 3 && strncasecmp(p, "nan", 3) == 0 ? 3 : 0;
    return head > 0 && run_of_digits(p + head, n - head) == n - head;
}

bool json_decimal_valid(const char *p, size_t n) {
    if (n > 0 && (*p == '+' || *p == '-')) p++, n--;
    if (decimal_special(p, n)) return true;
    size_t whole = run_of_digits(p, n), part = 0;
    p += whole;
    n -= whole;
    if (n > 0 && *p == '.') {
        part = run_of_digits(p + 1, n - 1);
        p += part + 1;
        n -= part + 1;
    }
    if (whole + part == 0) return false;
    if (n == 0) return true;
    if (*p != 'e' && *p != 'E') return false;
    p++, n--;
    if (n > 0 && (*p == '+' || *p == '-')) p++, n--;
    return n > 0 && run_of_digits(p, n) == n;
}
