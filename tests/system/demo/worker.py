# SPDX-License-Identifier: MIT
"""Takes files, one at a time, and sends facts about them until the collector closes the channel.

    worker.py NUMBER
"""
import sys

import company
import facts
import xidata

ROLE = f"worker {sys.argv[1]}"


def work(here):
    files = xidata.channel(company.FILES, recv_only=True)
    results = xidata.channel(company.RESULTS, send_only=True)

    def nobody_collects():
        return "the collector has gone" if here.absent("collector") else None

    done = 0
    while True:
        try:
            attempt, path, text = files.recv(timeout=company.LOOK)
        except xidata.ChannelClosed:
            company.say(ROLE, f"Python {sys.version.split()[0]}, {done} files")
            return 0
        except company.NOTHING_YET:
            here.look()
            if nobody_collects():
                raise company.Gone(nobody_collects()) from None
            continue
        result = {
            "path": path,
            "attempt": attempt,
            "worker": ROLE,
            "python": tuple(sys.version_info[:3]),
            "text": facts.of_text(text),
            "ast": facts.of_ast(text),
        }
        try:
            company.send(results, result, here, nobody_collects)
        except xidata.ChannelClosed:
            # The collector has all it wanted: this was a second copy of a file that was sent again.
            return 0
        done += 1


company.run(ROLE, work)
