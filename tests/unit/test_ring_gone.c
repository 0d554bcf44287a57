/* SPDX-License-Identifier: MIT */
/*
 * A broker that was started anew does not know that somebody is about to move a
 * channel into a ring, and takes that ring away: before each load of the mover in
 * turn. The library is built with a call before each atomic load; there the test
 * does what world_ring_idle() does. However the two fall together, `ring` never
 * names a ring that was taken away, not for one instruction: whoever were killed
 * then would leave a channel whose values nobody finds. tests/model/moves.pml
 * has every order of the steps; this is the compiled library.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "channel/channel.h"
#include "fixture.h"
#include "wire/names.h"

static struct {
    struct xi_chan *chan; /* NULL: nobody looks */
    uint32_t number;      /* of the ring that is to come */
    struct xi_segment *head;
    long at;              /* loads until the broker looks; counted from when the ring is there */
    bool taken;           /* it was found idle */
    long named;           /* loads at which `ring` named it nevertheless */
} W;

static void find_ring(void) {
    char name[XI_SHM_NAME_MAX];
    uint64_t magic = 0;
    int fd;
    xi_shm_segment_name(name, me->place.uid, me->place.ns, me->epoch, W.number);
    if (xi_segment_open(name, true, &fd) != 0) return;
    if (pread(fd, &magic, sizeof magic, 0) == (ssize_t)sizeof magic && magic == XI_LAYOUT_MAGIC) {
        W.head = mmap(NULL, XI_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        ck_assert(W.head != MAP_FAILED);
    }
    close(fd);
}

static bool names(xi_a64 *word) { return XI_RING_SEGMENT(atomic_load(word)) == W.number; }

static void look(void) {
    if (names(&W.chan->ring)) return;
    atomic_store(&W.head->gone, 1u);
    W.taken = !names(&W.chan->ring_next) && !names(&W.chan->ring);
    if (!W.taken) atomic_store(&W.head->gone, 0u);
}

void xi_before_load(const volatile void *p) {
    static _Thread_local bool inside;
    (void)p;
    if (!W.chan || inside) return;
    inside = true; /* what follows loads as well */
    if (!W.head) find_ring();
    else if (W.at-- == 0) look();
    W.named += W.taken && names(&W.chan->ring);
    inside = false;
}

/* True if the ring was there for so many loads. */
static bool take_away_before(long k, long *taken) {
    xi_open_opts opts = {.capacity = XI_CAPACITY_MIN, .grow = 1 << 20};
    xi_channel *out, *in;
    opts.flags = XI_OPEN_SEND;
    ok(xi_open(me, "ring", &opts, &out));
    opts.flags = 0;
    ok(xi_open(you, "ring", &opts, &in));
    int64_t n = (XI_CAPACITY_MIN - 8) / 16;
    for (int64_t i = 0; i < n; i++) ok(xi_send_int(out, i, XI_TRY));
    W.number = xi_load_relaxed(&((struct xi_registry *)(uintptr_t)me->registry)->next_segment);
    W.head = NULL;
    W.taken = false;
    W.at = k;
    W.chan = out->chan;
    ok(xi_send_int(out, n, LONG));
    W.chan = NULL;
    ck_assert_ptr_nonnull(W.head);
    ck_assert_int_eq(W.named, 0);
    ck_assert_uint_ne(out->chan->ring, 0);
    ck_assert_uint_eq(out->chan->ring_next, 0);
    ck_assert(!W.taken || !names(&out->chan->ring));
    munmap(W.head, XI_PAGE);
    *taken += W.taken;
    xi_msg m = XI_MSG_INIT;
    for (int64_t i = 0; i <= n; i++) {
        ok(xi_recv(in, &m, XI_TRY));
        ck_assert_int_eq(number_of(&m), i);
    }
    xi_msg_release(&m);
    ok(xi_channel_free(in));
    ok(xi_channel_free(out));
    return W.at < 0;
}

START_TEST(before_each_load) {
    long k = 0, taken = 0;
    while (take_away_before(k, &taken)) k++;
    ck_assert_int_gt(taken, 3);
    ck_assert_int_lt(taken, k); /* some came too late */
    printf("%ld loads, %ld rings taken away in time\n", k, taken);
}
END_TEST

int main(void) {
    Suite *s = suite_create("rings that the broker takes away");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, join_both, leave_both);
    tcase_add_test(t, before_each_load);
    suite_add_tcase(s, t);
    return run_suite(s);
}
