# SPDX-License-Identifier: MIT
"""
Channels in asyncio and trio, without threads.

    >>> async def relay(ch, other):
    ...     job = await ch.arecv()      # these are aio.arecv(ch), ...
    ...     await other.asend(job)
    ...     async for job in ch:
    ...         await other.asend(job)
    >>> ch, other = xidata.channel("jobs"), xidata.channel("others")
    >>> ch.send_many(range(4))
    4
    >>> ch.close()
    >>> asyncio.run(relay(ch, other))
    >>> other.recv_many(10)
    [0, 1, 2, 3]

Each event loop has one Set of the channels that somebody waits to receive from, and one of those that somebody waits
to send to; it watches their descriptors. A waiter is woken when its channel is ready, and only then, in its own turn,
does it receive, in one step without an await: what was cancelled before has taken nothing, what was not has its value.
Waiters are woken one after the other: who has received wakes the next, and who finds nothing lets the set look again.

When a set ends (its interpreter left, or was told to end, or the namespace was shut down), all who wait are woken, to be
told. What the loop watches is a duplicate of the set's descriptor: the set may be closed by anybody, in any thread, and the
loop would not hear of that from a descriptor that went with it.
"""

import collections
import os
import weakref

import xidata

_hubs = weakref.WeakKeyDictionary()  # event loop: its _Hub


class _Asyncio:
    """An event loop of asyncio (or uvloop)."""

    def __init__(self, loop):
        self.loop = weakref.proxy(loop)  # it keeps the hub, so the hub must not keep it

    def watch(self, fd, call):
        self.loop.add_reader(fd, call)

    def unwatch(self, fd):
        if not self.loop.is_closed():
            self.loop.remove_reader(fd)

    def soon(self, call):
        self.loop.call_soon(call)

    async def park(self, waiter, timeout):
        """Until wake(waiter), or so many seconds. True if it was woken."""
        import asyncio

        waiter.future = self.loop.create_future()
        timer = None
        if timeout is not None:
            timer = self.loop.call_later(timeout, self.expire, waiter)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            raise
        finally:
            if timer is not None:
                timer.cancel()

    @staticmethod
    def expire(waiter):
        if not waiter.future.done():
            waiter.future.set_result(False)

    @staticmethod
    def wake(waiter):
        """False if it is not waiting any more."""
        if waiter.future.done():
            return False
        waiter.future.set_result(True)
        return True


class _Trio:
    """
    A run of trio: a system task waits for each descriptor that is watched. Trio lets one task wait for a descriptor, and a
    task that was told to stop is there until its next turn: so who is asked to watch again meanwhile goes on.
    """

    def __init__(self, trio):
        self.trio = trio
        self.calls = {}  # fd: what is to be called
        self.scopes = {}  # fd: what its task waits in, None before it has begun

    def watch(self, fd, call):
        self.calls[fd] = call
        if fd not in self.scopes:
            self.scopes[fd] = None
            self.trio.lowlevel.spawn_system_task(self.wait, fd)

    async def wait(self, fd):
        try:
            while fd in self.calls:
                with self.trio.CancelScope() as self.scopes[fd]:
                    while fd in self.calls:
                        await self.trio.lowlevel.wait_readable(fd)
                        if fd in self.calls:
                            self.calls[fd]()
        finally:
            del self.scopes[fd]

    def unwatch(self, fd):
        del self.calls[fd]
        if self.scopes[fd] is not None:
            self.scopes[fd].cancel()

    def soon(self, call):
        self.trio.lowlevel.current_trio_token().run_sync_soon(call)

    async def park(self, waiter, timeout):
        waiter.future, waiter.woken = self.trio.Event(), False
        with self.trio.move_on_after(float("inf") if timeout is None else timeout):
            await waiter.future.wait()
        return waiter.woken

    @staticmethod
    def wake(waiter):
        if waiter.woken or waiter.gone:
            return False
        waiter.woken = True
        waiter.future.set()
        return True


class _Waiter:
    __slots__ = ("future", "woken", "gone")

    def __init__(self):
        self.gone = False


class _Line:
    """Who waits for one channel, in order. `chain`: one has been woken, and the others have it to thank."""

    __slots__ = ("waiters", "chain")

    def __init__(self):
        self.waiters = collections.deque()
        self.chain = None


