# SPDX-License-Identifier: MIT
"""Which lines ran: asks gcov about every counted object of a build folder and prints a table by source file.

    python3 tests/coverage.py BUILD_FOLDER

Only files of this repository count, tests excluded. A line that several objects hold ran if it ran in one of them.
"""
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile


def reports(build):
    """gcov's JSON report of every object that was compiled for counting."""
    notes = sorted(str(p.resolve()) for p in build.rglob("*.gcno"))
    with tempfile.TemporaryDirectory() as folder:
        for note in notes:
            done = subprocess.run(["gcov", "--json-format", "--object-directory", str(pathlib.Path(note).parent), note],
                                  cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                sys.exit(f"gcov failed on {note}: {done.stderr}")
            for path in pathlib.Path(folder).glob("*.gcov.json.gz"):
                with gzip.open(path, "rt") as report:
                    yield json.load(report)
                path.unlink()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build = pathlib.Path(sys.argv[1])
    root = pathlib.Path(__file__).resolve().parent.parent
    lines = {}
    for report in reports(build):
        for entry in report["files"]:
            path = pathlib.Path(report["current_working_directory"], entry["file"]).resolve()
            if root not in path.parents or build.resolve() in path.parents or root / "tests" in path.parents:
                continue
            counts = lines.setdefault(str(path.relative_to(root)), {})
            for line in entry["lines"]:
                number = line["line_number"]
                counts[number] = max(counts.get(number, 0), line["count"])
    total = ran = 0
    for name, counts in sorted(lines.items()):
        hit = sum(1 for n in counts.values() if n)
        total, ran = total + len(counts), ran + hit
        print(f"{hit / len(counts):7.1%}  {hit:5d} of {len(counts):5d}  {name}")
    if not total:
        sys.exit("nothing was counted: was the folder configured with the preset `coverage`?")
    print(f"{ran / total:7.1%}  {ran:5d} of {total:5d}  all")


main()
