/* SPDX-License-Identifier: MIT */
/* Columns as wide as their widest cell. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "json.h"
#include "xi.h"

void table_add(struct table *t, const char *format, ...) {
    if (t->count == t->room) {
        size_t room = t->room ? t->room * 2 : 64;
        char **cells = realloc(t->cells, room * sizeof *cells);
        if (!cells) {
            t->failed = true;
            return;
        }
        t->cells = cells;
        t->room = room;
    }
    va_list args;
    va_start(args, format);
    if (vasprintf(&t->cells[t->count], format, args) < 0)
        t->failed = true;
    else
        t->count++;
    va_end(args);
}

static void put_cell(struct json_out *out, const char *text, size_t width, bool right, bool last) {
    size_t have = text_width(text);
    if (right)
        for (; have < width; have++) json_put(out, " ", 1);
    json_puts(out, text);
    if (last) return;
    for (; have < width; have++) json_put(out, " ", 1);
    json_put(out, "  ", 2);
}

void table_finish(struct table *t, struct json_out *out) {
    size_t width[24] = {0};
    for (size_t i = 0; i < t->count; i++) {
        size_t w = text_width(t->cells[i]), c = i % t->columns;
        if (w > width[c]) width[c] = w;
    }
    for (size_t i = 0; i < t->count && !t->failed; i++) {
        size_t c = i % t->columns;
        put_cell(out, t->cells[i], width[c], t->align[c] == 'r', c == t->columns - 1);
        if (c == t->columns - 1) json_put(out, "\n", 1);
    }
    for (size_t i = 0; i < t->count; i++) free(t->cells[i]);
    free(t->cells);
    if (t->failed && !out->error) out->error = XI_E_NOMEM;
    t->cells = NULL;
    t->count = t->room = 0;
}
