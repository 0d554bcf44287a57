#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The benchmark's machinery, not its figures: bench/run with two peers that every
# Linux has, one that is not to be had, and as little time as there can be. The
# JSON must hold every figure and say what was skipped and why, the page must be
# whole, with a chart for each section and nothing to fetch; and what is wrong
# must be said: a peer that nobody knows, figures that fail.
set -u

bench="$XI_BUILD/bin/xi-bench"
if [ ! -x "$bench" ]; then
    echo "this build has no benchmark; skipped"
    exit 77
fi
if [ "$(nproc)" -lt 2 ]; then
    echo "one CPU: the sides of a pair take turns, for minutes; skipped"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset XI_NAMESPACE # every run makes one of its own

run() { # NAME COMMAND OPTION...
    local name=$1
    shift
    XI_BENCH_MODULES="$work/none" timeout 100 "$XI_SOURCE/bench/run" --no-install --out "$work/$name" --quick --peers pipe,mq,zeromq \
        "$@" --repeat 1 --seconds 0.002 >"$work/$name.out" 2>&1
    local status=$?
    [ $status -eq 0 ] || { cat "$work/$name.out"; echo "bench/run $* ended with status $status"; exit 1; }
}

run latency latency --size 64
run copies throughput --size 65536
run wake wake --size 64

python3 - "$work" <<'END' || exit 1
import json, os, re, subprocess, sys
from html.parser import HTMLParser

work, problems = sys.argv[1], []


def expect(truth, text):
    if not truth:
        problems.append(text)


def entries(name):
    with open(f"{work}/{name}/report.json", encoding="utf-8") as file:
        report = json.load(file)
    return report, {(e["metric"], e["system"]): e for e in report["benchmarks"] if e["run_type"] == "aggregate"}


report, found = entries("latency")
for system in ("xi", "pipe", "mq", "ring", "raw"):
    entry = found.get(("round_trip", system))
    expect(entry and entry["real_time"] > 0 and entry["min"] <= entry["real_time"] <= entry["max"], f"round_trip/{system}: {entry}")
    if entry and system != "raw":
        ns = [value for _, value in entry["curve"]]
        expect(ns == sorted(ns) and ns[-1] <= entry["p100"], f"round_trip/{system}: percentiles that fall: {ns}")
peers = {peer["name"]: peer for peer in report["context"]["peers"]}
expect(peers.get("pipe", {}).get("skipped") == "", f"pipe: {peers.get('pipe')}")
expect("not built" in peers.get("zeromq", {}).get("skipped", ""), f"zeromq, which is not there: {peers.get('zeromq')}")
expect(all(peer["what"] and (peer["how"] or peer["skipped"]) for peer in peers.values()), f"peers without a word: {peers}")
_, found = entries("copies")
for system in ("xi", "pipe", "memcpy"):
    expect(found.get(("copy", system), {}).get("bytes") == 65536, f"copy/{system}: {found.get(('copy', system))}")
expect(("copy", "mq") not in found, "mq, which takes no such messages, has a figure")
_, found = entries("wake")
expect(found[("round_trip_asleep", "xi")]["parks_per_op"] >= 0.5, f"nobody slept: {found[('round_trip_asleep', 'xi')]}")

# The page of a machine whose host never moved its processors about: every figure in one regime.
for entry in report["benchmarks"]:
    entry["regime"] = "two cores"
    entry["mixed"] = False
with open(f"{work}/steady.json", "w", encoding="utf-8") as file:
    json.dump(report, file)
script = os.path.join(os.environ["XI_BUILD"], "share/xidata/bench/report.py")
subprocess.run([sys.executable, "-B", script, f"{work}/steady.json", "--html", f"{work}/steady.html"], check=True, stdout=subprocess.DEVNULL)
with open(f"{work}/steady.html", encoding="utf-8") as file:
    page = file.read()
with open(f"{work}/latency/report.html", encoding="utf-8") as file:
    expect(file.read().rstrip().endswith("</html>"), "the page of the run itself is cut off")


class Balanced(HTMLParser):
    """Notes charts, and whether those elements that have to be closed are."""

    def __init__(self):
        super().__init__()
        self.open, self.charts, self.marks = [], 0, 0

    def handle_starttag(self, tag, attributes):
        self.charts += tag == "svg"
        self.marks += tag in ("rect", "circle")
        if tag in ("svg", "table", "div", "details", "g", "text", "h2", "style"):
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href") and not (value or "").startswith("#"):
                problems.append(f"the page fetches {value}")

    def handle_startendtag(self, tag, attributes):
        self.marks += tag in ("rect", "circle")

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


parser = Balanced()
parser.feed(page)
expect(not parser.open, f"elements that are not closed: {parser.open}")
expect(parser.charts >= 2 and parser.marks >= 20, f"{parser.charts} charts with {parser.marks} marks")
expect(page.rstrip().endswith("</html>"), "the page is cut off")
expect(not re.search(r"https?://(?!www\.w3\.org)", page), "the page names the network")
expect("round trip awake, 64 B" in page and "not measured" in page, "the goals are not on the page")
table = open(f"{work}/latency/report.txt", encoding="utf-8").read()
expect("SKIPPED: zeromq" in table and "goals met" in table, "the table does not say what was skipped, or has no goals")
print("\n".join(problems))
print(f"{len(report['benchmarks'])} entries, {parser.charts} charts, {len(problems)} problems")
sys.exit(bool(problems))
END

# What is wrong is said.
if "$bench" latency --peers pipe,nosuchpeer >"$work/out" 2>&1 || ! grep -q "no peer is called nosuchpeer" "$work/out"; then
    echo "a peer that nobody knows was taken:"
    cat "$work/out"
    exit 1
fi
echo '{"context": {}}' >"$work/broken.json"
if python3 -B "$XI_BUILD/share/xidata/bench/report.py" "$work/broken.json" >/dev/null 2>&1; then
    echo "a report was made of nothing"
    exit 1
fi
echo "ok"
