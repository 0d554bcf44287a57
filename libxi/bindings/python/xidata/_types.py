# SPDX-License-Identifier: MIT
"""
Classes that travel by name: enums, namedtuples, dataclasses, exceptions, and what register() was told about.

types.c asks here once for each class how its objects are sent (`plan_of`), and for each received one to make it again
(`make`). What is said of a class:

* It is sent by name alone if what its objects hold is all there is to them: whoever changes how they are pickled
  (__reduce__, __getstate__, ...) gets what was asked for, a pickle.
* It must be found under its own name, here and there. A receiver looks it up as unpickling would, and imports its
  module, only on a channel where it would unpickle; elsewhere a value makes objects of those classes alone that the
  receiver named itself, with register(), and of Python's own exceptions.
* No code of the class runs to make its object again: neither __init__ nor __new__ nor __post_init__.

All of this is the interpreter's own: a subinterpreter has its own module, and so its own tables.
"""

import collections
import copyreg
import sys

from ._xidata import AccessDenied, Corrupt, Error, InvalidArgument, Mismatch, NotFound, WrongType
from ._xidata import _search, _search_version

ENUM, NAMEDTUPLE, DATACLASS, EXCEPTION, NAMED = 11, 12, 13, 14, 65535
MOST = 4096  # classes that are remembered

PLANS = {}  # class -> (extension, where, what its kind needs), or None: a pickle. Read by types.c
CODECS = {}  # name or id -> (class, from_xi)
REGISTERED = {}  # class -> its name or id, or None: known as it is
KNOWN = {}  # where -> (class, plan, ...), of those that were registered as they are
SEARCHED = {}  # class -> (name or id, the function that knew it): in PLANS and CODECS as if registered
MISSING = {}  # names and ids of which no search function knew
_FOUND = {}  # where -> (class, plan, module, name in it), of those that were looked up
_NATIVE = {"datetime": ("date", "time", "datetime", "timedelta"), "uuid": ("UUID",), "decimal": ("Decimal",),
           "fractions": ("Fraction",), "numpy": ("ndarray",)}
_HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, mostly
_PLAIN = (int, str, float, bool, type(None))


class RemoteTraceback(Exception):
    """
    The traceback of a received exception, as text: what str() of it gives. It is the cause at the end of the exception's
    chain, so that it is shown with it, and goes along when the exception is sent on.
    """

    def __str__(self):
        return '\n"""\n%s"""' % self.args[0] if self.args else ""


class RemoteException(Exception):
    """
    Stands for a received exception whose class cannot be had here. `class_name` ("module:name") says which it was; the
    arguments, attributes, causes and traceback are the exception's own. Sent on, it goes as what it stands for.
    """

    class_name = "?"

    def __str__(self):
        text = Exception.__str__(self)
        return "%s: %s" % (self.class_name, text) if text else self.class_name


class CodecError(ValueError):
    """
    What a handler of register_error() is told of: a value without a codec. `object` is the object that is being sent, or
    the Replacement of what is being received; `name` what nobody knows: "module:class", or a registered name or id.
    """

    object, name, sending = None, "", False

    def __init__(self, text, object, name, sending):
        ValueError.__init__(self, text)
        self.object, self.name, self.sending = object, name, sending


class Replacement:
    """
    Stands for a value that has no codec, on a channel with errors="replace". Received where nobody knows its type, it holds
    the `payload` (an extension's, as docs/value-format.md has it) and goes on as what it stands for. If it was its sender
    that could not send it (`lost`), there is only the name of the class.
    """

    __slots__ = ("extension", "payload")

    def __init__(self, extension, payload):
        self.extension, self.payload = extension, payload

    @property
    def lost(self):
        return self.extension == NAMED and self.payload[0] == LOST

    @property
    def name(self):
        """The class, as "module:class", or the registered name or id."""
        if self.extension in _MAKERS or self.extension == NAMED:
            return self.payload[1] if self.lost else self.payload[0]
        return self.extension

    @property
    def value(self):
        """What the value is made of; None if it is lost."""
        if self.lost:
            return None
        return self.payload[1] if self.extension == NAMED else self.payload

    def __eq__(self, other):
        if type(other) is not Replacement:
            return NotImplemented
        return (self.extension, self.payload) == (other.extension, other.payload)

    __hash__ = None

    def __reduce__(self):
        return Replacement, (self.extension, self.payload)

    def __repr__(self):
        return "<xidata.Replacement of %s%s>" % (self.name, ", lost" if self.lost else "")


