"""How often a client may call, and how much is done at once. What goes over is told when to come back: it never hangs.

All of this is for the event loop alone, except `Bucket`, which any one thread may have.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from actors.gateway.faults import Fault
from actors.gateway.settings import Settings

MOST_CLIENTS = 10_000  # that are remembered; the one longest unheard of is forgotten first


class Bucket:
    """A token bucket: `rate` tokens a second, at most `size` of them."""

    def __init__(self, rate: float, size: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.size, self._clock = rate, size, clock
        self._left, self._at_s = size, clock()

    @property
    def left(self) -> float:
        now_s = self._clock()
        self._left, self._at_s = min(self.size, self._left + (now_s - self._at_s) * self.rate), now_s
        return self._left

    def take(self, count: float = 1.0) -> float:
        """0.0 where there were enough, else seconds until there are; nothing is taken then."""
        left = self.left
        if left >= min(count, self.size):
            self._left -= count  # one that is larger than the bucket leaves a debt
            return 0.0
        return (min(count, self.size) - left) / self.rate


class Clients:
    """A bucket of requests for each client."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = settings.requests_per_min / 60, clock
        self._size = max(1.0, settings.requests_per_min)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def admit(self, client: str) -> Bucket:
        """Raises Fault (429) over the limit."""
        bucket = self._buckets.pop(client, None) or Bucket(self._rate, self._size, self._clock)
        self._buckets[client] = bucket
        while len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if wait_s := bucket.take():
            raise Fault(429, "rate_limit_exceeded", f"more than {self._size:g} requests a minute", retry_after_s=wait_s,
                        fix="wait as long as Retry-After says")
        return bucket


class Gate:
    """At most `most` at once, and `waiting` behind them, of which each client may have half."""

    def __init__(self, most: int, waiting: int) -> None:
        self.most, self.waiting = most, waiting
        self._free = asyncio.Semaphore(most)
        self._inside, self._queue = 0, 0
        self._of: dict[str, int] = {}

    @property
    def inside(self) -> int:
        return self._inside

    @property
    def queued(self) -> int:
        return self._queue

    @asynccontextmanager
    async def enter(self, client: str = "") -> AsyncIterator[None]:
        """Raises Fault (429) where too many are waiting already."""
        share = max(1, (self.most + self.waiting) // 2)
        busy = self._free.locked() and self._queue >= self.waiting
        if busy or self._of.get(client, 0) >= share:
            raise Fault(429, "server_busy", f"{self._inside} requests are worked on and {self._queue} wait",
                        retry_after_s=2.0, fix="come back as Retry-After says")
        self._of[client] = self._of.get(client, 0) + 1
        try:
            self._queue += 1
            try:
                await self._free.acquire()
            finally:
                self._queue -= 1
            self._inside += 1
            try:
                yield
            finally:
                self._inside -= 1
                self._free.release()
        finally:
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]


class Share:
    """Counted places, all together and per client: live sessions, sockets."""

    def __init__(self, what: str, most: int, most_each: int) -> None:
        self.what, self.most, self.most_each = what, most, most_each
        self._of: dict[str, int] = {}

    @property
    def taken(self) -> int:
        return sum(self._of.values())

    def take(self, client: str) -> None:
        """Raises Fault (429) where there is no place; each one taken is to be given back."""
        for taken, most, whose in ((self.taken, self.most, "the server"), (self._of.get(client, 0), self.most_each, "you")):
            if taken >= most:
                raise Fault(429, "too_many_" + self.what, f"{whose} may have {most} {self.what} at once",
                            retry_after_s=5.0, fix="close one, or come back later")
        self._of[client] = self._of.get(client, 0) + 1

    def give_back(self, client: str) -> None:
        left = self._of.get(client, 0) - 1
        if left > 0:
            self._of[client] = left
        else:
            self._of.pop(client, None)
