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

import enum

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
    Full,
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
    _open_existing,
    buffer,
    channel,
    channels,
    current,
    interpreters,
    join,
    leave,
    remove,
    run_free,
)


class Ready(enum.IntFlag):
    """What Set.wait() reports of a channel."""

    RECV = 1  # something to receive
    SEND = 2  # room for a small value
    CLOSED = 4  # closed and drained, or removed
    NO_PRODUCER = 8  # drained, and nobody has it open to send
    LEFT = 16  # the handle was freed: it is no longer in the set


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
    "ChannelRemoved",
    "Corrupt",
    "DEPTH_MAX",
    "DecodeError",
    "Delivery",
    "Empty",
    "Ending",
    "Error",
    "Forked",
    "Full",
    "GroupInfo",
    "Interpreter",
    "InterpreterId",
    "InterpreterInfo",
    "InvalidArgument",
    "Left",
    "Limit",
    "Loan",
    "Mismatch",
    "NoConsumer",
    "NoMemory",
    "NoProducer",
    "NotFound",
    "OutOfRange",
    "Quota",
    "Ready",
    "Reference",
    "Request",
    "ServerDied",
    "Set",
    "ShmFull",
    "Stale",
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
    "remove",
    "run_free",
]
