"""IMU and other sensors beside a clip: NAME.<modality>.csv or NAME.<modality>.jsonl, times on the media clock.
Senses of pictures are beside it as folders, videos and arrays: `anymodal.media.pictures`.

CSV: a header with `time_s` and the axes by name, units in the names (accel_x_m_s2, gyro_z_rad_s, depth_m, ...).
JSONL: one object per line with the same keys. Times in seconds, strictly increasing.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from anymodal.errors import SidecarError, nearest
from anymodal.media.spec import ceil_index

TABLES = (".csv", ".jsonl")
PICTURES = (".npz", ".npy", ".mkv", "")  # "": a folder
LONGEST_BRIDGE_S = 0.5  # two readings further apart than this are not joined by a line
IMU_AXES = ("accel_x_m_s2", "accel_y_m_s2", "accel_z_m_s2", "gyro_x_rad_s", "gyro_y_rad_s", "gyro_z_rad_s")


def find_sidecars(path: str | Path, kinds: tuple[str, ...] = TABLES + PICTURES) -> dict[str, Path]:
    """The sidecars of a clip by modality: for clip.mp4, clip.imu.csv is {'imu': ...}; of `kinds` the first one wins."""
    path = Path(path)
    found: dict[str, Path] = {}
    if not path.parent.is_dir():
        return found
    for suffix in kinds:
        for candidate in sorted(path.parent.glob(f"{_glob_escape(path.stem)}.*{suffix}")):
            modality = candidate.name[len(path.stem) + 1 :].removesuffix(suffix)
            if modality and "." not in modality and candidate.is_dir() == (not suffix):
                found.setdefault(modality, candidate)
    return found


def _glob_escape(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def read_sidecar(path: str | Path, axes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Read times (N,) float64 and readings (N, C) float32 of the named axes. Raises SidecarError."""
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list((_csv_rows if path.suffix.lower() == ".csv" else _jsonl_rows)(file, path, ("time_s", *axes)))
    except FileNotFoundError as error:
        raise SidecarError(f"no sidecar {path}", fix="check the path") from error
    except OSError as error:
        raise SidecarError(f"{path} cannot be read: {error.strerror}", fix="check the file") from error
    except UnicodeDecodeError as error:
        raise SidecarError(f"{path} is not UTF-8 text", fix="save the table as UTF-8 CSV or JSONL") from error
    if not rows:
        raise SidecarError(f"{path} has no readings", fix="write one line per reading, or remove the file")
    table = np.array([values for _, values in rows], dtype=np.float64)
    check_times(table[:, 0], lambda i: f"{path}, line {rows[i][0]}: time_s")
    return table[:, 0], table[:, 1:].astype(np.float32)


def check_times(times_s: np.ndarray, where: Callable[[int], str]) -> None:
    """Raise SidecarError, naming the place of time i by `where(i)`, unless times strictly increase."""
    steps_s = np.diff(times_s)
    if not (steps_s <= 0).any():
        return
    at = int(np.argmax(steps_s <= 0))
    what = "is repeated" if steps_s[at] == 0 else f"comes after {times_s[at]:.15g}"
    raise SidecarError(
        f"{where(at + 1)} {times_s[at + 1]:.15g} {what}", fix="sort the rows by time_s and remove duplicates"
    )


def _csv_rows(file, path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[float]]]:
    reader = csv.reader(file)
    header = [name.strip() for name in next(reader, [])]
    missing = [c for c in columns if c not in header]
    if missing:
        raise _missing(path, missing, columns, header)
    at = [header.index(c) for c in columns]
    try:
        for row in reader:
            if not row or not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise SidecarError(
                    f"{path}, line {reader.line_num}: {len(row)} cells, the header has {len(header)}",
                    fix="give every row one cell per column",
                )
            yield reader.line_num, [_number(row[i], path, reader.line_num, c) for i, c in zip(at, columns)]
    except csv.Error as error:
        raise SidecarError(f"{path}, line {reader.line_num}: {error}", fix="save the table as plain CSV") from error


def _jsonl_rows(file, path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[float]]]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise SidecarError(f"{path}, line {line}: not JSON: {error}", fix="write a JSON object per line") from error
        if not isinstance(row, dict):
            raise SidecarError(f"{path}, line {line}: not a JSON object", fix="write one JSON object per line")
        missing = [c for c in columns if c not in row]
        if missing:
            raise _missing(path, missing, columns, list(row), line)
        yield line, [_number(row[c], path, line, c) for c in columns]


def _missing(path: Path, missing: list[str], columns: tuple[str, ...], found: list[str], line: int = 1) -> SidecarError:
    return SidecarError(
        f"{path}, line {line}: no column {missing[0]!r}; the columns wanted are {', '.join(columns)}",
        fix=nearest(missing[0], found) if found else "write a header line with these columns",
    )


def _number(cell, path: Path, line: int, column: str) -> float:
    try:
        if isinstance(cell, bool):
            raise ValueError
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise SidecarError(f"{path}, line {line}: {column} is {cell!r:.40}, not a number", fix="give a finite number")
    return value


def resample(
    times_s: np.ndarray, readings: np.ndarray, rate_hz: Fraction, longest_bridge_s: float = LONGEST_BRIDGE_S
) -> Iterator[tuple[int, np.ndarray]]:
    """Readings (N, C) at times (N,) -> (grid index, float32 (T, C)) per run, linear between readings.

    A run ends where two readings are more than `longest_bridge_s` apart; times before 0 only serve to interpolate.
    """
    breaks = np.flatnonzero(np.diff(times_s) > longest_bridge_s) + 1
    for part in np.split(np.arange(len(times_s)), breaks):
        low_s, high_s = Fraction(float(times_s[part[0]])), Fraction(float(times_s[part[-1]]))
        first = max(0, ceil_index(low_s - Fraction(1, 10**9), rate_hz))
        last = (high_s + Fraction(1, 10**9)) * rate_hz // 1
        if first > last:
            continue
        grid_s = np.arange(first, last + 1) / float(rate_hz)
        columns = [np.interp(grid_s, times_s[part], readings[part, c]) for c in range(readings.shape[1])]
        yield first, np.stack(columns, axis=1).astype(np.float32)
