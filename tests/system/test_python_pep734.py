# SPDX-License-Identifier: MIT
"""
xidata.interpreters beside concurrent.interpreters, where there is one (CPython 3.14): the same names, signatures, exceptions
and outcomes. What differs is named here, with the reason; what is named and does not differ is an error.
"""

import functools
import inspect
import queue
import sys
import types
import unittest
from fractions import Fraction

from pyhelp import main, xidata

try:
    from concurrent import futures, interpreters as theirs
    from concurrent.interpreters import _queues as their_queues
except ImportError:
    print("skipped: this CPython has no concurrent.interpreters (3.14)")
    sys.exit(77)
from xidata import interpreters as ours

# In their modules below the public one, or xidata's own.
MORE_NAMES = {
    "QueueError", "QueueNotFoundError", "ItemInterpreterDestroyed", "UNBOUND", "UNBOUND_ERROR", "UNBOUND_REMOVE", "list_queues",
    "KEEP", "preload",
}
MORE_MEMBERS = {"Interpreter": {"__eq__"}, "Queue": {"__eq__"}}  # by id, where theirs have one object for each

DEEP = "theirs looks at the tuple, and not at what is in it"
BIG = "ints of any size have a native form"
DROPPED = "what a function that is executed returns is dropped, as what a call in a thread returns is"
CODE_DEEP = "functions go by their code as arguments by name, too"


def public(module, kind):
    """Members of a class that are public, or that make or compare its objects."""
    special = ("__new__", "__init__", "__reduce__", "__hash__", "__repr__", "__str__", "__eq__")
    return {n for n in vars(getattr(module, kind)) if n[0] != "_" or n in special}


def signature(function):
    """Parameters, without those that are their own affair, as comparable values."""
    function = function.fget if isinstance(function, property) else function
    return [(p.name, p.kind.name, p.default if p.default is p.empty else repr(p.default).rpartition(".")[2])
            for p in inspect.signature(function).parameters.values() if p.name[0] != "_"]


def bases(kind):
    """Names of what an exception is, without those of modules that are nobody's affair."""
    return [k.__name__ for k in kind.__mro__]


class Lost:
    """Can be pickled, and not be had again."""

    def __reduce__(self):
        return int, ("x",)


class Unpicklable:
    def __reduce__(self):
        raise ValueError("no")


def fail(kind, *args):
    raise kind(*args)


def closure(value):
    return lambda: value


def generator():
    yield 1


def excinfo(formatted="f", errdisplay="d", kind="X"):
    return types.SimpleNamespace(type=types.SimpleNamespace(__name__=kind), msg="m", formatted=formatted, errdisplay=errdisplay)


def through(q, item, **more):
    q.put(item, **more)
    return q.get()


