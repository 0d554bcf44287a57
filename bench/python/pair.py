# SPDX-License-Identifier: MIT
"""Measures one way of handing Python objects to another process, once.

    pair.py --metric METRIC --system NAME --shape NAME --seconds S --cpus A,B
    pair.py --list

Prints one line: how many operations, and how many seconds they took. xi-bench
runs it; it runs by itself as well. --list instead says of every system "NAME ok"
and by what metrics, or "NAME" and why it is not to be had in this interpreter.

The program forks into two processes, each pinned to its processor; for a system
that is one between interpreters of a single process, the child is such an
interpreter, in a thread. The metrics:

    one_way            the child sends, the parent receives and holds the clock,
                       from the moment it tells the child to begin
    round_trip         the parent sends and holds the clock, the child answers
    round_trip_asleep  the same, each message sent when its receiver sleeps; the
                       sum of the two legs, each from its sender's clock
    numpy              a 16 MiB array there, an int back: half of that round trip
    call               a call submitted to an executor of one worker, and its result

How many operations make up S seconds is found by doing some first; these are
checked one by one, those that count by their last value, and all by number.
"""

import argparse
import os
import signal
import statistics
import struct
import sys
import time

from peers import PEERS

SHAPES = {
    # What the number i becomes, and the number again.
    "int": (lambda i: i, lambda v: v),
    "bytes100": (lambda i: i.to_bytes(8, "little") + bytes(92), lambda v: int.from_bytes(v[:8], "little")),
    "tuple5": (lambda i: (i, 1.5, "name", None, True), lambda v: v[0]),
    "numpy16MiB": (None, None),  # see Arrays
}
ARRAY_BYTES = 16 << 20
MOST = 20_000_000
SETTLE_NS = 200_000  # by then, whoever waits for a message is asleep
PR_SET_PDEATHSIG = 1


class Wrong(Exception):
    """A value arrived that is not the one expected."""


