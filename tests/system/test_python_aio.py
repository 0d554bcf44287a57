# SPDX-License-Identifier: MIT
"""Channels in asyncio, trio and uvloop: arecv(), asend(), async for."""

import asyncio
import gc
import os
import random
import re
import resource
import subprocess
import sys
import threading
import time
import unittest
import warnings

from pyhelp import HERE, SOON, TestCase, main, name, xidata

try:
    import trio
except ImportError:
    trio = None
try:
    import uvloop
except ImportError:
    uvloop = None


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, SOON * 3))


class Asyncio(TestCase):
    def test_values(self):
        ch = xidata.channel(name())

        async def go():
            receiver = asyncio.ensure_future(ch.arecv())
            await asyncio.sleep(0) # a turn of the loop, no wait: the tasks begin to wait
            self.assertFalse(receiver.done())
            await ch.asend({"a": 1})
            self.assertEqual(await receiver, {"a": 1})
            for n in range(100):
                await ch.asend(n)
            self.assertEqual([await ch.arecv() for _ in range(100)], list(range(100)))

        run(go())

    def test_iteration(self):
        ch = xidata.channel(name(), capacity=4096)

        async def produce():
            for n in range(3000): # more than the ring holds
                await ch.asend(n)
            ch.close()

        async def go():
            producer = asyncio.ensure_future(produce())
            got = [n async for n in ch]
            await producer
            self.assertEqual(got, list(range(3000)))
            with self.assertRaises(xidata.ChannelClosed):
                await ch.arecv()
            with self.assertRaises(xidata.ChannelClosed):
                await ch.asend(1)

        run(go())

    def test_from_another_process(self):
        there, back = xidata.channel(name()), xidata.channel(name())
        child = self.child("import sys, xidata\nback = xidata.channel(sys.argv[2])\n"
                           "for v in xidata.channel(sys.argv[1]): back.send(v)", there.name, back.name)

        async def go():
            for n in range(300): # one at a time: each wake-up counts
                await there.asend(n)
                self.assertEqual(await back.arecv(SOON), n)

        run(go())
        there.close()
        self.finished(child)

    def test_timeout(self):
        ch = xidata.channel(name(), values=1)

        async def go():
            before = time.monotonic()
            with self.assertRaises(xidata.Timeout):
                await ch.arecv(0.1)
            with self.assertRaises(xidata.Empty):
                await ch.arecv(0)
            ch.send(1)
            with self.assertRaises(xidata.Timeout):
                await ch.asend(2, 0.1)
            with self.assertRaises(xidata.Full):
                await ch.asend(2, 0)
            self.assertGreaterEqual(time.monotonic() - before, 0.198)  # uvloop's clock counts whole milliseconds
            self.assertEqual(await ch.arecv(), 1)
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(ch.arecv(), 0.05)
            with self.assertRaises(TypeError):
                await ch.arecv(1, 2)

        run(go())

    def test_order_of_waiters(self):
        ch = xidata.channel(name())

        async def go():
            got = []

            async def one(n):
                got.append((n, await ch.arecv()))

            tasks = [asyncio.ensure_future(one(n)) for n in range(50)]
            await asyncio.sleep(0) # a turn of the loop, no wait: the tasks begin to wait
            ch.send_many(range(50))
            await asyncio.gather(*tasks)
            self.assertEqual(got, [(n, n) for n in range(50)])

        run(go())

    def test_freed_and_removed(self):
        ch, other = xidata.channel(name()), xidata.channel(name())

        async def go():
            tasks = [asyncio.ensure_future(c.arecv()) for c in (ch, other) for _ in range(3)]
            await asyncio.sleep(0.05) # asleep for certain; what is tested holds if they are not
            ch.free()
            xidata.remove(other.name)
            for n, result in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                self.assertIsInstance(result, xidata.Left if n < 3 else xidata.ChannelRemoved)

        run(go())

    def test_nothing_is_lost(self):
        """10,000 receivers on 100 channels, half of them cancelled at random moments; what is sent arrives, once."""
        channels = [xidata.channel(name("many")) for _ in range(100)]
        seed = int(os.environ.get("XI_TEST_SEED", "0")) or random.randrange(1 << 30)
        dice = random.Random(seed)

        async def go():
            got, began = [], time.perf_counter()

            async def receive(channel):
                got.append(await channel.arecv())

            tasks = [asyncio.ensure_future(receive(channels[n % 100])) for n in range(10000)]
            await asyncio.sleep(0) # a turn of the loop, no wait: the tasks begin to wait
            doomed = dice.sample(tasks, 5000)
            sent = []
            while doomed or len(sent) < 5000:
                for _ in range(dice.randrange(60)):
                    if doomed:
                        doomed.pop().cancel()
                for _ in range(dice.randrange(60)):
                    if len(sent) < 5000:
                        sent.append((len(sent) % 100, len(sent)))
                        channels[sent[-1][0]].send(sent[-1])
                await asyncio.sleep(0) # a turn of the loop between two strokes: what was woken or cancelled goes on
            # Whoever was cancelled has taken nothing: what is not received yet is in the channels, and nowhere else. It is received
            # where receivers are left: of some channels more than half may be gone.
            while any(c.stat().depth and not all(t.done() for t in tasks[n::100]) for n, c in enumerate(channels)):
                await asyncio.sleep(0.001) # what is waited for is seen in the channels alone, which say nothing of it
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            cancelled = sum(isinstance(r, asyncio.CancelledError) for r in results)
            self.assertFalse([r for r in results if isinstance(r, Exception) and not isinstance(r, asyncio.CancelledError)])
            received = len(got)
            for channel in channels:
                while True:
                    try:
                        got.append(channel.recv(0))
                    except xidata.Empty:
                        break
            self.assertEqual(sorted(got), sorted(sent), "seed %d" % seed)
            self.assertEqual(cancelled + received, 10000, "seed %d" % seed)
            print("10000 receivers on 100 channels, %d cancelled, %d values received by the others and %d left, none lost: "
                  "%.2f s (seed %d)" % (cancelled, received, len(got) - received, time.perf_counter() - began, seed))

        with self.subTest(seed=seed):
            run(go())

    def test_cancelled_as_it_is_woken(self):
        """The waiter that was woken is cancelled before its turn: the value is the next one's."""
        ch = xidata.channel(name())

        async def go():
            for _ in range(50):
                first, second = asyncio.ensure_future(ch.arecv()), asyncio.ensure_future(ch.arecv())
                await asyncio.sleep(0) # a turn of the loop, no wait: the tasks begin to wait
                ch.send("value")
                from xidata import aio

                for side in aio._hubs[asyncio.get_running_loop()].sides.values():
                    side.look() # the first is woken now
                first.cancel()
                self.assertEqual(await second, "value")
                with self.assertRaises(asyncio.CancelledError):
                    await first

        run(go())

    def test_after_one_that_failed(self):
        """No descriptor is left for the first who would wait, then one, then two; the next waits as if nobody had tried."""
        ch = xidata.channel(name())
        before = resource.getrlimit(resource.RLIMIT_NOFILE)

        async def wait_below(limit):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
            try:
                await ch.arecv(0.001)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)

        async def go():
            with self.assertRaises(xidata.Empty):
                await ch.arecv(0) # which loads what it needs
            free = os.open("/dev/null", os.O_RDONLY)
            os.close(free)
            with self.assertRaises(xidata.NoMemory):
                await wait_below(free)
            for limit in range(free + 1, free + 10):
                with self.assertRaises((xidata.NoMemory, xidata.Timeout)) as caught:
                    await wait_below(limit)
            self.assertIsInstance(caught.exception, xidata.Timeout)
            receiver = asyncio.ensure_future(ch.arecv())
            await asyncio.sleep(0) # a turn of the loop, no wait: the task begins to wait
            ch.send("value")
            self.assertEqual(await receiver, "value")

        run(go())

    def test_two_loops(self):
        ch, got = xidata.channel(name()), []

        def thread():
            async def go():
                while True:
                    value = await ch.arecv()
                    if value is None:
                        return
                    got.append(value)

            asyncio.run(go())

        threads = [threading.Thread(target=thread) for _ in range(2)]
        for t in threads:
            t.start()
        ch.send_many(range(500))
        ch.send_many([None, None])
        for t in threads:
            t.join(SOON)
        self.assertEqual(sorted(got), list(range(500)))

    def test_loops_leave_nothing(self):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            ch = xidata.channel(name())

            async def go():
                task = asyncio.ensure_future(ch.arecv())
                await asyncio.sleep(0) # a turn of the loop, no wait: the tasks begin to wait
                ch.send(1)
                await task

            run(go())
            ch.free()
        gc.collect()
        self.assertLess(len(os.listdir("/proc/self/fd")) - before, 10)


