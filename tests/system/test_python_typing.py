# SPDX-License-Identifier: MIT
"""
The stubs, as mypy sees them: a sample that uses every public name, class and method is correct under --strict, each line of
another sample is refused with the error that it names, and stubtest finds the stubs and the module to agree.
"""

import ast
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from pyhelp import HERE, LONG, SYSTEM, main, xidata

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(xidata.__file__)))
TYPED = os.path.join(HERE, "typed")
CONFIG = """[mypy]
cache_dir = %s
[mypy-_signal]
ignore_missing_imports = True
[mypy-numpy.*]
follow_imports = skip
ignore_missing_imports = True
[mypy-%s]
ignore_errors = True
"""
# What stubtest says of what is so on purpose.
AGREED = """
xidata\\.(Loan|View)\\.__buffer__
xidata\\.Interpreter\\.channel
xidata\\.Channel\\.try_recv
xidata\\.Set\\.__init__
xidata\\.register
xidata\\..*\\._\\w+
xidata\\._.*
xidata\\.interpreters\\.(Interpreter|Queue)\\.__new__
xidata\\.interpreters\\.(UNBOUND|UNBOUND_ERROR|UNBOUND_REMOVE|KEEP|create_queue)
"""


def public(tree):
    """Names that a stub declares, and the members of its classes."""
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else []
        for n in [node] + inside:
            name = getattr(n, "name", None) or getattr(getattr(n, "target", None), "id", None)
            if name and not name.startswith("_"):
                yield name


class Typing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.config = os.path.join(folder.name, "mypy.ini")
        cls.agreed = os.path.join(folder.name, "agreed")
        private = glob.glob(os.path.join(os.path.dirname(xidata.__file__), "_[a-z]*.py")) + ["__main__.py"]
        modules = ",".join("xidata." + os.path.basename(path)[:-3] for path in private)
        config = CONFIG % (os.path.join(folder.name, "cache"), modules)
        for path, text in ((cls.config, config), (cls.agreed, AGREED)):
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)

    def mypy(self, *args):
        env = dict(os.environ, MYPYPATH=PACKAGE)
        command = ["mypy", "--strict", "--config-file", self.config, "--show-error-codes", "--no-error-summary", *args]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150)
        return done.stdout

    def test_sample(self):
        for version in ("3.9", "3.10", "3.11", "3.14") if LONG else ("3.11",):
            with self.subTest(version):
                said = self.mypy("--python-version", version, os.path.join(TYPED, "sample.py"))
                if "Python %s is not supported" % version in said:
                    self.skipTest("this mypy looks at no Python %s any more" % version)
                self.assertEqual(said, "")

    def test_stubs_alone(self):
        stubs = sorted(glob.glob(os.path.join(os.path.dirname(xidata.__file__), "*.pyi")))
        self.assertGreaterEqual(len(stubs), 5)
        self.assertEqual(self.mypy(*stubs), "")

    def test_wrong(self):
        path = os.path.join(TYPED, "wrong.py")
        with open(path, encoding="utf-8") as f:
            wanted = {(n, m[1]) for n, line in enumerate(f, 1) for m in [re.search(r"# E: ([\w-]+)", line)] if m}
        said = self.mypy("--disable-error-code", "no-untyped-call", path)
        got = {(int(m[1]), m[2]) for m in re.finditer(r"wrong\.py:(\d+): error: .*\[([\w-]+)\]", said)}
        self.assertEqual(got, wanted, said)
        self.assertGreater(len(wanted), 10)

    def test_sample_is_whole(self):
        with open(os.path.join(TYPED, "sample.py"), encoding="utf-8") as f:
            tree = ast.parse(f.read())
        used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        used |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        for stub in ("__init__", "interpreters", "queues", "futures", "aio", "loans"):
            with open(os.path.join(os.path.dirname(xidata.__file__), stub + ".pyi"), encoding="utf-8") as f:
                missing = set(public(ast.parse(f.read()))) - used
            self.assertEqual(missing, set(), "sample.py does not use these of %s.pyi" % stub)

    @unittest.skipUnless(shutil.which("stubtest"), "stubtest is not installed")
    @unittest.skipUnless(LONG, "with XI_TEST_LONG=1 alone")
    def test_stubtest(self):
        env = dict(os.environ, MYPYPATH=PACKAGE, PYTHONPATH=PACKAGE)
        command = ["stubtest", "--concise", "--ignore-missing-stub", "--ignore-unused-allowlist", "--allowlist", self.agreed,
                   "--mypy-config-file", self.config, "xidata"]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150)
        self.assertEqual((done.returncode, done.stdout), (0, ""))


if __name__ == "__main__":
    if not SYSTEM or not shutil.which("mypy"):
        print("skipped: mypy is not installed, or looks at another CPython than this")
        sys.exit(77)
    main()
