# SPDX-License-Identifier: MIT
"""Makes a page for people of xi-bench's JSON, and prints the goals.

    report.py FIGURES.json [--html PAGE.html]

The page is one file, with its charts inside: nothing is fetched when it is
opened. Every chart shows one regime (two cores, or two threads of one core), the
one in which most was measured; the tables below show both.
"""

import argparse
import json
import sys
from html import escape

from charts import bars, lines
from goals import LIMITS, MINE, Figures, bytes_text, goals, number, rate_text, table, time_text

STYLE = """
:root { --ground:#fff; --ink:#1c2430; --soft:#5f6b7a; --rule:#e3e7ec; --mine:#d6336c; --limit:#8d98a7; --peer:#4c6ef5;
 --good:#2b8a3e; --bad:#c92a2a; }
@media (prefers-color-scheme: dark) { :root { --ground:#14181f; --ink:#e6eaf0; --soft:#98a3b3; --rule:#2a313c;
 --mine:#ff6b9d; --limit:#75808f; --peer:#748ffc; --good:#69db7c; --bad:#ff8787; } }
body { background:var(--ground); color:var(--ink); font:15px/1.5 system-ui,sans-serif; max-width:900px; margin:2rem auto;
 padding:0 1rem; }
h1 { font-size:1.6rem; margin-bottom:.2rem; } h2 { font-size:1.15rem; margin:2.4rem 0 .2rem; }
p { margin:.3rem 0 .8rem; } .soft, caption { color:var(--soft); } svg { width:100%; height:auto; }
svg text { font:12px system-ui,sans-serif; fill:var(--ink); } svg .axis { fill:var(--soft); font-size:11px; }
svg .grid { stroke:var(--rule); } svg .value { fill:var(--soft); } svg .lead { stroke:var(--rule); }
.mine rect, .mine circle { fill:var(--mine); } .mine polyline { stroke:var(--mine); stroke-width:3; }
.mine .name { font-weight:700; fill:var(--mine); } .limit rect, .limit circle { fill:var(--limit); }
.limit polyline { stroke:var(--limit); stroke-dasharray:5 4; } .peer rect, .peer circle { fill:var(--peer); opacity:.75; }
polyline { fill:none; stroke-width:1.7; stroke:var(--peer); } svg .spread { stroke:var(--ink); opacity:.55; }
.hue1 polyline, .hue1 circle { stroke:#0ca678; fill:none; } .hue2 polyline, .hue2 circle { stroke:#f08c00; fill:none; }
.hue3 polyline, .hue3 circle { stroke:#7048e8; fill:none; } .hue4 polyline, .hue4 circle { stroke:#1098ad; fill:none; }
.hue5 polyline, .hue5 circle { stroke:#a0522d; fill:none; } .hue6 polyline, .hue6 circle { stroke:#74b816; fill:none; }
.hue7 polyline, .hue7 circle { stroke:#868e96; fill:none; }
table { border-collapse:collapse; width:100%; font-size:13px; font-variant-numeric:tabular-nums; }
th, td { text-align:left; padding:.28rem .6rem .28rem 0; border-bottom:1px solid var(--rule); vertical-align:top; }
th { color:var(--soft); font-weight:500; } td.n { text-align:right; white-space:nowrap; }
.met { color:var(--good); font-weight:600; } .missed { color:var(--bad); font-weight:600; } .none { color:var(--soft); }
.tiles { display:flex; flex-wrap:wrap; gap:.8rem; margin:1rem 0; } .tile { border:1px solid var(--rule); border-radius:8px;
 padding:.6rem .9rem; flex:1 1 150px; } .tile b { display:block; font-size:1.35rem; } details { margin:.6rem 0; }
.wide { overflow-x:auto; } .warn { border-left:4px solid var(--bad); padding:.3rem .8rem; }
"""

