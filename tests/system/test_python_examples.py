# SPDX-License-Identifier: MIT
"""The programs of docs/examples do what they say: each prints what its docstring has after the `$` line, and nothing else."""

import glob
import os
import re
import subprocess
import sys
import unittest

from pyhelp import TestCase, main, numpy

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "docs", "examples")


def said(path):
    """What the program says that it prints."""
    with open(path, encoding="utf-8") as f:
        block = re.search(r"^    \$ python %s\n((?:    .*\n)+)" % re.escape(os.path.basename(path)), f.read(), re.M)
    return "".join(line[4:] + "\n" for line in block[1].splitlines())


class Examples(TestCase):
    def test_each(self):
        paths = sorted(glob.glob(os.path.join(FOLDER, "*.py")))
        self.assertGreaterEqual(len(paths), 4)
        for path in paths:
            name = os.path.splitext(os.path.basename(path))[0]
            with open(path, encoding="utf-8") as f:
                if "import numpy" in f.read() and not numpy:
                    continue
            with self.subTest(example=name):
                done = subprocess.run([sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      timeout=60, env=dict(os.environ, XI_NAMESPACE="%s.%s" % (os.environ["XI_NAMESPACE"], name)))
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertEqual(done.stdout, said(path))


if __name__ == "__main__":
    main()
