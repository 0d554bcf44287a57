# SPDX-License-Identifier: MIT
"""`python -m xidata` looks around: namespaces, interpreters, channels."""

import os
import sys

from ._look import main

if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # `python -m xidata | head -1`: whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
