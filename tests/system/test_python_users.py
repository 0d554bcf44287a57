# SPDX-License-Identifier: MIT
"""Channels that other users may open: pickles are neither sent nor loaded there unless asked for."""

import os
import pickle  # noqa: F401 (a child of another user may not be able to read where it lies)
import shutil
import subprocess
import tempfile
import unittest
from collections import OrderedDict

from pyhelp import TestCase, main, name, xidata

OTHER = 61002
ROOT = os.geteuid() == 0
PLACE = tempfile.mkdtemp(prefix="xi-users.")
os.chmod(PLACE, 0o1777)
os.environ["XI_OPEN_DIR"] = PLACE

RAN = os.path.join(PLACE, "ran")


class Bomb:
    """Whoever loads its pickle makes a folder."""

    def __reduce__(self):
        return os.mkdir, (RAN,)


def start_broker(ns):
    ready, told = os.pipe()
    broker = subprocess.Popen(
        [os.environ["XI_BROKER"], "-n", ns, "--open-to", "#%d" % OTHER, "--ready-fd", str(told)], pass_fds=[told]
    )
    os.close(told)
    with os.fdopen(ready) as answer:
        said = answer.read().strip()
    assert said == "ready", said
    return broker


def as_other(body):
    """Runs it in a child of another user; the child's exception, as text, or None."""
    get, put = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(get)
            os.setgroups([])
            os.setresgid(OTHER, OTHER, OTHER)
            os.setresuid(OTHER, OTHER, OTHER)
            os.environ["XI_RUNTIME_DIR"] = os.path.join(PLACE, "run-other")
            body()
            status = 0
        except BaseException as error:
            os.write(put, ("%s: %s" % (type(error).__name__, error)).encode())
        finally:
            os._exit(status)
    os.close(put)
    with os.fdopen(get) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said or None


class Users(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ns = "%s.open" % os.environ["XI_NAMESPACE"]
        cls.broker = start_broker(cls.ns)

    @classmethod
    def tearDownClass(cls):
        cls.broker.terminate()
        assert cls.broker.wait(20) == 0
        shutil.rmtree(PLACE)

    def setUp(self):
        super().setUp()
        self.me = xidata.join(self.ns)

    def tearDown(self):
        self.me.leave()
        super().tearDown()

    def test_shared(self):
        with self.me.channel(name(), access="%d:r" % OTHER) as ch:
            self.assertTrue(ch.shared)
            info = ch.stat()
            self.assertEqual((info.owner, info.access, info.shared), (os.getuid(), "%d:r" % OTHER, True))
            listed = [c for c in xidata.channels(self.ns) if c.name == ch.name]
            self.assertEqual([(c.access, c.shared) for c in listed], [("%d:r" % OTHER, True)])
        with self.me.channel(name()) as ch:
            self.assertFalse(ch.shared)
            self.assertEqual(ch.stat().access, "")

    def test_pickles_are_refused_where_others_may_open(self):
        with self.me.channel(name(), access="%d:rw" % OTHER) as ch:
            with self.assertRaisesRegex(ValueError, "other users"):
                ch.send(OrderedDict(a=1))
            ch.send({"a": [1, 2.5, "three", b"4"]})  # what has a native form goes as ever
            self.assertEqual(ch.recv(timeout=5), {"a": [1, 2.5, "three", b"4"]})
            with self.me.channel(ch.name, pickle="allow") as trusting:
                trusting.send(Bomb())
                with self.assertRaisesRegex(xidata.DecodeError, "other users") as caught:
                    ch.recv(timeout=5)
                self.assertIsInstance(caught.exception.__cause__, xidata.AccessDenied)
                self.assertFalse(os.path.exists(RAN))
                trusting.send(OrderedDict(a=1))
                self.assertEqual(trusting.recv(timeout=5), OrderedDict(a=1))

    def test_pickles_go_where_nobody_else_may(self):
        with self.me.channel(name()) as ch:
            ch.send(OrderedDict(a=1))
            self.assertEqual(ch.recv(timeout=5), OrderedDict(a=1))
        with self.me.channel(name(), pickle="refuse") as ch:
            with self.assertRaisesRegex(ValueError, "refuses pickles"):
                ch.send(OrderedDict(a=1))

    def test_wrong_lists(self):
        for wrong in ("", "7", "7:x", "7:r,"):
            with self.assertRaises(xidata.Error, msg=wrong):
                self.me.channel(name(), access=wrong)
        with self.assertRaises(xidata.NotFound):
            self.me.channel(name(), access="no-such-user-here:r")
        with self.assertRaises(ValueError):
            self.me.channel(name(), pickle="maybe")

    @unittest.skipUnless(ROOT, "only root can make a process of another user")
    def test_another_user(self):
        mine = "%d/%s" % (os.getuid(), self.ns)
        given, private = name(), name()
        with self.me.channel(given, access="%d:w" % OTHER, recv_only=True) as ch, self.me.channel(private):

            def sends():
                with xidata.join(mine) as me:
                    assert me.namespace == mine, me.namespace
                    out = me.channel(given, send_only=True, pickle="allow", existing=True)
                    out.send(Bomb())
                    out.send([1, 2])
                    assert out.shared
                    try:
                        me.channel(private, existing=True)
                    except xidata.AccessDenied:
                        return
                    raise AssertionError("opened a private channel")

            self.assertIsNone(as_other(sends))
            with self.assertRaisesRegex(xidata.DecodeError, "other users"):
                ch.recv(timeout=5)
            self.assertFalse(os.path.exists(RAN))
            self.assertEqual(ch.recv(timeout=5), [1, 2])

    @unittest.skipUnless(ROOT, "only root can make a process of another user")
    def test_a_child_of_another_user_opens_nothing_new(self):
        with self.me.channel(name()) as ch:

            def opens_again():
                ch.send(1)  # in a child the handle opens itself again, as whoever that is

            self.assertIn("AccessDenied", as_other(opens_again) or "nothing")


if __name__ == "__main__":
    main()
