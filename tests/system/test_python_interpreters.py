# SPDX-License-Identifier: MIT
"""xidata.interpreters: PEP 734 with a process for each interpreter."""

import gc
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import unittest

from pyhelp import SOON, TestCase, main, until, xidata
from xidata import interpreters


FIRST_OF_TWO = """
import os, sys, threading, xidata
from xidata import _forkserver, interpreters as i
begin, inside, second, seen, made, joins = _forkserver.start, threading.Event(), threading.Event(), [], [], []

class Watched:
    lock = threading.RLock()

    def __enter__(self):
        if not self.lock.acquire(blocking=False):
            seen.append("waits")
            second.set()
            self.lock.acquire()

    def __exit__(self, *_):
        self.lock.release()

def start(*args):
    seen.append("starts")
    if inside.is_set():
        second.set()
    inside.set()
    second.wait()
    return begin(*args)

i._starting, _forkserver.start = Watched(), start
sys.addaudithook(lambda event, args: event == "xidata.join" and joins.append(args))
threads = [threading.Thread(target=lambda: made.append(i.create())) for _ in range(2)]
threads[0].start()
inside.wait()
threads[1].start()
for thread in threads: thread.join()
print("%s: %d made, %d joined, %d parent" % (", ".join(seen[:2]), len(made), len(joins), len({o.call(os.getppid) for o in made})))
"""


class Spam:
    def __init__(self, value):
        self.value = value

    def run(self, *args, **kwargs):
        return (self.value, args, kwargs)

    def __eq__(self, other):
        return type(other) is Spam and other.value == self.value


class Lost:
    """Can be pickled, and not be had again."""

    def __reduce__(self):
        return int, ("x",)

    def __call__(self):
        pass


