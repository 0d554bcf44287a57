# SPDX-License-Identifier: MIT
"""Memory that Python sees: loans, views, who holds them how long, callbacks when values are consumed, and leaks."""

import gc
import os
import signal
import sys
import threading
import time
import tracemalloc
import unittest
import weakref

from pyhelp import SOON, TestCase, main, name, numpy, until, xidata

CONSUME = """
import sys, xidata
channel = xidata.channel(sys.argv[1], group=sys.argv[2] if len(sys.argv) > 2 else None)
xidata.channel(sys.argv[1] + ".ready").send(1)
for value in channel:
    del value
"""


def settle(condition):
    """Runs what is due until the condition holds."""
    until(lambda: (xidata.run_free(), condition())[1])


def blocks():
    """Blocks in use, after those that were released have been looked at."""
    for _ in range(50):
        xidata.buffer(1).release()
    return xidata.current().stats()["blocks"]


class Loans(TestCase):
    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name(), capacity=4096)

    def filled(self, n=100000, byte=b"l"):
        loan = xidata.buffer(n)
        with memoryview(loan) as m:
            m[:] = byte * n
        return loan

    def test_top_level(self):
        for n in (0, 1, 1000, 100000, 1 << 24):
            loan = self.filled(n)
            self.assertEqual((len(loan), loan.nbytes, loan.sent), (n, n, False))
            self.channel.send(loan)
            self.assertTrue(loan.sent)
            view = self.channel.recv()
            self.assertIs(type(view), memoryview)
            self.assertTrue(view.readonly)
            self.assertEqual(view, b"l" * n)
            with self.assertRaises(TypeError):
                view[0:1] = b"x"

    def test_no_copy(self):
        loan = self.filled()
        if numpy:
            with memoryview(loan) as m:
                where = numpy.frombuffer(m, "u1").__array_interface__["data"][0]
                self.assertEqual(where % 64, 0)
        start = time.perf_counter()
        for _ in range(50):
            self.channel.send(xidata.buffer(16 << 20))
            self.channel.recv().release()
        self.assertLess((time.perf_counter() - start) / 50, 0.004)  # a copy of 16 MiB takes longer

    def test_nested(self):
        loan, other = self.filled(10, b"a"), self.filled(5000, b"b")
        self.channel.send({"a": [loan, loan], "b": (other, 1), "c": b"x" * 10000})
        back = self.channel.recv()
        self.assertEqual([bytes(v) for v in back["a"]], [b"a" * 10] * 2)
        self.assertEqual((bytes(back["b"][0]), back["b"][1], back["c"]), (b"b" * 5000, 1, b"x" * 10000))
        self.assertTrue(loan.sent and other.sent)

    def test_in_a_pickle(self):
        loan = self.filled()
        self.channel.send([loan, Ellipsis])
        back = self.channel.recv()
        self.assertEqual((bytes(back[0]), back[1]), (b"l" * 100000, Ellipsis))
        self.assertTrue(loan.sent)

    def test_after_it_was_sent(self):
        loan = self.filled()
        self.channel.send(loan)
        with self.assertRaisesRegex(BufferError, "sent"):
            memoryview(loan)
        with self.assertRaisesRegex(ValueError, "sent"):
            self.channel.send(loan)
        with self.assertRaisesRegex(ValueError, "sent"):
            self.channel.send([loan])
        loan.release()
        self.assertIn("sent", repr(loan))

    def test_exported(self):
        loan = self.filled()
        m = memoryview(loan)
        for call in (lambda: self.channel.send(loan), lambda: self.channel.send([1, loan]), loan.release):
            with self.assertRaisesRegex(BufferError, "1 views"):
                call()
        m[:5] = b"still"
        m.release()
        self.channel.send(loan)
        self.assertEqual(bytes(self.channel.recv()[:6]), b"stilll")

    @unittest.skipUnless(numpy, "no numpy")
    def test_exported_to_numpy(self):
        loan = xidata.buffer(8000)
        data = numpy.frombuffer(loan, "f8")
        data[:] = range(1000)
        with self.assertRaises(BufferError):
            self.channel.send(loan)
        del data
        self.channel.send(loan)
        self.assertEqual(numpy.frombuffer(self.channel.recv(), "f8").tolist(), list(range(1000)))

    def test_released(self):
        before = blocks()
        with self.filled() as loan:
            self.assertEqual(blocks(), before + 1)
        loan.release()
        self.assertEqual(blocks(), before)
        with self.assertRaises(BufferError):
            memoryview(loan)
        del loan
        loan = self.filled()
        del loan
        self.assertEqual(blocks(), before)

    def test_failed_send_keeps_it(self):
        before = blocks()
        while self.channel.try_send(1):
            pass
        loan, other = self.filled(), self.filled(50, b"o")
        for value in (loan, [loan, other], [loan], [loan, Ellipsis]):
            for timeout in (0, 0.01):
                with self.assertRaises((xidata.Full, xidata.Timeout)):
                    self.channel.send(value, timeout)
                self.assertFalse(loan.sent)
                with memoryview(loan) as m:
                    self.assertEqual(bytes(m[-3:]), b"lll")
        with self.assertRaises(TypeError):
            self.channel.send([loan, (i for i in ())])
        while self.channel.try_recv(None):
            pass
        self.channel.send([loan, other])
        back = self.channel.recv()
        self.assertEqual((bytes(back[0]), bytes(back[1])), (b"l" * 100000, b"o" * 50))
        del back, loan, other, m
        settle(lambda: blocks() == before)

    def test_of_another_interpreter(self):
        with xidata.join() as other:
            loan = other.buffer(10)
            with self.assertRaisesRegex(ValueError, "another interpreter"):
                self.channel.send(loan)
            with self.assertRaisesRegex(ValueError, "another interpreter"):
                self.channel.send([loan])
        with memoryview(loan) as m:  # it left, but the memory is there as long as somebody can reach it
            m[:] = b"0123456789"
            self.assertEqual(bytes(m), b"0123456789")


