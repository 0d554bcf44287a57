# SPDX-License-Identifier: MIT
"""
CPython's own tests, as they are installed with it, on what xidata has in place of what they were written for:
multiprocessing's of queues, queue's, and (3.13, 3.14) those of subinterpreters, with stand-ins for the low-level modules.

What is left out is named, with the reason; a name that is no test is an error, so that the lists stay true.
"""

import multiprocessing
import os
import queue
import subprocess
import sys
import unittest

from pyhelp import HERE, main, xidata

try:
    from test import _test_multiprocessing as mp
    from test import test_queue
except ImportError:
    print("skipped: this CPython was installed without its tests")
    sys.exit(77)

FEEDER = "about the feeder thread: what cannot be pickled is an exception of put() here"
LEFT_OUT = {
    "MpQueue.test_queue_feeder_donot_stop_onexc": FEEDER,
    "MpQueue.test_queue_feeder_onexc": FEEDER,
    "MpQueue.test_queue_feeder_on_queue_feeder_error": "about the hook of the feeder thread, by a subclass of multiprocessing's",
    "MpSimpleQueue.test_closed": "looks at the pipe's two ends in private attributes",
}


class QueueModule:
    Full, Empty, ShutDown = queue.Full, queue.Empty, xidata.ShutDown


class QueueMixin(test_queue.BaseQueueTestMixin, unittest.TestCase):
    """test.test_queue: what it asks of queue.Queue."""

    queue = QueueModule
    type2test = xidata.Queue


class MpQueue(mp._TestQueue, mp.ProcessesMixin, unittest.TestCase):
    """test._test_multiprocessing: what it asks of Queue and JoinableQueue."""

    TYPE = "processes"
    Queue = staticmethod(lambda *a, **k: xidata.Queue(*a, **k))
    JoinableQueue = staticmethod(lambda *a, **k: xidata.JoinableQueue(*a, **k))


class MpSimpleQueue(mp.TestSimpleQueue):
    """test._test_multiprocessing: what it asks of SimpleQueue."""


for _kind in (MpQueue, MpSimpleQueue):
    _kind.setUp = lambda self: None


class Subinterpreters(unittest.TestCase):
    """test.test_interpreters of 3.13 and 3.14: each module in a Python that has the stand-ins."""

    def run_module(self, name):
        path = os.pathsep.join([os.environ["PYTHONPATH"], os.path.join(HERE, "standins")])
        done = subprocess.run([sys.executable, os.path.join(HERE, "standins", "run.py"), name], timeout=170, text=True,
                              env=dict(os.environ, PYTHONPATH=path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(done.stdout.strip().rpartition("\n")[2])
        self.assertEqual(done.returncode, 0, done.stdout)


if sys.version_info[:2] in ((3, 13), (3, 14)) and "t" not in sys.abiflags:  # they skip themselves in free-threaded builds
    for _name in ("test_queues", "test_lifecycle", "test_api"):
        setattr(Subinterpreters, _name, lambda self, name=_name: self.run_module(name))


def load_tests(loader, standard, pattern):
    suite, left_out = unittest.TestSuite(), {}
    for kind in (QueueMixin, MpQueue, MpSimpleQueue, Subinterpreters):
        for name in loader.getTestCaseNames(kind):
            reason = LEFT_OUT.get("%s.%s" % (kind.__name__, name))
            if reason:
                left_out["%s.%s" % (kind.__name__, name)] = reason
            else:
                suite.addTest(kind(name))
    if sys.version_info[:2] in ((3, 13), (3, 14)):
        unknown = set(LEFT_OUT) - set(left_out) - {"MpQueue.test_queue_feeder_onexc"}
        assert not unknown, unknown
    for name, reason in left_out.items():
        print("left out: %s (%s)" % (name, reason))
    return suite


if __name__ == "__main__":
    multiprocessing.Queue, multiprocessing.JoinableQueue = xidata.Queue, xidata.JoinableQueue
    multiprocessing.SimpleQueue = xidata.SimpleQueue
    mp.close_queue = lambda q: q.close()
    main(each_version=False)
