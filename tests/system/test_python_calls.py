# SPDX-License-Identifier: MIT
"""Request and reply from Python."""

import gc
import os
import signal
import sys
import threading
import time
import unittest

from pyhelp import SOON, TestCase, main, name, numpy, until, xidata

ECHO = """
import sys, xidata
for request in xidata.channel(sys.argv[1], recv_only=True):
    if request.value == "die":
        import os; os._exit(9)
    if request.value == "drop":
        del request
        continue
    request.reply(request.value)
"""


class Calls(TestCase):
    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name("call"), send_only=True)
        self.server = xidata.channel(self.channel.name, recv_only=True)

    def tearDown(self):
        self.server.free()
        self.channel.free()
        super().tearDown()

    def serve(self, handle, turns=1):
        """A thread that handles so many requests; its errors come when it is joined."""
        errors = []

        def run():
            try:
                for _ in range(turns):
                    handle(self.server.recv(SOON))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()

        def finish():
            thread.join(SOON)
            self.assertFalse(thread.is_alive())
            self.assertEqual(errors, [])

        return finish

    def test_values(self):
        values = [None, 1, "text", [1, {"two": (3.0,)}], b"x" * 300000, 2**100, bytearray(b"m"), Ellipsis]
        finish = self.serve(lambda request: request.reply([request.value]), len(values))
        for value in values:
            self.assertEqual(self.channel.call(value, timeout=SOON), [value])
        finish()

    @unittest.skipUnless(numpy, "no numpy")
    def test_arrays(self):
        array = numpy.arange(100000.0)
        finish = self.serve(lambda request: request.reply(request.value["array"] * 2))
        doubled = self.channel.call({"array": array}, SOON)
        self.assertTrue((doubled == array * 2).all())
        finish()
        del doubled
        gc.collect()
        self.assertEqual(self.stats()["borrows"], 0)

    def test_loans(self):
        def handle(request):
            loan = xidata.buffer(1000)
            with memoryview(loan) as m:
                m[:] = bytes(request.value["loan"][:1000])
            request.reply(("answer", loan))
            self.assertTrue(loan.sent)

        finish = self.serve(handle)
        loan = xidata.buffer(70000)
        with memoryview(loan) as m:
            m[:] = b"l" * 70000
        answer, view = self.channel.call({"loan": loan}, SOON)
        self.assertTrue(loan.sent)
        self.assertEqual((answer, bytes(view)), ("answer", b"l" * 1000))
        finish()
        del view
        gc.collect()
        self.assertEqual(self.stats()["borrows"], 0)

    def test_request(self):
        seen = []

        def handle(request):
            self.assertIs(type(request), xidata.Request)
            self.assertTrue(request.wanted)
            self.assertFalse(request.settled)
            with self.assertRaises(Exception):
                request.reply(lambda: 0) # cannot be sent: the caller waits still
            self.assertTrue(request.wanted)
            request.reply("yes")
            self.assertTrue(request.settled)
            self.assertFalse(request.wanted)
            with self.assertRaises(xidata.Stale):
                request.reply("twice")
            seen.append((request.value, request.channel, repr(request)))

        finish = self.serve(handle)
        self.assertEqual(self.channel.call("q", SOON), "yes")
        finish()
        self.assertEqual(seen[0][:2], ("q", self.server))
        self.assertIn("Request", seen[0][2])

    def test_out_of_order(self):
        answers = {}
        threads = [threading.Thread(target=lambda i=i: answers.__setitem__(i, self.channel.call(i, SOON))) for i in range(8)]
        for thread in threads:
            thread.start()
        requests = [self.server.recv(SOON) for _ in range(8)]
        for request in reversed(requests):
            request.reply(request.value * 10)
        for thread in threads:
            thread.join(SOON)
        self.assertEqual(answers, {i: i * 10 for i in range(8)})

    def test_dropped(self):
        def leave(request):
            with request:
                raise KeyError

        def handle_drop(request):
            del request

        def handle_leave(request):
            try:
                leave(request)
            except KeyError:
                pass

        kept = []

        def handle_view(request):
            kept.append(request.value) # its memory stays, but nobody is going to answer
            del request

        for handle in (handle_drop, handle_leave):
            finish = self.serve(handle)
            with self.assertRaises(xidata.ServerDied):
                self.channel.call(1, SOON)
            finish()
        finish = self.serve(handle_view)
        with self.assertRaises(xidata.ServerDied):
            self.channel.call(memoryview(b"v" * 50000), SOON)
        finish()
        self.assertEqual(bytes(kept[0]), b"v" * 50000)
        kept.clear()

    def test_death_of_a_server(self):
        self.server.free()
        child = self.child(ECHO, self.channel.name)
        until(lambda: self.channel.stat().consumers, "the server")
        self.assertEqual(self.channel.call("hello", SOON), "hello")
        with self.assertRaises(xidata.ServerDied):
            self.channel.call("drop", SOON)
        start = time.monotonic()
        with self.assertRaises(xidata.ServerDied):
            self.channel.call("die")
        self.assertLess(time.monotonic() - start, 5)
        until(lambda: self.channel.stat().consumers == 0, "its handle to be gone")
        with self.assertRaises(xidata.NoConsumer):
            self.channel.call("anybody?")

    def test_timeout(self):
        for timeout in (0, 0.05, 0.7):
            start = time.monotonic()
            with self.assertRaises(xidata.Timeout):
                self.channel.call("slow", timeout)
            self.assertGreaterEqual(time.monotonic() - start, timeout)
        with self.assertRaises(xidata.Empty): # they were cancelled before anybody took them
            self.server.recv(0)
        late = []

        def handle(request):
            until(lambda: not request.wanted, "the caller to give up")
            with self.assertRaises(xidata.Stale):
                request.reply("too late")
            late.append(request.settled)

        finish = self.serve(handle)
        with self.assertRaises(xidata.Timeout):
            self.channel.call(1, 0.1)
        finish()
        self.assertEqual(late, [True])
        finish = self.serve(lambda request: request.reply("in time"))
        self.assertEqual(self.channel.call(2, SOON), "in time")
        finish()

    def test_signals_and_callbacks_do_not_ask_twice(self):
        asked, called = [], []

        def handle(request):
            asked.append(request.value)
            until(lambda: len(called) > 2, "three signals")
            request.reply("once")

        old = signal.signal(signal.SIGALRM, lambda *_: called.append("signal"))
        try:
            finish = self.serve(handle)
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            self.assertEqual(self.channel.call("q", SOON), "once")
            finish()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        self.assertEqual(asked, ["q"])
        self.assertGreater(len(called), 2)

    def test_interrupt_cancels(self):
        class Pressed(Exception):
            pass

        def press(*_):
            raise Pressed

        old = signal.signal(signal.SIGALRM, press)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with self.assertRaises(Pressed):
                self.channel.call("never taken")
        finally:
            signal.signal(signal.SIGALRM, old)
        with self.assertRaises(xidata.Empty):
            self.server.recv(0)

    def test_arguments(self):
        for call in (lambda: self.channel.call(), lambda: self.channel.call(1, 2, 3), lambda: self.channel.call(1, x=2),
                     lambda: self.channel.call(1, "soon"), lambda: xidata.Request(), lambda: xidata.Delivery()):
            with self.assertRaises(TypeError):
                call()
        with self.assertRaises(ValueError):
            self.channel.call(1, -1)
        with self.assertRaises(Exception):
            self.channel.call(lambda: 0, 1)
        self.channel.close()
        with self.assertRaises(xidata.ChannelClosed):
            self.channel.call(1, 1)

    def test_in_a_group_that_acknowledges(self):
        channel = xidata.channel(name("ackcall"), send_only=True)
        server = xidata.channel(channel.name, recv_only=True, ack=True)
        self.server, unused = server, self.server
        unused.free()
        finish = self.serve(lambda request: request.reply(request.value + 1))
        self.assertEqual(channel.call(1, SOON), 2)
        finish()
        self.assertEqual(channel.groups()[0].unacked, 0)
        tries = []

        def handle(request):
            tries.append(request.value)
            if len(tries) == 1:
                return # dropped: another gets it
            request.reply("at last")

        finish = self.serve(handle, 2)
        self.assertEqual(channel.call("again", SOON), "at last")
        finish()
        self.assertEqual(tries, ["again"] * 2)

    def test_forked_child(self):
        finish = self.serve(lambda request: request.reply("from the parent"))
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                if self.channel.call("from the child", SOON) == "from the parent":
                    status = 0
            finally:
                xidata.leave()
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        finish()

    def test_nothing_leaks(self):
        finish = self.serve(lambda request: request.reply(request.value), 800)

        def turn():
            for i in range(200):
                self.channel.call((i, b"x" * 6000), SOON)
                self.channel.call(i, SOON)

        turn()
        gc.collect()
        before = sys.getallocatedblocks()
        turn()
        gc.collect()
        self.assertLess(sys.getallocatedblocks() - before, 300)
        finish()
        self.assertEqual(self.stats()["borrows"], 0)


if __name__ == "__main__":
    main()