class Views(TestCase):
    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name(), capacity=1 << 20)

    def test_zero_copy_bytes(self):
        for value in (b"", b"small", b"x" * 100000):
            self.channel.send(value)
            view = self.channel.recv(zero_copy=True)
            self.assertIs(type(view), memoryview)
            self.assertTrue(view.readonly)
            self.assertEqual(view, value)
            self.channel.send(value)
            self.assertIs(type(self.channel.recv()), bytes)
        with xidata.channel(self.channel.name, zero_copy=True) as views:
            self.channel.send([b"a" * 5000, bytearray(b"b")])
            a, b = views.recv()
            self.assertEqual((type(a), type(b), bytes(a)), (memoryview, bytearray, b"a" * 5000))
            self.channel.send(b"x")
            self.assertIs(type(views.recv(zero_copy=False)), bytes)

    def test_release_with_the_last(self):
        before = blocks()
        self.channel.send([b"x" * 10000, memoryview(b"y" * 10000)])
        views = self.channel.recv(zero_copy=True)
        self.assertEqual(self.stats()["borrows"], 1)
        part = views[0][5:10]
        whole = views[1]
        del views
        self.assertEqual(self.stats()["borrows"], 1)
        whole.release()
        self.assertEqual(self.stats()["borrows"], 1)
        again = memoryview(part)
        part.release()
        self.assertEqual(bytes(again), b"xxxxx")
        del again, part, whole
        self.assertEqual(self.stats()["borrows"], 0)
        self.assertEqual(blocks(), before)

    def test_outlive_channel_and_interpreter(self):
        me = xidata.join(name="short")
        channel = me.channel(name())
        channel.send(memoryview(b"z" * 100000))
        view = channel.recv()
        channel.free()
        me.leave()
        id = me.id
        del channel, me
        gc.collect()
        self.assertEqual(bytes(view[99990:]), b"z" * 10)
        self.assertIn(id, [i.id for i in xidata.interpreters()])
        del view
        until(lambda: id not in [i.id for i in xidata.interpreters()], "it to leave")

    def test_nothing_is_kept_at_leave(self):
        """What the arena keeps for later values goes at leave(), though a view puts the rest off."""
        def files():
            return {f for f in os.listdir("/dev/shm") if f.startswith("xi.%d.%s." % (os.getuid(), xidata.current().namespace))}

        def arena(id):
            return sum(i.arena_bytes for i in xidata.list_interpreters() if i.id == id)

        before = files()
        for viewed in (True, False):
            with self.subTest(viewed=viewed):
                me = xidata.join(name="keeps")
                channel = me.channel(name())
                channel.send(memoryview(b"v" * 100000))
                view = channel.recv()
                for _ in range(3):
                    channel.send(b"x" * (9 << 20))
                    self.assertEqual(len(channel.recv()), 9 << 20)
                self.assertGreater(arena(me.id), 9 << 20)
                if not viewed:
                    del view
                me.leave()
                until(lambda: arena(me.id) < 2 << 20, "the arena to be trimmed")
                if viewed:
                    self.assertGreater(arena(me.id), 100000)
                    self.assertEqual(bytes(view), b"v" * 100000)
                    del view
                until(lambda: me.id not in [i.id for i in xidata.list_interpreters()], "it to leave")
                until(lambda: files() <= before, "its memory to go")

    def test_last_view_dies_in_another_thread(self):
        self.channel.send_many([memoryview(b"t" * 5000)] * 20)
        views = [self.channel.recv() for _ in range(20)]
        threads = [threading.Thread(target=views.pop) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.stats()["borrows"], 0)

    def test_sender_dies(self):
        code = "import sys, os, signal, xidata; c = xidata.channel(sys.argv[1]); c.send(memoryview(b'd' * 100000));" \
               "os.kill(os.getpid(), signal.SIGKILL)"
        child = self.child(code, self.channel.name)
        self.assertEqual(child.wait(SOON), -signal.SIGKILL)
        view = self.channel.recv(SOON)
        self.assertEqual(bytes(view), b"d" * 100000)
        until(lambda: child.pid not in [i.pid for i in xidata.list_interpreters()], "the broker to act on the death")
        self.assertEqual(bytes(view), b"d" * 100000)

    def test_receiver_dies_holding_views(self):
        code = "import sys, xidata; c = xidata.channel(sys.argv[1]); v = [c.recv() for _ in range(5)];" \
               "xidata.channel(sys.argv[2]).send(1); c.recv()"
        told, before = xidata.channel(name()), blocks()
        freed = []
        for i in range(5):
            self.channel.send(memoryview(b"v" * 10000), on_free=lambda: freed.append(1))
        child = self.child(code, self.channel.name, told.name)
        self.assertEqual(told.recv(SOON), 1)
        xidata.run_free()
        self.assertEqual(freed, [])
        child.kill()
        settle(lambda: len(freed) == 5)
        self.assertEqual(blocks(), before)


