# SPDX-License-Identifier: MIT
"""Makes a page for people of xi-bench's JSON, and prints the goals.

    report.py FIGURES.json [--html PAGE.html]

The page is one file, with its charts inside: nothing is fetched when it is
opened, and no script runs. A chart shows one regime (two cores, or two threads of
one core) and never both: where figures were taken in both, two buttons at the top
switch all charts; the page opens with the one in which most was measured. The
tables below show both.
"""

import argparse
import json
import statistics
import sys
from html import escape

from charts import PEERS, dots, lines
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
.mine circle { fill:var(--mine); } .mine polyline { stroke:var(--mine); stroke-width:3.5; }
.mine .name, .mine .value { font-weight:700; fill:var(--mine); } .limit circle { fill:var(--limit); }
.limit polyline { stroke:var(--limit); stroke-dasharray:5 4; } .limit .name { font-style:italic; fill:var(--soft); }
polyline { fill:none; stroke-width:1.7; stroke:var(--peer); } .peer circle { fill:var(--peer); }
svg .stem { stroke:var(--rule); stroke-width:2; } .mine .stem { stroke:var(--mine); opacity:.35; }
svg .spread { stroke:var(--soft); stroke-width:3; opacity:.6; }
.regimes { position:sticky; top:0; background:var(--ground); padding:.5rem 0; z-index:1; } .regimes label { border:1px solid
 var(--rule); border-radius:8px; padding:.25rem .8rem; margin-right:.4rem; cursor:pointer; } input[name=regime] {
 position:absolute; opacity:0; } .in0, .in1 { display:none; }
#regime0:checked ~ * .in0, #regime1:checked ~ * .in1 { display:block; }
#regime0:checked ~ .regimes label[for=regime0], #regime1:checked ~ .regimes label[for=regime1] { background:var(--ink);
 color:var(--ground); } input:focus-visible ~ .regimes label { outline:1px dotted var(--soft); }
h3 { font-size:.95rem; margin:1rem 0 .1rem; font-weight:600; }
table { border-collapse:collapse; width:100%; font-size:13px; font-variant-numeric:tabular-nums; }
th, td { text-align:left; padding:.28rem .6rem .28rem 0; border-bottom:1px solid var(--rule); vertical-align:top; }
th { color:var(--soft); font-weight:500; } td.n { text-align:right; white-space:nowrap; }
.met { color:var(--good); font-weight:600; } .missed { color:var(--bad); font-weight:600; } .none { color:var(--soft); }
.tiles { display:flex; flex-wrap:wrap; gap:.8rem; margin:1rem 0; } .tile { border:1px solid var(--rule); border-radius:8px;
 padding:.6rem .9rem; flex:1 1 150px; } .tile b { display:block; font-size:1.35rem; } details { margin:.6rem 0; }
