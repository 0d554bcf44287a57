# SPDX-License-Identifier: MIT
"""The goals, each beside its figure: met or not, and by how much.

A goal compares a figure with a limit, with the best peer, or with a number. Two
figures are compared in one regime only (two cores, or two threads of one core):
in that in which both were measured, two cores before the other.
"""

REGIMES = ("two cores", "two threads of one core", "not pinned")
LIMITS = {"raw", "ring", "ring_eager", "memcpy", "futex"}
MINE = {"xi", "xi_two", "xi_alone", "xi_numpy", "xi_queue", "xi_pool"}
PYTHON_OLD = ("concurrent.interpreters.Queue", "_interpqueues")


class Figures:
    """The aggregates of a report by metric, system, size and regime."""

    def __init__(self, report):
        self.context = report["context"]
        self.entries = {}
        self.order = {}
        for entry in report["benchmarks"]:
            if entry["run_type"] != "aggregate" or entry["mixed"]:
                continue
            key = (entry["metric"], entry["system"], entry["size"])
            self.entries.setdefault(key, {})[entry["regime"]] = entry
            self.order.setdefault(entry["metric"], {}).setdefault(entry["system"], []).append(entry["size"])

    def regimes(self, *key):
        return self.entries.get(key, {})

    def get(self, metric, system, size, regime=None):
        """The entry in `regime`; in the first that there is one in, when none is named."""
        found = self.regimes(metric, system, size)
        if regime:
            return found.get(regime)
        return next((found[r] for r in REGIMES if r in found), None)

    def value(self, metric, system, size, regime=None):
        entry = self.get(metric, system, size, regime)
        return None if entry is None else number(entry)

    def main_regime(self):
        counts = {r: sum(r in found for found in self.entries.values()) for r in REGIMES}
        return max(REGIMES, key=lambda r: counts[r])

    def all_regimes(self):
        return [r for r in REGIMES if any(r in found for found in self.entries.values())]

    def systems(self, metric):
        return list(self.order.get(metric, {}))

    def sizes(self, metric, system=None):
        seen = {}
        for name, sizes in self.order.get(metric, {}).items():
            if system in (None, name):
                seen.update(dict.fromkeys(sizes))
        return list(seen)

    def pair(self, mine, other):
        """Both values in the first regime that has both."""
        for regime in REGIMES:
            a, b = self.value(*mine, regime), self.value(*other, regime)
            if a is not None and b is not None:
                return a, b, regime
        return None

    def best_peer(self, metric, size):
        """(mine, the best peer's, its name, regime): peers that are no limits and not this library."""
        for regime in REGIMES:
            mine = self.value(metric, "xi", size, regime)
            others = [
                (self.value(metric, system, size, regime), system)
                for system in self.systems(metric)
                if system not in LIMITS | MINE and self.value(metric, system, size, regime) is not None
            ]
            if mine is not None and others:
                value, system = min(others)
                return mine, value, system, regime
        return None


def number(entry):
    return entry["value"] if "value" in entry else entry["real_time"]


def time_text(ns):
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= factor:
            return f"{ns / factor:.3g} {unit}"
    return f"{ns:.3g} ns"


def rate_text(per_second):
    for unit, factor in (("G/s", 1e9), ("M/s", 1e6), ("k/s", 1e3)):
        if per_second >= factor:
            return f"{per_second / factor:.3g} {unit}"
    return f"{per_second:.3g} /s"


def bytes_text(n):
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= factor:
            return f"{n / factor:.3g} {unit}"
    return f"{n:.0f} B"


class Goal:
    """One row: `ratio` is how far the figure is from the goal, 1 and less being met."""

    def __init__(self, what, goal, figure="not measured", ratio=None, note=""):
        self.what, self.goal, self.figure, self.ratio, self.note = what, goal, figure, ratio, note
        self.met = None if ratio is None else ratio <= 1


def against_limit(figures, what, mine, other, most, text):
    """Time at most `most` times the limit's."""
    goal = f"≤ {most:g}× {text}"
    found = figures.pair(mine, other)
    if not found:
        return Goal(what, goal)
    a, b, regime = found
    return Goal(what, goal, f"{time_text(a)}, {a / b:.2f}× of {time_text(b)}", a / b / most, regime)


def against_peers(figures, what, metric, size, times):
    """Rate at least `times` the best peer's."""
    goal = f"≥ {times:g}× the best peer"
    found = figures.best_peer(metric, size)
    if not found:
        return Goal(what, goal)
    mine, best, system, regime = found
    figure = f"{rate_text(1e9 / mine)}, {best / mine:.3g}× of {system} ({rate_text(1e9 / best)})"
    return Goal(what, goal, figure, times * mine / best, regime)


def at_most(figures, what, key, most, show, goal=None):
    value = figures.value(*key)
    goal = goal or f"≤ {show(most)}"
    if value is None:
        return Goal(what, goal)
    ratio = value / most if most else (0 if value == 0 else float("inf"))
    return Goal(what, goal, show(value), ratio, "")


def rate_at_least(figures, what, key, least):
    """Of a time for one operation."""
    value = figures.value(*key)
    goal = f"≥ {rate_text(least)}"
    if value is None:
        return Goal(what, goal)
    return Goal(what, goal, rate_text(1e9 / value), least * value / 1e9)


def held_at_least(figures, what, key, least):
    value = figures.value(*key)
    if value is None:
        return Goal(what, f"{least:,} at once")
    return Goal(what, f"{least:,} at once", f"{value:,.0f}", least / value if value else float("inf"))


