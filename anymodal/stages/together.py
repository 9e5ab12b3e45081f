"""A perception that the sessions of one process share: what comes while it is busy is encoded together.

    session --windows--\\
    session --windows----> waiting --as many as fill a batch--> perception --tokens--> each its own
    session --windows--/

Nobody waits for company: a free lane takes what there is. Whoever comes and gets a lane works for all who wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anymodal.stages.lanes import Lanes
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
    """As `Perception`, for several threads at once, which compute in `lanes`."""

    def __init__(self, perception: Perception, lanes: Lanes | None = None) -> None:
        self.perception, self.spec, self.lanes = perception, perception.spec, lanes or Lanes()
        self._news, self._leaders = threading.Condition(), self.lanes.count
        self._waiting: deque[_Job] = deque()
        self._under_way = 0

    @property
    def under_way(self) -> int:
        """Windows that wait or are being encoded."""
        return self._under_way

    def encode_many(self, items: Sequence[tuple[str, Window]], *, rows: int | None = None,
                    once: bool = False) -> list[list[Tokens]]:
        """See `Perception.encode_many`. Only fixed batches of `rows` are shared: in those a window's tokens do not depend
        on what else is in them."""
        if rows is None or once:
            with self.lanes.taken():
                return self.perception.encode_many(items, rows=rows, once=once)
        jobs = [_Job(item, rows, None if item[1].signals else []) for item in items]  # a gap has nothing to wait for
        mine = [job for job in jobs if job.found is None]
        with self._news:
            self._waiting.extend(mine)
            self._under_way += len(mine)
        try:
            while self._lead(mine):
                try:
                    with self.lanes.taken():
                        self._encode(self._batch())
                finally:
                    with self._news:
                        self._leaders += 1
                        self._news.notify_all()
        finally:
            with self._news:
                self._under_way -= len(mine)
        for job in jobs:
            if isinstance(job.found, BaseException):
                raise job.found
        return [job.found for job in jobs]

    def pool(self, question: str, percepts: Sequence[Percept]) -> list[Percept]:
        """See `Perception.pool`."""
        with self.lanes.taken(urgent=True):
            return self.perception.pool(question, percepts)

    def _lead(self, mine: list[_Job]) -> bool:
        """Wait until all of mine are done, or until there is work and this thread may do it."""
        with self._news:
            self._news.wait_for(lambda: (self._leaders and self._waiting) or all(job.found is not None for job in mine))
            if all(job.found is not None for job in mine):
                return False
            self._leaders -= 1
            return True

    def _batch(self) -> list[_Job]:
        """What waits now: it may be more, or less, than when the lane was asked for."""
        with self._news:
            batch: list[_Job] = []
            while self._waiting and self._waiting[0].rows == (batch or self._waiting)[0].rows > len(batch):
                batch.append(self._waiting.popleft())
            return batch

    def _encode(self, batch: list[_Job]) -> None:
        """One bad window spoils no other."""
        if not batch:
            return
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
