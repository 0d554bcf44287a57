# SPDX-License-Identifier: MIT
"""What xidata warns of, when, and that the filters of the module `warnings` decide what becomes of it."""

import subprocess
import sys
import threading
import unittest
import warnings

from pyhelp import TestCase, main, name, numpy, xidata


class Warnings(TestCase):
    def caught(self, category):
        """The warnings of what is done in the with block."""
        recorder = warnings.catch_warnings(record=True)
        found = recorder.__enter__()
        self.addCleanup(recorder.__exit__, None, None, None)
        warnings.simplefilter("always", category)
        return found

    def test_categories(self):
        for category in (xidata.SlowConsumerWarning, xidata.BacklogWarning, xidata.UnsentLoanWarning):
            self.assertTrue(issubclass(category, xidata.Warning) and issubclass(category, ResourceWarning))

    def test_slow_consumer(self):
        channel = xidata.channel(name(), capacity=4096, send_only=True)
        channel.send_many(range(10000), timeout=0)
        found = self.caught(xidata.Warning)
        for what in (1, "text"):
            with self.assertRaises(xidata.Timeout):
                channel.send(what, timeout=1.2)
        with self.assertRaises(xidata.Timeout):
            channel.send_many([1], timeout=0.2)  # not for so long
        self.assertEqual([w.category for w in found], [xidata.SlowConsumerWarning] * 2)
        self.assertRegex(str(found[0].message), "%s.*255 values.* 0 handles" % channel.name)
        self.assertEqual(found[0].filename, __file__)

    def test_slow_consumer_as_an_error(self):
        channel = xidata.channel(name(), capacity=4096)
        n = channel.send_many(range(10000), timeout=0)
        with warnings.catch_warnings():
            warnings.simplefilter("error", xidata.SlowConsumerWarning)
            with self.assertRaises(xidata.SlowConsumerWarning):
                channel.send(1)
        self.assertEqual(channel.stat().sent, n)
        self.assertEqual(len(channel.recv_many(n)), min(n, 256))

    def test_receivers_wait_in_silence(self):
        channel = xidata.channel(name())
        found = self.caught(xidata.Warning)
        with self.assertRaises(xidata.Timeout):
            channel.recv(timeout=1.2)
        self.assertEqual(found, [])

    def test_backlog(self):
        named = [name() for _ in range(3)]
        other = xidata.channel(named[1])  # of the current interpreter
        me = xidata.join()
        channels = [me.channel(n) for n in named]
        channels[0].send_many([1, 2])
        channels[1].send("somebody has it open")
        channels[2].send("received")
        channels[2].recv()
        found = self.caught(xidata.Warning)
        me.leave()
        me.leave()
        text, = [str(w.message) for w in found if w.category is xidata.BacklogWarning]
        self.assertIn("2 values wait in channel '%s'" % named[0], text)
        self.assertEqual(other.recv(timeout=0), "somebody has it open")

    def test_loans(self):
        found = self.caught(xidata.Warning)
        channel = xidata.channel(name())
        channel.send(xidata.buffer(10))
        xidata.buffer(20).release()
        with xidata.buffer(30):
            pass
        if numpy:
            xidata.zeros(100)  # arrays come and go
        self.assertEqual(found, [])
        xidata.buffer(40)
        self.assertEqual([w.category for w in found], [xidata.UnsentLoanWarning])
        self.assertIn("40 bytes", str(found[0].message))

    def test_while_another_exception_is_set(self):
        found = self.caught(xidata.Warning)

        def drop():
            loan = xidata.buffer(50)
            raise KeyError(len(loan))

        try:
            drop()
        except KeyError as error:
            self.assertEqual(error.args, (50,))
            error.__traceback__ = None
        self.assertEqual(len(found), 1)

    def test_threads_go_on(self):
        """The warning of one sender does not keep the receiver from what it waits for."""
        channel = xidata.channel(name(), capacity=4096)
        n = channel.send_many(range(10000), timeout=0)
        warned = threading.Event()
        got = []

        def drain():
            warned.wait(20)
            got.extend(channel.recv() for _ in range(n + 1))

        found = self.caught(xidata.Warning)
        shown = warnings.showwarning
        warnings.showwarning = lambda *args, **kwargs: warned.set()
        thread = threading.Thread(target=drain)
        try:
            thread.start()
            channel.send("last", timeout=20)
        finally:
            warnings.showwarning = shown
            thread.join()
        self.assertEqual(got, list(range(n)) + ["last"])
        self.assertEqual(found, [])

    def test_silent_unless_asked(self):
        code = "import xidata; c = xidata.channel('%s'); c.send(1); xidata.buffer(1)" % name()
        for options, kinds in (([], []), (["-W", "default::ResourceWarning"], ["Backlog", "UnsentLoan"])):
            done = subprocess.run([sys.executable, *options, "-c", code], stderr=subprocess.PIPE, text=True, timeout=60)
            self.assertEqual(done.returncode, 0)
            self.assertEqual([k for k in ("Backlog", "UnsentLoan") if k + "Warning:" in done.stderr], kinds, done.stderr)


if __name__ == "__main__":
    main(each_version=False)
