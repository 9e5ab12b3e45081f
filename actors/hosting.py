"""What actors that host a part of a bundle have in common: it is loaded once, and computed in one thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from actors.runtime import ModelRuntime
from anymodal.threads import limit_threads

if TYPE_CHECKING:
    from anymodal.bundle import Bundle


class Host:
    """Subclasses say in `_build` what they take from the bundle; it runs in the computing thread."""

    def __init__(self, bundle: str, options: ModelRuntime) -> None:
        limit_threads(options.thread_count)
        self._bundle, self._options = bundle, options
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._loading: asyncio.Task | None = None

    async def ready(self) -> int:
        """Load the part, the first time; returns the process id."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._run(self._load))
        await asyncio.shield(self._loading)
        return os.getpid()

    def _load(self) -> None:
        from anymodal.agent import check_device
        from anymodal.bundle import load_bundle

        check_device(self._options.device)
        self._build(load_bundle(self._bundle, device=self._options.device, dtype=self._options.dtype))

    def _build(self, bundle: Bundle) -> None:
        raise NotImplementedError

    async def _run(self, function: Callable, *given: Any) -> Any:
        """What needs the part, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._compute, function, *given)
