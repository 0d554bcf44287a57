# SPDX-License-Identifier: MIT
"""Whatever bytes another process sends: an error or a valid object, never a crash and never a broken str.

The bytes are sent through the C library by ctypes, as a process would that means harm.
"""

import ctypes
import glob
import os
import random
import struct
import sys
import unittest

from pyhelp import TestCase, main, name, numpy, xidata
from test_python_values import CONTAINERS, EXACT, FLOATS, INTS, TEXTS, TIMES

BUILD = os.environ.get("XI_BUILD", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(xidata.__file__)))))
LIBRARY = (glob.glob(os.path.join(BUILD, "lib", "libxidata.so")) or [None])[0]

NONE, BOOL, INT32, INT64, FLOAT, BIGINT, STR, BYTES = 1, 2, 3, 16, 17, 19, 20, 21
TUPLE, LIST, SET, DICT, EXT, BUFFER, NDARRAY, PICKLE = 32, 33, 34, 36, 40, 41, 42, 43
CHANNEL, CAPACITY = 7, 1 << 20  # the kind of its segment, its bytes
ASCII, LATIN1, UCS2, UCS4, UTF16, UTF8, SURROGATES = 0, 1, 2, 3, 4, 5, 8


def head(tag, flags=0, aux=0, size=0):
    return struct.pack("<BBHI", tag, flags, aux, size)


def blob(tag, flags, data):
    padding = -len(data) % 8
    return head(tag, flags, padding, 8 + len(data) + padding) + data + bytes(padding)


def number(n):
    return head(INT32, 0, 0, n & 0xFFFFFFFF)


def counted(tag, *children, count=None):
    body = b"".join(children)
    n = len(children) // (2 if tag == DICT else 1) if count is None else count
    return head(tag, 0, 0, 16 + len(body)) + struct.pack("<Q", n) + body


def ext(id, child):
    return head(EXT, 0, id, 8 + len(child)) + child


def ndarray(dtype, shape, strides, data):
    dtype = dtype.encode()
    body = struct.pack("<Q", len(dtype)) + dtype + bytes(-len(dtype) % 8)
    body += struct.pack("<%dq" % (2 * len(shape)), *shape, *strides) + blob(BYTES, 0, data)
    return head(NDARRAY, 0, len(shape), 8 + len(body)) + body


