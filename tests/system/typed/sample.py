# SPDX-License-Identifier: MIT
"""The whole public face of the package, as a type checker is to see it. It is checked by mypy --strict, not run."""

import asyncio
import queue
import threading
from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Tuple, Type, Union

import xidata
from xidata import Ready, interpreters


def joining() -> None:
    me: xidata.Interpreter = xidata.join("lab", name="me", requires_ref=False, spin=0.001)
    again: Optional[xidata.Interpreter] = xidata.current()
    assert again is not None
    with me as same:
        number: int = same.id
        where: str = me.namespace
        flags: Tuple[bool, bool] = (me.left, me.ending)
        me.ref(number)
        me.unref(xidata.InterpreterId(number))
        reference: xidata.Reference = me.reference(me)
        with reference:
            held: bool = reference.held
            theirs: int = reference.id
            reference.release()
        counters: Dict[str, Any] = me.stats()
        print(where, flags, held, theirs, counters, me.run_free() + xidata.run_free())
        me.channel("mine", mode="queue", when_full="drop", values=1).free()
        me.remove("mine")
        me.buffer(10).release()
    me.leave()
    xidata.leave()
    summary: Dict[str, Any] = xidata.stats()
    print(summary, xidata.__version__, xidata.DEPTH_MAX)


def sending(obj: object) -> None:
    channel: xidata.Channel = xidata.channel(
        "jobs", mode="broadcast", capacity=4096, values=10, grow=1 << 20, ttl=1.5, dead="jobs.dead", retain=2,
        when_full="fail", access="alice:r", group="workers", from_="oldest", ack=True, max_deliveries=3, window=4,
        ack_timeout=30.0, dead_letters="dead", temporary=True, send_only=False, recv_only=False, existing=True,
        need_peer=True, pickle="refuse", zero_copy=True)
    channel.send(obj, 1.0, on_free=lambda: None, ttl=3)
    sent: bool = channel.try_send(obj)
    many: int = channel.send_many(range(3), timeout=1)
    answer: Any = channel.call([1, 2], timeout=2)
    names: Tuple[str, Optional[str]] = (channel.name, channel.group_name)
    state: Tuple[bool, bool] = (channel.shared, channel.freed)
    owner: xidata.Interpreter = channel.interpreter
    loan: xidata.Loan = xidata.buffer(100)
    with loan:
        size: int = loan.nbytes + len(loan)
        gone: bool = loan.sent
    loan.release()
    channel.send([xidata.empty((2, 3)), xidata.zeros(4, dtype="i4", order="F"), xidata.asarray([1.5], interpreter=owner)])
    channel.close()
    channel.free()
    xidata.remove("jobs")
    print(sent, many, answer, names, state, owner, size, gone)


def receiving(channel: xidata.Channel) -> None:
    value: Any = channel.recv(timeout=1, zero_copy=True)
    default: Any = channel.try_recv(None)
    channel.try_recv()
    values: List[Any] = channel.recv_many(10, 0.5)
    for one in channel:
        print(one)
    print(next(channel))
    with channel.group("audit", from_=5, ack=True, max_deliveries=1, window=1, ack_timeout=1, dead_letters="d",
                       zero_copy=False) as audit:
        delivery: xidata.Delivery = audit.recv()
        with delivery as same:
            print(same.value, same.count, same.settled, same.channel)
        delivery.ack()
        delivery.nack(delay=2)
        delivery.extend(5)
    request: xidata.Request = channel.recv()
    with request:
        if request.wanted:
            request.reply(request.value, timeout=1)
    channel.remove_group("audit")
    print(value, default, values)


