# SPDX-License-Identifier: MIT
"""
Classes that travel by name, for test_python_types.py and the processes that it starts, and canon(): what a value is, types
and bits included, in terms that compare with == and mean the same in every version of CPython.
"""

import collections
import dataclasses
import enum
import struct
import typing

import xidata


class Color(enum.Enum):
    RED = 1
    GREEN = "green"
    ODD = (1, object)  # its value has no native form; its name has


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 1 << 40


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Bits(enum.IntFlag):
    A = 1
    B = 2


Pair = collections.namedtuple("Pair", "left right")


class Typed(typing.NamedTuple):
    name: str
    value: object = None


class Sub(Pair):
    __slots__ = ()


@dataclasses.dataclass
class Item:
    name: object
    parts: object = dataclasses.field(default_factory=list)
    shared: typing.ClassVar[int] = 5


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: object
    y: object = 0

    made: typing.ClassVar[list] = []  # by whom __init__ was run

    def __post_init__(self):
        self.made.append(self.x)


@dataclasses.dataclass
class Slotted:
    __slots__ = ("a", "b")
    a: object
    b: object


class Derived(Item):
    """Not a dataclass by itself, with an attribute that is no field."""


class Refused(Exception):
    """What unpickling cannot make: its __init__ takes something else than it passes on."""

    def __init__(self, code, reason):
        super().__init__("%s: %s" % (code, reason))
        self.code, self.reason = code, reason


class Lost(OSError):
    pass


class Version:
    """Goes by a codec, under a name."""

    def __init__(self, major, minor):
        self.major, self.minor = major, minor


class Token:
    """Goes by a codec, under an id."""

    def __init__(self, inner):
        self.inner = inner

    def __reduce__(self):
        raise TypeError("is never to be pickled")


def register():
    xidata.register(Version, lambda v: (v.major, v.minor), lambda pair: Version(*pair), name="test.version")
    xidata.register(Token, lambda t: t.inner, Token, name=300)


def bits(x):
    return struct.pack("<d", x).hex()


def named(v):
    return "%s:%s" % (type(v).__module__, type(v).__qualname__)


def canon(v):
    """Nested tuples of str: equal for equal values of equal types alone."""
    kind = type(v)
    if kind is float:
        return "float", bits(v)
    if kind is complex:
        return "complex", bits(v.real), bits(v.imag)
    if kind is str:
        return "str", ascii(v)  # repr() knows which characters its version prints
    if kind in (list, tuple):
        return kind.__name__, tuple(canon(x) for x in v)
    if kind in (set, frozenset):
        return kind.__name__, tuple(sorted((canon(x) for x in v), key=repr))
    if kind is dict:
        return "dict", tuple((canon(k), canon(x)) for k, x in v.items())
    if isinstance(v, enum.Enum):
        return named(v), str(v.name) if v in tuple(kind) else "", str(v.value) if type(v.value) is int else ""
    if isinstance(v, BaseException):
        more = [getattr(v, name, None) for name in ("errno", "strerror", "filename", "start", "object", "value", "name")]
        return named(v), canon(v.args), canon(v.__dict__), canon(more), canon([v.__cause__, v.__context__, v.__suppress_context__])
    if isinstance(v, tuple):
        return named(v), tuple(canon(x) for x in v)
    if kind is Slotted:
        return named(v), canon(v.a), canon(v.b)
    if hasattr(v, "__dict__"):
        return named(v), canon(v.__dict__)
    return named(v), repr(v), str(getattr(v, "fold", ""))


RELAY = """
import sys, typed, xidata
typed.register()
incoming, outgoing = xidata.channel(sys.argv[1]), {}
for route, wanted, wrong, value in incoming:
    seen = typed.canon(value)
    if seen != wanted:
        wrong.append((sys.executable, seen))
    name = route.pop(0)
    if name not in outgoing:
        outgoing[name] = xidata.channel(name)
    outgoing[name].send((route, wanted, wrong, value), 20)
"""
