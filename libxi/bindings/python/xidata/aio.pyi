# SPDX-License-Identifier: MIT
from typing import Any, Callable, Optional

from . import Channel

async def arecv(channel: Channel, timeout: Optional[float] = None) -> Any: ...
async def asend(
    channel: Channel,
    obj: Any,
    timeout: Optional[float] = None,
    *,
    on_free: Optional[Callable[[], Any]] = None,
    ttl: Optional[float] = None,
) -> None: ...

class iterate:
    def __init__(self, channel: Channel) -> None: ...
    def __aiter__(self) -> iterate: ...
    async def __anext__(self) -> Any: ...
