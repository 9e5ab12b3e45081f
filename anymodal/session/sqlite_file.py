"""A session's log as a file: its tables, how it is opened and checked, and SQLite's errors in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from anymodal.errors import LogError, LogFullError

SCHEMA = 2  # of this module; a file says its own in user_version. Version 1 has no positions and no extras
APPLICATION = 0x616D6C67  # "amlg" in the file's header tells a session's log from other databases
BUSY_S = 10.0  # how long to wait for another process's transaction
SIDE_FILES = ("-wal", "-shm", "-journal")

TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE windows (number INTEGER PRIMARY KEY, t0_s REAL, t1_s REAL, frames INTEGER, dropped INTEGER, gap TEXT);
CREATE INDEX windows_missing ON windows (number) WHERE gap != '';
CREATE TABLE vectors (number INTEGER PRIMARY KEY, joint BLOB, embeds BLOB, positions BLOB, extras BLOB);
CREATE TABLE tokens (window INTEGER, place INTEGER, stream TEXT, modality TEXT, t0_s REAL, t1_s REAL, familiarity REAL,
                     repeats INTEGER, vector INTEGER, PRIMARY KEY (window, place)) WITHOUT ROWID;
CREATE INDEX tokens_by_vector ON tokens (vector);
CREATE TABLE entries (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, key TEXT, window INTEGER, body BLOB);
CREATE UNIQUE INDEX entries_once ON entries (kind, key) WHERE key IS NOT NULL;
CREATE INDEX entries_by_window ON entries (kind, window);
"""


def connect(path: Path, *, writes: bool = True) -> sqlite3.Connection:
    mode = "rw" if writes else "ro"
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_S, isolation_level=None,
                         check_same_thread=False)
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA secure_delete=ON")  # what retention drops is overwritten
    db.execute("PRAGMA journal_size_limit=16777216")
    return db


def upgrade(db: sqlite3.Connection) -> None:
    """Bring a log of an earlier version up to this one, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if version(db) < SCHEMA:
            db.execute("ALTER TABLE vectors ADD COLUMN positions BLOB")
            db.execute("ALTER TABLE vectors ADD COLUMN extras BLOB")
            db.execute(f"PRAGMA user_version={SCHEMA}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


def stopper(db: sqlite3.Connection) -> str:
    """The command that ends a log's last writer and forgets the log; "" where forgetting it is enough."""
    found = db.execute("SELECT value FROM about WHERE name = 'stopped_by'").fetchone()
    return found[0] if found else ""


def in_use_by(path: Path) -> str:
    """The same of a log that some process has open at this moment."""
    with suppress(sqlite3.Error):  # of a damaged one nothing is known
        with closing(connect(path)) as db:
            command = stopper(db)
        return command if command and _is_open(path) else ""
    return ""


def _is_open(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0.0)) as db:
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            stopper(db)
        except sqlite3.OperationalError:
            return True
    return False


def delete(path: Path) -> list[Path]:
    """Delete a log and the files beside it; returns those that were there."""
    gone = [p for p in (Path(f"{path}{end}") for end in (*SIDE_FILES, "")) if p.exists()]
    with explained(path):
        for file in gone:
            file.unlink(missing_ok=True)
    return gone


def is_log(path: Path) -> bool:
    """Does a file's header say that it is a session's log?"""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except (OSError, ValueError):
        return False
    return header[:16] == b"SQLite format 3\0" and header[68:72] == APPLICATION.to_bytes(4, "big")


def check_ours(path: Path) -> None:
    """Raise LogError unless the file is there and is a session's log."""
    if not path.is_file():
        raise LogError(f"no log at {path}", fix="check the path")
    if not is_log(path):
        raise LogError(f"{path} is not a session's log, or is damaged from its first bytes on", fix="check the path")


def check_whole(db: sqlite3.Connection, path: Path) -> None:
    """Raise LogError for another version, or for windows that are missing."""
    if (found := version(db)) not in (1, SCHEMA):
        newer = found > SCHEMA
        raise LogError(f"{path} has version {found}, {'newer than' if newer else 'not'} {SCHEMA} that is known here",
                       fix="upgrade anymodal" if newer else "the log is damaged: restore it from a copy")
    first, last, count = db.execute("SELECT MIN(number), MAX(number), COUNT(*) FROM windows").fetchone()
    if count and last - first + 1 != count:
        raise LogError(f"{path}: {last - first + 1 - count} windows between {first} and {last} are missing",
                       fix="the log is damaged: restore it from a copy")


@contextmanager
def explained(path: Path, where: str = "") -> Iterator[None]:
    """SQLite's and the system's errors as LogErrors that name the log."""
    at = f"{path}: {where}" if where else str(path)
    try:
        yield
    except LogError as error:
        raise error if not where else LogError(f"{at}: {error.message}", fix=error.fix) from error
    except sqlite3.Error as error:
        full_code = getattr(error, "sqlite_errorcode", 0)
        code = full_code & 0xFF
        if code == sqlite3.SQLITE_FULL or full_code == sqlite3.SQLITE_IOERR_WRITE:
            raise LogFullError(f"{at} cannot grow: the disk, a quota or a limit on file sizes is reached",
                               fix="make room, then go on: nothing that was stored is lost") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise LogError(f"{at} is damaged: {error}", fix="restore it from a copy") from error
        if code == sqlite3.SQLITE_BUSY:
            raise LogError(f"{at} was locked by another process for {BUSY_S:g} s", fix="end the other process") from error
        raise LogError(f"{at}: {error}", fix="check the disk and the file's permissions") from error
    except OSError as error:
        raise LogError(f"{at}: {error.strerror}", fix="check the folder and its permissions") from error
