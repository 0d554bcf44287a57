# SPDX-License-Identifier: MIT
"""The ways from one Python process to another that are compared.

A peer is made before the fork, and then used on both sides: side 0 calls
`start(0)`, side 1 `start(1)`, each once. `send` and `recv` are then the bound
functions of the thing measured, not wrappers, so that nothing is measured but
it. Every peer carries values both ways, as two one-way channels or as one
duplex pipe.

`missing()` says why a peer is not to be had here, or None; METRICS what can be
measured with it. A peer whose two sides are interpreters of one process, each
with a lock of its own, says so by INTERPRETERS: `ticket()` is then what side 1 is
made of, there. An executor makes its other side itself: `start(0)` pins its
worker, and `call` submits a call to it and waits for the future.
"""

import multiprocessing
import os
import tempfile


class Peer:
    INTERPRETERS = False
    METRICS = ("one_way", "round_trip", "round_trip_asleep", "numpy")
    WARM_UP = 300  # operations before anything is timed: few where one takes ten milliseconds

    @staticmethod
    def missing():
        return None

    def sleep_at_once(self):
        """The next start() is for measuring sleepers: no spinning."""

    def stop(self):
        pass


class SimpleQueue(Peer):
    """multiprocessing.SimpleQueue: a pipe, a pickle and a lock on either side."""

    def __init__(self):
        context = multiprocessing.get_context("fork")
        self.queues = [context.SimpleQueue(), context.SimpleQueue()]

    def start(self, side):
        self.send = self.queues[side].put
        self.recv = self.queues[1 - side].get


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


class JoinableQueue(Queue):
    """multiprocessing.JoinableQueue: as Queue, and every value that was got is said to be done with."""

    def __init__(self):
        context = multiprocessing.get_context("fork")
        self.queues = [context.JoinableQueue(), context.JoinableQueue()]

    def start(self, side):
        super().start(side)
        get, done = self.queues[1 - side].get, self.queues[1 - side].task_done

        def recv():
            value = get()
            done()
            return value

        self.recv = recv


class Pipe(Peer):
    """multiprocessing.Pipe: a socket pair and a pickle; one reader and one writer only."""

    def __init__(self):
        self.ends = multiprocessing.get_context("fork").Pipe(duplex=True)

    def start(self, side):
        self.ends[1 - side].close()
        self.send = self.ends[side].send
        self.recv = self.ends[side].recv


class Zmq(Peer):
    """pyzmq: PUSH to PULL over ipc://, objects as pickles (send_pyobj)."""

    @staticmethod
    def missing():
        try:
            import zmq  # noqa: F401
        except ImportError:
            return "no module zmq (Debian: python3-zmq)"
        return None

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="xi-bench-zmq.")
        self.names = [f"ipc://{self.folder}/from-{side}" for side in (0, 1)]

    def start(self, side):
        import zmq

        self.side, self.context = side, zmq.Context()
        self.out, self.back = self.context.socket(zmq.PUSH), self.context.socket(zmq.PULL)
        self.back.bind(self.names[1 - side])
        self.out.connect(self.names[side])
        self.send, self.recv = self.out.send_pyobj, self.back.recv_pyobj

    def stop(self):
        self.context.destroy()
        if self.side == 0:
            for name in os.listdir(self.folder):
                os.unlink(os.path.join(self.folder, name))
            os.rmdir(self.folder)


class InterpretersQueue(Peer):
    """concurrent.interpreters.Queue (3.14), or what it was before it was public (3.13): between interpreters of one
    process. Bounded, or a sender would fill all memory."""

    INTERPRETERS = True
    METRICS = ("one_way", "round_trip", "round_trip_asleep")
    WARM_UP = 20
    DEEP = 1000

    @staticmethod
    def module():
        try:
            from concurrent import interpreters

            return interpreters.create_queue, interpreters.Queue
        except ImportError:
            from test.support.interpreters import queues

            return queues.create, queues.Queue

    @classmethod
    def missing(cls):
        try:
            import _interpreters  # noqa: F401

            cls.module()
        except ImportError:
            return "this Python has no queues between interpreters (3.14, or 3.13 with its tests)"
        return None

    def __init__(self, ticket=None):
        create, attach = self.module()
        self.queues = [create(self.DEEP), create(self.DEEP)] if ticket is None else [attach(number) for number in ticket]

    def ticket(self):
        return [queue.id for queue in self.queues]

    def start(self, side):
        self.send = self.queues[side].put
        self.recv = self.queues[1 - side].get


