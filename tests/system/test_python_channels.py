# SPDX-License-Identifier: MIT
"""Channels from Python: waiting, closing, batches, groups, threads, signals, forks and deaths."""

import math
import multiprocessing
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import unittest
import weakref

from pyhelp import SOON, TestCase, Trouble, main, name, until, xidata

RECEIVE = """
import sys, xidata
print(xidata.channel(sys.argv[1]).recv(), flush=True)
"""


class Waiting(TestCase):
    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name(), capacity=4096)

    def fill(self):
        n = 0
        while self.channel.try_send(n):
            n += 1
        return n

    def test_empty(self):
        for call in (lambda: self.channel.recv(0), lambda: self.channel.recv(timeout=0.0), self.channel.try_recv,
                     lambda: self.channel.recv_many(3, 0)):
            with self.assertRaises(xidata.Empty) as caught:
                call()
            self.assertIsInstance(caught.exception, queue.Empty)
            self.assertIsInstance(caught.exception, xidata.Error)
            self.assertIn(self.channel.name, str(caught.exception))
        self.assertEqual(self.channel.try_recv("nothing"), "nothing")

    def test_full(self):
        n = self.fill()
        self.assertGreater(n, 100)
        for call in (lambda: self.channel.send(1, 0), lambda: self.channel.send("x" * 100, timeout=0)):
            with self.assertRaises(xidata.Full) as caught:
                call()
            self.assertIsInstance(caught.exception, queue.Full)
        with self.assertRaises(xidata.Timeout):
            self.channel.send(1, 0.02)
        self.assertEqual([self.channel.recv() for _ in range(n)], list(range(n)))

    def test_timeout(self):
        for seconds in (0.01, 0.2):
            start = time.monotonic()
            with self.assertRaises(TimeoutError):
                self.channel.recv(seconds)
            passed = time.monotonic() - start
            self.assertGreaterEqual(passed, seconds)
            self.assertLess(passed, seconds + 2)

    def test_bad_timeouts(self):
        for timeout in (-1, -0.5, math.nan):
            with self.assertRaises(ValueError):
                self.channel.recv(timeout)
        with self.assertRaises(TypeError):
            self.channel.recv("soon")
        self.channel.send(1, math.inf)
        self.channel.send(2, 1e30)
        self.assertEqual((self.channel.recv(math.inf), self.channel.recv(None)), (1, 2))

    def test_arguments(self):
        for call in (lambda: self.channel.send(), lambda: self.channel.send(1, 2, 3), lambda: self.channel.send(1, x=2),
                     lambda: self.channel.send(1, 2, timeout=3), lambda: self.channel.recv(1, 2),
                     lambda: self.channel.try_recv(1, 2), lambda: self.channel.send(1, on_free=5),
                     lambda: self.channel.recv_many(), lambda: self.channel.recv_many("x"), lambda: xidata.channel(),
                     lambda: xidata.Channel(), lambda: xidata.Interpreter(), lambda: xidata.Loan(), lambda: xidata.View()):
            with self.assertRaises(TypeError):
                call()
        for call in (lambda: self.channel.recv_many(0), lambda: xidata.channel("x", mode="stack"),
                     lambda: xidata.channel("x", pickle="maybe"), lambda: xidata.channel("x", capacity=-1),
                     lambda: xidata.channel("x", send_only=True, recv_only=True), lambda: xidata.channel(""),
                     lambda: xidata.channel("a\nb"), lambda: xidata.channel("x" * 80), lambda: xidata.buffer(-1),
                     lambda: xidata.channel("a\0b"), lambda: xidata.join("no such"), lambda: xidata.join(spin=-1)):
            with self.assertRaises(ValueError):
                call()
        self.channel.send(timeout=1, on_free=None, *[7])
        self.assertEqual(self.channel.recv(timeout=1, zero_copy=None), 7)

    def test_wakes(self):
        got = []
        thread = threading.Thread(target=lambda: got.append(self.channel.recv(SOON)))
        thread.start()
        until(lambda: self.channel.stat().waiting, "the receiver to sleep")
        self.channel.send("awake")
        thread.join(SOON)
        self.assertEqual(got, ["awake"])

    def test_wakes_a_sender(self):
        n = self.fill()
        thread = threading.Thread(target=lambda: self.channel.send("last", SOON))
        thread.start()
        until(lambda: self.channel.stat().waiting, "the sender to sleep")
        values = [self.channel.recv(SOON) for _ in range(n + 1)]
        thread.join(SOON)
        self.assertEqual(values, list(range(n)) + ["last"])


