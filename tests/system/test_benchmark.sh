#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The benchmark's machinery, not its figures: bench/run with two peers that every
# Linux has, one that is not to be had, and as little time as there can be. The
# JSON must hold every figure and say what was skipped and why, the page must be
# whole, with a chart for each section and nothing to fetch; and what is wrong
# must be said: a peer that nobody knows, figures that fail. A peer that hangs and
# one that crashes cost their own figures alone; Ctrl-C leaves nothing behind.
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
expect("<input type=radio name=regime id=regime0" in page and "id=regime1" not in page, "one regime, and not one button")

# The same machine, whose host did: each regime has charts of its own, and a peer one colour in all of them.
both = [dict(e, regime="two threads of one core", name=e["name"] + "/two_threads") for e in report["benchmarks"]]
report["benchmarks"] += both
report["context"]["failures"] = [{"name": "one_way/pipe/8", "why": "a <reason>"}]
with open(f"{work}/both.json", "w", encoding="utf-8") as file:
    json.dump(report, file)
subprocess.run([sys.executable, "-B", script, f"{work}/both.json", "--html", f"{work}/both.html"], check=True, stdout=subprocess.DEVNULL)
with open(f"{work}/both.html", encoding="utf-8") as file:
    page = file.read()
twice = Balanced()
twice.feed(page)
expect(not twice.open and twice.charts == 2 * parser.charts, f"{twice.charts} charts of two regimes, {parser.charts} of one")
expect(page.count("<div class=in0>") == page.count("<div class=in1>") > 0 and "id=regime1" in page, "the buttons switch nothing")
colours = {name: set(re.findall(rf'<g class="([^"]*)"><title>{name}:', page)) for name in ("pipe", "mq", "xi", "raw")}
expect(all(len(found) == 1 for found in colours.values()) and len(set(map(str, colours.values()))) == 4, f"colours: {colours}")
expect("What failed" in page and "a &lt;reason&gt;" in page, "what failed is not on the page")
table = open(f"{work}/latency/report.txt", encoding="utf-8").read()
expect("SKIPPED: zeromq" in table and "goals met" in table, "the table does not say what was skipped, or has no goals")
print("\n".join(problems))
print(f"{len(report['benchmarks'])} entries, {parser.charts} charts, {len(problems)} problems")
sys.exit(bool(problems))
END

# Two peers that misbehave, in the places of two that are modules.
misbehave() { # MODULE NAME STATEMENT-IN-RECEIVE
    printf '%s\n' '#include <fcntl.h>' '#include <stdlib.h>' '#include <unistd.h>' '#include "bench/peer.h"' \
        'static int open_(struct bench_pair *p) { (void)p; return 0; }' \
        'static void close_(struct bench_pair *p) { (void)p; }' \
        'static int send_(struct bench_pair *p, const void *m, size_t n) { (void)p; (void)m; (void)n; return 0; }' \
        "static int recv_(struct bench_pair *p, void *r, size_t n, const void **m) { (void)p; (void)r; (void)n; (void)m; $3; return 0; }" \
        "static const struct peer bad = {.name = \"$2\", .what = \"none\", .how = \"badly\", .can = PEER_ROUNDS | PEER_ONE_WAY," \
        '    .open = open_, .close = close_, .send = send_, .recv = recv_};' \
        'const struct peer *const bench_peers[] = {&bad, NULL};' >"$work/bad.c"
    cc -shared -fPIC -I"$XI_SOURCE" -o "$work/bad/$1" "$work/bad.c"
}
mkdir "$work/bad"
misbehave peer_zeromq.so zeromq 'for (;;) pause()' && misbehave peer_nng.so nng 'abort()' || { echo "cannot build peers that misbehave"; exit 1; }
XI_BENCH_MODULES="$work/bad" XI_BENCH_PATIENCE=3 timeout 100 "$bench" latency --peers zeromq,nng,pipe --repeat 1 --seconds 0.002 --quick \
    --json "$work/bad.json" >"$work/bad.out" 2>&1
[ $? -eq 1 ] || { cat "$work/bad.out"; echo "figures failed, and the exit status is not 1"; exit 1; }
python3 - "$work/bad.json" <<'END' || { cat "$work/bad.out"; exit 1; }
import json, sys

with open(sys.argv[1], encoding="utf-8") as file:
    report = json.load(file)
failed = {f["name"]: f["why"] for f in report["context"]["failures"]}
measured = {(e["metric"], e["system"], e["size"]) for e in report["benchmarks"] if e["run_type"] == "aggregate"}
endless = [why for name, why in failed.items() if "/zeromq/" in name]
crashed = [why for name, why in failed.items() if "/nng/" in name]
assert sum("no end after 3 s" in why for why in endless) == 1, f"the peer that hangs: {endless}"
assert len(endless) == 4 and sum("not tried" in why for why in endless) == 3, f"the rest of the peer that hangs: {endless}"
assert len(crashed) == 4 and all("signal 6" in why for why in crashed), f"the peer that crashes: {crashed}"
for metric, size in (("round_trip", "8"), ("round_trip", "64"), ("round_trip", "1024"), ("open_loop_10k", "64")):
    for system in ("xi", "pipe"):
        assert (metric, system, size) in measured, f"{metric}/{system}/{size} is missing"
assert not any("/xi/" in name or "/pipe/" in name for name in failed), failed
END

# Ctrl-C while a peer hangs, which says by a FIFO that it does: it ends at once, and no process and no segment of it stays.
mkfifo "$work/here"
misbehave peer_zeromq.so zeromq "open(\"$work/here\", O_WRONLY); for (;;) pause()"
XI_BENCH_MODULES="$work/bad" XI_LINGER=0 setsid "$bench" latency --peers zeromq --size 64 --seconds 0.002 >"$work/out" 2>&1 &
pid=$!
: <"$work/here"
broker=$(pgrep -f -- "--namespace bench-$pid-")
kill -INT $pid
wait $pid
status=$?
timeout 60 tail --pid="$broker" -f /dev/null # until it has seen that nobody is left
[ $status -eq 130 ] || { cat "$work/out"; echo "interrupted, it ended with status $status instead of 130"; exit 1; }
if pgrep -s $pid || ls /dev/shm | grep -F "bench-$pid-"; then
    echo "interrupted, it left these processes or segments behind"
    exit 1
fi

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