LOST = "xidata.Replacement"  # the name under which one goes of which there is no more
Codec = collections.namedtuple("Codec", "type to_xi from_xi name", defaults=(None,))
Codec.__doc__ = "What a search function returns: the arguments of register()."


class _Chained:
    """A cause or context while it is sent: the traceback's text has been taken already."""

    __slots__ = ("exception",)

    def __init__(self, exception):
        self.exception = exception


# ------------------------------------------------------------------ finding


def _at(module, qualname):
    """What a module that is loaded has under that name, or None."""
    there = sys.modules.get(module)
    for part in qualname.split("."):
        there = getattr(there, part, None)
    return there


def _look_up(where):
    from importlib import import_module

    module, _, qualname = where.partition(":")
    try:
        there = import_module(module)
        for part in qualname.split("."):
            there = getattr(there, part)
    except Exception as error:
        raise NotFound("the class %s cannot be had here: %s" % (where, error)) from error
    return there


def find(where, extension, trusted):
    """(class, plan) of a name that was received."""
    try:
        known = KNOWN.get(where)
        if known is None and trusted:
            known = _FOUND.get(where)
            if known is not None and _at(known[2], known[3]) is not known[0]:
                known = None  # its module was loaded anew
    except TypeError:
        known = None
    if known is None:
        known = _find_anew(where, extension, trusted)
    if known[1] is None or known[1][0] != extension:
        raise Mismatch("%s is not here what it is where the value comes from" % where)
    return known


def _find_anew(where, extension, trusted):
    if type(where) is not str:
        raise Corrupt("a received value of a class does not name the class")
    module, _, qualname = where.partition(":")
    if trusted:
        kind = _look_up(where)
    else:
        kind = _at(module, qualname) if module == "builtins" and extension == EXCEPTION else None
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise AccessDenied(
                "the class %s was not registered here, and this channel does not load pickles: "
                "xidata.register() it, or open the channel with pickle='allow'" % where
            )
    plan = _native(kind, where) if isinstance(kind, type) else None
    known = kind, plan, module, qualname
    if trusted and plan:
        if len(_FOUND) >= MOST:
            _FOUND.clear()
        _FOUND[where] = known
    return known


# ------------------------------------------------------------------ planning


def _ours(kind, name):
    """Where the first class in the order of inheritance has the attribute."""
    return next((c for c in kind.__mro__ if name in c.__dict__), None)


def _pickled_as_usual(kind, reduce_of):
    """Nothing of the class says how its objects are pickled. Dataclasses with slots say it as object does."""
    if kind in copyreg.dispatch_table or _ours(kind, "__reduce_ex__") is not object:
        return False
    if _ours(kind, "__reduce__") is not reduce_of:
        return False
    usual = sys.modules.get("dataclasses")
    for name in ("__getstate__", "__setstate__", "__getnewargs_ex__", "__getnewargs__"):
        owner = _ours(kind, name)
        if owner is not None and owner.__flags__ & _HEAP:
            if owner.__dict__[name] is not getattr(usual, "_dataclass" + name[1:-2], None):
                return False
    return True


def _plan_enum(kind, where):
    return ENUM, where, _enum_payload


def _plan_namedtuple(kind, where):
    fields = kind._fields
    if type(fields) is not tuple or not all(type(f) is str for f in fields) or kind.__dictoffset__:
        return None
    if _ours(kind, "__reduce_ex__") is not object or _ours(kind, "__reduce__") is not object or kind in copyreg.dispatch_table:
        return None
    if _ours(kind, "__setstate__") or _ours(kind, "__getnewargs_ex__"):
        return None
    state = _ours(kind, "__getstate__")
    made = _ours(kind, "__getnewargs__")
    if (state and state is not object) or made is None or "_fields" not in made.__dict__:
        return None
    return NAMEDTUPLE, where, fields


def _plan_dataclass(kind, where):
    if _ours(kind, "__new__") is not object or kind.__itemsize__ or not _pickled_as_usual(kind, object):
        return None
    for c in kind.__mro__[:-1]:
        if not c.__flags__ & _HEAP:
            return None
    fields = tuple(f for f, what in kind.__dataclass_fields__.items() if what._field_type.name == "_FIELD")
    return DATACLASS, where, tuple(copyreg._slotnames(kind)), fields


