"""Room to compute in: as many threads at once as there are cores for, those that somebody waits for first.

Without it sixteen sessions on two cores all take turns in the middle of a window, and each is done when the last is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FAVOUR_S = 0.25  # of computing that urgent ones may be ahead by while others wait; beyond it both get the same


class Lanes:
    """At most `count` threads hold a lane, in the order in which they asked; urgent ones go before others, until these
    have had FAVOUR_S less of all lanes' time."""

    def __init__(self, count: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        if count < 1:
            raise ValueError(f"{count} lanes; at least one is needed")
        self.count = self._free = count
        self._guard, self._clock = threading.Lock(), clock
        self._ahead_s = 0.0  # urgent ones' time less that of others, within FAVOUR_S
        self._holders: set[int] = set()
        self._waiting: tuple[deque[threading.Event], deque[threading.Event]] = (deque(), deque())  # others, urgent ones

    @contextmanager
    def taken(self, urgent: bool = False) -> Iterator[None]:
        """Hold a lane; a thread that has one already goes on in it."""
        me = threading.get_ident()
        if me in self._holders:
            yield
            return
        self._take(urgent)
        self._holders.add(me)
        began_s = self._clock()
        try:
            yield
        finally:
            self._holders.discard(me)
            spent_s = self._clock() - began_s
            self._give_back(spent_s if urgent else -spent_s)

    def _take(self, urgent: bool) -> None:
        with self._guard:
            if self._free:  # then nobody waits
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting[urgent].append(turn)
        try:
            turn.wait()
        except BaseException:  # interrupted: hand on a lane that has come meanwhile
            with self._guard:
                came = turn.is_set()
                if not came:
                    self._waiting[urgent].remove(turn)
            if came:
                self._give_back()
            raise

    def _give_back(self, ahead_s: float = 0.0) -> None:
        with self._guard:
            self._ahead_s = min(FAVOUR_S, max(-FAVOUR_S, self._ahead_s + ahead_s))
            others, urgent = self._waiting
            if urgent and not (others and self._ahead_s >= FAVOUR_S):
                urgent.popleft().set()
            elif others:
                others.popleft().set()
            else:
                self._free += 1
