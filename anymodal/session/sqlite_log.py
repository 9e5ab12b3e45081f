"""The log in one SQLite file: `SqliteLog`, and `forget`.

SQLite in write-ahead mode, on a local disk (the mode needs shared memory, which network file systems lack). Every append
is a transaction of its own that is flushed to disk before it returns (`synchronous=FULL`).

| what happens | what is left |
|---|---|
| the process is killed, at any moment | every append that returned; the one in progress is there whole or not at all |
| power is cut | the same, as far as the disk keeps what it says it has flushed |
| the disk or a quota is full | every append that returned; the one that failed raised LogFullError |
| bytes are changed on the disk | LogError where they are read: rows and values carry checksums, SQLite checks its pages |

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
from math import floor
from pathlib import Path
from typing import TypeVar

import numpy as np

from anymodal.errors import FencedError, LogError
from anymodal.session.log import COMPACTION, Entry, Joint, LogInfo, Retention
from anymodal.session.retention import TIME_TOLERANCE_S, tidy
from anymodal.session.sqlite_file import (
    APPLICATION,
    RESTORE,
    SCHEMA,
    TABLES,
    TOKENS_SEAL,
    WINDOW_SEAL,
    check_ours,
    check_whole,
    connect,
    delete,
    explained,
    in_use_by,
    seal_about,
    seal_windows,
    stopper,
    undamaged,
    upgrade,
)
from anymodal.session.values import STORED, check_percept, pack_array, pack_row, unpack_array, unpack_row, with_takes
from anymodal.stages.items import Percept
from anymodal.types import Tokens

ENTRY = "number, key, window, body"
TIDY_EVERY = 16  # windows between looks at what retention may drop
READ_AT_ONCE = 64  # windows

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
        there = LogError(f"{path} is there already", fix="reopen it to go on with it, or give another path")
        if path.exists() and path.stat().st_size:
            raise there
        made = not path.exists()
        with explained(path):
            try:  # of two that make it at once, one does
                os.close(os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if made else 0), 0o600))
            except FileExistsError:
                raise there from None
        try:
            # no write-ahead mode yet: from the start the file says what it is
            with explained(path), closing(connect(path)) as db:
                db.executescript(f"PRAGMA auto_vacuum=INCREMENTAL; BEGIN IMMEDIATE; {TABLES} "
                                 f"PRAGMA application_id={APPLICATION}; PRAGMA user_version={SCHEMA};")
                about = {**{f.name: getattr(info, f.name) for f in fields(info)}, "generation": 0}
                db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
                seal_about(db)
                db.execute("COMMIT")
            return cls.open(path, identity=info.identity, retention=retention, stopped_by=stopped_by)
        except BaseException:
            if made:
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
        with undamaged(path):
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
        check_percept(percept, self.info)
        with self._writing() as db:
            due = self.last_window() + 1
            if percept.index < due:
                return False
            if percept.index > due:
                raise LogError(f"{self.path}: window {percept.index} cannot enter before window {due}",
                               fix="windows enter in order; send a window with a gap for what is missing")
            db.execute("INSERT INTO windows VALUES (?, ?, ?, ?, ?, ?, NULL)", (
                percept.index, percept.t0_s, percept.t1_s, percept.frames, percept.dropped, percept.gap))
            for place, tokens in enumerate(percept.tokens):
                repeats = percept.repeats.get(tokens.stream)
                vector = self._store(tokens) if repeats is None else self._find(tokens.stream, repeats)
                db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", (
                    percept.index, place, tokens.stream, tokens.modality, tokens.t0_s, tokens.t1_s,
                    float(tokens.familiarity), repeats, vector))
            seal_windows(db, percept.index)
            if self._retention != Retention() and due % TIDY_EVERY == 0:
                tidy(db, self._retention, percept, self.info.window_s)
        return True

    def append(self, entry: Entry) -> int:
        """Store an entry; returns its sequence number (that of the first, for a replay)."""
        row = pack_row(entry.to_row())
        key, window = _place(entry)
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
        places = None if tokens.positions is None else pack_array(with_takes(tokens))
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
        version = self._version()
        newer = "v.positions, v.extras" if version > 1 else "NULL, NULL"
        whole = f"w.seal IS {WINDOW_SEAL}, t.window IS NULL OR t.seal IS {TOKENS_SEAL}" if version > 2 else "1, 1"
        for start in range(max(0, first), last + 1, READ_AT_ONCE):
            stop = min(last, start + READ_AT_ONCE - 1)
            rows = self._all(
                f"SELECT {whole}, w.number, w.t0_s, w.t1_s, w.frames, w.dropped, w.gap, t.stream, t.modality, t.t0_s, "
                f"t.t1_s, t.familiarity, t.repeats, v.joint, v.embeds, {newer} FROM windows w "
                "LEFT JOIN tokens t ON t.window = w.number "
                "LEFT JOIN vectors v ON v.number = t.vector WHERE w.number BETWEEN ? AND ? "
                "ORDER BY w.number, t.place", (start, stop))
            self._check_whole(rows)
            for (number, t0_s, t1_s, frames, dropped, gap), found in groupby(rows, key=lambda row: row[2:8]):
                rest = [row[8:] for row in found if row[8] is not None]
                tokens = tuple(self._tokens(number, row) for row in rest)
                yield Percept(self.info.session, number, t0_s, t1_s, tokens, frames, dropped,
                              {row[0]: row[5] for row in rest if row[5] is not None}, gap)

    def _tokens(self, window: int, row: tuple) -> Tokens:
        stream, modality, t0_s, t1_s, familiarity, _, *stored = row
        with undamaged(self.path, f"window {window}, {stream!r}"):
            joint, places, extras = (None if x is None else unpack_array(x) for x in (stored[0], *stored[2:]))
            embeds = unpack_array(stored[1])
            takes, places = ((0, 0, 0), None) if places is None else (tuple(places[0].tolist()), places[1:])
            return Tokens(self.info.session, stream, window, modality, t0_s, t1_s, embeds, joint, familiarity, places,
                          takes, extras)

    def gaps(self, last: int) -> int:
        """How many of the windows up to `last` are gaps."""
        return self._all("SELECT COUNT(*) FROM windows WHERE gap != '' AND number <= ?", (last,))[0][0]

    def entries(self, kind: type[E], *, before_s: float | None = None) -> Iterator[E]:
        """Entries of a kind in order; `before_s`: those whose window had ended by then."""
        last = 2**62 if before_s is None else self._ended_by(before_s) - 1
        for row in self._all(f"SELECT {ENTRY} FROM entries WHERE kind = ? AND window <= ? ORDER BY number",
                             (kind.kind, last)):
            yield self._entry(kind, *row)

    def compaction_before(self, kind: type[E], t_s: float | None = None) -> E | None:
        """The newest compaction that was in effect at a media time, or now."""
        last = self.last_window() if t_s is None else self._ended_by(t_s) - 1
        rows = self._all(f"SELECT {ENTRY} FROM entries WHERE kind = ? AND window <= ? "
                         "ORDER BY window DESC, number DESC LIMIT 1", (kind.kind, last))
        return self._entry(kind, *rows[0]) if rows else None

    def joint(self, modality: str, first: int = 0, last: int | None = None) -> Joint | None:
        """The joint-space vectors of a modality; None where there are none. A repeated window has the repeated one's."""
        whole = f"1, t.seal IS {TOKENS_SEAL}" if self._version() > 2 else "1, 1"
        rows = self._all(f"SELECT {whole}, t.window, t.stream, v.joint FROM tokens t JOIN vectors v ON v.number = t.vector "
                         "WHERE t.modality = ? AND t.window BETWEEN ? AND ? AND v.joint IS NOT NULL "
                         "ORDER BY t.window, t.place", (modality, first, 2**62 if last is None else last))
        if not rows:
            return None
        self._check_whole(rows)
        with undamaged(self.path):
            vectors = np.stack([unpack_array(row[-1]) for row in rows])
        return Joint(np.array([row[2] for row in rows]), tuple(row[3] for row in rows), vectors)

    def _check_whole(self, rows: list[tuple]) -> None:
        """Raise LogError for a row whose first two columns say that the window's or the tokens' seal is broken."""
        for window_whole, tokens_whole, number, *_ in rows:
            if not (window_whole and tokens_whole):
                raise LogError(f"{self.path}: window {number}: stored values do not match their checksum", fix=RESTORE)

    def _version(self) -> int:
        return self._one("PRAGMA user_version", default=0)

    def _entry(self, kind: type[E], number: int, key: str | None, window: int, body: bytes) -> E:
        with undamaged(self.path, f"entry {number}, {kind.kind}"):
            entry = kind.from_row(unpack_row(body))
            if _place(entry) != (key, window):
                raise LogError("it is not where it belongs", fix=RESTORE)
            return entry

    def _ended_by(self, t_s: float) -> int:
        """How many windows had ended at a media time, of those in the log."""
        return min(self.last_window() + 1, floor((t_s + TIME_TOLERANCE_S) / self.info.window_s))

    def _all(self, query: str, given: tuple = ()) -> list[tuple]:
        with self._lock:
            self._check_open()
            with undamaged(self.path):
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


def _place(entry: Entry) -> tuple[str | None, int]:
    """The columns that an entry is found by."""
    return entry.key, entry.effective_from if entry.kind == COMPACTION else entry.window


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
