# SPDX-License-Identifier: MIT
"""Sets from Python: many channels waited on together, by a thread, by select and by asyncio."""

import asyncio
import gc
import os
import select
import signal
import sys
import threading
import time
import unittest
import weakref

from pyhelp import SOON, TestCase, Trouble, main, name, parks, until, xidata
from xidata import Ready


class Members(TestCase):
    def setUp(self):
        super().setUp()
        self.set = xidata.Set()
        self.channel = xidata.channel(name())

    def tearDown(self):
        self.set.close()
        self.channel.free()
        super().tearDown()

    def test_add_and_remove(self):
        other = xidata.channel(name())
        self.assertEqual(len(self.set), 0)
        self.set.add(self.channel)
        self.set.add(other, key="other", priority=5)
        self.assertEqual(len(self.set), 2)
        self.assertIn(other, self.set)
        self.assertNotIn("other", self.set)
        self.assertIn("2 channels", repr(self.set))
        with self.assertRaisesRegex(ValueError, "already"):
            self.set.add(self.channel)
        self.set.remove(self.channel)
        self.assertNotIn(self.channel, self.set)
        with self.assertRaises(KeyError):
            self.set.remove(self.channel)
        self.set.add(self.channel)
        self.assertEqual(len(self.set), 2)

    def test_arguments(self):
        for call in (lambda: self.set.add(), lambda: self.set.add("x"), lambda: self.set.remove(5),
                     lambda: self.set.add(self.channel, priority="high"), lambda: xidata.Set(interpreter=5),
                     lambda: self.set.wait(1, 2), lambda: self.set.wait("soon"), lambda: xidata.Set(1)):
            with self.assertRaises(TypeError):
                call()
        for call in (lambda: self.set.add(self.channel, recv=False), lambda: self.set.wait(-1),
                     lambda: self.set.add(xidata.channel(self.channel.name, send_only=True)),
                     lambda: self.set.add(xidata.channel(self.channel.name, recv_only=True), send=True)):
            with self.assertRaises(ValueError):
                call()
        self.assertEqual(len(self.set), 0)
        with self.assertRaises(OverflowError):
            self.set.add(self.channel, priority=1 << 40)

    def test_of_another_interpreter(self):
        with xidata.join(name="second") as second:
            with self.assertRaises(ValueError):
                self.set.add(second.channel(name()))
            with xidata.Set(interpreter=second) as theirs:
                channel = second.channel(name())
                theirs.add(channel)
                channel.send(1)
                self.assertEqual(theirs.wait(SOON), [(channel, Ready.RECV)])

    def test_levels(self):
        self.set.add(self.channel)
        self.assertEqual(self.set.wait(0), [])
        self.channel.send_many([1, 2])
        for _ in range(2):
            self.assertEqual(self.set.wait(SOON), [(self.channel, Ready.RECV)])
        self.channel.recv(0)
        self.assertEqual(self.set.wait(), [(self.channel, Ready.RECV)])
        self.channel.recv(0)
        self.assertEqual(self.set.wait(0), [])

    def test_keys_are_any_object(self):
        keys = [None, 0, "text", [1, 2], object()]
        channels = [xidata.channel(name()) for _ in keys]
        for channel, key in zip(channels, keys):
            self.set.add(channel, key=key)
            channel.send(1)
        events = self.set.wait(SOON)
        self.assertEqual(len(events), 5)
        for key, ready in events:
            self.assertEqual(ready, Ready.RECV)
            self.assertTrue(any(key is k for k in keys[1:]) or key is channels[0])

    def test_many(self):
        channels = [xidata.channel(name(), capacity=4096) for _ in range(300)]
        for i, channel in enumerate(channels):
            self.set.add(channel, key=i)
        self.assertEqual(self.set.wait(0), [])
        channels[217].send("x")
        self.assertEqual(self.set.wait(SOON), [(217, Ready.RECV)])
        channels[217].recv(0)
        for channel in channels:
            channel.send(1)
        seen = set()
        while len(seen) < 300:
            for key, ready in self.set.wait(SOON):
                self.assertEqual(channels[key].recv(0), 1)
                seen.add(key)
        self.assertEqual(self.set.wait(0), [])
        for channel in channels[::2]:
            self.set.remove(channel)
        self.assertEqual(len(self.set), 150)

    def test_priorities(self):
        low, high = xidata.channel(name()), xidata.channel(name())
        self.set.add(low, priority=-3)
        self.set.add(self.channel)
        self.set.add(high, priority=7)
        for channel in (low, self.channel, high):
            channel.send(1)
        self.assertEqual([c for c, _ in self.set.wait(SOON)], [high, self.channel, low])

    def test_room_to_send(self):
        full = xidata.channel(name(), capacity=4096)
        self.set.add(full, send=True)
        self.assertEqual(self.set.wait(SOON), [(full, Ready.SEND)])
        while full.try_send(1):
            pass
        self.assertEqual(self.set.wait(0.01), [])
        full.recv_many(100)
        self.assertEqual(self.set.wait(SOON), [(full, Ready.SEND)])
        self.set.remove(full)
        self.set.add(full, recv=True, send=True, key="both")
        seen = Ready(0)
        for key, ready in self.set.wait(SOON):
            self.assertEqual(key, "both")
            seen |= ready
        self.assertEqual(seen, Ready.RECV | Ready.SEND)

    def test_ends(self):
        closed, removed, freed = (xidata.channel(name()) for _ in range(3))
        for channel in (closed, removed, freed):
            self.set.add(channel, key=channel.name)
        closed.send(1)
        closed.close()
        self.assertEqual(self.set.wait(SOON), [(closed.name, Ready.RECV)])
        closed.recv(0)
        self.assertEqual(self.set.wait(SOON), [(closed.name, Ready.CLOSED)])
        self.set.remove(closed)
        xidata.remove(removed.name)
        self.assertEqual(self.set.wait(SOON), [(removed.name, Ready.CLOSED)])
        with self.assertRaises(xidata.ChannelRemoved):
            removed.recv(0)
        self.set.remove(removed)
        freed.free()
        self.assertEqual(self.set.wait(SOON), [(freed.name, Ready.LEFT)])
        self.assertEqual((len(self.set), self.set.wait(0)), (0, []))

    def test_producers_gone(self):
        mine = xidata.channel(name(), recv_only=True, need_peer=True)
        self.set.add(mine)
        other = xidata.channel(mine.name, send_only=True)
        self.assertEqual(self.set.wait(0), [])
        other.send(1)
        other.free()
        self.assertEqual(self.set.wait(SOON), [(mine, Ready.RECV)])
        mine.recv(0)
        until(lambda: self.set.wait(SOON) == [(mine, Ready.NO_PRODUCER)], "the end of the producers")

    def test_it_holds_its_channels(self):
        channel = xidata.channel(name())
        alive = weakref.ref(channel)
        self.set.add(channel)
        channel.send(1)
        del channel
        self.assertEqual(self.set.wait(SOON)[0][0].recv(0), 1)
        self.set.close()
        self.assertIsNone(alive())

    def test_a_cycle_is_collected(self):
        s, channel = xidata.Set(), xidata.channel(name())
        s.add(channel, key=[s])
        gone = weakref.ref(s), weakref.ref(channel)
        del s, channel
        gc.collect()
        self.assertEqual((gone[0](), gone[1]()), (None, None))