# name: (what is done with a module and an interpreter of it; why the outcomes differ)
BEHAVIOURS = {
    "call builtin": (lambda m, p: p.call(pow, 2, exp=5), None),
    "call class": (lambda m, p: p.call(Fraction, 3), None),
    "call method": (lambda m, p: p.call(Fraction(7, 3).limit_denominator, 2), None),
    "call partial": (lambda m, p: p.call(functools.partial(pow, 2), 5), None),
    "call lambda": (lambda m, p: p.call(lambda *a, **k: (a, k), 1, x=(2, None)), None),
    "call closure": (lambda m, p: p.call(closure(1)), None),
    "call no callable": (lambda m, p: p.call("x"), None),
    "call what is lost": (lambda m, p: p.call(lambda x: x, Lost()), None),
    "call unpicklable": (lambda m, p: p.call(lambda x: x, Unpicklable()), None),
    "call function argument": (lambda m, p: p.call(lambda f: f(2), lambda v: -v), None),
    "call function in tuple": (lambda m, p: p.call(lambda f: f[0](2), (lambda v: -v,)), None),
    "call function in list": (lambda m, p: p.call(lambda f: f[0](2), [lambda v: -v]), None),
    "call function by name": (lambda m, p: p.call(sorted, [1, 2], key=lambda v: -v), CODE_DEEP),
    "result function": (lambda m, p: p.call(lambda: (lambda: 3))(), None),
    "result function in tuple": (lambda m, p: p.call(lambda: (1, (lambda: 3)))[1](), None),
    "result function in list": (lambda m, p: p.call(lambda: [(lambda: 3)]), None),
    "result generator": (lambda m, p: p.call(generator), None),
    "result bytearray": (lambda m, p: p.call(bytearray, 3), None),
    "call fails": (lambda m, p: p.call(fail, ValueError, "v"), None),
    "call exits": (lambda m, p: p.call(sys.exit, 3), None),
    "eval": (lambda m, p: p.call(eval, "__name__"), None),
    "eval with names": (lambda m, p: p.call(eval, "a", {"a": 3}), None),
    "exec in main": (lambda m, p: (p.call(exec, "seen = 4"), p.call(eval, "seen")), None),
    "dir": (lambda m, p: [n for n in p.call(dir) if n[:2] == "__"], None),
    "globals": (lambda m, p: p.call(globals), None),
    "thread": (lambda m, p: type(p.call_in_thread(len, ())).__name__, None),
    "prepare nothing": (lambda m, p: p.prepare_main(), None),
    "prepare empty": (lambda m, p: p.prepare_main({}), None),
    "prepare None": (lambda m, p: p.prepare_main(None), None),
    "prepare int": (lambda m, p: p.prepare_main(5), None),
    "prepare pairs": (lambda m, p: p.prepare_main((("k", 1),), l="x"), None),
    "prepare bad name": (lambda m, p: p.prepare_main({1: 2}), None),
    "prepare null": (lambda m, p: p.prepare_main({"\0": 1}), None),
    "prepare no identifier": (lambda m, p: p.prepare_main({"a b": 1}), None),
    "prepare function": (lambda m, p: p.prepare_main(f=lambda: 1), None),
    "prepare interpreter": (lambda m, p: p.prepare_main(f=p), None),
    "prepare queue": (lambda m, p: p.prepare_main(f=m.create_queue()), None),
    "prepare list": (lambda m, p: p.prepare_main(f=[1]), None),
    "prepare big": (lambda m, p: p.prepare_main(f=1 << 100), BIG),
    "exec": (lambda m, p: p.exec("a = 1"), None),
    "exec bytes": (lambda m, p: p.exec(b"a = 1"), None),
    "exec int": (lambda m, p: p.exec(1), None),
    "exec builtin": (lambda m, p: p.exec(len), None),
    "exec code": (lambda m, p: p.exec(compile("a = 2", "f", "exec")), None),
    "exec arguments": (lambda m, p: p.exec(lambda x: None), None),
    "exec defaults": (lambda m, p: p.exec(lambda x=1: None), None),
    "exec closure": (lambda m, p: p.exec(closure(1)), None),
    "exec result": (lambda m, p: p.exec(lambda: 5), DROPPED),
    "exec generator": (lambda m, p: p.exec(generator), DROPPED),
    "exec no python": (lambda m, p: p.exec("a b"), None),
    "exec fails": (lambda m, p: p.exec("class E(Exception): pass\nraise E('hi')"), None),
    "exec fails in line 1": (lambda m, p: p.exec("1 / 0"), None),
    "exec exits": (lambda m, p: p.exec("raise SystemExit(3)"), None),
    "main: exec": (lambda m, p: m.get_main().exec("1"), None),
    "main: call": (lambda m, p: m.get_main().call(len, ()), None),
    "main: prepare": (lambda m, p: m.get_main().prepare_main(x=1), None),
    "main: close": (lambda m, p: m.get_main().close(), None),
    "main: running": (lambda m, p: (m.get_main().is_running(), m.get_current() is m.get_main()), None),
    "whence": (lambda m, p: (p.whence, m.get_main().whence), None),
    "same object": (lambda m, p: (m.Interpreter(p.id) is p, p in m.list_all(), p == p.id, hash(p) == hash(p.id)), None),
    "id of str": (lambda m, p: m.Interpreter("1"), None),
    "id negative": (lambda m, p: m.Interpreter(-1), None),
    "id of nobody": (lambda m, p: m.Interpreter(1 << 40), None),
    "id huge": (lambda m, p: m.Interpreter(1 << 80), None),
    "failure's text": (lambda m, p: str(m.ExecutionFailed(excinfo())), None),
    "failure's text without": (lambda m, p: m.ExecutionFailed(excinfo(formatted=None)).args, None),
    "shareable": (lambda m, p: [m.is_shareable(x) for x in (
        None, True, 1, 1.0, "", b"", (), memoryview(b""), m.create_queue(), [], {}, set(), 1j, ..., int, p, range(3), bytearray(),
        closure, Fraction(1), (1, ("x",)))], None),
    "shareable tuple of lists": (lambda m, p: m.is_shareable((1, [])), DEEP),
    "shareable big": (lambda m, p: m.is_shareable(1 << 100), None),  # prepare_main() tells
    "queue": (lambda m, p: (lambda q: (q.maxsize, q.qsize(), q.empty(), q.full(), repr(q.unbounditems).rpartition(".")[2]))(
        m.create_queue(3)), None),
    "queue by name": (lambda m, p: m.create_queue(maxsize=-2).maxsize, None),
    "queue bool": (lambda m, p: m.create_queue(True).maxsize, None),
    "queue str": (lambda m, p: m.create_queue("x"), None),
    "queue float": (lambda m, p: m.create_queue(1.5), None),
    "queue positional": (lambda m, p: m.create_queue(1, None), None),
    "queue unbound": (lambda m, p: m.create_queue(unbounditems=None), None),
    "put unbound": (lambda m, p: m.create_queue().put(1, unbounditems=5), None),
    "queue same object": (lambda m, p: (lambda q: (m.Queue(q.id) is q, through(q, q) is q))(m.create_queue()), None),
    "queue item": (lambda m, p: through(m.create_queue(), {"a": [1, Fraction(2)]}), None),
    "queue function": (lambda m, p: through(m.create_queue(), lambda: 7)(), None),
    "queue closure": (lambda m, p: through(m.create_queue(), closure(1)), None),
    "queue proxy": (lambda m, p: through(m.create_queue(), types.MappingProxyType({})), None),
    "queue what is lost": (lambda m, p: through(m.create_queue(), Lost()), None),
    "queue empty": (lambda m, p: m.create_queue().get_nowait(), None),
    "queue empty in time": (lambda m, p: m.create_queue().get(timeout=0), None),
    "queue empty at once": (lambda m, p: m.create_queue().get(False, -1), None),
    "queue negative": (lambda m, p: m.create_queue().get(timeout=-1), None),
    "put negative": (lambda m, p: m.create_queue().put(1, timeout=-1), None),
    "queue full": (lambda m, p: (lambda q: [q.put_nowait(n) for n in range(2)])(m.create_queue(1)), None),
    "queue full is": (lambda m, p: issubclass(m.QueueFull, queue.Full), None),
    "queue of str": (lambda m, p: m.Queue("1"), None),
    "queue of nobody": (lambda m, p: m.Queue(1_000_000), None),
    "items of the gone": (lambda m, p: gone(m), None),
    "closed": (lambda m, p: closed(m, lambda i: i.exec("1")), None),
    "closed: running": (lambda m, p: closed(m, lambda i: i.is_running()), None),
    "closed: call": (lambda m, p: closed(m, lambda i: i.call(len, ())), None),
    "closed: prepare": (lambda m, p: closed(m, lambda i: i.prepare_main(a=1)), None),
    "closed: close": (lambda m, p: closed(m, lambda i: i.close()), None),
}


