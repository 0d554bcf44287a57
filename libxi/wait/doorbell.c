/* SPDX-License-Identifier: MIT */
/* See doorbell.h; the protocol is stated beside struct xi_bell in wire/layout.h. */
#include "doorbell.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../error.h"
#include "../wire/order.h"

int xi_bells_init(struct xi_bells *b, struct xi_bell *bell) {
    b->bell = bell;
    b->free = malloc(XI_BELLS_USABLE * sizeof *b->free);
    if (!b->free) return xi_fail(XI_E_NOMEM, "no memory for %zu bytes of doorbells", XI_BELLS_USABLE * sizeof *b->free);
    b->free_count = 0;
    for (uint32_t i = XI_BELLS_USABLE; i-- > 0;) b->free[b->free_count++] = (uint16_t)i;
    pthread_mutex_init(&b->mutex, NULL);
    return 0;
}

void xi_bells_deinit(struct xi_bells *b) {
    if (!b->free) return;
    free(b->free);
    b->free = NULL;
    pthread_mutex_destroy(&b->mutex);
}

int xi_bell_take(struct xi_bells *b, uint32_t *index) {
    pthread_mutex_lock(&b->mutex);
    bool got = b->free_count > 0;
    if (got) *index = b->free[--b->free_count]; /* the last one given back: warm */
    pthread_mutex_unlock(&b->mutex);
    return got ? 0 : xi_fail(XI_E_LIMIT, "%u threads of this interpreter wait already; use fewer", XI_BELLS_USABLE);
}

void xi_bell_give(struct xi_bells *b, uint32_t index) {
    pthread_mutex_lock(&b->mutex);
    b->free[b->free_count++] = (uint16_t)index;
    pthread_mutex_unlock(&b->mutex);
}

uint32_t xi_bell_park(struct xi_bell *bell) {
    uint32_t seen = xi_load_acquire(&bell->bell);
    /* Before the mask bit is set (seq_cst, by the caller): whoever claims the bit finds PARKED. */
    (void)xi_exchange_full(&bell->state, XI_BELL_PARKED);
    return seen;
}

bool xi_bell_unpark(struct xi_bell *bell) { return xi_exchange_full(&bell->state, XI_BELL_IDLE) == XI_BELL_NOTIFIED; }

bool xi_bell_ring(struct xi_bell *bell) {
    uint32_t parked = XI_BELL_PARKED;
    if (!xi_cas32_full(&bell->state, &parked, XI_BELL_NOTIFIED)) return false;
    (void)xi_add_full(&bell->bell, 1); /* pairs with the kernel's look at the word before it sleeps */
    (void)xi_futex_wake(&bell->bell, 1);
    return true;
}

int xi_futex_wake(_Atomic uint32_t *word, int count) {
    long n = syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
    return n < 0 ? -errno : (int)n;
}

int xi_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline) {
    struct timespec ts = {deadline / 1000000000, deadline % 1000000000};
    long n = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, deadline < 0 ? NULL : &ts, NULL, FUTEX_BITSET_MATCH_ANY);
    return n < 0 ? -errno : 0;
}
