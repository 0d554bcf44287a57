/* SPDX-License-Identifier: MIT */
/*
 * MPI between two processes of one host: MPICH and Open MPI, from one source.
 * MPI_Send and MPI_Recv of bytes between two ranks, which an MPI library does
 * through shared memory, polling; large messages go as it thinks best (one copy
 * by process_vm_readv where the kernel allows it). There is no sleeping: MPI
 * polls. The two processes are started by the library's own mpiexec, told to
 * bind nothing, since the benchmark pins them as it pins everybody.
 *
 * PEER_MPI_NAME, PEER_MPI_WHAT and PEER_MPI_EXEC are set by the build.
 */
#include <errno.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/peer.h"

static int partner;

static int probe(char *why, size_t capacity) {
    if (access(PEER_MPI_EXEC, X_OK) == 0) return 0;
    return snprintf(why, capacity, "%s is missing", PEER_MPI_EXEC), -1;
}

static void launch(char *const side[]) {
    char *arguments[16] = {PEER_MPI_EXEC, "-n", "2"};
    int n = 3;
#ifdef OPEN_MPI
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1); /* containers, usually */
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_btl", "self,vader", 1); /* shared memory, and no search for networks */
    setenv("OMPI_MCA_pml", "ob1", 1);
    setenv("OMPI_MCA_mpi_yield_when_idle", "0", 1);
    arguments[n++] = "--oversubscribe";
    arguments[n++] = "--bind-to";
    arguments[n++] = "none";
#else
    setenv("UCX_TLS", "sm,self", 1); /* shared memory, and no search for networks */
    setenv("FI_PROVIDER", "shm", 0);
#endif
    for (int i = 0; side[i]; i++) arguments[n++] = side[i];
    execv(PEER_MPI_EXEC, arguments);
}

static int open_(struct bench_pair *p) {
    int rank = 0, size = 0;
    if (MPI_Init(NULL, NULL) != MPI_SUCCESS) return bench_fail(p, "MPI_Init failed");
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    partner = !rank;
    return size == 2 ? 0 : bench_fail(p, "there are %d ranks instead of 2: the launcher is another MPI's", size);
}

static void close_(struct bench_pair *p) {
    (void)p;
    MPI_Finalize();
}

static int send_(struct bench_pair *p, const void *message, size_t size) {
    int rc = MPI_Send(message, (int)size, MPI_BYTE, partner, 0, MPI_COMM_WORLD);
    return rc == MPI_SUCCESS ? 0 : bench_fail(p, "MPI_Send failed with %d", rc);
}

static int recv_(struct bench_pair *p, void *room, size_t size, const void **message) {
    (void)message;
    int rc = MPI_Recv(room, (int)size, MPI_BYTE, partner, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return rc == MPI_SUCCESS ? 0 : bench_fail(p, "MPI_Recv failed with %d", rc);
}

static const struct peer mpi = {
    .name = PEER_MPI_NAME,
    .what = PEER_MPI_WHAT ", MPI_Send to MPI_Recv in shared memory",
    .how = "polls, always; copied through shared memory, large messages by the kernel from process to process where it may",
    .can = PEER_ROUNDS | PEER_ONE_WAY | PEER_COPIES,
    .flags = PEER_LAUNCHED,
    .probe = probe, .launch = launch,
    .open = open_, .close = close_, .send = send_, .recv = recv_,
};
const struct peer *const bench_peers[] = {&mpi, NULL};