.wide { overflow-x:auto; } .warn { border-left:4px solid var(--bad); padding:.3rem .8rem; }
"""

SIZES = {"8": 8, "24": 24, "64": 64, "1024": 1024, "4KiB": 4096, "64KiB": 1 << 16, "1MiB": 1 << 20, "16MiB": 1 << 24}
# Told apart on white and on black, neighbours of the list most of all.
COLOURS = (
    "#4c6ef5", "#0ca678", "#f08c00", "#7048e8", "#1098ad", "#a0522d", "#74b816", "#b197fc", "#e8590c", "#c92a2a", "#9c36b5", "#2f9e44",
    "#1c7ed6", "#b08900",
)
STYLE += "".join(
    f".hue{i} circle {{ fill:{colour}; }} .hue{i} polyline {{ stroke:{colour}; }} .hue{i} .name {{ fill:{colour}; }}\n" for i, colour in zip(range(len(PEERS)), COLOURS)
)

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
    "select_steady": "Always the same of so many channels, awake",
    "select": "Another of so many channels each time, awake",
    "select_asleep": "One of so many channels, asleep",
    "call": "Requests and replies",
    "python_one_way": "CPython, one way",
    "python_round_trip": "CPython, there and back",
    "python_round_trip_asleep": "CPython, there and back, asleep",
    "python_numpy": "CPython, a numpy array handed over",
    "python_call": "CPython, calls by an executor",
    "idle_calls": "System calls while nothing happens",
    "memory": "Memory",
    "control": "Opening and joining",
    "held": "Held at once",
}

SHORTER = " Further left is faster."
LONGER = " Further right is faster."
LOWER = " Lower is faster."
HIGHER = " Higher is faster."
BYTES_ACROSS = "size of a message, encoded (logarithmic)"
PERCENT_ACROSS = "so many messages were faster than that (as many nines as the axis is long)"

# Each chart: its heading, what to make of it, and what draws it, from a page and a regime.
SECTIONS = [
    (
        "Round trip, 64 bytes, awake",
        "A message there and another back, both sides awake. <i>raw</i> is one cache line bounced between the two "
        "processors: nothing can be faster. The bar behind a dot reaches from the smallest to the largest run." + SHORTER,
        lambda page, regime: page.dot_chart("round_trip", "64", regime),
    ),
    (
        "How late is late: round trips by percentile",
        "Single round trips of 64 bytes. A flat line is a system without hiccups." + LOWER,
        lambda page, regime: page.distribution("round_trip", "64", regime),
    ),
    (
        "Delay at 10,000 messages a second, by percentile",
        "From the moment a message was meant to be sent to its arrival; a pause counts against every message that it "
        "held up." + LOWER,
        lambda page, regime: page.distribution("open_loop_10k", "64", regime),
    ),
    (
        "Wake-up: round trip, both sides asleep",
        "64 bytes there and back, each side asleep in the kernel when its message comes. Most of it is the interrupt."
        " <i>raw</i> is a word with futex(2) and no message." + SHORTER,
        lambda page, regime: page.dot_chart("round_trip_asleep", "64", regime),
    ),
    (
        "Throughput over size",
        "Messages a second one way, one call each. <i>ring</i>: the textbook ring of one producer and one consumer." + HIGHER,
        lambda page, regime: page.over_size("one_way", page.rate, "/s", "messages a second (logarithmic)", regime),
    ),
    (
        "Throughput in batches of 16",
        "Systems that have batches, sixteen messages a call." + HIGHER,
        lambda page, regime: page.over_size("one_way_batch16", page.rate, "/s", "messages a second (logarithmic)", regime),
    ),
    (
        "Copies over size",
        "Bytes a second from private memory of one process to private memory of the other; <i>memcpy</i> is two "
        "copies through shared memory with nothing around them." + HIGHER,
        lambda page, regime: page.over_size("copy", page.bandwidth, "B/s", "bytes a second (logarithmic)", regime),
    ),
    (
        "Hand-over in place over size",
        "A large message written in shared memory and read there, half of a round trip. The cost should not depend on the size: "
        "a flat line. <i>raw</i>: half of a cache line’s round trip." + LOWER,
        lambda page, regime: page.over_size("handoff", number, "ns", "time (logarithmic)", regime),
    ),
    (
        "Scaling: producers + consumers on one channel",
        "Time for one value of 24 bytes, all producers and consumers together. Beyond two processes they share two "
        "processors." + SHORTER,
        lambda page, regime: page.scale_chart(regime),
    ),
    (
        "Scaling: groups",
        "Time of one value in one group when so many groups each get every value." + LOWER,
        lambda page, regime: page.over_count(["groups"], "groups (logarithmic)", regime),
    ),
    (
        "Scaling: waiting on many channels",
        "Round trip when one of so many channels has something: always the same one (steady), or another each time." + LOWER,
        lambda page, regime: page.over_count(["select_steady", "select"], "channels waited for (logarithmic)", regime),
    ),
    (
        "Scaling: waiting on many channels, asleep",
        "The same when both sides sleep each time; <i>pipes</i>: epoll_wait(2) on so many pipes." + LOWER,
        lambda page, regime: page.over_count(["select_asleep"], "channels waited for (logarithmic)", regime),
    ),
    (
        "Requests and replies",
        "A request and its reply. <i>xi_two</i>: the same over two channels." + SHORTER,
        lambda page, regime: page.each_size("call", number, "ns", regime),
    ),
    (
        "CPython: one way",
        "Python objects from one process to another, objects a second. <i>xi_queue</i> is xidata.queues.Queue." + LONGER,
        lambda page, regime: page.each_size("python_one_way", page.rate, "/s", regime),
    ),
    (
        "CPython: there and back",
        "An object and its answer, both sides awake." + SHORTER,
        lambda page, regime: page.each_size("python_round_trip", number, "ns", regime),
    ),
    (
        "CPython: there and back, asleep",
        "Every reply comes after its receiver has gone to sleep." + SHORTER,
        lambda page, regime: page.each_size("python_round_trip_asleep", number, "ns", regime),
    ),
    (
        "CPython: a call and its result",
        "submit() to an executor of one worker, and result() of its future, one after another. <i>xi_pool</i> is "
        "xidata.InterpreterPoolExecutor." + SHORTER,
        lambda page, regime: page.each_size("python_call", number, "ns", regime),
    ),
    (
        "CPython: a 16 MiB numpy array",
        "An array handed over, one way: half of a round trip whose way back is a small int." + SHORTER,
        lambda page, regime: page.each_size("python_numpy", number, "ns", regime),
    ),
]
NOTHING = "<p class=none>not measured</p>"


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
        self.regimes = [self.regime] + [r for r in self.figures.all_regimes() if r != self.regime]
        self.goals = goals(self.figures)

    # ---- charts

    @staticmethod
    def rate(entry):
        return 1e9 / number(entry)

    @staticmethod
    def bandwidth(entry):
        return entry["bytes"] / number(entry) * 1e9

    def entries(self, metric, size, regime):
        """(system, entry) in one regime."""
        pairs = ((s, self.figures.get(metric, s, size, regime)) for s in self.figures.systems(metric))
        return [(system, entry) for system, entry in pairs if entry]

    def elsewhere(self, metric, size, regime):
        """A line that names what this chart lacks because it was measured in the other regime alone."""
        missing = [
            system
            for system in self.figures.systems(metric)
            if self.figures.regimes(metric, system, size) and not self.figures.get(metric, system, size, regime)
        ]
        return f"<p class=none>Measured in the other regime alone: {escape(', '.join(missing))}</p>" if missing else ""

    def dot_chart(self, metric, size, regime, value=number, unit="ns"):
        found = sorted(self.entries(metric, size, regime), key=lambda pair: number(pair[1]))
        values = {system: value(entry) for system, entry in found}
        spread = (lambda e: (e["min"], e["max"])) if value is number else (lambda e: (1e9 / e["max"], 1e9 / e["min"]))
        mine = [values[system] for system in values if system in MINE]
        ours = values.get("xi", mine[0] if mine else None)
        return dots([(s, values[s], spread(e)) for s, e in found], unit, MINE, LIMITS, ours) + self.elsewhere(metric, size, regime)

    def each_size(self, metric, value, unit, regime):
        """A chart for each size, or each kind of object and interpreter."""
        parts = []
        for size in self.figures.sizes(metric):
            heading = size.replace("@", ", ") if "@" in size or not size.isdigit() else f"{size} B"
            if self.entries(metric, size, regime):
                parts.append(f"<h3>{escape(heading)}</h3>{self.dot_chart(metric, size, regime, value, unit)}")
        return "".join(parts) or NOTHING

    def over_size(self, metric, value, unit, up, regime):
        series, ticks = {}, {}
        for system in self.figures.systems(metric):
            for label in self.figures.sizes(metric, system):
                entry = self.figures.get(metric, system, label, regime)
                if entry and label in SIZES:
                    series.setdefault(system, []).append((SIZES[label], value(entry)))
                    ticks[SIZES[label]] = label if label[-1] == "B" else f"{label} B"
        if metric == "handoff" and "raw" in series:  # one figure that holds for all sizes
            level = series["raw"][0][1]
            series["raw"] = [(at, level) for at in ticks]
        return lines(series, unit, sorted(ticks.items()), MINE, LIMITS, across=BYTES_ACROSS, up=up) if ticks else NOTHING

    def over_count(self, metrics, across, regime):
        """Over how many there are of something: sizes that begin with a number."""
        series, ticks, raw = {}, {}, []
        for metric in metrics:
            for system in self.figures.systems(metric):
                name = f"{system} steady" if metric.endswith("_steady") else system
                for label in self.figures.sizes(metric, system):
                    entry, count = self.figures.get(metric, system, label, regime), label.split("_")[0]
                    if entry and system == "raw":
                        raw.append(number(entry))
                    elif entry and count.isdigit():
                        series.setdefault(name, []).append((int(count), number(entry)))
                        ticks[int(count)] = count
        if raw and ticks:  # does not depend on how many there are
            series["raw"] = [(at, statistics.median(raw)) for at in ticks]
        return lines(series, "ns", sorted(ticks.items()), MINE, LIMITS, height=320, across=across, up="time (logarithmic)") if ticks else NOTHING

    def distribution(self, metric, size, regime):
        """Percentiles: the axis is the number of nines."""
        series = {}
        places = {50: 0.3, 90: 1, 99: 2, 99.9: 3, 99.99: 4}
        for system, entry in self.entries(metric, size, regime):
            curve = {percent: ns for percent, ns in entry.get("curve", []) if percent in places and ns > 0}
            if curve:
                series[system] = [(places[percent], ns) for percent, ns in curve.items()]
        ticks = [(at, f"{percent} %") for percent, at in places.items()]
        chart = lines(series, "ns", ticks, MINE, LIMITS, x_log=False, height=440, across=PERCENT_ACROSS, up="time (logarithmic)")
        return chart + self.elsewhere(metric, size, regime)

    def scale_chart(self, regime):
        items = []
        for system in self.figures.systems("scale"):
            for label in self.figures.sizes("scale", system):
                entry = self.figures.get("scale", system, label, regime)
                if entry:
                    items.append((f"{system} {label}", number(entry), (entry["min"], entry["max"])))
        return dots(items, "ns", MINE, LIMITS)

    # ---- parts

    def head(self):
        c = self.context
        mhz = f" at {c['mhz_per_cpu'] / 1000:.2g} GHz" if c.get("mhz_per_cpu") else ""
        where = f", the sides pinned to {c['cpus'][0]} and {c['cpus'][1]}" if c.get("cpus") else ", nobody pinned"
        raw = [e["raw_round_trip"] for found in self.figures.entries.values() for r, e in found.items() if r == self.regime and e["raw_round_trip"]]
        text = [
            "<h1>xidata beside its peers</h1>",
            f"<p class=soft>xidata {escape(c['xidata_version'])}, {escape(c['date'])}. {escape(c['cpu_model'])}{mhz}, ",
            f"{escape(c['kernel'])}, {c['num_cpus']} processors{where}. Medians of {c['repetitions']} runs, all systems in turn, ",
            f"in one run of one program. A cache line there and back took {time_text(statistics.median(raw)) if raw else 'not measured'} ",
            f"on {escape(self.regime)}, where most was measured; {c['mixed_runs_discarded']} runs during which that changed were made "
            "again.</p>",
        ]
        if c.get("quick"):
            text.append("<p class=warn>A quick run: to see that everything works, too short to quote.</p>")
        if (c.get("load_avg") or [0])[0] > 0.5:
            text.append(
                f"<p class=warn>Others were at work (load average {c['load_avg'][0]:.1f} at the start): the figures are "
                "worse than this machine's, and differ from run to run.</p>"
            )
        return "".join(text)

    def switch(self):
        """The buttons and what they switch by: the style sheet shows what belongs to the one that is checked."""
        inputs = "".join(
            f"<input type=radio name=regime id=regime{i} aria-label='{escape(r)}'{' checked' if i == 0 else ''}>" for i, r in enumerate(self.regimes)
        )
        labels = "".join(f"<label for=regime{i}>{escape(r)}</label>" for i, r in enumerate(self.regimes))
        told = "" if len(self.regimes) > 1 else " (nothing was measured in another regime)"
        return f"{inputs}<div class=regimes><span class=soft>Charts of </span>{labels}<span class=soft>{told}</span></div>"

    def tiles(self):
        f, tiles = self.figures, []

        def tile(title, key, show, limit, limit_name):
            entry, least = f.get(*key, self.regime), f.get(*limit, self.regime)
            if entry:
                note = f"{number(entry) / number(least):.2f}× {limit_name}" if least else ""
                tiles.append(f"<div class=tile>{escape(title)}<b>{show(entry)}</b><span class=soft>{escape(note)}</span></div>")

        raw, futex = ("round_trip", "raw", "64"), ("round_trip_asleep", "futex", "64")
        tile("64 B there and back", ("round_trip", "xi", "64"), lambda e: time_text(number(e)), raw, "a cache line’s")
        tile("the same, both asleep", ("round_trip_asleep", "xi", "64"), lambda e: time_text(number(e)), futex, "futex(2)")
        tile("8 B one way", ("one_way", "xi", "8"), lambda e: rate_text(1e9 / number(e)), ("one_way", "ring", "8"), "the textbook ring’s time")
        tile("16 MiB in place", ("handoff", "xi", "16MiB"), lambda e: time_text(number(e)), ("handoff", "xi", "64"), "that of 64 B")
        met = sum(1 for g in self.goals if g.met)
        known = sum(1 for g in self.goals if g.met is not None)
        tiles.append(
            f"<div class=tile><a href='#goals'>goals</a> met<b>{met} of {known}</b><span class=soft>{len(self.goals) - known} not "
            "measured</span></div>"
        )
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
        parts = []
        for title, text, draw in SECTIONS:
            drawn = [draw(self, regime) for regime in self.regimes]
            if any("<svg" in chart for chart in drawn):
                drawn = [chart if "<svg" in chart else "<p class=none>Measured in the other regime alone.</p>" for chart in drawn]
            charts = "".join(f"<div class=in{i}>{chart}</div>" for i, chart in enumerate(drawn))
            parts.append(f"<section><h2>{escape(title)}</h2><p class=soft>{text}</p>{charts}</section>")
        return "".join(parts)

    def failures(self):
        failed = self.context.get("failures", [])
        rows = "".join(f"<tr><td>{escape(f['name'])}<td>{escape(f['why'])}" for f in failed)
        return f"<h2>What failed</h2><table><tr><th>figure<th>why{rows}</table>" if failed else ""

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

    def around(self):
        """By name: medians of the raw round trips before and after a figure's runs."""
        runs = {}
        for entry in self.report["benchmarks"]:
            if entry["run_type"] == "iteration":
                runs.setdefault(entry["name"], []).append((entry["raw_round_trip_before"], entry["raw_round_trip_after"]))
        return {name: [statistics.median(side) for side in zip(*both)] for name, both in runs.items()}

    def tables(self):
        out, around = ["<h2>All figures</h2>"], self.around()
        for metric in self.figures.order:
            rows = []
            for system in self.figures.systems(metric):
                for label in self.figures.sizes(metric, system):
                    for regime, entry in self.figures.regimes(metric, system, label).items():
                        ratio = f"{entry['ratio_to_limit']:.2f}" if "ratio_to_limit" in entry else ""
                        tail = "".join(f"<td class=n>{time_text(entry[k]) if k in entry else ''}" for k in ("p50", "p99", "p99_9"))
                        cells = "".join(f"<td class=n>{shown(entry, v)}" for v in (number(entry), entry["min"], entry["max"]))
                        raw = " – ".join(f"{ns:.0f}" for ns in around.get(entry["name"], ()))
                        rows.append(
                            f"<tr><td>{escape(label)}<td>{escape(system)}{cells}<td class=n>{ratio}{tail}<td class=n>{raw}<td>{escape(regime)}"
                        )
            head = (
                "<tr><th>size<th>system<th>median<th>min<th>max<th>× limit<th>p50<th>p99<th>p99.9<th>raw round trip, ns, before – after"
                "<th>regime"
            )
            title = escape(METRICS.get(metric, metric))
            out.append(f"<details><summary>{title} <code>{metric}</code></summary><div class=wide><table>{head}{''.join(rows)}</table></div></details>")
        return "".join(out)

    def html(self):
        after = self.goal_table() + self.peer_table() + self.failures() + self.tables()
        body = f"{self.head()}{self.tiles()}{self.switch()}<main>{self.chart_sections()}</main>{after}"
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
