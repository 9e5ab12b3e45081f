"""Blocking work off the event loop: bounded pools of threads, and iterators of theirs read from the loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


class Workers:
    """At most `threads` calls at once; more wait for their turn. Admission is decided before: see `limits`."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    @property
    def queued(self) -> int:
        return self._pool._work_queue.qsize()

    async def run(self, work: Callable[..., T], *given: Any) -> T:
        """Call in a thread. A cancelled caller does not stop what has begun: that has to end by itself."""
        context = contextvars.copy_context()  # so that spans know where they belong
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(work, *given))

    async def pieces(self, made: Iterator[T]) -> AsyncIterator[T]:
        """What an iterator gives, each piece made in a thread."""
        while (piece := await self.run(next, made, _END)) is not _END:
            yield piece

    def close(self) -> None:
        """Wait for nothing that has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
