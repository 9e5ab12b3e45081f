"""The log in one SQLite file: `SqliteLog`, and `forget`.

SQLite in write-ahead mode, on a local disk (the mode needs shared memory, which network file systems lack). Every append
is a transaction of its own that is flushed to disk before it returns (`synchronous=FULL`).

| what happens | what is left |
|---|---|
| the process is killed, at any moment | every append that returned; the one in progress is there whole or not at all |
| power is cut | the same, as far as the disk keeps what it says it has flushed |
| the disk or a quota is full | every append that returned; the one that failed raised LogFullError |
| bytes are changed on the disk | LogError where they are read: values carry checksums, SQLite checks its pages |

One writer: opening for writing adds one to the generation number in the file, and every write checks in its own
transaction that the number is still its writer's. A predecessor that wakes up gets FencedError and has written nothing.
Files beside the log while it is open: `-wal` and `-shm`. They and the log are readable by their owner only.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from itertools import groupby
from math import floor, isfinite
from pathlib import Path
from typing import TypeVar

import numpy as np

from anymodal.errors import FencedError, LogError
from anymodal.session.log import COMPACTION, Entry, Joint, LogInfo, Retention, Turn
from anymodal.session.sqlite_file import (
    APPLICATION,
    SCHEMA,
    TABLES,
    check_ours,
    check_whole,
    connect,
    delete,
    explained,
    in_use_by,
    stopper,
    upgrade,
)
from anymodal.session.values import STORED, pack_array, pack_row, unpack_array, unpack_row
from anymodal.stages.items import Percept
from anymodal.types import Tokens

TIDY_EVERY = 16  # windows between looks at what retention may drop
READ_AT_ONCE = 64  # windows
TIME_TOLERANCE_S = 1e-6

E = TypeVar("E", bound=Entry)


class SqliteLog:
    """A `SessionLog` in a file. Made by `create`, `open` and `read`; safe to use from several threads."""

    def __init__(self, path: Path, db: sqlite3.Connection, *, writes: bool, retention: Retention,
                 stopped_by: str = "") -> None:
        self.path, self._db, self._writes, self._retention, self._stopped_by = path, db, writes, retention, stopped_by
        self._lock = threading.RLock()
        self._closed = False
        self._place, self._inode = path.absolute(), path.stat().st_ino
        about = dict(db.execute("SELECT name, value FROM about"))
        self.info = LogInfo(**{f.name: about[f.name] for f in fields(LogInfo)})
        self.generation: int = about["generation"]

    @property
    def writes(self) -> bool:
        """Was it opened for writing?"""
        return self._writes

    @classmethod
    def create(cls, path: str | Path, info: LogInfo, *, retention: Retention = Retention(),
               stopped_by: str = "") -> SqliteLog:
        """A new log, open for writing. Raises LogError where there is something already."""
        path = Path(path)
        if info.dtype not in STORED:
            raise LogError(f"a log cannot store {info.dtype!r}", fix=f"set the bundle's dtype to {' or '.join(STORED)}")
        if path.exists() and path.stat().st_size:
            raise LogError(f"{path} is there already", fix="reopen it to go on with it, or give another path")
        try:
            with explained(path):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                with closing(connect(path)) as db:  # no write-ahead mode yet: from the start the file says what it is
                    db.executescript(f"PRAGMA auto_vacuum=INCREMENTAL; BEGIN IMMEDIATE; {TABLES} "
                                     f"PRAGMA application_id={APPLICATION}; PRAGMA user_version={SCHEMA};")
                    about = {**{f.name: getattr(info, f.name) for f in fields(info)}, "generation": 0}
                    db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
                    db.execute("COMMIT")
            return cls.open(path, identity=info.identity, retention=retention, stopped_by=stopped_by)
        except BaseException:
            delete(path)
            raise

    @classmethod
    def open(cls, path: str | Path, *, identity: str | None = None, retention: Retention = Retention(),
             stopped_by: str = "") -> SqliteLog:
        """An existing log for writing: from now on no other writer's appends are taken.

        `identity`: of the bundle that will read it. `stopped_by`: the command that ends this writer and forgets its log,
        where deleting the file alone would leave something; `forget` then names it. Raises LogError for a log that is not
        there, damaged, of a newer version or of another bundle.
        """
        return cls._open(Path(path), identity, True, retention, stopped_by)

    @classmethod
    def read(cls, path: str | Path, *, identity: str | None = None) -> SqliteLog:
        """An existing log for reading, beside whoever writes it."""
        return cls._open(Path(path), identity, False, Retention())

    @classmethod
    def _open(cls, path: Path, identity: str | None, writes: bool, retention: Retention, stopped_by: str = "") -> SqliteLog:
        check_ours(path)
        with explained(path):
            db = connect(path, writes=writes)
            try:
                check_whole(db, path)
                log = cls(path, db, writes=writes, retention=retention, stopped_by=stopped_by)
                if identity not in (None, log.info.identity):
                    raise LogError(f"{path} was written with another bundle: {log.info.bundle!r}, {log.info.identity}, "
                                   f"not {identity}", fix="open it with the bundle and the weights that it was made with")
                if writes:
                    db.execute("PRAGMA journal_mode=WAL")
                    upgrade(db)
                    rows = db.execute("UPDATE about SET value = value + 1 WHERE name = 'generation' RETURNING value")
                    log.generation = rows.fetchall()[0][0]
                    if stopped_by != stopper(db):
                        db.execute("INSERT OR REPLACE INTO about VALUES ('stopped_by', ?)", (stopped_by,))
                return log
            except BaseException:
                db.close()
                raise

    # -- writing ------------------------------------------------------------------------------------------------

    def append_window(self, percept: Percept) -> bool:
        """Store the next window; False for one that is there already."""
        _check_percept(percept, self.info)
        with self._writing() as db:
            due = self.last_window() + 1
            if percept.index < due:
                return False
            if percept.index > due:
                raise LogError(f"{self.path}: window {percept.index} cannot enter before window {due}",
                               fix="windows enter in order; send a window with a gap for what is missing")
            db.execute("INSERT INTO windows VALUES (?, ?, ?, ?, ?, ?)", (
                percept.index, percept.t0_s, percept.t1_s, percept.frames, percept.dropped, percept.gap))
            for place, tokens in enumerate(percept.tokens):
                repeats = percept.repeats.get(tokens.stream)
                vector = self._store(tokens) if repeats is None else self._find(tokens.stream, repeats)
                db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (
                    percept.index, place, tokens.stream, tokens.modality, tokens.t0_s, tokens.t1_s,
                    float(tokens.familiarity), repeats, vector))
            if self._retention != Retention() and due % TIDY_EVERY == 0:
                self._tidy(percept)
        return True

    def append(self, entry: Entry) -> int:
        """Store an entry; returns its sequence number (that of the first, for a replay)."""
        row = pack_row(entry.to_row())
        key = entry.key
        window = entry.effective_from if entry.kind == COMPACTION else entry.window
        with self._writing() as db:
            if key is not None:
                found = db.execute("SELECT number FROM entries WHERE kind = ? AND key = ?", (entry.kind, key)).fetchone()
                if found:
                    return found[0]
            done = db.execute("INSERT INTO entries (kind, key, window, body) VALUES (?, ?, ?, ?)",
                              (entry.kind, key, window, row))
            return done.lastrowid

    def _store(self, tokens: Tokens) -> int:
        joint = None if tokens.joint is None else pack_array(tokens.joint, self.info.dtype)
        embeds = pack_array(tokens.embeds, self.info.dtype)
        places = None if tokens.positions is None else pack_array(_with_takes(tokens))
        extras = None if tokens.extras is None else pack_array(tokens.extras, self.info.dtype)
        return self._db.execute("INSERT INTO vectors (joint, embeds, positions, extras) VALUES (?, ?, ?, ?)",
                                (joint, embeds, places, extras)).lastrowid

    def _find(self, stream: str, window: int) -> int:
        """The values of a window, or of a later one that repeats it where retention has dropped the window itself."""
        for column in ("window", "repeats"):
            found = self._db.execute(f"SELECT vector FROM tokens WHERE {column} = ? AND stream = ?",
                                     (window, stream)).fetchone()
            if found is not None:
                return found[0]
        raise LogError(f"{self.path}: no tokens of {stream!r} in window {window} to repeat",
                       fix="repeat a window that is in the log")

    def _tidy(self, newest: Percept) -> None:
        """Drop what retention allows, up to the windows that the memory is rebuilt from."""
        row = self._db.execute("SELECT MAX(CAST(key AS INTEGER)) FROM entries WHERE kind = ? AND window <= ?",
                               (COMPACTION, newest.index)).fetchone()
        bound = 0 if row[0] is None else row[0] + 1
        if self._retention.age_s is not None:
            old = floor((newest.t1_s - self._retention.age_s + TIME_TOLERANCE_S) / self.info.window_s)
            self._drop_before(min(bound, old))
        while self._retention.size_bytes is not None and self._used_bytes() > self._retention.size_bytes:
            first = self.first_window()
            if first >= bound:
                break
            self._drop_before(min(bound, first + max(1, (newest.index - first) // 16)))

    def _drop_before(self, first: int) -> None:
        """Values that later windows repeat stay."""
        if first <= self.first_window():
            return
        numbers = [n for n, in self._db.execute("SELECT DISTINCT vector FROM tokens WHERE window < ?", (first,))]
        self._db.execute("DELETE FROM tokens WHERE window < ?", (first,))
        self._db.execute("DELETE FROM windows WHERE number < ?", (first,))
        self._db.executemany("DELETE FROM vectors WHERE number = ? AND NOT EXISTS "
                             "(SELECT 1 FROM tokens WHERE vector = vectors.number)", [(n,) for n in numbers])
        self._db.execute("DELETE FROM entries WHERE kind = ? AND window < ?", (Turn.kind, first))
        self._db.execute("DELETE FROM entries WHERE kind = ? AND CAST(key AS INTEGER) + 1 < ?",
                         (COMPACTION, first))
        self._db.execute("PRAGMA incremental_vacuum").fetchall()

    def _used_bytes(self) -> int:
        pages, free, size = (self._db.execute(f"PRAGMA {name}").fetchone()[0]
                             for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    # -- reading ------------------------------------------------------------------------------------------------

    def last_window(self) -> int:
        """The number of the newest window, or -1."""
        return self._one("SELECT MAX(number) FROM windows", default=-1)

    def first_window(self) -> int:
        """The number of the oldest window that retention has left; 0 in a log without windows."""
        return self._one("SELECT MIN(number) FROM windows", default=0)

    def windows(self, first: int = 0, last: int | None = None) -> Iterator[Percept]:
        """Windows `first` to `last`, both included, with the tokens of repeated ones filled in.

        Raises LogError for windows that retention has dropped.
        """
        last = self.last_window() if last is None else min(last, self.last_window())
        if first <= last and first < (oldest := self.first_window()):
            raise LogError(f"{self.path}: windows before {oldest} ({oldest * self.info.window_s:g} s) were dropped by "
                           f"the log's retention", fix=f"ask about {oldest * self.info.window_s:g} s or later")
        newer = "v.positions, v.extras" if self._one("PRAGMA user_version", default=0) > 1 else "NULL, NULL"
        for start in range(max(0, first), last + 1, READ_AT_ONCE):
            stop = min(last, start + READ_AT_ONCE - 1)
            rows = self._all(
                "SELECT w.number, w.t0_s, w.t1_s, w.frames, w.dropped, w.gap, t.stream, t.modality, t.t0_s, t.t1_s, "
                f"t.familiarity, t.repeats, v.joint, v.embeds, {newer} FROM windows w "
                "LEFT JOIN tokens t ON t.window = w.number "
                "LEFT JOIN vectors v ON v.number = t.vector WHERE w.number BETWEEN ? AND ? "
                "ORDER BY w.number, t.place", (start, stop))
            for (number, t0_s, t1_s, frames, dropped, gap), found in groupby(rows, key=lambda row: row[:6]):
                rest = [row[6:] for row in found if row[6] is not None]
                tokens = tuple(self._tokens(number, row) for row in rest)
                yield Percept(self.info.session, number, t0_s, t1_s, tokens, frames, dropped,
                              {row[0]: row[5] for row in rest if row[5] is not None}, gap)

    def _tokens(self, window: int, row: tuple) -> Tokens:
        stream, modality, t0_s, t1_s, familiarity, _, *stored = row
        with explained(self.path, f"window {window}, {stream!r}"):
            joint, embeds, places, extras = (None if x is None else unpack_array(x) for x in stored)
            takes, places = ((0, 0, 0), None) if places is None else (tuple(places[0].tolist()), places[1:])
            return Tokens(self.info.session, stream, window, modality, t0_s, t1_s, embeds, joint, familiarity, places,
                          takes, extras)

    def gaps(self, last: int) -> int:
        """How many of the windows up to `last` are gaps."""
        return self._all("SELECT COUNT(*) FROM windows WHERE gap != '' AND number <= ?", (last,))[0][0]

    def entries(self, kind: type[E], *, before_s: float | None = None) -> Iterator[E]:
        """Entries of a kind in order; `before_s`: those whose window had ended by then."""
        last = 2**62 if before_s is None else self._ended_by(before_s) - 1
        for number, body in self._all("SELECT number, body FROM entries WHERE kind = ? AND window <= ? ORDER BY number",
                                      (kind.kind, last)):
            yield self._entry(kind, number, body)

    def compaction_before(self, kind: type[E], t_s: float | None = None) -> E | None:
        """The newest compaction that was in effect at a media time, or now."""
        last = self.last_window() if t_s is None else self._ended_by(t_s) - 1
        rows = self._all("SELECT number, body FROM entries WHERE kind = ? AND window <= ? "
                         "ORDER BY window DESC, number DESC LIMIT 1", (kind.kind, last))
        return self._entry(kind, *rows[0]) if rows else None

    def joint(self, modality: str, first: int = 0, last: int | None = None) -> Joint | None:
        """The joint-space vectors of a modality; None where there are none. A repeated window has the repeated one's."""
        rows = self._all("SELECT t.window, t.stream, v.joint FROM tokens t JOIN vectors v ON v.number = t.vector "
                         "WHERE t.modality = ? AND t.window BETWEEN ? AND ? AND v.joint IS NOT NULL "
                         "ORDER BY t.window, t.place", (modality, first, 2**62 if last is None else last))
        if not rows:
            return None
        with explained(self.path):
            vectors = np.stack([unpack_array(joint) for _, _, joint in rows])
        return Joint(np.array([row[0] for row in rows]), tuple(row[1] for row in rows), vectors)

    def _entry(self, kind: type[E], number: int, body: bytes) -> E:
        with explained(self.path, f"entry {number}, {kind.kind}"):
            return kind.from_row(unpack_row(body))

    def _ended_by(self, t_s: float) -> int:
        """How many windows had ended at a media time, of those in the log."""
        return min(self.last_window() + 1, floor((t_s + TIME_TOLERANCE_S) / self.info.window_s))

    def _all(self, query: str, given: tuple = ()) -> list[tuple]:
        with self._lock:
            self._check_open()
            with explained(self.path):
                return self._db.execute(query, given).fetchall()

    def _one(self, query: str, default: int) -> int:
        found = self._all(query)[0][0]
        return default if found is None else found

    # -- both ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the log. Closing twice does nothing."""
        with self._lock:
            if not self._closed:
                if self._stopped_by:
                    with suppress(LogError), self._writing() as db:
                        db.execute("UPDATE about SET value = '' WHERE name = 'stopped_by'")
                self._closed = True
                self._db.close()

    def __enter__(self) -> SqliteLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"{self.path} was closed", fix="open it again")
        try:
            if self._place.stat().st_ino == self._inode:
                return
        except OSError:
            pass
        raise LogError(f"{self.path} is gone: it was forgotten, or moved", fix="close the session; a new one has a new log")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction of the generation's own writer; nothing of it is left if anything in it fails."""
        with self._lock:
            self._check_open()
            if not self._writes:
                raise LogError(f"{self.path} was opened for reading", fix="open it for writing")
            with explained(self.path):
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    now = self._db.execute("SELECT value FROM about WHERE name = 'generation'").fetchone()[0]
                    if now != self.generation:
                        raise FencedError(f"{self.path} was taken over by another writer: its generation is {now}, "
                                          f"this writer's {self.generation}", fix="reopen it to take it back")
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise


