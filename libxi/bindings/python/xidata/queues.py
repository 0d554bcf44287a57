# SPDX-License-Identifier: MIT
"""
Queues with the methods of queue.Queue and multiprocessing.Queue, for threads and for processes alike.

    jobs = xidata.Queue(maxsize=100)            # anonymous: for children, and for whoever it is sent to
    jobs = xidata.Queue(name="jobs")            # whoever names it so has the same queue, related or not

A queue is a channel: there is no feeder thread and no pipe. When put() has returned, the item will be got, though the
process is killed the moment after; what cannot be pickled is an exception of put(). Items keep their order, and a
timeout is a number of seconds of any size. It goes through fork, through spawn, and through queues and channels.

Unfinished tasks are those that were put less those that task_done() was called for, by anybody. Both are counters of
channels: of the queue's own, and of a second one, on which task_done() sends, and in which join() listens with a group
of its own. It is a broadcast: with nobody in join() it holds nothing, and goes with the last object of the queue.
"""

import os
import queue
import weakref
from queue import Empty, Full

import xidata

_GROW = 1 << 34  # bytes to which a queue may grow with its backlog
_TOLD = 60.0  # seconds for which task_done() can be heard
_made = 0
_forks = 0


def _count_forks():
    global _forks
    _forks += 1


os.register_at_fork(before=_count_forks)

try:
    ShutDown = queue.ShutDown
except AttributeError:  # before 3.13

    class ShutDown(Exception):
        """put() on a queue that was shut down, or get() when nothing is left in it."""

    ShutDown.__module__ = "xidata"


def _me():
    return xidata.current() or xidata.join()


def _new_name():
    global _made
    _made += 1
    return "queue.%d.%d" % (_me().id, _made)


def _end(channels, anonymous, state):
    """The object has gone. What is in an anonymous queue that nobody else can know is dropped with it."""
    try:
        first = channels[0]
        alone = anonymous and state["pid"] == os.getpid() and state["forks"] == _forks and not state["passed_on"]
        if alone and not first.freed and first.stat().handles == 1:
            xidata.remove(first.name)
    except xidata.Error:
        pass  # it was removed, or the interpreter has left
    for channel in reversed(channels): # the count of what is done never outlives what it counts
        channel.free()


def _restore(kind, name, maxsize, anonymous):
    self = kind.__new__(kind)
    self._open(name, maxsize, anonymous)
    self._state["passed_on"] = True
    return self


class SimpleQueue:
    """
    An unbounded queue, as queue.SimpleQueue and multiprocessing.SimpleQueue.

        q = xidata.SimpleQueue()
        q.put("spam")
        assert q.get() == "spam"
    """

    _close_error = OSError  # what empty() says of a closed one

    def __init__(self, *, name=None):
        self._open(name or _new_name(), 0, name is None)

    def _open(self, name, maxsize, anonymous):
        me = _me()
        self._name, self._anonymous = name, anonymous
        self.maxsize = maxsize
        self._channel = me.channel(name, mode="queue", grow=_GROW, values=max(0, maxsize))
        self._channels = [self._channel]
        self._state = {"pid": os.getpid(), "forks": _forks, "passed_on": False}
        self._used = self._closed = False
        self._finalizer = weakref.finalize(self, _end, self._channels, anonymous, self._state)

    def __repr__(self):
        return "<xidata.%s %r%s>" % (type(self).__name__, self._name, ", closed" if self._closed else "")

    def __reduce__(self):
        self._state["passed_on"] = True
        return _restore, (type(self), self._name, self.maxsize, self._anonymous)

    @property
    def name(self):
        """The name of the channel that it is."""
        return self._name

    def put(self, item, block=True, timeout=None):
        """Add an item. While there is no room it waits, for ever or `timeout` seconds; Full then, or without `block`."""
        try:
            self._channel.send(item, _seconds(timeout) if block else 0)
        except (xidata.Full, xidata.Timeout):
            raise Full from None
        except (xidata.ChannelClosed, xidata.ChannelRemoved, xidata.Left) as error:
            raise self._over(error) from None
        self._used = True

    def get(self, block=True, timeout=None):
        """The next item. While there is none it waits, for ever or `timeout` seconds; Empty then, or without `block`."""
        try:
            return self._channel.recv(_seconds(timeout) if block else 0)
        except (xidata.Empty, xidata.Timeout):
            raise Empty from None
        except (xidata.ChannelClosed, xidata.ChannelRemoved, xidata.Left) as error:
            raise self._over(error) from None

    def put_nowait(self, item):
        """put() that does not wait."""
        self.put(item, False)

    def get_nowait(self):
        """get() that does not wait."""
        return self.get(False)

    def _over(self, error):
        if self._closed:
            return ValueError("Queue %r is closed" % self)
        if isinstance(error, xidata.Left):
            return error
        return ShutDown()

    def qsize(self):
        """How many items it holds: exact, as of a moment ago."""
        return self._channel.stat().depth

    def empty(self):
        """True if it holds nothing."""
        if self._closed:
            if self._used or self._close_error is not None:
                raise OSError("Queue %r is closed" % self)
            return True
        return self._channel.stat().depth == 0

    def close(self):
        """This object is of no more use; others of the same queue are."""
        self._closed = True
        self._finalizer()