class Waiting(TestCase):
    def setUp(self):
        super().setUp()
        self.set = xidata.Set()
        self.channel = xidata.channel(name())
        self.set.add(self.channel)

    def tearDown(self):
        self.set.close()
        self.channel.free()
        super().tearDown()

    def waiting(self):
        """A thread in wait(), and where its result will be."""
        got = []

        def wait():
            try:
                got.append(self.set.wait(SOON))
            except BaseException as error:
                got.append(error)

        parks = self.stats()["parks"]
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: self.stats()["parks"] > parks, "the thread to sleep")
        return thread, got

    def test_timeout(self):
        start = time.monotonic()
        self.assertEqual(self.set.wait(0.2), [])
        self.assertGreaterEqual(time.monotonic() - start, 0.2)
        self.assertEqual(self.set.wait(timeout=0.7), []) # longer than one wait of the library

    def test_woken(self):
        thread, got = self.waiting()
        self.channel.send(1)
        thread.join(SOON)
        self.assertEqual(got, [[(self.channel, Ready.RECV)]])

    def test_woken_by_another_process(self):
        code = "import sys, xidata; xidata.channel(sys.argv[1]).send('hello')"
        self.child(code, self.channel.name)
        self.assertEqual(self.set.wait(SOON), [(self.channel, Ready.RECV)])
        self.assertEqual(self.channel.recv(0), "hello")

    def test_members_come_and_go_meanwhile(self):
        other = xidata.channel(name())
        thread, got = self.waiting()
        self.set.remove(self.channel)
        self.channel.send(1)
        self.set.add(other, key="late")
        other.send(2)
        thread.join(SOON)
        self.assertEqual(got, [[("late", Ready.RECV)]])

    def test_one_thread_at_a_time(self):
        thread, got = self.waiting()
        with self.assertRaisesRegex(RuntimeError, "another thread"):
            self.set.wait(0)
        self.channel.send(1)
        thread.join(SOON)

    def test_close_meanwhile(self):
        thread, got = self.waiting()
        start = time.monotonic()
        self.set.close()
        thread.join(SOON)
        self.assertLess(time.monotonic() - start, 0.3)
        self.assertIsInstance(got[0], xidata.Left)
        for call in (lambda: self.set.wait(0), lambda: self.set.add(self.channel), self.set.fileno,
                     lambda: self.set.remove(self.channel)):
            with self.assertRaises(xidata.Left):
                call()
        self.set.close()
        self.assertTrue(self.set.closed)

    def test_leave_meanwhile(self):
        me = xidata.join(name="leaves")
        self.set = xidata.Set(interpreter=me)
        self.set.add(me.channel(name()))
        got = []

        def wait():
            try:
                got.append(self.set.wait(SOON))
            except xidata.Error as error:
                got.append(type(error))

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: me.stats()["parks"], "the thread to sleep")
        me.leave()
        thread.join(SOON)
        self.assertFalse(thread.is_alive())
        self.assertIn(got[0], (xidata.Left, [(self.channel, Ready.LEFT)]))
        until(lambda: me.id not in [i.id for i in xidata.interpreters()], "the interpreter to be gone")

    def test_interrupt(self):
        class Pressed(Exception):
            pass

        def press(*_):
            raise Pressed

        old = signal.signal(signal.SIGALRM, press)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with self.assertRaises(Pressed):
                self.set.wait(SOON)
        finally:
            signal.signal(signal.SIGALRM, old)
        self.channel.send(1)
        self.assertEqual(self.set.wait(SOON), [(self.channel, Ready.RECV)])

    def test_ctrl_c(self):
        code = """
import sys, xidata
c, s = xidata.channel(sys.argv[1]), xidata.Set()
s.add(c)
c.send(1), c.recv()
print("ready", flush=True)
s.wait()
"""
        child = self.child(code, name(), stdout=-1, stderr=-1, text=True)
        self.assertEqual(child.stdout.readline(), "ready\n")
        until(lambda: parks(child.pid), "it to sleep")
        child.send_signal(signal.SIGINT)
        child.wait(SOON)
        self.assertIn("KeyboardInterrupt", child.stderr.read())

    def test_free_callbacks_run_meanwhile(self):
        called = []
        other = xidata.channel(name())
        other.send("x", on_free=lambda: (called.append(1), self.channel.send("freed")))
        before = parks()
        thread = threading.Thread(target=lambda: (until(lambda: parks() > before, "the set to sleep"), other.recv(0)))
        thread.start()
        self.assertEqual(self.set.wait(SOON), [(self.channel, Ready.RECV)])
        thread.join(SOON)
        self.assertEqual(called, [1])

    def test_what_an_interrupt_left(self):
        """A value that was received, but whose decoding was interrupted, is delivered again: the set says so."""
        self.channel.send(Trouble())
        Trouble.raises = KeyboardInterrupt()
        with self.assertRaises(KeyboardInterrupt):
            self.channel.recv(0)
        self.assertEqual(self.set.wait(0), [(self.channel, Ready.RECV)])
        self.assertEqual(self.channel.recv(0), "no trouble")
        self.assertEqual(self.set.wait(0), [])

    def test_in_a_forked_child(self):
        back = xidata.channel(name())
        self.set.add(back, key="back")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self.channel.send("woken") if not self.set.wait(0) else None
                if self.set.wait(SOON) == [(self.channel, Ready.RECV)] and len(self.set) == 2:
                    back.send(self.channel.recv(0))
                    status = 0
            finally:
                xidata.leave()
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(self.set.wait(SOON), [("back", Ready.RECV)])
        self.assertEqual(back.recv(0), "woken")


