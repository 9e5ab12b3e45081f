"""What `anymodal live` shows: rows as JSON, as plain lines, or as a view of the terminal that is drawn anew.

A row is a dict with a `type`: started, source, window, event, delta, answer, note, error, status, end.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

Row = dict[str, Any]
LINES = 12  # of what has happened, in the view
ANSWERS = 4
SILENT = ("delta", "status")


class JsonLines:
    """One object on each line of stdout."""

    keys = False

    def tell(self, row: Row) -> None:
        if row["type"] != "delta":
            print(json.dumps(row, ensure_ascii=False), flush=True)

    def draw(self, typed: str) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class PlainLines(JsonLines):
    """A line for each thing worth telling."""

    def tell(self, row: Row) -> None:
        if row["type"] not in SILENT and (text := line(row)):
            print(text, flush=True)


class View(JsonLines):
    """Sources, what has happened, answers, and the line that is being typed."""

    keys = True

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._sources: list[Row] = []
        self._lines: deque[tuple[str, str]] = deque(maxlen=LINES)
        self._answers: deque[Row] = deque(maxlen=ANSWERS)
        self._seen = "waiting for the first window"
        self._t_s = 0.0
        self._typed, self._is_over = "", False

    def tell(self, row: Row) -> None:
        kind = row["type"]
        if kind == "status":
            self._sources, self._t_s = row["sources"], row["t_s"]
        elif kind == "window":
            self._seen = line(row, always=True)
        elif kind == "delta":
            self._answer(row)["answer"] += row["text"]
        elif kind == "answer":
            self._answer(row).update(row)
        elif text := line(row):
            self._lines.append((kind, text))

    def draw(self, typed: str) -> None:
        self._typed = typed
        self._live.update(self._rendered(), refresh=True)

    def __enter__(self) -> View:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over = True
        self.draw("")
        self._live.__exit__(*error)
        sys.stdout.flush()

    def _answer(self, row: Row) -> Row:
        """The answer that a row goes on with, or a new one."""
        if not self._answers or self._answers[-1]["question"] != row["question"] or "confidence" in self._answers[-1]:
            self._answers.append({"question": row["question"], "answer": ""})
        return self._answers[-1]

    def _rendered(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        for name in ("source", "state", "rate", "lost", "waits"):
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio={"state": 4, "waits": 1}.get(name, 2))
        for source in self._sources:
            style = {"live": "green", "ended": "dim"}.get(source["state"], "yellow")
            text = source["state"] + (f": {source['text']}" if source["text"] else "")
            table.add_row(source["source"], Text(text, style=style), rates(source), losses(source),
                          f"{source['held_s']:.1f} s")
        events = [Text(text, style={"event": "bold cyan", "error": "red"}.get(kind, "dim"), no_wrap=True,
                       overflow="ellipsis") for kind, text in self._lines]
        answers: list[Text] = []
        for row in self._answers:
            answers.append(Text(f"> {row['question']}", style="bold"))
            answers.append(Text(row["answer"].strip() or "..."))
            if "confidence" in row:
                answers.append(Text("  " + relies_on(row), style="dim"))
        prompt = [] if self._is_over else [Text.assemble(("ask> ", "bold green"), self._typed, ("_", "blink"))]
        return Group(Text(f"anymodal live  {self._t_s:.1f} s", style="bold"), table,
                     Text(self._seen, style="dim", no_wrap=True, overflow="ellipsis"), *events, *answers, *prompt)


def line(row: Row, *, always: bool = False) -> str:
    """A row in words; "" for one that is not worth a line."""
    kind = row["type"]
    if kind == "source":
        since = f" since {row['from_s']:.1f} s" if row.get("from_s") is not None else ""
        return f"{row['t_s']:8.1f} s  {row['source']}: {row['state']}{since}" + (f" ({row['text']})" if row["text"] else "")
    if kind == "window":
        says = ", ".join(dict.fromkeys(s["text"] for s in row["says"]))
        dropped = ", ".join(f"{count} of {name} dropped" for name, count in row["dropped"].items())
        text = "; ".join(filter(None, (says, row["gap"], dropped)))
        return f"{row['end_s']:8.1f} s  {text or 'seen'}" if text or always else ""
    if kind == "event":
        return f"{row['t_s']:8.1f} s  {row['rule']}: {row['text']} (confidence {row['confidence']:.2f})"
    if kind == "answer":
        return f"> {row['question']}\n{row['answer'].strip()}\n  {relies_on(row)}"
    if kind == "error":
        return f"error: {row['text']}"
    if kind == "note":
        return row["text"]
    if kind == "started":
        return f"watching {', '.join(row['streams'])}"
    if kind == "end":
        sources = "; ".join(f"{s['source']}: {losses(s) or s['text'] or 'nothing lost'}" for s in row["sources"])
        return f"{row['windows']} windows, {row['end_s']:g} s; {sources}"
    return ""


def rates(source: Row) -> str:
    """'30.0 frames/s, 16.0 kHz'."""
    def words(modality: str, hz: float) -> str:
        if modality == "video":
            return f"{hz:.1f} frames/s"
        return f"{hz / 1000:.1f} kHz" if hz >= 1000 else f"{hz:.0f} Hz"

    return ", ".join(words(m, hz) for m, hz in sorted(source["rates_hz"].items(), reverse=True) if hz)


def losses(source: Row) -> str:
    """'2 shed, 1 gaps': what was lost, by reason."""
    return ", ".join(f"{count} {reason}" for reason, count in source["counts"].items()
                     if reason not in ("frames", "samples") and count)


def relies_on(row: Row) -> str:
    spans = ", ".join(f"{e['start_s']:.1f}-{e['end_s']:.1f} s {e['modality']}" for e in row["evidence"])
    return f"{spans or 'no evidence'} | confidence {row['confidence']:.2f}"
