"""What a live session has said and may have to say again: numbered, in order, and bounded.

Everything stays here until the server says that it is safe. When there is no room, the oldest media go; questions, rules
and the like never do. What went before it was sent is dropped; what went after that is dropped only if the server turns
out not to have got it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass

from anymodal.client.errors import OverloadedError

REMEMBERED = 100_000  # numbers of what went after it was sent


@dataclass(frozen=True, slots=True)
class Parcel:
    """`stream`: of media; None for what must not be lost."""

    seq: int
    text: str
    stream: str | None

    @property
    def size(self) -> int:
        return len(self.text)  # nearly all of it is base64


class Outbox:
    """For one event loop. `dropped`: media that never arrived, by stream."""

    def __init__(self, most_bytes: int, first_seq: int = 1) -> None:
        self._most_bytes = most_bytes
        self._next = first_seq
        self._kept: dict[int, Parcel] = {}  # in order of their numbers
        self._unsent: deque[int] = deque()
        self._media: deque[int] = deque()  # those of `_kept` that may go
        self._gone: deque[tuple[int, str]] = deque(maxlen=REMEMBERED)  # sent, not safe, and no longer kept
        self._news, self._idle = asyncio.Event(), asyncio.Event()
        self.bytes = 0
        self.dropped: Counter[str] = Counter()

    @property
    def next_seq(self) -> int:
        return self._next

    @property
    def oldest(self) -> int:
        """The first number that is kept, 0 for none."""
        return next(iter(self._kept), 0)

    @property
    def unsent(self) -> int:
        """How many wait to be sent."""
        return len(self._unsent)

    def put(self, text: str, stream: str | None = None) -> int:
        """Keep and queue an event that carries the number `next_seq`; returns it. Raises OverloadedError where what must
        not be lost has no room."""
        parcel = Parcel(self._next, text, stream)
        self._make_room(parcel.size)
        if self.bytes + parcel.size > self._most_bytes:
            if stream is None:
                raise OverloadedError(f"{self.bytes} bytes wait to be sent, and {parcel.size} more have no room",
                                      fix="wait until the server has taken some, or raise buffer_bytes")
            self.dropped[stream] += 1
            self._next += 1
            return parcel.seq
        self._next += 1
        self._kept[parcel.seq] = parcel
        self._unsent.append(parcel.seq)
        self._idle.clear()
        if stream is not None:
            self._media.append(parcel.seq)
        self.bytes += parcel.size
        self._news.set()
        return parcel.seq

    async def emptied(self) -> None:
        """Waits until all has been sent."""
        await self._idle.wait()

    async def take(self) -> Parcel:
        """The next to send; waits for one."""
        while not self._unsent:
            self._idle.set()
            self._news.clear()
            await self._news.wait()
        return self._kept[self._unsent.popleft()]

    def safe(self, seq: int) -> None:
        """Nothing up to this number is needed any more."""
        while self._kept and (first := next(iter(self._kept))) <= seq:
            self.bytes -= self._kept.pop(first).size
        for queue in (self._unsent, self._media):
            while queue and queue[0] <= seq:
                queue.popleft()
        while self._gone and self._gone[0][0] <= seq:
            self._gone.popleft()

    def rewind(self, taken: int) -> None:
        """On a new connection: what the server has not taken, up to that number, is sent again."""
        while self._gone and self._gone[-1][0] > taken:
            self.dropped[self._gone.pop()[1]] += 1
        self._unsent = deque(seq for seq in self._kept if seq > taken)
        self._idle.clear()
        self._news.set()

    def _make_room(self, size: int) -> None:
        while self._media and self.bytes + size > self._most_bytes:
            seq = self._media.popleft()
            parcel = self._kept.pop(seq)
            self.bytes -= parcel.size
            if self._unsent and self._unsent[0] <= seq:  # it was not sent: numbers are sent in order
                self._unsent.remove(seq)
                self.dropped[parcel.stream] += 1
            else:
                self._gone.append((seq, parcel.stream))
