"""What is pushed to a session: packets on their way to be windows, and windows that wait for their turn."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from anymodal.media.spec import StreamSpec
from anymodal.session.feeder import Arrived, Feeder, Inbox
from anymodal.session.intake import Intake
from anymodal.types import Packet


class Pushes:
    """For callers that hold `lock`, which a push holds while it waits for room.

    live, stale_s: see `Inbox`. idle_timeout_s: a stream silent for so long is not waited for.
    """

    def __init__(self, window_s: float, streams: Mapping[str, StreamSpec], lock: threading.RLock, *, live: bool,
                 stale_s: float, idle_timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s, self._streams, self._lock = window_s, streams, lock
        self._live, self._stale_s, self._idle_timeout_s, self.clock = live, stale_s, idle_timeout_s, clock
        self._inbox: Inbox | None = None
        self._intake: Intake | None = None
        self._patient = False

    @property
    def going_on(self) -> bool:
        """Has something been pushed, and was not flushed since?"""
        return self._intake is not None

    def begin(self, first_window: int, room: Callable[[], int], take: Callable[[list[Arrived]], None]) -> Feeder:
        """The thread that takes windows, at most `room()` at once."""
        inbox = self._inbox = Inbox(live=self._live, stale_s=self._stale_s, clock=self.clock)
        intake = self._intake = Intake(self._window_s, self._streams, first_window, idle_timeout_s=self._idle_timeout_s,
                                       clock=self.clock, patient=self._patient)

        def tick() -> None:
            if self._lock.acquire(blocking=False):  # a push that is under way comes first
                try:
                    inbox.put(intake.tick())
                finally:
                    self._lock.release()

        waits = math.isfinite(self._idle_timeout_s)
        return Feeder("pushed packets", inbox.batches(room, tick if waits else lambda: None), take)

    def push(self, packet: Packet) -> tuple[float, Exception | None]:
        """The end of the newest sample, and what was wrong with the packet, if anything. Raises BusyError."""
        self._inbox.wait_for_room()
        windows, error = self._intake.push(packet)
        self._inbox.put(windows)
        return self._intake.newest_s, error

    def flush(self) -> None:
        """Nothing more comes: windows that were cut short wait too."""
        if self._intake is not None:
            self._inbox.put(self._intake.flush())
            self._inbox.close()
            self._intake = None

    def be_patient(self) -> None:
        self._patient = True
        if self._intake is not None:
            self._intake.be_patient()

    def forget(self) -> None:
        """What was pushed and is in no window yet: its thread has ended."""
        self._intake = None

    def close(self) -> None:
        """Windows that wait are the last."""
        if self._inbox is not None:
            self._inbox.close()
