# SPDX-License-Identifier: MIT
"""
concurrent.interpreters (PEP 734, CPython 3.14) with a process for each interpreter.

    from xidata import interpreters

    interp = interpreters.create()
    interp.exec("print('hello from', __import__('os').getpid())")
    assert interp.call(pow, 2, 10) == 1024
    interp.close()

It runs on every CPython from 3.9 on, with any extension module; a crash in one interpreter is an InterpreterError in
the others. Ids are those of the namespace's interpreters: they go through channels, and `xi ls` shows them. Every
process of a namespace can reach every interpreter in it that create() made.

An interpreter ends when it is closed, when the last reference to it is gone in all processes, and when the program
that it descends from ends, however that happens.
"""

import _thread
import marshal
import os
import sys
import types
import weakref

import xidata

from . import _forkserver
from ._crossinterp import (
    KEEP,
    UNBOUND,
    UNBOUND_ERROR,
    UNBOUND_REMOVE,
    ExecutionFailed,
    InterpreterError,
    InterpreterNotFoundError,
    ItemInterpreterDestroyed,
    NotShareableError,
    QueueEmpty,
    QueueError,
    QueueFull,
    QueueNotFoundError,
    excinfo,
    is_shareable,
)
from ._functions import by_code, code_of
from ._iqueues import UNSENDABLE, Queue, create as create_queue, list_all as list_queues
from ._worker import DONE, ENDS, FAILED, FAKE_MAIN, REFUSED, SCRIPT, UNREADABLE, channel_name

__all__ = [
    "ExecutionFailed",
    "Interpreter",
    "InterpreterError",
    "InterpreterNotFoundError",
    "ItemInterpreterDestroyed",
    "KEEP",
    "NotShareableError",
    "Queue",
    "QueueEmpty",
    "QueueError",
    "QueueFull",
    "QueueNotFoundError",
    "UNBOUND",
    "UNBOUND_ERROR",
    "UNBOUND_REMOVE",
    "create",
    "create_queue",
    "get_current",
    "get_main",
    "is_shareable",
    "list_all",
    "list_queues",
    "preload",
]

_CREATED, _MAIN, _UNKNOWN = "_interpreters module", "runtime init", "unknown"
_CREATED_NAME = "interpreter of "
_ENDS = 1.0  # seconds in which a process ends whose channels have gone, unless its atexit functions take long
_GONE = (xidata.ServerDied, xidata.NoConsumer, xidata.NotFound, xidata.ChannelRemoved, xidata.Left)

sys.modules.setdefault(FAKE_MAIN, sys.modules["__main__"])  # classes of this script, in what interpreters answer
_known = weakref.WeakValueDictionary()
_preloaded = []
_client = None


def _begin_anew():
    global _starting
    _starting = _thread.RLock()  # threads that create their first at once start one server, and join once


_begin_anew()
os.register_at_fork(after_in_child=_begin_anew)  # another thread may have held it


def _me():
    return xidata.current() or xidata.join()


def _join():
    """Joins, which may take the start of a broker; the process that forks interpreters comes up meanwhile."""
    global _client
    with _starting:
        me = xidata.current()
        if me:
            return me
        try:
            _server()
        except OSError as error:
            raise InterpreterError("the process that forks interpreters cannot be started: %s" % error) from None
        try:
            return xidata.join()
        except BaseException:
            _client.connection.close()
            _client = None
            raise


def _boot():
    """What made this process an interpreter, or None in a program."""
    worker = sys.modules["xidata._worker"]
    boot = worker.boot
    return boot if boot and boot["client"][1] == os.getpid() else None


def _server(start=True):
    """
    The connection to the process that forks for this family; None if there is none and none is to be started. That
    process takes its time to start, and what it is asked meanwhile it does then.
    """
    global _client
    with _starting:
        if _client is None or _client.pid != os.getpid():
            boot = _boot()
            if boot:
                _client = _forkserver.Client(boot["client"][0])
            elif start:
                if _client is not None:
                    _client.connection.close()  # the parent's: this is a forked child
                _client = _forkserver.start(_preloaded)
            else:
                return None
        return _client


