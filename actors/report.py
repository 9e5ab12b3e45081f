"""What a job shows: progress while it runs, and a summary at its end."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from actors.manifest import Row
from actors.results import Results

LINE_EVERY_S = 5.0


class Meter:
    """Rows done, with rate and time left: a bar on a terminal, else a line every few seconds. A context manager."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.failed, self._skipped = total, done, 0, done
        self._began_s = self._line_s = time.monotonic()
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(), TimeRemainingColumn(), console=console) if console.is_terminal else None
        self._task = self._bar.add_task("rows", total=total, completed=done, note="") if self._bar else None

    def __enter__(self) -> Meter:
        if self._bar:
            self._bar.start()
        elif self.done:
            self.say(f"{self.done}/{self.total} rows were done before")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, note: str) -> None:
        """Show a note."""
        if self._bar:
            self._bar.update(self._task, note=note)
        else:
            print(note, file=sys.stderr, flush=True)

    def advance(self, failed: bool) -> None:
        """A row more is done."""
        if self.done == self._skipped:
            self._began_s = time.monotonic()  # the rate is that of answering, without the start
        self.done += 1
        self.failed += failed
        if self._bar:
            self._bar.update(self._task, completed=self.done, note=self._rate())
        elif self.done == self.total or time.monotonic() - self._line_s >= LINE_EVERY_S:
            self._line_s = time.monotonic()
            self.say(f"{self.done}/{self.total} rows  {self._rate()}")

    def _rate(self) -> str:
        took_s = time.monotonic() - self._began_s
        rate = (self.done - self._skipped - 1) / took_s if took_s else 0.0  # the first one set the clock
        left = f"  {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        fails = f"  {self.failed} failed" if self.failed else ""
        return (f"{rate:.2f} rows/s" if rate else "") + left + fails


def summarise(rows: list[Row], results: Results, model: str, wall_s: float, asked: int) -> dict[str, Any]:
    """Counts over the whole manifest; times and rate of this run, in which `asked` rows were worked on."""
    records = results.in_order(rows)
    failed = {record["id"] for record in records if record["error"]}
    waits_s = sorted(r["time_to_first_token_s"] for r in records if r["time_to_first_token_s"] is not None)
    return {
        "model": model, "rows": len(rows), "rows_failed": len(failed), "rows_done_before": len(rows) - asked,
        "questions": len(records), "answered": sum(record["error"] is None for record in records),
        "errors": dict(Counter(record["error"]["kind"] for record in records if record["error"])),
        "frames_seen": sum(record["frames_seen"] for record in records),
        "time_to_first_token_s": {"median": _at(waits_s, 0.5), "p95": _at(waits_s, 0.95)},
        "wall_s": round(wall_s, 3), "rows_per_s": round(asked / wall_s, 3) if wall_s else None}


def _at(ordered: list[float], share: float) -> float | None:
    """The value below which a share of the ordered values lies."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def show(summary: dict[str, Any], folder: str) -> None:
    """Print the summary on stdout."""
    table = Table(show_header=False, box=None, pad_edge=False)
    first = summary["time_to_first_token_s"]
    before = f", {summary['rows_done_before']} done before" if summary["rows_done_before"] else ""
    table.add_row("rows", f"{summary['rows']}, {summary['rows_failed']} failed{before}")
    table.add_row("questions", f"{summary['questions']}, {summary['answered']} answered")
    for kind, count in summary["errors"].items():
        table.add_row("", f"{count} {kind}")
    if first["median"] is not None:
        table.add_row("first text after", f"{first['median']:.2f} s (median), {first['p95']:.2f} s (95 %)")
    table.add_row("took", f"{summary['wall_s']:.1f} s, {summary['rows_per_s']:.2f} rows/s")
    table.add_row("written to", folder)
    Console(soft_wrap=True).print(table)
