# SPDX-License-Identifier: MIT
"""What the tests of the Python module share: names, child processes, patience, trouble."""

import faulthandler
import glob
import os
import subprocess
import sys
import tempfile
import time
import unittest

os.environ.setdefault("XI_NAMESPACE", "t%d" % os.getpid())
faulthandler.enable()

import xidata  # noqa: E402 (the namespace is set first)

HERE = os.path.dirname(os.path.abspath(__file__))
SOON = 20.0  # seconds that nothing here should ever take
SYSTEM = os.path.realpath(sys.executable).startswith("/usr/")  # this is the system's CPython
LONG = bool(os.environ.get("XI_TEST_LONG"))
BIG = os.environ.get("XI_TEST_BIG", "1" if SYSTEM or LONG else "0") != "0"

try:
    import numpy
except ImportError:
    numpy = None

_counter = 0


def name(prefix="c"):
    """A channel name that nobody else uses."""
    global _counter
    _counter += 1
    return "%s.%d.%d" % (prefix, os.getpid(), _counter)


def start(code, *args, python=sys.executable, **kwargs):
    """Runs Python code in a child; sys.argv[1:] are the args."""
    return subprocess.Popen([python, "-X", "faulthandler", "-c", code] + [str(a) for a in args], **kwargs)


def until(condition, what="the condition", seconds=SOON):
    """Waits for something that another process or thread will bring about."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited %g s for %s" % (seconds, what))
        time.sleep(0.002)  # there is no event to wait for: what is looked at is another process's state


def parks(pid=None):
    """How often a process of the namespace (this one) has gone to sleep in a call of the library."""
    return sum(i.parks for i in xidata.list_interpreters() if i.pid == (pid or os.getpid()))


def other_pythons():
    """One interpreter of every other version that the module was built for."""
    folder = os.path.dirname(xidata.__file__)
    seen = {sys.implementation.cache_tag}
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    found = []
    for python in sorted(glob.glob(pyenv + "/versions/*/bin/python3") + glob.glob("/usr/bin/python3.[0-9]*")):
        if not os.access(python, os.X_OK) or not os.path.basename(python).replace("python3", "").strip(".").isdigit():
            if os.path.basename(python) != "python3":
                continue
        answer = subprocess.run(
            [python, "-I", "-c", "import sys; print(sys.implementation.cache_tag)"], capture_output=True, text=True
        )
        tag = answer.stdout.strip()
        if answer.returncode or tag in seen or not glob.glob("%s/_xidata.%s*" % (folder, tag)):
            continue
        seen.add(tag)
        found.append(python)
    return found


class Trouble:
    """Raises what its class says when it is unpickled."""

    raises = None

    def __reduce__(self):
        return _make_trouble, ()


def _make_trouble():
    if Trouble.raises:
        raised, Trouble.raises = Trouble.raises, None
        raise raised
    return "no trouble"


class TestCase(unittest.TestCase):
    """Waits for its children, and looks that nothing is borrowed or loaned when a test ends."""

    def setUp(self):
        self.children = []

    def child(self, code, *args, **kwargs):
        process = start(code, *args, **kwargs)
        self.children.append(process)
        return process

    def finished(self, process):
        self.assertEqual(process.wait(SOON), 0)

    def tearDown(self):
        for process in self.children:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()

    def stats(self):
        return xidata.current().stats()


def main(each_version=True):
    """Without each_version a short run is for the system's CPython and 3.13 alone; XI_TEST_LONG=1 has them all."""
    if not each_version and not (SYSTEM or LONG or sys.version_info[:2] == (3, 13)):
        print("skipped: with XI_TEST_LONG=1 alone")
        sys.exit(77)
    unittest.main(verbosity=1)