def preload(*names):
    """
    Modules that the process which forks interpreters is to load first, so that every interpreter has them from the
    start. Only before the first create() of a program; whoever imports them later finds them loaded.

        interpreters.preload("numpy")
    """
    if _server(start=False):
        raise InterpreterError("the first interpreter was created already: preload() comes before")
    _preloaded.extend(names)


def _info(id):
    for info in xidata.list_interpreters(_me().namespace):
        if info.id == id and not (info.requires_ref and not info.references):
            return info
    raise InterpreterNotFoundError("unrecognized interpreter ID %d" % id)


def _whence(info):
    if info.requires_ref and info.name.startswith(_CREATED_NAME):
        return _CREATED
    return _MAIN if info.language.startswith("cpython") else _UNKNOWN


def create():
    """A new interpreter, idle. (The first one of a program takes about as long as `python -I -c pass`, later ones two or three ms.)"""
    me = xidata.current()
    sys.audit("xidata.spawn", me.namespace if me else os.environ.get("XI_NAMESPACE") or "default")
    me = me or _join()
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    boot = _boot()
    message = {
        "op": "create",
        "pid": os.getpid(),
        "creator": me.id,
        "family": boot["family"] if boot else me.id,
        "namespace": me.namespace,
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "path": list(sys.path),
        "main": boot["main"] if boot else (script and os.path.abspath(script), getattr(main, "__package__", None)),
    }
    said, ready = os.pipe()
    with open(said, "rb") as answer:
        try:
            with _Standard() as standard:
                _server().create(message, standard + [ready])
        except OSError as error:
            raise InterpreterError("the process that forks interpreters is gone: %s" % error) from None
        finally:
            os.close(ready)
        said = answer.read()
    id = marshal.loads(said) if said else "it died at once"
    if not isinstance(id, int):
        raise InterpreterError("a new interpreter could not begin: %s" % id)
    return Interpreter(id)


class _Standard:
    """Descriptors of standard input, output and error; /dev/null for what was closed."""

    def __enter__(self):
        self.null = os.open(os.devnull, os.O_RDWR)
        return [self.null if fd == self.null or not _is_open(fd) else fd for fd in (0, 1, 2)]

    def __exit__(self, *_):
        os.close(self.null)


def _is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def list_all():
    """All interpreters of the namespace, in the order in which they came: those made here, and whatever else has joined."""
    infos = [i for i in xidata.list_interpreters(_me().namespace) if i.references or not i.requires_ref]
    found = []
    for info in sorted(infos, key=lambda i: i.id):
        try:
            found.append(Interpreter(info.id, _info=info))
        except InterpreterNotFoundError:
            pass  # it has ended since
    return found


def get_current():
    """The interpreter that this runs in."""
    return Interpreter(_me().id)


def get_main():
    """The interpreter of the program that this one descends from: this one itself, if nobody created it."""
    boot = _boot()
    return Interpreter(boot["family"] if boot else _me().id)


def _ends(process, within=None):
    """True if the process of a pidfd has ended, or does within so many seconds (None: whenever it does)."""
    import select

    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(None if within is None else within * 1000))


def _has_ended(pid, within):
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return _ends(process, within)
    finally:
        os.close(process)


def _ended(pid):
    """How a process ended, in words, or "" if only its own family could know, or if it is there still."""
    client = _server(start=False)
    try:
        status = client.status(pid) if client and _has_ended(pid, _ENDS) else None
    except OSError:
        status = None
    if status is None:
        return ""
    if os.WIFSIGNALED(status):
        import signal

        number = os.WTERMSIG(status)
        try:
            return "killed by %s" % signal.Signals(number).name
        except ValueError:
            return "killed by signal %d" % number
    return "its process ended with status %d" % os.WEXITSTATUS(status)


