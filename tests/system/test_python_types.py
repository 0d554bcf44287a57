# SPDX-License-Identifier: MIT
"""
Enums, namedtuples, dataclasses, exceptions and registered types: exact on the other side, without a pickle; what is not
exact is one; and what a channel that loads no pickles makes of them. Any value of all types that xidata knows, made by
Hypothesis, goes through every pair of the CPython versions that there are.
"""

import copyreg
import dataclasses
import datetime as dt
import enum
import itertools
import os
import pickle
import sys
import tempfile
import time
import types
import unittest
import warnings

import typed
from pyhelp import HERE, LONG, SOON, TestCase, main, name, other_pythons, xidata
from typed import Bits, Color, Derived, Frozen, Item, Level, Lost, Pair, Refused, Right, Slotted, Sub, Token, Typed, Version, canon
from xidata import _types

os.environ["PYTHONPATH"] = HERE + os.pathsep + os.environ.get("PYTHONPATH", "")

SCRATCH = tempfile.TemporaryDirectory(prefix="xi-types.")
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = SCRATCH.name  # it keeps tables of characters
try:
    from hypothesis import HealthCheck, Phase, given, settings, strategies as st
except ImportError:
    st = None


def derived():
    v = Derived("d", [1])
    v.extra = {"more": b"x"}
    return v


def unset():
    v = Slotted.__new__(Slotted)
    v.a, v.b = 1, None
    return v


