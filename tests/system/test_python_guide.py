# SPDX-License-Identifier: MIT
"""
The examples of docs/guide.md and README.md do what they say.

The programs of a section (```python blocks that begin with a comment `# name.py`) run at the same time, in a namespace of
their own, each started when the one before it has a channel open. A ```text block after a program is all that it prints.
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest

from pyhelp import SOON, TestCase, main, numpy, until, xidata

try:
    import pyarrow
except ImportError:
    pyarrow = None

NEEDS = {"Arrays": numpy, "Arrow": pyarrow}  # sections that are passed over without the package
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BLOCK = re.compile(r"^```python\n(# (\w+\.py)\n.*?)^```\n(?:```text\n(.*?)^```\n)?", re.M | re.S)


def sections(path):
    """(title, [(file, code, output or None)]) of each section that has programs."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        parts = re.split(r"^## ", f.read(), flags=re.M)
    for part in parts:
        programs = [(m[2], m[1], m[3]) for m in BLOCK.finditer(part)]
        if programs:
            yield part.partition("\n")[0], programs


class Guide(TestCase):
    number = 0

    def run_section(self, programs):
        Guide.number += 1
        ns = "%s.g%d" % (os.environ["XI_NAMESPACE"], Guide.number)
        env = dict(os.environ, XI_NAMESPACE=ns)
        with tempfile.TemporaryDirectory() as folder:
            running = []
            for file, code, _ in programs:
                with open(os.path.join(folder, file), "w", encoding="utf-8") as f:
                    f.write(code)
                # Not in the folder: a program may be called as a module of the library is (select.py).
                command = [sys.executable, "-c", "import sys; exec(compile(open(sys.argv[1]).read(), sys.argv[1], 'exec'))"]
                process = subprocess.Popen(command + [os.path.join(folder, file)], env=env, stdout=subprocess.PIPE,
                                           stderr=subprocess.PIPE, text=True)
                self.children.append(process)
                running.append(process)
                until(lambda: process.poll() is not None or sum(c.handles for c in xidata.channels(ns)) >= len(running),
                      file + " to open a channel")
            return [process.communicate(timeout=SOON) + (process.returncode,) for process in running]

    def check(self, path, least):
        found = 0
        for title, programs in sections(path):
            if not NEEDS.get(title, True):
                print("skipped in part: %s of %s, without its package" % (title, path))
                continue
            for (file, code, output), (out, err, status) in zip(programs, self.run_section(programs)):
                with self.subTest(section=title, file=file):
                    found += 1
                    if file == "serve.py":  # it is to die over the third request
                        self.assertIn("TypeError", err)
                        continue
                    self.assertEqual((status, err), (0, ""))
                    self.assertEqual(out, output or "")
        self.assertGreaterEqual(found, least)

    def test_guide(self):
        self.check("docs/guide.md", 16 + 2 * bool(numpy) + bool(pyarrow))

    def test_readme(self):
        self.check("README.md", 1)


if __name__ == "__main__":
    main()