class Interpreter:
    """
    An interpreter of the namespace. There is one object for an id in a process, and it holds a reference to the
    interpreter: an interpreter that create() made ends when the last one is gone, in all processes.

    Commands are for those that create() made; of others only id, whence and is_running() are to be had.
    """

    def __new__(cls, id, /, _info=None):
        if not isinstance(id, int):
            raise TypeError("id must be an int, got %r" % (id,))
        id = int(id)
        if id < 0:
            raise ValueError("an interpreter's id is not negative, as %d is" % id)
        self = _known.get(id)
        if self is not None and self._owner == os.getpid():
            return self
        info = _info
        self = object.__new__(cls)
        self._id = id
        self._owner = os.getpid()
        self._held = None
        try:
            me = _me()
            if id != me.id and (info is None or info.requires_ref):
                self._held = me.reference(id)
        except xidata.NotFound:
            raise InterpreterNotFoundError("unrecognized interpreter ID %d" % id) from None
        info = info or _first_info(id)
        self._whence = _whence(info)
        self._process = info.pid
        if self._held is not None and not info.requires_ref:
            self._held.release()
            self._held = None
        self._channels = None
        self._died = False  # we have seen it; the broker may need a moment longer
        _known[id] = self
        return self

    def __repr__(self):
        return "%s(%d)" % (type(self).__name__, self._id)

    def __hash__(self):
        return hash(self._id)

    def __eq__(self, other):
        return self._id == other._id if isinstance(other, Interpreter) else NotImplemented

    def __reduce__(self):
        return type(self), (self._id,)

    @property
    def id(self):
        """Its number, never used twice in the namespace."""
        return self._id

    @property
    def whence(self):
        """Where it comes from: '_interpreters module' (create), 'runtime init' (a program), 'unknown' (another language)."""
        return self._whence

    # ---- asking

    def _open(self):
        """Its two channels: for commands, and of its state."""
        channels = self._channels
        if channels is not None and channels[2] == os.getpid():
            return channels
        if self._whence != _CREATED:
            raise InterpreterError("unrecognized interpreter %d: create() did not make it" % self._id)
        name, me = channel_name(self._id), _me()
        try:
            requests = me.channel(name, send_only=True, existing=True)
            channels = requests, me.channel(name + ".run", send_only=True, existing=True), os.getpid()
        except _GONE:
            raise self._not_found() from None
        self._channels = channels
        return channels

    def _not_found(self):
        how = _ended(self._process) if self._whence == _CREATED else ""
        return InterpreterNotFoundError("unrecognized interpreter ID %d%s" % (self._id, how and " (%s)" % how))

    def _begun(self):
        """Its channel for commands, and how many it has begun. InterpreterError if one is under way."""
        requests, state, _ = self._open()
        try:
            state = state.stat()
        except _GONE:
            raise self._not_found() from None
        if self._died or not xidata._alive(self._id):
            raise self._not_found()
        if state.depth:
            raise InterpreterError("interpreter %d is already running" % self._id)
        return requests, state.sent

    def _ask(self, op, *arguments):
        """The result of a command; ExecutionFailed, and every other InterpreterError, if there is none."""
        requests, seen = self._begun()
        try:
            try:
                outcome, result = requests.call((seen, op) + arguments)
            except UNSENDABLE as error:
                again = by_code(arguments)
                if again is arguments or isinstance(error, xidata.Error):
                    raise
                outcome, result = requests.call((seen, op) + again)
        except xidata.ServerDied:
            if not _has_ended(self._process, 0):
                raise InterpreterError(
                    "interpreter %d could not answer: it lacks memory or descriptors for that" % self._id
                ) from None
            self._died = True
            how = _ended(self._process)
            raise InterpreterError(
                "interpreter %d died while it was running%s" % (self._id, how and ": " + how)
            ) from None
        except _GONE:
            raise self._not_found() from None
        except xidata.Error:
            raise
        except UNSENDABLE as error:
            raise NotShareableError("the arguments cannot be sent: %s" % error) from error
        if outcome == REFUSED:
            raise InterpreterError("interpreter %d is already running" % self._id)
        if outcome == FAILED:
            raise ExecutionFailed(excinfo(result))
        if outcome == UNREADABLE:
            raise NotShareableError("what was sent cannot be had there: %s" % result[4])
        if outcome not in (DONE, ENDS):
            raise NotShareableError("the result cannot be sent: %s" % result[4])
        return result

    def is_running(self):
        """True while a command is under way in it, and of those that create() did not make as long as they are there."""
        if self._whence != _CREATED:
            _info(self._id)
            return True
        if not xidata._alive(self._id):
            raise self._not_found()
        if self._id == _me().id:
            return True
        return self._open()[1].stat().depth > 0

    # ---- commands

    def close(self):
        """End it, when its atexit functions have run and its threads have ended. InterpreterError while it is running."""
        if self._id == _me().id:
            raise InterpreterError("an interpreter cannot close itself, and no command of it is under way")
        self._open()
        try:
            process = os.pidfd_open(self._process)
        except ProcessLookupError:
            raise self._not_found() from None
        try:
            self._ask("close")
            _ends(process)
        finally:
            os.close(process)

    def prepare_main(self, ns=None, /, **kwargs):
        """
        Bind values to names in its __main__. They have to be shareable.

            interp.prepare_main({"limit": 10}, name="worker")
        """
        names = dict(ns, **kwargs) if ns is not None else kwargs
        if not names:
            raise ValueError("prepare_main() binds one name at least")
        for name, value in names.items():
            if not isinstance(name, str):
                raise TypeError("a name is a str, not %r" % (name,))
            if "\0" in name:
                raise ValueError("a null character in the name %r" % name)
            if not is_shareable(value):
                raise NotShareableError("%s: %r does not support cross-interpreter data" % (name, value))
        queues = {name: value for name, value in names.items() if type(value) is Queue}
        self._ask("bind", {n: v for n, v in names.items() if n not in queues}, {n: q._pass_on() for n, q in queues.items()})

    def exec(self, code, /):
        """
        Run source code, a code object, or the body of a function without arguments, in its __main__. What that raises
        is an ExecutionFailed here; source that cannot be compiled is a SyntaxError.

            interp.exec("import math; x = math.pi")
            interp.exec("print(x)")
        """
        if type(code) is types.FunctionType:
            wanted = code.__code__
            if code.__closure__ or wanted.co_argcount or wanted.co_kwonlyargcount or wanted.co_posonlyargcount:
                raise ValueError("a function to be executed has no arguments and no closure")
            code = marshal.dumps(wanted)
        elif type(code) is types.CodeType:
            code = marshal.dumps(code)
        elif isinstance(code, bytes):
            code = code.decode()
        elif not isinstance(code, str):
            raise TypeError("exec() takes str, a function or code, not %s" % type(code).__name__)
        try:
            self._ask("exec", code)
        except ExecutionFailed as failed:
            excinfo = failed.excinfo
        else:
            return
        if excinfo.type.__name__ == "SyntaxError" and isinstance(code, str):
            compile(code, SCRIPT, "exec")  # raises it, if it is about this
        raise ExecutionFailed(excinfo)

    def _call(self, callable, args, kwargs, op="call"):
        if not hasattr(callable, "__call__"):
            raise TypeError("expected a callable, got %r" % (callable,))
        target = code_of(callable)
        is_code = target is not None
        if not is_code:
            import pickle

            try:
                target = pickle.dumps(callable, 5)
            except Exception as error:
                raise NotShareableError("%r cannot be called elsewhere: %s" % (callable, error)) from error
        try:
            return self._ask(op, target, is_code, args, kwargs)
        except ExecutionFailed as failed:
            excinfo = failed.excinfo
        raise ExecutionFailed(excinfo)

    def call(self, callable, /, *args, **kwargs):
        """
        Call it there and return its result. Functions that use nothing of their module go by their code, all else by
        pickle; so do arguments and results that xidata has no native form for. eval, exec and others that look at the
        names of their caller find those of its __main__.

            interp.call(sum, [1, 2, 3])
        """
        return self._call(callable, args, kwargs)

    def call_in_thread(self, callable, /, *args, **kwargs):
        """A thread of this interpreter, started, that waits for call(). The result is dropped."""
        import threading

        thread = threading.Thread(target=self._call, args=(callable, args, kwargs))
        thread.start()
        return thread


def _first_info(id):
    for info in xidata.list_interpreters(_me().namespace):
        if info.id == id:
            return info
    raise InterpreterNotFoundError("unrecognized interpreter ID %d" % id)


class _Module(types.ModuleType):
    """xidata.interpreters was a function before it was a module, and can be called as ever: see list_interpreters()."""

    def __call__(self, ns=None):
        return xidata.list_interpreters(ns)


sys.modules[__name__].__class__ = _Module
