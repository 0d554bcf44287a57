# SPDX-License-Identifier: MIT
"""
Makes every Python that is started with this folder in PYTHONPATH have xidata in place of the low-level modules of
CPython 3.13's subinterpreters. Tests name descriptors of pipes by number in code that another process runs; so the
processes of interpreters keep their own descriptors above 700, and have the tests' pipes put where they are named.
"""

import importlib.machinery
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = {"_interpreters": "low_interpreters.py", "_interpqueues": "low_queues.py"}
LOWEST_OWN = 700


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in NAMES:
            return None
        file = os.path.join(HERE, NAMES[name])
        return importlib.util.spec_from_file_location(name, file, loader=importlib.machinery.SourceFileLoader(name, file))


def keep_low_numbers():
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3, LOWEST_OWN):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(null, number, False)


sys.meta_path.insert(0, Finder)
if any("_forkserver as f" in argument for argument in sys.orig_argv):
    from xidata import _worker

    settle_in = _worker.settle_in

    def settle_in_above(child):
        import fcntl

        low = settle_in(child)
        ready = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, LOWEST_OWN)
        os.close(low) # it is not to be the number of something else later
        keep_low_numbers()
        return ready

    _worker.settle_in = settle_in_above
