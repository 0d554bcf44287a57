# SPDX-License-Identifier: MIT
"""What a type checker is to refuse: each line that is marked, with that error, and no other line."""

import xidata
from xidata import interpreters

channel = xidata.channel("c")
channel.send(obj=1)  # E: call-arg
channel.send(1, timeout="soon")  # E: arg-type
channel.send_many(5)  # E: arg-type
xidata.channel("c", mode="stack")  # E: arg-type
xidata.channel("c", retains=2)  # E: call-arg
xidata.remove(name="c")  # E: call-arg
number: int = channel.name  # E: assignment
channel.name = "d"  # E: misc
channel.stat().depht  # E: attr-defined
channel.stat()._asdict()  # E: attr-defined
xidata.stats().upper()  # E: attr-defined
class Mine(xidata.Channel): ...  # E: misc
text: str = interpreters.create().call(pow, 2, 3)  # E: assignment
interpreters.create().kill()  # E: attr-defined
