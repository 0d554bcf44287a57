# SPDX-License-Identifier: MIT
"""The same files once more with nobody parsing them: what carrying them costs alone.

    carry.py send LIST SECONDS
    carry.py recv              prints how many values and bytes came, and how fast
"""
import sys
import time

import company
import facts
import xidata

CHANNEL = "demo.carry"
BATCH = 64


def send(here):
    with open(sys.argv[2], encoding="utf-8", errors="surrogateescape") as f:
        values = [(path, facts.read(path)) for path in f.read().splitlines()]
    channel = xidata.channel(CHANNEL, send_only=True)
    deadline = time.monotonic() + float(sys.argv[3])
    while time.monotonic() < deadline:
        for value in values:
            company.send(channel, value, here, lambda: "the receiver has gone" if here.absent("receiver") else None)
    channel.close()
    return 0


def receive(here):
    channel = xidata.channel(CHANNEL, recv_only=True)
    values = size = 0
    first = last = None
    while True:
        try:
            batch = channel.recv_many(BATCH, timeout=company.LOOK)
        except xidata.ChannelClosed:
            break
        except company.NOTHING_YET:
            here.look()
            if here.absent("sender"):
                raise company.Gone("the sender has gone") from None
            continue
        last = time.monotonic()
        first = first or last
        values += len(batch)
        size += sum(len(text) for _, text in batch)
    seconds = max((last or 0) - (first or 0), 1e-9)
    company.say("carried alone", f"{values} values, {values / seconds:.0f} values/s; {size / 1e6:.1f} MB, "
                                 f"{size / seconds:.0f} bytes/s")
    return 0


if sys.argv[1] == "send":
    company.run("sender", send)
else:
    company.run("receiver", receive)
