"""An answer on its way, which any thread may cancel."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from anymodal.types import Answer, Delta

if TYPE_CHECKING:
    from anymodal.session.session import Session


class Asking(Iterator[Delta | Answer]):
    """An answer on its way: iterate it for its text. One thread iterates, any may `cancel`: then it simply ends.

    stale_s: of media that had come in when it was asked and were not yet seen.
    """

    def __init__(self, session: Session, question: str, at_s: float | None, dialogue: str | None, wait_s: float,
                 stale_s: float = 0.0, key: str = "") -> None:
        self.stale_s, self.key = stale_s, key
        self.question, self.at_s, self.dialogue, self.wait_s = question, at_s, dialogue, wait_s
        self.began_s = time.perf_counter()
        self._session, self._cancelled = session, threading.Event()
        self._pieces = session._answer(self)

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop, at the latest after the token that is being made. Nothing of the answer is kept."""
        self._cancelled.set()

    def stopped(self) -> bool:
        return self.cancelled or self._session._closed

    def __next__(self) -> Delta | Answer:
        if self.cancelled:
            self._pieces.close()
            raise StopIteration
        return next(self._pieces)
