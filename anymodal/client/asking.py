"""A question on its way: iterate it for the text as it is made, or await the whole answer.

    async for piece in asking:          Delta, Delta, ..., and at last the Answer
    answer = await asking               the Answer alone
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

from anymodal.client.errors import AnswerError
from anymodal.errors import AnymodalError
from anymodal.types import Answer, Delta, Evidence


class Asking:
    """Either way it raises ClientError; iterated to its end once, it can still be awaited. Not from two tasks at once."""

    def __init__(self, pieces: AsyncIterator[Delta | Answer],
                 cancel: Callable[[], Awaitable[None]] | None = None) -> None:
        self._pieces, self._cancel = pieces, cancel
        self._answer: Answer | None = None
        self._error: AnymodalError | None = None
        self._waiting: asyncio.Future[Delta | Answer] | None = None

    def __aiter__(self) -> Asking:
        return self

    async def __anext__(self) -> Delta | Answer:
        if self._error is not None:
            raise self._error
        self._waiting = asyncio.ensure_future(anext(self._pieces))
        try:
            piece = await self._waiting
        except AnymodalError as error:
            self._error = error
            raise
        except asyncio.CancelledError:
            if self._error is None:
                raise
            raise self._error from None
        if isinstance(piece, Answer):
            self._answer = piece
        return piece

    async def answer(self) -> Answer:
        """What is left of the text is passed over."""
        while self._answer is None:
            try:
                await self.__anext__()
            except StopAsyncIteration:
                raise AnswerError("the answer was given up") from None
        return self._answer

    def __await__(self) -> Generator[Any, None, Answer]:
        return self.answer().__await__()

    async def cancel(self) -> None:
        """Give it up: it ends in AnswerError, and the server stops as soon as it can."""
        if self._answer is not None or self._error is not None:
            return
        if self._cancel is not None:
            await self._cancel()
            return
        self._error = AnswerError("the answer was cancelled")
        if self._waiting is not None and not self._waiting.done():
            self._waiting.cancel()


def answer_of(question: str, text: str, extras: dict[str, Any] | None) -> Answer:
    """`extras`: what a server puts beside OpenAI's keys, under `anymodal`; a server without leaves them at nothing."""
    said = extras or {}
    last, missing = said.get("last_window"), int(said.get("windows_missing") or 0)
    windows = 0 if last is None else last + 1 - missing
    return Answer(
        question, text, float(said.get("confidence") or 0.0),
        tuple(Evidence(float(e["start_s"]), float(e["end_s"]), str(e["modality"])) for e in said.get("evidence") or ()),
        frames_seen=int(said.get("frames_seen") or 0), frames_dropped=int(said.get("frames_dropped") or 0),
        windows_seen=int(said.get("windows_seen") or windows), ttft_s=float(said.get("time_to_first_token_s") or 0.0),
        last_window=last, windows_missing=missing, stale_s=float(said.get("stale_s") or 0.0),
        windows=tuple(map(int, said.get("windows") or ())))