def _base(kind):
    """The nearest class that is Python's own: what it holds beside attributes, __new__ and __init__ of it restore."""
    return next(c for c in kind.__mro__ if not c.__flags__ & _HEAP)


def _plan_exception(kind, where):
    base = _base(kind)
    if not issubclass(base, BaseException) or not _pickled_as_usual(kind, _ours(base, "__reduce__")):
        return None
    if any(c.__dict__.get("__slots__") for c in kind.__mro__[: kind.__mro__.index(base)]):
        return None
    return EXCEPTION, where, _exception_payload, base


def _native(kind, where):
    if BaseException in kind.__mro__:
        return _plan_exception(kind, where)
    enum = sys.modules.get("enum")
    if enum and isinstance(kind, enum.EnumMeta):
        return _plan_enum(kind, where)
    if tuple in kind.__mro__:
        return _plan_namedtuple(kind, where) if hasattr(kind, "_fields") else None
    return _plan_dataclass(kind, where) if hasattr(kind, "__dataclass_fields__") else None


def _where(kind):
    """"module:name", if the class is found under it."""
    module, qualname = kind.__module__, kind.__qualname__
    if type(module) is str and _at(module, qualname) is kind:
        return "%s:%s" % (module, qualname)
    return None


def plan_of(kind):
    """How objects of the class are sent: asked for what PLANS does not have."""
    where = _where(kind)
    plan = _native(kind, where) if where else None
    version = _search_version()
    if plan is None:
        codec, function, version = _search(kind)
        if codec is not None:
            return _take(codec, kind, function, version)
    if len(PLANS) >= MOST:
        for other in [k for k in PLANS if k not in REGISTERED and k not in SEARCHED and k is not Replacement]:
            PLANS.pop(other, None)
    if version == _search_version():
        PLANS[kind] = plan
    return plan


# ------------------------------------------------------------------ payloads: what an extension holds, None for a pickle


def _enum_payload(member, plan):
    name, value = member._name_, member._value_
    if name is not None and type(member)._member_map_.get(name) is member:
        return plan[1], name, value if type(value) in _PLAIN else None
    return (plan[1], None, value) if type(value) is int else None  # flags together


def _chain(exception):
    """The exceptions that were behind it, one after another, as far as they are shown."""
    seen = set()
    while exception is not None and id(exception) not in seen:
        seen.add(id(exception))
        yield exception
        exception = exception.__cause__ or (None if exception.__suppress_context__ else exception.__context__)


def _text(exception):
    """Its traceback, and those of what was behind it; the one it came with if nothing was added here; or None."""
    last = None
    for last in _chain(exception):
        if last.__traceback__ is not None:
            import traceback

            return "".join(traceback.format_exception(type(exception), exception, exception.__traceback__))
    return last.args[0] if type(last) is RemoteTraceback and last.args else None


def _link(exception):
    if exception is None or type(exception) is RemoteTraceback:
        return None
    plan = PLANS.get(type(exception)) or plan_of(type(exception))
    if plan and plan[0] == EXCEPTION:
        return _Chained(exception)
    stand_in = RemoteException(str(exception))  # a pickle would leave it out
    stand_in.class_name = "%s:%s" % (type(exception).__module__, type(exception).__qualname__)
    for name in ("__cause__", "__context__", "__suppress_context__"):
        setattr(stand_in, name, getattr(exception, name))
    return _Chained(stand_in)


def _exception_payload(exception, plan, text=_text):
    where, state = plan[1], None
    reduced = exception.__reduce__()
    if type(exception) is RemoteTraceback:
        text = lambda _: None
    if reduced[0] is not type(exception) or len(reduced) > 3:
        return None
    if len(reduced) == 3 and reduced[2]:
        state = reduced[2]
    if type(exception) is RemoteException:
        where, state = exception.class_name, {k: v for k, v in state.items() if k != "class_name"} if state else None
    cause, context = _link(exception.__cause__), _link(exception.__context__)
    suppress = exception.__suppress_context__ and not (cause is None and exception.__cause__ is not None)
    return where, reduced[1], state, cause, context, suppress, text(exception)


def _chained_payload(chained, plan):
    exception = chained.exception
    plan = PLANS.get(type(exception)) or plan_of(type(exception))
    return _exception_payload(exception, plan, lambda _: None)


