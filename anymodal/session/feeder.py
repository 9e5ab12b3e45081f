"""Bringing windows to a session: a thread for what is fed, and the inbox of what is pushed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction

from anymodal.errors import AnymodalError, BusyError
from anymodal.media.spec import exact
from anymodal.stages.items import VIDEO
from anymodal.types import Window

Arrived = tuple[Window, str]  # a window, and why it has nothing, or ""
MOST_WAITING = 16  # windows in an inbox
TICK_S = 0.2  # how often silent streams are looked at
PUSH_TIMEOUT_S = 60.0  # how long a push waits for room
STOP_TIMEOUT_S = 60.0  # how long a thread may take to finish the windows in its hands


class Feeder:
    """A thread that hands batches on until there are no more, or until it is told to stop. `error`: what ended it."""

    def __init__(self, name: str, batches: Iterator[list[Arrived]], take: Callable[[list[Arrived]], None],
                 done: Callable[[], None] = lambda: None) -> None:
        self.name, self.error = name, None
        self._batches, self._take, self._done = batches, take, done
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"feed {name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask it to end after the batch in its hands."""
        self._stopping.set()

    def join(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Wait for its end; tells whether it ended. From its own thread it does not wait."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self.running

    def _run(self) -> None:
        try:
            with closing(self._batches):
                for batch in self._batches:
                    self._take(batch)
                    if self._stopping.is_set():
                        return
            self._done()
        except Exception as error:
            self.error = error


class Inbox:
    """Windows that wait for the session. A full one makes a push wait; of a live source it sheds the oldest instead,
    which become gaps."""

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._waiting: deque[Arrived] = deque()
        self._news = threading.Condition()
        self._closed = False

    def wait_for_room(self) -> None:
        """Raises BusyError when there is none for long."""
        with self._news:
            if not self._live and not self._news.wait_for(
                    lambda: self._closed or len(self._waiting) < MOST_WAITING, PUSH_TIMEOUT_S):
                raise BusyError(f"{len(self._waiting)} windows have waited for {PUSH_TIMEOUT_S:g} s",
                                fix="push it again later, or open the session with live=True")

    def put(self, windows: Iterable[Window]) -> None:
        """Add windows, room or not: a packet may complete many."""
        with self._news:
            for window in windows:
                self._waiting.append((window, ""))
                self._shed()
            self._news.notify_all()

    def batches(self, size: int, tick: Callable[[], None] = lambda: None) -> Iterator[list[Arrived]]:
        """At most `size` windows at a time, as they come, until it is closed and empty."""
        try:
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._closed or self._waiting, TICK_S)
                    batch = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
                    ended = self._closed and not batch
                    self._news.notify_all()
                if ended:
                    return
                if batch:
                    yield batch
                else:
                    tick()
        finally:  # also when its reader has failed: nobody waits for room then
            self.close()

    def close(self) -> None:
        """No more will come."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def _shed(self) -> None:
        fresh = [i for i, (window, gap) in enumerate(self._waiting) if window.signals and not gap]
        if self._live and len(fresh) > MOST_WAITING:
            window, _ = self._waiting[fresh[0]]
            lost = {name: len(s.data) for name, s in window.signals.items() if s.modality == VIDEO}
            dropped = {name: window.dropped.get(name, 0) + lost.get(name, 0) for name in {*window.dropped, *lost}}
            self._waiting[fresh[0]] = (replace(window, signals={}, dropped=dropped), "shed: the session was too busy")


def in_batches(windows: Iterable[Window], size: int, first_window: int, window_s: float) -> Iterator[list[Arrived]]:
    """Some media's windows as the session's: they begin where its window `first_window` does."""
    batch: list[Arrived] = []
    try:
        for window in windows:
            batch.append((moved(window, first_window, window_s), ""))
            if len(batch) == size:
                yield batch
                batch = []
    except AnymodalError:  # the media broke off: what came before is whole
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def moved(window: Window, by: int, window_s: float) -> Window:
    """A window `by` windows later."""
    if not by:
        return window
    hop = exact(window_s)

    def later(t_s: float) -> float:
        return float(Fraction(t_s).limit_denominator(10**9) + by * hop)

    signals = {name: replace(s, t0_s=later(s.t0_s)) for name, s in window.signals.items()}
    index = window.index + by
    return replace(window, index=index, t0_s=float(index * hop), t1_s=float((index + 1) * hop), signals=signals)
