# SPDX-License-Identifier: MIT
"""
Search functions: asked once for what nobody registered, and again when what they said cannot hold any more. And what becomes
of what does not fit: text with lone surrogates, and what has no codec, under each handler, both ways.
"""

import codecs
import collections
import os
import pickle
import subprocess
import sys
import threading
import unittest

from pyhelp import SOON, TestCase, main, name, xidata
from xidata import _types

LONE = "a\ud800\U0001f600\udfffz"
TEXTS = [LONE, "\ud800", "plain\udc80", "\ud83d\ude00", "\udfff" * 300000]


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return type(other) is type(self) and (self.x, self.y) == (other.x, other.y)


class Other(Point):
    pass


def codec_of(kind, called=None):
    return xidata.Codec(kind, lambda p: (p.x, p.y), lambda pair: kind(*pair), called)


class World(TestCase):
    def setUp(self):
        super().setUp()
        self.asked = []
        self.functions = []
        self.strict = xidata.channel(name(), capacity=8 << 20, pickle="refuse")
        self.raw = xidata.channel(self.strict.name)

    def tearDown(self):
        for function in self.functions:
            xidata.unregister_search(function)
        for kind in (Point, Other):
            if kind in _types.REGISTERED:
                xidata.unregister(kind)
        self.strict.free()
        self.raw.free()
        super().tearDown()

    def search(self, *codecs_, named=()):
        def function(key):
            self.asked.append(key)
            for codec in codecs_:
                if key in (codec.type, codec.name):
                    return codec
            return None

        self.add(function)
        return function

    def add(self, function):
        xidata.register_search(function)
        self.functions.append(function)

    def drop(self, function):
        self.functions.remove(function)
        xidata.unregister_search(function)

    def trip(self, value, into=None, out=None):
        (into or self.strict).send(value, SOON)
        return (out or into or self.strict).recv(SOON)

    def cause(self, out=None):
        with self.assertRaises(xidata.DecodeError) as caught:
            (out or self.strict).recv(SOON)
        return caught.exception.__cause__


