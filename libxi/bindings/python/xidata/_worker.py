# SPDX-License-Identifier: MIT
"""
What runs in the process of an interpreter: it joins, says its id, and does one command after the other.

Two channels are its own. `interpreter.ID` takes the commands, as calls. `interpreter.ID.run` tells whether it runs:
a broadcast that it alone sends on and receives from, with one value in it while a command is under way, so that
everybody can see that (depth) and how many there have been (sent) without asking. A command says how many its caller
had seen; if there have been more, another caller was faster, and it is refused. Both channels vanish with the
process, however that ends.
"""

import builtins
import marshal
import os
import sys

REFUSED, DONE, FAILED, ENDS, UNSHAREABLE, UNREADABLE = range(6)
FAKE_MAIN = "<fake __main__>"  # the creator's script, loaded as a module
SCRIPT = "<script>"  # what tracebacks call source that was sent: of "<string>" they would show what Python's -c ran


def channel_name(id):
    return "interpreter.%d" % id


class Main(type(sys)):
    """
    The module __main__ of an interpreter. Pickles made by the program name what its script defined in its __main__;
    what is not here is looked for there, by running the script once as a module of another name.
    """

    def __getattr__(self, name):
        if name[:2] == "__":
            raise AttributeError("module '__main__' has no attribute %r" % name)
        module = script_module()
        if module is None or not hasattr(module, name):
            raise AttributeError("module '__main__' has no attribute %r" % name)
        return getattr(module, name)


boot = None  # what the creator sent


def script_module():
    if FAKE_MAIN in sys.modules:
        return sys.modules[FAKE_MAIN]
    path, package = boot["main"]
    if not path:
        return None
    with open(path, "rb") as script:
        code = compile(script.read(), path, "exec")
    module = sys.modules[FAKE_MAIN] = type(sys)(FAKE_MAIN)
    module.__file__, module.__package__ = path, package
    exec(code, module.__dict__)
    return module


def captured(error):
    """An exception as `ExecutionFailed.excinfo` has it, as plain values: (name, qualname, module, msg, formatted, display)."""
    import traceback

    kind = type(error)
    try:
        text = str(error)
    except Exception:
        text = "<no text>"
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_globals is globals():
        tb = tb.tb_next
    try:
        display = "".join(traceback.TracebackException(kind, error, tb).format()).strip()
    except Exception:
        display = None
    name = kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else "%s.%s" % (kind.__module__, kind.__qualname__)
    return (kind.__name__, kind.__qualname__, kind.__module__, text, "%s: %s" % (name, text) if text else name, display)


class Unreadable(Exception):
    """What is to be called cannot be had here; its cause says why."""


LOOKS_AT_NAMES = (eval, exec, dir, vars, globals, locals)


