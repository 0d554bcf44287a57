# SPDX-License-Identifier: MIT
"""
Arrays: frames of eight megabytes that nobody copies.

A camera writes each frame into shared memory and sends it; two viewers look at the same bytes, read-only. When both are
done with a frame its memory is free for the next, so a minute's film needs no more room than a few frames.

    $ python frames.py
    viewer of the left half: 40 frames, brightness 97.5
    viewer of the right half: 40 frames, brightness 97.5
    frames that both were done with: 40
    at most ten frames at a time: True
"""

import subprocess
import sys

import numpy
import xidata

FRAMES, SHAPE = 40, (1024, 2048, 4)


def view(half):
    films = xidata.channel("film", mode="broadcast", recv_only=True)
    xidata.channel("film.ready", send_only=True).send(half)
    columns = slice(0, 1024) if half == "left" else slice(1024, 2048)
    means = [frame[0, columns].mean() for _, frame in films]
    print("viewer of the %s half: %d frames, brightness %.1f" % (half, len(means), sum(means) / len(means)))


def main():
    ready = xidata.channel("film.ready", recv_only=True)
    film = xidata.channel("film", mode="broadcast", send_only=True, values=4)  # waits for the slower viewer
    viewers = [subprocess.Popen([sys.executable, __file__, half], stdout=subprocess.PIPE, text=True)
               for half in ("left", "right")]
    for _ in viewers:
        ready.recv(timeout=30)
    done, most = [], 0
    for number in range(FRAMES):
        frame = xidata.empty(SHAPE, numpy.uint8)
        frame[:] = 5 * number % 200
        film.send((number, frame), on_free=lambda number=number: done.append(number))  # the memory goes, not a copy
        del frame
        most = max(most, number + 1 - len(done))
    film.close()
    for viewer in viewers:
        print(viewer.communicate()[0], end="")
    xidata.run_free()
    print("frames that both were done with:", len(done))
    print("at most ten frames at a time:", most <= 10)


if __name__ == "__main__":
    view(sys.argv[1]) if sys.argv[1:] else main()