def looking(channel: xidata.Channel) -> None:
    everywhere: List[str] = xidata.namespaces()
    for i in xidata.list_interpreters(everywhere[0]):
        numbers: Tuple[int, ...] = (i.id, i.pid, i.references, i.sent, i.received, i.arena_bytes, i.blocks, i.borrows,
                                    i.parks, i.wakes, i.uid)
        texts: Tuple[str, str, str] = (i.name, i.language, i.wait)
        print(numbers, texts, i.requires_ref, i.joined)
    stat: xidata.ChannelInfo = channel.stat()
    for c in xidata.channels() + [stat]:
        counts: Tuple[int, ...] = (c.id, c.capacity, c.used, c.depth, c.sent, c.received, c.groups, c.waiting, c.handles,
                                   c.producers, c.consumers, c.retain, c.grow, c.dropped, c.expired, c.dead, c.owner)
        print(counts, c.name, c.mode, c.closed, c.access, c.shared)
    groups: List[xidata.GroupInfo] = channel.groups()
    for g in groups:
        print(g.name, g.ack, g.owner, g.received, g.depth, g.unacked, g.redelivered, g.acked, g.dropped, g.expired, g.dead)
    every: List[xidata.InterpreterInfo] = xidata.list_interpreters()
    print(len(every))


def waiting(channel: xidata.Channel) -> None:
    with xidata.Set() as some:
        some.add(channel, recv=True, send=True, key="k", priority=1)
        ready: List[Tuple[Any, Ready]] = some.wait(timeout=1)
        for key, how in ready:
            if how & (Ready.RECV | Ready.SEND | Ready.CLOSED | Ready.NO_PRODUCER | Ready.LEFT):
                print(key)
        some.remove(channel)
        fd: int = some.fileno()
        print(fd, len(some), channel in some, some.closed)
    some.close()


async def awaiting(channel: xidata.Channel) -> None:
    await channel.asend(1, timeout=1, on_free=None, ttl=None)
    value: Any = await channel.arecv(1)
    async for other in channel:
        print(value, other)
    await xidata.aio.asend(channel, 1)
    await xidata.aio.arecv(channel)
    async for other in xidata.aio.iterate(channel):
        print(other)


def queues() -> None:
    jobs: xidata.Queue = xidata.Queue(10, name="jobs")
    jobs.put(1, block=False, timeout=1)
    jobs.put_nowait(2)
    print(jobs.get(timeout=1), jobs.get_nowait(), jobs.qsize(), jobs.empty(), jobs.full(), jobs.maxsize, jobs.name)
    jobs.task_done()
    left: int = jobs.unfinished_tasks
    jobs.join()
    jobs.cancel_join_thread()
    jobs.join_thread()
    jobs.shutdown(immediate=True)
    down: bool = jobs.is_shutdown
    jobs.close()
    simple: xidata.SimpleQueue = xidata.SimpleQueue(name="simple")
    simple.put(left)
    joinable: xidata.Queue = xidata.JoinableQueue()
    print(down, joinable)


def others() -> None:
    interp: interpreters.Interpreter = interpreters.create()
    interp.prepare_main({"a": 1}, b=2)
    interp.exec("print(a)")
    power: int = interp.call(pow, 2, 3)
    thread: threading.Thread = interp.call_in_thread(print, 1)
    print(power, thread, interp.id, interp.whence, interp.is_running(), interpreters.Interpreter(interp.id))
    interp.close()
    made: interpreters.Queue = interpreters.create_queue(5, unbounditems=interpreters.UNBOUND_REMOVE)
    made.put(1, timeout=1, unbounditems=interpreters.KEEP)
    made.put_nowait(2, unbounditems=interpreters.UNBOUND_ERROR)
    print(made.get(block=False), made.get_nowait(), made.qsize(), made.empty(), made.full(), made.id, made.maxsize)
    print(made.unbounditems is interpreters.UNBOUND, interpreters.Queue(made.id))
    both: Tuple[interpreters.Interpreter, interpreters.Interpreter] = (interpreters.get_current(), interpreters.get_main())
    print(both, interpreters.list_all(), interpreters.list_queues(), interpreters.is_shareable(1))
    interpreters.preload("json")
    raised: List[Type[Exception]] = [
        interpreters.InterpreterError, interpreters.InterpreterNotFoundError, interpreters.NotShareableError,
        interpreters.QueueError, interpreters.QueueNotFoundError, interpreters.QueueEmpty, interpreters.QueueFull,
        interpreters.ItemInterpreterDestroyed]
    try:
        interp.exec("1 / 0")
    except interpreters.ExecutionFailed as failed:
        info: SimpleNamespace = failed.excinfo
        print(info, raised)
    with xidata.InterpreterPoolExecutor(2, thread_name_prefix="p", initializer=print, initargs=(1,), replace=True) as pool:
        total: str = pool.submit(repr, 8).result()
        print(total, list(pool.map(abs, [-1])))


