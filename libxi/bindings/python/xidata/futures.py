# SPDX-License-Identifier: MIT
"""
InterpreterPoolExecutor: concurrent.futures over interpreters.

Each worker is a thread here that waits for one interpreter, which it makes when there is work for it. A further thread
watches the processes of all of them, so that a death is noticed at once, whether the worker was at work or not:

    the pool breaks     the other interpreters are killed; every future that is not done, and every later submit(),
                        gets BrokenInterpreterPool, which names the signal. The default, as in ProcessPoolExecutor
    replace=True        the future of the task that was at work gets it, and the worker goes on with a new interpreter
"""

import os
import queue
import select
import signal
import threading
import weakref
from concurrent.futures import BrokenExecutor, Executor, Future

from . import interpreters
from ._crossinterp import ExecutionFailed, InterpreterError, excinfo


class BrokenInterpreterPool(BrokenExecutor):
    """An interpreter of the pool died, or could not be made ready by the initializer."""


BrokenInterpreterPool.__module__ = "xidata"


class _Task:
    def __init__(self, function, args, kwargs):
        self.future = Future()
        self.what = (function, args, kwargs)


def _readable(fd):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


class _Watch:
    """A thread that waits for the end of processes, by their descriptors, and calls what was given with each."""

    def __init__(self):
        self.poll = select.poll()
        self.lock = threading.Lock()
        self.calls = {}
        self.wake_out, self.wake_in = os.pipe()
        self.poll.register(self.wake_out, select.POLLIN)
        self.thread = threading.Thread(target=self.run, name="xidata pool watch", daemon=True)
        self.thread.start()

    def add(self, pid, call):
        fd = os.pidfd_open(pid)
        with self.lock:
            self.calls[fd] = call
            self.poll.register(fd, select.POLLIN)
        os.write(self.wake_in, b"+")
        return fd

    def remove(self, fd):
        with self.lock:
            if self.calls.pop(fd, None):
                self.poll.unregister(fd)
                os.close(fd)

    def close(self):
        os.write(self.wake_in, b".")
        if threading.current_thread() is not self.thread:
            self.thread.join()
        for fd in list(self.calls):
            self.remove(fd)
        os.close(self.wake_out)
        os.close(self.wake_in)

    def run(self):
        while True:
            for fd, _ in self.poll.poll():
                if fd == self.wake_out:
                    if b"." in os.read(fd, 4096):
                        return
                    continue
                with self.lock:
                    call = self.calls.get(fd)
                    if call is None or not _readable(fd):
                        continue  # it was removed, and the number may be another's since
                self.remove(fd)
                call()


