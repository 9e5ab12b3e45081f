"""What every script in `benchmarks/` shares: a table on the screen, and rows for machines with `--json FILE`.

A row is {"measure", "ours", "baseline", "ratio", "target"}; `ratio` is over 1 where ours is better.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measure. `ours` and `baseline` in `unit`; `target` is the least wanted ratio, None where none is set."""

    measure: str
    ours: float
    baseline: float
    ratio: float
    target: float | None = None
    unit: str = ""

    @property
    def verdict(self) -> str:
        return "" if self.target is None else "ok" if self.ratio >= self.target else "below"

    def to_json(self) -> dict:
        """The keys that every benchmark writes, and the unit."""
        return {k: round(float(v), 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser that has `--json FILE`."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", metavar="FILE", type=Path, help="write the rows to FILE")
    return made


def best_of_interleaved(contenders: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The fastest time of each contender in seconds; they take turns, so that a busy machine slows all alike."""
    best = [float("inf")] * len(contenders)
    for turn in range(repeats):
        for i in range(len(contenders)):
            i = (i + turn) % len(contenders)
            start_s = time.perf_counter()
            contenders[i]()
            best[i] = min(best[i], time.perf_counter() - start_s)
    return best


def report(title: str, rows: Sequence[Row], json_path: Path | None = None) -> None:
    """Print the table; write the rows as a JSON list where `json_path` is given."""
    print(f"\n{title}\n")
    cells = [("measure", "ours", "baseline", "unit", "ratio", "target", "")]
    for row in rows:
        target = "" if row.target is None else f">= {row.target:g}"
        cells.append(
            (row.measure, f"{row.ours:.4g}", f"{row.baseline:.4g}", row.unit, f"{row.ratio:.2f}", target, row.verdict)
        )
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        first, *rest = (cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        print("  ".join((first, *rest)).rstrip())
    if json_path is not None:
        json_path.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten: {json_path}")
