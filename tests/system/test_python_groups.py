# SPDX-License-Identifier: MIT
"""What a channel can be like, from Python: options, groups, ends, time to live."""

import math
import os
import sys
import threading
import time
import unittest

from pyhelp import SOON, TestCase, main, name, until, xidata


class Options(TestCase):
    def test_arguments(self):
        for options in (
            {"values": -1}, {"grow": -5}, {"retain": 1 << 32}, {"when_full": "wait"}, {"ttl": 0}, {"ttl": -1.0},
            {"ttl": math.nan}, {"from_": "start"}, {"from_": -1}, {"ack_timeout": 5}, {"max_deliveries": 3},
            {"window": 64}, {"dead_letters": "d"}, {"ack": True, "window": 1 << 20}, {"ack": True, "ack_timeout": 0},
            {"send_only": True, "group": "g"}, {"send_only": True, "ack": True}, {"send_only": True, "from_": "oldest"},
            {"grow": 4096}, {"dead": ""}, {"capacity": 1 << 70},
        ):  # fmt: skip
            with self.assertRaises(ValueError, msg=str(options)):
                xidata.channel(name(), **options)
        for options in ({"values": "many"}, {"from_": 1.5}, {"ttl": "long"}, {"group": 5}, {"no_such_option": 1}):
            with self.assertRaises(TypeError, msg=str(options)):
                xidata.channel(name(), **options)

    def test_what_was_given_is_kept(self):
        channel = xidata.channel(name(), capacity=8192, grow=1 << 20, retain=5, values=1000, ttl=60.0, when_full="fail")
        info = xidata.channel(channel.name).stat()
        self.assertEqual((info.capacity, info.grow, info.retain), (8192, 1 << 20, 5))
        self.assertEqual((info.producers, info.consumers, info.handles), (2, 2, 2))

    def test_fail_when_full(self):
        channel = xidata.channel(name(), capacity=4096, when_full="fail")
        with self.assertRaises(xidata.Full):
            for i in range(1000):
                channel.send(i)
        start = time.monotonic()
        with self.assertRaises(xidata.Full):
            channel.send(1, timeout=SOON)
        with self.assertRaises(xidata.Full):
            channel.send_many([1, 2], timeout=SOON)
        self.assertLess(time.monotonic() - start, SOON / 2)
        self.assertEqual(channel.recv(0), 0)

    def test_the_oldest_make_room(self):
        latest = xidata.channel(name(), values=1, when_full="drop")
        for i in range(5000):
            latest.send(i, timeout=0)
        self.assertEqual((latest.recv(0), latest.try_recv(None)), (4999, None))
        self.assertEqual(latest.stat().dropped, 4999)

    def test_so_many_values(self):
        channel = xidata.channel(name(), values=3)
        self.assertEqual(channel.send_many(range(10), timeout=0), 3)
        with self.assertRaises(xidata.Full):
            channel.send(1, 0)
        self.assertEqual(channel.recv(0), 0)
        channel.send(3, SOON)
        self.assertEqual(channel.recv_many(9, 0), [1, 2, 3])

    def test_growing(self):
        channel = xidata.channel(name(), capacity=4096, grow=4 << 20)
        self.assertEqual(channel.send_many(range(50000), timeout=SOON), 50000)
        self.assertGreater(channel.stat().capacity, 4096)
        back = []
        while len(back) < 50000:
            back += channel.recv_many(256, SOON)
        self.assertEqual(back, list(range(50000)))

    def test_time_to_live(self):
        channel = xidata.channel(name(), ttl=0.05)
        channel.send("old")
        channel.send(b"old" * 5000)
        channel.send("kept", ttl=math.inf)
        channel.send("long", ttl=60)
        time.sleep(0.06)  # the time to live is what is tested
        self.assertEqual(channel.recv_many(4, SOON), ["kept", "long"])
        self.assertEqual(channel.stat().expired, 2)
        plain = xidata.channel(name())
        plain.send(1, ttl=0.01)
        plain.send(2, 1.0, ttl=None)
        time.sleep(0.02)  # here as well
        self.assertEqual(plain.recv(0), 2)
        for ttl in (0, -1, math.nan):
            with self.assertRaises(ValueError):
                plain.send(1, ttl=ttl)


