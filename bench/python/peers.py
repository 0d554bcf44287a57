# SPDX-License-Identifier: MIT
"""The ways from one Python process to another that are compared.

A peer is made before the fork, and then used on both sides: side 0 calls
`start(0)`, side 1 `start(1)`, each once. `send` and `recv` are then the bound
functions of the thing measured, not wrappers, so that nothing is measured but
it. Every peer carries values both ways, as two one-way channels or as one
duplex pipe.
"""

import multiprocessing
import os


class SimpleQueue:
    """multiprocessing.SimpleQueue: a pipe, a pickle and a lock on either side."""

    def __init__(self):
        context = multiprocessing.get_context("fork")
        self.queues = [context.SimpleQueue(), context.SimpleQueue()]

    def start(self, side):
        self.send = self.queues[side].put
        self.recv = self.queues[1 - side].get

    def stop(self):
        pass


class Queue(SimpleQueue):
    """multiprocessing.Queue: as SimpleQueue, behind a thread that feeds the pipe."""

    def __init__(self):
        context = multiprocessing.get_context("fork")
        self.queues = [context.Queue(), context.Queue()]

    def start(self, side):
        super().start(side)
        self.mine = self.queues[side]

    def stop(self):
        self.mine.close()
        self.mine.join_thread()


class Pipe:
    """multiprocessing.Pipe: a socket pair and a pickle; one reader and one writer only."""

    def __init__(self):
        self.ends = multiprocessing.get_context("fork").Pipe(duplex=True)

    def start(self, side):
        self.ends[1 - side].close()
        self.send = self.ends[side].send
        self.recv = self.ends[side].recv

    def stop(self):
        pass


class Xi:
    """xidata: two queue channels of the namespace that XI_NAMESPACE names, one each way."""

    def __init__(self):
        import xidata

        self.module = xidata
        self.names = [f"python-{os.getpid()}-from-{side}" for side in (0, 1)]

    def start(self, side):
        self.module.join(spin=50e-6)  # the default, in so many words: a pinned process would not spin by itself
        self.queues = [self.module.channel(name) for name in self.names]
        self.send = self.queues[side].send
        self.recv = self.queues[1 - side].recv

    def stop(self):
        for queue in self.queues:
            queue.free()


PEERS = {"xi": Xi, "SimpleQueue": SimpleQueue, "Queue": Queue, "Pipe": Pipe}