def faster_than(figures, what, mine, others, times, name):
    goal = f"≥ {times:g}× {name}"
    for other in others:
        found = figures.pair(mine, other)
        if found:
            a, b, regime = found
            return Goal(what, goal, f"{b / a:.3g}× ({rate_text(1e9 / a)} against {rate_text(1e9 / b)})", times * a / b, regime)
    return Goal(what, goal)


def hand_over(figures):
    sizes = [s for s in figures.sizes("handoff", "xi") if s != "64"]
    rows = []
    for size in sizes:
        rows.append(
            against_limit(figures, f"hand-over in place, {size}", ("handoff", "xi", size), ("handoff", "xi", "64"), 1.5, "of 64 B")
        )
    for size in ["64", *sizes]:
        rows.append(
            against_limit(figures, f"hand-over in place, {size}", ("handoff", "xi", size), ("handoff", "raw", "64"), 2, "raw")
        )
    return rows


def python_goals(figures):
    rows = []
    sizes = figures.sizes("python_one_way", "xi")
    for shape, least in (("int", 5e6), ("bytes100", 4e6), ("tuple5", 3e6)):
        for label in [s for s in sizes if s == shape or s.startswith(shape + "@")] or [shape]:
            one_way = ("python_one_way", "xi", label)
            rows.append(rate_at_least(figures, f"CPython one way, {label}", one_way, least))
            old = [("python_one_way", system, label) for system in PYTHON_OLD]
            rows.append(faster_than(figures, f"CPython one way, {label}", one_way, old, 10, PYTHON_OLD[0]))
            simple = [("python_one_way", "SimpleQueue", label)]
            rows.append(faster_than(figures, f"CPython one way, {label}", one_way, simple, 30, "SimpleQueue"))
    for metric, most, what in (("python_round_trip", 1000, "awake"), ("python_round_trip_asleep", 15000, "asleep")):
        for label in [s for s in figures.sizes(metric, "xi") if s.split("@")[0] == "int"] or ["int"]:
            rows.append(at_most(figures, f"CPython round trip {what}, {label}", (metric, "xi", label), most, time_text))
    for label in figures.sizes("python_numpy", "xi") or ["numpy16MiB"]:
        rows.append(at_most(figures, f"CPython, {label}", ("python_numpy", "xi", label), 5000, time_text))
    return rows


def goals(figures):
    rows = [
        against_limit(figures, "round trip awake, 64 B", ("round_trip", "xi", "64"), ("round_trip", "raw", "64"), 1.2, "raw"),
        against_limit(
            figures, "round trip asleep, 64 B", ("round_trip_asleep", "xi", "64"), ("round_trip_asleep", "futex", "64"), 1.1, "futex(2)"
        ),
        against_peers(figures, "one way, 8 B", "one_way", "8", 2),
        against_peers(figures, "one way, 64 B", "one_way", "64", 1.2),
        against_peers(figures, "one way, 1 KiB", "one_way", "1024", 2),
    ]
    for size in ("64KiB", "1MiB", "16MiB"):
        found = figures.pair(("copy", "xi", size), ("copy", "memcpy", size))
        goal = "≥ 0.9 of memcpy through shared memory"
        if found:
            a, b, regime = found
            gb = figures.get("copy", "xi", size, regime)["bytes"] / a
            rows.append(Goal(f"copy, {size}", goal, f"{gb:.3g} GB/s, {b / a:.2f} of it", 0.9 * a / b, regime))
        else:
            rows.append(Goal(f"copy, {size}", goal))
    rows += hand_over(figures)
    found = figures.pair(("scale", "xi", "2+2"), ("scale", "xi", "1+1"))
    if found:
        a, b, regime = found
        rows.append(Goal("2 producers + 2 consumers", "≥ 0.5 of 1 + 1", f"{rate_text(1e9 / a)}, {b / a:.2f} of it", 0.5 * a / b, regime))
    else:
        rows.append(Goal("2 producers + 2 consumers", "≥ 0.5 of 1 + 1"))
    rows += [
        at_most(figures, "system calls of an idle broker", ("idle_calls", "broker", "idle"), 0, lambda v: f"{v:g} /s", "none"),
        at_most(figures, "system calls of a sleeping waiter", ("idle_calls", "waiter", "idle"), 1, lambda v: f"{v:.3g} /s"),
        at_most(figures, "memory of an idle default channel", ("memory", "channel", "idle"), 32 << 10, bytes_text),
        at_most(figures, "memory of an idle interpreter besides its arena", ("memory", "interpreter", "idle"), 32 << 10, bytes_text),
        at_most(figures, "memory of the broker", ("memory", "broker", "idle"), 4 << 20, bytes_text),
        rate_at_least(figures, "channels opened and closed", ("control", "open_close", "each"), 8000),
        rate_at_least(figures, "interpreters joined and left", ("control", "join_leave", "each"), 2000),
        held_at_least(figures, "channels held", ("held", "channels", "at once"), 10000),
        held_at_least(figures, "interpreters held", ("held", "interpreters", "at once"), 256),
    ]
    return rows + python_goals(figures)


def table(rows):
    """For a terminal."""
    head = ("", "goal", "figure", "of goal", "")
    lines = [head]
    for row in rows:
        verdict = "not measured" if row.met is None else "met" if row.met else "NOT MET"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append((row.what, row.goal, row.figure if row.ratio is not None else "", ratio, verdict))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
