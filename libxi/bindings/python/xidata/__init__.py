# SPDX-License-Identifier: MIT
"""Hand values between processes on one Linux host through shared memory.

A process joins a namespace and opens named channels; a value sent on a channel
goes to exactly one receiver in every group of it, and survives kill -9 of
anybody. Values keep their exact types; large buffers and numpy arrays are not
copied on their way in.

    # one process                          # another
    import xidata                          import xidata
    ch = xidata.channel("jobs")            ch = xidata.channel("jobs")
    ch.send({"id": 1, "data": array})      job = ch.recv()

Natively go None, bool, int, float, complex, str, bytes, bytearray, tuple, list,
set, frozenset, dict, range, memoryview (of bytes), numpy arrays, datetime's
types, UUID, Decimal and Fraction, and by the name of their class enums,
namedtuples, dataclasses and exceptions; types of your own by register().
Everything else, subclasses included, is pickled (protocol 5, large buffers out
of band). Sharing inside a value is not kept by the native forms: a list that is
contained twice arrives as two lists.
"""

from ._xidata import (
    AccessDenied,
    Broker,
    Channel,
    ChannelClosed,
    ChannelInfo,
    ChannelRemoved,
    Corrupt,
    DecodeError,
    Delivery,
    DEPTH_MAX,
    Empty,
    Ending,
    Error,
    Forked,
    GroupInfo,
    Interpreter,
    InterpreterInfo,
    InvalidArgument,
    Left,
    Limit,
    Loan,
    Mismatch,
    NoConsumer,
    NoMemory,
    NoProducer,
    NotFound,
    OutOfRange,
    Quota,
    Reference,
    Request,
    ServerDied,
    Set,
    ShmFull,
    Stale,
    SystemFailure,
    Timeout,
    TooBig,
    TooDeep,
    View,
    WrongType,
    __version__,
    _alive,
    _die_with_parent,
    _open_existing,
    buffer,
    channel,
    channels,
    current,
    join,
    leave,
    list_interpreters,
    lookup_error,
    register_error,
    register_search,
    remove,
    run_free,
    unregister_search,
)


class InterpreterId(int):
    """The id of an interpreter, as it arrives from another; an int."""

    __slots__ = ()

    def __repr__(self):
        return "InterpreterId(%d)" % self


class Warning(ResourceWarning):
    """What xidata warns of: silent unless asked for (python -X dev, or -W default::ResourceWarning)."""


class SlowConsumerWarning(Warning):
    """A send has waited for room for a second."""


class BacklogWarning(Warning):
    """An interpreter leaves while values wait in a channel that nobody else has open."""


class UnsentLoanWarning(Warning):
    """A buffer() was dropped that was neither sent nor released."""


class LeakedLoanWarning(Warning):
    """Loans are held still that were old at the last full collection already (xidata.loans)."""


# What lies in modules of its own, loaded when it is first asked for.
_LAZY = {
    "BrokenInterpreterPool": "futures",
    "Codec": "_types",
    "CodecError": "_types",
    "InterpreterPoolExecutor": "futures",
    "Full": "_full",
    "JoinableQueue": "queues",
    "Queue": "queues",
    "Ready": "_ready",
    "ShutDown": "queues",
    "asarray": "_arrays",
    "empty": "_arrays",
    "zeros": "_arrays",
    "RemoteException": "_types",
    "RemoteTraceback": "_types",
    "Replacement": "_types",
    "SimpleQueue": "queues",
    "aio": None,
    "interpreters": None,
    "loans": None,
    "register": "_types",
    "unregister": "_types",
    "futures": None,
    "namespaces": "_look",
    "stats": "_look",
    "queues": None,
}


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    from importlib import import_module

    module = import_module("%s.%s" % (__name__, _LAZY[name] or name))
    value = getattr(module, name) if _LAZY[name] else module
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(_LAZY))


__all__ = [
    "AccessDenied",
    "BacklogWarning",
    "BrokenInterpreterPool",
    "Broker",
    "Channel",
    "ChannelClosed",
    "ChannelInfo",
    "ChannelRemoved",
    "Codec",
    "CodecError",
    "Corrupt",
    "DecodeError",
    "Delivery",
    "DEPTH_MAX",
    "Empty",
    "Ending",
    "Error",
    "Forked",
    "Full",
    "GroupInfo",
    "Interpreter",
    "InterpreterId",
    "InterpreterInfo",
    "InterpreterPoolExecutor",
    "InvalidArgument",
    "JoinableQueue",
    "LeakedLoanWarning",
    "Left",
    "Limit",
    "Loan",
    "Mismatch",
    "NoConsumer",
    "NoMemory",
    "NoProducer",
    "NotFound",
    "OutOfRange",
    "Queue",
    "Quota",
    "Ready",
    "Reference",
    "RemoteException",
    "RemoteTraceback",
    "Replacement",
    "Request",
    "ServerDied",
    "Set",
    "ShmFull",
    "ShutDown",
    "SimpleQueue",
    "SlowConsumerWarning",
    "Stale",
    "SystemFailure",
    "Timeout",
    "TooBig",
    "TooDeep",
    "UnsentLoanWarning",
    "View",
    "Warning",
    "WrongType",
    "aio",
    "asarray",
    "buffer",
    "channel",
    "channels",
    "current",
    "empty",
    "interpreters",
    "join",
    "leave",
    "list_interpreters",
    "loans",
    "lookup_error",
    "namespaces",
    "register",
    "register_error",
    "register_search",
    "remove",
    "run_free",
    "stats",
    "unregister",
    "unregister_search",
    "zeros",
]
