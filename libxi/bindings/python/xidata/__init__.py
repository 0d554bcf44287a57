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
types, UUID, Decimal and Fraction; everything else, subclasses included, is
pickled (protocol 5, large buffers out of band). Sharing inside a value is not
kept by the native forms: a list that is contained twice arrives as two lists.
"""

from ._xidata import (
    AccessDenied,
    Broker,
    Channel,
    ChannelClosed,
    ChannelInfo,
    Corrupt,
    DecodeError,
    DEPTH_MAX,
    Empty,
    Ending,
    Error,
    Forked,
    Full,
    Interpreter,
    InterpreterInfo,
    InvalidArgument,
    Left,
    Limit,
    Loan,
    Mismatch,
    NoMemory,
    NotFound,
    OutOfRange,
    Quota,
    Reference,
    ShmFull,
    SystemFailure,
    Timeout,
    TooBig,
    TooDeep,
    View,
    WrongType,
    __version__,
    _open_existing,
    buffer,
    channel,
    channels,
    current,
    interpreters,
    join,
    leave,
    run_free,
)


class InterpreterId(int):
    """The id of an interpreter, as it arrives from another; an int."""

    __slots__ = ()

    def __repr__(self):
        return "InterpreterId(%d)" % self


__all__ = [
    "AccessDenied",
    "Broker",
    "Channel",
    "ChannelClosed",
    "ChannelInfo",
    "Corrupt",
    "DEPTH_MAX",
    "DecodeError",
    "Empty",
    "Ending",
    "Error",
    "Forked",
    "Full",
    "Interpreter",
    "InterpreterId",
    "InterpreterInfo",
    "InvalidArgument",
    "Left",
    "Limit",
    "Loan",
    "Mismatch",
    "NoMemory",
    "NotFound",
    "OutOfRange",
    "Quota",
    "Reference",
    "ShmFull",
    "SystemFailure",
    "Timeout",
    "TooBig",
    "TooDeep",
    "View",
    "WrongType",
    "buffer",
    "channel",
    "channels",
    "current",
    "interpreters",
    "join",
    "leave",
    "run_free",
]
