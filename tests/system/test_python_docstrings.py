# SPDX-License-Identifier: MIT
"""
The examples in docstrings, of what is written in C and of what is written in Python, do what they say.

Those with prompts are doctests, each docstring by itself, with xidata and what is in `NAMES` imported. Other blocks of
code are run.
"""

import asyncio
import doctest
import importlib
import inspect
import os
import re
import textwrap
import threading
import unittest

from pyhelp import main, numpy, xidata

MODULES = ("", "aio", "futures", "interpreters", "loans", "queues", "_look", "_types")
ARRAYS = ("asarray", "empty", "zeros") # are for numpy
NAMES = {"__name__": "__main__", "asyncio": asyncio, "os": os, "threading": threading, "xidata": xidata}
NOT_RUN = ("preload(",) # only before the first interpreter: test_python_interpreters.py has it
WITHOUT = { # public functions that an example would say nothing of
    "Channel.free", "Channel.groups", "Channel.remove_group", "Channel.stat",
}


def is_ours(o):
    return (getattr(o, "__module__", None) or "").startswith(("xidata", "_xidata"))


def documented():
    """{the docstring: where it is} of everything public."""
    found = {}

    def note(o, where):
        text = getattr(o, "__doc__", None)
        if isinstance(text, str) and text:
            found.setdefault(inspect.cleandoc(text), where)

    for module in MODULES:
        there = importlib.import_module("xidata." + module if module else "xidata")
        note(there, there.__name__)
        for name in dir(there):
            o = getattr(there, name)
            if name.startswith("_") or not is_ours(o) and not isinstance(o, type(xidata.join)):
                continue
            note(o, name)
            for member, what in vars(o).items() if inspect.isclass(o) else ():
                if not member.startswith("_"):
                    note(what, "%s.%s" % (name, member))
    return found


def is_code(text):
    """Whether it is Python that does something; within a coroutine, perhaps."""
    try:
        compile("async def f():\n" + textwrap.indent(text, " "), "<docstring>", "exec")
    except SyntaxError:
        return False
    return bool(re.search(r"[=(]", text))


class Docstrings(unittest.TestCase):
    def tearDown(self):
        for channel in xidata.channels():
            if not channel.name.startswith("interpreter."):
                xidata.remove(channel.name)

    def test_prompts(self):
        run, failures = 0, []
        for text, where in documented().items():
            test = doctest.DocTestParser().get_doctest(text, dict(NAMES), where, None, 0)
            if not test.examples or (where in ARRAYS and not numpy):
                continue
            runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.FAIL_FAST)
            runner.run(test, out=failures.append)
            run += 1
            self.tearDown()
        self.assertEqual(failures, [], "".join(failures))
        self.assertGreaterEqual(run, 30)

    def test_blocks(self):
        from xidata import interpreters

        interp, run = interpreters.create(), 0
        for text, where in documented().items():
            for block in re.findall(r"^((?:    .*\n?|\n)+)", text + "\n", re.M):
                code = textwrap.dedent(block).strip()
                if ">>>" in code or not is_code(code) or any(n in code for n in NOT_RUN):
                    continue
                with self.subTest(where):
                    exec(compile(code, "<docstring>", "exec"), dict(NAMES, interpreters=interpreters, interp=interp))
                run += 1
        self.assertGreaterEqual(run, 8)

    def test_written_in_c(self):
        """What a program calls first of all has an example."""
        for kind in (xidata, xidata.Channel):
            for name, o in vars(kind).items():
                where = name if kind is xidata else "Channel." + name
                if name.startswith("_") or not inspect.isroutine(o) or getattr(o, "__module__", None) == "xidata":
                    continue
                if type(o).__name__ in ("builtin_function_or_method", "method_descriptor") and where not in WITHOUT:
                    with self.subTest(where):
                        self.assertIn(">>>", o.__doc__)


if __name__ == "__main__":
    main()
