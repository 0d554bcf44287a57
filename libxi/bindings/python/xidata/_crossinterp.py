# SPDX-License-Identifier: MIT
"""What the interpreters module and its queues share: exceptions, what is shareable, and who is gone."""

import types
from queue import Empty, Full


class InterpreterError(Exception):
    """An interpreter could not do what it was asked to: it is running, it has died, it is not there."""


class InterpreterNotFoundError(InterpreterError):
    """There is no interpreter of that id, or none any more."""


class NotShareableError(TypeError):
    """A value that cannot go to another interpreter."""


_EXEC_FAILURE = """
{superstr}

Uncaught in the interpreter:

{formatted}
""".strip()


class ExecutionFailed(InterpreterError):
    """
    What ran in an interpreter ended in an exception. `excinfo` says which: type (with __name__, __qualname__ and
    __module__), msg, formatted (one line), errdisplay (the traceback).
    """

    def __init__(self, excinfo):
        message = excinfo.formatted
        if not message:
            if excinfo.type and excinfo.msg:
                message = "%s: %s" % (excinfo.type.__name__, excinfo.msg)
            else:
                message = excinfo.type.__name__ or excinfo.msg
        super().__init__(message)
        self.excinfo = excinfo

    def __str__(self):
        formatted = getattr(self.excinfo, "errdisplay", None)
        if formatted is None:
            return super().__str__()
        return _EXEC_FAILURE.format(superstr=super().__str__(), formatted=formatted)

    def __reduce__(self):
        return type(self), (self.excinfo,)


class QueueError(RuntimeError):
    """Something about a queue between interpreters."""


class QueueNotFoundError(QueueError):
    """There is no such queue any more."""


class QueueEmpty(QueueError, Empty):
    """Nothing was in the queue: at all with get_nowait(), in time with get()."""


class QueueFull(QueueError, Full):
    """No room was in the queue: at all with put_nowait(), in time with put()."""


class _ItemInterpreterDestroyed(Exception):
    """The interpreter that had put an item is gone."""


class ItemInterpreterDestroyed(QueueError, _ItemInterpreterDestroyed):
    """get() met an item whose interpreter is gone, and which was put with UNBOUND_ERROR."""


for _class in (InterpreterError, InterpreterNotFoundError, NotShareableError, ExecutionFailed, QueueError,
               QueueNotFoundError, QueueEmpty, QueueFull, ItemInterpreterDestroyed):
    _class.__module__ = "xidata.interpreters"


class _Unbound:
    """A value that says what becomes of an item whose interpreter is gone before the item was received."""

    __slots__ = ("_name", "_flag")

    def __init__(self, name, flag):
        self._name, self._flag = name, flag

    def __repr__(self):
        return "xidata.interpreters." + self._name

    def __reduce__(self):
        return self._name  # the one of that name in this module


UNBOUND_REMOVE = _Unbound("UNBOUND_REMOVE", 1)
UNBOUND_ERROR = _Unbound("UNBOUND_ERROR", 2)
UNBOUND = _Unbound("UNBOUND", 3)
KEEP = _Unbound("KEEP", 4)
BY_FLAG = {what._flag: what for what in (UNBOUND_REMOVE, UNBOUND_ERROR, UNBOUND, KEEP)}


def unbound_flag(what):
    if not isinstance(what, _Unbound):
        raise NotImplementedError("unsupported unbound replacement op %r" % (what,))
    return what._flag


def excinfo(captured):
    """`captured` (of _worker) as the namespace that ExecutionFailed has."""
    name, qualname, module, message, formatted, display = captured
    return types.SimpleNamespace(
        type=types.SimpleNamespace(__name__=name, __qualname__=qualname, __module__=module),
        msg=message,
        formatted=formatted,
        errdisplay=display,
    )


_PLAIN = (type(None), bool, int, float, str, bytes, memoryview)


def is_shareable(obj, /):
    """
    True if the object goes to another interpreter as what it is: None, bool, int, float, str, bytes, memoryview, tuples
    of these, and queues. (An int of more than 64 bits is one here.)

        >>> from xidata import interpreters
        >>> interpreters.is_shareable((1, ("two", None))), interpreters.is_shareable([1])
        (True, False)
    """
    kind = type(obj)
    if kind in _PLAIN:
        return True
    if kind is tuple:
        return all(is_shareable(item) for item in obj)
    return getattr(kind, "_xi_shareable", False)