class OpenOptions(ctypes.Structure):
    _fields_ = [("mode", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("capacity", ctypes.c_uint64), ("group", ctypes.c_char_p)]


@unittest.skipUnless(LIBRARY, "libxidata.so is not built")
class Hostile(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = c = ctypes.CDLL(LIBRARY)
        c.xi_join.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)]
        c.xi_open.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)]
        c.xi_send.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
        c.xi_recv.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        c.xi_leave.argtypes = [ctypes.c_void_p]
        c.xi_msg_release.argtypes = [ctypes.c_void_p]
        me = ctypes.c_void_p()
        assert c.xi_join(None, ctypes.byref(me)) == 0
        cls.me = me

    @classmethod
    def tearDownClass(cls):
        cls.c.xi_leave(cls.me)

    def setUp(self):
        super().setUp()
        self.channel = xidata.channel(name(), capacity=CAPACITY, pickle="refuse")
        self.handle = ctypes.c_void_p()
        assert self.c.xi_open(self.me, self.channel.name.encode(), None, ctypes.byref(self.handle)) == 0

    def receive(self, value):
        """What Python makes of these bytes."""
        self.assertEqual(len(value) % 8, 0)
        copy = ctypes.create_string_buffer(value, len(value))
        self.assertEqual(self.c.xi_send(self.handle, copy, len(value), 0), 0)
        return self.channel.recv(0)

    def spoil(self, position):
        """Makes the header of the record at that position of the channel's ring one that cannot be."""
        for path in glob.glob("/dev/shm/xi.%d.%s.*" % (os.getuid(), os.environ["XI_NAMESPACE"])):
            with open(path, "r+b") as file:
                start = file.read(88)
                kind = struct.unpack_from("<I", start, 12)[0]
                capacity, ring = struct.unpack_from("<QQ", start, 72)
                if kind != CHANNEL or capacity != CAPACITY:
                    continue
                file.seek(ring + position)
                header = struct.unpack("<Q", file.read(8))[0]
                self.assertEqual(header & 0xFFFFFFFF, 8)
                file.seek(ring + position)
                file.write(struct.pack("<Q", header - 4))
                return
        self.fail("the channel's segment is not in /dev/shm")

    def test_an_unreadable_record_is_told_once(self):
        ways = {
            "recv": self.channel.recv,
            "recv(0)": lambda: self.channel.recv(0),
            "try_recv": self.channel.try_recv,
            "recv_many": lambda: self.channel.recv_many(3),
            "for": lambda: next(iter(self.channel)),
        }
        position = 0
        for how, receive in ways.items():
            for behind in (False, True):  # alone, or skipped behind a value of a batch
                with self.subTest(how, behind=behind):
                    if behind:
                        self.channel.send(1)
                        position += 16
                    self.channel.send(2)
                    self.spoil(position)
                    position += 16
                    if behind:
                        self.assertEqual(self.channel.recv_many(3), [1])
                    self.assertRaises(xidata.Corrupt, receive)
                    self.assertRaises(xidata.Empty, self.channel.try_recv)
        self.channel.send(3)
        self.assertEqual(self.channel.recv(), 3)

    def refused(self, value, cause=xidata.Corrupt, zero_copy=False):
        for wrapped in (value, counted(LIST, number(1), value), counted(TUPLE, value, blob(BYTES, 0, b"x" * 9000))):
            with self.assertRaises(xidata.DecodeError) as caught:
                self.receive(wrapped)
            if cause:
                self.assertIsInstance(caught.exception.__cause__, cause)
            self.assertRaises(xidata.Empty, self.channel.recv, 0)

    def test_by_hand_is_right(self):
        self.assertEqual(self.receive(number(-5)), -5)
        self.assertEqual(self.receive(blob(STR, ASCII, b"abc")), "abc")
        self.assertEqual(self.receive(counted(DICT, number(1), blob(BYTES, 0, b"x"))), {1: b"x"})

    def test_text_that_lies(self):
        self.refused(blob(STR, ASCII, b"abc\x80"))
        self.refused(blob(STR, ASCII, b"x" * 1000 + b"\xff" + b"y" * 7))
        self.refused(blob(STR, UCS4, struct.pack("<II", 65, 0x110000)))
        self.refused(blob(STR, UCS4, struct.pack("<I", 0xFFFFFFFF)))
        self.refused(blob(STR, UCS2, struct.pack("<HH", 0x416, 0xD800)))
        self.refused(blob(STR, UCS4, struct.pack("<II", 0x1F600, 0xDFFF)))
        self.refused(blob(STR, UTF8, b"\xff\xfe"), UnicodeError)
        self.refused(blob(STR, UTF8, "\ud800".encode("utf-8", "surrogatepass")), UnicodeError)
        self.refused(blob(STR, UTF16, struct.pack("<H", 0xD800)), UnicodeError)
        self.refused(blob(STR, UCS2, b"abc"))
        self.refused(blob(STR, 6, b"abc"))

    def test_text_in_too_wide_a_form(self):
        for encoding, codec, text in (
            (LATIN1, "latin1", "plain"),
            (UCS2, "utf-16-le", "plain"),
            (UCS2, "utf-16-le", "\xe9"),
            (UCS4, "utf-32-le", "plain"),
            (UCS4, "utf-32-le", "\u0416"),
            (UTF8, "utf-8", "\u0416\U0001f600"),
            (UTF16, "utf-16-le", "\u0416\U0001f600"),
        ):
            back = self.receive(blob(STR, encoding, text.encode(codec)))
            self.assertEqual(back, text)
            self.assertEqual(hash(back), hash(text))
            self.assertLessEqual(sys.getsizeof(back), sys.getsizeof("".join(list(text))))
        self.assertEqual(self.receive(blob(STR, UCS2 | SURROGATES, struct.pack("<H", 0xD800))), "\ud800")
        self.assertEqual(self.receive(blob(STR, UTF8 | SURROGATES, b"\xed\xa0\x80")), "\ud800")

    def test_shapes_that_lie(self):
        self.refused(counted(LIST, number(1), count=2))
        self.refused(counted(LIST, number(1), number(2), count=1))
        self.refused(counted(LIST, number(1), count=1 << 60))
        self.refused(counted(TUPLE, count=1))
        self.refused(counted(DICT, number(1), number(2), number(3), count=1))
        self.refused(head(LIST, 0, 0, 1 << 30) + struct.pack("<Q", 1) + number(1))
        self.refused(head(99, 0, 0, 8))
        self.refused(head(BOOL, 0, 0, 2))
        self.refused(head(INT32, 1, 0, 2))
        self.refused(counted(SET, counted(LIST)), TypeError)
        self.refused(counted(DICT, counted(LIST), number(1)), TypeError)

    def test_extensions_that_lie(self):
        for id in range(1, 15):
            for child in (number(5), blob(STR, ASCII, b"x"), counted(TUPLE), counted(TUPLE, *[number(-1)] * 9),
                          counted(TUPLE, *[number(99999)] * 3), counted(TUPLE, number(0), number(0)), counted(LIST, number(1))):
                try:
                    self.receive(ext(id, child))
                except xidata.DecodeError as error:
                    self.assertIsInstance(error.__cause__, Exception)
        self.refused(ext(1, counted(TUPLE, number(1), number(2), number(3)) + number(4)))
        self.refused(ext(5, blob(BYTES, 0, b"x" * 15)))
        self.refused(ext(1000, number(1)), TypeError)
        self.refused(ext(65535, number(1)))
        self.refused(ext(65535, counted(TUPLE, blob(STR, 0, b"x"), number(1))), TypeError)
        self.refused(ext(15, number(1)), TypeError)

    def test_buffers_that_lie(self):
        for place in (0, 2, 4, 1 << 32, (1 << 64) - 1):
            for length in (0, 16, 1 << 40, (1 << 63) - 1):
                value = head(BUFFER, 0, 0, 48) + struct.pack("<QQQQQ", place, 1, 64, length, 0)
                self.refused(value, xidata.Error)

    def test_pickles_that_lie(self):
        self.refused(counted(PICKLE, blob(BYTES, 0, b"garbage")), xidata.AccessDenied)
        self.channel.free()
        self.channel = xidata.channel(self.channel.name)
        self.refused(counted(PICKLE, blob(BYTES, 0, b"garbage")), None)
        self.refused(counted(PICKLE, blob(BYTES, 0, b"")), None)
        self.refused(counted(PICKLE, number(5)))
        self.refused(counted(PICKLE))

    @unittest.skipUnless(numpy, "no numpy")
    def test_arrays_that_lie(self):
        self.assertEqual(self.receive(ndarray("<i4", [2], [4], b"\1\0\0\0\2\0\0\0")).tolist(), [1, 2])
        self.assertEqual(self.receive(ndarray("<i4", [2], [0], b"\1\0\0\0")).tolist(), [1, 1])
        for dtype in ("|O", "O", "[('a', '|O')]", "nonsense", "[('a'", "__import__('os')", "T", "<i4,O", "\xff", "0" * 100):
            self.refused(ndarray(dtype, [1], [8], bytes(8)), Exception)
        for shape, strides in (([3], [4]), ([2], [8]), ([2], [-4]), ([2], [1 << 62]), ([1 << 62], [0]), ([1 << 40], [4]),
                               ([-1], [4]), ([2, 2], [4, 8])):
            try:
                back = self.receive(ndarray("<i4", shape, strides, bytes(8)))
                self.assertLessEqual(back.nbytes if 0 not in strides else 0, 8)
            except xidata.DecodeError:
                pass

    def encoded(self, value):
        """The bytes that Python sends for a value."""
        self.channel.send(value)
        message = (ctypes.c_uint64 * 64)()  # larger than an xi_msg; zero is XI_MSG_INIT
        self.assertEqual(self.c.xi_recv(self.handle, message, 0), 0)
        data = ctypes.string_at(message[0], message[1])
        self.c.xi_msg_release(message)
        return data

    def test_random_damage(self):
        values = INTS[::9] + FLOATS[:2] + TEXTS[:12] + TIMES + EXACT + CONTAINERS[:11]
        values = [v for v in values if not isinstance(v, str) or len(v) < 1000]
        if numpy:
            values += [numpy.arange(5), numpy.zeros((2, 3), [("a", "i4"), ("b", "S3")]), [numpy.zeros(900)]]
        seeds = []
        for v in values:
            try:
                seeds.append(self.encoded(v))
            except ValueError:
                pass  # a pickle, refused
        chance = random.Random(int(os.environ.get("XI_TEST_SEED", "1")))
        good = 0
        for _ in range(20000):
            data = bytearray(chance.choice(seeds))
            for _ in range(chance.choice((1, 1, 2, 5))):
                at = chance.randrange(len(data))
                data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256), data[at] ^ 1 << chance.randrange(8)))
            if chance.random() < 0.1:
                data = data[: chance.randrange(1, len(data) // 8 + 1) * 8]
            try:
                back = self.receive(bytes(data))
                repr(back), hash(repr(back))
                if isinstance(back, str):
                    back.encode("utf-8", "surrogatepass")
                good += 1
            except xidata.DecodeError:
                pass
        self.assertGreater(good, 100)
        self.assertEqual(self.stats()["borrows"], 0)


if __name__ == "__main__":
    main()