class Closing(TestCase):
    def test_drain(self):
        channel = xidata.channel(name())
        channel.send_many("abc")
        channel.close()
        channel.close()
        with self.assertRaises(xidata.ChannelClosed):
            channel.send(1)
        with self.assertRaises(xidata.ChannelClosed) as caught:
            channel.send_many([1, 2])
        self.assertEqual(caught.exception.sent, 0)
        self.assertTrue(channel.stat().closed)
        self.assertEqual(list(channel), ["a", "b", "c"])
        with self.assertRaises(xidata.ChannelClosed):
            channel.recv()
        self.assertEqual(list(channel), [])

    def test_wakes_receivers(self):
        channel = xidata.channel(name())
        ended = []

        def consume():
            ended.append(list(channel))

        threads = [threading.Thread(target=consume) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: channel.stat().waiting == 3, "three sleepers")
        channel.send(1)
        channel.close()
        for thread in threads:
            thread.join(SOON)
        self.assertEqual(sorted(ended), [[], [], [1]])

    def test_free(self):
        channel = xidata.channel(name())
        channel.send(1)
        channel.free()
        channel.free()
        self.assertTrue(channel.freed)
        for call in (channel.recv, lambda: channel.send(1), channel.stat, channel.close, lambda: next(channel)):
            with self.assertRaises(xidata.Left):
                call()
        with xidata.channel(channel.name, existing=True) as again:
            self.assertEqual(again.recv(0), 1)
        self.assertTrue(again.freed)

    def test_free_under_a_waiting_thread(self):
        channel = xidata.channel(name())
        raised = []

        def wait():
            try:
                channel.recv()
            except xidata.Error as error:
                raised.append(type(error))

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: channel.stat().waiting, "the receiver to sleep")
        channel.free()
        thread.join(SOON)
        self.assertFalse(thread.is_alive())
        self.assertEqual(raised, [xidata.Left])

    def test_leave_under_a_waiting_thread(self):
        me = xidata.join(name="second")
        channel = me.channel(name())
        raised = []

        def wait():
            try:
                channel.recv()
            except xidata.Error as error:
                raised.append(type(error))

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: channel.stat().waiting, "the receiver to sleep")
        me.leave()
        thread.join(SOON)
        self.assertFalse(thread.is_alive())
        self.assertEqual(raised, [xidata.Left])
        until(lambda: me.id not in [i.id for i in xidata.interpreters()], "the interpreter to be gone")

    def test_handle_is_collected(self):
        channel = xidata.channel(name())
        gone = weakref.ref(channel)
        text = repr(channel)
        self.assertIn(channel.name, text)
        del channel
        self.assertIsNone(gone())


