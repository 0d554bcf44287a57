# SPDX-License-Identifier: MIT
"""Every kind of value, and its edges, through a channel: equal, and of the same type, on the other side."""

import array
import collections
import datetime as dt
import decimal
import enum
import fractions
import math
import os
import pickle
import struct
import sys
import unittest
import uuid

from pyhelp import BIG, SOON, TestCase, main, name, numpy, start, xidata

ECHO = """
import sys, xidata
incoming, outgoing = xidata.channel(sys.argv[1]), xidata.channel(sys.argv[2])
for value in incoming:
    outgoing.send(value)
    del value
"""


class Color(enum.Enum):
    RED = 1


class MyInt(int):
    pass


class MyList(list):
    pass


Point = collections.namedtuple("Point", "x y")


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __eq__(self, other):
        return type(self) is type(other) and self.__dict__ == other.__dict__


def bits(x):
    return struct.pack("<d", x)


def nested(levels, kind):
    value = kind([])
    for _ in range(levels - 1):
        value = kind([value])
    return value


INTS = sorted(
    {0, 1, -1, 255, 256}
    | {s * (2**b + d) for b in (7, 8, 15, 29, 30, 31, 32, 60, 62, 63, 64, 65, 127, 128, 4999, 5000) for d in (-1, 0, 1)
       for s in (1, -1)}
)
FLOATS = [0.0, -0.0, 1.5, -1e308, 5e-324, sys.float_info.max, math.inf, -math.inf]
NANS = [struct.unpack("<Q", struct.pack("<d", math.nan))[0], 0x7FF8000000000001, 0xFFF8DEADBEEF0001, 0x7FF4000000000123]
TEXTS = [
    "",
    "a",
    "ascii text " * 40,
    "with\0nul",
    "\x7f",
    "\x80",
    "\xff\xe9 latin",
    "\u0100",
    "\u0416\u0443\u043a" * 50,
    "\uffff",
    "\U00010000",
    "\U0001f600 emoji \U0010ffff",
    "a" * 100000 + "\U0001f600",
    "\ud800",
    "\udfff lone",
    "\U0001f600 \udc80",
]
DAYS = dt.timezone(dt.timedelta(days=-1, seconds=7200))
TIMES = [
    dt.date(1, 1, 1),
    dt.date(9999, 12, 31),
    dt.time(0),
    dt.time(23, 59, 59, 999999, fold=1),
    dt.time(1, 2, tzinfo=dt.timezone.utc),
    dt.time(1, 2, 3, tzinfo=DAYS),
    dt.datetime(1, 1, 1),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
    dt.datetime(2020, 10, 25, 2, 30, fold=1),
    dt.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=dt.timezone.utc),
    dt.datetime(2020, 1, 2, tzinfo=DAYS),
    dt.datetime(2020, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
    dt.datetime(2020, 1, 2, tzinfo=dt.timezone(dt.timedelta(microseconds=5))),
    dt.timedelta(0),
    dt.timedelta.max,
    dt.timedelta.min,
    dt.timedelta(microseconds=-1),
]
EXACT = [
    uuid.UUID(int=0),
    uuid.UUID("12345678-1234-5678-1234-567812345678"),
    uuid.uuid1(),
    decimal.Decimal("1.10"),
    decimal.Decimal("-0"),
    decimal.Decimal("-Infinity"),
    decimal.Decimal("1e-999999"),
    fractions.Fraction(0),
    fractions.Fraction(-(10**50), 3),
    range(0),
    range(10, 0, -3),
    range(10**30, 10**31, 7),
]
CONTAINERS = [
    (),
    [],
    set(),
    frozenset(),
    {},
    (1, "two", 3.0, None, True, b"x"),
    [[], [[]], ()],
    {1, "a", None, (1, 2), frozenset([3])},
    frozenset([frozenset(), "x"]),
    {"b": 1, "a": [2], 3: {4: {}}, None: None, (1, 2): {5}},
    nested(10, list),
    nested(10, tuple),
    nested(256, list),
    list(range(100000)),
    tuple(float(i) for i in range(100000)),
    {i: str(i) for i in range(100000)},
    set(range(100000)),
    ["x" * 5000] * 3,
    [b"y" * 300000, "z" * 300000, 1],
]
PICKLED = [
    Color.RED,
    MyInt(5),
    MyList([1, 2]),
    Point(1, 2),
    Thing(a=1, b=[2]),
    [Thing(a=1), {"x": Thing()}],
    collections.OrderedDict(a=1),
    array.array("d", [1.0, 2.0]),
    array.array("d", range(5000)),
    1 + 2j,
    complex(-0.0, math.inf),
    nested(257, list),
    nested(500, tuple),
    Ellipsis,
    NotImplemented,
    int,
    len,
]


