# SPDX-License-Identifier: MIT
"""Builds a copy of the library so that one source file of it can be replaced at the price of one compilation, and runs
the tests against it.

The copy is a shared library of which nothing is hidden; the unit tests are linked to it, so a mutant of the library needs
no test built again, but for those that have a source of the library or the broker inside (#include "...c").
Everything lies in one work folder, sources too: the tree itself is never written to.
"""
import concurrent.futures
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g0", "-fPIC", "-w", "-fno-strict-aliasing",
         '-Dvisibility(ignored)=visibility("default")']  # what the library hides by name, too
# Quick ones, that together look at everything in libxi below the values; and those of the broker's repair. What is behind
# an @ is how they wait.
TESTS = ("arena", "channel", "lock", "ends", "retain", "retain_grow", "grow", "call", "set", "ttl", "ack", "ack_ends", "wait", "wakes", "wakes_by",
         "set@futex", "wait@futex", "release_words", "repair", "repair_ack", "repair_hostile")
PATIENCE = 6 # times what a test takes with nothing broken, and some seconds: then it hangs


class Failed(Exception):
    """The work folder cannot be made, or the tests fail with nothing broken."""


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


class Workshop:
    """A work folder: tree/ the sources, objects/, lib/libmutant.so, tests/."""

    def __init__(self, folder, build, only=None):
        self.folder = pathlib.Path(folder).resolve()
        self.build = pathlib.Path(build).resolve()
        self.tree = self.folder / "tree"
        self.only = only
        self.tests = [t for t in TESTS if not only or re.fullmatch(only, t)]
        self.inside = {t: set(included(ROOT / f"tests/unit/test_{t.split('@')[0]}.c")) for t in self.tests}
        self.seconds = {}  # what each test takes with nothing broken
        self.covers = {}   # "test": {"path": [lines]}
        self.running = set()
        self.spoilt = set()  # tests that have a mutant inside
        self.flags = FLAGS + run("pkg-config", "--cflags", "check", "liburing").split()
        self.libraries = run("pkg-config", "--libs", "check", "liburing").split() + ["-lrt", "-lpthread"]

    # ---- building

    def sources(self):
        listed = re.search(r"set\(XI_SOURCES(.*?)\)", (ROOT / "libxi/CMakeLists.txt").read_text(), re.S).group(1)
        return [f"libxi/{name}" for name in listed.split()]

    def object_of(self, source, kind="objects"):
        return self.folder / kind / (source.replace("/", "_") + ".o")

    def compile(self, source, *more, kind="objects"):
        """Errors of the compiler are a Failed: of a mutant, it is none."""
        out = self.object_of(source, kind)
        run("gcc", *self.flags, *more, "-I", self.tree / "libxi", "-I", self.tree, "-I", self.tree / "tests", "-iquote",
            self.tree / "broker", "-c", self.tree / source, "-o", out, cwd=out.parent)
        return out

    def compile_counted(self, source):
        self.compile(source, "--coverage", "-O0", "-fprofile-update=atomic", kind="counted")

    def link(self, kind="objects", *more):
        lib = self.folder / ("lib" if kind == "objects" else "lib-" + kind)
        lib.mkdir(exist_ok=True)
        run("gcc", "-shared", *more, "-o", lib / "libmutant.so", *(self.object_of(s, kind) for s in self.sources()),
            *self.libraries)

    def build_test(self, name):
        source = f"tests/unit/test_{name}.c"
        self.compile(source)
        wraps = ["-Wl,--wrap=_mark_point", "-Wl,--wrap=_ck_assert_failed"]
        more = [self.object_of(f"broker/{f}.c") for f in self.broker_sources()] if name.startswith("repair") else []
        run("gcc", "-o", self.folder / "tests" / name, self.object_of(source), self.object_of("tests/unit/quick_mark.c"),
            self.object_of("tests/mutate/stop.c"), *more, "-L", self.folder / "lib", "-lmutant", *wraps, *self.libraries)

    def broker_sources(self):
        listed = re.search(r"add_library\(xi_broker_core OBJECT(.*?)\)", (ROOT / "broker/CMakeLists.txt").read_text(), re.S)
        return [name[:-2] for name in listed.group(1).split()]

    def prepare(self, say, jobs):
        mark = fingerprint(self.only)
        known = self.folder / "known.json"
        if known.exists():
            was = json.loads(known.read_text())
            if was["fingerprint"] == mark:
                self.seconds, self.covers = was["seconds"], was["covers"]
                self.mend()
                return
        shutil.rmtree(self.folder, ignore_errors=True)
        for room in ("libxi", "broker", "tests/unit", "tests/mutate"):
            shutil.copytree(ROOT / room, self.tree / room, ignore=shutil.ignore_patterns("bindings", "*.pyc", "xi"))
        for name in ("objects", "counted", "lib", "tests", "gcda", "runs"):
            (self.folder / name).mkdir()
        say("building the library and the tests")
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            each = lambda do, these: list(pool.map(do, these))
            each(self.compile, self.sources() + ["tests/unit/quick_mark.c", "tests/mutate/stop.c"])
            each(self.compile_counted, self.sources())
            if any(t.startswith("repair") for t in self.tests):
                each(self.compile, [f"broker/{name}.c" for name in self.broker_sources()])
            self.link()
            self.link("counted", "--coverage")
            each(self.build_test, [t for t in self.tests if "@" not in t])
            say("which lines each test runs, and how long it takes")
            self.covers = dict(zip(self.tests, each(self.lines_run, self.tests)))
            self.seconds = dict(zip(self.tests, each(self.usual, self.tests)))
        known.write_text(json.dumps({"fingerprint": mark, "seconds": self.seconds, "covers": self.covers}))

    def mend(self):
        """After a run that was stopped with a mutant in its place."""
        for room in ("libxi", "broker"):
            for path in (ROOT / room).rglob("*.c"):
                name = str(path.relative_to(ROOT))
                there = self.tree / name
                if there.exists() and there.read_bytes() != path.read_bytes():
                    shutil.copy(path, there)
                    self.compile(name)
                    self.spoilt.update(t for t in self.tests if name in self.inside[t])

    # ---- running

    def usual(self, name):
        begun = time.monotonic()
        verdict, said = self.try_test(name, 120)
        if verdict != "passed":
            raise Failed(f"unit.{name} {verdict} with nothing broken: {said}")
        return time.monotonic() - begun

    def lines_run(self, name):
        """By a library that counts; the lines of each source that ran."""
        into = self.folder / "gcda" / name
        verdict, said = self.try_test(name, 240, lib="lib-counted", GCOV_PREFIX=str(into))
        if verdict != "passed":
            raise Failed(f"unit.{name} {verdict} with the counting library: {said}")
        found = {}
        for counts in into.rglob("*.gcda"):
            shutil.copy(self.folder / "counted" / (counts.stem + ".gcno"), counts.parent)
            report = subprocess.run(["gcov", "--json-format", "--stdout", counts], capture_output=True, check=True).stdout
            for line in report.splitlines():
                for entry in json.loads(line)["files"]:
                    path = pathlib.Path(entry["file"])
                    if self.tree in path.parents:
                        ran = found.setdefault(str(path.relative_to(self.tree)), set())
                        ran.update(n["line_number"] for n in entry["lines"] if n["count"])
        return {path: sorted(lines) for path, lines in found.items()}

    def try_test(self, name, seconds, lib="lib", **more):
        """("passed" | "failed" | "hangs", the last that it said)."""
        name, _, way = name.partition("@")
        if way:
            more["XI_WAIT"] = way
        env = dict(os.environ, XI_BUILD=str(self.build), XI_SOURCE=str(ROOT), CK_FORK="no", CK_VERBOSITY="minimal",
                   LD_LIBRARY_PATH=str(self.folder / lib), XI_TEST_RUN=str(os.getpid()), **more)
        for name_ in ("XI_NAMESPACE", "XI_RUNTIME_DIR", "XI_BROKER", "XI_TEST_LONG", "XI_SPIN_US", "XI_TEST_PREFIX"):
            env.pop(name_, None)
        with subprocess.Popen([str(ROOT / "tests/run.sh"), str(self.folder / "tests" / name)], env=env, text=True,
                              cwd=self.folder / "runs", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, errors="replace", start_new_session=True) as program:
            self.running.add(program)
            try:
                said, _ = program.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                stop_all(program)
                return "hangs", "nothing"
            finally:
                self.running.discard(program)
        said = [line for line in said.splitlines() if line.strip()]
        return ("failed" if program.returncode else "passed"), (said[-1] if said else f"status {program.returncode}")

    def who_runs(self, path, line):
        """The tests that run this line, the quickest first."""
        return sorted((t for t in self.tests if line in self.covers[t].get(path, ())), key=self.seconds.get)

    def judge(self, mutant, jobs):
        """(verdict, by what). Verdicts: invalid, same (as compiled), unrun, killed, hangs, survived."""
        source = self.tree / mutant.path
        before = source.read_text()
        here = self.object_of(mutant.path)
        original = here.read_bytes()
        try:
            source.write_text(mutant.applied(before))
            try:
                self.compile(mutant.path)
            except Failed:
                return "invalid", ""
            if here.read_bytes() == original:
                return "same", ""
            return self.judge_built(mutant, jobs)
        finally:
            source.write_text(before)
            here.write_bytes(original)

    def judge_built(self, mutant, jobs):
        holders = {t for t in self.tests if mutant.path in self.inside[t]}
        for name in holders | self.spoilt:
            self.build_test(name)
        self.spoilt = holders
        tests = self.who_runs(mutant.path, mutant.line)
        tests += sorted(holders - set(tests), key=self.seconds.get)
        if not tests:
            return "unrun", ""
        self.link()
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            waiting = {pool.submit(self.try_test, t, self.seconds[t] * PATIENCE + 8): t for t in tests}
            for future in concurrent.futures.as_completed(waiting):
                verdict, said = future.result()
                if verdict != "passed":
                    pool.shutdown(wait=False, cancel_futures=True)
                    for other in list(self.running):
                        stop_all(other)
                    return ("hangs" if verdict == "hangs" else "killed"), f"{waiting[future]}: {said}"
        return "survived", " ".join(tests)


