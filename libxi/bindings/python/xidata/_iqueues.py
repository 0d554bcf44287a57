# SPDX-License-Identifier: MIT
"""
The queues of PEP 734 on channels.

A queue is a channel. Its name carries what all who know its id have to agree on: the id, the size and the default
for items whose interpreter is gone. Each item says who put it and what shall become of it then; who receives it looks
whether that interpreter is still there.
"""

import os
import weakref
from pickle import PickleError

import xidata

from . import queues
from ._crossinterp import (
    BY_FLAG,
    KEEP,
    UNBOUND,
    UNBOUND_ERROR,
    UNBOUND_REMOVE,
    ItemInterpreterDestroyed,
    NotShareableError,
    QueueEmpty,
    QueueFull,
    QueueNotFoundError,
    unbound_flag,
)
from ._functions import by_code

_PREFIX = "pep734."
_GROW = 1 << 34  # bytes
_GONE = (xidata.ChannelRemoved, xidata.ChannelClosed, xidata.Left, xidata.NotFound)
UNSENDABLE = (PickleError, TypeError, ValueError, AttributeError)  # what pickle says of a value
_known = weakref.WeakValueDictionary()
_made = 0


def _me():
    return xidata.current() or xidata.join()


def _name(id, maxsize, flag):
    return "%s%d.%d.%d" % (_PREFIX, id, maxsize, flag)


def _find(id):
    """The name of the channel of a queue."""
    start = "%s%d." % (_PREFIX, id)
    for info in xidata.channels(_me().namespace):
        if info.name.startswith(start):
            return info.name
    raise QueueNotFoundError("queue %d not found" % id)


def create(maxsize=0, *, unbounditems=UNBOUND):
    """
    A new queue between interpreters. `maxsize`: the most items in it; 0 and less: no limit. `unbounditems`: what
    becomes of items when the interpreter that put them is gone, unless put() says otherwise:

    UNBOUND         get() returns UNBOUND in their place
    UNBOUND_ERROR   get() raises ItemInterpreterDestroyed in their place
    UNBOUND_REMOVE  they vanish
    KEEP            they stay what they are, as values in channels do (xidata's own)

        queue = interpreters.create_queue(10)
        queue.put("spam")
        assert queue.get(timeout=1.5) == "spam"
    """
    global _made
    flag = unbound_flag(unbounditems)
    if not isinstance(maxsize, int):
        raise TypeError("maxsize is an int, not %s" % type(maxsize).__name__)
    me = _me()
    _made += 1
    id = me.id << 24 | _made
    more = {"values": maxsize} if maxsize > 0 else {}
    return Queue(id, _channel=me.channel(_name(id, maxsize, flag), grow=_GROW, **more))


def list_all():
    """All queues that somebody has open."""
    ids = [int(i.name[len(_PREFIX) :].partition(".")[0]) for i in xidata.channels(_me().namespace) if i.name.startswith(_PREFIX)]
    found = []
    for id in sorted(ids):
        try:
            found.append(Queue(id))
        except QueueNotFoundError:
            pass  # removed since
    return found


