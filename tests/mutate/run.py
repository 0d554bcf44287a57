#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Breaks the sources in many small ways and asks whether the quick tests notice.

    python3 tests/mutate/run.py                              everything: hours
    python3 tests/mutate/run.py --sample 200 --seed 7        two hundred, drawn
    python3 tests/mutate/run.py --files 'channel/(log|park)' --kinds wake,relation
    python3 tests/mutate/run.py --report                     what is known so far

Each mutant (mutants.py) is compiled into a copy of the library, and the tests that run its line are run against it, each
with a time limit. It is

    killed      by a test that fails
    hangs       a test does not end: killed, too
    same        compiled to the same code: no defect
    invalid     not C
    argued      survived, and the file `survivors` says why that is right
    survived    no test noticed
    unrun       no test runs the line

What is known is kept in the work folder, so a run that was stopped goes on where it was; what was killed stays so until
its own source changes, what survived is tried again when anything has. Ends with a table and the names of survivors;
status 1 if fewer than --at-least percent of the defects were killed, or if `survivors` names what there is no more.
"""
import argparse
import collections
import concurrent.futures
import json
import pathlib
import queue
import random
import re
import sys
import threading
import time

import mutants
import programs

FILES = "libxi/(channel|arena|wait)/.*"
KILLED = ("killed", "hangs")
DEFECTS = KILLED + ("survived", "unrun", "argued")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=programs.ROOT / "build", help="of the broker that the tests use")
    parser.add_argument("--work", help="work folder (default: mutate/ in the build folder)")
    parser.add_argument("--files", default=FILES, help=f"pattern of the sources (default {FILES}); also broker/repair.*")
    parser.add_argument("--kinds", default="relation,logic,number,statement,wake", help="of: " + ", ".join(mutants.KINDS))
    parser.add_argument("--names", default="", help="pattern of the names of mutants")
    parser.add_argument("--tests", help="pattern of the tests to run")
    parser.add_argument("--sample", type=int, help="so many, drawn")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--jobs", type=int, default=6, help="mutants at a time (tests mostly sleep)")
    parser.add_argument("--at-least", type=float, default=0, metavar="PERCENT")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--list", action="store_true", help="name the mutants and do nothing")
    return parser.parse_args()


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def drawn(options):
    """The mutants that were asked for, in the order in which they are tried."""
    found = []
    kinds = options.kinds.split(",")
    for path in sorted(programs.ROOT.glob("libxi/**/*.c")) + sorted(programs.ROOT.glob("broker/*.c")):
        name = str(path.relative_to(programs.ROOT))
        if re.search(options.files, name) and "bindings" not in name:
            found += [m for m in mutants.mutants_of(name, path.read_text())
                      if m.kind in kinds and re.search(options.names, m.name)]
    if options.sample or options.seconds:
        random.Random(options.seed).shuffle(found)
        del found[options.sample or len(found):]
    return found


class Known:
    """The results so far, and what else is argued."""

    def __init__(self, work, fingerprint):
        self.path = work / "results.jsonl"
        self.fingerprint = fingerprint
        self.results = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                r = json.loads(line)
                self.results[r["name"], r["source"]] = r
        self.arguments = list(arguments_made())

    def of(self, mutant, source):
        r = self.results.get((mutant.name, source))
        if r and r["verdict"] in ("survived", "unrun") and r["fingerprint"] != self.fingerprint:
            return None
        return r

    def add(self, mutant, source, verdict, by):
        r = {"name": mutant.name, "source": source, "verdict": verdict, "by": by, "fingerprint": self.fingerprint}
        self.results[mutant.name, source] = r
        with self.path.open("a") as out:
            out.write(json.dumps(r) + "\n")
        return r

    def argued(self, mutant):
        fields = mutant.name.split(" | ", 3)
        return any(all(a in ("*", f) for a, f in zip(argument, fields)) for argument in self.arguments)

    def verdict(self, mutant, result):
        return "argued" if result["verdict"] in ("survived", "unrun") and self.argued(mutant) else result["verdict"]


def arguments_made():
    """The names in `survivors`, as their four fields, each of which may be *."""
    for line in (pathlib.Path(__file__).parent / "survivors").read_text().splitlines():
        if line and not line.startswith("#"):
            yield line.split(" | ", 3)


def stale_arguments():
    """Those that name what there is no more."""
    there = {}
    for argument in arguments_made():
        path = programs.ROOT / argument[0]
        if argument[0] == "*":
            continue
        if argument[0] not in there:
            there[argument[0]] = [m.name.split(" | ", 3) for m in mutants.mutants_of(argument[0], path.read_text())] \
                if path.exists() else []
        if not any(all(a in ("*", f) for a, f in zip(argument, fields)) for fields in there[argument[0]]):
            yield " | ".join(argument)


def judge_all(options, work, found, known):
    shop = programs.Workshop(work / "shop", options.build, options.tests)
    shop.prepare(say, options.jobs, options.files)
    begun = time.monotonic()
    desks = queue.SimpleQueue()
    for i in range(options.jobs):
        desks.put(shop.desk(i))
    count, tried, noting = collections.Counter(), [], threading.Lock()

    def late():
        return options.seconds and time.monotonic() - begun > options.seconds

    def try_one(mutant):
        source = source_hash(mutant)
        if not known.of(mutant, source):
            if late():
                return
            desk = desks.get()
            try:
                judged = desk.judge(mutant)
            finally:
                desks.put(desk)
            with noting:
                verdict = known.verdict(mutant, known.add(mutant, source, *judged))
                count[verdict] += 1
                if verdict in ("survived", "unrun"):
                    say(f"{verdict}: {mutant.path}:{mutant.line}: {mutant.marked}")
                if sum(count.values()) % 20 == 0:
                    say(f"{len(tried) + 1} of {len(found)}: " + ", ".join(f"{n} {v}" for v, n in sorted(count.items())))
        tried.append(mutant)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        try:
            for future in concurrent.futures.as_completed([pool.submit(try_one, m) for m in found]):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if len(tried) < len(found):
        say(f"time is up: {len(tried)} of {len(found)} were tried")
    return tried


HASHES = {}


def source_hash(mutant):
    if mutant.path not in HASHES:
        HASHES[mutant.path] = programs.hashlib.sha256((programs.ROOT / mutant.path).read_bytes()).hexdigest()[:16]
    return HASHES[mutant.path]


def report(found, known):
    """The percentage of defects that were killed."""
    rows, total, left = collections.defaultdict(collections.Counter), collections.Counter(), []
    for mutant in found:
        result = known.of(mutant, source_hash(mutant))
        if not result:
            continue
        verdict = known.verdict(mutant, result)
        rows[mutant.path][verdict] += 1
        total[verdict] += 1
        if verdict in ("survived", "unrun"):
            left.append((mutant, verdict))
    columns = ("killed", "hangs", "argued", "survived", "unrun", "same", "invalid")
    print(f"{'':32}" + "".join(f"{c:>9}" for c in columns) + "   killed of defects not argued")
    for path, counts in sorted(rows.items()) + [("all", total)]:
        print(f"{path:32}" + "".join(f"{counts[c]:9d}" for c in columns) + f"   {share(counts):6.1%}")
    for mutant, verdict in sorted(left, key=lambda pair: (pair[0].path, pair[0].line)):
        print(f"{verdict}: {mutant.path}:{mutant.line}: {mutant.name}")
    defects = sum(total[v] for v in DEFECTS)
    print(f"{sum(total.values())} mutants, {defects} defects, {sum(total[v] for v in KILLED)} killed, {total['argued']} argued, "
          f"{total['survived'] + total['unrun']} survived")
    return share(total) * 100


def share(counts):
    open_ = sum(counts[v] for v in DEFECTS) - counts["argued"]
    return sum(counts[v] for v in KILLED) / open_ if open_ else 1.0


def main():
    options = arguments()
    found = drawn(options)
    if options.list:
        for mutant in found:
            print(f"{mutant.path}:{mutant.line}: {mutant.name}")
        return 0
    work = pathlib.Path(options.work or pathlib.Path(options.build) / "mutate")
    work.mkdir(parents=True, exist_ok=True)
    known = Known(work, programs.fingerprint(options.tests))
    if not options.report:
        try:
            found = judge_all(options, work, found, known)
        except programs.Failed as failure:
            print(failure, file=sys.stderr)
            return 2
    reached = report(found, known)
    stale = list(stale_arguments())
    for name in stale:
        print(f"argued, but not there any more: {name}")
    return 1 if stale or reached < options.at_least else 0


sys.exit(main())