class Values(TestCase):
    """In one process: the value still goes through shared memory."""

    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name(), capacity=1 << 20)

    def tearDown(self):
        self.channel.free()
        super().tearDown()

    def trip(self, value):
        self.channel.send(value, SOON)
        return self.channel.recv(SOON)

    def same(self, value):
        back = self.trip(value)
        self.assertIs(type(back), type(value))
        self.assertEqual(back, value)
        return back

    def test_singletons(self):
        for value in (None, True, False, Ellipsis):
            self.assertIs(self.trip(value), value)

    def test_ints(self):
        for value in INTS:
            self.same(value)

    def test_floats(self):
        for value in FLOATS:
            self.assertEqual(bits(self.trip(value)), bits(value))

    def test_nan_payloads(self):
        for number in NANS:
            value = struct.unpack("<d", struct.pack("<Q", number))[0]
            self.assertEqual(bits(self.trip(value)), bits(value))
            back = self.trip([complex(value, -0.0)])[0]
            self.assertEqual((bits(back.real), bits(back.imag)), (bits(value), bits(-0.0)))

    def test_text(self):
        for value in TEXTS:
            back = self.same(value)
            self.assertLessEqual(sys.getsizeof(back), sys.getsizeof("".join(list(value))), repr(value)[:40])
            self.assertEqual(self.trip([value, {value: value}]), [value, {value: value}])

    def test_text_that_is_wider_than_need_be(self):
        wide = "\u0416abc"[1:]
        self.assertEqual(self.trip(wide), "abc")

    def test_bytes(self):
        for n in (0, 1, 7, 8, 9, 127, 128, 4000, 4095, 4096, 4097, 70000, 1 << 20, (1 << 22) + 1):
            value = os.urandom(min(n, 1000)) * (n // 1000 + 1)
            self.same(value[:n])
            self.same(bytearray(value[:n]))

    def test_containers(self):
        for value in CONTAINERS:
            self.same(value)

    def test_order_of_dicts(self):
        value = {i: None for i in (5, 3, 9, "x", 1)}
        self.assertEqual(list(self.trip(value)), list(value))

    def test_types_inside_containers(self):
        back = self.trip([True, 1, 1.0, (1,), bytearray(b"x"), b"x", {1}, frozenset([1])])
        self.assertEqual([type(v) for v in back], [bool, int, float, tuple, bytearray, bytes, set, frozenset])

    def test_times(self):
        for value in TIMES:
            back = self.same(value)
            self.assertEqual(repr(back), repr(value))
            self.assertEqual(getattr(back, "fold", 0), getattr(value, "fold", 0))

    def test_exact_types(self):
        for value in EXACT:
            self.assertEqual(repr(self.same(value)), repr(value))
        self.assertEqual(self.same(uuid.uuid1()).is_safe, uuid.uuid1().is_safe)
        self.assertEqual(str(self.trip(decimal.Decimal("sNaN123"))), "sNaN123")

    def test_pickled(self):
        for value in PICKLED:
            back = self.trip(value)
            self.assertIs(type(back), type(value))
            if value != value:
                continue
            self.assertEqual(pickle.dumps(back), pickle.dumps(value)) if len(repr(value)) > 400 else self.assertEqual(
                back, value
            )

    def test_cycle(self):
        value = [1]
        value.append(value)
        back = self.trip(value)
        self.assertIs(back[1], back)
        value = {}
        value["me"] = [(value,)]
        back = self.trip(value)
        self.assertIs(back["me"][0][0], back)

    def test_identity_inside_a_pickle(self):
        thing = Thing(a=1)
        back = self.trip([thing, thing])
        self.assertIs(back[0], back[1])

    def test_value_that_would_grow_exponentially(self):
        value = []
        for _ in range(60):
            value = [value, value]
        back = self.trip(value)
        self.assertIs(back[0], back[1])

    def test_unpicklable(self):
        for value in (lambda: 0, [(i for i in ())]):
            with self.assertRaises((TypeError, pickle.PicklingError, AttributeError)):
                self.channel.send(value)
        self.assertEqual(self.trip(1), 1)

    def test_refuse_pickle(self):
        strict = xidata.channel(self.channel.name, pickle="refuse")
        with self.assertRaisesRegex(ValueError, "refuses pickles"):
            strict.send(Thing())
        with self.assertRaisesRegex(ValueError, "256 levels"):
            strict.send(nested(257, list))
        cycle = []
        cycle.append(cycle)
        with self.assertRaisesRegex(ValueError, "contains itself"):
            strict.send(cycle)
        strict.send([1, (2,)])
        self.assertEqual(strict.recv(), [1, (2,)])
        self.channel.send(Thing())
        with self.assertRaisesRegex(xidata.DecodeError, "pickle"):
            strict.recv()
        with self.assertRaises(xidata.Empty):
            strict.recv(0)
        strict.free()

    def test_deep_recursion_is_a_clean_error(self):
        with self.assertRaises(RecursionError):
            self.channel.send(nested(1000000, list))
        self.assertEqual(self.trip("still here"), "still here")

    def test_memoryviews(self):
        for data in (b"", b"x", b"abc" * 5000):
            back = self.trip(memoryview(data))
            self.assertIs(type(back), memoryview)
            self.assertTrue(back.readonly)
            self.assertEqual(back, data)
        self.assertEqual(bytes(self.trip(memoryview(b"0123456789")[::3])), b"0369")
        self.assertEqual([bytes(v) for v in self.trip([memoryview(b"a"), memoryview(b"bc")])], [b"a", b"bc"])
        with self.assertRaisesRegex(TypeError, "format 'd'"):
            self.channel.send(memoryview(array.array("d", [1.0])))

    def test_handles(self):
        back = self.trip(self.channel)
        self.assertIsInstance(back, xidata.Channel)
        self.assertEqual(back.name, self.channel.name)
        back.send(5)
        self.assertEqual(self.channel.recv(), 5)
        back.free()
        me = xidata.current()
        self.assertEqual(self.trip(me), me.id)
        self.assertIsInstance(self.trip([me])[0], xidata.InterpreterId)
        self.assertEqual(self.trip(xidata.InterpreterId(7)), 7)
        self.assertIsInstance(self.trip(Thing(c=self.channel)).c, xidata.Channel)

    def test_mutation_while_sending(self):
        class Evil(dt.tzinfo):
            pass

        value = {i: i for i in range(10)}
        value[3] = decimal.Decimal(1)
        self.assertEqual(self.trip(value), value)

    @unittest.skipUnless(BIG, "with the system's CPython, or XI_TEST_BIG=1")
    def test_a_gibibyte(self):
        space = os.statvfs("/dev/shm")
        if space.f_bavail * space.f_frsize < 3 << 30:
            self.skipTest("/dev/shm has less than 3 GiB")
        value = bytearray(1 << 30)
        value[::4096] = b"x" * (1 << 18)
        value = bytes(value)
        self.assertTrue(self.trip(value) == value)
        self.channel.send([1, value])
        del value
        back = self.channel.recv(zero_copy=True)
        self.assertEqual((back[0], len(back[1]), bytes(back[1][-4096:-4094])), (1, 1 << 30, b"x\0"))


@unittest.skipUnless(numpy, "no numpy")
class Arrays(TestCase):
    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name(), capacity=1 << 20)

    def trip(self, value):
        self.channel.send(value, SOON)
        return self.channel.recv(SOON)

    def same(self, value):
        back = self.trip(value)
        self.assertIs(type(back), numpy.ndarray)
        self.assertEqual(back.dtype, value.dtype)
        self.assertEqual(back.dtype.str, value.dtype.str)
        self.assertEqual(back.shape, value.shape)
        self.assertEqual(back.tobytes("A"), value.tobytes("A"))
        self.assertFalse(back.flags.writeable)
        self.assertTrue((numpy.asarray(back) == value).all() or value.dtype.kind in "fc")
        return back

    def test_every_kind_of_dtype(self):
        for text in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "f16", "c8", "c16", ">i4", ">f8",
                     "M8[ns]", "M8[D]", "m8[us]", "S1", "S7", "U1", "U9", ">U3", "V5", "S0"):
            for n in (1, 10, 5000):
                data = numpy.zeros(n, text)
                if data.dtype.kind in "iufc":
                    data[:] = numpy.arange(n) % 100
                elif data.dtype.kind in "SU" and data.dtype.itemsize:
                    data[:] = "\u0416"[: data.dtype.kind == "U"] or "x"
                elif data.dtype.kind in "Mm":
                    data = numpy.arange(n).astype("i8").view(data.dtype)
                self.same(data)

    def test_structured(self):
        plain = numpy.dtype([("a", "i4"), ("b", "f8"), ("c", "S3")])
        aligned = numpy.dtype([("a", "i1"), ("b", "f8"), ("c", [("d", "u2"), ("e", "i4", (2, 3))])], align=True)
        for dtype in (plain, aligned, numpy.dtype({"names": ["x", "y"], "formats": ["i2", "f4"], "offsets": [0, 6]})):
            for n in (3, 2000):
                data = numpy.zeros(n, dtype)
                data[dtype.names[0]] = numpy.arange(n) % 100
                back = self.same(data)
                self.assertEqual(back.dtype.names, dtype.names)
                self.assertEqual(back.dtype.itemsize, dtype.itemsize)

    def test_what_numpy_cannot_name_is_pickled(self):
        overlapping = numpy.dtype({"names": ["x", "y"], "formats": ["i4", "i2"], "offsets": [0, 2]})
        data = numpy.arange(10, dtype="i4").view(overlapping)
        back = self.trip(data)
        self.assertEqual(back.dtype, overlapping)
        self.assertEqual(back.tobytes(), data.tobytes())
        with_metadata = numpy.zeros(3, numpy.dtype("i4", metadata={"unit": "m"}))
        self.assertEqual(self.trip(with_metadata).tobytes(), with_metadata.tobytes())
        objects = numpy.array([1, "two", None, [3]], object)
        self.assertEqual(self.trip(objects).tolist(), objects.tolist())

    def test_layouts(self):
        for n in (3, 40):
            base = numpy.arange(n * n * n, dtype="i4").reshape(n, n, n)
            for view in (base, base.T, base[::2], base[:, ::-1], base[1:, :, 2:], base.transpose(1, 0, 2), base[0, 0],
                         numpy.broadcast_to(base[0, 0], (n, n, n)), numpy.asfortranarray(base)):
                back = self.trip(view)
                self.assertTrue(numpy.array_equal(back, view))
                self.assertEqual(back.flags.c_contiguous, view.flags.c_contiguous or not view.flags.f_contiguous)
                self.assertEqual(back.flags.f_contiguous, view.flags.f_contiguous)
        wide = numpy.zeros((20, 30), "f4")[::2, ::3]
        self.assertTrue(numpy.array_equal(self.trip(wide), wide))

    def test_zero_dimensions_and_zero_sizes(self):
        back = self.same(numpy.array(5.5))
        self.assertEqual(back.shape, ())
        for shape in ((0,), (3, 0), (0, 5, 2)):
            self.same(numpy.zeros(shape, "f8"))
            self.same(numpy.zeros(shape, [("a", "i4")]))

    def test_many_dimensions(self):
        self.same(numpy.zeros((1,) * 32))
        self.same(numpy.arange(2**12).reshape((2,) * 12))

    def test_not_copied(self):
        back = self.trip(numpy.arange(1 << 20, dtype="f8"))
        self.assertIsInstance(back.base, xidata.View)
        self.assertEqual(back.__array_interface__["data"][0] % 64, 0)
        before = self.channel.interpreter.stats()["borrows"]
        part = back[10:20:2]
        del back
        self.assertEqual(self.channel.interpreter.stats()["borrows"], before)
        self.assertEqual(part.tolist(), [10, 12, 14, 16, 18])
        del part
        self.assertEqual(self.channel.interpreter.stats()["borrows"], before - 1)

    def test_several_in_one_value(self):
        value = {"a": numpy.arange(10000), "b": [numpy.zeros((100, 100)), numpy.ones(5)], "c": (b"x" * 10000, "y")}
        back = self.trip(value)
        self.assertTrue(numpy.array_equal(back["a"], value["a"]))
        self.assertTrue(numpy.array_equal(back["b"][0], value["b"][0]))
        self.assertTrue(numpy.array_equal(back["b"][1], value["b"][1]))
        self.assertEqual(back["c"], value["c"])

    def test_inside_a_pickle(self):
        value = Thing(small=numpy.arange(5), large=numpy.arange(100000.0), f=numpy.asfortranarray(numpy.ones((90, 80))))
        back = self.trip(value)
        self.assertEqual(back.small.tolist(), [0, 1, 2, 3, 4])
        self.assertTrue(numpy.array_equal(back.large, value.large))
        self.assertTrue(back.f.flags.f_contiguous and numpy.array_equal(back.f, value.f))

    def test_scalars_and_subclasses(self):
        for value in (numpy.float64(1.5), numpy.int32(7), numpy.datetime64("2020-01-01"), numpy.matrix([[1, 2]])):
            back = self.trip(value)
            self.assertIs(type(back), type(value))
            self.assertTrue((back == value).all() if hasattr(value, "all") else back == value)
        masked = numpy.ma.array([1, 2, 3], mask=[0, 1, 0])
        self.assertEqual(self.trip(masked).tolist(), masked.tolist())


