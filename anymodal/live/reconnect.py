"""When a lost source is tried again: later each time, and not all sources at the same moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits of `first_s`, then `factor` times as long each, up to `most_s`; each up to the share `jitter` shorter or
    longer. A connection that held for `steady_s` starts it over."""

    first_s: float = 0.5
    most_s: float = 30.0
    factor: float = 2.0
    jitter: float = 0.25
    steady_s: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.first_s <= self.most_s and self.factor >= 1 and 0 <= self.jitter < 1):
            raise ValueError(f"not a backoff: {self}")

    def wait_s(self, attempt: int, rng: random.Random) -> float:
        """Before attempt 1, 2, ... after a loss."""
        grown = min(self.most_s, self.first_s * self.factor ** min(attempt - 1, 64))
        return grown * (1 + self.jitter * rng.uniform(-1, 1))


class Reconnect:
    """Counts the attempts of one source, on an injected clock."""

    def __init__(self, backoff: Backoff | None = None, *, clock: Callable[[], float] = time.monotonic,
                 rng: random.Random | None = None) -> None:
        self.backoff = backoff or Backoff()
        self._clock, self._rng = clock, rng or random.Random()
        self._connected_s: float | None = None
        self._due_s = clock()
        self.attempt = 0

    def connected(self) -> None:
        self._connected_s = self._clock()

    def lost(self) -> float:
        """The connection, or an attempt, has failed: seconds until the next one."""
        now_s = self._clock()
        if self._connected_s is not None and now_s - self._connected_s >= self.backoff.steady_s:
            self.attempt = 0
        self._connected_s = None
        self.attempt += 1
        self._due_s = now_s + self.backoff.wait_s(self.attempt, self._rng)
        return self.left_s

    @property
    def left_s(self) -> float:
        """Seconds until the next attempt is due."""
        return max(0.0, self._due_s - self._clock())
