# SPDX-License-Identifier: MIT
"""
The stubs say what is there: every public name of the package, its classes and their parameters, both ways. And the
examples in the docstrings of the modules written in Python run.
"""

import ast
import importlib
import inspect
import os
import re
import textwrap
import unittest

from pyhelp import main, xidata

FOLDER = os.path.dirname(xidata.__file__)
MODULES = {"": "__init__", "interpreters": "interpreters", "queues": "queues", "futures": "futures", "aio": "aio"}
INHERITED = {"submit", "map", "shutdown"} # of Executor, in typeshed


def declared(body):
    """{name: node} of what a stub declares."""
    names = {}
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            names[node.target.id] = node
        elif isinstance(node, ast.ImportFrom) and node.level:
            names.update((a.asname, node) for a in node.names if a.asname)
    return {n: node for n, node in names.items() if not n.startswith("_")}


def parameters(node):
    a = node.args
    return [p.arg for p in a.posonlyargs + a.args + a.kwonlyargs if p.arg not in ("self", "cls")]


class Stubs(unittest.TestCase):
    def stub(self, file):
        with open(os.path.join(FOLDER, file + ".pyi"), encoding="utf-8") as f:
            return ast.parse(f.read())

    def test_names(self):
        for module, file in MODULES.items():
            there = importlib.import_module("xidata." + module if module else "xidata")
            stub = declared(self.stub(file).body)
            public = getattr(there, "__all__", None)
            for name in public or ():
                if not (module == "" and name in ("interpreters", "aio")):
                    self.assertIn(name, stub, "%s.pyi lacks %s" % (file, name))
            for name in stub:
                self.assertTrue(hasattr(there, name), "%s.pyi has %s, which is not there" % (file, name))

    def test_classes(self):
        checked = 0
        for module, file in MODULES.items():
            there = importlib.import_module("xidata." + module if module else "xidata")
            tree = self.stub(file)
            classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
            for name, node in classes.items():
                kind = getattr(there, name, None)
                if name.startswith("_") or not inspect.isclass(kind):
                    continue
                members = dict(declared(node.body))
                for base in node.bases:
                    while isinstance(base, ast.Name) and base.id in classes:
                        members.update(declared(classes[base.id].body))
                        inner = classes[base.id].bases
                        base = inner[0] if inner else None
                for member, how in members.items():
                    self.assertTrue(hasattr(kind, member) or member in ("code", "excinfo", "maxsize"), "%s.%s" % (name, member))
                    checked += 1
                    try:
                        signature = inspect.signature(getattr(kind, member))
                    except (AttributeError, TypeError, ValueError):
                        continue
                    shortened = "options" in signature.parameters # Interpreter.channel(name, **options) in its doc
                    if isinstance(how, ast.FunctionDef) and not how.decorator_list and not shortened:
                        real = [p for p in signature.parameters if p != "self"]
                        starred = [a.arg for a in (how.args.vararg, how.args.kwarg) if a]
                        self.assertEqual(sorted(parameters(how) + starred), sorted(real), "%s.%s" % (name, member))
                if kind.__module__.startswith("xidata") and not issubclass(kind, (int, tuple)):
                    for member in vars(kind):
                        if not member.startswith("_") and member not in INHERITED:
                            self.assertIn(member, members, "%s.pyi: %s lacks %s" % (file, name, member))
        self.assertGreater(checked, 100)


class Examples(unittest.TestCase):
    NOT_RUN = ("await ", "preload(", 'name="jobs"') # in a loop; before the first interpreter; one of two lines to choose from

    def examples(self, there):
        objects = [there] + [o for o in vars(there).values() if getattr(o, "__module__", "").startswith("xidata")]
        for kind in [o for o in objects if inspect.isclass(o)]:
            objects += [m for n, m in vars(kind).items() if inspect.isfunction(m) and n[0] != "_"]
        for text in sorted({inspect.getdoc(o) or "" for o in objects}):
            for block in re.findall(r"^((?:    .*\n?|\n)+)", text + "\n", re.M):
                code = textwrap.dedent(block).strip()
                if code and re.search(r"[=(]", code) and not any(n in code for n in self.NOT_RUN) and not code.startswith("the pool"):
                    yield code

    def test_examples(self):
        from xidata import interpreters

        interp, run = interpreters.create(), 0
        names = {"xidata": xidata, "interpreters": interpreters, "interp": interp}
        for module in ("interpreters", "queues", "futures"):
            for code in self.examples(importlib.import_module("xidata." + module)):
                with self.subTest(code):
                    if code.startswith(">>>"):
                        call, expected = code[4:].split("\n")
                        self.assertEqual(str(eval(call, {"is_shareable": interpreters.is_shareable})), expected)
                    else:
                        exec(compile(code, "<docstring>", "exec"), dict(names))
                    run += 1
        self.assertGreaterEqual(run, 8)


if __name__ == "__main__":
    main()