def forget(path: str | Path, *, force: bool = False) -> list[Path]:
    """Delete a log and the files beside it; returns what was deleted. A writer that still has it open is fenced first.

    Raises LogError for a file that is no session's log, and for one whose writer is to be ended by another command
    (`stopped_by`); `force` deletes either.
    """
    path = Path(path)
    if not force or not path.exists():
        check_ours(path)
        if command := in_use_by(path):
            raise LogError(f"{path} is open in a session that would go on without it", fix=command)
    with suppress(LogError):  # a damaged log has no writer
        SqliteLog.open(path).close()
    return delete(path)


def _check_percept(percept: Percept, info: LogInfo) -> None:
    where = f"window {percept.index} of session {percept.session!r}"
    if percept.session != info.session:
        raise LogError(f"{where} does not belong to session {info.session!r}", fix="append it to its own log")
    t0_s = percept.index * info.window_s
    if not (isfinite(percept.t1_s) and percept.t0_s < percept.t1_s and abs(percept.t0_s - t0_s) < info.window_s / 2):
        raise LogError(f"{where} covers {percept.t0_s:g} to {percept.t1_s:g} s, where {t0_s:g} s was expected",
                       fix="number windows on the session's media clock")
    for tokens in percept.tokens:
        if tokens.embeds.ndim != 2 or not np.isfinite(tokens.embeds).all():
            raise LogError(f"{where}: tokens of {tokens.stream!r}, {tokens.embeds.shape}, are no finite (N, D) values",
                           fix="check the encoder of that modality")
        count, width = tokens.embeds.shape
        if tokens.positions is not None and (tokens.positions.shape != (count, 3) or tokens.positions.dtype != np.int32):
            raise LogError(f"{where}: positions of {tokens.stream!r} are {tokens.positions.dtype} "
                           f"{tokens.positions.shape}, not int32 {(count, 3)}", fix="check the encoder of that modality")
        if tokens.extras is not None and (tokens.extras.shape[1:] != (count, width)
                                          or not np.isfinite(tokens.extras).all()):
            raise LogError(f"{where}: extras of {tokens.stream!r}, {tokens.extras.shape}, are no finite "
                           f"(L, {count}, {width}) values", fix="check the encoder of that modality")


def _with_takes(tokens: Tokens) -> np.ndarray:
    """Positions as they are stored: the first row says what the window takes."""
    return np.concatenate([np.array([tokens.takes], np.int32), tokens.positions])
