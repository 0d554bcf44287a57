# SPDX-License-Identifier: MIT
"""
What this interpreter holds of shared memory, by generation, with the functions that Python's gc has for objects: received
values that memoryviews or arrays look at, and buffer()s that were not sent.

When more than threshold0 young loans are held, or bytes in them, Python's gc is run, so that arrays in reference cycles give
back the memory of whoever sent them. What is held still is older then, and is looked at ten times less. What two full
collections have found held is told of with LeakedLoanWarning.

    from xidata import loans
    loans.get_stats()[2]["bytes"]      # held for long
    loans.freeze()                     # what is held now stays: it is not looked at any more
"""

from ._xidata import _loans_collect as collect
from ._xidata import _loans_disable as disable
from ._xidata import _loans_enable as enable
from ._xidata import _loans_freeze as freeze
from ._xidata import _loans_get_count as get_count
from ._xidata import _loans_get_freeze_count as get_freeze_count
from ._xidata import _loans_get_stats as get_stats
from ._xidata import _loans_get_threshold as get_threshold
from ._xidata import _loans_isenabled as isenabled
from ._xidata import _loans_set_threshold as set_threshold
from ._xidata import _loans_unfreeze as unfreeze

__all__ = [
    "collect",
    "disable",
    "enable",
    "freeze",
    "get_count",
    "get_freeze_count",
    "get_stats",
    "get_threshold",
    "isenabled",
    "set_threshold",
    "unfreeze",
]