class Unpicklable(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


def make(value):
    return Spam(value)


def fail(kind, *args):
    raise kind(*args)


def ended(pid, seconds=SOON):
    """Waits for the end of any process of that id."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


class Interpreters(TestCase):
    def setUp(self):
        super().setUp()
        self.made = []

    def tearDown(self):
        self.made = None
        gc.collect()
        super().tearDown()

    def create(self):
        interp = interpreters.create()
        self.made.append(interp)
        return interp


class Lifecycle(Interpreters):
    def test_identity(self):
        me = interpreters.get_current()
        self.assertIs(interpreters.get_main(), me)
        self.assertEqual((me.id, me.whence), (xidata.current().id, "runtime init"))
        interp = self.create()
        self.assertEqual(interp.whence, "_interpreters module")
        self.assertIs(interpreters.Interpreter(interp.id), interp)
        self.assertIs(pickle.loads(pickle.dumps(interp)), interp)
        self.assertEqual(repr(interp), "Interpreter(%d)" % interp.id)
        self.assertEqual(interpreters.list_all(), [me, interp])
        self.assertEqual(hash(interp), hash(interp.id))
        self.assertEqual(interp.call(lambda: __import__("xidata").current().id), interp.id)
        for bad in ("1", 1.0, None):
            with self.assertRaises(TypeError):
                interpreters.Interpreter(bad)
        with self.assertRaises(ValueError):
            interpreters.Interpreter(-1)
        with self.assertRaises(interpreters.InterpreterNotFoundError):
            interpreters.Interpreter(1 << 40)
        with self.assertRaises(AttributeError):
            interp.id = 7

    def test_the_list_of_before(self):
        self.assertIn(xidata.current().id, [i.id for i in interpreters()])
        self.assertEqual(xidata.interpreters("no-such-namespace"), [])
        self.assertIs(xidata.interpreters, interpreters)

    def test_last_reference_closes(self):
        interp = interpreters.create()
        pid = interp.call(os.getpid)
        other = self.create()
        other.exec("from xidata import interpreters; held = interpreters.Interpreter(%d)" % interp.id)
        id = interp.id
        del interp
        gc.collect()
        self.assertIn(id, [i.id for i in interpreters.list_all()]) # another holds it
        other.exec("held.exec('1'); del held")
        self.assertNotIn(id, [i.id for i in interpreters.list_all()]) # at once
        self.assertTrue(ended(pid))

    def test_close(self):
        interp = self.create()
        read, write = os.pipe()
        try:
            os.set_inheritable(write, True)
            interp.exec("import atexit, os; atexit.register(lambda: open(%r, 'w').write('done'))" % self.path("exit"))
            pid = interp.call(os.getpid)
            interp.close()
            with open(self.path("exit")) as f:
                self.assertEqual(f.read(), "done") # when close() returns it has ended
            self.assertTrue(ended(pid, 0))
        finally:
            os.close(read)
            os.close(write)
        for use in (interp.close, interp.is_running, lambda: interp.exec("1"), lambda: interp.call(len, ())):
            with self.assertRaises(interpreters.InterpreterNotFoundError):
                use()
        with self.assertRaises(interpreters.InterpreterError):
            interpreters.get_current().close()

    def path(self, name):
        path = os.path.join(os.environ.get("XI_RUNTIME_DIR", "/tmp"), "%s.%d" % (name, os.getpid()))
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        return path

    def test_running(self):
        interp = self.create()
        self.assertFalse(interp.is_running())
        self.assertTrue(interpreters.get_main().is_running())
        gate = interpreters.create_queue()
        thread = interp.call_in_thread(gate.get)
        until(interp.is_running, "the call to begin")
        for use in (lambda: interp.exec("1"), interp.close, lambda: interp.prepare_main(x=1)):
            with self.assertRaisesRegex(interpreters.InterpreterError, "running"):
                use()
        gate.put(1)
        thread.join(SOON)
        self.assertFalse(interp.is_running())
        for n in range(200): # the moment a command has ended the next may begin
            self.assertEqual(interp.call(abs, -n), n)
            self.assertFalse(interp.is_running())

    def test_racing_callers(self):
        interp = self.create()
        outcomes = []

        def race():
            for _ in range(50):
                try:
                    outcomes.append(interp.call(len, "abc"))
                except interpreters.InterpreterError as error:
                    outcomes.append("running" if "running" in str(error) else error)

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        self.assertEqual(len(outcomes), 200)
        self.assertLessEqual(set(outcomes), {3, "running"})
        self.assertIn(3, outcomes)
        self.assertEqual(interp.call(len, "abcd"), 4)

    def test_a_process_of_its_own(self):
        interp = self.create()
        mine = (os.getpid(), os.getcwd(), dict(os.environ), list(sys.path))
        theirs = interp.call(lambda: (__import__("os").getpid(), __import__("os").getcwd(),
                                      dict(__import__("os").environ), list(__import__("sys").path)))
        self.assertNotEqual(theirs[0], mine[0])
        self.assertEqual(theirs[1:], mine[1:])
        interp.exec("import os; os.chdir('/'); os.environ['ONLY'] = 'here'")
        self.assertEqual((os.getcwd(), os.environ.get("ONLY")), (mine[1], None))

    def test_descendants(self):
        interp = self.create()
        id, main, whence = interp.call(lambda: (lambda i: (i.create().id, i.get_main().id, i.get_current().whence))(
            __import__("xidata.interpreters").interpreters))
        self.assertEqual((main, whence), (interpreters.get_main().id, "_interpreters module"))
        self.assertNotIn(id, [i.id for i in interpreters.list_all()]) # its only reference was dropped there
        interp.exec("from xidata import interpreters as i; child = i.create(); child.exec('import os'); kept = child.id")
        kept = interpreters.Interpreter(interp.call(lambda: __import__("__main__").kept))
        self.made.append(kept)
        self.assertEqual(kept.call(abs, -4), 4)
        interp.close()
        self.assertEqual(kept.call(abs, -5), 5) # it is referred to here

    def test_programs_are_interpreters_as_well(self):
        child = self.child("import xidata, sys; xidata.join(); sys.stdin.read()", stdin=subprocess.PIPE)
        until(lambda: child.pid in [i.pid for i in xidata.list_interpreters()], "the program")
        (info,) = [i for i in xidata.list_interpreters() if i.pid == child.pid]
        other = interpreters.Interpreter(info.id)
        self.assertIn(other, interpreters.list_all())
        self.assertTrue(other.is_running())
        for use in (lambda: other.exec("1"), other.close, lambda: other.call(len, "")):
            with self.assertRaisesRegex(interpreters.InterpreterError, "unrecognized"):
                use()
        child.stdin.close()
        self.finished(child)

    def test_from_an_unrelated_program(self):
        interp = self.create()
        child = self.child("import sys; from xidata import interpreters as i; print(i.Interpreter(int(sys.argv[1])).call(pow, 2, 9))",
                           interp.id, stdout=subprocess.PIPE)
        self.assertEqual(child.communicate(timeout=SOON)[0], b"512\n")

    def test_after_fork(self):
        interp = self.create()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                twin = interpreters.Interpreter(interp.id)
                mine = interpreters.create()
                if twin.call(abs, -1) == 1 and mine.call(abs, -2) == 2 and interpreters.get_main().id == xidata.current().id:
                    status = 0
                mine.close()
            finally:
                xidata.leave()
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(interp.call(abs, -3), 3)

    def test_a_command_that_forks(self):
        interp = self.create()
        interp.exec("import os\npid = os.fork()")
        interp.exec("assert os.waitpid(pid, 0)[1] == 0")


class Deaths(Interpreters):
    def test_signals_are_named(self):
        for kill in (lambda i: i.call(os.abort), lambda i: i.exec("import os; os.kill(os.getpid(), 9)")):
            interp = self.create()
            before = time.monotonic()
            with self.assertRaisesRegex(interpreters.InterpreterError, "SIGABRT|SIGKILL"):
                kill(interp)
            self.assertLess(time.monotonic() - before, 5)
            with self.assertRaisesRegex(interpreters.InterpreterNotFoundError, "SIGABRT|SIGKILL"):
                interp.exec("1")
        interp = self.create()
        with self.assertRaisesRegex(interpreters.InterpreterError, "status 3"):
            interp.call(os._exit, 3)

    def test_killed_from_outside(self):
        interp = self.create()
        pid = interp.call(os.getpid)
        errors = []

        def call():
            try:
                interp.call(signal.pause)
            except interpreters.InterpreterError as error:
                errors.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        until(interp.is_running, "the call")
        os.kill(pid, signal.SIGKILL)
        thread.join(SOON)
        self.assertIn("killed by SIGKILL", errors[0])

    ORPHANS = """
import os, sys, threading
from xidata import interpreters
idle, busy, stuck, child = (interpreters.create() for _ in range(4))
busy.call_in_thread(exec, "while True: pass")
# A C function that keeps the GIL: nothing of Python runs there any more.
stuck.call_in_thread(exec, "import ctypes; ctypes.PyDLL(None).pause()")
child.exec("from xidata import interpreters as i; grandchild = i.create(); pid = grandchild.call(__import__('os').getpid)")
while not (busy.is_running() and stuck.is_running()): pass
print(idle.call(os.getpid), busy._process, stuck._process, child._process,
      child.call(lambda: __import__("__main__").pid), flush=True)
sys.stdin.read()
"""

    def test_no_orphans(self):
        child = self.child(self.ORPHANS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        pids = [int(pid) for pid in child.stdout.readline().split()]
        self.assertEqual(len(pids), 5)
        child.kill()
        child.wait()
        for pid in pids:
            self.assertTrue(ended(pid, 5), pid)

    def test_program_ends(self):
        code = "from xidata import interpreters as i; a = i.create(); b = i.create(); print(a._process, b._process)"
        for more, status in (("", 0), ("\nraise Exception", 1)):
            child = self.child(code + more, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            out, err = child.communicate(timeout=SOON)
            self.assertEqual((child.returncode, "Traceback" in err.decode()), (status, bool(status)))
            for pid in out.split():
                self.assertTrue(ended(int(pid), 5))

    def test_creator_killed(self):
        """What an interpreter made that was killed ends, though it is busy."""
        interp = self.create()
        interp.exec("from xidata import interpreters as i; c = i.create(); t = c.call_in_thread(exec, 'while True: pass')\n"
                    "while not c.is_running(): pass\npid = c._process")
        pid = interp.call(lambda: __import__("__main__").pid)
        with self.assertRaises(interpreters.InterpreterError):
            interp.call(os.abort)
        self.assertTrue(ended(pid))

    def test_forks_no_more(self):
        """The process that forks was killed, and every interpreter with it: errors, no waiting."""
        code = ("import os, signal\nfrom xidata import interpreters as i\na = i.create()\n"
                "import select\np = os.pidfd_open(a._process)\nos.kill(int(a.call(os.getppid)), 9)\nselect.select([p], [], [])\n"
                "for use in (lambda: a.call(len, ''), lambda: i.create()):\n"
                "    try:\n        use()\n    except i.InterpreterError as error: print(type(error).__name__)\n")
        child = self.child(code, stdout=subprocess.PIPE)
        out = child.communicate(timeout=SOON)[0].decode().split()
        self.assertEqual(len(out), 2)
        self.assertEqual(child.returncode, 0)

    FEW = """
import os, resource
from xidata import interpreters as i
a = i.create()
server = a.call(os.getppid)
before = resource.prlimit(server, resource.RLIMIT_NOFILE)
for more in (4, 0): # those that come with the request, or not even those
    used, most = {int(n) for n in os.listdir("/proc/%d/fd" % server)}, 0
    while most in used or most - len([n for n in used if n < most]) < more: most += 1
    resource.prlimit(server, resource.RLIMIT_NOFILE, (most, before[1]))
    try: i.create()
    except i.InterpreterError as error: print(error)
    assert a.call(len, "abc") == 3
    resource.prlimit(server, resource.RLIMIT_NOFILE, before)
    assert i.create().call(len, "ab") == 2
"""

    def test_cannot_fork(self):
        """The process that forks has no descriptor left: that is an error of create(), and the others go on."""
        child = self.child(self.FEW, stdout=subprocess.PIPE)
        out = child.communicate(timeout=SOON)[0].decode().splitlines()
        self.assertEqual(child.returncode, 0)
        self.assertEqual(len(out), 2)
        self.assertIn("Too many open files", out[0])

    POOR = """
import sys, threading, xidata
from xidata import interpreters as i
a = i.create()
for size in (1 << 26, 10):
    try: print(len(a.call(bytes, size)))
    except i.NotShareableError as error: print(error)
with xidata.InterpreterPoolExecutor(1) as pool:
    print(type(pool.submit(bytes, 1 << 26).exception(%g)).__name__, pool.submit(len, "abc").result(%g))
assert i.create().call(len, "ab") == 2
"""

    def test_no_room_for_the_result(self):
        """Its caller is told, instead of waiting for ever."""
        ns = os.environ["XI_NAMESPACE"] + ".poor"
        said, ready = os.pipe()
        broker = subprocess.Popen([os.environ["XI_BROKER"], "-n", ns, "--quota-bytes", "20M", "--ready-fd", str(ready)],
                                  pass_fds=[ready], stderr=subprocess.DEVNULL)
        self.children.append(broker)
        os.close(ready)
        with open(said) as pipe:
            self.assertEqual(pipe.readline().strip(), "ready")
        child = self.child(self.POOR % (SOON, SOON), stdout=subprocess.PIPE, env=dict(os.environ, XI_NAMESPACE=ns))
        out = child.communicate(timeout=2 * SOON)[0].decode().splitlines()
        self.assertEqual(child.returncode, 0)
        self.assertIn("quota", out[0])
        self.assertEqual(out[1:], ["10", "NotShareableError 3"])
        broker.terminate()
        self.assertEqual(broker.wait(SOON), 0)


class Commands(Interpreters):
    def test_exec(self):
        interp = self.create()
        interp.exec("import math\nx = math.floor(2.5)")
        interp.exec("assert x == 2 and __name__ == '__main__'")

        def body():
            global y
            y = x + 1  # noqa: F821 (in the interpreter)

        interp.exec(body)
        interp.exec(compile("assert y == 3", "file.py", "exec"))
        interp.exec(b"assert y == 3")
        for bad in (10, bytearray(b"1"), None, len):
            with self.assertRaises(TypeError):
                interp.exec(bad)
        with self.assertRaises(ValueError):
            interp.exec(lambda x: x)
        with self.assertRaises(interpreters.ExecutionFailed) as caught:
            interp.exec("raise SystemExit(3)")
        self.assertEqual(caught.exception.excinfo.type.__name__, "SystemExit")
        for source in ("this is no python", b"this is no python"):
            with self.assertRaises(SyntaxError):
                interp.exec(source)
        with self.assertRaises(interpreters.ExecutionFailed) as caught:
            interp.exec("exec('this is no python')")
        self.assertEqual(caught.exception.excinfo.type.__name__, "SyntaxError")

    def test_text_of_failures(self):
        interp = self.create()
        with self.assertRaises(interpreters.ExecutionFailed) as caught:
            interp.exec("def ham():\n    raise RuntimeError('uh-oh!')\n\nham()")
        self.assertEqual(str(caught.exception), """RuntimeError: uh-oh!

Uncaught in the interpreter:

Traceback (most recent call last):
  File "<script>", line 4, in <module>
  File "<script>", line 2, in ham
RuntimeError: uh-oh!""")
        with self.assertRaises(interpreters.ExecutionFailed) as caught:
            interp.exec("raise KeyError")  # line 1: of what was sent, not of what Python's -c ran
        self.assertIn('File "<script>", line 1, in <module>\nKeyError', str(caught.exception))
        with self.assertRaises(interpreters.ExecutionFailed) as caught:
            interp.exec("raise RuntimeError('uh-oh!')")
        info = caught.exception.excinfo
        self.assertEqual((info.type.__name__, info.type.__qualname__, info.type.__module__, info.msg, info.formatted),
                         ("RuntimeError", "RuntimeError", "builtins", "uh-oh!", "RuntimeError: uh-oh!"))
        again = pickle.loads(pickle.dumps(caught.exception))
        self.assertEqual(str(again), str(caught.exception))
        with self.assertRaises(interpreters.ExecutionFailed) as caught:
            interp.call(fail, Unpicklable, 1, 2)
        self.assertIn("Unpicklable: (1, 2)", caught.exception.excinfo.formatted)

    def test_call(self):
        interp = self.create()
        self.assertEqual(interp.call(lambda: 42), 42)
        self.assertEqual(interp.call(pow, 2, exp=10), 1024)
        self.assertEqual(interp.call(make, 7), Spam(7))
        self.assertEqual(interp.call(Spam, 8), Spam(8))
        self.assertEqual(interp.call(Spam(9).run, 1, two=2), (9, (1,), {"two": 2}))
        self.assertEqual(interp.call(len, b"x" * (1 << 20)), 1 << 20)
        self.assertEqual(interp.call(bytes, 1 << 20), bytes(1 << 20))
        value = 3
        for bad in (lambda: value, lambda x=[]: make(x)):
            with self.assertRaises(interpreters.NotShareableError):
                interp.call(bad)
        with self.assertRaises(interpreters.NotShareableError):
            interp.call(len, lambda: value)
        with self.assertRaises(interpreters.NotShareableError):
            interp.call(lambda x: [lambda: x], 1)
        with self.assertRaises(TypeError):
            interp.call("not callable")
        with self.assertRaises(interpreters.ExecutionFailed):
            interp.call(fail, ValueError, "x")
        thread = interp.call_in_thread(exec, "import __main__; __main__.z = 1")
        thread.join(SOON)
        interp.exec("assert z == 1")

    def test_functions_are_values(self):
        """Those that use nothing of where they come from go by their code, and belong to the __main__ that they come to."""
        interp = self.create()
        self.assertEqual(interp.call(lambda: (lambda: 7))(), 7)
        self.assertEqual(interp.call(lambda: (1, (lambda n: n + 1,)))[1][0](1), 2)
        self.assertEqual(interp.call(lambda f, x: f(x), lambda x: -x, 3), -3)
        self.assertEqual(interp.call(sorted, [1, 3, 2], key=lambda n: -n), [3, 2, 1])
        self.assertEqual(interp.call(lambda f: f(), lambda: globals()["__name__"]), "__main__")
        self.assertIs(interp.call(lambda: (lambda: globals()))(), sys.modules["__main__"].__dict__)
        q = interpreters.create_queue()
        q.put(("f", lambda x: 2 * x))
        self.assertEqual(q.get()[1](4), 8)
        for bad in ((lambda n: (lambda: n))(1), {}.keys()):
            with self.assertRaises(interpreters.NotShareableError):
                q.put(bad)
        self.assertEqual(q.qsize(), 0)

    def test_what_cannot_be_had_there(self):
        """No failure of what was called: nothing was."""
        interp = self.create()
        q = interpreters.create_queue()
        for use in (lambda: interp.call(len, Lost()), lambda: interp.call(Lost()), lambda: (q.put(Lost()), q.get())):
            with self.assertRaisesRegex(interpreters.NotShareableError, "invalid literal"):
                use()
        self.assertEqual((interp.call(abs, -1), q.qsize()), (1, 0))

    def test_builtins_that_look_at_names(self):
        """As if __main__ there called them."""
        interp = self.create()
        names = ["__builtins__", "__doc__", "__loader__", "__name__", "__package__", "__spec__"]
        self.assertEqual(interp.call(dir), names)
        self.assertEqual([interp.call(eval, n) for n in names[1:]],
                         [None, sys.__loader__, "__main__", None, None])
        interp.call(exec, "x = 5")
        self.assertEqual((interp.call(eval, "x"), interp.call(eval, "x", {"x": 6}), interp.call(eval, "x", None)), (5, 6, 5))
        self.assertEqual(interp.call(dir), names + ["x"])
        self.assertEqual(interp.call(dir, 1), dir(1))
        for function in (globals, locals, vars):
            with self.assertRaises(interpreters.NotShareableError):
                interp.call(function)

    def test_globals_stay_at_home(self):
        interp = self.create()
        self.assertEqual(interp.call(lambda: sorted(k for k in globals() if k[:2] != "__")), [])
        interp.prepare_main(number=5)
        self.assertEqual(interp.call(lambda: number), 5)  # noqa: F821

    def test_prepare_main(self):
        interp = self.create()
        queue = interpreters.create_queue()
        interp.prepare_main({"a": 1}, b=("two", None), c=memoryview(b"view"), q=queue)
        interp.exec("assert (a, b, bytes(c)) == (1, ('two', None), b'view'); q.put(a)")
        self.assertEqual(queue.get(timeout=SOON), 1)
        interp.prepare_main((("d", 2.5),))
        interp.exec("assert d == 2.5")
        with self.assertRaises(ValueError):
            interp.prepare_main()
        for names, error in (({1: 2}, TypeError), ({"\0": 1}, ValueError), (None, ValueError), (5, TypeError)):
            with self.assertRaises(error):
                interp.prepare_main(names)
        with self.assertRaises(interpreters.NotShareableError):
            interp.prepare_main(good=1, bad=[1])
        with self.assertRaises(interpreters.ExecutionFailed):
            interp.exec("good")

    def test_standard_streams(self):
        code = ("from xidata import interpreters as i\na = i.create()\na.exec('import sys; print(\"out\"); print(\"err\", file=sys.stderr)')\n"
                "a.exec('assert sys.stdin.readline() == \"in\\\\n\"')\nprint('end')")
        child = self.child(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = child.communicate(b"in\n", timeout=SOON)
        self.assertEqual((out, err, child.returncode), (b"out\nend\n", b"err\n", 0))

    def test_interrupted(self):
        """Ctrl-C ends the waiting, not the interpreter."""
        interp = self.create()
        gate = interpreters.create_queue()

        class Pressed(Exception):
            pass

        def press(*_):
            raise Pressed

        old = signal.signal(signal.SIGALRM, press)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with self.assertRaises(Pressed):
                interp.call(gate.get)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        gate.put("go")
        until(lambda: not interp.is_running(), "the call to end")
        self.assertEqual(interp.call(abs, -1), 1)

    def test_starts_with_little(self):
        """What an interpreter loads at its start, every program waits for: nothing but the package's own and what is of C."""
        plain = set(subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], check=True, text=True,
                                   stdout=subprocess.PIPE).stdout.split())
        code = ("from xidata import interpreters as i\na = i.create()\na.exec('import sys; print(*sys.modules, flush=True)')")
        there = set(subprocess.run([sys.executable, "-c", code], check=True, text=True, stdout=subprocess.PIPE).stdout.split())
        self.assertIn("xidata._worker", there)
        own = {"xidata", "xidata._xidata", "xidata._forkserver", "xidata._worker"}
        self.assertLessEqual(there - plain, own | {"_queue", "_socket", "atexit", "select"})

    def test_the_first_by_several_threads(self):
        """They join once, and start one process that forks."""
        code = ("import os, threading, xidata\nfrom xidata import interpreters as i\ngate, made = threading.Barrier(8), []\n"
                "def first():\n    gate.wait()\n    made.append(i.create())\n"
                "threads = [threading.Thread(target=first) for _ in range(8)]\n"
                "for t in threads: t.start()\nfor t in threads: t.join()\n"
                "mine = [j for j in xidata.list_interpreters() if j.pid == os.getpid()]\n"
                "parents = {o.call(os.getppid) for o in made}\n"
                "print(len(made), len(mine), len(parents))")
        for _ in range(5):
            child = self.child(code, stdout=subprocess.PIPE)
            self.assertEqual(child.communicate(timeout=SOON)[0], b"8 1 1\n")

    def test_the_second_waits_for_the_first(self):
        """The first of two is stopped in its start until the other has to wait for it, or starts as well."""
        child = self.child(FIRST_OF_TWO, stdout=subprocess.PIPE)
        self.assertEqual(child.communicate(timeout=SOON)[0], b"starts, waits: 2 made, 1 joined, 1 parent\n")

    def test_preload(self):
        code = ("from xidata import interpreters as i\ni.preload('json', 'no_such_module')\na = i.create()\n"
                "a.exec('import sys; assert \"json\" in sys.modules')\n"
                "try:\n    i.preload('csv')\nexcept i.InterpreterError:\n    print('late')")
        child = self.child(code, stdout=subprocess.PIPE)
        self.assertEqual(child.communicate(timeout=SOON)[0], b"late\n")

    def test_the_script_is_found(self):
        """A class of a script's __main__ is one there, and an `if __name__` is not run."""
        folder = os.environ.get("XI_RUNTIME_DIR", "/tmp")
        path = os.path.join(folder, "script%d.py" % os.getpid())
        with open(path, "w") as f:
            f.write("class Point:\n    def __init__(self, x): self.x = x\n"
                    "def double(p):\n    return Point(p.x * 2)\n"
                    "if __name__ == '__main__':\n    from xidata import interpreters\n    a = interpreters.create()\n"
                    "    p = a.call(double, Point(4))\n    print(type(p) is Point, p.x)\n")
        try:
            out = subprocess.run([sys.executable, path], stdout=subprocess.PIPE, timeout=SOON).stdout
        finally:
            os.unlink(path)
        self.assertEqual(out, b"True 8\n")