class Groups(TestCase):
    def test_another_handle_for_a_group(self):
        channel = xidata.channel(name(), zero_copy=True)
        audit = channel.group("audit")
        self.assertEqual((audit.name, audit.group_name, channel.group_name), (channel.name, "audit", None))
        channel.send("both")
        self.assertEqual((channel.recv(0), audit.recv(0)), ("both", "both"))
        channel.send(b"x" * 5000)
        self.assertEqual([type(c.recv(0)) for c in (channel, audit)], [memoryview] * 2)
        again = channel.group("audit", zero_copy=False)
        channel.send_many([1, 2])
        self.assertEqual((audit.recv(0), again.recv(0)), (1, 2))
        with self.assertRaises(xidata.Empty):
            again.recv(0)

    def test_of_a_handle_that_only_sends(self):
        sender = xidata.channel(name(), send_only=True)
        self.assertEqual([g.name for g in sender.groups()], [""])  # a queue keeps what nobody receives yet
        group = sender.group("g")
        sender.send(1)
        self.assertEqual(group.recv(0), 1)
        with self.assertRaises(ValueError):
            group.send(1)
        sender.free()
        with self.assertRaises(xidata.Left):
            sender.group("h")

    def test_listing(self):
        channel = xidata.channel(name())
        one = channel.group("one")
        channel.send_many([1, 2, 3])
        one.recv(0)
        groups = {g.name: g for g in channel.groups()}
        self.assertEqual(sorted(groups), ["", "one"])
        self.assertEqual((groups["one"].received, groups["one"].depth, groups[""].depth), (1, 2, 3))
        self.assertFalse(groups["one"].ack)
        self.assertEqual(groups["one"].owner, 0)

    def test_removing_one(self):
        channel = xidata.channel(name())
        one = channel.group("one")
        channel.send(1)
        raised = []

        def wait():
            try:
                while True:
                    one.recv()
            except xidata.Error as error:
                raised.append(type(error))

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: channel.stat().waiting, "the receiver to sleep")
        channel.remove_group("one")
        thread.join(SOON)
        self.assertEqual(raised, [xidata.Left])
        self.assertEqual([g.name for g in channel.groups()], [""])
        for bad in ("one", "never"):
            with self.assertRaises(xidata.NotFound):
                channel.remove_group(bad)
        with self.assertRaises(ValueError):
            channel.remove_group("a\0b")


class History(TestCase):
    def test_who_joins_late(self):
        channel = xidata.channel(name(), mode="broadcast", retain=10, send_only=True)
        channel.send_many(range(5))
        channel.send(b"x" * 50000)
        late = {
            "oldest": xidata.channel(channel.name, from_="oldest"),
            "last": xidata.channel(channel.name, from_=2),
            "none": xidata.channel(channel.name, from_=0),
            "tail": xidata.channel(channel.name),
        }
        channel.send("new")
        got = {how: handle.recv_many(100, 0) for how, handle in late.items()}
        everything = list(range(5)) + [b"x" * 50000, "new"]
        self.assertEqual(got, {"oldest": everything, "last": everything[4:], "none": ["new"], "tail": ["new"]})

    def test_no_more_than_was_asked_for(self):
        channel = xidata.channel(name(), retain=3)
        channel.send_many(range(100))
        self.assertEqual(len(channel.recv_many(256, 0)), 100)
        self.assertEqual(channel.group("late", from_="oldest").recv_many(256, 0), [97, 98, 99])

    def test_of_a_queue(self):
        channel = xidata.channel(name())
        channel.send_many("abc")
        self.assertEqual(channel.group("late", from_="oldest").recv_many(9, 0), ["a", "b", "c"])
        self.assertEqual(channel.group("last", from_=1).recv_many(9, 0), ["c"])
        self.assertEqual(channel.recv_many(9, 0), ["a", "b", "c"])


class Ends(TestCase):
    def test_remove(self):
        channel = xidata.channel(name())
        channel.send(1)
        xidata.remove(channel.name)
        for call in (lambda: channel.recv(0), lambda: channel.send(1), lambda: channel.recv_many(3, 0)):
            with self.assertRaises(xidata.ChannelRemoved):
                call()
        with self.assertRaises(xidata.NotFound):
            xidata.remove(channel.name)
        with self.assertRaises(xidata.NotFound):
            xidata.current().remove(name())
        again = xidata.channel(channel.name)
        again.send(2)
        self.assertEqual(again.recv(0), 2)
        for bad in ("a\0b", ""):
            with self.assertRaises(ValueError):
                xidata.remove(bad)
        with self.assertRaises(TypeError):
            xidata.remove(5)

    def test_no_producer(self):
        receiver = xidata.channel(name(), recv_only=True, need_peer=True)
        code = "import sys, xidata; xidata.channel(sys.argv[1], send_only=True).send(1)"
        with self.assertRaises(xidata.NoProducer):
            receiver.recv()
        sender = xidata.channel(receiver.name, send_only=True)
        child = self.child(code, receiver.name)
        self.assertEqual(receiver.recv(SOON), 1)
        self.finished(child)
        timer = threading.Timer(0.1, sender.free)
        timer.start()
        with self.assertRaises(xidata.NoProducer):
            receiver.recv(SOON)
        timer.join()

    def test_no_consumer(self):
        receiver = xidata.channel(name(), recv_only=True, capacity=4096)
        sender = xidata.channel(receiver.name, send_only=True, need_peer=True)
        sender.send(1)
        receiver.free()
        with self.assertRaises(xidata.NoConsumer):
            while True:
                sender.send(2, SOON)

    def test_errors_are_errors(self):
        for error in (xidata.ChannelRemoved, xidata.NoProducer, xidata.NoConsumer, xidata.ServerDied, xidata.Stale):
            self.assertTrue(issubclass(error, xidata.Error))
            self.assertLess(error.code, 0)
        self.assertEqual(len({e.code for e in vars(xidata).values() if isinstance(e, type) and issubclass(e, xidata.Error)
                              and e.code}), 27 - 1)  # each its own; that of signals is none


if __name__ == "__main__":
    main()
