# SPDX-License-Identifier: MIT
"""
The stubs say what is there: every public name of the package, its classes and their parameters, both ways.
"""

import ast
import importlib
import inspect
import os
import unittest

from pyhelp import main, xidata

FOLDER = os.path.dirname(xidata.__file__)
MODULES = {"": "__init__", "interpreters": "interpreters", "queues": "queues", "futures": "futures", "aio": "aio",
           "loans": "loans"}
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

    def test_functions(self):
        tree, checked = self.stub("__init__"), 0
        functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and not n.decorator_list and n.name[0] != "_"]
        opens = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "_Open").body[0]
        for node, there in [(n, getattr(xidata, n.name)) for n in functions] + [(opens, xidata.channel)]:
            self.assertEqual(sorted(parameters(node)), sorted(inspect.signature(there).parameters), node.name)
            checked += 1
        self.assertGreater(checked, 10)


if __name__ == "__main__":
    main()
