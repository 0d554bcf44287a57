# SPDX-License-Identifier: MIT
"""Charts as inline SVG: dots on one logarithmic axis, and lines on two.

No script and no network: whoever opens the page sees everything, and a title on
each mark says its number. A system has one colour throughout the page: this
library's own is the one that stands out, limits are grey and dashed, and each
peer has its place in PEERS; those of a page's style sheet follow its light and
dark.
"""

import math
from html import escape

WIDTH = 860

# A peer keeps its colour, whichever others were measured: its place here is the number of its class in the style sheet.
PEERS = (
    "pipe", "unix", "seqpacket", "mq", "boost", "zeromq", "nng", "mpich", "openmpi", "redis", "nats", "iceoryx", "iceoryx2",
    "aeron",
)
SAME = {  # beside which of them what is measured in Python stands
    "Pipe": "pipe", "SimpleQueue": "unix", "Queue": "mq", "JoinableQueue": "boost", "pyzmq": "zeromq",
    "concurrent.interpreters.Queue": "redis", "_interpqueues": "nats", "ProcessPoolExecutor": "seqpacket",
    "InterpreterPoolExecutor": "iceoryx", "pipes": "pipe",
}


def nice(value, unit):
    """A number as an axis says it."""
    if unit == "ns":
        for name, factor in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
            if value >= factor:
                return f"{value / factor:.3g} {name}"
        return f"{value:.3g} ns"
    if unit == "B":
        for name, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value >= factor:
                return f"{value / factor:.3g} {name}"
        return f"{value:.3g} B"
    for name, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {name}{unit}"
    return f"{value:.3g} {unit}"


def decades(low, high):
    """Whole powers of ten around both."""
    return math.floor(math.log10(low)), max(math.floor(math.log10(low)) + 1, math.ceil(math.log10(high)))


def css_class(system, mine, limits):
    """What the style sheet knows it by; `system` may have a label before its name ("int: pipe")."""
    name = system.split(": ")[-1].split(" ")[0]
    if system in mine or name in mine:
        return "mine"
    if name in limits:
        return "limit"
    peer = SAME.get(name, name)
    return f"peer hue{PEERS.index(peer)}" if peer in PEERS else "peer"


def faster_by(value, ours, unit):
    """How many times faster this library is; less than one: it is slower."""
    times = value / ours if unit == "ns" else ours / value
    return f"{times:.2g}×" if times < 10 else f"{times:,.0f}×"


def dots(items, unit, mine=(), limits=(), ours=None):
    """One row for each of `items`, (label, value, spread or None), in the order given: a dot on a logarithmic axis, its value,
    and how many times faster `ours` is. A length would mean nothing on such an axis, so there is but a thin line to find the name by."""
    items = [item for item in items if item[1] and item[1] > 0]
    if not items:
        return "<p class=none>not measured</p>"
    left, right, row, top = 210, 165, 22, 24
    low, high = decades(min((s or (v,))[0] or v for _, v, s in items) * 0.9, max((s or (v, v))[1] for _, v, s in items))
    span = WIDTH - left - right
    height = top + row * len(items) + 6

    def x(value):
        return left + span * (math.log10(value) - low) / (high - low)

    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img">']
    for decade in range(low, high + 1):
        at = x(10**decade)
        out.append(f'<line class=grid x1="{at:.1f}" x2="{at:.1f}" y1="{top - 4}" y2="{height}"/>')
        out.append(f'<text class=axis x="{at:.1f}" y="{top - 10}" text-anchor=middle>{nice(10**decade, unit)}</text>')
    if ours:
        out.append(f'<text class=axis x="{WIDTH - 8}" y="{top - 10}" text-anchor=end>xidata is faster</text>')
    for i, (label, value, spread) in enumerate(items):
        y, kind = top + i * row, css_class(label, mine, limits)
        middle = y + row / 2 - 0.5
        title = f"{label}: {nice(value, unit)}"
        if spread and spread[1] > spread[0]:
            title += f", from {nice(spread[0], unit)} to {nice(spread[1], unit)}"
        out.append(f'<g class="{kind}"><title>{escape(title)}</title>')
        out.append(f'<text class=name x="{left - 10}" y="{y + 15}" text-anchor=end>{escape(label)}</text>')
        out.append(f'<line class=stem x1="{left}" x2="{x(value):.1f}" y1="{middle}" y2="{middle}"/>')
        end = x(value)
        if spread and spread[1] > spread[0] > 0:
            a, end = max(left, x(spread[0])), max(end, x(spread[1]))
            out.append(f'<line class=spread x1="{a:.1f}" x2="{x(spread[1]):.1f}" y1="{middle}" y2="{middle}"/>')
        out.append(f'<circle cx="{x(value):.1f}" cy="{middle}" r="{6.5 if kind == "mine" else 5}"/>')
        out.append(f'<text class=value x="{end + 11:.1f}" y="{y + 15}">{nice(value, unit)}</text>')
        if ours and kind != "mine":
            out.append(f'<text class=axis x="{WIDTH - 8}" y="{y + 15}" text-anchor=end>{faster_by(value, ours, unit)}</text>')
        out.append("</g>")
    out.append("</svg>")
    return "".join(out)


