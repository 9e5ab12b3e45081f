"""Bringing windows to a session: a thread for what is fed, and the inbox of what is pushed."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from anymodal.errors import AnymodalError, BusyError, SessionError
from anymodal.media.spec import exact
from anymodal.session.log import Feed, SessionLog
from anymodal.types import Window

Arrived = tuple[Window, str]  # a window, and why it has nothing, or ""
MOST_WAITING = 16  # windows in an inbox
SHED = "shed: the session was too busy"
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
    which become gaps: those beyond MOST_WAITING, and all but the newest once the first in turn is stale. A session that
    cannot keep up looks at what is now, rather than at all times at what was stale_s ago.

    stale_s: a window is stale once it has waited for longer, and media as much newer have come. What a client sends at
    once after an outage has not waited; what waits for a slow session, while no more of it comes, is not behind.
    """

    def __init__(self, *, live: bool, stale_s: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self._live, self._stale_s, self._clock = live, stale_s, clock
        self._waiting: deque[Arrived] = deque()
        self._since_s: deque[float] = deque()  # when each of them came, by the clock
        self._newest_s = 0.0  # media time
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
                self._since_s.append(self._clock())
                self._newest_s = window.t1_s
                if self._live:
                    self._shed_oldest()
            self._news.notify_all()

    def batches(self, size: Callable[[], int], tick: Callable[[], None] = lambda: None) -> Iterator[list[Arrived]]:
        """At most `size()` windows at a time, and the gaps before them, as they come, until it is closed and empty."""
        try:
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._closed or self._waiting, TICK_S)
                    self._catch_up()
                    room, batch = size(), []
                    while self._waiting and room:
                        batch.append(self._next())
                        room -= not batch[-1][1]
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

    def _next(self) -> Arrived:
        self._since_s.popleft()
        return self._waiting.popleft()

    def _catch_up(self) -> None:
        """Give up all but the newest, where the first is stale."""
        first = next((i for i, (_, gap) in enumerate(self._waiting) if not gap), None)
        if not self._live or first is None:
            return
        waited_s, behind_s = self._clock() - self._since_s[first], self._newest_s - self._waiting[first][0].t1_s
        if min(waited_s, behind_s) > self._stale_s:
            for i in range(first, len(self._waiting) - 1):
                window, gap = self._waiting[i]
                self._waiting[i] = (window, gap) if gap else shed(window)

    def _shed_oldest(self) -> None:
        fresh = [i for i, (window, gap) in enumerate(self._waiting) if window.signals and not gap]
        if len(fresh) > MOST_WAITING:
            self._waiting[fresh[0]] = shed(self._waiting[fresh[0]][0])


def shed(window: Window) -> Arrived:
    """A window that is given up: a gap that counts what was in it, frames of video and one for any other stream."""
    if not window.signals:
        return window, ""
    lost = {name: len(s.data) if s.is_picture else 1 for name, s in window.signals.items()}
    dropped = {name: window.dropped.get(name, 0) + lost.get(name, 0) for name in {*window.dropped, *lost}}
    return replace(window, signals={}, dropped=dropped), SHED


def feed_of(log: SessionLog, media: str | Path | None, sidecars: Mapping[str, str | Path]) -> tuple[Feed, bool]:
    """What a log says of feeding this media and True, or a new feed, behind all windows, and False.

    Raises SessionError for no media where the log names none.
    """
    noted, windows = list(log.entries(Feed)), log.last_window() + 1
    feeds = [(place, feed) for place, feed in enumerate(noted) if feed.media]
    if media is None and not feeds:
        raise SessionError("the log names nothing to go on with", fix="feed a file, or push packets")
    name = feeds[-1][1].media if media is None else str(media) if "://" in str(media) else str(Path(media).absolute())
    for place, feed in reversed(feeds):
        if feed.media == name and (feed.done or place == feeds[-1][0]):
            if feed.done or place == len(noted) - 1:
                return feed, True
            read = noted[place + 1].first_window - feed.first_window  # then packets were pushed
            return Feed(log.last_window(), name, windows - read, feed.sidecars), False
    tables = {kind: str(Path(path).absolute()) for kind, path in sidecars.items()}
    return Feed(log.last_window(), name, windows, tables), False


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