class Batches(TestCase):
    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name(), capacity=1 << 20)

    def test_every_kind(self):
        values = [1, "two", 3.0, None, (4,), 2**100, b"x" * 100, b"y" * 100000, [5], {"six": 6}] * 50
        self.assertEqual(self.channel.send_many(values), len(values))
        back = []
        while len(back) < len(values):
            back += self.channel.recv_many(len(values), SOON)
        self.assertEqual(back, values)

    def test_generators_and_empty(self):
        self.assertEqual(self.channel.send_many(i * i for i in range(1000)), 1000)
        self.assertEqual(self.channel.send_many([]), 0)
        back = []
        while len(back) < 1000:
            many = self.channel.recv_many(100, SOON)
            self.assertLessEqual(len(many), 100)
            back += many
        self.assertEqual(back, [i * i for i in range(1000)])

    def test_as_many_as_fit(self):
        small = xidata.channel(name(), capacity=4096)
        n = small.send_many(range(100000), timeout=0)
        self.assertTrue(0 < n < 1000)
        with self.assertRaises(xidata.Timeout) as caught:
            small.send_many(range(10), timeout=0.01)
        self.assertEqual(caught.exception.sent, 0)
        with self.assertRaises(xidata.Timeout) as caught:
            [small.recv() for _ in range(5)]
            small.send_many(range(10), timeout=0.01)
        self.assertLessEqual(caught.exception.sent, 5)

    def test_error_in_the_middle(self):
        def broken():
            yield from range(100)
            raise KeyError("broken")

        with self.assertRaises(KeyError) as caught:
            self.channel.send_many(broken())
        self.assertEqual(caught.exception.sent, 100)
        with self.assertRaises(Exception) as caught:
            self.channel.send_many([1, 2, lambda: 0, 3])
        self.assertEqual(caught.exception.sent, 2)
        self.assertEqual(self.channel.recv_many(256), list(range(100)) + [1, 2])
        with self.assertRaises(TypeError):
            self.channel.send_many(5)

    def test_against_backpressure(self):
        small = xidata.channel(name(), capacity=4096)
        got = []
        thread = threading.Thread(target=lambda: got.extend(small))
        thread.start()
        self.assertEqual(small.send_many(range(50000)), 50000)
        small.close()
        thread.join(SOON)
        self.assertEqual(got, list(range(50000)))


class Decoding(TestCase):
    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name())

    def test_lost_values_say_so(self):
        self.channel.send(Trouble())
        self.channel.send(2)
        Trouble.raises = ZeroDivisionError("oh")
        with self.assertRaises(xidata.DecodeError) as caught:
            self.channel.recv()
        self.assertIsInstance(caught.exception.__cause__, ZeroDivisionError)
        self.assertIn(self.channel.name, str(caught.exception))
        self.assertIn("lost", str(caught.exception))
        self.assertEqual(self.channel.recv(), 2)

    def test_interrupt_loses_nothing(self):
        for values in ([Trouble(), 2], [1, Trouble(), 3], [1, 2, Trouble()]):
            self.channel.send_many(values)
            expected = ["no trouble" if isinstance(v, Trouble) else v for v in values]
            for receive in (lambda: [self.channel.recv(0)], lambda: self.channel.recv_many(10, 0)):
                back = []
                Trouble.raises = KeyboardInterrupt()
                with self.assertRaises(KeyboardInterrupt):
                    while True:
                        back += receive()
                while len(back) < len(values):
                    back += receive()
                self.assertEqual(back, expected)
                self.channel.send_many(values)
            self.assertEqual(self.channel.recv_many(10), expected)

    def test_error_inside_a_batch(self):
        self.channel.send_many([1, Trouble(), 3, 4])
        Trouble.raises = ZeroDivisionError()
        self.assertEqual(self.channel.recv_many(10), [1])
        with self.assertRaises(xidata.DecodeError):
            self.channel.recv_many(10)
        self.assertEqual(self.channel.recv_many(10), [3, 4])

    def test_stash_of_a_borrowed_value(self):
        self.channel.send([b"x" * 100000, Trouble()])
        Trouble.raises = KeyboardInterrupt()
        with self.assertRaises(KeyboardInterrupt):
            self.channel.recv(zero_copy=True)
        self.assertEqual(self.channel.recv()[1], "no trouble")
        self.channel.send_many([[b"x" * 100000, Trouble()], 5])
        Trouble.raises = KeyboardInterrupt()
        with self.assertRaises(KeyboardInterrupt):
            self.channel.recv_many(2)
        self.channel.free()
        self.assertEqual(self.stats()["borrows"], 0)


