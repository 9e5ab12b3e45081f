"""What is dropped of a log's past, where its retention says so."""

from __future__ import annotations

import sqlite3
from math import floor

from anymodal.session.log import COMPACTION, Retention, Turn
from anymodal.stages.items import Percept

TIME_TOLERANCE_S = 1e-6


def tidy(db: sqlite3.Connection, retention: Retention, newest: Percept, window_s: float) -> None:
    """Drop what retention allows, up to the windows that the memory is rebuilt from. `newest`: the last window."""
    row = db.execute("SELECT MAX(CAST(key AS INTEGER)) FROM entries WHERE kind = ? AND window <= ?",
                     (COMPACTION, newest.index)).fetchone()
    bound = 0 if row[0] is None else row[0] + 1
    if retention.age_s is not None:
        old = floor((newest.t1_s - retention.age_s + TIME_TOLERANCE_S) / window_s)
        _drop_before(db, min(bound, old))
    while retention.size_bytes is not None and _used_bytes(db) > retention.size_bytes:
        first = _first_window(db)
        if first >= bound:
            break
        _drop_before(db, min(bound, first + max(1, (newest.index - first) // 16)))


def _drop_before(db: sqlite3.Connection, first: int) -> None:
    """Values that later windows repeat stay."""
    if first <= _first_window(db):
        return
    numbers = [n for n, in db.execute("SELECT DISTINCT vector FROM tokens WHERE window < ?", (first,))]
    db.execute("DELETE FROM tokens WHERE window < ?", (first,))
    db.execute("DELETE FROM windows WHERE number < ?", (first,))
    db.executemany("DELETE FROM vectors WHERE number = ? AND NOT EXISTS "
                   "(SELECT 1 FROM tokens WHERE vector = vectors.number)", [(n,) for n in numbers])
    db.execute("DELETE FROM entries WHERE kind = ? AND window < ?", (Turn.kind, first))
    db.execute("DELETE FROM entries WHERE kind = ? AND CAST(key AS INTEGER) + 1 < ?", (COMPACTION, first))
    db.execute("PRAGMA incremental_vacuum").fetchall()


def _first_window(db: sqlite3.Connection) -> int:
    return db.execute("SELECT MIN(number) FROM windows").fetchone()[0]


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0]
                         for name in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size
