# SPDX-License-Identifier: MIT
"""Facts about one Python source file, as a nested value, and their sums.

What stands under "text" is the same in every version of Python and is what the totals are checked by. What stands under
"ast" depends on the grammar of the Python that parsed the file, so it is shown and not checked.
"""
import ast
import hashlib
import re

DEF = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+[A-Za-z_]", re.MULTILINE)
CLASS = re.compile(r"^[ \t]*class[ \t]+[A-Za-z_]", re.MULTILINE)
IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t]+[A-Za-z_.]", re.MULTILINE)

TEXT_SUMS = ("characters", "lines", "words", "defs", "classes", "imports")
AST_SUMS = ("nodes", "functions", "classes", "imports")


def read(path):
    """The text of a source file; bytes that are no UTF-8 stay what they are, as Latin-1."""
    with open(path, "rb") as f:
        raw = f.read()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def of_text(text):
    return {
        "characters": len(text),
        "lines": text.count("\n"),
        "words": len(text.split()),
        "longest": max(map(len, text.split("\n"))),
        "defs": len(DEF.findall(text)),
        "classes": len(CLASS.findall(text)),
        "imports": len(IMPORT.findall(text)),
        "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(),
    }


def of_ast(text):
    """None where this Python does not accept the file: the library has test files that are wrong on purpose."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    facts = {"nodes": 0, "functions": 0, "classes": 0, "imports": 0, "modules": set()}
    for node in ast.walk(tree):
        facts["nodes"] += 1
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            facts["functions"] += 1
        elif isinstance(node, ast.ClassDef):
            facts["classes"] += 1
        elif isinstance(node, ast.Import):
            facts["imports"] += 1
            facts["modules"].update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            facts["imports"] += 1
            facts["modules"].add("." * node.level + (node.module or ""))
    facts["modules"] = tuple(sorted(facts["modules"]))
    return facts


class Totals:
    """Sums over files. Equal sets of files give equal totals, in whatever order they came."""

    def __init__(self):
        self.files = 0
        self.unparsed = 0
        self.text = dict.fromkeys(TEXT_SUMS, 0)
        self.ast = dict.fromkeys(AST_SUMS, 0)
        self.longest = 0
        self.digest = 0

    def add_text(self, text):
        self.files += 1
        for key in TEXT_SUMS:
            self.text[key] += text[key]
        self.longest = max(self.longest, text["longest"])
        self.digest = (self.digest + int.from_bytes(text["sha256"], "big")) % 2**256

    def add_ast(self, facts):
        if facts is None:
            self.unparsed += 1
            return
        for key in AST_SUMS:
            self.ast[key] += facts[key]

    def checked(self):
        return {"files": self.files, **self.text, "longest line": self.longest, "sha256, summed": f"{self.digest:064x}"}
