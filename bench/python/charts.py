# SPDX-License-Identifier: MIT
"""Charts as inline SVG: bars on a logarithmic axis, and lines on two.

No script and no network: whoever opens the page sees everything, and a title on
each mark says its number. Colours come from the page's style sheet by class, so
that they follow its light and dark.
"""

import math
from html import escape

WIDTH = 860


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
    return "mine" if system in mine else "limit" if system in limits else "peer"


def bars(items, unit, mine=(), limits=()):
    """Horizontal bars, `items` of (label, value, spread or None), in the order given."""
    items = [item for item in items if item[1] and item[1] > 0]
    if not items:
        return "<p class=none>not measured</p>"
    left, right, row, top = 190, 130, 22, 22
    low, high = decades(min(v for _, v, _ in items) * 0.8, max(v for _, v, _ in items))
    span = WIDTH - left - right
    height = top + row * len(items) + 6

    def x(value):
        return left + span * (math.log10(value) - low) / (high - low)

    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img">']
    for decade in range(low, high + 1):
        at = x(10**decade)
        out.append(f'<line class=grid x1="{at:.1f}" x2="{at:.1f}" y1="{top - 4}" y2="{height}"/>')
        out.append(f'<text class=axis x="{at:.1f}" y="{top - 9}" text-anchor=middle>{nice(10**decade, unit)}</text>')
    for i, (label, value, spread) in enumerate(items):
        y, kind = top + i * row, css_class(label, mine, limits)
        title = f"{label}: {nice(value, unit)}"
        if spread:
            title += f", from {nice(spread[0], unit)} to {nice(spread[1], unit)}"
        out.append(f"<g class={kind}><title>{escape(title)}</title>")
        out.append(f'<text class=name x="{left - 8}" y="{y + 15}" text-anchor=end>{escape(label)}</text>')
        out.append(f'<rect x="{left}" y="{y + 3}" width="{max(1, x(value) - left):.1f}" height="{row - 7}" rx=2 />')
        end = x(value)
        if spread and spread[1] > spread[0] > 0:
            a, b = max(left, x(spread[0])), min(left + span, x(spread[1]))
            out.append(f'<line class=spread x1="{a:.1f}" x2="{b:.1f}" y1="{y + row / 2 - 0.5}" y2="{y + row / 2 - 0.5}"/>')
            end = max(end, b)
        out.append(f'<text class=value x="{end + 6:.1f}" y="{y + 15}">{nice(value, unit)}</text></g>')
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


def lines(series, unit, ticks, mine=(), limits=(), x_log=True, height=380, y_from_zero=False):
    """Lines: `series` is {name: [(x, y)]}; `ticks` is [(x, text)]. Names stand at the ends of their lines."""
    series = {name: sorted(points) for name, points in series.items() if points}
    points = [point for line in series.values() for point in line if point[1] > 0]
    if not points:
        return "<p class=none>not measured</p>"
    left, right, top, bottom = 76, 170, 14, 30
    span_x, span_y = WIDTH - left - right, height - top - bottom
    low, high = (0, max(y for _, y in points) * 1.05) if y_from_zero else decades(min(y for _, y in points), max(y for _, y in points))
    first, last = min(x for x, _ in ticks), max(x for x, _ in ticks)

    def place_x(value):
        if x_log:
            value, a, b = math.log(value), math.log(first), math.log(last)
        else:
            a, b = first, last
        return left + span_x * (value - a) / ((b - a) or 1)

    def place_y(value):
        value = value if y_from_zero else math.log10(value)
        return top + span_y * (1 - (value - low) / (high - low))

    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img">']
    marks = [high * i / 5 for i in range(6)] if y_from_zero else [10**d for d in range(low, high + 1)]
    for mark in marks:
        y = place_y(mark)
        out.append(f'<line class=grid x1="{left}" x2="{left + span_x}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class=axis x="{left - 8}" y="{y + 4:.1f}" text-anchor=end>{nice(mark, unit) if mark else "0"}</text>')
    for value, text in ticks:
        x = place_x(value)
        out.append(f'<line class=grid x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + span_y}"/>')
        out.append(f'<text class=axis x="{x:.1f}" y="{height - 10}" text-anchor=middle>{escape(text)}</text>')
    ends = spread_labels([(place_y(line[-1][1]), name) for name, line in series.items()], top + 6, height - bottom, 15)
    texts = dict(ticks)
    for i, (name, line) in enumerate(sorted(series.items(), key=lambda s: s[0] in mine)):
        kind = css_class(name, mine, limits)
        shade = f" hue{i % 8}" if kind == "peer" else ""
        path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in line)
        out.append(f'<g class="{kind}{shade}"><polyline points="{path}"/>')
        for x, y in line:
            title = f"{name}, {texts.get(x, x)}: {nice(y, unit)}"
            out.append(f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r=3.2><title>{escape(title)}</title></circle>')
        end_x, end_y = place_x(line[-1][0]), place_y(line[-1][1])
        out.append(f'<line class=lead x1="{end_x + 4:.1f}" y1="{end_y:.1f}" x2="{left + span_x + 14}" y2="{ends[name]:.1f}"/>')
        out.append(f'<text class=name x="{left + span_x + 18}" y="{ends[name] + 4:.1f}">{escape(name)}</text></g>')
    out.append("</svg>")
    return "".join(out)
