# SPDX-License-Identifier: MIT
"""Sums the workers' results, asks for files again that went missing with a worker, and closes the shop.

    collector.py LIST TOTALS      LIST: a file with one path a line; TOTALS: where to write the sums, as JSON

Each file is counted once though it may arrive twice: a file is sent again when a worker has died and nothing more
comes, and the dead worker may yet have sent its result (what is sent survives its sender).
"""
import json
import sys
import time

import company
import facts
import xidata

ROLE = "collector"
QUIET = 2 * company.LOOK  # nothing came for so long: who still works on something?
STUCK = 30.0
PROGRESS_FILES = 25
PROGRESS_SECONDS = 1.0


class Collection:
    def __init__(self, paths):
        self.paths = paths
        self.sent = None  # how many of them the producer has sent; None: it is still at it
        self.got = set()
        self.totals = facts.Totals()
        self.by_worker = {}
        self.again = 0
        self.twice = 0
        self.values = 0
        self.bytes = 0
        self.started = self.last = self.shown = time.monotonic()

    def take(self, value):
        self.last = time.monotonic()
        self.values += 1
        if isinstance(value, tuple):
            self.sent = value[1]
            return
        if value["path"] in self.got:
            self.twice += 1
            return
        self.got.add(value["path"])
        self.bytes += value["text"]["characters"]
        self.totals.add_text(value["text"])
        self.totals.add_ast(value["ast"])
        self.by_worker.setdefault(value["worker"], [0, value["python"]])[0] += 1
        self.show(len(self.got) % PROGRESS_FILES == 0)

    def show(self, due):
        now = time.monotonic()
        if not due or (now - self.shown < PROGRESS_SECONDS and len(self.got) > PROGRESS_FILES):
            return
        self.shown = now
        seconds = max(now - self.started, 1e-9)
        company.say(ROLE, f"{len(self.got)} of {len(self.paths)} files, {len(self.got) / seconds:.0f} files/s, "
                          f"{self.bytes / seconds / 1e6:.1f} MB/s")

    def complete(self):
        return self.sent is not None and len(self.got) >= self.sent

    def missing(self):
        return [path for path in self.paths[: self.sent] if path not in self.got]

    def write(self, path, note):
        seconds = self.last - self.started
        with open(path, "w", encoding="utf-8") as f:
            json.dump({
                "complete": self.complete(), "note": note, "paths": sorted(self.got), "sent": self.sent,
                "seconds": seconds, "bytes": self.bytes, "again": self.again, "twice": self.twice,
                "values": self.values + len(self.got) + self.again,  # results, and the files that they are about
                "totals": self.totals.checked(), "ast": self.totals.ast, "unparsed": self.totals.unparsed,
                "by_worker": {k: [n, ".".join(map(str, v))] for k, (n, v) in sorted(self.by_worker.items())},
            }, f)


def collect_until_done(results, again, c, here):
    """Receives until everything is there, or can no longer come: then says why."""
    names = company.workers()
    unanswered = set()  # workers that died since files were last asked for again
    while not c.complete():
        try:
            value = results.recv(timeout=company.LOOK)
            c.take(value)
            if isinstance(value, dict):
                here.seen.add(value["worker"])  # so that it is missed if it goes before the first look
            continue
        except company.NOTHING_YET:
            pass
        for name in sorted(here.look()):
            company.say(ROLE, f"{name} died")
            if name in names:
                unanswered.add(name)
        quiet = time.monotonic() - c.last
        if quiet < QUIET:
            continue
        if here.no_workers(names):
            return "every worker has gone"
        if here.absent("producer"):
            return "the producer has gone"
        if quiet > STUCK:
            return f"nothing came for {STUCK:.0f} s"
        if unanswered and c.sent is not None:
            missing = c.missing()
            company.say(ROLE, f"{', '.join(sorted(unanswered))} died; {len(missing)} file(s) sent again")
            again.send(missing, timeout=5)
            c.again += len(missing)
            c.last = time.monotonic()
            unanswered.clear()
    for name in sorted(here.look() & set(names)):
        company.say(ROLE, f"{name} died; no file went missing")
    return None


def collect(here):
    with open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as f:
        c = Collection(f.read().splitlines())
    results = xidata.channel(company.RESULTS, recv_only=True)
    files = xidata.channel(company.FILES, send_only=True)
    again = xidata.channel(company.AGAIN, send_only=True)
    problem = collect_until_done(results, again, c, here)
    if problem:
        company.say(ROLE, f"incomplete: {problem}; {len(c.got)} files are counted")
    c.write(sys.argv[2], problem)
    try:
        again.send(None, timeout=5)
    except xidata.Error:
        pass  # a producer that has gone needs no telling
    for channel in (files, results):
        channel.close()
    return 3 if problem else 0


company.run(ROLE, collect)
