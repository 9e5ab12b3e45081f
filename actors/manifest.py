"""A job's manifest: JSON lines, each a clip and what is asked about it.

    {"id": "a", "media": "clips/a.mp4", "question": "what colour is the circle?"}
    {"id": "b", "media": "https://host/b.mp4", "questions": ["what happened?", "when?"], "at": 12.5}

`media`: a path (relative to the manifest's folder), an http(s) or any other fsspec address, or null to ask without
media. `at`: a media time in seconds. `sidecars`: sensor tables by modality. `id` may be left out: the line's number.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anymodal.errors import AnymodalError, InputError, ManifestError, nearest

KEYS = ("id", "media", "question", "questions", "at", "sidecars")


@dataclass(frozen=True, slots=True)
class Row:
    """`media` as it is written, `path` as it is opened. A row with an `error` is recorded and not asked."""

    number: int  # of its line, from 1
    id: str
    media: str | None = None
    path: str | None = None
    questions: tuple[Any, ...] = ()
    at_s: float | None = None
    sidecars: dict[str, str] = field(default_factory=dict)
    error: AnymodalError | None = None


def read_manifest(path: str | Path) -> list[Row]:
    """All rows, broken ones with their error. Raises InputError for a file that is missing, unreadable or empty."""
    path = Path(path)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"manifest {path} cannot be read: {error.strerror}", fix="check the path") from error
    rows = _rows(lines, path.absolute().parent)
    if not rows:
        raise InputError(f"manifest {path} has no rows", fix='write lines such as {"id": "a", "media": "a.mp4", '
                         '"question": "what happened?"}')
    return rows


def _rows(lines: list[bytes], folder: Path) -> list[Row]:
    """A row that is not sound takes no id from one that is, and a line's number none that is given."""
    stripped = ((number, line.removeprefix(b"\xef\xbb\xbf").strip()) for number, line in enumerate(lines, 1))
    rows = [_row(line, number, folder) for number, line in stripped if line]
    given, used, named = {row.id for row in rows}, {}, {}
    for row in sorted(rows, key=lambda row: (not row.id, row.error is not None)):
        name, error = row.id, row.error
        if name in used and not error:
            error = ManifestError(f"line {row.number}: id {name!r} was used on line {used[name]}",
                                  fix="give every row an id of its own")
        if not name or name in used:
            name = name or str(row.number)
            while name in used or name in given:
                name += f" (line {row.number})"
        used[name] = row.number
        named[row.number] = replace(row, id=name, error=error)
    return [named[row.number] for row in rows]


def _row(line: bytes, number: int, folder: Path) -> Row:
    """One line; of a broken one its error, and its id and media if it has them. The id is empty where none is given."""
    raw: dict[str, Any] = {}
    try:
        raw = _object(line, number)
        return parse_row(raw, number, folder)
    except ManifestError as error:
        name, media = raw.get("id"), raw.get("media")
        return Row(number, str(name) if _is_id(name) else "", media if isinstance(media, str) else None, error=error)


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        raw = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ManifestError(f"line {number}: no JSON: {error}", fix="write one JSON object per line, in UTF-8") from error
    if not isinstance(raw, dict):
        raise ManifestError(f"line {number}: a row is an object, found {type(raw).__name__}",
                            fix='for example {"media": "a.mp4", "question": "?"}')
    return raw


def _is_id(name: Any) -> bool:
    return isinstance(name, str | int) and not isinstance(name, bool) and name != ""


def parse_row(raw: dict[str, Any], number: int, folder: Path) -> Row:
    """A line's object -> a Row. Raises ManifestError saying what is wrong with it."""

    def wrong(what: str, fix: str) -> ManifestError:
        return ManifestError(f"line {number}: {what}", fix=fix)

    for key in raw:
        if key not in KEYS:
            raise wrong(f"unknown key {key!r}", nearest(key, KEYS))
    if "media" not in raw:
        raise wrong("no 'media'", "name a file or an address, or null to ask without media")
    media, at_s, sidecars = raw["media"], raw.get("at"), raw.get("sidecars") or {}
    if media is not None and not (isinstance(media, str) and media.strip()):
        raise wrong(f"media is {media!r:.80}", "name a file or an address, or null to ask without media")
    if "id" in raw and not _is_id(raw["id"]):
        raise wrong(f"id is {raw['id']!r:.80}", "use a text or a whole number")
    if at_s is not None and (isinstance(at_s, bool) or not isinstance(at_s, int | float) or not math.isfinite(at_s)):
        raise wrong(f"at is {at_s!r:.80}", "give a media time in seconds")
    if not isinstance(sidecars, dict) or not all(isinstance(v, str) for v in sidecars.values()):
        raise wrong(f"sidecars is {sidecars!r:.80}", 'for example {"imu": "a.imu.csv"}')
    return Row(number, str(raw.get("id", "")), media, _located(media, folder), _questions(raw, wrong),
               None if at_s is None else float(at_s), {key: _located(each, folder) for key, each in sidecars.items()})


def _questions(raw: dict[str, Any], wrong: Any) -> tuple[Any, ...]:
    if ("question" in raw) == ("questions" in raw):
        raise wrong("'question' and 'questions' are both there" if "question" in raw else "no 'question'",
                    "give a 'question', or a list of 'questions'")
    questions = [raw["question"]] if "question" in raw else raw["questions"]
    if not isinstance(questions, list) or not questions:
        raise wrong(f"questions is {questions!r:.80}", 'give a list such as ["what happened?", "when?"]')
    return tuple(questions)


def _located(media: str | None, folder: Path) -> str | None:
    return media if media is None or "://" in media else str(folder / media)
