# SPDX-License-Identifier: MIT
"""Measures one way of handing Python objects to another process, once.

    pair.py --metric one_way|round_trip --system NAME --shape NAME --seconds S --cpus A,B

Prints one line: how many operations, and how many seconds they took. xi-bench
runs it; it runs by itself as well. The program forks into two processes, each
pinned to its processor. One way, the child sends and the parent receives and
holds the clock, from the moment it tells the child to begin. There and back,
the parent sends and holds the clock, and the child answers with what it got.

How many operations make up S seconds is found by doing some first; these are
checked one by one, those that count by their last value, and all by number.
"""

import argparse
import ctypes
import os
import signal
import struct
import sys
import time

from peers import PEERS

SHAPES = {
    # What the number i becomes, and the number again.
    "int": (lambda i: i, lambda v: v),
    "bytes100": (lambda i: i.to_bytes(8, "little") + bytes(92), lambda v: int.from_bytes(v[:8], "little")),
    "tuple5": (lambda i: (i, 1.5, "name", None, True), lambda v: v[0]),
}
WARM_UP = 300
MOST = 20_000_000
PR_SET_PDEATHSIG = 1


class Wrong(Exception):
    """A value arrived that is not the one expected."""


class Pair:
    """What both sides know: the peer, the shape, and the pipe on which the parent tells the child what to do."""

    def __init__(self, options):
        self.options = options
        self.peer = PEERS[options.system]()
        self.make, self.number = SHAPES[options.shape]
        self.orders = os.pipe()

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
            raise Wrong(f"{self.options.system}: value {expected} arrived as {value!r}")

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
            else:
                self.produce(checked, start, count)
        self.peer.stop()

    def answer(self, count):
        send, recv = self.peer.send, self.peer.recv
        for _ in range(count):
            send(recv())

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

    def timed(self, checked, start, count):
        work = self.converse if self.options.metric == "round_trip" else self.consume
        begin = time.perf_counter()
        self.order(checked, start, count)
        work(checked, start, count)
        return time.perf_counter() - begin

    def parent(self):
        self.peer.start(0)
        self.timed(1, 0, WARM_UP)
        seconds = self.timed(0, WARM_UP, WARM_UP)
        for _ in range(3):  # a short first look exaggerates: look again at what should be a tenth of the time
            count = max(WARM_UP, min(MOST, int(WARM_UP * 0.1 * self.options.seconds / seconds)))
            tenth = self.timed(0, 0, count)
            seconds = tenth * WARM_UP / count
            if tenth > 0.05 * self.options.seconds:
                break
        count = max(WARM_UP, min(MOST, int(WARM_UP * self.options.seconds / seconds)))
        seconds = self.timed(0, 0, count)
        return count, seconds


def follow_parent(parent):
    """Dies with the parent, which may be killed at any time."""
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


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metric", choices=("one_way", "round_trip"), required=True)
    parser.add_argument("--system", choices=tuple(PEERS), required=True)
    parser.add_argument("--shape", choices=tuple(SHAPES), required=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cpus", default="", help="the two processors, as A,B; not pinned when left out")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        pair = Pair(options)
    except ImportError as error:
        sys.exit(f"{sys.executable}: {error}; build the module for this Python, or set PYTHONPATH to where it is")
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        run_child(pair, parent)
    os.close(pair.orders[0])
    watch(child)
    pair.pin(0)
    count, seconds = pair.parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(pair.orders[1])  # now it may end
    _, status = os.waitpid(child, 0)
    pair.peer.stop()
    if status != 0:
        sys.exit("the other process failed")
    print(count, seconds)


if __name__ == "__main__":
    main()