def gone(m):
    q, p = m.create_queue(), m.create()
    p.prepare_main(q=q)
    p.exec("q.put(1); q.put(2)")
    p.close()
    return q.qsize(), repr(q.get()).rpartition(".")[2], q.qsize()


def closed(m, use):
    p = m.create()
    p.close()
    return use(p)


def outcome(m, p, do):
    """What came of it, as the same words for both modules."""
    try:
        return repr(do(m, p))
    except m.ExecutionFailed as failed:
        shown = failed.excinfo.errdisplay.splitlines()
        return "ExecutionFailed", failed.excinfo.type, failed.excinfo.msg, failed.excinfo.formatted, shown[-1], "<script>" in str(failed)
    except Exception as error:
        return bases(type(error))


class Beside(unittest.TestCase):
    def test_names(self):
        self.assertEqual(set(ours.__all__) - set(theirs.__all__), MORE_NAMES)
        self.assertEqual(set(theirs.__all__) - set(ours.__all__), set())
        self.assertLessEqual(set(their_queues.__all__) - {"create", "list_all"}, set(ours.__all__))

    def test_members(self):
        for kind in ("Interpreter", "Queue"):
            self.assertEqual(public(theirs, kind) - public(ours, kind), set())
            self.assertEqual(public(ours, kind) - public(theirs, kind), MORE_MEMBERS[kind])

    def test_signatures(self):
        count = 0
        for name in theirs.__all__:
            mine, its = getattr(ours, name), getattr(theirs, name)
            self.assertTrue(mine.__doc__, name)
            pairs = [(name, mine, its)]
            if isinstance(its, type):
                members = public(theirs, name) - {"__hash__", "__repr__", "__reduce__", "__str__", "__doc__"}
                pairs = [("%s.%s" % (name, n), getattr(mine, n), getattr(its, n)) for n in members]
            for where, a, b in pairs:
                if where == "is_shareable":  # theirs is of C, without a signature
                    continue
                with self.subTest(where):
                    self.assertEqual(signature(a), signature(b))
                    self.assertEqual(isinstance(a, property), isinstance(b, property))
                    count += 1
        self.assertGreater(count, 25)

    def test_exceptions(self):
        for name in [n for n in theirs.__all__ if n.endswith("Error") or n in ("ExecutionFailed", "QueueEmpty", "QueueFull")]:
            self.assertEqual(bases(getattr(ours, name)), bases(getattr(theirs, name)))
        for name in ("QueueError", "QueueNotFoundError", "ItemInterpreterDestroyed"):
            self.assertEqual([n.lstrip("_") for n in bases(getattr(ours, name))], bases(getattr(their_queues, name)))

    def test_pool(self):
        self.assertEqual(signature(xidata.InterpreterPoolExecutor.__init__)[:-1], signature(futures.InterpreterPoolExecutor.__init__))
        self.assertEqual(signature(xidata.InterpreterPoolExecutor.__init__)[-1][:2], ("replace", "KEYWORD_ONLY"))

    def test_behaviours(self):
        mine, its = ours.create(), theirs.create()
        try:
            for name, (do, differs) in BEHAVIOURS.items():
                with self.subTest(name):
                    ends = outcome(ours, mine, do), outcome(theirs, its, do)
                    if differs:
                        self.assertNotEqual(*ends, "is no difference: %s" % differs)
                    else:
                        self.assertEqual(*ends)
        finally:
            mine.close()
            its.close()
        print("%d outcomes beside concurrent.interpreters, %d differ as is said" % (
            len(BEHAVIOURS), sum(differs is not None for _, differs in BEHAVIOURS.values())))


if __name__ == "__main__":
    main()
