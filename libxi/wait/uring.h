/* SPDX-License-Identifier: MIT */
/* What the rings of this library have in common: how they are made, and the entry that waits for a word. */
#ifndef XI_WAIT_URING_H
#define XI_WAIT_URING_H

#include <errno.h>
#include <liburing.h>
#include <string.h>

/*
 * liburing maps and unmaps by system calls of its own, which a thread sanitizer
 * does not see: a ring mapped where another thread's has just been unmapped looks
 * like a race to it, so it is told what the kernel orders.
 */
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern char xi_uring_unmapped; /* sleep.c */
#define XI_URING_UNMAPS() __tsan_release(&xi_uring_unmapped)
#define XI_URING_MAPPED() __tsan_acquire(&xi_uring_unmapped)
#else
#define XI_URING_UNMAPS() ((void)0)
#define XI_URING_MAPPED() ((void)0)
#endif

static inline void xi_uring_exit(struct io_uring *ring) {
    XI_URING_UNMAPS();
    io_uring_queue_exit(ring);
}

/*
 * SINGLE_ISSUER | DEFER_TASKRUN, so that a ring interrupts nobody: a default or
 * COOP_TASKRUN ring makes unrelated system calls of the host program return
 * EINTR. Never shared with a forked child. 0 or -errno.
 */
static inline int xi_uring_init(struct io_uring *ring, unsigned entries) {
    struct io_uring_params p = {0};
    p.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
              IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP;
    int rc = io_uring_queue_init_params(entries, ring, &p);
    if (rc) return rc;
    XI_URING_MAPPED();
    if (!(p.features & IORING_FEAT_EXT_ARG)) {
        xi_uring_exit(ring);
        return -ENOSYS;
    }
    (void)io_uring_ring_dontfork(ring);
    return 0;
}

#define XI_URING_FUTEX_WAIT 51u      /* IORING_OP_FUTEX_WAIT, Linux 6.7; liburing 2.3 has no name for it */
#define XI_URING_FUTEX_SHARED_U32 2  /* FUTEX2_SIZE_U32, and FUTEX2_PRIVATE not set */

static inline void xi_uring_prep_futex_wait(struct io_uring_sqe *sqe, _Atomic uint32_t *word, uint32_t seen, uint64_t tag) {
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = XI_URING_FUTEX_WAIT;
    sqe->fd = XI_URING_FUTEX_SHARED_U32;
    sqe->addr = (uint64_t)(uintptr_t)word;
    sqe->off = seen;
    sqe->addr3 = 0xffffffffull; /* whatever a waker's mask is */
    sqe->user_data = tag;
}

#endif
