"""The mind's host: percepts and questions in; text out, which its asker fetches."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from actors.faults import as_fault
from actors.runtime import Runtime
from anymodal.errors import AnymodalError, BusyError, RuntimeFault
from anymodal.stages.items import Closing, Opening, Percept, Question
from anymodal.stages.think import Piece, Think
from anymodal.threads import limit_threads

POLL_S = 2.0  # `read` answers at least this often


@dataclass
class _Outbox:
    """What was said and not yet fetched: at most a session's answers."""

    pieces: list[Piece] = field(default_factory=list)
    error: AnymodalError | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    answering: asyncio.Task | None = None


class MindActor:
    """Everything it computes goes through one thread, a window or a token at a time, so that sessions take turns."""

    def __init__(self, bundle: str, runtime: Runtime) -> None:
        limit_threads(runtime.mind.thread_count)
        self._bundle, self._runtime, self._options = bundle, runtime, runtime.mind
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="think")
        self._outboxes: dict[str, _Outbox] = {}
        self._loading: asyncio.Task | None = None

    async def ready(self) -> int:
        """Load the language model; returns the process id."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load())
        await asyncio.shield(self._loading)
        return os.getpid()

    async def open(self, session: str) -> None:
        """Begin a session. Raises BusyError when there are `clips` of them."""
        await self.ready()
        if len(self._outboxes) >= self._runtime.clips:
            raise BusyError(f"the mind has {len(self._outboxes)} sessions, its limit",
                            fix="ask again later, or raise runtime.clips")
        self._outboxes[session] = _Outbox()
        await self._run(self._stage.push, Opening(session))

    async def watch(self, percepts: list[Percept]) -> list[AnymodalError | None]:
        """Take windows of any sessions; tells for each what was wrong with it, if anything."""
        await self.ready()
        return [await self._run(self._take, percept) for percept in percepts]

    async def ask(self, questions: list[Question]) -> None:
        """Begin to answer a session's questions, one after the other; `read` fetches the text."""
        session = questions[0].session
        outbox = self._find(session)
        outbox.answering = asyncio.ensure_future(self._answer(questions, outbox))

    async def read(self, session: str) -> list[Piece]:
        """What was said since the last call; waits a while for something. Raises what went wrong with an answer."""
        outbox = self._find(session)
        if not outbox.pieces and outbox.error is None:
            try:
                await asyncio.wait_for(outbox.news.wait(), POLL_S)
            except TimeoutError:
                return []
        outbox.news.clear()
        pieces, outbox.pieces = outbox.pieces, []
        if not pieces and outbox.error is not None:
            raise outbox.error
        return pieces

    async def close(self, session: str) -> None:
        """End a session, answered or not."""
        outbox = self._outboxes.pop(session, None)
        if outbox is not None and outbox.answering is not None:
            outbox.answering.cancel()
        if self._loading is not None:
            await self._run(self._stage.push, Closing(session))

    async def load(self) -> dict[str, int]:
        """Open sessions, and the process id."""
        return {"pid": os.getpid(), "sessions": len(self._outboxes)}

    # -- inside -------------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        def load() -> Think:
            from anymodal.agent import check_device
            from anymodal.bundle import load_bundle

            check_device(self._options.device)
            return Think(load_bundle(self._bundle, device=self._options.device, dtype=self._options.dtype).mind)

        self._stage = await self._run(load)

    async def _run(self, function: Callable, *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._compute, function, *given)

    def _take(self, percept: Percept) -> AnymodalError | None:
        try:
            self._stage.push(percept)
            return None
        except Exception as error:
            return as_fault(error, "mind")

    async def _answer(self, questions: list[Question], outbox: _Outbox) -> None:
        try:
            for question in questions:
                pieces = iter(self._stage.push(question))
                while (piece := await self._run(next, pieces, None)) is not None:
                    outbox.pieces.append(piece)
                    outbox.news.set()
        except Exception as error:
            outbox.error = as_fault(error, "mind")
            outbox.news.set()

    def _find(self, session: str) -> _Outbox:
        if session not in self._outboxes:
            raise RuntimeFault("the mind does not know this session: it ended, or the mind was restarted",
                               fix="ask again from the start of the clip")
        return self._outboxes[session]
