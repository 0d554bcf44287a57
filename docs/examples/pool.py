# SPDX-License-Identifier: MIT
"""
A pool of interpreters: work for all processors, that a crash does not end.

Each interpreter is a process with a GIL of its own. Functions of this script are found there by their names. One task
kills its interpreter: its future says how, and with replace=True the others go on.

    $ python pool.py
    primes below 60000: 6057
    the third task: killed by SIGKILL
    the others: [78498, 78498]
"""

import os
import re
import signal

import xidata


def primes(first, end):
    """How many primes there are from `first` up to `end`."""
    sieve = bytearray([1]) * end
    sieve[:2] = bytes(2)
    for n in range(2, int(end**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, end, n)))
    return sum(sieve[first:])


def primes_or_die(end):
    if end < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return primes(0, end)


def main():
    with xidata.InterpreterPoolExecutor(3) as pool:
        parts = range(0, 60000, 10000)
        print("primes below 60000:", sum(pool.map(primes, parts, [first + 10000 for first in parts])))
    with xidata.InterpreterPoolExecutor(2, replace=True) as pool:
        tasks = [pool.submit(primes_or_die, end) for end in (10**6, 10**6, -1)]
        print("the third task:", re.search("killed by SIG[A-Z]+", str(tasks[2].exception()))[0])
        print("the others:", [task.result() for task in tasks[:2]])


if __name__ == "__main__":
    main()
