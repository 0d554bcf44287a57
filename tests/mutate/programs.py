# SPDX-License-Identifier: MIT
"""Builds a copy of the library so that one source file of it can be replaced at the price of one compilation, and runs
the tests against it.

The copy is a shared library of which nothing is hidden; the tests are linked to it, so a mutant of the library needs no
test built again, but for those that have a source of the library or the broker inside (#include "...c"). Of a program of
unit tests only those functions are run that run the mutant's line (Trial). In the copy, sleepers look by themselves
after an hour rather than a second, where a test can do with that: else a wake left out would be made up for.
Everything lies in one work folder, sources too: the tree itself is never written to. Each mutant is judged at a desk, a
copy of all that it changes, so that several can be judged at a time: tests mostly sleep.
"""
import concurrent.futures
import dataclasses
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
         '-Dvisibility(ignored)=visibility("default")',  # what the library hides by name, too
         "-ftrivial-auto-var-init=pattern"]  # what is read before it was written, or behind what was, is no small number
# Quick ones, that together look at everything in libxi below the values; those of the broker's repair; and whole processes.
# What is behind an @ is how they wait.
TESTS = ("unit/arena", "unit/channel", "unit/lock", "unit/ends", "unit/retain", "unit/retain_grow", "unit/grow", "unit/call",
         "unit/call_groups", "unit/set", "unit/ttl", "unit/ack", "unit/ack_ends", "unit/ack_garbage", "unit/wait", "unit/wakes",
         "unit/wakes_by", "unit/wakes_on", "unit/limits", "unit/reconnect", "unit/send_home", "unit/strangers",
         "unit/set@futex", "unit/set_wait", "unit/set_wait@futex", "unit/no_stdin", "unit/no_stdin@futex", "unit/wait@futex",
         "unit/wakes@futex", "unit/release_words", "unit/segment", "unit/broker_socket", "unit/repair",
         "unit/repair_ack", "unit/repair_hostile", "system/threads", "system/fork", "system/free_functions")
COUNTED_TRIES = 3 # of a test that counts lines, and is slow: on a busy machine it may take longer than it has patience for
PATIENCE = 6 # times what a test takes with nothing broken, and some seconds: then it hangs


class Failed(Exception):
    """The work folder cannot be made, or the tests fail with nothing broken."""


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclasses.dataclass(frozen=True, order=True)
class Trial:
    """The least that can be run alone: one function of a program of unit tests, or a program."""
    program: str   # "unit/ack"
    way: str       # how it waits; "": as usual
    function: str  # "": all that the program does

    @property
    def name(self):
        return self.program + ("@" + self.way if self.way else "") + (":" + self.function if self.function else "")