class Modes(TestCase):
    def test_broadcast(self):
        one = xidata.channel(name(), mode="broadcast")
        two = xidata.channel(one.name)
        sender = xidata.channel(one.name, send_only=True)
        sender.send_many([1, 2])
        three = xidata.channel(one.name, mode="broadcast")
        sender.send(3)
        self.assertEqual(one.recv_many(9), [1, 2, 3])
        self.assertEqual(two.recv_many(9), [1, 2, 3])
        self.assertEqual(three.recv_many(9), [3])
        self.assertEqual(one.stat().mode, "broadcast")
        with self.assertRaises(ValueError):
            sender.recv(0)

    def test_groups(self):
        first = xidata.channel(name(), mode="broadcast", group="g")
        second = xidata.channel(first.name, group="g")
        other = xidata.channel(first.name, group="h")
        self.assertEqual(first.group_name, "g")
        first.send_many(range(4))
        self.assertEqual([first.recv(), second.recv(), first.recv(), second.recv()], [0, 1, 2, 3])
        with self.assertRaises(xidata.Empty):
            second.recv(0)
        self.assertEqual(other.recv_many(9), [0, 1, 2, 3])

    def test_existing_and_mismatch(self):
        with self.assertRaises(xidata.NotFound) as caught:
            xidata.channel(name(), existing=True)
        self.assertIsInstance(caught.exception, LookupError)
        self.assertEqual(caught.exception.code, xidata.NotFound.code)
        made = xidata.channel(name(), mode="queue")
        with self.assertRaises(xidata.Mismatch):
            xidata.channel(made.name, mode="broadcast")

    def test_too_large_for_anybody(self):
        with self.assertRaises((xidata.TooBig, xidata.ShmFull, MemoryError, ValueError)):
            xidata.buffer(1 << 62)


