# SPDX-License-Identifier: MIT
"""The demo: a broker, a producer, three workers on whatever versions of CPython there are, and a collector.

Starts them, says who dies of what, checks the collector's totals against a computation in this one process, shows the
broker's log, and looks that nothing is left in /dev/shm. `./demo` builds everything and runs this.

Environment: XI_DEMO_FILES (how many files, 2000), XI_DEMO_SECONDS (stop sending new ones after, 60).
"""
import glob
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time

import facts

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
BUILD = pathlib.Path(os.environ.get("XI_BUILD", ROOT / "build")).resolve()
WORKERS = 3
LIMIT = 150.0  # seconds after which the demo is ended, whatever it is at


def say(text=""):
    os.write(1, f"{text}\n".encode())  # in one piece: others write to the same place


def source_files(limit):
    """Python files of the standard library, the same ones every time: evenly from all over it."""
    top = pathlib.Path(sysconfig.get_path("stdlib"))
    paths = sorted(str(p) for p in top.rglob("*.py")
                   if "site-packages" not in p.parts and "dist-packages" not in p.parts and p.is_file())
    count = min(limit, len(paths))
    return [paths[i * len(paths) // count] for i in range(count)]


def pythons():
    """One CPython of each version that can import the module: [(version, path)], newest first."""
    candidates = [sys.executable, shutil.which("python3")]
    candidates += [p for d in os.environ.get("PATH", "").split(":") for p in glob.glob(f"{d}/python3.[0-9]*")]
    candidates += glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python3")) + glob.glob("/opt/python/*/bin/python3")
    found = {}
    probe = "import sys, xidata; print('%d.%d' % sys.version_info[:2])"
    for path in dict.fromkeys(filter(None, candidates)):
        if not re.search(r"/python3(\.\d+)?$", path):
            continue
        done = subprocess.run([path, "-c", probe], env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=30, check=False)
        if done.returncode == 0:
            found.setdefault(done.stdout.strip(), path)
    return sorted(found.items(), key=lambda item: tuple(map(int, item[0].split("."))), reverse=True)


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("XI_") or k.startswith("XI_DEMO") or k == "XI_WAIT"}
    env.update(PYTHONPATH=f"{BUILD / 'python'}{os.pathsep}{HERE}", PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1",
               XI_BROKER=str(BUILD / "bin" / "xi-broker"), XI_DEMO_WORKERS=str(WORKERS), XI_LINGER="1", **more)
    return env


def die_with_parent():
    """Nobody outlives the conductor: if it is killed, its children are told to end."""
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Process:
    def __init__(self, role, argv, env, **more):
        self.role = role
        self.child = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, **more)
        self.pidfd = os.pidfd_open(self.child.pid)
        say(f"started {role} as process {self.child.pid}")

    def ended(self):
        """Takes note of the end; a death is said aloud. True if it ended as it should."""
        status = self.child.wait()
        os.close(self.pidfd)
        if status < 0:
            say(f"{self.role} was killed by {signal.Signals(-status).name}")
        return status == 0


class Demo:
    def __init__(self, work):
        self.work = work
        self.ns = f"demo-{os.getpid()}"
        self.env = environment(XI_NAMESPACE=self.ns, XI_RUNTIME_DIR=str(work))
        self.log_pipe = -1
        self.log_text = b""
        self.poll = select.poll()
        self.running = {}
        self.broker = None
        self.ok = True

    def start(self, role, argv, **more):
        process = Process(role, argv, self.env, **more)
        self.running[process.pidfd] = process
        self.poll.register(process.pidfd, select.POLLIN)
        return process

    def start_broker(self):
        """A foreground service, which says through a pipe when it listens."""
        self.log_pipe, log = os.pipe()
        ready, tell = os.pipe()
        self.broker = self.start("broker", [str(BUILD / "bin" / "xi-broker"), "--namespace", self.ns, "--ready-fd",
                                            str(tell)], stderr=log, pass_fds=(tell,))
        os.close(log)
        os.close(tell)
        self.poll.register(self.log_pipe, select.POLLIN)
        with open(ready, "rb") as pipe:
            word = pipe.readline()
        if word.strip() != b"ready":
            self.broker.child.wait(timeout=10)
            self.read_log()
            raise SystemExit("the broker did not start:\n" + self.log_text.decode(errors="replace"))

    def read_log(self):
        """What is still in the pipe."""
        pipe = select.poll()
        pipe.register(self.log_pipe, select.POLLIN)
        while pipe.poll(0):
            data = os.read(self.log_pipe, 65536)
            if not data:
                break
            self.log_text += data

    def step(self, seconds):
        """Handles what happens within `seconds`: lines of the broker's log, and processes that end."""
        for fd, _ in self.poll.poll(max(0, seconds) * 1000):
            if fd == self.log_pipe:
                data = os.read(fd, 65536)
                self.log_text += data
                if not data:
                    self.poll.unregister(fd)
                continue
            process = self.running.pop(fd)
            self.poll.unregister(fd)
            good = process.ended()
            if process is self.broker:
                self.broker = None
                if not good:
                    say("the interpreters go on without it: the first that needs a broker starts another")
            elif not good and not process.role.startswith("worker"):
                self.ok = False

    def roles(self):
        return [p for p in self.running.values() if p is not self.broker]

    def wait_for_all(self):
        deadline = time.monotonic() + LIMIT
        while self.roles():
            self.step(deadline - time.monotonic())
            if time.monotonic() >= deadline and self.roles():
                say(f"not done after {LIMIT:.0f} s: ending " + ", ".join(p.role for p in self.roles()))
                self.ok = False
                for process in self.roles():
                    process.child.kill()
                deadline += 10

    def end_broker(self):
        """SIGTERM to the service; one that the library started in its stead leaves by itself."""
        if self.broker:
            self.broker.child.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 10
            while self.broker and time.monotonic() < deadline:
                self.step(deadline - time.monotonic())
            if self.broker:
                say("the broker did not end on SIGTERM")
                self.broker.child.kill()
                self.ok = False
        else:
            lock = self.work / f"{self.ns}.lock"
            if lock.exists() and subprocess.run(["flock", "-w", "10", str(lock), "true"], check=False).returncode:
                say("the broker that took over has not left")
                self.ok = False
        self.read_log()


def check_totals(path):
    """Computes the same in this process alone. True if every total agrees."""
    with open(path, encoding="utf-8") as f:
        result = json.load(f)
    started = time.monotonic()
    alone = facts.Totals()
    for source in result["paths"]:
        alone.add_text(facts.of_text(facts.read(source)))
    seconds = max(result["seconds"], 1e-9)
    say(f"\n{result['values']} values, {result['values'] / seconds:.0f} values/s; {result['bytes'] / 1e6:.1f} MB of "
        f"source, {result['bytes'] / seconds:.0f} bytes/s")
    for worker, (count, version) in result["by_worker"].items():
        say(f"    {worker} (Python {version}): {count} files")
    say("facts that depend on the Python that parsed: "
        + ", ".join(f"{n} {key}" for key, n in result["ast"].items()) + f"; {result['unparsed']} files it would not parse")
    if result["again"]:
        say(f"{result['again']} file(s) sent again, {result['twice']} of them had arrived after all")
    agree = True
    for key, value in alone.checked().items():
        same = result["totals"][key] == value
        agree = agree and same
        say(f"    {key:14} {value}" + ("" if same else f"   but the collector has {result['totals'][key]}"))
    what = "the totals" if result["complete"] else f"the totals of the {len(result['paths'])} files that arrived"
    say(f"{what} {'agree with' if agree else 'DIFFER from'} a computation in one process "
        f"({time.monotonic() - started:.1f} s)")
    return agree and result["complete"]


def show_log(text):
    say("\nthe broker's log:")
    for line in text.decode(errors="replace").splitlines()[-12:]:
        say(f"    {line}")


def leftovers(ns):
    return glob.glob(f"/dev/shm/xi.{os.getuid()}.{ns}.*")


def main():
    files = source_files(int(os.environ.get("XI_DEMO_FILES", "2000")))
    versions = pythons()
    if not versions:
        raise SystemExit("no CPython here can import the module; build it first: ./demo does")
    with tempfile.TemporaryDirectory(prefix="xi-", dir="/tmp") as folder:
        work = pathlib.Path(folder)
        listing, totals = work / "files", work / "totals"
        listing.write_text("\n".join(files), encoding="utf-8", errors="surrogateescape")
        demo = Demo(work)
        say(f"{len(files)} files of the standard library; CPython " + ", ".join(v for v, _ in versions))
        demo.start_broker()
        first = versions[0][1]
        demo.start("collector", [first, str(HERE / "collector.py"), str(listing), str(totals)])
        for n in range(1, WORKERS + 1):
            python = versions[(n - 1) % len(versions)][1]
            demo.start(f"worker {n}", [python, str(HERE / "worker.py"), str(n)])
        demo.start("producer", [first, str(HERE / "producer.py"), str(listing),
                                os.environ.get("XI_DEMO_SECONDS", "60")])
        demo.wait_for_all()
        if totals.exists():
            demo.ok = check_totals(totals) and demo.ok
        else:
            say("\nthe collector left no totals")
            demo.ok = False
        if demo.ok:
            say("\nthe same files once more, with nobody parsing them")
            seconds = "3" if len(files) > 1000 else "1"
            demo.start("receiver", [first, str(HERE / "carry.py"), "recv"])
            demo.start("sender", [first, str(HERE / "carry.py"), "send", str(listing), seconds])
            demo.wait_for_all()
        served = demo.broker is not None
        demo.end_broker()
        show_log(demo.log_text)
        if served and demo.ok and b" 0 blocks outstanding" not in demo.log_text:
            say("the broker does not say that every block came back")
            demo.ok = False
        left = leftovers(demo.ns)
        say("nothing is left in /dev/shm" if not left else "left in /dev/shm: " + " ".join(left))
        demo.ok = demo.ok and not left
    say("demo: " + ("ok" if demo.ok else "incomplete, see above"))
    return 0 if demo.ok else 1


if __name__ == "__main__":
    sys.exit(main())
