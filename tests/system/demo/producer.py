# SPDX-License-Identifier: MIT
"""Sends every file of the list to the workers, and again those that the collector misses.

    producer.py LIST SECONDS      LIST: a file with one path a line; SECONDS: when to stop sending new ones
"""
import sys
import time

import company
import facts
import xidata

ROLE = "producer"


def produce(here):
    with open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as f:
        paths = f.read().splitlines()
    deadline = time.monotonic() + float(sys.argv[2])
    names = company.workers()
    files = xidata.channel(company.FILES, send_only=True)
    results = xidata.channel(company.RESULTS, send_only=True)
    again = xidata.channel(company.AGAIN, recv_only=True)

    def nobody_takes():
        if here.absent("collector"):
            return "the collector has gone"
        return "every worker has gone" if here.no_workers(names) else None

    def nobody_collects():
        return "the collector has gone" if here.absent("collector") else None

    sent = 0
    for path in paths:
        if time.monotonic() > deadline:
            break
        company.send(files, (1, path, facts.read(path)), here, nobody_takes)
        sent += 1
    company.send(results, ("sent", sent), here, nobody_collects)

    attempt = 1
    while True:
        try:
            missing = again.recv(timeout=company.LOOK)
        except company.NOTHING_YET:
            here.look()
            if nobody_collects():
                raise company.Gone(nobody_collects()) from None
            continue
        if missing is None:
            return 0
        attempt += 1
        try:
            for path in missing:
                company.send(files, (attempt, path, facts.read(path)), here, nobody_takes)
        except xidata.ChannelClosed:
            pass  # the missing came after all, and the collector has closed: its last word is on the way


company.run(ROLE, produce)