class FreeCallbacks(TestCase):
    def test_small_and_large(self):
        channel = xidata.channel(name())
        freed = []
        for value in (1, "x" * 100, b"y" * 100000, memoryview(b"z" * 100), [1, (2,)], Ellipsis):
            channel.send(value, on_free=lambda: freed.append(1))
            xidata.run_free()
            self.assertEqual(freed, [])
            back = channel.recv()
            del back
            settle(lambda: freed)
            self.assertEqual(freed, [1])
            freed.clear()

    def test_loans(self):
        channel = xidata.channel(name())
        freed = []
        channel.send(xidata.buffer(1000), on_free=lambda: freed.append(1))
        view = channel.recv()
        xidata.run_free()
        self.assertEqual(freed, [])
        del view
        settle(lambda: freed == [1])

    def test_not_for_what_was_not_sent(self):
        channel = xidata.channel(name(), capacity=4096)
        freed = []
        callback = lambda: freed.append(1)  # noqa: E731
        held = [callback]  # a name may be looked at without a reference of its own (3.14), here or there
        before = sys.getrefcount(held[0])
        n = 0
        with self.assertRaises(xidata.Full):
            while True:
                channel.send(b"x" * 400, 0, on_free=callback)
                n += 1
        channel.close()
        with self.assertRaises(xidata.ChannelClosed):
            channel.send(1, on_free=callback)
        self.assertEqual(len(list(channel)), n)
        settle(lambda: len(freed) == n)
        self.assertEqual(sys.getrefcount(held[0]), before)

    def test_at_leave(self):
        """Those that are due are called; of the others nothing is kept. What an exception says is told when it has left."""
        other = xidata.channel(name())  # of the current interpreter, which stays
        me, called = xidata.join(name="leaves"), []
        channel = me.channel(other.name)

        class Callback:
            def __call__(self):
                called.append(self)

        kept, due = Callback(), Callback()
        channel.send(b"due" * 1000, on_free=due)
        channel.send(b"kept" * 1000, on_free=kept)
        self.assertEqual(other.recv(SOON), b"due" * 1000)
        self.assertEqual(called, [])
        me.leave()
        self.assertEqual(called, [due])
        gone = weakref.ref(kept)
        del kept
        self.assertIsNone(gone())
        self.assertEqual(other.recv(SOON), b"kept" * 1000)
        me.leave()
        self.assertEqual(called, [due])

        def interrupt():
            raise KeyboardInterrupt

        me = xidata.join(name="interrupted")
        channel = me.channel(other.name)
        channel.send(b"due" * 1000, on_free=interrupt)
        self.assertEqual(other.recv(SOON), b"due" * 1000)
        with self.assertRaises(KeyboardInterrupt):
            me.leave()
        self.assertTrue(me.left)
        until(lambda: me.id not in [i.id for i in xidata.list_interpreters()], "it to have left")

    def test_callback_may_send_and_fail(self):
        channel, other = xidata.channel(name()), xidata.channel(name())
        unraisable = []
        previous, sys.unraisablehook = sys.unraisablehook, lambda args: unraisable.append(args.exc_type)
        try:
            channel.send(1, on_free=lambda: other.send("from the callback"))
            channel.send(2, on_free=lambda: 1 / 0)
            self.assertEqual((channel.recv(), channel.recv()), (1, 2))
            settle(lambda: unraisable)
        finally:
            sys.unraisablehook = previous
        self.assertEqual(unraisable, [ZeroDivisionError])
        self.assertEqual(other.recv(SOON), "from the callback")

    def test_wakes_a_waiting_owner(self):
        channel, wait = xidata.channel(name()), xidata.channel(name())
        ready = xidata.channel(channel.name + ".ready")
        freed = []
        channel.send(b"x" * 10000, on_free=lambda: freed.append(time.monotonic()))
        child = self.child(CONSUME, channel.name)
        ready.recv(SOON)
        with self.assertRaises(xidata.Timeout):
            wait.recv(1.0)  # the callback is run meanwhile
        self.assertEqual(len(freed), 1)
        channel.close()
        self.finished(child)

    def exactly_once(self, groups):
        n = 10000
        mode = "broadcast" if groups > 1 else "queue"
        channel = xidata.channel(name(), mode=mode, send_only=True, capacity=1 << 18)
        ready = xidata.channel(channel.name + ".ready")
        children = [
            self.child(CONSUME, channel.name, *(["g%d" % g] if groups > 1 else [])) for g in range(groups)
        ]
        for _ in children:
            ready.recv(SOON)
        counts = [0] * n

        def freed(i):
            counts[i] += 1

        for i in range(n):
            channel.send(i, SOON, on_free=lambda i=i: freed(i))
        channel.close()
        for child in children:
            self.finished(child)
        settle(lambda: sum(counts) >= n)
        xidata.run_free()
        self.assertEqual(counts, [1] * n)
        self.assertEqual(self.stats()["callbacks_due"], 0)

    def test_exactly_once_one_group(self):
        self.exactly_once(1)

    def test_exactly_once_five_groups(self):
        self.exactly_once(5)