class WithoutNumpy(TestCase):
    """Numbers arrive as a typed memoryview where there is no numpy."""

    CODE = """
import sys
sys.modules["numpy"] = None
import xidata
incoming, outgoing = xidata.channel(sys.argv[1]), xidata.channel(sys.argv[2])
v = incoming.recv(20)
outgoing.send((type(v).__name__, v.format, v.shape, v.readonly, v.tolist()[:2]))
try:
    incoming.recv(20)
except xidata.DecodeError as e:
    outgoing.send(str(e))
"""

    @unittest.skipUnless(numpy, "no numpy")
    def test_fallback(self):
        there, back = xidata.channel(name()), xidata.channel(name())
        child = self.child(self.CODE, there.name, back.name)
        there.send(numpy.arange(6000, dtype="i4").reshape(1000, 6))
        self.assertEqual(
            back.recv(SOON), ("memoryview", "i", (1000, 6), True, [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]])
        )
        there.send(numpy.zeros(3, "M8[ns]"))
        self.assertIn("install numpy", back.recv(SOON))
        self.finished(child)


class BetweenProcesses(TestCase):
    def test_echo(self):
        there, back = xidata.channel(name(), capacity=1 << 20), xidata.channel(name(), capacity=1 << 20)
        child = self.child(ECHO, there.name, back.name)
        for value in INTS + FLOATS + TEXTS + TIMES + EXACT + CONTAINERS + [bytearray(b"x" * 10000), b"y" * (1 << 21)]:
            there.send(value, SOON)
            answer = back.recv(SOON)
            self.assertIs(type(answer), type(value))
            self.assertEqual(answer, value)
        if numpy:
            array_ = numpy.arange(12345.0).reshape(5, -1)
            there.send(array_)
            self.assertTrue(numpy.array_equal(back.recv(SOON), array_))
        there.close()
        self.finished(child)


if __name__ == "__main__":
    main()