class Descriptors(TestCase):
    def setUp(self):
        super().setUp()
        self.set = xidata.Set()
        self.channel = xidata.channel(name())
        self.set.add(self.channel)

    def tearDown(self):
        self.set.close()
        super().tearDown()

    def test_select_and_poll(self):
        def readable(seconds):
            return bool(select.select([self.set], [], [], seconds)[0])

        def poll(ms):
            p = select.poll()
            p.register(self.set, select.POLLIN)
            return p.poll(ms)

        for ready in (readable, lambda seconds: bool(poll(seconds * 1000))):
            self.assertEqual(self.set.wait(0), [])
            self.assertFalse(ready(0.02))
            self.channel.send(1)
            self.assertTrue(ready(SOON))
            self.assertEqual(self.set.wait(0), [(self.channel, Ready.RECV)])
            self.channel.recv(0)
            self.assertEqual(self.set.wait(0), [])
            self.assertFalse(ready(0.02))

    def test_asyncio(self):
        """Values of two channels, one from another process, and timers, in one loop."""
        code = """
import sys, time, xidata
c = xidata.channel(sys.argv[1])
for i in range(200):
    c.send(i)
    if i % 40 == 0: time.sleep(0.02) # so that the loop sleeps now and then
c.close()
"""
        theirs = xidata.channel(name(), recv_only=True)
        got, ticks = [], []
        self.set.add(theirs, key="theirs")

        async def run():
            loop = asyncio.get_running_loop()
            over, ticked = loop.create_future(), asyncio.Event()

            def on_ready():
                for key, ready in self.set.wait(0):
                    channel = theirs if key == "theirs" else self.channel
                    if ready & Ready.RECV:
                        got.extend(channel.recv_many(16, 0))
                        if "tick 9" in got:
                            ticked.set()
                    elif ready & Ready.CLOSED:
                        self.set.remove(channel)
                        over.set_result(True)

            loop.add_reader(self.set.fileno(), on_ready)
            self.child(code, theirs.name)
            for i in range(10):
                await asyncio.sleep(0.01)
                self.channel.send("tick %d" % i)
                ticks.append(i)
            await asyncio.wait_for(over, SOON)
            await asyncio.wait_for(ticked.wait(), SOON)
            loop.remove_reader(self.set.fileno())

        asyncio.run(run())
        self.assertEqual([v for v in got if isinstance(v, int)], list(range(200)))
        self.assertEqual([v for v in got if isinstance(v, str)], ["tick %d" % i for i in range(10)])

    def test_a_stream(self):
        total, got = 20000, []
        sender = threading.Thread(target=lambda: (self.channel.send_many(range(total)), self.channel.close()))
        sender.start()
        while len(got) < total:
            for channel, ready in self.set.wait(SOON):
                if ready & Ready.RECV:
                    got += channel.recv_many(256, 0)
        sender.join(SOON)
        self.assertEqual(got, list(range(total)))


if __name__ == "__main__":
    main()
