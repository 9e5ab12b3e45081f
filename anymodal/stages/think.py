"""Percepts and questions in, text out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from anymodal.asked import Recent
from anymodal.errors import RuntimeFault
from anymodal.stages.items import Closing, Opening, Percept, Question
from anymodal.types import Answer, Delta

if TYPE_CHECKING:
    from anymodal.language.mind import Mind, MindState

Piece = tuple[int, Delta | Answer]


@dataclass
class _Session:
    state: MindState
    recent: Recent
    next: int = 0  # the window that may enter now
    early: dict[int, Percept] = field(default_factory=dict)


class Think:
    """Sessions of a mind. Windows enter in order, each once: early ones wait for their turn, repeated ones are passed
    over."""

    def __init__(self, mind: Mind) -> None:
        self.mind = mind
        self._sessions: dict[str, _Session] = {}

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def push(self, item: Opening | Percept | Question | Closing) -> Iterable[Piece]:
        """A Question streams (its number, Delta | Answer); the others act at once and give nothing.

        Raises RuntimeFault for a session that is not open here, and for a question that came before its windows.
        """
        if isinstance(item, Question):
            return self._answer(item)
        if isinstance(item, Percept):
            self._watch(item)
        elif isinstance(item, Opening):
            self._sessions[item.session] = _Session(self.mind.open(), Recent(self.mind.spec))
        else:
            self._sessions.pop(item.session, None)
        return ()

    def recent(self, session: str) -> tuple[list[Percept], bool]:
        """The windows that a question is to be pooled over (`anymodal.asked`), and whether there have been any."""
        found = self._find(session)
        return found.recent.choose(), bool(found.next)

    def _find(self, session: str) -> _Session:
        if session not in self._sessions:
            raise RuntimeFault("the mind does not know this session: it ended, or the mind was restarted",
                               fix="ask again from the start of the clip")
        return self._sessions[session]

    def _watch(self, percept: Percept) -> None:
        session = self._find(percept.session)
        if percept.index >= session.next:
            session.early[percept.index] = percept
        while (due := session.early.pop(session.next, None)) is not None:
            self.mind.extend(session.state, due)
            session.recent.note([due])
            session.next += 1

    def _answer(self, question: Question) -> Iterator[Piece]:
        session = self._find(question.session)
        if session.early or question.windows not in (None, session.next):
            wanted = "more" if question.windows is None else question.windows
            raise RuntimeFault(f"{session.next} windows have reached the mind, {wanted} were expected",
                               fix="ask again from the start of the clip")
        for piece in self.mind.answer(session.state, question.text, at_s=question.at_s,
                                       recalled=question.pooled):
            yield question.number, piece


def time_first_tokens(pieces: Iterable[Piece], began_s: float) -> Iterator[Piece]:
    """Set every answer's time to first token to what its asker waited: from `began_s` (of time.perf_counter)."""
    first_s: dict[int, float] = {}
    for number, piece in pieces:
        waited_s = first_s.setdefault(number, time.perf_counter() - began_s)
        yield number, replace(piece, ttft_s=waited_s) if isinstance(piece, Answer) else piece