class Interpreters(TestCase):
    def test_join_and_leave(self):
        with xidata.join(name="inner") as inner:
            self.assertIsNot(inner, xidata.current() if xidata.current() is not inner else None)
            self.assertIn(("inner", os.getpid()), [(i.name, i.pid) for i in xidata.interpreters()])
            self.assertEqual(inner.namespace, os.environ["XI_NAMESPACE"])
            channel = inner.channel(name())
            self.assertIs(channel.interpreter, inner)
            channel.send(1)
            self.assertIn(channel.name, [c.name for c in xidata.channels()])
        self.assertTrue(inner.left)
        with self.assertRaises(xidata.Left):
            inner.channel("x")
        with self.assertRaises(xidata.Left):
            channel.recv(0)
        with xidata.channel(channel.name) as again:
            self.assertEqual(again.recv(0), 1)

    def test_current(self):
        xidata.leave()
        xidata.leave()
        self.assertIsNone(xidata.current())
        channel = xidata.channel(name())
        self.assertIs(channel.interpreter, xidata.current())
        self.assertIn(str(xidata.current().id), repr(xidata.current()))
        self.assertEqual(xidata.current().stats()["wait"] in ("uring", "futex", ""), True)

    def test_observing(self):
        self.assertEqual(xidata.interpreters("no-such-namespace"), [])
        self.assertEqual(xidata.channels("no-such-namespace"), [])
        xidata.channel(name())
        info = xidata.interpreters(os.environ["XI_NAMESPACE"])[-1]
        self.assertEqual(info.language, "cpython %d.%d" % sys.version_info[:2])
        self.assertLess(abs(info.joined - time.time()), 3600)

    def test_dropped_while_another_thread_leaves(self):
        """Handles whose last reference goes while leave() is at them. The debug allocator shows who uses what was freed."""
        code = """
import threading, xidata
for _ in range(200):
    me = xidata.join()
    channels = [me.channel("dropped%d" % n) for n in range(20)]
    sets = [xidata.Set(interpreter=me) for _ in channels]
    leaving = threading.Thread(target=me.leave)
    leaving.start()
    while channels:
        del channels[-1], sets[-1]
    leaving.join()
"""
        self.finished(self.child(code, env=dict(os.environ, PYTHONMALLOC="debug")))

    def test_references(self):
        code = """
import sys, xidata
me = xidata.join(requires_ref=True)
xidata.channel(sys.argv[1]).send(me)
try:
    xidata.channel(sys.argv[2]).recv()
except xidata.Ending:
    assert me.ending
    sys.exit(7)
"""
        tell, never = xidata.channel(name()), xidata.channel(name())
        child = self.child(code, tell.name, never.name)
        id = tell.recv(SOON)
        me = xidata.current()
        with me.reference(id) as held:
            self.assertEqual(held.id, id)
            self.assertTrue(held.held)
            me.ref(id)
            me.unref(held)
            self.assertEqual([i.references for i in xidata.interpreters() if i.id == id], [1])
        self.assertFalse(held.held)
        self.assertEqual(child.wait(SOON), 7)
        with self.assertRaises(xidata.NotFound):
            me.ref(10**9)
        with self.assertRaises(TypeError):
            me.ref("x")

    def test_a_reference_is_released_though_signals_come(self):
        """The broker is stopped for longer than an interrupted call waits for it; and a handler that raises loses nothing."""
        ns = os.environ["XI_NAMESPACE"] + ".slow"
        ready, said = os.pipe()
        broker = subprocess.Popen([os.environ["XI_BROKER"], "-n", ns, "--ready-fd", str(said)], pass_fds=[said])
        self.children.append(broker)
        os.close(said)
        self.assertEqual(os.read(ready, 9), b"ready\n")
        os.close(ready)
        with xidata.join(ns=ns) as me, xidata.join(ns=ns) as other:
            held = me.reference(other.id)
            count = lambda: [i.references for i in xidata.interpreters(ns) if i.id == other.id]
            self.assertEqual(count(), [1])

            def stop(*_):
                raise KeyboardInterrupt

            self.addCleanup(signal.signal, signal.SIGALRM, signal.SIG_DFL)
            for handler in (stop, lambda *_: None):
                signal.signal(signal.SIGALRM, handler)
                broker.send_signal(signal.SIGSTOP)
                goes_on = threading.Timer(2.5, broker.send_signal, [signal.SIGCONT])
                goes_on.start()
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                if handler is stop:
                    with self.assertRaises(KeyboardInterrupt):
                        held.release()
                    self.assertTrue(held.held)
                else:
                    held.release()
                    self.assertFalse(held.held)
                goes_on.join()
            until(lambda: count() == [0], "the broker to have counted")
        broker.terminate()
        self.finished(broker)

    @unittest.skipIf(sys.version_info < (3, 12), "subinterpreters with a GIL of their own came with 3.12")
    def test_subinterpreters(self):
        try:
            import _interpreters as sub
        except ImportError:
            import _xxsubinterpreters as sub
        code = """
import xidata
a, b = xidata.channel(%r), xidata.channel(%r)
b.send((xidata.join().id, [x * 2 for x in a.recv(20)]))
xidata.leave()
"""
        a, b = xidata.channel(name()), xidata.channel(name())
        for _ in range(3):
            id = sub.create()
            a.send([1, 2])
            sub.run_string(id, code % (a.name, b.name))
            other, value = b.recv(SOON)
            self.assertEqual(value, [2, 4])
            self.assertNotEqual(other, xidata.current().id)
            sub.destroy(id)


