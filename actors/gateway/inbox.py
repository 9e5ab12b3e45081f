"""What a client has sent and nobody has worked on: bounded, so that a client that floods hurts itself alone."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from actors.gateway.faults import Fault
from actors.gateway.inputs import Piece
from anymodal import protocol as p
from anymodal.protocol import ClientEvent

MOST_MEDIA, MOST_MEDIA_BYTES = 512, 32 * 2**20
MOST_OTHERS = 256
BATCH, BATCH_BYTES = 32, 2**20  # media taken at once


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event, with what `Inputs.place` made of the media in it. `flush`: what came before it is to be seen first."""

    event: ClientEvent
    pieces: tuple[Piece, ...]
    size: int
    flush: bool = False

    @property
    def is_media(self) -> bool:
        return isinstance(self.event, p.InputAppend | p.AudioAppend)

    @property
    def number(self) -> int:
        return self.event.anymodal.seq if self.event.anymodal else 0


class Inbox:
    """In order. Too many media push out the oldest; too many others are refused. `shed`: media that were not used, by
    stream, to be told with the next window.

    stale_s: media that have waited for longer, while as much newer have come, are given up too, and counted by `stale`:
    later windows are due then.
    """

    def __init__(self, stale_s: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self.shed: Counter[str] = Counter()
        self.stale = 0
        self._stale_s, self._clock = stale_s, clock
        self._newest_s = 0.0  # media time
        self._waiting: deque[Waiting] = deque()
        self._since_s: deque[float] = deque()  # when each of them came, by the clock
        self._media = self._media_bytes = 0
        self._come = asyncio.Event()

    def put(self, waiting: Waiting) -> int:
        """How many media it pushed out. Raises Fault (429)."""
        if not waiting.is_media and len(self._waiting) - self._media >= MOST_OTHERS:
            raise Fault(429, "inbox_full", f"{MOST_OTHERS} events wait to be worked on", fix="send fewer at a time")
        self._waiting.append(waiting)
        self._since_s.append(self._clock())
        self._come.set()
        shed = 0
        if waiting.is_media:
            self._newest_s = max(self._newest_s, *(piece.end_s for piece in waiting.pieces))
            self._media, self._media_bytes = self._media + 1, self._media_bytes + waiting.size
            while self._media > MOST_MEDIA or (self._media_bytes > MOST_MEDIA_BYTES and self._media > 1):
                self._shed_oldest()
                shed += 1
        return shed

    async def next(self) -> list[Waiting]:
        """The next event; of media as many as are taken at once."""
        self._give_up_stale()
        while not self._waiting:
            self._come.clear()
            await self._come.wait()
        batch = [self._take()]
        if not batch[0].is_media:
            return batch
        size = batch[0].size
        while (self._waiting and self._waiting[0].is_media and len(batch) < BATCH
               and size + self._waiting[0].size < BATCH_BYTES):
            batch.append(self._take())
            size += batch[-1].size
        self._media, self._media_bytes = self._media - len(batch), self._media_bytes - size
        return batch

    def _take(self) -> Waiting:
        self._since_s.popleft()
        return self._waiting.popleft()

    def _give_up_stale(self) -> None:
        """Media at the head whose time is over."""
        while self._waiting and self._waiting[0].is_media:
            behind_s = self._newest_s - max(piece.end_s for piece in self._waiting[0].pieces)
            if min(behind_s, self._clock() - self._since_s[0]) <= self._stale_s:
                return
            self._shed_oldest()
            self.stale += 1

    def _shed_oldest(self) -> None:
        at = next(at for at, waiting in enumerate(self._waiting) if waiting.is_media)
        self._media, self._media_bytes = self._media - 1, self._media_bytes - self._waiting[at].size
        self.shed.update(piece.stream for piece in self._waiting[at].pieces)
        del self._waiting[at], self._since_s[at]
