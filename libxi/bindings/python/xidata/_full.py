# SPDX-License-Identifier: MIT
"""Full, apart because the queue module, which its base lies in, takes longer to load than all the rest of the package."""

import queue

from ._xidata import Empty, Error


class Full(Error, queue.Full):
    """No room to send right now (timeout=0). Also a queue.Full."""

    code = Empty.code  # the C library has one for both


Full.__module__ = "xidata"
