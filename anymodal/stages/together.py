"""A perception that the sessions of one process share: what comes while it is busy is encoded together.

    session --windows--\\
    session --windows----> waiting --as many as fill a batch--> perception --tokens--> each its own
    session --windows--/

Nobody waits for company: a free lane takes what there is. Whoever comes and finds a lane free works for all who wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anymodal.types import Tokens, Window

if TYPE_CHECKING:
    from anymodal.perception import Perception
    from anymodal.stages.items import Percept


@dataclass(slots=True, eq=False)
class _Job:
    """A window on its way. `found`: its tokens, or what was wrong with it."""

    item: tuple[str, Window]
    rows: int
    found: list[Tokens] | BaseException | None = None


class Together:
    """As `Perception`, for several threads at once. `lanes`: batches that are encoded at the same time."""

    def __init__(self, perception: Perception, lanes: int = 1) -> None:
        self.perception, self.spec = perception, perception.spec
        self._news, self._free = threading.Condition(), lanes
        self._waiting: deque[_Job] = deque()

    @property
    def waiting(self) -> int:
        """Windows that nobody works on yet."""
        return len(self._waiting)

    def encode_many(self, items: Sequence[tuple[str, Window]], *, rows: int | None = None,
                    once: bool = False) -> list[list[Tokens]]:
        """See `Perception.encode_many`. Only fixed batches of `rows` are shared: in those a window's tokens do not depend
        on what else is in them."""
        if rows is None or once:
            with self._news:
                self._news.wait_for(lambda: self._free)
                self._free -= 1
            try:
                return self.perception.encode_many(items, rows=rows, once=once)
            finally:
                self._release()
        jobs = [_Job(item, rows) for item in items]
        with self._news:
            self._waiting.extend(jobs)
        while (batch := self._next(jobs)) is not None:
            try:
                self._encode(batch)
            finally:
                self._release()
        for job in jobs:
            if isinstance(job.found, BaseException):
                raise job.found
        return [job.found for job in jobs]

    def pool(self, question: str, percepts: Sequence[Percept]) -> list[Percept]:
        """See `Perception.pool`."""
        with self._news:
            self._news.wait_for(lambda: self._free)
            self._free -= 1
        try:
            return self.perception.pool(question, percepts)
        finally:
            self._release()

    def _next(self, mine: list[_Job]) -> list[_Job] | None:
        """A lane and a batch to encode in it; None once all of mine are done."""
        with self._news:
            self._news.wait_for(lambda: (self._free and self._waiting) or all(job.found is not None for job in mine))
            if all(job.found is not None for job in mine):
                return None
            self._free -= 1
            rows, batch = self._waiting[0].rows, []
            while self._waiting and self._waiting[0].rows == rows and len(batch) < rows:
                batch.append(self._waiting.popleft())
            return batch

    def _encode(self, batch: list[_Job]) -> None:
        """One bad window spoils no other."""
        try:
            for job, found in zip(batch, self.perception.encode_many([job.item for job in batch], rows=batch[0].rows)):
                job.found = found
        except Exception as error:
            if len(batch) == 1:
                batch[0].found = error
                return
            for job in batch:
                self._encode([job])
        except BaseException as error:  # this thread is to end; who waits for it has to hear of that
            for job in batch:
                job.found = job.found or error
            raise

    def _release(self) -> None:
        with self._news:
            self._free += 1
            self._news.notify_all()
