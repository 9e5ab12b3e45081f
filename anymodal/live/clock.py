"""The media clock of live sources: one for a session, and each connection's own times mapped onto it.

A file's time comes from its pts alone. What is live has no end to count from and is lost and found again, so the
session's time goes by with the (injected) clock, and each connection is laid onto it: its first packet is now, and what
follows is as much later as its pts say. What arrives ahead of its time is held until then; a connection that falls
behind because nothing came is laid on anew, later. So time never goes back, and two sources that started together stay
together.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from fractions import Fraction

LATE_S = 0.5  # behind the clock by more than this is late; the windower itself has a second of patience


class MediaClock:
    """Seconds of media time since the session began: `start_s` at the moment it is made, or begun."""

    def __init__(self, start_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self.begin(start_s)

    def begin(self, start_s: float = 0.0) -> None:
        """Now is `start_s`."""
        with self._lock:
            self._start_s, self._began_s = start_s, self.clock()

    def now_s(self) -> float:
        with self._lock:
            return self._start_s + self.clock() - self._began_s

    def hold(self, seconds: float) -> None:
        """Take back a stretch in which nothing was seen at all. Nothing may have been mapped into it."""
        with self._lock:
            self._start_s -= seconds


class Timeline:
    """One connection's pts on the session's clock. `offset_s` is what is added; None before the first packet. `first_s`:
    the earliest time of the session that its first packet may get.

    Its streams are moved together, except one whose times do not agree with the others' (some servers let each begin where
    it likes): `own_s` is what is added to that one alone.
    """

    def __init__(self, clock: MediaClock, first_s: float = 0.0) -> None:
        self._clock, self._first_s = clock, first_s
        self.offset_s: float | None = None
        self.own_s: dict[str, float] = {}
        self._heard_s = 0.0

    def arrived(self, stream: str, time_s: float, waited: bool) -> float:
        """Note the decoding time of a packet that has just come. Returns by how many seconds the timeline was moved on:
        more than 0 if nothing had come for so long that its time had passed. `waited`: it was waited for, so it was not us
        who were slow."""
        now_s, heard_s = self._clock.now_s(), self._heard_s
        self._heard_s = now_s
        if self.offset_s is None:
            self.offset_s = max(now_s, self._first_s) - time_s
            return 0.0
        late_s = now_s - self.at(stream, time_s)
        if late_s <= LATE_S or not waited:
            return 0.0
        if now_s - heard_s < late_s - LATE_S:  # the others came meanwhile
            self.own_s[stream] = self.own_s.get(stream, 0.0) + late_s
            return 0.0
        self.offset_s += late_s
        return late_s

    def late_s(self, stream: str, time_s: float) -> float:
        """By how much the clock has passed a packet's time."""
        return self._clock.now_s() - self.at(stream, time_s)

    def at(self, stream: str, time_s: float | Fraction) -> float:
        """The session's time of a moment of a stream's."""
        return float(time_s) + self.of(stream)

    def of(self, stream: str) -> float:
        """What is added to a stream's times."""
        return (self.offset_s or 0.0) + self.own_s.get(stream, 0.0)


def common_step_s(rates_hz: Iterable[Fraction]) -> float:
    """The shortest time that is a whole number of steps at each rate: what is moved by it stays on its grid."""
    steps = [1 / rate for rate in rates_hz]
    if not steps:
        return 1.0
    return math.lcm(*(s.numerator for s in steps)) / math.gcd(*(s.denominator for s in steps))
