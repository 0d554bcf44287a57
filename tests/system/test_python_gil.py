# SPDX-License-Identifier: MIT
"""The module in a free-threaded CPython: it has the GIL switched on, and nobody is left in doubt."""

import os
import subprocess
import sys
import sysconfig
import threading
import unittest

STATE = "import sys; before = sys._is_gil_enabled(); import xidata; print(before, sys._is_gil_enabled())"
WARNING = "RuntimeWarning: The global interpreter lock (GIL) has been enabled to load module 'xidata._xidata'"


def run(code, *options, gil=None):
    """(stdout, stderr, status) of a child; `gil`: its $PYTHON_GIL."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    if gil is not None:
        env["PYTHON_GIL"] = gil
    done = subprocess.run([sys.executable, *options, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=60)
    return done.stdout.strip(), done.stderr.strip(), done.returncode


class Gil(unittest.TestCase):
    def test_it_is_switched_on_and_said(self):
        out, err, status = run(STATE)
        self.assertEqual((out, status), ("False True", 0))
        self.assertIn(WARNING, err)
        self.assertEqual(err.count("Warning"), 1)

    def test_it_is_asked_for(self):
        self.assertEqual(run(STATE, gil="1"), ("True True", "", 0))
        self.assertEqual(run(STATE, "-X", "gil=1"), ("True True", "", 0))

    def test_it_is_refused(self):
        """Not one function is to be had without it."""
        for options, gil in (((), "0"), (("-X", "gil=0"), None)):
            out, err, status = run(STATE, *options, gil=gil)
            self.assertEqual((out, status), ("", 1))
            self.assertIn("ImportError: xidata relies on the GIL, which PYTHON_GIL=0 or -X gil=0 keeps switched off", err)
            self.assertNotIn("RuntimeWarning", err)

    def test_interpreters_have_it(self):
        """They are started with it: none repeats the warning."""
        code = ("from xidata import interpreters as i, InterpreterPoolExecutor\nimport sys\n"
                "print(i.create().call(sys._is_gil_enabled))\n"
                "with InterpreterPoolExecutor(2) as pool: print(pool.submit(sys._is_gil_enabled).result())")
        self.assertEqual(run(code, gil="1"), ("True\nTrue", "", 0))
        out, err, status = run(code)
        self.assertEqual((out, status), ("True\nTrue", 0))
        self.assertEqual(err.count("Warning"), 1)


class Threads(unittest.TestCase):
    """Many threads at everything that has state, in the build whose switches come where a GIL's do not."""

    THREADS, EACH = 8, 400

    def together(self, *works):
        """Each of the works in a thread of its own; what they raise is raised."""
        import xidata

        self.assertTrue(sys._is_gil_enabled())
        failed, gate = [], threading.Barrier(len(works))

        def begin(work):
            try:
                gate.wait()
                work(xidata)
            except BaseException as error:
                failed.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            threads = [threading.Thread(target=begin, args=(work,)) for work in works]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        for error in failed:
            raise error

    def exchange(self, send, receive, value=lambda i: i, number=lambda v: v):
        """Half of the threads send numbers, half receive: each arrives once."""
        half, got = self.THREADS // 2, []

        def sends(first):
            return lambda _: [send(value(i)) for i in range(first * self.EACH, (first + 1) * self.EACH)]

        self.together(*[sends(t) for t in range(half)],
                      *[lambda _: got.extend([number(receive()) for _ in range(self.EACH)]) for _ in range(half)])
        self.assertEqual(sorted(got), list(range(half * self.EACH)))

    def test_channel(self):
        import xidata

        with xidata.channel("threads.channel", capacity=4096) as channel:
            self.exchange(channel.send, channel.recv)

    def test_large_values_and_views(self):
        import xidata

        with xidata.channel("threads.large") as channel:
            self.exchange(channel.send, lambda: channel.recv(zero_copy=True),
                          lambda i: bytes(memoryview(b"%08d" % i)) * 500, lambda v: int(bytes(v[-8:])))
        self.assertEqual(xidata.current().stats()["borrows"], 0)

    def test_queue(self):
        import xidata

        queue = xidata.Queue(16)
        self.exchange(queue.put, queue.get)
        queue.close()

    def test_loans(self):
        import xidata

        def fill(i):
            loan = xidata.buffer(5000)
            with memoryview(loan) as m:
                m[:8] = b"%08d" % i
            return loan

        with xidata.channel("threads.loans") as channel:
            self.exchange(channel.send, channel.recv, fill, lambda v: int(bytes(v[:8])))

    def test_handles_come_and_go(self):
        def work(xidata):
            for i in range(self.EACH // 4):
                with xidata.channel("threads.handles") as channel, xidata.Set() as some:
                    some.add(channel)
                    channel.send(i)
                    channel.fileno()
                    channel.try_recv(None)
                    some.wait(0)

        self.together(*[work] * self.THREADS)

    def test_codecs(self):
        """Types come and go while others send values of them."""
        kinds = [type("Kind%d" % k, (), {"__init__": lambda self, i=0: setattr(self, "i", i)}) for k in range(4)]

        def register(kind):
            def work(xidata):
                for _ in range(self.EACH // 4):
                    xidata.register(kind, lambda o: o.i, kind, name="test." + kind.__name__)
                    xidata.unregister(kind)
                xidata.register(kind, lambda o: o.i, kind, name="test." + kind.__name__)
            return work

        def exchange(kind):
            def work(xidata):
                with xidata.channel("threads." + kind.__name__, errors="replace", pickle="refuse") as channel:
                    for i in range(self.EACH // 4):
                        channel.send(kind(i))
                        got = channel.recv()
                        self.assertIn(type(got), (kind, xidata.Replacement))
                        if type(got) is kind:
                            self.assertEqual(got.i, i)
            return work

        self.together(*[register(k) for k in kinds], *[exchange(k) for k in kinds])

    def test_callbacks(self):
        import xidata

        freed = []
        with xidata.channel("threads.callbacks") as channel:
            self.exchange(lambda i: channel.send(i, on_free=lambda: freed.append(i)), channel.recv)
            while xidata.run_free():
                pass
        self.assertEqual(sorted(freed), list(range(self.THREADS // 2 * self.EACH)))


if __name__ == "__main__":
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        print("skipped: this CPython is not free-threaded")
        sys.exit(77)
    unittest.main(verbosity=1)
