# SPDX-License-Identifier: MIT
"""
Makes every Python that is started with this folder in PYTHONPATH have xidata in place of the low-level modules of
CPython's subinterpreters (3.13, 3.14). Tests name descriptors of pipes by number in code that another process runs; so the
processes of interpreters keep their own descriptors above 700, and have the tests' pipes put where they are named.
"""

import importlib.machinery
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = {"_interpreters": "low_interpreters.py",
         "_interpqueues": "low_queues.py" if sys.version_info < (3, 14) else "low_queues_314.py"}
LOWEST_OWN = 700


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in NAMES:
            return None
        file = os.path.join(HERE, NAMES[name])
        return importlib.util.spec_from_file_location(name, file, loader=importlib.machinery.SourceFileLoader(name, file))


placed, closed = set(), []


def place(pid, ends):
    """Pipes of process `pid` get the same numbers here. `ends`: (number, flags of open())."""
    for number, flags in ends:
        fd = os.open("/proc/%d/fd/%d" % (pid, number), flags)
        if fd != number:
            os.dup2(fd, number, False)
            os.close(fd)
        placed.add(number)


def closed_since():
    """Numbers of placed pipes that a command has closed since this was asked."""
    numbers = closed[:]
    closed.clear()
    return numbers


def take_numbers(numbers):
    """Those that nothing has are /dev/null's, and returned."""
    null = os.open(os.devnull, os.O_RDWR)
    taken = []
    for number in numbers:
        try:
            if number != null:
                os.fstat(number)
                continue
        except OSError:
            os.dup2(null, number, False)
        taken.append(number)
    if null not in taken:
        os.close(null)
    return taken


def above(fd):
    import fcntl

    number = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOWEST_OWN)
    os.close(fd)
    return number


def keep_low_numbers(worker):
    import socket

    settle_in, flush = worker.settle_in, worker.Worker.flush

    def settle_in_above(child):
        ready = above(settle_in(child))
        child.connection = socket.socket(fileno=above(child.connection.detach()))
        take_numbers(range(3, LOWEST_OWN))
        return ready

    def flush_and_take():
        # When a command has ended, at once: what the process opens next, be it the ring of its first sleep, would get
        # the number of a pipe that the command has closed, and lose it to the next pipe that is placed.
        flush()
        closed.extend(take_numbers(placed))
        placed.difference_update(closed)

    worker.settle_in, worker.Worker.flush = settle_in_above, staticmethod(flush_and_take)


sys.meta_path.insert(0, Finder)
if any("_forkserver as f" in argument for argument in sys.orig_argv):
    from xidata import _worker

    keep_low_numbers(_worker)
