# SPDX-License-Identifier: MIT
"""Channel.fileno(): one channel in select, selectors and asyncio."""

import asyncio
import os
import select
import selectors
import threading
import unittest

from pyhelp import SOON, TestCase, Trouble, main, name, until, xidata


def readable(channel, seconds=0.0):
    return bool(select.select([channel], [], [], seconds)[0])


def silent(channel):
    """True if the descriptor is not readable once it was read dry. It may be readable for nothing, so: in some look."""
    for _ in range(100):
        if channel.try_recv(None) is not None:
            return False
        if not readable(channel):
            return True
    return False


class Descriptor(TestCase):
    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name())

    def tearDown(self):
        self.channel.free()
        super().tearDown()

    def test_levels(self):
        fd = self.channel.fileno()
        self.assertEqual(self.channel.fileno(), fd)
        self.assertTrue(silent(self.channel))
        self.channel.send_many(range(3))
        self.assertTrue(readable(self.channel, SOON))
        for i in range(3):  # as long as nobody found it empty
            self.assertTrue(readable(self.channel))
            self.assertEqual(self.channel.recv(0), i)
        self.assertTrue(silent(self.channel))
        self.channel.send("more")
        self.assertTrue(readable(self.channel, SOON))
        self.assertEqual(self.channel.recv_many(10, 0), ["more"])
        with self.assertRaises(xidata.Empty):
            self.channel.recv_many(10, 0)
        self.assertTrue(silent(self.channel))

    def test_what_was_there_before(self):
        self.channel.send("before")
        self.channel.fileno()
        self.assertTrue(readable(self.channel))
        self.assertEqual(self.channel.recv(0), "before")
        self.assertTrue(silent(self.channel))

    def test_every_way_to_find_nothing(self):
        self.channel.fileno()

        def timed():
            with self.assertRaises(xidata.Timeout):
                self.channel.recv(0.001)

        def empty():
            with self.assertRaises(xidata.Empty):
                self.channel.recv(0)

        def many():
            with self.assertRaises(xidata.Timeout):
                self.channel.recv_many(3, 0.001)

        for way in (timed, empty, many, lambda: self.channel.try_recv(None)):
            self.channel.send(1)
            self.assertTrue(readable(self.channel, SOON))
            self.assertEqual(self.channel.recv(), 1)

            def again():
                way()
                return not readable(self.channel)

            until(again, "the descriptor to be silent")

    def test_woken_by_another_process(self):
        code = "import sys, xidata\nc = xidata.channel(sys.argv[1])\nfor i in range(200): c.send(i)\nc.close()"
        self.channel.fileno()
        child, got = self.child(code, self.channel.name), []
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ, "mine")
            while True:
                events = selector.select(SOON)
                self.assertEqual([key.data for key, _ in events], ["mine"])
                try:
                    got.append(self.channel.recv(0))  # one each time: a level, not an edge
                except xidata.Empty:
                    continue
                except xidata.ChannelClosed:
                    break
        self.assertEqual(got, list(range(200)))
        self.finished(child)

    def test_another_consumer_is_faster(self):
        self.channel.fileno()
        other = xidata.channel(self.channel.name)
        self.assertTrue(silent(self.channel))
        self.channel.send(1)
        self.assertTrue(readable(self.channel, SOON))
        self.assertEqual(other.recv(), 1)
        self.assertTrue(silent(self.channel))
        other.free()

    def test_the_end(self):
        self.channel.fileno()
        self.assertTrue(silent(self.channel))
        self.channel.send("last")
        self.channel.close()
        self.assertTrue(readable(self.channel, SOON))
        self.assertEqual(self.channel.recv(0), "last")
        for _ in range(3):  # it stays so
            self.assertTrue(readable(self.channel, SOON))
            with self.assertRaises(xidata.ChannelClosed):
                self.channel.recv(0)

    def test_nobody_left_who_sends(self):
        mine = xidata.channel(name(), recv_only=True, need_peer=True)
        theirs = xidata.channel(mine.name, send_only=True)
        self.assertTrue(silent(mine))
        theirs.free()
        self.assertTrue(readable(mine, SOON))
        with self.assertRaises(xidata.NoProducer):
            until(lambda: mine.try_recv(None), "the broker to have counted")
        mine.free()

    def test_removed(self):
        self.channel.fileno()
        self.assertTrue(silent(self.channel))
        xidata.remove(self.channel.name)
        until(lambda: readable(self.channel, SOON) and self.removed(), "the end of the channel")

    def removed(self):
        try:
            self.channel.try_recv(None)
        except xidata.ChannelRemoved:
            return True
        return False

    def test_free_closes_it(self):
        fd = self.channel.fileno()
        os.fstat(fd)
        before = len(os.listdir("/proc/self/fd"))
        self.channel.free()
        with self.assertRaises(xidata.Left):
            self.channel.fileno()
        self.assertLess(len(os.listdir("/proc/self/fd")), before)

    def test_leaving_closes_it(self):
        me = xidata.join(name="leaves")
        before = len(os.listdir("/proc/self/fd"))
        channel = me.channel(name())
        channel.fileno()
        me.leave()
        with self.assertRaises(xidata.Left):
            channel.fileno()
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)

    def test_nothing_to_receive_with(self):
        sender = xidata.channel(name(), send_only=True)
        with self.assertRaisesRegex(ValueError, "send only"):
            sender.fileno()
        self.assertEqual(self.stats()["borrows"], 0)
        sender.send(1)  # and it is as it was
        sender.free()

    def test_in_a_set_as_well(self):
        with xidata.Set() as both:
            both.add(self.channel)
            self.assertTrue(silent(self.channel))
            self.channel.send(1)
            self.assertEqual(both.wait(SOON), [(self.channel, xidata.Ready.RECV)])
            self.assertTrue(readable(self.channel, SOON))
            self.assertEqual(self.channel.recv(0), 1)
            self.assertEqual(both.wait(0), [])

    def test_deliveries(self):
        channel = xidata.channel(name(), ack=True)
        self.assertTrue(silent(channel))
        channel.send("job")
        self.assertTrue(readable(channel, SOON))
        delivery = channel.recv(0)
        self.assertTrue(silent(channel))
        delivery.nack()
        self.assertTrue(readable(channel, SOON))
        with channel.recv(0) as delivery:
            self.assertEqual((delivery.value, delivery.count), ("job", 2))
        channel.free()

    def test_interrupted_values_are_told_of(self):
        """Ctrl-C while values are decoded: they are kept, and the descriptor says so."""
        self.channel.fileno()
        self.channel.send_many([1, Trouble(), 3])
        Trouble.raises = KeyboardInterrupt
        with self.assertRaises(KeyboardInterrupt):
            self.channel.recv_many(10)
        got = []
        while len(got) < 3:
            self.assertTrue(readable(self.channel, SOON))
            got.append(self.channel.recv(0))
        self.assertEqual(got, [1, "no trouble", 3])
        self.assertTrue(silent(self.channel))

    def test_in_a_forked_child(self):
        self.channel.fileno()
        self.assertTrue(silent(self.channel))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.channel.fileno()
                ready = readable(self.channel, SOON)
                while ready and self.channel.try_recv(None) != "for the child":
                    ready = readable(self.channel, SOON)
                status = 0 if ready and silent(self.channel) else 2
            finally:
                os._exit(status)
        self.channel.send("for the child")
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertTrue(silent(self.channel))

    def test_asyncio(self):
        got = []

        async def run():
            loop = asyncio.get_running_loop()
            over = loop.create_future()

            def on_ready():
                try:
                    while True:
                        got.append(self.channel.recv(0))
                except xidata.Empty:
                    pass
                except xidata.ChannelClosed:
                    loop.remove_reader(self.channel)
                    over.set_result(None)

            loop.add_reader(self.channel, on_ready)
            sender = threading.Thread(target=lambda: (self.channel.send_many(range(5000)), self.channel.close()))
            sender.start()
            await asyncio.wait_for(over, SOON)
            sender.join(SOON)

        asyncio.run(run())
        self.assertEqual(got, list(range(5000)))

    def test_as_many_as_there_are(self):
        """Each takes a set; who asks for too many is told, and the channel is as it was."""
        channels = []
        try:
            with self.assertRaises(xidata.Limit) as told:
                for _ in range(300):
                    channels.append(xidata.channel(name()))
                    channels[-1].fileno()
            self.assertIn("sets", str(told.exception))
            channels[-1].send("as it was")
            self.assertEqual(channels[-1].recv(0), "as it was")
            channels[0].free()
            self.assertTrue(silent(channels[-1]))
        finally:
            for channel in channels:
                channel.free()


if __name__ == "__main__":
    main()
