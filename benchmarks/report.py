"""What every script in `benchmarks/` shares: a table on the screen, and rows for machines with `--json FILE`.

A row is {"measure", "ours", "baseline", "ratio", "target"}, and where it applies "case". `ratio` is over 1 where ours is
better, and `target` its least; rows with "at_most" are measured the other way round: their target is the most.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from anymodal.errors import OutputError, check_writable


@dataclass(frozen=True)
class Row:
    """One measure. `ours` and `baseline` in `unit`; `target` is the least wanted ratio, None where none is set, and
    with `at_most` the most."""

    measure: str
    ours: float
    baseline: float
    ratio: float
    target: float | None = None
    unit: str = ""
    case: str = ""
    at_most: bool = False

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        if self.at_most:
            return "ok" if self.ratio <= self.target else "above"
        return "ok" if self.ratio >= self.target else "below"

    def to_json(self) -> dict:
        """The keys that every benchmark writes, and the unit."""
        found = {k: round(float(v), 4) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return {k: v for k, v in found.items() if k not in ("case", "at_most") or v}


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser that has `--json FILE`."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", metavar="FILE", type=writable, help="write the rows to FILE")
    return made


def writable(path: str) -> Path:
    """Of an argument: tried before anything is measured."""
    try:
        check_writable(Path(path))
    except OutputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(path)


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
        target = "" if row.target is None else f"{'<=' if row.at_most else '>='} {row.target:g}"
        cells.append((f"{row.measure} {row.case}".rstrip(), f"{row.ours:.4g}", f"{row.baseline:.4g}", row.unit,
                      f"{row.ratio:.3g}", target, row.verdict))
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        first, *rest = (cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        print("  ".join((first, *rest)).rstrip())
    if json_path is not None:
        json_path.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten: {json_path}")
