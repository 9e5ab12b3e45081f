"""Perception's host: windows of any clips in, batched together; only their few tokens go on to the mind."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from actors.faults import as_fault
from actors.runtime import Runtime
from anymodal.stages.items import Percept
from anymodal.threads import limit_threads
from anymodal.types import Window

Waiting = tuple[str, Window, asyncio.Future]


class PerceptionActor:
    """Encodes a batch once it is full, or once its first window has waited `batch_wait_s`."""

    def __init__(self, bundle: str, runtime: Runtime, mind: str) -> None:
        limit_threads(runtime.perception.thread_count)
        self._bundle, self._runtime, self._options, self._mind_name = bundle, runtime, runtime.perception, mind
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._inbox: asyncio.Queue[Waiting] = asyncio.Queue()
        self._most_waiting = 0
        self._batches: dict[int, int] = {}  # batches by size
        self._loading: asyncio.Task | None = None

    async def ready(self) -> int:
        """Load the encoders and adapters; returns the process id."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load())
        await asyncio.shield(self._loading)
        return os.getpid()

    async def see(self, session: str, window: Window) -> None:
        """Encode a window and hand it to the mind. The reply is the window's credit: the mind has it."""
        await self.ready()
        done = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait((session, window, done))
        self._most_waiting = max(self._most_waiting, self._inbox.qsize())
        await done

    async def load(self) -> dict[str, Any]:
        """Windows waiting for a batch, now and at most; how many batches of which size; and the process id."""
        return {"pid": os.getpid(), "waiting": self._inbox.qsize(), "most_waiting": self._most_waiting,
                "batches": self._batches}

    # -- batches ------------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        def load() -> Any:
            from anymodal.agent import check_device
            from anymodal.bundle import load_bundle
            from anymodal.stages.perceive import Perceive

            check_device(self._options.device)
            bundle = load_bundle(self._bundle, device=self._options.device, dtype=self._options.dtype)
            return Perceive(bundle.perception, batch=self._options.batch)

        self._stage = await asyncio.get_running_loop().run_in_executor(self._compute, load)
        self._mind = ray.get_actor(self._mind_name)
        self._worker = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        while True:
            batch = await self._next_batch()
            self._batches[len(batch)] = self._batches.get(len(batch), 0) + 1
            percepts = await self._encode(batch)
            asyncio.ensure_future(self._deliver([(p, item[2]) for p, item in zip(percepts, batch) if p is not None]))

    async def _next_batch(self) -> list[Waiting]:
        batch = [await self._inbox.get()]
        deadline_s = asyncio.get_running_loop().time() + self._options.batch_wait_s
        while len(batch) < self._options.batch:
            try:
                async with asyncio.timeout_at(deadline_s):
                    batch.append(await self._inbox.get())
            except TimeoutError:
                break
        return batch

    async def _encode(self, batch: list[Waiting]) -> list[Percept | None]:
        """None for a window that could not be encoded; its sender is told. One bad window spoils no other."""
        loop = asyncio.get_running_loop()
        try:
            items = [(session, window) for session, window, _ in batch]
            return await loop.run_in_executor(self._compute, self._stage.encode, items)
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0][2], as_fault(error, "perception"))
                return [None]
            return [percept for item in batch for percept in await self._encode([item])]

    async def _deliver(self, ready: list[tuple[Percept, asyncio.Future]]) -> None:
        if not ready:
            return
        try:
            reply = self._mind.watch.remote([percept for percept, _ in ready])
            errors = await asyncio.wait_for(reply, self._runtime.stall_timeout_s)
        except Exception as error:
            errors = [as_fault(error, "mind")] * len(ready)
        for (_, done), error in zip(ready, errors):
            _settle(done, error)


def _settle(done: asyncio.Future, error: Exception | None) -> None:
    if not done.done():
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
