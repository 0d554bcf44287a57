# SPDX-License-Identifier: MIT
"""Ready, apart because the enum module takes longer to load than all the rest of the package."""

import enum


class Ready(enum.IntFlag):
    """What Set.wait() reports of a channel."""

    RECV = 1  # something to receive
    SEND = 2  # room for a small value
    CLOSED = 4  # closed and drained, or removed
    NO_PRODUCER = 8  # drained, and nobody has it open to send
    LEFT = 16  # the handle was freed: it is no longer in the set


Ready.__module__ = "xidata"