class Queue:
    """A queue between interpreters, by its id. There is one object for an id in a process."""

    _xi_shareable = True

    def __new__(cls, id, /, *, _channel=None):
        if not isinstance(id, int):
            raise TypeError("id must be an int, got %r" % (id,))
        id = int(id)
        if id < 0:
            raise ValueError("a queue's id is not negative, as %d is" % id)
        self = _known.get(id)
        if self is not None and self._pid == os.getpid():
            return self
        if _channel is None:
            try:
                _channel = _me().channel(_find(id), existing=True)
            except (xidata.NotFound, xidata.ChannelRemoved):  # the latter: while it was being opened
                raise QueueNotFoundError("queue %d not found" % id) from None
        self = object.__new__(cls)
        self._id = id
        self._pid = os.getpid()
        self._channel = _channel
        maxsize, flag = _channel.name[len(_PREFIX) :].split(".")[1:]
        self._maxsize, self._flag = int(maxsize), int(flag)
        self._state = {"pid": os.getpid(), "forks": queues._forks, "passed_on": False}
        weakref.finalize(self, queues._end, [_channel], True, self._state)
        _known[id] = self
        return self

    def __repr__(self):
        return "%s(%d)" % (type(self).__name__, self._id)

    def __hash__(self):
        return hash(self._id)

    def __eq__(self, other):
        return self._id == other._id if isinstance(other, Queue) else NotImplemented

    def __reduce__(self):
        return type(self), (self._pass_on(),)

    def _pass_on(self):
        """Its id, for another process: this one cannot know any more who has it."""
        self._state["passed_on"] = True
        return self._id

    @property
    def id(self):
        """Its number, never used twice in the namespace."""
        return self._id

    @property
    def maxsize(self):
        """The most items in it, as create_queue() was told."""
        return self._maxsize

    @property
    def unbounditems(self):
        """What becomes of items whose interpreter is gone, unless put() says otherwise."""
        return BY_FLAG[self._flag]

    def _lost(self):
        return QueueNotFoundError("queue %d not found" % self._id)

    def qsize(self):
        """How many items it holds. (Looks through them, for those that are to vanish with their interpreter.)"""
        try:
            depth = self._channel.stat().depth
            return depth - self._vanished(depth) if depth else 0
        except _GONE:
            raise self._lost() from None

    def _vanished(self, depth):
        """How many of the items are there no more, since their interpreter is gone."""
        gone, present = 0, {}
        with _me().channel(self._channel.name, existing=True, recv_only=True, from_="oldest", temporary=True) as look:
            for _ in range(depth):
                try:
                    mark, _ = look.recv(0)
                except xidata.Empty:
                    break
                except xidata.DecodeError:
                    continue
                if mark & 7 == UNBOUND_REMOVE._flag:
                    sender = mark >> 3
                    if sender not in present:
                        present[sender] = xidata._alive(sender)
                    gone += not present[sender]
        return gone

    def empty(self):
        """True if it holds nothing."""
        return self.qsize() == 0

    def full(self):
        """True if it holds as much as it may."""
        return 0 < self._maxsize <= self.qsize()

    def put(self, obj, block=True, timeout=None, *, unbounditems=None):
        """
        Add an item. While the queue is full it waits, for ever or `timeout` seconds (a float); QueueFull then, and at
        once without `block`. `unbounditems`: as in create_queue(), for this item.
        """
        flag = self._flag if unbounditems is None else unbound_flag(unbounditems)
        self._put(_me().id << 3 | flag, obj, _seconds(block, timeout))

    def put_nowait(self, obj, *, unbounditems=None):
        """put() that does not wait."""
        self.put(obj, False, unbounditems=unbounditems)

    def _put(self, mark, obj, timeout):
        try:
            try:
                self._channel.send((mark, obj), timeout)
            except UNSENDABLE as error:
                again = by_code(obj)
                if again is obj or isinstance(error, xidata.Error):
                    raise
                self._channel.send((mark, again), timeout)
        except (xidata.Full, xidata.Timeout):
            raise QueueFull("queue %d is full" % self._id) from None
        except _GONE:
            raise self._lost() from None
        except xidata.Error:
            raise
        except UNSENDABLE as error:
            raise NotShareableError("%r does not support cross-interpreter data: %s" % (obj, error)) from error

    def get(self, block=True, timeout=None):
        """
        The next item. While there is none it waits, for ever or `timeout` seconds (a float); QueueEmpty then, and at once
        without `block`. What it returns for an item whose interpreter is gone is said in create_queue().
        """
        from time import monotonic

        wait = _seconds(block, timeout)
        end = wait and monotonic() + wait
        while True:
            mark, obj = self._get(wait)
            flag = mark & 7
            if flag == KEEP._flag or xidata._alive(mark >> 3):
                return obj
            if flag == UNBOUND._flag:
                return UNBOUND
            if flag == UNBOUND_ERROR._flag:
                raise ItemInterpreterDestroyed("item's original interpreter destroyed")
            if end:
                wait = max(0, end - monotonic())

    def _get(self, timeout):
        try:
            return self._channel.recv(timeout)
        except (xidata.Empty, xidata.Timeout):
            raise QueueEmpty("queue %d is empty" % self._id) from None
        except _GONE:
            raise self._lost() from None
        except xidata.DecodeError as error:
            raise NotShareableError(str(error)) from error.__cause__

    def get_nowait(self):
        """get() that does not wait."""
        return self.get(False)


def _seconds(block, timeout):
    if not block:
        return 0
    if timeout is not None and timeout < 0:
        raise ValueError("timeout value must be non-negative")
    return timeout


Queue.__module__ = "xidata.interpreters"
create.__module__ = list_all.__module__ = "xidata.interpreters"
