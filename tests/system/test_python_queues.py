# SPDX-License-Identifier: MIT
"""xidata.Queue, JoinableQueue and SimpleQueue across threads, fork, spawn and unrelated processes."""

import gc
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import unittest

from pyhelp import SOON, TestCase, main, name, until, xidata


def produce(q, n):
    for i in range(n):
        q.put((os.getpid(), i))


def work(q, results):
    for item in iter(q.get, None):
        results.put(item * 2)
        q.task_done()
    q.task_done()


def die_after_put(q):
    for i in range(100):
        q.put(i)
    os.kill(os.getpid(), signal.SIGKILL)


def take_and_die(q):
    q.get()
    os.kill(os.getpid(), signal.SIGKILL)


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


class Queues(TestCase):
    def names(self):
        return [c.name for c in xidata.channels()]

    def test_signature_and_errors(self):
        q = xidata.Queue(2)
        q.put(1), q.put(2, True, None)
        for put in (lambda: q.put(3, False), lambda: q.put_nowait(3), lambda: q.put(3, True, 0.05), lambda: q.put(3, timeout=0)):
            with self.assertRaises(queue.Full):
                put()
        self.assertTrue(q.full())
        self.assertEqual((q.get(), q.get(True), q.empty()), (1, 2, True))
        for get in (lambda: q.get(False), q.get_nowait, lambda: q.get(True, 0.05), lambda: q.get(timeout=0)):
            with self.assertRaises(queue.Empty):
                get()
        before = time.monotonic()
        with self.assertRaises(queue.Empty):
            q.get(timeout=0.123)
        self.assertTrue(0.123 <= time.monotonic() - before < 5)
        with self.assertRaises(Exception):
            q.put(lambda: 0) # of put() itself
        self.assertEqual(q.qsize(), 0)
        self.assertIs(xidata.ShutDown, getattr(queue, "ShutDown", xidata.ShutDown))

    def test_large(self):
        q = xidata.Queue()
        for n in range(60):
            q.put(bytes([n]) * (1 << 20), timeout=SOON) # nobody receives, and nothing waits
        for n in range(60):
            self.assertEqual(q.get()[:2], bytes([n]) * 2)

    def test_processes(self):
        for method in ("fork", "spawn", "forkserver"):
            context = multiprocessing.get_context(method)
            q = xidata.Queue()
            children = [context.Process(target=produce, args=(q, 100)) for _ in range(2)]
            for child in children:
                child.start()
            got = {}
            for _ in range(200):
                pid, n = q.get(timeout=SOON)
                self.assertEqual(got.setdefault(pid, 0), n) # in each one's order
                got[pid] += 1
            for child in children:
                child.join(SOON)
                self.assertEqual((child.exitcode, got[child.pid]), (0, 100))

    def test_join_across_processes(self):
        context = multiprocessing.get_context("spawn")
        q, results = xidata.JoinableQueue(), xidata.SimpleQueue()
        workers = [context.Process(target=work, args=(q, results)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for n in range(50):
            q.put(n)
        q.join()
        self.assertEqual(sorted(results.get() for _ in range(50)), [2 * n for n in range(50)])
        self.assertEqual(q.unfinished_tasks, 0)
        q.put(None), q.put(None)
        q.join()
        for worker in workers:
            worker.join(SOON)
        with self.assertRaises(ValueError):
            q.task_done()

    def test_many_tasks_and_joiners(self):
        q = xidata.Queue()
        for n in range(5000): # more than the tally's ring holds
            q.put(n)
        joined = []
        joiners = [threading.Thread(target=lambda: (q.join(), joined.append(q.unfinished_tasks))) for _ in range(3)]
        for joiner in joiners:
            joiner.start()
        for n in range(5000):
            q.get()
            self.assertFalse(joined and n < 4999)
            q.task_done()
        for joiner in joiners:
            joiner.join(SOON)
        self.assertEqual(joined, [0, 0, 0])

    def test_unrelated(self):
        label = name("named")
        child = self.child("import sys, xidata; q = xidata.Queue(name=sys.argv[1]); q.put('hello')\n"
                           "xidata.Queue(name=sys.argv[1] + '.back').get()", label)
        q = xidata.Queue(name=label)
        self.assertEqual(q.get(timeout=SOON), "hello")
        self.assertEqual(xidata.channel(label).stat().mode, "queue") # any other language may have it as a channel
        xidata.Queue(name=label + ".back").put(None)
        self.finished(child)

    def test_outlives_its_processes(self):
        label = name("left")
        subprocess.run([sys.executable, "-c", "import sys, xidata\nq = xidata.Queue(name=sys.argv[1])\n"
                        "for n in range(4): q.put(n)\nq.get()", label], check=True)
        q = xidata.Queue(name=label)
        self.assertEqual((q.qsize(), q.unfinished_tasks), (3, 3)) # what the dead had got is nobody's task
        for _ in range(3):
            q.get()
            q.task_done()
        q.join()

    def test_killed(self):
        context = multiprocessing.get_context("fork")
        q = xidata.Queue()
        child = context.Process(target=die_after_put, args=(q,))
        child.start()
        self.assertEqual([q.get(timeout=SOON) for _ in range(100)], list(range(100)))
        child.join(SOON)
        self.assertEqual(child.exitcode, -9)
        child = context.Process(target=take_and_die, args=(q,)) # no lock stays taken, as a multiprocessing.Queue's would
        child.start()
        q.put("taken")
        child.join(SOON)
        q.put("mine")
        self.assertEqual(q.get(timeout=SOON), "mine")

    def test_through_itself(self):
        outer, inner = xidata.Queue(), xidata.Queue(3)
        outer.put(inner)
        again = outer.get()
        again.put("x")
        self.assertEqual((inner.get(timeout=SOON), again.maxsize, again.name), ("x", 3, inner.name))
        self.assertEqual(pickle.loads(pickle.dumps(inner)).name, inner.name)

    def test_shutdown_wakes_other_processes(self):
        q = xidata.Queue(name=name("shut"))
        code = ("import sys, xidata\nq = xidata.Queue(name=sys.argv[1])\n"
                "try: q.get()\nexcept xidata.ShutDown: print('over')")
        child = self.child(code, q.name, stdout=subprocess.PIPE)
        until(lambda: xidata.channel(q.name, send_only=True).stat().waiting, "it to wait")
        q.shutdown()
        self.assertEqual(child.communicate(timeout=SOON)[0], b"over\n")
        self.assertTrue(q.is_shutdown)
        with self.assertRaises(xidata.ShutDown):
            q.put(1)

    def test_close(self):
        q = xidata.Queue()
        twin = pickle.loads(pickle.dumps(q))
        q.close()
        q.join_thread()
        q.cancel_join_thread()
        for use in (lambda: q.put(1), q.get):
            with self.assertRaisesRegex(ValueError, "closed"):
                use()
        twin.put(1) # closed is the object
        self.assertEqual(twin.get(), 1)

    def test_anonymous_queues_leave_nothing(self):
        q = xidata.Queue()
        q.put("left")
        label = q.name
        self.assertIn(label, self.names())
        del q
        gc.collect()
        self.assertNotIn(label, self.names())
        subprocess.run([sys.executable, "-c", "import xidata; q = xidata.Queue(); q.put(1); print(q.name)"], check=True,
                       stdout=subprocess.DEVNULL)
        self.assertEqual([n for n in self.names() if n.startswith("queue.")], [])

    def test_what_was_done_goes_with_it(self):
        for label in (None, name("done")):
            q = xidata.Queue(name=label)
            q.put(1)
            q.get()
            q.task_done()
            q.join()
            if label:
                twin = xidata.Queue(name=label)
                twin.put(2)
                self.assertEqual((q.unfinished_tasks, twin.unfinished_tasks), (1, 1))
                twin.get()
                twin.task_done()
                twin.close()
            hidden = [n for n in self.names() if n.startswith(q.name)]
            self.assertEqual(len(hidden), 2)
            label, _ = q.name, q.close()
            self.assertEqual([n for n in self.names() if n in hidden], [])
            q = xidata.Queue(name=label) # another: nothing of that one was done
            q.put(2)
            self.assertEqual(q.unfinished_tasks, 1)
            q.get()
            q.task_done()
            self.assertEqual(q.unfinished_tasks, 0)
            q.close()

    def test_shutdown_drops_what_it_cannot_read(self):
        q = xidata.Queue()
        for item in (1, Unreadable(), Unreadable(), 2):
            q.put(item)
        q.shutdown(immediate=True)
        self.assertEqual((q.qsize(), q.unfinished_tasks), (0, 0))
        q.join()

    def test_kept_for_a_child(self):
        """A forked child that has yet to use it finds what was put, though the parent's object is gone."""
        q = xidata.Queue()
        q.put("for the child")
        go = xidata.Queue()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                go.get()
                status = 0 if q.get(timeout=SOON) == "for the child" else 2
            finally:
                xidata.leave()
                os._exit(status)
        del q
        gc.collect()
        go.put(1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_faster_than_pipes(self):
        turns, times = 3000, []
        for make in (multiprocessing.SimpleQueue, xidata.SimpleQueue):
            q, best = make(), 1e9
            for _ in range(3):
                before = time.perf_counter()
                for n in range(turns):
                    q.put(n)
                    q.get()
                best = min(best, time.perf_counter() - before)
            times.append(best / turns * 1e6)
        print("put and get, one thread: multiprocessing.SimpleQueue %.2f us, xidata.SimpleQueue %.2f us" % tuple(times))
        self.assertLess(times[1], times[0])


if __name__ == "__main__":
    main(each_version=False)
