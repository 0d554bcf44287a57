/* SPDX-License-Identifier: MIT */
/* Looks at a repaired namespace; whatever is not as it must be ends the process with a sentence. */
#ifndef XI_TESTS_STEP_LOOK_H
#define XI_TESTS_STEP_LOOK_H

#include <stdbool.h>
#include <stdint.h>

struct broker;
struct looker {
    struct broker *b;
    uint32_t dead;    /* slot; 0: it had none */
    int64_t dead_id;
    uint32_t sleeper; /* slot of one that sleeps in group 0 of this channel, or 0; */
    uint32_t segment;
    uint32_t bells;   /* what its bells said, added up, when it fell asleep; */
    bool sends;       /* it waits for room rather than for a value */
};
void look(const struct looker *l);
/* True if there is something for the one that sleeps, and it was not woken. */
bool look_overslept(const struct looker *l);
/* FUTEX_WAKE was called for on this word. */
void note_wake(const void *word);

/* judge.c */
__attribute__((noreturn, format(printf, 1, 2))) void wrong(const char *format, ...);
#define holds(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) wrong(__VA_ARGS__);                                                                          \
    } while (0)

#endif