def included(path):
    """The .c files of the tree that a test includes, itself or through a header."""
    for name in re.findall(r'^#include "([^"]+)"', path.read_text(), re.M):
        for place in (path.parent / name, ROOT / "libxi" / name, ROOT / "tests" / name):
            if place.exists():
                place = place.resolve()
                if place.suffix == ".c":
                    yield str(place.relative_to(ROOT))
                elif path.parent == place.parent:
                    yield from included(place)
                break


def fingerprint(only=None):
    """Of all that a mutant's fate depends on."""
    h = hashlib.sha256()
    for room in ("libxi", "broker", "tests/unit"):
        for path in sorted((ROOT / room).rglob("*.[ch]")):
            if "bindings" not in path.parts:
                h.update(path.read_bytes())
    return h.hexdigest()[:16] + (f".{only}" if only else "")


def stop_all(program):
    """run.sh tidies up after itself when it is asked to end; what it started first, for it waits for that."""
    for children in (True, False):
        members = [int(p) for p in os.listdir("/proc") if p.isdigit() and session_of(p) == program.pid]
        for pid in members:
            if (pid != program.pid) == children:
                try:
                    os.kill(pid, signal.SIGKILL if children else signal.SIGTERM)
                except ProcessLookupError:
                    pass
    program.wait()


def session_of(pid):
    try:
        text = pathlib.Path("/proc", pid, "stat").read_text()
    except OSError:
        return None
    return int(text.rsplit(")", 1)[1].split()[3])