class _Side:
    """The channels that an event loop waits to receive from, or to send to."""

    def __init__(self, loop, send, interpreter):
        self.loop, self.send = loop, send
        self.set = xidata.Set(interpreter=interpreter)
        self.fd = self.close_fd = None
        self.watched = False
        self.lines = {}
        self.error = None  # why the set has ended

    def look(self):
        """Wakes the first waiter of each channel that is ready. Ends with the set armed, or with somebody on the way."""
        while self.lines:
            woken = False
            try:
                ready = self.set.wait(0)
            except xidata.Error as error:
                self.end(error.with_traceback(None))
                return
            for channel, _ in ready:
                line = self.lines.get(channel)
                if line is None:
                    self.leave(channel)
                elif line.chain is None:
                    woken |= self.next(channel, line)
            if not woken:
                return

    def end(self, error):
        """The set has nothing to say any more but this."""
        self.error = error
        lines, self.lines = self.lines, {}
        self.rest()
        self.close_fd()
        self.set.close()
        for line in lines.values():
            for waiter in line.waiters:
                self.loop.wake(waiter)

    def rest(self):
        """Nobody waits any more."""
        self.watched = False
        self.loop.unwatch(self.fd)

    def leave(self, channel):
        try:
            self.set.remove(channel)
        except (KeyError, xidata.Error):
            pass  # its handle was freed, and left the set by itself

    def next(self, channel, line):
        """Wakes the first who waits. False if nobody does, and the set has the channel no more."""
        line.chain = None
        for waiter in line.waiters:
            if self.loop.wake(waiter):
                line.chain = waiter
                return True
        return False

    async def turn(self, channel, attempt, deadline, clock):
        """attempt() as soon as it neither says Empty nor Full. `deadline`: when there is no more time, or None."""
        line = self.lines.get(channel)
        if line is None:
            line = self.enter(channel)
        waiter = _Waiter()
        line.waiters.append(waiter)
        try:
            while self.error is None:
                left = None if deadline is None else max(0, deadline - clock())
                woken = await self.loop.park(waiter, left)
                try:
                    return attempt()
                except (xidata.Empty, xidata.Full):
                    if not woken:
                        raise xidata.Timeout("channel %r: the time is over" % channel.name) from None
                self.let_go(channel, line, waiter, False)
            raise type(self.error)(*self.error.args)  # one for each: it keeps the traceback of who raises it
        finally:
            waiter.gone = True
            line.waiters.remove(waiter)
            self.let_go(channel, line, waiter, True)

    def enter(self, channel):
        """A line for a channel that had none. Where that fails there is none still, so that the next who comes tries again."""
        self.set.add(channel, recv=not self.send, send=self.send)
        try:
            self.loop.soon(self.look)
            if self.fd is None:
                self.open_fd()
            if not self.watched:
                self.loop.watch(self.fd, self.look)
                self.watched = True
        except BaseException:
            self.leave(channel)
            raise
        line = self.lines[channel] = _Line()
        return line

    def open_fd(self):
        fd = self.set.fileno()
        try:
            self.fd = os.dup(fd)
        except OSError as error:
            raise xidata.NoMemory("cannot duplicate the descriptor of a set: %s" % error.strerror) from None
        self.close_fd = weakref.finalize(self, os.close, self.fd)

    def let_go(self, channel, line, waiter, more):
        """The waiter has had its turn, or goes. `more`: there may be more for the next."""
        mine = line.chain is waiter
        if mine:
            line.chain = None
        if not line.waiters:
            if self.lines.get(channel) is line:
                del self.lines[channel]
                self.leave(channel)
            if not self.lines and self.watched:
                self.rest()
        elif mine and not (more and self.next(channel, line)):
            self.look()


class _Hub:
    def __init__(self, loop):
        self.loop = loop
        self.sides = {}

    def side(self, channel, send):
        key = (send, channel.interpreter)
        side = self.sides.get(key)
        if side is None or side.set.closed:
            self.sides = {k: s for k, s in self.sides.items() if not s.set.closed}  # their interpreters have left
            side = self.sides[key] = _Side(self.loop, send, channel.interpreter)
        return side


def _here():
    """(hub, clock) of the event loop that runs."""
    import sys

    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            task, run = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()
        except RuntimeError:
            pass
        else:
            del task
            hub = _hubs.get(run)
            if hub is None:
                hub = _hubs[run] = _Hub(_Trio(trio))
            return hub, trio.current_time
    import asyncio

    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = _Hub(_Asyncio(loop))
    return hub, loop.time


async def _wait(channel, send, attempt, timeout):
    try:
        return attempt()
    except (xidata.Empty, xidata.Full):
        if timeout is not None and timeout <= 0:
            raise
    hub, clock = _here()
    deadline = None if timeout is None else clock() + timeout
    return await hub.side(channel, send).turn(channel, attempt, deadline, clock)


async def arecv(channel, timeout=None):
    """
    As Channel.recv(). Cancelled, it has taken nothing; when it returns, the value is the caller's.

        >>> ch = xidata.channel("jobs")
        >>> ch.send("job")
        >>> asyncio.run(xidata.aio.arecv(ch, timeout=5))
        'job'
    """
    return await _wait(channel, False, channel.try_recv, timeout)


async def asend(channel, obj, timeout=None, *, on_free=None, ttl=None):
    """
    As Channel.send(). Cancelled, it has not sent.

        >>> ch = xidata.channel("jobs")
        >>> asyncio.run(xidata.aio.asend(ch, ("done", 7)))
        >>> ch.recv()
        ('done', 7)
    """
    more = {}
    if on_free is not None:
        more["on_free"] = on_free
    if ttl is not None:
        more["ttl"] = ttl
    return await _wait(channel, True, lambda: channel.send(obj, 0, **more), timeout)


class iterate:
    """What `async for` has of a channel: values until it is closed and drained."""

    def __init__(self, channel):
        self.channel = channel

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return await arecv(self.channel)
        except xidata.ChannelClosed:
            raise StopAsyncIteration from None