class Threads(TestCase):
    def test_exactly_once(self):
        channel = xidata.channel(name(), capacity=8192)
        each, producers, consumers = 4000, 3, 3
        got = [[] for _ in range(consumers)]

        def produce(k):
            for i in range(each):
                channel.send((k, i))

        def consume(k):
            got[k].extend(channel)

        makers = [threading.Thread(target=produce, args=(k,)) for k in range(producers)]
        takers = [threading.Thread(target=consume, args=(k,)) for k in range(consumers)]
        for thread in makers + takers:
            thread.start()
        for thread in makers:
            thread.join(60)
        channel.close()
        for thread in takers:
            thread.join(60)
        self.assertEqual(sorted(v for g in got for v in g), [(k, i) for k in range(producers) for i in range(each)])
        for g in got:
            for k in range(producers):
                mine = [i for p, i in g if p == k]
                self.assertEqual(mine, sorted(mine))


class Signals(TestCase):
    CODE = """
import signal, sys, xidata
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
channel, told = xidata.channel(sys.argv[1]), xidata.channel(sys.argv[2])
try:
    told.send("ready")
    channel.recv()
except KeyboardInterrupt:
    told.send("interrupted")
told.send(channel.recv())
"""

    def test_ctrl_c(self):
        channel, told = xidata.channel(name()), xidata.channel(name())
        child = self.child(self.CODE, channel.name, told.name)
        self.assertEqual(told.recv(SOON), "ready")
        until(lambda: channel.stat().waiting, "the child to sleep")
        child.send_signal(signal.SIGINT)
        self.assertEqual(told.recv(SOON), "interrupted")
        channel.send("not lost")
        self.assertEqual(told.recv(SOON), "not lost")
        self.finished(child)

    def test_handler_then_on_with_the_remaining_time(self):
        channel = xidata.channel(name())
        calls = []
        previous = signal.signal(signal.SIGALRM, lambda *_: calls.append(time.monotonic()))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            begin = time.monotonic()
            with self.assertRaises(xidata.Timeout):
                channel.recv(0.4)
            passed = time.monotonic() - begin
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        self.assertGreaterEqual(len(calls), 2)
        self.assertGreaterEqual(passed, 0.4)
        self.assertLess(passed, 3)

    def test_ctrl_c_in_a_full_send(self):
        channel = xidata.channel(name(), capacity=4096)
        n = channel.send_many(range(10**6), timeout=0)

        def interrupt(*_):
            raise KeyboardInterrupt

        previous = signal.signal(signal.SIGALRM, interrupt)
        try:
            for call in (lambda: channel.send("never"), lambda: channel.send_many(["never"] * 3)):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with self.assertRaises(KeyboardInterrupt):
                    call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        back = []
        while len(back) < n:
            back += channel.recv_many(256, SOON)
        self.assertEqual(back, list(range(n)))
        with self.assertRaises(xidata.Empty):
            channel.recv(0)