def spread_labels(wanted, low, high, gap):
    """Moves labels apart that would lie over each other; `wanted` is [(y, name)], sorted."""
    placed = []
    for y, name in sorted(wanted):
        placed.append([max(y, placed[-1][0] + gap if placed else low), name])
    for i in range(len(placed) - 1, -1, -1):
        limit = high if i == len(placed) - 1 else placed[i + 1][0] - gap
        placed[i][0] = min(placed[i][0], limit)
    return {name: y for y, name in placed}


def lines(series, unit, ticks, mine=(), limits=(), x_log=True, height=400, across="", up=""):
    """Lines: `series` is {name: [(x, y)]}; `ticks` is [(x, text)]; `across` and `up` say what the axes are. Names stand at the
    ends of their lines."""
    series = {name: sorted(points) for name, points in series.items() if points}
    points = [point for line in series.values() for point in line if point[1] > 0]
    if not points:
        return "<p class=none>not measured</p>"
    left, right, top, bottom = 76, 170, 30, 46
    span_x, span_y = WIDTH - left - right, height - top - bottom
    low, high = decades(min(y for _, y in points), max(y for _, y in points))
    first, last = min(x for x, _ in ticks), max(x for x, _ in ticks)

    def place_x(value):
        if x_log:
            value, a, b = math.log(value), math.log(first), math.log(last)
        else:
            a, b = first, last
        return left + span_x * (value - a) / ((b - a) or 1)

    def place_y(value):
        return top + span_y * (1 - (math.log10(value) - low) / (high - low))

    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img">']
    out.append(f'<text class=axis x="8" y="14">{escape(up)}</text>')
    out.append(f'<text class=axis x="{left + span_x / 2}" y="{height - 6}" text-anchor=middle>{escape(across)}</text>')
    for mark in [10**d for d in range(low, high + 1)]:
        y = place_y(mark)
        out.append(f'<line class=grid x1="{left}" x2="{left + span_x}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class=axis x="{left - 8}" y="{y + 4:.1f}" text-anchor=end>{nice(mark, unit)}</text>')
    for value, text in ticks:
        x = place_x(value)
        out.append(f'<line class=grid x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + span_y}"/>')
        out.append(f'<text class=axis x="{x:.1f}" y="{height - bottom + 18}" text-anchor=middle>{escape(text)}</text>')
    ends = spread_labels([(place_y(line[-1][1]), name) for name, line in series.items()], top + 6, height - bottom, 15)
    texts = dict(ticks)
    for name, line in sorted(series.items(), key=lambda s: css_class(s[0], mine, limits) == "mine"):  # ours above all others
        kind = css_class(name, mine, limits)
        path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in line)
        out.append(f'<g class="{kind}"><polyline points="{path}"/>')
        for x, y in line:
            title = f"{name}, {texts.get(x, x)}: {nice(y, unit)}"
            out.append(f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r=3.2><title>{escape(title)}</title></circle>')
        end_x, end_y = place_x(line[-1][0]), place_y(line[-1][1])
        out.append(f'<line class=lead x1="{end_x + 4:.1f}" y1="{end_y:.1f}" x2="{left + span_x + 14}" y2="{ends[name]:.1f}"/>')
        out.append(f'<text class=name x="{left + span_x + 18}" y="{ends[name] + 4:.1f}">{escape(name)}</text></g>')
    out.append("</svg>")
    return "".join(out)
