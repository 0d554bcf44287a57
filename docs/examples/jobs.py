# SPDX-License-Identifier: MIT
"""
Producer and consumers: jobs that outlive their workers.

This program sends jobs into a queue and starts three workers, processes of their own. Each job goes to one of them, who
acknowledges it when its result is sent. One worker is killed with a job in its hands: another gets that job.

    $ python jobs.py
    sum of ten squares: 285
    delivered a second time: [7]
    one worker was killed, two have ended by themselves
"""

import os
import signal
import subprocess
import sys

import xidata


def work():
    jobs = xidata.channel("jobs", recv_only=True, ack=True)
    results = xidata.channel("results", send_only=True)
    for delivery in jobs:  # until the channel is closed, and everything acknowledged
        with delivery:
            number = delivery.value
            if number == 7 and delivery.count == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            results.send((number, number**2, delivery.count))


def main():
    results = xidata.channel("results", recv_only=True)
    with xidata.channel("jobs", send_only=True) as jobs:
        workers = [subprocess.Popen([sys.executable, __file__, "work"]) for _ in range(3)]
        jobs.send_many(range(10))
        done = [results.recv(timeout=30) for _ in range(10)]
        jobs.close()
        ended = [worker.wait() for worker in workers]  # the handle is kept: who comes late is to find this channel, closed
    print("sum of ten squares:", sum(square for _, square, _ in done))
    print("delivered a second time:", [number for number, _, count in done if count > 1])
    if sorted(ended) == [-signal.SIGKILL, 0, 0]:
        print("one worker was killed, two have ended by themselves")


if __name__ == "__main__":
    work() if sys.argv[1:] == ["work"] else main()