class Leaks(TestCase):
    """The same things again and again: no objects, memory, blocks or borrows may pile up."""

    def rounds(self, action, rounds=3000):
        for _ in range(100):
            action()
        before = blocks()
        gc.collect()
        objects = len(gc.get_objects())
        none = sys.getrefcount(None)
        tracemalloc.start()
        memory = []
        for _ in range(6):
            for _ in range(rounds // 2):
                action()
            gc.collect()
            memory.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        self.assertLess(len(gc.get_objects()) - objects, 20)
        # CPython's free lists go on filling for a while, in bursts; one object a round would be more than this every time.
        self.assertLess(min(b - a for a, b in zip(memory, memory[1:])), rounds * 8, memory)
        self.assertLess(abs(sys.getrefcount(None) - none), rounds // 2)
        self.assertEqual(self.stats()["borrows"], 0)
        self.assertEqual(blocks(), before)

    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name(), capacity=1 << 20)

    def test_values(self):
        from test_python_values import EXACT, PICKLED, TEXTS, TIMES

        values = TEXTS[:8] + TIMES + EXACT + PICKLED[:8] + [[1, (2, {3: {4}}), b"5", bytearray(b"6")], memoryview(b"7" * 9000)]

        def action():
            for value in values:
                self.channel.send(value)
                self.channel.recv()

        self.rounds(action, 1000)

    @unittest.skipUnless(numpy, "no numpy")
    def test_arrays(self):
        values = [numpy.arange(5), numpy.zeros((100, 100))[::2], numpy.zeros(3, [("a", "i4"), ("b", "S3")]), numpy.array(None)]

        def action():
            for value in values:
                self.channel.send(value)
                self.channel.recv()

        self.rounds(action)

    def test_batches(self):
        def action():
            self.channel.send_many([1, "x", b"y" * 5000, None])
            self.channel.recv_many(10)

        self.rounds(action)

    def test_loans_and_callbacks(self):
        def action():
            loan = xidata.buffer(5000)
            with memoryview(loan) as m:
                m[0] = 1
            self.channel.send([loan, 1], on_free=int)
            self.channel.recv()
            xidata.buffer(10).release()

        self.rounds(action)

    def test_errors(self):
        def raises(call):
            try:
                call()
            except Exception:
                return
            self.fail("no exception")

        cycle = []
        cycle.append(cycle)
        loan = xidata.buffer(100)
        held = memoryview(loan)

        def action():
            raises(lambda: self.channel.recv(0))
            raises(lambda: self.channel.send((i for i in ())))
            raises(lambda: self.channel.send([1, loan, (i for i in ())]))
            raises(lambda: self.channel.send([b"x" * 300000, loan]))
            raises(lambda: self.channel.send_many([1, lambda: 0]))
            raises(lambda: xidata.channel("x", mode="y"))
            raises(lambda: xidata.channel(self.channel.name, mode="broadcast"))
            raises(lambda: self.channel.send(1, bad=1))
            self.channel.recv()

        self.rounds(action, 2000)
        held.release()

    def test_handles(self):
        other = name()

        def action():
            channel = xidata.channel(other)
            channel.send(1)
            channel.recv()
            channel.free()
            repr(xidata.channel(other))
            xidata.interpreters()
            xidata.channels()
            channel.name, self.channel.stat(), xidata.current()

        self.rounds(action, 500)

    def test_interpreters(self):
        def action():
            with xidata.join() as me:
                me.channel(name()).send(1)

        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            action()
        gc.collect()
        middle = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            action()
        gc.collect()
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), max(before, middle) + 2)


if __name__ == "__main__":
    main(each_version=False)