NATIVE = [
    Color.RED, Color.GREEN, Color.ODD, Level.LOW, Level.HIGH, Right.READ, Right.READ | Right.RUN, Right(0), Bits.A | Bits.B, Bits(8),
    Pair(1, (2,)), Pair(None, [Pair(1, 2)]), Typed("n"), Typed("n", {1}), Sub(1, 2),
    Item("i"), Item(1, [Item(2), Item(3, [Color.RED])]), Frozen(1, 2), Slotted(1, "b"), unset(), derived(),
    ValueError("x", 1), KeyError("k"), OSError(2, "no", "file"), OSError(5, "two", "f", None, "g"), OSError("text"), StopIteration(5),
    SystemExit(3), KeyboardInterrupt(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ImportError("m", name="n", path="p"),
    SyntaxError("bad", ("f", 1, 2, "text")), Refused(7, "why"), Lost(13, "denied", "f"), Lost("x"), xidata.Timeout("t"), xidata.ShmFull(28, "full"),
]


class World(TestCase):
    def setUp(self):
        super().setUp()
        typed.register()
        self.channel = xidata.channel(name(), capacity=1 << 20)
        self.strict = xidata.channel(self.channel.name, pickle="refuse")

    def tearDown(self):
        for kind in [k for k in _types.REGISTERED if k is not _types._Chained]:
            xidata.unregister(kind)
        self.channel.free()
        self.strict.free()
        super().tearDown()

    def trip(self, value, into=None, out=None):
        (into or self.channel).send(value, SOON)
        return (out or self.channel).recv(SOON)

    def same(self, value, **ways):
        back = self.trip(value, **ways)
        self.assertIs(type(back), type(value))
        self.assertEqual(canon(back), canon(value))
        return back

    def refused(self, value, why, into=None):
        (into or self.strict).send(value, SOON)
        with self.assertRaisesRegex(xidata.DecodeError, why) as caught:
            self.strict.recv(SOON)
        return caught.exception.__cause__


class Natively(World):
    """Sent where pickles are refused, so none of it is one."""

    def test_each(self):
        for value in NATIVE:
            with self.subTest(repr(value)):
                back = self.same(value, into=self.strict)
                if isinstance(value, enum.Enum) and value in tuple(type(value)):
                    self.assertIs(back, value)
                self.same([value, {"in": (value,)}], into=self.strict)

    def test_fields_of_the_wrong_names_are_told(self):
        for where, items in (("typed:Pair", {"left": 1, "other": 2}), ("typed:Pair", {"left": 1})):
            with self.assertRaisesRegex(xidata.Mismatch, "has the fields"):
                _types.make(_types.NAMEDTUPLE, (where, items), True)
        for where, items, why in (("typed:Slotted", {"a": 1}, "a field b here"), ("typed:Slotted", {"a": 1, "b": 2, "c": 3}, "no field c"),
                                  ("typed:Item", {"parts": 1}, "a field name here")):
            with self.assertRaisesRegex(xidata.Mismatch, why):
                _types.make(_types.DATACLASS, (where, items), True)
        for extension, where in ((_types.ENUM, "typed:Pair"), (_types.NAMEDTUPLE, "typed:Item"), (_types.DATACLASS, "os:path")):
            with self.assertRaisesRegex(xidata.Mismatch, "is not here what it is"):
                _types.make(extension, (where, {}) if extension != _types.ENUM else (where, "A", None), True)
        with self.assertRaisesRegex(xidata.Mismatch, "no member BLUE"):
            _types.make(_types.ENUM, ("typed:Color", "BLUE", 3), True)

    def test_no_code_of_the_class_runs(self):
        value = Frozen("made once")
        self.same(value, into=self.strict)
        self.assertEqual(Frozen.made.count("made once"), 1)

    def test_notes_and_attributes_of_exceptions(self):
        error = ValueError("x")
        error.__notes__ = ["one", "two"]
        error.detail = {"a": [1]}
        back = self.same(error, into=self.strict)
        self.assertEqual((back.__notes__, back.detail), (["one", "two"], {"a": [1]}))

    def test_sharing_is_kept_as_a_pickle_keeps_it(self):
        item, error = Item("once"), ValueError("once")
        for value in ([item, item], [error, error]):
            back = self.trip(value)
            self.assertIs(back[0], back[1])
        back = self.trip([item, [Item(item)]])
        self.assertIs(back[0], back[1][0].name)
        back = self.trip([Item("a"), Item("a")])
        self.assertIsNot(back[0], back[1])
        item.parts = item
        back = self.trip(item)
        self.assertIs(back.parts, back)
        again = Item("again")
        back = self.trip([again, again], into=self.strict)  # no pickle is to be had: two, as of a list
        self.assertEqual(back[0], back[1])
        with self.assertRaisesRegex(ValueError, "contains itself"):
            self.strict.send(item)

    def test_what_is_not_exact_is_a_pickle(self):
        class Local(enum.Enum):
            A = 1

        with self.assertRaises((pickle.PicklingError, AttributeError)):
            self.channel.send(Local.A)
        with self.assertRaisesRegex(ValueError, "refuses pickles"):
            self.strict.send(Local.A)
        for value in (Reduces(1), States(1), Keyed(a=1), Listed([1]), time.gmtime(0), os.stat("/"), types.SimpleNamespace(a=1)):
            with self.subTest(repr(value)), self.assertRaisesRegex(ValueError, "refuses pickles"):
                self.strict.send(value)
            back = self.trip(value)
            self.assertIs(type(back), type(value))
            self.assertEqual(back, value)

    def test_copyreg_is_obeyed(self):
        copyreg.pickle(Ruled, lambda r: (Ruled, (r.x + 1,)))
        try:
            self.assertEqual(self.trip(Ruled(1)), Ruled(2))
        finally:
            del copyreg.dispatch_table[Ruled]

    def test_a_class_made_anew_is_the_new_one(self):
        module = types.ModuleType("test_python_types_made")
        sys.modules[module.__name__] = module
        try:
            for text in ("class C(enum.Enum): A = 1", "class C(enum.Enum): A = 1"):
                exec("import enum\n" + text, module.__dict__)
                self.assertIs(self.trip(module.C.A), module.C.A)
        finally:
            del sys.modules[module.__name__]


@dataclasses.dataclass
class Reduces:
    x: int

    def __reduce__(self):
        return Reduces, (self.x,)


@dataclasses.dataclass
class States:
    x: int

    def __getstate__(self):
        return {"x": self.x}


@dataclasses.dataclass
class Ruled:
    x: int


@dataclasses.dataclass
class Keyed(dict):
    a: int


class Listed(list):
    _fields = ("a",)


class Tracebacks(World):
    def raised(self):
        try:
            try:
                {}["missing"]
            except KeyError as error:
                raise Refused(1, "wrapped") from error
        except Refused as error:
            return error

    def test_the_text_comes_along(self):
        back = self.trip(self.raised(), into=self.strict, out=self.channel)
        self.assertEqual((back.code, back.reason), (1, "wrapped"))
        self.assertIsInstance(back.__cause__, KeyError)
        remote = back.__cause__.__cause__
        self.assertIsInstance(remote, xidata.RemoteTraceback)
        for part in ('{}["missing"]', "KeyError", "direct cause", "in raised", "Refused: 1: wrapped"):
            self.assertIn(part, str(remote))
        self.assertIsNone(back.__traceback__)

    def test_it_goes_on_with_the_exception(self):
        back = self.trip(self.trip(self.raised()))
        self.assertEqual(str(back.__cause__.__cause__).count("in raised"), 2)  # its own, and its cause's
        try:
            raise back
        except Refused as error:
            again = self.trip(error)
        text = str(again.__cause__.__cause__)
        self.assertEqual((text.count("in raised"), text.count("in test_it_goes_on_with")), (2, 1))
        self.assertIsNone(again.__cause__.__cause__.__cause__)

    def test_without_one_there_is_none(self):
        back = self.trip(ValueError(1))
        self.assertIsNone(back.__cause__)
        self.assertFalse(back.__suppress_context__)

    def test_context_and_from_none(self):
        for suppress in (False, True):
            try:
                try:
                    1 / 0
                except ZeroDivisionError:
                    if suppress:
                        raise ValueError("v") from None
                    raise ValueError("v")
            except ValueError as error:
                back = self.trip(error)
            self.assertIsInstance(back.__context__, ZeroDivisionError)
            self.assertEqual(back.__suppress_context__, suppress)

    def test_a_cause_that_has_no_name(self):
        class Local(Exception):
            pass

        try:
            raise ValueError("v") from Local("hidden")
        except ValueError as error:
            back = self.trip(error, into=self.strict)
        self.assertIsInstance(back.__cause__, xidata.RemoteException)
        self.assertIn("Local", back.__cause__.class_name)
        self.assertIn("hidden", str(back.__cause__))

    def test_groups(self):
        if sys.version_info < (3, 11):
            self.skipTest("exception groups are of 3.11 and later")
        group = ExceptionGroup("g", [ValueError(1), self.raised()])
        back = self.trip(group, into=self.strict)
        self.assertEqual([type(e) for e in back.exceptions], [ValueError, Refused])
        self.assertIn("in raised", str(back.exceptions[1].__cause__.__cause__))

    def test_context_in_a_circle(self):
        a, b = ValueError("a"), ValueError("b")
        a.__context__, b.__context__ = b, a
        back = self.trip(a)
        self.assertEqual(back.args, ("a",))


class Refusing(World):
    """Channels that load no pickles: a value makes nothing that the receiver did not name, and imports nothing."""

    def test_only_what_was_registered(self):
        for value in (Color.RED, Pair(1, 2), Item("i")):
            self.refused(value, "xidata.register")
            xidata.register(type(value))
            self.same(value, into=self.strict, out=self.strict)
            self.same(value)
            xidata.unregister(type(value))
            self.assertIsInstance(self.refused(value, "xidata.register"), xidata.AccessDenied)

    def test_exceptions(self):
        for value in (ValueError(1), OSError(2, "n", "f")):
            self.same(value, out=self.strict)
        back = self.trip(Refused(1, "r"), out=self.strict)
        self.assertIs(type(back), xidata.RemoteException)
        self.assertEqual((back.class_name, back.args, back.code), ("typed:Refused", ("1: r",), 1))
        self.same(back, out=self.strict)
        self.assertEqual(canon(self.trip(back)), canon(Refused(1, "r")))  # sent on to one who knows it
        xidata.register(Refused)
        self.same(Refused(1, "r"), out=self.strict)

    def test_nothing_is_imported(self):
        before = set(sys.modules)
        for extension, payload in ((11, ("antigravity:x", "A", None)), (12, ("this:x", {})), (13, ("this:x", {}))):
            with self.assertRaises(xidata.AccessDenied):
                _types.make(extension, payload, False)
        made = _types.make(14, ("this:x", (), None, None, None, False, None), False)
        self.assertIs(type(made), xidata.RemoteException)
        self.assertEqual(set(sys.modules) - before, set())

    def test_builtins_that_are_no_exceptions(self):
        for where in ("builtins:eval", "builtins:int", "builtins:object", "builtins:open"):
            made = _types.make(14, (where, ("1",), None, None, None, False, None), False)
            self.assertIs(type(made), xidata.RemoteException)
            with self.assertRaises((xidata.Mismatch, xidata.AccessDenied)):
                _types.make(14, (where, ("1",), None, None, None, False, None), True)
                raise xidata.Mismatch  # a stand-in: nothing of it was called

    def test_attributes(self):
        xidata.register(Item)
        xidata.register(Refused)
        with self.assertRaisesRegex(xidata.Mismatch, "no field __class__"):
            _types.make(13, ("typed:Item", {"name": 1, "parts": 2, "__class__": 3}), False)
        with self.assertRaises(xidata.Corrupt):
            _types.make(14, ("typed:Refused", (), {"__reduce__": 1}, None, None, False, None), False)

    def test_other_payloads(self):
        """Whatever another process writes is an exception, and none of Python's own accidents beyond those of calls."""
        xidata.register(Color), xidata.register(Pair), xidata.register(Item), xidata.register(Refused)
        odd = [None, 1, "x", b"x", (), [], {}, ("typed:Pair",), {"a": 1}, ValueError(), "typed:Item", "typed:Color", "builtins:OSError"]
        tried = made = 0
        for extension in (11, 12, 13, 14, 65535, 300, 299):
            for n in (0, 1, 2, 3):
                for parts in itertools.product(odd, repeat=n) if n < 3 else itertools.product(odd[:6] + odd[-3:], repeat=3):
                    for payload in (parts, list(parts)) if n == 1 else (parts,):
                        tried += 1
                        try:
                            _types.make(extension, payload, False)
                            made += 1
                        except Exception:
                            pass
        for parts in itertools.product(odd, odd, odd):
            for payload in (("builtins:OSError",) + parts + (None, False, None), ("typed:Refused", ()) + parts + (True, "x")):
                tried += 1
                try:
                    self.assertIsInstance(_types.make(14, payload, False), BaseException)
                    made += 1
                except (xidata.Error, TypeError, ValueError, AttributeError):
                    pass
        self.assertGreater(tried, 5000)
        self.assertGreater(made, 10)

    def test_codecs_are_asked_for(self):
        self.same(Version(1, 2), into=self.strict, out=self.strict)
        xidata.unregister(Version)
        with self.assertRaisesRegex(ValueError, "refuses pickles"):
            self.strict.send(Version(1, 2))


class Codecs(World):
    def test_name_and_id(self):
        for value in (Version(1, "two"), Token(5), Token([Version(1, Token(None))]), {"v": Version(1, 2)}, [Item(Version(3, 4))]):
            self.same(value, into=self.strict)

    def test_in_a_pickle(self):
        plain = types.SimpleNamespace(token=Token([Version(1, 2)]))
        back = self.trip(plain)
        self.assertEqual(canon(back.token), canon(plain.token))

    def test_unknown(self):
        for value, why in ((Version(1, 2), "registered type 'test.version'"), (Token(1), "registered type 300")):
            self.channel.send(value)
            xidata.unregister(type(value))
            with self.assertRaisesRegex(xidata.DecodeError, why):
                self.channel.recv(SOON)

    def test_own_errors(self):
        def fail(_):
            raise ZeroDivisionError("in a codec")

        xidata.register(Version, fail, Version, name="v")
        with self.assertRaises(ZeroDivisionError):
            self.channel.send([1, Version(1, 2)])
        xidata.register(Version, lambda v: 5, fail, name="v")
        self.channel.send([Version(1, 2)])
        with self.assertRaisesRegex(xidata.DecodeError, "in a codec"):
            self.channel.recv(SOON)
        self.assertEqual(self.trip("goes on"), "goes on")

    def test_one_that_never_ends(self):
        xidata.register(Version, lambda v: [v], Version, name="v")
        with self.assertRaisesRegex(ValueError, "contains itself"):
            self.strict.send(Version(1, 2))
        xidata.register(Version, lambda v: Version(1, 2), Version, name="v")
        with self.assertRaisesRegex(ValueError, "256 levels"):
            self.strict.send(Version(1, 2))

    def test_codec_that_sends_itself(self):
        other = xidata.channel(name())
        xidata.register(Version, lambda v: (other.send([v.major]), v.minor)[1], lambda m: Version(other.recv(SOON)[0], m), name="v")
        back = self.trip([Version(1, 2), Version(3, 4)])
        self.assertEqual([(v.major, v.minor) for v in back], [(1, 2), (3, 4)])
        other.free()

    def test_what_register_refuses(self):
        for kind, error in ((int, ValueError), (dict, ValueError), (xidata.Channel, ValueError), (5, TypeError)):
            with self.assertRaises(error):
                xidata.register(kind, str, str, name="n")
        for options in ({"name": ""}, {"name": 255}, {"name": 65535}, {"name": "x" * 256}, {"name": "test.version"}, {"name": b"x"}):
            with self.assertRaises(xidata.InvalidArgument):
                xidata.register(Item, str, str, **options)
        for arguments in ((Item, str), (Item, None, str), (Version,), (types.SimpleNamespace,)):
            with self.assertRaises(xidata.InvalidArgument):
                xidata.register(*arguments)
        with self.assertRaises(TypeError):
            xidata.register(Item, 1, 2)
        with self.assertRaises(LookupError):
            xidata.unregister(Item)

    def test_register_is_a_decorator_and_can_be_repeated(self):
        self.assertIs(xidata.register(Item), Item)
        xidata.register(Item, lambda i: i.name, Item)
        self.assertEqual(_types.REGISTERED[Item], "typed.Item")
        self.same(Item([1]), into=self.strict)
        xidata.register(Item)
        self.assertNotIn("typed.Item", _types.CODECS)
        self.same(Item([1]), into=self.strict, out=self.strict)


class Subinterpreters(World):
    def test_each_has_its_own(self):
        if not 0x030C0000 <= sys.hexversion < 0x030D0000:
            self.skipTest("run with 3.12, whose _xxsubinterpreters is tried")
        import _xxsubinterpreters as sub

        other = sub.create()
        try:
            sub.run_string(other, "import xidata._types as t; assert not t.CODECS, t.CODECS; assert not t.KNOWN")
        finally:
            sub.destroy(other)


class Cannot(World):
    CODE = """
import sys, xidata
incoming, outgoing = xidata.channel(sys.argv[1]), xidata.channel(sys.argv[2])
for _ in range(3):
    try:
        got = incoming.recv(20)
        outgoing.send((type(got).__name__, str(got), got.class_name))
        outgoing.send(got)
    except xidata.DecodeError as error:
        outgoing.send(str(error))
"""

    def test_who_has_not_the_module(self):
        there, back = xidata.channel(name()), xidata.channel(name())
        without = {k: v for k, v in os.environ.items()}
        without["PYTHONPATH"] = without["PYTHONPATH"].split(os.pathsep, 1)[1]
        child = self.child(self.CODE, there.name, back.name, env=without, cwd="/")
        there.send(Item("i"))
        self.assertRegex(back.recv(SOON), "typed:Item cannot be had here: No module named 'typed'")
        there.send(Color.RED)
        self.assertRegex(back.recv(SOON), "typed:Color cannot be had here")
        there.send(Refused(1, "why"))
        self.assertEqual(back.recv(SOON), ("RemoteException", "typed:Refused: 1: why", "typed:Refused"))
        self.assertEqual(canon(back.recv(SOON)), canon(Refused(1, "why")))
        self.finished(child)


# -------------------------------------------------------------------- any value, through every pair of versions


def strategies():
    zones = st.none() | st.integers(-86399, 86399).map(lambda s: dt.timezone(dt.timedelta(seconds=s)))
    exact = st.one_of(
        st.none(), st.booleans(), st.integers(), st.integers(-(2**200), 2**200), st.text(), st.text(st.characters()), st.binary(),
        st.dates(), st.timedeltas(), st.uuids(), st.fractions(), st.times(timezones=zones), st.datetimes(timezones=zones),
        st.decimals(allow_nan=False), st.complex_numbers(allow_nan=False), st.floats(allow_nan=False),
        st.builds(range, st.integers(), st.integers(), st.integers(1, 9)),
        st.sampled_from(list(Color) + list(Level) + [Right.READ | Right.RUN, Bits(0), Bits.A | Bits.B]),
    )
    hashable = st.recursive(exact, lambda inner: st.one_of(
        st.tuples(inner, inner), st.frozensets(inner, max_size=3), st.builds(Pair, inner, inner), st.builds(Frozen, inner, inner)),
        max_leaves=5)
    loose = st.one_of(hashable, st.floats(), st.complex_numbers(), st.decimals(), st.binary().map(bytearray),
                      st.text(st.characters(whitelist_categories=["Cs", "Lu", "So"])))

    def more(inner):
        args = st.lists(inner, max_size=3)
        return st.one_of(
            st.lists(inner), st.tuples(inner, inner), st.dictionaries(hashable, inner, max_size=4), st.sets(hashable, max_size=4),
            st.builds(Typed, st.text(), inner), st.builds(Sub, inner, inner), st.builds(Item, inner, inner), st.builds(Slotted, inner, inner),
            st.builds(Version, inner, inner), st.builds(Token, inner), st.builds(lambda a: ValueError(*a), args),
            st.builds(Refused, inner, inner), st.builds(Lost, st.integers(1, 99), st.text(), st.text()),
        )

    return st.recursive(loose, more, max_leaves=20)


def every_pair(n):
    """A way through 0 ... n - 1 that goes from each to each, itself included, once."""
    left, stack, way = {i: list(range(n)) for i in range(n)}, [0], []
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            way.append(stack.pop())
    assert len(way) == n * n + 1
    return way[::-1]


class AnyValue(World):
    @unittest.skipUnless(st, "needs Hypothesis (Debian: python3-hypothesis), which is here for the system's CPython")
    def test_through_every_pair_of_versions(self):
        pythons = [sys.executable] + other_pythons()
        lanes, home = [], xidata.channel(name("home"), capacity=1 << 20)
        for python in pythons:
            lanes.append(xidata.channel(name("lane"), capacity=1 << 20))
            self.child(typed.RELAY, lanes[-1].name, python=python)
        tour = every_pair(len(lanes))
        route = [lanes[i].name for i in tour[1:]] + [home.name]
        values = hops = size = 0

        def one(value):
            nonlocal values, hops, size
            wanted = canon(value)
            lanes[tour[0]].send((route, wanted, [], value), SOON)
            left, _, wrong, back = home.recv(SOON)
            self.assertEqual((left, wrong, canon(back)), ([], [], wanted))
            values, hops, size = values + 1, hops + len(tour), max(size, len(repr(wanted)))

        began = time.monotonic()
        for value in NATIVE:
            one(value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings(max_examples=8000 if LONG else 80, deadline=None, database=None, derandomize=not LONG,
                     suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])(given(strategies())(one))()
        for lane, child in zip(lanes, self.children):
            lane.close()
            self.finished(child)
        print("%d versions, %d pairs, %d values, %d times sent and received, the largest value written out %d characters, 0 differed, %.1f s"
              % (len(pythons), len(set(zip(tour, tour[1:]))), values, hops + values, size, time.monotonic() - began))


if __name__ == "__main__":
    main()
