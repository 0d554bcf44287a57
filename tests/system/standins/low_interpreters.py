# SPDX-License-Identifier: MIT
"""_interpreters of CPython 3.13 and 3.14 on xidata.interpreters: ids (the program's is 0 here), references by count, pipes."""

import os
import re
import sys
import types

from xidata import _crossinterp, _worker, interpreters as xi

WHENCE_UNKNOWN, WHENCE_RUNTIME, WHENCE_LEGACY_CAPI, WHENCE_CAPI, WHENCE_XI, WHENCE_STDLIB = range(6)
InterpreterError, InterpreterNotFoundError = xi.InterpreterError, xi.InterpreterNotFoundError
is_shareable = xi.is_shareable

if sys.version_info >= (3, 14):
    NotShareableError = xi.NotShareableError
else:

    class NotShareableError(ValueError):
        """As 3.13 has it: a ValueError."""


_held = {}  # id: [object, references counted]
_listed = []
_kept = {}  # id: object, of those that need no references
_configs = {}


def _main():
    return xi.get_main().id


def _outer(id):
    """The id as the tests have it."""
    return 0 if id == _main() else id


def _object(id, restrict=False):
    if not isinstance(id, int):
        raise TypeError("an id is an int, not %r" % (id,))
    if id < 0:
        raise ValueError("negative id")
    interp = xi.Interpreter(_main() if id == 0 else id)
    if restrict and interp.whence != "_interpreters module":
        raise InterpreterError("unrecognized interpreter %d" % id)
    return interp


def _whence(interp):
    return WHENCE_STDLIB if interp.whence == "_interpreters module" else WHENCE_RUNTIME


def create(config=None, *, reqrefs=False):
    config = new_config() if config is None else config
    if isinstance(config, str):
        config.encode()  # UnicodeEncodeError
        if config == "empty":
            raise InterpreterError("the 'empty' config is no interpreter's")
        config = new_config(config)
    _check_config(vars(config), whole=True)
    interp = xi.create()
    _configs[interp.id] = types.SimpleNamespace(**vars(config))
    if reqrefs:
        _held[interp.id] = [interp, 0]
    else:
        _kept[interp.id] = interp
    return interp.id


def destroy(id, *, restrict=False):
    _object(id, restrict).close()
    _held.pop(id, None)
    _kept.pop(id, None)


def incref(id, *, implieslink=False, restrict=False):
    _held.setdefault(id, [_object(id), 0])[1] += 1


def decref(id, *, restrict=False):
    if id not in _held:
        raise InterpreterNotFoundError("unrecognized interpreter ID %d" % id)
    _held[id][1] -= 1
    if _held[id][1] <= 0:
        del _held[id]


def list_all(*, require_ready=False):
    main = _main()
    # They are held until the next list: the caller counts references to these ids now, and an interpreter that was
    # listed while the last reference to it was on its way out would be gone by then.
    _listed[:] = [i for i in xi.list_all() if i.whence == "_interpreters module" or i.id == main]
    return sorted((_outer(i.id), _whence(i)) for i in _listed)


def get_current():
    current = xi.get_current()
    return _outer(current.id), _whence(current)


def get_main():
    return 0, WHENCE_RUNTIME


def whence(id):
    return _whence(_object(id))


def is_running(id, *, restrict=False):
    return _object(id, restrict).is_running()


# ---- running

def _place_pipes(interp, code):
    """Pipes of this process that the code names by number get the same numbers there."""
    ends = []
    for number in sorted({int(n) for n in re.findall(r"\b\d{1,3}\b", code)} - {0, 1, 2}):
        try:
            if os.readlink("/proc/self/fd/%d" % number).startswith("pipe:"):
                with open("/proc/self/fdinfo/%d" % number) as f:
                    flags = int(re.search(r"^flags:\s*(\d+)", f.read(), re.M)[1], 8)
                ends.append((number, flags & os.O_ACCMODE))
        except OSError:
            pass # not a descriptor
    if ends:
        interp.call(_place, os.getpid(), ends)
    return bool(ends)


def _place(pid, ends):
    import sitecustomize

    sitecustomize.place(pid, ends)


def _closed():
    import sitecustomize

    return sitecustomize.closed_since()


def exec(id, code, shared=None, *, restrict=False):
    interp = _object(id, restrict)
    if isinstance(code, bytes) and sys.version_info < (3, 14):
        raise TypeError("3.13 takes no bytes")
    if shared:
        set___main___attrs(id, shared)
    placed = _place_pipes(interp, code) if isinstance(code, str) else False
    try:
        interp.exec(code)
    except xi.ExecutionFailed as failed:
        return failed.excinfo
    finally:
        # One table of descriptors is what the tests know: what the code has closed there is closed here as well.
        for number in interp.call(_closed) if placed else ():
            os.close(number)


def run_string(id, script, shared=None, *, restrict=False):
    if not isinstance(script, str):
        raise TypeError("a script is a str")
    return exec(id, script, shared, restrict=restrict)


def run_func(id, func, shared=None, *, restrict=False):
    return exec(id, func, shared, restrict=restrict)


def call(id, callable, args=None, kwargs=None, *, restrict=False):
    if sys.version_info >= (3, 14):
        try:
            return _object(id, restrict).call(callable, *args or (), **kwargs or {}), None
        except xi.ExecutionFailed as failed:
            return None, failed.excinfo
    if type(callable) is not types.FunctionType:
        raise TypeError("3.13 calls functions alone, not %r" % (callable,))
    if callable.__closure__ or callable.__code__.co_argcount or args or kwargs:
        raise ValueError("3.13 calls functions without arguments and closures alone")
    try:
        _object(id, restrict).call(callable)
    except xi.ExecutionFailed as failed:
        return failed.excinfo


def set___main___attrs(id, updates, *, restrict=False):
    try:
        _object(id, restrict).prepare_main(updates)
    except xi.NotShareableError as error:
        raise NotShareableError(str(error)) from None


def capture_exception(exc=None):
    return _crossinterp.excinfo(_worker.captured(sys.exc_info()[1] if exc is None else exc))


# ---- configurations: a process has none; these are remembered and given back

_FIELDS = ("use_main_obmalloc", "allow_fork", "allow_exec", "allow_threads", "allow_daemon_threads",
           "check_multi_interp_extensions", "gil")
_PRESETS = {
    "isolated": (False, False, False, True, False, True, "own"),
    "legacy": (True, True, True, True, True, False, "shared"),
    "empty": (False, False, False, False, False, False, "default"),
}


def _check_config(fields, whole=False):
    for name, value in fields.items():
        if name not in _FIELDS:
            raise ValueError("no such field: %s" % name)
        if type(value) is not (str if name == "gil" else bool):
            raise TypeError("%s: %r" % (name, value))
    if fields.get("gil", "own") not in ("default", "shared", "own"):
        raise ValueError("gil: %r" % fields["gil"])
    if whole and set(fields) != set(_FIELDS):
        raise ValueError("fields are missing")


def new_config(name="isolated", /, **overrides):
    _check_config(overrides)
    preset = _PRESETS["isolated" if name in ("", "default") else name]
    return types.SimpleNamespace(**dict(zip(_FIELDS, preset), **overrides))


def get_config(id, *, restrict=False):
    if id == 0:
        return new_config("legacy", gil="own")
    _object(id, restrict)
    return types.SimpleNamespace(**vars(_configs[id]))
