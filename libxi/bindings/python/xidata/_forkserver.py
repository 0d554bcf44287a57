# SPDX-License-Identifier: MIT
"""
The process that forks interpreters: one for a program and all interpreters that descend from it.

Starting CPython takes some 15 ms, forking one that has started takes one or two. So the first create() starts this
process, which has one thread, has loaded xidata and what preload() named, and has joined nothing; it forks for
everybody in the family. It is also what makes orphans impossible: an interpreter asks the kernel to be killed with its
parent, which is this process, and this process ends when the program does, however that ends. (The program itself
could not be that parent: the kernel means the thread that forked, which may end long before.)

Each member of the family talks to it through a socket pair of its own:

    create     a marshalled dict, with the creator's stdin, stdout, stderr and the pipe on which the new interpreter says
               its id; nothing is answered
    status     a pid: answered with its wait status as soon as it has one, or None for no child of this process
"""

import marshal
import os
import select
import sys
import time

# These alone: what the modules socket, signal and pickle load takes as long as starting CPython does.
import _signal as signal
import _socket as socket

from . import _worker  # what every child runs

FDS = 4
GRACE = 1.0  # seconds that an interpreter whose references are gone may take to finish, if its creator was killed
CERTAIN = 10.0  # seconds within which the broker has noticed a death
KEPT = 4096  # wait statuses


def receive(connection):
    """(message, descriptors), or None at the end."""
    try:
        data, more, _, _ = connection.recvmsg(4, socket.CMSG_LEN(4 * FDS))
    except OSError:
        return None
    fds = []
    for _, kind, numbers in more:
        if kind == socket.SCM_RIGHTS:
            fds += [int.from_bytes(numbers[n : n + 4], sys.byteorder) for n in range(0, len(numbers), 4)]
    size = None
    while size is None or len(data) < size:
        if size is None and len(data) >= 4:
            size = 4 + int.from_bytes(data[:4], "little")
            continue
        try:
            part = connection.recv((size or 4) - len(data)) if data else b""
        except OSError:
            part = b""
        if not part:
            for fd in fds:
                os.close(fd)
            return None
        data += part
    for fd in fds:
        os.set_inheritable(fd, False)
    return marshal.loads(data[4:]), fds


def send(connection, message, fds=()):
    data = marshal.dumps(message)
    data = len(data).to_bytes(4, "little") + data
    sent = 0
    if fds:
        numbers = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        sent = connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
    connection.sendall(data[sent:])


def socketpair():
    pair = socket.socketpair()
    for fd in (one.fileno() for one in pair):
        os.set_inheritable(fd, False)
    return pair


class Server:
    def __init__(self, fd, program):
        self.pid = os.getpid()
        self.program = program  # a pidfd
        self.namespace = None  # that of the family, once it has a member
        self.poll = select.poll()
        self.connections = {}
        self.children = {}  # pid: the pid of its creator
        self.statuses = {}
        self.asked = {}  # pid: connections that wait for its status
        self.doomed = {}  # pid: when it is killed, and when it is sure to be somebody else's
        self.wake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.wake_in = wake
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.poll.register(program, select.POLLIN)
        self.poll.register(self.wake, select.POLLIN)
        self.watch(socket.socket(fileno=fd))

    def watch(self, connection):
        self.connections[connection.fileno()] = connection
        self.poll.register(connection, select.POLLIN)

    def run(self):
        """Serves until the program ends. In a forked child it returns what that is to do."""
        while True:
            timeout = 200 if self.doomed else None
            for fd, _ in self.poll.poll(timeout):
                if fd == self.program:
                    os._exit(0)  # and the kernel kills the children
                if fd == self.wake:
                    self.reap()
                elif fd in self.connections:
                    child = self.serve(self.connections[fd])
                    if child:
                        return child
            if self.doomed:
                self.end_orphans()

    def serve(self, connection):
        received = receive(connection)
        if received is None:
            self.forget(connection)
            return None
        message, fds = received
        if message["op"] == "create":
            self.namespace = message["namespace"]
            return self.create(message, fds)
        pid = message["pid"]
        if pid in self.children and pid not in self.statuses:
            self.asked.setdefault(pid, []).append(connection)
        else:
            self.answer(connection, self.statuses.get(pid))
        return None

    def answer(self, connection, status):
        try:
            send(connection, status)
        except OSError:
            pass  # it has ended

    def forget(self, connection):
        self.poll.unregister(connection)
        del self.connections[connection.fileno()]
        connection.close()
        if not self.connections and not self.children:
            os._exit(0)  # the program has closed its end, and nobody is left

    def create(self, message, fds):
        if len(fds) != FDS:  # there was no room for them here; its creator sees that nobody has them
            for fd in fds:
                os.close(fd)
            return None
        pair = ()
        try:
            pair = mine, its = socketpair()
            pid = os.fork()
        except OSError as error:  # no process or descriptor is left: those that there are go on
            _worker.say(fds.pop(), "%s: %s" % (type(error).__name__, error))
            for one in pair:
                one.close()
            for fd in fds:
                os.close(fd)
            return None
        if pid == 0:
            mine.close()
            self.become_child()
            return Child(message, fds, its, self.pid)
        its.close()
        for fd in fds:
            os.close(fd)
        self.children[pid] = message["pid"]
        self.watch(mine)
        return None

    def become_child(self):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for connection in self.connections.values():
            connection.close()
        for fd in (self.wake, self.wake_in, self.program):
            os.close(fd)

    def reap(self):
        try:
            os.read(self.wake, 4096)
        except BlockingIOError:
            pass
        while self.children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            self.ended(pid, status)

    def ended(self, pid, status):
        self.children.pop(pid, None)
        self.doomed.pop(pid, None)
        self.statuses[pid] = status
        if len(self.statuses) > KEPT:
            del self.statuses[next(iter(self.statuses))]
        for connection in self.asked.pop(pid, ()):
            self.answer(connection, status)
        if os.WIFSIGNALED(status):
            now = time.monotonic()
            for child, creator in self.children.items():
                if creator == pid:
                    self.doomed[child] = now + GRACE, now + CERTAIN
        if not self.connections and not self.children:
            os._exit(0)

    def end_orphans(self):
        """Of those whose creator was killed, kills who is referred to by nobody and does not end by itself: it is busy."""
        import xidata

        try:
            everybody = xidata.list_interpreters(self.namespace)
        except xidata.Error:
            return  # it is looked at again
        referred = {i.pid for i in everybody if not i.requires_ref or i.references}
        now = time.monotonic()
        for pid, (when, certain) in list(self.doomed.items()):
            if pid in referred:  # by somebody else, or by the dead still, if the broker had no time yet
                if now > certain:
                    del self.doomed[pid]
                else:
                    self.doomed[pid] = now + GRACE, certain
            elif when < now:
                os.kill(pid, signal.SIGKILL)
                del self.doomed[pid]


