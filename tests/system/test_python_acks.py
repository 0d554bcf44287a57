# SPDX-License-Identifier: MIT
"""Groups that acknowledge, from Python: deliveries, what gives them back, dead letters, and memory that views keep."""

import gc
import os
import signal
import sys
import threading
import time
import unittest
import weakref

from pyhelp import SOON, TestCase, Trouble, main, name, numpy, until, xidata

BIG = 200000


class Base(TestCase):
    def setUp(self):
        super().setUp()
        self.sender = xidata.channel(name("ack"), send_only=True)
        self.channel = xidata.channel(self.sender.name, recv_only=True, ack=True)

    def tearDown(self):
        self.channel.free()
        self.sender.free()
        super().tearDown()

    def info(self):
        return self.sender.groups()[0]


class Acks(Base):
    def test_ack(self):
        self.sender.send_many(["a", "b"])
        one, two = self.channel.recv(0), self.channel.recv(0)
        self.assertIs(type(one), xidata.Delivery)
        self.assertEqual((one.value, one.count, one.settled, one.channel), ("a", 1, False, self.channel))
        self.assertEqual(self.info().unacked, 2)
        self.assertIsNone(one.ack())
        two.ack()
        self.assertTrue(one.settled)
        self.assertEqual(one.value, "a")
        for call in (one.ack, one.nack, one.extend):
            with self.assertRaises(xidata.Stale):
                call()
        info = self.info()
        self.assertEqual((info.ack, info.unacked, info.acked, info.redelivered), (True, 0, 2, 0))
        self.assertIn("settled", repr(one))

    def test_every_way_to_receive(self):
        self.sender.send_many(range(6))
        got = [self.channel.recv(), self.channel.try_recv()] + self.channel.recv_many(3) + [next(self.channel)]
        self.assertEqual([d.value for d in got], list(range(6)))
        for delivery in got:
            delivery.ack()
        self.assertEqual(self.channel.try_recv("none"), "none")

    def test_nack(self):
        self.sender.send_many([1, 2])
        one = self.channel.recv(0)
        one.nack()
        again = self.channel.recv(0)
        self.assertEqual((again.value, again.count), (1, 2))
        again.nack(delay=0.1)
        self.assertEqual(self.channel.recv(0).value, 2)
        again = self.channel.recv(SOON)
        start = time.monotonic()
        while again.value != 1:
            again = self.channel.recv(SOON)
        self.assertEqual(again.count, 3)
        again.ack()
        for delay in (-1, float("nan"), float("inf")):
            with self.assertRaises(ValueError):
                again.nack(delay)
        for call in (lambda: again.nack("x"), lambda: again.nack(1, 2), lambda: again.ack(1), lambda: again.nack(x=1)):
            with self.assertRaises(TypeError):
                call()

    def test_dropped(self):
        self.sender.send("again")
        self.assertEqual(self.channel.recv(0).value, "again")
        delivery = self.channel.recv(0)
        self.assertEqual(delivery.count, 2)
        del delivery
        self.channel.recv(0).ack()
        self.assertEqual((self.info().unacked, self.info().acked), (0, 1))

    def test_context(self):
        self.sender.send_many([1, 2, 3])
        with self.channel.recv(0) as delivery:
            self.assertEqual(delivery.value, 1)
        self.assertTrue(delivery.settled)
        with self.assertRaises(ZeroDivisionError):
            with self.channel.recv(0) as delivery:
                1 / 0
        self.assertTrue(delivery.settled)
        with self.channel.recv(0) as delivery:
            self.assertEqual((delivery.value, delivery.count), (2, 2))
        with self.channel.recv(0) as delivery:
            delivery.nack() # by hand is as good
        with self.channel.recv(0) as delivery:
            self.assertEqual((delivery.value, delivery.count), (3, 2))
        self.assertEqual((self.info().acked, self.info().redelivered), (3, 2))

    def test_overdue(self):
        fast = xidata.channel(self.sender.name + ".t", recv_only=True, ack=True, ack_timeout=0.1)
        sender = xidata.channel(fast.name, send_only=True)
        sender.send("x")
        one = fast.recv(0)
        two = fast.recv(SOON)
        self.assertEqual((two.value, two.count), ("x", 2))
        with self.assertRaises(xidata.Stale):
            one.ack()
        self.assertTrue(one.settled)
        two.extend(60)
        with self.assertRaises(xidata.Timeout):
            fast.recv(0.2)
        two.extend()
        for seconds in (0, -1):
            with self.assertRaises(ValueError):
                two.extend(seconds)
        two.ack()
        with self.assertRaises(KeyError): # what went wrong in the block matters, not that another has it
            with_overdue = (sender.send("y"), fast.recv(0))[1]
            again = fast.recv(SOON)
            with with_overdue:
                raise KeyError
        again.ack()

    def test_death_of_a_consumer(self):
        code = """
import signal, sys, xidata
ch = xidata.channel(sys.argv[1], recv_only=True, ack=True)
held = [ch.recv(), ch.recv()]
print("holds", held[0].value, flush=True)
signal.pause()
"""
        self.sender.send_many(["a", "b", "c"])
        child = self.child(code, self.sender.name, stdout=-1, text=True)
        self.assertEqual(child.stdout.readline(), "holds a\n")
        with self.channel.recv(SOON) as delivery:
            self.assertEqual((delivery.value, delivery.count), ("c", 1))
        child.kill()
        for value in ("a", "b"):
            with self.channel.recv(SOON) as delivery:
                self.assertEqual((delivery.value, delivery.count), (value, 2))
        self.assertEqual(self.info().acked, 3)

    def test_freed_and_left(self):
        self.sender.send_many([1, 2])
        delivery = self.channel.recv(0)
        self.channel.free()
        with self.assertRaises(xidata.Left):
            delivery.ack()
        with xidata.channel(self.sender.name, recv_only=True, ack=True) as other:
            again = other.recv(SOON)
            self.assertEqual((again.value, again.count), (1, 2))
            again.ack()
        me = xidata.join(name="leaves")
        third = me.channel(self.sender.name, recv_only=True, ack=True)
        delivery = third.recv(0)
        me.leave()
        with self.assertRaises(xidata.Left):
            delivery.ack()
        del delivery
        self.channel = xidata.channel(self.sender.name, recv_only=True, ack=True)
        self.channel.recv(SOON).ack()

    def test_dead_letters(self):
        options = dict(recv_only=True, ack=True, max_deliveries=2, dead_letters=self.sender.name + ".dead")
        channel = xidata.channel(self.sender.name + ".m", **options)
        dead = xidata.channel(self.sender.name + ".dead")
        sender = xidata.channel(channel.name, send_only=True)
        for value in ({"job": 1}, b"x" * BIG):
            sender.send(value)
            channel.recv(0).nack()
            channel.recv(0).nack()
            with self.assertRaises(xidata.Empty):
                channel.recv(0)
            letter = dead.recv(SOON)
            self.assertEqual(letter["value"], value)
            self.assertEqual((letter["channel"], letter["deliveries"]), (channel.name, 2))
        self.assertEqual(sender.groups()[0].dead, 2)

    def test_mismatch(self):
        with self.assertRaises(xidata.Mismatch):
            xidata.channel(self.sender.name)
        plain = xidata.channel(name())
        with self.assertRaises(xidata.Mismatch):
            xidata.channel(plain.name, ack=True)

    def test_a_named_group(self):
        plain = xidata.channel(name())
        audit = plain.group("audit", ack=True, max_deliveries=5, window=64, ack_timeout=30)
        plain.send("x")
        self.assertEqual(plain.recv(0), "x")
        with audit.recv(0) as delivery:
            self.assertEqual(delivery.value, "x")
        self.assertEqual({g.name: g.ack for g in plain.groups()}, {"": False, "audit": True})

    def test_window(self):
        few = xidata.channel(self.sender.name + ".w", recv_only=True, ack=True, window=4)
        sender = xidata.channel(few.name, send_only=True)
        sender.send_many(range(10))
        held = few.recv_many(10, 0)
        self.assertEqual([d.value for d in held], [0, 1, 2, 3])
        with self.assertRaises(xidata.Empty):
            few.recv(0)
        threading.Timer(0.05, held[0].ack).start()
        self.assertEqual(few.recv(SOON).value, 4)

    def test_threads_share_a_handle(self):
        total, done, lock = 4000, [], threading.Lock()

        def work():
            for delivery in self.channel:
                if delivery.count == 1 and delivery.value % 7 == 0:
                    delivery.nack()
                    continue
                with lock:
                    done.append(delivery.value)
                delivery.ack()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        self.sender.send_many(range(total))
        until(lambda: self.info().acked == total, "all to be acknowledged")
        self.sender.close()
        for thread in threads:
            thread.join(SOON)
        self.assertEqual(sorted(done), list(range(total)))
        self.assertGreaterEqual(self.info().redelivered, total // 7)


class Decoding(Base):
    """What cannot be decoded is still a delivery."""

    def test_the_error_comes_with_the_value(self):
        self.sender.send(Trouble())
        Trouble.raises = ZeroDivisionError("oh")
        delivery = self.channel.recv(0)
        for _ in range(2):
            with self.assertRaises(xidata.DecodeError) as caught:
                delivery.value
            self.assertIsInstance(caught.exception.__cause__, ZeroDivisionError)
            self.assertNotIn("lost", str(caught.exception))
        delivery.nack()
        with self.channel.recv(0) as again:
            self.assertEqual((again.value, again.count), ("no trouble", 2))

    def test_interrupt_loses_nothing(self):
        for receive in (lambda: [self.channel.recv(0)], lambda: self.channel.recv_many(10, 0)):
            self.sender.send_many([1, Trouble(), 3])
            Trouble.raises = KeyboardInterrupt()
            got = []
            with self.assertRaises(KeyboardInterrupt):
                while True:
                    got += receive()
            while len(got) < 3:
                got += receive()
            self.assertEqual([(d.value, d.count) for d in got], [(1, 1), ("no trouble", 1), (3, 1)])
            for delivery in got:
                delivery.ack()
        self.assertEqual(self.info().unacked, 0)


class Memory(TestCase):
    def setUp(self):
        super().setUp()
        self.sender = xidata.channel(name("mem"), send_only=True)
        self.channel = xidata.channel(self.sender.name, recv_only=True, ack=True, zero_copy=True)

    def tearDown(self):
        self.channel.free()
        self.sender.free()
        super().tearDown()

    def blocks(self):
        for _ in range(50):
            xidata.buffer(1).release()
        return self.stats()["blocks"]

    def test_views_outlive_the_acknowledgement(self):
        before = self.blocks()
        for settle in (lambda d: d.ack(), lambda d: d.nack(), lambda d: None):
            self.sender.send(b"v" * BIG)
            delivery = self.channel.recv(0)
            view = delivery.value
            settle(delivery)
            del delivery
            gc.collect()
            if self.channel.stat().depth or self.sender.groups()[0].unacked:
                again = self.channel.recv(SOON)
                self.assertEqual(again.count, 2)
                again.ack()
                del again
            for i in range(8): # others come and go in the same memory
                self.sender.send(b"%d" % i * BIG)
                self.channel.recv(0).ack()
            self.assertEqual(bytes(view[:5]) + bytes(view[-5:]), b"v" * 10)
            self.assertEqual(len(view), BIG)
            del view
        self.assertEqual(self.blocks(), before)
        self.assertEqual(self.stats()["borrows"], 0)

    @unittest.skipUnless(numpy, "no numpy")
    def test_arrays_outlive_it(self):
        array = numpy.arange(BIG, dtype="i4")
        self.sender.send({"array": array})
        with self.channel.recv(0) as delivery:
            back = delivery.value["array"]
        del delivery
        gc.collect()
        self.sender.send(b"z" * BIG * 4)
        self.channel.recv(0).ack()
        self.assertTrue((back == array).all())

    def test_free_callbacks_wait_for_the_acknowledgement(self):
        freed = []
        self.sender.send("small", on_free=lambda: freed.append(1))
        delivery = self.channel.recv(0)
        xidata.run_free()
        self.assertEqual(freed, [])
        delivery.nack()
        delivery = self.channel.recv(0)
        xidata.run_free()
        self.assertEqual(freed, [])
        delivery.ack()
        until(lambda: xidata.run_free() or freed, "the callback")
        self.assertEqual(freed, [1])

    def test_cycles(self):
        self.sender.send([1])
        delivery = self.channel.recv(0)
        delivery.value.append(delivery)
        gone = weakref.ref(self.channel)
        del delivery
        gc.collect()
        self.assertEqual(self.channel.recv(0).count, 2)
        self.assertIsNotNone(gone())

    def test_nothing_leaks(self):
        def turn():
            for _ in range(300):
                self.sender.send((1, "text", b"x" * 6000))
                self.channel.recv(0).nack()
                delivery = self.channel.recv(0)
                view = delivery.value[2]
                delivery.ack()
                del view
                self.sender.send(2)
                self.channel.recv(0)
                with self.channel.recv(0):
                    pass

        turn()
        gc.collect()
        before, blocks = sys.getallocatedblocks(), self.blocks()
        turn()
        gc.collect()
        self.assertLess(sys.getallocatedblocks() - before, 200)
        self.assertEqual(self.blocks(), blocks)
        self.assertEqual(self.stats()["borrows"], 0)

    def test_forked_child(self):
        self.sender.send("parent's")
        delivery = self.channel.recv(0)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                try:
                    delivery.ack()
                except xidata.Forked:
                    del delivery
                    status = 0
            finally:
                xidata.leave()
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        delivery.ack()
        self.assertEqual(self.sender.groups()[0].acked, 1)


if __name__ == "__main__":
    main()
