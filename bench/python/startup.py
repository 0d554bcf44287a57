# SPDX-License-Identifier: MIT
"""How long an interpreter takes to come up, beside CPython itself: interleaved, in milliseconds.

    PYTHONPATH=build/python python3 bench/python/startup.py [ROUNDS]

Each round starts, in turn, `python -I -c pass`; a program whose first create() is timed where a broker is there already;
one where there is none yet; and times a later create() of this program. Prints the median, and what a tenth of the
rounds was faster and slower than; and each as multiples of the first.
"""

import os
import statistics
import subprocess
import sys
import time

from xidata import interpreters

FIRST = ("import time; from xidata import interpreters as i; t = time.perf_counter()\n"
         "a = i.create(); print(time.perf_counter() - t)")


def plain():
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
    return time.perf_counter() - began


def first(**environ):
    done = subprocess.run([sys.executable, "-c", FIRST], check=True, stdout=subprocess.PIPE, env=dict(os.environ, **environ))
    return float(done.stdout)


def later():
    began = time.perf_counter()
    kept = interpreters.create()
    took = time.perf_counter() - began
    kept.close()
    return took


def main(rounds=15):
    kept = interpreters.create()  # a broker, and this program's first
    ways = {
        "python -I -c pass": plain,
        "the first create() of a program": first,
        "the same, with the broker's start": lambda: first(XI_NAMESPACE="startup.%d" % os.getpid(), XI_LINGER="0"),
        "a later create()": later,
    }
    took = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            took[name].append(measure() * 1e3)
    kept.close()
    base = statistics.median(took["python -I -c pass"])
    for name, figures in took.items():
        figures.sort()
        tenth = len(figures) // 10
        median = statistics.median(figures)
        print("%-34s %6.1f ms (%.1f - %.1f), %.2f times" % (name, median, figures[tenth], figures[-1 - tenth], median / base))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