class RawInterpretersQueue(InterpretersQueue):
    """The same queues without their polling every 10 ms: asked again at once, as fast as they can be."""

    METRICS = ("one_way", "round_trip")
    WARM_UP = 300

    def start(self, side):
        import queue

        out, back = self.queues[side], self.queues[1 - side]
        try_put, try_get = out.put_nowait, back.get_nowait

        def send(value):
            while True:
                try:
                    return try_put(value)
                except queue.Full:
                    pass

        def recv():
            while True:
                try:
                    return try_get()
                except queue.Empty:
                    pass

        self.send, self.recv = send, recv


class Xi(Peer):
    """xidata: two queue channels of the namespace that XI_NAMESPACE names, one each way."""

    def __init__(self):
        import xidata

        self.module = xidata
        self.spin = 50e-6  # the default, in so many words: a pinned process would not spin by itself
        self.names = [f"python-{os.getpid()}-from-{side}" for side in (0, 1)]

    @staticmethod
    def missing():
        try:
            import xidata  # noqa: F401
        except ImportError as error:
            return f"{error}; build the module for this Python, or set PYTHONPATH to where it is"
        return None

    def sleep_at_once(self):
        self.spin = 0

    def start(self, side):
        self.module.join(spin=self.spin)
        self.queues = [self.module.channel(name) for name in self.names]
        self.send = self.queues[side].send
        self.recv = self.queues[1 - side].recv

    def stop(self):
        for queue in self.queues:
            queue.free()

    def array_in_place(self, size):
        """Memory that is sent without a copy."""
        return self.module.buffer(size)


class XiArray(Xi):
    """The same with arrays of numpy's own memory, which are copied once when they are sent, and read in place."""

    METRICS = ("numpy",)
    array_in_place = None


class XiQueue(Xi):
    """xidata.queues.Queue, which stands in for multiprocessing.Queue."""

    METRICS = ("one_way", "round_trip")

    def start(self, side):
        from xidata import queues

        self.module.join(spin=self.spin)
        self.queues = [queues.Queue(name=name) for name in self.names]
        self.send = self.queues[side].put
        self.recv = self.queues[1 - side].get

    def stop(self):
        pass


class ProcessPool(Peer):
    """concurrent.futures.ProcessPoolExecutor: one worker, a process; calls and results by pipes, threads between them."""

    METRICS = ("call",)
    WARM_UP = 100

    def executor(self, **options):
        from concurrent.futures import ProcessPoolExecutor

        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"), **options)

    def start(self, cpu):
        """`cpu`: where the worker goes, or None. What is called is there already, in whatever interpreter: abs."""
        pin = {} if cpu is None else {"initializer": os.sched_setaffinity, "initargs": (0, {cpu})}
        self.pool = self.executor(**pin)
        submit = self.pool.submit
        self.call = lambda value: submit(abs, value).result()

    def stop(self):
        self.pool.shutdown()


class InterpreterPool(ProcessPool):
    """concurrent.futures.InterpreterPoolExecutor (3.14): one worker, a thread with an interpreter of its own."""

    @staticmethod
    def missing():
        try:
            from concurrent.futures import InterpreterPoolExecutor  # noqa: F401
        except ImportError:
            return "this Python has no InterpreterPoolExecutor (3.14)"
        return None

    def executor(self, **options):
        from concurrent.futures import InterpreterPoolExecutor

        return InterpreterPoolExecutor(1, **options)


class XiPool(ProcessPool):
    """xidata.InterpreterPoolExecutor: one worker, an interpreter in a process of its own."""

    missing = staticmethod(Xi.missing)

    def executor(self, **options):
        os.environ.setdefault("XI_SPIN_US", "50")  # the default, for a worker that is pinned as well
        import xidata

        return xidata.InterpreterPoolExecutor(1, **options)


PEERS = {
    "xi": Xi,
    "xi_queue": XiQueue,
    "xi_pool": XiPool,
    "xi_numpy": XiArray,
    "SimpleQueue": SimpleQueue,
    "Queue": Queue,
    "JoinableQueue": JoinableQueue,
    "Pipe": Pipe,
    "pyzmq": Zmq,
    "concurrent.interpreters.Queue": InterpretersQueue,
    "_interpqueues": RawInterpretersQueue,
    "ProcessPoolExecutor": ProcessPool,
    "InterpreterPoolExecutor": InterpreterPool,
}