class Arrays:
    """Arrays with a number in their first and last word: made in place where the peer can, else one that is used again."""

    def __init__(self, peer):
        import numpy

        self.numpy = numpy
        self.in_place = getattr(peer, "array_in_place", None)
        self.own = None if self.in_place else numpy.zeros(ARRAY_BYTES // 8)

    def make(self, i):
        memory = self.in_place(ARRAY_BYTES) if self.in_place else self.own
        array = self.numpy.frombuffer(memory, dtype=self.numpy.float64) if self.in_place else memory
        array[0] = array[-1] = i
        return memory

    def number(self, value):
        array = self.numpy.frombuffer(value, dtype=self.numpy.float64) if self.in_place else value
        return int(array[0]) if array[0] == array[-1] and array.nbytes == ARRAY_BYTES else -1


class Pair:
    """What both sides know: the peer, the shape, and the pipe on which the parent tells the child what to do."""

    def __init__(self, options, peer=None, orders=None):
        self.options = options
        self.peer = peer or PEERS[options.system]()
        self.make, self.number = SHAPES[options.shape]
        self.orders = orders or os.pipe()
        self.warm_up = self.peer.WARM_UP
        if options.metric == "numpy":
            arrays = Arrays(self.peer)
            self.make, self.number = arrays.make, arrays.number
            self.warm_up = 3
        if options.metric == "round_trip_asleep":
            self.peer.sleep_at_once()
            self.warm_up = min(self.warm_up, 50)

    def pin(self, side):
        if self.options.cpus:
            os.sched_setaffinity(0, {int(self.options.cpus.split(",")[side])})

    def values(self, start, count):
        """The objects to send: made beforehand, because making them is not what is measured."""
        few = [self.make(start + i) for i in range(min(count, 1024))]
        last = self.make(start + count - 1)
        return few, last

    def check(self, value, expected):
        if self.number(value) != expected:
            raise Wrong(f"{self.options.system}: value {expected} arrived as {str(value)[:200]}")

    # ---- the child

    def child(self):
        self.peer.start(1)
        while True:
            order = os.read(self.orders[0], 17)
            if not order:
                break
            checked, start, count = struct.unpack("<bQQ", order)
            if self.options.metric == "round_trip":
                self.answer(count)
            elif self.options.metric == "round_trip_asleep":
                self.answer_sleepers(count)
            elif self.options.metric == "numpy":
                self.answer_arrays(start, count)
            else:
                self.produce(checked, start, count)
        self.peer.stop()

    def answer(self, count):
        send, recv = self.peer.send, self.peer.recv
        for _ in range(count):
            send(recv())

    def answer_arrays(self, start, count):
        send, recv, number = self.peer.send, self.peer.recv, self.number
        for i in range(start, start + count):
            if number(recv()) != i:
                raise Wrong(f"{self.options.system}: array {i} arrived as another")
            send(i)

    def answer_sleepers(self, count):
        """Every leg's time goes back with the last message."""
        legs = []
        for _ in range(count):
            stamp = self.peer.recv()
            legs.append(time.monotonic_ns() - stamp)
            self.settle()
            self.peer.send(time.monotonic_ns())
        self.settle()
        self.peer.send(int(statistics.median(legs)))

    def settle(self):
        end = time.monotonic_ns() + SETTLE_NS
        while time.monotonic_ns() < end:
            pass

    def produce(self, checked, start, count):
        send = self.peer.send
        if checked:
            for i in range(start, start + count):
                send(self.make(i))
            return
        few, last = self.values(start, count)
        for _ in range((count - 1) // len(few)):
            for value in few:
                send(value)
        for value in few[: (count - 1) % len(few)]:
            send(value)
        send(last)

    # ---- the parent, which holds the clock

    def order(self, checked, start, count):
        os.write(self.orders[1], struct.pack("<bQQ", checked, start, count))

    def consume(self, checked, start, count):
        recv = self.peer.recv
        if checked:
            for i in range(start, start + count):
                self.check(recv(), i)
            return
        for _ in range(count - 1):
            recv()
        self.check(recv(), start + count - 1)

    def converse(self, checked, start, count):
        send, recv = self.peer.send, self.peer.recv
        if checked:
            for i in range(start, start + count):
                send(self.make(i))
                self.check(recv(), i)
            return
        few, last = self.values(start, count)
        for _ in range((count - 1) // len(few)):
            for value in few:
                send(value)
                recv()
        for value in few[: (count - 1) % len(few)]:
            send(value)
            recv()
        send(last)
        self.check(recv(), start + count - 1)

    def hand_arrays(self, _checked, start, count):
        send, recv, make = self.peer.send, self.peer.recv, self.make
        for i in range(start, start + count):
            send(make(i))
            if recv() != i:
                raise Wrong(f"{self.options.system}: array {i} was not answered")

    def wake_sleepers(self, _checked, _start, count):
        """Leaves in `slept` what one round took: the medians of both legs, in seconds."""
        legs = []
        for _ in range(count):
            self.settle()
            self.peer.send(time.monotonic_ns())
            stamp = self.peer.recv()
            legs.append(time.monotonic_ns() - stamp)
        there = self.peer.recv()
        self.slept = (there + statistics.median(legs)) / 1e9

    def make_calls(self, checked, start, count):
        call = self.peer.call
        for i in range(start, start + count - 1):
            value = call(i)
            if checked:
                self.check(value, i)
        self.check(call(start + count - 1), start + count - 1)

    def timed(self, checked, start, count):
        metric = self.options.metric
        work = {
            "round_trip": self.converse,
            "numpy": self.hand_arrays,
            "round_trip_asleep": self.wake_sleepers,
            "call": self.make_calls,
        }
        begin = time.perf_counter()
        if metric != "call":
            self.order(checked, start, count)
        work.get(metric, self.consume)(checked, start, count)
        return time.perf_counter() - begin

    def parent(self):
        if self.options.metric != "call":  # an executor is started, and then has its worker
            self.peer.start(0)
        self.timed(1, 0, self.warm_up)
        seconds = self.timed(0, self.warm_up, self.warm_up)
        for _ in range(3):  # a short first look exaggerates: look again at what should be a tenth of the time
            count = max(self.warm_up, min(MOST, int(self.warm_up * 0.1 * self.options.seconds / seconds)))
            tenth = self.timed(0, 0, count)
            seconds = tenth * self.warm_up / count
            if tenth > 0.05 * self.options.seconds:
                break
        count = max(self.warm_up, min(MOST, int(self.warm_up * self.options.seconds / seconds)))
        seconds = self.timed(0, 0, count)
        if self.options.metric == "numpy":
            seconds /= 2
        elif self.options.metric == "round_trip_asleep":
            seconds = self.slept * count
        return count, seconds


# ---- a child process


def follow_parent(parent):
    """Dies with the parent, which may be killed at any time."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def watch(child):
    """A child that fails would leave its parent waiting for ever. Others than it may end: a broker's launcher does."""

    def look(*_):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            sys.exit("the other process ended too early")

    signal.signal(signal.SIGCHLD, look)
    look()


def run_child(pair, parent):
    status = 1
    try:
        follow_parent(parent)
        os.close(pair.orders[1])
        pair.pin(1)
        pair.child()
        status = 0
    except BaseException:  # reported, and told to the parent by the exit status
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def beside_process(pair):
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        run_child(pair, parent)
    os.close(pair.orders[0])
    watch(child)
    pair.pin(0)
    figures = pair.parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(pair.orders[1])  # now it may end
    _, status = os.waitpid(child, 0)
    pair.peer.stop()
    if status != 0:
        sys.exit("the other process failed")
    return figures


# ---- a worker that an executor makes


def with_worker(pair):
    cpus = pair.options.cpus.split(",") if pair.options.cpus else []
    pair.peer.start(int(cpus[1]) if cpus else None)
    pair.peer.call(0)  # the executor's threads are there now: they may use both processors, this one is pinned
    pair.pin(0)
    figures = pair.parent()
    pair.peer.stop()
    return figures


# ---- a child interpreter

CHILD_INTERPRETER = """
import sys
sys.path[:] = {path!r}
import pair
pair.run_interpreter({arguments!r}, {ticket!r}, {orders!r})
"""


def run_interpreter(arguments, ticket, orders):
    """Side 1, in an interpreter of its own with a lock of its own."""
    options = parse(arguments)
    pair = Pair(options, PEERS[options.system](ticket), orders)
    pair.pin(1)
    pair.child()


def beside_interpreter(pair, arguments):
    import threading

    import _interpreters

    number = _interpreters.create("isolated")
    code = CHILD_INTERPRETER.format(path=sys.path, arguments=arguments, ticket=pair.peer.ticket(), orders=pair.orders)
    failed = []

    def run():
        error = _interpreters.run_string(number, code)
        if error is not None:
            failed.append(error)
            print(error, file=sys.stderr, flush=True)
            os._exit(1)  # the parent would wait for ever

    thread = threading.Thread(target=run)
    thread.start()
    pair.pin(0)  # this thread alone
    figures = pair.parent()
    os.close(pair.orders[1])
    thread.join()
    if failed:
        sys.exit("the other interpreter failed")
    return figures


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--metric", choices=("one_way", "round_trip", "round_trip_asleep", "numpy", "call"))
    parser.add_argument("--system", choices=tuple(PEERS))
    parser.add_argument("--shape", choices=tuple(SHAPES))
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cpus", default="", help="the two processors, as A,B; not pinned when left out")
    return parser.parse_args(arguments)


def list_systems():
    print("python {}.{}".format(*sys.version_info))
    for name, peer in PEERS.items():
        print(name, peer.missing() or "ok " + ",".join(peer.METRICS))
    try:
        import numpy  # noqa: F401

        print("numpy ok")
    except ImportError:
        print("numpy no module numpy (Debian: python3-numpy)")


def main():
    options = parse(sys.argv[1:])
    if options.list:
        return list_systems()
    missing = PEERS[options.system].missing()
    if missing:
        sys.exit(f"{sys.executable}: {missing}")
    pair = Pair(options)
    if options.metric not in pair.peer.METRICS:
        sys.exit(f"{options.system} is not measured by {options.metric}")
    if options.metric == "call":
        count, seconds = with_worker(pair)
    elif pair.peer.INTERPRETERS:
        count, seconds = beside_interpreter(pair, sys.argv[1:])
    else:
        count, seconds = beside_process(pair)
    print(count, seconds)


if __name__ == "__main__":
    main()