class OnUvloop:
    def setUp(self):
        super().setUp()
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

    def tearDown(self):
        asyncio.set_event_loop_policy(None)
        super().tearDown()


@unittest.skipUnless(uvloop, "no uvloop")
class Uvloop(OnUvloop, Asyncio):
    """All of that once more."""

    def test_it_is_uvloop(self):
        async def go():
            self.assertIsInstance(asyncio.get_running_loop(), uvloop.Loop)

        run(go())


def recipe():
    """`receive(channel, ready)` as docs/guide.md has it, for loops of which xidata knows nothing."""
    with open(os.path.join(os.path.dirname(os.path.dirname(HERE)), "docs", "guide.md"), encoding="utf-8") as f:
        code = re.search(r"^```python\n(async def receive\(channel, ready\):\n.*?)^```", f.read(), re.M | re.S)[1]
    return code


class Recipe(TestCase):
    """The descriptor of a set by hand."""

    def values(self, receive):
        """What receive(channel, its set) gets of values that come one by one, each when the one before was answered."""
        there, back = xidata.channel(name()), xidata.channel(name())
        child = self.child("import sys, xidata\nback = xidata.channel(sys.argv[2])\n"
                           "for v in xidata.channel(sys.argv[1]): back.send(v)", there.name, back.name)
        ready = xidata.Set()
        ready.add(back)
        for n in range(200):
            there.send(n)
            self.assertEqual(receive(back, ready), n)
        there.send_many(range(1000))
        self.assertEqual([receive(back, ready) for _ in range(1000)], list(range(1000)))
        there.close()
        self.finished(child)

    @unittest.skipUnless(trio, "no trio")
    def test_trio(self):
        names = {"trio": trio, "xidata": xidata}
        exec(recipe(), names)

        async def soon(*arguments):
            with trio.fail_after(SOON):
                return await names["receive"](*arguments)

        self.values(lambda *arguments: trio.run(soon, *arguments))

    def by_reader(self, new_loop):
        loop = new_loop()

        async def receive(channel, ready):
            while True:
                try:
                    return channel.recv(timeout=0)
                except xidata.Empty:
                    if not ready.wait(timeout=0):
                        woken = loop.create_future()
                        loop.add_reader(ready.fileno(), lambda: woken.done() or woken.set_result(None))
                        await asyncio.wait_for(woken, SOON)
                        loop.remove_reader(ready.fileno())

        try:
            self.values(lambda *arguments: loop.run_until_complete(receive(*arguments)))
        finally:
            loop.close()

    def test_asyncio(self):
        self.by_reader(asyncio.new_event_loop)

    @unittest.skipUnless(uvloop, "no uvloop")
    def test_uvloop(self):
        self.by_reader(uvloop.new_event_loop)


