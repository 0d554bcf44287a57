# SPDX-License-Identifier: MIT
"""xidata.InterpreterPoolExecutor: concurrent.futures over interpreters."""

import concurrent.futures
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import unittest

from pyhelp import SOON, TestCase, main, until, xidata
from xidata import interpreters

ready_with = None


def prepare(value):
    global ready_with
    ready_with = value


def prepared():
    return ready_with


def square(x):
    return x * x


def fail(kind, *args):
    raise kind(*args)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(q):
    return q.get()


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__("odd")


class Pool(TestCase):
    def test_results(self):
        with xidata.InterpreterPoolExecutor(2) as pool:
            self.assertEqual(list(pool.map(square, range(50))), [n * n for n in range(50)])
            self.assertEqual(pool.submit(dict, a=1).result(SOON), {"a": 1})
            futures = [pool.submit(square, n) for n in range(20)]
            done, pending = concurrent.futures.wait(futures, SOON)
            self.assertEqual((len(done), len(pending)), (20, 0))
            pids = set(pool.map(lambda _: __import__("os").getpid(), range(40)))
            self.assertNotIn(os.getpid(), pids)
            self.assertLessEqual(len(pids), 2)
        with self.assertRaises(RuntimeError):
            pool.submit(square, 1)
        until(lambda: not [i for i in xidata.list_interpreters() if i.requires_ref], "the interpreters to end")

    def test_exceptions(self):
        with xidata.InterpreterPoolExecutor(1) as pool:
            error = pool.submit(fail, KeyError, "k").exception(SOON)
            self.assertEqual((type(error), error.args), (KeyError, ("k",)))
            self.assertIsInstance(error.__cause__, interpreters.ExecutionFailed)
            self.assertIn("in fail", str(error.__cause__))
            self.assertIsInstance(pool.submit(fail, Odd, 1, 2).exception(SOON), interpreters.ExecutionFailed)
            self.assertIsInstance(pool.submit(lambda: [lambda: error]).exception(SOON), interpreters.NotShareableError)
            self.assertIsInstance(pool.submit(lambda: (lambda n: lambda: n)(0)).exception(SOON), interpreters.NotShareableError)
            self.assertIsInstance(pool.submit(square, lambda: error).exception(SOON), interpreters.NotShareableError)
            self.assertEqual(pool.submit(lambda f: f(3), lambda n: n + 1).result(SOON), 4)
            self.assertEqual(pool.submit(square, 3).result(SOON), 9)

    def test_initializer(self):
        with xidata.InterpreterPoolExecutor(2, initializer=prepare, initargs=("value",)) as pool:
            self.assertEqual(set(pool.map(square, range(4))), {0, 1, 4, 9})
            self.assertEqual({pool.submit(prepared).result(SOON) for _ in range(6)}, {"value"})
        with xidata.InterpreterPoolExecutor(2, initializer=fail, initargs=(ValueError, "no")) as pool:
            with self.assertRaisesRegex(xidata.BrokenInterpreterPool, "initializer.*no"):
                pool.submit(square, 1).result(SOON)
            with self.assertRaises(xidata.BrokenInterpreterPool):
                pool.submit(square, 1)

    def test_arguments(self):
        for bad in (0, -1):
            with self.assertRaises(ValueError):
                xidata.InterpreterPoolExecutor(bad)
        with self.assertRaises(TypeError):
            xidata.InterpreterPoolExecutor(initializer=1)
        self.assertTrue(issubclass(xidata.BrokenInterpreterPool, concurrent.futures.BrokenExecutor))

    def test_killed_worker_breaks(self):
        gate = interpreters.create_queue()
        pool = xidata.InterpreterPoolExecutor(2)
        busy = pool.submit(wait_for, gate)
        until(lambda: busy.running(), "a worker")
        killer = pool.submit(die)
        waiting = [pool.submit(square, n) for n in range(3)]
        before = time.monotonic()
        for future in [busy, killer]:
            with self.assertRaisesRegex(xidata.BrokenInterpreterPool, "SIGKILL"):
                future.result(SOON)
        for future in waiting: # those that were not done before
            self.assertTrue(future.exception(SOON) is None or "SIGKILL" in str(future.exception()))
        self.assertLess(time.monotonic() - before, 5)
        with self.assertRaisesRegex(xidata.BrokenInterpreterPool, "SIGKILL"):
            pool.submit(square, 1)
        pool.shutdown()

    def test_breaks_while_a_worker_starts(self):
        """A worker that makes its interpreter while the pool breaks does not go on as if nothing had happened."""
        from xidata import futures

        pool = xidata.InterpreterPoolExecutor(1)
        made, go = threading.Event(), threading.Event()

        def slow():
            interp = interpreters.create()
            made.set()
            go.wait(SOON)
            return interp

        futures.interpreters, real = type("Slow", (), dict(vars(interpreters), create=staticmethod(slow))), futures.interpreters
        try:
            future = pool.submit(wait_for, interpreters.create_queue())
            self.assertTrue(made.wait(SOON))
            pool._core.break_down("broken meanwhile")
            go.set()
            with self.assertRaisesRegex(xidata.BrokenInterpreterPool, "meanwhile"):
                future.result(SOON)
        finally:
            futures.interpreters = real
        pool.shutdown()

    def test_idle_worker_killed(self):
        """The pool breaks at once, though nobody asks anything of the dead."""
        pool = xidata.InterpreterPoolExecutor(2)
        gate = interpreters.create_queue()
        busy = pool.submit(wait_for, gate)
        until(busy.running, "the first")
        idle = pool.submit(os.getpid).result(SOON)
        os.kill(idle, signal.SIGKILL)
        with self.assertRaisesRegex(xidata.BrokenInterpreterPool, "SIGKILL"):
            busy.result(SOON)
        pool.shutdown()

    def test_replaced(self):
        with xidata.InterpreterPoolExecutor(1, initializer=prepare, initargs=(5,), replace=True) as pool:
            before = pool.submit(os.getpid).result(SOON)
            futures = [pool.submit(die)] + [pool.submit(square, n) for n in range(5)]
            with self.assertRaisesRegex(xidata.BrokenInterpreterPool, "SIGKILL"):
                futures[0].result(SOON)
            self.assertEqual([f.result(SOON) for f in futures[1:]], [0, 1, 4, 9, 16])
            after = pool.submit(os.getpid).result(SOON)
            self.assertNotEqual(before, after)
            self.assertEqual(pool.submit(prepared).result(SOON), 5)
            os.kill(after, signal.SIGKILL) # while it is idle: no task is lost
            self.assertEqual([pool.submit(square, n).result(SOON) for n in range(5)], [0, 1, 4, 9, 16])

    def test_random_kills(self):
        """Each task is done, or its future says that the interpreter was killed; nothing hangs."""
        turns = 200 if os.environ.get("XI_TEST_LONG") else 40
        with xidata.InterpreterPoolExecutor(3, replace=True) as pool:
            futures = [pool.submit(die if n % 7 == 3 else square, *([] if n % 7 == 3 else [n])) for n in range(turns)]
            killed = 0
            for n, future in enumerate(futures):
                try:
                    self.assertEqual(future.result(SOON), n * n)
                except xidata.BrokenInterpreterPool:
                    killed += 1
                    self.assertEqual(n % 7, 3)
            self.assertEqual(killed, len([n for n in range(turns) if n % 7 == 3]))
        print("%d tasks, %d interpreters killed, each named in its future" % (turns, killed))

    def test_cancel(self):
        gate = interpreters.create_queue()
        with xidata.InterpreterPoolExecutor(1) as pool:
            busy = pool.submit(wait_for, gate)
            until(busy.running, "it")
            later = [pool.submit(square, n) for n in range(3)]
            self.assertTrue(later[1].cancel())
            self.assertFalse(busy.cancel())
            gate.put("go")
            self.assertEqual((busy.result(SOON), later[0].result(SOON), later[2].result(SOON)), ("go", 0, 4))
            busy = pool.submit(wait_for, gate)
            until(busy.running, "it")
            later = [pool.submit(square, n) for n in range(3)]
            pool.shutdown(wait=False, cancel_futures=True)
            self.assertTrue(all(f.cancelled() for f in later))
            gate.put("end")
            self.assertEqual(busy.result(SOON), "end")

    def test_program_ends(self):
        code = ("import xidata\npool = xidata.InterpreterPoolExecutor(2)\nf = pool.submit(pow, 2, 5)\n"
                "f.add_done_callback(lambda f: print(f.result()))")
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=SOON)
        self.assertEqual((done.returncode, done.stdout), (0, b"32\n"))

    LATE = """
import threading, time, xidata
from xidata import futures
pool = xidata.InterpreterPoolExecutor(2)
pool.submit(abs, 1).result()
def late():
    while not futures._program_ends: time.sleep(0.001)
    try: pool.submit(abs, 1).result()
    except RuntimeError as error: print(error)
threading.Thread(target=late).start()
again = pool.submit(time.sleep, 0.2)
again.add_done_callback(lambda f: pool.submit(abs, 1).result())
"""

    def test_submit_when_the_program_ends(self):
        done = subprocess.run([sys.executable, "-c", self.LATE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SOON)
        self.assertEqual((done.returncode, done.stdout), (0, b"cannot schedule new futures after interpreter shutdown\n"))

    MANY = """
import os, resource, signal, xidata
from xidata import interpreters
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
open_ones = [os.dup(0) for _ in range(1100)]
interpreters.create().close()
with xidata.InterpreterPoolExecutor(1) as pool:
    os.kill(pool.submit(os.getpid).result(), signal.SIGKILL)
    try:
        while True: pool.submit(abs, 1).result()
    except xidata.BrokenInterpreterPool as error: print("SIGKILL" in str(error))
"""

    @unittest.skipIf(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4096, "no more than 4,096 descriptors are to be had")
    def test_many_descriptors(self):
        """More than select() can name."""
        done = subprocess.run([sys.executable, "-c", self.MANY], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=SOON)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"True\n", b""))

    def test_dropped(self):
        threads = threading.active_count()
        pool = xidata.InterpreterPoolExecutor(2)
        self.assertEqual(pool.submit(square, 2).result(SOON), 4)
        del pool
        gc.collect()
        until(lambda: threading.active_count() == threads, "its threads to end")


if __name__ == "__main__":
    main(each_version=False)
