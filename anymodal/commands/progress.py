"""Progress on stderr: bars on a terminal, a line every so often elsewhere (logs, pipes)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class Lines:
    """The same calls as a bar, as plain lines: the first and last, and one every LINE_EVERY_S between."""

    def __init__(self, what: str) -> None:
        self.what, self._next_s = what, 0.0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now_s = time.monotonic()
        if done >= total or now_s >= self._next_s:
            print(f"{self.what} {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)
            self._next_s = now_s + LINE_EVERY_S


class Bar:
    """`bar(done, total, note)` moves a bar on the terminal."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress, self._task = progress, progress.add_task(what, total=None, note="")

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)


@contextmanager
def bars() -> Iterator[Progress | None]:
    """A live display for bars, or None where stderr is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
               TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield progress


def bar(progress: Progress | None, what: str) -> Bar | Lines:
    """One named count within `bars()`."""
    return Lines(what) if progress is None else Bar(progress, what)