@unittest.skipUnless(trio, "no trio")
class Trio(TestCase):
    def test_values_and_cancels(self):
        ch, got = xidata.channel(name()), []

        async def receive():
            got.append(await ch.arecv())

        async def go():
            with trio.fail_after(SOON):
                async with trio.open_nursery() as nursery:
                    for _ in range(200):
                        nursery.start_soon(receive)
                    await trio.sleep(0) # a turn of the loop, no wait
                    ch.send_many(range(100))
                    while len(got) < 100:
                        await trio.sleep(0) # a turn of the loop, no wait
                    nursery.cancel_scope.cancel()
                ch.send("after")
                assert await ch.arecv() == "after"
                try:
                    await ch.arecv(0.05)
                except xidata.Timeout:
                    got.append("timeout")

        trio.run(go)
        self.assertEqual(sorted(got[:-1]) + got[-1:], list(range(100)) + ["timeout"])

    def test_one_after_the_other(self):
        """The last who waits goes, and another comes before the loop has turned."""
        there, back = xidata.channel(name()), xidata.channel(name())
        child = self.child("import sys, xidata\nback = xidata.channel(sys.argv[2])\n"
                           "for v in xidata.channel(sys.argv[1]): back.send(v)", there.name, back.name)

        async def go():
            for n in range(300):
                await there.asend(n)
                assert await back.arecv(SOON) == n

        trio.run(go)
        there.close()
        self.finished(child)

    def test_from_a_thread(self):
        ch = xidata.channel(name(), capacity=4096)

        async def go():
            with trio.fail_after(SOON):
                return [n async for n in ch]

        sender = threading.Thread(target=lambda: (ch.send_many(range(3000)), ch.close()))
        sender.start()
        self.assertEqual(trio.run(go), list(range(3000)))
        sender.join(SOON)


