"""The source's host: clips in, windows out to perception, no further ahead than their credits."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import ray

from actors.faults import as_fault
from actors.runtime import Runtime
from anymodal.config import BundleSpec
from anymodal.errors import AnymodalError, RuntimeFault
from anymodal.stages.items import Clip
from anymodal.stages.source import Source
from anymodal.threads import limit_threads
from anymodal.types import Window

POLL_S = 2.0  # `watch` answers at least this often


@dataclass(frozen=True, slots=True)
class Progress:
    """`windows`: how many were sent; once `done`, the mind has seen them all."""

    windows: int
    done: bool
    warnings: tuple[str, ...] = ()


@dataclass
class _Pass:
    """One pass over a clip. A credit is taken per window sent, and comes back when the mind has it."""

    credits: threading.Semaphore
    done: asyncio.Event = field(default_factory=asyncio.Event)
    windows: int = 0
    warnings: list[str] = field(default_factory=list)
    error: AnymodalError | None = None


class SourceActor:
    """Decodes several clips at once, each in a thread of its own."""

    def __init__(self, spec: BundleSpec, runtime: Runtime, perception: str) -> None:
        limit_threads(runtime.source.threads)
        self._stage, self._runtime, self._perception_name = Source(spec), runtime, perception
        self._threads = ThreadPoolExecutor(runtime.clips, thread_name_prefix="clip")
        self._passes: dict[str, _Pass] = {}
        self._in_flight = self._most_in_flight = 0

    async def ready(self) -> int:
        """Load what decoding needs; returns the process id."""
        import anymodal.media.clip
        import anymodal.media.source  # noqa: F401

        self._perception = ray.get_actor(self._perception_name)
        return os.getpid()

    async def start(self, clip: Clip) -> None:
        """Begin a pass over a clip."""
        await self.ready()
        watched = self._passes[clip.session] = _Pass(threading.Semaphore(self._runtime.credits))
        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._threads, self._run, clip, watched, loop)

    async def watch(self, session: str) -> Progress:
        """How far a pass is: at once when it is done, else after a while. Raises what went wrong with it."""
        watched = self._passes.get(session)
        if watched is None:
            raise RuntimeFault("the source does not know this session: it was restarted", fix="ask again")
        try:
            await asyncio.wait_for(watched.done.wait(), POLL_S)
        except TimeoutError:
            return Progress(watched.windows, False)
        if watched.error is not None:
            raise watched.error
        return Progress(watched.windows, True, tuple(watched.warnings))

    async def stop(self, session: str) -> None:
        """End a pass, finished or not."""
        watched = self._passes.pop(session, None)
        if watched is not None:
            self._fail(watched, RuntimeFault("the pass was stopped"))

    async def load(self) -> dict[str, int]:
        """Windows sent whose credit is not back, now and at most; and the process id."""
        return {"pid": os.getpid(), "passes": len(self._passes), "in_flight": self._in_flight,
                "most_in_flight": self._most_in_flight}

    # -- one pass, in its thread --------------------------------------------------------------------------------

    def _run(self, clip: Clip, watched: _Pass, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with closing(self._stage.push(clip, watched.warnings)) as windows:
                for window in windows:
                    self._take_credit(watched)
                    watched.windows += 1
                    loop.call_soon_threadsafe(self._send, clip.session, window, watched)
            for _ in range(self._runtime.credits):  # all are back: the mind has seen every window
                self._take_credit(watched)
        except Exception as error:
            watched.error = watched.error or as_fault(error, "source")
        finally:
            loop.call_soon_threadsafe(watched.done.set)

    def _take_credit(self, watched: _Pass) -> None:
        if not watched.credits.acquire(timeout=self._runtime.stall_timeout_s):
            raise TimeoutError("no credit came back")
        if watched.error is not None:
            raise watched.error

    # -- in the event loop --------------------------------------------------------------------------------------

    def _send(self, session: str, window: Window, watched: _Pass) -> None:
        self._in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        reply = self._perception.see.remote(session, window)
        asyncio.ensure_future(self._await_credit(reply, watched))

    async def _await_credit(self, reply: Any, watched: _Pass) -> None:
        try:
            await asyncio.wait_for(reply, self._runtime.stall_timeout_s)
            watched.credits.release()
        except Exception as error:
            self._fail(watched, as_fault(error, "perception"))
        finally:
            self._in_flight -= 1

    def _fail(self, watched: _Pass, error: AnymodalError) -> None:
        watched.error = watched.error or error
        watched.credits.release(self._runtime.credits)  # wake the thread, to see the error
