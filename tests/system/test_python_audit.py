# SPDX-License-Identifier: MIT
"""Audit events (PEP 578): which are raised, with what, and that a hook which raises keeps the thing from being done."""

import os
import pickle
import subprocess
import sys
import unittest

from pyhelp import TestCase, main, name, xidata

NS = os.environ["XI_NAMESPACE"]

seen = []
refuse = None  # the event that the hook refuses


class Refused(Exception):
    pass


def hook(event, args):
    if event.startswith("xidata."):
        seen.append((event, args))
        if event == refuse:
            raise Refused(event)


class Pickled:
    """Has no native form."""

    def __eq__(self, other):
        return type(other) is Pickled


class Audit(TestCase):
    def setUp(self):
        global refuse
        super().setUp()
        refuse = None
        self.name = name()
        self.channel = xidata.channel(self.name)
        seen.clear()

    def tearDown(self):
        global refuse
        refuse = None
        super().tearDown()

    def expect(self, *events):
        self.assertEqual(seen, [(event, (NS, self.name)) for event in events])
        seen.clear()

    def refusing(self, event, call, *args, **kwargs):
        global refuse
        refuse = event
        with self.assertRaises(Refused):
            call(*args, **kwargs)
        refuse = None
        seen.clear()

    def test_transfers(self):
        self.channel.send(1)
        self.channel.send({"a": 2}, timeout=1)
        self.channel.try_send(3)
        self.channel.send_many([4, 5])
        self.expect(*["xidata.send"] * 4)
        self.channel.recv()
        self.channel.try_recv()
        next(self.channel)
        self.channel.recv_many(2)
        self.expect(*["xidata.receive"] * 4)

    def test_refused_is_not_done(self):
        self.refusing("xidata.send", self.channel.send, 1)
        self.refusing("xidata.send", self.channel.send_many, [1])
        self.assertEqual(self.channel.stat().sent, 0)
        self.channel.send("kept")
        self.refusing("xidata.receive", self.channel.recv)
        self.refusing("xidata.receive", next, self.channel)
        self.refusing("xidata.receive", self.channel.recv_many, 1)
        self.assertEqual(self.channel.recv(timeout=0), "kept")

    def test_pickles(self):
        self.channel.send([Pickled()])
        seen.clear()
        self.assertEqual(self.channel.recv(), [Pickled()])
        self.expect("xidata.receive", "xidata.unpickle")
        self.channel.send(Pickled())
        global refuse
        refuse = "xidata.unpickle"
        loads = pickle.loads
        with self.assertRaises(xidata.DecodeError) as caught:
            self.channel.recv()
        self.assertIsInstance(caught.exception.__cause__, Refused)
        self.assertIs(pickle.loads, loads)

    def test_open_and_remove(self):
        other = xidata.channel(self.name)
        self.expect("xidata.open")
        other.group("audit")
        self.expect("xidata.open")
        self.refusing("xidata.open", xidata.channel, self.name)
        self.refusing("xidata.remove", xidata.remove, self.name)
        self.channel.send("still there")
        self.assertEqual(self.channel.recv(timeout=0), "still there")
        seen.clear()
        xidata.remove(self.name)
        self.expect("xidata.remove")

    def test_calls(self):
        import threading

        server = threading.Thread(target=lambda: self.channel.recv(timeout=10).reply(2))
        server.start()
        self.assertEqual(xidata.channel(self.name, send_only=True).call(1, timeout=10), 2)
        server.join()
        events = sorted(event for event, _ in seen)
        self.assertEqual(events, ["xidata.call", "xidata.open", "xidata.receive", "xidata.reply"])

    def test_settling(self):
        acked = self.channel.group("g", from_="oldest", ack=True)
        self.channel.send(1)
        delivery = acked.recv(timeout=10)
        seen.clear()
        self.refusing("xidata.settle", delivery.ack)
        self.assertFalse(delivery.settled)
        delivery.ack()
        self.expect("xidata.settle")

    def test_join_and_leave(self):
        me = xidata.join(name="audited")
        self.assertEqual(seen, [("xidata.join", (NS, "audited"))])
        seen.clear()
        number = me.id
        me.leave()
        me.leave()
        self.assertEqual(seen, [("xidata.leave", (NS, number))])
        self.refusing("xidata.join", xidata.join)

    def test_spawn(self):
        from xidata import interpreters

        interp = interpreters.create()
        self.assertIn(("xidata.spawn", (NS,)), seen)
        interp.close()
        before = len(interpreters.list_all())
        self.refusing("xidata.spawn", interpreters.create)
        self.assertEqual(len(interpreters.list_all()), before)

    def test_in_a_program(self):
        """A hook that was there before the module."""
        code = ("import sys\nsys.addaudithook(lambda e, a: e[:7] == 'xidata.' and print(e[7:], *a[1:]))\n"
                "import xidata\nc = xidata.channel('p')\nc.send(1)\nc.recv()\n")
        out = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout
        self.assertRegex(out, r"\Ajoin \nopen p\nsend p\nreceive p\nleave \d+\n\Z")


if __name__ == "__main__":
    xidata.join()
    sys.addaudithook(hook)
    main()