class Search(World):
    def test_asked_once_for_a_class(self):
        self.search(codec_of(Point, "test.point"))
        for _ in range(3):
            self.assertEqual(self.trip([Point(1, 2), {"k": Point(3, 4)}]), [Point(1, 2), {"k": Point(3, 4)}])
        self.assertEqual(self.asked, [Point])
        self.assertEqual(self.trip(Point(5, 6), into=self.raw), Point(5, 6))
        self.assertEqual(self.asked, [Point])

    def test_asked_once_for_a_name_and_for_an_id(self):
        for called in ("test.point", 4711):
            self.asked.clear()
            function = self.search(codec_of(Point, called))
            self.strict.send(Point(1, 2))
            self.strict.send(Point(3, 4))
            self.drop(function)  # as if another had sent them
            self.asked.clear()
            function = self.search(codec_of(Point, called))
            self.assertEqual([self.strict.recv(), self.strict.recv()], [Point(1, 2), Point(3, 4)])
            self.assertEqual(self.asked, [called])
            self.drop(function)

    def test_that_nobody_knows_is_remembered_until_the_functions_change(self):
        self.search()
        for _ in range(3):
            with self.assertRaisesRegex(ValueError, "no native form"):
                self.strict.send(Point(1, 2))
        self.assertEqual(self.asked, [Point])
        function = self.search(codec_of(Point, "test.late"))
        self.assertEqual(self.trip(Point(1, 2)), Point(1, 2))
        self.assertEqual(self.asked, [Point, Point, Point])  # both, once more
        self.strict.send(Point(1, 2))
        self.strict.send(Point(1, 2))
        self.drop(function)
        self.asked.clear()
        for _ in range(2):
            self.assertIsInstance(self.cause(), xidata.WrongType)
        self.assertEqual(self.asked, ["test.late"])
        with self.assertRaises(ValueError):
            self.strict.send(Point(1, 2))

    def test_the_first_that_knows(self):
        self.search(codec_of(Point, "test.first"))
        second = self.search(codec_of(Point, "test.second"), codec_of(Other, "test.other"))
        self.strict.send(Point(1, 2))
        self.strict.send(Other(1, 2))
        self.assertEqual(self.asked, [Point, Other, Other])
        self.assertEqual(sorted(n for n, _ in _types.SEARCHED.values()), ["test.first", "test.other"])
        self.drop(second)  # and with it what it found, and that alone
        self.assertEqual([n for n, _ in _types.SEARCHED.values()], ["test.first"])
        self.assertEqual(self.strict.recv(), Point(1, 2))
        self.assertIsInstance(self.cause(), xidata.WrongType)

    def test_what_is_registered_goes_first(self):
        self.search(codec_of(Point, "test.found"))
        self.assertEqual(self.trip(Point(1, 2)), Point(1, 2))
        xidata.register(Point, lambda p: [p.y, p.x], lambda v: Point(v[1], v[0]), name="test.registered")
        self.assertEqual(_types.SEARCHED, {})
        self.assertNotIn("test.found", _types.CODECS)
        self.assertEqual(self.trip(Point(1, 2)), Point(1, 2))
        self.assertEqual(self.asked, [Point])
        xidata.unregister(Point)
        self.assertEqual(self.trip(Point(1, 2)), Point(1, 2))
        self.assertEqual(self.asked, [Point, Point])
        xidata.register(Other, lambda p: [p.y, p.x], lambda v: Other(v[1], v[0]), name="test.found")  # takes the name over
        self.assertEqual(_types.SEARCHED, {})
        self.assertEqual(self.trip(Other(1, 2)), Other(1, 2))
        with self.assertRaisesRegex(xidata.InvalidArgument, "registered for Other"):
            self.strict.send(Point(1, 2))

    def test_native_classes_are_not_asked_for(self):
        self.search()
        self.trip([1, "x", ValueError("v"), collections.namedtuple("Local", "a") and range(3)])
        self.assertEqual(self.asked, [])

    def test_taken_back_while_it_is_asked(self):
        """What it answers is used, and not kept."""
        def function(key):
            if function in self.functions:
                self.drop(function)
            return codec_of(Point, "test.going") if key in (Point, "test.going") else None

        self.add(function)
        self.strict.send(Point(1, 2))
        self.assertEqual(_types.SEARCHED, {})
        self.assertNotIn(Point, _types.PLANS)
        self.assertIsInstance(self.cause(), xidata.WrongType)

    def test_added_while_another_is_asked(self):
        def late(key):
            return codec_of(Point, "test.late") if key in (Point, "test.late") else None

        def function(key):
            if late not in self.functions:
                self.add(late)
            return None

        self.add(function)
        with self.assertRaises(ValueError):
            self.strict.send(Point(1, 2))  # of the functions that there were
        self.assertEqual(self.trip(Point(1, 2)), Point(1, 2))

    def test_answers_that_are_none(self):
        answers = [
            (7, xidata.WrongType, "is to be a Codec"), ((Point,), xidata.WrongType, "is to be a Codec"),
            (("Point", int, int), xidata.WrongType, "no class"), ((Point, 1, 2), xidata.WrongType, "cannot be called"),
            (codec_of(Other), xidata.InvalidArgument, "returned the codec of Other"),
            (codec_of(Point, 7), xidata.InvalidArgument, "256 to 65534"), (codec_of(Point, ""), xidata.InvalidArgument, "1 to 255"),
            (codec_of(Point, "xidata.Replacement"), xidata.InvalidArgument, "name"),
        ]
        answer = None
        self.add(lambda key: answer)
        for answer, error, why in answers:
            with self.subTest(why), self.assertRaisesRegex(error, why):
                self.strict.send(Point(1, 2))
        answer = (Point, lambda p: (p.x, p.y), lambda pair: Point(*pair))  # a plain tuple will do
        self.assertEqual(self.trip(Point(1, 2)), Point(1, 2))
        self.assertIn("%s.Point" % __name__, _types.CODECS)

    def test_what_it_raises_is_raised(self):
        def function(key):
            raise KeyError(key)

        xidata.register(Point, lambda p: (p.x, p.y), lambda pair: Point(*pair), name="test.there")
        self.strict.send(Point(1, 2))
        xidata.unregister(Point)
        self.add(function)
        for _ in range(2):
            with self.assertRaises(KeyError):
                self.strict.send(Point(1, 2))
        self.assertIsInstance(self.cause(), KeyError)

    def test_in_pickles(self):
        """Where one part of a value makes a pickle of it, others go as their codecs say all the same."""
        self.search(codec_of(Point, "test.inside"))
        value = [collections.OrderedDict(a=Point(1, 2)), Point(3, 4)]
        back = self.trip(value, into=self.raw)
        self.assertEqual((back, type(back[0])), (value, collections.OrderedDict))
        self.assertIn(Point, self.asked)
        self.assertIn(b"make_named", _types.dumps(value, None))

    def test_functions_that_are_none(self):
        with self.assertRaises(xidata.WrongType):
            xidata.register_search(7)
        with self.assertRaises(LookupError):
            xidata.unregister_search(len)

    def test_from_many_threads(self):
        function = self.search(codec_of(Point, "test.threads"))
        failed = []

        def run():
            channel = xidata.channel(name(), pickle="refuse")
            for i in range(200):
                channel.send([Point(i, i)])
                if channel.recv() != [Point(i, i)]:
                    failed.append(i)
            channel.free()

        threads = [threading.Thread(target=run) for _ in range(4)]
        for t in threads:
            t.start()
        for _ in range(50):
            self.add(lambda key: None)
        for t in threads:
            t.join()
        self.assertEqual(failed, [])
        self.assertEqual(_types.SEARCHED[Point], ("test.threads", function))

    def test_each_interpreter_has_its_own(self):
        """A subinterpreter that imports xidata begins with nothing."""
        code = """
import sys
try:
    import _interpreters as subs
except ImportError:
    import _xxsubinterpreters as subs
import xidata
xidata.register_search(print)
xidata.register_error("mine", print)
inside = '''
import xidata
from xidata import _xidata
assert _xidata._search_version() == 0
try:
    xidata.lookup_error("mine")
except LookupError:
    print("its own")
'''
sub = subs.create()
print(subs.run_string(sub, inside) or xidata.lookup_error("mine") is print)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.stdout, done.returncode), ("its own\nTrue\n", 0), done.stderr)


class Errors(World):
    def opened(self, errors, **options):
        channel = xidata.channel(self.strict.name, errors=errors, **options)
        self.addCleanup(channel.free)
        return channel

    def test_names(self):
        self.assertEqual(self.raw.errors, "surrogatepass")
        for errors in ("strict", "replace", "surrogatepass", "backslashreplace"):
            channel = self.opened(errors)
            self.assertEqual(channel.errors, errors)
            self.assertEqual(channel.group("g").errors, errors)
        with self.assertRaisesRegex(xidata.NotFound, "no error handler 'nobody'"):
            self.opened("nobody")
        with self.assertRaises(TypeError):
            self.opened(7)
        for kept in ("strict", "replace", "surrogatepass"):
            with self.assertRaises(xidata.InvalidArgument):
                xidata.register_error(kept, len)
        with self.assertRaises(xidata.WrongType):
            xidata.register_error("mine", 7)
        with self.assertRaises(LookupError):
            xidata.lookup_error("never")

    def test_text_is_sent(self):
        expected = {
            "surrogatepass": lambda t: t,
            "replace": lambda t: "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in t),
            "backslashreplace": lambda t: t.encode("utf-8", "backslashreplace").decode(),
            "ignore": lambda t: t.encode("utf-8", "ignore").decode(),
        }
        for errors, want in expected.items():
            channel = self.opened(errors)
            for text in TEXTS:
                self.assertEqual(self.trip([text, {text: 1}], into=channel, out=self.raw), [want(text), {want(text): 1}])
                self.assertEqual(self.trip([text], into=self.raw, out=channel), [want(text)])
            for text in ("", "plain", "\xe9", "\u4e00", "\U0001f600", "\ufffd"):
                self.assertEqual(self.trip(text, into=channel), text)
        strict = self.opened("strict")
        for text in TEXTS:
            with self.assertRaises(UnicodeEncodeError):
                strict.send([text])
        for text in ("", "plain", "\xe9", "\u4e00", "\U0001f600"):
            self.assertEqual(self.trip(text, into=strict), text)

    def test_text_is_received(self):
        self.raw.send({"k": [LONE]})
        self.assertIsInstance(self.cause(self.opened("strict")), UnicodeEncodeError)

    def test_handlers_that_leave_no_text_are_told(self):
        with self.assertRaises(UnicodeDecodeError):
            self.opened("surrogateescape").send("\udc80")  # its byte is no UTF-8
        with self.assertRaises(UnicodeEncodeError):
            self.opened("surrogateescape").send("\ud800")

    def test_handler_of_ones_own(self):
        seen = []

        def handler(error):
            seen.append(error)
            if isinstance(error, UnicodeEncodeError):
                return "<%d>" % (error.end - error.start)
            if error.sending:
                return {"was": error.name}
            return (error.name, error.object.value)

        xidata.register_error("mine", handler)
        self.assertIs(xidata.lookup_error("mine"), handler)
        channel = self.opened("mine", pickle="refuse")
        self.assertEqual(self.trip(["x", LONE, Point(1, 2), [3]], into=channel, out=self.raw),
                         ["x", "<1>", {"was": "%s:Point" % __name__}, [3]])
        self.assertEqual({type(e) for e in seen[:-1]}, {UnicodeEncodeError})  # again when it goes piece by piece
        self.assertEqual((type(seen[-1]), type(seen[-1].object)), (xidata.CodecError, Point))
        function = self.search(codec_of(Point, "test.unknown"))
        self.raw.send([Point(1, 2), LONE])
        self.drop(function)
        self.assertEqual(channel.recv(), [("test.unknown", (1, 2)), "<1>"])
        xidata.register_error("mine", lambda error: 1 / 0)  # the channel has the name alone
        with self.assertRaises(ZeroDivisionError):
            channel.send(Point(1, 2))
        with self.assertRaises(ZeroDivisionError):
            channel.send(LONE)
        for wrong in (Point(1, 2), [threading.Lock()]):
            xidata.register_error("mine", lambda error: wrong)
            with self.assertRaisesRegex(ValueError, "no native form either"):
                channel.send(Point(1, 2))
        xidata.register_error("mine", lambda error: 7)
        with self.assertRaisesRegex(TypeError, "returns a str"):
            channel.send(LONE)
        self.assertEqual(self.trip(Point(1, 2), into=channel), 7)

    def test_handlers_of_text_alone(self):
        with self.assertRaises(xidata.CodecError) as caught:
            self.opened("backslashreplace", pickle="refuse").send([Point(1, 2)])
        self.assertTrue(caught.exception.sending)

    def test_objects_are_replaced(self):
        channel = self.opened("replace", pickle="refuse")
        back = self.trip([1, Point(1, 2), {"lock": threading.Lock()}], into=channel, out=self.strict)
        self.assertEqual((back[0], back[1].name, back[1].lost, back[1].value), (1, "%s:Point" % __name__, True, None))
        self.assertEqual(back[2]["lock"].name, "_thread:lock")
        self.assertIn("lost", repr(back[1]))
        self.assertEqual(self.trip(back), back)  # sent on
        self.assertEqual(self.trip(back[1], into=self.raw), back[1])
        self.assertEqual(pickle.loads(pickle.dumps(back)), back)
        for errors in (None, "strict"):
            with self.assertRaisesRegex(ValueError, "no native form"):
                self.opened(errors, pickle="refuse").send(Point(1, 2))

    def test_a_pickle_is_made_where_it_can_be(self):
        channel = self.opened("replace")
        self.assertEqual(self.trip([Point(1, 2)], into=channel), [Point(1, 2)])
        back = self.trip([threading.Lock(), "text"], into=channel)
        self.assertEqual((back[0].name, back[1]), ("_thread:lock", "text"))
        item = [threading.Lock()]
        item.append(item)
        with self.assertRaises(TypeError):
            channel.send(item)  # no replacement helps against that
        with self.assertRaises(TypeError):
            self.opened("strict").send(threading.Lock())

    def test_what_nobody_knows_is_replaced_and_goes_on(self):
        """A relay passes on what it does not know: it arrives as it was."""
        relay = self.opened("replace", pickle="refuse")
        for called in ("test.relayed", 300):
            function = self.search(codec_of(Point, called))
            self.strict.send({"p": [Point(1, (2,))]})
            self.drop(function)
            there = relay.recv()
            made = there["p"][0]
            self.assertEqual((made.name, made.value, made.lost), (called, (1, (2,)), False))
            self.assertNotIn("lost", repr(made))
            relay.send(there)
            function = self.search(codec_of(Point, called))
            self.assertEqual(self.strict.recv(), {"p": [Point(1, (2,))]})
            self.drop(function)

    def test_classes_by_name_are_replaced_and_go_on(self):
        import typed
        relay = self.opened("replace", pickle="refuse")
        for value in (typed.Color.RED, typed.Pair(1, 2), typed.Item("i", [1])):
            self.raw.send(value)
            made = relay.recv()
            self.assertEqual((type(made), made.name), (xidata.Replacement, "typed:%s" % type(value).__name__))
            relay.send([made])
            self.assertEqual(self.raw.recv(), [value])
        self.raw.send(ValueError(1))
        self.assertIs(type(relay.recv()), ValueError)

    def test_replacements_that_cannot_be(self):
        for extension, payload in ((1, None), (70000, None), ("x", None)):
            with self.assertRaises((ValueError, TypeError)):
                self.raw.send(xidata.Replacement(extension, payload))
        loop = xidata.Replacement(65535, ["x"])
        loop.payload.append(loop)
        with self.assertRaisesRegex(ValueError, "contains itself|no native form"):
            self.strict.send(loop)
        self.assertNotEqual(xidata.Replacement(300, 1), 7)

    def test_after_fork(self):
        channel = self.opened("replace")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                channel.send(LONE)
                code = 0
            finally:
                os._exit(code)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertNotIn("\ud800", self.raw.recv(SOON))


if __name__ == "__main__":
    main()
