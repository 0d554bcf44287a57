# SPDX-License-Identifier: MIT
"""Which lines and branches ran: asks gcov about every counted object of a build folder and prints a table by source file.

    python3 tests/coverage.py BUILD_FOLDER [--missing PATTERN] [--only NAME]

Only files of this repository count, tests excluded. A line that several objects hold ran if it ran in one of them, and a
branch (each way out of a condition, of each && and || in it) likewise. Nothing is excluded: not what only a broken kernel
or a full disk would run, not what the compiler made of a switch. Totals are for the library, the broker, the command and
the bindings apart; the first two are what is to be kept above 95 % of lines and 85 % of branches.

--missing prints what did not run in the files that match; --only counts objects of folders whose name matches.
"""
import argparse
import collections
import gzip
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = (("bindings", r"libxi/bindings/"), ("libxi", r"libxi/"), ("command", r"broker/xi/"), ("broker", r"broker/"), ("bench", r"bench/"))


def reports(build, only):
    """gcov's JSON report of every object that was compiled for counting."""
    notes = sorted(str(p.resolve()) for p in build.rglob("*.gcno"))
    with tempfile.TemporaryDirectory() as folder:
        for note in notes:
            if only and not re.search(only, note):
                continue
            done = subprocess.run(["gcov", "--branch-probabilities", "--json-format", "--object-directory",
                                   str(pathlib.Path(note).parent), note],
                                  cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                sys.exit(f"gcov failed on {note}: {done.stderr}")
            for path in pathlib.Path(folder).glob("*.gcov.json.gz"):
                with gzip.open(path, "rt") as report:
                    yield json.load(report)
                path.unlink()


def more(known, counts):
    """Of two counts of a line's branches: where the compiler made as many of it, each as often as in either."""
    if len(known) != len(counts):
        return max(known, counts, key=len)
    return [max(pair) for pair in zip(known, counts)]


def counted(build, only):
    """{file: ({line: times}, {line: [times of each branch]})}"""
    files = {}
    for report in reports(build, only):
        for entry in report["files"]:
            path = pathlib.Path(report["current_working_directory"], entry["file"]).resolve()
            if ROOT not in path.parents or build.resolve() in path.parents or ROOT / "tests" in path.parents:
                continue
            lines, branches = files.setdefault(str(path.relative_to(ROOT)), ({}, {}))
            for line in entry["lines"]:
                number = line["line_number"]
                lines[number] = max(lines.get(number, 0), line["count"])
                counts = [b["count"] for b in line.get("branches", ())]
                branches[number] = more(branches.get(number, []), counts)
    return files


def show(name, ran, lines, taken, branches):
    share = f"{taken / branches:7.1%}" if branches else f"{'':7}"
    print(f"{ran / lines:7.1%}  {ran:5d} of {lines:5d}   {share}  {taken:5d} of {branches:5d}   {name}")


def show_missing(name, lines, branches):
    text = (ROOT / name).read_text().splitlines()
    for number in sorted(lines):
        untaken = sum(not n for n in branches[number])
        if not lines[number]:
            print(f"{name}:{number}: not run: {text[number - 1].strip()}")
        elif untaken:
            print(f"{name}:{number}: {untaken} of {len(branches[number])} branches: {text[number - 1].strip()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--missing", metavar="PATTERN")
    parser.add_argument("--only", metavar="NAME")
    options = parser.parse_args()
    totals = collections.defaultdict(lambda: [0, 0, 0, 0])
    files = counted(options.build, options.only)
    if not files:
        sys.exit("nothing was counted: was the folder configured with the preset `coverage`?")
    print("  lines                   branches")
    for name, (lines, branches) in sorted(files.items()):
        row = (sum(1 for n in lines.values() if n), len(lines),
               sum(1 for b in branches.values() for n in b if n), sum(len(b) for b in branches.values()))
        show(name, *row)
        part = next((title for title, pattern in PARTS if re.match(pattern, name)), "other")
        for total in (part, "libxi and broker" if part in ("libxi", "broker") else None, "all"):
            if total:
                totals[total] = [a + b for a, b in zip(totals[total], row)]
    print()
    for title in ("libxi", "broker", "command", "bindings", "bench", "other", "libxi and broker", "all"):
        if title in totals:
            show(title, *totals[title])
    for name, (lines, branches) in sorted(files.items()):
        if options.missing and re.search(options.missing, name):
            show_missing(name, lines, branches)


main()