class Worker:
    def __init__(self, me):
        self.pid = os.getpid()
        self.requests = me.channel(channel_name(me.id), recv_only=True)
        self.running = me.channel(channel_name(me.id) + ".run", mode="broadcast")
        self.main = sys.modules["__main__"]
        self.begun = 0

    def serve(self):
        import xidata

        while True:
            try:
                request = self.requests.recv()
            except (xidata.Ending, xidata.Broker, xidata.Left, xidata.ChannelRemoved):
                return 0  # nobody refers to it any more, or the namespace was shut down
            except xidata.Corrupt:
                continue
            with request:  # a caller that could not be answered is told so, now
                if self.handle(request):
                    return 0

    def handle(self, request):
        """True if it is to end."""
        try:
            command = request.value
        except Exception as error:  # it could not be decoded, so nothing of it was done
            self.reply(request, UNREADABLE, captured(error))
            return False
        seen, op = command[:2]
        if seen != self.begun:
            self.reply(request, REFUSED, None)
            return False
        self.begun += 1
        self.running.send(None)
        try:
            outcome, result = self.run(op, *command[2:])
        except Unreadable as error:
            outcome, result = UNREADABLE, captured(error.__cause__)
        except BaseException as error:
            outcome, result = FAILED, captured(error)
        self.flush()
        if os.getpid() != self.pid:  # the command forked, and this is the child
            os._exit(1 if outcome == FAILED else 0)
        self.running.recv(0)
        self.reply(request, outcome, result)
        return outcome == ENDS

    def reply(self, request, outcome, result):
        import xidata

        try:
            request.reply((outcome, result))
        except (xidata.Stale, xidata.Left, xidata.Ending, xidata.Broker):
            pass  # the caller waits no more
        except xidata.Error as error:  # there is no room for it; for this there may be
            if outcome != UNSHAREABLE:
                self.reply(request, UNSHAREABLE, captured(error))
        except Exception as error:  # the result cannot be pickled
            if outcome != DONE:
                raise
            from ._functions import by_code

            again = by_code(result)
            if again is result:
                self.reply(request, UNSHAREABLE, captured(error))
            else:
                self.reply(request, DONE, again)

    @staticmethod
    def flush():
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass  # replaced by something that cannot, or closed: as at the end of a script

    def run(self, op, *arguments):
        return getattr(self, "do_" + op)(*arguments)

    def do_exec(self, code):
        exec(marshal.loads(code) if isinstance(code, bytes) else compile(code, SCRIPT, "exec"), self.main.__dict__)
        return DONE, None

    def do_call(self, target, is_code, args, kwargs):
        if is_code:
            function = type(say)(marshal.loads(target), self.main.__dict__)
        else:
            import pickle

            try:
                function = pickle.loads(target)
            except Exception as error:
                raise Unreadable from error
            if type(function) is type(eval) and function in LOOKS_AT_NAMES:
                return DONE, self.names(function, args, kwargs)
        return DONE, function(*args, **kwargs)

    def names(self, function, args, kwargs):
        """One of the builtins that look at the names of their caller, as if __main__ called it."""
        names = self.main.__dict__
        if function in (eval, exec):
            if len(args) == 1 and "globals" not in kwargs or len(args) > 1 and args[1] is None:
                args = (args[0], names) + args[2:]
        elif not args and not kwargs:
            return sorted(names) if function is dir else names
        return function(*args, **kwargs)

    def do_task(self, *arguments):
        """do_call() for a pool, where the exception itself is wanted."""
        try:
            return DONE, (True, self.do_call(*arguments)[1])
        except Exception as error:
            import pickle

            error = error.__cause__ if type(error) is Unreadable else error
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:
                raise error from None  # it cannot travel
            return DONE, (False, (error, captured(error)))

    def do_bind(self, names, queues):
        if queues:
            from ._iqueues import Queue

            names.update((name, Queue(id)) for name, id in queues.items())
        self.main.__dict__.update(names)
        return DONE, None

    def do_close(self):
        return ENDS, None


def settle_in(child):
    """Makes the forked process one of its own: descriptors, environment, modules."""
    message = child.message
    *standard, ready = child.fds
    for number, fd in enumerate(standard):
        os.dup2(fd, number)
        os.close(fd)
    if message["environ"] != dict(os.environ):
        os.environ.clear()
        os.environ.update(message["environ"])
    try:
        os.chdir(message["cwd"])
    except OSError:
        pass  # it was removed: stay where the program was started
    sys.path[:] = message["path"]
    sys.argv[:] = [""]
    main = sys.modules["__main__"] = Main("__main__")
    main.__builtins__ = builtins
    main.__loader__ = sys.__loader__  # of what is built in, as CPython has it
    return ready


def say(fd, what):
    """To the creator: the id of the new interpreter, or why there is none."""
    try:
        os.write(fd, marshal.dumps(what))
    except OSError:
        pass  # who was to hear it is gone
    os.close(fd)


def run(child):
    """The whole life of an interpreter; what it returns is the exit status."""
    global boot
    import xidata

    xidata._die_with_parent(child.server)
    ready = settle_in(child)
    boot = child.message
    boot["client"] = (child.connection, os.getpid())
    try:
        me = xidata.join(boot["namespace"], name="interpreter of %d" % boot["creator"], requires_ref=True)
        worker = Worker(me)
    except Exception as error:
        say(ready, "%s: %s" % (type(error).__name__, error))
        return 1
    say(ready, me.id)
    return worker.serve()