SIZES = {"8": 8, "24": 24, "64": 64, "1024": 1024, "4KiB": 4096, "64KiB": 1 << 16, "1MiB": 1 << 20, "16MiB": 1 << 24}
METRICS = {
    "round_trip": "Round trips, both sides awake",
    "round_trip_asleep": "Round trips, both sides asleep each time",
    "open_loop_10k": "Delay at 10,000 messages a second",
    "open_loop_100k": "Delay at 100,000 messages a second",
    "open_loop_1m": "Delay at 1,000,000 messages a second",
    "one_way": "One way, one call a message",
    "one_way_batch16": "One way, sixteen a call",
    "copy": "Large messages, private memory to private memory",
    "handoff": "Large messages in place",
    "scale": "Producers + consumers on one channel",
    "groups": "A value in one of so many groups",
    "acknowledged": "Values that are acknowledged",
    "select": "One of so many channels, awake",
    "select_asleep": "One of so many channels, asleep",
    "call": "Requests and replies",
    "python_one_way": "CPython, one way",
    "python_round_trip": "CPython, there and back",
    "python_round_trip_asleep": "CPython, there and back, asleep",
    "python_numpy": "CPython, a numpy array handed over",
    "idle_calls": "System calls while nothing happens",
    "memory": "Memory",
    "control": "Opening and joining",
    "held": "Held at once",
}

# What stands above each chart: its heading, and what to make of it.
SECTIONS = [
    (
        "Round trip, 64 bytes, awake",
        "A message there and another back, both sides awake. <i>raw</i> is one cache line bounced between the two "
        "processors: nothing can be faster. The line in a bar reaches from the smallest to the largest run.",
    ),
    (
        "How late is late: round trips by percentile",
        "Single round trips of 64 bytes. A flat line is a system without hiccups.",
    ),
    (
        "Delay at 10,000 messages a second, by percentile",
        "From the moment a message was meant to be sent to its arrival; a pause counts against every message that it "
        "held up.",
    ),
    (
        "Wake-up: round trip, both sides asleep",
        "64 bytes there and back, each side asleep in the kernel when its message comes. Most of it is the interrupt."
        " <i>raw</i> is a word with futex(2) and no message.",
    ),
    (
        "Throughput over size",
        "Messages a second one way, one call each.",
    ),
    (
        "Throughput in batches of 16",
        "Peers that have batches.",
    ),
    (
        "Copies over size",
        "Bytes a second from private memory of one process to private memory of the other; <i>memcpy</i> is two "
        "copies through shared memory with nothing around them.",
    ),
    (
        "Hand-over in place over size",
        "A large message written in shared memory and read there. The cost should not depend on the size.",
    ),
    (
        "Scaling: producers + consumers on one channel",
        "Time for one value of 24 bytes, all producers and consumers together. Beyond two processes they share two "
        "processors.",
    ),
    (
        "Scaling: groups",
        "Time of one value in one group when so many groups each get every value.",
    ),
    (
        "Scaling: waiting on many channels",
        "Round trip when one of so many channels has something.",
    ),
    (
        "CPython: one way",
        "Python objects from one process to another, objects a second.",
    ),
    (
        "CPython: there and back",
        "Awake.",
    ),
    (
        "CPython: there and back, asleep",
        "Every reply comes after its receiver has gone to sleep.",
    ),
    (
        "CPython: a 16 MiB numpy array",
        "An array handed over, one way: half of a round trip whose way back is a small int.",
    ),
]


def shown(entry, value):
    if "unit" in entry:
        return bytes_text(value) if entry["unit"] == "B" else f"{value:,.3g} {entry['unit']}"
    return time_text(value)