class Forks(TestCase):
    def in_child(self, function):
        """Runs it in a forked child; its result must be true."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if function() else 3
            except BaseException as error:
                print("in the child: %r" % error, file=sys.stderr)
            finally:
                xidata.leave()
                os._exit(status)
        child = os.pidfd_open(pid)
        ended, _, _ = select.select([child], [], [], SOON)
        os.close(child)
        if ended:
            return self.assertEqual(os.waitpid(pid, 0)[1], 0)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.fail("the child hangs")

    def test_child_joins_by_itself(self):
        there, back = xidata.channel(name()), xidata.channel(name())
        me = xidata.current().id
        there.send("before")
        self.assertEqual(there.recv(), "before")

        def child():
            value = there.recv(SOON)
            back.send((xidata.current().id, value))
            return value == "hello"

        there.send("hello")
        self.in_child(child)
        id, value = back.recv(SOON)
        self.assertEqual(value, "hello")
        self.assertNotEqual(id, me)
        self.assertEqual(xidata.current().id, me)
        there.send(1)
        self.assertEqual(there.recv(), 1)

    def test_what_the_parent_held(self):
        channel = xidata.channel(name())
        loan = xidata.buffer(100)
        channel.send(memoryview(b"x" * 10000))
        view = channel.recv()
        freed = []
        channel.send("freed", on_free=lambda: freed.append(1))

        def child():
            for call in (lambda: memoryview(loan), lambda: memoryview(view.obj)):
                try:
                    call()
                    return False
                except BufferError:
                    pass
            try:
                channel.send(loan)
                return False
            except (ValueError, xidata.Error):
                pass
            view.release()
            channel.recv(SOON)
            channel.send("again", on_free=lambda: freed.append(2))
            return freed == []

        self.in_child(child)
        self.assertEqual(channel.recv(SOON), "again")
        until(lambda: xidata.run_free() or freed, "the callback")
        self.assertEqual(freed, [1])
        self.assertEqual(bytes(view), b"x" * 10000)

    def test_grandchildren(self):
        channel = xidata.channel(name())

        def grandchild():
            channel.send("from below")
            return True

        def child():
            self.in_child(grandchild)
            return channel.recv(SOON) == "from below"

        self.in_child(child)

    def test_fork_while_another_thread_waits(self):
        channel, answer = xidata.channel(name()), xidata.channel(name())
        got = []
        thread = threading.Thread(target=lambda: got.append(channel.recv(SOON)))
        thread.start()
        until(lambda: channel.stat().waiting, "the receiver to sleep")

        def child():
            answer.send("alive")
            channel.send("for the thread")
            return True

        self.in_child(child)
        self.assertEqual(answer.recv(SOON), "alive")
        thread.join(SOON)
        self.assertEqual(got, ["for the thread"])

    def test_multiprocessing(self):
        for method in ("fork", "spawn"):
            context = multiprocessing.get_context(method)
            there, back = xidata.channel(name()), xidata.channel(name())
            process = context.Process(target=_double, args=(there, back))
            process.start()
            there.send_many([1, "ab", (2,)])
            self.assertEqual([back.recv(SOON) for _ in range(3)], [2, "abab", (2, 2)])
            there.close()
            process.join(SOON)
            self.assertEqual(process.exitcode, 0)

    def test_handles_pickle(self):
        channel = xidata.channel(name())
        again = pickle.loads(pickle.dumps(channel))
        again.send(1)
        self.assertEqual(channel.recv(), 1)


def _double(there, back):
    for value in there:
        back.send(value * 2)


class Deaths(TestCase):
    def test_receiver_is_killed_in_recv(self):
        channel = xidata.channel(name())
        child = self.child(RECEIVE, channel.name)
        until(lambda: channel.stat().waiting, "the child to sleep")
        child.kill()
        child.wait()
        channel.send("survives")
        self.assertEqual(channel.recv(SOON), "survives")

    def test_sender_exits_at_once(self):
        channel = xidata.channel(name())
        child = self.child(
            "import sys, os, xidata; c = xidata.channel(sys.argv[1]); c.send([1, b'x' * 100000]); os._exit(0)",
            channel.name,
        )
        child.wait(SOON)
        self.assertEqual(channel.recv(SOON), [1, b"x" * 100000])

    def test_stream_with_kills(self):
        """Consumers are killed again and again; what each had received is lost with it, and nothing else."""
        code = """
import sys, xidata
channel, out = xidata.channel(sys.argv[1]), xidata.channel(sys.argv[2])
for v in channel:
    out.send(v)
"""
        channel, out = xidata.channel(name(), capacity=1 << 16), xidata.channel(name(), capacity=1 << 20)
        total, seen, kills = 20000, set(), 0
        sender = threading.Thread(target=lambda: (channel.send_many(range(total)), channel.close()))
        child = self.child(code, channel.name, out.name)
        sender.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                value = out.recv(0.2)
                self.assertNotIn(value, seen)
                seen.add(value)
            except xidata.Timeout:
                if child.poll() is not None:
                    break
            if kills < 4 and len(seen) > (kills + 1) * 2000:
                child.kill()
                child.wait()
                kills += 1
                child = self.child(code, channel.name, out.name)
        sender.join(SOON)
        self.finished(child)
        self.assertGreaterEqual(len(seen), total - kills)


if __name__ == "__main__":
    main()