class Child:
    """What a forked child is to become."""

    def __init__(self, message, fds, connection, server):
        self.message, self.fds, self.connection, self.server = message, fds, connection, server

    def run(self):
        return _worker.run(self)


def main(fd, program_pid, preload):
    try:
        program = os.pidfd_open(program_pid)
    except ProcessLookupError:
        return 0
    if os.getppid() != program_pid:
        return 0
    for name in preload:
        try:
            __import__(name)
        except ImportError:
            pass  # as multiprocessing's: it is to save time, and who needs it is told when importing it
    server = Server(fd, program)
    child = server.run()
    del server
    return child.run()


# ------------------------------------------------------------------ the other end


class Client:
    """A process's end: for create(), and for what became of an interpreter."""

    def __init__(self, connection):
        import threading

        self.connection = connection
        self.pid = os.getpid()
        self.lock = threading.Lock()

    def create(self, message, fds):
        with self.lock:
            send(self.connection, message, fds)

    def status(self, pid):
        """The wait status of one that has died or is about to; None if it is not of this family."""
        with self.lock:
            send(self.connection, {"op": "status", "pid": pid})
            received = receive(self.connection)
        return received and received[0]


def interpreter_flags():
    """The options that this Python was started with, for another (as subprocess makes them, without loading that)."""
    flags, options = sys.flags, []
    letters = {"debug": "d", "dont_write_bytecode": "B", "no_site": "S", "verbose": "v", "bytes_warning": "b", "quiet": "q"}
    if flags.isolated:
        options.append("-I")
    else:
        letters.update(no_user_site="s", ignore_environment="E", safe_path="P")
    for name, letter in letters.items():
        level = getattr(flags, name, 0)
        if level:
            options.append("-" + letter * int(level))
    if flags.optimize:
        options.append("-" + "O" * flags.optimize)
    for warning in sys.warnoptions:
        options.append("-W" + warning)
    for option, value in sys._xoptions.items():
        options += ["-X", option if value is True else "%s=%s" % (option, value)]
    if "t" in sys.abiflags and "gil" not in sys._xoptions:
        options += ["-X", "gil=1"]  # free-threaded: the module would switch it on, with a warning in each interpreter
    return options


CODE = "import sys; sys.path[:0] = [%r]; from xidata import _forkserver as f; sys.exit(f.main(%d, %d, %r))"


def start(preload):
    """Starts the server of this program, and does not wait for it."""
    mine, its = socketpair()
    try:
        home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        code = CODE % (home, its.fileno(), os.getpid(), list(preload))
        os.posix_spawn(sys.executable, [sys.executable] + interpreter_flags() + ["-c", code], os.environ,
                       file_actions=[(os.POSIX_SPAWN_DUP2, its.fileno(), its.fileno())],
                       setpgroup=0)  # Ctrl-C is for the program
    finally:
        its.close()
    return Client(mine)