@xidata.register
class Point:
    x: int


def types() -> None:
    xidata.unregister(Point)
    foreign: List[Type[Exception]] = [xidata.RemoteException, xidata.RemoteTraceback]
    print(foreign, xidata.RemoteException("x").class_name)


def searched(key: Union[Type[Any], str, int]) -> Optional[xidata.Codec]:
    return xidata.Codec(Point, lambda p: p.x, lambda x: Point(*x), "sample.point") if key == "sample.point" else None


def handled(error: Any) -> Any:
    if isinstance(error, xidata.CodecError):
        return (error.object, error.name, error.sending)
    return "?"


def fitting() -> None:
    xidata.register_search(searched)
    xidata.unregister_search(searched)
    codec = xidata.Codec(Point, lambda p: p.x, lambda x: Point(*x))
    print(codec.type, codec.to_xi, codec.from_xi, codec.name)
    xidata.register_error("mine", handled)
    print(xidata.lookup_error("mine"), xidata.channel("c", errors="mine").errors)
    made = xidata.Replacement(300, "x")
    print(made.extension, made.payload, made.lost, made.name, made.value)


def held() -> None:
    a, b, c, size = xidata.loans.get_threshold()
    xidata.loans.set_threshold(a, b, c, size)
    print(xidata.loans.collect(0), xidata.loans.get_count(), xidata.loans.get_stats()[0]["held"])
    xidata.loans.freeze()
    xidata.loans.unfreeze()
    xidata.loans.disable()
    xidata.loans.enable()
    print(xidata.loans.isenabled(), xidata.loans.get_freeze_count())


def failing() -> None:
    standard: List[Type[Exception]] = [
        xidata.NoMemory, xidata.ShmFull, xidata.InvalidArgument, xidata.TooBig, xidata.WrongType, xidata.OutOfRange,
        xidata.TooDeep, xidata.Broker, xidata.AccessDenied, xidata.NotFound, xidata.SystemFailure]
    own: List[Type[xidata.Error]] = [
        xidata.ChannelClosed, xidata.ChannelRemoved, xidata.Corrupt, xidata.DecodeError, xidata.Ending, xidata.Forked,
        xidata.Left, xidata.Limit, xidata.Mismatch, xidata.NoConsumer, xidata.NoProducer, xidata.Quota, xidata.ServerDied,
        xidata.Stale]
    warned: List[Type[xidata.Warning]] = [xidata.SlowConsumerWarning, xidata.BacklogWarning, xidata.UnsentLoanWarning,
                                          xidata.LeakedLoanWarning]
    print(warned, issubclass(xidata.Warning, ResourceWarning))
    try:
        raise own[0]("x")
    except (TimeoutError, queue.Empty, queue.Full) as error:
        print(error, standard, issubclass(xidata.Timeout, TimeoutError), xidata.Empty, xidata.Full)
    except (xidata.ShutDown, xidata.BrokenInterpreterPool):
        pass
    except xidata.Error as error:
        code: int = error.code
        print(code, xidata.View)


if __name__ == "__main__":
    asyncio.run(awaiting(xidata.channel("c")))