class Ends:
    """What ends under those who wait in a loop: each is told, and nobody else."""

    def setUp(self):
        super().setUp()
        filters = warnings.catch_warnings()
        filters.__enter__()
        self.addCleanup(filters.__exit__, None, None, None)
        warnings.simplefilter("ignore", xidata.BacklogWarning)  # what the sender waits behind is never received

    def tell(self, me, end, expected):
        full, empty, other = me.channel(name(), values=1), me.channel(name()), me.channel(name())
        full.send(1)
        told = self.told([empty.arecv, empty.arecv, other.arecv, lambda: full.asend(2)], end)
        self.assertEqual(len(told), 4)
        for error in told:
            self.assertIs(type(error), expected)
        self.assertEqual(len(set(map(id, told))), 4)

    def test_namespace_shut_down(self):
        ns, (ready, said) = os.environ["XI_NAMESPACE"] + ".shut", os.pipe()
        broker = subprocess.Popen([os.environ["XI_BROKER"], "-n", ns, "--ready-fd", str(said)], pass_fds=[said])
        os.close(said)
        self.children.append(broker)
        with os.fdopen(ready) as answer:
            self.assertEqual(answer.read().strip(), "ready")
        with xidata.join(ns) as me:
            self.tell(me, broker.terminate, xidata.Broker)
        self.finished(broker)

    def test_last_reference_dropped(self):
        with xidata.join() as other, xidata.join(requires_ref=True) as me:
            other.ref(me.id)
            self.tell(me, lambda: other.unref(me.id), xidata.Ending)

    def test_left(self):
        me = xidata.join()
        self.tell(me, me.leave, xidata.Left)

    def test_left_in_another_thread(self):
        me = xidata.join()
        self.tell(me, lambda: threading.Thread(target=me.leave).start(), xidata.Left)

    def test_left_and_joined_again(self):
        """In one loop: what is of an interpreter that has left is given back."""
        counts = []

        async def one():
            for _ in range(20):
                with xidata.join() as me:
                    ch = me.channel(name(), values=1)
                    try:
                        await ch.arecv(0.001)
                    except xidata.Timeout:
                        await ch.asend(1)
                    try:
                        await ch.asend(2, 0.001)
                    except xidata.Timeout:
                        counts.append(len(os.listdir("/proc/self/fd")))
                    ch.recv()

        self.run_in_loop(one)
        self.assertEqual(len(counts), 20)
        self.assertLess(counts[-1] - counts[0], 10)


class EndsInAsyncio(Ends, TestCase):
    def run_in_loop(self, function):
        async def go():
            complaints = []  # of what leaves a callback
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            result = await function()
            self.assertEqual(complaints, [])
            return result

        return run(go())

    def told(self, calls, end):
        async def go():
            tasks = [asyncio.ensure_future(call()) for call in calls]
            await asyncio.sleep(0.05)  # asleep for certain; what is tested holds if they are not
            end()
            return await asyncio.gather(*tasks, return_exceptions=True)

        return self.run_in_loop(go)

    def test_as_it_is_woken(self):
        """For a value that another took: then it looks itself, and finds that it is over."""

        async def go():
            from xidata import aio

            with xidata.join() as other, xidata.join(requires_ref=True) as me:
                other.ref(me.id)
                ch = me.channel(name())
                task = asyncio.ensure_future(ch.arecv())
                await asyncio.sleep(0)  # a turn of the loop, no wait: the task begins to wait
                ch.send("value")
                for side in aio._hubs[asyncio.get_running_loop()].sides.values():
                    side.look()  # it is woken now
                self.assertEqual(ch.recv(), "value")
                other.unref(me.id)
                with self.assertRaises(xidata.Ending):
                    await task

        self.run_in_loop(go)


@unittest.skipUnless(uvloop, "no uvloop")
class EndsInUvloop(OnUvloop, EndsInAsyncio):
    pass


@unittest.skipUnless(trio, "no trio")
class EndsInTrio(Ends, TestCase):
    def run_in_loop(self, function):
        async def go():
            with trio.fail_after(SOON):
                return await function()

        return trio.run(go)

    def told(self, calls, end):
        results = []

        async def one(call):
            try:
                await call()
            except xidata.Error as error:
                results.append(error)

        async def go():
            async with trio.open_nursery() as nursery:
                for call in calls:
                    nursery.start_soon(one, call)
                await trio.sleep(0.05)  # asleep for certain; what is tested holds if they are not
                end()

        self.run_in_loop(go)
        return results


if __name__ == "__main__":
    for kind, package in ((trio, "trio"), (uvloop, "uvloop")):
        if not kind:
            print("skipped in part: no %s (Debian: python3-%s)" % (package, package))
    main(each_version=False)
