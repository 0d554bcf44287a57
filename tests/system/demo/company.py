# SPDX-License-Identifier: MIT
"""What the demo's interpreters share: the channels' names, who is there, and calls that notice when somebody is not.

Nobody waits for the dead: each wait is bounded, and between two waits the list of interpreters tells who has gone. A
process that was killed disappears from that list when the broker has repaired what it left, so what it had sent is
there to be received before its absence can be seen.
"""
import os
import sys
import time

import xidata

FILES = "demo.files"  # producer -> workers: (attempt, path, text)
RESULTS = "demo.results"  # workers -> collector: facts; producer -> collector: ("sent", how many)
AGAIN = "demo.again"  # collector -> producer: paths that went missing with a worker; None when all is done

LOOK = 0.25  # seconds between two looks at who is there
STARTING = 20.0  # seconds in which everybody must have come
NOTHING_YET = (xidata.Empty, xidata.Timeout)


class Gone(Exception):
    """Those without whom this process has nothing to do any more have gone."""


def say(role, text):
    os.write(1, f"{role}: {text}\n".encode())  # in one piece: others write to the same place


class Company:
    """Who has been seen, and who of them has gone."""

    def __init__(self):
        self.seen = set()
        self.gone = set()
        self.started = time.monotonic()

    def look(self):
        """Those who have gone since the last look."""
        present = {i.name for i in xidata.interpreters()}
        self.seen |= present
        news = self.seen - present - self.gone
        self.gone |= news
        return news

    def absent(self, name):
        """True when `name` was here and has gone, or has not come at all."""
        return name in self.gone or (name not in self.seen and time.monotonic() - self.started > STARTING)

    def no_workers(self, names):
        return all(self.absent(name) for name in names)


def send(channel, value, company, without):
    """Sends, however long it takes, unless `without()` says that nobody will ever make room."""
    while True:
        try:
            return channel.send(value, timeout=LOOK)
        except xidata.Timeout:
            company.look()
            reason = without()
            if reason:
                raise Gone(reason) from None


def workers():
    """Names of the workers, from the environment that the conductor made."""
    return [f"worker {n}" for n in range(1, int(os.environ["XI_DEMO_WORKERS"]) + 1)]


def run(role, body):
    """Joins as `role`, runs `body(company)`, and turns what may happen into an exit status and one line."""
    try:
        xidata.join(name=role)
        status = body(Company())
    except Gone as reason:
        say(role, f"ends: {reason}")
        status = 3
    except xidata.ChannelClosed:
        say(role, "ends: a channel was closed")
        status = 3
    except xidata.Error as error:
        say(role, f"ends: {error}")
        status = 4
    sys.exit(status)