class Workshop:
    """A work folder: tree/ the sources, objects/, lib/libmutant.so, tests/."""

    def __init__(self, folder, build, only=None):
        self.folder = pathlib.Path(folder).resolve()
        self.build = pathlib.Path(build).resolve()
        self.tree = self.folder / "tree"
        self.only = only
        self.tests = [t for t in TESTS if not only or re.fullmatch(only, t)]
        self.programs = sorted({t.partition("@")[0] for t in self.tests})
        self.inside = {p: set(included(ROOT / source_of(p))) for p in self.programs}
        self.seconds = {}  # Trial: what it takes with nothing broken
        self.covers = {}   # Trial: {"path": [lines]}
        self.patient = set() # Trials that need no look after a second
        self.spoilt = set()  # programs that have a mutant inside
        self.flags = FLAGS + run("pkg-config", "--cflags", "check", "liburing").split()
        self.libraries = run("pkg-config", "--libs", "check", "liburing").split() + ["-lrt", "-lpthread"]

    def desk(self, i):
        """A workshop for one mutant at a time."""
        other = Workshop(self.folder.parent / f"desk{i}", self.build, self.only)
        shutil.rmtree(other.folder, ignore_errors=True)
        for room in ("tree", "objects", "lib", "tests"):
            shutil.copytree(self.folder / room, other.folder / room)
        (other.folder / "runs").mkdir()
        other.seconds, other.covers, other.patient = self.seconds, self.covers, self.patient
        return other

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
        run("gcc", "-shared", *more, "-o", lib / "libmutant.so",
            *(self.object_of(s, kind) for s in self.sources() + ["tests/mutate/look.c"]), *self.libraries)

    def program(self, name):
        return self.folder / "tests" / name.replace("/", "_")

    def build_test(self, name):
        source = source_of(name)
        self.compile(source)
        wraps = ["-Wl,--wrap=_mark_point", "-Wl,--wrap=_ck_assert_failed", "-Wl,--wrap=_tcase_add_test"]
        more = [self.object_of(f"broker/{f}.c") for f in self.broker_sources()] if name.startswith("unit/repair") else []
        run("gcc", "-o", self.program(name), self.object_of(source), self.object_of("tests/unit/quick_mark.c"),
            self.object_of("tests/mutate/stop.c"), *more, "-L", self.folder / "lib", "-lmutant", *wraps, *self.libraries)

    def broker_sources(self):
        listed = re.search(r"add_library\(xi_broker_core OBJECT(.*?)\)", (ROOT / "broker/CMakeLists.txt").read_text(), re.S)
        return [name[:-2] for name in listed.group(1).split()]

    def prepare(self, say, jobs, files):
        """files: pattern of the sources of which it matters what runs them."""
        mark = fingerprint(self.only) + files
        known = self.folder / "known.json"
        if known.exists():
            was = json.loads(known.read_text())
            if was["fingerprint"] == mark:
                for entry in was["trials"]:
                    trial = Trial(*entry["trial"])
                    self.seconds[trial], self.covers[trial] = entry["seconds"], entry["covers"]
                    if entry["patient"]:
                        self.patient.add(trial)
                return
        shutil.rmtree(self.folder, ignore_errors=True)
        for room in ("libxi", "broker", "tests/unit", "tests/system", "tests/mutate"):
            shutil.copytree(ROOT / room, self.tree / room, ignore=shutil.ignore_patterns("bindings", "*.pyc", "xi", "standins"))
        for name in ("objects", "counted", "lib", "tests", "gcda", "runs"):
            (self.folder / name).mkdir()
        self.let_looks_wait()
        say("building the library and the tests")
        sources = self.sources() + ["tests/mutate/look.c"]
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            each = lambda do, these: list(pool.map(do, these))
            each(self.compile, sources + ["tests/unit/quick_mark.c", "tests/mutate/stop.c"])
            each(self.compile_counted, sources)
            if any(p.startswith("unit/repair") for p in self.programs):
                each(self.compile, [f"broker/{name}.c" for name in self.broker_sources()])
            self.link()
            self.link("counted", "--coverage")
            each(self.build_test, self.programs)
            trials = [trial for t in self.tests for trial in self.trials_of(t)]
            say(f"how long each of {len(trials)} tests takes, and whether it can do without looks")
            self.seconds = dict(zip(trials, each(self.usual, trials)))
            say("which lines each runs")
            self.covers = dict(zip(trials, each(lambda t: self.lines_run(t, files), trials)))
        known.write_text(json.dumps({"fingerprint": mark, "trials": [
            {"trial": dataclasses.astuple(t), "seconds": self.seconds[t], "covers": self.covers[t], "patient": t in self.patient}
            for t in trials]}))

    def let_looks_wait(self):
        header = self.tree / "libxi/wait/sleep.h"
        text, n = re.subn(r"#define XI_LOOK_NS .*", "extern long long xi_mutant_look;\n#define XI_LOOK_NS xi_mutant_look",
                          header.read_text())
        if n != 1:
            raise Failed("libxi/wait/sleep.h does not say how soon sleepers look (XI_LOOK_NS)")
        header.write_text(text)

    # ---- running

    def trials_of(self, test):
        program, _, way = test.partition("@")
        if not program.startswith("unit/"):
            return [Trial(program, way, "")]
        env = dict(os.environ, LD_LIBRARY_PATH=str(self.folder / "lib"), XI_MUTANT_TESTS="?", XI_BUILD=str(self.build))
        return [Trial(program, way, name) for name in dict.fromkeys(run(self.program(program), env=env).split())]

    def usual(self, trial):
        for patient in (True, False):
            if patient:
                self.patient.add(trial)
            else:
                self.patient.discard(trial)
            begun = time.monotonic()
            verdict, said = self.attempt([trial], 20 if patient else 120)
            if verdict == "passed":
                return time.monotonic() - begun
        raise Failed(f"{trial.name} {verdict} with nothing broken: {said}")

    def lines_run(self, trial, files):
        """By a library that counts; the lines of each source that ran."""
        into = self.folder / "gcda" / trial.name.replace("/", "_")
        for _ in range(COUNTED_TRIES):
            verdict, said = self.attempt([trial], 240, lib="lib-counted", GCOV_PREFIX=str(into))
            if verdict == "passed":
                break
        if verdict != "passed":
            raise Failed(f"{trial.name} {verdict} with the counting library: {said}")
        found, counts = {}, []
        for counted in into.rglob("*.gcda"):
            if re.search(files, counted.stem.replace("_", "/", 2)):
                shutil.copy(self.folder / "counted" / (counted.stem + ".gcno"), counted.parent)
                counts.append(counted)
        if counts:
            report = subprocess.run(["gcov", "--json-format", "--stdout", *counts], capture_output=True, check=True).stdout
            for line in report.splitlines():
                for entry in json.loads(line)["files"]:
                    path = pathlib.Path(entry["file"])
                    if self.tree in path.parents:
                        ran = found.setdefault(str(path.relative_to(self.tree)), set())
                        ran.update(n["line_number"] for n in entry["lines"] if n["count"])
        shutil.rmtree(into, ignore_errors=True)
        return {path: sorted(lines) for path, lines in found.items()}

    def attempt(self, trials, seconds, lib="lib", **more):
        """Functions of one program. ("passed" | "failed" | "hangs", the last that it said)."""
        first = trials[0]
        if first.way:
            more["XI_WAIT"] = first.way
        if first.function:
            more["XI_MUTANT_TESTS"] = " ".join(t.function for t in trials)
        more["XI_MUTANT_LOOK"] = "3600" if first in self.patient else "1"
        env = dict(os.environ, XI_BUILD=str(self.build), XI_SOURCE=str(ROOT), CK_FORK="no", CK_VERBOSITY="minimal",
                   LD_LIBRARY_PATH=str(self.folder / lib), XI_TEST_RUN=str(os.getpid()), **more)
        for name in ("XI_NAMESPACE", "XI_RUNTIME_DIR", "XI_BROKER", "XI_TEST_LONG", "XI_SPIN_US", "XI_TEST_PREFIX"):
            env.pop(name, None)
        with subprocess.Popen([str(ROOT / "tests/run.sh"), str(self.program(first.program))], env=env, text=True,
                              cwd=self.folder / "runs", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, errors="replace", start_new_session=True) as program:
            try:
                said, _ = program.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                stop_all(program)
                return "hangs", "nothing"
        said = [line for line in said.splitlines() if line.strip()]
        return ("failed" if program.returncode else "passed"), (said[-1] if said else f"status {program.returncode}")

    def who_runs(self, mutant):
        """The trials that run its line, in lists that one program can run; the quickest first."""
        together = {}
        for t in self.seconds:
            if mutant.line in self.covers[t].get(mutant.path, ()) or mutant.path in self.inside[t.program]:
                together.setdefault((t.program, t.way, t in self.patient), []).append(t)
        return sorted(together.values(), key=self.takes)

    def takes(self, trials):
        return sum(self.seconds[t] for t in trials)

    def judge(self, mutant):
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
            return self.judge_built(mutant)
        finally:
            source.write_text(before)
            here.write_bytes(original)

    def judge_built(self, mutant):
        holders = {p for p in self.programs if mutant.path in self.inside[p]}
        for name in holders | self.spoilt:
            self.build_test(name)
        self.spoilt = holders
        lists = self.who_runs(mutant)
        if not lists:
            return "unrun", ""
        self.link()
        for trials in lists:
            verdict, said = self.attempt(trials, self.takes(trials) * PATIENCE + 8)
            if verdict != "passed":
                return ("hangs" if verdict == "hangs" else "killed"), f"{trials[0].program}: {said}"
        return "survived", " ".join(sorted({t[0].program for t in lists}))


def source_of(program):
    room, name = program.split("/")
    return f"tests/{room}/test_{name}.c"


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
    for room in ("libxi", "broker", "tests/unit", "tests/system", "tests/mutate"):
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
