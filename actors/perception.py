"""Perception's host: windows of any clips and sessions in, batched together; only their few tokens go on."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import ray

from actors.faults import as_fault
from actors.hosting import Host
from actors.runtime import Runtime
from anymodal.stages.items import Percept
from anymodal.stages.perceive import Perceive
from anymodal.threads import keep_freed_memory
from anymodal.types import Window

KEPT_BYTES = 256 * 2**20  # of what batches used, for the next ones
YIELDS = 3  # to answers: a window can wait

Waiting = tuple[str, Window, asyncio.Future]  # the future's result is the window's Percept


class PerceptionActor(Host):
    """Encodes a batch once it is full, or once its first window has waited `batch_wait_s`. Batches of each size are apart:
    what a window's tokens are to the last bit must not go by what else there is to do."""

    def __init__(self, bundle: str, runtime: Runtime, mind: str = "") -> None:
        super().__init__(bundle, runtime.perception)
        self._runtime, self._mind_name = runtime, mind
        self._inboxes: dict[int, asyncio.Queue[Waiting]] = {}  # by the size of batches
        self._most_waiting = 0
        self._batches: dict[int, int] = {}  # batches by how many windows were in them
        self._delivery: tuple[list[Percept], asyncio.Future] | None = None  # what goes to the mind with the next call
        self._workers: list[asyncio.Task] = []

    async def encode(self, session: str, windows: list[Window], rows: int | None = None) -> list[Percept]:
        """The Percepts of windows that came together. rows: the size of their batches, of live windows a smaller one."""
        await self.ready()
        rows = rows or self._options.batch
        if rows not in self._inboxes:
            self._inboxes[rows] = asyncio.Queue()
            self._workers.append(asyncio.ensure_future(self._work(rows)))
        loop, inbox = asyncio.get_running_loop(), self._inboxes[rows]
        waiting = [(session, window, loop.create_future()) for window in windows]
        for each in waiting:
            inbox.put_nowait(each)
        self._most_waiting = max(self._most_waiting, inbox.qsize())
        return await asyncio.gather(*(done for _, _, done in waiting))

    async def encode_alone(self, session: str, windows: list[Window]) -> list[Percept]:
        """Windows that a gate has let pass, one by one: equal frames are encoded once."""
        await self.ready()
        found = await self._run(lambda: self._perception.encode_many([(session, w) for w in windows], rows=1, once=True))
        return [Percept.of(session, w, tokens) for w, tokens in zip(windows, found, strict=True)]

    async def pool(self, question: str, percepts: list[Percept]) -> list[Percept]:
        """Windows with tokens for this question, of those whose features are kept: `anymodal.asked`."""
        await self.ready()
        return await self._run(self._perception.pool, question, percepts)

    async def see(self, session: str, window: Window) -> None:
        """Encode a window and hand it to the mind. The reply is the window's credit: the mind has it."""
        (percept,) = await self.encode(session, [window])
        if self._delivery is None:  # what its batch holds besides goes with it
            self._delivery = [], asyncio.ensure_future(self._deliver())
        percepts, delivered = self._delivery
        percepts.append(percept)
        place = len(percepts) - 1
        if (error := (await asyncio.shield(delivered))[place]) is not None:
            raise error

    async def load(self) -> dict[str, Any]:
        """Windows waiting for a batch, now and at most; how many batches of which size; and the process id."""
        waiting = sum(inbox.qsize() for inbox in self._inboxes.values())
        return {"pid": os.getpid(), "waiting": waiting, "most_waiting": self._most_waiting, "batches": self._batches}

    # -- batches ------------------------------------------------------------------------------------------------

    def _build(self, bundle) -> None:
        self._perception = bundle.perception
        keep_freed_memory(KEPT_BYTES)
        os.nice(YIELDS)  # of the thread that computes, where there is Linux

    async def _work(self, rows: int) -> None:
        stage = Perceive(self._perception, batch=rows)
        while True:
            batch = await self._next_batch(self._inboxes[rows], rows)
            self._batches[len(batch)] = self._batches.get(len(batch), 0) + 1
            for percept, (_, _, done) in zip(await self._encode(stage, batch), batch):
                if not done.done():
                    (done.set_exception if isinstance(percept, Exception) else done.set_result)(percept)

    async def _next_batch(self, inbox: asyncio.Queue[Waiting], rows: int) -> list[Waiting]:
        batch = [await inbox.get()]
        deadline_s = asyncio.get_running_loop().time() + self._options.batch_wait_s
        while len(batch) < rows:
            try:
                async with asyncio.timeout_at(deadline_s):
                    batch.append(await inbox.get())
            except TimeoutError:
                break
        return batch

    async def _encode(self, stage: Perceive, batch: list[Waiting]) -> list[Percept | Exception]:
        """An error for a window that could not be encoded. One bad window spoils no other."""
        try:
            return await self._run(stage.encode, [(session, window) for session, window, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                return [as_fault(error, "perception")]
            return [percept for item in batch for percept in await self._encode(stage, [item])]

    async def _deliver(self) -> list[Exception | None]:
        """Hand the mind what was encoded together; tells for each window what was wrong with it, if anything."""
        await asyncio.sleep(0)  # every window of the batch is in by then
        percepts, _ = self._delivery
        self._delivery = None
        try:
            reply = ray.get_actor(self._mind_name).watch.remote(percepts)
            return await asyncio.wait_for(reply, self._runtime.stall_timeout_s)
        except Exception as error:
            return [as_fault(error, "mind")] * len(percepts)
