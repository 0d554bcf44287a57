/* SPDX-License-Identifier: MIT */
/*
 * Boost.Interprocess message_queue: a queue each way in shared memory, behind a
 * process-shared mutex and two condition variables; 1,024 messages deep, 4 where
 * they are large. Awake, the reader asks again and again (try_receive); else it
 * blocks. One copy in, one copy out.
 */
#include <boost/interprocess/ipc/message_queue.hpp>
#include <cstdio>
#include <cstring>
#include <memory>

#include "bench/peer.h"

namespace ipc = boost::interprocess;

namespace {

struct queues {
    std::unique_ptr<ipc::message_queue> queue[2]; /* [s] is sent on by side s */
    char name[2][64];
};

queues *state(bench_pair *p) { return static_cast<queues *>(peer_state(p)); }

int failed(bench_pair *p, const char *what, const std::exception &e) { return bench_fail(p, "%s: %s", what, e.what()); }

int open_(bench_pair *p) {
    auto *q = new queues;
    peer_keep(p, q);
    const char *own = std::strrchr(peer_folder(p), '/') + 1;
    try {
        for (int s = 0; s < 2; s++) {
            /* Large messages go one way, from side 0; what comes back are the answers to them. */
            const bool large = peer_size(p) >= 16384;
            const std::size_t size = large && s == 1 ? 64 : peer_size(p), deep = large ? 4 : 1024;
            std::snprintf(q->name[s], sizeof q->name[s], "%.48s-%d", own, s);
            q->queue[s] = std::make_unique<ipc::message_queue>(ipc::open_or_create, q->name[s], deep, size);
        }
    } catch (const std::exception &e) {
        return failed(p, "making a message_queue", e);
    }
    peer_meet(p);
    if (peer_side(p) == 0)
        for (auto &name : q->name) ipc::message_queue::remove(name); /* both have it: nothing stays behind */
    return 0;
}

void close_(bench_pair *p) { delete state(p); }

int send_(bench_pair *p, const void *message, std::size_t size) {
    try {
        state(p)->queue[peer_side(p)]->send(message, size, 0);
    } catch (const std::exception &e) {
        return failed(p, "message_queue::send", e);
    }
    return 0;
}

int recv_(bench_pair *p, void *room, std::size_t size, const void **) {
    ipc::message_queue::size_type got = 0;
    unsigned priority = 0;
    auto &queue = *state(p)->queue[!peer_side(p)];
    const std::size_t most = queue.get_max_msg_size();
    alignas(8) unsigned char whole[64]; /* it wants room for the largest, also for a small one */
    void *to = size < most && size <= sizeof whole ? whole : room;
    try {
        if (!peer_spins(p))
            queue.receive(to, most, got, priority);
        else
            while (!queue.try_receive(to, most, got, priority)) peer_relax();
    } catch (const std::exception &e) {
        return failed(p, "message_queue::receive", e);
    }
    if (to != room) std::memcpy(room, to, got <= size ? got : size);
    return got == size ? 0 : bench_fail(p, "a message of %zu bytes instead of %zu arrived", got, size);
}

const peer described = [] {
    peer d = {};
    d.name = "boost";
    d.what = "Boost.Interprocess message_queue";
    d.how = "awake: try_receive again and again; else blocks on its condition variable. Copied in and out";
    d.can = PEER_ROUNDS | PEER_ASLEEP | PEER_ONE_WAY | PEER_COPIES;
    d.open = open_;
    d.close = close_;
    d.send = send_;
    d.recv = recv_;
    return d;
}();

} // namespace

extern "C" const struct peer *const bench_peers[] = {&described, nullptr};