class Queue(SimpleQueue):
    """
    A queue of at most `maxsize` items (0: no limit), as queue.Queue and multiprocessing.JoinableQueue.

        q = xidata.Queue(2)
        q.put("spam", timeout=0.5)
        assert (q.get(), q.qsize()) == ("spam", 0)
        q.task_done()
        q.join()
    """

    _close_error = None

    def __init__(self, maxsize=0, *, name=None, ctx=None):
        self._open(name or _new_name(), maxsize, name is None)

    def _open(self, name, maxsize, anonymous):
        super()._open(name, maxsize, anonymous)
        self._done = _me().channel(
            name + ".done", mode="broadcast", when_full="drop", ttl=_TOLD, capacity=4096, send_only=True
        )
        self._channels.append(self._done)
        done, stat = self._done.stat(), self._channel.stat()
        if done.sent == 0 and done.handles == 1 and stat.sent > stat.depth:
            # Nobody has had it open: what was got of a queue that outlived its processes is nobody's task any more.
            self._done.send_many(None for _ in range(stat.sent - stat.depth))

    def full(self):
        """True if it holds as much as it may."""
        return 0 < self.maxsize <= self._channel.stat().depth

    @property
    def unfinished_tasks(self):
        """How many items were put for which task_done() has not been called."""
        done = self._done.stat().sent # first: what is put meanwhile is unfinished
        return max(0, self._channel.stat().sent - done)

    def task_done(self):
        """One of the items got is done with. ValueError if more are done than were put."""
        if not self.unfinished_tasks:
            raise ValueError("task_done() called too many times")
        self._done.send(None)

    def join(self):
        """Wait until task_done() was called for every item that was put."""
        if not self.unfinished_tasks:
            return
        with self._done.interpreter.channel(self._done.name, recv_only=True, temporary=True) as done:
            while self.unfinished_tasks:
                try:
                    done.recv_many(1000, _TOLD / 3)
                except xidata.Timeout:
                    pass  # look again: this process may have been stopped for so long that it missed one

    def shutdown(self, immediate=False):
        """
        No more items: put() raises ShutDown, here and everywhere, and get() when nothing is left. With `immediate` what is
        in it is dropped, and counts as done.
        """
        self._channel.close()
        while immediate:
            try:
                dropped = len(self._channel.recv_many(1000, 0))
            except (xidata.Empty, xidata.ChannelClosed):
                break
            except xidata.DecodeError: # one that others may know how to read; nobody will
                dropped = 1
            self._done.send_many(None for _ in range(dropped))

    @property
    def is_shutdown(self):
        """True after shutdown(), by anybody."""
        return self._channel.stat().closed

    def join_thread(self):
        """For multiprocessing's sake: there is no thread to wait for."""

    def cancel_join_thread(self):
        """For multiprocessing's sake: there is no thread to wait for."""


class JoinableQueue(Queue):
    """Queue by the name that multiprocessing has for one with join()."""


def _seconds(timeout):
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout


for _class in (SimpleQueue, Queue, JoinableQueue):
    _class.__module__ = "xidata"