PLANS[_Chained] = EXCEPTION, None, _chained_payload
PLANS[Replacement] = 0, None, None  # types.c
REGISTERED[_Chained] = None


# ------------------------------------------------------------------ making


def _make_enum(payload, trusted):
    where, name, value = payload
    kind = find(where, ENUM, trusted)[0]
    if name is None:
        return kind(value)
    try:
        return kind._member_map_[name]
    except (KeyError, TypeError):
        raise Mismatch("%s has no member %s here" % (where, name)) from None


def _make_namedtuple(payload, trusted):
    where, items = payload
    kind, plan = find(where, NAMEDTUPLE, trusted)[:2]
    if tuple(items) != plan[2]:
        raise Mismatch("%s has the fields (%s) here, and (%s) where the value comes from"
                       % (where, ", ".join(plan[2]), ", ".join(map(str, items))))
    return tuple.__new__(kind, items.values())


def _make_dataclass(payload, trusted):
    where, state = payload
    kind, (_, _, slots, fields) = find(where, DATACLASS, trusted)[:2]
    for f in fields:
        if f not in state and (f in slots or not hasattr(kind, f)):
            raise Mismatch("%s has a field %s here, and not where the value comes from" % (where, f))
    if not trusted or not kind.__dictoffset__:
        for f in state:
            if f not in fields and not (trusted and f in slots):
                raise Mismatch("%s has no field %s here" % (where, f))
    made = object.__new__(kind)
    if not slots:
        made.__dict__.update(state)
        return made
    for f, value in state.items():
        if f in slots:
            object.__setattr__(made, f, value)
        else:
            made.__dict__[f] = value
    return made


def _bare_exception(payload, trusted):
    where, args, state = payload[:3]
    if type(args) is not tuple or not (state is None or type(state) is dict):
        raise Corrupt("a received exception has another form than it is to have")
    try:
        kind, plan = find(where, EXCEPTION, trusted)[:2]
    except (AccessDenied, NotFound):
        made = RemoteException(*args)
        made.class_name = where
        base = Exception
    else:
        base = plan[3]
        made = base.__new__(kind, *args)
        base.__init__(made, *args)
    if state:
        if not trusted and any(type(k) is not str or (k[:2] == "__" and k != "__notes__") for k in state):
            raise Corrupt("a received exception has attributes that only Python sets")
        base.__setstate__(made, state)
    return made


def _make_exception(payload, trusted):
    _, _, _, cause, context, suppress, text = payload
    for other in (cause, context):
        if not (other is None or isinstance(other, BaseException)):
            raise Corrupt("a received exception has a cause that is no exception")
    made = _bare_exception(payload, trusted)
    made.__cause__, made.__context__ = cause, context
    made.__suppress_context__ = bool(suppress)
    if text is not None:
        *_, last = _chain(made)
        last.__cause__ = RemoteTraceback(text)
    return made


def _instead(extension, payload, errors, text):
    """What stands for a received value that has no codec here: `errors` says (codecs.c)."""
    made = Replacement(extension, payload)
    return made if errors is True else errors(CodecError(text, made, made.name, False))


def stand_in(o, errors):
    """What is sent in place of an object that cannot be. Called by codecs.c."""
    kind = type(o)
    where = "%s:%s" % (kind.__module__, kind.__qualname__)
    text = "objects of %s have no native form, and no pickle is made of them" % where
    if errors is True:
        return Replacement(NAMED, (LOST, where))
    if errors is None:  # the handler's name is one of codecs.register_error(): it is for text alone
        raise CodecError(text, o, where, True)
    return errors(CodecError(text, o, where, True))


def make_named(name, value, errors=None):
    codec = CODECS.get(name)
    if codec is None and name not in MISSING:
        codec = _search_name(name)
    if codec is not None:
        return codec[1](value)
    named = type(name) is str
    if name == LOST:
        return Replacement(NAMED, (name, str(value)))
    text = "a value of the registered type %r: nothing here knows what that is. xidata.register() it" % (name,)
    if errors is None:
        raise WrongType(text)
    return _instead(NAMED if named else name, (name, value) if named else value, errors, text)


_MAKERS = {ENUM: (_make_enum, 3), NAMEDTUPLE: (_make_namedtuple, 2), DATACLASS: (_make_dataclass, 2),
           EXCEPTION: (_make_exception, 7)}