class Queues(Interpreters):
    def test_basics(self):
        q = interpreters.create_queue(2)
        self.assertEqual((q.maxsize, q.empty(), q.full(), q.qsize(), q.unbounditems), (2, True, False, 0, interpreters.UNBOUND))
        q.put(1)
        q.put([2], block=False)
        self.assertTrue(q.full())
        for put in (lambda: q.put_nowait(3), lambda: q.put(3, timeout=0.05), lambda: q.put(3, False)):
            with self.assertRaises(interpreters.QueueFull):
                put()
        self.assertEqual([q.get(), q.get_nowait()], [1, [2]])
        for get in (q.get_nowait, lambda: q.get(timeout=0.05), lambda: q.get(False)):
            with self.assertRaises(interpreters.QueueEmpty):
                get()
        before = time.monotonic()
        with self.assertRaises(queue.Empty):
            q.get(timeout=0.25)
        self.assertTrue(0.25 <= time.monotonic() - before < 5)
        with self.assertRaises(ValueError):
            q.get(timeout=-1)
        self.assertIs(interpreters.Queue(q.id), q)
        self.assertIs(pickle.loads(pickle.dumps(q)), q)
        self.assertIn(q, interpreters.list_queues())
        with self.assertRaises(interpreters.QueueNotFoundError):
            interpreters.Queue(12345)
        with self.assertRaises(ValueError):
            interpreters.Queue(-1)
        with self.assertRaises(NotImplementedError):
            interpreters.create_queue(unbounditems=3)

    def test_what_is_passed_over_prolongs_no_wait(self):
        q = interpreters.create_queue(unbounditems=interpreters.UNBOUND_REMOVE)
        mine = q._channel
        q.put("ours")
        mark = mine.recv(0)[0]
        nobodys = 10**9 << 3 | mark & 7
        before = time.monotonic()
        late = threading.Timer(1.9, mine.send, [(nobodys, "gone with its interpreter")])
        late.start()
        with self.assertRaises(interpreters.QueueEmpty):
            q.get(timeout=2.0)
        self.assertTrue(2.0 <= time.monotonic() - before < 3.5)
        late.join()

    def test_gone_with_the_last(self):
        q = interpreters.create_queue()
        q.put("left over")
        name = q._channel.name
        del q
        gc.collect()
        self.assertNotIn(name, [c.name for c in xidata.channels()])

    def test_unbound(self):
        q = interpreters.create_queue(unbounditems=interpreters.UNBOUND_ERROR)
        interp = interpreters.create()
        names = ("UNBOUND", "UNBOUND_ERROR", "UNBOUND_REMOVE", "KEEP", None)
        interp.prepare_main(q=q)
        for n, name in enumerate(names):
            interp.exec("from xidata import interpreters as i; q.put(%d%s)" % (n, ", unbounditems=i.%s" % name if name else ""))
        q.put("mine")
        self.assertEqual(q.qsize(), 6)
        del interp
        gc.collect()
        self.assertEqual(q.qsize(), 5)
        self.assertIs(q.get(), interpreters.UNBOUND)
        with self.assertRaises(interpreters.ItemInterpreterDestroyed):
            q.get()
        self.assertEqual(q.get(), 3)
        with self.assertRaises(interpreters.ItemInterpreterDestroyed):
            q.get()
        self.assertEqual(q.get(), "mine")
        self.assertEqual(q.qsize(), 0)
        self.assertEqual(str(interpreters.UNBOUND), "xidata.interpreters.UNBOUND")
        self.assertIs(pickle.loads(pickle.dumps(interpreters.UNBOUND)), interpreters.UNBOUND)

    def test_killed_putters(self):
        q = interpreters.create_queue(unbounditems=interpreters.KEEP)
        interp = self.create()
        interp.prepare_main(q=q)
        with self.assertRaises(interpreters.InterpreterError):
            interp.exec("import os\nfor n in range(1000): q.put(n)\nos.kill(os.getpid(), 9)")
        self.assertEqual([q.get(timeout=SOON) for _ in range(1000)], list(range(1000)))

    def test_wakes_at_once(self):
        there, back = interpreters.create_queue(), interpreters.create_queue()
        interp = self.create()
        interp.prepare_main(there=there, back=back)
        thread = interp.call_in_thread(exec, "import __main__ as m\nfor _ in range(300): m.back.put(m.there.get())")
        until(interp.is_running, "it")
        trips = []
        for n in range(300):
            before = time.perf_counter()
            there.put(n)
            self.assertEqual(back.get(timeout=SOON), n)
            trips.append(time.perf_counter() - before)
        thread.join(SOON)
        print("round trip by queues: %.0f us, the median of 300" % (1e6 * sorted(trips)[150]))
        self.assertLess(min(trips), 0.005) # that of the standard library polls every 10 ms


    def test_removed_while_it_is_looked_at(self):
        """Another ends a queue between our finding it and our having it open: it is not there, and nothing is raised."""
        from xidata import _iqueues

        class Slow:
            def __init__(self, me):
                self.namespace = me.namespace

            def channel(self, name, **_):
                raise xidata.ChannelRemoved("channel %r was removed, with what was in it" % name)

        q = interpreters.create_queue()
        id = q.id
        known = _iqueues._known.pop(id)
        me = _iqueues._me
        _iqueues._me = lambda me=me(): Slow(me)
        try:
            self.assertEqual(interpreters.list_queues(), [])
            with self.assertRaises(interpreters.QueueNotFoundError):
                interpreters.Queue(id)
        finally:
            _iqueues._me = me
            _iqueues._known[id] = known
        self.assertIn(q, interpreters.list_queues())


class Exceptions(unittest.TestCase):
    def test_bases(self):
        i = interpreters
        for kind, bases in (
            (i.InterpreterError, (Exception,)),
            (i.InterpreterNotFoundError, (i.InterpreterError,)),
            (i.ExecutionFailed, (i.InterpreterError,)),
            (i.NotShareableError, (TypeError,)),
            (i.QueueError, (RuntimeError,)),
            (i.QueueNotFoundError, (i.QueueError,)),
            (i.QueueEmpty, (i.QueueError, queue.Empty)),
            (i.QueueFull, (i.QueueError, queue.Full)),
        ):
            self.assertEqual(kind.__bases__, bases)
            self.assertEqual(kind.__module__, "xidata.interpreters")
        self.assertTrue(issubclass(i.ItemInterpreterDestroyed, i.QueueError))

    def test_is_shareable(self):
        for good in (None, True, 1, 2.5, "s", b"b", (), (1, ("x",)), memoryview(b"")):
            self.assertTrue(interpreters.is_shareable(good), good)
        for bad in ([], {}, set(), object(), object, ..., Exception(), type("B", (bytes,), {})(b""), (1, [])):
            self.assertFalse(interpreters.is_shareable(bad), bad)


if __name__ == "__main__":
    main(each_version=False)
