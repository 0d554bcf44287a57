# SPDX-License-Identifier: MIT
from concurrent.futures import BrokenExecutor, Executor
from typing import Any, Callable, Optional, Tuple

class BrokenInterpreterPool(BrokenExecutor): ...

class InterpreterPoolExecutor(Executor):
    def __init__(
        self,
        max_workers: Optional[int] = None,
        thread_name_prefix: str = "",
        initializer: Optional[Callable[..., Any]] = None,
        initargs: Tuple[Any, ...] = (),
        *,
        replace: bool = False,
    ) -> None: ...