def make(extension, payload, trusted, errors=None):
    """The object that a received extension stands for; errors: None, True, or what says (codecs.c). Called by types.c."""
    if extension == NAMED:
        if type(payload) is not tuple or len(payload) != 2 or type(payload[0]) is not str:
            raise Corrupt("a received value of a registered type does not name the type")
        return make_named(*payload, errors)
    if extension >= 256:
        return make_named(extension, payload, errors)
    maker, length = _MAKERS[extension]
    if type(payload) is not tuple or len(payload) != length or (length == 2 and type(payload[1]) is not dict):
        raise Corrupt("a received extension value (%d) has another payload than its id asks for" % extension)
    if errors is None or extension == EXCEPTION or type(payload[0]) is not str:
        return maker(payload, trusted)
    try:
        find(payload[0], extension, trusted)
    except (AccessDenied, NotFound) as error:
        return _instead(extension, payload, errors, str(error))
    return maker(payload, trusted)


# ------------------------------------------------------------------ registering


def _goes_natively(kind):
    module = kind.__module__
    if module in ("builtins", "xidata") and not issubclass(kind, BaseException):
        return True
    return (kind.__name__ in _NATIVE.get(module, ()) and _at(module, kind.__name__) is kind)


def _check_name(kind, name):
    if type(name) is int:
        if not 256 <= name < NAMED:
            raise InvalidArgument("the ids that users may take are 256 to 65534")
    elif type(name) is not str or not name or len(name) > 255 or name == LOST:
        raise InvalidArgument("name is a str of 1 to 255 characters, or an int")
    else:
        name.encode()
    other = CODECS.get(name)
    if other and other[0] is not kind:
        raise InvalidArgument("%r is registered for %s already" % (name, other[0].__qualname__))


def register(type_, to_xi=None, from_xi=None, *, name=None):
    """
    Let objects of a class travel; returns the class, so that it may be used as a decorator.

    With to_xi and from_xi: as what to_xi(object) returns, under a name that other languages may know as well (unless
    told: that of the class; an int of 256 to 65534 is an extension id). from_xi gets that and returns the object. Any
    channel will do: no pickle is made of it. Objects of exactly this class; register a class again to change it.

        >>> class Version:
        ...     def __init__(self, major, minor):
        ...         self.major, self.minor = major, minor
        >>> to_xi, from_xi = lambda v: [v.major, v.minor], lambda pair: Version(*pair)
        >>> Version = xidata.register(Version, to_xi, from_xi, name="example.version")
        >>> ch = xidata.channel("versions")
        >>> ch.send(Version(3, 14))
        >>> ch.recv().minor
        14
        >>> xidata.unregister(Version)

    Without: an enum, namedtuple, dataclass or exception may be made again here on channels that do not load pickles too,
    where only what the receiver has named is.

        >>> xidata.register(ZeroDivisionError)
        <class 'ZeroDivisionError'>
        >>> xidata.unregister(ZeroDivisionError)
    """
    if not isinstance(type_, type):
        raise WrongType("register() takes a class, not %r" % (type_,))
    if (to_xi is None) != (from_xi is None) or (name is not None and to_xi is None):
        raise InvalidArgument("register() takes to_xi and from_xi, both, or neither of them nor a name")
    if to_xi is None:
        where = _where(type_)
        plan = _native(type_, where) if where else None
        if plan is None:
            raise InvalidArgument("%s is no enum, namedtuple, dataclass or exception that is found by its name: "
                                  "say with to_xi and from_xi how it goes" % type_.__qualname__)
        _forget(type_)
        KNOWN[where] = type_, plan
        REGISTERED[type_] = None
        return type_
    if not (callable(to_xi) and callable(from_xi)):
        raise WrongType("to_xi and from_xi are to be callable")
    if _goes_natively(type_):
        raise InvalidArgument("%s travels as it is" % type_.__qualname__)
    if name is None:
        name = "%s.%s" % (type_.__module__, type_.__qualname__)
    other = CODECS.get(name) if type(name) in (str, int) else None
    if other and other[0] in SEARCHED:
        _drop_searched(other[0])  # what is registered goes before what was found
    _check_name(type_, name)
    _forget(type_)
    _put(type_, to_xi, from_xi, name)
    REGISTERED[type_] = name
    return type_


