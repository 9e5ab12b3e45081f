"""The mind's host: percepts and questions in; text out, which its asker fetches."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from actors.faults import as_fault
from actors.hosting import Host
from actors.runtime import Runtime
from anymodal.errors import AnymodalError, BusyError, RuntimeFault
from anymodal.stages.items import Closing, Opening, Percept, Question
from anymodal.stages.think import Piece, Think

POLL_S = 2.0  # `read` answers at least this often


@dataclass
class _Outbox:
    """What was said and not yet fetched: at most a session's answers."""

    pieces: list[Piece] = field(default_factory=list)
    error: AnymodalError | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    answering: asyncio.Task | None = None


class MindActor(Host):
    """Everything it computes goes through one thread, a window or a token at a time, so that sessions take turns."""

    def __init__(self, bundle: str, runtime: Runtime) -> None:
        super().__init__(bundle, runtime.mind)
        self._runtime = runtime
        self._outboxes: dict[str, _Outbox] = {}

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

    async def recent(self, session: str) -> tuple[list[Percept], bool]:
        """The windows that a question is to be pooled over (`anymodal.asked`), and whether there have been any."""
        await self.ready()
        return self._stage.recent(session)

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

    def _build(self, bundle) -> None:
        self._stage = Think(bundle.mind)

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