class Page:
    def __init__(self, report):
        self.report = report
        self.context = report["context"]
        self.figures = Figures(report)
        self.regime = self.figures.main_regime()
        self.goals = goals(self.figures)

    # ---- charts

    def entries(self, metric, size):
        """(system, entry) in the page's regime."""
        pairs = ((s, self.figures.get(metric, s, size, self.regime)) for s in self.figures.systems(metric))
        return [(system, entry) for system, entry in pairs if entry]

    def bar_chart(self, metric, size):
        found = sorted(self.entries(metric, size), key=lambda pair: number(pair[1]))
        return bars([(s, number(e), (e["min"], e["max"])) for s, e in found], "ns", MINE, LIMITS)

    def over_size(self, metric, value, unit):
        series, ticks = {}, {}
        for system in self.figures.systems(metric):
            for label in self.figures.sizes(metric, system):
                entry = self.figures.get(metric, system, label, self.regime)
                if entry and label in SIZES:
                    series.setdefault(system, []).append((SIZES[label], value(entry)))
                    ticks[SIZES[label]] = label if label[-1] == "B" else f"{label} B"
        if metric == "handoff" and "raw" in series:  # one figure that holds for all sizes
            level = series["raw"][0][1]
            series["raw"] = [(at, level) for at in ticks]
        return lines(series, unit, sorted(ticks.items()), MINE, LIMITS) if ticks else "<p class=none>not measured</p>"

    def over_count(self, metric, unit="ns"):
        series, ticks = {}, {}
        for system in self.figures.systems(metric):
            for label in self.figures.sizes(metric, system):
                entry = self.figures.get(metric, system, label, self.regime)
                if entry and label.isdigit():
                    series.setdefault(system, []).append((int(label), number(entry)))
                    ticks[int(label)] = label
        return lines(series, unit, sorted(ticks.items()), MINE, LIMITS, height=280) if ticks else "<p class=none>not measured</p>"

    def distribution(self, metric, size):
        """Percentiles: the axis is the number of nines."""
        series = {}
        places = {50: 0.3, 90: 1, 99: 2, 99.9: 3, 99.99: 4}
        for system, entry in self.entries(metric, size):
            curve = {percent: ns for percent, ns in entry.get("curve", []) if percent in places and ns > 0}
            if curve:
                series[system] = [(places[percent], ns) for percent, ns in curve.items()]
        ticks = [(at, f"{percent} %") for percent, at in places.items()]
        return lines(series, "ns", ticks, MINE, LIMITS, x_log=False, height=420)

    # ---- parts

    def head(self):
        c = self.context
        text = [
            "<h1>xidata beside its peers</h1>",
            f"<p class=soft>xidata {escape(c['xidata_version'])}, {escape(c['date'])}; {escape(c['cpu_model'])}, ",
            f"{escape(c['kernel'])}, {c['num_cpus']} processors; medians of {c['repetitions']} runs, all systems in turn. ",
            f"Charts show figures taken on <b>{escape(self.regime)}</b>.</p>",
        ]
        if c.get("quick"):
            text.append("<p class=warn>A quick run: to see that everything works, too short to quote.</p>")
        if (c.get("load_avg") or [0])[0] > 0.5:
            text.append(
                f"<p class=warn>Others were at work (load average {c['load_avg'][0]:.1f} at the start): the figures are "
                "worse than this machine's.</p>"
            )
        return "".join(text)

    def tiles(self):
        f, tiles = self.figures, []

        def tile(title, entry, show, note):
            if entry:
                tiles.append(f"<div class=tile>{escape(title)}<b>{show(entry)}</b><span class=soft>{escape(note)}</span></div>")

        tile("64 B there and back", f.get("round_trip", "xi", "64", self.regime), lambda e: time_text(number(e)), "both awake")
        tile("the same, asleep", f.get("round_trip_asleep", "xi", "64", self.regime), lambda e: time_text(number(e)), "both sleep each time")
        tile("8 B one way", f.get("one_way", "xi", "8", self.regime), lambda e: rate_text(1e9 / number(e)), "one call each")
        tile("16 MiB in place", f.get("handoff", "xi", "16MiB", self.regime), lambda e: time_text(number(e)), "one way, no copy")
        met = sum(1 for g in self.goals if g.met)
        known = sum(1 for g in self.goals if g.met is not None)
        tiles.append(f"<div class=tile>goals met<b>{met} of {known}</b><span class=soft>{len(self.goals) - known} not measured</span></div>")
        return f"<div class=tiles>{''.join(tiles)}</div>"

    def goal_table(self):
        rows = []
        for g in self.goals:
            verdict = {None: "<td class=none>not measured", True: "<td class=met>met", False: "<td class=missed>not met"}[g.met]
            ratio = "" if g.ratio is None else f"{g.ratio:.2f}"
            figure = escape(g.figure) if g.ratio is not None else ""
            note = f" <span class=soft>({escape(g.note)})</span>" if g.note and g.note != self.regime else ""
            rows.append(f"<tr><td>{escape(g.what)}<td>{escape(g.goal)}<td>{figure}{note}<td class=n>{ratio}{verdict}")
        return (
            "<h2 id=goals>Goals</h2><p class=soft>The last number is the figure in multiples of what the goal allows: 1 and less "
            "is met.</p><div class=wide><table><tr><th>what<th>goal<th>figure<th>of goal<th>" + "".join(rows) + "</table></div>"
        )

    def chart_sections(self):
        def gb(entry):
            return entry["bytes"] / number(entry) * 1e9

        def rate(entry):
            return 1e9 / number(entry)

        charts = [
            self.bar_chart("round_trip", "64"),
            self.distribution("round_trip", "64"),
            self.distribution("open_loop_10k", "64"),
            self.bar_chart("round_trip_asleep", "64"),
            self.over_size("one_way", rate, "/s"),
            self.over_size("one_way_batch16", rate, "/s"),
            self.over_size("copy", gb, "B/s"),
            self.over_size("handoff", number, "ns"),
            self.scale_chart(),
            self.over_count("groups"),
            self.over_count("select"),
            self.python_chart("python_one_way", rate, "/s"),
            self.python_chart("python_round_trip", number, "ns"),
            self.python_chart("python_round_trip_asleep", number, "ns"),
            self.python_chart("python_numpy", number, "ns"),
        ]
        parts = (f"<h2>{escape(title)}</h2><p class=soft>{text}</p>{chart}" for (title, text), chart in zip(SECTIONS, charts))
        return "".join(parts)

    def scale_chart(self):
        items = []
        for system in self.figures.systems("scale"):
            for label in self.figures.sizes("scale", system):
                entry = self.figures.get("scale", system, label, self.regime)
                if entry:
                    items.append((f"{system} {label}", number(entry), (entry["min"], entry["max"])))
        return bars(items, "ns", {label for label, _, _ in items if label.startswith("xi ")})

    def python_chart(self, metric, value, unit):
        items = []
        for label in self.figures.sizes(metric):
            found = [(s, e) for s, e in self.entries(metric, label)]
            for system, entry in sorted(found, key=lambda pair: number(pair[1])):
                items.append((f"{label}: {system}", value(entry), None))
        return bars(items, unit, {label for label, _, _ in items if label.split(": ")[1] in MINE})

    def peer_table(self):
        rows = []
        for p in self.context.get("peers", []):
            how = f"<span class=missed>skipped</span>: {escape(p['skipped'])}" if p["skipped"] else escape(p["how"])
            rows.append(f"<tr><td>{escape(p['name'])}<td>{escape(p['what'])}<td>{how}")
        method = (
            "Two processes, each pinned to a processor of its own; peers with threads of their own may use both processors for "
            "those. Every message carries its number, which the receiver checks. Peers use their defaults, but for what is said "
            "here. Before and after each run the two processes bounce a cache line; runs during which that changed between two "
            "cores and two threads of one core were made again, and figures of both kinds are never averaged."
        )
        return f"<h2>How each is used</h2><p class=soft>{method}</p><table><tr><th>name<th>what<th>how{''.join(rows)}</table>"

    def tables(self):
        out = ["<h2>All figures</h2>"]
        for metric in self.figures.order:
            rows = []
            for system in self.figures.systems(metric):
                for label in self.figures.sizes(metric, system):
                    for regime, entry in self.figures.regimes(metric, system, label).items():
                        ratio = f"{entry['ratio_to_limit']:.2f}" if "ratio_to_limit" in entry else ""
                        tail = "".join(f"<td class=n>{time_text(entry[k]) if k in entry else ''}" for k in ("p50", "p99", "p99_9"))
                        cells = "".join(f"<td class=n>{shown(entry, v)}" for v in (number(entry), entry["min"], entry["max"]))
                        rows.append(f"<tr><td>{escape(label)}<td>{escape(system)}{cells}<td class=n>{ratio}{tail}<td>{escape(regime)}")
            head = "<tr><th>size<th>system<th>median<th>min<th>max<th>× limit<th>p50<th>p99<th>p99.9<th>regime"
            title = escape(METRICS.get(metric, metric))
            out.append(f"<details><summary>{title} <code>{metric}</code></summary><div class=wide><table>{head}{''.join(rows)}</table></div></details>")
        return "".join(out)

    def html(self):
        body = self.head() + self.tiles() + self.goal_table() + self.chart_sections() + self.peer_table() + self.tables()
        return f"<!doctype html><html lang=en><meta charset=utf-8><title>xidata benchmark</title><style>{STYLE}</style><body>{body}</body></html>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures")
    parser.add_argument("--html", help="write the page there")
    options = parser.parse_args()
    with open(options.figures, encoding="utf-8") as file:
        page = Page(json.load(file))
    if options.html:
        with open(options.html, "w", encoding="utf-8") as file:
            file.write(page.html())
    print(table(page.goals))
    met = sum(1 for goal in page.goals if goal.met)
    known = sum(1 for goal in page.goals if goal.met is not None)
    print(f"\n{met} of {known} goals met, {len(page.goals) - known} not measured")
    return 0


if __name__ == "__main__":
    sys.exit(main())
