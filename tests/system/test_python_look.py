# SPDX-License-Identifier: MIT
"""Looking around: xidata.namespaces(), xidata.stats(), and `python -m xidata`, for people and as JSON."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
import unittest

from pyhelp import TestCase, main, name, xidata

NS = os.environ["XI_NAMESPACE"]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def look(*args, status=0):
    done = subprocess.run([sys.executable, "-m", "xidata", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=60)
    if done.returncode != status:
        raise AssertionError("status %d: %s%s" % (done.returncode, done.stdout, done.stderr))
    return done.stdout + done.stderr


class Look(TestCase):
    def setUp(self):
        super().setUp()
        self.name = name()
        self.channel = xidata.channel(self.name)
        self.channel.send_many(range(3))
        self.channel.recv()

    def test_namespaces(self):
        self.assertIn(NS, xidata.namespaces())
        self.assertEqual(xidata.namespaces(), sorted(xidata.namespaces()))
        self.assertNotIn(NS + ".not", xidata.namespaces())

    def test_sealed_namespace(self):
        """One without names in /dev/shm is found by its socket."""
        ns = NS + ".sealed"
        said, ready = os.pipe()
        broker = subprocess.Popen([os.environ["XI_BROKER"], "--memfd", "-n", ns, "--ready-fd", str(ready)], pass_fds=[ready],
                                  stderr=subprocess.PIPE)
        os.close(ready)
        with open(said, "rb") as answer:
            self.assertEqual(answer.read(5), b"ready")
        self.children.append(broker)
        code = "import sys, xidata; xidata.join(sys.argv[1]); assert sys.argv[1] in xidata.namespaces(); print('seen')"
        out = subprocess.run([sys.executable, "-c", code, ns], check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout
        self.assertEqual(out, "seen\n")
        broker.terminate()
        broker.communicate(timeout=60)

    def test_stats(self):
        before = xidata.stats()
        self.channel.send(1)
        after = xidata.stats()
        self.assertEqual((after["namespace"], after["id"]), (NS, xidata.current().id))
        self.assertEqual(after["sent"], before["sent"] + 1)
        code = "import xidata; print(xidata.stats())"
        self.assertEqual(subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60), "{}\n")

    def test_json(self):
        lines = [json.loads(line) for line in look("--json").splitlines()]
        sample, = [s for s in lines if s["namespace"] == NS]
        alone = json.loads(look("--json", "-n", NS))
        self.assertEqual(alone.keys(), {"namespace", "interpreters", "channels"})
        for s in (sample, alone):
            channel, = [c for c in s["channels"] if c["name"] == self.name]
            self.assertEqual((channel["depth"], channel["sent"], channel["received"]), (2, 3, 1))
            me, = [i for i in s["interpreters"] if i["id"] == xidata.current().id]
            self.assertEqual(me["pid"], os.getpid())
        stat = self.channel.stat()
        fields = [f for f in dir(stat) if not f.startswith(("_", "n_")) and f not in ("count", "index")]
        self.assertEqual({f: getattr(stat, f) for f in fields}, channel)

    def test_tables(self):
        text = look("-n", NS)
        self.assertIn("namespace %s\n" % NS, text)
        row, = [line.split() for line in text.splitlines() if line.split()[:1] == [self.name]]
        self.assertEqual(row[1:3], ["queue", "2"])
        self.assertIn(" %d " % os.getpid(), text)

    def test_names_stay_on_their_line(self):
        other = xidata.join(name="a\u202eb\u2028c")  # control characters themselves are refused
        self.addCleanup(other.leave)
        text = look("-n", NS)
        self.assertIn(" a?b?c ", text)

    def test_absent(self):
        text = look("-n", NS + ".not", status=1)
        self.assertIn("there is no namespace '%s.not'" % NS, text)
        self.assertIn(NS, text)
        self.assertEqual(look("--version"), "xidata %s\n" % xidata.__version__)

    def test_cut_short(self):
        """Whoever reads may go away."""
        done = subprocess.run("'%s' -m xidata --json | head -c 1" % sys.executable, shell=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual((done.stdout, done.stderr), ("{", ""))

    def test_man_page(self):
        """It names every option and every field, in their order, and has no mistake that groff sees."""
        path = os.path.join(ROOT, "docs", "man", "xidata.1")
        with open(path, encoding="utf-8") as f:
            page = f.read().replace("\\-", "-")
        options = set(re.findall(r"(?<![\w-])--?[a-z]+", look("--help"))) - {"-m"}  # that one is Python's
        self.assertIn("--json", options)
        for option in options:
            self.assertRegex(page, r"(?m)^\.(BR?|TP).*%s\b" % option)
        for title, kind in (("Of an interpreter", xidata.InterpreterInfo), ("Of a channel", xidata.ChannelInfo)):
            fields = [n for n, member in vars(kind).items() if isinstance(member, types.MemberDescriptorType)]
            table = page.partition(".SS " + title)[2].partition(".TE")[0]
            self.assertEqual(re.findall(r"(?m)^(\w+)\|", table), fields)
        if shutil.which("groff"):
            done = subprocess.run(["groff", "-t", "-man", "-ww", "-Tutf8", path], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, timeout=60)
            self.assertEqual((done.returncode, done.stderr), (0, b""))


if __name__ == "__main__":
    main(each_version=False)