def _put(kind, to_xi, from_xi, name):
    PLANS[kind] = name if type(name) is int else NAMED, name, to_xi
    CODECS[name] = kind, from_xi
    MISSING.pop(name, None)


def _drop_searched(kind):
    name, _ = SEARCHED.pop(kind)
    CODECS.pop(name, None)
    PLANS.pop(kind, None)


def search_changed(function):
    """A search function was taken back (None: one was added): what is kept of answers goes. Called by codecs.c."""
    MISSING.clear()
    for kind in [k for k, plan in list(PLANS.items()) if plan is None]:
        PLANS.pop(kind, None)
    for kind in [k for k, (_, knew) in list(SEARCHED.items()) if function is not None and knew == function]:
        _drop_searched(kind)


def _take(codec, key, function, version):
    """The plan of what a search function returned for a class or a name; kept if it is still to be asked."""
    if not (isinstance(codec, tuple) and 3 <= len(codec) <= 4):
        raise WrongType("the search function %r returned %r: it is to be a Codec, or None" % (function, codec))
    kind, to_xi, from_xi, name = codec if len(codec) == 4 else (*codec, None)
    if not (isinstance(kind, type) and callable(to_xi) and callable(from_xi)):
        raise WrongType("the search function %r returned a codec of no class, or whose functions cannot be called" % (function,))
    if name is None:
        name = "%s.%s" % (kind.__module__, kind.__qualname__)
    if key is not kind and (type(key) is not type(name) or key != name):
        raise InvalidArgument("the search function %r was asked for %r and returned the codec of %s, %r"
                              % (function, key, kind.__qualname__, name))
    _check_name(kind, name)
    if kind not in REGISTERED and version == _search_version():
        if kind in SEARCHED:
            _drop_searched(kind)
        _put(kind, to_xi, from_xi, name)
        SEARCHED[kind] = name, function
    return name if type(name) is int else NAMED, name, to_xi


def _search_name(name):
    """(class, from_xi) of what a search function knows of a received name; or None, which is kept."""
    codec, function, version = _search(name)
    if codec is None:
        if version == _search_version():
            if len(MISSING) >= MOST:
                MISSING.clear()
            MISSING[name] = True
        return None
    _take(codec, name, function, version)
    return codec[0], codec[2]


def _forget(kind):
    """What register() said of it. False if that was nothing."""
    if kind in SEARCHED:
        _drop_searched(kind)
    if kind in (_Chained, Replacement):
        return False
    if kind not in REGISTERED:
        PLANS.pop(kind, None)
        return False
    name = REGISTERED.pop(kind)
    if name is not None:
        del CODECS[name]
    for where in [w for w, known in KNOWN.items() if known[0] is kind]:
        del KNOWN[where]
    PLANS.pop(kind, None)
    return True


def unregister(type_):
    """
    Take back what register() was told about a class; LookupError if that was nothing.

        >>> xidata.unregister(int)
        Traceback (most recent call last):
            ...
        xidata.NotFound: <class 'int'> is not registered
    """
    if not _forget(type_):
        raise NotFound("%r is not registered" % (type_,))


# ------------------------------------------------------------------ in pickles


def _reduce(kind):
    _, name, to_xi = PLANS[kind]
    return lambda o: (make_named, (name, to_xi(o)))


_Asking = None


def _asking():
    """A Pickler that asks for each class that it meets as sending does, search functions included."""
    global _Asking
    if _Asking:
        return _Asking
    import pickle

    class _Asking(pickle.Pickler):
        def reducer_override(self, o):
            kind = type(o)
            plan = PLANS.get(kind) if kind in PLANS else None if issubclass(kind, type) else plan_of(kind)
            if plan is None or plan[0] < 256 or kind in REGISTERED:
                return NotImplemented
            return make_named, (plan[1], plan[2](o))

    return _Asking


def dumps(o, append):
    """pickle.dumps() of a value in which there may be objects of registered classes. Called by encode.c."""
    import io
    import pickle

    out = io.BytesIO()
    pickler = (_asking() if _search_version() else pickle.Pickler)(out, 5, buffer_callback=append)
    pickler.dispatch_table = {**copyreg.dispatch_table, **{codec[0]: _reduce(codec[0]) for codec in CODECS.values()}}
    pickler.dump(o)
    return out.getvalue()