class _Worker:
    """One thread with its interpreter."""

    def __init__(self, core, number):
        self.core = core
        self.interp = self.fd = None
        self.thread = threading.Thread(target=self.run, name="%s_%d" % (core.prefix, number), daemon=True)

    def run(self):
        tasks = self.core.tasks
        try:
            while True:
                task = tasks.get()
                if task is None:
                    tasks.put(None)  # for the next one
                    return
                self.do(task)
                del task
                self.core.idle.release()
        finally:
            try:
                self.drop()
            finally:
                self.core.one_less()

    def do(self, task):
        if not task.future.set_running_or_notify_cancel():
            return
        error = None
        while error is None:
            try:
                self.ready()
                done, result = self.interp._call(*task.what, op="task")
            except interpreters.InterpreterNotFoundError as failed:
                self.died(str(failed))  # before it had the task: nothing of that was done
                if not self.core.replace:
                    error = self.core.broken_error()
            except ExecutionFailed as failed:
                error = failed
            except InterpreterError as failed:
                self.died(str(failed))
                error = self.core.broken_error(str(failed))
            except BaseException as failed:
                error = failed
            else:
                if done:
                    task.future.set_result(result)
                    return
                error, captured = result
                error.__cause__ = ExecutionFailed(excinfo(captured))
        task.future.set_exception(error)

    def ready(self):
        """Makes its interpreter, if it has none."""
        core = self.core
        if core.broken:
            raise core.broken_error()
        if self.interp is not None:
            return
        self.interp = interpreters.create()
        if core.broken:  # meanwhile, so that it was not killed with the others
            raise core.broken_error()
        try:
            self.fd = core.watch.add(self.interp._process, self.ended)
        except ProcessLookupError:
            raise interpreters.InterpreterNotFoundError("a new interpreter was killed") from None
        if core.initializer is None:
            return
        try:
            self.interp.call(core.initializer, *core.initargs)
        except BaseException as error:
            core.break_down("an initializer failed: %s" % error)
            raise core.broken_error() from error

    def ended(self):
        """The watch saw the end of the process."""
        interp = self.interp
        if interp is not None and not self.core.replace:
            how = interpreters._ended(interp._process)
            self.core.break_down("interpreter %d died%s" % (interp.id, how and ": " + how))

    def died(self, text):
        self.drop(dead=True)
        if not self.core.replace:
            self.core.break_down(text)

    def kill(self):
        interp = self.interp
        if interp is not None:
            try:
                os.kill(interp._process, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended

    def drop(self, dead=False):
        interp, self.interp = self.interp, None
        if self.fd is not None:
            self.core.watch.remove(self.fd)
            self.fd = None
        if interp is not None and not dead:
            try:
                interp.close()
            except InterpreterError:
                pass  # it has died meanwhile


class _Core:
    """What the threads of a pool have of it, without holding it."""

    def __init__(self, prefix, initializer, initargs, replace):
        self.prefix, self.initializer, self.initargs, self.replace = prefix, initializer, initargs, replace
        self.tasks = queue.SimpleQueue()
        self.idle = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.workers = []
        self.working = 0
        self.broken = None
        self.watch = None

    def broken_error(self, text=None):
        return BrokenInterpreterPool(self.broken or text or "an interpreter of the pool died")

    def one_more(self, most):
        """With the lock held, so that whoever ends the pool finds a worker for each task."""
        if len(self.workers) >= most or self.broken:
            return
        if self.watch is None:
            self.watch = _Watch()
        worker = _Worker(self, len(self.workers))
        worker.thread.start()
        self.workers.append(worker)
        self.working += 1

    def one_less(self):
        """A worker has ended. The last one ends the watch."""
        with self.lock:
            self.working -= 1
            watch = None
            if self.working == 0:
                watch, self.watch = self.watch, None
        if watch is not None:
            watch.close()

    def break_down(self, text):
        with self.lock:
            if self.broken:
                return
            self.broken = text
            workers = list(self.workers)
        for worker in workers:
            worker.kill()
        for task in self.drain():
            if task.future.set_running_or_notify_cancel():
                task.future.set_exception(self.broken_error())
        self.tasks.put(None)

    def drain(self):
        while True:
            try:
                task = self.tasks.get_nowait()
            except queue.Empty:
                return
            if task is not None:
                yield task


_cores = weakref.WeakSet()


_program_ends = False


def _at_exit():
    """As the executors of the standard library: what was submitted is done before the program ends."""
    global _program_ends
    _program_ends = True
    cores = list(_cores)
    for core in cores:
        with core.lock:  # nobody is submitting any more who has not seen that
            core.tasks.put(None)
    for core in cores:
        for worker in core.workers:
            worker.thread.join()


threading._register_atexit(_at_exit)  # before daemon threads are stopped; concurrent.futures does the same


class InterpreterPoolExecutor(Executor):
    """
    An Executor whose workers are interpreters: processes, each with one thread here that waits for it.

        with xidata.InterpreterPoolExecutor(4) as pool:
            assert list(pool.map(abs, [-1, -2])) == [1, 2]

    `initializer(*initargs)` is called in each interpreter before its first task. With `replace` a worker that died gets a
    new interpreter; the task that it was at gets BrokenInterpreterPool in any case.
    """

    def __init__(self, max_workers=None, thread_name_prefix="", initializer=None, initargs=(), *, replace=False):
        if max_workers is None:
            max_workers = len(os.sched_getaffinity(0))
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._max_workers = max_workers
        self._core = _Core(thread_name_prefix or "InterpreterPoolExecutor", initializer, initargs, replace)
        self._shut = False
        _cores.add(self._core)
        weakref.finalize(self, self._core.tasks.put, None).atexit = False

    def submit(self, fn, /, *args, **kwargs):
        core = self._core
        with core.lock:
            if core.broken:
                raise core.broken_error()
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _program_ends:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            task = _Task(fn, args, kwargs)
            core.tasks.put(task)
            if not core.idle.acquire(blocking=False):
                core.one_more(self._max_workers)
        return task.future

    submit.__doc__ = Executor.submit.__doc__

    def shutdown(self, wait=True, *, cancel_futures=False):
        core = self._core
        with core.lock:
            self._shut = True
        if cancel_futures:
            for task in core.drain():
                task.future.cancel()
        core.tasks.put(None)
        if wait:
            for worker in core.workers:
                worker.thread.join()

    shutdown.__doc__ = Executor.shutdown.__doc__


InterpreterPoolExecutor.__module__ = "xidata"
